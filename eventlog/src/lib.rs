//! What happened: one append-only log of events, in one global order.
//!
//! The rule of this crate: it does not know what an agent is. It stores streams of named JSON
//! facts, gives each a [`Position`], and never changes one again. Everything else in the system is
//! derived from what is read here.

pub mod conformance;
mod envelope;
mod error;
mod folder;
mod group;
mod importer;
mod kurrentdb;
mod postgres;
mod sqlite;
mod store;
mod stores;
mod subscription;
mod tail;

pub use envelope::{
    Append, Appended, EnvelopeError, Expected, Metadata, NewEvent, Position, RecordedEvent,
    StreamId, event_id, foreseen,
};
pub use error::{AppendError, Cause, Error};
pub use folder::make_folder;
pub use importer::{ImportError, Importer};
pub use kurrentdb::{KurrentdbError, KurrentdbOptions, KurrentdbStore};
pub use postgres::{PostgresOptions, PostgresStore};
pub use sqlite::{Checkpointer, SqliteOptions, SqliteStore};
pub use store::{Capabilities, EventStore, Pulse};
pub use stores::{check_address, open, open_importer};
pub use subscription::Subscription;
