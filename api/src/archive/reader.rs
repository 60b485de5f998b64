//! An archive as it is read.
//!
//! The rule of this file: nothing in an archive is believed. What is read was checked by itself, and
//! the archive as a whole by its own sums at its end.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;

use anyhow::{Context, bail};
use eventlog::RecordedEvent;
use sha2::{Digest, Sha256};

use super::tally::Tally;
use super::{FORMAT, HEADER, Header, SUMMARY, SUMS, Summary};

/// The longest event, in bytes.
const LONGEST_EVENT: u64 = 64 * 1024 * 1024;
/// The longest header or summary.
const LONGEST_NOTE: u64 = 64 * 1024;

/// An archive that was read to its end, and is whole.
#[derive(Clone, Debug, PartialEq)]
pub struct Archive {
    /// What it is.
    pub header: Header,
    /// What is in it.
    pub summary: Summary,
}

/// Is shown what is in an archive, in its order, and looks at what it likes.
pub trait Visitor {
    /// An event.
    fn event(&mut self, _: RecordedEvent) -> anyhow::Result<()> {
        Ok(())
    }

    /// A key, a blob or an artifact: its name, its size and its bytes. What is left of them is read all
    /// the same.
    fn object(&mut self, _: &str, _: u64, _: &mut dyn Read) -> anyhow::Result<()> {
        Ok(())
    }

    /// So many bytes of the file were read.
    fn progress(&mut self, _: u64) {}
}

/// Reads an archive from its beginning to its end.
///
/// # Errors
/// It is none, it is not whole, something in it is not what it was, or the visitor has had enough.
pub fn read(path: &Path, visitor: &mut dyn Visitor) -> anyhow::Result<Archive> {
    let place = path.display();
    let file = File::open(path).with_context(|| format!("{place} cannot be read"))?;
    let length = file.metadata()?.len();
    let mut reading = Reading::default();
    let mut summary = None;
    let mut sums = None;
    let mut tar = tar::Archive::new(BufReader::new(&file));
    for entry in tar.entries()? {
        let mut entry = entry.with_context(|| damaged(path))?;
        if sums.is_some() {
            bail!("{place} goes on behind its end: export it anew");
        }
        let name = name_of(&entry)?;
        match name.as_str() {
            SUMMARY => {
                let text = reading.note(&mut entry, &name)?;
                let told: Summary = serde_json::from_slice(&text).with_context(|| damaged(path))?;
                summary = Some(told);
            }
            SUMS => {
                let mut text = String::new();
                entry.read_to_string(&mut text).with_context(|| damaged(path))?;
                sums = Some(text);
            }
            _ => reading
                .entry(&mut entry, &name, visitor)
                .with_context(|| format!("{place}: {name}"))?,
        }
        visitor.progress((entry.raw_file_position() + entry.size()).min(length));
    }
    let (Some(header), Some(summary), Some(sums)) = (reading.header, summary, sums) else {
        bail!(
            "{place} is not whole: its end is missing; run the export again, or copy the file again"
        );
    };
    if sums != reading.tally.sums() {
        let found = reading.tally.sums();
        let differs = sums.lines().zip(found.lines()).find(|(told, found)| told != found);
        let what =
            differs.and_then(|(told, _)| told.split_once("  ")).map_or("it", |(_, name)| name);
        bail!("{place} is damaged: {what} is not what it was; copy the file again, or export anew");
    }
    if summary != reading.tally.summary() || header.head != summary.events.last {
        bail!("{place} does not hold what its summary says: export anew");
    }
    Ok(Archive { header, summary })
}

fn damaged(path: &Path) -> String {
    format!("{} is damaged, or no export: copy the file again, or export anew", path.display())
}

fn name_of<R: Read>(entry: &tar::Entry<'_, R>) -> anyhow::Result<String> {
    let bytes = entry.path_bytes();
    let name = String::from_utf8(bytes.into_owned()).context("a name in it is no text")?;
    if !entry.header().entry_type().is_file() {
        bail!("{name} is no file");
    }
    Ok(name)
}

/// What was read so far.
#[derive(Default)]
struct Reading {
    header: Option<Header>,
    tally: Tally,
}

impl Reading {
    fn entry<R: Read>(
        &mut self,
        entry: &mut tar::Entry<'_, R>,
        name: &str,
        visitor: &mut dyn Visitor,
    ) -> anyhow::Result<()> {
        if self.header.is_none() {
            if name != HEADER {
                bail!("this is no export of prodgy: it would begin with {HEADER}");
            }
            let text = self.note(entry, name)?;
            // The format first: another one may have other fields.
            let format: serde_json::Value = serde_json::from_slice(&text)?;
            if format["format"] != FORMAT {
                bail!(
                    "its format is {}, this version reads {FORMAT}: upgrade prodgy",
                    format["format"]
                );
            }
            self.header = Some(serde_json::from_slice(&text)?);
            return Ok(());
        }
        let size = entry.size();
        let mut body = Hashed { inner: entry, hash: Sha256::new(), read: 0 };
        match name.split_once('/') {
            Some(("events", _)) => self.events(&mut body, visitor)?,
            Some(("keys" | "blobs" | "artifacts", _)) => visitor.object(name, size, &mut body)?,
            _ => bail!("this version does not know what that is: upgrade prodgy"),
        }
        io::copy(&mut body, &mut io::sink())?;
        if body.read != size {
            bail!("it ends after {} of {size} bytes", body.read);
        }
        self.tally.entry(name, size, hex::encode(body.hash.finalize()))
    }

    fn events(&mut self, body: impl Read, visitor: &mut dyn Visitor) -> anyhow::Result<()> {
        let mut lines = BufReader::new(zstd::Decoder::new(body)?);
        let mut line = Vec::new();
        loop {
            line.clear();
            let read = lines.by_ref().take(LONGEST_EVENT).read_until(b'\n', &mut line)?;
            if read == 0 {
                return Ok(());
            }
            if line.pop() != Some(b'\n') {
                bail!("the event behind position {} does not end", self.tally.events.last());
            }
            let text = std::str::from_utf8(&line)?;
            let event = RecordedEvent::from_canonical(text).with_context(|| {
                format!("the event behind position {}", self.tally.events.last())
            })?;
            self.tally.events.add(&event, text)?;
            visitor.event(event)?;
        }
    }

    /// Reads a small entry, and counts it.
    fn note(&mut self, entry: impl Read, name: &str) -> anyhow::Result<Vec<u8>> {
        let mut text = Vec::new();
        entry.take(LONGEST_NOTE).read_to_end(&mut text)?;
        self.tally.entry(name, text.len() as u64, hex::encode(Sha256::digest(&text)))?;
        Ok(text)
    }
}

/// Hashes and counts what is read through it.
pub(super) struct Hashed<R> {
    pub inner: R,
    pub hash: Sha256,
    pub read: u64,
}

impl<R: Read> Read for Hashed<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.hash.update(&buffer[..read]);
        self.read += read as u64;
        Ok(read)
    }
}

/// What of an archive that was cut off can be kept.
pub(super) struct Kept {
    /// Its first so many bytes.
    pub bytes: u64,
    /// What is in them.
    pub tally: Tally,
    /// `None` where nothing can be kept.
    pub header: Option<Header>,
}

/// Reads an archive up to where it was cut off, or up to `limit` bytes of it.
pub(super) fn scan(file: &File, limit: u64) -> anyhow::Result<Kept> {
    struct Nobody;
    impl Visitor for Nobody {}
    let mut reading = Reading::default();
    let mut bytes = 0;
    let mut tar = tar::Archive::new(BufReader::new(file));
    for entry in tar.entries()? {
        let Ok(mut entry) = entry else { break };
        let Ok(name) = name_of(&entry) else { break };
        let end = entry.raw_file_position() + entry.size().next_multiple_of(512);
        if end > limit || matches!(name.as_str(), SUMMARY | SUMS) {
            break;
        }
        let read = reading.entry(&mut entry, &name, &mut Nobody);
        read.context("what was written before is damaged: remove it, and begin again")?;
        bytes = end;
    }
    Ok(Kept { bytes, tally: reading.tally, header: reading.header })
}
