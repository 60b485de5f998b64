//! Reading the log, or one stream of it, from any place on, however long it is.

use eventlog::conformance::{command_with, event};
use eventlog::{Append, Expected, SqliteOptions, SqliteStore};
use serde_json::json;
use tempfile::TempDir;

use super::*;

const STREAM: &str = "note-1";

/// A log with a stream of so many events, `piece` at a time, and an event of another stream behind each.
async fn log_of(pieces: usize, piece: usize) -> (TempDir, SqliteStore) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("events.db");
    let log = SqliteStore::open(&path, SqliteOptions::default()).unwrap();
    for _ in 0..pieces {
        append(&log, STREAM, piece).await;
        append(&log, "other-1", 1).await;
    }
    (folder, log)
}

async fn append(log: &SqliteStore, stream: &str, count: usize) {
    let events = vec![event(&json!({})); count];
    let mut append =
        Append { stream: StreamId::from(stream), ..command_with(1, Expected::Any, events) };
    Arc::make_mut(&mut append.metadata).organization = wanted().organization;
    log.append(append).await.unwrap();
}

fn wanted() -> Wanted {
    Wanted {
        organization: Uuid::nil(),
        product: None,
        event_type: None,
        stream: Some(STREAM.into()),
    }
}

/// The positions of the stream's events behind a position, in the pieces that they are read in.
async fn positions(log: &SqliteStore, after: u64) -> Vec<Vec<u64>> {
    let mut place = wanted().place(log, Position(after)).await.unwrap();
    let mut pieces = Vec::new();
    loop {
        let events = place.next(log).await.unwrap();
        if events.is_empty() {
            return pieces;
        }
        pieces.push(events.iter().map(|event| event.position.0).collect());
    }
}

#[tokio::test]
async fn a_stream_is_read_from_every_position_on() {
    let (_folder, log) = log_of(7, 3).await;
    let all: Vec<u64> = (1..=28).filter(|position| position % 4 != 0).collect();

    for after in 0..30 {
        let expected: Vec<u64> = all.iter().copied().filter(|at| *at > after).collect();
        assert_eq!(positions(&log, after).await.concat(), expected, "after {after}");
    }
}

#[tokio::test]
async fn a_long_stream_is_read_to_its_end() {
    let (_folder, log) = log_of(LOOKED_AT / BATCH + 1, BATCH).await;
    let last = (LOOKED_AT + BATCH + LOOKED_AT / BATCH) as u64;

    assert_eq!(positions(&log, last - 2).await, [[last - 1, last]]);
    assert_eq!(positions(&log, last - BATCH as u64).await.concat().len(), BATCH);
    let mut all = positions(&log, 0).await;
    assert_eq!((all.len(), all.pop().unwrap().pop()), (LOOKED_AT / BATCH + 1, Some(last)));
}

#[tokio::test]
async fn what_comes_is_read_where_it_was_left_off() {
    let (_folder, log) = log_of(1, 1).await;
    let mut place = wanted().place(&log, Position(1)).await.unwrap();
    assert!(place.next(&log).await.unwrap().is_empty());
    append(&log, STREAM, 1).await;

    let news = place.next(&log).await.unwrap();
    assert_eq!(news.iter().map(|event| event.sequence).collect::<Vec<_>>(), [2]);
}

/// The numbers of the stream's events in a page, of which the first is 1.
async fn page(log: &SqliteStore, number: u64, size: usize) -> Result<Vec<u64>, Problem> {
    let offset = (number - 1) * size as u64;
    let part = wanted().part(log, Position::START, offset, size).await?;
    Ok(part.items.iter().map(|event| event.sequence).collect())
}

#[tokio::test]
async fn a_page_beyond_what_is_counted_is_answered_too() {
    let (_folder, log) = log_of(14, BATCH).await;

    assert_eq!(page(&log, 1, 50).await.unwrap(), (1..=50).collect::<Vec<_>>());
    assert_eq!(page(&log, 201, 50).await.unwrap(), (10_001..=10_050).collect::<Vec<_>>());
    assert_eq!(page(&log, 279, 50).await.unwrap(), (13_901..=13_950).collect::<Vec<_>>());
    assert_eq!(page(&log, 281, 50).await.unwrap(), [0; 0], "there are no more");

    // The next part begins behind the last event of this one, and not where it was looked to.
    let part = wanted().part(&log, Position::START, 12_000, 50).await.unwrap();
    let next = wanted().part(&log, part.goes_on, 0, 1).await.unwrap();
    assert_eq!(next.items[0].sequence, 12_051);
}

#[tokio::test]
async fn a_page_too_deep_to_be_counted_to_is_refused_and_says_how_to_go_on() {
    let (_folder, log) = log_of(LOOKED_AT / BATCH + 1, BATCH).await;
    let last = LOOKED_AT as u64 / 200;

    assert_eq!(page(&log, last, 200).await.unwrap().len(), 200);
    let refused = page(&log, last + 1, 200).await.unwrap_err();
    assert_eq!(refused.code(), "page_too_deep");
    assert!(refused.to_string().contains("cursor"), "{refused}");
}
