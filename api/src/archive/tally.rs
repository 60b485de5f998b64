//! What has gone into an archive, or come out of it, so far.
//!
//! The rule of this file: writer and reader count alike, because they count here.

use std::collections::HashSet;
use std::fmt::Write;

use anyhow::bail;
use eventlog::{Position, RecordedEvent};
use sha2::{Digest, Sha256};

use super::{Amount, Events, Summary};

/// The hash over events that follow one another.
#[derive(Clone, Default)]
pub struct EventTally {
    count: u64,
    first: Position,
    last: Position,
    hash: Sha256,
}

impl EventTally {
    /// Counts the next event, given by its canonical bytes.
    pub fn add(&mut self, event: &RecordedEvent, line: &str) -> anyhow::Result<()> {
        if event.position <= self.last {
            bail!(
                "the event at position {} comes behind position {}: positions increase",
                event.position,
                self.last
            );
        }
        if self.count == 0 {
            self.first = event.position;
        }
        self.count += 1;
        self.last = event.position;
        self.hash.update(line);
        self.hash.update("\n");
        Ok(())
    }

    /// The position of the last event.
    pub fn last(&self) -> Position {
        self.last
    }

    /// All of them in one number.
    pub fn sum(&self) -> Events {
        let sha256 = hex::encode(self.hash.clone().finalize());
        Events { count: self.count, first: self.first, last: self.last, sha256 }
    }
}

/// Everything that was counted.
#[derive(Default)]
pub struct Tally {
    pub events: EventTally,
    keys: Amount,
    blobs: Amount,
    artifacts: Amount,
    sums: Vec<(String, String)>,
    names: HashSet<String>,
}

impl Tally {
    /// Counts an entry that is complete, and has this hash. An object's size is counted, too.
    pub fn entry(&mut self, name: &str, size: u64, sha256: String) -> anyhow::Result<()> {
        if !self.names.insert(name.to_owned()) {
            bail!("{name} is there twice");
        }
        let amount = match name.split_once('/') {
            Some(("keys", _)) => Some(&mut self.keys),
            Some(("blobs", _)) => Some(&mut self.blobs),
            Some(("artifacts", _)) => Some(&mut self.artifacts),
            _ => None,
        };
        if let Some(amount) = amount {
            amount.objects += 1;
            amount.bytes += size;
        }
        self.sums.push((name.to_owned(), sha256));
        Ok(())
    }

    /// Whether an entry was counted.
    pub fn has(&self, name: &str) -> bool {
        self.names.contains(name)
    }

    /// What was counted.
    pub fn summary(&self) -> Summary {
        let Tally { events, keys, blobs, artifacts, .. } = self;
        Summary { events: events.sum(), keys: *keys, blobs: *blobs, artifacts: *artifacts }
    }

    /// The hashes of all entries, as `sha256sum` writes them.
    pub fn sums(&self) -> String {
        self.sums.iter().fold(String::new(), |mut text, (name, sum)| {
            // Writing into a text does not fail.
            let _ = writeln!(text, "{sum}  {name}");
            text
        })
    }
}
