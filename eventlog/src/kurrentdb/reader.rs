//! The questions that are asked of the server.
//!
//! The rule of this file: nothing here writes, and everything is asked of the leader, so that what
//! was answered once can be read at once.

use std::sync::Arc;

use eventstore::{
    Client, Error as ClientError, Position as Place, ReadAllOptions, ReadStream, ReadStreamOptions,
    StreamPosition, SubscriptionFilter,
};
use uuid::Uuid;

use super::connection::{Connection, within};
use super::error::{Remedy, failure, remedy};
use super::record::{self, Record};
use super::streams::Streams;
use crate::{Error, Position, RecordedEvent, StreamId};

/// Events of one command that are read at a time. Nearly all have fewer.
const COMMAND_PAGE: usize = 64;

/// Asks the server, and remembers what it learns of the streams.
pub(super) struct Reader {
    pub connection: Connection,
    pub streams: Streams,
}

/// The newest event: its position, and where a subscription goes on behind it.
#[derive(Clone, Copy)]
pub(super) struct Newest {
    pub position: Position,
    pub place: StreamPosition<Place>,
}

impl Reader {
    /// Leaves out the system's events, and with a namespace everybody else's.
    pub fn filter(&self) -> SubscriptionFilter {
        match self.connection.prefix() {
            "" => SubscriptionFilter::on_event_type().exclude_system_events(),
            prefix => SubscriptionFilter::on_stream_name().add_prefix(prefix),
        }
    }

    /// The newest event of the log.
    pub async fn newest(&self) -> Result<Newest, Error> {
        let options = ReadAllOptions::default()
            .backwards()
            .position(StreamPosition::End)
            .max_count(1)
            .filter(self.filter())
            .requires_leader(true);
        let found = self.all(&options).await?;
        Ok(match found.first() {
            Some(event) => Newest {
                position: record::position(event.position.commit)?,
                place: StreamPosition::Position(event.position),
            },
            None => Newest { position: Position::START, place: StreamPosition::Start },
        })
    }

    /// Events behind a position, which must be an event's own (or the start).
    pub async fn after(
        &self,
        after: Position,
        limit: usize,
    ) -> Result<Vec<Arc<RecordedEvent>>, Error> {
        let options = self.from(after, limit.saturating_add(1));
        self.readable(self.all(&options).await?, after, limit)
    }

    /// Events behind any position; `None` when the server fails, be it that no event has this
    /// position and it cannot read from there, be it for another reason that may pass.
    pub async fn try_after(
        &self,
        after: Position,
        limit: usize,
    ) -> Result<Option<Vec<Arc<RecordedEvent>>>, Error> {
        let options = self.from(after, limit.saturating_add(1));
        match self.connection.ask_once(|client| all(client, &options)).await {
            Ok(found) => self.readable(found, after, limit).map(Some),
            Err(error) if remedy(&error) == Remedy::GiveUp => {
                Err(failure(error, self.connection.nodes()).into())
            }
            Err(_) => Ok(None),
        }
    }

    /// Events from a position on, which must be an event's own (or the start).
    pub async fn at(
        &self,
        first: Position,
        limit: usize,
    ) -> Result<Vec<Arc<RecordedEvent>>, Error> {
        let before = Position(first.0.saturating_sub(1));
        self.readable(self.all(&self.from(first, limit)).await?, before, limit)
    }

    /// The server reads its log from that byte on, and fails where no record begins. An event that
    /// begins there comes first.
    fn from(&self, first: Position, limit: usize) -> ReadAllOptions {
        let place = match first {
            Position::START => StreamPosition::Start,
            Position(at) => StreamPosition::Position(Place { commit: at, prepare: at }),
        };
        ReadAllOptions::default()
            .position(place)
            .max_count(limit)
            .filter(self.filter())
            .requires_leader(true)
    }

    /// The first event behind any position, found from the log's end.
    pub async fn first_behind(&self, after: Position) -> Result<Option<Position>, Error> {
        let options = ReadAllOptions::default()
            .backwards()
            .position(StreamPosition::End)
            .filter(self.filter())
            .requires_leader(true);
        let first = self.connection.ask(|client| {
            let options = &options;
            async move {
                let mut events = within(client.read_all(options)).await?;
                let mut first = None;
                while let Some(resolved) = within(events.next()).await? {
                    let at = resolved.get_original_event().position.commit;
                    if at <= after.0 {
                        break;
                    }
                    first = Some(at);
                }
                Ok(first)
            }
        });
        Ok(first.await?.map(record::position).transpose()?)
    }

    /// Events of a stream above a sequence.
    pub async fn stream(
        &self,
        stream: &StreamId,
        after: u64,
        limit: usize,
    ) -> Result<Vec<Arc<RecordedEvent>>, Error> {
        let records = self.records(stream, after, limit).await?;
        Ok(records.into_iter().map(|record| record.event).collect())
    }

    /// The events of a command whose first has the given sequence; none when it is not there.
    pub async fn command(
        &self,
        stream: &StreamId,
        first: u64,
        command_id: Uuid,
    ) -> Result<Vec<Record>, Error> {
        let mut command: Vec<Record> = Vec::new();
        loop {
            let after = first - 1 + command.len() as u64;
            let page = self.records(stream, after, COMMAND_PAGE).await?;
            let is_full = page.len() == COMMAND_PAGE;
            let is_of_it = |record: &Record| record.event.command_id == command_id;
            let goes_on = is_full && page.last().is_some_and(is_of_it);
            command.extend(page.into_iter().take_while(is_of_it));
            if !goes_on {
                return Ok(command);
            }
        }
    }

    async fn records(
        &self,
        stream: &StreamId,
        after: u64,
        limit: usize,
    ) -> Result<Vec<Record>, Error> {
        let name = self.name(stream);
        let options = ReadStreamOptions::default()
            .position(StreamPosition::Position(after))
            .max_count(limit)
            .requires_leader(true);
        let found = self.connection.ask(|client| {
            let (name, options) = (name.as_str(), &options);
            async move {
                let events = within(client.read_stream(name, options)).await?;
                match collect(events).await {
                    Err(ClientError::ResourceNotFound) => Ok(Vec::new()),
                    found => found,
                }
            }
        });
        let mut records = Vec::new();
        for event in found.await? {
            records.push(record::from_stored(event, self.connection.prefix())?);
        }
        let events: Vec<_> = records.iter().map(|record| record.event.clone()).collect();
        self.streams.learn(&events);
        Ok(records)
    }

    /// The stream's name on the server.
    pub fn name(&self, stream: &StreamId) -> String {
        format!("{}{stream}", self.connection.prefix())
    }

    async fn all(&self, options: &ReadAllOptions) -> Result<Vec<eventstore::RecordedEvent>, Error> {
        Ok(self.connection.ask(|client| all(client, options)).await?)
    }

    /// The events behind a position, up to the first that cannot be read. That is a failure only
    /// where it is the first of all: whoever reads on arrives at it.
    fn readable(
        &self,
        stored: Vec<eventstore::RecordedEvent>,
        after: Position,
        limit: usize,
    ) -> Result<Vec<Arc<RecordedEvent>>, Error> {
        let mut events = Vec::new();
        let behind = stored.into_iter().filter(|event| event.position.commit > after.0);
        for event in behind.take(limit) {
            match record::from_stored(event, self.connection.prefix()) {
                Ok(record) => events.push(record.event),
                Err(error) if events.is_empty() => return Err(error),
                Err(_) => break,
            }
        }
        Ok(events)
    }
}

async fn all(
    client: Client,
    options: &ReadAllOptions,
) -> Result<Vec<eventstore::RecordedEvent>, ClientError> {
    collect(within(client.read_all(options)).await?).await
}

async fn collect(mut events: ReadStream) -> Result<Vec<eventstore::RecordedEvent>, ClientError> {
    let mut found = Vec::new();
    while let Some(resolved) = within(events.next()).await? {
        found.extend(resolved.event);
    }
    Ok(found)
}
