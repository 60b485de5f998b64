//! Artifacts: whole or absent, under safe names.

use bytes::Bytes;
use vault::Error;

use crate::support::Store;

#[tokio::test]
async fn an_artifact_reads_as_it_was_put_and_the_last_one_counts() {
    let store = Store::new().await;
    let name = "embeddings/3f/a_b-c.1.bin";
    assert_eq!(store.vault.get_artifact(name).await.unwrap(), None);
    for text in ["first", "second", ""] {
        store.vault.put_artifact(name, Bytes::from(text)).await.unwrap();
        assert_eq!(store.reopened().await.get_artifact(name).await.unwrap().unwrap(), text);
    }
    assert_eq!(store.files("artifacts"), [store.path("artifacts/embeddings/3f/a_b-c.1.bin")]);
    store.vault.delete_artifact(name).await.unwrap();
    store.vault.delete_artifact(name).await.unwrap();
    assert_eq!(store.vault.get_artifact(name).await.unwrap(), None);
    assert!(store.files("unfinished").is_empty());
}

#[tokio::test]
async fn names_that_could_leave_the_folder_are_refused() {
    let store = Store::new().await;
    let (long, very_long) = ("a".repeat(256), "a/".repeat(300) + "a");
    for name in [
        "", "/a", "a/", "a//b", "..", "../a", "a/../b", ".hidden", "A", "a b", "a\0", &long,
        &very_long,
    ] {
        let refused = store.vault.put_artifact(name, Bytes::new()).await;
        assert!(matches!(refused, Err(Error::InvalidName(_))), "{name:?}");
        assert!(store.vault.get_artifact(name).await.is_err());
        assert!(store.vault.delete_artifact(name).await.is_err());
    }
}
