//! Triggers that listen to the clock, and triggers made, replaced and deleted, from outside.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::{Product, TestApp, eventually};

/// An agent that is started by the clock every second, while its trigger is switched on.
fn ticking(product: &Product) -> Value {
    json!({
        "product_id": product.id,
        "manifest": {
            "manifest": "prodgy.agent/1", "name": "acme.clock", "version": "1.0.0", "title": "Clock",
            "inputs": { "type": "object", "properties": { "n": { "type": "integer" } } },
            "triggers": [
                { "id": "manual", "type": "manual" },
                { "id": "tick", "type": "schedule", "cron": "* * * * * *", "overlap": "allow",
                  "input": { "n": { "cel": "40 + 2" } } }
            ],
            "steps": [{ "id": "one", "type": "transform", "with": { "value": { "cel": "input.n" } } }]
        }
    })
}

struct Installed {
    app: TestApp,
    agent: String,
    /// The paths of the triggers of its manifest.
    manual: String,
    tick: String,
}

fn path(trigger: &Value) -> String {
    format!("/api/agent-base/triggers/{}", trigger["id"].as_str().unwrap())
}

async fn installed() -> Installed {
    let app = TestApp::spawn().await;
    let product = app.product().await;
    let reply = app.post("/api/agent-base/install", ticking(&product)).await.expect_status(201);
    let triggers = &reply.data()["triggers"];
    assert_eq!((&triggers[0]["key"], &triggers[1]["key"]), (&json!("manual"), &json!("tick")));
    let agent = reply.data()["id"].as_str().unwrap().to_owned();
    let (manual, tick) = (path(&triggers[0]), path(&triggers[1]));
    Installed { app, agent, manual, tick }
}

impl Installed {
    fn triggers(&self) -> String {
        format!("/api/agent-base/{}/triggers", self.agent)
    }

    async fn executions(&self, trigger: &str) -> Vec<Value> {
        let id = trigger.rsplit('/').next().unwrap();
        let list = format!("/api/agent-base/{}/executions?limit=1000&trigger_id={id}", self.agent);
        let reply = self.app.get(&list).await.expect_status(200);
        reply.data().as_array().unwrap().clone()
    }
}

#[tokio::test]
async fn a_schedule_fires_is_listed_is_disabled_and_stops() {
    let it = installed().await;
    let ran = eventually("nothing was fired", async || {
        let executions = it.executions(&it.tick).await;
        let succeeded = |execution: &&Value| execution["status"] == "succeeded";
        (executions.iter().filter(succeeded).count() >= 2).then_some(executions)
    });
    let ran = ran.await;
    let first = ran.last().unwrap();
    assert_eq!((&first["input"], &first["output"]), (&json!({ "n": 42 }), &json!({ "value": 42 })));

    let shown = it.app.get(&it.tick).await.expect_status(200);
    let trigger = shown.data();
    assert_eq!((&trigger["type"], &trigger["enabled"]), (&json!("schedule"), &json!(true)));
    assert_eq!(trigger["next_firings"].as_array().unwrap().len(), 5);
    assert_eq!(trigger["next_firing_at"], trigger["next_firings"][0]);
    assert!(trigger["last_firing_at"].is_string());
    assert_eq!(trigger["last_outcome"]["status"], "fired");

    // That it fires moves no `ETag`, so what was seen before may be changed.
    let off = json!({
        "type": "schedule", "enabled": false, "cron": "* * * * * *", "overlap": "allow",
        "input": { "n": { "cel": "40 + 2" } },
    });
    let disabled =
        it.app.put_with(&it.tick, off, "if-match", shown.header("etag")).await.expect_status(200);
    assert_eq!(disabled.data()["enabled"], false);
    assert_eq!(disabled.data()["next_firings"], json!([]));
    assert!(disabled.data()["next_firing_at"].is_null());

    // What had fired before has its execution by then.
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    let before = it.executions(&it.tick).await.len();
    tokio::time::sleep(Duration::from_millis(2_500)).await;
    assert_eq!(it.executions(&it.tick).await.len(), before);

    let events = it.app.get("/api/audit-logs?limit=1000&resource_type=trigger").await;
    let actions: Vec<_> = events
        .data()
        .as_array()
        .unwrap()
        .iter()
        .map(|row| row["action"].as_str().unwrap())
        .collect();
    for action in ["created", "fired", "disabled"] {
        assert!(actions.contains(&action), "{actions:?}");
    }
}

#[tokio::test]
async fn a_server_that_was_down_fires_the_newest_missed_instant_once() {
    let mut it = installed().await;
    let rarely = json!({
        "type": "schedule", "cron": "*/2 * * * * *", "missed": "last", "overlap": "allow",
    });
    let made = it.app.post(&it.triggers(), rarely).await.expect_status(201);
    let trigger = path(made.data());
    eventually("nothing was fired", async || {
        (!it.executions(&trigger).await.is_empty()).then_some(())
    })
    .await;
    it.app.kill();
    tokio::time::sleep(Duration::from_secs(3)).await;
    it.app.start();
    let before = it.executions(&trigger).await.len();
    eventually("nothing was fired after the start", async || {
        (it.executions(&trigger).await.len() > before + 1).then_some(())
    })
    .await;

    // Every instant that fired has one execution, and no two have the same.
    let id = trigger.rsplit('/').next().unwrap();
    let events = it.app.get(&format!("/api/audit-logs?limit=1000&resource_id={id}")).await;
    let rows = events.data().as_array().unwrap();
    let mut instants: Vec<_> = rows
        .iter()
        .filter(|row| row["action"] == "fired")
        .map(|row| row["details"]["instant"].as_str().unwrap())
        .collect();
    let fired = instants.len();
    instants.sort_unstable();
    instants.dedup();
    assert_eq!(instants.len(), fired, "an instant fired twice: {rows:?}");
    it.app.stop();
    it.app.verified();
}

#[tokio::test]
async fn a_trigger_is_made_replaced_and_deleted() {
    let it = installed().await;
    let nightly = json!({ "type": "schedule", "cron": "0 3 * * *", "tz": "Europe/Madrid" });
    let made = it
        .app
        .post_with(&it.triggers(), nightly.clone(), "idempotency-key", "one")
        .await
        .expect_status(201);
    let trigger = path(made.data());
    assert_eq!(made.header("location"), trigger);
    assert_eq!(made.data()["configuration"], json!({ "cron": "0 3 * * *", "tz": "Europe/Madrid" }));
    assert_eq!(made.data()["agent_id"], json!(it.agent));
    let again = it.app.post_with(&it.triggers(), nightly, "idempotency-key", "one").await;
    let again = again.expect_status(201);
    assert_eq!((&again.data()["id"], &again.body["replayed"]), (&made.data()["id"], &json!(true)));

    let agent = it.app.get(&format!("/api/agent-base/{}", it.agent)).await.expect_status(200);
    let keys: Vec<_> =
        agent.data()["triggers"].as_array().unwrap().iter().map(|it| it["key"].clone()).collect();
    assert_eq!(keys, [json!("manual"), json!("tick"), made.data()["key"].clone()]);

    let changed = json!({ "type": "schedule", "cron": "0 4 * * *" });
    let replaced = it
        .app
        .put_with(&trigger, changed.clone(), "if-match", made.header("etag"))
        .await
        .expect_status(200);
    assert_eq!(replaced.data()["configuration"], json!({ "cron": "0 4 * * *" }));
    assert_ne!(replaced.header("etag"), made.header("etag"));
    let stale = it.app.put_with(&trigger, changed, "if-match", made.header("etag")).await;
    stale.expect_problem(412, "stale");
    it.app
        .post(&format!("{trigger}/execute"), json!({}))
        .await
        .expect_problem(409, "trigger_not_manual");

    let by_hand = it.app.post(&it.triggers(), json!({ "type": "manual" })).await.expect_status(201);
    let by_hand = path(by_hand.data());
    it.app.post(&format!("{by_hand}/execute"), json!({})).await.expect_status(202);
    it.app.put(&by_hand, json!({ "type": "manual", "enabled": false })).await.expect_status(200);
    let execute = format!("{by_hand}/execute");
    it.app.post(&execute, json!({})).await.expect_problem(409, "trigger_disabled");

    it.app.delete(&it.manual).await.expect_problem(409, "trigger_needed");
    for gone in [&trigger, &by_hand, &it.tick] {
        it.app.delete(gone).await.expect_status(200);
        it.app.get(gone).await.expect_problem(404, "trigger_not_found");
        it.app.delete(gone).await.expect_problem(404, "trigger_not_found");
    }
    let agent = it.app.get(&format!("/api/agent-base/{}", it.agent)).await.expect_status(200);
    assert_eq!(agent.data()["triggers"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn a_trigger_that_is_not_valid_is_refused_with_the_place() {
    let it = installed().await;
    let schedule = |field: &str, value: Value| {
        let mut body = json!({ "type": "schedule", "cron": "0 3 * * *" });
        body[field] = value;
        body
    };
    let table = [
        (schedule("cron", json!("99 * * * *")), "trigger_invalid", "/cron", "cron_invalid"),
        (schedule("cron", json!(5)), "trigger_invalid", "/cron", "type_mismatch"),
        (json!({ "type": "schedule" }), "trigger_invalid", "/cron", "field_missing"),
        (schedule("tz", json!("Mars/Base")), "trigger_invalid", "/tz", "tz_unknown"),
        (schedule("missed", json!("some")), "trigger_invalid", "/missed", "choice_unknown"),
        (schedule("overlap", json!("some")), "trigger_invalid", "/overlap", "choice_unknown"),
        (schedule("jitter", json!("2h")), "trigger_invalid", "/jitter", "duration_out_of_range"),
        (schedule("colour", json!("red")), "trigger_invalid", "/colour", "field_unknown"),
        (schedule("input", json!({ "n": "x" })), "input_invalid", "/input/n", ""),
        (
            schedule("input", json!({ "n": { "cel": "1 +" } })),
            "trigger_invalid",
            "/input/n/cel",
            "cel_invalid",
        ),
        (json!({ "type": "manual", "cron": "x" }), "trigger_invalid", "/cron", "field_unknown"),
    ];
    for (body, code, field, fault) in table {
        let made = it.app.post(&it.triggers(), body.clone()).await.expect_problem(422, code);
        assert_eq!(made.body["errors"][0]["field"], field, "{body}");
        if !fault.is_empty() {
            assert_eq!(made.body["errors"][0]["code"], fault, "{body}");
        }
        if body["type"] == "schedule" {
            it.app.put(&it.tick, body).await.expect_problem(422, code);
        }
    }
    let unknown = it.app.post(&it.triggers(), json!({ "type": "moon" })).await;
    unknown.expect_problem(422, "trigger_type_unknown");
    let other = it.app.put(&it.tick, json!({ "type": "manual" })).await;
    let other = other.expect_problem(422, "trigger_type_fixed");
    assert_eq!(other.body["errors"][0]["field"], "/type");
    let nobody = format!("/api/agent-base/{}/triggers", uuid::Uuid::now_v7());
    it.app.post(&nobody, json!({ "type": "manual" })).await.expect_problem(404, "agent_not_found");
}

#[tokio::test]
async fn why_a_firing_failed_is_shown_on_its_trigger() {
    let it = installed().await;
    it.app.delete(&it.tick).await.expect_status(200);
    let body = json!({
        "type": "schedule", "cron": "* * * * * *", "input": { "n": { "template": "many" } },
    });
    let made = it.app.post(&it.triggers(), body).await.expect_status(201);
    let trigger = path(made.data());
    let failed = eventually("it has not failed", async || {
        let shown = it.app.get(&trigger).await.expect_status(200);
        let outcome = shown.data()["last_outcome"].clone();
        (outcome["status"] == "failed").then_some(outcome)
    });
    let failed = failed.await;
    assert_eq!(failed["code"], "input_invalid", "{failed}");
    assert!(failed["message"].as_str().unwrap().contains("/n"), "{failed}");
    assert!(it.executions(&trigger).await.is_empty());
}

#[tokio::test]
async fn an_agent_that_is_gone_takes_every_trigger_with_it() {
    let it = installed().await;
    let body = json!({ "type": "schedule", "cron": "0 3 * * *" });
    let made = it.app.post(&it.triggers(), body).await.expect_status(201);
    it.app.delete(&format!("/api/agent-base/{}", it.agent)).await.expect_status(200);
    for trigger in [&it.tick, &it.manual, &path(made.data())] {
        it.app.get(trigger).await.expect_problem(404, "trigger_not_found");
    }
}
