//! The envelope as KurrentDB stores it, and back.
//!
//! The rule of this file: an event's canonical envelope is a function of what the server stored,
//! and of nothing else, so that it is the same bytes whoever reads it, and when. What is written
//! here is frozen by `golden/kurrentdb_metadata.v1.json`.
//!
//! | of the envelope | is stored as |
//! | --- | --- |
//! | `data` | the event's data, byte for byte |
//! | `id`, `type`, `stream` | the event's own (the stream behind the namespace) |
//! | `sequence` | the revision, plus one |
//! | `position` | the commit position |
//! | `time` | when the server created it, cut to microseconds |
//! | `correlation`, `causation` | `$correlationId`, `$causationId` of the metadata |
//! | everything else | the metadata, under its name in the envelope |

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use chrono::DateTime;
use eventstore::EventData;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use uuid::Uuid;

use super::error::KurrentdbError;
use crate::envelope::SCHEMA;
use crate::{Error, Position, RecordedEvent, StreamId};

/// The largest position: JSON numbers are exact below 2^53.
const FARTHEST: u64 = (1 << 53) - 1;

/// What stands for a position that the server did not tell.
const UNTOLD: u64 = u64::MAX;

/// The metadata of a stored event, its fields in the order of RFC 8785.
#[derive(Serialize, Deserialize)]
struct Metadata {
    #[serde(rename = "$causationId", default, skip_serializing_if = "Option::is_none")]
    causation: Option<Uuid>,
    #[serde(rename = "$correlationId")]
    correlation: Uuid,
    actor: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    address: Option<String>,
    /// Of this one call of `append`: who finds it knows that it was this call that stored the
    /// command, and not another one with the same.
    attempt: Uuid,
    #[serde(rename = "command")]
    command_id: Uuid,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    keys: Vec<String>,
    /// How many events of the same command follow, so that a command is shown whole.
    more: u32,
    organization: Uuid,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    product: Option<Uuid>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    request_hash: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    request_id: Option<String>,
    schema: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    traceparent: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    user_agent: Option<String>,
}

/// A stored event, and what surrounds it beyond the envelope.
#[derive(Clone, Debug)]
pub(super) struct Record {
    pub event: Arc<RecordedEvent>,
    /// Of the call that stored it.
    pub attempt: Uuid,
    /// How many events of the same command follow.
    pub more: u32,
}

/// The events of a command as the client sends them. Their positions, sequences and times are the
/// server's to give.
pub(super) fn to_store(events: &[RecordedEvent], attempt: Uuid) -> Vec<EventData> {
    let proposed = |(index, event): (usize, &RecordedEvent)| {
        let more = (events.len() - 1 - index) as u32;
        EventData::json(&event.event_type, &event.data)
            .expect("JSON is written as it stands")
            .id(event.id)
            .metadata(metadata(event, attempt, more))
    };
    events.iter().enumerate().map(proposed).collect()
}

fn metadata(event: &RecordedEvent, attempt: Uuid, more: u32) -> Bytes {
    let metadata = Metadata {
        causation: event.causation,
        correlation: event.correlation,
        actor: event.actor.clone(),
        address: event.address.clone(),
        attempt,
        command_id: event.command_id,
        keys: event.keys.clone(),
        more,
        organization: event.organization,
        product: event.product,
        request_hash: event.request_hash.clone(),
        request_id: event.request_id.clone(),
        schema: event.schema,
        traceparent: event.traceparent.clone(),
        user_agent: event.user_agent.clone(),
    };
    serde_json::to_vec(&metadata)
        .expect("metadata has only text keys and cannot fail to serialise")
        .into()
}

/// An event as it was read. `prefix` is what the names of this log's streams begin with.
pub(super) fn from_stored(
    stored: eventstore::RecordedEvent,
    prefix: &str,
) -> Result<Record, Error> {
    let position = position(stored.position.commit)?;
    let is_not_ours = |source| KurrentdbError::Foreign { position: position.0, source };
    let metadata: Metadata =
        serde_json::from_slice(&stored.custom_metadata).map_err(is_not_ours)?;
    if metadata.schema > SCHEMA {
        return Err(Error::Newer { found: metadata.schema, known: SCHEMA });
    }
    let data: Box<RawValue> = serde_json::from_slice(&stored.data)
        .map_err(|source| Error::Corrupt { position: position.0, source })?;
    let name = stored.stream_id();
    let event = RecordedEvent {
        actor: metadata.actor,
        address: metadata.address,
        causation: metadata.causation,
        command_id: metadata.command_id,
        correlation: metadata.correlation,
        data,
        id: stored.id,
        keys: metadata.keys,
        organization: metadata.organization,
        position,
        product: metadata.product,
        request_hash: metadata.request_hash,
        request_id: metadata.request_id,
        schema: metadata.schema,
        sequence: stored.revision + 1,
        stream: StreamId::from(name.strip_prefix(prefix).unwrap_or(name)),
        time: time(&stored.metadata),
        traceparent: metadata.traceparent,
        event_type: stored.event_type.clone(),
        user_agent: metadata.user_agent,
    };
    Ok(Record { event: Arc::new(event), attempt: metadata.attempt, more: metadata.more })
}

/// A commit position, if it is one that can be told.
pub(super) fn position(commit: u64) -> Result<Position, KurrentdbError> {
    match commit {
        UNTOLD => Err(KurrentdbError::TooOld),
        commit if commit > FARTHEST => Err(KurrentdbError::TooFar(commit)),
        commit => Ok(Position(commit)),
    }
}

/// When the server created an event: it says so in steps of 100 nanoseconds since 1970. The
/// client's own reading of them is cut to seconds.
fn time(metadata: &HashMap<String, String>) -> DateTime<chrono::Utc> {
    let ticks = metadata.get("created").and_then(|ticks| ticks.parse::<i64>().ok());
    ticks.and_then(|ticks| DateTime::from_timestamp_micros(ticks / 10)).unwrap_or_default()
}
