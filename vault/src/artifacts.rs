//! Artifacts: derived bytes that are dear to make again, under names that their makers choose.
//!
//! The rule of this file: an artifact is there completely or not at all.

use bytes::Bytes;

use crate::{Error, Vault};

impl Vault {
    /// Stores an artifact, over what has that name now. On `Ok` it is on the disk.
    pub async fn put_artifact(&self, name: &str, bytes: Bytes) -> Result<(), Error> {
        self.objects().replace(&object_name(name)?, bytes).await
    }

    /// Reads an artifact; `None` when it certainly is not there.
    pub async fn get_artifact(&self, name: &str) -> Result<Option<Bytes>, Error> {
        self.objects().read(&object_name(name)?).await
    }

    /// Removes an artifact, for good; it is no error when it is not there.
    pub async fn delete_artifact(&self, name: &str) -> Result<(), Error> {
        self.objects().delete(&object_name(name)?).await
    }
}

/// Where an artifact lies: `[a-z0-9/._-]+`, without a way out of its folder.
fn object_name(name: &str) -> Result<String, Error> {
    let allowed = |byte: u8| {
        byte.is_ascii_lowercase()
            || byte.is_ascii_digit()
            || matches!(byte, b'/' | b'.' | b'_' | b'-')
    };
    let valid = (1..=512).contains(&name.len())
        && name.bytes().all(allowed)
        && name.split('/').all(|part| (1..=255).contains(&part.len()) && !part.starts_with('.'));
    if valid { Ok(format!("artifacts/{name}")) } else { Err(Error::InvalidName(name.to_owned())) }
}
