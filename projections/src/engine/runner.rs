//! The thread that follows the log and keeps the views file up with it.
//!
//! The rule of this file: one thread writes; whoever waits is told after the commit. The next batch
//! is read while the last one is taken in.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use eventlog::{EventStore, Position, RecordedEvent};
use tokio::runtime::Handle;
use tokio::sync::mpsc;

use super::file::{self, File, Mode, Models};
use super::pool::Pool;
use super::status::{State, Status};
use super::views::Shared;
use crate::Error;

/// How many events are taken in in one transaction.
const BATCH: usize = 2_000;

/// How long the runner rests after a failure of the disk or the log before it tries again.
const REST: Duration = Duration::from_millis(500);

/// What the runner is asked to do beside following the log.
pub(crate) enum Message {
    /// Build a new file beside the one in use, then swap.
    Rebuild,
    /// A new file is built: take over.
    Built(Result<PathBuf, Error>),
    /// Let go of the file.
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
        let mut file = loop {
            match self.first_file() {
                Ok(file) => break file,
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
            if let Err(error) = self.catch_up(&mut file, rebuilding) {
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
                let behind = *head.borrow_and_update() > file.position();
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
                    self.build_beside();
                }
                Some(Message::Built(built)) => {
                    rebuilding = false;
                    match built.and_then(|path| self.take_over(&path, &file)) {
                        Ok(newer) => file = newer,
                        Err(error) => {
                            tracing::error!(
                                error = crate::error::chain(&error),
                                "rebuild failed; the old file serves on"
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

    /// Opens the newest file of these versions, or builds one; removes those of other versions.
    fn first_file(&mut self) -> Result<File, Error> {
        let wanted = File::name(&self.models);
        let mut generations = Vec::new();
        let mut others = Vec::new();
        for entry in std::fs::read_dir(&self.folder)? {
            let path = entry?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if !name.starts_with("views-") {
                continue;
            }
            match generation(&name, &wanted) {
                Some(generation) => generations.push((generation, path)),
                None => others.push(path),
            }
        }
        generations.sort();
        let newest = generations.pop();
        let path = match newest {
            Some((_, path)) => path,
            None => {
                let path = self.folder.join(generation_name(&wanted, 1));
                self.fill(&path, |position, rate| {
                    self.shared.publish_filling(position, rate);
                })?;
                path
            }
        };
        for (_, older) in generations {
            file::remove(&older)?;
        }
        for other in others {
            // What SQLite keeps beside the file in use is the file's own.
            let beside = other.to_string_lossy().starts_with(path.to_string_lossy().as_ref());
            if !beside {
                std::fs::remove_file(&other).or_else(ignore_missing)?;
            }
        }
        self.serve(&path)
    }

    /// Opens a finished file for serving and lets readers in.
    fn serve(&self, path: &std::path::Path) -> Result<File, Error> {
        let file = File::open(path, &self.models, Mode::Serving)?;
        self.shared.pool.store(Some(Arc::new(Pool::new(path))));
        self.publish(&file, None, false);
        Ok(file)
    }

    /// Takes in what the log has and the file has not.
    fn catch_up(&self, file: &mut File, rebuilding: bool) -> Result<(), Error> {
        let started = Instant::now();
        let mut taken = 0;
        let mut next = self.runtime.block_on(self.log.read_after(file.position(), BATCH))?;
        while let Some(last) = next.last() {
            let after = last.position;
            let is_full = next.len() == BATCH;
            let ahead = is_full.then(|| self.read_ahead(after));
            file.apply(&next)?;
            taken += next.len();
            let rate = taken as f64 / started.elapsed().as_secs_f64().max(1e-6);
            self.publish(file, Some(rate), rebuilding);
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

    fn publish(&self, file: &File, rate: Option<f64>, rebuilding: bool) {
        let head = *self.log.watch().borrow();
        let mut statuses = self.shared.statuses.lock();
        for (status, standing) in statuses.iter_mut().zip(&file.standings) {
            status.position = standing.position.0;
            status.lag = head.0.saturating_sub(standing.position.0);
            status.stopped = standing.stopped.clone();
            status.state = match (&standing.stopped, rebuilding) {
                (Some(_), _) => State::Stopped,
                (None, true) => State::Rebuilding,
                (None, false) => State::Running,
            };
            if let Some(rate) = rate {
                status.rate = rate;
            }
            metrics::gauge!("prodgy_projection_lag", "projection" => status.name.clone())
                .set(status.lag as f64);
        }
        drop(statuses);
        self.shared.applied.send_replace(file.position());
    }

    /// Fills a new file from the first event on, up to the head, and gives it its name when it is
    /// whole.
    fn fill(&self, path: &std::path::Path, report: impl Fn(Position, f64)) -> Result<(), Error> {
        let unfinished = path.with_extension("filling");
        file::remove(&unfinished)?;
        let mut file = File::open(&unfinished, &self.models, Mode::Filling)?;
        let put_off = file.put_off_indexes()?;
        let started = Instant::now();
        let mut taken = 0;
        let mut next = self.runtime.block_on(self.log.read_after(Position::START, BATCH))?;
        while let Some(last) = next.last() {
            let ahead = self.read_ahead(last.position);
            file.apply(&next)?;
            taken += next.len();
            report(file.position(), taken as f64 / started.elapsed().as_secs_f64().max(1e-6));
            next = self.runtime.block_on(ahead).map_err(|_| eventlog::Error::Closed)??;
        }
        file.make_indexes(&put_off)?;
        drop(file);
        std::fs::File::open(&unfinished)?.sync_all()?;
        std::fs::rename(&unfinished, path)?;
        std::fs::File::open(&self.folder)?.sync_all()?;
        Ok(())
    }

    /// Builds a new generation on a thread of its own, while this one goes on serving.
    fn build_beside(&self) {
        let wanted = File::name(&self.models);
        let current = self.shared.pool.load().as_ref().map(|pool| pool.path().to_owned());
        let current =
            current.and_then(|path| generation(&path.file_name()?.to_string_lossy(), &wanted));
        let path = self.folder.join(generation_name(&wanted, current.unwrap_or(0) + 1));
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
            let built = builder.fill(&path, |position, _| {
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
    fn take_over(&self, path: &std::path::Path, old: &File) -> Result<File, Error> {
        let mut newer = File::open(path, &self.models, Mode::Serving)?;
        while newer.position() < old.position() {
            let events = self.runtime.block_on(self.log.read_after(newer.position(), BATCH))?;
            if events.is_empty() {
                break;
            }
            newer.apply(&events)?;
        }
        let old_path = self.shared.pool.load().as_ref().map(|pool| pool.path().to_owned());
        self.shared.pool.store(Some(Arc::new(Pool::new(path))));
        self.shared.each_status(|status| status.rebuild_percent = None);
        self.shared.rebuilt.send_modify(|count| *count += 1);
        self.publish(&newer, None, false);
        if let Some(old_path) = old_path {
            file::remove(&old_path)?;
        }
        tracing::info!(file = %path.display(), position = newer.position().0, "read models rebuilt and swapped");
        Ok(newer)
    }
}

impl Shared {
    fn each_status(&self, change: impl Fn(&mut Status)) {
        self.statuses.lock().iter_mut().for_each(change);
    }

    fn publish_filling(&self, position: Position, rate: f64) {
        self.each_status(|status| {
            status.position = position.0;
            status.rate = rate;
            status.state = State::CatchingUp;
        });
    }
}

fn generation_name(wanted: &str, generation: u64) -> String {
    format!("{}-{generation}.db", wanted.trim_end_matches(".db"))
}

fn generation(name: &str, wanted: &str) -> Option<u64> {
    name.strip_prefix(wanted.trim_end_matches(".db"))?
        .strip_prefix('-')?
        .strip_suffix(".db")?
        .parse()
        .ok()
}

fn ignore_missing(error: std::io::Error) -> std::io::Result<()> {
    if error.kind() == std::io::ErrorKind::NotFound { Ok(()) } else { Err(error) }
}
