//! A log and a vault in a folder, for tests.

use std::path::Path;
use std::sync::Arc;

use domain::file::{FileCommand, Upload};
use domain::{BlobRef, FileName};
use eventlog::{EventStore, SqliteOptions, SqliteStore};
use uuid::Uuid;
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

/// The bare command to take note of bytes: nobody looks whether they are there.
pub(crate) fn upload_of(knowledge_base: Uuid, blob: &BlobRef) -> FileCommand {
    FileCommand::Upload(Upload {
        knowledge_base,
        name: FileName::parse("a.txt").expect("a name"),
        media_type: "text/plain".into(),
        blob: blob.clone(),
        source: None,
        subject: None,
        language: None,
        tags: Vec::new(),
    })
}
