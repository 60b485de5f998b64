//! The newest events, kept in memory for those who follow the log closely.
//!
//! The rule of this file: it answers only when it holds *everything* after the asked position, up to
//! where the store has heard of the log.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::{Position, RecordedEvent};

/// The tail holds at most this many events …
const MOST_EVENTS: usize = 8192;
/// … and at most about this many bytes.
const MOST_BYTES: usize = 8 << 20;
/// What an event takes beside its payload, roughly.
const ENVELOPE_BYTES: usize = 600;

/// A bounded run of the newest events, without holes.
pub(crate) struct Tail {
    /// Every event behind this position that was heard of is in `events`.
    reaches_back_to: Position,
    events: VecDeque<Arc<RecordedEvent>>,
    bytes: usize,
}

impl Tail {
    /// Holds nothing, behind `head`.
    pub fn new(head: Position) -> Self {
        Tail { reaches_back_to: head, events: VecDeque::new(), bytes: 0 }
    }

    /// Up to where it has heard of the log.
    pub fn end(&self) -> Position {
        self.events.back().map_or(self.reaches_back_to, |event| event.position)
    }

    /// Adds events that came by one after the other, right behind the last one.
    pub fn follow(&mut self, events: impl IntoIterator<Item = Arc<RecordedEvent>>) {
        events.into_iter().for_each(|event| self.push(event));
        self.shorten();
    }

    /// Adds what was committed, in order, where positions are dense. What is here already is left
    /// out; where something in between is missing, because another node committed it, the tail
    /// begins anew behind it.
    pub fn extend(&mut self, events: impl IntoIterator<Item = Arc<RecordedEvent>>) {
        for event in events {
            let end = self.end();
            if event.position <= end {
                continue;
            }
            if event.position.0 > end.0 + 1 {
                *self = Tail::new(Position(event.position.0 - 1));
            }
            self.push(event);
        }
        self.shorten();
    }

    fn push(&mut self, event: Arc<RecordedEvent>) {
        self.bytes += size(&event);
        self.events.push_back(event);
    }

    fn shorten(&mut self) {
        while self.events.len() > MOST_EVENTS || self.bytes > MOST_BYTES {
            let Some(oldest) = self.events.pop_front() else { break };
            self.bytes -= size(&oldest);
            self.reaches_back_to = oldest.position;
        }
    }

    /// The events after a position, or `None` when they are not all here.
    pub fn after(&self, position: Position, limit: usize) -> Option<Vec<Arc<RecordedEvent>>> {
        if position < self.reaches_back_to {
            return None;
        }
        let first = self.events.partition_point(|event| event.position <= position);
        Some(self.events.iter().skip(first).take(limit).cloned().collect())
    }
}

fn size(event: &RecordedEvent) -> usize {
    event.data.get().len() + ENVELOPE_BYTES
}
