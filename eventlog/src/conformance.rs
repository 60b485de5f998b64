//! The suite that every store passes, unchanged.
//!
//! The rule of this file: a property is asked of what a store *does*, never of how. What a store
//! offers beyond the contract ([`Capabilities`]) is asked of it only where it states it.
//!
//! A store's tests implement [`Harness`] and call each function here as a test of its own.
//! `tests/suite_bites` shows for stores broken in one way each that the suite notices.

mod appends;
mod readers;
mod repeats;

use std::sync::Arc;

use async_trait::async_trait;
use serde_json::value::RawValue;
use uuid::Uuid;

pub use self::appends::*;
pub use self::readers::*;
pub use self::repeats::*;
use crate::{
    Append, AppendError, Appended, Capabilities, EventStore, Expected, Metadata, NewEvent,
    Position, RecordedEvent, StreamId,
};

/// Makes the stores that the suite runs against.
#[async_trait]
pub trait Harness: Send + Sync {
    /// A store with nothing in it.
    async fn fresh(&self) -> Arc<dyn EventStore>;

    /// Closes a store that [`Harness::fresh`] made and opens the same log again, as a restart does.
    async fn reopen(&self, store: Arc<dyn EventStore>) -> Arc<dyn EventStore>;
}

/// A command with one small event, to a stream of the category `thing`.
pub fn command(id: impl std::fmt::Display, expected: Expected) -> Append {
    command_with(id, expected, vec![event(&serde_json::json!({ "n": 1 }))])
}

/// A command with given events.
pub fn command_with(
    id: impl std::fmt::Display,
    expected: Expected,
    events: Vec<NewEvent>,
) -> Append {
    Append {
        stream: StreamId::new("thing", id),
        expected,
        command_id: Uuid::now_v7(),
        request_hash: Some("a keyed hash".into()),
        metadata: Arc::new(Metadata {
            organization: Uuid::now_v7(),
            product: Some(Uuid::now_v7()),
            actor: "user:someone".into(),
            correlation: Uuid::now_v7(),
            causation: None,
            request_id: Some("request-1".into()),
            traceparent: None,
            address: None,
            user_agent: None,
        }),
        keys: vec!["user-someone".into()],
        events,
    }
}

/// An event with a payload.
pub fn event(payload: &serde_json::Value) -> NewEvent {
    let json =
        serde_json_canonicalizer::to_string(payload).expect("a JSON value has a canonical form");
    NewEvent {
        event_type: "thing.happened.v1".into(),
        data: RawValue::from_string(json).expect("canonical JSON is JSON"),
        metadata: None,
    }
}

/// Appends what must be accepted.
async fn accepted(store: &dyn EventStore, append: Append) -> Appended {
    let stream = append.stream.clone();
    match store.append(append).await {
        Ok(appended) => appended,
        Err(error) => panic!("an append to {stream} should be accepted, but: {error}"),
    }
}

/// Appends what must be refused as a conflict; answers the stream's length as the store told it.
async fn conflicting(store: &dyn EventStore, append: Append) -> u64 {
    match store.append(append).await {
        Err(AppendError::Conflict { actual, .. }) => actual,
        other => panic!("a conflict was due, but: {other:?}"),
    }
}

/// Everything in the log, read a few events at a time.
async fn everything(store: &dyn EventStore) -> Vec<Arc<RecordedEvent>> {
    let mut seen: Vec<Arc<RecordedEvent>> = Vec::new();
    loop {
        let after = seen.last().map_or(Position::START, |event| event.position);
        let page = store.read_after(after, 100).await.expect("the log can be read");
        if page.is_empty() {
            return seen;
        }
        assert!(page.len() <= 100, "a page is no longer than its limit");
        seen.extend(page);
    }
}

/// Strictly increasing positions, and dense ones where the store says so.
fn assert_in_order(events: &[Arc<RecordedEvent>], capabilities: Capabilities) {
    for pair in events.windows(2) {
        let (one, next) = (pair[0].position, pair[1].position);
        assert!(one < next, "positions increase: {one} came before {next}");
        assert!(
            !capabilities.dense_positions || next.0 == one.0 + 1,
            "positions have no gaps: {one} came before {next}"
        );
    }
    if let Some(first) = events.first() {
        assert!(first.position > Position::START, "the first position is behind the start");
    }
}

/// The same events with the same bytes.
fn assert_same(found: &[Arc<RecordedEvent>], expected: &[Arc<RecordedEvent>]) {
    assert_eq!(bytes(found), bytes(expected));
}

fn bytes(events: &[Arc<RecordedEvent>]) -> Vec<String> {
    events.iter().map(|event| crate::envelope::canonical(event)).collect()
}
