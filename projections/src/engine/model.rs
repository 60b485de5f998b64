//! A read model: a few tables, and how each event changes them.
//!
//! The rule of this file: `apply` depends on nothing but the tables and the event, so that a
//! rebuild gives the same rows, byte for byte.

use chrono::{DateTime, SecondsFormat, Utc};
use eventlog::RecordedEvent;

use super::writer::Writer;
use crate::Error;

/// The file of most models.
pub(crate) const MAIN: &str = "views";

/// A few tables that are derived from the log.
pub trait ReadModel: Send + Sync {
    /// Its name, as `agent`.
    fn name(&self) -> &'static str;

    /// Goes up whenever the same events would lead to other rows. A change refills the file.
    fn version(&self) -> u32;

    /// The SQL that makes its empty tables.
    fn schema(&self) -> &'static str;

    /// The categories of streams that it listens to; none means every one.
    fn categories(&self) -> &'static [&'static str];

    /// The file of a generation that its tables are in, without an ending. Files are filled side by
    /// side, a thread for each: a model that takes in every event has one of its own.
    fn file(&self) -> &'static str {
        MAIN
    }

    /// Those of its indexes that only readers use. A file that is filled from nothing gets them at
    /// its end: sorting once takes a fraction of keeping sorted.
    fn reader_indexes(&self) -> &'static [&'static str] {
        &[]
    }

    /// Takes one event in. Events come in the order of the log, each once.
    ///
    /// # Errors
    /// The event cannot be read or does not fit: the model stops there, visibly.
    fn apply(&self, db: &Writer<'_>, event: &RecordedEvent) -> Result<(), Error>;
}

/// How times stand in read models, and in answers: RFC 3339 in UTC with microseconds, so that they
/// sort as text.
pub fn stored_time(time: DateTime<Utc>) -> String {
    time.to_rfc3339_opts(SecondsFormat::Micros, true)
}
