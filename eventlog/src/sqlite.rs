//! The log in one SQLite file: a single writer that commits in groups, and any number of readers.
//!
//! The rule of this file: positions are 1, 2, 3, … without gaps, and an event is seen by nobody
//! before it is durable.
//!
//! # Layout
//! - `checkpointer` copies what was committed into the file.
//! - `committer` is the thread that writes.
//! - `importer` fills it with another log's events.
//! - `reader` holds the questions and the connections that ask them.
//! - `schema` opens the file and migrates it.

mod checkpointer;
mod committer;
mod importer;
mod reader;
mod schema;

use std::path::Path;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use parking_lot::{Mutex, RwLock};
use rusqlite::Connection;
use tokio::sync::{mpsc, watch};
use uuid::Uuid;

pub use self::checkpointer::Checkpointer;
use self::committer::Committer;
pub(crate) use self::importer::SqliteImporter;
use self::reader::Readers;
use crate::group::Request;
use crate::tail::Tail;
use crate::{
    Append, AppendError, Appended, Capabilities, Error, EventStore, Position, RecordedEvent,
    StreamId, folder,
};

/// Rows up to which a stream is read on the caller's thread.
///
/// A row takes about two microseconds: handing the question to another thread and back takes
/// longer than reading this many. Everything that may be longer goes to the blocking pool.
const INLINE_ROWS: usize = 64;

/// How often a log that another process writes is looked at.
const FOLLOW_EVERY: Duration = Duration::from_millis(100);

/// How a [`SqliteStore`] is opened.
#[derive(Clone, Debug)]
pub struct SqliteOptions {
    /// Opens beside a running server: no lock is taken and every append is refused.
    pub read_only: bool,
    /// Appends that may wait for the committer; beyond it, callers wait to be let in.
    pub queue: usize,
    /// How long to wait for another SQLite process (a shell, a backup) that locks the file.
    pub busy_timeout: Duration,
    /// Syncs before a command is acknowledged. Without it a power cut loses acknowledged commands:
    /// it can be turned off only so that the power-cut test can show that it would notice.
    pub sync_every_commit: bool,
}

impl Default for SqliteOptions {
    fn default() -> Self {
        SqliteOptions {
            read_only: false,
            queue: 1024,
            busy_timeout: Duration::from_secs(5),
            sync_every_commit: true,
        }
    }
}

/// The log in one SQLite file.
pub struct SqliteStore {
    shared: Arc<Shared>,
    /// `None` once closed, and in a log that is only read.
    queue: RwLock<Option<mpsc::Sender<Request>>>,
    /// Taken by whoever waits for its end; `None` also in a log that is only read.
    committer: Arc<Mutex<Option<JoinHandle<()>>>>,
}

/// What the committer shows to those who read.
struct Shared {
    readers: Readers,
    /// `None` in a log that another process writes.
    tail: Option<RwLock<Tail>>,
    head: watch::Sender<Position>,
}

impl Shared {
    /// Shows what was committed: first the events, then the news of them.
    fn publish(&self, events: Vec<Arc<RecordedEvent>>) {
        let Some(newest) = events.last().map(|event| event.position) else { return };
        if let Some(tail) = &self.tail {
            tail.write().extend(events);
        }
        self.head.send_replace(newest);
    }
}

impl SqliteStore {
    /// Opens the log at `path`; makes it, and its folder, where there is none.
    ///
    /// # Errors
    /// [`Error::Locked`] when another process has it open for writing, [`Error::Newer`] when a
    /// newer version wrote it, [`Error::Missing`] when it is to be read only and is not there.
    pub fn open(path: &Path, options: SqliteOptions) -> Result<SqliteStore, Error> {
        if options.read_only {
            Self::open_reader(path, options)
        } else {
            Self::open_writer(path, options)
        }
    }

    fn open_writer(path: &Path, options: SqliteOptions) -> Result<SqliteStore, Error> {
        folder::make_folder(folder::parent(path))?;
        let lock = schema::lock(path)?;
        let connection = schema::open_writer(path, &options)?;
        let head = reader::head(&connection)?.position;
        let (sender, queue) = mpsc::channel(options.queue);
        let shared = Arc::new(Shared {
            readers: Readers::new(path.to_owned(), options),
            tail: Some(RwLock::new(Tail::new(head))),
            head: watch::Sender::new(head),
        });
        let checkpointer = Checkpointer::start(path, "eventlog")?;
        let committer = Committer::new(connection, shared.clone(), checkpointer, lock);
        let thread =
            thread::Builder::new().name("eventlog".into()).spawn(move || committer.run(queue))?;
        Ok(SqliteStore {
            shared,
            queue: RwLock::new(Some(sender)),
            committer: Arc::new(Mutex::new(Some(thread))),
        })
    }

    fn open_reader(path: &Path, options: SqliteOptions) -> Result<SqliteStore, Error> {
        let readers = Readers::new(path.to_owned(), options);
        let head = readers.ask(reader::head)?.position;
        let shared = Arc::new(Shared { readers, tail: None, head: watch::Sender::new(head) });
        let followed = Arc::downgrade(&shared);
        // SQLite tells nobody of another process's commits, so here, and only here, is polling.
        thread::Builder::new().name("eventlog-follow".into()).spawn(move || {
            while let Some(shared) = followed.upgrade() {
                if let Ok(newest) = shared.readers.ask(reader::head) {
                    let newest = newest.position;
                    shared.head.send_if_modified(|head| std::mem::replace(head, newest) != newest);
                }
                drop(shared);
                thread::park_timeout(FOLLOW_EVERY);
            }
        })?;
        Ok(SqliteStore { shared, queue: RwLock::new(None), committer: Arc::default() })
    }

    fn why_no_append(&self) -> Error {
        if self.shared.tail.is_none() { Error::ReadOnly } else { Error::Closed }
    }

    /// Asks something that may take a while, away from the threads that serve requests.
    async fn ask_aside<T: Send + 'static>(
        &self,
        question: impl FnOnce(&Connection) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let shared = self.shared.clone();
        tokio::task::spawn_blocking(move || shared.readers.ask(question))
            .await
            .unwrap_or(Err(Error::Closed))
    }
}

#[async_trait]
impl EventStore for SqliteStore {
    async fn append(&self, append: Append) -> Result<Appended, AppendError> {
        let (request, answer) = Request::new(append)?;
        let queue = self.queue.read().clone().ok_or_else(|| self.why_no_append())?;
        queue.send(request).await.map_err(|_| Error::Closed)?;
        // Dropped now, not after the answer: `close` waits for the last of these.
        drop(queue);
        answer.await.map_err(|_| Error::Closed)?
    }

    async fn find_command(
        &self,
        _: &StreamId,
        command_id: Uuid,
    ) -> Result<Option<Appended>, Error> {
        // Inline: one look-up in an index, some microseconds.
        let events =
            self.shared.readers.ask(|connection| reader::of_command(connection, command_id))?;
        Ok((!events.is_empty()).then_some(Appended { events, replayed: true }))
    }

    async fn read_stream(
        &self,
        stream: &StreamId,
        after: u64,
        limit: usize,
    ) -> Result<Vec<Arc<RecordedEvent>>, Error> {
        // Streams are short: nearly always the first rows are all there is.
        let first = limit.min(INLINE_ROWS);
        let mut events = self
            .shared
            .readers
            .ask(|connection| reader::of_stream(connection, stream, after, first))?;
        if let Some(last) = events.last()
            && events.len() == first
            && first < limit
        {
            let (stream, after) = (stream.clone(), last.sequence);
            let rest = move |connection: &Connection| {
                reader::of_stream(connection, &stream, after, limit - first)
            };
            events.extend(self.ask_aside(rest).await?);
        }
        Ok(events)
    }

    async fn read_after(
        &self,
        after: Position,
        limit: usize,
    ) -> Result<Vec<Arc<RecordedEvent>>, Error> {
        let newest = self.shared.tail.as_ref().and_then(|tail| tail.read().after(after, limit));
        match newest {
            Some(events) => Ok(events),
            None => self.ask_aside(move |connection| reader::after(connection, after, limit)).await,
        }
    }

    async fn head(&self) -> Result<Position, Error> {
        if self.shared.tail.is_some() {
            return Ok(*self.shared.head.borrow());
        }
        // Another process writes: what the follower saw last may be old. Inline: one row.
        self.shared.readers.ask(|connection| Ok(reader::head(connection)?.position))
    }

    fn watch(&self) -> watch::Receiver<Position> {
        self.shared.head.subscribe()
    }

    async fn position_at(&self, time: DateTime<Utc>) -> Result<Position, Error> {
        self.ask_aside(move |connection| reader::position_at(connection, time)).await
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities { dense_positions: true, log_wide_command_ids: true, exclusive: true }
    }

    async fn close(&self) {
        self.queue.write().take();
        let committer = self.committer.clone();
        // The lock is kept while waiting, so that a second `close` waits too.
        let ended = tokio::task::spawn_blocking(move || join(&mut committer.lock())).await;
        debug_assert!(ended.is_ok(), "waiting for a thread does not panic");
        self.shared.readers.clear();
    }
}

impl Drop for SqliteStore {
    /// Waits for the commits that are under way, so that whoever opens the log next finds its lock
    /// free. After `close` there is nothing to wait for.
    fn drop(&mut self) {
        self.queue.write().take();
        join(&mut self.committer.lock());
    }
}

fn join(committer: &mut Option<JoinHandle<()>>) {
    if let Some(thread) = committer.take()
        && thread.join().is_err()
    {
        tracing::error!("the event log's committer had panicked");
    }
}
