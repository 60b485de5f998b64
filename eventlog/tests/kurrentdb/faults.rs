//! Appends to a server that fails: each is stored once, and whoever waits long enough is answered.

use std::sync::Arc;
use std::time::Duration;

use eventlog::conformance::{command, command_with, event};
use eventlog::{
    Append, AppendError, Error, EventStore, Expected, KurrentdbError, KurrentdbOptions,
    KurrentdbStore, Position, Subscription,
};
use serde_json::json;

use kurrentdb_double::{AppendFault, Database, Double, Flaw, Role};

/// Waits no longer than one try.
const IMPATIENT: KurrentdbOptions = KurrentdbOptions { patience: Duration::ZERO, read_only: false };

async fn open(url: &str, options: KurrentdbOptions) -> Arc<dyn EventStore> {
    Arc::new(KurrentdbStore::open(url, options).await.unwrap())
}

fn command_of_three(stream: &str, expected: Expected) -> Append {
    command_with(stream, expected, (0..3).map(|n| event(&json!({ "n": n }))).collect())
}

fn kurrentdb(outcome: Result<eventlog::Appended, AppendError>) -> KurrentdbError {
    match outcome {
        Err(AppendError::Store(Error::Kurrentdb(error))) => error,
        other => panic!("a failure of the server was due, but: {other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_append_whose_answer_is_lost_is_stored_once() {
    let double = Double::start().await;
    let store = open(&double.url(), KurrentdbOptions::default()).await;
    let faults = [
        vec![AppendFault::CutBefore],
        vec![AppendFault::CutAfter],
        vec![AppendFault::TimeOutAfter],
        vec![AppendFault::Busy],
        vec![AppendFault::CutAfter, AppendFault::CutBefore, AppendFault::TimeOutAfter],
    ];
    for (n, faults) in faults.into_iter().enumerate() {
        for (expected, stream) in
            [(Expected::Sequence(0), format!("new{n}")), (Expected::Any, format!("any{n}"))]
        {
            let before = double.database.count();
            double.switches.appends.lock().extend(&faults);

            let append = command_of_three(&stream, expected);
            let appended = store.append(append.clone()).await.unwrap();

            assert!(!appended.replayed, "{faults:?}: it was this call that stored it");
            assert_eq!(appended.sequence(), 3, "{faults:?}");
            assert_eq!(double.database.count(), before + 3, "{faults:?}: stored once");
            assert!(double.switches.appends.lock().is_empty(), "{faults:?}: it had to fail");
            let again = store.append(append).await.unwrap();
            assert!(again.replayed, "{faults:?}: found by its command id");
            assert_eq!(again.position(), appended.position());
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_append_that_is_given_up_can_be_sent_again() {
    let double = Double::start().await;
    let store = open(&double.url(), IMPATIENT).await;
    for (fault, is_stored) in [(AppendFault::CutAfter, true), (AppendFault::CutBefore, false)] {
        let before = double.database.count();
        double.switches.appends.lock().push_back(fault);
        let append = command_of_three(&format!("{fault:?}"), Expected::Sequence(0));

        let error = kurrentdb(store.append(append.clone()).await);
        assert!(matches!(error, KurrentdbError::Unanswered(_)), "{error:?}");
        assert!(error.is_temporary());
        assert!(error.to_string().contains("under the same key"), "{error}");

        // Connections are made anew meanwhile: sent again until it gets through.
        let appended = loop {
            match store.append(append.clone()).await {
                Ok(appended) => break appended,
                Err(AppendError::Store(error)) => assert!(error.is_temporary(), "{error:?}"),
                Err(other) => panic!("{other}"),
            }
        };
        assert_eq!(appended.replayed, is_stored, "{fault:?}");
        assert_eq!(double.database.count(), before + 3, "{fault:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_that_drop_under_load_lose_and_double_nothing() {
    let double = Arc::new(Double::start().await);
    // Each cut fails everybody's requests: an append may fail many times before it gets through.
    let patience = Duration::from_secs(60);
    let options = KurrentdbOptions { patience, ..KurrentdbOptions::default() };
    let store = open(&double.url(), options).await;
    let writers = (0..8).map(|writer| {
        let (store, double) = (store.clone(), double.clone());
        tokio::spawn(async move {
            for n in 0..20 {
                if n % 5 == writer % 5 {
                    let fault =
                        if n % 2 == 0 { AppendFault::CutAfter } else { AppendFault::CutBefore };
                    double.switches.appends.lock().push_back(fault);
                }
                // Some on a stream of their own, some on one that they share.
                let (stream, expected) = if n % 2 == 0 {
                    (format!("own{writer}"), Expected::Sequence(3 * n / 2))
                } else {
                    ("shared".into(), Expected::Any)
                };
                let appended = store.append(command_of_three(&stream, expected)).await.unwrap();
                assert!(!appended.replayed);
            }
        })
    });
    for writer in writers.collect::<Vec<_>>() {
        writer.await.unwrap();
    }
    assert_eq!(double.database.count(), 8 * 20 * 3);
    let all = store.read_after(Position::START, usize::MAX).await.unwrap();
    assert_eq!(all.len(), 8 * 20 * 3);
    assert!(all.windows(2).all(|pair| pair[0].position < pair[1].position));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_does_not_lead_sends_to_the_one_that_does() {
    let database = Arc::new(Database::new(Flaw::None));
    let (one, other) = (Double::over(database.clone()).await, Double::over(database).await);
    *one.switches.role.lock() = Role::Follower { leader: other.address() };
    let store = open(&one.url(), KurrentdbOptions::default()).await;
    let mut subscription = Subscription::new(store.clone(), Position::START);
    for n in 0..6 {
        store.append(command("a", Expected::Sequence(n))).await.unwrap();
        let seen = tokio::time::timeout(Duration::from_secs(20), subscription.next(1)).await;
        assert_eq!(seen.unwrap().unwrap()[0].sequence, n + 1);
        // Another leads from now on, and whoever led says so, or says nothing at all.
        let (leader, follower) = if n % 2 == 0 { (&one, &other) } else { (&other, &one) };
        *leader.switches.role.lock() = Role::Leader;
        *follower.switches.role.lock() = Role::Follower { leader: leader.address() };
        if n >= 3 {
            follower.cut();
        }
    }
    assert_eq!(store.read_stream(&"thing-a".into(), 0, 10).await.unwrap().len(), 6);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_whose_leader_dies_is_followed_to_the_next() {
    let database = Arc::new(Database::new(Flaw::None));
    let (one, other) = (Double::over(database.clone()).await, Double::over(database).await);
    for node in [&one, &other] {
        *node.switches.members.lock() = vec![one.address(), other.address()];
    }
    *other.switches.role.lock() = Role::Follower { leader: one.address() };
    let url = format!(
        "esdb://admin:changeit@{},{}?tls=false&discoveryInterval=1",
        one.address(),
        other.address()
    );
    let store = open(&url, KurrentdbOptions::default()).await;
    store.append(command("a", Expected::Sequence(0))).await.unwrap();

    one.stop().await;
    *other.switches.role.lock() = Role::Leader;
    *other.switches.members.lock() = vec![other.address()];

    let appended = store.append(command("a", Expected::Sequence(1))).await.unwrap();
    assert_eq!(appended.sequence(), 2);
    assert_eq!(store.read_after(Position::START, 10).await.unwrap().len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_that_is_short_goes_unnoticed() {
    let double = Double::start().await;
    let store = open(&double.url(), KurrentdbOptions::default()).await;
    store.append(command("a", Expected::Sequence(0))).await.unwrap();
    double.stop().await;

    let append = tokio::spawn({
        let store = store.clone();
        async move { store.append(command("a", Expected::Sequence(1))).await }
    });
    let read = tokio::spawn({
        let store = store.clone();
        async move { store.read_stream(&"thing-a".into(), 0, 10).await }
    });
    tokio::task::yield_now().await;
    double.restart();

    assert_eq!(append.await.unwrap().unwrap().sequence(), 2);
    assert!(!read.await.unwrap().unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_gone_fails_for_now_and_everything_goes_on_when_it_is_back() {
    let double = Double::start().await;
    let store = open(&double.url(), IMPATIENT).await;
    let first = store.append(command("a", Expected::Sequence(0))).await.unwrap();
    let mut subscription = Subscription::new(store.clone(), first.position());
    double.stop().await;

    let append = command("a", Expected::Sequence(1));
    for _ in 0..3 {
        let error = kurrentdb(store.append(append.clone()).await);
        assert!(error.is_temporary(), "{error:?}");
        let error = store.head().await.unwrap_err();
        assert!(error.is_temporary(), "{error:?}");
        assert!(error.to_string().contains(&double.address().to_string()), "{error}");
        assert!(!format!("{error:?}").contains("changeit"), "{error:?}");
    }
    double.restart();
    let appended = loop {
        match store.append(append.clone()).await {
            Ok(appended) => break appended,
            Err(AppendError::Store(error)) => assert!(error.is_temporary(), "{error:?}"),
            Err(other) => panic!("{other}"),
        }
    };
    assert_eq!(appended.sequence(), 2);
    let seen = tokio::time::timeout(Duration::from_secs(20), async {
        loop {
            if let Ok(events) = subscription.next(10).await {
                break events;
            }
        }
    });
    assert_eq!(seen.await.unwrap()[0].position, appended.position());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_cannot_lead_or_knows_no_leader_fails_for_now() {
    let double = Double::start().await;
    let store = open(&double.url(), IMPATIENT).await;
    for role in [Role::Leaderless, Role::NotReady] {
        *double.switches.role.lock() = role;
        let error = kurrentdb(store.append(command("a", Expected::Any)).await);
        assert!(error.is_temporary(), "{role:?}: {error:?}");
        assert!(store.head().await.unwrap_err().is_temporary(), "{role:?}");
    }
    assert_eq!(double.database.count(), 0, "nothing was stored");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_append_that_is_too_large_is_refused_for_good() {
    let double = Double::start().await;
    let store = open(&double.url(), KurrentdbOptions::default()).await;
    let large = event(&json!({ "text": "x".repeat(1_100_000) }));

    let error = kurrentdb(store.append(command_with("a", Expected::Any, vec![large])).await);

    assert!(matches!(error, KurrentdbError::Refused(_)), "{error:?}");
    assert!(!error.is_temporary());
    let reason = std::error::Error::source(&error).unwrap().to_string();
    assert!(reason.contains("Maximum Append Size"), "{reason}");
    assert_eq!(double.database.count(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_is_opened_for_reading_takes_nothing() {
    let double = Double::start().await;
    let options = KurrentdbOptions { read_only: true, ..KurrentdbOptions::default() };
    let store = open(&double.url(), options).await;

    let refused = store.append(command("a", Expected::Any)).await;

    assert!(matches!(refused, Err(AppendError::Store(Error::ReadOnly))), "{refused:?}");
    assert_eq!(double.database.count(), 0);
}
