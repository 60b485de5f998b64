//! That an event is written in one form only, and read from every form there was.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::*;

#[derive(Debug, PartialEq, Serialize, Deserialize)]
enum TeaEvent {
    #[serde(rename = "tea.brewed.v3")]
    Brewed {
        seconds: u32,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        name: Option<String>,
        amount: Amount,
    },
    #[serde(rename = "tea.drunk.v1")]
    Drunk {},
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Amount {
    Cups(u8),
    Pot { litres: f64 },
}

/// What this enum would have been written as before: first in minutes, then without an amount.
const UPCASTERS: &[Upcaster] = &[
    Upcaster { from: "tea.brewed.v1", to: "tea.brewed.v2", lift: minutes_to_seconds },
    Upcaster { from: "tea.brewed.v2", to: "tea.brewed.v3", lift: one_cup },
];

fn minutes_to_seconds(mut payload: Value) -> Value {
    payload["seconds"] = json!(payload["minutes"].as_u64().unwrap_or_default() * 60);
    payload
}

fn one_cup(mut payload: Value) -> Value {
    payload["amount"] = json!({ "cups": 1 });
    payload
}

#[test]
fn an_event_is_written_as_its_name_and_a_canonical_object() {
    let amount = Amount::Pot { litres: 1.0 };
    let event = TeaEvent::Brewed { seconds: 240, name: Some("Grün\n".to_owned()), amount };
    let (event_type, data) = encode(&event);
    assert_eq!(event_type, "tea.brewed.v3");
    assert_eq!(data.get(), r#"{"amount":{"pot":{"litres":1}},"name":"Grün\n","seconds":240}"#);
    assert_eq!(decode::<TeaEvent>(&event_type, &data).unwrap(), event);
    assert_eq!(encode(&TeaEvent::Drunk {}).1.get(), "{}");
}

#[test]
fn fields_that_are_not_known_are_ignored() {
    assert_eq!(
        read("tea.drunk.v1", r#"{"colour":"red","deep":{"a":[1]}}"#).unwrap(),
        TeaEvent::Drunk {}
    );
}

#[test]
fn an_event_that_is_not_known_is_refused_by_name() {
    let error = read("tea.spilt.v1", "{}").unwrap_err().to_string();
    assert!(error.contains("tea.spilt.v1"), "{error}");
}

#[test]
fn a_payload_that_does_not_fit_is_refused() {
    for data in [r#"{"seconds":"x","amount":{"cups":1}}"#, r#"{"seconds":1}"#, "7", "[]", "null"] {
        assert!(read("tea.brewed.v3", data).is_err(), "{data}");
    }
}

#[test]
fn an_old_shape_is_lifted_step_by_step_to_todays() {
    let brewed = |seconds| TeaEvent::Brewed { seconds, name: None, amount: Amount::Cups(1) };
    assert_eq!(read("tea.brewed.v1", r#"{"minutes":4}"#).unwrap(), brewed(240));
    assert_eq!(read("tea.brewed.v2", r#"{"seconds":30}"#).unwrap(), brewed(30));
    assert_eq!(read("tea.brewed.v3", r#"{"amount":{"cups":1},"seconds":7}"#).unwrap(), brewed(7));
}

#[test]
fn what_is_lifted_and_still_does_not_fit_is_refused() {
    let error = read("tea.brewed.v2", r#"{"seconds":"long"}"#).unwrap_err();
    assert!(error.to_string().contains("long"), "{error}");
}

#[test]
fn the_names_of_an_enum_are_known_and_versioned() {
    assert_eq!(names::<TeaEvent>(), ["tea.brewed.v3", "tea.drunk.v1"]);
    assert_eq!(version_of("tea.brewed.v3"), "v3");
    assert!(names::<u8>().is_empty());
}

fn read(event_type: &str, data: &str) -> serde_json::Result<TeaEvent> {
    let data = RawValue::from_string(data.to_owned()).unwrap();
    decode_with(UPCASTERS, event_type, &data)
}
