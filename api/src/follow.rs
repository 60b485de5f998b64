//! One stream of the log, from its past into what comes.
//!
//! The rule of this file: what is answered can be read: an event is handed out after the read models have
//! taken it in.

use std::sync::Arc;

use commands::Error;
use eventlog::{Position, RecordedEvent, StreamId};

use crate::app::App;
use crate::http::Problem;

/// How many events one read of what is new brings: they are shared by all who follow.
const BATCH: usize = 500;

/// How many one read of a stream's past brings: who listens slowly holds these alone.
const PAST: usize = 16;

/// Reads a stream's events, one after the other.
pub struct Follow {
    /// The stream.
    pub stream: StreamId,
    /// The number of the last event that was read, in the stream.
    pub number: u64,
    /// Up to where the log was followed; none while the past is read.
    followed: Option<Position>,
}

impl Follow {
    /// The events of a stream after the one with this number.
    pub fn after(stream: StreamId, number: u64) -> Follow {
        Follow { stream, number, followed: None }
    }

    /// The next events up to a position, maybe none of a part of the log; `None` at the position.
    ///
    /// # Errors
    /// The log fails.
    pub async fn next(
        &mut self,
        app: &App,
        goal: Position,
    ) -> Result<Option<Vec<Arc<RecordedEvent>>>, Problem> {
        let events = match self.followed {
            Some(position) if position >= goal => return Ok(None),
            // What comes is found among all that comes: the log has its newest events in memory.
            Some(position) => app.log.read_after(position, BATCH).await,
            None => app.log.read_stream(&self.stream, self.number, PAST).await,
        };
        let mut events = events.map_err(Error::from)?;
        events.retain(|event| event.position <= goal);
        let Some(last) = events.last().map(|event| event.position) else {
            self.followed = Some(goal);
            return Ok(None);
        };
        if self.followed.is_some() {
            self.followed = Some(last);
        }
        events.retain(|event| event.stream == self.stream && event.sequence > self.number);
        self.number = events.last().map_or(self.number, |event| event.sequence);
        Ok(Some(events))
    }
}
