//! A queue of ids that a few workers share: each id is worked on by one of them at a time.
//!
//! The rule of this file: what fails for a reason that passes (a full disk, a log that is away) is
//! tried again, later and later; what crashes takes nothing else with it; and nobody's work fills
//! every slot.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use parking_lot::Mutex;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, SemaphorePermit, watch};
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

/// What is to be done with an id that is being worked on.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Then {
    /// Nothing more.
    Rest,
    /// It was added once more in the meantime: look at it again.
    Again,
}

/// The workers' shared state.
pub(super) struct Queue {
    name: &'static str,
    busy: Mutex<HashMap<Uuid, Then>>,
    slots: Slots,
    tasks: TaskTracker,
    /// Ends the pauses before another try.
    hurry: Notify,
    stop: watch::Sender<bool>,
}

impl Queue {
    /// A queue that works on at most `slots` ids at once, half of them for one owner.
    pub(super) fn new(name: &'static str, slots: usize) -> Queue {
        Queue::shared(name, slots, slots.div_ceil(2))
    }

    /// A queue that works on at most `slots` ids at once, `share` of them for one owner.
    pub(super) fn shared(name: &'static str, slots: usize, share: usize) -> Queue {
        Queue {
            name,
            busy: Mutex::default(),
            slots: Slots::new(slots, share),
            tasks: TaskTracker::new(),
            hurry: Notify::new(),
            stop: watch::Sender::new(false),
        }
    }

    /// Whether the server stops: long work should pause at its next step.
    pub(super) fn is_stopping(&self) -> bool {
        *self.stop.borrow()
    }

    /// Tries what failed once more now: something has changed.
    pub(super) fn hurry(&self) {
        self.hurry.notify_waiters();
    }

    /// Waits until the server stops.
    pub(super) async fn stopping(&self) {
        let mut stop = self.stop.subscribe();
        // The sender lives as long as this queue.
        let _ = stop.wait_for(|stopped| *stopped).await;
    }

    /// Works on `id` as soon as there is a free slot; once more, if that is going on already.
    pub(super) fn add<W, F>(self: &Arc<Self>, id: Uuid, work: W)
    where
        W: Fn() -> F + Send + Sync + 'static,
        F: Future<Output = Outcome> + Send,
    {
        self.spawn(id, None, std::future::pending, work);
    }

    /// As [`Queue::add`], for an owner: work of one owner leaves slots for that of others.
    pub(super) fn add_for<W, F>(self: &Arc<Self>, owner: Uuid, id: Uuid, work: W)
    where
        W: Fn() -> F + Send + Sync + 'static,
        F: Future<Output = Outcome> + Send,
    {
        self.spawn(id, Some(owner), std::future::pending, work);
    }

    /// As [`Queue::add_for`], where waiting has an end: as long as there is no free slot, `meanwhile` goes
    /// on, and what becomes of it counts for the work, should it end first. It is dropped otherwise.
    pub(super) fn add_until<W, F, M, G>(
        self: &Arc<Self>,
        owner: Uuid,
        id: Uuid,
        meanwhile: M,
        work: W,
    ) where
        W: Fn() -> F + Send + Sync + 'static,
        F: Future<Output = Outcome> + Send,
        M: Fn() -> G + Send + Sync + 'static,
        G: Future<Output = Outcome> + Send,
    {
        self.spawn(id, Some(owner), meanwhile, work);
    }

    fn spawn<W, F, M, G>(self: &Arc<Self>, id: Uuid, owner: Option<Uuid>, meanwhile: M, work: W)
    where
        W: Fn() -> F + Send + Sync + 'static,
        F: Future<Output = Outcome> + Send,
        M: Fn() -> G + Send + Sync + 'static,
        G: Future<Output = Outcome> + Send,
    {
        if self.is_stopping() {
            return;
        }
        match self.busy.lock().entry(id) {
            Entry::Occupied(mut entry) => {
                entry.insert(Then::Again);
                return;
            }
            Entry::Vacant(entry) => entry.insert(Then::Rest),
        };
        let queue = self.clone();
        self.tasks.spawn(async move {
            loop {
                queue.work_on(id, owner, &meanwhile, &work).await;
                if !queue.goes_on(id) {
                    return;
                }
            }
        });
    }

    /// Whether there is more to do for an id whose work has just finished.
    fn goes_on(&self, id: Uuid) -> bool {
        let mut busy = self.busy.lock();
        let again = busy.get(&id) == Some(&Then::Again) && !self.is_stopping();
        if again {
            busy.insert(id, Then::Rest);
        } else {
            busy.remove(&id);
        }
        again
    }

    async fn work_on<W, F, M, G>(&self, id: Uuid, owner: Option<Uuid>, meanwhile: &M, work: &W)
    where
        W: Fn() -> F,
        F: Future<Output = Outcome>,
        M: Fn() -> G,
        G: Future<Output = Outcome>,
    {
        let mut pause = FIRST_PAUSE;
        loop {
            let turn = tokio::select! {
                biased;
                () = self.stopping() => return,
                slot = self.slots.take(owner) => Ok(slot),
                outcome = AssertUnwindSafe(meanwhile()).catch_unwind() => Err(outcome),
            };
            let outcome = match turn {
                Ok(_slot) => AssertUnwindSafe(work()).catch_unwind().await,
                Err(outcome) => outcome,
            };
            let why = match outcome {
                Ok(Outcome::Finished) => return,
                Ok(Outcome::TryAgain(why)) => why,
                // The panic hook has written where.
                Err(_) => "it crashed".to_owned(),
            };
            tracing::warn!(queue = self.name, %id, why, "work is tried again later");
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = self.hurry.notified() => {}
                () = self.stopping() => return,
            }
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// A slot of an owner's, if one is free now.
    pub(super) fn free_slot(&self, owner: Uuid) -> Option<Slot<'_>> {
        if self.is_stopping() { None } else { self.slots.free(owner) }
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

/// Slots, of which one owner gets no more than a share.
pub(super) struct Slots {
    all: Semaphore,
    share: usize,
    /// Of the owners that have some, or wait for one.
    shares: Mutex<HashMap<Uuid, Arc<Semaphore>>>,
}

impl Slots {
    /// As many as `all`, of them `share` for one owner.
    pub(super) fn new(all: usize, share: usize) -> Slots {
        Slots { all: Semaphore::new(all), share, shares: Mutex::default() }
    }

    /// Waits for a free slot: first among those of the owner, then among all. These are never closed, so
    /// there always comes one.
    pub(super) async fn take(&self, owner: Option<Uuid>) -> Option<Slot<'_>> {
        let share = owner.map(|owner| Share::of(self, owner));
        let own = match &share {
            Some(share) => Some(share.semaphore.clone().acquire_owned().await.ok()?),
            None => None,
        };
        let all = self.all.acquire().await.ok()?;
        Some(Slot { _all: all, _own: own, _share: share })
    }

    /// A slot of an owner's, if one is free now.
    fn free(&self, owner: Uuid) -> Option<Slot<'_>> {
        let share = Share::of(self, owner);
        let own = share.semaphore.clone().try_acquire_owned().ok()?;
        let all = self.all.try_acquire().ok()?;
        Some(Slot { _all: all, _own: Some(own), _share: Some(share) })
    }
}

/// The right to work, until it is dropped.
pub(super) struct Slot<'a> {
    _all: SemaphorePermit<'a>,
    _own: Option<OwnedSemaphorePermit>,
    _share: Option<Share<'a>>,
}

/// One owner's slots, forgotten with the last of those who wait for them or hold one.
struct Share<'a> {
    slots: &'a Slots,
    owner: Uuid,
    semaphore: Arc<Semaphore>,
}

impl Share<'_> {
    fn of(slots: &Slots, owner: Uuid) -> Share<'_> {
        let new = || Arc::new(Semaphore::new(slots.share));
        let semaphore = slots.shares.lock().entry(owner).or_insert_with(new).clone();
        Share { slots, owner, semaphore }
    }
}

impl Drop for Share<'_> {
    fn drop(&mut self) {
        let mut shares = self.slots.shares.lock();
        // The map's, and this one. Permits hold one too, but are dropped before.
        if Arc::strong_count(&self.semaphore) <= 2 {
            shares.remove(&self.owner);
        }
    }
}

#[cfg(test)]
mod tests;
