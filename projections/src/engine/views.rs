//! The read models as the rest of the system sees them: query, wait, rebuild, verify.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use eventlog::{EventStore, Position, RecordedEvent};
use parking_lot::Mutex;
use rusqlite::{Connection, OpenFlags};
use tokio::sync::{mpsc, watch};

use super::BATCH;
use super::file::{File, Models, dump};
use super::generation::{self, Generation};
use super::halt::Halt;
use super::pool::Pool;
use super::runner::{Message, Runner};
use super::status::{State, Status};
use crate::Error;

/// What readers and the runner share.
pub(crate) struct Shared {
    pub(crate) pool: ArcSwapOption<Pool>,
    /// What the main file has taken in.
    pub(crate) main: watch::Sender<Position>,
    /// What all files have.
    pub(crate) applied: watch::Sender<Position>,
    /// The models that have stopped, if any have.
    pub(crate) halts: ArcSwapOption<Vec<Halt>>,
    pub(crate) rebuilt: watch::Sender<u64>,
    pub(crate) statuses: Mutex<Vec<Status>>,
    pub(crate) failure: Mutex<Option<String>>,
}

impl Shared {
    pub(crate) fn fail(&self, error: &Error) {
        *self.failure.lock() = Some(crate::error::chain(error));
    }
}

/// The read models of this node. Cheap to clone.
#[derive(Clone)]
pub struct Views {
    shared: Arc<Shared>,
    models: Models,
    messages: mpsc::UnboundedSender<Message>,
    thread: Arc<Mutex<Option<std::thread::JoinHandle<()>>>>,
}

/// Whether the read models are what the log makes of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// Up to where both were compared.
    pub position: Position,
    /// The first row that differs, as (stored, rebuilt); none when all are equal.
    pub difference: Option<(String, String)>,
}

impl Views {
    /// Opens the read models in `folder` and follows `log`. Answers at once: see
    /// [`Views::caught_up`].
    ///
    /// # Errors
    /// The folder cannot be made, or no thread can be started.
    pub fn open(folder: &Path, log: Arc<dyn EventStore>) -> Result<Views, Error> {
        Views::open_with(folder, log, crate::read_models())
    }

    /// As [`Views::open`], with models of the caller's choice.
    ///
    /// # Errors
    /// As [`Views::open`].
    pub fn open_with(
        folder: &Path,
        log: Arc<dyn EventStore>,
        models: Vec<Box<dyn super::ReadModel>>,
    ) -> Result<Views, Error> {
        std::fs::create_dir_all(folder)?;
        let models: Models = models.into();
        let statuses = models
            .iter()
            .map(|model| Status::at(model.name(), model.version(), Position::START))
            .collect();
        let shared = Arc::new(Shared {
            pool: ArcSwapOption::empty(),
            main: watch::Sender::new(Position::START),
            applied: watch::Sender::new(Position::START),
            halts: ArcSwapOption::empty(),
            rebuilt: watch::Sender::new(0),
            statuses: Mutex::new(statuses),
            failure: Mutex::new(None),
        });
        let (sender, receiver) = mpsc::unbounded_channel();
        let runner = Runner {
            shared: shared.clone(),
            log,
            runtime: tokio::runtime::Handle::current(),
            folder: folder.to_owned(),
            models: models.clone(),
            messages: receiver,
            to_self: sender.clone(),
        };
        let thread =
            std::thread::Builder::new().name("views".into()).spawn(move || runner.run())?;
        let thread = Arc::new(Mutex::new(Some(thread)));
        Ok(Views { shared, models, messages: sender, thread })
    }

    /// Runs a query on the caller's thread.
    ///
    /// # Errors
    /// [`Error::NotReady`] before the first file is whole; otherwise what the query answers.
    pub fn read<T>(&self, query: impl FnOnce(&Connection) -> Result<T, Error>) -> Result<T, Error> {
        match self.shared.pool.load().as_ref() {
            Some(pool) => pool.with(query),
            None => Err(Error::NotReady),
        }
    }

    /// Read models of their own for a few events, in memory: a resource as those events left it.
    ///
    /// # Errors
    /// SQLite fails, or an event cannot be taken in.
    pub fn scratch<T>(
        &self,
        events: &[Arc<RecordedEvent>],
        query: impl FnOnce(&Connection) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let mut file = File::in_memory(&self.models, (0..self.models.len()).collect())?;
        file.apply(events)?;
        query(&file.connection)
    }

    /// The position that the read models of the main file have taken in, save those that stopped: see
    /// [`Views::halt`]. Other files may be a batch behind: see [`Views::all_caught_up`].
    pub fn position(&self) -> Position {
        *self.shared.main.borrow()
    }

    /// Follows [`Views::position`].
    pub fn watch(&self) -> watch::Receiver<Position> {
        self.shared.main.subscribe()
    }

    /// Waits until the read models of the main file have taken `position` in; `false` when that takes
    /// longer than `at_most`, or one of them stopped before.
    pub async fn caught_up(&self, position: Position, at_most: Duration) -> bool {
        let stopped = |halt: &Halt| halt.is_in_main && halt.is_before(position);
        self.reaches(&self.shared.main, position, at_most, stopped).await
    }

    /// Waits until all read models have taken `position` in; `false` when that takes longer than
    /// `at_most`, or one of them stopped before.
    pub async fn all_caught_up(&self, position: Position, at_most: Duration) -> bool {
        let stopped = |halt: &Halt| halt.is_before(position);
        self.reaches(&self.shared.applied, position, at_most, stopped).await
    }

    /// As [`Views::caught_up`], whatever has stopped: for those who ask [`Views::halt`] for what they
    /// need.
    pub async fn reached(&self, position: Position, at_most: Duration) -> bool {
        self.reaches(&self.shared.main, position, at_most, |_| false).await
    }

    /// As [`Views::all_caught_up`], whatever has stopped.
    pub async fn all_reached(&self, position: Position, at_most: Duration) -> bool {
        self.reaches(&self.shared.applied, position, at_most, |_| false).await
    }

    /// The first of the read models that stopped of which this is true. Costs next to nothing while
    /// none has.
    pub fn halt(&self, is_meant: impl Fn(&Halt) -> bool) -> Option<Halt> {
        let halts = self.shared.halts.load();
        halts.as_ref()?.iter().find(|halt| is_meant(halt)).copied()
    }

    async fn reaches(
        &self,
        place: &watch::Sender<Position>,
        position: Position,
        at_most: Duration,
        is_in_the_way: impl Fn(&Halt) -> bool,
    ) -> bool {
        let mut place = place.subscribe();
        let is_stopped = || self.halt(&is_in_the_way).is_some();
        let reached = place.wait_for(|place| *place >= position || is_stopped());
        matches!(tokio::time::timeout(at_most, reached).await, Ok(Ok(_)))
            && !is_stopped()
            && self.shared.pool.load().is_some()
    }

    /// Where each read model stands, and how far it was behind when it got there: see [`Status::measure`].
    pub fn statuses(&self) -> Vec<Status> {
        self.shared.statuses.lock().clone()
    }

    /// Why the read models cannot serve, if they cannot.
    pub fn trouble(&self) -> Option<String> {
        if self.shared.pool.load().is_none() {
            let failure = self.shared.failure.lock().clone();
            return Some(
                failure.unwrap_or_else(|| "the read models are being built from the log".into()),
            );
        }
        let statuses = self.shared.statuses.lock();
        let stopped = statuses.iter().find(|status| status.state == State::Stopped)?;
        let why = stopped.stopped.as_ref()?;
        Some(format!(
            "read model {} stopped at position {} ({}): {}",
            stopped.name, why.position, why.event_type, why.error
        ))
    }

    /// Builds all read models anew beside those in use, then swaps. They are swapped
    /// together, so rebuilding one is rebuilding all. Answers whether there is a model of that name.
    pub fn rebuild(&self, name: &str) -> bool {
        let known = self.models.iter().any(|model| model.name() == name);
        if known {
            let _ = self.messages.send(Message::Rebuild);
        }
        known
    }

    /// How many rebuilds have been swapped in.
    pub fn rebuilds(&self) -> watch::Receiver<u64> {
        self.shared.rebuilt.subscribe()
    }

    /// Stops following the log.
    pub async fn close(&self) {
        let _ = self.messages.send(Message::Stop);
        let thread = self.thread.lock().take();
        if let Some(thread) = thread {
            let _ = tokio::task::spawn_blocking(move || thread.join()).await;
        }
    }
}

/// Rebuilds the read models of a folder in memory and compares, file by file. Runs beside a server.
///
/// # Errors
/// There are no read models of this version, or they or the log cannot be read.
pub async fn verify(folder: &Path, log: &dyn EventStore) -> Result<Verdict, Error> {
    let models: Models = crate::read_models().into();
    let newest = newest(folder, &models)?;
    let mut verdict = Verdict { position: Position::START, difference: None };
    for (name, own) in generation::files(&models) {
        let stored = open_file(&newest, name)?;
        let snapshot = stored.unchecked_transaction()?;
        // All but those that stopped, which will again.
        let position = snapshot.query_row("SELECT max(position) FROM checkpoint", [], |row| {
            row.get(0).map(Position)
        })?;
        let mut rebuilt = File::in_memory(&models, own)?;
        while rebuilt.position() < position {
            let mut events = log.read_after(rebuilt.position(), BATCH).await?;
            events.retain(|event| event.position <= position);
            if events.is_empty() {
                break;
            }
            rebuilt.apply(&events)?;
        }
        verdict.position = verdict.position.max(position);
        verdict.difference = difference(&dump(&snapshot)?, &dump(&rebuilt.connection)?);
        if verdict.difference.is_some() {
            break;
        }
    }
    Ok(verdict)
}

/// The first row that differs.
fn difference(stored: &str, rebuilt: &str) -> Option<(String, String)> {
    let differing = stored.lines().zip(rebuilt.lines()).find(|(stored, rebuilt)| stored != rebuilt);
    match differing {
        Some((stored, rebuilt)) => Some((stored.to_owned(), rebuilt.to_owned())),
        None if stored.len() != rebuilt.len() => Some((
            format!("{} rows", stored.lines().count()),
            format!("{} rows", rebuilt.lines().count()),
        )),
        None => None,
    }
}

/// Where each read model of a folder stands. Runs beside a server.
///
/// # Errors
/// There are no read models of this version, or they cannot be read.
pub fn standings(folder: &Path, head: Position) -> Result<Vec<Status>, Error> {
    let models: Models = crate::read_models().into();
    let newest = newest(folder, &models)?;
    let mut statuses = Vec::new();
    for model in models.iter() {
        let stored = open_file(&newest, model.file())?;
        let (position, stopped): (u64, Option<String>) = stored.query_row(
            "SELECT position, stopped FROM checkpoint WHERE model = ?1",
            [model.name()],
            |row| Ok((row.get(0)?, row.get(1)?)),
        )?;
        let mut status = Status::at(model.name(), model.version(), Position(position));
        status.measure(head);
        status.state = if stopped.is_some() { State::Stopped } else { State::Running };
        status.stopped =
            stopped.map(|error| super::Stopped { position, event_type: String::new(), error });
        statuses.push(status);
    }
    Ok(statuses)
}

/// Removes the read models of a folder, so that the next start fills them anew.
///
/// # Errors
/// A file cannot be removed.
pub fn discard(folder: &Path) -> Result<(), Error> {
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        let is_views =
            path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("views-"));
        if is_views {
            generation::remove(&path)?;
        }
    }
    Ok(())
}

fn newest(folder: &Path, models: &Models) -> Result<PathBuf, Error> {
    let newest = Generation::find(folder, models)?.own.pop();
    newest.map(|(_, path)| path).ok_or(Error::NotReady)
}

fn open_file(generation: &Path, name: &str) -> Result<Connection, Error> {
    let path = generation::path_of(generation, name);
    Ok(Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY)?)
}
