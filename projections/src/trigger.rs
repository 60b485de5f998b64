//! Triggers as they are read.

use domain::trigger::TriggerEvent;
use eventlog::RecordedEvent;
use rusqlite::{Connection, OptionalExtension, Row, params};
use serde::Serialize;
use serde_json::Value;
use uuid::Uuid;

use crate::columns::{id, json};
use crate::engine::{ReadModel, stored_time};
use crate::listing::Query;
use crate::{Error, Listing, Window, decode};

/// What starts an execution of an agent's version.
#[derive(Clone, Debug, PartialEq, Serialize, utoipa::ToSchema)]
pub struct Trigger {
    /// Its id.
    pub id: Uuid,
    /// Its id in the manifest.
    pub key: String,
    /// `manual`.
    #[serde(rename = "type")]
    pub kind: String,
    /// It may fire.
    pub enabled: bool,
    /// What the manifest says of it.
    pub configuration: Value,
    /// The agent.
    pub agent_id: Uuid,
    /// The version of the agent's workflow.
    pub version_id: Uuid,
    /// The product.
    pub product_id: Uuid,
    /// When it fires next; a manual trigger never does by itself.
    pub next_firing_at: Option<String>,
    /// When it last fired.
    pub last_firing_at: Option<String>,
    /// When it was made.
    pub created_at: String,
    /// When it was last changed.
    pub updated_at: String,
    /// The tenant.
    #[serde(skip)]
    pub organization: Uuid,
    /// It is gone: its row stays, so that a repeated request can be told from a late one.
    #[serde(skip)]
    pub is_deleted: bool,
    /// What its `ETag` says.
    #[serde(skip)]
    pub sequence: u64,
}

/// The read model of triggers.
pub struct Triggers;

impl ReadModel for Triggers {
    fn name(&self) -> &'static str {
        "trigger"
    }

    fn version(&self) -> u32 {
        1
    }

    fn schema(&self) -> &'static str {
        include_str!("../../migrations/views/trigger.sql")
    }

    fn categories(&self) -> &'static [&'static str] {
        &["trigger", "execution"]
    }

    fn apply(&self, db: &Connection, event: &RecordedEvent) -> Result<(), Error> {
        if event.stream.category() == "execution" {
            return fired(db, event);
        }
        let trigger = event.stream.id();
        match decode(event)? {
            TriggerEvent::Created { agent, version_id, key, kind, enabled, configuration } => {
                let product = event
                    .product
                    .ok_or_else(|| Error::Unfit("a trigger belongs to a product".into()))?;
                db.prepare_cached(
                    "INSERT INTO agent_trigger VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, NULL, ?11, ?11, NULL, ?12)",
                )?
                .execute(params![
                    trigger,
                    event.position.0,
                    event.organization.to_string(),
                    product.to_string(),
                    agent.to_string(),
                    version_id.to_string(),
                    key.as_str(),
                    kind.as_str(),
                    enabled,
                    serde_json::to_string(&configuration)?,
                    stored_time(event.time),
                    event.sequence,
                ])?;
            }
            TriggerEvent::Deleted {} => {
                db.prepare_cached(
                    "UPDATE agent_trigger SET deleted_at = ?2, sequence = ?3 WHERE id = ?1",
                )?
                .execute(params![
                    trigger,
                    stored_time(event.time),
                    event.sequence
                ])?;
            }
        }
        Ok(())
    }
}

fn fired(db: &Connection, event: &RecordedEvent) -> Result<(), Error> {
    if event.event_type != "execution.requested.v1" {
        return Ok(());
    }
    if let domain::execution::ExecutionEvent::Requested { trigger: Some(trigger), .. } =
        decode(event)?
    {
        db.prepare_cached("UPDATE agent_trigger SET last_firing_at = ?2 WHERE id = ?1")?
            .execute([trigger.to_string(), stored_time(event.time)])?;
    }
    Ok(())
}

const COLUMNS: &str = "id, organization, product, agent, version_id, key, type, enabled, configuration, \
                       last_firing_at, created_at, updated_at, sequence, deleted_at IS NOT NULL";

fn read(row: &Row<'_>) -> rusqlite::Result<Trigger> {
    Ok(Trigger {
        id: id(row, 0)?,
        organization: id(row, 1)?,
        product_id: id(row, 2)?,
        agent_id: id(row, 3)?,
        version_id: id(row, 4)?,
        key: row.get(5)?,
        kind: row.get(6)?,
        enabled: row.get(7)?,
        configuration: json(row, 8)?,
        next_firing_at: None,
        last_firing_at: row.get(9)?,
        created_at: row.get(10)?,
        updated_at: row.get(11)?,
        sequence: row.get(12)?,
        is_deleted: row.get(13)?,
    })
}

/// A trigger by its id, deleted ones included.
///
/// # Errors
/// The file cannot be read.
pub fn get(db: &Connection, trigger: Uuid) -> Result<Option<Trigger>, Error> {
    let sql = format!("SELECT {COLUMNS} FROM agent_trigger WHERE id = ?1");
    Ok(db.prepare_cached(&sql)?.query_row([trigger.to_string()], read).optional()?)
}

/// The manual triggers of a workflow version, newest first.
///
/// # Errors
/// The file cannot be read.
pub fn manual_of_version(
    db: &Connection,
    version: Uuid,
    window: Window,
) -> Result<Listing<Trigger>, Error> {
    Query::new(COLUMNS, "agent_trigger", "position")
        .and("version_id = ?", version.to_string())
        .and("deleted_at IS NULL AND type = ?", "manual")
        .list(db, window, read)
}

/// Every trigger of an agent, newest first.
///
/// # Errors
/// The file cannot be read.
pub fn of_agent(db: &Connection, agent: Uuid) -> Result<Vec<Trigger>, Error> {
    let query = Query::new(COLUMNS, "agent_trigger", "position")
        .and("deleted_at IS NULL AND agent = ?", agent.to_string());
    Ok(query.list(db, Window::first(1_000), read)?.items)
}
