//! An agent: a module that is installed in a product, from a manifest.
//!
//! Life: `Missing` → `Installed` → `Uninstalled`, and never back. Its first event fixes the ids of its
//! version and of its triggers, so that a crash in between cannot make two.

use std::collections::BTreeMap;

use cqrs_es::event_sink::EventSink;
use cqrs_es::{Aggregate, DomainEvent};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::event;
use crate::manifest::Manifest;
use crate::refusal::{Fault, Refusal, RefusalKind};
use crate::trigger::TriggerKind;
use crate::values::{Digest, Name, Object, Sealed, derived_id};

/// What has happened to an agent.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum AgentEvent {
    /// It was installed.
    #[serde(rename = "agent.installed.v1")]
    Installed {
        /// What people call it.
        title: Name,
        /// The name of its manifest, as `acme.counter`.
        name: String,
        /// The version of its manifest.
        version: String,
        /// The SHA-256 of its manifest in canonical form.
        digest: Digest,
        /// Its manifest.
        manifest: Object,
        /// Names this version of this agent.
        version_id: Uuid,
        /// Its configuration, sealed.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        config: Option<Sealed>,
        /// What stands in the manifest's slots.
        bindings: BTreeMap<String, Uuid>,
        /// What starts it.
        triggers: Vec<AgentTrigger>,
    },
    /// What is given was changed.
    #[serde(rename = "agent.changed.v1")]
    Changed {
        /// Another title.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        title: Option<Name>,
    },
    /// It got another configuration.
    #[serde(rename = "agent.configured.v1")]
    Configured {
        /// Its configuration, sealed.
        config: Sealed,
    },
    /// It may run again.
    #[serde(rename = "agent.enabled.v1")]
    Enabled {},
    /// It may not run for now.
    #[serde(rename = "agent.disabled.v1")]
    Disabled {},
    /// It is gone.
    #[serde(rename = "agent.uninstalled.v1")]
    Uninstalled {},
}

/// What one may ask of an agent.
#[derive(Clone, Debug, PartialEq)]
pub enum AgentCommand {
    /// Install it.
    Install {
        /// What people call it.
        title: Name,
        /// Its manifest, which was found to be valid.
        manifest: Box<Manifest>,
        /// Names this version of this agent.
        version_id: Uuid,
        /// Its configuration, checked against the manifest and sealed.
        config: Option<Sealed>,
        /// What stands in the manifest's slots.
        bindings: BTreeMap<String, Uuid>,
    },
    /// Change what is given, leave the rest.
    Change {
        /// Another title.
        title: Option<Name>,
        /// Another configuration, checked against the manifest and sealed. The same text sealed
        /// twice is two texts: send it only when it really changes.
        config: Option<Sealed>,
        /// Let it run, or not.
        enabled: Option<bool>,
    },
    /// Remove it.
    Uninstall,
}

/// A trigger as the agent's first event fixes it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AgentTrigger {
    /// Its own id.
    pub id: Uuid,
    /// Its id in the manifest.
    pub key: String,
    /// What it listens to.
    #[serde(rename = "type")]
    pub kind: TriggerKind,
    /// Whether it listens.
    pub enabled: bool,
    /// What its kind needs to know.
    pub configuration: Object,
}

/// An agent.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub enum Agent {
    /// Not installed yet.
    #[default]
    Missing,
    /// Installed.
    Installed(Box<Installation>),
    /// Gone for good.
    Uninstalled,
}

/// What there is to know of an installed agent.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Installation {
    /// What people call it.
    pub title: Name,
    /// The name of its manifest.
    pub name: String,
    /// The version of its manifest.
    pub version: String,
    /// The SHA-256 of its manifest in canonical form.
    pub digest: Digest,
    /// Its manifest.
    pub manifest: Object,
    /// Names this version of this agent.
    pub version_id: Uuid,
    /// Its configuration, sealed.
    pub config: Option<Sealed>,
    /// What stands in the manifest's slots.
    pub bindings: BTreeMap<String, Uuid>,
    /// What starts it.
    pub triggers: Vec<AgentTrigger>,
    /// Whether it may run.
    pub enabled: bool,
}

impl Agent {
    /// The agent, if it may be executed now.
    ///
    /// # Errors
    /// When it is not installed, or disabled.
    pub fn runnable(&self) -> Result<&Installation, AgentError> {
        match self {
            Agent::Missing | Agent::Uninstalled => Err(AgentError::NotFound),
            Agent::Installed(installation) if !installation.enabled => Err(AgentError::Disabled),
            Agent::Installed(installation) => Ok(installation),
        }
    }

    /// Answers a command with events or a refusal.
    pub fn decide(&self, command: AgentCommand) -> Result<Vec<AgentEvent>, AgentError> {
        use {AgentCommand as Do, AgentEvent as Did};
        match (self, command) {
            (Agent::Missing, Do::Install { title, manifest, version_id, config, bindings }) => {
                if let Some(slot) = bindings.keys().find(|slot| !manifest.has_slot(slot)) {
                    return Err(AgentError::UnknownSlot(slot.clone()));
                }
                Ok(vec![Did::Installed {
                    title,
                    name: manifest.name.clone(),
                    version: manifest.version.clone(),
                    digest: manifest.digest(),
                    manifest: manifest.canonical().clone(),
                    version_id,
                    config,
                    bindings,
                    triggers: triggers(&manifest, version_id),
                }])
            }
            (Agent::Installed(_) | Agent::Uninstalled, Do::Install { .. }) => {
                Err(AgentError::AlreadyInstalled)
            }
            (Agent::Missing | Agent::Uninstalled, Do::Change { .. } | Do::Uninstall) => {
                Err(AgentError::NotFound)
            }
            (Agent::Installed(agent), Do::Change { title, config, enabled }) => {
                let title = title.filter(|title| *title != agent.title);
                let changed = title.map(|title| Did::Changed { title: Some(title) });
                let configured = config.map(|config| Did::Configured { config });
                let switched = match (agent.enabled, enabled) {
                    (false, Some(true)) => Some(Did::Enabled {}),
                    (true, Some(false)) => Some(Did::Disabled {}),
                    _ => None,
                };
                Ok([changed, configured, switched].into_iter().flatten().collect())
            }
            (Agent::Installed(_), Do::Uninstall) => Ok(vec![Did::Uninstalled {}]),
        }
    }
}

/// The triggers of a version: their ids follow from the version's, so that no two attempts to
/// complete an installation disagree.
fn triggers(manifest: &Manifest, version_id: Uuid) -> Vec<AgentTrigger> {
    let with_id = |trigger: &crate::manifest::TriggerSpec| AgentTrigger {
        id: derived_id(&[b"trigger", version_id.as_bytes(), trigger.key.as_bytes()]),
        key: trigger.key.clone(),
        kind: trigger.kind,
        enabled: true,
        configuration: trigger.configuration.clone(),
    };
    manifest.triggers.iter().map(with_id).collect()
}

/// Why an agent refused a command.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AgentError {
    /// There is no such agent, or no more.
    #[error("there is no such agent: list those of the product to see which there are")]
    NotFound,
    /// The id is taken, or was.
    #[error("the agent is installed already: use that one, or install another")]
    AlreadyInstalled,
    /// It is switched off.
    #[error("the agent is disabled: enable it before you execute it")]
    Disabled,
    /// It has no version of that id.
    #[error("the agent has no such version: look at the agent to see which it has")]
    UnknownVersion,
    /// Something is bound to nothing.
    #[error("the manifest has no slot `{0}`: bind only the slots that it names in `requires`")]
    UnknownSlot(String),
}

impl Refusal for AgentError {
    fn reason(&self) -> (RefusalKind, &'static str) {
        match self {
            AgentError::NotFound => (RefusalKind::NotFound, "agent_not_found"),
            AgentError::AlreadyInstalled => (RefusalKind::Conflict, "agent_already_installed"),
            AgentError::Disabled => (RefusalKind::Conflict, "agent_disabled"),
            AgentError::UnknownVersion => (RefusalKind::Invalid, "version_not_found"),
            AgentError::UnknownSlot(_) => (RefusalKind::Invalid, "slot_unknown"),
        }
    }

    fn faults(&self) -> Vec<Fault> {
        match self {
            AgentError::UnknownSlot(slot) => {
                let pointer = format!("/bindings/{}", crate::refusal::pointer_segment(slot));
                vec![Fault::new(pointer, self.reason().1, self.to_string())]
            }
            AgentError::UnknownVersion => {
                vec![Fault::new("/version_id", self.reason().1, self.to_string())]
            }
            AgentError::NotFound | AgentError::AlreadyInstalled | AgentError::Disabled => vec![],
        }
    }
}

impl Aggregate for Agent {
    const TYPE: &'static str = "agent";
    type Command = AgentCommand;
    type Event = AgentEvent;
    type Error = AgentError;
    type Services = ();

    async fn handle(
        &mut self,
        command: AgentCommand,
        _: &(),
        sink: &EventSink<Self>,
    ) -> Result<(), AgentError> {
        for event in self.decide(command)? {
            sink.write(event, self).await;
        }
        Ok(())
    }

    fn apply(&mut self, event: AgentEvent) {
        match (&mut *self, event) {
            (
                _,
                AgentEvent::Installed {
                    title,
                    name,
                    version,
                    digest,
                    manifest,
                    version_id,
                    config,
                    bindings,
                    triggers,
                },
            ) => {
                *self = Agent::Installed(Box::new(Installation {
                    title,
                    name,
                    version,
                    digest,
                    manifest,
                    version_id,
                    config,
                    bindings,
                    triggers,
                    enabled: true,
                }));
            }
            (_, AgentEvent::Uninstalled {}) => *self = Agent::Uninstalled,
            (Agent::Installed(agent), AgentEvent::Changed { title }) => {
                title.into_iter().for_each(|title| agent.title = title);
            }
            (Agent::Installed(agent), AgentEvent::Configured { config }) => {
                agent.config = Some(config);
            }
            (Agent::Installed(agent), AgentEvent::Enabled {}) => agent.enabled = true,
            (Agent::Installed(agent), AgentEvent::Disabled {}) => agent.enabled = false,
            (Agent::Missing | Agent::Uninstalled, _) => {}
        }
    }
}

impl DomainEvent for AgentEvent {
    fn event_type(&self) -> String {
        event::name_of(self).to_owned()
    }

    fn event_version(&self) -> String {
        event::version_of(event::name_of(self)).to_owned()
    }
}

#[cfg(test)]
mod tests;
