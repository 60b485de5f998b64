//! What can go wrong with the log.

use std::sync::Arc;

use uuid::Uuid;

use crate::StreamId;

/// What a library said, kept for the server's log. Shared by the commands of a group that failed.
pub type Cause = Arc<dyn std::error::Error + Send + Sync>;

/// The log could not be read, opened or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The database failed.
    #[error("the event log's database failed: look at the server's log, then try again")]
    Sqlite(#[source] rusqlite::Error),
    /// A file or a folder failed.
    #[error("the event log's files failed: look at the data directory's disk and permissions")]
    Io(#[source] std::io::Error),
    /// The disk is full; nothing was stored.
    #[error("the disk is full: free some space, nothing of this request was stored")]
    DiskFull,
    /// Another SQLite process holds the database file's own lock.
    #[error(
        "the event log is locked by another program, perhaps a SQLite shell or a backup: end that one and try again, nothing of this request was stored"
    )]
    Busy,
    /// There is no log to read.
    #[error("there is no event log at {0}: start the server once, or choose another --data-dir")]
    Missing(String),
    /// Another process holds the log.
    #[error("{0} is in use by another prodgy: stop that one, or choose another --data-dir")]
    Locked(String),
    /// The log was written by a newer version.
    #[error("the event log has schema {found}, this version knows {known}: upgrade prodgy")]
    Newer {
        /// The schema number found.
        found: u32,
        /// The newest one that this build knows.
        known: u32,
    },
    /// A stored event cannot be read.
    #[error("the event at position {position} cannot be read: restore the event log from a backup")]
    Corrupt {
        /// Where.
        position: u64,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// An append to a log that was opened for reading.
    #[error(
        "the event log was opened for reading only: send the request to the server that writes it"
    )]
    ReadOnly,
    /// KurrentDB could not be asked, or its answer is of no use.
    #[error(transparent)]
    Kurrentdb(#[from] crate::KurrentdbError),
    /// The log was closed.
    #[error("the event log is closed, the server is stopping: try again when it is back")]
    Closed,
    /// An address that names no store.
    #[error("{0}")]
    Address(String),
    /// No database server answers at the address.
    #[error(
        "no server answers at {address}: check the host and port of --event-store, and that the server runs and can be reached from here"
    )]
    Unreachable {
        /// Host and port, or the socket.
        address: String,
        /// Why.
        #[source]
        source: Cause,
    },
    /// No secure connection can be made.
    #[error(
        "no secure connection to {address} can be made: check `sslmode` and `sslrootcert` in --event-store against what the server offers"
    )]
    Tls {
        /// Host and port, or the socket.
        address: String,
        /// Why.
        #[source]
        source: Cause,
    },
    /// The server does not let the user in.
    #[error(
        "the server at {address} does not let {user} in: check the user and the password in --event-store, and the server's rules (pg_hba.conf)"
    )]
    Credentials {
        /// Host and port, or the socket.
        address: String,
        /// The user.
        user: String,
        /// Why.
        #[source]
        source: Cause,
    },
    /// The server has no such database.
    #[error(
        "the server at {address} has no database {database}: make it (`createdb {database}`), or correct its name in --event-store"
    )]
    NoDatabase {
        /// Host and port, or the socket.
        address: String,
        /// The database.
        database: String,
    },
    /// The database cannot hold the log.
    #[error("the database cannot hold the event log: {0}")]
    Unsuitable(String),
    /// The user lacks a right.
    #[error(
        "the database user lacks a right that the event log needs: grant it, as migrations/events/postgres/README.md says"
    )]
    Denied(#[source] Cause),
    /// The server takes no writes.
    #[error(
        "the server at {address} only reads now (a standby, or default_transaction_read_only is on): point --event-store at the one that writes; nothing of this request was stored"
    )]
    ReadOnlyServer {
        /// Host and port, or the socket.
        address: String,
    },
    /// The connection broke, or the server is starting or stopping.
    #[error(
        "the connection to {address} broke, or the server there is starting or stopping: try again in a moment, nothing of this request was stored"
    )]
    Unavailable {
        /// Host and port, or the socket.
        address: String,
        /// Why.
        #[source]
        source: Cause,
    },
    /// The server is too busy.
    #[error(
        "the server at {address} is too busy or has run out of something: try again in a moment, nothing of this request was stored"
    )]
    Overloaded {
        /// Host and port, or the socket.
        address: String,
        /// Why.
        #[source]
        source: Cause,
    },
    /// The connection broke while a group was committed, and the server did not come back in time
    /// to be asked what became of it.
    #[error(
        "the connection to {address} broke while this was stored, and whether it was is not known yet: send it again with the same Idempotency-Key"
    )]
    Unanswered {
        /// Host and port, or the socket.
        address: String,
    },
    /// The log is shorter than it was.
    #[error(
        "the event log ended at position {known} and ends at {found} now: an old backup was restored, or a standby without the newest events took over; restore those, or delete the read models and restart"
    )]
    Rewound {
        /// The last position that was seen.
        known: u64,
        /// The last position that is there.
        found: u64,
    },
    /// The database server failed.
    #[error("the event log's server failed: look at its log, then try again")]
    Server(#[source] Cause),
}

impl Error {
    /// Whether it may pass without this process being started anew: what is sent again later may
    /// succeed.
    pub fn is_temporary(&self) -> bool {
        match self {
            Error::DiskFull
            | Error::Busy
            | Error::Locked(_)
            | Error::ReadOnly
            | Error::Closed
            | Error::Unreachable { .. }
            | Error::Tls { .. }
            | Error::Credentials { .. }
            | Error::NoDatabase { .. }
            | Error::Denied(_)
            | Error::ReadOnlyServer { .. }
            | Error::Unavailable { .. }
            | Error::Overloaded { .. }
            | Error::Unanswered { .. } => true,
            Error::Kurrentdb(error) => error.is_temporary(),
            Error::Sqlite(_)
            | Error::Io(_)
            | Error::Missing(_)
            | Error::Newer { .. }
            | Error::Corrupt { .. }
            | Error::Address(_)
            | Error::Unsuitable(_)
            | Error::Rewound { .. }
            | Error::Server(_) => false,
        }
    }
}

impl Error {
    /// The same failure once more, for each command of a group that failed.
    pub(crate) fn again(&self) -> Error {
        match self {
            Error::Sqlite(rusqlite::Error::SqliteFailure(code, message)) => {
                Error::Sqlite(rusqlite::Error::SqliteFailure(*code, message.clone()))
            }
            Error::Sqlite(error) => {
                Error::Server(Arc::new(std::io::Error::other(error.to_string())))
            }
            Error::Io(error) => Error::Io(std::io::Error::new(error.kind(), error.to_string())),
            Error::DiskFull => Error::DiskFull,
            Error::Busy => Error::Busy,
            Error::Missing(place) => Error::Missing(place.clone()),
            Error::Locked(place) => Error::Locked(place.clone()),
            Error::Newer { found, known } => Error::Newer { found: *found, known: *known },
            Error::Corrupt { position, source } => Error::Corrupt {
                position: *position,
                source: serde::de::Error::custom(source.to_string()),
            },
            Error::ReadOnly => Error::ReadOnly,
            Error::Closed => Error::Closed,
            Error::Address(text) => Error::Address(text.clone()),
            Error::Unreachable { address, source } => {
                Error::Unreachable { address: address.clone(), source: source.clone() }
            }
            Error::Tls { address, source } => {
                Error::Tls { address: address.clone(), source: source.clone() }
            }
            Error::Credentials { address, user, source } => Error::Credentials {
                address: address.clone(),
                user: user.clone(),
                source: source.clone(),
            },
            Error::NoDatabase { address, database } => {
                Error::NoDatabase { address: address.clone(), database: database.clone() }
            }
            Error::Unsuitable(why) => Error::Unsuitable(why.clone()),
            Error::Denied(source) => Error::Denied(source.clone()),
            Error::ReadOnlyServer { address } => Error::ReadOnlyServer { address: address.clone() },
            Error::Unavailable { address, source } => {
                Error::Unavailable { address: address.clone(), source: source.clone() }
            }
            Error::Overloaded { address, source } => {
                Error::Overloaded { address: address.clone(), source: source.clone() }
            }
            Error::Unanswered { address } => Error::Unanswered { address: address.clone() },
            Error::Rewound { known, found } => Error::Rewound { known: *known, found: *found },
            // KurrentDB is sent each append alone: it fails no group.
            Error::Kurrentdb(error) => {
                Error::Server(Arc::new(std::io::Error::other(error.to_string())))
            }
            Error::Server(source) => Error::Server(source.clone()),
        }
    }
}

impl From<rusqlite::Error> for Error {
    fn from(error: rusqlite::Error) -> Self {
        match error.sqlite_error_code() {
            Some(rusqlite::ErrorCode::DiskFull) => Error::DiskFull,
            Some(rusqlite::ErrorCode::DatabaseBusy | rusqlite::ErrorCode::DatabaseLocked) => {
                Error::Busy
            }
            // There is no room for the index of the write-ahead log.
            _ if is_extended(&error, rusqlite::ffi::SQLITE_IOERR_SHMSIZE) => Error::DiskFull,
            _ => Error::Sqlite(error),
        }
    }
}

fn is_extended(error: &rusqlite::Error, code: std::ffi::c_int) -> bool {
    error.sqlite_error().is_some_and(|error| error.extended_code == code)
}

impl From<std::io::Error> for Error {
    fn from(error: std::io::Error) -> Self {
        match error.kind() {
            std::io::ErrorKind::StorageFull => Error::DiskFull,
            _ => Error::Io(error),
        }
    }
}

/// An append was not stored.
#[derive(Debug, thiserror::Error)]
pub enum AppendError {
    /// The stream stands elsewhere than expected.
    #[error("{stream} has {actual} events, {expected} were expected: read it again, then retry")]
    Conflict {
        /// The stream.
        stream: StreamId,
        /// What the caller expected.
        expected: u64,
        /// What is.
        actual: u64,
    },
    /// The command id was stored with another request.
    #[error("command {command_id} was used for another request: send this one under a new key")]
    CommandReused {
        /// The command id.
        command_id: Uuid,
    },
    /// The append itself is malformed: no events, or a payload that is no object.
    #[error("malformed append: {0}")]
    Malformed(&'static str),
    /// The store failed. Whether the events are stored is unknown only if the process dies now, or
    /// after [`Error::Unanswered`].
    #[error(transparent)]
    Store(#[from] Error),
}

/// An error with what led to it, for the log.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        text.push_str(": ");
        text.push_str(&inner.to_string());
        source = inner.source();
    }
    text
}
