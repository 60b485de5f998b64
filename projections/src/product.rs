//! Products (workspaces) as they are read.

use domain::Description;
use domain::product::ProductEvent;
use eventlog::RecordedEvent;
use rusqlite::{Connection, OptionalExtension, Row, params};
use uuid::Uuid;

use crate::columns::id;
use crate::engine::{ReadModel, Writer, stored_time};
use crate::listing::Query;
use crate::{Error, Listing, Said, SealedField, Window, decode};

/// A product: a workspace inside an organization.
#[derive(Clone, Debug, PartialEq)]
pub struct Product {
    /// Its id.
    pub id: Uuid,
    /// Its name.
    pub name: String,
    /// What it is for.
    pub description: Option<Said>,
    /// The knowledge base that it was born with.
    pub default_knowledge_base_id: Uuid,
    /// So many days after it was deleted, a file is erased.
    pub deleted_files_days: Option<u32>,
    /// When it was made.
    pub created_at: String,
    /// When it was last changed.
    pub updated_at: String,
    /// The tenant; a row of another one is nobody's business.
    pub organization: Uuid,
    /// What its `ETag` says.
    pub sequence: u64,
}

/// The read model of products.
pub struct Products;

impl ReadModel for Products {
    fn name(&self) -> &'static str {
        "product"
    }

    fn version(&self) -> u32 {
        4
    }

    fn schema(&self) -> &'static str {
        include_str!("../../migrations/views/product.sql")
    }

    fn categories(&self) -> &'static [&'static str] {
        &["product"]
    }

    fn apply(&self, db: &Writer<'_>, event: &RecordedEvent) -> Result<(), Error> {
        let (product, at) = (event.stream.id(), stored_time(event.time));
        match decode(event)? {
            ProductEvent::Created { name, description, knowledge_base } => {
                db.prepare_cached(
                    "INSERT INTO product VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?7, ?8, NULL)",
                )?
                .execute(params![
                    product,
                    event.position.0,
                    event.organization.to_string(),
                    name.as_str(),
                    in_the_clear(description.as_ref()),
                    knowledge_base.to_string(),
                    at,
                    event.sequence,
                ])?;
            }
            ProductEvent::Changed { name, description } => {
                db.prepare_cached(
                    "UPDATE product SET name = coalesce(?2, name), description = nullif(coalesce(?3, description), ?6),
                     updated_at = ?4, sequence = ?5 WHERE id = ?1",
                )?
                .execute(params![
                    product,
                    name.as_ref().map(|text| text.as_str()),
                    description.as_ref().map(Said::clear),
                    at,
                    event.sequence,
                    Said::NOTHING,
                ])?;
            }
            ProductEvent::Described { description } => {
                let said = description
                    .map(|text| Said::Sealed(SealedField::new(&event.event_type, &text)));
                db.prepare_cached(
                    "UPDATE product SET description = ?2, updated_at = ?3, sequence = ?4 WHERE id = ?1",
                )?
                .execute(params![product, said, at, event.sequence])?;
            }
            ProductEvent::RetentionSet { deleted_files_days } => {
                db.prepare_cached(
                    "UPDATE product SET deleted_files_days = ?2, updated_at = ?3, sequence = ?4 WHERE id = ?1",
                )?
                .execute(params![product, deleted_files_days, at, event.sequence])?;
            }
            ProductEvent::Deleted {} => {
                db.prepare_cached("DELETE FROM product WHERE id = ?1")?.execute([product])?;
                db.prepare_cached("INSERT OR IGNORE INTO deleted_product VALUES (?1)")?
                    .execute([product])?;
            }
            ProductEvent::Erased {} => {
                db.prepare_cached("DELETE FROM deleted_product WHERE id = ?1")?
                    .execute([product])?;
            }
        }
        Ok(())
    }
}

/// What an event said of a thing in the clear; nothing where that is empty.
pub(crate) fn in_the_clear(description: Option<&Description>) -> Option<Said> {
    description.filter(|text| !text.as_str().is_empty()).map(Said::clear)
}

const COLUMNS: &str = "id, organization, name, description, knowledge_base, created_at, updated_at, sequence, \
                       deleted_files_days";

fn read(row: &Row<'_>) -> rusqlite::Result<Product> {
    Ok(Product {
        id: id(row, 0)?,
        organization: id(row, 1)?,
        name: row.get(2)?,
        description: row.get(3)?,
        default_knowledge_base_id: id(row, 4)?,
        created_at: row.get(5)?,
        updated_at: row.get(6)?,
        sequence: row.get(7)?,
        deleted_files_days: row.get(8)?,
    })
}

/// A product by its id.
///
/// # Errors
/// The file cannot be read.
pub fn get(db: &Connection, product: Uuid) -> Result<Option<Product>, Error> {
    let sql = format!("SELECT {COLUMNS} FROM product WHERE id = ?1");
    Ok(db.prepare_cached(&sql)?.query_row([product.to_string()], read).optional()?)
}

/// Whether something of a deleted product is left to be erased.
///
/// # Errors
/// The file cannot be read.
pub fn is_left(db: &Connection, product: Uuid) -> Result<bool, Error> {
    let mut statement = db.prepare_cached("SELECT 1 FROM deleted_product WHERE id = ?1")?;
    Ok(statement.exists([product.to_string()])?)
}

/// What is inside a product and has not ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Inside {
    /// Its API tokens.
    pub tokens: Vec<Uuid>,
    /// Its agents that are installed, or have triggers left.
    pub agents: Vec<Uuid>,
    /// Its executions that have not ended.
    pub executions: Vec<Uuid>,
    /// Its knowledge bases.
    pub knowledge_bases: Vec<Uuid>,
    /// Its files.
    pub files: Vec<Uuid>,
    /// Its integrations, and deleted ones whose data keys are left.
    pub integrations: Vec<Uuid>,
}

/// What is inside a product and has not ended, deleted as the product may be.
///
/// # Errors
/// The file cannot be read.
pub fn inside(db: &Connection, product: Uuid) -> Result<Inside, Error> {
    let snapshot = db.unchecked_transaction()?;
    let ids = |sql: &str| -> Result<Vec<Uuid>, Error> {
        let mut statement = snapshot.prepare_cached(sql)?;
        let rows = statement.query_map([product.to_string()], |row| id(row, 0))?;
        Ok(rows.collect::<Result<_, _>>()?)
    };
    Ok(Inside {
        tokens: ids("SELECT id FROM api_token WHERE product = ?1")?,
        agents: ids("SELECT id FROM agent WHERE product = ?1 AND (uninstalled_at IS NULL OR EXISTS
               (SELECT 1 FROM agent_trigger WHERE agent_trigger.agent = agent.id AND deleted_at IS NULL))")?,
        executions: ids("SELECT id FROM execution
             WHERE agent IN (SELECT unhex(replace(id, '-', '')) FROM agent WHERE product = ?1) AND ended_at IS NULL")?,
        knowledge_bases: ids("SELECT id FROM knowledge_base WHERE product = ?1")?,
        files: ids("SELECT id FROM file WHERE product = ?1")?,
        integrations: ids("SELECT id FROM integration WHERE product = ?1
             UNION ALL SELECT id FROM deleted_integration WHERE product = ?1")?,
    })
}

/// The products of an organization, newest first; or just the one that a token belongs to.
///
/// # Errors
/// The file cannot be read.
pub fn list(
    db: &Connection,
    organization: Uuid,
    only: Option<Uuid>,
    window: Window,
) -> Result<Listing<Product>, Error> {
    Query::new(COLUMNS, "product", "position")
        .and("organization = ?", organization.to_string())
        .and_if("id = ?", only.map(|product| product.to_string()))
        .list(db, window, read)
}

#[cfg(test)]
mod tests;
