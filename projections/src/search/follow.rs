//! The task that keeps the search index up with the log.

use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use embeddings::Artifact;
use eventlog::{EventStore, Position, RecordedEvent};
use futures::{FutureExt, Stream, StreamExt, TryStreamExt, stream};
use tokio::sync::watch;
use uuid::Uuid;
use vault::{Vault, product_key};

use super::Shared;
use super::index::Chunks;
use crate::engine::State;
use crate::file::{self, File};
use crate::{Error, Views};

/// How many events one read of the log brings.
const BATCH: usize = 1_000;

/// How many positions the commit of the full text may lag behind where nothing in it changes: so
/// many events are read again at a start.
const COMMIT_EVERY: u64 = 20_000;

/// How many artifacts are read at once when all are.
const READ_AHEAD: usize = 16;

/// How long the task rests after a failure that may pass.
const REST: Duration = Duration::from_secs(1);

/// The task's state.
pub(super) struct Follower {
    pub(super) shared: Arc<Shared>,
    pub(super) revision: String,
    pub(super) log: Arc<dyn EventStore>,
    pub(super) vault: Vault,
    pub(super) views: Views,
    pub(super) stopped: watch::Receiver<bool>,
    pub(super) rebuilds: watch::Receiver<u64>,
}

/// Where the index stands in the log.
struct Place {
    /// Up to where it was taken in.
    position: Position,
    /// Up to where it was in the vectors at the start.
    vectors_from: Position,
    /// Up to where it was in the full text at the start.
    words_from: Position,
    /// Up to where the full text is on disk.
    committed: Position,
}

/// A failure, and whether it is an event's or a passing one.
enum Failure {
    Poison { position: u64, event_type: String, error: Error },
    Passing(Error),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Failure {
        Failure::Passing(error)
    }
}

impl From<eventlog::Error> for Failure {
    fn from(error: eventlog::Error) -> Failure {
        Failure::Passing(error.into())
    }
}

impl Follower {
    pub(super) async fn run(mut self) {
        let mut stopped = self.stopped.clone();
        let shared = self.shared.clone();
        let followed = tokio::select! {
            _ = stopped.wait_for(|stopped| *stopped) => return,
            followed = AssertUnwindSafe(self.follow()).catch_unwind() => followed,
        };
        if followed.is_err() {
            // The panic hook has written where. What is in memory may be torn.
            let next = shared.applied.borrow().0 + 1;
            shared.stop(
                next,
                "unknown",
                &Error::Unfit("the search index crashed: restart the server".into()),
            );
        }
    }

    /// Follows the log until the views end. An event that cannot be taken in stops the index until
    /// it is rebuilt.
    async fn follow(&mut self) {
        let mut place = None;
        // What was in the log before this node began must be found before it says that it is ready.
        let mut start = None;
        loop {
            let outcome = match &mut place {
                None => self.begin(&mut start).await.map(|loaded| place = Some(loaded)),
                Some(place) => self.catch_up(place).await,
            };
            let goes_on = match outcome {
                Ok(()) => {
                    let reached = place.as_ref().map_or(Position::START, |place| place.position);
                    // Views that have stopped do not get there: what is loaded serves meanwhile.
                    if start.is_none_or(|start| reached >= start) || self.views.trouble().is_some()
                    {
                        self.run_on();
                    }
                    self.wait(reached, &mut place).await
                }
                Err(Failure::Poison { position, event_type, error }) => {
                    self.shared.stop(position, &event_type, &error);
                    self.wait_for_rebuild(&mut place).await
                }
                Err(Failure::Passing(Error::NotReady)) => {
                    self.views.watch().changed().await.is_ok()
                }
                Err(Failure::Passing(error)) => {
                    tracing::warn!(
                        error = crate::error::chain(&error),
                        "search index fell behind; trying again"
                    );
                    tokio::time::sleep(REST).await;
                    true
                }
            };
            if !goes_on {
                return;
            }
        }
    }

    /// Loads what there is, and says where the log ended at the start.
    async fn begin(&self, start: &mut Option<Position>) -> Result<Place, Failure> {
        *start = Some(self.log.head().await?);
        self.load().await
    }

    fn run_on(&self) {
        let mut status = self.shared.status.lock();
        status.state = State::Running;
        status.stopped = None;
    }

    /// Waits until the views are ahead, or somebody asks for a rebuild and it is done.
    async fn wait(&mut self, reached: Position, place: &mut Option<Place>) -> bool {
        let mut views = self.views.watch();
        let ahead = async { views.wait_for(|applied| *applied > reached).await.is_ok() };
        tokio::select! {
            is_ahead = ahead => is_ahead,
            asked = self.rebuilds.changed() => asked.is_ok() && self.rebuild(place).await,
        }
    }

    /// Waits until somebody asks for a rebuild.
    async fn wait_for_rebuild(&mut self, place: &mut Option<Place>) -> bool {
        self.rebuilds.changed().await.is_ok() && self.rebuild(place).await
    }

    /// Builds the index anew beside the one that is searched, then swaps. Where that fails, the old
    /// one serves on, stopped.
    async fn rebuild(&self, place: &mut Option<Place>) -> bool {
        self.shared.status.lock().state = State::Rebuilding;
        match self.build_anew().await {
            Ok(position) => {
                *place = Some(Place {
                    position,
                    vectors_from: position,
                    words_from: position,
                    committed: position,
                });
                self.publish(position, 0, Instant::now());
                self.run_on();
                tracing::info!(position = position.0, "search index rebuilt and swapped");
            }
            Err(Failure::Poison { position, event_type, error }) => {
                self.shared.stop(position, &event_type, &error);
            }
            Err(Failure::Passing(error)) => {
                tracing::warn!(error = crate::error::chain(&error), "search index was not rebuilt");
            }
        }
        true
    }

    async fn build_anew(&self) -> Result<Position, Failure> {
        let (position, files) = self.ready_files()?;
        let built = async {
            self.shared.full_text.clear()?;
            let mut chunks = Chunks::new(&self.shared.folder)?;
            let mut artifacts = pin!(self.artifacts(files));
            while let Some((file, artifact)) = artifacts.try_next().await? {
                self.shared.full_text.add(&file, &artifact)?;
                chunks.add(&file, &artifact).map_err(|error| self.poison_of(&file, error))?;
            }
            Ok::<Chunks, Failure>(chunks)
        };
        match built.await {
            Ok(chunks) => {
                self.commit(position).await?;
                *self.shared.chunks.write() = chunks;
                Ok(position)
            }
            Err(failure) => {
                self.shared.full_text.roll_back()?;
                Err(failure)
            }
        }
    }

    async fn commit(&self, position: Position) -> Result<(), Failure> {
        let shared = self.shared.clone();
        let committed =
            tokio::task::spawn_blocking(move || shared.full_text.commit(position)).await;
        Ok(committed.map_err(|_| Failure::Passing(Error::NotReady))??)
    }

    /// Every file that the model has, and up to where the log is in that.
    fn ready_files(&self) -> Result<(Position, Vec<File>), Error> {
        self.views.read(|db| {
            let snapshot = db.unchecked_transaction()?;
            let sql = "SELECT position FROM checkpoint WHERE model = 'file'";
            let position: u64 = snapshot.query_row(sql, [], |row| row.get(0))?;
            Ok((Position(position), file::all_embedded(&snapshot, &self.revision)?))
        })
    }

    /// Loads the vectors of every file that the model has.
    async fn load(&self) -> Result<Place, Failure> {
        let (vectors_from, files) = self.ready_files()?;
        let mut artifacts = pin!(self.artifacts(files));
        while let Some((file, artifact)) = artifacts.try_next().await? {
            let added = self.shared.chunks.write().add(&file, &artifact);
            added.map_err(|error| self.poison_of(&file, error))?;
        }
        // The full text may be behind the vectors or ahead of them: each takes in what it lacks.
        let mut words_from = self.shared.full_text.position();
        if words_from > self.log.head().await? {
            tracing::warn!(
                "the full text is ahead of the log, which was put back from a backup: it is made anew"
            );
            words_from = Position::START;
            self.shared.full_text.clear()?;
            self.commit(words_from).await?;
        }
        let position = vectors_from.min(words_from);
        // There may be nothing to catch up with, and what was ready before is ready now.
        self.publish(position, 0, Instant::now());
        Ok(Place { position, vectors_from, words_from, committed: words_from })
    }

    async fn catch_up(&self, place: &mut Place) -> Result<(), Failure> {
        let goal = self.views.position();
        let started = Instant::now();
        let mut taken = 0_usize;
        while place.position < goal {
            let events = self.log.read_after(place.position, BATCH).await?;
            let mut last = place.position;
            let mut has_changed = false;
            for event in events.iter().take_while(|event| event.position <= goal) {
                last = event.position;
                taken += 1;
                if event.stream.category() == "file" {
                    has_changed |= self.take_in(event, place).await?;
                }
            }
            if last == place.position {
                break;
            }
            let is_far_ahead = last.0.saturating_sub(place.committed.0) >= COMMIT_EVERY;
            if has_changed || is_far_ahead {
                self.commit(last).await?;
                place.committed = last;
            }
            place.position = last;
            self.publish(last, taken, started);
        }
        Ok(())
    }

    fn publish(&self, position: Position, taken: usize, started: Instant) {
        let head = *self.log.watch().borrow();
        let mut status = self.shared.status.lock();
        status.lag = head.0.saturating_sub(position.0);
        status.rate = taken as f64 / started.elapsed().as_secs_f64().max(1e-6);
        drop(status);
        self.shared.applied.send_replace(position);
    }

    /// Takes one event of a file in. Answers whether the full text has changed.
    async fn take_in(&self, event: &RecordedEvent, place: &Place) -> Result<bool, Failure> {
        let Some(id) = event.stream.uuid() else { return Ok(false) };
        let for_vectors = event.position > place.vectors_from;
        let for_words = event.position > place.words_from;
        match event.event_type.as_str() {
            "file.indexed.v1" | "file.embedded.v1" => {
                // The row may be newer than the event, or another model's: a file that is gone again needs no indexing.
                let found = self.views.read(|db| file::embedded(db, id, &self.revision))?;
                let Some(file) = found else { return Ok(false) };
                if file.ready_position != Some(event.position.0) {
                    return Ok(false);
                }
                let artifact = self.artifact(&file).await.map_err(|error| poison(event, error))?;
                let Some(artifact) = artifact else { return Ok(false) };
                if for_words {
                    self.shared.full_text.add(&file, &artifact)?;
                }
                if for_vectors {
                    let added = self.shared.chunks.write().add(&file, &artifact);
                    added.map_err(|error| poison(event, error))?;
                }
                Ok(for_words)
            }
            "file.deleted.v1" => Ok(self.forget(id, for_vectors, for_words)),
            _ => Ok(false),
        }
    }

    fn forget(&self, file: Uuid, from_vectors: bool, from_words: bool) -> bool {
        if from_vectors {
            self.shared.chunks.write().remove(file);
        }
        if from_words {
            self.shared.full_text.remove(file);
        }
        from_words
    }

    /// The artifacts of files that have theirs, in their order. Several are read at once: the store
    /// may be far away.
    fn artifacts(
        &self,
        files: Vec<File>,
    ) -> impl Stream<Item = Result<(File, Artifact), Failure>> + '_ {
        let read = move |file: File| async move {
            match self.artifact(&file).await {
                Ok(artifact) => Ok(artifact.map(|artifact| (file, artifact))),
                Err(error) => Err(self.poison_of(&file, error)),
            }
        };
        let read = stream::iter(files).map(read).buffered(READ_AHEAD);
        read.try_filter_map(async |found| Ok(found))
    }

    /// The artifact of a file; `None` when its product was erased, by another node that is ahead.
    async fn artifact(&self, file: &File) -> Result<Option<Artifact>, Error> {
        let name = file
            .artifact
            .as_deref()
            .ok_or_else(|| Error::Unfit("a ready file has an artifact".into()))?;
        let found = match self.vault.get_artifact(name).await {
            Err(damaged @ vault::Error::Corrupt { .. }) => {
                let why = format!("the artifact of file {}: {damaged}", file.id);
                return Err(Error::Unfit(why));
            }
            found => found?,
        };
        let Some(bytes) = found else {
            // The key goes before the artifacts do. What this node knows of it may be old.
            let key = product_key(file.product_id);
            self.vault.forget_key(&key);
            if !self.vault.key_exists(&key).await? {
                return Ok(None);
            }
            return Err(Error::Unfit(format!(
                "the artifact of file {} is gone: restore {name} from a backup",
                file.id
            )));
        };
        Artifact::decode(&bytes)
            .map(Some)
            .map_err(|error| Error::Unfit(format!("the artifact of file {}: {error}", file.id)))
    }

    fn poison_of(&self, file: &File, error: Error) -> Failure {
        match error {
            Error::Unfit(_) => Failure::Poison {
                position: file.ready_position.unwrap_or_default(),
                event_type: "file.indexed.v1".into(),
                error,
            },
            passing => Failure::Passing(passing),
        }
    }
}

fn poison(event: &RecordedEvent, error: Error) -> Failure {
    match error {
        Error::Unfit(_) => Failure::Poison {
            position: event.position.0,
            event_type: event.event_type.clone(),
            error,
        },
        passing => Failure::Passing(passing),
    }
}
