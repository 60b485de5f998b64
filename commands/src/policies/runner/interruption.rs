//! What can come between the beginning of a run and its end.
//!
//! The rule of this file: what passes is tried again, what does not fails the execution; nothing is
//! left running with nobody at it.

use chrono::{DateTime, Utc};
use domain::execution::{CancelReason, TimeLimit};

use crate::Error;
use crate::policies::ToolError;

/// Why a run did not come to its end.
pub(super) enum Interruption {
    /// A step failed, and with it the execution.
    Failed { step: Option<String>, error: ToolError },
    /// Machinery failed: the run goes on later.
    Passing(String),
    /// Somebody else runs it, or it has ended.
    NotOurs,
    /// Its agent or its product is gone.
    Unwanted(CancelReason),
    /// It took too long, or waited too long.
    TooLong(TimeLimit),
    /// It waits until then, and nobody is at it.
    NotBefore(DateTime<Utc>),
    /// The server stops: the next start goes on.
    Stopping,
}

impl From<Error> for Interruption {
    fn from(error: Error) -> Interruption {
        use vault::Error as Vault;
        match error {
            // Its worker may have died: what it claimed is free when the lease runs out.
            Error::Refused { code: "lease_held", message, .. } => Interruption::Passing(message),
            Error::Refused { .. } => Interruption::NotOurs,
            // Only who deletes a product shreds its key.
            Error::Vault(Vault::KeyShredded { .. } | Vault::KeyMissing { .. }) => {
                Interruption::Unwanted(CancelReason::ProductDeleted)
            }
            Error::Vault(
                error @ (Vault::Corrupt { .. }
                | Vault::BlobMissing { .. }
                | Vault::SealRefused { .. }
                | Vault::SealMalformed
                | Vault::TooLong { .. }),
            ) => failed(None, "payload_lost", error.to_string()),
            other => Interruption::Passing(other.to_string()),
        }
    }
}

/// A failure that trying again will not mend.
pub(super) fn failed(step: Option<&str>, code: &str, message: impl Into<String>) -> Interruption {
    let error = ToolError::lasting(code, message);
    Interruption::Failed { step: step.map(str::to_owned), error }
}
