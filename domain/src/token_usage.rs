//! The usage of an API token: how often it was used, for what and from where.
//!
//! A stream beside the token's own, with the same id, so that a use never moves the token's `ETag`.
//! Uses come in batches: like ones of a while are one entry with a count.

use cqrs_es::event_sink::EventSink;
use cqrs_es::{Aggregate, DomainEvent};
use serde::{Deserialize, Serialize};

use crate::event;
use crate::refusal::{Refusal, RefusalKind};
use crate::values::{Sealed, Timestamp};

/// What has happened to the usage of a token.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum TokenUsageEvent {
    /// The token was used.
    #[serde(rename = "token_usage.recorded.v1")]
    Recorded {
        /// At least one.
        uses: Vec<TokenUse>,
    },
}

/// What one may ask of the usage of a token.
#[derive(Clone, Debug, PartialEq)]
pub enum TokenUsageCommand {
    /// Write down a batch.
    Record {
        /// At least one.
        uses: Vec<TokenUse>,
    },
}

/// Like uses of a while.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TokenUse {
    /// The HTTP method.
    pub method: String,
    /// The route, with its parameters' names and not their values.
    pub route: String,
    /// The HTTP status that was answered.
    pub status: u16,
    /// How many there were, at least one.
    pub count: u64,
    /// When the first one came.
    pub first_at: Timestamp,
    /// When the last one came.
    pub last_at: Timestamp,
    /// The client's address, sealed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<Sealed>,
}

/// The usage of a token so far.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct TokenUsage {
    /// How often the token was used.
    pub count: u64,
    /// When it was used last.
    pub last_used_at: Option<Timestamp>,
}

impl TokenUsage {
    /// Answers a command with events or a refusal.
    pub fn decide(
        &self,
        command: TokenUsageCommand,
    ) -> Result<Vec<TokenUsageEvent>, TokenUsageError> {
        let TokenUsageCommand::Record { uses } = command;
        if uses.is_empty() {
            return Err(TokenUsageError::Empty);
        }
        if uses.iter().any(|used| used.count == 0) {
            return Err(TokenUsageError::WithoutCount);
        }
        Ok(vec![TokenUsageEvent::Recorded { uses }])
    }
}

/// Why a batch of uses was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenUsageError {
    /// Nothing to write down.
    #[error("the batch is empty: send it when there is something in it")]
    Empty,
    /// A use that did not happen.
    #[error("a use counts nothing: leave out what did not happen")]
    WithoutCount,
}

impl Refusal for TokenUsageError {
    fn reason(&self) -> (RefusalKind, &'static str) {
        match self {
            TokenUsageError::Empty => (RefusalKind::Invalid, "token_usage_empty"),
            TokenUsageError::WithoutCount => (RefusalKind::Invalid, "token_use_without_count"),
        }
    }
}

impl Aggregate for TokenUsage {
    const TYPE: &'static str = "token_usage";
    type Command = TokenUsageCommand;
    type Event = TokenUsageEvent;
    type Error = TokenUsageError;
    type Services = ();

    async fn handle(
        &mut self,
        command: TokenUsageCommand,
        _: &(),
        sink: &EventSink<Self>,
    ) -> Result<(), TokenUsageError> {
        for event in self.decide(command)? {
            sink.write(event, self).await;
        }
        Ok(())
    }

    fn apply(&mut self, event: TokenUsageEvent) {
        let TokenUsageEvent::Recorded { uses } = event;
        for used in uses {
            self.count = self.count.saturating_add(used.count);
            self.last_used_at = self.last_used_at.max(Some(used.last_at));
        }
    }
}

impl DomainEvent for TokenUsageEvent {
    fn event_type(&self) -> String {
        event::name_of(self).to_owned()
    }

    fn event_version(&self) -> String {
        event::version_of(event::name_of(self)).to_owned()
    }
}

#[cfg(test)]
mod tests;
