//! The search indexes of all generations, and the one that answers.
//!
//! The rule of this file: the log says which generation answers and which are kept up; an index that is there
//! is as far as the log, whether it answers or not.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use eventlog::{EventStore, Position};
use parking_lot::Mutex;
use tokio::sync::watch;
use uuid::Uuid;
use vault::Vault;

use super::index::VERSION;
use super::{FileChunk, Index, NAME, Passage, Query};
use crate::engine::{State, Status};
use crate::{Error, Views, generation};

/// How long the task rests after a failure that may pass.
const REST: Duration = Duration::from_secs(1);

/// How much of a model's revision names its index.
const BRIEF: usize = 16;

/// The search indexes of this node. Cheap to clone.
#[derive(Clone)]
pub struct Search {
    shared: Arc<Shared>,
    task: Arc<Mutex<Option<tokio::task::JoinHandle<()>>>>,
    stop: watch::Sender<bool>,
}

struct Shared {
    folder: PathBuf,
    log: Arc<dyn EventStore>,
    vault: Vault,
    views: Views,
    /// By the revisions of their models.
    indexes: Mutex<BTreeMap<String, Index>>,
    answering: watch::Sender<Answering>,
    /// Up to where the log was looked at for which one that is.
    seen: watch::Sender<Position>,
}

/// Which generation answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Active {
    /// Nobody knows, for this reason, or not yet.
    Unknown(Option<String>),
    /// None: there is no file.
    Nothing,
    /// That of the model of this revision.
    Model(Arc<str>),
}

/// What answers.
#[derive(Clone)]
pub struct Answering {
    active: Active,
    /// That of the active generation.
    index: Option<Index>,
}

impl Answering {
    fn nobody(active: Active) -> Answering {
        Answering { active, index: None }
    }

    /// Which generation it is.
    pub fn active(&self) -> &Active {
        &self.active
    }
}

impl Search {
    /// Opens the indexes in `folder`, which follow the log behind the SQL read models. Answers at once: see
    /// [`Search::caught_up`].
    ///
    /// # Errors
    /// The folder cannot be made.
    pub fn open(
        folder: &Path,
        log: Arc<dyn EventStore>,
        vault: Vault,
        views: Views,
    ) -> Result<Search, Error> {
        std::fs::create_dir_all(folder)?;
        let shared = Arc::new(Shared {
            folder: folder.to_owned(),
            log,
            vault,
            views,
            indexes: Mutex::default(),
            answering: watch::Sender::new(Answering::nobody(Active::Unknown(None))),
            seen: watch::Sender::new(Position::START),
        });
        let (stop, stopped) = watch::channel(false);
        let task = tokio::spawn(shared.clone().follow(stopped));
        Ok(Search { shared, task: Arc::new(Mutex::new(Some(task))), stop })
    }

    /// Finds passages, best first, in the active generation.
    ///
    /// # Errors
    /// The full-text index fails, or a vector is needed and missing.
    pub async fn search(&self, query: Query) -> Result<Vec<Passage>, Error> {
        match self.answering() {
            Some(index) => index.search(query).await,
            None => Ok(Vec::new()),
        }
    }

    /// As [`Search::search`], in the generation of a model; `None` where there is none.
    ///
    /// # Errors
    /// As there.
    pub async fn search_in(
        &self,
        model_revision: &str,
        query: Query,
    ) -> Result<Option<Vec<Passage>>, Error> {
        match self.index(model_revision) {
            Some(index) => index.search(query).await.map(Some),
            None => Ok(None),
        }
    }

    /// Follows which generation answers.
    pub fn watch(&self) -> watch::Receiver<Answering> {
        self.shared.answering.subscribe()
    }

    /// Whether the generation of a model answers.
    pub fn is_active(&self, model_revision: &str) -> bool {
        let answering = self.shared.answering.borrow();
        matches!(&answering.active, Active::Model(active) if **active == *model_revision)
    }

    /// The position that what answers has taken in.
    pub fn position(&self) -> Position {
        // As long as this is looked at, it stays so, and nothing further is seen.
        let answering = self.shared.answering.borrow();
        match (&answering.active, &answering.index) {
            (_, Some(index)) => index.position(),
            (Active::Nothing, None) => *self.shared.seen.borrow(),
            (_, None) => Position::START,
        }
    }

    /// Waits until what answers has taken `position` in; `false` when that takes longer than `at_most`.
    pub async fn caught_up(&self, position: Position, at_most: Duration) -> bool {
        tokio::time::timeout(at_most, self.reached(position)).await.is_ok()
    }

    /// Waits until what answers as of `position` has taken that in, or the server stops.
    pub async fn reached(&self, position: Position) {
        let _ = self.shared.seen.subscribe().wait_for(|seen| *seen >= position).await;
        let mut answering = self.shared.answering.subscribe();
        loop {
            let Answering { active, index } = answering.borrow_and_update().clone();
            let reached = async {
                match (active, index) {
                    (_, Some(index)) => index.reached(position).await,
                    (Active::Nothing, None) => {}
                    (_, None) => std::future::pending().await,
                }
            };
            tokio::select! {
                () = reached => return,
                changed = answering.changed() => if changed.is_err() { return },
            }
        }
    }

    /// Waits until every index has taken `position` in, whether it answers or not; `false` when that takes longer
    /// than `at_most`.
    pub async fn all_caught_up(&self, position: Position, at_most: Duration) -> bool {
        let all = async {
            self.reached(position).await;
            let indexes: Vec<Index> = self.shared.indexes.lock().values().cloned().collect();
            for index in indexes {
                index.reached(position).await;
            }
        };
        tokio::time::timeout(at_most, all).await.is_ok()
    }

    /// Builds an index anew beside the one that is searched, then swaps. Answers whether there is one that is
    /// called so.
    pub fn rebuild(&self, name: &str) -> bool {
        let named = self.named().into_iter().find(|(known, _)| known == name);
        if let Some((_, index)) = &named {
            index.rebuild();
        }
        named.is_some()
    }

    /// Some chunks of a file, from the one numbered `skip` on, and how many it has; `None` when no search finds the file.
    ///
    /// # Errors
    /// The texts cannot be read.
    pub async fn chunks(
        &self,
        file: Uuid,
        skip: usize,
        limit: usize,
    ) -> Result<Option<(Vec<FileChunk>, usize)>, Error> {
        match self.answering() {
            Some(index) => index.chunks(file, skip, limit).await,
            None => Ok(None),
        }
    }

    /// How long the vectors of some knowledge bases are; `None` where they have none.
    pub fn dimensions(&self, bases: &[Uuid]) -> Option<usize> {
        self.answering()?.dimensions(bases)
    }

    /// How many chunks are searched.
    pub fn len(&self) -> usize {
        self.answering().map_or(0, |index| index.len())
    }

    /// Whether there is nothing to search.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Where the indexes stand, the one that answers first.
    pub fn statuses(&self) -> Vec<Status> {
        let named = self.named().into_iter();
        let mut statuses: Vec<Status> =
            named.map(|(name, index)| Status { name, ..index.status() }).collect();
        if self.shared.answering.borrow().active == Active::Nothing {
            let position = *self.shared.seen.borrow();
            let nothing = Status { state: State::Running, ..Status::at(NAME, VERSION, position) };
            statuses.insert(0, nothing);
        }
        statuses
    }

    /// Why searches cannot be answered, if they cannot.
    pub fn trouble(&self) -> Option<String> {
        let answering = self.shared.answering.borrow();
        match (&answering.active, &answering.index) {
            (_, Some(index)) => index.trouble(),
            (Active::Unknown(Some(why)), None) => {
                Some(format!("the search index cannot be opened: {why}"))
            }
            (Active::Unknown(None), None) => Some("the search index is being loaded".into()),
            (_, None) => None,
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

    fn answering(&self) -> Option<Index> {
        self.shared.answering.borrow().index.clone()
    }

    fn index(&self, model_revision: &str) -> Option<Index> {
        self.shared.indexes.lock().get(model_revision).cloned()
    }

    /// The indexes and what they are called: that which answers, or will, bears the plain name.
    fn named(&self) -> Vec<(String, Index)> {
        let indexes = self.shared.indexes.lock();
        let mut named: Vec<(String, Index)> = indexes
            .iter()
            .map(|(revision, index)| match self.is_active(revision) {
                true => (NAME.to_owned(), index.clone()),
                false => (format!("{NAME}-{}", brief(revision)), index.clone()),
            })
            .collect();
        named.sort_by(|one, other| one.0.cmp(&other.0));
        named
    }
}

impl Shared {
    /// Keeps an index for every generation that there is, and says which one answers.
    async fn follow(self: Arc<Self>, mut stopped: watch::Receiver<bool>) {
        let mut views = self.views.watch();
        loop {
            views.mark_unchanged();
            let rest = match self.take_in().await {
                Ok(()) | Err(Error::NotReady) => None,
                Err(error) => {
                    let why = crate::error::chain(&error);
                    tracing::error!(error = why, "the search index cannot be opened; trying again");
                    self.answering.send_replace(Answering::nobody(Active::Unknown(Some(why))));
                    Some(REST)
                }
            };
            let changed = async {
                match rest {
                    Some(rest) => tokio::time::sleep(rest).await,
                    None if views.changed().await.is_err() => std::future::pending().await,
                    None => {}
                }
            };
            tokio::select! {
                _ = stopped.wait_for(|stopped| *stopped) => break,
                () = changed => {}
            }
        }
        let indexes = std::mem::take(&mut *self.indexes.lock());
        for index in indexes.values() {
            index.close().await;
        }
    }

    async fn take_in(&self) -> Result<(), Error> {
        let seen = self.views.position();
        let (active, kept) = self.views.read(|db| {
            let snapshot = db.unchecked_transaction()?;
            Ok((generation::active(&snapshot)?, generation::revisions(&snapshot)?))
        })?;
        self.open_and_close(&kept).await?;
        let next = match active {
            Some(revision) => {
                let index = self.indexes.lock().get(&revision).cloned();
                Answering { active: Active::Model(revision.into()), index }
            }
            None => Answering::nobody(Active::Nothing),
        };
        self.answering.send_if_modified(|answering| {
            let is_other = answering.active != next.active;
            if is_other {
                *answering = next;
            }
            is_other
        });
        self.seen.send_replace(seen);
        Ok(())
    }

    /// Opens what is not open of what is kept, and removes the rest.
    async fn open_and_close(&self, kept: &[String]) -> Result<(), Error> {
        let is_first = matches!(self.answering.borrow().active, Active::Unknown(_));
        let gone: Vec<Index> = {
            let mut indexes = self.indexes.lock();
            if !is_first
                && indexes.len() == kept.len()
                && kept.iter().all(|it| indexes.contains_key(it))
            {
                return Ok(());
            }
            let gone = indexes.extract_if(.., |revision, _| !kept.contains(revision));
            gone.map(|(_, index)| index).collect()
        };
        for index in gone {
            index.close().await;
        }
        self.tidy(kept)?;
        for revision in kept {
            if self.indexes.lock().contains_key(revision) {
                continue;
            }
            let folder = self.folder.join(brief(revision));
            let (log, vault, views) = (self.log.clone(), self.vault.clone(), self.views.clone());
            let index = Index::open(&folder, revision, log, vault, views)?;
            self.indexes.lock().insert(revision.clone(), index);
        }
        Ok(())
    }

    /// Removes what no generation needs: all of it can be made again.
    fn tidy(&self, kept: &[String]) -> Result<(), Error> {
        for entry in std::fs::read_dir(&self.folder)? {
            let entry = entry?;
            let name = entry.file_name();
            if kept.iter().any(|revision| name == brief(revision)) {
                continue;
            }
            let is_folder = entry.file_type()?.is_dir();
            let removed = match is_folder {
                true => std::fs::remove_dir_all(entry.path()),
                false => std::fs::remove_file(entry.path()),
            };
            if let Err(error) = removed {
                tracing::warn!(%error, path = %entry.path().display(), "an old search index was not removed");
            }
        }
        Ok(())
    }
}

/// The beginning of a revision, which tells it from others.
pub(super) fn brief(revision: &str) -> &str {
    revision.get(..BRIEF).unwrap_or(revision)
}
