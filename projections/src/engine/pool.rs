//! Read-only connections to a generation of read models, handed out one at a time.

use std::path::{Path, PathBuf};

use parking_lot::Mutex;
use rusqlite::Connection;

use super::file::Models;
use super::generation;
use crate::Error;

/// How many idle connections are kept.
const IDLE: usize = 16;

/// How many prepared statements each connection keeps.
const STATEMENTS: usize = 128;

/// Read-only connections to one generation.
pub(crate) struct Pool {
    folder: PathBuf,
    models: Models,
    idle: Mutex<Vec<Connection>>,
}

impl Pool {
    pub(crate) fn new(folder: &Path, models: &Models) -> Pool {
        Pool { folder: folder.to_owned(), models: models.clone(), idle: Mutex::new(Vec::new()) }
    }

    /// Runs a query. Queries here are look-ups of microseconds in a file that is in the page cache;
    /// they run on the caller's thread, which is cheaper than any hand-over.
    pub(crate) fn with<T>(
        &self,
        query: impl FnOnce(&Connection) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let taken = self.idle.lock().pop();
        let connection = match taken {
            Some(connection) => connection,
            None => self.open()?,
        };
        let answer = query(&connection);
        let mut idle = self.idle.lock();
        if idle.len() < IDLE {
            idle.push(connection);
        }
        answer
    }

    fn open(&self) -> Result<Connection, Error> {
        let connection = generation::open_reader(&self.folder, &self.models)?;
        connection.busy_timeout(std::time::Duration::from_secs(5))?;
        connection.execute_batch(
            "PRAGMA query_only = on; PRAGMA mmap_size = 268435456; PRAGMA cache_size = -8192;",
        )?;
        connection.set_prepared_statement_cache_capacity(STATEMENTS);
        Ok(connection)
    }
}
