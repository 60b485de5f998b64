//! API tokens as they are read: for showing, and for letting a request in.

use domain::Scope;
use domain::api_token::{ApiTokenEvent, TokenStatus};
use domain::token_usage::TokenUsageEvent;
use eventlog::RecordedEvent;
use rusqlite::{Connection, OptionalExtension, Row, params};
use serde::Serialize;
use uuid::Uuid;

use crate::columns::{id, json};
use crate::engine::{ReadModel, Writer, stored_time};
use crate::listing::Query;
use crate::{Error, Listing, Window, decode};

/// An API token, without its secret.
#[derive(Clone, Debug, PartialEq, Serialize, utoipa::ToSchema)]
pub struct ApiToken {
    /// Its id.
    pub id: Uuid,
    /// The product that it opens.
    pub product_id: Uuid,
    /// Its name.
    pub name: String,
    /// The part of it that may be shown.
    pub prefix: String,
    /// `active`, `inactive`, `expired` or `revoked`.
    pub status: String,
    /// What it may do.
    #[schema(value_type = Vec<String>)]
    pub scopes: Vec<Scope>,
    /// From which networks it may come; from everywhere when there is none.
    pub allowed_ips: Vec<String>,
    /// When it was made.
    pub created_at: String,
    /// Who made it.
    pub created_by: String,
    /// When it was last changed.
    pub updated_at: String,
    /// When it runs out.
    pub expires_at: Option<String>,
    /// When it was last used.
    pub last_used_at: Option<String>,
    /// How often it was used.
    pub usage_count: u64,
    /// The tenant.
    #[serde(skip)]
    pub organization: Uuid,
    /// What its `ETag` says.
    #[serde(skip)]
    pub sequence: u64,
}

/// The read model of API tokens.
pub struct ApiTokens;

impl ReadModel for ApiTokens {
    fn name(&self) -> &'static str {
        "api_token"
    }

    fn version(&self) -> u32 {
        2
    }

    fn schema(&self) -> &'static str {
        include_str!("../../migrations/views/api_token.sql")
    }

    fn categories(&self) -> &'static [&'static str] {
        &["api_token", "token_usage"]
    }

    fn apply(&self, db: &Writer<'_>, event: &RecordedEvent) -> Result<(), Error> {
        if event.stream.category() == "token_usage" {
            return used(db, event);
        }
        let token = event.stream.id();
        match decode(event)? {
            ApiTokenEvent::Created {
                name,
                prefix,
                secret_hash,
                scopes,
                allowed_ips,
                expires_at,
            } => {
                let product = event
                    .product
                    .ok_or_else(|| Error::Unfit("an API token belongs to a product".into()))?;
                db.prepare_cached(
                    "INSERT INTO api_token (id, position, organization, product, name, prefix, secret_hash, status,
                     scopes, allowed_ips, created_at, created_by, updated_at, expires_at, sequence)
                     VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, 'active', ?8, ?9, ?10, ?11, ?10, ?12, ?13)",
                )?
                .execute(params![
                    token,
                    event.position.0,
                    event.organization.to_string(),
                    product.to_string(),
                    name.as_str(),
                    prefix.as_str(),
                    secret_hash.as_str(),
                    serde_json::to_string(&scopes)?,
                    serde_json::to_string(&allowed_ips)?,
                    stored_time(event.time),
                    event.actor,
                    expires_at.map(|at| at.to_string()),
                    event.sequence,
                ])?;
                return Ok(());
            }
            ApiTokenEvent::Changed { name, scopes, allowed_ips } => {
                db.prepare_cached(
                    "UPDATE api_token SET name = coalesce(?2, name), scopes = coalesce(?3, scopes),
                     allowed_ips = coalesce(?4, allowed_ips) WHERE id = ?1",
                )?
                .execute(params![
                    token,
                    name.as_ref().map(|name| name.as_str()),
                    scopes.map(|scopes| serde_json::to_string(&scopes)).transpose()?,
                    allowed_ips.map(|places| serde_json::to_string(&places)).transpose()?,
                ])?;
            }
            ApiTokenEvent::Activated {} => switch(db, token, TokenStatus::Active)?,
            ApiTokenEvent::Deactivated {} => switch(db, token, TokenStatus::Inactive)?,
            ApiTokenEvent::Revoked {} => set_status(db, token, TokenStatus::Revoked)?,
            ApiTokenEvent::Expired { .. } => set_status(db, token, TokenStatus::Expired)?,
            ApiTokenEvent::Renewed { expires_at } => {
                // What had expired can be used again; what was switched off stays so.
                db.prepare_cached(
                    "UPDATE api_token SET expires_at = ?2, status = CASE WHEN status <> 'expired' THEN status
                     WHEN is_switched_off THEN 'inactive' ELSE 'active' END WHERE id = ?1",
                )?
                .execute(params![token, expires_at.map(|at| at.to_string())])?;
            }
            ApiTokenEvent::Regenerated { prefix, secret_hash, previous_valid_until } => {
                let until = previous_valid_until.map(|until| until.to_string());
                db.prepare_cached(
                    "UPDATE api_token SET prefix = ?2, previous_hash = CASE WHEN ?4 IS NULL THEN NULL ELSE secret_hash END,
                     previous_valid_until = ?4, secret_hash = ?3 WHERE id = ?1",
                )?
                .execute(params![token, prefix.as_str(), secret_hash.as_str(), until])?;
            }
            ApiTokenEvent::Deleted {} => {
                db.prepare_cached("DELETE FROM api_token WHERE id = ?1")?.execute([token])?;
            }
        }
        db.prepare_cached("UPDATE api_token SET updated_at = ?2, sequence = ?3 WHERE id = ?1")?
            .execute(params![token, stored_time(event.time), event.sequence])?;
        Ok(())
    }
}

fn switch(db: &Writer<'_>, token: &str, status: TokenStatus) -> Result<(), Error> {
    db.prepare_cached("UPDATE api_token SET status = ?2, is_switched_off = ?3 WHERE id = ?1")?
        .execute(params![token, status.as_str(), status == TokenStatus::Inactive])?;
    Ok(())
}

fn set_status(db: &Writer<'_>, token: &str, status: TokenStatus) -> Result<(), Error> {
    db.prepare_cached("UPDATE api_token SET status = ?2 WHERE id = ?1")?
        .execute([token, status.as_str()])?;
    Ok(())
}

fn used(db: &Writer<'_>, event: &RecordedEvent) -> Result<(), Error> {
    let TokenUsageEvent::Recorded { uses } = decode(event)?;
    let count: u64 = uses.iter().map(|usage| usage.count).sum();
    let last = uses.iter().map(|usage| usage.last_at).max().map(|at| at.to_string());
    db.prepare_cached(
        "UPDATE api_token SET usage_count = usage_count + ?2, last_used_at = max(coalesce(last_used_at, ''), ?3) WHERE id = ?1",
    )?
    .execute(params![event.stream.id(), count, last])?;
    Ok(())
}

const COLUMNS: &str = "id, organization, product, name, prefix, status, scopes, allowed_ips, created_at, created_by, \
                       updated_at, expires_at, sequence, usage_count, last_used_at";

fn read(row: &Row<'_>) -> rusqlite::Result<ApiToken> {
    Ok(ApiToken {
        id: id(row, 0)?,
        organization: id(row, 1)?,
        product_id: id(row, 2)?,
        name: row.get(3)?,
        prefix: row.get(4)?,
        status: row.get(5)?,
        scopes: json(row, 6)?,
        allowed_ips: json(row, 7)?,
        created_at: row.get(8)?,
        created_by: row.get(9)?,
        updated_at: row.get(10)?,
        expires_at: row.get(11)?,
        sequence: row.get(12)?,
        usage_count: row.get(13)?,
        last_used_at: row.get(14)?,
    })
}

/// A token by its id.
///
/// # Errors
/// The file cannot be read.
pub fn get(db: &Connection, token: Uuid) -> Result<Option<ApiToken>, Error> {
    let sql = format!("SELECT {COLUMNS} FROM api_token WHERE id = ?1");
    Ok(db.prepare_cached(&sql)?.query_row([token.to_string()], read).optional()?)
}

/// A token by the keyed hash of its secret.
///
/// # Errors
/// The file cannot be read.
pub fn by_secret(db: &Connection, secret_hash: &str) -> Result<Option<ApiToken>, Error> {
    let sql = format!("SELECT {COLUMNS} FROM api_token WHERE secret_hash = ?1");
    Ok(db.prepare_cached(&sql)?.query_row([secret_hash], read).optional()?)
}

/// A token by the keyed hash of the secret before its present one, while that is still good.
///
/// # Errors
/// The file cannot be read.
pub fn by_previous_secret(
    db: &Connection,
    secret_hash: &str,
    now: &str,
) -> Result<Option<ApiToken>, Error> {
    let sql = format!(
        "SELECT {COLUMNS} FROM api_token WHERE previous_hash = ?1 AND previous_valid_until > ?2"
    );
    Ok(db.prepare_cached(&sql)?.query_row([secret_hash, now], read).optional()?)
}

/// The tokens of a product, newest first.
///
/// # Errors
/// The file cannot be read.
pub fn list(db: &Connection, product: Uuid, window: Window) -> Result<Listing<ApiToken>, Error> {
    Query::new(COLUMNS, "api_token", "position")
        .and("product = ?", product.to_string())
        .list(db, window, read)
}

/// A token that has run out without anybody having noticed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Due {
    /// Its id.
    pub id: Uuid,
    /// Its tenant.
    pub organization: Uuid,
    /// Its product.
    pub product: Uuid,
    /// When it ran out.
    pub expires_at: String,
}

/// The tokens that have run out by `now` without anybody having noticed, at most 1,000.
///
/// # Errors
/// The file cannot be read.
pub fn due(db: &Connection, now: &str) -> Result<Vec<Due>, Error> {
    let mut statement = db.prepare_cached(
        "SELECT id, organization, product, expires_at FROM api_token
         WHERE status IN ('active', 'inactive') AND expires_at IS NOT NULL AND expires_at <= ?1 LIMIT 1000",
    )?;
    let read = |row: &Row<'_>| {
        Ok(Due {
            id: id(row, 0)?,
            organization: id(row, 1)?,
            product: id(row, 2)?,
            expires_at: row.get(3)?,
        })
    };
    let rows = statement.query_map([now], read)?;
    Ok(rows.collect::<Result<_, _>>()?)
}
