//! Signing in, staying signed in, signing out.

use serde_json::json;

use super::support::{Client, OWNER, PASSWORD, Reply, TestApp};

async fn sign_in(app: &TestApp) -> Reply {
    app.nobody()
        .post("/api/auth/login", json!({ "email": OWNER, "password": PASSWORD }))
        .await
        .expect_status(200)
}

async fn refresh(app: &TestApp, token: &str) -> Reply {
    app.nobody().post("/api/auth/refresh", json!({ "refresh_token": token })).await
}

fn text<'a>(reply: &'a Reply, name: &str) -> &'a str {
    reply.data()[name].as_str().unwrap()
}

fn client(app: &TestApp, reply: &Reply) -> Client {
    app.bearer(text(reply, "access_token"))
}

#[tokio::test]
async fn a_session_is_two_tokens_that_nobody_on_the_way_may_keep() {
    let app = TestApp::spawn().await;
    let session = sign_in(&app).await;

    assert_eq!(session.header("cache-control"), "no-store");
    assert_eq!(session.data()["token_type"], "Bearer");
    assert!(session.data()["expires_in"].as_i64().unwrap() > 0 && session.position() > 0);
    let me = client(&app, &session).get("/api/auth/me").await.expect_status(200);
    assert_eq!((&me.data()["user"]["email"], &me.data()["role"]), (&json!(OWNER), &json!("owner")));
    assert!(me.data()["organization"]["id"].is_string(), "{me:?}");
}

#[tokio::test]
async fn an_idempotency_key_never_brings_a_session_back() {
    let app = TestApp::spawn().await;
    let body = json!({ "email": OWNER, "password": PASSWORD });
    let sign_in = async || {
        app.nobody().post_with("/api/auth/login", body.clone(), "Idempotency-Key", "once").await
    };

    let (first, second) = (sign_in().await.expect_status(200), sign_in().await.expect_status(200));

    assert_ne!(text(&first, "refresh_token"), text(&second, "refresh_token"));
    for session in [first, second] {
        client(&app, &session).get("/api/auth/me").await.expect_status(200);
        refresh(&app, text(&session, "refresh_token")).await.expect_status(200);
    }
}

#[tokio::test]
async fn who_is_unknown_and_who_errs_hear_the_same() {
    let app = TestApp::spawn().await;
    for (email, password) in
        [(OWNER, "wrong"), ("nobody@example.com", PASSWORD), ("no address", PASSWORD), (OWNER, "")]
    {
        let body = json!({ "email": email, "password": password });
        app.nobody().post("/api/auth/login", body).await.expect_problem(401, "bad_credentials");
    }
}

#[tokio::test]
async fn a_refresh_token_used_twice_ends_its_whole_family_at_once() {
    let app = TestApp::spawn().await;
    let (family, other) = (sign_in(&app).await, sign_in(&app).await);
    let child = refresh(&app, text(&family, "refresh_token")).await.expect_status(200);
    client(&app, &family).get("/api/auth/me").await.expect_status(200);

    refresh(&app, text(&family, "refresh_token")).await.expect_problem(401, "session_ended");

    for session in [&family, &child] {
        client(&app, session).get("/api/auth/me").await.expect_problem(401, "session_invalid");
    }
    refresh(&app, text(&child, "refresh_token")).await.expect_problem(401, "session_ended");
    client(&app, &other).get("/api/auth/me").await.expect_status(200);
    let ends =
        app.get("/api/audit-logs?resource_type=session&action=ended").await.expect_status(200);
    assert_eq!(ends.data()[0]["details"]["reason"], "reuse", "{ends:?}");
    assert!(ends.data()[0]["actor"].as_str().unwrap().starts_with("user:"), "{ends:?}");
}

#[tokio::test]
async fn a_refresh_token_that_was_never_ours_ends_nothing() {
    let app = TestApp::spawn().await;
    let session = sign_in(&app).await;
    let (id, _) = text(&session, "refresh_token").split_once('.').unwrap();

    for token in [
        "",
        "x",
        &format!("{id}."),
        &format!("{id}.guess"),
        &format!("{}.guess", uuid::Uuid::now_v7()),
    ] {
        refresh(&app, token).await.expect_problem(401, "refresh_token_invalid");
    }

    client(&app, &session).get("/api/auth/me").await.expect_status(200);
    refresh(&app, text(&session, "refresh_token")).await.expect_status(200);
}

#[tokio::test]
async fn signing_out_ends_one_session_at_once() {
    let app = TestApp::spawn().await;
    let (one, other) = (sign_in(&app).await, sign_in(&app).await);

    client(&app, &one).post_empty("/api/auth/logout").await.expect_status(200);

    client(&app, &one).get("/api/auth/me").await.expect_problem(401, "session_invalid");
    refresh(&app, text(&one, "refresh_token")).await.expect_problem(401, "session_ended");
    client(&app, &other).post("/api/auth/logout", json!({})).await.expect_status(200);
}

#[tokio::test]
async fn the_own_password_is_changed_only_by_who_knows_it() {
    let app = TestApp::spawn().await;
    let change = |old: &str, new: &str| json!({ "current_password": old, "new_password": new });

    let wrong = app.post("/api/auth/password", change("wrong password", "another password")).await;
    let short = app.post("/api/auth/password", change(PASSWORD, "short")).await;

    assert_eq!(
        wrong.expect_problem(422, "password_wrong").body["errors"][0]["field"],
        "/current_password"
    );
    assert_eq!(
        short.expect_problem(422, "password_length").body["errors"][0]["field"],
        "/new_password"
    );
    app.login(OWNER, PASSWORD).await;
}

#[tokio::test]
async fn guessing_the_own_password_is_limited_as_signing_in_is() {
    let app = TestApp::spawn_with(&[("PRODGY_SIGN_IN_LIMIT_PER_MINUTE", "2")]).await;
    let guess = json!({ "current_password": "a guess", "new_password": "another password" });

    // Signing in was the first of the two.
    let reply = app.post("/api/auth/password", guess.clone()).await;
    assert_eq!(reply.expect_problem(422, "password_wrong").header("ratelimit-limit"), "2");
    let reply = app.post("/api/auth/password", guess).await.expect_problem(429, "rate_limited");

    assert!(!reply.header("retry-after").is_empty(), "{reply:?}");
    app.get("/api/auth/me").await.expect_status(200);
}
