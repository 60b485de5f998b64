//! A trigger: what starts an execution of an agent.
//!
//! Life: `Missing` → `Active` → `Deleted`, and never back. Id and content of one of a manifest are fixed
//! by the event that brought its agent's version, which it belongs to; its own stream is completed after
//! that, by whoever comes first. Others are made later, and belong to the agent. What a schedule fired is not here: see [`crate::schedule::firings`].

use cqrs_es::event_sink::EventSink;
use cqrs_es::{Aggregate, DomainEvent};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::agent::{Installation, trigger_id};
use crate::event;
use crate::manifest::MAX_TRIGGERS;
use crate::refusal::{Fault, Refusal, RefusalKind};
use crate::values::{Object, Sealed, Timestamp};

pub mod message;
pub mod setting;
pub mod webhook;

pub use message::MessageFilter;
pub use setting::Setting;
pub use webhook::Webhook;

/// What has happened to a trigger.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum TriggerEvent {
    /// It was made.
    #[serde(rename = "trigger.created.v1")]
    Created {
        /// The agent that it starts.
        agent: Uuid,
        /// The version of the agent that it starts.
        version_id: Uuid,
        /// Its id in the manifest.
        key: String,
        /// What it listens to.
        #[serde(rename = "type")]
        kind: TriggerKind,
        /// Whether it listens.
        enabled: bool,
        /// What its kind needs to know.
        configuration: Object,
    },
    /// It listens to something else of its kind.
    #[serde(rename = "trigger.changed.v1")]
    Changed {
        /// What its kind needs to know, whole.
        configuration: Object,
    },
    /// Deliveries are verified by another secret.
    #[serde(rename = "trigger.secret_set.v1")]
    SecretSet {
        /// The secret.
        secret: Sealed,
        /// Until then the one before is good, too.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        previous_until: Option<Timestamp>,
    },
    /// It listens again.
    #[serde(rename = "trigger.enabled.v1")]
    Enabled {},
    /// It does not listen for now.
    #[serde(rename = "trigger.disabled.v1")]
    Disabled {},
    /// It is gone.
    #[serde(rename = "trigger.deleted.v1")]
    Deleted {},
}

/// What one may ask of a trigger.
#[derive(Clone, Debug, PartialEq)]
pub enum TriggerCommand {
    /// Make it.
    Create(TriggerDetails),
    /// Let it listen to something else of its kind, switch it on or off.
    Replace {
        /// What it listens to: the same as before.
        kind: TriggerKind,
        /// Whether it listens; as before without it.
        enabled: Option<bool>,
        /// What its kind needs to know, whole.
        configuration: Object,
        /// By which secret deliveries are verified; as before without it.
        secret: Option<Sealed>,
    },
    /// Verify deliveries by another secret.
    SetSecret {
        /// The secret.
        secret: Sealed,
        /// Until then the one before is good, too.
        previous_until: Option<Timestamp>,
    },
    /// Remove it because somebody says so.
    Remove {
        /// The manifest of its agent names it.
        is_of_manifest: bool,
    },
    /// Remove it because its agent is gone.
    Delete,
}

/// What a trigger listens to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TriggerKind {
    /// A person or a program says so.
    Manual,
    /// The clock.
    Schedule,
    /// A delivery from outside.
    Webhook,
    /// A message in a communicator.
    Message,
    /// Another event of the log.
    Event,
}

impl TriggerKind {
    /// The kind as it is written.
    pub fn as_str(self) -> &'static str {
        serde_variant::to_variant_name(&self).expect("a kind is an enum of plain names")
    }
}

/// What there is to know of a trigger.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TriggerDetails {
    /// The agent that it starts.
    pub agent: Uuid,
    /// The version of the agent that it belongs to, or that was active when it was made.
    pub version_id: Uuid,
    /// Its id in the manifest.
    pub key: String,
    /// What it listens to.
    pub kind: TriggerKind,
    /// Whether it listens.
    pub enabled: bool,
    /// What its kind needs to know.
    pub configuration: Object,
    /// By what deliveries are verified.
    #[serde(default)]
    pub secret: Option<TriggerSecret>,
}

/// By what deliveries are verified, sealed as field `secret` of `trigger.secret_set.v1`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TriggerSecret {
    /// The secret.
    pub current: Sealed,
    /// The one before, and until when it is good.
    pub previous: Option<(Sealed, Timestamp)>,
}

impl TriggerSecret {
    /// A secret that is the first one.
    pub fn first(current: Sealed) -> TriggerSecret {
        TriggerSecret { current, previous: None }
    }

    /// The secrets that are good at a time, the newest one first.
    pub fn good_at(&self, now: Timestamp) -> impl Iterator<Item = &Sealed> {
        let previous = self.previous.iter().filter(move |(_, until)| now < *until);
        std::iter::once(&self.current).chain(previous.map(|(secret, _)| secret))
    }
}

impl TriggerDetails {
    /// The version of the agent that it belongs to; none of one that was made later, which belongs to
    /// the agent and starts whatever version is active. `id` is its own.
    pub fn version_of(&self, id: Uuid) -> Option<Uuid> {
        (trigger_id(self.version_id, &self.key) == id).then_some(self.version_id)
    }

    /// Whether it listens: it is enabled, and so is its agent, and the active version is the one that
    /// it belongs to, if it belongs to one.
    pub fn listens(&self, id: Uuid, agent: &Installation) -> bool {
        let is_of_active = self.version_of(id).is_none_or(|version| version == agent.version_id);
        self.enabled && agent.enabled && is_of_active
    }
}

/// A trigger.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub enum Trigger {
    /// Not made yet.
    #[default]
    Missing,
    /// Made.
    Active(TriggerDetails),
    /// Gone for good.
    Deleted,
}

impl Trigger {
    /// What to execute when a person or a program says so.
    ///
    /// # Errors
    /// When the trigger listens to something else, or to nothing.
    pub fn fire_manually(&self) -> Result<&TriggerDetails, TriggerError> {
        match self {
            Trigger::Missing | Trigger::Deleted => Err(TriggerError::NotFound),
            Trigger::Active(details) if details.kind != TriggerKind::Manual => {
                Err(TriggerError::NotManual)
            }
            Trigger::Active(details) if !details.enabled => Err(TriggerError::Disabled),
            Trigger::Active(details) => Ok(details),
        }
    }

    /// Answers a command with events or a refusal.
    pub fn decide(&self, command: TriggerCommand) -> Result<Vec<TriggerEvent>, TriggerError> {
        use {TriggerCommand as Do, TriggerEvent as Did};
        match (self, command) {
            (Trigger::Missing, Do::Create(details)) => {
                let TriggerDetails { agent, version_id, key, kind, enabled, configuration, secret } =
                    details;
                let created = Did::Created { agent, version_id, key, kind, enabled, configuration };
                let secret = secret
                    .map(|secret| Did::SecretSet { secret: secret.current, previous_until: None });
                Ok([Some(created), secret].into_iter().flatten().collect())
            }
            (Trigger::Active(known), Do::Create(details)) if *known == details => Ok(vec![]),
            (Trigger::Active(_) | Trigger::Deleted, Do::Create(_)) => {
                Err(TriggerError::AlreadyExists)
            }
            (
                Trigger::Missing | Trigger::Deleted,
                Do::Replace { .. } | Do::SetSecret { .. } | Do::Remove { .. } | Do::Delete,
            ) => Err(TriggerError::NotFound),
            (Trigger::Active(known), Do::Replace { kind, .. }) if kind != known.kind => {
                Err(TriggerError::OtherKind(known.kind))
            }
            (Trigger::Active(known), Do::Replace { enabled, configuration, secret, .. }) => {
                let changed = (configuration != known.configuration)
                    .then_some(Did::Changed { configuration });
                let switched = match (known.enabled, enabled) {
                    (false, Some(true)) => Some(Did::Enabled {}),
                    (true, Some(false)) => Some(Did::Disabled {}),
                    _ => None,
                };
                let secret = secret.map(|secret| Did::SecretSet { secret, previous_until: None });
                Ok([changed, secret, switched].into_iter().flatten().collect())
            }
            (Trigger::Active(known), Do::SetSecret { .. })
                if known.kind != TriggerKind::Webhook =>
            {
                Err(TriggerError::NoSecret)
            }
            (Trigger::Active(_), Do::SetSecret { secret, previous_until }) => {
                Ok(vec![Did::SecretSet { secret, previous_until }])
            }
            (Trigger::Active(known), Do::Remove { is_of_manifest: true })
                if known.kind == TriggerKind::Manual =>
            {
                Err(TriggerError::Needed)
            }
            (Trigger::Active(_), Do::Remove { .. } | Do::Delete) => Ok(vec![Did::Deleted {}]),
        }
    }
}

/// Why a trigger refused a command.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TriggerError {
    /// There is no such trigger, or no more.
    #[error("there is no such trigger: look at the agent to see which it has")]
    NotFound,
    /// The id is taken, or was.
    #[error("the trigger exists already: use that one, or make another")]
    AlreadyExists,
    /// It cannot be executed by hand.
    #[error("the trigger is not a manual one: execute the agent's manual trigger instead")]
    NotManual,
    /// It is switched off.
    #[error("the trigger is disabled: enable it, or execute another one of the agent")]
    Disabled,
    /// What it listens to is of one kind, for ever.
    #[error(
        "the trigger is of type `{}`, and stays so: delete it, and make another one",
        .0.as_str()
    )]
    OtherKind(TriggerKind),
    /// It verifies nothing.
    #[error("the trigger has no secret: only those of type `webhook` verify what comes in")]
    NoSecret,
    /// Its agent could not be started by hand without it.
    #[error("every agent has this manual trigger: disable it instead")]
    Needed,
    /// The agent has as many as it may have.
    #[error(
        "the agent has {MAX_TRIGGERS} triggers of this sort: delete one before you make another"
    )]
    TooMany,
}

impl Refusal for TriggerError {
    fn reason(&self) -> (RefusalKind, &'static str) {
        match self {
            TriggerError::NotFound => (RefusalKind::NotFound, "trigger_not_found"),
            TriggerError::AlreadyExists => (RefusalKind::Conflict, "trigger_already_exists"),
            TriggerError::NotManual => (RefusalKind::Conflict, "trigger_not_manual"),
            TriggerError::Disabled => (RefusalKind::Conflict, "trigger_disabled"),
            TriggerError::OtherKind(_) => (RefusalKind::Invalid, "trigger_type_fixed"),
            TriggerError::NoSecret => (RefusalKind::Conflict, "trigger_without_secret"),
            TriggerError::Needed => (RefusalKind::Conflict, "trigger_needed"),
            TriggerError::TooMany => (RefusalKind::Conflict, "triggers_count"),
        }
    }

    fn faults(&self) -> Vec<Fault> {
        match self {
            TriggerError::OtherKind(_) => {
                vec![Fault::new("/type", self.reason().1, self.to_string())]
            }
            _ => vec![],
        }
    }
}

impl Aggregate for Trigger {
    const TYPE: &'static str = "trigger";
    type Command = TriggerCommand;
    type Event = TriggerEvent;
    type Error = TriggerError;
    type Services = ();

    async fn handle(
        &mut self,
        command: TriggerCommand,
        _: &(),
        sink: &EventSink<Self>,
    ) -> Result<(), TriggerError> {
        for event in self.decide(command)? {
            sink.write(event, self).await;
        }
        Ok(())
    }

    fn apply(&mut self, event: TriggerEvent) {
        match (&mut *self, event) {
            (_, TriggerEvent::Created { agent, version_id, key, kind, enabled, configuration }) => {
                *self = Trigger::Active(TriggerDetails {
                    agent,
                    version_id,
                    key,
                    kind,
                    enabled,
                    configuration,
                    secret: None,
                });
            }
            (_, TriggerEvent::Deleted {}) => *self = Trigger::Deleted,
            (Trigger::Active(details), TriggerEvent::Changed { configuration }) => {
                details.configuration = configuration;
            }
            (Trigger::Active(details), TriggerEvent::SecretSet { secret, previous_until }) => {
                let before = details.secret.take().map(|known| known.current);
                details.secret =
                    Some(TriggerSecret { current: secret, previous: before.zip(previous_until) });
            }
            (Trigger::Active(details), TriggerEvent::Enabled {}) => details.enabled = true,
            (Trigger::Active(details), TriggerEvent::Disabled {}) => details.enabled = false,
            (Trigger::Missing | Trigger::Deleted, _) => {}
        }
    }
}

impl DomainEvent for TriggerEvent {
    fn event_type(&self) -> String {
        event::name_of(self).to_owned()
    }

    fn event_version(&self) -> String {
        event::version_of(event::name_of(self)).to_owned()
    }
}

#[cfg(test)]
mod tests;
