//! Sessions from outside: tokens of an OIDC issuer that the operator trusts.

pub mod issuer;

use issuer::{AUDIENCE, Issuer, Signer, key_set, message, now, sign_by_secret};
use serde_json::{Value, json};

use super::support::{Client, OWNER, PASSWORD, TestApp, eventually};

const ADA: &str = "ada@example.com";

async fn spawn(issuer: &Issuer, more: &[(&str, &str)]) -> TestApp {
    let mut settings =
        vec![("PRODGY_OIDC_ISSUER", issuer.url.as_str()), ("PRODGY_OIDC_AUDIENCE", AUDIENCE)];
    settings.extend(more);
    TestApp::spawn_with(&settings).await
}

async fn make_user(app: &TestApp, email: &str, role: &str) -> String {
    let body = json!({ "email": email, "role": role, "password": PASSWORD });
    let made = app.post("/api/users", body).await.expect_status(201);
    made.data()["id"].as_str().unwrap().to_owned()
}

async fn me(client: &Client) -> Value {
    client.get("/api/auth/me").await.expect_status(200).data().clone()
}

async fn users(app: &TestApp) -> usize {
    app.get("/api/users").await.expect_status(200).data().as_array().unwrap().len()
}

async fn outside_sessions(app: &TestApp) -> Vec<Value> {
    let path = "/api/audit-logs?resource_type=session&action=started_outside";
    app.get(path).await.expect_status(200).data().as_array().unwrap().clone()
}

/// The codes under which attempts were recorded, the newest first.
async fn recorded(app: &TestApp) -> Vec<String> {
    let path = "/api/audit-logs?action=rejected&limit=1000";
    let rows = app.get(path).await.expect_status(200);
    let code = |row: &Value| row["details"]["code"].as_str().unwrap().to_owned();
    rows.data().as_array().unwrap().iter().map(code).collect()
}

fn with(mut claims: Value, name: &str, value: Value) -> Value {
    claims[name] = value;
    claims
}

fn without(mut claims: Value, name: &str) -> Value {
    claims.as_object_mut().unwrap().remove(name);
    claims
}

#[tokio::test]
async fn a_token_of_the_issuer_is_a_session_of_the_user_with_its_address() {
    let signer = Signer::rsa("one");
    let issuer = Issuer::open(&[&signer]).await;
    let mut app = spawn(&issuer, &[]).await;
    let user = make_user(&app, ADA, "member").await;
    let claims = issuer.claims("subject-1", "ADA@example.com");
    let ada = app.bearer(&signer.sign(&claims));

    let shown = me(&ada).await;
    assert_eq!((&shown["user"]["id"], &shown["role"]), (&json!(user), &json!("member")));
    assert_eq!(shown["user"]["identity"], json!({ "issuer": issuer.url, "subject": "subject-1" }));
    app.product().await;
    assert_eq!(ada.get("/api/products").await.expect_status(200).data()[0]["name"], "Handbook");
    ada.post("/api/products", json!({ "name": "x" }))
        .await
        .expect_problem(403, "role_insufficient");
    ada.get("/api/users").await.expect_problem(403, "role_insufficient");

    let sessions = outside_sessions(&app).await;
    assert_eq!(sessions.len(), 1, "a token is one session: {sessions:?}");
    assert_eq!(sessions[0]["actor"], format!("user:{user}"));
    assert_eq!(sessions[0]["details"]["issuer"], issuer.url);
    assert!(sessions[0]["address"].is_string(), "{sessions:?}");
    let linked = app.get("/api/audit-logs?action=identity_linked").await.expect_status(200);
    assert_eq!(linked.data()[0]["resource_id"], user);
    assert_eq!(linked.data()[0]["details"], json!({ "issuer": issuer.url }));

    app.restart();
    assert_eq!(me(&ada).await["user"]["id"], user);
    assert_eq!(outside_sessions(&app).await.len(), 1);
    app.stop();
    app.verified();
}

#[tokio::test]
async fn each_check_that_fails_is_told_to_the_audit_log_alone_and_makes_nothing() {
    let (signer, other) = (Signer::rsa("one"), Signer::rsa("two"));
    let issuer = Issuer::open(&[&signer]).await;
    let app = spawn(&issuer, &[("PRODGY_OIDC_PROVISION", "member")]).await;
    let claims = || issuer.claims("subject-1", ADA);
    let header = |alg: &str| json!({ "alg": alg, "kid": "one", "typ": "JWT" });
    let kind = |typ: &str| json!({ "alg": "RS256", "kid": "one", "typ": typ });
    let good = signer.sign(&claims());
    let (signed, _) = good.rsplit_once('.').unwrap();
    let seconds = |seconds: i64| json!(now() as i64 + seconds);
    let cases = [
        (signer.sign(&with(claims(), "iss", json!("https://x.example"))), "session_invalid"),
        (signer.sign(&with(claims(), "iss", json!(format!("{}/", issuer.url)))), "session_invalid"),
        (signer.sign(&with(claims(), "aud", json!("other"))), "jwt_audience_wrong"),
        (signer.sign(&without(claims(), "aud")), "jwt_claim_wrong"),
        (signer.sign(&with(claims(), "exp", seconds(-310))), "jwt_expired"),
        (signer.sign(&without(claims(), "exp")), "jwt_claim_wrong"),
        (signer.sign(&with(claims(), "nbf", seconds(310))), "jwt_not_yet_good"),
        (other.sign(&claims()), "jwt_key_unknown"),
        (other.sign_under(&header("RS256"), &claims()), "jwt_signature_wrong"),
        (format!("{signed}."), "jwt_signature_wrong"),
        (format!("{}.", message(&header("none"), &claims())), "jwt_algorithm_refused"),
        (
            sign_by_secret(&header("HS256"), &claims(), signer.public_pem.as_bytes()),
            "jwt_algorithm_refused",
        ),
        (signer.sign(&without(claims(), "sub")), "jwt_claim_wrong"),
        (signer.sign(&without(claims(), "email")), "identity_email_unverified"),
        (signer.sign(&without(claims(), "email_verified")), "identity_email_unverified"),
        (signer.sign(&with(claims(), "email_verified", json!(false))), "identity_email_unverified"),
        (signer.sign(&with(claims(), "email", json!("no address"))), "identity_email_unverified"),
        (signer.sign_under(&kind("logout+jwt"), &claims()), "jwt_claim_wrong"),
        (signer.sign(&with(claims(), "events", json!({}))), "jwt_claim_wrong"),
        (signer.sign(&with(claims(), "cnf", json!({ "jkt": "x" }))), "jwt_claim_wrong"),
    ];
    let before = users(&app).await;

    for (token, code) in &cases {
        let refused = app.bearer(token).get("/api/auth/me").await;
        refused.expect_problem(401, "session_invalid");
        assert_eq!(recorded(&app).await[0], *code);
    }

    assert_eq!(users(&app).await, before);
    assert_eq!(outside_sessions(&app).await, Vec::<Value>::new());
    // The same over and over is one record with a count.
    let rows = recorded(&app).await.len();
    for _ in 0..50 {
        app.bearer(&cases[4].0).get("/api/products").await.expect_problem(401, "session_invalid");
    }
    assert_eq!(recorded(&app).await.len(), rows + 1);
    me(&app.bearer(&good)).await;
}

#[tokio::test]
async fn nobody_comes_in_whom_nobody_made_unless_it_is_said() {
    let signer = Signer::ec("one");
    let issuer = Issuer::open(&[&signer]).await;
    let app = spawn(&issuer, &[]).await;
    let token = signer.sign(&issuer.claims("subject-1", ADA));
    let ada = app.bearer(&token);
    ada.get("/api/auth/me").await.expect_problem(401, "session_invalid");
    assert_eq!((users(&app).await, recorded(&app).await[0].as_str()), (1, "identity_user_unknown"));

    // The same token is good as soon as there is a user.
    make_user(&app, ADA, "viewer").await;
    assert_eq!(me(&ada).await["role"], "viewer");
}

#[tokio::test]
async fn whoever_comes_first_is_made_once_with_the_role_that_is_configured() {
    let signer = Signer::ec("one");
    let issuer = Issuer::open(&[&signer]).await;
    let mut app = spawn(&issuer, &[("PRODGY_OIDC_PROVISION", "viewer")]).await;
    let tokens: Vec<String> = (0..8)
        .map(|number| {
            let claims = with(issuer.claims("subject-1", ADA), "jti", json!(number));
            signer.sign(&claims)
        })
        .collect();
    let calls = tokens.iter().chain(&tokens).map(|token| {
        let client = app.bearer(token);
        async move { me(&client).await }
    });
    let shown = futures::future::join_all(calls).await;

    for me in &shown {
        assert_eq!((&me["user"]["id"], &me["role"]), (&shown[0]["user"]["id"], &json!("viewer")));
    }
    assert_eq!(
        (&shown[0]["user"]["email"], &shown[0]["user"]["name"]),
        (&json!(ADA), &json!("Ada"))
    );
    assert_eq!(users(&app).await, 2);
    assert_eq!(outside_sessions(&app).await.len(), tokens.len());
    let id = shown[0]["user"]["id"].as_str().unwrap();
    let made = app.get(&format!("/api/audit-logs?action=created&resource_id={id}")).await;
    assert_eq!(made.data()[0]["actor"], "system:oidc");
    // There is no password, and so none to sign in with or to change.
    let login = json!({ "email": ADA, "password": PASSWORD });
    app.nobody().post("/api/auth/login", login).await.expect_problem(401, "bad_credentials");
    let change = json!({ "current_password": "x", "new_password": PASSWORD });
    let change = app.bearer(&tokens[0]).post("/api/auth/password", change).await;
    change.expect_problem(422, "password_none");
    app.stop();
    app.verified();
}

#[tokio::test]
async fn an_address_finds_its_user_once_and_nobody_else_later() {
    let signer = Signer::ec("one");
    let issuer = Issuer::open(&[&signer]).await;
    let app = spawn(&issuer, &[("PRODGY_OIDC_PROVISION", "member")]).await;
    let user = make_user(&app, ADA, "admin").await;
    let come = async |subject: &str, email: &str| {
        app.bearer(&signer.sign(&issuer.claims(subject, email))).get("/api/auth/me").await
    };
    let first = come("ada", ADA).await.expect_status(200);
    assert_eq!(first.data()["user"]["id"], user);

    // Somebody else gets the address at the issuer: that is not Ada.
    come("eve", ADA).await.expect_problem(401, "session_invalid");
    assert_eq!(recorded(&app).await[0], "identity_of_another");
    // Ada gets another address there, even the owner's: she stays Ada.
    for email in ["countess@example.com", OWNER] {
        assert_eq!(come("ada", email).await.expect_status(200).data()["user"]["id"], user);
    }
    // And one without any.
    let bare = without(without(issuer.claims("ada", ADA), "email"), "email_verified");
    assert_eq!(me(&app.bearer(&signer.sign(&bare))).await["user"]["id"], user);
}

#[tokio::test]
async fn a_user_who_was_deleted_does_not_come_back_by_itself() {
    let signer = Signer::ec("one");
    let issuer = Issuer::open(&[&signer]).await;
    let app = spawn(&issuer, &[("PRODGY_OIDC_PROVISION", "member")]).await;
    let token = signer.sign(&issuer.claims("ada", ADA));
    let ada = app.bearer(&token);
    let user = me(&ada).await["user"]["id"].as_str().unwrap().to_owned();

    let deleted = app.delete(&format!("/api/users/{user}")).await;
    assert!(deleted.is_success(), "{deleted:?}");
    ada.get("/api/auth/me").await.expect_problem(401, "session_invalid");
    let rejected = app.get("/api/audit-logs?action=rejected").await.expect_status(200);
    assert_eq!(rejected.data()[0]["actor"], format!("user:{user}"), "it is known who tried");
    let again = signer.sign(&with(issuer.claims("ada", ADA), "jti", json!("another")));
    let again = app.bearer(&again);
    again.get("/api/auth/me").await.expect_problem(401, "session_invalid");
    assert_eq!(recorded(&app).await[0], "identity_user_deleted");
    assert_eq!(users(&app).await, 1);

    // An admin lets her in again.
    let back = eventually("the address is not free yet", async || {
        let body = json!({ "email": ADA, "role": "viewer", "password": PASSWORD });
        let made = app.post("/api/users", body).await;
        made.is_success().then(|| made.data()["id"].clone())
    });
    let back = back.await;
    assert_eq!(me(&again).await["user"]["id"], back);
    ada.get("/api/auth/me").await.expect_problem(401, "session_invalid");
}

#[tokio::test]
async fn a_session_from_outside_ends_as_others_do() {
    let signer = Signer::ec("one");
    let issuer = Issuer::open(&[&signer]).await;
    let mut app = spawn(&issuer, &[]).await;
    make_user(&app, ADA, "member").await;
    let come = |number: u32| {
        app.bearer(&signer.sign(&with(issuer.claims("ada", ADA), "jti", json!(number))))
    };
    let (one, two, three) = (come(1), come(2), come(3));
    for client in [&one, &two] {
        me(client).await;
    }

    one.post_empty("/api/auth/logout").await.expect_status(200);
    one.get("/api/auth/me").await.expect_problem(401, "session_invalid");
    me(&two).await;
    // The user's own password ends them all; a new token is a new session.
    let change = json!({ "current_password": PASSWORD, "new_password": "another password" });
    two.post("/api/auth/password", change).await.expect_status(200);
    two.get("/api/auth/me").await.expect_problem(401, "session_invalid");
    me(&three).await;
    app.restart();
    for client in [&one, &two] {
        client.get("/api/auth/me").await.expect_problem(401, "session_invalid");
    }
    me(&three).await;
}

#[tokio::test]
async fn a_token_is_good_until_it_runs_out() {
    let signer = Signer::ec("one");
    let issuer = Issuer::open(&[&signer]).await;
    let app = spawn(&issuer, &[("PRODGY_OIDC_PROVISION", "member")]).await;
    // Good for three seconds more, the skew counted.
    let ends = now() - 297;
    let ada = app.bearer(&signer.sign(&with(issuer.claims("ada", ADA), "exp", json!(ends))));
    me(&ada).await;
    eventually("the token is still good", async || {
        (ada.get("/api/auth/me").await.status == 401).then_some(())
    })
    .await;
    assert!(now() >= ends + 300);
}

#[tokio::test]
async fn new_keys_are_seen_without_a_restart_and_old_ones_need_not_stay() {
    let (old, new) = (Signer::rsa("old"), Signer::ec("new"));
    let issuer = Issuer::open(&[&old]).await;
    let app = spawn(&issuer, &[("PRODGY_OIDC_PROVISION", "member")]).await;
    me(&app.bearer(&old.sign(&issuer.claims("ada", ADA)))).await;

    issuer.publish(&[&new]);

    me(&app.bearer(&new.sign(&issuer.claims("ada", ADA)))).await;
    let late = old.sign(&with(issuer.claims("ada", ADA), "jti", json!("late")));
    app.bearer(&late).get("/api/auth/me").await.expect_problem(401, "session_invalid");
    assert_eq!(recorded(&app).await[0], "jwt_key_unknown");
}

#[tokio::test]
async fn an_issuer_that_is_down_keeps_nobody_else_out_and_is_asked_again() {
    let signer = Signer::ec("one");
    let issuer = Issuer::open(&[]).await;
    let app = spawn(&issuer, &[("PRODGY_OIDC_PROVISION", "member")]).await;
    let ada = app.bearer(&signer.sign(&issuer.claims("ada", ADA)));

    eventually("nothing is said of the issuer", async || {
        app.stderr().contains("cannot be asked for its keys").then_some(())
    })
    .await;
    me(&app).await;
    let refused = ada.get("/api/auth/me").await.expect_problem(503, "issuer_unavailable");
    assert!(!refused.header("retry-after").is_empty(), "{refused:?}");
    assert_eq!(recorded(&app).await, Vec::<String>::new(), "who is not judged is not refused");

    issuer.publish(&[&signer]);
    eventually("the issuer is not asked again", async || {
        (ada.get("/api/auth/me").await.status == 200).then_some(())
    })
    .await;
    // What was verified stays good while it is down.
    issuer.publish(&[]);
    me(&ada).await;
    me(&app.bearer(&signer.sign(&with(issuer.claims("ada", ADA), "jti", json!(2))))).await;
}

#[tokio::test]
async fn keys_and_claims_are_where_the_operator_says() {
    let signer = Signer::ec("one");
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("keys.json");
    std::fs::write(&file, key_set(&[&signer]).to_string()).unwrap();
    // Nobody listens there, and nobody is asked.
    let mut issuer = Issuer::open(&[]).await;
    issuer.url = "https://login.example.org/".to_owned();
    let app = spawn(
        &issuer,
        &[
            ("PRODGY_OIDC_JWKS", file.to_str().unwrap()),
            ("PRODGY_OIDC_EMAIL_CLAIM", "https://example.org/email"),
            ("PRODGY_OIDC_SUBJECT_CLAIM", "oid"),
            ("PRODGY_OIDC_PROVISION", "admin"),
        ],
    )
    .await;
    let claims = json!({
        "iss": issuer.url, "aud": ["other", AUDIENCE], "exp": now() + 60, "oid": "0815", "sub": "changes",
        "https://example.org/email": ADA, "https://example.org/email_verified": "true",
    });

    let ada = me(&app.bearer(&signer.sign(&claims))).await;
    assert_eq!(
        (&ada["user"]["identity"]["subject"], &ada["role"]),
        (&json!("0815"), &json!("admin"))
    );
    let elsewhere = with(claims, "sub", json!("another"));
    assert_eq!(me(&app.bearer(&signer.sign(&elsewhere))).await["user"]["id"], ada["user"]["id"]);
}

#[tokio::test]
async fn a_user_who_is_unlinked_comes_as_somebody_else_from_there_and_no_more_as_before() {
    let signer = Signer::ec("one");
    let issuer = Issuer::open(&[&signer]).await;
    let app = spawn(&issuer, &[]).await;
    let user = make_user(&app, ADA, "member").await;
    let path = format!("/api/users/{user}/identity");
    app.delete(&path).await.expect_problem(404, "identity_not_linked");
    let old = app.bearer(&signer.sign(&issuer.claims("old", ADA)));
    assert_eq!(me(&old).await["user"]["id"], user);
    let inside = app.login(ADA, PASSWORD).await;
    let token = signer.sign(&with(issuer.claims("new", ADA), "jti", json!("new")));
    let new = app.bearer(&token);
    new.get("/api/auth/me").await.expect_problem(401, "session_invalid");
    assert_eq!(recorded(&app).await[0], "identity_of_another");

    let unlinked = app.delete(&path).await.expect_status(200);
    assert_eq!(unlinked.data()["identity"], Value::Null);
    old.get("/api/auth/me").await.expect_problem(401, "session_invalid");
    inside.get("/api/auth/me").await.expect_status(200);
    let ended = app.get("/api/audit-logs?resource_type=session&action=ended").await;
    assert_eq!(ended.data()[0]["details"]["reason"], "identity_unlinked");
    let shown = me(&new).await;
    assert_eq!(shown["user"]["identity"], json!({ "issuer": issuer.url, "subject": "new" }));
    assert_eq!(shown["user"]["id"], user);
    // The old account is nobody now.
    let again = signer.sign(&with(issuer.claims("old", ADA), "jti", json!("again")));
    app.bearer(&again).get("/api/auth/me").await.expect_problem(401, "session_invalid");
    app.verified();
}
