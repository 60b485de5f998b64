//! API tokens: every endpoint, and what is true of a token at each moment of its life.

use std::time::Duration;

use serde_json::{Value, json};

use super::support::{Client, Product, TestApp, Token, eventually};

const VALIDATE: &str = "/api/api-token/auth/validate";
const KEY: &str = "Idempotency-Key";

async fn with_token() -> (TestApp, Product, Token, String) {
    let app = TestApp::spawn().await;
    let product = app.product().await;
    let token = app.token(&product, &[]).await;
    let path = format!("/api/api-tokens/{}", token.id);
    (app, product, token, path)
}

async fn actions(client: &Client, path: &str) -> Vec<String> {
    let reply = client.get(&format!("{path}/audit-logs?limit=1000")).await.expect_status(200);
    let entries = reply.data().as_array().unwrap().clone();
    entries
        .iter()
        .map(|entry| entry["action"].as_str().unwrap().to_owned())
        .filter(|action| action != "rejected")
        .collect()
}

#[tokio::test]
async fn a_token_is_shown_whole_once_and_never_again() {
    let app = TestApp::spawn().await;
    let product = app.product().await;
    let body = json!({ "product_id": product.id, "name": "Program" });

    let first =
        app.post_with("/api/api-tokens", body.clone(), KEY, "once").await.expect_status(201);
    let second = app.post_with("/api/api-tokens", body, KEY, "once").await.expect_status(201);

    let token = first.data()["token"].as_str().unwrap();
    let prefix = first.data()["prefix"].as_str().unwrap();
    assert!(token.starts_with(prefix) && prefix.len() == "prodgy_".len() + 8, "{token}, {prefix}");
    assert_eq!(token.len(), "prodgy_".len() + 43 + 6, "{token}");
    assert_eq!(first.header("cache-control"), "no-store");
    assert_eq!(first.data()["scopes"].as_array().unwrap().len(), 12, "all that there are");
    assert_eq!(second.body["replayed"], true);
    assert_eq!(
        (&second.data()["token"], &second.data()["id"]),
        (&Value::Null, &first.data()["id"])
    );
    for path in [first.header("location"), &format!("/api/api-tokens/product/{}", product.id)] {
        assert!(!app.get(path).await.expect_status(200).text().contains(token), "{path}");
    }
}

#[tokio::test]
async fn a_token_says_what_it_is_and_only_a_token_does() {
    let (app, product, token, _) = with_token().await;
    let program = app.with_token(&token.secret);

    for client in [&program, &app.bearer(&token.secret)] {
        let reply = client.get(VALIDATE).await.expect_status(200);
        assert_eq!(
            (&reply.data()["valid"], &reply.data()["product_id"]),
            (&json!(true), &json!(product.id))
        );
    }
    app.get(VALIDATE).await.expect_problem(401, "token_required");
    app.nobody().get(VALIDATE).await.expect_problem(401, "credential_missing");
    // One letter too many is seen in the text; one that never was has to be looked for.
    let (long, never_was) = (format!("{}x", token.secret), format!("prodgy_{}", "A".repeat(40)));
    for (secret, said) in [(&long, "mistyped"), (&never_was, "no API token is like this")] {
        let reply = app.with_token(secret).get(VALIDATE).await.expect_problem(401, "token_invalid");
        assert!(reply.body["message"].as_str().unwrap().contains(said), "{reply:?}");
    }
    program
        .get(&format!("/api/api-tokens/{}", token.id))
        .await
        .expect_problem(403, "session_required");
}

#[tokio::test]
async fn uses_are_counted_before_they_are_shown_and_leave_the_etag_alone() {
    let (app, product, token, path) = with_token().await;
    let etag = app.get(&path).await.header("etag").to_owned();
    let program = app.with_token(&token.secret);
    for _ in 0..5 {
        program.get(VALIDATE).await.expect_status(200);
    }

    // Both must wait for the one that writes.
    let (one, other) = tokio::join!(app.get(&path), app.get(&path));
    for shown in [one, other] {
        assert_eq!(shown.data()["usage_count"], 5);
        assert_eq!(shown.header("etag"), etag);
    }
    let listed =
        app.get(&format!("/api/api-tokens/product/{}", product.id)).await.expect_status(200);
    assert_eq!(listed.data()[0]["usage_count"], 5);
    assert!(listed.data()[0]["last_used_at"].is_string());
    assert_eq!(actions(&app, &path).await, ["used", "created"]);
}

#[tokio::test]
async fn a_change_is_in_force_at_the_very_next_request() {
    let (app, _, token, path) = with_token().await;
    let program = app.with_token(&token.secret);
    let change = async |body: Value| app.put(&path, body).await.expect_status(200);

    let changed =
        change(json!({ "name": "New", "scopes": ["agents:read"], "allowed_ips": ["10.1.2.3/8"] }))
            .await;
    assert_eq!(changed.data()["allowed_ips"], json!(["10.0.0.0/8"]));
    program.get(VALIDATE).await.expect_problem(403, "address_not_allowed");
    change(json!({ "allowed_ips": ["127.0.0.1"] })).await;
    program.get("/api/products").await.expect_problem(403, "scope_missing");
    assert_eq!(change(json!({ "active": false })).await.data()["status"], "inactive");
    program.get(VALIDATE).await.expect_problem(401, "token_inactive");
    assert_eq!(change(json!({ "active": true })).await.data()["status"], "active");
    program.get(VALIDATE).await.expect_status(200);
    app.put_with(&path, json!({ "name": "Late" }), "If-Match", "\"1\"")
        .await
        .expect_problem(412, "stale");
    assert_eq!(actions(&app, &path).await.iter().filter(|action| *action == "updated").count(), 4);
}

#[tokio::test]
async fn a_time_that_runs_out_is_noticed_and_can_be_renewed() {
    let (app, _, token, path) = with_token().await;
    let program = app.with_token(&token.secret);
    let soon = (chrono::Local::now() + Duration::from_millis(500)).to_rfc3339();
    app.post(&format!("{path}/renew"), json!({ "expires_at": soon })).await.expect_status(200);

    eventually("the token has not expired", async || {
        (app.get(&path).await.data()["status"] == "expired").then_some(())
    })
    .await;
    program.get(VALIDATE).await.expect_problem(401, "token_expired");
    app.post_empty(&format!("{path}/regenerate")).await.expect_problem(409, "api_token_expired");
    let past = json!({ "expires_at": "2001-01-01T00:00:00Z" });
    app.post(&format!("{path}/renew"), past).await.expect_problem(422, "expires_at_in_past");
    app.post(&format!("{path}/renew"), json!({})).await.expect_problem(422, "invalid_body");

    let renewed =
        app.post(&format!("{path}/renew"), json!({ "expires_at": null })).await.expect_status(200);
    assert_eq!(
        (&renewed.data()["status"], &renewed.data()["expires_at"]),
        (&json!("active"), &Value::Null)
    );
    program.get(VALIDATE).await.expect_status(200);
    assert_eq!(actions(&app, &path).await.iter().filter(|action| *action == "expired").count(), 1);
}

#[tokio::test]
async fn a_token_that_was_switched_off_stays_so_though_it_runs_out_and_is_renewed() {
    let (app, _, token, path) = with_token().await;
    let program = app.with_token(&token.secret);
    app.put(&path, json!({ "active": false })).await.expect_status(200);
    let soon = (chrono::Local::now() + Duration::from_millis(300)).to_rfc3339();
    app.post(&format!("{path}/renew"), json!({ "expires_at": soon })).await.expect_status(200);
    eventually("the token has not expired", async || {
        (app.get(&path).await.data()["status"] == "expired").then_some(())
    })
    .await;

    let renewed =
        app.post(&format!("{path}/renew"), json!({ "expires_at": null })).await.expect_status(200);

    assert_eq!(renewed.data()["status"], "inactive");
    program.get(VALIDATE).await.expect_problem(401, "token_inactive");
    app.put(&path, json!({ "active": true })).await.expect_status(200);
    program.get(VALIDATE).await.expect_status(200);
    app.verified();
}

#[tokio::test]
async fn an_old_secret_stops_at_once_or_after_its_grace() {
    let (app, _, token, path) = with_token().await;
    let regenerate = async |query: &str| {
        let reply = app.post_empty(&format!("{path}/regenerate{query}")).await.expect_status(200);
        app.with_token(reply.data()["token"].as_str().unwrap())
    };
    let first = app.with_token(&token.secret);

    let second = regenerate("?grace_seconds=60").await;
    first.get(VALIDATE).await.expect_status(200);
    second.get(VALIDATE).await.expect_status(200);
    let third = regenerate("").await;
    for client in [&first, &second] {
        client.get(VALIDATE).await.expect_problem(401, "token_invalid");
    }
    third.get(VALIDATE).await.expect_status(200);
    for query in ["?grace_seconds=604801", "?grace_seconds=-1", "?grace=1"] {
        app.post_empty(&format!("{path}/regenerate{query}"))
            .await
            .expect_problem(400, "invalid_parameters");
    }
}

#[tokio::test]
async fn revoked_is_final_and_deleted_keeps_its_story() {
    let (app, _, _, path) = with_token().await;
    let revoke = async || {
        app.send(app.request(reqwest::Method::POST, &format!("{path}/revoke")).header(KEY, "once"))
            .await
    };
    assert_eq!(revoke().await.expect_status(200).data()["status"], "revoked");
    app.post(&format!("{path}/revoke"), json!({})).await.expect_status(200);
    app.post_empty(&format!("{path}/regenerate")).await.expect_problem(409, "api_token_revoked");
    app.post(&format!("{path}/renew"), json!({ "expires_at": null }))
        .await
        .expect_problem(409, "api_token_revoked");
    app.put(&path, json!({ "active": true })).await.expect_problem(409, "api_token_revoked");

    app.delete(&path).await.expect_status(200);
    app.delete(&path).await.expect_problem(404, "api_token_not_found");
    app.get(&path).await.expect_problem(404, "api_token_not_found");
    let again = revoke().await.expect_status(200);
    assert_eq!(
        (&again.body["replayed"], &again.data()["status"]),
        (&json!(true), &json!("revoked"))
    );
    assert_eq!(actions(&app, &path).await, ["deleted", "revoked", "created"]);
}

#[tokio::test]
async fn asking_for_a_token_that_never_was_does_not_make_it_ours() {
    let app = TestApp::spawn().await;
    let path = format!("/api/api-tokens/{}/audit-logs", uuid::Uuid::now_v7());
    for _ in 0..2 {
        app.get(&path).await.expect_problem(404, "api_token_not_found");
    }
}

#[tokio::test]
async fn each_fault_of_a_body_is_named_where_it_is() {
    let app = TestApp::spawn().await;
    let product = app.product().await;
    for (field, value, place) in [
        ("name", json!(" "), "/name"),
        ("expires_at", json!("tomorrow"), "/expires_at"),
        ("expires_at", json!("2001-01-01T00:00:00Z"), "/expires_at"),
        ("scopes", json!([]), "/scopes"),
        ("scopes", json!(["agents:read", "everything"]), "/scopes/1"),
        ("allowed_ips", json!(["127.0.0.1", "home"]), "/allowed_ips/1"),
        ("expires_in", json!(60), "/expires_in"),
    ] {
        let mut body = json!({ "product_id": product.id, "name": "Program" });
        body[field] = value;
        let reply = app.post("/api/api-tokens", body).await.expect_status(422);
        assert_eq!(reply.body["errors"][0]["field"], place, "{reply:?}");
    }
}
