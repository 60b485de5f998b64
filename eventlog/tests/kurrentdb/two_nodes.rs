//! Two nodes append to one log, and nothing of one is known to the other but through the server.
//!
//! The rule of this file: what a flaw of the server must not break passes with it, and what it
//! breaks is caught: both are shown.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use eventlog::conformance::{self, Harness, command, command_with, event};
use eventlog::{
    Append, AppendError, Appended, Capabilities, Error, EventStore, Expected, Position,
    RecordedEvent, StreamId,
};
use serde_json::json;
use tokio::sync::watch;
use uuid::Uuid;

use crate::server::Server;
use kurrentdb_double::Flaw;

/// Appends at both nodes in turn; everything else is asked of the first.
struct Both {
    nodes: [Arc<dyn EventStore>; 2],
    turn: AtomicUsize,
}

#[async_trait]
impl EventStore for Both {
    async fn append(&self, append: Append) -> Result<Appended, AppendError> {
        self.nodes[self.turn.fetch_add(1, SeqCst) % 2].append(append).await
    }

    async fn find_command(&self, stream: &StreamId, id: Uuid) -> Result<Option<Appended>, Error> {
        self.nodes[self.turn.fetch_add(1, SeqCst) % 2].find_command(stream, id).await
    }

    async fn read_stream(
        &self,
        stream: &StreamId,
        after: u64,
        limit: usize,
    ) -> Result<Vec<Arc<RecordedEvent>>, Error> {
        self.nodes[0].read_stream(stream, after, limit).await
    }

    async fn read_after(
        &self,
        after: Position,
        limit: usize,
    ) -> Result<Vec<Arc<RecordedEvent>>, Error> {
        // What the other node appended may not have come by here yet: the head is known then.
        let events = self.nodes[0].read_after(after, limit).await?;
        if !events.is_empty() {
            return Ok(events);
        }
        self.nodes[0].head().await?;
        self.nodes[0].read_after(after, limit).await
    }

    async fn head(&self) -> Result<Position, Error> {
        self.nodes[0].head().await
    }

    fn watch(&self) -> watch::Receiver<Position> {
        self.nodes[0].watch()
    }

    async fn position_at(&self, time: DateTime<Utc>) -> Result<Position, Error> {
        self.nodes[0].position_at(time).await
    }

    fn capabilities(&self) -> Capabilities {
        self.nodes[0].capabilities()
    }

    async fn close(&self) {
        for node in &self.nodes {
            node.close().await;
        }
    }
}

struct TwoNodes(Server);

impl TwoNodes {
    fn new(flaw: Flaw) -> Self {
        TwoNodes(Server::with(flaw))
    }

    async fn open(&self) -> Arc<dyn EventStore> {
        let nodes = [self.0.open().await, self.0.open().await];
        Arc::new(Both { nodes, turn: AtomicUsize::new(0) })
    }
}

#[async_trait]
impl Harness for TwoNodes {
    async fn fresh(&self) -> Arc<dyn EventStore> {
        self.open().await
    }

    async fn reopen(&self, store: Arc<dyn EventStore>) -> Arc<dyn EventStore> {
        store.close().await;
        self.open().await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_of_many_writers_wins() {
    conformance::one_of_many_writers_wins(&TwoNodes::new(Flaw::None)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_conflict_fails_its_own_command_only() {
    conformance::a_conflict_fails_its_own_command_only(&TwoNodes::new(Flaw::None)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stale_expectation_is_refused() {
    conformance::a_stale_expectation_is_refused(&TwoNodes::new(Flaw::None)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn any_is_accepted_wherever_the_stream_stands() {
    conformance::any_is_accepted_wherever_the_stream_stands(&TwoNodes::new(Flaw::None)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_repeated_at_once_is_stored_once() {
    conformance::a_command_repeated_at_once_is_stored_once(&TwoNodes::new(Flaw::None)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repeated_command_gets_its_first_result() {
    conformance::a_repeated_command_gets_its_first_result(&TwoNodes::new(Flaw::None)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reused_command_id_is_refused() {
    conformance::a_reused_command_id_is_refused(&TwoNodes::new(Flaw::None)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stored_command_is_found() {
    conformance::a_stored_command_is_found(&TwoNodes::new(Flaw::None)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_committed_is_what_was_seen() {
    conformance::what_was_committed_is_what_was_seen(&TwoNodes::new(Flaw::None)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn positions_only_increase() {
    conformance::positions_only_increase(&TwoNodes::new(Flaw::None)).await;
}

/// The store does not lean on the server's memory of event ids, which is bounded.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_forgets_what_it_stored_doubles_no_command() {
    conformance::a_command_repeated_at_once_is_stored_once(&TwoNodes::new(
        Flaw::ForgetsIdempotency,
    ))
    .await;
    conformance::a_repeated_command_gets_its_first_result(&TwoNodes::new(Flaw::ForgetsIdempotency))
        .await;
}

/// Both nodes see what either appends, each event once, whoever appended it.
#[tokio::test(flavor = "multi_thread")]
async fn each_node_is_told_of_the_others_appends() {
    let server = Server::new();
    let (one, other) = (server.open().await, server.open().await);
    let mut subscription = eventlog::Subscription::new(other, Position::START);
    let events = vec![event(&json!({ "n": 1 })), event(&json!({ "n": 2 }))];

    let appended = one.append(command_with("a", Expected::Any, events)).await.unwrap();

    let mut seen = Vec::new();
    while seen.len() < 2 {
        let next = tokio::time::timeout(Duration::from_secs(20), subscription.next(10)).await;
        seen.extend(next.unwrap().unwrap());
    }
    for (one, other) in appended.events.iter().zip(&seen) {
        assert_eq!(
            serde_json::to_string(one).unwrap(),
            serde_json::to_string(other).unwrap(),
            "an event is the same bytes wherever it is read"
        );
    }
}

/// What one node knows of a stream gets old by the other's appends, and that harms nothing.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_node_knows_of_a_stream_may_be_old() {
    let server = Server::new();
    let (one, other) = (server.open().await, server.open().await);
    let first = command("a", Expected::Sequence(0));
    let second = command("a", Expected::Sequence(1));
    one.append(first.clone()).await.unwrap();
    other.append(second.clone()).await.unwrap();

    let conflict = one.append(command("a", Expected::Sequence(1))).await;
    assert!(matches!(conflict, Err(AppendError::Conflict { actual: 2, .. })), "{conflict:?}");
    let again = one.append(Append { expected: Expected::Any, ..second.clone() }).await.unwrap();
    assert!(again.replayed, "the other node stored it");
    let found = one.find_command(&second.stream, second.command_id).await.unwrap();
    assert_eq!(found.unwrap().sequence(), 2);
    assert_eq!(one.append(command("a", Expected::Any)).await.unwrap().sequence(), 3);
    assert_eq!(other.append(command("a", Expected::Sequence(3))).await.unwrap().sequence(), 4);
}

/// Runs one property against a server with a flaw, and says whether it failed.
async fn fails<F>(flaw: Flaw, property: impl FnOnce(&'static TwoNodes) -> F) -> bool
where
    F: Future<Output = ()> + Send + 'static,
{
    let harness = Box::leak(Box::new(TwoNodes::new(flaw)));
    let outcome =
        tokio::spawn(tokio::time::timeout(Duration::from_secs(20), property(harness))).await;
    !matches!(outcome, Ok(Ok(())))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_takes_everything_is_caught() {
    assert!(
        fails(Flaw::TakesEverything, |harness| conformance::one_of_many_writers_wins(harness))
            .await
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_takes_everything_doubles_commands_and_is_caught() {
    assert!(
        fails(Flaw::TakesEverything, |harness| {
            conformance::a_command_repeated_at_once_is_stored_once(harness)
        })
        .await
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_skips_events_is_caught() {
    assert!(
        fails(Flaw::SkipsEvents, |harness| {
            conformance::what_was_committed_is_what_was_seen(harness)
        })
        .await
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_whose_clock_goes_back_is_caught() {
    assert!(fails(Flaw::TimeGoesBack, |harness| conformance::time_never_decreases(harness)).await);
}
