//! Who is gone, by what is heard of whom.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use eventlog::Pulse;
use uuid::Uuid;

use super::{EVERY, Heard, SILENCE};

const OWN: Uuid = Uuid::from_u128(1);
const OTHER: Uuid = Uuid::from_u128(2);

fn pulse(worker: Uuid, beats: u64) -> Pulse {
    Pulse { worker, beats, has_left: false }
}

fn nobody() -> BTreeSet<Uuid> {
    BTreeSet::new()
}

#[test]
fn a_worker_is_gone_after_a_silence_that_was_listened_to_and_back_with_its_next_beat() {
    let begun = Instant::now();
    let mut heard = Heard::default();
    let mut beats = 7;
    let mut now = begun;
    // It beats, slower than it should.
    for _ in 0..10 {
        now += SILENCE - EVERY;
        beats += 1;
        assert_eq!(heard.listen(now, OWN, &[pulse(OWN, 1), pulse(OTHER, beats)]), nobody());
    }
    let last = now;
    while now - last < SILENCE {
        assert_eq!(heard.listen(now, OWN, &[pulse(OWN, 1), pulse(OTHER, beats)]), nobody());
        now += EVERY;
    }
    let gone = heard.listen(now, OWN, &[pulse(OWN, 1), pulse(OTHER, beats)]);
    assert_eq!(gone, BTreeSet::from([OTHER]), "and its own row stands still without harm");
    assert_eq!(heard.listen(now + EVERY, OWN, &[pulse(OTHER, beats + 1)]), nobody());
}

#[test]
fn whoever_did_not_listen_takes_nobody_for_gone() {
    let now = Instant::now();
    let all = [pulse(OTHER, 7)];
    // It has just begun.
    assert_eq!(Heard::default().listen(now, OWN, &all), nobody());
    // It stood still itself, for so long that a living one's next beat may not be there yet.
    let mut heard = Heard::default();
    heard.listen(now, OWN, &all);
    assert_eq!(heard.listen(now + SILENCE * 10, OWN, &all), nobody());
    assert_eq!(heard.listen(now + SILENCE * 10 + EVERY, OWN, &all), nobody());
    // One that is not there is not known.
    assert_eq!(heard.listen(now + SILENCE * 10 + EVERY * 2, OWN, &[]), nobody());
}

#[test]
fn whoever_says_so_is_gone_at_once() {
    let left = Pulse { has_left: true, ..pulse(OTHER, 7) };
    let gone = Heard::default().listen(Instant::now(), OWN, &[left, pulse(Uuid::from_u128(3), 1)]);
    assert_eq!(gone, BTreeSet::from([OTHER]));
    assert!(EVERY * 3 < SILENCE, "a beat that was lost is no silence");
    assert!(SILENCE < Duration::from_secs(30));
}
