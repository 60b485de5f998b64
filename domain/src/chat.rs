//! A chat session: what somebody asks the assistant, one message after the other. What the assistant does
//! about each is a stream of its own, a run: see [`run`].
//!
//! Life: `Missing` → `Open` → `Deleted`, and open again when its owner uses the same name once more. The
//! rule: a message is taken only when the run of the one before has ended, so that every answer is
//! given in the light of the others.

pub mod run;

use cqrs_es::event_sink::EventSink;
use cqrs_es::{Aggregate, DomainEvent};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::event;
use crate::refusal::{Refusal, RefusalKind};
use crate::values::{Payload, Sealed};

/// What has happened to a chat session.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum ChatSessionEvent {
    /// Somebody began it.
    #[serde(rename = "chat_session.started.v1")]
    Started {
        /// What its owner calls it.
        session_id: Sealed,
        /// What it is shown as.
        title: Sealed,
    },
    /// Its owner asked something.
    #[serde(rename = "chat_session.message_asked.v1")]
    MessageAsked {
        /// The run that is to answer.
        run: Uuid,
        /// What was asked.
        message: Payload,
    },
    /// Its owner wants it to be shown as something else.
    #[serde(rename = "chat_session.renamed.v1")]
    Renamed {
        /// As what.
        title: Sealed,
    },
    /// Its owner does not want to see it any more.
    #[serde(rename = "chat_session.deleted.v1")]
    Deleted {},
}

/// What one may ask of a chat session.
#[derive(Clone, Debug, PartialEq)]
pub enum ChatSessionCommand {
    /// Take a message, and begin the session with it where there is none.
    Ask {
        /// What its owner calls it.
        session_id: Sealed,
        /// What it is shown as, where it begins.
        title: Sealed,
        /// The run that is to answer.
        run: Uuid,
        /// What is asked.
        message: Payload,
        /// The newest run that was found to have ended.
        ended: Option<Uuid>,
    },
    /// Show it as something else.
    Rename {
        /// As what.
        title: Sealed,
    },
    /// Hide it.
    Delete,
}

/// A chat session.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub enum ChatSession {
    /// Nobody began it.
    #[default]
    Missing,
    /// Its owner goes on with it.
    Open {
        /// The run of the newest message.
        newest: Option<Uuid>,
    },
    /// Hidden.
    Deleted {
        /// The run of the newest message.
        newest: Option<Uuid>,
    },
}

impl ChatSession {
    /// The run of the newest message, also of a session that is hidden.
    pub fn newest_run(&self) -> Option<Uuid> {
        match self {
            ChatSession::Missing => None,
            ChatSession::Open { newest } | ChatSession::Deleted { newest } => *newest,
        }
    }

    /// Answers a command with events or a refusal.
    pub fn decide(
        &self,
        command: ChatSessionCommand,
    ) -> Result<Vec<ChatSessionEvent>, ChatSessionError> {
        use {ChatSessionCommand as Do, ChatSessionEvent as Did};
        match (self, command) {
            (
                ChatSession::Missing | ChatSession::Deleted { .. },
                Do::Ask { session_id, title, run, message, .. },
            ) => Ok(vec![Did::Started { session_id, title }, Did::MessageAsked { run, message }]),
            (ChatSession::Open { newest }, Do::Ask { run, message, ended, .. }) => {
                if newest.is_some() && *newest != ended {
                    return Err(ChatSessionError::Busy);
                }
                Ok(vec![Did::MessageAsked { run, message }])
            }
            (ChatSession::Open { .. }, Do::Rename { title }) => Ok(vec![Did::Renamed { title }]),
            (ChatSession::Open { .. }, Do::Delete) => Ok(vec![Did::Deleted {}]),
            (ChatSession::Missing | ChatSession::Deleted { .. }, _) => {
                Err(ChatSessionError::NotFound)
            }
        }
    }
}

/// Why a chat session refused a command.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChatSessionError {
    /// There is no such session, or no more.
    #[error("there is no such chat session: list the sessions to see which there are")]
    NotFound,
    /// The message before is being answered.
    #[error("the message before is still being answered: wait for its end, or cancel its run")]
    Busy,
}

impl Refusal for ChatSessionError {
    fn reason(&self) -> (RefusalKind, &'static str) {
        match self {
            ChatSessionError::NotFound => (RefusalKind::NotFound, "chat_session_not_found"),
            ChatSessionError::Busy => (RefusalKind::Conflict, "run_in_progress"),
        }
    }
}

impl Aggregate for ChatSession {
    const TYPE: &'static str = "chat_session";
    type Command = ChatSessionCommand;
    type Event = ChatSessionEvent;
    type Error = ChatSessionError;
    type Services = ();

    async fn handle(
        &mut self,
        command: ChatSessionCommand,
        _: &(),
        sink: &EventSink<Self>,
    ) -> Result<(), ChatSessionError> {
        for event in self.decide(command)? {
            sink.write(event, self).await;
        }
        Ok(())
    }

    fn apply(&mut self, event: ChatSessionEvent) {
        let newest = self.newest_run();
        *self = match event {
            ChatSessionEvent::Started { .. } => ChatSession::Open { newest: None },
            ChatSessionEvent::MessageAsked { run, .. } => ChatSession::Open { newest: Some(run) },
            ChatSessionEvent::Renamed { .. } => return,
            ChatSessionEvent::Deleted {} => ChatSession::Deleted { newest },
        };
    }
}

impl DomainEvent for ChatSessionEvent {
    fn event_type(&self) -> String {
        event::name_of(self).to_owned()
    }

    fn event_version(&self) -> String {
        event::version_of(event::name_of(self)).to_owned()
    }
}

#[cfg(test)]
mod tests;
