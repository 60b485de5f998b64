//! A vault of one test in a local folder, and ways to look below it.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use tempfile::TempDir;
use uuid::Uuid;
use vault::{Error, MasterKey, Vault};

pub use crate::common::{ago, body, noise, place, product_key};

/// Of many alike things that a test could try, it tries one in so many.
pub const ONE_IN: usize = 1;

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

    /// The same files in a vault that remembers nothing, as on another node.
    pub async fn reopened(&self) -> Vault {
        self.opened_with(self.master.clone()).await.unwrap()
    }

    /// The same files under another master key.
    pub async fn opened_with(&self, master: MasterKey) -> Result<Vault, Error> {
        Vault::local(self.folder.path(), master).await
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The names of all objects below a name, in their order.
    pub async fn names(&self, below: &str) -> Vec<String> {
        let mut found = Vec::new();
        collect(&self.path(below), &mut found);
        found.retain(|path| path.is_file());
        let name = |path: PathBuf| path.strip_prefix(self.folder.path()).unwrap().to_owned();
        let names = found.into_iter().map(|path| name(path).to_str().unwrap().to_owned());
        let mut names: Vec<String> = names.filter(|name| name != "unfinished/lock").collect();
        names.sort();
        names
    }

    /// How many things are there that have not got their name.
    pub async fn unfinished(&self) -> usize {
        self.names("unfinished").await.len()
    }

    pub async fn bytes(&self, name: &str) -> Vec<u8> {
        fs::read(self.path(name)).unwrap()
    }

    pub async fn overwrite(&self, name: &str, bytes: &[u8]) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }

    pub async fn remove(&self, name: &str) {
        fs::remove_file(self.path(name)).unwrap();
    }

    /// Changes one bit in the middle of an object.
    pub async fn flip_a_bit(&self, name: &str) {
        let mut bytes = self.bytes(name).await;
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        self.overwrite(name, &bytes).await;
    }

    /// Lets everything be so much older.
    pub async fn age(&self, by: Duration) {
        for name in self.names("").await {
            let file = fs::OpenOptions::new().write(true).open(self.path(&name)).unwrap();
            let modified = file.metadata().unwrap().modified().unwrap();
            file.set_modified(modified - by).unwrap();
        }
    }
}

/// Everything below a path, folders too, itself included.
pub fn collect(path: &Path, found: &mut Vec<PathBuf>) {
    found.push(path.to_owned());
    if let Ok(entries) = fs::read_dir(path) {
        entries.for_each(|entry| collect(&entry.unwrap().path(), found));
    }
}
