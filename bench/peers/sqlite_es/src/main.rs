//! cqrs-es as it comes: its own SQLite store and its own framework. Usage: sqlite-es-peer CALLERS SECONDS
//!
//! The rule of this file: nothing is changed but what durability asks for, `synchronous = FULL`. The
//! aggregate is our knowledge base, cut down to what the commands of the measurement need: one makes
//! it, nine rename it.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use cqrs_es::event_sink::EventSink;
use cqrs_es::{Aggregate, DomainEvent};
use serde::{Deserialize, Serialize};
use sqlite_es::{SqliteCqrs, sqlite_cqrs};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use uuid::Uuid;

/// The table that its documentation asks for.
const TABLE: &str = "
    CREATE TABLE events (
        aggregate_type text                          NOT NULL,
        aggregate_id   text                          NOT NULL,
        sequence       integer CHECK (sequence >= 0) NOT NULL,
        event_type     text                          NOT NULL,
        event_version  text                          NOT NULL,
        payload        text                          NOT NULL,
        metadata       text                          NOT NULL,
        PRIMARY KEY (aggregate_type, aggregate_id, sequence)
    ) STRICT";

/// The connections of its own pool.
const CONNECTIONS: u32 = 10;

/// Events of a stream.
const STREAM: u64 = 10;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
enum Event {
    Created { name: String, default: bool },
    Changed { name: String },
}

impl DomainEvent for Event {
    fn event_type(&self) -> String {
        match self {
            Event::Created { .. } => "knowledge_base.created.v1".into(),
            Event::Changed { .. } => "knowledge_base.changed.v1".into(),
        }
    }

    fn event_version(&self) -> String {
        "v1".into()
    }
}

#[derive(Debug)]
enum Command {
    Create { name: String },
    Change { name: String },
}

#[derive(Debug)]
struct Refused(&'static str);

impl std::fmt::Display for Refused {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for Refused {}

#[derive(Debug, Default, Serialize, Deserialize)]
struct KnowledgeBase {
    name: Option<String>,
}

impl Aggregate for KnowledgeBase {
    const TYPE: &'static str = "knowledge_base";
    type Command = Command;
    type Event = Event;
    type Error = Refused;
    type Services = ();

    async fn handle(
        &mut self,
        command: Command,
        (): &(),
        sink: &EventSink<Self>,
    ) -> Result<(), Refused> {
        let event = match (&self.name, command) {
            (None, Command::Create { name }) => Event::Created { name, default: false },
            (Some(old), Command::Change { name }) if *old != name => Event::Changed { name },
            (Some(_), Command::Change { .. }) => return Ok(()),
            (None, Command::Change { .. }) => {
                return Err(Refused("there is no such knowledge base"));
            }
            (Some(_), Command::Create { .. }) => return Err(Refused("it exists already")),
        };
        sink.write(event, self).await;
        Ok(())
    }

    fn apply(&mut self, event: Event) {
        let (Event::Created { name, .. } | Event::Changed { name }) = event;
        self.name = Some(name);
    }
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let mut argument = || arguments.next().context("usage: sqlite-es-peer CALLERS SECONDS");
    let callers: u64 = argument()?.parse()?;
    let time = Duration::from_secs_f64(argument()?.parse()?);
    let folder = tempfile::tempdir()?;
    let framework = Arc::new(open(&folder.path().join("sqlite-es.db")).await?);
    let started = Instant::now();
    let tasks: Vec<_> =
        (0..callers).map(|_| tokio::spawn(call(framework.clone(), started, time))).collect();
    let mut count = 0;
    for task in tasks {
        count += task.await??;
    }
    let rate = count as f64 / started.elapsed().as_secs_f64();
    println!(
        "{}",
        serde_json::json!({ "peer": "sqlite-es", "callers": callers, "commands_per_s": rate })
    );
    Ok(())
}

async fn open(path: &Path) -> anyhow::Result<SqliteCqrs<KnowledgeBase>> {
    let options = SqliteConnectOptions::new()
        .filename(path)
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        .foreign_keys(true);
    let pool = SqlitePoolOptions::new().max_connections(CONNECTIONS).connect_with(options).await?;
    sqlx::query(TABLE).execute(&pool).await?;
    Ok(sqlite_cqrs(pool, vec![], ()))
}

/// One caller: waits for each command before it sends the next. Answers how many there were.
async fn call(
    framework: Arc<SqliteCqrs<KnowledgeBase>>,
    started: Instant,
    time: Duration,
) -> anyhow::Result<u64> {
    let mut count = 0;
    let mut id = String::new();
    while started.elapsed() < time {
        let name = format!("What the support team knows, revision {}", count % STREAM + 1);
        let command = match count % STREAM {
            0 => {
                id = Uuid::now_v7().to_string();
                Command::Create { name }
            }
            _ => Command::Change { name },
        };
        framework.execute(&id, command).await?;
        count += 1;
    }
    Ok(count)
}
