//! Secrets are taken out of what comes back.
//!
//! The rule of this file: whoever was told a secret may repeat it, in an answer, in an error, anywhere; what is
//! kept of that does not hold it.

use std::cmp::Reverse;

use base64::Engine;
use base64::prelude::BASE64_STANDARD_NO_PAD as STANDARD_NO_PAD;
use domain::integration::kind::Secrets;
use domain::manifest::Manifest;
use domain::refusal::{Fault, InvalidDocument};
use serde_json::{Map, Value};

use crate::Error;

/// What is shorter may be part of anything, so it cannot be taken out, and is refused as a secret.
const SHORTEST_SECRET: usize = 4;

/// Refuses what is secret and could not be taken out of what comes back: each with its place. Nothing at all is
/// no secret.
pub(crate) fn refuse_short<'a>(
    code: &'static str,
    secrets: impl IntoIterator<Item = (String, &'a Value)>,
) -> Result<(), Error> {
    let is_short = |secret: &Value| {
        let mut texts = Vec::new();
        gather(secret, &mut texts);
        texts.iter().any(|text| !text.is_empty() && text.len() < SHORTEST_SECRET)
    };
    let short = secrets.into_iter().filter(|(_, secret)| is_short(secret));
    let faults: Vec<_> = short
        .map(|(pointer, _)| {
            let message = format!(
                "a secret of fewer than {SHORTEST_SECRET} characters cannot be kept out of what is put out: take \
                 a longer one, or do not call it secret"
            );
            Fault::new(pointer, "secret_too_short", message)
        })
        .collect();
    if faults.is_empty() {
        return Ok(());
    }
    let message = "a secret is too short to be kept: errors names the places to mend".to_owned();
    Err(Error::refused(&InvalidDocument { code, message, faults }))
}

/// Takes secrets out of what came back.
pub(crate) struct Veil(Vec<String>);

impl Veil {
    /// Over the secrets of an integration.
    pub(crate) fn of(secrets: &Secrets) -> Veil {
        let mut texts: Vec<String> = secrets.0.values().cloned().collect();
        // A key that is a document is told by its parts.
        let documents: Vec<Map<String, Value>> =
            texts.iter().filter_map(|text| serde_json::from_str(text).ok()).collect();
        let parts = documents.iter().flat_map(|document| document.get("private_key"));
        texts.extend(parts.filter_map(Value::as_str).map(str::to_owned));
        Veil::over(texts)
    }

    /// Over what an agent's manifest calls secret in its configuration.
    pub(crate) fn of_config(manifest: &Manifest, config: &Value) -> Veil {
        let paths =
            manifest.config.as_ref().map(|schema| schema.secret_paths()).unwrap_or_default();
        let mut texts = Vec::new();
        for secret in paths.iter().filter_map(|path| config.pointer(path)) {
            gather(secret, &mut texts);
        }
        Veil::over(texts)
    }

    fn over(mut texts: Vec<String>) -> Veil {
        texts.retain(|text| text.len() >= SHORTEST_SECRET);
        // In an address it stands in one of two other forms, and in the text of a JSON document in a third.
        let encoded: Vec<String> = texts.iter().flat_map(|text| encoded(text)).collect();
        texts.extend(encoded);
        texts.sort_unstable();
        texts.dedup();
        // A secret that holds another one goes first.
        texts.sort_by_key(|text| Reverse(text.len()));
        Veil(texts)
    }

    pub(crate) fn text(&self, text: &str) -> String {
        let mut text = text.to_owned();
        if self.0.is_empty() {
            return text;
        }
        for secret in &self.0 {
            if text.contains(secret) {
                text = text.replace(secret, crate::MASK);
            }
        }
        self.base64(text)
    }

    /// Takes out what base64 holds a secret, as the credentials of `Authorization: Basic` do (RFC 7617).
    fn base64(&self, text: String) -> String {
        let is_base64 = |letter: char| letter.is_ascii_alphanumeric() || "+/-_=".contains(letter);
        let mut veiled = String::new();
        let mut rest = text.as_str();
        while let Some(start) = rest.find(is_base64) {
            let (before, run) = rest.split_at(start);
            let end = run.find(|letter| !is_base64(letter)).unwrap_or(run.len());
            let (run, after) = run.split_at(end);
            veiled.push_str(before);
            veiled.push_str(if self.is_in(run) { crate::MASK } else { run });
            rest = after;
        }
        veiled.push_str(rest);
        veiled
    }

    /// Whether what this is the base64 of holds a secret.
    fn is_in(&self, run: &str) -> bool {
        let Some(shortest) = self.0.last() else { return false };
        if run.len() * 3 / 4 < shortest.len() {
            return false;
        }
        let run = run.trim_end_matches('=').replace('-', "+").replace('_', "/");
        let Ok(bytes) = STANDARD_NO_PAD.decode(run) else { return false };
        let held = String::from_utf8_lossy(&bytes);
        self.0.iter().any(|secret| held.contains(secret))
    }

    pub(crate) fn value(&self, value: Value) -> Value {
        if self.0.is_empty() {
            return value;
        }
        match value {
            Value::String(text) => Value::String(self.text(&text)),
            Value::Number(number) if self.0.contains(&number.to_string()) => {
                Value::String(crate::MASK.to_owned())
            }
            Value::Array(items) => items.into_iter().map(|item| self.value(item)).collect(),
            Value::Object(object) => object
                .into_iter()
                .map(|(name, item)| (self.text(&name), self.value(item)))
                .collect(),
            other => other,
        }
    }
}

/// A text as it stands in the query of an address, as forms write it (a blank is `+`) and as RFC 3986 does,
/// and between the quotes of JSON.
fn encoded(text: &str) -> [String; 3] {
    let form: String = url::form_urlencoded::byte_serialize(text.as_bytes()).collect();
    let percent = form.replace('+', "%20");
    let quoted = Value::from(text).to_string();
    [form, percent, quoted[1..quoted.len() - 1].to_owned()]
}

/// Every text and every number in a value.
fn gather(value: &Value, texts: &mut Vec<String>) {
    match value {
        Value::String(text) => texts.push(text.clone()),
        Value::Array(items) => items.iter().for_each(|item| gather(item, texts)),
        Value::Object(object) => object.values().for_each(|item| gather(item, texts)),
        Value::Number(number) => texts.push(number.to_string()),
        Value::Null | Value::Bool(_) => {}
    }
}

#[cfg(test)]
mod tests;
