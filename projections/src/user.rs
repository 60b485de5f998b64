//! Users as they are read. E-mail and name stay sealed until the answer is written.

use domain::Role;
use domain::user::UserEvent;
use eventlog::RecordedEvent;
use rusqlite::{Connection, OptionalExtension, Row, params};
use uuid::Uuid;

use crate::columns::id;
use crate::engine::{ReadModel, Writer, stored_time};
use crate::listing::Query;
use crate::{Error, Listing, SealedField, Window, decode};

/// A person.
#[derive(Clone, Debug, PartialEq)]
pub struct User {
    /// Its id.
    pub id: Uuid,
    /// The tenant.
    pub organization: Uuid,
    /// The address, field `email` of the stream `user-<id>`.
    pub email: SealedField,
    /// The name, field `name` of the stream `user-<id>`.
    pub name: Option<SealedField>,
    /// What it may do.
    pub role: Role,
    /// Who it is at an outside issuer: the issuer, and field `subject` of the stream `user-<id>`.
    pub identity: Option<(String, SealedField)>,
    /// When it was made.
    pub created_at: String,
    /// When it was last changed.
    pub updated_at: String,
    /// What its `ETag` says.
    pub sequence: u64,
}

/// The read model of users.
pub struct Users;

impl ReadModel for Users {
    fn name(&self) -> &'static str {
        "user"
    }

    fn version(&self) -> u32 {
        4
    }

    fn schema(&self) -> &'static str {
        include_str!("../../migrations/views/user.sql")
    }

    fn categories(&self) -> &'static [&'static str] {
        &["user"]
    }

    fn apply(&self, db: &Writer<'_>, event: &RecordedEvent) -> Result<(), Error> {
        let (user, at) = (event.stream.id(), stored_time(event.time));
        let sealed = |text: &domain::Sealed| SealedField::new(&event.event_type, text);
        match decode(event)? {
            UserEvent::Created { email, name, role, password: _ } => {
                db.prepare_cached(
                    "INSERT INTO user VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?7, ?8, 0, 0, NULL, NULL)",
                )?
                .execute(params![
                    user,
                    event.position.0,
                    event.organization.to_string(),
                    sealed(&email),
                    name.as_ref().map(sealed),
                    role.as_str(),
                    at,
                    event.sequence,
                ])?;
                return Ok(());
            }
            UserEvent::Renamed { name } => {
                db.prepare_cached("UPDATE user SET name = ?2 WHERE id = ?1")?
                    .execute(params![user, sealed(&name)])?;
            }
            UserEvent::EmailChanged { email } => {
                db.prepare_cached("UPDATE user SET email = ?2 WHERE id = ?1")?
                    .execute(params![user, sealed(&email)])?;
            }
            UserEvent::RoleChanged { role } => {
                db.prepare_cached("UPDATE user SET role = ?2 WHERE id = ?1")?
                    .execute(params![user, role.as_str()])?;
            }
            UserEvent::PasswordChanged { .. } => {
                db.prepare_cached("UPDATE user SET password_position = ?2 WHERE id = ?1")?
                    .execute(params![user, event.position.0])?;
            }
            UserEvent::IdentityLinked { issuer, subject } => {
                db.prepare_cached("UPDATE user SET issuer = ?2, subject = ?3 WHERE id = ?1")?
                    .execute(params![user, issuer, sealed(&subject)])?;
            }
            UserEvent::IdentityUnlinked { .. } => {
                db.prepare_cached(
                    "UPDATE user SET issuer = NULL, subject = NULL, unlinked_position = ?2 WHERE id = ?1",
                )?
                .execute(params![user, event.position.0])?;
            }
            UserEvent::Deleted {} => {
                db.prepare_cached("DELETE FROM user WHERE id = ?1")?.execute([user])?;
                db.prepare_cached("INSERT OR IGNORE INTO deleted_user VALUES (?1)")?
                    .execute([user])?;
            }
            UserEvent::Erased {} => {
                db.prepare_cached("DELETE FROM deleted_user WHERE id = ?1")?.execute([user])?;
            }
        }
        db.prepare_cached("UPDATE user SET updated_at = ?2, sequence = ?3 WHERE id = ?1")?
            .execute(params![user, at, event.sequence])?;
        Ok(())
    }
}

const COLUMNS: &str =
    "id, organization, email, name, role, created_at, updated_at, sequence, issuer, subject";

fn read(row: &Row<'_>) -> rusqlite::Result<User> {
    Ok(User {
        id: id(row, 0)?,
        organization: id(row, 1)?,
        email: row.get(2)?,
        name: row.get(3)?,
        role: role(row, 4)?,
        created_at: row.get(5)?,
        updated_at: row.get(6)?,
        sequence: row.get(7)?,
        identity: Option::zip(row.get(8)?, row.get(9)?),
    })
}

pub(crate) fn role(row: &Row<'_>, column: usize) -> rusqlite::Result<Role> {
    row.get_ref(column)?
        .as_str()?
        .parse()
        .map_err(|_| rusqlite::types::FromSqlError::InvalidType.into())
}

/// A user by its id.
///
/// # Errors
/// The file cannot be read.
pub fn get(db: &Connection, user: Uuid) -> Result<Option<User>, Error> {
    let sql = format!("SELECT {COLUMNS} FROM user WHERE id = ?1");
    Ok(db.prepare_cached(&sql)?.query_row([user.to_string()], read).optional()?)
}

/// Whether something of a deleted user is left to be erased.
///
/// # Errors
/// The file cannot be read.
pub fn is_left(db: &Connection, user: Uuid) -> Result<bool, Error> {
    let mut statement = db.prepare_cached("SELECT 1 FROM deleted_user WHERE id = ?1")?;
    Ok(statement.exists([user.to_string()])?)
}

/// The users of an organization, newest first.
///
/// # Errors
/// The file cannot be read.
pub fn list(db: &Connection, organization: Uuid, window: Window) -> Result<Listing<User>, Error> {
    Query::new(COLUMNS, "user", "position")
        .and("organization = ?", organization.to_string())
        .list(db, window, read)
}
