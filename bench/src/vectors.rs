//! The index of vectors beside a graph (HNSW, by usearch), as they grow.
//!
//! The rule of this file: one thread, the same vectors, the same questions; what is nearest is told by an exact scan of f32. Both are
//! asked with a filter, too, that keeps one document in a hundred.

use std::collections::HashSet;
use std::io::{BufWriter, Write};
use std::time::Instant;

use anyhow::Context;
use embeddings::VectorIndex;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::peers;
use crate::report::{Row, Scale, grouped, median, milliseconds, p99};
use crate::search::{CHUNKS_OF_A_DOCUMENT, WANTED, dot, vectors_like_texts};

/// A filter keeps one document in so many.
const KEPT: usize = 100;

/// How often each question is asked: once alone would mostly measure what was done before it.
const TIMES: usize = 5;

/// What was measured of one index.
struct Measured {
    name: String,
    build_s: f64,
    resident_mb: f64,
    all: Asked,
    filtered: Asked,
}

/// What came of all questions.
struct Asked {
    p50: f64,
    p99: f64,
    recall: f64,
}

/// The nearest rows to each question, with and without a filter.
struct Exact {
    all: Vec<HashSet<usize>>,
    filtered: Vec<HashSet<usize>>,
    p50: f64,
}

pub async fn measure(scale: Scale) -> anyhow::Result<Vec<Row>> {
    let counts: Vec<usize> = match scale {
        Scale::Quick => vec![2_000],
        Scale::Full => match std::env::var("PRODGY_VECTORS_COUNT") {
            Ok(counts) => counts.split(',').map(str::parse).collect::<Result<_, _>>()?,
            Err(_) => vec![100_000, 500_000],
        },
    };
    let mut rows = Vec::new();
    for count in counts {
        let (vectors, questions) = vectors_like_texts(count, scale).await?;
        rows.push(tokio::task::block_in_place(|| compare(&vectors, &questions))?);
    }
    Ok(rows)
}

fn compare(vectors: &[Vec<f32>], questions: &[Vec<f32>]) -> anyhow::Result<Row> {
    let exact = exact(vectors, questions);
    let ours = ours(vectors, questions, &exact)?;
    let graphs = graph(vectors, questions, &exact)?;
    let said = |it: &Measured| {
        format!(
            "{} {:.2} ms (p99 {:.2}), recall@10 {:.4}; of one in {KEPT} {:.2} ms, {:.4}; {:.0} MB; built in {:.0} s",
            it.name,
            it.all.p50,
            it.all.p99,
            it.all.recall,
            it.filtered.p50,
            it.filtered.recall,
            it.resident_mb,
            it.build_s
        )
    };
    let figures = |it: &Measured| -> Value {
        let asked =
            |it: &Asked| json!({ "p50_ms": it.p50, "p99_ms": it.p99, "recall_at_10": it.recall });
        json!({
            "name": it.name, "build_s": it.build_s, "resident_mb": it.resident_mb,
            "all": asked(&it.all), "filtered": asked(&it.filtered),
        })
    };
    let beside: Vec<String> = graphs.iter().map(said).collect();
    Ok(Row {
        what: format!(
            "the nearest of {} vectors, without the question's embedding, one thread",
            grouped(vectors.len() as f64)
        ),
        goals: ["–", "–"],
        ours: said(&ours),
        beside: beside.join("; "),
        ratio: graphs.first().map_or_else(
            || "–".to_owned(),
            |graph| format!("{:.1}× the time of the graph", ours.all.p50 / graph.all.p50),
        ),
        figures: json!({
            "vectors": vectors.len(), "exact_p50_ms": exact.p50, "ours": figures(&ours),
            "usearch": graphs.iter().map(figures).collect::<Vec<_>>(),
        }),
    })
}

fn is_kept(row: usize) -> bool {
    (row / CHUNKS_OF_A_DOCUMENT).is_multiple_of(KEPT)
}

fn exact(vectors: &[Vec<f32>], questions: &[Vec<f32>]) -> Exact {
    let nearest = |mut scores: Vec<(f32, usize)>| -> HashSet<usize> {
        let wanted = WANTED.min(scores.len());
        scores.select_nth_unstable_by(wanted - 1, |one, other| other.0.total_cmp(&one.0));
        scores[..wanted].iter().map(|(_, row)| *row).collect()
    };
    let (mut all, mut filtered, mut times) = (Vec::new(), Vec::new(), Vec::new());
    for question in questions {
        let started = Instant::now();
        let scores: Vec<(f32, usize)> =
            vectors.iter().map(|vector| dot(question, vector)).zip(0..).collect();
        let kept = scores.iter().copied().filter(|(_, row)| is_kept(*row)).collect();
        all.push(nearest(scores));
        times.push(milliseconds(started.elapsed()));
        filtered.push(nearest(kept));
    }
    Exact { all, filtered, p50: median(&times) }
}

/// Asks every question, and compares what is found with what is nearest.
fn ask(
    questions: &[Vec<f32>],
    nearest: &[HashSet<usize>],
    search: impl Fn(&[f32]) -> anyhow::Result<Vec<usize>>,
) -> anyhow::Result<Asked> {
    let (mut times, mut found, mut wanted) = (Vec::new(), 0, 0);
    for (question, nearest) in questions.iter().zip(nearest) {
        for _ in 0..TIMES {
            let started = Instant::now();
            std::hint::black_box(search(question)?);
            times.push(milliseconds(started.elapsed()));
        }
        found += search(question)?.iter().filter(|row| nearest.contains(row)).count();
        wanted += nearest.len();
    }
    let recall = found as f64 / wanted as f64;
    Ok(Asked { p50: median(&times), p99: p99(&times), recall })
}

fn ours(vectors: &[Vec<f32>], questions: &[Vec<f32>], exact: &Exact) -> anyhow::Result<Measured> {
    let (before, started) = (resident_memory()?, Instant::now());
    let mut index = VectorIndex::new(questions[0].len());
    let mut kept = Vec::new();
    for (number, vectors) in (0..).zip(vectors.chunks(CHUNKS_OF_A_DOCUMENT)) {
        let document = Uuid::from_u64_pair(0, number);
        index.add(document, vectors);
        if is_kept(number as usize * CHUNKS_OF_A_DOCUMENT) {
            kept.push(document);
        }
    }
    let build_s = started.elapsed().as_secs_f64();
    let resident_mb = resident_memory()? - before;
    let search = |question: &[f32], among: Option<&[Uuid]>| {
        let hits = index.search(question, WANTED, None, among).into_iter();
        let place = |hit: embeddings::Hit| {
            hit.document.as_u64_pair().1 as usize * CHUNKS_OF_A_DOCUMENT + hit.chunk as usize
        };
        Ok(hits.map(place).collect())
    };
    Ok(Measured {
        name: "ours".to_owned(),
        build_s,
        resident_mb,
        all: ask(questions, &exact.all, |question| search(question, None))?,
        filtered: ask(questions, &exact.filtered, |question| search(question, Some(&kept)))?,
    })
}

/// What the peer makes of the same; nothing where it was not built.
fn graph(
    vectors: &[Vec<f32>],
    questions: &[Vec<f32>],
    exact: &Exact,
) -> anyhow::Result<Vec<Measured>> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("vectors");
    let mut file = BufWriter::new(std::fs::File::create(&path)?);
    for number in vectors.iter().chain(questions).flatten() {
        file.write_all(&number.to_le_bytes())?;
    }
    file.flush()?;
    let path = path.to_str().context("a temporary folder has a name")?.to_owned();
    let numbers = [questions[0].len(), questions.len(), KEPT].map(|number| number.to_string());
    let arguments: Vec<String> = [path].into_iter().chain(numbers).collect();
    let Some(said) = peers::run_binary("usearch-peer", &arguments)? else { return Ok(Vec::new()) };
    let number = |value: &Value| value.as_f64().unwrap_or(f64::NAN);
    let asked = |said: &Value, nearest: &[HashSet<usize>]| {
        let list = |name: &str| said[name].as_array().into_iter().flatten();
        let times: Vec<f64> = list("times_ms").map(number).collect();
        let found = list("rows").zip(nearest).map(|(rows, nearest)| {
            let rows = rows.as_array().into_iter().flatten().filter_map(Value::as_u64);
            rows.filter(|row| nearest.contains(&(*row as usize))).count()
        });
        let wanted: usize = nearest.iter().map(HashSet::len).sum();
        let recall = found.sum::<usize>() as f64 / wanted as f64;
        Asked { p50: median(&times), p99: p99(&times), recall }
    };
    let graphs = said["asked"].as_array().into_iter().flatten().map(|it| Measured {
        name: format!("usearch f16, M 16, ef {} ({})", it["expansion"], said["acceleration"]),
        build_s: number(&said["build_s"]),
        resident_mb: number(&said["resident_mb"]),
        all: asked(&it["all"], &exact.all),
        filtered: asked(&it["filtered"], &exact.filtered),
    });
    Ok(graphs.collect())
}

/// Of this process, in megabytes.
fn resident_memory() -> anyhow::Result<f64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let number = line.and_then(|line| line.split_whitespace().next());
    Ok(number.context("the kernel does not tell")?.parse::<f64>()? / 1024.0)
}
