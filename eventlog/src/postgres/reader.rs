//! The questions that are asked of the table.
//!
//! The rule of this file: nothing here writes, and every question goes by an index.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use sqlx::postgres::PgRow;
use sqlx::{PgConnection, Row};
use uuid::Uuid;

use super::failure::Moment;
use super::server::{Connections, Server};
use crate::group::Head;
use crate::{Error, Position, RecordedEvent, StreamId};

/// Rows up to which envelopes are parsed on the thread that asked.
const INLINE_ROWS: usize = 64;

type Events = Vec<Arc<RecordedEvent>>;

/// The log as it is read from the server.
pub(super) struct Reader {
    server: Arc<Server>,
    connections: Connections,
}

impl Reader {
    pub fn new(server: Arc<Server>) -> Self {
        Reader { connections: Connections::new(server.clone()), server }
    }

    /// The newest event's position; the start when the log is empty.
    pub async fn head(&self) -> Result<Position, Error> {
        let rows = self.connections.rows(Question::Head).await?;
        let position = rows.first().map_or(Ok(0), |row| number(row, 0));
        Ok(Position(position.map_err(|error| self.server.explain(error, Moment::Asking))?))
    }

    /// Events of the log behind a position.
    pub async fn after(&self, position: Position, limit: usize) -> Result<Events, Error> {
        self.events(Question::After { position: position.0, limit }).await
    }

    /// Events of a stream above a sequence.
    pub async fn of_stream(
        &self,
        stream: &StreamId,
        after: u64,
        limit: usize,
    ) -> Result<Events, Error> {
        self.events(Question::OfStream { stream, after, limit }).await
    }

    /// The events of a command, in order; none when it is not stored.
    pub async fn of_command(&self, command_id: Uuid) -> Result<Events, Error> {
        self.events(Question::OfCommand(command_id)).await
    }

    /// The last position that was committed at or before a time. Times never decrease with the
    /// position, so that halving finds it without an index on time.
    pub async fn position_at(&self, time: DateTime<Utc>) -> Result<Position, Error> {
        // Everything at or before `low` was in time, everything behind `high` was not.
        let (mut low, mut high) = (0, self.head().await?.0);
        while low < high {
            let middle = low + (high - low).div_ceil(2);
            let found = self.events(Question::LastUpTo(middle)).await?;
            if found.first().is_none_or(|event| event.time <= time) {
                low = middle;
            } else {
                high = middle - 1;
            }
        }
        Ok(Position(low))
    }

    /// Closes the connections.
    pub async fn close(&self) {
        self.connections.close().await;
    }

    /// Asks for events, and parses them; many of them away from the threads that serve requests.
    async fn events(&self, question: Question<'_>) -> Result<Events, Error> {
        let rows = self.connections.rows(question).await?;
        if rows.len() <= INLINE_ROWS {
            return events(&rows, 0, &self.server);
        }
        let server = self.server.clone();
        tokio::task::spawn_blocking(move || events(&rows, 0, &server))
            .await
            .unwrap_or(Err(Error::Closed))
    }
}

/// What is asked of the table.
pub(super) enum Question<'a> {
    /// The largest position.
    Head,
    /// Events behind a position.
    After { position: u64, limit: usize },
    /// The last event up to a position.
    LastUpTo(u64),
    /// Events of a stream above a sequence.
    OfStream { stream: &'a StreamId, after: u64, limit: usize },
    /// The events of a command.
    OfCommand(Uuid),
}

impl Question<'_> {
    /// Asks it. All answers but the first are columns `position` and `envelope`.
    pub async fn ask(&self, connection: &mut PgConnection) -> sqlx::Result<Vec<PgRow>> {
        let query = match self {
            Question::Head => sqlx::query("SELECT coalesce(max(position), 0) FROM event_log"),
            Question::After { position, limit } => sqlx::query(
                "SELECT position, envelope FROM event_log
                 WHERE position > $1 ORDER BY position LIMIT $2",
            )
            .bind(whole(*position))
            .bind(whole(*limit as u64)),
            Question::LastUpTo(position) => sqlx::query(
                "SELECT position, envelope FROM event_log
                 WHERE position <= $1 ORDER BY position DESC LIMIT 1",
            )
            .bind(whole(*position)),
            Question::OfStream { stream, after, limit } => sqlx::query(
                "SELECT position, envelope FROM event_log
                 WHERE aggregate_type = $1 AND aggregate_id = $2 AND sequence > $3
                 ORDER BY sequence LIMIT $4",
            )
            .bind(stream.category())
            .bind(stream.id())
            .bind(whole(*after))
            .bind(whole(*limit as u64)),
            Question::OfCommand(id) => sqlx::query(OF_COMMANDS).bind(vec![*id]),
        };
        query.fetch_all(connection).await
    }
}

/// The events of commands. A command's events follow one another, and only the first names it in
/// its column: the next row that names one begins another command.
pub(super) const OF_COMMANDS: &str = "
    SELECT event.position, event.envelope
    FROM unnest($1::uuid[]) AS asked (id)
    JOIN event_log first ON first.command = asked.id
    CROSS JOIN LATERAL (
        SELECT position, envelope FROM event_log
        WHERE position >= first.position AND position < coalesce(
            (SELECT position FROM event_log
             WHERE position > first.position AND command IS NOT NULL ORDER BY position LIMIT 1),
            9223372036854775807)
        ORDER BY position
    ) AS event
    ORDER BY event.position";

/// Reads the columns `position` and `envelope`, which stand at `column` and behind it.
pub(super) fn events(rows: &[PgRow], column: usize, server: &Server) -> Result<Events, Error> {
    rows.iter().map(|row| event(row, column, server)).collect()
}

/// As [`events`], of one row.
pub(super) fn event(
    row: &PgRow,
    column: usize,
    server: &Server,
) -> Result<Arc<RecordedEvent>, Error> {
    let failed = |error| server.explain(error, Moment::Asking);
    let position = number(row, column).map_err(failed)?;
    let envelope: &str = row.try_get(column + 1).map_err(failed)?;
    match serde_json::from_str(envelope) {
        Ok(event) => Ok(Arc::new(event)),
        Err(source) => Err(Error::Corrupt { position, source }),
    }
}

/// The head that an event at the end of the log makes.
pub(super) fn head_at(event: &RecordedEvent) -> Head {
    Head { position: event.position, time: event.time }
}

/// A column that holds a position or a length.
pub(super) fn number(row: &PgRow, column: usize) -> sqlx::Result<u64> {
    row.try_get::<i64, _>(column).map(|number| number.unsigned_abs())
}

/// PostgreSQL's integers are signed; what does not fit is beyond every position and every limit.
fn whole(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
