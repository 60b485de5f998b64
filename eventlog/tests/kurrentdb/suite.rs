//! The suite of every store.

use eventlog::conformance;

use crate::server::Server;

#[tokio::test(flavor = "multi_thread")]
async fn positions_only_increase() {
    conformance::positions_only_increase(&Server::new()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn refused_commands_leave_no_gaps() {
    conformance::refused_commands_leave_no_gaps(&Server::new()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stale_expectation_is_refused() {
    conformance::a_stale_expectation_is_refused(&Server::new()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn any_is_accepted_wherever_the_stream_stands() {
    conformance::any_is_accepted_wherever_the_stream_stands(&Server::new()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_conflict_fails_its_own_command_only() {
    conformance::a_conflict_fails_its_own_command_only(&Server::new()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_of_many_writers_wins() {
    conformance::one_of_many_writers_wins(&Server::new()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_is_stored_whole() {
    conformance::a_command_is_stored_whole(&Server::new()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_envelope_holds_what_was_given() {
    conformance::the_envelope_holds_what_was_given(&Server::new()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn payloads_come_back_byte_for_byte() {
    conformance::payloads_come_back_byte_for_byte(&Server::new()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_malformed_append_is_refused() {
    conformance::a_malformed_append_is_refused(&Server::new()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn time_never_decreases() {
    conformance::time_never_decreases(&Server::new()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn reopening_keeps_everything() {
    conformance::reopening_keeps_everything(&Server::new()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn closing_stores_what_was_taken() {
    conformance::closing_stores_what_was_taken(&Server::new()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_answered_can_be_read() {
    conformance::what_was_answered_can_be_read(&Server::new()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_holds_its_own_events() {
    conformance::a_stream_holds_its_own_events(&Server::new()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_stream_is_read_whole() {
    conformance::a_long_stream_is_read_whole(&Server::new()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_is_read_from_anywhere() {
    conformance::the_log_is_read_from_anywhere(&Server::new()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_writer_is_never_skipped() {
    conformance::a_slow_writer_is_never_skipped(&Server::new()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_committed_is_what_was_seen() {
    conformance::what_was_committed_is_what_was_seen(&Server::new()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_is_seen_whole() {
    conformance::a_command_is_seen_whole(&Server::new()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subscription_sees_everything() {
    conformance::a_subscription_sees_everything(&Server::new()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_time_is_one_position() {
    conformance::a_time_is_one_position(&Server::new()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repeated_command_gets_its_first_result() {
    conformance::a_repeated_command_gets_its_first_result(&Server::new()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repeated_command_may_name_another_stream() {
    conformance::a_repeated_command_may_name_another_stream(&Server::new()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reused_command_id_is_refused() {
    conformance::a_reused_command_id_is_refused(&Server::new()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_repeated_at_once_is_stored_once() {
    conformance::a_command_repeated_at_once_is_stored_once(&Server::new()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_command_is_not_remembered() {
    conformance::a_refused_command_is_not_remembered(&Server::new()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stored_command_is_found() {
    conformance::a_stored_command_is_found(&Server::new()).await;
}
