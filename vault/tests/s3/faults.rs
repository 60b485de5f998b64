//! A store that goes away, fails, cuts off, dawdles: nothing is lost, nothing wrong is answered, and
//! it goes on by itself when the store is back.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures::{StreamExt, future::join_all, stream};
use vault::{Error, Opened, PutError};

use crate::server::S3Server;
use crate::support::{Store, body, noise, place};

const KEY: &str = "user-0193";

#[tokio::test]
async fn a_store_that_is_away_is_an_error_and_never_absence() {
    let server = Arc::new(S3Server::start());
    let (store, product) = Store::with_product_on(server.clone()).await;
    store.vault.create_key(KEY).await.unwrap();
    let sealed = store.vault.seal(KEY, &place("email"), b"ada").await.unwrap();
    let blob = store.vault.put_blob(product, body(b"text", 4), 4).await.unwrap();
    store.vault.put_artifact(KEY, "a", b"artifact").await.unwrap();
    let cold = store.reopened().await;
    server.stop();

    for outcome in [
        cold.open(&sealed, &place("email")).await.map(|_| ()),
        cold.blob_bytes(product, &blob, 4).await.map(|_| ()),
        cold.get_artifact("a").await.map(|_| ()),
        cold.create_key("user-2").await,
        cold.shred_key(KEY).await,
        cold.check().await,
        store.vault.delete_blob(product, &blob).await,
    ] {
        let error = outcome.unwrap_err();
        assert!(matches!(error, Error::StoreUnreachable { .. }), "{error:?}");
        assert!(error.is_store_away());
    }
    let refused = store.vault.put_blob(product, body(b"more", 4), 4).await;
    assert!(matches!(refused, Err(PutError::Vault(Error::StoreUnreachable { .. }))));
    // What is in memory needs no store.
    assert!(store.vault.open(&sealed, &place("email")).await.unwrap().clear().is_some());

    server.start_again();
    cold.check().await.unwrap();
    assert!(cold.open(&sealed, &place("email")).await.unwrap().clear().is_some());
    assert_eq!(cold.blob_bytes(product, &blob, 4).await.unwrap(), "text");
    assert_eq!(cold.get_artifact("a").await.unwrap().unwrap(), "artifact");
}

#[tokio::test]
async fn a_bucket_that_went_away_is_not_taken_for_a_shredding() {
    let server = Arc::new(S3Server::start());
    let store = Store::on(server.clone()).await;
    store.vault.create_key(KEY).await.unwrap();
    let sealed = store.vault.seal(KEY, &place("email"), b"ada").await.unwrap();
    let cold = store.reopened().await;
    server.remove_everything();
    for outcome in [
        cold.open(&sealed, &place("email")).await.map(|opened| opened == Opened::Shredded),
        cold.key_exists(KEY).await,
        cold.get_artifact("a").await.map(|found| found.is_some()),
    ] {
        assert!(matches!(outcome, Err(Error::BucketMissing { .. })), "{outcome:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_is_stopped_and_started_under_load_loses_nothing_that_was_said() {
    let server = Arc::new(S3Server::start());
    let (store, product) = Store::with_product_on(server.clone()).await;
    let deadline = Instant::now() + Duration::from_secs(60);
    let writers = (0..4_u64).map(|writer| {
        let vault = store.vault.clone();
        tokio::spawn(async move {
            let (mut said, mut refused) = (Vec::new(), 0_usize);
            // Until it was refused and then served again, each of them.
            for number in 0_u64.. {
                assert!(Instant::now() < deadline, "the store never came back");
                let text = format!("{writer} {number}").repeat(1 + (number as usize % 50) * 400);
                let key = format!("user-{writer}-{number}");
                let outcome = async {
                    vault.create_key(&key).await?;
                    let sealed = vault.seal(&key, &place("email"), text.as_bytes()).await?;
                    let put = vault.put_blob(product, body(text.as_bytes(), 7000), u64::MAX).await;
                    let blob = put.map_err(|error| match error {
                        PutError::Vault(error) => error,
                        other => panic!("{other}"),
                    })?;
                    Ok::<_, Error>((sealed, blob, text))
                };
                match outcome.await {
                    Ok(stored) => {
                        said.push(stored);
                        if refused > 0 && said.len() > 20 {
                            return said;
                        }
                    }
                    Err(error) => {
                        assert!(error.is_store_away(), "{error:?}");
                        refused += 1;
                    }
                }
            }
            unreachable!("numbers do not end")
        })
    });
    let writers: Vec<_> = writers.collect();
    while store.names("blobs").await.len() < 8 {
        tokio::task::yield_now().await;
    }
    for _ in 0..2 {
        server.stop();
        tokio::time::sleep(Duration::from_millis(700)).await;
        server.start_again();
    }
    // What was stopped in the middle of an answer may be gone from the server's memory with it: what
    // counts is what was said before and after.
    let cold = store.reopened().await;
    let mut count = 0;
    for said in join_all(writers).await {
        for (sealed, blob, text) in said.unwrap() {
            count += 1;
            let opened = cold.open(&sealed, &place("email")).await.unwrap();
            assert_eq!(opened.clear().unwrap().as_slice(), text.as_bytes());
            assert_eq!(cold.blob_bytes(product, &blob, u64::MAX).await.unwrap(), text);
        }
    }
    assert!(count > 80, "{count}");
}

#[tokio::test]
async fn a_few_failures_in_between_are_not_noticed() {
    let server = Arc::new(S3Server::start());
    let (store, product) = Store::with_product_on(server.clone()).await;
    for method in ["PUT", "POST", "GET", "DELETE"] {
        server.fail(2, method);
        let bytes = noise(9_000_000);
        let blob = store.vault.put_blob(product, body(&bytes, 70_000), u64::MAX).await.unwrap();
        assert_eq!(store.vault.blob_bytes(product, &blob, u64::MAX).await.unwrap(), bytes);
        store.vault.create_key(&format!("user-{}", method.to_lowercase())).await.unwrap();
        store.vault.delete_blob(product, &blob).await.unwrap();
    }
    server.fail(0, "GET");
    assert_eq!(store.unfinished().await, 0);
}

#[tokio::test]
async fn an_upload_that_fails_in_its_middle_leaves_nothing() {
    let server = Arc::new(S3Server::start());
    let (store, product) = Store::with_product_on(server.clone()).await;
    let bytes = noise(30_000_000);
    // More often than it is tried again, once the first parts are there.
    let middle = {
        let server = server.clone();
        body(&bytes, 1_000_000).enumerate().map(move |(number, chunk)| {
            if number == 20 {
                server.fail_parts(1_000);
            }
            chunk
        })
    };
    let refused = store.vault.put_blob(product, middle, u64::MAX).await;
    assert!(matches!(refused, Err(PutError::Vault(Error::Store { .. }))), "{refused:?}");
    for _ in 0..10_000 {
        if store.unfinished().await == 0 {
            break;
        }
        tokio::task::yield_now().await;
    }
    assert_eq!(store.unfinished().await, 0);
    assert!(store.names("blobs").await.is_empty());
    server.fail_parts(0);
    store.vault.put_blob(product, body(&bytes, 1_000_000), u64::MAX).await.unwrap();
}

#[tokio::test]
async fn an_answer_that_is_cut_off_is_never_taken_for_the_whole() {
    let server = Arc::new(S3Server::start());
    let (store, product) = Store::with_product_on(server.clone()).await;
    store.vault.create_key(KEY).await.unwrap();
    let sealed = store.vault.seal(KEY, &place("email"), b"ada").await.unwrap();
    let bytes = noise(6_000_000);
    let blob = store.vault.put_blob(product, body(&bytes, 70_000), u64::MAX).await.unwrap();
    let cold = store.reopened().await;
    // The client reads on where it was cut: once and twice is not noticed.
    server.cut(2);
    assert_eq!(cold.blob_bytes(product, &blob, u64::MAX).await.unwrap(), bytes);
    // Always cut, it is a failure of the store: neither a damaged key nor a damaged blob.
    server.cut(1_000);
    let outcome = cold.open(&sealed, &place("email")).await;
    assert!(outcome.as_ref().is_err_and(Error::is_store_away), "{outcome:?}");
    let outcome = store.vault.blob_bytes(product, &blob, u64::MAX).await;
    assert!(outcome.as_ref().is_err_and(Error::is_store_away), "{outcome:?}");
    server.cut(0);
    assert!(cold.open(&sealed, &place("email")).await.unwrap().clear().is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_store_and_a_slow_reader_only_take_longer() {
    let server = Arc::new(S3Server::start());
    let (store, product) = Store::with_product_on(server.clone()).await;
    server.slow(Duration::from_millis(150));
    let bytes = noise(10_000_000);
    let puts = (0..3).map(|_| store.vault.put_blob(product, body(&bytes, 70_000), u64::MAX));
    let blob = join_all(puts).await.remove(0).unwrap();
    let reads = (0..3).map(|_| store.vault.blob_bytes(product, &blob, u64::MAX));
    for read in join_all(reads).await {
        assert_eq!(read.unwrap(), bytes);
    }
    store.vault.create_key(KEY).await.unwrap();
}

#[tokio::test]
async fn an_endless_upload_is_never_held_in_memory() {
    let server = Arc::new(S3Server::start());
    let (store, product) = Store::with_product_on(server.clone()).await;
    // More than the parts that may wait: what was sent must have been taken from us.
    let chunk = Bytes::from(noise(1_000_000));
    let (sent, mut pulled) = tokio::sync::mpsc::unbounded_channel();
    let endless = stream::repeat_with(move || {
        let _ = sent.send(());
        Ok::<_, std::io::Error>(chunk.clone())
    });
    server.slow(Duration::from_secs(3600));
    let vault = store.vault.clone();
    let putting = tokio::spawn(async move { vault.put_blob(product, endless, u64::MAX).await });
    let mut count = 0;
    // Nothing is answered, so before long nothing more is pulled: the put stands still.
    while tokio::time::timeout(Duration::from_secs(2), pulled.recv()).await.is_ok() {
        count += 1;
        assert!(count < 40, "{count} MB were taken in while the store answered nothing");
    }
    putting.abort();
    let outcome = putting.await;
    assert!(outcome.unwrap_err().is_cancelled());
}
