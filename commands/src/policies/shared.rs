//! A log that several servers share, in tests: nobody keeps states in memory, and leases count.

use std::sync::Arc;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use eventlog::{
    Append, AppendError, Appended, Capabilities, EventStore, Position, RecordedEvent, StreamId,
};
use tokio::sync::watch;
use uuid::Uuid;

/// A log that several servers share.
pub(super) struct Shared(pub(super) Arc<dyn EventStore>);

#[async_trait]
impl EventStore for Shared {
    async fn append(&self, append: Append) -> Result<Appended, AppendError> {
        self.0.append(append).await
    }

    async fn find_command(
        &self,
        stream: &StreamId,
        command_id: Uuid,
    ) -> Result<Option<Appended>, eventlog::Error> {
        self.0.find_command(stream, command_id).await
    }

    async fn read_stream(
        &self,
        stream: &StreamId,
        after: u64,
        limit: usize,
    ) -> Result<Vec<Arc<RecordedEvent>>, eventlog::Error> {
        self.0.read_stream(stream, after, limit).await
    }

    async fn read_after(
        &self,
        after: Position,
        limit: usize,
    ) -> Result<Vec<Arc<RecordedEvent>>, eventlog::Error> {
        self.0.read_after(after, limit).await
    }

    async fn head(&self) -> Result<Position, eventlog::Error> {
        self.0.head().await
    }

    fn watch(&self) -> watch::Receiver<Position> {
        self.0.watch()
    }

    async fn position_at(&self, time: DateTime<Utc>) -> Result<Position, eventlog::Error> {
        self.0.position_at(time).await
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities { exclusive: false, ..self.0.capabilities() }
    }

    async fn close(&self) {
        self.0.close().await;
    }
}
