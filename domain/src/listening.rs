//! How far the log was listened to for event triggers. One stream, `listening-main`.
//!
//! The rule of this file: it only goes forward. Whoever starts again from an older place does nothing
//! twice, so it is written rarely.

use cqrs_es::event_sink::EventSink;
use cqrs_es::{Aggregate, DomainEvent};
use serde::{Deserialize, Serialize};

use crate::event;
use crate::refusal::{Refusal, RefusalKind};

/// The id of the one stream.
pub const LISTENING_ID: &str = "main";

/// What has happened to the place.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum ListeningEvent {
    /// Everything up to there was reacted to.
    #[serde(rename = "listening.advanced.v1")]
    Advanced {
        /// The position in the log.
        position: u64,
    },
}

/// What one may say of the place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ListeningCommand {
    /// Everything up to there was reacted to.
    Advance {
        /// The position in the log.
        position: u64,
    },
}

/// How far the log was listened to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listening {
    /// The position in the log; 0 before the first event.
    pub position: u64,
}

impl Listening {
    /// Answers a command with events.
    pub fn decide(&self, command: ListeningCommand) -> Vec<ListeningEvent> {
        let ListeningCommand::Advance { position } = command;
        // Another node was further.
        if position <= self.position {
            return vec![];
        }
        vec![ListeningEvent::Advanced { position }]
    }
}

/// Nothing is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ListeningError {}

impl Refusal for ListeningError {
    fn reason(&self) -> (RefusalKind, &'static str) {
        match *self {}
    }
}

impl Aggregate for Listening {
    const TYPE: &'static str = "listening";
    type Command = ListeningCommand;
    type Event = ListeningEvent;
    type Error = ListeningError;
    type Services = ();

    async fn handle(
        &mut self,
        command: ListeningCommand,
        _: &(),
        sink: &EventSink<Self>,
    ) -> Result<(), ListeningError> {
        for event in self.decide(command) {
            sink.write(event, self).await;
        }
        Ok(())
    }

    fn apply(&mut self, event: ListeningEvent) {
        let ListeningEvent::Advanced { position } = event;
        self.position = self.position.max(position);
    }
}

impl DomainEvent for ListeningEvent {
    fn event_type(&self) -> String {
        event::name_of(self).to_owned()
    }

    fn event_version(&self) -> String {
        event::version_of(event::name_of(self)).to_owned()
    }
}
