//! Another master key: every data key is wrapped anew, and none of them changes.
//!
//! The rule of this file: whatever it is cut off at, each data key is unwrapped by one of the two master
//! keys, and nobody opens the vault before all are under the new one.

use std::path::Path;

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use secrecy::ExposeSecret;

use crate::keys::{self, MASTER_CHECK, key_name, only_wrong, unwrap};
use crate::objects::Objects;
use crate::{Error, MasterKey, S3Address, Vault};

/// How many keys are wrapped at once.
const AT_ONCE: usize = 16;

impl Vault {
    /// Puts the data keys of a local folder under another master key, and says how many there are. No
    /// server may use the vault meanwhile. Cut off, it goes on when it is given the same two keys again;
    /// until then the vault is opened with neither.
    ///
    /// # Errors
    /// [`Error::WrongMasterKey`] where `old` is not the present one, or a rotation to another key than
    /// `new` was cut off.
    pub async fn rotate_master(
        folder: &Path,
        old: &MasterKey,
        new: &MasterKey,
        progress: impl FnMut(u64, u64),
    ) -> Result<u64, Error> {
        rotate(&Objects::local(folder).await?, old, new, progress).await
    }

    /// As [`Vault::rotate_master`], in S3.
    ///
    /// # Errors
    /// As there.
    pub async fn rotate_master_s3(
        address: &S3Address,
        environment: &[(String, String)],
        old: &MasterKey,
        new: &MasterKey,
        progress: impl FnMut(u64, u64),
    ) -> Result<u64, Error> {
        rotate(&Vault::s3_objects(address, environment).await?, old, new, progress).await
    }
}

async fn rotate(
    objects: &Objects,
    old: &MasterKey,
    new: &MasterKey,
    mut progress: impl FnMut(u64, u64),
) -> Result<u64, Error> {
    let name = key_name(MASTER_CHECK);
    let stored = objects.read(&name).await?;
    let stored = stored.ok_or_else(|| Error::KeyMissing { id: MASTER_CHECK.to_owned() })?;
    let check = match keys::becoming(&stored)? {
        Some(check) => {
            unwrap(new, MASTER_CHECK, &check.to_bytes()).map_err(only_wrong)?;
            check
        }
        // It was finished, and whoever asked did not hear of it.
        None if unwrap(new, MASTER_CHECK, &stored).is_ok() => {
            return Ok(ids(objects).await?.len() as u64);
        }
        None => {
            unwrap(old, MASTER_CHECK, &stored).map_err(only_wrong)?;
            let (_, check) = keys::new_key(new, MASTER_CHECK)?;
            objects.replace(&name, check.to_come().to_bytes()).await?;
            check
        }
    };
    // Looked at again until nothing is under the old key: another node may have been running.
    let count = loop {
        let ids = ids(objects).await?;
        let count = ids.len() as u64;
        let (mut done, mut changed) = (0, 0);
        let mut wrapped =
            stream::iter(ids).map(|id| wrap(objects, old, new, id)).buffer_unordered(AT_ONCE);
        while let Some(was_old) = wrapped.try_next().await? {
            done += 1;
            changed += u64::from(was_old);
            progress(done, count);
        }
        if changed == 0 {
            break count;
        }
    };
    objects.replace(&name, check.to_bytes()).await?;
    Ok(count)
}

/// Puts a key under the new master key; says whether it was under the old one.
async fn wrap(
    objects: &Objects,
    old: &MasterKey,
    new: &MasterKey,
    id: String,
) -> Result<bool, Error> {
    // One that is gone was shredded.
    let Some(stored) = objects.read(&key_name(&id)).await? else { return Ok(false) };
    if unwrap(new, &id, &stored).is_ok() {
        return Ok(false);
    }
    let key = unwrap(old, &id, &stored)?;
    let wrapped: Bytes = keys::wrap(new, &id, key.expose_secret())?.to_bytes();
    objects.replace(&key_name(&id), wrapped).await?;
    Ok(true)
}

async fn ids(objects: &Objects) -> Result<Vec<String>, Error> {
    let names = objects.list("keys").await?;
    let ids = names.iter().filter_map(|name| name.strip_suffix(".json"));
    Ok(ids.filter(|id| *id != MASTER_CHECK).map(str::to_owned).collect())
}
