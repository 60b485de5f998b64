//! JSON into text: one `path: value` line per value, in the order of the document, and an empty line after every element of the
//! outermost list. The one rule: the text depends on the document alone, so that reading it again gives the same chunks.

use std::fmt::{self, Write};

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};

use super::format::Format;
use super::output::Output;
use super::{Document, Landmark};
use crate::error::ExtractError;

/// The values as lines; each line of JSON lines is a row.
pub(super) fn document(
    format: Format,
    text: &str,
    mut out: Output,
) -> Result<Document, ExtractError> {
    if format == Format::Json {
        read(text, &mut out, |error| ExtractError::malformed(format.name(), error))?;
    } else {
        for (number, line) in (1_u32..).zip(text.lines()) {
            if line.trim().is_empty() {
                continue;
            }
            out.paragraph()?;
            out.mark(Landmark::Row(number));
            read(line, &mut out, |error| {
                let reason = format!("{error} (in line {number} of the file)");
                ExtractError::malformed(format.name(), reason)
            })?;
        }
    }
    Ok(out.document(false, None))
}

fn read(
    json: &str,
    out: &mut Output,
    malformed: impl Fn(serde_json::Error) -> ExtractError,
) -> Result<(), ExtractError> {
    let mut full = None;
    let mut deserializer = serde_json::Deserializer::from_str(json);
    let value = Value { path: &mut String::new(), out, full: &mut full };
    let read = value.deserialize(&mut deserializer).and_then(|()| deserializer.end());
    match full {
        Some(full) => Err(full),
        None => read.map_err(malformed),
    }
}

/// Writes one value, whatever it is, under its path.
struct Value<'a> {
    path: &'a mut String,
    out: &'a mut Output,
    /// Why the text could not grow.
    full: &'a mut Option<ExtractError>,
}

impl Value<'_> {
    fn line<E: Error>(self, value: &str) -> Result<(), E> {
        let separator = if self.path.is_empty() { "" } else { ": " };
        let parts = [self.path.as_str(), separator, value, "\n"];
        parts.into_iter().try_for_each(|part| self.out.push(part)).map_err(|full| {
            *self.full = Some(full);
            E::custom("too much text")
        })
    }
}

impl<'de> DeserializeSeed<'de> for Value<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Value<'_> {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a JSON value")
    }

    fn visit_unit<E: Error>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<(), E> {
        self.line(&value.to_string())
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<(), E> {
        self.line(&value.to_string())
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<(), E> {
        self.line(&value.to_string())
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<(), E> {
        self.line(&value.to_string())
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<(), E> {
        if value.trim().is_empty() { Ok(()) } else { self.line(value) }
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        let outermost = self.path.is_empty();
        let length = self.path.len();
        for index in 0.. {
            write!(self.path, "[{index}]").map_err(A::Error::custom)?;
            let more = items.next_element_seed(Value {
                path: self.path,
                out: self.out,
                full: self.full,
            })?;
            self.path.truncate(length);
            if more.is_none() {
                break;
            }
            if outermost {
                // What is full is said by the next line.
                let _ = self.out.push("\n");
            }
        }
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<(), A::Error> {
        let length = self.path.len();
        while let Some(key) = entries.next_key::<String>()? {
            if length > 0 {
                self.path.push('.');
            }
            self.path.push_str(&key);
            entries.next_value_seed(Value { path: self.path, out: self.out, full: self.full })?;
            self.path.truncate(length);
        }
        Ok(())
    }
}
