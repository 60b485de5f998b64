//! Any XML into text. The one rule: what stands in an element of its own keeps the element's name, as `author: Frank Herbert`; text
//! with elements inside stays one paragraph.

use quick_xml::Reader;
use quick_xml::events::{BytesStart, Event};

use super::markup::{text_of, walk};
use super::output::Output;
use super::{Document, Landmark};
use crate::error::ExtractError;

/// The element that names what stands beside and below it, in most kinds of XML.
const TITLE: &str = "title";

/// An element that is open.
struct Open {
    name: String,
    text: String,
    /// Whether elements stand in the midst of its text.
    is_mixed: bool,
    /// Whether elements stand in it that are written by themselves.
    has_children: bool,
}

/// The document's text.
pub(super) fn document(xml: &str, mut out: Output) -> Result<Document, ExtractError> {
    let mut reader = Reader::from_str(xml);
    reader.config_mut().expand_empty_elements = true;
    let mut open: Vec<Open> = Vec::new();
    let mut title = None;
    let mut any = false;
    walk("XML", &mut reader, |event| {
        match event {
            Event::Start(element) => {
                any = true;
                let name = String::from_utf8_lossy(element.local_name().as_ref()).into_owned();
                let is_inline = open.last_mut().is_some_and(|parent| {
                    parent.is_mixed |= !parent.text.trim().is_empty();
                    parent.has_children |= !parent.is_mixed;
                    parent.is_mixed
                });
                if !is_inline {
                    attributes(element, &name, &mut out)?;
                }
                open.push(Open { name, text: String::new(), is_mixed: false, has_children: false });
            }
            Event::End(_) => {
                let Some(element) = open.pop() else { return Ok(()) };
                let is_inline = open.last().is_some_and(|parent| parent.is_mixed);
                match open.last_mut() {
                    Some(parent) if is_inline && !element.has_children => {
                        parent.text.push_str(&element.text);
                    }
                    _ if element.text.trim().is_empty() => {
                        // The end of a group.
                        if element.has_children {
                            out.paragraph()?;
                        }
                    }
                    _ => {
                        if element.name == TITLE {
                            let text = even(&element.text);
                            let level = u8::try_from(open.len()).unwrap_or(u8::MAX);
                            out.mark(Landmark::Heading(level, text.clone()));
                            title.get_or_insert(text);
                        }
                        let is_leaf = !element.has_children && !element.is_mixed;
                        let name = if is_leaf { element.name.as_str() } else { "" };
                        line(&mut out, name, &element.text)?;
                    }
                }
            }
            event => {
                if let (Some(text), Some(element)) = (text_of(event), open.last_mut()) {
                    element.text.push_str(&text);
                }
            }
        }
        Ok(())
    })?;
    if !any {
        return Err(ExtractError::malformed("XML", "there is no element in it"));
    }
    Ok(out.document(false, title))
}

fn attributes(element: &BytesStart<'_>, name: &str, out: &mut Output) -> Result<(), ExtractError> {
    for attribute in element.attributes().with_checks(false).flatten() {
        let key = String::from_utf8_lossy(attribute.key.as_ref());
        // What XML says about itself.
        if ["xmlns", "xsi:", "xml:"].iter().any(|prefix| key.starts_with(prefix)) {
            continue;
        }
        let key = key.rsplit_once(':').map_or(&*key, |(_, key)| key);
        let value = String::from_utf8_lossy(&attribute.value);
        let value = quick_xml::escape::unescape(&value).unwrap_or_else(|_| value.clone());
        line(out, &format!("{name} {key}"), &value)?;
    }
    Ok(())
}

/// The words of a text, one blank between them.
fn even(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Writes `name: text`, if there is any text.
fn line(out: &mut Output, name: &str, text: &str) -> Result<(), ExtractError> {
    let text = even(text);
    if text.is_empty() {
        return Ok(());
    }
    if !name.is_empty() {
        out.push(name)?;
        out.push(": ")?;
    }
    out.push(&text)?;
    out.push("\n")
}
