//! The one thread that writes: it takes the appends that have queued and commits them with one sync.
//!
//! The rule of this file: nothing is answered, shown to a reader or remembered before its commit
//! is durable. A command that is refused fails alone; a commit that fails, fails its whole group.

use std::collections::HashMap;
use std::fs::File;
use std::sync::Arc;

use chrono::{DateTime, SubsecRound, Utc};
use rusqlite::{Connection, ErrorCode};
use tokio::sync::{mpsc, oneshot};

use super::{Shared, reader};
use crate::{
    Append, AppendError, Appended, Error, Expected, Position, RecordedEvent, StreamId, envelope,
};

/// The most commands of one commit. A bound, so that the first of a long queue does not wait for
/// the last, and a full disk does not fail thousands at once.
const GROUP: usize = 256;

/// The answer to an append.
type Outcome = Result<Appended, AppendError>;

/// An append on its way to the committer. Its events lack only their place and time.
pub(super) struct Request {
    expected: Expected,
    events: Vec<RecordedEvent>,
    answer: oneshot::Sender<Outcome>,
}

impl Request {
    /// Prepares an append, on the caller's thread: what is done here, the committer need not do.
    pub fn new(append: Append) -> Result<(Self, oneshot::Receiver<Outcome>), AppendError> {
        let expected = append.expected;
        let events = envelope::prepare(append)?;
        let (answer, answered) = oneshot::channel();
        Ok((Request { expected, events, answer }, answered))
    }
}

/// Owns the connection that writes, and what it knows of the log's end.
pub(super) struct Committer {
    connection: Connection,
    shared: Arc<Shared>,
    /// The newest event's position and time. `None` after a failure: read again before use.
    head: Option<Head>,
    streams: StreamLengths,
    /// Held until the last commit is done.
    _lock: File,
}

#[derive(Clone, Copy)]
struct Head {
    position: u64,
    time: DateTime<Utc>,
}

impl Committer {
    pub fn new(connection: Connection, shared: Arc<Shared>, lock: File) -> Self {
        Committer { connection, shared, head: None, streams: StreamLengths::default(), _lock: lock }
    }

    /// Works until every sender is gone and the queue is empty.
    ///
    /// It never waits for a group to fill: a lone caller is committed at once, and while that
    /// commit is synced the next group gathers by itself.
    pub fn run(mut self, mut queue: mpsc::Receiver<Request>) {
        let mut group = Vec::with_capacity(GROUP);
        while queue.blocking_recv_many(&mut group, GROUP) > 0 {
            self.commit(&mut group);
        }
    }

    fn commit(&mut self, group: &mut Vec<Request>) {
        let mut fresh = Vec::with_capacity(group.len());
        match self.write(group, &mut fresh) {
            Ok(outcomes) => {
                self.shared.publish(fresh);
                for (request, outcome) in group.drain(..).zip(outcomes) {
                    // A caller that has gone away finds its result under its command id.
                    let _ = request.answer.send(outcome);
                }
            }
            Err(error) => {
                tracing::error!(%error, commands = group.len(), "a commit failed, nothing of it was stored");
                self.forget();
                for request in group.drain(..) {
                    let _ = request.answer.send(Err(again(&error).into()));
                }
            }
        }
    }

    /// Writes and commits a group; answers for each of its commands, in order.
    fn write(
        &mut self,
        group: &mut [Request],
        fresh: &mut Vec<Arc<RecordedEvent>>,
    ) -> Result<Vec<Outcome>, Error> {
        self.connection.prepare_cached("BEGIN IMMEDIATE")?.execute([])?;
        let mut head = match self.head {
            Some(head) => head,
            None => {
                let (position, time) = reader::head(&self.connection)?;
                Head { position: position.0, time }
            }
        };
        // A clock that was set back must not order events anew.
        head.time = head.time.max(Utc::now().trunc_subsecs(6));
        let mut outcomes = Vec::with_capacity(group.len());
        for request in group {
            let outcome = self.append(request, &mut head)?;
            if let Ok(appended) = &outcome
                && !appended.replayed
            {
                fresh.extend(appended.events.iter().cloned());
            }
            outcomes.push(outcome);
        }
        self.connection.prepare_cached("COMMIT")?.execute([])?;
        self.head = Some(head);
        Ok(outcomes)
    }

    /// Writes one command. A refusal is an `Ok`: it leaves the rest of the group alone.
    fn append(&mut self, request: &mut Request, head: &mut Head) -> Result<Outcome, Error> {
        let Some(first) = request.events.first() else {
            return Ok(Err(AppendError::Malformed("it has no events")));
        };
        let stream = first.stream.clone();
        let length = match (request.expected, self.streams.get(&stream)) {
            (_, Some(length)) => length,
            // A stream that should be new needs no look: if it is not, the insert is refused.
            (Expected::Sequence(0), None) => 0,
            (_, None) => reader::length(&self.connection, &stream)?,
        };
        if matches!(request.expected, Expected::Sequence(expected) if expected != length) {
            return self.refuse(request, length);
        }

        let mut insert = self.connection.prepare_cached(
            "INSERT INTO events (position, stream, sequence, command, envelope)
             VALUES (?1, ?2, ?3, ?4, ?5)",
        )?;
        for (index, event) in request.events.iter_mut().enumerate() {
            event.position = Position(head.position + 1 + index as u64);
            event.sequence = length + 1 + index as u64;
            event.time = head.time;
            let inserted = insert.execute((
                event.position.0,
                stream.as_str(),
                event.sequence,
                (index == 0).then_some(event.command_id.as_bytes()),
                envelope::canonical(event),
            ));
            match inserted {
                Ok(_) => {}
                // The first row is refused when the command or the place in the stream is taken.
                // Nothing of this command is written then; the transaction goes on.
                Err(error) if index == 0 && is_taken(&error) => {
                    drop(insert);
                    let length = reader::length(&self.connection, &stream)?;
                    return match self.refuse(request, length)? {
                        Err(AppendError::Conflict { expected, actual, .. })
                            if expected == actual =>
                        {
                            Err(error.into())
                        }
                        outcome => Ok(outcome),
                    };
                }
                Err(error) => return Err(error.into()),
            }
        }
        head.position += request.events.len() as u64;
        self.streams.set(stream, length + request.events.len() as u64);
        let events = request.events.drain(..).map(Arc::new).collect();
        Ok(Ok(Appended { events, replayed: false }))
    }

    /// Why a command cannot be written: it was stored before, or its stream stands elsewhere. In
    /// this order, so that a repeated command gets its first result.
    fn refuse(&mut self, request: &Request, length: u64) -> Result<Outcome, Error> {
        let first = &request.events[0];
        let stored = reader::of_command(&self.connection, first.command_id)?;
        if let Some(same) = stored.first() {
            return Ok(if same.request_hash == first.request_hash {
                Ok(Appended { events: stored, replayed: true })
            } else {
                Err(AppendError::CommandReused { command_id: first.command_id })
            });
        }
        let expected = match request.expected {
            Expected::Sequence(expected) => expected,
            Expected::Any => length,
        };
        self.streams.set(first.stream.clone(), length);
        Ok(Err(AppendError::Conflict { stream: first.stream.clone(), expected, actual: length }))
    }

    /// After a failure nothing is known but what is in the database.
    fn forget(&mut self) {
        if !self.connection.is_autocommit()
            && let Err(error) = self.connection.execute_batch("ROLLBACK")
        {
            tracing::error!(%error, "a failed commit could not be rolled back");
        }
        self.head = None;
        self.streams = StreamLengths::default();
    }
}

/// The lengths of the streams that were written last, so that checking the expected sequence is
/// normally no query. Two generations instead of an eviction list: when the young one is full, the
/// old one is dropped. What is wrong here is found by the unique index.
#[derive(Default)]
struct StreamLengths {
    young: HashMap<StreamId, u64>,
    old: HashMap<StreamId, u64>,
}

impl StreamLengths {
    const GENERATION: usize = 32 * 1024;

    fn get(&self, stream: &StreamId) -> Option<u64> {
        self.young.get(stream).or_else(|| self.old.get(stream)).copied()
    }

    fn set(&mut self, stream: StreamId, length: u64) {
        if self.young.len() >= Self::GENERATION {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(stream, length);
    }
}

fn is_taken(error: &rusqlite::Error) -> bool {
    error.sqlite_error_code() == Some(ErrorCode::ConstraintViolation)
}

/// The same failure once more, for each command of the group.
fn again(error: &Error) -> Error {
    match error {
        Error::DiskFull => Error::DiskFull,
        Error::Busy => Error::Busy,
        Error::Sqlite(rusqlite::Error::SqliteFailure(code, message)) => {
            Error::Sqlite(rusqlite::Error::SqliteFailure(*code, message.clone()))
        }
        other => Error::Io(std::io::Error::other(other.to_string())),
    }
}
