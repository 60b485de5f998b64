//! Blobs: whole or not at all, named by content, and checked when read.

use std::io;

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use proptest::prelude::*;
use uuid::Uuid;
use vault::{BlobRef, Error, Opened, PutError, Vault};

use crate::support::{ONE_IN, Store, body, noise, place, product_key};

const LIMIT: u64 = 1 << 30;

async fn put(vault: &Vault, product: Uuid, bytes: &[u8]) -> BlobRef {
    vault.put_blob(product, body(bytes, 64 * 1024), LIMIT).await.unwrap()
}

async fn read(
    vault: &Vault,
    product: Uuid,
    blob: &BlobRef,
    range: Option<std::ops::Range<u64>>,
) -> Result<Vec<u8>, Error> {
    let chunks: Vec<Bytes> = vault.get_blob(product, blob, range).await?.try_collect().await?;
    Ok(chunks.concat())
}

/// Nothing of an upload that failed stays, though it may take a moment to go.
async fn nothing_is_left(store: &Store) {
    assert!(store.names("blobs").await.is_empty());
    for _ in 0..10_000 {
        if store.unfinished().await == 0 {
            return;
        }
        tokio::task::yield_now().await;
    }
    panic!("{} unfinished things are left", store.unfinished().await);
}

/// What is read before the stream ends, and how it ends.
async fn read_to_the_end(
    vault: &Vault,
    product: Uuid,
    blob: &BlobRef,
    range: Option<std::ops::Range<u64>>,
) -> (Vec<u8>, Result<(), Error>) {
    let mut stream = vault.get_blob(product, blob, range).await.unwrap();
    let mut read = Vec::new();
    loop {
        match stream.try_next().await {
            Ok(Some(chunk)) => read.extend_from_slice(&chunk),
            Ok(None) => return (read, Ok(())),
            Err(error) => return (read, Err(error)),
        }
    }
}

#[tokio::test]
async fn what_a_body_would_be_is_said_and_not_stored() {
    let (store, product) = Store::with_product().await;
    let bytes = noise(700_000);

    let named = store.vault.name_blob(product, body(&bytes, 64 * 1024)).await.unwrap();

    nothing_is_left(&store).await;
    assert_eq!(named, put(&store.vault, product, &bytes).await);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases((32 / ONE_IN as u32).max(4)))]

    #[test]
    fn a_blob_reads_as_it_was_put_in_whole_and_in_part(
        length in prop_oneof![0usize..100, 500_000usize..1_200_000],
        chunk in 1usize..200_000,
        cut in (0.0f64..1.0, 0.0f64..1.0),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let (store, product) = Store::with_product().await;
            let bytes = noise(length);
            let chunk = if length > 100 { chunk.max(1000) } else { chunk };
            let blob = store.vault.put_blob(product, body(&bytes, chunk), LIMIT).await.unwrap();
            assert_eq!(blob.size, length as u64);
            assert_eq!(read(&store.vault, product, &blob, None).await.unwrap(), bytes);
            let at = |part: f64| (part * length as f64) as u64;
            let (start, end) = (at(cut.0.min(cut.1)), at(cut.0.max(cut.1)));
            let part = read(&store.vault, product, &blob, Some(start..end)).await.unwrap();
            assert_eq!(part, bytes[start as usize..end as usize]);
        });
    }
}

#[tokio::test]
async fn the_same_content_twice_is_one_blob() {
    let (store, product) = Store::with_product().await;
    let bytes = noise(700_000);
    let first = put(&store.vault, product, &bytes).await;
    let second = store.vault.put_blob(product, body(&bytes, 999), LIMIT).await.unwrap();
    assert_eq!(first, second);
    let name = format!("blobs/{product}/{}/{}", &first.name[..2], first.name);
    assert_eq!(store.names("blobs").await, [name]);
}

#[tokio::test]
async fn the_same_content_has_another_name_in_another_product() {
    let (store, product) = Store::with_product().await;
    let other = Uuid::now_v7();
    store.vault.create_key(&product_key(other)).await.unwrap();
    let first = put(&store.vault, product, b"the same").await;
    let second = put(&store.vault, other, b"the same").await;
    assert_ne!(first.name, second.name);
    let stranger = store.vault.blob_bytes(other, &first, LIMIT).await;
    assert!(matches!(stranger, Err(Error::BlobMissing { .. })));
}

#[tokio::test(flavor = "multi_thread")]
async fn many_who_put_the_same_content_at_once_make_one_blob() {
    let (store, product) = Store::with_product().await;
    let bytes = noise(300_000);
    let puts: Vec<_> = (0..16)
        .map(|number| {
            let (vault, bytes) = (store.vault.clone(), bytes.clone());
            tokio::spawn(async move {
                vault.put_blob(product, body(&bytes, 1000 + number * 7919), LIMIT).await.unwrap()
            })
        })
        .collect();
    for blob in futures::future::join_all(puts).await {
        let blob = blob.unwrap();
        assert_eq!(store.vault.blob_bytes(product, &blob, LIMIT).await.unwrap(), bytes);
    }
    assert_eq!(store.names("blobs").await.len(), 1);
    assert_eq!(store.unfinished().await, 0);
}

#[tokio::test]
async fn a_body_over_the_limit_leaves_nothing() {
    let (store, product) = Store::with_product().await;
    let bytes = noise(1_500_000);
    let refused = store.vault.put_blob(product, body(&bytes, 4096), 1_499_999).await;
    assert!(matches!(refused, Err(PutError::TooLarge { limit: 1_499_999 })));
    nothing_is_left(&store).await;
    store.vault.put_blob(product, body(&bytes, 4096), 1_500_000).await.unwrap();
}

#[tokio::test]
async fn a_body_that_breaks_off_leaves_nothing() {
    let (store, product) = Store::with_product().await;
    let broken = body(&noise(1_500_000), 4096)
        .map_err(|never| match never {})
        .chain(stream::iter([Err(io::Error::from(io::ErrorKind::ConnectionReset))]));
    let refused = store.vault.put_blob(product, broken, LIMIT).await;
    let Err(PutError::Body(error)) = refused else { panic!("{refused:?}") };
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    nothing_is_left(&store).await;
}

#[tokio::test]
async fn a_put_whose_caller_goes_away_leaves_nothing() {
    let (store, product) = Store::with_product().await;
    let (started, mut waiting) = tokio::sync::mpsc::unbounded_channel();
    let endless = stream::repeat_with(move || {
        let _ = started.send(());
        Ok::<_, io::Error>(Bytes::from(vec![7; 64 * 1024]))
    });
    let vault = store.vault.clone();
    let putting = tokio::spawn(async move { vault.put_blob(product, endless, u64::MAX).await });
    for _ in 0..400 {
        waiting.recv().await.unwrap();
    }
    assert_eq!(store.unfinished().await, 1);
    putting.abort();
    assert!(putting.await.unwrap_err().is_cancelled());
    // A write that was under way ends on its own, and takes what it wrote with it.
    while store.unfinished().await > 0 {
        tokio::task::yield_now().await;
    }
    assert!(store.names("blobs").await.is_empty());
}

#[tokio::test]
async fn a_product_without_a_key_takes_no_blob() {
    let store = Store::new().await;
    let refused = store.vault.put_blob(Uuid::now_v7(), body(b"x", 1), LIMIT).await;
    assert!(matches!(refused, Err(PutError::Vault(Error::KeyMissing { .. }))));
}

#[tokio::test]
async fn a_changed_blob_is_corrupt() {
    let (store, product) = Store::with_product().await;
    let blob = put(&store.vault, product, &noise(300_000)).await;
    let stored = store.names("blobs").await.remove(0);
    store.flip_a_bit(&stored).await;

    let whole = store.vault.blob_bytes(product, &blob, LIMIT).await;
    assert!(matches!(whole, Err(Error::Corrupt { name }) if name == blob.name));
    let streamed = read(&store.vault, product, &blob, None).await;
    assert!(matches!(streamed, Err(Error::Corrupt { .. })));
    // Put again, it is whole again.
    put(&store.vault, product, &noise(300_000)).await;
    store.vault.blob_bytes(product, &blob, LIMIT).await.unwrap();
}

#[tokio::test]
async fn a_changed_block_is_never_answered_and_the_others_are() {
    let (store, product) = Store::with_product().await;
    let bytes = noise(1_500_000);
    let blob = put(&store.vault, product, &bytes).await;
    let name = store.names("blobs").await.remove(0);
    // In the sixth block of 128 KiB.
    store.flip_a_bit(&name).await;
    let middle = 5 * 131_072..6 * 131_072;
    for range in [0..middle.start, 10..20, middle.end..1_500_000] {
        let part = read(&store.vault, product, &blob, Some(range.clone())).await.unwrap();
        assert_eq!(part, bytes[range.start as usize..range.end as usize]);
    }
    for range in [None, Some(middle.clone()), Some(middle.start - 1..middle.start + 1)] {
        let start = range.as_ref().map_or(0, |range| range.start) as usize;
        let (read, outcome) = read_to_the_end(&store.vault, product, &blob, range).await;
        assert!(matches!(outcome, Err(Error::Corrupt { .. })), "{outcome:?}");
        assert!(bytes[start..middle.start as usize].starts_with(&read));
    }
}

#[tokio::test]
async fn a_blob_in_the_place_of_another_is_corrupt() {
    let (store, product) = Store::with_product().await;
    let other = Uuid::now_v7();
    store.vault.create_key(&product_key(other)).await.unwrap();
    let path = |product: Uuid, blob: &BlobRef| {
        format!("blobs/{product}/{}/{}", &blob.name[..2], blob.name)
    };
    let one = put(&store.vault, product, b"one").await;
    let two = put(&store.vault, product, b"two").await;
    let foreign = put(&store.vault, other, b"one").await;
    for from in [path(product, &two), path(other, &foreign)] {
        let bytes = store.bytes(&from).await;
        store.overwrite(&path(product, &one), &bytes).await;
        for range in [None, Some(0..1)] {
            let outcome = read(&store.vault, product, &one, range).await;
            assert!(matches!(outcome, Err(Error::Corrupt { .. })), "{outcome:?}");
        }
    }
}

#[tokio::test]
async fn a_blob_is_not_open_where_it_lies() {
    let (store, product) = Store::with_product().await;
    put(&store.vault, product, &b"the text of a file ".repeat(10_000)).await;
    let name = store.names("blobs").await.remove(0);
    let stored = store.bytes(&name).await;
    assert!(!stored.windows(8).any(|window| window == b"the text"));
}

#[tokio::test]
async fn a_blob_from_before_they_were_sealed_is_read_and_checked() {
    let (store, product) = Store::with_product().await;
    let bytes = noise(1_300_000);
    let blob = put(&store.vault, product, &bytes).await;
    let name = store.names("blobs").await.remove(0);
    store.overwrite(&name, &bytes).await;
    for range in [0..1_300_000, 0..0, 5..6, 600_000..1_299_999, 1_299_999..1_300_000] {
        let part = read(&store.vault, product, &blob, Some(range.clone())).await.unwrap();
        assert_eq!(part, bytes[range.start as usize..range.end as usize]);
    }
    // Changed at its very end: also who wanted only the beginning does not get all of it.
    let mut changed = bytes.clone();
    changed[1_299_999] ^= 1;
    store.overwrite(&name, &changed).await;
    for range in [None, Some(0..10), Some(0..1_000_000)] {
        let wanted = range.as_ref().map_or(1_300_000, |range| range.end) as usize;
        let (read, outcome) = read_to_the_end(&store.vault, product, &blob, range).await;
        assert!(matches!(outcome, Err(Error::Corrupt { .. })), "{outcome:?}");
        assert!(read.len() < wanted, "{} of {wanted}", read.len());
    }
    // Put again, it is whole, and sealed.
    put(&store.vault, product, &bytes).await;
    assert_eq!(read(&store.vault, product, &blob, None).await.unwrap(), bytes);
    assert!(store.bytes(&name).await.len() > bytes.len());
}

#[tokio::test]
async fn who_reads_a_blob_while_it_is_put_again_reads_it_to_the_end() {
    let (store, product) = Store::with_product().await;
    let bytes = noise(9_000_000);
    let blob = put(&store.vault, product, &bytes).await;
    let mut stream = store.vault.get_blob(product, &blob, None).await.unwrap();
    let mut read = stream.try_next().await.unwrap().unwrap().to_vec();
    assert!(read.len() < bytes.len());
    put(&store.vault, product, &bytes).await;
    while let Some(chunk) = stream.try_next().await.unwrap() {
        read.extend_from_slice(&chunk);
    }
    assert_eq!(read, bytes);
}

#[tokio::test]
async fn a_blob_of_another_size_is_corrupt() {
    let (store, product) = Store::with_product().await;
    let blob = put(&store.vault, product, &noise(1000)).await;
    let name = store.names("blobs").await.remove(0);
    let bytes = store.bytes(&name).await;
    for stored in [&bytes[..bytes.len() - 1], &[bytes.as_slice(), b"x"].concat(), b"x", b""] {
        store.overwrite(&name, stored).await;
        for range in [None, Some(0..10), Some(990..1000)] {
            let outcome = read(&store.vault, product, &blob, range).await;
            assert!(matches!(outcome, Err(Error::Corrupt { .. })), "{outcome:?}");
        }
    }
    store.remove(&name).await;
    let missing = read(&store.vault, product, &blob, None).await;
    assert!(matches!(missing, Err(Error::BlobMissing { name }) if name == blob.name));
}

#[tokio::test]
async fn ranges_are_exact_and_never_outside() {
    let (store, product) = Store::with_product().await;
    let bytes = noise(400_000);
    let blob = put(&store.vault, product, &bytes).await;
    for range in [0..0, 0..1, 399_999..400_000, 400_000..400_000, 100_000..399_000, 0..400_000] {
        let part = read(&store.vault, product, &blob, Some(range.clone())).await.unwrap();
        assert_eq!(part, bytes[range.start as usize..range.end as usize]);
    }
    #[expect(clippy::reversed_empty_ranges, reason = "a client may ask for it")]
    for range in [0..400_001, 400_001..400_001, 5..4, 0..u64::MAX] {
        let refused = read(&store.vault, product, &blob, Some(range)).await;
        assert!(matches!(refused, Err(Error::InvalidRange { .. })));
    }
}

#[tokio::test]
async fn a_blob_longer_than_the_caller_takes_is_refused_unread() {
    let (store, product) = Store::with_product().await;
    let blob = put(&store.vault, product, &noise(1000)).await;
    let refused = store.vault.blob_bytes(product, &blob, 999).await;
    assert!(matches!(refused, Err(Error::TooLong { size: 1000, max: 999 })));
}

#[tokio::test]
async fn names_that_are_no_names_are_refused() {
    let (store, product) = Store::with_product().await;
    let traversal = format!("../../{}", "a".repeat(58));
    for name in ["", "abc", &traversal, &"g".repeat(64), &"A".repeat(64), &"a".repeat(65)] {
        let blob = BlobRef { name: name.to_owned(), size: 1 };
        let refused = store.vault.blob_bytes(product, &blob, LIMIT).await;
        assert!(matches!(refused, Err(Error::InvalidName(_))), "{name}");
        assert!(store.vault.delete_blob(product, &blob).await.is_err());
    }
}

#[tokio::test]
async fn a_deleted_blob_is_gone_and_may_come_again() {
    let (store, product) = Store::with_product().await;
    let blob = put(&store.vault, product, b"text").await;
    store.vault.delete_blob(product, &blob).await.unwrap();
    store.vault.delete_blob(product, &blob).await.unwrap();
    assert!(store.names("blobs").await.is_empty());
    assert_eq!(put(&store.vault, product, b"text").await, blob);

    store.vault.delete_blobs(product).await.unwrap();
    store.vault.delete_blobs(product).await.unwrap();
    assert!(store.names("blobs").await.is_empty());
    assert_eq!(put(&store.vault, product, b"text").await, blob);
    assert_eq!(store.vault.blob_bytes(product, &blob, 4).await.unwrap(), "text");
}

#[tokio::test]
async fn a_shredded_product_shows_none_of_its_blobs() {
    let (store, product) = Store::with_product().await;
    let blob = put(&store.vault, product, b"text").await;
    store.vault.shred_key(&product_key(product)).await.unwrap();
    for range in [None, Some(0..2)] {
        let refused = read(&store.vault, product, &blob, range).await;
        assert!(matches!(refused, Err(Error::KeyMissing { .. })));
    }
}

#[tokio::test]
async fn a_sealed_blob_opens_with_its_key_at_its_place() {
    let (store, product) = Store::with_product().await;
    let (vault, key) = (&store.vault, "user-0193");
    vault.create_key(key).await.unwrap();
    let text = noise(100_000);
    let blob = vault.put_sealed_blob(product, key, &place("output"), &text).await.unwrap();
    assert_eq!(blob.size, 100_040);

    let opened = vault.get_sealed_blob(product, key, &blob, &place("output"), LIMIT).await.unwrap();
    assert_eq!(opened.clear().unwrap().as_slice(), text);
    let elsewhere = vault.get_sealed_blob(product, key, &blob, &place("input"), LIMIT).await;
    assert!(matches!(elsewhere, Err(Error::SealRefused { .. })));
    let product_key = product_key(product);
    let other_key =
        vault.get_sealed_blob(product, &product_key, &blob, &place("output"), LIMIT).await;
    assert!(matches!(other_key, Err(Error::SealRefused { .. })));
    let too_long = vault.get_sealed_blob(product, key, &blob, &place("output"), 99).await;
    assert!(matches!(too_long, Err(Error::TooLong { .. })));

    vault.shred_key(key).await.unwrap();
    let opened = vault.get_sealed_blob(product, key, &blob, &place("output"), LIMIT).await.unwrap();
    assert_eq!(opened, Opened::Shredded);
}
