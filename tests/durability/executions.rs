//! The server is killed a hundred times while agents work: every execution ends once, and nothing that
//! was finished is done again.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::extract::State;
use axum::http::HeaderMap;
use axum::routing::post;
use serde_json::{Value, json};
use tests::chance::{Chance, seed};
use tests::support::{Product, TestApp, eventually};

const KILLS: usize = 100;

/// How often an outside server was asked, by the key that every attempt at a step sends alike.
type Asked = Arc<Mutex<HashMap<String, usize>>>;

/// A server that takes its time, so that it is often cut off.
async fn outside() -> (String, Asked) {
    async fn work(State(asked): State<Asked>, headers: HeaderMap) -> &'static str {
        let key = headers["idempotency-key"].to_str().unwrap().to_owned();
        *asked.lock().unwrap().entry(key).or_default() += 1;
        tokio::time::sleep(Duration::from_millis(30)).await;
        "done"
    }
    let asked = Asked::default();
    let router = axum::Router::new().route("/work", post(work)).with_state(asked.clone());
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    (format!("http://{address}/work"), asked)
}

/// An agent that computes, asks outside, asks outside for each of three, waits, and computes.
async fn install(app: &TestApp, product: &Product, url: &str) -> String {
    let ask = json!({ "method": "POST", "url": url, "response": "text" });
    let manifest = json!({
        "manifest": "prodgy.agent/1", "name": "test.work", "version": "1.0.0", "title": "Work",
        "steps": [
            { "id": "first", "type": "transform", "with": { "n": { "cel": "input.n + 1" } } },
            { "id": "one", "type": "http.request", "needs": ["first"], "with": ask },
            { "id": "each", "type": "http.request", "needs": ["one"], "with": ask,
              "foreach": { "items": "[1, 2, 3]", "max_parallel": 2 } },
            { "id": "pause", "type": "wait", "needs": ["each"], "with": { "for": "50ms" } },
            { "id": "last", "type": "transform", "needs": ["first", "pause"],
              "with": { "n": { "cel": "steps.first.output.n" } } },
        ],
        "output": { "cel": "steps.last.output.n" },
    });
    let body = json!({ "product_id": product.id, "manifest": manifest });
    let agent = app.post("/api/agent-base/install", body).await.expect_status(201);
    agent.data()["id"].as_str().unwrap().to_owned()
}

/// Every execution of the agent.
async fn executions(app: &TestApp, agent: &str) -> Vec<Value> {
    let path = format!("/api/agent-base/{agent}/executions?limit=1000");
    app.get(&path).await.expect_status(200).data().as_array().unwrap().clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_kills_end_every_execution_once_and_repeat_nothing_that_was_done() {
    let mut chance = Chance::new(seed());
    let (url, asked) = outside().await;
    let mut app = TestApp::spawn_with(&[("PRODGY_HTTP_ALLOW", "127.0.0.1/32")]).await;
    let product = app.product().await;
    let agent = install(&app, &product, &url).await;

    let mut accepted = Vec::new();
    for _ in 0..KILLS {
        for _ in 0..=chance.pick(2) {
            let body = json!({ "agent_id": agent, "input": { "n": accepted.len() } });
            let reply = app.post("/api/workflow/execute", body).await.expect_status(202);
            accepted.push(reply.data()["execution_id"].as_str().unwrap().to_owned());
        }
        tokio::time::sleep(Duration::from_millis(chance.pick(150) as u64)).await;
        tokio::task::block_in_place(|| {
            app.kill();
            app.start();
        });
    }
    let ended = eventually("executions have not ended", async || {
        let all = executions(&app, &agent).await;
        all.iter().all(|one| !one["ended_at"].is_null()).then_some(all)
    })
    .await;
    assert_eq!(ended.len(), accepted.len());

    let mut cut_off = 0;
    for (n, execution) in accepted.iter().enumerate() {
        let path = format!("/api/events?limit=1000&stream=execution-{execution}");
        let events = app.get(&path).await.expect_status(200).data().as_array().unwrap().clone();
        let shown = app.get(&format!("/api/workflow/{execution}/status")).await.expect_status(200);
        assert_eq!(shown.data()["status"], "succeeded", "{shown:?}");
        assert_eq!(shown.data()["output"], n + 1);
        cut_off += check(&events);
    }
    // One that is cut off at every kill would be repeated as often.
    assert!(cut_off > 0, "no kill came in the middle of a step: the test shows nothing");

    let asked = asked.lock().unwrap();
    assert_eq!(asked.len(), 4 * accepted.len(), "each step that asks, of each execution");
    let more: usize = asked.values().map(|times| times - 1).sum();
    assert!(more <= cut_off, "{more} requests too many, and {cut_off} attempts were cut off");
}

/// Checks what the log says of one execution; answers how many attempts were cut off.
fn check(events: &[Value]) -> usize {
    let name = |event: &Value| event["type"].as_str().unwrap().to_owned();
    let ends = ["execution.succeeded.v1", "execution.failed.v1", "execution.cancelled.v1"];
    let ends = events.iter().filter(|event| ends.contains(&name(event).as_str())).count();
    assert_eq!(ends, 1, "{events:#?}");
    assert_eq!(name(events.last().unwrap()), "execution.succeeded.v1");

    let mut attempts: HashMap<&str, u64> = HashMap::new();
    let mut fences: HashMap<&str, u64> = HashMap::new();
    let mut done: Vec<&str> = Vec::new();
    let mut cut_off = 0;
    for event in events {
        let step = event["data"]["step_id"].as_str().unwrap_or_default();
        match name(event).as_str() {
            "execution.step_started.v2" => {
                assert!(!done.contains(&step), "{step} began again: {events:#?}");
                let attempt = attempts.entry(step).or_default();
                cut_off += usize::from(*attempt > 0);
                *attempt += 1;
                assert_eq!(event["data"]["attempt"], *attempt, "{events:#?}");
                // Once more for each kill at most: whoever begins again has claimed it anew.
                let fence = event["data"]["fence"].as_u64().unwrap();
                let older = fences.insert(step, fence);
                assert!(older.is_none_or(|older| older < fence), "{events:#?}");
            }
            "execution.step_succeeded.v1" => done.push(step),
            _ => {}
        }
    }
    // `each` itself, and its three items.
    assert_eq!(done.len(), 8, "{events:#?}");
    cut_off
}
