//! `prodgy export`: the log and what it names, in one file.
//!
//! The rule of this file: first the log, then what it names. What an event names was stored before it,
//! so that a file that is made beside a running server is whole.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, bail};
use eventlog::{EventStore, RecordedEvent};
use futures::{StreamExt, TryStreamExt};
use indicatif::HumanBytes;
use tokio::runtime::Handle;
use tokio::task::block_in_place;
use tokio_util::io::{StreamReader, SyncIoBridge};
use vault::{StoredObject, Vault};

use crate::archive::{Header, SEGMENT, SYNC_EVERY, Summary, Writer};
use crate::config::Config;
use crate::progress::Shown;
use crate::serve::{open_log, open_vault};

/// How many events one read of the log brings.
const PAGE: usize = 1_000;

/// Writes the log, and with it keys, blobs and artifacts, into a file. Runs beside a server; what was
/// cut off goes on where it was.
///
/// # Errors
/// The file is there already or cannot be written, or log or vault fail.
pub async fn export(config: &Config, out: &Path, with_files: bool) -> anyhow::Result<String> {
    let log = open_log(config, true).await?;
    let vault = open_vault(config).await?;
    let head = log.head().await?;
    let header = Header::new(head, with_files);
    let mut writer = block_in_place(|| Writer::open(out, header, SYNC_EVERY))?;
    if writer.header().files != with_files {
        bail!(
            "{0}.part was begun {1} --without-files: remove it, or go on as it was begun",
            out.display(),
            if with_files { "with" } else { "without" },
        );
    }
    events(log.as_ref(), &mut writer).await?;
    objects(&vault, &mut writer, with_files).await?;
    log.close().await;
    let summary = block_in_place(|| writer.finish())?;
    Ok(told(&summary, out, std::fs::metadata(out)?.len()))
}

fn told(summary: &Summary, out: &Path, size: u64) -> String {
    format!(
        "{}, in {} ({}).\nWhat is sealed in it stays sealed with this instance's master key, which is not in it: \
         `prodgy import` needs that key, too.",
        in_words(summary),
        out.display(),
        HumanBytes(size),
    )
}

/// What is in an archive, for a person.
pub fn in_words(summary: &Summary) -> String {
    let Summary { events, keys, blobs, artifacts } = summary;
    format!(
        "{} events (up to position {}), {} keys, {} blobs ({}), {} artifacts ({})",
        events.count,
        events.last,
        keys.objects,
        blobs.objects,
        HumanBytes(blobs.bytes),
        artifacts.objects,
        HumanBytes(artifacts.bytes),
    )
}

async fn events(log: &dyn EventStore, writer: &mut Writer) -> anyhow::Result<()> {
    let head = writer.header().head;
    let mut shown = Shown::counting()?;
    let mut segment: Vec<Arc<RecordedEvent>> = Vec::with_capacity(SEGMENT);
    let mut after = writer.last();
    if after > head || log.head().await? < head {
        bail!("what was exported before is of another log: remove the .part file, and begin again");
    }
    while after < head {
        let page = log.read_after(after, PAGE).await?;
        let page: Vec<_> = page.into_iter().filter(|event| event.position <= head).collect();
        let Some(last) = page.last() else {
            bail!(
                "the log ends at position {after}, before {head}: was it put back from a backup?"
            );
        };
        after = last.position;
        segment.extend(page);
        if segment.len() >= SEGMENT || after >= head {
            block_in_place(|| writer.events(segment.iter().map(AsRef::as_ref)))?;
            segment.clear();
        }
        shown.show("reading the log", after.0, Some(head.0));
    }
    shown.end();
    Ok(())
}

async fn objects(vault: &Vault, writer: &mut Writer, with_files: bool) -> anyhow::Result<()> {
    let mut objects: Vec<StoredObject> = vault.stored_keys().try_collect().await?;
    if with_files {
        objects.extend(vault.stored().try_collect::<Vec<_>>().await?);
    }
    // The same order each time.
    objects.sort_by(|one, other| rank(&one.name).cmp(&rank(&other.name)));
    let total = objects.iter().map(|object| object.size).sum();
    let mut shown = Shown::in_bytes()?;
    let mut done = 0;
    for object in &objects {
        if !writer.has(&object.name) {
            copy(vault, writer, &object.name).await.with_context(|| object.name.clone())?;
        }
        done += object.size;
        shown.show("copying files", done, Some(total));
    }
    shown.end();
    Ok(())
}

/// Keys first, and the rest by name.
fn rank(name: &str) -> (bool, &str) {
    (!name.starts_with("keys/"), name)
}

async fn copy(vault: &Vault, writer: &mut Writer, name: &str) -> anyhow::Result<()> {
    // Gone since it was listed: shredded, or taken as garbage.
    let Some((size, body)) = vault.read_stored(name).await? else { return Ok(()) };
    let body = StreamReader::new(body.map(|part| part.map_err(std::io::Error::other)));
    block_in_place(|| {
        writer.object(name, size, SyncIoBridge::new_with_handle(body, Handle::current()))
    })
}
