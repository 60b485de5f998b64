//! JSON into text: one `path: value` line per value, in the order of the document, and an empty line after every element of the
//! outermost list. The one rule: the text depends on the document alone, so that reading it again gives the same chunks.

use std::fmt::{self, Write};

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};

use super::format::Format;
use crate::error::ExtractError;

/// The values as lines.
pub(super) fn text(format: Format, text: &str) -> Result<String, ExtractError> {
    let malformed = |line: usize, error: serde_json::Error| ExtractError::Malformed {
        format: format.name(),
        reason: if line == 0 {
            error.to_string()
        } else {
            format!("{error} (in line {line} of the file)")
        },
    };
    let mut out = String::with_capacity(text.len());
    if format == Format::Json {
        read(text, &mut out).map_err(|error| malformed(0, error))?;
    } else {
        for (index, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
            read(line, &mut out).map_err(|error| malformed(index + 1, error))?;
            out.push('\n');
        }
    }
    out.truncate(out.trim_end().len());
    Ok(out)
}

fn read(json: &str, out: &mut String) -> Result<(), serde_json::Error> {
    let mut deserializer = serde_json::Deserializer::from_str(json);
    Value { path: &mut String::new(), out }.deserialize(&mut deserializer)?;
    deserializer.end()
}

/// Writes one value, whatever it is, under its path.
struct Value<'a> {
    path: &'a mut String,
    out: &'a mut String,
}

impl Value<'_> {
    fn line<E: Error>(self, value: impl fmt::Display) -> Result<(), E> {
        let separator = if self.path.is_empty() { "" } else { ": " };
        writeln!(self.out, "{}{separator}{value}", self.path).map_err(E::custom)
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
        self.line(value)
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<(), E> {
        self.line(value)
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<(), E> {
        self.line(value)
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<(), E> {
        self.line(value)
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<(), E> {
        if value.trim().is_empty() { Ok(()) } else { self.line(value) }
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        let outermost = self.path.is_empty();
        let length = self.path.len();
        for index in 0.. {
            write!(self.path, "[{index}]").map_err(A::Error::custom)?;
            let more = items.next_element_seed(Value { path: self.path, out: self.out })?;
            self.path.truncate(length);
            if more.is_none() {
                break;
            }
            if outermost {
                self.out.push('\n');
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
            entries.next_value_seed(Value { path: self.path, out: self.out })?;
            self.path.truncate(length);
        }
        Ok(())
    }
}
