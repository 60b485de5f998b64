//! Catching up from PostgreSQL: the log of the replay, read, and filled into every read model,
//! beside the same log on SQLite.
//!
//! The rule of this file: both stores hold the same bytes at the same positions.

use std::io::{BufWriter, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, ensure};
use projections::read_models;
use rusqlite::{Connection, OpenFlags};
use serde_json::json;
use uuid::Uuid;

use crate::cluster::{Cluster, program};
use crate::replay::{fill, log_of, path_of, read_all};
use crate::report::{Row, Scale, grouped, median};

pub async fn measure(server: &Cluster, scale: Scale) -> anyhow::Result<Vec<Row>> {
    let rounds = scale.pick(3, 1);
    let count = scale.pick(1_000_000, 20_000);
    let sqlite = log_of(count).await?;
    let database = server.database();
    let postgres = eventlog::open(&server.url(&database), false).await?;
    postgres.close().await;
    copy(&path_of(count), server, &database)?;
    let postgres = eventlog::open(&server.url(&database), false).await?;
    let head = sqlite.head().await?;
    ensure!(postgres.head().await? == head, "the two logs are not the same");

    let count = head.0 as f64;
    let (mut reading, mut filling): ([Vec<f64>; 2], [Vec<f64>; 2]) = Default::default();
    for _ in 0..rounds {
        for (place, log) in [&postgres, &sqlite].into_iter().enumerate() {
            reading[place].push(count / read_all(log.as_ref()).await?.as_secs_f64());
            filling[place].push(count / fill(log, read_models()).await?.as_secs_f64());
        }
    }
    postgres.close().await;
    sqlite.close().await;
    let row = |what: &str, [postgres, sqlite]: [Vec<f64>; 2]| Row {
        what: format!("{what} {} mixed events on PostgreSQL, events a second", grouped(count)),
        goals: ["0.5× SQLite", "–"],
        ours: grouped(median(&postgres)),
        beside: format!("SQLite {}", grouped(median(&sqlite))),
        ratio: format!("{:.2}× SQLite", median(&postgres) / median(&sqlite)),
        figures: json!({ "events": count, "postgres": postgres, "sqlite": sqlite }),
    };
    Ok(vec![row("reading", reading), row("replay into every read model of", filling)])
}

/// Copies the rows of a log on SQLite into an empty one on PostgreSQL, and leaves them as a log that
/// has grown leaves them: analysed, and looked through by the vacuum.
fn copy(from: &Path, server: &Cluster, database: &str) -> anyhow::Result<()> {
    let started = Instant::now();
    let mut psql = Command::new(program("psql"))
        .args(["--no-psqlrc", "--quiet", "--set", "ON_ERROR_STOP=1"])
        .args(["--command", "COPY event_log FROM STDIN", "--dbname", &server.url(database)])
        .stdin(Stdio::piped())
        .spawn()?;
    let mut rows = BufWriter::new(psql.stdin.take().context("its input was asked for")?);
    let sqlite = Connection::open_with_flags(from, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    let mut all = sqlite.prepare(
        "SELECT position, stream, sequence, envelope ->> 'type', command, envelope
         FROM events ORDER BY position",
    )?;
    let mut all = all.query([])?;
    while let Some(row) = all.next()? {
        let (position, sequence): (u64, u64) = (row.get(0)?, row.get(2)?);
        let (stream, event_type): (String, String) = (row.get(1)?, row.get(3)?);
        let (command, envelope): (Option<Uuid>, String) = (row.get(4)?, row.get(5)?);
        let (category, id) = stream.split_once('-').context("a stream has a category")?;
        let command = command.map_or("\\N".into(), |command| command.to_string());
        // Canonical JSON holds no bare tab or line break, which COPY would have to be told of too.
        let envelope = envelope.replace('\\', "\\\\");
        writeln!(
            rows,
            "{position}\t{category}\t{id}\t{sequence}\t{event_type}\t{command}\t{envelope}"
        )?;
    }
    drop(rows.into_inner()?);
    ensure!(psql.wait()?.success(), "psql did not copy the log");
    server.sql(database, "VACUUM (FREEZE, ANALYZE) event_log");
    server.sql(database, "CHECKPOINT");
    eprintln!("copied the log to PostgreSQL in {:.0} s", started.elapsed().as_secs_f64());
    Ok(())
}
