//! Files of knowledge bases as they are read.

use domain::file::FileEvent;
use domain::product::ProductEvent;
use eventlog::RecordedEvent;
use rusqlite::{Connection, OptionalExtension, Row, params};
use serde::Serialize;
use uuid::Uuid;

use crate::columns::{id, json};
use crate::engine::{ReadModel, Writer, stored_time};
use crate::generation::{self, Embedding};
use crate::listing::Query;
use crate::{Error, Listing, Window, decode};

/// A file of a knowledge base.
#[derive(Clone, Debug, PartialEq, Serialize, utoipa::ToSchema)]
pub struct File {
    /// Its id, made from the knowledge base and its bytes.
    pub id: Uuid,
    /// The knowledge base that it belongs to.
    pub knowledge_base_id: Uuid,
    /// The product.
    pub product_id: Uuid,
    /// Its name.
    pub file_name: String,
    /// Its media type.
    pub media_type: String,
    /// Its size in bytes.
    pub size: u64,
    /// Where it comes from.
    pub source: Option<String>,
    /// What it is about.
    pub subject: Option<String>,
    /// Its language.
    pub language: Option<String>,
    /// Free words to find it by.
    pub tags: Vec<String>,
    /// `processing`, `ready` or `failed`.
    pub status: String,
    /// How far the processing has come, 0 to 100.
    pub progress: u8,
    /// How many chunks it was cut into.
    pub chunks: u64,
    /// How many characters of text it holds.
    pub characters: u64,
    /// How many tokens of the model its text is.
    pub tokens: u64,
    /// The revision of the model that embedded it.
    pub model_revision: Option<String>,
    /// Why it could not be read.
    pub error: Option<FileError>,
    /// When it was uploaded.
    pub created_at: String,
    /// Who uploaded it.
    pub created_by: String,
    /// When it was read.
    pub processed_at: Option<String>,
    /// The tenant.
    #[serde(skip)]
    pub organization: Uuid,
    /// Where its bytes are.
    #[serde(skip)]
    pub blob: String,
    /// Where its text, chunks and vectors are.
    #[serde(skip)]
    pub artifact: Option<String>,
    /// The event that made it ready.
    #[serde(skip)]
    pub ready_position: Option<u64>,
}

/// Why a file could not be read.
#[derive(Clone, Debug, PartialEq, Serialize, utoipa::ToSchema)]
pub struct FileError {
    /// A stable name.
    pub code: String,
    /// What a person can act on.
    pub message: String,
}

impl File {
    /// The file as it is to be shown while the search index has taken the log in up to `indexed`:
    /// `ready` means that the very next search finds it.
    #[must_use]
    pub fn as_of_index(mut self, indexed: u64) -> File {
        if self.ready_position.is_some_and(|ready| ready > indexed) {
            self.status = "processing".into();
            self.progress = 99;
            self.processed_at = None;
        }
        self
    }
}

/// The read model of files.
pub struct Files;

impl ReadModel for Files {
    fn name(&self) -> &'static str {
        "file"
    }

    fn version(&self) -> u32 {
        6
    }

    fn schema(&self) -> &'static str {
        include_str!("../../migrations/views/file.sql")
    }

    fn categories(&self) -> &'static [&'static str] {
        &["file", "generation", "product"]
    }

    fn reader_indexes(&self) -> &'static [&'static str] {
        &[
            "file_of",
            "file_by_blob",
            "file_by_status",
            "embedding_by_model",
            "deleted_file_of",
            "erasing_file",
        ]
    }

    fn apply(&self, db: &Writer<'_>, event: &RecordedEvent) -> Result<(), Error> {
        match event.stream.category() {
            "product" => return product_erased(db, event),
            "generation" => return generation::apply(db, event),
            _ => {}
        }
        let (file, at) = (event.stream.id(), stored_time(event.time));
        match decode(event)? {
            FileEvent::Uploaded {
                knowledge_base,
                name,
                media_type,
                size,
                blob,
                source,
                subject,
                language,
                tags,
            } => {
                let product = event
                    .product
                    .ok_or_else(|| Error::Unfit("a file belongs to a product".into()))?;
                db.prepare_cached(
                    "INSERT OR REPLACE INTO file (id, position, organization, product, knowledge_base, name, media_type, size,
                     blob, source, subject, language, tags, status, progress, created_at, created_by)
                     VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, 'processing', 0, ?14, ?15)",
                )?
                .execute(params![
                    file,
                    event.position.0,
                    event.organization.to_string(),
                    product.to_string(),
                    knowledge_base.to_string(),
                    name.as_str(),
                    media_type,
                    size,
                    blob.name,
                    source,
                    subject,
                    language,
                    serde_json::to_string(&tags)?,
                    at,
                    event.actor,
                ])?;
                db.prepare_cached("DELETE FROM deleted_file WHERE id = ?1")?.execute([file])?;
            }
            FileEvent::IngestionStarted { .. } => {
                db.prepare_cached("UPDATE file SET progress = 0 WHERE id = ?1")?.execute([file])?;
            }
            FileEvent::IngestionProgressed { percent, .. } => {
                db.prepare_cached("UPDATE file SET progress = ?2 WHERE id = ?1")?
                    .execute(params![file, percent])?;
            }
            FileEvent::Indexed { artifact, chunks, characters, tokens, model_revision, .. } => {
                db.prepare_cached(
                    "UPDATE file SET is_indexed = 1, processed_at = ?2 WHERE id = ?1",
                )?
                .execute([file, &at])?;
                generation::first(db, event, &model_revision)?;
                let made = Embedding { artifact: &artifact, chunks, characters, tokens };
                generation::add(db, event, &model_revision, Ok(made))?;
            }
            // What was under way when its generation was removed is nobody's, and goes with its product.
            FileEvent::Embedded { model_revision, artifact, .. }
                if !generation::exists(db, &model_revision)? =>
            {
                generation::keep_name(db, event, &artifact)?;
            }
            FileEvent::EmbeddingFailed { model_revision, .. }
                if !generation::exists(db, &model_revision)? => {}
            FileEvent::Embedded { artifact, chunks, characters, tokens, model_revision } => {
                let made = Embedding { artifact: &artifact, chunks, characters, tokens };
                generation::add(db, event, &model_revision, Ok(made))?;
            }
            FileEvent::EmbeddingFailed { model_revision, code, message } => {
                generation::add(db, event, &model_revision, Err((&code, &message)))?;
            }
            FileEvent::Failed { code, message, .. } => {
                db.prepare_cached(
                    "UPDATE file SET status = 'failed', error_code = ?2, error_message = ?3, processed_at = ?4 WHERE id = ?1",
                )?
                .execute(params![file, code, message, at])?;
            }
            FileEvent::Deleted {} => {
                db.prepare_cached(
                    "INSERT INTO deleted_file SELECT id, product, ?2, ?3 FROM file WHERE id = ?1",
                )?
                .execute([file, State::Deleted.as_str(), &at])?;
                db.prepare_cached("DELETE FROM file WHERE id = ?1")?.execute([file])?;
                db.prepare_cached("DELETE FROM embedding WHERE file = ?1")?.execute([file])?;
            }
            FileEvent::ErasureRequested {} => set_state(db, file, State::Erasing)?,
            FileEvent::Erased {} => set_state(db, file, State::Erased)?,
        }
        Ok(())
    }
}

fn set_state(db: &Writer<'_>, deleted_file: &str, state: State) -> Result<(), Error> {
    db.prepare_cached("UPDATE deleted_file SET state = ?2 WHERE id = ?1")?
        .execute([deleted_file, state.as_str()])?;
    Ok(())
}

/// Nothing is left of an erased product.
fn product_erased(db: &Writer<'_>, event: &RecordedEvent) -> Result<(), Error> {
    if let ProductEvent::Erased {} = decode(event)? {
        db.prepare_cached("DELETE FROM artifact WHERE product = ?1")?
            .execute([event.stream.id()])?;
    }
    Ok(())
}

const COLUMNS: &str = "id, organization, product, knowledge_base, name, media_type, size, blob, source, subject, language, \
                       tags, status, progress, chunks, characters, tokens, model_revision, artifact, error_code, \
                       error_message, created_at, created_by, processed_at, ready_position";

fn read(row: &Row<'_>) -> rusqlite::Result<File> {
    let error = match (row.get(19)?, row.get(20)?) {
        (Some(code), Some(message)) => Some(FileError { code, message }),
        _ => None,
    };
    Ok(File {
        id: id(row, 0)?,
        organization: id(row, 1)?,
        product_id: id(row, 2)?,
        knowledge_base_id: id(row, 3)?,
        file_name: row.get(4)?,
        media_type: row.get(5)?,
        size: row.get(6)?,
        blob: row.get(7)?,
        source: row.get(8)?,
        subject: row.get(9)?,
        language: row.get(10)?,
        tags: json(row, 11)?,
        status: row.get(12)?,
        progress: row.get(13)?,
        chunks: row.get(14)?,
        characters: row.get(15)?,
        tokens: row.get(16)?,
        model_revision: row.get(17)?,
        artifact: row.get(18)?,
        error,
        created_at: row.get(21)?,
        created_by: row.get(22)?,
        processed_at: row.get(23)?,
        ready_position: row.get(24)?,
    })
}

/// A file by its id.
///
/// # Errors
/// The views file cannot be read.
pub fn get(db: &Connection, file: Uuid) -> Result<Option<File>, Error> {
    let sql = format!("SELECT {COLUMNS} FROM file WHERE id = ?1");
    Ok(db.prepare_cached(&sql)?.query_row([file.to_string()], read).optional()?)
}

/// The files of a knowledge base, newest first, as they are to be shown while the search index has
/// taken the log in up to `indexed`.
///
/// # Errors
/// The views file cannot be read.
pub fn list(
    db: &Connection,
    base: Uuid,
    status: Option<&str>,
    indexed: u64,
    window: Window,
) -> Result<Listing<File>, Error> {
    let query = Query::new(COLUMNS, "file", "position").and("knowledge_base = ?", base.to_string());
    let query = match status {
        Some("ready") => query.and("status = 'ready' AND ready_position <= ?", indexed),
        Some("processing") => query
            .and("(status = 'processing' OR (status = 'ready' AND ready_position > ?))", indexed),
        Some(other) => query.and("status = ?", other.to_owned()),
        None => query,
    };
    Ok(query.list(db, window, read)?.map(|file| file.as_of_index(indexed)))
}

/// A file that is gone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeletedFile {
    /// The product that it was of.
    pub product: Uuid,
    /// What is left of it.
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Its bytes are kept.
    Deleted,
    /// They are being removed.
    Erasing,
    /// They are removed.
    Erased,
}

impl State {
    fn as_str(self) -> &'static str {
        match self {
            State::Deleted => "deleted",
            State::Erasing => "erasing",
            State::Erased => "erased",
        }
    }
}

impl DeletedFile {
    /// Whether its bytes are removed, or soon will be.
    pub fn is_erased(&self) -> bool {
        self.state != State::Deleted
    }
}

/// What is known of a file that was deleted.
///
/// # Errors
/// The views file cannot be read.
pub fn deleted(db: &Connection, file: Uuid) -> Result<Option<DeletedFile>, Error> {
    let sql = "SELECT product, state FROM deleted_file WHERE id = ?1";
    let read = |row: &Row<'_>| {
        let state = row.get_ref(1)?.as_str()?;
        let states = [State::Deleted, State::Erasing, State::Erased];
        let state = states.into_iter().find(|known| known.as_str() == state);
        Ok(DeletedFile { product: id(row, 0)?, state: state.unwrap_or(State::Erased) })
    };
    Ok(db.prepare_cached(sql)?.query_row([file.to_string()], read).optional()?)
}

/// Whether the bytes of a file are being removed.
///
/// # Errors
/// The views file cannot be read.
pub fn is_being_erased(db: &Connection, file: Uuid) -> Result<bool, Error> {
    Ok(deleted(db, file)?.is_some_and(|known| known.state == State::Erasing))
}

/// Whether there is a file of a product with these bytes, by the name of their blob.
///
/// # Errors
/// The views file cannot be read.
pub fn is_any_with(db: &Connection, product: Uuid, blob: &str) -> Result<bool, Error> {
    let mut statement = db.prepare_cached("SELECT 1 FROM file WHERE blob = ?1 AND product = ?2")?;
    Ok(statement.exists([blob, &product.to_string()])?)
}

/// The ids of all files of a knowledge base.
///
/// # Errors
/// The views file cannot be read.
pub fn ids(db: &Connection, base: Uuid) -> Result<Vec<Uuid>, Error> {
    let mut statement =
        db.prepare_cached("SELECT id FROM file WHERE knowledge_base = ?1 ORDER BY position")?;
    let rows = statement.query_map([base.to_string()], |row| id(row, 0))?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// The ids of the files of a knowledge base that a search finds which has taken the log in up to `indexed`.
///
/// # Errors
/// The views file cannot be read.
pub fn ready_in(db: &Connection, base: Uuid, indexed: u64) -> Result<Vec<Uuid>, Error> {
    let mut statement = db.prepare_cached(
        "SELECT id FROM file WHERE knowledge_base = ?1 AND status = 'ready' AND ready_position <= ?2",
    )?;
    let rows = statement.query_map(params![base.to_string(), indexed], |row| id(row, 0))?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// The newest file of a knowledge base that has this name and was uploaded after a time, as a file's `created_at` writes it.
///
/// # Errors
/// The views file cannot be read.
pub fn newest_named(
    db: &Connection,
    base: Uuid,
    name: &str,
    after: &str,
) -> Result<Option<Uuid>, Error> {
    let mut statement = db.prepare_cached(
        "SELECT id FROM file WHERE knowledge_base = ?1 AND name = ?2 AND created_at > ?3
         ORDER BY position DESC LIMIT 1",
    )?;
    Ok(statement.query_row([&base.to_string(), name, after], |row| id(row, 0)).optional()?)
}

/// Whether there is any file in a knowledge base, deleted as that may be.
///
/// # Errors
/// The views file cannot be read.
pub fn is_any_in(db: &Connection, base: Uuid) -> Result<bool, Error> {
    let mut statement = db.prepare_cached("SELECT 1 FROM file WHERE knowledge_base = ?1")?;
    Ok(statement.exists([base.to_string()])?)
}

/// The names of the artifacts that were made of a product's files, deleted ones included.
///
/// # Errors
/// The views file cannot be read.
pub fn artifacts(db: &Connection, product: Uuid) -> Result<Vec<String>, Error> {
    let mut statement = db.prepare_cached("SELECT name FROM artifact WHERE product = ?1")?;
    let rows = statement.query_map([product.to_string()], |row| row.get(0))?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// The names of the artifacts that a model made.
///
/// # Errors
/// The views file cannot be read.
pub fn artifacts_by(db: &Connection, model_revision: &str) -> Result<Vec<String>, Error> {
    let sql = "SELECT name FROM artifact WHERE substr(name, -length(?1)) = ?1";
    let mut statement = db.prepare_cached(sql)?;
    let rows = statement.query_map([made_by(model_revision)], |row| row.get(0))?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// Forgets the names of the artifacts that a model made.
pub(crate) fn forget_artifacts_by(db: &Writer<'_>, model_revision: &str) -> Result<(), Error> {
    let sql = "DELETE FROM artifact WHERE substr(name, -length(?1)) = ?1";
    db.prepare_cached(sql)?.execute([made_by(model_revision)])?;
    Ok(())
}

/// How the names of its artifacts end.
fn made_by(model_revision: &str) -> String {
    format!("-{model_revision}")
}

/// A file as a model has it, whichever is the active one: without an artifact where that could make nothing
/// of it. `None` when it is gone, or was not embedded by that model.
///
/// # Errors
/// The views file cannot be read.
pub fn embedded(db: &Connection, file: Uuid, model_revision: &str) -> Result<Option<File>, Error> {
    let sql = format!("{} AND embedding.file = ?2", embedded_by());
    let mut statement = db.prepare_cached(&sql)?;
    Ok(statement.query_row([model_revision, &file.to_string()], read).optional()?)
}

/// Every file of which a model made something, as that has it, in the order of their ids.
///
/// # Errors
/// The views file cannot be read.
pub fn all_embedded(db: &Connection, model_revision: &str) -> Result<Vec<File>, Error> {
    let sql = format!("{} AND embedding.artifact IS NOT NULL ORDER BY file.id", embedded_by());
    let mut statement = db.prepare(&sql)?;
    let rows = statement.query_map([model_revision], read)?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// A query for files as a model has them.
fn embedded_by() -> String {
    const OF_EMBEDDING: [&str; 7] = [
        "chunks",
        "characters",
        "tokens",
        "model_revision",
        "artifact",
        "error_code",
        "error_message",
    ];
    let columns = COLUMNS.split(", ").map(|column| match column {
        "ready_position" => "embedding.position".to_owned(),
        column if OF_EMBEDDING.contains(&column) => format!("embedding.{column}"),
        column => format!("file.{column}"),
    });
    let columns = columns.collect::<Vec<_>>().join(", ");
    format!(
        "SELECT {columns} FROM embedding JOIN file ON file.id = embedding.file WHERE embedding.model_revision = ?1"
    )
}

/// The files that were not read yet, with their products, oldest first.
///
/// # Errors
/// The file cannot be read.
pub(crate) fn unread(db: &Connection) -> Result<Vec<(Uuid, Uuid)>, Error> {
    let mut statement = db.prepare(
        "SELECT id, product FROM file WHERE status = 'processing'
             AND NOT EXISTS (SELECT 1 FROM embedding WHERE file = file.id) ORDER BY position",
    )?;
    let rows = statement.query_map([], |row| Ok((id(row, 0)?, id(row, 1)?)))?;
    Ok(rows.collect::<Result<_, _>>()?)
}
