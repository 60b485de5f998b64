//! The layer of text of a PDF. The one rule: text comes in the order in which the file draws it, which is the order in which it was
//! written; where it stands on the page tells words, lines and paragraphs apart, and its size tells headings.

use hayro_interpret::font::Glyph;
use hayro_interpret::hayro_cmap::BfString;
use hayro_interpret::hayro_syntax::{DecryptionError, LoadPdfError, Pdf};
use hayro_interpret::{
    BlendMode, ClipPath, Context, Device, GlyphDrawMode, Image, InterpreterCache,
    InterpreterSettings, Paint, PathDrawMode, SoftMask, TransformExt, interpret_page,
};
use kurbo::{Affine, BezPath, Point, Rect};

use super::output::Output;
use super::{Document, Landmark};
use crate::error::ExtractError;

/// Fonts count a thousand units to their size.
const UNITS: f64 = 1000.0;

/// A gap of this share of the font's size is a blank, in files that write none.
const BLANK: f64 = 0.18;

/// Lines that are further apart than this many times the font's size are two paragraphs.
const LEADING: f64 = 1.75;

/// How much larger than most of the text a heading is, at least.
const LARGER: f64 = 1.12;

/// A heading is not longer than this.
const MAX_HEADING: usize = 200;

/// The most levels of headings.
const MAX_LEVELS: usize = 6;

/// The text, page by page.
pub(super) fn document(bytes: &[u8], mut out: Output) -> Result<Document, ExtractError> {
    let pdf = Pdf::new(bytes.to_vec()).map_err(|error| match error {
        LoadPdfError::Decryption(DecryptionError::PasswordProtected) => {
            ExtractError::PasswordProtected { format: "PDF document".to_owned() }
        }
        LoadPdfError::Decryption(error) => {
            ExtractError::malformed("PDF", format!("its encryption is unknown ({error:?})"))
        }
        LoadPdfError::Invalid => ExtractError::malformed("PDF", "it is damaged beyond repair"),
    })?;
    let cache = InterpreterCache::new();
    let mut pages: Vec<Vec<Line>> = Vec::new();
    let mut length = 0;
    for page in pdf.pages().iter() {
        let mut reader = PageReader::default();
        let (width, height) = page.render_dimensions();
        let visible = Rect::new(0.0, 0.0, f64::from(width), f64::from(height));
        let upright = page.initial_transform(true).to_kurbo();
        let settings = InterpreterSettings::default();
        let mut context = Context::new(upright, visible, &cache, pdf.xref(), settings);
        interpret_page(page, &mut context, &mut reader);
        let lines = reader.lines();
        length += lines.iter().map(|line| line.text.len()).sum::<usize>();
        // Said before the whole of it is in memory.
        out.check(length)?;
        pages.push(lines);
    }
    if length == 0 {
        return Err(ExtractError::NoTextLayer);
    }
    let sizes = Sizes::of(&pages);
    for (number, lines) in (1_u32..).zip(&pages) {
        out.paragraph()?;
        out.mark(Landmark::Page(number));
        write(lines, &sizes, &mut out)?;
    }
    Ok(out.document(false, pdf.metadata().title.as_deref().map(text_string)))
}

/// Writes the lines of a page as paragraphs.
fn write(lines: &[Line], sizes: &Sizes, out: &mut Output) -> Result<(), ExtractError> {
    let mut rest = lines;
    while let Some(first) = rest.first() {
        let level = sizes.level(first);
        let follows = |pair: &[Line]| sizes.level(&pair[1]) == level && pair[1].continues(&pair[0]);
        let length = 1 + rest.windows(2).take_while(|pair| follows(pair)).count();
        let (paragraph, after) = rest.split_at(length);
        rest = after;
        let text = paragraph.iter().map(|line| line.text.as_str()).collect::<Vec<_>>().join(" ");
        out.paragraph()?;
        if let Some(level) = level {
            out.mark(Landmark::Heading(level, text.clone()));
        }
        out.push(&text)?;
        out.push("\n\n")?;
    }
    Ok(())
}

/// A line of text.
struct Line {
    text: String,
    size: f64,
    baseline: f64,
}

impl Line {
    /// Whether this line belongs to the same paragraph as the one before it.
    fn continues(&self, before: &Line) -> bool {
        let size = self.size.max(before.size);
        let down = self.baseline - before.baseline;
        let is_same_size = (self.size - before.size).abs() < 0.1 * size;
        is_same_size && down > -0.5 * size && down < LEADING * size
    }
}

/// How large text is in this document.
struct Sizes {
    /// The sizes of headings, the largest first.
    headings: Vec<f64>,
}

impl Sizes {
    fn of(pages: &[Vec<Line>]) -> Sizes {
        // How many characters there are of each size, in tenths of a point.
        let mut counts = std::collections::BTreeMap::<u64, usize>::new();
        for line in pages.iter().flatten() {
            *counts.entry(tenths(line.size)).or_default() += line.text.chars().count();
        }
        let body = counts.iter().max_by_key(|(_, count)| **count).map_or(0, |(size, _)| *size);
        let least = body as f64 * LARGER;
        let larger = counts.into_keys().rev().filter(|size| *size as f64 > least);
        Sizes { headings: larger.map(|size| size as f64 / 10.0).collect() }
    }

    /// The level of a heading, if the line is one.
    fn level(&self, line: &Line) -> Option<u8> {
        let is_short = line.text.len() <= MAX_HEADING && line.text.contains(char::is_alphabetic);
        let size = tenths(line.size) as f64 / 10.0;
        let place = self.headings.iter().position(|heading| *heading == size)?;
        is_short.then(|| u8::try_from(place.min(MAX_LEVELS - 1) + 1).unwrap_or(u8::MAX))
    }
}

fn tenths(size: f64) -> u64 {
    (size * 10.0).round() as u64
}

/// Hears what is drawn on a page, and remembers the text.
#[derive(Default)]
struct PageReader {
    lines: Vec<Line>,
    /// Where the next glyph of the line would stand.
    pen: Option<Point>,
}

impl PageReader {
    fn glyph(&mut self, text: &str, at: Point, end: Point, size: f64) {
        if !(at.x.is_finite() && at.y.is_finite() && size.is_finite()) || size <= 0.0 {
            return;
        }
        // (A soft hyphen is where a word may be broken, and none of its letters.)
        let text: String = text.chars().filter(|it| !it.is_control() && *it != '\u{ad}').collect();
        let blank = text.trim().is_empty();
        let goes_on = match (self.lines.last_mut(), self.pen) {
            (Some(line), Some(pen)) => {
                let is_level = (at.y - line.baseline).abs() < 0.5 * size.max(line.size);
                let gap = at.x - pen.x;
                let goes_on = is_level && gap > -2.0 * size;
                if goes_on && (blank || gap > BLANK * size) && !line.text.ends_with(' ') {
                    line.text.push(' ');
                }
                goes_on
            }
            _ => false,
        };
        self.pen = Some(end);
        if blank {
            return;
        }
        if !goes_on {
            self.lines.push(Line { text: String::new(), size, baseline: at.y });
        }
        if let Some(line) = self.lines.last_mut() {
            line.text.push_str(&text);
            // A raised number is no sign of the size of a line.
            if size > line.size {
                (line.size, line.baseline) = (size, at.y);
            }
        }
    }

    fn lines(mut self) -> Vec<Line> {
        for line in &mut self.lines {
            line.text.truncate(line.text.trim_end().len());
        }
        self.lines.retain(|line| !line.text.is_empty());
        self.lines
    }
}

impl Device<'_> for PageReader {
    fn draw_glyph(
        &mut self,
        glyph: &Glyph<'_>,
        transform: Affine,
        glyph_transform: Affine,
        _: &Paint<'_>,
        _: &GlyphDrawMode,
    ) {
        let Some(text) = glyph.as_unicode() else { return };
        let place = transform * glyph_transform;
        let at = place * Point::ZERO;
        let advance = match glyph {
            Glyph::Outline(glyph) => glyph.advance_width().map_or(0.5 * UNITS, f64::from),
            Glyph::Type3(_) => 0.5 * UNITS,
        };
        let end = place * Point::new(advance, 0.0);
        let size = (place * Point::new(0.0, UNITS) - at).hypot();
        match text {
            BfString::Char(character) => {
                self.glyph(character.encode_utf8(&mut [0; 4]), at, end, size);
            }
            BfString::String(text) => self.glyph(&text, at, end, size),
        }
    }

    fn set_soft_mask(&mut self, _: Option<SoftMask<'_>>) {}
    fn set_blend_mode(&mut self, _: BlendMode) {}
    fn draw_path(&mut self, _: &BezPath, _: Affine, _: &Paint<'_>, _: &PathDrawMode) {}
    fn push_clip_path(&mut self, _: &ClipPath) {}
    fn push_transparency_group(&mut self, _: f32, _: Option<SoftMask<'_>>, _: BlendMode) {}
    fn draw_image(&mut self, _: Image<'_, '_>, _: Affine) {}
    fn pop_clip_path(&mut self) {}
    fn pop_transparency_group(&mut self) {}
}

/// A text string of PDF: UTF-16 or UTF-8 with a byte order mark, else (nearly) Latin-1.
fn text_string(bytes: &[u8]) -> String {
    match bytes {
        [0xfe, 0xff, rest @ ..] => {
            let (pairs, _) = rest.as_chunks::<2>();
            let units = pairs.iter().map(|pair| u16::from_be_bytes(*pair));
            char::decode_utf16(units).filter_map(Result::ok).collect()
        }
        [0xef, 0xbb, 0xbf, rest @ ..] => String::from_utf8_lossy(rest).into_owned(),
        other => other.iter().copied().map(char::from).collect(),
    }
}
