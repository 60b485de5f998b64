//! Search over 100,000 chunks without the question's embedding, beside an exact scan of f32 vectors.
//!
//! The rule of this file: real embeddings are few, so the hundred thousand are made between pairs of
//! them, with noise; and random ones are measured too, since among those neighbours are hardest to
//! tell apart.

use std::time::Instant;

use embeddings::VectorIndex;
use serde_json::json;
use uuid::Uuid;

use crate::report::{Row, Scale, median, milliseconds};
use crate::texts::{Texts, embedder};

pub const CHUNKS_OF_A_DOCUMENT: usize = 10;
pub const WANTED: usize = 10;

/// How far a made vector is moved away by noise, as a part of its length.
const NOISE: f32 = 0.3;

/// Draws numbers (xorshift64*, Vigna, 2016).
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 32
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }

    /// From -1 to 1.
    fn number(&mut self) -> f32 {
        (self.next() >> 8) as f32 / (1 << 23) as f32 - 1.0
    }

    fn direction(&mut self, dimensions: usize) -> Vec<f32> {
        unit((0..dimensions).map(|_| self.number()).collect())
    }
}

/// The product of two vectors: the cosine where they are of unit length.
pub fn dot(one: &[f32], other: &[f32]) -> f32 {
    one.iter().zip(other).map(|(one, other)| one * other).sum()
}

fn unit(mut vector: Vec<f32>) -> Vec<f32> {
    let length = dot(&vector, &vector).sqrt();
    vector.iter_mut().for_each(|number| *number /= length);
    vector
}

pub async fn measure(scale: Scale) -> anyhow::Result<Vec<Row>> {
    let texts = Texts::load()?;
    let (seeds, queries) = embedded(&texts, scale).await?;
    let chunks = scale.pick(100_000, 2_000);
    let mut dice = Dice(0x9e37_79b9_7f4a_7c15);
    let dimensions = queries[0].len();
    let real = compare(&between(&seeds, chunks, &mut dice), &queries);
    let random: Vec<Vec<f32>> =
        (0..chunks + queries.len()).map(|_| dice.direction(dimensions)).collect();
    let random = compare(&random[..chunks], &random[chunks..]);
    Ok(vec![Row {
        what: format!(
            "search over {chunks} chunks, p50 without the question's embedding ({} vectors, mixed)",
            texts.origin
        ),
        goals: ["≤ 2 ms, recall@10 ≥ 0.99", "≤ 0.3 ms"],
        ours: format!("{:.2} ms (p99 {:.2}), recall@10 {:.3}", real.p50, real.p99, real.recall),
        beside: format!(
            "exact f32 scan {:.1} ms; random vectors {:.2} ms, recall@10 {:.3}",
            real.exact_p50, random.p50, random.recall
        ),
        ratio: format!("{:.0}× faster than exact", real.exact_p50 / real.p50),
        figures: json!({
            "p50_ms": real.p50, "p99_ms": real.p99, "recall_at_10": real.recall, "exact_p50_ms": real.exact_p50,
            "random_p50_ms": random.p50, "random_p99_ms": random.p99, "random_recall_at_10": random.recall,
        }),
    }])
}

/// Vectors between pairs of real ones, with noise.
fn between(seeds: &[Vec<f32>], count: usize, dice: &mut Dice) -> Vec<Vec<f32>> {
    let vectors = (0..count).map(|_| {
        let (one, other) = (&seeds[dice.below(seeds.len())], &seeds[dice.below(seeds.len())]);
        let (share, noise) = ((dice.number() + 1.0) / 2.0, dice.direction(one.len()));
        let mixed = one.iter().zip(other).zip(noise);
        unit(
            mixed
                .map(|((one, other), noise)| one * share + other * (1.0 - share) + noise * NOISE)
                .collect(),
        )
    });
    vectors.collect()
}

/// So many vectors that are like those of texts, and questions to them.
pub async fn vectors_like_texts(
    count: usize,
    scale: Scale,
) -> anyhow::Result<(Vec<Vec<f32>>, Vec<Vec<f32>>)> {
    let (seeds, queries) = embedded(&Texts::load()?, scale).await?;
    Ok((between(&seeds, count, &mut Dice(0x9e37_79b9_7f4a_7c15)), queries))
}

/// The vectors of some passages and questions.
async fn embedded(texts: &Texts, scale: Scale) -> anyhow::Result<(Vec<Vec<f32>>, Vec<Vec<f32>>)> {
    let embedder = embedder()?;
    let seeds = texts.passages[..texts.passages.len().min(scale.pick(1_000, 20))].to_vec();
    let seeds = embedder.embed_passages(seeds).await?;
    let mut queries = Vec::new();
    for question in texts.questions.iter().take(scale.pick(100, 5)) {
        queries.push(embedder.embed_query(question).await?);
    }
    Ok((seeds, queries))
}

struct Compared {
    p50: f64,
    p99: f64,
    exact_p50: f64,
    recall: f64,
}

/// Every query by the index and by an exact scan, in turn.
fn compare(vectors: &[Vec<f32>], queries: &[Vec<f32>]) -> Compared {
    let mut index = VectorIndex::new(queries[0].len());
    for (number, vectors) in (0..).zip(vectors.chunks(CHUNKS_OF_A_DOCUMENT)) {
        index.add(Uuid::from_u64_pair(0, number), vectors);
    }
    let (mut times, mut exact_times, mut found) = (Vec::new(), Vec::new(), 0);
    for query in queries {
        let started = Instant::now();
        let mut exact: Vec<(f32, usize)> =
            vectors.iter().map(|vector| dot(query, vector)).zip(0..).collect();
        exact.select_nth_unstable_by(WANTED, |one, other| other.0.total_cmp(&one.0));
        exact_times.push(milliseconds(started.elapsed()));

        // Several times: once alone would mostly measure what the scan left in the cache.
        for _ in 0..5 {
            let started = Instant::now();
            index.search(query, WANTED, None, None);
            times.push(milliseconds(started.elapsed()));
        }
        let place = |hit: &embeddings::Hit| {
            hit.document.as_u64_pair().1 as usize * CHUNKS_OF_A_DOCUMENT + hit.chunk as usize
        };
        let is_exact = |row: usize| exact[..WANTED].iter().any(|(_, exact)| *exact == row);
        let hits = index.search(query, WANTED, None, None);
        found += hits.iter().filter(|hit| is_exact(place(hit))).count();
    }
    times.sort_by(f64::total_cmp);
    Compared {
        p50: times[times.len() / 2],
        p99: times[times.len() * 99 / 100],
        exact_p50: median(&exact_times),
        recall: found as f64 / (WANTED * queries.len()) as f64,
    }
}
