//! Runs cut off at every append, worked on by two nodes at once, and left by a worker that is gone.

use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use domain::Name;
use domain::lease::LeaseClaim;
use domain::step::AnswerCall;
use eventlog::{EventStore, Position};
use serde_json::Value;
use tempfile::TempDir;
use tokio::sync::watch;

use super::*;
use crate::policies::altered::Altered;
use crate::policies::{Knowledge, KnowledgeQuery};
use crate::seal::user_key;
use crate::testing::{open_commands, open_log};
use crate::tools::answer::AnswerModel;
use crate::tools::{ToolSettings, Tools};
use crate::{Actor, NewMessage};

const TEXT: &str = "Bees make honey [1].";

/// A knowledge base that knows one thing.
struct Library;

#[async_trait]
impl Knowledge for Library {
    async fn search(&self, _: KnowledgeQuery) -> Result<Vec<Value>, ToolError> {
        Ok(vec![json!({ "text": "Bees make honey.", "file_name": "bees.txt" })])
    }

    async fn default_base(&self, _: Uuid) -> Result<Uuid, ToolError> {
        Ok(Uuid::nil())
    }

    async fn has_base(&self, _: Uuid, _: Uuid) -> Result<bool, ToolError> {
        Ok(true)
    }
}

/// A model that knows one answer, and takes its time between two pieces.
struct Played(AtomicUsize);

#[async_trait]
impl AnswerModel for Played {
    async fn answer_in_pieces(
        &self,
        _: &AnswerCall,
        _: &[Turn],
        pieces: mpsc::Sender<String>,
    ) -> Result<Value, ToolError> {
        self.0.fetch_add(1, Ordering::SeqCst);
        for piece in ["Bees make", " honey [2", "] [1]."] {
            let _ = pieces.send(piece.to_owned()).await;
            tokio::time::sleep(NOTED * 2).await;
        }
        Ok(json!({ "model": "played", "usage": { "total_tokens": 3 }, "metadata": {} }))
    }
}

/// A product, and a log that servers come and go at.
struct World {
    folder: TempDir,
    log: Arc<dyn EventStore>,
    commands: Commands,
    model: Arc<Played>,
    product: Uuid,
}

impl World {
    async fn new() -> World {
        let folder = tempfile::tempdir().expect("a folder");
        let log = open_log(folder.path());
        let commands = open_commands(folder.path(), log.clone()).await;
        let ask = Ask::once("test", Uuid::nil(), None);
        let name = Name::parse("Product").expect("a name");
        let done = commands.create_product(name, None, &ask).await.expect("a product");
        let product = done.stream_id().expect("an id");
        let model = Arc::new(Played(AtomicUsize::new(0)));
        World { folder, log, commands, model, product }
    }

    fn node(&self, commands: Commands) -> Arc<Chats> {
        let (_, embedder) = watch::channel(None);
        let mut tools = Tools::new(ToolSettings::default(), embedder).expect("tools");
        tools.answers = self.model.clone();
        tools.has_chat_model = true;
        let assistant = Assistant::new(Arc::new(Library), Arc::new(tools));
        Chats::start(commands, Arc::new(assistant), Uuid::now_v7())
    }

    /// A message in a session; answers its run, and the session.
    async fn ask(&self, session: &str) -> (Uuid, Uuid) {
        let message = NewMessage {
            session_id: Some(session.to_owned()),
            text: "What do bees make?".to_owned(),
        };
        let ask = Ask::once("test", Uuid::nil(), Some(self.product));
        let asked = self.commands.ask_assistant(message, Actor::System("test"), &ask).await;
        let asked = asked.expect("asked");
        (asked.run, asked.session)
    }

    async fn events(&self, run: Uuid) -> Vec<ChatRunEvent> {
        let stream = StreamId::new("chat_run", run);
        let events = self.log.read_stream(&stream, 0, 10_000).await.expect("read");
        events.iter().map(|event| decode_event(event).expect("decoded")).collect()
    }

    /// What a run came to, which it did once.
    async fn answer(&self, run: Uuid) -> String {
        let stream = StreamId::new("chat_run", run);
        let events = self.log.read_stream(&stream, 0, 10_000).await.expect("read");
        let ends = events.iter().filter(|event| event.event_type == SUCCEEDED).count();
        assert_eq!(ends, 1, "{events:?}");
        let last = events.last().expect("an end");
        let ChatRunEvent::Succeeded { answer, .. } = decode_event(last).expect("decoded") else {
            panic!("{last:?} is not the end")
        };
        let opened = self.commands.open_piece(self.product, last, "answer", &answer).await;
        let whole: Value =
            serde_json::from_str(&opened.expect("opened").expect("a key")).expect("JSON");
        assert_eq!(whole["sources"][0]["number"], 1, "{whole}");
        whole["content"].as_str().expect("a text").to_owned()
    }
}

#[tokio::test]
async fn a_run_that_is_cut_off_at_any_append_is_answered_once() {
    for stores_the_last in [false, true] {
        for lives in 1..=6 {
            let world = World::new().await;
            let (run, session) = world.ask("one").await;
            let dying = Altered::mortal(&world.log, lives, stores_the_last);
            let node = world.node(open_commands(world.folder.path(), dying).await);
            node.work(world.product, run, Some(session)).await;

            let next = world.node(open_commands(world.folder.path(), world.log.clone()).await);
            for _ in 0..2 {
                let outcome = next.work(world.product, run, Some(session)).await;
                assert!(matches!(outcome, Outcome::Finished), "{lives} {stores_the_last}");
            }

            assert_eq!(world.answer(run).await, TEXT, "{lives} {stores_the_last}");
            let told = world.commands.chat_run_text(world.product, run).await.expect("read");
            assert!(TEXT.starts_with(&told.expect("a key")), "what is told is what is meant");
            assert!(world.model.0.load(Ordering::SeqCst) <= 2);
        }
    }
}

#[tokio::test]
async fn two_nodes_on_one_log_answer_every_message_once() {
    let world = World::new().await;
    let shared = || Altered::shared(&world.log);
    let mut nodes = Vec::new();
    for _ in 0..2 {
        nodes.push(world.node(open_commands(world.folder.path(), shared()).await));
    }
    let mut runs = Vec::new();
    for n in 0..10 {
        let (run, session) = world.ask(&n.to_string()).await;
        nodes.iter().for_each(|node| node.add(world.product, run, Some(session)));
        runs.push(run);
    }
    for run in runs {
        while !matches!(world.events(run).await.last(), Some(ChatRunEvent::Succeeded { .. })) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert_eq!(world.answer(run).await, TEXT);
    }
    assert_eq!(world.model.0.load(Ordering::SeqCst), 10);
    for node in &nodes {
        node.stop().await;
    }
}

#[tokio::test]
async fn a_run_is_left_to_its_worker_until_its_lease_is_out() {
    // Whatever the clock says, of a server that is an hour behind: what counts is what was seen to go by.
    for (gone_by, is_taken_over) in [(30, false), (61, true)] {
        let world = World::new().await;
        let (run, session) = world.ask("one").await;
        let ask = || Ask::once("test", Uuid::nil(), Some(world.product));
        let request = ChatRunCommand::Request { session: Some(session), messages: None };
        world.commands.tell_chat_run(run, request, &ask()).await.expect("requested");
        let begun = Utc::now() - TimeDelta::hours(1);
        let claim = LeaseClaim {
            worker: Uuid::now_v7(),
            now: begun.into(),
            lease_until: (begun + LEASE).into(),
            exclusive: false,
            gone: Arc::default(),
            outlasted: Arc::default(),
        };
        let start = ChatRunCommand::Start(claim);
        world.commands.tell_chat_run(run, start, &ask()).await.expect("started");

        let shared = Altered::shared(&world.log);
        let commands = open_commands(world.folder.path(), shared).await;
        let node = world.node(commands.clone());
        let outcome = node.work(world.product, run, Some(session)).await;
        assert!(matches!(outcome, Outcome::TryAgain(_)), "it was met with just now");
        commands.leases.let_pass(std::time::Duration::from_secs(gone_by));
        let outcome = node.work(world.product, run, Some(session)).await;

        assert_eq!(matches!(outcome, Outcome::Finished), is_taken_over);
        if is_taken_over {
            assert_eq!(world.answer(run).await, TEXT);
        }
    }
}

#[tokio::test]
async fn a_run_that_ends_its_server_each_time_is_given_up() {
    let world = World::new().await;
    let (run, session) = world.ask("one").await;
    for _ in 0..MOST_STARTS {
        let dying = Altered::mortal(&world.log, 3, true);
        let node = world.node(open_commands(world.folder.path(), dying).await);
        node.work(world.product, run, Some(session)).await;
    }
    let next = world.node(open_commands(world.folder.path(), world.log.clone()).await);
    next.work(world.product, run, Some(session)).await;
    let events = world.events(run).await;
    let Some(ChatRunEvent::Failed { code, .. }) = events.last() else { panic!("{events:?}") };
    assert_eq!(code, "run_interrupted");
}

#[tokio::test]
async fn the_next_message_waits_for_the_answer_and_hears_it() {
    let world = World::new().await;
    let (run, session) = world.ask("one").await;
    let message =
        || NewMessage { session_id: Some("one".to_owned()), text: "And wasps?".to_owned() };
    let ask = || Ask::once("test", Uuid::nil(), Some(world.product));
    let owner = Actor::System("test");
    let refused = world.commands.ask_assistant(message(), owner, &ask()).await;
    assert!(matches!(refused, Err(Error::Refused { code: "run_in_progress", .. })));

    let node = world.node(world.commands.clone());
    node.work(world.product, run, Some(session)).await;
    let asked = world.commands.ask_assistant(message(), owner, &ask()).await.expect("asked");
    assert_eq!(asked.session, session);
    let Ok(Some(claimed)) = node.claim(world.product, asked.run, Some(session)).await else {
        panic!("it can be claimed")
    };
    let Ok(question) = node.question_in(&claimed, session).await else { panic!("it is there") };
    let before: Vec<(Role, &str)> =
        question.before.iter().map(|turn| (turn.role, turn.text.as_str())).collect();
    assert_eq!(before, [(Role::User, "What do bees make?"), (Role::Assistant, TEXT)]);
    assert_eq!(question.text, "And wasps?");
}

#[tokio::test]
async fn nobody_is_answered_for_a_product_that_is_gone() {
    let world = World::new().await;
    let (run, session) = world.ask("one").await;
    let ask = Ask::once("test", Uuid::nil(), None);
    world.commands.delete_product(world.product, &ask).await.expect("deleted");
    let node = world.node(world.commands.clone());
    let outcome = node.work(world.product, run, Some(session)).await;
    assert!(matches!(outcome, Outcome::Finished));
    assert!(world.events(run).await.is_empty());
    let head = world.log.head().await.expect("a head");
    assert!(head > Position::START);
}

impl World {
    /// As [`World::ask`], by a user.
    async fn ask_as(&self, user: Uuid, session: &str) -> (Uuid, Uuid) {
        let message = NewMessage {
            session_id: Some(session.to_owned()),
            text: "What do bees make?".to_owned(),
        };
        let owner = Actor::User(user);
        let ask = Ask::once("test", Uuid::nil(), Some(self.product));
        let metadata = eventlog::Metadata { actor: owner.to_string(), ..(*ask.metadata).clone() };
        let ask = Ask { metadata: Arc::new(metadata), ..ask };
        let asked = self.commands.ask_assistant(message, owner, &ask).await.expect("asked");
        (asked.run, asked.session)
    }

    /// What can be read of a question and its answer.
    async fn words(&self, (run, session): (Uuid, Uuid)) -> Vec<Option<String>> {
        let mut words = Vec::new();
        let read =
            async |stream: &StreamId| self.log.read_stream(stream, 0, 10_000).await.expect("read");
        for event in read(&StreamId::new("chat_session", session)).await {
            let organization = event.organization;
            let of_label = async |field: &str, label: &domain::Sealed| {
                let RecordedEvent { stream, event_type, .. } = &*event;
                self.commands.unseal(organization, stream, event_type, field, label).await
            };
            match decode_event(&event).expect("decoded") {
                ChatSessionEvent::Started { session_id, title } => {
                    for (field, label) in [("session_id", &session_id), ("title", &title)] {
                        let label = of_label(field, label).await.expect("opened");
                        words.push(label.map(|text| String::from_utf8_lossy(&text).into_owned()));
                    }
                }
                ChatSessionEvent::MessageAsked { message, .. } => {
                    let text = self.commands.open_piece(self.product, &event, "message", &message);
                    words.push(text.await.expect("opened"));
                }
                _ => {}
            }
        }
        for event in read(&StreamId::new("chat_run", run)).await {
            if let ChatRunEvent::Succeeded { answer, .. } = decode_event(&event).expect("decoded") {
                let text = self.commands.open_piece(self.product, &event, "answer", &answer);
                words.push(text.await.expect("opened"));
            }
        }
        words
    }
}

#[tokio::test]
async fn what_a_user_said_goes_with_the_user_and_with_the_product() {
    let world = World::new().await;
    let node = world.node(world.commands.clone());
    let (ada, bob) = (Uuid::from_u128(1), Uuid::from_u128(2));
    for user in [ada, bob] {
        world.commands.vault().create_key(&user_key(user)).await.expect("a key");
    }
    let asked = [
        world.ask_as(ada, "one").await,
        world.ask_as(bob, "two").await,
        world.ask("of a program").await,
    ];
    for (run, session) in asked {
        node.work(world.product, run, Some(session)).await;
        let words = world.words((run, session)).await;
        assert_eq!(words.len(), 4, "{words:?}");
        assert!(words.iter().all(Option::is_some), "{words:?}");
    }
    // Each event names both keys, so that one can tell what goes with either.
    let begun = StreamId::new("chat_session", asked[0].1);
    let begun = world.log.read_stream(&begun, 0, 1).await.expect("read");
    assert_eq!(begun[0].keys, [vault::product_key(world.product), user_key(ada)]);
    // One whose answer was not begun.
    let open = world.ask_as(ada, "late").await;

    world.commands.vault().shred_key(&user_key(ada)).await.expect("shredded");
    let outcome = node.work(world.product, open.0, Some(open.1)).await;
    assert!(matches!(outcome, Outcome::Finished));
    assert!(matches!(world.events(open.0).await.last(), Some(ChatRunEvent::Cancelled { .. })));
    let next = world.node(open_commands(world.folder.path(), world.log.clone()).await);
    for gone in [asked[0], open] {
        let words = world.words(gone).await;
        assert!(words.iter().all(Option::is_none), "{words:?}");
        next.work(world.product, gone.0, Some(gone.1)).await;
    }
    for left in &asked[1..] {
        assert!(world.words(*left).await.iter().all(Option::is_some));
    }

    let product = vault::product_key(world.product);
    world.commands.vault().shred_key(&product).await.expect("shredded");
    for gone in asked {
        assert!(world.words(gone).await.iter().all(Option::is_none));
    }
}

#[tokio::test]
async fn what_was_sealed_with_the_product_alone_is_read_as_ever() {
    let world = World::new().await;
    let ada = Uuid::from_u128(1);
    world.commands.vault().create_key(&user_key(ada)).await.expect("a key");
    let (run, session) = world.ask_as(ada, "one").await;
    // As it was stored before: the same place, under the key of the product.
    let stream = StreamId::new("chat_session", session);
    let event = world.log.read_stream(&stream, 1, 1).await.expect("read").remove(0);
    let room = Room { organization: event.organization, product: world.product, stream };
    let older = world.commands.seal_in(&room, ASKED, "message", b"older").await.expect("sealed");
    let opened = world.commands.open_piece(world.product, &event, "message", &older).await;
    assert_eq!(opened.expect("opened").as_deref(), Some("older"));
    let node = world.node(world.commands.clone());
    node.work(world.product, run, Some(session)).await;
    assert_eq!(world.answer(run).await, TEXT);
}
