//! Deletions that are followed up, wherever they are cut off.

mod file;

use std::collections::BTreeSet;

use bytes::Bytes;
use chrono::{TimeDelta, Utc};
use domain::file::FileIndex;
use domain::lease::LeaseClaim;
use domain::manifest::Manifest;
use domain::session::SessionEvent;
use domain::trigger::TriggerEvent;
use domain::user::Asker;
use domain::{BlobRef, Email, FileName, Name, Role, Scope, Timestamp};
use eventlog::EventStore;
use secrecy::SecretString;
use serde_json::json;
use tempfile::TempDir;

use super::*;
use crate::policies::altered::Altered;
use crate::testing::{open_commands, open_log};
use crate::{FileFacts, NewAgent, NewApiToken, NewExecution, NewFile, NewUser, UserChange};

const ADDRESS: &str = "ada@example.com";

/// What is inside, as the log itself tells.
struct Log(Arc<dyn EventStore>);

impl Log {
    async fn all(&self) -> Vec<Arc<RecordedEvent>> {
        self.0.read_after(Position::START, 10_000).await.expect("read")
    }

    /// The agents of a product that are installed, or have triggers left.
    async fn agents_of(&self, product: Uuid) -> Vec<Uuid> {
        let of = Some(product);
        let mut agents = self.open(of, "agent.installed.v1", &["agent.uninstalled.v1"]).await;
        for trigger in self.open(of, "trigger.created.v1", &["trigger.deleted.v1"]).await {
            let stream = StreamId::new("trigger", trigger);
            let first = self.0.read_stream(&stream, 0, 1).await.expect("read");
            if let TriggerEvent::Created { agent, .. } =
                decode_event::<TriggerEvent>(&first[0]).expect("decoded")
                && !agents.contains(&agent)
            {
                agents.push(agent);
            }
        }
        agents
    }

    /// The streams of a category that began with one of these types and did not go on to another.
    async fn open(&self, product: Option<Uuid>, begins: &str, ends: &[&str]) -> Vec<Uuid> {
        let mut open = Vec::new();
        for event in self.all().await {
            let Some(id) = event.stream.uuid() else { continue };
            if event.event_type == begins && (product.is_none() || event.product == product) {
                open.push(id);
            }
            if ends.contains(&event.event_type.as_str()) {
                open.retain(|known| *known != id);
            }
        }
        open
    }

    async fn types(&self) -> Vec<String> {
        self.all().await.iter().map(|event| event.event_type.clone()).collect()
    }

    async fn count(&self, event_type: &str) -> usize {
        self.types().await.iter().filter(|known| *known == event_type).count()
    }
}

#[async_trait]
impl Contents for Log {
    async fn know(&self, _: Position) -> Result<(), NotNow> {
        Ok(())
    }

    async fn forget(&self, _: Position) -> Result<(), NotNow> {
        Ok(())
    }

    async fn sessions_of(&self, user: Uuid) -> Result<Vec<Uuid>, NotNow> {
        let mut sessions = Vec::new();
        for session in self.open(None, "session.started.v1", &["session.ended.v1"]).await {
            let stream = StreamId::new("session", session);
            let first = self.0.read_stream(&stream, 0, 1).await.expect("read");
            let started = decode_event::<SessionEvent>(&first[0]).expect("decoded");
            if matches!(started, SessionEvent::Started { user: of, .. } if of == user) {
                sessions.push(session);
            }
        }
        Ok(sessions)
    }

    async fn outdated_sessions_of(&self, user: Uuid) -> Result<Vec<Uuid>, NotNow> {
        let changed = self.all().await.into_iter().rfind(|event| {
            event.event_type == "user.password_changed.v1" && event.stream.uuid() == Some(user)
        });
        let Some(changed) = changed else { return Ok(Vec::new()) };
        let mut outdated = Vec::new();
        for session in self.sessions_of(user).await? {
            let stream = StreamId::new("session", session);
            let first = self.0.read_stream(&stream, 0, 1).await.expect("read");
            if first[0].position < changed.position {
                outdated.push(session);
            }
        }
        Ok(outdated)
    }

    async fn files_of(&self, base: Uuid) -> Result<Vec<Uuid>, NotNow> {
        let mut files = Vec::new();
        for file in self.open(None, "file.uploaded.v1", &["file.deleted.v1"]).await {
            let stream = StreamId::new("file", file);
            let first = self.0.read_stream(&stream, 0, 1).await.expect("read");
            let uploaded = decode_event::<FileEvent>(&first[0]).expect("decoded");
            if matches!(uploaded, FileEvent::Uploaded { knowledge_base, .. } if knowledge_base == base)
            {
                files.push(file);
            }
        }
        Ok(files)
    }

    async fn inside(&self, product: Uuid) -> Result<Inside, NotNow> {
        let of = Some(product);
        let over = ["execution.succeeded.v1", "execution.failed.v1", "execution.cancelled.v1"];
        Ok(Inside {
            tokens: self.open(of, "api_token.created.v1", &["api_token.deleted.v1"]).await,
            agents: self.agents_of(product).await,
            executions: self.open(of, "execution.requested.v1", &over).await,
            knowledge_bases: self
                .open(of, "knowledge_base.created.v1", &["knowledge_base.deleted.v1"])
                .await,
            files: self.open(of, "file.uploaded.v1", &["file.deleted.v1"]).await,
            integrations: self.open(of, "integration.created.v1", &["integration.erased.v1"]).await,
        })
    }

    async fn has_file_with(&self, product: Uuid, blob: &str) -> Result<bool, NotNow> {
        for file in self.open(Some(product), "file.uploaded.v1", &["file.deleted.v1"]).await {
            let stream = StreamId::new("file", file);
            let first = self.0.read_stream(&stream, 0, 1).await.expect("read");
            let uploaded = decode_event::<FileEvent>(&first[0]).expect("decoded");
            if matches!(uploaded, FileEvent::Uploaded { blob: its, .. } if its.name == blob) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    async fn artifacts_of(&self, product: Uuid) -> Result<Vec<String>, NotNow> {
        let mut names = Vec::new();
        for event in self.all().await {
            if event.event_type == "file.indexed.v1" && event.product == Some(product) {
                let FileEvent::Indexed { artifact, .. } =
                    decode_event::<FileEvent>(&event).expect("decoded")
                else {
                    continue;
                };
                names.push(artifact);
            }
        }
        Ok(names)
    }
}

/// A log and a vault in a folder of their own.
struct World {
    folder: TempDir,
    log: Arc<dyn EventStore>,
    commands: Commands,
}

fn name(text: &str) -> Name {
    Name::parse(text).expect("a name")
}

fn ask() -> Ask {
    Ask::once("test", Uuid::nil(), None)
}

/// A worker begins to read a file, and has a minute for it.
fn claim() -> LeaseClaim {
    let now = Utc::now();
    LeaseClaim {
        worker: Uuid::now_v7(),
        now: Timestamp::from(now),
        lease_until: Timestamp::from(now + TimeDelta::minutes(1)),
        exclusive: true,
        gone: Arc::default(),
        outlasted: Arc::default(),
    }
}

impl World {
    async fn new() -> World {
        let folder = tempfile::tempdir().expect("a folder");
        let log = open_log(folder.path());
        let commands = open_commands(folder.path(), log.clone()).await;
        World { folder, log, commands }
    }

    fn log(&self) -> Log {
        Log(self.log.clone())
    }

    /// Follows a deletion up, on a server that dies at the last of so many appends: before that is
    /// stored, or after. Answers whether it lived on.
    async fn first_life(
        &self,
        lives: usize,
        stores_the_last: bool,
        follow_up: impl AsyncFn(&Erasure) -> Result<(), Failure>,
    ) -> bool {
        let mortal = Altered::mortal(&self.log, lives, stores_the_last);
        let commands = open_commands(self.folder.path(), mortal.clone()).await;
        let erasure = Erasure::start(commands, Arc::new(self.log()));
        follow_up(&erasure).await.is_ok() && mortal.lives()
    }

    /// A server that starts after that.
    async fn second_life(&self) -> Arc<Erasure> {
        let commands = open_commands(self.folder.path(), self.log.clone()).await;
        Erasure::start(commands, Arc::new(self.log()))
    }

    async fn user(&self) -> Uuid {
        let new = NewUser {
            email: Email::parse(ADDRESS).expect("an address"),
            name: Some(name("Ada")),
            role: Role::Member,
            password: SecretString::from("a long password"),
        };
        let done = self.commands.create_user(new, Asker::Operator, &ask()).await.expect("a user");
        let user = done.stream_id().expect("an id");
        for _ in 0..2 {
            self.commands.start_session(user, TimeDelta::days(1), &ask()).await.expect("in");
        }
        user
    }

    /// A product with one of everything inside.
    async fn product(&self) -> Full {
        let done = self.commands.create_product(name("Product"), None, &ask()).await;
        let done = done.expect("a product");
        let product = done.stream_id().expect("an id");
        let ask = || ask().in_product(product);
        let made = self.commands.create_knowledge_base(name("Another"), None, &ask()).await;
        let base = made.expect("a base").stream_id().expect("an id");
        let new = NewApiToken {
            name: name("Program"),
            scopes: BTreeSet::from(Scope::ALL),
            allowed_ips: BTreeSet::new(),
            expires_at: None,
        };
        self.commands.create_api_token(new, &ask()).await.expect("a token");
        let manifest = Manifest::accept(&json!({
            "manifest": "prodgy.agent/1", "name": "test.nothing", "version": "1.0.0", "title": "Nothing",
            "steps": [{ "id": "one", "type": "transform", "with": { "value": 1 } }],
        }));
        let new = NewAgent {
            manifest: manifest.expect("a manifest"),
            title: None,
            config: None,
            bindings: Default::default(),
        };
        let done = self.commands.install_agent(new, &ask()).await.expect("an agent");
        let agent = done.stream_id().expect("an id");
        let new = NewExecution { agent, trigger: None, input: None };
        self.commands.request_execution(new, &ask()).await.expect("an execution");
        let mut blobs = Vec::new();
        for text in ["one", "two", "three"] {
            blobs.push(self.file(product, base, text).await);
        }
        let artifact = self.index(product, base, "indexed").await;
        Full { product, base, blobs, artifact }
    }

    async fn file(&self, product: Uuid, base: Uuid, text: &'static str) -> vault::BlobRef {
        let body = stream::iter([Ok::<_, Error>(Bytes::from_static(text.as_bytes()))]);
        let blob = self.commands.vault().put_blob(product, body, 1_000).await.expect("stored");
        let file = NewFile {
            name: FileName::parse(&format!("{text}.txt")).expect("a name"),
            media_type: "text/plain".into(),
            blob: BlobRef { name: blob.name.clone(), size: blob.size },
        };
        let facts = FileFacts::default();
        let ask = ask().in_product(product);
        self.commands.upload_file(base, file, &facts, false, &ask).await.expect("uploaded");
        blob
    }

    /// A file that was read. Answers the name of its artifact.
    async fn index(&self, product: Uuid, base: Uuid, text: &'static str) -> String {
        self.file(product, base, text).await;
        let file = *self.log().files_of(base).await.expect("listed").last().expect("a file");
        let artifact = format!("{product}/{text}");
        let bytes = Bytes::from_static(b"text and vectors");
        self.commands
            .vault()
            .put_artifact(&product_key(product), &artifact, &bytes)
            .await
            .expect("stored");
        let ask = || ask().in_product(product);
        let start = FileCommand::StartIngestion(claim());
        let done = self.commands.execute::<domain::file::File>(file, start, &ask()).await;
        let event = decode_event::<FileEvent>(&done.expect("claimed").events[0]).expect("decoded");
        let FileEvent::IngestionStarted { fence, .. } = event else { panic!("{event:?}") };
        let index = FileIndex {
            artifact: artifact.clone(),
            chunks: 1,
            characters: 4,
            tokens: 1,
            model_revision: "test".into(),
        };
        let finish = FileCommand::FinishIngestion { fence, index };
        self.commands.execute::<domain::file::File>(file, finish, &ask()).await.expect("indexed");
        artifact
    }
}

/// A product with everything inside.
struct Full {
    product: Uuid,
    base: Uuid,
    blobs: Vec<vault::BlobRef>,
    artifact: String,
}

#[tokio::test]
async fn a_deleted_user_is_erased_once_wherever_it_is_cut_off() {
    for stores_the_last in [false, true] {
        let mut lives = 0;
        loop {
            lives += 1;
            let world = World::new().await;
            let user = world.user().await;
            world.commands.delete_user(user, Asker::Operator, &ask()).await.expect("deleted");

            let lived_on =
                world.first_life(lives, stores_the_last, async |it| it.settle_user(user).await);
            let lived_on = lived_on.await;
            let second = world.second_life().await;
            second.settle_user(user).await.expect("erased");

            let context = format!("{lives} appends, the last one stored: {stores_the_last}");
            let log = world.log();
            assert_eq!(log.count("user.erased.v1").await, 1, "{context}");
            assert_eq!(log.count("session.ended.v1").await, 2, "{context}");
            assert_eq!(log.count("claim.released.v1").await, 1, "{context}");
            assert_eq!(log.types().await.last().expect("events"), "user.erased.v1", "{context}");
            let vault = second.commands.vault();
            assert!(!vault.key_exists(&user_key(user)).await.expect("asked"), "{context}");
            let address = Email::parse(ADDRESS).expect("an address");
            let found = second.commands.user_by_email(&address).await.expect("asked");
            assert_eq!(found, None, "{context}");
            if lived_on {
                assert!(lives > 4, "it was never cut off in between");
                break;
            }
        }
    }
}

#[tokio::test]
async fn another_password_ends_the_sessions_from_before_wherever_it_is_cut_off() {
    for stores_the_last in [false, true] {
        for lives in 1..=3 {
            let world = World::new().await;
            let user = world.user().await;
            let password = Some(SecretString::from("another password"));
            let change = UserChange { password, ..UserChange::default() };
            let by = Asker::Operator;
            world.commands.change_user(user, change, by, &ask()).await.expect("changed");
            let old = world.log().sessions_of(user).await.expect("asked");
            let new = world.commands.start_session(user, TimeDelta::days(1), &ask()).await;
            let new = new.expect("in").session;

            world.first_life(lives, stores_the_last, async |it| it.settle_user(user).await).await;
            let second = world.second_life().await;
            second.settle_user(user).await.expect("settled");

            let context = format!("{lives} appends, the last one stored: {stores_the_last}");
            assert_eq!(old.len(), 2, "{context}");
            assert_eq!(world.log().count("session.ended.v1").await, 2, "{context}");
            assert_eq!(world.log().sessions_of(user).await.expect("asked"), [new], "{context}");
        }
    }
}

#[tokio::test]
async fn a_session_from_before_another_password_is_not_refreshed_even_before_it_is_ended() {
    let world = World::new().await;
    let user = world.user().await;
    let commands = &world.commands;
    let ttl = TimeDelta::days(1);
    let old = commands.start_session(user, ttl, &ask()).await.expect("in");
    let password = Some(SecretString::from("another password"));
    let change = UserChange { password, ..UserChange::default() };
    commands.change_user(user, change, Asker::Operator, &ask()).await.expect("changed");
    let new = commands.start_session(user, ttl, &ask()).await.expect("in");

    let refused = commands.refresh(&old.refresh_token, ttl, &ask()).await;
    assert!(matches!(refused, Err(Error::Refused { code: "session_ended", .. })), "{refused:?}");
    commands.refresh(&new.refresh_token, ttl, &ask()).await.expect("refreshed");
}

#[tokio::test]
async fn a_user_whose_key_was_shredded_by_an_older_version_is_erased_too() {
    let world = World::new().await;
    let user = world.user().await;
    world.commands.delete_user(user, Asker::Operator, &ask()).await.expect("deleted");
    world.commands.vault().shred_key(&user_key(user)).await.expect("shredded");

    world.second_life().await.settle_user(user).await.expect("erased");

    assert_eq!(world.log().count("user.erased.v1").await, 1);
}

#[tokio::test]
async fn nobody_is_erased_who_was_not_deleted() {
    let world = World::new().await;
    let user = world.user().await;
    let Full { product, base, .. } = world.product().await;
    let before = world.log().types().await;
    let erasure = world.second_life().await;

    erasure.settle_user(user).await.expect("nothing to do");
    erasure.erase_product(product).await.expect("nothing to do");
    erasure.empty(base).await.expect("nothing to do");

    assert_eq!(world.log().types().await, before);
    let vault = erasure.commands.vault();
    assert!(vault.key_exists(&user_key(user)).await.expect("asked"));
    assert!(vault.key_exists(&product_key(product)).await.expect("asked"));
}

#[tokio::test]
async fn a_deleted_product_is_erased_once_with_all_that_is_inside_wherever_it_is_cut_off() {
    for stores_the_last in [false, true] {
        let mut lives = 0;
        loop {
            lives += 1;
            let world = World::new().await;
            let other = world.product().await;
            let Full { product, blobs, artifact, .. } = world.product().await;
            world.commands.delete_product(product, &ask()).await.expect("deleted");

            let lived_on = world
                .first_life(lives, stores_the_last, async |it| it.erase_product(product).await)
                .await;
            let second = world.second_life().await;
            second.erase_product(product).await.expect("erased");

            let context = format!("{lives} appends, the last one stored: {stores_the_last}");
            let log = world.log();
            for (event_type, expected) in [
                ("product.erased.v1", 1),
                ("api_token.deleted.v1", 1),
                ("agent.uninstalled.v1", 1),
                ("trigger.deleted.v1", 1),
                ("execution.cancelled.v1", 1),
                ("knowledge_base.deleted.v1", 2),
                ("file.deleted.v1", 4),
            ] {
                assert_eq!(log.count(event_type).await, expected, "{event_type}: {context}");
            }
            assert_eq!(log.types().await.last().expect("events"), "product.erased.v1", "{context}");
            let inside = log.inside(product).await.expect("asked");
            assert!(inside.is_empty(), "{context}: {inside:?}");
            let vault = second.commands.vault();
            assert!(!vault.key_exists(&product_key(product)).await.expect("asked"), "{context}");
            let bytes = world.folder.path().join(format!("vault/blobs/{product}"));
            assert!(!bytes.exists(), "{context}");
            for blob in &blobs {
                assert!(vault.blob_bytes(product, blob, 1_000).await.is_err(), "{context}");
            }
            let known = vault.get_artifact(&artifact).await.expect("asked");
            assert!(known.is_none(), "{context}");

            let inside = log.inside(other.product).await.expect("asked");
            assert_eq!(inside.files.len(), 4, "{context}");
            let bytes = vault.blob_bytes(other.product, &other.blobs[0], 1_000).await;
            assert_eq!(bytes.expect("the other product is whole"), "one", "{context}");
            if lived_on {
                assert!(lives > 10, "it was never cut off in between");
                break;
            }
        }
    }
}

#[tokio::test]
async fn a_deleted_knowledge_base_is_emptied_once_wherever_it_is_cut_off() {
    for stores_the_last in [false, true] {
        let mut lives = 0;
        loop {
            lives += 1;
            let world = World::new().await;
            let Full { base, .. } = world.product().await;
            world.commands.delete_knowledge_base(base, &ask()).await.expect("deleted");

            let lived_on =
                world.first_life(lives, stores_the_last, async |it| it.empty(base).await).await;
            world.second_life().await.empty(base).await.expect("emptied");

            let context = format!("{lives} appends, the last one stored: {stores_the_last}");
            assert_eq!(world.log().count("file.deleted.v1").await, 4, "{context}");
            let left = world.log().files_of(base).await.expect("asked");
            assert!(left.is_empty(), "{context}: {left:?}");
            if lived_on {
                break;
            }
        }
    }
}

#[tokio::test]
async fn a_node_forgets_the_keys_of_what_another_has_erased() {
    let world = World::new().await;
    let user = world.user().await;
    let Full { product, .. } = world.product().await;
    let keys = [user_key(user), product_key(product)];
    let vault = world.commands.vault();
    for key in &keys {
        assert!(vault.key_exists(key).await.expect("asked"));
    }
    world.commands.delete_user(user, Asker::Operator, &ask()).await.expect("deleted");
    world.commands.delete_product(product, &ask()).await.expect("deleted");
    let other = world.second_life().await;
    other.settle_user(user).await.expect("erased");
    other.erase_product(product).await.expect("erased");

    let here = Erasure::start(world.commands.clone(), Arc::new(world.log()));
    here.settle_user(user).await.expect("known");
    here.erase_product(product).await.expect("known");

    for key in &keys {
        assert!(!vault.key_exists(key).await.expect("asked"), "{key}");
    }
}

#[tokio::test]
async fn a_file_that_comes_too_late_is_refused_and_leaves_no_bytes() {
    let world = World::new().await;
    let Full { product, base, .. } = world.product().await;
    let body = stream::iter([Ok::<_, Error>(Bytes::from_static(b"late"))]);
    let blob = world.commands.vault().put_blob(product, body, 1_000).await.expect("stored");
    world.commands.delete_product(product, &ask()).await.expect("deleted");
    world.second_life().await.erase_product(product).await.expect("erased");
    // As an upload does that was under way: its bytes come to rest after the others were removed.
    let late = world.folder.path().join(format!("vault/blobs/{product}/{}", &blob.name[..2]));
    std::fs::create_dir_all(&late).expect("made");
    std::fs::write(late.join(&blob.name), "late").expect("written");

    let file = NewFile {
        name: FileName::parse("late.txt").expect("a name"),
        media_type: "text/plain".into(),
        blob: BlobRef { name: blob.name, size: blob.size },
    };
    let ask = ask().in_product(product);
    let commands = open_commands(world.folder.path(), world.log.clone()).await;
    let facts = FileFacts::default();
    let refused = commands.upload_files(base, vec![file], &facts, false, &ask).await;

    assert!(matches!(refused, Err(Error::Refused { code: "knowledge_base_not_found", .. })));
    assert!(!world.folder.path().join(format!("vault/blobs/{product}")).exists());
}

#[tokio::test]
async fn a_token_of_an_erased_product_is_still_counted() {
    let world = World::new().await;
    let Full { product, .. } = world.product().await;
    let token = world.log().inside(product).await.expect("asked").tokens[0];
    let pending = crate::PendingUses::default();
    pending.count(crate::Usage {
        token,
        organization: Uuid::nil(),
        product,
        method: "GET".into(),
        route: "/api/products".into(),
        status: 200,
        address: Some([192, 0, 2, 7].into()),
    });
    world.commands.delete_product(product, &ask()).await.expect("deleted");
    world.second_life().await.erase_product(product).await.expect("erased");

    let commands = open_commands(world.folder.path(), world.log.clone()).await;
    commands.record_uses(&pending, None).await.expect("written");

    assert_eq!(world.log().count("token_usage.recorded.v1").await, 1);
}
