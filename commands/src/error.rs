//! Why a command was not carried out.

use domain::refusal::{Refusal, RefusalKind};
use uuid::Uuid;

/// A fault in what was sent.
#[derive(Clone, Debug, PartialEq)]
pub struct Fault {
    /// Where: a JSON pointer into the request's body.
    pub pointer: String,
    /// A stable name.
    pub code: String,
    /// What a person can act on.
    pub message: String,
}

/// A command was not carried out.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The domain refused.
    #[error("{message}")]
    Refused {
        /// What sort of refusal.
        kind: RefusalKind,
        /// A stable name, as `agent_not_found`.
        code: &'static str,
        /// What a person can act on.
        message: String,
    },
    /// Well formed, but not valid.
    #[error("{message}")]
    Invalid {
        /// A stable name, as `manifest_invalid`.
        code: &'static str,
        /// What a person can act on.
        message: String,
        /// Each fault.
        faults: Vec<Fault>,
    },
    /// `If-Match` named a sequence that is not the current one.
    #[error("it has changed since you read it: it is at {current} now; read it again, then retry")]
    Stale {
        /// The current sequence.
        current: u64,
    },
    /// The same idempotency key came with another request.
    #[error("this Idempotency-Key was used for another request: use a new key")]
    CommandReused,
    /// Another command was faster, twice.
    #[error("another change came first: read it again, then retry")]
    Conflict,
    /// The e-mail address and the password do not fit.
    #[error("e-mail address or password is wrong")]
    BadCredentials {
        /// Whose address it was. For the record: who asks is not told.
        user: Option<Uuid>,
    },
    /// The log failed.
    #[error(transparent)]
    Log(#[from] eventlog::Error),
    /// The vault failed.
    #[error(transparent)]
    Vault(#[from] vault::Error),
    /// A stored event does not load.
    #[error("a stored event of {stream} does not load")]
    Decode {
        /// The stream.
        stream: String,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// Garbage was to be collected by a log that holds nothing.
    #[error(
        "the log is empty, but the store holds files: check that --event-store is the log of these --blobs; nothing was changed"
    )]
    EmptyLog,
    /// Hashing or signing failed.
    #[error("{0}")]
    Crypto(String),
}

impl Error {
    /// Wraps a refusal of an aggregate.
    pub fn refused(refusal: &impl Refusal) -> Error {
        let (kind, code) = refusal.reason();
        let faults = refusal.faults();
        if kind == RefusalKind::Invalid && !faults.is_empty() {
            let fault = |fault: domain::refusal::Fault| Fault {
                pointer: fault.pointer,
                code: fault.code.to_owned(),
                message: fault.message,
            };
            return Error::Invalid {
                code,
                message: refusal.to_string(),
                faults: faults.into_iter().map(fault).collect(),
            };
        }
        Error::Refused { kind, code, message: refusal.to_string() }
    }

    /// The same error, its faults seen from a document that holds the faulty one at `prefix`.
    #[must_use]
    pub fn within(mut self, prefix: &str) -> Error {
        if let Error::Invalid { faults, .. } = &mut self {
            faults.iter_mut().for_each(|fault| fault.pointer.insert_str(0, prefix));
        }
        self
    }

    /// The same error, its faults said of one place of the request: they are in something that the
    /// request only names.
    #[must_use]
    pub fn at(mut self, pointer: &str) -> Error {
        if let Error::Invalid { faults, .. } = &mut self {
            for fault in faults {
                fault.message = format!("{}: {}", fault.pointer, fault.message);
                pointer.clone_into(&mut fault.pointer);
            }
        }
        self
    }

    /// The same error, its faults seen from the inner document that stands at `prefix`.
    #[must_use]
    pub fn inside(mut self, prefix: &str) -> Error {
        if let Error::Invalid { faults, .. } = &mut self {
            for fault in faults {
                if let Some(inner) = fault.pointer.strip_prefix(prefix) {
                    fault.pointer = inner.to_owned();
                }
            }
        }
        self
    }

    /// What went wrong in one line, faults included, where there is no place for a list of them.
    pub fn in_a_line(&self) -> String {
        let Error::Invalid { message, faults, .. } = self else { return self.to_string() };
        let faults = faults.iter().map(|fault| format!("{}: {}", fault.pointer, fault.message));
        format!("{message} ({})", faults.collect::<Vec<_>>().join("; "))
    }
}
