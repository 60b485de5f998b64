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
    active: watch::Sender<Active>,
}

/// Which generation answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Active {
    /// Nobody knows yet.
    Unknown,
    /// None: there is no file.
    Nothing,
    /// That of the model of this revision.
    Model(Arc<str>),
}

/// What answers.
#[derive(Clone)]
enum Answering {
    /// Nobody knows yet, for this reason.
    Unknown(Option<String>),
    /// Nothing: up to this position there is no file.
    Nothing(Position),
    /// The index of the active generation.
    Generation(Arc<str>, Index),
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
            answering: watch::Sender::new(Answering::Unknown(None)),
            active: watch::Sender::new(Active::Unknown),
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
    pub fn watch_active(&self) -> watch::Receiver<Active> {
        self.shared.active.subscribe()
    }

    /// Whether the generation of a model answers.
    pub fn is_active(&self, model_revision: &str) -> bool {
        matches!(&*self.shared.active.borrow(), Active::Model(active) if **active == *model_revision)
    }

    /// The position that the answering index has taken in.
    pub fn position(&self) -> Position {
        match &*self.shared.answering.borrow() {
            Answering::Generation(_, index) => index.position(),
            Answering::Nothing(position) => *position,
            Answering::Unknown(_) => Position::START,
        }
    }

    /// Waits until what answers has taken `position` in; `false` when that takes longer than `at_most`.
    pub async fn caught_up(&self, position: Position, at_most: Duration) -> bool {
        tokio::time::timeout(at_most, self.reached(position)).await.is_ok()
    }

    /// Waits until what answers has taken `position` in, or the server stops.
    pub async fn reached(&self, position: Position) {
        let mut answering = self.shared.answering.subscribe();
        loop {
            let now = answering.borrow_and_update().clone();
            let reached = async {
                match now {
                    Answering::Nothing(seen) if seen >= position => {}
                    Answering::Generation(_, index) => index.reached(position).await,
                    Answering::Unknown(_) | Answering::Nothing(_) => std::future::pending().await,
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
        if let Answering::Nothing(position) = &*self.shared.answering.borrow() {
            let nothing = Status { state: State::Running, ..Status::at(NAME, VERSION, *position) };
            statuses.insert(0, nothing);
        }
        statuses
    }

    /// Why searches cannot be answered, if they cannot.
    pub fn trouble(&self) -> Option<String> {
        match &*self.shared.answering.borrow() {
            Answering::Generation(_, index) => index.trouble(),
            Answering::Nothing(_) => None,
            Answering::Unknown(Some(why)) => {
                Some(format!("the search index cannot be opened: {why}"))
            }
            Answering::Unknown(None) => Some("the search index is being loaded".into()),
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
        match &*self.shared.answering.borrow() {
            Answering::Generation(_, index) => Some(index.clone()),
            Answering::Unknown(_) | Answering::Nothing(_) => None,
        }
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
                    self.answering.send_replace(Answering::Unknown(Some(why)));
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
        let (position, active, kept) = self.views.read(|db| {
            let snapshot = db.unchecked_transaction()?;
            let sql = "SELECT position FROM checkpoint WHERE model = 'file'";
            let position: u64 = snapshot.query_row(sql, [], |row| row.get(0))?;
            Ok((
                Position(position),
                generation::active(&snapshot)?,
                generation::revisions(&snapshot)?,
            ))
        })?;
        self.open_and_close(&kept).await?;
        let index = active.and_then(|revision| {
            let index = self.indexes.lock().get(&revision).cloned();
            index.map(|index| (revision, index))
        });
        self.answering.send_if_modified(|answering| {
            let next = match (&*answering, index) {
                (Answering::Generation(before, _), Some((revision, _)))
                    if **before == *revision =>
                {
                    return false;
                }
                (_, Some((revision, index))) => Answering::Generation(revision.into(), index),
                (_, None) => Answering::Nothing(position),
            };
            *answering = next;
            true
        });
        let active = match &*self.answering.borrow() {
            Answering::Unknown(_) => Active::Unknown,
            Answering::Nothing(_) => Active::Nothing,
            Answering::Generation(revision, _) => Active::Model(revision.clone()),
        };
        self.active.send_if_modified(|before| {
            let is_other = *before != active;
            *before = active;
            is_other
        });
        Ok(())
    }

    /// Opens what is not open of what is kept, and removes the rest.
    async fn open_and_close(&self, kept: &[String]) -> Result<(), Error> {
        let is_first = matches!(&*self.answering.borrow(), Answering::Unknown(_));
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
