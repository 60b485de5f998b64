//! The same promises on an object store: nothing of the vault needs a file system.

use std::{io, sync::Arc};

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use object_store::{ObjectStore, ObjectStoreExt, memory::InMemory, path::Path};
use uuid::Uuid;
use vault::{Error, MasterKey, Opened, PutError, Vault};

use crate::support::{body, noise, place, product_key};

const KEY: &str = "user-0193";

struct Remote {
    store: Arc<InMemory>,
    master: MasterKey,
    vault: Vault,
    product: Uuid,
}

impl Remote {
    async fn new() -> Remote {
        let (store, master) = (Arc::new(InMemory::new()), MasterKey::generate().unwrap());
        let vault = Vault::remote(store.clone(), master.clone()).await.unwrap();
        let product = Uuid::now_v7();
        vault.create_key(&product_key(product)).await.unwrap();
        vault.create_key(KEY).await.unwrap();
        Remote { store, master, vault, product }
    }

    /// Another node on the same store.
    async fn another(&self) -> Vault {
        Vault::remote(self.store.clone(), self.master.clone()).await.unwrap()
    }

    async fn names(&self, below: &str) -> Vec<String> {
        let found = self.store.list(Some(&Path::from(below)));
        found.map_ok(|object| object.location.to_string()).try_collect().await.unwrap()
    }
}

#[tokio::test]
async fn nodes_share_keys_and_shredding() {
    let remote = Remote::new().await;
    let other = remote.another().await;
    other.create_key(KEY).await.unwrap();
    let sealed = other.seal(KEY, &place("email"), b"ada").await.unwrap();
    let opened = remote.vault.open(&sealed, &place("email")).await.unwrap();
    assert_eq!(opened.clear().unwrap().as_slice(), b"ada");

    remote.vault.shred_key(KEY).await.unwrap();
    other.forget_key(KEY);
    assert_eq!(other.open(&sealed, &place("email")).await.unwrap(), Opened::Shredded);
    assert!(matches!(other.create_key(KEY).await, Err(Error::KeyShredded { .. })));
}

#[tokio::test]
async fn another_master_key_is_refused() {
    let remote = Remote::new().await;
    let wrong = MasterKey::generate().unwrap();
    let refused = Vault::remote(remote.store.clone(), wrong.clone()).await;
    assert!(matches!(refused, Err(Error::WrongMasterKey)));
    remote.store.delete(&Path::from("keys/master.json")).await.unwrap();
    let refused = Vault::remote(remote.store.clone(), wrong).await;
    assert!(matches!(refused, Err(Error::WrongMasterKey)));
}

#[tokio::test]
async fn blobs_are_put_once_and_read_in_part() {
    let Remote { vault, product, .. } = &Remote::new().await;
    for length in [0, 1, 12_000_000] {
        let bytes = noise(length as usize);
        let blob = vault.put_blob(*product, body(&bytes, 70_000), length).await.unwrap();
        assert_eq!(vault.put_blob(*product, body(&bytes, 9_999), length).await.unwrap(), blob);
        assert_eq!(vault.blob_bytes(*product, &blob, length).await.unwrap(), bytes);
        for range in [0..0, length / 3..length / 2, length..length] {
            let part = vault.get_blob(*product, &blob, Some(range.clone())).await.unwrap();
            let part: Vec<Bytes> = part.try_collect().await.unwrap();
            assert_eq!(part.concat(), bytes[range.start as usize..range.end as usize]);
        }
    }
}

#[tokio::test]
async fn a_body_that_breaks_off_or_is_too_large_leaves_nothing() {
    let remote = Remote::new().await;
    let bytes = noise(12_000_000);
    let broken = body(&bytes, 70_000)
        .map_err(|never| match never {})
        .chain(stream::iter([Err(io::Error::from(io::ErrorKind::ConnectionReset))]));
    let refused = remote.vault.put_blob(remote.product, broken, u64::MAX).await;
    assert!(matches!(refused, Err(PutError::Body(_))));
    let refused = remote.vault.put_blob(remote.product, body(&bytes, 70_000), 11_999_999).await;
    assert!(matches!(refused, Err(PutError::TooLarge { .. })));
    assert!(remote.names("blobs").await.is_empty());
    assert!(remote.names("unfinished").await.is_empty());
}

#[tokio::test]
async fn a_changed_a_cut_and_a_missing_blob_are_told_apart() {
    let Remote { store, vault, product, .. } = &Remote::new().await;
    let blob = vault.put_blob(*product, body(b"some text", 4), 9).await.unwrap();
    let location = Path::from(format!("blobs/{product}/{}/{}", &blob.name[..2], blob.name));
    for (stored, range) in
        [("Some text", None), ("some", None), ("some", Some(5..9)), ("", Some(0..1))]
    {
        store.put(&location, stored.into()).await.unwrap();
        let outcome = match vault.get_blob(*product, &blob, range).await {
            Ok(bytes) => bytes.try_collect::<Vec<_>>().await.map(|_| ()),
            Err(error) => Err(error),
        };
        assert!(matches!(outcome, Err(Error::Corrupt { .. })), "{stored}: {outcome:?}");
    }
    store.delete(&location).await.unwrap();
    let outcome = vault.blob_bytes(*product, &blob, 9).await;
    assert!(matches!(outcome, Err(Error::BlobMissing { .. })));
}

#[tokio::test]
async fn artifacts_and_blobs_are_removed_for_good() {
    let remote = Remote::new().await;
    let Remote { vault, product, .. } = &remote;
    vault.put_artifact("a/b", Bytes::from_static(b"text")).await.unwrap();
    assert_eq!(vault.get_artifact("a/b").await.unwrap().unwrap(), "text");
    vault.delete_artifact("a/b").await.unwrap();
    vault.delete_artifact("a/b").await.unwrap();
    assert_eq!(vault.get_artifact("a/b").await.unwrap(), None);

    let blob = vault.put_blob(*product, body(b"one", 9), 9).await.unwrap();
    vault.put_blob(*product, body(b"two", 9), 9).await.unwrap();
    vault.delete_blob(*product, &blob).await.unwrap();
    vault.delete_blob(*product, &blob).await.unwrap();
    assert_eq!(remote.names("blobs").await.len(), 1);
    vault.delete_blobs(*product).await.unwrap();
    assert!(remote.names("blobs").await.is_empty());
}

#[tokio::test]
async fn what_another_node_is_still_writing_is_not_cleared() {
    let remote = Remote::new().await;
    remote.store.put(&Path::from("unfinished/0193"), "half a blob".into()).await.unwrap();
    remote.another().await;
    assert_eq!(remote.names("unfinished").await, ["unfinished/0193"]);
}
