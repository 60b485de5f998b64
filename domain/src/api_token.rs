//! An API token: a credential of one product, for programs.
//!
//! Life: `Missing` → `Present` → `Deleted`; while present it is active, inactive, expired or revoked.
//! Revoked is final. The token itself is never here: only its hash, and the part that may be shown.

use std::collections::BTreeSet;

use cqrs_es::event_sink::EventSink;
use cqrs_es::{Aggregate, DomainEvent};
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::event;
use crate::refusal::{Fault, Refusal, RefusalKind};
use crate::values::{Digest, Name, Scope, Timestamp, TokenPrefix};

/// What has happened to an API token.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum ApiTokenEvent {
    /// It was made.
    #[serde(rename = "api_token.created.v1")]
    Created {
        /// What people call it.
        name: Name,
        /// The part that may be shown.
        prefix: TokenPrefix,
        /// The keyed hash of the whole token.
        secret_hash: Digest,
        /// What it may do.
        scopes: BTreeSet<Scope>,
        /// From where it may be used; from everywhere when empty.
        allowed_ips: BTreeSet<IpNet>,
        /// Until when it may be used; for ever when not given.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        expires_at: Option<Timestamp>,
    },
    /// What is given was changed.
    #[serde(rename = "api_token.changed.v1")]
    Changed {
        /// Another name.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        name: Option<Name>,
        /// Other scopes.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        scopes: Option<BTreeSet<Scope>>,
        /// Other places; everywhere when empty.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        allowed_ips: Option<BTreeSet<IpNet>>,
    },
    /// It may be used again.
    #[serde(rename = "api_token.activated.v1")]
    Activated {},
    /// It may not be used for now.
    #[serde(rename = "api_token.deactivated.v1")]
    Deactivated {},
    /// It may never be used again.
    #[serde(rename = "api_token.revoked.v1")]
    Revoked {},
    /// Its time ran out.
    #[serde(rename = "api_token.expired.v1")]
    Expired {
        /// When it ran out, which is before it was noticed.
        expired_at: Timestamp,
    },
    /// It got more time. An expired one is active again.
    #[serde(rename = "api_token.renewed.v1")]
    Renewed {
        /// Until when it may be used; for ever when not given.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        expires_at: Option<Timestamp>,
    },
    /// It got another secret.
    #[serde(rename = "api_token.regenerated.v1")]
    Regenerated {
        /// The part that may be shown.
        prefix: TokenPrefix,
        /// The keyed hash of the whole new token.
        secret_hash: Digest,
        /// Until when the old secret is good too. Without it the old one stopped at once.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        previous_valid_until: Option<Timestamp>,
    },
    /// It is gone.
    #[serde(rename = "api_token.deleted.v1")]
    Deleted {},
}

/// What one may ask of an API token.
#[derive(Clone, Debug, PartialEq)]
pub enum ApiTokenCommand {
    /// Make it.
    Create {
        /// What people call it.
        name: Name,
        /// The part that may be shown.
        prefix: TokenPrefix,
        /// The keyed hash of the whole token.
        secret_hash: Digest,
        /// What it may do: at least one.
        scopes: BTreeSet<Scope>,
        /// From where it may be used; from everywhere when empty.
        allowed_ips: BTreeSet<IpNet>,
        /// Until when it may be used; for ever when not given.
        expires_at: Option<Timestamp>,
        /// The present.
        now: Timestamp,
    },
    /// Change what is given, leave the rest.
    Change {
        /// Another name.
        name: Option<Name>,
        /// Other scopes: at least one.
        scopes: Option<BTreeSet<Scope>>,
        /// Other places; everywhere when empty.
        allowed_ips: Option<BTreeSet<IpNet>>,
        /// Let it be used, or not.
        active: Option<bool>,
    },
    /// Forbid it for ever.
    Revoke,
    /// Write down that its time ran out, if it did.
    Expire {
        /// The present.
        now: Timestamp,
    },
    /// Give it more time.
    Renew {
        /// Until when it may be used; for ever when not given.
        expires_at: Option<Timestamp>,
        /// The present.
        now: Timestamp,
    },
    /// Give it another secret.
    Regenerate {
        /// The part that may be shown.
        prefix: TokenPrefix,
        /// The keyed hash of the whole new token.
        secret_hash: Digest,
        /// Until when the old secret is good too, if it is to be.
        previous_valid_until: Option<Timestamp>,
        /// The present.
        now: Timestamp,
    },
    /// Remove it.
    Delete,
}

/// An API token.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub enum ApiToken {
    /// Not made yet.
    #[default]
    Missing,
    /// Made, and perhaps usable: see [`TokenDetails::status`].
    Present(TokenDetails),
    /// Gone for good.
    Deleted,
}

/// What there is to know of a token.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TokenDetails {
    /// What people call it.
    pub name: Name,
    /// The part that may be shown.
    pub prefix: TokenPrefix,
    /// The keyed hash of the whole token.
    pub secret_hash: Digest,
    /// The secret before the last regeneration, where it was given grace.
    pub previous: Option<PreviousSecret>,
    /// What it may do.
    pub scopes: BTreeSet<Scope>,
    /// From where it may be used; from everywhere when empty.
    pub allowed_ips: BTreeSet<IpNet>,
    /// Until when it may be used; for ever when `None`.
    pub expires_at: Option<Timestamp>,
    /// Whether it may be used.
    pub status: TokenStatus,
    /// Somebody switched it off: it stays so when it runs out and is renewed.
    pub is_switched_off: bool,
}

/// A secret that was replaced and is still good for a while.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PreviousSecret {
    /// The keyed hash of the whole old token.
    pub secret_hash: Digest,
    /// Until when it is good.
    pub valid_until: Timestamp,
}

/// Whether a token may be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TokenStatus {
    /// Yes.
    Active,
    /// Not for now.
    Inactive,
    /// Not before it is renewed.
    Expired,
    /// Never again.
    Revoked,
}

impl TokenStatus {
    /// The status as it is written.
    pub fn as_str(self) -> &'static str {
        serde_variant::to_variant_name(&self).expect("a status is an enum of plain names")
    }
}

impl TokenDetails {
    /// When the token's time ran out, if it has and that was not written down yet.
    fn due(&self, now: Timestamp) -> Option<Timestamp> {
        let open = matches!(self.status, TokenStatus::Active | TokenStatus::Inactive);
        self.expires_at.filter(|at| open && *at <= now)
    }
}

impl ApiToken {
    /// Answers a command with events or a refusal.
    pub fn decide(&self, command: ApiTokenCommand) -> Result<Vec<ApiTokenEvent>, ApiTokenError> {
        use {ApiTokenCommand as Do, ApiTokenEvent as Did};
        match (self, command) {
            (
                ApiToken::Missing,
                Do::Create { name, prefix, secret_hash, scopes, allowed_ips, expires_at, now },
            ) => {
                in_future(expires_at, now)?;
                some_scope(&scopes)?;
                Ok(vec![Did::Created {
                    name,
                    prefix,
                    secret_hash,
                    scopes,
                    allowed_ips,
                    expires_at,
                }])
            }
            (ApiToken::Present(_) | ApiToken::Deleted, Do::Create { .. }) => {
                Err(ApiTokenError::AlreadyExists)
            }
            (ApiToken::Missing | ApiToken::Deleted, _) => Err(ApiTokenError::NotFound),
            (ApiToken::Present(token), command) => token.decide(command),
        }
    }
}

impl TokenDetails {
    fn decide(&self, command: ApiTokenCommand) -> Result<Vec<ApiTokenEvent>, ApiTokenError> {
        use {ApiTokenCommand as Do, ApiTokenEvent as Did, TokenStatus as Is};
        match (self.status, command) {
            (_, Do::Create { .. }) => Err(ApiTokenError::AlreadyExists),
            (_, Do::Delete) => Ok(vec![Did::Deleted {}]),

            (Is::Revoked, Do::Revoke | Do::Expire { .. }) => Ok(vec![]),
            (Is::Revoked, Do::Change { .. } | Do::Renew { .. } | Do::Regenerate { .. }) => {
                Err(ApiTokenError::Revoked)
            }
            (_, Do::Revoke) => Ok(vec![Did::Revoked {}]),

            (_, Do::Expire { now }) => Ok(self
                .due(now)
                .map(|expired_at| Did::Expired { expired_at })
                .into_iter()
                .collect()),

            (status, Do::Renew { expires_at, now }) => {
                in_future(expires_at, now)?;
                // The history says that it had run out, even if nobody had noticed before.
                let noticed = self.due(now).map(|expired_at| Did::Expired { expired_at });
                let changes =
                    noticed.is_some() || status == Is::Expired || expires_at != self.expires_at;
                let renewed = changes.then_some(Did::Renewed { expires_at });
                Ok(noticed.into_iter().chain(renewed).collect())
            }

            (Is::Expired, Do::Regenerate { .. } | Do::Change { active: Some(_), .. }) => {
                Err(ApiTokenError::Expired)
            }
            (_, Do::Regenerate { prefix, secret_hash, previous_valid_until, now }) => {
                if self.due(now).is_some() {
                    return Err(ApiTokenError::Expired);
                }
                let previous_valid_until = previous_valid_until.filter(|until| *until > now);
                Ok(vec![Did::Regenerated { prefix, secret_hash, previous_valid_until }])
            }

            (status, Do::Change { name, scopes, allowed_ips, active }) => {
                scopes.as_ref().map_or(Ok(()), some_scope)?;
                let name = name.filter(|name| *name != self.name);
                let scopes = scopes.filter(|scopes| *scopes != self.scopes);
                let allowed_ips = allowed_ips.filter(|places| *places != self.allowed_ips);
                let changed = name.is_some() || scopes.is_some() || allowed_ips.is_some();
                let changed = changed.then_some(Did::Changed { name, scopes, allowed_ips });
                let switched = match (status, active) {
                    (Is::Inactive, Some(true)) => Some(Did::Activated {}),
                    (Is::Active, Some(false)) => Some(Did::Deactivated {}),
                    _ => None,
                };
                Ok(changed.into_iter().chain(switched).collect())
            }
        }
    }
}

fn in_future(expires_at: Option<Timestamp>, now: Timestamp) -> Result<(), ApiTokenError> {
    match expires_at {
        Some(at) if at <= now => Err(ApiTokenError::ExpiresInPast),
        Some(_) | None => Ok(()),
    }
}

fn some_scope(scopes: &BTreeSet<Scope>) -> Result<(), ApiTokenError> {
    if scopes.is_empty() { Err(ApiTokenError::NoScopes) } else { Ok(()) }
}

/// Why an API token refused a command.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ApiTokenError {
    /// There is no such token, or no more.
    #[error("there is no such API token: list those of the product to see which there are")]
    NotFound,
    /// The id is taken, or was.
    #[error("the API token exists already: change that one, or make another")]
    AlreadyExists,
    /// Revoked is final.
    #[error("the API token was revoked, which is final: make a new one")]
    Revoked,
    /// Expired tokens can only be renewed.
    #[error("the API token has expired: renew it first")]
    Expired,
    /// A token that could never be used.
    #[error(
        "expires_at lies in the past: choose a time in the future, or null for a token that does not expire"
    )]
    ExpiresInPast,
    /// A token that could not do anything.
    #[error("a token without scopes can do nothing: name at least one, or leave them out for all")]
    NoScopes,
}

impl Refusal for ApiTokenError {
    fn reason(&self) -> (RefusalKind, &'static str) {
        match self {
            ApiTokenError::NotFound => (RefusalKind::NotFound, "api_token_not_found"),
            ApiTokenError::AlreadyExists => (RefusalKind::Conflict, "api_token_already_exists"),
            ApiTokenError::Revoked => (RefusalKind::Conflict, "api_token_revoked"),
            ApiTokenError::Expired => (RefusalKind::Conflict, "api_token_expired"),
            ApiTokenError::ExpiresInPast => (RefusalKind::Invalid, "expires_at_in_past"),
            ApiTokenError::NoScopes => (RefusalKind::Invalid, "scopes_empty"),
        }
    }

    fn faults(&self) -> Vec<Fault> {
        let pointer = match self {
            ApiTokenError::ExpiresInPast => "/expires_at",
            ApiTokenError::NoScopes => "/scopes",
            _ => return vec![],
        };
        vec![Fault::new(pointer, self.reason().1, self.to_string())]
    }
}

impl Aggregate for ApiToken {
    const TYPE: &'static str = "api_token";
    type Command = ApiTokenCommand;
    type Event = ApiTokenEvent;
    type Error = ApiTokenError;
    type Services = ();

    async fn handle(
        &mut self,
        command: ApiTokenCommand,
        _: &(),
        sink: &EventSink<Self>,
    ) -> Result<(), ApiTokenError> {
        for event in self.decide(command)? {
            sink.write(event, self).await;
        }
        Ok(())
    }

    fn apply(&mut self, event: ApiTokenEvent) {
        match (&mut *self, event) {
            (
                _,
                ApiTokenEvent::Created {
                    name,
                    prefix,
                    secret_hash,
                    scopes,
                    allowed_ips,
                    expires_at,
                },
            ) => {
                *self = ApiToken::Present(TokenDetails {
                    name,
                    prefix,
                    secret_hash,
                    previous: None,
                    scopes,
                    allowed_ips,
                    expires_at,
                    status: TokenStatus::Active,
                    is_switched_off: false,
                });
            }
            (_, ApiTokenEvent::Deleted {}) => *self = ApiToken::Deleted,
            (ApiToken::Present(token), event) => token.apply(event),
            (ApiToken::Missing | ApiToken::Deleted, _) => {}
        }
    }
}

impl TokenDetails {
    fn apply(&mut self, event: ApiTokenEvent) {
        match event {
            ApiTokenEvent::Created { .. } | ApiTokenEvent::Deleted {} => {}
            ApiTokenEvent::Changed { name, scopes, allowed_ips } => {
                name.into_iter().for_each(|new| self.name = new);
                scopes.into_iter().for_each(|new| self.scopes = new);
                allowed_ips.into_iter().for_each(|new| self.allowed_ips = new);
            }
            ApiTokenEvent::Activated {} => {
                (self.status, self.is_switched_off) = (TokenStatus::Active, false);
            }
            ApiTokenEvent::Deactivated {} => {
                (self.status, self.is_switched_off) = (TokenStatus::Inactive, true);
            }
            ApiTokenEvent::Revoked {} => self.status = TokenStatus::Revoked,
            ApiTokenEvent::Expired { .. } => self.status = TokenStatus::Expired,
            ApiTokenEvent::Renewed { expires_at } => {
                self.expires_at = expires_at;
                if self.status == TokenStatus::Expired {
                    self.status = match self.is_switched_off {
                        true => TokenStatus::Inactive,
                        false => TokenStatus::Active,
                    };
                }
            }
            ApiTokenEvent::Regenerated { prefix, secret_hash, previous_valid_until } => {
                self.prefix = prefix;
                let old = std::mem::replace(&mut self.secret_hash, secret_hash);
                self.previous = previous_valid_until
                    .map(|valid_until| PreviousSecret { secret_hash: old, valid_until });
            }
        }
    }
}

impl DomainEvent for ApiTokenEvent {
    fn event_type(&self) -> String {
        event::name_of(self).to_owned()
    }

    fn event_version(&self) -> String {
        event::version_of(event::name_of(self)).to_owned()
    }
}

#[cfg(test)]
mod tests;
