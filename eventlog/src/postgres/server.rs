//! The database server: how it is reached, and the connections that ask it.
//!
//! The rule of this file: every wait has an end, and what fails is explained with the address and
//! never with the password.

use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use parking_lot::Mutex;
use sqlx::postgres::{PgConnectOptions, PgRow};
use sqlx::{ConnectOptions, Connection, Executor, PgConnection};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::PostgresOptions;
use super::failure::{self, Moment};
use super::reader::Question;
use crate::Error;

/// How much longer than its time-out a statement is waited for, since the server should be the one
/// to end it.
const GRACE: Duration = Duration::from_secs(2);

/// What a connection is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// It only reads; the server itself refuses anything else.
    Reading,
    /// It appends.
    Appending,
    /// It brings the schema up to date, which takes the time it takes.
    Migrating,
}

/// A server by its address.
pub(super) struct Server {
    connect: PgConnectOptions,
    pub options: PostgresOptions,
    /// Host and port, or the socket: what an error may show.
    pub address: String,
    pub user: String,
    pub database: String,
}

impl Server {
    /// Reads an address; asks nobody yet.
    pub fn new(url: &str, options: PostgresOptions) -> Result<Server, Error> {
        let connect = PgConnectOptions::from_str(url).map_err(|error| {
            Error::Address(format!(
                "the address of the event log is no PostgreSQL address, as postgres://user:password@host:5432/database?sslmode=require: {error}"
            ))
        })?;
        let connect = connect.application_name("prodgy").disable_statement_logging();
        let address = match connect.get_socket() {
            Some(socket) => socket.display().to_string(),
            None => format!("{}:{}", connect.get_host(), connect.get_port()),
        };
        let user = connect.get_username().to_owned();
        let database = connect.get_database().unwrap_or(&user).to_owned();
        Ok(Server { connect, options, address, user, database })
    }

    /// How a library that opens its own connections reaches the same database.
    pub fn connect_options(&self) -> PgConnectOptions {
        self.connect.clone()
    }

    /// Opens a connection.
    pub async fn connect(&self, purpose: Purpose) -> Result<PgConnection, Error> {
        let opening = async {
            let mut connection = self.connect.connect().await?;
            run(&mut connection, &self.session(purpose)).await?;
            Ok(connection)
        };
        match timeout(self.options.connect_timeout, opening).await {
            Ok(Ok(connection)) => Ok(connection),
            Ok(Err(error)) => Err(self.explain(error, Moment::Connecting)),
            Err(_) => Err(self.explain(sqlx::Error::PoolTimedOut, Moment::Connecting)),
        }
    }

    /// Waits for an answer, but not for ever: a server that is cut off says nothing at all.
    pub async fn within<T>(
        &self,
        asking: impl Future<Output = sqlx::Result<T>>,
    ) -> sqlx::Result<T> {
        timeout(self.options.statement_timeout + GRACE, asking)
            .await
            .unwrap_or(Err(sqlx::Error::PoolTimedOut))
    }

    /// What a failure means to whoever hears of it.
    pub fn explain(&self, error: sqlx::Error, moment: Moment) -> Error {
        failure::explain(error, self, moment)
    }

    /// What is set in each session. All that is asked here goes by an index; a plan that was made
    /// while the table was small must not read it whole when it has grown.
    fn session(&self, purpose: Purpose) -> String {
        let limit = match purpose {
            Purpose::Migrating => 0,
            Purpose::Reading | Purpose::Appending => self.options.statement_timeout.as_millis(),
        };
        let mut settings = vec![
            ("statement_timeout", limit.to_string()),
            ("idle_in_transaction_session_timeout", limit.to_string()),
            ("default_transaction_isolation", "read committed".into()),
        ];
        if purpose == Purpose::Reading {
            settings.push(("default_transaction_read_only", "on".into()));
        }
        if purpose != Purpose::Migrating {
            for planner in ["enable_seqscan", "enable_hashjoin", "enable_mergejoin", "jit"] {
                settings.push((planner, "off".into()));
            }
            settings.push(("plan_cache_mode", "force_generic_plan".into()));
        }
        let mut sql = String::from("SELECT ");
        for (name, value) in settings {
            sql.push_str(&format!("set_config('{name}', '{value}', false), "));
        }
        // Acknowledged is durable, even where the database as a whole is told otherwise.
        sql.push_str(
            "CASE current_setting('synchronous_commit') WHEN 'off'
             THEN set_config('synchronous_commit', 'on', false) END",
        );
        sql
    }
}

/// Runs statements without parameters, one after the other.
pub(super) fn run<'a>(
    connection: &'a mut PgConnection,
    sql: &'a str,
) -> BoxFuture<'a, sqlx::Result<()>> {
    Box::pin(async move { connection.execute(sql).await.map(drop) })
}

/// Connections that only read. A few are kept; those that turn out to be dead are replaced.
pub(super) struct Connections {
    server: Arc<Server>,
    permits: Semaphore,
    idle: Mutex<Vec<PgConnection>>,
}

impl Connections {
    pub fn new(server: Arc<Server>) -> Self {
        let permits = Semaphore::new(server.options.connections.max(1));
        Connections { server, permits, idle: Mutex::default() }
    }

    /// Asks something on a connection of its own. A connection that has died since it was used last
    /// is not the question's fault: it is asked again on a new one.
    pub async fn rows(&self, question: Question<'_>) -> Result<Vec<PgRow>, Error> {
        let server = &self.server;
        let Ok(permit) = timeout(server.options.connect_timeout, self.permits.acquire()).await
        else {
            return Err(server.explain(sqlx::Error::PoolTimedOut, Moment::Waiting));
        };
        let _permit = permit.map_err(|_| Error::Closed)?;
        loop {
            let kept = self.idle.lock().pop();
            let was_kept = kept.is_some();
            let mut connection = match kept {
                Some(connection) => connection,
                None => server.connect(Purpose::Reading).await?,
            };
            match server.within(question.ask(&mut connection)).await {
                Ok(rows) => {
                    self.idle.lock().push(connection);
                    return Ok(rows);
                }
                Err(error) if was_kept && failure::is_lost(&error) => self.idle.lock().clear(),
                Err(error) => {
                    if !failure::is_lost(&error) {
                        self.idle.lock().push(connection);
                    }
                    return Err(server.explain(error, Moment::Asking));
                }
            }
        }
    }

    /// Closes the connections that are idle.
    pub async fn close(&self) {
        let idle = std::mem::take(&mut *self.idle.lock());
        for connection in idle {
            // Nothing is left to do where it is gone already.
            let _ = connection.close().await;
        }
    }
}
