//! Searching knowledge bases: vectors and full text over the chunks of every file that is ready.
//!
//! The rule of this file: the index loads artifacts and never embeds; it takes events in only after
//! the SQL read models have, so that `ready` and "the very next search finds it" are one thing.

mod follow;
mod full_text;
mod fuse;
mod generations;
mod index;
mod language;
mod passage;
mod query;
mod statistics;
mod texts;

pub use generations::{Active, Answering, Search};
pub use passage::{FileChunk, Highlight, Metadata, Passage, Place, Section};
pub use query::{AnyFile, AnyOf, Filters, Include, MAX_NEIGHBOURS, Mode, Query};

use std::path::{Path, PathBuf};
use std::sync::Arc;

use embeddings::Hit;
use eventlog::{EventStore, Position};
use parking_lot::{Mutex, RwLock};
use tokio::sync::watch;
use uuid::Uuid;
use vault::Vault;

use crate::engine::{State, Status, Stopped};
use crate::{Error, Views};
use full_text::FullText;
use index::{Chunks, Question};

/// What the index is called among the read models.
const NAME: &str = "search";

/// How many passages each side of a hybrid search brings to the fusion, at least.
const FUSED: usize = 1_000;

/// The search index of one generation. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Index {
    shared: Arc<Shared>,
    task: Arc<Mutex<Option<tokio::task::JoinHandle<()>>>>,
    stop: watch::Sender<bool>,
    rebuild: watch::Sender<u64>,
}

pub(crate) struct Shared {
    folder: PathBuf,
    chunks: RwLock<Chunks>,
    full_text: FullText,
    applied: watch::Sender<Position>,
    status: Mutex<Status>,
}

impl Index {
    /// Opens the index of a model's files in `folder` and follows the log behind the SQL read models. Answers at once:
    /// see [`Index::reached`].
    ///
    /// # Errors
    /// The full-text index cannot be opened or made.
    pub(crate) fn open(
        folder: &Path,
        revision: &str,
        log: Arc<dyn EventStore>,
        vault: Vault,
        views: Views,
    ) -> Result<Index, Error> {
        let full_text = FullText::open(folder)?;
        let shared = Arc::new(Shared {
            folder: folder.to_owned(),
            chunks: RwLock::new(Chunks::new(folder)?),
            full_text,
            applied: watch::Sender::new(Position::START),
            status: Mutex::new(Status::at(NAME, index::VERSION, Position::START)),
        });
        let (stop, stopped) = watch::channel(false);
        let (rebuild, rebuilds) = watch::channel(0);
        let revision = revision.to_owned();
        let follower = follow::Follower {
            shared: shared.clone(),
            revision,
            log,
            vault,
            views,
            stopped,
            rebuilds,
        };
        let task = Arc::new(Mutex::new(Some(tokio::spawn(follower.run()))));
        Ok(Index { shared, task, stop, rebuild })
    }

    /// Finds passages, best first.
    ///
    /// # Errors
    /// The full-text index fails, or a vector is needed and missing.
    pub(crate) async fn search(&self, query: Query) -> Result<Vec<Passage>, Error> {
        let shared = self.shared.clone();
        // To wake another thread and be woken by it would take longer than such a search. (Nor does each of many threads then keep
        // memory for the next one.)
        if let Some(chunks) = shared.chunks.try_read().filter(|chunks| chunks.is_quick(&query)) {
            return shared.search(&chunks, &query);
        }
        let searched = move || shared.search(&shared.chunks.read(), &query);
        let searched = tokio::task::spawn_blocking(searched).await;
        searched.unwrap_or_else(|_| Err(Error::NotReady))
    }

    /// The position that the index has taken in.
    pub(crate) fn position(&self) -> Position {
        *self.shared.applied.borrow()
    }

    /// Waits until the index has taken `position` in, or is closed.
    pub(crate) async fn reached(&self, position: Position) {
        let _ = self.shared.applied.subscribe().wait_for(|applied| *applied >= position).await;
    }

    /// Builds the index anew beside the one that is searched, then swaps.
    pub(crate) fn rebuild(&self) {
        self.rebuild.send_modify(|count| *count += 1);
    }

    /// Some chunks of a file, from the one numbered `skip` on, and how many it has; `None` when no search finds the file.
    ///
    /// # Errors
    /// The texts cannot be read.
    pub(crate) async fn chunks(
        &self,
        file: Uuid,
        skip: usize,
        limit: usize,
    ) -> Result<Option<(Vec<FileChunk>, usize)>, Error> {
        let shared = self.shared.clone();
        let read = move || shared.chunks.read().of_file(file, skip, limit);
        tokio::task::spawn_blocking(read).await.unwrap_or(Err(Error::NotReady))
    }

    /// How long the vectors of some knowledge bases are; `None` where they have none.
    pub(crate) fn dimensions(&self, bases: &[Uuid]) -> Option<usize> {
        self.shared.chunks.read().dimensions(bases)
    }

    /// How many chunks are searched.
    pub(crate) fn len(&self) -> usize {
        self.shared.chunks.read().len()
    }

    /// Where the index stands.
    pub(crate) fn status(&self) -> Status {
        let mut status = self.shared.status.lock().clone();
        status.position = self.position().0;
        status
    }

    /// Why the index cannot serve, if it cannot.
    pub(crate) fn trouble(&self) -> Option<String> {
        let status = self.shared.status.lock();
        match (&status.state, &status.stopped) {
            (State::Stopped, Some(why)) => Some(format!(
                "the search index stopped at position {}: {}",
                why.position, why.error
            )),
            (State::CatchingUp, _) => Some("the search index is being loaded".into()),
            _ => None,
        }
    }

    /// Stops following the log.
    pub(crate) async fn close(&self) {
        self.stop.send_replace(true);
        let task = self.task.lock().take();
        if let Some(task) = task {
            let _ = task.await;
        }
    }
}

impl Shared {
    fn stop(&self, position: u64, event_type: &str, error: &Error) {
        let error = crate::error::chain(error);
        tracing::error!(position, event_type, error, "search index stopped");
        let mut status = self.status.lock();
        status.state = State::Stopped;
        status.stopped = Some(Stopped { position, event_type: event_type.to_owned(), error });
    }

    fn search(&self, chunks: &Chunks, query: &Query) -> Result<Vec<Passage>, Error> {
        let marks = query.include.highlights.unwrap_or(query.mode != Mode::Vector);
        let question = (marks || query.mode != Mode::Vector).then(|| Question {
            words: self.full_text.words(),
            stems: self
                .full_text
                .words()
                .of_question(&query.text, &chunks.languages(&query.knowledge_bases)),
        });
        let by_words = |limit| match &question {
            Some(Question { stems, .. }) => {
                self.full_text.search(&query.knowledge_bases, stems, limit, &query.filters)
            }
            None => Ok(Vec::new()),
        };
        let by_vector = |limit, min_score| {
            let vector = query
                .vector
                .as_ref()
                .ok_or_else(|| Error::Unfit("this search needs a vector".into()))?;
            let (bases, filters) = (&query.knowledge_bases, &query.filters);
            let hits = chunks.nearest(bases, vector, limit, min_score, filters)?;
            Ok::<_, Error>((vector, hits))
        };
        let is_near = |hit: &Hit| query.min_score.is_none_or(|least| hit.score >= least);
        let mut found = match query.mode {
            Mode::Vector => by_vector(query.limit, query.min_score)?.1,
            Mode::FullText => by_words(query.limit)?,
            Mode::Hybrid => {
                let (vector, near) = by_vector(FUSED, None)?;
                fuse::fuse(near, by_words(FUSED)?, |hit| {
                    chunks.cosine(vector, hit.document, hit.chunk)
                })
            }
        };
        found.retain(is_near);
        found.truncate(query.limit);
        let mut passages = Vec::with_capacity(found.len());
        for hit in &found {
            let marked = question.as_ref().filter(|_| marks);
            passages.extend(chunks.passage(hit, &query.knowledge_bases, &query.include, marked)?);
        }
        Ok(passages)
    }
}

#[cfg(test)]
mod tests;
