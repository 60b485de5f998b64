//! Several nodes on one store: what one does, the others see, and of two who do the same at once both
//! are right.

use std::io;

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, future::join_all, stream};
use uuid::Uuid;
use vault::{Error, MasterKey, Opened, PutError};

use crate::support::{Store, body, noise, place, product_key};

const KEY: &str = "user-0193";

#[tokio::test]
async fn nodes_share_keys_and_shredding() {
    let store = Store::new().await;
    store.vault.create_key(KEY).await.unwrap();
    let other = store.reopened().await;
    other.create_key(KEY).await.unwrap();
    let sealed = other.seal(KEY, &place("email"), b"ada").await.unwrap();
    let opened = store.vault.open(&sealed, &place("email")).await.unwrap();
    assert_eq!(opened.clear().unwrap().as_slice(), b"ada");

    store.vault.shred_key(KEY).await.unwrap();
    other.forget_key(KEY);
    assert_eq!(other.open(&sealed, &place("email")).await.unwrap(), Opened::Shredded);
    assert!(matches!(other.create_key(KEY).await, Err(Error::KeyShredded { .. })));
}

#[tokio::test]
async fn another_master_key_is_refused() {
    let store = Store::new().await;
    store.vault.create_key(KEY).await.unwrap();
    let wrong = MasterKey::generate().unwrap();
    let refused = store.opened_with(wrong.clone()).await;
    assert!(matches!(refused, Err(Error::WrongMasterKey)));
    store.remove("keys/master.json").await;
    let refused = store.opened_with(wrong).await;
    assert!(matches!(refused, Err(Error::WrongMasterKey)));
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_that_open_an_empty_store_at_once_agree_on_the_master_key() {
    let store = Store::new().await;
    for name in store.names("keys").await {
        store.remove(&name).await;
    }
    let keys: Vec<MasterKey> = (0..6).map(|_| MasterKey::generate().unwrap()).collect();
    let opened = join_all(keys.iter().map(|key| store.opened_with(key.clone()))).await;
    let good = opened.iter().filter(|vault| vault.is_ok()).count();
    assert_eq!(good, 1, "{opened:?}");
    for refused in opened.into_iter().filter_map(Result::err) {
        assert!(matches!(refused, Error::WrongMasterKey), "{refused:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_is_created_and_shredded_at_once_is_shredded_in_the_end() {
    let store = Store::new().await;
    let nodes = [store.reopened().await, store.reopened().await, store.reopened().await];
    for round in 0..20 {
        let key = format!("user-{round}");
        let creations = nodes.iter().map(|node| {
            let (node, key) = (node.clone(), key.clone());
            tokio::spawn(async move { node.create_key(&key).await })
        });
        let creations: Vec<_> = creations.collect();
        nodes[0].shred_key(&key).await.unwrap();
        for outcome in join_all(creations).await {
            let outcome = outcome.unwrap();
            assert!(matches!(outcome, Ok(()) | Err(Error::KeyShredded { .. })), "{outcome:?}");
        }
        assert!(!store.reopened().await.key_exists(&key).await.unwrap(), "{key}");
        assert_eq!(store.names("keys").await.iter().filter(|name| name.contains(&key)).count(), 1);
        store.remove(&format!("keys/{key}.shredded")).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_that_put_the_same_blob_at_once_are_all_right() {
    let (store, product) = Store::with_product().await;
    let bytes = noise(2_000_000);
    let nodes = [store.vault.clone(), store.reopened().await, store.reopened().await];
    let puts = nodes.iter().map(|node| node.put_blob(product, body(&bytes, 70_000), u64::MAX));
    let blobs: Vec<_> = join_all(puts).await.into_iter().map(Result::unwrap).collect();
    assert!(blobs.iter().all(|blob| *blob == blobs[0]));
    assert_eq!(store.names("blobs").await.len(), 1);
    for node in &nodes {
        assert_eq!(node.blob_bytes(product, &blobs[0], u64::MAX).await.unwrap(), bytes);
    }
}

#[tokio::test]
async fn long_and_short_blobs_are_put_once_and_read_in_part() {
    let (store, product) = Store::with_product().await;
    for length in [0, 1, 8_388_608 - 300_000, 20_000_000] {
        let bytes = noise(length as usize);
        let blob = store.vault.put_blob(product, body(&bytes, 70_000), length).await.unwrap();
        let again = store.reopened().await.put_blob(product, body(&bytes, 9_999), length).await;
        assert_eq!(again.unwrap(), blob);
        assert_eq!(store.vault.blob_bytes(product, &blob, length).await.unwrap(), bytes);
        for range in [0..0, length / 3..length / 2, length..length] {
            let part = store.vault.get_blob(product, &blob, Some(range.clone())).await.unwrap();
            let part: Vec<Bytes> = part.try_collect().await.unwrap();
            assert_eq!(part.concat(), bytes[range.start as usize..range.end as usize]);
        }
    }
    assert_eq!(store.names("blobs").await.len(), 4);
    assert_eq!(store.unfinished().await, 0);
}

#[tokio::test]
async fn a_long_body_that_breaks_off_or_is_too_large_leaves_nothing() {
    let (store, product) = Store::with_product().await;
    let bytes = noise(20_000_000);
    let broken = body(&bytes, 70_000)
        .map_err(|never| match never {})
        .chain(stream::iter([Err(io::Error::from(io::ErrorKind::ConnectionReset))]));
    let refused = store.vault.put_blob(product, broken, u64::MAX).await;
    assert!(matches!(refused, Err(PutError::Body(_))));
    let refused = store.vault.put_blob(product, body(&bytes, 70_000), 19_999_999).await;
    assert!(matches!(refused, Err(PutError::TooLarge { .. })));
    assert!(store.names("blobs").await.is_empty());
    for _ in 0..10_000 {
        if store.unfinished().await == 0 {
            return;
        }
        tokio::task::yield_now().await;
    }
    panic!("parts of an upload are left");
}

#[tokio::test]
async fn blobs_of_a_product_go_together_and_those_of_another_stay() {
    let (store, product) = Store::with_product().await;
    let other = Uuid::now_v7();
    store.vault.create_key(&product_key(other)).await.unwrap();
    for text in [b"one", b"two"] {
        store.vault.put_blob(product, body(text, 9), 9).await.unwrap();
        store.vault.put_blob(other, body(text, 9), 9).await.unwrap();
    }
    store.vault.delete_blobs(product).await.unwrap();
    let left = store.names("blobs").await;
    assert_eq!(left.len(), 2);
    assert!(left.iter().all(|name| name.contains(&other.to_string())));
}
