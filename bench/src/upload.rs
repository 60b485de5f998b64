//! From the upload of a thousand short Markdown files until all of them are found, beside Chroma's server
//! and a client that embeds with onnxruntime.
//!
//! The rule of this file: both get the very same texts, in requests of a hundred, and begin with nothing.

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use serde_json::{Value, json};

use crate::flow::sign_in;
use crate::peers;
use crate::report::{Row, Scale, median};
use crate::retrieval::{collection, entries, get, multipart};
use crate::search_http::free_port;
use crate::server::Server;
use crate::texts::model_folder;

/// Words of a file: some 110 tokens.
const WORDS: usize = 80;

/// Files of one request.
const AT_ONCE: usize = 100;

/// How long they may take to be found.
const PATIENCE: Duration = Duration::from_secs(600);

pub fn measure(scale: Scale) -> anyhow::Result<Vec<Row>> {
    let Some(folder) = collection() else { return Ok(Vec::new()) };
    let corpus = folder.join("corpus.jsonl");
    let mut texts = Vec::new();
    for entry in entries(&corpus)? {
        let words: Vec<&str> = entry.text.split_whitespace().collect();
        for words in words.chunks_exact(WORDS) {
            texts.push(format!("# {}\n\n{}", entry.title, words.join(" ")));
        }
    }
    texts.truncate(scale.pick(1_000, 50));
    let mut took = Vec::new();
    for _ in 0..scale.pick(3, 1) {
        took.push(upload(&texts)?);
    }
    let seconds = median(&took);
    let theirs = match scale {
        Scale::Full => chroma(&corpus.display().to_string(), texts.len())?,
        Scale::Quick => None,
    };
    let total = theirs.as_ref().and_then(|line| line["total_s"].as_f64());
    Ok(vec![Row {
        what: format!("upload until found, {} Markdown files of {WORDS} words", texts.len()),
        goals: ["1.0× Chroma and onnxruntime f32", "2×"],
        ours: format!("{seconds:.2} s ({:.0} files/s)", texts.len() as f64 / seconds),
        beside: total.map_or("–".into(), |total| format!("Chroma {total:.2} s")),
        ratio: total.map_or("–".into(), |total| format!("{:.2}×", total / seconds)),
        figures: json!({ "seconds": took, "chroma": theirs }),
    }])
}

/// Uploads the texts to a new server. Answers after how many seconds all can be found.
fn upload(texts: &[String]) -> anyhow::Result<f64> {
    let data = tempfile::tempdir()?;
    let server = Server::prodgy(data.path())?;
    server.ready()?;
    let caller = sign_in(&server)?;
    let header = format!("{}\r\n", caller.header);
    let product = get(&server, &caller, &format!("/api/products/{}", caller.product))?;
    let base =
        product["data"]["default_knowledge_base_id"].as_str().context("no knowledge base")?;
    let ready = format!("/api/knowledge-base/storage/{base}?status=ready&limit=1");
    // As the client beside it does before its clock runs.
    let warm_up = json!({ "query": "warm up", "product_id": caller.product });
    server.post("/api/knowledge-base/embeddings", &header, &warm_up)?;
    let named: Vec<(String, String)> =
        (0..).zip(texts).map(|(at, text)| (format!("m{at}.md"), text.clone())).collect();
    let bodies: Vec<String> =
        named.chunks(AT_ONCE).map(|some| multipart(&caller, some.to_vec())).collect();
    let begun = Instant::now();
    for body in &bodies {
        crate::retrieval::upload(&server, &caller, body)?;
    }
    while get(&server, &caller, &ready)?["pagination"]["total"] != texts.len() {
        ensure!(begun.elapsed() < PATIENCE, "the texts are not read in time");
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(begun.elapsed().as_secs_f64())
}

/// The same by Chroma, by the script that was made for it.
fn chroma(corpus: &str, count: usize) -> anyhow::Result<Option<Value>> {
    let Some(program) = peers::python().map(|python| python.with_file_name("chroma")) else {
        eprintln!("Chroma is left out: PRODGY_PEERS_PYTHON names no interpreter");
        return Ok(None);
    };
    let model = model_folder()?;
    let text = |path: &std::path::Path| path.display().to_string();
    // It makes the file that onnxruntime reads, where there is none.
    let few = tempfile::tempdir()?;
    let passages = few.path().join("passages.json");
    let some = json!({ "passages": vec!["one"; 8], "questions": vec!["one"; 8] });
    std::fs::write(&passages, some.to_string())?;
    peers::run("embed.py", &["ort".to_owned(), text(&model), text(&passages)])?;
    let arguments = [
        ("--bin", text(&program)),
        ("--dir", text(&few.path().join("data"))),
        ("--port", free_port()?.to_string()),
        ("--n", "1000".to_owned()),
        ("--seconds", "0.2".to_owned()),
        ("--corpus", corpus.to_owned()),
        ("--onnx", text(&std::env::temp_dir().join("peer-minilm.onnx"))),
        ("--tokenizer", text(&model.join("tokenizer.json"))),
        ("--docs", count.to_string()),
    ];
    let arguments: Vec<String> =
        arguments.into_iter().flat_map(|(name, value)| [name.to_owned(), value]).collect();
    let lines = peers::run_lines("chroma.py", &arguments)?;
    let uploaded = |line: &Value| line["result"] == "upload_to_searchable";
    Ok(lines.and_then(|lines| lines.into_iter().find(uploaded)))
}
