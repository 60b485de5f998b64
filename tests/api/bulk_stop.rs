//! Many executions stopped by one request, whatever becomes of the server meanwhile.

use std::time::Duration;

use commands::Ask;
use domain::bulk_stop::{BulkStop, BulkStopCommand};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::erasure::{CutOff, organization};
use crate::support::{Product, Reply, TestApp, eventually};

/// A server with an agent whose executions wait for an hour.
struct Waiting {
    app: TestApp,
    product: Product,
    agent: Value,
}

impl Waiting {
    async fn new() -> Waiting {
        let app = TestApp::spawn().await;
        let product = app.product().await;
        let manifest = json!({
            "manifest": "prodgy.agent/1", "name": "acme.waits", "version": "1.0.0", "title": "Waits",
            "steps": [{ "id": "wait", "type": "wait", "with": { "for": "1h" } }],
        });
        let body = json!({ "product_id": product.id, "manifest": manifest });
        let agent = app.post("/api/agent-base/install", body).await.expect_status(201);
        let agent = agent.data().clone();
        Waiting { app, product, agent }
    }

    async fn execute(&self, count: usize) -> Vec<String> {
        let mut executions = Vec::new();
        for _ in 0..count {
            executions.push(self.app.execute(&self.agent, json!({})).await);
        }
        for execution in &executions {
            self.app.execution_until(execution, "waiting").await;
        }
        executions
    }

    fn path(&self) -> String {
        format!("/api/agent-base/{}/executions/stop", self.agent["id"].as_str().unwrap())
    }

    async fn stop(&self, query: &str, key: &str) -> Reply {
        let path = format!("{}{query}", self.path());
        self.app.post_with(&path, json!({}), "idempotency-key", key).await
    }

    async fn status(&self, execution: &str) -> String {
        self.app.execution(execution).await["status"].as_str().unwrap().to_owned()
    }

    /// What the log has of bulk stops.
    async fn stored(&self, event_type: &str) -> Vec<Value> {
        let reply = self.app.get(&format!("/api/events?limit=1000&type={event_type}")).await;
        reply.expect_status(200).data().as_array().unwrap().clone()
    }
}

#[tokio::test]
async fn a_bulk_stop_is_answered_alike_after_a_kill_and_stops_nothing_more() {
    let mut waiting = Waiting::new().await;
    waiting.execute(3).await;
    let first = waiting.stop("?status=waiting", "all").await.expect_status(200);
    assert_eq!(first.data(), &json!({ "stopped": 3, "more": false }));
    let none = waiting.stop("?status=waiting", "none").await.expect_status(200);
    assert_eq!(none.data(), &json!({ "stopped": 0, "more": false }));
    let later = waiting.execute(1).await;

    waiting.app.kill();
    waiting.app.start();

    for (key, first) in [("all", &first), ("none", &none)] {
        let again = waiting.stop("?status=waiting", key).await.expect_status(200);
        assert_eq!((again.data(), &again.body["replayed"]), (first.data(), &json!(true)));
        assert_eq!(again.header("x-event-position"), first.header("x-event-position"));
    }
    assert_eq!(waiting.status(&later[0]).await, "waiting", "it was not there at first");
    let other = waiting.stop("?status=queued", "all").await;
    other.expect_problem(422, "idempotency_key_reused");
    // Who sends no key is not remembered, and nothing is written where there is nothing to do.
    let before = waiting.stored("bulk_stop.requested.v1").await.len();
    let path = format!("{}?status=queued", waiting.path());
    waiting.app.post_empty(&path).await.expect_status(200);
    assert_eq!(waiting.stored("bulk_stop.requested.v1").await.len(), before);
    waiting.app.verified();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bulk_stop_that_a_kill_cut_off_stops_each_once_and_counts_them_all() {
    let mut waiting = Waiting::new().await;
    let mut cut_off = 0;
    for round in 0..12 {
        let executions = waiting.execute(20).await;
        let key = format!("round {round}").replace(' ', "-");
        let request = waiting.app.request(reqwest::Method::POST, &waiting.path());
        let request = request.header("idempotency-key", &key).json(&json!({}));
        let sent = tokio::spawn(async move { request.send().await.is_ok() });
        tokio::time::sleep(Duration::from_millis(1 + 3 * round)).await;
        tokio::task::block_in_place(|| {
            waiting.app.kill();
            waiting.app.start();
        });
        let finished = waiting.stored("bulk_stop.finished.v1").await.len();
        let requested = waiting.stored("bulk_stop.requested.v1").await.len();
        cut_off += usize::from(!sent.await.unwrap() && requested > finished);

        let again = waiting.stop("", &key).await.expect_status(200);
        assert_eq!(again.data(), &json!({ "stopped": 20, "more": false }), "round {round}");
        let twice = waiting.stop("", &key).await.expect_status(200);
        assert_eq!((twice.data(), &twice.body["replayed"]), (again.data(), &json!(true)));
        for execution in &executions {
            let path = format!("/api/events?limit=1000&stream=execution-{execution}");
            let events = waiting.app.get(&path).await.expect_status(200);
            let events = events.data().as_array().unwrap().iter();
            let ends = events.filter(|event| event["type"] == "execution.cancelled.v1").count();
            assert_eq!(ends, 1, "round {round}: {execution}");
        }
    }
    eprintln!("{cut_off} of 12 kills came between a request and its end");
    waiting.app.verified();
}

#[tokio::test]
async fn what_a_cut_left_of_a_bulk_stop_is_done_without_being_asked_again() {
    let mut waiting = Waiting::new().await;
    let executions = waiting.execute(3).await;
    let ids: Vec<Uuid> = executions.iter().map(|id| id.parse().unwrap()).collect();
    let organization = organization(&waiting.app).await;
    let product = waiting.product.id.parse().unwrap();
    let agent = waiting.agent["id"].as_str().unwrap().parse().unwrap();

    waiting.app.stop();
    let cut_off = CutOff::open(&waiting.app).await;
    let ask = Ask::once("test", organization, Some(product));
    let stop = ask.follow_up(&format!("stop {}", ids[1]));
    cut_off.commands.stop_execution(ids[0], &Ask::once("other", organization, None)).await.unwrap();
    let request = BulkStopCommand::Request { agent, executions: ids.clone(), more: false };
    cut_off.commands.execute::<BulkStop>(Uuid::now_v7(), request, &ask).await.unwrap();
    cut_off.commands.stop_execution(ids[1], &stop).await.unwrap();
    cut_off.close().await;
    waiting.app.start();

    let finished = eventually("it was not finished", async || {
        waiting.stored("bulk_stop.finished.v1").await.first().cloned()
    })
    .await;
    assert_eq!(finished["data"]["stopped"], 2, "one had been stopped by somebody else: {finished}");
    assert_eq!(waiting.status(&executions[2]).await, "cancelled");
    let path = format!("/api/audit-logs?resource_id={}&action=cancelled", executions[2]);
    let stopped = waiting.app.get(&path).await.expect_status(200).data()[0].clone();
    assert_eq!(stopped["actor"], "system:test", "whoever asked for it: {stopped}");
}
