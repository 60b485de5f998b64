//! What is delivered is valid, and does what it says.

use serde_json::{Value, json};

use super::*;
use crate::expression::{Scope, evaluate};
use crate::step::{DuplicateOf, StepCall};

#[test]
fn every_manifest_is_valid_and_search_comes_first() {
    let names: Vec<_> = catalogue().iter().map(|manifest| manifest.name.as_str()).collect();
    assert_eq!(
        names,
        [
            "prodgy.search",
            "prodgy.remember",
            "prodgy.digest",
            "prodgy.answer",
            "prodgy.watch",
            "prodgy.links",
            "prodgy.triage",
            "prodgy.release-notes",
            "prodgy.tasks",
            "prodgy.alarm",
            "prodgy.issue",
            "prodgy.news",
        ]
    );
}

#[test]
fn what_was_delivered_under_a_version_stays_what_it_is() {
    let digests: Vec<_> =
        catalogue().iter().chain(&*OLDER_VERSIONS).map(|manifest| manifest.digest()).collect();
    let short: Vec<_> = digests.iter().map(|digest| &digest.as_str()[..8]).collect();
    assert_eq!(
        short,
        [
            "9770aebb", "0f992819", "f01a7aaf", "5c68e003", "48f86865", "ecf3fb5d", "64dfb3e4",
            "66742e55", "c453142a", "d7f72d23", "27573cf2", "f4b27689", "88792492", "10d0fe9f",
            "1c608ea6", "ae16fbfa"
        ]
    );
}

#[test]
fn every_one_has_an_example_that_it_takes() {
    for manifest in catalogue() {
        let example = example(&manifest.name).expect("an example").clone();
        let inputs = manifest.inputs.as_ref().expect("it says what it works on");
        assert!(inputs.complete(example.clone()).is_ok(), "{}: {example}", manifest.name);
    }
    assert_eq!(EXAMPLES.len(), catalogue().len(), "there is none of what is gone");
}

#[test]
fn a_manifest_is_found_by_name_and_version() {
    assert!(find("prodgy.search", None).is_some());
    assert!(find("prodgy.search", Some("1.0.0")).is_some());
    assert!(find("prodgy.search", Some("9.9.9")).is_none());
    let version = |wanted| find("prodgy.digest", wanted).map(|found| found.version.as_str());
    assert_eq!(version(None), Some("1.1.0"));
    assert_eq!(version(Some("1.0.0")), Some("1.0.0"), "an earlier one is there for who names it");
    assert!(find("prodgy.nothing", None).is_none());
}

#[test]
fn search_answers_with_the_passages_it_found() {
    let output = run("prodgy.search", json!({ "query": "how long?", "other": true }), passages());
    assert_eq!(output["found"], 2);
    assert_eq!(output["passages"], passages()["passages"]);
    assert_eq!(output["answer"], "Thirty days.\n— terms.md\n\nOr sixty.\n— faq.md\n\n");
}

#[test]
fn search_says_so_when_it_found_nothing() {
    let output = run("prodgy.search", json!({ "query": "how long?" }), json!({ "passages": [] }));
    assert_eq!(output["answer"], "Nothing in the knowledge base answers this.");
    assert_eq!(output["found"], 0);
}

#[test]
fn search_takes_the_limit_of_the_input_before_that_of_the_configuration() {
    let limit = |input: Value| match first_call("prodgy.search", input) {
        StepCall::KnowledgeSearch { limit, .. } => limit,
        other => panic!("{other:?}"),
    };
    assert_eq!(limit(json!({ "query": "x" })), 5);
    assert_eq!(limit(json!({ "query": "x", "limit": 7 })), 7);
}

#[test]
fn remember_makes_a_note_of_title_and_text() {
    let call = first_call("prodgy.remember", json!({ "title": " Tea ", "text": "Four minutes." }));
    assert_eq!(
        call,
        StepCall::KnowledgeIngest {
            title: " Tea ".to_owned(),
            text: "# Tea\n\nFour minutes.\n".to_owned(),
            knowledge: Some("notes".to_owned()),
            tags: vec![],
            duplicate_of: DuplicateOf::Any,
        }
    );
}

#[test]
fn digest_numbers_its_sources() {
    let output = run("prodgy.digest", json!({ "topic": "Returns" }), passages());
    assert_eq!(
        output["markdown"],
        "# Returns\n\nThirty days. [1]\n\nOr sixty. [2]\n\n## Sources\n\n1. terms.md, part 1\n2. faq.md, part 4\n"
    );
    assert_eq!(
        output["citations"][1],
        json!({ "file_id": "f2", "file_name": "faq.md", "chunk_index": 3, "score": 0.5 })
    );
}

#[test]
fn digest_says_so_when_it_found_nothing() {
    let output = run("prodgy.digest", json!({ "topic": "Tea" }), json!({ "passages": [] }));
    assert_eq!(output["markdown"], "# Tea\n\nThe knowledge base says nothing about this.\n");
}

#[test]
fn digest_looks_for_what_is_new_where_it_is_asked_to() {
    let manifest = find("prodgy.digest", None).unwrap();
    let since = |input: Value, days: u32| {
        let mut scope = begin(manifest, input);
        scope.config["days"] = json!(days);
        scope.execution = json!({ "created_at": "2026-03-02T09:00:00.000000Z" });
        let step = manifest.order().next().unwrap();
        let with = evaluate(&Value::Object(step.with.clone()), &scope).unwrap();
        match StepCall::parse(step.kind, with.as_object().unwrap().clone()).unwrap() {
            StepCall::KnowledgeSearch { filters, .. } => filters.get("from").cloned(),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(since(json!({ "topic": "Returns" }), 0), None);
    let asked = json!({ "topic": "Returns", "since": "2026-03-01T00:00:00+01:00" });
    assert_eq!(since(asked, 7), Some(json!("2026-03-01T00:00:00+01:00")));
    let week = since(json!({ "topic": "Returns" }), 7).unwrap();
    assert!(week.as_str().unwrap().starts_with("2026-02-23T09:00:00"), "{week}");
}

fn passages() -> Value {
    json!({ "passages": [
        { "file_id": "f1", "file_name": "terms.md", "chunk_index": 0, "text": "Thirty days.\n", "score": 0.75, "char_start": 0, "char_end": 13 },
        { "file_id": "f2", "file_name": "faq.md", "chunk_index": 3, "text": "Or sixty.", "score": 0.5, "char_start": 90, "char_end": 99 },
    ] })
}

/// Runs a manifest as the run time does, with `found` as what its knowledge base answers.
fn run(name: &str, input: Value, found: Value) -> Value {
    let manifest = find(name, None).unwrap();
    let mut scope = begin(manifest, input);
    for step in manifest.order() {
        let with = evaluate(&Value::Object(step.with.clone()), &scope).unwrap();
        let output = match StepCall::parse(step.kind, with.as_object().unwrap().clone()).unwrap() {
            StepCall::Transform { output } => Value::Object(output),
            StepCall::KnowledgeSearch { .. } | StepCall::KnowledgeIngest { .. } => found.clone(),
            other => panic!("nothing of the catalogue does this: {other:?}"),
        };
        scope.steps.insert(step.id.clone(), output);
    }
    evaluate(manifest.output.as_ref().unwrap(), &scope).unwrap()
}

fn first_call(name: &str, input: Value) -> StepCall {
    let manifest = find(name, None).unwrap();
    let step = manifest.order().next().unwrap();
    let with = evaluate(&Value::Object(step.with.clone()), &begin(manifest, input)).unwrap();
    StepCall::parse(step.kind, with.as_object().unwrap().clone()).unwrap()
}

fn begin(manifest: &Manifest, input: Value) -> Scope {
    Scope {
        input: manifest.check_input(Some(input)).unwrap(),
        config: manifest.check_config(None).unwrap(),
        ..Scope::default()
    }
}
