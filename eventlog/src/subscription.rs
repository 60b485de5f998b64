//! Follows the log from a position on: first what is there, then what comes.
//!
//! The rule of this file: it asks the log, never the news of it; the news only say when to ask.

use std::sync::Arc;

use tokio::sync::watch;

use crate::{Error, EventStore, Position, RecordedEvent};

/// A reader that waits at the end of the log.
pub struct Subscription {
    store: Arc<dyn EventStore>,
    head: watch::Receiver<Position>,
    after: Position,
}

impl Subscription {
    /// Starts behind a position.
    pub fn new(store: Arc<dyn EventStore>, after: Position) -> Self {
        let head = store.watch();
        Subscription { store, head, after }
    }

    /// The next events, at least one and at most `limit`; waits for them. Dropping the future
    /// loses nothing.
    ///
    /// # Errors
    /// When the log cannot be read; asking again goes on at the same place.
    pub async fn next(&mut self, limit: usize) -> Result<Vec<Arc<RecordedEvent>>, Error> {
        loop {
            // Before the read: a commit that comes in between is then seen as a change.
            self.head.mark_unchanged();
            let events = self.store.read_after(self.after, limit).await?;
            if let Some(last) = events.last() {
                self.after = last.position;
                return Ok(events);
            }
            self.head.changed().await.map_err(|_| Error::Closed)?;
        }
    }

    /// The position of the last event that was handed out.
    pub fn position(&self) -> Position {
        self.after
    }
}
