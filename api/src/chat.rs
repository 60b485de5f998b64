//! The assistant's chat: `/api/assistant/chat`.
//!
//! The rule of this file: a session, and what was asked and answered in it, is seen by its owner alone: the
//! user, or the API token, that began it. To everybody else there is no such thing.

mod stream;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use commands::{AskedMessage, NewMessage, chat_session_id};
use domain::Name;
use eventlog::StreamId;
use projections::chat::{self, Run};
use projections::execution::SealedPayload;
use projections::file;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use crate::access::Right;
use crate::answers::{Deleted, Nothing};
use crate::app::App;
use crate::caller::{Caller, Circumstances};
use crate::execution::ExecutionError;
use crate::failures::bad_value;
use crate::http::openapi::{
    IdempotencyKeyParam, IfMatchParam, IfNoneMatchParam, MinPositionParam, PageParams,
    ReadFailures, WriteFailures,
};
use crate::http::reply::{Envelope, ListEnvelope};
use crate::http::{
    ETag, FieldError, IfNoneMatch, Json, ListQuery, ListReply, OptionalJson, Path, Problem, Reply,
    Total,
};
use crate::knowledge_base::meant_product;
use crate::lists::{total, window};

pub use stream::{Teller, Told};

/// The longest message, in characters.
pub const LONGEST_MESSAGE: usize = 32_000;

/// The longest name of a session, in characters.
const LONGEST_NAME: usize = 200;

/// The routes that answer at once.
pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(get_history))
        .routes(routes!(list_sessions))
        .routes(routes!(get_session, rename_session, delete_session))
        .routes(routes!(get_run))
        .routes(routes!(cancel_run))
        .routes(routes!(get_source))
}

/// The routes that go on for as long as there is something to hear.
pub fn long_router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(ask_assistant)).routes(routes!(stream::stream_run))
}

/// What the assistant is asked.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct ChatQuestion {
    /// What is asked.
    #[schema(min_length = 1, max_length = 32000, pattern = r"\S")]
    message: String,
    /// What the client calls the session; one that it has not used before begins a new one. Without it
    /// the server makes one up.
    #[schema(min_length = 1, max_length = 200)]
    session_id: Option<String>,
    /// The product whose knowledge bases are asked. An API token may leave it out: it has one product.
    product_id: Option<Uuid>,
}

/// A session.
#[derive(Debug, Serialize, ToSchema)]
struct ChatSession {
    /// Its id, for the paths of sessions.
    id: Uuid,
    /// What its owner calls it; null when it was erased.
    session_id: Option<String>,
    /// The product.
    product_id: Uuid,
    /// What it is shown as; null when it was erased.
    title: Option<String>,
    /// How many messages were asked.
    messages: u64,
    /// When it began.
    #[schema(format = DateTime)]
    created_at: String,
    /// When something was last asked, or it was renamed.
    #[schema(format = DateTime)]
    updated_at: String,
}

/// Who says a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum Speaker {
    /// Whoever asks.
    User,
    /// Who answers.
    Assistant,
}

/// A message of a session.
#[derive(Debug, Serialize, ToSchema)]
struct ChatMessage {
    /// The run that it is the question or the answer of.
    run_id: Uuid,
    /// Who says it.
    role: Speaker,
    /// What it says: of an answer that did not come to its end, as far as it came; null when it was erased.
    content: Option<String>,
    /// How far the run is: `queued`, `running`, `succeeded`, `failed` or `cancelled`.
    status: String,
    /// What an answer cites: `[1]` in it is the first.
    #[schema(value_type = Vec<Object>)]
    sources: Vec<Value>,
    /// How an answer came about.
    #[schema(value_type = Option<Object>)]
    metadata: Option<Value>,
    /// Why there is no answer.
    error: Option<ExecutionError>,
    /// When it was said.
    #[schema(format = DateTime)]
    created_at: String,
}

/// A run: a question's way to its answer.
#[derive(Debug, Serialize, ToSchema)]
struct ChatRun {
    /// Its id.
    id: Uuid,
    /// The session that holds the question; null for one of `/v1/chat/completions`.
    session: Option<Uuid>,
    /// How far it is: `queued`, `running`, `succeeded`, `failed` or `cancelled`.
    status: String,
    /// The answer, as far as it came; null when it was erased.
    content: Option<String>,
    /// What it cites: `[1]` in it is the first.
    #[schema(value_type = Vec<Object>)]
    sources: Vec<Value>,
    /// How it came about.
    #[schema(value_type = Option<Object>)]
    metadata: Option<Value>,
    /// Why there is none.
    error: Option<ExecutionError>,
    /// When it was asked for.
    #[schema(format = DateTime)]
    created_at: String,
    /// When it ended.
    #[schema(format = DateTime)]
    ended_at: Option<String>,
}

/// What has become of the file that a passage is from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum FileNow {
    /// It is there.
    Present,
    /// Another one of its name took its place.
    Replaced,
    /// It was deleted.
    Deleted,
    /// It was erased, and what it said with it.
    Erased,
}

/// A passage that an answer cites, as it was when it was cited.
#[derive(Debug, Serialize, ToSchema)]
struct ChatSource {
    /// Its number in the answer.
    number: u64,
    /// The file that it stands in.
    file_id: Uuid,
    /// The file's name.
    file_name: String,
    /// The knowledge base of the file.
    knowledge_base_id: Option<Uuid>,
    /// Which chunk of the file, from 0.
    chunk_index: u64,
    /// Where the text begins, in characters of the file's text.
    char_start: u64,
    /// Where it ends.
    char_end: u64,
    /// How near it was to the question: the cosine.
    score: f64,
    /// What it says; null when the file was erased.
    text: Option<String>,
    /// What was said of the file, and of the place in it.
    #[schema(value_type = Object)]
    metadata: Value,
    /// What has become of the file.
    file_status: FileNow,
    /// The file that took its place: the newest of its name that was uploaded after it.
    replaced_by: Option<Uuid>,
}

/// What a session is to be shown as.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct ChatTitle {
    /// As this.
    #[schema(min_length = 1, max_length = 200)]
    title: String,
}

/// Which session is meant.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct WhichSession {
    /// What its owner calls it.
    session_id: Option<String>,
    /// The product that it is of. An API token may leave it out, and a user session where one session alone is called so.
    product_id: Option<Uuid>,
}

/// Which product is meant.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct WhichProduct {
    /// The product; of a user session that names none, all sessions are listed. An API token has one.
    product_id: Option<Uuid>,
}

fn session_not_found() -> Problem {
    commands::Error::refused(&domain::chat::ChatSessionError::NotFound).into()
}

fn run_not_found() -> Problem {
    commands::Error::refused(&domain::chat::run::ChatRunError::NotFound).into()
}

/// A session that is the caller's.
fn own_session(app: &App, caller: &Caller, id: Uuid) -> Result<chat::Session, Problem> {
    let found = app.read(|db| chat::get(db, id))?;
    let own = found.filter(|session| session.owner == caller.actor().to_string());
    let session = own.ok_or_else(session_not_found)?;
    caller.product(app, session.product).map_err(|_| session_not_found())?;
    Ok(session)
}

/// A run that is the caller's.
fn own_run(app: &App, caller: &Caller, id: Uuid) -> Result<Run, Problem> {
    let found = app.read(|db| chat::get_run(db, id))?;
    let own = found.filter(|run| run.owner == caller.actor().to_string());
    let run = own.ok_or_else(run_not_found)?;
    caller.product(app, run.product).map_err(|_| run_not_found())?;
    Ok(run)
}

/// Ask the assistant
///
/// The answer comes from the product's knowledge bases, as events: `session` says which session and run it is,
/// `thinking` what is being done (`stage` is `searching`, `answering` with how many passages were
/// `retrieved`, or `again`, where the server was cut off: deltas before are void then), `ai_response`
/// brings a `delta` of the answer, and one last `ai_response` with `final` the whole `content`, its `sources` and
/// `metadata`; `error` says why there is none, and `done` ends the stream. `[1]` in the answer is the first of
/// its `sources`. Every event has an `id`: whoever is cut off goes on at
/// `/api/assistant/chat/runs/{runId}/events`. The answer is finished and stored though nobody
/// listens. While a message is being answered, the next one in its session is `409`. With an
/// `Idempotency-Key` the first answer is told again.
#[utoipa::path(post, path = "/api/assistant/chat", tag = "Assistant",
    extensions(("x-access" = json!(Right::Chat))),
    params(IdempotencyKeyParam), request_body = ChatQuestion,
    responses((status = 200, description = "What is heard of the answer",
               content((stream::ChatNews = "text/event-stream"))), WriteFailures))]
async fn ask_assistant(
    State(app): State<App>,
    caller: Caller,
    circumstances: Circumstances,
    body: Json<ChatQuestion>,
) -> Result<Response, Problem> {
    let question = body.read()?;
    let product = meant_product(&caller, question.product_id)?;
    caller.product(&app, product)?;
    let text = message(&question.message)?;
    let session_id = question.session_id.as_deref().map(session_name).transpose()?;
    let ask = circumstances.ask(&app, &caller, Some(product), &[&body.bytes]).await?;
    let new = NewMessage { session_id, text };
    let asked = app.commands.ask_assistant(new, caller.actor(), &ask).await?;
    let AskedMessage { session, session_id, run, done } = asked;
    let position = app.applied(&done).await?;
    let opening = stream::Opening {
        session: Some(session),
        session_id: Some(session_id),
        run,
        replayed: done.replayed,
    };
    Ok(stream::answer(app, caller, product, opening, 0, Some(position)))
}

fn message(text: &str) -> Result<String, Problem> {
    let text = text.trim();
    if text.is_empty() {
        return Err(bad_field("message", "empty", "must say what is asked"));
    }
    if text.chars().count() > LONGEST_MESSAGE {
        let message = format!("may have at most {LONGEST_MESSAGE} characters");
        return Err(bad_field("message", "too_long", &message));
    }
    Ok(text.to_owned())
}

fn session_name(name: &str) -> Result<String, Problem> {
    let length = name.chars().count();
    if name.trim().is_empty() || length > LONGEST_NAME || name.chars().any(char::is_control) {
        let message = format!("must be 1 to {LONGEST_NAME} visible characters on one line");
        return Err(bad_field("session_id", "invalid", &message));
    }
    Ok(name.to_owned())
}

fn bad_field(field: &str, code: &'static str, message: &str) -> Problem {
    Problem::invalid("invalid_body", format!("the field {field} is not valid: it {message}"))
        .with_error(FieldError::new(format!("/{field}"), code, message))
}

/// Read a session
///
/// Its messages, oldest first: each question, and behind it what came of it.
#[utoipa::path(get, path = "/api/assistant/chat/history", tag = "Assistant",
    extensions(("x-access" = json!(Right::Chat))),
    params(WhichSession, PageParams, MinPositionParam),
    responses((status = 200, description = "The messages", body = ListEnvelope<ChatMessage>), ReadFailures))]
async fn get_history(
    State(app): State<App>,
    caller: Caller,
    query: ListQuery<WhichSession>,
) -> Result<ListReply<ChatMessage>, Problem> {
    let missing = |name: &str, message: &str| {
        Problem::malformed(
            "invalid_parameters",
            format!("bad query parameters: {name}; errors says why"),
        )
        .with_error(FieldError::new(format!("/{name}"), "missing", message))
    };
    let Some(name) = &query.filters.session_id else {
        return Err(missing("session_id", "must say which session is meant"));
    };
    let products = match query.filters.product_id.or(caller.bound_product()) {
        Some(product) => vec![product],
        None => app.read(|db| chat::products_of(db, &caller.actor().to_string()))?,
    };
    let mut named = Vec::new();
    for product in products {
        let id = chat_session_id(product, caller.actor(), name);
        match own_session(&app, &caller, id) {
            Ok(session) => named.push(session),
            Err(problem) if problem.status() == StatusCode::NOT_FOUND => {}
            Err(problem) => return Err(problem),
        }
    }
    let session = match named.len() {
        0 | 1 => named.pop().ok_or_else(session_not_found)?,
        _ => {
            return Err(missing(
                "product_id",
                "must be given: you have sessions of this name in several products",
            ));
        }
    };
    // Each run is two messages.
    let (skip, size) = (query.offset(), u64::from(query.size()));
    let (runs, count) =
        app.read(|db| chat::runs(db, session.id, skip / 2, size.div_ceil(2) + 1))?;
    let mut messages = Vec::new();
    for run in runs {
        messages.extend(messages_of(&app, run).await?);
    }
    let messages = messages.into_iter().skip((skip % 2) as usize).take(size as usize).collect();
    Ok(query.reply("Messages", messages, Total::exact(count * 2)))
}

async fn messages_of(app: &App, run: Run) -> Result<[ChatMessage; 2], Problem> {
    let stream = StreamId::new("chat_session", run.session.unwrap_or_default());
    let content = match &run.message {
        Some(message) => open(app, &run, &stream, "message", message).await?,
        None => None,
    };
    let question = ChatMessage {
        run_id: run.id,
        role: Speaker::User,
        content,
        status: run.status.clone(),
        sources: Vec::new(),
        metadata: None,
        error: None,
        created_at: run.created_at.clone(),
    };
    let ChatRun { id, status, content, sources, metadata, error, created_at, ended_at, .. } =
        show_run(app, run).await?;
    let created_at = ended_at.unwrap_or(created_at);
    let role = Speaker::Assistant;
    let answer =
        ChatMessage { run_id: id, role, content, status, sources, metadata, error, created_at };
    Ok([question, answer])
}

async fn open(
    app: &App,
    run: &Run,
    stream: &StreamId,
    field: &str,
    sealed: &SealedPayload,
) -> Result<Option<String>, Problem> {
    app.open((run.organization, run.product), stream, field, sealed).await
}

async fn show_run(app: &App, run: Run) -> Result<ChatRun, Problem> {
    let stream = StreamId::new("chat_run", run.id);
    let (mut content, mut sources, mut metadata) = (None, Vec::new(), None);
    match &run.answer {
        Some(answer) => {
            if let Some(whole) = open(app, &run, &stream, "answer", answer).await? {
                let whole = WholeAnswer::read(&whole)?;
                content = Some(whole.content);
                sources = whole.sources;
                without_erased(app, &mut sources)?;
                metadata = Some(Value::Object(whole.metadata));
            }
        }
        None => content = app.commands.chat_run_text(run.product, run.id).await?,
    }
    let error = match (&run.error_code, &run.error) {
        (Some(code), Some(error)) => Some(ExecutionError {
            code: code.clone(),
            message: open(app, &run, &stream, "error", error).await?,
            step_id: None,
        }),
        _ => None,
    };
    let Run { id, session, status, created_at, ended_at, .. } = run;
    Ok(ChatRun { id, session, status, content, sources, metadata, error, created_at, ended_at })
}

/// Takes away what files say that were erased since they were cited.
fn without_erased(app: &App, sources: &mut [Value]) -> Result<(), Problem> {
    app.read(|db| {
        for source in sources.iter_mut() {
            let file = source["file_id"].as_str().and_then(|id| id.parse().ok());
            let gone = file.map_or(Ok(None), |file| file::deleted(db, file))?;
            if gone.is_some_and(|gone| gone.is_erased()) {
                source["text"] = Value::Null;
            }
        }
        Ok(())
    })
}

/// The whole of an answer, as its event holds it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct WholeAnswer {
    /// What it says.
    pub content: String,
    /// What it cites.
    pub sources: Vec<Value>,
    /// How it came about.
    pub metadata: Map<String, Value>,
}

impl WholeAnswer {
    /// Reads it.
    ///
    /// # Errors
    /// It is none.
    pub fn read(text: &str) -> Result<WholeAnswer, Problem> {
        serde_json::from_str(text).map_err(|error| Problem::internal(&error))
    }
}

/// List sessions
///
/// One's own, newest first.
#[utoipa::path(get, path = "/api/assistant/chat/sessions", tag = "Assistant",
    extensions(("x-access" = json!(Right::Chat))),
    params(WhichProduct, PageParams, MinPositionParam),
    responses((status = 200, description = "The sessions", body = ListEnvelope<ChatSession>), ReadFailures))]
async fn list_sessions(
    State(app): State<App>,
    caller: Caller,
    query: ListQuery<WhichProduct>,
) -> Result<ListReply<ChatSession>, Problem> {
    let product = query.filters.product_id.or(caller.bound_product());
    if let Some(product) = product {
        caller.product(&app, product)?;
    }
    let window = window(&query)?;
    let owner = caller.actor().to_string();
    let listing = app.read(|db| chat::list(db, product, &owner, window))?;
    let total = total(&query, &listing);
    let mut sessions = Vec::with_capacity(listing.items.len());
    for session in listing.items {
        sessions.push(show_session(&app, session).await?);
    }
    Ok(query.reply("Sessions", sessions, total))
}

async fn show_session(app: &App, session: chat::Session) -> Result<ChatSession, Problem> {
    let vault = app.commands.vault();
    let stream = StreamId::new("chat_session", session.id);
    let (stream, organization) = (stream.as_str(), session.organization);
    Ok(ChatSession {
        id: session.id,
        session_id: session.session_id.open(vault, organization, stream, "session_id").await?,
        product_id: session.product,
        title: session.title.open(vault, organization, stream, "title").await?,
        messages: session.messages,
        created_at: session.created_at,
        updated_at: session.updated_at,
    })
}

/// Look at a session
#[utoipa::path(get, path = "/api/assistant/chat/sessions/{sessionId}", tag = "Assistant",
    extensions(("x-access" = json!(Right::Chat))),
    params(("sessionId" = Uuid, Path, description = "The session's `id`"), MinPositionParam, IfNoneMatchParam),
    responses((status = 200, description = "The session", body = Envelope<ChatSession>),
              (status = 304, description = "The client has it already"), ReadFailures))]
async fn get_session(
    State(app): State<App>,
    caller: Caller,
    known: IfNoneMatch,
    Path(id): Path<Uuid>,
) -> Result<Reply<ChatSession>, Problem> {
    let session = own_session(&app, &caller, id)?;
    let etag = ETag::of_sequence(session.changed);
    Ok(Reply::ok("Session", show_session(&app, session).await?).etag_unless_known(&etag, &known))
}

/// Rename a session
#[utoipa::path(put, path = "/api/assistant/chat/sessions/{sessionId}", tag = "Assistant",
    extensions(("x-access" = json!(Right::Chat))),
    params(("sessionId" = Uuid, Path, description = "The session's `id`"), IfMatchParam),
    request_body = ChatTitle,
    responses((status = 200, description = "The session as it is now", body = Envelope<ChatSession>), WriteFailures))]
async fn rename_session(
    State(app): State<App>,
    caller: Caller,
    circumstances: Circumstances,
    Path(id): Path<Uuid>,
    body: Json<ChatTitle>,
) -> Result<Reply<ChatSession>, Problem> {
    let session = own_session(&app, &caller, id)?;
    let title = Name::parse(&body.read()?.title).map_err(|error| bad_value("title", &error))?;
    circumstances.check(session.changed)?;
    let mut ask = circumstances.ask(&app, &caller, Some(session.product), &[&body.bytes]).await?;
    // The stream's sequence moves with every message: it is not what the client means.
    ask.if_match = None;
    let done = app.commands.rename_chat_session(id, title.as_str(), &ask).await?;
    let position = app.applied(&done).await?;
    let session = own_session(&app, &caller, id)?;
    let etag = ETag::of_sequence(session.changed);
    let shown = show_session(&app, session).await?;
    Ok(Reply::ok("Session renamed", shown).etag(&etag).position(position).replayed(done.replayed))
}

/// Delete a session
///
/// It is not shown any more, nor are its runs. What is still being answered in it is cancelled. Its texts lie
/// sealed in the log until its product is deleted.
#[utoipa::path(delete, path = "/api/assistant/chat/sessions/{sessionId}", tag = "Assistant",
    extensions(("x-access" = json!(Right::Chat))),
    params(("sessionId" = Uuid, Path, description = "The session's `id`"), IfMatchParam),
    responses((status = 200, description = "It is gone", body = Envelope<Deleted>), WriteFailures))]
async fn delete_session(
    State(app): State<App>,
    caller: Caller,
    circumstances: Circumstances,
    Path(id): Path<Uuid>,
) -> Result<Reply<Deleted>, Problem> {
    let session = own_session(&app, &caller, id)?;
    circumstances.check(session.changed)?;
    let mut ask = circumstances.ask(&app, &caller, Some(session.product), &[]).await?;
    ask.if_match = None;
    let done = app.commands.delete_chat_session(id, &ask).await?;
    let position = app.applied(&done).await?;
    Ok(Reply::ok("Session deleted", Deleted { id }).position(position))
}

/// Look at a run
///
/// How far it is, and what came of it.
#[utoipa::path(get, path = "/api/assistant/chat/runs/{runId}", tag = "Assistant",
    extensions(("x-access" = json!(Right::Chat))),
    params(("runId" = Uuid, Path), MinPositionParam),
    responses((status = 200, description = "The run", body = Envelope<ChatRun>), ReadFailures))]
async fn get_run(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<Uuid>,
) -> Result<Reply<ChatRun>, Problem> {
    let run = own_run(&app, &caller, id)?;
    let is_over = run.ended_at.is_some();
    let shown = show_run(&app, run).await?;
    // What has ended stays as it is.
    Ok(Reply::ok("Run", shown).etag(&ETag::of_sequence(u64::from(is_over) + 1)))
}

/// Cancel a run
///
/// Nothing more of its answer is written. One that was cancelled already stays as it is; one that has ended
/// otherwise is `409`.
#[utoipa::path(post, path = "/api/assistant/chat/runs/{runId}/cancel", tag = "Assistant",
    extensions(("x-access" = json!(Right::Chat))),
    params(("runId" = Uuid, Path), IdempotencyKeyParam), request_body = Option<Nothing>,
    responses((status = 200, description = "The run as it is now", body = Envelope<ChatRun>), WriteFailures))]
async fn cancel_run(
    State(app): State<App>,
    caller: Caller,
    circumstances: Circumstances,
    Path(id): Path<Uuid>,
    body: OptionalJson<Nothing>,
) -> Result<Reply<ChatRun>, Problem> {
    let run = own_run(&app, &caller, id)?;
    let Nothing {} = body.read()?;
    let ask = circumstances.ask(&app, &caller, Some(run.product), &[body.bytes()]).await?;
    let done = app.commands.cancel_chat_run(id, run.session, &ask).await?;
    let position = app.applied(&done).await?;
    let shown = show_run(&app, own_run(&app, &caller, id)?).await?;
    Ok(Reply::ok("Run cancelled", shown).position(position).replayed(done.replayed))
}

/// Look at what an answer cites
///
/// The passage as it was when it was cited, and what has become of its file: it is kept with the answer,
/// though the file was replaced or deleted since. Of an erased file only the place is left.
#[utoipa::path(get, path = "/api/assistant/chat/runs/{runId}/sources/{number}", tag = "Assistant",
    extensions(("x-access" = json!(Right::Chat))),
    params(("runId" = Uuid, Path), ("number" = u64, Path, description = "Its number in the answer, from 1"),
           MinPositionParam),
    responses((status = 200, description = "The passage", body = Envelope<ChatSource>), ReadFailures))]
async fn get_source(
    State(app): State<App>,
    caller: Caller,
    Path((id, number)): Path<(Uuid, u64)>,
) -> Result<Reply<ChatSource>, Problem> {
    let run = show_run(&app, own_run(&app, &caller, id)?).await?;
    let cited = run.sources.into_iter().find(|source| source["number"] == number);
    let source = cited.and_then(|source| serde_json::from_value::<KeptSource>(source).ok());
    let source = source.ok_or_else(|| {
        Problem::not_found(
            "source_not_found",
            "the answer cites nothing under this number: its `sources` name those that there are",
        )
    })?;
    let there = app.read(|db| file::get(db, source.file_id))?;
    let base = source.knowledge_base_id.unwrap_or_default();
    let newer = match there {
        Some(_) => None,
        None => {
            let uploaded = source.metadata["created_at"].as_str().unwrap_or_default();
            app.read(|db| file::newest_named(db, base, &source.file_name, uploaded))?
        }
    };
    let file_status = match (&there, newer) {
        (Some(_), _) => FileNow::Present,
        (None, _) if source.text.is_none() => FileNow::Erased,
        (None, Some(_)) => FileNow::Replaced,
        (None, None) => FileNow::Deleted,
    };
    let KeptSource { number, file_id, file_name, knowledge_base_id, .. } = source;
    let KeptSource { chunk_index, char_start, char_end, score, text, metadata, .. } = source;
    let shown = ChatSource {
        number,
        file_id,
        file_name,
        knowledge_base_id,
        chunk_index,
        char_start,
        char_end,
        score,
        text,
        metadata,
        file_status,
        replaced_by: newer,
    };
    Ok(Reply::ok("Source", shown))
}

/// A passage as an answer keeps it.
#[derive(Debug, Deserialize)]
struct KeptSource {
    number: u64,
    file_id: Uuid,
    file_name: String,
    knowledge_base_id: Option<Uuid>,
    chunk_index: u64,
    #[serde(default)]
    char_start: u64,
    #[serde(default)]
    char_end: u64,
    score: f64,
    /// None of a file that was erased.
    text: Option<String>,
    #[serde(default)]
    metadata: Value,
}
