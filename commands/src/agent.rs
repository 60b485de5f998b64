//! Agents: installing a manifest in a product, configuring it, uninstalling it.

use std::collections::BTreeMap;

use domain::Name;
use domain::agent::{Agent, AgentCommand, AgentEvent};
use domain::manifest::Manifest;
use domain::trigger::{Trigger, TriggerCommand, TriggerDetails};
use eventlog::StreamId;
use serde_json::Value;
use uuid::Uuid;

use crate::execute::decode_event;
use crate::seal::product_key;
use crate::{Ask, Commands, Done, Error};

const INSTALLED: &str = "agent.installed.v1";
const CONFIGURED: &str = "agent.configured.v1";
const CONFIG: &str = "config";

/// An agent that is to be installed, in the product of the one who asks.
pub struct NewAgent {
    /// What it does.
    pub manifest: Manifest,
    /// What people call it; the manifest's title without it.
    pub title: Option<Name>,
    /// Its configuration.
    pub config: Option<Value>,
    /// What stands in the manifest's slots.
    pub bindings: BTreeMap<String, Uuid>,
}

/// What is to be changed of an agent; nothing that is `None`.
#[derive(Default)]
pub struct AgentChange {
    /// Another title.
    pub title: Option<Name>,
    /// Another configuration, whole.
    pub config: Option<Value>,
    /// Switched on or off.
    pub enabled: Option<bool>,
}

impl Commands {
    /// Installs an agent and makes its triggers. The ids of both stand in the first event, so that a
    /// cut between the two is mended by asking again.
    ///
    /// # Errors
    /// The configuration does not fit the manifest, or a binding names no slot of it.
    pub async fn install_agent(&self, new: NewAgent, ask: &Ask) -> Result<Done, Error> {
        let config = new
            .manifest
            .check_config(new.config)
            .map_err(|invalid| Error::refused(&invalid).within("/config"))?;
        let agent = ask.new_id("agent");
        let stream = StreamId::new("agent", agent);
        let config = self.seal_config(ask, &stream, INSTALLED, &config).await?;
        let install = AgentCommand::Install {
            title: new.title.unwrap_or_else(|| new.manifest.title.clone()),
            manifest: Box::new(new.manifest),
            version_id: ask.new_id("version"),
            config: Some(config),
            bindings: new.bindings,
        };
        let done = self.execute::<Agent>(agent, install, ask).await?;
        self.complete_agent(done.stream_id().unwrap_or(agent)).await?;
        Ok(done)
    }

    /// Changes an agent. A secret that comes back as it was shown, masked, stays as it is.
    ///
    /// # Errors
    /// The configuration does not fit the manifest.
    pub async fn change_agent(
        &self,
        agent: Uuid,
        change: AgentChange,
        ask: &Ask,
    ) -> Result<Done, Error> {
        let stream = StreamId::new("agent", agent);
        let config = match change.config {
            Some(config) => {
                let manifest = self.manifest_of(agent).await?;
                let present = self.config_of(agent).await?;
                let config = unmask(&manifest, config, &present);
                let checked = manifest
                    .check_config(Some(config))
                    .map_err(|invalid| Error::refused(&invalid).within("/config"))?;
                let changes = checked != present;
                if changes {
                    Some(self.seal_config(ask, &stream, CONFIGURED, &checked).await?)
                } else {
                    None
                }
            }
            None => None,
        };
        let command = AgentCommand::Change { title: change.title, config, enabled: change.enabled };
        self.execute::<Agent>(agent, command, ask).await
    }

    /// Uninstalls an agent. Its history stays.
    ///
    /// # Errors
    /// There is none of that id.
    pub async fn uninstall_agent(&self, agent: Uuid, ask: &Ask) -> Result<Done, Error> {
        let done = self.execute::<Agent>(agent, AgentCommand::Uninstall, ask).await?;
        self.complete_agent(agent).await?;
        Ok(done)
    }

    /// Removes triggers of an uninstalled agent: those that were made after it was installed are not
    /// named by its own events.
    ///
    /// # Errors
    /// Log or vault fail.
    pub async fn remove_left_triggers(
        &self,
        agent: Uuid,
        triggers: Vec<Uuid>,
    ) -> Result<(), Error> {
        let stream = StreamId::new("agent", agent);
        let (state, sequence) = self.load::<Agent>(&stream).await?;
        if state != Agent::Uninstalled {
            return Ok(());
        }
        let last = self.log.read_stream(&stream, sequence - 1, 1).await?;
        let Some(uninstalled) = last.first() else { return Ok(()) };
        for trigger in triggers {
            let stream = StreamId::new("trigger", trigger);
            let Trigger::Active(known) = self.load::<Trigger>(&stream).await?.0 else { continue };
            if known.agent != agent {
                continue;
            }
            let ask = Ask::because_of(
                uninstalled,
                "completion",
                &[b"delete left trigger", trigger.as_bytes()],
            );
            match self.execute::<Trigger>(trigger, TriggerCommand::Delete, &ask).await {
                // Several may be at it.
                Ok(_) | Err(Error::Refused { .. } | Error::Conflict) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Makes the triggers of an installed agent that are missing, and removes those of an
    /// uninstalled one.
    pub(crate) async fn complete_agent(&self, agent: Uuid) -> Result<(), Error> {
        let stream = StreamId::new("agent", agent);
        let (state, sequence) = self.load::<Agent>(&stream).await?;
        let first = self.log.read_stream(&stream, 0, 1).await?;
        let Some(event) = first.first() else { return Ok(()) };
        let AgentEvent::Installed { version_id, triggers, .. } = decode_event::<AgentEvent>(event)?
        else {
            return Ok(());
        };
        let is_uninstalled = state == Agent::Uninstalled;
        for trigger in triggers {
            let known = self.load::<Trigger>(&StreamId::new("trigger", trigger.id)).await?.0;
            let command = match (known, is_uninstalled) {
                (Trigger::Missing, false) => TriggerCommand::Create(TriggerDetails {
                    agent,
                    version_id,
                    key: trigger.key,
                    kind: trigger.kind,
                    enabled: trigger.enabled,
                    configuration: trigger.configuration,
                }),
                (Trigger::Active(_), true) => TriggerCommand::Delete,
                _ => continue,
            };
            let what: &[u8] = if is_uninstalled { b"delete trigger" } else { b"create trigger" };
            let ask = Ask::because_of(
                event,
                "completion",
                &[what, trigger.id.as_bytes(), &sequence.to_be_bytes()],
            );
            match self.execute::<Trigger>(trigger.id, command, &ask).await {
                // The process manager and the handler may both be at it.
                Ok(_) | Err(Error::Refused { .. } | Error::Conflict) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// The manifest of an agent, uninstalled or not.
    ///
    /// # Errors
    /// There is none of that id, or its manifest is no longer understood.
    pub async fn manifest_of(&self, agent: Uuid) -> Result<Manifest, Error> {
        let first = self.log.read_stream(&StreamId::new("agent", agent), 0, 1).await?;
        let missing = || Error::refused(&domain::agent::AgentError::NotFound);
        match decode_event::<AgentEvent>(first.first().ok_or_else(missing)?)? {
            AgentEvent::Installed { manifest, .. } => Manifest::accept(&Value::Object(manifest))
                .map_err(|invalid| Error::refused(&invalid)),
            _ => Err(missing()),
        }
    }

    /// The configuration of an agent, secrets in the clear; an empty one when its key was shredded.
    ///
    /// # Errors
    /// Log or vault fail.
    pub(crate) async fn config_of(&self, agent: Uuid) -> Result<Value, Error> {
        let stream = StreamId::new("agent", agent);
        let mut latest = None;
        for event in self.whole_stream(&stream).await? {
            match decode_event::<AgentEvent>(&event)? {
                AgentEvent::Installed { config: Some(config), .. }
                | AgentEvent::Configured { config } => {
                    latest = Some((event, config));
                }
                _ => {}
            }
        }
        let empty = || Value::Object(serde_json::Map::new());
        let Some((event, sealed)) = latest else { return Ok(empty()) };
        let opened =
            self.unseal(event.organization, &stream, &event.event_type, CONFIG, &sealed).await?;
        let text = opened.unwrap_or_default();
        Ok(serde_json::from_slice(&text).unwrap_or_else(|_| empty()))
    }

    /// What stands in the slots of an agent's manifest.
    pub(crate) async fn bindings_of(&self, agent: Uuid) -> Result<BTreeMap<String, Uuid>, Error> {
        let first = self.log.read_stream(&StreamId::new("agent", agent), 0, 1).await?;
        match first.first().map(|event| decode_event::<AgentEvent>(event)).transpose()? {
            Some(AgentEvent::Installed { bindings, .. }) => Ok(bindings),
            _ => Ok(BTreeMap::new()),
        }
    }

    async fn seal_config(
        &self,
        ask: &Ask,
        stream: &StreamId,
        event_type: &str,
        config: &Value,
    ) -> Result<domain::Sealed, Error> {
        let product = ask.metadata.product.unwrap_or_default();
        let text = zeroize::Zeroizing::new(config.to_string());
        self.seal(
            &product_key(product),
            ask.organization(),
            stream,
            event_type,
            CONFIG,
            text.as_bytes(),
        )
        .await
    }
}

/// What stands in answers in place of a secret.
pub const MASK: &str = "••••";

/// A configuration as it may be shown: secrets masked but for their last four characters, short
/// ones wholly.
pub fn mask(manifest: &Manifest, mut config: Value) -> Value {
    for path in manifest.secret_config_paths() {
        if let Some(secret) = config.pointer_mut(&path) {
            *secret = Value::String(masked(secret));
        }
    }
    config
}

fn masked(secret: &Value) -> String {
    let text = secret.as_str().unwrap_or_default();
    let length = text.chars().count();
    let shown: String = text.chars().skip(if length >= 12 { length - 4 } else { length }).collect();
    format!("{MASK}{shown}")
}

/// A configuration with the secrets put back that came masked.
fn unmask(manifest: &Manifest, mut config: Value, present: &Value) -> Value {
    for path in manifest.secret_config_paths() {
        let Some(known) = present.pointer(&path) else { continue };
        if let Some(sent) = config.pointer_mut(&path)
            && sent.as_str() == Some(masked(known).as_str())
        {
            *sent = known.clone();
        }
    }
    config
}
