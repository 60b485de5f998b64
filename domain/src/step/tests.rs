//! What each kind of step takes.

use serde_json::json;

use super::*;

#[test]
fn a_search_is_read_with_its_defaults() {
    let call = parse(StepKind::KnowledgeSearch, json!({ "query": "tea" })).unwrap();
    let expected = StepCall::KnowledgeSearch {
        query: "tea".to_owned(),
        knowledge: None,
        limit: DEFAULT_PASSAGES,
        min_score: None,
    };
    assert_eq!(call, expected);
}

#[test]
fn a_search_is_read_as_it_is_told() {
    let with = json!({ "query": "tea", "knowledge": "notes", "limit": 3, "min_score": 0.5 });
    let expected = StepCall::KnowledgeSearch {
        query: "tea".to_owned(),
        knowledge: Some("notes".to_owned()),
        limit: 3,
        min_score: Some(0.5),
    };
    assert_eq!(parse(StepKind::KnowledgeSearch, with), Ok(expected));
}

#[test]
fn what_an_expression_left_empty_is_as_if_it_were_not_there() {
    let with = json!({ "query": "tea", "limit": null, "min_score": null, "knowledge": null });
    assert!(parse(StepKind::KnowledgeSearch, with).is_ok());
}

#[test]
fn every_fault_of_a_step_is_told() {
    let faults = |kind, with| codes(parse(kind, with).unwrap_err());
    assert_eq!(
        faults(StepKind::KnowledgeSearch, json!({ "limit": 0, "min_score": 2, "other": 1 })),
        [
            "/query field_missing",
            "/limit out_of_range",
            "/min_score out_of_range",
            "/other field_unknown"
        ]
    );
    assert_eq!(faults(StepKind::KnowledgeSearch, json!({ "query": 7 })), ["/query type_mismatch"]);
    assert_eq!(faults(StepKind::KnowledgeSearch, json!({ "query": " " })), ["/query text_empty"]);
    assert_eq!(
        faults(StepKind::KnowledgeSearch, json!({ "query": "x", "limit": 2.5 })),
        ["/limit out_of_range"]
    );
    assert_eq!(
        faults(StepKind::KnowledgeIngest, json!({ "title": "t", "tags": ["a", 1] })),
        ["/text field_missing", "/tags type_mismatch"]
    );
}

#[test]
fn transform_takes_everything() {
    let with = json!({ "anything": [1, { "deep": null }] });
    let output = with.as_object().unwrap().clone();
    assert_eq!(parse(StepKind::Transform, with), Ok(StepCall::Transform { output }));
}

#[test]
fn what_is_computed_is_not_judged_before_it_runs() {
    let check = |with: Value| {
        let slots = ["notes".to_owned()];
        codes(super::check(StepKind::KnowledgeSearch, with.as_object().unwrap(), &slots))
    };
    let computed = json!({ "cel": "input.x" });
    assert!(
        check(json!({ "query": computed, "limit": computed, "knowledge": "notes" })).is_empty()
    );
    assert_eq!(check(json!({ "query": computed, "limit": "five" })), ["/limit out_of_range"]);
    assert_eq!(check(json!({ "query": "x", "other": computed })), ["/other field_unknown"]);
    assert_eq!(check(json!({ "query": "x", "knowledge": "other" })), ["/knowledge slot_unknown"]);
    assert_eq!(check(json!({ "query": "x", "knowledge": computed })), ["/knowledge type_mismatch"]);
    assert_eq!(check(json!({})), ["/query field_missing"]);
}

#[test]
fn every_kind_is_read_as_it_is_written() {
    for kind in StepKind::ALL {
        assert_eq!(StepKind::parse(kind.as_str()), Some(kind));
    }
    assert_eq!(StepKind::parse("kb.forget"), None);
}

fn parse(kind: StepKind, with: Value) -> Result<StepCall, Vec<Fault>> {
    StepCall::parse(kind, with.as_object().unwrap().clone())
}

fn codes(faults: Vec<Fault>) -> Vec<String> {
    faults.into_iter().map(|fault| format!("{} {}", fault.pointer, fault.code)).collect()
}
