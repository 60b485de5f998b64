//! Sessions as they are read: whether one is still good, and what its user may do.

use domain::Role;
use domain::session::SessionEvent;
use eventlog::RecordedEvent;
use rusqlite::{Connection, OptionalExtension, params};
use uuid::Uuid;

use crate::columns::id;
use crate::engine::{ReadModel, Writer, stored_time};
use crate::user::role;
use crate::{Error, decode};

/// A session that is still good, with what must be known of its user at each request.
#[derive(Clone, Debug, PartialEq)]
pub struct Session {
    /// Its user.
    pub user: Uuid,
    /// The tenant.
    pub organization: Uuid,
    /// What the user may do now.
    pub role: Role,
    /// Until when the token is good that the session is, where it is one from outside.
    pub over_at: Option<String>,
}

/// The read model of sessions.
pub struct Sessions;

impl ReadModel for Sessions {
    fn name(&self) -> &'static str {
        "session"
    }

    fn version(&self) -> u32 {
        3
    }

    fn schema(&self) -> &'static str {
        include_str!("../../migrations/views/session.sql")
    }

    fn categories(&self) -> &'static [&'static str] {
        &["session"]
    }

    fn reader_indexes(&self) -> &'static [&'static str] {
        &["session_of"]
    }

    fn apply(&self, db: &Writer<'_>, event: &RecordedEvent) -> Result<(), Error> {
        let session = event.stream.id();
        match decode(event)? {
            SessionEvent::Started { user, expires_at, refresh_hash: _ } => {
                db.prepare_cached(
                    "INSERT INTO session VALUES (?1, ?2, ?3, ?4, ?5, ?6, NULL, NULL)",
                )?
                .execute(params![
                    session,
                    event.position.0,
                    event.organization.to_string(),
                    user.to_string(),
                    stored_time(event.time),
                    expires_at.to_string(),
                ])?;
            }
            SessionEvent::StartedOutside { user, issuer, expires_at } => {
                db.prepare_cached("INSERT INTO session VALUES (?1, ?2, ?3, ?4, ?5, ?6, NULL, ?7)")?
                    .execute(params![
                        session,
                        event.position.0,
                        event.organization.to_string(),
                        user.to_string(),
                        stored_time(event.time),
                        expires_at.to_string(),
                        issuer,
                    ])?;
            }
            SessionEvent::Refreshed { expires_at, refresh_hash: _ } => {
                db.prepare_cached("UPDATE session SET expires_at = ?2 WHERE id = ?1")?
                    .execute(params![session, expires_at.to_string()])?;
            }
            SessionEvent::Ended { reason } => {
                let reason = serde_json::to_value(reason)?;
                db.prepare_cached("UPDATE session SET ended = ?2 WHERE id = ?1")?
                    .execute(params![session, reason.as_str()])?;
            }
        }
        Ok(())
    }
}

/// A session that was not ended, and whose user still exists, still has the same password, and still comes from
/// where it came from.
///
/// # Errors
/// The file cannot be read.
pub fn active(db: &Connection, session: Uuid) -> Result<Option<Session>, Error> {
    let mut statement = db.prepare_cached(
        "SELECT session.user, session.organization, user.role,
                iif(session.issuer IS NULL, NULL, session.expires_at)
         FROM session JOIN user ON user.id = session.user
         WHERE session.id = ?1 AND session.ended IS NULL
         AND session.position > max(user.password_position, iif(session.issuer IS NULL, 0, user.unlinked_position))",
    )?;
    let read = |row: &rusqlite::Row<'_>| {
        Ok(Session {
            user: id(row, 0)?,
            organization: id(row, 1)?,
            role: role(row, 2)?,
            over_at: row.get(3)?,
        })
    };
    Ok(statement.query_row([session.to_string()], read).optional()?)
}

/// The sessions of a user that were not ended.
///
/// # Errors
/// The file cannot be read.
pub fn of_user(db: &Connection, user: Uuid) -> Result<Vec<Uuid>, Error> {
    let mut statement =
        db.prepare_cached("SELECT id FROM session WHERE user = ?1 AND ended IS NULL")?;
    let rows = statement.query_map([user.to_string()], |row| id(row, 0))?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// The sessions of a user that are from before its password was changed, or from outside and from before that
/// was unlinked, and were not ended yet.
///
/// # Errors
/// The file cannot be read.
pub fn outdated_of(db: &Connection, user: Uuid) -> Result<Vec<Uuid>, Error> {
    let mut statement = db.prepare_cached(
        "SELECT session.id FROM session JOIN user ON user.id = session.user
         WHERE session.user = ?1 AND session.ended IS NULL
         AND session.position < max(user.password_position, iif(session.issuer IS NULL, 0, user.unlinked_position))",
    )?;
    let rows = statement.query_map([user.to_string()], |row| id(row, 0))?;
    Ok(rows.collect::<Result<_, _>>()?)
}
