//! The copier of write-ahead logs.

use std::time::{Duration, Instant};

use super::*;

/// How many pages of a database are in the file itself.
fn pages_in(path: &Path) -> u64 {
    std::fs::metadata(path).unwrap().len() / 4096
}

#[test]
fn what_was_committed_is_copied_without_the_one_who_commits() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("views.db");
    let writer = Connection::open(&path).unwrap();
    writer
        .execute_batch(
            "PRAGMA journal_mode = wal; PRAGMA wal_autocheckpoint = 0; CREATE TABLE t (text TEXT);",
        )
        .unwrap();
    let mut checkpointer = Checkpointer::start(&path, "test").unwrap();
    for _ in 0..EVENTS - 1 {
        writer.execute("INSERT INTO t VALUES (hex(randomblob(1000)))", []).unwrap();
        checkpointer.count(1);
    }
    assert!(pages_in(&path) < 10, "not yet");
    writer.execute("INSERT INTO t VALUES (hex(randomblob(1000)))", []).unwrap();
    checkpointer.count(1);
    let given_up = Instant::now() + Duration::from_secs(20);
    while pages_in(&path) < 100 && Instant::now() < given_up {
        std::thread::sleep(Duration::from_millis(5));
    }
    assert!(pages_in(&path) >= 100, "{} pages", pages_in(&path));

    drop(checkpointer);
    drop(writer);
    let left: Vec<_> = std::fs::read_dir(folder.path()).unwrap().map(|it| it.unwrap()).collect();
    assert_eq!(left.len(), 1, "nobody has it open, so it has no log: {left:?}");
}
