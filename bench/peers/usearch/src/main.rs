//! A graph of vectors (HNSW) as usearch makes it: built and asked on one thread. Usage: usearch-peer FILE DIMENSIONS QUESTIONS KEPT.
//! FILE holds the numbers of all vectors (f32, little endian), those of the questions last; a filter keeps the rows that KEPT, a
//! divisor of tens of rows, divides.
//!
//! Says in JSON how long it took, how much memory it holds, how long each question took, and which rows it found.

use std::time::Instant;

use anyhow::Context;
use serde_json::{Value, json};
use usearch::{Index, IndexOptions, MetricKind, ScalarKind};

/// As it was tried before: see decision 26.
const CONNECTIVITY: usize = 16;
const EXPANSION_OF_BUILD: usize = 128;
const EXPANSIONS: [usize; 2] = [64, 128];

const WANTED: usize = 10;

/// How often each question is asked: once alone would mostly measure what was done before it.
const TIMES: usize = 5;

/// Rows come ten to a document, which the filter keeps or does not.
const ROWS_OF_A_DOCUMENT: u64 = 10;

fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let mut argument =
        || arguments.next().context("usage: usearch-peer FILE DIMENSIONS QUESTIONS KEPT");
    let numbers = numbers(&argument()?)?;
    let (dimensions, questions): (usize, usize) = (argument()?.parse()?, argument()?.parse()?);
    let kept: u64 = argument()?.parse()?;
    let rows: Vec<&[f32]> = numbers.chunks_exact(dimensions).collect();
    let (vectors, questions) = rows.split_at(rows.len().saturating_sub(questions));

    let (before, started) = (resident_memory()?, Instant::now());
    let index = Index::new(&IndexOptions {
        dimensions,
        metric: MetricKind::IP,
        quantization: ScalarKind::F16,
        connectivity: CONNECTIVITY,
        expansion_add: EXPANSION_OF_BUILD,
        expansion_search: EXPANSIONS[0],
        multi: false,
    })?;
    index.reserve_capacity_and_threads(vectors.len(), 1)?;
    for (key, vector) in (0..).zip(vectors) {
        index.add(key, vector)?;
    }
    let (build_s, resident_mb) = (started.elapsed().as_secs_f64(), resident_memory()? - before);
    let is_kept = |key: u64| (key / ROWS_OF_A_DOCUMENT).is_multiple_of(kept);
    let mut asked = Vec::new();
    for expansion in EXPANSIONS {
        index.change_expansion_search(expansion);
        let all = ask(questions, |question| Ok(index.search(question, WANTED)?.keys))?;
        let filtered =
            ask(questions, |question| Ok(index.filtered_search(question, WANTED, is_kept)?.keys))?;
        asked.push(json!({ "expansion": expansion, "all": all, "filtered": filtered }));
    }
    println!(
        "{}",
        json!({
            "build_s": build_s, "resident_mb": resident_mb, "asked": asked,
            "acceleration": index.hardware_acceleration(),
        })
    );
    Ok(())
}

/// How long each question took, in milliseconds, and which rows were found.
fn ask(
    questions: &[&[f32]],
    search: impl Fn(&[f32]) -> anyhow::Result<Vec<u64>>,
) -> anyhow::Result<Value> {
    let (mut times, mut found) = (Vec::new(), Vec::new());
    for question in questions {
        for _ in 0..TIMES {
            let started = Instant::now();
            std::hint::black_box(search(question)?);
            times.push(started.elapsed().as_secs_f64() * 1e3);
        }
        found.push(search(question)?);
    }
    Ok(json!({ "times_ms": times, "rows": found }))
}

fn numbers(path: &str) -> anyhow::Result<Vec<f32>> {
    let bytes = std::fs::read(path).with_context(|| format!("{path} cannot be read"))?;
    Ok(bytes.as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect())
}

/// Of this process, in megabytes.
fn resident_memory() -> anyhow::Result<f64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let number = line.and_then(|line| line.split_whitespace().next());
    Ok(number.context("the kernel does not tell")?.parse::<f64>()? / 1024.0)
}
