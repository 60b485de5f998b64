//! Which workers live: a row for each, that it counts up.
//!
//! The rule of this file: nothing of it is in the log, and an append never waits for it.

use sqlx::{PgConnection, Row};
use tokio::sync::Mutex;
use uuid::Uuid;

use std::sync::Arc;

use super::failure::Moment;
use super::server::{Purpose, Server};
use crate::{Error, Pulse};

/// A beat, and what was heard of everybody before it. Whoever was silent for longer than any lease lasts
/// is forgotten.
const BEAT: &str = "
    WITH own AS (
        INSERT INTO event_log_worker AS worker (id, beats) VALUES ($1, 1)
        ON CONFLICT (id) DO UPDATE SET beats = worker.beats + 1, has_left = false, heard_at = now()
    ), forgotten AS (
        DELETE FROM event_log_worker WHERE heard_at < now() - interval '2 days' AND id <> $1
    )
    SELECT id, beats, has_left FROM event_log_worker";

const LEAVE: &str = "UPDATE event_log_worker SET has_left = true WHERE id = $1";

/// The connection that beats, made when it is needed.
pub(super) struct Workers {
    server: Arc<Server>,
    connection: Mutex<Option<PgConnection>>,
}

impl Workers {
    pub(super) fn new(server: Arc<Server>) -> Workers {
        Workers { server, connection: Mutex::default() }
    }

    /// Beats, and answers what all others' rows say.
    pub(super) async fn beat(&self, worker: Uuid) -> Result<Vec<Pulse>, Error> {
        let mut place = self.connection.lock().await;
        // One that fails is not used again.
        let mut connection = match place.take() {
            Some(connection) => connection,
            None => self.server.connect(Purpose::Appending).await?,
        };
        let asked = sqlx::query(BEAT).bind(worker).fetch_all(&mut connection);
        let pulses = self.server.within(asked).await.and_then(|rows| {
            let pulse = |row: &sqlx::postgres::PgRow| {
                Ok(Pulse {
                    worker: row.try_get("id")?,
                    beats: row.try_get::<i64, _>("beats")?.unsigned_abs(),
                    has_left: row.try_get("has_left")?,
                })
            };
            rows.iter().map(pulse).collect::<sqlx::Result<Vec<_>>>()
        });
        let pulses = pulses.map_err(|error| self.server.explain(error, Moment::Asking))?;
        *place = Some(connection);
        Ok(pulses)
    }

    /// Says that a worker has stopped.
    pub(super) async fn leave(&self, worker: Uuid) -> Result<(), Error> {
        let mut place = self.connection.lock().await;
        // Whoever never beat is not there.
        let Some(mut connection) = place.take() else { return Ok(()) };
        let said = sqlx::query(LEAVE).bind(worker).execute(&mut connection);
        let said = self.server.within(said).await;
        said.map_err(|error| self.server.explain(error, Moment::Asking)).map(drop)
    }
}
