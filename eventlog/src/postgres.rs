//! The log in a PostgreSQL database: any number of nodes that append, each in groups, and any
//! number of readers.
//!
//! The rule of this file: positions are 1, 2, 3, … without gaps over all nodes, and an event is
//! seen by nobody before it is durable.
//!
//! # Layout
//! - `server` is how the database is reached, `failure` what it means when it is not.
//! - `schema` migrates it.
//! - `committer` is the task that writes; `plan` decides what becomes of each command.
//! - `reader` holds the questions.
//! - `follower` hears of what other nodes commit.
//! - `workers` says who lives, beside the log.
//! - `importer` fills it with another log's events.

mod committer;
mod failure;
mod follower;
mod importer;
mod plan;
mod reader;
mod schema;
mod server;
mod workers;

use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::time::Duration;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use parking_lot::{Mutex, RwLock};
use tokio::sync::{mpsc, watch};
use tokio::task::{JoinHandle, JoinSet};
use uuid::Uuid;

use self::committer::Committer;
pub(crate) use self::importer::PostgresImporter;
use self::reader::Reader;
use self::server::Server;
use self::workers::Workers;
use crate::group::Request;
use crate::tail::Tail;
use crate::{
    Append, AppendError, Appended, Capabilities, Error, EventStore, Position, Pulse, RecordedEvent,
    StreamId,
};

/// The longest name of a stream, in bytes: what an index takes.
const STREAM_BYTES: usize = 1_000;

/// How a [`PostgresStore`] is opened. Encryption is a matter of the address (`sslmode`,
/// `sslrootcert`).
#[derive(Clone, Debug)]
pub struct PostgresOptions {
    /// Opens for reading: every append is refused, and nothing is migrated.
    pub read_only: bool,
    /// Appends that may wait for the committer; beyond it, callers wait to be let in.
    pub queue: usize,
    /// Connections that read, at most. One more appends, one listens, and one says that the node lives.
    pub connections: usize,
    /// How long making a connection, or waiting for a free one, may take.
    pub connect_timeout: Duration,
    /// How long a statement may take, waiting for the nodes before it included.
    pub statement_timeout: Duration,
    /// How often the log is looked at without being told.
    pub poll: Duration,
    /// How long to look for the server after it went away in the middle of a commit, before the
    /// callers are told that the outcome is not known.
    pub outcome_timeout: Duration,
}

impl Default for PostgresOptions {
    fn default() -> Self {
        PostgresOptions {
            read_only: false,
            queue: 1024,
            connections: 8,
            connect_timeout: Duration::from_secs(5),
            statement_timeout: Duration::from_secs(30),
            poll: Duration::from_millis(500),
            outcome_timeout: Duration::from_secs(10),
        }
    }
}

/// The log in a PostgreSQL database.
pub struct PostgresStore {
    shared: Arc<Shared>,
    /// `None` once closed, and in a log that is only read.
    queue: RwLock<Option<mpsc::Sender<Request>>>,
    is_read_only: bool,
    /// Taken by whoever waits for its end.
    committer: tokio::sync::Mutex<Option<JoinHandle<()>>>,
    follower: Mutex<JoinSet<()>>,
    workers: Workers,
}

/// What committer and follower show to those who read.
struct Shared {
    reader: Reader,
    /// The server's process that this node appends through; 0 where there is none. What it commits,
    /// the committer shows itself: the news of that are none.
    appender: AtomicU32,
    tail: RwLock<Tail>,
    head: watch::Sender<Position>,
}

impl Shared {
    /// Shows what was committed: first the events, then the news of them.
    fn publish(&self, events: Vec<Arc<RecordedEvent>>) {
        let mut tail = self.tail.write();
        tail.extend(events);
        let end = tail.end();
        self.head.send_if_modified(|head| std::mem::replace(head, end.max(*head)) < end);
    }

    /// Up to where this node has seen the log.
    fn end(&self) -> Position {
        self.tail.read().end()
    }
}

impl PostgresStore {
    /// Opens the log at an address as `postgres://user:password@host:5432/database`; makes its
    /// tables where there are none.
    ///
    /// # Errors
    /// One that says which of address, password, database, rights and version does not fit.
    pub async fn open(url: &str, options: PostgresOptions) -> Result<PostgresStore, Error> {
        let server = Arc::new(Server::new(url, options)?);
        schema::prepare(&server).await?;
        let reader = Reader::new(server.clone());
        let head = reader.head().await?;
        let shared = Arc::new(Shared {
            reader,
            appender: AtomicU32::new(0),
            tail: RwLock::new(Tail::new(head)),
            head: watch::Sender::new(head),
        });
        let is_read_only = server.options.read_only;
        let (queue, committer) = if is_read_only {
            (None, None)
        } else {
            let (sender, queue) = mpsc::channel(server.options.queue);
            let committer = Committer::new(server.clone(), shared.clone());
            (Some(sender), Some(tokio::spawn(committer.run(queue))))
        };
        let follower = follower::start(&server, &shared);
        Ok(PostgresStore {
            shared,
            queue: RwLock::new(queue),
            is_read_only,
            committer: tokio::sync::Mutex::new(committer),
            follower: Mutex::new(follower),
            workers: Workers::new(server),
        })
    }

    /// Reads an address without asking anybody.
    ///
    /// # Errors
    /// [`Error::Address`] when it is none.
    pub fn check_address(url: &str) -> Result<(), Error> {
        Server::new(url, PostgresOptions::default()).map(drop)
    }
}

#[async_trait]
impl EventStore for PostgresStore {
    async fn append(&self, append: Append) -> Result<Appended, AppendError> {
        refuse_what_no_row_can_hold(&append)?;
        let (request, answer) = Request::new(append)?;
        let queue = self.queue.read().clone();
        let why_not = if self.is_read_only { Error::ReadOnly } else { Error::Closed };
        let queue = queue.ok_or(why_not)?;
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
        let events = self.shared.reader.of_command(command_id).await?;
        Ok((!events.is_empty()).then_some(Appended { events, replayed: true }))
    }

    async fn read_stream(
        &self,
        stream: &StreamId,
        after: u64,
        limit: usize,
    ) -> Result<Vec<Arc<RecordedEvent>>, Error> {
        self.shared.reader.of_stream(stream, after, limit).await
    }

    async fn read_after(
        &self,
        after: Position,
        limit: usize,
    ) -> Result<Vec<Arc<RecordedEvent>>, Error> {
        let newest = self.shared.tail.read().after(after, limit);
        match newest {
            Some(events) => Ok(events),
            None => self.shared.reader.after(after, limit).await,
        }
    }

    async fn head(&self) -> Result<Position, Error> {
        self.shared.reader.head().await
    }

    fn watch(&self) -> watch::Receiver<Position> {
        self.shared.head.subscribe()
    }

    async fn position_at(&self, time: DateTime<Utc>) -> Result<Position, Error> {
        self.shared.reader.position_at(time).await
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities { dense_positions: true, log_wide_command_ids: true, exclusive: false }
    }

    async fn beat(&self, worker: Uuid) -> Result<Option<Vec<Pulse>>, Error> {
        if self.is_read_only {
            return Ok(None);
        }
        self.workers.beat(worker).await.map(Some)
    }

    async fn leave(&self, worker: Uuid) -> Result<(), Error> {
        self.workers.leave(worker).await
    }

    async fn close(&self) {
        self.queue.write().take();
        // The lock is kept while waiting, so that a second `close` waits too.
        let mut committer = self.committer.lock().await;
        if let Some(task) = committer.take()
            && task.await.is_err()
        {
            tracing::error!("the event log's committer had panicked");
        }
        self.follower.lock().abort_all();
        self.shared.reader.close().await;
    }
}

/// One command that the database cannot store would fail its whole group: it is refused before.
fn refuse_what_no_row_can_hold(append: &Append) -> Result<(), AppendError> {
    let stream = append.stream.as_str();
    let types = append.events.iter().map(|event| event.event_type.as_str());
    if types.chain([stream]).any(|name| name.contains('\0')) {
        return Err(AppendError::Malformed("a name holds a NUL character"));
    }
    if stream.len() > STREAM_BYTES {
        return Err(AppendError::Malformed("the stream's name is longer than 1,000 bytes"));
    }
    if !stream.contains('-') {
        return Err(AppendError::Malformed("the stream's name is no category and id with a dash"));
    }
    Ok(())
}
