//! A replay: every read model filled from nothing, from a log of a million mixed events.
//!
//! The rule of this file: the clock runs until queries could be answered, so the file is whole,
//! synced and swapped in.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use eventlog::{EventStore, Position, SqliteOptions, SqliteStore};
use futures::{StreamExt, TryStreamExt, stream};
use projections::{ReadModel, Views, read_models};
use serde_json::json;

use crate::history::History;
use crate::report::{Row, Scale, grouped, median};

/// The longest that a replay may take.
const PATIENCE: Duration = Duration::from_secs(600);

/// Appends under way while the log is made: fewer than its queue takes, so that they keep their
/// order.
const AT_ONCE: usize = 512;

/// How many events one read of the log brings.
const BATCH: usize = 2_000;

pub async fn measure(scale: Scale) -> anyhow::Result<Vec<Row>> {
    let rounds = scale.pick(3, 1);
    let log = log_of(scale.pick(1_000_000, 20_000)).await?;
    let count = log.head().await?.0 as f64;
    let (mut whole, mut reading) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        reading.push(count / read_all(log.as_ref()).await?.as_secs_f64());
        whole.push(count / fill(&log, read_models()).await?.as_secs_f64());
    }
    log.close().await;
    let (whole_median, reading_median) = (median(&whole), median(&reading));
    Ok(vec![Row {
        what: format!(
            "replay of {} mixed events into every read model, events a second",
            grouped(count)
        ),
        goals: ["100,000", "300,000"],
        ours: grouped(whole_median),
        beside: format!("reading the log alone {}", grouped(reading_median)),
        ratio: format!("{:.2}× reading", whole_median / reading_median),
        figures: json!({ "events": count, "all_models": whole, "reading_alone": reading }),
    }])
}

/// Where the time of a replay goes: each model filled alone. Not a row of the documentation's table.
pub async fn measure_parts(scale: Scale) -> anyhow::Result<Vec<Row>> {
    let log = log_of(scale.pick(1_000_000, 20_000)).await?;
    let count = log.head().await?.0 as f64;
    let mut rows = Vec::new();
    for model in read_models() {
        let name = model.name();
        let rate = count / fill(&log, vec![model]).await?.as_secs_f64();
        rows.push(Row {
            what: format!("replay into {name} alone, events of the whole log a second"),
            goals: ["–", "–"],
            ours: grouped(rate),
            beside: "–".into(),
            ratio: "–".into(),
            figures: json!({ "events_per_s": rate }),
        });
    }
    log.close().await;
    Ok(rows)
}

/// A log of so many events. It is kept between runs: making it takes longer than reading it.
pub async fn log_of(count: usize) -> anyhow::Result<Arc<dyn EventStore>> {
    let path = path_of(count);
    if !path.exists() {
        make_log(count, &path).await?;
    }
    Ok(Arc::new(SqliteStore::open(&path, SqliteOptions::default())?))
}

/// Where the log of so many events is kept.
pub fn path_of(count: usize) -> PathBuf {
    std::env::temp_dir().join("prodgy-bench").join(format!("history-{count}.db"))
}

async fn make_log(count: usize, path: &Path) -> anyhow::Result<()> {
    let started = Instant::now();
    let parent = path.parent().context("a log lies in a folder")?;
    std::fs::create_dir_all(parent)?;
    let folder = tempfile::tempdir_in(parent)?;
    let unfinished = folder.path().join("history.db");
    let store = SqliteStore::open(&unfinished, SqliteOptions::default())?;
    let history = History::begin(&folder.path().join("vault")).await?;
    stream::iter(history.take(count))
        .map(|append| store.append(append))
        .buffer_unordered(AT_ONCE)
        .try_for_each(|_| async { Ok(()) })
        .await?;
    store.close().await;
    drop(store);
    // What SQLite kept beside the file has gone into it when the last connection closed.
    std::fs::rename(&unfinished, path)?;
    eprintln!("made a log of {count} events in {:.0} s", started.elapsed().as_secs_f64());
    Ok(())
}

/// The time to read and decode every envelope, and to do nothing with them.
pub async fn read_all(log: &dyn EventStore) -> anyhow::Result<Duration> {
    let started = Instant::now();
    let mut position = Position::START;
    while let Some(last) = log.read_after(position, BATCH).await?.last() {
        position = last.position;
    }
    Ok(started.elapsed())
}

/// The time from an empty folder to answers.
pub async fn fill(
    log: &Arc<dyn EventStore>,
    models: Vec<Box<dyn ReadModel>>,
) -> anyhow::Result<Duration> {
    let folder = tempfile::tempdir()?;
    let head = log.head().await?;
    let started = Instant::now();
    let views = Views::open_with(folder.path(), log.clone(), models)?;
    let is_filled = views.all_caught_up(head, PATIENCE).await;
    let time = started.elapsed();
    if let Some(trouble) = views.trouble() {
        bail!("the read models are not filled: {trouble}");
    }
    if !is_filled {
        bail!("the read models took longer than {PATIENCE:?}");
    }
    views.close().await;
    Ok(time)
}
