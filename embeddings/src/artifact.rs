//! What a file became, in one piece of bytes: its text, its chunks and their vectors, so that nothing is ever embedded twice. The
//! one rule: bytes that were cut off or altered are refused, never half read.
//!
//! The layout: a line that names the format, the length of the head (u64, little endian), the head (JSON), the vectors (f32, little
//! endian, one after the other), the SHA-256 of all that.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::chunk::{self, Chunk};
use crate::error::ArtifactError;

const FORMAT: &[u8] = b"prodgy-artifact/1\n";
const DIGEST_LENGTH: usize = 32;

/// A file's text, chunks and vectors.
#[derive(Clone, Debug, PartialEq)]
pub struct Artifact {
    /// The revision of the model that made the vectors.
    pub revision: String,
    /// The version of the chunker that made the chunks.
    pub chunker_version: String,
    /// The document's whole text.
    pub text: String,
    /// Its chunks, in order.
    pub chunks: Vec<Chunk>,
    /// One vector per chunk, all of one length.
    pub vectors: Vec<Vec<f32>>,
}

#[derive(Serialize, Deserialize)]
struct Head {
    revision: String,
    chunker_version: String,
    dimensions: usize,
    text: String,
    chunks: Vec<Place>,
}

/// A chunk without its text, which is a part of the document's.
#[derive(Serialize, Deserialize)]
struct Place {
    start: u64,
    end: u64,
    /// The nearest heading, in artifacts of the chunker's first version.
    #[serde(default, skip_serializing)]
    heading: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    headings: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    page: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    sheet: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    rows: Option<(u32, u32)>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    table_header: Option<String>,
}

impl Artifact {
    /// The name to store an artifact under, by what it is made of.
    pub fn name(content_hash: &str, chunker_version: &str, revision: &str) -> String {
        format!("{content_hash}-{chunker_version}-{revision}")
    }

    /// As bytes.
    pub fn encode(&self) -> Vec<u8> {
        let head = Head {
            revision: self.revision.clone(),
            chunker_version: self.chunker_version.clone(),
            dimensions: self.vectors.first().map_or(0, Vec::len),
            text: self.text.clone(),
            chunks: self
                .chunks
                .iter()
                .map(|chunk| Place {
                    start: chunk.char_start,
                    end: chunk.char_end,
                    heading: None,
                    headings: chunk.place.headings.clone(),
                    page: chunk.place.page,
                    sheet: chunk.place.sheet.clone(),
                    rows: chunk.place.rows,
                    table_header: chunk.place.table_header.clone(),
                })
                .collect(),
        };
        let head = serde_json::to_vec(&head).expect("strings and numbers are always JSON");
        let mut bytes = FORMAT.to_vec();
        bytes.extend((head.len() as u64).to_le_bytes());
        bytes.extend(head);
        for number in self.vectors.iter().flatten() {
            bytes.extend(number.to_le_bytes());
        }
        let digest = Sha256::digest(&bytes);
        bytes.extend(digest);
        bytes
    }

    /// From the bytes of [`Artifact::encode`].
    pub fn decode(bytes: &[u8]) -> Result<Self, ArtifactError> {
        let rest = bytes
            .strip_prefix(FORMAT)
            .ok_or(ArtifactError::Damaged("it does not begin as an artifact does"))?;
        let content = bytes
            .len()
            .checked_sub(DIGEST_LENGTH)
            .ok_or(ArtifactError::Damaged("it is cut off"))?;
        if Sha256::digest(&bytes[..content])[..] != bytes[content..] {
            return Err(ArtifactError::Damaged("its checksum does not match"));
        }
        let rest = &rest[..rest.len() - DIGEST_LENGTH];
        let (length, rest) =
            rest.split_first_chunk::<8>().ok_or(ArtifactError::Damaged("it is cut off"))?;
        let (head, vectors) = usize::try_from(u64::from_le_bytes(*length))
            .ok()
            .and_then(|length| rest.split_at_checked(length))
            .ok_or(ArtifactError::Damaged("its head is cut off"))?;
        let head: Head = serde_json::from_slice(head)?;
        if vectors.len() != head.chunks.len() * head.dimensions * size_of::<f32>() {
            return Err(ArtifactError::Damaged("its vectors do not match its chunks"));
        }
        let numbers = vectors
            .as_chunks::<4>()
            .0
            .iter()
            .map(|bytes| f32::from_le_bytes(*bytes))
            .collect::<Vec<_>>();
        let vectors = numbers.chunks_exact(head.dimensions.max(1)).map(<[f32]>::to_vec).collect();
        let chunks = chunks(&head.text, head.chunks)
            .ok_or(ArtifactError::Damaged("its chunks lie outside its text"))?;
        Ok(Self {
            revision: head.revision,
            chunker_version: head.chunker_version,
            text: head.text,
            chunks,
            vectors,
        })
    }
}

/// The chunks with their texts, in one walk through the document.
fn chunks(text: &str, places: Vec<Place>) -> Option<Vec<Chunk>> {
    let (mut byte, mut character) = (0, 0);
    let mut to_byte = |target: u64| {
        let steps = usize::try_from(target.checked_sub(character)?).ok()?;
        // The offset of the character after `steps` others; the end of the text is one too.
        let mut offsets =
            text[byte..].char_indices().map(|(offset, _)| offset).chain([text.len() - byte]);
        byte += offsets.nth(steps)?;
        character = target;
        Some(byte)
    };
    (0..)
        .zip(places)
        .map(|(index, place)| {
            let Place { start, end, heading, mut headings, page, sheet, rows, table_header } =
                place;
            headings.extend(heading);
            let (first, last) = (to_byte(start)?, to_byte(end)?);
            Some(Chunk {
                index,
                text: text[first..last].to_owned(),
                char_start: start,
                char_end: end,
                place: chunk::Place { headings, page, sheet, rows, table_header },
            })
        })
        .collect()
}

#[cfg(test)]
#[path = "artifact_tests.rs"]
mod tests;
