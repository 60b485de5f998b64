//! Search over 100,000 chunks, one thread, without the question's embedding; and recall@10 against exact f32.
//!
//! Vectors: those of `PRODGY_VECTORS` (f32, little endian, 384 per vector: real embeddings) if it is set, else random ones, among
//! which the nearest are hardest to tell apart.
#![expect(clippy::unwrap_used, reason = "a benchmark ends at the first surprise")]

#[path = "../src/random.rs"]
mod random;

use std::time::Instant;

use criterion::{Criterion, criterion_group, criterion_main};
use embeddings::VectorIndex;
use random::unit_vectors;
use uuid::Uuid;

const CHUNKS: usize = 100_000;
const DIMENSIONS: usize = 384;
const CHUNKS_PER_DOCUMENT: usize = 10;
const QUERIES: usize = 100;

fn vectors() -> Vec<Vec<f32>> {
    match std::env::var_os("PRODGY_VECTORS") {
        Some(path) => {
            let numbers: Vec<f32> = std::fs::read(path)
                .unwrap()
                .as_chunks::<4>()
                .0
                .iter()
                .map(|bytes| f32::from_le_bytes(*bytes))
                .collect();
            numbers.chunks_exact(DIMENSIONS).map(<[f32]>::to_vec).collect()
        }
        None => unit_vectors(CHUNKS + QUERIES, DIMENSIONS, 1),
    }
}

fn dot(one: &[f32], other: &[f32]) -> f32 {
    one.iter().zip(other).map(|(one, other)| one * other).sum()
}

fn search(criterion: &mut Criterion) {
    let mut vectors = vectors();
    let queries = vectors.split_off(vectors.len() - QUERIES);
    let mut index = VectorIndex::new(DIMENSIONS);
    let start = Instant::now();
    for (number, vectors) in (0..).zip(vectors.chunks(CHUNKS_PER_DOCUMENT)) {
        index.add(Uuid::from_u64_pair(0, number), vectors);
    }
    let build = start.elapsed();

    let mut times = Vec::new();
    let mut same = 0;
    for query in &queries {
        let start = Instant::now();
        let hits = index.search(query, 10, None, None);
        times.push(start.elapsed().as_secs_f64() * 1e3);
        let mut exact: Vec<(f32, usize)> =
            vectors.iter().map(|vector| dot(query, vector)).zip(0..).collect();
        exact.sort_by(|one, other| other.0.total_cmp(&one.0));
        let place = |hit: &embeddings::Hit| {
            hit.document.as_u64_pair().1 as usize * CHUNKS_PER_DOCUMENT + hit.chunk as usize
        };
        same +=
            hits.iter().filter(|hit| exact[..10].iter().any(|(_, row)| *row == place(hit))).count();
    }
    times.sort_by(f64::total_cmp);
    println!(
        "{{\"chunks\": {}, \"build_s\": {:.2}, \"search_p50_ms\": {:.2}, \"search_p99_ms\": {:.2}, \"recall_at_10\": {}}}",
        index.len(),
        build.as_secs_f64(),
        times[QUERIES / 2],
        times[QUERIES - 1],
        same as f64 / (10 * QUERIES) as f64,
    );

    let mut group = criterion.benchmark_group("search");
    group.sample_size(30).measurement_time(std::time::Duration::from_secs(3));
    group.bench_function("100,000 chunks, all admitted", |bencher| {
        bencher.iter(|| index.search(&queries[0], 10, None, None))
    });
    let documents = (CHUNKS / CHUNKS_PER_DOCUMENT) as u64;
    let some: Vec<Uuid> =
        (0..documents).step_by(100).map(|number| Uuid::from_u64_pair(0, number)).collect();
    group.bench_function("100,000 chunks, among one document in a hundred", |bencher| {
        bencher.iter(|| index.search(&queries[0], 10, None, Some(&some)));
    });
    group.finish();
}

criterion_group!(benches, search);
criterion_main!(benches);
