//! The file as it is filled with another log's events.
//!
//! The rule of this file: the lock of the one that writes is held from the first look to the last row.

use std::fs::File;
use std::path::Path;

use async_trait::async_trait;
use rusqlite::{Connection, TransactionBehavior};
use tokio::task::block_in_place;

use super::committer::{INSERT, is_taken};
use super::{SqliteOptions, reader, schema};
use crate::importer::{End, ImportError, Target, with_commands};
use crate::{Error, RecordedEvent, folder};

/// See [`crate::Importer`].
pub(crate) struct SqliteImporter {
    connection: Connection,
    _lock: File,
}

impl SqliteImporter {
    /// Opens the file, or makes it; says where its log ends.
    pub fn open(path: &Path, options: &SqliteOptions) -> Result<(SqliteImporter, End), Error> {
        folder::make_folder(folder::parent(path))?;
        let lock = schema::lock(path)?;
        let connection = schema::open_writer(path, options)?;
        let end = reader::newest(&connection)?.map_or(End::default(), |newest| End::at(&newest));
        Ok((SqliteImporter { connection, _lock: lock }, end))
    }

    fn insert(&mut self, events: &[RecordedEvent], end: End) -> Result<(), ImportError> {
        let transaction = self
            .connection
            .transaction_with_behavior(TransactionBehavior::Immediate)
            .map_err(Error::from)?;
        let mut insert = transaction.prepare_cached(INSERT).map_err(Error::from)?;
        for (event, command) in with_commands(events, end.command) {
            let inserted = insert.execute((
                event.position.0,
                event.stream.as_str(),
                event.sequence,
                command.as_ref().map(uuid::Uuid::as_bytes),
                event.to_canonical(),
            ));
            inserted.map_err(|error| match is_taken(&error) {
                true => ImportError::taken(event.position, event.position),
                false => Error::from(error).into(),
            })?;
        }
        drop(insert);
        Ok(transaction.commit().map_err(Error::from)?)
    }
}

#[async_trait]
impl Target for SqliteImporter {
    async fn write(&mut self, events: &[RecordedEvent], end: End) -> Result<(), ImportError> {
        block_in_place(|| self.insert(events, end))
    }
}
