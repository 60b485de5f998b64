//! Requests to stop several executions, as far as they were not finished: for who finishes them after a cut.

use domain::bulk_stop::BulkStopEvent;
use eventlog::RecordedEvent;
use rusqlite::params;

use crate::engine::{ReadModel, Writer};
use crate::{Error, decode};

/// The read model of what is being stopped.
pub struct BulkStops;

impl ReadModel for BulkStops {
    fn name(&self) -> &'static str {
        "bulk_stop"
    }

    fn version(&self) -> u32 {
        1
    }

    fn schema(&self) -> &'static str {
        include_str!("../../migrations/views/bulk_stop.sql")
    }

    fn categories(&self) -> &'static [&'static str] {
        &["bulk_stop"]
    }

    fn apply(&self, db: &Writer<'_>, event: &RecordedEvent) -> Result<(), Error> {
        let id = event.stream.id();
        match decode(event)? {
            BulkStopEvent::Requested { .. } => {
                db.prepare_cached("INSERT INTO bulk_stop VALUES (?1, ?2)")?
                    .execute(params![id, event.position.0])?;
            }
            BulkStopEvent::Finished { .. } => {
                db.prepare_cached("DELETE FROM bulk_stop WHERE id = ?1")?.execute([id])?;
            }
        }
        Ok(())
    }
}
