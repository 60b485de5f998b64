//! Messages cut off at every append, and worked on by two nodes at once.

use std::collections::BTreeMap;

use async_trait::async_trait;
use domain::Name;
use domain::integration::kind::Secrets;
use domain::manifest::Manifest;
use domain::trigger::TriggerKind;
use eventlog::{EventStore, Position};
use tempfile::TempDir;
use tokio::sync::watch;

use super::*;
use crate::communicator::{IncomingMessage, Sender, SentFile};
use crate::policies::KnowledgeQuery;
use crate::policies::altered::Altered;
use crate::testing::{open_commands, open_log};
use crate::tools::{ToolSettings, Tools};
use crate::{NewAgent, NewIntegration, NewTrigger, OpenIntegration};

/// Knowledge bases that know one thing, and which triggers listen.
struct Library(Mutex<Vec<Uuid>>);

#[async_trait]
impl Knowledge for Library {
    async fn search(&self, _: KnowledgeQuery) -> Result<Vec<Value>, ToolError> {
        Err(ToolError::lasting("nothing_known", "nothing is known here"))
    }

    async fn default_base(&self, _: Uuid) -> Result<Uuid, ToolError> {
        Ok(Uuid::nil())
    }

    async fn has_base(&self, _: Uuid, _: Uuid) -> Result<bool, ToolError> {
        Ok(true)
    }

    async fn message_triggers(&self, _: Uuid, _: Position) -> Result<Vec<Uuid>, ToolError> {
        Ok(self.0.lock().clone())
    }
}

/// A product with two agents that listen to one communicator.
struct World {
    folder: TempDir,
    log: Arc<dyn EventStore>,
    commands: Commands,
    library: Arc<Library>,
    product: Uuid,
    integration: OpenIntegration,
}

impl World {
    /// With an agent for each of these triggers.
    async fn new(triggers: &[Value]) -> World {
        World::with(triggers, None).await
    }

    /// Whose files come into a knowledge base; they are at this server.
    async fn with(triggers: &[Value], files: Option<&str>) -> World {
        let folder = tempfile::tempdir().expect("a folder");
        let log = open_log(folder.path());
        let commands = open_commands(folder.path(), log.clone()).await;
        let ask = || Ask::once("test", Uuid::nil(), None);
        let name = |text: &str| Name::parse(text).expect("a name");
        let done = commands.create_product(name("Product"), None, &ask()).await.expect("a product");
        let product = done.stream_id().expect("an id");
        let ask = || ask().in_product(product);
        let mut config = Map::new();
        if let Some(side) = files {
            let base = commands.create_knowledge_base(name("Files"), None, &ask()).await;
            let base = base.expect("a knowledge base").stream_id().expect("an id");
            config.insert("ingest_files".to_owned(), json!(base));
            config.insert("base_url".to_owned(), json!(side));
        }
        let secrets = [("bot_token", "xoxb-12345"), ("signing_secret", "8f742231")];
        let secrets = secrets.map(|(name, text)| (name.to_owned(), text.to_owned()));
        let new = NewIntegration {
            kind: domain::integration::IntegrationKind::Slack,
            title: name("Chat"),
            config,
            secrets: Secrets(BTreeMap::from(secrets)),
        };
        let done = commands.create_integration(new, &ask()).await.expect("an integration");
        let integration = done.stream_id().expect("an id");
        let integration =
            commands.communicator(integration).await.expect("read").expect("a communicator");
        let library = Arc::new(Library(Mutex::default()));
        for (number, trigger) in triggers.iter().enumerate() {
            let manifest = json!({
                "manifest": "prodgy.agent/1", "name": format!("test.talk-{number}"), "version": "1.0.0",
                "title": "Talk",
                "inputs": { "type": "object", "properties": { "text": { "type": "string" } } },
                "steps": [{ "id": "one", "type": "transform", "with": { "value": 1 } }],
            });
            let manifest = Manifest::accept(&manifest).expect("a manifest");
            let new = NewAgent { manifest, title: None, config: None, bindings: BTreeMap::new() };
            let done = commands.install_agent(new, &ask()).await.expect("an agent");
            let new = NewTrigger {
                agent: done.stream_id().expect("an id"),
                kind: TriggerKind::Message,
                enabled: true,
                configuration: trigger.as_object().cloned().expect("an object"),
                secret: None,
                siblings: 0,
            };
            let done = commands.create_trigger(new, &ask()).await.expect("a trigger");
            library.0.lock().push(done.stream_id().expect("an id"));
        }
        World { folder, log, commands, library, product, integration }
    }

    fn node(&self, commands: Commands) -> Arc<Conversations> {
        let (_, embedder) = watch::channel(None);
        let http_allow = vec!["127.0.0.0/8".parse().expect("a network")];
        let settings = ToolSettings { http_allow, ..ToolSettings::default() };
        let tools = Tools::new(settings, embedder).expect("tools");
        let tools = Arc::new(tools);
        let assistant = Arc::new(Assistant::new(self.library.clone(), tools.clone()));
        Conversations::start(commands, self.library.clone(), assistant, tools)
    }

    async fn say(&self, id: &str, text: &str) -> Uuid {
        self.send(id, text, Vec::new()).await
    }

    async fn send(&self, id: &str, text: &str, files: Vec<SentFile>) -> Uuid {
        let said = Said {
            communicator: "slack".to_owned(),
            text: text.to_owned(),
            sender: Sender { id: "U1".to_owned(), name: None },
            kind: "mention".to_owned(),
            command: None,
            message_id: id.to_owned(),
            address: Address {
                channel: Some("C1".to_owned()),
                thread: Some("1.1".to_owned()),
                service: None,
            },
            files,
        };
        let (delivery_id, conversation) = (id.to_owned(), "C1/1.1".to_owned());
        let incoming = IncomingMessage { delivery_id, conversation, said };
        let ask = Ask::once("test", Uuid::nil(), Some(self.product));
        let done = self.commands.receive_message(&self.integration, incoming, &ask).await;
        done.expect("received").stream_id().expect("an id")
    }

    async fn work(&self, commands: &Commands, conversation: Uuid) -> bool {
        let node = self.node(commands.clone());
        node.work(Some(self.product), conversation).await.is_ok()
    }

    async fn of_type(&self, event_type: &str) -> Vec<Arc<RecordedEvent>> {
        let events = self.log.read_after(Position::START, 10_000).await.expect("read");
        events.into_iter().filter(|event| event.event_type == event_type).collect()
    }

    async fn executions(&self) -> Vec<Uuid> {
        let requested = self.of_type("execution.requested.v1").await;
        requested.iter().filter_map(|event| event.stream.uuid()).collect()
    }

    /// What is to be said.
    async fn replies(&self) -> Vec<String> {
        let mut texts = Vec::new();
        for event in self.of_type("conversation.reply_queued.v1").await {
            let ConversationEvent::ReplyQueued(reply) = decode_event(&event).expect("decoded")
            else {
                continue;
            };
            let (organization, product) = (Uuid::nil(), self.product);
            let room = Room { organization, product, stream: event.stream.clone() };
            let saying = self.commands.open_saying(&room, &reply.content).await;
            let saying = saying.expect("opened").expect("a key");
            assert_eq!(saying.address.thread.as_deref(), Some("1.1"));
            texts.push(saying.text);
        }
        texts
    }
}

#[tokio::test]
async fn a_node_that_dies_at_any_append_starts_and_answers_nothing_twice_and_forgets_nothing() {
    for stores_the_last in [false, true] {
        for lives in 1..=8 {
            let world = World::new(&[json!({}), json!({ "input": { "text": "x" } })]).await;
            let conversation = world.say("one", "hello").await;
            let dying = || Altered::mortal(&world.log, lives, stores_the_last);
            let mortal = open_commands(world.folder.path(), dying()).await;
            world.work(&mortal, conversation).await;
            let next = open_commands(world.folder.path(), world.log.clone()).await;
            for _ in 0..2 {
                assert!(world.work(&next, conversation).await);
            }
            let executions = world.executions().await;
            assert_eq!(executions.len(), 2, "{lives} {stores_the_last}");
            assert_eq!(world.of_type("conversation.message_handled.v1").await.len(), 1);
            for execution in executions {
                let ask = Ask::once("test", Uuid::nil(), Some(world.product));
                next.stop_execution(execution, &ask).await.expect("stopped");
            }
            let mortal = open_commands(world.folder.path(), dying()).await;
            world.work(&mortal, conversation).await;
            let next = open_commands(world.folder.path(), world.log.clone()).await;
            for _ in 0..2 {
                assert!(world.work(&next, conversation).await);
            }
            let stopped = "This was stopped before there was an answer.";
            assert_eq!(world.replies().await, [stopped, stopped], "{lives} {stores_the_last}");
        }
    }
}

/// A server that gives a file, and the address of one.
async fn file_server(text: &'static str) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let router = axum::Router::new().fallback(move || async move { text });
    tokio::spawn(async move { axum::serve(listener, router).await });
    format!("http://{address}")
}

#[tokio::test]
async fn a_node_that_dies_at_any_append_takes_every_file_in_once() {
    let side = file_server("Tea is served at four.").await;
    let sent = |name: &str| SentFile {
        name: name.to_owned(),
        url: Some(format!("{side}/files/{name}")),
        ..SentFile::default()
    };
    for stores_the_last in [false, true] {
        for lives in 1..=7 {
            let world = World::with(&[], Some(&side)).await;
            let files = vec![sent("tea.md"), sent("photo.png"), sent("same.md")];
            let conversation = world.send("one", "", files).await;
            let mortal = Altered::mortal(&world.log, lives, stores_the_last);
            let mortal = open_commands(world.folder.path(), mortal).await;
            world.work(&mortal, conversation).await;
            let next = open_commands(world.folder.path(), world.log.clone()).await;
            for _ in 0..2 {
                assert!(world.work(&next, conversation).await);
            }
            assert_eq!(world.of_type("file.uploaded.v1").await.len(), 1, "{lives}");
            assert_eq!(world.of_type("conversation.file_taken.v1").await.len(), 2, "{lives}");
            assert_eq!(world.of_type("conversation.file_refused.v1").await.len(), 1, "{lives}");
            assert_eq!(world.of_type("conversation.file_attempted.v1").await.len(), 2, "{lives}");
            let replies = world.replies().await;
            assert_eq!(replies.len(), 1, "{replies:?}");
            let lines: Vec<_> = replies[0].lines().collect();
            assert_eq!(lines[0], "I took tea.md in, and read it now.", "{lives} {stores_the_last}");
            assert!(lines[1].starts_with("I did not take photo.png in: "), "{replies:?}");
            assert_eq!(lines[2], "I have same.md already.");
        }
    }
}

#[tokio::test]
async fn two_nodes_on_one_log_start_every_message_once() {
    let world = World::new(&[json!({})]).await;
    let shared = || Altered::shared(&world.log);
    let mut nodes = Vec::new();
    for _ in 0..2 {
        nodes.push(world.node(open_commands(world.folder.path(), shared()).await));
    }
    for n in 0..20 {
        let conversation = world.say(&n.to_string(), "hello").await;
        nodes.iter().for_each(|node| node.add(Some(world.product), conversation));
    }
    while world.of_type("conversation.message_handled.v1").await.len() < 20 {
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    for node in &nodes {
        node.stop().await;
    }
    assert_eq!(world.of_type("conversation.message_handled.v1").await.len(), 20);
    assert_eq!(world.executions().await.len(), 20);
}

#[tokio::test]
async fn who_does_not_want_a_message_is_quiet_and_who_cannot_begin_says_so() {
    let world = World::new(&[json!({ "match": "trigger.text == 'please'" })]).await;
    let conversation = world.say("one", "hello").await;
    assert!(world.work(&world.commands, conversation).await);
    assert_eq!((world.executions().await.len(), world.replies().await.len()), (0, 0));
    world.say("two", "please").await;
    assert!(world.work(&world.commands, conversation).await);
    assert_eq!((world.executions().await.len(), world.replies().await.len()), (1, 0));

    let world = World::new(&[json!({ "input": { "text": { "cel": "1" } } }), json!({})]).await;
    let conversation = world.say("one", "hello").await;
    assert!(world.work(&world.commands, conversation).await);
    assert_eq!(world.executions().await.len(), 1);
    assert_eq!(world.of_type(TRIGGER_FAILED).await.len(), 1);
    let replies = world.replies().await;
    assert!(replies.len() == 1 && replies[0].starts_with("I could not begin ("), "{replies:?}");

    // Elsewhere, or through another communicator: nobody is bound, and what is known is nothing.
    let elsewhere = json!({ "channel": "C2" });
    let other = json!({ "integration": Uuid::nil() });
    let world = World::new(&[elsewhere, other]).await;
    let conversation = world.say("one", "hello").await;
    assert!(world.work(&world.commands, conversation).await);
    assert_eq!(world.executions().await.len(), 0);
    assert_eq!(world.replies().await, ["I could not look that up (nothing_known)."]);
}

#[tokio::test]
async fn nobody_is_answered_for_a_product_that_is_gone() {
    let world = World::new(&[json!({})]).await;
    let conversation = world.say("one", "hello").await;
    let ask = Ask::once("test", Uuid::nil(), None);
    world.commands.delete_product(world.product, &ask).await.expect("deleted");
    assert!(world.work(&world.commands, conversation).await);
    assert_eq!((world.executions().await.len(), world.replies().await.len()), (0, 0));
    let gone = world.commands.communicator(world.integration.id).await.expect("read");
    assert!(gone.is_none());
}

#[test]
fn an_output_is_said_in_words() {
    for (output, text) in [
        (json!(null), None),
        (json!("  "), None),
        (json!("yes"), Some("yes")),
        (json!(3), Some("3")),
        (json!({ "answer": "so", "model": "m" }), Some("so")),
        (json!({ "text": "so" }), Some("so")),
        (json!({ "n": 1 }), Some(r#"{"n":1}"#)),
        (json!({ "answer": 1 }), Some(r#"{"answer":1}"#)),
        (json!(["a"]), Some(r#"["a"]"#)),
    ] {
        assert_eq!(as_text(&output).as_deref(), text, "{output}");
    }
}
