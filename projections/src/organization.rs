//! Organizations as they are read.

use domain::organization::OrganizationEvent;
use eventlog::RecordedEvent;
use rusqlite::{Connection, OptionalExtension, params};
use serde::Serialize;
use uuid::Uuid;

use crate::engine::{ReadModel, Writer, stored_time};
use crate::{Error, decode};

/// A tenant.
#[derive(Clone, Debug, PartialEq, Serialize, utoipa::ToSchema)]
pub struct Organization {
    /// Its id.
    pub id: Uuid,
    /// Its name.
    pub name: String,
    /// When it was made.
    pub created_at: String,
}

/// The read model of organizations.
pub struct Organizations;

impl ReadModel for Organizations {
    fn name(&self) -> &'static str {
        "organization"
    }

    fn version(&self) -> u32 {
        1
    }

    fn schema(&self) -> &'static str {
        include_str!("../../migrations/views/organization.sql")
    }

    fn categories(&self) -> &'static [&'static str] {
        &["organization"]
    }

    fn apply(&self, db: &Writer<'_>, event: &RecordedEvent) -> Result<(), Error> {
        match decode(event)? {
            OrganizationEvent::Created { name } => {
                db.prepare_cached("INSERT INTO organization VALUES (?1, ?2, ?3, ?4)")?.execute(
                    params![
                        event.stream.id(),
                        event.position.0,
                        name.as_str(),
                        stored_time(event.time)
                    ],
                )?;
            }
        }
        Ok(())
    }
}

/// An organization by its id.
///
/// # Errors
/// The file cannot be read.
pub fn get(db: &Connection, id: Uuid) -> Result<Option<Organization>, Error> {
    let mut statement =
        db.prepare_cached("SELECT id, name, created_at FROM organization WHERE id = ?1")?;
    Ok(statement.query_row([id.to_string()], read).optional()?)
}

/// The first organization: the one that the first start made.
///
/// # Errors
/// The file cannot be read.
pub fn first(db: &Connection) -> Result<Option<Organization>, Error> {
    let mut statement = db.prepare_cached(
        "SELECT id, name, created_at FROM organization ORDER BY position LIMIT 1",
    )?;
    Ok(statement.query_row([], read).optional()?)
}

fn read(row: &rusqlite::Row<'_>) -> rusqlite::Result<Organization> {
    Ok(Organization { id: crate::columns::id(row, 0)?, name: row.get(1)?, created_at: row.get(2)? })
}
