//! The suite of every store: with one node, and with three that append in turn.
//!
//! The rule of this file: the suite is run unchanged. With three nodes an append is answered when
//! the node that is read has seen it, as a client asks for with `X-Min-Position`.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use eventlog::conformance::{self, Harness};
use eventlog::{
    Append, AppendError, Appended, Capabilities, Error, EventStore, Position, RecordedEvent,
    StreamId,
};
use tokio::sync::watch;
use uuid::Uuid;

use crate::Database;

/// Each fresh store is a database of its own; the one test that made it opens it again.
struct OneNode(Database);

#[async_trait]
impl Harness for OneNode {
    async fn fresh(&self) -> Arc<dyn EventStore> {
        self.0.open().await
    }

    async fn reopen(&self, store: Arc<dyn EventStore>) -> Arc<dyn EventStore> {
        store.close().await;
        self.0.open().await
    }
}

/// The same with three nodes behind one face.
struct ThreeNodes(Database);

#[async_trait]
impl Harness for ThreeNodes {
    async fn fresh(&self) -> Arc<dyn EventStore> {
        let nodes = [self.0.open().await, self.0.open().await, self.0.open().await];
        Arc::new(InTurn { nodes, turn: AtomicUsize::new(0), closed: watch::Sender::new(false) })
    }

    async fn reopen(&self, store: Arc<dyn EventStore>) -> Arc<dyn EventStore> {
        store.close().await;
        self.fresh().await
    }
}

struct InTurn {
    nodes: [Arc<dyn EventStore>; 3],
    turn: AtomicUsize,
    closed: watch::Sender<bool>,
}

impl InTurn {
    /// The node that is read.
    fn face(&self) -> &dyn EventStore {
        &*self.nodes[0]
    }
}

#[async_trait]
impl EventStore for InTurn {
    async fn append(&self, append: Append) -> Result<Appended, AppendError> {
        let node = &self.nodes[self.turn.fetch_add(1, Relaxed) % self.nodes.len()];
        let appended = node.append(append).await?;
        let mut seen = self.face().watch();
        let mut closed = self.closed.subscribe();
        // A node that is closed hears no more news.
        tokio::select! {
            _ = seen.wait_for(|head| *head >= appended.position()) => {}
            _ = closed.wait_for(|closed| *closed) => {}
        }
        Ok(appended)
    }

    async fn find_command(
        &self,
        stream: &StreamId,
        command_id: Uuid,
    ) -> Result<Option<Appended>, Error> {
        self.face().find_command(stream, command_id).await
    }

    async fn read_stream(
        &self,
        stream: &StreamId,
        after: u64,
        limit: usize,
    ) -> Result<Vec<Arc<RecordedEvent>>, Error> {
        self.face().read_stream(stream, after, limit).await
    }

    async fn read_after(
        &self,
        after: Position,
        limit: usize,
    ) -> Result<Vec<Arc<RecordedEvent>>, Error> {
        self.face().read_after(after, limit).await
    }

    async fn head(&self) -> Result<Position, Error> {
        self.face().head().await
    }

    fn watch(&self) -> watch::Receiver<Position> {
        self.face().watch()
    }

    async fn position_at(&self, time: DateTime<Utc>) -> Result<Position, Error> {
        self.face().position_at(time).await
    }

    fn capabilities(&self) -> Capabilities {
        self.face().capabilities()
    }

    async fn close(&self) {
        for node in &self.nodes {
            node.close().await;
        }
        self.closed.send_replace(true);
    }
}

mod one_node {
    use super::*;

    fn harness() -> OneNode {
        OneNode(Database::new())
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn positions_only_increase() {
        conformance::positions_only_increase(&harness()).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn refused_commands_leave_no_gaps() {
        conformance::refused_commands_leave_no_gaps(&harness()).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_stale_expectation_is_refused() {
        conformance::a_stale_expectation_is_refused(&harness()).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn any_is_accepted_wherever_the_stream_stands() {
        conformance::any_is_accepted_wherever_the_stream_stands(&harness()).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_conflict_fails_its_own_command_only() {
        conformance::a_conflict_fails_its_own_command_only(&harness()).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn one_of_many_writers_wins() {
        conformance::one_of_many_writers_wins(&harness()).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_command_is_stored_whole() {
        conformance::a_command_is_stored_whole(&harness()).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn the_envelope_holds_what_was_given() {
        conformance::the_envelope_holds_what_was_given(&harness()).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn payloads_come_back_byte_for_byte() {
        conformance::payloads_come_back_byte_for_byte(&harness()).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_malformed_append_is_refused() {
        conformance::a_malformed_append_is_refused(&harness()).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn time_never_decreases() {
        conformance::time_never_decreases(&harness()).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn reopening_keeps_everything() {
        conformance::reopening_keeps_everything(&harness()).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn closing_stores_what_was_taken() {
        conformance::closing_stores_what_was_taken(&harness()).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_repeated_command_gets_its_first_result() {
        conformance::a_repeated_command_gets_its_first_result(&harness()).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_repeated_command_may_name_another_stream() {
        conformance::a_repeated_command_may_name_another_stream(&harness()).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_reused_command_id_is_refused() {
        conformance::a_reused_command_id_is_refused(&harness()).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_command_repeated_at_once_is_stored_once() {
        conformance::a_command_repeated_at_once_is_stored_once(&harness()).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_refused_command_is_not_remembered() {
        conformance::a_refused_command_is_not_remembered(&harness()).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_stored_command_is_found() {
        conformance::a_stored_command_is_found(&harness()).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn what_was_answered_can_be_read() {
        conformance::what_was_answered_can_be_read(&harness()).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_stream_holds_its_own_events() {
        conformance::a_stream_holds_its_own_events(&harness()).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_long_stream_is_read_whole() {
        conformance::a_long_stream_is_read_whole(&harness()).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn the_log_is_read_from_anywhere() {
        conformance::the_log_is_read_from_anywhere(&harness()).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_slow_writer_is_never_skipped() {
        conformance::a_slow_writer_is_never_skipped(&harness()).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn what_was_committed_is_what_was_seen() {
        conformance::what_was_committed_is_what_was_seen(&harness()).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_command_is_seen_whole() {
        conformance::a_command_is_seen_whole(&harness()).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_subscription_sees_everything() {
        conformance::a_subscription_sees_everything(&harness()).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_time_is_one_position() {
        conformance::a_time_is_one_position(&harness()).await;
    }
}

mod three_nodes {
    use super::*;

    fn harness() -> ThreeNodes {
        ThreeNodes(Database::new())
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn positions_only_increase() {
        conformance::positions_only_increase(&harness()).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn refused_commands_leave_no_gaps() {
        conformance::refused_commands_leave_no_gaps(&harness()).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_stale_expectation_is_refused() {
        conformance::a_stale_expectation_is_refused(&harness()).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn any_is_accepted_wherever_the_stream_stands() {
        conformance::any_is_accepted_wherever_the_stream_stands(&harness()).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_conflict_fails_its_own_command_only() {
        conformance::a_conflict_fails_its_own_command_only(&harness()).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn one_of_many_writers_wins() {
        conformance::one_of_many_writers_wins(&harness()).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_command_is_stored_whole() {
        conformance::a_command_is_stored_whole(&harness()).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn the_envelope_holds_what_was_given() {
        conformance::the_envelope_holds_what_was_given(&harness()).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn payloads_come_back_byte_for_byte() {
        conformance::payloads_come_back_byte_for_byte(&harness()).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_malformed_append_is_refused() {
        conformance::a_malformed_append_is_refused(&harness()).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn time_never_decreases() {
        conformance::time_never_decreases(&harness()).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn reopening_keeps_everything() {
        conformance::reopening_keeps_everything(&harness()).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn closing_stores_what_was_taken() {
        conformance::closing_stores_what_was_taken(&harness()).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_repeated_command_gets_its_first_result() {
        conformance::a_repeated_command_gets_its_first_result(&harness()).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_repeated_command_may_name_another_stream() {
        conformance::a_repeated_command_may_name_another_stream(&harness()).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_reused_command_id_is_refused() {
        conformance::a_reused_command_id_is_refused(&harness()).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_command_repeated_at_once_is_stored_once() {
        conformance::a_command_repeated_at_once_is_stored_once(&harness()).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_refused_command_is_not_remembered() {
        conformance::a_refused_command_is_not_remembered(&harness()).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_stored_command_is_found() {
        conformance::a_stored_command_is_found(&harness()).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn what_was_answered_can_be_read() {
        conformance::what_was_answered_can_be_read(&harness()).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_stream_holds_its_own_events() {
        conformance::a_stream_holds_its_own_events(&harness()).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_long_stream_is_read_whole() {
        conformance::a_long_stream_is_read_whole(&harness()).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn the_log_is_read_from_anywhere() {
        conformance::the_log_is_read_from_anywhere(&harness()).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_slow_writer_is_never_skipped() {
        conformance::a_slow_writer_is_never_skipped(&harness()).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn what_was_committed_is_what_was_seen() {
        conformance::what_was_committed_is_what_was_seen(&harness()).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_command_is_seen_whole() {
        conformance::a_command_is_seen_whole(&harness()).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_subscription_sees_everything() {
        conformance::a_subscription_sees_everything(&harness()).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_time_is_one_position() {
        conformance::a_time_is_one_position(&harness()).await;
    }
}
