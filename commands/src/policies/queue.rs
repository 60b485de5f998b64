//! A queue of ids that a few workers share: each id is worked on by one of them at a time.
//!
//! The rule of this file: what fails for a reason that passes (a full disk, a log that is away) is
//! tried again, later and later.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{Semaphore, watch};
use tokio_util::task::TaskTracker;
use uuid::Uuid;

/// The first and the longest pause before another try.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// How long running work may take to finish when the server stops.
const GRACE: Duration = Duration::from_secs(10);

/// What became of a piece of work.
pub(super) enum Outcome {
    /// Nothing is left to do.
    Finished,
    /// It could not be done now.
    TryAgain(String),
}

/// The workers' shared state.
pub(super) struct Queue {
    name: &'static str,
    busy: Mutex<HashSet<Uuid>>,
    slots: Arc<Semaphore>,
    tasks: TaskTracker,
    stop: watch::Sender<bool>,
}

impl Queue {
    /// A queue that works on at most `slots` ids at once.
    pub(super) fn new(name: &'static str, slots: usize) -> Queue {
        Queue {
            name,
            busy: Mutex::default(),
            slots: Arc::new(Semaphore::new(slots)),
            tasks: TaskTracker::new(),
            stop: watch::Sender::new(false),
        }
    }

    /// Whether the server stops: long work should pause at its next step.
    pub(super) fn is_stopping(&self) -> bool {
        *self.stop.borrow()
    }

    /// Works on `id` as soon as there is a free slot, unless that is going on already.
    pub(super) fn add<W, F>(self: &Arc<Self>, id: Uuid, work: W)
    where
        W: Fn() -> F + Send + Sync + 'static,
        F: Future<Output = Outcome> + Send,
    {
        if self.is_stopping() || !self.busy.lock().insert(id) {
            return;
        }
        let queue = self.clone();
        self.tasks.spawn(async move {
            queue.work_on(id, work).await;
            queue.busy.lock().remove(&id);
        });
    }

    async fn work_on<W, F>(&self, id: Uuid, work: W)
    where
        W: Fn() -> F,
        F: Future<Output = Outcome>,
    {
        let mut pause = FIRST_PAUSE;
        let mut stopped = self.stop.subscribe();
        loop {
            let outcome = {
                let slot = tokio::select! {
                    biased;
                    _ = stopped.wait_for(|stopped| *stopped) => return,
                    slot = self.slots.acquire() => slot,
                };
                let Ok(_slot) = slot else { return };
                work().await
            };
            match outcome {
                Outcome::Finished => return,
                Outcome::TryAgain(why) => {
                    tracing::warn!(queue = self.name, %id, why, "work is tried again later");
                    tokio::select! {
                        () = tokio::time::sleep(pause) => {}
                        _ = stopped.wait_for(|stopped| *stopped) => return,
                    }
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
            }
        }
    }

    /// Takes nothing more on, and waits for what is running, for a bounded time.
    pub(super) async fn stop(&self) {
        self.stop.send_replace(true);
        self.tasks.close();
        if tokio::time::timeout(GRACE, self.tasks.wait()).await.is_err() {
            tracing::warn!(
                queue = self.name,
                left = self.tasks.len(),
                "work is left for the next start"
            );
        }
    }
}
