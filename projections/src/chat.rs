//! The assistant's sessions and runs as they are read. What was said stays sealed until the answer is written.

use domain::chat::ChatSessionEvent;
use domain::chat::run::ChatRunEvent;
use eventlog::RecordedEvent;
use rusqlite::{Connection, OptionalExtension, Row, params};
use uuid::Uuid;

use crate::columns::{id, optional_id};
use crate::engine::{ReadModel, Writer, stored_time};
use crate::execution::SealedPayload;
use crate::listing::Query;
use crate::{Error, Listing, SealedField, Window, decode};

/// A session.
#[derive(Clone, Debug, PartialEq)]
pub struct Session {
    /// Its id.
    pub id: Uuid,
    /// The tenant.
    pub organization: Uuid,
    /// The product.
    pub product: Uuid,
    /// Whose it is, as `user:<id>`.
    pub owner: String,
    /// What its owner calls it; field `session_id` of its stream.
    pub session_id: SealedField,
    /// What it is shown as; field `title` of its stream.
    pub title: SealedField,
    /// The sequence of the last event that changed what its owner can change.
    pub changed: u64,
    /// How many messages were asked.
    pub messages: u64,
    /// When it began.
    pub created_at: String,
    /// When it was last asked something, or renamed.
    pub updated_at: String,
}

/// A run.
#[derive(Clone, Debug, PartialEq)]
pub struct Run {
    /// Its id.
    pub id: Uuid,
    /// The tenant.
    pub organization: Uuid,
    /// The product.
    pub product: Uuid,
    /// The session that holds the question.
    pub session: Option<Uuid>,
    /// Who may see it, as `user:<id>`.
    pub owner: String,
    /// `queued`, `running`, `succeeded`, `failed` or `cancelled`.
    pub status: String,
    /// The question; field `message` of the session's stream.
    pub message: Option<SealedPayload>,
    /// The answer; field `answer` of the run's stream.
    pub answer: Option<SealedPayload>,
    /// Why it failed, for programs.
    pub error_code: Option<String>,
    /// Why it failed; field `error` of the run's stream.
    pub error: Option<SealedPayload>,
    /// When it was asked.
    pub created_at: String,
    /// When it ended.
    pub ended_at: Option<String>,
}

/// The read model of the assistant's chat.
pub struct Chats;

impl ReadModel for Chats {
    fn name(&self) -> &'static str {
        "chat"
    }

    fn version(&self) -> u32 {
        2
    }

    fn schema(&self) -> &'static str {
        include_str!("../../migrations/views/chat.sql")
    }

    fn categories(&self) -> &'static [&'static str] {
        &["chat_session", "chat_run"]
    }

    fn reader_indexes(&self) -> &'static [&'static str] {
        &["chat_session_of"]
    }

    fn apply(&self, db: &Writer<'_>, event: &RecordedEvent) -> Result<(), Error> {
        let subject =
            event.stream.uuid().ok_or_else(|| Error::Unfit("the id of a chat is a UUID".into()))?;
        let product =
            event.product.ok_or_else(|| Error::Unfit("a chat belongs to a product".into()))?;
        match event.stream.category() {
            "chat_session" => session(db, event, subject, product),
            _ => run(db, event, subject, product),
        }
    }
}

fn session(
    db: &Connection,
    event: &RecordedEvent,
    session: Uuid,
    product: Uuid,
) -> Result<(), Error> {
    let at = stored_time(event.time);
    match decode(event)? {
        ChatSessionEvent::Started { session_id, title } => {
            db.prepare_cached(
                "INSERT INTO chat_session VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?9)",
            )?
            .execute(params![
                event.position.0,
                session,
                event.organization,
                product.to_string(),
                event.actor,
                SealedField::new(&event.event_type, &session_id),
                SealedField::new(&event.event_type, &title),
                event.sequence,
                at,
            ])?;
        }
        ChatSessionEvent::MessageAsked { run, message } => {
            db.prepare_cached("UPDATE chat_session SET updated_at = ?2 WHERE id = ?1")?
                .execute(params![session, at])?;
            db.prepare_cached(
                "INSERT INTO chat_run (position, id, organization, product, session, owner, status, message, created_at)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, 'queued', ?7, ?8)",
            )?
            .execute(params![
                event.position.0,
                run,
                event.organization,
                product.to_string(),
                session,
                event.actor,
                SealedPayload::of(event, message),
                at,
            ])?;
        }
        ChatSessionEvent::Renamed { title } => {
            db.prepare_cached(
                "UPDATE chat_session SET title = ?2, changed = ?3, updated_at = ?4 WHERE id = ?1",
            )?
            .execute(params![
                session,
                SealedField::new(&event.event_type, &title),
                event.sequence,
                at
            ])?;
        }
        ChatSessionEvent::Deleted {} => {
            db.prepare_cached("DELETE FROM chat_run WHERE session = ?1")?.execute([session])?;
            db.prepare_cached("DELETE FROM chat_session WHERE id = ?1")?.execute([session])?;
        }
    }
    Ok(())
}

fn run(db: &Writer<'_>, event: &RecordedEvent, run: Uuid, product: Uuid) -> Result<(), Error> {
    let at = stored_time(event.time);
    match decode(event)? {
        // It was there with its message, or is gone with its session.
        ChatRunEvent::Requested { session: Some(_), .. } => {}
        ChatRunEvent::Requested { session: None, .. } => {
            db.prepare_cached(
                "INSERT INTO chat_run (position, id, organization, product, owner, status, created_at)
                 VALUES (?1, ?2, ?3, ?4, ?5, 'queued', ?6)",
            )?
            .execute(params![
                event.position.0,
                run,
                event.organization,
                product.to_string(),
                event.actor,
                at,
            ])?;
        }
        ChatRunEvent::Started { .. } => {
            db.prepare_cached("UPDATE chat_run SET status = 'running' WHERE id = ?1")?
                .execute([run])?;
        }
        ChatRunEvent::Retrieved { .. } | ChatRunEvent::Progressed { .. } => {}
        ChatRunEvent::Succeeded { answer, .. } => {
            db.prepare_cached(
                "UPDATE chat_run SET status = 'succeeded', answer = ?2, ended_at = ?3 WHERE id = ?1",
            )?
            .execute(params![run, SealedPayload::of(event, answer), at])?;
        }
        ChatRunEvent::Failed { code, error, .. } => {
            db.prepare_cached(
                "UPDATE chat_run SET status = 'failed', error_code = ?2, error = ?3, ended_at = ?4 WHERE id = ?1",
            )?
            .execute(params![run, code, SealedPayload::of(event, error), at])?;
        }
        ChatRunEvent::Cancelled {} => {
            db.prepare_cached(
                "UPDATE chat_run SET status = 'cancelled', ended_at = ?2 WHERE id = ?1",
            )?
            .execute(params![run, at])?;
        }
    }
    Ok(())
}

/// What is left of a deleted product is nobody's any more.
const OF_A_PRODUCT: &str =
    "owner = ? AND EXISTS (SELECT 1 FROM product WHERE product.id = chat_session.product)";

const SESSION: &str = "id, organization, product, owner, session_id, title, changed, \
                       (SELECT count(*) FROM chat_run WHERE chat_run.session = chat_session.id), \
                       created_at, updated_at";

fn read_session(row: &Row<'_>) -> rusqlite::Result<Session> {
    Ok(Session {
        id: id(row, 0)?,
        organization: id(row, 1)?,
        product: id(row, 2)?,
        owner: row.get(3)?,
        session_id: row.get(4)?,
        title: row.get(5)?,
        changed: row.get(6)?,
        messages: row.get(7)?,
        created_at: row.get(8)?,
        updated_at: row.get(9)?,
    })
}

const RUN: &str = "id, organization, product, session, owner, status, message, answer, error_code, \
                   error, created_at, ended_at";

fn read_run(row: &Row<'_>) -> rusqlite::Result<Run> {
    Ok(Run {
        id: id(row, 0)?,
        organization: id(row, 1)?,
        product: id(row, 2)?,
        session: optional_id(row, 3)?,
        owner: row.get(4)?,
        status: row.get(5)?,
        message: row.get(6)?,
        answer: row.get(7)?,
        error_code: row.get(8)?,
        error: row.get(9)?,
        created_at: row.get(10)?,
        ended_at: row.get(11)?,
    })
}

/// The products in which somebody has sessions.
///
/// # Errors
/// The views file cannot be read.
pub fn products_of(db: &Connection, owner: &str) -> Result<Vec<Uuid>, Error> {
    let mut statement =
        db.prepare_cached("SELECT DISTINCT product FROM chat_session WHERE owner = ?1")?;
    let rows = statement.query_map([owner], |row| id(row, 0))?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// A session by its id.
///
/// # Errors
/// The views file cannot be read.
pub fn get(db: &Connection, session: Uuid) -> Result<Option<Session>, Error> {
    let sql = format!("SELECT {SESSION} FROM chat_session WHERE id = ?1");
    Ok(db.prepare_cached(&sql)?.query_row([session], read_session).optional()?)
}

/// The sessions of an owner, in a product or in all that are there, newest first.
///
/// # Errors
/// The views file cannot be read.
pub fn list(
    db: &Connection,
    product: Option<Uuid>,
    owner: &str,
    window: Window,
) -> Result<Listing<Session>, Error> {
    Query::new(SESSION, "chat_session", "position")
        .and(OF_A_PRODUCT, owner.to_owned())
        .and_if("product = ?", product.map(|product| product.to_string()))
        .list(db, window, read_session)
}

/// A run by its id.
///
/// # Errors
/// The views file cannot be read.
pub fn get_run(db: &Connection, run: Uuid) -> Result<Option<Run>, Error> {
    let sql = format!("SELECT {RUN} FROM chat_run WHERE id = ?1");
    Ok(db.prepare_cached(&sql)?.query_row([run], read_run).optional()?)
}

/// Runs of a session, oldest first, after so many; with how many there are.
///
/// # Errors
/// The views file cannot be read.
pub fn runs(
    db: &Connection,
    session: Uuid,
    skip: u64,
    limit: u64,
) -> Result<(Vec<Run>, u64), Error> {
    let sql = format!(
        "SELECT {RUN} FROM chat_run WHERE session = ?1 ORDER BY position LIMIT ?2 OFFSET ?3"
    );
    let mut statement = db.prepare_cached(&sql)?;
    let rows = statement.query_map(params![session, limit, skip], read_run)?;
    let runs = rows.collect::<Result<_, _>>()?;
    let count = db
        .prepare_cached("SELECT count(*) FROM chat_run WHERE session = ?1")?
        .query_row([session], |row| row.get(0))?;
    Ok((runs, count))
}

/// The runs that have not ended, each with its session and its product, oldest first. Of products that are
/// gone nobody is answered.
///
/// # Errors
/// The views file cannot be read.
pub(crate) fn unfinished(db: &Connection) -> Result<Vec<(Uuid, Option<Uuid>, Uuid)>, Error> {
    let mut statement = db.prepare(
        "SELECT id, session, product FROM chat_run WHERE ended_at IS NULL ORDER BY position",
    )?;
    let rows =
        statement.query_map([], |row| Ok((id(row, 0)?, optional_id(row, 1)?, id(row, 2)?)))?;
    Ok(rows.collect::<Result<_, _>>()?)
}

#[cfg(test)]
mod tests;
