//! What can be said of any step: whether it runs, how often, for how long, and what if it fails.
//!
//! The rule of this file: what a step that repeats or is tried again may cost is bounded before it
//! begins, and how long it waits between two attempts follows from what it is, not from chance.

use std::collections::BTreeSet;
use std::time::Duration;

use sha2::{Digest as _, Sha256};

use super::limits::read_cel;
use crate::expression::{Cel, Place};
use crate::reader::Reader;
use crate::step::StepKind;

/// The most attempts at a step.
pub const MAX_ATTEMPTS: u64 = 20;

/// The longest wait between two attempts.
pub const MAX_BACKOFF: Duration = Duration::from_secs(86_400);

/// The longest that a step may be told to take.
pub const MAX_STEP_TIMEOUT: Duration = Duration::from_secs(86_400);

/// The most items that a step repeats for when it is not told.
pub const DEFAULT_ITEMS: u32 = 100;

/// The most items that a step may be told to repeat for.
pub const MAX_ITEMS: u64 = 1000;

/// The most items that are worked on at once.
pub const MAX_PARALLEL: u64 = 50;

const FEW: Duration = Duration::from_millis(100);
const SECOND: Duration = Duration::from_secs(1);

/// What is said of a step beside what it does.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Control {
    /// It runs where this holds; otherwise it is skipped and puts out `null`. Asked once, before
    /// `foreach`.
    pub when: Option<Cel>,
    /// It runs for each item of a list.
    pub foreach: Option<Foreach>,
    /// How often it is tried; each item by itself.
    pub retry: Retry,
    /// How long one attempt may take; as the server says, without it.
    pub timeout: Option<Duration>,
    /// What if it fails after its last attempt.
    pub on_error: OnError,
}

/// A step that runs for each item of a list. It puts out `{"items": [...]}`: what came out for each,
/// in the order of the list.
#[derive(Clone, Debug, PartialEq)]
pub struct Foreach {
    /// What comes to the list.
    pub items: Cel,
    /// How many items are worked on at once.
    pub max_parallel: u32,
    /// A longer list is a failure, before the first item is worked on.
    pub max_items: u32,
}

/// What becomes of an execution when a step of it fails.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnError {
    /// It fails.
    #[default]
    Fail,
    /// It goes on; the step, or the item of it, puts out `{"error": {"code", "message"}}`.
    Continue,
}

/// How often a step is tried.
#[derive(Clone, Debug, PartialEq)]
pub struct Retry {
    /// The attempts in all, the first among them.
    pub attempts: u32,
    /// How long to wait in between.
    pub backoff: Backoff,
    /// Which failures are tried again.
    pub on: Vec<RetryOn>,
}

/// How long to wait between two attempts: `initial`, then `factor` times as long each time, up to
/// `max`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Backoff {
    /// Before the second attempt.
    pub initial: Duration,
    /// How much longer each time.
    pub factor: f64,
    /// Never longer.
    pub max: Duration,
    /// Which part of the wait is left to chance, from 0 to 1.
    pub jitter: f64,
}

/// A failure that is tried again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RetryOn {
    /// Any.
    Any,
    /// What passes by itself: a server that is busy or out of reach.
    Transient,
    /// An attempt that took too long.
    Timeout,
    /// The one with this code.
    Code(String),
}

/// A failed attempt, as far as it matters here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Failure<'a> {
    /// Its stable code.
    pub code: &'a str,
    /// Whether it passes by itself.
    pub is_transient: bool,
    /// Whether the attempt took too long.
    pub is_timeout: bool,
}

impl Default for Retry {
    /// Once, and never again.
    fn default() -> Self {
        let on = vec![RetryOn::Transient, RetryOn::Timeout];
        Retry { attempts: 1, backoff: Backoff::default(), on }
    }
}

impl Default for Backoff {
    fn default() -> Self {
        let (initial, max) = (SECOND, Duration::from_secs(300));
        Backoff { initial, factor: 2.0, max, jitter: 0.2 }
    }
}

impl Retry {
    /// Whether another attempt follows when this one, counted from 1, failed like this.
    pub fn follows(&self, attempt: u32, failure: Failure<'_>) -> bool {
        attempt < self.attempts && self.on.iter().any(|on| on.means(failure))
    }

    /// How long the waits between all attempts are together at most, where nobody asks for longer ones.
    pub fn longest_waits(&self) -> Duration {
        (1..self.attempts).map(|attempt| self.backoff.whole_wait(attempt)).sum()
    }
}

impl RetryOn {
    fn means(&self, failure: Failure<'_>) -> bool {
        match self {
            RetryOn::Any => true,
            RetryOn::Transient => failure.is_transient,
            RetryOn::Timeout => failure.is_timeout,
            RetryOn::Code(code) => code == failure.code,
        }
    }
}

impl Backoff {
    /// How long to wait after an attempt, counted from 1. `seed` is what the step is, as the ids of
    /// its execution and itself: the same seed waits equally long, so that a run that was cut off
    /// goes on as it would have.
    pub fn wait_after(&self, attempt: u32, seed: &[u8]) -> Duration {
        let whole = self.whole_wait(attempt).as_secs_f64();
        let mut hash = Sha256::new();
        hash.update(attempt.to_be_bytes());
        hash.update(seed);
        let hash: [u8; 32] = hash.finalize().into();
        let chance = f64::from(u32::from_be_bytes([hash[0], hash[1], hash[2], hash[3]]));
        let left = self.jitter * whole * chance / f64::from(u32::MAX);
        Duration::try_from_secs_f64(whole - left).unwrap_or(self.max)
    }

    /// The wait after an attempt, counted from 1, before chance shortens it.
    fn whole_wait(&self, attempt: u32) -> Duration {
        let times = i32::try_from(attempt.saturating_sub(1)).unwrap_or(i32::MAX);
        let whole = self.initial.as_secs_f64() * self.factor.powi(times);
        Duration::try_from_secs_f64(whole).map_or(self.max, |whole| whole.min(self.max))
    }
}

pub(super) fn read_control(
    read: &mut Reader<'_>,
    kind: Option<StepKind>,
    needed: &BTreeSet<&str>,
) -> Control {
    if kind == Some(StepKind::Wait) {
        for field in ["foreach", "timeout"] {
            let is_there = read.document.contains_key(field);
            read.require(!is_there, &format!("/{field}"), "field_not_for_wait", || {
                format!("a step that waits has no `{field}`: it ends by itself, once")
            });
        }
    }
    let choices = [("fail", OnError::Fail), ("continue", OnError::Continue)];
    Control {
        when: read_cel(read, "when", Place::Step, needed),
        foreach: read_foreach(read, needed),
        retry: read_retry(read),
        timeout: read.duration("timeout", SECOND, MAX_STEP_TIMEOUT),
        on_error: read.choice("on_error", &choices).unwrap_or_default(),
    }
}

/// `foreach` is the expression, or an object with it and its bounds.
fn read_foreach(read: &mut Reader<'_>, needed: &BTreeSet<&str>) -> Option<Foreach> {
    let one_by_one = |items: Cel| Foreach { items, max_parallel: 1, max_items: DEFAULT_ITEMS };
    let is_bounded =
        read.document.get("foreach")?.as_object().is_some_and(|object| !object.contains_key("cel"));
    if !is_bounded {
        return read_cel(read, "foreach", Place::Step, needed).map(one_by_one);
    }
    let mut inner = read.object("foreach")?;
    inner.only(&["items", "max_parallel", "max_items"]);
    let is_there = inner.document.contains_key("items");
    inner.require(is_there, "/items", "field_missing", || {
        "`items` is missing: write the list as CEL, as `input.urls`".to_owned()
    });
    let foreach = read_cel(&mut inner, "items", Place::Step, needed).map(one_by_one);
    let parallel = inner.integer("max_parallel", 1, MAX_PARALLEL);
    let most = inner.integer("max_items", 1, MAX_ITEMS);
    read.take(inner);
    foreach.map(|foreach| Foreach {
        max_parallel: parallel.map_or(foreach.max_parallel, |most| most as u32),
        max_items: most.map_or(foreach.max_items, |most| most as u32),
        ..foreach
    })
}

fn read_retry(read: &mut Reader<'_>) -> Retry {
    let mut retry = Retry::default();
    let Some(mut inner) = read.object("retry") else { return retry };
    inner.only(&["attempts", "backoff", "on"]);
    let is_there = inner.document.contains_key("attempts");
    inner.require(is_there, "/attempts", "field_missing", || {
        "`attempts` is missing: say how often the step is tried in all, as 3".to_owned()
    });
    retry.attempts = inner.integer("attempts", 1, MAX_ATTEMPTS).unwrap_or(1) as u32;
    retry.backoff = read_backoff(&mut inner);
    if let Some(words) = inner.texts("on") {
        inner.require(!words.is_empty(), "/on", "retry_on_nothing", || {
            "say which failures are tried again, as [\"transient\"], or leave `on` out".to_owned()
        });
        for (place, word) in words.iter().enumerate() {
            inner.require(is_code(word), &format!("/on/{place}"), "retry_on_invalid", || {
                "write any, transient, timeout, or the code of a failure, as http_status_503"
                    .to_owned()
            });
        }
        retry.on = words.into_iter().map(retry_on).collect();
    }
    read.take(inner);
    retry
}

fn read_backoff(read: &mut Reader<'_>) -> Backoff {
    let mut backoff = Backoff::default();
    let Some(mut inner) = read.object("backoff") else { return backoff };
    inner.only(&["initial", "factor", "max", "jitter"]);
    let said = inner.duration("max", FEW, MAX_BACKOFF);
    backoff.initial = inner.duration("initial", FEW, MAX_BACKOFF).unwrap_or(backoff.initial);
    backoff.factor = inner.number("factor", 1.0, 10.0).unwrap_or(backoff.factor);
    backoff.max = said.unwrap_or(backoff.max.max(backoff.initial));
    backoff.jitter = inner.number("jitter", 0.0, 1.0).unwrap_or(backoff.jitter);
    inner.require(backoff.initial <= backoff.max, "/max", "backoff_shrinks", || {
        "`max` is shorter than `initial`: make it longer, or leave it out".to_owned()
    });
    read.take(inner);
    backoff
}

fn retry_on(word: String) -> RetryOn {
    match word.as_str() {
        "any" => RetryOn::Any,
        "transient" => RetryOn::Transient,
        "timeout" => RetryOn::Timeout,
        _ => RetryOn::Code(word),
    }
}

fn is_code(text: &str) -> bool {
    text.len() <= 64
        && text.starts_with(|first: char| first.is_ascii_lowercase())
        && text.bytes().all(|byte| {
            byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_' || byte == b'.'
        })
}
