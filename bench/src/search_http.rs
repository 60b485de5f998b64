//! Search over HTTP with ready-made vectors among 100,000 chunks, with and without a filter, beside Chroma;
//! and what they cost in memory.
//!
//! The rule of this file: the server reads its files from a log and from artifacts as it always does; only
//! their vectors are made here, since embedding a hundred thousand texts takes an hour.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, ensure};
use domain::file::FileEvent;
use domain::{BlobRef, FileName};
use embeddings::{Artifact, CHUNKER_VERSION, Chunk, Model, Place};
use eventlog::{
    Append, EventStore, Expected, Metadata, NewEvent, SqliteOptions, SqliteStore, StreamId,
};
use futures::{StreamExt, TryStreamExt, stream};
use serde_json::{Value, json};
use uuid::Uuid;
use vault::{Vault, product_key};

use crate::flow::{Caller, sign_in};
use crate::peers;
use crate::report::{Row, Scale, grouped, median};
use crate::search::vectors_like_texts;
use crate::server::Server;
use crate::texts::model_folder;
use crate::wrk::wrk;

const CHUNKS_OF_A_FILE: usize = 10;

/// How many files are written at once.
const AT_ONCE: usize = 32;

/// How long the server may take to read them.
const CATCH_UP: Duration = Duration::from_secs(600);

/// The passages that are asked for.
const WANTED: usize = 10;

pub async fn measure(scale: Scale) -> anyhow::Result<Vec<Row>> {
    let count = scale.pick(100_000, 2_000);
    let (vectors, queries) = vectors_like_texts(count, scale).await?;
    let data = tempfile::tempdir()?;
    let server = Server::prodgy(data.path())?;
    server.ready()?;
    let caller = sign_in(&server)?;
    let path = format!("/api/products/{}", caller.product);
    let product = server.get(&path, &format!("{}\r\n", caller.header))?.1;
    let product: Value = serde_json::from_slice(&product)?;
    let base =
        product["data"]["default_knowledge_base_id"].as_str().context("no knowledge base")?;
    let base: Uuid = base.parse()?;
    drop(server);
    // Started again, so that what it holds is what an idle server holds.
    let server = Server::prodgy(data.path())?;
    server.ready()?;
    std::thread::sleep(Duration::from_secs(scale.pick(5, 1)));
    let empty = server.resident_memory()?;
    drop(server);
    let revision = Model::load(&model_folder()?)?.revision().to_owned();
    fill(data.path(), &caller, base, &vectors, &revision).await?;

    let server = Server::prodgy(data.path())?;
    server.ready_within(CATCH_UP)?;
    let recall = recall(&server, &caller, &vectors, &queries)?;
    let chroma = match scale {
        Scale::Full => chroma(count)?,
        Scale::Quick => None,
    };
    let mut rows = Vec::new();
    for (filter, label, goals) in [
        (json!({}), "", ["3× Chroma", "10× Chroma"]),
        (
            json!({ "tags": ["t7"] }),
            ", with a filter that keeps 1 %",
            ["30× Chroma", "100× Chroma"],
        ),
    ] {
        for connections in [1, 16] {
            let script = script(&caller, &queries, &filter);
            let url = format!("http://{}/api/knowledge-base/embeddings", server.address);
            let (mut rates, mut latencies) = (Vec::new(), Vec::new());
            for _ in 0..scale.pick(3, 1) {
                let (rate, p99) = wrk(&script, &url, connections, scale.pick(5, 1))?;
                rates.push(rate);
                latencies.push(p99);
            }
            let result = if label.is_empty() { "query" } else { "query_filtered" };
            let theirs = chroma.iter().flatten().find(|line| {
                line["result"] == result
                    && line["client"] == "raw"
                    && line["threads"] == connections
            });
            let their_rate = theirs.and_then(|line| line["per_s"].as_f64());
            rows.push(Row {
                what: format!(
                    "searches a second over HTTP, {} chunks, {connections} connections{label}",
                    grouped(count as f64)
                ),
                goals,
                ours: format!("{} (p99 {:.2} ms)", grouped(median(&rates)), median(&latencies)),
                beside: their_rate.map_or("–".into(), |rate| format!("Chroma {rate:.0}")),
                ratio: their_rate
                    .map_or("–".into(), |rate| format!("{:.1}×", median(&rates) / rate)),
                figures: json!({ "per_second": rates, "p99_ms": latencies, "recall_at_10": recall, "chroma": theirs }),
            });
        }
    }
    let full = server.resident_memory()?;
    let of_chroma = |result: &str, name: &str| {
        let line = chroma.iter().flatten().find(|line| line["result"] == result)?;
        line[name].as_f64()
    };
    let theirs = of_chroma("after_queries", "rss_mb").zip(of_chroma("start", "rss_mb"));
    let theirs = theirs.map(|(full, empty)| full - empty);
    rows.push(Row {
        what: format!("memory for {} chunks, after the searches", grouped(count as f64)),
        goals: ["half of Chroma\u{2019}s", "a quarter"],
        ours: format!("{:.0} MB ({empty:.0} → {full:.0})", full - empty),
        beside: theirs.map_or("–".into(), |theirs| format!("Chroma {theirs:.0} MB")),
        ratio: theirs.map_or("–".into(), |theirs| format!("{:.2}×", (full - empty) / theirs)),
        figures: json!({ "empty_mb": empty, "full_mb": full, "recall_at_10": recall, "chroma": chroma }),
    });
    Ok(rows)
}

/// Chroma's server under the same load, by the script that was made for it.
fn chroma(count: usize) -> anyhow::Result<Option<Vec<Value>>> {
    let Some(program) = peers::python().map(|python| python.with_file_name("chroma")) else {
        eprintln!("Chroma is left out: PRODGY_PEERS_PYTHON names no interpreter");
        return Ok(None);
    };
    let folder = tempfile::tempdir()?;
    let arguments = [
        "--bin".to_owned(),
        program.display().to_string(),
        "--dir".to_owned(),
        folder.path().join("data").display().to_string(),
        "--port".to_owned(),
        free_port()?.to_string(),
        "--n".to_owned(),
        count.to_string(),
        "--seconds".to_owned(),
        "3".to_owned(),
    ];
    peers::run_lines("chroma.py", &arguments)
}

pub(crate) fn free_port() -> anyhow::Result<u16> {
    Ok(std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

/// What is asked, in Lua: one question after the other.
fn script(caller: &Caller, queries: &[Vec<f32>], filter: &Value) -> String {
    let bodies: Vec<String> =
        queries.iter().map(|query| format!("'{}'", question(caller, query, filter))).collect();
    format!(
        "local bodies = {{ {} }}\nlocal at = 0\n\
         local headers = {{ ['Content-Type'] = 'application/json', ['X-API-Token'] = '{}' }}\n\
         request = function()\n at = at % #bodies + 1\n\
         return wrk.format('POST', nil, headers, bodies[at])\nend\n",
        bodies.join(", "),
        caller.token
    )
}

fn question(caller: &Caller, vector: &[f32], filter: &Value) -> Value {
    json!({ "product_id": caller.product, "vector": vector, "limit": WANTED, "filters": filter })
}

/// How many of the ten nearest the server finds.
fn recall(
    server: &Server,
    caller: &Caller,
    vectors: &[Vec<f32>],
    queries: &[Vec<f32>],
) -> anyhow::Result<f64> {
    let mut found = 0;
    for query in queries {
        let dot = |vector: &[f32]| query.iter().zip(vector).map(|(one, other)| one * other).sum();
        let mut exact: Vec<(f32, usize)> =
            vectors.iter().map(|vector| dot(vector)).zip(0..).collect();
        exact.select_nth_unstable_by(WANTED, |one, other| other.0.total_cmp(&one.0));
        let asked = question(caller, query, &json!({}));
        let path = "/api/knowledge-base/embeddings";
        let answer = server.post(path, &format!("{}\r\n", caller.header), &asked)?;
        for passage in answer.as_array().context("no list")? {
            let place = |name: &str| passage[name].as_str().context("no name");
            let file: usize = place("file_name")?.trim_end_matches(".md").parse()?;
            let chunk = passage["chunk_index"].as_u64().context("no chunk")? as usize;
            let row = file * CHUNKS_OF_A_FILE + chunk;
            found += usize::from(exact[..WANTED].iter().any(|(_, exact)| *exact == row));
        }
    }
    Ok(found as f64 / (WANTED * queries.len()) as f64)
}

/// Lets the files be uploaded and read, as far as the log and the artifacts tell.
async fn fill(
    data: &Path,
    caller: &Caller,
    base: Uuid,
    vectors: &[Vec<f32>],
    revision: &str,
) -> anyhow::Result<()> {
    let log: Arc<dyn EventStore> =
        Arc::new(SqliteStore::open(&data.join("events.db"), SqliteOptions::default())?);
    let key_file = data.join("master.key");
    let (vault, _) = Vault::local_with_key_file(&data.join("vault"), &key_file).await?;
    let first = log.read_after(eventlog::Position::START, 1).await?;
    let organization = first.first().context("the log is empty")?.organization;
    let product: Uuid = caller.product.parse()?;
    let (log, vault) = (&log, &vault);
    let files = vectors.chunks(CHUNKS_OF_A_FILE).enumerate();
    let written = files.map(|(number, vectors)| async move {
        let id = Uuid::now_v7();
        let artifact = artifact(number, vectors, revision);
        let name = format!("bench/{id}");
        vault.put_artifact(&product_key(product), &name, &artifact.encode()).await?;
        let blob =
            BlobRef { name: format!("{:064x}", id.as_u128()), size: artifact.text.len() as u64 };
        let uploaded = FileEvent::Uploaded {
            knowledge_base: base,
            name: FileName::parse(&format!("{number}.md")).ok().context("no name")?,
            media_type: "text/markdown".into(),
            size: blob.size,
            blob,
            source: Some(format!("s{}", number % 1_000)),
            subject: None,
            language: None,
            tags: vec![format!("t{}", number % 100)],
        };
        let indexed = FileEvent::Indexed {
            fence: 1,
            artifact: name,
            chunks: artifact.chunks.len() as u32,
            characters: artifact.text.chars().count() as u64,
            tokens: 1,
            model_revision: artifact.revision,
        };
        let events = [uploaded, indexed].map(|event| {
            let (event_type, data) = domain::event::encode(&event);
            NewEvent { event_type, data, metadata: None }
        });
        let metadata = Metadata {
            organization,
            product: Some(product),
            actor: "system:bench".into(),
            correlation: id,
            causation: None,
            request_id: None,
            traceparent: None,
            address: None,
            user_agent: None,
        };
        log.append(Append {
            stream: StreamId::new("file", id),
            expected: Expected::Sequence(0),
            command_id: Uuid::now_v7(),
            request_hash: None,
            metadata: Arc::new(metadata),
            keys: vec![],
            events: events.into(),
        })
        .await?;
        anyhow::Ok(())
    });
    stream::iter(written).buffer_unordered(AT_ONCE).try_collect::<()>().await?;
    ensure!(log.head().await?.0 > 0, "nothing was written");
    log.close().await;
    Ok(())
}

/// A file as it is after it was read by the model of that revision.
fn artifact(number: usize, vectors: &[Vec<f32>], revision: &str) -> Artifact {
    let mut text = String::new();
    let mut chunks = Vec::new();
    for index in 0..vectors.len() {
        let document = number * CHUNKS_OF_A_FILE + index;
        let topic = document % 977;
        let said = format!("Document {document}: a short passage of text about topic {topic}.");
        if !text.is_empty() {
            text.push_str("\n\n");
        }
        let start = text.len() as u64;
        text.push_str(&said);
        chunks.push(Chunk {
            index: index as u32,
            text: said,
            char_start: start,
            char_end: text.len() as u64,
            place: Place::default(),
        });
    }
    Artifact {
        revision: revision.to_owned(),
        chunker_version: CHUNKER_VERSION.into(),
        text,
        chunks,
        vectors: vectors.to_vec(),
    }
}
