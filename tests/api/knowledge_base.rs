//! Knowledge bases from outside: made, listed, changed, deleted, and never somebody else's.

use reqwest::Method;
use serde_json::{Value, json};

use crate::support::TestApp;

const BASES: &str = "/api/knowledge-base";

#[tokio::test]
async fn a_product_is_born_with_a_knowledge_base() {
    let app = TestApp::spawn().await;
    let product = app.product().await;

    let listed = app.get(&format!("{BASES}/{}", product.id)).await.expect_status(200);

    assert_eq!(listed.body["pagination"]["total"], 1);
    let base = &listed.data()[0];
    assert_eq!(base["id"], product.knowledge_base.as_str());
    assert_eq!((&base["is_default"], &base["files"]), (&json!(true), &json!(0)));
    let path = format!("{BASES}/base/{}", product.knowledge_base);
    app.delete(&path).await.expect_problem(409, "knowledge_base_is_default");
}

#[tokio::test]
async fn a_knowledge_base_is_made_changed_and_deleted() {
    let app = TestApp::spawn().await;
    let product = app.product().await;
    let body = json!({ "product_id": product.id, "name": " Law ", "description": "What binds us" });
    let made = app.post(BASES, body).await.expect_status(201);
    let id = made.data()["id"].as_str().unwrap().to_owned();
    let path = format!("{BASES}/base/{id}");
    assert_eq!(made.header("location"), path);
    assert_eq!((&made.data()["name"], &made.data()["is_default"]), (&json!("Law"), &json!(false)));
    assert!(made.position() > 0);

    let shown = app.get(&path).await.expect_status(200);
    assert_eq!(shown.data(), made.data());
    assert_eq!(shown.data()["description"], "What binds us");
    app.get_with(&path, "if-none-match", shown.header("etag")).await.expect_status(304);
    let listed = app.get(&format!("{BASES}/{}?pageSize=1", product.id)).await.expect_status(200);
    assert_eq!(
        (&listed.data()[0]["id"], &listed.body["pagination"]["total"]),
        (&json!(id), &json!(2))
    );

    let old = shown.header("etag");
    let same = json!({ "name": "Law", "description": " What binds us " });
    let same = app.put_with(&path, same, "if-match", old).await.expect_status(200);
    assert_eq!((same.header("etag"), same.data()), (old, shown.data()), "the same is no change");
    let change = json!({ "name": "Statutes", "description": "" });
    let changed = app.put_with(&path, change.clone(), "if-match", old).await.expect_status(200);
    assert_eq!(changed.data()["name"], "Statutes");
    assert_eq!(changed.data()["description"], Value::Null);
    app.put_with(&path, change, "if-match", old).await.expect_problem(412, "stale");
    app.delete_with(&path, "if-match", old).await.expect_problem(412, "stale");

    let files = [("a.md", "text/markdown", &b"# A"[..]), ("b.md", "text/markdown", &b"# B"[..])];
    let uploaded = app.upload(&id, &files).await.expect_status(202);
    assert_eq!(app.get(&path).await.data()["files"], 2);
    app.delete(&path).await.expect_status(200);
    app.get(&path).await.expect_problem(404, "knowledge_base_not_found");
    app.get(&format!("{BASES}/storage/{id}")).await.expect_problem(404, "knowledge_base_not_found");
    let file = uploaded.data()[0]["id"].as_str().unwrap();
    app.get(&format!("{BASES}/storage/file/{file}")).await.expect_problem(404, "file_not_found");
    app.upload(&id, &files).await.expect_problem(404, "knowledge_base_not_found");
}

#[tokio::test]
async fn a_key_makes_one_knowledge_base() {
    let app = TestApp::spawn().await;
    let product = app.product().await;
    let body = json!({ "product_id": product.id, "name": "Once" });
    let first = app.post_with(BASES, body.clone(), "idempotency-key", "k").await.expect_status(201);
    let again = app.post_with(BASES, body, "idempotency-key", "k").await.expect_status(201);

    assert_eq!(again.data(), first.data());
    assert_eq!(again.body["replayed"], true);
    let other = json!({ "product_id": product.id, "name": "Twice" });
    let refused = app.post_with(BASES, other, "idempotency-key", "k").await;
    refused.expect_problem(422, "idempotency_key_reused");
}

#[tokio::test]
async fn a_token_knows_the_knowledge_bases_of_its_product_alone() {
    let app = TestApp::spawn().await;
    let (mine, other) = (app.product().await, app.product().await);
    let token = app.with_token(&app.token(&mine, &[]).await.secret);

    let made = token.post(BASES, json!({ "name": "Mine" })).await.expect_status(201);
    assert_eq!(made.data()["product_id"], mine.id.as_str());

    let elsewhere = json!({ "product_id": other.id, "name": "Not mine" });
    token.post(BASES, elsewhere).await.expect_problem(404, "product_not_found");
    token.get(&format!("{BASES}/{}", other.id)).await.expect_problem(404, "product_not_found");
    let path = format!("{BASES}/base/{}", other.knowledge_base);
    let name = json!({ "name": "Taken" });
    token.get(&path).await.expect_problem(404, "knowledge_base_not_found");
    token.put(&path, name).await.expect_problem(404, "knowledge_base_not_found");
    token.delete(&path).await.expect_problem(404, "knowledge_base_not_found");
    let reader = app.with_token(&app.token(&mine, &["knowledge:read"]).await.secret);
    reader.post(BASES, json!({ "name": "No" })).await.expect_problem(403, "scope_missing");
    let viewer = app.user("viewer").await;
    let body = json!({ "product_id": mine.id, "name": "No" });
    viewer.post(BASES, body).await.expect_problem(403, "role_insufficient");
}

#[tokio::test]
async fn what_is_wrong_with_a_body_is_said() {
    let app = TestApp::spawn().await;
    let product = app.product().await;
    let fault = async |body| {
        let reply = app.post(BASES, body).await;
        assert_eq!(reply.status, 422, "{reply:?}");
        reply.body["errors"][0]["field"].as_str().unwrap().to_owned()
    };

    assert_eq!(fault(json!({ "name": "Whose?" })).await, "/product_id");
    assert_eq!(fault(json!({ "product_id": product.id, "name": "  " })).await, "/name");
    assert_eq!(fault(json!({ "product_id": product.id, "name": 7 })).await, "/name");
    assert_eq!(
        fault(json!({ "product_id": product.id, "name": "A", "color": "red" })).await,
        "/color"
    );
    let long = "x".repeat(4001);
    let body = json!({ "product_id": product.id, "name": "A", "description": long });
    assert_eq!(fault(body).await, "/description");
    app.get(&format!("{BASES}/base/nonsense")).await.expect_problem(404, "not_found");
    let path = format!("{BASES}/base/{}?color=red", product.knowledge_base);
    app.get(&path).await.expect_problem(400, "invalid_parameters");
    let stranger = app.nobody().request(Method::GET, &path);
    app.send(stranger).await.expect_problem(401, "credential_missing");
}
