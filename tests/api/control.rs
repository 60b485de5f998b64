//! What a user does with agents from outside: writes one from the guide, has it refused, mends it, kills
//! the server in the middle of it, and pauses, stops and repeats what it asked for.

use std::fs;

use serde_json::{Value, json};

use crate::support::{Product, TestApp, workspace};

/// The manifest of the guide, as it stands there.
fn guide() -> Value {
    let text = fs::read_to_string(workspace().join("docs/agents.md")).unwrap();
    let (_, rest) = text.split_once("```json\n").unwrap();
    serde_json::from_str(rest.split_once("```").unwrap().0).unwrap()
}

async fn install(app: &TestApp, product: &Product, manifest: Value) -> Value {
    let body = json!({ "product_id": product.id, "manifest": manifest });
    app.post("/api/agent-base/install", body).await.expect_status(201).data().clone()
}

/// An agent with these steps.
fn manifest(steps: Value) -> Value {
    json!({
        "manifest": "prodgy.agent/1", "name": "test.control", "version": "1.0.0", "title": "Control",
        "steps": steps,
    })
}

#[tokio::test]
async fn the_agent_of_the_guide_is_mended_installed_cut_off_and_comes_to_its_end() {
    let mut app = TestApp::spawn().await;
    let product = app.product().await;
    let text = "Bees dance to tell each other where flowers are.";
    let file = app.text_file(&product, "bees.txt", text).await;
    app.wait_ready(&file).await;

    let mut wrong = guide();
    wrong["steps"][1]["needs"] = json!(["anyy"]);
    wrong["steps"][2]["timeout"] = json!("30 seconds");
    let body = json!({ "product_id": product.id, "manifest": wrong });
    let refused = app.post("/api/agent-base/install", body).await.expect_status(422);
    let faults = refused.body["errors"].as_array().unwrap();
    for field in ["/manifest/steps/1/needs/0", "/manifest/steps/2/timeout"] {
        assert!(faults.iter().any(|fault| fault["field"] == field), "{field}: {refused:?}");
    }

    let agent = install(&app, &product, guide()).await;
    let input = json!({ "topics": ["how insects find food", "how insects talk"] });
    let execution = app.execute(&agent, input).await;
    app.execution_until(&execution, "waiting").await;
    app.kill();
    app.start();
    let done = app.execution_until(&execution, "succeeded").await;
    let page = done["output"].as_str().unwrap();
    assert_eq!(page.matches(text).count(), 2, "{page}");
    assert!(page.contains("## how insects talk"), "{page}");
    let steps: Vec<&str> =
        done["steps"].as_array().unwrap().iter().map(|s| s["step_id"].as_str().unwrap()).collect();
    for step in ["any", "pause", "found", "found[0]", "found[1]", "texts", "page"] {
        assert!(steps.contains(&step), "{step}: {steps:?}");
    }

    // Nothing to wait for.
    let execution = app.execute(&agent, json!({ "topics": [] })).await;
    let done = app.execution_until(&execution, "succeeded").await;
    let skipped = &done["steps"][1];
    assert_eq!((&skipped["step_id"], &skipped["status"]), (&json!("pause"), &json!("skipped")));
    assert_eq!(skipped["attempts"], json!([]));
}

#[tokio::test]
async fn an_execution_is_paused_continued_stopped_and_repeated() {
    let app = TestApp::spawn().await;
    let product = app.product().await;
    let agent = install(
        &app,
        &product,
        manifest(json!([
            { "id": "first", "type": "transform", "with": { "n": { "cel": "input.n" } } },
            { "id": "wait", "type": "wait", "needs": ["first"], "when": "input.n == 1", "with": { "for": "1h" } },
            { "id": "last", "type": "transform", "needs": ["wait"], "with": { "n": { "cel": "10 / (input.n - 2)" } } },
        ])),
    )
    .await;
    let id = app.execute(&agent, json!({ "n": 1 })).await;
    let path = |verb: &str| format!("/api/workflow/{id}/{verb}");
    let waiting = app.execution_until(&id, "waiting").await;
    assert!(waiting["waiting_until"].is_string(), "{waiting}");
    app.post_empty(&path("continue")).await.expect_problem(409, "execution_not_paused");
    app.post_empty(&path("retry")).await.expect_problem(409, "execution_not_ended");

    let paused = app.post_empty(&path("pause")).await.expect_status(200);
    assert_eq!(paused.data()["status"], "paused");
    app.post_empty(&path("pause")).await.expect_status(200);
    let list =
        format!("/api/agent-base/{}/executions?status=paused", agent["id"].as_str().unwrap());
    assert_eq!(app.get(&list).await.expect_status(200).data()[0]["id"], id.as_str());
    let continued = app.post_empty(&path("continue")).await.expect_status(200);
    assert_eq!(continued.data()["status"], "waiting");
    let stopped = app.post_empty(&path("stop")).await.expect_status(200);
    assert_eq!(stopped.data()["status"], "cancelled");
    assert_eq!(stopped.data()["waiting_until"], Value::Null);
    for verb in ["pause", "continue"] {
        app.post_empty(&path(verb)).await.expect_problem(409, "execution_ended");
    }
    let body = json!({ "from": "failed" });
    app.post(&path("retry"), body).await.expect_problem(409, "nothing_failed");

    // Fails at its last step, again and again: from there, and from the start.
    let failed = app.execute(&agent, json!({ "n": 2 })).await;
    let shown = app.execution_until(&failed, "failed").await;
    assert_eq!(shown["error"]["step_id"], "last", "{shown}");
    let path = format!("/api/workflow/{failed}/retry?wait_seconds=60");
    for (body, first, second) in [
        (json!({ "from": "failed" }), "reused", "wait"),
        (json!({ "from_step": "wait" }), "reused", "wait"),
        (json!({}), "succeeded", "wait"),
    ] {
        let again = app.post(&path, body.clone()).await.expect_status(200);
        assert_eq!(again.data()["retry_of"], failed.as_str(), "{body}");
        assert_eq!(again.data()["status"], "failed", "{body}");
        assert_eq!(again.data()["input"], json!({ "n": 2 }), "{body}");
        let steps = &again.data()["steps"];
        assert_eq!((&steps[0]["step_id"], &steps[0]["status"]), (&json!("first"), &json!(first)));
        assert_eq!(steps[1]["step_id"], second, "{body}: {steps}");
    }
    for (body, code) in [
        (json!({ "from": "failed", "from_step": "wait" }), "from_ambiguous"),
        (json!({ "from_step": "nothing" }), "step_unknown"),
    ] {
        app.post(&path, body).await.expect_problem(422, code);
    }
    app.post(&path, json!({ "from": "middle" })).await.expect_status(422);

    // The same request, sent again, is the same execution.
    let path = format!("/api/workflow/{failed}/retry");
    let one = app.post_with(&path, json!({}), "idempotency-key", "again").await.expect_status(202);
    let two = app.post_with(&path, json!({}), "idempotency-key", "again").await.expect_status(202);
    assert_eq!(one.data()["execution_id"], two.data()["execution_id"]);
}

#[tokio::test]
async fn an_execution_that_takes_too_long_is_timed_out_and_says_so() {
    let app = TestApp::spawn().await;
    let product = app.product().await;
    let mut limited = manifest(json!([
        { "id": "wait", "type": "wait", "with": { "for": { "cel": "'1h'" } } },
    ]));
    limited["limits"] = json!({ "timeout": "1s" });
    let agent = install(&app, &product, limited).await;
    let id = app.execute(&agent, json!({})).await;
    let shown = app.execution_until(&id, "timed_out").await;
    assert_eq!(shown["error"]["code"], "execution_timed_out", "{shown}");
    assert!(shown["error"]["message"].as_str().unwrap().contains("limits.timeout"), "{shown}");
    let again = app.post_empty(&format!("/api/workflow/{id}/retry")).await.expect_status(202);
    let again = again.data()["execution_id"].as_str().unwrap().to_owned();
    app.execution_until(&again, "timed_out").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_too_long_for_an_event_outlives_a_kill_and_is_carried_over_by_a_retry() {
    let mut app = TestApp::spawn().await;
    let product = app.product().await;
    // Sixty thousand characters: more than an event holds.
    let text = "0123456789".repeat(6_000);
    let body = json!({ "product_id": product.id, "manifest": manifest(json!([
        { "id": "long", "type": "transform", "with": { "text": { "template": "{{ input.text }}" } } },
        { "id": "wait", "type": "wait", "needs": ["long"], "with": { "for": "2s" } },
        { "id": "last", "type": "transform", "needs": ["long", "wait"],
          "with": { "size": { "cel": "size(steps.long.output.text) / (1 - input.n)" },
                    "text": { "cel": "steps.long.output.text" } } },
    ])) });
    let agent = app.post("/api/agent-base/install", body).await.expect_status(201).data().clone();
    let good = app.execute(&agent, json!({ "n": 0, "text": text })).await;
    let bad = app.execute(&agent, json!({ "n": 1, "text": text })).await;
    for execution in [&good, &bad] {
        app.execution_until(execution, "waiting").await;
    }
    tokio::task::block_in_place(|| {
        app.kill();
        app.start();
    });
    let shown = app.execution_until(&good, "succeeded").await;
    assert_eq!(shown["output"]["size"], 60_000, "it was read again after the kill");
    assert_eq!(shown["output"]["text"], text.as_str());
    assert_eq!(shown["steps"][0]["output"]["text"], text.as_str());
    assert_eq!(shown["steps"][0]["attempts"].as_array().unwrap().len(), 1, "it was not done again");

    let failed = app.execution_until(&bad, "failed").await;
    assert_eq!(failed["error"]["step_id"], "last", "{}", failed["error"]);
    let path = format!("/api/workflow/{bad}/retry?wait_seconds=60");
    for body in [json!({ "from": "failed" }), json!({ "from_step": "wait" })] {
        let again = app.post(&path, body.clone()).await.expect_status(200);
        let reused = &again.data()["steps"][0];
        assert_eq!((&reused["step_id"], &reused["status"]), (&json!("long"), &json!("reused")));
        assert_eq!(reused["output"]["text"], text.as_str(), "{body}");
        assert_eq!(again.data()["error"]["step_id"], "last", "{body}");
    }
    // No event holds it: it is a blob of its own, each time.
    for execution in [&good, &bad] {
        let path = format!("/api/events?limit=1000&stream=execution-{execution}");
        let events = app.get(&path).await.expect_status(200).data().clone();
        let longest = events.as_array().unwrap().iter().map(|event| event.to_string().len()).max();
        assert!(longest.unwrap() < 16 * 1024, "{longest:?}");
    }
    app.stop();
    app.verified();
}
