//! Answers found with the real model.

use std::path::PathBuf;
use std::sync::LazyLock;

use domain::step::{StepCall, StepKind};
use embeddings::Model;
use serde_json::Map;

use super::*;

static EMBEDDER: LazyLock<Embedder> =
    LazyLock::new(|| Embedder::new(Model::load(&model_directory()).unwrap(), 1));

fn model_directory() -> PathBuf {
    let named = std::env::var_os("PRODGY_MODEL_DIR").map(PathBuf::from);
    named.unwrap_or_else(|| {
        PathBuf::from(std::env::var("CARGO_MANIFEST_DIR").unwrap())
            .join("../models/all-MiniLM-L6-v2")
    })
}

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

/// The same weights, used in another manner: another model, which calls texts near that the first calls far.
static OTHER: LazyLock<Embedder> = LazyLock::new(|| {
    let folder = tempfile::tempdir().unwrap();
    for file in ["config.json", "tokenizer.json", "model.safetensors"] {
        std::fs::copy(model_directory().join(file), folder.path().join(file)).unwrap();
    }
    std::fs::create_dir(folder.path().join("1_Pooling")).unwrap();
    let pooling = r#"{ "pooling_mode_cls_token": true, "pooling_mode_mean_tokens": false }"#;
    std::fs::write(folder.path().join("1_Pooling/config.json"), pooling).unwrap();
    Embedder::new(Model::load(folder.path()).unwrap(), 1)
});

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
    let text = |block: Block| match block {
        Block::Text(text) => text,
        Block::Row(row) => panic!("there is no table: {row}"),
    };
    let blocks: Vec<String> = blocks(LEAVE, None).into_iter().map(text).collect();
    let parts = sentences(&blocks.join(" "));
    assert_eq!(
        parts[1],
        "It can be taken in one block or in several parts within the first two years."
    );
}

#[tokio::test]
async fn a_row_is_quoted_with_its_header_where_its_cells_alone_say_nothing() {
    let rows = "| Ada Lovelace | 12 | starboard |\n| Grace Hopper | 31 | port |\n";
    let far = json!({ "text": rows, "file_name": "crew.md",
                      "metadata": { "table_header": "| Seafarer | Cabin \\| bunk | Watch |" } });
    let near = format!("| Seafarer | Cabin | Watch |\n| --- | --- | --- |\n{rows}");

    for (context, cabin) in
        [(json!([OFFICE, far]), "Cabin | bunk"), (json!([OFFICE, near]), "Cabin")]
    {
        let output = answer("In which cabin does Grace Hopper sleep?", context).await;
        let text = output["answer"].as_str().unwrap();
        let row = format!("Seafarer: Grace Hopper; {cabin}: 31; Watch: port [2]");
        assert!(text.contains(&row), "{text}");
        assert!(!text.contains("kitchen"), "{text}");
    }
    // What is behind the table is no row of it, and what has no header stands as it is.
    let text = "| a | 1 |\n\nThe end.";
    let found = blocks(text, Some("| x | y |"));
    let row = Block::Row("x: a; y: 1".to_owned());
    assert!(
        found.contains(&row) && found.contains(&Block::Text("The end.".to_owned())),
        "{found:?}"
    );
    assert!(blocks(text, None).contains(&Block::Text("| a | 1 |".to_owned())));
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

#[tokio::test]
async fn what_is_called_by_a_number_is_answered_by_what_is_said_of_that_number() {
    let codes = "E4711: the pump is blocked, clean the filter. E4712: the heater is too hot, wait an hour. \
                 E4713: the door of the heater stands open.";
    for (question, code, others) in [
        ("What does error code E4711 of the heater mean?", "E4711", ["E4712", "E4713"]),
        ("error code e4713", "E4713", ["E4711", "E4712"]),
    ] {
        let output = answer(question, json!([codes, OFFICE])).await;
        let text = output["answer"].as_str().unwrap();
        assert!(text.contains(code), "{question} {text}");
        assert!(others.iter().all(|other| !text.contains(other)), "{question} {text}");
    }
    // A number alone makes nothing of it that has nothing to do with the question.
    let output = answer(
        "How many weeks of parental leave were there in 2024?",
        json!([LEAVE, "Plants were watered in 2024."]),
    )
    .await;
    assert!(!output["answer"].as_str().unwrap().contains("Plants"), "{output}");
    assert!(output["answer"].as_str().unwrap().contains("18 weeks"), "{output}");
}

#[tokio::test]
async fn a_question_that_says_nothing_alone_is_answered_with_the_one_before() {
    let (_sender, embedder) = watch::channel(Some(EMBEDDER.clone()));
    let model = Extractive::new(embedder);
    let before = [Turn { role: Role::User, text: "How long is parental leave?".to_owned() }];
    let told = async |question: &str, before: &[Turn]| {
        let call = call(json!({ "question": question, "context": [LEAVE, OFFICE] }));
        let (pieces, _) = mpsc::channel(1);
        let output = model.answer_in_pieces(&call, before, pieces).await.unwrap();
        output["answer"].as_str().unwrap().to_owned()
    };
    assert_eq!(told("And why?", &[]).await, NOTHING_FOUND);
    assert!(told("And why?", &before).await.contains("18 weeks"));
    let office = told("And the kitchen?", &before).await;
    assert!(office.contains("second floor") && !office.contains("leave"), "{office}");
}

#[tokio::test]
async fn another_model_cites_nothing_that_is_far_by_its_own_measure() {
    let (_sender, embedder) = watch::channel(Some(OTHER.clone()));
    let model = Extractive::new(embedder);
    let near = OTHER.near().await.unwrap();
    assert!(near > LEAST, "what is unrelated to it would be cited: {near}");
    let told = async |question: &str| {
        let call = call(json!({ "question": question, "context": [LEAVE, OFFICE, EXPENSES] }));
        model.answer(&call).await.unwrap()["answer"].as_str().unwrap().to_owned()
    };
    for unrelated in ["Which planet has the most moons?", "How did the final of the cup end?"] {
        assert_eq!(told(unrelated).await, NOTHING_FOUND);
    }
    assert!(
        told("How many weeks of paid parental leave are employees entitled to?")
            .await
            .contains("18 weeks")
    );
}

#[test]
fn closeness_is_measured_on_one_scale_for_all_models() {
    for cosine in [-0.2, 0.0, 0.35, 0.93, 1.0] {
        assert!(
            (scaled(cosine, NEAR) - cosine).abs() < 1e-6,
            "nothing changes for the default model"
        );
    }
    let near_of_e5 = 0.8;
    assert!((scaled(near_of_e5, near_of_e5) - NEAR).abs() < 1e-6);
    assert!((scaled(1.0, near_of_e5) - 1.0).abs() < 1e-6);
    assert!(scaled(0.75, near_of_e5) < LEAST && scaled(0.9, near_of_e5) > LEAST);
}
