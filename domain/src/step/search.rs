//! How and where a step searches a knowledge base.
//!
//! The rule of this file: what is written here is what the search of the API takes, so that nothing that
//! it would refuse gets as far as a run.

use serde_json::{Map, Value};

use super::reader::Reader;
use crate::refusal::{Fault, pointer_segment};

/// How passages are found; the first unless another is named.
const MODES: [(&str, &str); 3] =
    [("vector", "vector"), ("full_text", "full_text"), ("hybrid", "hybrid")];

/// The most that a score can be: BM25 has no bound of its own.
const GREATEST_SCORE: f64 = 1_000_000.0;

pub(super) fn read_mode(read: &mut Reader<'_>) -> &'static str {
    read.choice("mode", &MODES).unwrap_or(MODES[0].1)
}

/// A cosine, unless another mode is named, or may be.
pub(super) fn read_min_score(read: &mut Reader<'_>) -> Option<f32> {
    let is_cosine = match read.with.get("mode") {
        None | Some(Value::Null) => true,
        Some(mode) => mode == "vector",
    };
    let greatest = if is_cosine { 1.0 } else { GREATEST_SCORE };
    read.number("min_score", -1.0, greatest).map(|score| score as f32)
}

pub(super) fn read_filters(read: &mut Reader<'_>) -> Map<String, Value> {
    let filters = match read.given("filters") {
        None => return Map::new(),
        Some(Value::Object(filters)) => filters,
        Some(_) => {
            let message = "`filters` is an object, as {\"source\": \"wiki\"}";
            read.fault("filters", "type_mismatch", message);
            return Map::new();
        }
    };
    let mut kept = Map::new();
    for (name, value) in filters {
        // What an expression came to nothing for is no condition.
        if value.is_null() || read.is_computed(value) {
            continue;
        }
        if let Some((code, message)) = fault(name, value) {
            let pointer = format!("/filters/{}", pointer_segment(name));
            read.faults.push(Fault::new(pointer, code, message));
        } else {
            kept.insert(name.clone(), value.clone());
        }
    }
    kept
}

/// What is wrong with one condition.
fn fault(name: &str, value: &Value) -> Option<(&'static str, String)> {
    let is_list_of = |is_good: fn(&Value) -> bool| {
        value.as_array().is_some_and(|items| items.iter().all(is_good))
    };
    let is_id =
        |value: &Value| value.as_str().is_some_and(|text| uuid::Uuid::parse_str(text).is_ok());
    let (is_good, what) = match name {
        "source" | "subject" | "language" => {
            (value.is_string() || is_list_of(Value::is_string), "a text, or a list of texts")
        }
        "tags" => (is_list_of(Value::is_string), "a list of texts"),
        "file_id" => (is_id(value) || is_list_of(is_id), "the id of a file, or a list of them"),
        "from" | "to" => {
            let text = value.as_str().unwrap_or_default();
            let is_time = chrono::DateTime::parse_from_rfc3339(text).is_ok();
            let message = "write a time with its zone, as 2026-01-31T09:00:00Z";
            return (!is_time).then(|| ("time_invalid", message.to_owned()));
        }
        _ => {
            let message = format!(
                "a search does not know the filter `{name}`: it knows source, subject, language, tags, file_id, from and to"
            );
            return Some(("field_unknown", message));
        }
    };
    (!is_good).then(|| ("type_mismatch", format!("`{name}` is {what}")))
}
