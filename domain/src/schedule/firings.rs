//! What a schedule trigger has fired: a stream of its own, so that a firing never moves the `ETag` of
//! the trigger.
//!
//! The rule of this file: an instant is settled once. Whoever settles it first has done so for every
//! node and for every start to come; whatever is asked about it again is refused.

use std::collections::BTreeSet;

use cqrs_es::event_sink::EventSink;
use cqrs_es::{Aggregate, DomainEvent};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::event;
use crate::refusal::{Refusal, RefusalKind};
use crate::values::{Payload, Timestamp};

/// How many firings of a trigger may wait.
pub const MAX_WAITING: usize = 100;

/// What has happened to the instants of a schedule.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum FiringEvent {
    /// An instant fires: the execution is asked for next.
    #[serde(rename = "schedule.fired.v1")]
    Fired {
        /// The instant that the schedule names.
        instant: Timestamp,
        /// The execution.
        execution: Uuid,
    },
    /// An instant has come, and fires later: after its jitter, or when another execution has ended.
    #[serde(rename = "schedule.queued.v1")]
    Queued {
        /// The instant that the schedule names.
        instant: Timestamp,
    },
    /// An instant does not fire.
    #[serde(rename = "schedule.skipped.v1")]
    Skipped {
        /// The instant that the schedule names.
        instant: Timestamp,
        /// Why.
        reason: SkipReason,
    },
    /// Instants that were missed do not fire.
    #[serde(rename = "schedule.passed_over.v1")]
    PassedOver {
        /// Those up to this one, itself included, that were not settled before.
        up_to: Timestamp,
    },
    /// An instant fired, and its execution could not be asked for.
    #[serde(rename = "schedule.failed.v1")]
    Failed {
        /// The instant that the schedule names.
        instant: Timestamp,
        /// A stable code.
        code: String,
        /// What went wrong.
        error: Payload,
    },
}

/// What one may ask of the firings of a schedule.
#[derive(Clone, Debug, PartialEq)]
pub enum FiringCommand {
    /// Fire an instant.
    Fire {
        /// The instant that the schedule names.
        instant: Timestamp,
        /// The execution that will be asked for.
        execution: Uuid,
    },
    /// Let an instant wait.
    Queue {
        /// The instant that the schedule names.
        instant: Timestamp,
    },
    /// Let an instant not fire.
    Skip {
        /// The instant that the schedule names.
        instant: Timestamp,
        /// Why.
        reason: SkipReason,
    },
    /// Let missed instants not fire.
    PassOver {
        /// Those up to this one, itself included.
        up_to: Timestamp,
    },
    /// Say that the execution of the newest firing could not be asked for.
    Fail {
        /// The instant that the schedule names.
        instant: Timestamp,
        /// A stable code.
        code: String,
        /// What went wrong.
        error: Payload,
    },
}

/// Why an instant does not fire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SkipReason {
    /// An execution of the same trigger has not ended.
    Overlap,
    /// Too many wait already.
    QueueFull,
    /// While it waited, the trigger was changed or switched off, or its agent was.
    Outdated,
}

impl SkipReason {
    /// The reason as it is written.
    pub fn as_str(self) -> &'static str {
        serde_variant::to_variant_name(&self).expect("a reason is an enum of plain names")
    }
}

/// Where a schedule stands.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Firings {
    /// Every instant up to this one is settled, save those that wait.
    pub settled: Option<Timestamp>,
    /// Instants that have come and fire later.
    pub waiting: BTreeSet<Timestamp>,
    /// The newest firing, unless it failed: its execution may not have been asked for yet.
    pub last: Option<LastFiring>,
}

/// The newest firing of a schedule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastFiring {
    /// The instant that the schedule names.
    pub instant: Timestamp,
    /// The execution.
    pub execution: Uuid,
}

impl Firings {
    /// Answers a command with events or a refusal.
    pub fn decide(&self, command: FiringCommand) -> Result<Vec<FiringEvent>, FiringError> {
        use {FiringCommand as Do, FiringEvent as Did};
        let event = match command {
            Do::Fire { instant, .. } | Do::Skip { instant, .. }
                if !self.is_new(instant) && !self.waiting.contains(&instant) =>
            {
                return Err(FiringError::Settled);
            }
            Do::Queue { instant } if !self.is_new(instant) => return Err(FiringError::Settled),
            Do::PassOver { up_to } if !self.is_new(up_to) => return Ok(vec![]),
            Do::Fail { instant, .. } if self.last.is_none_or(|last| last.instant != instant) => {
                return Err(FiringError::NotFired);
            }
            Do::Fire { instant, execution } => Did::Fired { instant, execution },
            Do::Queue { instant } if self.waiting.len() >= MAX_WAITING => {
                Did::Skipped { instant, reason: SkipReason::QueueFull }
            }
            Do::Queue { instant } => Did::Queued { instant },
            Do::Skip { instant, reason } => Did::Skipped { instant, reason },
            Do::PassOver { up_to } => Did::PassedOver { up_to },
            Do::Fail { instant, code, error } => Did::Failed { instant, code, error },
        };
        Ok(vec![event])
    }

    /// Takes in what has happened.
    pub fn remember(&mut self, event: FiringEvent) {
        match event {
            FiringEvent::Fired { instant, execution } => {
                self.settle(instant);
                self.last = Some(LastFiring { instant, execution });
            }
            FiringEvent::Queued { instant } => {
                self.settle(instant);
                self.waiting.insert(instant);
            }
            FiringEvent::Skipped { instant, .. } => self.settle(instant),
            // Those that wait were settled by their own events, and go on to wait.
            FiringEvent::PassedOver { up_to } => self.settled = self.settled.max(Some(up_to)),
            FiringEvent::Failed { .. } => self.last = None,
        }
    }

    fn is_new(&self, instant: Timestamp) -> bool {
        self.settled.is_none_or(|settled| instant > settled)
    }

    fn settle(&mut self, instant: Timestamp) {
        self.waiting.remove(&instant);
        self.settled = self.settled.max(Some(instant));
    }
}

/// Why the firings of a schedule refused a command.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FiringError {
    /// It fired, or was passed over.
    #[error("the instant is settled already: go on with the next one")]
    Settled,
    /// Another one is the newest, or it failed before.
    #[error("this is not the newest firing: look at where the schedule stands")]
    NotFired,
}

impl Refusal for FiringError {
    fn reason(&self) -> (RefusalKind, &'static str) {
        match self {
            FiringError::Settled => (RefusalKind::Conflict, "firing_settled"),
            FiringError::NotFired => (RefusalKind::Conflict, "firing_not_newest"),
        }
    }
}

impl Aggregate for Firings {
    const TYPE: &'static str = "schedule";
    type Command = FiringCommand;
    type Event = FiringEvent;
    type Error = FiringError;
    type Services = ();

    async fn handle(
        &mut self,
        command: FiringCommand,
        _: &(),
        sink: &EventSink<Self>,
    ) -> Result<(), FiringError> {
        for event in self.decide(command)? {
            sink.write(event, self).await;
        }
        Ok(())
    }

    fn apply(&mut self, event: FiringEvent) {
        self.remember(event);
    }
}

impl DomainEvent for FiringEvent {
    fn event_type(&self) -> String {
        event::name_of(self).to_owned()
    }

    fn event_version(&self) -> String {
        event::version_of(event::name_of(self)).to_owned()
    }
}

#[cfg(test)]
mod tests;
