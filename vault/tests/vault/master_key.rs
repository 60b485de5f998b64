//! The master key: read from text and file, made once, never seen.

use std::{fs, os::unix::fs::PermissionsExt};

use tempfile::TempDir;
use vault::{Error, MasterKey, Vault};

const HEX: &str = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1eff";
const BASE64: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHv8=";

#[tokio::test]
async fn every_spelling_of_a_key_is_the_same_key() {
    let folder = TempDir::new().unwrap();
    Vault::local(folder.path(), MasterKey::parse(HEX).unwrap()).await.unwrap();
    let upper = HEX.to_uppercase();
    let padded = format!("  {BASE64}\n");
    let url_safe = BASE64.replace('/', "_").replace('+', "-");
    for text in [HEX, &upper, &padded, BASE64.trim_end_matches('='), &url_safe] {
        Vault::local(folder.path(), MasterKey::parse(text).unwrap()).await.unwrap();
    }
}

#[test]
fn what_is_no_key_is_refused_without_repeating_it() {
    let (short, long) = (&HEX[2..], format!("{HEX}00"));
    let thirty_three_bytes = "A".repeat(44);
    for text in ["", "secret", short, &long, &BASE64[1..], &thirty_three_bytes, &"é".repeat(32)] {
        let error = MasterKey::parse(text).unwrap_err();
        assert!(matches!(error, Error::MasterKeyMalformed { .. }), "{text:?}");
        assert!(text.is_empty() || !format!("{error} {error:?}").contains(text));
    }
}

#[test]
fn a_key_is_never_printed() {
    let key = MasterKey::parse(HEX).unwrap();
    assert_eq!(format!("{key:?}"), "MasterKey([REDACTED])");
}

#[test]
fn the_key_file_is_made_once_and_only_for_its_owner() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("new/deep/master.key");
    let (_, created) = MasterKey::load_or_create(&path).unwrap();
    assert!(created);
    let text = fs::read_to_string(&path).unwrap();
    assert_eq!(text.trim().len(), 64);
    let mode = |path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(path.as_path()), 0o600);
    assert_eq!(mode(path.parent().unwrap()), 0o700);

    let (_, created) = MasterKey::load_or_create(&path).unwrap();
    assert!(!created);
    assert_eq!(fs::read_to_string(&path).unwrap(), text);
    assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
}

#[test]
fn many_who_make_the_key_file_at_once_get_one_key() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("master.key");
    let created = std::thread::scope(|scope| {
        let make = || MasterKey::load_or_create(&path).unwrap().1;
        let makers: Vec<_> = (0..8).map(|_| scope.spawn(make)).collect();
        makers.into_iter().map(|maker| usize::from(maker.join().unwrap())).sum::<usize>()
    });
    assert_eq!(created, 1);
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
}

#[test]
fn a_malformed_key_file_is_named() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("master.key");
    for bytes in [&b"not a key"[..], b"\xff\xfe", b""] {
        fs::write(&path, bytes).unwrap();
        let error = MasterKey::load_or_create(&path).unwrap_err();
        assert!(error.to_string().contains("master.key is not a master key"), "{error}");
        assert_eq!(fs::read(&path).unwrap(), bytes);
    }
}

#[tokio::test]
async fn a_data_directory_without_its_key_file_gets_no_new_one() {
    let folder = TempDir::new().unwrap();
    let key_file = folder.path().join("master.key");
    let (_, created) = Vault::local_with_key_file(folder.path(), &key_file).await.unwrap();
    assert!(created);
    let (_, created) = Vault::local_with_key_file(folder.path(), &key_file).await.unwrap();
    assert!(!created);

    fs::remove_file(&key_file).unwrap();
    let refused = Vault::local_with_key_file(folder.path(), &key_file).await;
    assert!(matches!(refused, Err(Error::MasterKeyMissing { .. })));
    assert!(!key_file.exists());
}
