//! A lane: which executions of an agent run at once, and which wait, where its manifest says how many may
//! (`limits.concurrency`). One for each agent, under the agent's id.
//!
//! Life of an execution in it: waiting, if it must → at its place → gone. Executions are told apart by a
//! key, which stands here as a keyed hash: each key has places of its own. What an execution's key is, is
//! settled when it comes; how many places there are, each execution brings along from its version.

use cqrs_es::event_sink::EventSink;
use cqrs_es::{Aggregate, DomainEvent};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::event;
use crate::refusal::{Refusal, RefusalKind};
use crate::values::{Digest, Timestamp};

/// After how many events, at least, a lane is summarized.
pub const SUMMARIZED_AFTER: u64 = 200;

/// What has happened in a lane.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum LaneEvent {
    /// An execution waits for a place.
    #[serde(rename = "lane.queued.v1")]
    Queued {
        /// Which one.
        execution: Uuid,
        /// The keyed hash of its key, where the agent has one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        key: Option<Digest>,
        /// When it was asked for: the oldest is first.
        requested_at: Timestamp,
    },
    /// An execution has a place.
    #[serde(rename = "lane.entered.v1")]
    Entered {
        /// Which one.
        execution: Uuid,
        /// The keyed hash of its key, where the agent has one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        key: Option<Digest>,
        /// When it was asked for.
        requested_at: Timestamp,
    },
    /// An execution has no place any more, or waits for none.
    #[serde(rename = "lane.left.v1")]
    Left {
        /// Which one.
        execution: Uuid,
        /// The keyed hash of its key, where the agent has one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        key: Option<Digest>,
    },
    /// How things stand: nothing before it need be read.
    #[serde(rename = "lane.summarized.v1")]
    Summarized {
        /// Those with a place, in the order in which they came.
        inside: Vec<Guest>,
        /// Those who wait, the oldest first.
        waiting: Vec<Guest>,
    },
}

/// What one may ask of a lane.
#[derive(Clone, Debug, PartialEq)]
pub enum LaneCommand {
    /// Take a place, if there is one.
    Enter {
        /// Who.
        guest: Guest,
        /// How many places its key has.
        max: u32,
        /// Wait where there is none, behind those who were asked for before. Otherwise it is refused, and
        /// those who wait do not count.
        waits: bool,
    },
    /// Give the place up: the execution has ended.
    Leave {
        /// Who.
        execution: Uuid,
    },
    /// Wait no more. A place is kept.
    GiveUp {
        /// Who.
        execution: Uuid,
    },
}

/// An execution in a lane.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Guest {
    /// Its id.
    pub execution: Uuid,
    /// The keyed hash of its key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<Digest>,
    /// When it was asked for.
    pub requested_at: Timestamp,
}

impl Guest {
    /// Who is older comes first.
    pub fn age(&self) -> (Timestamp, Uuid) {
        (self.requested_at, self.execution)
    }
}

/// A lane.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lane {
    /// Those with a place, in the order in which they came.
    pub inside: Vec<Guest>,
    /// Those who wait, the oldest first.
    pub waiting: Vec<Guest>,
    /// How many events there were since it was summarized.
    pub since: u64,
}

impl Lane {
    /// Whether nobody has a place or waits for one.
    pub fn is_empty(&self) -> bool {
        self.inside.is_empty() && self.waiting.is_empty()
    }

    /// Whether an execution has a place.
    pub fn has(&self, execution: Uuid) -> bool {
        self.inside.iter().any(|guest| guest.execution == execution)
    }

    /// What is known of an execution that is here.
    pub fn guest(&self, execution: Uuid) -> Option<&Guest> {
        self.inside.iter().chain(&self.waiting).find(|guest| guest.execution == execution)
    }

    /// Those with a place of a key.
    pub fn inside_of<'a>(&'a self, key: &'a Option<Digest>) -> impl Iterator<Item = &'a Guest> {
        self.inside.iter().filter(move |guest| guest.key == *key)
    }

    /// Those who wait for a place of a key, the oldest first.
    pub fn waiting_of<'a>(&'a self, key: &'a Option<Digest>) -> impl Iterator<Item = &'a Guest> {
        self.waiting.iter().filter(move |guest| guest.key == *key)
    }

    /// Answers a command with events or a refusal.
    pub fn decide(&self, command: LaneCommand) -> Result<Vec<LaneEvent>, LaneError> {
        let mut events = match command {
            LaneCommand::Enter { guest, max, waits } => self.enter(guest, max, waits)?,
            LaneCommand::Leave { execution } => self.leave(self.guest(execution)),
            LaneCommand::GiveUp { execution } => {
                let is_it = |guest: &&Guest| guest.execution == execution;
                self.leave(self.waiting.iter().find(is_it))
            }
        };
        if !events.is_empty() && self.since + 1 >= self.summarized_after() {
            let mut then = self.clone();
            events.iter().cloned().for_each(|event| then.apply(event));
            let Lane { inside, waiting, .. } = then;
            events.push(LaneEvent::Summarized { inside, waiting });
        }
        Ok(events)
    }

    /// After how many events it is summarized: enough of them that all summaries together are no longer
    /// than the rest.
    fn summarized_after(&self) -> u64 {
        SUMMARIZED_AFTER.max(2 * (self.inside.len() + self.waiting.len()) as u64)
    }

    fn enter(&self, guest: Guest, max: u32, waits: bool) -> Result<Vec<LaneEvent>, LaneError> {
        // What it came with counts, whatever its key would be now.
        let known = self.guest(guest.execution).cloned();
        if self.has(guest.execution) {
            return Ok(vec![]);
        }
        let is_known = known.is_some();
        let guest = known.unwrap_or(guest);
        let is_before = |other: &&Guest| other.age() < guest.age();
        let before = if waits { self.waiting_of(&guest.key).filter(is_before).count() } else { 0 };
        let is_free = self.inside_of(&guest.key).count() + before < max as usize;
        let Guest { execution, key, requested_at } = guest;
        match (is_free, waits) {
            (true, _) => Ok(vec![LaneEvent::Entered { execution, key, requested_at }]),
            (false, true) if is_known => Ok(vec![]),
            (false, true) => Ok(vec![LaneEvent::Queued { execution, key, requested_at }]),
            (false, false) => Err(LaneError::Full),
        }
    }

    fn forget(&mut self, execution: Uuid) {
        self.inside.retain(|guest| guest.execution != execution);
        self.waiting.retain(|guest| guest.execution != execution);
    }

    fn leave(&self, guest: Option<&Guest>) -> Vec<LaneEvent> {
        let left = |Guest { execution, key, .. }: Guest| LaneEvent::Left { execution, key };
        guest.cloned().map(left).into_iter().collect()
    }
}

/// Why a lane refused a command.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LaneError {
    /// There is no place.
    #[error("as many executions run as may run at once: ask again when one of them has ended")]
    Full,
}

impl Refusal for LaneError {
    fn reason(&self) -> (RefusalKind, &'static str) {
        match self {
            LaneError::Full => (RefusalKind::Conflict, "lane_full"),
        }
    }
}

impl Aggregate for Lane {
    const TYPE: &'static str = "lane";
    type Command = LaneCommand;
    type Event = LaneEvent;
    type Error = LaneError;
    type Services = ();

    async fn handle(
        &mut self,
        command: LaneCommand,
        _: &(),
        sink: &EventSink<Self>,
    ) -> Result<(), LaneError> {
        for event in self.decide(command)? {
            sink.write(event, self).await;
        }
        Ok(())
    }

    fn apply(&mut self, event: LaneEvent) {
        self.since += 1;
        match event {
            LaneEvent::Queued { execution, key, requested_at } => {
                self.forget(execution);
                let guest = Guest { execution, key, requested_at };
                let place = self.waiting.partition_point(|other| other.age() < guest.age());
                self.waiting.insert(place, guest);
            }
            LaneEvent::Entered { execution, key, requested_at } => {
                self.forget(execution);
                self.inside.push(Guest { execution, key, requested_at });
            }
            LaneEvent::Left { execution, .. } => self.forget(execution),
            LaneEvent::Summarized { inside, waiting } => {
                *self = Lane { inside, waiting, since: 0 };
            }
        }
    }
}

impl DomainEvent for LaneEvent {
    fn event_type(&self) -> String {
        event::name_of(self).to_owned()
    }

    fn event_version(&self) -> String {
        event::version_of(event::name_of(self)).to_owned()
    }
}

#[cfg(test)]
mod tests;
