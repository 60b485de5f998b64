//! Process managers: what follows from an event. They own every side effect, and report by
//! commands.
//!
//! The rule of this file: whatever follows is asked for at least once and carried out once, since
//! its command id is made from the event. Where a manager stood is not kept: what was left undone
//! is read off the read models at the start, and the log is followed from there.

#[cfg(test)]
pub(crate) mod altered;
mod assistant;
mod chat;
mod completion;
mod conversation;
pub(crate) mod delivery;
mod erasure;
mod firing;
mod generation;
mod heartbeat;
mod ingestion;
mod listening;
mod outbox;
mod queue;
mod reaction;
mod retention;
mod runner;
mod schedule;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use chrono::{TimeDelta, Utc};
use domain::integration::IntegrationKind;
use domain::lease::LeaseClaim;
use domain::schedule::firings::Firings;
use domain::{FileName, Timestamp};
use embeddings::{Embedder, Extractor};
use eventlog::{Position, RecordedEvent};
use serde_json::{Map, Value};
use tokio::sync::watch;
use uuid::Uuid;

use crate::tools::Tools;
use crate::{Actor, Ask, Commands, Done, Error, NewExecution};
use assistant::Assistant;
use chat::Chats;
use completion::Completion;
use conversation::Conversations;
use delivery::Deliveries;
use erasure::Erasure;
use generation::Generations;
use heartbeat::Heartbeat;
use ingestion::Ingestion;
use outbox::Outbox;
use reaction::Reactions;
use retention::Retention;
use runner::Runner;
use schedule::Schedules;

pub(crate) use chat::LEASE as ANSWER_LEASE;
pub use erasure::{Contents, GenerationState, Inside, NotNow};
pub(crate) use ingestion::{LARGEST_READ, LEASE as FILE_LEASE};
pub(crate) use outbox::LEASE as REPLY_LEASE;
pub use retention::Due;
pub(crate) use runner::LEASE as EXECUTION_LEASE;

/// How many events one read of the log brings.
const BATCH: usize = 1_000;

/// How long to wait after the log could not be read.
const PAUSE: Duration = Duration::from_secs(1);

/// What the read models say is left to do, and up to where they have read.
#[derive(Clone, Debug, Default)]
pub struct Pending {
    /// Up to where the read models have taken the log in.
    pub position: Position,
    /// Files that wait to be read, with their products.
    pub files: Vec<(Uuid, Uuid)>,
    /// Executions that have not ended.
    pub executions: Vec<Uuid>,
    /// Requests to stop several of them that were not finished.
    pub bulk_stops: Vec<Uuid>,
    /// Products whose default knowledge base is missing.
    pub products: Vec<Uuid>,
    /// Agents with a trigger that is missing, or uninstalled ones with one that is left.
    pub agents: Vec<Uuid>,
    /// Users with sessions from before their password was changed, and deleted ones of whom something
    /// is left.
    pub users: Vec<Uuid>,
    /// Deleted products of which something is left.
    pub deleted_products: Vec<Uuid>,
    /// Deleted knowledge bases with files that are left.
    pub deleted_knowledge_bases: Vec<Uuid>,
    /// Deleted files whose bytes are to be removed.
    pub erasing_files: Vec<Uuid>,
    /// Integrations with data keys that they have given up.
    pub integrations: Vec<Uuid>,
    /// Deliveries that were not worked on, with their products.
    pub deliveries: Vec<(Uuid, Uuid)>,
    /// Conversations in which something is left to do or to say, with their products.
    pub conversations: Vec<(Uuid, Uuid)>,
    /// Runs of the assistant that have not ended, with the sessions that hold their questions, and their
    /// products.
    pub chat_runs: Vec<(Uuid, Option<Uuid>, Uuid)>,
    /// Triggers that listen to the clock, or would if they were enabled.
    pub schedules: Vec<PendingSchedule>,
    /// Triggers that listen to events, or would if they were enabled.
    pub listeners: Vec<Uuid>,
}

/// A trigger that listens to the clock, and where it stands.
#[derive(Clone, Debug, PartialEq)]
pub struct PendingSchedule {
    /// The trigger.
    pub trigger: Uuid,
    /// Its product.
    pub product: Uuid,
    /// Which of its instants are settled, as far as its stream was read.
    pub firings: Firings,
    /// How far that was.
    pub sequence: u64,
}

/// How many executions run at once on this node: most of them wait for others, or for the disk.
#[derive(Clone, Copy, Debug)]
pub struct Workers {
    /// Of all products together.
    pub all: usize,
    /// Of one product.
    pub per_product: usize,
}

/// Why a tool could not do what a step asked.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{message}")]
pub struct ToolError {
    /// A stable name.
    pub code: String,
    /// What a person can act on.
    pub message: String,
    /// It may well work in a moment: something is being loaded, or a disk is full.
    pub is_passing: bool,
    /// How long to wait before trying again, where somebody said so.
    pub retry_after: Option<Duration>,
}

impl ToolError {
    /// Trying again will not help.
    pub fn lasting(code: impl Into<String>, message: impl Into<String>) -> ToolError {
        let (code, message) = (code.into(), message.into());
        ToolError { code, message, is_passing: false, retry_after: None }
    }

    /// Trying again in a moment may help.
    pub fn passing(code: impl Into<String>, message: impl Into<String>) -> ToolError {
        ToolError { is_passing: true, ..ToolError::lasting(code, message) }
    }

    /// The same, not to be tried again before this time is over.
    pub fn after(self, retry_after: Option<Duration>) -> ToolError {
        ToolError { retry_after, ..self }
    }
}

/// What a step asks of the knowledge base.
#[derive(Clone, Debug)]
pub struct KnowledgeQuery {
    /// The product that the agent is installed in.
    pub product: Uuid,
    /// The knowledge base that stands in the agent's slot.
    pub knowledge_base: Uuid,
    /// What is looked for.
    pub query: String,
    /// How many passages are wanted.
    pub limit: usize,
    /// The least score of a passage.
    pub min_score: Option<f32>,
    /// `vector`, `full_text` or `hybrid`.
    pub mode: String,
    /// In which files, as the search of the API takes them.
    pub filters: Map<String, Value>,
}

/// What the agents' run time asks of the read side.
#[async_trait]
pub trait Knowledge: Send + Sync + 'static {
    /// The best passages, best first, as the search of the API answers them.
    async fn search(&self, query: KnowledgeQuery) -> Result<Vec<Value>, ToolError>;

    /// The passages of all knowledge bases of a product that are near to a question, best first, as the
    /// search of the API answers them; their scores are cosines. A side that has no measure of nearness looks
    /// into the default knowledge base.
    async fn near(
        &self,
        product: Uuid,
        query: String,
        limit: usize,
    ) -> Result<Vec<Value>, ToolError> {
        let knowledge_base = self.default_base(product).await?;
        let (min_score, mode) = (None, "vector".to_owned());
        let filters = Map::new();
        self.search(KnowledgeQuery {
            product,
            knowledge_base,
            query,
            limit,
            min_score,
            mode,
            filters,
        })
        .await
    }

    /// The default knowledge base of a product.
    async fn default_base(&self, product: Uuid) -> Result<Uuid, ToolError>;

    /// Whether a knowledge base is one of a product's.
    async fn has_base(&self, product: Uuid, knowledge_base: Uuid) -> Result<bool, ToolError>;

    /// The newest file of this name in a knowledge base, as of a position of the log. A side that knows of none
    /// has none.
    async fn newest_named(
        &self,
        _knowledge_base: Uuid,
        _name: &FileName,
        _at: Position,
    ) -> Result<Option<Uuid>, ToolError> {
        Ok(None)
    }

    /// The integrations of one kind that a product's agents can use: its own, or else the global ones. A
    /// side that knows of none has none.
    async fn integrations(
        &self,
        _organization: Uuid,
        _product: Uuid,
        _kind: IntegrationKind,
    ) -> Result<Vec<Uuid>, ToolError> {
        Ok(Vec::new())
    }

    /// The triggers of a product that listen to messages, or would if they were enabled, as of a position of
    /// the log. A side that knows of none has none.
    async fn message_triggers(
        &self,
        _product: Uuid,
        _at: Position,
    ) -> Result<Vec<Uuid>, ToolError> {
        Ok(Vec::new())
    }
}

/// What files are read with.
pub struct Reading {
    /// The model that new files are embedded by, as soon as there is one.
    pub embedder: watch::Receiver<Option<Embedder>>,
    /// Every model that is loaded.
    pub models: watch::Receiver<Vec<Embedder>>,
    /// What takes the text out of a file.
    pub extractor: Extractor,
}

/// The process managers of this node.
pub struct Policies {
    stop: watch::Sender<bool>,
    follower: tokio::task::JoinHandle<()>,
    chats: Arc<Chats>,
    completion: Arc<Completion>,
    conversations: Arc<Conversations>,
    deliveries: Arc<Deliveries>,
    erasure: Arc<Erasure>,
    generations: Arc<Generations>,
    heartbeat: Heartbeat,
    ingestion: Arc<Ingestion>,
    outbox: Arc<Outbox>,
    runner: Arc<Runner>,
    schedules: Arc<Schedules>,
    reactions: Arc<Reactions>,
    retention: Arc<Retention>,
}

impl Policies {
    /// Starts following the log.
    pub fn start(
        commands: Commands,
        reading: Reading,
        knowledge: Arc<dyn Knowledge>,
        tools: Arc<Tools>,
        contents: Arc<dyn Contents>,
        pending: Pending,
        workers: Workers,
    ) -> Policies {
        let worker = Uuid::now_v7();
        let completion = Completion::start(commands.clone(), contents.clone());
        let deliveries = Deliveries::start(commands.clone());
        let erasure = Erasure::start(commands.clone(), contents.clone());
        let Reading { embedder, models, extractor } = reading;
        let ingestion = Ingestion::start(commands.clone(), embedder, extractor, worker);
        let generations =
            Generations::start(commands.clone(), contents.clone(), ingestion.clone(), models);
        let assistant = Arc::new(Assistant::new(knowledge.clone(), tools.clone()));
        let chats = Chats::start(commands.clone(), assistant.clone(), worker);
        let (known, others) = (knowledge.clone(), tools.clone());
        let conversations = Conversations::start(commands.clone(), known, assistant, others);
        let outbox = Outbox::start(commands.clone(), tools.clone(), worker);
        let runner =
            Runner::start(commands.clone(), knowledge, tools, outbox.clone(), worker, workers);
        let clock = schedule::system_clock();
        let retention = Retention::start(commands.clone(), contents.clone(), clock.clone());
        let schedules = Schedules::start(commands.clone(), contents, clock);
        let reactions = Reactions::start(commands.clone(), pending.listeners.clone());
        let (stop, stopped) = watch::channel(false);
        let (hurried, beats) =
            ((chats.clone(), ingestion.clone(), outbox.clone(), runner.clone()), commands.clone());
        let heartbeat = Heartbeat::start(
            beats,
            worker,
            move || {
                let (chats, ingestion, outbox, runner) = &hurried;
                chats.hurry();
                ingestion.hurry();
                outbox.hurry();
                runner.hurry();
            },
            stopped.clone(),
        );
        let follower = Follower {
            commands,
            chats: chats.clone(),
            completion: completion.clone(),
            conversations: conversations.clone(),
            deliveries: deliveries.clone(),
            erasure: erasure.clone(),
            generations: generations.clone(),
            ingestion: ingestion.clone(),
            outbox: outbox.clone(),
            runner: runner.clone(),
            schedules: schedules.clone(),
            reactions: reactions.clone(),
            retention: retention.clone(),
            position: pending.position,
        };
        let follower = tokio::spawn(follower.run(pending, stopped));
        Policies {
            stop,
            follower,
            chats,
            completion,
            conversations,
            deliveries,
            erasure,
            generations,
            heartbeat,
            ingestion,
            outbox,
            runner,
            schedules,
            reactions,
            retention,
        }
    }

    /// What carries out at once what can be.
    pub fn executor(&self) -> Executor {
        Executor(self.runner.clone())
    }

    /// Takes nothing new on and lets running steps finish, each for a bounded time. What was not
    /// finished is taken up at the next start.
    pub async fn stop(self) {
        let _ = self.stop.send(true);
        let _ = self.follower.await;
        tokio::join!(
            self.schedules.stop(),
            self.reactions.stop(),
            self.retention.stop(),
            self.chats.stop(),
            self.completion.stop(),
            self.conversations.stop(),
            self.outbox.stop(),
            self.deliveries.stop(),
            self.erasure.stop(),
            self.generations.stop(),
            self.ingestion.stop(),
            self.runner.stop()
        );
        self.heartbeat.stop().await;
    }
}

impl Commands {
    /// What a worker claims for so long from now.
    fn lease(&self, worker: Uuid, length: TimeDelta) -> LeaseClaim {
        let now = Utc::now();
        LeaseClaim {
            worker,
            now: Timestamp::from(now),
            lease_until: Timestamp::from(now + length),
            exclusive: self.log().capabilities().exclusive,
            gone: self.gone(),
            outlasted: self.outlasted(),
        }
    }
}

/// Asks for executions whose end somebody waits for. Cheap to clone.
#[derive(Clone)]
pub struct Executor(Arc<Runner>);

impl Executor {
    /// As [`Commands::request_execution_of`]. One that only computes may be carried out with that: it is
    /// stored with its end.
    ///
    /// # Errors
    /// As there.
    pub async fn request_execution_of(
        &self,
        new: NewExecution,
        version: Option<Uuid>,
        ask: &Ask,
    ) -> Result<Done, Error> {
        self.0.request_at_once(new, version, ask).await
    }
}

/// Whether an execution is over with an event.
fn is_end(event_type: &str) -> bool {
    matches!(
        event_type,
        "execution.succeeded.v1"
            | "execution.failed.v1"
            | "execution.cancelled.v1"
            | "execution.timed_out.v1"
    )
}

/// Reads the log and hands out work.
struct Follower {
    commands: Commands,
    chats: Arc<Chats>,
    completion: Arc<Completion>,
    conversations: Arc<Conversations>,
    deliveries: Arc<Deliveries>,
    erasure: Arc<Erasure>,
    generations: Arc<Generations>,
    ingestion: Arc<Ingestion>,
    outbox: Arc<Outbox>,
    runner: Arc<Runner>,
    schedules: Arc<Schedules>,
    reactions: Arc<Reactions>,
    retention: Arc<Retention>,
    position: Position,
}

impl Follower {
    async fn run(mut self, pending: Pending, mut stopped: watch::Receiver<bool>) {
        for (file, product) in pending.files {
            self.ingestion.add(Some(product), file);
        }
        pending.executions.into_iter().for_each(|execution| self.runner.add(None, execution));
        pending.bulk_stops.into_iter().for_each(|stop| self.completion.add_bulk_stop(stop));
        pending.products.into_iter().for_each(|product| self.completion.add_product(product));
        pending.agents.into_iter().for_each(|agent| self.completion.add_agent(agent));
        for (delivery, product) in pending.deliveries {
            self.deliveries.add(Some(product), delivery);
        }
        for (conversation, product) in pending.conversations {
            self.conversations.add(Some(product), conversation);
            self.outbox.add(Some(product), conversation);
        }
        for (run, session, product) in pending.chat_runs {
            self.chats.add(product, run, session);
        }
        pending.users.into_iter().for_each(|user| self.erasure.add_user(user));
        for product in pending.deleted_products {
            self.erasure.add_product(product);
        }
        for base in pending.deleted_knowledge_bases {
            self.erasure.add_knowledge_base(base);
        }
        for file in pending.erasing_files {
            self.erasure.add_file(file);
        }
        for integration in pending.integrations {
            self.erasure.add_integration(integration);
        }
        pending.schedules.into_iter().for_each(|schedule| self.schedules.watch(schedule));
        let mut head = self.commands.log().watch();
        loop {
            // Before the read: a commit that comes in between is then seen as a change.
            head.mark_unchanged();
            let caught_up = self.catch_up(&stopped).await;
            let pause = async {
                match caught_up {
                    Ok(()) => head.changed().await.is_ok(),
                    Err(error) => {
                        tracing::error!(%error, "process managers cannot read the log; trying again");
                        tokio::time::sleep(PAUSE).await;
                        true
                    }
                }
            };
            tokio::select! {
                biased;
                _ = stopped.wait_for(|stopped| *stopped) => return,
                goes_on = pause => if !goes_on { return },
            }
        }
    }

    async fn catch_up(&mut self, stopped: &watch::Receiver<bool>) -> Result<(), Error> {
        while !*stopped.borrow() {
            let events = self.commands.log().read_after(self.position, BATCH).await?;
            for (index, event) in events.iter().enumerate() {
                self.hand_out(event, &events[index + 1..]);
                self.position = event.position;
            }
            if events.len() < BATCH {
                break;
            }
        }
        Ok(())
    }

    /// Tells whom an event concerns. What is stored with it, at the beginning of the rest, may settle it already.
    fn hand_out(&self, event: &RecordedEvent, rest: &[Arc<RecordedEvent>]) {
        let Some(id) = event.stream.uuid() else { return };
        let last_with = || {
            let with = rest.iter().take_while(|next| next.command_id == event.command_id);
            with.last().map(|last| last.event_type.as_str())
        };
        self.reactions.tell(event);
        match event.event_type.as_str() {
            "file.uploaded.v1" => self.ingestion.add(event.product, id),
            "file.indexed.v1" => self.generations.indexed(event),
            "generation.begun.v1" | "generation.activated.v1" | "generation.removed.v1" => {
                self.generations.look(event.position);
            }
            "execution.requested.v1" if last_with().is_some_and(is_end) => {}
            "delivery.received.v1" if last_with().is_some() => {}
            "execution.requested.v1" => self.runner.add(event.product, id),
            "delivery.received.v1" => self.deliveries.add(event.product, id),
            "execution.continued.v1" | "execution.waiting.v1" => self.runner.add(event.product, id),
            "chat_session.message_asked.v1" => self.chats.asked(event),
            "chat_session.deleted.v1" => self.chats.session_deleted(event),
            "chat_run.requested.v1" => self.chats.requested(event),
            "chat_run.cancelled.v1" => self.chats.interrupt(id),
            "conversation.message_received.v1" | "conversation.message_handled.v1" => {
                self.conversations.add(event.product, id);
            }
            "conversation.reply_queued.v1" | "conversation.reply_failed.v1" => {
                self.outbox.add(event.product, id);
            }
            "conversation.reply_delivered.v1" | "conversation.reply_given_up.v1" => {
                self.outbox.settled(event.product, id);
                self.runner.answered(id);
            }
            "product.created.v1" => self.completion.add_product(id),
            "bulk_stop.requested.v1" if last_with().is_some() => {}
            "bulk_stop.requested.v1" => self.completion.add_bulk_stop_later(id),
            "agent.installed.v1" | "agent.version_published.v1" => {
                self.completion.add_agent(id);
                self.schedules.add_agent(id);
            }
            "agent.uninstalled.v1" => {
                self.completion.add_agent(id);
                self.schedules.add_agent(id);
                self.runner.agent_gone(event.product, id);
            }
            "lane.entered.v1" | "lane.left.v1" => self.runner.lane_moved(id, event),
            "agent.enabled.v1" | "agent.disabled.v1" | "agent.version_activated.v1" => {
                self.schedules.add_agent(id);
            }
            "trigger.created.v1" => {
                self.completion.add_trigger(id);
                self.schedules.add(event.product, id);
            }
            "trigger.changed.v1"
            | "trigger.enabled.v1"
            | "trigger.disabled.v1"
            | "trigger.deleted.v1" => self.schedules.add(event.product, id),
            "execution.paused.v1" => self.runner.paused(event.product, id),
            "execution.succeeded.v1" | "execution.failed.v1" => {
                self.runner.execution_ended(id);
                self.schedules.execution_ended(id);
                self.conversations.execution_ended(id);
            }
            "execution.cancelled.v1" | "execution.timed_out.v1" => {
                self.runner.interrupt(id);
                self.runner.execution_ended(id);
                self.schedules.execution_ended(id);
                self.conversations.execution_ended(id);
            }
            "user.password_changed.v1" | "user.identity_unlinked.v1" | "user.deleted.v1" => {
                self.erasure.add_user(id);
            }
            "product.deleted.v1" => self.erasure.add_product(id),
            "file.erasure_requested.v1" => self.erasure.add_file(id),
            "file.deleted.v1" | "file.erased.v1" | "product.retention_set.v1" => {
                self.retention.look_after(event.position);
            }
            "integration.deleted.v1" | "integration.key_rotated.v1" => {
                self.erasure.add_integration(id);
            }
            // Whoever deletes one with its product goes on to the files.
            "knowledge_base.deleted.v1"
                if event.actor != Actor::System(erasure::NAME).to_string() =>
            {
                self.erasure.add_knowledge_base(id);
            }
            _ => {}
        }
    }
}
