//! The published schema and the parser agree: on all that is valid, and on what is wrong in form.

use std::sync::LazyLock;

use jsonschema::Validator;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::{Case, cases, counter, grammar, junk, small};
use crate::catalogue::catalogue;
use crate::expression::{holds_expression, is_expression};
use crate::manifest::{JSON_SCHEMA, Manifest};
use crate::refusal::{Fault, pointer_segment};

/// What a schema cannot know.
const MEANING: [&str; 32] = [
    "argument_mismatch",
    "argument_missing",
    "argument_unknown",
    "backoff_shrinks",
    "cel_invalid",
    "cron_invalid",
    "duration_out_of_range",
    "end_before_start",
    "input_invalid",
    "integration_invalid",
    "manifest_too_large",
    "model_not_required",
    "name_unknown",
    "needs_cycle",
    "needs_unknown",
    "number_out_of_range",
    "operation_not_of_slot",
    "operation_unknown",
    "schema_invalid",
    "slot_duplicate",
    "slot_not_of_communicators",
    "slot_unknown",
    "step_id_duplicate",
    "step_not_needed",
    "target_unclear",
    "template_invalid",
    "time_invalid",
    "trigger_id_duplicate",
    "trigger_id_reserved",
    "triggers_count",
    "tz_unknown",
    "wait_longer_than_timeout",
];

#[test]
fn it_is_a_schema_of_draft_2020_12() {
    let schema: Value = serde_json::from_str(JSON_SCHEMA).unwrap();
    assert_eq!(schema["$schema"], "https://json-schema.org/draft/2020-12/schema");
    assert!(jsonschema::meta::is_valid(&schema));
}

#[test]
fn it_passes_what_is_valid() {
    let delivered = catalogue().iter().map(|manifest| Value::Object(manifest.canonical().clone()));
    for document in delivered.chain([small(), counter(), grammar::full()]) {
        let faults: Vec<_> = SCHEMA.iter_errors(&document).map(|it| it.to_string()).collect();
        assert!(faults.is_empty(), "{}: {faults:?}", document["name"]);
    }
}

#[test]
fn it_refuses_what_is_wrong_in_form() {
    let check = |base: fn() -> Value, cases: Vec<Case>| {
        for (expected, change) in cases {
            let mut document = base();
            change(&mut document);
            let faults = Manifest::read(&document).err().unwrap_or_default();
            assert!(!wrong_in_form(&faults) || !SCHEMA.is_valid(&document), "{expected:?}");
        }
    };
    check(counter, cases());
    check(grammar::full, grammar::cases());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn it_agrees_with_the_parser_on_whatever_is_written(place: prop::sample::Index, twist in twist()) {
        let mut document = grammar::full();
        let mut places = Vec::new();
        collect(&document, String::new(), &mut places);
        let place = place.get(&places);
        match twist {
            Some(twist) => *document.pointer_mut(place).unwrap() = twist,
            None => remove(&mut document, place),
        }
        let agrees = is_left_to_the_run(&document) || match Manifest::read(&document) {
            Ok(_) => SCHEMA.is_valid(&document),
            Err(faults) => !wrong_in_form(&faults) || !SCHEMA.is_valid(&document),
        };
        prop_assert!(agrees, "{}: {:?}", document, Manifest::read(&document).err());
    }
}

/// What comes in the place of something; `None` takes it away.
fn twist() -> impl Strategy<Value = Option<Value>> {
    prop_oneof![
        1 => Just(None),
        3 => junk().prop_map(Some),
        8 => prop::sample::select(apt()).prop_map(Some),
    ]
}

/// Whether a step of the first kinds has an expression deep in a field, which was always accepted.
fn is_left_to_the_run(document: &Value) -> bool {
    let steps = document["steps"].as_array().into_iter().flatten();
    steps.filter(|step| step["type"].as_str().is_some_and(|kind| kind.starts_with("kb."))).any(
        |step| {
            let fields = step["with"].as_object().into_iter().flat_map(|with| with.values());
            fields.into_iter().any(|field| holds_expression(field) && !is_expression(field))
        },
    )
}

fn apt() -> Vec<Value> {
    vec![
        json!(null),
        json!(true),
        json!(0),
        json!(-1),
        json!(1),
        json!(1.5),
        json!(1_000_000),
        json!(""),
        json!(" "),
        json!("5m"),
        json!("1m30s"),
        json!("manual"),
        json!("event"),
        json!("wait"),
        json!("condition"),
        json!("2026-01-01T00:00:00Z"),
        json!("2xx"),
        json!("https://example.com/a?b#c"),
        json!("http://"),
        json!("input.urls"),
        json!([]),
        json!({}),
        json!([null]),
        json!(["a", "a"]),
        json!({ "cel": "1" }),
        json!([{ "cel": "1" }]),
        json!({ "template": "x" }),
        json!({ "cel": 1 }),
        json!({ "cel": "1", "template": "x" }),
        json!({ "items": "[1]" }),
        json!({ "attempts": 2 }),
        json!({ "a": { "cel": "1" } }),
        json!({ "a": [1, null] }),
        json!({ "content-LENGTH": "1" }),
        json!("a\nb"),
    ]
}

fn remove(document: &mut Value, place: &str) {
    let Some((parent, key)) = place.rsplit_once('/') else { return };
    match document.pointer_mut(parent) {
        Some(Value::Object(object)) => drop(object.remove(key)),
        Some(Value::Array(items)) => drop(items.remove(key.parse().unwrap())),
        _ => {}
    }
}

static SCHEMA: LazyLock<Validator> = LazyLock::new(|| {
    let schema = serde_json::from_str(JSON_SCHEMA).unwrap();
    jsonschema::validator_for(&schema).unwrap()
});

fn wrong_in_form(faults: &[Fault]) -> bool {
    // An expression may stand anywhere; whether it is text is known by its meaning.
    let expression = |pointer: &str| pointer.ends_with("/cel") || pointer.ends_with("/template");
    faults.iter().any(|fault| !MEANING.contains(&fault.code) && !expression(&fault.pointer))
}

fn collect(value: &Value, pointer: String, places: &mut Vec<String>) {
    let children: Vec<(String, &Value)> = match value {
        Value::Array(items) => {
            items.iter().enumerate().map(|(index, item)| (index.to_string(), item)).collect()
        }
        Value::Object(object) => {
            object.iter().map(|(key, item)| (pointer_segment(key), item)).collect()
        }
        _ => Vec::new(),
    };
    for (segment, child) in children {
        collect(child, format!("{pointer}/{segment}"), places);
    }
    places.push(pointer);
}
