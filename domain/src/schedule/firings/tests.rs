//! That an instant is settled once.

use proptest::prelude::*;

use super::*;
use crate::history::{at, given, id, sealed, walk};

#[test]
fn an_instant_fires_once_and_so_does_none_before_it() {
    given::<Firings>(vec![]).when(fire(10)).then_expect_events(vec![fired(10)]);
    for settled in [10, 9] {
        given::<Firings>(vec![fired(10)])
            .when(fire(settled))
            .then_expect_error(FiringError::Settled);
    }
    given::<Firings>(vec![fired(10)]).when(fire(11)).then_expect_events(vec![fired(11)]);
}

#[test]
fn what_was_skipped_or_passed_over_does_not_fire() {
    let skipped = FiringEvent::Skipped { instant: at(10), reason: SkipReason::Overlap };
    for past in [skipped.clone(), FiringEvent::PassedOver { up_to: at(10) }] {
        given::<Firings>(vec![past.clone()]).when(fire(10)).then_expect_error(FiringError::Settled);
        given::<Firings>(vec![past.clone()])
            .when(FiringCommand::PassOver { up_to: at(10) })
            .then_expect_events(vec![]);
        given::<Firings>(vec![past]).when(fire(11)).then_expect_events(vec![fired(11)]);
    }
    given::<Firings>(vec![]).when(skip(10)).then_expect_events(vec![skipped]);
}

#[test]
fn what_waits_fires_later_whatever_fired_meanwhile() {
    let past = vec![queued(10), fired(20), FiringEvent::PassedOver { up_to: at(30) }];
    given::<Firings>(past.clone()).when(fire(10)).then_expect_events(vec![fired(10)]);
    given::<Firings>(past.clone()).when(queue(10)).then_expect_error(FiringError::Settled);
    let skipped = FiringEvent::Skipped { instant: at(10), reason: SkipReason::Overlap };
    given::<Firings>(past.clone()).when(skip(10)).then_expect_events(vec![skipped]);
    let over = [past, vec![fired(10)]].concat();
    for again in [fire(10), skip(10), fire(30)] {
        given::<Firings>(over.clone()).when(again).then_expect_error(FiringError::Settled);
    }
}

#[test]
fn no_more_wait_than_there_is_place_for() {
    let full: Vec<_> = (0..MAX_WAITING as i64).map(queued).collect();
    let instant = at(1_000);
    given::<Firings>(full)
        .when(queue(1_000))
        .then_expect_events(vec![FiringEvent::Skipped { instant, reason: SkipReason::QueueFull }]);
}

#[test]
fn only_the_newest_firing_fails_and_only_once() {
    let failed = FiringEvent::Failed {
        instant: at(10),
        code: "input_invalid".to_owned(),
        error: Payload::Sealed(sealed("error")),
    };
    given::<Firings>(vec![fired(10)]).when(fail(10)).then_expect_events(vec![failed.clone()]);
    for past in [vec![], vec![fired(9)], vec![fired(10), failed]] {
        given::<Firings>(past).when(fail(10)).then_expect_error(FiringError::NotFired);
    }
}

#[test]
fn every_refusal_has_its_code() {
    assert_eq!(FiringError::Settled.reason(), (RefusalKind::Conflict, "firing_settled"));
    assert_eq!(FiringError::NotFired.reason(), (RefusalKind::Conflict, "firing_not_newest"));
}

proptest! {
    #[test]
    fn the_log_tells_everything_and_no_instant_fires_twice(
        asked in prop::collection::vec((0..5_u8, 0..20_i64), 0..40),
    ) {
        let commands = asked.into_iter().map(|(what, second)| match what {
            0 => fire(second),
            1 => queue(second),
            2 => skip(second),
            3 => FiringCommand::PassOver { up_to: at(second) },
            _ => fail(second),
        });
        let mut fired = BTreeSet::new();
        for event in walk::<Firings>(commands.collect()) {
            if let FiringEvent::Fired { instant, .. } = event {
                prop_assert!(fired.insert(instant), "{instant} fired twice");
            }
        }
    }
}

fn fire(second: i64) -> FiringCommand {
    FiringCommand::Fire { instant: at(second), execution: id(1) }
}

fn fired(second: i64) -> FiringEvent {
    FiringEvent::Fired { instant: at(second), execution: id(1) }
}

fn queue(second: i64) -> FiringCommand {
    FiringCommand::Queue { instant: at(second) }
}

fn queued(second: i64) -> FiringEvent {
    FiringEvent::Queued { instant: at(second) }
}

fn skip(second: i64) -> FiringCommand {
    FiringCommand::Skip { instant: at(second), reason: SkipReason::Overlap }
}

fn fail(second: i64) -> FiringCommand {
    FiringCommand::Fail {
        instant: at(second),
        code: "input_invalid".to_owned(),
        error: Payload::Sealed(sealed("error")),
    }
}
