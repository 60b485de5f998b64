//! Schedules: at which instants a cron pattern fires in a time zone.
//!
//! The rule of this file: what fires follows from the schedule alone. It asks no clock, so that two
//! nodes, or one before and after a crash, come to the same firings under the same ids. A pattern
//! speaks of local times: one that does not exist fires at the next instant that does, one that
//! exists twice fires at the first, and an instant fires once, however many local times mean it.

use std::time::Duration;

use chrono::{DateTime, LocalResult, NaiveDateTime, SubsecRound, TimeDelta, TimeZone, Utc};
use chrono_tz::{GapInfo, Tz};
use croner::Cron;
use croner::parser::{CronParser, Seconds, Year};
use uuid::Uuid;

use crate::values::{Timestamp, derived_id};

pub mod firings;

/// How many firings to come are shown.
pub const SHOWN: usize = 5;

/// A firing that is later than this is a missed one.
pub const PUNCTUAL: Duration = Duration::from_secs(60);

/// The longest pattern.
pub const MAX_CRON_BYTES: usize = 200;

/// The longest jitter.
pub const MAX_JITTER: Duration = Duration::from_secs(3600);

/// When something fires.
#[derive(Clone, Debug)]
pub struct Schedule {
    cron: String,
    pattern: Cron,
    zone: Tz,
    /// What becomes of firings while nobody listened.
    pub missed: Missed,
    /// What becomes of a firing while the last one runs.
    pub overlap: Overlap,
    /// How much later than its instant a firing may start, so that not all start at once.
    pub jitter: Duration,
    /// Nothing fires before.
    pub start: Option<Timestamp>,
    /// Nothing fires from then on.
    pub end: Option<Timestamp>,
}

/// What becomes of firings while nobody listened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Missed {
    /// They are passed over.
    Skip,
    /// The newest of them fires.
    #[default]
    Last,
    /// Each of them fires, up to a bound.
    All,
}

/// What becomes of a firing while an execution of the same trigger runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Overlap {
    /// Both run.
    Allow,
    /// The firing is passed over.
    #[default]
    Skip,
    /// The firing waits for the other to end.
    Queue,
    /// The running one is cancelled.
    CancelRunning,
}

/// What is to be done about a span of time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Due {
    /// The instants to fire, oldest first.
    pub fire: Vec<Timestamp>,
    /// Whether others in the span are passed over, by what `missed` says or because they are too many.
    pub passed_over: bool,
}

impl PartialEq for Schedule {
    fn eq(&self, other: &Self) -> bool {
        let settled = |it: &Self| (it.missed, it.overlap, it.jitter, it.start, it.end);
        (&self.cron, self.zone) == (&other.cron, other.zone) && settled(self) == settled(other)
    }
}

/// The pattern of five or six fields that a text means; the sixth, in front, is the second.
///
/// # Errors
/// A sentence for a person.
pub fn parse_cron(text: &str) -> Result<Cron, String> {
    let how = "write five fields (minute hour day month weekday), as `0 3 * * 1-5`, or six with the \
               second in front";
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b" \t*/,-#?+".contains(&byte);
    if text.len() > MAX_CRON_BYTES || !text.bytes().all(is_plain) {
        return Err(format!("this is not a cron pattern: {how}"));
    }
    let parser = CronParser::builder().seconds(Seconds::Optional).year(Year::Disallowed).build();
    let pattern = parser.parse(text).map_err(|error| {
        format!("this is not a cron pattern ({}): {how}", error.to_string().trim_end_matches('.'))
    })?;
    // The longest that a day can be away is a leap day beyond a century without one.
    let some_day = DateTime::UNIX_EPOCH.naive_utc();
    match next_local(&pattern, some_day) {
        Some(_) => Ok(pattern),
        None => Err("there is no such day: the pattern never fires".to_owned()),
    }
}

/// The time zone of this name, as `Europe/Madrid`.
///
/// # Errors
/// A sentence for a person.
pub fn parse_zone(text: &str) -> Result<Tz, String> {
    text.parse().map_err(|_| {
        "there is no such time zone: name one of the IANA database, as Europe/Madrid or UTC"
            .to_owned()
    })
}

impl Schedule {
    /// A schedule of a pattern in a time zone, with nothing else said.
    ///
    /// # Errors
    /// A sentence for a person.
    pub fn new(cron: &str, zone: Tz) -> Result<Schedule, String> {
        Ok(Schedule {
            cron: cron.to_owned(),
            pattern: parse_cron(cron)?,
            zone,
            missed: Missed::default(),
            overlap: Overlap::default(),
            jitter: Duration::ZERO,
            start: None,
            end: None,
        })
    }

    /// The pattern, as it is written.
    pub fn cron(&self) -> &str {
        &self.cron
    }

    /// The name of the time zone.
    pub fn zone(&self) -> &'static str {
        self.zone.name()
    }

    /// The first firing after an instant.
    pub fn next_after(&self, instant: Timestamp) -> Option<Timestamp> {
        let after = match self.start {
            // What fires at the start itself is within.
            Some(start) if *start > *instant => *start - TimeDelta::microseconds(1),
            _ => *instant,
        };
        let next = Timestamp::from(next_instant(&self.pattern, self.zone, after)?);
        self.end.is_none_or(|end| *next < *end).then_some(next)
    }

    /// The firings to come after an instant, [`SHOWN`] of them, or fewer where they end.
    pub fn upcoming(&self, instant: Timestamp) -> Vec<Timestamp> {
        self.after(instant).take(SHOWN).collect()
    }

    /// Every firing in (`from`, `to`], oldest first, but no more than `limit`.
    pub fn between(&self, from: Timestamp, to: Timestamp, limit: usize) -> Vec<Timestamp> {
        self.after(from).take_while(|instant| **instant <= *to).take(limit).collect()
    }

    /// What is to be fired at `now`, when everything up to `seen` is settled. Firings that are later
    /// than [`PUNCTUAL`] are missed ones; what [`Schedule::missed`] says is then done about all there
    /// are, and never more than the newest `limit` fire. Afterwards everything up to the later of
    /// `seen` and `now` is settled: a clock that is put back fires nothing again.
    pub fn due(&self, seen: Timestamp, now: Timestamp, limit: usize) -> Due {
        let Some(oldest) = self.next_after(seen).filter(|oldest| **oldest <= *now) else {
            return Due::default();
        };
        let punctual = Timestamp::from(*now - delta(PUNCTUAL));
        let (from, most) = match self.missed {
            _ if *oldest > *punctual => (seen, limit),
            Missed::Skip => (punctual, limit),
            Missed::Last => (seen, 1),
            Missed::All => (seen, limit),
        };
        let fire = self.newest(from, now, most);
        let passed_over = fire.first() != Some(&oldest);
        Due { fire, passed_over }
    }

    /// The firing at one of the schedule's instants, of a trigger in a version of its agent.
    pub fn firing(&self, trigger: Uuid, version: Uuid, instant: Timestamp) -> Firing {
        let id = firing_id(trigger, version, instant);
        Firing { id, instant, starts_at: Timestamp::from(*instant + jitter(id, self.jitter)) }
    }

    fn after(&self, instant: Timestamp) -> impl Iterator<Item = Timestamp> {
        std::iter::successors(self.next_after(instant), |last| self.next_after(*last))
    }

    /// The newest `limit` firings in (`from`, `to`], oldest first. It walks back, so that a long span
    /// costs no more than a short one.
    fn newest(&self, from: Timestamp, to: Timestamp, limit: usize) -> Vec<Timestamp> {
        let last = match self.end {
            Some(end) if *end <= *to => *end - TimeDelta::microseconds(1),
            _ => *to,
        };
        let first = match self.start {
            Some(start) if *start > *from => *start - TimeDelta::microseconds(1),
            _ => *from,
        };
        let before = |instant: DateTime<Utc>| previous_instant(&self.pattern, self.zone, instant);
        let instants =
            std::iter::successors(before(last), |next| before(*next - TimeDelta::seconds(1)));
        let mut newest: Vec<_> = instants
            .take_while(|instant| *instant > first)
            .take(limit)
            .map(Timestamp::from)
            .collect();
        newest.reverse();
        newest
    }
}

/// One firing of a trigger.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Firing {
    /// Its id: the same wherever it is computed.
    pub id: Uuid,
    /// The instant that the schedule names.
    pub instant: Timestamp,
    /// When it is to start: the instant, and the jitter.
    pub starts_at: Timestamp,
}

/// The id of a firing, made from what it is: of which trigger, in which version, at which instant.
pub fn firing_id(trigger: Uuid, version: Uuid, instant: Timestamp) -> Uuid {
    let instant = instant.timestamp_micros().to_be_bytes();
    derived_id(&[b"firing", trigger.as_bytes(), version.as_bytes(), &instant])
}

/// A part of the longest jitter, in milliseconds, that follows from a firing's id.
fn jitter(id: Uuid, longest: Duration) -> TimeDelta {
    let longest = u64::try_from(longest.min(MAX_JITTER).as_millis()).unwrap_or(0);
    let (high, _) = id.as_u64_pair();
    TimeDelta::milliseconds(i64::try_from(high % (longest + 1)).unwrap_or(0))
}

fn delta(length: Duration) -> TimeDelta {
    TimeDelta::from_std(length).unwrap_or(TimeDelta::MAX)
}

fn next_local(pattern: &Cron, after: NaiveDateTime) -> Option<NaiveDateTime> {
    pattern.find_next_occurrence(&after, false).ok()
}

/// The first instant after another. Later local times never mean earlier instants, so the first that
/// means a later one is it: what is passed over are the local times that exist twice, the second time.
fn next_instant(pattern: &Cron, zone: Tz, after: DateTime<Utc>) -> Option<DateTime<Utc>> {
    let mut local = zone.from_utc_datetime(&after.naive_utc()).naive_local().trunc_subsecs(0);
    loop {
        local = next_local(pattern, local)?;
        let instant = instant_of(zone, local)?;
        if instant > after {
            return Some(instant);
        }
    }
}

/// The last instant that is not after another.
fn previous_instant(pattern: &Cron, zone: Tz, until: DateTime<Utc>) -> Option<DateTime<Utc>> {
    let local = |at: DateTime<Utc>| zone.from_utc_datetime(&at.naive_utc()).naive_local();
    // A clock that was put back within the last day had shown later times before.
    let day = TimeDelta::days(1);
    let latest = local(until).max(local(until.checked_sub_signed(day)?).checked_add_signed(day)?);
    let mut latest = pattern.find_previous_occurrence(&latest.trunc_subsecs(0), true).ok()?;
    loop {
        let instant = instant_of(zone, latest)?;
        if instant <= until {
            return Some(instant);
        }
        latest = pattern.find_previous_occurrence(&latest, false).ok()?;
    }
}

/// The instant that a local time means.
fn instant_of(zone: Tz, local: NaiveDateTime) -> Option<DateTime<Utc>> {
    match zone.from_local_datetime(&local) {
        LocalResult::Single(time) => Some(time.to_utc()),
        LocalResult::Ambiguous(first, second) => Some(first.to_utc().min(second.to_utc())),
        LocalResult::None => Some(GapInfo::new(&local, &zone)?.end?.to_utc()),
    }
}

#[cfg(test)]
mod tests;
