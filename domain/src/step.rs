//! Steps: what an agent can do, and what each kind of step needs to be told.
//!
//! The rule of this file: a step's `with` is read here and nowhere else, before it runs (literal
//! values only) and when it runs (everything evaluated). A new kind of step begins with an arm here.

use std::time::Duration;

use serde_json::{Map, Value};

use crate::expression::is_expression;
use crate::refusal::Fault;
use crate::schema::Schema;
use crate::values::Timestamp;

mod http;
mod integration;
mod reader;
mod search;

pub use http::{
    Body, DEFAULT_BYTES, DEFAULT_REDIRECTS, HttpCall, MAX_BYTES, MAX_REDIRECTS, Method, ReadAs,
    Statuses,
};

pub use integration::{IntegrationCall, Target};

use reader::{Reader, When};

/// What a step does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StepKind {
    /// Searches a knowledge base by meaning. Puts out `{"passages": [{file_id, file_name,
    /// chunk_index, text, score, char_start, char_end}]}`, best first.
    KnowledgeSearch,
    /// Puts a note into a knowledge base. Puts out `{"file_id", "file_name", "status", "duplicate"}`.
    KnowledgeIngest,
    /// Lets a language model answer. Puts out `{"answer", "citations", "model", "usage"}`, and
    /// `data` where the answer was to follow a schema.
    Answer,
    /// Asks a server on the web. Puts out `{"status", "headers", "body", "url"}`.
    HttpRequest,
    /// Asks something of an integration. What it puts out depends on the operation.
    IntegrationCall,
    /// Says something in a communicator, through the outbox. Puts out `{"id", "thread", "channel"}` when
    /// the other side has it.
    Notify,
    /// Decides. Puts out `{"value": true}` or `{"value": false}`.
    Condition,
    /// Puts out its own `with`, evaluated.
    Transform,
    /// Waits. Puts out `{"until"}`, the instant at which it was over.
    Wait,
}

impl StepKind {
    /// Whether a step of this kind only computes: done twice, it puts out the same, and nobody else notices.
    pub fn computes(self) -> bool {
        matches!(self, StepKind::Transform | StepKind::Condition)
    }

    /// Every kind there is.
    pub const ALL: [StepKind; 9] = [
        StepKind::KnowledgeSearch,
        StepKind::KnowledgeIngest,
        StepKind::Answer,
        StepKind::HttpRequest,
        StepKind::IntegrationCall,
        StepKind::Notify,
        StepKind::Condition,
        StepKind::Transform,
        StepKind::Wait,
    ];

    /// The kind as a manifest writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            StepKind::KnowledgeSearch => "kb.search",
            StepKind::KnowledgeIngest => "kb.ingest",
            StepKind::Answer => "llm.answer",
            StepKind::HttpRequest => "http.request",
            StepKind::IntegrationCall => "integration.call",
            StepKind::Notify => "notify",
            StepKind::Condition => "condition",
            StepKind::Transform => "transform",
            StepKind::Wait => "wait",
        }
    }

    /// The kind that a manifest means.
    pub fn parse(text: &str) -> Option<Self> {
        StepKind::ALL.into_iter().find(|kind| kind.as_str() == text)
    }

    /// The fields that this kind of step takes; `transform` takes any, `integration.call` and `notify` those
    /// of their operation.
    fn fields(self) -> &'static [&'static str] {
        match self {
            StepKind::KnowledgeSearch => {
                &["query", "knowledge", "limit", "min_score", "mode", "filters"]
            }
            StepKind::KnowledgeIngest => &["title", "text", "knowledge", "tags", "duplicate_of"],
            StepKind::Answer => &[
                "question",
                "prompt",
                "system",
                "context",
                "model",
                "temperature",
                "max_tokens",
                "schema",
            ],
            StepKind::HttpRequest => &[
                "method",
                "url",
                "headers",
                "query",
                "body",
                "json",
                "form",
                "expect",
                "response",
                "max_bytes",
                "redirects",
            ],
            StepKind::Condition => &["if"],
            StepKind::Transform | StepKind::IntegrationCall | StepKind::Notify => &[],
            StepKind::Wait => &["for", "until"],
        }
    }
}

/// A step, told all it needs.
#[derive(Clone, Debug, PartialEq)]
pub enum StepCall {
    /// See [`StepKind::KnowledgeSearch`].
    KnowledgeSearch {
        /// What to search for.
        query: String,
        /// The slot of the knowledge base; the product's default one without it.
        knowledge: Option<String>,
        /// How many passages at most, 1 to [`MAX_PASSAGES`].
        limit: usize,
        /// The least score of a passage: what a score is depends on the mode.
        min_score: Option<f32>,
        /// How: `vector`, `full_text` or `hybrid`.
        mode: &'static str,
        /// In which files, as the search of the API takes them.
        filters: Map<String, Value>,
    },
    /// See [`StepKind::KnowledgeIngest`].
    KnowledgeIngest {
        /// What the note is called.
        title: String,
        /// What it says, in Markdown.
        text: String,
        /// The slot of the knowledge base; the product's default one without it.
        knowledge: Option<String>,
        /// Words to find it by.
        tags: Vec<String>,
        /// What it must not be the same as, to be stored.
        duplicate_of: DuplicateOf,
    },
    /// See [`StepKind::Answer`].
    Answer(Box<AnswerCall>),
    /// See [`StepKind::HttpRequest`].
    HttpRequest(Box<HttpCall>),
    /// See [`StepKind::IntegrationCall`].
    Integration(Box<IntegrationCall>),
    /// See [`StepKind::Notify`].
    Notify(Box<IntegrationCall>),
    /// See [`StepKind::Condition`].
    Condition {
        /// What it came to.
        value: bool,
    },
    /// See [`StepKind::Transform`].
    Transform {
        /// What is put out.
        output: Map<String, Value>,
    },
    /// See [`StepKind::Wait`].
    Wait(Wait),
}

/// Which files of a knowledge base a note that says the same is a duplicate of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DuplicateOf {
    /// Of any.
    #[default]
    Any,
    /// Of the newest of its title alone: what comes back after something else is a new version.
    Newest,
}

/// What a language model is asked.
#[derive(Clone, Debug, PartialEq)]
pub struct AnswerCall {
    /// What is to be done.
    pub task: Task,
    /// How the model is to behave.
    pub system: Option<String>,
    /// What the answer is to be found in, and is to cite.
    pub context: Vec<Passage>,
    /// Which model; that of the configuration without it.
    pub model: Option<String>,
    /// How freely it chooses its words, 0 to 2.
    pub temperature: Option<f64>,
    /// How long the answer may become, in tokens.
    pub max_tokens: Option<u32>,
    /// The JSON Schema that the answer must follow; it is JSON then.
    pub schema: Option<Value>,
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Task {
    /// A question, to be answered from the context.
    Question(String),
    /// A prompt, which is sent as it stands. Needs a chat model.
    Prompt(String),
}

/// A piece of text that an answer may cite.
#[derive(Clone, Debug, PartialEq)]
pub struct Passage {
    /// What it says.
    pub text: String,
    /// What else is known of it, as the file it is from.
    pub about: Map<String, Value>,
}

/// How long to wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// As long as this, from when the step begins.
    For(Duration),
    /// Until then; not at all, where it is past.
    Until(Timestamp),
}

/// The most passages that one search gives, or one answer is found in.
pub const MAX_PASSAGES: usize = 100;

/// How many passages a search gives when it is not told.
pub const DEFAULT_PASSAGES: usize = 5;

/// The longest wait for a length of time.
pub const MAX_WAIT: Duration = Duration::from_secs(366 * 86_400);

/// The longest answer, in tokens.
pub const MAX_TOKENS: u64 = 100_000;

impl StepCall {
    /// Reads the evaluated `with` of a step.
    ///
    /// # Errors
    /// Its faults, with JSON pointers into `with`.
    pub fn parse(kind: StepKind, with: Map<String, Value>) -> Result<StepCall, Vec<Fault>> {
        if kind == StepKind::Transform {
            return Ok(StepCall::Transform { output: with });
        }
        let mut read = Reader::new(&with, When::Runs);
        match read_call(kind, &mut read) {
            Some(call) if read.faults.is_empty() => Ok(call),
            _ => Err(read.faults),
        }
    }
}

/// Reads what a step is told. Where nothing can be made of it, that comes with a fault.
fn read_call(kind: StepKind, read: &mut Reader<'_>) -> Option<StepCall> {
    if kind == StepKind::IntegrationCall {
        return integration::read(read).map(|call| StepCall::Integration(Box::new(call)));
    }
    if kind == StepKind::Notify {
        return integration::read_notify(read).map(|call| StepCall::Notify(Box::new(call)));
    }
    read.is_lenient = matches!(kind, StepKind::KnowledgeSearch | StepKind::KnowledgeIngest);
    let call = match kind {
        StepKind::KnowledgeSearch => StepCall::KnowledgeSearch {
            query: read.required_text("query"),
            knowledge: read.text("knowledge"),
            limit: read
                .integer("limit", 1, MAX_PASSAGES as u64)
                .map_or(DEFAULT_PASSAGES, |limit| limit as usize),
            mode: search::read_mode(read),
            min_score: search::read_min_score(read),
            filters: search::read_filters(read),
        },
        StepKind::KnowledgeIngest => StepCall::KnowledgeIngest {
            title: read.required_text("title"),
            text: read.required_text("text"),
            knowledge: read.text("knowledge"),
            tags: read.texts("tags"),
            duplicate_of: read
                .choice(
                    "duplicate_of",
                    &[("any", DuplicateOf::Any), ("newest", DuplicateOf::Newest)],
                )
                .unwrap_or_default(),
        },
        StepKind::Answer => StepCall::Answer(Box::new(read_answer(read))),
        StepKind::HttpRequest => StepCall::HttpRequest(Box::new(http::read(read))),
        StepKind::Condition => StepCall::Condition { value: read_condition(read) },
        StepKind::Transform | StepKind::IntegrationCall | StepKind::Notify => {
            StepCall::Transform { output: read.with.clone() }
        }
        StepKind::Wait => StepCall::Wait(read_wait(read)),
    };
    if kind != StepKind::Transform {
        read.only(kind.as_str(), kind.fields());
    }
    Some(call)
}

fn read_answer(read: &mut Reader<'_>) -> AnswerCall {
    read.exactly_one(&["question", "prompt"]);
    let question = read.filled_text("question").map(Task::Question);
    let prompt = read.filled_text("prompt").map(Task::Prompt);
    let schema = read_schema(read);
    AnswerCall {
        task: question.or(prompt).unwrap_or(Task::Question(String::new())),
        system: read.text("system"),
        context: read_passages(read),
        model: read.filled_text("model"),
        temperature: read.number("temperature", 0.0, 2.0),
        max_tokens: read.integer("max_tokens", 1, MAX_TOKENS).map(|most| most as u32),
        schema,
    }
}

fn read_schema(read: &mut Reader<'_>) -> Option<Value> {
    let schema = read.given("schema")?;
    let fault = match schema {
        Value::Object(_) | Value::Bool(_) if read.is_partly_computed(schema) => None,
        Value::Object(_) | Value::Bool(_) => Schema::compile(schema).err(),
        _ => Some(Fault::new("", "type_mismatch", "`schema` is a JSON Schema: an object")),
    };
    read.faults.extend(fault.map(|fault| fault.within("/schema")));
    Some(schema.clone())
}

fn read_passages(read: &mut Reader<'_>) -> Vec<Passage> {
    let items = match read.given("context") {
        None => return Vec::new(),
        Some(Value::Array(items)) if items.len() <= MAX_PASSAGES => items.clone(),
        Some(Value::Array(_)) => {
            let message = format!("`context` holds at most {MAX_PASSAGES} passages: give fewer");
            read.fault("context", "out_of_range", message);
            return Vec::new();
        }
        Some(_) => {
            let message = "`context` is a list of passages, as kb.search puts them out";
            read.fault("context", "type_mismatch", message);
            return Vec::new();
        }
    };
    let mut passages = Vec::new();
    for (index, item) in items.into_iter().enumerate() {
        if read.is_computed(&item) {
            continue;
        }
        let passage = match item {
            Value::String(text) => Some(Passage { text, about: Map::new() }),
            Value::Object(mut about) => match about.remove("text") {
                Some(Value::String(text)) => Some(Passage { text, about }),
                Some(text) if read.is_computed(&text) => continue,
                _ => None,
            },
            _ => None,
        };
        if passage.is_none() {
            let message = "a passage is a text, or an object with a `text`";
            let pointer = format!("/context/{index}");
            read.faults.push(Fault::new(pointer, "type_mismatch", message));
        }
        passages.extend(passage);
    }
    passages
}

fn read_condition(read: &mut Reader<'_>) -> bool {
    match read.required("if") {
        None => false,
        Some(Value::Bool(value)) => *value,
        Some(_) => {
            let message = "`if` comes to true or false: write it as {\"cel\": \"input.n > 3\"}";
            read.fault("if", "type_mismatch", message);
            false
        }
    }
}

fn read_wait(read: &mut Reader<'_>) -> Wait {
    read.exactly_one(&["for", "until"]);
    let length = read.duration("for", Duration::ZERO, MAX_WAIT);
    let until = read.filled_text("until").and_then(|text| {
        let time = chrono::DateTime::parse_from_rfc3339(&text).ok();
        if time.is_none() {
            let message = "write a time with its zone, as 2026-01-31T09:00:00Z";
            read.fault("until", "time_invalid", message);
        }
        time.map(|time| Timestamp::from(time.to_utc()))
    });
    match (length, until) {
        (None, Some(until)) => Wait::Until(until),
        (length, _) => Wait::For(length.unwrap_or_default()),
    }
}

/// Finds the faults of a `with` that can be known before the step runs: what an expression will come
/// to is not among them. `slots` are the knowledge slots of the manifest.
pub fn check(kind: StepKind, with: &Map<String, Value>, slots: &[String]) -> Vec<Fault> {
    if kind == StepKind::Transform {
        return Vec::new();
    }
    let mut read = Reader::new(with, When::Before);
    read_call(kind, &mut read);
    let mut faults = read.faults;
    match with.get("knowledge") {
        _ if !kind.fields().contains(&"knowledge") => {}
        Some(Value::String(slot)) if !slots.contains(slot) => faults.push(Fault::new(
            "/knowledge",
            "slot_unknown",
            format!("the manifest has no knowledge slot `{slot}`: add it to requires.knowledge"),
        )),
        Some(slot) if is_expression(slot) => faults.push(Fault::new(
            "/knowledge",
            "type_mismatch",
            "a slot is named by a literal text: bindings are fixed when the agent is installed",
        )),
        _ => {}
    }
    faults
}

/// Finds the fault of a call of an integration that can be known from the slots of its manifest.
pub fn check_integration(
    kind: StepKind,
    with: &Map<String, Value>,
    slots: &[crate::manifest::IntegrationSlot],
) -> Option<Fault> {
    match kind {
        StepKind::IntegrationCall => integration::check_slot(with, slots),
        StepKind::Notify => integration::check_notify_slot(with, slots),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
