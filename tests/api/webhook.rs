//! Webhooks from outside: made, delivered to in every way, deduplicated, filtered, taken up again.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use reqwest::Method;
use serde_json::{Value, json};
use sha2::Sha256;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::support::{Client, Product, Reply, TestApp, eventually};

const SECRET: &str = "It's a Secret to Everybody";

/// An agent that puts out what it works on.
fn echo(product: &Product, version: &str, triggers: Value) -> Value {
    json!({ "product_id": product.id, "manifest": manifest(version, triggers) })
}

fn manifest(version: &str, triggers: Value) -> Value {
    json!({
        "manifest": "prodgy.agent/1", "name": "acme.echo", "version": version, "title": "Echo",
        "triggers": triggers,
        "steps": [{ "id": "one", "type": "transform", "with": { "value": { "cel": "input" } } }],
        "output": { "cel": "steps.one.output.value" },
    })
}

struct Installed {
    app: TestApp,
    agent: String,
}

async fn installed() -> Installed {
    let app = TestApp::spawn().await;
    let product = app.product().await;
    let body = echo(&product, "1.0.0", json!([]));
    let reply = app.post("/api/agent-base/install", body).await.expect_status(201);
    let agent = reply.data()["id"].as_str().unwrap().to_owned();
    Installed { app, agent }
}

impl Installed {
    fn triggers(&self) -> String {
        format!("/api/agent-base/{}/triggers", self.agent)
    }

    async fn make(&self, webhook: Value) -> Value {
        let mut body = webhook;
        body["type"] = json!("webhook");
        self.app.post(&self.triggers(), body).await.expect_status(201).data().clone()
    }

    async fn executions(&self) -> Vec<Value> {
        executions(&self.app, &self.agent).await
    }

    /// Waits until so many executions have ended, oldest first.
    async fn ended(&self, count: usize) -> Vec<Value> {
        let what = format!("{count} executions have not ended");
        let mut ended = eventually(&what, async || {
            let executions = self.executions().await;
            let all = executions.iter().all(|execution| !execution["ended_at"].is_null());
            (executions.len() >= count && all).then_some(executions)
        })
        .await;
        assert_eq!(ended.len(), count, "{ended:?}");
        ended.reverse();
        ended
    }

    /// Waits until what was delivered was worked on.
    async fn settled(&self, count: usize) {
        eventually("a delivery was not worked on", async || {
            let path = "/api/audit-logs?limit=1000&resource_type=delivery";
            let rows = self.app.get(path).await.expect_status(200);
            let rows = rows.data().as_array().unwrap().clone();
            let is_end = |row: &&Value| row["action"] != "received";
            (rows.iter().filter(is_end).count() >= count).then_some(())
        })
        .await;
    }
}

async fn executions(app: &TestApp, agent: &str) -> Vec<Value> {
    let list = format!("/api/agent-base/{agent}/executions?limit=1000");
    app.get(&list).await.expect_status(200).data().as_array().unwrap().clone()
}

fn path(trigger: &Value) -> String {
    format!("/api/agent-base/triggers/{}", trigger["id"].as_str().unwrap())
}

fn hmac(secret: &[u8], parts: &[&[u8]]) -> Vec<u8> {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret).unwrap();
    parts.iter().for_each(|part| mac.update(part));
    mac.finalize().into_bytes().to_vec()
}

fn github(secret: &str, body: &[u8]) -> String {
    format!("sha256={}", hex::encode(hmac(secret.as_bytes(), &[body])))
}

async fn deliver(client: &Client, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Reply {
    let nobody = client.nobody();
    let mut request = nobody.request(Method::POST, &format!("/api/webhook/{path}"));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    nobody.send(request.header("content-type", "application/json").body(body.to_vec())).await
}

/// A delivery as GitHub makes it.
async fn push(client: &Client, path: &str, id: &str, body: &[u8]) -> Reply {
    let signature = github(SECRET, body);
    let headers = [
        ("x-github-delivery", id),
        ("x-github-event", "push"),
        ("x-hub-signature-256", signature.as_str()),
    ];
    deliver(client, path, &headers, body).await
}

fn done() -> Value {
    json!({
        "success": true, "message": "Webhook processed successfully",
        "data": { "execution_ids": [] },
    })
}

#[tokio::test]
async fn a_signed_delivery_starts_one_execution_however_often_it_comes() {
    let it = installed().await;
    let trigger =
        it.make(json!({ "path": "acme/push", "verify": "github", "secret": SECRET })).await;
    assert_eq!(trigger["webhook"]["url"], "/api/webhook/acme/push");
    assert_eq!(trigger["webhook"]["secret"], "••••body");
    assert!(trigger["webhook"]["problem"].is_null() && trigger["listening"] == true);
    assert!(trigger["configuration"].get("secret").is_none());

    let body = br#"{"ref":"refs/heads/main","n":1}"#;
    let first = push(&it.app, "acme/push", "one", body).await.expect_status(200);
    assert_eq!(first.body, done());
    let ended = it.ended(1).await;
    assert_eq!(ended[0]["status"], "succeeded");
    assert_eq!(ended[0]["trigger_id"], trigger["id"]);
    assert_eq!(ended[0]["input"], json!({ "ref": "refs/heads/main", "n": 1 }));
    assert_eq!(ended[0]["output"], ended[0]["input"]);

    // The id tells deliveries apart, and nothing else does.
    let again = push(&it.app, "acme/push", "one", br#"{"n":2}"#).await.expect_status(200);
    assert_eq!(again.body, done());
    push(&it.app, "acme/push", "two", body).await.expect_status(200);
    it.settled(2).await;
    it.ended(2).await;

    let shown = it.app.get(&path(&trigger)).await.expect_status(200);
    assert!(shown.data()["last_firing_at"].is_string());
    assert!(!it.app.stderr().contains(SECRET));
}

#[tokio::test]
async fn many_retries_at_once_start_one_execution() {
    let it = installed().await;
    it.make(json!({ "path": "p", "verify": "github", "secret": SECRET })).await;
    let sent = (0..20).map(|_| push(&it.app, "p", "same", b"{}"));
    for reply in futures::future::join_all(sent).await {
        assert_eq!(reply.expect_status(200).body, done());
    }
    it.settled(1).await;
    it.ended(1).await;
}

#[tokio::test]
async fn what_cannot_be_verified_is_refused_starts_nothing_and_is_told_once() {
    let it = installed().await;
    let trigger = it.make(json!({ "path": "p", "verify": "github", "secret": SECRET })).await;
    let good = github(SECRET, b"{}");
    let forged = github("guess", b"{}");
    for headers in [
        &[][..],
        &[("x-hub-signature-256", forged.as_str())],
        &[("x-hub-signature-256", good.as_str()), ("x-hub-signature-256", good.as_str())],
        &[("x-hub-signature", good.as_str())],
    ] {
        deliver(&it.app, "p", headers, b"{}").await.expect_problem(401, "signature_invalid");
    }
    let other_body = deliver(&it.app, "p", &[("x-hub-signature-256", good.as_str())], b"{ }").await;
    other_body.expect_problem(401, "signature_invalid");
    // Paths are exact.
    for path in ["P", "p/", "p/q", "q"] {
        push(&it.app, path, "x", b"{}").await.expect_problem(404, "webhook_not_found");
    }
    for _ in 0..50 {
        deliver(&it.app, "p", &[], b"{}").await.expect_status(401);
    }
    let id = trigger["id"].as_str().unwrap();
    let audit = format!("/api/audit-logs?limit=1000&resource_id={id}&action=rejected");
    let rows = it.app.get(&audit).await.expect_status(200);
    let rows = rows.data().as_array().unwrap().clone();
    let sum: u64 = rows.iter().map(|row| row["details"]["count"].as_u64().unwrap()).sum();
    assert_eq!(sum, 55, "{rows:?}");
    assert!(rows.len() <= 5, "a flood is no line each: {rows:?}");
    assert_eq!(
        (&rows[0]["outcome"], &rows[0]["resource_type"]),
        (&json!("denied"), &json!("trigger"))
    );
    assert_eq!(it.executions().await.len(), 0);
}

#[tokio::test]
async fn every_way_of_verifying_lets_the_right_ones_in() {
    let it = installed().await;
    let body = br#"{"n":1}"#;
    let signature = hex::encode(hmac(b"key", &[body]));
    let in_base64 = STANDARD.encode(hmac(b"key", &[body]));
    let bitbucket = format!("sha256={signature}");
    let now = chrono::Utc::now().timestamp();
    let standard = |secret: &[u8], at: i64| {
        let time = at.to_string();
        let signed = [b"msg_1", b"." as &[u8], time.as_bytes(), b".", body];
        format!("v1,AAAA v1,{}", STANDARD.encode(hmac(secret, &signed)))
    };
    let (time, old) = (now.to_string(), (now - 301).to_string());
    let whsec = format!("whsec_{}", STANDARD.encode("twenty-four bytes of key"));
    let key = b"twenty-four bytes of key";
    let (signed, signed_old) = (standard(key, now), standard(key, now - 301));
    let basic = format!("Basic {}", STANDARD.encode("me:word"));
    let wrong_basic = format!("Basic {}", STANDARD.encode("me:other"));
    type Sent<'a> = Vec<(&'a str, &'a str)>;
    let ways: Vec<(Value, Sent<'_>, Sent<'_>)> = vec![
        (
            json!({ "verify": "bitbucket", "secret": "key" }),
            vec![("x-hub-signature", &bitbucket)],
            vec![("x-hub-signature-256", &bitbucket)],
        ),
        (
            json!({ "verify": "gitlab", "secret": "key" }),
            vec![("x-gitlab-token", "key")],
            vec![("x-gitlab-token", "Key")],
        ),
        (
            json!({ "verify": "standard-webhooks", "secret": whsec }),
            vec![
                ("webhook-id", "msg_1"),
                ("webhook-timestamp", &time),
                ("webhook-signature", &signed),
            ],
            vec![
                ("webhook-id", "msg_1"),
                ("webhook-timestamp", &old),
                ("webhook-signature", &signed_old),
            ],
        ),
        (
            json!({ "verify": "hmac-sha256", "header": "X-Signature", "secret": "key" }),
            vec![("x-signature", &in_base64)],
            vec![("x-signature", "AAAA")],
        ),
        (
            json!({ "verify": "basic", "secret": "me:word" }),
            vec![("authorization", &basic)],
            vec![("authorization", &wrong_basic)],
        ),
        (
            json!({ "verify": "token", "header": "X-Token", "secret": "key" }),
            vec![("x-token", "key")],
            vec![("x-token", "keys")],
        ),
    ];
    for (mut webhook, good, bad) in ways {
        let name = webhook["verify"].as_str().unwrap().to_owned();
        webhook["path"] = json!(name);
        it.make(webhook).await;
        deliver(&it.app, &name, &bad, body).await.expect_problem(401, "signature_invalid");
        assert_eq!(deliver(&it.app, &name, &good, body).await.expect_status(200).body, done());
    }
    it.make(json!({ "verify": "none", "path": "open" })).await;
    deliver(&it.app, "open", &[], body).await.expect_status(200);
    it.ended(7).await;
    // That nobody verified it is on record.
    let rows = it.app.get("/api/audit-logs?action=received&limit=1").await.expect_status(200);
    assert_eq!(rows.data()[0]["details"]["verify"], "none", "{rows:?}");
}

/// What the library of Standard Webhooks sends with a body.
fn signed_by_their_library(secret: &str, id: &str, body: &[u8]) -> Vec<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("a folder of the workspace");
    let mut signer = Command::new(root.join("scripts/webhook-signer"))
        .args([secret, id])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("scripts/webhook-signer can be run");
    signer.stdin.take().expect("it reads").write_all(body).expect("it reads all of it");
    let output = signer.wait_with_output().expect("it ends");
    let headers = String::from_utf8(output.stdout).expect("text");
    let header =
        |line: &str| line.split_once(": ").map(|(name, value)| (name.into(), value.into()));
    let headers = headers.lines().filter_map(header).collect::<Vec<_>>();
    assert_eq!(
        headers.len(),
        3,
        "scripts/webhook-signer --install puts their library into the cache"
    );
    headers
}

#[tokio::test]
async fn what_the_library_of_standard_webhooks_signs_is_let_in() {
    let it = installed().await;
    let secret = format!("whsec_{}", STANDARD.encode("twenty-four bytes of key"));
    it.make(json!({ "verify": "standard-webhooks", "secret": secret, "path": "standard" })).await;
    let body = r#"{"n":1,"text":"Grüße, 世界 🎉"}"#.as_bytes();
    let headers = signed_by_their_library(&secret, "msg_1", body);
    let headers: Vec<_> = headers.iter().map(|(name, value)| (&**name, &**value)).collect();
    let changed = r#"{"n":2,"text":"Grüße, 世界 🎉"}"#.as_bytes();
    deliver(&it.app, "standard", &headers, changed).await.expect_problem(401, "signature_invalid");
    for _ in 0..2 {
        deliver(&it.app, "standard", &headers, body).await.expect_status(200);
    }
    assert_eq!(it.ended(1).await.len(), 1);
}

#[tokio::test]
async fn a_body_that_is_no_json_or_too_long_is_refused() {
    let it = installed().await;
    it.make(json!({ "path": "p", "verify": "github", "secret": SECRET })).await;
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    for (id, body) in
        [&b""[..], b"{", b"Hello, World!", b"\"\xff\"", deep.as_bytes()].iter().enumerate()
    {
        let reply = push(&it.app, "p", &id.to_string(), body).await;
        reply.expect_problem(400, "body_malformed");
    }
    let fitting = format!("\"{}\"", "a".repeat(1024 * 1024 - 2));
    push(&it.app, "p", "fits", fitting.as_bytes()).await.expect_status(200);
    it.make(json!({ "path": "q", "verify": "none" })).await;
    let longer = format!("{fitting} ");
    deliver(&it.app, "q", &[], longer.as_bytes()).await.expect_status(413);
    it.settled(1).await;
}

#[tokio::test]
async fn a_trigger_takes_what_it_wants_and_maps_it() {
    let it = installed().await;
    it.make(json!({
        "path": "p", "verify": "hmac-sha256", "header": "X-Signature", "secret": SECRET,
        "delivery_id": "/id",
        "match": "trigger.headers['x-acme-event'] == 'push' && trigger.body.branch == 'main'",
        "input": {
            "commit": { "cel": "trigger.body.commit" },
            "by": { "template": "{{ trigger.type }} {{ trigger.delivery_id }}" },
        },
    }))
    .await;
    let send = async |event: &str, body: Value| {
        let body = body.to_string();
        let signature = github(SECRET, body.as_bytes());
        let headers = [("x-acme-event", event), ("x-signature", signature.as_str())];
        deliver(&it.app, "p", &headers, body.as_bytes()).await.expect_status(200)
    };
    send("push", json!({ "id": 1, "branch": "main", "commit": "abc" })).await;
    send("push", json!({ "id": 1, "branch": "main", "commit": "def" })).await;
    send("push", json!({ "id": 2, "branch": "dev", "commit": "abc" })).await;
    send("issue", json!({ "id": 3, "branch": "main", "commit": "abc" })).await;
    // It asks for what is not there.
    send("push", json!({ "id": 4 })).await;
    it.settled(4).await;
    let ended = it.ended(1).await;
    assert_eq!(ended[0]["input"], json!({ "commit": "abc", "by": "webhook 1" }));

    let audit = "/api/audit-logs?limit=1000&resource_type=delivery";
    let rows = it.app.get(audit).await.expect_status(200);
    let count = |action: &str| {
        rows.data().as_array().unwrap().iter().filter(|row| row["action"] == action).count()
    };
    assert_eq!(["received", "started", "filtered", "failed"].map(count), [4, 1, 2, 1]);
}

#[tokio::test]
async fn a_path_is_there_once_until_it_is_let_go_of() {
    let it = installed().await;
    let webhook = |path: &str| json!({ "type": "webhook", "path": path, "verify": "none" });
    let first = it.make(webhook("a/b.c/d~e")).await;
    it.app
        .post(&it.triggers(), webhook("a/b.c/d~e"))
        .await
        .expect_problem(409, "webhook_path_taken");
    let second = it.make(webhook("other")).await;
    it.app
        .put(&path(&second), webhook("a/b.c/d~e"))
        .await
        .expect_problem(409, "webhook_path_taken");
    deliver(&it.app, "a/b.c/d~e", &[], b"1").await.expect_status(200);

    // Replaced: the old one is free, the new one is not.
    it.app.put(&path(&first), webhook("new")).await.expect_status(200);
    deliver(&it.app, "a/b.c/d~e", &[], b"1").await.expect_status(404);
    deliver(&it.app, "new", &[], b"1").await.expect_status(200);
    it.app.put(&path(&second), webhook("a/b.c/d~e")).await.expect_status(200);
    deliver(&it.app, "a/b.c/d~e", &[], b"1").await.expect_status(200);

    // Deleted.
    it.app.delete(&path(&first)).await.expect_status(200);
    deliver(&it.app, "new", &[], b"1").await.expect_status(404);
    it.make(webhook("new")).await;
    deliver(&it.app, "new", &[], b"1").await.expect_status(200);

    // Uninstalled.
    it.app.delete(&format!("/api/agent-base/{}", it.agent)).await.expect_status(200);
    deliver(&it.app, "new", &[], b"1").await.expect_status(404);
    let product = it.app.product().await;
    let triggers = json!([
        { "id": "manual", "type": "manual" },
        { "id": "push", "type": "webhook", "path": "new", "verify": "none" }
    ]);
    let body = echo(&product, "1.0.0", triggers);
    it.app.post("/api/agent-base/install", body.clone()).await.expect_status(201);
    deliver(&it.app, "new", &[], b"1").await.expect_status(200);
    it.app.post("/api/agent-base/install", body).await.expect_problem(409, "webhook_path_taken");
}

#[tokio::test]
async fn a_flood_at_one_path_is_held_up_there_and_nowhere_else() {
    let app = TestApp::spawn_with(&[("PRODGY_WEBHOOK_LIMIT_PER_SECOND", "3")]).await;
    let product = app.product().await;
    let body = echo(&product, "1.0.0", json!([]));
    let reply = app.post("/api/agent-base/install", body).await.expect_status(201);
    let there = Installed { agent: reply.data()["id"].as_str().unwrap().to_owned(), app };
    for path in ["flooded", "calm"] {
        there.make(json!({ "path": path, "verify": "github", "secret": SECRET })).await;
    }
    let forged = [("x-hub-signature-256", "sha256=00"), ("x-github-delivery", "1")];
    let flood =
        futures::future::join_all((0..50).map(|_| deliver(&there.app, "flooded", &forged, b"{}")));
    let guesses = futures::future::join_all((0..50).map(|number| {
        let path = format!("guessed/{number}");
        let app = &there.app;
        async move { deliver(app, &path, &[], b"{}").await }
    }));
    let (flood, guesses, calm) =
        tokio::join!(flood, guesses, push(&there.app, "calm", "one", b"{}"));
    assert_eq!(calm.status, 200, "{calm:?}");
    assert_eq!(calm.header("ratelimit-limit"), "3");
    for reply in flood.iter().chain(&guesses) {
        assert_eq!(reply.header("ratelimit-limit"), "3", "{reply:?}");
    }
    for (replies, ordinary) in [(flood, 401), (guesses, 404)] {
        let refused = replies.iter().filter(|reply| reply.status == 429).count();
        let others = replies.iter().filter(|reply| reply.status == ordinary).count();
        assert!(refused > 0 && others >= 3 && refused + others == 50, "{refused}, {others}");
        let refused = replies.into_iter().find(|reply| reply.status == 429).unwrap();
        assert_eq!(refused.header("retry-after"), "1");
        for name in ["ratelimit-limit", "ratelimit-remaining", "ratelimit-reset"] {
            assert!(refused.headers.contains_key(name), "{name} is missing: {refused:?}");
        }
        refused.expect_problem(429, "rate_limited");
    }
    there.ended(1).await;
}

/// A delivery of which only the beginning was sent.
async fn begin(app: &TestApp, path: &str) -> TcpStream {
    let address = app.base().trim_start_matches("http://").to_owned();
    let head = format!(
        "POST /api/webhook/{path} HTTP/1.1\r\nhost: {address}\r\ncontent-length: 100\r\n\r\n{{"
    );
    let mut stream = TcpStream::connect(&address).await.unwrap();
    stream.write_all(head.as_bytes()).await.unwrap();
    stream
}

#[tokio::test]
async fn who_sends_slowly_keeps_nobody_out() {
    let it = installed().await;
    let paths = ["one", "two", "three", "four", "calm"];
    for path in paths {
        it.make(json!({ "path": path, "verify": "github", "secret": SECRET })).await;
    }
    let mut slow = Vec::new();
    for path in &paths[..4] {
        slow.extend(futures::future::join_all((0..64).map(|_| begin(&it.app, path))).await);
    }
    // They are there when the next one from here is turned away.
    eventually("the slow ones are not there", async || {
        (push(&it.app, "one", "1", b"{}").await.status == 429).then_some(())
    })
    .await;
    push(&it.app, "calm", "1", b"{}").await.expect_status(200);
    drop(slow);
    for path in &paths[..4] {
        eventually("there is no room again", async || {
            (push(&it.app, path, "2", b"{}").await.status == 200).then_some(())
        })
        .await;
    }
}

#[tokio::test]
async fn what_github_sends_is_longer_and_may_be_a_form() {
    let it = installed().await;
    for verify in ["github", "bitbucket"] {
        it.make(json!({ "path": verify, "verify": verify, "secret": SECRET })).await;
    }
    let long = format!("\"{}\"", "a".repeat(2 * 1024 * 1024));
    push(&it.app, "github", "long", long.as_bytes()).await.expect_status(200);
    deliver(&it.app, "bitbucket", &[], long.as_bytes()).await.expect_status(413);
    let form = b"payload=%7B%22ref%22%3A%22main%22%7D";
    let signature = github(SECRET, form);
    let request = it
        .app
        .request(Method::POST, "/api/webhook/github")
        .header("content-type", "application/x-www-form-urlencoded")
        .header("x-github-delivery", "form")
        .header("x-hub-signature-256", signature)
        .body(form.to_vec());
    let reply = it.app.send(request).await.expect_status(200);
    // It is a write, and says how far the log is.
    assert!(reply.header("x-event-position").parse::<u64>().unwrap() > 0);
    let ended = it.ended(2).await;
    assert!(ended.iter().any(|it| it["input"] == json!({ "ref": "main" })), "{ended:?}");
}

#[tokio::test]
async fn a_path_that_nobody_chose_cannot_be_guessed() {
    let it = installed().await;
    let trigger = it.make(json!({ "verify": "none" })).await;
    let open = trigger["webhook"]["path"].as_str().unwrap();
    assert!(open.len() >= 64, "{open}");
    deliver(&it.app, open, &[], b"1").await.expect_status(200);
    let id = trigger["id"].as_str().unwrap().replace('-', "");
    for guess in [id.clone(), format!("{id}.{}", "0".repeat(32)), format!("{open}0")] {
        deliver(&it.app, &guess, &[], b"1").await.expect_problem(404, "webhook_not_found");
    }
    // With one of its own it has no other.
    let own = json!({ "type": "webhook", "verify": "none", "path": "own" });
    it.app.put(&path(&trigger), own).await.expect_status(200);
    deliver(&it.app, open, &[], b"1").await.expect_status(404);
    deliver(&it.app, "own", &[], b"1").await.expect_status(200);
}

#[tokio::test]
async fn a_secret_is_set_kept_replaced_and_never_shown() {
    let it = installed().await;
    let missing = json!({ "type": "webhook", "path": "p", "verify": "github" });
    let refused = it.app.post(&it.triggers(), missing.clone()).await;
    let refused = refused.expect_problem(422, "trigger_invalid");
    assert_eq!(refused.body["errors"][0]["code"], "secret_missing");
    for (change, code) in [
        (json!({ "type": "schedule", "cron": "0 3 * * *", "secret": "x" }), "field_unknown"),
        (json!({ "type": "webhook", "verify": "none", "secret": "x" }), "secret_unused"),
        (
            json!({ "type": "webhook", "verify": "standard-webhooks", "secret": "!" }),
            "secret_invalid",
        ),
    ] {
        let refused = it.app.post(&it.triggers(), change).await;
        let refused = refused.expect_problem(422, "trigger_invalid");
        assert_eq!(refused.body["errors"][0]["code"], code);
        assert_eq!(refused.body["errors"][0]["field"], "/secret");
    }

    let trigger = it.make(json!({ "path": "p", "verify": "github", "secret": SECRET })).await;
    let trigger = path(&trigger);
    // Left out of a replacement, it stays.
    let mut replaced = missing.clone();
    replaced["path"] = json!("q");
    it.app.put(&trigger, replaced.clone()).await.expect_status(200);
    push(&it.app, "q", "1", b"{}").await.expect_status(200);
    // The same one again changes nothing.
    let before = it.app.get(&trigger).await.expect_status(200);
    replaced["secret"] = json!(SECRET);
    let same = it.app.put(&trigger, replaced.clone()).await.expect_status(200);
    assert_eq!(same.header("etag"), before.header("etag"));
    // Another one counts at once.
    replaced["secret"] = json!("a canary that nobody sees");
    let shown = it.app.put(&trigger, replaced).await.expect_status(200);
    assert_eq!(shown.data()["webhook"]["secret"], "••••sees");
    push(&it.app, "q", "2", b"{}").await.expect_status(401);

    for path in ["/api/events?limit=1000", "/api/audit-logs?limit=1000", trigger.as_str()] {
        let text = it.app.get(path).await.expect_status(200).text();
        assert!(!text.contains("canary") && !text.contains(SECRET), "{path}");
    }
    assert!(!it.app.stderr().contains("canary"));
    // One of another scheme does not stay, and what everybody may know is none.
    for (change, code) in [
        (json!({ "verify": "standard-webhooks" }), "secret_missing"),
        (json!({ "verify": "token", "header": "X-Token" }), "secret_missing"),
        (json!({ "verify": "github", "secret": "whpk_AAAA" }), "secret_invalid"),
    ] {
        let mut change = change;
        change["type"] = json!("webhook");
        let refused = it.app.put(&trigger, change).await.expect_problem(422, "trigger_invalid");
        assert_eq!(refused.body["errors"][0]["code"], code, "{refused:?}");
    }
    // Switched off, it does not listen.
    let off = json!({ "type": "webhook", "path": "q", "verify": "github", "enabled": false });
    it.app.put(&trigger, off).await.expect_status(200);
    push(&it.app, "q", "3", b"{}").await.expect_problem(404, "webhook_not_found");
}

#[tokio::test]
async fn a_webhook_of_a_manifest_waits_for_its_secret_and_hands_it_on() {
    let app = TestApp::spawn().await;
    let product = app.product().await;
    let triggers = |path: &str| {
        json!([
            { "id": "manual", "type": "manual" },
            { "id": "push", "type": "webhook", "path": path, "verify": "github" }
        ])
    };
    let body = echo(&product, "1.0.0", triggers("acme/push"));
    let agent = app.post("/api/agent-base/install", body).await.expect_status(201);
    let id = agent.data()["id"].as_str().unwrap();
    let trigger = path(&agent.data()["triggers"][1]);
    let shown = app.get(&trigger).await.expect_status(200);
    assert!(shown.data()["webhook"]["secret"].is_null());
    assert!(shown.data()["webhook"]["problem"].as_str().unwrap().contains("refused"));
    push(&app, "acme/push", "1", b"{}").await.expect_problem(401, "webhook_without_secret");

    let with_secret =
        json!({ "type": "webhook", "path": "acme/push", "verify": "github", "secret": SECRET });
    let shown = app.put(&trigger, with_secret).await.expect_status(200);
    assert!(shown.data()["webhook"]["problem"].is_null());
    push(&app, "acme/push", "1", b"{}").await.expect_status(200);

    // Another version listens at the same path by the same secret, and starts itself.
    let versions = format!("/api/agent-base/{id}/versions");
    let second = json!({ "manifest": manifest("1.1.0", triggers("acme/push")) });
    let published = app.post(&versions, second).await.expect_status(201);
    push(&app, "acme/push", "2", b"{}").await.expect_status(200);
    // A delivery that came to the first version is known to the second one.
    push(&app, "acme/push", "1", b"{}").await.expect_status(200);
    // A secret that was inherited is exchanged as one of its own is.
    let second = path(&published.data()["triggers"][1]);
    let other = json!({ "secret": "another secret", "grace_seconds": 3600 });
    app.post(&format!("{second}/rotate-secret"), other).await.expect_status(200);
    let shown = app.get(&second).await.expect_status(200);
    assert!(shown.data()["webhook"]["previous_secret_until"].is_string(), "{shown:?}");
    push(&app, "acme/push", "1", b"{}").await.expect_status(200);
    let signed = [("x-hub-signature-256", github("another secret", b"{}"))];
    let signed = signed.iter().map(|(name, value)| (*name, value.as_str())).collect::<Vec<_>>();
    let signed = [&signed[..], &[("x-github-delivery", "1")]].concat();
    deliver(&app, "acme/push", &signed, b"{}").await.expect_status(200);
    let ran = eventually("two executions have not ended", async || {
        let ran = executions(&app, id).await;
        (ran.len() == 2 && ran.iter().all(|it| !it["ended_at"].is_null())).then_some(ran)
    });
    let ran = ran.await;
    assert_eq!(ran[0]["version_id"], published.data()["id"], "{ran:?}");
    assert_ne!(ran[1]["version_id"], published.data()["id"]);

    // Only the active version listens.
    let third = json!({ "manifest": manifest("1.2.0", triggers("acme/later")) });
    app.post(&versions, third).await.expect_status(201);
    push(&app, "acme/push", "3", b"{}").await.expect_problem(404, "webhook_not_found");
    push(&app, "acme/later", "3", b"{}").await.expect_status(200);
}

#[tokio::test]
async fn a_server_that_is_killed_after_its_answer_starts_what_was_delivered_once() {
    let mut it = installed().await;
    it.make(json!({ "path": "p", "verify": "github", "secret": SECRET })).await;
    let mut sent = 0;
    for round in 0..4 {
        let count = 8;
        let ids: Vec<_> = (0..count).map(|n| format!("{round}-{n}")).collect();
        let pushes = ids.iter().map(|id| push(&it.app, "p", id, b"{\"n\":1}"));
        for reply in futures::future::join_all(pushes).await {
            reply.expect_status(200);
        }
        sent += count;
        // Some were worked on by now, others were not.
        it.app.kill();
        it.app.start();
        // The sender has not heard of it, for all we know.
        for id in &ids {
            push(&it.app, "p", id, b"{\"n\":1}").await.expect_status(200);
        }
    }
    it.settled(sent).await;
    let ended = it.ended(sent).await;
    assert!(ended.iter().all(|execution| execution["status"] == "succeeded"), "{ended:?}");
    assert!(it.app.stop().success());
    it.app.verified();
}

#[tokio::test]
async fn a_secret_is_exchanged_while_deliveries_come_in() {
    let it = installed().await;
    let trigger =
        path(&it.make(json!({ "path": "p", "verify": "github", "secret": SECRET })).await);
    let rotate = format!("{trigger}/rotate-secret");
    let signed = async |secret: &str, id: &str| {
        let signature = github(secret, b"{}");
        let headers = [("x-github-delivery", id), ("x-hub-signature-256", signature.as_str())];
        deliver(&it.app, "p", &headers, b"{}").await
    };
    let body = json!({ "secret": "second-secret-0002", "grace_seconds": 3600 });
    let rotated = it.app.post(&rotate, body).await.expect_status(200);
    assert!(rotated.data()["secret"].is_null(), "whoever sent it knows it");
    let door = &rotated.data()["trigger"]["webhook"];
    assert_eq!(door["secret"], "••••0002");
    assert!(door["previous_secret_until"].is_string());
    for (secret, id) in [(SECRET, "1"), ("second-secret-0002", "2")] {
        signed(secret, id).await.expect_status(200);
    }
    signed("a third", "3").await.expect_status(401);

    // Made here, shown once, and alone at once.
    let made = it.app.post_empty(&rotate).await.expect_status(200);
    let third = made.data()["secret"].as_str().unwrap().to_owned();
    assert_eq!(made.data()["trigger"]["webhook"]["previous_secret_until"], Value::Null);
    signed(&third, "3").await.expect_status(200);
    for secret in [SECRET, "second-secret-0002"] {
        signed(secret, "4").await.expect_status(401);
    }
    // A short time of grace ends by itself.
    let body = json!({ "secret": "the last one", "grace_seconds": 1 });
    it.app.post(&rotate, body).await.expect_status(200);
    eventually("the grace does not end", async || {
        (signed(&third, "5").await.body["error"] == "signature_invalid").then_some(())
    })
    .await;
    signed("the last one", "6").await.expect_status(200);

    let too_long = json!({ "grace_seconds": 604_801 });
    it.app.post(&rotate, too_long).await.expect_problem(422, "invalid_body");
    let open = path(&it.make(json!({ "verify": "none" })).await);
    let rotate = format!("{open}/rotate-secret");
    it.app.post_empty(&rotate).await.expect_problem(409, "trigger_without_secret");
    let basic = path(&it.make(json!({ "verify": "basic", "secret": "a:b" })).await);
    let rotate = format!("{basic}/rotate-secret");
    it.app.post_empty(&rotate).await.expect_problem(422, "trigger_invalid");
}

#[tokio::test]
async fn deliveries_are_listed_with_what_became_of_them_and_replayed() {
    let it = installed().await;
    let trigger = path(
        &it.make(json!({
            "path": "p", "verify": "github", "secret": SECRET,
            "match": "trigger.body.wanted", "input": { "n": { "cel": "trigger.body.n" } },
        }))
        .await,
    );
    let list = format!("{trigger}/deliveries");
    assert_eq!(it.app.get(&list).await.expect_status(200).data(), &json!([]));
    push(&it.app, "p", "good", br#"{"wanted":true,"n":1}"#).await.expect_status(200);
    push(&it.app, "p", "unwanted", br#"{"wanted":false}"#).await.expect_status(200);
    push(&it.app, "p", "unfit", br#"{"wanted":true}"#).await.expect_status(200);
    it.settled(3).await;
    let listed = it.app.get(&list).await.expect_status(200);
    let of = |id: &str| {
        let items = listed.data().as_array().unwrap();
        items.iter().find(|item| item["delivery_id"] == id).unwrap().clone()
    };
    let (good, unwanted, unfit) = (of("good"), of("unwanted"), of("unfit"));
    assert_eq!((&good["status"], &good["verify"]), (&json!("started"), &json!("github")));
    assert_eq!(good["headers"]["x-github-event"], "push");
    assert!(good["headers"].get("x-hub-signature-256").is_none());
    assert_eq!(good["execution_id"], it.ended(1).await[0]["id"]);
    assert_eq!(unwanted["status"], "filtered");
    assert_eq!((&unfit["status"], &unfit["code"]), (&json!("failed"), &json!("input_invalid")));
    assert!(unfit["message"].as_str().unwrap().contains("input"));

    let replay = |delivery: &Value| format!("{list}/{}/replay", delivery["id"].as_str().unwrap());
    let again = it.app.post_with(&replay(&good), json!({}), "idempotency-key", "again").await;
    let again = again.expect_status(202);
    let twice = it.app.post_with(&replay(&good), json!({}), "idempotency-key", "again").await;
    assert_eq!(twice.expect_status(202).data(), again.data());
    let ended = it.ended(2).await;
    assert_eq!(
        (&ended[1]["id"], &ended[1]["input"]),
        (&again.data()["execution_id"], &json!({ "n": 1 }))
    );
    it.app.post_empty(&replay(&unwanted)).await.expect_problem(409, "delivery_filtered");
    it.app.post_empty(&replay(&unfit)).await.expect_problem(409, "delivery_unusable");
    let other = path(&it.make(json!({ "verify": "none" })).await);
    let elsewhere = format!("{other}/deliveries/{}/replay", good["id"].as_str().unwrap());
    it.app.post_empty(&elsewhere).await.expect_problem(404, "delivery_not_found");

    // In another version, which need not be the active one.
    let second = manifest("2.0.0", json!([]));
    let versions = format!("/api/agent-base/{}/versions", it.agent);
    let body = json!({ "manifest": second, "activate": false });
    let published = it.app.post(&versions, body).await.expect_status(201);
    let body = json!({ "version_id": published.data()["id"] });
    let whole = format!("{}?wait_seconds=60", replay(&good));
    let ran = it.app.post(&whole, body).await.expect_status(200);
    assert_eq!(ran.data()["version_id"], published.data()["id"]);
}
