//! What one may read: every row and every index here is derived from the log, and can be deleted
//! and rebuilt.
//!
//! The rule of this crate: a read model never asks the outside world and never changes the log.

pub mod agent;
pub mod api_token;
pub mod audit_log;
mod bulk_stop;
pub mod chat;
mod columns;
pub mod conversation;
pub mod delivery;
mod engine;
mod error;
pub mod evaluation;
pub mod execution;
pub mod file;
pub mod generation;
pub mod integration;
pub mod knowledge_base;
mod listing;
pub mod organization;
pub mod product;
pub mod retention;
mod sealed;
pub mod search;
pub mod session;
#[cfg(test)]
mod testing;
pub mod trigger;
mod unfinished;
pub mod user;

pub use engine::{
    Halt, Kept, ReadModel, State, Status, Stopped, Verdict, Views, Writer, discard, standings,
    stored_time, verify,
};
pub use error::{Error, chain};
pub use listing::{Listing, TOTAL_CAP, Window};
pub use sealed::{Said, SealedField};
pub use unfinished::{Unfinished, unfinished};

/// Every read model of this version.
pub fn read_models() -> Vec<Box<dyn ReadModel>> {
    vec![
        Box::new(organization::Organizations),
        Box::new(user::Users),
        Box::new(session::Sessions),
        Box::new(product::Products),
        Box::new(api_token::ApiTokens),
        Box::new(knowledge_base::KnowledgeBases),
        Box::new(file::Files),
        Box::new(evaluation::Evaluations),
        Box::new(agent::Agents),
        Box::new(trigger::Triggers),
        Box::new(integration::Integrations),
        Box::new(delivery::Deliveries),
        Box::new(conversation::Conversations),
        Box::new(chat::Chats),
        Box::new(execution::Executions),
        Box::new(bulk_stop::BulkStops),
        Box::new(audit_log::AuditLog),
    ]
}

/// Reads an event's payload as one of an aggregate's events.
pub(crate) fn decode<E: serde::de::DeserializeOwned>(
    event: &eventlog::RecordedEvent,
) -> Result<E, Error> {
    Ok(domain::event::decode(&event.event_type, &event.data)?)
}
