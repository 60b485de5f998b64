//! What is known of the streams: how long they were when last looked at, and which commands are in
//! them. And whose turn it is to append to one.
//!
//! The rule of this file: what is known of a stream is true of its beginning, however old it is,
//! because an event never changes. An append that expects exactly this beginning to be all there is
//! can therefore not store a command that is in it a second time: the server refuses if it has
//! become longer.

use std::collections::HashMap;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::MutexGuard;
use uuid::Uuid;

use crate::{RecordedEvent, StreamId};

/// Commands of one generation of streams, about. Two generations are kept.
const GENERATION: usize = 64 * 1024;

/// Appends that can be under way at once, if no two are to the same stream.
const LANES: usize = 1024;

/// The beginnings of the streams that were read or written last.
#[derive(Default)]
pub(super) struct Streams {
    known: Mutex<Known>,
}

/// Two generations instead of an eviction list: when the young one is full, the old one is dropped.
#[derive(Default)]
struct Known {
    young: HashMap<StreamId, Beginning>,
    /// Commands in the young generation.
    commands: usize,
    old: HashMap<StreamId, Beginning>,
}

#[derive(Default)]
struct Beginning {
    length: u64,
    /// Each command's first sequence.
    commands: HashMap<Uuid, u64>,
}

impl Known {
    /// The beginning of a stream; kept for another generation.
    fn get(&mut self, stream: &StreamId) -> Option<&mut Beginning> {
        if let Some(beginning) = self.old.remove(stream) {
            self.insert(stream.clone(), beginning);
        }
        self.young.get_mut(stream)
    }

    fn insert(&mut self, stream: StreamId, beginning: Beginning) {
        if self.commands >= GENERATION {
            self.old = std::mem::take(&mut self.young);
            self.commands = 0;
        }
        self.commands += beginning.commands.len().max(1);
        self.young.insert(stream, beginning);
    }
}

impl Streams {
    /// How many events of a stream are known, if any.
    pub fn length(&self, stream: &StreamId) -> Option<u64> {
        self.known.lock().get(stream).map(|beginning| beginning.length)
    }

    /// The first sequence of a command, if it is in what is known of the stream.
    pub fn find(&self, stream: &StreamId, command_id: Uuid) -> Option<u64> {
        self.known.lock().get(stream)?.commands.get(&command_id).copied()
    }

    /// Learns of events that were read or seen, of one stream and in its order. Those that do not
    /// go on where what is known ends teach nothing.
    pub fn learn(&self, events: &[Arc<RecordedEvent>]) {
        let Some(first) = events.first() else { return };
        let mut known = self.known.lock();
        if known.get(&first.stream).is_none() {
            if first.sequence != 1 {
                return;
            }
            known.insert(first.stream.clone(), Beginning::default());
        }
        let Some(beginning) = known.get(&first.stream) else { return };
        let before = beginning.commands.len();
        for event in events {
            if event.sequence == beginning.length + 1 {
                beginning.length = event.sequence;
                beginning.commands.entry(event.command_id).or_insert(event.sequence);
            }
        }
        let learnt = beginning.commands.len() - before;
        known.commands += learnt;
    }

    /// Forgets a stream that is not as it was known: only a server that was set back does that.
    pub fn forget(&self, stream: &StreamId) {
        let mut known = self.known.lock();
        known.young.remove(stream);
        known.old.remove(stream);
    }
}

/// Lets one append at a time at each stream, so that those of this process do not refuse each other.
pub(super) struct Turns {
    lanes: Vec<tokio::sync::Mutex<()>>,
    hasher: RandomState,
}

impl Turns {
    pub fn new() -> Self {
        Turns {
            lanes: (0..LANES).map(|_| tokio::sync::Mutex::new(())).collect(),
            hasher: RandomState::new(),
        }
    }

    /// Waits for this stream's turn. Another stream may, rarely, share it.
    pub async fn wait(&self, stream: &StreamId) -> MutexGuard<'_, ()> {
        let lane = self.hasher.hash_one(stream) as usize % LANES;
        self.lanes[lane].lock().await
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::conformance::{command_with, event};
    use crate::{Expected, envelope};

    fn stored(stream: &str, first: u64, count: usize) -> Vec<Arc<RecordedEvent>> {
        let events = (0..count).map(|n| event(&json!({ "n": n }))).collect();
        let prepared = envelope::prepare(command_with(stream, Expected::Any, events)).unwrap();
        let numbered = prepared.into_iter().enumerate().map(|(index, mut event)| {
            event.sequence = first + index as u64;
            Arc::new(event)
        });
        numbered.collect()
    }

    #[test]
    fn a_beginning_grows_by_what_follows_it_and_by_nothing_else() {
        let streams = Streams::default();
        let name = StreamId::new("thing", "a");
        streams.learn(&stored("a", 2, 1));
        assert_eq!(streams.length(&name), None, "what does not begin is no beginning");

        let (first, second) = (stored("a", 1, 2), stored("a", 3, 1));
        streams.learn(&first);
        streams.learn(&stored("a", 4, 1));
        assert_eq!(streams.length(&name), Some(2), "a hole teaches nothing");
        streams.learn(&second);
        streams.learn(&first);
        assert_eq!(streams.length(&name), Some(3));
        assert_eq!(streams.find(&name, first[0].command_id), Some(1));
        assert_eq!(streams.find(&name, second[0].command_id), Some(3));
        assert_eq!(streams.find(&name, Uuid::now_v7()), None);

        streams.forget(&name);
        assert_eq!(streams.length(&name), None);
    }

    #[test]
    fn what_is_known_is_bounded_and_what_is_used_stays() {
        let streams = Streams::default();
        let used = StreamId::new("thing", "used");
        streams.learn(&stored("used", 1, 1));
        let event = stored("other", 1, 1).remove(0);
        for n in 0..3 * GENERATION {
            let stream = StreamId::new("thing", n);
            streams.learn(&[Arc::new(RecordedEvent { stream, ..(*event).clone() })]);
            if n % 1000 == 0 {
                assert_eq!(streams.length(&used), Some(1));
            }
        }
        let known = streams.known.lock();
        assert!(known.young.len() + known.old.len() <= 2 * GENERATION + 2);
    }
}
