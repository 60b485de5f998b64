//! What is heard of a run of the assistant, from the question to its end.
//!
//! The rule of this file: it is read from the log, and the id of what is heard is made from the number of its
//! event, so that whoever comes back to any node, whenever that is, hears the same under the same id.

use std::sync::Arc;

use axum::extract::State;
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use commands::Error;
use domain::chat::run::ChatRunEvent;
use eventlog::{RecordedEvent, StreamId};
use futures::Stream;
use serde::Serialize;
use serde_json::{Value, json};
use utoipa::ToSchema;
use uuid::Uuid;

use super::{WholeAnswer, own_run, without_erased};
use crate::access::{Access, Right};
use crate::app::App;
use crate::caller::Caller;
use crate::follow::Follow;
use crate::http::header::X_EVENT_POSITION;
use crate::http::openapi::{LastEventIdParam, MinPositionParam, ReadFailures};
use crate::http::sse::{self, LastEventId};
use crate::http::{Path, Problem};

/// How many things are heard of one event at most: ids leave room for them.
const OF_ONE: u64 = 4;

/// The id of what is heard first, before any event.
const OPENING: u64 = 1;

/// What is heard of an answer. Which of the fields are there, the event's name says: `session`, `thinking`,
/// `ai_response`, `error` or `done`.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ChatNews {
    /// `session`: what the client calls the session.
    session_id: Option<String>,
    /// `session`: the session's id.
    id: Option<Uuid>,
    /// `session`: the run that answers.
    run_id: Option<Uuid>,
    /// `session`: the answer was asked for before, under the same `Idempotency-Key`.
    replayed: Option<bool>,
    /// `thinking`: `searching`, `answering` or `again`.
    stage: Option<String>,
    /// `thinking`: how many passages are near to the question.
    retrieved: Option<u32>,
    /// `ai_response`: what came to the answer.
    delta: Option<String>,
    /// `ai_response`: the whole answer.
    content: Option<String>,
    /// `ai_response`: what it cites; `[1]` in it is the first.
    #[schema(value_type = Option<Vec<Object>>)]
    sources: Option<Vec<Value>>,
    /// `ai_response`: how it came about.
    #[schema(value_type = Option<Object>)]
    metadata: Option<Value>,
    /// `ai_response`: it is the whole answer.
    r#final: Option<bool>,
    /// `error`: why there is none, for programs.
    error: Option<String>,
    /// `error`: why there is none, for people.
    message: Option<String>,
}

/// What is heard first.
pub(super) struct Opening {
    pub(super) session: Option<Uuid>,
    pub(super) session_id: Option<String>,
    pub(super) run: Uuid,
    pub(super) replayed: bool,
}

/// Something that is told of a run.
#[derive(Clone, Debug, PartialEq)]
pub enum Told {
    /// It was begun to look for an answer; anew, where that was cut off before.
    Searching {
        /// What was told of the answer before is void.
        again: bool,
    },
    /// So many passages were found, and the answer is being written.
    Answering(u32),
    /// More of the answer.
    Delta(String),
    /// The whole of it.
    Answer(WholeAnswer),
    /// There is none.
    Failed {
        /// For programs.
        code: String,
        /// For people.
        message: String,
        /// Asking again later may help.
        transient: bool,
    },
    /// Nothing more comes.
    Done,
}

/// The whole of an answer, as it is told.
#[derive(Serialize)]
struct ToldAnswer<'a> {
    #[serde(flatten)]
    answer: &'a WholeAnswer,
    r#final: bool,
}

impl Told {
    fn event(&self, id: u64) -> Result<sse::Event, Problem> {
        let (name, data) = match self {
            Told::Searching { again: false } => ("thinking", json!({ "stage": "searching" })),
            Told::Searching { again: true } => ("thinking", json!({ "stage": "again" })),
            Told::Answering(retrieved) => {
                ("thinking", json!({ "stage": "answering", "retrieved": retrieved }))
            }
            Told::Delta(delta) => ("ai_response", json!({ "delta": delta })),
            Told::Answer(answer) => {
                // It may be long: it is written as it stands, not copied first.
                let whole = ToldAnswer { answer, r#final: true };
                return sse::Event::new(id, "ai_response", &whole);
            }
            Told::Failed { code, message, .. } => {
                ("error", json!({ "success": false, "error": code, "message": message }))
            }
            Told::Done => ("done", json!({})),
        };
        sse::Event::new(id, name, &data)
    }
}

/// Tells what happens to a run, as the log has it.
pub struct Teller {
    product: Uuid,
    events: Follow,
}

impl Teller {
    /// Of a run of a product, after the event with this number.
    pub fn after(product: Uuid, run: Uuid, number: u64) -> Teller {
        Teller { product, events: Follow::after(StreamId::new("chat_run", run), number) }
    }

    /// What is told from there on, with ids; it ends with [`Told::Done`].
    pub fn tell(mut self, app: App) -> impl Stream<Item = Result<(u64, Told), Problem>> + Send {
        async_stream::try_stream! {
            let mut applied = app.views.watch();
            loop {
                let goal = *applied.borrow_and_update();
                while let Some(events) = self.events.next(&app, goal).await? {
                    for event in events {
                        let told = told_by(&app, self.product, &event).await?;
                        let sequence = event.sequence;
                        // Whoever listens slowly keeps what is handed out in memory: once, and not as an event, too.
                        drop(event);
                        for (place, told) in (0..OF_ONE).zip(told) {
                            let is_last = told == Told::Done;
                            yield (sequence * OF_ONE + place, told);
                            if is_last {
                                return;
                            }
                        }
                    }
                }
                if applied.changed().await.is_err() {
                    return;
                }
            }
        }
    }
}

/// What is told of an event.
async fn told_by(
    app: &App,
    product: Uuid,
    event: &Arc<RecordedEvent>,
) -> Result<Vec<Told>, Problem> {
    let erased = || Told::Failed {
        code: "erased".to_owned(),
        message: "what was answered is erased: its product was deleted".to_owned(),
        transient: false,
    };
    Ok(match decode(event)? {
        ChatRunEvent::Requested { .. } => Vec::new(),
        ChatRunEvent::Started { fence, .. } => vec![Told::Searching { again: fence > 1 }],
        ChatRunEvent::Retrieved { passages, .. } => vec![Told::Answering(passages)],
        ChatRunEvent::Progressed { text: None, .. } => Vec::new(),
        ChatRunEvent::Progressed { text: Some(text), .. } => {
            let text = app.commands.open_piece(product, event, "text", &text).await?;
            text.map(Told::Delta).into_iter().collect()
        }
        ChatRunEvent::Succeeded { answer, written, .. } => {
            let Some(answer) = app.commands.open_piece(product, event, "answer", &answer).await?
            else {
                return Ok(vec![erased(), Told::Done]);
            };
            let mut answer = WholeAnswer::read(&answer)?;
            without_erased(app, &mut answer.sources)?;
            // The last piece was not written down by itself.
            let rest = usize::try_from(written).ok().and_then(|at| answer.content.get(at..));
            let rest =
                rest.filter(|rest| !rest.is_empty()).map(|rest| Told::Delta(rest.to_owned()));
            rest.into_iter().chain([Told::Answer(answer), Told::Done]).collect()
        }
        ChatRunEvent::Failed { code, error, transient, .. } => {
            let message = app.commands.open_piece(product, event, "error", &error).await?;
            let message = message.unwrap_or_default();
            vec![Told::Failed { code, message, transient }, Told::Done]
        }
        ChatRunEvent::Cancelled {} => {
            let message = "the run was cancelled before there was an answer".to_owned();
            let code = "chat_run_cancelled".to_owned();
            vec![Told::Failed { code, message, transient: false }, Told::Done]
        }
    })
}

fn decode(event: &RecordedEvent) -> Result<ChatRunEvent, Problem> {
    let decoded = domain::event::decode(&event.event_type, &event.data);
    decoded.map_err(|error| Problem::internal(&error))
}

/// Answers with what is heard of a run after the event with this id; 0 is before all.
pub(super) fn answer(
    app: App,
    caller: Caller,
    product: Uuid,
    opening: Opening,
    last: u64,
    position: Option<u64>,
) -> Response {
    let shutdown = app.shutdown.clone();
    let refused = caller.refused(app.clone(), Access::Has(Right::Chat), Some(product));
    let mut response = sse::stream(events(app, product, opening, last), refused, shutdown);
    if let Some(position) = position {
        response.headers_mut().insert(X_EVENT_POSITION, HeaderValue::from(position));
    }
    response
}

fn events(
    app: App,
    product: Uuid,
    opening: Opening,
    last: u64,
) -> impl Stream<Item = Result<sse::Event, Problem>> + Send {
    let Opening { session, session_id, run, replayed } = opening;
    // The event that was heard of last may have more to say.
    let teller = Teller::after(product, run, (last / OF_ONE).saturating_sub(1));
    async_stream::try_stream! {
        if last < OPENING {
            let mut data = json!({ "session_id": session_id, "id": session, "run_id": run });
            if replayed {
                data["replayed"] = json!(true);
            }
            yield sse::Event::new(OPENING, "session", &data)?;
        }
        for await told in teller.tell(app) {
            let (id, told) = told?;
            if id > last {
                let event = told.event(id)?;
                drop(told);
                yield event;
            }
        }
    }
}

/// Follow a run
///
/// What is heard of it, as of `POST /api/assistant/chat`: from the first on, or after `Last-Event-ID`, whenever
/// that was and on whatever node. Ids grow. Whoever comes back after `done` is answered `204`, at which a
/// browser's `EventSource` stops asking. When the credential is no longer good for it, or the product is
/// deleted, the stream ends with an event `error` that says why.
#[utoipa::path(get, path = "/api/assistant/chat/runs/{runId}/events", tag = "Assistant",
    extensions(("x-access" = json!(Right::Chat))),
    params(("runId" = Uuid, Path), LastEventIdParam, MinPositionParam),
    responses((status = 200, description = "What is heard of the answer",
               content((ChatNews = "text/event-stream"))),
              (status = 204, description = "Nothing comes after that event"), ReadFailures))]
pub(super) async fn stream_run(
    State(app): State<App>,
    caller: Caller,
    LastEventId(last): LastEventId,
    Path(id): Path<Uuid>,
) -> Result<Response, Problem> {
    let run = own_run(&app, &caller, id)?;
    let last = last.unwrap_or(0);
    if last > OPENING && is_over(&app, run.product, id, last).await? {
        return Ok(StatusCode::NO_CONTENT.into_response());
    }
    let session_id = match run.session {
        None => None,
        Some(session) => {
            let session = super::own_session(&app, &caller, session)?;
            super::show_session(&app, session).await?.session_id
        }
    };
    let opening = Opening { session: run.session, session_id, run: id, replayed: false };
    Ok(answer(app, caller, run.product, opening, last, None))
}

/// Whether nothing comes after what has this id.
///
/// # Errors
/// 400 where nothing has it: whoever waits for the next one would wait in vain.
async fn is_over(app: &App, product: Uuid, run: Uuid, last: u64) -> Result<bool, Problem> {
    let number = last / OF_ONE;
    let stream = StreamId::new("chat_run", run);
    let at = number.checked_sub(1).ok_or_else(sse::not_of_this_stream)?;
    let events = app.log.read_stream(&stream, at, 1).await.map_err(Error::from)?;
    let event = events.first().ok_or_else(sse::not_of_this_stream)?;
    let told = told_by(app, product, event).await?;
    let place = usize::try_from(last % OF_ONE).unwrap_or(usize::MAX);
    Ok(*told.get(place).ok_or_else(sse::not_of_this_stream)? == Told::Done)
}
