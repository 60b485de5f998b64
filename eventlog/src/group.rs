//! What committers do alike, whatever they write to: they take the appends that have queued as one
//! group, and give each its place behind the head or the reason why it has none.
//!
//! The rule of this file: it knows no database. What is stored is told to it.

use std::collections::HashMap;
use std::sync::Arc;

use chrono::{DateTime, SubsecRound, Utc};
use tokio::sync::oneshot;

use crate::{
    Append, AppendError, Appended, Error, Expected, Position, RecordedEvent, StreamId, envelope,
};

/// The most commands of one commit. A bound, so that the first of a long queue does not wait for
/// the last, and a full disk does not fail thousands at once.
pub(crate) const GROUP: usize = 256;

/// The answer to an append.
pub(crate) type Outcome = Result<Appended, AppendError>;

/// An append on its way to the committer. Its events lack only their place and time.
pub(crate) struct Request {
    expected: Expected,
    events: Vec<RecordedEvent>,
    answer: oneshot::Sender<Outcome>,
}

/// The newest event's position and time.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Head {
    pub position: Position,
    pub time: DateTime<Utc>,
}

impl Head {
    /// Before the first event.
    pub const START: Head = Head { position: Position::START, time: DateTime::UNIX_EPOCH };

    /// The head that a group is placed behind: its time is now, unless the clock was set back,
    /// which must not order events anew.
    pub fn now(self) -> Head {
        Head { time: self.time.max(Utc::now().trunc_subsecs(6)), ..self }
    }
}

impl Request {
    /// Prepares an append, on the caller's thread: what is done here, the committer need not do.
    pub fn new(append: Append) -> Result<(Self, oneshot::Receiver<Outcome>), AppendError> {
        let expected = append.expected;
        let events = envelope::prepare(append)?;
        let (answer, answered) = oneshot::channel();
        Ok((Request { expected, events, answer }, answered))
    }

    /// What the caller expects of the stream.
    pub fn expected(&self) -> Expected {
        self.expected
    }

    /// The length of the stream as far as the caller knows.
    pub fn believed(&self) -> u64 {
        match self.expected {
            Expected::Sequence(expected) => expected,
            Expected::Any => 0,
        }
    }

    /// The stream; `prepare` lets no append without events through.
    pub fn stream(&self) -> &StreamId {
        &self.events[0].stream
    }

    /// The command's events, placed or not.
    pub fn events(&self) -> &[RecordedEvent] {
        &self.events
    }

    /// The length of the stream that the command does not fit, if it does not.
    pub fn is_stale_at(&self, length: u64) -> bool {
        matches!(self.expected, Expected::Sequence(expected) if expected != length)
    }

    /// Gives the events their places behind `head` and behind the stream's `length`, and moves
    /// `head` on. A later call gives them other places.
    pub fn place(&mut self, head: &mut Head, length: u64) {
        for (index, event) in self.events.iter_mut().enumerate() {
            event.position = Position(head.position.0 + 1 + index as u64);
            event.sequence = length + 1 + index as u64;
            event.time = head.time;
        }
        head.position.0 += self.events.len() as u64;
    }

    /// The outcome of a command whose placed events are stored now.
    pub fn stored(&mut self) -> Appended {
        Appended { events: self.events.drain(..).map(Arc::new).collect(), replayed: false }
    }

    /// The outcome of a command of which the log holds these events since before.
    pub fn repeated(&self, stored: Vec<Arc<RecordedEvent>>) -> Outcome {
        let own = &self.events[0];
        if stored.first().is_some_and(|first| first.request_hash == own.request_hash) {
            Ok(Appended { events: stored, replayed: true })
        } else {
            Err(AppendError::CommandReused { command_id: own.command_id })
        }
    }

    /// The outcome of a command whose stream stands elsewhere.
    pub fn conflict(&self, length: u64) -> Outcome {
        let expected = match self.expected {
            Expected::Sequence(expected) => expected,
            Expected::Any => length,
        };
        Err(AppendError::Conflict { stream: self.stream().clone(), expected, actual: length })
    }

    /// Answers the caller. One that has gone away finds its result under its command id.
    pub fn answer(self, outcome: Outcome) {
        let _ = self.answer.send(outcome);
    }
}

/// Answers every command of a group that failed as a whole.
pub(crate) fn fail(group: &mut Vec<Request>, error: impl Fn() -> Error) {
    for request in group.drain(..) {
        request.answer(Err(error().into()));
    }
}

/// The lengths of the streams that were written last, so that checking the expected sequence is
/// normally no query. Two generations instead of an eviction list: when the young one is full, the
/// old one is dropped. What is wrong here is found by the unique index.
#[derive(Default)]
pub(crate) struct StreamLengths {
    young: HashMap<StreamId, u64>,
    old: HashMap<StreamId, u64>,
}

impl StreamLengths {
    const GENERATION: usize = 32 * 1024;

    /// The length as it was heard of last.
    pub fn get(&self, stream: &StreamId) -> Option<u64> {
        self.young.get(stream).or_else(|| self.old.get(stream)).copied()
    }

    /// Remembers a length.
    pub fn set(&mut self, stream: StreamId, length: u64) {
        if self.young.len() >= Self::GENERATION {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(stream, length);
    }
}
