//! A session: one sign-in and all refresh tokens that grew from it.
//!
//! Life: `Missing` → `Active` → `Ended`, and never back. A refresh token is good once: one that comes
//! a second time was stolen, from one side or the other, and ends the whole session.

use cqrs_es::event_sink::EventSink;
use cqrs_es::{Aggregate, DomainEvent};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::event;
use crate::refusal::{Refusal, RefusalKind};
use crate::values::{Digest, Timestamp};

/// What has happened to a session.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum SessionEvent {
    /// A user signed in.
    #[serde(rename = "session.started.v1")]
    Started {
        /// Who signed in.
        user: Uuid,
        /// The hash of the first refresh token.
        refresh_hash: Digest,
        /// Until when it can be used.
        expires_at: Timestamp,
    },
    /// A user came with a token of an outside issuer: the session is that token, and has no refresh
    /// tokens.
    #[serde(rename = "session.started_outside.v1")]
    StartedOutside {
        /// Who came.
        user: Uuid,
        /// Who says so.
        issuer: String,
        /// Until when the token is good.
        expires_at: Timestamp,
    },
    /// A refresh token was exchanged for the next one.
    #[serde(rename = "session.refreshed.v1")]
    Refreshed {
        /// The hash of the next refresh token.
        refresh_hash: Digest,
        /// Until when it can be used.
        expires_at: Timestamp,
    },
    /// No token of this session is good any more.
    #[serde(rename = "session.ended.v1")]
    Ended {
        /// Why.
        reason: EndReason,
    },
}

/// What one may ask of a session.
#[derive(Clone, Debug, PartialEq)]
pub enum SessionCommand {
    /// Begin.
    Start {
        /// Who signed in.
        user: Uuid,
        /// The hash of the first refresh token.
        refresh_hash: Digest,
        /// Until when it can be used.
        expires_at: Timestamp,
    },
    /// Begin with a token of an outside issuer. Beginning again changes nothing.
    StartOutside {
        /// Who came.
        user: Uuid,
        /// Who says so.
        issuer: String,
        /// Until when the token is good.
        expires_at: Timestamp,
    },
    /// Exchange a refresh token for the next one. A token that was exchanged before is answered with
    /// [`SessionEvent::Ended`], not with a refusal: the end must be written.
    Refresh {
        /// The hash of the token that was shown.
        presented_hash: Digest,
        /// The hash of the next one.
        new_hash: Digest,
        /// When it was shown.
        now: Timestamp,
        /// Until when the next one can be used.
        expires_at: Timestamp,
    },
    /// End.
    End {
        /// Why.
        reason: EndReason,
    },
}

/// Why a session ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EndReason {
    /// The user signed out.
    Logout,
    /// A refresh token came a second time.
    Reuse,
    /// The user's password was changed.
    PasswordChanged,
    /// The user was deleted.
    UserDeleted,
    /// It was one of an outside issuer, and the user comes with its tokens no more.
    IdentityUnlinked,
}

/// A session.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub enum Session {
    /// Never started.
    #[default]
    Missing,
    /// Goes on.
    Active {
        /// Who signed in.
        user: Uuid,
        /// The hash of the one refresh token that is good; none of a session from outside.
        refresh_hash: Option<Digest>,
        /// Until when it can be used; of a session from outside, its token.
        expires_at: Timestamp,
        /// The hashes of those that were good once. A hash that is in neither was never ours, and
        /// must not be able to end the session of somebody else.
        spent: Vec<Digest>,
    },
    /// Over.
    Ended {
        /// Who had signed in.
        user: Uuid,
        /// Why it ended.
        reason: EndReason,
    },
}

impl Session {
    /// Answers a command with events or a refusal.
    pub fn decide(&self, command: SessionCommand) -> Result<Vec<SessionEvent>, SessionError> {
        use {SessionCommand as Do, SessionEvent as Did};
        match (self, command) {
            (Session::Missing, Do::Start { user, refresh_hash, expires_at }) => {
                Ok(vec![Did::Started { user, refresh_hash, expires_at }])
            }
            (Session::Active { .. } | Session::Ended { .. }, Do::Start { .. }) => {
                Err(SessionError::AlreadyStarted)
            }
            (Session::Missing, Do::StartOutside { user, issuer, expires_at }) => {
                Ok(vec![Did::StartedOutside { user, issuer, expires_at }])
            }
            // The same token at two nodes at once.
            (Session::Active { user: who, .. }, Do::StartOutside { user, .. }) if *who == user => {
                Ok(vec![])
            }
            (Session::Active { .. }, Do::StartOutside { .. }) => Err(SessionError::AlreadyStarted),
            (Session::Ended { .. }, Do::StartOutside { .. }) => Err(SessionError::Ended),
            (Session::Missing, Do::Refresh { .. }) => Err(SessionError::TokenUnknown),
            (Session::Ended { .. }, Do::Refresh { .. }) => Err(SessionError::Ended),
            (
                Session::Active { refresh_hash: current, expires_at: until, spent, .. },
                Do::Refresh { presented_hash, new_hash, now, expires_at },
            ) => {
                if spent.contains(&presented_hash) {
                    Ok(vec![Did::Ended { reason: EndReason::Reuse }])
                } else if current.as_ref() != Some(&presented_hash) {
                    Err(SessionError::TokenUnknown)
                } else if *until <= now {
                    Err(SessionError::Expired)
                } else {
                    Ok(vec![Did::Refreshed { refresh_hash: new_hash, expires_at }])
                }
            }
            (Session::Missing, Do::End { .. }) => Err(SessionError::NotFound),
            (Session::Active { .. }, Do::End { reason }) => Ok(vec![Did::Ended { reason }]),
            (Session::Ended { .. }, Do::End { .. }) => Ok(vec![]),
        }
    }
}

/// Why a session refused a command.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SessionError {
    /// There is no such session.
    #[error("there is no such session: sign in")]
    NotFound,
    /// The id is taken.
    #[error("the session was started already: sign in again for another")]
    AlreadyStarted,
    /// The token was never one of this session's.
    #[error("the refresh token is not known: sign in again")]
    TokenUnknown,
    /// The token is too old.
    #[error("the session has expired: sign in again")]
    Expired,
    /// The session is over.
    #[error("the session has ended: sign in again")]
    Ended,
}

impl Refusal for SessionError {
    fn reason(&self) -> (RefusalKind, &'static str) {
        match self {
            SessionError::NotFound => (RefusalKind::NotFound, "session_not_found"),
            SessionError::AlreadyStarted => (RefusalKind::Conflict, "session_already_started"),
            SessionError::TokenUnknown => (RefusalKind::Unauthenticated, "refresh_token_invalid"),
            SessionError::Expired => (RefusalKind::Unauthenticated, "session_expired"),
            SessionError::Ended => (RefusalKind::Unauthenticated, "session_ended"),
        }
    }
}

impl Aggregate for Session {
    const TYPE: &'static str = "session";
    type Command = SessionCommand;
    type Event = SessionEvent;
    type Error = SessionError;
    type Services = ();

    async fn handle(
        &mut self,
        command: SessionCommand,
        _: &(),
        sink: &EventSink<Self>,
    ) -> Result<(), SessionError> {
        for event in self.decide(command)? {
            sink.write(event, self).await;
        }
        Ok(())
    }

    fn apply(&mut self, event: SessionEvent) {
        match (&mut *self, event) {
            (_, SessionEvent::Started { user, refresh_hash, expires_at }) => {
                let (refresh_hash, spent) = (Some(refresh_hash), vec![]);
                *self = Session::Active { user, refresh_hash, expires_at, spent };
            }
            (_, SessionEvent::StartedOutside { user, issuer: _, expires_at }) => {
                *self = Session::Active { user, refresh_hash: None, expires_at, spent: vec![] };
            }
            (
                Session::Active { refresh_hash, expires_at, spent, .. },
                SessionEvent::Refreshed { refresh_hash: new_hash, expires_at: new_expiry },
            ) => {
                spent.extend(refresh_hash.replace(new_hash));
                *expires_at = new_expiry;
            }
            (Session::Active { user, .. }, SessionEvent::Ended { reason }) => {
                *self = Session::Ended { user: *user, reason };
            }
            (Session::Missing | Session::Ended { .. }, _) => {}
        }
    }
}

impl DomainEvent for SessionEvent {
    fn event_type(&self) -> String {
        event::name_of(self).to_owned()
    }

    fn event_version(&self) -> String {
        event::version_of(event::name_of(self)).to_owned()
    }
}

#[cfg(test)]
mod tests;
