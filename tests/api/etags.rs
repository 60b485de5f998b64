//! `ETag`, `If-None-Match` and `If-Match`: nobody overwrites what they have not seen.

use futures::future::join_all;
use serde_json::{Value, json};

use super::support::TestApp;

/// The paths of single resources that carry an `ETag` and can be changed by `PUT`.
async fn changeable(app: &TestApp) -> Vec<(String, Value)> {
    let product = app.product().await;
    let token = app.token(&product, &[]).await;
    let agent = app.agent(&product).await;
    let user =
        json!({ "email": "ada@example.com", "role": "viewer", "password": "a long password" });
    let user = app.post("/api/users", user).await.expect_status(201);
    let integration = json!({ "product_id": product.id, "type": "github", "title": "Code",
                              "secrets": { "token": "token" } });
    let integration = app.post("/api/integrations-base", integration).await.expect_status(201);
    vec![
        (format!("/api/api-tokens/{}", token.id), json!({ "name": "Renamed" })),
        (
            format!("/api/agent-base/{}", agent["id"].as_str().unwrap()),
            json!({ "title": "Renamed" }),
        ),
        (
            format!("/api/knowledge-base/base/{}", product.knowledge_base),
            json!({ "name": "Renamed" }),
        ),
        (
            format!("/api/users/{}", user.data()["id"].as_str().unwrap()),
            json!({ "name": "Renamed" }),
        ),
        (
            format!("/api/integrations-base/{}", integration.data()["id"].as_str().unwrap()),
            json!({ "title": "Renamed" }),
        ),
        // The last: what is inside is gone with it.
        (format!("/api/products/{}", product.id), json!({ "name": "Renamed" })),
    ]
}

#[tokio::test]
async fn what_the_client_has_already_is_not_sent_again() {
    let app = TestApp::spawn().await;

    for (path, change) in changeable(&app).await {
        let first = app.get(&path).await.expect_status(200);
        let etag = first.header("etag").to_owned();
        assert!(etag.starts_with('"') && etag.ends_with('"'), "{path}: {first:?}");

        for known in [etag.clone(), format!("W/{etag}"), format!("\"0\", {etag}"), "*".to_owned()] {
            let reply = app.get_with(&path, "If-None-Match", &known).await.expect_status(304);
            assert!(reply.bytes.is_empty(), "{path}: {reply:?}");
            assert_eq!(reply.header("etag"), etag, "{path}");
        }

        app.put(&path, change).await.expect_status(200);
        let changed = app.get_with(&path, "If-None-Match", &etag).await.expect_status(200);
        assert_ne!(changed.header("etag"), etag, "{path}");
    }
}

#[tokio::test]
async fn a_stale_change_is_refused_and_changes_nothing() {
    let app = TestApp::spawn().await;

    for (path, change) in changeable(&app).await {
        let etag = app.get(&path).await.header("etag").to_owned();
        let changed =
            app.put_with(&path, change.clone(), "If-Match", &etag).await.expect_status(200);
        let now = changed.header("etag").to_owned();
        assert_ne!(now, etag, "{path}");
        let before = app.get(&path).await.body;

        let field = change.as_object().unwrap().keys().next().unwrap();
        let other = json!({ field.clone(): "Too late" });
        app.put_with(&path, other.clone(), "If-Match", &etag).await.expect_problem(412, "stale");
        app.put_with(&path, other.clone(), "If-Match", "\"99999\"")
            .await
            .expect_problem(412, "stale");
        app.put_with(&path, other.clone(), "If-Match", format!("W/{now}"))
            .await
            .expect_problem(412, "stale");
        app.put_with(&path, other, "If-Match", "no quotes")
            .await
            .expect_problem(400, "malformed_etag");
        assert_eq!(app.get(&path).await.body, before, "{path}");

        app.put_with(&path, change, "If-Match", "*").await.expect_status(200);
        if !path.contains("/base/") {
            app.delete_with(&path, "If-Match", &etag).await.expect_problem(412, "stale");
            let now = app.get(&path).await.header("etag").to_owned();
            app.delete_with(&path, "If-Match", &now).await.expect_status(200);
            app.get(&path).await.expect_status(404);
        }
    }
}

#[tokio::test]
async fn of_many_who_change_the_same_state_one_wins() {
    let app = TestApp::spawn().await;
    let path = format!("/api/products/{}", app.product().await.id);
    let etag = app.get(&path).await.header("etag").to_owned();

    let changes = (0..8).map(|number| {
        let change = json!({ "name": format!("Name {number}") });
        app.put_with(&path, change, "If-Match", &etag)
    });
    let statuses: Vec<u16> = join_all(changes).await.iter().map(|reply| reply.status).collect();

    assert_eq!(statuses.iter().filter(|status| **status == 200).count(), 1, "{statuses:?}");
    assert!(statuses.iter().all(|status| [200, 412].contains(status)), "{statuses:?}");
}

#[tokio::test]
async fn a_change_that_changes_nothing_moves_nothing() {
    let app = TestApp::spawn().await;
    let path = format!("/api/products/{}", app.product().await.id);
    let before = app.get(&path).await;
    let head = app.head().await;

    let name = before.data()["name"].clone();
    let reply = app.put(&path, json!({ "name": name })).await.expect_status(200);

    assert_eq!(reply.header("etag"), before.header("etag"));
    assert_eq!(app.head().await, head, "an event was written for nothing");
}

#[tokio::test]
async fn counting_does_not_move_what_is_counted() {
    let app = TestApp::spawn().await;
    let product = app.product().await;
    let token = app.token(&product, &[]).await;
    let path = format!("/api/api-tokens/{}", token.id);
    let etag = app.get(&path).await.header("etag").to_owned();

    for _ in 0..3 {
        app.with_token(&token.secret).get("/api/products").await.expect_status(200);
    }

    let after = app.get(&path).await.expect_status(200);
    assert_eq!(after.data()["usage_count"], 3, "{after:?}");
    assert_eq!(after.header("etag"), etag);
    app.put_with(&path, json!({ "name": "Renamed" }), "If-Match", &etag).await.expect_status(200);
}

#[tokio::test]
async fn who_is_signed_in_is_sent_again_when_the_user_has_changed() {
    let app = TestApp::spawn().await;
    let me = app.get("/api/auth/me").await.expect_status(200);
    let user = format!("/api/users/{}", me.data()["user"]["id"].as_str().unwrap());
    let etag = me.header("etag");
    assert_eq!(etag, app.get(&user).await.header("etag"));
    app.get_with("/api/auth/me", "If-None-Match", etag).await.expect_status(304);

    app.put_with(&user, json!({ "name": "Renamed" }), "If-Match", etag).await.expect_status(200);

    let now = app.get_with("/api/auth/me", "If-None-Match", etag).await.expect_status(200);
    assert_eq!(now.data()["user"]["name"], "Renamed");
    assert_ne!(now.header("etag"), etag);
}
