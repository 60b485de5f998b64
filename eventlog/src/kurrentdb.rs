//! The log on a KurrentDB (formerly EventStoreDB) server or cluster, by its maintained client.
//!
//! The rule of this file: the server alone decides. What this node remembers of the log only saves
//! questions; no answer depends on its being up to date.
//!
//! **Unproven.** This store is tested against a double that speaks the protocol
//! (`tests/kurrentdb/double`). A double proves this side's manners: what it sends, and what it does
//! when connections drop, leaders change and answers get lost. It proves nothing about durability,
//! nor about races inside a real server. Until `scripts/test-kurrentdb ADDRESS` has passed against
//! yours, take it as unproven. See `docs/decisions/0013`.
//!
//! # How it stores
//! - One stream on the server for each of ours, under the same name (behind `namespace.`, where the
//!   address asks for a namespace). [`Position`] is the commit position: a byte in the server's
//!   file, increasing and not dense.
//! - `record` lays an event out; the same canonical envelope can be put together from it again.
//! - Needs server 22.6 or newer (23.10, 24.10 and 25 are maintained): older ones do not tell
//!   positions in streams. Everything is asked of the leader. Streams must not be truncated or
//!   deleted, and the clock of the leader is the log's clock.
//!
//! # How fast
//! The server commits in groups, so that callers at once cost little; a caller alone pays one
//! journey for its append, and waits until the subscription brings its events back. The client does
//! not set `TCP_NODELAY`, which costs 40 milliseconds a request (about 20 sequential appends a
//! second); `nodelay` sets it on Linux. `benches/kurrentdb.rs` measures this side against the
//! double: the figures are in `docs/decisions/0013`.
//!
//! # Layout
//! - `address` reads the address, `connection` asks and asks again, `error` says what went wrong.
//! - `writer` appends, by what `streams` knows.
//! - `reader` asks; `calendar` finds times, and positions that are no event's.
//! - `follower` subscribes and fills `seen`; `ending` notices when a
//!   subscription is over.

mod address;
mod calendar;
mod connection;
mod ending;
mod error;
mod follower;
mod nodelay;
mod reader;
mod record;
mod seen;
mod streams;
mod writer;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use parking_lot::Mutex;
use tokio::sync::{RwLock, watch};
use tokio::task::JoinHandle;
use uuid::Uuid;

use self::address::Address;
use self::calendar::Calendar;
use self::connection::Connection;
pub use self::error::KurrentdbError;
use self::follower::Follower;
use self::reader::Reader;
use self::seen::Seen;
use self::streams::{Streams, Turns};
use self::writer::Writer;
use crate::{
    Append, AppendError, Appended, Capabilities, Error, EventStore, Position, RecordedEvent,
    StreamId,
};

/// How a [`KurrentdbStore`] is opened.
#[derive(Clone, Debug)]
pub struct KurrentdbOptions {
    /// How long a server that does not answer is waited for, by each request. A restart or a
    /// change of leaders that is shorter goes unnoticed.
    pub patience: Duration,
    /// Opens for reading: every append is refused.
    pub read_only: bool,
}

impl Default for KurrentdbOptions {
    fn default() -> Self {
        KurrentdbOptions { patience: Duration::from_secs(5), read_only: false }
    }
}

/// The log on a KurrentDB server or cluster.
pub struct KurrentdbStore {
    reader: Arc<Reader>,
    seen: Arc<Seen>,
    writer: Writer,
    calendar: Calendar,
    /// `None` once closed.
    follower: Mutex<Option<JoinHandle<()>>>,
    /// Held by each append while it is under way; `false` once closed, or when opened for reading.
    is_open: RwLock<bool>,
    read_only: bool,
}

impl KurrentdbStore {
    /// Opens the log at an address such as `kurrentdb://admin:changeit@host:2113`, or
    /// `esdb://one:2113,two:2113,three:2113` for a cluster. The parameters are the client's
    /// (`tls`, `tlsCaFile`, `userCertFile`, …), and `namespace`, which lets several logs share a
    /// server.
    ///
    /// # Errors
    /// A [`KurrentdbError`] when the address is none, nobody answers there, or the user is refused.
    pub async fn open(address: &str, options: KurrentdbOptions) -> Result<KurrentdbStore, Error> {
        let connection = Connection::new(Address::parse(address)?, options.patience)?;
        let reader = Arc::new(Reader { connection, streams: Streams::default() });
        let newest = reader.newest().await?;
        let seen = Arc::new(Seen::new(newest.position));
        let follower = Follower::new(reader.clone(), seen.clone(), newest);
        let follower = Mutex::new(Some(tokio::spawn(follower.run())));
        let writer = Writer { reader: reader.clone(), seen: seen.clone(), turns: Turns::new() };
        Ok(KurrentdbStore {
            reader,
            seen,
            writer,
            calendar: Calendar::default(),
            follower,
            is_open: RwLock::new(!options.read_only),
            read_only: options.read_only,
        })
    }

    /// Reads an address without asking anybody.
    ///
    /// # Errors
    /// [`KurrentdbError::Address`] when it is none.
    pub fn check_address(address: &str) -> Result<(), Error> {
        Address::parse(address)?;
        Ok(())
    }

    fn why_no_append(&self) -> Error {
        if self.read_only { Error::ReadOnly } else { Error::Closed }
    }
}

#[async_trait]
impl EventStore for KurrentdbStore {
    async fn append(&self, append: Append) -> Result<Appended, AppendError> {
        let is_open = self.is_open.read().await;
        if !*is_open {
            return Err(self.why_no_append().into());
        }
        self.writer.append(append).await
    }

    async fn find_command(
        &self,
        stream: &StreamId,
        command_id: Uuid,
    ) -> Result<Option<Appended>, Error> {
        let first = match self.reader.streams.find(stream, command_id) {
            Some(first) => Some(first),
            None => {
                let known = self.reader.streams.length(stream).unwrap_or(0);
                let newer = self.reader.stream(stream, known, usize::MAX).await?;
                let first = newer.iter().find(|event| event.command_id == command_id);
                first.map(|event| event.sequence)
            }
        };
        let Some(first) = first else { return Ok(None) };
        let found = self.reader.command(stream, first, command_id).await?;
        let events: Vec<_> = found.into_iter().map(|record| record.event).collect();
        Ok((!events.is_empty()).then_some(Appended { events, replayed: true }))
    }

    async fn read_stream(
        &self,
        stream: &StreamId,
        after: u64,
        limit: usize,
    ) -> Result<Vec<Arc<RecordedEvent>>, Error> {
        if limit == 0 {
            return Ok(Vec::new());
        }
        self.reader.stream(stream, after, limit).await
    }

    async fn read_after(
        &self,
        after: Position,
        limit: usize,
    ) -> Result<Vec<Arc<RecordedEvent>>, Error> {
        if limit == 0 {
            return Ok(Vec::new());
        }
        if let Some(events) = self.seen.after(after, limit) {
            return Ok(events);
        }
        if after == Position::START {
            return self.reader.after(after, limit).await;
        }
        if let Some(events) = self.reader.try_after(after, limit).await? {
            return Ok(events);
        }
        // As soon as the server answers at all, it is asked once more …
        self.reader.newest().await?;
        match self.reader.try_after(after, limit).await? {
            Some(events) => Ok(events),
            // … and then it is the position: no event has it.
            None => self.calendar.after(&self.reader, after, limit).await,
        }
    }

    async fn head(&self) -> Result<Position, Error> {
        // Other nodes append too: the server knows, this node may not yet.
        let newest = self.reader.newest().await?.position;
        self.seen.advance(newest);
        Ok(newest.max(self.seen.head()))
    }

    fn watch(&self) -> watch::Receiver<Position> {
        self.seen.watch()
    }

    async fn position_at(&self, time: DateTime<Utc>) -> Result<Position, Error> {
        self.calendar.position_at(&self.reader, time).await
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities { dense_positions: false, log_wide_command_ids: false, exclusive: false }
    }

    async fn close(&self) {
        // Waits for the appends that are under way.
        *self.is_open.write().await = false;
        let follower = self.follower.lock().take();
        if let Some(follower) = follower {
            follower.abort();
            // It ends by being aborted, which is no failure.
            let _ = follower.await;
        }
        self.seen.set_live(false);
    }
}

impl Drop for KurrentdbStore {
    fn drop(&mut self) {
        if let Some(follower) = self.follower.lock().take() {
            follower.abort();
        }
    }
}
