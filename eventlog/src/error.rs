//! What can go wrong with the log.

use uuid::Uuid;

use crate::StreamId;

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
    /// The log was closed.
    #[error("the event log is closed, the server is stopping: try again when it is back")]
    Closed,
}

impl From<rusqlite::Error> for Error {
    fn from(error: rusqlite::Error) -> Self {
        match error.sqlite_error_code() {
            Some(rusqlite::ErrorCode::DiskFull) => Error::DiskFull,
            Some(rusqlite::ErrorCode::DatabaseBusy | rusqlite::ErrorCode::DatabaseLocked) => {
                Error::Busy
            }
            _ => Error::Sqlite(error),
        }
    }
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
    /// The store failed; whether the events are stored is unknown only if the process dies now.
    #[error(transparent)]
    Store(#[from] Error),
}
