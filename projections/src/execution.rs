//! Executions as they are read, with every attempt at every step. What people and agents wrote stays
//! sealed until the answer is written.

use domain::Payload;
use domain::execution::{ExecutionEvent, TimeLimit};
use eventlog::RecordedEvent;
use rusqlite::types::{FromSql, FromSqlError, FromSqlResult, ToSql, ToSqlOutput, ValueRef};
use rusqlite::{Connection, OptionalExtension, Row, params};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::columns::{id, optional_id};
use crate::engine::{ReadModel, Writer, stored_time};
use crate::listing::Query;
use crate::sealed::{bar_of, column_of};
use crate::{Error, Listing, Window, decode};

/// A sealed text of any length and the event type that it was sealed for. A column holds it as a [`SealedField`](crate::SealedField),
/// or as JSON where it lies in a blob: most are short, and neither written nor read as JSON.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SealedPayload {
    /// The type of the event that carries it.
    pub event_type: String,
    /// Where it is.
    pub payload: Payload,
}

impl SealedPayload {
    /// What an event carries.
    pub(crate) fn of(event: &RecordedEvent, payload: Payload) -> SealedPayload {
        SealedPayload { event_type: event.event_type.clone(), payload }
    }
}

impl ToSql for SealedPayload {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(match &self.payload {
            Payload::Sealed(sealed) => column_of(&self.event_type, sealed.as_str()),
            Payload::Blob { .. } => serde_json::to_string(self)
                .map_err(|error| rusqlite::Error::ToSqlConversionFailure(Box::new(error)))?,
        }
        .into())
    }
}

impl FromSql for SealedPayload {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        let text = value.as_str()?;
        if text.starts_with('{') {
            return serde_json::from_str(text)
                .map_err(|error| FromSqlError::Other(Box::new(error)));
        }
        let bar = bar_of(text)?;
        let payload = Payload::Sealed(text[bar + 1..].to_owned().into());
        Ok(SealedPayload { event_type: text[..bar].to_owned(), payload })
    }
}

/// One run of one agent version.
#[derive(Clone, Debug, PartialEq)]
pub struct Execution {
    /// Its id.
    pub id: Uuid,
    /// The tenant.
    pub organization: Uuid,
    /// The product.
    pub product: Uuid,
    /// The agent.
    pub agent: Uuid,
    /// The version of its workflow.
    pub version_id: Uuid,
    /// The SHA-256 of the manifest that it ran.
    pub digest: String,
    /// What started it.
    pub trigger: Option<Uuid>,
    /// Who asked for it.
    pub requested_by: String,
    /// `queued`, `running`, `paused`, `waiting`, `succeeded`, `failed`, `cancelled` or `timed_out`.
    pub status: String,
    /// The execution that it repeats.
    pub retry_of: Option<Uuid>,
    /// Nobody works on it until then.
    pub waiting_until: Option<String>,
    /// Field `input` of its stream.
    pub input: SealedPayload,
    /// Field `output` of its stream.
    pub output: Option<SealedPayload>,
    /// Why it failed.
    pub error: Option<Failure>,
    /// When it was asked for.
    pub created_at: String,
    /// When it began.
    pub started_at: Option<String>,
    /// When it ended.
    pub ended_at: Option<String>,
    /// The position of its request: its place in lists.
    pub position: u64,
}

/// Why an execution or an attempt failed.
#[derive(Clone, Debug, PartialEq)]
pub struct Failure {
    /// A stable name.
    pub code: String,
    /// The step at which it failed.
    pub step: Option<String>,
    /// Field `error` of its stream; none for an attempt that was cut off and never reported.
    pub message: Option<SealedPayload>,
}

/// One attempt at a step.
#[derive(Clone, Debug, PartialEq)]
pub struct Attempt {
    /// The step.
    pub step_id: String,
    /// Which attempt, from 1; 0 where there was none.
    pub attempt: u32,
    /// `running`, `succeeded` or `failed`; `skipped` or `reused` where the step was not begun at all.
    pub status: String,
    /// What it was told: field `input` of the execution's stream; none where that was not kept.
    pub input: Option<SealedPayload>,
    /// Field `output` of the execution's stream.
    pub output: Option<SealedPayload>,
    /// Why it failed.
    pub error: Option<Failure>,
    /// When it began.
    pub started_at: String,
    /// When it ended.
    pub ended_at: Option<String>,
}

/// Which executions of an agent are wanted. Every condition narrows.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// With this status.
    pub status: Option<String>,
    /// Started by this trigger.
    pub trigger: Option<Uuid>,
    /// Of this version.
    pub version: Option<Uuid>,
    /// Asked for not before this time.
    pub from: Option<String>,
    /// Asked for before this time.
    pub to: Option<String>,
}

/// The read model of executions.
pub struct Executions;

impl ReadModel for Executions {
    fn name(&self) -> &'static str {
        "execution"
    }

    fn version(&self) -> u32 {
        6
    }

    fn schema(&self) -> &'static str {
        include_str!("../../migrations/views/execution.sql")
    }

    fn categories(&self) -> &'static [&'static str] {
        &["execution"]
    }

    fn reader_indexes(&self) -> &'static [&'static str] {
        &["execution_of", "execution_by_status"]
    }

    fn apply(&self, db: &Writer<'_>, event: &RecordedEvent) -> Result<(), Error> {
        let execution = event
            .stream
            .uuid()
            .ok_or_else(|| Error::Unfit("the id of an execution is a UUID".into()))?;
        let at = stored_time(event.time);
        let position = event.position.0;
        match decode(event)? {
            ExecutionEvent::Requested { agent, version_id, digest, trigger, input } => {
                let product = event
                    .product
                    .ok_or_else(|| Error::Unfit("an execution belongs to a product".into()))?;
                db.prepare_cached(
                    "INSERT INTO execution (position, id, organization, product, agent, version_id, digest, trigger_id,
                     requested_by, status, created_at)
                     VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, 'queued', ?10)",
                )?
                .execute(params![
                    position,
                    execution,
                    event.organization,
                    product,
                    agent,
                    version_id,
                    digest.as_str(),
                    trigger,
                    event.actor,
                    at,
                ])?;
                keep(db, event, input)?;
            }
            ExecutionEvent::Started { .. } => {
                db.prepare_cached(
                    "UPDATE execution SET status = 'running', waiting_until = NULL, started_at = coalesce(started_at, ?2)
                     WHERE id = ?1",
                )?
                .execute(params![execution, at])?;
            }
            ExecutionEvent::StepStarted { step_id, attempt, input, .. } => {
                if attempt > 1 {
                    cut_off(db, execution, Some(&step_id), &at)?;
                }
                db.prepare_cached(
                    "INSERT INTO execution_attempt (execution, position, step_id, attempt, status, started_at)
                     SELECT position, ?2, ?3, ?4, 'running', ?5 FROM execution WHERE id = ?1",
                )?
                .execute(params![execution, position, step_id, attempt, at])?;
                if let Some(input) = input {
                    keep(db, event, input)?;
                }
            }
            ExecutionEvent::StepSucceeded { step_id, attempt, output, .. } => {
                db.prepare_cached(
                    "UPDATE execution_attempt SET status = 'succeeded', output_at = ?4, ended_at = ?5
                     WHERE execution = ?1 AND step_id = ?2 AND attempt = ?3",
                )?
                .execute(params![place(db, execution)?, step_id, attempt, position, at])?;
                keep(db, event, output)?;
            }
            ExecutionEvent::StepFailed { step_id, attempt, code, error, .. } => {
                db.prepare_cached(
                    "UPDATE execution_attempt SET status = 'failed', error_code = ?4, error_at = ?5, ended_at = ?6
                     WHERE execution = ?1 AND step_id = ?2 AND attempt = ?3",
                )?
                .execute(params![place(db, execution)?, step_id, attempt, code, position, at])?;
                keep(db, event, error)?;
            }
            ExecutionEvent::StepSkipped { step_id, .. } => {
                db.prepare_cached(
                    "INSERT INTO execution_attempt (execution, position, step_id, attempt, status, started_at, ended_at)
                     SELECT position, ?2, ?3, 0, 'skipped', ?4, ?4 FROM execution WHERE id = ?1",
                )?
                .execute(params![execution, position, step_id, at])?;
            }
            ExecutionEvent::StepReused { step_id, output } => {
                db.prepare_cached(
                    "INSERT INTO execution_attempt
                         (execution, position, step_id, attempt, status, output_at, started_at, ended_at)
                     SELECT position, ?2, ?3, 0, 'reused', ?2, ?4, ?4 FROM execution WHERE id = ?1",
                )?
                .execute(params![execution, position, step_id, at])?;
                keep(db, event, output)?;
            }
            ExecutionEvent::Retried { of, .. } => {
                db.prepare_cached("UPDATE execution SET retry_of = ?2 WHERE id = ?1")?
                    .execute(params![execution, of])?;
            }
            // It is told by who asked for it, and by the event itself.
            ExecutionEvent::Reacted { .. } => {}
            ExecutionEvent::Waiting { until, .. } => {
                let until = stored_time(until.into());
                db.prepare_cached(
                    "UPDATE execution SET waiting_until = ?2,
                     status = iif(status = 'paused', status, 'waiting') WHERE id = ?1",
                )?
                .execute(params![execution, until])?;
            }
            ExecutionEvent::Paused {} => {
                db.prepare_cached("UPDATE execution SET status = 'paused' WHERE id = ?1")?
                    .execute([execution])?;
            }
            ExecutionEvent::Continued {} => {
                db.prepare_cached(
                    "UPDATE execution SET status = iif(waiting_until IS NULL, 'queued', 'waiting') WHERE id = ?1",
                )?
                .execute([execution])?;
            }
            ExecutionEvent::TimedOut { limit } => {
                let code = match limit {
                    TimeLimit::Queue => "queue_timed_out",
                    TimeLimit::Execution => "execution_timed_out",
                };
                db.prepare_cached(
                    "UPDATE execution SET status = 'timed_out', waiting_until = NULL, error_code = ?2, ended_at = ?3 WHERE id = ?1",
                )?
                .execute(params![execution, code, at])?;
                cut_off(db, execution, None, &at)?;
            }
            ExecutionEvent::Succeeded { output, .. } => {
                db.prepare_cached(
                    "UPDATE execution SET status = 'succeeded', waiting_until = NULL, output_at = ?2, ended_at = ?3 WHERE id = ?1",
                )?
                .execute(params![execution, position, at])?;
                keep(db, event, output)?;
            }
            ExecutionEvent::Failed { step_id, code, error, .. } => {
                db.prepare_cached(
                    "UPDATE execution SET status = 'failed', waiting_until = NULL, error_step = ?2, error_code = ?3, error_at = ?4, ended_at = ?5
                     WHERE id = ?1",
                )?
                .execute(params![execution, step_id, code, position, at])?;
                keep(db, event, error)?;
                cut_off(db, execution, None, &at)?;
            }
            ExecutionEvent::Cancelled { .. } => {
                db.prepare_cached(
                    "UPDATE execution SET status = 'cancelled', waiting_until = NULL, ended_at = ?2 WHERE id = ?1",
                )?
                .execute(params![execution, at])?;
                cut_off(db, execution, None, &at)?;
            }
        }
        Ok(())
    }
}

/// Keeps the text that an event carries.
fn keep(db: &Writer<'_>, event: &RecordedEvent, payload: Payload) -> Result<(), Error> {
    db.prepare_cached("INSERT INTO execution_text VALUES (?1, ?2)")?
        .execute(params![event.position.0, SealedPayload::of(event, payload)])?;
    Ok(())
}

/// An attempt that a crash cut off never reported: what comes after it says that it failed.
fn cut_off(db: &Writer<'_>, execution: Uuid, step: Option<&str>, at: &str) -> Result<(), Error> {
    db.prepare_cached(
        "UPDATE execution_attempt SET status = 'failed', error_code = 'interrupted', ended_at = ?3
         WHERE execution = ?1 AND step_id = coalesce(?2, step_id) AND status = 'running'",
    )?
    .execute(params![place(db, execution)?, step, at])?;
    Ok(())
}

/// The position of an execution's request, by which its attempts are found. It is asked for first: an update that
/// asks for it itself gathers what it changes in a table of its own.
fn place(db: &Writer<'_>, execution: Uuid) -> Result<Option<u64>, Error> {
    let mut statement = db.prepare_cached("SELECT position FROM execution WHERE id = ?1")?;
    Ok(statement.query_row([execution], |row| row.get(0)).optional()?)
}

const COLUMNS: &str = "id, organization, product, agent, version_id, digest, trigger_id, requested_by, status,
                       (SELECT text FROM execution_text WHERE position = execution.position),
                       (SELECT text FROM execution_text WHERE position = output_at),
                       error_code, error_step, (SELECT text FROM execution_text WHERE position = error_at),
                       created_at, started_at, ended_at, position, retry_of, waiting_until";

fn read(row: &Row<'_>) -> rusqlite::Result<Execution> {
    let code: Option<String> = row.get(11)?;
    let step = row.get(12)?;
    let message = row.get(13)?;
    Ok(Execution {
        id: id(row, 0)?,
        organization: id(row, 1)?,
        product: id(row, 2)?,
        agent: id(row, 3)?,
        version_id: id(row, 4)?,
        digest: row.get(5)?,
        trigger: optional_id(row, 6)?,
        requested_by: row.get(7)?,
        status: row.get(8)?,
        input: row.get(9)?,
        output: row.get(10)?,
        error: code.map(|code| Failure { code, step, message }),
        created_at: row.get(14)?,
        started_at: row.get(15)?,
        ended_at: row.get(16)?,
        position: row.get(17)?,
        retry_of: optional_id(row, 18)?,
        waiting_until: row.get(19)?,
    })
}

/// An execution by its id.
///
/// # Errors
/// The file cannot be read.
pub fn get(db: &Connection, execution: Uuid) -> Result<Option<Execution>, Error> {
    let sql = format!("SELECT {COLUMNS} FROM execution WHERE id = ?1");
    Ok(db.prepare_cached(&sql)?.query_row([execution], read).optional()?)
}

/// The executions of an agent, newest first.
///
/// # Errors
/// The file cannot be read.
pub fn list(
    db: &Connection,
    agent: Uuid,
    filter: &Filter,
    window: Window,
) -> Result<Listing<Execution>, Error> {
    Query::new(COLUMNS, "execution", "position")
        .and("agent = ?", agent)
        .and_if("status = ?", filter.status.clone())
        .and_if("trigger_id = ?", filter.trigger)
        .and_if("version_id = ?", filter.version)
        .and_if("created_at >= ?", filter.from.clone())
        .and_if("created_at < ?", filter.to.clone())
        .list(db, window, read)
}

/// The newest execution of an agent.
///
/// # Errors
/// The file cannot be read.
pub fn latest(db: &Connection, agent: Uuid) -> Result<Option<Execution>, Error> {
    let sql =
        format!("SELECT {COLUMNS} FROM execution WHERE agent = ?1 ORDER BY position DESC LIMIT 1");
    Ok(db.prepare_cached(&sql)?.query_row([agent], read).optional()?)
}

/// Every attempt at every step of an execution, in the order in which they began.
///
/// # Errors
/// The file cannot be read.
pub fn attempts(db: &Connection, execution: Uuid) -> Result<Vec<Attempt>, Error> {
    let mut statement = db.prepare_cached(
        "SELECT step_id, attempt, status, (SELECT text FROM execution_text WHERE position = output_at), error_code,
         (SELECT text FROM execution_text WHERE position = error_at), started_at, ended_at,
         (SELECT text FROM execution_text WHERE position = execution_attempt.position AND attempt > 0)
         FROM execution_attempt WHERE execution = (SELECT position FROM execution WHERE id = ?1) ORDER BY position",
    )?;
    let rows = statement.query_map([execution], |row| {
        let code: Option<String> = row.get(4)?;
        let message = row.get(5)?;
        Ok(Attempt {
            step_id: row.get(0)?,
            attempt: row.get(1)?,
            status: row.get(2)?,
            output: row.get(3)?,
            error: code.map(|code| Failure { code, step: None, message }),
            started_at: row.get(6)?,
            ended_at: row.get(7)?,
            input: row.get(8)?,
        })
    })?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// The executions that a trigger started and that have not ended, oldest first.
///
/// # Errors
/// The file cannot be read.
pub fn unended_of_trigger(db: &Connection, agent: Uuid, trigger: Uuid) -> Result<Vec<Uuid>, Error> {
    // By status, for which there is an index: few have not ended.
    let mut statement = db.prepare_cached(
        "SELECT id FROM execution WHERE agent = ?1 AND status IN ('queued', 'running', 'paused', 'waiting')
         AND trigger_id = ?2 ORDER BY position",
    )?;
    let rows = statement.query_map([agent, trigger], |row| id(row, 0))?;
    Ok(rows.collect::<Result<_, _>>()?)
}
