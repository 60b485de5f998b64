//! Conversations: in which of them something is left to do or to say. What was said is in the log, sealed.

use domain::conversation::{Conversation, Talk};
use eventlog::RecordedEvent;
use rusqlite::{Connection, OptionalExtension, params};
use uuid::Uuid;

use crate::columns::{id, json};
use crate::engine::ReadModel;
use crate::{Error, decode};

/// The read model of conversations.
pub struct Conversations;

impl ReadModel for Conversations {
    fn name(&self) -> &'static str {
        "conversation"
    }

    fn version(&self) -> u32 {
        1
    }

    fn schema(&self) -> &'static str {
        include_str!("../../migrations/views/conversation.sql")
    }

    fn categories(&self) -> &'static [&'static str] {
        &["conversation"]
    }

    /// Folds the stream with the domain's own code.
    fn apply(&self, db: &Connection, event: &RecordedEvent) -> Result<(), Error> {
        let stream = event.stream.id();
        let known: Option<Conversation> = db
            .prepare_cached("SELECT state FROM conversation WHERE id = ?1")?
            .query_row([stream], |row| json(row, 0))
            .optional()?;
        let mut state = known.unwrap_or_default();
        state.remember(decode(event)?);
        let product = event
            .product
            .ok_or_else(|| Error::Unfit("a conversation belongs to a product".into()))?;
        db.prepare_cached(
            "INSERT INTO conversation (id, position, product, state, is_unfinished)
             VALUES (?1, ?2, ?3, ?4, ?5)
             ON CONFLICT (id) DO UPDATE SET state = ?4, is_unfinished = ?5",
        )?
        .execute(params![
            stream,
            event.position.0,
            product.to_string(),
            serde_json::to_string(&state)?,
            state.talk().is_some_and(Talk::is_unfinished),
        ])?;
        Ok(())
    }
}

/// The conversations in which something is left to do or to say, with their products, oldest first. Of
/// products that are gone nobody says anything.
///
/// # Errors
/// The file cannot be read.
pub(crate) fn unfinished(db: &Connection) -> Result<Vec<(Uuid, Uuid)>, Error> {
    let mut statement = db.prepare(
        "SELECT id, product FROM conversation WHERE is_unfinished
         AND EXISTS (SELECT 1 FROM product WHERE product.id = conversation.product) ORDER BY position",
    )?;
    let rows = statement.query_map([], |row| Ok((id(row, 0)?, id(row, 1)?)))?;
    Ok(rows.collect::<Result<_, _>>()?)
}
