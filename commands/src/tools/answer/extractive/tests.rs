//! Answers found with the real model.

use std::path::PathBuf;
use std::sync::LazyLock;

use domain::step::{StepCall, StepKind};
use embeddings::Model;
use serde_json::Map;

use super::*;

static EMBEDDER: LazyLock<Embedder> = LazyLock::new(|| {
    let named = std::env::var_os("PRODGY_MODEL_DIR").map(PathBuf::from);
    let directory = named.unwrap_or_else(|| {
        PathBuf::from(std::env::var("CARGO_MANIFEST_DIR").unwrap())
            .join("../models/all-MiniLM-L6-v2")
    });
    Embedder::new(Model::load(&directory).unwrap(), 1)
});

const LEAVE: &str = "# Parental leave\n\nEmployees are entitled to 18 weeks of paid parental leave. It can be taken \
                     in one block or in several\nparts within the first two years. Dr. Weber in the people team \
                     approves parental leave.";
const OFFICE: &str = "The office in Madrid opens at eight. The kitchen is on the second floor. Who is the landlord? \
                      Plants are watered on Fridays.";
const EXPENSES: &str = "| rule | amount |\n| --- | --- |\n| Hotel costs are refunded up to | 140 euros a night |\n\n\
                        - Train tickets are refunded in full.\n- Taxis need the approval of a manager.";

fn call(with: Value) -> AnswerCall {
    let with: Map<String, Value> = serde_json::from_value(with).unwrap();
    match StepCall::parse(StepKind::Answer, with) {
        Ok(StepCall::Answer(call)) => *call,
        other => panic!("{other:?}"),
    }
}

async fn ask(with: Value) -> Result<Value, ToolError> {
    let (_sender, embedder) = watch::channel(Some(EMBEDDER.clone()));
    Extractive::new(embedder).answer(&call(with)).await
}

async fn answer(question: &str, context: Value) -> Value {
    ask(json!({ "question": question, "context": context })).await.unwrap()
}

#[tokio::test]
async fn a_question_is_answered_by_the_sentences_closest_to_it_each_with_its_source() {
    let leave = json!({ "text": LEAVE, "file_name": "leave.md", "chunk_index": 2, "score": 0.7 });

    let output = answer("How long is parental leave?", json!([OFFICE, leave, EXPENSES])).await;

    let text = output["answer"].as_str().unwrap();
    let first = "Employees are entitled to 18 weeks of paid parental leave. [2]";
    assert!(text.starts_with(first), "{text}");
    assert!(!text.contains('#') && !text.contains("kitchen"), "{text}");
    let citation = json!({ "number": 2, "text": LEAVE, "file_name": "leave.md", "chunk_index": 2, "score": 0.7 });
    assert_eq!(output["citations"], json!([citation]));
    assert_eq!(output["model"], "extractive");
    assert_eq!(output["metadata"]["language_model"], false);
    assert_eq!(output["usage"]["total_tokens"], 0);
}

#[tokio::test]
async fn a_sentence_is_quoted_whole_across_lines_abbreviations_and_cells() {
    let who = answer("Who approves parental leave?", json!([LEAVE])).await;
    let hotel = answer("What does the company pay for a hotel?", json!([EXPENSES])).await;

    let who = who["answer"].as_str().unwrap();
    assert!(who.contains("Dr. Weber in the people team approves parental leave. [1]"), "{who}");
    let hotel = hotel["answer"].as_str().unwrap();
    assert!(hotel.contains("Hotel costs are refunded up to 140 euros a night [1]"), "{hotel}");
    let parts = sentences(&blocks(LEAVE).join(" "));
    assert_eq!(
        parts[1],
        "It can be taken in one block or in several parts within the first two years."
    );
}

#[tokio::test]
async fn what_is_in_several_passages_is_told_in_their_order_and_once() {
    let context = json!([
        "The kitchen is on the second floor.",
        "Train tickets are refunded in full. Train tickets are refunded in full.",
        "For taxis, refunds need the approval of a manager.",
        "Train tickets are refunded in full.",
    ]);

    let output = answer("How are train tickets and taxis refunded?", context).await;

    let text = output["answer"].as_str().unwrap();
    assert_eq!(
        text,
        "Train tickets are refunded in full. [2] For taxis, refunds need the approval of a manager. [3]"
    );
    let numbers: Vec<_> = output["citations"]
        .as_array()
        .unwrap()
        .iter()
        .map(|citation| &citation["number"])
        .collect();
    assert_eq!(numbers, [2, 3]);
}

#[tokio::test]
async fn nothing_close_to_the_question_is_said_honestly() {
    let passages = json!([OFFICE, LEAVE]);
    for (question, context) in [
        ("What is the boiling point of tungsten?", &passages),
        ("What is the capital of France?", &passages),
        ("How do I reset my password?", &passages),
        // Another question is not taken for an answer.
        (
            "Who is the landlord of the office in Lyon?",
            &json!(["Who is the landlord of the office in Lyon?"]),
        ),
        ("How long is parental leave?", &json!([])),
        ("How long is parental leave?", &json!(["", "# Parental leave", "  \n", "…"])),
    ] {
        let output = answer(question, context.clone()).await;

        assert_eq!(output["answer"], NOTHING_FOUND, "{question}");
        assert_eq!(output["citations"], json!([]));
        assert_eq!(output["metadata"]["sentences"], 0);
    }
}

#[tokio::test]
async fn a_context_without_bounds_is_read_within_bounds() {
    let noise = "The kitchen is on the second floor of the house. ".repeat(3_000);
    let endless = "word ".repeat(2_000);
    let context = json!([noise, endless, LEAVE]);

    let output = answer("How many weeks of parental leave are there?", context.clone()).await;

    let text = output["answer"].as_str().unwrap();
    assert!(text.contains("18 weeks of paid parental leave. [3]"), "{text}");
    let AnswerCall { context, .. } = call(json!({ "question": "leave", "context": context }));
    let candidates = candidates("How many weeks of leave are there?", &context);
    assert_eq!(candidates.len(), COMPARED);
    assert!(candidates.iter().all(|sentence| sentence.text.chars().count() <= LONGEST));
}

#[tokio::test]
async fn what_needs_a_language_model_says_how_to_configure_one() {
    let schema = json!({ "question": "How many?", "schema": { "type": "object" } });
    for with in [json!({ "prompt": "Write a poem." }), schema] {
        let error = ask(with).await.unwrap_err();

        assert_eq!((error.code.as_str(), error.is_passing), ("llm_not_configured", false));
        for setting in ["llm_url", "llm_model", "PRODGY_LLM_API_KEY"] {
            assert!(error.message.contains(setting), "{error}");
        }
    }
}

#[tokio::test]
async fn without_the_embedding_model_it_may_work_later() {
    let (sender, embedder) = watch::channel(None);
    let extractive = Extractive::new(embedder);
    let asked = call(json!({ "question": "How long is parental leave?", "context": [LEAVE] }));

    let error = extractive.answer(&asked).await.unwrap_err();
    sender.send_replace(Some(EMBEDDER.clone()));
    let output = extractive.answer(&asked).await.unwrap();

    assert_eq!((error.code.as_str(), error.is_passing), ("model_missing", true));
    assert_eq!(output["citations"][0]["number"], 1);
}
