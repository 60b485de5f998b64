//! What was found by meaning and what was found by words, as one list.
//!
//! The rule of this file: scores are put together and not ranks, since how much better the first is
//! than the second says something (Bruch, Gai and Ingber, "An Analysis of Fusion Functions for Hybrid
//! Retrieval", 2023).

use std::collections::HashMap;

use embeddings::Hit;
use uuid::Uuid;

/// How much the meaning weighs; the words weigh the rest. That of the paper, and not of any collection.
const MEANING: f32 = 0.8;

/// Puts two lists together, best first: each score as a part of the way from the least that there can
/// be (a cosine of -1, a BM25 of 0) to the best that was found. `cosine` is asked for what was found by
/// words alone.
pub(super) fn fuse(
    by_meaning: Vec<Hit>,
    by_words: Vec<Hit>,
    cosine: impl Fn(&Hit) -> Option<f32>,
) -> Vec<Hit> {
    let best = |hits: &[Hit]| hits.iter().map(|hit| hit.score).fold(f32::MIN_POSITIVE, f32::max);
    let best_words = best(&by_words);
    let mut fused: HashMap<(Uuid, u32), (f32, f32)> = HashMap::new();
    for hit in &by_meaning {
        fused.insert((hit.document, hit.chunk), (hit.score, 0.0));
    }
    for hit in &by_words {
        let key = (hit.document, hit.chunk);
        if let Some((_, words)) = fused.get_mut(&key) {
            *words = hit.score;
        } else if let Some(cosine) = cosine(hit) {
            fused.insert(key, (cosine, hit.score));
        }
    }
    let best_meaning = fused.values().map(|(meaning, _)| *meaning).fold(-1.0, f32::max);
    let share = |meaning: f32, words: f32| {
        let meaning = (meaning + 1.0) / (best_meaning + 1.0).max(f32::MIN_POSITIVE);
        MEANING * meaning + (1.0 - MEANING) * words / best_words
    };
    let mut hits: Vec<Hit> = fused
        .into_iter()
        .map(|((document, chunk), (meaning, words))| Hit {
            document,
            chunk,
            score: share(meaning, words),
        })
        .collect();
    hits.sort_unstable_by(Hit::order);
    hits
}

#[cfg(test)]
mod tests;
