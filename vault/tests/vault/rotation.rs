//! Another master key takes over: at once, or in as many goes as it is cut off.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tempfile::TempDir;
use vault::{Error, MasterKey, Opened, Sealed, Vault};

use crate::support::place;

/// More than are wrapped at once.
const KEYS: usize = 40;

/// A vault whose keys have sealed something each, and one that was shredded.
struct Filled {
    folder: TempDir,
    old: MasterKey,
    sealed: Vec<Sealed>,
    lost: Sealed,
}

async fn filled() -> Filled {
    let folder = TempDir::new().unwrap();
    let old = MasterKey::generate().unwrap();
    let vault = Vault::local(folder.path(), old.clone()).await.unwrap();
    let mut sealed = Vec::new();
    for number in 0..KEYS {
        let key = format!("user-{number}");
        vault.create_key(&key).await.unwrap();
        sealed.push(vault.seal(&key, &place("email"), key.as_bytes()).await.unwrap());
    }
    vault.create_key("shredded").await.unwrap();
    let lost = vault.seal("shredded", &place("email"), b"ada").await.unwrap();
    vault.shred_key("shredded").await.unwrap();
    Filled { folder, old, sealed, lost }
}

impl Filled {
    async fn opened_with(&self, master: &MasterKey) -> Result<Vault, Error> {
        Vault::local(self.folder.path(), master.clone()).await
    }

    async fn rotate(&self, new: &MasterKey) -> Result<u64, Error> {
        Vault::rotate_master(self.folder.path(), &self.old, new, |_, _| ()).await
    }

    /// Everything is as it was, under the new key alone.
    async fn check(&self, new: &MasterKey) {
        let refused = self.opened_with(&self.old).await.unwrap_err();
        assert!(matches!(refused, Error::WrongMasterKey), "{refused:?}");
        let vault = self.opened_with(new).await.unwrap();
        for (number, sealed) in self.sealed.iter().enumerate() {
            let opened = vault.open(sealed, &place("email")).await.unwrap();
            assert_eq!(**opened.clear().unwrap(), *format!("user-{number}").as_bytes());
        }
        assert_eq!(vault.open(&self.lost, &place("email")).await.unwrap(), Opened::Shredded);
    }
}

#[tokio::test]
async fn every_key_is_under_the_new_master_key_and_none_has_changed() {
    let filled = filled().await;
    let new = MasterKey::generate().unwrap();
    assert_eq!(filled.rotate(&new).await.unwrap(), KEYS as u64);
    filled.check(&new).await;
    // Whoever did not hear of it asks again.
    assert_eq!(filled.rotate(&new).await.unwrap(), KEYS as u64);
    filled.check(&new).await;
}

#[tokio::test]
async fn a_key_that_is_not_the_present_one_changes_nothing() {
    let filled = filled().await;
    let (wrong, new) = (MasterKey::generate().unwrap(), MasterKey::generate().unwrap());
    let refused = Vault::rotate_master(filled.folder.path(), &wrong, &new, |_, _| ()).await;
    assert!(matches!(refused, Err(Error::WrongMasterKey)), "{refused:?}");
    filled.opened_with(&filled.old).await.unwrap();
}

#[tokio::test]
async fn what_was_cut_off_anywhere_is_opened_by_nobody_until_it_is_finished() {
    for cut_at in [1, 7, KEYS as u64 - 1, KEYS as u64] {
        let filled = filled().await;
        let new = MasterKey::generate().unwrap();
        let done = Arc::new(AtomicU64::new(0));
        let (folder, old, to, seen) =
            (filled.folder.path().to_owned(), filled.old.clone(), new.clone(), done.clone());
        let cut_off = tokio::spawn(async move {
            let progress = |now, _| {
                seen.store(now, Ordering::SeqCst);
                assert!(now < cut_at, "cut off");
            };
            Vault::rotate_master(&folder, &old, &to, progress).await
        });
        assert!(cut_off.await.unwrap_err().is_panic());
        assert_eq!(done.load(Ordering::SeqCst), cut_at);

        for key in [&filled.old, &new] {
            let refused = filled.opened_with(key).await.unwrap_err();
            assert!(matches!(refused, Error::MasterKeyChanging), "{refused:?}");
        }
        // Another new key would leave some keys under the first one.
        let refused = filled.rotate(&MasterKey::generate().unwrap()).await;
        assert!(matches!(refused, Err(Error::WrongMasterKey)), "{refused:?}");
        assert_eq!(filled.rotate(&new).await.unwrap(), KEYS as u64);
        filled.check(&new).await;
    }
}
