//! Garbage: set aside, brought back by whoever reads it, and removed when it is old.

use std::time::{Duration, SystemTime};

use futures::TryStreamExt;
use vault::{Error, StoredObject, Vault};

use crate::support::{Store, ago, body, product_key};

const DAY: Duration = Duration::from_secs(24 * 3600);

async fn stored(vault: &Vault) -> Vec<StoredObject> {
    let mut stored: Vec<_> = vault.stored().try_collect().await.unwrap();
    stored.sort_by(|a, b| a.name.cmp(&b.name));
    stored
}

async fn aside(vault: &Vault) -> Vec<StoredObject> {
    vault.stored_aside().try_collect().await.unwrap()
}

#[tokio::test]
async fn blobs_and_artifacts_are_listed_as_events_name_them() {
    let (store, product) = Store::with_product().await;
    let blob = store.vault.put_blob(product, body(b"text", 4), 4).await.unwrap();
    store.vault.put_artifact(&product_key(product), "p/a-1/x.bin", b"artifact").await.unwrap();
    let stored = stored(&store.vault).await;
    let named: Vec<&str> = stored.iter().map(StoredObject::named).collect();
    assert_eq!(named, ["p/a-1/x.bin", &blob.name]);
    assert!(aside(&store.vault).await.is_empty());
    let now = SystemTime::now();
    for object in stored {
        let age = now.duration_since(object.modified).unwrap_or_default();
        assert!(object.size > 4 && age < Duration::from_secs(3600), "{object:?}");
    }
}

#[tokio::test]
async fn what_is_young_stays_and_what_is_old_is_set_aside() {
    let (store, product) = Store::with_product().await;
    store.vault.put_blob(product, body(b"text", 4), 4).await.unwrap();
    let object = stored(&store.vault).await.remove(0);
    assert!(!store.vault.set_aside(&object, ago(DAY)).await.unwrap());
    assert_eq!(stored(&store.vault).await.len(), 1);
    assert!(aside(&store.vault).await.is_empty());

    store.age(2 * DAY).await;
    assert!(store.vault.set_aside(&object, ago(DAY)).await.unwrap());
    assert!(stored(&store.vault).await.is_empty());
    let aside = aside(&store.vault).await;
    assert_eq!((aside.len(), &aside[0].name), (1, &object.name));
    // It counts as set aside now, however old it was.
    assert!(aside[0].modified > ago(DAY));
    // And twice is once.
    assert!(!store.vault.set_aside(&object, ago(DAY)).await.unwrap());
}

#[tokio::test]
async fn whoever_reads_what_was_set_aside_brings_it_back() {
    let (store, product) = Store::with_product().await;
    let blob = store.vault.put_blob(product, body(b"text", 4), 4).await.unwrap();
    store.vault.put_artifact(&product_key(product), "a/b", b"artifact").await.unwrap();
    for _ in 0..2 {
        store.age(2 * DAY).await;
        for object in stored(&store.vault).await {
            assert!(store.vault.set_aside(&object, ago(DAY)).await.unwrap());
        }
        assert_eq!(store.vault.blob_bytes(product, &blob, 4).await.unwrap(), "text");
        assert_eq!(store.vault.get_artifact("a/b").await.unwrap().unwrap(), "artifact");
        let back = stored(&store.vault).await;
        assert_eq!(back.len(), 2);
        // It is young again: whoever brought it back may be about to name it.
        assert!(back.iter().all(|object| object.modified > ago(DAY)));
        assert!(aside(&store.vault).await.is_empty());
    }
}

#[tokio::test]
async fn what_is_removed_for_good_is_gone_and_may_come_again() {
    let (store, product) = Store::with_product().await;
    let blob = store.vault.put_blob(product, body(b"text", 4), 4).await.unwrap();
    store.age(2 * DAY).await;
    let object = stored(&store.vault).await.remove(0);
    store.vault.set_aside(&object, ago(DAY)).await.unwrap();
    store.vault.remove_aside(&object).await.unwrap();
    store.vault.remove_aside(&object).await.unwrap();
    assert!(store.names("garbage").await.is_empty());
    let missing = store.vault.blob_bytes(product, &blob, 4).await;
    assert!(matches!(missing, Err(Error::BlobMissing { .. })));
    assert!(!store.vault.bring_back_aside(&object).await.unwrap());
    assert_eq!(store.vault.put_blob(product, body(b"text", 4), 4).await.unwrap(), blob);
    assert_eq!(store.vault.blob_bytes(product, &blob, 4).await.unwrap(), "text");
}

#[tokio::test]
async fn who_deletes_a_blob_deletes_what_was_set_aside_of_it() {
    let (store, product) = Store::with_product().await;
    let blob = store.vault.put_blob(product, body(b"text", 4), 4).await.unwrap();
    store.vault.put_blob(product, body(b"more", 4), 4).await.unwrap();
    store.age(2 * DAY).await;
    for object in stored(&store.vault).await {
        store.vault.set_aside(&object, ago(DAY)).await.unwrap();
    }
    store.vault.delete_blob(product, &blob).await.unwrap();
    assert_eq!(aside(&store.vault).await.len(), 1);
    store.vault.delete_blobs(product).await.unwrap();
    assert!(aside(&store.vault).await.is_empty());
}

#[tokio::test]
async fn what_a_blob_became_is_found_wherever_it_lies() {
    let (store, product) = Store::with_product().await;
    let blob = store.vault.put_blob(product, body(b"text", 4), 4).await.unwrap();
    store.vault.put_blob(product, body(b"more", 4), 4).await.unwrap();
    let key = product_key(product);
    let own = [format!("{product}/{}-1-x", blob.name), format!("{product}/{}-1-y", blob.name)];
    for name in own.iter().chain([&format!("{product}/other-1-x"), &"p/a".to_owned()]) {
        store.vault.put_artifact(&key, name, b"artifact").await.unwrap();
    }
    let found = async || {
        let stored = store.vault.stored_of(product, &blob).await.unwrap();
        let mut named: Vec<_> = stored.iter().map(|it| it.named().to_owned()).collect();
        named.sort();
        (named, stored)
    };
    let (named, objects) = found().await;
    let all = [&own[0], &own[1], &blob.name].map(Clone::clone);
    assert_eq!(named.len(), 3);
    assert!(all.iter().all(|name| named.contains(name)), "{named:?}");

    let ahead = SystemTime::now() + DAY;
    assert!(store.vault.set_aside(&objects[1], ahead).await.unwrap());
    assert_eq!(found().await.0, named, "one of them lies elsewhere");
    for object in &objects {
        store.vault.set_aside(object, ahead).await.unwrap();
    }
    assert!(store.vault.has_blob(product, &blob).await.unwrap(), "it came back");
    for object in &objects {
        store.vault.set_aside(object, ahead).await.unwrap();
        store.vault.remove_aside(object).await.unwrap();
    }
    assert!(!store.vault.has_blob(product, &blob).await.unwrap());
    assert_eq!(found().await.0, [blob.name.as_str()], "its name is all that is left");
    assert_eq!(stored(&store.vault).await.len(), 3, "others are untouched");
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_misses_what_is_put_while_it_is_set_aside() {
    let (store, product) = Store::with_product().await;
    for round in 0..20_u8 {
        let text = [round; 4];
        let blob = store.vault.put_blob(product, body(&text, 4), 4).await.unwrap();
        store.age(2 * DAY).await;
        let object = stored(&store.vault).await.into_iter().find(|o| o.named() == blob.name);
        let (collector, object) = (store.reopened().await, object.unwrap());
        let collecting =
            tokio::spawn(async move { collector.set_aside(&object, ago(DAY)).await.unwrap() });
        store.vault.put_blob(product, body(&text, 4), 4).await.unwrap();
        collecting.await.unwrap();
        assert_eq!(store.vault.blob_bytes(product, &blob, 4).await.unwrap(), text.as_slice());
    }
}
