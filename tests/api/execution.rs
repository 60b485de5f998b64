//! Executions from outside: listed, filtered, searched, and finished after a crash.

use serde_json::{Value, json};

use crate::agent::counter;
use crate::support::TestApp;

struct Ran {
    app: TestApp,
    agent: String,
    trigger: String,
}

/// A server on which the agent ran with 1, 2, … `times`.
async fn ran(times: i64) -> Ran {
    let app = TestApp::spawn().await;
    let product = app.product().await;
    let reply = app.post("/api/agent-base/install", counter(&product)).await.expect_status(201);
    let agent = reply.data()["id"].as_str().unwrap().to_owned();
    let trigger = reply.data()["triggers"][0]["id"].as_str().unwrap().to_owned();
    for n in 1..=times {
        let path = format!("/api/agent-base/triggers/{trigger}/execute?wait_seconds=60");
        app.post(&path, json!({ "input": { "n": n, "note": format!("Run N\"{n}\"") } }))
            .await
            .expect_status(200);
    }
    Ran { app, agent, trigger }
}

fn outputs(list: &Value) -> Vec<i64> {
    list.as_array().unwrap().iter().map(|execution| execution["output"].as_i64().unwrap()).collect()
}

#[tokio::test]
async fn executions_are_listed_newest_first_filtered_and_searched() {
    let Ran { app, agent, trigger } = ran(5).await;
    let path = format!("/api/agent-base/{agent}/executions");
    let list = async |query: &str| app.get(&format!("{path}?{query}")).await.expect_status(200);
    let all = app.get(&path).await.expect_status(200);
    assert_eq!(outputs(all.data()), [9, 8, 7, 6, 5]);
    assert!(all.data()[0].get("steps").is_none(), "a list is without steps");
    let third = &all.data()[2];

    assert_eq!(list("status=succeeded").await.body["pagination"]["total"], 5);
    assert_eq!(list("status=timed_out").await.body["pagination"]["total"], 0);
    assert_eq!(list(&format!("trigger_id={trigger}")).await.body["pagination"]["total"], 5);
    assert_eq!(
        list(&format!("version_id={}", uuid::Uuid::now_v7())).await.body["pagination"]["total"],
        0
    );
    let at = third["created_at"].as_str().unwrap();
    assert_eq!(outputs(list(&format!("from={at}")).await.data()), [9, 8, 7]);
    assert_eq!(outputs(list(&format!("to={at}")).await.data()), [6, 5]);

    assert_eq!(outputs(list("q=run%20n%223%22").await.data()), [7]);
    assert_eq!(outputs(list(&format!("q={}", third["id"].as_str().unwrap())).await.data()), [7]);
    let page = list("q=RUN&page=2&pageSize=2").await;
    assert_eq!(outputs(page.data()), [7, 6]);
    assert_eq!(
        (&page.body["pagination"]["total"], &page.body["pagination"]["total_pages"]),
        (&json!(5), &json!(3))
    );
    assert_eq!(outputs(list("q=run&limit=1").await.data()), [9]);

    for query in ["status=done", "from=yesterday", "trigger_id=x", "q=", "color=red", "pageSize=0"]
    {
        app.get(&format!("{path}?{query}")).await.expect_problem(400, "invalid_parameters");
    }
    let none = format!("/api/agent-base/{}/executions", uuid::Uuid::now_v7());
    app.get(&none).await.expect_problem(404, "agent_not_found");
}

#[tokio::test]
async fn an_execution_that_a_crash_cut_off_ends_after_the_next_start() {
    let Ran { mut app, agent, trigger } = ran(0).await;
    let path = format!("/api/agent-base/triggers/{trigger}/execute");
    let mut asked = Vec::new();
    for n in 0..20 {
        let reply = app.post(&path, json!({ "input": { "n": n } })).await.expect_status(202);
        asked.push((n, reply.data()["execution_id"].as_str().unwrap().to_owned()));
    }
    app.kill();
    app.start();
    for (n, id) in asked {
        let ended = app.wait_execution(&agent, &id).await;
        assert_eq!((&ended["status"], &ended["output"]), (&json!("succeeded"), &json!(n + 4)));
    }
}

#[tokio::test]
async fn a_failing_execution_says_where_and_why() {
    let app = TestApp::spawn().await;
    let product = app.product().await;
    let mut body = counter(&product);
    body["manifest"]["steps"][1]["with"]["value"]["cel"] =
        json!("1 / (steps.one.output.value - 3)");
    let reply = app.post("/api/agent-base/install", body).await.expect_status(201);
    let trigger = reply.data()["triggers"][0]["id"].as_str().unwrap();
    let path = format!("/api/agent-base/triggers/{trigger}/execute?wait_seconds=60");
    let failed = app.post(&path, json!({ "input": { "n": 0 } })).await.expect_status(200);
    let failed = failed.data();
    assert_eq!((&failed["status"], &failed["output"]), (&json!("failed"), &Value::Null));
    assert_eq!(
        (&failed["error"]["step_id"], &failed["error"]["code"]),
        (&json!("two"), &json!("cel_failed"))
    );
    assert!(failed["error"]["message"].as_str().unwrap().starts_with("with/value: "), "{failed}");
    assert_eq!(failed["steps"][1]["attempts"][0]["error"]["code"], "cel_failed");
}
