//! One file of read models: the tables of some of them, and where each of those stands.
//!
//! The rule of this file: rows and checkpoint commit in one transaction, so that a crash repeats
//! nothing and skips nothing. An event that a model cannot take in stops that model alone, before
//! that event.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use eventlog::{Checkpointer, Position, RecordedEvent};
use rusqlite::types::ValueRef;
use rusqlite::{Connection, OptionalExtension, params};

use super::model::ReadModel;
use super::status::Stopped;
use super::writer::Writer;
use crate::Error;

/// Some read models.
pub(crate) type Models = Arc<[Box<dyn ReadModel>]>;

/// The writing side of a file.
pub(crate) struct File {
    pub(crate) connection: Connection,
    models: Models,
    listeners: Listeners,
    /// Those of `models` that are in this file, and where each stands.
    pub(crate) standings: Vec<Standing>,
    /// There where others read the file.
    checkpointer: Option<Checkpointer>,
}

/// Where one model stands.
#[derive(Clone, Debug, Default)]
pub(crate) struct Standing {
    /// Which of the models.
    pub(crate) model: usize,
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
    /// Opens or makes the file that holds the models at `own`.
    pub(crate) fn open(
        path: &Path,
        models: &Models,
        own: Vec<usize>,
        mode: Mode,
    ) -> Result<File, Error> {
        let connection = Connection::open(path)?;
        connection.execute_batch(match mode {
            // A commit may look at every page that is cached (where two changed places), and the operating system
            // keeps them too: so few are. The log is copied long before it has so many pages.
            Mode::Serving => {
                "PRAGMA journal_mode = wal; PRAGMA synchronous = normal; PRAGMA wal_autocheckpoint = 16000; PRAGMA cache_size = -8192;"
            }
            Mode::Filling => {
                "PRAGMA page_size = 8192; PRAGMA journal_mode = off; PRAGMA synchronous = off; PRAGMA locking_mode = exclusive; PRAGMA cache_size = -65536;"
            }
        })?;
        let mut file = File::prepare(connection, models, own)?;
        if mode == Mode::Serving {
            file.checkpointer = Some(Checkpointer::start(path, "views")?);
        }
        Ok(file)
    }

    /// A file in memory that holds all models.
    pub(crate) fn in_memory(models: &Models, own: Vec<usize>) -> Result<File, Error> {
        File::prepare(Connection::open_in_memory()?, models, own)
    }

    fn prepare(connection: Connection, models: &Models, own: Vec<usize>) -> Result<File, Error> {
        connection.busy_timeout(std::time::Duration::from_secs(5))?;
        connection.set_prepared_statement_cache_capacity(256);
        connection.execute_batch("PRAGMA temp_store = memory;")?;
        let transaction = connection.unchecked_transaction()?;
        transaction.execute_batch(include_str!("../../../migrations/views/checkpoint.sql"))?;
        let mut standings = Vec::with_capacity(own.len());
        for index in own {
            let model = &models[index];
            let known = transaction
                .query_row(
                    "SELECT position FROM checkpoint WHERE model = ?1",
                    [model.name()],
                    |row| row.get::<_, u64>(0),
                )
                .optional()?;
            if known.is_none() {
                transaction.execute_batch(model.schema())?;
                transaction.execute(
                    "INSERT INTO checkpoint (model, position) VALUES (?1, 0)",
                    [model.name()],
                )?;
            }
            let position = Position(known.unwrap_or(0));
            standings.push(Standing { model: index, position, stopped: None });
        }
        // Which of them stop is found out again: the repair may be this very build.
        transaction
            .execute("UPDATE checkpoint SET stopped = NULL WHERE stopped IS NOT NULL", [])?;
        transaction.commit()?;
        let listeners = Listeners::new(models);
        Ok(File { connection, models: models.clone(), listeners, standings, checkpointer: None })
    }

    /// The position that every model which is not stopped has taken in.
    pub(crate) fn position(&self) -> Position {
        reached(&self.standings)
    }

    /// Takes a batch in, which follows on what was taken in before. All of it or, where that fails,
    /// nothing: the same batch is then to be given again.
    ///
    /// # Errors
    /// The file failed.
    pub(crate) fn apply(&mut self, events: &[Arc<RecordedEvent>]) -> Result<(), Error> {
        let Some(last) = events.last() else { return Ok(()) };
        // Until the commit nothing is taken in: a full disk may still throw it all away.
        let mut standings = self.standings.clone();
        let listening = self.listeners.of(events);
        loop {
            let transaction = self.connection.unchecked_transaction()?;
            let taken_in =
                take_in(&Writer::new(&transaction), &self.models, &standings, events, &listening);
            let taken_in = match taken_in {
                Ok(taken_in) => taken_in,
                // All of it is taken back, and done once more up to what that model cannot take in.
                Err(Unfilled::Poisoned(poisoned)) => {
                    for standing in standings.iter_mut().filter(|it| it.model == poisoned.model) {
                        standing.stopped = poisoned.stopped.clone();
                    }
                    continue;
                }
                Err(Unfilled::Failed(error)) => return Err(error),
            };
            for (standing, before) in taken_in.iter().zip(&self.standings) {
                if standing.stopped != before.stopped {
                    save(&transaction, self.models[standing.model].as_ref(), standing)?;
                }
            }
            transaction
                .prepare_cached(
                    "UPDATE checkpoint SET position = max(position, ?1) WHERE stopped IS NULL",
                )?
                .execute([last.position.0])?;
            transaction.commit()?;
            self.standings = taken_in;
            if let Some(checkpointer) = &mut self.checkpointer {
                checkpointer.count(events.len());
            }
            return Ok(());
        }
    }

    /// Fills a file that nobody reads yet with batches as they come, and then makes the indexes that
    /// only readers use. There is no way back from an event that a model cannot take in: see
    /// [`Unfilled::Poisoned`].
    ///
    /// A model in `known` stops where it says.
    pub(crate) fn fill(
        mut self,
        batches: impl Iterator<Item = Arc<[Arc<RecordedEvent>]>>,
        known: &[Standing],
    ) -> Result<(), Unfilled> {
        for standing in &mut self.standings {
            let stop = known.iter().find(|stop| stop.model == standing.model);
            standing.stopped = stop.and_then(|stop| stop.stopped.clone());
        }
        let put_off = self.put_off_indexes()?;
        let writer = Writer::new(&self.connection);
        for (number, batch) in batches.enumerate() {
            if number % BATCHES == 0 {
                writer.execute_batch("BEGIN")?;
            }
            let listening = self.listeners.of(&batch);
            for standing in &mut self.standings {
                fill_one(&writer, &self.models, standing, &batch, &listening)?;
            }
            if number % BATCHES == BATCHES - 1 {
                writer.execute_batch("COMMIT")?;
            }
        }
        drop(writer);
        for standing in &self.standings {
            save(&self.connection, self.models[standing.model].as_ref(), standing)?;
        }
        if !self.connection.is_autocommit() {
            self.connection.execute_batch("COMMIT")?;
        }
        self.make_indexes(&put_off)?;
        Ok(())
    }

    /// Takes away the indexes that only readers use, and answers the SQL that makes them again.
    fn put_off_indexes(&self) -> Result<Vec<String>, Error> {
        let mut put_off = Vec::new();
        let own = self.standings.iter().map(|standing| &self.models[standing.model]);
        for name in own.flat_map(|model| model.reader_indexes()) {
            let sql = "SELECT sql FROM sqlite_schema WHERE type = 'index' AND name = ?1";
            put_off.push(self.connection.query_row(sql, [name], |row| row.get(0))?);
            self.connection.execute_batch(&format!("DROP INDEX {name}"))?;
        }
        Ok(put_off)
    }

    /// Makes indexes that were put off: the table read where the system has it in memory, and the keys sorted in
    /// pieces that fit the processor's cache, by a second thread, and merged.
    fn make_indexes(&self, put_off: &[String]) -> Result<(), Error> {
        self.connection.execute_batch(
            "PRAGMA temp_store = default; PRAGMA threads = 2; PRAGMA cache_size = -4096; PRAGMA mmap_size = 2147418112;",
        )?;
        put_off.iter().try_for_each(|sql| self.connection.execute_batch(sql))?;
        Ok(())
    }
}

/// How many batches one transaction holds while a file is filled: a page that many of them touch is
/// written once.
const BATCHES: usize = 64;

/// Why a file could not be filled.
pub(crate) enum Unfilled {
    /// A model cannot take an event in. The file holds half of that event: it must be filled anew,
    /// with this model stopping before.
    Poisoned(Standing),
    /// File or log failed.
    Failed(Error),
}

impl<E: Into<Error>> From<E> for Unfilled {
    fn from(error: E) -> Self {
        Unfilled::Failed(error.into())
    }
}

/// The position that every model which is not stopped has taken in.
pub(crate) fn reached(standings: &[Standing]) -> Position {
    let running = standings.iter().filter(|standing| standing.stopped.is_none());
    running.map(|standing| standing.position).min().unwrap_or_else(|| {
        standings.iter().map(|standing| standing.position).max().unwrap_or_default()
    })
}

/// Lets models take a batch in, and answers where they stand then.
fn take_in(
    db: &Writer<'_>,
    models: &Models,
    standings: &[Standing],
    events: &[Arc<RecordedEvent>],
    listening: &[u64],
) -> Result<Vec<Standing>, Unfilled> {
    let mut standings = standings.to_vec();
    for standing in &mut standings {
        fill_one(db, models, standing, events, listening)?;
    }
    Ok(standings)
}

/// Lets one model take a batch in, up to where it stops, without a way back. `listening` is what
/// [`Listeners::of`] answers.
fn fill_one(
    db: &Writer<'_>,
    models: &Models,
    standing: &mut Standing,
    events: &[Arc<RecordedEvent>],
    listening: &[u64],
) -> Result<(), Unfilled> {
    let end = standing.stopped.as_ref().map_or(Position(u64::MAX), |stop| Position(stop.position));
    let events = &events[..events.partition_point(|event| event.position < end)];
    let Some(last) = events.last() else { return Ok(()) };
    let model = models[standing.model].as_ref();
    let mut own = events.iter().enumerate().filter(|(index, event)| {
        listening[*index] & (1 << standing.model) != 0 && event.position > standing.position
    });
    let taken_in =
        own.try_for_each(|(index, event)| model.apply(db, event).map_err(|error| (index, error)));
    if let Err((index, error)) = taken_in {
        if error.is_passing() {
            return Err(error.into());
        }
        stop(model, standing, events[..index].last(), &events[index], &error);
        return Err(Unfilled::Poisoned(standing.clone()));
    }
    standing.position = standing.position.max(last.position);
    Ok(())
}

/// Which models listen to the streams of a category: a bit for each.
struct Listeners {
    to_all: u64,
    by_category: HashMap<&'static str, u64, foldhash::fast::RandomState>,
}

impl Listeners {
    fn new(models: &Models) -> Listeners {
        let mut listeners = Listeners { to_all: 0, by_category: HashMap::default() };
        for (index, model) in models.iter().enumerate() {
            let bit = 1 << index;
            match model.categories() {
                [] => listeners.to_all |= bit,
                own => {
                    own.iter().for_each(|it| *listeners.by_category.entry(it).or_default() |= bit)
                }
            }
        }
        listeners
    }

    /// Those of each event of a batch, which are looked up once for all models.
    fn of(&self, events: &[Arc<RecordedEvent>]) -> Vec<u64> {
        let own = |event: &Arc<RecordedEvent>| self.by_category.get(event.stream.category());
        events.iter().map(|event| self.to_all | own(event).copied().unwrap_or_default()).collect()
    }
}

fn stop(
    model: &dyn ReadModel,
    standing: &mut Standing,
    before: Option<&Arc<RecordedEvent>>,
    event: &RecordedEvent,
    error: &Error,
) {
    if let Some(before) = before {
        standing.position = standing.position.max(before.position);
    }
    let error = crate::error::chain(error);
    tracing::error!(
        model = model.name(),
        position = event.position.0,
        event_type = event.event_type,
        error,
        "read model stopped"
    );
    standing.stopped =
        Some(Stopped { position: event.position.0, event_type: event.event_type.clone(), error });
}

fn save(db: &Connection, model: &dyn ReadModel, standing: &Standing) -> Result<(), Error> {
    let stopped =
        standing.stopped.as_ref().map(|stopped| format!("{}: {}", stopped.position, stopped.error));
    db.prepare_cached("UPDATE checkpoint SET position = ?2, stopped = ?3 WHERE model = ?1")?
        .execute(params![model.name(), standing.position.0, stopped])?;
    Ok(())
}

/// Every row of every table, as text, in a fixed order: two files with the same dump give the same
/// answers.
///
/// # Errors
/// The file cannot be read.
pub(crate) fn dump(db: &Connection) -> Result<String, Error> {
    use std::fmt::Write;
    let mut text = String::new();
    let mut tables = db.prepare(
        "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite_%' ORDER BY name",
    )?;
    let tables =
        tables.query_map([], |row| row.get::<_, String>(0))?.collect::<Result<Vec<_>, _>>()?;
    for table in tables {
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

#[cfg(test)]
mod tests;
