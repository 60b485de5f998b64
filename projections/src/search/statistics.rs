//! How often words stand in knowledge bases, as BM25 weighs them.
//!
//! The rule of this file: what stands in other knowledge bases counts for nothing. Otherwise their words would move the scores
//! of these, and tell whoever asks what there is that they may not see.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use tantivy::collector::Count;
use tantivy::query::{Bm25StatisticsProvider, BooleanQuery, Occur, Query, TermQuery};
use tantivy::schema::{Field, IndexRecordOption};
use tantivy::{DocSet, Searcher, TERMINATED, Term};
use uuid::Uuid;

/// How many counts of words are remembered.
const MOST_REMEMBERED: usize = 50_000;

/// The column that says how many words a chunk has.
pub(super) const LENGTH: &str = "length";

/// How many chunks and words there are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Size {
    chunks: u64,
    words: u64,
}

/// What was counted in the index as it was at one commit.
#[derive(Default)]
struct Counted {
    generation: u64,
    sizes: HashMap<Uuid, Size>,
    /// In how many chunks of a knowledge base a word is.
    frequencies: HashMap<(Uuid, Term), u64>,
}

/// What was counted lately. Cheap to clone.
#[derive(Clone, Default)]
pub(super) struct Counts(Arc<Mutex<Counted>>);

/// The statistics of some knowledge bases.
pub(super) struct Statistics<'a> {
    searcher: &'a Searcher,
    /// Where a chunk's knowledge base is said.
    base: Field,
    bases: &'a [Uuid],
    counts: &'a Counts,
    size: Size,
}

impl<'a> Statistics<'a> {
    /// Of these knowledge bases, each named once.
    pub(super) fn of(
        searcher: &'a Searcher,
        base: Field,
        bases: &'a [Uuid],
        counts: &'a Counts,
    ) -> tantivy::Result<Statistics<'a>> {
        let mut statistics = Statistics { searcher, base, bases, counts, size: Size::default() };
        for id in bases {
            let Size { chunks, words } = statistics.size_of(*id)?;
            statistics.size.chunks += chunks;
            statistics.size.words += words;
        }
        Ok(statistics)
    }

    fn remembered<T>(&self, look: impl FnOnce(&mut Counted) -> T) -> T {
        let mut counted = self.counts.0.lock();
        let generation = self.searcher.generation().generation_id();
        if counted.generation != generation || counted.frequencies.len() > MOST_REMEMBERED {
            *counted = Counted { generation, ..Counted::default() };
        }
        look(&mut counted)
    }

    fn size_of(&self, id: Uuid) -> tantivy::Result<Size> {
        if let Some(size) = self.remembered(|counted| counted.sizes.get(&id).copied()) {
            return Ok(size);
        }
        let size = self.count_chunks(id)?;
        self.remembered(|counted| counted.sizes.insert(id, size));
        Ok(size)
    }

    fn count_chunks(&self, id: Uuid) -> tantivy::Result<Size> {
        let mut size = Size::default();
        let term = self.term_of(id);
        for segment in self.searcher.segment_readers() {
            let lengths = segment.fast_fields().u64(LENGTH)?;
            let index = segment.inverted_index(self.base)?;
            let Some(mut chunks) = index.read_postings(&term, IndexRecordOption::Basic)? else {
                continue;
            };
            let alive = segment.alive_bitset();
            let mut chunk = chunks.doc();
            while chunk != TERMINATED {
                if alive.is_none_or(|alive| alive.is_alive(chunk)) {
                    size.chunks += 1;
                    size.words += lengths.first(chunk).unwrap_or_default();
                }
                chunk = chunks.advance();
            }
        }
        Ok(size)
    }

    fn frequency_in(&self, id: Uuid, word: &Term) -> tantivy::Result<u64> {
        let key = (id, word.clone());
        if let Some(count) = self.remembered(|counted| counted.frequencies.get(&key).copied()) {
            return Ok(count);
        }
        let both = [self.term_of(id), word.clone()].map(|term| {
            let term = TermQuery::new(term, IndexRecordOption::Basic);
            (Occur::Must, Box::new(term) as Box<dyn Query>)
        });
        let count = self.searcher.search(&BooleanQuery::new(both.into()), &Count)? as u64;
        self.remembered(|counted| counted.frequencies.insert(key, count));
        Ok(count)
    }

    fn term_of(&self, id: Uuid) -> Term {
        Term::from_field_text(self.base, &id.to_string())
    }

    /// Whether nothing else is in the index, and nothing in it was deleted: then it has counted itself.
    fn is_all(&self) -> bool {
        let segments = self.searcher.segment_readers().iter();
        segments.map(|segment| u64::from(segment.max_doc())).sum::<u64>() == self.size.chunks
    }
}

impl Bm25StatisticsProvider for Statistics<'_> {
    fn total_num_tokens(&self, _: Field) -> tantivy::Result<u64> {
        Ok(self.size.words)
    }

    fn total_num_docs(&self) -> tantivy::Result<u64> {
        Ok(self.size.chunks)
    }

    fn doc_freq(&self, word: &Term) -> tantivy::Result<u64> {
        if self.is_all() {
            return self.searcher.doc_freq(word);
        }
        let mut count = 0;
        for id in self.bases {
            count += self.frequency_in(*id, word)?;
        }
        Ok(count)
    }
}
