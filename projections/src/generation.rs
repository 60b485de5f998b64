//! Generations as they are read: which models embed files, how far each is, and which one answers.
//!
//! The rule of this file: a file is shown as the active generation has it, and a change of that is a change of
//! every file, in one event.

use domain::generation::{EmbeddingModel, GenerationEvent, generation_id};
use eventlog::{Position, RecordedEvent};
use rusqlite::{Connection, OptionalExtension, Row, params};
use uuid::Uuid;

use crate::columns::id;
use crate::engine::{Writer, stored_time};
use crate::{Error, decode, file};

/// From how many files, the last that were embedded, it is told how fast a generation grows.
const LATEST: usize = 100;

/// A generation.
#[derive(Clone, Debug, PartialEq)]
pub struct Generation {
    /// Which weights, tokenizer and manner of use.
    pub model_revision: String,
    /// What the model is called; `None` where files were embedded by it before there were generations.
    pub model: Option<String>,
    /// Whether every file was there once.
    pub is_complete: bool,
    /// Whether it answers the searches.
    pub is_active: bool,
    /// When it was begun.
    pub begun_at: String,
    /// When every file was there.
    pub completed_at: Option<String>,
    /// When it was activated last.
    pub activated_at: Option<String>,
}

/// How much of the files is in a generation.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Extent {
    /// Files that are there.
    pub files: u64,
    /// Their chunks.
    pub chunks: u64,
    /// Files of which the model could make nothing.
    pub failed: u64,
    /// Files that are not there yet.
    pub missing: u64,
    /// Their chunks, as far as another generation tells.
    pub missing_chunks: u64,
    /// How many chunks a second came lately, where some did.
    pub rate: Option<f64>,
}

impl Extent {
    /// How many seconds it will take for what is missing, at the rate of lately.
    pub fn eta(&self) -> Option<f64> {
        match self.missing {
            0 => Some(0.0),
            _ => Some(self.missing_chunks as f64 / self.rate?),
        }
    }
}

/// What a model made of a file.
pub(crate) struct Embedding<'a> {
    pub(crate) artifact: &'a str,
    pub(crate) chunks: u32,
    pub(crate) characters: u64,
    pub(crate) tokens: u64,
}

pub(crate) fn apply(db: &Writer<'_>, event: &RecordedEvent) -> Result<(), Error> {
    let at = stored_time(event.time);
    let revision = || {
        let sql = "SELECT model_revision FROM generation WHERE stream = ?1";
        let known = db.prepare_cached(sql)?.query_row([event.stream.id()], |row| row.get(0));
        known.optional()?.ok_or_else(|| Error::Unfit("a generation is begun first".into()))
    };
    match decode(event)? {
        GenerationEvent::Begun(EmbeddingModel { model, model_revision }) => {
            db.prepare_cached(
                "INSERT INTO generation (model_revision, stream, position, model, is_complete, begun_at)
                 VALUES (?1, ?2, ?3, ?4, 0, ?5) ON CONFLICT DO UPDATE SET model = excluded.model",
            )?
            .execute(params![model_revision, event.stream.id(), event.position.0, model, at])?;
            db.prepare_cached("DELETE FROM removed_generation WHERE model_revision = ?1")?
                .execute([&model_revision])?;
        }
        GenerationEvent::Completed { .. } => {
            let revision: String = revision()?;
            db.prepare_cached(
                "UPDATE generation SET is_complete = 1, completed_at = ?2 WHERE model_revision = ?1",
            )?
            .execute([&revision, &at])?;
        }
        GenerationEvent::Activated {} => {
            let revision: String = revision()?;
            activate(db, &revision, &at, event.position)?;
        }
        GenerationEvent::Removed {} => {
            let revision: String = revision()?;
            for sql in [
                "DELETE FROM generation WHERE model_revision = ?1",
                "DELETE FROM embedding WHERE model_revision = ?1",
            ] {
                db.prepare_cached(sql)?.execute([&revision])?;
            }
            db.prepare_cached("INSERT OR REPLACE INTO removed_generation VALUES (?1, ?2)")?
                .execute([&revision, event.stream.id()])?;
        }
        GenerationEvent::Cleared {} => {
            let sql = "DELETE FROM removed_generation WHERE stream = ?1 RETURNING model_revision";
            let cleared = db
                .prepare_cached(sql)?
                .query_row([event.stream.id()], |row| row.get::<_, String>(0))
                .optional()?;
            if let Some(revision) = cleared {
                file::forget_artifacts_by(db, &revision)?;
                // Of a node that took it for the active one still.
                db.prepare_cached("DELETE FROM embedding WHERE model_revision = ?1")?
                    .execute([&revision])?;
            }
        }
    }
    Ok(())
}

/// The model of the first file of all is the active generation until another one is activated.
pub(crate) fn first(
    db: &Writer<'_>,
    event: &RecordedEvent,
    model_revision: &str,
) -> Result<(), Error> {
    if active(db)?.is_some() {
        return Ok(());
    }
    let at = stored_time(event.time);
    let stream = generation_id(model_revision).to_string();
    db.prepare_cached(
        "INSERT INTO generation (model_revision, stream, position, is_complete, begun_at, activated_position)
         VALUES (?1, ?2, ?3, 1, ?4, ?3) ON CONFLICT DO UPDATE SET is_complete = 1, activated_position = ?3",
    )?
    .execute(params![model_revision, stream, event.position.0, at])?;
    Ok(())
}

/// Takes what a model made of a file, or why it could make nothing of it.
pub(crate) fn add(
    db: &Writer<'_>,
    event: &RecordedEvent,
    model_revision: &str,
    made: Result<Embedding<'_>, (&str, &str)>,
) -> Result<(), Error> {
    let file = event.stream.id();
    let (artifact, [chunks, characters, tokens], failure) = match made {
        Ok(Embedding { artifact, chunks, characters, tokens }) => {
            (Some(artifact), [u64::from(chunks), characters, tokens], None)
        }
        Err(failure) => (None, [0; 3], Some(failure)),
    };
    let (code, message) = failure.unzip();
    db.prepare_cached(
        "INSERT OR REPLACE INTO embedding VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)",
    )?
    .execute(params![
        file,
        model_revision,
        artifact,
        chunks,
        characters,
        tokens,
        code,
        message,
        stored_time(event.time),
        event.position.0,
    ])?;
    if let Some(artifact) = artifact {
        keep_name(db, event, artifact)?;
    }
    if active(db)?.as_deref() == Some(model_revision) {
        // As SHOW and SHOW_STATUS do for all files.
        db.prepare_cached(
            "UPDATE file SET progress = 100, model_revision = ?2, artifact = ?3, chunks = ?4, characters = ?5, tokens = ?6,
             error_code = ?7, error_message = ?8, ready_position = ?9, status = iif(?3 IS NULL, 'failed', 'ready')
             WHERE id = ?1",
        )?
        .execute(params![
            file,
            model_revision,
            artifact,
            chunks,
            characters,
            tokens,
            code,
            message,
            artifact.map(|_| event.position.0),
        ])?;
    }
    Ok(())
}

/// Remembers that there is an artifact of this name.
pub(crate) fn keep_name(
    db: &Writer<'_>,
    event: &RecordedEvent,
    artifact: &str,
) -> Result<(), Error> {
    let product = event.product.map(|product| product.to_string());
    db.prepare_cached("INSERT OR IGNORE INTO artifact VALUES (?1, ?2)")?
        .execute(params![product, artifact])?;
    Ok(())
}

/// Shows files as a model has them. Both tables are walked in the order of the files.
const SHOW: &str = "
    UPDATE file SET progress = 100,
        (chunks, characters, tokens, model_revision, artifact, error_code, error_message, ready_position) =
        (SELECT chunks, characters, tokens, model_revision, artifact, error_code, error_message,
            CASE WHEN artifact IS NULL THEN NULL ELSE position END
         FROM embedding WHERE embedding.file = file.id AND embedding.model_revision = ?1)
    WHERE EXISTS (SELECT 1 FROM embedding WHERE embedding.file = file.id AND embedding.model_revision = ?1)";

/// Shows which of them are ready: apart, since most are before and after, and the column is in an index.
const SHOW_STATUS: &str = "
    UPDATE file SET status = CASE WHEN embedding.artifact IS NULL THEN 'failed' ELSE 'ready' END
    FROM embedding WHERE embedding.file = file.id AND embedding.model_revision = ?1
    AND file.status <> CASE WHEN embedding.artifact IS NULL THEN 'failed' ELSE 'ready' END";

fn activate(
    db: &Writer<'_>,
    model_revision: &str,
    at: &str,
    position: Position,
) -> Result<(), Error> {
    db.prepare_cached(
        "UPDATE generation SET activated_at = ?2, activated_position = ?3 WHERE model_revision = ?1",
    )?
    .execute(params![model_revision, at, position.0])?;
    for show in [SHOW, SHOW_STATUS] {
        db.prepare_cached(show)?.execute([model_revision])?;
    }
    // What other models have and this one does not, it will have soon.
    db.prepare_cached(
        "UPDATE file SET status = 'processing', progress = 0, artifact = NULL, ready_position = NULL
         WHERE is_indexed AND id NOT IN (SELECT file FROM embedding WHERE model_revision = ?1)",
    )?
    .execute([model_revision])?;
    Ok(())
}

/// The model of the generation that answers the searches; `None` before the first file.
///
/// # Errors
/// The views file cannot be read.
pub fn active(db: &Connection) -> Result<Option<String>, Error> {
    // The row of the greatest position, or nulls where there is none: SQLite promises that of `max` (SELECT, 2.5, "bare
    // columns"), and sorts nothing for it.
    let mut statement = db.prepare_cached(
        "SELECT model_revision, max(activated_position) FROM generation WHERE activated_position IS NOT NULL",
    )?;
    Ok(statement.query_row([], |row| row.get(0))?)
}

/// Whether there is a generation of this model.
pub(crate) fn exists(db: &Connection, model_revision: &str) -> Result<bool, Error> {
    let mut statement = db.prepare_cached("SELECT 1 FROM generation WHERE model_revision = ?1")?;
    Ok(statement.exists([model_revision])?)
}

/// The models of all generations.
///
/// # Errors
/// The views file cannot be read.
pub fn revisions(db: &Connection) -> Result<Vec<String>, Error> {
    let mut statement =
        db.prepare_cached("SELECT model_revision FROM generation ORDER BY position")?;
    let rows = statement.query_map([], |row| row.get(0))?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// The revisions of the models whose generations are gone, while something that they made is stored.
///
/// # Errors
/// The views file cannot be read.
pub fn removed(db: &Connection) -> Result<Vec<String>, Error> {
    let mut statement = db.prepare_cached("SELECT model_revision FROM removed_generation")?;
    let rows = statement.query_map([], |row| row.get(0))?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// All generations, in the order in which they were begun.
///
/// # Errors
/// The views file cannot be read.
pub fn all(db: &Connection) -> Result<Vec<Generation>, Error> {
    let active = active(db)?;
    let mut statement = db.prepare_cached(
        "SELECT model_revision, model, is_complete, begun_at, completed_at, activated_at
         FROM generation ORDER BY position",
    )?;
    let read = |row: &Row<'_>| {
        let model_revision: String = row.get(0)?;
        Ok(Generation {
            is_active: active.as_ref() == Some(&model_revision),
            model_revision,
            model: row.get(1)?,
            is_complete: row.get(2)?,
            begun_at: row.get(3)?,
            completed_at: row.get(4)?,
            activated_at: row.get(5)?,
        })
    };
    let rows = statement.query_map([], read)?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// How much of the files is there by a model, begun or not.
///
/// # Errors
/// The views file cannot be read.
pub fn extent(db: &Connection, model_revision: &str) -> Result<Extent, Error> {
    let mut extent = db
        .prepare_cached(
            "SELECT count(artifact), sum(chunks), count(*) - count(artifact) FROM embedding WHERE model_revision = ?1",
        )?
        .query_row([model_revision], |row| {
            let chunks: Option<u64> = row.get(1)?;
            Ok(Extent {
                files: row.get(0)?,
                chunks: chunks.unwrap_or_default(),
                failed: row.get(2)?,
                ..Extent::default()
            })
        })?;
    let missing = db
        .prepare_cached(
            "SELECT count(*), sum(chunks) FROM file
             WHERE is_indexed AND id NOT IN (SELECT file FROM embedding WHERE model_revision = ?1)",
        )?
        .query_row([model_revision], |row| Ok((row.get(0)?, row.get::<_, Option<u64>>(1)?)))?;
    (extent.missing, extent.missing_chunks) = (missing.0, missing.1.unwrap_or_default());
    extent.rate = rate(db, model_revision)?;
    Ok(extent)
}

/// How many chunks a second came lately.
fn rate(db: &Connection, model_revision: &str) -> Result<Option<f64>, Error> {
    let mut statement = db.prepare_cached(
        "SELECT at, chunks FROM embedding WHERE model_revision = ?1 ORDER BY position DESC LIMIT ?2",
    )?;
    let rows = statement.query_map(params![model_revision, LATEST], |row| {
        Ok((row.get::<_, String>(0)?, row.get::<_, u64>(1)?))
    })?;
    let latest = rows.collect::<Result<Vec<_>, _>>()?;
    let (Some((to, _)), Some((from, at_first))) = (latest.first(), latest.last()) else {
        return Ok(None);
    };
    let time = |text: &str| chrono::DateTime::parse_from_rfc3339(text).ok();
    let (Some(from), Some(to)) = (time(from), time(to)) else { return Ok(None) };
    let seconds = (to - from).as_seconds_f64();
    // The time of the first one began before it was there.
    let chunks = latest.iter().map(|(_, chunks)| chunks).sum::<u64>() - at_first;
    Ok((seconds > 0.0 && chunks > 0).then(|| chunks as f64 / seconds))
}

/// Files that could be found once and that a generation lacks, with their products, in the order of their ids:
/// those behind `after`.
///
/// # Errors
/// The views file cannot be read.
pub fn missing(
    db: &Connection,
    model_revision: &str,
    after: Uuid,
    limit: usize,
) -> Result<Vec<(Uuid, Uuid)>, Error> {
    let mut statement = db.prepare_cached(
        "SELECT id, product FROM file WHERE id > ?2 AND is_indexed
         AND EXISTS (SELECT 1 FROM generation WHERE model_revision = ?1)
         AND NOT EXISTS (SELECT 1 FROM embedding WHERE file = file.id AND model_revision = ?1)
         ORDER BY id LIMIT ?3",
    )?;
    let found = statement.query_map(params![model_revision, after.to_string(), limit], |row| {
        Ok((id(row, 0)?, id(row, 1)?))
    })?;
    Ok(found.collect::<Result<_, _>>()?)
}

/// How many files of a knowledge base could be found once and are not there by this model.
///
/// # Errors
/// The views file cannot be read.
pub fn missing_in(db: &Connection, base: Uuid, model_revision: &str) -> Result<u64, Error> {
    let mut statement = db.prepare_cached(
        "SELECT count(*) FROM file WHERE knowledge_base = ?1 AND is_indexed
         AND NOT EXISTS (SELECT 1 FROM embedding WHERE file = file.id AND model_revision = ?2)",
    )?;
    Ok(statement.query_row([&base.to_string(), model_revision], |row| row.get(0))?)
}

/// The ids of the files of a knowledge base that are there by this model.
///
/// # Errors
/// The views file cannot be read.
pub fn files_in(db: &Connection, base: Uuid, model_revision: &str) -> Result<Vec<Uuid>, Error> {
    let mut statement = db.prepare_cached(
        "SELECT file.id FROM file JOIN embedding ON embedding.file = file.id
         WHERE file.knowledge_base = ?1 AND embedding.model_revision = ?2 AND embedding.artifact IS NOT NULL",
    )?;
    let rows = statement.query_map([&base.to_string(), model_revision], |row| id(row, 0))?;
    Ok(rows.collect::<Result<_, _>>()?)
}
