//! What is heard of a product's files while they come, are read and go.
//!
//! The rule of this file: what is told can be read: an event is sent after the read models have
//! taken it in, and `ready` after the search index has.

use axum::extract::State;
use axum::response::Response;
use domain::file::FileEvent;
use eventlog::{Position, RecordedEvent};
use futures::Stream;
use projections::file::{self, FileError};
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::access::{Access, Right};
use crate::app::App;
use crate::caller::Caller;
use crate::http::openapi::{LastEventIdParam, ReadFailures};
use crate::http::sse::{self, LastEventId};
use crate::http::{Path, Problem};

/// How many events one read of the log brings.
const BATCH: usize = 500;

/// What is heard of a file.
#[derive(Debug, Serialize, ToSchema)]
struct FileNews {
    /// The file.
    id: Uuid,
    /// The knowledge base that it belongs to; left out where the file is gone by now.
    #[serde(skip_serializing_if = "Option::is_none")]
    knowledge_base_id: Option<Uuid>,
    /// Its name; left out where the file is gone by now.
    #[serde(skip_serializing_if = "Option::is_none")]
    file_name: Option<String>,
    /// `processing`, `ready`, `failed` or `deleted`.
    status: &'static str,
    /// How far the processing has come, 0 to 100.
    #[serde(skip_serializing_if = "Option::is_none")]
    progress: Option<u8>,
    /// How many chunks it was cut into.
    #[serde(skip_serializing_if = "Option::is_none")]
    chunks: Option<u32>,
    /// Why it could not be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<FileError>,
}

/// Follow the files of a product
///
/// Events `upload`, `progress`, `ready`, `failed` and `deletion`, from now on or after
/// `Last-Event-ID`. The data of each is a `FileNews`; its id is a position of the log. When the
/// credential is no longer good for it, or the product is deleted, the stream ends with an event `error`
/// that says why.
#[utoipa::path(get, path = "/api/knowledge-base/{productId}/stream", tag = "Knowledge base",
    extensions(("x-access" = json!(Right::ReadKnowledge))),
    params(("productId" = Uuid, Path, description = "The product"), LastEventIdParam),
    responses((status = 200, description = "The events",
               content((FileNews = "text/event-stream"))), ReadFailures))]
pub(super) async fn stream_files(
    State(app): State<App>,
    caller: Caller,
    LastEventId(after): LastEventId,
    Path(product): Path<Uuid>,
) -> Result<Response, Problem> {
    caller.product(&app, product)?;
    let now = app.views.position();
    let after = after.map_or(now, |after| Position(after).min(now));
    let shutdown = app.shutdown.clone();
    let refused = caller.refused(app.clone(), Access::Has(Right::ReadKnowledge), Some(product));
    Ok(sse::stream(follow(app, product, after), refused, shutdown))
}

fn follow(
    app: App,
    product: Uuid,
    after: Position,
) -> impl Stream<Item = Result<sse::Event, Problem>> + Send {
    async_stream::try_stream! {
        let mut applied = app.views.watch();
        let mut position = after;
        loop {
            let goal = *applied.borrow_and_update();
            while position < goal {
                let events = app.log.read_after(position, BATCH).await.map_err(commands::Error::from)?;
                let before = position;
                for event in events.iter().take_while(|event| event.position <= goal) {
                    position = event.position;
                    if event.stream.category() != "file" || event.product != Some(product) {
                        continue;
                    }
                    if let Some((name, news)) = tell(&app, event).await? {
                        yield sse::Event::new(position.0, name, &news)?;
                    }
                }
                if position == before {
                    break;
                }
            }
            if applied.changed().await.is_err() {
                return;
            }
        }
    }
}

/// What is told of an event, under which name.
async fn tell(
    app: &App,
    event: &RecordedEvent,
) -> Result<Option<(&'static str, FileNews)>, Problem> {
    let Some(id) = event.stream.uuid() else { return Ok(None) };
    let found = app.read(|db| file::get(db, id))?;
    let mut news = FileNews {
        id,
        knowledge_base_id: found.as_ref().map(|file| file.knowledge_base_id),
        file_name: found.map(|file| file.file_name),
        status: "processing",
        progress: None,
        chunks: None,
        error: None,
    };
    let happened = domain::event::decode(&event.event_type, &event.data);
    let name = match happened.map_err(|error| Problem::internal(&error))? {
        FileEvent::Uploaded { knowledge_base, name, .. } => {
            news.knowledge_base_id = Some(knowledge_base);
            news.file_name = Some(name.to_string());
            news.progress = Some(0);
            "upload"
        }
        FileEvent::IngestionStarted { .. } => {
            news.progress = Some(0);
            "progress"
        }
        FileEvent::IngestionProgressed { percent, .. } => {
            news.progress = Some(percent);
            "progress"
        }
        FileEvent::Indexed { chunks, model_revision, .. }
        | FileEvent::Embedded { chunks, model_revision, .. } => {
            app.search.reached(event.position).await;
            if !app.search.is_active(&model_revision) {
                return Ok(None);
            }
            news.status = "ready";
            news.progress = Some(100);
            news.chunks = Some(chunks);
            "ready"
        }
        FileEvent::EmbeddingFailed { model_revision, .. }
            if !app.search.is_active(&model_revision) =>
        {
            return Ok(None);
        }
        FileEvent::Failed { code, message, .. }
        | FileEvent::EmbeddingFailed { code, message, .. } => {
            news.status = "failed";
            news.error = Some(FileError { code, message });
            "failed"
        }
        FileEvent::Deleted {} => {
            news.status = "deleted";
            "deletion"
        }
        // Who listens was told that it is gone.
        FileEvent::ErasureRequested {} | FileEvent::Erased {} => return Ok(None),
    };
    Ok(Some((name, news)))
}
