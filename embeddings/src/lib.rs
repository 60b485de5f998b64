//! Text into vectors: extraction, chunking, the candle model, the nearest ones. Knows nothing of events.
//!
//! The way of a file: an [`Extractor`] makes a [`Document`] of its bytes, [`Model::chunk`] cuts it, [`Embedder`] turns the chunks into
//! vectors of unit length, an [`Artifact`] keeps all of it in one piece, and [`VectorIndex`] finds the nearest to a question.

mod artifact;
mod chunk;
mod embedder;
mod error;
mod extract;
mod extractor;
mod hub;
mod index;
mod model;
mod near;
mod processor;
mod tokens;

pub use artifact::Artifact;
pub use chunk::{CHUNKER_VERSION, Chunk, Place};
pub use embedder::Embedder;
pub use error::{ArtifactError, ExtractError, ModelError};
pub use extract::{Document, Landmark, check_format, extract};
pub use extractor::{ExtractFailure, ExtractLimits, Extractor, WORKER, work};
pub use hub::{MODEL_DIRECTORY_VARIABLE, Progress, fetch, locate, show_progress};
pub use index::{Hit, VectorIndex};
pub use model::{MAX_TOKENS, Model};

#[cfg(test)]
mod random;
