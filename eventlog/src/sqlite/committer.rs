//! The one thread that writes: it takes the appends that have queued and commits them with one sync.
//!
//! The rule of this file: nothing is answered, shown to a reader or remembered before its commit
//! is durable. A command that is refused fails alone; a commit that fails, fails its whole group.

use std::fs::File;
use std::sync::Arc;

use rusqlite::{Connection, ErrorCode};
use tokio::sync::mpsc;

use super::{Checkpointer, Shared, reader};
use crate::group::{GROUP, Head, Outcome, Request, StreamLengths, fail};
use crate::{AppendError, Error, Expected, RecordedEvent, envelope};

/// Writes one event.
pub(super) const INSERT: &str = "INSERT INTO events (position, stream, sequence, command, envelope)
     VALUES (?1, ?2, ?3, ?4, ?5)";

/// Owns the connection that writes, and what it knows of the log's end.
pub(super) struct Committer {
    connection: Connection,
    shared: Arc<Shared>,
    /// The newest event's position and time. `None` after a failure: read again before use.
    head: Option<Head>,
    streams: StreamLengths,
    checkpointer: Checkpointer,
    /// Held until the last commit is done.
    _lock: File,
}

impl Committer {
    pub fn new(
        connection: Connection,
        shared: Arc<Shared>,
        checkpointer: Checkpointer,
        lock: File,
    ) -> Self {
        let streams = StreamLengths::default();
        Committer { connection, shared, head: None, streams, checkpointer, _lock: lock }
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
                let events = fresh.len();
                self.shared.publish(fresh);
                for (request, outcome) in group.drain(..).zip(outcomes) {
                    request.answer(outcome);
                }
                self.checkpointer.count(events);
            }
            Err(error) => {
                tracing::error!(%error, commands = group.len(), "a commit failed, nothing of it was stored");
                self.forget();
                fail(group, || error.again());
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
        let head = match self.head {
            Some(head) => head,
            None => reader::head(&self.connection)?,
        };
        let mut head = head.now();
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
        let stream = request.stream().clone();
        let length = match (request.expected(), self.streams.get(&stream)) {
            (_, Some(length)) => length,
            // A stream that should be new needs no look: if it is not, the insert is refused.
            (Expected::Sequence(0), None) => 0,
            (_, None) => reader::length(&self.connection, &stream)?,
        };
        if request.is_stale_at(length) {
            return self.refuse(request, length);
        }

        let mut placed = *head;
        request.place(&mut placed, length);
        let mut insert = self.connection.prepare_cached(INSERT)?;
        for (index, event) in request.events().iter().enumerate() {
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
                    let outcome = self.refuse(request, length)?;
                    let fits = matches!(outcome, Err(AppendError::Conflict { .. }))
                        && !request.is_stale_at(length);
                    return if fits { Err(error.into()) } else { Ok(outcome) };
                }
                Err(error) => return Err(error.into()),
            }
        }
        *head = placed;
        self.streams.set(stream, length + request.events().len() as u64);
        Ok(Ok(request.stored()))
    }

    /// Why a command cannot be written: it was stored before, or its stream stands elsewhere. In
    /// this order, so that a repeated command gets its first result.
    fn refuse(&mut self, request: &Request, length: u64) -> Result<Outcome, Error> {
        let stored = reader::of_command(&self.connection, request.events()[0].command_id)?;
        if !stored.is_empty() {
            return Ok(request.repeated(stored));
        }
        self.streams.set(request.stream().clone(), length);
        Ok(request.conflict(length))
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

/// Whether a place in a stream, a position or a command is stored already.
pub(super) fn is_taken(error: &rusqlite::Error) -> bool {
    error.sqlite_error_code() == Some(ErrorCode::ConstraintViolation)
}
