//! The limits of an agent: how long an execution may take and wait, and how many run at once.
//!
//! The rule of this file: what is not said has a limit, too.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::expression::{Cel, Place};
use crate::reader::Reader;

const SECOND: Duration = Duration::from_secs(1);
const DAY: Duration = Duration::from_secs(86_400);

/// The longest that an execution may be told to take.
pub const MAX_TIMEOUT: Duration = Duration::from_secs(366 * 86_400);

/// The longest that an execution may be told to wait for its turn.
pub const MAX_QUEUE_TIMEOUT: Duration = Duration::from_secs(30 * 86_400);

/// The most executions of an agent, or of a key, that may be told to run at once.
pub const MAX_CONCURRENCY: u64 = 1000;

/// What an agent may take.
#[derive(Clone, Debug, PartialEq)]
pub struct Limits {
    /// How long an execution may take, from its start; waiting within it counts. A day.
    pub timeout: Duration,
    /// How long an execution may wait for its start. A day.
    pub queue_timeout: Duration,
    /// How many run at once; as many as the server lets, without it.
    pub concurrency: Option<Concurrency>,
}

/// How many executions run at once.
#[derive(Clone, Debug, PartialEq)]
pub struct Concurrency {
    /// The most.
    pub max: u32,
    /// What tells executions apart: each key has a `max` of its own. One for all without it.
    pub key: Option<Cel>,
    /// What becomes of an execution that is one too many.
    pub strategy: ConcurrencyStrategy,
}

/// What becomes of an execution that is one too many.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ConcurrencyStrategy {
    /// It waits.
    #[default]
    Queue,
    /// It runs, and the oldest that runs is cancelled.
    CancelRunning,
    /// It is cancelled.
    CancelNew,
}

impl Default for Limits {
    fn default() -> Self {
        Limits { timeout: DAY, queue_timeout: DAY, concurrency: None }
    }
}

pub(super) fn read_limits(read: &mut Reader<'_>) -> Limits {
    let mut limits = Limits::default();
    let Some(mut inner) = read.object("limits") else { return limits };
    inner.only(&["timeout", "queue_timeout", "concurrency"]);
    limits.timeout = inner.duration("timeout", SECOND, MAX_TIMEOUT).unwrap_or(limits.timeout);
    limits.queue_timeout =
        inner.duration("queue_timeout", SECOND, MAX_QUEUE_TIMEOUT).unwrap_or(limits.queue_timeout);
    limits.concurrency = read_concurrency(&mut inner);
    read.take(inner);
    limits
}

fn read_concurrency(read: &mut Reader<'_>) -> Option<Concurrency> {
    let mut inner = read.object("concurrency")?;
    inner.only(&["max", "key", "strategy"]);
    let strategies = [
        ("queue", ConcurrencyStrategy::Queue),
        ("cancel_running", ConcurrencyStrategy::CancelRunning),
        ("cancel_new", ConcurrencyStrategy::CancelNew),
    ];
    let concurrency = Concurrency {
        max: inner.integer("max", 1, MAX_CONCURRENCY).unwrap_or(1) as u32,
        key: read_cel(&mut inner, "key", Place::Key, &BTreeSet::new()),
        strategy: inner.choice("strategy", &strategies).unwrap_or_default(),
    };
    read.take(inner);
    Some(concurrency)
}

/// An expression that may be missing.
pub(super) fn read_cel(
    read: &mut Reader<'_>,
    field: &str,
    place: Place,
    steps: &BTreeSet<&str>,
) -> Option<Cel> {
    let parsed = Cel::parse(read.document.get(field)?, place, steps);
    let add = |faults: Vec<crate::Fault>| {
        let at = format!("/{field}");
        read.add(faults.into_iter().map(|fault| fault.within(&at)));
    };
    parsed.map_err(add).ok()
}
