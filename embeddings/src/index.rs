//! The nearest vectors, found exactly. The one rule: the same contents give the same answer, whatever the order they came in.
//!
//! Every vector is held twice: in four bits a number, which a first round compares with all of them, and as f32, which the best of
//! that round are scored with. That is 192 + 1,536 + 4 bytes for a vector of 384: 173 MB per 100,000.

mod nibbles;

use std::cmp::{Ordering, Reverse};
use std::collections::{BinaryHeap, HashMap};

use uuid::Uuid;

use crate::processor::Processor;
use nibbles::{Dot, Estimate, Query, pack, row_bytes};

/// The first round keeps this many times the vectors asked for, and no fewer than [`FEWEST_CANDIDATES`].
const OVERSAMPLING: usize = 8;
const FEWEST_CANDIDATES: usize = 100;

/// Removed rows are reclaimed when they are this many and more than a third of all.
const FEWEST_TO_COMPACT: usize = 1024;

/// A chunk found.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Hit {
    /// The document it is of.
    pub document: Uuid,
    /// Its index in the document.
    pub chunk: u32,
    /// The cosine of the angle between it and the question.
    pub score: f32,
}

/// Vectors of unit length, by document.
#[derive(Clone, Debug)]
pub struct VectorIndex {
    dimensions: usize,
    processor: Processor,
    /// Row-major, as are `numbers`.
    nibbles: Vec<u8>,
    numbers: Vec<f32>,
    /// What the estimates of a row must be multiplied by.
    scales: Vec<f32>,
    /// Runs of rows; those of removed documents stay until compaction.
    runs: Vec<Run>,
    /// The run of every document that is here.
    places: HashMap<Uuid, usize>,
    removed_rows: usize,
}

#[derive(Clone, Copy, Debug)]
struct Run {
    document: Uuid,
    first: usize,
    rows: usize,
    removed: bool,
}

/// A row in the order of answers: the best score first, ties by document and chunk. (`Ord` puts the better one higher.)
#[derive(Clone, Copy, PartialEq)]
struct Ranked {
    score: f32,
    document: Reverse<Uuid>,
    chunk: Reverse<u32>,
    row: usize,
}

impl Eq for Ranked {}

impl Ord for Ranked {
    fn cmp(&self, other: &Self) -> Ordering {
        self.score
            .total_cmp(&other.score)
            .then(self.document.cmp(&other.document))
            .then(self.chunk.cmp(&other.chunk))
    }
}

impl PartialOrd for Ranked {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl VectorIndex {
    /// An empty index for vectors of this length.
    pub fn new(dimensions: usize) -> Self {
        Self {
            dimensions,
            processor: Processor::detect(),
            nibbles: Vec::new(),
            numbers: Vec::new(),
            scales: Vec::new(),
            runs: Vec::new(),
            places: HashMap::new(),
            removed_rows: 0,
        }
    }

    /// Adds a document's vectors, in the order of its chunks. What was there of the document goes.
    ///
    /// # Panics
    /// If a vector is not as long as the index was made for: vectors of another model.
    pub fn add(&mut self, document: Uuid, vectors: &[Vec<f32>]) {
        self.remove(document);
        let first = self.scales.len();
        for vector in vectors {
            assert_eq!(vector.len(), self.dimensions, "a vector of another model");
            self.scales.push(pack(vector, &mut self.nibbles));
            self.numbers.extend_from_slice(vector);
        }
        self.places.insert(document, self.runs.len());
        self.runs.push(Run { document, first, rows: vectors.len(), removed: false });
    }

    /// Removes a document. Answers whether it was there.
    pub fn remove(&mut self, document: Uuid) -> bool {
        let Some(place) = self.places.remove(&document) else { return false };
        self.runs[place].removed = true;
        self.removed_rows += self.runs[place].rows;
        if self.removed_rows >= FEWEST_TO_COMPACT && self.removed_rows * 3 > self.scales.len() {
            self.compact();
        }
        true
    }

    /// The number of vectors.
    pub fn len(&self) -> usize {
        self.scales.len() - self.removed_rows
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The `limit` vectors nearest to a query of unit length, best first, of the documents that `admit` lets in (it is asked once per
    /// document), with a score of at least `min_score`.
    pub fn search(
        &self,
        query: &[f32],
        limit: usize,
        min_score: Option<f32>,
        admit: &dyn Fn(Uuid) -> bool,
    ) -> Vec<Hit> {
        assert_eq!(query.len(), self.dimensions, "a query by another model");
        let mut best: Vec<Ranked> = self
            .candidates(query, limit.saturating_mul(OVERSAMPLING).max(FEWEST_CANDIDATES), admit)
            .into_iter()
            .map(|candidate| {
                let vector = &self.numbers[candidate.row * self.dimensions..][..self.dimensions];
                Ranked { score: self.processor.dispatch(Dot(query, vector)), ..candidate }
            })
            .filter(|candidate| min_score.is_none_or(|least| candidate.score >= least))
            .collect();
        best.sort_unstable_by(|one, other| other.cmp(one));
        best.truncate(limit);
        best.into_iter()
            .map(|Ranked { score, document, chunk, .. }| Hit {
                document: document.0,
                chunk: chunk.0,
                score,
            })
            .collect()
    }

    /// The first round: all admitted rows by their nibbles.
    fn candidates(&self, query: &[f32], count: usize, admit: &dyn Fn(Uuid) -> bool) -> Vec<Ranked> {
        let query = Query::new(query);
        let row_bytes = row_bytes(self.dimensions);
        let count = count.min(self.len());
        let mut estimates = Vec::new();
        // The heap's head is the worst of the best so far.
        let mut best: BinaryHeap<Reverse<Ranked>> = BinaryHeap::with_capacity(count);
        let mut least = f32::NEG_INFINITY;
        for run in self.runs.iter().filter(|run| !run.removed && run.rows > 0) {
            if count == 0 || !admit(run.document) {
                continue;
            }
            estimates.resize(run.rows, 0);
            let rows = &self.nibbles[run.first * row_bytes..][..run.rows * row_bytes];
            self.processor.dispatch(Estimate { query: &query, rows, estimates: &mut estimates });
            for ((chunk, row), estimate) in (0..).zip(run.first..).zip(&estimates) {
                let score = *estimate as f32 * self.scales[row];
                if score < least {
                    continue;
                }
                let ranked =
                    Ranked { score, document: Reverse(run.document), chunk: Reverse(chunk), row };
                if best.len() == count {
                    if best.peek().is_some_and(|Reverse(worst)| ranked < *worst) {
                        continue;
                    }
                    best.pop();
                }
                best.push(Reverse(ranked));
                if best.len() == count {
                    least = best.peek().map_or(least, |Reverse(worst)| worst.score);
                }
            }
        }
        best.into_iter().map(|Reverse(ranked)| ranked).collect()
    }

    /// Moves what is left together.
    fn compact(&mut self) {
        let mut next = 0;
        self.runs.retain(|run| !run.removed);
        let row_bytes = row_bytes(self.dimensions);
        for (place, run) in self.runs.iter_mut().enumerate() {
            let (first, end) = (run.first, run.first + run.rows);
            self.scales.copy_within(first..end, next);
            self.nibbles.copy_within(first * row_bytes..end * row_bytes, next * row_bytes);
            self.numbers.copy_within(
                first * self.dimensions..end * self.dimensions,
                next * self.dimensions,
            );
            run.first = next;
            next += run.rows;
            self.places.insert(run.document, place);
        }
        self.scales.truncate(next);
        self.nibbles.truncate(next * row_bytes);
        self.numbers.truncate(next * self.dimensions);
        self.removed_rows = 0;
    }
}

#[cfg(test)]
#[path = "index_tests.rs"]
mod tests;
