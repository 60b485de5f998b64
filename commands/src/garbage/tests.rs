//! Random histories: whatever is done in whatever order, what an event names stays, and what none
//! names goes.

use std::convert::Infallible;
use std::fs::OpenOptions;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use domain::file::{File, FileCommand, FileEvent, FileIndex, file_id};
use domain::lease::LeaseClaim;
use domain::product::ProductEvent;
use domain::{BlobRef, FileName, Name, Timestamp};
use eventlog::{RecordedEvent, SqliteOptions, SqliteStore, StreamId};
use proptest::prelude::*;
use tempfile::TempDir;
use uuid::Uuid;
use vault::MasterKey;

use super::*;
use crate::execute::decode_event;
use crate::seal::product_key;
use crate::testing::upload_of;
use crate::{Ask, Commands, FileFacts, NewFile};

const HOUR: Duration = Duration::from_secs(3600);
const GRACE: Duration = Duration::from_secs(24 * 3600);

/// A step of a history. Numbers choose among what there is.
#[derive(Clone, Debug)]
enum Step {
    /// Bytes are stored, and the request is rejected.
    RejectedUpload(u8),
    /// Bytes are stored and named.
    Upload(u8),
    /// A file is read: its artifact is stored and named.
    Ingest(u8),
    /// A file is read, and the server stops before the event.
    CutIngestion(u8),
    /// A file is deleted.
    Delete(u8),
    /// A long text is kept as a blob, and named by an event.
    LongText(u8),
    /// So many hours pass.
    Pass(u8),
    /// Garbage is collected.
    Collect,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        2 => (0..6_u8).prop_map(Step::RejectedUpload),
        3 => (0..6_u8).prop_map(Step::Upload),
        2 => any::<u8>().prop_map(Step::Ingest),
        1 => any::<u8>().prop_map(Step::CutIngestion),
        2 => any::<u8>().prop_map(Step::Delete),
        1 => (0..4_u8).prop_map(Step::LongText),
        2 => (1..30_u8).prop_map(Step::Pass),
        3 => Just(Step::Collect),
    ]
}

struct Node {
    folder: TempDir,
    commands: Commands,
    organization: Uuid,
    product: Uuid,
    base: Uuid,
}

impl Node {
    async fn new() -> Node {
        let folder = tempfile::tempdir().unwrap();
        let log = SqliteStore::open(&folder.path().join("events.db"), SqliteOptions::default());
        let master = MasterKey::parse(&"07".repeat(32)).unwrap();
        let vault = Vault::local(&folder.path().join("vault"), master).await.unwrap();
        let commands = Commands::open(Arc::new(log.unwrap()), vault).await.unwrap();
        let organization = commands.boot().await.unwrap().organization;
        let ask = Ask::once("test", organization, None);
        let done = commands.create_product(Name::parse("Test").unwrap(), None, &ask).await.unwrap();
        let created = decode_event::<ProductEvent>(&done.events[0]).unwrap();
        let ProductEvent::Created { knowledge_base: base, .. } = created else {
            panic!("{created:?}")
        };
        let product = done.stream_id().unwrap();
        Node { folder, commands, organization, product, base }
    }

    fn ask(&self) -> Ask {
        Ask::once("test", self.organization, Some(self.product))
    }

    fn vault(&self) -> &Vault {
        self.commands.vault()
    }

    async fn put(&self, content: u8) -> BlobRef {
        let bytes = Bytes::from(vec![content; 100 + usize::from(content)]);
        let body = futures::stream::iter([Ok::<_, Infallible>(bytes)]);
        let blob = self.vault().put_blob(self.product, body, 1_000).await.unwrap();
        BlobRef { name: blob.name, size: blob.size }
    }

    async fn events(&self) -> Vec<Arc<RecordedEvent>> {
        self.commands.log().read_after(Position::START, 1_000_000).await.unwrap()
    }

    /// Every file that there ever was, what was uploaded as it, and its artifacts.
    async fn files(&self) -> Vec<(Uuid, BlobRef, Vec<String>)> {
        let mut files: Vec<(Uuid, BlobRef, Vec<String>)> = Vec::new();
        for event in self.events().await.iter().filter(|event| event.stream.category() == "file") {
            let id = event.stream.uuid().unwrap();
            match decode_event::<FileEvent>(event).unwrap() {
                FileEvent::Uploaded { blob, .. } => files.push((id, blob, Vec::new())),
                FileEvent::Indexed { artifact, .. } => {
                    let file = files.iter_mut().rfind(|file| file.0 == id).unwrap();
                    file.2.push(artifact);
                }
                _ => {}
            }
        }
        files
    }

    async fn chosen(&self, number: u8) -> Option<(Uuid, BlobRef)> {
        let files = self.files().await;
        let index = usize::from(number).checked_rem(files.len())?;
        files.into_iter().nth(index).map(|(id, blob, _)| (id, blob))
    }

    async fn upload(&self, blob: BlobRef) {
        let name = FileName::parse("a.txt").unwrap();
        let file = NewFile { name, media_type: "text/plain".into(), blob };
        let facts = FileFacts::default();
        self.commands.upload_file(self.base, file, &facts, false, &self.ask()).await.unwrap();
    }

    async fn put_artifact(&self, blob: &BlobRef) -> String {
        let name = format!("{}/{}-00aabb/chunker-1/revision.bin", self.product, blob.name);
        let key = product_key(self.product);
        self.vault().put_artifact(&key, &name, name.as_bytes()).await.unwrap();
        name
    }

    async fn ingest(&self, number: u8, is_cut: bool) {
        let Some((id, blob)) = self.chosen(number).await else { return };
        let state = self.commands.file(id).await.unwrap();
        if !matches!(state, File::Processing { .. }) {
            return;
        }
        let now = chrono::Utc::now();
        let claim = LeaseClaim {
            worker: Uuid::nil(),
            now: Timestamp::from(now),
            lease_until: Timestamp::from(now + chrono::TimeDelta::minutes(1)),
            exclusive: true,
            gone: Arc::default(),
            outlasted: Arc::default(),
        };
        let start = FileCommand::StartIngestion(claim);
        let started = self.commands.execute::<File>(id, start, &self.ask()).await.unwrap();
        let artifact = self.put_artifact(&blob).await;
        let event = decode_event::<FileEvent>(started.events.last().unwrap()).unwrap();
        let FileEvent::IngestionStarted { fence, .. } = event else { panic!("{event:?}") };
        if !is_cut {
            let index = FileIndex {
                artifact,
                chunks: 1,
                characters: 1,
                tokens: 1,
                model_revision: "revision".into(),
            };
            let finish = FileCommand::FinishIngestion { fence, index };
            self.commands.execute::<File>(id, finish, &self.ask()).await.unwrap();
        }
    }

    /// Keeps a long text as a step of an execution does, in an event of a type that nobody knows.
    async fn long_text(&self, number: u8) {
        let stream = StreamId::new("note", Uuid::now_v7());
        let text = vec![b'a' + number; 20_000];
        let payload = self.commands.seal_payload(
            self.organization,
            self.product,
            &stream,
            "note.taken.v1",
            "text",
            &text,
        );
        let payload = payload.await.unwrap();
        let data = serde_json::json!({ "deep": [{ "down": payload }] });
        let data = serde_json::value::to_raw_value(&data).unwrap();
        let ask = self.ask();
        let append = eventlog::Append {
            stream,
            expected: eventlog::Expected::Any,
            command_id: Uuid::now_v7(),
            request_hash: None,
            metadata: ask.metadata.clone(),
            keys: Vec::new(),
            events: vec![eventlog::NewEvent {
                event_type: "note.taken.v1".into(),
                data,
                metadata: None,
            }],
        };
        self.commands.log().append(append).await.unwrap();
    }

    fn pass(&self, hours: u8) {
        make_older(&self.folder.path().join("vault"), HOUR * u32::from(hours));
    }

    async fn collect(&self, dry_run: bool) -> Collected {
        let how = Collection { older_than: GRACE, dry_run };
        let log = self.commands.log().as_ref();
        collect_garbage(log, self.vault(), how, |_| {}).await.unwrap()
    }

    async fn take(&self, step: Step) {
        match step {
            Step::RejectedUpload(content) => drop(self.put(content).await),
            Step::Upload(content) => {
                let blob = self.put(content).await;
                self.upload(blob).await;
            }
            Step::Ingest(number) => self.ingest(number, false).await,
            Step::CutIngestion(number) => self.ingest(number, true).await,
            Step::Delete(number) => {
                if let Some((id, _)) = self.chosen(number).await {
                    // It may be deleted already.
                    let _ = self.commands.delete_file(id, &self.ask()).await;
                }
            }
            Step::LongText(number) => self.long_text(number).await,
            Step::Pass(hours) => self.pass(hours),
            Step::Collect => drop(self.collect(false).await),
        }
    }

    async fn stored(&self) -> Vec<String> {
        let stored: Vec<StoredObject> = self.vault().stored().try_collect().await.unwrap();
        let mut stored: Vec<String> = stored.into_iter().map(|object| object.name).collect();
        stored.sort();
        stored
    }

    /// Whatever an event names is there, and reads as it was stored.
    async fn check(&self) {
        let stored = self.stored().await;
        for (_, blob, artifacts) in self.files().await {
            assert!(stored.iter().any(|name| name.ends_with(&blob.name)), "{blob:?} is not there");
            let content = blob.size as u8 - 100;
            let blob = vault::BlobRef { name: blob.name, size: blob.size };
            let bytes = self.vault().blob_bytes(self.product, &blob, 1_000).await.unwrap();
            assert!(bytes.iter().all(|byte| *byte == content));
            for artifact in artifacts {
                assert!(
                    stored.contains(&format!("artifacts/{artifact}")),
                    "{artifact} is not there"
                );
                let bytes = self.vault().get_artifact(&artifact).await.unwrap().unwrap();
                assert_eq!(bytes, artifact);
            }
        }
    }

    /// The names of all that events name, found by their types.
    async fn named(&self) -> Vec<String> {
        let mut named = Vec::new();
        for (_, blob, artifacts) in self.files().await {
            named.push(format!("blobs/{}/{}/{}", self.product, &blob.name[..2], blob.name));
            named.extend(artifacts.into_iter().map(|artifact| format!("artifacts/{artifact}")));
        }
        for event in self.events().await {
            if event.event_type == "note.taken.v1" {
                let data: Value = serde_json::from_str(event.data.get()).unwrap();
                let name = data["deep"][0]["down"]["blob"]["name"].as_str().unwrap().to_owned();
                named.push(format!("blobs/{}/{}/{name}", self.product, &name[..2]));
            }
        }
        named.sort();
        named.dedup();
        named
    }
}

fn make_older(path: &Path, by: Duration) {
    if path.is_dir() {
        for entry in std::fs::read_dir(path).unwrap() {
            make_older(&entry.unwrap().path(), by);
        }
        return;
    }
    let file = OpenOptions::new().write(true).open(path).unwrap();
    let modified = file.metadata().unwrap().modified().unwrap();
    file.set_modified(modified - by).unwrap();
}

fn run(work: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(work);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn what_events_name_stays_and_all_else_goes(steps in prop::collection::vec(step(), 1..40)) {
        run(async {
            let node = Node::new().await;
            for step in steps {
                let before = node.stored().await;
                let is_collection = matches!(step, Step::Collect);
                if is_collection {
                    node.collect(true).await;
                    assert_eq!(node.stored().await, before, "a dry run has changed something");
                }
                node.take(step).await;
                if is_collection {
                    node.check().await;
                }
            }
            // Set aside, and then, a day later, removed.
            for _ in 0..2 {
                node.pass(25);
                node.collect(false).await;
                node.check().await;
            }
            assert_eq!(node.stored().await, node.named().await);
            let aside: Vec<StoredObject> = node.vault().stored_aside().try_collect().await.unwrap();
            assert!(aside.is_empty(), "{aside:?}");
            assert_eq!(node.collect(false).await.actions, []);
        });
    }
}

#[tokio::test]
async fn what_is_named_after_it_was_set_aside_comes_back() {
    let node = Node::new().await;
    let blob = node.put(1).await;
    node.pass(25);
    let collected = node.collect(false).await;
    assert_eq!(collected.set_aside.objects, 1);
    assert!(node.stored().await.is_empty());
    // Whoever had looked before that names it now, and was killed before it could look again.
    let upload = upload_of(node.base, &blob);
    node.commands.execute::<File>(file_id(node.base, &blob), upload, &node.ask()).await.unwrap();
    let collected = node.collect(false).await;
    assert_eq!((collected.brought_back.objects, collected.removed.objects), (1, 0));
    node.check().await;
}

#[tokio::test]
async fn whoever_names_what_was_set_aside_brings_it_back() {
    let node = Node::new().await;
    let blob = node.put(1).await;
    node.pass(25);
    node.collect(false).await;
    node.upload(blob).await;
    assert_eq!(node.stored().await.len(), 1);
    let collected = node.collect(false).await;
    assert_eq!((collected.brought_back.objects, collected.removed.objects), (0, 0));
    node.check().await;
}

#[tokio::test]
async fn a_deleted_file_keeps_its_bytes_and_its_artifact() {
    let node = Node::new().await;
    node.take(Step::Upload(1)).await;
    node.take(Step::Ingest(0)).await;
    node.take(Step::Delete(0)).await;
    for _ in 0..2 {
        node.pass(25);
        let collected = node.collect(false).await;
        assert_eq!((collected.actions.len(), collected.named.objects), (0, 2));
    }
    node.check().await;
}

#[tokio::test]
async fn an_upload_under_way_is_young_and_waits() {
    let node = Node::new().await;
    let blob = node.put(1).await;
    let collected = node.collect(false).await;
    assert_eq!((collected.waiting.objects, collected.actions.len()), (1, 0));
    node.upload(blob).await;
    node.check().await;
}

#[tokio::test]
async fn an_empty_log_is_not_believed() {
    let node = Node::new().await;
    node.put(1).await;
    node.pass(25);
    let elsewhere = node.folder.path().join("other.db");
    let empty = SqliteStore::open(&elsewhere, SqliteOptions::default()).unwrap();
    let how = Collection { older_than: GRACE, dry_run: false };
    let refused = collect_garbage(&empty, node.vault(), how, |_| {}).await;
    assert!(matches!(refused, Err(Error::EmptyLog)), "{refused:?}");
    assert_eq!(node.stored().await.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn uploads_of_what_was_garbage_lose_nothing_while_it_is_collected() {
    let node = Node::new().await;
    for content in 0..60 {
        node.put(content).await;
    }
    node.pass(25);
    let uploads = async {
        for content in 0..60 {
            let blob = node.put(content).await;
            tokio::task::yield_now().await;
            node.upload(blob).await;
        }
    };
    let collections = async {
        for _ in 0..10 {
            node.collect(false).await;
        }
    };
    tokio::join!(uploads, collections);
    node.collect(false).await;
    node.check().await;
}

#[test]
fn names_are_told_from_other_texts() {
    let name = "ab".repeat(32);
    for text in [name.as_str(), "p/a", "0193/ab-12/x.bin"] {
        assert!(may_be_a_name(text), "{text}");
    }
    for text in ["", "ab", &name[1..], &name.to_uppercase(), "A/b", "a b/c", "s1.key.AAAA"] {
        assert!(!may_be_a_name(text), "{text}");
    }
}
