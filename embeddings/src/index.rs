//! The nearest vectors, found exactly but for what the first looks overlook. The one rule: the same contents give the same answer,
//! whatever the order they came in.
//!
//! A search looks three times, each time closer at fewer: at the signs of all numbers (a bit each), at four bits a number, and at
//! twelve, which is what scores are made of: they are off by some 0.0001. That is 48 + 192 + 384 + 8 bytes for a vector of 384:
//! 63 MB per 100,000.

mod nibbles;
mod signs;

use std::cell::RefCell;
use std::cmp::Ordering;
use std::collections::HashMap;

use uuid::Uuid;

use crate::processor::Processor;
use nibbles::{Closer, Estimate, Query, pack, row_bytes};
use signs::{Distances, FAR, Planes, Sift, sign, words};

/// The second look keeps this many times the vectors asked for, and no fewer than [`FEWEST_CANDIDATES`].
const OVERSAMPLING: usize = 8;
const FEWEST_CANDIDATES: usize = 100;

/// The first look keeps one in so many, and no fewer than [`FEWEST_LIKELY`].
const ONE_LIKELY_IN: usize = 48;
const FEWEST_LIKELY: usize = 2048;

/// Of those, one in so many is kept by a closer look at the signs.
const ONE_LIKELIER_IN: usize = 4;

/// Fewer than these need no first look.
const FEWEST_TO_SIEVE: usize = 16_384;

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

impl Hit {
    /// The order of answers: the best score first, ties by document and chunk.
    pub fn order(&self, other: &Hit) -> Ordering {
        other
            .score
            .total_cmp(&self.score)
            .then(self.document.cmp(&other.document))
            .then(self.chunk.cmp(&other.chunk))
    }
}

/// Vectors of unit length, by document.
#[derive(Clone, Debug)]
pub struct VectorIndex {
    dimensions: usize,
    processor: Processor,
    /// Row-major, as are `nibbles` and `rests`.
    signs: Vec<u64>,
    nibbles: Vec<u8>,
    /// What the nibbles leave of the numbers.
    rests: Vec<i8>,
    /// What the estimates of a row must be multiplied by.
    scales: Vec<f32>,
    /// The run of every row.
    run_of: Vec<u32>,
    /// Runs of rows; those of removed documents stay until compaction.
    runs: Vec<Run>,
    /// The run of every document that is here.
    places: HashMap<Uuid, u32>,
    removed_rows: usize,
}

#[derive(Clone, Copy, Debug)]
struct Run {
    document: Uuid,
    first: u32,
    rows: u32,
    removed: bool,
}

impl Run {
    fn range(&self) -> std::ops::Range<usize> {
        self.first as usize..(self.first + self.rows) as usize
    }
}

thread_local! {
    /// The distances of a first look: too many to make room for them each time.
    static DISTANCES: RefCell<Vec<u16>> = const { RefCell::new(Vec::new()) };
}

impl VectorIndex {
    /// An empty index for vectors of this length.
    pub fn new(dimensions: usize) -> Self {
        Self {
            dimensions,
            processor: Processor::detect(),
            signs: Vec::new(),
            nibbles: Vec::new(),
            rests: Vec::new(),
            scales: Vec::new(),
            run_of: Vec::new(),
            runs: Vec::new(),
            places: HashMap::new(),
            removed_rows: 0,
        }
    }

    /// How long its vectors are.
    pub fn dimensions(&self) -> usize {
        self.dimensions
    }

    /// Adds a document's vectors, in the order of its chunks. What was there of the document goes.
    ///
    /// # Panics
    /// If a vector is not as long as the index was made for: vectors of another model.
    pub fn add(&mut self, document: Uuid, vectors: &[Vec<f32>]) {
        self.remove(document);
        let (first, run) = (self.scales.len() as u32, self.runs.len() as u32);
        for vector in vectors {
            assert_eq!(vector.len(), self.dimensions, "a vector of another model");
            sign(vector, &mut self.signs);
            self.scales.push(pack(vector, &mut self.nibbles, &mut self.rests));
            self.run_of.push(run);
        }
        self.places.insert(document, run);
        self.runs.push(Run { document, first, rows: vectors.len() as u32, removed: false });
    }

    /// Removes a document. Answers whether it was there.
    pub fn remove(&mut self, document: Uuid) -> bool {
        let Some(place) = self.places.remove(&document) else { return false };
        let run = &mut self.runs[place as usize];
        run.removed = true;
        self.removed_rows += run.rows as usize;
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

    /// The `limit` vectors nearest to a query of unit length, best first, with a score of at least `min_score`; among these
    /// documents alone, where some are named.
    pub fn search(
        &self,
        query: &[f32],
        limit: usize,
        min_score: Option<f32>,
        among: Option<&[Uuid]>,
    ) -> Vec<Hit> {
        assert_eq!(query.len(), self.dimensions, "a query by another model");
        if limit == 0 {
            return Vec::new();
        }
        let close = Query::new(query);
        let mut best: Vec<Hit> = self
            .candidates(query, &close, limit, among)
            .into_iter()
            .map(|row| self.hit(row, self.exact(&close, row)))
            .filter(|hit| min_score.is_none_or(|least| hit.score >= least))
            .collect();
        best.sort_unstable_by(Hit::order);
        best.truncate(limit);
        best
    }

    /// The score of one chunk, if it is here.
    pub fn score(&self, query: &[f32], document: Uuid, chunk: u32) -> Option<f32> {
        let run = &self.runs[*self.places.get(&document)? as usize];
        let row = (chunk < run.rows).then_some(run.first + chunk)?;
        Some(self.exact(&Query::new(query), row))
    }

    fn hit(&self, row: u32, score: f32) -> Hit {
        let run = &self.runs[self.run_of[row as usize] as usize];
        Hit { document: run.document, chunk: row - run.first, score }
    }

    fn exact(&self, query: &Query, row: u32) -> f32 {
        let (row, bytes) = (row as usize, row_bytes(self.dimensions));
        let closer = Closer {
            query,
            nibbles: &self.nibbles[row * bytes..][..bytes],
            rests: &self.rests[row * 2 * bytes..][..2 * bytes],
        };
        self.processor.dispatch(closer) * self.scales[row]
    }

    /// The second look: the best rows by their nibbles, among those that the first look found likely.
    fn candidates(
        &self,
        query: &[f32],
        close: &Query,
        limit: usize,
        among: Option<&[Uuid]>,
    ) -> Vec<u32> {
        let count = limit.saturating_mul(OVERSAMPLING).max(FEWEST_CANDIDATES);
        let mut rows = self.likely(query, count, among);
        if rows.len() <= count {
            return rows;
        }
        let mut estimates = vec![0; rows.len()];
        self.processor.dispatch(Estimate {
            query: close,
            rows: &self.nibbles,
            of: &rows,
            estimates: &mut estimates,
        });
        let mut ranked: Vec<(f32, u32)> = estimates
            .iter()
            .zip(&rows)
            .map(|(estimate, row)| (*estimate as f32 * self.scales[*row as usize], *row))
            .collect();
        ranked.select_nth_unstable_by(count - 1, |one, other| {
            other.0.total_cmp(&one.0).then_with(|| {
                let (one, other) = (self.hit(one.1, 0.0), self.hit(other.1, 0.0));
                one.order(&other)
            })
        });
        rows.clear();
        rows.extend(ranked[..count].iter().map(|(_, row)| *row));
        rows
    }

    /// The first look: all rows to be looked at, or those of many that are nearest by their signs, with all that are as near as the
    /// last of them.
    fn likely(&self, query: &[f32], count: usize, among: Option<&[Uuid]>) -> Vec<u32> {
        let runs: Option<Vec<&Run>> = among.map(|documents| {
            let places = documents.iter().filter_map(|document| self.places.get(document));
            let mut places: Vec<u32> = places.copied().collect();
            places.sort_unstable();
            places.dedup();
            places.into_iter().map(|place| &self.runs[place as usize]).collect()
        });
        let total = match &runs {
            Some(runs) => runs.iter().map(|run| run.rows as usize).sum(),
            None => self.len(),
        };
        if total < FEWEST_TO_SIEVE {
            let all = || {
                Box::new(self.runs.iter().filter(|run| !run.removed))
                    as Box<dyn Iterator<Item = &Run>>
            };
            let runs = runs.map_or_else(all, |runs| Box::new(runs.into_iter()));
            return runs.flat_map(|run| run.range()).map(|row| row as u32).collect();
        }
        let wanted = (total / ONE_LIKELY_IN).max(FEWEST_LIKELY).max(count);
        let mut signs = Vec::new();
        sign(query, &mut signs);
        DISTANCES.with_borrow_mut(|distances| {
            distances.clear();
            distances.resize(self.scales.len(), FAR);
            let mut measure = |range: std::ops::Range<usize>| {
                let width = words(self.dimensions);
                self.processor.dispatch(Distances {
                    query: &signs,
                    rows: &self.signs[range.start * width..range.end * width],
                    distances: &mut distances[range],
                });
            };
            match runs {
                Some(runs) => runs.into_iter().for_each(|run| measure(run.range())),
                None => {
                    measure(0..self.scales.len());
                    for run in self.runs.iter().filter(|run| run.removed) {
                        distances[run.range()].fill(FAR);
                    }
                }
            }
            let of = signs::nearest(distances, self.dimensions, wanted);
            // The other numbers of a row are far away in memory, and its signs are at hand.
            let count = (wanted / ONE_LIKELIER_IN).max(count);
            let planes = &Planes::new(query);
            self.processor.dispatch(Sift { planes, rows: &self.signs, of, count })
        })
    }

    /// Moves what is left together.
    fn compact(&mut self) {
        let mut next = 0;
        self.runs.retain(|run| !run.removed);
        let (bytes, width) = (row_bytes(self.dimensions), words(self.dimensions));
        for (place, run) in (0..).zip(&mut self.runs) {
            let (first, end) = (run.first as usize, (run.first + run.rows) as usize);
            self.scales.copy_within(first..end, next);
            self.signs.copy_within(first * width..end * width, next * width);
            self.nibbles.copy_within(first * bytes..end * bytes, next * bytes);
            self.rests.copy_within(first * 2 * bytes..end * 2 * bytes, next * 2 * bytes);
            self.run_of[next..next + run.rows as usize].fill(place);
            run.first = next as u32;
            next += run.rows as usize;
            self.places.insert(run.document, place);
        }
        self.scales.truncate(next);
        self.run_of.truncate(next);
        self.signs.truncate(next * width);
        self.nibbles.truncate(next * bytes);
        self.rests.truncate(next * 2 * bytes);
        self.removed_rows = 0;
    }
}

#[cfg(test)]
#[path = "index_tests.rs"]
mod tests;
