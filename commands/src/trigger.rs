//! Triggers: made, replaced and removed after their agent was installed.
//!
//! The rule of this file: what a trigger listens to is read by [`Setting::parse`] before it is
//! stored, and an input that nobody computes must fit the manifest of the version that it starts.

use domain::agent::{Agent, AgentError, Installation};
use domain::expression::holds_expression;
use domain::manifest::MAX_TRIGGERS;
use domain::trigger::{
    Setting, Trigger, TriggerCommand, TriggerDetails, TriggerError, TriggerKind,
};
use domain::{InvalidDocument, Object};
use eventlog::StreamId;
use uuid::Uuid;

use crate::{Ask, Commands, Done, Error};

/// A trigger that is to be made.
pub struct NewTrigger {
    /// The agent that it starts.
    pub agent: Uuid,
    /// What it listens to.
    pub kind: TriggerKind,
    /// Whether it listens.
    pub enabled: bool,
    /// What its kind needs to know.
    pub configuration: Object,
    /// How many of the same sort, manual or listening, start the agent's active version.
    pub siblings: usize,
}

/// What a trigger is to be from now on.
pub struct TriggerReplacement {
    /// What it listens to: the same as before.
    pub kind: TriggerKind,
    /// Whether it listens; as before without it.
    pub enabled: Option<bool>,
    /// What its kind needs to know, whole.
    pub configuration: Object,
}

impl Commands {
    /// Makes a trigger of an installed agent.
    ///
    /// # Errors
    /// The agent is gone, has enough triggers, or the configuration is not valid.
    pub async fn create_trigger(&self, new: NewTrigger, ask: &Ask) -> Result<Done, Error> {
        let trigger = ask.new_id("trigger");
        if let Some(done) = self.done_before(&StreamId::new("trigger", trigger), ask).await? {
            return Ok(done);
        }
        let installation = self.installation_of(new.agent).await?;
        if new.siblings >= MAX_TRIGGERS {
            return Err(Error::refused(&TriggerError::TooMany));
        }
        let (agent, version) = (new.agent, installation.version_id);
        self.check_setting(agent, version, new.kind, &new.configuration).await?;
        let tail = trigger.simple().to_string();
        let details = TriggerDetails {
            agent: new.agent,
            version_id: installation.version_id,
            // It is in no manifest: its key only has to be one that no other trigger has.
            key: format!("{}_{}", new.kind.as_str(), &tail[tail.len() - 12..]),
            kind: new.kind,
            enabled: new.enabled,
            configuration: new.configuration,
        };
        self.execute::<Trigger>(trigger, TriggerCommand::Create(details), ask).await
    }

    /// Replaces what a trigger listens to, and switches it on or off.
    ///
    /// # Errors
    /// There is none of that id, it is of another type, or the configuration is not valid.
    pub async fn replace_trigger(
        &self,
        trigger: Uuid,
        new: TriggerReplacement,
        ask: &Ask,
    ) -> Result<Done, Error> {
        let known = self.active_trigger(trigger).await?;
        // What was accepted before is not judged again: it may be switched off, at least.
        if known.kind == new.kind && known.configuration != new.configuration {
            let version = match known.version_of(trigger) {
                Some(version) => version,
                None => self.installation_of(known.agent).await?.version_id,
            };
            self.check_setting(known.agent, version, new.kind, &new.configuration).await?;
        }
        let TriggerReplacement { kind, enabled, configuration } = new;
        let replace = TriggerCommand::Replace { kind, enabled, configuration };
        self.execute::<Trigger>(trigger, replace, ask).await
    }

    /// Removes a trigger.
    ///
    /// # Errors
    /// There is none of that id, or it is the manual one of its agent's manifest.
    pub async fn remove_trigger(&self, trigger: Uuid, ask: &Ask) -> Result<Done, Error> {
        let known = self.active_trigger(trigger).await?;
        let is_of_manifest = known.version_of(trigger).is_some();
        let remove = TriggerCommand::Remove { is_of_manifest };
        self.execute::<Trigger>(trigger, remove, ask).await
    }

    async fn active_trigger(&self, trigger: Uuid) -> Result<TriggerDetails, Error> {
        match self.load::<Trigger>(&StreamId::new("trigger", trigger)).await?.0 {
            Trigger::Active(details) => Ok(details),
            Trigger::Missing | Trigger::Deleted => Err(Error::refused(&TriggerError::NotFound)),
        }
    }

    async fn installation_of(&self, agent: Uuid) -> Result<Box<Installation>, Error> {
        match self.load::<Agent>(&StreamId::new("agent", agent)).await?.0 {
            Agent::Installed(installation) => Ok(installation),
            Agent::Missing | Agent::Uninstalled => Err(Error::refused(&AgentError::NotFound)),
        }
    }

    async fn check_setting(
        &self,
        agent: Uuid,
        version: Uuid,
        kind: TriggerKind,
        configuration: &Object,
    ) -> Result<(), Error> {
        let setting = Setting::parse(kind, configuration).map_err(|faults| {
            Error::refused(&InvalidDocument {
                code: "trigger_invalid",
                message: "the trigger is not valid: mend what `errors` lists, and send it again"
                    .to_owned(),
                faults,
            })
        })?;
        let computed = setting.input().is_some_and(holds_expression);
        if setting != Setting::Manual && !computed {
            let manifest = self.manifest_of(agent, version).await?;
            let is_event = matches!(setting, Setting::Event { input: None, .. });
            if is_event && manifest.takes_event() {
                return Ok(());
            }
            manifest
                .check_input(setting.input().cloned())
                .map_err(|invalid| Error::refused(&invalid).within("/input"))?;
        }
        Ok(())
    }
}
