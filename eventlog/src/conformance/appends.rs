//! What is accepted, what is refused, and what is kept.
//!
//! The rule of this file: everything is seen through the store's interface alone.

use std::time::Duration;

use chrono::Utc;
use serde_json::json;

use super::*;
use crate::{AppendError, event_id};

/// Positions strictly increase in the order in which appends were answered.
pub async fn positions_only_increase(harness: &dyn Harness) {
    let store = harness.fresh().await;
    let mut last = Position::START;
    for n in 0..50 {
        let appended = accepted(&*store, command(n % 7, Expected::Any)).await;
        assert!(appended.position() > last, "a later append has a larger position");
        last = appended.position();
    }
    assert_eq!(store.head().await.expect("the head can be read"), last);
    let all = everything(&*store).await;
    assert_eq!(all.len(), 50);
    assert_in_order(&all, store.capabilities());
}

/// Where positions are dense, refused and repeated commands leave no holes.
pub async fn refused_commands_leave_no_gaps(harness: &dyn Harness) {
    let store = harness.fresh().await;
    for n in 0..20 {
        let new = command(n, Expected::Sequence(0));
        accepted(&*store, new.clone()).await;
        accepted(&*store, new).await;
        conflicting(&*store, command(n, Expected::Sequence(0))).await;
        conflicting(&*store, command(n, Expected::Sequence(9))).await;
    }
    let all = everything(&*store).await;
    assert_eq!(all.len(), 20);
    assert_in_order(&all, store.capabilities());
}

/// An append that expects another length of its stream is refused, and stores nothing.
pub async fn a_stale_expectation_is_refused(harness: &dyn Harness) {
    let store = harness.fresh().await;
    assert_eq!(conflicting(&*store, command("a", Expected::Sequence(1))).await, 0);
    accepted(&*store, command("a", Expected::Sequence(0))).await;
    assert_eq!(conflicting(&*store, command("a", Expected::Sequence(0))).await, 1);
    assert_eq!(conflicting(&*store, command("a", Expected::Sequence(2))).await, 1);
    accepted(&*store, command("a", Expected::Sequence(1))).await;

    // The same of a stream that the store must look up, because it was not the one that wrote it.
    let store = harness.reopen(store).await;
    assert_eq!(conflicting(&*store, command("a", Expected::Sequence(0))).await, 2);
    assert_eq!(conflicting(&*store, command("a", Expected::Sequence(3))).await, 2);
    accepted(&*store, command("a", Expected::Sequence(2))).await;
    assert_eq!(everything(&*store).await.len(), 3);
}

/// Whoever expects nothing is accepted wherever the stream stands.
pub async fn any_is_accepted_wherever_the_stream_stands(harness: &dyn Harness) {
    let store = harness.fresh().await;
    for sequence in 1..=3 {
        assert_eq!(accepted(&*store, command("a", Expected::Any)).await.sequence(), sequence);
    }
    let store = harness.reopen(store).await;
    assert_eq!(accepted(&*store, command("a", Expected::Any)).await.sequence(), 4);
    assert_eq!(accepted(&*store, command("b", Expected::Any)).await.sequence(), 1);
}

/// A conflict in the same group as others fails nobody but its own command.
pub async fn a_conflict_fails_its_own_command_only(harness: &dyn Harness) {
    let store = harness.fresh().await;
    accepted(&*store, command("taken", Expected::Sequence(0))).await;
    let appends = (0..40).map(|n| {
        let store = store.clone();
        tokio::spawn(async move {
            let stream = if n % 4 == 0 { "taken".into() } else { format!("new{n}") };
            (n, store.append(command(stream, Expected::Sequence(0))).await)
        })
    });
    for task in appends.collect::<Vec<_>>() {
        let (n, outcome) = task.await.expect("appending does not panic");
        match outcome {
            Ok(_) => assert!(n % 4 != 0, "{n} had to conflict"),
            Err(AppendError::Conflict { .. }) => assert!(n % 4 == 0, "{n} had to be accepted"),
            Err(error) => panic!("{n} failed: {error}"),
        }
    }
}

/// Of many who append to one place of a stream, one succeeds.
pub async fn one_of_many_writers_wins(harness: &dyn Harness) {
    let store = harness.fresh().await;
    for round in 0..10 {
        let writers = (0..16).map(|_| {
            let store = store.clone();
            tokio::spawn(async move { store.append(command("a", Expected::Sequence(round))).await })
        });
        let mut winners = 0;
        for writer in writers.collect::<Vec<_>>() {
            match writer.await.expect("appending does not panic") {
                Ok(appended) => {
                    winners += 1;
                    assert_eq!(appended.sequence(), round + 1);
                }
                Err(AppendError::Conflict { expected, actual, .. }) => {
                    assert_eq!((expected, actual), (round, round + 1));
                }
                Err(error) => panic!("a conflict was due, but: {error}"),
            }
        }
        assert_eq!(winners, 1, "one writer wins each round");
    }
}

/// All of a command's events are stored, in order and side by side.
pub async fn a_command_is_stored_whole(harness: &dyn Harness) {
    let store = harness.fresh().await;
    let events = (0..5).map(|n| event(&json!({ "n": n }))).collect::<Vec<_>>();
    accepted(&*store, command_with("a", Expected::Sequence(0), events.clone())).await;
    let appended = accepted(&*store, command_with("a", Expected::Sequence(5), events)).await;

    assert_eq!(appended.sequence(), 10);
    assert_in_order(&appended.events, store.capabilities());
    for (index, event) in appended.events.iter().enumerate() {
        assert_eq!(event.sequence, 6 + index as u64);
        assert_eq!(event.data.get(), format!("{{\"n\":{index}}}"));
    }
    assert_same(&everything(&*store).await[5..], &appended.events);
}

/// An event says who, why and when, and its id follows from its command.
pub async fn the_envelope_holds_what_was_given(harness: &dyn Harness) {
    let store = harness.fresh().await;
    let mut append = command_with("a", Expected::Any, vec![event(&json!({})), event(&json!({}))]);
    let metadata = Arc::make_mut(&mut append.metadata);
    metadata.causation = Some(Uuid::now_v7());
    metadata.traceparent = Some("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01".into());
    metadata.address = Some("s1.user-someone.AAAA".into());
    metadata.user_agent = Some("s1.user-someone.BBBB".into());
    // What follows from an event at once is stored with it, under its own name.
    let mut follows = event(&json!({}));
    follows.metadata = Some(Arc::new(Metadata {
        actor: "system:follower".into(),
        causation: Some(event_id(append.command_id, 0)),
        address: None,
        user_agent: None,
        ..(*append.metadata).clone()
    }));
    append.events.push(follows);
    let given = append.clone();
    let before = Utc::now() - Duration::from_millis(1);
    accepted(&*store, append).await;

    let stored = everything(&*store).await;
    assert_eq!(stored.len(), 3);
    assert_eq!(stored[2].causation, Some(stored[0].id));
    for (index, event) in stored.iter().enumerate() {
        let metadata = given.events[index].metadata.as_ref().unwrap_or(&given.metadata);
        assert_eq!(event.stream, given.stream);
        assert_eq!(event.event_type, "thing.happened.v1");
        assert_eq!(event.command_id, given.command_id);
        assert_eq!(event.id, event_id(given.command_id, index as u32));
        assert_eq!(event.request_hash, given.request_hash);
        assert_eq!(event.keys, given.keys);
        assert_eq!(event.actor, metadata.actor);
        assert_eq!(event.organization, metadata.organization);
        assert_eq!(event.product, metadata.product);
        assert_eq!(event.correlation, metadata.correlation);
        assert_eq!(event.causation, metadata.causation);
        assert_eq!(event.request_id, metadata.request_id);
        assert_eq!(event.traceparent, metadata.traceparent);
        assert_eq!(event.address, metadata.address);
        assert_eq!(event.user_agent, metadata.user_agent);
        assert_eq!(event.schema, 1);
        assert!(before <= event.time && event.time <= Utc::now(), "the time is that of the commit");
    }
}

/// Payloads come back byte for byte, large ones and strange ones too.
pub async fn payloads_come_back_byte_for_byte(harness: &dyn Harness) {
    let store = harness.fresh().await;
    let payloads = [
        json!({}),
        json!({ "🦀": "before \u{e000} in UTF-16, behind it in UTF-8", "\u{e000}": 1 }),
        json!({ "": "", "\u{1}": "\u{0}\u{1f}\"\\/\u{7f}\u{2028}🦀", "é": ["ﬀ", "\u{10ffff}"] }),
        json!({ "numbers": [0, -1, 1e21, 1.5e-7, 9_007_199_254_740_991_u64, 0.1, -0.0] }),
        json!({ "large": "ä".repeat(500_000), "deep": [[[[{ "a": [null, true] }]]]] }),
    ];
    let events = payloads.iter().map(event).collect::<Vec<_>>();
    let appended =
        accepted(&*store, command_with("a", Expected::Sequence(0), events.clone())).await;

    for found in [everything(&*store).await, appended.events.clone()] {
        assert_eq!(found.len(), events.len());
        for (stored, given) in found.iter().zip(&events) {
            assert!(stored.data.get() == given.data.get(), "a payload is stored as it was given");
        }
    }
    let store = harness.reopen(store).await;
    assert_same(&everything(&*store).await, &appended.events);
}

/// What is no command is refused, and nothing of it is stored.
pub async fn a_malformed_append_is_refused(harness: &dyn Harness) {
    let store = harness.fresh().await;
    let no_object = NewEvent {
        event_type: "thing.happened.v1".into(),
        data: RawValue::from_string("[1]".into()).expect("a list is JSON"),
        metadata: None,
    };
    for events in [vec![], vec![event(&json!({})), no_object]] {
        let outcome = store.append(command_with("a", Expected::Any, events)).await;
        assert!(matches!(outcome, Err(AppendError::Malformed(_))), "malformed, but: {outcome:?}");
    }
    assert_eq!(everything(&*store).await.len(), 0);
}

/// Times never decrease with the position, not even across a restart.
pub async fn time_never_decreases(harness: &dyn Harness) {
    let mut store = harness.fresh().await;
    for _ in 0..3 {
        let writers = (0..8).map(|writer| {
            let store = store.clone();
            tokio::spawn(async move {
                for _ in 0..10 {
                    accepted(&*store, command(writer, Expected::Any)).await;
                }
            })
        });
        for writer in writers.collect::<Vec<_>>() {
            writer.await.expect("appending does not fail");
        }
        store = harness.reopen(store).await;
    }
    let all = everything(&*store).await;
    assert_eq!(all.len(), 240);
    for pair in all.windows(2) {
        assert!(pair[0].time <= pair[1].time, "time went back at {}", pair[1].position);
    }
}

/// A log that is closed and opened again is the same log, and goes on.
pub async fn reopening_keeps_everything(harness: &dyn Harness) {
    let store = harness.fresh().await;
    for n in 0..30 {
        accepted(&*store, command(n % 5, Expected::Any)).await;
    }
    let before = everything(&*store).await;

    let store = harness.reopen(store).await;
    assert_same(&everything(&*store).await, &before);
    assert_eq!(store.head().await.expect("the head can be read"), before[29].position);
    assert_eq!(*store.watch().borrow(), before[29].position);
    let next = accepted(&*store, command("0", Expected::Sequence(6))).await;
    assert!(next.position() > before[29].position);
    assert_in_order(&everything(&*store).await, store.capabilities());
}

/// What was taken before closing is stored; what comes later is refused.
pub async fn closing_stores_what_was_taken(harness: &dyn Harness) {
    let store = harness.fresh().await;
    let writers = (0..50).map(|n| {
        let store = store.clone();
        tokio::spawn(async move { store.append(command(n, Expected::Any)).await })
    });
    let writers = writers.collect::<Vec<_>>();
    tokio::task::yield_now().await;
    store.close().await;
    assert!(
        store.append(command("late", Expected::Any)).await.is_err(),
        "a closed log takes nothing"
    );

    let mut stored = 0;
    for writer in writers {
        stored += usize::from(writer.await.expect("appending does not panic").is_ok());
    }
    let store = harness.reopen(store).await;
    assert_eq!(everything(&*store).await.len(), stored, "what was answered is what is there");
}
