//! The text of a document while it is made. The one rule: it never grows past its bound, whatever the file asks for.

use super::{Document, Landmark};
use crate::error::ExtractError;

/// A text that grows up to a bound, and what begins where in it.
pub(super) struct Output {
    text: String,
    landmarks: Vec<(usize, Landmark)>,
    limit: usize,
}

impl Output {
    pub(super) fn new(limit: usize) -> Self {
        Self { text: String::new(), landmarks: Vec::new(), limit }
    }

    /// Adds to the text.
    pub(super) fn push(&mut self, text: &str) -> Result<(), ExtractError> {
        self.check(text.len())?;
        self.text.push_str(text);
        Ok(())
    }

    /// Whether there is room for `more` bytes of text.
    pub(super) fn check(&self, more: usize) -> Result<(), ExtractError> {
        if more > self.limit - self.text.len() {
            return Err(ExtractError::TooMuchText { bytes: self.limit as u64 });
        }
        Ok(())
    }

    /// Ends what there is so far by an empty line, if there is anything.
    pub(super) fn paragraph(&mut self) -> Result<(), ExtractError> {
        match self.text.as_bytes() {
            [] | [.., b'\n', b'\n'] => Ok(()),
            [.., b'\n'] => self.push("\n"),
            _ => self.push("\n\n"),
        }
    }

    /// Says what begins here.
    pub(super) fn mark(&mut self, landmark: Landmark) {
        self.landmarks.push((self.text.len(), landmark));
    }

    /// The document; white space at its end is cut off.
    pub(super) fn document(mut self, markdown: bool, title: Option<String>) -> Document {
        self.text.truncate(self.text.trim_end().len());
        let title = title.map(|title| title.trim().to_owned()).filter(|title| !title.is_empty());
        Document { text: self.text, markdown, title, landmarks: self.landmarks }
    }
}
