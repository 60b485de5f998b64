//! The envelope, version 1: what surrounds every event that is stored.
//!
//! The rule of this file: the bytes on disk are canonical (RFC 8785) and frozen by
//! `golden/envelope.v1.json`. A field is never renamed or removed; a new one is optional.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};
use uuid::Uuid;

use crate::AppendError;

/// The number of the envelope's schema that this build writes.
pub const SCHEMA: u32 = 1;

/// A place in the one global order. Strictly increasing, below 2^53; dense only where the store
/// says so in its [`crate::Capabilities`].
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Position(pub u64);

impl Position {
    /// Before the first event.
    pub const START: Position = Position(0);
}

impl std::fmt::Display for Position {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// The name of a stream: a category and an id, as `agent-01936f6e-…`. The category holds no dash.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct StreamId(Arc<str>);

impl StreamId {
    /// Joins a category (without a dash) and an id.
    pub fn new(category: &str, id: impl std::fmt::Display) -> Self {
        debug_assert!(!category.contains('-'), "a category holds no dash");
        StreamId(format!("{category}-{id}").into())
    }

    /// What stands before the first dash: the kind of aggregate.
    pub fn category(&self) -> &str {
        self.dash().map_or(&self.0, |dash| &self.0[..dash])
    }

    /// Whether it is of that category. Cheaper than to look for the dash first.
    pub fn is_of(&self, category: &str) -> bool {
        self.0.strip_prefix(category).is_some_and(|rest| rest.starts_with('-'))
    }

    /// What stands behind the first dash.
    pub fn id(&self) -> &str {
        self.dash().map_or("", |dash| &self.0[dash + 1..])
    }

    /// Where the first dash is. Categories are short: a search made for long texts takes three times as long.
    fn dash(&self) -> Option<usize> {
        self.0.bytes().position(|byte| byte == b'-')
    }

    /// The id as a UUID, where it is one.
    pub fn uuid(&self) -> Option<Uuid> {
        self.id().parse().ok()
    }

    /// The whole name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Display for StreamId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

impl From<&str> for StreamId {
    fn from(name: &str) -> Self {
        StreamId(name.into())
    }
}

/// Who asked, on whose behalf, and because of what: the part of the envelope that is the same for
/// all events of one command.
#[derive(Clone, Debug, PartialEq)]
pub struct Metadata {
    /// The tenant. Nothing crosses it.
    pub organization: Uuid,
    /// The product (workspace), where the event belongs to one.
    pub product: Option<Uuid>,
    /// Who acted: `user:<id>`, `token:<id>`, `system:<name>` or `anonymous`.
    pub actor: String,
    /// Groups everything that one request or trigger led to.
    pub correlation: Uuid,
    /// The event that led to this command, where one did.
    pub causation: Option<Uuid>,
    /// The `X-Request-Id` of the request.
    pub request_id: Option<String>,
    /// The W3C `traceparent` of the request.
    pub traceparent: Option<String>,
    /// The client's address, sealed.
    pub address: Option<String>,
    /// The client's user agent, sealed.
    pub user_agent: Option<String>,
}

/// An event that is not stored yet.
#[derive(Clone, Debug)]
pub struct NewEvent {
    /// The name on disk with its version, as `agent.installed.v1`.
    pub event_type: String,
    /// The payload, a JSON object in canonical form (RFC 8785).
    pub data: Box<RawValue>,
    /// Who, on whose behalf, why, where that is not the command's own: the event follows from one
    /// before it, and is stored with that.
    pub metadata: Option<Arc<Metadata>>,
}

/// Where the stream must stand for an append to be accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expected {
    /// Wherever it stands.
    Any,
    /// The stream has exactly this many events; 0 means that it does not exist.
    Sequence(u64),
}

/// One command's events, to be appended to one stream: all of them or none.
#[derive(Clone, Debug)]
pub struct Append {
    /// The stream.
    pub stream: StreamId,
    /// Optimistic concurrency.
    pub expected: Expected,
    /// The same command id is stored once; a second append answers with the first's result.
    pub command_id: Uuid,
    /// A keyed hash of the request. The same command id with another hash is refused.
    pub request_hash: Option<String>,
    /// Who, on whose behalf, why.
    pub metadata: Arc<Metadata>,
    /// The ids of the data keys that the payloads' ciphertexts name.
    pub keys: Vec<String>,
    /// At least one.
    pub events: Vec<NewEvent>,
}

/// An event as it is stored. Serialising it gives the canonical bytes on disk.
///
/// The fields stand in the order of RFC 8785 (by name on disk), so that plain serialisation *is*
/// canonical; a test compares it with a canonicaliser.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RecordedEvent {
    /// See [`Metadata::actor`].
    pub actor: String,
    /// See [`Metadata::address`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// See [`Metadata::causation`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub causation: Option<Uuid>,
    /// The command that this event is a result of.
    #[serde(rename = "command")]
    pub command_id: Uuid,
    /// See [`Metadata::correlation`].
    pub correlation: Uuid,
    /// The payload, canonical JSON.
    pub data: Box<RawValue>,
    /// The event's id: UUIDv8 of the command id and the event's place in the command.
    pub id: Uuid,
    /// See [`Append::keys`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub keys: Vec<String>,
    /// See [`Metadata::organization`].
    pub organization: Uuid,
    /// The place in the global order.
    pub position: Position,
    /// See [`Metadata::product`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub product: Option<Uuid>,
    /// See [`Append::request_hash`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_hash: Option<String>,
    /// See [`Metadata::request_id`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_id: Option<String>,
    /// The number of the envelope's schema, 1.
    pub schema: u32,
    /// The place in the stream, from 1.
    pub sequence: u64,
    /// The stream.
    pub stream: StreamId,
    /// When it was committed: RFC 3339 in UTC with six decimals, never decreasing with the position.
    #[serde(with = "micros")]
    pub time: DateTime<Utc>,
    /// See [`Metadata::traceparent`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub traceparent: Option<String>,
    /// The name on disk with its version, as `agent.installed.v1`.
    #[serde(rename = "type")]
    pub event_type: String,
    /// See [`Metadata::user_agent`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_agent: Option<String>,
}

impl RecordedEvent {
    /// The bytes on disk: its canonical form (RFC 8785).
    pub fn to_canonical(&self) -> String {
        canonical(self)
    }

    /// Reads the bytes on disk, and nothing that only means the same.
    ///
    /// # Errors
    /// They are no event, are not in canonical form, or were written by a newer version.
    pub fn from_canonical(text: &str) -> Result<RecordedEvent, EnvelopeError> {
        let event: RecordedEvent = serde_json::from_str(text)?;
        if event.schema > SCHEMA {
            return Err(EnvelopeError::Newer { found: event.schema, known: SCHEMA });
        }
        if canonical(&event) != text || !is_canonical(event.data.get()) {
            return Err(EnvelopeError::NotCanonical);
        }
        Ok(event)
    }
}

/// What should be an event's bytes is none of them.
#[derive(Debug, thiserror::Error)]
pub enum EnvelopeError {
    /// It is no event.
    #[error("it is no event")]
    Malformed(#[from] serde_json::Error),
    /// It means an event, and is not written as one.
    #[error("it is not in canonical form, so it was changed after it was stored")]
    NotCanonical,
    /// A newer version wrote it.
    #[error("it has the schema {found}, this version knows {known}: upgrade prodgy")]
    Newer {
        /// The schema number found.
        found: u32,
        /// The newest one that this build knows.
        known: u32,
    },
}

/// What an append led to.
#[derive(Clone, Debug)]
pub struct Appended {
    /// The stored events of the command, at least one. On a replay: those of the first time.
    pub events: Vec<Arc<RecordedEvent>>,
    /// The command id was stored before; nothing was appended now.
    pub replayed: bool,
}

impl Appended {
    /// The position of the command's last event.
    pub fn position(&self) -> Position {
        self.events.last().map_or(Position::START, |event| event.position)
    }

    /// The stream's length after the command.
    pub fn sequence(&self) -> u64 {
        self.events.last().map_or(0, |event| event.sequence)
    }
}

/// The id of the event at a place (from 0) among a command's events: the same command, appended
/// again anywhere, has the same event ids.
pub fn event_id(command_id: Uuid, index: u32) -> Uuid {
    let digest =
        Sha256::new().chain_update(command_id.as_bytes()).chain_update(index.to_be_bytes());
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&digest.finalize()[..16]);
    Uuid::new_v8(bytes)
}

/// The events of an append to a new stream as they will be stored, but for their positions and times: what
/// can be worked on before it is stored.
///
/// # Errors
/// It is malformed.
pub fn foreseen(append: Append) -> Result<Vec<RecordedEvent>, AppendError> {
    let mut events = prepare(append)?;
    for (event, sequence) in events.iter_mut().zip(1..) {
        (event.sequence, event.time) = (sequence, Utc::now());
    }
    Ok(events)
}

/// Turns an append into the events to be stored. They lack position, sequence and time, which the
/// committer alone can know.
pub(crate) fn prepare(append: Append) -> Result<Vec<RecordedEvent>, AppendError> {
    let Append { stream, command_id, request_hash, metadata, keys, events, .. } = append;
    if events.is_empty() {
        return Err(AppendError::Malformed("it has no events"));
    }
    if events.iter().any(|event| !event.data.get().starts_with('{')) {
        return Err(AppendError::Malformed("a payload is not a JSON object"));
    }
    debug_assert!(
        events.iter().all(|event| is_canonical(event.data.get())),
        "a payload is not in canonical form (RFC 8785)"
    );
    let recorded = |(index, event): (usize, NewEvent)| {
        let metadata = event.metadata.as_ref().unwrap_or(&metadata);
        RecordedEvent {
            actor: metadata.actor.clone(),
            address: metadata.address.clone(),
            causation: metadata.causation,
            command_id,
            correlation: metadata.correlation,
            data: event.data,
            id: event_id(command_id, index as u32),
            keys: keys.clone(),
            organization: metadata.organization,
            position: Position::START,
            product: metadata.product,
            request_hash: request_hash.clone(),
            request_id: metadata.request_id.clone(),
            schema: SCHEMA,
            sequence: 0,
            stream: stream.clone(),
            time: DateTime::UNIX_EPOCH,
            traceparent: metadata.traceparent.clone(),
            event_type: event.event_type,
            user_agent: metadata.user_agent.clone(),
        }
    };
    Ok(events.into_iter().enumerate().map(recorded).collect())
}

/// The bytes on disk.
pub(crate) fn canonical(event: &RecordedEvent) -> String {
    serde_json::to_string(event)
        .expect("an envelope has only text keys and cannot fail to serialise")
}

fn is_canonical(json: &str) -> bool {
    serde_json::from_str::<serde_json::Value>(json)
        .ok()
        .and_then(|value| serde_json_canonicalizer::to_string(&value).ok())
        .is_some_and(|canonical| canonical == json)
}

/// RFC 3339 in UTC with exactly six decimals, as `2026-11-23T16:00:00.000000Z`.
mod micros {
    use chrono::{DateTime, SecondsFormat, Utc};
    use serde::Serializer;
    use serde::de::{Deserializer, Error, Visitor};

    pub fn serialize<S: Serializer>(
        time: &DateTime<Utc>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&time.to_rfc3339_opts(SecondsFormat::Micros, true))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<DateTime<Utc>, D::Error> {
        deserializer.deserialize_str(Rfc3339)
    }

    /// Reads the text where it stands: a replay reads a time for every event.
    struct Rfc3339;

    impl Visitor<'_> for Rfc3339 {
        type Value = DateTime<Utc>;

        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("a time as RFC 3339")
        }

        fn visit_str<E: Error>(self, text: &str) -> Result<Self::Value, E> {
            DateTime::parse_from_rfc3339(text).map(|time| time.to_utc()).map_err(E::custom)
        }
    }
}
