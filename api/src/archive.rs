//! The file of an export: a log and what it names, whole, as `docs/export.md` describes it.
//!
//! The rule of this file: the format is frozen. An archive that any version ever wrote can be read by
//! every later one; what a version does not know, it refuses.
//!
//! It is a tar archive. Its entries are, in this order: [`HEADER`]; the events, in segments below
//! `events/`; the wrapped keys, blobs and artifacts under the names that they have in a vault;
//! [`SUMMARY`]; and [`SUMS`], the hashes of all before it.

mod reader;
mod tally;
mod writer;

use chrono::{DateTime, Utc};
use eventlog::{Position, RecordedEvent};
use serde::{Deserialize, Serialize};

pub use self::reader::{Archive, Visitor, read};
pub use self::tally::EventTally;
pub use self::writer::{SYNC_EVERY, Writer};

/// What the format is called.
const FORMAT: &str = "prodgy-export/1";
/// What the archive is: the first entry.
const HEADER: &str = "prodgy-export.json";
/// What is in it: the last entry but one.
const SUMMARY: &str = "summary.json";
/// The SHA-256 of every entry before it, as `sha256sum` writes and checks them: the last entry.
const SUMS: &str = "SHA256SUMS";
/// How many events a segment holds.
pub const SEGMENT: usize = 10_000;

/// What an archive is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Header {
    format: String,
    made_by: String,
    made_at: DateTime<Utc>,
    /// Every event up to here is in it.
    pub head: Position,
    /// Whether blobs and artifacts are in it.
    pub files: bool,
}

impl Header {
    /// That of an archive that is made now.
    pub fn new(head: Position, files: bool) -> Header {
        Header {
            format: FORMAT.into(),
            made_by: concat!("prodgy ", env!("CARGO_PKG_VERSION")).into(),
            made_at: Utc::now(),
            head,
            files,
        }
    }
}

/// What is in an archive.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Summary {
    /// The events.
    pub events: Events,
    /// The wrapped keys, and the marks of shredded ones.
    pub keys: Amount,
    /// The blobs.
    pub blobs: Amount,
    /// The artifacts.
    pub artifacts: Amount,
}

/// The events of a log, all of them in one number.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Events {
    /// How many.
    pub count: u64,
    /// The position of the first one; 0 where there is none.
    pub first: Position,
    /// The position of the last one.
    pub last: Position,
    /// The SHA-256 of their canonical bytes, each followed by a line feed.
    pub sha256: String,
}

/// How much there is of something.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Amount {
    /// How many.
    pub objects: u64,
    /// How many bytes they take.
    pub bytes: u64,
}

/// The name of the segment that begins with an event.
fn segment_name(first: &RecordedEvent) -> String {
    format!("events/{:016}.ndjson.zst", first.position.0)
}

#[cfg(test)]
mod tests;
