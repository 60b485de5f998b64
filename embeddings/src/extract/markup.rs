//! What every reader of XML here needs. The one rule: elements are told apart by their local names, and nothing outside of the file
//! is ever asked for: an entity that XML does not know itself stays as it is written.

use std::borrow::Cow;

use quick_xml::Reader;
use quick_xml::escape::resolve_predefined_entity;
use quick_xml::events::{BytesStart, Event};

use crate::error::ExtractError;

/// More elements open at once are refused.
pub(super) const MAX_DEPTH: usize = 512;

/// What an event says as text, if it does.
pub(super) fn text_of<'a>(event: &'a Event<'_>) -> Option<Cow<'a, str>> {
    match event {
        Event::Text(text) => Some(text.decode().unwrap_or_else(|_| lossy(text))),
        Event::CData(text) => Some(text.decode().unwrap_or_else(|_| lossy(text))),
        Event::GeneralRef(reference) => {
            if let Ok(Some(character)) = reference.resolve_char_ref() {
                return Some(Cow::Owned(character.to_string()));
            }
            let name = reference.decode().ok()?;
            Some(match resolve_predefined_entity(&name) {
                Some(text) => Cow::Borrowed(text),
                None => Cow::Owned(format!("&{name};")),
            })
        }
        _ => None,
    }
}

fn lossy(bytes: &[u8]) -> Cow<'_, str> {
    String::from_utf8_lossy(bytes)
}

/// The value of an element's attribute, by its local name.
pub(super) fn attribute(element: &BytesStart<'_>, name: &str) -> Option<String> {
    let mut attributes = element.attributes();
    let mut attributes = attributes.with_checks(false).flatten();
    let found = attributes.find(|found| found.key.local_name().as_ref() == name.as_bytes())?;
    let value = String::from_utf8_lossy(&found.value);
    Some(quick_xml::escape::unescape(&value).map_or_else(|_| value.to_string(), Cow::into_owned))
}

/// Whether a switch is on: there, and not off.
pub(super) fn is_on(element: &BytesStart<'_>) -> bool {
    !matches!(attribute(element, "val").as_deref(), Some("0" | "false" | "off"))
}

/// Walks through XML: `visit` hears of every event but the last.
pub(super) fn walk<Source: std::io::BufRead>(
    format: &str,
    reader: &mut Reader<Source>,
    mut visit: impl FnMut(&Event<'_>) -> Result<(), ExtractError>,
) -> Result<(), ExtractError> {
    let mut buffer = Vec::new();
    let mut depth = 0_usize;
    loop {
        buffer.clear();
        let event = reader.read_event_into(&mut buffer).map_err(|error| {
            let place = reader.error_position();
            let fault = fault(&error);
            ExtractError::malformed(format, format!("{fault} (at byte {place} of its XML)"))
        })?;
        match event {
            Event::Eof if depth > 0 => {
                return Err(ExtractError::malformed(
                    format,
                    "its XML ends before its last element does",
                ));
            }
            Event::Eof => return Ok(()),
            Event::Start(_) => {
                depth += 1;
                if depth > MAX_DEPTH {
                    let reason = format!("its elements are nested more than {MAX_DEPTH} deep");
                    return Err(ExtractError::malformed(format, reason));
                }
            }
            Event::End(_) => depth = depth.saturating_sub(1),
            _ => {}
        }
        visit(&event)?;
    }
}

/// What is wrong with XML, without a word out of it: why a file could not be read is kept for ever.
fn fault(error: &quick_xml::Error) -> String {
    use quick_xml::Error as Fault;
    match error {
        Fault::Io(_) | Fault::Syntax(_) | Fault::Encoding(_) => error.to_string(),
        Fault::IllFormed(_) => "its elements do not begin and end in pairs".to_owned(),
        Fault::InvalidAttr(_) => "an attribute of an element is not written as one".to_owned(),
        Fault::Escape(_) | Fault::Namespace(_) => "it names what it does not define".to_owned(),
    }
}

/// A paragraph as Markdown that means just its text: what would be read as a heading, a list or a quotation is not one.
pub(super) fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    for (index, line) in text.trim().lines().map(str::trim).enumerate() {
        if index > 0 {
            out.push('\n');
        }
        let digits = line.bytes().take_while(u8::is_ascii_digit).count();
        let after = &line[digits..];
        if digits > 0 && (after.starts_with(". ") || after.starts_with(") ")) {
            out.push_str(&line[..digits]);
            out.push('\\');
            out.push_str(after);
        } else {
            if line.starts_with(['#', '>', '-', '+', '*', '=', '~', '`', '|', '<']) {
                out.push('\\');
            }
            out.push_str(line);
        }
    }
    out
}
