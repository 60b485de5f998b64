//! The envelope's bytes on disk: frozen, canonical, and loaded again for ever.
#![expect(clippy::unwrap_used, reason = "tests say what they expect by failing")]

use std::path::Path;

use chrono::DateTime;
use eventlog::{Position, RecordedEvent, StreamId, event_id};
use proptest::prelude::*;
use serde_json::Value;
use serde_json::value::RawValue;
use uuid::Uuid;

/// Never change these files: a new envelope is a new file beside them.
#[test]
fn stored_envelopes_still_load_and_are_written_as_they_were() {
    for name in ["envelope.v1.json", "envelope.v1.least.json"] {
        let stored = golden(name);

        let event: RecordedEvent = serde_json::from_str(&stored).unwrap();

        assert_eq!(serde_json::to_string(&event).unwrap(), stored, "{name}");
    }
}

#[test]
fn every_field_of_a_stored_envelope_is_read() {
    let event: RecordedEvent = serde_json::from_str(&golden("envelope.v1.json")).unwrap();

    assert_eq!(event.position, Position(9_007_199_254_740_991), "the last below 2^53");
    assert_eq!(event.stream.category(), "agent");
    assert_eq!(event.stream.uuid(), Some("01936f6e-0000-7000-8000-000000000004".parse().unwrap()));
    assert_eq!(event.sequence, 2);
    assert_eq!(event.event_type, "agent.changed.v1");
    assert_eq!(event.time, "2026-11-23T16:00:00.000001Z".parse::<DateTime<chrono::Utc>>().unwrap());
    assert_eq!(event.data.get(), r#"{"title":"Ünïcode \u0007 \"quoted\" 🦀"}"#);
    assert_eq!(event.id, event_id(event.command_id, 1));
    assert_eq!(event.keys, ["user-01936f6e-0000-7000-8000-000000000005"]);
    assert_eq!(event.schema, 1);
    let optional = [
        &event.address,
        &event.request_hash,
        &event.request_id,
        &event.traceparent,
        &event.user_agent,
    ];
    assert!(optional.iter().all(|field| field.is_some()));
    assert!(event.product.is_some() && event.causation.is_some());
}

/// Event ids are derived, so that a command appended again is the same events. Frozen.
#[test]
fn event_ids_are_derived_as_they_were() {
    let vectors: Vec<Value> = serde_json::from_str(&golden("event_id.v1.json")).unwrap();
    for vector in vectors {
        let command: Uuid = vector["command"].as_str().unwrap().parse().unwrap();
        let index = vector["index"].as_u64().unwrap() as u32;

        let id = event_id(command, index);

        assert_eq!(id.to_string(), vector["id"].as_str().unwrap());
        assert_eq!(id.get_version_num(), 8);
    }
}

#[test]
fn times_are_written_with_six_decimals_and_read_with_any() {
    let least = golden("envelope.v1.least.json");
    for (given, written) in [
        ("2026-11-23T16:00:00.000000Z", "2026-11-23T16:00:00.000000Z"),
        ("2026-11-23T16:00:00Z", "2026-11-23T16:00:00.000000Z"),
        ("2026-11-23T17:00:00.5+01:00", "2026-11-23T16:00:00.500000Z"),
        ("0001-01-01T00:00:00.000001Z", "0001-01-01T00:00:00.000001Z"),
        ("9999-12-31T23:59:59.999999Z", "9999-12-31T23:59:59.999999Z"),
    ] {
        let mut envelope: Value = serde_json::from_str(&least).unwrap();
        envelope["time"] = given.into();

        let event: RecordedEvent = serde_json::from_str(&envelope.to_string()).unwrap();

        let again: Value = serde_json::to_value(&event).unwrap();
        assert_eq!(again["time"], written);
    }
}

proptest! {
    /// Plain serialisation is what a canonicaliser (RFC 8785) makes of the same document, and what
    /// is read back is written again byte for byte.
    #[test]
    fn what_is_written_is_canonical(event in any_event()) {
        let written = serde_json::to_string(&event).unwrap();

        let document: Value = serde_json::from_str(&written).unwrap();
        prop_assert_eq!(&written, &serde_json_canonicalizer::to_string(&document).unwrap());

        let again: RecordedEvent = serde_json::from_str(&written).unwrap();
        prop_assert_eq!(written, serde_json::to_string(&again).unwrap());
    }
}

/// Text with what breaks naive writers: quotes, controls, line separators, astral characters.
fn any_text() -> impl Strategy<Value = String> {
    prop_oneof![
        any::<String>(),
        "[a-z0-9:._-]{0,40}",
        proptest::collection::vec(
            proptest::sample::select(vec![
                '\0',
                '\u{7}',
                '\u{8}',
                '\t',
                '\n',
                '\u{c}',
                '\r',
                '\u{1f}',
                '"',
                '\\',
                '/',
                '\u{7f}',
                '\u{80}',
                '\u{2028}',
                '\u{2029}',
                '\u{d7ff}',
                '\u{e000}',
                '\u{fb33}',
                '\u{feff}',
                '\u{ffff}',
                '🦀',
                '\u{10ffff}',
            ]),
            0..12
        )
        .prop_map(String::from_iter),
    ]
}

/// A payload as the domain writes it: a canonical object, with keys in every order of UTF-16.
fn any_payload() -> impl Strategy<Value = Box<RawValue>> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        (-(1_i64 << 53)..(1_i64 << 53)).prop_map(Value::from),
        any::<f64>()
            .prop_filter("JSON has no such number", |n| n.is_finite())
            .prop_map(Value::from),
        any_text().prop_map(Value::from),
    ];
    let value = leaf.prop_recursive(3, 24, 6, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            proptest::collection::hash_map(any_text(), inner, 0..6)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    });
    proptest::collection::hash_map(any_text(), value, 0..6).prop_map(|map| {
        let object = Value::Object(map.into_iter().collect());
        RawValue::from_string(serde_json_canonicalizer::to_string(&object).unwrap()).unwrap()
    })
}

fn any_event() -> impl Strategy<Value = RecordedEvent> {
    let texts = proptest::collection::vec(any_text(), 4);
    let maybe_texts = proptest::collection::vec(proptest::option::of(any_text()), 5);
    let ids = proptest::collection::vec(any::<u128>().prop_map(Uuid::from_u128), 6);
    let numbers = (0_u64..1 << 53, 0_u64..1 << 53, 0_i64..253_402_300_799_999_999);
    let keys = proptest::collection::vec(any_text(), 0..4);
    (texts, maybe_texts, ids, numbers, keys, any_payload()).prop_map(
        |(texts, maybe, ids, (position, sequence, micros), keys, data)| RecordedEvent {
            actor: texts[0].clone(),
            address: maybe[0].clone(),
            causation: maybe[0].as_ref().map(|_| ids[0]),
            command_id: ids[1],
            correlation: ids[2],
            data,
            id: ids[3],
            keys,
            organization: ids[4],
            position: Position(position),
            product: maybe[1].as_ref().map(|_| ids[5]),
            request_hash: maybe[1].clone(),
            request_id: maybe[2].clone(),
            schema: 1,
            sequence,
            stream: StreamId::from(texts[1].as_str()),
            time: DateTime::from_timestamp_micros(micros).unwrap(),
            traceparent: maybe[3].clone(),
            event_type: texts[2].clone(),
            user_agent: maybe[4].clone(),
        },
    )
}

fn golden(name: &str) -> String {
    let path = Path::new(&std::env::var("CARGO_MANIFEST_DIR").unwrap()).join("golden").join(name);
    let text = std::fs::read_to_string(&path)
        .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    text.trim_end().to_owned()
}
