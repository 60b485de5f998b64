//! Read models that stopped at an event which they cannot take in, or are far behind: what depends on
//! them is refused, and nothing is let in by what they no longer know.

use std::sync::Arc;

use eventlog::{
    Append, EventStore, Expected, Metadata, NewEvent, SqliteOptions, SqliteStore, StreamId,
};
use serde_json::json;
use serde_json::value::RawValue;
use uuid::Uuid;

use super::support::{Product, TestApp};

/// Appends an event to the log of a server that is stopped, which the read model of its category cannot
/// take in.
async fn poison(app: &TestApp, category: &str) {
    let path = app.data_dir().join("events.db");
    let log = SqliteStore::open(&path, SqliteOptions::default()).unwrap();
    let metadata = Metadata {
        organization: Uuid::nil(),
        product: None,
        actor: "system:test".into(),
        correlation: Uuid::now_v7(),
        causation: None,
        request_id: None,
        traceparent: None,
        address: None,
        user_agent: None,
    };
    let append = Append {
        stream: StreamId::from(format!("{category}-{}", Uuid::now_v7()).as_str()),
        expected: Expected::Any,
        command_id: Uuid::now_v7(),
        request_hash: None,
        metadata: Arc::new(metadata),
        keys: vec![],
        events: vec![NewEvent {
            event_type: format!("{category}.poisoned.v1"),
            data: RawValue::from_string("{}".into()).unwrap(),
            metadata: None,
        }],
    };
    log.append(append).await.unwrap();
    log.close().await;
}

/// A server with a read model that has stopped at an event of this category, with a product and a token's
/// secret and id.
async fn stopped_at(category: &str, model: &str) -> (TestApp, Product, [String; 2]) {
    let mut app = TestApp::spawn().await;
    let product = app.product().await;
    let token = app.token(&product, &[]).await;
    app.with_token(&token.secret).get("/api/api-token/auth/validate").await.expect_status(200);
    assert!(app.stop().success());
    poison(&app, category).await;
    app.start();
    let ready = app.nobody().get("/readyz").await.expect_status(503);
    assert!(ready.text().contains(&format!("read model {model} stopped")), "{ready:?}");
    (app, product, [token.secret, token.id])
}

#[tokio::test]
async fn no_token_is_good_while_nobody_knows_which_were_revoked() {
    let (app, product, [secret, id]) = stopped_at("api_token", "api_token").await;
    let program = app.with_token(&secret);

    let refused = program.get("/api/api-token/auth/validate").await;
    assert_eq!(refused.header("retry-after"), "30", "{refused:?}");
    let refused = refused.expect_problem(503, "read_model_stopped");
    assert!(refused.text().contains("/api/projections"), "{refused:?}");

    // The revocation is stored, and is not said to be in force.
    let revoked = app.post_empty(&format!("/api/api-tokens/{id}/revoke")).await;
    let revoked = revoked.expect_problem(503, "read_model_stopped");
    assert!(revoked.text().contains("is stored"), "{revoked:?}");
    program.get("/api/api-token/auth/validate").await.expect_problem(503, "read_model_stopped");

    // What stands on other read models goes on; what must have been applied is not said to be.
    let path = format!("/api/products/{}", product.id);
    let renamed = app.put(&path, json!({ "name": "Renamed" })).await.expect_status(200);
    assert_eq!(app.get(&path).await.expect_status(200).data()["name"], "Renamed");
    let waited = app.get_with(&path, "x-min-position", renamed.position()).await;
    waited.expect_problem(503, "read_model_stopped");
}

#[tokio::test]
async fn no_session_is_good_while_nobody_knows_which_were_ended() {
    for category in ["session", "user"] {
        let (app, _, [secret, _]) = stopped_at(category, category).await;

        app.get("/api/auth/me").await.expect_problem(503, "read_model_stopped");
        app.with_token(&secret).get("/api/api-token/auth/validate").await.expect_status(200);
    }
}

#[tokio::test]
async fn nothing_of_a_product_is_reached_while_nobody_knows_which_were_deleted() {
    let (app, product, [secret, _]) = stopped_at("product", "product").await;
    let path = format!("/api/products/{}", product.id);

    app.get("/api/auth/me").await.expect_status(200);
    app.get(&path).await.expect_problem(503, "read_model_stopped");
    app.with_token(&secret).get(&path).await.expect_problem(503, "read_model_stopped");
}

#[tokio::test]
async fn the_audit_log_says_that_it_stopped() {
    let (app, product, [secret, _]) = stopped_at("access_log", "audit_log").await;

    app.get("/api/audit-logs").await.expect_problem(503, "read_model_stopped");
    let path = format!("/api/products/{}", product.id);
    app.with_token(&secret).get(&path).await.expect_status(200);
}
