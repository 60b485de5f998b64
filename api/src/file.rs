//! Files of knowledge bases: `/api/knowledge-base/storage`, and what is heard of them while they are
//! read.
//!
//! The rule of this file: a file is shown as `ready` only when the very next search finds it.

mod stream;
mod upload;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use domain::file::FileError;
use futures::{StreamExt, TryStreamExt};
use projections::file::{self, File};
use projections::search::FileChunk;
use serde::Deserialize;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use crate::access::Right;
use crate::agent::reach;
use crate::answers::{Deleted, deleted};
use crate::app::{App, PATIENCE};
use crate::caller::{Caller, Circumstances};
use crate::http::openapi::{
    DownloadFailures, IfMatchParam, IfNoneMatchParam, MinPositionParam, PageParams, RangeParams,
    ReadFailures, WriteFailures,
};
use crate::http::page::NoFilters;
use crate::http::range::{AskedRange, Download};
use crate::http::reply::{Envelope, ListEnvelope};
use crate::http::{ETag, IfNoneMatch, ListQuery, ListReply, Path, Problem, Query, Reply, Total};
use crate::knowledge_base::visible;
use crate::lists::{total, window};

/// What every file's `ETag` says: a client can change nothing in a file but its being there.
const SEQUENCE: u64 = 1;

/// The routes that answer soon.
pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(list_files))
        .routes(routes!(get_file, delete_file))
        .routes(routes!(list_chunks))
}

/// The routes that take files in.
pub fn upload_router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(upload::upload_files))
}

/// The routes that take as long as the client's line, but for those.
pub fn long_router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(download_file)).routes(routes!(stream::stream_files))
}

/// What has become of a file.
#[derive(Clone, Copy, Debug, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum FileStatus {
    /// It is being read.
    Processing,
    /// A search finds it.
    Ready,
    /// It cannot be read.
    Failed,
}

/// What a list of files may be narrowed by.
#[derive(Clone, Copy, Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct FileFilters {
    /// Only files of this status.
    status: Option<FileStatus>,
}

impl FileStatus {
    fn as_str(self) -> &'static str {
        match self {
            FileStatus::Processing => "processing",
            FileStatus::Ready => "ready",
            FileStatus::Failed => "failed",
        }
    }
}

fn not_found() -> Problem {
    commands::Error::refused(&FileError::NotFound).into()
}

/// A file that the caller may see: one of a knowledge base that it may see.
fn visible_file(app: &App, caller: &Caller, id: Uuid) -> Result<File, Problem> {
    // Asked first: what is ready by then is found by a search that comes later.
    let indexed = app.search.position();
    let found = app.read(|db| file::get(db, id))?.ok_or_else(not_found)?;
    match visible(app, caller, found.knowledge_base_id) {
        Ok(_) => Ok(found.as_of_index(indexed.0)),
        Err(problem) if problem.status() == StatusCode::NOT_FOUND => Err(not_found()),
        Err(problem) => Err(problem),
    }
}

/// List the files of a knowledge base
///
/// Newest first, each with its status, its progress, its chunks, and why it could not be read.
#[utoipa::path(get, path = "/api/knowledge-base/storage/{knowledgeBaseId}", tag = "Knowledge base",
    extensions(("x-access" = json!(Right::ReadKnowledge))),
    params(("knowledgeBaseId" = Uuid, Path, description = "The knowledge base"), FileFilters, PageParams,
           MinPositionParam),
    responses((status = 200, description = "The files", body = ListEnvelope<File>), ReadFailures))]
async fn list_files(
    State(app): State<App>,
    caller: Caller,
    Path(base): Path<Uuid>,
    query: ListQuery<FileFilters>,
) -> Result<ListReply<File>, Problem> {
    visible(&app, &caller, base)?;
    let window = window(&query)?;
    let status = query.filters.status.map(FileStatus::as_str);
    let indexed = app.search.position();
    let listing = app.read(|db| file::list(db, base, status, indexed.0, window))?;
    let total = total(&query, &listing);
    Ok(query.reply("Files", listing.items, total))
}

/// Look at a file
///
/// Its status, its progress, and why it could not be read. The `ETag` stands for what a client can
/// change: progress does not move it, so it does not spare anybody this answer.
#[utoipa::path(get, path = "/api/knowledge-base/storage/file/{id}", tag = "Knowledge base",
    extensions(("x-access" = json!(Right::ReadKnowledge))),
    params(("id" = Uuid, Path, description = "The file"), MinPositionParam),
    responses((status = 200, description = "The file", body = Envelope<File>), ReadFailures))]
async fn get_file(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<Uuid>,
) -> Result<Reply<File>, Problem> {
    let file = visible_file(&app, &caller, id)?;
    Ok(Reply::ok("File", file).etag(&ETag::of_sequence(SEQUENCE)))
}

/// List the chunks of a file
///
/// The pieces that searches find, in the order of the file, each with where it stands: characters of the
/// file's text, headings, the page of a PDF or slide of a presentation, the sheet of a workbook and its rows, the header of a
/// Markdown table whose later rows it holds.
/// Empty until the file is `ready`.
#[utoipa::path(get, path = "/api/knowledge-base/storage/file/{id}/chunks", tag = "Knowledge base",
    extensions(("x-access" = json!(Right::ReadKnowledge))),
    params(("id" = Uuid, Path, description = "The file"), PageParams, MinPositionParam),
    responses((status = 200, description = "The chunks", body = ListEnvelope<FileChunk>), ReadFailures))]
async fn list_chunks(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<Uuid>,
    query: ListQuery<NoFilters>,
) -> Result<ListReply<FileChunk>, Problem> {
    visible_file(&app, &caller, id)?;
    let skip = query.cursor::<u64>()?.unwrap_or(query.offset());
    let from = usize::try_from(skip).unwrap_or(usize::MAX);
    let found = app.search.chunks(id, from, query.size() as usize).await?;
    let (chunks, count) = found.unwrap_or_default();
    let next = skip.saturating_add(chunks.len() as u64);
    let cursor = (next < count as u64 && !chunks.is_empty()).then(|| query.cursor_after(&next));
    Ok(query.reply("Chunks", chunks, Total::exact(count as u64).with_cursor(cursor)))
}

/// How a file is to be deleted.
#[derive(Clone, Copy, Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
struct HowDeleted {
    /// For good: what was uploaded, its text and its vectors are removed from the vault as well, unless another file
    /// of the product has the very same bytes. A file that was only deleted can be erased later.
    #[serde(default)]
    erase: bool,
}

/// Delete a file
///
/// No search finds it any more. Its bytes are kept with the history of the product unless they are to be erased, now
/// by `erase`, or later by the `retention` of the product.
#[utoipa::path(delete, path = "/api/knowledge-base/storage/file/{id}", tag = "Knowledge base",
    extensions(("x-access" = json!(Right::WriteKnowledge))),
    params(("id" = Uuid, Path, description = "The file"), HowDeleted, IfMatchParam),
    responses((status = 200, description = "It is gone", body = Envelope<Deleted>),
              (status = 202, description = "It is gone, and its bytes are being erased", body = Envelope<Deleted>),
              WriteFailures))]
async fn delete_file(
    State(app): State<App>,
    caller: Caller,
    circumstances: Circumstances,
    Path(id): Path<Uuid>,
    Query(HowDeleted { erase }): Query<HowDeleted>,
) -> Result<Reply<Deleted>, Problem> {
    let product = match visible_file(&app, &caller, id) {
        Err(problem) if erase && problem.status() == StatusCode::NOT_FOUND => {
            product_of_deleted(&app, &caller, id)?
        }
        found => found?.product_id,
    };
    circumstances.check(SEQUENCE)?;
    let mut ask = circumstances.ask(&app, &caller, Some(product), &[]).await?;
    // The stream's sequence moves while the file is read: it is not what the client means.
    ask.if_match = None;
    if erase {
        let done = app.commands.erase_file(id, &ask).await?;
        app.applied(&done).await?;
        let (is_erased, position) = app.erased(|db| file::is_being_erased(db, id)).await?;
        return Ok(deleted("File erased", id, is_erased).position(position));
    }
    let done = app.commands.delete_file(id, &ask).await?;
    let position = app.applied(&done).await?;
    if app.search.trouble().is_none() {
        app.search.caught_up(done.position(), PATIENCE).await;
    }
    Ok(deleted("File deleted", id, true).position(position))
}

/// The product of a file that was deleted and whose bytes are left, if the caller may see it.
fn product_of_deleted(app: &App, caller: &Caller, id: Uuid) -> Result<Uuid, Problem> {
    let known = app.read(|db| file::deleted(db, id))?.filter(|known| !known.is_erased());
    let product = known.ok_or_else(not_found)?.product;
    reach(app, caller, product, not_found)?;
    Ok(product)
}

/// Download a file
///
/// The very bytes that were uploaded, whole or in part.
#[utoipa::path(get, path = "/api/knowledge-base/storage/file/{id}/download", tag = "Knowledge base",
    extensions(("x-access" = json!(Right::ReadKnowledge))),
    params(("id" = Uuid, Path, description = "The file"), RangeParams, IfNoneMatchParam, MinPositionParam),
    responses((status = 200, description = "The bytes", content((String = "*/*"))),
              (status = 206, description = "The part that was asked for",
               content((String = "*/*"))),
              (status = 304, description = "The client has them already"), DownloadFailures))]
async fn download_file(
    State(app): State<App>,
    caller: Caller,
    known: IfNoneMatch,
    asked: AskedRange,
    Path(id): Path<Uuid>,
) -> Result<Response, Problem> {
    let file = visible_file(&app, &caller, id)?;
    let etag = ETag::of_content(&file.blob);
    if known.has(&etag) {
        return Ok(Reply::ok("", ()).etag_unless_known(&etag, &known).into_response());
    }
    let part = asked.of(file.size, &etag)?;
    let blob = vault::BlobRef { name: file.blob.clone(), size: file.size };
    let mut bytes = app.commands.vault().get_blob(file.product_id, &blob, part.clone()).await?;
    // The first of it before the answer begins: what is wrong by then is said by a status.
    let first = bytes.try_next().await?;
    let rest = bytes.inspect_err(move |error| {
        tracing::error!(%error, file = %id, "a download was broken off");
    });
    let bytes = futures::stream::iter(first.map(Ok)).chain(rest);
    let download = Download {
        file_name: &file.file_name,
        media_type: &file.media_type,
        size: file.size,
        etag: &etag,
    };
    Ok(download.response(part, bytes))
}
