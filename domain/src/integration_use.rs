//! One use of an integration's credential: which secrets let whom in, for what.
//!
//! Life: `Missing` → `Recorded`. Each use is a stream of its own, so that no counter moves an `ETag` and no
//! stream grows; it is written before the other side is called, and stays when the integration is gone.

use cqrs_es::event_sink::EventSink;
use cqrs_es::{Aggregate, DomainEvent};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::event;
use crate::refusal::{Refusal, RefusalKind};

/// What has happened with a credential.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum IntegrationUseEvent {
    /// A step of an execution was about to call the other side with it.
    #[serde(rename = "integration_use.called.v1")]
    Called {
        /// The integration.
        integration: Uuid,
        /// Which of its secrets: see [`crate::integration::IntegrationDetails::secrets_version`].
        secrets_version: u64,
        /// The execution.
        execution: Uuid,
        /// The step, as the execution calls it.
        step_id: String,
        /// What was asked for, as `create_issue`.
        operation: String,
    },
    /// It was tried whether it lets anybody in.
    #[serde(rename = "integration_use.tested.v1")]
    Tested {
        /// The integration.
        integration: Uuid,
        /// Which of its secrets.
        secrets_version: u64,
        /// It did.
        succeeded: bool,
        /// Why not, as `unauthorized`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        code: Option<String>,
    },
}

/// What one may write down of a credential's use.
#[derive(Clone, Debug, PartialEq)]
pub enum IntegrationUseCommand {
    /// See [`IntegrationUseEvent::Called`].
    Call {
        /// The integration.
        integration: Uuid,
        /// Which of its secrets.
        secrets_version: u64,
        /// The execution.
        execution: Uuid,
        /// The step.
        step_id: String,
        /// What is asked for.
        operation: String,
    },
    /// See [`IntegrationUseEvent::Tested`].
    Test {
        /// The integration.
        integration: Uuid,
        /// Which of its secrets.
        secrets_version: u64,
        /// Why it let nobody in, if it did not.
        failure: Option<String>,
    },
}

/// One use of a credential.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub enum IntegrationUse {
    /// Not written down yet.
    #[default]
    Missing,
    /// Written down.
    Recorded,
}

impl IntegrationUse {
    /// Answers a command with events or a refusal. What was written down once stays as it is.
    pub fn decide(
        &self,
        command: IntegrationUseCommand,
    ) -> Result<Vec<IntegrationUseEvent>, IntegrationUseError> {
        use {IntegrationUseCommand as Do, IntegrationUseEvent as Did};
        match (self, command) {
            (IntegrationUse::Recorded, _) => Err(IntegrationUseError::AlreadyRecorded),
            (
                IntegrationUse::Missing,
                Do::Call { integration, secrets_version, execution, step_id, operation },
            ) => Ok(vec![Did::Called {
                integration,
                secrets_version,
                execution,
                step_id,
                operation,
            }]),
            (IntegrationUse::Missing, Do::Test { integration, secrets_version, failure }) => {
                Ok(vec![Did::Tested {
                    integration,
                    secrets_version,
                    succeeded: failure.is_none(),
                    code: failure,
                }])
            }
        }
    }
}

/// Why a use was not written down.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IntegrationUseError {
    /// It was before.
    #[error("this use is written down already")]
    AlreadyRecorded,
}

impl Refusal for IntegrationUseError {
    fn reason(&self) -> (RefusalKind, &'static str) {
        match self {
            IntegrationUseError::AlreadyRecorded => {
                (RefusalKind::Conflict, "integration_use_already_recorded")
            }
        }
    }
}

impl Aggregate for IntegrationUse {
    const TYPE: &'static str = "integration_use";
    type Command = IntegrationUseCommand;
    type Event = IntegrationUseEvent;
    type Error = IntegrationUseError;
    type Services = ();

    async fn handle(
        &mut self,
        command: IntegrationUseCommand,
        _: &(),
        sink: &EventSink<Self>,
    ) -> Result<(), IntegrationUseError> {
        for event in self.decide(command)? {
            sink.write(event, self).await;
        }
        Ok(())
    }

    fn apply(&mut self, _: IntegrationUseEvent) {
        *self = IntegrationUse::Recorded;
    }
}

impl DomainEvent for IntegrationUseEvent {
    fn event_type(&self) -> String {
        event::name_of(self).to_owned()
    }

    fn event_version(&self) -> String {
        event::version_of(event::name_of(self)).to_owned()
    }
}

#[cfg(test)]
mod tests;
