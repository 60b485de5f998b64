//! What readers see: everything that was committed, once, in order, and nothing else.
//!
//! The rule of this file: readers rely on nothing but increasing positions, and never a smaller
//! one later.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::Duration;

use serde_json::json;

use super::*;
use crate::Subscription;

/// What was answered can be read, at once and by every means.
pub async fn what_was_answered_can_be_read(harness: &dyn Harness) {
    let store = harness.fresh().await;
    let writers = (0..8).map(|writer| {
        let store = store.clone();
        tokio::spawn(async move {
            for _ in 0..25 {
                let appended = accepted(&*store, command(writer, Expected::Any)).await;
                let last = appended.events.last().expect("an append has events");
                let head = store.head().await.expect("the head can be read");
                assert!(head >= last.position, "the head has reached what was answered");
                assert!(*store.watch().borrow() >= last.position, "so has the news of it");
                let before = Position(last.position.0 - 1);
                let next = store.read_after(before, 1).await.expect("the log can be read");
                assert_same(&next, std::slice::from_ref(last));
                let stream = store
                    .read_stream(&last.stream, last.sequence - 1, 10)
                    .await
                    .expect("a stream can be read");
                assert_same(&stream, std::slice::from_ref(last));
            }
        })
    });
    for writer in writers.collect::<Vec<_>>() {
        writer.await.expect("what was answered can be read");
    }
}

/// A stream is read by sequence, holds no other stream's events, and is read from anywhere.
pub async fn a_stream_holds_its_own_events(harness: &dyn Harness) {
    let mut store = harness.fresh().await;
    // Names that are the beginning of each other, or look like patterns.
    let names = ["1", "10", "1%", "_", "1-1", "É", "e\u{301}"];
    for n in 0..300_u64 {
        let name = names[n as usize % names.len()];
        let append =
            command_with(name, Expected::Any, vec![event(&json!({ "name": name, "n": n }))]);
        accepted(&*store, append).await;
    }
    for _ in 0..2 {
        let all = everything(&*store).await;
        for name in names {
            let stream = StreamId::new("thing", name);
            let own: Vec<_> = all.iter().filter(|event| event.stream == stream).cloned().collect();
            assert!(
                own.iter().enumerate().all(|(index, event)| event.sequence == index as u64 + 1)
            );
            for (after, limit) in [(0, 1000), (0, 1), (0, 0), (5, 10), (40, 1000), (1000, 10)] {
                let read =
                    store.read_stream(&stream, after, limit).await.expect("a stream can be read");
                let expected: Vec<_> =
                    own.iter().skip(after as usize).take(limit).cloned().collect();
                assert_same(&read, &expected);
            }
        }
        let unknown = StreamId::new("thing", "11");
        assert!(store.read_stream(&unknown, 0, 10).await.expect("an empty stream").is_empty());
        store = harness.reopen(store).await;
    }
}

/// A long stream is read whole, and from any place.
pub async fn a_long_stream_is_read_whole(harness: &dyn Harness) {
    let store = harness.fresh().await;
    for _ in 0..10 {
        let events = (0..100).map(|n| event(&json!({ "n": n }))).collect();
        accepted(&*store, command_with("long", Expected::Any, events)).await;
    }
    let all = everything(&*store).await;
    let stream = StreamId::new("thing", "long");
    for (after, limit) in [(0, usize::MAX), (0, 64), (0, 65), (63, 64), (936, 64), (990, 500)] {
        let read = store.read_stream(&stream, after, limit).await.expect("a stream can be read");
        let expected: Vec<_> = all.iter().skip(after as usize).take(limit).cloned().collect();
        assert_same(&read, &expected);
    }
}

/// The log is read from any position, and from those that no event has.
pub async fn the_log_is_read_from_anywhere(harness: &dyn Harness) {
    let mut store = harness.fresh().await;
    assert_eq!(store.head().await.expect("the head can be read"), Position::START);
    assert!(everything(&*store).await.is_empty(), "a fresh log is empty");
    for n in 0..40 {
        accepted(&*store, command(n % 3, Expected::Any)).await;
    }
    let all = everything(&*store).await;
    for _ in 0..2 {
        for (index, event) in all.iter().enumerate() {
            let read = store.read_after(event.position, 7).await.expect("the log can be read");
            let expected: Vec<_> = all[index + 1..].iter().take(7).cloned().collect();
            assert_same(&read, &expected);
        }
        let beyond = Position(all[39].position.0 + 1000);
        assert!(store.read_after(beyond, 10).await.expect("beyond the head").is_empty());
        assert!(
            store.read_after(Position((1 << 53) - 1), 10).await.expect("far beyond").is_empty()
        );
        assert!(store.read_after(Position::START, 0).await.expect("no events").is_empty());
        store = harness.reopen(store).await;
    }
}

/// A slow writer is never skipped: whatever a reader at the tail has seen, nothing with a smaller
/// position comes later. Large commands, which take long to write, run beside small ones.
pub async fn a_slow_writer_is_never_skipped(harness: &dyn Harness) {
    let store = harness.fresh().await;
    let written_all = Arc::new(AtomicBool::new(false));
    let reader = tokio::spawn(tail(store.clone(), written_all.clone(), usize::MAX));
    let slow = {
        let store = store.clone();
        tokio::spawn(async move {
            let text = "slow ".repeat(2_000);
            for n in 0..15 {
                let events =
                    (0..20).map(|m| event(&json!({ "n": n, "m": m, "text": text }))).collect();
                accepted(&*store, command_with("slow", Expected::Any, events)).await;
            }
        })
    };
    let quick = (0..4).map(|writer| {
        let store = store.clone();
        tokio::spawn(async move {
            for _ in 0..50 {
                accepted(&*store, command(writer, Expected::Any)).await;
            }
        })
    });
    for writer in quick.chain([slow]).collect::<Vec<_>>() {
        writer.await.expect("appending does not fail");
    }
    written_all.store(true, SeqCst);
    let seen = reader.await.expect("the reader does not fail");
    assert_eq!(seen.len(), 15 * 20 + 4 * 50, "the reader at the tail saw every event");
    assert_same(&seen, &everything(&*store).await);
}

/// Many writers against readers at the tail: what was committed is what was seen, in order, once.
pub async fn what_was_committed_is_what_was_seen(harness: &dyn Harness) {
    let store = harness.fresh().await;
    let written_all = Arc::new(AtomicBool::new(false));
    let readers: Vec<_> = [1, 3, 1000]
        .map(|limit| tokio::spawn(tail(store.clone(), written_all.clone(), limit)))
        .into_iter()
        .collect();
    let writers = (0..12).map(|writer: usize| {
        let store = store.clone();
        tokio::spawn(async move {
            let mut committed = Vec::new();
            for n in 0..25 {
                let events = (0..=(n + writer) % 3).map(|m| event(&json!({ "m": m }))).collect();
                // Some on a stream of their own, some on one that they share.
                let stream = if n % 2 == 0 { format!("own{writer}") } else { "shared".into() };
                let appended = accepted(&*store, command_with(stream, Expected::Any, events)).await;
                committed.extend(appended.events);
            }
            committed
        })
    });
    let mut committed = Vec::new();
    for writer in writers.collect::<Vec<_>>() {
        committed.extend(writer.await.expect("appending does not fail"));
    }
    written_all.store(true, SeqCst);
    committed.sort_by_key(|event| event.position);
    assert_in_order(&committed, store.capabilities());
    for reader in readers {
        assert_same(&reader.await.expect("a reader does not fail"), &committed);
    }
    let mut lengths = HashMap::new();
    for event in &committed {
        let length: &mut u64 = lengths.entry(&event.stream).or_default();
        *length += 1;
        assert_eq!(event.sequence, *length, "within a stream, sequences follow the log's order");
    }
}

/// A reader never sees a part of a command.
pub async fn a_command_is_seen_whole(harness: &dyn Harness) {
    let store = harness.fresh().await;
    let writer = {
        let store = store.clone();
        tokio::spawn(async move {
            for n in 0..60 {
                let events = (0..10).map(|m| event(&json!({ "m": m }))).collect();
                accepted(&*store, command_with(n % 4, Expected::Any, events)).await;
            }
        })
    };
    let mut reached = Position::START;
    let mut events = 0;
    while events < 600 {
        let page = store.read_after(reached, usize::MAX).await.expect("the log can be read");
        assert_eq!(page.len() % 10, 0, "whole commands only");
        events += page.len();
        reached = page.last().map_or(reached, |event| event.position);
        // Reading is not waiting: let the writer on, where both share a thread.
        tokio::task::yield_now().await;
    }
    writer.await.expect("appending does not fail");
}

/// Who follows the log by its news, sees everything and never waits for what is there.
pub async fn a_subscription_sees_everything(harness: &dyn Harness) {
    let store = harness.fresh().await;
    accepted(&*store, command("before", Expected::Any)).await;
    let mut subscription = Subscription::new(store.clone(), Position::START);
    let follower = tokio::spawn(async move {
        let mut seen = Vec::new();
        while seen.len() < 201 {
            let next = tokio::time::timeout(Duration::from_secs(20), subscription.next(7));
            let events = next.await.expect("news come").expect("the log can be read");
            assert!((1..=7).contains(&events.len()), "at least one event, at most the limit");
            seen.extend(events);
            assert_eq!(Some(subscription.position()), seen.last().map(|event| event.position));
        }
        seen
    });
    for n in 0..50 {
        // One by one and in bursts: the follower sometimes sleeps and sometimes lags.
        let burst = (0..4).map(|m| {
            let store = store.clone();
            async move { accepted(&*store, command(m, Expected::Any)).await }
        });
        if n % 2 == 0 {
            futures::future::join_all(burst).await;
        } else {
            for append in burst {
                append.await;
                tokio::task::yield_now().await;
            }
        }
    }
    assert_same(&follower.await.expect("following does not fail"), &everything(&*store).await);
}

/// A time is one position: the last event that was committed at or before it.
pub async fn a_time_is_one_position(harness: &dyn Harness) {
    let mut store = harness.fresh().await;
    let long_ago = chrono::DateTime::UNIX_EPOCH;
    let position = |store: Arc<dyn EventStore>, time| async move {
        store.position_at(time).await.expect("times can be looked up")
    };
    assert_eq!(position(store.clone(), chrono::Utc::now()).await, Position::START);
    for n in 0..60 {
        accepted(&*store, command(n % 3, Expected::Any)).await;
        if n % 10 == 0 {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }
    let microsecond = chrono::Duration::microseconds(1);
    for _ in 0..2 {
        let all = everything(&*store).await;
        let last_at = |time| {
            let before = all.iter().take_while(|event| event.time <= time);
            before.last().map_or(Position::START, |event| event.position)
        };
        for event in &all {
            for time in [event.time - microsecond, event.time, event.time + microsecond] {
                assert_eq!(position(store.clone(), time).await, last_at(time), "at {time}");
            }
        }
        assert_eq!(position(store.clone(), long_ago).await, Position::START);
        let later = chrono::Utc::now() + chrono::Duration::days(1);
        assert_eq!(position(store.clone(), later).await, all[59].position);
        store = harness.reopen(store).await;
    }
}

/// Reads without pause until everything is written and read; a few events at a time.
async fn tail(
    store: Arc<dyn EventStore>,
    written_all: Arc<AtomicBool>,
    limit: usize,
) -> Vec<Arc<RecordedEvent>> {
    let mut seen: Vec<Arc<RecordedEvent>> = Vec::new();
    let mut ids = HashSet::new();
    loop {
        // Before the read: an empty page after this is the end.
        let is_last = written_all.load(SeqCst);
        let after = seen.last().map_or(Position::START, |event| event.position);
        let page = store.read_after(after, limit).await.expect("the log can be read");
        assert!(page.iter().all(|event| ids.insert(event.id)), "an event is seen once");
        if page.is_empty() && is_last {
            return seen;
        }
        seen.extend(page);
        tokio::task::yield_now().await;
    }
}
