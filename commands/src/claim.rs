//! Claims: what may exist once (an e-mail address, an outside identity, the key of an upload), held by a stream that is
//! named by its keyed hash.
//!
//! The rule of this file: the claim comes first and what needs it second; an address whose holder never
//! came to be, or never came to have it, is taken over after a minute. Name and version of a manifest are
//! held by its digest, and never released.

use chrono::{TimeDelta, Utc};
use domain::claim::{Claim, ClaimCommand, ClaimEvent, ClaimKind};
use domain::manifest::Manifest;
use domain::user::User;
use domain::{Digest, Email};
use eventlog::StreamId;
use uuid::Uuid;

use crate::execute::decode_event;
use crate::{Ask, Commands, Error};

/// How long a claim waits for its holder.
pub(crate) const PATIENCE: TimeDelta = TimeDelta::seconds(60);

impl Commands {
    /// Takes an e-mail address for a user that does not have it yet. Taking it again changes nothing.
    ///
    /// # Errors
    /// Another user has it.
    pub(crate) async fn take_email(
        &self,
        email: &Email,
        user: Uuid,
        ask: &Ask,
    ) -> Result<(), Error> {
        let name = self.email_claim(email);
        let holder = format!("user-{user}");
        if self.is_held_for_long_by(&name, &holder).await? {
            // Left over of a change that was cut off. It must not be taken over while this one is made.
            let release = ClaimCommand::Release { holder: holder.clone() };
            self.execute::<Claim>(&name, release, &ask.follow_up(&format!("renew {name}"))).await?;
        }
        let take = ClaimCommand::Take { kind: ClaimKind::Email, holder };
        let ask = ask.follow_up(&format!("take {name}"));
        match self.execute::<Claim>(&name, take.clone(), &ask).await {
            Err(Error::Refused { .. }) if self.release_if_orphaned(&name, &ask).await? => {
                self.execute::<Claim>(&name, take, &ask).await?;
                Ok(())
            }
            taken => taken.map(|_| ()),
        }
    }

    /// Lets go of a user's e-mail address.
    pub(crate) async fn release_email(
        &self,
        email: &Email,
        user: Uuid,
        ask: &Ask,
    ) -> Result<(), Error> {
        let name = self.email_claim(email);
        let ask = ask.follow_up(&format!("release {name}"));
        self.execute::<Claim>(name, ClaimCommand::Release { holder: format!("user-{user}") }, &ask)
            .await?;
        Ok(())
    }

    /// Takes the name and version of a manifest in a product for what it says, for ever. Taking it for
    /// the same manifest again changes nothing.
    ///
    /// # Errors
    /// Another manifest has it.
    pub(crate) async fn take_manifest(
        &self,
        product: Uuid,
        manifest: &Manifest,
        ask: &Ask,
    ) -> Result<(), Error> {
        let what = format!("{product}\0{}\0{}", manifest.name, manifest.version);
        let name = self.secrets.claim("manifest", &what);
        let holder = format!("manifest-{}", manifest.digest());
        let take = ClaimCommand::Take { kind: ClaimKind::Manifest, holder };
        let ask = ask.follow_up(&format!("take {name}"));
        self.execute::<Claim>(&name, take, &ask).await.map(|_| ())
    }

    /// The user who has an e-mail address.
    pub(crate) async fn user_by_email(&self, email: &Email) -> Result<Option<Uuid>, Error> {
        let stream = StreamId::new("claim", self.email_claim(email));
        Ok(match self.load::<Claim>(&stream).await?.0 {
            Claim::Taken { holder, .. } => StreamId::from(holder.as_str()).uuid(),
            Claim::Free => None,
        })
    }

    /// Whether an upload under the key of `ask` was stored before, whatever it said.
    ///
    /// # Errors
    /// The log fails.
    pub async fn knows_upload(&self, ask: &Ask) -> Result<bool, Error> {
        if !ask.repeatable {
            return Ok(false);
        }
        Ok(self.log.find_command(&self.upload_claim(ask), ask.command_id).await?.is_some())
    }

    /// Makes sure that an upload under the key of `ask` that was stored before, if there is one, said the same.
    ///
    /// # Errors
    /// [`Error::CommandReused`] otherwise; the log fails.
    pub async fn check_upload(&self, ask: &Ask) -> Result<(), Error> {
        self.done_before(&self.upload_claim(ask), ask).await.map(drop)
    }

    /// Where it is found what was uploaded under a key, in logs that know a command in its stream only.
    fn upload_claim(&self, ask: &Ask) -> StreamId {
        StreamId::new("claim", self.secrets.claim("upload", &ask.command_id.to_string()))
    }

    /// Which file stores the first events of an upload under a key: the one that did so before, or
    /// else `file`, from now on. `None` for an upload that was not begun, while `file` is not new.
    ///
    /// Files are named by their bytes. Where the log knows a command only within its stream, the
    /// same key with other files would find nothing of the first ones: the claim is what it finds.
    ///
    /// # Errors
    /// [`Error::CommandReused`] where the key was used for another upload.
    pub(crate) async fn hold_upload(
        &self,
        file: Uuid,
        is_new: bool,
        ask: &Ask,
    ) -> Result<Option<Uuid>, Error> {
        let stream = self.upload_claim(ask);
        let holder = format!("file-{file}");
        let held = match self.done_before(&stream, ask).await? {
            Some(held) => held,
            None if !is_new => return Ok(None),
            None => {
                let take = ClaimCommand::Take { kind: ClaimKind::UploadKey, holder };
                self.execute_anew::<Claim>(stream, take, ask).await?
            }
        };
        let taken =
            held.events.first().map(|event| decode_event::<ClaimEvent>(event)).transpose()?;
        Ok(match taken {
            Some(ClaimEvent::Taken { holder, .. }) => StreamId::from(holder.as_str()).uuid(),
            _ => None,
        })
    }

    /// The user who has an outside identity, gone or not.
    pub(crate) async fn user_by_identity(
        &self,
        issuer: &str,
        subject: &str,
    ) -> Result<Option<Uuid>, Error> {
        let stream = StreamId::new("claim", self.identity_claim(issuer, subject));
        Ok(match self.load::<Claim>(&stream).await?.0 {
            Claim::Taken { holder, .. } => StreamId::from(holder.as_str()).uuid(),
            Claim::Free => None,
        })
    }

    /// Takes an outside identity for a user; from another one, where that one may be given up. Taking
    /// one's own again changes nothing.
    ///
    /// # Errors
    /// Another user has it.
    pub(crate) async fn take_identity(
        &self,
        issuer: &str,
        subject: &str,
        user: Uuid,
        from: Option<Uuid>,
        ask: &Ask,
    ) -> Result<(), Error> {
        let name = self.identity_claim(issuer, subject);
        let holder = |user: Uuid| format!("user-{user}");
        if let Some(from) = from {
            let release = ClaimCommand::Release { holder: holder(from) };
            let ask = ask.follow_up(&format!("release {name}"));
            self.execute::<Claim>(&name, release, &ask).await?;
        }
        let take = ClaimCommand::Take { kind: ClaimKind::Identity, holder: holder(user) };
        let ask = ask.follow_up(&format!("take {name}"));
        self.execute::<Claim>(&name, take, &ask).await.map(|_| ())
    }

    /// Lets go of an outside identity of a user.
    pub(crate) async fn release_identity(
        &self,
        issuer: &str,
        subject: &str,
        user: Uuid,
        ask: &Ask,
    ) -> Result<(), Error> {
        let name = self.identity_claim(issuer, subject);
        let ask = ask.follow_up(&format!("release {name}"));
        let release = ClaimCommand::Release { holder: format!("user-{user}") };
        self.execute::<Claim>(&name, release, &ask).await.map(|_| ())
    }

    fn identity_claim(&self, issuer: &str, subject: &str) -> Digest {
        self.secrets.claim("identity", &format!("{issuer}\0{subject}"))
    }

    fn email_claim(&self, email: &Email) -> Digest {
        self.secrets.claim("email", &email.unique_form())
    }

    /// Who holds a claim, if anybody does, and whether that is so for longer than a change takes.
    async fn holder_of_claim(&self, name: &Digest) -> Result<Option<(String, bool)>, Error> {
        let stream = StreamId::new("claim", name);
        let (Claim::Taken { holder, .. }, sequence) = self.load::<Claim>(&stream).await? else {
            return Ok(None);
        };
        let taken = self.log.read_stream(&stream, sequence - 1, 1).await?;
        let is_old = taken.first().is_some_and(|event| Utc::now() - event.time > PATIENCE);
        Ok(Some((holder, is_old)))
    }

    async fn is_held_for_long_by(&self, name: &Digest, holder: &str) -> Result<bool, Error> {
        let held = self.holder_of_claim(name).await?;
        Ok(held.is_some_and(|(who, is_old)| is_old && who == holder))
    }

    /// Lets go of an address whose holder has none, or another one: it was cut off before it had this one, or
    /// after it had left it.
    async fn release_if_orphaned(&self, name: &Digest, ask: &Ask) -> Result<bool, Error> {
        let Some((holder, is_old)) = self.holder_of_claim(name).await? else { return Ok(true) };
        if !is_old {
            return Ok(false);
        }
        let user = StreamId::from(holder.as_str());
        if let (User::Active { .. }, Some(id)) = (self.load::<User>(&user).await?.0, user.uuid()) {
            let address = self.email_of(id, ask.organization()).await?;
            if address.is_none_or(|address| self.email_claim(&address) == *name) {
                return Ok(false);
            }
        }
        self.execute::<Claim>(name, ClaimCommand::Release { holder }, &ask.follow_up("orphan"))
            .await?;
        Ok(true)
    }
}
