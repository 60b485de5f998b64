//! The whole system on KurrentDB, from outside: it does its work, and outlives the server.
//!
//! The server is the double of `eventlog/tests/kurrentdb/double`: what passes here says nothing about
//! a real one.
#![expect(clippy::unwrap_used, reason = "tests")]

mod server;

use reqwest::Method;
use reqwest::multipart::{Form, Part};
use serde_json::{Value, json};
use tests::support::{Reply, TestApp, eventually, prodgy, said};

use server::{PASSWORD, Server};

const UPLOAD: &str = "/api/knowledge-base/storage/upload";
const QUESTION: &str = "How much vacation do I get?";
const HOLIDAYS: &str = "Employees may take twenty-five days of paid leave each year.";

async fn on(server: &Server) -> TestApp {
    TestApp::spawn_with(&[("PRODGY_EVENT_STORE", &server.url())]).await
}

fn positions(text: &str) -> Vec<u64> {
    let events = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    events.map(|event| event["position"].as_u64().unwrap()).collect()
}

/// The events that the audit log shows, oldest first.
async fn audited(app: &TestApp) -> Vec<String> {
    let reply = app.get("/api/audit-logs?limit=1000").await.expect_status(200);
    let rows = reply.data().as_array().unwrap();
    rows.iter().rev().map(|row| row["event_type"].as_str().unwrap_or_default().to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_whole_system_works_on_kurrentdb_and_after_a_restart() {
    let server = Server::start();
    let mut app = on(&server).await;
    let product = app.product().await;
    let token = app.token(&product, &[]).await;
    let program = app.with_token(&token.secret);
    let form = Form::new().text("knowledge_base_id", product.knowledge_base.clone()).part(
        "file",
        Part::text(HOLIDAYS).file_name("holidays.txt").mime_str("text/plain").unwrap(),
    );
    let uploaded = program.send(program.request(Method::POST, UPLOAD).multipart(form)).await;
    let uploaded = uploaded.expect_status(202);
    app.wait_ready(uploaded.data()[0]["id"].as_str().unwrap()).await;
    assert!(app.finds(&product, QUESTION, HOLIDAYS).await);
    let agent = app.agent(&product).await;
    let trigger = agent["triggers"][0]["id"].as_str().unwrap();
    let path = format!("/api/agent-base/triggers/{trigger}/execute?wait_seconds=60");
    let input = json!({ "input": { "query": "vacation" } });
    let execution = app.post(&path, input).await.expect_status(200);
    assert_eq!(execution.data()["status"], "succeeded", "{execution:?}");

    app.restart();

    assert!(app.finds(&product, QUESTION, HOLIDAYS).await);
    program.get("/api/products").await.expect_status(200);
    let done = audited(&app).await;
    for what in
        ["product.created.v1", "api_token.created.v1", "file.uploaded.v1", "agent.installed.v1"]
    {
        assert!(done.iter().any(|row| row == what), "{what} is not in {done:?}");
    }

    // Beside the server: every event once, and the newest where positions are not dense.
    let tail = |arguments: &[&str]| {
        let arguments = [&["events", "tail", "--no-follow"], arguments].concat();
        positions(&said(&app.run(&arguments)))
    };
    let all = tail(&["--after", "0"]);
    assert!(all.windows(2).all(|pair| pair[0] < pair[1]), "{all:?}");
    assert_eq!(all, server.positions(), "what is stored, and nothing else");
    assert_eq!(tail(&[]), all[all.len() - 10..], "the last ten");
    let between = (all[4] + 7).to_string();
    assert_eq!(tail(&["--after", &between]), all[5..], "behind a position that no event has");
    let page = format!("/api/events?limit=3&after={between}");
    let page = app.get(&page).await.expect_status(200);
    assert_eq!(page.data()[0]["position"], all[5]);
    let listed = said(&app.run(&["projections", "list"]));
    assert!(listed.contains("product"), "{listed}");
    let verified = said(&app.run(&["projections", "verify"]));
    assert!(verified.contains("are what the log makes of them"), "{verified}");

    // And in its place.
    assert!(app.stop().success());
    said(&app.run(&["projections", "rebuild", "product"]));
    assert!(!app.data_dir().join("events.db").exists(), "the log is on the server alone");
    let logged = app.stderr();
    assert!(!logged.contains(PASSWORD), "the password is nobody's business: {logged}");
}

#[tokio::test(flavor = "multi_thread")]
async fn while_the_server_is_down_reads_go_on_writes_are_put_off_and_all_recovers() {
    let server = Server::start();
    let app = on(&server).await;
    let product = app.product().await;
    let path = format!("/api/products/{}", product.id);
    let new = json!({ "name": "Made when it is back" });

    server.stop().await;

    app.get(&path).await.expect_status(200);
    let reply = app.post_with("/api/products", new.clone(), "idempotency-key", "later").await;
    let refused = reply.expect_problem(503, "log_unavailable");
    assert!(refused.header("retry-after").parse::<u64>().unwrap() > 0, "{refused:?}");
    assert!(!refused.text().contains("127.0.0.1"), "where the log is kept: {refused:?}");
    let ready = app.nobody().get("/readyz").await.expect_status(503);
    assert!(ready.text().contains("event_log"), "{ready:?}");
    app.nobody().get("/healthz").await.expect_status(200);

    server.start_again().await;

    let made = eventually("nothing can be written again", async || {
        let reply = app.post_with("/api/products", new.clone(), "idempotency-key", "later").await;
        (reply.status != 503).then_some(reply)
    });
    let made = made.await.expect_status(201);
    app.get(made.header("location")).await.expect_status(200);
    let file = app.text_file(&product, "later.txt", HOLIDAYS).await;
    app.wait_ready(&file).await;
    eventually("the server is not ready again", async || {
        (app.nobody().get("/readyz").await.status == 200).then_some(())
    })
    .await;
    let listed = app.get("/api/products").await.expect_status(200);
    assert_eq!(listed.body["pagination"]["total"], 2, "what was refused was not made: {listed:?}");
}

/// The store knows a command only within its stream, and a file's stream is named by its bytes.
#[tokio::test(flavor = "multi_thread")]
async fn a_key_uploads_once_whatever_files_come_with_it() {
    let server = Server::start();
    let app = on(&server).await;
    let product = app.product().await;
    let old = app.text_file(&product, "old.txt", "there already").await;
    let upload = async |key: &'static str, texts: &[&'static str]| -> Reply {
        let mut form = Form::new().text("knowledge_base_id", product.knowledge_base.clone());
        for text in texts {
            form = form.part("file", Part::text(*text).file_name(format!("{text}.txt")));
        }
        let request = app.request(Method::POST, UPLOAD).header("idempotency-key", key);
        app.send(request.multipart(form)).await
    };

    upload("one", &["there already"]).await.expect_problem(409, "file_duplicate");
    let first = upload("one", &["there already", "first", "second"]).await.expect_status(202);
    assert_eq!(first.body["replayed"], Value::Null, "a refused upload leaves its key free");
    for others in [&["something else"][..], &["first"], &["there already", "second"]] {
        upload("one", others).await.expect_problem(422, "idempotency_key_reused");
    }
    // What was a duplicate the first time is none now, and still no part of it.
    let gone = format!("/api/knowledge-base/storage/file/{old}");
    app.delete(&gone).await.expect_status(200);
    let again = upload("one", &["there already", "first", "second"]).await.expect_status(202);
    assert_eq!(again.body["replayed"], true, "{again:?}");
    let ids = |reply: &Reply| -> Vec<Value> {
        reply.data().as_array().unwrap().iter().map(|file| file["id"].clone()).collect()
    };
    assert_eq!(ids(&again), ids(&first));
    app.get(&gone).await.expect_status(404);
    upload("two", &["something else"]).await.expect_status(202);

    let path = format!("/api/knowledge-base/storage/{}", product.knowledge_base);
    let listed = app.get(&path).await.expect_status(200);
    assert_eq!(listed.body["pagination"]["total"], 3, "{listed:?}");
}

#[test]
fn a_start_without_its_server_says_what_to_do() {
    let server = Server::start();
    let folder = tempfile::tempdir().unwrap();
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    for (address, words) in [
        (format!("kurrentdb://admin:{PASSWORD}@{nobody}?tls=false"), nobody.to_string()),
        (server.url().replace("admin:", "nobody:"), "its name, its password and its right".into()),
        (
            format!("esdb://admin:{PASSWORD}@host:port"),
            "kurrentdb://user:password@host:2113".into(),
        ),
    ] {
        let output = prodgy(folder.path(), &["serve", "--listen", "127.0.0.1:0"])
            .env("PRODGY_EVENT_STORE", &address)
            .output()
            .unwrap();

        assert!(!output.status.success(), "{output:?}");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(said.contains(&words), "{said}");
        assert!(!said.contains(PASSWORD), "{said}");
    }
}
