//! Failures of the rooms below, as problems.
//!
//! The rule of this file: a refusal keeps its code and its sentence; a failure of machinery is
//! logged once and tells the client only what it can act on.

use std::time::Duration;

use domain::refusal::RefusalKind;
use domain::{Refusal, ValueError};

use crate::http::problem::Aim;
use crate::http::{FieldError, Problem};

/// When to try again where the cause has to be mended by a person.
const SOON: Duration = Duration::from_secs(5);

impl From<commands::Error> for Problem {
    fn from(error: commands::Error) -> Problem {
        use commands::Error;
        match error {
            Error::Refused { kind, code, message } => refusal(kind, code, message),
            Error::Invalid { code, message, faults } => Problem::invalid(code, message)
                .with_errors(
                    faults
                        .into_iter()
                        .map(|fault| FieldError::new(fault.pointer, fault.code, fault.message)),
                ),
            Error::Stale { .. } => Problem::stale(),
            Error::CommandReused => Problem::invalid("idempotency_key_reused", error.to_string()),
            Error::Conflict => Problem::conflict("conflict", error.to_string()),
            Error::BadCredentials { user } => {
                let problem = Problem::unauthenticated("bad_credentials", error.to_string());
                match user {
                    Some(user) => problem.aimed_at(Aim { product: None, resource: ("user", user) }),
                    None => problem,
                }
            }
            Error::Log(source) => log_failure(source),
            Error::Vault(source) => vault_failure(source),
            other => Problem::internal(&other),
        }
    }
}

impl From<projections::Error> for Problem {
    fn from(error: projections::Error) -> Problem {
        match error {
            projections::Error::NotReady => Problem::unavailable(
                "read_models_not_ready",
                error.to_string(),
                Duration::from_secs(1),
            ),
            projections::Error::Log(source) => log_failure(source),
            projections::Error::Vault(source) => vault_failure(source),
            other => Problem::internal(&other),
        }
    }
}

impl From<vault::Error> for Problem {
    fn from(error: vault::Error) -> Problem {
        vault_failure(error)
    }
}

fn log_failure(error: eventlog::Error) -> Problem {
    use eventlog::{Error, KurrentdbError};
    let code = match &error {
        Error::DiskFull => "disk_full",
        Error::Busy | Error::Locked(_) => "log_locked",
        Error::ReadOnly | Error::ReadOnlyServer { .. } => "log_read_only",
        Error::Closed => "stopping",
        Error::Unanswered { .. } | Error::Kurrentdb(KurrentdbError::Unanswered(_)) => {
            "outcome_unknown"
        }
        other if other.is_temporary() => "log_unavailable",
        other => return Problem::internal(other),
    };
    // Where the log is kept and as whom it is asked is nothing for those who call: they are told
    // what it means to them, and the cause is in this server's log and at /readyz.
    let detail = match code {
        "log_read_only" => "the event log takes no changes now: try again in a moment".to_owned(),
        "outcome_unknown" => {
            "the event log went away while this was stored, and whether it was is not known yet: \
             send it again with the same Idempotency-Key"
                .to_owned()
        }
        "log_unavailable" => {
            "the event log cannot be reached now: try again in a moment, nothing of this request \
             was stored"
                .to_owned()
        }
        _ => error.to_string(),
    };
    Problem::unavailable(code, detail, SOON)
}

fn vault_failure(error: vault::Error) -> Problem {
    match error {
        vault::Error::DiskFull => Problem::unavailable("disk_full", error.to_string(), SOON),
        vault::Error::Stopping => Problem::unavailable("stopping", error.to_string(), SOON),
        away if away.is_store_away() => {
            tracing::error!(error = ?away, "the object store failed: {away}");
            let detail =
                "the store of files and keys does not answer as it should: try again in a moment";
            Problem::unavailable("object_store_unavailable", detail, SOON)
        }
        other => Problem::internal(&other),
    }
}

fn refusal(kind: RefusalKind, code: &'static str, message: String) -> Problem {
    match kind {
        RefusalKind::NotFound => Problem::not_found(code, message),
        RefusalKind::Invalid => Problem::invalid(code, message),
        RefusalKind::Conflict => Problem::conflict(code, message),
        RefusalKind::Forbidden => Problem::forbidden(code, message),
        RefusalKind::Unauthenticated => Problem::unauthenticated(code, message),
    }
}

/// A value of a body that the domain does not take, at its place.
pub fn bad_value(field: &str, error: &ValueError) -> Problem {
    let (_, code) = error.reason();
    let pointer = format!("/{field}");
    Problem::invalid(code, error.to_string()).with_error(FieldError::new(
        pointer,
        code,
        error.to_string(),
    ))
}
