//! What is true: aggregates, their commands, events and refusals. Pure.
//!
//! One aggregate is one file; its `decide` is the whole rulebook and its `apply` only remembers.
//! The rule of this crate: no clock, no input or output, no randomness. Time, ids, hashes, sealed
//! texts and looked-up facts arrive inside the commands.

pub mod access_log;
pub mod agent;
pub mod api_token;
pub mod bulk_stop;
pub mod catalogue;
pub mod chat;
pub mod claim;
pub mod conversation;
pub mod delivery;
pub mod duration;
pub mod evaluation;
pub mod event;
pub mod execution;
pub mod expression;
pub mod file;
pub mod generation;
pub mod instance;
pub mod integration;
pub mod integration_use;
pub mod knowledge_base;
pub mod lane;
pub mod lease;
pub mod listening;
pub mod manifest;
pub mod organization;
pub mod product;
pub mod reaction;
mod reader;
pub mod refusal;
pub mod schedule;
pub mod schema;
pub mod session;
pub mod step;
pub mod token_usage;
pub mod trigger;
pub mod upcast;
pub mod user;
pub mod values;

pub use refusal::{Fault, InvalidDocument, Refusal, RefusalKind};
pub use values::{
    BlobRef, Description, Digest, Email, FileName, Name, Object, Payload, Retention, Rewording,
    Role, Said, Scope, Sealed, Timestamp, TokenPrefix, ValueError, derived_id,
};

#[cfg(test)]
mod history;
