//! The log on SQLite: the suite of every store, and what only a file can do.
#![expect(clippy::unwrap_used, reason = "tests say what they expect by failing")]

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use eventlog::conformance::{self, Harness, command};
use eventlog::{
    AppendError, Error, EventStore, Expected, Position, SqliteOptions, SqliteStore, StreamId,
    Subscription,
};
use rusqlite::Connection;
use tempfile::TempDir;

/// Each fresh store is a file of its own; the one test that made it opens it again.
struct Files {
    folder: TempDir,
}

impl Files {
    fn new() -> Self {
        Files { folder: TempDir::new().unwrap() }
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("events.db")
    }
}

#[async_trait::async_trait]
impl Harness for Files {
    async fn fresh(&self) -> Arc<dyn EventStore> {
        assert!(!self.path().exists(), "one fresh store for each test");
        Arc::new(SqliteStore::open(&self.path(), SqliteOptions::default()).unwrap())
    }

    async fn reopen(&self, store: Arc<dyn EventStore>) -> Arc<dyn EventStore> {
        store.close().await;
        drop(store);
        Arc::new(SqliteStore::open(&self.path(), SqliteOptions::default()).unwrap())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn positions_only_increase() {
    conformance::positions_only_increase(&Files::new()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn refused_commands_leave_no_gaps() {
    conformance::refused_commands_leave_no_gaps(&Files::new()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stale_expectation_is_refused() {
    conformance::a_stale_expectation_is_refused(&Files::new()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn any_is_accepted_wherever_the_stream_stands() {
    conformance::any_is_accepted_wherever_the_stream_stands(&Files::new()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_conflict_fails_its_own_command_only() {
    conformance::a_conflict_fails_its_own_command_only(&Files::new()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_of_many_writers_wins() {
    conformance::one_of_many_writers_wins(&Files::new()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_is_stored_whole() {
    conformance::a_command_is_stored_whole(&Files::new()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_envelope_holds_what_was_given() {
    conformance::the_envelope_holds_what_was_given(&Files::new()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn payloads_come_back_byte_for_byte() {
    conformance::payloads_come_back_byte_for_byte(&Files::new()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_malformed_append_is_refused() {
    conformance::a_malformed_append_is_refused(&Files::new()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn time_never_decreases() {
    conformance::time_never_decreases(&Files::new()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn reopening_keeps_everything() {
    conformance::reopening_keeps_everything(&Files::new()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn closing_stores_what_was_taken() {
    conformance::closing_stores_what_was_taken(&Files::new()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repeated_command_gets_its_first_result() {
    conformance::a_repeated_command_gets_its_first_result(&Files::new()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repeated_command_may_name_another_stream() {
    conformance::a_repeated_command_may_name_another_stream(&Files::new()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reused_command_id_is_refused() {
    conformance::a_reused_command_id_is_refused(&Files::new()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_repeated_at_once_is_stored_once() {
    conformance::a_command_repeated_at_once_is_stored_once(&Files::new()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_command_is_not_remembered() {
    conformance::a_refused_command_is_not_remembered(&Files::new()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stored_command_is_found() {
    conformance::a_stored_command_is_found(&Files::new()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_answered_can_be_read() {
    conformance::what_was_answered_can_be_read(&Files::new()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_holds_its_own_events() {
    conformance::a_stream_holds_its_own_events(&Files::new()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_stream_is_read_whole() {
    conformance::a_long_stream_is_read_whole(&Files::new()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_is_read_from_anywhere() {
    conformance::the_log_is_read_from_anywhere(&Files::new()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_writer_is_never_skipped() {
    conformance::a_slow_writer_is_never_skipped(&Files::new()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_committed_is_what_was_seen() {
    conformance::what_was_committed_is_what_was_seen(&Files::new()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_is_seen_whole() {
    conformance::a_command_is_seen_whole(&Files::new()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subscription_sees_everything() {
    conformance::a_subscription_sees_everything(&Files::new()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_time_is_one_position() {
    conformance::a_time_is_one_position(&Files::new()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_process_is_refused_and_told_what_to_do() {
    let files = Files::new();
    let store = files.fresh().await;

    let second = SqliteStore::open(&files.path(), SqliteOptions::default()).err().unwrap();

    assert!(matches!(&second, Error::Locked(_)), "{second:?}");
    assert!(second.to_string().contains("--data-dir"), "{second}");
    drop(store);
    SqliteStore::open(&files.path(), SqliteOptions::default())
        .expect("the lock ends with its holder");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_beside_the_server_follows_it() {
    let files = Files::new();
    let store = files.fresh().await;
    store.append(command("a", Expected::Any)).await.unwrap();
    let options = SqliteOptions { read_only: true, ..SqliteOptions::default() };
    let reader: Arc<dyn EventStore> = Arc::new(SqliteStore::open(&files.path(), options).unwrap());
    let mut subscription = Subscription::new(reader.clone(), Position::START);
    assert_eq!(subscription.next(10).await.unwrap().len(), 1);

    store.append(command("a", Expected::Any)).await.unwrap();

    let next = tokio::time::timeout(Duration::from_secs(10), subscription.next(10)).await;
    assert_eq!(next.unwrap().unwrap()[0].position, Position(2));
    assert_eq!(reader.head().await.unwrap(), Position(2));
    let refused = reader.append(command("a", Expected::Any)).await;
    assert!(matches!(refused, Err(AppendError::Store(Error::ReadOnly))), "{refused:?}");
}

#[tokio::test]
async fn a_log_that_is_not_there_is_not_made_by_reading_it() {
    let files = Files::new();
    let options = SqliteOptions { read_only: true, ..SqliteOptions::default() };

    let missing = SqliteStore::open(&files.path(), options).err().unwrap();

    assert!(matches!(missing, Error::Missing(_)), "{missing:?}");
    assert!(!files.path().exists());
}

#[tokio::test]
async fn a_log_of_a_newer_version_is_left_alone() {
    let files = Files::new();
    files.fresh().await.close().await;
    Connection::open(files.path()).unwrap().pragma_update(None, "user_version", 99).unwrap();
    let before = std::fs::read(files.path()).unwrap();

    for read_only in [false, true] {
        let options = SqliteOptions { read_only, ..SqliteOptions::default() };
        let newer = SqliteStore::open(&files.path(), options).err().unwrap();
        assert!(matches!(newer, Error::Newer { found: 99, known: 1 }), "{newer:?}");
        assert!(newer.to_string().contains("upgrade"), "{newer}");
    }
    assert_eq!(std::fs::read(files.path()).unwrap(), before);
}

#[tokio::test]
async fn a_file_that_is_no_log_is_refused() {
    let files = Files::new();
    std::fs::write(files.path(), "this is no database, ".repeat(100)).unwrap();

    let refused = SqliteStore::open(&files.path(), SqliteOptions::default()).err().unwrap();

    assert!(matches!(refused, Error::Sqlite(_)), "{refused:?}");
}

#[tokio::test]
async fn events_are_never_changed_nor_deleted_even_by_hand() {
    let files = Files::new();
    let store = files.fresh().await;
    store.append(command("a", Expected::Any)).await.unwrap();
    let by_hand = Connection::open(files.path()).unwrap();

    for statement in [
        "UPDATE events SET envelope = '{}'",
        "DELETE FROM events",
        "UPDATE events SET position = 7",
    ] {
        let refused = by_hand.execute(statement, []).unwrap_err();
        assert!(refused.to_string().contains("append-only"), "{refused}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn another_program_that_locks_the_file_is_named_and_waited_out() {
    let files = Files::new();
    let options =
        SqliteOptions { busy_timeout: Duration::from_millis(100), ..SqliteOptions::default() };
    let store = SqliteStore::open(&files.path(), options).unwrap();
    store.append(command("a", Expected::Sequence(0))).await.unwrap();
    let shell = Connection::open(files.path()).unwrap();
    shell.execute_batch("BEGIN IMMEDIATE").unwrap();

    let append = command("a", Expected::Sequence(1));
    let busy = store.append(append.clone()).await.unwrap_err();
    assert!(matches!(busy, AppendError::Store(Error::Busy)), "{busy:?}");
    assert!(busy.to_string().contains("SQLite shell"), "{busy}");
    assert_eq!(store.read_after(Position::START, 10).await.unwrap().len(), 1, "reading goes on");

    shell.execute_batch("ROLLBACK").unwrap();
    let appended = store.append(append).await.unwrap();
    assert!(!appended.replayed);
    assert_eq!(appended.position(), Position(2));
}

#[tokio::test(flavor = "multi_thread")]
async fn events_that_another_program_slipped_in_are_found_out() {
    let files = Files::new();
    let store = files.fresh().await;
    store.append(command("a", Expected::Sequence(0))).await.unwrap();
    let by_hand = Connection::open(files.path()).unwrap();
    by_hand
        .execute_batch(
            "INSERT INTO events SELECT 2, stream, 2, NULL, replace(replace(envelope,
             '\"position\":1', '\"position\":2'), '\"sequence\":1', '\"sequence\":2') FROM events",
        )
        .unwrap();

    // The place it would take is taken: whatever the answer is, nothing is overwritten …
    let stale = store.append(command("a", Expected::Sequence(1))).await;
    assert!(stale.is_err(), "{stale:?}");
    // … and the store learns where the log stands.
    let mut appended = store.append(command("b", Expected::Sequence(0))).await;
    if appended.is_err() {
        appended = store.append(command("b", Expected::Sequence(0))).await;
    }
    assert_eq!(appended.unwrap().position(), Position(3));
}

#[tokio::test]
async fn a_clock_that_was_set_back_orders_nothing_anew() {
    let files = Files::new();
    let store = files.fresh().await;
    store.append(command("a", Expected::Any)).await.unwrap();
    store.close().await;
    drop(store);
    // An event that was committed when the clock stood in the future.
    let by_hand = Connection::open(files.path()).unwrap();
    let statement =
        "INSERT INTO events SELECT 2, stream, 2, NULL, json_set(envelope, '$.position', 2,
                     '$.sequence', 2, '$.time', '2199-01-01T00:00:00.000000Z') FROM events";
    by_hand.execute(statement, []).unwrap();

    let store = SqliteStore::open(&files.path(), SqliteOptions::default()).unwrap();
    let appended = store.append(command("a", Expected::Any)).await.unwrap();

    assert_eq!(appended.events[0].time.to_rfc3339(), "2199-01-01T00:00:00+00:00");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_far_behind_the_tail_catches_up_from_the_file() {
    let files = Files::new();
    let store = files.fresh().await;
    // More than the tail holds.
    for _ in 0..100 {
        let events = (0..100).map(|n| conformance::event(&serde_json::json!({ "n": n }))).collect();
        store.append(conformance::command_with("a", Expected::Any, events)).await.unwrap();
    }

    let mut seen = Vec::new();
    while seen.len() < 10_000 {
        let after = seen.last().copied().unwrap_or(Position::START);
        let page = store.read_after(after, 777).await.unwrap();
        assert!(!page.is_empty());
        seen.extend(page.iter().map(|event| event.position));
    }

    assert!(seen.iter().enumerate().all(|(index, position)| position.0 == index as u64 + 1));
    let stream = store.read_stream(&StreamId::new("thing", "a"), 9_990, 100).await.unwrap();
    assert_eq!(stream.len(), 10);
}

#[tokio::test]
async fn a_damaged_envelope_is_named_by_its_position() {
    let files = Files::new();
    let store = files.fresh().await;
    store.append(command("a", Expected::Any)).await.unwrap();
    store.append(command("a", Expected::Any)).await.unwrap();
    store.close().await;
    drop(store);
    damage(&files.path());

    let store = SqliteStore::open(&files.path(), SqliteOptions::default()).unwrap();
    let error = store.read_after(Position::START, 10).await.unwrap_err();

    assert!(matches!(error, Error::Corrupt { position: 1, .. }), "{error:?}");
}

/// Breaks the first envelope behind SQLite's back: the triggers let nobody do it in front.
fn damage(path: &Path) {
    let mut bytes = std::fs::read(path).unwrap();
    let needle = b"{\"actor\"";
    let places: Vec<_> =
        (0..bytes.len() - needle.len()).filter(|at| bytes[*at..].starts_with(needle)).collect();
    // Cells are filled from the end of a page: the last place is the first event.
    let first = *places.last().unwrap();
    bytes[first] = b'#';
    std::fs::write(path, bytes).unwrap();
}
