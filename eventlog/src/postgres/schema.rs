//! Brings the database's schema up to date.
//!
//! The rule of this file: migrations only go forward, all that are missing in one transaction, and
//! under a lock: of several nodes that start at once one migrates, the others find it done.

use sqlx::{Connection, PgConnection};

use super::failure::Moment;
use super::server::{Purpose, Server, run};
use crate::Error;

/// One entry for each schema number, from 1.
const MIGRATIONS: &[&str] = &[
    include_str!("../../../migrations/events/postgres/0001_event_log.sql"),
    include_str!("../../../migrations/events/postgres/0002_workers.sql"),
];

/// The newest schema that this build knows.
const KNOWN: u32 = MIGRATIONS.len() as u32;

/// What all nodes lock while they migrate ("prodgy" in ASCII).
const LOCK: i64 = 0x7072_6f64_6779;

/// The oldest server that can run what the migrations hold.
const OLDEST_SERVER: i32 = 120_000;

/// Makes or upgrades the schema. A reader only checks it.
pub(super) async fn prepare(server: &Server) -> Result<(), Error> {
    let mut connection = server.connect(Purpose::Migrating).await?;
    let failed = |error| server.explain(error, Moment::Asking);
    let found = version(&mut connection).await.map_err(failed)?;
    if found > KNOWN {
        return Err(Error::Newer { found, known: KNOWN });
    }
    if server.options.read_only && found == 0 {
        return Err(Error::Missing(format!("{}/{}", server.address, server.database)));
    }
    // Whoever only reads needs no more than the first.
    if found < KNOWN && !server.options.read_only {
        check(&mut connection, server).await?;
        migrate(&mut connection, server).await?;
    }
    // Nothing is left to do where it is gone already.
    let _ = connection.close().await;
    Ok(())
}

async fn check(connection: &mut PgConnection, server: &Server) -> Result<(), Error> {
    let sql =
        "SELECT current_setting('server_version_num')::int, current_setting('server_encoding')";
    let (number, encoding): (i32, String) = sqlx::query_as(sql)
        .fetch_one(connection)
        .await
        .map_err(|error| server.explain(error, Moment::Asking))?;
    if number < OLDEST_SERVER {
        return Err(Error::Unsuitable(format!(
            "its PostgreSQL is {}, at least 12 is needed",
            number / 10_000
        )));
    }
    if encoding != "UTF8" {
        return Err(Error::Unsuitable(format!(
            "its encoding is {encoding}: make one with `createdb --encoding UTF8 --template template0`"
        )));
    }
    Ok(())
}

async fn migrate(connection: &mut PgConnection, server: &Server) -> Result<(), Error> {
    let failed = |error: sqlx::Error| match error.as_database_error().and_then(|e| e.code()) {
        // A table, a type or a function of that name is there.
        Some(code) if matches!(&*code, "42P07" | "42710" | "42723") => Error::Unsuitable(format!(
            "it holds something of the same name, give the log a database of its own: {error}"
        )),
        _ => server.explain(error, Moment::Asking),
    };
    let mut transaction = connection.begin().await.map_err(failed)?;
    sqlx::query("SELECT pg_advisory_xact_lock($1)")
        .bind(LOCK)
        .execute(&mut *transaction)
        .await
        .map_err(failed)?;
    // Read again: now nobody else can change it.
    let found = version(&mut transaction).await.map_err(failed)?;
    if found > KNOWN {
        return Err(Error::Newer { found, known: KNOWN });
    }
    // Another node, that had the lock before, may have done it all.
    if found == 0 {
        let sql = "CREATE TABLE event_log_schema (
            version integer PRIMARY KEY, applied_at timestamptz NOT NULL DEFAULT now())";
        run(&mut transaction, sql).await.map_err(failed)?;
    }
    for (number, migration) in (1_i32..).zip(MIGRATIONS).skip(found as usize) {
        run(&mut transaction, migration).await.map_err(failed)?;
        sqlx::query("INSERT INTO event_log_schema (version) VALUES ($1)")
            .bind(number)
            .execute(&mut *transaction)
            .await
            .map_err(failed)?;
    }
    transaction.commit().await.map_err(failed)
}

/// The schema's number; 0 where there is none.
async fn version(connection: &mut PgConnection) -> sqlx::Result<u32> {
    // Asked of the catalogue as a table: a look-up by name may be answered from what this session
    // knew before another node made it.
    let sql = "SELECT EXISTS (
        SELECT FROM pg_class WHERE relname = 'event_log_schema' AND pg_table_is_visible(oid))";
    let is_there: bool = sqlx::query_scalar(sql).fetch_one(&mut *connection).await?;
    if !is_there {
        return Ok(0);
    }
    let version: Option<i32> = sqlx::query_scalar("SELECT max(version) FROM event_log_schema")
        .fetch_one(connection)
        .await?;
    Ok(version.unwrap_or(0).unsigned_abs())
}
