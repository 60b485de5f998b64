//! What a failure of the server or of the way to it means, and what to do about it.
//!
//! The rule of this file: it goes by PostgreSQL's codes (SQLSTATE), never by the words beside them,
//! which the server may say in any language.

use std::io::ErrorKind;
use std::sync::Arc;

use sqlx::postgres::{PgDatabaseError, PgSeverity};

use super::server::Server;
use crate::Error;

/// What was being done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Moment {
    /// A connection was being made.
    Connecting,
    /// All connections were in use.
    Waiting,
    /// Something was asked on a connection.
    Asking,
}

/// Whether the connection cannot be used any more: what was asked last may have been carried out,
/// or not.
pub(super) fn is_lost(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Io(_)
        | sqlx::Error::Tls(_)
        | sqlx::Error::Protocol(_)
        | sqlx::Error::PoolTimedOut
        | sqlx::Error::PoolClosed
        | sqlx::Error::WorkerCrashed => true,
        sqlx::Error::Database(error) => error
            .try_downcast_ref::<PgDatabaseError>()
            .is_some_and(|error| matches!(error.severity(), PgSeverity::Fatal | PgSeverity::Panic)),
        _ => false,
    }
}

/// Whether the server said that it takes no writes.
pub(super) fn is_read_only(error: &sqlx::Error) -> bool {
    code(error).as_deref() == Some("25006")
}

pub(super) fn explain(error: sqlx::Error, server: &Server, moment: Moment) -> Error {
    let address = server.address.clone();
    let code = code(&error);
    let source = Arc::new(error);
    if let Some(code) = code {
        return match code.as_str() {
            "28000" | "28P01" => Error::Credentials { address, user: server.user.clone(), source },
            "3D000" => Error::NoDatabase { address, database: server.database.clone() },
            "25006" => Error::ReadOnlyServer { address },
            "42501" => Error::Denied(source),
            "53100" => Error::DiskFull,
            // Out of memory or connections; a statement or a lock that took too long.
            code if code.starts_with("53") => Error::Overloaded { address, source },
            "57014" | "55P03" | "25P03" => Error::Overloaded { address, source },
            // It is shutting down, starting, or has crashed.
            code if code.starts_with("57P") || code.starts_with("08") => {
                Error::Unavailable { address, source }
            }
            _ if is_lost(&source) => Error::Unavailable { address, source },
            _ => Error::Server(source),
        };
    }
    match (&*source, moment) {
        (sqlx::Error::Io(error), _) if error.kind() == ErrorKind::StorageFull => Error::DiskFull,
        (sqlx::Error::Tls(_), _) => Error::Tls { address, source },
        // What rustls says of a certificate that it does not accept.
        (sqlx::Error::Io(error), Moment::Connecting) if error.kind() == ErrorKind::InvalidData => {
            Error::Tls { address, source }
        }
        (sqlx::Error::Configuration(error), _) => {
            Error::Address(format!("the address of the event log cannot be used: {error}"))
        }
        (_, Moment::Waiting) => Error::Overloaded { address, source },
        (error, Moment::Connecting) if is_lost(error) => Error::Unreachable { address, source },
        (error, Moment::Asking) if is_lost(error) => Error::Unavailable { address, source },
        _ => Error::Server(source),
    }
}

fn code(error: &sqlx::Error) -> Option<String> {
    error.as_database_error()?.code().map(|code| code.into_owned())
}
