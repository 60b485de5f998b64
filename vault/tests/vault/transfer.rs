//! What one vault holds, brought to another as it lies there.

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use vault::{Error, MASTER_CHECK, Opened, Vault};

use crate::support::{Store, body, noise, place, product_key};

const KEY: &str = "user-0193";

/// The names of all that can be brought elsewhere.
async fn names(vault: &Vault) -> Vec<String> {
    let stored = vault.stored_keys().chain(vault.stored());
    stored.map_ok(|object| object.name).try_collect().await.unwrap()
}

async fn bring(from: &Vault, to: &Vault, name: &str) -> Result<(), Error> {
    let (size, bytes) = from.read_stored(name).await.unwrap().unwrap();
    let bytes: Vec<Bytes> = bytes.try_collect().await.unwrap();
    assert_eq!(bytes.iter().map(Bytes::len).sum::<usize>() as u64, size, "{name}");
    if name.starts_with("keys/") {
        to.put_stored_key(name, bytes.concat().into()).await
    } else {
        to.put_stored(name, stream::iter(bytes.into_iter().map(Ok))).await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_brought_to_another_vault_is_good_there() {
    let (store, product) = Store::with_product().await;
    let vault = &store.vault;
    for id in [KEY, "user-gone"] {
        vault.create_key(id).await.unwrap();
    }
    let sealed = vault.seal(KEY, &place("email"), b"ada").await.unwrap();
    let gone = vault.seal("user-gone", &place("email"), b"eve").await.unwrap();
    vault.shred_key("user-gone").await.unwrap();
    let mut blobs = Vec::new();
    // The longest one does not fit into one request to an object store.
    for size in [0, 1, 70_000, 6_000_000] {
        let content = noise(size);
        let blob = vault.put_blob(product, body(&content, 65_536), u64::MAX).await.unwrap();
        blobs.push((blob, content));
    }
    vault.put_artifact(&product_key(product), "some/thing.bin", b"dear").await.unwrap();

    // A vault of its own, with the same master key.
    let target = Store::new().await;
    let check = vault.read_stored(MASTER_CHECK).await.unwrap().unwrap().1;
    let check: Vec<Bytes> = check.try_collect().await.unwrap();
    store.master.check(&check.concat()).unwrap();
    assert!(matches!(target.master.check(&check.concat()), Err(Error::WrongMasterKey)));
    target.remove(MASTER_CHECK).await;
    let vault = target.opened_with(store.master.clone()).await.unwrap();
    for name in names(&store.vault).await {
        if name != MASTER_CHECK {
            bring(&store.vault, &vault, &name).await.unwrap();
            // Twice is no harm.
            bring(&store.vault, &vault, &name).await.unwrap();
        }
    }

    let opened = vault.open(&sealed, &place("email")).await.unwrap();
    assert_eq!(opened.clear().unwrap().as_slice(), b"ada");
    assert_eq!(vault.open(&gone, &place("email")).await.unwrap(), Opened::Shredded);
    assert!(matches!(vault.create_key("user-gone").await, Err(Error::KeyShredded { .. })));
    for (blob, content) in &blobs {
        assert!(vault.blob_bytes(product, blob, u64::MAX).await.unwrap() == *content);
    }
    assert_eq!(vault.get_artifact("some/thing.bin").await.unwrap().unwrap(), "dear");
    assert_eq!(target.unfinished().await, 0);
}

#[tokio::test]
async fn a_key_never_takes_the_place_of_another() {
    let (one, other) = (Store::new().await, Store::new().await);
    for store in [&one, &other] {
        store.vault.create_key(KEY).await.unwrap();
    }
    let before = other.bytes("keys/user-0193.json").await;
    let refused = bring(&one.vault, &other.vault, "keys/user-0193.json").await;
    assert!(matches!(refused, Err(Error::Taken { .. })), "{refused:?}");
    assert_eq!(other.bytes("keys/user-0193.json").await, before);
}

#[tokio::test]
async fn a_name_that_leads_elsewhere_is_refused() {
    let store = Store::new().await;
    for name in [
        "",
        "keys",
        "keys/",
        "/keys/a",
        "keys/../a",
        "blobs/./a",
        "blobs//a",
        "other/a",
        "garbage/a",
        "blobs/A",
        "blobs/a\0",
    ] {
        let put = store.vault.put_stored_key(name, Bytes::new()).await;
        assert!(matches!(put, Err(Error::InvalidName(_))), "{name:?}: {put:?}");
        let put = store.vault.put_stored(name, stream::empty::<Result<_, Error>>()).await;
        assert!(matches!(put, Err(Error::InvalidName(_))), "{name:?}: {put:?}");
        assert!(matches!(store.vault.read_stored(name).await, Err(Error::InvalidName(_))));
    }
    assert!(store.vault.read_stored("blobs/nothing").await.unwrap().is_none());
}

#[tokio::test]
async fn an_import_that_was_begun_is_known_until_it_ends() {
    let store = Store::new().await;
    assert_eq!(store.vault.unfinished_import().await.unwrap(), None);
    store.vault.begin_import("export.tar").await.unwrap();
    let said = store.reopened().await.unfinished_import().await.unwrap();
    assert_eq!(said.as_deref(), Some("export.tar"));
    store.vault.end_import().await.unwrap();
    store.vault.end_import().await.unwrap();
    assert_eq!(store.reopened().await.unfinished_import().await.unwrap(), None);
}
