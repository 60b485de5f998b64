//! Word documents (DOCX) into Markdown. The one rule: headings are what the styles say they are; what was deleted, and what only
//! steers a field, is not read.

use std::collections::HashMap;

use quick_xml::events::{BytesStart, Event};

use super::markup::{attribute, escaped, is_on, text_of, walk};
use super::output::Output;
use super::package::Package;
use super::{Document, rows};
use crate::error::ExtractError;

const FORMAT: &str = "DOCX";

/// How many styles a style may be based on, one on the other.
const MAX_BASES: usize = 16;

/// The most columns of a table: what a cell says of its width is not believed past it.
const MAX_COLUMNS: usize = 256;

/// The parts that are read: the document, then its notes.
const PARTS: [&str; 3] = ["word/document.xml", "word/footnotes.xml", "word/endnotes.xml"];

/// The document's text.
pub(super) fn document(bytes: &[u8], mut out: Output) -> Result<Document, ExtractError> {
    let mut package =
        Package::open(bytes).map_err(|error| ExtractError::malformed(FORMAT, error))?;
    let styles = styles(&mut package)?;
    let mut title = None;
    let mut found = false;
    for part in PARTS {
        let Some(mut reader) = package.part(FORMAT, part)? else { continue };
        found = true;
        let mut body = Body { styles: &styles, title, ..Body::default() };
        walk(FORMAT, &mut reader, |event| body.hear(event, &mut out))?;
        title = body.title;
        out.paragraph()?;
    }
    if !found {
        return Err(ExtractError::malformed(FORMAT, "there is no document in it"));
    }
    Ok(out.document(true, title))
}

/// What the styles of paragraphs make of them.
#[derive(Default)]
struct Styles(HashMap<String, Style>);

#[derive(Clone, Default)]
struct Style {
    level: Option<u8>,
    is_title: bool,
    base: Option<String>,
}

impl Styles {
    /// The style itself, or the first one that it is based on of which something is known.
    fn of(&self, id: &str) -> Style {
        let mut id = id.to_owned();
        for _ in 0..MAX_BASES {
            let Some(style) = self.0.get(&id) else { break };
            if style.level.is_some() || style.is_title {
                return style.clone();
            }
            let Some(base) = &style.base else { break };
            id.clone_from(base);
        }
        Style::default()
    }
}

/// Level 1 to 6 of an outline that is counted from 0; 9 is the text itself.
fn level(outline: &str) -> Option<u8> {
    outline.parse::<u8>().ok().filter(|level| *level < 9).map(|level| level.min(5) + 1)
}

fn styles(package: &mut Package<'_>) -> Result<Styles, ExtractError> {
    let mut styles = Styles::default();
    let Some(mut reader) = package.part(FORMAT, "word/styles.xml")? else { return Ok(styles) };
    let mut current: Option<(String, Style)> = None;
    walk(FORMAT, &mut reader, |event| {
        match event {
            Event::Start(element) => match (element.local_name().as_ref(), &mut current) {
                (b"style", _) => {
                    current = attribute(element, "styleId").map(|id| (id, Style::default()));
                }
                (b"name", Some((_, style))) => {
                    let name = attribute(element, "val").unwrap_or_default().to_ascii_lowercase();
                    style.is_title = name == "title";
                    let number = name.strip_prefix("heading ").and_then(|it| it.parse::<u8>().ok());
                    style.level = style.level.or(number.map(|number| number.clamp(1, 6)));
                }
                (b"basedOn", Some((_, style))) => style.base = attribute(element, "val"),
                (b"outlineLvl", Some((_, style))) => {
                    style.level = style.level.or_else(|| level(&attribute(element, "val")?));
                }
                _ => {}
            },
            Event::End(element) if element.local_name().as_ref() == b"style" => {
                styles.0.extend(current.take());
            }
            _ => {}
        }
        Ok(())
    })?;
    Ok(styles)
}

/// A part that is being read.
#[derive(Default)]
struct Body<'a> {
    styles: &'a Styles,
    title: Option<String>,
    /// Paragraphs that are open: a text box stands in the midst of another one.
    paragraphs: Vec<Paragraph>,
    tables: Vec<Table>,
    /// Whether text is text here, and not markup between.
    is_text: bool,
    /// How deep we are in what is not read.
    skipped: usize,
}

impl Default for &Styles {
    fn default() -> Self {
        static NONE: std::sync::LazyLock<Styles> = std::sync::LazyLock::new(Styles::default);
        &NONE
    }
}

#[derive(Default)]
struct Paragraph {
    text: String,
    style: Style,
    is_item: bool,
}

#[derive(Default)]
struct Table {
    rows: Vec<Vec<String>>,
    row: Vec<String>,
    cell: String,
    /// How many columns the cell takes.
    width: usize,
    /// Whether the cell goes on what is above it.
    goes_on: bool,
    has_headings: bool,
}

impl Body<'_> {
    fn hear(&mut self, event: &Event<'_>, out: &mut Output) -> Result<(), ExtractError> {
        match event {
            Event::Start(element) if self.skipped > 0 || is_unread(element) => self.skipped += 1,
            Event::End(_) if self.skipped > 0 => self.skipped -= 1,
            _ if self.skipped > 0 => {}
            Event::Start(element) => self.open(element),
            Event::End(element) => self.close(element.local_name().as_ref(), out)?,
            event => {
                if let (true, Some(text), Some(paragraph)) =
                    (self.is_text, text_of(event), self.paragraphs.last_mut())
                {
                    paragraph.text.push_str(&text);
                }
            }
        }
        Ok(())
    }

    fn open(&mut self, element: &BytesStart<'_>) {
        let name = element.local_name();
        match name.as_ref() {
            b"p" => self.paragraphs.push(Paragraph::default()),
            b"t" => self.is_text = true,
            b"tbl" => self.tables.push(Table::default()),
            _ => {}
        }
        if let Some(paragraph) = self.paragraphs.last_mut() {
            match name.as_ref() {
                b"pStyle" => {
                    paragraph.style =
                        attribute(element, "val").map(|id| self.styles.of(&id)).unwrap_or_default();
                }
                b"outlineLvl" => {
                    paragraph.style.level = attribute(element, "val").and_then(|it| level(&it));
                }
                b"numPr" => paragraph.is_item = true,
                b"tab" => paragraph.text.push('\t'),
                b"br" | b"cr" => paragraph.text.push('\n'),
                b"noBreakHyphen" => paragraph.text.push('-'),
                _ => {}
            }
        }
        if let Some(table) = self.tables.last_mut() {
            match name.as_ref() {
                b"tc" => (table.width, table.goes_on) = (1, false),
                b"tblHeader" => table.has_headings |= table.rows.is_empty() && is_on(element),
                b"gridSpan" => {
                    let width = attribute(element, "val").and_then(|it| it.parse().ok());
                    table.width = width.unwrap_or(1).clamp(1, MAX_COLUMNS);
                }
                b"vMerge" => {
                    table.goes_on = attribute(element, "val").as_deref() != Some("restart")
                }
                _ => {}
            }
        }
    }

    fn close(&mut self, name: &[u8], out: &mut Output) -> Result<(), ExtractError> {
        match name {
            b"t" => self.is_text = false,
            b"p" => {
                let Some(paragraph) = self.paragraphs.pop() else { return Ok(()) };
                if paragraph.text.trim().is_empty() {
                    return Ok(());
                }
                if let Some(table) = self.tables.last_mut() {
                    // A line of its own in the cell, which becomes a blank.
                    table.cell.push('\n');
                    table.cell.push_str(&paragraph.text);
                    return Ok(());
                }
                self.write(&paragraph, out)?;
            }
            b"tc" => {
                if let Some(table) = self.tables.last_mut() {
                    table.end_cell();
                }
            }
            b"tr" => {
                if let Some(table) = self.tables.last_mut() {
                    let row = std::mem::take(&mut table.row);
                    table.rows.push(row);
                }
            }
            b"tbl" => {
                let Some(table) = self.tables.pop() else { return Ok(()) };
                match self.tables.last_mut() {
                    // A table in a cell is a part of its text.
                    Some(outer) => {
                        for row in table.rows {
                            outer.cell.push('\n');
                            outer.cell.push_str(&row.join(" "));
                        }
                    }
                    None => {
                        let has_headings = table.has_headings || table.looks_headed();
                        rows::table(out, &table.rows, has_headings)?;
                    }
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn write(&mut self, paragraph: &Paragraph, out: &mut Output) -> Result<(), ExtractError> {
        let style = &paragraph.style;
        if style.is_title || style.level.is_some() {
            let text = paragraph.text.split_whitespace().collect::<Vec<_>>().join(" ");
            if style.is_title {
                self.title.get_or_insert_with(|| text.clone());
            }
            out.paragraph()?;
            out.push(&"#".repeat(usize::from(style.level.unwrap_or(1))))?;
            out.push(" ")?;
            out.push(&text)?;
            return out.push("\n\n");
        }
        if paragraph.is_item {
            out.push("- ")?;
            out.push(&paragraph.text.trim().replace('\n', " "))?;
            return out.push("\n");
        }
        out.paragraph()?;
        out.push(&escaped(&paragraph.text))?;
        out.push("\n\n")
    }
}

impl Table {
    fn end_cell(&mut self) {
        let mut text = self.cell.split_whitespace().collect::<Vec<_>>().join(" ");
        self.cell.clear();
        if self.goes_on && text.is_empty() {
            let above = self.rows.last().and_then(|row| row.get(self.row.len()));
            text = above.cloned().unwrap_or_default();
        }
        // Whatever stands under a wide heading stands under that heading.
        let is_heading = self.rows.is_empty();
        self.row.push(text.clone());
        for _ in 1..self.width {
            self.row.push(if is_heading { text.clone() } else { String::new() });
        }
    }

    /// Whether the first row can be headings, though nothing says so.
    fn looks_headed(&self) -> bool {
        let first = self.rows.first().map_or(&[][..], Vec::as_slice);
        self.rows.len() > 1 && first.len() > 1 && first.iter().all(|cell| !cell.is_empty())
    }
}

/// What is not read: the older twin of a newer drawing, and properties of what a change was made from.
fn is_unread(element: &BytesStart<'_>) -> bool {
    matches!(
        element.local_name().as_ref(),
        b"Fallback" | b"del" | b"moveFrom" | b"pPrChange" | b"rPrChange" | b"instrText"
    )
}
