//! Negative controls: the suite passes a sound store in memory, and catches each way to break it.
#![expect(clippy::unwrap_used, reason = "tests say what they expect by failing")]

mod in_memory;

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use eventlog::EventStore;
use eventlog::conformance::{self, Harness};
use parking_lot::Mutex;

use self::in_memory::{Fault, Handle, InMemory};

/// Makes stores with a fault; what the last one holds survives a restart.
struct Broken(Fault, Mutex<Option<Arc<InMemory>>>);

#[async_trait]
impl Harness for Broken {
    async fn fresh(&self) -> Arc<dyn EventStore> {
        let store = Arc::new(InMemory::new(self.0, Vec::new()));
        *self.1.lock() = Some(store.clone());
        Arc::new(Handle(store))
    }

    async fn reopen(&self, store: Arc<dyn EventStore>) -> Arc<dyn EventStore> {
        store.close().await;
        let mut log = self.1.lock().as_ref().unwrap().log.lock().clone();
        if self.0 == Fault::LosesTheLastEventOnRestart {
            log.pop();
        }
        let store = Arc::new(InMemory::new(self.0, log));
        *self.1.lock() = Some(store.clone());
        Arc::new(Handle(store))
    }
}

/// Runs one property and says whether it failed.
async fn fails<F>(fault: Fault, property: impl FnOnce(&'static Broken) -> F) -> bool
where
    F: Future<Output = ()> + Send + 'static,
{
    let harness = Box::leak(Box::new(Broken(fault, Mutex::new(None))));
    let outcome =
        tokio::spawn(tokio::time::timeout(Duration::from_secs(5), property(harness))).await;
    !matches!(outcome, Ok(Ok(())))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sound_store_passes() {
    assert!(
        !fails(Fault::Sound, |harness| conformance::positions_only_increase(harness)).await,
        "positions_only_increase"
    );
    assert!(
        !fails(Fault::Sound, |harness| conformance::refused_commands_leave_no_gaps(harness)).await,
        "refused_commands_leave_no_gaps"
    );
    assert!(
        !fails(Fault::Sound, |harness| conformance::a_stale_expectation_is_refused(harness)).await,
        "a_stale_expectation_is_refused"
    );
    assert!(
        !fails(Fault::Sound, |harness| conformance::any_is_accepted_wherever_the_stream_stands(
            harness
        ))
        .await,
        "any_is_accepted_wherever_the_stream_stands"
    );
    assert!(
        !fails(Fault::Sound, |harness| conformance::a_conflict_fails_its_own_command_only(harness))
            .await,
        "a_conflict_fails_its_own_command_only"
    );
    assert!(
        !fails(Fault::Sound, |harness| conformance::one_of_many_writers_wins(harness)).await,
        "one_of_many_writers_wins"
    );
    assert!(
        !fails(Fault::Sound, |harness| conformance::a_command_is_stored_whole(harness)).await,
        "a_command_is_stored_whole"
    );
    assert!(
        !fails(Fault::Sound, |harness| conformance::the_envelope_holds_what_was_given(harness))
            .await,
        "the_envelope_holds_what_was_given"
    );
    assert!(
        !fails(Fault::Sound, |harness| conformance::payloads_come_back_byte_for_byte(harness))
            .await,
        "payloads_come_back_byte_for_byte"
    );
    assert!(
        !fails(Fault::Sound, |harness| conformance::a_malformed_append_is_refused(harness)).await,
        "a_malformed_append_is_refused"
    );
    assert!(
        !fails(Fault::Sound, |harness| conformance::time_never_decreases(harness)).await,
        "time_never_decreases"
    );
    assert!(
        !fails(Fault::Sound, |harness| conformance::reopening_keeps_everything(harness)).await,
        "reopening_keeps_everything"
    );
    assert!(
        !fails(Fault::Sound, |harness| conformance::closing_stores_what_was_taken(harness)).await,
        "closing_stores_what_was_taken"
    );
    assert!(
        !fails(Fault::Sound, |harness| conformance::a_repeated_command_gets_its_first_result(
            harness
        ))
        .await,
        "a_repeated_command_gets_its_first_result"
    );
    assert!(
        !fails(Fault::Sound, |harness| conformance::a_repeated_command_may_name_another_stream(
            harness
        ))
        .await,
        "a_repeated_command_may_name_another_stream"
    );
    assert!(
        !fails(Fault::Sound, |harness| conformance::a_reused_command_id_is_refused(harness)).await,
        "a_reused_command_id_is_refused"
    );
    assert!(
        !fails(Fault::Sound, |harness| conformance::a_command_repeated_at_once_is_stored_once(
            harness
        ))
        .await,
        "a_command_repeated_at_once_is_stored_once"
    );
    assert!(
        !fails(Fault::Sound, |harness| conformance::a_refused_command_is_not_remembered(harness))
            .await,
        "a_refused_command_is_not_remembered"
    );
    assert!(
        !fails(Fault::Sound, |harness| conformance::a_stored_command_is_found(harness)).await,
        "a_stored_command_is_found"
    );
    assert!(
        !fails(Fault::Sound, |harness| conformance::what_was_answered_can_be_read(harness)).await,
        "what_was_answered_can_be_read"
    );
    assert!(
        !fails(Fault::Sound, |harness| conformance::a_stream_holds_its_own_events(harness)).await,
        "a_stream_holds_its_own_events"
    );
    assert!(
        !fails(Fault::Sound, |harness| conformance::a_long_stream_is_read_whole(harness)).await,
        "a_long_stream_is_read_whole"
    );
    assert!(
        !fails(Fault::Sound, |harness| conformance::the_log_is_read_from_anywhere(harness)).await,
        "the_log_is_read_from_anywhere"
    );
    assert!(
        !fails(Fault::Sound, |harness| conformance::a_slow_writer_is_never_skipped(harness)).await,
        "a_slow_writer_is_never_skipped"
    );
    assert!(
        !fails(Fault::Sound, |harness| conformance::what_was_committed_is_what_was_seen(harness))
            .await,
        "what_was_committed_is_what_was_seen"
    );
    assert!(
        !fails(Fault::Sound, |harness| conformance::a_command_is_seen_whole(harness)).await,
        "a_command_is_seen_whole"
    );
    assert!(
        !fails(Fault::Sound, |harness| conformance::a_subscription_sees_everything(harness)).await,
        "a_subscription_sees_everything"
    );
    assert!(
        !fails(Fault::Sound, |harness| conformance::a_time_is_one_position(harness)).await,
        "a_time_is_one_position"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_acknowledgement_before_the_commit_is_caught() {
    assert!(
        fails(Fault::AcknowledgesEarly, |harness| conformance::what_was_answered_can_be_read(
            harness
        ))
        .await
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn positions_taken_outside_the_lock_are_caught() {
    assert!(
        fails(Fault::PositionsOutsideTheLock, |harness| {
            conformance::a_slow_writer_is_never_skipped(harness)
        })
        .await
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn positions_taken_outside_the_lock_are_caught_at_the_tail() {
    assert!(
        fails(Fault::PositionsOutsideTheLock, |harness| {
            conformance::what_was_committed_is_what_was_seen(harness)
        })
        .await
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn gaps_are_caught() {
    assert!(
        fails(Fault::LeavesGaps, |harness| conformance::refused_commands_leave_no_gaps(harness))
            .await
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_seen_in_parts_is_caught() {
    assert!(
        fails(Fault::SplitsCommands, |harness| conformance::a_command_is_seen_whole(harness)).await
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn ignored_expectations_are_caught() {
    assert!(
        fails(Fault::IgnoresExpectations, |harness| conformance::a_stale_expectation_is_refused(
            harness
        ))
        .await
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn two_winners_are_caught() {
    assert!(
        fails(Fault::IgnoresExpectations, |harness| conformance::one_of_many_writers_wins(harness))
            .await
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn forgotten_commands_are_caught() {
    assert!(
        fails(Fault::ForgetsCommands, |harness| {
            conformance::a_repeated_command_gets_its_first_result(harness)
        })
        .await
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn remembered_refusals_are_caught() {
    assert!(
        fails(
            Fault::RemembersRefusals,
            |harness| conformance::a_refused_command_is_not_remembered(harness)
        )
        .await
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn ignored_request_hashes_are_caught() {
    assert!(
        fails(Fault::IgnoresRequestHashes, |harness| conformance::a_reused_command_id_is_refused(
            harness
        ))
        .await
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_stored_twice_at_once_is_caught() {
    assert!(
        fails(Fault::ChecksCommandsOutsideTheLock, |harness| {
            conformance::a_command_repeated_at_once_is_stored_once(harness)
        })
        .await
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_loss_on_restart_is_caught() {
    assert!(
        fails(
            Fault::LosesTheLastEventOnRestart,
            |harness| conformance::reopening_keeps_everything(harness)
        )
        .await
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn time_that_goes_back_is_caught() {
    assert!(fails(Fault::TimeGoesBack, |harness| conformance::time_never_decreases(harness)).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn missing_news_are_caught() {
    assert!(
        fails(Fault::TellsNoNews, |harness| conformance::a_subscription_sees_everything(harness))
            .await
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn rewritten_payloads_are_caught() {
    assert!(
        fails(Fault::RewritesPayloads, |harness| conformance::payloads_come_back_byte_for_byte(
            harness
        ))
        .await
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_limit_that_is_not_kept_is_caught() {
    assert!(
        fails(Fault::ReadsOneTooMany, |harness| conformance::the_log_is_read_from_anywhere(
            harness
        ))
        .await
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_that_run_into_each_other_are_caught() {
    assert!(
        fails(
            Fault::TakesPrefixesForStreams,
            |harness| conformance::a_stream_holds_its_own_events(harness)
        )
        .await
    );
}
