//! How long what is deleted is kept, by the rules of products and by a clock that is set forward.

use std::time::Duration;

use serde_json::{Value, json};

use super::erasure::{events, in_the_vault, wait_for_event};
use super::support::{Product, TestApp, eventually};
use clock::Clock;

#[path = "../clock/shim.rs"]
mod clock;

const DAY: Duration = Duration::from_secs(24 * 3_600);

/// Sets the rule of a product. Answers the product as it is then.
async fn keep(app: &TestApp, product: &Product, days: Value) -> Value {
    let body = json!({ "retention": { "deleted_files_days": days } });
    let reply = app.put(&format!("/api/products/{}", product.id), body).await;
    reply.expect_status(200).data().clone()
}

/// A file that can be found. Answers its path.
async fn ready(app: &TestApp, product: &Product, text: &str) -> String {
    let file = app.text_file(product, "note.txt", text).await;
    app.wait_ready(&file).await;
    path_of(&file)
}

fn path_of(file: &str) -> String {
    format!("/api/knowledge-base/storage/file/{file}")
}

/// The paths of the files that were erased.
async fn erased(app: &TestApp) -> Vec<String> {
    let events = events(app, "file.erased.v1").await;
    let streams = events.iter().map(|event| event["subject"].as_str().unwrap());
    streams.map(|stream| path_of(stream.strip_prefix("file-").unwrap())).collect()
}

/// The read models of a process manager know of a deletion only in a moment, and nobody waits for it.
async fn wait_erased(app: &TestApp, files: &[&String]) {
    eventually("a file is not erased", async || {
        let erased = erased(app).await;
        files.iter().all(|file| erased.contains(file)).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_deleted_file_is_erased_when_its_product_has_kept_it_long_enough() {
    let clock = Clock::new();
    let settings = clock.settings();
    let settings = settings.each_ref().map(|(name, value)| (name.as_str(), value.as_str()));
    let mut app = TestApp::spawn_with(&settings).await;
    let (product, other) = (app.product().await, app.product().await);
    let empty = in_the_vault(&app);
    let old = ready(&app, &product, "The gate opens at six.").await;
    let there = ready(&app, &product, "The gate closes at nine.").await;
    let elsewhere = ready(&app, &other, "The gate opens at six.").await;
    // What was deleted before the rule was set is under it, too.
    app.delete(&old).await.expect_status(200);
    app.delete(&elsewhere).await.expect_status(200);
    keep(&app, &product, json!(30)).await;
    assert_eq!(in_the_vault(&app), empty + 6, "deleting hides");

    // A day before, and the process manager looks: what another product does not keep goes.
    app.stop();
    clock.set_ahead(29 * DAY);
    app.start();
    app.sign_in().await;
    let quick = app.product().await;
    keep(&app, &quick, json!(0)).await;
    let gone_at_once = ready(&app, &quick, "The gate is painted green.").await;
    let late = ready(&app, &product, "The gate squeaks.").await;
    app.delete(&late).await.expect_status(200);
    app.delete(&gone_at_once).await.expect_status(200);
    wait_erased(&app, &[&gone_at_once]).await;
    assert_eq!(erased(&app).await, std::slice::from_ref(&gone_at_once));
    assert_eq!(in_the_vault(&app), empty + 8);

    // The day comes while the server is down.
    app.kill();
    clock.set_ahead(30 * DAY);
    app.start();
    app.sign_in().await;
    wait_erased(&app, &[&old]).await;
    assert_eq!(in_the_vault(&app), empty + 6);
    for path in [&old, &elsewhere, &late] {
        app.get(path).await.expect_problem(404, "file_not_found");
    }
    app.delete(&format!("{old}?erase=true")).await.expect_problem(404, "file_not_found");
    app.get(&format!("{there}/download")).await.expect_status(200);
    app.delete(&format!("{elsewhere}?erase=true")).await.expect_status(200);
    app.verified();

    // And for the next one while it runs: another deletion makes it look at once, and not within a minute.
    clock.set_ahead(60 * DAY);
    app.sign_in().await;
    app.delete(&there).await.expect_status(200);
    wait_erased(&app, &[&late]).await;
    assert!(!erased(&app).await.contains(&there), "30 days more");

    let file = old.rsplit('/').next().unwrap();
    let trail = app.get(&format!("/api/audit-logs?resource_type=file&resource_id={file}")).await;
    let of = |action: &str| {
        let rows = trail.data().as_array().unwrap().iter();
        rows.filter(|row| row["action"] == action)
            .map(|row| row["actor"].clone())
            .collect::<Vec<_>>()
    };
    assert_eq!(of("erasure_requested"), ["system:retention"], "{trail:?}");
    assert_eq!(of("erased"), ["system:erasure"], "{trail:?}");
    let asked = events(&app, "file.erasure_requested.v1").await;
    let asked = asked.iter().find(|event| event["subject"] == format!("file-{file}")).unwrap();
    let deleted = events(&app, "file.deleted.v1").await;
    let deleted = deleted.iter().find(|event| event["subject"] == format!("file-{file}")).unwrap();
    assert_eq!(asked["causationid"], deleted["id"], "{asked}");
    app.stop();
    app.verified();
}

#[tokio::test]
async fn a_rule_is_shown_changed_and_taken_away() {
    let app = TestApp::spawn().await;
    let product = app.product().await;
    let path = format!("/api/products/{}", product.id);
    let nothing = json!({ "deleted_files_days": null });
    assert_eq!(app.get(&path).await.data()["retention"], nothing);

    let before = app.get(&path).await.header("etag").to_owned();
    assert_eq!(keep(&app, &product, json!(30)).await["retention"]["deleted_files_days"], 30);
    let with = app.get(&path).await.expect_status(200);
    assert_eq!(with.data()["retention"]["deleted_files_days"], 30);
    assert_ne!(with.header("etag"), before);
    assert_eq!(app.get("/api/products").await.data()[0]["retention"], with.data()["retention"]);
    let head = app.head().await;
    keep(&app, &product, json!(30)).await;
    assert_eq!(app.head().await, head, "an event was written for nothing");
    let renamed = app.put(&path, json!({ "name": "Renamed" })).await.expect_status(200);
    assert_eq!(renamed.data()["retention"]["deleted_files_days"], 30, "what is left out stays");

    for wrong in [
        json!(null),
        json!({}),
        json!(30),
        json!({ "deleted_files_days": -1 }),
        json!({ "deleted_files_days": 1.5 }),
        json!({ "deleted_files_days": "30" }),
        json!({ "deleted_files_days": 30, "files_days": 30 }),
    ] {
        let reply = app.put(&path, json!({ "retention": wrong })).await;
        reply.expect_problem(422, "invalid_body");
    }
    let too_long = json!({ "retention": { "deleted_files_days": 36_501 } });
    let reply = app.put(&path, too_long).await.expect_problem(422, "retention_too_long");
    assert_eq!(reply.body["errors"][0]["field"], "/retention/deleted_files_days", "{reply:?}");
    let stale = app.put_with(&path, json!({ "retention": nothing }), "If-Match", &before).await;
    stale.expect_status(412);

    assert_eq!(keep(&app, &product, json!(null)).await["retention"], nothing);
    let trail = app.get("/api/audit-logs?resource_type=product&action=retention_set").await;
    let rules: Vec<_> =
        trail.data().as_array().unwrap().iter().map(|row| &row["details"]).collect();
    assert_eq!(rules, [&json!({}), &json!({ "deleted_files_days": 30 })], "newest first");
    app.verified();
}

#[tokio::test]
async fn what_a_citation_said_goes_with_its_file() {
    let app = TestApp::spawn().await;
    let product = app.product().await;
    let file = ready(&app, &product, "Every employee has 25 days of paid leave.").await;
    let program = app.with_token(&app.token(&product, &["assistant:chat"]).await.secret);
    let question = json!({ "model": "prodgy", "messages": [
        { "role": "user", "content": "How many days of paid leave does an employee have?" }] });
    program.post("/v1/chat/completions", question).await.expect_status(200);
    let run =
        events(&app, "chat_run.requested.v1").await[0]["subject"].as_str().unwrap().to_owned();
    let run = run.strip_prefix("chat_run-").unwrap();
    let path = format!("/api/assistant/chat/runs/{run}/sources/1");
    app.delete(&file).await.expect_status(200);
    let kept = program.get(&path).await.expect_status(200);
    assert_eq!(kept.data()["file_status"], "deleted", "{kept:?}");
    assert_eq!(kept.data()["text"], "Every employee has 25 days of paid leave.", "{kept:?}");

    keep(&app, &product, json!(0)).await;
    wait_for_event(&app, "file.erased.v1").await;

    let erased = program.get(&path).await.expect_status(200);
    assert_eq!(erased.data()["file_status"], "erased", "{erased:?}");
    assert_eq!(erased.data()["text"], Value::Null, "{erased:?}");
}
