//! The whole system on a PostgreSQL server, from outside: it does its work, and outlives the server.
#![expect(clippy::unwrap_used, reason = "tests")]

mod cluster;
#[path = "../s3/server.rs"]
mod server;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use axum::Router;
use axum::routing::get;
use serde_json::{Value, json};
use tests::support::{Product, TestApp, eventually, prodgy, said};

use cluster::Cluster;
use server::S3Server;

const QUESTION: &str = "How much vacation do I get?";
const HOLIDAYS: &str = "Employees may take twenty-five days of paid leave each year.";

/// A server on a database of this cluster.
async fn on(cluster: &Cluster) -> (TestApp, String) {
    let database = cluster.database();
    let app = TestApp::spawn_with(&[("PRODGY_EVENT_STORE", &cluster.url(&database))]).await;
    (app, database)
}

/// A product with one file that can be found.
async fn filled(app: &TestApp) -> Product {
    let product = app.product().await;
    let file = app.text_file(&product, "holidays.txt", HOLIDAYS).await;
    app.wait_ready(&file).await;
    product
}

#[tokio::test(flavor = "multi_thread")]
async fn the_whole_system_works_on_postgresql_and_after_a_restart() {
    let cluster = Cluster::shared();
    let (mut app, database) = on(cluster).await;
    let product = filled(&app).await;
    assert!(app.finds(&product, QUESTION, HOLIDAYS).await);
    let agent = app.agent(&product).await;
    let trigger = agent["triggers"][0]["id"].as_str().unwrap();
    let path = format!("/api/agent-base/triggers/{trigger}/execute?wait_seconds=60");
    let input = json!({ "input": { "query": "vacation" } });
    let execution = app.post(&path, input).await.expect_status(200);
    assert_eq!(execution.data()["status"], "succeeded", "{execution:?}");

    app.restart();

    assert!(app.finds(&product, QUESTION, HOLIDAYS).await);
    let head = app.head().await;
    let stored: u64 = cluster.sql(&database, "SELECT count(*) FROM event_log").parse().unwrap();
    assert!(stored >= head && head > 10, "{stored} events are stored, {head} were taken in");
    let types = "SELECT string_agg(DISTINCT aggregate_type, ' ') FROM events";
    assert!(cluster.sql(&database, types).contains("product"));

    // Beside the server, and in its place.
    let text = said(&app.run(&["events", "tail", "--after", "0", "--no-follow"]));
    let first: Value = serde_json::from_str(text.lines().next().unwrap()).unwrap();
    assert_eq!(first["position"], 1);
    let listed = said(&app.run(&["projections", "list"]));
    assert!(listed.contains("product"), "{listed}");
    let verified = said(&app.run(&["projections", "verify"]));
    assert!(verified.contains("are what the log makes of them"), "{verified}");
    let second = app.run(&["projections", "rebuild", "product"]);
    assert_eq!(second.status.code(), Some(1), "{second:?}");
    let why = String::from_utf8_lossy(&second.stderr).into_owned();
    assert!(why.contains("in use by another prodgy") && why.contains("--data-dir"), "{why}");
    app.stop();
    said(&app.run(&["projections", "rebuild", "product"]));
    assert!(!app.data_dir().join("events.db").exists(), "the log is in the database alone");
}

#[tokio::test(flavor = "multi_thread")]
async fn while_the_database_is_down_reads_go_on_writes_are_put_off_and_all_recovers() {
    let cluster = Cluster::start();
    let (app, _) = on(&cluster).await;
    let product = filled(&app).await;
    let path = format!("/api/products/{}", product.id);
    let new = json!({ "name": "Made when it is back" });

    for round in 0..2 {
        tokio::task::block_in_place(|| {
            if round == 0 { cluster.stop_immediately() } else { cluster.stop() }
        });

        app.get(&path).await.expect_status(200);
        app.get("/api/products").await.expect_status(200);
        assert!(app.finds(&product, QUESTION, HOLIDAYS).await, "searching needs no log");
        let key = format!("key-{round}");
        for _ in 0..2 {
            let reply = app.post_with("/api/products", new.clone(), "idempotency-key", &key).await;
            let refused = reply.expect_problem(503, "log_unavailable");
            assert!(refused.header("retry-after").parse::<u64>().unwrap() > 0, "{refused:?}");
            let says_where = refused.text().contains(&cluster.port().to_string());
            assert!(!says_where, "where the log is kept is nobody's business: {refused:?}");
        }
        app.put(&path, json!({ "name": "Other" })).await.expect_problem(503, "log_unavailable");
        let ready = app.nobody().get("/readyz").await.expect_status(503);
        assert!(ready.text().contains("event_log"), "{ready:?}");
        app.nobody().get("/healthz").await.expect_status(200);

        tokio::task::block_in_place(|| cluster.start_again());

        let made = eventually("nothing can be written again", async || {
            let reply = app.post_with("/api/products", new.clone(), "idempotency-key", &key).await;
            (reply.status != 503).then_some(reply)
        });
        let made = made.await.expect_status(201);
        app.get(made.header("location")).await.expect_status(200);
        app.put(&path, json!({ "name": format!("Renamed {round}") })).await.expect_status(200);
        let renamed = app.get(&path).await.expect_status(200);
        assert_eq!(renamed.data()["name"], format!("Renamed {round}"));
        eventually("the server is not ready again", async || {
            (app.nobody().get("/readyz").await.status == 200).then_some(())
        })
        .await;
        let file =
            app.text_file(&product, &format!("{round}.txt"), &format!("Round {round}")).await;
        app.wait_ready(&file).await;
    }
    let reply = app.get("/api/products").await.expect_status(200);
    assert_eq!(reply.body["pagination"]["total"], 3, "what was refused was not made: {reply:?}");
}

#[test]
fn a_start_without_its_database_says_what_to_do() {
    let cluster = Cluster::shared();
    let folder = tempfile::tempdir().unwrap();
    for (database, words) in
        [("nowhere", "createdb nowhere"), ("postgres?sslmode=require", "sslmode")]
    {
        let url = cluster.url(database);
        let output = prodgy(folder.path(), &["serve", "--listen", "127.0.0.1:0"])
            .env("PRODGY_EVENT_STORE", url)
            .output()
            .unwrap();

        assert_eq!(output.status.code(), Some(1), "{output:?}");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(said.contains(words), "{said}");
        assert!(!said.contains("p%40ss") && !said.contains(cluster::PASSWORD), "{said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_before_a_kill_starts_its_agent_once_after_it() {
    let cluster = Cluster::shared();
    let (mut app, _) = on(cluster).await;
    let product = app.product().await;
    let manifest = json!({
        "manifest": "prodgy.agent/1", "name": "acme.listener", "version": "1.0.0", "title": "Listener",
        "inputs": { "type": "object", "properties": { "file": { "type": "string" } } },
        "triggers": [{
            "id": "ready", "type": "event", "match": "event.type == 'file.uploaded.v1'",
            "input": { "file": { "cel": "event.resource_id" } }
        }],
        "steps": [{ "id": "one", "type": "transform", "with": { "file": { "cel": "input.file" } } }]
    });
    let body = json!({ "product_id": product.id, "manifest": manifest });
    let agent = app.post("/api/agent-base/install", body).await.expect_status(201).data().clone();
    let mut files = Vec::new();
    for round in 0..3 {
        let name = format!("{round}.txt");
        files.push(app.text_file(&product, &name, &format!("Round {round}.")).await);
        app.kill();
        app.start();
    }
    let list = format!("/api/agent-base/{}/executions?limit=1000", agent["id"].as_str().unwrap());
    let executions = eventually("too few were started", async || {
        let reply = app.get(&list).await.expect_status(200);
        // One that a killed server had claimed goes on when its lease is over.
        let executions = reply.data().as_array().unwrap().clone();
        (executions.len() >= files.len()).then_some(executions)
    });
    let executions = executions.await;
    let mut started: Vec<_> =
        executions.iter().map(|it| it["input"]["file"].as_str().unwrap().to_owned()).collect();
    started.sort_unstable();
    files.sort_unstable();
    assert_eq!(started, files);
}

/// A page that is slow when it is asked for the first time, and how often it was asked for.
async fn slow_page(first: Duration) -> (String, Arc<AtomicUsize>) {
    let asked = Arc::new(AtomicUsize::new(0));
    let count = asked.clone();
    let page = move || {
        let is_first = count.fetch_add(1, Ordering::SeqCst) == 0;
        async move {
            if is_first {
                tokio::time::sleep(first).await;
            }
            "done"
        }
    };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    tokio::spawn(async { axum::serve(listener, Router::new().route("/", get(page))).await });
    (url, asked)
}

/// What nodes share: one log, and one store of files and keys.
fn shared_by_nodes(cluster: &Cluster, store: &S3Server) -> Vec<(String, String)> {
    store.make_bucket("prodgy");
    let mut settings = store.environment();
    settings.push(("PRODGY_BLOBS".to_owned(), "s3://prodgy/all".to_owned()));
    settings.push(("PRODGY_EVENT_STORE".to_owned(), cluster.url(&cluster.database())));
    settings.push(("PRODGY_MASTER_KEY".to_owned(), "2a".repeat(32)));
    settings.push(("PRODGY_HTTP_ALLOW".to_owned(), "127.0.0.1/32".to_owned()));
    settings
}

async fn node(settings: &[(String, String)]) -> TestApp {
    let settings: Vec<_> = settings.iter().map(|(a, b)| (a.as_str(), b.as_str())).collect();
    TestApp::spawn_with(&settings).await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_killed_node_was_at_another_one_finishes_before_the_lease_is_over() {
    let (cluster, store) = (Cluster::shared(), S3Server::start());
    let shared = shared_by_nodes(cluster, &store);
    let mut one = node(&shared).await;
    let (url, asked) = slow_page(Duration::from_secs(600)).await;
    let product = one.product().await;
    let manifest = json!({
        "manifest": "prodgy.agent/1", "name": "acme.caller", "version": "1.0.0", "title": "Caller",
        "limits": { "timeout": "20m" },
        "steps": [
            { "id": "before", "type": "transform", "with": { "value": 1 } },
            { "id": "call", "type": "http.request", "needs": ["before"], "timeout": "15m",
              "with": { "method": "GET", "url": url } }
        ],
        "output": { "cel": "steps.call.output.body" }
    });
    let body = json!({ "product_id": product.id, "manifest": manifest });
    let agent = one.post("/api/agent-base/install", body).await.expect_status(201).data().clone();
    let execution = one.execute(&agent, json!({})).await;
    eventually("the step does not call", async || {
        (asked.load(Ordering::SeqCst) == 1).then_some(())
    })
    .await;
    let other = node(&shared).await;
    // Longer than the silence of a node that is gone.
    tokio::time::sleep(Duration::from_secs(25)).await;
    assert_eq!(asked.load(Ordering::SeqCst), 1, "nobody takes it from a node that lives");
    one.kill();
    let killed = Instant::now();

    let shown = other.execution_until(&execution, "succeeded").await;

    assert!(killed.elapsed() < Duration::from_secs(60), "{:?}", killed.elapsed());
    assert_eq!(asked.load(Ordering::SeqCst), 2, "once more for the kill: {shown}");
    assert_eq!(shown["output"], "done", "{shown}");
}
