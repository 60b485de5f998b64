//! The files themselves: who may read them, and what a crash leaves.

use std::{fs, os::unix::fs::PermissionsExt};

use tempfile::TempDir;
use vault::{Error, MasterKey, Vault};

use crate::support::{Store, body, collect, place};

#[tokio::test]
async fn files_are_for_their_owner_alone() {
    let parent = TempDir::new().unwrap();
    let root = parent.path().join("data/vault");
    let vault = Vault::local(&root, MasterKey::generate().unwrap()).await.unwrap();
    let product = uuid::Uuid::now_v7();
    vault.create_key(&format!("product-{product}")).await.unwrap();
    vault.create_key("user-1").await.unwrap();
    vault.create_key("user-2").await.unwrap();
    vault.shred_key("user-1").await.unwrap();
    vault.put_blob(product, body(b"text", 4), 4).await.unwrap();
    vault.put_artifact("user-2", "a/b", b"artifact").await.unwrap();

    let mut paths = Vec::new();
    collect(&parent.path().join("data"), &mut paths);
    for path in paths {
        let wanted = if path.is_dir() { 0o700 } else { 0o600 };
        let mode = fs::metadata(&path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, wanted, "{}: {mode:o}", path.display());
    }
}

#[tokio::test]
async fn what_a_crash_left_is_cleared_when_the_store_is_opened() {
    let Store { vault, master, folder } = Store::new().await;
    drop(vault);
    fs::write(folder.path().join("unfinished/0193"), "half a blob").unwrap();
    Vault::local(folder.path(), master).await.unwrap();
    assert!(!folder.path().join("unfinished/0193").exists());
}

#[tokio::test]
async fn who_opens_the_store_beside_a_writer_clears_nothing_of_it() {
    let store = Store::new().await;
    fs::write(store.path("unfinished/0193"), "half a blob, still being written").unwrap();
    let other = store.reopened().await;
    assert!(store.path("unfinished/0193").exists());
    drop(other);
}

#[tokio::test]
async fn a_key_that_cannot_be_read_is_not_a_shredded_one() {
    let store = Store::new().await;
    store.vault.create_key("user-0193").await.unwrap();
    let sealed = store.vault.seal("user-0193", &place("email"), b"ada").await.unwrap();
    // A folder in its place.
    let file = store.path("keys/user-0193.json");
    fs::remove_file(&file).unwrap();
    fs::create_dir(&file).unwrap();
    let outcome = store.reopened().await.open(&sealed, &place("email")).await;
    assert!(matches!(outcome, Err(Error::Io { .. })), "{outcome:?}");
}
