//! What a filter sees of an event: what `GET /api/events` shows, without what is sealed.
//!
//! The rule of this file: nothing is opened. What is sealed, and hashes of secrets, are left out, so
//! that an expression finds no such field. Of everything else a field has the type that it has in the
//! log, and what the envelope lacks is `null`.

use chrono::SecondsFormat;
use eventlog::RecordedEvent;
use serde_json::{Value, json};
use uuid::Uuid;

/// What is seen of an event, with the agent that it is of.
pub(super) fn view(event: &RecordedEvent, agent: Option<Uuid>) -> Value {
    let mut data = serde_json::from_str(event.data.get()).unwrap_or_default();
    clear(&mut data);
    json!({
        "id": event.id,
        "type": event.event_type,
        "subject": event.stream.as_str(),
        "resource_type": event.stream.category(),
        "resource_id": event.stream.id(),
        "time": event.time.to_rfc3339_opts(SecondsFormat::Micros, true),
        "position": event.position.0,
        "sequence": event.sequence,
        "actor": event.actor,
        "product": event.product,
        "agent_id": agent,
        "correlationid": event.correlation,
        "causationid": event.causation,
        "data": data,
    })
}

/// Takes away what is sealed, wherever it stands.
fn clear(value: &mut Value) {
    match value {
        Value::Object(object) => {
            object.retain(|name, value| {
                !name.ends_with("_hash") && name != "private_key" && !is_sealed(value)
            });
            object.values_mut().for_each(clear);
        }
        Value::Array(items) => {
            items.retain(|item| !is_sealed(item));
            items.iter_mut().for_each(clear);
        }
        _ => {}
    }
}

/// Ciphertext, or a blob of it.
fn is_sealed(value: &Value) -> bool {
    match value {
        Value::String(text) => vault::Sealed::parse(text).is_ok(),
        Value::Object(object) => object.contains_key("sealed") || object.contains_key("blob"),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_sealed_is_left_out_wherever_it_stands() {
        let sealed = "s1.product-1.AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
        assert!(vault::Sealed::parse(sealed).is_ok(), "the example is what it should be");
        let mut data = json!({
            "code": "x", "error": { "sealed": sealed }, "name": sealed, "secret_hash": "ab",
            "list": [{ "address": sealed, "at": 1 }, sealed],
            "output": { "blob": { "key": "k", "name": "n", "size": 1 } },
        });
        clear(&mut data);
        assert_eq!(data, json!({ "code": "x", "list": [{ "at": 1 }] }));
    }
}
