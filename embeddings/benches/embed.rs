//! Passages a second and the time of a short question: ours beside candle's stock model, in one run.
//!
//! Passages of about 110 tokens come from `PRODGY_PASSAGES` (made by `bench/peers/passages.py` of the shared folder), else from
//! this repository's own texts. Besides criterion's figures it prints one JSON line for each, as the peers' scripts do.
#![expect(clippy::unwrap_used, reason = "a benchmark ends at the first surprise")]

#[path = "../tests/model/directory.rs"]
mod directory;
#[path = "../tests/model/stock.rs"]
mod stock;

use std::time::Instant;

use criterion::{Criterion, criterion_group, criterion_main};
use directory::model_directory;
use embeddings::{Embedder, Model};
use stock::Stock;

const PASSAGES: usize = 200;

#[derive(serde::Deserialize)]
struct Texts {
    passages: Vec<String>,
    questions: Vec<String>,
}

/// About 110 tokens each, and questions of about 12.
fn texts() -> Texts {
    let mut texts: Texts = match std::env::var_os("PRODGY_PASSAGES") {
        Some(path) => serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap(),
        None => {
            let words: Vec<&str> = include_str!("../src/index.rs")
                .split_whitespace()
                .filter(|word| word.len() < 9)
                .collect();
            let cut = |length: usize| {
                words.windows(length).step_by(3).map(|words| words.join(" ")).collect()
            };
            Texts { passages: cut(45), questions: cut(5) }
        }
    };
    texts.passages.truncate(PASSAGES);
    texts.questions.truncate(100);
    texts
}

fn report(engine: &str, passages: usize, seconds: f64, mut question_times: Vec<f64>) {
    question_times.sort_by(f64::total_cmp);
    let p50 = question_times[question_times.len() / 2];
    println!(
        "{{\"engine\": \"{engine}\", \"passages_per_s\": {:.1}, \"question_p50_ms\": {p50:.2}}}",
        passages as f64 / seconds
    );
}

fn embed(criterion: &mut Criterion) {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let Texts { passages, questions } = texts();
    let stock = Stock::load(&model_directory());
    let ours = Embedder::new(Model::load(&model_directory()).unwrap(), Embedder::default_workers());

    // In turn, several times, because other programs share the machine.
    for _ in 0..3 {
        let start = Instant::now();
        for passage in &passages[..passages.len() / 4] {
            stock.embed(passage);
        }
        let seconds = start.elapsed().as_secs_f64();
        let times = questions.iter().take(30).map(|question| {
            let start = Instant::now();
            stock.embed(question);
            start.elapsed().as_secs_f64() * 1e3
        });
        report("stock candle", passages.len() / 4, seconds, times.collect());

        let start = Instant::now();
        runtime.block_on(ours.embed_passages(passages.clone())).unwrap();
        let seconds = start.elapsed().as_secs_f64();
        let times = questions.iter().map(|question| {
            let start = Instant::now();
            runtime.block_on(ours.embed_query(question)).unwrap();
            start.elapsed().as_secs_f64() * 1e3
        });
        report("ours", passages.len(), seconds, times.collect());
    }

    let mut group = criterion.benchmark_group("embed");
    group.sample_size(20).measurement_time(std::time::Duration::from_secs(4));
    group.bench_function("stock candle, one passage", |bencher| {
        bencher.iter(|| stock.embed(&passages[0]))
    });
    group.bench_function("ours, one passage", |bencher| {
        bencher.iter(|| runtime.block_on(ours.embed_passages(vec![passages[0].clone()])).unwrap());
    });
    group.bench_function("ours, one question", |bencher| {
        bencher.iter(|| runtime.block_on(ours.embed_query(&questions[0])).unwrap());
    });
    group.finish();
}

criterion_group!(benches, embed);
criterion_main!(benches);
