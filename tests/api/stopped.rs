//! Read models that stopped at an event which they cannot take in, or are far behind: what depends on
//! them is refused, and nothing is let in by what they no longer know.

use eventlog::conformance::{command_with, event};
use eventlog::{Append, EventStore, Expected, NewEvent, SqliteOptions, SqliteStore, StreamId};
use serde_json::{Value, json};
use uuid::Uuid;

use super::support::{Product, TestApp, eventually};

/// The log of a server that is stopped.
struct Log(SqliteStore);

impl Log {
    fn open(app: &TestApp) -> Log {
        let path = app.data_dir().join("events.db");
        Log(SqliteStore::open(&path, SqliteOptions::default()).unwrap())
    }

    async fn append(&self, stream: &str, event_type: &str, data: &Value, times: usize) {
        let event = NewEvent { event_type: event_type.into(), ..event(data) };
        let append = Append {
            stream: StreamId::from(stream),
            ..command_with(1, Expected::Any, vec![event; times])
        };
        self.0.append(append).await.unwrap();
    }
}

/// Appends an event to the log of a server that is stopped, which the read model of its category cannot
/// take in.
async fn poison(app: &TestApp, category: &str) {
    let log = Log::open(app);
    let stream = format!("{category}-{}", Uuid::now_v7());
    log.append(&stream, &format!("{category}.poisoned.v1"), &json!({}), 1).await;
    log.0.close().await;
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

/// All that a command said.
fn said(output: &std::process::Output) -> String {
    [&output.stdout, &output.stderr].map(|text| String::from_utf8_lossy(text)).concat()
}

#[tokio::test]
async fn on_the_command_line_a_read_model_that_stopped_is_no_success() {
    let (mut app, product, _) = stopped_at("product", "product").await;
    let projections = app.get("/api/projections").await.expect_status(200);
    let rows = projections.data().as_array().unwrap().clone();
    let stopped: Vec<_> = rows.iter().filter(|row| row["state"] == "stopped").collect();
    assert!(stopped.iter().any(|row| row["name"] == "product"), "{rows:?}");
    let metrics = app.get("/metrics").await;
    let metrics = metrics.text();
    let gauge = |name: &str| format!("prodgy_projection_stopped{{projection=\"{name}\"}}");
    assert!(metrics.contains(&format!("{} 1", gauge("product"))), "{metrics}");
    assert!(metrics.contains(&format!("{} 0", gauge("session"))), "{metrics}");

    let beside = app.run(&["projections", "verify"]);
    app.stop();
    let rebuilt = app.run(&["projections", "rebuild", "product"]);
    let after = app.run(&["projections", "verify"]);
    for (output, why) in [
        (&beside, "read model product stopped after position"),
        (&rebuilt, "read model product stopped after position"),
        (&after, "read model product stopped after position"),
    ] {
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        let told = said(output);
        assert!(told.contains(why) && told.contains("product.poisoned.v1"), "{told}");
        assert!(!told.contains("differ"), "{told}");
    }

    // What stopped is not what was forged.
    let views = rusqlite::Connection::open(app.views_file()).unwrap();
    let change = "update knowledge_base set name = 'Forged' where product = ?1";
    assert_eq!(views.execute(change, [&product.id]).unwrap(), 1);
    let forged = app.run(&["projections", "verify"]);
    assert_eq!(forged.status.code(), Some(1));
    assert!(said(&forged).contains("Forged"), "{forged:?}");
}

/// How many events the read models are behind at a start, in commands of [`PIECE`].
const BEHIND: usize = 30_000;
const PIECE: usize = 1_000;

#[tokio::test]
async fn nobody_is_let_in_by_read_models_that_are_behind_at_a_start() {
    let mut app = TestApp::spawn().await;
    let product = app.product().await;
    let token = app.token(&product, &[]).await;
    let program = app.with_token(&token.secret);
    program.get("/api/api-token/auth/validate").await.expect_status(200);
    assert!(app.stop().success());
    // As another node would have done meanwhile: a great deal, and then the revocation.
    let log = Log::open(&app);
    let used = json!({ "method": "GET", "route": "/api/products", "status": 200, "count": 1,
                       "first_at": "2026-11-23T16:00:00.123456Z", "last_at": "2026-11-23T16:00:00.123456Z" });
    for _ in 0..BEHIND / PIECE {
        let usage = format!("token_usage-{}", token.id);
        let uses = json!({ "uses": [used] });
        log.append(&usage, "token_usage.recorded.v1", &uses, PIECE).await;
    }
    let stream = format!("api_token-{}", token.id);
    log.append(&stream, "api_token.revoked.v1", &json!({}), 1).await;
    log.0.close().await;
    app.start();

    let ready = app.nobody().get("/readyz").await;
    let first = program.get("/api/api-token/auth/validate").await;
    // A machine that caught up at once has nothing to say.
    if first.error() == "read_models_behind" {
        assert!(ready.status == 503 && ready.text().contains(" behind the log"), "{ready:?}");
    }
    let answer = eventually("the read models are behind", async || {
        app.nobody().get("/healthz").await.expect_status(200);
        let reply = program.get("/api/api-token/auth/validate").await;
        assert_ne!(reply.status, 200, "a revoked token was let in");
        let is_behind = reply.error() == "read_models_behind";
        assert_eq!(is_behind, reply.status == 503 && reply.header("retry-after") == "1");
        (!is_behind).then_some(reply)
    });
    answer.await.expect_problem(401, "token_revoked");
    app.get("/api/auth/me").await.expect_status(200);
}
