//! Sealed values: they open with their key, at their place, and in no other way.

use proptest::prelude::*;
use uuid::Uuid;
use vault::{Error, Opened, Place, Sealed, joint_key, keys_of};

use crate::support::{Store, body, place};

const KEY: &str = "user-0193";

async fn store() -> Store {
    let store = Store::new().await;
    store.vault.create_key(KEY).await.unwrap();
    store
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn what_is_sealed_opens_at_its_place(
        plaintext in proptest::collection::vec(any::<u8>(), 0..4096),
        organization in any::<u128>(),
        stream in ".{0,40}",
        event_type in ".{0,40}",
        field in ".{0,40}",
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let store = store().await;
            let organization = Uuid::from_u128(organization);
            let place = Place { organization, stream: &stream, event_type: &event_type, field: &field };
            let sealed = store.vault.seal(KEY, &place, &plaintext).await.unwrap();
            let text = serde_json::to_string(&sealed).unwrap();
            let read: Sealed = serde_json::from_str(&text).unwrap();
            let opened = store.vault.open(&read, &place).await.unwrap();
            assert_eq!(opened.clear().unwrap().as_slice(), plaintext);
        });
    }

    #[test]
    fn no_text_makes_the_reader_stumble(text in ".{0,80}", tail in "[A-Za-z0-9_=.-]{0,80}") {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let store = store().await;
            for text in [text, format!("s1.{KEY}.{tail}")] {
                if let Ok(sealed) = Sealed::parse(text) {
                    let opened = store.vault.open(&sealed, &place("email")).await;
                    assert!(!matches!(opened, Ok(Opened::Clear(_))));
                }
            }
        });
    }
}

#[tokio::test]
async fn a_sealed_value_does_not_open_at_another_place() {
    let store = store().await;
    let right = place("email");
    let sealed = store.vault.seal(KEY, &right, b"ada").await.unwrap();
    let wrong = [
        Place { organization: Uuid::from_u128(8), ..right },
        Place { stream: "user-0194", ..right },
        Place { event_type: "user.created.v2", ..right },
        Place { field: "name", ..right },
        // The same letters, divided elsewhere.
        Place { stream: "user-0193u", event_type: "ser.created.v1", ..right },
        Place { event_type: "user.created.v1email", field: "", ..right },
    ];
    for place in wrong {
        let refused = store.vault.open(&sealed, &place).await;
        assert!(matches!(refused, Err(Error::SealRefused { .. })), "{place:?}: {refused:?}");
        assert!(store.vault.open_cached(&sealed, &place).unwrap().is_err());
    }
    assert!(store.vault.open(&sealed, &right).await.is_ok());
}

#[tokio::test]
async fn a_sealed_value_does_not_open_with_another_key() {
    let store = store().await;
    store.vault.create_key("user-0194").await.unwrap();
    let sealed = store.vault.seal(KEY, &place("email"), b"ada").await.unwrap();
    let moved = Sealed::parse(sealed.as_str().replace("user-0193", "user-0194")).unwrap();
    let refused = store.vault.open(&moved, &place("email")).await;
    assert!(matches!(refused, Err(Error::SealRefused { key_id }) if key_id == "user-0194"));
}

#[tokio::test]
async fn what_two_keys_seal_together_goes_with_either_of_them() {
    let product = Uuid::nil();
    let other = format!("product-{product}");
    for (shredded, left) in [(KEY, other.as_str()), (other.as_str(), KEY)] {
        let store = store().await;
        let both = joint_key(&other, KEY);
        let missing = store.vault.seal(&both, &place("text"), b"ada").await;
        assert!(
            matches!(missing, Err(Error::KeyMissing { id }) if id == both),
            "one is no key yet"
        );
        store.vault.create_key(&other).await.unwrap();
        let sealed = store.vault.seal(&both, &place("text"), b"ada").await.unwrap();
        assert_eq!(sealed.key_id(), both);
        assert_eq!(keys_of(&both).collect::<Vec<_>>(), [other.as_str(), KEY]);
        let sealed = Sealed::parse(sealed.into_string()).unwrap();
        let long = vec![7; 100_000];
        let blob =
            store.vault.put_sealed_blob(product, &both, &place("text"), &long).await.unwrap();
        let opens = async |vault: &vault::Vault| {
            let text = vault.open(&sealed, &place("text")).await.unwrap();
            assert_eq!(text.clone(), vault.open_cached(&sealed, &place("text")).unwrap().unwrap());
            let blob =
                vault.get_sealed_blob(product, &both, &blob, &place("text"), 1_000_000).await;
            (text, blob.unwrap())
        };
        let text = Opened::Clear(b"ada".to_vec().into());
        assert_eq!(opens(&store.vault).await, (text.clone(), Opened::Clear(long.into())));
        // Neither key opens it alone, nor both the other way round.
        for wrong in [KEY.to_owned(), other.clone(), joint_key(KEY, &other)] {
            let moved = sealed.as_str().replace(&both, &wrong);
            let refused = store.vault.open(&Sealed::parse(moved).unwrap(), &place("text")).await;
            assert!(matches!(refused, Err(Error::SealRefused { .. })), "{wrong}: {refused:?}");
        }
        let reopened = store.reopened().await;
        assert_eq!(reopened.open(&sealed, &place("text")).await.unwrap(), text);

        reopened.shred_key(shredded).await.unwrap();

        assert_eq!(opens(&reopened).await, (Opened::Shredded, Opened::Shredded));
        assert!(reopened.key_exists(left).await.unwrap());
        assert!(!reopened.key_exists(&both).await.unwrap());
        reopened.seal(&both, &place("text"), b"ada").await.unwrap_err();
    }
    for ids in ["s1.a+.AA", "s1.+a.AA", "s1.a+b+c.AA"] {
        assert!(matches!(Sealed::parse(ids), Err(Error::SealMalformed)), "{ids}");
    }
}

#[tokio::test]
async fn every_changed_character_and_every_cut_is_refused() {
    let store = store().await;
    let sealed = store.vault.seal(KEY, &place("email"), b"ada@example.org").await.unwrap();
    let text = sealed.as_str();
    let body = text.rfind('.').unwrap() + 1;
    for at in body..text.len() {
        let other = if text.as_bytes()[at] == b'A' { "B" } else { "A" };
        let mut changed = text.to_owned();
        changed.replace_range(at..=at, other);
        for text in [changed.as_str(), &text[..at]] {
            let Ok(sealed) = Sealed::parse(text) else { continue };
            let refused = store.vault.open(&sealed, &place("email")).await;
            assert!(
                matches!(refused, Err(Error::SealRefused { .. } | Error::SealMalformed)),
                "{text}: {refused:?}"
            );
        }
    }
}

#[tokio::test]
async fn the_same_text_is_never_sealed_the_same_way_twice() {
    let store = store().await;
    let first = store.vault.seal(KEY, &place("email"), b"ada").await.unwrap();
    let second = store.vault.seal(KEY, &place("email"), b"ada").await.unwrap();
    assert_ne!(first, second);
}

#[test]
fn text_that_is_not_sealed_is_refused() {
    for text in ["", "s1", "s1.", "s1.user-1", "s1.user-1.", "s2.user-1.AA", "s1..AA", "s1.a/b.AA"]
    {
        assert!(matches!(Sealed::parse(text), Err(Error::SealMalformed)), "{text:?}");
        assert!(serde_json::from_value::<Sealed>(text.into()).is_err());
    }
    assert_eq!(Sealed::parse("s1.user-1.AA").unwrap().key_id(), "user-1");
}

#[tokio::test]
async fn no_secret_is_printed_or_stored_in_the_clear() {
    const CANARY: &[u8] = b"canary-5f1c-secret";
    let store = store().await;
    let sealed = store.vault.seal(KEY, &place("email"), CANARY).await.unwrap();
    let opened = store.vault.open(&sealed, &place("email")).await.unwrap();
    let subkey = store.vault.derive(KEY, "any").await.unwrap();
    store.vault.create_key("product-00000000-0000-0000-0000-000000000000").await.unwrap();
    store.vault.put_sealed_blob(Uuid::nil(), KEY, &place("output"), CANARY).await.unwrap();

    let printed = format!("{:?} {:?} {opened:?} {sealed:?}", store.vault, store.master);
    assert!(!printed.contains("canary"), "{printed}");
    assert!(!printed.contains(&hex::encode(*subkey)), "{printed}");
    let (body, limit) = (body(CANARY, 3), CANARY.len() as u64);
    store.vault.put_blob(Uuid::nil(), body, limit).await.unwrap();
    store.vault.put_artifact(KEY, "a", CANARY).await.unwrap();
    let names = store.names("").await;
    assert!(names.len() > 5, "{names:?}");
    for name in names {
        let stored = store.bytes(&name).await;
        let found = stored.windows(CANARY.len()).any(|window| window == CANARY);
        assert!(!found, "{name} holds the secret");
    }
}
