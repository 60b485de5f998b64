//! How well real questions find real abstracts: nDCG@10 and recall@100 on the CISI collection, and recall@10 of the index against
//! exact search over the same vectors. The reference (sentence-transformers, one vector per abstract): 0.424 and 0.471.
//!
//! Reads `PRODGY_EVAL`, else `../shared/eval/cisi` beside the checkout; where neither is, it says so and measures nothing.
#![expect(clippy::unwrap_used, reason = "a benchmark ends at the first surprise")]

#[path = "../tests/model/directory.rs"]
mod directory;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use directory::model_directory;
use embeddings::{Embedder, Model, VectorIndex};
use uuid::Uuid;

#[derive(serde::Deserialize)]
struct Entry {
    id: String,
    #[serde(default)]
    title: String,
    text: String,
}

fn entries(path: &Path) -> Vec<Entry> {
    std::fs::read_to_string(path)
        .unwrap()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

/// The abstracts that were judged to answer a question, by question.
fn judgments(path: &Path) -> BTreeMap<String, BTreeSet<String>> {
    let mut relevant: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for line in std::fs::read_to_string(path).unwrap().lines().skip(1) {
        let [question, document, relevance] = line.split('\t').collect::<Vec<_>>()[..] else {
            panic!("a line of three: {line}")
        };
        if relevance != "0" {
            relevant.entry(question.to_owned()).or_default().insert(document.to_owned());
        }
    }
    relevant
}

/// Normalised discounted cumulative gain (Järvelin and Kekäläinen, 2002) of the first ten.
fn ndcg_at_10(ranked: &[&str], relevant: &BTreeSet<String>) -> f64 {
    let gain = |place: usize| 1.0 / (place as f64 + 2.0).log2();
    let gained: f64 = (0..10)
        .zip(ranked)
        .filter(|(_, id)| relevant.contains(**id))
        .map(|(place, _)| gain(place))
        .sum();
    gained / (0..relevant.len().min(10)).map(gain).sum::<f64>()
}

fn main() {
    let beside = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/eval/cisi");
    let folder = std::env::var_os("PRODGY_EVAL").map_or_else(beside, PathBuf::from);
    if !folder.join("corpus.jsonl").is_file() {
        eprintln!("NOT MEASURED: no collection in {}; name one with PRODGY_EVAL", folder.display());
        return;
    }
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let embedder =
        Embedder::new(Model::load(&model_directory()).unwrap(), Embedder::default_workers());
    let corpus = entries(&folder.join("corpus.jsonl"));
    let texts = corpus.iter().map(|entry| format!("{}. {}", entry.title, entry.text)).collect();
    let vectors = runtime.block_on(embedder.embed_passages(texts)).unwrap();
    let mut index = VectorIndex::new(embedder.model().dimensions());
    for (number, vector) in (0..).zip(&vectors) {
        index.add(Uuid::from_u64_pair(0, number), std::slice::from_ref(vector));
    }

    let relevant = judgments(&folder.join("qrels.tsv"));
    let (mut questions, mut ndcg, mut recall, mut same) = (0, 0.0, 0.0, 0);
    for question in entries(&folder.join("queries.jsonl")) {
        let Some(relevant) = relevant.get(&question.id) else { continue };
        let query = runtime.block_on(embedder.embed_query(&question.text)).unwrap();
        let place = |document: Uuid| document.as_u64_pair().1 as usize;
        let hits = index.search(&query, 100, None, None);
        let ranked: Vec<&str> =
            hits.iter().map(|hit| corpus[place(hit.document)].id.as_str()).collect();
        questions += 1;
        ndcg += ndcg_at_10(&ranked, relevant);
        recall += ranked.iter().filter(|id| relevant.contains(**id)).count() as f64
            / relevant.len() as f64;

        let score =
            |vector: &[f32]| query.iter().zip(vector).map(|(one, other)| one * other).sum::<f32>();
        let mut exact: Vec<(f32, usize)> =
            vectors.iter().map(|vector| score(vector)).zip(0..).collect();
        exact.sort_by(|one, other| other.0.total_cmp(&one.0));
        let first = index.search(&query, 10, None, None);
        same += first
            .iter()
            .filter(|hit| exact[..10].iter().any(|(_, row)| *row == place(hit.document)))
            .count();
    }
    println!(
        "{{\"questions\": {questions}, \"ndcg_at_10\": {:.4}, \"recall_at_100\": {:.4}, \"index_recall_at_10\": {:.4}}}",
        ndcg / f64::from(questions),
        recall / f64::from(questions),
        same as f64 / f64::from(questions) / 10.0,
    );
}
