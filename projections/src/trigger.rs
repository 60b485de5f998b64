//! Triggers as they are read, with what became of those that fire by themselves.

use domain::agent::trigger_id;
use domain::reaction::ReactionEvent;
use domain::schedule::firings::{FiringEvent, Firings};
use domain::trigger::{TriggerEvent, TriggerKind, TriggerSecret};
use domain::{Object, Sealed, Timestamp};
use eventlog::RecordedEvent;
use rusqlite::types::Type;
use rusqlite::{Connection, OptionalExtension, Row, params};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use uuid::Uuid;

use crate::columns::{id, json, optional_json};
use crate::engine::{ReadModel, Writer, stored_time};
use crate::execution::SealedPayload;
use crate::listing::Query;
use crate::{Error, Listing, Window, decode};

/// What starts an execution of an agent's version.
#[derive(Clone, Debug, PartialEq)]
pub struct Trigger {
    /// Its id.
    pub id: Uuid,
    /// The tenant.
    pub organization: Uuid,
    /// The product.
    pub product: Uuid,
    /// The agent.
    pub agent: Uuid,
    /// The version of the agent's workflow that it belongs to, or that was active when it was made.
    pub version_id: Uuid,
    /// A manifest names it: it belongs to that version, and not to the agent.
    pub of_version: bool,
    /// Its id in the manifest, or one like it.
    pub key: String,
    /// What it listens to.
    pub kind: TriggerKind,
    /// It may fire.
    pub enabled: bool,
    /// What its kind needs to know.
    pub configuration: Object,
    /// Of a webhook: by what deliveries are verified, as its stream sealed it.
    pub secret: Option<TriggerSecret>,
    /// When it last fired.
    pub last_firing_at: Option<String>,
    /// Of a schedule: which of its instants are settled.
    pub firings: Firings,
    /// How far that was read.
    pub firings_sequence: u64,
    /// Of a schedule: what became of the newest instant. Of an event trigger: of the newest event that
    /// it reacted to.
    pub last_outcome: Option<Outcome>,
    /// When it was made.
    pub created_at: String,
    /// When it was last changed.
    pub updated_at: String,
    /// It is gone: its row stays, so that a repeated request can be told from a late one.
    pub is_deleted: bool,
    /// What its `ETag` says.
    pub sequence: u64,
}

/// More triggers than an agent can have with all of its versions.
const MOST: u64 = 100_000;

/// What became of an instant of a schedule, or of several that were missed; or of an event.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Outcome {
    /// `fired`, `queued`, `skipped`, `passed_over`, `failed` or `too_deep`.
    pub status: String,
    /// The instant; of several the last. Of an event trigger: when it was settled.
    pub instant: String,
    /// When that was settled.
    pub at: String,
    /// The execution that was asked for.
    pub execution: Option<Uuid>,
    /// Why it did not fire, or failed.
    pub code: Option<String>,
    /// Field `error` of the stream of the schedule, or of the reactions.
    pub error: Option<SealedPayload>,
}

/// The read model of triggers.
pub struct Triggers;

impl ReadModel for Triggers {
    fn name(&self) -> &'static str {
        "trigger"
    }

    fn version(&self) -> u32 {
        4
    }

    fn schema(&self) -> &'static str {
        include_str!("../../migrations/views/trigger.sql")
    }

    fn categories(&self) -> &'static [&'static str] {
        &["trigger", "schedule", "reaction", "execution"]
    }

    fn apply(&self, db: &Writer<'_>, event: &RecordedEvent) -> Result<(), Error> {
        match event.stream.category() {
            "execution" => return fired(db, event),
            "schedule" => return settled(db, event),
            "reaction" => return reacted(db, event),
            _ => {}
        }
        let trigger = event.stream.id();
        match decode(event)? {
            TriggerEvent::Created { agent, version_id, key, kind, enabled, configuration } => {
                let product = event
                    .product
                    .ok_or_else(|| Error::Unfit("a trigger belongs to a product".into()))?;
                db.prepare_cached(
                    "INSERT INTO agent_trigger (id, position, organization, product, agent, version_id, key, type,
                     enabled, configuration, created_at, updated_at, sequence, of_version)
                     VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?11, ?12, ?13)",
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
                    event.stream.uuid() == Some(trigger_id(version_id, &key)),
                ])?;
                return Ok(());
            }
            TriggerEvent::Changed { configuration } => {
                db.prepare_cached("UPDATE agent_trigger SET configuration = ?2 WHERE id = ?1")?
                    .execute([trigger, &serde_json::to_string(&configuration)?])?;
            }
            TriggerEvent::SecretSet { secret, previous_until } => {
                set_secret(db, trigger, secret, previous_until)?;
            }
            TriggerEvent::Enabled {} => set_enabled(db, trigger, true)?,
            TriggerEvent::Disabled {} => set_enabled(db, trigger, false)?,
            TriggerEvent::Deleted {} => {
                db.prepare_cached("UPDATE agent_trigger SET deleted_at = ?2 WHERE id = ?1")?
                    .execute([trigger, &stored_time(event.time)])?;
            }
        }
        db.prepare_cached("UPDATE agent_trigger SET updated_at = ?2, sequence = ?3 WHERE id = ?1")?
            .execute(params![trigger, stored_time(event.time), event.sequence])?;
        Ok(())
    }
}

fn set_enabled(db: &Writer<'_>, trigger: &str, enabled: bool) -> Result<(), Error> {
    db.prepare_cached("UPDATE agent_trigger SET enabled = ?2 WHERE id = ?1")?
        .execute(params![trigger, enabled])?;
    Ok(())
}

/// Notes the secret, and the one before as long as it is good.
fn set_secret(
    db: &Writer<'_>,
    trigger: &str,
    current: Sealed,
    previous_until: Option<Timestamp>,
) -> Result<(), Error> {
    let known: Option<TriggerSecret> = db
        .prepare_cached("SELECT secret FROM agent_trigger WHERE id = ?1")?
        .query_row([trigger], |row| optional_json(row, 0))
        .optional()?
        .flatten();
    let previous = known.map(|known| known.current).zip(previous_until);
    db.prepare_cached("UPDATE agent_trigger SET secret = ?2 WHERE id = ?1")?
        .execute([trigger, &serde_json::to_string(&TriggerSecret { current, previous })?])?;
    Ok(())
}

fn fired(db: &Writer<'_>, event: &RecordedEvent) -> Result<(), Error> {
    if event.event_type != "execution.requested.v1" {
        return Ok(());
    }
    if let domain::execution::ExecutionEvent::Requested { trigger: Some(trigger), .. } =
        decode(event)?
    {
        // When a schedule fired, its own stream says.
        let (trigger, at) = (trigger.to_string(), stored_time(event.time));
        db.prepare_cached(
            "UPDATE agent_trigger SET last_firing_at = ?2 WHERE id = ?1 AND type <> 'schedule'",
        )?
        .execute([&trigger, &at])?;
        let fired = Outcome { execution: event.stream.uuid(), ..of_event("fired", at) };
        db.prepare_cached(
            "UPDATE agent_trigger SET last_outcome = ?2 WHERE id = ?1 AND type = 'event'",
        )?
        .execute([trigger, serde_json::to_string(&fired)?])?;
    }
    Ok(())
}

fn of_event(status: &str, at: String) -> Outcome {
    Outcome {
        status: status.to_owned(),
        instant: at.clone(),
        at,
        execution: None,
        code: None,
        error: None,
    }
}

/// Notes what an event trigger could not do.
fn reacted(db: &Writer<'_>, event: &RecordedEvent) -> Result<(), Error> {
    let at = stored_time(event.time);
    let outcome = match decode(event)? {
        ReactionEvent::Failed { code, error, .. } => {
            let (event_type, payload) = (event.event_type.clone(), error);
            let error = Some(SealedPayload { event_type, payload });
            Outcome { code: Some(code), error, ..of_event("failed", at) }
        }
        ReactionEvent::TooDeep { .. } => {
            Outcome { code: Some("max_depth".to_owned()), ..of_event("too_deep", at) }
        }
    };
    db.prepare_cached("UPDATE agent_trigger SET last_outcome = ?2 WHERE id = ?1")?
        .execute([event.stream.id(), &serde_json::to_string(&outcome)?])?;
    Ok(())
}

/// Notes which instants of a schedule are settled, as the domain itself does.
fn settled(db: &Writer<'_>, event: &RecordedEvent) -> Result<(), Error> {
    let trigger = event.stream.id();
    let known: Option<Firings> = db
        .prepare_cached("SELECT firings FROM agent_trigger WHERE id = ?1")?
        .query_row([trigger], |row| json(row, 0))
        .optional()?;
    let Some(mut firings) = known else {
        return Err(Error::Unfit("a schedule belongs to a trigger".into()));
    };
    let happened: FiringEvent = decode(event)?;
    let at = stored_time(event.time);
    let fired_at = matches!(happened, FiringEvent::Fired { .. }).then_some(&at);
    let outcome = serde_json::to_string(&outcome(event, &happened, at.clone()))?;
    firings.remember(happened);
    db.prepare_cached(
        "UPDATE agent_trigger SET firings = ?2, firings_sequence = ?3, last_outcome = ?4,
         last_firing_at = coalesce(?5, last_firing_at) WHERE id = ?1",
    )?
    .execute(params![
        trigger,
        serde_json::to_string(&firings)?,
        event.sequence,
        outcome,
        fired_at,
    ])?;
    Ok(())
}

fn outcome(event: &RecordedEvent, happened: &FiringEvent, at: String) -> Outcome {
    let outcome = |status: &str, instant: &Timestamp| Outcome {
        status: status.to_owned(),
        instant: instant.to_string(),
        at,
        execution: None,
        code: None,
        error: None,
    };
    match happened {
        FiringEvent::Fired { instant, execution } => {
            Outcome { execution: Some(*execution), ..outcome("fired", instant) }
        }
        FiringEvent::Queued { instant } => outcome("queued", instant),
        FiringEvent::Skipped { instant, reason } => {
            Outcome { code: Some(reason.as_str().to_owned()), ..outcome("skipped", instant) }
        }
        FiringEvent::PassedOver { up_to } => {
            Outcome { code: Some("missed".to_owned()), ..outcome("passed_over", up_to) }
        }
        FiringEvent::Failed { instant, code, error } => {
            let (event_type, payload) = (event.event_type.clone(), error.clone());
            let error = Some(SealedPayload { event_type, payload });
            Outcome { code: Some(code.clone()), error, ..outcome("failed", instant) }
        }
    }
}

const COLUMNS: &str = "id, organization, product, agent, version_id, key, type, enabled, configuration, \
                       last_firing_at, created_at, updated_at, sequence, deleted_at IS NOT NULL, firings, \
                       firings_sequence, last_outcome, of_version, secret";

fn read(row: &Row<'_>) -> rusqlite::Result<Trigger> {
    Ok(Trigger {
        id: id(row, 0)?,
        organization: id(row, 1)?,
        product: id(row, 2)?,
        agent: id(row, 3)?,
        version_id: id(row, 4)?,
        key: row.get(5)?,
        kind: kind(row, 6)?,
        enabled: row.get(7)?,
        configuration: json(row, 8)?,
        last_firing_at: row.get(9)?,
        created_at: row.get(10)?,
        updated_at: row.get(11)?,
        sequence: row.get(12)?,
        is_deleted: row.get(13)?,
        firings: json(row, 14)?,
        firings_sequence: row.get(15)?,
        last_outcome: optional_json(row, 16)?,
        of_version: row.get(17)?,
        secret: optional_json(row, 18)?,
    })
}

fn kind(row: &Row<'_>, column: usize) -> rusqlite::Result<TriggerKind> {
    let name: String = row.get(column)?;
    serde_json::from_value(Value::String(name)).map_err(|error| {
        rusqlite::Error::FromSqlConversionFailure(column, Type::Text, Box::new(error))
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

/// The manual triggers that start a workflow version, newest first: its own, and those of the agent
/// whose active version it is.
///
/// # Errors
/// The file cannot be read.
pub fn manual_of_version(
    db: &Connection,
    version: Uuid,
    window: Window,
) -> Result<Listing<Trigger>, Error> {
    Query::new(COLUMNS, "agent_trigger", "position")
        .and(
            "(of_version AND version_id = ?1 OR NOT of_version AND agent =
              (SELECT agent.id FROM agent JOIN agent_version ON agent_version.agent = agent.id
               WHERE agent_version.id = ?1 AND agent.version_id = ?1))",
            version.to_string(),
        )
        .and("deleted_at IS NULL AND type = ?2", "manual")
        .list(db, window, read)
}

/// Every trigger of an agent, those of all of its versions included, newest first.
///
/// # Errors
/// The file cannot be read.
pub fn of_agent(db: &Connection, agent: Uuid) -> Result<Vec<Trigger>, Error> {
    let query = Query::new(COLUMNS, "agent_trigger", "position")
        .and("deleted_at IS NULL AND agent = ?", agent.to_string());
    Ok(query.list(db, Window::first(MOST), read)?.items)
}

/// What starts a version of an agent while it is the active one, newest first: its own triggers, and those
/// of the agent.
///
/// # Errors
/// The file cannot be read.
pub fn of_version(db: &Connection, agent: Uuid, version: Uuid) -> Result<Vec<Trigger>, Error> {
    let query = Query::new(COLUMNS, "agent_trigger", "position")
        .and("deleted_at IS NULL AND agent = ?", agent.to_string())
        .and("(NOT of_version OR version_id = ?)", version.to_string());
    Ok(query.list(db, Window::first(MOST), read)?.items)
}

/// The triggers of a product that listen to messages, disabled ones included, oldest first.
///
/// # Errors
/// The file cannot be read.
pub fn of_messages(db: &Connection, product: Uuid) -> Result<Vec<Uuid>, Error> {
    let mut statement = db.prepare_cached(
        "SELECT id FROM agent_trigger
         WHERE type = 'message' AND product = ?1 AND deleted_at IS NULL ORDER BY position",
    )?;
    let rows = statement.query_map([product.to_string()], |row| id(row, 0))?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// The schedules that are left, disabled ones included: id, product, and where each stands.
///
/// # Errors
/// The file cannot be read.
pub(crate) fn schedules(db: &Connection) -> Result<Vec<KnownSchedule>, Error> {
    let mut statement = db.prepare(
        "SELECT id, product, firings, firings_sequence FROM agent_trigger
         WHERE type = 'schedule' AND deleted_at IS NULL ORDER BY position",
    )?;
    let rows = statement.query_map([], |row| {
        Ok(KnownSchedule {
            trigger: id(row, 0)?,
            product: id(row, 1)?,
            firings: json(row, 2)?,
            sequence: row.get(3)?,
        })
    })?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// A trigger that listens to the clock, and where it stands.
#[derive(Clone, Debug, PartialEq)]
pub struct KnownSchedule {
    /// The trigger.
    pub trigger: Uuid,
    /// Its product.
    pub product: Uuid,
    /// Which of its instants are settled.
    pub firings: Firings,
    /// How far its stream was read.
    pub sequence: u64,
}
