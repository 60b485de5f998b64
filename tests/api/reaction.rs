//! Triggers that listen to events of the log, from outside.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::{Product, TestApp, eventually};

/// An agent that reacts to every file that became ready, by a note that becomes a ready file, too.
fn echo(product: &Product, max_depth: u32) -> Value {
    json!({
        "product_id": product.id,
        "manifest": {
            "manifest": "prodgy.agent/1", "name": "acme.echo", "version": "1.0.0", "title": "Echo",
            "inputs": { "type": "object", "properties": { "event": { "type": "object" } }, "required": ["event"] },
            "requires": { "knowledge": [{ "slot": "notes" }] },
            "triggers": [{
                "id": "ready", "type": "event", "match": "event.type == 'file.indexed.v1'",
                "max_depth": max_depth
            }],
            "steps": [{
                "id": "note", "type": "kb.ingest",
                "with": {
                    "knowledge": "notes", "title": { "template": "Echo of {{ input.event.resource_id }}" },
                    "text": { "template": "The file {{ input.event.resource_id }} is ready." }
                }
            }]
        }
    })
}

/// An agent that notes what it was told of, and does nothing.
fn listener(product: &Product, filter: &str) -> Value {
    json!({
        "product_id": product.id,
        "manifest": {
            "manifest": "prodgy.agent/1", "name": "acme.listener", "version": "1.0.0", "title": "Listener",
            "inputs": { "type": "object", "properties": { "file": { "type": "string" } } },
            "triggers": [{
                "id": "ready", "type": "event", "match": filter,
                "input": { "file": { "cel": "event.resource_id" } }
            }],
            "steps": [{ "id": "one", "type": "transform", "with": { "file": { "cel": "input.file" } } }]
        }
    })
}

struct Installed {
    agent: String,
    trigger: String,
}

async fn install(app: &TestApp, body: Value) -> Installed {
    let reply = app.post("/api/agent-base/install", body).await.expect_status(201);
    let triggers = reply.data()["triggers"].as_array().unwrap();
    let trigger = triggers.iter().find(|trigger| trigger["type"] == "event").unwrap();
    let trigger = trigger["id"].as_str().unwrap().to_owned();
    Installed { agent: reply.data()["id"].as_str().unwrap().to_owned(), trigger }
}

impl Installed {
    fn path(&self) -> String {
        format!("/api/agent-base/triggers/{}", self.trigger)
    }

    /// The executions that the trigger started, newest first.
    async fn executions(&self, app: &TestApp) -> Vec<Value> {
        let list = format!(
            "/api/agent-base/{}/executions?limit=1000&trigger_id={}",
            self.agent, self.trigger
        );
        app.get(&list).await.expect_status(200).data().as_array().unwrap().clone()
    }

    /// Waits until so many have succeeded.
    async fn succeeded(&self, app: &TestApp, count: usize) -> Vec<Value> {
        eventually("too few were started", async || {
            let executions = self.executions(app).await;
            let done = executions.iter().filter(|it| it["status"] == "succeeded").count();
            (done >= count).then_some(executions)
        })
        .await
    }
}

#[tokio::test]
async fn an_agent_that_starts_itself_ends_at_its_depth_and_its_trigger_says_so() {
    let app = TestApp::spawn().await;
    let product = app.product().await;
    let echo = install(&app, echo(&product, 3)).await;
    let file = app.text_file(&product, "first.txt", "The first file.").await;
    app.wait_ready(&file).await;
    let stopped = eventually("it goes on and on", async || {
        let shown = app.get(&echo.path()).await.expect_status(200);
        (shown.data()["last_outcome"]["status"] == "too_deep").then(|| shown.data().clone())
    });
    let shown = stopped.await;
    assert_eq!(shown["last_outcome"]["code"], "max_depth", "{shown}");
    assert!(shown["last_firing_at"].is_string(), "{shown}");
    tokio::time::sleep(Duration::from_millis(500)).await;
    let executions = echo.succeeded(&app, 3).await;
    assert_eq!(executions.len(), 3, "{executions:?}");
    let first = &executions[2];
    assert_eq!(first["input"]["event"]["resource_id"], file.as_str(), "{first}");
    assert_eq!(first["input"]["event"]["type"], "file.indexed.v1");
    let metrics = app.nobody().get("/metrics").await;
    let told = r#"prodgy_reactions_total{outcome="too_deep"} 1"#;
    assert!(metrics.text().contains(told), "{}", metrics.text());
    assert!(app.stderr().contains("an event starts nothing more"));
}

#[tokio::test]
async fn what_happened_before_a_crash_or_while_no_server_ran_is_reacted_to_once() {
    let mut app = TestApp::spawn().await;
    let product = app.product().await;
    let before = app.text_file(&product, "before.txt", "Before anybody listens.").await;
    app.wait_ready(&before).await;
    let it = install(&app, listener(&product, "event.type == 'file.uploaded.v1'")).await;
    let mut files = Vec::new();
    for round in 0..5 {
        let name = format!("{round}.txt");
        files.push(app.text_file(&product, &name, &format!("Round {round}.")).await);
        app.kill();
        app.start();
    }
    let executions = it.succeeded(&app, 5).await;
    let mut started: Vec<_> =
        executions.iter().map(|it| it["input"]["file"].as_str().unwrap().to_owned()).collect();
    started.sort_unstable();
    files.sort_unstable();
    assert_eq!(started, files);
    app.restart();
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(it.executions(&app).await.len(), 5);
    app.stop();
    app.verified();
}

#[tokio::test]
async fn an_event_trigger_is_made_changed_switched_off_and_deleted() {
    let app = TestApp::spawn().await;
    let product = app.product().await;
    let it = install(&app, listener(&product, "event.type == 'file.uploaded.v1'")).await;
    let uploaded = json!({
        "type": "event", "match": "event.type == 'file.uploaded.v1'",
        "input": { "file": { "cel": "event.resource_id" } },
    });
    let mut off = uploaded.clone();
    off["enabled"] = json!(false);
    let shown = app.put(&it.path(), off).await.expect_status(200);
    assert_eq!((&shown.data()["enabled"], &shown.data()["type"]), (&json!(false), &json!("event")));
    app.text_file(&product, "unheard.txt", "Nobody listens.").await;
    let mut on = uploaded.clone();
    on["enabled"] = json!(true);
    app.put(&it.path(), on).await.expect_status(200);
    let heard = app.text_file(&product, "heard.txt", "Somebody listens.").await;
    let executions = it.succeeded(&app, 1).await;
    assert_eq!(executions.len(), 1);
    assert_eq!(executions[0]["input"]["file"], heard.as_str());
    let shown = app.get(&it.path()).await.expect_status(200);
    let outcome = &shown.data()["last_outcome"];
    assert_eq!(
        (&outcome["status"], &outcome["execution_id"]),
        (&json!("fired"), &executions[0]["id"])
    );

    let triggers = format!("/api/agent-base/{}/triggers", it.agent);
    let broken = json!({
        "type": "event", "match": "event.type == 'file.uploaded.v1'",
        "input": { "file": { "cel": "event.data.nothing" } },
    });
    let made = app.post(&triggers, broken).await.expect_status(201);
    let path = format!("/api/agent-base/triggers/{}", made.data()["id"].as_str().unwrap());
    app.delete(&it.path()).await.expect_status(200);
    app.text_file(&product, "later.txt", "Only the other one listens.").await;
    let failed = eventually("it has not failed", async || {
        let shown = app.get(&path).await.expect_status(200);
        let outcome = shown.data()["last_outcome"].clone();
        (outcome["status"] == "failed").then_some(outcome)
    });
    let failed = failed.await;
    assert_eq!(failed["code"], "input_invalid", "{failed}");
    assert!(failed["message"].as_str().unwrap().contains("/file"), "{failed}");
    assert_eq!(it.executions(&app).await.len(), 1);

    let table = [
        (json!({ "type": "event" }), "/match", "field_missing"),
        (json!({ "type": "event", "match": "event. ==" }), "/match", "cel_invalid"),
        (json!({ "type": "event", "match": "input.n == 1" }), "/match", "name_unknown"),
        (json!({ "type": "event", "match": "true", "max_depth": 17 }), "/max_depth", ""),
    ];
    for (body, field, code) in table {
        let refused = app.post(&triggers, body).await.expect_problem(422, "trigger_invalid");
        assert_eq!(refused.body["errors"][0]["field"], field, "{refused:?}");
        assert!(code.is_empty() || refused.body["errors"][0]["code"] == code, "{refused:?}");
    }
}

#[tokio::test]
async fn events_of_another_product_start_nothing() {
    let app = TestApp::spawn().await;
    let (one, other) = (app.product().await, app.product().await);
    let it = install(&app, listener(&one, "event.type == 'file.uploaded.v1'")).await;
    app.text_file(&other, "other.txt", "In another product.").await;
    let own = app.text_file(&one, "own.txt", "In its own.").await;
    let executions = it.succeeded(&app, 1).await;
    assert_eq!(executions.len(), 1);
    assert_eq!(executions[0]["input"]["file"], own.as_str());
}
