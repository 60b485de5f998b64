//! The search index on a real log, a real vault and the real model: what is found, by whom, and what
//! is not.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::LazyLock;
use std::time::Duration;

use domain::file::FileEvent;
use domain::generation::{EmbeddingModel, GenerationEvent, generation_id};
use domain::{BlobRef, FileName};
use embeddings::{Artifact, CHUNKER_VERSION, Document, Embedder, Model};
use eventlog::{Append, Expected, SqliteOptions, SqliteStore, StreamId};
use tempfile::TempDir;
use vault::{MasterKey, product_key};

use super::*;
use crate::testing::{append, metadata};

const PATIENCE: Duration = Duration::from_secs(30);

static EMBEDDER: LazyLock<Embedder> =
    LazyLock::new(|| Embedder::new(Model::load(&model_directory()).unwrap(), 1));

/// The same weights, used in another manner: another model, whose vectors say nothing of the first one's.
static OTHER: LazyLock<Embedder> = LazyLock::new(|| {
    let folder = tempfile::tempdir().unwrap();
    for file in ["config.json", "tokenizer.json", "model.safetensors"] {
        std::fs::copy(model_directory().join(file), folder.path().join(file)).unwrap();
    }
    std::fs::create_dir(folder.path().join("1_Pooling")).unwrap();
    let pooling = r#"{ "pooling_mode_cls_token": true, "pooling_mode_mean_tokens": false }"#;
    std::fs::write(folder.path().join("1_Pooling/config.json"), pooling).unwrap();
    Embedder::new(Model::load(folder.path()).unwrap(), 1)
});

fn model_directory() -> PathBuf {
    let named = std::env::var_os("PRODGY_MODEL_DIR").map(PathBuf::from);
    named.unwrap_or_else(|| {
        PathBuf::from(std::env::var("CARGO_MANIFEST_DIR").unwrap())
            .join("../models/all-MiniLM-L6-v2")
    })
}

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
    language: Option<&'a str>,
    tags: &'a [&'a str],
    text: &'a str,
}

impl<'a> Given<'a> {
    fn new(base: Uuid, name: &'a str, text: &'a str) -> Given<'a> {
        Given { base, name, source: None, language: None, tags: &[], text }
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
        self.append_to(StreamId::new("file", file), event).await;
    }

    async fn append_to(&self, stream: StreamId, event: impl serde::Serialize) {
        let sequence = self.log.read_stream(&stream, 0, 1_000).await.unwrap().len() as u64;
        let by = metadata(Uuid::nil(), Some(self.product), "system:test");
        let expected = Expected::Sequence(sequence);
        let append = Append { expected, ..append(stream, by, &event) };
        self.log.append(append).await.unwrap();
    }

    /// Lets a file be uploaded and read; the search index has taken it in afterwards.
    async fn add(&self, given: Given<'_>) -> Uuid {
        let id = Uuid::now_v7();
        self.add_as(id, given).await;
        id
    }

    async fn add_as(&self, id: Uuid, given: Given<'_>) {
        self.append(id, uploaded(&given, id)).await;
        let (artifact, made) = self.make(id, given.text, &EMBEDDER).await;
        let indexed = FileEvent::Indexed {
            fence: 1,
            artifact,
            chunks: made.chunks.len() as u32,
            characters: made.text.chars().count() as u64,
            tokens: 1,
            model_revision: made.revision,
        };
        self.append(id, indexed).await;
        self.caught_up().await;
    }

    /// Lets a file be uploaded, which the second model alone makes something of.
    async fn add_later(&self, base: Uuid) -> Uuid {
        let id = Uuid::now_v7();
        self.append(id, uploaded(&Given::new(base, "later.md", "Tea is served at four."), id))
            .await;
        let (artifact, made) = self.make(id, "Tea is served at four.", &OTHER).await;
        let indexed = FileEvent::Indexed {
            fence: 1,
            artifact,
            chunks: 1,
            characters: 22,
            tokens: 1,
            model_revision: made.revision,
        };
        self.append(id, indexed).await;
        self.caught_up().await;
        id
    }

    /// Lets another model make something of a file.
    async fn embed(&self, id: Uuid, text: &str) {
        let (artifact, made) = self.make(id, text, &OTHER).await;
        let embedded = FileEvent::Embedded {
            artifact,
            chunks: made.chunks.len() as u32,
            characters: made.text.chars().count() as u64,
            tokens: 1,
            model_revision: made.revision,
        };
        self.append(id, embedded).await;
        self.caught_up().await;
    }

    async fn generation(&self, of: &Embedder, event: GenerationEvent) {
        let id = generation_id(of.model().revision());
        self.append_to(StreamId::new("generation", id), event).await;
        self.caught_up().await;
    }

    async fn make(&self, id: Uuid, text: &str, embedder: &Embedder) -> (String, Artifact) {
        let model = embedder.model();
        let document = Document { text: text.to_owned(), markdown: true, ..Document::default() };
        let chunks = model.chunk(&document);
        let texts = chunks.iter().map(|chunk| chunk.text.clone()).collect();
        let artifact = Artifact {
            revision: model.revision().to_owned(),
            chunker_version: CHUNKER_VERSION.to_owned(),
            text: document.text,
            vectors: embedder.embed_passages(texts).await.unwrap(),
            chunks,
        };
        let name = format!("test/{id}-{}", model.revision());
        let key = product_key(self.product);
        self.vault.put_artifact(&key, &name, &artifact.encode()).await.unwrap();
        (name, artifact)
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
            model_revision: EMBEDDER.model().revision().to_owned(),
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
        assert!(
            self.search().all_caught_up(head, PATIENCE).await,
            "{:?}",
            self.search().statuses()
        );
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
            filters,
            ..Query::default()
        };
        self.search().search(query).await.unwrap()
    }
}

fn uploaded(given: &Given<'_>, id: Uuid) -> FileEvent {
    let blob = BlobRef { name: format!("{:064x}", id.as_u128()), size: given.text.len() as u64 };
    FileEvent::Uploaded {
        knowledge_base: given.base,
        name: FileName::parse(given.name).unwrap(),
        media_type: "text/markdown".into(),
        size: blob.size,
        blob,
        source: given.source.map(str::to_owned),
        subject: None,
        language: given.language.map(str::to_owned),
        tags: given.tags.iter().map(|tag| (*tag).to_owned()).collect(),
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
        ..Query::default()
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
    // First in both lists: the best that there can be.
    assert!((found[0].score - 1.0).abs() < 1e-6, "{}", found[0].score);
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
        Filters { source: Some(one("wiki")), ..Filters::default() },
        Filters { source: Some(any(&["mail", "wiki"])), ..Filters::default() },
        Filters { tags: vec!["spain".into()], ..Filters::default() },
        Filters { tags: vec!["hr".into(), "spain".into()], ..Filters::default() },
        Filters { file_id: Some(AnyFile::One(wanted)), ..Filters::default() },
        Filters { file_id: Some(AnyFile::Any(vec![Uuid::nil(), wanted])), ..Filters::default() },
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

fn one(text: &str) -> AnyOf {
    AnyOf::One(text.to_owned())
}

fn any(texts: &[&str]) -> AnyOf {
    AnyOf::Any(texts.iter().map(|text| (*text).to_owned()).collect())
}

#[tokio::test]
async fn filters_of_time_language_and_several_things_narrow() {
    let (node, base) = (Node::start().await, Uuid::now_v7());
    let given = |name, language, source| Given {
        language: Some(language),
        source: Some(source),
        ..Given::new(base, name, HOLIDAYS)
    };
    node.add(given("first.md", "en", "wiki")).await;
    let second = node.add(given("second.md", "en", "mail")).await;
    node.add(given("third.md", "english", "wiki")).await;
    let found = node.find(&[base], "paid leave", Mode::Vector).await;
    let at = |name: &str| {
        let passage = found.iter().find(|passage| passage.file_name == name).unwrap();
        passage.metadata.created_at.parse::<chrono::DateTime<chrono::Utc>>().unwrap()
    };
    let (from, to) = (Some(at("second.md")), Some(at("third.md")));
    let cases = [
        (Filters { from, ..Filters::default() }, vec!["second.md", "third.md"]),
        (Filters { to: from, ..Filters::default() }, vec!["first.md"]),
        (Filters { from, to, ..Filters::default() }, vec!["second.md"]),
        (Filters { to, source: Some(one("wiki")), ..Filters::default() }, vec!["first.md"]),
        (
            Filters { language: Some(one("en")), ..Filters::default() },
            vec!["first.md", "second.md"],
        ),
        (
            Filters { language: Some(any(&["english", "de"])), ..Filters::default() },
            vec!["third.md"],
        ),
        (Filters { source: Some(any(&[])), ..Filters::default() }, vec![]),
        (Filters { file_id: Some(AnyFile::One(second)), to: from, ..Filters::default() }, vec![]),
    ];
    for mode in MODES {
        for (filters, expected) in &cases {
            let found = node.find_in(&[base], "paid leave", mode, filters.clone()).await;
            let mut names = names(&found);
            names.sort_unstable();
            assert_eq!(&names, expected, "{mode:?} {filters:?}");
        }
    }
}

#[tokio::test]
async fn words_are_found_in_every_form_of_their_language() {
    let (node, base) = (Node::start().await, Uuid::now_v7());
    node.add(Given::new(base, "en.md", BACKUPS)).await;
    let german = "Die Häuser am Hafen wurden im letzten Jahr von der Stadt gekauft und werden nun vermietet.";
    node.add(Given::new(base, "de.md", german)).await;
    let said = Given { language: Some("es"), ..Given::new(base, "es.md", "trabajadores") };
    node.add(said).await;

    for (query, name, word) in [
        ("copying databases", "en.md", "database"),
        ("ein Haus kaufen", "de.md", "Häuser"),
        ("trabajador", "es.md", "trabajadores"),
    ] {
        let found = node.find(&[base], query, Mode::FullText).await;
        assert_eq!(names(&found)[0], name, "{query}");
        let characters: Vec<char> = found[0].text.chars().collect();
        let marked: Vec<String> = found[0]
            .highlights
            .iter()
            .flatten()
            .map(|mark| characters[mark.start as usize..mark.end as usize].iter().collect())
            .collect();
        assert!(marked.iter().any(|marked| marked == word), "{query}: {marked:?}");
    }
    let found = node.find(&[base], "copying databases", Mode::Vector).await;
    assert!(found.iter().all(|passage| passage.highlights.is_none()));
}

const HANDBOOK: &str = "# Handbook\n\n## Leave\n\n### Paid\n\nEvery employee has twenty-five days a year.\n\n\
    ### Unpaid\n\nIt is agreed on with the head of the team.\n\n## Coffee\n\nThe machine is cleaned on Fridays.";

/// A file of which each paragraph is a chunk, as a smaller model would cut it.
async fn cut_small(node: &Node, base: Uuid, name: &str) -> Uuid {
    let padding =
        " The rest of this paragraph only makes it long enough to stand alone.".repeat(14);
    let text = HANDBOOK.replace(".\n", &format!(".{padding}\n"));
    node.add(Given::new(base, name, &text)).await
}

#[tokio::test]
async fn what_stands_around_a_passage_is_answered_when_asked_for() {
    let (node, base) = (Node::start().await, Uuid::now_v7());
    let file = cut_small(&node, base, "handbook.md").await;
    node.add(Given::new(base, "other.md", COFFEE)).await;
    let (chunks, count) = node.search().chunks(file, 0, 100).await.unwrap().unwrap();
    assert_eq!((chunks.len(), count > 2), (count, true), "{chunks:#?}");
    let (rest, _) = node.search().chunks(file, 1, 1).await.unwrap().unwrap();
    assert_eq!(rest, chunks[1..2]);

    for (place, chunk) in chunks.iter().enumerate() {
        let query = Query {
            knowledge_bases: vec![base],
            vector: Some(EMBEDDER.embed_query(&chunk.text).await.unwrap()),
            limit: 1,
            include: Include { neighbours: 1, section: true, highlights: None },
            ..Query::default()
        };
        let found = node.search().search(query).await.unwrap().remove(0);

        assert_eq!((found.chunk_index as usize, &found.text), (place, &chunk.text));
        assert_eq!(found.before.unwrap(), chunks[place.saturating_sub(1)..place]);
        assert_eq!(found.after.unwrap(), chunks[place + 1..(place + 2).min(count)]);
        let section = found.section.unwrap();
        assert_eq!(section.heading, chunk.place.heading);
        assert!(section.text.contains(&chunk.text) && section.char_start <= chunk.char_start);
        assert_eq!(section.char_end - section.char_start, section.text.chars().count() as u64);
    }
    let found = node.find(&[base], "espresso", Mode::FullText).await.remove(0);
    assert_eq!((found.before, found.after, found.section), (None, None, None));
}

#[tokio::test]
async fn nothing_of_another_knowledge_base_is_reached_by_any_way() {
    let (node, base, other) = (Node::start().await, Uuid::now_v7(), Uuid::now_v7());
    let mine =
        Given { source: Some("wiki"), tags: &["a"], ..Given::new(base, "mine.md", HOLIDAYS) };
    let theirs =
        Given { source: Some("wiki"), tags: &["a"], ..Given::new(other, "theirs.md", BACKUPS) };
    node.add(mine).await;
    let theirs = node.add(theirs).await;
    let filters = [
        Filters::default(),
        Filters { source: Some(one("wiki")), ..Filters::default() },
        Filters { tags: vec!["a".into()], ..Filters::default() },
        Filters { file_id: Some(AnyFile::One(theirs)), ..Filters::default() },
        Filters { from: Some(chrono::DateTime::UNIX_EPOCH), ..Filters::default() },
    ];
    for mode in MODES {
        for filters in &filters {
            let query = Query {
                knowledge_bases: vec![base],
                text: BACKUPS.into(),
                // Their very own.
                vector: Some(EMBEDDER.embed_query(BACKUPS).await.unwrap()),
                mode,
                limit: 100,
                filters: filters.clone(),
                include: Include {
                    neighbours: MAX_NEIGHBOURS,
                    section: true,
                    highlights: Some(true),
                },
                ..Query::default()
            };
            let found = node.search().search(query).await.unwrap();
            let told = format!("{found:?}");
            assert!(
                !told.contains("theirs.md") && !told.contains(BACKUPS),
                "{mode:?} {filters:?}: {told}"
            );
            assert!(found.iter().all(|passage| passage.knowledge_base_id == base));
        }
    }
}

#[tokio::test]
async fn what_other_knowledge_bases_hold_moves_no_score() {
    let (node, base) = filled().await;
    let scores = async || {
        let mut scores = Vec::new();
        for mode in [Mode::FullText, Mode::Hybrid] {
            for words in ["paid leave", "the machine of the employees", "copied every night"] {
                let found = node.find(&[base], words, mode).await;
                let found = found.iter().map(|it| (it.score.to_bits(), it.file_id));
                // Of equal ones either may come first.
                scores.push(found.collect::<BTreeSet<_>>());
            }
        }
        scores
    };
    let before = scores().await;
    assert!(before.iter().flatten().count() > 3, "{before:?}");

    // Rare words become common elsewhere, and texts long.
    let other = Uuid::now_v7();
    for number in 0..5 {
        let text = format!("Paid leave of a machine, number {number}. ").repeat(number + 1);
        node.add(Given::new(other, "other.md", &text)).await;
    }
    assert_eq!(scores().await, before);

    // Asked together, both count.
    let together = node.find(&[base, other], "paid leave", Mode::FullText).await;
    let alone = node.find(&[other], "paid leave", Mode::FullText).await;
    let best = |found: &[Passage]| found.iter().map(|it| it.score).fold(0.0, f32::max);
    assert!(!alone.is_empty() && best(&together) != best(&alone), "{together:?} {alone:?}");
    // What was deleted counts no more, here or there.
    let gone = node.add(Given::new(base, "gone.md", "Paid machines, and employees.")).await;
    assert_ne!(scores().await, before);
    node.delete(gone).await;
    assert_eq!(scores().await, before);
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
    let folder =
        node.folder.path().join("search").join(generations::brief(EMBEDDER.model().revision()));
    std::fs::remove_dir_all(&folder).unwrap();
    // Nor does anything of an older version.
    std::fs::create_dir_all(folder.join("full-text-1")).unwrap();
    node.start_search().await;
    assert!(!folder.join("full-text-1").exists());
    for (mode, before) in MODES.into_iter().zip(&before) {
        assert_eq!(&node.find(&[base], "the database every year", mode).await, before, "{mode:?}");
    }
}

/// As after a power cut that kept a segment's name in the index and not the segment.
#[tokio::test]
async fn a_start_without_a_file_of_the_full_text_makes_it_anew() {
    let (mut node, base) = filled().await;
    let generation = generations::brief(EMBEDDER.model().revision());
    let full_text = format!("search/{generation}/full-text-{}", super::index::VERSION);
    let folder = node.folder.path().join(full_text);
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

/// A node with three files, all of them in a second generation, and what of the first one stood in the second
/// place of a search.
async fn two_generations() -> (Node, Uuid) {
    let (node, base) = filled().await;
    let model = EmbeddingModel {
        model: "other".to_owned(),
        model_revision: OTHER.model().revision().to_owned(),
    };
    node.generation(&OTHER, GenerationEvent::Begun(model)).await;
    for (word, text) in [("paid", HOLIDAYS), ("database", BACKUPS), ("espresso", COFFEE)] {
        let found = node.find(&[base], word, Mode::FullText).await;
        node.embed(found[0].file_id, text).await;
    }
    node.generation(&OTHER, GenerationEvent::Completed { files: 3, chunks: 3 }).await;
    (node, base)
}

impl Node {
    /// What a model's generation finds, by a question that the same model embedded.
    async fn find_by(&self, embedder: &Embedder, base: Uuid, text: &str) -> Option<Vec<Passage>> {
        let query = Query {
            knowledge_bases: vec![base],
            text: text.to_owned(),
            vector: Some(embedder.embed_query(text).await.unwrap()),
            mode: Mode::Vector,
            limit: 3,
            ..Query::default()
        };
        self.search().search_in(embedder.model().revision(), query).await.unwrap()
    }
}

#[tokio::test]
async fn a_generation_is_built_beside_the_one_that_answers_and_then_answers() {
    let (mut node, base) = two_generations().await;
    let question = "How much vacation do I get?";
    let old = node.find_by(&EMBEDDER, base, question).await.unwrap();
    let new = node.find_by(&OTHER, base, question).await.unwrap();
    assert_eq!((old.len(), new.len()), (3, 3));
    assert_ne!(old[0].score, new[0].score, "the models differ");
    assert!(node.search().is_active(EMBEDDER.model().revision()));
    assert_eq!(node.find(&[base], question, Mode::Vector).await, old);

    node.generation(&OTHER, GenerationEvent::Activated {}).await;

    assert!(node.search().is_active(OTHER.model().revision()));
    let names: Vec<String> = node.search().statuses().into_iter().map(|it| it.name).collect();
    let other = format!("search-{}", generations::brief(EMBEDDER.model().revision()));
    assert_eq!(names, ["search".to_owned(), other]);
    node.stop_search().await;
    node.start_search().await;
    assert_eq!(node.find_by(&OTHER, base, question).await.unwrap(), new);
    assert!(node.search().is_active(OTHER.model().revision()));

    // Back: what was uploaded in the meantime is found as soon as the first model has it.
    let file = node.add_later(base).await;
    node.generation(
        &EMBEDDER,
        GenerationEvent::Begun(EmbeddingModel {
            model: "first".to_owned(),
            model_revision: EMBEDDER.model().revision().to_owned(),
        }),
    )
    .await;
    node.generation(&EMBEDDER, GenerationEvent::Completed { files: 3, chunks: 3 }).await;
    node.generation(&EMBEDDER, GenerationEvent::Activated {}).await;
    assert_eq!(node.find(&[base], question, Mode::Vector).await, old);
    let shown = |node: &Node| node.views.read(|db| crate::file::get(db, file)).unwrap().unwrap();
    assert_eq!(shown(&node).status, "processing");
    let extent = |node: &Node| {
        let revision = EMBEDDER.model().revision();
        node.views.read(|db| crate::generation::extent(db, revision)).unwrap()
    };
    assert_eq!(
        (extent(&node).files, extent(&node).missing, extent(&node).missing_chunks),
        (3, 1, 1)
    );
    node.append(
        file,
        FileEvent::EmbeddingFailed {
            model_revision: EMBEDDER.model().revision().to_owned(),
            code: "not_utf8".to_owned(),
            message: "why".to_owned(),
        },
    )
    .await;
    node.caught_up().await;
    assert_eq!((shown(&node).status.as_str(), extent(&node).failed), ("failed", 1));
    assert_eq!(extent(&node).missing, 0);
}

#[tokio::test]
async fn a_generation_that_was_removed_leaves_nothing() {
    let (node, base) = two_generations().await;
    let folder =
        node.folder.path().join("search").join(generations::brief(OTHER.model().revision()));
    assert!(folder.exists());

    node.generation(&OTHER, GenerationEvent::Removed {}).await;

    let gone = async {
        while node.find_by(&OTHER, base, "vacation").await.is_some() || folder.exists() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, gone).await.unwrap();
    assert_eq!(node.find(&[base], "vacation", Mode::Vector).await.len(), 3);
    let extent = node.views.read(|db| crate::generation::extent(db, OTHER.model().revision()));
    let extent = extent.unwrap();
    assert_eq!((extent.files, extent.missing, extent.rate), (0, 3, None));

    // What it had made is known until somebody says that it is gone; what others made stays.
    let left = |node: &Node| {
        let revision = OTHER.model().revision();
        let removed = node.views.read(crate::generation::removed).unwrap();
        let known = |by| node.views.read(|db| crate::file::artifacts_by(db, by)).unwrap().len();
        (
            removed.iter().any(|it| it == revision),
            known(revision),
            known(EMBEDDER.model().revision()),
        )
    };
    assert_eq!(left(&node), (true, 3, 3));
    node.generation(&OTHER, GenerationEvent::Cleared {}).await;
    assert_eq!(left(&node), (false, 0, 3));
}

#[tokio::test]
async fn a_deleted_file_is_gone_from_every_generation() {
    let (node, base) = two_generations().await;
    let found = node.find(&[base], "espresso", Mode::FullText).await;
    node.delete(found[0].file_id).await;
    for embedder in [&*EMBEDDER, &*OTHER] {
        let found = node.find_by(embedder, base, "espresso").await.unwrap();
        assert_eq!(found.len(), 2);
        assert!(!names(&found).contains(&"coffee.md"));
    }
}
