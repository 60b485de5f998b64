//! Data keys: one per subject, wrapped by the master key, one file each.
//!
//! The rule of this file: a key is on the disk before it seals anything, and a shredded key never
//! comes back.

use std::{collections::HashMap, sync::Arc};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use bytes::Bytes;
use futures::{TryStreamExt, stream};
use hkdf::Hkdf;
use parking_lot::RwLock;
use secrecy::{ExposeSecret, ExposeSecretMut};
use serde::{Deserialize, Serialize};
use sha2::Sha256;
use zeroize::Zeroizing;

use crate::{
    Error, MasterKey, Vault,
    cipher::{self, KEY_LENGTH, Secret},
    objects::Objects,
    remote::Remote,
};

/// How many keys are kept unwrapped in memory.
const CACHED_KEYS: usize = 16_384;
/// How many keys are read at once when all are.
const WARMING_UP: usize = 16;
/// The id under which a random value lies that only the right master key unwraps.
pub(crate) const MASTER_CHECK: &str = "master";
const FORMAT: u64 = 1;
/// What stands between the ids of two keys that open something together.
const JOINT: char = '+';
/// How often a key is looked for that somebody else creates at the same time.
const ATTEMPTS: usize = 10;

/// The stored form of a key.
#[derive(Serialize, Deserialize)]
pub(crate) struct Wrapped {
    v: u64,
    wrapped: String,
    /// Of the check value, while another master key takes over: what `wrapped` is to be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    becoming: Option<String>,
}

impl Wrapped {
    fn new(wrapped: String) -> Wrapped {
        Wrapped { v: FORMAT, wrapped, becoming: None }
    }

    /// The same, in the place of what no master key unwraps any more.
    pub(crate) fn to_come(&self) -> Wrapped {
        Wrapped { becoming: Some(self.wrapped.clone()), ..Wrapped::new(String::new()) }
    }

    pub(crate) fn to_bytes(&self) -> Bytes {
        Bytes::from(serde_json::to_vec(self).expect("a number and texts are always JSON"))
    }
}

/// What a stored check value is to be, where another master key takes over.
pub(crate) fn becoming(stored: &[u8]) -> Result<Option<Wrapped>, Error> {
    let corrupt = |_| Error::KeyCorrupt { id: MASTER_CHECK.to_owned() };
    let stored: Wrapped = serde_json::from_slice(stored).map_err(corrupt)?;
    Ok(stored.becoming.map(Wrapped::new))
}

/// What is known of a key without asking the store.
#[derive(Clone)]
pub(crate) enum Known {
    /// It is here.
    Key(Arc<Secret>),
    /// It was shredded, for good.
    Shredded,
}

/// All data keys of a vault.
pub(crate) struct Keys {
    objects: Objects,
    master: MasterKey,
    cache: RwLock<HashMap<String, Known>>,
    /// Read while a key is fetched, written while one is created or shredded: so a key that is
    /// seen is a synced one, and a fetch that began before a shredding cannot revive the key.
    gate: tokio::sync::RwLock<()>,
}

impl Keys {
    /// Opens the keys, and refuses a master key that does not unwrap them.
    pub(crate) async fn open(objects: Objects, master: MasterKey) -> Result<Keys, Error> {
        let keys = Keys {
            objects,
            master,
            cache: RwLock::default(),
            gate: tokio::sync::RwLock::default(),
        };
        keys.check_master().await?;
        Ok(keys)
    }

    async fn check_master(&self) -> Result<(), Error> {
        let stored = match self.objects.read(&key_name(MASTER_CHECK)).await? {
            Some(stored) => Some((MASTER_CHECK.to_owned(), stored)),
            None => self.any_key().await?,
        };
        if let Some((id, stored)) = &stored {
            self.unwrap(id, stored).map_err(only_wrong)?;
            if id == MASTER_CHECK {
                return Ok(());
            }
        }
        let (_, wrapped) = self.new_key(MASTER_CHECK)?;
        if !self.objects.create(&key_name(MASTER_CHECK), wrapped).await? {
            // Another process was faster, perhaps with another key.
            return Box::pin(self.check_master()).await;
        }
        Ok(())
    }

    /// Looks whether the store still answers with what it was opened with.
    pub(crate) async fn check_store(&self) -> Result<(), Error> {
        let stored = self.objects.read(&key_name(MASTER_CHECK)).await?;
        let stored = stored.ok_or_else(|| Error::KeyMissing { id: MASTER_CHECK.to_owned() })?;
        self.unwrap(MASTER_CHECK, &stored).map(|_| ())
    }

    /// Refuses a store in which two nodes could make different keys of one name.
    pub(crate) async fn check_remote(&self, remote: &Remote) -> Result<(), Error> {
        remote.check_manners(&key_name(MASTER_CHECK)).await
    }

    /// Some stored key: where the check value is lost, any key tells whether the master key fits.
    async fn any_key(&self) -> Result<Option<(String, Bytes)>, Error> {
        for name in self.objects.list("keys").await? {
            if let Some(id) = name.strip_suffix(".json")
                && let Some(stored) = self.objects.read(&key_name(id)).await?
            {
                return Ok(Some((id.to_owned(), stored)));
            }
        }
        Ok(None)
    }

    /// The key, if it is in memory.
    pub(crate) fn cached(&self, id: &str) -> Option<Known> {
        let Some((one, other)) = id.split_once(JOINT) else { return self.cached_one(id) };
        match (self.cached_one(one), self.cached_one(other)) {
            (Some(Known::Shredded), _) | (_, Some(Known::Shredded)) => Some(Known::Shredded),
            (Some(Known::Key(one)), Some(Known::Key(other))) => {
                Some(Known::Key(Arc::new(join(&one, &other, id))))
            }
            _ => None,
        }
    }

    /// The key; `None` when it certainly is not there.
    pub(crate) async fn find(&self, id: &str) -> Result<Option<Arc<Secret>>, Error> {
        let Some((one, other)) = id.split_once(JOINT) else { return self.find_one(id).await };
        let (one, other) = (self.find_one(one).await?, self.find_one(other).await?);
        Ok(one.zip(other).map(|(one, other)| Arc::new(join(&one, &other, id))))
    }

    fn cached_one(&self, id: &str) -> Option<Known> {
        self.cache.read().get(id).cloned()
    }

    async fn find_one(&self, id: &str) -> Result<Option<Arc<Secret>>, Error> {
        match self.cached_one(id) {
            Some(Known::Key(key)) => return Ok(Some(key)),
            Some(Known::Shredded) => return Ok(None),
            None => check_id(id)?,
        }
        let _unchanged = self.gate.read().await;
        self.load(id).await
    }

    /// Reads a key from the store, with the gate held.
    async fn load(&self, id: &str) -> Result<Option<Arc<Secret>>, Error> {
        if let Some(stored) = self.objects.read(&key_name(id)).await? {
            let key = Arc::new(self.unwrap(id, &stored)?);
            self.remember(id, Known::Key(key.clone()));
            return Ok(Some(key));
        }
        // Only what can never change is remembered: a key that is merely absent may be created.
        if self.is_shredded(id).await? {
            self.remember(id, Known::Shredded);
        }
        Ok(None)
    }

    /// The key, or an error that names it.
    pub(crate) async fn get(&self, id: &str) -> Result<Arc<Secret>, Error> {
        self.find(id).await?.ok_or_else(|| Error::KeyMissing { id: id.to_owned() })
    }

    async fn create(&self, id: &str) -> Result<(), Error> {
        let _alone = self.gate.write().await;
        for _ in 0..ATTEMPTS {
            self.refuse_shredded(id).await?;
            let (key, wrapped) = self.new_key(id)?;
            let created = self.objects.create(&key_name(id), wrapped).await?;
            // Another node may have shredded it between the look and the creation; its mark came
            // before its removal, so whoever created a key after that sees the mark now.
            match self.refuse_shredded(id).await {
                Err(shredded @ Error::KeyShredded { .. }) => {
                    self.objects.delete(&key_name(id)).await?;
                    return Err(shredded);
                }
                looked => looked?,
            }
            if created {
                self.remember(id, Known::Key(Arc::new(key)));
                return Ok(());
            }
            // The one that is there is the key, if it can be used.
            if self.load(id).await?.is_some() {
                return Ok(());
            }
            // Its creation by another node is under way, or has failed.
            tokio::task::yield_now().await;
        }
        Err(Error::KeyMissing { id: id.to_owned() })
    }

    async fn refuse_shredded(&self, id: &str) -> Result<(), Error> {
        if self.is_shredded(id).await? {
            self.remember(id, Known::Shredded);
            return Err(Error::KeyShredded { id: id.to_owned() });
        }
        Ok(())
    }

    async fn shred(&self, id: &str) -> Result<(), Error> {
        let _alone = self.gate.write().await;
        // The mark first: a crash between the two leaves a key that can still be shredded, never
        // an id under which a second key could be made.
        self.objects.replace(&shredded_name(id), Bytes::from_static(b"{\"v\":1}")).await?;
        self.objects.delete(&key_name(id)).await?;
        self.remember(id, Known::Shredded);
        Ok(())
    }

    async fn is_shredded(&self, id: &str) -> Result<bool, Error> {
        Ok(self.objects.read(&shredded_name(id)).await?.is_some())
    }

    fn remember(&self, id: &str, known: Known) {
        let mut cache = self.cache.write();
        if cache.len() >= CACHED_KEYS && !cache.contains_key(id) {
            // Any one: the next use of it costs one read of a small file.
            if let Some(victim) = cache.keys().next().cloned() {
                cache.remove(&victim);
            }
        }
        cache.insert(id.to_owned(), known);
    }

    fn new_key(&self, id: &str) -> Result<(Secret, Bytes), Error> {
        let (key, wrapped) = new_key(&self.master, id)?;
        Ok((key, wrapped.to_bytes()))
    }

    fn unwrap(&self, id: &str, stored: &[u8]) -> Result<Secret, Error> {
        unwrap(&self.master, id, stored)
    }
}

/// A new key, and its stored form.
pub(crate) fn new_key(master: &MasterKey, id: &str) -> Result<(Secret, Wrapped), Error> {
    let key = cipher::random_secret()?;
    let wrapped = wrap(master, id, key.expose_secret())?;
    Ok((key, wrapped))
}

/// The stored form of a key.
pub(crate) fn wrap(master: &MasterKey, id: &str, key: &[u8]) -> Result<Wrapped, Error> {
    let wrapped = cipher::encrypt(master.secret(), &wrapping_associated_data(id), key)?;
    Ok(Wrapped::new(URL_SAFE_NO_PAD.encode(wrapped)))
}

pub(crate) fn unwrap(master: &MasterKey, id: &str, stored: &[u8]) -> Result<Secret, Error> {
    let corrupt = || Error::KeyCorrupt { id: id.to_owned() };
    let stored: Wrapped = serde_json::from_slice(stored).map_err(|_| corrupt())?;
    if stored.v != FORMAT {
        return Err(Error::KeyNewer { id: id.to_owned(), found: stored.v });
    }
    if stored.becoming.is_some() {
        return Err(Error::MasterKeyChanging);
    }
    let wrapped = URL_SAFE_NO_PAD.decode(&stored.wrapped).map_err(|_| corrupt())?;
    let clear = cipher::decrypt(master.secret(), &wrapping_associated_data(id), &wrapped)
        .filter(|clear| clear.len() == KEY_LENGTH)
        .ok_or_else(corrupt)?;
    let mut key = Secret::default();
    key.expose_secret_mut().copy_from_slice(&clear);
    Ok(key)
}

impl MasterKey {
    /// Checks that this is the key under which a vault's [`crate::MASTER_CHECK`] was made.
    ///
    /// # Errors
    /// [`Error::WrongMasterKey`] when it is another one.
    pub fn check(&self, stored: &[u8]) -> Result<(), Error> {
        unwrap(self, MASTER_CHECK, stored).map(drop).map_err(only_wrong)
    }
}

/// A key that does not open what it should is taken for another key.
pub(crate) fn only_wrong(error: Error) -> Error {
    match error {
        Error::KeyCorrupt { .. } => Error::WrongMasterKey,
        other => other,
    }
}

impl Vault {
    /// Creates a data key, unless it exists. On `Ok` it is on the disk.
    ///
    /// A key that was shredded is refused: what it sealed would no longer be known as shredded.
    pub async fn create_key(&self, id: &str) -> Result<(), Error> {
        check_id(id)?;
        if let Some(Known::Key(_)) = self.keys().cached(id) {
            return Ok(());
        }
        let (vault, id) = (self.clone(), id.to_owned());
        uninterrupted(async move { vault.keys().create(&id).await }).await
    }

    /// Destroys a data key: what it sealed cannot be read again, by anyone. On `Ok` it is gone from
    /// the disk and from memory. It is no error when it was gone before.
    pub async fn shred_key(&self, id: &str) -> Result<(), Error> {
        check_id(id)?;
        let (vault, id) = (self.clone(), id.to_owned());
        uninterrupted(async move {
            let shredded = vault.keys().shred(&id).await;
            vault.inner.kept.forget(&id);
            shredded
        })
        .await
    }

    /// Reads every key, as many as are kept in memory, so that nobody has to wait for a store that is
    /// far away, or is away, when a text is opened for the first time.
    ///
    /// # Errors
    /// The store fails; what was read is kept.
    pub async fn warm_up(&self) -> Result<(), Error> {
        let names = self.keys().objects.list("keys").await?;
        let ids = names.iter().filter_map(|name| name.strip_suffix(".json"));
        let ids = ids.filter(|id| *id != MASTER_CHECK).take(CACHED_KEYS).map(Ok::<_, Error>);
        let read = |id: &str| {
            let id = id.to_owned();
            async move { self.keys().find(&id).await.map(|_| ()) }
        };
        stream::iter(ids).try_for_each_concurrent(WARMING_UP, read).await
    }

    /// Forgets a key that another node has shredded; it is read anew when it is needed.
    pub fn forget_key(&self, id: &str) {
        self.keys().cache.write().remove(id);
        self.inner.kept.forget(id);
    }

    /// Whether there is such a key, and it can be used.
    pub async fn key_exists(&self, id: &str) -> Result<bool, Error> {
        Ok(self.keys().find(id).await?.is_some())
    }

    /// Derives a subkey (HKDF-SHA256) for one purpose, named by the label.
    pub async fn derive(&self, key_id: &str, label: &str) -> Result<Zeroizing<[u8; 32]>, Error> {
        let key = self.keys().get(key_id).await?;
        let mut subkey = Zeroizing::new([0; KEY_LENGTH]);
        Hkdf::<Sha256>::new(None, key.expose_secret())
            .expand_multi_info(&[b"prodgy subkey v1 ", label.as_bytes()], subkey.as_mut_slice())
            .expect("32 bytes are fewer than the 8,160 that HKDF-SHA256 gives");
        Ok(subkey)
    }
}

/// The id of what only both keys together open: neither is there any more when one of them is shredded.
pub fn joint_key(one: &str, other: &str) -> String {
    format!("{one}{JOINT}{other}")
}

/// The ids of the keys that it takes to open something: one, or the two of a [`joint_key`].
pub fn keys_of(id: &str) -> impl Iterator<Item = &str> {
    id.split(JOINT)
}

/// The key that follows from two.
fn join(one: &Secret, other: &Secret, id: &str) -> Secret {
    let both = Zeroizing::new([*one.expose_secret(), *other.expose_secret()].concat());
    let mut key = Secret::default();
    Hkdf::<Sha256>::new(None, &both)
        .expand_multi_info(&[b"prodgy joint key v1 ", id.as_bytes()], key.expose_secret_mut())
        .expect("32 bytes are fewer than the 8,160 that HKDF-SHA256 gives");
    key
}

/// Checks the id of one key, or of two that open something together.
pub(crate) fn check_ids(ids: &str) -> Result<(), Error> {
    match ids.split_once(JOINT) {
        None => check_id(ids),
        Some((one, other)) => check_id(one).and_then(|()| check_id(other)),
    }
}

/// Checks that a key id may be part of a file name and of a sealed text.
pub(crate) fn check_id(id: &str) -> Result<(), Error> {
    let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    let valid = (1..=128).contains(&id.len())
        && id.bytes().all(allowed)
        && id.as_bytes()[0].is_ascii_lowercase()
        && id != MASTER_CHECK;
    if valid { Ok(()) } else { Err(Error::InvalidKeyId(id.to_owned())) }
}

pub(crate) fn key_name(id: &str) -> String {
    format!("keys/{id}.json")
}

fn shredded_name(id: &str) -> String {
    format!("keys/{id}.shredded")
}

/// Binds a wrapped key to its id, so that files cannot be exchanged.
fn wrapping_associated_data(id: &str) -> Vec<u8> {
    cipher::associated_data(&[b"prodgy wrapped key v1", id.as_bytes()])
}

/// Runs to the end even when the caller goes away: half a creation or half a shredding must not
/// let go of the gate.
async fn uninterrupted<T: Send + 'static>(
    work: impl Future<Output = Result<T, Error>> + Send + 'static,
) -> Result<T, Error> {
    match tokio::spawn(work).await {
        Ok(outcome) => outcome,
        Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
        Err(_) => Err(Error::Stopping),
    }
}
