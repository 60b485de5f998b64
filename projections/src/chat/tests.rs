//! Events in, answers out: whose sessions are listed, what is in them, and what is left to answer.

use std::sync::Arc;

use domain::product::ProductEvent;
use domain::{Name, Payload, Sealed, Timestamp};
use eventlog::{EventStore, Position, StreamId};
use tempfile::TempDir;

use super::*;
use crate::Views;
use crate::testing::{append, log_and_views, metadata};

const ADA: &str = "user:ada";
const BOT: &str = "token:bot";

/// A log that is written by hand, and what the read models make of it.
struct World {
    log: Arc<dyn EventStore>,
    views: Views,
    product: Uuid,
    _folder: TempDir,
}

impl World {
    async fn new() -> World {
        let folder = tempfile::tempdir().unwrap();
        let (log, views) = log_and_views(folder.path());
        let product = Uuid::now_v7();
        let world = World { log, views, product, _folder: folder };
        let created = ProductEvent::Created {
            name: Name::parse("Product").unwrap(),
            description: None,
            knowledge_base: Uuid::now_v7(),
        };
        world.happens(ADA, "product", product, &created).await;
        world
    }

    async fn happens<E: serde::Serialize>(&self, actor: &str, category: &str, id: Uuid, event: &E) {
        let by = metadata(Uuid::nil(), Some(self.product), actor);
        let append = append(StreamId::new(category, id), by, event);
        self.log.append(append).await.unwrap();
    }

    /// Somebody asks something, in a session that begins with it or is there.
    async fn asked(&self, owner: &str, session: Uuid, begins: bool) -> Uuid {
        let run = Uuid::now_v7();
        if begins {
            let (session_id, title) = (sealed("name"), sealed("title"));
            let started = ChatSessionEvent::Started { session_id, title };
            self.happens(owner, "chat_session", session, &started).await;
        }
        let asked = ChatSessionEvent::MessageAsked { run, message: payload("message") };
        self.happens(owner, "chat_session", session, &asked).await;
        run
    }

    async fn ran(&self, run: Uuid, event: ChatRunEvent) {
        self.happens("system:assistant", "chat_run", run, &event).await;
    }

    async fn read<T>(&self, query: impl FnOnce(&Connection) -> Result<T, Error>) -> T {
        let head: Position = self.log.head().await.unwrap();
        assert!(self.views.caught_up(head, std::time::Duration::from_secs(60)).await);
        self.views.read(query).unwrap()
    }

    async fn sessions(&self, owner: &str) -> Vec<Uuid> {
        let listing = self.read(|db| list(db, None, owner, Window::first(10))).await;
        listing.items.into_iter().map(|session| session.id).collect()
    }

    async fn open_runs(&self) -> Vec<Uuid> {
        self.read(unfinished).await.into_iter().map(|(run, ..)| run).collect()
    }
}

fn sealed(text: &str) -> Sealed {
    Sealed(format!("s1.product.{text}"))
}

fn payload(text: &str) -> Payload {
    Payload::Sealed(sealed(text))
}

fn started() -> ChatRunEvent {
    ChatRunEvent::Started { worker: Uuid::nil(), fence: 1, lease_until: Timestamp::default() }
}

fn succeeded() -> ChatRunEvent {
    ChatRunEvent::Succeeded { fence: 1, written: 0, answer: payload("answer") }
}

#[tokio::test]
async fn sessions_are_their_owner_s_and_hold_their_runs_in_order() {
    let world = World::new().await;
    let (one, two, other) = (Uuid::now_v7(), Uuid::now_v7(), Uuid::now_v7());
    let first = world.asked(ADA, one, true).await;
    world.asked(ADA, two, true).await;
    world.asked(BOT, other, true).await;
    let request = ChatRunEvent::Requested { session: Some(one), messages: None };
    world.ran(first, request).await;
    world.ran(first, started()).await;
    assert_eq!(world.read(|db| get_run(db, first)).await.unwrap().status, "running");
    world.ran(first, succeeded()).await;
    let second = world.asked(ADA, one, false).await;

    assert_eq!(world.sessions(ADA).await, [two, one]);
    assert_eq!(world.sessions(BOT).await, [other]);
    let elsewhere = Some(Uuid::now_v7());
    let none = world.read(|db| list(db, elsewhere, ADA, Window::first(10))).await;
    assert_eq!(none.total, 0);
    let (found, count) = world.read(|db| runs(db, one, 0, 10)).await;
    assert_eq!(found.iter().map(|run| run.id).collect::<Vec<_>>(), [first, second]);
    assert_eq!(count, 2);
    assert_eq!((found[0].status.as_str(), found[1].status.as_str()), ("succeeded", "queued"));
    assert_eq!(found[0].owner, ADA, "whoever the answer is by");
    assert_eq!(found[0].answer.as_ref().unwrap().payload, payload("answer"));
    let (found, _) = world.read(|db| runs(db, one, 1, 10)).await;
    assert_eq!(found.len(), 1);
    let session = world.read(|db| get(db, one)).await.unwrap();
    assert_eq!((session.messages, session.changed), (2, 1));
}

#[tokio::test]
async fn what_is_renamed_changes_and_what_is_deleted_is_gone_with_its_runs() {
    let world = World::new().await;
    let session = Uuid::now_v7();
    let run = world.asked(ADA, session, true).await;
    let renamed = ChatSessionEvent::Renamed { title: sealed("other") };
    world.happens(ADA, "chat_session", session, &renamed).await;
    let shown = world.read(|db| get(db, session)).await.unwrap();
    assert_eq!(shown.title, SealedField::new("chat_session.renamed.v1", &sealed("other")));
    assert_eq!(shown.changed, 3);

    world.happens(ADA, "chat_session", session, &ChatSessionEvent::Deleted {}).await;
    world.ran(run, ChatRunEvent::Requested { session: Some(session), messages: None }).await;
    world.ran(run, ChatRunEvent::Cancelled {}).await;
    assert_eq!(world.read(|db| get(db, session)).await, None);
    assert_eq!(world.read(|db| get_run(db, run)).await, None);
    assert!(world.open_runs().await.is_empty());

    let next = world.asked(ADA, session, true).await;
    assert_eq!(world.read(|db| runs(db, session, 0, 10)).await.0[0].id, next);
}

#[tokio::test]
async fn a_run_is_left_to_be_answered_until_it_ends() {
    let world = World::new().await;
    let session = Uuid::now_v7();
    let asked = world.asked(ADA, session, true).await;
    let alone = Uuid::now_v7();
    let messages = Some(payload("messages"));
    let request = ChatRunEvent::Requested { session: None, messages };
    world.happens(BOT, "chat_run", alone, &request).await;
    assert_eq!(world.open_runs().await, [asked, alone]);
    let shown = world.read(|db| get_run(db, alone)).await.unwrap();
    assert_eq!((shown.owner.as_str(), shown.session), (BOT, None));

    for (run, end) in [
        (asked, ChatRunEvent::Cancelled {}),
        (
            alone,
            ChatRunEvent::Failed {
                fence: 1,
                code: "llm".to_owned(),
                error: payload("error"),
                transient: true,
            },
        ),
    ] {
        world.ran(run, started()).await;
        assert!(world.open_runs().await.contains(&run));
        world.ran(run, end).await;
        assert!(!world.open_runs().await.contains(&run));
    }
    let failed = world.read(|db| get_run(db, alone)).await.unwrap();
    assert_eq!((failed.status.as_str(), failed.error_code.as_deref()), ("failed", Some("llm")));
}
