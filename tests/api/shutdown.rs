//! Stopping: what was answered is there afterwards, what was counted too.

use futures::future::join_all;
use serde_json::json;

use super::support::{Client, TestApp};

async fn used(app: &TestApp, token: &str) -> u64 {
    app.get(&format!("/api/api-tokens/{token}")).await.expect_status(200).data()["usage_count"]
        .as_u64()
        .unwrap()
}

#[tokio::test]
async fn a_stopped_server_has_written_every_use_and_every_refusal() {
    let mut app = TestApp::spawn().await;
    let product = app.product().await;
    let token = app.token(&product, &[]).await;
    let program = app.with_token(&token.secret);

    for _ in 0..25 {
        program.get("/api/products").await.expect_status(200);
    }
    app.nobody().get("/api/users").await.expect_status(401);
    app.restart();

    assert_eq!(used(&app, &token.id).await, 25);
    let reply = app.get("/api/audit-logs?action=rejected").await.expect_status(200);
    assert!(reply.text().contains("/api/users"), "{reply:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_answered_before_a_stop_is_there_after_it() {
    let mut app = TestApp::spawn().await;
    let writers: Vec<Client> = (0..8).map(|_| app.owner().clone()).collect();
    let writing = tokio::spawn(join_all(writers.into_iter().map(write_until_refused)));

    // Stops in the middle of it: as soon as some were answered.
    super::support::eventually("nothing was written", async || {
        let total = app.get("/api/products").await.body["pagination"]["total"].as_u64();
        (total > Some(20)).then_some(())
    })
    .await;
    let status = tokio::task::block_in_place(|| app.stop());
    assert!(status.success(), "{status}: {}", app.stderr());
    let answered: Vec<String> = writing.await.unwrap().into_iter().flatten().collect();
    app.start();

    assert!(answered.len() > 20);
    for path in answered {
        app.get(&path).await.expect_status(200);
    }
}

/// Makes products until the server is gone, and answers where those are that it has acknowledged.
async fn write_until_refused(client: Client) -> Vec<String> {
    let mut made = Vec::new();
    loop {
        let request = client
            .request(reqwest::Method::POST, "/api/products")
            .json(&json!({ "name": "Handbook" }));
        match client.try_send(request).await {
            Ok(reply) if reply.status == 201 => made.push(reply.header("location").to_owned()),
            Ok(reply) => {
                assert_eq!(reply.status, 503, "{reply:?}");
                return made;
            }
            Err(_) => return made,
        }
    }
}

#[tokio::test]
async fn open_streams_do_not_hold_up_the_end() {
    let mut app = TestApp::spawn().await;
    let product = app.product().await;
    let mut streams = Vec::new();
    for path in
        ["/api/events/stream".to_owned(), format!("/api/knowledge-base/{}/stream", product.id)]
    {
        let stream = app.request(reqwest::Method::GET, &path).send().await.unwrap();
        assert_eq!(stream.status(), 200, "{path}");
        streams.push(stream);
    }

    let started = std::time::Instant::now();
    assert!(app.stop().success(), "{}", app.stderr());
    assert!(started.elapsed() < std::time::Duration::from_secs(25), "the streams were waited for");
}

#[tokio::test]
async fn an_acknowledged_write_outlives_a_kill() {
    let mut app = TestApp::spawn().await;

    for round in 0..3 {
        let made = app
            .post("/api/products", json!({ "name": format!("Product {round}") }))
            .await
            .expect_status(201);
        app.kill();
        app.start();
        app.get(made.header("location")).await.expect_status(200);
    }
    assert_eq!(app.get("/api/products").await.body["pagination"]["total"], 3);
}
