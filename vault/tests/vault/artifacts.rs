//! Artifacts: whole or absent, under safe names.

use vault::Error;

use crate::support::Store;

const KEY: &str = "product-0193";

async fn store() -> Store {
    let store = Store::new().await;
    store.vault.create_key(KEY).await.unwrap();
    store
}

#[tokio::test]
async fn an_artifact_reads_as_it_was_put_and_the_last_one_counts() {
    let store = store().await;
    let name = "embeddings/3f/a_b-c.1.bin";
    assert_eq!(store.vault.get_artifact(name).await.unwrap(), None);
    for text in ["first", "second", ""] {
        store.vault.put_artifact(KEY, name, text.as_bytes()).await.unwrap();
        assert_eq!(store.reopened().await.get_artifact(name).await.unwrap().unwrap(), text);
    }
    assert_eq!(store.names("artifacts").await, ["artifacts/embeddings/3f/a_b-c.1.bin"]);
    store.vault.delete_artifact(name).await.unwrap();
    store.vault.delete_artifact(name).await.unwrap();
    assert_eq!(store.vault.get_artifact(name).await.unwrap(), None);
    assert_eq!(store.unfinished().await, 0);
}

#[tokio::test]
async fn an_artifact_is_not_open_where_it_lies_and_goes_with_its_key() {
    let store = store().await;
    store.vault.put_artifact(KEY, "a/b", b"the text of a file").await.unwrap();
    let stored = store.bytes("artifacts/a/b").await;
    assert!(!stored.windows(8).any(|window| window == b"the text"));
    store.vault.shred_key(KEY).await.unwrap();
    assert_eq!(store.vault.get_artifact("a/b").await.unwrap(), None);
    let refused = store.vault.put_artifact(KEY, "a/b", b"more").await;
    assert!(matches!(refused, Err(Error::KeyMissing { .. })));
}

#[tokio::test]
async fn a_changed_and_an_exchanged_artifact_are_corrupt() {
    let store = store().await;
    store.vault.put_artifact(KEY, "a/b", b"one").await.unwrap();
    store.vault.put_artifact(KEY, "a/c", b"two").await.unwrap();
    let other = store.bytes("artifacts/a/c").await;
    store.overwrite("artifacts/a/b", &other).await;
    let outcome = store.vault.get_artifact("a/b").await;
    assert!(matches!(outcome, Err(Error::Corrupt { name }) if name == "a/b"));
    for byte in (25..other.len()).step_by(5) {
        let mut changed = other.clone();
        changed[byte] ^= 1;
        store.overwrite("artifacts/a/c", &changed).await;
        // Where the name of the key was changed, it is a key that is not there.
        let outcome = store.vault.get_artifact("a/c").await;
        assert!(matches!(outcome, Err(Error::Corrupt { .. }) | Ok(None)), "{byte}: {outcome:?}");
    }
    store.vault.put_artifact(KEY, "a/c", b"two").await.unwrap();
    assert_eq!(store.vault.get_artifact("a/c").await.unwrap().unwrap(), "two");
}

#[tokio::test]
async fn an_artifact_from_before_they_were_sealed_is_read_as_it_is() {
    let store = store().await;
    store.overwrite("artifacts/a/b", b"prodgy artifact").await;
    assert_eq!(store.vault.get_artifact("a/b").await.unwrap().unwrap(), "prodgy artifact");
}

#[tokio::test]
async fn names_that_could_leave_the_folder_are_refused() {
    let store = store().await;
    let (long, very_long) = ("a".repeat(256), "a/".repeat(300) + "a");
    for name in [
        "", "/a", "a/", "a//b", "..", "../a", "a/../b", ".hidden", "A", "a b", "a\0", &long,
        &very_long,
    ] {
        let refused = store.vault.put_artifact(KEY, name, b"").await;
        assert!(matches!(refused, Err(Error::InvalidName(_))), "{name:?}");
        assert!(store.vault.get_artifact(name).await.is_err());
        assert!(store.vault.delete_artifact(name).await.is_err());
    }
}
