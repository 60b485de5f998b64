//! How long it takes to cut a text into passages, by its length: a text ten times as long takes ten times as long.
#![expect(clippy::unwrap_used, reason = "a benchmark ends at the first surprise")]

#[path = "../tests/model/directory.rs"]
mod directory;

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use directory::model_directory;
use embeddings::{Document, Model};

/// In megabytes.
const LENGTHS: [usize; 3] = [1, 10, 50];

/// This repository's own words, as somebody would write them down.
fn text(megabytes: usize, markdown: bool) -> Document {
    let words: Vec<&str> = include_str!("../src/index.rs")
        .split_whitespace()
        .filter(|word| word.chars().all(|letter| letter.is_ascii_alphabetic()))
        .collect();
    let (mut text, mut words) = (String::new(), words.iter().cycle());
    for paragraph in 0.. {
        if text.len() >= megabytes * 1_000_000 {
            break;
        }
        match paragraph % 20 {
            0 if markdown => text.push_str(&format!("## Part {paragraph}\n\n")),
            10 if markdown => text.push_str("- one\n- two\n- `three`\n\n"),
            15 if markdown => {
                text.push_str("| name | meaning |\n|---|---|\n");
                (0..30).for_each(|row| text.push_str(&format!("| {row} | a row of **words** |\n")));
                text.push('\n');
            }
            _ => {}
        }
        for sentence in 0..6 {
            let words: Vec<&str> = words.by_ref().take(12 + sentence).copied().collect();
            text.push_str(&words.join(" "));
            text.push_str(". ");
        }
        text.push_str("\n\n");
    }
    Document { text, markdown, ..Document::default() }
}

fn cut(criterion: &mut Criterion) {
    let model = Model::load(&model_directory()).unwrap();
    let mut group = criterion.benchmark_group("cut");
    group.sample_size(10);
    for (kind, markdown) in [("plain", false), ("markdown", true)] {
        for megabytes in LENGTHS {
            let document = text(megabytes, markdown);
            group.throughput(Throughput::Bytes(document.text.len() as u64));
            let id = BenchmarkId::new(kind, format!("{megabytes} MB"));
            group.bench_with_input(id, &document, |bencher, document| {
                bencher.iter(|| black_box(model.chunk(document)));
            });
        }
    }
    group.finish();
}

criterion_group!(benches, cut);
criterion_main!(benches);
