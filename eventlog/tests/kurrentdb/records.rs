//! How events lie in the server, and what is read from it again.
//!
//! The rule of this file: what `golden/kurrentdb_metadata.v1.json` says is for ever, and the
//! envelope that is put together from it is the frozen one.

use std::collections::HashMap;
use std::sync::Arc;

use chrono::{DateTime, Utc};
use eventlog::conformance::{command, command_with, event};
use eventlog::{
    Append, Error, EventStore, Expected, KurrentdbError, KurrentdbOptions, KurrentdbStore,
    Metadata, NewEvent, Position, RecordedEvent, StreamId,
};
use kurrentdb_double::proto::shared::{Uuid, uuid::Value};
use kurrentdb_double::proto::streams::append_req::ProposedMessage;
use serde_json::json;

use kurrentdb_double::{Database, Double, Flaw};

const ENVELOPE: &str = include_str!("../../golden/envelope.v1.json");
const METADATA: &str = include_str!("../../golden/kurrentdb_metadata.v1.json");

async fn open(double: &Double) -> Arc<dyn EventStore> {
    let options = KurrentdbOptions::default();
    Arc::new(KurrentdbStore::open(&double.url(), options).await.unwrap())
}

fn golden() -> RecordedEvent {
    serde_json::from_str(ENVELOPE).unwrap()
}

/// The golden envelope's event, with metadata as it is given.
fn message(metadata: &str) -> ProposedMessage {
    let event = golden();
    ProposedMessage {
        id: Some(Uuid { value: Some(Value::String(event.id.to_string())) }),
        metadata: HashMap::from([
            ("type".into(), event.event_type),
            ("content-type".into(), "application/json".into()),
        ]),
        custom_metadata: metadata.trim_end().into(),
        data: event.data.get().into(),
    }
}

fn ticks(time: DateTime<Utc>) -> i64 {
    time.timestamp_micros() * 10
}

fn bytes(event: &RecordedEvent) -> String {
    serde_json::to_string(event).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_golden_record_is_read_as_the_golden_envelope() {
    let golden = golden();
    let double = Double::start().await;
    // Less than a microsecond more: it is cut.
    let created = ticks(golden.time) + 9;
    double.database.put(golden.stream.as_str(), &message(METADATA), created);
    let position = double.database.put(golden.stream.as_str(), &message(METADATA), created);
    let expected = bytes(&RecordedEvent { position: Position(position), ..golden.clone() });

    // Before the store was open, and while it is.
    for _ in 0..2 {
        let store = open(&double).await;
        let of_stream = store.read_stream(&golden.stream, 1, 10).await.unwrap();
        assert_eq!(bytes(&of_stream[0]), expected, "from its stream");
        let of_all = store.read_after(Position(position - 1), 10).await.unwrap();
        assert_eq!(bytes(&of_all[0]), expected, "from all streams");
        let found = store.find_command(&golden.stream, golden.command_id).await.unwrap();
        assert_eq!(bytes(&found.unwrap().events[1]), expected, "by its command");
    }
    let store = open(&double).await;
    let mut news = store.watch();
    let third = double.database.put(golden.stream.as_str(), &message(METADATA), created);
    news.wait_for(|head| *head >= Position(third)).await.unwrap();
    let come_by = store.read_after(Position(position), 10).await.unwrap();
    let expected = RecordedEvent { position: Position(third), sequence: 3, ..golden };
    assert_eq!(bytes(&come_by[0]), bytes(&expected), "by the subscription");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_golden_envelope_is_stored_as_the_golden_record() {
    let golden = golden();
    let double = Double::start().await;
    let append = Append {
        stream: golden.stream.clone(),
        expected: Expected::Any,
        command_id: golden.command_id,
        request_hash: golden.request_hash.clone(),
        metadata: Arc::new(Metadata {
            organization: golden.organization,
            product: golden.product,
            actor: golden.actor.clone(),
            correlation: golden.correlation,
            causation: golden.causation,
            request_id: golden.request_id.clone(),
            traceparent: golden.traceparent.clone(),
            address: golden.address.clone(),
            user_agent: golden.user_agent.clone(),
        }),
        keys: golden.keys.clone(),
        events: vec![NewEvent {
            event_type: golden.event_type.clone(),
            data: golden.data.clone(),
            metadata: None,
        }],
    };

    open(&double).await.append(append).await.unwrap();

    let stored = double.database.stream(golden.stream.as_str()).unwrap().remove(0);
    let mut metadata: serde_json::Value = serde_json::from_slice(&stored.metadata).unwrap();
    let expected: serde_json::Value = serde_json::from_str(METADATA).unwrap();
    // Each call of `append` has its own.
    metadata["attempt"] = expected["attempt"].clone();
    assert_eq!(metadata, expected);
    let canonical = serde_json_canonicalizer::to_string(&expected).unwrap();
    assert_eq!(METADATA.trim_end(), canonical, "the fields stand in canonical order");
    let written = String::from_utf8(stored.metadata.clone()).unwrap();
    assert_eq!(written.len(), canonical.len(), "as they are written");
    assert!(written.starts_with(&canonical[..canonical.find("\"attempt\"").unwrap()]), "{written}");
    assert_eq!(stored.data, golden.data.get().as_bytes(), "the payload is not touched");
    assert_eq!(stored.event_type, golden.event_type);
    assert_eq!(stored.content_type, "application/json");
    assert_eq!(stored.id, eventlog::event_id(golden.command_id, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_of_a_newer_version_is_named_as_such() {
    let double = Double::start().await;
    let newer = METADATA.replace("\"schema\":1", "\"schema\":2");
    double.database.put("agent-a", &message(&newer), 0);
    let store = open(&double).await;

    let error = store.read_after(Position::START, 10).await.unwrap_err();

    assert!(matches!(error, Error::Newer { found: 2, known: 1 }), "{error:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn somebody_elses_event_stops_whoever_reads_on_at_its_place() {
    let double = Double::start().await;
    let store = open(&double).await;
    let ours = store.append(command("a", Expected::Any)).await.unwrap();
    let foreign = double.database.put("orders-1", &message("{\"shop\":1}"), 0);
    let after = store.append(command("a", Expected::Any)).await.unwrap();
    assert!(after.position() > Position(foreign), "who appends is not kept from it");

    let store = open(&double).await;
    let before = store.read_after(Position::START, 10).await.unwrap();
    assert_eq!(before.len(), 1, "what is before it can be read");
    let error = store.read_after(ours.position(), 10).await.unwrap_err();
    let Error::Kurrentdb(error) = error else { panic!("{error:?}") };
    assert!(matches!(error, KurrentdbError::Foreign { position, .. } if position == foreign));
    assert!(!error.is_temporary());
    assert!(error.to_string().contains("namespace"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn namespaces_share_a_server_and_nothing_else() {
    let double = Double::start().await;
    let in_namespace = |name: &str| {
        let address = format!("{}&namespace={name}", double.url());
        async move { KurrentdbStore::open(&address, KurrentdbOptions::default()).await.unwrap() }
    };
    let (one, other) = (in_namespace("one").await, in_namespace("one_more").await);
    let append = command("a", Expected::Sequence(0));
    one.append(append.clone()).await.unwrap();
    let theirs = other.append(append.clone()).await.unwrap();
    double.database.put("orders-1", &message("{}"), 0);

    assert!(!theirs.replayed, "the same command, in another log");
    assert_eq!(theirs.events[0].stream, append.stream, "the namespace is not part of the name");
    for store in [&one, &other] {
        let all = store.read_after(Position::START, 10).await.unwrap();
        assert_eq!(all.len(), 1);
        assert_eq!(store.head().await.unwrap(), all[0].position);
        assert_eq!(store.read_stream(&append.stream, 0, 10).await.unwrap().len(), 1);
    }
    assert!(double.database.stream("one.thing-a").is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn positions_end_where_json_numbers_do() {
    for (start, is_too_far) in [((1 << 53) - 10_000, false), (1 << 53, true)] {
        let database = Database::beginning_at(start, Flaw::None);
        let double = Double::over(Arc::new(database)).await;
        let store = open(&double).await;
        let outcome = store.append(command("a", Expected::Any)).await;
        if is_too_far {
            let error = outcome.unwrap_err();
            assert!(error.to_string().contains("2^53"), "{error}");
            assert!(error.to_string().contains("export"), "{error}");
        } else {
            assert!(outcome.unwrap().position() < Position(1 << 53));
            assert_eq!(store.read_after(Position::START, 10).await.unwrap().len(), 1);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_tells_no_positions_in_streams_is_too_old() {
    let double = Double::start().await;
    let store = open(&double).await;
    store.append(command("a", Expected::Any)).await.unwrap();
    *double.database.is_old.lock() = true;

    let error = store.read_stream(&StreamId::new("thing", "a"), 0, 10).await.unwrap_err();

    assert!(matches!(error, Error::Kurrentdb(KurrentdbError::TooOld)), "{error:?}");
    assert!(error.to_string().contains("22.10"), "{error}");
}

/// The server reads from an event's own place and fails anywhere else.
#[tokio::test(flavor = "multi_thread")]
async fn a_position_that_no_event_has_is_a_place_all_the_same() {
    let double = Double::start().await;
    let writer = open(&double).await;
    // More than the marks lie apart.
    for n in 0..25 {
        let events = (0..100).map(|m| event(&json!({ "n": n, "m": m }))).collect();
        writer.append(command_with(n % 3, Expected::Any, events)).await.unwrap();
    }
    let all = writer.read_after(Position::START, usize::MAX).await.unwrap();
    assert_eq!(all.len(), 2500);
    let before_all = Position(1);
    assert!(before_all < all[0].position);
    for index in [0, 1, 42, 999, 1000, 1001, 1999, 2400, 2499] {
        // Opened anew: nothing of what came by is known, and no mark is made.
        let store = open(&double).await;
        for off in [1, 2, 77] {
            let after = Position(all[index].position.0 - off);
            let read = store.read_after(after, 7).await.unwrap();
            let read: Vec<_> = read.iter().map(|event| event.position).collect();
            let expected: Vec<_> =
                all[index..].iter().take(7).map(|event| event.position).collect();
            assert_eq!(read, expected, "behind {after}, {off} before event {index}");
        }
        let beyond = Position(all[2499].position.0 + 1);
        assert!(store.read_after(beyond, 7).await.unwrap().is_empty());
        assert_eq!(store.read_after(before_all, 1).await.unwrap()[0].position, all[0].position);
    }
}

/// Where the server's clock went back, a time is still one position: the last one before the first
/// event that is later.
#[tokio::test(flavor = "multi_thread")]
async fn a_time_is_one_position_even_when_the_clock_went_back() {
    let double = Double::over(Arc::new(Database::new(Flaw::TimeGoesBack))).await;
    let writer = open(&double).await;
    for n in 0..30 {
        let events = (0..50).map(|m| event(&json!({ "m": m }))).collect();
        writer.append(command_with(n % 3, Expected::Any, events)).await.unwrap();
    }
    let all = writer.read_after(Position::START, usize::MAX).await.unwrap();
    assert!(all.windows(2).any(|pair| pair[1].time < pair[0].time), "the clock had to go back");
    // From the middle, so that the marks are made in another order than they are asked for.
    let times = [700, 1499, 0, 1100, 300].map(|index: usize| all[index].time);
    let store = open(&double).await;
    for _ in 0..2 {
        for time in times {
            let expected = all.iter().take_while(|event| event.time <= time).last();
            let expected = expected.map_or(Position::START, |event| event.position);
            assert_eq!(store.position_at(time).await.unwrap(), expected, "at {time}");
        }
    }
}
