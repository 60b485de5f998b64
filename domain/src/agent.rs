//! An agent: a module that is installed in a product, from a manifest.
//!
//! Life: `Missing` → `Installed` → `Uninstalled`, and never back. An agent has versions, one of which is
//! active. The event that brings a version fixes its id and those of its triggers, so that a crash in
//! between cannot make two. Which version is active is one event; configuration and bindings are the
//! agent's, whatever version it runs (decision 17).

use std::collections::{BTreeMap, BTreeSet};

use cqrs_es::event_sink::EventSink;
use cqrs_es::{Aggregate, DomainEvent};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use uuid::Uuid;

use crate::event;
use crate::manifest::Manifest;
use crate::refusal::{Fault, Refusal, RefusalKind};
use crate::trigger::TriggerKind;
use crate::values::{Digest, Name, Object, Sealed, derived_id};

/// The most versions an agent may have: its stream is read whole where it is not in memory.
pub const MAX_VERSIONS: usize = 200;

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
    /// It got another version. Which one runs is another event.
    #[serde(rename = "agent.version_published.v1")]
    VersionPublished {
        /// Names this version of this agent.
        version_id: Uuid,
        /// The name of its manifest: that of the agent.
        name: String,
        /// The version of its manifest.
        version: String,
        /// The SHA-256 of its manifest in canonical form.
        digest: Digest,
        /// Its manifest.
        manifest: Object,
        /// What starts it while it is the active one.
        triggers: Vec<AgentTrigger>,
    },
    /// From now on this version runs.
    #[serde(rename = "agent.version_activated.v1")]
    VersionActivated {
        /// Which one.
        version_id: Uuid,
    },
    /// Something else stands in some slots.
    #[serde(rename = "agent.bound.v1")]
    Bound {
        /// What stands in them now; others stay as they are.
        bindings: BTreeMap<String, Uuid>,
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
    /// Give it another version.
    Publish {
        /// Its manifest, which was found to be valid.
        manifest: Box<Manifest>,
        /// Names this version of this agent.
        version_id: Uuid,
        /// Let it run from now on.
        activate: bool,
        /// Another configuration, as in `Change`.
        config: Option<Sealed>,
        /// What is to stand in slots of this version; others stay as they are.
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
        /// The version that is to run, whose schema the configuration was found to fit.
        version_id: Option<Uuid>,
        /// What is to stand in slots of that version; others stay as they are.
        bindings: BTreeMap<String, Uuid>,
    },
    /// Remove it.
    Uninstall,
}

/// A trigger as the event that brings its version fixes it.
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

/// What there is to know of an installed agent. Manifests are not: they are large, and a state is
/// copied for every command.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Installation {
    /// What people call it.
    pub title: Name,
    /// The name of its manifests.
    pub name: String,
    /// Its versions, oldest first.
    pub versions: Vec<Version>,
    /// The version that runs.
    pub version_id: Uuid,
    /// Its configuration.
    pub config: Option<Config>,
    /// What stands in the slots of its versions. A slot of one name is one slot in all of them.
    pub bindings: BTreeMap<String, Uuid>,
    /// Whether it may run.
    pub enabled: bool,
    /// How many events led here.
    pub sequence: u64,
}

/// A version of an agent.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Version {
    /// Its id.
    pub id: Uuid,
    /// The version of its manifest.
    pub version: String,
    /// The SHA-256 of its manifest in canonical form.
    pub digest: Digest,
    /// The slots that its manifest names.
    pub slots: BTreeSet<String>,
    /// The sequence of the event that carries its manifest.
    pub sequence: u64,
}

/// A configuration, and which event it was sealed for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Config {
    /// The text.
    pub sealed: Sealed,
    /// It came when the agent was installed, and not later.
    pub is_first: bool,
}

impl Installation {
    /// One of its versions.
    pub fn version(&self, id: Uuid) -> Option<&Version> {
        self.versions.iter().find(|version| version.id == id)
    }

    /// The version of this id, or the active one without.
    ///
    /// # Errors
    /// It has no such version.
    pub fn version_or_active(&self, id: Option<Uuid>) -> Result<&Version, AgentError> {
        self.version(id.unwrap_or(self.version_id)).ok_or(AgentError::UnknownVersion)
    }

    fn check_slots(
        bindings: &BTreeMap<String, Uuid>,
        is_there: impl Fn(&str) -> bool,
    ) -> Result<(), AgentError> {
        match bindings.keys().find(|slot| !is_there(slot)) {
            Some(slot) => Err(AgentError::UnknownSlot(slot.clone())),
            None => Ok(()),
        }
    }

    /// The event that binds what is not bound so already.
    fn bind(&self, mut bindings: BTreeMap<String, Uuid>) -> Option<AgentEvent> {
        bindings.retain(|slot, bound| self.bindings.get(slot) != Some(bound));
        (!bindings.is_empty()).then_some(AgentEvent::Bound { bindings })
    }

    /// Whether a manifest can be the next version.
    fn check_new(&self, manifest: &Manifest) -> Result<(), AgentError> {
        if manifest.name != self.name {
            return Err(AgentError::OtherName(self.name.clone()));
        }
        let digest = manifest.digest();
        if let Some(known) = self.versions.iter().find(|known| known.digest == digest) {
            return Err(AgentError::AlreadyPublished(known.version.clone(), known.id));
        }
        if self.versions.iter().any(|known| known.version == manifest.version) {
            return Err(AgentError::VersionTaken(manifest.version.clone()));
        }
        if self.versions.len() >= MAX_VERSIONS {
            return Err(AgentError::TooManyVersions);
        }
        Ok(())
    }
}

impl Agent {
    /// The agent, if it is installed.
    ///
    /// # Errors
    /// It is not, or not any more.
    pub fn installation(&self) -> Result<&Installation, AgentError> {
        match self {
            Agent::Missing | Agent::Uninstalled => Err(AgentError::NotFound),
            Agent::Installed(installation) => Ok(installation),
        }
    }

    /// The agent, if it may be executed now.
    ///
    /// # Errors
    /// When it is not installed, or disabled.
    pub fn runnable(&self) -> Result<&Installation, AgentError> {
        match self.installation()? {
            installation if !installation.enabled => Err(AgentError::Disabled),
            installation => Ok(installation),
        }
    }

    /// Answers a command with events or a refusal.
    pub fn decide(&self, command: AgentCommand) -> Result<Vec<AgentEvent>, AgentError> {
        use {AgentCommand as Do, AgentEvent as Did};
        match (self, command) {
            (Agent::Missing, Do::Install { title, manifest, version_id, config, bindings }) => {
                Installation::check_slots(&bindings, |slot| manifest.has_slot(slot))?;
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
            (
                Agent::Missing | Agent::Uninstalled,
                Do::Publish { .. } | Do::Change { .. } | Do::Uninstall,
            ) => Err(AgentError::NotFound),
            (
                Agent::Installed(agent),
                Do::Publish { manifest, version_id, activate, config, bindings },
            ) => {
                agent.check_new(&manifest)?;
                Installation::check_slots(&bindings, |slot| manifest.has_slot(slot))?;
                let published = Did::VersionPublished {
                    version_id,
                    name: manifest.name.clone(),
                    version: manifest.version.clone(),
                    digest: manifest.digest(),
                    manifest: manifest.canonical().clone(),
                    triggers: triggers(&manifest, version_id),
                };
                let configured = config.map(|config| Did::Configured { config });
                let activated = activate.then_some(Did::VersionActivated { version_id });
                let bound = agent.bind(bindings);
                let after = [configured, bound, activated].into_iter().flatten();
                Ok([published].into_iter().chain(after).collect())
            }
            (
                Agent::Installed(agent),
                Do::Change { title, config, enabled, version_id, bindings },
            ) => {
                let version = agent.version_or_active(version_id)?;
                Installation::check_slots(&bindings, |slot| version.slots.contains(slot))?;
                let title = title.filter(|title| *title != agent.title);
                let changed = title.map(|title| Did::Changed { title: Some(title) });
                let configured = config.map(|config| Did::Configured { config });
                let bound = agent.bind(bindings);
                let activated = (version.id != agent.version_id)
                    .then_some(Did::VersionActivated { version_id: version.id });
                let switched = match (agent.enabled, enabled) {
                    (false, Some(true)) => Some(Did::Enabled {}),
                    (true, Some(false)) => Some(Did::Disabled {}),
                    _ => None,
                };
                let events = [changed, configured, bound, activated, switched];
                Ok(events.into_iter().flatten().collect())
            }
            (Agent::Installed(_), Do::Uninstall) => Ok(vec![Did::Uninstalled {}]),
        }
    }
}

/// The triggers of a version.
fn triggers(manifest: &Manifest, version_id: Uuid) -> Vec<AgentTrigger> {
    let with_id = |trigger: &crate::manifest::TriggerSpec| AgentTrigger {
        id: trigger_id(version_id, &trigger.key),
        key: trigger.key.clone(),
        kind: trigger.kind,
        enabled: true,
        configuration: trigger.configuration.clone(),
    };
    manifest.triggers.iter().map(with_id).collect()
}

/// The id of a trigger that a manifest names. It follows from its version's, so that no two attempts to
/// complete an installation disagree, and that a trigger made later can be told from it.
pub fn trigger_id(version_id: Uuid, key: &str) -> Uuid {
    derived_id(&[b"trigger", version_id.as_bytes(), key.as_bytes()])
}

/// The slots that a stored manifest names.
fn slots(manifest: &Object) -> BTreeSet<String> {
    let requires = manifest.get("requires").and_then(Value::as_object);
    let lists = ["knowledge", "integrations"].into_iter().filter_map(|kind| requires?.get(kind));
    let slots = lists.filter_map(Value::as_array).flatten();
    let slots = slots.chain(requires.and_then(|it| it.get("model")));
    slots.filter_map(|slot| Some(slot.get("slot")?.as_str()?.to_owned())).collect()
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
    /// A version is one of this agent, and no other's.
    #[error(
        "a version of this agent has the name `{0}`: install another one as an agent of its own"
    )]
    OtherName(String),
    /// The very same manifest is one of its versions.
    #[error(
        "the agent has this manifest already, as its version {0} (version_id {1}): activate that one"
    )]
    AlreadyPublished(String, Uuid),
    /// Another manifest is this version of it.
    #[error(
        "the agent has a version {0} already, which is another manifest: publish this one under another version"
    )]
    VersionTaken(String),
    /// It has as many as it may have.
    #[error(
        "the agent has {MAX_VERSIONS} versions, the most it may have: install this one as another agent"
    )]
    TooManyVersions,
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
            AgentError::OtherName(_) => (RefusalKind::Invalid, "manifest_name_differs"),
            AgentError::AlreadyPublished(..) => {
                (RefusalKind::Conflict, "version_already_published")
            }
            AgentError::VersionTaken(_) => (RefusalKind::Conflict, "manifest_version_taken"),
            AgentError::TooManyVersions => (RefusalKind::Conflict, "versions_count"),
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
            AgentError::OtherName(_) => {
                vec![Fault::new("/manifest/name", self.reason().1, self.to_string())]
            }
            AgentError::NotFound
            | AgentError::AlreadyInstalled
            | AgentError::Disabled
            | AgentError::AlreadyPublished(..)
            | AgentError::VersionTaken(_)
            | AgentError::TooManyVersions => vec![],
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
        if let Agent::Installed(agent) = self {
            agent.sequence += 1;
        }
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
                    triggers: _,
                },
            ) => {
                let slots = slots(&manifest);
                *self = Agent::Installed(Box::new(Installation {
                    title,
                    name,
                    versions: vec![Version { id: version_id, version, digest, slots, sequence: 1 }],
                    version_id,
                    config: config.map(|sealed| Config { sealed, is_first: true }),
                    bindings,
                    enabled: true,
                    sequence: 1,
                }));
            }
            (_, AgentEvent::Uninstalled {}) => *self = Agent::Uninstalled,
            (
                Agent::Installed(agent),
                AgentEvent::VersionPublished { version_id: id, version, digest, manifest, .. },
            ) => {
                let (slots, sequence) = (slots(&manifest), agent.sequence);
                agent.versions.push(Version { id, version, digest, slots, sequence });
            }
            (Agent::Installed(agent), AgentEvent::VersionActivated { version_id }) => {
                agent.version_id = version_id;
            }
            (Agent::Installed(agent), AgentEvent::Bound { bindings }) => {
                agent.bindings.extend(bindings);
            }
            (Agent::Installed(agent), AgentEvent::Changed { title }) => {
                title.into_iter().for_each(|title| agent.title = title);
            }
            (Agent::Installed(agent), AgentEvent::Configured { config }) => {
                agent.config = Some(Config { sealed: config, is_first: false });
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
