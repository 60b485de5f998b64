//! That no two workers hold a lease at once.

use proptest::prelude::*;

use super::*;
use crate::history::{at, id, outlasted};

#[test]
fn the_first_claim_gets_the_first_fence() {
    assert_eq!(Lease::default().claim(&claim(1, 0)), Ok(1));
}

#[test]
fn a_held_lease_is_refused_to_others_until_it_runs_out() {
    let lease = held_by(1);
    assert_eq!(lease.claim(&claim(2, 59)), Err(LeaseError::Held { until: at(60) }));
    assert_eq!(lease.claim(&claim(2, 60)), Ok(8));
}

#[test]
fn the_same_worker_may_claim_again() {
    assert_eq!(held_by(1).claim(&claim(1, 30)), Ok(8));
}

#[test]
fn who_has_the_log_for_itself_may_always_claim() {
    let alone = LeaseClaim { exclusive: true, ..claim(2, 30) };
    assert_eq!(held_by(1).claim(&alone), Ok(8));
}

#[test]
fn the_claim_of_a_worker_that_is_gone_is_void_and_nobody_elses() {
    let heir = LeaseClaim { gone: Arc::new([id(1)].into()), ..claim(2, 30) };
    assert_eq!(held_by(1).claim(&heir), Ok(8));
    assert_eq!(held_by(3).claim(&heir), Err(LeaseError::Held { until: at(60) }));
}

#[test]
fn no_clock_says_that_the_lease_of_somebody_else_has_run_out() {
    let early = LeaseClaim { outlasted: Arc::default(), ..claim(2, 1_000_000) };
    assert_eq!(held_by(1).claim(&early), Err(LeaseError::Held { until: at(60) }));
    let behind = LeaseClaim { outlasted: outlasted(60), ..claim(2, -1_000_000) };
    assert_eq!(held_by(1).claim(&behind), Ok(8));
}

#[test]
fn a_lease_ends_in_the_future() {
    let ended = LeaseClaim { lease_until: at(30), ..claim(1, 30) };
    assert_eq!(Lease::default().claim(&ended), Err(LeaseError::EndsInPast));
    assert_eq!(LeaseError::EndsInPast.reason(), (RefusalKind::Invalid, "lease_until_in_past"));
}

#[test]
fn only_the_newest_fence_may_report() {
    let lease = held_by(1);
    assert_eq!(lease.check(7), Ok(()));
    assert_eq!(lease.check(6), Err(LeaseError::Lost));
    assert_eq!(lease.check(8), Err(LeaseError::Lost));
    assert_eq!(Lease::default().check(0), Err(LeaseError::Lost), "nobody has begun");
}

proptest! {
    /// Workers ask at random moments; each believes in what it was given until that runs out.
    #[test]
    fn no_two_workers_hold_it_at_once(
        wishes in prop::collection::vec((1_u8..4, 0_i64..20, 1_i64..40), 1..60),
    ) {
        let mut lease = Lease::default();
        let mut now = 0;
        let mut highest = 0;
        let mut given: Vec<(u8, u64, i64)> = Vec::new();
        for (worker, pause, length) in wishes {
            now += pause;
            let wish = LeaseClaim {
                worker: id(worker),
                now: at(now),
                lease_until: at(now + length),
                exclusive: false,
                gone: Arc::default(),
                outlasted: outlasted(now),
            };
            if let Ok(fence) = lease.claim(&wish) {
                prop_assert!(fence > highest, "fences only rise");
                highest = fence;
                // Who claims again gives up what it had.
                given.retain(|(other, ..)| *other != worker);
                for (other, _, until) in &given {
                    prop_assert!(*until <= now, "{other} still holds it");
                }
                lease.taken(id(worker), fence, at(now + length));
                given.push((worker, fence, now + length));
            }
            let believed = given.iter().filter(|(_, fence, _)| lease.check(*fence).is_ok());
            prop_assert!(believed.count() <= 1, "at most one may report");
        }
    }
}

fn claim(worker: u8, now: i64) -> LeaseClaim {
    LeaseClaim {
        worker: id(worker),
        now: at(now),
        lease_until: at(now + 60),
        exclusive: false,
        gone: Arc::default(),
        outlasted: outlasted(now),
    }
}

/// Held under fence 7 until second 60.
fn held_by(worker: u8) -> Lease {
    let mut lease = Lease::default();
    lease.taken(id(worker), 7, at(60));
    lease
}
