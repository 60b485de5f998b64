//! One views file: the tables of all read models, and where each of them stands.
//!
//! The rule of this file: rows and checkpoint commit in one transaction, so that a crash repeats
//! nothing and skips nothing. An event that a model cannot take in stops that model alone, before
//! that event.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use eventlog::{Position, RecordedEvent};
use rusqlite::types::ValueRef;
use rusqlite::{Connection, OptionalExtension, params};
use sha2::{Digest, Sha256};

use super::model::ReadModel;
use super::status::Stopped;
use crate::Error;

/// The models that live in one file.
pub(crate) type Models = Arc<[Box<dyn ReadModel>]>;

/// The writing side of a views file.
pub(crate) struct File {
    pub(crate) connection: Connection,
    pub(crate) models: Models,
    /// Where each model stands, in the order of `models`.
    pub(crate) standings: Vec<Standing>,
}

/// Where one model stands.
#[derive(Clone, Debug, Default)]
pub(crate) struct Standing {
    pub(crate) position: Position,
    pub(crate) stopped: Option<Stopped>,
}

/// How a file is opened: while it is filled nobody reads it, and a crash throws it away.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    Serving,
    Filling,
}

impl File {
    /// The name of the file that holds just these versions of just these models.
    pub(crate) fn name(models: &Models) -> String {
        let mut hash = Sha256::new();
        for model in models.iter() {
            hash.update(format!("{} {}\n{}\n", model.name(), model.version(), model.schema()));
        }
        format!("views-{}.db", hex::encode(&hash.finalize()[..8]))
    }

    pub(crate) fn open(path: &Path, models: &Models, mode: Mode) -> Result<File, Error> {
        let connection = Connection::open(path)?;
        connection.execute_batch(match mode {
            Mode::Serving => "PRAGMA journal_mode = wal; PRAGMA synchronous = normal; PRAGMA wal_autocheckpoint = 4000;",
            Mode::Filling => "PRAGMA journal_mode = off; PRAGMA synchronous = off; PRAGMA locking_mode = exclusive;",
        })?;
        File::prepare(connection, models)
    }

    /// Takes away the indexes that only readers use, and answers the SQL that makes them again.
    pub(crate) fn put_off_indexes(&self) -> Result<Vec<String>, Error> {
        let mut put_off = Vec::new();
        for name in self.models.iter().flat_map(|model| model.reader_indexes()) {
            let sql = "SELECT sql FROM sqlite_schema WHERE type = 'index' AND name = ?1";
            put_off.push(self.connection.query_row(sql, [name], |row| row.get(0))?);
            self.connection.execute_batch(&format!("DROP INDEX {name}"))?;
        }
        Ok(put_off)
    }

    /// Makes indexes that were put off. Many rows are sorted on disk and by a second thread.
    pub(crate) fn make_indexes(&self, put_off: &[String]) -> Result<(), Error> {
        self.connection.execute_batch("PRAGMA temp_store = default; PRAGMA threads = 2;")?;
        put_off.iter().try_for_each(|sql| self.connection.execute_batch(sql))?;
        Ok(())
    }

    pub(crate) fn in_memory(models: &Models) -> Result<File, Error> {
        File::prepare(Connection::open_in_memory()?, models)
    }

    fn prepare(connection: Connection, models: &Models) -> Result<File, Error> {
        connection.busy_timeout(std::time::Duration::from_secs(5))?;
        connection.set_prepared_statement_cache_capacity(256);
        connection.execute_batch("PRAGMA cache_size = -65536; PRAGMA temp_store = memory;")?;
        let transaction = connection.unchecked_transaction()?;
        transaction.execute_batch(include_str!("../../../migrations/views/checkpoint.sql"))?;
        let mut standings = Vec::with_capacity(models.len());
        for model in models.iter() {
            let known = transaction
                .query_row(
                    "SELECT position, stopped FROM checkpoint WHERE model = ?1",
                    [model.name()],
                    |row| Ok((row.get::<_, u64>(0)?, row.get::<_, Option<String>>(1)?)),
                )
                .optional()?;
            // Whether it was stopped is found out again: the repair may be this very build.
            let standing = match known {
                Some((position, _)) => Standing { position: Position(position), stopped: None },
                None => {
                    transaction.execute_batch(model.schema())?;
                    transaction.execute(
                        "INSERT INTO checkpoint (model, position) VALUES (?1, 0)",
                        [model.name()],
                    )?;
                    Standing::default()
                }
            };
            standings.push(standing);
        }
        transaction.commit()?;
        Ok(File { connection, models: models.clone(), standings })
    }

    /// The position that every model which is not stopped has taken in.
    pub(crate) fn position(&self) -> Position {
        let running = self.standings.iter().filter(|standing| standing.stopped.is_none());
        running.map(|standing| standing.position).min().unwrap_or_else(|| {
            self.standings.iter().map(|standing| standing.position).max().unwrap_or_default()
        })
    }

    /// Takes a batch in, which follows on what was taken in before.
    pub(crate) fn apply(&mut self, events: &[Arc<RecordedEvent>]) -> Result<(), Error> {
        let transaction = self.connection.unchecked_transaction()?;
        for (model, standing) in self.models.iter().zip(&mut self.standings) {
            if standing.stopped.is_none() {
                take_in(&transaction, model.as_ref(), standing, events)?;
            }
        }
        transaction.commit()?;
        Ok(())
    }
}

/// Lets one model take a batch in, behind a savepoint. Where it fails it keeps what came before.
fn take_in(
    db: &Connection,
    model: &dyn ReadModel,
    standing: &mut Standing,
    events: &[Arc<RecordedEvent>],
) -> Result<(), Error> {
    let Some(last) = events.last() else { return Ok(()) };
    db.prepare_cached("SAVEPOINT model")?.execute([])?;
    let mut outcome = run(db, model, standing.position, events);
    if let Err((index, _)) = &outcome {
        db.prepare_cached("ROLLBACK TO model")?.execute([])?;
        let before = *index;
        if let Err((_, error)) = run(db, model, standing.position, &events[..before]) {
            return Err(error);
        }
    }
    db.prepare_cached("RELEASE model")?.execute([])?;
    match &mut outcome {
        Ok(()) => standing.position = standing.position.max(last.position),
        Err((index, error)) => {
            let event = &events[*index];
            if let Some(taken) = index.checked_sub(1).map(|before| events[before].position) {
                standing.position = standing.position.max(taken);
            }
            let chain = crate::error::chain(error);
            tracing::error!(
                model = model.name(),
                position = event.position.0,
                event_type = event.event_type,
                error = chain,
                "read model stopped"
            );
            standing.stopped = Some(Stopped {
                position: event.position.0,
                event_type: event.event_type.clone(),
                error: chain,
            });
        }
    }
    let stopped =
        standing.stopped.as_ref().map(|stopped| format!("{}: {}", stopped.position, stopped.error));
    db.prepare_cached("UPDATE checkpoint SET position = ?2, stopped = ?3 WHERE model = ?1")?
        .execute(params![model.name(), standing.position.0, stopped])?;
    Ok(())
}

fn run(
    db: &Connection,
    model: &dyn ReadModel,
    after: Position,
    events: &[Arc<RecordedEvent>],
) -> Result<(), (usize, Error)> {
    let categories = model.categories();
    for (index, event) in events.iter().enumerate() {
        let is_its_own = categories.is_empty() || categories.contains(&event.stream.category());
        if is_its_own && event.position > after {
            model.apply(db, event).map_err(|error| (index, error))?;
        }
    }
    Ok(())
}

/// Every row of every table, as text, in a fixed order: two files with the same dump give the same
/// answers.
///
/// # Errors
/// The file cannot be read.
pub fn dump(db: &Connection) -> Result<String, Error> {
    use std::fmt::Write;
    let mut text = String::new();
    let mut tables = db.prepare(
        "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite_%' ORDER BY name",
    )?;
    let tables =
        tables.query_map([], |row| row.get::<_, String>(0))?.collect::<Result<Vec<_>, _>>()?;
    // The tables that FTS5 keeps for itself depend on how rows were batched; its rows do not.
    let own = |name: &String| {
        !["_data", "_idx", "_docsize", "_config"].iter().any(|end| name.ends_with(end))
    };
    for table in tables.iter().filter(|name| own(name)) {
        let mut rows = db.prepare(&format!("SELECT * FROM \"{table}\""))?;
        let columns = rows.column_count();
        let mut rows = rows.query([])?;
        let mut lines = Vec::new();
        while let Some(row) = rows.next()? {
            let mut line = String::new();
            for column in 0..columns {
                line.push_str(&readable(row.get_ref(column)?));
                line.push('|');
            }
            lines.push(line);
        }
        lines.sort_unstable();
        let _ = writeln!(text, "{table}\n{}", lines.join("\n"));
    }
    Ok(text)
}

/// A value as a person reads it; values of two types never read the same.
fn readable(value: ValueRef<'_>) -> String {
    match value {
        ValueRef::Null => "null".to_owned(),
        ValueRef::Integer(number) => number.to_string(),
        ValueRef::Real(number) => format!("{number:?}"),
        ValueRef::Text(text) => format!("{:?}", String::from_utf8_lossy(text)),
        ValueRef::Blob(bytes) => format!("x'{}'", hex::encode(bytes)),
    }
}

/// Removes a views file and what SQLite keeps beside it.
pub(crate) fn remove(path: &Path) -> std::io::Result<()> {
    for end in ["", "-wal", "-shm", "-journal"] {
        let mut name = path.as_os_str().to_owned();
        name.push(end);
        match std::fs::remove_file(PathBuf::from(name)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(())
}
