use tempfile::TempDir;

use super::*;

const SAID: &str = "Minutes of one team";

async fn vault(folder: &TempDir) -> Vault {
    let (vault, _) =
        Vault::local_with_key_file(&folder.path().join("vault"), &folder.path().join("master.key"))
            .await
            .unwrap();
    vault.create_key("product-1").await.unwrap();
    vault
}

fn place(stream: &str) -> Place<'_> {
    Place { organization: Uuid::nil(), stream, event_type: "said.v1", field: "description" }
}

fn keeps(vault: &Vault, sealed: &Sealed) -> bool {
    vault.inner.kept.0.read().by_sealed.contains_key(sealed.as_str())
}

#[tokio::test]
async fn what_was_opened_stays_and_is_the_same_text() {
    let folder = TempDir::new().unwrap();
    let vault = vault(&folder).await;
    let sealed = vault.seal("product-1", &place("a"), SAID.as_bytes()).await.unwrap();
    for _ in 0..2 {
        let opened = vault.open_kept(sealed.as_str(), &place("a")).await.unwrap();
        assert_eq!(opened.as_deref(), Some(SAID));
        assert!(keeps(&vault, &sealed));
    }
}

#[tokio::test]
async fn what_is_kept_shows_nowhere_else() {
    let folder = TempDir::new().unwrap();
    let vault = vault(&folder).await;
    let sealed = vault.seal("product-1", &place("a"), SAID.as_bytes()).await.unwrap();
    vault.open_kept(sealed.as_str(), &place("a")).await.unwrap();

    let elsewhere = vault.open_kept(sealed.as_str(), &place("b")).await;

    assert!(matches!(elsewhere, Err(Error::SealRefused { .. })), "{elsewhere:?}");
}

#[tokio::test]
async fn a_text_goes_with_its_key() {
    let folder = TempDir::new().unwrap();
    let vault = vault(&folder).await;
    vault.create_key("product-2").await.unwrap();
    let joint = crate::joint_key("product-1", "product-2");
    let alone = vault.seal("product-2", &place("a"), SAID.as_bytes()).await.unwrap();
    let mut gone = Vec::new();
    for key in ["product-1", &joint] {
        gone.push(vault.seal(key, &place("a"), SAID.as_bytes()).await.unwrap());
    }
    for sealed in gone.iter().chain([&alone]) {
        vault.open_kept(sealed.as_str(), &place("a")).await.unwrap();
    }

    vault.shred_key("product-1").await.unwrap();

    for sealed in &gone {
        assert_eq!(vault.open_kept(sealed.as_str(), &place("a")).await.unwrap(), None);
        assert!(!keeps(&vault, sealed));
    }
    assert!(keeps(&vault, &alone));
}

#[tokio::test]
async fn a_text_goes_with_a_key_that_another_node_has_shredded() {
    let folder = TempDir::new().unwrap();
    let here = vault(&folder).await;
    let sealed = here.seal("product-1", &place("a"), SAID.as_bytes()).await.unwrap();
    here.open_kept(sealed.as_str(), &place("a")).await.unwrap();

    vault(&folder).await.shred_key("product-1").await.unwrap();
    here.forget_key("product-1");

    assert!(!keeps(&here, &sealed));
    assert_eq!(here.open_kept(sealed.as_str(), &place("a")).await.unwrap(), None);
}

#[tokio::test]
async fn no_more_is_kept_than_there_is_room_for() {
    let folder = TempDir::new().unwrap();
    let vault = vault(&folder).await;
    let long = "long ".repeat(10_000);
    let mut newest = None;
    for _ in 0..2 * KEPT_BYTES / long.len() {
        let sealed = vault.seal("product-1", &place("a"), long.as_bytes()).await.unwrap();
        assert_eq!(vault.open_kept(sealed.as_str(), &place("a")).await.unwrap().unwrap(), long);
        assert!(vault.inner.kept.0.read().bytes <= KEPT_BYTES);
        newest = Some(sealed);
    }
    assert!(keeps(&vault, &newest.unwrap()));

    vault.shred_key("product-1").await.unwrap();

    assert_eq!(vault.inner.kept.0.read().bytes, 0);
}
