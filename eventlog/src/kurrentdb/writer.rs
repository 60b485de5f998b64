//! Appends: each to one stream, expecting exactly what is known of it.
//!
//! The rule of this file: an append never goes out without the revision that the stream is known
//! to have, not even for who expects nothing. The server takes it only if the stream still ends
//! there, and then no command can be stored twice; a message whose answer was lost can be sent
//! again as it was, because the place for it is gone once it was stored.

use std::sync::Arc;
use std::time::Instant;

use eventstore::{AppendToStreamOptions, Error as ClientError, StreamState};
use uuid::Uuid;

use super::connection::{pause, within};
use super::error::{KurrentdbError, Remedy, failure, remedy};
use super::reader::Reader;
use super::record::{self, Record};
use super::seen::Seen;
use super::streams::Turns;
use crate::{
    Append, AppendError, Appended, Error, Expected, Position, RecordedEvent, StreamId, envelope,
};

/// How often an append that expects nothing may be overtaken by those of other nodes.
const MOST_OVERTAKINGS: usize = 100;

/// Appends, and sees to it that one command is stored once in its stream.
pub(super) struct Writer {
    pub reader: Arc<Reader>,
    pub seen: Arc<Seen>,
    pub turns: Turns,
}

/// What came of sending an append.
enum Sent {
    /// Stored, now or before, up to this position.
    Stored(Position),
    /// The stream ends elsewhere.
    Overtaken,
}

impl Writer {
    pub async fn append(&self, append: Append) -> Result<Appended, AppendError> {
        let expected = append.expected;
        let stream = append.stream.clone();
        let events = envelope::prepare(append)?;
        let attempt = Uuid::now_v7();
        let _turn = self.turns.wait(&stream).await;
        let streams = &self.reader.streams;
        // Whether what is known of the stream was read after the append was asked for.
        let mut is_fresh = false;
        for _ in 0..MOST_OVERTAKINGS {
            if let Some(answer) = self.stored(&stream, &events[0], attempt).await? {
                return answer;
            }
            let length = match (streams.length(&stream), expected) {
                (Some(length), _) => length,
                (None, _) if is_fresh => 0,
                // A stream that should be new needs no look: if it is not, the append is refused.
                (None, Expected::Sequence(0)) => 0,
                (None, _) => {
                    self.refresh(&stream).await?;
                    is_fresh = true;
                    continue;
                }
            };
            match expected {
                Expected::Sequence(expected) if expected != length && is_fresh => {
                    return Err(AppendError::Conflict { stream, expected, actual: length });
                }
                Expected::Sequence(expected) if expected != length => {
                    self.refresh(&stream).await?;
                    is_fresh = true;
                    continue;
                }
                _ => {}
            }
            let coming = self.seen.expect(attempt);
            match self.send(&stream, length, &events, attempt).await? {
                Sent::Stored(position) => {
                    if let Some(events) = coming.wait(position).await {
                        return Ok(Appended { events, replayed: false });
                    }
                    // It did not come by, or another call with the same command was first.
                    let found = self.reader.command(&stream, length + 1, events[0].command_id);
                    if let Some(answer) = self.answer(found.await?, &events[0], attempt) {
                        return answer;
                    }
                    self.refresh(&stream).await?;
                }
                Sent::Overtaken => {
                    if !self.refresh(&stream).await? {
                        // It does not go on as it was known to: the server was set back.
                        streams.forget(&stream);
                        self.refresh(&stream).await?;
                    }
                }
            }
            is_fresh = true;
        }
        Err(Error::from(KurrentdbError::Contended(stream.to_string())).into())
    }

    /// The answer to a command that is in what is known of its stream.
    async fn stored(
        &self,
        stream: &StreamId,
        asked: &RecordedEvent,
        attempt: Uuid,
    ) -> Result<Option<Result<Appended, AppendError>>, Error> {
        let Some(first) = self.reader.streams.find(stream, asked.command_id) else {
            return Ok(None);
        };
        let found = self.reader.command(stream, first, asked.command_id).await?;
        Ok(self.answer(found, asked, attempt))
    }

    /// What a command's stored events mean for who asks for it now.
    fn answer(
        &self,
        found: Vec<Record>,
        asked: &RecordedEvent,
        attempt: Uuid,
    ) -> Option<Result<Appended, AppendError>> {
        let (first, last) = (found.first()?, found.last()?);
        self.seen.advance(last.event.position);
        if first.event.request_hash != asked.request_hash {
            return Some(Err(AppendError::CommandReused { command_id: asked.command_id }));
        }
        let replayed = first.attempt != attempt;
        let events = found.into_iter().map(|record| record.event).collect();
        Some(Ok(Appended { events, replayed }))
    }

    /// Sends an append until the server says what came of it, or patience ends.
    async fn send(
        &self,
        stream: &StreamId,
        length: u64,
        events: &[RecordedEvent],
        attempt: Uuid,
    ) -> Result<Sent, Error> {
        let connection = &self.reader.connection;
        let name = self.reader.name(stream);
        let state = match length {
            0 => StreamState::NoStream,
            length => StreamState::StreamRevision(length - 1),
        };
        let options = AppendToStreamOptions::default().stream_state(state).requires_leader(true);
        let started = Instant::now();
        let mut may_be_stored = false;
        let mut tries = 0;
        loop {
            let (name, options) = (name.as_str(), &options);
            let proposed = record::to_store(events, attempt);
            let sent = connection.ask_once(|client| async move {
                within(client.append_to_stream(name, options, proposed)).await
            });
            let error = match sent.await {
                Ok(result) => return Ok(Sent::Stored(Position(result.position.commit))),
                Err(ClientError::WrongExpectedVersion { .. }) => return Ok(Sent::Overtaken),
                Err(error) => error,
            };
            may_be_stored |= may_have_arrived(&error);
            if remedy(&error) == Remedy::GiveUp || started.elapsed() > connection.patience() {
                return Err(Error::from(match failure(error, connection.nodes()) {
                    KurrentdbError::Unreachable { source, .. } if may_be_stored => {
                        KurrentdbError::Unanswered(source)
                    }
                    failure => failure,
                }));
            }
            pause(tries).await;
            tries += 1;
        }
    }

    /// Reads what has come to a stream since it was last looked at, and says whether that is
    /// anything.
    async fn refresh(&self, stream: &StreamId) -> Result<bool, Error> {
        let length = self.reader.streams.length(stream).unwrap_or(0);
        Ok(!self.reader.stream(stream, length, usize::MAX).await?.is_empty())
    }
}

/// Whether the server may have stored what it did not answer. Before there is a connection, and
/// from a node that names another as its leader, it cannot have come so far.
fn may_have_arrived(error: &ClientError) -> bool {
    !matches!(
        error,
        ClientError::NotLeaderException(_)
            | ClientError::ConnectionClosed
            | ClientError::GrpcConnectionError(_)
            | ClientError::AccessDenied
    )
}
