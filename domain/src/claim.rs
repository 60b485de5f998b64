//! A claim: that something is unique. The stream is named by a keyed hash of what is claimed (an
//! e-mail address, a webhook path), so that the log does not show it.
//!
//! Life: `Free` ⇄ `Taken`. First the claim, then what needs it; whoever holds it may take it again.

use cqrs_es::event_sink::EventSink;
use cqrs_es::{Aggregate, DomainEvent};
use serde::{Deserialize, Serialize};

use crate::event;
use crate::refusal::{Refusal, RefusalKind};

/// What has happened to a claim.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum ClaimEvent {
    /// Somebody holds it now.
    #[serde(rename = "claim.taken.v1")]
    Taken {
        /// What is claimed.
        kind: ClaimKind,
        /// Who holds it, as `user-<uuid>`; of a manifest its digest, as `manifest-<sha-256>`.
        holder: String,
    },
    /// Nobody holds it any more.
    #[serde(rename = "claim.released.v1")]
    Released {
        /// Who held it.
        holder: String,
    },
}

/// What one may ask of a claim.
#[derive(Clone, Debug, PartialEq)]
pub enum ClaimCommand {
    /// Hold it.
    Take {
        /// What is claimed.
        kind: ClaimKind,
        /// Who wants it, as `user-<uuid>`.
        holder: String,
    },
    /// Let go of it.
    Release {
        /// Who lets go.
        holder: String,
    },
}

/// What can be claimed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ClaimKind {
    /// The e-mail address of a user.
    Email,
    /// The path of a webhook trigger.
    WebhookPath,
    /// Who somebody is at an outside issuer: the issuer, and the subject of its tokens.
    Identity,
    /// The name and version of a manifest.
    Manifest,
    /// The `Idempotency-Key` of an upload, where the log knows a command only within its stream.
    UploadKey,
}

/// A claim.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub enum Claim {
    /// Nobody holds it.
    #[default]
    Free,
    /// Somebody holds it.
    Taken {
        /// What is claimed.
        kind: ClaimKind,
        /// Who holds it.
        holder: String,
    },
}

impl Claim {
    /// Answers a command with events or a refusal.
    pub fn decide(&self, command: ClaimCommand) -> Result<Vec<ClaimEvent>, ClaimError> {
        use {ClaimCommand as Do, ClaimEvent as Did};
        match (self, command) {
            (Claim::Free, Do::Take { kind, holder }) => Ok(vec![Did::Taken { kind, holder }]),
            (Claim::Taken { holder: by, .. }, Do::Take { holder, .. }) if *by == holder => {
                Ok(vec![])
            }
            (Claim::Taken { kind, .. }, Do::Take { .. }) => Err(ClaimError::Taken(*kind)),
            (Claim::Taken { holder: by, .. }, Do::Release { holder }) if *by == holder => {
                Ok(vec![Did::Released { holder }])
            }
            // A late release must not free what somebody else has taken since.
            (Claim::Free | Claim::Taken { .. }, Do::Release { .. }) => Ok(vec![]),
        }
    }
}

/// Why a claim refused a command.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ClaimError {
    /// Somebody else holds it.
    #[error("{}", why(*.0))]
    Taken(ClaimKind),
}

fn why(kind: ClaimKind) -> &'static str {
    match kind {
        ClaimKind::Email => "this e-mail address is in use already: choose another",
        ClaimKind::WebhookPath => "this webhook path is in use already: choose another",
        ClaimKind::Identity => "this outside identity is another user's: sign in as that one",
        ClaimKind::Manifest => {
            "another manifest has this name and version in this product: publish this one under \
             another version"
        }
        ClaimKind::UploadKey => "this Idempotency-Key is in use already: choose another",
    }
}

impl Refusal for ClaimError {
    fn reason(&self) -> (RefusalKind, &'static str) {
        let ClaimError::Taken(kind) = self;
        match kind {
            ClaimKind::Email => (RefusalKind::Conflict, "email_taken"),
            ClaimKind::WebhookPath => (RefusalKind::Conflict, "webhook_path_taken"),
            ClaimKind::Identity => (RefusalKind::Conflict, "identity_taken"),
            ClaimKind::Manifest => (RefusalKind::Conflict, "manifest_version_taken"),
            ClaimKind::UploadKey => (RefusalKind::Invalid, "idempotency_key_reused"),
        }
    }
}

impl Aggregate for Claim {
    const TYPE: &'static str = "claim";
    type Command = ClaimCommand;
    type Event = ClaimEvent;
    type Error = ClaimError;
    type Services = ();

    async fn handle(
        &mut self,
        command: ClaimCommand,
        _: &(),
        sink: &EventSink<Self>,
    ) -> Result<(), ClaimError> {
        for event in self.decide(command)? {
            sink.write(event, self).await;
        }
        Ok(())
    }

    fn apply(&mut self, event: ClaimEvent) {
        *self = match event {
            ClaimEvent::Taken { kind, holder } => Claim::Taken { kind, holder },
            ClaimEvent::Released { .. } => Claim::Free,
        };
    }
}

impl DomainEvent for ClaimEvent {
    fn event_type(&self) -> String {
        event::name_of(self).to_owned()
    }

    fn event_version(&self) -> String {
        event::version_of(event::name_of(self)).to_owned()
    }
}

#[cfg(test)]
mod tests;
