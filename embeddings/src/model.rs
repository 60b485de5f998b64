//! The model, loaded: a sentence encoder on BERT (Devlin et al., 2018; Sentence-BERT, Reimers and Gurevych, 2019), all-MiniLM-L6-v2
//! unless another is asked for. The one rule: the same text gives the same vector, alone or beside others.

mod forward;
mod kernels;
mod linear;
mod manner;
mod weights;

use std::convert::Infallible;
use std::path::Path;
use std::sync::Arc;

use sha2::{Digest, Sha256};
use tokenizers::Tokenizer;

use crate::chunk::{Chunk, split};
use crate::error::ModelError;
use crate::extract::Document;
use crate::tokens::TokenCounter;
pub(crate) use forward::Scratch;
use manner::Manner;
pub(crate) use manner::{LENGTH_FILE, MODULES_FILE, POOLING_FILE, PROMPTS_FILE};
use weights::{Config, Weights};

/// The most tokens of a text that are read, `[CLS]` and `[SEP]` included, unless the model's files say otherwise.
pub const MAX_TOKENS: usize = 256;

/// The model that is fetched.
pub(crate) const NAME: &str = "all-MiniLM-L6-v2";
pub(crate) const CONFIG_FILE: &str = "config.json";
pub(crate) const TOKENIZER_FILE: &str = "tokenizer.json";
pub(crate) const WEIGHTS_FILE: &str = "model.safetensors";

/// The embedding model: weights and tokenizer. Cheap to clone.
///
/// all-MiniLM-L6-v2 takes about 60 MB: 21 MB of packed matrices, 23 MB of word vectors (both in 16 bits), the rest the tokenizer.
#[derive(Clone)]
pub struct Model(Arc<Loaded>);

struct Loaded {
    weights: Weights,
    tokenizer: Tokenizer,
    manner: Manner,
    /// The most tokens of a passage that are its own.
    room: usize,
    name: String,
    revision: String,
}

impl Model {
    /// Reads the model from a directory that holds `model.safetensors`, `tokenizer.json` and `config.json`, and how it is to be used from
    /// what sentence-transformers puts beside them: pooling, the longest text, and what stands before questions and passages.
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
        let known = tokenizer.get_vocab_size(true);
        if known > config.vocab_size {
            return Err(ModelError::Unsupported(format!(
                "tokenizer.json is of another model: it knows {known} words, the weights {}",
                config.vocab_size
            )));
        }
        let mut manner = Manner::read(directory)?;
        manner.max_tokens = manner.max_tokens.min(config.positions());
        let length = |text: &str| {
            let encoding = tokenizer.encode_fast(text, true).map_err(ModelError::Tokenizer)?;
            Ok::<_, ModelError>(encoding.len())
        };
        let taken = length(&manner.before_passage)?;
        let weights = read(directory, WEIGHTS_FILE)?;
        let digest = Sha256::new().chain_update(&weights).chain_update(&tokens);
        let revision = hex::encode(digest.chain_update(manner.mark()).finalize());
        let weights = Weights::read(config, &weights, manner.max_tokens)?;
        let room =
            manner.max_tokens.checked_sub(taken).filter(|room| *room > 0).ok_or_else(|| {
                ModelError::Unsupported(
                    "what stands before a passage leaves no room for one".to_owned(),
                )
            })?;
        let name = manner::name(directory);
        Ok(Self(Arc::new(Loaded { weights, tokenizer, manner, room, name, revision })))
    }

    /// The SHA-256 of weights, tokenizer and an unusual manner of use: vectors of different revisions must not be compared.
    pub fn revision(&self) -> &str {
        &self.0.revision
    }

    /// The length of its vectors.
    pub fn dimensions(&self) -> usize {
        self.0.weights.config.hidden_size
    }

    /// What it is called.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// The most tokens of a text that are read, `[CLS]` and `[SEP]` included.
    pub fn max_tokens(&self) -> usize {
        self.0.manner.max_tokens
    }

    /// What is put before a question.
    pub(crate) fn before_question(&self) -> &str {
        &self.0.manner.before_question
    }

    /// What is put before a passage.
    pub(crate) fn before_passage(&self) -> &str {
        &self.0.manner.before_passage
    }

    /// Cuts a document into chunks that are read whole; a text that fits whole is one chunk.
    pub fn chunk(&self, document: &Document) -> Vec<Chunk> {
        let Ok(chunks) = self.chunk_while(document, &|| Ok::<_, Infallible>(()));
        chunks
    }

    /// The same, as long as `may_go_on`, which is asked often.
    pub(crate) fn chunk_while<E>(
        &self,
        document: &Document,
        may_go_on: &dyn Fn() -> Result<(), E>,
    ) -> Result<Vec<Chunk>, E> {
        let counter = TokenCounter::new(&self.0.tokenizer, &document.text);
        split(document, self.0.room, &counter, may_go_on)
    }

    /// The number of tokens of a text, `[CLS]` and `[SEP]` included, however long it is.
    pub fn count_tokens(&self, text: &str) -> Result<usize, ModelError> {
        self.0
            .tokenizer
            .encode_fast(text, true)
            .map(|encoding| encoding.len())
            .map_err(ModelError::Tokenizer)
    }

    /// The most tokens of a passage that is read whole, counted as [`Model::count_tokens`] does.
    pub fn longest_passage(&self) -> Result<usize, ModelError> {
        Ok(self.0.room + self.count_tokens("")?)
    }

    /// The ids of a text's tokens, cut to [`Model::max_tokens`] and closed by `[SEP]` all the same.
    pub(crate) fn tokenize(&self, text: &str) -> Result<Vec<u32>, ModelError> {
        let encoding = self.0.tokenizer.encode_fast(text, true).map_err(ModelError::Tokenizer)?;
        let mut tokens = encoding.get_ids().to_vec();
        let most = self.max_tokens();
        if tokens.len() > most {
            let last = tokens.len() - 1;
            tokens.swap(most - 1, last);
            tokens.truncate(most);
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
        self.0.weights.forward(sequences, self.0.manner.pooling, scratch, between)
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
