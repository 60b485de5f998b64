//! Secrets are taken out of what comes back.
//!
//! The rule of this file: whoever was told a secret may repeat it, in an answer, in an error, anywhere; what is
//! kept of that does not hold it.

use std::cmp::Reverse;

use domain::integration::kind::Secrets;
use domain::manifest::Manifest;
use serde_json::{Map, Value};

/// What is shorter may be part of anything.
const SHORTEST_SECRET: usize = 4;

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
        // In an address it stands in one of two other forms.
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
        for secret in &self.0 {
            if text.contains(secret) {
                text = text.replace(secret, crate::MASK);
            }
        }
        text
    }

    pub(crate) fn value(&self, value: Value) -> Value {
        if self.0.is_empty() {
            return value;
        }
        match value {
            Value::String(text) => Value::String(self.text(&text)),
            Value::Array(items) => items.into_iter().map(|item| self.value(item)).collect(),
            Value::Object(object) => object
                .into_iter()
                .map(|(name, item)| (self.text(&name), self.value(item)))
                .collect(),
            other => other,
        }
    }
}

/// A text as it stands in the query of an address, as forms write it (a blank is `+`) and as RFC 3986 does.
fn encoded(text: &str) -> [String; 2] {
    let form: String = url::form_urlencoded::byte_serialize(text.as_bytes()).collect();
    let percent = form.replace('+', "%20");
    [form, percent]
}

/// Every text in a value.
fn gather(value: &Value, texts: &mut Vec<String>) {
    match value {
        Value::String(text) => texts.push(text.clone()),
        Value::Array(items) => items.iter().for_each(|item| gather(item, texts)),
        Value::Object(object) => object.values().for_each(|item| gather(item, texts)),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

#[cfg(test)]
mod tests;
