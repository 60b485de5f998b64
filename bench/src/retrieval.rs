//! How well the passages are that a question finds: nDCG@10 and recall@100 of each mode on a collection
//! with judgments, beside rank_bm25, sentence-transformers and their fusion.
//!
//! The rule of this file: everything goes through HTTP, as a user would do it: texts are uploaded and
//! cut, and the server is asked to evaluate itself. A file counts once, with its best passage, and there are as
//! many files in a ranking as documents in the peers'.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::flow::{Caller, sign_in};
use crate::peers;
use crate::report::{Row, Scale};
use crate::server::Server;
use crate::texts::model_folder;

/// Files of one upload.
const AT_ONCE: usize = 100;

/// How long they may take to be read.
const PATIENCE: Duration = Duration::from_secs(600);

/// The modes, what the peer calls its own, and what is to be reached.
const MODES: [(&str, &str, [&str; 2]); 3] = [
    ("vector", "vector", ["0.424 / 0.471", "–"]),
    ("full_text", "full_text", ["0.352 / 0.426", "–"]),
    ("hybrid", "hybrid_rrf", ["0.418 / 0.506, nDCG ≥ vector\u{2019}s", "0.46 / 0.53"]),
];

#[derive(Deserialize)]
pub(crate) struct Entry {
    id: String,
    #[serde(default)]
    pub(crate) title: String,
    pub(crate) text: String,
}

/// Where the collection lies, if it does.
pub(crate) fn collection() -> Option<PathBuf> {
    let beside = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/eval/cisi");
    let folder = std::env::var_os("PRODGY_EVAL").map_or_else(beside, PathBuf::from);
    if folder.join("corpus.jsonl").is_file() {
        return Some(folder);
    }
    eprintln!("left out: no collection in {} (PRODGY_EVAL names one)", folder.display());
    None
}

pub fn measure(scale: Scale) -> anyhow::Result<Vec<Row>> {
    let Some(folder) = collection() else { return Ok(Vec::new()) };
    let mut corpus = entries(&folder.join("corpus.jsonl"))?;
    corpus.truncate(scale.pick(usize::MAX, 50));
    let relevant = judgments(&folder.join("qrels.tsv"))?;
    let questions: Vec<Entry> = entries(&folder.join("queries.jsonl"))?
        .into_iter()
        .filter(|question| relevant.contains_key(&question.id))
        .collect();

    let data = tempfile::tempdir()?;
    let server = Server::prodgy(data.path())?;
    server.ready()?;
    let caller = sign_in(&server)?;
    let base = fill(&server, &caller, &corpus)?;
    let files = files(&server, &caller, &base)?;
    let asked = questions.iter().map(|question| {
        let expected = relevant[&question.id].iter().filter_map(|text| files.get(text));
        json!({ "query": question.text, "expected": expected.collect::<Vec<_>>() })
    });
    let asked = asked.filter(|question| question["expected"] != json!([])).collect();
    let asked = Asked { server: &server, caller: &caller, base: &base, questions: asked };
    let arguments = [folder.display().to_string(), model_folder()?.display().to_string()];
    let peer = match scale {
        Scale::Full => peers::run("retrieval.py", &arguments)?,
        Scale::Quick => None,
    };
    let name = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let mut rows = Vec::new();
    for (mode, theirs, goals) in MODES {
        let (ndcg, recall) = (asked.evaluate(mode, 10)?.ndcg, asked.evaluate(mode, 100)?.recall);
        let (beside, ratio) = match peer.as_ref().map(|peer| &peer[theirs]) {
            Some(peer) => {
                let number = |name: &str| peer[name].as_f64().context("the peer said no number");
                let (their_ndcg, their_recall) = (number("ndcg10")?, number("recall100")?);
                let ratio = format!("{:.2}× / {:.2}×", ndcg / their_ndcg, recall / their_recall);
                (format!("{their_ndcg:.3} / {their_recall:.3}"), ratio)
            }
            None => ("–".to_owned(), "–".to_owned()),
        };
        rows.push(Row {
            what: format!(
                "nDCG@10 / recall@100 on {name}, `{mode}`, {} questions",
                questions.len()
            ),
            goals,
            ours: format!("{ndcg:.3} / {recall:.3}"),
            beside,
            ratio,
            figures: json!({ "ndcg_at_10": ndcg, "recall_at_100": recall, "peer": peer }),
        });
    }
    Ok(rows)
}

pub(crate) fn entries(path: &Path) -> anyhow::Result<Vec<Entry>> {
    let text = std::fs::read_to_string(path)?;
    Ok(text.lines().map(serde_json::from_str).collect::<Result<_, _>>()?)
}

/// The texts that were judged to answer a question, by question.
fn judgments(path: &Path) -> anyhow::Result<BTreeMap<String, BTreeSet<String>>> {
    let mut relevant: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for line in std::fs::read_to_string(path)?.lines().skip(1) {
        let [question, text, relevance] = line.split('\t').collect::<Vec<_>>()[..] else {
            bail!("a line of three: {line}")
        };
        if relevance != "0" {
            relevant.entry(question.to_owned()).or_default().insert(text.to_owned());
        }
    }
    Ok(relevant)
}

/// Uploads the texts and waits until all can be found. Answers the knowledge base.
fn fill(server: &Server, caller: &Caller, corpus: &[Entry]) -> anyhow::Result<String> {
    for entries in corpus.chunks(AT_ONCE) {
        let files = entries
            .iter()
            .map(|entry| (format!("{}.txt", entry.id), format!("{}. {}", entry.title, entry.text)));
        upload(server, caller, &multipart(caller, files))?;
    }
    let product = get(server, caller, &format!("/api/products/{}", caller.product))?;
    let base =
        product["data"]["default_knowledge_base_id"].as_str().context("no knowledge base")?;
    let begun = Instant::now();
    loop {
        let path = format!("/api/knowledge-base/storage/{base}?status=ready&limit=1");
        if get(server, caller, &path)?["pagination"]["total"] == corpus.len() {
            return Ok(base.to_owned());
        }
        ensure!(begun.elapsed() < PATIENCE, "the texts are not read in time");
        std::thread::sleep(Duration::from_millis(500));
    }
}

/// The body of an upload of these files, by their names.
pub(crate) fn multipart(
    caller: &Caller,
    files: impl IntoIterator<Item = (String, String)>,
) -> String {
    let part = |disposition: &str, content: &str| {
        format!("--cut\r\nContent-Disposition: form-data; {disposition}\r\n\r\n{content}\r\n")
    };
    let mut body = part("name=\"product_id\"", &caller.product);
    for (name, text) in files {
        body += &part(&format!("name=\"file\"; filename=\"{name}\""), &text);
    }
    body + "--cut--\r\n"
}

pub(crate) fn upload(server: &Server, caller: &Caller, body: &str) -> anyhow::Result<()> {
    let kind = "multipart/form-data; boundary=cut";
    let path = "/api/knowledge-base/storage/upload?on_duplicate=keep";
    server.post_as(path, &format!("{}\r\n", caller.header), kind, body)?;
    Ok(())
}

pub(crate) fn get(server: &Server, caller: &Caller, path: &str) -> anyhow::Result<Value> {
    let (status, body) = server.get(path, &format!("{}\r\n", caller.header))?;
    ensure!(status == 200, "GET {path} was answered with {status}");
    Ok(serde_json::from_slice(&body)?)
}

/// The ids of the files, by what their texts are called.
fn files(server: &Server, caller: &Caller, base: &str) -> anyhow::Result<BTreeMap<String, String>> {
    let mut files = BTreeMap::new();
    for page in 1.. {
        let path = format!("/api/knowledge-base/storage/{base}?pageSize=100&page={page}");
        let listed = get(server, caller, &path)?;
        let listed = listed["data"].as_array().context("no list")?.clone();
        if listed.is_empty() {
            break;
        }
        for file in listed {
            let name = file["file_name"].as_str().context("no name")?.trim_end_matches(".txt");
            files.insert(name.to_owned(), file["id"].as_str().context("no id")?.to_owned());
        }
    }
    Ok(files)
}

/// What the server itself says of how well it finds.
#[derive(Deserialize)]
struct Metrics {
    ndcg: f64,
    recall: f64,
}

/// A knowledge base, and questions of which the answers are known.
struct Asked<'a> {
    server: &'a Server,
    caller: &'a Caller,
    base: &'a str,
    /// Each with the ids of the files that are expected.
    questions: Vec<Value>,
}

impl Asked<'_> {
    fn evaluate(&self, mode: &str, k: u32) -> anyhow::Result<Metrics> {
        let body = json!({ "questions": self.questions, "mode": mode, "k": k });
        let path = format!("/api/knowledge-base/{}/evaluate", self.base);
        let made = self.server.post(&path, &format!("{}\r\n", self.caller.header), &body)?;
        Ok(serde_json::from_value(made["metrics"].clone())?)
    }
}
