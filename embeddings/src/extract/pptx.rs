//! Presentations (PPTX) into Markdown. The one rule: slides come in the order in which they are shown, each with its title as a heading
//! and its notes at its end.

use std::collections::HashMap;

use quick_xml::events::Event;

use super::markup::{attribute, escaped, text_of, walk};
use super::output::Output;
use super::package::{Package, relations_of, resolve};
use super::{Document, Landmark, rows};
use crate::error::ExtractError;

const FORMAT: &str = "PPTX";

const PRESENTATION: &str = "ppt/presentation.xml";

/// The text of all slides.
pub(super) fn document(bytes: &[u8], mut out: Output) -> Result<Document, ExtractError> {
    let mut package =
        Package::open(bytes).map_err(|error| ExtractError::malformed(FORMAT, error))?;
    let mut title = None;
    for (number, slide) in (1_u32..).zip(slides(&mut package)?) {
        let Some(shapes) = shapes(&mut package, &slide)? else { continue };
        out.paragraph()?;
        out.mark(Landmark::Page(number));
        let (titles, others): (Vec<Shape>, Vec<Shape>) = shapes
            .into_iter()
            .filter(|shape| !shape.lines.is_empty() || !shape.rows.is_empty())
            .partition(|shape| shape.kind == Kind::Title);
        for shape in titles {
            let text = shape.lines.join(" ");
            title.get_or_insert_with(|| text.clone());
            out.push("# ")?;
            out.push(&text)?;
            out.push("\n\n")?;
        }
        for shape in others.iter().filter(|shape| shape.kind != Kind::Furniture) {
            write(shape, &mut out)?;
        }
        let relations = relations(&mut package, &slide)?;
        let notes = relations.values().find(|relation| relation.kind.ends_with("/notesSlide"));
        let Some(notes) = notes else { continue };
        for shape in self::shapes(&mut package, &notes.target)?.unwrap_or_default() {
            if shape.kind == Kind::Text && !shape.lines.is_empty() {
                out.paragraph()?;
                out.push("Notes: ")?;
                out.push(&shape.lines.join("\n"))?;
                out.push("\n\n")?;
            }
        }
    }
    Ok(out.document(true, title))
}

fn write(shape: &Shape, out: &mut Output) -> Result<(), ExtractError> {
    if !shape.rows.is_empty() {
        return rows::table(out, &shape.rows, shape.rows.len() > 1);
    }
    if shape.lines.is_empty() {
        return Ok(());
    }
    out.paragraph()?;
    for line in &shape.lines {
        // One line each, also where Markdown would make one paragraph of them.
        out.push(&escaped(line))?;
        out.push("\n")?;
    }
    out.push("\n")
}

/// A relation of a part to another.
struct Relation {
    kind: String,
    target: String,
}

fn relations(
    package: &mut Package<'_>,
    part: &str,
) -> Result<HashMap<String, Relation>, ExtractError> {
    let mut relations = HashMap::new();
    let Some(mut reader) = package.part(FORMAT, &relations_of(part))? else { return Ok(relations) };
    walk(FORMAT, &mut reader, |event| {
        if let Event::Start(element) = event
            && let (Some(id), Some(kind), Some(target)) =
                (attribute(element, "Id"), attribute(element, "Type"), attribute(element, "Target"))
        {
            relations.insert(id, Relation { kind, target: resolve(part, &target) });
        }
        Ok(())
    })?;
    Ok(relations)
}

/// The parts of the slides, in the order in which they are shown.
fn slides(package: &mut Package<'_>) -> Result<Vec<String>, ExtractError> {
    let mut relations = relations(package, PRESENTATION)?;
    let mut slides = Vec::new();
    let Some(mut reader) = package.part(FORMAT, PRESENTATION)? else {
        return Err(ExtractError::malformed(FORMAT, "there is no presentation in it"));
    };
    walk(FORMAT, &mut reader, |event| {
        if let Event::Start(element) = event
            && element.local_name().as_ref() == b"sldId"
        {
            // It has an id of its own, and one of the relation.
            for attribute in element.attributes().with_checks(false).flatten() {
                if attribute.key.prefix().is_some() {
                    let relation = relations.remove(&*String::from_utf8_lossy(&attribute.value));
                    slides.extend(relation.map(|relation| relation.target));
                }
            }
        }
        Ok(())
    })?;
    Ok(slides)
}

/// What a shape is for.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
enum Kind {
    #[default]
    Text,
    Title,
    /// Page number, date, header, footer, or the picture of a slide.
    Furniture,
}

/// A shape with text.
#[derive(Default)]
struct Shape {
    kind: Kind,
    lines: Vec<String>,
    rows: Vec<Vec<String>>,
}

/// The shapes of a slide or of its notes; `None` when the part is not there.
fn shapes(package: &mut Package<'_>, part: &str) -> Result<Option<Vec<Shape>>, ExtractError> {
    let Some(mut reader) = package.part(FORMAT, part)? else { return Ok(None) };
    let mut shapes: Vec<Shape> = Vec::new();
    let mut shape = Shape::default();
    let (mut line, mut cell, mut row) = (String::new(), None::<String>, Vec::new());
    let (mut is_text, mut skipped) = (false, 0_usize);
    walk(FORMAT, &mut reader, |event| {
        match event {
            Event::Start(element)
                if skipped > 0 || element.local_name().as_ref() == b"Fallback" =>
            {
                skipped += 1;
            }
            Event::End(_) if skipped > 0 => skipped -= 1,
            _ if skipped > 0 => {}
            Event::Start(element) => match element.local_name().as_ref() {
                b"sp" | b"graphicFrame" => shape = Shape::default(),
                b"ph" => {
                    shape.kind = match attribute(element, "type").as_deref() {
                        Some("title" | "ctrTitle") => Kind::Title,
                        Some("sldNum" | "dt" | "ftr" | "hdr" | "sldImg") => Kind::Furniture,
                        _ => Kind::Text,
                    };
                }
                b"tc" => cell = Some(String::new()),
                b"t" => is_text = true,
                b"br" => line.push(' '),
                _ => {}
            },
            Event::End(element) => match element.local_name().as_ref() {
                b"t" => is_text = false,
                b"p" => {
                    let text = line.split_whitespace().collect::<Vec<_>>().join(" ");
                    line.clear();
                    match &mut cell {
                        Some(cell) => {
                            cell.push(' ');
                            cell.push_str(&text);
                        }
                        None if !text.is_empty() => shape.lines.push(text),
                        None => {}
                    }
                }
                b"tc" => row.push(cell.take().unwrap_or_default().trim().to_owned()),
                b"tr" => shape.rows.push(std::mem::take(&mut row)),
                b"sp" | b"graphicFrame" => shapes.push(std::mem::take(&mut shape)),
                _ => {}
            },
            event => {
                if let (true, Some(text)) = (is_text, text_of(event)) {
                    line.push_str(&text);
                }
            }
        }
        Ok(())
    })?;
    Ok(Some(shapes))
}
