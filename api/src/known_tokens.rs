//! API tokens that were looked up lately, with their products.
//!
//! The rule of this file: what is kept is good at one position of the read models only. Whatever
//! they take in next, a revocation or anything else, forgets it all.

use std::collections::HashMap;
use std::sync::Arc;

use eventlog::Position;
use parking_lot::Mutex;
use projections::api_token::ApiToken;
use projections::product::Product;

/// How many tokens are kept at once.
const KEPT: usize = 10_000;

/// A token by its secret, and its product while there is one.
#[derive(Clone, Debug)]
pub struct Known {
    /// The token.
    pub token: ApiToken,
    /// Its product.
    pub product: Option<Product>,
}

/// The tokens that were looked up at one position.
#[derive(Debug, Default)]
pub struct KnownTokens(Mutex<Kept>);

#[derive(Debug, Default)]
struct Kept {
    position: Position,
    by_hash: HashMap<String, Arc<Known>>,
}

impl KnownTokens {
    /// The token of a secret's keyed hash, if it was looked up at `position`.
    pub fn get(&self, position: Position, hash: &str) -> Option<Arc<Known>> {
        let kept = self.0.lock();
        kept.by_hash.get(hash).filter(|_| kept.position == position).cloned()
    }

    /// Keeps what was looked up. `position` is that of the read models *before* the look-up.
    pub fn keep(&self, position: Position, hash: String, known: Arc<Known>) {
        let mut kept = self.0.lock();
        if kept.position != position {
            kept.by_hash.clear();
            kept.position = position;
        }
        if kept.by_hash.len() < KEPT {
            kept.by_hash.insert(hash, known);
        }
    }
}

#[cfg(test)]
mod tests;
