//! Agents: installing a manifest in a product, publishing versions of it, configuring it, picking the
//! version that runs, uninstalling it.
//!
//! The rule of this file: what an agent is told is checked against the state on which it decides, so that
//! its configuration fits its active version whatever comes in between.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use domain::Name;
use domain::agent::{Agent, AgentCommand, AgentError, AgentEvent, Config};
use domain::manifest::{Manifest, secret_config_paths};
use domain::trigger::{Trigger, TriggerCommand, TriggerDetails};
use eventlog::StreamId;
use serde_json::Value;
use uuid::Uuid;

use crate::execute::decode_event;
use crate::seal::product_key;
use crate::{Ask, Commands, Done, Error, veil};

const INSTALLED: &str = "agent.installed.v1";
const CONFIGURED: &str = "agent.configured.v1";
const CONFIG: &str = "config";

/// How often a race is lost before the one who asks is told.
const MOST_RACES: usize = 3;

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

/// A version that an agent is to get.
pub struct NewVersion {
    /// What it does.
    pub manifest: Manifest,
    /// Whether it runs from now on.
    pub activate: bool,
    /// Another configuration of the agent, whole; only where it is activated.
    pub config: Option<Value>,
    /// What is to stand in slots of this version.
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
    /// The version that is to run.
    pub version_id: Option<Uuid>,
    /// What is to stand in slots of the version that runs then; others stay as they are.
    pub bindings: BTreeMap<String, Uuid>,
}

impl Commands {
    /// Installs an agent and makes its triggers. The ids of both stand in the first event, so that a
    /// cut between the two is mended by asking again.
    ///
    /// # Errors
    /// The configuration does not fit the manifest, a binding names no slot of it, or another manifest
    /// has its name and version in the product.
    pub async fn install_agent(&self, new: NewAgent, ask: &Ask) -> Result<Done, Error> {
        let agent = ask.new_id("agent");
        let stream = StreamId::new("agent", agent);
        // A key that was used for another request claims nothing.
        if let Some(done) = self.done_before(&stream, ask).await? {
            self.complete_agent(done.stream_id().unwrap_or(agent)).await?;
            return Ok(done);
        }
        let config = new
            .manifest
            .check_config(new.config)
            .map_err(|invalid| Error::refused(&invalid).within("/config"))?;
        refuse_short_secrets(&new.manifest, &config, &Value::Null)?;
        let config = self.seal_config(ask, &stream, INSTALLED, &config).await?;
        let manifest = new.manifest.clone();
        let install = AgentCommand::Install {
            title: new.title.unwrap_or_else(|| new.manifest.title.clone()),
            manifest: Box::new(new.manifest),
            version_id: ask.new_id("version"),
            config: Some(config),
            bindings: new.bindings,
        };
        // What would be refused claims nothing either.
        Agent::Missing.decide(install.clone()).map_err(|refusal| Error::refused(&refusal))?;
        self.take_manifest(ask.metadata.product.unwrap_or_default(), &manifest, ask).await?;
        self.take_webhook_paths(agent, &manifest, ask).await?;
        let done = self.execute_anew::<Agent>(stream, install, ask).await?;
        self.complete_agent(done.stream_id().unwrap_or(agent)).await?;
        Ok(done)
    }

    /// Publishes a version of an agent, and makes its triggers.
    ///
    /// # Errors
    /// There is no such agent; the manifest has another name, is a version of the agent already, or
    /// another one has its name and version in the product; the configuration does not fit it, or a
    /// binding names no slot of it.
    pub async fn publish_version(
        &self,
        agent: Uuid,
        new: NewVersion,
        ask: &Ask,
    ) -> Result<Done, Error> {
        let stream = StreamId::new("agent", agent);
        let version_id = ask.new_id("version");
        let mut races = 0;
        let done = loop {
            if let Some(done) = self.done_before(&stream, ask).await? {
                break done;
            }
            let (state, sequence) = self.replay::<Agent>(&stream).await?;
            if let Some(meant) = &ask.if_match
                && !meant.contains(&sequence)
            {
                return Err(Error::Stale { current: sequence });
            }
            let publish = |config| AgentCommand::Publish {
                manifest: Box::new(new.manifest.clone()),
                version_id,
                activate: new.activate,
                config,
                bindings: new.bindings.clone(),
            };
            // What would be refused claims nothing.
            state.decide(publish(None)).map_err(|refusal| Error::refused(&refusal))?;
            let config = match new.activate {
                true => self.checked_config(agent, &new.manifest, new.config.as_ref(), ask).await?,
                false => None,
            };
            self.take_manifest(ask.metadata.product.unwrap_or_default(), &new.manifest, ask)
                .await?;
            self.take_webhook_paths(agent, &new.manifest, ask).await?;
            match self.decide::<Agent>(&stream, (state, sequence), publish(config), ask).await {
                Err(Error::Conflict) if races < MOST_RACES => races += 1,
                outcome => break outcome?,
            }
        };
        self.complete_agent(agent).await?;
        Ok(done)
    }

    /// Changes an agent. A secret that comes back as it was shown, masked, stays as it is.
    ///
    /// # Errors
    /// It has no such version; the configuration does not fit the version that is to run, or a binding
    /// names no slot of it.
    pub async fn change_agent(
        &self,
        agent: Uuid,
        change: AgentChange,
        ask: &Ask,
    ) -> Result<Done, Error> {
        let stream = StreamId::new("agent", agent);
        let AgentChange { title, config, enabled, version_id, bindings } = change;
        let mut races = 0;
        loop {
            if let Some(done) = self.done_before(&stream, ask).await? {
                return Ok(done);
            }
            let (state, sequence) = self.replay::<Agent>(&stream).await?;
            let installed = state.installation().map_err(|refusal| Error::refused(&refusal))?;
            let version = installed
                .version_or_active(version_id)
                .map_err(|refusal| Error::refused(&refusal))?
                .id;
            let sealed = if config.is_some() || version != installed.version_id {
                let manifest = self.manifest_of(agent, version).await?;
                self.checked_config(agent, &manifest, config.as_ref(), ask).await?
            } else {
                None
            };
            let change = AgentCommand::Change {
                title: title.clone(),
                config: sealed,
                enabled,
                version_id,
                bindings: bindings.clone(),
            };
            match self.decide::<Agent>(&stream, (state, sequence), change, ask).await {
                Err(Error::Conflict) if races < MOST_RACES => races += 1,
                outcome => return outcome,
            }
        }
    }

    /// The configuration that is to be stored for a manifest, sealed: the new one, or the present one
    /// where none is given, which then is stored already.
    async fn checked_config(
        &self,
        agent: Uuid,
        manifest: &Manifest,
        new: Option<&Value>,
        ask: &Ask,
    ) -> Result<Option<domain::Sealed>, Error> {
        let present = self.config_of(ask.organization(), agent).await?;
        let Some(new) = new else {
            return fit(manifest, present).map(|_| None);
        };
        let secrets = self.secret_paths_of(agent).await?;
        let checked = manifest
            .check_config(Some(unmask(&secrets, new.clone(), &present)))
            .map_err(|invalid| Error::refused(&invalid).within("/config"))?;
        refuse_short_secrets(manifest, &checked, &present)?;
        if manifest.check_config(Some(present)).is_ok_and(|present| present == checked) {
            return Ok(None);
        }
        let stream = StreamId::new("agent", agent);
        self.seal_config(ask, &stream, CONFIGURED, &checked).await.map(Some)
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
        let is_uninstalled = state == Agent::Uninstalled;
        for event in self.whole_stream(&stream).await? {
            let (version_id, triggers) = match decode_event::<AgentEvent>(&event)? {
                AgentEvent::Installed { version_id, triggers, .. }
                | AgentEvent::VersionPublished { version_id, triggers, .. } => {
                    (version_id, triggers)
                }
                _ => continue,
            };
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
                        secret: None,
                    }),
                    (Trigger::Active(_), true) => TriggerCommand::Delete,
                    _ => continue,
                };
                let what: &[u8] =
                    if is_uninstalled { b"delete trigger" } else { b"create trigger" };
                let ask = Ask::because_of(
                    &event,
                    "completion",
                    &[what, trigger.id.as_bytes(), &sequence.to_be_bytes()],
                );
                match self.execute::<Trigger>(trigger.id, command, &ask).await {
                    // The process manager and the handler may both be at it.
                    Ok(_) | Err(Error::Refused { .. } | Error::Conflict) => {}
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(())
    }

    /// The manifest of a version of an agent, uninstalled or not.
    ///
    /// # Errors
    /// There is none of that id, or its manifest is no longer understood.
    pub async fn manifest_of(&self, agent: Uuid, version: Uuid) -> Result<Arc<Manifest>, Error> {
        let stream = StreamId::new("agent", agent);
        let (state, _) = self.load::<Agent>(&stream).await?;
        let known = state.installation().ok().and_then(|it| it.version(version));
        if let Some(manifest) = known.and_then(|known| self.manifests.get(&known.digest)) {
            return Ok(manifest);
        }
        let events = match known {
            Some(known) => self.log.read_stream(&stream, known.sequence - 1, 1).await?,
            None => self.whole_stream(&stream).await?,
        };
        for event in &events {
            match decode_event::<AgentEvent>(event)? {
                AgentEvent::Installed { version_id, manifest, digest, .. }
                | AgentEvent::VersionPublished { version_id, manifest, digest, .. }
                    if version_id == version =>
                {
                    let manifest = Manifest::accept(&Value::Object(manifest))
                        .map_err(|invalid| Error::refused(&invalid))?;
                    let manifest = Arc::new(manifest);
                    self.manifests.insert(digest, manifest.clone());
                    return Ok(manifest);
                }
                _ => {}
            }
        }
        Err(Error::refused(match events.is_empty() {
            true => &AgentError::NotFound,
            false => &AgentError::UnknownVersion,
        }))
    }

    /// The configuration of an agent as it is stored, secrets in the clear; an empty one when its key
    /// was shredded, or the agent is uninstalled.
    async fn config_of(&self, organization: Uuid, agent: Uuid) -> Result<Value, Error> {
        let stream = StreamId::new("agent", agent);
        let empty = || Value::Object(serde_json::Map::new());
        let Agent::Installed(installation) = self.load::<Agent>(&stream).await?.0 else {
            return Ok(empty());
        };
        let Some(Config { sealed, is_first }) = installation.config else { return Ok(empty()) };
        let event_type = if is_first { INSTALLED } else { CONFIGURED };
        let opened = self.unseal(organization, &stream, event_type, CONFIG, &sealed).await?;
        let text = opened.unwrap_or_default();
        Ok(serde_json::from_slice(&text).unwrap_or_else(|_| empty()))
    }

    /// The configuration of an agent as one of its manifests sees it: secrets in the clear, defaults
    /// filled in.
    ///
    /// # Errors
    /// It does not fit the manifest, which is not that of the active version then.
    pub(crate) async fn config_for(
        &self,
        organization: Uuid,
        agent: Uuid,
        manifest: &Manifest,
    ) -> Result<Value, Error> {
        fit(manifest, self.config_of(organization, agent).await?)
    }

    /// What stands in the slots of an agent's manifests.
    pub(crate) async fn bindings_of(&self, agent: Uuid) -> Result<BTreeMap<String, Uuid>, Error> {
        match self.load::<Agent>(&StreamId::new("agent", agent)).await?.0 {
            Agent::Installed(installation) => Ok(installation.bindings),
            Agent::Missing | Agent::Uninstalled => Ok(BTreeMap::new()),
        }
    }

    /// JSON pointers into the configuration, to what any version of an agent calls secret.
    async fn secret_paths_of(&self, agent: Uuid) -> Result<Vec<String>, Error> {
        let mut paths = BTreeSet::new();
        for event in self.whole_stream(&StreamId::new("agent", agent)).await? {
            if let AgentEvent::Installed { manifest, .. }
            | AgentEvent::VersionPublished { manifest, .. } = decode_event(&event)?
            {
                paths.extend(secret_config_paths(&manifest));
            }
        }
        Ok(paths.into_iter().collect())
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

/// A configuration that is stored, with the defaults of a manifest.
fn fit(manifest: &Manifest, config: Value) -> Result<Value, Error> {
    manifest.check_config(Some(config)).map_err(|mut invalid| {
        invalid.message = "the configuration of the agent does not fit this version: send a \
                           `config` that does with it, or mend the one that is there"
            .to_owned();
        Error::refused(&invalid).within("/config")
    })
}

/// Refuses secrets that are new and too short. One that is there already stays: it was taken once.
fn refuse_short_secrets(manifest: &Manifest, config: &Value, present: &Value) -> Result<(), Error> {
    let paths = manifest.config.as_ref().map(|schema| schema.secret_paths()).unwrap_or_default();
    let new = paths.iter().filter_map(|path| {
        let secret = config.pointer(path)?;
        (present.pointer(path) != Some(secret)).then(|| (path.clone(), secret))
    });
    veil::refuse_short("config_invalid", new).map_err(|error| error.within("/config"))
}

/// A configuration as it may be shown: what is secret masked but for its last four characters, short
/// ones wholly. `secrets` are JSON pointers.
pub fn mask(secrets: &[String], mut config: Value) -> Value {
    for path in secrets {
        if let Some(secret) = config.pointer_mut(path) {
            *secret = Value::String(masked(secret.as_str().unwrap_or_default()));
        }
    }
    config
}

/// A secret as it may be shown.
pub fn masked(text: &str) -> String {
    let length = text.chars().count();
    let shown: String = text.chars().skip(if length >= 12 { length - 4 } else { length }).collect();
    format!("{MASK}{shown}")
}

/// A configuration with the secrets put back that came masked.
fn unmask(secrets: &[String], mut config: Value, present: &Value) -> Value {
    for path in secrets {
        let Some(known) = present.pointer(path) else { continue };
        if let Some(sent) = config.pointer_mut(path)
            && sent.as_str() == Some(masked(known.as_str().unwrap_or_default()).as_str())
        {
            *sent = known.clone();
        }
    }
    config
}

#[cfg(test)]
mod tests;
