//! A log and a vault in a folder, for tests.

use std::path::Path;
use std::sync::Arc;

use eventlog::{EventStore, SqliteOptions, SqliteStore};
use vault::{MasterKey, Vault};

use crate::Commands;

const KEY: &str = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";

pub(crate) fn open_log(folder: &Path) -> Arc<dyn EventStore> {
    let path = folder.join("events.db");
    Arc::new(SqliteStore::open(&path, SqliteOptions::default()).expect("a log"))
}

/// A command side on a log, and on the vault in a folder.
pub(crate) async fn open_commands(folder: &Path, log: Arc<dyn EventStore>) -> Commands {
    let master = MasterKey::parse(KEY).expect("a key");
    let vault = Vault::local(&folder.join("vault"), master).await.expect("a vault");
    Commands::open(log, vault).await.expect("a command side")
}
