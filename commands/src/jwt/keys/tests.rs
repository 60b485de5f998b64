//! Where keys are read, how often, and how long they are believed.

use serde_json::json;

use super::super::testing::{Shelf, Signer, key_set};
use super::*;

fn limits() -> KeyLimits {
    KeyLimits::default()
}

fn at(shelf: &Shelf, path: &str) -> KeySet {
    let source = KeySource::Address(shelf.url(path));
    KeySet::new(source, limits(), Download::trusted().unwrap())
}

fn header(id: Option<&str>, algorithm: Algorithm) -> Header {
    Header { algorithm, key_id: id.map(str::to_owned), kind: None }
}

fn named(id: &str) -> Header {
    header(Some(id), Algorithm::ES256)
}

fn ids(document: Value) -> Vec<String> {
    let keys = parse(document.to_string().as_bytes()).unwrap();
    keys.iter().map(|key| key.id.clone().unwrap_or_default()).collect()
}

#[tokio::test]
async fn keys_are_read_once_however_many_ask() {
    let (shelf, signer) = (Shelf::open().await, Signer::ec("one"));
    shelf.put("keys", key_set(&[&signer]));
    shelf.delay(Duration::from_millis(100));
    let keys = at(&shelf, "keys");
    let asking = (0..50).map(|_| {
        let keys = keys.clone();
        tokio::spawn(async move { keys.find(&named("one")).await.is_ok() })
    });
    for found in futures::future::join_all(asking).await {
        assert!(found.unwrap());
    }
    assert_eq!(shelf.asked(), 1);
}

#[tokio::test]
async fn an_unknown_key_makes_them_be_read_again_and_not_over_and_over() {
    let (shelf, now) = (Shelf::open().await, Instant::now());
    let (old, new) = (Signer::ec("old"), Signer::ec("new"));
    shelf.put("keys", key_set(&[&old]));
    let keys = at(&shelf, "keys");
    keys.find_at(&named("old"), now).await.unwrap();
    shelf.put("keys", key_set(&[&old, &new]));

    keys.find_at(&named("new"), now).await.unwrap();
    assert_eq!(shelf.asked(), 2);
    for guess in 0..20 {
        let guess = named(&format!("guess {guess}"));
        assert_eq!(keys.find_at(&guess, now).await.unwrap_err(), TokenError::KeyUnknown);
    }
    assert_eq!(shelf.asked(), 2, "once an hour");

    let later = now + limits().reread_after;
    assert_eq!(keys.find_at(&named("guess"), later).await.unwrap_err(), TokenError::KeyUnknown);
    assert_eq!(shelf.asked(), 3);
}

#[tokio::test]
async fn keys_that_an_issuer_took_back_are_forgotten_when_they_are_read_again() {
    let (shelf, now) = (Shelf::open().await, Instant::now());
    let (old, new) = (Signer::ec("old"), Signer::ec("new"));
    shelf.put("keys", key_set(&[&old]));
    let keys = at(&shelf, "keys");
    keys.find_at(&named("old"), now).await.unwrap();
    shelf.put("keys", key_set(&[&new]));
    let later = now + limits().fresh_for;

    // The first one still gets the old key, and has the new ones be read beside it.
    keys.find_at(&named("old"), later).await.unwrap();
    while shelf.asked() < 2 || keys.0.turn.try_lock().is_err() {
        tokio::task::yield_now().await;
    }
    assert_eq!(keys.find_at(&named("old"), later).await.unwrap_err(), TokenError::KeyUnknown);
    keys.find_at(&named("new"), later).await.unwrap();
}

#[tokio::test]
async fn the_last_good_keys_are_believed_for_a_while_when_the_issuer_is_down() {
    let (shelf, now) = (Shelf::open().await, Instant::now());
    shelf.put("keys", key_set(&[&Signer::ec("one")]));
    let keys = at(&shelf, "keys");
    keys.find_at(&named("one"), now).await.unwrap();
    shelf.answer("keys", 503, "");

    let last = now + limits().kept_for - Duration::from_secs(1);
    keys.find_at(&named("one"), last).await.unwrap();
    while shelf.asked() < 2 || keys.0.turn.try_lock().is_err() {
        tokio::task::yield_now().await;
    }
    keys.find_at(&named("one"), last).await.unwrap();
    assert_eq!(shelf.asked(), 2, "it is left alone for a moment");
    let over = now + limits().kept_for + limits().retry_after;
    assert_eq!(keys.find_at(&named("one"), over).await.unwrap_err(), TokenError::KeysUnavailable);

    shelf.put("keys", key_set(&[&Signer::ec("one")]));
    keys.find_at(&named("one"), over + limits().retry_after).await.unwrap();
}

#[tokio::test]
async fn an_issuer_that_cannot_be_asked_is_asked_again_a_moment_later() {
    let (shelf, now) = (Shelf::open().await, Instant::now());
    let keys = at(&shelf, "keys");
    for _ in 0..10 {
        let refused = keys.find_at(&named("one"), now).await.unwrap_err();
        assert_eq!(refused, TokenError::KeysUnavailable);
    }
    assert_eq!(shelf.asked(), 1);
    shelf.put("keys", key_set(&[&Signer::ec("one")]));
    keys.find_at(&named("one"), now + limits().retry_after).await.unwrap();
}

#[tokio::test]
async fn what_is_too_long_too_slow_or_no_key_set_changes_nothing() {
    let shelf = Shelf::open().await;
    let quick = KeyLimits { time_limit: Duration::from_millis(300), ..limits() };
    for (status, document) in [
        (200, "no JSON".to_owned()),
        (200, "[]".to_owned()),
        (200, json!({ "keys": {} }).to_string()),
        (200, json!({ "keys": [] }).to_string()),
        (200, json!({ "keys": [{ "kty": "oct", "k": "c2VjcmV0" }] }).to_string()),
        (302, String::new()),
        (500, key_set(&[&Signer::ec("one")]).to_string()),
        (200, format!("{{\"keys\":[],\"x\":\"{}\"}}", "x".repeat(quick.size_limit))),
    ] {
        shelf.answer("keys", status, document);
        let keys =
            KeySet::new(KeySource::Address(shelf.url("keys")), quick, Download::trusted().unwrap());
        let refused = keys.find(&named("one")).await.unwrap_err();
        assert_eq!(refused, TokenError::KeysUnavailable);
    }
    shelf.put("keys", key_set(&[&Signer::ec("one")]));
    shelf.delay(Duration::from_secs(30));
    let source = KeySource::Address(shelf.url("keys"));
    let keys = KeySet::new(source, quick, Download::trusted().unwrap());
    assert_eq!(keys.find(&named("one")).await.unwrap_err(), TokenError::KeysUnavailable);
}

#[tokio::test]
async fn a_discovery_document_leads_to_the_keys_of_its_own_issuer() {
    let shelf = Shelf::open().await;
    shelf.put("keys", key_set(&[&Signer::ec("one")]));
    let issuer = shelf.url("tenant").to_string();
    let document = shelf.url("tenant/.well-known/openid-configuration");
    let discovered = |issuer: &str, keys: &str| {
        let found = json!({ "issuer": issuer, "jwks_uri": keys });
        shelf.put("tenant/.well-known/openid-configuration", found);
        let source = KeySource::Discovery {
            document: document.clone(),
            issuer: shelf.url("tenant").to_string(),
        };
        KeySet::new(source, limits(), Download::trusted().unwrap())
    };

    let keys = discovered(&issuer, shelf.url("keys").as_str());
    keys.find(&named("one")).await.unwrap();
    for (issuer, address) in [
        ("https://other.example", shelf.url("keys").as_str()),
        (&issuer, "file:///etc/passwd"),
        (&issuer, "keys"),
    ] {
        let keys = discovered(issuer, address);
        assert_eq!(keys.find(&named("one")).await.unwrap_err(), TokenError::KeysUnavailable);
    }
    let safe = Url::parse("https://issuer.example/.well-known/openid-configuration").unwrap();
    let downgraded = json!({ "issuer": "x", "jwks_uri": "http://issuer.example/keys" });
    discover(downgraded.to_string().as_bytes(), &safe, "x").unwrap_err();
}

#[tokio::test]
async fn a_file_holds_keys_as_well_and_is_read_again() {
    let folder = tempfile::tempdir().unwrap();
    let (path, now) = (folder.path().join("keys.json"), Instant::now());
    let keys = KeySet::new(KeySource::File(path.clone()), limits(), Download::trusted().unwrap());
    assert_eq!(keys.find_at(&named("a"), now).await.unwrap_err(), TokenError::KeysUnavailable);
    std::fs::write(&path, key_set(&[&Signer::ec("a")]).to_string()).unwrap();
    let later = now + limits().retry_after;
    keys.find_at(&named("a"), later).await.unwrap();
    std::fs::write(&path, key_set(&[&Signer::ec("b")]).to_string()).unwrap();
    keys.find_at(&named("b"), later).await.unwrap();
}

#[tokio::test]
async fn addresses_of_users_are_judged() {
    let shelf = Shelf::open().await;
    shelf.put("keys", key_set(&[&Signer::ec("one")]));
    let judged = Download::judged(reqwest::Client::new(), AddressPolicy::default());
    let keys = KeySet::new(KeySource::Address(shelf.url("keys")), limits(), judged);
    assert_eq!(keys.find(&named("one")).await.unwrap_err(), TokenError::KeysUnavailable);
    assert_eq!(shelf.asked(), 0);
}

#[test]
fn a_map_of_certificates_is_a_set_of_keys_by_id() {
    let (one, two) = (Signer::rsa("one"), Signer::rsa("two"));
    let map = json!({ "one": one.certificate(), "two": two.certificate(), "bad": "no certificate", "worse": 1 });
    let keys = parse(map.to_string().as_bytes()).unwrap();
    assert_eq!(keys.len(), 2);
    let key = pick(&keys, &header(Some("two"), Algorithm::RS256)).unwrap();
    // It is the key of the certificate, and not another bit string of it.
    let token = two.sign(&json!({ "exp": 4_000_000_000_u64 }));
    let validation = jsonwebtoken::Validation::new(Algorithm::RS256);
    jsonwebtoken::decode::<Value>(&token, &key.key, &validation).unwrap();
}

#[test]
fn what_cannot_verify_a_signature_is_left_out() {
    let signer = Signer::ec("good");
    let changed = |name: &str, value: Value| {
        let mut jwk = signer.jwk();
        jwk["kid"] = json!("bad");
        jwk[name] = value;
        jwk
    };
    let keys = json!({ "keys": [
        signer.jwk(), changed("use", json!("enc")), changed("key_ops", json!(["sign"])),
        changed("alg", json!("RSA-OAEP")), changed("kty", json!("new")), changed("x", json!(7)), 7,
        { "kty": "oct", "kid": "bad", "k": "c2VjcmV0" },
    ] });
    assert_eq!(ids(keys), ["good"]);
}

#[test]
fn a_token_that_names_no_key_is_of_the_only_one_that_fits() {
    let (one, two, other) = (Signer::ec("one"), Signer::ec("two"), Signer::rsa("rsa"));
    let keys = |signers: &[&Signer]| parse(key_set(signers).to_string().as_bytes()).unwrap();
    let picked = |keys: &[Arc<PublicKey>], id, algorithm| {
        pick(keys, &header(id, algorithm)).and_then(|key| key.id.clone())
    };
    assert_eq!(picked(&keys(&[&one, &other]), None, Algorithm::ES256).as_deref(), Some("one"));
    assert_eq!(picked(&keys(&[&one, &two]), None, Algorithm::ES256), None);
    assert_eq!(picked(&keys(&[&one, &two]), Some("two"), Algorithm::ES256).as_deref(), Some("two"));
    // A key is for the algorithm that it says, and for its own family.
    assert_eq!(picked(&keys(&[&other]), Some("rsa"), Algorithm::ES256), None);
    assert_eq!(picked(&keys(&[&other]), Some("rsa"), Algorithm::RS512), None);
}
