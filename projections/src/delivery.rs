//! Deliveries as they are read: what came in at a webhook, and what became of it.

use domain::delivery::DeliveryEvent;
use eventlog::RecordedEvent;
use rusqlite::{Connection, OptionalExtension, Row, params};
use uuid::Uuid;

use crate::columns::{id, optional_id, optional_json};
use crate::engine::{ReadModel, Writer, stored_time};
use crate::execution::SealedPayload;
use crate::listing::Query;
use crate::{Error, Listing, Window, decode};

/// What came in at a webhook.
#[derive(Clone, Debug, PartialEq)]
pub struct Delivery {
    /// Its id.
    pub id: Uuid,
    /// The tenant.
    pub organization: Uuid,
    /// The product.
    pub product: Uuid,
    /// The trigger that it came to.
    pub trigger: Uuid,
    /// How it was verified.
    pub verify: String,
    /// How long its body is, in bytes.
    pub size: u64,
    /// `received`, `started`, `filtered` or `failed`.
    pub status: String,
    /// The execution that it started.
    pub execution: Option<Uuid>,
    /// Why it failed.
    pub code: Option<String>,
    /// Field `error` of its stream.
    pub error: Option<SealedPayload>,
    /// Its id, the headers that matter, and its body: field `content` of its stream.
    pub content: Option<SealedPayload>,
    /// When it came in.
    pub received_at: String,
    /// When it was worked on.
    pub settled_at: Option<String>,
}

/// The read model of deliveries.
pub struct Deliveries;

impl ReadModel for Deliveries {
    fn name(&self) -> &'static str {
        "delivery"
    }

    fn version(&self) -> u32 {
        1
    }

    fn schema(&self) -> &'static str {
        include_str!("../../migrations/views/delivery.sql")
    }

    fn categories(&self) -> &'static [&'static str] {
        &["delivery"]
    }

    fn apply(&self, db: &Writer<'_>, event: &RecordedEvent) -> Result<(), Error> {
        let (status, execution, failure) = match decode(event)? {
            DeliveryEvent::Received(receipt) => {
                let product = event
                    .product
                    .ok_or_else(|| Error::Unfit("a delivery belongs to a product".into()))?;
                let content = SealedPayload {
                    event_type: event.event_type.clone(),
                    payload: receipt.content,
                };
                db.prepare_cached(
                    "INSERT INTO delivery (id, position, organization, product, trigger_id, verify, size, status,
                     content, received_at)
                     VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, 'received', ?8, ?9)",
                )?
                .execute(params![
                    event.stream.id(),
                    event.position.0,
                    event.organization.to_string(),
                    product.to_string(),
                    receipt.trigger.to_string(),
                    receipt.verify,
                    receipt.size,
                    serde_json::to_string(&content)?,
                    stored_time(event.time),
                ])?;
                return Ok(());
            }
            DeliveryEvent::Started { execution } => ("started", Some(execution), None),
            DeliveryEvent::Filtered {} => ("filtered", None, None),
            DeliveryEvent::Failed { code, error } => ("failed", None, Some((code, error))),
        };
        let (code, error) = failure.unzip();
        let event_type = event.event_type.clone();
        let error = error.map(|payload| SealedPayload { event_type, payload });
        db.prepare_cached(
            "UPDATE delivery SET status = ?2, execution = ?3, code = ?4, error = ?5, settled_at = ?6
             WHERE id = ?1",
        )?
        .execute(params![
            event.stream.id(),
            status,
            execution.map(|id| id.to_string()),
            code,
            error.map(|error| serde_json::to_string(&error)).transpose()?,
            stored_time(event.time),
        ])?;
        Ok(())
    }
}

const COLUMNS: &str = "id, organization, product, trigger_id, verify, size, status, execution, code, error, content, \
                       received_at, settled_at";

fn read(row: &Row<'_>) -> rusqlite::Result<Delivery> {
    Ok(Delivery {
        id: id(row, 0)?,
        organization: id(row, 1)?,
        product: id(row, 2)?,
        trigger: id(row, 3)?,
        verify: row.get(4)?,
        size: row.get(5)?,
        status: row.get(6)?,
        execution: optional_id(row, 7)?,
        code: row.get(8)?,
        error: optional_json(row, 9)?,
        content: optional_json(row, 10)?,
        received_at: row.get(11)?,
        settled_at: row.get(12)?,
    })
}

/// A delivery by its id.
///
/// # Errors
/// The file cannot be read.
pub fn get(db: &Connection, delivery: Uuid) -> Result<Option<Delivery>, Error> {
    let sql = format!("SELECT {COLUMNS} FROM delivery WHERE id = ?1");
    Ok(db.prepare_cached(&sql)?.query_row([delivery.to_string()], read).optional()?)
}

/// The deliveries that came to a trigger, newest first.
///
/// # Errors
/// The file cannot be read.
pub fn of_trigger(
    db: &Connection,
    trigger: Uuid,
    window: Window,
) -> Result<Listing<Delivery>, Error> {
    Query::new(COLUMNS, "delivery", "position")
        .and("trigger_id = ?", trigger.to_string())
        .list(db, window, read)
}

/// The deliveries that were not worked on, with their products, oldest first.
///
/// # Errors
/// The file cannot be read.
pub(crate) fn unsettled(db: &Connection) -> Result<Vec<(Uuid, Uuid)>, Error> {
    let mut statement =
        db.prepare("SELECT id, product FROM delivery WHERE status = 'received' ORDER BY position")?;
    let rows = statement.query_map([], |row| Ok((id(row, 0)?, id(row, 1)?)))?;
    Ok(rows.collect::<Result<_, _>>()?)
}
