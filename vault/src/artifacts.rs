//! Artifacts: derived bytes that are dear to make again, under names that their makers choose.
//!
//! The rule of this file: an artifact is there completely or not at all, and what is read is what was
//! put under this very name.

use std::str;

use bytes::Bytes;

use crate::{Error, Vault, cipher};

/// How an artifact begins that is sealed; what begins otherwise is from before that was so.
const SEALED: &[u8] = b"prodgy sealed artifact 1\n";

impl Vault {
    /// Stores an artifact, over what has that name now, sealed under a key: shredding that shreds
    /// it. On `Ok` it is on the disk.
    pub async fn put_artifact(&self, key_id: &str, name: &str, bytes: &[u8]) -> Result<(), Error> {
        let stored = object_name(name)?;
        let key = self.keys().get(key_id).await?;
        let mut sealed = SEALED.to_vec();
        sealed.push(u8::try_from(key_id.len()).expect("the id of a key has at most 128 bytes"));
        sealed.extend_from_slice(key_id.as_bytes());
        sealed.extend(cipher::encrypt(&key, &associated_data(key_id, name), bytes)?);
        self.objects().replace(&stored, Bytes::from(sealed)).await
    }

    /// Reads an artifact; `None` when it certainly is not there, or its key was shredded.
    pub async fn get_artifact(&self, name: &str) -> Result<Option<Bytes>, Error> {
        let stored = object_name(name)?;
        let found = match self.objects().read(&stored).await? {
            // It may have been set aside as garbage, and be wanted now.
            None if self.bring_back(&stored).await? => self.objects().read(&stored).await?,
            found => found,
        };
        let Some(found) = found else { return Ok(None) };
        let Some(sealed) = found.strip_prefix(SEALED) else { return Ok(Some(found)) };
        let corrupt = || Error::Corrupt { name: name.to_owned() };
        let (&length, rest) = sealed.split_first().ok_or_else(corrupt)?;
        let (key_id, body) = rest.split_at_checked(length.into()).ok_or_else(corrupt)?;
        let key_id = str::from_utf8(key_id).map_err(|_| corrupt())?;
        crate::keys::check_id(key_id).map_err(|_| corrupt())?;
        let Some(key) = self.keys().find(key_id).await? else { return Ok(None) };
        let clear = cipher::decrypt(&key, &associated_data(key_id, name), body);
        Ok(Some(Bytes::from_owner(clear.ok_or_else(corrupt)?)))
    }

    /// Removes an artifact, for good; it is no error when it is not there.
    pub async fn delete_artifact(&self, name: &str) -> Result<(), Error> {
        self.remove(&object_name(name)?).await
    }
}

fn associated_data(key_id: &str, name: &str) -> Vec<u8> {
    cipher::associated_data(&[b"prodgy artifact v1", key_id.as_bytes(), name.as_bytes()])
}

/// Where an artifact lies.
fn object_name(name: &str) -> Result<String, Error> {
    let valid = (1..=512).contains(&name.len()) && is_plain(name);
    if valid { Ok(format!("artifacts/{name}")) } else { Err(Error::InvalidName(name.to_owned())) }
}

/// Whether a name is of `[a-z0-9/._-]+`, without a way out of its folder.
pub(crate) fn is_plain(name: &str) -> bool {
    let allowed = |byte: u8| {
        byte.is_ascii_lowercase()
            || byte.is_ascii_digit()
            || matches!(byte, b'/' | b'.' | b'_' | b'-')
    };
    name.bytes().all(allowed)
        && name.split('/').all(|part| (1..=255).contains(&part.len()) && !part.starts_with('.'))
}
