//! The thread that follows the log and keeps the read models up with it.
//!
//! The rule of this file: one thread writes; whoever waits is told after the commit. The main file comes
//! first, since most wait for that alone. The next batch is read while the last one is taken in.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use eventlog::{EventStore, Position, RecordedEvent};
use tokio::runtime::Handle;
use tokio::sync::mpsc;

use super::BATCH;
use super::file::Models;
use super::generation::{self, Found, Generation};
use super::halt::Halt;
use super::pool::Pool;
use super::status::{State, Status};
use super::views::Shared;
use crate::Error;

/// How long the runner rests after a failure of the disk or the log before it tries again.
const REST: Duration = Duration::from_millis(500);

/// What the runner is asked to do beside following the log.
pub(crate) enum Message {
    /// Fill a new generation beside the one in use, then swap.
    Rebuild,
    /// A new generation is filled: take over.
    Built(Result<PathBuf, Error>),
    /// Let go of the files.
    Stop,
}

/// The runner's state.
pub(crate) struct Runner {
    pub(crate) shared: Arc<Shared>,
    pub(crate) log: Arc<dyn EventStore>,
    pub(crate) runtime: Handle,
    pub(crate) folder: PathBuf,
    pub(crate) models: Models,
    pub(crate) messages: mpsc::UnboundedReceiver<Message>,
    pub(crate) to_self: mpsc::UnboundedSender<Message>,
}

impl Runner {
    /// Runs until told to stop.
    pub(crate) fn run(mut self) {
        let mut generation = loop {
            match self.first_generation() {
                Ok(generation) => break generation,
                Err(error) => {
                    tracing::error!(
                        error = crate::error::chain(&error),
                        "read models cannot be opened"
                    );
                    self.shared.fail(&error);
                    if self.should_stop() {
                        return;
                    }
                    std::thread::sleep(REST);
                }
            }
        };
        let mut head = self.log.watch();
        let mut rebuilding = false;
        loop {
            if let Err(error) = self.catch_up(&mut generation, rebuilding) {
                if matches!(error, Error::Log(eventlog::Error::Closed)) {
                    return;
                }
                tracing::error!(
                    error = crate::error::chain(&error),
                    "read models fell behind; trying again"
                );
                std::thread::sleep(REST);
            }
            let message = self.runtime.block_on(async {
                let behind = *head.borrow_and_update() > generation.position();
                if behind {
                    return self.messages.try_recv().ok();
                }
                tokio::select! {
                    message = self.messages.recv() => Some(message.unwrap_or(Message::Stop)),
                    changed = head.changed() => match changed {
                        Ok(()) => None,
                        Err(_) => Some(Message::Stop),
                    },
                }
            });
            match message {
                None => {}
                Some(Message::Stop) => return,
                Some(Message::Rebuild) if rebuilding => {}
                Some(Message::Rebuild) => {
                    rebuilding = true;
                    self.build_beside(&generation);
                }
                Some(Message::Built(built)) => {
                    rebuilding = false;
                    match built.and_then(|path| self.take_over(&path, &generation)) {
                        Ok(newer) => generation = newer,
                        Err(error) => {
                            tracing::error!(
                                error = crate::error::chain(&error),
                                "rebuild failed; the old read models serve on"
                            );
                        }
                    }
                }
            }
        }
    }

    fn should_stop(&mut self) -> bool {
        matches!(
            self.messages.try_recv(),
            Ok(Message::Stop) | Err(mpsc::error::TryRecvError::Disconnected)
        )
    }

    /// Opens the newest generation of these versions, or fills one; removes all others.
    fn first_generation(&self) -> Result<Generation, Error> {
        let Found { mut own, others } = Generation::find(&self.folder, &self.models)?;
        let newest = own.pop().map(|(_, path)| self.open_unless_ahead(&path)).transpose()?;
        // Left by a cut after a swap. Whatever is filled now takes the first number.
        for (_, older) in own {
            generation::remove(&older)?;
        }
        let generation = match newest.flatten() {
            Some(generation) => generation,
            None => {
                let path = self.path_of(1);
                let started = Instant::now();
                self.fill(&path, |position| {
                    let rate = position.0 as f64 / started.elapsed().as_secs_f64().max(1e-6);
                    self.shared.publish_filling(position, rate);
                })?;
                Generation::open(&path, &self.models)?
            }
        };
        for other in others {
            generation::remove(&other)?;
        }
        self.shared.pool.store(Some(Arc::new(Pool::new(&generation.folder, &self.models))));
        self.publish(&generation, None, false);
        Ok(generation)
    }

    /// Opens a generation; or removes it where it holds what the log does not. That is so where an older
    /// backup of the log was put back: what is appended next would be taken for what was there before.
    fn open_unless_ahead(&self, path: &Path) -> Result<Option<Generation>, Error> {
        let head = self.runtime.block_on(self.log.head())?;
        let generation = Generation::open(path, &self.models)?;
        let standings = generation.standings();
        let furthest = standings.iter().map(|standing| standing.position).max().unwrap_or_default();
        if furthest <= head {
            return Ok(Some(generation));
        }
        tracing::warn!(
            read_models = furthest.0,
            log = head.0,
            "the read models are ahead of the log, which was put back from a backup: they are made anew"
        );
        drop(generation);
        generation::remove(path)?;
        Ok(None)
    }

    fn path_of(&self, number: u64) -> PathBuf {
        self.folder.join(format!("{}{number}", Generation::prefix(&self.models)))
    }

    fn fill(&self, path: &Path, report: impl Fn(Position)) -> Result<(), Error> {
        Generation::fill(path, &self.models, self.log.as_ref(), &self.runtime, report)
    }

    /// Takes in what the log has and the read models have not.
    fn catch_up(&self, generation: &mut Generation, rebuilding: bool) -> Result<(), Error> {
        let started = Instant::now();
        let mut taken = 0;
        let mut next = self.runtime.block_on(self.log.read_after(generation.position(), BATCH))?;
        while let Some(last) = next.last() {
            let after = last.position;
            let is_full = next.len() == BATCH;
            let ahead = is_full.then(|| self.read_ahead(after));
            generation.apply_main(&next)?;
            self.shared.publish_main(&self.models, generation);
            generation.apply_others(&next)?;
            taken += next.len();
            let rate = taken as f64 / started.elapsed().as_secs_f64().max(1e-6);
            self.publish(generation, Some(rate), rebuilding);
            next = match ahead {
                Some(ahead) => {
                    self.runtime.block_on(ahead).map_err(|_| eventlog::Error::Closed)??
                }
                None => self.runtime.block_on(self.log.read_after(after, BATCH))?,
            };
        }
        Ok(())
    }

    fn read_ahead(
        &self,
        after: Position,
    ) -> tokio::task::JoinHandle<Result<Vec<Arc<RecordedEvent>>, eventlog::Error>> {
        let log = self.log.clone();
        self.runtime.spawn(async move { log.read_after(after, BATCH).await })
    }

    fn publish(&self, generation: &Generation, rate: Option<f64>, rebuilding: bool) {
        let head = *self.log.watch().borrow();
        let mut statuses = self.shared.statuses.lock();
        for (status, standing) in statuses.iter_mut().zip(generation.standings()) {
            status.position = standing.position.0;
            status.measure(head);
            status.stopped = standing.stopped.clone();
            status.state = match (&standing.stopped, rebuilding) {
                (Some(_), _) => State::Stopped,
                (None, true) => State::Rebuilding,
                (None, false) => State::Running,
            };
            if let Some(rate) = rate {
                status.rate = rate;
            }
        }
        drop(statuses);
        self.shared.publish_main(&self.models, generation);
        self.shared.applied.send_replace(generation.position());
    }

    /// Fills a new generation on threads of its own, while this one goes on serving.
    fn build_beside(&self, current: &Generation) {
        let found = Generation::find(&self.folder, &self.models).unwrap_or_default();
        let newest = found.own.last().map_or(0, |(number, _)| *number);
        let path = self.path_of(newest + 1);
        tracing::info!(from = %current.folder.display(), to = %path.display(), "rebuilding read models");
        let builder = Runner {
            shared: self.shared.clone(),
            log: self.log.clone(),
            runtime: self.runtime.clone(),
            folder: self.folder.clone(),
            models: self.models.clone(),
            messages: mpsc::unbounded_channel().1,
            to_self: self.to_self.clone(),
        };
        let spawned = std::thread::Builder::new().name("views-rebuild".into()).spawn(move || {
            let goal = builder.log.watch().borrow().0.max(1);
            let built = builder.fill(&path, |position| {
                let percent = (position.0 * 100 / goal).min(100) as u8;
                builder.shared.each_status(|status| status.rebuild_percent = Some(percent));
            });
            let _ = builder.to_self.send(Message::Built(built.map(|()| path)));
        });
        if let Err(error) = spawned {
            let _ = self.to_self.send(Message::Built(Err(error.into())));
        }
    }

    /// Lets a new generation catch up with the one in use, then swaps readers over.
    fn take_over(&self, path: &Path, old: &Generation) -> Result<Generation, Error> {
        let mut newer = Generation::open(path, &self.models)?;
        while newer.position() < old.position() {
            let events = self.runtime.block_on(self.log.read_after(newer.position(), BATCH))?;
            if events.is_empty() {
                break;
            }
            newer.apply_main(&events)?;
            newer.apply_others(&events)?;
        }
        self.shared.pool.store(Some(Arc::new(Pool::new(path, &self.models))));
        self.shared.each_status(|status| status.rebuild_percent = None);
        self.shared.rebuilt.send_modify(|count| *count += 1);
        self.publish(&newer, None, false);
        generation::remove(&old.folder)?;
        tracing::info!(folder = %path.display(), position = newer.position().0, "read models rebuilt and swapped");
        Ok(newer)
    }
}

impl Shared {
    fn each_status(&self, change: impl Fn(&mut Status)) {
        self.statuses.lock().iter_mut().for_each(change);
    }

    /// Says what the main file has taken in; and first, which models have not.
    fn publish_main(&self, models: &Models, generation: &Generation) {
        let halts = Halt::all(models, &generation.standings());
        self.halts.store(halts.map(Arc::new));
        self.main.send_replace(generation.main_position());
    }

    fn publish_filling(&self, position: Position, rate: f64) {
        self.each_status(|status| {
            status.position = position.0;
            status.rate = rate;
            status.state = State::CatchingUp;
        });
    }
}
