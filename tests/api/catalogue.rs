//! Every agent of the catalogue does its work: on the real model, and on servers that the tests start.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use serde_json::{Value, json};

use crate::support::{Product, TestApp, eventually};

/// What the servers outside have seen.
#[derive(Clone, Default)]
struct Seen {
    asked: Arc<AtomicUsize>,
    told: Arc<Mutex<Vec<Value>>>,
    said: Arc<Mutex<Vec<Value>>>,
    issues: Arc<Mutex<Vec<Value>>>,
}

/// A website, and a chat model, on loopback.
async fn outside() -> (String, Seen) {
    let seen = Seen::default();
    let router = axum::Router::new()
        .route("/page", get(page))
        .route("/", get(async || "Welcome."))
        .route("/about", get(async || "About us."))
        .route("/good", get(async || "good"))
        .route("/long/{number}", get(async || "long ".repeat(200_000)))
        .route("/told", post(told))
        .route("/slack/chat.postMessage", post(said))
        .route("/repos/acme/shop/issues", post(issue))
        .route("/v1/chat/completions", post(chat))
        .with_state(seen.clone());
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    (format!("http://{address}"), seen)
}

/// Busy at first, then a page that changes with the third answer, and back with the fifth.
async fn page(State(seen): State<Seen>) -> Response {
    match seen.asked.fetch_add(1, Ordering::SeqCst) {
        0 => {
            (StatusCode::SERVICE_UNAVAILABLE, [(header::RETRY_AFTER, "1")], "busy").into_response()
        }
        3 | 4 => "Opening hours: ten to six.".into_response(),
        _ => "Opening hours: nine to five.".into_response(),
    }
}

/// Somebody who wants to be told.
async fn told(State(seen): State<Seen>, Json(body): Json<Value>) -> &'static str {
    seen.told.lock().unwrap().push(body);
    "thanks"
}

/// A Slack.
async fn said(State(seen): State<Seen>, Json(body): Json<Value>) -> Json<Value> {
    seen.said.lock().unwrap().push(body);
    Json(json!({ "ok": true, "ts": "1.2", "channel": "C1" }))
}

/// A GitHub.
async fn issue(State(seen): State<Seen>, Json(body): Json<Value>) -> (StatusCode, Json<Value>) {
    seen.issues.lock().unwrap().push(body);
    let opened = json!({ "id": 1, "number": 7, "html_url": "https://github.example/7" });
    (StatusCode::CREATED, Json(opened))
}

/// Lets a product know both.
async fn connect(app: &TestApp, product: &Product, site: &str) {
    let slack = json!({ "base_url": format!("{site}/slack"), "channel": "C1" });
    let slack_secrets = json!({ "bot_token": "xoxb-12345", "signing_secret": "8f742231" });
    let github = json!({ "base_url": site, "owner": "acme", "repo": "shop" });
    let github_secrets = json!({ "token": "ghp_0123456789" });
    for (kind, config, secrets) in
        [("slack", slack, slack_secrets), ("github", github, github_secrets)]
    {
        let body = json!({ "product_id": product.id, "type": kind, "title": kind, "config": config,
                           "secrets": secrets });
        app.post("/api/integrations-base", body).await.expect_status(201);
    }
}

/// A chat model that knows one answer, and writes it in pieces.
async fn chat(headers: HeaderMap, Json(request): Json<Value>) -> Response {
    assert_eq!(headers["authorization"], "Bearer a key");
    assert_eq!(request["stream"], true);
    assert_eq!(request["response_format"]["type"], "json_schema");
    let asked = request["messages"].to_string();
    assert!(asked.contains("Ada mends the roof"), "{asked}");
    let answer = json!({ "tasks": [{ "task": "mend the roof", "who": "Ada", "due": "Friday" }] });
    let text = answer.to_string();
    let (one, other) = text.split_at(20);
    let mut body = String::new();
    for piece in [one, other] {
        let chunk = json!({ "id": "c", "object": "chat.completion.chunk", "model": "test-model",
            "choices": [{ "index": 0, "delta": { "content": piece }, "finish_reason": null }] });
        body.push_str(&format!("data: {chunk}\n\n"));
    }
    let end = json!({ "id": "c", "object": "chat.completion.chunk", "model": "test-model",
        "choices": [{ "index": 0, "delta": {}, "finish_reason": "stop" }] });
    let usage = json!({ "id": "c", "object": "chat.completion.chunk", "model": "test-model", "choices": [],
        "usage": { "prompt_tokens": 11, "completion_tokens": 7, "total_tokens": 18 } });
    body.push_str(&format!("data: {end}\n\ndata: {usage}\n\ndata: [DONE]\n\n"));
    ([(header::CONTENT_TYPE, "text/event-stream")], body).into_response()
}

/// Installs an agent of the catalogue and executes it; answers the whole execution.
async fn run(app: &TestApp, product: &Product, name: &str, input: Value) -> Value {
    let body = json!({ "product_id": product.id, "agent": name });
    let agent = app.post("/api/agent-base/install", body).await.expect_status(201);
    again(app, agent.data(), input).await
}

async fn again(app: &TestApp, agent: &Value, input: Value) -> Value {
    let body = json!({ "agent_id": agent["id"], "input": input });
    let ran = app.post("/api/workflow/execute?wait_seconds=60", body).await.expect_status(200);
    ran.data().clone()
}

#[track_caller]
fn output(execution: &Value) -> &Value {
    assert_eq!(execution["status"], "succeeded", "{execution}");
    &execution["output"]
}

#[tokio::test]
async fn what_a_knowledge_base_is_enough_for() {
    let app = TestApp::spawn().await;
    let product = app.product().await;
    let text =
        "Employees may take twenty-five days of paid leave each year. The canteen opens at noon.";
    let file = app.text_file(&product, "handbook.txt", text).await;
    app.wait_ready(&file).await;

    let question = json!({ "question": "How much vacation do I get?" });
    let ran = run(&app, &product, "prodgy.answer", question).await;
    let answer = output(&ran);
    let sentence = "twenty-five days of paid leave";
    assert!(answer["answer"].as_str().unwrap().contains(sentence), "{answer}");
    assert_eq!(answer["citations"][0]["file_id"], file.as_str(), "{answer}");
    assert_eq!(answer["metadata"]["language_model"], false, "{answer}");
    let nothing = json!({ "question": "Which planet is the largest?" });
    let ran = run(&app, &product, "prodgy.answer", nothing).await;
    assert_eq!(output(&ran)["citations"], json!([]));

    let known = "The printer fails with error 31 when it is cold.";
    let file = app.text_file(&product, "printer.txt", known).await;
    app.wait_ready(&file).await;
    let issue =
        json!({ "title": "Printer fails with error 31", "body": "It CRASHED this morning." });
    let ran = run(&app, &product, "prodgy.triage", issue).await;
    let triage = output(&ran);
    assert_eq!(triage["labels"], json!(["bug"]));
    assert_eq!(triage["similar"][0]["file_id"], file.as_str());
    assert!(triage["comment"].as_str().unwrap().contains(known), "{triage}");
    let ran = run(&app, &product, "prodgy.triage", json!({ "title": "Bicycles" })).await;
    assert_eq!(output(&ran)["labels"], json!(["needs-triage"]));

    let commits = ["feat: bees", "fix: a hole", "feat!: no more wasps", "docs: honey"];
    let input = json!({ "version": "2.0.0", "commits": commits });
    let ran = run(&app, &product, "prodgy.release-notes", input).await;
    let notes = output(&ran);
    assert_eq!(
        notes["markdown"],
        "# 2.0.0\n\n## Breaking changes\n\n- feat!: no more wasps\n\n## New\n\n- feat: bees\n\n## Mended\n\n- fix: a hole\n\n## Also\n\n- docs: honey\n"
    );
    app.wait_ready(notes["file_id"].as_str().unwrap()).await;

    let ran = run(
        &app,
        &product,
        "prodgy.remember",
        json!({ "title": "Tea", "text": "Tea draws four minutes." }),
    );
    let note = output(&ran.await)["file_id"].as_str().unwrap().to_owned();
    app.wait_ready(&note).await;
    for (name, input) in [
        ("prodgy.search", json!({ "query": "How long does tea draw?" })),
        ("prodgy.digest", json!({ "topic": "How long does tea draw?" })),
    ] {
        let ran = run(&app, &product, name, input).await;
        assert!(output(&ran).to_string().contains("four minutes"), "{ran}");
    }
}

#[tokio::test]
async fn what_needs_the_web_asks_it_again_and_keeps_away_from_what_is_private() {
    let (site, seen) = outside().await;
    let app = TestApp::spawn_with(&[("PRODGY_HTTP_ALLOW", "127.0.0.1/32")]).await;
    let product = app.product().await;
    let body = json!({ "product_id": product.id, "agent": "prodgy.watch" });
    let agent = app.post("/api/agent-base/install", body).await.expect_status(201).data().clone();
    let input = json!({ "url": format!("{site}/page"), "title": "Opening hours" });
    let first = again(&app, &agent, input.clone()).await;
    assert_eq!(output(&first)["changed"], true);
    let attempts = &first["steps"][0]["attempts"];
    assert_eq!(attempts[0]["error"]["code"], "http_status_503", "{first}");
    assert_eq!(attempts[1]["status"], "succeeded");
    assert_eq!(first["steps"][0]["input"]["url"], format!("{site}/page"), "{first}");
    assert_eq!(output(&again(&app, &agent, input.clone()).await)["changed"], false);
    let third = again(&app, &agent, input.clone()).await;
    assert_eq!(output(&third)["changed"], true);
    app.wait_ready(output(&third)["file_id"].as_str().unwrap()).await;
    assert!(app.finds(&product, "When do they open?", "Opening hours: ten to six.").await);
    assert_eq!(output(&again(&app, &agent, input.clone()).await)["changed"], false);
    // What it was at first it is again: that is news once.
    let back = again(&app, &agent, input.clone()).await;
    assert_eq!(output(&back)["changed"], true, "{back}");
    let versions = [&first, &third, &back].map(|ran| output(ran)["file_id"].clone());
    assert!(versions[2] != versions[0] && versions[2] != versions[1], "{versions:?}");
    let same = again(&app, &agent, input).await;
    assert_eq!(
        (&output(&same)["changed"], &output(&same)["file_id"]),
        (&json!(false), &versions[2])
    );
    assert_eq!(seen.asked.load(Ordering::SeqCst), 7);

    let urls = json!([
        format!("{site}/good"),
        format!("{site}/missing"),
        "http://10.0.0.1/",
        "no address"
    ]);
    let ran = run(&app, &product, "prodgy.links", json!({ "urls": urls })).await;
    let report = output(&ran);
    assert_eq!(report["checked"], 4);
    let broken: Vec<&Value> =
        report["broken"].as_array().unwrap().iter().map(|b| &b["url"]).collect();
    assert_eq!(broken, [&urls[1], &urls[2], &urls[3]], "{report}");
    assert!(report["markdown"].as_str().unwrap().contains("10.0.0.1"), "{report}");

    // Together they are more than any step may put out.
    let urls: Vec<String> = (0..40).map(|number| format!("{site}/long/{number}")).collect();
    let ran = run(&app, &product, "prodgy.links", json!({ "urls": urls })).await;
    assert_eq!(output(&ran)["markdown"], "Every link is good.\n");

    // Where nothing private is allowed, nothing private is asked.
    let app = TestApp::spawn().await;
    let product = app.product().await;
    let input = json!({ "url": format!("{site}/page"), "title": "x" });
    let ran = run(&app, &product, "prodgy.watch", input).await;
    assert_eq!(ran["error"]["code"], "http_address_refused", "{ran}");
    assert_eq!(seen.asked.load(Ordering::SeqCst), 7);
}

#[tokio::test]
async fn what_needs_a_chat_model_asks_it_or_says_what_is_missing() {
    let (site, _) = outside().await;
    let url = format!("{site}/v1");
    let settings = [
        ("PRODGY_LLM_URL", url.as_str()),
        ("PRODGY_LLM_MODEL", "test-model"),
        ("PRODGY_LLM_API_KEY", "a key"),
    ];
    let notes = json!({ "notes": "We agreed that Ada mends the roof by Friday." });
    let app = TestApp::spawn_with(&settings).await;
    let product = app.product().await;
    let ran = run(&app, &product, "prodgy.tasks", notes).await;
    let tasks = output(&ran);
    assert_eq!(tasks["tasks"], json!([{ "task": "mend the roof", "who": "Ada", "due": "Friday" }]));
    assert_eq!(tasks["markdown"], "- [ ] mend the roof (Ada, Friday)\n");
    let asked = &ran["steps"][0]["output"];
    assert_eq!(asked["usage"]["prompt_tokens"], 11, "{asked}");
    assert_eq!(asked["model"], "test-model");
    let metrics = app.nobody().get("/metrics").await;
    assert!(metrics.text().contains("prodgy_llm_tokens_total{kind=\"prompt\"} 11"), "{metrics:?}");

    let app = TestApp::spawn().await;
    let product = app.product().await;
    let body = json!({ "product_id": product.id, "agent": "prodgy.tasks" });
    let refused = app.post("/api/agent-base/install", body).await;
    refused.expect_problem(422, "model_not_configured");
}

#[tokio::test]
async fn every_agent_of_the_catalogue_runs_on_its_example() {
    let (site, _) = outside().await;
    let url = format!("{site}/v1");
    let app = TestApp::spawn_with(&[("PRODGY_HTTP_ALLOW", "127.0.0.1/32")]).await;
    let with_model = TestApp::spawn_with(&[
        ("PRODGY_LLM_URL", url.as_str()),
        ("PRODGY_LLM_MODEL", "test-model"),
        ("PRODGY_LLM_API_KEY", "a key"),
    ])
    .await;
    let (product, other) = (app.product().await, with_model.product().await);
    let text = "Something may be returned for sixty days, with its receipt.";
    let file = app.text_file(&product, "returns.txt", text).await;
    app.wait_ready(&file).await;
    connect(&app, &product, &site).await;
    let catalogue = app.get("/api/agent-base/catalog").await.expect_status(200).data().clone();
    for entry in catalogue.as_array().unwrap() {
        // The web of the examples is the server of this test here.
        let input = entry["example_input"].to_string().replace("https://example.com", &site);
        let input: Value = serde_json::from_str(&input).unwrap();
        assert!(input.is_object(), "{entry}");
        let name = entry["name"].as_str().unwrap();
        let ran = match entry["requires"]["model"].is_object() {
            true => run(&with_model, &other, name, input).await,
            false => run(&app, &product, name, input).await,
        };
        assert!(output(&ran).is_object(), "{ran}");
    }
}

#[tokio::test]
async fn an_alarm_tells_of_what_failed_and_never_of_itself() {
    let (site, seen) = outside().await;
    let app = TestApp::spawn_with(&[("PRODGY_HTTP_ALLOW", "127.0.0.1/32")]).await;
    let product = app.product().await;
    let body = json!({
        "product_id": product.id, "agent": "prodgy.alarm", "config": { "url": format!("{site}/told") },
    });
    let alarm = app.post("/api/agent-base/install", body).await.expect_status(201).data().clone();

    // By hand, on an example.
    let example =
        json!({ "execution_id": "an example", "code": "http_status_503", "step": "page" });
    let ran = again(&app, &alarm, example).await;
    let text = "Execution an example failed: http_status_503 at the step page.";
    assert_eq!(output(&ran)["text"], text, "{ran}");
    assert_eq!(seen.told.lock().unwrap()[0]["text"], text);

    let manifest = json!({
        "manifest": "prodgy.agent/1", "name": "acme.broken", "version": "1.0.0", "title": "Broken",
        "steps": [{ "id": "one", "type": "transform", "with": { "value": { "cel": "input.nothing" } } }],
    });
    let body = json!({ "product_id": product.id, "manifest": manifest });
    let broken = app.post("/api/agent-base/install", body).await.expect_status(201).data().clone();
    let failed = again(&app, &broken, json!({})).await;
    assert_eq!(failed["status"], "failed", "{failed}");
    let heard = eventually("nobody was told", async || seen.told.lock().unwrap().get(1).cloned());
    let heard = heard.await;
    assert_eq!((&heard["execution_id"], &heard["agent_id"]), (&failed["id"], &broken["id"]));
    assert_eq!(heard["code"], failed["error"]["code"], "{heard}");
    assert!(heard["text"].as_str().unwrap().contains("at the step one"), "{heard}");
    let list = format!("/api/agent-base/{}/executions", alarm["id"].as_str().unwrap());
    let raised = app.get(&list).await.expect_status(200).data()[0].clone();
    let (agent, execution) = (alarm["id"].as_str().unwrap(), raised["id"].as_str().unwrap());
    let ended = app.wait_execution(agent, execution).await;
    app.wait_ready(output(&ended)["file_id"].as_str().unwrap()).await;
    let question = heard["text"].as_str().unwrap().to_owned();
    assert!(app.finds(&product, &question, &question).await, "the note is found");

    // One that fails itself raises no other.
    let config = json!({ "config": { "url": "http://10.0.0.1/" } });
    let path = format!("/api/agent-base/{}", alarm["id"].as_str().unwrap());
    app.put(&path, config).await.expect_status(200);
    again(&app, &broken, json!({})).await;
    let executions = async || {
        let reply = app.get(&list).await.expect_status(200);
        reply.data().as_array().unwrap().clone()
    };
    eventually("the alarm has not failed", async || {
        (executions().await[0]["status"] == "failed").then_some(())
    })
    .await;
    tokio::time::sleep(std::time::Duration::from_millis(300)).await;
    assert_eq!(executions().await.len(), 3);
}

#[tokio::test]
async fn news_are_told_in_the_morning_where_there_are_some() {
    let (site, seen) = outside().await;
    let app = TestApp::spawn_with(&[("PRODGY_HTTP_ALLOW", "127.0.0.1/32")]).await;
    let product = app.product().await;
    connect(&app, &product, &site).await;
    let body = json!({ "product_id": product.id, "agent": "prodgy.news" });
    let agent = app.post("/api/agent-base/install", body).await.expect_status(201).data().clone();
    let morning = &agent["triggers"][1];
    assert_eq!((&morning["key"], &morning["type"]), (&json!("morning"), &json!("schedule")));
    let path = format!("/api/agent-base/triggers/{}", morning["id"].as_str().unwrap());
    let shown = app.get(&path).await.expect_status(200).data().clone();
    let next = shown["next_firings"].as_array().unwrap();
    assert_eq!(next.len(), 5);
    assert!(next.iter().all(|at| at.as_str().unwrap()[10..].starts_with("T07:00:00")), "{next:?}");

    let quiet = again(&app, &agent, json!({})).await;
    assert_eq!(output(&quiet)["told"], false);
    assert_eq!(seen.said.lock().unwrap().len(), 0, "nobody is told that there is nothing");

    let text = "Since Monday the canteen opens at eleven.";
    let file = app.text_file(&product, "canteen.txt", text).await;
    app.wait_ready(&file).await;
    // The clock, and not somebody, says that it is morning.
    let triggers = format!("/api/agent-base/{}/triggers", agent["id"].as_str().unwrap());
    let soon = json!({ "type": "schedule", "cron": "* * * * * *", "overlap": "skip" });
    let made = app.post(&triggers, soon).await.expect_status(201);
    let heard = eventually("nobody was told", async || seen.said.lock().unwrap().first().cloned());
    let heard = heard.await;
    let soon = format!("/api/agent-base/triggers/{}", made.data()["id"].as_str().unwrap());
    app.delete(&soon).await.expect_status(200);
    assert_eq!(heard["channel"], "C1", "{heard}");
    let said = heard["text"].as_str().unwrap();
    assert!(said.starts_with("New since yesterday:"), "{said}");
    assert!(said.contains(text) && said.contains("(canteen.txt)"), "{said}");
}

#[tokio::test]
async fn an_issue_is_opened_for_what_failed_and_once_for_what_fails_alike() {
    let (site, seen) = outside().await;
    let app = TestApp::spawn_with(&[("PRODGY_HTTP_ALLOW", "127.0.0.1/32")]).await;
    let product = app.product().await;
    connect(&app, &product, &site).await;
    let body = json!({
        "product_id": product.id, "agent": "prodgy.issue", "config": { "labels": ["prodgy"] },
    });
    let agent = app.post("/api/agent-base/install", body).await.expect_status(201).data().clone();
    let manifest = json!({
        "manifest": "prodgy.agent/1", "name": "acme.broken", "version": "1.0.0", "title": "Broken",
        "steps": [
            { "id": "one", "type": "transform", "with": { "value": { "cel": "10 / input.n" } } },
            { "id": "two", "type": "transform", "needs": ["one"],
              "with": { "value": { "cel": "has(input.m) ? 10 / input.m : 0" } } },
        ],
    });
    let body = json!({ "product_id": product.id, "manifest": manifest });
    let broken = app.post("/api/agent-base/install", body).await.expect_status(201).data().clone();
    assert_eq!(again(&app, &broken, json!({ "n": 5 })).await["status"], "succeeded");
    let failed = again(&app, &broken, json!({ "n": 0 })).await;
    let opened = eventually("no issue", async || seen.issues.lock().unwrap().first().cloned());
    let opened = opened.await;
    assert_eq!(opened["title"], "An execution failed: cel_failed at the step one");
    assert_eq!(opened["labels"], json!(["prodgy"]));
    let body = opened["body"].as_str().unwrap();
    assert!(body.contains(failed["id"].as_str().unwrap()), "{body}");

    // What fails alike within the hour is the same issue; what fails at another place is another one.
    again(&app, &broken, json!({ "n": 0 })).await;
    let list = format!("/api/agent-base/{}/executions", agent["id"].as_str().unwrap());
    let statuses = async |wanted: &[&str]| {
        eventually("they have not come so far", async || {
            let shown = app.get(&list).await.expect_status(200).data().clone();
            let shown: Vec<Value> =
                shown.as_array().unwrap().iter().map(|run| run["status"].clone()).collect();
            (shown == wanted).then_some(())
        })
        .await
    };
    statuses(&["cancelled", "waiting"]).await;
    again(&app, &broken, json!({ "n": 1, "m": 0 })).await;
    statuses(&["waiting", "cancelled", "waiting"]).await;
    assert_eq!(seen.issues.lock().unwrap().len(), 2);

    // By hand there is nothing to keep quiet about, and it ends with the issue.
    let ran = again(&app, &agent, json!({ "execution_id": failed["id"] })).await;
    assert_eq!(
        (&output(&ran)["number"], &output(&ran)["url"]),
        (&json!(7), &json!("https://github.example/7"))
    );
    assert_eq!(seen.issues.lock().unwrap().len(), 3);
}
