//! Process managers: what follows from an event. They own every side effect, and report by
//! commands.
//!
//! The rule of this file: whatever follows is asked for at least once and carried out once, since
//! its command id is made from the event. Where a manager stood is not kept: what was left undone
//! is read off the read models at the start, and the log is followed from there.

mod completion;
mod ingestion;
mod queue;
mod runner;

use std::sync::Arc;

use async_trait::async_trait;
use embeddings::Embedder;
use eventlog::{Position, RecordedEvent};
use serde_json::Value;
use tokio::sync::watch;
use uuid::Uuid;

use crate::{Commands, Error};
use ingestion::Ingestion;
use runner::Runner;

/// How many events one read of the log brings.
const BATCH: usize = 1_000;

/// What the read models say is left to do, and up to where they have read.
#[derive(Clone, Debug, Default)]
pub struct Pending {
    /// Up to where the read models have taken the log in.
    pub position: Position,
    /// Files that wait to be read.
    pub files: Vec<Uuid>,
    /// Executions that have not ended.
    pub executions: Vec<Uuid>,
    /// Products whose default knowledge base is missing.
    pub products: Vec<Uuid>,
    /// Agents with a trigger that is missing, or uninstalled ones with one that is left.
    pub agents: Vec<Uuid>,
}

/// Why a tool could not do what a step asked.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{message}")]
pub struct ToolError {
    /// A stable name.
    pub code: String,
    /// What a person can act on.
    pub message: String,
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
}

/// What the agents' run time asks of the read side.
#[async_trait]
pub trait Knowledge: Send + Sync + 'static {
    /// The best passages, best first, as the search of the API answers them.
    async fn search(&self, query: KnowledgeQuery) -> Result<Vec<Value>, ToolError>;

    /// The default knowledge base of a product.
    async fn default_base(&self, product: Uuid) -> Result<Uuid, ToolError>;

    /// Whether a knowledge base is one of a product's.
    async fn has_base(&self, product: Uuid, knowledge_base: Uuid) -> Result<bool, ToolError>;
}

/// The process managers of this node.
pub struct Policies {
    stop: watch::Sender<bool>,
    follower: tokio::task::JoinHandle<()>,
    ingestion: Arc<Ingestion>,
    runner: Arc<Runner>,
}

impl Policies {
    /// Starts following the log.
    pub fn start(
        commands: Commands,
        embedder: watch::Receiver<Option<Embedder>>,
        knowledge: Arc<dyn Knowledge>,
        pending: Pending,
    ) -> Policies {
        let worker = Uuid::now_v7();
        let ingestion = Ingestion::start(commands.clone(), embedder, worker);
        let runner = Runner::start(commands.clone(), knowledge, worker);
        let (stop, stopped) = watch::channel(false);
        let follower = Follower {
            commands,
            ingestion: ingestion.clone(),
            runner: runner.clone(),
            position: pending.position,
        };
        let follower = tokio::spawn(follower.run(pending, stopped));
        Policies { stop, follower, ingestion, runner }
    }

    /// Takes nothing new on and lets running steps finish, each for a bounded time. What was not
    /// finished is taken up at the next start.
    pub async fn stop(self) {
        let _ = self.stop.send(true);
        let _ = self.follower.await;
        tokio::join!(self.ingestion.stop(), self.runner.stop());
    }
}

/// Reads the log and hands out work.
struct Follower {
    commands: Commands,
    ingestion: Arc<Ingestion>,
    runner: Arc<Runner>,
    position: Position,
}

impl Follower {
    async fn run(mut self, pending: Pending, mut stopped: watch::Receiver<bool>) {
        pending.files.into_iter().for_each(|file| self.ingestion.add(file));
        pending.executions.into_iter().for_each(|execution| self.runner.add(execution));
        for product in pending.products {
            completion::product(&self.commands, product).await;
        }
        for agent in pending.agents {
            completion::agent(&self.commands, agent).await;
        }
        let mut head = self.commands.log().watch();
        loop {
            if let Err(error) = self.catch_up().await {
                tracing::error!(%error, "process managers cannot read the log; trying again");
                tokio::time::sleep(std::time::Duration::from_secs(1)).await;
            }
            let behind = *head.borrow_and_update() > self.position;
            if *stopped.borrow() {
                return;
            }
            if !behind {
                tokio::select! {
                    changed = head.changed() => if changed.is_err() { return },
                    _ = stopped.changed() => {}
                }
            }
        }
    }

    async fn catch_up(&mut self) -> Result<(), Error> {
        loop {
            let events = self.commands.log().read_after(self.position, BATCH).await?;
            for event in &events {
                self.hand_out(event).await;
                self.position = event.position;
            }
            if events.len() < BATCH {
                return Ok(());
            }
        }
    }

    async fn hand_out(&self, event: &RecordedEvent) {
        let Some(id) = event.stream.uuid() else { return };
        match event.event_type.as_str() {
            "file.uploaded.v1" => self.ingestion.add(id),
            "execution.requested.v1" => self.runner.add(id),
            "product.created.v1" => completion::product(&self.commands, id).await,
            "agent.installed.v1" | "agent.uninstalled.v1" => {
                completion::agent(&self.commands, id).await
            }
            _ => {}
        }
    }
}
