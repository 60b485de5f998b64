//! A user: a person with a password and a role in the organization.
//!
//! Life: `Missing` → `Active` → `Deleted` → `Erased`, and never back: a deleted user may do nothing, of
//! an erased one nothing personal can be read any more. Nobody changes their own role or deletes
//! themself, and only owners make or unmake owners: so an organization never loses its last one.
//!
//! E-mail, name and password hash are sealed. The same text sealed twice is two texts, so whoever
//! sends a command compares the clear values and sends only what really changes.

use std::collections::BTreeSet;

use cqrs_es::event_sink::EventSink;
use cqrs_es::{Aggregate, DomainEvent};
use serde::{Deserialize, Serialize};

use crate::event;
use crate::refusal::{Refusal, RefusalKind};
use crate::values::{Role, Sealed};

/// What has happened to a user.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum UserEvent {
    /// The user was made.
    #[serde(rename = "user.created.v1")]
    Created {
        /// The e-mail address, sealed.
        email: Sealed,
        /// The person's name, sealed.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        name: Option<Sealed>,
        /// What the user may do.
        role: Role,
        /// The hash of the password, sealed. A user without one cannot sign in by password.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        password: Option<Sealed>,
    },
    /// The user got another name.
    #[serde(rename = "user.renamed.v1")]
    Renamed {
        /// The person's name, sealed.
        name: Sealed,
    },
    /// The user got another e-mail address.
    #[serde(rename = "user.email_changed.v1")]
    EmailChanged {
        /// The e-mail address, sealed.
        email: Sealed,
    },
    /// The user may do more, or less.
    #[serde(rename = "user.role_changed.v1")]
    RoleChanged {
        /// What the user may do.
        role: Role,
    },
    /// The user signs in with another password.
    #[serde(rename = "user.password_changed.v1")]
    PasswordChanged {
        /// The hash of the password, sealed.
        password: Sealed,
    },
    /// The user comes with tokens of an outside issuer, from now on whatever its address is there.
    #[serde(rename = "user.identity_linked.v1")]
    IdentityLinked {
        /// The issuer.
        issuer: String,
        /// What the user is called there, sealed.
        subject: Sealed,
    },
    /// The user does not come with tokens of an outside issuer any more, until it is linked again.
    #[serde(rename = "user.identity_unlinked.v1")]
    IdentityUnlinked {
        /// The issuer.
        issuer: String,
    },
    /// The user is gone.
    #[serde(rename = "user.deleted.v1")]
    Deleted {},
    /// The key that everything personal of the user is sealed with is shredded, and its address and its
    /// sessions are let go of.
    #[serde(rename = "user.erased.v1")]
    Erased {},
}

/// What one may ask of a user.
#[derive(Clone, Debug, PartialEq)]
pub enum UserCommand {
    /// Make the user.
    Create {
        /// The e-mail address, sealed.
        email: Sealed,
        /// The person's name, sealed.
        name: Option<Sealed>,
        /// What the user may do.
        role: Role,
        /// The hash of the password, sealed.
        password: Option<Sealed>,
        /// Who the user is at an outside issuer.
        identity: Option<Identity>,
        /// Who asks.
        by: Asker,
    },
    /// Let the user come with tokens of an outside issuer.
    Link(Identity),
    /// Forget who the user is at outside issuers.
    Unlink {
        /// Who asks.
        by: Asker,
    },
    /// Change what is given, leave the rest.
    Change {
        /// Another e-mail address, sealed.
        email: Option<Sealed>,
        /// Another name, sealed.
        name: Option<Sealed>,
        /// Another role.
        role: Option<Role>,
        /// The hash of another password, sealed.
        password: Option<Sealed>,
        /// Who asks.
        by: Asker,
    },
    /// Remove the user.
    Delete {
        /// Who asks.
        by: Asker,
    },
    /// Say that all that had to follow from its removal is done.
    Erase,
}

/// Who a user is at an outside issuer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The issuer.
    pub issuer: String,
    /// What the user is called there, sealed.
    pub subject: Sealed,
}

/// Who asks for a change of a user.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asker {
    /// The operator of the instance, at the command line or at the first start.
    Operator,
    /// The very user that is to be changed.
    Themself,
    /// Another user, with this role.
    Other(Role),
}

/// A user.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub enum User {
    /// Not made yet.
    #[default]
    Missing,
    /// May sign in.
    Active {
        /// The e-mail address, sealed.
        email: Sealed,
        /// The person's name, sealed.
        name: Option<Sealed>,
        /// What the user may do.
        role: Role,
        /// The hash of the password, sealed.
        password: Option<Sealed>,
        /// The outside issuers that know the user.
        #[serde(default)]
        issuers: BTreeSet<String>,
    },
    /// Gone for good.
    Deleted,
    /// Gone, and its key too.
    Erased,
}

impl User {
    /// Answers a command with events or a refusal.
    pub fn decide(&self, command: UserCommand) -> Result<Vec<UserEvent>, UserError> {
        use {UserCommand as Do, UserEvent as Did};
        match (self, command) {
            (User::Missing, Do::Create { email, name, role, password, identity, by }) => {
                may_touch(by, role)?;
                let linked = identity.map(linked);
                Ok([Some(Did::Created { email, name, role, password }), linked]
                    .into_iter()
                    .flatten()
                    .collect())
            }
            // Another subject with the user's address may be another person, who got the address later.
            (User::Active { issuers, .. }, Do::Link(identity)) => {
                if issuers.contains(&identity.issuer) {
                    return Err(UserError::AlreadyLinked);
                }
                Ok(vec![linked(identity)])
            }
            (User::Active { role, issuers, .. }, Do::Unlink { by }) => {
                may_touch(by, *role)?;
                if issuers.is_empty() {
                    return Err(UserError::NotLinked);
                }
                let unlinked = |issuer: &String| Did::IdentityUnlinked { issuer: issuer.clone() };
                Ok(issuers.iter().map(unlinked).collect())
            }
            (
                User::Missing | User::Deleted | User::Erased,
                Do::Change { .. } | Do::Delete { .. } | Do::Link(_) | Do::Unlink { .. },
            )
            | (User::Missing, Do::Erase) => Err(UserError::NotFound),
            (User::Active { .. } | User::Deleted | User::Erased, Do::Create { .. }) => {
                Err(UserError::AlreadyExists)
            }
            (User::Active { .. }, Do::Erase) => Err(UserError::NotDeleted),
            (User::Deleted, Do::Erase) => Ok(vec![Did::Erased {}]),
            // Whoever finishes it may have been cut off right after this.
            (User::Erased, Do::Erase) => Ok(vec![]),
            (User::Active { role: old, .. }, Do::Change { email, name, role, password, by }) => {
                may_touch(by, *old)?;
                let role = role.filter(|role| role != old);
                if let Some(role) = role {
                    if by == Asker::Themself {
                        return Err(UserError::OwnRole);
                    }
                    may_touch(by, role)?;
                }
                let email = email.map(|email| Did::EmailChanged { email });
                let name = name.map(|name| Did::Renamed { name });
                let role = role.map(|role| Did::RoleChanged { role });
                let password = password.map(|password| Did::PasswordChanged { password });
                Ok([email, name, role, password].into_iter().flatten().collect())
            }
            (User::Active { .. }, Do::Delete { by: Asker::Themself }) => {
                Err(UserError::DeletesThemself)
            }
            (User::Active { role, .. }, Do::Delete { by }) => {
                may_touch(by, *role)?;
                Ok(vec![Did::Deleted {}])
            }
        }
    }
}

fn linked(Identity { issuer, subject }: Identity) -> UserEvent {
    UserEvent::IdentityLinked { issuer, subject }
}

/// Only owners make, change or unmake an owner.
fn may_touch(by: Asker, role: Role) -> Result<(), UserError> {
    match by {
        Asker::Other(asking) if role == Role::Owner && asking != Role::Owner => {
            Err(UserError::OwnerRequired)
        }
        Asker::Operator | Asker::Themself | Asker::Other(_) => Ok(()),
    }
}

/// Why a user refused a command.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UserError {
    /// There is no such user, or no more.
    #[error("there is no such user: list the users to see who there is")]
    NotFound,
    /// The id is taken, or was.
    #[error("the user exists already: change that one, or make another")]
    AlreadyExists,
    /// An owner is touched by someone who is none.
    #[error("only an owner can make, change or delete an owner: ask one of them")]
    OwnerRequired,
    /// Someone changes their own role.
    #[error("nobody can change their own role: ask another admin or owner")]
    OwnRole,
    /// Someone deletes themself.
    #[error("nobody can delete themself: ask another admin or owner")]
    DeletesThemself,
    /// The user is known at the issuer under another subject.
    #[error("this user comes from that issuer as somebody else already: sign in as that one")]
    AlreadyLinked,
    /// It is nobody outside.
    #[error("the user comes with tokens of no outside issuer: there is nothing to unlink")]
    NotLinked,
    /// Only what was deleted is erased.
    #[error("the user is not deleted: delete it first")]
    NotDeleted,
}

impl Refusal for UserError {
    fn reason(&self) -> (RefusalKind, &'static str) {
        match self {
            UserError::NotFound => (RefusalKind::NotFound, "user_not_found"),
            UserError::AlreadyExists => (RefusalKind::Conflict, "user_already_exists"),
            UserError::OwnerRequired => (RefusalKind::Forbidden, "owner_required"),
            UserError::OwnRole => (RefusalKind::Conflict, "own_role_unchangeable"),
            UserError::DeletesThemself => (RefusalKind::Conflict, "user_is_yourself"),
            UserError::NotLinked => (RefusalKind::NotFound, "identity_not_linked"),
            UserError::AlreadyLinked => (RefusalKind::Conflict, "identity_linked_already"),
            UserError::NotDeleted => (RefusalKind::Conflict, "user_not_deleted"),
        }
    }
}

impl Aggregate for User {
    const TYPE: &'static str = "user";
    type Command = UserCommand;
    type Event = UserEvent;
    type Error = UserError;
    type Services = ();

    async fn handle(
        &mut self,
        command: UserCommand,
        _: &(),
        sink: &EventSink<Self>,
    ) -> Result<(), UserError> {
        for event in self.decide(command)? {
            sink.write(event, self).await;
        }
        Ok(())
    }

    fn apply(&mut self, event: UserEvent) {
        match (&mut *self, event) {
            (_, UserEvent::Created { email, name, role, password }) => {
                let issuers = BTreeSet::new();
                *self = User::Active { email, name, role, password, issuers };
            }
            (_, UserEvent::Deleted {}) => *self = User::Deleted,
            (_, UserEvent::Erased {}) => *self = User::Erased,
            (User::Active { name, .. }, UserEvent::Renamed { name: new }) => *name = Some(new),
            (User::Active { email, .. }, UserEvent::EmailChanged { email: new }) => *email = new,
            (User::Active { role, .. }, UserEvent::RoleChanged { role: new }) => *role = new,
            (User::Active { password, .. }, UserEvent::PasswordChanged { password: new }) => {
                *password = Some(new);
            }
            (User::Active { issuers, .. }, UserEvent::IdentityLinked { issuer, subject: _ }) => {
                issuers.insert(issuer);
            }
            (User::Active { issuers, .. }, UserEvent::IdentityUnlinked { issuer }) => {
                issuers.remove(&issuer);
            }
            (User::Missing | User::Deleted | User::Erased, _) => {}
        }
    }
}

impl DomainEvent for UserEvent {
    fn event_type(&self) -> String {
        event::name_of(self).to_owned()
    }

    fn event_version(&self) -> String {
        event::version_of(event::name_of(self)).to_owned()
    }
}

#[cfg(test)]
mod tests;
