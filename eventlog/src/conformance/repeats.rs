//! Every append is idempotent: a command id is stored once and answered alike for ever.
//!
//! The rule of this file: a repeated command learns its first result, and nothing else does.

use serde_json::json;

use super::*;
use crate::AppendError;

/// A repeated command gets its first result, wherever its stream stands by then.
pub async fn a_repeated_command_gets_its_first_result(harness: &dyn Harness) {
    let mut store = harness.fresh().await;
    let events = vec![event(&json!({ "n": 1 })), event(&json!({ "n": 2 }))];
    let append = command_with("a", Expected::Sequence(0), events);
    let first = accepted(&*store, append.clone()).await;
    assert!(!first.replayed, "the first time is no replay");
    accepted(&*store, command("a", Expected::Sequence(2))).await;
    accepted(&*store, command("b", Expected::Any)).await;

    for _ in 0..2 {
        let again = accepted(&*store, append.clone()).await;
        assert!(again.replayed, "the second time is a replay");
        assert_same(&again.events, &first.events);
        store = harness.reopen(store).await;
    }
    assert_eq!(everything(&*store).await.len(), 4);
}

/// A retry need not know which stream the first try chose: the id of what it made may be new.
pub async fn a_repeated_command_may_name_another_stream(harness: &dyn Harness) {
    let store = harness.fresh().await;
    if !store.capabilities().log_wide_command_ids {
        return;
    }
    let first = accepted(&*store, command("a", Expected::Sequence(0))).await;
    let mut again = command("b", Expected::Sequence(0));
    again.command_id = first.events[0].command_id;

    let again = accepted(&*store, again).await;

    assert!(again.replayed, "the command was stored before");
    assert_same(&again.events, &first.events);
    assert_eq!(everything(&*store).await.len(), 1);
}

/// A command id belongs to the request it was first stored with.
pub async fn a_reused_command_id_is_refused(harness: &dyn Harness) {
    let store = harness.fresh().await;
    let first = command("a", Expected::Sequence(0));
    accepted(&*store, first.clone()).await;
    for other in [Some("another hash".to_owned()), None] {
        for expected in [Expected::Sequence(0), Expected::Sequence(1), Expected::Any] {
            let reused = Append { request_hash: other.clone(), expected, ..first.clone() };
            let outcome = store.append(reused).await;
            assert!(
                matches!(outcome, Err(AppendError::CommandReused { command_id }) if command_id == first.command_id),
                "the command id was used for another request, but: {outcome:?}"
            );
        }
    }
    assert_eq!(everything(&*store).await.len(), 1);
}

/// However many send the same command at once, it is stored once and all get the same answer.
pub async fn a_command_repeated_at_once_is_stored_once(harness: &dyn Harness) {
    let store = harness.fresh().await;
    for round in 0..10 {
        // Some expect nothing and some a place: neither way may it be stored twice.
        let expected = if round % 2 == 0 { Expected::Any } else { Expected::Sequence(0) };
        let append = command(round, expected);
        let tasks = (0..16).map(|n| {
            let (store, mut append) = (store.clone(), append.clone());
            if n % 4 == 3 {
                append.request_hash = Some("another hash".into());
            }
            tokio::spawn(async move { (append.request_hash.clone(), store.append(append).await) })
        });
        let mut answers = Vec::new();
        let mut winning_hash = None;
        let mut reused = Vec::new();
        for task in tasks.collect::<Vec<_>>() {
            match task.await.expect("appending does not panic") {
                (hash, Ok(appended)) => {
                    winning_hash = Some(hash);
                    answers.push(appended);
                }
                (hash, Err(AppendError::CommandReused { .. })) => reused.push(hash),
                (_, Err(error)) => panic!("round {round}: {error}"),
            }
        }
        let winning_hash = winning_hash.expect("one of them was stored");
        assert!(reused.iter().all(|hash| *hash != winning_hash), "the same request is no reuse");
        assert_eq!(answers.iter().filter(|answer| !answer.replayed).count(), 1, "stored once");
        for answer in &answers {
            assert_same(&answer.events, &answers[0].events);
        }
    }
    assert_eq!(everything(&*store).await.len(), 10);
}

/// A refused command may be sent again when it can succeed.
pub async fn a_refused_command_is_not_remembered(harness: &dyn Harness) {
    let store = harness.fresh().await;
    let early = command("a", Expected::Sequence(1));
    conflicting(&*store, early.clone()).await;
    assert!(found(&*store, &early).await.is_none(), "a refused command is not found");
    accepted(&*store, command("a", Expected::Sequence(0))).await;

    let late = accepted(&*store, early).await;

    assert!(!late.replayed, "it is stored now, for the first time");
    assert_eq!(late.sequence(), 2);
}

/// A stored command is found by its id, with all of its events and no others.
pub async fn a_stored_command_is_found(harness: &dyn Harness) {
    let mut store = harness.fresh().await;
    let mut stored = Vec::new();
    for n in 0..20 {
        let events = (0..=n % 3).map(|m| event(&json!({ "m": m }))).collect();
        let append = command_with(n % 2, Expected::Any, events);
        let appended = accepted(&*store, append.clone()).await;
        stored.push((append, appended));
    }
    for _ in 0..2 {
        for (append, appended) in &stored {
            let found = found(&*store, append).await.expect("a stored command is found");
            assert!(found.replayed, "what is found was stored before");
            assert_same(&found.events, &appended.events);
        }
        assert!(found(&*store, &command(0, Expected::Any)).await.is_none(), "others are not found");
        store = harness.reopen(store).await;
    }
}

async fn found(store: &dyn EventStore, append: &Append) -> Option<Appended> {
    store.find_command(&append.stream, append.command_id).await.expect("commands can be looked up")
}
