//! Texts to embed: passages of about 110 tokens and short questions.
//!
//! The rule of this file: those of `PRODGY_PASSAGES` where it is set (made by
//! `bench/peers/passages.py`), else words of this repository, and the report says which.

use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use embeddings::{Embedder, Model};
use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Texts {
    pub passages: Vec<String>,
    pub questions: Vec<String>,
    /// Where they come from.
    #[serde(skip)]
    pub origin: &'static str,
}

impl Texts {
    pub fn load() -> anyhow::Result<Texts> {
        if let Some(path) = std::env::var_os("PRODGY_PASSAGES").map(PathBuf::from) {
            let bytes = std::fs::read(&path)
                .with_context(|| format!("{} cannot be read", path.display()))?;
            let mut texts: Texts = serde_json::from_slice(&bytes)?;
            texts.origin = "CISI";
            return Ok(texts);
        }
        let words: Vec<&str> = include_str!("history.rs")
            .split(|character: char| !character.is_alphabetic())
            .filter(|word| word.len() > 2)
            .collect();
        let cut = |length: usize| words.windows(length).map(|words| words.join(" ")).collect();
        Ok(Texts { passages: cut(75), questions: cut(8), origin: "this repository's words" })
    }
}

/// Where the embedding model lies.
pub fn model_folder() -> anyhow::Result<PathBuf> {
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/all-MiniLM-L6-v2");
    let folder = embeddings::locate(None).unwrap_or(beside);
    ensure!(
        folder.join("model.safetensors").is_file(),
        "the embedding model is missing: run scripts/fetch-model"
    );
    Ok(folder)
}

/// Our embedder, as the server runs it.
pub fn embedder() -> anyhow::Result<Embedder> {
    Ok(Embedder::new(Model::load(&model_folder()?)?, Embedder::default_workers()))
}
