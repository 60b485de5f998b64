//! A log that is filled with another one's events is that log: on SQLite, and on a real PostgreSQL.
//!
//! The rule of these tests: what is true of one target is asked of the other.
#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, reason = "tests say what they expect by failing")]

#[path = "../../tests/postgres/cluster.rs"]
mod cluster;

use std::sync::Arc;

use eventlog::conformance::{command, command_with, event};
use eventlog::{
    Append, EventStore, Expected, ImportError, Position, RecordedEvent, Subscription, open,
    open_importer,
};
use serde_json::json;
use tempfile::TempDir;

use cluster::Cluster;

/// An empty log of each kind that can be filled.
fn targets(folder: &TempDir) -> [String; 2] {
    let cluster = Cluster::shared();
    let file = folder.path().join("target.db");
    [format!("sqlite:{}", file.display()), cluster.url(&cluster.database())]
}

/// Three streams that grew in turn, by commands of one to three events; and the commands.
async fn source(folder: &TempDir) -> (Vec<Append>, Vec<RecordedEvent>) {
    let address = format!("sqlite:{}", folder.path().join("source.db").display());
    let log = open(&address, false).await.unwrap();
    let mut commands = Vec::new();
    for round in 0..20 {
        for stream in ["a", "b", "c"] {
            let events = (0..1 + round % 3).map(|n| event(&json!({ "round": round, "n": n })));
            commands.push(command_with(stream, Expected::Any, events.collect()));
            log.append(commands.last().unwrap().clone()).await.unwrap();
        }
    }
    let events = everything(log.as_ref()).await;
    log.close().await;
    (commands, events)
}

async fn everything(log: &dyn EventStore) -> Vec<RecordedEvent> {
    let events = log.read_after(Position::START, 10_000).await.unwrap();
    events.into_iter().map(Arc::unwrap_or_clone).collect()
}

fn bytes(events: &[RecordedEvent]) -> Vec<String> {
    events.iter().map(RecordedEvent::to_canonical).collect()
}

async fn fill(address: &str, events: &[RecordedEvent], at_once: usize) {
    for batch in events.chunks(at_once) {
        // Opened anew each time, as after a crash.
        let mut importer = open_importer(address).await.unwrap();
        importer.write(batch).await.unwrap();
        assert_eq!(importer.head(), batch.last().unwrap().position);
    }
}

fn refused(outcome: Result<(), ImportError>) -> String {
    match outcome {
        Err(ImportError::Refused(why)) => why,
        other => panic!("this should be refused, but: {other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_filled_log_is_the_log_that_it_was_filled_from() {
    let folder = TempDir::new().unwrap();
    let (commands, events) = source(&folder).await;
    for address in targets(&folder) {
        // Batches that cut commands apart.
        fill(&address, &events, 7).await;

        let log = open(&address, false).await.unwrap();
        assert_eq!(bytes(&everything(log.as_ref()).await), bytes(&events), "{address}");
        for command in &commands {
            let found = log.find_command(&command.stream, command.command_id).await.unwrap();
            assert_eq!(found.unwrap().events.len(), command.events.len(), "{address}");
            assert!(log.append(command.clone()).await.unwrap().replayed, "{address}");
        }
        let stream = log.read_stream(&"thing-b".into(), 0, 1_000).await.unwrap();
        assert!(stream.iter().map(|event| event.sequence).eq(1..=stream.len() as u64));
        let length = Expected::Sequence(stream.len() as u64);
        let next = log.append(command("b", length)).await.unwrap();
        assert_eq!(next.position().0, events.len() as u64 + 1, "{address}");
        assert!(next.events[0].time >= events.last().unwrap().time);
        log.close().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn positions_may_have_gaps_and_go_on_without() {
    let folder = TempDir::new().unwrap();
    let (_, mut events) = source(&folder).await;
    for event in &mut events {
        event.position = Position(event.position.0 * 1_000_003);
    }
    for address in targets(&folder) {
        fill(&address, &events, 50).await;

        let log = open(&address, false).await.unwrap();
        let mut following = Subscription::new(log.clone(), Position::START);
        let last = events.last().unwrap().position;
        for n in 1..=3 {
            let appended = log.append(command(format!("new-{n}"), Expected::Any)).await.unwrap();
            assert_eq!(appended.position().0, last.0 + n, "{address}");
        }
        let mut seen = Vec::new();
        while seen.len() < events.len() + 3 {
            seen.extend(following.next(100).await.unwrap().iter().map(|event| event.position));
        }
        assert!(seen.is_sorted());
        let time = events[30].time;
        let at = log.position_at(time).await.unwrap();
        assert!(at >= events[30].position && at < Position(last.0 + 1), "{address}: {at}");
        log.close().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_fit_is_refused_and_nothing_of_its_batch_is_stored() {
    let folder = TempDir::new().unwrap();
    let (_, events) = source(&folder).await;
    for address in targets(&folder) {
        fill(&address, &events[..10], 10).await;
        let mut importer = open_importer(&address).await.unwrap();

        let backwards = [events[10].clone(), events[9].clone()];
        assert!(refused(importer.write(&backwards).await).contains("positions increase"));
        // A place in its stream, and a command, that are taken.
        for taken in [0, 5] {
            let mut again = events[taken].clone();
            again.position = Position(500);
            if taken == 5 {
                again.stream = "thing-other".into();
            }
            let batch = [events[10].clone(), again];
            let why = refused(importer.write(&batch).await);
            assert!(why.contains("is taken already"), "{address}: {why}");
        }

        importer.write(&events[10..]).await.unwrap();
        drop(importer);
        let log = open(&address, true).await.unwrap();
        assert_eq!(bytes(&everything(log.as_ref()).await), bytes(&events), "{address}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_somebody_else_writes_is_not_filled() {
    let folder = TempDir::new().unwrap();
    let (_, events) = source(&folder).await;
    let [file, server] = targets(&folder);

    let log = open(&file, false).await.unwrap();
    let locked = open_importer(&file).await.err().unwrap().to_string();
    assert!(locked.contains("in use by another prodgy"), "{locked}");
    log.close().await;

    let mut importer = open_importer(&server).await.unwrap();
    importer.write(&events[..10]).await.unwrap();
    let log = open(&server, false).await.unwrap();
    log.append(command("new", Expected::Any)).await.unwrap();
    let why = refused(importer.write(&events[10..]).await);
    assert!(why.contains("something else writes this event log"), "{why}");
    assert_eq!(log.head().await.unwrap(), Position(11));
    log.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_gives_positions_itself_is_not_filled() {
    let why = open_importer("kurrentdb://localhost:2113?tls=false").await.err().unwrap();
    assert!(matches!(why, ImportError::Refused(_)), "{why}");
    assert!(why.to_string().contains("SQLite or PostgreSQL"), "{why}");
}
