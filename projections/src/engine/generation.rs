//! A generation: a folder with the files of all read models of some versions, filled together and
//! swapped in together.
//!
//! The rule of this file: a folder has its name only when it is whole; one that is being filled has
//! another.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::Duration;

use eventlog::{EventStore, Position, RecordedEvent};
use rusqlite::{Connection, OpenFlags};
use sha2::{Digest, Sha256};
use tokio::runtime::Handle;

use super::BATCH;
use super::file::{File, Mode, Models, Standing, Unfilled, reached};
use super::model::MAIN;
use crate::Error;

/// Batches that wait for one file while another is still busy with those before.
const AHEAD: usize = 8;

/// How often what a filling writes is brought to the disk.
const SYNC_EVERY: Duration = Duration::from_millis(500);

/// The writing side of a generation.
pub(crate) struct Generation {
    pub(crate) folder: PathBuf,
    files: Vec<File>,
}

/// What a folder of read models holds.
#[derive(Default)]
pub(crate) struct Found {
    /// The generations of the models that were asked for, by number, the newest last.
    pub(crate) own: Vec<(u64, PathBuf)>,
    /// Everything of other versions, and what was never finished.
    pub(crate) others: Vec<PathBuf>,
}

/// The files that the models are in, the main one first, and which models are in each.
pub(crate) fn files(models: &Models) -> Vec<(&'static str, Vec<usize>)> {
    let mut files = vec![(MAIN, vec![])];
    for (index, model) in models.iter().enumerate() {
        match files.iter_mut().find(|(name, _)| *name == model.file()) {
            Some((_, own)) => own.push(index),
            None => files.push((model.file(), vec![index])),
        }
    }
    files
}

/// Where the file of that name is in a generation.
pub(crate) fn path_of(folder: &Path, file: &str) -> PathBuf {
    folder.join(format!("{file}.db"))
}

/// A connection that reads all files of a generation as one.
pub(crate) fn open_reader(folder: &Path, models: &Models) -> Result<Connection, Error> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut files = files(models).into_iter();
    let main = files.next().map_or(MAIN, |(name, _)| name);
    let connection = Connection::open_with_flags(path_of(folder, main), flags)?;
    for (name, _) in files {
        let path = path_of(folder, name);
        connection.execute(&format!("ATTACH ?1 AS \"{name}\""), [path.to_string_lossy()])?;
    }
    Ok(connection)
}

impl Generation {
    /// What the name of every generation of just these versions of just these models begins with.
    pub(crate) fn prefix(models: &Models) -> String {
        let mut hash = Sha256::new();
        for model in models.iter() {
            let (name, version, schema) = (model.name(), model.version(), model.schema());
            hash.update(format!("{name} {version} {}\n{schema}\n", model.file()));
        }
        format!("views-{}-", hex::encode(&hash.finalize()[..8]))
    }

    /// Looks for the generations of these models, and for everything of any others.
    pub(crate) fn find(folder: &Path, models: &Models) -> Result<Found, Error> {
        let prefix = Generation::prefix(models);
        let Found { mut own, mut others } = Found::default();
        for entry in std::fs::read_dir(folder)? {
            let path = entry?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            match name.strip_prefix(&prefix).and_then(|number| number.parse().ok()) {
                Some(number) => own.push((number, path)),
                None if name.starts_with("views-") => others.push(path),
                None => {}
            }
        }
        own.sort();
        Ok(Found { own, others })
    }

    /// Opens a generation that is whole.
    pub(crate) fn open(folder: &Path, models: &Models) -> Result<Generation, Error> {
        let open = |(name, own)| File::open(&path_of(folder, name), models, own, Mode::Serving);
        let files = files(models).into_iter().map(open).collect::<Result<_, _>>()?;
        Ok(Generation { folder: folder.to_owned(), files })
    }

    /// Where each model stands, in the order of the models.
    pub(crate) fn standings(&self) -> Vec<Standing> {
        let mut standings: Vec<Standing> =
            self.files.iter().flat_map(|file| file.standings.clone()).collect();
        standings.sort_by_key(|standing| standing.model);
        standings
    }

    /// The position that every model which is not stopped has taken in.
    pub(crate) fn position(&self) -> Position {
        reached(&self.standings())
    }

    /// The position that every model in the main file which is not stopped has taken in.
    pub(crate) fn main_position(&self) -> Position {
        self.files.first().map_or(Position::START, File::position)
    }

    /// Lets the main file take a batch in, which follows on what was taken in before.
    pub(crate) fn apply_main(&mut self, events: &[Arc<RecordedEvent>]) -> Result<(), Error> {
        self.files.iter_mut().take(1).try_for_each(|file| file.apply(events))
    }

    /// Lets the other files take a batch in. One that is ahead of another passes over what it has.
    pub(crate) fn apply_others(&mut self, events: &[Arc<RecordedEvent>]) -> Result<(), Error> {
        self.files.iter_mut().skip(1).try_for_each(|file| file.apply(events))
    }

    /// Fills a new generation from the first event on, up to the head, and gives it its name when it
    /// is whole.
    pub(crate) fn fill(
        folder: &Path,
        models: &Models,
        log: &dyn EventStore,
        runtime: &Handle,
        report: impl Fn(Position),
    ) -> Result<(), Error> {
        let unfinished = folder.with_extension("filling");
        let mut poisoned: Vec<Standing> = Vec::new();
        loop {
            remove(&unfinished)?;
            std::fs::create_dir_all(&unfinished)?;
            match fill_files(&unfinished, models, log, runtime, &poisoned, &report) {
                Ok(()) => break,
                Err(Unfilled::Poisoned(standing)) => poisoned.push(standing),
                Err(Unfilled::Failed(error)) => return Err(error),
            }
        }
        for (name, _) in files(models) {
            std::fs::File::open(path_of(&unfinished, name))?.sync_all()?;
        }
        std::fs::File::open(&unfinished)?.sync_all()?;
        std::fs::rename(&unfinished, folder)?;
        if let Some(parent) = folder.parent() {
            std::fs::File::open(parent)?.sync_all()?;
        }
        Ok(())
    }
}

type Batch = Arc<[Arc<RecordedEvent>]>;

/// Reads the log once, and gives every batch to a thread for each file.
fn fill_files(
    folder: &Path,
    models: &Models,
    log: &dyn EventStore,
    runtime: &Handle,
    poisoned: &[Standing],
    report: &impl Fn(Position),
) -> Result<(), Unfilled> {
    std::thread::scope(|scope| {
        let mut feeds: Vec<SyncSender<Batch>> = Vec::new();
        let mut threads = Vec::new();
        let (filled, ended) = sync_channel::<()>(0);
        let own: Vec<_> = files(models).iter().map(|(name, _)| path_of(folder, name)).collect();
        std::thread::Builder::new()
            .name("views-sync".to_owned())
            .spawn_scoped(scope, move || sync_until(&ended, &own))?;
        for (name, own) in files(models) {
            let file = File::open(&path_of(folder, name), models, own, Mode::Filling)?;
            let (feed, batches) = sync_channel::<Batch>(AHEAD);
            let thread = std::thread::Builder::new().name(format!("views-{name}"));
            threads.push(
                thread.spawn_scoped(scope, move || file.fill(batches.into_iter(), poisoned))?,
            );
            feeds.push(feed);
        }
        let outcome = feed_all(&feeds, log, runtime, report);
        drop(feeds);
        for thread in threads {
            thread.join().map_err(|_| std::io::Error::other("filling panicked"))??;
        }
        drop(filled);
        outcome
    })
}

/// Brings what is written to the disk now and then, so that little is left to wait for at the end. Whether
/// it succeeds is looked at there.
fn sync_until(ended: &Receiver<()>, files: &[PathBuf]) {
    while ended.recv_timeout(SYNC_EVERY) == Err(RecvTimeoutError::Timeout) {
        for file in files {
            let _ = std::fs::File::open(file).and_then(|file| file.sync_data());
        }
    }
}

fn feed_all(
    feeds: &[SyncSender<Batch>],
    log: &dyn EventStore,
    runtime: &Handle,
    report: &impl Fn(Position),
) -> Result<(), Unfilled> {
    let mut position = Position::START;
    loop {
        let batch: Batch = runtime.block_on(log.read_after(position, BATCH))?.into();
        let Some(last) = batch.last() else { return Ok(()) };
        position = last.position;
        for feed in feeds {
            if feed.send(batch.clone()).is_err() {
                // That thread has ended, and says why.
                return Ok(());
            }
        }
        report(position);
    }
}

/// Removes a generation, or what is left of one; also the single files of earlier builds.
pub(crate) fn remove(path: &Path) -> std::io::Result<()> {
    let removed = match path.is_dir() {
        true => std::fs::remove_dir_all(path),
        false => std::fs::remove_file(path),
    };
    match removed {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
