//! Communicators from outside: people speak, agents answer, whatever happens in between. Slack is a small
//! server on loopback that checks what it is sent.

mod edits;
mod files;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use chrono::Utc;
use hmac::{Hmac, KeyInit, Mac};
use reqwest::Method;
use serde_json::{Value, json};
use sha2::Sha256;

use crate::integration::other_side::{OtherSide, Says, Seen, gives, says};
use crate::support::{Client, Product, Reply, TestApp, eventually};

/// The signing secret of the app.
pub const SECRET: &str = "8f742231b10e8888abcd99yyyzzz85a5";
const TOKEN: &str = "xoxb-0123456789";

/// A Slack that takes messages, unless it is told otherwise, and says what it was sent.
struct Slack {
    side: OtherSide,
    posted: Arc<Mutex<Vec<Value>>>,
    is_down: Arc<AtomicBool>,
    /// So many answers say to wait.
    busy: Arc<AtomicUsize>,
    /// For how many seconds.
    wait: Arc<AtomicU64>,
    refuses: Arc<Mutex<Option<&'static str>>>,
    /// What is answered to whoever asks for a file, by its path.
    files: Arc<Mutex<BTreeMap<String, Says>>>,
}

impl Slack {
    async fn start() -> Slack {
        let posted: Arc<Mutex<Vec<Value>>> = Arc::default();
        let (is_down, busy) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let wait = Arc::new(AtomicU64::new(1));
        let refuses: Arc<Mutex<Option<&'static str>>> = Arc::default();
        let files: Arc<Mutex<BTreeMap<String, Says>>> = Arc::default();
        let state = (posted.clone(), is_down.clone(), busy.clone(), wait.clone(), refuses.clone());
        let kept = files.clone();
        let side = OtherSide::start(move |seen| {
            let (posted, is_down, busy, wait, refuses) = &state;
            if is_down.load(Ordering::SeqCst) {
                return says(503, json!({ "ok": false, "error": "service_unavailable" }));
            }
            let one_less = |left: usize| left.checked_sub(1);
            if busy.fetch_update(Ordering::SeqCst, Ordering::SeqCst, one_less).is_ok() {
                let wait = wait.load(Ordering::SeqCst).to_string();
                return says(429, json!({ "ok": false, "error": "ratelimited" }))
                    .with("retry-after", wait);
            }
            if let Some(error) = *refuses.lock().unwrap() {
                return says(200, json!({ "ok": false, "error": error }));
            }
            if seen.path.starts_with("/files/") || seen.path == "/api/files.info" {
                return file(seen, &kept.lock().unwrap());
            }
            let message = checked(seen);
            let mut posted = posted.lock().unwrap();
            posted.push(message.clone());
            let ts = format!("1700000000.{:06}", posted.len());
            says(200, json!({ "ok": true, "channel": message["channel"], "ts": ts, "message": {} }))
        })
        .await;
        Slack { side, posted, is_down, busy, wait, refuses, files }
    }

    fn posted(&self) -> Vec<Value> {
        self.posted.lock().unwrap().clone()
    }

    /// Waits until so many messages were posted.
    async fn has(&self, count: usize) -> Vec<Value> {
        let what = format!("{count} messages were not posted");
        let posted = eventually(&what, async || {
            let posted = self.posted();
            (posted.len() >= count).then_some(posted)
        })
        .await;
        assert_eq!(posted.len(), count, "{posted:?}");
        posted
    }
}

/// What Slack gives whoever asks for a file with the bot's token, or for what is known of one.
fn file(seen: &Seen, files: &BTreeMap<String, Says>) -> Says {
    assert_eq!(seen.header("authorization"), format!("Bearer {TOKEN}"));
    if seen.path == "/api/files.info" {
        assert_eq!(seen.body, "file=F9");
        let url = format!("http://{}/files/F9/shared.txt", seen.header("host"));
        let file = json!({ "id": "F9", "name": "shared.txt", "url_private_download": url });
        return says(200, json!({ "ok": true, "file": file }));
    }
    assert_eq!(seen.method, "GET");
    files.get(&seen.path).cloned().unwrap_or_else(|| says(404, json!({})))
}

/// What is sent to `chat.postMessage`, held against what Slack documents.
fn checked(seen: &Seen) -> Value {
    assert_eq!((seen.method.as_str(), seen.path.as_str()), ("POST", "/api/chat.postMessage"));
    assert_eq!(seen.header("authorization"), format!("Bearer {TOKEN}"));
    assert!(seen.header("content-type").starts_with("application/json"));
    let message: Value = serde_json::from_str(&seen.body).unwrap();
    for (field, value) in message.as_object().unwrap() {
        assert!(["channel", "text", "thread_ts", "client_msg_id"].contains(&field.as_str()));
        assert!(value.as_str().is_some_and(|text| !text.is_empty()), "{message}");
    }
    assert!(message["client_msg_id"].as_str().unwrap().parse::<uuid::Uuid>().is_ok());
    message
}

struct World {
    app: TestApp,
    product: Product,
    slack: Slack,
    /// The communicator.
    id: String,
}

impl World {
    async fn new() -> World {
        World::with(|_| json!({})).await
    }

    /// Whose files come into the knowledge base.
    async fn taking_files() -> World {
        World::with(|product| json!({ "ingest_files": product.knowledge_base })).await
    }

    async fn with(config: impl Fn(&Product) -> Value) -> World {
        let app = TestApp::spawn_with(&[
            ("PRODGY_HTTP_ALLOW", "127.0.0.0/8"),
            ("PRODGY_UPLOAD_LIMIT_BYTES", "2000"),
        ])
        .await;
        let (product, slack) = (app.product().await, Slack::start().await);
        let mut config = config(&product);
        config["base_url"] = json!(format!("{}/api", slack.side.url));
        let body = json!({
            "product_id": product.id, "type": "slack", "title": "Chat",
            "config": config,
            "secrets": { "bot_token": TOKEN, "signing_secret": SECRET },
        });
        let made = app.post("/api/integrations-base", body).await.expect_status(201);
        let id = made.data()["id"].as_str().unwrap().to_owned();
        World { app, product, slack, id }
    }

    /// An agent that hears what people say, and answers it.
    async fn agent(&self, trigger: Value, output: &str) -> String {
        let mut trigger = trigger;
        trigger["id"] = json!("asked");
        trigger["type"] = json!("message");
        let manifest = json!({
            "manifest": "prodgy.agent/1", "version": "1.0.0", "title": "Echo",
            "name": format!("acme.echo-{}", uuid::Uuid::now_v7().simple()),
            "requires": { "integrations": [{ "slot": "talk", "kinds": ["slack"] }] },
            "triggers": [trigger],
            "steps": [{ "id": "one", "type": "transform", "with": { "value": { "cel": output } } }],
            "output": { "cel": "steps.one.output.value" },
        });
        let body = json!({ "product_id": self.product.id, "manifest": manifest });
        let reply = self.app.post("/api/agent-base/install", body).await.expect_status(201);
        reply.data()["id"].as_str().unwrap().to_owned()
    }

    async fn executions(&self, agent: &str) -> Vec<Value> {
        let list = format!("/api/agent-base/{agent}/executions?limit=1000");
        self.app.get(&list).await.expect_status(200).data().as_array().unwrap().clone()
    }

    async fn say(&self, event_id: &str, event: Value) -> Reply {
        let body = callback(event_id, event).to_string();
        send(&self.app, &self.id, "application/json", body.as_bytes(), &[]).await
    }

    async fn rows(&self, query: &str) -> Vec<Value> {
        let path = format!("/api/audit-logs?limit=1000&{query}");
        self.app.get(&path).await.expect_status(200).data().as_array().unwrap().clone()
    }

    async fn row(&self, query: &str) -> Value {
        eventually(&format!("there is no row {query}"), async || {
            self.rows(query).await.first().cloned()
        })
        .await
    }
}

fn callback(event_id: &str, event: Value) -> Value {
    json!({
        "token": "x", "team_id": "T1", "api_app_id": "A1", "type": "event_callback",
        "event_id": event_id, "event_time": 1_700_000_000, "event": event,
        "authorizations": [{ "team_id": "T1", "user_id": "UBOT", "is_bot": true }],
    })
}

fn mention(ts: &str, text: &str) -> Value {
    json!({ "type": "app_mention", "user": "U7", "text": format!("<@UBOT> {text}"), "channel": "C1", "ts": ts })
}

fn signed(time: i64, body: &[u8]) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(SECRET.as_bytes()).unwrap();
    mac.update(format!("v0:{time}:").as_bytes());
    mac.update(body);
    format!("v0={}", hex::encode(mac.finalize().into_bytes()))
}

/// Begins a conversation through an integration, and answers its id.
pub async fn begin(app: &TestApp, id: &str) -> String {
    let body = callback("Ev1", mention("17.1", "hello")).to_string();
    send(app, id, "application/json", body.as_bytes(), &[]).await.expect_status(200);
    eventually("there is no conversation", async || {
        let path = format!("/api/communicator/conversations?integration_id={id}");
        let list = app.get(&path).await.expect_status(200);
        list.data()[0]["id"].as_str().map(str::to_owned)
    })
    .await
}

/// As Slack sends it.
async fn send(
    client: &Client,
    id: &str,
    content_type: &str,
    body: &[u8],
    more: &[(&str, &str)],
) -> Reply {
    let time = Utc::now().timestamp();
    let signature = signed(time, body);
    send_with(client, id, content_type, body, &time.to_string(), &signature, more).await
}

async fn send_with(
    client: &Client,
    id: &str,
    content_type: &str,
    body: &[u8],
    time: &str,
    signature: &str,
    more: &[(&str, &str)],
) -> Reply {
    let nobody = client.nobody();
    let mut request = nobody
        .request(Method::POST, &format!("/api/communicator/webhook/{id}"))
        .header("content-type", content_type)
        .header("x-slack-request-timestamp", time)
        .header("x-slack-signature", signature);
    for (name, value) in more {
        request = request.header(*name, *value);
    }
    nobody.send(request.body(body.to_vec())).await
}

#[tokio::test]
async fn a_mention_starts_an_agent_and_is_answered_in_its_thread_once_however_often_it_comes() {
    let it = World::new().await;
    let agent = it
        .agent(json!({ "slot": "talk" }), "'You said ' + input.text + ' in ' + input.channel")
        .await;
    let body = callback("Ev1", mention("17.1", "good <morning>")).to_string();
    for retry in 0..4 {
        let retry = retry.to_string();
        let more =
            [("x-slack-retry-num", retry.as_str()), ("x-slack-retry-reason", "http_timeout")];
        let more = if retry == "0" { &[][..] } else { &more[..] };
        let reply = send(&it.app, &it.id, "application/json", body.as_bytes(), more).await;
        assert!(reply.expect_status(200).bytes.is_empty(), "people may see what is answered");
    }
    let posted = it.slack.has(1).await;
    assert_eq!(posted[0]["channel"], "C1");
    assert_eq!(posted[0]["thread_ts"], "17.1");
    assert_eq!(posted[0]["text"], "You said good &lt;morning&gt; in C1");

    let executions = it.executions(&agent).await;
    assert_eq!(executions.len(), 1);
    let input = &executions[0]["input"];
    assert_eq!(input["text"], "good <morning>");
    assert_eq!(input["sender"], json!({ "id": "U7", "name": null }));
    assert_eq!(
        (&input["kind"], &input["communicator"], &input["thread"], &input["message_id"]),
        (&json!("mention"), &json!("slack"), &json!("17.1"), &json!("17.1"))
    );
    assert_eq!(input["integration_id"], json!(it.id));

    // The same again in the thread is another message of the same conversation.
    let mut next = mention("18.1", "again");
    next["thread_ts"] = json!("17.1");
    it.say("Ev2", next).await.expect_status(200);
    let posted = it.slack.has(2).await;
    assert_eq!(
        (&posted[1]["thread_ts"], &posted[1]["text"]),
        (&json!("17.1"), &json!("You said again in C1"))
    );
    let executions = it.executions(&agent).await;
    assert_eq!(
        executions[0]["input"]["conversation_id"],
        executions[1]["input"]["conversation_id"]
    );

    let called = it.rows(&format!("resource_id={}&action=called", it.id)).await;
    assert_eq!(called.len(), 2);
    assert_eq!(called[0]["details"]["secrets_version"], 1);
    assert_eq!(called[0]["details"]["execution"], executions[0]["id"]);

    // A second try may be the first that arrives.
    let body = callback("Ev3", mention("19.1", "at last")).to_string();
    let retry = [("x-slack-retry-num", "2"), ("x-slack-retry-reason", "connection_failed")];
    let reply = send(&it.app, &it.id, "application/json", body.as_bytes(), &retry).await;
    reply.expect_status(200);
    assert_eq!(it.slack.has(3).await[2]["text"], "You said at last in C1");
    it.app.verified();
}

#[tokio::test]
async fn what_is_said_stands_nowhere_in_the_clear() {
    let it = World::new().await;
    it.agent(json!({}), "'heard: ' + input.text").await;
    let mut said = mention("17.1", "marzipan-canary-text");
    said["user"] = json!("UCANARYPERSON");
    it.say("Ev1", said).await.expect_status(200);
    it.slack.has(1).await;
    it.row("action=reply_delivered").await;
    let form = "command=%2Fask&text=marzipan-canary-text&trigger_id=5.6&channel_id=C9&user_id=UCANARYPERSON&user_name=canary.name";
    send(&it.app, &it.id, "application/x-www-form-urlencoded", form.as_bytes(), &[])
        .await
        .expect_status(200);
    it.slack.has(2).await;
    let mut app = it.app;
    assert!(app.stop().success());
    let log = app.stderr();
    for canary in ["marzipan-canary-text", "UCANARYPERSON", "canary.name", SECRET, TOKEN] {
        assert!(!holds(&app.data_dir(), canary.as_bytes()), "{canary}");
        assert!(!log.contains(canary), "{canary}");
    }
}

/// Whether any file below a folder holds these bytes.
fn holds(folder: &Path, bytes: &[u8]) -> bool {
    fs::read_dir(folder).unwrap().any(|entry| {
        let path = entry.unwrap().path();
        if path.is_dir() {
            return holds(&path, bytes);
        }
        let content = fs::read(&path).unwrap();
        content.windows(bytes.len()).any(|window| window == bytes)
    })
}

#[tokio::test]
async fn what_cannot_be_verified_is_refused_starts_nothing_and_is_on_record() {
    let it = World::new().await;
    let agent = it.agent(json!({}), "input.text").await;
    let challenge = br#"{"type":"url_verification","challenge":"3eZbrw1aB10FEMAGAZd4FyFQ"}"#;
    let body = callback("Ev1", mention("17.1", "hello")).to_string();
    let now = Utc::now().timestamp();
    for body in [challenge.as_slice(), body.as_bytes()] {
        let good = signed(now, body);
        let old = now - 301;
        let early = now + 360;
        for (time, signature) in [
            (now, "v0=00".to_owned()),
            (now, signed(now, b"something else")),
            (now + 1, good.clone()),
            (old, signed(old, body)),
            (early, signed(early, body)),
        ] {
            let time = time.to_string();
            let reply =
                send_with(&it.app, &it.id, "application/json", body, &time, &signature, &[]).await;
            let reply = reply.expect_problem(401, "signature_invalid");
            assert!(!reply.text().contains("3eZbrw1aB10FEMAGAZd4FyFQ"));
        }
    }
    let reply = send(&it.app, &it.id, "application/json", challenge, &[]).await.expect_status(200);
    assert_eq!(reply.body, json!({ "challenge": "3eZbrw1aB10FEMAGAZd4FyFQ" }));

    let query = format!("resource_id={}&action=rejected", it.id);
    let sum = eventually("the attempts are not on record", async || {
        let rows = it.rows(&query).await;
        let sum: u64 = rows.iter().map(|row| row["details"]["count"].as_u64().unwrap()).sum();
        (sum >= 10).then_some((sum, rows))
    });
    let (sum, rows) = sum.await;
    assert_eq!(sum, 10, "{rows:?}");
    assert_eq!(
        (&rows[0]["outcome"], &rows[0]["resource_type"]),
        (&json!("denied"), &json!("integration"))
    );
    assert!(it.executions(&agent).await.is_empty() && it.slack.posted().is_empty());
    assert!(it.rows("resource_type=conversation").await.is_empty());
}

#[tokio::test]
async fn bodies_that_nobody_sends_are_refused_and_harm_nobody() {
    let it = World::new().await;
    let send = async |body: &[u8]| send(&it.app, &it.id, "application/json", body, &[]).await;
    send(b"").await.expect_problem(400, "body_malformed");
    send(b"{\"type\":\"\xff\"}").await.expect_problem(400, "body_malformed");
    let deep = format!("{}{}", "[".repeat(400_000), "]".repeat(400_000));
    send(deep.as_bytes()).await.expect_problem(400, "body_malformed");
    let most = 1024 * 1024;
    let padded = |length: usize| {
        let body = callback("Ev1", mention("17.1", "hello")).to_string();
        format!("{}{}", " ".repeat(length - body.len()), body)
    };
    send(padded(most + 1).as_bytes()).await.expect_problem(413, "too_large");
    send(padded(most).as_bytes()).await.expect_status(200);

    for id in [uuid::Uuid::now_v7().to_string(), "nonsense".to_owned()] {
        let path = format!("/api/communicator/webhook/{id}");
        let status = it.app.nobody().post(&path, json!({})).await.status;
        assert!([400, 404].contains(&status), "{id}: {status}");
    }
    let off = json!({ "enabled": false });
    it.app.put(&format!("/api/integrations-base/{}", it.id), off).await.expect_status(200);
    send(padded(most).as_bytes()).await.expect_problem(404, "communicator_not_found");
}

#[tokio::test]
async fn bots_are_not_answered_and_neither_are_we() {
    let it = World::new().await;
    let agent = it.agent(json!({}), "input.text").await;
    let with = |field: &str, value: &str| {
        let mut event = mention("17.1", "hello");
        event[field] = json!(value);
        event
    };
    for (place, event) in [
        with("bot_id", "B1"),
        with("user", "UBOT"),
        with("subtype", "bot_message"),
        with("type", "message"),
    ]
    .into_iter()
    .enumerate()
    {
        it.say(&format!("Ev{place}"), event).await.expect_status(200);
    }
    let direct = json!({ "type": "message", "channel_type": "im", "user": "U7", "text": "hi", "channel": "D1", "ts": "1.1" });
    it.say("Ev9", direct).await.expect_status(200);
    assert_eq!(it.slack.has(1).await[0]["channel"], "D1");
    assert_eq!(it.executions(&agent).await.len(), 1);
}

#[tokio::test]
async fn a_trigger_hears_its_channel_and_what_it_wants_and_a_slash_command_is_answered_in_the_channel()
 {
    let it = World::new().await;
    let deploys = it.agent(
        json!({ "slot": "talk", "channel": "C1", "match": "trigger.text.startsWith('deploy')",
                "input": { "what": { "template": "{{ trigger.text | upper }}" } } }),
        "input.what",
    );
    let deploys = deploys.await;
    let commands = it.agent(
        json!({ "integration": it.id, "match": "trigger.kind == 'command' && trigger.command == '/ask'" }),
        "input.sender.name + ' asks ' + input.text",
    );
    let commands = commands.await;
    it.say("Ev1", mention("17.1", "deploy now")).await.expect_status(200);
    assert_eq!(it.slack.has(1).await[0]["text"], "DEPLOY NOW");
    it.say("Ev2", mention("17.2", "hello")).await.expect_status(200);
    let mut elsewhere = mention("17.3", "deploy there");
    elsewhere["channel"] = json!("C2");
    it.say("Ev3", elsewhere).await.expect_status(200);
    let form = "command=%2Fask&text=why+not&trigger_id=5.6&channel_id=C9&user_id=U7&user_name=rosa";
    for _ in 0..3 {
        let form = form.as_bytes();
        let reply = send(&it.app, &it.id, "application/x-www-form-urlencoded", form, &[]).await;
        assert!(reply.expect_status(200).bytes.is_empty());
    }
    let posted = it.slack.has(2).await;
    assert_eq!(posted[1]["text"], "rosa asks why not");
    assert_eq!((&posted[1]["channel"], posted[1].get("thread_ts")), (&json!("C9"), None));
    assert_eq!(it.executions(&deploys).await.len(), 1);
    assert_eq!(it.executions(&commands).await.len(), 1);
}

#[tokio::test]
async fn an_execution_that_fails_says_so_and_one_that_cannot_begin_too() {
    let it = World::new().await;
    let agent = it.agent(json!({ "input": { "n": 0 } }), "string(1 / input.n)").await;
    it.say("Ev1", mention("17.1", "divide")).await.expect_status(200);
    let text = it.slack.has(1).await[0]["text"].as_str().unwrap().to_owned();
    let execution = it.executions(&agent).await[0]["id"].as_str().unwrap().to_owned();
    assert!(text.starts_with("I could not finish this (") && text.contains(&execution), "{text}");
    it.app.delete(&format!("/api/agent-base/{agent}")).await.expect_status(200);

    it.agent(json!({ "input": { "n": { "cel": "trigger.nothing.there" } } }), "input.n").await;
    it.say("Ev2", mention("17.2", "divide")).await.expect_status(200);
    let text = it.slack.has(2).await[1]["text"].as_str().unwrap().to_owned();
    assert!(text.starts_with("I could not begin (input_invalid)"), "{text}");
    let failed = it.row("action=trigger_failed").await;
    assert_eq!(
        (&failed["outcome"], &failed["details"]["code"]),
        (&json!("failed"), &json!("input_invalid"))
    );
}

#[tokio::test]
async fn where_no_agent_listens_the_knowledge_base_answers() {
    let it = World::new().await;
    let text = "The office in Lisbon opens at nine in the morning on weekdays.";
    let file = it.app.text_file(&it.product, "office.txt", text).await;
    it.app.wait_ready(&file).await;
    it.say("Ev1", mention("17.1", "When does the office in Lisbon open?")).await.expect_status(200);
    let posted = it.slack.has(1).await;
    let answer = posted[0]["text"].as_str().unwrap();
    assert!(answer.contains("opens at nine") && answer.contains("office.txt"), "{answer}");
    assert_eq!(posted[0]["thread_ts"], "17.1");
}

#[tokio::test]
async fn what_passes_is_tried_again_and_what_does_not_is_given_up() {
    let it = World::new().await;
    it.agent(json!({}), "input.text").await;
    // Three times is told to wait by the client; then it is the outbox that waits.
    it.slack.busy.store(4, Ordering::SeqCst);
    it.say("Ev1", mention("17.1", "busy")).await.expect_status(200);
    assert_eq!(it.slack.has(1).await[0]["text"], "busy");
    let failed = it.row("action=reply_failed").await;
    assert_eq!(
        (&failed["outcome"], &failed["details"]["code"]),
        (&json!("failed"), &json!("rate_limited"))
    );
    it.row("action=reply_delivered").await;

    // A longer wait is honoured by the outbox, and shows in the log.
    it.slack.wait.store(3_600, Ordering::SeqCst);
    it.slack.busy.store(1, Ordering::SeqCst);
    it.say("Ev2", mention("17.2", "much too busy")).await.expect_status(200);
    let failed = eventually("it is not put off", async || {
        it.rows("action=reply_failed").await.into_iter().find(|row| {
            let retry_at = row["details"]["retry_at"].as_str().unwrap();
            let retry_at: chrono::DateTime<Utc> = retry_at.parse().unwrap();
            retry_at - Utc::now() > chrono::TimeDelta::minutes(55)
        })
    })
    .await;
    assert_eq!(failed["details"]["attempt"], 1);

    let it = World::new().await;
    it.agent(json!({}), "input.text").await;
    *it.slack.refuses.lock().unwrap() = Some("internal_error");
    it.say("Ev1", mention("17.1", "one")).await.expect_status(200);
    let failed = it.row("action=reply_failed").await;
    assert_eq!(failed["details"]["code"], "unavailable");
    *it.slack.refuses.lock().unwrap() = None;
    it.slack.has(1).await;

    *it.slack.refuses.lock().unwrap() = Some("channel_not_found");
    it.say("Ev2", mention("17.2", "two")).await.expect_status(200);
    let given_up = it.row("action=reply_given_up").await;
    assert_eq!(
        (&given_up["outcome"], &given_up["details"]["code"]),
        (&json!("failed"), &json!("not_found"))
    );
    // What comes next in the conversation is said all the same.
    *it.slack.refuses.lock().unwrap() = None;
    let mut next = mention("17.3", "three");
    next["thread_ts"] = json!("17.2");
    it.say("Ev3", next).await.expect_status(200);
    assert_eq!(it.slack.has(2).await[1]["text"], "three");
    it.app.verified();
}

#[tokio::test]
async fn what_was_said_while_the_other_side_was_down_arrives_once_and_in_order_after_a_crash() {
    let mut it = World::new().await;
    it.agent(json!({}), "input.text").await;
    it.slack.is_down.store(true, Ordering::SeqCst);
    let words = ["one", "two", "three"];
    for (place, word) in words.into_iter().enumerate() {
        let mut said = mention(&format!("17.{place}"), word);
        said["thread_ts"] = json!("17.0");
        it.say(&format!("Ev{place}"), said).await.expect_status(200);
        eventually("a reply is not queued", async || {
            (it.rows("action=reply_queued").await.len() > place).then_some(())
        })
        .await;
    }
    it.row("action=reply_failed").await;
    it.app.kill();
    it.slack.is_down.store(false, Ordering::SeqCst);
    it.app.start();
    let posted = it.slack.has(3).await;
    let texts: Vec<_> = posted.iter().map(|message| message["text"].as_str().unwrap()).collect();
    assert_eq!(texts, words);
    eventually("a reply is not delivered", async || {
        (it.rows("action=reply_delivered").await.len() == 3).then_some(())
    })
    .await;
    it.app.restart();
    it.app.sign_in().await;
    it.say("Ev9", mention("19.1", "four")).await.expect_status(200);
    assert_eq!(it.slack.has(4).await[3]["text"], "four");
    it.app.verified();
}

#[tokio::test]
async fn a_message_that_came_in_before_a_crash_is_answered_after_it() {
    let mut it = World::new().await;
    it.agent(json!({}), "input.text").await;
    for round in 0..5 {
        it.say(&format!("Ev{round}"), mention(&format!("17.{round}"), &format!("m{round}")))
            .await
            .expect_status(200);
        it.app.kill();
        it.app.start();
    }
    eventually("a message is not answered", async || {
        (it.rows("action=reply_delivered").await.len() == 5).then_some(())
    })
    .await;
    let mut texts: Vec<_> = it
        .slack
        .posted()
        .iter()
        .map(|message| message["text"].as_str().unwrap().to_owned())
        .collect();
    texts.sort();
    // One that was being sent when the server died may be there twice.
    texts.dedup();
    assert_eq!(texts, ["m0", "m1", "m2", "m3", "m4"]);
}

#[tokio::test]
async fn a_step_says_something_and_is_done_when_it_is_there() {
    let it = World::new().await;
    let manifest = json!({
        "manifest": "prodgy.agent/1", "name": "acme.teller", "version": "1.0.0", "title": "Teller",
        "requires": { "integrations": [{ "slot": "talk", "kinds": ["slack"] }] },
        "inputs": { "type": "object", "properties": { "who": { "type": "string" } } },
        "steps": [{ "id": "tell", "type": "notify", "with": {
            "slot": "talk", "channel": "C5", "thread": "9.9", "text": { "template": "Hello {{ input.who }}" } } }],
    });
    let body = json!({ "product_id": it.product.id, "manifest": manifest });
    let agent =
        it.app.post("/api/agent-base/install", body).await.expect_status(201).data().clone();
    let run = it.app.execute(&agent, json!({ "who": "you" })).await;
    let run = it.app.execution_until(&run, "succeeded").await;
    assert_eq!(
        run["output"],
        json!({ "id": "1700000000.000001", "thread": "9.9", "channel": "C5" })
    );
    let posted = it.slack.has(1).await;
    assert_eq!(
        (&posted[0]["channel"], &posted[0]["thread_ts"], &posted[0]["text"]),
        (&json!("C5"), &json!("9.9"), &json!("Hello you"))
    );

    *it.slack.refuses.lock().unwrap() = Some("not_in_channel");
    let run = it.app.execute(&agent, json!({ "who": "you" })).await;
    let run = it.app.execution_until(&run, "failed").await;
    assert_eq!(
        (&run["error"]["code"], &run["error"]["step_id"]),
        (&json!("not_found"), &json!("tell")),
        "{run}"
    );
    assert!(run["error"]["message"].as_str().unwrap().contains("invite the bot"), "{run}");
    let called = it.rows(&format!("resource_id={}&action=called", it.id)).await;
    assert_eq!(called.len(), 2);
    assert_eq!(called[0]["details"]["execution"], run["id"]);
}

#[tokio::test]
async fn what_a_step_says_is_said_once_though_the_server_dies_meanwhile() {
    let mut it = World::new().await;
    let manifest = json!({
        "manifest": "prodgy.agent/1", "name": "acme.teller", "version": "1.0.0", "title": "Teller",
        "steps": [{ "id": "tell", "type": "notify", "with": {
            "integration": it.id, "channel": "C5", "text": "Hello" } }],
    });
    let body = json!({ "product_id": it.product.id, "manifest": manifest });
    let agent =
        it.app.post("/api/agent-base/install", body).await.expect_status(201).data().clone();
    it.slack.is_down.store(true, Ordering::SeqCst);
    let run = it.app.execute(&agent, json!({})).await;
    it.row("action=reply_failed").await;
    it.app.kill();
    it.slack.is_down.store(false, Ordering::SeqCst);
    it.app.start();
    it.app.execution_until(&run, "succeeded").await;
    it.slack.has(1).await;
    assert_eq!(it.rows("action=reply_queued").await.len(), 1);
}

#[tokio::test]
async fn a_message_trigger_is_made_later_too_and_says_what_is_wrong() {
    let it = World::new().await;
    let agent = it.app.agent(&it.product).await;
    let triggers = format!("/api/agent-base/{}/triggers", agent["id"].as_str().unwrap());
    for (body, field, code) in [
        (json!({ "type": "message", "slot": "talk" }), "/slot", "slot_unknown"),
        (json!({ "type": "message", "integration": "x" }), "/integration", "integration_invalid"),
        (json!({ "type": "message", "match": "1 +" }), "/match", "cel_invalid"),
        (json!({ "type": "message", "path": "x" }), "/path", "field_unknown"),
    ] {
        let reply = it.app.post(&triggers, body).await.expect_problem(422, "trigger_invalid");
        assert_eq!(
            (&reply.body["errors"][0]["field"], &reply.body["errors"][0]["code"]),
            (&json!(field), &json!(code))
        );
    }
    let body = json!({ "type": "message", "integration": it.id, "input": { "query": { "cel": "trigger.text" } } });
    let made = it.app.post(&triggers, body).await.expect_status(201);
    assert_eq!(
        (&made.data()["type"], &made.data()["listening"]),
        (&json!("message"), &json!(true))
    );
    it.say("Ev1", mention("17.1", "anything")).await.expect_status(200);
    it.slack.has(1).await;
    let executions = it.executions(agent["id"].as_str().unwrap()).await;
    assert_eq!(executions[0]["input"]["query"], "anything");
    assert_eq!(executions[0]["trigger_id"], made.data()["id"]);
}

#[tokio::test]
async fn conversations_are_listed_with_what_became_of_the_replies() {
    let it = World::taking_files().await;
    it.agent(json!({}), "'heard: ' + input.text").await;
    *it.slack.refuses.lock().unwrap() = Some("channel_not_found");
    let photo = it.file("F1", "photo.png", "image/png", gives(200, "image/png", "x"));
    let mut said = mention("17.1", "marzipan");
    said["files"] = json!([photo]);
    it.say("Ev1", said).await.expect_status(200);
    eventually("nothing was given up", async || {
        (it.rows("action=reply_given_up").await.len() == 2).then_some(())
    })
    .await;
    *it.slack.refuses.lock().unwrap() = None;
    it.say("Ev2", mention("18.1", "nougat")).await.expect_status(200);
    it.slack.has(1).await;
    it.row("action=reply_delivered").await;

    let list = format!("/api/communicator/conversations?product_id={}", it.product.id);
    let viewer = it.app.user("viewer").await;
    let shown = viewer.get(&list).await.expect_status(200);
    let shown = shown.data().as_array().unwrap();
    assert_eq!(shown.len(), 2);
    let (new, old) = (&shown[0], &shown[1]);
    assert_eq!((&new["integration_id"], &new["messages"]), (&json!(it.id), &json!(1)));
    assert_eq!(
        new["outbox"],
        json!({ "waiting": 0, "delivered": 1, "given_up": 0, "last_failure": null })
    );
    assert_eq!((&old["outbox"]["given_up"], &old["running"]), (&json!(2), &json!(0)));
    let failure = &old["outbox"]["last_failure"];
    assert_eq!(failure["code"], "not_found");
    assert!(failure["message"].as_str().unwrap().contains("invite the bot"), "{failure}");
    let failed = viewer.get(&format!("{list}&outbox=given_up&limit=1")).await.expect_status(200);
    assert_eq!(
        (failed.data()[0]["id"].clone(), failed.data().as_array().unwrap().len()),
        (old["id"].clone(), 1)
    );
    let waiting = viewer.get(&format!("{list}&outbox=waiting")).await.expect_status(200);
    assert!(waiting.data().as_array().unwrap().is_empty());
    viewer.get(&format!("{list}&outbox=lost")).await.expect_status(400);
    let page = it.app.get(&format!("{list}&page=2&page_size=1")).await;
    assert!(page.is_success() || page.status == 400, "{page:?}");

    let one = format!("/api/communicator/conversations/{}", old["id"].as_str().unwrap());
    let shown = viewer.get(&one).await.expect_status(200);
    assert_eq!((shown.data(), shown.header("etag")), (old, "\"1\""));
    viewer.get(&format!("{one}/messages")).await.expect_problem(403, "role_insufficient");
    let turns = it.app.get(&format!("{one}/messages")).await.expect_status(200);
    let turns = turns.data().as_array().unwrap();
    let texts: Vec<_> = turns.iter().map(|turn| turn["text"].as_str().unwrap()).collect();
    assert_eq!(texts[0], "heard: marzipan");
    assert!(texts[1].starts_with("I did not take photo.png in"), "{texts:?}");
    assert_eq!((texts[2], texts.len()), ("marzipan", 3));
    assert_eq!(
        (&turns[0]["type"], &turns[0]["status"], &turns[0]["code"], &turns[0]["attempts"]),
        (&json!("reply"), &json!("given_up"), &json!("not_found"), &json!(1))
    );
    assert_eq!(turns[0]["message_id"], turns[2]["id"]);
    assert!(turns[0]["execution_id"].is_string() && turns[1]["execution_id"].is_null());
    assert_eq!(
        (&turns[2]["type"], &turns[2]["status"], &turns[2]["sender"]["id"], &turns[2]["kind"]),
        (&json!("message"), &json!("handled"), &json!("U7"), &json!("mention"))
    );
    let file = &turns[2]["files"][0];
    assert_eq!((&file["name"], &file["file_id"]), (&json!("photo.png"), &json!(null)));
    assert_eq!(file["code"], "unsupported_format");

    let other = it.app.product().await;
    let stranger = it.app.with_token(&it.app.token(&other, &[]).await.secret);
    stranger.get(&one).await.expect_problem(404, "conversation_not_found");
    let none = stranger.get("/api/communicator/conversations").await.expect_status(200);
    assert!(none.data().as_array().unwrap().is_empty());
    it.app.delete(&format!("/api/products/{}", it.product.id)).await;
    it.app.get(&one).await.expect_problem(404, "conversation_not_found");
    it.app.verified();
}
