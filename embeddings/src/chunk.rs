//! A document into chunks that the model can read whole. The one rule: a chunk's text is exactly the document's characters from
//! `char_start` to `char_end`.

use pulldown_cmark::{Event, HeadingLevel, Options, Parser, Tag, TagEnd};
use text_splitter::{ChunkConfig, ChunkSizer, MarkdownSplitter, TextSplitter};

use crate::extract::Document;

/// Changes whenever the same document would be cut in another way: artifacts made before are then made anew.
pub const CHUNKER_VERSION: &str = "1";

/// A piece of a document.
#[derive(Clone, Debug, PartialEq)]
pub struct Chunk {
    /// Its place among the document's chunks, from 0.
    pub index: u32,
    /// Its text.
    pub text: String,
    /// Where it starts, in Unicode scalar values of the document's text.
    pub char_start: u64,
    /// Where it ends (the first that is not in it).
    pub char_end: u64,
    /// The Markdown heading it stands under.
    pub heading: Option<String>,
}

/// Cuts a document into chunks of at most `capacity` by `sizer`: by headings, paragraphs, sentences, words — the largest that fit.
pub(crate) fn split(document: &Document, capacity: usize, sizer: impl ChunkSizer) -> Vec<Chunk> {
    let text = document.text.as_str();
    let whole = text.trim();
    let places: Vec<(usize, &str)> = if whole.is_empty() {
        Vec::new()
    } else if sizer.size(whole) <= capacity {
        vec![(text.len() - text.trim_start().len(), whole)]
    } else {
        let config = ChunkConfig::new(capacity).with_sizer(sizer);
        if document.markdown {
            MarkdownSplitter::new(config).chunk_indices(text).collect()
        } else {
            TextSplitter::new(config).chunk_indices(text).collect()
        }
    };
    let headings = if document.markdown { headings(text) } else { Vec::new() };

    // Bytes become characters by counting on from the chunk before: chunks come in order and do not overlap.
    let (mut byte, mut character) = (0, 0);
    let mut chunks = Vec::with_capacity(places.len());
    for (index, (start, text_of_chunk)) in (0..).zip(places) {
        character += text[byte..start].chars().count() as u64;
        byte = start;
        let heading = headings
            .iter()
            .rev()
            .find(|heading| heading.start <= start)
            .map(|heading| heading.text.clone());
        let char_end = character + text_of_chunk.chars().count() as u64;
        chunks.push(Chunk {
            index,
            text: text_of_chunk.to_owned(),
            char_start: character,
            char_end,
            heading,
        });
    }
    chunks
}

/// A heading of a Markdown document.
pub(crate) struct Heading {
    /// The byte it starts at.
    pub(crate) start: usize,
    /// 1 is the highest.
    pub(crate) level: u8,
    pub(crate) text: String,
}

/// The headings of a Markdown document, in order.
pub(crate) fn headings(markdown: &str) -> Vec<Heading> {
    let mut headings = Vec::new();
    let mut open: Option<Heading> = None;
    for (event, range) in
        Parser::new_ext(markdown, Options::ENABLE_HEADING_ATTRIBUTES).into_offset_iter()
    {
        match (event, &mut open) {
            (Event::Start(Tag::Heading { level, .. }), _) => {
                open =
                    Some(Heading { start: range.start, level: number(level), text: String::new() });
            }
            (Event::End(TagEnd::Heading(_)), _) => {
                headings.extend(open.take().filter(|heading| !heading.text.trim().is_empty()));
            }
            (Event::Text(text) | Event::Code(text), Some(heading)) => heading.text.push_str(&text),
            (Event::SoftBreak | Event::HardBreak, Some(heading)) => heading.text.push(' '),
            _ => {}
        }
    }
    headings
}

fn number(level: HeadingLevel) -> u8 {
    match level {
        HeadingLevel::H1 => 1,
        HeadingLevel::H2 => 2,
        HeadingLevel::H3 => 3,
        HeadingLevel::H4 => 4,
        HeadingLevel::H5 => 5,
        HeadingLevel::H6 => 6,
    }
}

#[cfg(test)]
#[path = "chunk_tests.rs"]
mod tests;
