//! When what fires: over days that are longer or shorter, and with clocks that jump.

use proptest::prelude::*;

use super::*;

#[test]
fn a_pattern_fires_in_its_time_zone() {
    let madrid = schedule("0 3 * * *", "Europe/Madrid");
    assert_eq!(next(&madrid, "2026-01-15T00:00:00Z"), "2026-01-15T02:00:00Z");
    assert_eq!(next(&madrid, "2026-07-15T00:00:00Z"), "2026-07-15T01:00:00Z");
    assert_eq!(next(&madrid, "2026-07-15T01:00:00Z"), "2026-07-16T01:00:00Z");
    let kolkata = schedule("30 9 * * 1-5", "Asia/Kolkata");
    assert_eq!(next(&kolkata, "2026-01-16T05:00:00Z"), "2026-01-19T04:00:00Z");
}

#[test]
fn seconds_may_stand_in_front() {
    let quick = schedule("*/20 * * * * *", "UTC");
    assert_eq!(
        shown(&quick, "2026-01-01T00:00:00.5Z"),
        [
            "2026-01-01T00:00:20Z",
            "2026-01-01T00:00:40Z",
            "2026-01-01T00:01:00Z",
            "2026-01-01T00:01:20Z",
            "2026-01-01T00:01:40Z"
        ]
    );
}

#[test]
fn a_time_that_does_not_exist_fires_at_the_next_that_does() {
    // Madrid goes from 02:00 to 03:00 on 29 March 2026, at 01:00 UTC.
    let daily = schedule("30 2 * * *", "Europe/Madrid");
    assert_eq!(
        span(&daily, "2026-03-28T00:00:00Z", "2026-03-31T00:00:00Z"),
        ["2026-03-28T01:30:00Z", "2026-03-29T01:00:00Z", "2026-03-30T00:30:00Z"]
    );
    // New York from 02:00 to 03:00 on 8 March 2026, at 07:00 UTC.
    let daily = schedule("15 2 * * *", "America/New_York");
    assert_eq!(
        span(&daily, "2026-03-07T12:00:00Z", "2026-03-09T12:00:00Z"),
        ["2026-03-08T07:00:00Z", "2026-03-09T06:15:00Z"]
    );
    // Lord Howe from 02:00 to 02:30 on 4 October 2026, at 15:30 UTC of the day before.
    let daily = schedule("10 2 * * *", "Australia/Lord_Howe");
    assert_eq!(
        span(&daily, "2026-10-02T00:00:00Z", "2026-10-05T00:00:00Z"),
        ["2026-10-02T15:40:00Z", "2026-10-03T15:30:00Z", "2026-10-04T15:10:00Z"]
    );
    // Samoa had no 30 December 2011.
    let daily = schedule("0 9 * * *", "Pacific/Apia");
    assert_eq!(
        span(&daily, "2011-12-29T00:00:00Z", "2011-12-31T00:00:00Z"),
        ["2011-12-29T19:00:00Z", "2011-12-30T10:00:00Z", "2011-12-30T19:00:00Z"]
    );
}

#[test]
fn many_times_that_do_not_exist_fire_once() {
    let often = schedule("*/10 * * * *", "Europe/Madrid");
    assert_eq!(
        span(&often, "2026-03-29T00:45:00Z", "2026-03-29T01:15:00Z"),
        ["2026-03-29T00:50:00Z", "2026-03-29T01:00:00Z", "2026-03-29T01:10:00Z"]
    );
}

#[test]
fn a_time_that_exists_twice_fires_once() {
    // Madrid goes from 03:00 back to 02:00 on 25 October 2026, at 01:00 UTC.
    let daily = schedule("30 2 * * *", "Europe/Madrid");
    assert_eq!(
        span(&daily, "2026-10-24T12:00:00Z", "2026-10-26T12:00:00Z"),
        ["2026-10-25T00:30:00Z", "2026-10-26T01:30:00Z"]
    );
    // Asked in the middle, and in the second hour: the same.
    assert_eq!(next(&daily, "2026-10-25T00:30:00Z"), "2026-10-26T01:30:00Z");
    assert_eq!(next(&daily, "2026-10-25T01:10:00Z"), "2026-10-26T01:30:00Z");
    // New York from 02:00 back to 01:00 on 1 November 2026, at 06:00 UTC.
    let daily = schedule("30 1 * * *", "America/New_York");
    assert_eq!(
        span(&daily, "2026-11-01T00:00:00Z", "2026-11-02T12:00:00Z"),
        ["2026-11-01T05:30:00Z", "2026-11-02T06:30:00Z"]
    );
    // Lord Howe from 02:00 back to 01:30 on 5 April 2026, at 15:00 UTC of the day before.
    let daily = schedule("45 1 * * *", "Australia/Lord_Howe");
    assert_eq!(
        span(&daily, "2026-04-04T00:00:00Z", "2026-04-06T00:00:00Z"),
        ["2026-04-04T14:45:00Z", "2026-04-05T15:15:00Z"]
    );
}

#[test]
fn the_hour_that_exists_twice_is_counted_once_by_what_fires_often() {
    let often = schedule("*/30 * * * *", "Europe/Madrid");
    assert_eq!(
        span(&often, "2026-10-25T00:00:00Z", "2026-10-25T02:30:00Z"),
        ["2026-10-25T00:30:00Z", "2026-10-25T02:00:00Z", "2026-10-25T02:30:00Z"]
    );
}

#[test]
fn a_leap_day_comes_when_there_is_one() {
    let leap = schedule("0 12 29 2 *", "UTC");
    assert_eq!(
        shown(&leap, "2026-01-01T00:00:00Z")[..2],
        ["2028-02-29T12:00:00Z", "2032-02-29T12:00:00Z"]
    );
    assert_eq!(next(&leap, "2097-01-01T00:00:00Z"), "2104-02-29T12:00:00Z");
    let last = schedule("0 0 L 2 *", "UTC");
    assert_eq!(next(&last, "2027-03-01T00:00:00Z"), "2028-02-29T00:00:00Z");
}

#[test]
fn what_is_no_pattern_is_refused() {
    for text in [
        "",
        "*",
        "* * * *",
        "60 * * * *",
        "* * * * * * *",
        "@daily",
        "0 0 30 2 *",
        "0 0 31 4,6 *",
        "* * * * nonsense",
        "*/0 * * * *",
        "1-0-1 * * * *",
        "⏰ * * * *",
        "0 3 * * 8",
    ] {
        assert!(parse_cron(text).is_err(), "{text}");
    }
    assert!(parse_cron(&format!("{} * * * *", "0,".repeat(100) + "0")).is_err());
    for text in ["* * * * *", "0 3 * * MON-FRI", "*/5 0-6 1,15 JAN *", "0 0 L * *", "0 9 * * 1#2"] {
        assert!(parse_cron(text).is_ok(), "{text}");
    }
    assert!(parse_zone("Europe/Madrid").is_ok() && parse_zone("UTC").is_ok());
    assert!(parse_zone("Mars/Olympus").unwrap_err().contains("IANA"));
}

#[test]
fn nothing_fires_before_the_start_or_from_the_end_on() {
    let bounded = Schedule {
        start: Some(at("2026-01-02T00:00:00Z")),
        end: Some(at("2026-01-04T00:00:00Z")),
        ..schedule("0 0 * * *", "UTC")
    };
    let all = ["2026-01-02T00:00:00Z", "2026-01-03T00:00:00Z"];
    assert_eq!(shown(&bounded, "2025-01-01T00:00:00Z"), all);
    assert_eq!(span(&bounded, "2025-01-01T00:00:00Z", "2027-01-01T00:00:00Z"), all);
    let missed = Schedule { missed: Missed::All, ..bounded };
    assert_eq!(due(&missed, "2025-01-01T00:00:00Z", "2027-01-01T00:00:00Z").0, all);
}

#[test]
fn what_is_punctual_fires_whatever_becomes_of_what_was_missed() {
    for missed in [Missed::Skip, Missed::Last, Missed::All] {
        let minutely = Schedule { missed, ..schedule("* * * * *", "UTC") };
        assert_eq!(
            due(&minutely, "2026-01-01T00:00:00Z", "2026-01-01T00:01:01Z"),
            (vec!["2026-01-01T00:01:00Z".to_owned()], false)
        );
        assert_eq!(due(&minutely, "2026-01-01T00:01:00Z", "2026-01-01T00:01:30Z"), (vec![], false));
    }
}

#[test]
fn what_was_missed_fires_as_it_was_said() {
    let hourly = |missed| Schedule { missed, ..schedule("0 * * * *", "UTC") };
    let (seen, now) = ("2026-01-01T00:00:00Z", "2026-01-01T03:30:00Z");
    assert_eq!(due(&hourly(Missed::Skip), seen, now), (vec![], true));
    let newest = "2026-01-01T03:00:00Z".to_owned();
    assert_eq!(due(&hourly(Missed::Last), seen, now), (vec![newest.clone()], true));
    let all = ["2026-01-01T01:00:00Z", "2026-01-01T02:00:00Z"].map(str::to_owned);
    let all = [all.as_slice(), &[newest]].concat();
    assert_eq!(due(&hourly(Missed::All), seen, now), (all.clone(), false));

    // No more than the newest that fit.
    let bounded = hourly(Missed::All).due(at(seen), at(now), 2);
    assert_eq!(texts(bounded.fire), all[1..]);
    assert!(bounded.passed_over);
}

#[test]
fn an_outage_of_years_is_looked_over_at_once() {
    let quick = Schedule { missed: Missed::Last, ..schedule("* * * * * *", "Europe/Madrid") };
    assert_eq!(
        due(&quick, "2000-01-01T00:00:00Z", "2026-01-01T00:00:00Z"),
        (vec!["2026-01-01T00:00:00Z".to_owned()], true)
    );
}

#[test]
fn a_clock_that_is_put_back_fires_nothing_again() {
    let minutely = schedule("* * * * *", "UTC");
    assert_eq!(due(&minutely, "2026-01-01T12:00:00Z", "2026-01-01T10:00:00Z"), (vec![], false));
}

#[test]
fn a_firing_has_one_id_and_one_jitter() {
    let (trigger, version) = (Uuid::from_u128(1), Uuid::from_u128(2));
    let instant = at("2026-01-01T00:00:00Z");
    let shaky = Schedule { jitter: Duration::from_secs(60), ..schedule("* * * * *", "UTC") };
    let firing = shaky.firing(trigger, version, instant);
    assert_eq!(firing, shaky.firing(trigger, version, instant));
    // Written down: it is for ever.
    assert_eq!(firing.id.to_string(), "afb38b62-28a1-8f60-8ab2-3cbbabcefd8f");
    let others = [
        firing_id(version, trigger, instant),
        firing_id(trigger, trigger, instant),
        firing_id(trigger, version, at("2026-01-01T00:00:01Z")),
    ];
    assert!(others.iter().all(|other| *other != firing.id));
    let steady = schedule("* * * * *", "UTC").firing(trigger, version, instant);
    assert_eq!((steady.id, steady.starts_at), (firing.id, instant));
}

const ZONES: [&str; 8] = [
    "Europe/Madrid",
    "America/New_York",
    "Australia/Lord_Howe",
    "Pacific/Apia",
    "Africa/Casablanca",
    "America/St_Johns",
    "Asia/Kathmandu",
    "UTC",
];
const CRONS: [&str; 8] = [
    "*/10 * * * *",
    "30 2 * * *",
    "0 */2 * * *",
    "15 1,2,3 * * *",
    "0 0 29 2 *",
    "30 */7 * * * *",
    "0 12 * * MON",
    "59 23 L * *",
];

proptest! {
    #[test]
    fn firings_go_up_and_the_way_back_meets_them(
        zone in 0_usize..ZONES.len(), cron in 0_usize..CRONS.len(),
        begin in 0_i64..2_000_000_000, length in 0_i64..200_000,
    ) {
        let schedule = schedule(CRONS[cron], ZONES[zone]);
        let at = |seconds| Timestamp::from(DateTime::from_timestamp(seconds, 0).unwrap());
        let (from, to) = (at(begin), at(begin + length));
        let there = schedule.between(from, to, usize::MAX);
        prop_assert!(there.is_sorted_by(|one, next| **one < **next));
        prop_assert!(there.iter().all(|instant| **instant > *from && **instant <= *to));
        prop_assert_eq!(&schedule.newest(from, to, usize::MAX), &there);
        // Two spans are as one, wherever they meet.
        let middle = at(begin + length / 3);
        let mut halves = schedule.between(from, middle, usize::MAX);
        halves.extend(schedule.between(middle, to, usize::MAX));
        prop_assert_eq!(&halves, &there);
    }

    #[test]
    fn jitter_stays_within_bounds(trigger: u128, instant in 0_i64..2_000_000_000, longest in 0_u64..4000) {
        let longest = Duration::from_secs(longest);
        let shaky = Schedule { jitter: longest, ..schedule("* * * * *", "UTC") };
        let instant = Timestamp::from(DateTime::from_timestamp(instant, 0).unwrap());
        let firing = shaky.firing(Uuid::from_u128(trigger), Uuid::nil(), instant);
        let late = (*firing.starts_at - *instant).to_std().unwrap();
        prop_assert!(late <= longest.min(MAX_JITTER));
    }

    #[test]
    fn no_text_makes_it_panic(text in "\\PC{0,30}|[0-9*/,LW#?+ -]{0,30}") {
        let _ = parse_cron(&text);
    }
}

fn schedule(cron: &str, zone: &str) -> Schedule {
    Schedule::new(cron, parse_zone(zone).unwrap()).unwrap()
}

fn at(text: &str) -> Timestamp {
    Timestamp::from(text.parse::<DateTime<Utc>>().unwrap())
}

fn texts(instants: Vec<Timestamp>) -> Vec<String> {
    let text = |instant: Timestamp| instant.to_string().replace(".000000Z", "Z");
    instants.into_iter().map(text).collect()
}

fn next(schedule: &Schedule, after: &str) -> String {
    texts(schedule.next_after(at(after)).into_iter().collect()).remove(0)
}

fn shown(schedule: &Schedule, after: &str) -> Vec<String> {
    texts(schedule.upcoming(at(after)))
}

fn span(schedule: &Schedule, from: &str, to: &str) -> Vec<String> {
    texts(schedule.between(at(from), at(to), 1000))
}

fn due(schedule: &Schedule, seen: &str, now: &str) -> (Vec<String>, bool) {
    let due = schedule.due(at(seen), at(now), 1000);
    (texts(due.fire), due.passed_over)
}
