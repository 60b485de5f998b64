//! Triggers: made, replaced and removed after their agent was installed.
//!
//! The rule of this file: what a trigger listens to is read by [`Setting::parse`] before it is
//! stored, and an input that nobody computes must fit the manifest of the version that it starts.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use chrono::{TimeDelta, Utc};
use domain::agent::{Agent, AgentError, Installation};
use domain::expression::holds_expression;
use domain::manifest::MAX_TRIGGERS;
use domain::trigger::webhook::Verify;
use domain::trigger::{
    Setting, Trigger, TriggerCommand, TriggerDetails, TriggerError, TriggerKind, TriggerSecret,
};
use domain::{Fault, InvalidDocument, Object, Sealed, Timestamp};
use eventlog::StreamId;
use secrecy::{ExposeSecret, SecretString};
use uuid::Uuid;

use crate::seal::product_key;
use crate::webhook::{SECRET, SECRET_SET, check_secret, webhook_of};
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
    /// Of a webhook: by what deliveries are verified.
    pub secret: Option<SecretString>,
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
    /// Of a webhook: by what deliveries are verified; as before without it.
    pub secret: Option<SecretString>,
}

/// A secret that was replaced.
pub struct Rotated {
    /// What was stored.
    pub done: Done,
    /// The new secret, where it was made here: it is shown this once.
    pub made: Option<String>,
}

/// How often a secret is exchanged of a trigger that changes meanwhile.
const TRIES: usize = 3;

/// How long a secret that was replaced stays good at most.
const MAX_GRACE: TimeDelta = TimeDelta::days(7);

/// A secret that nobody can guess, in the form that its scheme has.
fn new_secret(how: &Verify) -> Result<String, Error> {
    let mut bytes = zeroize::Zeroizing::new([0_u8; 32]);
    crate::secrets::fill_random(bytes.as_mut_slice())?;
    Ok(match how {
        Verify::StandardWebhooks => format!("whsec_{}", STANDARD.encode(*bytes)),
        _ => hex::encode(*bytes),
    })
}

impl Commands {
    /// Makes a trigger of an installed agent.
    ///
    /// # Errors
    /// The agent is gone, has enough triggers, the configuration is not valid, a secret that it needs is
    /// missing, or its path is taken.
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
        let setting = self.check_setting(agent, version, new.kind, &new.configuration).await?;
        check_secret_of(&setting, new.secret.as_ref(), false)?;
        let secret = self.seal_secret(trigger, new.secret.as_ref(), ask).await?;
        let tail = trigger.simple().to_string();
        let details = TriggerDetails {
            agent: new.agent,
            version_id: installation.version_id,
            // It is in no manifest: its key only has to be one that no other trigger has.
            key: format!("{}_{}", new.kind.as_str(), &tail[tail.len() - 12..]),
            kind: new.kind,
            enabled: new.enabled,
            configuration: new.configuration,
            secret: secret.map(TriggerSecret::first),
        };
        if let Setting::Webhook(webhook) = &setting
            && let Some(path) = &webhook.path
        {
            self.take_path_of(trigger, &details, path, ask).await?;
        }
        self.execute::<Trigger>(trigger, TriggerCommand::Create(details), ask).await
    }

    /// Replaces what a trigger listens to, and switches it on or off.
    ///
    /// # Errors
    /// There is none of that id, it is of another type, the configuration is not valid, a secret that it
    /// needs is missing, or its path is taken.
    pub async fn replace_trigger(
        &self,
        trigger: Uuid,
        new: TriggerReplacement,
        ask: &Ask,
    ) -> Result<Done, Error> {
        if let Some(done) = self.done_before(&StreamId::new("trigger", trigger), ask).await? {
            return Ok(done);
        }
        let known = self.active_trigger(trigger).await?;
        // What was accepted before is not judged again: it may be switched off, at least.
        if known.kind == new.kind && known.configuration != new.configuration {
            let version = match known.version_of(trigger) {
                Some(version) => version,
                None => self.installation_of(known.agent).await?.version_id,
            };
            let setting =
                self.check_setting(known.agent, version, new.kind, &new.configuration).await?;
            let has_one = known.secret.is_some() && !is_of_another_scheme(&known, &setting);
            check_secret_of(&setting, new.secret.as_ref(), has_one)?;
            if let Setting::Webhook(webhook) = &setting
                && let Some(path) = &webhook.path
            {
                self.take_path_of(trigger, &known, path, ask).await?;
            }
        } else if let Some(webhook) = webhook_of(&known).filter(|_| known.kind == new.kind) {
            let setting = Setting::Webhook(Box::new(webhook));
            // A trigger that waits for its secret may be switched off, at least.
            check_secret_of(&setting, new.secret.as_ref(), true)?;
        } else if new.secret.is_some() && known.kind == new.kind {
            check_secret_of(&Setting::Manual, new.secret.as_ref(), false)?;
        }
        let secret = match self.is_secret_of(trigger, &known, new.secret.as_ref(), ask).await? {
            true => None,
            false => self.seal_secret(trigger, new.secret.as_ref(), ask).await?,
        };
        let TriggerReplacement { kind, enabled, configuration, .. } = new;
        let replace = TriggerCommand::Replace { kind, enabled, configuration, secret };
        let done = self.execute::<Trigger>(trigger, replace, ask).await?;
        let old = webhook_of(&known).and_then(|webhook| webhook.path);
        if let (Some(old), Trigger::Active(now)) =
            (old, self.load::<Trigger>(&done.stream).await?.0)
            && webhook_of(&now).and_then(|webhook| webhook.path).as_ref() != Some(&old)
        {
            self.release_path_of(trigger, &old, ask).await?;
        }
        Ok(done)
    }

    /// Lets deliveries of a webhook be verified by another secret. For so long, at most a week, the one
    /// before is good, too. Without a secret one is made.
    ///
    /// # Errors
    /// There is none of that id, it is no webhook that verifies, or the secret does not fit it.
    pub async fn rotate_secret(
        &self,
        trigger: Uuid,
        secret: Option<SecretString>,
        grace: TimeDelta,
        ask: &Ask,
    ) -> Result<Rotated, Error> {
        let known = self.active_trigger(trigger).await?;
        let webhook = webhook_of(&known).filter(|webhook| webhook.verify.needs_secret());
        let webhook = webhook.ok_or_else(|| Error::refused(&TriggerError::NoSecret))?;
        let made = match &secret {
            Some(_) => None,
            None if webhook.verify == Verify::Basic => {
                let setting = Setting::Webhook(Box::new(webhook.clone()));
                return Err(check_secret_of(&setting, None, false)
                    .err()
                    .unwrap_or_else(|| Error::refused(&TriggerError::NoSecret)));
            }
            None => Some(new_secret(&webhook.verify)?),
        };
        let secret = secret.or_else(|| made.clone().map(SecretString::from));
        check_secret_of(&Setting::Webhook(Box::new(webhook)), secret.as_ref(), false)?;
        let grace = grace.clamp(TimeDelta::zero(), MAX_GRACE);
        let until = (!grace.is_zero()).then(|| Timestamp::from(Utc::now() + grace));
        let Some(secret) = self.seal_secret(trigger, secret.as_ref(), ask).await? else {
            return Err(Error::refused(&TriggerError::NoSecret));
        };
        let done = self.exchange_secret(trigger, secret, until, ask).await?;
        Ok(Rotated { made: made.filter(|_| !done.replayed), done })
    }

    /// Sets a secret, beside which the one before is good until then. One that was inherited of an earlier
    /// version becomes its own first, so that it is there to be exchanged.
    async fn exchange_secret(
        &self,
        trigger: Uuid,
        secret: Sealed,
        until: Option<Timestamp>,
        ask: &Ask,
    ) -> Result<Done, Error> {
        let stream = StreamId::new("trigger", trigger);
        let set = |secret, previous_until| TriggerCommand::SetSecret { secret, previous_until };
        for _ in 0..TRIES {
            if let Some(done) = self.done_before(&stream, ask).await? {
                return Ok(done);
            }
            let loaded = self.load::<Trigger>(&stream).await?;
            let (has_one, inherited) = match &loaded.0 {
                Trigger::Active(known) if known.secret.is_none() && until.is_some() => {
                    (false, self.seal_inherited(trigger, known, ask).await?)
                }
                Trigger::Active(known) => (known.secret.is_some(), None),
                Trigger::Missing | Trigger::Deleted => (false, None),
            };
            let previous_until = until.filter(|_| has_one || inherited.is_some());
            let new = set(secret.clone(), previous_until);
            let (first, then) = match inherited {
                Some(inherited) => (set(inherited, None), Some((new, ask.metadata.clone()))),
                None => (new, None),
            };
            match self.decide_with(&stream, loaded, first, then, ask).await {
                Err(Error::Conflict) => self.forget(&stream),
                rotated => return self.unless_done(&stream, rotated, ask).await,
            }
        }
        Err(Error::Conflict)
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
    ) -> Result<Setting, Error> {
        let setting = Setting::parse(kind, configuration).map_err(invalid)?;
        if let Setting::Message(message) = &setting {
            let manifest = self.manifest_of(agent, version).await?;
            if let Some(fault) = message.check_slot(&manifest.requires.integrations) {
                return Err(invalid(vec![fault]));
            }
        }
        let computed = setting.input().is_some_and(holds_expression);
        // Without an input, a webhook hands on what comes in, and a message itself.
        let is_known = match &setting {
            Setting::Manual => false,
            Setting::Webhook(webhook) => webhook.input.is_some(),
            Setting::Message(message) => message.input.is_some(),
            _ => true,
        };
        if is_known && !computed {
            let manifest = self.manifest_of(agent, version).await?;
            let is_event = matches!(setting, Setting::Event { input: None, .. });
            if is_event && manifest.takes_event() {
                return Ok(setting);
            }
            manifest
                .check_input(setting.input().cloned())
                .map_err(|invalid| Error::refused(&invalid).within("/input"))?;
        }
        Ok(setting)
    }

    async fn seal_secret(
        &self,
        trigger: Uuid,
        secret: Option<&SecretString>,
        ask: &Ask,
    ) -> Result<Option<Sealed>, Error> {
        let Some(secret) = secret else { return Ok(None) };
        let stream = StreamId::new("trigger", trigger);
        let key = product_key(ask.metadata.product.unwrap_or_default());
        let text = secret.expose_secret().as_bytes();
        self.seal(&key, ask.organization(), &stream, SECRET_SET, SECRET, text).await.map(Some)
    }

    /// The secret of an earlier version that a trigger goes by, sealed for the trigger itself.
    async fn seal_inherited(
        &self,
        trigger: Uuid,
        known: &TriggerDetails,
        ask: &Ask,
    ) -> Result<Option<Sealed>, Error> {
        let Some((earlier, secret)) = self.inherited_secret(trigger, known).await? else {
            return Ok(None);
        };
        let text = self.open_secret(ask.organization(), earlier, &secret.current).await?;
        let Some(text) = text else { return Ok(None) };
        let stream = StreamId::new("trigger", trigger);
        let key = product_key(ask.metadata.product.unwrap_or_default());
        self.seal(&key, ask.organization(), &stream, SECRET_SET, SECRET, &text).await.map(Some)
    }

    /// Whether a secret is the one that the trigger has.
    async fn is_secret_of(
        &self,
        trigger: Uuid,
        known: &TriggerDetails,
        secret: Option<&SecretString>,
        ask: &Ask,
    ) -> Result<bool, Error> {
        let (Some(known), Some(secret)) = (&known.secret, secret) else { return Ok(false) };
        let known = self.open_secret(ask.organization(), trigger, &known.current).await?;
        Ok(known.is_some_and(|known| *known == secret.expose_secret().as_bytes()))
    }
}

/// Whether what a webhook's deliveries were verified by is no secret of the scheme that it has now.
fn is_of_another_scheme(known: &TriggerDetails, setting: &Setting) -> bool {
    let before = webhook_of(known).map(|webhook| webhook.verify.as_str());
    match setting {
        Setting::Webhook(now) => before != Some(now.verify.as_str()),
        _ => false,
    }
}

/// Whether a secret fits what a trigger listens to.
fn check_secret_of(
    setting: &Setting,
    secret: Option<&SecretString>,
    has_one: bool,
) -> Result<(), Error> {
    let fault = |code, message: &str| Err(Fault::new("/secret", code, message));
    let checked = match (setting, secret) {
        (Setting::Webhook(webhook), Some(secret)) => {
            check_secret(&webhook.verify, secret.expose_secret())
        }
        (Setting::Webhook(webhook), None) if webhook.verify.needs_secret() && !has_one => fault(
            "secret_missing",
            "`secret` is missing: deliveries are verified by it, and one of another `verify` does not stay; `verify: none` \
             accepts them from anybody",
        ),
        (Setting::Webhook(_), None) | (_, None) => Ok(()),
        (_, Some(_)) => fault("field_unknown", "only a webhook has a `secret`: leave it out"),
    };
    checked.map_err(|fault| invalid(vec![fault]))
}

fn invalid(faults: Vec<Fault>) -> Error {
    let message = "the trigger is not valid: mend what `errors` lists, and send it again";
    let message = message.to_owned();
    Error::refused(&InvalidDocument { code: "trigger_invalid", message, faults })
}
