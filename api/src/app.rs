//! The application: what every handler can reach, and how a write is answered.
//!
//! The rule of this file: the answer to a write is sent only after this node's read models have taken
//! the write in.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use chrono::TimeDelta;
use commands::policies::Executor;
use commands::tools::Tools;
use commands::{Commands, Done, PendingRejections, PendingUses, SessionKeys};
use embeddings::Embedder;
use eventlog::{EventStore, Position, RecordedEvent, StreamId};
use projections::execution::SealedPayload;
use projections::search::Search;
use projections::{Halt, Views};
use rusqlite::Connection;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::answers::FirstAnswers;
use crate::execution::ends::Ends;
use crate::http::Problem;
use crate::known_tokens::KnownTokens;
use crate::model::Trouble;
use crate::oidc::Oidc;
use crate::webhook::Doors;

/// How long the answer to a write, or a read with `X-Min-Position`, waits for the read models.
pub const PATIENCE: Duration = Duration::from_secs(5);

/// When a request that needs a read model which has stopped is worth another try.
const STOPPED: Duration = Duration::from_secs(30);

/// What every handler can reach. Cheap to clone.
#[derive(Clone)]
pub struct App(Arc<Parts>);

/// The parts of the application.
pub struct Parts {
    /// The command side.
    pub commands: Commands,
    /// The log.
    pub log: Arc<dyn EventStore>,
    /// The read models.
    pub views: Views,
    /// What they must have taken in before anybody is let in by them.
    pub start: Start,
    /// The search index.
    pub search: Search,
    /// The keys that sign sessions.
    pub session_keys: SessionKeys,
    /// The outside issuer whose tokens are sessions too.
    pub oidc: Option<Oidc>,
    /// The organization that the first start made.
    pub organization: Uuid,
    /// The embedding model that is in use, as soon as there is one.
    pub embedder: watch::Receiver<Option<Embedder>>,
    /// Every embedding model that is loaded.
    pub models: watch::Receiver<Vec<Embedder>>,
    /// What stands in its way.
    pub model_trouble: watch::Receiver<Option<Trouble>>,
    /// What steps do outside of this server.
    pub tools: Arc<Tools>,
    /// Uses of tokens that were not written yet.
    pub uses: PendingUses,
    /// Tokens that were looked up lately.
    pub known_tokens: KnownTokens,
    /// Refused attempts that were not written yet.
    pub rejections: PendingRejections,
    /// Rebuilds of read models that were asked for, and the positions that were answered.
    pub rebuilds: FirstAnswers<u64>,
    /// Executions whose end somebody waits for.
    pub ends: Ends,
    /// Where deliveries come in.
    pub doors: Doors,
    /// Carries out what somebody waits for, as soon as there are process managers.
    pub executor: OnceLock<Executor>,
    /// Cancelled when the server stops.
    pub shutdown: CancellationToken,
    /// How long an access token is good.
    pub access_ttl: TimeDelta,
    /// How long a refresh token is good.
    pub refresh_ttl: TimeDelta,
    /// The largest upload, in bytes.
    pub upload_limit: u64,
    /// Where bytes wait until it is known that they are wanted.
    pub spool: PathBuf,
}

/// Where the log ended when this node began, and whether its read models got there.
#[derive(Debug)]
pub struct Start {
    head: Position,
    is_reached: AtomicBool,
}

impl Start {
    /// A start on a log that ends there.
    pub fn at(head: Position) -> Start {
        Start { head, is_reached: AtomicBool::new(false) }
    }

    /// Whether read models at `position` have what was in the log at the start. Once is for good.
    fn is_reached_by(&self, position: impl FnOnce() -> Position) -> bool {
        if self.is_reached.load(Ordering::Relaxed) {
            return true;
        }
        let is_reached = position() >= self.head;
        self.is_reached.fetch_or(is_reached, Ordering::Relaxed);
        is_reached
    }
}

impl std::ops::Deref for App {
    type Target = Parts;

    fn deref(&self) -> &Parts {
        &self.0
    }
}

impl App {
    /// Puts the parts together.
    pub fn new(parts: Parts) -> App {
        App(Arc::new(parts))
    }

    /// Runs a query on the read models.
    ///
    /// # Errors
    /// A problem that says what failed.
    pub fn read<T>(
        &self,
        query: impl FnOnce(&Connection) -> Result<T, projections::Error>,
    ) -> Result<T, Problem> {
        self.views.read(query).map_err(Problem::from)
    }

    /// Lets go on what stands on these read models: none of them has stopped.
    ///
    /// # Errors
    /// 503 otherwise: what has happened since would be missing.
    pub fn stands_on(&self, models: &[&str]) -> Result<(), Problem> {
        match self.views.halt(|halt| models.contains(&halt.model)) {
            None => Ok(()),
            Some(halt) => Err(stopped(halt, "this cannot be answered safely")),
        }
    }

    /// Whether the read models have taken in what was in the log at the start: before, they may show what
    /// was changed long ago.
    pub fn has_started(&self) -> bool {
        self.start.is_reached_by(|| self.views.position())
    }

    /// Lets go on what needs to know who may do what.
    ///
    /// # Errors
    /// 503 while the read models are not where the log was at the start.
    pub fn must_have_started(&self) -> Result<(), Problem> {
        if self.has_started() {
            return Ok(());
        }
        let (position, head) = (self.views.position(), self.start.head);
        Err(behind(format!(
            "this server has just started, and its read models are at position {position} of {head}: try again \
             in a moment"
        )))
    }

    /// As [`App::read`], where the audit log is looked at: it shows whatever others may have seen.
    ///
    /// # Errors
    /// A problem that says what failed; 503 when it is behind for longer than [`PATIENCE`], or has
    /// stopped.
    pub async fn read_audit<T>(
        &self,
        query: impl FnOnce(&Connection) -> Result<T, projections::Error>,
    ) -> Result<T, Problem> {
        let position = self.views.position();
        if !self.views.all_reached(position, PATIENCE).await {
            return Err(behind(format!(
                "the audit log has not reached position {position} yet: try again in a moment"
            )));
        }
        self.stands_on(&["audit_log"])?;
        self.read(query)
    }

    /// Opens a text that a read model keeps sealed, of a product's stream; `None` when its key was
    /// shredded.
    ///
    /// # Errors
    /// The vault fails.
    pub async fn open(
        &self,
        (organization, product): (Uuid, Uuid),
        stream: &StreamId,
        field: &str,
        sealed: &SealedPayload,
    ) -> Result<Option<String>, Problem> {
        let SealedPayload { event_type, payload } = sealed;
        let opened = self
            .commands
            .open_payload(organization, product, stream, event_type, field, payload)
            .await?;
        Ok(opened.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()))
    }

    /// Waits until the read models have taken a position in.
    ///
    /// # Errors
    /// 503 when that takes longer than [`PATIENCE`], or one of them stopped before.
    pub async fn caught_up(&self, position: Position) -> Result<(), Problem> {
        self.reached(position).await?;
        match self.views.halt(|halt| halt.is_in_main && halt.is_before(position)) {
            None => Ok(()),
            Some(halt) => Err(stopped(halt, &format!("position {position} is not shown"))),
        }
    }

    /// As [`App::caught_up`], whatever has stopped.
    async fn reached(&self, position: Position) -> Result<(), Problem> {
        if self.views.reached(position, PATIENCE).await {
            return Ok(());
        }
        Err(behind(format!(
            "the read models have not reached position {position} yet: try again in a moment"
        )))
    }

    /// Waits until the read models show what a command did. Answers the position for
    /// `X-Event-Position`.
    ///
    /// # Errors
    /// 503 when that takes longer than [`PATIENCE`], or a read model that must show it has stopped; the
    /// change is stored all the same.
    pub async fn applied(&self, done: &Done) -> Result<u64, Problem> {
        let position = done.position();
        if !self.views.reached(position, PATIENCE).await {
            return Err(behind(format!(
                "your change is stored, at position {position}, but the read models do not show it yet: look \
                 again in a moment; do not send it again, unless with the same Idempotency-Key"
            )));
        }
        let is_hidden = |halt: &Halt| halt.is_in_main && halt.hides(&done.stream, position);
        if let Some(halt) = self.views.halt(is_hidden) {
            let what = format!(
                "your change is stored, at position {position}, but not shown: do not send it again"
            );
            return Err(stopped(halt, &what));
        }
        Ok(position.max(self.views.position()).0)
    }

    /// As [`App::applied`], for a command that made other streams before it was done, whoever
    /// appended them first: a product's knowledge base, an agent's triggers.
    ///
    /// # Errors
    /// 503 when that takes longer than [`PATIENCE`]; the change is stored all the same.
    pub async fn applied_with_the_rest(&self, done: &Done) -> Result<u64, Problem> {
        let head = self.log.head().await.map_err(commands::Error::from)?;
        self.caught_up(head).await?;
        self.applied(done).await
    }

    /// Reads what a command made: from the read models, or, where the command had been carried out
    /// before, as it was right after it.
    ///
    /// # Errors
    /// A problem that says what failed.
    pub async fn read_after<T>(
        &self,
        done: &Done,
        query: impl FnOnce(&Connection) -> Result<T, projections::Error>,
    ) -> Result<T, Problem> {
        if !done.replayed {
            return self.read(query);
        }
        let limit = usize::try_from(done.sequence).unwrap_or(usize::MAX);
        let events: Vec<Arc<RecordedEvent>> =
            self.log.read_stream(&done.stream, 0, limit).await.map_err(commands::Error::from)?;
        self.views.scratch(&events, query).map_err(Problem::from)
    }

    /// Writes what is pending of a token, or of all, and waits until it can be read. Where the log
    /// takes nothing now, it stays pending, and what was written before can be read.
    ///
    /// # Errors
    /// The log fails, or the read models are behind.
    pub async fn write_uses(&self, of: Option<Uuid>) -> Result<(), Problem> {
        self.written(self.commands.record_uses(&self.uses, of).await).await
    }

    /// Writes what refused attempts are pending, and waits until they can be read; as
    /// [`App::write_uses`].
    ///
    /// # Errors
    /// The log fails, or the read models are behind.
    pub async fn write_rejections(&self) -> Result<(), Problem> {
        self.written(self.commands.record_rejections(&self.rejections).await).await
    }

    async fn written(&self, outcome: Result<Position, commands::Error>) -> Result<(), Problem> {
        use commands::Error;
        let error = match outcome {
            // Counts and records hang on it, no decision: they are shown as far as they are.
            Ok(position) => return self.reached(position).await,
            Err(error) => error,
        };
        let is_temporary = match &error {
            Error::Log(error) => error.is_temporary(),
            Error::Vault(vault::Error::DiskFull) => true,
            _ => false,
        };
        if !is_temporary {
            return Err(error.into());
        }
        tracing::warn!(%error, "what is pending could not be written; it is read without it");
        Ok(())
    }
}

/// What a request is told that needs a read model which has stopped.
fn stopped(halt: Halt, what: &str) -> Problem {
    let Halt { model, position, .. } = halt;
    let detail = format!(
        "{what}: the read model {model} met an event at position {position} that it cannot take in. Ask an \
         operator to look at /readyz or /api/projections, and to upgrade prodgy or rebuild that read model"
    );
    Problem::unavailable("read_model_stopped", detail, STOPPED)
}

fn behind(what: String) -> Problem {
    Problem::unavailable("read_models_behind", what, Duration::from_secs(1))
}

#[cfg(test)]
mod tests;
