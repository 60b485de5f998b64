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
        mode: "vector",
        filters: Map::new(),
    };
    assert_eq!(call, expected);
}

#[test]
fn a_search_is_read_as_it_is_told() {
    let with = json!({ "query": "tea", "knowledge": "notes", "limit": 3, "min_score": 0.5,
                       "mode": "hybrid", "filters": { "source": ["wiki", "mail"], "from": "2026-01-31T09:00:00Z", "to": null } });
    let expected = StepCall::KnowledgeSearch {
        query: "tea".to_owned(),
        knowledge: Some("notes".to_owned()),
        limit: 3,
        min_score: Some(0.5),
        mode: "hybrid",
        filters: Map::from_iter([
            ("source".to_owned(), json!(["wiki", "mail"])),
            ("from".to_owned(), json!("2026-01-31T09:00:00Z")),
        ]),
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
    let filters =
        json!({ "source": 1, "tags": "a", "file_id": "x", "from": "yesterday", "size": 2 });
    assert_eq!(
        faults(
            StepKind::KnowledgeSearch,
            json!({ "query": "x", "mode": "guess", "filters": filters })
        ),
        [
            "/mode choice_unknown",
            "/filters/file_id type_mismatch",
            "/filters/from time_invalid",
            "/filters/size field_unknown",
            "/filters/source type_mismatch",
            "/filters/tags type_mismatch",
        ]
    );
    let scored = |mode: &str| json!({ "query": "x", "mode": mode, "min_score": 12.5 });
    assert_eq!(faults(StepKind::KnowledgeSearch, scored("vector")), ["/min_score out_of_range"]);
    assert!(parse(StepKind::KnowledgeSearch, scored("full_text")).is_ok());
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
fn an_answer_is_read_as_it_is_told() {
    let with = json!({
        "question": "How long?", "system": "Be brief", "model": "small", "temperature": 0.5,
        "max_tokens": 100, "schema": { "type": "object" },
        "context": ["Thirty days.", { "text": "Or sixty.", "file_name": "faq.md" }],
    });
    let StepCall::Answer(call) = parse(StepKind::Answer, with).unwrap() else { panic!() };
    assert_eq!(call.task, Task::Question("How long?".to_owned()));
    assert_eq!(call.context[0], Passage { text: "Thirty days.".to_owned(), about: Map::new() });
    assert_eq!(call.context[1].text, "Or sixty.");
    assert_eq!(json!(call.context[1].about), json!({ "file_name": "faq.md" }));
    assert_eq!((call.temperature, call.max_tokens), (Some(0.5), Some(100)));
    let call = parse(StepKind::Answer, json!({ "prompt": "Sing", "question": null })).unwrap();
    let StepCall::Answer(call) = call else { panic!() };
    assert_eq!(call.task, Task::Prompt("Sing".to_owned()));
    assert!(call.context.is_empty() && call.schema.is_none());
}

#[test]
fn a_request_is_read_with_its_defaults() {
    let request = |with| match parse(StepKind::HttpRequest, with) {
        Ok(StepCall::HttpRequest(call)) => *call,
        other => panic!("{other:?}"),
    };
    let call = request(json!({ "url": "https://example.com/a" }));
    assert_eq!((call.method, call.body, call.response), (Method::Get, None, ReadAs::Auto));
    assert_eq!((call.max_bytes, call.redirects), (DEFAULT_BYTES, DEFAULT_REDIRECTS));
    assert!(call.expect.contains(200) && call.expect.contains(299));
    assert!(!call.expect.contains(199) && !call.expect.contains(301));

    let call = request(json!({ "url": "http://127.0.0.1:8080", "json": { "a": 1 } }));
    assert_eq!((call.method, call.body), (Method::Post, Some(Body::Json(json!({ "a": 1 })))));
    let call = request(json!({
        "url": "https://example.com?x=1", "method": "PUT", "body": "hello", "expect": [404, "5xx"],
        "headers": { "X-A": 7, "X-B": true, "X-C": null }, "query": { "b": [1, "two"], "a": "x" },
    }));
    let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    assert_eq!((call.method, call.body), (Method::Put, Some(Body::Text("hello".to_owned()))));
    assert_eq!(call.headers, [pair("X-A", "7"), pair("X-B", "true")]);
    assert_eq!(call.query, [pair("a", "x"), pair("b", "1"), pair("b", "two")]);
    assert!(call.expect.contains(404) && call.expect.contains(503) && !call.expect.contains(200));
}

#[test]
fn a_condition_comes_to_true_or_false() {
    let condition = |with| parse(StepKind::Condition, with).map_err(codes);
    assert_eq!(condition(json!({ "if": true })), Ok(StepCall::Condition { value: true }));
    assert_eq!(condition(json!({ "if": 1 })), Err(vec!["/if type_mismatch".to_owned()]));
    assert_eq!(condition(json!({})), Err(vec!["/if field_missing".to_owned()]));
}

#[test]
fn a_wait_is_for_a_length_of_time_or_until_a_time() {
    let wait = |with| parse(StepKind::Wait, with).map_err(codes);
    let minutes = StepCall::Wait(Wait::For(Duration::from_secs(300)));
    assert_eq!(wait(json!({ "for": "5m" })), Ok(minutes));
    let Ok(StepCall::Wait(Wait::Until(time))) =
        wait(json!({ "until": "2026-03-01T12:00:00+02:00" }))
    else {
        panic!()
    };
    assert_eq!(time.to_string(), "2026-03-01T10:00:00.000000Z");
    assert_eq!(wait(json!({ "for": "400d" })), Err(vec!["/for duration_out_of_range".to_owned()]));
    assert_eq!(wait(json!({ "until": "noon" })), Err(vec!["/until time_invalid".to_owned()]));
}

#[test]
fn what_looks_like_an_expression_when_a_step_runs_is_data() {
    let with = json!({ "url": "https://example.com", "json": { "cel": "1 +" } });
    let Ok(StepCall::HttpRequest(call)) = parse(StepKind::HttpRequest, with) else { panic!() };
    assert_eq!(call.body, Some(Body::Json(json!({ "cel": "1 +" }))));
    let with = json!({ "query": { "cel": "1" } });
    assert_eq!(
        codes(parse(StepKind::KnowledgeSearch, with).unwrap_err()),
        ["/query type_mismatch"]
    );
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

#[test]
fn a_call_of_an_integration_is_told_what_its_operation_takes() {
    let call = |with: Value| {
        StepCall::parse(StepKind::IntegrationCall, with.as_object().cloned().unwrap())
    };
    // A list of none is what an expression comes to that finds none: as good as left out.
    let told = call(
        json!({ "slot": "git", "operation": "create_issue", "title": "t", "body": null, "labels": [] }),
    );
    let Ok(StepCall::Integration(told)) = told else { panic!("{told:?}") };
    assert_eq!(told.target, Target::Slot("git".to_owned()));
    assert_eq!(told.operation.name, "create_issue");
    assert_eq!(Value::Object(told.arguments), json!({ "title": "t" }));

    let faults = |with: Value| -> Vec<String> {
        let faults = call(with).unwrap_err().into_iter();
        faults.map(|fault| format!("{} {}", fault.pointer, fault.code)).collect()
    };
    assert_eq!(
        faults(json!({ "operation": "create_issue", "titel": "t" })),
        ["/slot target_unclear", "/titel argument_unknown", "/title argument_missing"]
    );
    assert_eq!(
        faults(json!({ "slot": "a", "integration": "b", "operation": "fly" })),
        ["/integration target_unclear", "/operation operation_unknown"]
    );
    assert_eq!(
        faults(
            json!({ "integration": "b", "operation": "send_mail", "to": [], "subject": "", "text": 1 })
        ),
        [
            "/integration target_unclear",
            "/to argument_missing",
            "/subject argument_mismatch",
            "/text argument_mismatch"
        ]
    );
    // What an expression comes to is not judged before.
    let with = json!({ "slot": "git", "operation": "list_commits", "limit": { "cel": "1" }, "ref": { "template": "x" } });
    assert!(super::check(StepKind::IntegrationCall, with.as_object().unwrap(), &[]).is_empty());
    let with = json!({ "slot": { "cel": "1" }, "operation": { "cel": "1" } });
    let faults = super::check(StepKind::IntegrationCall, with.as_object().unwrap(), &[]);
    let codes: Vec<_> = faults.iter().map(|fault| fault.code).collect();
    assert_eq!(codes, ["target_unclear", "operation_unknown"]);
}
