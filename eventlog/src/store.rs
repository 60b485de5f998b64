//! The log's interface: what every store offers, and what it may differ in.
//!
//! The rule of this file: readers rely on nothing but "strictly increasing positions, and never a
//! smaller one later". What a store offers beyond that, it states in [`Capabilities`].

use std::sync::Arc;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use tokio::sync::watch;
use uuid::Uuid;

use crate::{Append, AppendError, Appended, Error, Position, RecordedEvent, StreamId};

/// What a store offers beyond the contract of [`EventStore`]. The conformance suite asks for it
/// where it is stated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capabilities {
    /// Positions are 1, 2, 3, … without gaps.
    pub dense_positions: bool,
    /// A command id is stored once in the whole log; otherwise once in each stream.
    pub log_wide_command_ids: bool,
    /// Only one process can have the log open, so that claims of any other are void.
    pub exclusive: bool,
}

/// What is heard of a worker of a log that several share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pulse {
    /// Which one.
    pub worker: Uuid,
    /// How often it said that it lives: another number than before is a sign of life.
    pub beats: u64,
    /// It said that it does nothing any more.
    pub has_left: bool,
}

/// An append-only log of events. Everything that changes goes through [`EventStore::append`];
/// everything that is derived follows [`EventStore::read_after`].
#[async_trait]
pub trait EventStore: Send + Sync + 'static {
    /// Appends one command's events and answers once they are durable.
    ///
    /// # Errors
    /// [`AppendError::Conflict`] when the stream stands elsewhere than expected,
    /// [`AppendError::CommandReused`] when the command id was stored with another request hash.
    /// A command id that was stored before with the same hash is no error: the first result is
    /// answered, `replayed`. The command id is looked up before the expected sequence.
    async fn append(&self, append: Append) -> Result<Appended, AppendError>;

    /// The stored result of a command, if there is one. `stream` is where it would be, for stores
    /// whose command ids are unique within a stream only.
    async fn find_command(
        &self,
        stream: &StreamId,
        command_id: Uuid,
    ) -> Result<Option<Appended>, Error>;

    /// Events of a stream with a sequence above `after`, oldest first, at most `limit`.
    async fn read_stream(
        &self,
        stream: &StreamId,
        after: u64,
        limit: usize,
    ) -> Result<Vec<Arc<RecordedEvent>>, Error>;

    /// Events of the log strictly after `after`, oldest first, at most `limit`. Never skips one: see
    /// `conformance::a_slow_writer_is_never_skipped`.
    async fn read_after(
        &self,
        after: Position,
        limit: usize,
    ) -> Result<Vec<Arc<RecordedEvent>>, Error>;

    /// The position of the newest event, or [`Position::START`].
    async fn head(&self) -> Result<Position, Error>;

    /// Follows the head without polling: changes after every commit that this node can see.
    fn watch(&self) -> watch::Receiver<Position>;

    /// The last position whose event was committed at or before `time`.
    async fn position_at(&self, time: DateTime<Utc>) -> Result<Position, Error>;

    /// What this store offers beyond the contract.
    fn capabilities(&self) -> Capabilities;

    /// Says that a worker lives, beside the log, and answers what is heard of all that ever said so; `None`
    /// where nothing is kept beside the log, or nobody else can have it open. Nothing is lost with what is
    /// heard: whoever lives is heard again.
    ///
    /// # Errors
    /// The store cannot be asked now.
    async fn beat(&self, _worker: Uuid) -> Result<Option<Vec<Pulse>>, Error> {
        Ok(None)
    }

    /// Says that a worker does nothing any more.
    ///
    /// # Errors
    /// The store cannot be told now.
    async fn leave(&self, _worker: Uuid) -> Result<(), Error> {
        Ok(())
    }

    /// Stops taking appends, waits until those already taken are durable, and lets go of the store.
    async fn close(&self);
}
