//! The table as it is filled with another log's events.
//!
//! The rule of this file: under the lock that all nodes share, the log ends where it was left.

use async_trait::async_trait;
use sqlx::{Connection, PgConnection};

use super::failure::Moment;
use super::plan::Columns;
use super::reader::{self, Question};
use super::server::{Purpose, Server, run};
use super::{PostgresOptions, schema};
use crate::importer::{End, ImportError, Target, with_commands};
use crate::{Error, Position, RecordedEvent};

/// See [`crate::Importer`].
pub(crate) struct PostgresImporter {
    server: Server,
    connection: PgConnection,
}

impl PostgresImporter {
    /// Opens the database, makes the tables where there are none; says where its log ends.
    pub async fn open(
        url: &str,
        options: PostgresOptions,
    ) -> Result<(PostgresImporter, End), Error> {
        let server = Server::new(url, options)?;
        schema::prepare(&server).await?;
        let mut connection = server.connect(Purpose::Appending).await?;
        let newest = Question::LastUpTo(u64::MAX).ask(&mut connection).await;
        let newest = newest.map_err(|error| server.explain(error, Moment::Asking))?;
        let newest = newest.first().map(|row| reader::event(row, 0, &server)).transpose()?;
        let end = newest.map_or(End::default(), |newest| End::at(&newest));
        Ok((PostgresImporter { server, connection }, end))
    }
}

#[async_trait]
impl Target for PostgresImporter {
    async fn write(&mut self, events: &[RecordedEvent], end: End) -> Result<(), ImportError> {
        let (Some(first), Some(last)) = (events.first(), events.last()) else { return Ok(()) };
        let server = &self.server;
        let stored = server.within(insert(&mut self.connection, events, end)).await;
        match stored {
            Ok(true) => Ok(()),
            Ok(false) => Err(ImportError::not_alone()),
            Err(error) => match &error {
                sqlx::Error::Database(refusal) if refusal.is_unique_violation() => {
                    Err(ImportError::taken(first.position, last.position))
                }
                _ => Err(server.explain(error, Moment::Asking).into()),
            },
        }
    }
}

/// Inserts events in one transaction; `false`, and nothing is stored, where the log ends elsewhere.
async fn insert(
    connection: &mut PgConnection,
    events: &[RecordedEvent],
    end: End,
) -> sqlx::Result<bool> {
    let mut transaction = connection.begin().await?;
    run(&mut transaction, "SELECT FROM event_log_head WHERE only_row FOR UPDATE").await?;
    let rows = Question::Head.ask(&mut transaction).await?;
    let found = rows.first().map_or(Ok(0), |row| reader::number(row, 0))?;
    if Position(found) != end.position {
        return Ok(false);
    }
    let positions: Vec<i64> = events.iter().map(|event| event.position.0 as i64).collect();
    let columns = Columns::of(with_commands(events, end.command));
    sqlx::query(
        "INSERT INTO event_log
             (position, aggregate_type, aggregate_id, sequence, event_type, command, envelope)
         SELECT * FROM unnest($1::bigint[], $2::text[], $3::text[], $4::bigint[], $5::text[], $6::uuid[], $7::text[])",
    )
    .bind(&positions)
    .bind(&columns.aggregate_types)
    .bind(&columns.aggregate_ids)
    .bind(&columns.sequences)
    .bind(&columns.event_types)
    .bind(&columns.commands)
    .bind(&columns.envelopes)
    .execute(&mut *transaction)
    .await?;
    transaction.commit().await?;
    Ok(true)
}
