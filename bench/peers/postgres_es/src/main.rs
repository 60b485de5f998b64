//! cqrs-es as it comes: its own PostgreSQL store, pool and framework.
//! Usage: postgres-es-peer URL CALLERS SECONDS
//!
//! The rule of this file: nothing is changed; PostgreSQL's own settings make it durable.

#[path = "../../knowledge_base.rs"]
mod knowledge_base;

use anyhow::Context;
use postgres_es::{default_postgress_pool, postgres_cqrs};

/// The table that its documentation asks for.
const TABLE: &str = "
    CREATE TABLE IF NOT EXISTS events (
        aggregate_type text                         NOT NULL,
        aggregate_id   text                         NOT NULL,
        sequence       bigint CHECK (sequence >= 0) NOT NULL,
        event_type     text                         NOT NULL,
        event_version  text                         NOT NULL,
        payload        json                         NOT NULL,
        metadata       json                         NOT NULL,
        PRIMARY KEY (aggregate_type, aggregate_id, sequence)
    )";

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let mut argument = || arguments.next().context("usage: postgres-es-peer URL CALLERS SECONDS");
    let pool = default_postgress_pool(&argument()?).await;
    sqlx::query(TABLE).execute(&pool).await?;
    let framework = postgres_cqrs(pool, vec![], ());
    knowledge_base::measure("postgres-es", framework, &argument()?, &argument()?).await
}
