//! Knowledge bases as they are read, with how much is in them.

use domain::file::FileEvent;
use domain::knowledge_base::KnowledgeBaseEvent;
use eventlog::RecordedEvent;
use rusqlite::{Connection, OptionalExtension, Row, params};
use uuid::Uuid;

use crate::columns::id;
use crate::engine::{ReadModel, Writer, stored_time};
use crate::listing::Query;
use crate::product::in_the_clear;
use crate::{Error, Listing, Said, SealedField, Window, decode};

/// A set of files of a product, chunked and embedded for semantic search.
#[derive(Clone, Debug, PartialEq)]
pub struct KnowledgeBase {
    /// Its id.
    pub id: Uuid,
    /// The product that it belongs to.
    pub product_id: Uuid,
    /// Its name.
    pub name: String,
    /// What it is for.
    pub description: Option<Said>,
    /// Its product was born with it.
    pub is_default: bool,
    /// How many files it holds.
    pub files: u64,
    /// When it was made.
    pub created_at: String,
    /// When it was last changed.
    pub updated_at: String,
    /// The tenant.
    pub organization: Uuid,
    /// What its `ETag` says.
    pub sequence: u64,
}

/// The read model of knowledge bases.
pub struct KnowledgeBases;

impl ReadModel for KnowledgeBases {
    fn name(&self) -> &'static str {
        "knowledge_base"
    }

    fn version(&self) -> u32 {
        3
    }

    fn schema(&self) -> &'static str {
        include_str!("../../migrations/views/knowledge_base.sql")
    }

    fn categories(&self) -> &'static [&'static str] {
        &["knowledge_base", "file"]
    }

    fn apply(&self, db: &Writer<'_>, event: &RecordedEvent) -> Result<(), Error> {
        if event.stream.category() == "file" {
            return count_files(db, event);
        }
        let (base, at) = (event.stream.id(), stored_time(event.time));
        match decode(event)? {
            KnowledgeBaseEvent::Created { name, description, default } => {
                let product = event
                    .product
                    .ok_or_else(|| Error::Unfit("a knowledge base belongs to a product".into()))?;
                db.prepare_cached(
                    "INSERT INTO knowledge_base VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?8, ?9, 0)",
                )?
                .execute(params![
                    base,
                    event.position.0,
                    event.organization.to_string(),
                    product.to_string(),
                    name.as_str(),
                    in_the_clear(description.as_ref()),
                    default,
                    at,
                    event.sequence,
                ])?;
            }
            KnowledgeBaseEvent::Changed { name, description } => {
                db.prepare_cached(
                    "UPDATE knowledge_base SET name = coalesce(?2, name), description = nullif(coalesce(?3, description), ?6),
                     updated_at = ?4, sequence = ?5 WHERE id = ?1",
                )?
                .execute(params![
                    base,
                    name.as_ref().map(|text| text.as_str()),
                    description.as_ref().map(Said::clear),
                    at,
                    event.sequence,
                    Said::NOTHING,
                ])?;
            }
            KnowledgeBaseEvent::Described { description } => {
                let said = description
                    .map(|text| Said::Sealed(SealedField::new(&event.event_type, &text)));
                db.prepare_cached(
                    "UPDATE knowledge_base SET description = ?2, updated_at = ?3, sequence = ?4 WHERE id = ?1",
                )?
                .execute(params![base, said, at, event.sequence])?;
            }
            KnowledgeBaseEvent::Deleted {} => {
                db.prepare_cached("DELETE FROM knowledge_base WHERE id = ?1")?.execute([base])?;
            }
        }
        Ok(())
    }
}

fn count_files(db: &Writer<'_>, event: &RecordedEvent) -> Result<(), Error> {
    match event.event_type.as_str() {
        "file.uploaded.v1" => {
            if let FileEvent::Uploaded { knowledge_base, .. } = decode(event)? {
                db.prepare_cached("UPDATE knowledge_base SET files = files + 1 WHERE id = ?1")?
                    .execute([knowledge_base.to_string()])?;
                db.prepare_cached("INSERT OR REPLACE INTO knowledge_base_file VALUES (?1, ?2)")?
                    .execute([event.stream.id(), &knowledge_base.to_string()])?;
            }
        }
        "file.deleted.v1" => {
            db.prepare_cached(
                "UPDATE knowledge_base SET files = files - 1
                 WHERE id = (SELECT knowledge_base FROM knowledge_base_file WHERE file = ?1)",
            )?
            .execute([event.stream.id()])?;
            db.prepare_cached("DELETE FROM knowledge_base_file WHERE file = ?1")?
                .execute([event.stream.id()])?;
        }
        _ => {}
    }
    Ok(())
}

const COLUMNS: &str = "id, organization, product, name, description, is_default, files, created_at, updated_at, sequence";

fn read(row: &Row<'_>) -> rusqlite::Result<KnowledgeBase> {
    Ok(KnowledgeBase {
        id: id(row, 0)?,
        organization: id(row, 1)?,
        product_id: id(row, 2)?,
        name: row.get(3)?,
        description: row.get(4)?,
        is_default: row.get(5)?,
        files: row.get(6)?,
        created_at: row.get(7)?,
        updated_at: row.get(8)?,
        sequence: row.get(9)?,
    })
}

/// A knowledge base by its id.
///
/// # Errors
/// The file cannot be read.
pub fn get(db: &Connection, base: Uuid) -> Result<Option<KnowledgeBase>, Error> {
    let sql = format!("SELECT {COLUMNS} FROM knowledge_base WHERE id = ?1");
    Ok(db.prepare_cached(&sql)?.query_row([base.to_string()], read).optional()?)
}

/// The knowledge bases of a product, newest first.
///
/// # Errors
/// The file cannot be read.
pub fn list(
    db: &Connection,
    product: Uuid,
    window: Window,
) -> Result<Listing<KnowledgeBase>, Error> {
    Query::new(COLUMNS, "knowledge_base", "position")
        .and("product = ?", product.to_string())
        .list(db, window, read)
}

/// The ids of all knowledge bases of a product.
///
/// # Errors
/// The file cannot be read.
pub fn ids(db: &Connection, product: Uuid) -> Result<Vec<Uuid>, Error> {
    let mut statement =
        db.prepare_cached("SELECT id FROM knowledge_base WHERE product = ?1 ORDER BY position")?;
    let rows = statement.query_map([product.to_string()], |row| id(row, 0))?;
    Ok(rows.collect::<Result<_, _>>()?)
}
