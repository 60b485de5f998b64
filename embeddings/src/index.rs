//! The nearest vectors, found exactly but for what the first looks overlook. The one rule: the same contents give the same answer,
//! whatever the order they came in.
//!
//! A search looks three times, each time closer at fewer: at the signs of all numbers (a bit each), at four bits a number, and at
//! twelve, which is what scores are made of: they are off by some 0.0001. That is 48 + 192 + 384 + 4 bytes for a vector of 384:
//! 63 MB per 100,000.

mod nibbles;
mod rows;
mod signs;

use std::cmp::Ordering;
use std::collections::HashMap;

use uuid::Uuid;

use crate::processor::Processor;
use nibbles::{Closer, Estimate, Query, pack, row_bytes};
use rows::Rows;
use signs::{BLOCK, Signs};

/// The second look keeps this many times the vectors asked for, and no fewer than [`FEWEST_CANDIDATES`].
const OVERSAMPLING: usize = 8;
const FEWEST_CANDIDATES: usize = 100;

/// The first look keeps one in so many, no fewer than [`FEWEST_LIKELY`], and so many times what the second one keeps.
const ONE_LIKELY_IN: usize = 96;
const FEWEST_LIKELY: usize = 1024;
const LIKELY_FOR_ONE: usize = 3;

/// Looking at a row for a second time costs what so many cost at first.
const COST_OF_A_SECOND_LOOK: usize = 24;

/// A piece of the numbers has so many rows, to the power of two: few enough that one with room left does not matter.
const PIECE: u32 = 12;

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
    signs: Signs,
    /// A bit for each row that is not removed.
    present: Vec<u32>,
    nibbles: Rows<u8>,
    /// What the nibbles leave of the numbers.
    rests: Rows<i8>,
    /// What the estimates of a row must be multiplied by.
    scales: Vec<f32>,
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

impl VectorIndex {
    /// An empty index for vectors of this length.
    pub fn new(dimensions: usize) -> Self {
        Self {
            dimensions,
            processor: Processor::detect(),
            signs: Signs::new(dimensions),
            present: Vec::new(),
            nibbles: Rows::new(row_bytes(dimensions), PIECE),
            rests: Rows::new(2 * row_bytes(dimensions), PIECE),
            scales: Vec::new(),
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
        let (mut nibbles, mut rests) = (Vec::new(), Vec::new());
        for vector in vectors {
            assert_eq!(vector.len(), self.dimensions, "a vector of another model");
            nibbles.clear();
            rests.clear();
            self.scales.push(pack(vector, &mut nibbles, &mut rests));
            self.signs.push(vector);
            self.nibbles.push(&nibbles);
            self.rests.push(&rests);
        }
        self.present.resize(self.scales.len().div_ceil(BLOCK), 0);
        mark(&mut self.present, first as usize..self.scales.len());
        self.places.insert(document, run);
        self.runs.push(Run { document, first, rows: vectors.len() as u32, removed: false });
    }

    /// Removes a document. Answers whether it was there.
    pub fn remove(&mut self, document: Uuid) -> bool {
        let Some(place) = self.places.remove(&document) else { return false };
        let run = &mut self.runs[place as usize];
        run.removed = true;
        self.removed_rows += run.rows as usize;
        for row in run.range() {
            self.present[row / BLOCK] &= !(1 << (row % BLOCK));
        }
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
        // Runs without rows come before the one that the row is of.
        let run = &self.runs[self.runs.partition_point(|run| run.first <= row) - 1];
        Hit { document: run.document, chunk: row - run.first, score }
    }

    fn exact(&self, query: &Query, row: u32) -> f32 {
        let row = row as usize;
        let closer = Closer { query, nibbles: self.nibbles.row(row), rests: self.rests.row(row) };
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
        let wanted = (total / ONE_LIKELY_IN).max(FEWEST_LIKELY).max(count * LIKELY_FOR_ONE);
        let is_few = total <= wanted || total <= self.len() / COST_OF_A_SECOND_LOOK;
        match runs {
            Some(runs) if is_few => {
                runs.into_iter().flat_map(Run::range).map(|row| row as u32).collect()
            }
            None if is_few => {
                let present = self.runs.iter().filter(|run| !run.removed);
                present.flat_map(Run::range).map(|row| row as u32).collect()
            }
            Some(runs) => {
                let mut admitted = vec![0; self.present.len()];
                runs.into_iter().for_each(|run| mark(&mut admitted, run.range()));
                self.signs.nearest(query, admitted, wanted, self.processor)
            }
            None => self.signs.nearest(query, self.present.clone(), wanted, self.processor),
        }
    }

    /// Moves what is left together.
    fn compact(&mut self) {
        self.runs.retain(|run| !run.removed);
        let left = self.runs.iter().flat_map(Run::range);
        self.signs = self.signs.only(left, self.dimensions);
        let mut next = 0;
        for (place, run) in (0..).zip(&mut self.runs) {
            let rows = run.range();
            run.first = next as u32;
            for row in rows {
                self.scales[next] = self.scales[row];
                self.nibbles.move_back(row, next);
                self.rests.move_back(row, next);
                next += 1;
            }
            self.places.insert(run.document, place);
        }
        self.scales.truncate(next);
        self.nibbles.truncate(next);
        self.rests.truncate(next);
        self.present.clear();
        self.present.resize(next.div_ceil(BLOCK), 0);
        mark(&mut self.present, 0..next);
        self.removed_rows = 0;
    }
}

/// Sets the bits of some rows.
fn mark(bits: &mut [u32], rows: std::ops::Range<usize>) {
    rows.for_each(|row| bits[row / BLOCK] |= 1 << (row % BLOCK));
}

#[cfg(test)]
#[path = "index_tests.rs"]
mod tests;
