//! Data keys: created once, durable, and shredded for good.

use vault::{Error, MasterKey, Opened, Sealed, Vault};

use crate::support::{ONE_IN, Store, place};

const KEY: &str = "user-0193";
const FILE: &str = "keys/user-0193.json";
const MARK: &str = "keys/user-0193.shredded";
const CHECK: &str = "keys/master.json";

async fn is_there(store: &Store, name: &str) -> bool {
    store.names("keys").await.contains(&name.to_owned())
}

async fn sealed(vault: &Vault, text: &str) -> Sealed {
    vault.seal(KEY, &place("email"), text.as_bytes()).await.unwrap()
}

#[tokio::test]
async fn a_key_opens_what_it_sealed_after_a_restart() {
    let store = Store::new().await;
    store.vault.create_key(KEY).await.unwrap();
    let sealed = sealed(&store.vault, "ada@example.org").await;

    let vault = store.reopened().await;
    assert!(vault.open_cached(&sealed, &place("email")).is_none());
    let opened = vault.open(&sealed, &place("email")).await.unwrap();
    assert_eq!(**opened.clone().clear().unwrap(), *b"ada@example.org");
    assert_eq!(vault.open_cached(&sealed, &place("email")).unwrap().unwrap(), opened);
}

#[tokio::test]
async fn creating_a_key_again_changes_nothing() {
    let store = Store::new().await;
    store.vault.create_key(KEY).await.unwrap();
    let before = store.bytes(FILE).await;
    store.vault.create_key(KEY).await.unwrap();
    store.reopened().await.create_key(KEY).await.unwrap();
    assert_eq!(store.bytes(FILE).await, before);
    assert_eq!(store.unfinished().await, 0);
}

#[tokio::test]
async fn a_key_in_memory_is_used_without_the_disk() {
    let store = Store::new().await;
    store.vault.create_key(KEY).await.unwrap();
    // With its files gone, only memory is left to answer.
    for name in store.names("keys").await {
        store.remove(&name).await;
    }
    store.vault.create_key(KEY).await.unwrap();
    let sealed = sealed(&store.vault, "ada").await;
    assert!(store.vault.open_cached(&sealed, &place("email")).unwrap().is_ok());
    store.vault.open(&sealed, &place("email")).await.unwrap();
    store.vault.derive(KEY, "any").await.unwrap();
}

#[tokio::test]
async fn after_warming_up_no_key_is_waited_for() {
    let store = Store::new().await;
    let mut all = Vec::new();
    for number in 0..40 {
        let key = format!("user-{number}");
        store.vault.create_key(&key).await.unwrap();
        all.push(store.vault.seal(&key, &place("email"), b"ada").await.unwrap());
    }
    store.vault.shred_key("user-7").await.unwrap();
    let vault = store.reopened().await;
    assert!(vault.open_cached(&all[0], &place("email")).is_none());
    vault.warm_up().await.unwrap();
    for (number, sealed) in all.iter().enumerate().filter(|(number, _)| *number != 7) {
        let opened = vault.open_cached(sealed, &place("email"));
        assert!(opened.is_some_and(|opened| opened.unwrap().clear().is_some()), "{number}");
    }
    assert_eq!(vault.open(&all[7], &place("email")).await.unwrap(), Opened::Shredded);
}

#[tokio::test]
async fn a_damaged_key_is_not_created_again() {
    let store = Store::new().await;
    store.vault.create_key(KEY).await.unwrap();
    store.flip_a_bit(FILE).await;
    let refused = store.reopened().await.create_key(KEY).await;
    assert!(matches!(refused, Err(Error::KeyCorrupt { id }) if id == KEY));
}

#[tokio::test(flavor = "multi_thread")]
async fn many_who_create_a_key_at_once_get_one_key() {
    let store = Store::new().await;
    // Half of them through a vault of another process, as it were: nothing is shared but the files.
    let other = store.reopened().await;
    let tasks: Vec<_> = (0..32)
        .map(|number| {
            let vault = if number % 2 == 0 { store.vault.clone() } else { other.clone() };
            tokio::spawn(async move {
                vault.create_key(KEY).await.unwrap();
                sealed(&vault, "the same").await
            })
        })
        .collect();
    let third = store.reopened().await;
    for task in tasks {
        let opened = third.open(&task.await.unwrap(), &place("email")).await.unwrap();
        assert_eq!(**opened.clear().unwrap(), *b"the same");
    }
    assert_eq!(store.unfinished().await, 0);
}

#[tokio::test]
async fn what_a_shredded_key_sealed_is_shredded() {
    let store = Store::new().await;
    store.vault.create_key(KEY).await.unwrap();
    let sealed = sealed(&store.vault, "ada@example.org").await;
    store.vault.shred_key(KEY).await.unwrap();

    assert!(!is_there(&store, FILE).await);
    for vault in [store.vault.clone(), store.reopened().await] {
        assert_eq!(vault.open(&sealed, &place("email")).await.unwrap(), Opened::Shredded);
        let cached = vault.open_cached(&sealed, &place("email")).unwrap().unwrap();
        assert_eq!(cached, Opened::Shredded);
        assert!(!vault.key_exists(KEY).await.unwrap());
        let refused = vault.seal(KEY, &place("email"), b"more").await;
        assert!(matches!(refused, Err(Error::KeyMissing { id }) if id == KEY));
    }
}

#[tokio::test]
async fn a_shredded_key_never_comes_back() {
    let store = Store::new().await;
    store.vault.create_key(KEY).await.unwrap();
    store.vault.shred_key(KEY).await.unwrap();
    for vault in [store.vault.clone(), store.reopened().await] {
        let refused = vault.create_key(KEY).await;
        assert!(matches!(refused, Err(Error::KeyShredded { id }) if id == KEY));
    }
    assert!(!is_there(&store, FILE).await);
}

#[tokio::test]
async fn shredding_twice_or_what_never_was_is_no_error() {
    let store = Store::new().await;
    store.vault.shred_key(KEY).await.unwrap();
    store.vault.shred_key(KEY).await.unwrap();
}

#[tokio::test]
async fn a_shredding_that_was_cut_off_is_finished_by_the_next() {
    let store = Store::new().await;
    store.vault.create_key(KEY).await.unwrap();
    let sealed = sealed(&store.vault, "ada").await;
    // As a crash between the mark and the removal leaves it.
    store.overwrite(MARK, b"{\"v\":1}").await;

    let vault = store.reopened().await;
    assert!(matches!(vault.create_key(KEY).await, Err(Error::KeyShredded { .. })));
    vault.shred_key(KEY).await.unwrap();
    assert_eq!(vault.open(&sealed, &place("email")).await.unwrap(), Opened::Shredded);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_reader_revives_a_key_that_is_being_shredded() {
    for _ in 0..50 {
        let store = Store::new().await;
        store.vault.create_key(KEY).await.unwrap();
        let sealed = sealed(&store.vault, "ada").await;
        let vault = store.reopened().await;
        let readers: Vec<_> = (0..4)
            .map(|_| {
                let (vault, sealed) = (vault.clone(), sealed.clone());
                tokio::spawn(async move { vault.open(&sealed, &place("email")).await.unwrap() })
            })
            .collect();
        vault.shred_key(KEY).await.unwrap();
        assert_eq!(vault.open(&sealed, &place("email")).await.unwrap(), Opened::Shredded);
        for reader in readers {
            reader.await.unwrap();
        }
        assert_eq!(vault.open(&sealed, &place("email")).await.unwrap(), Opened::Shredded);
    }
}

#[tokio::test]
async fn a_key_that_another_node_shredded_is_forgotten_on_demand() {
    let store = Store::new().await;
    store.vault.create_key(KEY).await.unwrap();
    let sealed = sealed(&store.vault, "ada").await;
    store.reopened().await.shred_key(KEY).await.unwrap();

    store.vault.forget_key(KEY);
    assert_eq!(store.vault.open(&sealed, &place("email")).await.unwrap(), Opened::Shredded);
}

#[tokio::test]
async fn only_absence_is_shredding() {
    let store = Store::new().await;
    store.vault.create_key(KEY).await.unwrap();
    let sealed = sealed(&store.vault, "ada").await;
    let stored = store.bytes(FILE).await;

    // Cut at every length, and each bit of it flipped: never shredded, never clear, always an error.
    for length in (0..stored.len()).step_by(ONE_IN) {
        store.overwrite(FILE, &stored[..length]).await;
        let outcome = store.reopened().await.open(&sealed, &place("email")).await;
        assert!(matches!(outcome, Err(Error::KeyCorrupt { .. })), "cut at {length}: {outcome:?}");
    }
    for bit in (0..stored.len() * 8).step_by(ONE_IN) {
        let mut changed = stored.clone();
        changed[bit / 8] ^= 1 << (bit % 8);
        store.overwrite(FILE, &changed).await;
        let vault = store.reopened().await;
        match vault.open(&sealed, &place("email")).await {
            Err(Error::KeyCorrupt { id } | Error::KeyNewer { id, .. }) => assert_eq!(id, KEY),
            other => panic!("bit {bit} flipped gave {other:?}"),
        }
    }
}

#[tokio::test]
async fn a_key_file_under_another_id_does_not_unwrap() {
    let store = Store::new().await;
    store.vault.create_key(KEY).await.unwrap();
    store.overwrite("keys/user-0194.json", &store.bytes(FILE).await).await;
    let outcome = store.vault.key_exists("user-0194").await;
    assert!(matches!(outcome, Err(Error::KeyCorrupt { id }) if id == "user-0194"));
}

#[tokio::test]
async fn another_master_key_is_refused_when_opening() {
    let store = Store::new().await;
    store.vault.create_key(KEY).await.unwrap();
    let wrong = || MasterKey::generate().unwrap();

    let refused = store.opened_with(wrong()).await;
    assert!(matches!(refused, Err(Error::WrongMasterKey)));
    // Also where the check value is lost; with the right key it is made again.
    store.remove(CHECK).await;
    let refused = store.opened_with(wrong()).await;
    assert!(matches!(refused, Err(Error::WrongMasterKey)));
    assert!(!is_there(&store, CHECK).await);
    store.reopened().await;
    assert!(is_there(&store, CHECK).await);
}

#[tokio::test]
async fn a_damaged_check_value_is_not_taken_for_a_good_one() {
    let store = Store::new().await;
    store.flip_a_bit(CHECK).await;
    let refused = store.opened_with(store.master.clone()).await;
    assert!(matches!(refused, Err(Error::WrongMasterKey)));
}

#[tokio::test]
async fn ids_that_could_leave_the_folder_are_refused() {
    let store = Store::new().await;
    let long = "a".repeat(129);
    for id in ["", "../master", "a/b", "a.b", "User-1", "-a", "1a", "a b", "master", "ä", &long] {
        let refused = store.vault.create_key(id).await;
        assert!(matches!(refused, Err(Error::InvalidKeyId(_))), "{id:?}: {refused:?}");
        assert!(store.vault.shred_key(id).await.is_err());
        assert!(store.vault.derive(id, "label").await.is_err());
    }
    for id in ["instance", "day-2026-11-23", "organization-0193"] {
        store.vault.create_key(id).await.unwrap();
    }
}

#[tokio::test]
async fn subkeys_differ_by_label_and_by_key_and_are_the_same_for_ever() {
    let store = Store::new().await;
    store.vault.create_key("instance").await.unwrap();
    store.vault.create_key(KEY).await.unwrap();
    let subkey = store.vault.derive("instance", "tokens").await.unwrap();
    assert_eq!(store.reopened().await.derive("instance", "tokens").await.unwrap(), subkey);
    assert_ne!(store.vault.derive("instance", "claims").await.unwrap(), subkey);
    assert_ne!(store.vault.derive(KEY, "tokens").await.unwrap(), subkey);
    let missing = store.vault.derive("user-0195", "tokens").await;
    assert!(matches!(missing, Err(Error::KeyMissing { .. })));
}
