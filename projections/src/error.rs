//! What can go wrong with a read model.

/// A read model cannot answer, or cannot take an event in.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The views file failed.
    #[error("the read models' file failed")]
    Sqlite(#[from] rusqlite::Error),
    /// A file or a folder failed.
    #[error("the read models' files failed")]
    Io(#[from] std::io::Error),
    /// The log failed.
    #[error(transparent)]
    Log(#[from] eventlog::Error),
    /// The vault failed.
    #[error(transparent)]
    Vault(#[from] vault::Error),
    /// The full-text index failed.
    #[error("the full-text index failed")]
    FullText(#[from] tantivy::TantivyError),
    /// An event's payload does not load.
    #[error("the event's payload does not load")]
    Payload(#[from] serde_json::Error),
    /// An event does not fit what came before it.
    #[error("{0}")]
    Unfit(String),
    /// The read models are still being built.
    #[error("the read models are being built from the log: try again in a moment")]
    NotReady,
}

impl Error {
    /// Whether the disk is at fault and not the event: it may be taken in later.
    pub(crate) fn is_passing(&self) -> bool {
        use rusqlite::ErrorCode;
        match self {
            Error::Io(_) => true,
            Error::Sqlite(error) => matches!(
                error.sqlite_error_code(),
                Some(
                    ErrorCode::DiskFull
                        | ErrorCode::SystemIoFailure
                        | ErrorCode::OutOfMemory
                        | ErrorCode::DatabaseBusy
                        | ErrorCode::DatabaseLocked
                )
            ),
            _ => false,
        }
    }
}

/// An error with its causes, as one line.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(source) = cause {
        let message = source.to_string();
        if !text.ends_with(&message) {
            text.push_str(": ");
            text.push_str(&message);
        }
        cause = source.source();
    }
    text
}
