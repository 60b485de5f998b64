//! What the sources say about each setting, as text, and which of them counts.
//!
//! The one rule: whoever says something is remembered with what it said, for the fault it may be.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::PathBuf;

use secrecy::SecretString;
use toml::{Table, Value};

use super::ConfigError;
use super::arguments::Arguments;
use super::table::{Default, SETTINGS, Setting};

/// What all sources say: for each setting the word that counts, and whose it is.
pub(super) struct Sources(BTreeMap<&'static str, (String, Source)>);

enum Source {
    Default,
    File(PathBuf),
    Environment,
    CommandLine,
}

impl Sources {
    /// Asks the command line, the environment, the file that one of them names, and the table.
    pub fn gather(
        arguments: &Arguments,
        environment: impl Fn(&str) -> Option<OsString>,
    ) -> Result<Self, ConfigError> {
        let mut words = BTreeMap::new();
        for setting in SETTINGS {
            if let Some(value) = arguments.0.get(setting.name) {
                words.insert(setting.name, (value.clone(), Source::CommandLine));
                continue;
            }
            // An empty variable is what many tools make of one that is not set.
            if let Some(value) = environment(&setting.variable()).filter(|value| !value.is_empty())
            {
                let value = value
                    .into_string()
                    .map_err(|_| invalid(setting, &Source::Environment, "must be UTF-8 text"))?;
                words.insert(setting.name, (value, Source::Environment));
            }
        }
        if let Some((path, _)) = words.get("config") {
            let path = PathBuf::from(path);
            for (name, value) in read_file(&path)? {
                words.entry(name).or_insert((value, Source::File(path.clone())));
            }
        }
        for setting in SETTINGS {
            if let Default::Value(value) = setting.default {
                words.entry(setting.name).or_insert((value.to_owned(), Source::Default));
            }
        }
        Ok(Sources(words))
    }

    /// A setting that may be left unsaid.
    pub fn optional<T>(
        &self,
        name: &str,
        read: impl Fn(&str) -> Result<T, String>,
    ) -> Result<Option<T>, ConfigError> {
        let Some((text, source)) = self.0.get(name) else { return Ok(None) };
        read(text).map(Some).map_err(|reason| invalid(setting(name), source, &reason))
    }

    /// A setting that has a default.
    pub fn required<T>(
        &self,
        name: &str,
        read: impl Fn(&str) -> Result<T, String>,
    ) -> Result<T, ConfigError> {
        let value = self.optional(name, read)?;
        Ok(value.expect("the table gives it a default"))
    }

    /// A setting of several values, with commas between them.
    pub fn list<T>(
        &self,
        name: &str,
        read: impl Fn(&str) -> Result<T, String>,
    ) -> Result<Vec<T>, ConfigError> {
        let items = |text: &str| text.split(',').map(|item| read(item.trim())).collect();
        Ok(self.optional(name, items)?.unwrap_or_default())
    }

    /// A setting that is never shown.
    pub fn secret(&self, name: &str) -> Option<SecretString> {
        self.0.get(name).map(|(text, _)| text.trim().into())
    }
}

fn setting(name: &str) -> &'static Setting {
    SETTINGS.iter().find(|setting| setting.name == name).expect("only settings are asked for")
}

fn invalid(setting: &Setting, source: &Source, reason: &str) -> ConfigError {
    let place = match source {
        Source::Default => format!("the default of {}", setting.name),
        Source::File(path) => format!("`{}` in {}", setting.key(), path.display()),
        Source::Environment => format!("{} in the environment", setting.variable()),
        Source::CommandLine => format!("--{} on the command line", setting.name),
    };
    ConfigError::Invalid { place, reason: reason.to_owned() }
}

fn read_file(path: &PathBuf) -> Result<Vec<(&'static str, String)>, ConfigError> {
    let text = std::fs::read_to_string(path)
        .map_err(|source| ConfigError::Unreadable { path: path.clone(), source })?;
    let table: Table = text.parse().map_err(|error: toml::de::Error| {
        let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
        // Only the message: the text around it may hold what nobody should see in a log.
        let reason = error.message().to_owned();
        ConfigError::Malformed { path: path.clone(), line: before.lines().count().max(1), reason }
    })?;
    let values = table.into_iter().map(|(key, value)| {
        let Some(setting) = SETTINGS.iter().find(|setting| setting.key() == key) else {
            let keys = SETTINGS.iter().filter(|setting| setting.has_key());
            let known = keys.map(|setting| setting.key()).collect::<Vec<_>>().join(", ");
            return Err(ConfigError::UnknownKey { key, path: path.clone(), known });
        };
        let wrong = |reason: &str| invalid(setting, &Source::File(path.clone()), reason);
        if !setting.has_key() {
            let variable = setting.variable();
            return Err(wrong(&format!("cannot be said in a file; set {variable} instead")));
        }
        let text = as_text(value).ok_or_else(|| wrong("must be text, a whole number or a list"))?;
        Ok((setting.name, text))
    });
    values.collect()
}

fn as_text(value: Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text),
        Value::Integer(number) => Some(number.to_string()),
        Value::Array(items) => {
            let texts = items.into_iter().map(|item| match item {
                // A comma would be read as the end of the item.
                Value::String(text) if !text.contains(',') => Some(text),
                _ => None,
            });
            Some(texts.collect::<Option<Vec<_>>>()?.join(","))
        }
        _ => None,
    }
}
