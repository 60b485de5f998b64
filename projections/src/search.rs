//! Searching knowledge bases: vectors and full text over the chunks of every file that is ready.
//!
//! The rule of this file: the index loads artifacts and never embeds; it takes events in only after
//! the SQL read models have, so that `ready` and "the very next search finds it" are one thing.

mod follow;
mod full_text;
mod index;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use eventlog::{EventStore, Position};
use parking_lot::{Mutex, RwLock};
use serde::Serialize;
use tokio::sync::watch;
use uuid::Uuid;
use vault::Vault;

use crate::engine::{State, Status, Stopped};
use crate::{Error, Views};
use full_text::FullText;
use index::Chunks;

/// What the index is called among the read models.
const NAME: &str = "search";

/// How many passages each side of a hybrid search brings to the fusion, at least.
const FUSED: usize = 100;

/// The constant of reciprocal rank fusion (Cormack, Clarke and Büttcher, SIGIR 2009).
const RANK: f32 = 60.0;

/// How passages are found.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize, Serialize, utoipa::ToSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// By meaning alone; the score is the cosine.
    #[default]
    Vector,
    /// By words (BM25).
    FullText,
    /// Both, by reciprocal rank fusion.
    Hybrid,
}

impl Mode {
    /// Its name.
    pub fn as_str(self) -> &'static str {
        match self {
            Mode::Vector => "vector",
            Mode::FullText => "full_text",
            Mode::Hybrid => "hybrid",
        }
    }
}

/// Which files a search looks at. Every condition narrows.
#[derive(Clone, Debug, Default, PartialEq, serde::Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Filters {
    /// With just this source.
    pub source: Option<String>,
    /// With just this subject.
    pub subject: Option<String>,
    /// In just this language.
    pub language: Option<String>,
    /// With every one of these tags.
    #[serde(default)]
    pub tags: Vec<String>,
    /// Just this file.
    pub file_id: Option<Uuid>,
}

impl Filters {
    fn is_empty(&self) -> bool {
        *self == Filters::default()
    }
}

/// A search.
#[derive(Clone, Debug)]
pub struct Query {
    /// Where.
    pub knowledge_bases: Vec<Uuid>,
    /// What, as words.
    pub text: String,
    /// What, as a vector; needed unless the mode is full text.
    pub vector: Option<Vec<f32>>,
    /// How.
    pub mode: Mode,
    /// How many passages at most.
    pub limit: usize,
    /// The least score.
    pub min_score: Option<f32>,
    /// In which files.
    pub filters: Filters,
}

/// A passage that was found.
#[derive(Clone, Debug, PartialEq, Serialize, utoipa::ToSchema)]
pub struct Passage {
    /// The file that it stands in.
    pub file_id: Uuid,
    /// The file's name.
    pub file_name: String,
    /// The knowledge base that the file belongs to.
    pub knowledge_base_id: Uuid,
    /// Which chunk of the file, from 0.
    pub chunk_index: u32,
    /// The text.
    pub text: String,
    /// How near it is: the cosine, or the score of the mode.
    pub score: f32,
    /// What is said of the file and the place in it.
    pub metadata: Metadata,
    /// Where the text begins, in characters of the file's text.
    pub char_start: u64,
    /// Where it ends.
    pub char_end: u64,
}

/// What is said of a file, and of the place in it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, utoipa::ToSchema)]
pub struct Metadata {
    /// Where the file comes from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// What it is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
    /// Its language.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub language: Option<String>,
    /// Free words to find it by.
    pub tags: Vec<String>,
    /// Where in the file the passage stands.
    #[serde(flatten)]
    pub place: Place,
    /// When the file was uploaded.
    pub created_at: String,
}

/// Where in a file a passage stands, as a reader of the file would say it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, utoipa::ToSchema)]
pub struct Place {
    /// The nearest heading that it stands under.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub heading: Option<String>,
    /// All headings that it stands under, from the highest to the nearest.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(required = false)]
    pub headings: Vec<String>,
    /// The page of a PDF or the slide of a presentation, from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub page: Option<u32>,
    /// The sheet of a workbook.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sheet: Option<String>,
    /// The first row of the sheet, table or JSON lines, from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub row_start: Option<u32>,
    /// The last row.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub row_end: Option<u32>,
}

impl Place {
    fn of(place: &embeddings::Place) -> Place {
        Place {
            heading: place.headings.last().cloned(),
            headings: place.headings.clone(),
            page: place.page,
            sheet: place.sheet.clone(),
            row_start: place.rows.map(|(first, _)| first),
            row_end: place.rows.map(|(_, last)| last),
        }
    }
}

/// A piece of a file's text, as searches find it.
#[derive(Clone, Debug, PartialEq, Serialize, utoipa::ToSchema)]
pub struct FileChunk {
    /// Which chunk of the file, from 0.
    pub chunk_index: u32,
    /// The text.
    pub text: String,
    /// Where the text begins, in characters of the file's text.
    pub char_start: u64,
    /// Where it ends.
    pub char_end: u64,
    /// Where in the file that is.
    #[serde(flatten)]
    pub place: Place,
}

/// The search index of this node. Cheap to clone.
#[derive(Clone)]
pub struct Search {
    shared: Arc<Shared>,
    task: Arc<Mutex<Option<tokio::task::JoinHandle<()>>>>,
    stop: watch::Sender<bool>,
    rebuild: watch::Sender<u64>,
}

pub(crate) struct Shared {
    chunks: RwLock<Chunks>,
    full_text: FullText,
    applied: watch::Sender<Position>,
    status: Mutex<Status>,
}

impl Search {
    /// Opens the index in `folder` and follows the log behind the SQL read models. Answers at once:
    /// see [`Search::caught_up`].
    ///
    /// # Errors
    /// The full-text index cannot be opened or made.
    pub fn open(
        folder: &Path,
        log: Arc<dyn EventStore>,
        vault: Vault,
        views: Views,
    ) -> Result<Search, Error> {
        let full_text = FullText::open(folder)?;
        let shared = Arc::new(Shared {
            chunks: RwLock::default(),
            full_text,
            applied: watch::Sender::new(Position::START),
            status: Mutex::new(Status::at(NAME, index::VERSION, Position::START)),
        });
        let (stop, stopped) = watch::channel(false);
        let (rebuild, rebuilds) = watch::channel(0);
        let follower =
            follow::Follower { shared: shared.clone(), log, vault, views, stopped, rebuilds };
        let task = Arc::new(Mutex::new(Some(tokio::spawn(follower.run()))));
        Ok(Search { shared, task, stop, rebuild })
    }

    /// Finds passages, best first.
    ///
    /// # Errors
    /// The full-text index fails, or a vector is needed and missing.
    pub async fn search(&self, query: Query) -> Result<Vec<Passage>, Error> {
        let shared = self.shared.clone();
        let searched = tokio::task::spawn_blocking(move || shared.search(&query)).await;
        searched.unwrap_or_else(|_| Err(Error::NotReady))
    }

    /// The position that the index has taken in.
    pub fn position(&self) -> Position {
        *self.shared.applied.borrow()
    }

    /// Follows the position that the index has taken in.
    pub fn watch(&self) -> watch::Receiver<Position> {
        self.shared.applied.subscribe()
    }

    /// Waits until the index has taken `position` in; `false` when that takes longer than `at_most`.
    pub async fn caught_up(&self, position: Position, at_most: Duration) -> bool {
        let mut applied = self.watch();
        let reached = applied.wait_for(|applied| *applied >= position);
        matches!(tokio::time::timeout(at_most, reached).await, Ok(Ok(_)))
    }

    /// Builds the index anew beside the one that is searched, then swaps. Answers whether it is
    /// called so.
    pub fn rebuild(&self, name: &str) -> bool {
        let is_known = name == NAME;
        if is_known {
            self.rebuild.send_modify(|count| *count += 1);
        }
        is_known
    }

    /// Some chunks of a file, from the one numbered `skip` on, and how many it has; `None` when no search finds the file.
    pub fn chunks(&self, file: Uuid, skip: usize, limit: usize) -> Option<(Vec<FileChunk>, usize)> {
        self.shared.chunks.read().of_file(file, skip, limit)
    }

    /// How many chunks are searched.
    pub fn len(&self) -> usize {
        self.shared.chunks.read().len()
    }

    /// Whether there is nothing to search.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Where the index stands.
    pub fn status(&self) -> Status {
        let mut status = self.shared.status.lock().clone();
        status.position = self.position().0;
        status
    }

    /// Why the index cannot serve, if it cannot.
    pub fn trouble(&self) -> Option<String> {
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
    pub async fn close(&self) {
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

    fn search(&self, query: &Query) -> Result<Vec<Passage>, Error> {
        let chunks = self.chunks.read();
        let found = match query.mode {
            Mode::Vector => self.by_vector(&chunks, query, query.limit, query.min_score)?,
            Mode::FullText => {
                let mut found = self.by_words(&chunks, query, query.limit)?;
                found.retain(|hit| query.min_score.is_none_or(|least| hit.score >= least));
                found
            }
            Mode::Hybrid => {
                let depth = query.limit.max(FUSED);
                let by_meaning = self.by_vector(&chunks, query, depth, None)?;
                let mut fused = fuse(&by_meaning, &self.by_words(&chunks, query, depth)?);
                fused.retain(|hit| query.min_score.is_none_or(|least| hit.score >= least));
                fused.truncate(query.limit);
                fused
            }
        };
        Ok(found.iter().filter_map(|hit| chunks.passage(hit)).collect())
    }

    fn by_vector(
        &self,
        chunks: &Chunks,
        query: &Query,
        limit: usize,
        min_score: Option<f32>,
    ) -> Result<Vec<embeddings::Hit>, Error> {
        let vector = query
            .vector
            .as_ref()
            .ok_or_else(|| Error::Unfit("this search needs a vector".into()))?;
        chunks.nearest(&query.knowledge_bases, vector, limit, min_score, &query.filters)
    }

    fn by_words(
        &self,
        chunks: &Chunks,
        query: &Query,
        limit: usize,
    ) -> Result<Vec<embeddings::Hit>, Error> {
        let only = (!query.filters.is_empty())
            .then(|| chunks.admitted(&query.knowledge_bases, &query.filters));
        self.full_text.search(&query.knowledge_bases, &query.text, limit, only)
    }
}

/// Reciprocal rank fusion: each list gives 1 / (60 + rank) to what it holds.
fn fuse(left: &[embeddings::Hit], right: &[embeddings::Hit]) -> Vec<embeddings::Hit> {
    let mut fused: Vec<embeddings::Hit> = Vec::new();
    for list in [left, right] {
        for (rank, hit) in list.iter().enumerate() {
            let share = 1.0 / (RANK + rank as f32 + 1.0);
            match fused
                .iter_mut()
                .find(|known| known.document == hit.document && known.chunk == hit.chunk)
            {
                Some(known) => known.score += share,
                None => fused.push(embeddings::Hit { score: share, ..*hit }),
            }
        }
    }
    fused.sort_by(|a, b| {
        b.score.total_cmp(&a.score).then(a.document.cmp(&b.document)).then(a.chunk.cmp(&b.chunk))
    });
    fused
}

#[cfg(test)]
mod tests;
