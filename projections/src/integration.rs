//! Integrations as they are read. What they were told stays sealed until the answer is written.

use std::collections::BTreeMap;

use domain::Sealed;
use domain::integration::{IntegrationEvent, IntegrationKind};
use domain::integration_use::IntegrationUseEvent;
use eventlog::RecordedEvent;
use rusqlite::types::{FromSql, ValueRef};
use rusqlite::{Connection, OptionalExtension, Row, params};
use uuid::Uuid;

use crate::columns::{id, json, optional_id};
use crate::engine::{ReadModel, Writer, stored_time};
use crate::listing::Query;
use crate::{Error, Listing, SealedField, Window, decode};

/// A connection to an outside tool.
#[derive(Clone, Debug, PartialEq)]
pub struct Integration {
    /// Its id.
    pub id: Uuid,
    /// The tenant.
    pub organization: Uuid,
    /// The product, of a local one.
    pub product: Option<Uuid>,
    /// What it connects to.
    pub kind: IntegrationKind,
    /// What people call it.
    pub title: String,
    /// It may be used.
    pub enabled: bool,
    /// Its configuration, field `config` of the stream `integration-<id>`.
    pub config: SealedField,
    /// Its secrets by name, each the field `secrets/<name>`.
    pub secrets: BTreeMap<String, SealedField>,
    /// How many times the secrets were changed, and one.
    pub secrets_version: u64,
    /// When it was made.
    pub created_at: String,
    /// Who made it.
    pub created_by: String,
    /// When it was last changed.
    pub updated_at: String,
    /// When it got its data key, if that is not the first one.
    pub key_rotated_at: Option<String>,
    /// When a step last called the other side with it.
    pub last_used_at: Option<String>,
    /// What came of the last test.
    pub last_test: Option<LastTest>,
    /// What its `ETag` says.
    pub sequence: u64,
}

/// What came of a test.
#[derive(Clone, Debug, PartialEq, serde::Serialize, utoipa::ToSchema)]
pub struct LastTest {
    /// When.
    pub at: String,
    /// The other side let it in.
    pub succeeded: bool,
    /// Why not, as `unauthorized`.
    pub code: Option<String>,
}

/// The read model of integrations.
pub struct Integrations;

impl ReadModel for Integrations {
    fn name(&self) -> &'static str {
        "integration"
    }

    fn version(&self) -> u32 {
        1
    }

    fn schema(&self) -> &'static str {
        include_str!("../../migrations/views/integration.sql")
    }

    fn categories(&self) -> &'static [&'static str] {
        &["integration", "integration_use"]
    }

    fn apply(&self, db: &Writer<'_>, event: &RecordedEvent) -> Result<(), Error> {
        if event.stream.category() == "integration_use" {
            return used(db, event);
        }
        let (integration, at) = (event.stream.id(), stored_time(event.time));
        let as_stored =
            |secrets: &BTreeMap<String, Sealed>| {
                stored(secrets.iter().map(|(name, sealed)| {
                    (name.clone(), SealedField::new(&event.event_type, sealed))
                }))
            };
        match decode(event)? {
            IntegrationEvent::Created { kind, title, key: _, config, secrets } => {
                db.prepare_cached(
                    "INSERT INTO integration (id, position, organization, product, kind, title, enabled, config, secrets,
                     secrets_version, created_at, created_by, updated_at, sequence)
                     VALUES (?1, ?2, ?3, ?4, ?5, ?6, 1, ?7, ?8, 1, ?9, ?10, ?9, ?11)",
                )?
                .execute(params![
                    integration,
                    event.position.0,
                    event.organization.to_string(),
                    event.product.map(|product| product.to_string()),
                    kind.as_str(),
                    title.as_str(),
                    SealedField::new(&event.event_type, &config),
                    as_stored(&secrets)?,
                    at,
                    event.actor,
                    event.sequence,
                ])?;
                return Ok(());
            }
            IntegrationEvent::Renamed { title } => {
                db.prepare_cached("UPDATE integration SET title = ?2 WHERE id = ?1")?
                    .execute([integration, title.as_str()])?;
            }
            IntegrationEvent::Configured { config } => {
                db.prepare_cached("UPDATE integration SET config = ?2 WHERE id = ?1")?
                    .execute(params![integration, SealedField::new(&event.event_type, &config)])?;
            }
            IntegrationEvent::SecretsChanged { secrets, removed, secrets_version } => {
                let mut known = db
                    .prepare_cached("SELECT secrets FROM integration WHERE id = ?1")?
                    .query_row([integration], |row| read_secrets(row, 0))?;
                known.retain(|name, _| !removed.contains(name));
                known.extend(secrets.iter().map(|(name, sealed)| {
                    (name.clone(), SealedField::new(&event.event_type, sealed))
                }));
                db.prepare_cached(
                    "UPDATE integration SET secrets = ?2, secrets_version = ?3 WHERE id = ?1",
                )?
                .execute(params![integration, stored(known)?, secrets_version])?;
            }
            IntegrationEvent::Enabled {} => set_enabled(db, integration, true)?,
            IntegrationEvent::Disabled {} => set_enabled(db, integration, false)?,
            IntegrationEvent::KeyRotated { key: _, config, secrets } => {
                db.prepare_cached(
                    "UPDATE integration SET config = ?2, secrets = ?3, key_rotated_at = ?4 WHERE id = ?1",
                )?
                .execute(params![
                    integration,
                    SealedField::new(&event.event_type, &config),
                    as_stored(&secrets)?,
                    at,
                ])?;
            }
            IntegrationEvent::Deleted {} => {
                db.prepare_cached("DELETE FROM integration WHERE id = ?1")?
                    .execute([integration])?;
                db.prepare_cached("INSERT OR IGNORE INTO deleted_integration VALUES (?1, ?2)")?
                    .execute(params![
                        integration,
                        event.product.map(|product| product.to_string())
                    ])?;
            }
            IntegrationEvent::Erased {} => {
                db.prepare_cached("DELETE FROM deleted_integration WHERE id = ?1")?
                    .execute([integration])?;
            }
        }
        db.prepare_cached("UPDATE integration SET updated_at = ?2, sequence = ?3 WHERE id = ?1")?
            .execute(params![integration, at, event.sequence])?;
        Ok(())
    }
}

fn set_enabled(db: &Writer<'_>, integration: &str, enabled: bool) -> Result<(), Error> {
    db.prepare_cached("UPDATE integration SET enabled = ?2 WHERE id = ?1")?
        .execute(params![integration, enabled])?;
    Ok(())
}

fn used(db: &Writer<'_>, event: &RecordedEvent) -> Result<(), Error> {
    let at = stored_time(event.time);
    match decode(event)? {
        IntegrationUseEvent::Called { integration, .. } => {
            db.prepare_cached("UPDATE integration SET last_used_at = ?2 WHERE id = ?1")?
                .execute([integration.to_string(), at])?;
        }
        IntegrationUseEvent::Tested { integration, succeeded, code, .. } => {
            db.prepare_cached(
                "UPDATE integration SET last_tested_at = ?2, last_test_succeeded = ?3, last_test_code = ?4 WHERE id = ?1",
            )?
            .execute(params![integration.to_string(), at, succeeded, code])?;
        }
    }
    Ok(())
}

/// Secrets as a column holds them: an object of sealed fields.
fn stored(secrets: impl IntoIterator<Item = (String, SealedField)>) -> Result<String, Error> {
    let texts = secrets.into_iter().map(|(name, sealed)| (name, sealed.as_column().to_owned()));
    Ok(serde_json::to_string(&texts.collect::<BTreeMap<_, _>>())?)
}

fn read_secrets(row: &Row<'_>, column: usize) -> rusqlite::Result<BTreeMap<String, SealedField>> {
    let texts: BTreeMap<String, String> = json(row, column)?;
    let read = |(name, text): (String, String)| {
        Ok((name, SealedField::column_result(ValueRef::Text(text.as_bytes()))?))
    };
    texts.into_iter().map(read).collect()
}

const COLUMNS: &str = "id, organization, product, kind, title, enabled, config, secrets, secrets_version, created_at, \
                       created_by, updated_at, key_rotated_at, last_used_at, last_tested_at, last_test_succeeded, \
                       last_test_code, sequence";

fn read(row: &Row<'_>) -> rusqlite::Result<Integration> {
    let kind: String = row.get(3)?;
    let kind = IntegrationKind::parse(&kind).ok_or_else(|| {
        rusqlite::Error::InvalidColumnType(3, "kind".to_owned(), rusqlite::types::Type::Text)
    })?;
    let last_test = match (row.get(14)?, row.get(15)?) {
        (Some(at), Some(succeeded)) => Some(LastTest { at, succeeded, code: row.get(16)? }),
        _ => None,
    };
    Ok(Integration {
        id: id(row, 0)?,
        organization: id(row, 1)?,
        product: optional_id(row, 2)?,
        kind,
        title: row.get(4)?,
        enabled: row.get(5)?,
        config: row.get(6)?,
        secrets: read_secrets(row, 7)?,
        secrets_version: row.get(8)?,
        created_at: row.get(9)?,
        created_by: row.get(10)?,
        updated_at: row.get(11)?,
        key_rotated_at: row.get(12)?,
        last_used_at: row.get(13)?,
        last_test,
        sequence: row.get(17)?,
    })
}

/// An integration by its id.
///
/// # Errors
/// The file cannot be read.
pub fn get(db: &Connection, integration: Uuid) -> Result<Option<Integration>, Error> {
    let sql = format!("SELECT {COLUMNS} FROM integration WHERE id = ?1");
    Ok(db.prepare_cached(&sql)?.query_row([integration.to_string()], read).optional()?)
}

/// Whether the data keys of a deleted integration are left.
///
/// # Errors
/// The file cannot be read.
pub fn is_left(db: &Connection, integration: Uuid) -> Result<bool, Error> {
    let mut statement = db.prepare_cached("SELECT 1 FROM deleted_integration WHERE id = ?1")?;
    Ok(statement.exists([integration.to_string()])?)
}

/// Which integrations are wanted.
#[derive(Clone, Copy, Debug)]
pub enum Reach {
    /// All of the organization.
    Organization,
    /// A product's own, and the global ones.
    Product(Uuid),
    /// A product's own.
    Local(Uuid),
}

/// Integrations, newest first.
///
/// # Errors
/// The file cannot be read.
pub fn list(
    db: &Connection,
    organization: Uuid,
    reach: Reach,
    kind: Option<IntegrationKind>,
    window: Window,
) -> Result<Listing<Integration>, Error> {
    let query = Query::new(COLUMNS, "integration", "position")
        .and("organization = ?", organization.to_string());
    let query = match reach {
        Reach::Organization => query,
        Reach::Product(product) => {
            query.and("(product IS NULL OR product = ?)", product.to_string())
        }
        Reach::Local(product) => query.and("product = ?", product.to_string()),
    };
    query.and_if("kind = ?", kind.map(IntegrationKind::as_str)).list(db, window, read)
}

/// The product's own integrations that hide the global ones of their kind, oldest first.
///
/// # Errors
/// The file cannot be read.
pub fn shadows(
    db: &Connection,
    product: Uuid,
) -> Result<BTreeMap<IntegrationKind, Vec<Uuid>>, Error> {
    let mut statement = db.prepare_cached(
        "SELECT kind, id FROM integration WHERE product = ?1 AND enabled ORDER BY position",
    )?;
    let rows = statement.query_map([product.to_string()], |row| {
        Ok((IntegrationKind::parse(&row.get::<_, String>(0)?), id(row, 1)?))
    })?;
    let mut shadows: BTreeMap<IntegrationKind, Vec<Uuid>> = BTreeMap::new();
    for row in rows {
        if let (Some(kind), id) = row? {
            shadows.entry(kind).or_default().push(id);
        }
    }
    Ok(shadows)
}

/// What an agent of a product can use, newest first: the product's own that are enabled, and those of
/// the organization whose kind the product has none of.
///
/// # Errors
/// The file cannot be read.
pub fn active(
    db: &Connection,
    organization: Uuid,
    product: Uuid,
    kind: Option<IntegrationKind>,
    window: Window,
) -> Result<Listing<Integration>, Error> {
    Query::new(COLUMNS, "integration", "position")
        .and("enabled AND organization = ?1", organization.to_string())
        .and(
            "(product = ?2 OR (product IS NULL AND kind NOT IN
               (SELECT kind FROM integration WHERE product = ?2 AND enabled)))",
            product.to_string(),
        )
        .and_if("kind = ?3", kind.map(IntegrationKind::as_str))
        .list(db, window, read)
}

#[cfg(test)]
mod tests;
