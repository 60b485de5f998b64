//! A file of read models on a disk that is full: nothing is skipped, and nobody is stopped.

use eventlog::conformance::{command_with, event};
use eventlog::{EventStore, Expected, SqliteOptions, SqliteStore};
use serde_json::json;

use super::*;

/// Keeps the payload of every event, in a table of this name.
struct Payloads(&'static str, &'static str);

const SMALL: Payloads = Payloads("small", "CREATE TABLE small (position INTEGER, payload TEXT)");
const LARGE: Payloads = Payloads("large", "CREATE TABLE large (position INTEGER, payload TEXT)");

impl ReadModel for Payloads {
    fn name(&self) -> &'static str {
        self.0
    }

    fn version(&self) -> u32 {
        1
    }

    fn schema(&self) -> &'static str {
        self.1
    }

    fn categories(&self) -> &'static [&'static str] {
        &[]
    }

    fn apply(&self, db: &Writer<'_>, event: &RecordedEvent) -> Result<(), Error> {
        let times = if self.0 == "large" { 1_000 } else { 1 };
        let sql = format!("INSERT INTO {} VALUES (?1, ?2)", self.0);
        db.execute(&sql, params![event.position.0, event.data.get().repeat(times)])?;
        Ok(())
    }
}

fn rows(file: &File, table: &str) -> u64 {
    let sql = format!("SELECT count(*) FROM {table}");
    file.connection.query_row(&sql, [], |row| row.get(0)).unwrap()
}

#[tokio::test]
async fn a_batch_that_a_full_disk_refused_is_taken_in_whole_when_there_is_room() {
    let folder = tempfile::tempdir().unwrap();
    let log = SqliteStore::open(&folder.path().join("events.db"), SqliteOptions::default());
    let log = log.unwrap();
    let events = (0..3).map(|n| event(&json!({ "n": n, "text": "x".repeat(100) }))).collect();
    log.append(command_with(1, Expected::Any, events)).await.unwrap();
    let events = log.read_after(Position::START, 10).await.unwrap();

    let models: Models = Arc::new([Box::new(SMALL), Box::new(LARGE)]);
    let mut file =
        File::open(&folder.path().join("views.db"), &models, vec![0, 1], Mode::Serving).unwrap();
    let pages = |file: &File, count: u64| {
        let sql = format!("PRAGMA max_page_count = {count}");
        file.connection.query_row(&sql, [], |_| Ok(())).unwrap();
    };
    // Room for the rows of the first model alone.
    pages(&file, 1);
    let refused = file.apply(&events).unwrap_err();
    assert!(refused.is_passing(), "{refused:?}");
    assert_eq!(file.position(), Position::START);
    assert!(file.standings.iter().all(|standing| standing.stopped.is_none()));
    assert_eq!((rows(&file, "small"), rows(&file, "large")), (0, 0));

    pages(&file, 100_000);
    file.apply(&events).unwrap();
    assert_eq!(file.position(), Position(3));
    assert_eq!((rows(&file, "small"), rows(&file, "large")), (3, 3));
}
