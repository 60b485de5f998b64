//! Why not: what every refusal of the domain has in common.
//!
//! The rule of this file: a refusal is business, said in a sentence that tells what to do next, and
//! it has one kind and one stable code. Status codes live in `api`.

use std::error::Error;

/// The five ways in which a command can be refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RefusalKind {
    /// What the command is about does not exist (any more).
    NotFound,
    /// The command itself can never be obeyed: a value is wrong.
    Invalid,
    /// The command does not fit the present state.
    Conflict,
    /// The one who asks may not.
    Forbidden,
    /// The credential that was shown is no longer good.
    Unauthenticated,
}

/// A refusal: an error that a caller can act on.
pub trait Refusal: Error {
    /// The one table of an aggregate's refusals: kind and stable code.
    fn reason(&self) -> (RefusalKind, &'static str);

    /// Which parts of the request are at fault, for refusals that can point at them.
    fn faults(&self) -> Vec<Fault> {
        Vec::new()
    }
}

/// One thing that is wrong in a document, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// A JSON pointer (RFC 6901) into the document; empty for the document as a whole.
    pub pointer: String,
    /// A stable code, as `step_id_duplicate`.
    pub code: &'static str,
    /// A sentence for a person.
    pub message: String,
}

impl Fault {
    /// A fault at a JSON pointer.
    pub fn new(pointer: impl Into<String>, code: &'static str, message: impl Into<String>) -> Self {
        Fault { pointer: pointer.into(), code, message: message.into() }
    }

    /// The same fault, seen from a document that holds this one at `prefix`.
    pub fn within(mut self, prefix: &str) -> Self {
        self.pointer.insert_str(0, prefix);
        self
    }
}

/// A document that was refused with all of its faults at once, so that they can be mended in one go.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct InvalidDocument {
    /// The stable code of the refusal as a whole, as `manifest_invalid`.
    pub code: &'static str,
    /// A sentence for a person.
    pub message: String,
    /// At least one.
    pub faults: Vec<Fault>,
}

impl Refusal for InvalidDocument {
    fn reason(&self) -> (RefusalKind, &'static str) {
        (RefusalKind::Invalid, self.code)
    }

    fn faults(&self) -> Vec<Fault> {
        self.faults.clone()
    }
}

/// A key of an object, as a part of a JSON pointer.
pub fn pointer_segment(key: &str) -> String {
    key.replace('~', "~0").replace('/', "~1")
}
