//! The cutting of a text, window by window. The one rule: what a window costs does not depend on how long the text is, so that the
//! whole costs as many times more as it is longer.
//!
//! The splitter looks, for each passage, at all the structure that is left of the text it was given: it is never given more than a
//! window. A window ends where the text bears it best: before a heading, a block, a paragraph, a line, a word. A table that does
//! not fit is cut here, between its rows.

use std::ops::Range;

use pulldown_cmark::{CodeBlockKind, Event, Options, Parser, Tag};
use text_splitter::{ChunkConfig, ChunkSizer, MarkdownSplitter, TextSplitter, TryChunkSizer};

use super::{Heading, MOST_OF_HEADING, headings};

/// How much text is given to the splitter at once, in bytes: eighty passages or so.
pub(super) const WINDOW: usize = 1 << 16;

/// What a window of plain text ends behind, the best first.
const SEAMS: [&str; 6] = ["\n\n", "\n\r\n", "\n", ". ", "。", " "];

/// Cuts the parts of one text, in their order.
pub(super) struct Cutter<'a, S, E> {
    text: &'a str,
    capacity: usize,
    sizer: &'a S,
    may_go_on: &'a dyn Fn() -> Result<(), E>,
    window: usize,
    /// What it was cut into so far: the byte that each piece starts at, and the piece.
    pub(super) pieces: Vec<(usize, &'a str)>,
    /// The headings of what was cut as Markdown.
    pub(super) headings: Vec<Heading>,
    /// The tables whose header is short enough to stand beside their rows.
    tables: Vec<Table>,
}

/// A table of a Markdown text, in bytes of it.
struct Table {
    header: Range<usize>,
    end: usize,
}

/// What begins in a window of Markdown, in bytes of the text.
struct Block {
    start: usize,
    end: usize,
    kind: Kind,
    /// How many others it stands in.
    depth: usize,
}

#[derive(PartialEq)]
enum Kind {
    Heading,
    Table,
    Fence,
    Other,
}

impl<'a, S: ChunkSizer, E> Cutter<'a, S, E> {
    pub(super) fn new(
        text: &'a str,
        capacity: usize,
        sizer: &'a S,
        may_go_on: &'a dyn Fn() -> Result<(), E>,
        window: usize,
    ) -> Self {
        let (pieces, headings, tables) = (Vec::new(), Vec::new(), Vec::new());
        Self { text, capacity, sizer, may_go_on, window, pieces, headings, tables }
    }

    /// A part that is one piece, if it fits.
    pub(super) fn whole(&mut self, part: Range<usize>) -> bool {
        let fits = self.size(part.clone()) <= self.capacity;
        if fits {
            self.push(part);
        }
        fits
    }

    /// Cuts a part by paragraphs, lines, sentences, words.
    pub(super) fn plain(&mut self, part: Range<usize>) -> Result<(), E> {
        self.plain_into(part, self.capacity)
    }

    fn plain_into(&mut self, part: Range<usize>, capacity: usize) -> Result<(), E> {
        let mut start = part.start;
        while start < part.end {
            let end = self.plain_seam(start, part.end);
            let splitter = TextSplitter::new(self.config(capacity));
            for piece in splitter.try_chunk_indices(&self.text[start..end]) {
                let (at, piece) = piece?;
                self.pieces.push((start + at, piece));
            }
            start = end;
        }
        Ok(())
    }

    /// Cuts a part by its Markdown.
    pub(super) fn markdown(&mut self, part: Range<usize>) -> Result<(), E> {
        let mut start = part.start;
        while start < part.end {
            (self.may_go_on)()?;
            start = self.window(start, part.end)?;
        }
        Ok(())
    }

    /// Cuts a window of Markdown, and says where the next one starts.
    fn window(&mut self, start: usize, end: usize) -> Result<usize, E> {
        let limit = self.line_end(start, end);
        let blocks = blocks(self.text, start..limit);
        if limit == end {
            self.blocks(start..end, &blocks)?;
            return Ok(end);
        }
        let half = start + (limit - start) / 2;
        let line_of = |block: &Block| self.text[..block.start].rfind('\n').map_or(0, |at| at + 1);
        let late = || blocks.iter().filter(|block| line_of(block) > half);
        let heading = late().rfind(|block| block.depth == 0 && block.kind == Kind::Heading);
        if let Some(block) = heading.or_else(|| late().rfind(|block| block.depth == 0)) {
            let seam = line_of(block);
            self.blocks(start..seam, &blocks)?;
            return Ok(seam);
        }
        // One block fills the second half. What it is would be forgotten at a seam: a table and a listing are cut to their ends.
        let last = |kind| blocks.iter().rfind(|block| block.kind == kind);
        let reaches = |block: &&Block| self.text[block.end..limit].trim().is_empty();
        if let Some(block) = last(Kind::Table).filter(reaches) {
            let table_end = self.end_of_table(limit, end);
            let is_led = self.blocks(start..block.start, &blocks)?;
            self.table(block.start..table_end, is_led)?;
            return Ok(table_end);
        }
        if let Some(block) = last(Kind::Fence).filter(|block| block.depth == 0).filter(reaches) {
            let fence_end = self.end_of_fence(block.start, end);
            self.blocks(start..block.start, &blocks)?;
            self.plain(block.start..fence_end)?;
            return Ok(fence_end);
        }
        let highest = late().map(|block| block.depth).min();
        let seam = match late().rfind(|block| Some(block.depth) == highest) {
            Some(block) => line_of(block),
            None => self.plain_seam(start, end),
        };
        self.blocks(start..seam, &blocks)?;
        Ok(seam)
    }

    /// Notes the headings of a range of Markdown.
    pub(super) fn headings_of(&mut self, range: Range<usize>) {
        let found = headings(&self.text[range.clone()]).into_iter();
        self.headings
            .extend(found.map(|heading| Heading { start: range.start + heading.start, ..heading }));
    }

    /// Cuts what was parsed, and notes its headings: tables that do not fit between their rows, all else by its structure. Answers
    /// whether the last of it was no table.
    fn blocks(&mut self, range: Range<usize>, blocks: &[Block]) -> Result<bool, E> {
        self.headings_of(range.clone());
        let mut start = range.start;
        for block in blocks.iter().filter(|block| block.kind == Kind::Table) {
            if block.start < start || block.end > range.end {
                continue;
            }
            if self.size(block.start..block.end) <= self.capacity {
                self.room_beside_header(block.start..block.end);
                continue;
            }
            let is_led = self.structured(start..block.start)?;
            self.table(block.start..block.end, is_led)?;
            start = block.end;
        }
        self.structured(start..range.end)
    }

    /// Answers whether there was anything.
    fn structured(&mut self, range: Range<usize>) -> Result<bool, E> {
        let before = self.pieces.len();
        let splitter = MarkdownSplitter::new(self.config(self.capacity));
        for piece in splitter.try_chunk_indices(&self.text[range.clone()]) {
            let (at, piece) = piece?;
            self.pieces.push((range.start + at, piece));
        }
        Ok(self.pieces.len() > before)
    }

    /// Cuts a table between its rows, so that its header can stand beside each piece. What leads to it goes with its first rows.
    fn table(&mut self, table: Range<usize>, is_led: bool) -> Result<(), E> {
        let room = self.room_beside_header(table.clone());
        let mut end = table.start;
        let lines = self.text[table.clone()].split_inclusive('\n').map(|line| {
            end += line.len();
            (end - line.len(), end)
        });
        let lines: Vec<(usize, usize)> = lines.collect();
        let mut start = table.start;
        let lead = self.pieces.last().map(|(lead, _)| *lead).filter(|_| is_led);
        if let (Some(lead), Some((_, first))) = (lead, lines.get(2).or(lines.last()))
            && self.size(lead..*first) <= room
        {
            self.pieces.pop();
            start = lead;
        }
        let mut taken = start;
        for (line, end) in lines {
            (self.may_go_on)()?;
            if self.size(start..end) <= room {
                taken = end;
                continue;
            }
            self.push(start..taken);
            start = line;
            taken = end;
            if self.size(line..end) > room {
                self.plain_into(line..end, room)?;
                start = end;
            }
        }
        self.push(start..taken);
        Ok(())
    }

    /// How much of a table fits beside its header. A header that takes more than half of that stands alone.
    fn room_beside_header(&mut self, table: Range<usize>) -> usize {
        let line = self.text[table.clone()].lines().next().unwrap_or_default().trim_end();
        let header = table.start..table.start + line.len();
        let size = self.size(header.clone());
        if size > self.capacity / 2 || line.len() > MOST_OF_HEADING {
            return self.capacity;
        }
        self.tables.push(Table { header, end: table.end });
        self.capacity - size
    }

    /// The headers of the tables that pieces begin in, piece by piece; none for a piece that begins with it.
    pub(super) fn headers(&self) -> impl Iterator<Item = Option<&'a str>> {
        let mut tables = self.tables.iter().peekable();
        self.pieces.iter().map(move |(start, piece)| {
            while tables.next_if(|table| table.end <= *start).is_some() {}
            let table = tables.peek().filter(|table| table.header.end < *start)?;
            let fits = self.size(table.header.clone()) + self.sizer.size(piece) <= self.capacity;
            fits.then(|| &self.text[table.header.clone()])
        })
    }

    /// The end of a table that goes on where a window ends.
    fn end_of_table(&self, limit: usize, end: usize) -> usize {
        let window = &self.text[..limit];
        let mut at = limit;
        match window[window.trim_end().len()..].matches('\n').count() {
            0 => at += self.text[limit..end].split_inclusive('\n').next().map_or(0, str::len),
            1 => {}
            // It ended with an empty line.
            _ => return limit,
        }
        let is_row = |line: &&str| {
            let line = line.trim_start();
            !line.is_empty() && !["#", ">", "```", "~~~"].iter().any(|mark| line.starts_with(mark))
        };
        at + self.text[at..end]
            .split_inclusive('\n')
            .take_while(is_row)
            .map(str::len)
            .sum::<usize>()
    }

    /// The end of a listing between fences, its last line with it.
    fn end_of_fence(&self, start: usize, end: usize) -> usize {
        let open = self.text[start..end].trim_start();
        let mark = open.chars().next().unwrap_or('`');
        let length = open.len() - open.trim_start_matches(mark).len();
        let mut at = start;
        for (number, line) in self.text[start..end].split_inclusive('\n').enumerate() {
            at += line.len();
            let line = line.trim();
            if number > 0 && line.len() >= length && line.trim_start_matches(mark).is_empty() {
                break;
            }
        }
        at
    }

    /// Where a window that starts there ends at the latest.
    fn limit(&self, start: usize, end: usize) -> usize {
        let limit = self.text.floor_char_boundary(start.saturating_add(self.window));
        self.text.ceil_char_boundary(limit.max(start + 1)).min(end)
    }

    /// As [`Cutter::limit`], behind a whole line, if there is one: half a row of a table is none.
    fn line_end(&self, start: usize, end: usize) -> usize {
        let limit = self.limit(start, end);
        if limit == end {
            return end;
        }
        self.text[start..limit].rfind('\n').map_or(limit, |at| start + at + 1)
    }

    /// Where a window of plain text ends.
    fn plain_seam(&self, start: usize, end: usize) -> usize {
        let limit = self.limit(start, end);
        if limit == end {
            return end;
        }
        let half = self.text.floor_char_boundary(start + (limit - start) / 2);
        let late = &self.text[half..limit];
        let mut seams = SEAMS.iter();
        let seam = seams.find_map(|seam| late.rfind(seam).map(|at| half + at + seam.len()));
        seam.unwrap_or(limit)
    }

    fn size(&self, range: Range<usize>) -> usize {
        self.sizer.size(self.text[range].trim())
    }

    /// Adds a piece without the space around it, unless there is nothing else.
    fn push(&mut self, range: Range<usize>) {
        let part = &self.text[range.clone()];
        let piece = part.trim();
        if !piece.is_empty() {
            self.pieces.push((range.start + part.len() - part.trim_start().len(), piece));
        }
    }

    fn config(&self, capacity: usize) -> ChunkConfig<Watched<'a, S, E>> {
        let watched = Watched { sizer: self.sizer, may_go_on: self.may_go_on };
        ChunkConfig::new(capacity).with_sizer(watched)
    }
}

/// Counts, for as long as it is wanted.
struct Watched<'a, S, E> {
    sizer: &'a S,
    may_go_on: &'a dyn Fn() -> Result<(), E>,
}

impl<S: ChunkSizer, E> TryChunkSizer for Watched<'_, S, E> {
    type Error = E;

    fn try_size(&self, part: &str) -> Result<usize, E> {
        (self.may_go_on)()?;
        Ok(self.sizer.size(part))
    }
}

/// The blocks of a part of a text, parsed alone, in their order.
fn blocks(text: &str, part: Range<usize>) -> Vec<Block> {
    let mut blocks = Vec::new();
    let mut depth = 0_usize;
    for (event, range) in Parser::new_ext(&text[part.clone()], Options::all()).into_offset_iter() {
        let kind = match &event {
            Event::Start(tag) => kind(tag),
            Event::Rule => Some(Kind::Other),
            _ => None,
        };
        if let Some(kind) = kind {
            let (start, end) = (part.start + range.start, part.start + range.end);
            blocks.push(Block { start, end, kind, depth });
        }
        match event {
            Event::Start(_) => depth += 1,
            Event::End(_) => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    blocks
}

/// What a block is; `None` for what stands in a line.
fn kind(tag: &Tag<'_>) -> Option<Kind> {
    match tag {
        Tag::Heading { .. } => Some(Kind::Heading),
        Tag::Table(_) => Some(Kind::Table),
        Tag::CodeBlock(CodeBlockKind::Fenced(_)) => Some(Kind::Fence),
        Tag::Emphasis
        | Tag::Strong
        | Tag::Strikethrough
        | Tag::Superscript
        | Tag::Subscript
        | Tag::Link { .. }
        | Tag::Image { .. }
        | Tag::TableHead
        | Tag::TableCell => None,
        _ => Some(Kind::Other),
    }
}
