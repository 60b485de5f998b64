//! Opens connections to the database file and brings its schema up to date.
//!
//! The rule of this file: migrations only go forward, each in one transaction with its number.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use rusqlite::{Connection, OpenFlags, TransactionBehavior};

use super::SqliteOptions;
use crate::{Error, folder};

/// One entry for each schema number, from 1.
const MIGRATIONS: &[&str] = &[include_str!("../../../migrations/events/sqlite/0001_events.sql")];

/// The newest schema that this build knows.
const KNOWN: u32 = MIGRATIONS.len() as u32;

/// Pages in the write-ahead log after which the committer copies them into the database itself: the log is
/// never so long unless nobody else comes to it.
const CHECKPOINT_PAGES: u32 = 16_000;

/// Takes the lock that keeps a second writer away. It is the operating system's, so that it dies
/// with its process, however that ends.
pub(super) fn lock(path: &Path) -> Result<File, Error> {
    let file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(with_suffix(path, ".lock"))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(fs::TryLockError::WouldBlock) => Err(Error::Locked(path.display().to_string())),
        Err(fs::TryLockError::Error(error)) => Err(error.into()),
    }
}

/// Opens the one connection that writes; makes the file where there is none.
pub(super) fn open_writer(path: &Path, options: &SqliteOptions) -> Result<Connection, Error> {
    let mut connection = Connection::open_with_flags(
        path,
        OpenFlags::SQLITE_OPEN_READ_WRITE
            | OpenFlags::SQLITE_OPEN_CREATE
            | OpenFlags::SQLITE_OPEN_NO_MUTEX,
    )?;
    connection.busy_timeout(options.busy_timeout)?;
    refuse_newer(&connection)?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    let synchronous = if options.sync_every_commit { "FULL" } else { "NORMAL" };
    connection.pragma_update(None, "synchronous", synchronous)?;
    connection.pragma_update(None, "wal_autocheckpoint", CHECKPOINT_PAGES)?;
    // A commit may look at every page that is cached (where two changed places), and the operating system
    // keeps them too: so few are.
    connection.pragma_update(None, "cache_size", -4 * 1024)?;
    migrate(&mut connection)?;
    // A file is only there after a power cut when its folder was synced too: every time, since whoever
    // made it may have been killed before that.
    folder::sync_folder(folder::parent(path))?;
    connection.set_prepared_statement_cache_capacity(32);
    Ok(connection)
}

/// Opens a connection that only reads. It is opened for writing so that it can take part in
/// recovery when it is the first to open the file after a crash; `query_only` keeps it honest.
pub(super) fn open_reader(path: &Path, options: &SqliteOptions) -> Result<Connection, Error> {
    if !path.exists() {
        return Err(Error::Missing(path.display().to_string()));
    }
    let connection = Connection::open_with_flags(
        path,
        OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX,
    )?;
    connection.busy_timeout(options.busy_timeout)?;
    connection.pragma_update(None, "query_only", true)?;
    refuse_newer(&connection)?;
    Ok(connection)
}

fn refuse_newer(connection: &Connection) -> Result<(), Error> {
    let found = version(connection)?;
    if found > KNOWN { Err(Error::Newer { found, known: KNOWN }) } else { Ok(()) }
}

fn migrate(connection: &mut Connection) -> Result<(), Error> {
    if version(connection)? == KNOWN {
        return Ok(());
    }
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    // Read again: now nobody else can change it.
    let found = version(&transaction)?;
    for migration in MIGRATIONS.iter().skip(found as usize) {
        transaction.execute_batch(migration)?;
    }
    transaction.pragma_update(None, "user_version", KNOWN)?;
    transaction.commit()?;
    Ok(())
}

fn version(connection: &Connection) -> Result<u32, Error> {
    Ok(connection.pragma_query_value(None, "user_version", |row| row.get(0))?)
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}
