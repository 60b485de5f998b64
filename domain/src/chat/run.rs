//! A run of the assistant: one question, and what comes of it until it is answered.
//!
//! Life: `Missing` → `Open` → `Ended`. The rule: one worker at a time writes an answer (see
//! [`crate::lease`]), piece by piece; whoever takes over begins the answer anew, and what ended it
//! first counts.

use cqrs_es::event_sink::EventSink;
use cqrs_es::{Aggregate, DomainEvent};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::event;
use crate::lease::{Lease, LeaseClaim, LeaseError};
use crate::refusal::{Refusal, RefusalKind};
use crate::values::{Payload, Timestamp};

/// What has happened to a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum ChatRunEvent {
    /// Somebody wants an answer.
    #[serde(rename = "chat_run.requested.v1")]
    Requested {
        /// The session that holds the question; none where it came with all that was said before.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        session: Option<Uuid>,
        /// What was said, where no session holds it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        messages: Option<Payload>,
    },
    /// A worker began to answer, or began anew where another one was cut off.
    #[serde(rename = "chat_run.started.v1")]
    Started {
        /// Who.
        worker: Uuid,
        /// The number of the claim.
        fence: u64,
        /// From then on others may claim it.
        lease_until: Timestamp,
    },
    /// It was looked up what the answer may be found in.
    #[serde(rename = "chat_run.retrieved.v1")]
    Retrieved {
        /// The number of the claim.
        fence: u64,
        /// How many passages are near.
        passages: u32,
    },
    /// More of the answer is written, or its worker is still at it.
    #[serde(rename = "chat_run.progressed.v1")]
    Progressed {
        /// The number of the claim.
        fence: u64,
        /// From then on others may claim it.
        lease_until: Timestamp,
        /// How many bytes of the answer are written, with these.
        written: u64,
        /// What came to the answer; nothing where its worker only says that it lives.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        text: Option<Payload>,
    },
    /// It is answered.
    #[serde(rename = "chat_run.succeeded.v1")]
    Succeeded {
        /// The number of the claim.
        fence: u64,
        /// How many bytes of the answer were told before, piece by piece.
        written: u64,
        /// The whole answer, what it cites, and how it came about.
        answer: Payload,
    },
    /// It could not be answered.
    #[serde(rename = "chat_run.failed.v2")]
    Failed {
        /// The number of the claim.
        fence: u64,
        /// A stable code.
        code: String,
        /// What went wrong.
        error: Payload,
        /// Asking again later may help.
        transient: bool,
    },
    /// Nobody wants the answer any more.
    #[serde(rename = "chat_run.cancelled.v1")]
    Cancelled {},
}

/// What one may ask of a run.
#[derive(Clone, Debug, PartialEq)]
pub enum ChatRunCommand {
    /// Have it answered.
    Request {
        /// The session that holds the question.
        session: Option<Uuid>,
        /// What was said, where no session holds it.
        messages: Option<Payload>,
    },
    /// Begin to answer.
    Start(LeaseClaim),
    /// Note what was looked up.
    Retrieve {
        /// The number of the claim.
        fence: u64,
        /// How many passages are near.
        passages: u32,
    },
    /// Note what came to the answer, or only that somebody is at it.
    Progress {
        /// The number of the claim.
        fence: u64,
        /// Until when the worker wants to be left alone.
        lease_until: Timestamp,
        /// How many bytes came.
        bytes: u64,
        /// What came.
        text: Option<Payload>,
    },
    /// Note the answer.
    Finish {
        /// The number of the claim.
        fence: u64,
        /// The answer.
        answer: Payload,
    },
    /// Note that there is none.
    Fail {
        /// The number of the claim.
        fence: u64,
        /// A stable code.
        code: String,
        /// What went wrong.
        error: Payload,
        /// Asking again later may help.
        transient: bool,
    },
    /// Want it no more.
    Cancel,
}

/// How a run has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum End {
    /// It is answered.
    Succeeded,
    /// It could not be answered.
    Failed,
    /// Nobody wants it.
    Cancelled,
}

/// A run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub enum ChatRun {
    /// Nobody asked for it.
    #[default]
    Missing,
    /// It is being answered, or waits for that.
    Open {
        /// The session that holds the question.
        session: Option<Uuid>,
        /// Who answers.
        lease: Lease,
        /// How many bytes of the answer are written.
        written: u64,
    },
    /// Over.
    Ended(End),
}

impl ChatRun {
    /// Whether nothing comes of it any more.
    pub fn has_ended(&self) -> bool {
        matches!(self, ChatRun::Ended(_))
    }

    /// Answers a command with events or a refusal.
    pub fn decide(&self, command: ChatRunCommand) -> Result<Vec<ChatRunEvent>, ChatRunError> {
        use {ChatRunCommand as Do, ChatRunEvent as Did};
        match (self, command) {
            (ChatRun::Missing, Do::Request { session, messages }) => {
                Ok(vec![Did::Requested { session, messages }])
            }
            (ChatRun::Missing, _) => Err(ChatRunError::NotFound),
            (_, Do::Request { .. }) | (ChatRun::Ended(End::Cancelled), Do::Cancel) => Ok(vec![]),
            (ChatRun::Ended(_), _) => Err(ChatRunError::Ended),
            (ChatRun::Open { lease, written, .. }, command) => {
                Self::answering(lease, *written, command)
            }
        }
    }

    fn answering(
        lease: &Lease,
        written: u64,
        command: ChatRunCommand,
    ) -> Result<Vec<ChatRunEvent>, ChatRunError> {
        use {ChatRunCommand as Do, ChatRunEvent as Did};
        Ok(vec![match command {
            Do::Request { .. } => return Ok(vec![]),
            Do::Cancel => Did::Cancelled {},
            Do::Start(claim) => {
                let fence = lease.claim(&claim)?;
                let LeaseClaim { worker, lease_until, .. } = claim;
                Did::Started { worker, fence, lease_until }
            }
            Do::Retrieve { fence, passages } => {
                lease.check(fence)?;
                Did::Retrieved { fence, passages }
            }
            Do::Progress { fence, lease_until, bytes, text } => {
                lease.check(fence)?;
                Did::Progressed { fence, lease_until, written: written + bytes, text }
            }
            Do::Finish { fence, answer } => {
                lease.check(fence)?;
                Did::Succeeded { fence, written, answer }
            }
            Do::Fail { fence, code, error, transient } => {
                lease.check(fence)?;
                Did::Failed { fence, code, error, transient }
            }
        }])
    }
}

/// Why a run refused a command.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChatRunError {
    /// Nobody asked for it.
    #[error("there is no such run: the session's history names its runs")]
    NotFound,
    /// It is over.
    #[error("the run has ended: look at its answer, or ask again")]
    Ended,
    /// Another worker is at it.
    #[error(transparent)]
    Lease(#[from] LeaseError),
}

impl Refusal for ChatRunError {
    fn reason(&self) -> (RefusalKind, &'static str) {
        match self {
            ChatRunError::NotFound => (RefusalKind::NotFound, "chat_run_not_found"),
            ChatRunError::Ended => (RefusalKind::Conflict, "chat_run_ended"),
            ChatRunError::Lease(error) => error.reason(),
        }
    }
}

impl Aggregate for ChatRun {
    const TYPE: &'static str = "chat_run";
    type Command = ChatRunCommand;
    type Event = ChatRunEvent;
    type Error = ChatRunError;
    type Services = ();

    async fn handle(
        &mut self,
        command: ChatRunCommand,
        _: &(),
        sink: &EventSink<Self>,
    ) -> Result<(), ChatRunError> {
        for event in self.decide(command)? {
            sink.write(event, self).await;
        }
        Ok(())
    }

    fn apply(&mut self, event: ChatRunEvent) {
        match (&mut *self, event) {
            (_, ChatRunEvent::Requested { session, .. }) => {
                *self = ChatRun::Open { session, lease: Lease::default(), written: 0 };
            }
            (
                ChatRun::Open { lease, written, .. },
                ChatRunEvent::Started { worker, fence, lease_until },
            ) => {
                lease.taken(worker, fence, lease_until);
                *written = 0;
            }
            (
                ChatRun::Open { lease, written, .. },
                ChatRunEvent::Progressed { lease_until, written: now, .. },
            ) => {
                *written = now;
                if let Some(holder) = &mut lease.holder {
                    holder.until = lease_until;
                }
            }
            (_, ChatRunEvent::Succeeded { .. }) => *self = ChatRun::Ended(End::Succeeded),
            (_, ChatRunEvent::Failed { .. }) => *self = ChatRun::Ended(End::Failed),
            (_, ChatRunEvent::Cancelled {}) => *self = ChatRun::Ended(End::Cancelled),
            (
                _,
                ChatRunEvent::Started { .. }
                | ChatRunEvent::Retrieved { .. }
                | ChatRunEvent::Progressed { .. },
            ) => {}
        }
    }
}

impl DomainEvent for ChatRunEvent {
    fn event_type(&self) -> String {
        event::name_of(self).to_owned()
    }

    fn event_version(&self) -> String {
        event::version_of(event::name_of(self)).to_owned()
    }
}

#[cfg(test)]
mod tests;
