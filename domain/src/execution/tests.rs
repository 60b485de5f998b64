//! The course of an execution.

use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::history::{at, given, id, outlasted, sealed, walk};

#[test]
fn an_execution_is_asked_for_once() {
    given::<Execution>(vec![])
        .when(ExecutionCommand::Request(request()))
        .then_expect_events(vec![requested()]);
    for past in [vec![requested()], running(), ended()] {
        given::<Execution>(past)
            .when(ExecutionCommand::Request(request()))
            .then_expect_error(ExecutionError::AlreadyRequested);
    }
}

#[test]
fn one_worker_at_a_time_runs_it() {
    given::<Execution>(vec![requested()])
        .when(start(1, 0))
        .then_expect_events(vec![started(1, 1, 60)]);
    given::<Execution>(running())
        .when(start(2, 59))
        .then_expect_error(ExecutionError::Lease(LeaseError::Held { until: at(60) }));
    given::<Execution>(running()).when(start(2, 60)).then_expect_events(vec![started(2, 2, 120)]);
}

#[test]
fn only_the_newest_claim_may_report() {
    let reports = |fence| {
        [start_step(fence), finish_step(fence, 1), fail_step(fence, 1), finish(fence), fail(fence)]
    };
    for past in [vec![requested()], [running(), vec![started(2, 2, 120)]].concat()] {
        for command in reports(1) {
            given::<Execution>(past.clone())
                .when(command)
                .then_expect_error(ExecutionError::Lease(LeaseError::Lost));
        }
    }
}

#[test]
fn a_step_begins_and_ends() {
    given::<Execution>(running()).when(start_step(1)).then_expect_events(vec![step_started(1, 1)]);
    let past = [running(), vec![step_started(1, 1)]].concat();
    given::<Execution>(past.clone())
        .when(finish_step(1, 1))
        .then_expect_events(vec![step_succeeded(1, 1)]);
    given::<Execution>(past.clone())
        .when(fail_step(1, 1))
        .then_expect_events(vec![step_failed(1, 1)]);
    given::<Execution>(past).when(start_step(1)).then_expect_error(ExecutionError::StepRunning);
}

#[test]
fn a_failed_step_may_be_tried_again_and_a_done_one_may_not() {
    let past = [running(), vec![step_started(1, 1), step_failed(1, 1)]].concat();
    given::<Execution>(past).when(start_step(1)).then_expect_events(vec![step_started(1, 2)]);
    let past = [running(), vec![step_started(1, 1), step_succeeded(1, 1)]].concat();
    given::<Execution>(past).when(start_step(1)).then_expect_error(ExecutionError::StepSucceeded);
}

#[test]
fn a_step_that_was_cut_off_is_begun_again_by_the_next_worker() {
    let past = [running(), vec![step_started(1, 1), started(2, 2, 120)]].concat();
    given::<Execution>(past.clone())
        .when(start_step(2))
        .then_expect_events(vec![step_started(2, 2)]);
    // What it did not begin itself it cannot end.
    for command in [finish_step(2, 1), fail_step(2, 1)] {
        given::<Execution>(past.clone())
            .when(command)
            .then_expect_error(ExecutionError::StepNotRunning);
    }
}

#[test]
fn an_attempt_that_is_over_is_not_reported_on() {
    let past =
        [running(), vec![step_started(1, 1), step_failed(1, 1), step_started(1, 2)]].concat();
    given::<Execution>(past)
        .when(finish_step(1, 1))
        .then_expect_error(ExecutionError::StepNotRunning);
    for command in [finish_step(1, 1), fail_step(1, 1)] {
        given::<Execution>(running())
            .when(command)
            .then_expect_error(ExecutionError::StepNotRunning);
    }
}

#[test]
fn an_execution_succeeds_when_no_step_runs() {
    let past = [running(), vec![step_started(1, 1)]].concat();
    given::<Execution>(past).when(finish(1)).then_expect_error(ExecutionError::StepRunning);
    let past = [running(), vec![step_started(1, 1), step_succeeded(1, 1)]].concat();
    given::<Execution>(past).when(finish(1)).then_expect_events(vec![ExecutionEvent::Succeeded {
        fence: 1,
        output: payload("output"),
    }]);
}

#[test]
fn an_execution_fails_even_while_a_step_runs() {
    let past = [running(), vec![step_started(1, 1)]].concat();
    given::<Execution>(past).when(fail(1)).then_expect_events(vec![failed(1)]);
}

#[test]
fn an_execution_is_cancelled_before_it_ends() {
    let cancelled = || ExecutionEvent::Cancelled { reason: CancelReason::Stopped };
    for past in [vec![requested()], running()] {
        given::<Execution>(past.clone()).when(cancel()).then_expect_events(vec![cancelled()]);
        given::<Execution>([past, vec![cancelled()]].concat())
            .when(cancel())
            .then_expect_events(vec![]);
    }
    given::<Execution>(ended()).when(cancel()).then_expect_error(ExecutionError::Ended);
}

#[test]
fn what_has_ended_stays_ended() {
    for command in
        [start(1, 999), start_step(1), finish_step(1, 1), fail_step(1, 1), finish(1), fail(1)]
    {
        given::<Execution>(ended()).when(command).then_expect_error(ExecutionError::Ended);
    }
}

#[test]
fn what_was_never_asked_for_is_not_found() {
    for command in [start(1, 0), start_step(1), finish(1), fail(1), cancel()] {
        given::<Execution>(vec![]).when(command).then_expect_error(ExecutionError::NotFound);
    }
}

#[test]
fn what_was_asked_for_is_known_for_ever() {
    let request_after = |events: Vec<ExecutionEvent>| {
        let mut execution = Execution::default();
        events.into_iter().for_each(|event| execution.apply(event));
        execution.request().cloned()
    };
    assert_eq!(request_after(vec![]), None);
    for past in [vec![requested()], running(), ended()] {
        assert_eq!(request_after(past), Some(request()));
    }
}

#[test]
fn several_things_are_done_together_or_not_at_all() {
    let two = |fence, command: fn(u64) -> ExecutionCommand| {
        ExecutionCommand::Together(vec![command(fence), finish_step(fence, 1), finish(fence)])
    };
    given::<Execution>(running()).when(two(1, start_step)).then_expect_events(vec![
        step_started(1, 1),
        step_succeeded(1, 1),
        ExecutionEvent::Succeeded { fence: 1, output: payload("output") },
    ]);
    // The second one fails: nothing of the first is left.
    given::<Execution>(running())
        .when(two(1, skip_step))
        .then_expect_error(ExecutionError::StepNotRunning);
    given::<Execution>(running())
        .when(ExecutionCommand::Together(vec![]))
        .then_expect_events(vec![]);
}

#[test]
fn a_step_that_is_skipped_is_done_with() {
    let skipped = || ExecutionEvent::StepSkipped { fence: 1, step_id: step() };
    given::<Execution>(running()).when(skip_step(1)).then_expect_events(vec![skipped()]);
    for command in [skip_step(1), start_step(1)] {
        given::<Execution>([running(), vec![skipped()]].concat())
            .when(command)
            .then_expect_error(ExecutionError::StepSucceeded);
    }
    let past = [running(), vec![step_started(1, 1)]].concat();
    given::<Execution>(past).when(skip_step(1)).then_expect_error(ExecutionError::StepRunning);
}

#[test]
fn who_waits_gives_its_claim_back() {
    given::<Execution>(running()).when(wait(1)).then_expect_events(vec![waiting(1)]);
    let other = ExecutionEvent::StepStarted {
        fence: 1,
        step_id: "ones".to_owned(),
        attempt: 1,
        input: None,
    };
    let past = [running(), vec![other]].concat();
    given::<Execution>(past).when(wait(1)).then_expect_error(ExecutionError::StepRunning);
    // Another worker goes on, long before the first claim would have run out.
    let past = [running(), vec![waiting(1)]].concat();
    given::<Execution>(past.clone()).when(start(2, 1)).then_expect_events(vec![started(2, 2, 61)]);
    let past = [past, vec![started(2, 2, 61)]].concat();
    given::<Execution>(past)
        .when(wait(1))
        .then_expect_error(ExecutionError::Lease(LeaseError::Lost));
}

#[test]
fn whoever_claims_a_step_that_waits_goes_on_with_the_same_attempt() {
    let past = [running(), vec![step_started(1, 1), waiting(1), started(2, 2, 61)]].concat();
    given::<Execution>(past.clone())
        .when(finish_step(2, 1))
        .then_expect_events(vec![step_succeeded(2, 1)]);
    given::<Execution>(past.clone())
        .when(finish_step(1, 1))
        .then_expect_error(ExecutionError::Lease(LeaseError::Lost));
    given::<Execution>(past.clone())
        .when(start_step(2))
        .then_expect_error(ExecutionError::StepRunning);
    // It was cut off while it waited: it still waits for whoever comes then.
    let past = [past, vec![started(3, 3, 99)]].concat();
    given::<Execution>(past).when(fail_step(3, 1)).then_expect_events(vec![step_failed(3, 1)]);
    // It was cut off while it ran.
    let past = [running(), vec![step_started(1, 1), started(2, 2, 120)]].concat();
    given::<Execution>(past).when(start_step(2)).then_expect_events(vec![step_started(2, 2)]);
}

#[test]
fn items_of_a_step_wait_together_and_no_longer_than_the_step() {
    let begun = |fence, id: &str, attempt| ExecutionEvent::StepStarted {
        fence,
        step_id: id.to_owned(),
        attempt,
        input: None,
    };
    let wait_of =
        |id: &str| ExecutionCommand::Wait { fence: 1, step_id: id.to_owned(), until: at(3_600) };
    let waits =
        |id: &str| ExecutionEvent::Waiting { fence: 1, step_id: id.to_owned(), until: at(3_600) };
    let past = [running(), vec![begun(1, "one", 1), begun(1, "one[0]", 1), begun(1, "one[1]", 1)]];
    let both = ExecutionCommand::Together(vec![wait_of("one[0]"), wait_of("one[1]")]);
    given::<Execution>(past.concat())
        .when(both)
        .then_expect_events(vec![waits("one[0]"), waits("one[1]")]);

    let claimed = [past.concat(), vec![waits("one[1]"), started(2, 2, 120)]].concat();
    // The step and the item that waited go on; the other item was cut off.
    let again =
        |id: &str| ExecutionCommand::StartStep { fence: 2, step_id: id.to_owned(), input: None };
    for id in ["one", "one[1]"] {
        given::<Execution>(claimed.clone())
            .when(again(id))
            .then_expect_error(ExecutionError::StepRunning);
    }
    given::<Execution>(claimed.clone())
        .when(again("one[0]"))
        .then_expect_events(vec![begun(2, "one[0]", 2)]);

    let mut state = Execution::default();
    [claimed, vec![step_failed(2, 1)]].concat().into_iter().for_each(|event| state.apply(event));
    let Execution::Running { waits, .. } = state else { panic!("it runs") };
    assert_eq!(waits.len(), 0, "{waits:?}");
}

#[test]
fn what_is_paused_stands_still_until_it_is_continued() {
    use ExecutionCommand as Do;
    let paused = || vec![ExecutionEvent::Paused {}];
    for past in [vec![requested()], running()] {
        given::<Execution>(past.clone()).when(Do::Pause).then_expect_events(paused());
        given::<Execution>(past.clone())
            .when(Do::Continue)
            .then_expect_error(ExecutionError::NotPaused);
        let still = [past, paused()].concat();
        given::<Execution>(still.clone()).when(Do::Pause).then_expect_events(vec![]);
        given::<Execution>(still.clone())
            .when(start(1, 999))
            .then_expect_error(ExecutionError::Paused);
        given::<Execution>(still.clone())
            .when(Do::Continue)
            .then_expect_events(vec![ExecutionEvent::Continued {}]);
        given::<Execution>([still.clone(), vec![ExecutionEvent::Continued {}]].concat())
            .when(start(1, 999))
            .inspect_result()
            .unwrap();
        given::<Execution>(still)
            .when(cancel())
            .then_expect_events(vec![ExecutionEvent::Cancelled { reason: CancelReason::Stopped }]);
    }
    // The step that runs may end; the next one does not begin.
    let past = [running(), vec![step_started(1, 1)], paused()].concat();
    given::<Execution>(past.clone())
        .when(finish_step(1, 1))
        .then_expect_events(vec![step_succeeded(1, 1)]);
    let past = [past, vec![step_failed(1, 1)]].concat();
    given::<Execution>(past).when(start_step(1)).then_expect_error(ExecutionError::Paused);
    given::<Execution>(ended()).when(Do::Pause).then_expect_error(ExecutionError::Ended);
}

#[test]
fn what_takes_too_long_is_over() {
    let limit = TimeLimit::Execution;
    let timed_out = || ExecutionEvent::TimedOut { limit: TimeLimit::Execution };
    for past in [vec![requested()], running()] {
        given::<Execution>(past.clone())
            .when(ExecutionCommand::TimeOut { limit })
            .then_expect_events(vec![timed_out()]);
        let past = [past, vec![timed_out()]].concat();
        given::<Execution>(past.clone())
            .when(ExecutionCommand::TimeOut { limit })
            .then_expect_events(vec![]);
        given::<Execution>(past).when(cancel()).then_expect_error(ExecutionError::Ended);
    }
    // Whoever waited for a worker in vain, and says so too late.
    let limit = TimeLimit::Queue;
    given::<Execution>(running())
        .when(ExecutionCommand::TimeOut { limit })
        .then_expect_events(vec![]);
}

#[test]
fn what_is_repeated_begins_behind_what_is_reused() {
    let reused = || ExecutionEvent::StepReused { step_id: step(), output: payload("output") };
    let retried = || ExecutionEvent::Retried { of: id(7), from_step: Some("two".to_owned()) };
    given::<Execution>(vec![])
        .when(ExecutionCommand::Retry {
            request: request(),
            of: id(7),
            from_step: Some("two".to_owned()),
            reused: vec![(step(), payload("output"))],
        })
        .then_expect_events(vec![requested(), retried(), reused()]);
    let past = vec![requested(), retried(), reused(), started(1, 1, 60)];
    given::<Execution>(past).when(start_step(1)).then_expect_error(ExecutionError::StepSucceeded);
}

#[test]
fn what_an_event_starts_says_so_and_is_asked_for_once() {
    let cause = Cause {
        event: id(8),
        event_type: "file.indexed.v1".to_owned(),
        subject: "file-1".to_owned(),
        depth: 2,
    };
    let reacted = ExecutionEvent::Reacted {
        event: id(8),
        event_type: "file.indexed.v1".to_owned(),
        subject: "file-1".to_owned(),
        depth: 2,
    };
    let react = ExecutionCommand::React { request: request(), cause };
    given::<Execution>(vec![])
        .when(react.clone())
        .then_expect_events(vec![requested(), reacted.clone()]);
    given::<Execution>(vec![requested(), reacted.clone()])
        .when(react)
        .then_expect_error(ExecutionError::AlreadyRequested);
    given::<Execution>(vec![requested(), reacted])
        .when(start(1, 0))
        .then_expect_events(vec![started(1, 1, 60)]);
}

#[test]
fn every_refusal_has_its_code() {
    let table = [
        (ExecutionError::NotFound, RefusalKind::NotFound, "execution_not_found"),
        (ExecutionError::AlreadyRequested, RefusalKind::Conflict, "execution_already_requested"),
        (ExecutionError::Ended, RefusalKind::Conflict, "execution_ended"),
        (ExecutionError::StepRunning, RefusalKind::Conflict, "step_running"),
        (ExecutionError::StepSucceeded, RefusalKind::Conflict, "step_already_succeeded"),
        (ExecutionError::StepNotRunning, RefusalKind::Conflict, "step_not_running"),
        (ExecutionError::NotEnded, RefusalKind::Conflict, "execution_not_ended"),
        (ExecutionError::NothingFailed, RefusalKind::Conflict, "nothing_failed"),
        (ExecutionError::UnknownStep("x".into()), RefusalKind::Invalid, "step_unknown"),
        (ExecutionError::Paused, RefusalKind::Conflict, "execution_paused"),
        (ExecutionError::NotPaused, RefusalKind::Conflict, "execution_not_paused"),
        (ExecutionError::Lease(LeaseError::Lost), RefusalKind::Conflict, "lease_lost"),
    ];
    for (refusal, kind, code) in table {
        assert_eq!(refusal.reason(), (kind, code));
    }
}

proptest! {
    #[test]
    fn the_log_tells_everything_and_no_step_is_done_twice(
        commands in prop::collection::vec(command(), 0..40),
    ) {
        let log = walk::<Execution>(commands);
        let done = |event: &&ExecutionEvent| matches!(event, ExecutionEvent::StepSucceeded { .. });
        prop_assert!(log.iter().filter(done).count() <= 1);
        let over = log.iter().position(|event| matches!(
            event,
            ExecutionEvent::Succeeded { .. }
                | ExecutionEvent::Failed { .. }
                | ExecutionEvent::Cancelled { .. }
                | ExecutionEvent::TimedOut { .. }
        ));
        prop_assert!(over.is_none_or(|over| over + 1 == log.len()), "nothing follows the end");
        let attempts: Vec<_> = log.iter().filter_map(|event| match event {
            ExecutionEvent::StepStarted { attempt, .. } => Some(*attempt),
            _ => None,
        }).collect();
        let expected: Vec<u32> = (1..=attempts.len() as u32).collect();
        prop_assert_eq!(attempts, expected, "attempts count up");
    }
}

fn command() -> impl Strategy<Value = ExecutionCommand> {
    let fence = || 1_u64..4;
    let attempt = || 1_u32..4;
    prop_oneof![
        4 => Just(ExecutionCommand::Request(request())),
        5 => (1_u8..4, 0_i64..200).prop_map(|(worker, now)| start(worker, now)),
        5 => fence().prop_map(start_step),
        3 => (fence(), attempt()).prop_map(|(fence, attempt)| finish_step(fence, attempt)),
        4 => (fence(), attempt()).prop_map(|(fence, attempt)| fail_step(fence, attempt)),
        1 => fence().prop_map(finish),
        1 => fence().prop_map(fail),
        1 => Just(cancel()),
        2 => fence().prop_map(wait),
        1 => fence().prop_map(skip_step),
        1 => Just(ExecutionCommand::Pause),
        2 => Just(ExecutionCommand::Continue),
        1 => Just(ExecutionCommand::TimeOut { limit: TimeLimit::Queue }),
        1 => (fence(), attempt()).prop_map(|(fence, attempt)| ExecutionCommand::Together(vec![
            start_step(fence),
            fail_step(fence, attempt),
            wait(fence),
        ])),
    ]
}

fn payload(text: &str) -> Payload {
    Payload::Sealed(sealed(text))
}

fn request() -> ExecutionRequest {
    ExecutionRequest {
        agent: id(1),
        version_id: id(2),
        digest: Digest::sha256("manifest"),
        trigger: Some(id(3)),
        input: payload("input"),
    }
}

fn requested() -> ExecutionEvent {
    let ExecutionRequest { agent, version_id, digest, trigger, input } = request();
    ExecutionEvent::Requested { agent, version_id, digest, trigger, input }
}

fn start(worker: u8, now: i64) -> ExecutionCommand {
    ExecutionCommand::Start(LeaseClaim {
        worker: id(worker),
        now: at(now),
        lease_until: at(now + 60),
        exclusive: false,
        gone: Arc::default(),
        outlasted: outlasted(now),
    })
}

fn started(worker: u8, fence: u64, until: i64) -> ExecutionEvent {
    ExecutionEvent::Started { worker: id(worker), fence, lease_until: at(until) }
}

fn running() -> Vec<ExecutionEvent> {
    vec![requested(), started(1, 1, 60)]
}

fn ended() -> Vec<ExecutionEvent> {
    [running(), vec![failed(1)]].concat()
}

fn step() -> String {
    "one".to_owned()
}

fn start_step(fence: u64) -> ExecutionCommand {
    ExecutionCommand::StartStep { fence, step_id: step(), input: Some(payload("input")) }
}

fn step_started(fence: u64, attempt: u32) -> ExecutionEvent {
    ExecutionEvent::StepStarted { fence, step_id: step(), attempt, input: Some(payload("input")) }
}

fn skip_step(fence: u64) -> ExecutionCommand {
    ExecutionCommand::SkipStep { fence, step_id: step() }
}

fn wait(fence: u64) -> ExecutionCommand {
    ExecutionCommand::Wait { fence, step_id: step(), until: at(3_600) }
}

fn waiting(fence: u64) -> ExecutionEvent {
    ExecutionEvent::Waiting { fence, step_id: step(), until: at(3_600) }
}

fn finish_step(fence: u64, attempt: u32) -> ExecutionCommand {
    ExecutionCommand::FinishStep { fence, step_id: step(), attempt, output: payload("output") }
}

fn step_succeeded(fence: u64, attempt: u32) -> ExecutionEvent {
    ExecutionEvent::StepSucceeded { fence, step_id: step(), attempt, output: payload("output") }
}

fn fail_step(fence: u64, attempt: u32) -> ExecutionCommand {
    ExecutionCommand::FailStep {
        fence,
        step_id: step(),
        attempt,
        code: "cel_failed".to_owned(),
        transient: true,
        error: payload("why"),
    }
}

fn step_failed(fence: u64, attempt: u32) -> ExecutionEvent {
    ExecutionEvent::StepFailed {
        fence,
        step_id: step(),
        attempt,
        code: "cel_failed".to_owned(),
        transient: true,
        error: payload("why"),
    }
}

fn finish(fence: u64) -> ExecutionCommand {
    ExecutionCommand::Finish { fence, output: payload("output") }
}

fn fail(fence: u64) -> ExecutionCommand {
    ExecutionCommand::Fail {
        fence,
        step_id: Some(step()),
        code: "step_failed".to_owned(),
        error: payload("why"),
    }
}

fn failed(fence: u64) -> ExecutionEvent {
    ExecutionEvent::Failed {
        fence,
        step_id: Some(step()),
        code: "step_failed".to_owned(),
        error: payload("why"),
    }
}

fn cancel() -> ExecutionCommand {
    ExecutionCommand::Cancel { reason: CancelReason::Stopped }
}
