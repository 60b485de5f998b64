//! Several nodes on one database.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

use eventlog::conformance::{command, command_with, event};
use eventlog::{
    AppendError, EventStore, Expected, Position, PostgresOptions, PostgresStore, Pulse,
    RecordedEvent, Subscription,
};
use serde_json::json;
use sqlx::{Connection, PgConnection};
use uuid::Uuid;

use crate::checks::{PATIENCE, Writers, check, everything};
use crate::cluster::Cluster;
use crate::{Database, open};

#[tokio::test(flavor = "multi_thread")]
async fn many_writers_on_several_nodes_against_readers_at_the_tail_lose_and_reorder_nothing() {
    let database = Database::new();
    let nodes = [database.open().await, database.open().await, database.open().await];
    let written_all = Arc::new(AtomicBool::new(false));
    let readers: Vec<_> =
        nodes.iter().map(|node| tokio::spawn(tail(node.clone(), written_all.clone()))).collect();

    // A large command takes long to write: it must not be overtaken in the readers' eyes.
    let slow = nodes[0].clone();
    let slow = tokio::spawn(async move {
        let text = "slow ".repeat(2_000);
        let mut positions = Vec::new();
        for n in 0..10 {
            let events = (0..20).map(|m| event(&json!({ "n": n, "m": m, "text": text }))).collect();
            let appended = slow.append(command_with("slow", Expected::Any, events)).await.unwrap();
            positions.push(appended.position());
        }
        positions
    });
    // Writers that contend for the same place of one stream, over the nodes.
    let racers: Vec<_> = (0..9)
        .map(|racer| {
            let node = nodes[racer % nodes.len()].clone();
            tokio::spawn(async move {
                let mut won = 0;
                let mut length = 0;
                while length < 60 {
                    let append = command("raced", Expected::Sequence(length));
                    match node.append(append).await {
                        Ok(appended) => {
                            assert_eq!(appended.sequence(), length + 1);
                            won += 1;
                            length += 1;
                        }
                        Err(AppendError::Conflict { expected, actual, .. }) => {
                            assert!(actual > expected, "who lost a race finds it longer");
                            length = actual;
                        }
                        Err(error) => panic!("{error}"),
                    }
                }
                won
            })
        })
        .collect();
    let free: Vec<_> = (0..12)
        .map(|writer| {
            let node = nodes[writer % nodes.len()].clone();
            tokio::spawn(async move {
                let mut committed = 0;
                for n in 0..40 {
                    let events = (0..=n % 3).map(|m| event(&json!({ "m": m }))).collect();
                    let append = command_with(format!("free{}", writer % 5), Expected::Any, events);
                    committed += node.append(append).await.unwrap().events.len();
                }
                committed
            })
        })
        .collect();

    let mut count = 20 * slow.await.unwrap().len();
    let mut won = 0;
    for racer in racers {
        won += racer.await.unwrap();
    }
    assert_eq!(won, 60, "each place of a stream is won once");
    count += won;
    for writer in free {
        count += writer.await.unwrap();
    }
    written_all.store(true, SeqCst);
    let all = everything(&*open(&database.url()).await).await;
    assert_eq!(all.len(), count);
    let mut lengths = HashMap::new();
    for (index, event) in all.iter().enumerate() {
        assert_eq!(event.position.0, index as u64 + 1, "positions are dense over all nodes");
        let length: &mut u64 = lengths.entry(&event.stream).or_default();
        *length += 1;
        assert_eq!(event.sequence, *length);
    }
    for reader in readers {
        let seen = reader.await.unwrap();
        let ids =
            |events: &[Arc<RecordedEvent>]| events.iter().map(|event| event.id).collect::<Vec<_>>();
        assert_eq!(ids(&seen), ids(&all), "what was committed is what was seen");
    }
}

/// Reads at the tail of one node without pause, until everything is written and read.
async fn tail(node: Arc<dyn EventStore>, written_all: Arc<AtomicBool>) -> Vec<Arc<RecordedEvent>> {
    let mut seen: Vec<Arc<RecordedEvent>> = Vec::new();
    loop {
        let is_last = written_all.load(SeqCst);
        let after = seen.last().map_or(Position::START, |event| event.position);
        let page = node.read_after(after, 50).await.unwrap();
        let has_all = seen.len() as u64 == node.head().await.unwrap().0;
        if is_last && page.is_empty() && has_all {
            return seen;
        }
        seen.extend(page);
        tokio::task::yield_now().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_that_two_nodes_are_sent_at_once_is_stored_once() {
    let database = Database::new();
    let nodes = [database.open().await, database.open().await];
    for round in 0..20 {
        let append = command(round, Expected::Sequence(0));
        let both = nodes.iter().map(|node| node.append(append.clone()));
        let answers = futures::future::join_all(both).await;
        let answers: Vec<_> = answers.into_iter().map(Result::unwrap).collect();
        assert_eq!(answers.iter().filter(|answer| !answer.replayed).count(), 1);
        assert_eq!(answers[0].position(), answers[1].position());
    }
    // What another node has stored, this one hears of in a moment.
    nodes[0].watch().wait_for(|head| *head >= Position(20)).await.unwrap();
    assert_eq!(everything(&*nodes[0]).await.len(), 20);
}

#[tokio::test(flavor = "multi_thread")]
async fn news_of_another_node_come_without_being_asked_for() {
    let database = Database::new();
    let (writer, reader) = (database.open().await, database.open().await);
    let mut subscription = Subscription::new(reader.clone(), Position::START);
    for n in 1..=20 {
        writer.append(command(n, Expected::Any)).await.unwrap();
        let next = tokio::time::timeout(PATIENCE, subscription.next(10)).await;
        assert_eq!(next.expect("news come").unwrap()[0].position, Position(n));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn news_come_again_after_the_listening_connection_was_cut() {
    let database = Database::new();
    let (writer, reader) = (database.open().await, database.open().await);
    let mut subscription = Subscription::new(reader.clone(), Position::START);
    for n in 1..=5 {
        let cut = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
                   WHERE datname = current_database() AND pid <> pg_backend_pid()";
        database.sql(cut);
        writer.append(command(n, Expected::Any)).await.unwrap();
        let next = tokio::time::timeout(PATIENCE, subscription.next(10)).await;
        assert_eq!(next.expect("news come").unwrap()[0].position, Position(n));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_reads_only_follows_and_refuses_appends() {
    let database = Database::new();
    let writer = database.open().await;
    let reader = eventlog::open(&database.url(), true).await.unwrap();
    let mut subscription = Subscription::new(reader.clone(), Position::START);

    writer.append(command("a", Expected::Any)).await.unwrap();

    let next = tokio::time::timeout(PATIENCE, subscription.next(10)).await;
    assert_eq!(next.expect("news come").unwrap().len(), 1);
    let refused = reader.append(command("a", Expected::Any)).await;
    assert!(matches!(refused, Err(AppendError::Store(eventlog::Error::ReadOnly))), "{refused:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_open_transaction_elsewhere_stalls_nobody() {
    let database = Database::new();
    let elsewhere = Database::new();
    let store = database.open().await;
    let (node, mut subscription) =
        (database.open().await, Subscription::new(store.clone(), Position::START));
    // One in another database and one in this one, each with a snapshot and a change of its own.
    let mut open = Vec::new();
    for url in [elsewhere.url(), database.url()] {
        let mut connection = PgConnection::connect(&url).await.unwrap();
        for sql in [
            "CREATE TABLE other (n int)",
            "BEGIN ISOLATION LEVEL REPEATABLE READ",
            "INSERT INTO other VALUES (1); NOTIFY other",
        ] {
            sqlx::raw_sql(sql).execute(&mut connection).await.unwrap();
        }
        open.push(connection);
    }

    let writers = Writers::start(&[store.clone(), node], 4);
    writers.progress(400).await;
    let acknowledged = writers.stop().await;
    let head = store.head().await.unwrap();
    while subscription.position() < head {
        tokio::time::timeout(PATIENCE, subscription.next(100))
            .await
            .expect("readers go on")
            .unwrap();
    }

    check(&everything(&*store).await, &acknowledged, None);
    for mut connection in open {
        sqlx::raw_sql("COMMIT").execute(&mut connection).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_that_start_at_once_make_the_tables_once() {
    let database = Database::new();
    let opening = (0..8).map(|_| database.open());

    let nodes = futures::future::join_all(opening).await;

    assert_eq!(database.sql("SELECT count(*) FROM event_log_schema"), "2");
    for node in &nodes {
        node.append(command("a", Expected::Any)).await.unwrap();
    }
    assert_eq!(nodes[3].head().await.unwrap(), Position(8));
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_hear_of_each_other_beside_the_log() {
    let database = Database::new();
    let nodes = [database.open().await, database.open().await];
    let (one, other) = (Uuid::from_u128(1), Uuid::from_u128(2));
    let hear = async || {
        let pulses = nodes[1].beat(other).await.unwrap().expect("others can have it open");
        pulses.into_iter().find(|pulse| pulse.worker == one)
    };
    let pulse = |beats, has_left| Some(Pulse { worker: one, beats, has_left });

    assert_eq!(hear().await, None);
    for beats in 1..=3 {
        nodes[0].beat(one).await.unwrap();
        assert_eq!(hear().await, pulse(beats, false));
    }
    assert_eq!(hear().await, pulse(3, false), "it stands still");
    nodes[0].leave(one).await.unwrap();
    assert_eq!(hear().await, pulse(3, true));
    nodes[0].beat(one).await.unwrap();
    assert_eq!(hear().await, pulse(4, false), "it is there after all");

    // A connection that was cut is made anew.
    database.sql(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
         WHERE datname = current_database() AND pid <> pg_backend_pid()",
    );
    assert!(nodes[1].beat(other).await.is_err());
    assert_eq!(hear().await, pulse(4, false));

    // Whoever was silent for longer than any lease is forgotten.
    database.sql("UPDATE event_log_worker SET heard_at = now() - interval '3 days'");
    hear().await;
    assert_eq!(hear().await, None);
    assert_eq!(nodes[0].head().await.unwrap(), Position::START, "nothing of it is in the log");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_of_the_first_schema_is_read_as_it_is_and_upgraded_by_whoever_writes() {
    let database = Database::new();
    database.open().await.close().await;
    database.sql("DROP TABLE event_log_worker");
    database.sql("DELETE FROM event_log_schema WHERE version = 2");

    let options = PostgresOptions { read_only: true, ..PostgresOptions::default() };
    let reader = PostgresStore::open(&database.url(), options).await.unwrap();
    assert_eq!(reader.head().await.unwrap(), Position::START);
    assert_eq!(reader.beat(Uuid::from_u128(1)).await.unwrap(), None);
    assert_eq!(database.sql("SELECT max(version) FROM event_log_schema"), "1");

    let writer = database.open().await;
    assert_eq!(database.sql("SELECT max(version) FROM event_log_schema"), "2");
    assert_eq!(writer.beat(Uuid::from_u128(1)).await.unwrap(), Some(vec![]));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_sent_before_a_stop_of_the_server_in_order_is_there_after_it() {
    let cluster = Cluster::start();
    let url = cluster.url(&cluster.database());
    let store = crate::open_impatient(&url).await;
    let writers = Writers::start(std::slice::from_ref(&store), 8);
    writers.progress(50).await;
    tokio::task::block_in_place(|| {
        cluster.stop();
        cluster.start_again();
    });
    writers.progress(50).await;
    let acknowledged = writers.stop().await;
    check(&everything(&*store).await, &acknowledged, Some(&acknowledged.iter().copied().collect()));
}
