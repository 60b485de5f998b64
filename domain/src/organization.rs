//! An organization: the tenant. Nothing crosses it.
//!
//! Life: `Missing` → `Active`. One is made at the first start of an instance.

use cqrs_es::event_sink::EventSink;
use cqrs_es::{Aggregate, DomainEvent};
use serde::{Deserialize, Serialize};

use crate::event;
use crate::refusal::{Refusal, RefusalKind};
use crate::values::Name;

/// What has happened to an organization.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum OrganizationEvent {
    /// It was made.
    #[serde(rename = "organization.created.v1")]
    Created {
        /// What people call it.
        name: Name,
    },
}

/// What one may ask of an organization.
#[derive(Clone, Debug, PartialEq)]
pub enum OrganizationCommand {
    /// Make it.
    Create {
        /// What people call it.
        name: Name,
    },
}

/// An organization.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub enum Organization {
    /// Not made yet.
    #[default]
    Missing,
    /// In use.
    Active {
        /// What people call it.
        name: Name,
    },
}

impl Organization {
    /// Answers a command with events or a refusal.
    pub fn decide(
        &self,
        command: OrganizationCommand,
    ) -> Result<Vec<OrganizationEvent>, OrganizationError> {
        let OrganizationCommand::Create { name } = command;
        match self {
            Organization::Missing => Ok(vec![OrganizationEvent::Created { name }]),
            // Two first starts at once mean the same organization.
            Organization::Active { name: known } if *known == name => Ok(vec![]),
            Organization::Active { .. } => Err(OrganizationError::AlreadyExists),
        }
    }
}

/// Why an organization refused a command.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OrganizationError {
    /// It is there already, under another name.
    #[error("the organization exists already: use it, or start an instance of its own")]
    AlreadyExists,
}

impl Refusal for OrganizationError {
    fn reason(&self) -> (RefusalKind, &'static str) {
        match self {
            OrganizationError::AlreadyExists => {
                (RefusalKind::Conflict, "organization_already_exists")
            }
        }
    }
}

impl Aggregate for Organization {
    const TYPE: &'static str = "organization";
    type Command = OrganizationCommand;
    type Event = OrganizationEvent;
    type Error = OrganizationError;
    type Services = ();

    async fn handle(
        &mut self,
        command: OrganizationCommand,
        _: &(),
        sink: &EventSink<Self>,
    ) -> Result<(), OrganizationError> {
        for event in self.decide(command)? {
            sink.write(event, self).await;
        }
        Ok(())
    }

    fn apply(&mut self, event: OrganizationEvent) {
        let OrganizationEvent::Created { name } = event;
        *self = Organization::Active { name };
    }
}

impl DomainEvent for OrganizationEvent {
    fn event_type(&self) -> String {
        event::name_of(self).to_owned()
    }

    fn event_version(&self) -> String {
        event::version_of(event::name_of(self)).to_owned()
    }
}

#[cfg(test)]
mod tests;
