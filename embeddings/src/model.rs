//! all-MiniLM-L6-v2, loaded: a sentence encoder on BERT (Devlin et al., 2018; distilled by Wang et al., 2020; Sentence-BERT,
//! Reimers and Gurevych, 2019). The one rule: the same text gives the same vector, alone or beside others.

mod forward;
mod kernels;
mod linear;
mod weights;

use std::path::Path;
use std::sync::Arc;

use sha2::{Digest, Sha256};
use tokenizers::Tokenizer;

use crate::chunk::{Chunk, split};
use crate::error::ModelError;
use crate::extract::Document;
use crate::tokens::TokenCounter;
pub(crate) use forward::Scratch;
use weights::{Config, Weights};

/// The most tokens of a text that are read, `[CLS]` and `[SEP]` included: what the model was trained on.
pub const MAX_TOKENS: usize = 256;

/// `[CLS]` and `[SEP]`.
const SPECIAL_TOKENS: usize = 2;

pub(crate) const NAME: &str = "all-MiniLM-L6-v2";
pub(crate) const CONFIG_FILE: &str = "config.json";
pub(crate) const TOKENIZER_FILE: &str = "tokenizer.json";
pub(crate) const WEIGHTS_FILE: &str = "model.safetensors";

/// The embedding model: weights and tokenizer. Cheap to clone.
///
/// It holds about 60 MB: 21 MB of packed matrices, 23 MB of word vectors (both in 16 bits), the rest the tokenizer.
#[derive(Clone)]
pub struct Model(Arc<Loaded>);

struct Loaded {
    weights: Weights,
    tokenizer: Tokenizer,
    revision: String,
}

impl Model {
    /// Reads the model from a directory that holds `model.safetensors`, `tokenizer.json` and `config.json`.
    pub fn load(directory: &Path) -> Result<Self, ModelError> {
        let config = read(directory, CONFIG_FILE)?;
        let config: Config =
            serde_json::from_slice(&config).map_err(|source| damaged(CONFIG_FILE, source))?;
        let tokens = read(directory, TOKENIZER_FILE)?;
        let mut tokenizer = Tokenizer::from_bytes(&tokens)
            .map_err(|source| ModelError::Damaged { file: TOKENIZER_FILE, source })?;
        // The file asks for every text to be cut and padded to 128 tokens. Cutting is done in `tokenize`, padding never.
        tokenizer.with_padding(None);
        tokenizer.with_truncation(None).map_err(ModelError::Tokenizer)?;
        if tokenizer.get_vocab_size(true) > config.vocab_size {
            return Err(ModelError::Unsupported(
                "the tokenizer knows more words than the weights".to_owned(),
            ));
        }
        let weights = read(directory, WEIGHTS_FILE)?;
        let revision =
            hex::encode(Sha256::new().chain_update(&weights).chain_update(&tokens).finalize());
        let weights = Weights::read(config, &weights, MAX_TOKENS)?;
        Ok(Self(Arc::new(Loaded { weights, tokenizer, revision })))
    }

    /// The SHA-256 of weights and tokenizer: vectors of different revisions must not be compared.
    pub fn revision(&self) -> &str {
        &self.0.revision
    }

    /// The length of its vectors.
    pub fn dimensions(&self) -> usize {
        self.0.weights.config.hidden_size
    }

    /// What it is called.
    pub fn name(&self) -> &str {
        NAME
    }

    /// Cuts a document into chunks of at most [`MAX_TOKENS`]; a text that fits whole is one chunk.
    pub fn chunk(&self, document: &Document) -> Vec<Chunk> {
        let counter = TokenCounter::new(&self.0.tokenizer, &document.text);
        split(document, MAX_TOKENS - SPECIAL_TOKENS, counter)
    }

    /// The number of tokens of a text, `[CLS]` and `[SEP]` included, however long it is.
    pub fn count_tokens(&self, text: &str) -> Result<usize, ModelError> {
        self.0
            .tokenizer
            .encode_fast(text, true)
            .map(|encoding| encoding.len())
            .map_err(ModelError::Tokenizer)
    }

    /// The ids of a text's tokens, cut to [`MAX_TOKENS`] and closed by `[SEP]` all the same.
    pub(crate) fn tokenize(&self, text: &str) -> Result<Vec<u32>, ModelError> {
        let encoding = self.0.tokenizer.encode_fast(text, true).map_err(ModelError::Tokenizer)?;
        let mut tokens = encoding.get_ids().to_vec();
        if tokens.len() > MAX_TOKENS {
            let last = tokens.len() - 1;
            tokens.swap(MAX_TOKENS - 1, last);
            tokens.truncate(MAX_TOKENS);
        }
        Ok(tokens)
    }

    /// One vector of unit length per sequence of token ids. `between` is called after every layer.
    pub(crate) fn forward(
        &self,
        sequences: &[Vec<u32>],
        scratch: &mut Scratch,
        between: &mut dyn FnMut(),
    ) -> Vec<Vec<f32>> {
        self.0.weights.forward(sequences, scratch, between)
    }
}

impl std::fmt::Debug for Model {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Model")
            .field("name", &self.name())
            .field("revision", &self.revision())
            .finish_non_exhaustive()
    }
}

fn read(directory: &Path, file: &'static str) -> Result<Vec<u8>, ModelError> {
    let path = directory.join(file);
    std::fs::read(&path).map_err(|source| match source.kind() {
        std::io::ErrorKind::NotFound => ModelError::Missing { directory: directory.to_owned() },
        _ => ModelError::Unreadable { path, source },
    })
}

fn damaged(
    file: &'static str,
    source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
) -> ModelError {
    ModelError::Damaged { file, source: source.into() }
}
