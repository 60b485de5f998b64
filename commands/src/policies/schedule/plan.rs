//! Which schedules are watched, and when each is looked at next.
//!
//! The rule of this file: it is memory only. What it forgets is read from the log again.

use std::collections::{BTreeSet, HashMap};

use domain::Timestamp;
use domain::schedule::firings::Firings;
use eventlog::Position;
use uuid::Uuid;

use super::facts::Facts;

/// What is known of a schedule that is watched.
#[derive(Clone, Default)]
pub(super) struct Known {
    pub(super) product: Uuid,
    /// Where it stood, and up to which sequence its stream was read for that.
    pub(super) firings: Firings,
    pub(super) sequence: u64,
    /// What was read of its trigger and its agent, while neither changes.
    pub(super) facts: Option<Facts>,
    /// The newest of its own events, its executions' requests included.
    pub(super) reached: Position,
    /// The execution of the newest firing, once it is known to have been asked for.
    pub(super) asked_for: Option<Uuid>,
    /// When to look at it again; only an event is waited for without it.
    pub(super) next: Option<Timestamp>,
    /// The executions whose end is waited for.
    pub(super) blocked_by: Vec<Uuid>,
}

/// Every schedule that is watched.
#[derive(Default)]
pub(super) struct Plan {
    known: HashMap<Uuid, Known>,
    order: BTreeSet<(Timestamp, Uuid)>,
    blocked: HashMap<Uuid, Uuid>,
}

impl Plan {
    pub(super) fn get(&self, trigger: Uuid) -> Option<&Known> {
        self.known.get(&trigger)
    }

    /// Keeps what is known of a schedule. Answers whether it is now the first to be looked at.
    pub(super) fn keep(&mut self, trigger: Uuid, known: Known) -> bool {
        self.forget(trigger);
        self.blocked.extend(known.blocked_by.iter().map(|execution| (*execution, trigger)));
        self.order.extend(known.next.map(|next| (next, trigger)));
        self.known.insert(trigger, known);
        self.order.first().is_some_and(|(_, first)| *first == trigger)
    }

    pub(super) fn forget(&mut self, trigger: Uuid) {
        let Some(known) = self.known.remove(&trigger) else { return };
        for execution in known.blocked_by {
            self.blocked.remove(&execution);
        }
        if let Some(next) = known.next {
            self.order.remove(&(next, trigger));
        }
    }

    /// Those that are to be looked at now, with their products. They are not named again until they
    /// are kept again.
    pub(super) fn take_due(&mut self, now: Timestamp) -> Vec<(Uuid, Uuid)> {
        let mut due = Vec::new();
        while let Some((next, trigger)) = self.order.first().copied().filter(|(at, _)| *at <= now) {
            self.order.remove(&(next, trigger));
            due.extend(self.known.get_mut(&trigger).map(|known| {
                known.next = None;
                (known.product, trigger)
            }));
        }
        due
    }

    /// When the next one is to be looked at.
    pub(super) fn next(&self) -> Option<Timestamp> {
        self.order.first().map(|(next, _)| *next)
    }

    /// The schedules of an agent, with their products.
    pub(super) fn of_agent(&self, agent: Uuid) -> Vec<(Uuid, Uuid)> {
        let is_its = |known: &Known| known.facts.as_ref().is_some_and(|facts| facts.agent == agent);
        let its = self.known.iter().filter(|(_, known)| is_its(known));
        its.map(|(trigger, known)| (known.product, *trigger)).collect()
    }

    /// The schedule that waits for the end of an execution, with its product.
    pub(super) fn waiting_for(&self, execution: Uuid) -> Option<(Uuid, Uuid)> {
        let trigger = self.blocked.get(&execution)?;
        Some((self.known.get(trigger)?.product, *trigger))
    }
}
