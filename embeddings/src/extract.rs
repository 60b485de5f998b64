//! A file's bytes into text. The one rule: nothing is guessed in silence — bytes that are not what name and media type say, or not
//! text at all, end in an [`ExtractError`].

mod encoding;
mod format;
mod html;
mod json;
mod table;

use crate::error::ExtractError;
use format::Format;

/// A file as text.
#[derive(Clone, Debug, PartialEq)]
pub struct Document {
    /// All of its text; chunks are cut from it.
    pub text: String,
    /// Whether the text is Markdown, and is to be cut by its structure.
    pub markdown: bool,
    /// What the document calls itself.
    pub title: Option<String>,
}

/// The text of a TXT, Markdown, HTML, CSV, TSV, JSON or JSON lines file.
pub fn extract(
    file_name: &str,
    media_type: Option<&str>,
    bytes: &[u8],
) -> Result<Document, ExtractError> {
    let format = format::detect(file_name, media_type, bytes)?;
    let text = encoding::decode(bytes)?;
    format::check_content(format, &text)?;
    let document = match format {
        Format::Text => Document { text, markdown: false, title: None },
        Format::Markdown => {
            let title = crate::chunk::headings(&text)
                .into_iter()
                .find(|heading| heading.level == 1)
                .map(|heading| heading.text);
            Document { text, markdown: true, title }
        }
        Format::Html => html::document(&text)?,
        Format::Csv | Format::Tsv => {
            Document { text: table::text(format, &text)?, markdown: false, title: None }
        }
        Format::Json | Format::JsonLines => {
            Document { text: json::text(format, &text)?, markdown: false, title: None }
        }
    };
    if document.text.trim().is_empty() { Err(ExtractError::Empty) } else { Ok(document) }
}

#[cfg(test)]
#[path = "extract/tests.rs"]
mod tests;
