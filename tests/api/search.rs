//! Searching from outside: by meaning, by words, within what the caller may see.

use serde_json::{Value, json};

use crate::support::{Product, TestApp};

const SEARCH: &str = "/api/knowledge-base/embeddings";

const HOLIDAYS: &str = "Employees may take twenty-five days of paid leave each year.";
const BACKUPS: &str = "The database is copied to another data centre every night at two.";

async fn filled(app: &TestApp) -> Product {
    let product = app.product().await;
    for (name, text) in [("holidays.txt", HOLIDAYS), ("backups.txt", BACKUPS)] {
        let file = app.text_file(&product, name, text).await;
        app.wait_ready(&file).await;
    }
    product
}

fn names(data: &Value) -> Vec<&str> {
    data.as_array().unwrap().iter().map(|passage| passage["file_name"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn a_question_finds_the_passage_that_answers_it() {
    let app = TestApp::spawn().await;
    let product = filled(&app).await;
    let question = json!({ "query": "How much vacation do I get?", "product_id": product.id });

    let found = app.post(SEARCH, question).await.expect_status(200);

    assert_eq!(names(found.data()), ["holidays.txt", "backups.txt"]);
    let best = &found.data()[0];
    assert_eq!((&best["text"], &best["chunk_index"]), (&json!(HOLIDAYS), &json!(0)));
    assert_eq!(
        (&best["char_start"], &best["char_end"]),
        (&json!(0), &json!(HOLIDAYS.chars().count()))
    );
    let score = best["score"].as_f64().unwrap();
    assert!(score > found.data()[1]["score"].as_f64().unwrap() && score < 1.0, "{found:?}");

    let base =
        json!({ "query": "vacation", "knowledge_base_id": product.knowledge_base, "limit": 1 });
    assert_eq!(names(app.post(SEARCH, base).await.expect_status(200).data()), ["holidays.txt"]);
    let strict = json!({ "query": HOLIDAYS, "product_id": product.id, "min_score": 0.95 });
    assert_eq!(names(app.post(SEARCH, strict).await.expect_status(200).data()), ["holidays.txt"]);
}

#[tokio::test]
async fn words_and_both_are_found_too() {
    let app = TestApp::spawn().await;
    let product = filled(&app).await;
    let find = async |query: &str, mode: &str| {
        let question = json!({ "query": query, "product_id": product.id, "mode": mode });
        app.post(SEARCH, question).await.expect_status(200).data().clone()
    };

    assert_eq!(names(&find("DATABASE", "full_text").await), ["backups.txt"]);
    assert_eq!(names(&find("vacation", "full_text").await), [""; 0]);
    assert_eq!(names(&find("the database at night", "hybrid").await)[0], "backups.txt");
}

#[tokio::test]
async fn a_token_searches_its_product_and_no_other() {
    let app = TestApp::spawn().await;
    let (mine, other) = (filled(&app).await, app.product().await);
    let secret =
        app.text_file(&other, "secret.txt", "The vacation of the database is secret.").await;
    app.wait_ready(&secret).await;
    let token = app.with_token(&app.token(&mine, &["knowledge:read"]).await.secret);

    for mode in ["vector", "full_text", "hybrid"] {
        let question = json!({ "query": "secret vacation of the database", "mode": mode });
        let found = token.post(SEARCH, question).await.expect_status(200);
        assert!(!names(found.data()).contains(&"secret.txt"), "{found:?}");
    }
    let theirs = json!({ "query": "secret", "product_id": other.id });
    token.post(SEARCH, theirs).await.expect_problem(404, "product_not_found");
    let theirs = json!({ "query": "secret", "knowledge_base_id": other.knowledge_base });
    token.post(SEARCH, theirs).await.expect_problem(404, "knowledge_base_not_found");
    let blind = app.with_token(&app.token(&mine, &["agents:read"]).await.secret);
    blind.post(SEARCH, json!({ "query": "a" })).await.expect_problem(403, "scope_missing");
}

#[tokio::test]
async fn what_is_wrong_with_a_question_is_said() {
    let app = TestApp::spawn().await;
    let product = app.product().await;
    let fault = async |body: Value| {
        let reply = app.post(SEARCH, body).await;
        assert_eq!(reply.status, 422, "{reply:?}");
        reply.body["errors"][0]["field"].as_str().unwrap().to_owned()
    };
    let id = &product.id;

    assert_eq!(fault(json!({ "query": "a" })).await, "/product_id");
    assert_eq!(fault(json!({ "query": "  ", "product_id": id })).await, "/query");
    assert_eq!(fault(json!({ "product_id": id })).await, "/query");
    assert_eq!(fault(json!({ "query": "a", "product_id": id, "limit": 0 })).await, "/limit");
    assert_eq!(fault(json!({ "query": "a", "product_id": id, "limit": 101 })).await, "/limit");
    assert_eq!(fault(json!({ "query": "a", "product_id": id, "mode": "guess" })).await, "/mode");
    let both =
        json!({ "query": "a", "product_id": id, "knowledge_base_id": product.knowledge_base });
    assert_eq!(fault(both).await, "/knowledge_base_id");
    let question = json!({ "query": "x".repeat(10_001), "product_id": id });
    assert_eq!(fault(question).await, "/query");
}

#[tokio::test]
async fn without_a_model_the_search_says_so() {
    let app = TestApp::spawn_with(&[("PRODGY_MODEL_DIR", "/nowhere")]).await;
    let product = app.product().await;
    let file = app.text_file(&product, "holidays.txt", HOLIDAYS).await;
    let path = format!("/api/knowledge-base/storage/file/{file}");
    assert_eq!(app.get(&path).await.data()["status"], "processing");

    let question = json!({ "query": "leave", "product_id": product.id });
    let refused = app.post(SEARCH, question).await.expect_problem(503, "model_missing");

    assert!(!refused.header("retry-after").is_empty());
    let words = json!({ "query": "leave", "product_id": product.id, "mode": "full_text" });
    app.post(SEARCH, words).await.expect_status(200);
}
