//! Sealing: short texts that only their data key opens, and only at their place.
//!
//! The rule of this file: a sealed value moved to another organization, stream, event type or
//! field does not open.

use std::{fmt, sync::Arc};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::{Deserialize, Serialize};
use uuid::Uuid;
use zeroize::Zeroizing;

use crate::{
    Error, Vault,
    cipher::{self, Secret},
    keys::{self, Known},
};

const PREFIX: &str = "s1.";

/// Where a sealed value stands. It opens nowhere else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place<'a> {
    /// The organization that it belongs to.
    pub organization: Uuid,
    /// The stream of its event.
    pub stream: &'a str,
    /// The type of its event.
    pub event_type: &'a str,
    /// The field of its event.
    pub field: &'a str,
}

impl Place<'_> {
    pub(crate) fn associated_data(&self, key_id: &str) -> Vec<u8> {
        cipher::associated_data(&[
            b"prodgy sealed v1",
            key_id.as_bytes(),
            self.organization.as_bytes(),
            self.stream.as_bytes(),
            self.event_type.as_bytes(),
            self.field.as_bytes(),
        ])
    }
}

/// Sealed text: `s1.<key id>.<base64url of nonce and ciphertext>`; the key id is `<one>+<other>` where it takes
/// two keys to open it.
#[derive(Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Sealed(String);

impl Sealed {
    /// Takes text that was sealed before, after a look at its form.
    pub fn parse(text: impl Into<String>) -> Result<Sealed, Error> {
        let sealed = Sealed(text.into());
        match parts(&sealed.0) {
            Some((key_id, body)) if keys::check_ids(key_id).is_ok() && !body.is_empty() => {
                Ok(sealed)
            }
            _ => Err(Error::SealMalformed),
        }
    }

    /// The key that opens it, or [both](crate::joint_key).
    pub fn key_id(&self) -> &str {
        Sealed::key_id_of(&self.0).unwrap_or_default()
    }

    /// The [key](Sealed::key_id) that a text names.
    pub(crate) fn key_id_of(text: &str) -> Option<&str> {
        parts(text).map(|(key_id, _)| key_id)
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The text.
    pub fn into_string(self) -> String {
        self.0
    }

    fn body(&self) -> Result<Vec<u8>, Error> {
        let (_, body) = parts(&self.0).ok_or(Error::SealMalformed)?;
        URL_SAFE_NO_PAD.decode(body).map_err(|_| Error::SealMalformed)
    }
}

/// The key id and the body of a sealed text.
fn parts(text: &str) -> Option<(&str, &str)> {
    text.strip_prefix(PREFIX)?.split_once('.')
}

impl TryFrom<String> for Sealed {
    type Error = Error;

    fn try_from(text: String) -> Result<Sealed, Error> {
        Sealed::parse(text)
    }
}

impl From<Sealed> for String {
    fn from(sealed: Sealed) -> String {
        sealed.0
    }
}

impl fmt::Debug for Sealed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Sealed({})", self.key_id())
    }
}

/// What a sealed value turned out to be.
#[derive(Clone, PartialEq, Eq)]
pub enum Opened {
    /// The bytes that were sealed.
    Clear(Zeroizing<Vec<u8>>),
    /// The key is certainly gone, and so is what it sealed.
    Shredded,
}

impl Opened {
    /// The bytes, unless they are shredded.
    pub fn clear(self) -> Option<Zeroizing<Vec<u8>>> {
        match self {
            Opened::Clear(bytes) => Some(bytes),
            Opened::Shredded => None,
        }
    }
}

impl fmt::Debug for Opened {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Opened::Clear(_) => "Clear([REDACTED])",
            Opened::Shredded => "Shredded",
        })
    }
}

impl Vault {
    /// Seals bytes under a key, for one place. With the key in memory this never touches the disk.
    pub async fn seal(
        &self,
        key_id: &str,
        place: &Place<'_>,
        plaintext: &[u8],
    ) -> Result<Sealed, Error> {
        let key = self.keys().get(key_id).await?;
        let sealed = cipher::encrypt(&key, &place.associated_data(key_id), plaintext)?;
        let mut text =
            String::with_capacity(PREFIX.len() + key_id.len() + sealed.len() * 4 / 3 + 4);
        text.push_str(PREFIX);
        text.push_str(key_id);
        text.push('.');
        URL_SAFE_NO_PAD.encode_string(&sealed, &mut text);
        Ok(Sealed(text))
    }

    /// Opens a sealed value at its place.
    pub async fn open(&self, sealed: &Sealed, place: &Place<'_>) -> Result<Opened, Error> {
        match self.keys().find(sealed.key_id()).await? {
            Some(key) => open_with(&key, sealed, place),
            None => Ok(Opened::Shredded),
        }
    }

    /// Opens a sealed value at once; `None` when its key is not in memory, so that it must be
    /// [opened](Vault::open) with patience.
    pub fn open_cached(&self, sealed: &Sealed, place: &Place<'_>) -> Option<Result<Opened, Error>> {
        Some(match self.keys().cached(sealed.key_id())? {
            Known::Key(key) => open_with(&key, sealed, place),
            Known::Shredded => Ok(Opened::Shredded),
        })
    }
}

fn open_with(key: &Arc<Secret>, sealed: &Sealed, place: &Place<'_>) -> Result<Opened, Error> {
    let key_id = sealed.key_id();
    cipher::decrypt(key, &place.associated_data(key_id), &sealed.body()?)
        .map(Opened::Clear)
        .ok_or_else(|| Error::SealRefused { key_id: key_id.to_owned() })
}
