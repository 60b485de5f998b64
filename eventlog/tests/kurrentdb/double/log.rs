//! The double's data: one log, which several nodes may share.
//!
//! The rule of this file: a record's position is the byte where it would begin in the server's
//! file, and reading begins nowhere else.

use std::collections::HashMap;
use std::sync::Arc;

use crate::proto::streams::append_req::ProposedMessage;
use parking_lot::Mutex;
use tokio::sync::watch;

/// One way in which a log can be wrong.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Flaw {
    /// In no way.
    None,
    /// Takes what was stored for new, when it comes again.
    ForgetsIdempotency,
    /// Takes every append for a new one, whatever it expects.
    TakesEverything,
    /// Leaves every fifth event out of reads of all streams and of subscriptions.
    SkipsEvents,
    /// Stored times are in any order.
    TimeGoesBack,
}

/// A stored event.
#[derive(Debug)]
pub struct Stored {
    /// The stream's name.
    pub stream: String,
    /// Its place in the stream, from 0.
    pub revision: u64,
    /// The byte where it begins.
    pub position: u64,
    /// Its id, as the client made it.
    pub id: uuid::Uuid,
    /// Its type.
    pub event_type: String,
    /// What its data is.
    pub content_type: String,
    /// In steps of 100 nanoseconds since 1970.
    pub created: i64,
    /// The metadata that came with it.
    pub metadata: Vec<u8>,
    /// Its data.
    pub data: Vec<u8>,
}

/// What came of an append.
#[derive(Debug, PartialEq)]
pub enum Outcome {
    /// Up to this revision, at this position.
    Stored { revision: u64, position: u64 },
    /// The stream's last revision.
    WrongRevision(Option<u64>),
}

/// What an append expects of its stream.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Expects {
    Any,
    NoStream,
    Revision(u64),
}

/// The log.
pub struct Database {
    /// What is wrong with it.
    pub flaw: Flaw,
    content: Mutex<Content>,
    /// Events of no system that were ever appended, stored again or not.
    news: watch::Sender<usize>,
    /// Does not tell positions in streams, as servers before 22.6.
    pub is_old: Mutex<bool>,
}

#[derive(Default)]
struct Content {
    records: Vec<Arc<Stored>>,
    streams: HashMap<String, Vec<usize>>,
    next: u64,
}

impl Content {
    fn push(&mut self, stream: &str, message: &ProposedMessage, created: i64) -> u64 {
        let position = self.next;
        let entries = self.streams.entry(stream.to_owned()).or_default();
        let of = |key: &str| message.metadata.get(key).cloned().unwrap_or_default();
        let stored = Stored {
            stream: stream.to_owned(),
            revision: entries.len() as u64,
            position,
            id: crate::streams::id(message.id.as_ref()),
            event_type: of("type"),
            content_type: of("content-type"),
            created,
            metadata: message.custom_metadata.clone(),
            data: message.data.clone(),
        };
        entries.push(self.records.len());
        self.next += 150 + (stored.data.len() + stored.metadata.len()) as u64;
        self.records.push(Arc::new(stored));
        position
    }

    /// The system writes too: its statistics, in a stream of its own.
    fn push_statistics(&mut self, created: i64) {
        let message = ProposedMessage {
            id: None,
            metadata: HashMap::from([("type".into(), "$statsCollected".into())]),
            custom_metadata: Vec::new(),
            data: b"{}".to_vec(),
        };
        self.push("$stats-127.0.0.1:2113", &message, created);
    }
}

impl Database {
    /// A log in which only the system has written.
    pub fn new(flaw: Flaw) -> Self {
        Database::beginning_at(0, flaw)
    }

    /// A log whose first event is far behind its start.
    pub fn beginning_at(position: u64, flaw: Flaw) -> Self {
        let mut content = Content { next: position, ..Content::default() };
        content.push_statistics(now());
        Database {
            flaw,
            content: Mutex::new(content),
            news: watch::Sender::new(1),
            is_old: Mutex::new(false),
        }
    }

    /// Appends, as the server's writer decides it.
    pub fn append(&self, stream: &str, expects: Expects, messages: &[ProposedMessage]) -> Outcome {
        let mut content = self.content.lock();
        let ids: Vec<_> = messages.iter().map(|m| crate::streams::id(m.id.as_ref())).collect();
        let entries = content.streams.get(stream).cloned().unwrap_or_default();
        let length = entries.len() as u64;
        let first = match expects {
            Expects::Any => entries
                .iter()
                .position(|entry| content.records[*entry].id == ids[0])
                .map_or(length, |found| found as u64),
            Expects::NoStream => 0,
            Expects::Revision(revision) => revision + 1,
        };
        if first < length {
            let stored: Vec<_> =
                entries[first as usize..].iter().map(|entry| &content.records[*entry]).collect();
            let is_there =
                stored.len() >= ids.len() && ids.iter().zip(&stored).all(|(id, old)| *id == old.id);
            let is_forgotten =
                matches!(self.flaw, Flaw::ForgetsIdempotency | Flaw::TakesEverything);
            if is_there && !is_forgotten {
                let last = stored[ids.len() - 1];
                return Outcome::Stored { revision: last.revision, position: last.position };
            }
        }
        if first != length && self.flaw != Flaw::TakesEverything {
            return Outcome::WrongRevision(length.checked_sub(1));
        }
        let mut created = now();
        if self.flaw == Flaw::TimeGoesBack && content.records.len() % 7 == 6 {
            created -= 10_000_000;
        }
        let mut position = 0;
        for message in messages {
            position = content.push(stream, message, created);
        }
        if content.records.len().is_multiple_of(5) {
            content.push_statistics(created);
        }
        let revision = content.streams[stream].len() as u64 - 1;
        self.news.send_replace(content.records.len());
        Outcome::Stored { revision, position }
    }

    /// Stores an event as it is, as if it had been there before.
    pub fn put(&self, stream: &str, message: &ProposedMessage, created: i64) -> u64 {
        let mut content = self.content.lock();
        let position = content.push(stream, message, created);
        self.news.send_replace(content.records.len());
        position
    }

    /// Changes with every record.
    pub fn news(&self) -> watch::Receiver<usize> {
        self.news.subscribe()
    }

    /// A stream's events, or `None` when there is no such stream.
    pub fn stream(&self, stream: &str) -> Option<Vec<Arc<Stored>>> {
        let content = self.content.lock();
        let entries = content.streams.get(stream)?;
        Some(entries.iter().map(|entry| content.records[*entry].clone()).collect())
    }

    /// Wanted events from a position on, in order; an error where no record begins.
    pub fn from(
        &self,
        position: u64,
        is_wanted: impl Fn(&Stored) -> bool,
        count: usize,
    ) -> Result<Vec<Arc<Stored>>, String> {
        let content = self.content.lock();
        if position >= content.next {
            return Ok(Vec::new());
        }
        let found = content.records.binary_search_by_key(&position, |record| record.position);
        let first = match found {
            Ok(found) => found,
            Err(0) => 0,
            Err(_) => {
                return Err(format!("Log record at actual pos {position} has too large length"));
            }
        };
        let is_told = |record: &&Arc<Stored>| {
            let is_skipped = self.flaw == Flaw::SkipsEvents && record.revision % 5 == 4;
            !is_skipped && is_wanted(record)
        };
        Ok(content.records[first..].iter().filter(is_told).take(count).cloned().collect())
    }

    /// Wanted events from the end back.
    pub fn backwards(&self, is_wanted: impl Fn(&Stored) -> bool, count: usize) -> Vec<Arc<Stored>> {
        let content = self.content.lock();
        let wanted = content.records.iter().rev().filter(|record| is_wanted(record));
        wanted.take(count).cloned().collect()
    }

    /// Everything.
    pub fn all(&self) -> Vec<Arc<Stored>> {
        self.content.lock().records.clone()
    }

    /// Events that the system did not write.
    pub fn count(&self) -> usize {
        self.all().iter().filter(|record| !record.event_type.starts_with('$')).count()
    }
}

fn now() -> i64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    (now.as_nanos() / 100) as i64
}
