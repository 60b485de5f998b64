//! That no key has more inside than it may, and that nobody is passed over.

use proptest::prelude::*;

use super::*;
use crate::history::{at, given, id, walk};

#[test]
fn whoever_finds_a_place_takes_it_and_taking_it_again_changes_nothing() {
    given::<Lane>(vec![]).when(enter(1, None, 1)).then_expect_events(vec![entered(1, None)]);
    given::<Lane>(vec![entered(1, None)]).when(enter(1, None, 1)).then_expect_events(vec![]);
    given::<Lane>(vec![entered(1, None)])
        .when(enter(2, None, 2))
        .then_expect_events(vec![entered(2, None)]);
}

#[test]
fn whoever_finds_none_waits_and_waiting_again_changes_nothing() {
    given::<Lane>(vec![entered(1, None)])
        .when(enter(2, None, 1))
        .then_expect_events(vec![queued(2, None)]);
    given::<Lane>(vec![entered(1, None), queued(2, None)])
        .when(enter(2, None, 1))
        .then_expect_events(vec![]);
}

#[test]
fn the_oldest_of_those_who_wait_comes_first_whoever_came_first() {
    let waiting = vec![entered(1, None), queued(4, None), queued(3, None), left(1, None)];
    given::<Lane>(waiting.clone()).when(enter(4, None, 1)).then_expect_events(vec![]);
    given::<Lane>(waiting.clone())
        .when(enter(5, None, 1))
        .then_expect_events(vec![queued(5, None)]);
    given::<Lane>(waiting.clone())
        .when(enter(3, None, 1))
        .then_expect_events(vec![entered(3, None)]);
    given::<Lane>(waiting).when(enter(4, None, 2)).then_expect_events(vec![entered(4, None)]);
}

#[test]
fn each_key_has_places_of_its_own() {
    given::<Lane>(vec![entered(1, Some("a"))])
        .when(enter(2, Some("b"), 1))
        .then_expect_events(vec![entered(2, Some("b"))]);
    given::<Lane>(vec![entered(1, Some("a")), queued(2, Some("a"))])
        .when(enter(3, None, 1))
        .then_expect_events(vec![entered(3, None)]);
}

#[test]
fn a_key_is_settled_when_an_execution_comes() {
    given::<Lane>(vec![entered(1, Some("a")), queued(2, Some("a")), left(1, Some("a"))])
        .when(enter(2, Some("b"), 1))
        .then_expect_events(vec![entered(2, Some("a"))]);
    given::<Lane>(vec![entered(1, Some("a"))])
        .when(enter(1, Some("b"), 1))
        .then_expect_events(vec![]);
}

#[test]
fn whoever_does_not_wait_is_refused_and_passes_those_who_do() {
    let pushy = |number, max| LaneCommand::Enter { guest: guest(number, None), max, waits: false };
    given::<Lane>(vec![entered(1, None)]).when(pushy(2, 1)).then_expect_error(LaneError::Full);
    given::<Lane>(vec![entered(1, None), queued(2, None)])
        .when(pushy(3, 2))
        .then_expect_events(vec![entered(3, None)]);
}

#[test]
fn a_place_is_given_up_once() {
    given::<Lane>(vec![entered(1, Some("a"))])
        .when(LaneCommand::Leave { execution: id(1) })
        .then_expect_events(vec![left(1, Some("a"))]);
    given::<Lane>(vec![entered(1, None), queued(2, None)])
        .when(LaneCommand::Leave { execution: id(2) })
        .then_expect_events(vec![left(2, None)]);
    given::<Lane>(vec![entered(1, None), left(1, None)])
        .when(LaneCommand::Leave { execution: id(1) })
        .then_expect_events(vec![]);
}

#[test]
fn who_stops_waiting_keeps_the_place_that_he_got_meanwhile() {
    let give_up = LaneCommand::GiveUp { execution: id(2) };
    given::<Lane>(vec![entered(1, None), queued(2, None)])
        .when(give_up.clone())
        .then_expect_events(vec![left(2, None)]);
    given::<Lane>(vec![entered(2, None)]).when(give_up).then_expect_events(vec![]);
}

#[test]
fn after_many_events_how_things_stand_is_said_once_more() {
    let mut past = vec![entered(1, Some("a")), queued(2, Some("a"))];
    while past.len() as u64 + 2 < SUMMARIZED_AFTER {
        past.extend([entered(3, None), left(3, None)]);
    }
    past.push(entered(3, None));
    let (inside, waiting) = (vec![guest(1, Some("a"))], vec![guest(2, Some("a"))]);
    let summary = LaneEvent::Summarized { inside, waiting };
    given::<Lane>(past.clone())
        .when(LaneCommand::Leave { execution: id(3) })
        .then_expect_events(vec![left(3, None), summary.clone()]);
    given::<Lane>(past.clone()).when(enter(3, None, 1)).then_expect_events(vec![]);
    past.extend([left(3, None), summary]);
    given::<Lane>(past).when(enter(3, None, 1)).then_expect_events(vec![entered(3, None)]);
}

#[test]
fn all_summaries_together_are_no_longer_than_the_rest() {
    let mut lane = Lane::default();
    let (mut events, mut summaries, mut summarized) = (0, 0, 0);
    for number in 0..4_000_u128 {
        let execution = Uuid::from_u128(number + 1);
        let guest = Guest { execution, key: None, requested_at: at(1) };
        let enter = LaneCommand::Enter { guest, max: 1, waits: true };
        // A thousand are in it from then on.
        let newest = lane.waiting.last().filter(|_| number > 1_000 && number % 2 == 1);
        let leave = newest.map(|guest| LaneCommand::Leave { execution: guest.execution });
        for event in lane.decide(leave.unwrap_or(enter)).unwrap() {
            match &event {
                LaneEvent::Summarized { inside, waiting } => {
                    summaries += 1;
                    summarized += inside.len() + waiting.len();
                }
                _ => events += 1,
            }
            lane.apply(event);
        }
    }
    assert!(summaries > 0 && summarized <= events, "{summarized} of {events}");
}

#[test]
fn a_full_lane_has_its_code_and_a_sentence() {
    assert_eq!(LaneError::Full.reason(), (RefusalKind::Conflict, "lane_full"));
    assert!(LaneError::Full.to_string().contains("ask again"));
}

proptest! {
    #[test]
    fn no_key_has_more_inside_than_it_may(
        wishes in prop::collection::vec((0..4_u8, 1..9_u8, any::<bool>()), 0..60),
    ) {
        let key = |number: u8| (number.is_multiple_of(2)).then_some("even");
        let commands = wishes.into_iter().map(|(what, number, waits)| match what {
            0 => LaneCommand::Leave { execution: id(number) },
            1 => LaneCommand::GiveUp { execution: id(number) },
            _ => LaneCommand::Enter { guest: guest(number, key(number)), max: 2, waits },
        });
        let mut lane = Lane::default();
        for event in walk::<Lane>(commands.collect()) {
            lane.apply(event);
            for key in [None, digest(Some("even"))] {
                prop_assert!(lane.inside_of(&key).count() <= 2);
            }
            prop_assert!(lane.waiting.is_sorted_by_key(Guest::age));
            prop_assert!(lane.waiting.iter().all(|guest| !lane.has(guest.execution)));
        }
    }
}

fn digest(key: Option<&str>) -> Option<Digest> {
    key.map(Digest::sha256)
}

fn guest(number: u8, key: Option<&str>) -> Guest {
    let requested_at = at(i64::from(number));
    Guest { execution: id(number), key: digest(key), requested_at }
}

fn enter(number: u8, key: Option<&str>, max: u32) -> LaneCommand {
    LaneCommand::Enter { guest: guest(number, key), max, waits: true }
}

fn entered(number: u8, key: Option<&str>) -> LaneEvent {
    let Guest { execution, key, requested_at } = guest(number, key);
    LaneEvent::Entered { execution, key, requested_at }
}

fn queued(number: u8, key: Option<&str>) -> LaneEvent {
    let Guest { execution, key, requested_at } = guest(number, key);
    LaneEvent::Queued { execution, key, requested_at }
}

fn left(number: u8, key: Option<&str>) -> LaneEvent {
    LaneEvent::Left { execution: id(number), key: digest(key) }
}
