//! What must not lie in the clear or in the log: blobs, data keys, sealing.
//!
//! The rule of this crate: what it has answered with `Ok` is on the disk, and what was shredded is
//! gone. It knows nothing of events, agents or requests; keys, places and products are plain names.
//!
//! Below the folder (or the object store) of a [`Vault`] lie
//! `keys/<id>.json` (data keys, wrapped by the [`MasterKey`]), `blobs/<product>/<xx>/<name>`,
//! `artifacts/<name>`, `garbage/`, where blobs and artifacts are set aside before they are removed,
//! and `unfinished/`, which is emptied when the vault is opened; and `importing.json` as long as it is
//! being filled from an export. Blobs and artifacts are sealed. A
//! shredded key leaves `keys/<id>.shredded`; a backup of `keys/` from before a shredding undoes it,
//! so such backups (and old versions of objects, where a bucket keeps them) must be kept no longer
//! than erased data may be.

mod artifacts;
mod blobs;
mod blocks;
mod cipher;
mod durable;
mod error;
mod garbage;
mod kept;
mod keys;
mod master_key;
mod objects;
mod remote;
mod rotation;
mod s3;
mod seal;
mod transfer;

use std::{fmt, path::Path, sync::Arc};

use object_store::ObjectStore;

pub use blobs::{BlobRef, product_key};
pub use error::{Error, PutError};
pub use garbage::StoredObject;
pub use keys::{joint_key, keys_of};
pub use master_key::MasterKey;
pub use objects::ByteStream;
pub use s3::{S3Address, s3_environment};
pub use seal::{Opened, Place, Sealed};
pub use transfer::MASTER_CHECK;

use kept::Kept;
use keys::Keys;
use objects::Objects;
use remote::Remote;

/// Data keys, sealing, blobs and artifacts in one place. Cheap to clone.
#[derive(Clone)]
pub struct Vault {
    inner: Arc<Inner>,
}

struct Inner {
    objects: Objects,
    keys: Keys,
    kept: Kept,
}

impl Vault {
    /// Opens the vault in a local folder, which is made where there is none.
    pub async fn local(folder: &Path, master: MasterKey) -> Result<Vault, Error> {
        Vault::new(Objects::local(folder).await?, master).await
    }

    /// Opens the vault in a local folder with the master key in a file. Where neither exists, both
    /// are made, and the flag says so; where only the key is missing, that is an error, and no new
    /// key is made.
    pub async fn local_with_key_file(
        folder: &Path,
        key_file: &Path,
    ) -> Result<(Vault, bool), Error> {
        let (master, created) = match MasterKey::load(key_file)? {
            Some(master) => (master, false),
            None if Vault::has_keys(folder) => {
                return Err(Error::MasterKeyMissing { path: key_file.display().to_string() });
            }
            None => MasterKey::load_or_create(key_file)?,
        };
        Ok((Vault::local(folder, master).await?, created))
    }

    /// Opens the vault in an object store. It must be durable by itself, as S3 is:
    /// `object_store`'s own local store is not, [`Vault::local`] is for that.
    pub async fn remote(store: Arc<dyn ObjectStore>, master: MasterKey) -> Result<Vault, Error> {
        let remote = Remote::open_store(store, "the object store").await?;
        Vault::new(Objects::Remote(remote), master).await
    }

    /// Opens the vault in S3, or in what speaks as it does; `environment` is what
    /// [`s3_environment`] found. Fails at once where the store does not answer, has no such bucket or
    /// refuses the credentials.
    pub async fn s3(
        address: &S3Address,
        environment: &[(String, String)],
        master: MasterKey,
    ) -> Result<Vault, Error> {
        Vault::new(Vault::s3_objects(address, environment).await?, master).await
    }

    /// As [`Vault::s3`], with the master key in a file. Where the store holds no keys yet and there
    /// is no such file, it is made, and the flag says so; where only the file is missing, that is an
    /// error, and no new key is made.
    pub async fn s3_with_key_file(
        address: &S3Address,
        environment: &[(String, String)],
        key_file: &Path,
    ) -> Result<(Vault, bool), Error> {
        let objects = Vault::s3_objects(address, environment).await?;
        let (master, created) = match MasterKey::load(key_file)? {
            Some(master) => (master, false),
            None if !objects.list("keys").await?.is_empty() => {
                return Err(Error::MasterKeyMissing { path: key_file.display().to_string() });
            }
            None => MasterKey::load_or_create(key_file)?,
        };
        Ok((Vault::new(objects, master).await?, created))
    }

    async fn s3_objects(
        address: &S3Address,
        environment: &[(String, String)],
    ) -> Result<Objects, Error> {
        let (store, place) = address.client(environment)?;
        Ok(Objects::Remote(Remote::open_store(store, &place).await?))
    }

    /// Asks the store for something that is there: whether it answers.
    ///
    /// # Errors
    /// It does not, or no longer as it should.
    pub async fn check(&self) -> Result<(), Error> {
        self.keys().check_store().await
    }

    /// Whether a local folder holds keys that some master key has wrapped.
    pub fn has_keys(folder: &Path) -> bool {
        folder.join("keys").read_dir().is_ok_and(|mut entries| entries.next().is_some())
    }

    async fn new(objects: Objects, master: MasterKey) -> Result<Vault, Error> {
        let keys = Keys::open(objects.clone(), master).await?;
        if let Objects::Remote(remote) = &objects {
            keys.check_remote(remote).await?;
        }
        Ok(Vault { inner: Arc::new(Inner { objects, keys, kept: Kept::default() }) })
    }

    fn objects(&self) -> &Objects {
        &self.inner.objects
    }

    fn keys(&self) -> &Keys {
        &self.inner.keys
    }
}

impl fmt::Debug for Vault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Vault")
    }
}
