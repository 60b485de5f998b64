//! Reading a document that may be wrong anywhere, and saying everything that is.
//!
//! The rule of this file: a fault never ends the reading.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::{Map, Value};

use crate::duration;
use crate::refusal::{Fault, pointer_segment};

/// An object of the document, with its place and the faults found in it so far.
pub(crate) struct Reader<'a> {
    pub(crate) document: &'a Map<String, Value>,
    pub(crate) faults: Vec<Fault>,
    pointer: String,
}

impl<'a> Reader<'a> {
    /// Begins with the document as a whole.
    pub(crate) fn new(document: &'a Map<String, Value>) -> Self {
        Reader { document, faults: Vec::new(), pointer: String::new() }
    }

    /// Notes a fault at a place in this object.
    pub(crate) fn fault(&mut self, at: &str, code: &'static str, message: impl ToString) {
        self.faults.push(Fault::new(format!("{}{at}", self.pointer), code, message.to_string()));
    }

    /// Notes faults whose places are in this object.
    pub(crate) fn add(&mut self, faults: impl Iterator<Item = Fault>) {
        self.faults.extend(faults.map(|fault| fault.within(&self.pointer)));
    }

    /// Takes over the faults of an object within this one, whose places are whole already.
    pub(crate) fn take(&mut self, inner: Reader<'_>) {
        self.faults.extend(inner.faults);
    }

    /// Notes a fault unless something holds; says whether it does.
    pub(crate) fn require(
        &mut self,
        holds: bool,
        at: &str,
        code: &'static str,
        message: impl FnOnce() -> String,
    ) -> bool {
        if !holds {
            self.fault(at, code, message());
        }
        holds
    }

    /// Complains about fields that are not known here.
    pub(crate) fn only(&mut self, known: &[&str]) {
        for field in self.document.keys().filter(|field| !known.contains(&field.as_str())) {
            let pointer = format!("{}/{}", self.pointer, pointer_segment(field));
            let message =
                format!("`{field}` is not known here: leave it out, or see if it is misspelt");
            self.faults.push(Fault::new(pointer, "field_unknown", message));
        }
    }

    /// A text that may be missing.
    pub(crate) fn text(&mut self, field: &str) -> Option<String> {
        match self.document.get(field)? {
            Value::String(text) => Some(text.clone()),
            _ => {
                self.fault(&format!("/{field}"), "type_mismatch", format!("`{field}` is a text"));
                None
            }
        }
    }

    /// A text that must be there.
    pub(crate) fn required_text(&mut self, field: &str) -> Option<String> {
        if !self.document.contains_key(field) {
            self.fault(&format!("/{field}"), "field_missing", format!("`{field}` is missing"));
        }
        self.text(field)
    }

    /// A whole number within bounds, that may be missing.
    pub(crate) fn integer(&mut self, field: &str, least: u64, most: u64) -> Option<u64> {
        let number = self.document.get(field)?.as_u64();
        let number = number.filter(|number| (least..=most).contains(number));
        self.require(number.is_some(), &format!("/{field}"), "out_of_range", || {
            format!("`{field}` is a whole number from {least} to {most}")
        });
        number
    }

    /// A number within bounds, that may be missing.
    pub(crate) fn number(&mut self, field: &str, least: f64, most: f64) -> Option<f64> {
        let number = self.document.get(field)?.as_f64();
        let number = number.filter(|number| (least..=most).contains(number));
        self.require(number.is_some(), &format!("/{field}"), "out_of_range", || {
            format!("`{field}` is a number from {least} to {most}")
        });
        number
    }

    /// A length of time within bounds, that may be missing.
    pub(crate) fn duration(
        &mut self,
        field: &str,
        least: Duration,
        most: Duration,
    ) -> Option<Duration> {
        let text = self.text(field)?;
        let at = format!("/{field}");
        match duration::parse(&text) {
            Ok(length) => {
                self.require(
                    (least..=most).contains(&length),
                    &at,
                    "duration_out_of_range",
                    || {
                        let (least, most) = (duration::write(least), duration::write(most));
                        format!("`{field}` is a length of time from {least} to {most}")
                    },
                );
                Some(length)
            }
            Err(message) => {
                self.fault(&at, "duration_invalid", message);
                None
            }
        }
    }

    /// One of a few words, that may be missing.
    pub(crate) fn choice<T: Copy>(&mut self, field: &str, choices: &[(&str, T)]) -> Option<T> {
        let text = self.text(field)?;
        let choice = choices.iter().find(|(word, _)| *word == text).map(|(_, choice)| *choice);
        self.require(choice.is_some(), &format!("/{field}"), "choice_unknown", || {
            let words: Vec<_> = choices.iter().map(|(word, _)| *word).collect();
            format!("`{field}` is one of {}", words.join(", "))
        });
        choice
    }

    /// A list of texts that may be missing.
    pub(crate) fn texts(&mut self, field: &str) -> Option<Vec<String>> {
        let texts = match self.document.get(field)? {
            Value::Array(items) => {
                items.iter().map(|item| item.as_str().map(str::to_owned)).collect()
            }
            _ => None,
        };
        if texts.is_none() {
            let message = format!("`{field}` is a list of texts");
            self.fault(&format!("/{field}"), "type_mismatch", message);
        }
        texts
    }

    /// A key that must be there, be well written, and not be taken yet.
    pub(crate) fn new_key(
        &mut self,
        field: &str,
        taken: &mut BTreeSet<String>,
        duplicate: &'static str,
    ) -> Option<String> {
        let at = format!("/{field}");
        let key = self.required_text(field)?;
        let well_written = self.require(is_key(&key), &at, "id_invalid", || {
            format!("`{field}` is up to 64 letters, digits and _, and begins with a letter")
        });
        let new = self.require(taken.insert(key.clone()), &at, duplicate, || {
            format!("`{key}` is there already: choose another")
        });
        (well_written && new).then_some(key)
    }

    /// An object within this one, that may be missing.
    pub(crate) fn object(&mut self, field: &str) -> Option<Reader<'a>> {
        let pointer = format!("{}/{field}", self.pointer);
        match self.document.get(field)? {
            Value::Object(document) => Some(Reader { document, faults: Vec::new(), pointer }),
            _ => {
                self.fault(
                    &format!("/{field}"),
                    "type_mismatch",
                    format!("`{field}` is an object"),
                );
                None
            }
        }
    }

    /// A list of objects within this one, that may be missing.
    pub(crate) fn objects(&mut self, field: &str) -> Vec<Reader<'a>> {
        let items = match self.document.get(field) {
            None => return Vec::new(),
            Some(Value::Array(items)) => items,
            Some(_) => {
                let message = format!("`{field}` is a list of objects");
                self.fault(&format!("/{field}"), "type_mismatch", message);
                return Vec::new();
            }
        };
        let mut readers = Vec::new();
        for (index, item) in items.iter().enumerate() {
            let at = format!("/{field}/{index}");
            match item {
                Value::Object(document) => {
                    let pointer = format!("{}{at}", self.pointer);
                    readers.push(Reader { document, faults: Vec::new(), pointer });
                }
                _ => self.fault(&at, "type_mismatch", "this is to be an object"),
            }
        }
        readers
    }

    /// The objects of a list that was read before, with their places in it.
    pub(crate) fn objects_again(&self, field: &str) -> Vec<(usize, Reader<'a>)> {
        let items = self.document.get(field).and_then(Value::as_array).into_iter().flatten();
        let reader = |(index, item): (usize, &'a Value)| {
            let pointer = format!("{}/{field}/{index}", self.pointer);
            let document = item.as_object()?;
            Some((index, Reader { document, faults: Vec::new(), pointer }))
        };
        items.enumerate().filter_map(reader).collect()
    }

    /// The ids in a list of objects, with their places in it.
    pub(crate) fn places(&self, field: &str) -> Vec<(usize, String)> {
        let items = self.document.get(field).and_then(Value::as_array).into_iter().flatten();
        let id = |item: &Value| item.get("id").and_then(Value::as_str).map(str::to_owned);
        items.enumerate().filter_map(|(index, item)| Some((index, id(item)?))).collect()
    }
}

impl<'a> Reader<'a> {
    /// The ids in a list of objects.
    pub(crate) fn ids(&self, field: &str) -> impl Iterator<Item = &'a str> + use<'a> {
        let items = self.document.get(field).and_then(Value::as_array).into_iter().flatten();
        items.filter_map(|item| item.get("id").and_then(Value::as_str))
    }
}

/// The id of a step or trigger, or the name of a slot: it can stand in an expression.
pub(crate) fn is_key(text: &str) -> bool {
    text.len() <= 64
        && text.starts_with(|first: char| first.is_ascii_alphabetic())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

/// Words joined by dots, as `acme.counter`.
pub(crate) fn is_manifest_name(text: &str) -> bool {
    let allowed =
        |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-_".contains(&byte);
    let is_word = |word: &str| {
        word.bytes().all(allowed) && word.starts_with(|first: char| first.is_ascii_alphanumeric())
    };
    text.len() <= 100 && text.split('.').all(is_word)
}

/// A version by semver.org, with its parts for pre-releases and builds.
pub(crate) fn is_semantic_version(text: &str) -> bool {
    let (text, build) = split(text, '+');
    let (numbers, pre_release) = split(text, '-');
    let is_number = |part: &str| {
        part.bytes().all(|byte| byte.is_ascii_digit())
            && (part == "0" || !part.starts_with('0'))
            && !part.is_empty()
            && part.len() <= 16
    };
    let is_word = |part: &str| {
        !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
    };
    let is_pre_release = |part: &str| {
        is_word(part) && (!part.bytes().all(|byte| byte.is_ascii_digit()) || is_number(part))
    };
    numbers.split('.').count() == 3
        && numbers.split('.').all(is_number)
        && pre_release.is_none_or(|parts| parts.split('.').all(is_pre_release))
        && build.is_none_or(|parts| parts.split('.').all(is_word))
}

fn split(text: &str, at: char) -> (&str, Option<&str>) {
    match text.split_once(at) {
        Some((before, behind)) => (before, Some(behind)),
        None => (text, None),
    }
}

/// Complains about whole numbers that canonical JSON would change: beyond 2^53 they are not exact.
pub(crate) fn check_numbers(value: &Value, pointer: &str, faults: &mut Vec<Fault>) {
    const EXACT: u64 = 1 << 53;
    match value {
        Value::Number(number) => {
            let exact = match (number.as_i64(), number.as_u64()) {
                (Some(int), _) => int.unsigned_abs() <= EXACT,
                (None, Some(_)) => false,
                (None, None) => true,
            };
            if !exact {
                let message = "whole numbers go up to 2^53 in a manifest: write it as a text";
                faults.push(Fault::new(pointer, "number_out_of_range", message));
            }
        }
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                check_numbers(item, &format!("{pointer}/{index}"), faults);
            }
        }
        Value::Object(object) => {
            for (key, item) in object {
                check_numbers(item, &format!("{pointer}/{}", pointer_segment(key)), faults);
            }
        }
        Value::Null | Value::Bool(_) | Value::String(_) => {}
    }
}
