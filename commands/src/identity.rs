//! Who somebody is at an outside issuer, and which user that is here.
//!
//! The rule of this file: an address finds a user once, and only where the issuer has verified it; from
//! then on it is issuer and subject that say who comes. Whoever gets the address later is not that user,
//! and a user who was deleted does not come back by itself.

use domain::refusal::{Refusal, RefusalKind};
use domain::user::{Asker, Identity, User, UserCommand, UserEvent};
use domain::values::derived_id;
use domain::{Email, Name, Role, Sealed};
use eventlog::StreamId;
use uuid::Uuid;

use crate::execute::decode_event;
use crate::seal::user_key;
use crate::user::CREATED;
use crate::{Ask, Commands, Done, Error};

const LINKED: &str = "user.identity_linked.v1";

/// What an outside issuer says of somebody.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutsideIdentity {
    /// The issuer.
    pub issuer: String,
    /// What it calls them, for ever.
    pub subject: String,
    /// Their address, if the issuer has verified it.
    pub email: Option<Email>,
    /// Their name.
    pub name: Option<Name>,
}

/// Which user an outside identity is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whom {
    /// This one, who has come with it before.
    Known(Uuid),
    /// This one, by its address, for the first time. A user who is gone may have come with it.
    ByEmail {
        /// The user.
        user: Uuid,
        /// The one that is gone.
        instead_of: Option<Uuid>,
    },
    /// One that is to be made, under this id.
    New(Uuid),
}

/// Why an outside identity is no user.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IdentityError {
    /// Nobody has come with it before, and there is no address to go by.
    #[error(
        "the issuer has not verified an e-mail address: verify it there, or let an admin see to it"
    )]
    EmailUnverified,
    /// Nobody has this address.
    #[error("no user has this e-mail address: ask an admin to make one")]
    UserUnknown,
    /// The user that it was is gone.
    #[error("the user was deleted: ask an admin")]
    UserDeleted,
    /// The user of this address comes under another subject.
    #[error("the user of this e-mail address is somebody else at the issuer: ask an admin")]
    OfAnother,
}

impl Refusal for IdentityError {
    fn reason(&self) -> (RefusalKind, &'static str) {
        let code = match self {
            IdentityError::EmailUnverified => "identity_email_unverified",
            IdentityError::UserUnknown => "identity_user_unknown",
            IdentityError::UserDeleted => "identity_user_deleted",
            IdentityError::OfAnother => "identity_of_another",
        };
        (RefusalKind::Unauthenticated, code)
    }
}

impl Commands {
    /// Finds the user that an outside identity is. Nothing is changed.
    ///
    /// # Errors
    /// An [`IdentityError`]; log or vault fail.
    pub async fn identify(
        &self,
        identity: &OutsideIdentity,
        may_make: bool,
    ) -> Result<Whom, Error> {
        let refused = |why: IdentityError| Err(Error::refused(&why));
        let OutsideIdentity { issuer, subject, email, .. } = identity;
        // An id stays when the user is erased: it must not be found again by whoever guesses the subject.
        let keyed = self.secrets.claim("outside user", &format!("{issuer}\0{subject}"));
        let new = derived_id(&[b"outside user", keyed.as_str().as_bytes()]);
        let mut instead_of = None;
        if let Some(holder) = self.user_by_identity(issuer, subject).await? {
            match self.load::<User>(&StreamId::new("user", holder)).await?.0 {
                User::Active { issuers, .. } if issuers.contains(issuer) => {
                    return Ok(Whom::Known(holder));
                }
                // It was cut off between the claim and what needs it.
                User::Active { .. } | User::Missing => {}
                User::Deleted | User::Erased => instead_of = Some(holder),
            }
        }
        let Some(email) = email else {
            return refused(match instead_of {
                Some(_) => IdentityError::UserDeleted,
                None => IdentityError::EmailUnverified,
            });
        };
        let by_email = self.user_by_email(email).await?;
        let user = match by_email {
            Some(user) => Some((user, self.load::<User>(&StreamId::new("user", user)).await?.0)),
            None => None,
        };
        match user {
            Some((user, User::Active { issuers, .. })) => {
                if issuers.contains(issuer) {
                    return refused(IdentityError::OfAnother);
                }
                Ok(Whom::ByEmail { user, instead_of })
            }
            Some((_, User::Deleted | User::Erased)) => refused(IdentityError::UserDeleted),
            _ if instead_of.is_some() => refused(IdentityError::UserDeleted),
            Some((_, User::Missing)) | None if may_make => Ok(Whom::New(new)),
            Some((_, User::Missing)) | None => refused(IdentityError::UserUnknown),
        }
    }

    /// Lets a user come with an outside identity.
    ///
    /// # Errors
    /// It is another user's, or the user is another one at the issuer.
    pub async fn link_identity(
        &self,
        user: Uuid,
        instead_of: Option<Uuid>,
        identity: &OutsideIdentity,
        ask: &Ask,
    ) -> Result<Done, Error> {
        let stream = StreamId::new("user", user);
        if let Some(done) = self.done_before(&stream, ask).await? {
            return Ok(done);
        }
        let OutsideIdentity { issuer, subject, .. } = identity;
        let unsealed = Identity { issuer: issuer.clone(), subject: Sealed(String::new()) };
        self.rehearse(&stream, UserCommand::Link(unsealed), ask).await?;
        self.take_identity(issuer, subject, user, instead_of, ask).await?;
        let link = UserCommand::Link(self.sealed(user, identity, ask).await?);
        self.execute::<User>(user, link, ask).await
    }

    /// Makes the user that an outside identity is, without a password.
    ///
    /// # Errors
    /// The issuer has verified no address, or the address or the identity is another user's.
    pub async fn make_outside_user(
        &self,
        user: Uuid,
        identity: &OutsideIdentity,
        role: Role,
        ask: &Ask,
    ) -> Result<Done, Error> {
        let stream = StreamId::new("user", user);
        if let Some(done) = self.done_before(&stream, ask).await? {
            return Ok(done);
        }
        let Some(email) = &identity.email else {
            return Err(Error::refused(&IdentityError::EmailUnverified));
        };
        self.take_identity(&identity.issuer, &identity.subject, user, None, ask).await?;
        self.take_email(email, user, ask).await?;
        self.vault.create_key(&user_key(user)).await?;
        let name = match &identity.name {
            Some(name) => Some(self.seal_of(user, ask, CREATED, "name", name.as_str()).await?),
            None => None,
        };
        let create = UserCommand::Create {
            email: self.seal_of(user, ask, CREATED, "email", email.as_str()).await?,
            name,
            role,
            password: None,
            identity: Some(self.sealed(user, identity, ask).await?),
            // Whoever runs the server has said so in its configuration.
            by: Asker::Operator,
        };
        self.execute::<User>(user, create, ask).await
    }

    /// Forgets who a user is at outside issuers: its sessions from there end, and whoever comes from there
    /// next with its address is linked anew.
    ///
    /// # Errors
    /// `by` may not, or the user is nobody outside.
    pub async fn unlink_identities(&self, user: Uuid, by: Asker, ask: &Ask) -> Result<Done, Error> {
        let done = self.execute::<User>(user, UserCommand::Unlink { by }, ask).await?;
        let stream = StreamId::new("user", user);
        let User::Active { issuers, .. } = self.load::<User>(&stream).await?.0 else {
            return Ok(done);
        };
        for event in self.whole_stream(&stream).await? {
            let UserEvent::IdentityLinked { issuer, subject } = decode_event(&event)? else {
                continue;
            };
            if issuers.contains(&issuer) {
                continue;
            }
            let organization = event.organization;
            let opened = self.unseal(organization, &stream, LINKED, "subject", &subject).await?;
            if let Some(subject) = opened {
                let subject = String::from_utf8_lossy(&subject);
                self.release_identity(&issuer, &subject, user, ask).await?;
            }
        }
        Ok(done)
    }

    async fn sealed(
        &self,
        user: Uuid,
        identity: &OutsideIdentity,
        ask: &Ask,
    ) -> Result<Identity, Error> {
        let subject = self.seal_of(user, ask, LINKED, "subject", &identity.subject).await?;
        Ok(Identity { issuer: identity.issuer.clone(), subject })
    }
}
