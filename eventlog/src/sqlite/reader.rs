//! The questions that are asked of the table, and the connections that ask them.
//!
//! The rule of this file: nothing here writes.

use std::path::PathBuf;
use std::sync::Arc;

use chrono::{DateTime, Utc};
use parking_lot::Mutex;
use rusqlite::{Connection, Params, Row};
use uuid::Uuid;

use super::{SqliteOptions, schema};
use crate::group::Head;
use crate::{Error, Position, RecordedEvent, StreamId};

/// How many idle connections are kept.
const MOST_IDLE: usize = 8;

/// Connections that only read. SQLite lets any number of them read beside the one that writes.
pub(super) struct Readers {
    path: PathBuf,
    options: SqliteOptions,
    idle: Mutex<Vec<Connection>>,
}

impl Readers {
    pub fn new(path: PathBuf, options: SqliteOptions) -> Self {
        Readers { path, options, idle: Mutex::new(Vec::new()) }
    }

    /// Asks something on a connection of its own.
    pub fn ask<T>(
        &self,
        question: impl FnOnce(&Connection) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let idle = self.idle.lock().pop();
        let connection = match idle {
            Some(connection) => connection,
            None => schema::open_reader(&self.path, &self.options)?,
        };
        let answer = question(&connection);
        let mut idle = self.idle.lock();
        if answer.is_ok() && idle.len() < MOST_IDLE {
            idle.push(connection);
        }
        answer
    }

    /// Closes the connections that are idle.
    pub fn clear(&self) {
        self.idle.lock().clear();
    }
}

/// The newest event's position and time; the start when the log is empty.
pub(super) fn head(connection: &Connection) -> Result<Head, Error> {
    let newest = newest(connection)?;
    Ok(newest.map_or(Head::START, |event| Head { position: event.position, time: event.time }))
}

/// The newest event.
pub(super) fn newest(connection: &Connection) -> Result<Option<Arc<RecordedEvent>>, Error> {
    let newest = events(
        connection,
        "SELECT position, envelope FROM events ORDER BY position DESC LIMIT 1",
        [],
    )?;
    Ok(newest.into_iter().next())
}

/// The length of a stream.
pub(super) fn length(connection: &Connection, stream: &StreamId) -> Result<u64, Error> {
    let mut statement =
        connection.prepare_cached("SELECT max(sequence) FROM events WHERE stream = ?1")?;
    let length: Option<u64> = statement.query_row([stream.as_str()], |row| row.get(0))?;
    Ok(length.unwrap_or(0))
}

/// The events of a command, in order; none when it is not stored.
pub(super) fn of_command(
    connection: &Connection,
    command_id: Uuid,
) -> Result<Vec<Arc<RecordedEvent>>, Error> {
    // A command's events follow one another, and only the first names it in its column: the next
    // row that names one begins another command.
    let mut statement = connection.prepare_cached(
        "SELECT position, envelope, command FROM events
         WHERE position >= (SELECT position FROM events WHERE command = ?1) ORDER BY position",
    )?;
    let mut rows = statement.query([command_id.as_bytes()])?;
    let mut events = Vec::new();
    while let Some(row) = rows.next()? {
        let begins_another =
            !events.is_empty() && row.get_ref(2)? != rusqlite::types::ValueRef::Null;
        if begins_another {
            break;
        }
        events.push(event(row)?);
    }
    Ok(events)
}

/// Events of a stream above a sequence.
pub(super) fn of_stream(
    connection: &Connection,
    stream: &StreamId,
    after: u64,
    limit: usize,
) -> Result<Vec<Arc<RecordedEvent>>, Error> {
    events(
        connection,
        "SELECT position, envelope FROM events
         WHERE stream = ?1 AND sequence > ?2 ORDER BY sequence LIMIT ?3",
        (stream.as_str(), whole(after), whole(limit as u64)),
    )
}

/// Events of the log behind a position.
pub(super) fn after(
    connection: &Connection,
    position: Position,
    limit: usize,
) -> Result<Vec<Arc<RecordedEvent>>, Error> {
    events(
        connection,
        "SELECT position, envelope FROM events WHERE position > ?1 ORDER BY position LIMIT ?2",
        (whole(position.0), whole(limit as u64)),
    )
}

/// The last position that was committed at or before a time. Times never decrease with the
/// position, so that halving finds it without an index on time.
pub(super) fn position_at(connection: &Connection, time: DateTime<Utc>) -> Result<Position, Error> {
    let head = head(connection)?.position;
    // Everything at or before `low` was in time, everything behind `high` was not.
    let (mut low, mut high) = (0, head.0);
    while low < high {
        let middle = low + (high - low).div_ceil(2);
        let found = events(
            connection,
            "SELECT position, envelope FROM events WHERE position <= ?1
             ORDER BY position DESC LIMIT 1",
            [whole(middle)],
        )?;
        if found.first().is_none_or(|event| event.time <= time) {
            low = middle;
        } else {
            high = middle - 1;
        }
    }
    Ok(Position(low))
}

fn events(
    connection: &Connection,
    sql: &str,
    parameters: impl Params,
) -> Result<Vec<Arc<RecordedEvent>>, Error> {
    let mut statement = connection.prepare_cached(sql)?;
    let mut rows = statement.query(parameters)?;
    let mut events = Vec::new();
    while let Some(row) = rows.next()? {
        events.push(event(row)?);
    }
    Ok(events)
}

/// Reads the columns `position` and `envelope`, which every statement here selects first.
fn event(row: &Row<'_>) -> Result<Arc<RecordedEvent>, Error> {
    let position = row.get(0)?;
    let envelope = row.get_ref(1)?.as_str().map_err(rusqlite::Error::from)?;
    match serde_json::from_str(envelope) {
        Ok(event) => Ok(Arc::new(event)),
        Err(source) => Err(Error::Corrupt { position, source }),
    }
}

/// SQLite's integers are signed; what does not fit is beyond every position and every limit.
fn whole(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
