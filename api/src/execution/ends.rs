//! Who waits for an execution to end is woken when it does, and not by everything else.
//!
//! The rule of this file: what is not known for certain wakes everybody, and each looks for itself.

use std::collections::HashMap;
use std::sync::Arc;

use eventlog::{EventStore, Position, RecordedEvent};
use parking_lot::Mutex;
use projections::Views;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// How many events one read of the log brings.
const BATCH: usize = 1_000;

/// The executions whose end somebody waits for. Cheap to clone.
#[derive(Clone, Default)]
pub struct Ends {
    waiting: Arc<Mutex<HashMap<Uuid, Arc<Notify>>>>,
}

/// A wish to be woken. It ends when it is dropped.
pub struct Wakening<'a> {
    ends: &'a Ends,
    execution: Uuid,
    news: Arc<Notify>,
}

impl Ends {
    /// Asks to be woken when an execution ends. Look at it then, not before: it may have ended.
    pub fn wait_for(&self, execution: Uuid) -> Wakening<'_> {
        let news = self.waiting.lock().entry(execution).or_default().clone();
        Wakening { ends: self, execution, news }
    }

    /// Follows what the read models have taken in, until the server stops.
    pub async fn follow(self, log: Arc<dyn EventStore>, views: Views, shutdown: CancellationToken) {
        let mut applied = views.watch();
        let mut seen = *applied.borrow_and_update();
        while let Some(Ok(())) = shutdown.run_until_cancelled(applied.changed()).await {
            let upto = *applied.borrow_and_update();
            seen = self.look_at(log.as_ref(), seen, upto).await;
        }
    }

    /// Wakes whoever waits for what has ended in between. Answers up to where it has looked.
    async fn look_at(&self, log: &dyn EventStore, mut seen: Position, upto: Position) -> Position {
        // Who comes later finds in the read models what was taken in by now.
        while seen < upto && !self.waiting.lock().is_empty() {
            let Ok(events) = log.read_after(seen, BATCH).await else {
                self.waiting.lock().values().for_each(|news| news.notify_waiters());
                return upto;
            };
            // What the read models do not show yet is looked at when they do.
            let shown = &events[..events.partition_point(|event| event.position <= upto)];
            let Some(last) = shown.last() else { return upto };
            seen = last.position;
            let ended = shown.iter().filter(|event| is_end(event));
            let waiting = self.waiting.lock();
            for news in ended.filter_map(|event| waiting.get(&event.stream.uuid()?)) {
                news.notify_waiters();
            }
        }
        upto.max(seen)
    }
}

impl Wakening<'_> {
    /// Comes back when the read models show that the execution has ended since this was called.
    pub fn woken(&self) -> tokio::sync::futures::Notified<'_> {
        self.news.notified()
    }
}

impl Drop for Wakening<'_> {
    fn drop(&mut self) {
        let mut waiting = self.ends.waiting.lock();
        // The map's, and this one.
        if Arc::strong_count(&self.news) <= 2 {
            waiting.remove(&self.execution);
        }
    }
}

fn is_end(event: &RecordedEvent) -> bool {
    matches!(
        event.event_type.as_str(),
        "execution.succeeded.v1"
            | "execution.failed.v1"
            | "execution.cancelled.v1"
            | "execution.timed_out.v1"
    )
}
