//! Copies the write-ahead log of a database into its file, on a thread of its own.
//!
//! The rule of this file: whoever commits waits for no copy. A copy syncs twice and writes thousands of
//! pages, for which one commit in a hundred took twenty times as long as the others. What is copied here is
//! what SQLite would copy itself, by the same means; should it not come to it in time, SQLite does so.

use std::path::Path;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;

use rusqlite::Connection;

use crate::Error;

/// After so many events the log is copied: it has some thousand pages then.
const EVENTS: usize = 400;

/// Copies, as long as it is there.
pub struct Checkpointer {
    /// How many events were taken in since the last copy.
    taken_in: usize,
    /// Asks for a copy; gone when it is to end.
    ask: Option<SyncSender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Checkpointer {
    /// For the database at `path`, which is in use in WAL mode. The thread is named after `whose` it is.
    ///
    /// # Errors
    /// The file cannot be opened once more, or there can be no thread.
    pub fn start(path: &Path, whose: &'static str) -> Result<Checkpointer, Error> {
        let connection = Connection::open(path)?;
        // As few pages as there may be: a copy goes by the operating system's.
        connection.execute_batch("PRAGMA synchronous = normal; PRAGMA cache_size = -256;")?;
        let (ask, asked) = sync_channel(1);
        let thread = std::thread::Builder::new()
            .name(format!("{whose}-copier"))
            .spawn(move || copy_when_asked(whose, &connection, &asked))?;
        Ok(Checkpointer { taken_in: 0, ask: Some(ask), thread: Some(thread) })
    }

    /// Counts what was committed.
    pub fn count(&mut self, events: usize) {
        self.taken_in += events;
        let Some(ask) = self.ask.as_ref().filter(|_| self.taken_in >= EVENTS) else { return };
        match ask.try_send(()) {
            Ok(()) => self.taken_in = 0,
            // One is going on: then after it.
            Err(TrySendError::Full(())) => {}
            // It crashed, and the panic hook has said so: SQLite does it.
            Err(TrySendError::Disconnected(())) => self.ask = None,
        }
    }
}

impl Drop for Checkpointer {
    fn drop(&mut self) {
        self.ask = None;
        // Afterwards nobody has the file open.
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn copy_when_asked(whose: &str, connection: &Connection, asked: &Receiver<()>) {
    while asked.recv().is_ok() {
        let copied = connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(()));
        if let Err(error) = copied {
            // A full disk, say. Nothing is lost: it stands in the log, and is copied another time.
            tracing::warn!(%error, whose, "a write-ahead log could not be copied into its database");
        }
    }
}

#[cfg(test)]
mod tests;
