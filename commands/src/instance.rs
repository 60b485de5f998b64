//! The instance itself: what the first start makes, and what every start needs.

use domain::instance::{Instance, InstanceCommand, InstanceKey, KeyAlgorithm, KeyPurpose};
use domain::organization::{Organization, OrganizationCommand};
use domain::{Name, Role, derived_id};
use ed25519_dalek::SigningKey;
use ed25519_dalek::pkcs8::EncodePrivateKey;
use eventlog::StreamId;
use secrecy::SecretString;
use uuid::Uuid;
use zeroize::Zeroizing;

use crate::secrets::{INSTANCE_KEY, fill_random, random_alphanumeric};
use crate::session::{SessionKey, SessionKeys, public_key_text};
use crate::{Ask, Commands, Error};

/// The one stream of the instance.
const MAIN: &str = "main";

/// The event and field that a signing key is sealed for.
const KEY_ADDED: &str = "instance.key_added.v1";
const PRIVATE_KEY: &str = "private_key";

/// What a start found or made.
pub struct Boot {
    /// The organization that the first start made.
    pub organization: Uuid,
    /// The keys that sign sessions.
    pub session_keys: SessionKeys,
    /// This was the first start.
    pub is_first: bool,
}

/// The first user, and the password that was made up for it.
pub struct FirstAdmin {
    /// The user's address.
    pub email: String,
    /// To be shown once, where nobody gave one.
    pub made_password: Option<String>,
}

impl Commands {
    /// Makes what an instance needs, where it is not there yet: an organization and a signing key.
    ///
    /// # Errors
    /// Log or vault fail.
    pub async fn boot(&self) -> Result<Boot, Error> {
        let stream = StreamId::new("instance", MAIN);
        let first = self.log.read_stream(&stream, 0, 1).await?;
        let is_first = first.is_empty();
        let organization = first.first().map_or_else(Uuid::now_v7, |event| event.organization);
        if is_first {
            self.add_session_key(organization, &stream).await?;
        }
        self.make_organization(organization).await?;
        let (instance, _) = self.load::<Instance>(&stream).await?;
        let mut keys = Vec::new();
        for key in instance.keys.iter().filter(|key| key.purpose == KeyPurpose::Sessions) {
            let opened = self
                .unseal(organization, &stream, KEY_ADDED, PRIVATE_KEY, &key.private_key)
                .await?;
            let secret = opened.ok_or_else(|| {
                Error::Crypto(
                    "the instance's key was shredded: its sessions cannot be signed any more"
                        .into(),
                )
            })?;
            keys.push(SessionKey::new(key.key_id.clone(), &secret)?);
        }
        Ok(Boot { organization, session_keys: SessionKeys::new(keys)?, is_first })
    }

    async fn add_session_key(&self, organization: Uuid, stream: &StreamId) -> Result<(), Error> {
        let mut seed = Zeroizing::new([0_u8; 32]);
        fill_random(seed.as_mut_slice())?;
        let signing = SigningKey::from_bytes(&seed);
        let document = signing.to_pkcs8_der().map_err(|error| {
            Error::Crypto(format!("the signing key cannot be written: {error}"))
        })?;
        let private_key = self
            .seal(INSTANCE_KEY, organization, stream, KEY_ADDED, PRIVATE_KEY, document.as_bytes())
            .await?;
        let key = InstanceKey {
            purpose: KeyPurpose::Sessions,
            key_id: Uuid::now_v7().to_string(),
            algorithm: KeyAlgorithm::EdDsa,
            public_key: public_key_text(&signing.verifying_key()),
            private_key,
        };
        let ask =
            Ask::system("boot", organization, None, &[b"session key", organization.as_bytes()]);
        self.execute::<Instance>(MAIN, InstanceCommand::AddKey(key), &ask).await?;
        Ok(())
    }

    async fn make_organization(&self, organization: Uuid) -> Result<(), Error> {
        let stream = StreamId::new("organization", organization);
        if self.load::<Organization>(&stream).await?.1 > 0 {
            return Ok(());
        }
        let name = Name::parse("Organization").map_err(|error| Error::refused(&error))?;
        let ask =
            Ask::system("boot", organization, None, &[b"organization", organization.as_bytes()]);
        self.execute::<Organization>(organization, OrganizationCommand::Create { name }, &ask)
            .await?;
        Ok(())
    }

    /// Makes the first user, an owner, unless it was made before.
    ///
    /// # Errors
    /// The address is none, or log or vault fail.
    pub async fn make_first_admin(
        &self,
        organization: Uuid,
        email: &str,
        password: Option<SecretString>,
    ) -> Result<Option<FirstAdmin>, Error> {
        let user = derived_id(&[b"first admin", organization.as_bytes()]);
        let (_, sequence) = self.load::<domain::user::User>(&StreamId::new("user", user)).await?;
        if sequence > 0 {
            return Ok(None);
        }
        let (password, made_password) = match password {
            Some(password) => (password, None),
            None => {
                let made = random_alphanumeric(20)?;
                (SecretString::from(made.clone()), Some(made))
            }
        };
        let email = domain::Email::parse(email).map_err(|error| Error::refused(&error))?;
        let ask = Ask::system("boot", organization, None, &[b"first admin", user.as_bytes()]);
        let new =
            crate::user::NewUser { email: email.clone(), name: None, role: Role::Owner, password };
        self.create_user_as(user, new, domain::user::Asker::Operator, &ask).await?;
        Ok(Some(FirstAdmin { email: email.as_str().to_owned(), made_password }))
    }
}
