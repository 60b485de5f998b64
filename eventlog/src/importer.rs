//! Fills a log with what another one recorded: the same bytes at the same positions.
//!
//! The rule of this file: an event gets nothing here. It is stored as it came, behind what is there,
//! or the whole batch is refused.

use std::path::Path;

use async_trait::async_trait;
use uuid::Uuid;

use crate::postgres::PostgresImporter;
use crate::sqlite::SqliteImporter;
use crate::{Error, Position, PostgresOptions, RecordedEvent, SqliteOptions};

/// A log that is being filled. Nobody else may write it meanwhile. It needs a run time of several
/// threads.
pub struct Importer {
    target: Box<dyn Target>,
    end: End,
}

/// What is filled.
#[async_trait]
pub(crate) trait Target: Send {
    /// Stores at least one event behind `end`, all of them or none.
    async fn write(&mut self, events: &[RecordedEvent], end: End) -> Result<(), ImportError>;
}

/// Where a log ends.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct End {
    pub position: Position,
    /// The command of the newest event: the next one may belong to it, too.
    pub command: Option<Uuid>,
}

impl End {
    /// The end that an event makes.
    pub fn at(event: &RecordedEvent) -> End {
        End { position: event.position, command: Some(event.command_id) }
    }
}

/// Events were not imported.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// They do not fit, or the log takes none.
    #[error("{0}")]
    Refused(String),
    /// The store failed. Nothing of this batch was stored, unless the connection broke in its commit:
    /// open the log again and see where it ends.
    #[error(transparent)]
    Store(#[from] Error),
}

impl ImportError {
    /// Somebody else writes the log.
    pub(crate) fn not_alone() -> ImportError {
        ImportError::Refused(
            "something else writes this event log: stop every prodgy that uses it, and begin anew \
             with an empty one"
                .into(),
        )
    }

    /// Two events have one place, or two commands one id.
    pub(crate) fn taken(first: Position, last: Position) -> ImportError {
        ImportError::Refused(format!(
            "between positions {first} and {last} there is an event whose place in its stream, or \
             a command whose id, is taken already: a log in KurrentDB may hold a command id once in \
             each stream, this one holds it once"
        ))
    }
}

impl Importer {
    pub(crate) fn sqlite(path: &Path) -> Result<Importer, Error> {
        let (target, end) = SqliteImporter::open(path, &SqliteOptions::default())?;
        Ok(Importer { target: Box::new(target), end })
    }

    pub(crate) async fn postgres(url: &str) -> Result<Importer, Error> {
        let (target, end) = PostgresImporter::open(url, PostgresOptions::default()).await?;
        Ok(Importer { target: Box::new(target), end })
    }

    /// The position of the newest event, or [`Position::START`].
    pub fn head(&self) -> Position {
        self.end.position
    }

    /// Stores events behind those that are there, all of them or none, and answers once they are
    /// durable.
    ///
    /// # Errors
    /// Their positions do not increase, one of them has its place in a stream taken, or the store
    /// fails.
    pub async fn write(&mut self, events: &[RecordedEvent]) -> Result<(), ImportError> {
        let mut last = self.end.position;
        for event in events {
            if event.position <= last {
                return Err(ImportError::Refused(format!(
                    "the event at position {} comes behind position {last}: positions increase",
                    event.position
                )));
            }
            last = event.position;
        }
        let Some(newest) = events.last() else { return Ok(()) };
        self.target.write(events, self.end).await?;
        self.end = End::at(newest);
        Ok(())
    }
}

/// Each event with its command's id where it is the command's first: what the tables keep of it.
/// `last` is the command of the event before.
pub(crate) fn with_commands<'a>(
    events: impl IntoIterator<Item = &'a RecordedEvent>,
    mut last: Option<Uuid>,
) -> impl Iterator<Item = (&'a RecordedEvent, Option<Uuid>)> {
    events.into_iter().map(move |event| {
        let begins = last != Some(event.command_id);
        last = Some(event.command_id);
        (event, begins.then_some(event.command_id))
    })
}
