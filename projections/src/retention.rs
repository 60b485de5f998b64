//! Which deleted files have been kept for as long as the rules of their products say.
//!
//! The rule of this file: a rule that is set later, or changed, reaches what was deleted before.

use chrono::{DateTime, TimeDelta, Utc};
use rusqlite::{Connection, params};
use uuid::Uuid;

use crate::columns::id;
use crate::{Error, stored_time};

/// What the rules ask for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Due {
    /// Files that are to be erased, of one product after the other, oldest deletion first, with their products.
    pub files: Vec<(Uuid, Uuid)>,
    /// When the next of the others is, where that is known.
    pub next: Option<DateTime<Utc>>,
}

/// The files whose erasure the rules ask for now: as many as may be added to those that are being erased, for these to
/// be no more than `most`.
///
/// # Errors
/// The views file cannot be read.
pub fn due(db: &Connection, now: DateTime<Utc>, most: usize) -> Result<Due, Error> {
    let snapshot = db.unchecked_transaction()?;
    let erasing = "SELECT count(*) FROM deleted_file WHERE state = 'erasing'";
    let erasing: usize = snapshot.prepare_cached(erasing)?.query_row([], |row| row.get(0))?;
    let mut rules = snapshot.prepare_cached(
        "SELECT id, deleted_files_days FROM product WHERE deleted_files_days IS NOT NULL ORDER BY position",
    )?;
    let mut past = snapshot.prepare_cached(
        "SELECT id FROM deleted_file WHERE product = ?1 AND state = 'deleted' AND at <= ?2 ORDER BY at, id LIMIT ?3",
    )?;
    let mut coming = snapshot.prepare_cached(
        "SELECT min(at) FROM deleted_file WHERE product = ?1 AND state = 'deleted' AND at > ?2",
    )?;
    let mut due = Due::default();
    let rules = rules.query_map([], |row| Ok((id(row, 0)?, row.get::<_, i64>(1)?)))?;
    for rule in rules {
        let (product, days) = rule?;
        // Before what can be counted nothing was deleted.
        let Some(kept) = TimeDelta::try_days(days) else { continue };
        let Some(last) = now.checked_sub_signed(kept) else { continue };
        let last = stored_time(last);
        let room = most.saturating_sub(erasing + due.files.len());
        let files = past.query_map(params![product.to_string(), last, room], |row| id(row, 0))?;
        for file in files {
            due.files.push((file?, product));
        }
        let next: Option<String> =
            coming.query_row([&product.to_string(), &last], |row| row.get(0))?;
        let next = next.and_then(|deleted| deleted.parse::<DateTime<Utc>>().ok());
        let next = next.and_then(|deleted| deleted.checked_add_signed(kept));
        due.next = [due.next, next].into_iter().flatten().min();
    }
    Ok(due)
}

#[cfg(test)]
mod tests;
