//! Evaluating a knowledge base: real questions, on the real model, kept and listed.

use serde_json::{Value, json};

use crate::support::{Product, TestApp};

const TEXTS: [(&str, &str); 4] = [
    ("holidays.txt", "Employees may take twenty-five days of paid leave each year."),
    ("backups.txt", "The database is copied to another data centre every night at two."),
    ("coffee.txt", "Fresh coffee beans are bought on Mondays by whoever drank the last cup."),
    ("parking.txt", "Bicycles stand behind the house, cars in the garage below it."),
];

/// A product with some files, by their names.
async fn filled(app: &TestApp) -> (Product, Vec<String>) {
    let product = app.product().await;
    let mut files = Vec::new();
    for (name, text) in TEXTS {
        files.push(app.text_file(&product, name, text).await);
    }
    for file in &files {
        app.wait_ready(file).await;
    }
    (product, files)
}

fn evaluate(product: &Product) -> String {
    format!("/api/knowledge-base/{}/evaluate", product.knowledge_base)
}

fn evaluations(product: &Product) -> String {
    format!("/api/knowledge-base/{}/evaluations", product.knowledge_base)
}

fn questions(files: &[String]) -> Value {
    json!([
        { "query": "How much vacation do I get?", "expected": [files[0]] },
        { "query": "Where do I leave my bike?", "expected": [files[3]] },
    ])
}

#[tokio::test]
async fn what_is_asked_is_scored_kept_and_listed() {
    let app = TestApp::spawn().await;
    let (product, files) = filled(&app).await;
    let body = json!({ "questions": questions(&files), "k": 3 });
    let made = app.post(&evaluate(&product), body).await.expect_status(201);
    let made = made.data();
    assert_eq!(made["metrics"], json!({ "ndcg": 1.0, "recall": 1.0, "mrr": 1.0 }), "{made}");
    assert_eq!(
        (&made["k"], &made["question_count"], &made["file_count"]),
        (&json!(3), &json!(2), &json!(4))
    );
    assert_eq!(made["mode"], "vector");
    assert!(made["requested_by"].as_str().unwrap().starts_with("user:"), "{made}");
    assert_eq!(made["generation"]["model"], "all-MiniLM-L6-v2");
    assert_eq!(made["generation"]["model_revision"].as_str().unwrap().len(), 64);
    let (p50, max) = (&made["latency"]["p50_ms"], &made["latency"]["max_ms"]);
    assert!(p50.as_f64().unwrap() > 0.0 && p50.as_f64() <= max.as_f64(), "{made}");
    let first = &made["questions"][0];
    assert_eq!(first["query"], "How much vacation do I get?");
    assert_eq!(first["found"][0], json!(files[0]));
    assert_eq!(first["found"].as_array().unwrap().len(), 3, "as many files as were looked at");

    // By words, nothing of a bike stands anywhere; of vacation neither.
    let body = json!({ "questions": questions(&files), "mode": "full_text" });
    let by_words = app.post(&evaluate(&product), body).await.expect_status(201);
    let by_words = by_words.data();
    assert!(by_words["metrics"]["ndcg"].as_f64().unwrap() < 1.0, "{by_words}");

    let one = format!("/api/knowledge-base/evaluation/{}", made["id"].as_str().unwrap());
    let kept = app.get(&one).await.expect_status(200);
    assert_eq!(kept.data(), made);
    app.get_with(&one, "If-None-Match", kept.header("etag")).await.expect_status(304);
    let listed = app.get(&evaluations(&product)).await.expect_status(200);
    let ids: Vec<&Value> = listed.data().as_array().unwrap().iter().map(|it| &it["id"]).collect();
    assert_eq!(ids, [&by_words["id"], &made["id"]], "newest first");
    assert!(listed.data()[0].get("questions").is_none(), "a list holds none");
    let narrowed = app.get(&format!("{}?mode=vector", evaluations(&product))).await;
    assert_eq!(narrowed.expect_status(200).data()[0]["id"], made["id"]);
}

#[tokio::test]
async fn the_same_request_again_is_the_same_evaluation() {
    let app = TestApp::spawn().await;
    let (product, files) = filled(&app).await;
    let body = json!({ "questions": questions(&files) });
    let ask = async || {
        app.post_with(&evaluate(&product), body.clone(), "Idempotency-Key", "one")
            .await
            .expect_status(201)
    };
    let (first, second) = (ask().await, ask().await);
    assert_eq!(second.data(), first.data());
    assert_eq!(second.body["replayed"], true);
    let listed = app.get(&evaluations(&product)).await.expect_status(200);
    assert_eq!(listed.data().as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn questions_that_cannot_be_asked_are_told_one_by_one() {
    let app = TestApp::spawn().await;
    let (product, files) = filled(&app).await;
    let (other, others) = filled(&app).await;
    let body = json!({ "k": 0, "questions": [
        { "query": "  ", "expected": [files[0]] },
        { "query": "what?", "expected": [] },
        { "query": "what?", "expected": [files[1], others[1]] },
    ] });
    let refused = app.post(&evaluate(&product), body).await.expect_problem(422, "invalid_body");
    let pointers: Vec<&str> = refused.body["errors"]
        .as_array()
        .unwrap()
        .iter()
        .map(|it| it["field"].as_str().unwrap())
        .collect();
    let expected = ["/k", "/questions/0/query", "/questions/1/expected", "/questions/2/expected/1"];
    assert_eq!(pointers, expected, "a file of another product is none");
    let none = json!({ "questions": [] });
    app.post(&evaluate(&product), none).await.expect_problem(422, "invalid_body");

    // Who sees another product alone sees neither the knowledge base nor what came of it.
    let body = json!({ "questions": questions(&files) });
    let made = app.post(&evaluate(&product), body.clone()).await.expect_status(201);
    let one = format!("/api/knowledge-base/evaluation/{}", made.data()["id"].as_str().unwrap());
    let stranger = app.with_token(&app.token(&other, &[]).await.secret);
    stranger.post(&evaluate(&product), body).await.expect_status(404);
    stranger.get(&evaluations(&product)).await.expect_status(404);
    stranger.get(&one).await.expect_problem(404, "evaluation_not_found");
}

#[tokio::test]
async fn evaluations_go_with_their_knowledge_base_and_hold_no_questions_in_the_clear() {
    let app = TestApp::spawn().await;
    let product = app.product().await;
    let body = json!({ "product_id": product.id, "name": "Second" });
    let base = app.post("/api/knowledge-base", body).await.expect_status(201);
    let base = base.data()["id"].as_str().unwrap().to_owned();
    let (name, text) = TEXTS[0];
    let file = app.upload(&base, &[(name, "text/plain", text.as_bytes())]).await;
    let file = file.data()[0]["id"].as_str().unwrap().to_owned();
    app.wait_ready(&file).await;
    let body = json!({ "questions": [{ "query": "zeppelin canary", "expected": [file] }] });
    let made =
        app.post(&format!("/api/knowledge-base/{base}/evaluate"), body).await.expect_status(201);
    let one = format!("/api/knowledge-base/evaluation/{}", made.data()["id"].as_str().unwrap());
    assert_eq!(
        app.get(&one).await.expect_status(200).data()["questions"][0]["query"],
        "zeppelin canary"
    );
    let audit = app.get("/api/audit-logs?resource_type=evaluation").await.expect_status(200);
    assert_eq!(audit.data()[0]["action"], "finished");
    assert!(!audit.body.to_string().contains("zeppelin"), "{:?}", audit.body);

    app.delete(&format!("/api/knowledge-base/base/{base}")).await.expect_status(200);
    app.get(&one).await.expect_problem(404, "evaluation_not_found");
}
