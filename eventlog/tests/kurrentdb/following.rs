//! Subscriptions that are cut, end without a word, or begin late: no gap, and nothing twice.

use std::sync::Arc;
use std::time::Duration;

use eventlog::conformance::{command_with, event};
use eventlog::{
    EventStore, Expected, KurrentdbOptions, KurrentdbStore, Position, RecordedEvent, Subscription,
};
use serde_json::json;

use kurrentdb_double::Double;

async fn open(double: &Double) -> Arc<dyn EventStore> {
    let options = KurrentdbOptions::default();
    Arc::new(KurrentdbStore::open(&double.url(), options).await.unwrap())
}

/// Another node appends commands of one to three events.
fn write(store: Arc<dyn EventStore>, commands: usize) -> tokio::task::JoinHandle<()> {
    tokio::spawn(async move {
        for n in 0..commands {
            let events = (0..=n % 3).map(|m| event(&json!({ "n": n, "m": m }))).collect();
            store.append(command_with(n % 4, Expected::Any, events)).await.unwrap();
        }
    })
}

/// What a reader sees that is woken by news alone, until it has seen `count`.
async fn follow(store: Arc<dyn EventStore>, count: usize) -> Vec<Arc<RecordedEvent>> {
    let mut subscription = Subscription::new(store, Position::START);
    let mut seen = Vec::new();
    while seen.len() < count {
        let next = tokio::time::timeout(Duration::from_secs(30), subscription.next(7)).await;
        // What fails for now is asked again, and goes on at the same place.
        if let Ok(events) = next.expect("news come") {
            seen.extend(events);
        }
    }
    seen
}

fn assert_same(seen: &[Arc<RecordedEvent>], double: &Double) {
    let stored = double.database.all();
    let stored = stored.iter().filter(|record| !record.event_type.starts_with('$'));
    let stored: Vec<_> = stored.map(|record| record.position).collect();
    let seen: Vec<_> = seen.iter().map(|event| event.position.0).collect();
    assert_eq!(seen, stored, "each event once, in order");
}

/// Appends commands of three events, each when the last has been seen by a reader that news alone
/// wake, until `is_enough`.
async fn write_and_follow(double: &Double, is_enough: impl Fn() -> bool) {
    let (reader, writer) = (open(double).await, open(double).await);
    let mut subscription = Subscription::new(reader, Position::START);
    let mut seen = Vec::new();
    while !is_enough() {
        let events = (0..3).map(|m| event(&json!({ "m": m }))).collect();
        writer.append(command_with(seen.len() % 4, Expected::Any, events)).await.unwrap();
        let count = seen.len() + 3;
        while seen.len() < count {
            let next = tokio::time::timeout(Duration::from_secs(60), subscription.next(2)).await;
            if let Ok(events) = next.expect("news come") {
                seen.extend(events);
            }
        }
    }
    assert_same(&seen, double);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subscription_that_is_cut_again_and_again_leaves_no_gap() {
    let double = Double::start().await;
    // In the middle of commands, too.
    double.switches.cuts.lock().extend([3, 1, 2, 5, 1, 8, 13, 2, 7, 1, 1, 10]);
    write_and_follow(&double, || double.switches.cuts.lock().is_empty()).await;
}

/// The client spins for ever here, if it is let.
#[tokio::test(flavor = "multi_thread")]
async fn a_subscription_that_ends_without_a_word_goes_on() {
    let double = Double::start().await;
    double.switches.quiet_ends.lock().extend([1, 2, 3, 1, 5, 1, 1]);
    write_and_follow(&double, || double.switches.quiet_ends.lock().is_empty()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_opens_a_long_log_sees_what_was_there_and_what_comes() {
    let double = Double::start().await;
    let writer = open(&double).await;
    write(writer.clone(), 60).await.unwrap();
    let reader = open(&double).await;
    let head = reader.head().await.unwrap();
    assert_eq!(*reader.watch().borrow(), head, "the news begin at the head");
    let follower = tokio::spawn(follow(reader, 240));

    write(writer, 60).await.unwrap();

    assert_same(&follower.await.unwrap(), &double);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_closed_store_follows_no_more() {
    let double = Double::start().await;
    let (reader, writer) = (open(&double).await, open(&double).await);
    write(writer.clone(), 1).await.unwrap();
    follow(reader.clone(), 1).await;
    reader.close().await;
    let news = reader.watch();

    write(writer.clone(), 3).await.unwrap();

    assert!(!news.has_changed().unwrap(), "nobody tells a closed store of news");
    let late = reader.append(command_with("late", Expected::Any, vec![event(&json!({}))])).await;
    assert!(late.is_err(), "a closed store takes nothing");
}
