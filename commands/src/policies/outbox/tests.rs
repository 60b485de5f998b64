//! Replies on their way: servers that die, two of them at once, and another side that is not always there.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::Router;
use axum::http::StatusCode;
use axum::routing::post;
use domain::Name;
use domain::integration::IntegrationKind;
use domain::integration::kind::Secrets;
use eventlog::{EventStore, Position};
use serde_json::{Map, json};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::sync::watch;

use super::*;
use crate::NewIntegration;
use crate::communicator::Address;
use crate::policies::altered::Altered;
use crate::testing::{open_commands, open_log};
use crate::tools::ToolSettings;

/// A Slack that takes what it is sent, after so many failures.
#[derive(Clone, Default)]
pub(in crate::policies) struct Slack {
    pub(in crate::policies) texts: Arc<Mutex<Vec<String>>>,
    pub(in crate::policies) failures: Arc<AtomicUsize>,
}

impl Slack {
    /// Answers its address.
    pub(in crate::policies) async fn start(&self) -> String {
        let slack = self.clone();
        let take = move |axum::Json(message): axum::Json<Value>| {
            let slack = slack.clone();
            async move {
                let one_less = |left: usize| left.checked_sub(1);
                let fails =
                    slack.failures.fetch_update(Ordering::SeqCst, Ordering::SeqCst, one_less);
                if fails.is_ok() {
                    return (StatusCode::BAD_GATEWAY, axum::Json(json!({})));
                }
                let text = message["text"].as_str().expect("a text").to_owned();
                slack.texts.lock().push(text);
                (StatusCode::OK, axum::Json(json!({ "ok": true, "ts": "1.2", "channel": "C1" })))
            }
        };
        let router = Router::new().route("/api/chat.postMessage", post(take));
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        tokio::spawn(async move { axum::serve(listener, router).await });
        format!("http://{address}/api")
    }

    /// Starts it, and makes an integration that knows it.
    pub(in crate::policies) async fn integration(&self, commands: &Commands, ask: &Ask) -> Uuid {
        let secrets = [("bot_token", "xoxb-12345"), ("signing_secret", "8f742231")];
        let secrets = secrets.map(|(name, text)| (name.to_owned(), text.to_owned()));
        let new = NewIntegration {
            kind: IntegrationKind::Slack,
            title: Name::parse("Chat").expect("a name"),
            config: Map::from_iter([("base_url".to_owned(), json!(self.start().await))]),
            secrets: Secrets(BTreeMap::from(secrets)),
        };
        let done = commands.create_integration(new, ask).await.expect("an integration");
        done.stream_id().expect("an id")
    }
}

struct World {
    folder: TempDir,
    log: Arc<dyn EventStore>,
    commands: Commands,
    slack: Slack,
    product: Uuid,
    integration: Uuid,
}

impl World {
    async fn new() -> World {
        let slack = Slack::default();
        let folder = tempfile::tempdir().expect("a folder");
        let log = open_log(folder.path());
        let commands = open_commands(folder.path(), log.clone()).await;
        let ask = || Ask::once("test", Uuid::nil(), None);
        let name = |text: &str| Name::parse(text).expect("a name");
        let done = commands.create_product(name("Product"), None, &ask()).await.expect("a product");
        let product = done.stream_id().expect("an id");
        let ask = ask().in_product(product);
        let integration = slack.integration(&commands, &ask).await;
        World { folder, log, commands, slack, product, integration }
    }

    fn node(&self, commands: Commands) -> Arc<Outbox> {
        let (_, embedder) = watch::channel(None);
        let http_allow = vec!["127.0.0.0/8".parse().expect("a network")];
        let settings = ToolSettings { http_allow, ..ToolSettings::default() };
        let tools = Tools::new(settings, embedder).expect("tools");
        Outbox::start(commands, Arc::new(tools), Uuid::now_v7())
    }

    /// Puts a text into the outbox of a conversation.
    async fn say(&self, conversation: Uuid, text: &str) {
        let stream = StreamId::new("conversation", conversation);
        let room = Room { organization: Uuid::nil(), product: self.product, stream };
        let address = Address { channel: Some("C1".to_owned()), thread: None, service: None };
        let saying = Saying { address, text: text.to_owned() };
        let content = self.commands.seal_saying(&room, &saying).await.expect("sealed");
        let reply = Reply {
            integration: self.integration,
            reply: domain::derived_id(&[conversation.as_bytes(), text.as_bytes()]),
            message: None,
            execution: None,
            step_id: None,
            content,
        };
        let ask = Ask::once("test", Uuid::nil(), Some(self.product));
        let say = ConversationCommand::Say(reply);
        self.commands.converse(conversation, say, &ask).await.expect("queued");
    }

    async fn count(&self, event_type: &str) -> usize {
        let events = self.log.read_after(Position::START, 100_000).await.expect("read");
        events.iter().filter(|event| event.event_type == event_type).count()
    }

    /// Lets a node work until so many replies are delivered.
    async fn delivers(&self, node: &Arc<Outbox>, conversation: Uuid, count: usize) {
        let delivered = async {
            while self.count(DELIVERED).await < count {
                node.add(Some(self.product), conversation);
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), delivered).await.expect("delivered");
    }
}

#[tokio::test]
async fn a_server_that_dies_at_any_append_forgets_no_reply_and_keeps_their_order() {
    for stores_the_last in [false, true] {
        for lives in 1..=5 {
            let world = World::new().await;
            let conversation = Uuid::now_v7();
            for text in ["one", "two"] {
                world.say(conversation, text).await;
            }
            let mortal = Altered::mortal(&world.log, lives, stores_the_last);
            let dying = world.node(open_commands(world.folder.path(), mortal).await);
            let _ = dying.work(Some(world.product), conversation).await;
            dying.stop().await;
            let next = world.node(open_commands(world.folder.path(), world.log.clone()).await);
            world.delivers(&next, conversation, 2).await;
            next.stop().await;
            let mut texts = world.slack.texts.lock().clone();
            assert!(texts.len() <= 3, "only what was cut off comes twice: {texts:?}");
            texts.dedup();
            assert_eq!(texts, ["one", "two"], "{lives} {stores_the_last}");
        }
    }
}

#[tokio::test]
async fn two_servers_on_one_log_send_every_reply_once_and_in_order() {
    let world = World::new().await;
    let conversations: Vec<_> = (0..8).map(|_| Uuid::now_v7()).collect();
    let mut nodes = Vec::new();
    for _ in 0..2 {
        let shared = Altered::shared(&world.log);
        nodes.push(world.node(open_commands(world.folder.path(), shared).await));
    }
    for number in 0..4 {
        for (place, conversation) in conversations.iter().enumerate() {
            world.say(*conversation, &format!("{place}.{number}")).await;
            nodes.iter().for_each(|node| node.add(Some(world.product), *conversation));
        }
    }
    let delivered = async {
        // As the log would tell them: whoever was refused is told when the other is done.
        while world.count(DELIVERED).await < 32 {
            for conversation in &conversations {
                nodes.iter().for_each(|node| node.settled(Some(world.product), *conversation));
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), delivered).await.expect("delivered");
    for node in &nodes {
        node.stop().await;
    }
    let texts = world.slack.texts.lock().clone();
    assert_eq!(texts.len(), 32, "{texts:?}");
    for place in 0..8 {
        let of: Vec<_> =
            texts.iter().filter(|text| text.starts_with(&format!("{place}."))).collect();
        assert!(of.is_sorted() && of.len() == 4, "{of:?}");
    }
}

#[tokio::test]
async fn what_fails_waits_longer_each_time() {
    let world = World::new().await;
    let conversation = Uuid::now_v7();
    world.slack.failures.store(2, Ordering::SeqCst);
    world.say(conversation, "one").await;
    let node = world.node(world.commands.clone());
    node.add(Some(world.product), conversation);
    let begun = std::time::Instant::now();
    while world.count(DELIVERED).await < 1 {
        assert!(begun.elapsed() < Duration::from_secs(60));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    node.stop().await;
    assert!(begun.elapsed() >= Duration::from_secs(3), "one second, then two");
    assert_eq!((world.count(FAILED).await, world.slack.texts.lock().len()), (2, 1));
    let waits: Vec<_> = (1..=MOST_ATTEMPTS).map(|attempt| wait_after(attempt).as_secs()).collect();
    assert!(waits.is_sorted());
    assert_eq!((waits[0], waits[3], waits[14]), (1, 8, 900));
    let sum: u64 = waits[..14].iter().sum();
    assert!((3_600..5_400).contains(&sum), "an hour and a quarter: {sum}");
}

#[tokio::test]
async fn what_nobody_can_send_is_given_up_without_asking() {
    let world = World::new().await;
    let conversation = Uuid::now_v7();
    world.say(conversation, "one").await;
    let ask = || Ask::once("test", Uuid::nil(), Some(world.product));
    world.commands.delete_integration(world.integration, &ask()).await.expect("deleted");
    let node = world.node(world.commands.clone());
    node.work(Some(world.product), conversation).await.expect("worked");
    assert_eq!(world.count(GIVEN_UP).await, 1);
    assert_eq!(world.count("conversation.reply_attempted.v1").await, 0);

    // Of a product that is gone, nobody says anything, and nothing is left to be tried.
    world.say(conversation, "two").await;
    world.commands.delete_product(world.product, &ask()).await.expect("deleted");
    node.work(Some(world.product), conversation).await.expect("worked");
    assert_eq!(world.count(GIVEN_UP).await, 1);
    assert!(world.slack.texts.lock().is_empty());
}

#[tokio::test]
async fn an_attempt_that_crashes_has_failed_for_good() {
    let crashes = async { panic!("a fault of ours") };
    let error = attempted(crashes).await.expect_err("a failure");
    assert_eq!((error.code.as_str(), error.is_passing), ("attempt_crashed", false));
    let receipt = attempted(async { Ok(json!({ "id": 1 })) }).await.expect("a receipt");
    assert_eq!(receipt["id"], 1);
}
