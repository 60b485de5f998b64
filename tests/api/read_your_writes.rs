//! Whoever wrote something reads it, at once and everywhere.

use futures::future::join_all;
use serde_json::{Value, json};

use super::support::{Client, TestApp};

#[tokio::test]
async fn every_answer_to_a_write_says_where_it_is_and_positions_only_grow() {
    let app = TestApp::spawn().await;
    let mut last = 0;

    for number in 0..5 {
        let made = app
            .post("/api/products", json!({ "name": format!("Product {number}") }))
            .await
            .expect_status(201);
        let changed =
            app.put(made.header("location"), json!({ "name": "Renamed" })).await.expect_status(200);
        let deleted = app.delete(made.header("location")).await.expect_status(200);
        for position in [made.position(), changed.position(), deleted.position()] {
            assert!(position > last, "{position} after {last}");
            last = position;
        }
    }
    assert!(app.head().await >= last);
}

#[tokio::test]
async fn many_writers_each_read_their_own_writes() {
    let app = TestApp::spawn().await;

    join_all((0..16).map(|writer| write_and_read(&app, writer))).await;

    let all = app.get("/api/products?limit=1000").await.expect_status(200);
    assert_eq!(all.body["pagination"]["total"], 16 * 5);
}

async fn write_and_read(client: &Client, writer: u32) {
    for round in 0..5 {
        let name = format!("Product {writer}/{round}");
        let made = client.post("/api/products", json!({ "name": name })).await.expect_status(201);
        let id = &made.data()["id"];
        let listed = client.get("/api/products?limit=1000").await.expect_status(200);
        let is_listed =
            listed.data().as_array().unwrap().iter().any(|product| product["id"] == *id);
        assert!(is_listed, "{name} is not listed after it was made");

        let name = format!("Renamed {writer}/{round}");
        let path = made.header("location");
        client.put(path, json!({ "name": name })).await.expect_status(200);
        assert_eq!(client.get(path).await.data()["name"], *name);
    }
}

#[tokio::test]
async fn a_read_waits_for_the_position_that_it_asks_for() {
    let app = TestApp::spawn().await;
    let made = app.post("/api/products", json!({ "name": "Handbook" })).await.expect_status(201);

    let reply =
        app.get_with("/api/products", "X-Min-Position", made.position()).await.expect_status(200);
    assert_eq!(reply.data()[0]["id"], made.data()["id"]);

    // A read that asks for the next position is answered as soon as somebody writes it.
    let next = app.head().await + 1;
    let (read, _) = tokio::join!(
        app.get_with("/api/products", "X-Min-Position", next),
        app.post("/api/products", json!({ "name": "Another" })),
    );
    let names: Vec<&Value> =
        read.data().as_array().unwrap().iter().map(|product| &product["name"]).collect();
    assert_eq!(read.status, 200, "{read:?}");
    assert!(names.contains(&&json!("Another")), "{names:?}");
}

#[tokio::test]
async fn a_position_that_never_comes_is_waited_for_a_while_and_then_refused() {
    let app = TestApp::spawn().await;

    let reply = app.get_with("/api/products", "X-Min-Position", 9_000_000).await;
    let reply = reply.expect_problem(503, "read_models_behind");
    assert!(reply.header("retry-after").parse::<u64>().unwrap() > 0);

    for bad in ["one", "-1", "1.5", ""] {
        let reply = app.get_with("/api/products", "X-Min-Position", bad).await;
        assert_eq!(reply.status, 400, "{bad:?}: {reply:?}");
    }
}

#[tokio::test]
async fn what_was_deleted_is_gone_at_the_very_next_read() {
    let app = TestApp::spawn().await;
    let product = app.product().await;
    let token = app.token(&product, &[]).await;
    let agent = app.agent(&product).await["id"].as_str().unwrap().to_owned();

    app.delete(&format!("/api/agent-base/{agent}")).await.expect_status(200);
    app.get(&format!("/api/agent-base/{agent}")).await.expect_status(404);
    app.delete(&format!("/api/products/{}", product.id)).await.expect_status(200);
    app.get(&format!("/api/products/{}", product.id)).await.expect_status(404);
    app.get(&format!("/api/knowledge-base/base/{}", product.knowledge_base))
        .await
        .expect_status(404);
    app.with_token(&token.secret).get("/api/products").await.expect_status(401);
}
