//! How a model is to be used, by the files that sentence-transformers puts beside the weights. The one rule: what no file says is not
//! guessed from the model's name.

use std::io::ErrorKind;
use std::path::{Component, Path};

use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::MAX_TOKENS;
use crate::error::ModelError;

pub(crate) const MODULES_FILE: &str = "modules.json";
pub(crate) const POOLING_FILE: &str = "1_Pooling/config.json";
pub(crate) const LENGTH_FILE: &str = "sentence_bert_config.json";
pub(crate) const PROMPTS_FILE: &str = "config_sentence_transformers.json";

/// What of the last layer becomes the vector.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Pooling {
    /// The mean of all tokens ("Sentence-BERT", Reimers and Gurevych, 2019).
    Mean,
    /// The first token, `[CLS]`.
    First,
}

/// How a model is to be used.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Manner {
    pub(crate) pooling: Pooling,
    /// The most tokens of a text that are read.
    pub(crate) max_tokens: usize,
    /// What is put before a question.
    pub(crate) before_question: String,
    /// What is put before a passage.
    pub(crate) before_passage: String,
}

impl Default for Manner {
    fn default() -> Self {
        let (before_question, before_passage) = Default::default();
        Self { pooling: Pooling::Mean, max_tokens: MAX_TOKENS, before_question, before_passage }
    }
}

#[derive(Deserialize)]
struct Module {
    #[serde(rename = "type")]
    kind: String,
}

#[derive(Deserialize)]
struct PoolingConfig {
    #[serde(default)]
    pooling_mode_cls_token: bool,
    #[serde(default)]
    pooling_mode_mean_tokens: bool,
    #[serde(default)]
    pooling_mode_max_tokens: bool,
    #[serde(default)]
    pooling_mode_mean_sqrt_len_tokens: bool,
    #[serde(default)]
    pooling_mode_weightedmean_tokens: bool,
    #[serde(default)]
    pooling_mode_lasttoken: bool,
}

#[derive(Deserialize)]
struct LengthConfig {
    max_seq_length: Option<usize>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct PromptsConfig {
    prompts: std::collections::BTreeMap<String, String>,
    default_prompt_name: Option<String>,
}

impl Manner {
    /// Reads what there is of the files; a model that has none of them is used as all-MiniLM-L6-v2 is.
    pub(crate) fn read(directory: &Path) -> Result<Self, ModelError> {
        let mut manner = Self::default();
        for Module { kind } in json::<Vec<Module>>(directory, MODULES_FILE)?.unwrap_or_default() {
            let name = kind.rsplit('.').next().unwrap_or_default();
            if !matches!(name, "Transformer" | "Pooling" | "Normalize") {
                return Err(ModelError::Unsupported(format!(
                    "{MODULES_FILE} asks for a layer of type {name}, and only Transformer, Pooling and Normalize are known"
                )));
            }
        }
        if let Some(pooling) = json::<PoolingConfig>(directory, POOLING_FILE)? {
            manner.pooling = pooling.mode()?;
        }
        if let Some(LengthConfig { max_seq_length: Some(length) }) = json(directory, LENGTH_FILE)? {
            manner.max_tokens = length;
        }
        let mut prompts: PromptsConfig = json(directory, PROMPTS_FILE)?.unwrap_or_default();
        let default =
            prompts.default_prompt_name.and_then(|name| prompts.prompts.get(&name).cloned());
        let mut take = |names: &[&str]| {
            let named = names.iter().find_map(|name| prompts.prompts.remove(*name));
            named.or_else(|| default.clone()).unwrap_or_default()
        };
        manner.before_question = take(&["query"]);
        manner.before_passage = take(&["passage", "document"]);
        Ok(manner)
    }

    /// What of it changes vectors, in words; nothing for the manner that was the only one once.
    pub(crate) fn mark(&self) -> String {
        if *self == Self::default() {
            return String::new();
        }
        let Self { pooling, max_tokens, before_question, before_passage } = self;
        let pooling = match pooling {
            Pooling::Mean => "mean",
            Pooling::First => "first",
        };
        format!("{pooling}\n{max_tokens}\n{before_question}\n{before_passage}")
    }
}

impl PoolingConfig {
    fn mode(&self) -> Result<Pooling, ModelError> {
        let others = self.pooling_mode_max_tokens
            || self.pooling_mode_mean_sqrt_len_tokens
            || self.pooling_mode_weightedmean_tokens
            || self.pooling_mode_lasttoken;
        match (self.pooling_mode_mean_tokens, self.pooling_mode_cls_token, others) {
            (true, false, false) => Ok(Pooling::Mean),
            (false, true, false) => Ok(Pooling::First),
            _ => Err(ModelError::Unsupported(format!(
                "{POOLING_FILE} asks for something else than the mean of all tokens or the first one"
            ))),
        }
    }
}

/// A file that need not be there.
fn json<T: DeserializeOwned>(
    directory: &Path,
    file: &'static str,
) -> Result<Option<T>, ModelError> {
    let path = directory.join(file);
    match std::fs::read(&path) {
        Ok(bytes) => serde_json::from_slice(&bytes)
            .map(Some)
            .map_err(|source| ModelError::Damaged { file, source: Box::new(source) }),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(source) => Err(ModelError::Unreadable { path, source }),
    }
}

/// What a model is called: as its directory is, or, in the hub's cache, as the hub calls it (`models--owner--name/snapshots/…`).
pub(crate) fn name(directory: &Path) -> String {
    let whole = std::path::absolute(directory).unwrap_or_else(|_| directory.to_owned());
    let mut names = whole.components().rev().filter_map(|part| match part {
        Component::Normal(name) => name.to_str(),
        _ => None,
    });
    let of_hub = |name: &str| name.strip_prefix("models--").map(|name| name.replace("--", "/"));
    let own = names.next().unwrap_or("unnamed");
    let hub = names.nth(1).and_then(of_hub);
    hub.map_or_else(|| own.to_owned(), |name| name.rsplit('/').next().unwrap_or(own).to_owned())
}

#[cfg(test)]
#[path = "manner_tests.rs"]
mod tests;
