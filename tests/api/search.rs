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
    let ask = |more: Value| {
        let mut question = json!({ "query": "a", "product_id": id });
        question.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        question
    };
    assert_eq!(fault(ask(json!({ "filters": { "source": 1 } }))).await, "/filters/source");
    assert_eq!(fault(ask(json!({ "filters": { "from": "today" } }))).await, "/filters/from");
    assert_eq!(fault(ask(json!({ "filters": { "size": 1 } }))).await, "/filters/size");
    let many = vec!["a"; 1_001];
    assert_eq!(fault(ask(json!({ "filters": { "source": many } }))).await, "/filters/source");
    let neighbours = json!({ "include": { "neighbours": 6 } });
    assert_eq!(fault(ask(neighbours)).await, "/include/neighbours");
    let vector = json!({ "vector": [1.0], "mode": "full_text" });
    assert_eq!(fault(ask(vector)).await, "/vector");
    let mode = json!({ "vector": [1.0], "product_id": id, "mode": "hybrid" });
    assert_eq!(fault(mode).await, "/query");
}

#[tokio::test]
async fn a_ready_made_vector_needs_no_words_and_must_fit() {
    let app = TestApp::spawn().await;
    let product = filled(&app).await;
    let ask = async |vector: Vec<f64>| {
        app.post(SEARCH, json!({ "vector": vector, "product_id": product.id, "limit": 1 })).await
    };
    // Of which direction the text is, from what the search says of other directions: a score is a cosine.
    let mut direction = Vec::new();
    for place in 0..384 {
        let mut axis = vec![0.0; 384];
        axis[place] = 3.0;
        let question = json!({ "vector": axis, "product_id": product.id, "limit": 100 });
        let found = app.post(SEARCH, question).await.expect_status(200);
        let of_holidays = found.data().as_array().unwrap().iter();
        let of_holidays = of_holidays.filter(|passage| passage["file_name"] == "holidays.txt");
        direction.push(of_holidays.map(|passage| passage["score"].as_f64().unwrap()).sum::<f64>());
    }

    let found = ask(direction).await.expect_status(200);

    assert_eq!(names(found.data()), ["holidays.txt"]);
    let score = found.data()[0]["score"].as_f64().unwrap();
    assert!((score - 1.0).abs() < 1e-3, "{score}");
    for wrong in [vec![1.0; 383], vec![], vec![0.0; 384], vec![3e38; 385]] {
        let refused = ask(wrong).await;
        assert_eq!(refused.status, 422, "{refused:?}");
        assert_eq!(refused.body["errors"][0]["field"], "/vector");
    }
}

#[tokio::test]
async fn filters_and_what_stands_around_are_answered_through_http() {
    let app = TestApp::spawn().await;
    let product = filled(&app).await;
    let find = async |more: Value| {
        let mut question = json!({ "query": "database", "product_id": product.id });
        question.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        app.post(SEARCH, question).await.expect_status(200).data().clone()
    };

    for mode in ["vector", "full_text", "hybrid"] {
        let later = json!({ "mode": mode, "filters": { "from": "2100-01-01T00:00:00+02:00" } });
        assert_eq!(find(later).await, json!([]), "{mode}");
        let earlier =
            json!({ "mode": mode, "limit": 1, "filters": { "to": "2100-01-01T00:00:00Z" } });
        let found = find(earlier).await;
        let id = found[0]["file_id"].clone();
        assert_eq!(names(&found), ["backups.txt"], "{mode}");
        let these = json!({ "mode": mode, "filters": { "file_id": [id] } });
        assert_eq!(names(&find(these).await), ["backups.txt"], "{mode}");
        let other = json!({ "mode": mode, "filters": { "language": ["de", "fr"] } });
        assert_eq!(find(other).await, json!([]), "{mode}");
    }
    let found =
        find(json!({ "mode": "full_text", "include": { "neighbours": 1, "section": true } })).await;
    let passage = &found[0];
    assert_eq!(passage["highlights"], json!([{ "start": 4, "end": 12 }]));
    assert_eq!((&passage["before"], &passage["after"]), (&json!([]), &json!([])));
    assert_eq!(passage["section"]["text"], json!(BACKUPS));
    let plain = find(json!({})).await;
    assert!(plain[0].get("highlights").is_none() && plain[0].get("section").is_none());
}

#[tokio::test]
async fn no_filter_vector_or_neighbour_reaches_another_product() {
    let app = TestApp::spawn().await;
    let (mine, other) = (filled(&app).await, app.product().await);
    let secret = app.text_file(&other, "secret.txt", "The vacation database is secret.").await;
    app.wait_ready(&secret).await;
    let token = app.with_token(&app.token(&mine, &["knowledge:read"]).await.secret);

    for mode in ["vector", "full_text", "hybrid"] {
        for filters in
            [json!({ "file_id": secret }), json!({ "from": "2000-01-01T00:00:00Z" }), json!({})]
        {
            let question = json!({
                "query": "The vacation database is secret.", "mode": mode, "filters": filters, "limit": 100,
                "include": { "neighbours": 5, "section": true, "highlights": true },
            });
            let found = token.post(SEARCH, question).await.expect_status(200);
            assert!(!found.data().to_string().contains("secret"), "{mode} {filters}: {found:?}");
        }
    }
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
