//! A writer that is killed at any moment: what it was told is there, and nothing is half there.

use std::{
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use tempfile::TempDir;
use uuid::Uuid;
use vault::{BlobRef, MasterKey, Sealed, Vault};

use crate::support::{body, collect, noise, place, product_key};

/// Set in the process that is going to be killed.
const FOLDER: &str = "VAULT_CRASH_TEST_FOLDER";
const KEY: &str = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";
const ROUNDS: u64 = 12;

/// Not a test of its own: the process that the test below starts and kills.
#[tokio::test(flavor = "multi_thread")]
async fn writer() {
    let Ok(folder) = std::env::var(FOLDER) else { return };
    let vault = open(Path::new(&folder)).await;
    loop {
        let product = Uuid::now_v7();
        vault.create_key(&product_key(product)).await.unwrap();
        let sealed = vault.seal(&product_key(product), &place("name"), b"text").await.unwrap();
        let bytes = noise(200_000 + product.as_u128() as usize % 1000);
        let blob = vault.put_blob(product, body(&bytes, 10_000), u64::MAX).await.unwrap();
        let line = serde_json::to_string(&(product, sealed, blob)).unwrap();
        writeln!(std::io::stdout(), "stored {line}").unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_writer_keeps_what_it_was_told_and_leaves_nothing_half_written() {
    let folder = TempDir::new().unwrap();
    let mut told = Vec::new();
    for round in 0..ROUNDS {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "crash::writer", "--nocapture"])
            .env(FOLDER, folder.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        // Killed at another point of its work each time, but never before it has done some.
        let stored = |line: &String| line.contains("stored ");
        told.push(lines.by_ref().map_while(Result::ok).find(stored).unwrap());
        tokio::time::sleep(Duration::from_micros(1 + round * 1700)).await;
        child.kill().unwrap();
        child.wait().unwrap();
        // Only whole lines were told; the last may have been cut by the kill.
        told.extend(lines.map_while(Result::ok).filter(stored).filter(|line| line.ends_with(']')));
    }

    let vault = open(folder.path()).await;
    assert!(told.len() as u64 >= ROUNDS);
    for line in told {
        let json = line.split_once("stored ").unwrap().1;
        let (product, sealed, blob): (Uuid, Sealed, BlobRef) = serde_json::from_str(json).unwrap();
        let opened = vault.open(&sealed, &place("name")).await.unwrap();
        assert_eq!(opened.clear().unwrap().as_slice(), b"text");
        let bytes = vault.blob_bytes(product, &blob, u64::MAX).await.unwrap();
        assert_eq!(bytes, noise(200_000 + product.as_u128() as usize % 1000));
    }
    // Whatever has a name is whole, told or not, and what had none is gone.
    let mut paths = Vec::new();
    collect(folder.path(), &mut paths);
    for path in paths.into_iter().filter(|path| path.is_file()) {
        let name = path.strip_prefix(folder.path()).unwrap().to_str().unwrap();
        match name.split_once('/').unwrap() {
            ("keys", file) => {
                let id = file.strip_suffix(".json").unwrap();
                assert!(id == "master" || vault.key_exists(id).await.unwrap());
            }
            ("blobs", file) => {
                let product: Uuid = file[..36].parse().unwrap();
                let blob = BlobRef {
                    name: path.file_name().unwrap().to_str().unwrap().to_owned(),
                    size: path.metadata().unwrap().len(),
                };
                vault.blob_bytes(product, &blob, u64::MAX).await.unwrap();
            }
            (folder, file) => assert_eq!((folder, file), ("unfinished", "lock")),
        }
    }
}

async fn open(folder: &Path) -> Vault {
    Vault::local(folder, MasterKey::parse(KEY).unwrap()).await.unwrap()
}
