//! Replay: a seeded random history, and the same answers whatever became of the read models.
//!
//! The seed is printed; `PRODGY_TEST_SEED=<number>` runs the same walk again.
#![expect(clippy::unwrap_used, reason = "tests")]

mod moving;
mod walk;

use std::collections::BTreeMap;
use std::fs;

use reqwest::Method;
use serde_json::{Value, json};
use tests::chance::seed;
use tests::support::{TestApp, eventually};
use walk::Walk;

/// How many commands a walk has.
const STEPS: usize = 120;

const SEARCH: &str = "/api/knowledge-base/embeddings";

/// Every answer to every read there is, by path, and how long the log was when it was asked for.
struct Answers {
    head: u64,
    by_path: BTreeMap<String, String>,
}

#[tokio::test]
async fn read_models_made_anew_answer_byte_for_byte_the_same() {
    let mut app = TestApp::spawn().await;
    let mut walk = Walk::new(seed());
    walk.go(&app, STEPS).await;
    walk.settle(&app).await;
    let before = answers(&app, &walk, None).await;

    assert!(app.stop().success(), "{}", app.stderr());
    app.verified();
    for folder in ["views", "search"] {
        fs::remove_dir_all(app.data_dir().join(folder)).unwrap();
    }
    app.start();
    let reached = app.head().await;
    app.get_with("/api/products", "X-Min-Position", reached).await.expect_status(200);
    walk.settle(&app).await;

    same(&before, &answers(&app, &walk, Some(before.head)).await);
    assert!(app.stop().success(), "{}", app.stderr());
    app.verified();
}

#[tokio::test]
async fn a_killed_server_comes_back_with_what_it_had_said() {
    let mut app = TestApp::spawn().await;
    let mut walk = Walk::new(seed());
    for _ in 0..3 {
        let steps = walk.pick(STEPS / 3) + 5;
        walk.go(&app, steps).await;
        // In the middle of indexing and executing, if there is any.
        app.kill();
        app.start();
    }
    walk.settle(&app).await;
    let before = answers(&app, &walk, None).await;

    app.kill();
    app.verified();
    for folder in ["views", "search"] {
        fs::remove_dir_all(app.data_dir().join(folder)).unwrap();
    }
    app.start();
    walk.settle(&app).await;

    same(&before, &answers(&app, &walk, Some(before.head)).await);
}

#[tokio::test]
async fn a_rebuild_under_way_is_seen_by_nobody() {
    let app = TestApp::spawn().await;
    let mut walk = Walk::new(seed());
    walk.go(&app, STEPS).await;
    walk.settle(&app).await;
    let before = answers(&app, &walk, None).await;

    app.post_empty("/api/projections/agent/rebuild").await.expect_status(202);
    // Reads go on, and each is answered as before, until the new read models are in use.
    eventually("the rebuild does not end", async || {
        same(&before, &answers(&app, &walk, Some(before.head)).await);
        let views = app.get("/api/projections").await.expect_status(200);
        let mut states = views.data().as_array().unwrap().iter();
        states.all(|view| view["state"] == "running").then_some(())
    })
    .await;
    same(&before, &answers(&app, &walk, Some(before.head)).await);

    app.post_empty("/api/projections/nothing/rebuild")
        .await
        .expect_problem(404, "projection_not_found");
}

/// Reads everything that the walk could have touched. Reading what is gone is an event too: of the
/// logs, only what is not after `head` counts.
async fn answers(app: &TestApp, walk: &Walk, head: Option<u64>) -> Answers {
    let head = match head {
        Some(head) => head,
        None => app.head().await,
    };
    let mut by_path = BTreeMap::new();
    for path in walk.paths() {
        let reply = app.get(&path).await;
        assert!([200, 404].contains(&reply.status), "{path}: {reply:?}");
        let text = match reply.data().as_array() {
            Some(entries) if path.contains("/audit-logs") || path.contains("/events") => {
                let is_old = |entry: &&Value| entry["position"].as_u64().unwrap() <= head;
                json!(entries.iter().filter(is_old).collect::<Vec<_>>()).to_string()
            }
            _ if reply.status == 200 => reply.text(),
            // A problem names its request.
            _ => reply.error().to_owned(),
        };
        by_path.insert(path, format!("{} {} {text}", reply.status, reply.header("etag")));
    }
    for question in walk.questions() {
        let reply = eventually("the search has not taken everything in", async || {
            let request = app.request(Method::POST, SEARCH).header("x-min-position", head);
            let reply = app.send(request.json(&question)).await;
            (reply.status != 503).then_some(reply)
        })
        .await;
        let found = reply.data().to_string();
        by_path.insert(format!("{SEARCH} {question}"), format!("{} {found}", reply.status));
    }
    Answers { head, by_path }
}

#[track_caller]
fn same(before: &Answers, after: &Answers) {
    for (path, answer) in &before.by_path {
        assert_eq!(answer, &after.by_path[path], "{path} is answered differently");
    }
}
