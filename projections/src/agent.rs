//! Agents and their versions as they are read. Their configuration stays sealed until the answer is
//! written.

use domain::agent::{AgentEvent, AgentTrigger};
use domain::manifest::secret_config_paths;
use domain::{Digest, Object};
use eventlog::RecordedEvent;
use rusqlite::{Connection, OptionalExtension, Row, params};
use serde_json::Value;
use uuid::Uuid;

use crate::columns::{id, json};
use crate::engine::{ReadModel, Writer, stored_time};
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
    /// The version of the active manifest.
    pub version: String,
    /// The id of that version of its workflow.
    pub version_id: Uuid,
    /// The active manifest.
    pub manifest: Value,
    /// Its configuration, field `config` of the stream `agent-<id>`.
    pub config: Option<SealedField>,
    /// What stands in the slots of its versions.
    pub bindings: Value,
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

/// A version of an agent's workflow.
#[derive(Clone, Debug, PartialEq)]
pub struct Version {
    /// Its id.
    pub id: Uuid,
    /// The agent.
    pub agent: Uuid,
    /// The manifest's version.
    pub version: String,
    /// The SHA-256 of the manifest's canonical form.
    pub digest: String,
    /// It is the one that runs.
    pub active: bool,
    /// Who published it, as `user:<uuid>`.
    pub created_by: String,
    /// When it was published.
    pub created_at: String,
}

/// What a version of an agent holds.
#[derive(Clone, Debug, PartialEq)]
pub struct VersionContent {
    /// The manifest.
    pub manifest: Value,
    /// The triggers that it names, as they were made.
    pub triggers: Vec<AgentTrigger>,
}

/// The read model of agents.
pub struct Agents;

impl ReadModel for Agents {
    fn name(&self) -> &'static str {
        "agent"
    }

    fn version(&self) -> u32 {
        2
    }

    fn schema(&self) -> &'static str {
        include_str!("../../migrations/views/agent.sql")
    }

    fn categories(&self) -> &'static [&'static str] {
        &["agent"]
    }

    fn apply(&self, db: &Writer<'_>, event: &RecordedEvent) -> Result<(), Error> {
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
                    "INSERT INTO agent VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, 1, ?11, ?11, NULL, ?12)",
                )?
                .execute(params![
                    agent,
                    event.position.0,
                    event.organization.to_string(),
                    product.to_string(),
                    title.as_str(),
                    name,
                    version_id.to_string(),
                    version,
                    config.as_ref().map(|config| SealedField::new(&event.event_type, config)),
                    serde_json::to_string(&bindings)?,
                    at,
                    event.sequence,
                ])?;
                let digest = digest.as_str();
                return add_version(db, event, version_id, &version, digest, &manifest, &triggers);
            }
            AgentEvent::VersionPublished {
                version_id,
                name: _,
                version,
                digest,
                manifest,
                triggers,
            } => {
                let digest = digest.as_str();
                add_version(db, event, version_id, &version, digest, &manifest, &triggers)?;
            }
            AgentEvent::VersionActivated { version_id } => {
                db.prepare_cached(
                    "UPDATE agent SET version_id = ?2, version = (SELECT version FROM agent_version WHERE id = ?2)
                     WHERE id = ?1",
                )?
                .execute([agent, &version_id.to_string()])?;
            }
            AgentEvent::Bound { bindings } => {
                // What is bound is an id: never null, which would take a slot away.
                db.prepare_cached(
                    "UPDATE agent SET bindings = json_patch(bindings, ?2) WHERE id = ?1",
                )?
                .execute([agent, &serde_json::to_string(&bindings)?])?;
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

fn add_version(
    db: &Writer<'_>,
    event: &RecordedEvent,
    id: Uuid,
    version: &str,
    digest: &str,
    manifest: &Object,
    triggers: &[AgentTrigger],
) -> Result<(), Error> {
    db.prepare_cached(
        "INSERT INTO agent_version VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)",
    )?
    .execute(params![
        event.position.0,
        id.to_string(),
        event.stream.id(),
        version,
        digest,
        serde_json::to_string(manifest)?,
        serde_json::to_string(&secret_config_paths(manifest))?,
        serde_json::to_string(triggers)?,
        event.actor,
        stored_time(event.time),
    ])?;
    Ok(())
}

fn set_enabled(db: &Writer<'_>, agent: &str, enabled: bool) -> Result<(), Error> {
    db.prepare_cached("UPDATE agent SET enabled = ?2 WHERE id = ?1")?
        .execute(params![agent, enabled])?;
    Ok(())
}

const COLUMNS: &str = "id, organization, product, title, name, version, version_id, \
                       (SELECT manifest FROM agent_version WHERE agent_version.id = agent.version_id), config, bindings, \
                       enabled, created_at, updated_at, uninstalled_at, sequence";

fn read(row: &Row<'_>) -> rusqlite::Result<Agent> {
    Ok(Agent {
        id: id(row, 0)?,
        organization: id(row, 1)?,
        product: id(row, 2)?,
        title: row.get(3)?,
        name: row.get(4)?,
        version: row.get(5)?,
        version_id: id(row, 6)?,
        manifest: json(row, 7)?,
        config: row.get(8)?,
        bindings: json(row, 9)?,
        enabled: row.get(10)?,
        created_at: row.get(11)?,
        updated_at: row.get(12)?,
        uninstalled_at: row.get(13)?,
        sequence: row.get(14)?,
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
    let sql = format!(
        "SELECT {COLUMNS} FROM agent WHERE id = (SELECT agent FROM agent_version WHERE id = ?1)"
    );
    Ok(db.prepare_cached(&sql)?.query_row([version.to_string()], read).optional()?)
}

/// The active version of an agent that is installed, and whether it may be executed.
///
/// # Errors
/// The file cannot be read.
pub fn active_version(db: &Connection, agent: Uuid) -> Result<Option<(Uuid, bool)>, Error> {
    let sql = "SELECT version_id, enabled FROM agent WHERE id = ?1 AND uninstalled_at IS NULL";
    let row = |row: &Row<'_>| Ok((id(row, 0)?, row.get(1)?));
    Ok(db.prepare_cached(sql)?.query_row([agent.to_string()], row).optional()?)
}

const VERSION_COLUMNS: &str = "id, agent, version, digest, \
                               EXISTS (SELECT 1 FROM agent WHERE agent.version_id = agent_version.id \
                               AND agent.id = agent_version.agent), created_by, created_at";

fn read_version(row: &Row<'_>) -> rusqlite::Result<Version> {
    Ok(Version {
        id: id(row, 0)?,
        agent: id(row, 1)?,
        version: row.get(2)?,
        digest: row.get(3)?,
        active: row.get(4)?,
        created_by: row.get(5)?,
        created_at: row.get(6)?,
    })
}

/// The versions of an agent, newest first.
///
/// # Errors
/// The file cannot be read.
pub fn versions(db: &Connection, agent: Uuid, window: Window) -> Result<Listing<Version>, Error> {
    Query::new(VERSION_COLUMNS, "agent_version", "position")
        .and("agent = ?", agent.to_string())
        .list(db, window, read_version)
}

/// A version of an agent, with what it holds.
///
/// # Errors
/// The file cannot be read.
pub fn version(
    db: &Connection,
    agent: Uuid,
    version: Uuid,
) -> Result<Option<(Version, VersionContent)>, Error> {
    find_version(db, agent, "id", &version.to_string())
}

/// The version of an agent whose manifest has this digest, with what it holds.
///
/// # Errors
/// The file cannot be read.
pub fn by_digest(
    db: &Connection,
    agent: Uuid,
    digest: &Digest,
) -> Result<Option<(Version, VersionContent)>, Error> {
    find_version(db, agent, "digest", digest.as_str())
}

fn find_version(
    db: &Connection,
    agent: Uuid,
    column: &str,
    value: &str,
) -> Result<Option<(Version, VersionContent)>, Error> {
    let sql = format!(
        "SELECT {VERSION_COLUMNS}, manifest, triggers FROM agent_version WHERE {column} = ?1 AND agent = ?2"
    );
    let found = db.prepare_cached(&sql)?.query_row([value, &agent.to_string()], |row| {
        let content = VersionContent { manifest: json(row, 7)?, triggers: json(row, 8)? };
        Ok((read_version(row)?, content))
    });
    Ok(found.optional()?)
}

/// JSON pointers into the configuration of an agent, to what any of its versions calls secret: what was
/// once is not shown later.
///
/// # Errors
/// The file cannot be read.
pub fn secret_paths(db: &Connection, agent: Uuid) -> Result<Vec<String>, Error> {
    let mut statement = db.prepare_cached(
        "SELECT DISTINCT path.value FROM agent_version, json_each(agent_version.secrets) AS path
         WHERE agent = ?1 ORDER BY path.value",
    )?;
    let rows = statement.query_map([agent.to_string()], |row| row.get(0))?;
    Ok(rows.collect::<Result<_, _>>()?)
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
