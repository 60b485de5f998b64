//! A bulk stop: somebody's wish that several executions stop, and how many did.
//!
//! Life: `Missing` → `Open` → `Finished`. Which executions are meant is fixed when it is asked for: each ends in a
//! stream of its own, and whoever finishes this after a cut, or is asked once more, means the same ones.

use cqrs_es::event_sink::EventSink;
use cqrs_es::{Aggregate, DomainEvent};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::event;
use crate::refusal::{Refusal, RefusalKind};

/// What has happened to a bulk stop.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum BulkStopEvent {
    /// Somebody asked for it.
    #[serde(rename = "bulk_stop.requested.v1")]
    Requested {
        /// The agent.
        agent: Uuid,
        /// The executions that are meant.
        executions: Vec<Uuid>,
        /// There were more that had not ended.
        more: bool,
    },
    /// None of them goes on.
    #[serde(rename = "bulk_stop.finished.v1")]
    Finished {
        /// How many of them it stopped; the others had ended by themselves.
        stopped: u64,
    },
}

/// What one may ask of a bulk stop.
#[derive(Clone, Debug, PartialEq)]
pub enum BulkStopCommand {
    /// Ask for it. Where no execution is meant, it is finished with that.
    Request {
        /// The agent.
        agent: Uuid,
        /// The executions that are meant.
        executions: Vec<Uuid>,
        /// There are more that have not ended.
        more: bool,
    },
    /// Say what it came to.
    Finish {
        /// How many of them it stopped.
        stopped: u64,
    },
}

/// A bulk stop.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub enum BulkStop {
    /// Never asked for.
    #[default]
    Missing,
    /// Some may go on.
    Open {
        /// The executions that are meant.
        executions: Vec<Uuid>,
        /// There were more that had not ended.
        more: bool,
    },
    /// None of them goes on.
    Finished {
        /// How many of them it stopped.
        stopped: u64,
        /// There were more that had not ended.
        more: bool,
    },
}

impl BulkStop {
    /// Answers a command with events or a refusal.
    pub fn decide(&self, command: BulkStopCommand) -> Result<Vec<BulkStopEvent>, BulkStopError> {
        use {BulkStopCommand as Do, BulkStopEvent as Did};
        match (self, command) {
            (BulkStop::Missing, Do::Request { agent, executions, more }) => {
                let is_all = executions.is_empty().then_some(Did::Finished { stopped: 0 });
                let requested = Did::Requested { agent, executions, more };
                Ok([requested].into_iter().chain(is_all).collect())
            }
            (_, Do::Request { .. }) => Err(BulkStopError::Requested),
            (BulkStop::Missing, Do::Finish { .. }) => Err(BulkStopError::NotFound),
            (BulkStop::Open { .. }, Do::Finish { stopped }) => Ok(vec![Did::Finished { stopped }]),
            (BulkStop::Finished { .. }, Do::Finish { .. }) => Ok(vec![]),
        }
    }
}

/// Why a bulk stop refused a command.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BulkStopError {
    /// It was asked for before.
    #[error("these executions are being stopped, or were: look at them, or ask under a new id")]
    Requested,
    /// Nobody asked for it.
    #[error("nobody asked for executions to be stopped under this id: ask for it first")]
    NotFound,
}

impl Refusal for BulkStopError {
    fn reason(&self) -> (RefusalKind, &'static str) {
        match self {
            BulkStopError::Requested => (RefusalKind::Conflict, "bulk_stop_requested"),
            BulkStopError::NotFound => (RefusalKind::NotFound, "bulk_stop_not_found"),
        }
    }
}

impl Aggregate for BulkStop {
    const TYPE: &'static str = "bulk_stop";
    type Command = BulkStopCommand;
    type Event = BulkStopEvent;
    type Error = BulkStopError;
    type Services = ();

    async fn handle(
        &mut self,
        command: BulkStopCommand,
        _: &(),
        sink: &EventSink<Self>,
    ) -> Result<(), BulkStopError> {
        for event in self.decide(command)? {
            sink.write(event, self).await;
        }
        Ok(())
    }

    fn apply(&mut self, event: BulkStopEvent) {
        *self = match (event, &*self) {
            (BulkStopEvent::Requested { executions, more, .. }, _) => {
                BulkStop::Open { executions, more }
            }
            (BulkStopEvent::Finished { stopped }, BulkStop::Open { more, .. }) => {
                BulkStop::Finished { stopped, more: *more }
            }
            (BulkStopEvent::Finished { .. }, BulkStop::Missing | BulkStop::Finished { .. }) => {
                return;
            }
        };
    }
}

impl DomainEvent for BulkStopEvent {
    fn event_type(&self) -> String {
        event::name_of(self).to_owned()
    }

    fn event_version(&self) -> String {
        event::version_of(event::name_of(self)).to_owned()
    }
}

#[cfg(test)]
mod tests;
