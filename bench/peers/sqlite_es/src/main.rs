//! cqrs-es as it comes: its own SQLite store and its own framework. Usage: sqlite-es-peer CALLERS SECONDS
//!
//! The rule of this file: nothing is changed but what durability asks for, `synchronous = FULL`.

#[path = "../../knowledge_base.rs"]
mod knowledge_base;

use std::path::Path;

use anyhow::Context;
use knowledge_base::KnowledgeBase;
use sqlite_es::{SqliteCqrs, sqlite_cqrs};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};

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

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let mut argument = || arguments.next().context("usage: sqlite-es-peer CALLERS SECONDS");
    let folder = tempfile::tempdir()?;
    let framework = open(&folder.path().join("sqlite-es.db")).await?;
    knowledge_base::measure("sqlite-es", framework, &argument()?, &argument()?).await
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
