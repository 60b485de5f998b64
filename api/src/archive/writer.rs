//! An archive as it is written, and as writing goes on after it was cut off.
//!
//! The rule of this file: the archive has its name when it is whole and on the disk. Until then it is
//! `<name>.part`, and of that only what is known to be on the disk is kept.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Cursor, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use anyhow::Context;
use eventlog::RecordedEvent;
use sha2::{Digest, Sha256};

use super::reader::{Hashed, scan};
use super::tally::Tally;
use super::{HEADER, Header, SUMMARY, SUMS, Summary, segment_name};

/// After so many bytes the file is synced.
pub const SYNC_EVERY: u64 = 64 * 1024 * 1024;

/// An archive that is being written.
pub struct Writer {
    path: PathBuf,
    header: Header,
    tally: Tally,
    tar: tar::Builder<Synced>,
}

impl Writer {
    /// Begins an archive, or goes on with one that was cut off: then it keeps its first header.
    ///
    /// # Errors
    /// The file is there already, or cannot be written.
    pub fn open(path: &Path, header: Header, sync_every: u64) -> anyhow::Result<Writer> {
        if path.try_exists()? {
            anyhow::bail!(
                "{} is there already: remove it, or choose another --out",
                path.display()
            );
        }
        let part = part_of(path);
        let mut options = OpenOptions::new();
        let opened =
            options.read(true).write(true).create(true).truncate(false).mode(0o600).open(&part);
        let mut file = opened.with_context(|| format!("{} cannot be written", part.display()))?;
        let kept = scan(&file, synced(file.metadata()?.len(), sync_every))?;
        file.set_len(kept.bytes)?;
        file.seek(SeekFrom::End(0))?;
        let tar = tar::Builder::new(Synced { file, written: kept.bytes, every: sync_every });
        let (path, is_new) = (path.to_owned(), kept.header.is_none());
        let header = kept.header.unwrap_or(header);
        let mut writer = Writer { path, header, tally: kept.tally, tar };
        if is_new {
            let text = serde_json::to_vec_pretty(&writer.header)?;
            writer.entry(HEADER, text.len() as u64, Cursor::new(text))?;
        }
        Ok(writer)
    }

    /// What the archive is.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// The last event that is in it.
    pub fn last(&self) -> eventlog::Position {
        self.tally.events.last()
    }

    /// Whether an object is in it.
    pub fn has(&self, name: &str) -> bool {
        self.tally.has(name)
    }

    /// Writes a segment of events.
    pub fn events<'a>(
        &mut self,
        events: impl IntoIterator<Item = &'a RecordedEvent>,
    ) -> anyhow::Result<()> {
        let mut packed = zstd::Encoder::new(Vec::new(), 0)?;
        packed.include_checksum(true)?;
        let mut name = None;
        for event in events {
            name.get_or_insert_with(|| segment_name(event));
            let line = event.to_canonical();
            self.tally.events.add(event, &line)?;
            packed.write_all(line.as_bytes())?;
            packed.write_all(b"\n")?;
        }
        let Some(name) = name else { return Ok(()) };
        let packed = packed.finish()?;
        self.entry(&name, packed.len() as u64, Cursor::new(packed))
    }

    /// Writes a key, a blob or an artifact: `size` bytes of what `body` gives.
    pub fn object(&mut self, name: &str, size: u64, body: impl Read) -> anyhow::Result<()> {
        self.entry(name, size, body)
    }

    /// Writes the end, and gives the archive its name.
    pub fn finish(mut self) -> anyhow::Result<Summary> {
        let summary = self.tally.summary();
        let text = serde_json::to_vec_pretty(&summary)?;
        self.entry(SUMMARY, text.len() as u64, Cursor::new(text))?;
        let sums = self.tally.sums();
        self.entry(SUMS, sums.len() as u64, Cursor::new(sums))?;
        self.tar.into_inner()?.file.sync_all()?;
        fs::rename(part_of(&self.path), &self.path)?;
        let folder = self.path.parent().filter(|folder| *folder != Path::new(""));
        File::open(folder.unwrap_or(Path::new(".")))?.sync_all()?;
        Ok(summary)
    }

    fn entry(&mut self, name: &str, size: u64, body: impl Read) -> anyhow::Result<()> {
        let mut header = tar::Header::new_gnu();
        header.set_size(size);
        header.set_mode(0o600);
        header.set_mtime(self.header.made_at.timestamp().unsigned_abs());
        let mut body = Hashed { inner: body.take(size), hash: Sha256::new(), read: 0 };
        self.tar.append_data(&mut header, name, &mut body)?;
        if body.read != size {
            anyhow::bail!("{name} ended after {} of {size} bytes: begin again", body.read);
        }
        self.tally.entry(name, size, hex::encode(body.hash.finalize()))
    }
}

/// The archive as long as it is not whole.
pub fn part_of(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".part");
    name.into()
}

/// How much of a file of this length was synced for certain: it is whenever it has grown by so much.
fn synced(length: u64, every: u64) -> u64 {
    (length / every).saturating_sub(1) * every
}

/// A file that is synced again and again, so that a crash costs no more than what came since.
struct Synced {
    file: File,
    written: u64,
    every: u64,
}

impl Write for Synced {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.file.write(bytes)?;
        let before = self.written / self.every;
        self.written += written as u64;
        if self.written / self.every > before {
            self.file.sync_data()?;
        }
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}
