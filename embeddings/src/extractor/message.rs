//! What is said between a server and the process that reads a file. The one rule: whatever comes from there is believed only as far
//! as it can be checked, and is never longer than it may be.
//!
//! Both ways: the length of a head (u64, little endian), the head (JSON), and the bytes of the file, or of the text, up to the end.

use std::io::{self, Read, Write};
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::error::ExtractError;
use crate::extract::{Document, Landmark};

/// The longest head of a request.
const MAX_REQUEST: u64 = 64 * 1024;

/// The longest answer, where there may be so much text: its head may be as long as that, and a little more.
pub(super) fn most(output_bytes: u64) -> u64 {
    output_bytes.saturating_mul(2).saturating_add(1 << 20)
}

/// A file to be read.
#[derive(Serialize, Deserialize)]
pub(super) struct Request {
    pub(super) file_name: String,
    pub(super) media_type: Option<String>,
    pub(super) time: Duration,
    pub(super) memory_bytes: u64,
    pub(super) output_bytes: u64,
    /// The process that asks.
    pub(super) parent: u32,
}

/// A document without its text.
#[derive(Serialize, Deserialize)]
struct Outline {
    markdown: bool,
    title: Option<String>,
    landmarks: Vec<(usize, Landmark)>,
}

impl Request {
    /// Writes it; the file follows.
    pub(super) fn write(&self, to: &mut impl Write) -> io::Result<()> {
        write_head(to, &serde_json::to_vec(self)?)
    }

    /// Reads it; the file follows.
    pub(super) fn read(from: &mut impl Read) -> io::Result<Self> {
        let mut length = [0; 8];
        from.read_exact(&mut length)?;
        let length = u64::from_le_bytes(length).min(MAX_REQUEST);
        Ok(serde_json::from_reader(from.take(length))?)
    }
}

/// Writes what became of a file.
pub(super) fn write_answer(
    to: &mut impl Write,
    answer: Result<Document, ExtractError>,
    output_bytes: u64,
) -> io::Result<()> {
    let (outline, text) = match answer {
        Ok(Document { text, markdown, title, landmarks }) => {
            (Ok(Outline { markdown, title, landmarks }), text)
        }
        Err(error) => (Err(error), String::new()),
    };
    let mut head = serde_json::to_vec(&outline)?;
    let mut text = text.as_str();
    if head.len() as u64 > output_bytes.saturating_add(1 << 19) {
        let full = ExtractError::TooMuchText { bytes: output_bytes };
        (head, text) = (serde_json::to_vec(&Err::<Outline, _>(full))?, "");
    }
    write_head(to, &head)?;
    to.write_all(text.as_bytes())?;
    to.flush()
}

/// Reads what became of a file; `None` for what is no whole answer.
pub(super) fn read_answer(answer: &[u8]) -> Option<Result<Document, ExtractError>> {
    let (length, rest) = answer.split_first_chunk::<8>()?;
    let length = usize::try_from(u64::from_le_bytes(*length)).ok()?;
    let (head, text) = rest.split_at_checked(length)?;
    let outline: Outline = match parse::<Result<Outline, ExtractError>>(head)? {
        Ok(outline) => outline,
        Err(error) => return Some(Err(error)),
    };
    let text = std::str::from_utf8(text).ok()?;
    let Outline { markdown, title, landmarks } = outline;
    // Chunks are cut there.
    let is_sound = landmarks.is_sorted_by_key(|(at, _)| *at)
        && landmarks.iter().all(|(at, _)| text.is_char_boundary((*at).min(text.len())));
    is_sound.then(|| Ok(Document { text: text.to_owned(), markdown, title, landmarks }))
}

fn parse<T: DeserializeOwned>(json: &[u8]) -> Option<T> {
    serde_json::from_slice(json).ok()
}

fn write_head(to: &mut impl Write, head: &[u8]) -> io::Result<()> {
    to.write_all(&(head.len() as u64).to_le_bytes())?;
    to.write_all(head)
}
