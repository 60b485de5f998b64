//! The search index on a real log, a real vault and the real model: what is found, by whom, and what
//! is not.

use std::path::PathBuf;
use std::sync::LazyLock;

use domain::file::FileEvent;
use domain::{BlobRef, FileName};
use embeddings::{Artifact, CHUNKER_VERSION, Document, Embedder, Model};
use eventlog::{Append, Expected, Metadata, NewEvent, SqliteOptions, SqliteStore, StreamId};
use tempfile::TempDir;
use vault::{MasterKey, product_key};

use super::*;

const PATIENCE: Duration = Duration::from_secs(30);

static EMBEDDER: LazyLock<Embedder> = LazyLock::new(|| {
    let named = std::env::var_os("PRODGY_MODEL_DIR").map(PathBuf::from);
    let directory = named.unwrap_or_else(|| {
        PathBuf::from(std::env::var("CARGO_MANIFEST_DIR").unwrap())
            .join("../models/all-MiniLM-L6-v2")
    });
    Embedder::new(Model::load(&directory).unwrap(), 1)
});

/// A node's read side, and the hand that writes its log.
struct Node {
    folder: TempDir,
    log: Arc<dyn EventStore>,
    vault: Vault,
    views: Views,
    /// None while it is away.
    search: Option<Search>,
    product: Uuid,
}

/// A file as the log tells of it.
struct Given<'a> {
    base: Uuid,
    name: &'a str,
    source: Option<&'a str>,
    tags: &'a [&'a str],
    text: &'a str,
}

impl<'a> Given<'a> {
    fn new(base: Uuid, name: &'a str, text: &'a str) -> Given<'a> {
        Given { base, name, source: None, tags: &[], text }
    }
}

impl Node {
    async fn start() -> Node {
        let folder = tempfile::tempdir().unwrap();
        let log = SqliteStore::open(&folder.path().join("events.db"), SqliteOptions::default());
        let log: Arc<dyn EventStore> = Arc::new(log.unwrap());
        let master = MasterKey::parse(&"07".repeat(32)).unwrap();
        let vault = Vault::local(&folder.path().join("vault"), master).await.unwrap();
        let product = Uuid::now_v7();
        vault.create_key(&product_key(product)).await.unwrap();
        let views = Views::open(&folder.path().join("views"), log.clone()).unwrap();
        let search = Some(open(&folder, &log, &vault, &views));
        Node { folder, log, vault, views, search, product }
    }

    fn search(&self) -> &Search {
        self.search.as_ref().unwrap()
    }

    /// Ends the index: its files are free afterwards.
    async fn stop_search(&mut self) {
        self.search.take().unwrap().close().await;
    }

    async fn start_search(&mut self) {
        self.search = Some(open(&self.folder, &self.log, &self.vault, &self.views));
        self.caught_up().await;
    }

    async fn append(&self, file: Uuid, event: FileEvent) {
        let stream = StreamId::new("file", file);
        let sequence = self.log.read_stream(&stream, 0, 1_000).await.unwrap().len() as u64;
        let (event_type, data) = domain::event::encode(&event);
        let metadata = Metadata {
            organization: Uuid::nil(),
            product: Some(self.product),
            actor: "system:test".into(),
            correlation: Uuid::now_v7(),
            causation: None,
            request_id: None,
            traceparent: None,
            address: None,
            user_agent: None,
        };
        let append = Append {
            stream,
            expected: Expected::Sequence(sequence),
            command_id: Uuid::now_v7(),
            request_hash: None,
            metadata: Arc::new(metadata),
            keys: vec![],
            events: vec![NewEvent { event_type, data, metadata: None }],
        };
        self.log.append(append).await.unwrap();
    }

    /// Lets a file be uploaded and read; the search index has taken it in afterwards.
    async fn add(&self, given: Given<'_>) -> Uuid {
        let id = Uuid::now_v7();
        self.add_as(id, given).await;
        id
    }

    async fn add_as(&self, id: Uuid, given: Given<'_>) {
        let blob =
            BlobRef { name: format!("{:064x}", id.as_u128()), size: given.text.len() as u64 };
        let uploaded = FileEvent::Uploaded {
            knowledge_base: given.base,
            name: FileName::parse(given.name).unwrap(),
            media_type: "text/markdown".into(),
            size: blob.size,
            blob,
            source: given.source.map(str::to_owned),
            subject: None,
            language: None,
            tags: given.tags.iter().map(|tag| (*tag).to_owned()).collect(),
        };
        self.append(id, uploaded).await;
        let model = EMBEDDER.model();
        let document =
            Document { text: given.text.to_owned(), markdown: true, ..Document::default() };
        let chunks = model.chunk(&document);
        let texts = chunks.iter().map(|chunk| chunk.text.clone()).collect();
        let artifact = Artifact {
            revision: model.revision().to_owned(),
            chunker_version: CHUNKER_VERSION.to_owned(),
            text: document.text,
            vectors: EMBEDDER.embed_passages(texts).await.unwrap(),
            chunks,
        };
        let name = format!("test/{id}");
        let key = product_key(self.product);
        self.vault.put_artifact(&key, &name, &artifact.encode()).await.unwrap();
        let indexed = FileEvent::Indexed {
            fence: 1,
            artifact: name,
            chunks: artifact.chunks.len() as u32,
            characters: artifact.text.chars().count() as u64,
            tokens: 1,
            model_revision: artifact.revision,
        };
        self.append(id, indexed).await;
        self.caught_up().await;
    }

    /// Lets a file be uploaded and read whose artifact is not there.
    async fn add_lost(&self, base: Uuid) -> Uuid {
        let file = Uuid::now_v7();
        let indexed = FileEvent::Indexed {
            fence: 1,
            artifact: "test/lost".into(),
            chunks: 1,
            characters: 1,
            tokens: 1,
            model_revision: "none".into(),
        };
        let uploaded = FileEvent::Uploaded {
            knowledge_base: base,
            name: FileName::parse("lost.md").unwrap(),
            media_type: "text/markdown".into(),
            size: 1,
            blob: BlobRef { name: "0".repeat(64), size: 1 },
            source: None,
            subject: None,
            language: None,
            tags: vec![],
        };
        self.append(file, uploaded).await;
        self.append(file, indexed).await;
        file
    }

    async fn delete(&self, file: Uuid) {
        self.append(file, FileEvent::Deleted {}).await;
        self.caught_up().await;
    }

    async fn caught_up(&self) {
        let head = self.log.head().await.unwrap();
        assert!(self.search().caught_up(head, PATIENCE).await, "{:?}", self.search().status());
    }

    async fn find(&self, bases: &[Uuid], text: &str, mode: Mode) -> Vec<Passage> {
        self.find_in(bases, text, mode, Filters::default()).await
    }

    async fn find_in(
        &self,
        bases: &[Uuid],
        text: &str,
        mode: Mode,
        filters: Filters,
    ) -> Vec<Passage> {
        let query = Query {
            knowledge_bases: bases.to_vec(),
            text: text.to_owned(),
            vector: Some(EMBEDDER.embed_query(text).await.unwrap()),
            mode,
            limit: 3,
            min_score: None,
            filters,
        };
        self.search().search(query).await.unwrap()
    }
}

fn open(folder: &TempDir, log: &Arc<dyn EventStore>, vault: &Vault, views: &Views) -> Search {
    let folder = folder.path().join("search");
    Search::open(&folder, log.clone(), vault.clone(), views.clone()).unwrap()
}

fn names(found: &[Passage]) -> Vec<&str> {
    found.iter().map(|passage| passage.file_name.as_str()).collect()
}

const MODES: [Mode; 3] = [Mode::Vector, Mode::FullText, Mode::Hybrid];

const HOLIDAYS: &str = "Employees may take twenty-five days of paid leave each year.";
const BACKUPS: &str = "The database is copied to another data centre every night at two.";
const COFFEE: &str = "The espresso machine on the third floor is cleaned on Fridays.";

async fn filled() -> (Node, Uuid) {
    let (node, base) = (Node::start().await, Uuid::now_v7());
    node.add(Given::new(base, "holidays.md", HOLIDAYS)).await;
    node.add(Given::new(base, "backups.md", BACKUPS)).await;
    node.add(Given::new(base, "coffee.md", COFFEE)).await;
    (node, base)
}

#[tokio::test]
async fn meaning_is_found_without_a_common_word() {
    let (node, base) = filled().await;

    let found = node.find(&[base], "How much vacation do I get?", Mode::Vector).await;

    assert_eq!(names(&found)[0], "holidays.md");
    assert_eq!(found.len(), 3);
    assert!(found.is_sorted_by(|one, other| one.score >= other.score));
    let first = &found[0];
    assert_eq!((first.text.as_str(), first.chunk_index), (HOLIDAYS, 0));
    assert_eq!((first.char_start, first.char_end), (0, HOLIDAYS.chars().count() as u64));
    assert!(node.find(&[base], "How much vacation do I get?", Mode::FullText).await.is_empty());
}

#[tokio::test]
async fn the_score_by_meaning_is_the_cosine() {
    let (node, base) = filled().await;

    let found = node.find(&[base], HOLIDAYS, Mode::Vector).await;

    assert!((found[0].score - 1.0).abs() < 1e-4, "{}", found[0].score);
}

#[tokio::test]
async fn a_least_score_leaves_the_rest_out() {
    let (node, base) = filled().await;
    let query = Query {
        knowledge_bases: vec![base],
        text: HOLIDAYS.into(),
        vector: Some(EMBEDDER.embed_query(HOLIDAYS).await.unwrap()),
        mode: Mode::Vector,
        limit: 3,
        min_score: Some(0.9),
        filters: Filters::default(),
    };

    assert_eq!(names(&node.search().search(query).await.unwrap()), ["holidays.md"]);
}

#[tokio::test]
async fn words_are_found_whatever_their_case_and_signs_mean_nothing() {
    let (node, base) = filled().await;

    for text in [
        "ESPRESSO",
        "the espresso: machine?!",
        "chunk:0 AND (espresso",
        "-espresso \"third",
        "file:espresso*",
    ] {
        let found = node.find(&[base], text, Mode::FullText).await;
        assert_eq!(names(&found).first(), Some(&"coffee.md"), "{text}");
    }
    for text in ["*", "()", "---", "\"\""] {
        assert!(node.find(&[base], text, Mode::FullText).await.is_empty(), "{text}");
    }
}

#[tokio::test]
async fn hybrid_puts_first_what_both_find() {
    let (node, base) = filled().await;

    let found = node.find(&[base], "nightly copies of the database", Mode::Hybrid).await;

    assert_eq!(names(&found)[0], "backups.md");
    assert!(found[0].score > found[1].score);
    // First in both lists: 1 / 61, twice.
    assert!((found[0].score - 2.0 / 61.0).abs() < 1e-6, "{}", found[0].score);
}

#[tokio::test]
async fn another_knowledge_base_is_never_looked_into() {
    let (node, base) = filled().await;
    let (other, empty) = (Uuid::now_v7(), Uuid::now_v7());
    node.add(Given::new(
        other,
        "secret.md",
        "Vacation, espresso and database: all of it is secret.",
    ))
    .await;

    for mode in MODES {
        for text in ["vacation espresso database secret", HOLIDAYS] {
            let found = node.find(&[base], text, mode).await;
            assert!(
                found.iter().all(|passage| passage.knowledge_base_id == base),
                "{mode:?} {text}"
            );
            assert!(node.find(&[empty], text, mode).await.is_empty());
            assert!(node.find(&[], text, mode).await.is_empty());
        }
        let named = format!("knowledge_base:{other} secret");
        assert!(!names(&node.find(&[base], &named, mode).await).contains(&"secret.md"));
    }
    let both = node.find(&[base, other], "a secret", Mode::Vector).await;
    assert_eq!(names(&both)[0], "secret.md");
}

#[tokio::test]
async fn filters_narrow_before_the_best_are_counted() {
    let (node, base) = (Node::start().await, Uuid::now_v7());
    // More and better passages than are asked for, all of which the filter keeps out.
    for number in 0..8 {
        let (name, text) = (format!("{number}.md"), format!("{HOLIDAYS} Rule {number}."));
        node.add(Given::new(base, &name, &text)).await;
    }
    let wanted = Given {
        source: Some("wiki"),
        tags: &["hr", "spain"],
        ..Given::new(
            base,
            "wanted.md",
            "Leave is agreed on with the head of the team, a month before.",
        )
    };
    let wanted = node.add(wanted).await;
    let filters = [
        Filters { source: Some("wiki".into()), ..Filters::default() },
        Filters { tags: vec!["spain".into()], ..Filters::default() },
        Filters { tags: vec!["hr".into(), "spain".into()], ..Filters::default() },
        Filters { file_id: Some(wanted), ..Filters::default() },
    ];

    for mode in MODES {
        for filters in &filters {
            let found = node.find_in(&[base], "paid leave", mode, filters.clone()).await;
            assert_eq!(names(&found), ["wanted.md"], "{mode:?} {filters:?}");
        }
        let nobodys = Filters { tags: vec!["hr".into(), "france".into()], ..Filters::default() };
        assert!(node.find_in(&[base], "paid leave", mode, nobodys).await.is_empty());
    }
}

#[tokio::test]
async fn a_deleted_file_is_not_found_and_may_come_again() {
    let (node, base) = (Node::start().await, Uuid::now_v7());
    let file = node.add(Given::new(base, "holidays.md", HOLIDAYS)).await;

    node.delete(file).await;
    for mode in MODES {
        assert!(node.find(&[base], "paid leave", mode).await.is_empty(), "{mode:?}");
    }
    assert!(node.search().is_empty());

    node.add_as(file, Given::new(base, "again.md", HOLIDAYS)).await;
    for mode in MODES {
        assert_eq!(names(&node.find(&[base], "paid leave", mode).await), ["again.md"], "{mode:?}");
    }
}

#[tokio::test]
async fn a_restart_finds_what_was_found_before() {
    let (mut node, base) = filled().await;
    let coffee = node.find(&[base], "espresso", Mode::Vector).await[0].file_id;
    node.delete(coffee).await;
    let mut before = vec![];
    for mode in MODES {
        before.push(node.find(&[base], "the database every year", mode).await);
    }

    node.stop_search().await;
    node.start_search().await;

    for (mode, before) in MODES.into_iter().zip(&before) {
        assert_eq!(&node.find(&[base], "the database every year", mode).await, before, "{mode:?}");
    }
    assert_eq!(node.search().len(), 2);

    // And without its files: they hold nothing that the log and the artifacts do not.
    node.stop_search().await;
    std::fs::remove_dir_all(node.folder.path().join("search")).unwrap();
    node.start_search().await;
    for (mode, before) in MODES.into_iter().zip(&before) {
        assert_eq!(&node.find(&[base], "the database every year", mode).await, before, "{mode:?}");
    }
}

/// As after a power cut that kept a segment's name in the index and not the segment.
#[tokio::test]
async fn a_start_without_a_file_of_the_full_text_makes_it_anew() {
    let (mut node, base) = filled().await;
    let folder = node.folder.path().join(format!("search/full-text-{}", super::index::VERSION));
    for ending in ["term", "store", "fast", "fieldnorm"] {
        node.stop_search().await;
        let files = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path());
        let lost: Vec<_> =
            files.filter(|path| path.extension().is_some_and(|is| is == ending)).collect();
        assert!(!lost.is_empty(), "no file of the full text ends in {ending}");
        for path in lost {
            std::fs::remove_file(path).unwrap();
        }

        node.start_search().await;

        let found = node.find(&[base], "espresso", Mode::FullText).await;
        assert_eq!(names(&found), ["coffee.md"], "{ending}");
    }
}

#[tokio::test]
async fn what_changes_while_the_index_is_away_is_caught_up_with() {
    let (mut node, base) = filled().await;
    let found = node.find(&[base], "espresso", Mode::FullText).await;
    node.stop_search().await;
    node.append(found[0].file_id, FileEvent::Deleted {}).await;
    let head = node.log.head().await.unwrap();
    assert!(node.views.caught_up(head, PATIENCE).await);

    node.start_search().await;

    for mode in MODES {
        assert!(!names(&node.find(&[base], "espresso", mode).await).contains(&"coffee.md"));
    }
}

#[tokio::test]
async fn what_another_node_has_erased_already_stops_no_index() {
    let mut node = Node::start().await;
    let base = Uuid::now_v7();
    // As another node does: this one remembers the key.
    assert!(node.vault.key_exists(&product_key(node.product)).await.unwrap());
    let master = MasterKey::parse(&"07".repeat(32)).unwrap();
    let other = Vault::local(&node.folder.path().join("vault"), master).await.unwrap();
    other.shred_key(&product_key(node.product)).await.unwrap();

    let file = node.add_lost(base).await;
    node.caught_up().await;
    node.stop_search().await;
    node.start_search().await;
    node.delete(file).await;

    assert_eq!(node.search().trouble(), None);
}

#[tokio::test]
async fn a_lost_artifact_stops_the_index_and_says_which() {
    let node = Node::start().await;
    node.add_lost(Uuid::now_v7()).await;

    let trouble = tokio::time::timeout(PATIENCE, async {
        loop {
            match node.search().trouble() {
                Some(trouble) if trouble.contains("stopped") => return trouble,
                _ => tokio::task::yield_now().await,
            }
        }
    });
    let trouble = trouble.await.unwrap();

    assert!(trouble.contains("position 2") && trouble.contains("test/lost"), "{trouble}");
}
