//! Users: made, changed and deleted by admins.

use serde_json::{Value, json};

use super::support::{OWNER, PASSWORD, Reply, TestApp};

fn person(email: &str, role: &str) -> Value {
    json!({ "email": email, "name": "Bob", "role": role, "password": PASSWORD })
}

async fn made(app: &TestApp, email: &str, role: &str) -> Reply {
    app.post("/api/users", person(email, role)).await.expect_status(201)
}

#[tokio::test]
async fn a_user_can_be_made_looked_at_changed_and_deleted() {
    let app = TestApp::spawn().await;
    let reply = made(&app, "Bob@Example.com", "member").await;
    let path = reply.header("location").to_owned();
    assert_eq!(reply.data()["email"], "Bob@example.com", "the domain of an address has no case");
    assert_eq!(app.get(&path).await.expect_status(200).data(), reply.data());

    let change = json!({ "email": "rob@example.com", "name": "Rob", "role": "admin" });
    let changed =
        app.put_with(&path, change, "If-Match", reply.header("etag")).await.expect_status(200);
    let shown = |name: &str| changed.data()[name].as_str().unwrap().to_owned();
    assert_eq!([shown("email"), shown("name"), shown("role")], ["rob@example.com", "Rob", "admin"]);
    assert_eq!(app.get("/api/users").await.data().as_array().unwrap().len(), 2);

    let session = app.login("rob@example.com", PASSWORD).await;
    app.delete(&path).await.expect_status(200);
    session.get("/api/auth/me").await.expect_status(401);
    app.get(&path).await.expect_problem(404, "user_not_found");
    let login = json!({ "email": "rob@example.com", "password": PASSWORD });
    app.nobody().post("/api/auth/login", login).await.expect_problem(401, "bad_credentials");
    made(&app, "rob@example.com", "viewer").await;
}

#[tokio::test]
async fn an_address_has_one_user_and_what_is_refused_takes_none() {
    let app = TestApp::spawn().await;
    let bob = made(&app, "bob@example.com", "member").await;
    app.post("/api/users", person("BOB@example.com", "member"))
        .await
        .expect_problem(409, "email_taken");
    let admin = app.user("admin").await;
    let before = app.head().await;

    admin
        .post("/api/users", person("free@example.com", "owner"))
        .await
        .expect_problem(403, "owner_required");
    let path = bob.header("location");
    let move_away = json!({ "email": "free@example.com" });
    app.put_with(path, move_away.clone(), "If-Match", "\"99\"").await.expect_problem(412, "stale");
    app.put(path, json!({ "email": OWNER })).await.expect_problem(409, "email_taken");

    let stored = app.get(&format!("/api/events?after={before}&limit=100")).await.expect_status(200);
    let kinds: Vec<&Value> =
        stored.data().as_array().unwrap().iter().map(|event| &event["type"]).collect();
    assert!(kinds.iter().all(|kind| *kind == "access_log.rejected.v2"), "{kinds:?}");
    app.put(path, move_away).await.expect_status(200);
    made(&app, "bob@example.com", "member").await;
}

#[tokio::test]
async fn nobody_changes_what_is_above_them_or_their_own_role() {
    let app = TestApp::spawn().await;
    let owner = app.get("/api/auth/me").await.data()["user"]["id"].as_str().unwrap().to_owned();
    let path = format!("/api/users/{owner}");
    let admin = app.user("admin").await;

    admin.put(&path, json!({ "name": "Mallory" })).await.expect_problem(403, "owner_required");
    admin.delete(&path).await.expect_problem(403, "owner_required");
    app.put(&path, json!({ "role": "viewer" })).await.expect_problem(409, "own_role_unchangeable");
    app.delete(&path).await.expect_problem(409, "user_is_yourself");
    app.user("member").await.get("/api/users").await.expect_problem(403, "role_insufficient");
}

#[tokio::test]
async fn a_password_that_an_admin_sets_ends_the_sessions_of_the_user() {
    let app = TestApp::spawn().await;
    let bob = made(&app, "bob@example.com", "member").await;
    let session = app.login("bob@example.com", PASSWORD).await;

    app.put(bob.header("location"), json!({ "password": "another password" }))
        .await
        .expect_status(200);

    session.get("/api/auth/me").await.expect_status(401);
    app.login("bob@example.com", "another password").await;
}
