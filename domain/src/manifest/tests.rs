//! What is a manifest, and what is wrong with what is none.

mod grammar;
mod schema;

use proptest::prelude::*;
use serde_json::{Map, json};

use super::*;
use crate::trigger::{Setting, TriggerKind};

#[test]
fn the_manifest_of_the_contract_is_read() {
    let manifest = Manifest::read(&counter()).unwrap();
    assert_eq!(manifest.name, "acme.counter");
    assert_eq!(manifest.version, "1.0.0");
    assert_eq!(manifest.title.as_str(), "Counter");
    assert_eq!(manifest.requires.knowledge, ["handbook"]);
    assert!(manifest.has_slot("git") && manifest.has_slot("handbook") && !manifest.has_slot("x"));
    assert_eq!(manifest.steps.len(), 2);
    assert_eq!(manifest.needed_by("two"), BTreeSet::from(["one"]));
    assert_eq!(manifest.output, Some(json!({ "cel": "steps.two.output.value" })));
    assert_eq!(Value::Object(manifest.canonical().clone()), counter());
}

#[test]
fn the_smallest_manifest_is_read_and_has_a_manual_trigger() {
    let manifest = Manifest::read(&small()).unwrap();
    let manual = TriggerSpec {
        key: "manual".to_owned(),
        kind: TriggerKind::Manual,
        configuration: Map::new(),
        setting: Setting::Manual,
    };
    assert_eq!(manifest.triggers, [manual]);
    assert_eq!(manifest.summary, "");
}

#[test]
fn a_manual_trigger_may_have_another_name() {
    let mut document = small();
    document["triggers"] = json!([{ "id": "go", "type": "manual" }]);
    let keys: Vec<_> = Manifest::read(&document)
        .unwrap()
        .triggers
        .into_iter()
        .map(|trigger| trigger.key)
        .collect();
    assert_eq!(keys, ["go"]);
}

#[test]
fn the_digest_does_not_depend_on_how_the_document_is_written() {
    let one: Value = serde_json::from_str(&small().to_string()).unwrap();
    let mut other = serde_json::Map::new();
    for (key, value) in small().as_object().unwrap().iter().rev() {
        other.insert(key.clone(), value.clone());
    }
    let digest = Manifest::read(&one).unwrap().digest();
    assert_eq!(digest, Manifest::read(&Value::Object(other)).unwrap().digest());
    assert_eq!(digest.as_str().len(), 64);

    let mut changed = small();
    changed["version"] = json!("1.0.1");
    assert_ne!(digest, Manifest::read(&changed).unwrap().digest());
}

#[test]
fn what_was_read_from_the_log_is_read_the_same() {
    let mut document = counter();
    document["config"]["properties"]["start"]["default"] = json!(1.0);
    let manifest = Manifest::read(&document).unwrap();
    let again = Manifest::read(&Value::Object(manifest.canonical().clone())).unwrap();
    assert_eq!(again, manifest);
    assert_eq!(manifest.check_config(None).unwrap(), json!({ "start": 1 }));
}

#[test]
fn steps_run_behind_what_they_need() {
    let step = |id: &str, needs: Value| json!({ "id": id, "type": "transform", "needs": needs });
    let mut document = small();
    document["steps"] = json!([
        step("d", json!(["b", "c"])),
        step("b", json!(["a"])),
        step("c", json!(["a"])),
        step("a", json!([])),
    ]);
    let manifest = Manifest::read(&document).unwrap();
    let order: Vec<_> = manifest.order().map(|step| step.id.as_str()).collect();
    assert_eq!(order, ["a", "b", "c", "d"]);
    assert_eq!(manifest.needed_by("d"), BTreeSet::from(["a", "b", "c"]));
}

#[test]
fn what_only_computes_is_told_from_what_does_not() {
    let light = |change: fn(&mut Value)| {
        let mut document = json!({
            "manifest": "prodgy.agent/1", "name": "test.light", "version": "1.0.0", "title": "Light",
            "steps": [
                { "id": "one", "type": "transform", "with": { "value": { "cel": "input" } } },
                { "id": "two", "type": "condition", "needs": ["one"],
                  "with": { "if": { "cel": "true" } } }
            ],
            "output": { "value": { "cel": "steps.one.output.value" } }
        });
        change(&mut document);
        Manifest::read(&document).expect("a manifest").only_computes()
    };
    assert!(light(|_| {}));
    assert!(!light(
        |it| it["steps"][1] = json!({ "id": "two", "type": "kb.search", "with": { "query": "x" } })
    ));
    assert!(!light(
        |it| it["steps"][1] = json!({ "id": "two", "type": "wait", "with": { "for": "1s" } })
    ));
    assert!(!light(|it| it["steps"][0]["retry"] = json!({ "attempts": 2 })));
    assert!(!light(|it| it["limits"] = json!({ "concurrency": { "max": 1 } })));
    // When it is asked for is known only when it is stored.
    assert!(!light(|it| it["output"] = json!({ "at": { "cel": "execution.created_at" } })));
    assert!(!light(|it| it["steps"][0]["when"] = json!("execution.id != ''")));
    assert!(!light(
        |it| it["steps"][0]["with"] = json!({ "value": [{ "template": "{{ execution }}" }] })
    ));
}

#[test]
fn input_and_configuration_are_checked_and_completed() {
    let manifest = Manifest::read(&counter()).unwrap();
    assert_eq!(manifest.check_input(Some(json!({ "n": 1 }))), Ok(json!({ "n": 1 })));
    let refused = manifest.check_input(None).unwrap_err();
    assert_eq!(refused.code, "input_invalid");
    assert_eq!(refused.faults[0].pointer, "/n");
    assert_eq!(manifest.check_config(None), Ok(json!({ "start": 0 })));
    let refused = manifest.check_config(Some(json!({ "start": "x" }))).unwrap_err();
    assert_eq!((refused.code, refused.faults[0].pointer.as_str()), ("config_invalid", "/start"));

    let free = Manifest::read(&small()).unwrap();
    assert_eq!(free.check_input(Some(json!([1]))), Ok(json!([1])));
    assert_eq!(free.check_input(None), Ok(json!({})));
}

#[test]
fn secret_configuration_is_known() {
    let mut document = small();
    document["config"] = json!({ "properties": { "token": { "secret": true }, "n": {} } });
    assert_eq!(secret_config_paths(Manifest::read(&document).unwrap().canonical()), ["/token"]);
    assert!(secret_config_paths(Manifest::read(&small()).unwrap().canonical()).is_empty());
}

#[test]
fn what_is_missing_is_told_all_at_once() {
    assert_eq!(
        faults(json!({})),
        [
            "/manifest field_missing",
            "/name field_missing",
            "/version field_missing",
            "/title field_missing",
            "/steps steps_count",
        ]
    );
    assert_eq!(faults(json!([])), [" type_mismatch"]);
}

/// The faults that a change to the manifest of the contract leads to.
type Case = (&'static [&'static str], fn(&mut Value));

#[test]
fn every_fault_is_told_with_its_place() {
    for (expected, change) in cases() {
        let mut document = counter();
        change(&mut document);
        assert_eq!(faults(document), expected);
    }
}

fn cases() -> Vec<Case> {
    fn step(document: &mut Value, field: &str, value: Value) {
        document["steps"][1][field] = value;
    }
    vec![
        (&["/manifest manifest_version_unknown"], |it| it["manifest"] = json!("prodgy.agent/2")),
        (&["/name name_invalid"], |it| it["name"] = json!("Acme Counter")),
        (&["/name name_invalid"], |it| it["name"] = json!("acme..counter")),
        (&["/name type_mismatch"], |it| it["name"] = json!(7)),
        (&["/version version_invalid"], |it| it["version"] = json!("1.0")),
        (&["/title title_invalid"], |it| it["title"] = json!(" ")),
        (&["/colour field_unknown"], |it| it["colour"] = json!("red")),
        (&["/summary type_mismatch"], |it| it["summary"] = json!(1)),
        (&["/config/properties/start/type schema_invalid"], |it| {
            it["config"]["properties"]["start"]["type"] = json!("int");
        }),
        (&["/inputs schema_invalid"], |it| it["inputs"] = json!("x")),
        (&["/requires type_mismatch"], |it| it["requires"] = json!([])),
        (&["/requires/tools field_unknown"], |it| it["requires"]["tools"] = json!([])),
        (&["/requires/knowledge type_mismatch"], |it| it["requires"]["knowledge"] = json!({})),
        (&["/requires/knowledge/0 type_mismatch"], |it| it["requires"]["knowledge"] = json!([1])),
        (&["/requires/knowledge/0/slot slot_duplicate"], |it| {
            it["requires"]["knowledge"][0]["slot"] = json!("git");
        }),
        (&["/requires/integrations/0/kinds kinds_empty"], |it| {
            it["requires"]["integrations"][0]["kinds"] = json!([]);
        }),
        (&["/requires/knowledge/0/slot id_invalid"], |it| {
            it["requires"]["knowledge"][0]["slot"] = json!("the handbook");
        }),
        (&["/triggers/0/type trigger_type_unknown"], |it| {
            it["triggers"] = json!([{ "id": "x", "type": "telepathy" }]);
        }),
        (&["/triggers/1/id trigger_id_duplicate"], |it| {
            it["triggers"] =
                json!([{ "id": "x", "type": "manual" }, { "id": "x", "type": "manual" }]);
        }),
        (&["/triggers/0/path field_unknown"], |it| it["triggers"][0]["path"] = json!("a")),
        (&["/steps steps_count"], |it| {
            it["steps"] = json!([]);
            it["output"] = json!(1);
        }),
        (&["/steps/1/type step_type_unknown"], |it| {
            step(it, "type", json!("llm.chat"));
            it["output"] = json!(1);
        }),
        (&["/steps/1/id step_id_duplicate"], |it| {
            step(it, "id", json!("one"));
            step(it, "needs", json!([]));
            it["output"] = json!(1);
        }),
        (&["/steps/1/colour field_unknown"], |it| step(it, "colour", json!(1))),
        (&["/steps/1/with type_mismatch"], |it| step(it, "with", json!([]))),
        (&["/steps/1/needs type_mismatch", "/steps/1/with/value/cel step_not_needed"], |it| {
            step(it, "needs", json!("one"));
        }),
        (&["/steps/1/needs/1 needs_unknown"], |it| step(it, "needs", json!(["one", "zero"]))),
        (&["/steps/1/needs/1 needs_duplicate"], |it| step(it, "needs", json!(["one", "one"]))),
        (&["/steps needs_cycle"], |it| it["steps"][0]["needs"] = json!(["two"])),
        (&["/steps needs_cycle"], |it| step(it, "needs", json!(["one", "two"]))),
        (&["/steps/1/with/value/cel cel_invalid"], |it| {
            step(it, "with", json!({ "value": { "cel": "1 +" } }));
        }),
        (&["/steps/1/with/value/template template_invalid"], |it| {
            step(it, "with", json!({ "value": { "template": "{{ 1" } }));
        }),
        (&["/output/cel step_not_needed"], |it| it["output"]["cel"] = json!("steps.three.output")),
    ]
}

#[test]
fn a_step_is_checked_by_its_kind() {
    let mut document = small();
    document["steps"] = json!([{ "id": "one", "type": "kb.search", "with": { "knowledge": "x" } }]);
    assert_eq!(
        faults(document),
        ["/steps/0/with/query field_missing", "/steps/0/with/knowledge slot_unknown"]
    );
}

#[test]
fn numbers_that_would_change_are_refused() {
    let mut document = small();
    document["config"] = json!({ "default": { "n": 9_007_199_254_740_993_u64 } });
    assert_eq!(faults(document), ["/config/default/n number_out_of_range"]);
}

#[test]
fn a_manifest_that_is_too_large_is_refused() {
    let mut document = small();
    document["summary"] = json!("x".repeat(MAX_BYTES));
    assert_eq!(faults(document), [" manifest_too_large"]);
}

#[test]
fn versions_are_those_of_semver() {
    for good in ["0.0.0", "1.2.3", "10.20.30", "1.0.0-alpha.1", "1.0.0-x-y.7+build.5", "1.0.0+a-b"]
    {
        assert!(is_semantic_version(good), "{good}");
    }
    for bad in
        ["", "1", "1.2", "1.2.3.4", "01.2.3", "1.2.x", "1.0.0-", "1.0.0-01", "1.0.0+", "v1.0.0"]
    {
        assert!(!is_semantic_version(bad), "{bad}");
    }
}

proptest! {
    #[test]
    fn no_document_makes_it_panic(path in 0_usize..12, junk in junk()) {
        let mut document = counter();
        let places = [
            "/manifest", "/name", "/version", "/config", "/inputs", "/requires",
            "/requires/knowledge", "/triggers", "/steps", "/steps/0", "/steps/1/needs", "/steps/1/with",
        ];
        *document.pointer_mut(places[path]).unwrap() = junk;
        let _ = Manifest::read(&document);
    }
}

fn junk() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(|float| json!(float)),
        "(one|two|id|type|cel|template|\\PC{0,6})".prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 24, 4, |inner| {
        let key = "(id|type|with|needs|slot|kinds|cel|template|\\$ref|properties|[a-z]{0,3})";
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::hash_map(key, inner, 0..4)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

fn faults(document: Value) -> Vec<String> {
    let faults = Manifest::read(&document).unwrap_err();
    faults.into_iter().map(|fault| format!("{} {}", fault.pointer, fault.code)).collect()
}

fn small() -> Value {
    json!({
        "manifest": "prodgy.agent/1", "name": "acme.small", "version": "1.0.0", "title": "Small",
        "steps": [{ "id": "one", "type": "transform" }],
    })
}

/// The example of the contract, with the one type of trigger that runs.
fn counter() -> Value {
    json!({
        "manifest": "prodgy.agent/1", "name": "acme.counter", "version": "1.0.0", "title": "Counter", "summary": "Adds twice",
        "config": { "type": "object", "properties": { "start": { "type": "integer", "default": 0 } } },
        "inputs": { "type": "object", "properties": { "n": { "type": "integer" } }, "required": ["n"] },
        "requires": { "integrations": [{ "slot": "git", "kinds": ["github"] }], "knowledge": [{ "slot": "handbook" }] },
        "triggers": [{ "id": "manual", "type": "manual" }],
        "steps": [
            { "id": "one", "type": "transform", "with": { "value": { "cel": "input.n + config.start" } } },
            { "id": "two", "type": "transform", "needs": ["one"], "with": { "value": { "cel": "steps.one.output.value + 1" } } },
        ],
        "output": { "cel": "steps.two.output.value" },
    })
}
