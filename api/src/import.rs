//! `prodgy import`: a log, and what it names, out of the file of an export.
//!
//! The rule of this file: the file is read to its end and found whole before anything is written;
//! then what events name is stored before them; and nobody works on the instance until it is whole.

use std::collections::{HashMap, VecDeque};
use std::io::Read;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, bail};
use bytes::Bytes;
use eventlog::{EventStore, Importer, Position, RecordedEvent};
use futures::{TryStreamExt, stream};
use tokio::runtime::Handle;
use tokio::task::block_in_place;
use vault::{MASTER_CHECK, Vault};

use crate::archive::{Archive, EventTally, Events, Visitor, read};
use crate::config::Config;
use crate::export::in_words;
use crate::progress::Shown;
use crate::serve::{DataDir, master_key, open_log, open_vault_as_it_is};

/// How many events one transaction stores, and one read of the log brings.
const PAGE: usize = 1_000;
/// How much of an object is handed on at once.
const CHUNK: usize = 512 * 1024;
/// A key is a small file.
const LONGEST_KEY: u64 = 64 * 1024;
/// What to do where it is not the file's.
const OTHERS: &str = "there is something else already: import into an empty event store, and an empty \
     data directory or bucket";

/// Fills an empty log and an empty vault from a file. What was cut off goes on where it was.
///
/// # Errors
/// The file is not whole, the master key is another one, or something else is there already.
pub async fn import(config: &Config, file: &Path, dry_run: bool) -> anyhow::Result<String> {
    let mut checked =
        Checking { progress: Progress::of(file, "checking the file")?, keys: HashMap::new() };
    let archive = checked.run(file)?;
    let what = in_words(&archive.summary);
    let check = checked.keys.get(MASTER_CHECK).context("the file holds no keys: export it anew")?;
    let master = master_key(config)?.with_context(|| {
        format!(
            "what is in {} is sealed with the master key of the instance that it comes from: pass that \
             in PRODGY_MASTER_KEY, or put its master.key into {}",
            file.display(),
            config.data_dir.display()
        )
    })?;
    master.check(check)?;
    if dry_run {
        return Ok(format!("{} is whole: {what}. Nothing was imported.", file.display()));
    }

    let _lock = DataDir::new(&config.data_dir).lock()?;
    let importer = eventlog::open_importer(config.event_store.expose()).await?;
    let vault = open_vault_as_it_is(config).await?;
    if importer.head() > archive.header.head {
        bail!(OTHERS);
    }
    if importer.head() > Position::START {
        let log = open_log(config, true).await?;
        let progress = Progress::of(file, "comparing events")?;
        let (end, page) = (importer.head(), VecDeque::new());
        Comparing { log: log.as_ref(), at: Position::START, end, page, progress }.run(file)?;
        log.close().await;
    }
    let present = present(&vault, &checked.keys).await?;
    vault.begin_import(&file.display().to_string()).await?;

    let progress = Progress::of(file, "storing files")?;
    Storing { vault: &vault, present, progress }.run(file)?;
    let progress = Progress::of(file, "storing events")?;
    let mut writing = Writing { importer, batch: Vec::with_capacity(PAGE), progress };
    writing.run(file)?;
    writing.flush().await?;

    // Opened now: a log that was open before has not heard yet of all that came.
    let log = open_log(config, true).await?;
    let stored = sum(log.as_ref(), archive.header.head).await?;
    if stored != archive.summary.events {
        bail!("the log holds other events than the file. {OTHERS}");
    }
    log.close().await;
    vault.end_import().await?;
    Ok(format!("imported, and compared with what was stored: {what}"))
}

/// What the vault holds already, by name. Keys of another instance are refused.
async fn present(
    vault: &Vault,
    keys: &HashMap<String, Bytes>,
) -> anyhow::Result<HashMap<String, u64>> {
    let stored: Vec<_> = vault.stored_keys().try_collect().await?;
    if stored.iter().any(|key| !keys.contains_key(&key.name)) {
        bail!(OTHERS);
    }
    let files = vault.stored().map_ok(|object| (object.name, object.size));
    Ok(files.try_collect().await?)
}

/// The log's events, read back, in one number.
async fn sum(log: &dyn EventStore, head: Position) -> anyhow::Result<Events> {
    let mut shown = Shown::counting()?;
    let mut tally = EventTally::default();
    loop {
        let page = log.read_after(tally.last(), PAGE).await?;
        if page.is_empty() {
            shown.end();
            return Ok(tally.sum());
        }
        for event in page {
            tally.add(&event, &event.to_canonical())?;
        }
        shown.show("reading back", tally.last().0, Some(head.0));
    }
}

/// A pass over the file.
trait Pass: Visitor + Sized {
    fn run(&mut self, file: &Path) -> anyhow::Result<Archive> {
        block_in_place(|| read(file, self))
    }
}

impl<V: Visitor> Pass for V {}

/// Waits for something asynchronous in the middle of a pass.
fn wait<T>(work: impl Future<Output = T>) -> T {
    Handle::current().block_on(work)
}

/// How far a pass is.
struct Progress {
    shown: Shown,
    what: &'static str,
    length: u64,
}

impl Progress {
    fn of(file: &Path, what: &'static str) -> anyhow::Result<Progress> {
        let found = std::fs::metadata(file);
        let found = found.with_context(|| format!("{} cannot be read", file.display()))?;
        Ok(Progress { shown: Shown::in_bytes()?, what, length: found.len() })
    }

    fn at(&mut self, bytes: u64) {
        self.shown.show(self.what, bytes, Some(self.length));
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.shown.end();
    }
}

/// Looks whether the file is whole, and keeps its keys.
struct Checking {
    keys: HashMap<String, Bytes>,
    progress: Progress,
}

impl Visitor for Checking {
    fn object(&mut self, name: &str, size: u64, body: &mut dyn Read) -> anyhow::Result<()> {
        if name.starts_with("keys/") {
            if size > LONGEST_KEY {
                bail!("{size} bytes are no key");
            }
            let mut key = Vec::new();
            body.read_to_end(&mut key)?;
            self.keys.insert(name.to_owned(), key.into());
        }
        Ok(())
    }

    fn progress(&mut self, bytes: u64) {
        self.progress.at(bytes);
    }
}

/// Looks whether the log holds the first events of the file, and nothing else.
struct Comparing<'a> {
    log: &'a dyn EventStore,
    at: Position,
    end: Position,
    page: VecDeque<Arc<RecordedEvent>>,
    progress: Progress,
}

impl Visitor for Comparing<'_> {
    fn event(&mut self, event: RecordedEvent) -> anyhow::Result<()> {
        if self.at >= self.end {
            return Ok(());
        }
        if self.page.is_empty() {
            self.page = wait(self.log.read_after(self.at, PAGE))?.into();
        }
        let stored = self.page.pop_front();
        if stored.is_none_or(|stored| stored.to_canonical() != event.to_canonical()) {
            bail!(OTHERS);
        }
        self.at = event.position;
        Ok(())
    }

    fn progress(&mut self, bytes: u64) {
        self.progress.at(bytes);
    }
}

/// Stores keys, blobs and artifacts.
struct Storing<'a> {
    vault: &'a Vault,
    present: HashMap<String, u64>,
    progress: Progress,
}

impl Visitor for Storing<'_> {
    fn object(&mut self, name: &str, size: u64, body: &mut dyn Read) -> anyhow::Result<()> {
        // Every vault makes its own, with the same master key.
        if name == MASTER_CHECK || self.present.get(name) == Some(&size) {
            return Ok(());
        }
        if name.starts_with("keys/") {
            let mut key = Vec::new();
            body.read_to_end(&mut key)?;
            return Ok(wait(self.vault.put_stored_key(name, key.into()))?);
        }
        let chunks =
            std::iter::from_fn(|| next_chunk(body).map_err(anyhow::Error::from).transpose());
        wait(self.vault.put_stored(name, stream::iter(chunks)))
    }

    fn progress(&mut self, bytes: u64) {
        self.progress.at(bytes);
    }
}

fn next_chunk(body: &mut dyn Read) -> std::io::Result<Option<Bytes>> {
    let mut chunk = Vec::with_capacity(CHUNK);
    body.take(CHUNK as u64).read_to_end(&mut chunk)?;
    Ok((!chunk.is_empty()).then(|| chunk.into()))
}

/// Stores the events that are not there yet.
struct Writing {
    importer: Importer,
    batch: Vec<RecordedEvent>,
    progress: Progress,
}

impl Writing {
    async fn flush(&mut self) -> anyhow::Result<()> {
        self.importer.write(&self.batch).await?;
        self.batch.clear();
        Ok(())
    }
}

impl Visitor for Writing {
    fn event(&mut self, event: RecordedEvent) -> anyhow::Result<()> {
        if event.position > self.importer.head() {
            self.batch.push(event);
        }
        if self.batch.len() >= PAGE { wait(self.flush()) } else { Ok(()) }
    }

    fn progress(&mut self, bytes: u64) {
        self.progress.at(bytes);
    }
}
