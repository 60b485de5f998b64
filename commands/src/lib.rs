//! What one may ask: gathers facts (the clock, ids, secrets, sealed texts), lets the domain decide,
//! and appends what follows.
//!
//! The rule of this crate: nothing changes except through [`Commands::execute`], and nothing here
//! reads a read model.

mod access_log;
mod actor;
mod agent;
mod api_token;
mod bulk_stop;
mod chat;
mod claim;
mod communicator;
mod conversation;
mod description;
mod error;
mod evaluate;
mod evaluation;
mod execute;
mod execution;
mod file;
mod garbage;
mod generation;
mod identity;
mod instance;
mod integration;
pub mod jwt;
mod knowledge_base;
mod leases;
pub mod policies;
mod product;
mod seal;
mod secrets;
mod session;
#[cfg(test)]
mod testing;
mod token_usage;
pub mod tools;
mod trigger;
mod user;
mod veil;
mod webhook;

pub use access_log::{PendingRejections, Rejection};
pub use actor::{Actor, Ask};
pub use agent::{AgentChange, MASK, NewAgent, NewVersion, mask, masked};
pub use api_token::{ApiTokenChange, NewApiToken, WithSecret};
pub use bulk_stop::StoppedExecutions;
pub use chat::{AskedMessage, NewMessage, chat_session_id};
pub use communicator::{
    Address, Incoming, IncomingMessage, MAX_MESSAGE_BYTES, NotHeard, Revised, Revision, Said,
    Saying, Sender, SentFile,
};
pub use error::{Error, Fault};
pub use execute::{Commands, Done};
pub use execution::{NewExecution, RetryFrom};
pub use file::{BYTES, FileFacts, NewFile, Uploaded, media_type_of};
pub use garbage::{Action, Amount, Collected, Collection, Progress, collect_garbage};
pub use identity::{IdentityError, OutsideIdentity, Whom};
pub use instance::{Boot, FirstAdmin};
pub use integration::{IntegrationChange, NewIntegration, OpenIntegration, secret_field};
pub use session::{Claims, Grant, Refreshed, SessionKeys};
pub use token_usage::{PendingUses, Usage};
pub use trigger::{NewTrigger, Rotated, TriggerReplacement};
pub use user::{NewUser, PASSWORD_MAX, PASSWORD_MIN, UserChange};
pub use webhook::{BadDelivery, GoodDelivery, Hook};
