//! A log as a test wants it: one whose server dies at a chosen append, one that several servers share, so
//! that nobody keeps states in memory and leases count, one in which somebody else was quicker, or one whose next
//! appends end as they are told to.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use chrono::{DateTime, TimeDelta, Utc};
use eventlog::{
    Append, AppendError, Appended, Capabilities, EventStore, Position, RecordedEvent, StreamId,
};
use futures::future::BoxFuture;
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};
use uuid::Uuid;

/// How an append ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Fate {
    /// As it should.
    #[default]
    Good,
    /// The log fails before it is stored.
    Failed,
    /// It is stored, and nobody hears of it.
    Unheard,
    /// It is stored, and heard of when [`Altered::tell`] says so.
    Late,
}

/// A log that does something else than the one below it.
pub(crate) struct Altered {
    log: Arc<dyn EventStore>,
    /// How many appends it has left.
    left: AtomicUsize,
    /// The append at which it dies is stored, but nobody hears of it.
    stores_the_last: bool,
    is_shared: bool,
    /// How many events of streams were read.
    read: AtomicUsize,
    /// What somebody else does just before the next append.
    before: Mutex<Option<BoxFuture<'static, ()>>>,
    /// How the next appends end.
    fates: Mutex<VecDeque<Fate>>,
    told: Notify,
    /// How long ago everything was, by what its streams say.
    ago: Mutex<TimeDelta>,
}

impl Altered {
    /// A log whose server is killed after so many appends, before or after the last one is stored.
    pub(crate) fn mortal(
        log: &Arc<dyn EventStore>,
        lives: usize,
        stores_the_last: bool,
    ) -> Arc<Altered> {
        Arc::new(Altered { left: lives.into(), stores_the_last, ..Altered::over(log) })
    }

    /// A log that several servers share.
    pub(crate) fn shared(log: &Arc<dyn EventStore>) -> Arc<Altered> {
        Arc::new(Altered { is_shared: true, ..Altered::over(log) })
    }

    /// A log whose appends end well, until it is told otherwise.
    pub(crate) fn fateful(log: &Arc<dyn EventStore>) -> Arc<Altered> {
        Arc::new(Altered::over(log))
    }

    fn over(log: &Arc<dyn EventStore>) -> Altered {
        Altered {
            log: log.clone(),
            left: usize::MAX.into(),
            stores_the_last: false,
            is_shared: false,
            read: 0.into(),
            before: Mutex::default(),
            fates: Mutex::default(),
            told: Notify::new(),
            ago: Mutex::default(),
        }
    }

    /// How the next append is to end.
    pub(crate) fn next_ends(&self, fate: Fate) {
        self.next_end([fate]);
    }

    /// How the next appends are to end, one after the other.
    pub(crate) fn next_end(&self, fates: impl IntoIterator<Item = Fate>) {
        *self.fates.lock() = fates.into_iter().collect();
    }

    /// Lets all that is stored have happened so long ago.
    pub(crate) fn was(&self, ago: TimeDelta) {
        *self.ago.lock() = ago;
    }

    /// Lets somebody hear who hears late.
    pub(crate) fn tell(&self) {
        self.told.notify_one();
    }

    /// A log in which somebody else does something just before the first append of its server.
    pub(crate) fn overtaken(
        log: &Arc<dyn EventStore>,
        by: impl Future<Output = ()> + Send + 'static,
    ) -> Arc<Altered> {
        let altered = Altered::shared(log);
        *altered.before.lock() = Some(Box::pin(by));
        altered
    }

    /// Whether its server has not died yet.
    pub(crate) fn lives(&self) -> bool {
        self.left.load(Ordering::SeqCst) > 0
    }

    /// How many events of streams were read through it.
    pub(crate) fn read(&self) -> usize {
        self.read.load(Ordering::SeqCst)
    }
}

#[async_trait]
impl EventStore for Altered {
    async fn append(&self, append: Append) -> Result<Appended, AppendError> {
        let before = self.before.lock().take();
        if let Some(before) = before {
            before.await;
        }
        let fate = self.fates.lock().pop_front().unwrap_or_default();
        if fate == Fate::Failed {
            return Err(AppendError::Store(eventlog::Error::Busy));
        }
        let one_less = |left: usize| left.checked_sub(1);
        let left = self.left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, one_less);
        let appended = match left {
            Ok(1) if self.stores_the_last => {
                self.log.append(append).await?;
                Err(AppendError::Store(eventlog::Error::Closed))
            }
            Ok(_) => self.log.append(append).await,
            Err(_) => Err(AppendError::Store(eventlog::Error::Closed)),
        };
        match fate {
            Fate::Unheard => return Err(AppendError::Store(eventlog::Error::Busy)),
            Fate::Late => self.told.notified().await,
            Fate::Good | Fate::Failed => {}
        }
        appended
    }

    async fn read_stream(
        &self,
        stream: &StreamId,
        after: u64,
        limit: usize,
    ) -> Result<Vec<Arc<RecordedEvent>>, eventlog::Error> {
        let events = self.log.read_stream(stream, after, limit).await?;
        self.read.fetch_add(events.len(), Ordering::SeqCst);
        let ago = *self.ago.lock();
        let aged = |event: Arc<RecordedEvent>| {
            Arc::new(RecordedEvent { time: event.time - ago, ..event.as_ref().clone() })
        };
        Ok(if ago.is_zero() { events } else { events.into_iter().map(aged).collect() })
    }

    fn capabilities(&self) -> Capabilities {
        let capabilities = self.log.capabilities();
        Capabilities { exclusive: capabilities.exclusive && !self.is_shared, ..capabilities }
    }

    async fn find_command(
        &self,
        stream: &StreamId,
        command_id: Uuid,
    ) -> Result<Option<Appended>, eventlog::Error> {
        self.log.find_command(stream, command_id).await
    }

    async fn read_after(
        &self,
        after: Position,
        limit: usize,
    ) -> Result<Vec<Arc<RecordedEvent>>, eventlog::Error> {
        self.log.read_after(after, limit).await
    }

    async fn head(&self) -> Result<Position, eventlog::Error> {
        self.log.head().await
    }

    fn watch(&self) -> watch::Receiver<Position> {
        self.log.watch()
    }

    async fn position_at(&self, time: DateTime<Utc>) -> Result<Position, eventlog::Error> {
        self.log.position_at(time).await
    }

    async fn close(&self) {
        self.log.close().await;
    }
}
