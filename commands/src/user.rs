//! Users: making, changing and deleting people, whose data is sealed under a key of their own.

use domain::user::{Asker, User, UserCommand, UserEvent};
use domain::{Email, Name, Role, Sealed};
use eventlog::{Position, StreamId};
use secrecy::{ExposeSecret, SecretString};
use uuid::Uuid;

use crate::execute::decode_event;
use crate::seal::user_key;
use crate::{Ask, Commands, Done, Error, Fault};

pub(crate) const CREATED: &str = "user.created.v1";
const RENAMED: &str = "user.renamed.v1";
const EMAIL_CHANGED: &str = "user.email_changed.v1";
const PASSWORD_CHANGED: &str = "user.password_changed.v1";

/// The shortest password (NIST SP 800-63B asks for 8).
pub const PASSWORD_MIN: usize = 8;
/// The longest password.
pub const PASSWORD_MAX: usize = 256;

/// A person who is to be made.
pub struct NewUser {
    /// The address that it signs in with.
    pub email: Email,
    /// Its name.
    pub name: Option<Name>,
    /// What it may do.
    pub role: Role,
    /// What it signs in with.
    pub password: SecretString,
}

/// What is to be changed of a person; nothing that is `None`.
#[derive(Default)]
pub struct UserChange {
    /// Another address.
    pub email: Option<Email>,
    /// Another name.
    pub name: Option<Name>,
    /// Another role.
    pub role: Option<Role>,
    /// Another password. No session from before is good any more.
    pub password: Option<SecretString>,
}

impl Commands {
    /// Makes a user on behalf of `by`.
    ///
    /// # Errors
    /// The address is taken, the password too short, or `by` may not.
    pub async fn create_user(&self, new: NewUser, by: Asker, ask: &Ask) -> Result<Done, Error> {
        self.create_user_as(ask.new_id("user"), new, by, ask).await
    }

    pub(crate) async fn create_user_as(
        &self,
        user: Uuid,
        new: NewUser,
        by: Asker,
        ask: &Ask,
    ) -> Result<Done, Error> {
        let stream = StreamId::new("user", user);
        if let Some(done) = self.done_before(&stream, ask).await? {
            return Ok(done);
        }
        check_password(&new.password, "/password")?;
        let nothing = || Sealed(String::new());
        let create = |email, name, password| UserCommand::Create {
            email,
            name,
            role: new.role,
            password,
            identity: None,
            by,
        };
        self.rehearse(&stream, create(nothing(), None, None), ask).await?;

        self.take_email(&new.email, user, ask).await?;
        self.vault.create_key(&user_key(user)).await?;
        let email = self.seal_of(user, ask, CREATED, "email", new.email.as_str()).await?;
        let name = match &new.name {
            Some(name) => Some(self.seal_of(user, ask, CREATED, "name", name.as_str()).await?),
            None => None,
        };
        let hash = self.secrets.hash_password(new.password).await?;
        let password =
            Some(self.seal_of(user, ask, CREATED, "password", hash.expose_secret()).await?);
        let created = self.execute::<User>(user, create(email, name, password), ask).await;
        if matches!(created, Err(Error::Refused { .. })) {
            self.release_email(&new.email, user, ask).await?;
        }
        created
    }

    /// Changes a user on behalf of `by`. After another password no session from before is good, and a
    /// process manager ends them.
    ///
    /// # Errors
    /// The address is taken, the password too short, or `by` may not.
    pub async fn change_user(
        &self,
        user: Uuid,
        change: UserChange,
        by: Asker,
        ask: &Ask,
    ) -> Result<Done, Error> {
        let stream = StreamId::new("user", user);
        if let Some(done) = self.done_before(&stream, ask).await? {
            return Ok(done);
        }
        if let Some(password) = &change.password {
            check_password(password, "/password")?;
        }
        let rehearsed =
            UserCommand::Change { email: None, name: None, role: change.role, password: None, by };
        self.rehearse(&stream, rehearsed, ask).await?;
        let before = self.email_of(user, ask.organization()).await?;
        let new_email = change.email.filter(|email| before.as_ref() != Some(email));
        let moves = new_email
            .as_ref()
            .is_some_and(|new| before.as_ref().map(Email::unique_form) != Some(new.unique_form()));
        let mut command =
            UserCommand::Change { email: None, name: None, role: change.role, password: None, by };
        if let UserCommand::Change { email, name, password, .. } = &mut command {
            if let Some(new) = &new_email {
                *email = Some(self.seal_of(user, ask, EMAIL_CHANGED, "email", new.as_str()).await?);
            }
            if let Some(new) = &change.name {
                let old = self.latest_text(user, ask.organization(), "name").await?;
                if old.as_deref() != Some(new.as_str()) {
                    *name = Some(self.seal_of(user, ask, RENAMED, "name", new.as_str()).await?);
                }
            }
            if let Some(new) = change.password.clone() {
                let hash = self.secrets.hash_password(new).await?;
                *password = Some(
                    self.seal_of(user, ask, PASSWORD_CHANGED, "password", hash.expose_secret())
                        .await?,
                );
            }
        }
        if let (true, Some(new)) = (moves, &new_email) {
            self.take_email(new, user, ask).await?;
        }
        let changed = self.execute::<User>(user, command, ask).await;
        match (&changed, moves) {
            (Ok(_), true) => {
                if let Some(old) = &before {
                    self.release_email(old, user, ask).await?;
                }
            }
            // Not where nobody knows whether it was stored: the address may be this user's by now.
            (Err(Error::Refused { .. } | Error::Conflict | Error::Stale { .. }), true) => {
                if let Some(new) = &new_email {
                    self.release_email(new, user, ask).await?;
                }
            }
            _ => {}
        }
        changed
    }

    /// Deletes a user on behalf of `by`: it may do nothing any more. A process manager then ends its
    /// sessions, lets go of its address, and shreds the key that everything personal of it is sealed
    /// with.
    ///
    /// # Errors
    /// `by` may not.
    pub async fn delete_user(&self, user: Uuid, by: Asker, ask: &Ask) -> Result<Done, Error> {
        self.execute::<User>(user, UserCommand::Delete { by }, ask).await
    }

    /// Changes a user's own password, which it must know.
    ///
    /// # Errors
    /// There is no old password, or it is wrong, or the new one is too short.
    pub async fn change_own_password(
        &self,
        user: Uuid,
        old: SecretString,
        new: SecretString,
        ask: &Ask,
    ) -> Result<Done, Error> {
        check_password(&new, "/new_password")?;
        let known = self.password_hash_of(user, ask.organization()).await?;
        if known.is_none() {
            let message = "this user has no password here: it comes with tokens of an outside issuer; an admin can \
                           give it a password";
            return Err(fault("password_none", "/current_password", message.to_owned()));
        }
        if !self.secrets.password_fits(old, known).await? {
            let message = "the present password is wrong: type it again";
            return Err(fault("password_wrong", "/current_password", message.to_owned()));
        }
        let change = UserChange { password: Some(new), ..UserChange::default() };
        self.change_user(user, change, Asker::Themself, ask).await
    }

    /// Lets the user decide without storing anything: a command that will be refused must not take
    /// an address first.
    pub(crate) async fn rehearse(
        &self,
        stream: &StreamId,
        command: UserCommand,
        ask: &Ask,
    ) -> Result<(), Error> {
        let (state, sequence) = self.load::<User>(stream).await?;
        if let Some(meant) = &ask.if_match
            && !meant.contains(&sequence)
        {
            return Err(Error::Stale { current: sequence });
        }
        state.decide(command).map_err(|refusal| Error::refused(&refusal))?;
        Ok(())
    }

    /// The present address of a user.
    pub(crate) async fn email_of(
        &self,
        user: Uuid,
        organization: Uuid,
    ) -> Result<Option<Email>, Error> {
        let text = self.latest_text(user, organization, "email").await?;
        Ok(text.and_then(|text| Email::parse(&text).ok()))
    }

    pub(crate) async fn password_hash_of(
        &self,
        user: Uuid,
        organization: Uuid,
    ) -> Result<Option<SecretString>, Error> {
        Ok(self.latest_text(user, organization, "password").await?.map(SecretString::from))
    }

    /// The address of a user, deleted or not; none once its key is shredded.
    pub(crate) async fn past_email_of(
        &self,
        user: Uuid,
        organization: Uuid,
    ) -> Result<Option<Email>, Error> {
        let text = self.last_text(user, organization, "email").await?;
        Ok(text.and_then(|text| Email::parse(&text).ok()))
    }

    /// The present value of one of a user's sealed fields; none where the user was deleted.
    async fn latest_text(
        &self,
        user: Uuid,
        organization: Uuid,
        field: &str,
    ) -> Result<Option<String>, Error> {
        match self.load::<User>(&StreamId::new("user", user)).await?.0 {
            User::Active { .. } => self.last_text(user, organization, field).await,
            User::Missing | User::Deleted | User::Erased => Ok(None),
        }
    }

    /// Where a user's password was last changed, if it ever was.
    pub(crate) async fn password_changed_at(&self, user: Uuid) -> Result<Option<Position>, Error> {
        let events = self.whole_stream(&StreamId::new("user", user)).await?;
        let changed = events.iter().rfind(|event| event.event_type == PASSWORD_CHANGED);
        Ok(changed.map(|event| event.position))
    }

    /// The last value of one of a user's sealed fields. A sealed text is bound to the type of its
    /// event, so the events are asked, not the state.
    async fn last_text(
        &self,
        user: Uuid,
        organization: Uuid,
        field: &str,
    ) -> Result<Option<String>, Error> {
        let stream = StreamId::new("user", user);
        let mut latest: Option<(String, Sealed)> = None;
        for event in self.whole_stream(&stream).await? {
            let sealed = match decode_event::<UserEvent>(&event)? {
                UserEvent::Created { email, name, password, .. } => match field {
                    "email" => Some(email),
                    "name" => name,
                    _ => password,
                },
                UserEvent::EmailChanged { email } if field == "email" => Some(email),
                UserEvent::Renamed { name } if field == "name" => Some(name),
                UserEvent::PasswordChanged { password } if field == "password" => Some(password),
                _ => None,
            };
            if let Some(sealed) = sealed {
                latest = Some((event.event_type.clone(), sealed));
            }
        }
        let Some((event_type, sealed)) = latest else { return Ok(None) };
        let opened = self.unseal(organization, &stream, &event_type, field, &sealed).await?;
        Ok(opened.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()))
    }

    pub(crate) async fn seal_of(
        &self,
        user: Uuid,
        ask: &Ask,
        event_type: &str,
        field: &str,
        text: &str,
    ) -> Result<Sealed, Error> {
        let stream = StreamId::new("user", user);
        self.seal(&user_key(user), ask.organization(), &stream, event_type, field, text.as_bytes())
            .await
    }
}

fn check_password(password: &SecretString, pointer: &str) -> Result<(), Error> {
    let length = password.expose_secret().chars().count();
    if (PASSWORD_MIN..=PASSWORD_MAX).contains(&length) {
        return Ok(());
    }
    let message =
        format!("a password has {PASSWORD_MIN} to {PASSWORD_MAX} characters: choose another");
    Err(fault("password_length", pointer, message))
}

fn fault(code: &'static str, pointer: &str, message: String) -> Error {
    let fault = Fault { pointer: pointer.into(), code: code.into(), message: message.clone() };
    Error::Invalid { code, message, faults: vec![fault] }
}

#[cfg(test)]
mod tests;
