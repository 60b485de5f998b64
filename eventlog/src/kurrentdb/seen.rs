//! What this node has seen of the log: the newest events, and how far the log reaches.
//!
//! The rule of this file: events are shown by whole commands, and news of one never come before it
//! can be read.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Mutex, RwLock};
use tokio::sync::{oneshot, watch};
use uuid::Uuid;

use super::record::Record;
use crate::tail::Tail;
use crate::{Position, RecordedEvent};

/// How long an append waits to see its own events come by before it reads them itself.
const LONGEST_LAG: Duration = Duration::from_secs(1);

/// The newest events, and who waits for some of them.
pub(super) struct Seen {
    tail: RwLock<Tail>,
    /// At least the position of the tail's last event: a node learns in other ways, too, how far
    /// the log reaches.
    head: watch::Sender<Position>,
    /// Whether events come by as they are stored.
    live: watch::Sender<bool>,
    waiting: Mutex<HashMap<Uuid, oneshot::Sender<Vec<Arc<RecordedEvent>>>>>,
}

impl Seen {
    /// Nothing yet, behind `head`.
    pub fn new(head: Position) -> Self {
        Seen {
            tail: RwLock::new(Tail::new(head)),
            head: watch::Sender::new(head),
            live: watch::Sender::new(false),
            waiting: Mutex::default(),
        }
    }

    /// Shows a command that came by: to readers, to those who wait for news, to the one that
    /// stored it. In this order.
    pub fn publish(&self, command: Vec<Record>) {
        let Some(newest) = command.last() else { return };
        let position = newest.event.position;
        // Taken before the news: see `Coming::wait`.
        let waiting = self.waiting.lock().remove(&newest.attempt);
        let events: Vec<_> = command.into_iter().map(|record| record.event).collect();
        self.tail.write().follow(events.iter().cloned());
        // Told even when the head is known to be there: readers may have found the tail empty.
        self.head.send_modify(|head| *head = position.max(*head));
        if let Some(waiting) = waiting {
            // An append that was given up waits no more.
            let _ = waiting.send(events);
        }
    }

    /// The log reaches this far: what is behind the tail is to be asked of the server.
    pub fn advance(&self, position: Position) {
        self.head.send_if_modified(|head| {
            let is_news = position > *head;
            *head = position.max(*head);
            is_news
        });
    }

    /// Events come by, or do not.
    pub fn set_live(&self, is_live: bool) {
        self.live.send_replace(is_live);
    }

    /// How far the log reaches, as far as this node knows.
    pub fn head(&self) -> Position {
        *self.head.borrow()
    }

    pub fn watch(&self) -> watch::Receiver<Position> {
        self.head.subscribe()
    }

    /// The events behind a position: as many as are asked for, or all there are. `None` when the
    /// server is to be asked.
    pub fn after(&self, after: Position, limit: usize) -> Option<Vec<Arc<RecordedEvent>>> {
        // Before the tail is looked at: what comes by in between is then found in it.
        let (is_live, head) = (*self.live.borrow(), self.head());
        let events = self.tail.read().after(after, limit)?;
        let reached = events.last().map_or(after, |event| event.position);
        let are_all = is_live && head <= reached;
        (events.len() == limit || are_all).then_some(events)
    }

    /// Waits for the events of an append to come by; to be asked for before it is sent.
    pub fn expect(&self, attempt: Uuid) -> Coming<'_> {
        let (sender, answer) = oneshot::channel();
        self.waiting.lock().insert(attempt, sender);
        Coming { seen: self, attempt, answer }
    }
}

/// The events of an append that are still to come by.
pub(super) struct Coming<'a> {
    seen: &'a Seen,
    attempt: Uuid,
    answer: oneshot::Receiver<Vec<Arc<RecordedEvent>>>,
}

impl Coming<'_> {
    /// The events, or `None` when they have not come by although everything up to `position` has,
    /// or nothing comes by now.
    pub async fn wait(mut self, position: Position) -> Option<Vec<Arc<RecordedEvent>>> {
        let mut head = self.seen.head.subscribe();
        let mut live = self.seen.live.subscribe();
        tokio::select! {
            biased;
            events = &mut self.answer => return events.ok(),
            _ = head.wait_for(|head| *head >= position) => {}
            _ = live.wait_for(|is_live| !is_live) => {}
            () = tokio::time::sleep(LONGEST_LAG) => {}
        }
        if self.seen.waiting.lock().remove(&self.attempt).is_some() {
            return None;
        }
        // Taken: they come by right now.
        (&mut self.answer).await.ok()
    }
}

impl Drop for Coming<'_> {
    fn drop(&mut self) {
        self.seen.waiting.lock().remove(&self.attempt);
    }
}
