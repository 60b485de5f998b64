//! What a schema completes, refuses, and keeps to itself.

use serde_json::json;

use super::*;

#[test]
fn defaults_are_filled_in_where_something_is_missing() {
    let schema = json!({
        "type": "object",
        "properties": {
            "start": { "type": "integer", "default": 0 },
            "kept": { "type": "integer", "default": 1 },
            "inner": {
                "type": "object",
                "default": {},
                "properties": { "deep": { "type": "string", "default": "x" } },
            },
            "plain": { "type": "string" },
        },
    });
    let value = Schema::compile(&schema).unwrap().complete(json!({ "kept": 7 })).unwrap();
    assert_eq!(value, json!({ "start": 0, "kept": 7, "inner": { "deep": "x" } }));
}

#[test]
fn every_fault_is_told_with_its_place_and_without_the_value() {
    let schema = json!({
        "type": "object",
        "properties": { "n": { "type": "integer" }, "token": { "type": "string", "minLength": 30 } },
        "required": ["n", "m"],
    });
    let faults = Schema::compile(&schema)
        .unwrap()
        .complete(json!({ "n": "canary-one", "token": "canary-two" }))
        .unwrap_err();
    let found: Vec<_> = faults.iter().map(|fault| (fault.pointer.as_str(), fault.code)).collect();
    let expected =
        [("/m", "field_missing"), ("/n", "schema_violation"), ("/token", "schema_violation")];
    assert_eq!(found, expected, "{faults:?}");
    assert!(faults.iter().all(|fault| !fault.message.contains("canary")), "{faults:?}");
}

#[test]
fn what_is_no_schema_is_refused_with_its_place() {
    let compile = |schema: Value| Schema::compile(&schema).map(|_| ()).unwrap_err();
    let fault = compile(json!({ "type": "object", "properties": { "n": { "type": "nonsense" } } }));
    assert_eq!((fault.pointer.as_str(), fault.code), ("/properties/n/type", "schema_invalid"));
    assert_eq!(compile(json!(7)).code, "schema_invalid");
    assert_eq!(compile(json!({ "pattern": "(" })).code, "schema_invalid");
}

#[test]
fn a_schema_fetches_nothing() {
    for reference in ["http://127.0.0.1:1/x", "https://example.com/x", "file:///etc/passwd"] {
        let schema = json!({ "properties": { "a": { "$ref": reference } } });
        assert_eq!(Schema::compile(&schema).map(|_| ()).unwrap_err().code, "schema_invalid");
        let schema = json!({ "$schema": reference });
        assert_eq!(Schema::compile(&schema).map(|_| ()).unwrap_err().code, "schema_invalid");
    }
}

#[test]
fn a_pattern_cannot_hang_the_server() {
    let schema = json!({ "type": "string", "pattern": "^(a+)+$" });
    let value = json!(format!("{}!", "a".repeat(50_000)));
    assert!(Schema::compile(&schema).unwrap().complete(value).is_err());
}

#[test]
fn secrets_are_known_by_any_mark() {
    let schema = json!({ "properties": {
        "key": { "type": "string", "x-secret": true },
        "token": { "type": "string", "secret": true },
        "password": { "type": "string", "writeOnly": true },
        "plain": { "type": "string", "secret": false },
        "git/hub": { "properties": { "key": { "secret": true } } },
    } });
    let mut paths = Schema::compile(&schema).unwrap().secret_paths();
    paths.sort();
    assert_eq!(paths, ["/git~1hub/key", "/key", "/password", "/token"]);
}
