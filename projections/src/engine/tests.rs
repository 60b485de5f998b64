//! The engine on a real log: filling, following, poisonous events, rebuilding.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use eventlog::{
    Append, EventStore, Expected, NewEvent, Position, RecordedEvent, SqliteOptions, SqliteStore,
    StreamId,
};
use rusqlite::params;
use serde_json::value::RawValue;
use tempfile::TempDir;
use uuid::Uuid;

use super::*;
use crate::Error;
use crate::testing::metadata;

const PATIENCE: Duration = Duration::from_secs(30);

/// What the model `noted` cannot take in.
const POISON: &str = "note.poison.v1";

/// A row for every event, in a file of its own.
struct Everything;

impl ReadModel for Everything {
    fn name(&self) -> &'static str {
        "everything"
    }
    fn version(&self) -> u32 {
        1
    }
    fn schema(&self) -> &'static str {
        "CREATE TABLE everything (position INTEGER PRIMARY KEY, type TEXT NOT NULL);
         CREATE INDEX everything_by_type ON everything (type);"
    }
    fn categories(&self) -> &'static [&'static str] {
        &[]
    }
    fn file(&self) -> &'static str {
        "everything"
    }
    fn reader_indexes(&self) -> &'static [&'static str] {
        &["everything_by_type"]
    }
    fn apply(&self, db: &Writer<'_>, event: &RecordedEvent) -> Result<(), Error> {
        db.execute(
            "INSERT INTO everything VALUES (?1, ?2)",
            params![event.position.0, event.event_type],
        )?;
        Ok(())
    }
}

/// Two rows for every note; fails between them where there is poison.
struct Noted;

impl ReadModel for Noted {
    fn name(&self) -> &'static str {
        "noted"
    }
    fn version(&self) -> u32 {
        1
    }
    fn schema(&self) -> &'static str {
        "CREATE TABLE noted (position INTEGER, half INTEGER, PRIMARY KEY (position, half)) WITHOUT ROWID;"
    }
    fn categories(&self) -> &'static [&'static str] {
        &["note"]
    }
    fn apply(&self, db: &Writer<'_>, event: &RecordedEvent) -> Result<(), Error> {
        db.execute("INSERT INTO noted VALUES (?1, 1)", [event.position.0])?;
        if event.event_type == POISON {
            return Err(Error::Unfit("this note is poison".into()));
        }
        db.execute("INSERT INTO noted VALUES (?1, 2)", [event.position.0])?;
        Ok(())
    }
}

/// Writes down which version of it took an event in.
struct Aged(u32);

impl ReadModel for Aged {
    fn name(&self) -> &'static str {
        "aged"
    }
    fn version(&self) -> u32 {
        self.0
    }
    fn schema(&self) -> &'static str {
        "CREATE TABLE aged (position INTEGER PRIMARY KEY, version INTEGER NOT NULL);"
    }
    fn categories(&self) -> &'static [&'static str] {
        &["note"]
    }
    fn apply(&self, db: &Writer<'_>, event: &RecordedEvent) -> Result<(), Error> {
        db.execute("INSERT INTO aged VALUES (?1, ?2)", params![event.position.0, self.0])?;
        Ok(())
    }
}

fn models() -> Vec<Box<dyn ReadModel>> {
    vec![Box::new(Noted), Box::new(Everything)]
}

/// A log, and read models that follow it.
struct Node {
    folder: TempDir,
    log: Arc<SqliteStore>,
}

impl Node {
    fn new() -> Node {
        let folder = tempfile::tempdir().unwrap();
        let log = SqliteStore::open(&folder.path().join("events.db"), SqliteOptions::default());
        Node { folder, log: Arc::new(log.unwrap()) }
    }

    fn views_folder(&self) -> std::path::PathBuf {
        self.folder.path().join("views")
    }

    fn open(&self) -> Views {
        Views::open_with(&self.views_folder(), self.log.clone(), models()).unwrap()
    }

    async fn append(&self, stream: &str, event_type: &str) -> Position {
        let append = Append {
            stream: StreamId::from(stream),
            expected: Expected::Any,
            command_id: Uuid::now_v7(),
            request_hash: None,
            metadata: metadata(Uuid::nil(), None, "system:test"),
            keys: vec![],
            events: vec![NewEvent {
                event_type: event_type.into(),
                data: RawValue::from_string("{}".into()).unwrap(),
                metadata: None,
            }],
        };
        self.log.append(append).await.unwrap().position()
    }

    async fn append_many(&self, count: usize) -> Position {
        let mut last = Position::START;
        for _ in 0..count {
            last = self.append("note-1", "note.taken.v1").await;
        }
        last
    }
}

fn count(views: &Views, table: &str) -> u64 {
    let sql = format!("SELECT count(*) FROM {table}");
    views.read(|db| Ok(db.query_row(&sql, [], |row| row.get(0))?)).unwrap()
}

fn generations(folder: &Path) -> usize {
    std::fs::read_dir(folder).unwrap().count()
}

#[tokio::test(flavor = "multi_thread")]
async fn models_in_several_files_are_filled_followed_and_read_as_one() {
    let node = Node::new();
    node.append_many(30).await;
    let before = node.append("other-1", "other.happened.v1").await;
    let views = node.open();
    assert!(views.all_caught_up(before, PATIENCE).await);
    let after = node.append_many(5).await;
    assert!(views.all_caught_up(after, PATIENCE).await);

    assert_eq!((count(&views, "noted"), count(&views, "everything")), (70, 36));
    let joined = "everything JOIN noted USING (position) WHERE half = 2";
    assert_eq!(count(&views, joined), 35);
    let indexes = "everything.sqlite_schema WHERE name = 'everything_by_type'";
    assert_eq!(count(&views, indexes), 1);
    views.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_poisonous_event_stops_its_model_before_it_and_no_other() {
    let node = Node::new();
    node.append_many(3).await;
    let views = node.open();
    assert!(views.all_caught_up(Position(3), PATIENCE).await);
    let poison = node.append("note-1", POISON).await;
    let last = node.append_many(2).await;
    assert!(views.all_reached(last, PATIENCE).await);

    assert_stopped(&views, poison, last).await;
    views.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_poisonous_event_met_while_filling_leaves_no_half_of_itself() {
    let node = Node::new();
    node.append_many(3).await;
    let poison = node.append("note-1", POISON).await;
    let last = node.append_many(2).await;
    let views = node.open();
    assert!(views.all_reached(last, PATIENCE).await);

    assert_stopped(&views, poison, last).await;
    views.close().await;

    // The next start tries again, and finds it again.
    let views = node.open();
    assert!(views.all_reached(last, PATIENCE).await);
    assert_stopped(&views, poison, last).await;
    views.close().await;
}

async fn assert_stopped(views: &Views, poison: Position, last: Position) {
    let statuses = views.statuses();
    let [noted, everything] = &statuses[..] else { panic!("{statuses:?}") };
    assert_eq!((noted.state, noted.position), (State::Stopped, poison.0 - 1));
    let stopped = noted.stopped.as_ref().unwrap();
    assert_eq!((stopped.position, stopped.event_type.as_str()), (poison.0, POISON));
    assert!(stopped.error.contains("poison"), "{stopped:?}");
    assert_eq!((everything.state, everything.position), (State::Running, last.0));
    assert!(views.trouble().unwrap().contains("noted"));
    assert_eq!((count(views, "noted"), count(views, "everything")), (6, last.0));

    // What a stopped model has not taken in is never said to be applied.
    assert!(views.all_caught_up(Position(poison.0 - 1), PATIENCE).await);
    for position in [poison, last] {
        assert!(!views.caught_up(position, PATIENCE).await);
        assert!(!views.all_caught_up(position, PATIENCE).await);
    }
    let halt = views.halt(|_| true).unwrap();
    assert_eq!((halt.model, halt.position, halt.is_in_main), ("noted", poison, true));
    let hides = |stream: &str, position| halt.hides(&StreamId::from(stream), position);
    assert!(hides("note-2", poison) && hides("note-2", last));
    assert!(!hides("note-2", Position(poison.0 - 1)) && !hides("other-1", last));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_that_stopped_is_still_known_to_have_after_a_rebuild() {
    let node = Node::new();
    let poison = node.append("note-1", POISON).await;
    let views = node.open();
    assert!(views.all_reached(poison, PATIENCE).await);
    let mut rebuilds = views.rebuilds();

    assert!(views.rebuild("noted"));
    tokio::time::timeout(PATIENCE, rebuilds.changed()).await.unwrap().unwrap();
    let last = node.append_many(1).await;
    assert!(views.all_reached(last, PATIENCE).await);

    assert_eq!(views.halt(|_| true).map(|halt| halt.position), Some(poison));
    assert!(!views.caught_up(last, PATIENCE).await);
    views.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rebuild_swaps_a_whole_generation_in_and_removes_the_old_one() {
    let node = Node::new();
    let last = node.append_many(10).await;
    let views = node.open();
    assert!(views.all_caught_up(last, PATIENCE).await);
    let mut rebuilds = views.rebuilds();

    assert!(views.rebuild("noted"));
    assert!(!views.rebuild("nothing"));
    tokio::time::timeout(PATIENCE, rebuilds.changed()).await.unwrap().unwrap();
    let last = node.append_many(1).await;
    assert!(views.all_caught_up(last, PATIENCE).await);

    assert_eq!((count(&views, "noted"), count(&views, "everything")), (22, 11));
    assert_eq!(generations(&node.views_folder()), 1);
    views.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn read_models_that_are_ahead_of_a_log_put_back_from_a_backup_are_made_anew() {
    let mut node = Node::new();
    let last = node.append_many(5).await;
    let views = node.open();
    assert!(views.all_caught_up(last, PATIENCE).await);
    views.close().await;

    let backup = SqliteStore::open(&node.folder.path().join("old.db"), SqliteOptions::default());
    node.log = Arc::new(backup.unwrap());
    node.append("other-1", "other.happened.v1").await;
    let views = node.open();
    let last = node.append_many(2).await;
    assert!(views.all_caught_up(last, PATIENCE).await);

    assert_eq!((count(&views, "noted"), count(&views, "everything")), (4, 3));
    views.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_version_of_a_model_is_filled_anew_though_its_schema_is_the_same() {
    let node = Node::new();
    let last = node.append_many(3).await;
    let folder = node.views_folder();
    for version in [1, 2] {
        let models: Vec<Box<dyn ReadModel>> = vec![Box::new(Aged(version)), Box::new(Everything)];
        let views = Views::open_with(&folder, node.log.clone(), models).unwrap();
        assert!(views.all_caught_up(last, PATIENCE).await);
        let taken_in_by = views.read(|db| {
            let sql = "SELECT min(version), max(version), count(*) FROM aged";
            Ok(db.query_row(sql, [], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?)
        });
        assert_eq!(taken_in_by.unwrap(), (version, version, 3_u32));
        views.close().await;
    }
    assert_eq!(generations(&folder), 1, "the old generation is not left");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_earlier_build_or_a_crash_left_is_removed_at_the_start() {
    let node = Node::new();
    let last = node.append_many(2).await;
    let folder = node.views_folder();
    std::fs::create_dir_all(folder.join("views-0123456789abcdef-1.filling")).unwrap();
    std::fs::write(folder.join("views-0123456789abcdef-1.db"), "of an earlier build").unwrap();
    let views = node.open();
    assert!(views.all_caught_up(last, PATIENCE).await);

    assert_eq!(generations(&folder), 1);
    assert_eq!(count(&views, "everything"), 2);
    views.close().await;
}
