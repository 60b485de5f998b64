//! What programs speak that were written for OpenAI: `/v1/chat/completions`, `/v1/embeddings`, `/v1/models`.
//!
//! The rule of this file: a chat here is the assistant's, as at `/api/assistant/chat`: answered from the
//! product's knowledge bases, by a run that is in the log. All that was said before comes with the request,
//! so there is no session. A failure has the form that those programs read.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::time::Duration;

use axum::body::to_bytes;
use axum::extract::{Request, State};
use axum::http::header::{CONTENT_LENGTH, CONTENT_TYPE, RETRY_AFTER};
use axum::http::{HeaderValue, StatusCode};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use chrono::Utc;
use commands::tools::answer::{Role, Turn};
use embeddings::ModelError;
use futures::{Stream, StreamExt};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use utoipa::openapi::{ContentBuilder, Ref, RefOr, ResponseBuilder};
use utoipa::{IntoResponses, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use crate::access::{Access, Right};
use crate::app::App;
use crate::caller::{Caller, Circumstances};
use crate::chat::{LONGEST_MESSAGE, Teller, Told, WholeAnswer};
use crate::http::openapi::IdempotencyKeyParam;
use crate::http::problem::{Documented, MEDIA_TYPE};
use crate::http::{FieldError, Json, Problem, sse};
use crate::knowledge_base::meant_product;

/// What the assistant is called as a model.
const ASSISTANT: &str = "prodgy";

/// How many texts are embedded at once at most.
const MOST_TEXTS: usize = 2_048;

/// How much of a failure is read to say it in another form.
const LONGEST_FAILURE: usize = 256 * 1024;

/// The routes. Answers take as long as a model does.
pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(complete_chat))
        .routes(routes!(embed_texts))
        .routes(routes!(list_models))
}

/// A message of a chat.
#[derive(Debug, Deserialize, ToSchema)]
struct OpenAiMessage {
    /// `system`, `developer`, `user` or `assistant`.
    #[schema(example = "user")]
    role: String,
    /// A text, or parts of the type `text`.
    #[schema(value_type = Value, example = "How much leave is there?")]
    content: Option<Value>,
}

/// How a streamed answer is told.
#[derive(Debug, Default, Deserialize, ToSchema)]
struct StreamOptions {
    /// Says in a last piece how many tokens it took.
    include_usage: Option<bool>,
}

/// A chat that is to go on. What else programs send, as `temperature`, is taken and not used.
#[derive(Debug, Deserialize, ToSchema)]
struct ChatCompletionRequest {
    /// `prodgy`.
    #[schema(example = "prodgy")]
    model: String,
    /// What was said, oldest first; the last of the user is the question.
    #[schema(min_items = 1)]
    messages: Vec<OpenAiMessage>,
    /// Whether the answer is told while it is written.
    stream: Option<bool>,
    /// How that is told.
    stream_options: Option<StreamOptions>,
    /// How many answers are wanted: one.
    n: Option<u64>,
    /// Refused where there are any: the assistant calls no tools.
    #[schema(value_type = Option<Vec<Object>>)]
    tools: Option<Vec<Value>>,
    /// Refused where there are any.
    #[schema(value_type = Option<Vec<Object>>)]
    functions: Option<Vec<Value>>,
    /// The product whose knowledge bases are asked. An API token may leave it out: it has one product.
    product_id: Option<Uuid>,
}

/// How many tokens something took.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, ToSchema)]
struct OpenAiUsage {
    /// Of what was sent.
    #[serde(default)]
    prompt_tokens: u64,
    /// Of what was answered.
    #[serde(default)]
    completion_tokens: u64,
    /// Together.
    #[serde(default)]
    total_tokens: u64,
}

/// What is answered.
#[derive(Debug, Serialize, ToSchema)]
struct AnsweredMessage {
    /// `assistant`.
    role: &'static str,
    /// The answer; `[1]` in it is the first of the `sources`.
    content: String,
}

/// The one answer.
#[derive(Debug, Serialize, ToSchema)]
struct ChatChoice {
    /// 0.
    index: u32,
    /// What is answered.
    message: AnsweredMessage,
    /// As the model said: `stop`, `length` where it was cut short, …
    finish_reason: String,
}

/// An answer.
#[derive(Debug, Serialize, ToSchema)]
struct ChatCompletion {
    /// Its id, made from the run's.
    id: String,
    /// `chat.completion`.
    object: &'static str,
    /// When, in seconds since 1970.
    created: i64,
    /// `prodgy`.
    model: &'static str,
    /// One answer.
    choices: Vec<ChatChoice>,
    /// How many tokens the model took.
    usage: OpenAiUsage,
    /// What the answer cites.
    #[schema(value_type = Vec<Object>)]
    sources: Vec<Value>,
    /// The run, as at `/api/assistant/chat/runs/{runId}`.
    run_id: Uuid,
}

/// A piece of an answer. The last has a `finish_reason` and the `sources`; behind it comes one with the `usage`
/// where that was asked for, and then `[DONE]`.
#[derive(Debug, Serialize, ToSchema)]
struct ChatCompletionChunk {
    /// The answer's id, made from the run's.
    id: String,
    /// `chat.completion.chunk`.
    object: &'static str,
    /// When it was begun, in seconds since 1970.
    created: i64,
    /// `prodgy`.
    model: &'static str,
    /// What came to the answer.
    #[schema(value_type = Vec<Object>)]
    choices: Vec<Value>,
    /// How many tokens it took.
    #[serde(skip_serializing_if = "Option::is_none")]
    usage: Option<OpenAiUsage>,
    /// What the answer cites.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Vec<Object>>)]
    sources: Option<Vec<Value>>,
}

/// Texts that are to become vectors.
#[derive(Debug, Deserialize, ToSchema)]
struct EmbeddingsRequest {
    /// The embedding model that is loaded, as `/v1/models` names it.
    model: String,
    /// A text, or a list of at most 2048 texts, none of which is longer than the model reads.
    #[schema(value_type = Value, example = "How much leave is there?")]
    input: Value,
    /// `float` (default), or `base64` of little-endian 32-bit numbers.
    #[schema(example = "float")]
    encoding_format: Option<String>,
    /// Only the model's own number of dimensions.
    dimensions: Option<u64>,
}

/// A vector.
#[derive(Debug, Serialize, ToSchema)]
struct OpenAiEmbedding {
    /// `embedding`.
    object: &'static str,
    /// Which text it is of, from 0.
    index: usize,
    /// Its numbers, or the base64 of them.
    #[schema(value_type = Value)]
    embedding: Value,
}

/// How many tokens were read.
#[derive(Debug, Serialize, ToSchema)]
struct EmbeddingsUsage {
    /// Of the texts.
    prompt_tokens: u64,
    /// The same.
    total_tokens: u64,
}

/// The vectors of texts.
#[derive(Debug, Serialize, ToSchema)]
struct Embeddings {
    /// `list`.
    object: &'static str,
    /// One of each text, in their order.
    data: Vec<OpenAiEmbedding>,
    /// The model.
    model: String,
    /// How many tokens were read.
    usage: EmbeddingsUsage,
}

/// A model.
#[derive(Debug, Serialize, ToSchema)]
struct OpenAiModel {
    /// Its name.
    id: String,
    /// `model`.
    object: &'static str,
    /// When it was made, in seconds since 1970; 0: not known.
    created: i64,
    /// `prodgy`.
    owned_by: &'static str,
}

/// The models that there are.
#[derive(Debug, Serialize, ToSchema)]
struct OpenAiModels {
    /// `list`.
    object: &'static str,
    /// The assistant, and the embedding model where it is loaded.
    data: Vec<OpenAiModel>,
}

/// Why something failed.
#[derive(Debug, Deserialize, Serialize, ToSchema)]
struct OpenAiError {
    /// For people.
    message: String,
    /// Of what kind it is, for programs.
    r#type: String,
    /// The field at fault.
    param: Option<String>,
    /// What it is, for programs.
    code: Option<String>,
}

/// The body of every failure here.
#[derive(Debug, Deserialize, Serialize, ToSchema)]
struct OpenAiFailure {
    /// Why.
    error: OpenAiError,
}

/// What every route here may answer instead.
struct OpenAiFailures;

impl IntoResponses for OpenAiFailures {
    fn responses() -> BTreeMap<String, RefOr<utoipa::openapi::Response>> {
        let kinds = [
            Documented::Malformed,
            Documented::Unauthenticated,
            Documented::Forbidden,
            Documented::Conflict,
            Documented::TooLarge,
            Documented::UnsupportedMediaType,
            Documented::Invalid,
            Documented::TooManyRequests,
            Documented::Unavailable,
        ];
        let response = |kind: Documented| {
            let (status, meaning) = kind.status_and_meaning();
            let schema = Ref::from_schema_name("OpenAiFailure");
            let content = ContentBuilder::new().schema(Some(schema)).build();
            let response = ResponseBuilder::new()
                .description(meaning)
                .content("application/json", content)
                .build();
            (status.as_str().to_owned(), RefOr::T(response))
        };
        kinds.into_iter().map(response).collect()
    }
}

/// The layer around these routes: a problem is said in the form that programs of OpenAI read.
pub async fn in_their_words(
    request: Request,
    next: impl AsyncFnOnce(Request) -> Response,
) -> Response {
    let response = next(request).await;
    let is_problem = response
        .headers()
        .get(CONTENT_TYPE)
        .is_some_and(|value| value.as_bytes().starts_with(MEDIA_TYPE.as_bytes()));
    if !is_problem {
        return response;
    }
    let (mut parts, body) = response.into_parts();
    let bytes = to_bytes(body, LONGEST_FAILURE).await.unwrap_or_default();
    let problem: Value = serde_json::from_slice(&bytes).unwrap_or_default();
    let text = |name: &str| problem[name].as_str().unwrap_or_default().to_owned();
    let field = problem["errors"][0]["field"].as_str();
    let failure = OpenAiFailure {
        error: OpenAiError {
            message: text("message"),
            r#type: kind_of(problem["status"].as_u64().unwrap_or(500)).to_owned(),
            param: field.map(|field| field.trim_start_matches('/').to_owned()),
            code: Some(text("error")),
        },
    };
    parts.headers.remove(CONTENT_LENGTH);
    parts.headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    let body = serde_json::to_vec(&failure).unwrap_or_default();
    Response::from_parts(parts, body.into())
}

fn kind_of(status: u64) -> &'static str {
    match status {
        401 => "authentication_error",
        403 => "permission_error",
        429 => "rate_limit_error",
        500.. => "server_error",
        _ => "invalid_request_error",
    }
}

fn bad_field(field: &str, code: &'static str, message: &str) -> Problem {
    Problem::invalid("invalid_body", format!("the field {field} is not valid: it {message}"))
        .with_error(FieldError::new(format!("/{field}"), code, message))
}

fn model_not_found(model: &str) -> Problem {
    let shown: String = model.chars().take(100).collect();
    Problem::not_found(
        "model_not_found",
        format!("there is no model {shown}: /v1/models lists them"),
    )
    .with_error(FieldError::new("/model", "unknown", "must be one that /v1/models lists"))
}

/// Chat as OpenAI clients do
///
/// The assistant answers from the product's knowledge bases. Nothing of the chat is remembered for the next
/// request: all of it comes with each. What was asked and answered is in the log, as a run.
#[utoipa::path(post, path = "/v1/chat/completions", tag = "OpenAI clients",
    extensions(("x-access" = json!(Right::Chat))),
    params(IdempotencyKeyParam), request_body = ChatCompletionRequest,
    responses((status = 200, description = "The answer",
               content((ChatCompletion = "application/json"), (ChatCompletionChunk = "text/event-stream"))),
              (status = 404, description = "Not found, or not yours", body = OpenAiFailure), OpenAiFailures))]
async fn complete_chat(
    State(app): State<App>,
    caller: Caller,
    circumstances: Circumstances,
    body: Json<ChatCompletionRequest>,
) -> Result<Response, Problem> {
    let request = body.read()?;
    let product = meant_product(&caller, request.product_id)?;
    caller.product(&app, product)?;
    if request.model != ASSISTANT {
        return Err(model_not_found(&request.model));
    }
    let said = said(&request)?;
    let ask = circumstances.ask(&app, &caller, Some(product), &[&body.bytes]).await?;
    let (run, done) = app.commands.ask_assistant_once(&said, &ask).await?;
    app.applied(&done).await?;
    let told = Teller::after(product, run, 0).tell(app.clone());
    if !request.stream.unwrap_or(false) {
        return whole(run, told).await;
    }
    let with_usage = request.stream_options.and_then(|options| options.include_usage);
    let pieces = pieces(run, told, with_usage.unwrap_or(false));
    let shutdown = app.shutdown.clone();
    let refused = caller.refused(app, Access::Has(Right::Chat), Some(product));
    let events = sse::while_allowed(pieces, refused).map(|piece| {
        let data = piece
            .unwrap_or_else(|problem| failed(problem.code(), problem.detail(), problem.status()));
        Ok::<_, Infallible>(Event::default().data(data))
    });
    let keep_alive = KeepAlive::new().interval(Duration::from_secs(15));
    let events = events.take_until(shutdown.cancelled_owned());
    Ok(Sse::new(events).keep_alive(keep_alive).into_response())
}

/// What was said, as the assistant takes it.
fn said(request: &ChatCompletionRequest) -> Result<Vec<Turn>, Problem> {
    let none = |list: &Option<Vec<Value>>| list.as_ref().is_none_or(Vec::is_empty);
    for (field, is_good) in [
        ("tools", none(&request.tools)),
        ("functions", none(&request.functions)),
        ("n", request.n.is_none_or(|n| n == 1)),
    ] {
        if !is_good {
            let message = "asks for what the assistant does not do: it gives one answer, as text";
            return Err(bad_field(field, "unsupported", message));
        }
    }
    let turns: Result<Vec<Turn>, Problem> = request.messages.iter().enumerate().map(turn).collect();
    let turns = turns?;
    let is_asked = |turn: &Turn| turn.role == Role::User && !turn.text.trim().is_empty();
    match turns.iter().rfind(|turn| turn.role == Role::User) {
        Some(last) if is_asked(last) => Ok(turns),
        _ => Err(bad_field("messages", "empty", "must hold a question of the user")),
    }
}

fn turn((place, message): (usize, &OpenAiMessage)) -> Result<Turn, Problem> {
    let bad = |what: &str, message: &str| {
        Err(bad_field(&format!("messages/{place}/{what}"), "unsupported", message))
    };
    let role = match message.role.as_str() {
        "system" | "developer" => Role::System,
        "user" => Role::User,
        "assistant" => Role::Assistant,
        _ => return bad("role", "must be system, developer, user or assistant"),
    };
    let text = match &message.content {
        None | Some(Value::Null) => String::new(),
        Some(Value::String(text)) => text.clone(),
        Some(Value::Array(parts)) => {
            let texts: Option<Vec<&str>> = parts
                .iter()
                .map(|part| part["text"].as_str().filter(|_| part["type"] == "text"))
                .collect();
            match texts {
                Some(texts) => texts.join("\n"),
                None => return bad("content", "may hold parts of the type text alone"),
            }
        }
        Some(_) => return bad("content", "must be a text, or parts of the type text"),
    };
    if role == Role::User && text.chars().count() > LONGEST_MESSAGE {
        return bad("content", &format!("may have at most {LONGEST_MESSAGE} characters"));
    }
    Ok(Turn { role, text })
}

fn completion_id(run: Uuid) -> String {
    format!("chatcmpl-{}", run.simple())
}

fn usage(answer: &WholeAnswer) -> OpenAiUsage {
    let usage = answer.metadata.get("usage").cloned().unwrap_or_default();
    serde_json::from_value(usage).unwrap_or_default()
}

/// Why the model ended its answer. One that does not say so came to its end.
fn finish_reason(answer: &WholeAnswer) -> String {
    let said = answer.metadata.get("finish_reason").and_then(Value::as_str);
    said.filter(|said| *said != "unknown").unwrap_or("stop").to_owned()
}

/// The status of a failure: clients try again after a 503, and not after a 422.
fn status_of(transient: bool) -> StatusCode {
    match transient {
        true => StatusCode::SERVICE_UNAVAILABLE,
        false => StatusCode::UNPROCESSABLE_ENTITY,
    }
}

/// The answer where there is none, with the code that says why.
fn not_answered(code: &str, message: &str, transient: bool) -> Response {
    let status = status_of(transient);
    let headers = [(CONTENT_TYPE, HeaderValue::from_static("application/json"))];
    let mut response = (status, headers, failed(code, message, status)).into_response();
    if transient {
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("5"));
    }
    response
}

/// Waits for the answer.
async fn whole(
    run: Uuid,
    told: impl Stream<Item = Result<(u64, Told), Problem>>,
) -> Result<Response, Problem> {
    let mut told = std::pin::pin!(told);
    while let Some(next) = told.next().await {
        match next?.1 {
            Told::Answer(answer) => {
                let (usage, finish_reason) = (usage(&answer), finish_reason(&answer));
                let message = AnsweredMessage { role: "assistant", content: answer.content };
                let completion = ChatCompletion {
                    id: completion_id(run),
                    object: "chat.completion",
                    created: Utc::now().timestamp(),
                    model: ASSISTANT,
                    choices: vec![ChatChoice { index: 0, message, finish_reason }],
                    usage,
                    sources: answer.sources,
                    run_id: run,
                };
                return Ok(axum::Json(completion).into_response());
            }
            Told::Failed { code, message, transient } => {
                return Ok(not_answered(&code, &message, transient));
            }
            _ => {}
        }
    }
    let message = "the server stops; the answer goes on after its start: look at the run";
    Err(Problem::unavailable("stopping", message, Duration::from_secs(5)))
}

/// The answer while it is written, each piece as the data of an event.
fn pieces(
    run: Uuid,
    told: impl Stream<Item = Result<(u64, Told), Problem>> + Send,
    with_usage: bool,
) -> impl Stream<Item = Result<String, Problem>> + Send {
    let created = Utc::now().timestamp();
    let chunk = move |choices, usage, sources| {
        let (id, object) = (completion_id(run), "chat.completion.chunk");
        let chunk =
            ChatCompletionChunk { id, object, created, model: ASSISTANT, choices, usage, sources };
        serde_json::to_string(&chunk).map_err(|error| Problem::internal(&error))
    };
    let choice = |delta: Value, finish_reason: Option<&str>| {
        vec![json!({ "index": 0, "delta": delta, "finish_reason": finish_reason })]
    };
    async_stream::try_stream! {
        let mut has_begun = false;
        yield chunk(choice(json!({ "role": "assistant", "content": "" }), None), None, None)?;
        for await next in told {
            match next?.1 {
                // What was sent cannot be taken back.
                Told::Searching { again: true } if has_begun => {
                    let why = "the server was cut off in the middle: ask again";
                    yield failed("run_interrupted", why, status_of(true));
                    return;
                }
                Told::Searching { .. } | Told::Answering(_) => {}
                Told::Delta(delta) => {
                    has_begun = true;
                    yield chunk(choice(json!({ "content": delta }), None), None, None)?;
                }
                Told::Answer(answer) => {
                    let (usage, reason) = (usage(&answer), finish_reason(&answer));
                    yield chunk(choice(json!({}), Some(reason.as_str())), None, Some(answer.sources))?;
                    if with_usage {
                        yield chunk(Vec::new(), Some(usage), None)?;
                    }
                }
                Told::Failed { code, message, transient } => {
                    yield failed(&code, &message, status_of(transient));
                    return;
                }
                Told::Done => yield "[DONE]".to_owned(),
            }
        }
    }
}

/// A failure, as the body of an answer or in the middle of a stream.
fn failed(code: &str, message: &str, status: StatusCode) -> String {
    let error = OpenAiError {
        message: message.to_owned(),
        r#type: kind_of(status.as_u16().into()).to_owned(),
        param: None,
        code: Some(code.to_owned()),
    };
    serde_json::to_string(&OpenAiFailure { error }).unwrap_or_default()
}

/// Embed texts as OpenAI clients do
///
/// By the embedding model that is loaded, which embeds the knowledge bases. Nothing is stored.
#[utoipa::path(post, path = "/v1/embeddings", tag = "OpenAI clients",
    extensions(("x-access" = json!(Right::Chat))), request_body = EmbeddingsRequest,
    responses((status = 200, description = "The vectors", body = Embeddings),
              (status = 404, description = "Not found, or not yours", body = OpenAiFailure), OpenAiFailures))]
async fn embed_texts(
    State(app): State<App>,
    body: Json<EmbeddingsRequest>,
) -> Result<axum::Json<Embeddings>, Problem> {
    let request = body.read()?;
    let texts = texts(request.input)?;
    let embedder = app.embedder.borrow().clone().ok_or_else(|| {
        Problem::unavailable(
            "model_missing",
            "the embedding model is missing: run `prodgy model fetch` or scripts/fetch-model, it is picked up as \
             soon as it is there",
            Duration::from_secs(30),
        )
    })?;
    let model = embedder.model().clone();
    if request.model != model.name() {
        return Err(model_not_found(&request.model));
    }
    if request.dimensions.is_some_and(|wanted| wanted != model.dimensions() as u64) {
        let message = format!("must be {}, or left out", model.dimensions());
        return Err(bad_field("dimensions", "unsupported", &message));
    }
    let is_base64 = match request.encoding_format.as_deref() {
        None | Some("float") => false,
        Some("base64") => true,
        Some(_) => return Err(bad_field("encoding_format", "unknown", "must be float or base64")),
    };
    let counted = {
        let (model, texts) = (model.clone(), texts.clone());
        tokio::task::spawn_blocking(move || {
            let counts = texts.iter().map(|text| model.count_tokens(text));
            Ok::<_, ModelError>((counts.collect::<Result<Vec<_>, _>>()?, model.longest_passage()?))
        })
    };
    let counted = counted.await.map_err(|error| Problem::internal(&error))?;
    let (counts, most) = counted.map_err(|error| Problem::internal(&error))?;
    if let Some(place) = counts.iter().position(|count| *count > most) {
        let message = format!(
            "may have at most {most} tokens in each text, and text {place} (from 0) has {}: split it",
            counts[place]
        );
        return Err(bad_field("input", "too_long", &message));
    }
    let tokens = counts.iter().sum::<usize>() as u64;
    let vectors =
        embedder.embed_passages(texts).await.map_err(|error| Problem::internal(&error))?;
    let data = vectors.into_iter().enumerate().map(|(index, vector)| {
        let embedding = if is_base64 {
            let bytes: Vec<u8> = vector.iter().flat_map(|number| number.to_le_bytes()).collect();
            Value::String(STANDARD.encode(bytes))
        } else {
            json!(vector)
        };
        OpenAiEmbedding { object: "embedding", index, embedding }
    });
    Ok(axum::Json(Embeddings {
        object: "list",
        data: data.collect(),
        model: model.name().to_owned(),
        usage: EmbeddingsUsage { prompt_tokens: tokens, total_tokens: tokens },
    }))
}

fn texts(input: Value) -> Result<Vec<String>, Problem> {
    let texts: Vec<Value> = match input {
        Value::Array(texts) => texts,
        one => vec![one],
    };
    if texts.is_empty() || texts.len() > MOST_TEXTS {
        let message = format!("must hold 1 to {MOST_TEXTS} texts");
        return Err(bad_field("input", "out_of_range", &message));
    }
    let texts: Option<Vec<String>> = texts
        .into_iter()
        .map(|text| match text {
            Value::String(text) if !text.is_empty() => Some(text),
            _ => None,
        })
        .collect();
    texts.ok_or_else(|| {
        bad_field("input", "unsupported", "must be a text, or a list of texts; none may be empty")
    })
}

/// List the models as OpenAI clients do
///
/// The assistant, `prodgy`, and the embedding model where it is loaded.
#[utoipa::path(get, path = "/v1/models", tag = "OpenAI clients",
    extensions(("x-access" = json!(Right::Chat))),
    responses((status = 200, description = "The models", body = OpenAiModels),
              (status = 404, description = "Not found, or not yours", body = OpenAiFailure), OpenAiFailures))]
async fn list_models(State(app): State<App>) -> axum::Json<OpenAiModels> {
    let model = |id: &str| OpenAiModel {
        id: id.to_owned(),
        object: "model",
        created: 0,
        owned_by: "prodgy",
    };
    let embedder = app.embedder.borrow().clone();
    let embedding = embedder.map(|embedder| model(embedder.model().name()));
    let data = [model(ASSISTANT)].into_iter().chain(embedding).collect();
    axum::Json(OpenAiModels { object: "list", data })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_after_what_passes_are_clients_told_to_ask_again() {
        let passing = not_answered("llm_unreachable", "it does not answer", true);
        assert_eq!(passing.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert!(passing.headers().contains_key(RETRY_AFTER));

        let lasting = not_answered("of_tomorrow", "it never will", false);
        assert_eq!(lasting.status(), StatusCode::UNPROCESSABLE_ENTITY);
        assert!(!lasting.headers().contains_key(RETRY_AFTER));
    }
}
