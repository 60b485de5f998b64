//! Runs of agents from outside: asked for, looked at, followed, stopped.

use std::time::Duration;

use reqwest::{Method, Response};
use serde_json::{Value, json};

use crate::agent::counter;
use crate::support::{Client, PATIENCE, Product, Reply, TestApp, eventually};

const EXECUTE: &str = "/api/workflow/execute";

/// How many executions of one product run at once, half of all; the others wait for them.
const AT_ONCE: usize = 8;

/// A server with an agent that counts.
struct Counting {
    app: TestApp,
    product: Product,
    agent: Value,
}

async fn counting() -> Counting {
    let app = TestApp::spawn().await;
    let product = app.product().await;
    let reply = app.post("/api/agent-base/install", counter(&product)).await.expect_status(201);
    let agent = reply.data().clone();
    Counting { app, product, agent }
}

impl Counting {
    /// An execution that has ended well.
    async fn ran(&self, n: i64) -> Value {
        let body = json!({ "agent_id": self.agent["id"], "input": { "n": n } });
        let path = format!("{EXECUTE}?wait_seconds=60");
        self.app.post(&path, body).await.expect_status(200).data().clone()
    }
}

/// A server with an agent that searches, and no model to search with: an execution waits for it in its
/// first step for half a minute, and what does not fit beside those stays in the queue.
struct Waiting {
    app: TestApp,
    product: Product,
    agent: String,
    trigger: String,
}

async fn waiting() -> Waiting {
    let settings = [("PRODGY_MODEL_DIR", "/nowhere"), ("PRODGY_AGENT_WORKERS", "16")];
    let app = TestApp::spawn_with(&settings).await;
    let product = app.product().await;
    let agent = app.agent(&product).await;
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let trigger = text(&agent["triggers"][0]["id"]);
    Waiting { app, product, agent: text(&agent["id"]), trigger }
}

impl Waiting {
    async fn execute(&self, query: &str) -> String {
        let body = json!({ "agent_id": self.agent, "input": { "query": query } });
        let reply = self.app.post(EXECUTE, body).await.expect_status(202);
        reply.data()["execution_id"].as_str().unwrap().to_owned()
    }

    /// Executions of which the first ones wait in their step, and the last ones in the queue.
    async fn full(&self, queued: usize) -> Vec<String> {
        let mut executions = Vec::new();
        for number in 1..=AT_ONCE + queued {
            executions.push(self.execute(&format!("question {number}")).await);
        }
        for execution in &executions[..AT_ONCE] {
            self.in_step(execution).await;
        }
        executions
    }

    /// Waits until an execution is in its first step.
    async fn in_step(&self, execution: &str) {
        eventually("the execution is not in its step", async || {
            let shown = status(&self.app, execution).await;
            (!shown["steps"].as_array().unwrap().is_empty()).then_some(())
        })
        .await;
    }

    async fn listed(&self, query: &str) -> u64 {
        let path = format!("/api/agent-base/{}/executions?{query}", self.agent);
        let reply = self.app.get(&path).await.expect_status(200);
        reply.body["pagination"]["total"].as_u64().unwrap()
    }

    fn stop_path(&self, query: &str) -> String {
        format!("/api/agent-base/{}/executions/stop?{query}", self.agent)
    }
}

async fn status(client: &Client, execution: &str) -> Value {
    let reply = client.get(&format!("/api/workflow/{execution}/status")).await;
    reply.expect_status(200).data().clone()
}

async fn stop(client: &Client, execution: &str) -> Reply {
    client.post_empty(&format!("/api/workflow/{execution}/stop")).await
}

/// The types of the events of an execution, as the log has them.
async fn stored(app: &TestApp, execution: &str) -> Vec<String> {
    let path = format!("/api/events?limit=1000&stream=execution-{execution}");
    let reply = app.get(&path).await.expect_status(200);
    let events = reply.data().as_array().unwrap().iter();
    events.map(|event| event["type"].as_str().unwrap().to_owned()).collect()
}

/// An event as it came.
#[derive(Clone, Debug, PartialEq)]
struct Heard {
    id: String,
    name: String,
    data: Value,
}

/// A stream that was opened, and what has come of it so far.
struct Open {
    response: Response,
    text: String,
}

impl Open {
    async fn new(client: &Client, execution: &str, after: Option<&str>) -> Open {
        let request = client.request(Method::GET, &format!("/api/workflow/{execution}/events"));
        let request = match after {
            Some(id) => request.header("last-event-id", id),
            None => request,
        };
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), 200, "{execution}");
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        Open { response, text: String::new() }
    }

    async fn wait_for(&mut self, what: &str) {
        while !self.text.contains(what) {
            assert!(self.read().await, "the stream ended without {what}: {}", self.text);
        }
    }

    /// Reads to the end, and answers all of it.
    async fn end(mut self) -> Vec<Heard> {
        while self.read().await {}
        heard(&self.text)
    }

    async fn read(&mut self) -> bool {
        let chunk = tokio::time::timeout(PATIENCE, self.response.chunk()).await;
        let chunk = chunk.unwrap_or_else(|_| panic!("nothing comes, and no end: {}", self.text));
        let Some(chunk) = chunk.unwrap() else { return false };
        self.text.push_str(&String::from_utf8_lossy(&chunk));
        true
    }
}

fn heard(text: &str) -> Vec<Heard> {
    let blocks = text.split("\n\n").filter(|block| block.contains("event:"));
    blocks
        .map(|block| {
            let field = |name: &str| {
                let value = block.lines().find_map(|line| line.strip_prefix(name));
                value.unwrap_or_default().trim().to_owned()
            };
            let data = serde_json::from_str(&field("data:")).unwrap();
            Heard { id: field("id:"), name: field("event:"), data }
        })
        .collect()
}

fn names(heard: &[Heard]) -> Vec<&str> {
    heard.iter().map(|event| event.name.as_str()).collect()
}

#[tokio::test]
async fn an_agent_is_executed_without_a_trigger() {
    let counting = counting().await;
    let Counting { app, agent, .. } = &counting;
    let body = json!({ "agent_id": agent["id"], "input": { "n": 1 } });
    let accepted = app.post(EXECUTE, body).await.expect_status(202);
    let data = accepted.data();
    assert_eq!((&data["agent_id"], &data["version_id"]), (&agent["id"], &agent["version_id"]));
    assert_eq!((&data["trigger_id"], &data["status"]), (&Value::Null, &json!("queued")));
    let id = data["execution_id"].as_str().unwrap();
    let ended = app.wait_execution(agent["id"].as_str().unwrap(), id).await;
    assert_eq!((&ended["status"], &ended["output"]), (&json!("succeeded"), &json!(5)));
    assert_eq!(ended["trigger_id"], Value::Null);

    let body =
        json!({ "agent_id": agent["id"], "version_id": agent["version_id"], "input": { "n": 2 } });
    let whole = app.post(&format!("{EXECUTE}?wait_seconds=60"), body).await.expect_status(200);
    assert_eq!(whole.data()["output"], 6);
    assert_eq!(whole.data()["trigger_id"], Value::Null);
    assert_eq!(whole.data()["steps"].as_array().unwrap().len(), 2);
    let shown = status(app, whole.data()["id"].as_str().unwrap()).await;
    assert_eq!(&shown, whole.data());
}

#[tokio::test]
async fn a_run_that_cannot_be_made_is_refused() {
    let Counting { app, agent, .. } = &counting().await;
    let run = |change: Value| {
        let mut body = json!({ "agent_id": agent["id"], "input": { "n": 1 } });
        body.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        app.post(EXECUTE, body)
    };
    let invalid = run(json!({ "input": { "n": "one" } })).await;
    let invalid = invalid.expect_problem(422, "input_invalid");
    assert_eq!(invalid.body["errors"][0]["field"], "/input/n");
    let unknown = run(json!({ "version_id": uuid::Uuid::now_v7() })).await;
    let unknown = unknown.expect_problem(422, "version_not_found");
    assert_eq!(unknown.body["errors"][0]["field"], "/version_id");
    run(json!({ "agent_id": uuid::Uuid::now_v7() })).await.expect_problem(404, "agent_not_found");
    run(json!({ "agent_id": "x" })).await.expect_problem(422, "invalid_body");
    run(json!({ "trigger_id": "x" })).await.expect_problem(422, "invalid_body");
    app.post(EXECUTE, json!({})).await.expect_problem(422, "invalid_body");
    app.post_empty(EXECUTE).await.expect_problem(415, "unsupported_media_type");
    for wait in ["61", "-1", "soon"] {
        let body = json!({ "agent_id": agent["id"], "input": { "n": 1 } });
        let reply = app.post(&format!("{EXECUTE}?wait_seconds={wait}"), body).await;
        reply.expect_problem(400, "invalid_parameters");
    }
    let path = format!("/api/agent-base/{}", agent["id"].as_str().unwrap());
    app.put(&path, json!({ "enabled": false })).await.expect_status(200);
    run(json!({})).await.expect_problem(409, "agent_disabled");
    let listed = app.get(&format!("{path}/executions")).await.expect_status(200);
    assert_eq!(listed.body["pagination"]["total"], 0, "nothing of a refused request is stored");
}

#[tokio::test]
async fn a_run_that_is_asked_for_twice_is_made_once_even_after_the_agent_is_gone() {
    let Counting { app, agent, .. } = &counting().await;
    let body = json!({ "agent_id": agent["id"], "input": { "n": 1 } });
    let ask = |body: Value| app.post_with(EXECUTE, body, "idempotency-key", "run-1");
    let first = ask(body.clone()).await.expect_status(202);
    let id = first.data()["execution_id"].as_str().unwrap();
    let agent_id = agent["id"].as_str().unwrap();
    app.wait_execution(agent_id, id).await;
    let another = json!({ "agent_id": agent["id"], "input": { "n": 2 } });
    ask(another).await.expect_problem(422, "idempotency_key_reused");
    app.delete(&format!("/api/agent-base/{agent_id}")).await.expect_status(200);
    let second = ask(body.clone()).await.expect_status(202);
    assert_eq!((second.data(), &second.body["replayed"]), (first.data(), &json!(true)));
    app.post(EXECUTE, body).await.expect_problem(404, "agent_not_found");
    assert_eq!(status(app, id).await["output"], 5, "its history stays");
}

#[tokio::test]
async fn an_execution_is_looked_at_until_nothing_of_it_is_new() {
    let waiting = waiting().await;
    let app = &waiting.app;
    let execution = waiting.execute("anything").await;
    waiting.in_step(&execution).await;
    let path = format!("/api/workflow/{execution}/status");
    let running = app.get(&path).await.expect_status(200);
    assert_eq!(running.data()["status"], "running");
    assert_eq!(running.data()["steps"][0]["attempts"][0]["status"], "running");
    assert_eq!(running.data()["output"], Value::Null);
    let etag = running.header("etag").to_owned();
    let known = app.get_with(&path, "if-none-match", &etag).await.expect_status(304);
    assert!(known.bytes.is_empty(), "{known:?}");
    stop(app, &execution).await.expect_status(200);
    let ended = app.get_with(&path, "if-none-match", &etag).await.expect_status(200);
    assert_ne!(ended.header("etag"), etag);
    assert_eq!(ended.data()["status"], "cancelled");
    app.get_with(&path, "if-none-match", ended.header("etag")).await.expect_status(304);
}

#[tokio::test]
async fn a_failure_is_shown_and_heard_with_its_reason() {
    let app = TestApp::spawn().await;
    let product = app.product().await;
    let mut body = counter(&product);
    body["manifest"]["steps"][1]["with"]["value"]["cel"] =
        json!("1 / (steps.one.output.value - 3)");
    let agent = app.post("/api/agent-base/install", body).await.expect_status(201);
    let run = json!({ "agent_id": agent.data()["id"], "input": { "n": 0 } });
    let run = app.post(&format!("{EXECUTE}?wait_seconds=60"), run).await.expect_status(200);
    let id = run.data()["id"].as_str().unwrap();
    let shown = status(&app, id).await;
    assert_eq!(
        (&shown["status"], &shown["error"]["code"]),
        (&json!("failed"), &json!("cel_failed"))
    );

    let heard = Open::new(&app, id, None).await.end().await;
    let expected = [
        "execution.requested",
        "execution.started",
        "execution.step_started",
        "execution.step_succeeded",
        "execution.step_started",
        "execution.step_failed",
        "execution.failed",
    ];
    assert_eq!(names(&heard), expected);
    assert_eq!(heard[5].data["error"], shown["steps"][1]["error"]);
    assert_eq!(heard[6].data["error"], shown["error"]);
}

#[tokio::test]
async fn what_is_no_execution_of_ones_own_is_not_found() {
    let counting = counting().await;
    let app = &counting.app;
    let own = counting.ran(1).await["id"].as_str().unwrap().to_owned();
    let elsewhere = app.product().await;
    let stranger = app.with_token(&app.token(&elsewhere, &[]).await.secret);
    let nothing = uuid::Uuid::now_v7().to_string();
    for (client, id) in [(app.owner(), &nothing), (&stranger, &own)] {
        for verb in ["status", "events"] {
            let reply = client.get(&format!("/api/workflow/{id}/{verb}")).await;
            reply.expect_problem(404, "execution_not_found");
        }
        stop(client, id).await.expect_problem(404, "execution_not_found");
    }
    let run = json!({ "agent_id": counting.agent["id"], "input": { "n": 1 } });
    stranger.post(EXECUTE, run).await.expect_problem(404, "agent_not_found");
    app.get("/api/workflow/x/status").await.expect_problem(404, "not_found");

    let deleted = app.delete(&format!("/api/products/{}", counting.product.id)).await;
    assert!(deleted.is_success(), "{deleted:?}");
    for verb in ["status", "events"] {
        let reply = app.get(&format!("/api/workflow/{own}/{verb}")).await;
        reply.expect_problem(404, "execution_not_found");
    }
}

#[tokio::test]
async fn an_execution_is_heard_from_its_first_event_to_its_last_whenever_one_asks() {
    let mut counting = counting().await;
    let execution = counting.ran(4).await;
    let id = execution["id"].as_str().unwrap();
    let all = Open::new(&counting.app, id, None).await.end().await;
    let expected = [
        "execution.requested",
        "execution.started",
        "execution.step_started",
        "execution.step_succeeded",
        "execution.step_started",
        "execution.step_succeeded",
        "execution.succeeded",
    ];
    assert_eq!(names(&all), expected);
    let ids: Vec<&str> = all.iter().map(|event| event.id.as_str()).collect();
    assert_eq!(ids, ["1", "2", "3", "4", "5", "6", "7"]);
    assert_eq!(all[0].data["input"], json!({ "n": 4 }));
    assert_eq!(
        (&all[0].data["status"], &all[0].data["agent_id"]),
        (&json!("queued"), &counting.agent["id"])
    );
    assert_eq!((&all[3].data["step_id"], &all[3].data["attempt"]), (&json!("one"), &json!(1)));
    assert_eq!(all[3].data["output"], json!({ "value": 7 }));
    assert_eq!((&all[6].data["status"], &all[6].data["output"]), (&json!("succeeded"), &json!(8)));

    counting.app.restart();
    for after in 1..7 {
        let rest = Open::new(&counting.app, id, Some(&after.to_string())).await.end().await;
        assert_eq!(rest, all[after..], "after {after}");
    }
    assert_eq!(Open::new(&counting.app, id, Some("0")).await.end().await, all);
    let path = format!("/api/workflow/{id}/events");
    let nothing = counting.app.get_with(&path, "last-event-id", "7").await.expect_status(204);
    assert!(nothing.bytes.is_empty());
    for strange in ["8", "18446744073709551615", "first", "-1"] {
        let reply = counting.app.get_with(&path, "last-event-id", strange).await;
        reply.expect_problem(400, "malformed_last_event_id");
    }
}

#[tokio::test]
async fn an_execution_is_heard_while_it_goes_on_and_can_be_read_as_it_was_heard() {
    let waiting = waiting().await;
    let execution = waiting.execute("anything").await;
    let mut stream = Open::new(&waiting.app, &execution, None).await;
    stream.wait_for("event: execution.step_started").await;
    waiting.execute("another").await;
    let mut late = Open::new(&waiting.app, &execution, Some("3")).await;
    stop(&waiting.app, &execution).await.expect_status(200);
    late.wait_for("event: execution.cancelled").await;
    assert_eq!(status(&waiting.app, &execution).await["status"], "cancelled");
    let late = late.end().await;
    let all = stream.end().await;
    let expected = [
        "execution.requested",
        "execution.started",
        "execution.step_started",
        "execution.cancelled",
    ];
    assert_eq!(names(&all), expected);
    assert_eq!(late, all[3..]);
    assert_eq!(all[3].data["reason"], "stopped");
    assert_eq!(all[0].data["input"], json!({ "query": "anything" }));
}

#[tokio::test]
async fn a_stream_of_an_execution_ends_with_its_credential_its_product_and_the_server() {
    let mut waiting = waiting().await;
    let execution = waiting.execute("anything").await;
    waiting.in_step(&execution).await;

    let app = &waiting.app;
    let token = app.token(&waiting.product, &["executions:read"]).await;
    let stream = Open::new(&app.with_token(&token.secret), &execution, None).await;
    app.post_empty(&format!("/api/api-tokens/{}/revoke", token.id)).await.expect_status(200);
    let heard = stream.end().await;
    let last = heard.last().unwrap();
    assert_eq!((last.name.as_str(), last.id.as_str()), ("error", ""));
    assert_eq!(last.data["error"], "token_revoked");

    let open = Open::new(app, &execution, None).await;
    let begun = std::time::Instant::now();
    assert!(waiting.app.stop().success(), "{}", waiting.app.stderr());
    assert!(begun.elapsed() < Duration::from_secs(25), "the stream was waited for");
    open.end().await;
    waiting.app.start();

    let app = &waiting.app;
    let mut stream = Open::new(app, &execution, None).await;
    stream.wait_for("execution.step_started").await;
    let deleted = app.delete(&format!("/api/products/{}", waiting.product.id)).await;
    assert!(deleted.is_success(), "{deleted:?}");
    // The deletion ends the execution, too: whichever is noticed first is the last that is heard.
    let heard = stream.end().await;
    let last = heard.last().unwrap();
    let is_gone = last.name == "error" && last.data["error"] == "product_not_found";
    let is_ended = ["execution.cancelled", "execution.failed"].contains(&last.name.as_str());
    assert!(is_gone || is_ended, "{last:?}");
}

#[tokio::test]
async fn a_stopped_execution_is_cancelled_and_nothing_comes_of_it() {
    let waiting = waiting().await;
    let app = &waiting.app;
    let executions = waiting.full(1).await;
    let (running, queued) = (&executions[0], &executions[AT_ONCE]);
    assert_eq!(status(app, queued).await["status"], "queued");

    for execution in [queued, running] {
        let stopped = stop(app, execution).await.expect_status(200);
        assert_eq!(stopped.data()["status"], "cancelled");
        assert!(stopped.data()["ended_at"].is_string(), "{stopped:?}");
        let shown = app.get(&format!("/api/workflow/{execution}/status")).await.expect_status(200);
        assert_eq!(shown.data(), stopped.data());
        assert_eq!(shown.header("etag"), stopped.header("etag"));
        let stored = stored(app, execution).await;
        assert_eq!(stored.last().unwrap(), "execution.cancelled.v1");

        let again = stop(app, execution).await.expect_status(200);
        assert_eq!(again.data(), stopped.data(), "once is enough");
    }
    assert_eq!(waiting.listed("status=cancelled").await, 2);
    let viewer = app.user("viewer").await;
    stop(&viewer, &executions[1]).await.expect_problem(403, "role_insufficient");
    let path = format!("/api/workflow/{}/stop", executions[1]);
    app.post(&path, json!({ "reason": "x" })).await.expect_problem(422, "invalid_body");

    // Whatever the run time still does about them, it is not stored.
    let path = waiting.stop_path("");
    app.post_empty(&path).await.expect_status(200);
    eventually("an execution has not ended", async || {
        (waiting.listed("status=cancelled").await == 9).then_some(())
    })
    .await;
    for execution in &executions {
        let stored = stored(app, execution).await;
        assert_eq!(stored.last().unwrap(), "execution.cancelled.v1", "{stored:?}");
        assert_eq!(status(app, execution).await["status"], "cancelled");
    }
}

#[tokio::test]
async fn a_stop_that_is_sent_twice_is_answered_twice_alike() {
    let waiting = waiting().await;
    let app = &waiting.app;
    let execution = waiting.execute("anything").await;
    let path = format!("/api/workflow/{execution}/stop");
    let send = |body: Value| app.post_with(&path, body, "idempotency-key", "stop-1");
    let first = send(json!({})).await.expect_status(200);
    let second = send(json!({})).await.expect_status(200);
    assert_eq!((second.data(), &second.body["replayed"]), (first.data(), &json!(true)));
    assert_eq!(second.header("etag"), first.header("etag"));
    let stored = stored(app, &execution).await;
    let cancelled = stored.iter().filter(|event| *event == "execution.cancelled.v1");
    assert_eq!(cancelled.count(), 1);
}

#[tokio::test]
async fn an_execution_that_has_ended_by_itself_cannot_be_stopped() {
    let counting = counting().await;
    let execution = counting.ran(1).await;
    let id = execution["id"].as_str().unwrap();
    stop(&counting.app, id).await.expect_problem(409, "execution_ended");
    assert_eq!(status(&counting.app, id).await, execution);
}

#[tokio::test]
async fn the_executions_that_the_list_would_show_are_stopped_together() {
    let waiting = waiting().await;
    let app = &waiting.app;
    let executions = waiting.full(4).await;
    let path = format!("/api/agent-base/triggers/{}/execute", waiting.trigger);
    app.post(&path, json!({ "input": { "query": "by trigger" } })).await.expect_status(202);
    assert_eq!(waiting.listed("status=queued").await, 5);

    let stop = async |query: &str| {
        let reply = app.post_empty(&waiting.stop_path(query)).await.expect_status(200);
        assert_eq!(reply.data()["more"], false, "{reply:?}");
        reply.data()["stopped"].as_u64().unwrap()
    };
    assert_eq!(stop("status=succeeded").await, 0);
    assert_eq!(stop(&format!("version_id={}", uuid::Uuid::now_v7())).await, 0);
    assert_eq!(stop("q=question%2012").await, 1);
    assert_eq!(status(app, &executions[11]).await["status"], "cancelled");
    assert_eq!(stop(&format!("trigger_id={}", waiting.trigger)).await, 1);
    let asked = async |number: usize| {
        status(app, &executions[number]).await["created_at"].as_str().unwrap().to_owned()
    };
    let (tenth, first) = (asked(9).await, asked(0).await);
    assert_eq!(stop(&format!("to={first}")).await, 0, "nothing was asked for before the first");
    let window = format!("from={tenth}&to={}", asked(10).await);
    assert_eq!(stop(&window).await, 1, "the tenth alone: `to` is not in it");
    assert_eq!(status(app, &executions[9]).await["status"], "cancelled");
    assert_eq!(stop(&format!("from={tenth}")).await, 1, "the eleventh");
    assert_eq!(stop("status=queued").await, 1);
    assert_eq!(waiting.listed("status=running").await, AT_ONCE as u64);

    let path = waiting.stop_path("");
    let send = |body: Value| app.post_with(&path, body, "idempotency-key", "all");
    let first = send(json!({})).await.expect_status(200);
    assert_eq!(first.data(), &json!({ "stopped": AT_ONCE, "more": false }));
    let later = waiting.execute("later").await;
    let second = send(json!({})).await.expect_status(200);
    assert_eq!((second.data(), &second.body["replayed"]), (first.data(), &json!(true)));
    assert_ne!(status(app, &later).await["status"], "cancelled", "it was not there at first");
    assert_eq!(stop("").await, 1);
    assert_eq!(stop("").await, 0);
    assert_eq!(waiting.listed("status=cancelled").await, 14);
}

#[tokio::test]
async fn the_executions_of_one_version_are_stopped_and_those_of_another_are_not() {
    let app = TestApp::spawn().await;
    let product = app.product().await;
    let manifest = |version: &str| {
        json!({
            "manifest": "prodgy.agent/1", "name": "acme.waits", "version": version, "title": "Waits",
            "steps": [{ "id": "wait", "type": "wait", "with": { "for": { "cel": "'1h'" } } }],
        })
    };
    let body = json!({ "product_id": product.id, "manifest": manifest("1.0.0") });
    let agent = app.post("/api/agent-base/install", body).await.expect_status(201).data().clone();
    let path = format!("/api/agent-base/{}", agent["id"].as_str().unwrap());
    let old = app.execute(&agent, json!({})).await;
    let body = json!({ "manifest": manifest("1.1.0") });
    app.post(&format!("{path}/versions"), body).await.expect_status(201);
    let new = app.execute(&agent, json!({})).await;
    for execution in [&old, &new] {
        app.execution_until(execution, "waiting").await;
    }
    let stop =
        format!("{path}/executions/stop?version_id={}", agent["version_id"].as_str().unwrap());
    let stopped = app.post_empty(&stop).await.expect_status(200);
    assert_eq!(stopped.data(), &json!({ "stopped": 1, "more": false }));
    assert_eq!(status(&app, &old).await["status"], "cancelled");
    assert_eq!(status(&app, &new).await["status"], "waiting");
}

#[tokio::test]
async fn a_bulk_stop_that_cannot_be_meant_is_refused() {
    let Counting { app, agent, .. } = &counting().await;
    let path = format!("/api/agent-base/{}/executions/stop", agent["id"].as_str().unwrap());
    let long = format!("q={}", "x".repeat(201));
    for query in ["status=done", "from=yesterday", "trigger_id=x", "q=", "page=1", &long] {
        let reply = app.post_empty(&format!("{path}?{query}")).await;
        reply.expect_problem(400, "invalid_parameters");
    }
    app.post(&path, json!({ "status": "queued" })).await.expect_problem(422, "invalid_body");
    let viewer = app.user("viewer").await;
    viewer.post_empty(&path).await.expect_problem(403, "role_insufficient");
    let nobody = format!("/api/agent-base/{}/executions/stop", uuid::Uuid::now_v7());
    app.post_empty(&nobody).await.expect_problem(404, "agent_not_found");
}
