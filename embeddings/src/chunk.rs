//! A document into chunks that the model can read whole. The one rule: a chunk's text is exactly the document's characters from
//! `char_start` to `char_end`, and no chunk reaches across the end of a page, a slide or a sheet.

mod cutter;

use std::borrow::Cow;
use std::ops::Range;

use pulldown_cmark::{Event, HeadingLevel, Options, Parser, Tag, TagEnd};
use text_splitter::ChunkSizer;

use crate::extract::{Document, Landmark};
use cutter::{Cutter, WINDOW};

/// Changes whenever the same file would be read or cut in another way: artifacts made before are then made anew.
pub const CHUNKER_VERSION: &str = "3";

/// How much of a heading every chunk under it carries, in characters.
const MOST_OF_HEADING: usize = 1000;

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
    /// Where in the file that is.
    pub place: Place,
}

/// Where in its file a chunk stands, as a reader of the file would say it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Place {
    /// The headings that it stands under, from the highest to the nearest.
    pub headings: Vec<String>,
    /// The page or slide, from 1.
    pub page: Option<u32>,
    /// The sheet of a workbook.
    pub sheet: Option<String>,
    /// The first and the last row of the sheet or table, from 1.
    pub rows: Option<(u32, u32)>,
    /// The header of the Markdown table whose rows it begins with, as it stands further up in the text.
    pub table_header: Option<String>,
}

impl Chunk {
    /// What is to be read and found of it: its text, under the header of its table.
    pub fn passage(&self) -> Cow<'_, str> {
        match &self.place.table_header {
            Some(header) => Cow::Owned(format!("{header}\n{}", self.text)),
            None => Cow::Borrowed(&self.text),
        }
    }
}

/// Cuts a document into chunks of at most `capacity` by `sizer`: by headings, paragraphs, sentences, words — the largest that fit.
/// `may_go_on` is asked before every look at a part of it.
pub(crate) fn split<E>(
    document: &Document,
    capacity: usize,
    sizer: &impl ChunkSizer,
    may_go_on: &dyn Fn() -> Result<(), E>,
) -> Result<Vec<Chunk>, E> {
    split_by(WINDOW, document, capacity, sizer, may_go_on)
}

fn split_by<E>(
    window: usize,
    document: &Document,
    capacity: usize,
    sizer: &impl ChunkSizer,
    may_go_on: &dyn Fn() -> Result<(), E>,
) -> Result<Vec<Chunk>, E> {
    let text = document.text.as_str();
    let mut cutter = Cutter::new(text, capacity, sizer, may_go_on, window);
    for part in parts(document) {
        may_go_on()?;
        // (A part of Markdown that fits has headings all the same.)
        match (cutter.whole(part.clone()), document.markdown) {
            (true, false) => {}
            (true, true) => cutter.headings_of(part),
            (false, true) => cutter.markdown(part)?,
            (false, false) => cutter.plain(part)?,
        }
    }
    let headers: Vec<_> = cutter.headers().collect();
    let mut signs = Signs::of(document, cutter.headings);
    // Bytes become characters by counting on from the chunk before: chunks come in order and do not overlap.
    let (mut byte, mut character) = (0, 0);
    let mut chunks = Vec::with_capacity(cutter.pieces.len());
    for (index, ((start, text_of_chunk), header)) in
        (0..).zip(cutter.pieces.into_iter().zip(headers))
    {
        character += text[byte..start].chars().count() as u64;
        byte = start;
        let char_end = character + text_of_chunk.chars().count() as u64;
        let mut place = signs.place(start, start + text_of_chunk.len());
        place.table_header = header.map(str::to_owned);
        chunks.push(Chunk {
            index,
            text: text_of_chunk.to_owned(),
            char_start: character,
            char_end,
            place,
        });
    }
    Ok(chunks)
}

/// The document cut where a page, a slide or a sheet begins: the bytes of each part.
fn parts(document: &Document) -> Vec<Range<usize>> {
    let begins = |landmark: &Landmark| matches!(landmark, Landmark::Page(_) | Landmark::Sheet(_));
    let cuts = document.landmarks.iter().filter(|(_, landmark)| begins(landmark));
    let mut parts = Vec::new();
    let mut start = 0;
    for cut in cuts.map(|(cut, _)| *cut).chain([document.text.len()]) {
        // What stood at the end of the text may have been cut off.
        let cut = cut.min(document.text.len());
        parts.push(start..cut);
        start = cut;
    }
    parts
}

/// The landmarks of a document, passed one after the other.
struct Signs {
    /// By the byte they stand at, the next one last.
    ahead: Vec<(usize, Landmark)>,
    /// The headings that are open, with their levels.
    open: Vec<(u8, String)>,
    page: Option<u32>,
    sheet: Option<String>,
    row: Option<u32>,
}

impl Signs {
    fn of(document: &Document, headings: Vec<Heading>) -> Self {
        let mut ahead = document.landmarks.clone();
        let headings = headings.into_iter();
        ahead.extend(
            headings.map(|heading| (heading.start, Landmark::Heading(heading.level, heading.text))),
        );
        // (Stable: a page begins before its heading does.)
        ahead.sort_by_key(|(at, _)| *at);
        ahead.reverse();
        Self { ahead, open: Vec::new(), page: None, sheet: None, row: None }
    }

    /// The place of the bytes from `start` to `end`, which lie behind those asked for before.
    fn place(&mut self, start: usize, end: usize) -> Place {
        while let Some((_, landmark)) = self.ahead.pop_if(|(at, _)| *at <= start) {
            self.pass(landmark);
        }
        let inside = self.ahead.iter().rev().take_while(|(at, _)| *at < end);
        let rows = inside.filter_map(|(_, landmark)| match landmark {
            Landmark::Row(row) => Some(*row),
            _ => None,
        });
        let (first, last) =
            rows.fold((self.row, self.row), |(first, _), row| (first.or(Some(row)), Some(row)));
        Place {
            headings: self.open.iter().map(|(_, text)| text.clone()).collect(),
            page: self.page,
            sheet: self.sheet.clone(),
            rows: first.zip(last),
            table_header: None,
        }
    }

    fn pass(&mut self, landmark: Landmark) {
        match landmark {
            Landmark::Page(page) => self.page = Some(page),
            Landmark::Sheet(sheet) => (self.sheet, self.row) = (Some(sheet), None),
            Landmark::Row(row) => self.row = Some(row),
            Landmark::Heading(level, mut text) => {
                if let Some((end, _)) = text.char_indices().nth(MOST_OF_HEADING) {
                    text.truncate(end);
                }
                self.open.retain(|(open, _)| *open < level);
                self.open.push((level, text));
            }
        }
    }
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
