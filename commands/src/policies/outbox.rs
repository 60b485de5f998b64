//! The outbox: what is to be said in a communicator is sent, and sent again until it is there.
//!
//! The rule of this file: an attempt is in the log before it is made, and what came of it before the next
//! reply of the conversation is. So replies arrive in order, and each once; only one that was cut off in
//! the middle may arrive twice.

use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use domain::Timestamp;
use domain::conversation::{
    Conversation, ConversationCommand, ConversationEvent, Outgoing, Reply, Talk,
};
use eventlog::{RecordedEvent, StreamId};
use futures::FutureExt;
use parking_lot::Mutex;
use serde_json::Value;
use tokio::sync::Notify;
use tokio::task::AbortHandle;
use uuid::Uuid;

use super::ToolError;
use super::queue::{Outcome, Queue};
use super::runner::reaches;
use crate::communicator::Saying;
use crate::conversation::Room;
use crate::execute::decode_event;
use crate::tools::Tools;
use crate::{Ask, Commands, Error, OpenIntegration};

/// How many conversations are sent to at once.
const AT_ONCE: usize = 16;

/// Whose the events are.
const NAME: &str = "outbox";

/// How often a reply is tried, in all: for about an hour and a quarter.
pub(super) const MOST_ATTEMPTS: u32 = 15;

/// The first wait, and the longest one that the outbox chooses by itself.
const FIRST_WAIT: Duration = Duration::from_secs(1);
const LONGEST_WAIT: Duration = Duration::from_secs(15 * 60);

/// The longest wait that somebody else is granted.
const MOST_PATIENCE: Duration = Duration::from_secs(24 * 3_600);

/// How long one attempt may take, and for how long nobody else makes one.
const LIMIT: Duration = Duration::from_secs(60);
pub(crate) const LEASE: TimeDelta = TimeDelta::minutes(2);

/// Whoever waits for a reply looks again at least this often.
const LOOK_AGAIN: Duration = Duration::from_secs(30);

const DELIVERED: &str = "conversation.reply_delivered.v1";
const FAILED: &str = "conversation.reply_failed.v1";
const GIVEN_UP: &str = "conversation.reply_given_up.v1";
const RECEIPT: &str = "receipt";
const NOTICE: &[u8] = b"notify";
const ERROR: &str = "error";

/// The process manager of the outbox.
pub(super) struct Outbox {
    commands: Commands,
    tools: Arc<Tools>,
    worker: Uuid,
    queue: Arc<Queue>,
    /// Take up conversations that wait for their next attempt.
    timers: Mutex<HashMap<Uuid, AbortHandle>>,
    /// A reply was delivered or given up, somewhere.
    news: Notify,
    /// Another node is gone: those who wait for it look again.
    hurry: Notify,
}

/// What a step says.
pub(super) struct Notice {
    pub(super) integration: Uuid,
    pub(super) execution: Uuid,
    /// The step, as the execution calls it.
    pub(super) place: String,
    pub(super) saying: Saying,
}

/// What is left to do in a conversation.
enum Next {
    /// Nothing now.
    Nothing,
    /// Nothing before then.
    NotBefore(DateTime<Utc>),
    /// This.
    Send(Box<(Outgoing, Reply)>),
}

impl Outbox {
    pub(super) fn start(commands: Commands, tools: Arc<Tools>, worker: Uuid) -> Arc<Outbox> {
        Arc::new(Outbox {
            commands,
            tools,
            worker,
            queue: Arc::new(Queue::new(NAME, AT_ONCE)),
            timers: Mutex::default(),
            news: Notify::new(),
            hurry: Notify::new(),
        })
    }

    /// Sends what is to be said in a conversation of a product.
    pub(super) fn add(self: &Arc<Self>, product: Option<Uuid>, conversation: Uuid) {
        let outbox = self.clone();
        self.queue.add_for(product.unwrap_or_default(), conversation, move || {
            let outbox = outbox.clone();
            async move {
                match outbox.work(product, conversation).await {
                    Ok(()) => Outcome::Finished,
                    Err(error) => Outcome::TryAgain(error.to_string()),
                }
            }
        });
    }

    /// Somebody may have waited for this, and another reply may be next.
    pub(super) fn settled(self: &Arc<Self>, product: Option<Uuid>, conversation: Uuid) {
        self.news.notify_waiters();
        self.add(product, conversation);
    }

    /// Another node is gone: what waits for its lease need not.
    pub(super) fn hurry(&self) {
        self.queue.hurry();
        self.hurry.notify_waiters();
    }

    /// Lets what is being sent arrive, and leaves the rest to the next start.
    pub(super) async fn stop(&self) {
        self.timers.lock().drain().for_each(|(_, timer)| timer.abort());
        self.queue.stop().await;
    }

    /// Puts what a step says into the outbox, once for the step.
    ///
    /// # Errors
    /// The log or the vault fail.
    pub(super) async fn say(
        &self,
        notice: Notice,
        requested: &RecordedEvent,
    ) -> Result<(), ToolError> {
        let Notice { integration, execution, place, saying } = notice;
        let room = notice_room(requested, execution, &place);
        let conversation = notice_id(execution, &place);
        let say = async {
            let content = self.commands.seal_saying(&room, &saying).await?;
            let reply = Reply {
                integration,
                reply: conversation,
                message: None,
                execution: Some(execution),
                step_id: Some(place.clone()),
                content,
            };
            let of: [&[u8]; 3] = [NOTICE, execution.as_bytes(), place.as_bytes()];
            let ask = Ask::because_of(requested, NAME, &of);
            self.commands.converse(conversation, ConversationCommand::Say(reply), &ask).await
        };
        say.await.map(drop).map_err(|error| not_said(&error))
    }

    /// Waits until what a step said is there, and answers what the other side calls it.
    ///
    /// # Errors
    /// It was given up, or the log or the vault fail.
    pub(super) async fn fate_of(
        &self,
        requested: &RecordedEvent,
        execution: Uuid,
        place: &str,
    ) -> Result<Value, ToolError> {
        loop {
            let news = self.news.notified();
            tokio::pin!(news);
            // Before the read: what is settled in between is then heard of.
            news.as_mut().enable();
            match self.fate_so_far(requested, execution, place).await {
                Ok(Some(fate)) => return fate,
                Ok(None) => {}
                Err(error) => return Err(not_said(&error)),
            }
            let _ = tokio::time::timeout(LOOK_AGAIN, news).await;
        }
    }

    /// What became of what a step said, if that is known by now.
    pub(super) async fn fate_so_far(
        &self,
        requested: &RecordedEvent,
        execution: Uuid,
        place: &str,
    ) -> Result<Option<Result<Value, ToolError>>, Error> {
        self.fate(&notice_room(requested, execution, place)).await
    }

    /// What became of the only reply of a conversation.
    async fn fate(&self, room: &Room) -> Result<Option<Result<Value, ToolError>>, Error> {
        let events = self.commands.whole_stream(&room.stream).await?;
        let Some(last) = events.last() else { return Ok(None) };
        Ok(match decode_event(last)? {
            ConversationEvent::ReplyDelivered { receipt, .. } => {
                let receipt =
                    self.commands.open_json_in(room, DELIVERED, RECEIPT, &receipt).await?;
                Some(Ok(receipt.unwrap_or_default()))
            }
            ConversationEvent::ReplyGivenUp { code, error, .. } => {
                let Room { organization, product, stream } = room;
                let message = self
                    .commands
                    .open_payload(*organization, *product, stream, GIVEN_UP, ERROR, &error)
                    .await?;
                let message = message.map(|text| String::from_utf8_lossy(&text).into_owned());
                Some(Err(ToolError::lasting(code, message.unwrap_or_default())))
            }
            _ => None,
        })
    }

    async fn work(
        self: &Arc<Self>,
        product: Option<Uuid>,
        conversation: Uuid,
    ) -> Result<(), Error> {
        if let Some(timer) = self.timers.lock().remove(&conversation) {
            timer.abort();
        }
        let stream = StreamId::new("conversation", conversation);
        while !self.queue.is_stopping() {
            let events = self.commands.whole_stream(&stream).await?;
            let Some(first) = events.first() else { return Ok(()) };
            let room = Room {
                organization: first.organization,
                product: first.product.unwrap_or_default(),
                stream: stream.clone(),
            };
            if !self.commands.has_product(room.product).await? {
                return Ok(());
            }
            match self.next(&stream, &events).await? {
                Next::Nothing => return Ok(()),
                Next::NotBefore(at) => {
                    self.wake(product, conversation, at);
                    return Ok(());
                }
                Next::Send(next) => {
                    let (outgoing, reply) = *next;
                    let sent = self.send(&room, conversation, &outgoing, &reply, first).await;
                    match sent {
                        Ok(()) => {}
                        // Another node is at it, and is heard of when it is done; or it dies.
                        Err(Error::Refused { .. } | Error::Conflict) => {
                            self.wake(product, conversation, Utc::now() + LEASE);
                            return Ok(());
                        }
                        Err(error) => return Err(error),
                    }
                }
            }
        }
        Ok(())
    }

    async fn next(&self, stream: &StreamId, events: &[Arc<RecordedEvent>]) -> Result<Next, Error> {
        let (state, _) = self.commands.replay::<Conversation>(stream).await?;
        let Some(outgoing) = state.talk().and_then(|talk: &Talk| talk.outbox.first()) else {
            return Ok(Next::Nothing);
        };
        let now = Utc::now();
        if let Some(at) = outgoing.not_before.map(DateTime::from).filter(|at| *at > now) {
            return Ok(Next::NotBefore(at));
        }
        let claim = self.commands.lease(self.worker, LEASE);
        if let Some(holder) = &outgoing.holder
            && claim.is_kept_out_by(holder)
        {
            let left = self.commands.meet_lease(stream).await?;
            return Ok(Next::NotBefore(now + left.max(FIRST_WAIT)));
        }
        for event in events {
            if let ConversationEvent::ReplyQueued(reply) = decode_event(event)?
                && reply.reply == outgoing.reply
            {
                return Ok(Next::Send(Box::new((outgoing.clone(), reply))));
            }
        }
        // It was queued after the events were read.
        Ok(Next::NotBefore(now))
    }

    /// Makes an attempt, and says what came of it.
    async fn send(
        &self,
        room: &Room,
        conversation: Uuid,
        outgoing: &Outgoing,
        reply: &Reply,
        first: &RecordedEvent,
    ) -> Result<(), Error> {
        let opened = async {
            let saying = self.commands.open_saying(room, &reply.content).await?;
            let integration = match self.commands.open_integration(reply.integration).await {
                Ok(found) => Ok(found),
                Err(Error::Refused { .. }) => Err(()),
                Err(error) => return Err(error),
            };
            Ok((saying, integration))
        };
        let (saying, integration) = opened.await?;
        // What can be known without asking anybody costs no attempt.
        let beforehand = check(room, saying, integration, outgoing);
        let (saying, integration) = match beforehand {
            Ok(known) => known,
            Err(error) => {
                return self
                    .give_up(room, conversation, outgoing, outgoing.attempt, error, first)
                    .await;
            }
        };
        let lease = self.commands.lease(self.worker, LEASE);
        let secrets_version = integration.secrets_version;
        let attempt = ConversationCommand::Attempt { reply: reply.reply, lease, secrets_version };
        // A claim of its own, whoever made the last one.
        let ask = once(first);
        let done = self.commands.converse(conversation, attempt, &ask).await?;
        let Some(event) = done.events.first() else { return Err(Error::Conflict) };
        let ConversationEvent::ReplyAttempted { attempt, .. } = decode_event(event)? else {
            return Err(Error::Conflict);
        };
        let key = reply.reply.to_string();
        match attempted(self.tools.connectors.say(&integration, &saying, &key)).await {
            Ok(receipt) => {
                let receipt = receipt.to_string();
                let receipt =
                    self.commands.seal_in(room, DELIVERED, RECEIPT, receipt.as_bytes()).await?;
                count("delivered");
                let deliver = ConversationCommand::Deliver { reply: reply.reply, attempt, receipt };
                self.report(conversation, deliver, event).await
            }
            Err(error) if error.is_passing && attempt < MOST_ATTEMPTS => {
                let wait = wait_after(attempt).max(error.retry_after.unwrap_or_default());
                let wait = TimeDelta::from_std(wait.min(MOST_PATIENCE)).unwrap_or(LEASE);
                let retry_at = Timestamp::from(Utc::now() + wait);
                let code = error.code;
                tracing::warn!(%conversation, attempt, code, "a reply is sent again later");
                count("failed");
                let text = error.message.as_bytes();
                let error = self.commands.seal_in(room, FAILED, ERROR, text).await?;
                let fail = ConversationCommand::Fail {
                    reply: reply.reply,
                    attempt,
                    code,
                    error,
                    retry_at,
                };
                self.report(conversation, fail, event).await
            }
            Err(error) => self.give_up(room, conversation, outgoing, attempt, error, event).await,
        }
    }

    async fn give_up(
        &self,
        room: &Room,
        conversation: Uuid,
        outgoing: &Outgoing,
        attempt: u32,
        error: ToolError,
        because: &RecordedEvent,
    ) -> Result<(), Error> {
        let (reply, code) = (outgoing.reply, error.code);
        tracing::warn!(%conversation, attempt, code, "a reply is given up");
        count("given_up");
        let error = self.commands.seal_in(room, GIVEN_UP, ERROR, error.message.as_bytes()).await?;
        let give_up = ConversationCommand::GiveUp { reply, attempt, code, error };
        self.report(conversation, give_up, because).await
    }

    async fn report(
        &self,
        conversation: Uuid,
        command: ConversationCommand,
        because: &RecordedEvent,
    ) -> Result<(), Error> {
        self.commands.converse(conversation, command, &once(because)).await.map(|_| ())
    }

    /// Takes a conversation up when its time has come.
    fn wake(self: &Arc<Self>, product: Option<Uuid>, conversation: Uuid, at: DateTime<Utc>) {
        let outbox = self.clone();
        let timer = tokio::spawn(async move {
            tokio::select! {
                () = reaches(at) => {}
                () = outbox.hurry.notified() => {}
            }
            outbox.add(product, conversation);
        });
        if let Some(older) = self.timers.lock().insert(conversation, timer.abort_handle()) {
            older.abort();
        }
    }
}

/// The conversation in which a step says something: one of its own.
pub(super) fn notice_id(execution: Uuid, place: &str) -> Uuid {
    domain::derived_id(&[NOTICE, execution.as_bytes(), place.as_bytes()])
}

fn notice_room(requested: &RecordedEvent, execution: Uuid, place: &str) -> Room {
    Room {
        organization: requested.organization,
        product: requested.product.unwrap_or_default(),
        stream: StreamId::new("conversation", notice_id(execution, place)),
    }
}

/// What follows from an event, by itself: the attempt it speaks of keeps it from being said twice.
fn once(event: &RecordedEvent) -> Ask {
    let ask = Ask::because_of(event, NAME, &[Uuid::now_v7().as_bytes()]);
    Ask { repeatable: false, ..ask }
}

/// What a reply is sent with, where there is any sense in sending it.
fn check(
    room: &Room,
    saying: Option<Saying>,
    integration: Result<OpenIntegration, ()>,
    outgoing: &Outgoing,
) -> Result<(Saying, OpenIntegration), ToolError> {
    let lasting = |code: &str, message: &str| Err(ToolError::lasting(code, message));
    let Some(saying) = saying else {
        return lasting("erased", "what was to be said was erased with its product");
    };
    let is_ours = |it: &OpenIntegration| {
        it.organization == room.organization && it.product.is_none_or(|id| id == room.product)
    };
    let Some(integration) = integration.ok().filter(is_ours) else {
        return lasting("integration_not_found", "the communicator was deleted");
    };
    if !integration.enabled {
        return lasting(
            "integration_disabled",
            "the communicator is disabled: enable it, and ask again",
        );
    }
    if outgoing.attempt >= MOST_ATTEMPTS {
        let message = format!("it was tried {MOST_ATTEMPTS} times, and each time cut off");
        return Err(ToolError::lasting("cut_off_too_often", message));
    }
    Ok((saying, integration))
}

fn not_said(error: &Error) -> ToolError {
    let message = format!("what is to be said cannot be kept: {error}");
    match error {
        Error::Log(_) | Error::Conflict | Error::Vault(_) => {
            ToolError::passing("notice_not_kept", message)
        }
        _ => ToolError::lasting("notice_not_kept", message),
    }
}

/// What comes of an attempt, however it ends. One that crashed is not made again: what it sent may be there.
async fn attempted(
    said: impl Future<Output = Result<Value, ToolError>>,
) -> Result<Value, ToolError> {
    match tokio::time::timeout(LIMIT, AssertUnwindSafe(said).catch_unwind()).await {
        Ok(Ok(said)) => said,
        // The panic hook has written where.
        Ok(Err(_)) => Err(ToolError::lasting(
            "attempt_crashed",
            "sending it crashed, which is a fault of this server: report it with the server's log; it may have \
             arrived",
        )),
        Err(_) => {
            let message = format!("the other side took longer than {} s", LIMIT.as_secs());
            Err(ToolError::passing("timed_out", message))
        }
    }
}

/// How long to wait after an attempt.
fn wait_after(attempt: u32) -> Duration {
    let factor = 2_u32.saturating_pow(attempt.saturating_sub(1).min(16));
    (FIRST_WAIT * factor).min(LONGEST_WAIT)
}

fn count(outcome: &'static str) {
    metrics::counter!("prodgy_replies_total", "outcome" => outcome).increment(1);
}

#[cfg(test)]
pub(super) mod tests;
