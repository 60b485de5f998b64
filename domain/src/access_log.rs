//! The access log of a day: what was asked and not done.
//!
//! The stream is named by organization and day, so that none grows for ever. Like attempts of a while
//! are one entry with a count, so that an attacker cannot fill the log.

use chrono::NaiveDate;
use cqrs_es::event_sink::EventSink;
use cqrs_es::{Aggregate, DomainEvent};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::event;
use crate::refusal::{Refusal, RefusalKind};
use crate::values::{Sealed, Timestamp};

/// The id of a day's stream, as `<organization>-2026-11-23`.
pub fn access_log_id(organization: Uuid, day: NaiveDate) -> String {
    format!("{organization}-{day}")
}

/// What has happened to an access log.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum AccessLogEvent {
    /// Requests were rejected, or failed.
    #[serde(rename = "access_log.rejected.v2")]
    Rejected {
        /// At least one.
        attempts: Vec<Attempt>,
    },
}

/// What one may ask of an access log.
#[derive(Clone, Debug, PartialEq)]
pub enum AccessLogCommand {
    /// Write down a batch.
    Record {
        /// At least one.
        attempts: Vec<Attempt>,
    },
}

/// Like attempts of a while.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Attempt {
    /// When the first one came.
    pub at: Timestamp,
    /// Who tried, as in the envelope: `user:<id>`, `token:<id>` or `anonymous`.
    pub actor: String,
    /// The HTTP method.
    pub method: String,
    /// The path that was asked for.
    pub path: String,
    /// The route, where the path led to one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub route: Option<String>,
    /// The HTTP status that was answered.
    pub status: u16,
    /// The code of the error that was answered.
    pub code: String,
    /// How many there were, at least one.
    pub count: u64,
    /// When the last one came.
    pub last_at: Timestamp,
    /// The ids of the requests, of the first ones where there were many.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub request_ids: Vec<String>,
    /// The client's address, sealed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<Sealed>,
    /// The client's user agent, sealed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_agent: Option<Sealed>,
    /// The product that was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub product: Option<Uuid>,
    /// The kind of resource that was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resource_type: Option<String>,
    /// The resource that was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resource_id: Option<String>,
}

/// An access log so far.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct AccessLog {
    /// How many attempts were rejected.
    pub count: u64,
}

impl AccessLog {
    /// Answers a command with events or a refusal.
    pub fn decide(&self, command: AccessLogCommand) -> Result<Vec<AccessLogEvent>, AccessLogError> {
        let AccessLogCommand::Record { attempts } = command;
        if attempts.is_empty() {
            return Err(AccessLogError::Empty);
        }
        if attempts.iter().any(|attempt| attempt.count == 0) {
            return Err(AccessLogError::WithoutCount);
        }
        Ok(vec![AccessLogEvent::Rejected { attempts }])
    }
}

/// Why a batch of attempts was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AccessLogError {
    /// Nothing to write down.
    #[error("the batch is empty: send it when there is something in it")]
    Empty,
    /// An attempt that did not happen.
    #[error("an attempt counts nothing: leave out what did not happen")]
    WithoutCount,
}

impl Refusal for AccessLogError {
    fn reason(&self) -> (RefusalKind, &'static str) {
        match self {
            AccessLogError::Empty => (RefusalKind::Invalid, "access_log_empty"),
            AccessLogError::WithoutCount => (RefusalKind::Invalid, "attempt_without_count"),
        }
    }
}

impl Aggregate for AccessLog {
    const TYPE: &'static str = "access_log";
    type Command = AccessLogCommand;
    type Event = AccessLogEvent;
    type Error = AccessLogError;
    type Services = ();

    async fn handle(
        &mut self,
        command: AccessLogCommand,
        _: &(),
        sink: &EventSink<Self>,
    ) -> Result<(), AccessLogError> {
        for event in self.decide(command)? {
            sink.write(event, self).await;
        }
        Ok(())
    }

    fn apply(&mut self, event: AccessLogEvent) {
        let AccessLogEvent::Rejected { attempts } = event;
        for attempt in attempts {
            self.count = self.count.saturating_add(attempt.count);
        }
    }
}

impl DomainEvent for AccessLogEvent {
    fn event_type(&self) -> String {
        event::name_of(self).to_owned()
    }

    fn event_version(&self) -> String {
        event::version_of(event::name_of(self)).to_owned()
    }
}

#[cfg(test)]
mod tests;
