//! The measurements of `docs/benchmarks.md`, each beside its baseline in one run.
//!
//! `bench NAME…` or `bench all` measures; `--quick` only shows that it works. Peers in Python run
//! with the interpreter that `PRODGY_PEERS_PYTHON` names, those in Node with the packages of the
//! folder that `PRODGY_PEERS_NODE` names, texts come from `PRODGY_PASSAGES`; what is missing is
//! said and left out.

mod bare_insert;
mod bare_list;
#[path = "../../tests/postgres/cluster.rs"]
#[expect(clippy::unwrap_used, reason = "the tests' server: one that does not start ends the run")]
mod cluster;
mod commands;
mod embed;
mod executions;
mod flow;
mod history;
mod list;
mod peers;
mod postgres;
mod replay;
mod report;
mod retrieval;
mod search;
mod search_http;
mod server;
mod start;
mod texts;
mod upload;
mod vectors;
mod webhooks;
mod wrk;

use std::process::ExitCode;

use anyhow::{Context, bail};
use mimalloc::MiMalloc;
use report::{Clock, HEAD, Row, Scale};

/// The server's own.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

/// Every measurement: those of the table in its order, one that explains another, and one that a choice was made by.
const NAMES: [&str; 18] = [
    "commands",
    "replay",
    "list",
    "embed",
    "search",
    "retrieval",
    "upload",
    "search-http",
    "start",
    "memory",
    "flow",
    "executions",
    "webhooks",
    "postgres-commands",
    "postgres-lag",
    "postgres-replay",
    "replay-parts",
    "vectors",
];

fn main() -> ExitCode {
    match run(std::env::args().skip(1).collect()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: Vec<String>) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    if let [word, file, product] = &arguments[..]
        && word == bare_list::WORD
    {
        return runtime.block_on(bare_list::serve(file.into(), product.parse()?));
    }
    if let [word] = &arguments[..]
        && word == webhooks::WORD
    {
        return runtime.block_on(webhooks::serve());
    }
    let is_quick = arguments.iter().any(|argument| argument == "--quick");
    let scale = if is_quick { Scale::Quick } else { Scale::Full };
    let mut wanted: Vec<&str> = arguments
        .iter()
        .map(String::as_str)
        .filter(|argument| !argument.starts_with("--"))
        .collect();
    if wanted.is_empty() || wanted.contains(&"all") {
        wanted = NAMES[..15].to_vec();
    }
    let mut table = Vec::new();
    for wanted in wanted {
        let Some(name) = NAMES.into_iter().find(|name| *name == wanted) else {
            bail!("there is no measurement {wanted}: choose among {}", NAMES.join(", "));
        };
        let clock = Clock::start(name);
        let rows = runtime.block_on(measure(name, scale)).with_context(|| name.to_owned())?;
        table.extend(clock.finish(rows));
    }
    println!("\n{HEAD}\n{}", table.join("\n"));
    Ok(())
}

async fn measure(name: &str, scale: Scale) -> anyhow::Result<Vec<Row>> {
    match name {
        "commands" => commands::measure(scale).await,
        "replay" => replay::measure(scale).await,
        "replay-parts" => replay::measure_parts(scale).await,
        "list" => list::measure(scale),
        "embed" => embed::measure(scale).await,
        "search" => search::measure(scale).await,
        "vectors" => vectors::measure(scale).await,
        "retrieval" => retrieval::measure(scale),
        "upload" => upload::measure(scale),
        "search-http" => search_http::measure(scale).await,
        "start" => start::measure_start(scale),
        "memory" => start::measure_memory(scale),
        "flow" => flow::measure(scale).await,
        "webhooks" => webhooks::measure(scale).await,
        "executions" => executions::measure(scale).await,
        _ => postgres::measure(name, scale).await,
    }
}
