//! Agents as they are read. Their configuration stays sealed until the answer is written.

use domain::agent::AgentEvent;
use eventlog::RecordedEvent;
use rusqlite::{Connection, OptionalExtension, Row, params};
use serde_json::Value;
use uuid::Uuid;

use crate::columns::{id, json};
use crate::engine::{ReadModel, stored_time};
use crate::listing::Query;
use crate::{Error, Listing, SealedField, Window, decode};

/// An AI module installed in a product.
#[derive(Clone, Debug, PartialEq)]
pub struct Agent {
    /// Its id.
    pub id: Uuid,
    /// The tenant.
    pub organization: Uuid,
    /// The product.
    pub product: Uuid,
    /// What people call it.
    pub title: String,
    /// What its manifest is called.
    pub name: String,
    /// The manifest's version.
    pub version: String,
    /// The id of that version of its workflow.
    pub version_id: Uuid,
    /// The SHA-256 of the manifest's canonical form.
    pub digest: String,
    /// The manifest.
    pub manifest: Value,
    /// Its configuration, field `config` of the stream `agent-<id>`.
    pub config: Option<SealedField>,
    /// What stands in the manifest's slots.
    pub bindings: Value,
    /// The triggers that it was installed with.
    pub triggers: Value,
    /// It may be executed.
    pub enabled: bool,
    /// When it was installed.
    pub created_at: String,
    /// When it was last changed.
    pub updated_at: String,
    /// When it was uninstalled.
    pub uninstalled_at: Option<String>,
    /// What its `ETag` says.
    pub sequence: u64,
}

/// The read model of agents.
pub struct Agents;

impl ReadModel for Agents {
    fn name(&self) -> &'static str {
        "agent"
    }

    fn version(&self) -> u32 {
        1
    }

    fn schema(&self) -> &'static str {
        include_str!("../../migrations/views/agent.sql")
    }

    fn categories(&self) -> &'static [&'static str] {
        &["agent"]
    }

    fn apply(&self, db: &Connection, event: &RecordedEvent) -> Result<(), Error> {
        let (agent, at) = (event.stream.id(), stored_time(event.time));
        match decode(event)? {
            AgentEvent::Installed {
                title,
                name,
                version,
                digest,
                manifest,
                version_id,
                config,
                bindings,
                triggers,
            } => {
                let product = event
                    .product
                    .ok_or_else(|| Error::Unfit("an agent belongs to a product".into()))?;
                db.prepare_cached(
                    "INSERT INTO agent VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, 1, ?14, ?14, NULL, ?15)",
                )?
                .execute(params![
                    agent,
                    event.position.0,
                    event.organization.to_string(),
                    product.to_string(),
                    title.as_str(),
                    name,
                    version,
                    version_id.to_string(),
                    digest.as_str(),
                    serde_json::to_string(&manifest)?,
                    config.as_ref().map(|config| SealedField::new(&event.event_type, config)),
                    serde_json::to_string(&bindings)?,
                    serde_json::to_string(&triggers)?,
                    at,
                    event.sequence,
                ])?;
                return Ok(());
            }
            AgentEvent::Changed { title } => {
                db.prepare_cached("UPDATE agent SET title = coalesce(?2, title) WHERE id = ?1")?
                    .execute(params![agent, title.as_ref().map(|title| title.as_str())])?;
            }
            AgentEvent::Configured { config } => {
                db.prepare_cached("UPDATE agent SET config = ?2 WHERE id = ?1")?
                    .execute(params![agent, SealedField::new(&event.event_type, &config)])?;
            }
            AgentEvent::Enabled {} => set_enabled(db, agent, true)?,
            AgentEvent::Disabled {} => set_enabled(db, agent, false)?,
            AgentEvent::Uninstalled {} => {
                db.prepare_cached(
                    "UPDATE agent SET enabled = 0, uninstalled_at = ?2 WHERE id = ?1",
                )?
                .execute([agent, &at])?;
            }
        }
        db.prepare_cached("UPDATE agent SET updated_at = ?2, sequence = ?3 WHERE id = ?1")?
            .execute(params![agent, at, event.sequence])?;
        Ok(())
    }
}

fn set_enabled(db: &Connection, agent: &str, enabled: bool) -> Result<(), Error> {
    db.prepare_cached("UPDATE agent SET enabled = ?2 WHERE id = ?1")?
        .execute(params![agent, enabled])?;
    Ok(())
}

const COLUMNS: &str = "id, organization, product, title, name, version, version_id, digest, manifest, config, bindings, \
                       triggers, enabled, created_at, updated_at, uninstalled_at, sequence";

fn read(row: &Row<'_>) -> rusqlite::Result<Agent> {
    Ok(Agent {
        id: id(row, 0)?,
        organization: id(row, 1)?,
        product: id(row, 2)?,
        title: row.get(3)?,
        name: row.get(4)?,
        version: row.get(5)?,
        version_id: id(row, 6)?,
        digest: row.get(7)?,
        manifest: json(row, 8)?,
        config: row.get(9)?,
        bindings: json(row, 10)?,
        triggers: json(row, 11)?,
        enabled: row.get(12)?,
        created_at: row.get(13)?,
        updated_at: row.get(14)?,
        uninstalled_at: row.get(15)?,
        sequence: row.get(16)?,
    })
}

/// An agent by its id, uninstalled ones included.
///
/// # Errors
/// The file cannot be read.
pub fn get(db: &Connection, agent: Uuid) -> Result<Option<Agent>, Error> {
    let sql = format!("SELECT {COLUMNS} FROM agent WHERE id = ?1");
    Ok(db.prepare_cached(&sql)?.query_row([agent.to_string()], read).optional()?)
}

/// The agent that has a version of a workflow, uninstalled ones included.
///
/// # Errors
/// The file cannot be read.
pub fn by_version(db: &Connection, version: Uuid) -> Result<Option<Agent>, Error> {
    let sql = format!("SELECT {COLUMNS} FROM agent WHERE version_id = ?1");
    Ok(db.prepare_cached(&sql)?.query_row([version.to_string()], read).optional()?)
}

/// The row of an agent in a list: details without the documents.
#[derive(Clone, Debug, PartialEq, serde::Serialize, utoipa::ToSchema)]
pub struct AgentSummary {
    /// Its id.
    pub id: Uuid,
    /// The product.
    pub product_id: Uuid,
    /// What people call it.
    pub title: String,
    /// What its manifest is called.
    pub name: String,
    /// The manifest's version.
    pub version: String,
    /// The id of that version of its workflow.
    pub version_id: Uuid,
    /// It may be executed.
    pub enabled: bool,
    /// When it was installed.
    pub created_at: String,
    /// When it was last changed.
    pub updated_at: String,
}

/// The agents of a product, newest first.
///
/// # Errors
/// The file cannot be read.
pub fn list(
    db: &Connection,
    product: Uuid,
    window: Window,
) -> Result<Listing<AgentSummary>, Error> {
    let columns = "id, product, title, name, version, version_id, enabled, created_at, updated_at";
    let query = Query::new(columns, "agent", "position")
        .and("product = ? AND uninstalled_at IS NULL", product.to_string());
    query.list(db, window, |row| {
        Ok(AgentSummary {
            id: id(row, 0)?,
            product_id: id(row, 1)?,
            title: row.get(2)?,
            name: row.get(3)?,
            version: row.get(4)?,
            version_id: id(row, 5)?,
            enabled: row.get(6)?,
            created_at: row.get(7)?,
            updated_at: row.get(8)?,
        })
    })
}
