//! `prodgy keys rotate-master`: another master key takes over.
//!
//! The rule of this file: the new key is on the disk, or in the hands of whoever runs this, before
//! anything is under it; the old one is there until nothing is.

use anyhow::{Context, bail};
use secrecy::{ExposeSecret, SecretString};
use vault::{MasterKey, Vault, s3_environment};

use crate::config::{BlobsAddress, Config};
use crate::progress::Shown;
use crate::serve::{DataDir, given_master_key, open_log};

/// Where a new master key is passed.
const NEW_MASTER_KEY: &str = "PRODGY_NEW_MASTER_KEY";

/// Puts every data key under a new master key; answers what was done, and what is left to do.
///
/// # Errors
/// A server runs here, a key is missing or wrong, or the vault fails.
pub async fn rotate_master(config: &Config) -> anyhow::Result<String> {
    let folders = DataDir::new(&config.data_dir);
    let _lock = folders.lock()?;
    // Nobody else has it either, where one server has it to itself.
    let log = open_log(config, false).await?;
    let (file, new_file) = (folders.master_key(), folders.new_master_key());
    let given = std::env::var(NEW_MASTER_KEY).ok().map(SecretString::from);
    let given = given.map(|text| MasterKey::parse(text.expose_secret())).transpose();
    let given = given.context(NEW_MASTER_KEY)?;
    let from_environment = given_master_key(config)?;
    let is_file = from_environment.is_none();
    let (old, new) = match (from_environment, given) {
        (Some(old), Some(new)) => (old, new),
        (Some(_), None) => bail!(
            "the master key comes from PRODGY_MASTER_KEY: pass the new one in {NEW_MASTER_KEY} \
             (`openssl rand -hex 32` makes one), and put it in the place of the old one afterwards"
        ),
        (None, given) => {
            let Some(old) = MasterKey::load(&file)? else {
                bail!("there is no master key in {}: check --data-dir", file.display())
            };
            let new = match (MasterKey::load(&new_file)?, given) {
                // Of a rotation that was cut off.
                (Some(new), _) => new,
                (None, given) => {
                    let new = given.map_or_else(MasterKey::generate, Ok)?;
                    new.save(&new_file)?;
                    new
                }
            };
            (old, new)
        }
    };
    let mut shown = Shown::counting()?;
    let progress = |done, of| shown.show("wrapping keys", done, Some(of));
    let folder = config.blobs.clone().unwrap_or_else(|| BlobsAddress::Folder(folders.vault()));
    let count = match folder {
        BlobsAddress::Folder(folder) => Vault::rotate_master(&folder, &old, &new, progress).await?,
        BlobsAddress::S3(address) => {
            Vault::rotate_master_s3(&address, &s3_environment(), &old, &new, progress).await?
        }
    };
    shown.end();
    log.close().await;
    let keys = if count == 1 { "1 key is".to_owned() } else { format!("{count} keys are") };
    if is_file {
        MasterKey::take_over(&new_file, &file)?;
        return Ok(format!(
            "{keys} under the new master key, which is in {}: keep a copy in a safe place; exports and \
             backups from before need the old one",
            file.display()
        ));
    }
    Ok(format!(
        "{keys} under the new master key: put it into PRODGY_MASTER_KEY on every node before you start; \
         exports and backups from before need the old one"
    ))
}
