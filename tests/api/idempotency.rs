//! `Idempotency-Key`: the same request twice is done once and answered twice.

use futures::future::join_all;
use reqwest::Method;
use serde_json::{Value, json};

use super::support::{Client, Reply, TestApp};

const KEY: &str = "Idempotency-Key";

async fn product(client: &Client, key: &str, name: &str) -> Reply {
    client.post_with("/api/products", json!({ "name": name }), KEY, key).await
}

async fn products(app: &TestApp) -> Vec<Value> {
    app.get("/api/products").await.expect_status(200).data().as_array().unwrap().clone()
}

#[tokio::test]
async fn the_same_request_twice_is_done_once_and_answered_twice() {
    let app = TestApp::spawn().await;

    let first = product(&app, "once", "Handbook").await.expect_status(201);
    let second = product(&app, "once", "Handbook").await.expect_status(201);

    assert_eq!(first.body.get("replayed"), None, "{first:?}");
    assert_eq!(second.body["replayed"], true, "{second:?}");
    assert_eq!(second.data(), first.data());
    for header in ["location", "etag"] {
        assert_eq!(second.header(header), first.header(header));
    }
    assert_eq!(products(&app).await.len(), 1);
}

#[tokio::test]
async fn a_repeated_request_gets_the_first_answer_whatever_has_happened_since() {
    let app = TestApp::spawn().await;
    let first = product(&app, "once", "Handbook").await.expect_status(201);
    let path = first.header("location").to_owned();

    app.put(&path, json!({ "name": "Renamed" })).await.expect_status(200);
    let repeated = product(&app, "once", "Handbook").await.expect_status(201);
    assert_eq!(repeated.data(), first.data());
    assert_eq!(app.get(&path).await.data()["name"], "Renamed");

    app.delete(&path).await.expect_status(200);
    let repeated = product(&app, "once", "Handbook").await.expect_status(201);
    assert_eq!(repeated.data(), first.data());
    assert_eq!(products(&app).await.len(), 0, "the repetition brought it back");
}

#[tokio::test]
async fn a_key_with_another_body_is_refused() {
    let app = TestApp::spawn().await;
    product(&app, "once", "Handbook").await.expect_status(201);

    product(&app, "once", "Another").await.expect_problem(422, "idempotency_key_reused");

    let names: Vec<Value> =
        products(&app).await.iter().map(|product| product["name"].clone()).collect();
    assert_eq!(names, ["Handbook"]);
}

#[tokio::test]
async fn a_key_is_its_owners_own_and_of_one_route() {
    let app = TestApp::spawn().await;
    let admin = app.user("admin").await;

    let mine = product(&app, "once", "Handbook").await.expect_status(201);
    let theirs = product(&admin, "once", "Handbook").await.expect_status(201);
    assert_ne!(mine.data()["id"], theirs.data()["id"]);

    let body = json!({ "product_id": mine.data()["id"], "name": "Notes" });
    app.post_with("/api/knowledge-base", body, KEY, "once").await.expect_status(201);
}

#[tokio::test]
async fn many_at_once_with_one_key_make_one() {
    let app = TestApp::spawn().await;

    let replies = join_all((0..12).map(|_| product(&app, "once", "Handbook"))).await;

    let ids: Vec<&Value> = replies.iter().map(|reply| &reply.data()["id"]).collect();
    assert!(replies.iter().all(|reply| reply.status == 201), "{replies:?}");
    assert!(ids.iter().all(|id| *id == ids[0]), "{ids:?}");
    assert_eq!(products(&app).await.len(), 1);
}

#[tokio::test]
async fn a_secret_is_shown_once_even_to_who_asks_again() {
    let app = TestApp::spawn().await;
    let id = app.product().await.id;
    let body = json!({ "product_id": id, "name": "Program" });

    let first =
        app.post_with("/api/api-tokens", body.clone(), KEY, "once").await.expect_status(201);
    let second = app.post_with("/api/api-tokens", body, KEY, "once").await.expect_status(201);

    let secret = first.data()["token"].as_str().unwrap();
    assert!(!second.text().contains(secret), "{second:?}");
    assert_eq!(second.data()["id"], first.data()["id"]);
    assert_eq!(second.body["replayed"], true);
    app.with_token(secret).get("/api/products").await.expect_status(200);
}

#[tokio::test]
async fn a_key_outlives_the_server() {
    let mut app = TestApp::spawn().await;
    let first = product(&app, "once", "Handbook").await.expect_status(201);

    app.kill();
    app.start();

    let second = product(&app, "once", "Handbook").await.expect_status(201);
    assert_eq!(second.data(), first.data());
    assert_eq!(second.body["replayed"], true);
    product(&app, "once", "Another").await.expect_problem(422, "idempotency_key_reused");
}

#[tokio::test]
async fn a_refused_request_leaves_its_key_free() {
    let app = TestApp::spawn().await;

    product(&app, "once", "").await.expect_status(422);
    product(&app, "once", "Handbook").await.expect_status(201);
}

#[tokio::test]
async fn a_key_that_is_none_is_refused() {
    let app = TestApp::spawn().await;

    for key in ["".to_owned(), "two words".to_owned(), "x".repeat(256)] {
        product(&app, &key, "Handbook").await.expect_problem(400, "malformed_idempotency_key");
    }
    let twice = app.request(Method::POST, "/api/products").header(KEY, "a").header(KEY, "b");
    app.send(twice.json(&json!({ "name": "Handbook" })))
        .await
        .expect_problem(400, "malformed_idempotency_key");
    assert_eq!(products(&app).await.len(), 0);
}

#[tokio::test]
async fn a_rebuild_is_begun_once_for_a_key() {
    let app = TestApp::spawn().await;
    let rebuild = async |body: Option<Value>, name: &str| {
        let path = format!("/api/projections/{name}/rebuild");
        let request = app.request(reqwest::Method::POST, &path).header("idempotency-key", "again");
        app.send(match body {
            Some(body) => request.json(&body),
            None => request,
        })
        .await
    };

    let first = rebuild(None, "agent").await.expect_status(202);
    assert_eq!(first.body["replayed"], Value::Null, "{first:?}");
    let second = rebuild(None, "agent").await.expect_status(202);
    assert_eq!(second.body["replayed"], true, "{second:?}");
    assert_eq!(second.data(), first.data());
    assert_eq!(second.position(), first.position());
    let other = rebuild(Some(json!({})), "agent").await;
    other.expect_problem(422, "idempotency_key_reused");
    let other = rebuild(None, "product").await.expect_status(202);
    assert_eq!(other.body["replayed"], Value::Null, "{other:?}");
}
