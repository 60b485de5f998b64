//! A delivery: what somebody outside sent to a webhook trigger, and what became of it.
//!
//! Life: `Missing` → `Received` → `Settled`, and never back. It is named by its trigger and by the id
//! that its sender gave it, so that one that comes twice is one.

use cqrs_es::event_sink::EventSink;
use cqrs_es::{Aggregate, DomainEvent};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::event;
use crate::refusal::{Refusal, RefusalKind};
use crate::values::{Digest, Payload};

/// What has happened to a delivery.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum DeliveryEvent {
    /// It was verified, and is worked on next.
    #[serde(rename = "delivery.received.v1")]
    Received(Receipt),
    /// It starts an execution.
    #[serde(rename = "delivery.started.v1")]
    Started {
        /// The execution.
        execution: Uuid,
    },
    /// The trigger does not care for it.
    #[serde(rename = "delivery.filtered.v1")]
    Filtered {},
    /// Its execution could not be asked for.
    #[serde(rename = "delivery.failed.v1")]
    Failed {
        /// A stable code.
        code: String,
        /// What went wrong.
        error: Payload,
    },
}

/// What there is to know of a delivery that came in.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Receipt {
    /// The trigger that it came to.
    pub trigger: Uuid,
    /// The agent of the trigger.
    pub agent: Uuid,
    /// How it was verified.
    pub verify: String,
    /// How long its body is, in bytes.
    pub size: u64,
    /// The keyed hash of its body.
    pub content_hash: Digest,
    /// Its id, the headers that matter, and its body.
    pub content: Payload,
}

/// What one may ask of a delivery.
#[derive(Clone, Debug, PartialEq)]
pub enum DeliveryCommand {
    /// Keep it.
    Receive(Receipt),
    /// Note that it starts an execution.
    Start {
        /// The execution.
        execution: Uuid,
    },
    /// Note that the trigger does not care for it.
    Filter,
    /// Note that its execution could not be asked for.
    Fail {
        /// A stable code.
        code: String,
        /// What went wrong.
        error: Payload,
    },
}

/// Whom a delivery came to. What it says is in its event alone: it may be long, and a state is kept in
/// memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Receiver {
    /// The trigger.
    pub trigger: Uuid,
    /// The agent of the trigger.
    pub agent: Uuid,
}

/// A delivery.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub enum Delivery {
    /// Not here yet.
    #[default]
    Missing,
    /// Here, and not worked on yet.
    Received(Receiver),
    /// Worked on.
    Settled(Receiver),
}

impl Delivery {
    /// Answers a command with events or a refusal.
    pub fn decide(&self, command: DeliveryCommand) -> Result<Vec<DeliveryEvent>, DeliveryError> {
        use {DeliveryCommand as Do, DeliveryEvent as Did};
        let event = match (self, command) {
            (Delivery::Missing, Do::Receive(receipt)) => Did::Received(receipt),
            // The first one counts.
            (Delivery::Received(_) | Delivery::Settled(_), Do::Receive(_)) => return Ok(vec![]),
            (Delivery::Missing, _) => return Err(DeliveryError::NotFound),
            (Delivery::Settled(_), _) => return Err(DeliveryError::Settled),
            (Delivery::Received(_), Do::Start { execution }) => Did::Started { execution },
            (Delivery::Received(_), Do::Filter) => Did::Filtered {},
            (Delivery::Received(_), Do::Fail { code, error }) => Did::Failed { code, error },
        };
        Ok(vec![event])
    }
}

/// Why a delivery refused a command.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DeliveryError {
    /// There is no such delivery.
    #[error("there is no such delivery: look at the deliveries of the trigger")]
    NotFound,
    /// It was worked on.
    #[error("the delivery is settled already: replay it to have it worked on again")]
    Settled,
}

impl Refusal for DeliveryError {
    fn reason(&self) -> (RefusalKind, &'static str) {
        match self {
            DeliveryError::NotFound => (RefusalKind::NotFound, "delivery_not_found"),
            DeliveryError::Settled => (RefusalKind::Conflict, "delivery_settled"),
        }
    }
}

impl Aggregate for Delivery {
    const TYPE: &'static str = "delivery";
    type Command = DeliveryCommand;
    type Event = DeliveryEvent;
    type Error = DeliveryError;
    type Services = ();

    async fn handle(
        &mut self,
        command: DeliveryCommand,
        _: &(),
        sink: &EventSink<Self>,
    ) -> Result<(), DeliveryError> {
        for event in self.decide(command)? {
            sink.write(event, self).await;
        }
        Ok(())
    }

    fn apply(&mut self, event: DeliveryEvent) {
        *self = match (std::mem::take(self), event) {
            (_, DeliveryEvent::Received(Receipt { trigger, agent, .. })) => {
                Delivery::Received(Receiver { trigger, agent })
            }
            (Delivery::Received(receiver), _) => Delivery::Settled(receiver),
            (state, _) => state,
        };
    }
}

impl DomainEvent for DeliveryEvent {
    fn event_type(&self) -> String {
        event::name_of(self).to_owned()
    }

    fn event_version(&self) -> String {
        event::version_of(event::name_of(self)).to_owned()
    }
}

#[cfg(test)]
mod tests;
