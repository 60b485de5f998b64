//! The first page of an agent's executions, when there are few and when there are a million.
//!
//! The rule of this file: the executions are asked for and stopped by the commands that the server uses,
//! in one log, and listed by the server.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use commands::{Ask, Commands, NewExecution};
use eventlog::{EventStore, SqliteOptions, SqliteStore};
use futures::{StreamExt, TryStreamExt, stream};
use serde_json::{Value, json};
use uuid::Uuid;
use vault::Vault;

use crate::flow::{Caller, install_one_step, sign_in};
use crate::report::{Row, Scale, grouped, median, milliseconds, p99};
use crate::server::Server;

/// How many commands are under way at once.
const AT_ONCE: usize = 64;

/// How long the read models may take for them.
const CATCH_UP: Duration = Duration::from_secs(300);

/// An agent with so many executions.
struct Busy {
    agent: Uuid,
    executions: usize,
}

pub async fn measure(scale: Scale) -> anyhow::Result<Vec<Row>> {
    let data = tempfile::tempdir()?;
    let server = Server::prodgy(data.path())?;
    server.ready()?;
    let caller = sign_in(&server)?;
    let sizes = [1_000, scale.pick(1_000_000, 2_000)];
    let agents = sizes
        .iter()
        .map(|executions| {
            let agent = install_one_step(&server, &caller)?.parse()?;
            Ok(Busy { agent, executions: *executions })
        })
        .collect::<anyhow::Result<Vec<_>>>()?;
    drop(server);
    fill(data.path(), &caller, &agents).await?;

    let server = Server::prodgy(data.path())?;
    server.ready_within(CATCH_UP)?;
    let mut pages = Vec::new();
    for _ in 0..scale.pick(2_000, 20) {
        for (place, busy) in agents.iter().enumerate() {
            pages.resize_with(agents.len(), Vec::new);
            let path = format!("/api/agent-base/{}/executions?pageSize=50", busy.agent);
            let begun = Instant::now();
            let (status, body) = server.get(&path, &format!("{}\r\n", caller.header))?;
            pages[place].push(milliseconds(begun.elapsed()));
            ensure!(status == 200, "the list was answered with {status}");
            let body: Value = serde_json::from_slice(&body)?;
            ensure!(
                body["data"].as_array().is_some_and(|rows| rows.len() == 50),
                "no page: {body}"
            );
        }
    }
    let row = |busy: &Busy, beside: &Busy, own: &[f64], other: &[f64]| Row {
        what: format!("first page of an agent's {} executions", grouped(busy.executions as f64)),
        goals: ["p99 ≤ 20 ms", "independent of their number"],
        ours: format!("{:.2} ms (p99 {:.2})", median(own), p99(own)),
        beside: format!("of {}: {:.2} ms", grouped(beside.executions as f64), median(other)),
        ratio: format!("{:.2}×", median(own) / median(other)),
        figures: json!({ "ms": own }),
    };
    Ok(vec![row(&agents[1], &agents[0], &pages[1], &pages[0])])
}

/// Asks for the executions and stops them again.
async fn fill(data: &Path, caller: &Caller, agents: &[Busy]) -> anyhow::Result<()> {
    let log: Arc<dyn EventStore> =
        Arc::new(SqliteStore::open(&data.join("events.db"), SqliteOptions::default())?);
    let key_file = data.join("master.key");
    let (vault, _) = Vault::local_with_key_file(&data.join("vault"), &key_file).await?;
    let commands = Commands::open(log.clone(), vault).await?;
    let first = log.read_after(eventlog::Position::START, 1).await?;
    let organization = first.first().context("the log is empty")?.organization;
    let product: Uuid = caller.product.parse()?;
    for busy in agents {
        let each = (0..busy.executions).map(|_| async {
            let new =
                NewExecution { agent: busy.agent, trigger: None, input: Some(json!({ "x": 1 })) };
            let ask = Ask::once("bench", organization, Some(product));
            let done = commands.request_execution(new, &ask).await?;
            let id = done.stream_id().context("no id")?;
            commands.stop_execution(id, &Ask::once("bench", organization, Some(product))).await?;
            anyhow::Ok(())
        });
        stream::iter(each).buffer_unordered(AT_ONCE).try_collect::<()>().await?;
    }
    log.close().await;
    Ok(())
}
