//! Another program, a SQLite shell or a backup, holds the log: writes say so, reads go on.

use rusqlite::Connection;
use serde_json::json;
use tests::support::TestApp;

/// This test's process is the other program.
fn shell(app: &TestApp) -> Connection {
    Connection::open(app.data_dir().join("events.db")).unwrap()
}

#[tokio::test]
async fn a_log_that_another_program_holds_refuses_writes_until_it_is_let_go() {
    let app = TestApp::spawn().await;
    let product = app.product().await;
    let post = async |key: &str| {
        let body = json!({ "name": "Handbook" });
        app.post_with("/api/products", body, "idempotency-key", key).await
    };

    let shell = shell(&app);
    shell.execute_batch("BEGIN EXCLUSIVE").unwrap();
    let (one, other) = tokio::join!(post("one"), post("other"));
    for refused in [one, other] {
        let refused = refused.expect_problem(503, "log_locked");
        assert!(!refused.header("retry-after").is_empty(), "{refused:?}");
        assert!(refused.text().contains("locked by another program"), "{refused:?}");
    }
    app.get(&format!("/api/products/{}", product.id)).await.expect_status(200);
    app.get("/api/events?limit=1000").await.expect_status(200);
    assert_eq!(app.get("/api/products").await.body["pagination"]["total"], 1);
    shell.execute_batch("COMMIT").unwrap();

    for key in ["one", "other"] {
        let reply = post(key).await.expect_status(201);
        assert!(reply.body["replayed"] != true, "it was stored while it was refused: {reply:?}");
    }
    assert_eq!(app.get("/api/products").await.body["pagination"]["total"], 3);
    app.verified();
}

#[tokio::test]
async fn a_start_with_a_log_that_another_program_holds_is_refused_and_changes_nothing() {
    let mut app = TestApp::spawn().await;
    let product = app.product().await;
    app.stop();
    let shell = shell(&app);
    shell.execute_batch("PRAGMA locking_mode = exclusive; BEGIN EXCLUSIVE").unwrap();

    let refused = app.try_start().unwrap_err();
    assert!(refused.contains("exit status: 1"), "{refused}");
    assert!(refused.contains("locked by another program"), "{refused}");
    drop(shell);

    app.start();
    app.get(&format!("/api/products/{}", product.id)).await.expect_status(200);
    app.verified();
}
