//! What happened: one append-only log of events, in one global order.
//!
//! The rule of this crate: it does not know what an agent is. It stores streams of named JSON
//! facts, gives each a [`Position`], and never changes one again. Everything else in the system is
//! derived from what is read here.

pub mod conformance;
mod envelope;
mod error;
mod sqlite;
mod store;
mod subscription;

pub use envelope::{
    Append, Appended, Expected, Metadata, NewEvent, Position, RecordedEvent, StreamId, event_id,
};
pub use error::{AppendError, Error};
pub use sqlite::{SqliteOptions, SqliteStore};
pub use store::{Capabilities, EventStore};
pub use subscription::Subscription;
