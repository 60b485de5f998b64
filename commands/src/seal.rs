//! Sealing what goes into events: each text under the data key of whom it is about, bound to its
//! organization, stream, event type and field.

use std::net::IpAddr;

use domain::values::CLIENT;
use domain::{Payload, Sealed};
use eventlog::StreamId;
use uuid::Uuid;
pub(crate) use vault::product_key;
use vault::{Opened, Place};
use zeroize::Zeroizing;

use crate::{Actor, Commands, Error};

/// The longest free text that is sealed inside an event; longer ones become blobs.
pub(crate) const INLINE: usize = 16 * 1024;

/// The longest payload that is read back.
const LONGEST: u64 = 64 * 1024 * 1024;

/// The data key of a user.
pub(crate) fn user_key(user: Uuid) -> String {
    format!("user-{user}")
}

/// The data key of what somebody says to the assistant, and of its answers: the product's, and with it the
/// user's, where it is a user who asks. Whichever of them goes takes the words along.
pub(crate) fn chat_key(product: Uuid, asker: &str) -> String {
    let user = asker.strip_prefix("user:").and_then(|user| user.parse().ok());
    match user {
        Some(user) => vault::joint_key(&product_key(product), &user_key(user)),
        None => product_key(product),
    }
}

impl Commands {
    /// Seals a short text for a field of an event.
    pub(crate) async fn seal(
        &self,
        key: &str,
        organization: Uuid,
        stream: &StreamId,
        event_type: &str,
        field: &str,
        text: &[u8],
    ) -> Result<Sealed, Error> {
        let place = Place { organization, stream: stream.as_str(), event_type, field };
        Ok(Sealed(self.vault.seal(key, &place, text).await?.into_string()))
    }

    /// Opens a text that [`Commands::seal`] sealed; `None` when its key was shredded.
    pub(crate) async fn unseal(
        &self,
        organization: Uuid,
        stream: &StreamId,
        event_type: &str,
        field: &str,
        sealed: &Sealed,
    ) -> Result<Option<Zeroizing<Vec<u8>>>, Error> {
        let place = Place { organization, stream: stream.as_str(), event_type, field };
        let sealed = vault::Sealed::parse(sealed.as_str())?;
        Ok(self.vault.open(&sealed, &place).await?.clear())
    }

    /// Seals free text of any length under the key of a product.
    pub(crate) async fn seal_payload(
        &self,
        organization: Uuid,
        product: Uuid,
        stream: &StreamId,
        event_type: &str,
        field: &str,
        text: &[u8],
    ) -> Result<Payload, Error> {
        let place = Place { organization, stream: stream.as_str(), event_type, field };
        self.seal_payload_under(product_key(product), product, &place, text).await
    }

    /// As [`Commands::seal_payload`], under another key.
    pub(crate) async fn seal_payload_under(
        &self,
        key: String,
        product: Uuid,
        place: &Place<'_>,
        text: &[u8],
    ) -> Result<Payload, Error> {
        if text.len() <= INLINE {
            let sealed = self.vault.seal(&key, place, text).await?;
            return Ok(Payload::Sealed(Sealed(sealed.into_string())));
        }
        let blob = self.vault.put_sealed_blob(product, &key, place, text).await?;
        Ok(Payload::Blob { key_id: key, name: blob.name, size: blob.size })
    }

    /// Opens free text of any length; `None` when its key was shredded.
    ///
    /// # Errors
    /// The vault fails, or the payload was sealed for another place.
    pub async fn open_payload(
        &self,
        organization: Uuid,
        product: Uuid,
        stream: &StreamId,
        event_type: &str,
        field: &str,
        payload: &Payload,
    ) -> Result<Option<Zeroizing<Vec<u8>>>, Error> {
        match payload {
            Payload::Sealed(sealed) => {
                self.unseal(organization, stream, event_type, field, sealed).await
            }
            Payload::Blob { key_id, name, size } => {
                let place = Place { organization, stream: stream.as_str(), event_type, field };
                let blob = vault::BlobRef { name: name.clone(), size: *size };
                match self.vault.get_sealed_blob(product, key_id, &blob, &place, LONGEST).await? {
                    Opened::Clear(bytes) => Ok(Some(bytes)),
                    Opened::Shredded => Ok(None),
                }
            }
        }
    }

    /// As [`Commands::seal_client`], of a client that acted before: what its key is of may be gone by
    /// now. Then it is sealed as one that nobody knows.
    pub(crate) async fn seal_past_client(
        &self,
        organization: Uuid,
        actor: Actor,
        product: Option<Uuid>,
        address: Option<IpAddr>,
        user_agent: Option<&str>,
    ) -> Result<(Option<String>, Option<String>), Error> {
        match self.seal_client(organization, actor, product, address, user_agent).await {
            Err(Error::Vault(
                vault::Error::KeyShredded { .. } | vault::Error::KeyMissing { .. },
            )) => self.seal_client(organization, Actor::Anonymous, None, address, user_agent).await,
            sealed => sealed,
        }
    }

    /// Seals what is known of a client under the key of who acts: the user's own, the product's of a
    /// token, and one of the day for everybody else.
    ///
    /// # Errors
    /// The vault fails.
    pub async fn seal_client(
        &self,
        organization: Uuid,
        actor: Actor,
        product: Option<Uuid>,
        address: Option<IpAddr>,
        user_agent: Option<&str>,
    ) -> Result<(Option<String>, Option<String>), Error> {
        let key = match (actor, product) {
            (Actor::User(user), _) => user_key(user),
            (Actor::Token(_), Some(product)) => product_key(product),
            _ => {
                let key = format!("day-{}", chrono::Utc::now().format("%Y-%m-%d"));
                self.vault.create_key(&key).await?;
                key
            }
        };
        let place = |field| Place { organization, stream: CLIENT, event_type: CLIENT, field };
        let address = match address {
            Some(address) => Some(
                self.vault
                    .seal(&key, &place("address"), address.to_string().as_bytes())
                    .await?
                    .into_string(),
            ),
            None => None,
        };
        let user_agent = match user_agent {
            Some(agent) => Some(
                self.vault.seal(&key, &place("user_agent"), agent.as_bytes()).await?.into_string(),
            ),
            None => None,
        };
        Ok((address, user_agent))
    }
}
