//! An integration: a connection to an outside tool, of one product or of the whole organization.
//!
//! Life: `Missing` → `Present` → `Deleted` → `Erased`, and never back. Its configuration and each of its
//! secrets are sealed under a data key of its own, which its events name. A key is given up by the
//! event that seals everything under another one, and by the deletion.

use std::collections::{BTreeMap, BTreeSet};

use cqrs_es::event_sink::EventSink;
use cqrs_es::{Aggregate, DomainEvent};
use serde::{Deserialize, Serialize};

use crate::event;
use crate::refusal::{Refusal, RefusalKind};
use crate::values::{Name, Sealed};

pub mod kind;
pub mod operation;

pub use kind::IntegrationKind;

/// What has happened to an integration.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum IntegrationEvent {
    /// It was made. It is of the product of the event, or of the organization where that has none.
    #[serde(rename = "integration.created.v1")]
    Created {
        /// What it connects to.
        #[serde(rename = "type")]
        kind: IntegrationKind,
        /// What people call it.
        title: Name,
        /// The data key that everything of it is sealed under.
        key: String,
        /// Its configuration, sealed.
        config: Sealed,
        /// Its secrets by name, each sealed by itself.
        secrets: BTreeMap<String, Sealed>,
    },
    /// It got another title.
    #[serde(rename = "integration.renamed.v1")]
    Renamed {
        /// What people call it now.
        title: Name,
    },
    /// It got another configuration.
    #[serde(rename = "integration.configured.v1")]
    Configured {
        /// Its configuration, sealed.
        config: Sealed,
    },
    /// Some of its secrets were replaced or taken away.
    #[serde(rename = "integration.secrets_changed.v1")]
    SecretsChanged {
        /// The new ones by name, each sealed by itself.
        secrets: BTreeMap<String, Sealed>,
        /// The names of those that are gone.
        removed: BTreeSet<String>,
        /// Names what its secrets are from now on; the first were version 1.
        secrets_version: u64,
    },
    /// It may be used again.
    #[serde(rename = "integration.enabled.v1")]
    Enabled {},
    /// It may not be used for now.
    #[serde(rename = "integration.disabled.v1")]
    Disabled {},
    /// Everything was sealed again, under another data key. What was sealed before is given up.
    #[serde(rename = "integration.key_rotated.v1")]
    KeyRotated {
        /// The data key from now on.
        key: String,
        /// Its configuration, sealed.
        config: Sealed,
        /// All of its secrets by name, each sealed by itself.
        secrets: BTreeMap<String, Sealed>,
    },
    /// It is gone.
    #[serde(rename = "integration.deleted.v1")]
    Deleted {},
    /// Its data keys are gone as well, and with them what it was told.
    #[serde(rename = "integration.erased.v1")]
    Erased {},
}

/// What one may ask of an integration.
#[derive(Clone, Debug, PartialEq)]
pub enum IntegrationCommand {
    /// Make it.
    Create {
        /// What it connects to.
        kind: IntegrationKind,
        /// What people call it.
        title: Name,
        /// The data key that everything of it is sealed under.
        key: String,
        /// Its configuration, checked against its kind and sealed.
        config: Sealed,
        /// Its secrets, checked against its kind and sealed.
        secrets: BTreeMap<String, Sealed>,
    },
    /// Change what is given, leave the rest. The same text sealed twice is two texts: send only what
    /// really changes.
    Change {
        /// The data key that this was sealed under.
        key: String,
        /// Another title.
        title: Option<Name>,
        /// Another configuration.
        config: Option<Sealed>,
        /// Other secrets.
        secrets: BTreeMap<String, Sealed>,
        /// Secrets that are to go.
        removed: BTreeSet<String>,
        /// Let it be used, or not.
        enabled: Option<bool>,
    },
    /// Seal everything under another data key.
    RotateKey {
        /// How many times the secrets had been changed when they were read.
        secrets_version: u64,
        /// The new data key.
        key: String,
        /// Its configuration, sealed under that.
        config: Sealed,
        /// All of its secrets, sealed under that.
        secrets: BTreeMap<String, Sealed>,
    },
    /// Remove it.
    Delete,
    /// Write down that its data keys are gone.
    Erase,
}

/// An integration.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub enum Integration {
    /// Not made yet.
    #[default]
    Missing,
    /// Made.
    Present(Box<IntegrationDetails>),
    /// Gone for good; these data keys go with it.
    Deleted(BTreeSet<String>),
    /// Gone, and what it was told too.
    Erased,
}

/// What there is to know of an integration without opening anything.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct IntegrationDetails {
    /// What it connects to.
    pub kind: IntegrationKind,
    /// What people call it.
    pub title: Name,
    /// Whether it may be used.
    pub enabled: bool,
    /// The data key that everything of it is sealed under.
    pub key: String,
    /// The data keys before it, which are to be shredded.
    pub given_up: BTreeSet<String>,
    /// The names of its secrets.
    pub secrets: BTreeSet<String>,
    /// How many times its secrets have been changed, and one.
    pub secrets_version: u64,
}

impl Integration {
    /// The data keys that are to be shredded.
    pub fn keys_given_up(&self) -> BTreeSet<String> {
        match self {
            Integration::Missing | Integration::Erased => BTreeSet::new(),
            Integration::Present(details) => details.given_up.clone(),
            Integration::Deleted(keys) => keys.clone(),
        }
    }

    /// Answers a command with events or a refusal.
    pub fn decide(
        &self,
        command: IntegrationCommand,
    ) -> Result<Vec<IntegrationEvent>, IntegrationError> {
        use {IntegrationCommand as Do, IntegrationEvent as Did};
        match (self, command) {
            (Integration::Missing, Do::Create { kind, title, key, config, secrets }) => {
                Ok(vec![Did::Created { kind, title, key, config, secrets }])
            }
            (_, Do::Create { .. }) => Err(IntegrationError::AlreadyExists),
            (Integration::Deleted(_), Do::Erase) => Ok(vec![Did::Erased {}]),
            (Integration::Erased, Do::Erase) => Ok(vec![]),
            (Integration::Present(_), Do::Erase) => Err(IntegrationError::NotDeleted),
            (Integration::Missing | Integration::Deleted(_) | Integration::Erased, _) => {
                Err(IntegrationError::NotFound)
            }
            (Integration::Present(integration), command) => integration.decide(command),
        }
    }
}

impl IntegrationDetails {
    fn decide(
        &self,
        command: IntegrationCommand,
    ) -> Result<Vec<IntegrationEvent>, IntegrationError> {
        use {IntegrationCommand as Do, IntegrationEvent as Did};
        match command {
            Do::Create { .. } => Err(IntegrationError::AlreadyExists),
            Do::Erase => Err(IntegrationError::NotDeleted),
            Do::Delete => Ok(vec![Did::Deleted {}]),
            Do::Change { key, title, config, secrets, removed, enabled } => {
                let seals = config.is_some() || !secrets.is_empty();
                if seals && key != self.key {
                    return Err(IntegrationError::KeyChanged);
                }
                let renamed =
                    title.filter(|title| *title != self.title).map(|title| Did::Renamed { title });
                let configured = config.map(|config| Did::Configured { config });
                let removed: BTreeSet<String> = removed
                    .into_iter()
                    .filter(|name| self.secrets.contains(name) && !secrets.contains_key(name))
                    .collect();
                let changes = !secrets.is_empty() || !removed.is_empty();
                let changed = changes.then_some(Did::SecretsChanged {
                    secrets,
                    removed,
                    secrets_version: self.secrets_version + 1,
                });
                let switched = match (self.enabled, enabled) {
                    (false, Some(true)) => Some(Did::Enabled {}),
                    (true, Some(false)) => Some(Did::Disabled {}),
                    _ => None,
                };
                Ok([renamed, configured, changed, switched].into_iter().flatten().collect())
            }
            Do::RotateKey { secrets_version, key, config, secrets } => {
                let is_whole = self.secrets.iter().eq(secrets.keys());
                if secrets_version != self.secrets_version || !is_whole {
                    return Err(IntegrationError::KeyChanged);
                }
                if key == self.key || self.given_up.contains(&key) {
                    return Err(IntegrationError::KeyUsed);
                }
                Ok(vec![Did::KeyRotated { key, config, secrets }])
            }
        }
    }

    fn apply(&mut self, event: IntegrationEvent) {
        match event {
            IntegrationEvent::Created { .. }
            | IntegrationEvent::Configured { .. }
            | IntegrationEvent::Deleted {}
            | IntegrationEvent::Erased {} => {}
            IntegrationEvent::Renamed { title } => self.title = title,
            IntegrationEvent::SecretsChanged { secrets, removed, secrets_version } => {
                self.secrets.retain(|name| !removed.contains(name));
                self.secrets.extend(secrets.into_keys());
                self.secrets_version = secrets_version;
            }
            IntegrationEvent::Enabled {} => self.enabled = true,
            IntegrationEvent::Disabled {} => self.enabled = false,
            IntegrationEvent::KeyRotated { key, .. } => {
                self.given_up.insert(std::mem::replace(&mut self.key, key));
            }
        }
    }
}

/// Why an integration refused a command.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IntegrationError {
    /// There is no such integration, or no more.
    #[error("there is no such integration: list those of the product to see which there are")]
    NotFound,
    /// The id is taken, or was.
    #[error("the integration exists already: change that one, or make another")]
    AlreadyExists,
    /// Only what is deleted is erased.
    #[error("the integration is not deleted: delete it first")]
    NotDeleted,
    /// Something was sealed for a state that is past.
    #[error("the integration was changed meanwhile: read it again, then retry")]
    KeyChanged,
    /// A data key seals for one time only.
    #[error("the integration had this data key before: take a new one")]
    KeyUsed,
}

impl Refusal for IntegrationError {
    fn reason(&self) -> (RefusalKind, &'static str) {
        match self {
            IntegrationError::NotFound => (RefusalKind::NotFound, "integration_not_found"),
            IntegrationError::AlreadyExists => {
                (RefusalKind::Conflict, "integration_already_exists")
            }
            IntegrationError::NotDeleted => (RefusalKind::Conflict, "integration_not_deleted"),
            IntegrationError::KeyChanged => (RefusalKind::Conflict, "integration_changed"),
            IntegrationError::KeyUsed => (RefusalKind::Conflict, "integration_key_used"),
        }
    }
}

impl Aggregate for Integration {
    const TYPE: &'static str = "integration";
    type Command = IntegrationCommand;
    type Event = IntegrationEvent;
    type Error = IntegrationError;
    type Services = ();

    async fn handle(
        &mut self,
        command: IntegrationCommand,
        _: &(),
        sink: &EventSink<Self>,
    ) -> Result<(), IntegrationError> {
        for event in self.decide(command)? {
            sink.write(event, self).await;
        }
        Ok(())
    }

    fn apply(&mut self, event: IntegrationEvent) {
        match (&mut *self, event) {
            (_, IntegrationEvent::Created { kind, title, key, config: _, secrets }) => {
                *self = Integration::Present(Box::new(IntegrationDetails {
                    kind,
                    title,
                    enabled: true,
                    key,
                    given_up: BTreeSet::new(),
                    secrets: secrets.into_keys().collect(),
                    secrets_version: 1,
                }));
            }
            (Integration::Present(details), IntegrationEvent::Deleted {}) => {
                let mut keys = std::mem::take(&mut details.given_up);
                keys.insert(std::mem::take(&mut details.key));
                *self = Integration::Deleted(keys);
            }
            (_, IntegrationEvent::Erased {}) => *self = Integration::Erased,
            (Integration::Present(details), event) => details.apply(event),
            (Integration::Missing | Integration::Deleted(_) | Integration::Erased, _) => {}
        }
    }
}

impl DomainEvent for IntegrationEvent {
    fn event_type(&self) -> String {
        event::name_of(self).to_owned()
    }

    fn event_version(&self) -> String {
        event::version_of(event::name_of(self)).to_owned()
    }
}

#[cfg(test)]
mod tests;
