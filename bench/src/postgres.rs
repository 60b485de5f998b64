//! The measurements on PostgreSQL, and the server that they share.
//!
//! The rule of this file: the server is as it comes, save where it listens, and everybody reaches
//! it the same way: by TCP, with a password.

mod commands;
mod lag;
mod replay;

use serde_json::Value;

use crate::cluster::{self, Cluster};
use crate::report::{Row, Scale};

/// What decides how fast a server is, and whether what it acknowledged is durable.
const SETTINGS: &str = "
    SELECT json_object_agg(name, current_setting(name)) FROM pg_settings WHERE name IN (
        'server_version', 'fsync', 'synchronous_commit', 'full_page_writes', 'wal_sync_method',
        'shared_buffers', 'max_wal_size')";

pub async fn measure(name: &str, scale: Scale) -> anyhow::Result<Vec<Row>> {
    if !cluster::is_installed() {
        eprintln!("{name} is left out: PostgreSQL is missing (apt-get install postgresql)");
        return Ok(vec![]);
    }
    let server = Cluster::start_with("");
    let settings: Value = serde_json::from_str(&server.sql("postgres", SETTINGS))?;
    let mut rows = match name {
        "postgres-commands" => commands::measure(&server, scale).await?,
        "postgres-lag" => lag::measure(&server, scale).await?,
        _ => replay::measure(&server, scale).await?,
    };
    for row in &mut rows {
        row.figures["settings"] = settings.clone();
    }
    Ok(rows)
}
