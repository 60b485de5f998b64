//! What a run of the assistant allows.

use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::history::{at, given, id, outlasted, sealed, walk};

fn payload(text: &str) -> Payload {
    Payload::Sealed(sealed(text))
}

fn requested() -> ChatRunEvent {
    ChatRunEvent::Requested { session: Some(id(7)), messages: None }
}

fn started(worker: u8, fence: u64) -> ChatRunEvent {
    ChatRunEvent::Started { worker: id(worker), fence, lease_until: at(60) }
}

fn progressed(fence: u64, written: u64) -> ChatRunEvent {
    let text = Some(payload("piece"));
    ChatRunEvent::Progressed { fence, lease_until: at(90), written, text }
}

fn start(worker: u8, now: i64, exclusive: bool) -> ChatRunCommand {
    let (gone, outlasted) = (Arc::default(), outlasted(now));
    let (now, lease_until) = (at(now), at(now + 60));
    let worker = id(worker);
    ChatRunCommand::Start(LeaseClaim { worker, now, lease_until, exclusive, gone, outlasted })
}

fn progress(fence: u64, bytes: u64) -> ChatRunCommand {
    let text = Some(payload("piece"));
    ChatRunCommand::Progress { fence, lease_until: at(90), bytes, text }
}

fn finish(fence: u64) -> ChatRunCommand {
    ChatRunCommand::Finish { fence, answer: payload("answer") }
}

fn fail(fence: u64) -> ChatRunCommand {
    let (code, error) = ("llm_stalled".to_owned(), payload("error"));
    ChatRunCommand::Fail { fence, code, error, transient: true }
}

#[test]
fn a_run_is_requested_once() {
    let request = ChatRunCommand::Request { session: Some(id(7)), messages: None };
    given::<ChatRun>(vec![]).when(request.clone()).then_expect_events(vec![requested()]);
    given::<ChatRun>(vec![requested()]).when(request).then_expect_events(vec![]);
    given::<ChatRun>(vec![]).when(start(1, 0, false)).then_expect_error(ChatRunError::NotFound);
    given::<ChatRun>(vec![]).when(ChatRunCommand::Cancel).then_expect_error(ChatRunError::NotFound);
}

#[test]
fn an_answer_is_written_piece_by_piece_by_one_worker() {
    let begun = || vec![requested(), started(1, 1)];
    given::<ChatRun>(begun()).when(progress(1, 5)).then_expect_events(vec![progressed(1, 5)]);
    let more = vec![requested(), started(1, 1), progressed(1, 5)];
    given::<ChatRun>(more.clone()).when(progress(1, 4)).then_expect_events(vec![progressed(1, 9)]);
    let done = ChatRunEvent::Succeeded { fence: 1, written: 5, answer: payload("answer") };
    given::<ChatRun>(more).when(finish(1)).then_expect_events(vec![done]);
    for command in [progress(2, 1), finish(2), fail(2)] {
        given::<ChatRun>(begun())
            .when(command)
            .then_expect_error(ChatRunError::Lease(LeaseError::Lost));
    }
}

#[test]
fn a_run_is_taken_over_when_its_lease_is_out_and_the_answer_begins_anew() {
    // The second worker waits for the end of the lease that the last piece prolonged.
    let past = || vec![requested(), started(1, 1), progressed(1, 5)];
    let held = ChatRunError::Lease(LeaseError::Held { until: at(90) });
    given::<ChatRun>(past()).when(start(2, 61, false)).then_expect_error(held);
    let taken = ChatRunEvent::Started { worker: id(2), fence: 2, lease_until: at(150) };
    given::<ChatRun>(past()).when(start(2, 90, false)).then_expect_events(vec![taken.clone()]);
    // Where no other process can be at it, nobody waits.
    let at_once = ChatRunEvent::Started { worker: id(2), fence: 2, lease_until: at(61) };
    given::<ChatRun>(past()).when(start(2, 1, true)).then_expect_events(vec![at_once]);

    let after = vec![requested(), started(1, 1), progressed(1, 5), taken];
    given::<ChatRun>(after.clone())
        .when(progress(1, 1))
        .then_expect_error(ChatRunError::Lease(LeaseError::Lost));
    given::<ChatRun>(after).when(progress(2, 3)).then_expect_events(vec![progressed(2, 3)]);
}

#[test]
fn what_ends_a_run_first_counts() {
    let cancelled = || vec![requested(), started(1, 1), ChatRunEvent::Cancelled {}];
    for command in [start(1, 0, true), progress(1, 1), finish(1), fail(1)] {
        given::<ChatRun>(cancelled()).when(command).then_expect_error(ChatRunError::Ended);
    }
    given::<ChatRun>(cancelled()).when(ChatRunCommand::Cancel).then_expect_events(vec![]);
    given::<ChatRun>(vec![requested()])
        .when(ChatRunCommand::Cancel)
        .then_expect_events(vec![ChatRunEvent::Cancelled {}]);
    let done = ChatRunEvent::Succeeded { fence: 1, written: 0, answer: payload("answer") };
    given::<ChatRun>(vec![requested(), started(1, 1), done])
        .when(ChatRunCommand::Cancel)
        .then_expect_error(ChatRunError::Ended);
}

proptest! {
    #[test]
    fn whatever_is_asked_the_log_tells_the_whole_state(
        steps in prop::collection::vec((0..8_u8, 1..4_u64, 0..200_i64), 0..24)
    ) {
        let commands = steps.into_iter().map(|(what, fence, now)| match what {
            0 | 1 => ChatRunCommand::Request { session: None, messages: Some(payload("all")) },
            2 | 3 => start(fence as u8, now, now % 2 == 0),
            4 => ChatRunCommand::Retrieve { fence, passages: 3 },
            5 => progress(fence, 4),
            6 => fail(fence),
            _ if now % 5 == 0 => ChatRunCommand::Cancel,
            _ => finish(fence),
        });
        walk::<ChatRun>(commands.collect());
    }
}
