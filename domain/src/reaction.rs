//! What an event trigger could not do: a stream of its own, so that it never moves the `ETag` of the
//! trigger. What it did stands on the executions that it asked for.
//!
//! The rule of this file: it is for people to see, and nothing is decided by it. Once for one event is
//! made sure of by the command's id.

use cqrs_es::event_sink::EventSink;
use cqrs_es::{Aggregate, DomainEvent};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::event;
use crate::execution::Cause;
use crate::refusal::{Refusal, RefusalKind};
use crate::values::Payload;

/// What has happened to an event trigger.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum ReactionEvent {
    /// Its filter could not be trusted with an event, or matched one whose execution could not be asked
    /// for.
    #[serde(rename = "reaction.failed.v1")]
    Failed {
        /// The event's id.
        event: Uuid,
        /// Its name on disk.
        event_type: String,
        /// Its stream.
        subject: String,
        /// A stable code.
        code: String,
        /// What went wrong.
        error: Payload,
    },
    /// Its filter matched an event, and too many executions had led to that one already.
    #[serde(rename = "reaction.too_deep.v1")]
    TooDeep {
        /// The event's id.
        event: Uuid,
        /// Its name on disk.
        event_type: String,
        /// Its stream.
        subject: String,
        /// How many executions events had started, one because of the other.
        depth: u32,
    },
}

/// What one may say of an event trigger.
#[derive(Clone, Debug, PartialEq)]
pub enum ReactionCommand {
    /// It failed at an event.
    Fail {
        /// The event.
        cause: Cause,
        /// A stable code.
        code: String,
        /// What went wrong.
        error: Payload,
    },
    /// It starts nothing more because of this event.
    StopTooDeep(Cause),
}

/// An event trigger, as far as it could not do something.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reaction {}

impl Reaction {
    /// Answers a command with events.
    pub fn decide(&self, command: ReactionCommand) -> Vec<ReactionEvent> {
        vec![match command {
            ReactionCommand::Fail { cause, code, error } => {
                let Cause { event, event_type, subject, .. } = cause;
                ReactionEvent::Failed { event, event_type, subject, code, error }
            }
            ReactionCommand::StopTooDeep(Cause { event, event_type, subject, depth }) => {
                ReactionEvent::TooDeep { event, event_type, subject, depth }
            }
        }]
    }
}

/// Nothing is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReactionError {}

impl Refusal for ReactionError {
    fn reason(&self) -> (RefusalKind, &'static str) {
        match *self {}
    }
}

impl Aggregate for Reaction {
    const TYPE: &'static str = "reaction";
    type Command = ReactionCommand;
    type Event = ReactionEvent;
    type Error = ReactionError;
    type Services = ();

    async fn handle(
        &mut self,
        command: ReactionCommand,
        _: &(),
        sink: &EventSink<Self>,
    ) -> Result<(), ReactionError> {
        for event in self.decide(command) {
            sink.write(event, self).await;
        }
        Ok(())
    }

    fn apply(&mut self, _: ReactionEvent) {}
}

impl DomainEvent for ReactionEvent {
    fn event_type(&self) -> String {
        event::name_of(self).to_owned()
    }

    fn event_version(&self) -> String {
        event::version_of(event::name_of(self)).to_owned()
    }
}
