//! Steps: what an agent can do, and what each kind of step needs to be told.
//!
//! The rule of this file: a step's `with` is read here and nowhere else, before it runs (literal
//! values only) and when it runs (everything evaluated). A new kind of step begins with an arm here.

use serde_json::{Map, Value};

use crate::expression::is_expression;
use crate::refusal::{Fault, pointer_segment};

/// What a step does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StepKind {
    /// Searches a knowledge base by meaning. Puts out `{"passages": [{file_id, file_name,
    /// chunk_index, text, score, char_start, char_end}]}`, best first.
    KnowledgeSearch,
    /// Puts a note into a knowledge base. Puts out `{"file_id", "file_name", "status", "duplicate"}`.
    KnowledgeIngest,
    /// Puts out its own `with`, evaluated.
    Transform,
}

impl StepKind {
    /// Every kind there is.
    pub const ALL: [StepKind; 3] =
        [StepKind::KnowledgeSearch, StepKind::KnowledgeIngest, StepKind::Transform];

    /// The kind as a manifest writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            StepKind::KnowledgeSearch => "kb.search",
            StepKind::KnowledgeIngest => "kb.ingest",
            StepKind::Transform => "transform",
        }
    }

    /// The kind that a manifest means.
    pub fn parse(text: &str) -> Option<Self> {
        StepKind::ALL.into_iter().find(|kind| kind.as_str() == text)
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
        /// How alike they must be at least, -1 to 1.
        min_score: Option<f32>,
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
    },
    /// See [`StepKind::Transform`].
    Transform {
        /// What is put out.
        output: Map<String, Value>,
    },
}

/// The most passages that one search gives.
pub const MAX_PASSAGES: usize = 100;

/// How many passages a search gives when it is not told.
pub const DEFAULT_PASSAGES: usize = 5;

impl StepCall {
    /// Reads the evaluated `with` of a step.
    ///
    /// # Errors
    /// Its faults, with JSON pointers into `with`.
    pub fn parse(kind: StepKind, with: Map<String, Value>) -> Result<StepCall, Vec<Fault>> {
        let mut read = Reader { with: &with, faults: Vec::new() };
        let call = match kind {
            StepKind::KnowledgeSearch => StepCall::KnowledgeSearch {
                query: read.required_text("query"),
                knowledge: read.text("knowledge"),
                limit: read.limit(),
                min_score: read.min_score(),
            },
            StepKind::KnowledgeIngest => StepCall::KnowledgeIngest {
                title: read.required_text("title"),
                text: read.required_text("text"),
                knowledge: read.text("knowledge"),
                tags: read.texts("tags"),
            },
            StepKind::Transform => return Ok(StepCall::Transform { output: with }),
        };
        read.only(kind);
        if read.faults.is_empty() { Ok(call) } else { Err(read.faults) }
    }
}

/// Finds the faults of a `with` that can be known before the step runs: what an expression will come
/// to is not among them. `slots` are the knowledge slots of the manifest.
pub fn check(kind: StepKind, with: &Map<String, Value>, slots: &[String]) -> Vec<Fault> {
    if kind == StepKind::Transform {
        return Vec::new();
    }
    let (computed, literal): (Map<_, _>, Map<_, _>) =
        with.clone().into_iter().partition(|(_, value)| holds_expression(value));
    let mut faults = StepCall::parse(kind, literal).err().unwrap_or_default();
    // What is computed is there when the step runs, but it may still be what nobody asks for.
    faults.retain(|fault| !computed.contains_key(fault.pointer.trim_start_matches('/')));
    let mut read = Reader { with: &computed, faults: Vec::new() };
    read.only(kind);
    faults.append(&mut read.faults);
    match with.get("knowledge") {
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

fn holds_expression(value: &Value) -> bool {
    is_expression(value)
        || match value {
            Value::Array(items) => items.iter().any(holds_expression),
            Value::Object(object) => object.values().any(holds_expression),
            _ => false,
        }
}

/// Reads fields and collects what is wrong with them.
struct Reader<'a> {
    with: &'a Map<String, Value>,
    faults: Vec<Fault>,
}

impl Reader<'_> {
    fn fault(&mut self, field: &str, code: &'static str, message: impl Into<String>) {
        self.faults.push(Fault::new(format!("/{}", pointer_segment(field)), code, message));
    }

    /// The field, unless it is missing or `null`, which an expression may come to.
    fn given(&self, field: &str) -> Option<&Value> {
        self.with.get(field).filter(|value| !value.is_null())
    }

    fn text(&mut self, field: &str) -> Option<String> {
        match self.given(field)? {
            Value::String(text) => Some(text.clone()),
            _ => {
                self.fault(field, "type_mismatch", format!("`{field}` is a text"));
                None
            }
        }
    }

    fn required_text(&mut self, field: &str) -> String {
        if self.given(field).is_none() {
            self.fault(field, "field_missing", format!("this step needs `{field}`"));
        }
        match self.text(field) {
            Some(text) if text.trim().is_empty() => {
                self.fault(field, "text_empty", format!("`{field}` is empty: write something"));
                text
            }
            text => text.unwrap_or_default(),
        }
    }

    fn texts(&mut self, field: &str) -> Vec<String> {
        let texts = match self.given(field) {
            None => return Vec::new(),
            Some(Value::Array(items)) => {
                items.iter().map(|item| item.as_str().map(str::to_owned)).collect()
            }
            Some(_) => None,
        };
        texts.unwrap_or_else(|| {
            self.fault(field, "type_mismatch", format!("`{field}` is a list of texts"));
            Vec::new()
        })
    }

    fn limit(&mut self) -> usize {
        match self.given("limit").map(Value::as_u64) {
            None => DEFAULT_PASSAGES,
            Some(Some(limit)) if (1..=MAX_PASSAGES as u64).contains(&limit) => limit as usize,
            Some(_) => {
                let message = format!("`limit` is a whole number from 1 to {MAX_PASSAGES}");
                self.fault("limit", "out_of_range", message);
                DEFAULT_PASSAGES
            }
        }
    }

    fn min_score(&mut self) -> Option<f32> {
        match self.given("min_score")?.as_f64() {
            Some(score) if (-1.0..=1.0).contains(&score) => Some(score as f32),
            _ => {
                self.fault("min_score", "out_of_range", "`min_score` is a number from -1 to 1");
                None
            }
        }
    }

    /// Complains about fields that this kind of step does not know.
    fn only(&mut self, kind: StepKind) {
        let known: &[&str] = match kind {
            StepKind::KnowledgeSearch => &["query", "knowledge", "limit", "min_score"],
            StepKind::KnowledgeIngest => &["title", "text", "knowledge", "tags"],
            StepKind::Transform => return,
        };
        for field in self.with.keys().filter(|field| !known.contains(&field.as_str())) {
            let pointer = format!("/{}", pointer_segment(field));
            let message = format!("{} does not know `{field}`: leave it out", kind.as_str());
            self.faults.push(Fault::new(pointer, "field_unknown", message));
        }
    }
}

#[cfg(test)]
mod tests;
