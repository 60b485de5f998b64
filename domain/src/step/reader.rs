//! Reading the `with` of a step, and saying everything that is wrong with it.
//!
//! The rule of this file: before the step runs, what an expression will come to is not judged; when
//! it runs, what looks like one is data.

use std::time::Duration;

use serde_json::{Map, Value};

use crate::duration;
use crate::expression::{holds_expression, is_expression};
use crate::refusal::{Fault, pointer_segment};

/// When a `with` is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum When {
    /// When the manifest is: expressions stand in it.
    Before,
    /// When the step runs: everything is evaluated.
    Runs,
}

/// Reads fields and collects what is wrong with them.
pub(super) struct Reader<'a> {
    pub(super) with: &'a Map<String, Value>,
    pub(super) faults: Vec<Fault>,
    /// Whether a list or an object with an expression somewhere in it is left to the run, too. The
    /// first kinds of steps were read like that, and what was valid stays valid.
    pub(super) is_lenient: bool,
    when: When,
}

impl<'a> Reader<'a> {
    pub(super) fn new(with: &'a Map<String, Value>, when: When) -> Self {
        Reader { with, faults: Vec::new(), is_lenient: false, when }
    }

    pub(super) fn fault(&mut self, field: &str, code: &'static str, message: impl Into<String>) {
        self.faults.push(Fault::new(format!("/{}", pointer_segment(field)), code, message));
    }

    /// Whether what a value comes to is not known yet.
    pub(super) fn is_computed(&self, value: &Value) -> bool {
        let is_computed = if self.is_lenient { holds_expression } else { is_expression };
        self.when == When::Before && is_computed(value)
    }

    /// Whether something in a value is not known yet.
    pub(super) fn is_partly_computed(&self, value: &Value) -> bool {
        self.when == When::Before && holds_expression(value)
    }

    /// Whether there is something, unless it is `null`, which an expression may come to.
    fn is_there(&self, field: &str) -> bool {
        self.with.get(field).is_some_and(|value| !value.is_null())
    }

    /// What there is, as far as it is known.
    pub(super) fn given(&self, field: &str) -> Option<&'a Value> {
        let value = self.with.get(field)?;
        (!value.is_null() && !self.is_computed(value)).then_some(value)
    }

    /// What must be there, as far as it is known.
    pub(super) fn required(&mut self, field: &str) -> Option<&'a Value> {
        if !self.is_there(field) {
            self.fault(field, "field_missing", format!("this step needs `{field}`"));
        }
        self.given(field)
    }

    /// Complains unless one of two fields is there, and not both.
    pub(super) fn exactly_one(&mut self, [one, other]: &[&str; 2]) {
        match (self.is_there(one), self.is_there(other)) {
            (false, false) => {
                let message = format!("this step needs `{one}` or `{other}`");
                self.fault(one, "field_missing", message);
            }
            (true, true) => {
                let message = format!("`{one}` and `{other}` exclude each other: keep one");
                self.fault(other, "fields_exclude_each_other", message);
            }
            _ => {}
        }
    }

    /// Complains where more than one of some fields is there.
    pub(super) fn at_most_one(&mut self, fields: &[&str]) {
        let there: Vec<_> = fields.iter().filter(|field| self.is_there(field)).collect();
        if let [first, second, ..] = there[..] {
            let message = format!("`{first}` and `{second}` exclude each other: keep one");
            self.fault(second, "fields_exclude_each_other", message);
        }
    }

    pub(super) fn text(&mut self, field: &str) -> Option<String> {
        match self.given(field)? {
            Value::String(text) => Some(text.clone()),
            _ => {
                self.fault(field, "type_mismatch", format!("`{field}` is a text"));
                None
            }
        }
    }

    /// A text that may be missing, but not be empty.
    pub(super) fn filled_text(&mut self, field: &str) -> Option<String> {
        let text = self.text(field)?;
        if text.trim().is_empty() {
            self.fault(field, "text_empty", format!("`{field}` is empty: write something"));
        }
        Some(text)
    }

    pub(super) fn required_text(&mut self, field: &str) -> String {
        self.required(field);
        self.filled_text(field).unwrap_or_default()
    }

    pub(super) fn texts(&mut self, field: &str) -> Vec<String> {
        let texts = match self.given(field) {
            None => return Vec::new(),
            Some(Value::Array(items)) => {
                items.iter().map(|item| item.as_str().map(str::to_owned)).collect()
            }
            Some(_) => None,
        };
        texts.unwrap_or_else(|| {
            self.fault(field, "type_mismatch", format!("`{field}` is a list of texts"));
            Vec::new()
        })
    }

    pub(super) fn integer(&mut self, field: &str, least: u64, most: u64) -> Option<u64> {
        let number = self.given(field)?.as_u64();
        let number = number.filter(|number| (least..=most).contains(number));
        if number.is_none() {
            let message = format!("`{field}` is a whole number from {least} to {most}");
            self.fault(field, "out_of_range", message);
        }
        number
    }

    pub(super) fn number(&mut self, field: &str, least: f64, most: f64) -> Option<f64> {
        let number = self.given(field)?.as_f64();
        let number = number.filter(|number| (least..=most).contains(number));
        if number.is_none() {
            let message = format!("`{field}` is a number from {least} to {most}");
            self.fault(field, "out_of_range", message);
        }
        number
    }

    pub(super) fn duration(
        &mut self,
        field: &str,
        least: Duration,
        most: Duration,
    ) -> Option<Duration> {
        let text = self.text(field)?;
        match duration::parse(&text) {
            Ok(length) if (least..=most).contains(&length) => Some(length),
            Ok(_) => {
                let (least, most) = (duration::write(least), duration::write(most));
                let message = format!("`{field}` is a length of time from {least} to {most}");
                self.fault(field, "duration_out_of_range", message);
                None
            }
            Err(message) => {
                self.fault(field, "duration_invalid", message);
                None
            }
        }
    }

    pub(super) fn choice<T: Copy>(&mut self, field: &str, choices: &[(&str, T)]) -> Option<T> {
        let text = self.text(field)?;
        let choice = choices.iter().find(|(word, _)| *word == text).map(|(_, choice)| *choice);
        if choice.is_none() {
            let words: Vec<_> = choices.iter().map(|(word, _)| *word).collect();
            let message = format!("`{field}` is one of {}", words.join(", "));
            self.fault(field, "choice_unknown", message);
        }
        choice
    }

    /// Complains about fields that this kind of step does not know.
    pub(super) fn only(&mut self, kind: &str, known: &[&str]) {
        for field in self.with.keys().filter(|field| !known.contains(&field.as_str())) {
            let pointer = format!("/{}", pointer_segment(field));
            let message = format!("{kind} does not know `{field}`: leave it out");
            self.faults.push(Fault::new(pointer, "field_unknown", message));
        }
    }
}
