//! The log on PostgreSQL: the suite of every store, and what only a server can do, on a real one.
//!
//! The rule of these tests: nothing is pretended. Servers are killed, processes too, and what was
//! acknowledged must be there.
#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, reason = "tests say what they expect by failing")]

mod answers;
mod checks;
#[path = "../../../tests/postgres/cluster.rs"]
mod cluster;
mod conformance;
mod crash;
mod dump;
mod errors;
mod fail_over;
mod nodes;
mod table;
mod wire;
mod writer;

use std::sync::Arc;
use std::time::Duration;

use eventlog::{EventStore, PostgresOptions, PostgresStore};

use crate::cluster::Cluster;

/// A database of a test, on the cluster that the tests of this binary share.
struct Database {
    name: String,
}

impl Database {
    fn new() -> Database {
        Database { name: Cluster::shared().database() }
    }

    fn url(&self) -> String {
        Cluster::shared().url(&self.name)
    }

    /// Opens the log in it, as a node of its own.
    async fn open(&self) -> Arc<dyn EventStore> {
        open(&self.url()).await
    }

    fn sql(&self, sql: &str) -> String {
        Cluster::shared().sql(&self.name, sql)
    }
}

async fn open(url: &str) -> Arc<dyn EventStore> {
    Arc::new(PostgresStore::open(url, PostgresOptions::default()).await.unwrap())
}

/// As [`open`], impatient: for tests in which the server goes away.
async fn open_impatient(url: &str) -> Arc<dyn EventStore> {
    let options = PostgresOptions {
        connect_timeout: Duration::from_secs(2),
        poll: Duration::from_millis(100),
        ..PostgresOptions::default()
    };
    Arc::new(PostgresStore::open(url, options).await.unwrap())
}
