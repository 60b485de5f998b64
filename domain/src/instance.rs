//! The instance: the keys that it signs with. One stream, `instance-main`.
//!
//! A key is added and never taken away: what it once signed can be checked for ever. The newest key
//! of a purpose is the one that signs.

use cqrs_es::event_sink::EventSink;
use cqrs_es::{Aggregate, DomainEvent};
use serde::{Deserialize, Serialize};

use crate::event;
use crate::refusal::{Refusal, RefusalKind};
use crate::values::Sealed;

/// The id of the one stream.
pub const INSTANCE_ID: &str = "main";

/// What has happened to the instance.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum InstanceEvent {
    /// A key to sign with was made.
    #[serde(rename = "instance.key_added.v1")]
    KeyAdded {
        /// What it signs.
        purpose: KeyPurpose,
        /// Names it, in tokens and signed notes.
        key_id: String,
        /// How it signs.
        algorithm: KeyAlgorithm,
        /// The public half, base64url without padding.
        public_key: String,
        /// The private half, sealed.
        private_key: Sealed,
    },
}

/// What one may ask of the instance.
#[derive(Clone, Debug, PartialEq)]
pub enum InstanceCommand {
    /// Take a new key into use.
    AddKey(InstanceKey),
}

/// The keys of the instance, oldest first.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Instance {
    /// Every key there ever was.
    pub keys: Vec<InstanceKey>,
}

/// A key to sign with.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct InstanceKey {
    /// What it signs.
    pub purpose: KeyPurpose,
    /// Names it, in tokens and signed notes.
    pub key_id: String,
    /// How it signs.
    pub algorithm: KeyAlgorithm,
    /// The public half, base64url without padding.
    pub public_key: String,
    /// The private half, sealed.
    pub private_key: Sealed,
}

/// What a key signs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KeyPurpose {
    /// The tokens of user sessions.
    Sessions,
    /// The heads of the log's Merkle tree.
    Checkpoints,
}

/// How a key signs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum KeyAlgorithm {
    /// Ed25519, by its name in JSON Web Tokens.
    #[serde(rename = "EdDSA")]
    EdDsa,
}

impl Instance {
    /// The key that signs now, for a purpose.
    pub fn signing_key(&self, purpose: KeyPurpose) -> Option<&InstanceKey> {
        self.keys.iter().rev().find(|key| key.purpose == purpose)
    }

    /// Answers a command with events or a refusal.
    pub fn decide(&self, command: InstanceCommand) -> Result<Vec<InstanceEvent>, InstanceError> {
        let InstanceCommand::AddKey(key) = command;
        match self.keys.iter().find(|known| known.key_id == key.key_id) {
            Some(known) if *known == key => Ok(vec![]),
            Some(_) => Err(InstanceError::KeyExists),
            None => Ok(vec![InstanceEvent::KeyAdded {
                purpose: key.purpose,
                key_id: key.key_id,
                algorithm: key.algorithm,
                public_key: key.public_key,
                private_key: key.private_key,
            }]),
        }
    }
}

/// Why the instance refused a command.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InstanceError {
    /// A key id names one key for ever.
    #[error("another key has this id: make a new key with an id of its own")]
    KeyExists,
}

impl Refusal for InstanceError {
    fn reason(&self) -> (RefusalKind, &'static str) {
        match self {
            InstanceError::KeyExists => (RefusalKind::Conflict, "instance_key_exists"),
        }
    }
}

impl Aggregate for Instance {
    const TYPE: &'static str = "instance";
    type Command = InstanceCommand;
    type Event = InstanceEvent;
    type Error = InstanceError;
    type Services = ();

    async fn handle(
        &mut self,
        command: InstanceCommand,
        _: &(),
        sink: &EventSink<Self>,
    ) -> Result<(), InstanceError> {
        for event in self.decide(command)? {
            sink.write(event, self).await;
        }
        Ok(())
    }

    fn apply(&mut self, event: InstanceEvent) {
        let InstanceEvent::KeyAdded { purpose, key_id, algorithm, public_key, private_key } = event;
        self.keys.push(InstanceKey { purpose, key_id, algorithm, public_key, private_key });
    }
}

impl DomainEvent for InstanceEvent {
    fn event_type(&self) -> String {
        event::name_of(self).to_owned()
    }

    fn event_version(&self) -> String {
        event::version_of(event::name_of(self)).to_owned()
    }
}

#[cfg(test)]
mod tests;
