//! A conversation: what people say to a communicator in one place, what was started for it, and what is
//! said back. Its replies are the outbox: each stays in it until it is delivered or given up.
//!
//! Life: `Missing` → `Open`. The rule: a message is handled once, an execution is answered once, and of
//! the replies only the oldest that is left may be attempted, by one worker at a time. So they arrive in
//! order.

use std::collections::{BTreeMap, BTreeSet};

use cqrs_es::event_sink::EventSink;
use cqrs_es::{Aggregate, DomainEvent};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::event;
use crate::lease::{Holder, LeaseClaim, LeaseError};
use crate::refusal::{Refusal, RefusalKind};
use crate::values::{Payload, Timestamp};

/// What has happened in a conversation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum ConversationEvent {
    /// Somebody said something. It was verified, and is worked on next.
    #[serde(rename = "conversation.message_received.v1")]
    MessageReceived(Message),
    /// A message was given other words by whoever said it. What was started for it stays as it is.
    #[serde(rename = "conversation.message_changed.v1")]
    MessageChanged {
        /// The message.
        message: Uuid,
        /// Who says it, what, and where.
        content: Payload,
    },
    /// A message was taken back by whoever said it. What was started for it stays as it is.
    #[serde(rename = "conversation.message_withdrawn.v1")]
    MessageWithdrawn {
        /// The message.
        message: Uuid,
    },
    /// A trigger wanted a message, and its execution could not be asked for.
    #[serde(rename = "conversation.trigger_failed.v1")]
    TriggerFailed {
        /// The message.
        message: Uuid,
        /// The trigger.
        trigger: Uuid,
        /// A stable code.
        code: String,
        /// What went wrong.
        error: Payload,
    },
    /// A file that came with a message is about to be fetched.
    #[serde(rename = "conversation.file_attempted.v1")]
    FileAttempted {
        /// The message.
        message: Uuid,
        /// Which of its files, from 0.
        number: u32,
        /// The integration whose credential is used.
        integration: Uuid,
        /// Which of its secrets: see [`crate::integration::IntegrationDetails::secrets_version`].
        secrets_version: u64,
    },
    /// A file that came with a message is in a knowledge base.
    #[serde(rename = "conversation.file_taken.v1")]
    FileTaken {
        /// The message.
        message: Uuid,
        /// Which of its files, from 0.
        number: u32,
        /// The knowledge base.
        knowledge_base: Uuid,
        /// The file that holds its bytes.
        file: Uuid,
        /// The knowledge base held these very bytes before.
        is_known: bool,
    },
    /// A file that came with a message is in no knowledge base.
    #[serde(rename = "conversation.file_refused.v1")]
    FileRefused {
        /// The message.
        message: Uuid,
        /// Which of its files, from 0.
        number: u32,
        /// A stable code.
        code: String,
        /// Why not.
        error: Payload,
    },
    /// What there was to start for a message is started.
    #[serde(rename = "conversation.message_handled.v1")]
    MessageHandled {
        /// The message.
        message: Uuid,
        /// The executions whose answers are awaited.
        executions: Vec<Uuid>,
    },
    /// An execution ended, and has nothing to say.
    #[serde(rename = "conversation.execution_unanswered.v1")]
    ExecutionUnanswered {
        /// The execution.
        execution: Uuid,
    },
    /// Something is to be said.
    #[serde(rename = "conversation.reply_queued.v1")]
    ReplyQueued(Reply),
    /// A worker is about to send a reply: what comes of it is not known until it says so.
    #[serde(rename = "conversation.reply_attempted.v1")]
    ReplyAttempted {
        /// The reply.
        reply: Uuid,
        /// From 1.
        attempt: u32,
        /// Who sends it.
        worker: Uuid,
        /// From then on others may.
        lease_until: Timestamp,
        /// The integration whose credential is used.
        integration: Uuid,
        /// Which of its secrets: see [`crate::integration::IntegrationDetails::secrets_version`].
        secrets_version: u64,
        /// The execution that says it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        execution: Option<Uuid>,
    },
    /// The other side has it.
    #[serde(rename = "conversation.reply_delivered.v1")]
    ReplyDelivered {
        /// The reply.
        reply: Uuid,
        /// The attempt.
        attempt: u32,
        /// What the other side calls it.
        receipt: Payload,
    },
    /// An attempt failed, and another one follows.
    #[serde(rename = "conversation.reply_failed.v1")]
    ReplyFailed {
        /// The reply.
        reply: Uuid,
        /// The attempt.
        attempt: u32,
        /// A stable code.
        code: String,
        /// What went wrong.
        error: Payload,
        /// Not before then.
        retry_at: Timestamp,
    },
    /// Nobody tries any more.
    #[serde(rename = "conversation.reply_given_up.v1")]
    ReplyGivenUp {
        /// The reply.
        reply: Uuid,
        /// The last attempt; 0 where there was none.
        attempt: u32,
        /// A stable code.
        code: String,
        /// What went wrong.
        error: Payload,
    },
}

/// What somebody said.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Message {
    /// The communicator that it came through.
    pub integration: Uuid,
    /// Its id: made from the communicator's and the one that its sender's side gave the delivery.
    pub message: Uuid,
    /// Who says it, what, and where.
    pub content: Payload,
}

/// What is to be said.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Reply {
    /// The communicator that it goes through.
    pub integration: Uuid,
    /// Its id.
    pub reply: Uuid,
    /// The message that it answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<Uuid>,
    /// The execution that says it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub execution: Option<Uuid>,
    /// The step that says it; none where it is what the execution came to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step_id: Option<String>,
    /// What, and where.
    pub content: Payload,
}

/// A trigger that wanted a message in vain.
#[derive(Clone, Debug, PartialEq)]
pub struct TriggerFailure {
    /// The trigger.
    pub trigger: Uuid,
    /// A stable code.
    pub code: String,
    /// What went wrong.
    pub error: Payload,
}

/// What became of a file that came with a message.
#[derive(Clone, Debug, PartialEq)]
pub enum FileFate {
    /// It is in a knowledge base.
    Taken {
        /// The knowledge base.
        knowledge_base: Uuid,
        /// The file that holds its bytes.
        file: Uuid,
        /// The knowledge base held these very bytes before.
        is_known: bool,
    },
    /// It is in none.
    Refused {
        /// A stable code.
        code: String,
        /// Why not.
        error: Payload,
    },
}

/// What one may ask of a conversation.
#[derive(Clone, Debug, PartialEq)]
pub enum ConversationCommand {
    /// Keep what somebody said.
    Receive(Message),
    /// Keep what else somebody says in place of a message, or that it is taken back.
    Revise {
        /// The message.
        message: Uuid,
        /// The other words; none where it is taken back.
        content: Option<Payload>,
    },
    /// Note that a file of a message is about to be fetched.
    AttemptFile {
        /// The message.
        message: Uuid,
        /// Which of its files, from 0.
        number: u32,
        /// Which secrets of the integration are used.
        secrets_version: u64,
    },
    /// Note what became of a file of a message.
    SettleFile {
        /// The message.
        message: Uuid,
        /// Which of its files, from 0.
        number: u32,
        /// What.
        fate: FileFate,
    },
    /// Note what was started for a message.
    Handle {
        /// The message.
        message: Uuid,
        /// The executions.
        executions: Vec<Uuid>,
        /// The triggers that could start none.
        failures: Vec<TriggerFailure>,
        /// What is to be said at once.
        reply: Option<Reply>,
    },
    /// Note that an execution has ended.
    Answer {
        /// The execution.
        execution: Uuid,
        /// What it has to say.
        reply: Option<Reply>,
    },
    /// Say something that nobody asked for.
    Say(Reply),
    /// Note that a reply is about to be sent.
    Attempt {
        /// The reply.
        reply: Uuid,
        /// Who sends it, and how long that may take.
        lease: LeaseClaim,
        /// Which secrets of the integration are used.
        secrets_version: u64,
    },
    /// Note that the other side has it.
    Deliver {
        /// The reply.
        reply: Uuid,
        /// The attempt.
        attempt: u32,
        /// What the other side calls it.
        receipt: Payload,
    },
    /// Note that an attempt failed.
    Fail {
        /// The reply.
        reply: Uuid,
        /// The attempt.
        attempt: u32,
        /// A stable code.
        code: String,
        /// What went wrong.
        error: Payload,
        /// When to try again.
        retry_at: Timestamp,
    },
    /// Note that nobody tries any more.
    GiveUp {
        /// The reply.
        reply: Uuid,
        /// The last attempt; 0 where there was none.
        attempt: u32,
        /// A stable code.
        code: String,
        /// What went wrong.
        error: Payload,
    },
}

/// A reply that is in the outbox.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Outgoing {
    /// Its id.
    pub reply: Uuid,
    /// The execution that says it.
    pub execution: Option<Uuid>,
    /// The newest attempt; 0 before the first.
    pub attempt: u32,
    /// Who is at it, until it says what came of it.
    pub holder: Option<Holder>,
    /// It is not to be tried before then.
    pub not_before: Option<Timestamp>,
}

/// What became of a reply that has left the outbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Fate {
    /// The other side has it.
    Delivered,
    /// Nobody tries any more.
    GivenUp,
}

/// How far a file of a message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum FileState {
    /// It is fetched by these secrets.
    Attempted(u64),
    /// It is known what became of it.
    Settled,
}

/// What there is to know of a conversation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Talk {
    /// The communicator.
    pub integration: Uuid,
    /// Every message that came in.
    seen: BTreeSet<Uuid>,
    /// Those that are not handled yet, oldest first.
    pub waiting: Vec<Uuid>,
    /// The files of those, as far as somebody looked at them.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    files: BTreeMap<Uuid, BTreeMap<u32, FileState>>,
    /// Executions whose answer is awaited, and the messages that they were started for.
    pub running: BTreeMap<Uuid, Uuid>,
    /// Replies that are not delivered yet, oldest first.
    pub outbox: Vec<Outgoing>,
    /// What became of the others.
    pub fates: BTreeMap<Uuid, Fate>,
}

impl Talk {
    fn new(integration: Uuid) -> Talk {
        Talk {
            integration,
            seen: BTreeSet::new(),
            waiting: Vec::new(),
            files: BTreeMap::new(),
            running: BTreeMap::new(),
            outbox: Vec::new(),
            fates: BTreeMap::new(),
        }
    }

    /// Whether there is anything left to do.
    pub fn is_unfinished(&self) -> bool {
        !(self.waiting.is_empty() && self.running.is_empty() && self.outbox.is_empty())
    }

    fn knows(&self, reply: Uuid) -> bool {
        self.fates.contains_key(&reply) || self.outbox.iter().any(|known| known.reply == reply)
    }

    /// How far a file of a message is, if somebody looked at it.
    fn file(&self, message: Uuid, number: u32) -> Option<FileState> {
        self.files.get(&message)?.get(&number).copied()
    }

    /// The reply that a report is about, if it is the newest attempt that reports.
    fn reported(&self, reply: Uuid, attempt: u32) -> Result<(), ConversationError> {
        match self.outbox.first() {
            Some(first) if first.reply == reply && first.attempt == attempt => Ok(()),
            _ => Err(ConversationError::Lost),
        }
    }
}

/// A conversation.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub enum Conversation {
    /// Nothing was said yet.
    #[default]
    Missing,
    /// Something was.
    Open(Box<Talk>),
}

impl Conversation {
    /// What there is to know of it, once something was said.
    pub fn talk(&self) -> Option<&Talk> {
        match self {
            Conversation::Missing => None,
            Conversation::Open(talk) => Some(talk),
        }
    }

    /// Remembers what has happened.
    pub fn remember(&mut self, event: ConversationEvent) {
        if let (
            Conversation::Missing,
            ConversationEvent::MessageReceived(Message { integration, .. })
            | ConversationEvent::ReplyQueued(Reply { integration, .. }),
        ) = (&*self, &event)
        {
            *self = Conversation::Open(Box::new(Talk::new(*integration)));
        }
        if let Conversation::Open(talk) = self {
            talk.remember(event);
        }
    }

    /// Answers a command with events or a refusal.
    pub fn decide(
        &self,
        command: ConversationCommand,
    ) -> Result<Vec<ConversationEvent>, ConversationError> {
        use {ConversationCommand as Do, ConversationEvent as Did};
        match (self, command) {
            (Conversation::Missing, Do::Receive(message)) => {
                Ok(vec![Did::MessageReceived(message)])
            }
            (Conversation::Missing, Do::Say(reply)) => Ok(vec![Did::ReplyQueued(reply)]),
            (Conversation::Missing, _) => Err(ConversationError::NotFound),
            (Conversation::Open(talk), command) => talk.decide(command),
        }
    }
}

impl Talk {
    fn decide(
        &self,
        command: ConversationCommand,
    ) -> Result<Vec<ConversationEvent>, ConversationError> {
        use {ConversationCommand as Do, ConversationEvent as Did};
        Ok(match command {
            // The first one counts.
            Do::Receive(message) if self.seen.contains(&message.message) => vec![],
            Do::Receive(message) => vec![Did::MessageReceived(message)],
            Do::Revise { message, .. } if !self.seen.contains(&message) => {
                return Err(ConversationError::NotFound);
            }
            Do::Revise { message, content: Some(content) } => {
                vec![Did::MessageChanged { message, content }]
            }
            Do::Revise { message, content: None } => vec![Did::MessageWithdrawn { message }],
            Do::AttemptFile { message, number, .. } | Do::SettleFile { message, number, .. }
                if !self.waiting.contains(&message)
                    || self.file(message, number) == Some(FileState::Settled) =>
            {
                return Err(ConversationError::Handled);
            }
            Do::AttemptFile { message, number, secrets_version } => {
                if self.file(message, number) == Some(FileState::Attempted(secrets_version)) {
                    return Ok(vec![]);
                }
                let integration = self.integration;
                vec![Did::FileAttempted { message, number, integration, secrets_version }]
            }
            Do::SettleFile { message, number, fate } => vec![match fate {
                FileFate::Taken { knowledge_base, file, is_known } => {
                    Did::FileTaken { message, number, knowledge_base, file, is_known }
                }
                FileFate::Refused { code, error } => {
                    Did::FileRefused { message, number, code, error }
                }
            }],
            Do::Handle { message, .. } if !self.waiting.contains(&message) => {
                return Err(ConversationError::Handled);
            }
            Do::Handle { message, executions, failures, reply } => {
                let failed = failures.into_iter().map(|failure| {
                    let TriggerFailure { trigger, code, error } = failure;
                    Did::TriggerFailed { message, trigger, code, error }
                });
                let handled = Did::MessageHandled { message, executions };
                failed.chain([handled]).chain(reply.map(Did::ReplyQueued)).collect()
            }
            Do::Answer { execution, .. } if !self.running.contains_key(&execution) => {
                return Err(ConversationError::Handled);
            }
            Do::Answer { execution, reply: None } => vec![Did::ExecutionUnanswered { execution }],
            Do::Answer { execution, reply: Some(reply) } => {
                vec![Did::ReplyQueued(Reply { execution: Some(execution), ..reply })]
            }
            Do::Say(reply) if self.knows(reply.reply) => vec![],
            Do::Say(reply) => vec![Did::ReplyQueued(reply)],
            Do::Attempt { reply, lease, secrets_version } => {
                vec![self.attempt(reply, &lease, secrets_version)?]
            }
            Do::Deliver { reply, attempt, receipt } => {
                self.reported(reply, attempt)?;
                vec![Did::ReplyDelivered { reply, attempt, receipt }]
            }
            Do::Fail { reply, attempt, code, error, retry_at } => {
                self.reported(reply, attempt)?;
                vec![Did::ReplyFailed { reply, attempt, code, error, retry_at }]
            }
            Do::GiveUp { reply, attempt, code, error } => {
                self.reported(reply, attempt)?;
                vec![Did::ReplyGivenUp { reply, attempt, code, error }]
            }
        })
    }

    fn attempt(
        &self,
        reply: Uuid,
        lease: &LeaseClaim,
        secrets_version: u64,
    ) -> Result<ConversationEvent, ConversationError> {
        let Some(first) = self.outbox.first().filter(|first| first.reply == reply) else {
            return Err(ConversationError::NotNext);
        };
        if first.not_before.is_some_and(|at| lease.now < at) {
            return Err(ConversationError::NotNext);
        }
        let LeaseClaim { worker, now, lease_until, .. } = *lease;
        if lease_until <= now {
            return Err(ConversationError::Lease(LeaseError::EndsInPast));
        }
        if let Some(holder) = &first.holder
            && lease.is_kept_out_by(holder)
        {
            return Err(ConversationError::Lease(LeaseError::Held { until: holder.until }));
        }
        Ok(ConversationEvent::ReplyAttempted {
            reply,
            attempt: first.attempt + 1,
            worker,
            lease_until,
            integration: self.integration,
            secrets_version,
            execution: first.execution,
        })
    }

    fn remember(&mut self, event: ConversationEvent) {
        use ConversationEvent as Did;
        match event {
            Did::MessageReceived(Message { message, .. }) => {
                if self.seen.insert(message) {
                    self.waiting.push(message);
                }
            }
            Did::MessageChanged { .. }
            | Did::MessageWithdrawn { .. }
            | Did::TriggerFailed { .. } => {}
            Did::FileAttempted { message, number, secrets_version, .. } => {
                let state = FileState::Attempted(secrets_version);
                self.files.entry(message).or_default().insert(number, state);
            }
            Did::FileTaken { message, number, .. } | Did::FileRefused { message, number, .. } => {
                self.files.entry(message).or_default().insert(number, FileState::Settled);
            }
            Did::MessageHandled { message, executions } => {
                self.waiting.retain(|waiting| *waiting != message);
                self.files.remove(&message);
                self.running.extend(executions.into_iter().map(|execution| (execution, message)));
            }
            Did::ExecutionUnanswered { execution } => {
                self.running.remove(&execution);
            }
            Did::ReplyQueued(Reply { reply, execution, step_id, .. }) => {
                if let Some(execution) = execution.filter(|_| step_id.is_none()) {
                    self.running.remove(&execution);
                }
                let (attempt, holder, not_before) = (0, None, None);
                self.outbox.push(Outgoing { reply, execution, attempt, holder, not_before });
            }
            Did::ReplyAttempted { reply, attempt, worker, lease_until, .. } => {
                if let Some(outgoing) = self.outgoing(reply) {
                    outgoing.attempt = attempt;
                    outgoing.holder = Some(Holder { worker, until: lease_until });
                    outgoing.not_before = None;
                }
            }
            Did::ReplyFailed { reply, retry_at, .. } => {
                if let Some(outgoing) = self.outgoing(reply) {
                    outgoing.holder = None;
                    outgoing.not_before = Some(retry_at);
                }
            }
            Did::ReplyDelivered { reply, .. } => self.leave(reply, Fate::Delivered),
            Did::ReplyGivenUp { reply, .. } => self.leave(reply, Fate::GivenUp),
        }
    }

    fn outgoing(&mut self, reply: Uuid) -> Option<&mut Outgoing> {
        self.outbox.iter_mut().find(|outgoing| outgoing.reply == reply)
    }

    fn leave(&mut self, reply: Uuid, fate: Fate) {
        self.outbox.retain(|outgoing| outgoing.reply != reply);
        self.fates.insert(reply, fate);
    }
}

/// Why a conversation refused a command.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConversationError {
    /// Nothing was said in it.
    #[error("there is no such conversation")]
    NotFound,
    /// Somebody did it before.
    #[error("this was worked on already: leave it")]
    Handled,
    /// Another one comes first, or it is not yet time.
    #[error("the reply is not to be sent now: another one comes first, or it waits")]
    NotNext,
    /// Another worker is at it.
    #[error(transparent)]
    Lease(LeaseError),
    /// What is reported was overtaken.
    #[error("the attempt was overtaken by another one: throw this result away")]
    Lost,
}

impl Refusal for ConversationError {
    fn reason(&self) -> (RefusalKind, &'static str) {
        match self {
            ConversationError::NotFound => (RefusalKind::NotFound, "conversation_not_found"),
            ConversationError::Handled => (RefusalKind::Conflict, "message_handled"),
            ConversationError::NotNext => (RefusalKind::Conflict, "reply_not_next"),
            ConversationError::Lease(error) => error.reason(),
            ConversationError::Lost => (RefusalKind::Conflict, "attempt_lost"),
        }
    }
}

impl Aggregate for Conversation {
    const TYPE: &'static str = "conversation";
    type Command = ConversationCommand;
    type Event = ConversationEvent;
    type Error = ConversationError;
    type Services = ();

    async fn handle(
        &mut self,
        command: ConversationCommand,
        _: &(),
        sink: &EventSink<Self>,
    ) -> Result<(), ConversationError> {
        for event in self.decide(command)? {
            sink.write(event, self).await;
        }
        Ok(())
    }

    fn apply(&mut self, event: ConversationEvent) {
        self.remember(event);
    }
}

impl DomainEvent for ConversationEvent {
    fn event_type(&self) -> String {
        event::name_of(self).to_owned()
    }

    fn event_version(&self) -> String {
        event::version_of(event::name_of(self)).to_owned()
    }
}

#[cfg(test)]
mod tests;
