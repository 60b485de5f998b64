//! How many executions of an agent run at once, from outside: each strategy, and a server that is killed
//! while one runs and two wait.

use serde_json::{Value, json};

use crate::support::{TestApp, eventually};

/// An agent whose executions wait for an hour, or for a moment.
async fn install(app: &TestApp, concurrency: Value) -> Value {
    let product = app.product().await;
    let manifest = json!({
        "manifest": "prodgy.agent/1", "name": "test.lanes", "version": "1.0.0", "title": "Lanes",
        "limits": { "concurrency": concurrency },
        "steps": [
            { "id": "hour", "type": "wait", "when": "input.long", "with": { "for": "1h" } },
            { "id": "moment", "type": "wait", "needs": ["hour"], "with": { "for": "50ms" } },
        ],
    });
    let body = json!({ "product_id": product.id, "manifest": manifest });
    app.post("/api/agent-base/install", body).await.expect_status(201).data().clone()
}

async fn stop(app: &TestApp, execution: &str) {
    app.post_empty(&format!("/api/workflow/{execution}/stop")).await.expect_status(200);
}

#[tokio::test]
async fn the_rest_waits_through_a_kill_and_comes_in_turn() {
    let mut app = TestApp::spawn().await;
    let agent = install(&app, json!({ "max": 1, "key": "input.who" })).await;
    let ask = async |app: &TestApp, long: bool, who: &str| {
        app.execute(&agent, json!({ "long": long, "who": who })).await
    };
    let first = ask(&app, true, "ann").await;
    app.execution_until(&first, "waiting").await;
    let second = ask(&app, false, "ann").await;
    let third = ask(&app, false, "ann").await;
    // Another key has a place of its own, and was asked for after them.
    let other = ask(&app, false, "bob").await;
    app.execution_until(&other, "succeeded").await;
    for id in [&second, &third] {
        assert_eq!(app.execution(id).await["status"], "queued");
    }

    app.kill();
    app.start();
    let other = ask(&app, false, "bob").await;
    app.execution_until(&other, "succeeded").await;
    assert_eq!(app.execution(&first).await["status"], "waiting");
    for id in [&second, &third] {
        assert_eq!(app.execution(id).await["status"], "queued");
    }
    stop(&app, &first).await;
    let second = app.execution_until(&second, "succeeded").await;
    let third = app.execution_until(&third, "succeeded").await;
    let time = |shown: &Value, field: &str| shown[field].as_str().unwrap().to_owned();
    assert!(time(&second, "ended_at") <= time(&third, "started_at"), "{second} {third}");

    // The lane shows in the audit log, under the agent; the key does not.
    let path = format!("/api/audit-logs?resource_id={}&limit=100", agent["id"].as_str().unwrap());
    let audit = app.get(&path).await.expect_status(200).body.to_string();
    assert!(audit.contains("lane.entered.v1"), "{audit}");
    assert!(!audit.contains("\"ann\""), "{audit}");
}

#[tokio::test]
async fn one_too_many_or_the_oldest_is_cancelled() {
    let app = TestApp::spawn().await;
    for (strategy, cancelled, runs) in [("cancel_new", 1, 0), ("cancel_running", 0, 1)] {
        let agent = install(&app, json!({ "max": 1, "strategy": strategy })).await;
        let first = app.execute(&agent, json!({ "long": true })).await;
        app.execution_until(&first, "waiting").await;
        let second = app.execute(&agent, json!({ "long": true })).await;
        let both = [first, second];
        app.execution_until(&both[cancelled], "cancelled").await;
        app.execution_until(&both[runs], "waiting").await;
        stop(&app, &both[runs]).await;
        // Once its place is free, a new one takes it.
        let third = eventually("no place was freed", async || {
            let third = app.execute(&agent, json!({ "long": false })).await;
            let ended = eventually("it does not end", async || {
                let shown = app.execution(&third).await;
                let is_over = shown["status"] == "succeeded" || shown["status"] == "cancelled";
                is_over.then_some(shown)
            });
            Some(ended.await).filter(|shown| shown["status"] == "succeeded")
        });
        third.await;
    }
}
