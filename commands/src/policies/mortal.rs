//! A server that dies at a chosen moment, as the log sees it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use eventlog::{
    Append, AppendError, Appended, Capabilities, EventStore, Position, RecordedEvent, StreamId,
};
use tokio::sync::watch;
use uuid::Uuid;

/// A log whose server is killed after so many appends, before or after the last one is stored.
pub(super) struct Mortal {
    pub(super) log: Arc<dyn EventStore>,
    /// How many appends it has left.
    pub(super) left: AtomicUsize,
    /// The append at which it dies is stored, but nobody hears of it.
    pub(super) stores_the_last: bool,
}

#[async_trait]
impl EventStore for Mortal {
    async fn append(&self, append: Append) -> Result<Appended, AppendError> {
        let one_less = |left: usize| left.checked_sub(1);
        let left = self.left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, one_less);
        match left {
            Ok(1) if self.stores_the_last => {
                self.log.append(append).await?;
                Err(AppendError::Store(eventlog::Error::Closed))
            }
            Ok(_) => self.log.append(append).await,
            Err(_) => Err(AppendError::Store(eventlog::Error::Closed)),
        }
    }

    async fn find_command(
        &self,
        stream: &StreamId,
        command_id: Uuid,
    ) -> Result<Option<Appended>, eventlog::Error> {
        self.log.find_command(stream, command_id).await
    }

    async fn read_stream(
        &self,
        stream: &StreamId,
        after: u64,
        limit: usize,
    ) -> Result<Vec<Arc<RecordedEvent>>, eventlog::Error> {
        self.log.read_stream(stream, after, limit).await
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

    fn capabilities(&self) -> Capabilities {
        self.log.capabilities()
    }

    async fn close(&self) {
        self.log.close().await;
    }
}
