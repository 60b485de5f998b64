//! Manual triggers from outside: looked at, listed, executed.

use serde_json::{Value, json};

use crate::agent::counter;
use crate::support::TestApp;

struct Installed {
    app: TestApp,
    agent: Value,
    trigger: String,
}

async fn installed() -> Installed {
    let app = TestApp::spawn().await;
    let product = app.product().await;
    let reply = app.post("/api/agent-base/install", counter(&product)).await.expect_status(201);
    let agent = reply.data().clone();
    let trigger =
        format!("/api/agent-base/triggers/{}", agent["triggers"][0]["id"].as_str().unwrap());
    Installed { app, agent, trigger }
}

#[tokio::test]
async fn a_trigger_is_found_by_its_id_and_by_its_version() {
    let Installed { app, agent, trigger } = installed().await;
    let shown = app.get(&trigger).await.expect_status(200);
    assert_eq!((&shown.data()["key"], &shown.data()["type"]), (&json!("manual"), &json!("manual")));
    assert_eq!((&shown.data()["enabled"], &shown.data()["agent_id"]), (&json!(true), &agent["id"]));
    app.get_with(&trigger, "if-none-match", shown.header("etag")).await.expect_status(304);
    let version = agent["version_id"].as_str().unwrap();
    let listed = app
        .get(&format!("/api/agent-base/triggers/manual/version/{version}"))
        .await
        .expect_status(200);
    assert_eq!(listed.data(), &json!([shown.data()]));
    let none = format!("/api/agent-base/triggers/manual/version/{}", uuid::Uuid::now_v7());
    app.get(&none).await.expect_problem(404, "version_not_found");
}

#[tokio::test]
async fn executing_answers_at_once_or_with_the_whole_execution() {
    let Installed { app, agent, trigger } = installed().await;
    let execute = format!("{trigger}/execute");
    let accepted = app.post(&execute, json!({ "input": { "n": 1 } })).await.expect_status(202);
    let id = accepted.data()["execution_id"].as_str().unwrap();
    let ended = app.wait_execution(agent["id"].as_str().unwrap(), id).await;
    assert_eq!((&ended["status"], &ended["output"]), (&json!("succeeded"), &json!(5)));

    let whole =
        app.post(&format!("{execute}?wait_seconds=60"), json!({ "input": { "n": 2 } })).await;
    let whole = whole.expect_status(200);
    assert_eq!(whole.data()["output"], 6);
    assert_eq!(whole.data()["input"], json!({ "n": 2 }));
    let steps: Vec<_> =
        whole.data()["steps"].as_array().unwrap().iter().map(|step| &step["step_id"]).collect();
    assert_eq!(steps, ["one", "two"]);
    assert_eq!(whole.data()["steps"][0]["attempts"][0]["status"], "succeeded");
    assert!(whole.data()["error"].is_null());

    let fired = app.get(&trigger).await.expect_status(200);
    assert!(fired.data()["last_firing_at"].is_string());
    let shown = app
        .get(&format!("/api/agent-base/{}", agent["id"].as_str().unwrap()))
        .await
        .expect_status(200);
    assert_eq!(shown.data()["last_execution"]["id"], whole.data()["id"]);
}

#[tokio::test]
async fn a_request_to_execute_that_cannot_be_met_is_refused() {
    let Installed { app, agent, trigger } = installed().await;
    let execute = format!("{trigger}/execute");
    let invalid = app
        .post(&execute, json!({ "input": { "n": "one" } }))
        .await
        .expect_problem(422, "input_invalid");
    assert_eq!(invalid.body["errors"][0]["field"], "/input/n");
    app.post_empty(&execute).await.expect_problem(422, "input_invalid");
    for wait in ["61", "-1", "soon"] {
        let path = format!("{execute}?wait_seconds={wait}");
        app.post(&path, json!({ "input": { "n": 1 } }))
            .await
            .expect_problem(400, "invalid_parameters");
    }
    let nobody = format!("/api/agent-base/triggers/{}/execute", uuid::Uuid::now_v7());
    app.post(&nobody, json!({})).await.expect_problem(404, "trigger_not_found");

    let path = format!("/api/agent-base/{}", agent["id"].as_str().unwrap());
    app.put(&path, json!({ "enabled": false })).await.expect_status(200);
    app.post(&execute, json!({ "input": { "n": 1 } })).await.expect_problem(409, "agent_disabled");
    let viewer = app.user("viewer").await;
    viewer
        .post(&execute, json!({ "input": { "n": 1 } }))
        .await
        .expect_problem(403, "role_insufficient");
}

#[tokio::test]
async fn an_execution_that_is_asked_for_twice_is_run_once_even_after_the_agent_is_gone() {
    let Installed { app, agent, trigger } = installed().await;
    let execute = format!("{trigger}/execute");
    let body = json!({ "input": { "n": 1 } });
    let first =
        app.post_with(&execute, body.clone(), "idempotency-key", "run-1").await.expect_status(202);
    let id = first.data()["execution_id"].as_str().unwrap();
    app.wait_execution(agent["id"].as_str().unwrap(), id).await;
    app.delete(&format!("/api/agent-base/{}", agent["id"].as_str().unwrap()))
        .await
        .expect_status(200);
    let second =
        app.post_with(&execute, body.clone(), "idempotency-key", "run-1").await.expect_status(202);
    assert_eq!((second.data(), &second.body["replayed"]), (first.data(), &json!(true)));
    app.post(&execute, body).await.expect_problem(404, "trigger_not_found");
}
