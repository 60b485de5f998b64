//! A vault of one test, and ways to look below it.

use std::{
    convert::Infallible,
    fs,
    path::{Path, PathBuf},
};

use bytes::Bytes;
use futures::{Stream, stream};
use tempfile::TempDir;
use uuid::Uuid;
use vault::{MasterKey, Place, Vault};

/// A vault in a folder that goes away with it.
pub struct Store {
    pub vault: Vault,
    pub master: MasterKey,
    pub folder: TempDir,
}

impl Store {
    pub async fn new() -> Store {
        let folder = TempDir::new().unwrap();
        let master = MasterKey::generate().unwrap();
        let vault = Vault::local(folder.path(), master.clone()).await.unwrap();
        Store { vault, master, folder }
    }

    /// A store with the key of a product.
    pub async fn with_product() -> (Store, Uuid) {
        let store = Store::new().await;
        let product = Uuid::now_v7();
        store.vault.create_key(&product_key(product)).await.unwrap();
        (store, product)
    }

    /// The same files in a vault that remembers nothing.
    pub async fn reopened(&self) -> Vault {
        Vault::local(self.folder.path(), self.master.clone()).await.unwrap()
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Every file below a folder of the store.
    pub fn files(&self, below: &str) -> Vec<PathBuf> {
        let mut found = Vec::new();
        collect(&self.path(below), &mut found);
        found.retain(|path| path.is_file() && !path.ends_with("unfinished/lock"));
        found
    }
}

/// Everything below a path, folders too, itself included.
pub fn collect(path: &Path, found: &mut Vec<PathBuf>) {
    found.push(path.to_owned());
    if let Ok(entries) = fs::read_dir(path) {
        entries.for_each(|entry| collect(&entry.unwrap().path(), found));
    }
}

pub fn product_key(product: Uuid) -> String {
    format!("product-{product}")
}

pub fn place(field: &str) -> Place<'_> {
    Place {
        organization: Uuid::from_u128(7),
        stream: "user-0193",
        event_type: "user.created.v1",
        field,
    }
}

/// A body in chunks of this size.
pub fn body(bytes: &[u8], chunk: usize) -> impl Stream<Item = Result<Bytes, Infallible>> + use<> {
    let chunks: Vec<_> = bytes.chunks(chunk).map(|c| Ok(Bytes::copy_from_slice(c))).collect();
    stream::iter(chunks)
}

/// Bytes that repeat nowhere soon.
pub fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    let next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 56) as u8
    };
    std::iter::repeat_with(next).take(length).collect()
}

/// Changes one bit in the middle of a file.
pub fn flip_a_bit(path: &Path) {
    let mut bytes = fs::read(path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(path, bytes).unwrap();
}
