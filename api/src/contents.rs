//! What is inside something that is deleted, for the process manager that ends it, and which executions
//! run, for the one of schedules; and waiting until what was deleted has ended.

use std::time::Duration;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use commands::policies::{Contents, Due, GenerationState, Inside, NotNow};
use eventlog::Position;
use projections::{execution, file, generation, product, retention, session, trigger};
use rusqlite::Connection;
use tokio::time::Instant;
use uuid::Uuid;

use crate::app::{App, PATIENCE};
use crate::http::Problem;

/// How long the answer to a deletion waits for what follows from it.
const ERASURE: Duration = Duration::from_secs(5);

/// How many files that a model has made nothing of are told at once.
const UNEMBEDDED: usize = 100;

fn not_now(problem: Problem) -> NotNow {
    NotNow(problem.to_string())
}

#[async_trait]
impl Contents for App {
    async fn know(&self, position: Position) -> Result<(), NotNow> {
        self.caught_up(position).await.map_err(not_now)
    }

    async fn forget(&self, position: Position) -> Result<(), NotNow> {
        if let Some(trouble) = self.search.trouble() {
            return Err(NotNow(trouble));
        }
        match self.search.all_caught_up(position, PATIENCE).await {
            true => Ok(()),
            false => Err(NotNow(format!("the search index has not reached position {position}"))),
        }
    }

    async fn sessions_of(&self, user: Uuid) -> Result<Vec<Uuid>, NotNow> {
        self.read(|db| session::of_user(db, user)).map_err(not_now)
    }

    async fn outdated_sessions_of(&self, user: Uuid) -> Result<Vec<Uuid>, NotNow> {
        self.read(|db| session::outdated_of(db, user)).map_err(not_now)
    }

    async fn files_of(&self, knowledge_base: Uuid) -> Result<Vec<Uuid>, NotNow> {
        self.read(|db| file::ids(db, knowledge_base)).map_err(not_now)
    }

    async fn inside(&self, product: Uuid) -> Result<Inside, NotNow> {
        let product::Inside { tokens, agents, executions, knowledge_bases, files, integrations } =
            self.read(|db| product::inside(db, product)).map_err(not_now)?;
        Ok(Inside { tokens, agents, executions, knowledge_bases, files, integrations })
    }

    async fn has_file_with(&self, product: Uuid, blob: &str) -> Result<bool, NotNow> {
        self.read(|db| file::is_any_with(db, product, blob)).map_err(not_now)
    }

    async fn artifacts_of(&self, product: Uuid) -> Result<Vec<String>, NotNow> {
        self.read(|db| file::artifacts(db, product)).map_err(not_now)
    }

    async fn due_files(&self, now: DateTime<Utc>, most: usize) -> Result<Due, NotNow> {
        let retention::Due { files, next } =
            self.read(|db| retention::due(db, now, most)).map_err(not_now)?;
        Ok(Due { files, next })
    }

    async fn generations(&self, at: Position) -> Result<Vec<GenerationState>, NotNow> {
        self.know(at).await?;
        let known = self.read(generation::all).map_err(not_now)?.into_iter();
        Ok(known
            .map(|known| GenerationState {
                model_revision: known.model_revision,
                is_complete: known.is_complete,
            })
            .collect())
    }

    async fn removed_generations(&self, at: Position) -> Result<Vec<String>, NotNow> {
        self.know(at).await?;
        self.read(generation::removed).map_err(not_now)
    }

    async fn artifacts_by(&self, model_revision: &str) -> Result<Vec<String>, NotNow> {
        self.read(|db| file::artifacts_by(db, model_revision)).map_err(not_now)
    }

    async fn embedded(&self, model_revision: &str) -> Result<(u64, u64), NotNow> {
        let extent = self.read(|db| generation::extent(db, model_revision)).map_err(not_now)?;
        Ok((extent.files, extent.chunks))
    }

    async fn unembedded(
        &self,
        model_revision: &str,
        after: Uuid,
    ) -> Result<Vec<(Uuid, Uuid)>, NotNow> {
        self.read(|db| generation::missing(db, model_revision, after, UNEMBEDDED)).map_err(not_now)
    }

    async fn triggers_of(&self, agent: Uuid, at: Position) -> Result<Vec<Uuid>, NotNow> {
        self.know(at).await?;
        let triggers = self.read(|db| trigger::of_agent(db, agent)).map_err(not_now)?;
        Ok(triggers.into_iter().map(|trigger| trigger.id).collect())
    }

    async fn executions_of(&self, trigger: Uuid, at: Position) -> Result<Vec<Uuid>, NotNow> {
        self.know(at).await?;
        let unended = |db: &Connection| match trigger::get(db, trigger)? {
            Some(known) => execution::unended_of_trigger(db, known.agent, trigger),
            None => Ok(Vec::new()),
        };
        self.read(unended).map_err(not_now)
    }
}

impl App {
    /// Waits until nothing is left of what was deleted, for a moment. Answers whether that came to be,
    /// and the position that shows it.
    ///
    /// # Errors
    /// The read models cannot be read.
    pub async fn erased(
        &self,
        is_left: impl Fn(&Connection) -> Result<bool, projections::Error>,
    ) -> Result<(bool, u64), Problem> {
        let deadline = Instant::now() + ERASURE;
        let mut applied = self.views.watch();
        loop {
            // Before the read: what is applied in between is then seen as a change.
            let position = applied.borrow_and_update().0;
            if !self.read(&is_left)? {
                return Ok((true, position));
            }
            tokio::select! {
                changed = applied.changed() => if changed.is_err() { return Ok((false, position)) },
                () = tokio::time::sleep_until(deadline) => return Ok((false, position)),
            }
        }
    }
}
