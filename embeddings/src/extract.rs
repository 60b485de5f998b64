//! A file's bytes into text. The one rule: nothing is guessed in silence — bytes that are not what name and media type say, or not
//! text at all, end in an [`ExtractError`].
//!
//! What takes one walk over its characters is read where it is asked for; every other format only in a process of its own, under
//! bounds: see [`crate::Extractor`].

mod docx;
mod encoding;
mod format;
mod html;
mod json;
mod markup;
mod output;
mod package;
mod pdf;
mod pptx;
mod rows;
mod sheet;
mod table;
mod xml;

use serde::{Deserialize, Serialize};

use crate::error::ExtractError;
use format::Format;
pub use format::check_format;
use output::Output;

/// How much of a Markdown text is looked at for its title, in bytes.
const TITLE_WITHIN: usize = 1 << 18;

/// A file as text.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Document {
    /// All of its text; chunks are cut from it.
    pub text: String,
    /// Whether the text is Markdown, and is to be cut by its structure.
    pub markdown: bool,
    /// What the document calls itself.
    pub title: Option<String>,
    /// What begins where in the text, in order: the byte, and what it is.
    pub landmarks: Vec<(usize, Landmark)>,
}

/// Something that begins in a text.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Landmark {
    /// A page or slide, counted from 1.
    Page(u32),
    /// A sheet of a workbook.
    Sheet(String),
    /// A row of a sheet or table, as its program counts it, from 1.
    Row(u32),
    /// A heading (1 is the highest), where the text is not Markdown, which has its own.
    Heading(u8, String),
}

/// Whether a file is read in one walk over its characters, so that reading it needs no process of its own.
pub(crate) fn is_plain(file_name: &str, media_type: Option<&str>, bytes: &[u8]) -> bool {
    // What is no format at all costs nothing either.
    !format::is_container(bytes)
        && format::detect(file_name, media_type, bytes).map_or(true, Format::is_plain)
}

/// The text of a file of any format that can be read, of at most `limit` bytes.
///
/// # Errors
/// The file is not what it is said to be, is damaged, or holds no text or too much of it.
pub fn extract(
    file_name: &str,
    media_type: Option<&str>,
    bytes: &[u8],
    limit: usize,
) -> Result<Document, ExtractError> {
    let format = format::detect(file_name, media_type, bytes)?;
    let out = Output::new(limit);
    let document = match format {
        Format::Pdf => pdf::document(bytes, out)?,
        Format::Docx => docx::document(bytes, out)?,
        Format::Pptx => pptx::document(bytes, out)?,
        Format::Xlsx | Format::Xls | Format::Ods => sheet::document(format, bytes, out)?,
        text => characters(text, media_type, bytes, out)?,
    };
    if document.text.trim().is_empty() { Err(ExtractError::Empty) } else { Ok(document) }
}

/// The text of a format that is made of characters.
fn characters(
    format: Format,
    media_type: Option<&str>,
    bytes: &[u8],
    mut out: Output,
) -> Result<Document, ExtractError> {
    let label = media_type.and_then(format::charset).map(str::to_owned);
    let label = label.or_else(|| match format {
        Format::Html | Format::Xml => encoding::declared(bytes),
        _ => None,
    });
    let text = encoding::decode(bytes, label.as_deref())?;
    format::check_content(format, &text)?;
    match format {
        Format::Html => html::document(&text, out),
        Format::Xml => xml::document(&text, out),
        Format::Csv | Format::Tsv => table::document(format, &text, out),
        Format::Json | Format::JsonLines => json::document(format, &text, out),
        Format::Markdown => {
            // Its structure may take a hundred times its memory; what names a text stands in front.
            let front = &text[..text.floor_char_boundary(TITLE_WITHIN)];
            let title = crate::chunk::headings(front)
                .into_iter()
                .find(|heading| heading.level == 1)
                .map(|heading| heading.text);
            out.push(&text)?;
            Ok(Document { text, markdown: true, title, landmarks: Vec::new() })
        }
        _ => {
            out.push(&text)?;
            Ok(Document { text, ..Document::default() })
        }
    }
}

#[cfg(test)]
#[path = "extract/tests.rs"]
mod tests;
