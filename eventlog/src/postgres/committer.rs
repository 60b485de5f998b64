//! The one task of this node that writes: it takes the appends that have queued and commits them
//! as one group, under the lock that all nodes share.
//!
//! The rule of this file: nothing is answered, shown to a reader or remembered before its commit
//! is durable. A command that is refused fails alone; a commit that fails, fails its whole group;
//! one of which nobody knows whether it failed is looked up, under the lock, before it is answered.
//!
//! There are two ways to commit. As long as nobody else writes, this node knows where the log ends,
//! and one statement that checks just that stores a group. Where that does not hold, or a command
//! of the group is refused, the group is committed in steps: lock, look, append, commit.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use chrono::{DateTime, Utc};
use sqlx::{Connection, PgConnection, Row};
use tokio::sync::mpsc;
use tokio::time::Instant;
use uuid::Uuid;

use super::Shared;
use super::failure::{self, Moment};
use super::plan::{Columns, Known, Plan};
use super::reader::{self, OF_COMMANDS};
use super::server::{Purpose, Server, run};
use crate::error::chain;
use crate::group::{GROUP, Head, Outcome, Request, StreamLengths, fail};
use crate::importer::with_commands;
use crate::{Error, Expected, Position, RecordedEvent};

/// How long to rest between two attempts to reach a server that has gone away in a commit.
const REST: Duration = Duration::from_millis(100);

/// What a row of [`LOOK`] holds: the newest event, a stream's length, or an event of a command.
const NEWEST: i32 = 0;
const LENGTH: i32 = 1;

/// Asks for all that a group needs to know, at once.
static LOOK: LazyLock<String> = LazyLock::new(|| {
    format!(
        "(SELECT {NEWEST}, 0::bigint, position, envelope FROM event_log ORDER BY position DESC LIMIT 1)
         UNION ALL
         SELECT {LENGTH}, stream.place, coalesce(
             (SELECT max(sequence) FROM event_log
              WHERE aggregate_type = stream.type AND aggregate_id = stream.id), 0), NULL
         FROM unnest($2::text[], $3::text[]) WITH ORDINALITY AS stream (type, id, place)
         UNION ALL
         SELECT 2, 0, stored.position, stored.envelope FROM ({OF_COMMANDS}) AS stored"
    )
});

/// Owns the connection that writes, and what this node knows of the log's end.
pub(super) struct Committer {
    server: Arc<Server>,
    shared: Arc<Shared>,
    /// `None` until something is to be written, and after it broke.
    connection: Option<PgConnection>,
    /// The newest event as this node left it. `None` after a failure: asked for before use.
    head: Option<Head>,
    streams: StreamLengths,
    /// Nobody else wrote between the last two groups of this node.
    is_alone: bool,
}

/// Why a group was not committed.
enum Failure {
    /// Nothing of it was stored.
    Undone(Error),
    /// The connection broke at a moment when it may have been stored, or not.
    Unknown,
}

/// Events that were sent when a connection broke, by place and time: what is found stored of them
/// was stored by that attempt and by nobody else.
type Sent = HashSet<(Uuid, Position, DateTime<Utc>)>;

impl Committer {
    pub fn new(server: Arc<Server>, shared: Arc<Shared>) -> Self {
        Committer {
            server,
            shared,
            connection: None,
            head: None,
            streams: StreamLengths::default(),
            is_alone: true,
        }
    }

    /// Works until every sender is gone and the queue is empty.
    ///
    /// It never waits for a group to fill: a lone caller is committed at once, and while that
    /// commit is under way the next group gathers by itself.
    pub async fn run(mut self, mut queue: mpsc::Receiver<Request>) {
        let mut group = Vec::with_capacity(GROUP);
        while queue.recv_many(&mut group, GROUP).await > 0 {
            if let Err(error) = self.commit(&mut group).await {
                let cause = chain(&error);
                tracing::error!(cause, commands = group.len(), "a commit failed");
                fail(&mut group, || error.again());
                match self.connect().await {
                    Ok(connection) => self.connection = Some(connection),
                    // Whoever waits behind would fail alike, after waiting as long again.
                    Err(error) => {
                        while let Ok(request) = queue.try_recv() {
                            group.push(request);
                        }
                        fail(&mut group, || error.again());
                    }
                }
            }
        }
        if let Some(connection) = self.connection {
            // Nothing is left to do where it is gone already.
            let _ = connection.close().await;
        }
    }

    /// Opens the connection that writes.
    async fn connect(&self) -> Result<PgConnection, Error> {
        let mut connection = self.server.connect(Purpose::Appending).await?;
        let asked = sqlx::query_scalar("SELECT pg_backend_pid()").fetch_one(&mut connection);
        let process: i32 = self
            .server
            .within(asked)
            .await
            .map_err(|error| self.server.explain(error, Moment::Connecting))?;
        self.shared.appender.store(process.unsigned_abs(), Relaxed);
        Ok(connection)
    }

    /// Commits a group and answers its commands.
    async fn commit(&mut self, group: &mut Vec<Request>) -> Result<(), Error> {
        let deadline = Instant::now() + self.server.options.outcome_timeout;
        let mut sent = Sent::new();
        let mut outcomes = loop {
            let was_connected = self.connection.is_some();
            match self.write(group, !sent.is_empty()).await {
                Ok(outcomes) => break outcomes,
                // A connection that has died since the last group, or leads to a server that no
                // longer writes, is not this group's fault: it is dropped, and a new one is tried.
                Err(Failure::Undone(Error::Unavailable { .. } | Error::ReadOnlyServer { .. }))
                    if was_connected => {}
                // Once something may have been stored, it is asked for until the time is over.
                Err(Failure::Undone(error)) if sent.is_empty() => return Err(error),
                Err(Failure::Undone(_)) => tokio::time::sleep(REST).await,
                Err(Failure::Unknown) => {
                    tracing::warn!(
                        "the connection broke in a commit: looking up what became of it"
                    );
                    sent.extend(group.iter().flat_map(Request::events).map(place));
                }
            }
            if Instant::now() >= deadline && !sent.is_empty() {
                return Err(Error::Unanswered { address: self.server.address.clone() });
            }
        };
        for appended in outcomes.iter_mut().flatten() {
            if appended.replayed
                && appended.events.first().is_some_and(|e| sent.contains(&place(e)))
            {
                appended.replayed = false;
            }
        }
        // A replayed command too: it may be one whose outcome was never found out, and of which
        // this node has therefore not heard yet.
        let stored = outcomes.iter().flatten().flat_map(|appended| &appended.events);
        let mut stored: Vec<Arc<RecordedEvent>> = stored.cloned().collect();
        stored.sort_by_key(|event| event.position);
        self.shared.publish(stored);
        for (request, outcome) in group.drain(..).zip(outcomes) {
            request.answer(outcome);
        }
        Ok(())
    }

    /// Stores a group in the quickest way that is sound.
    async fn write(
        &mut self,
        group: &mut [Request],
        is_second_try: bool,
    ) -> Result<Vec<Outcome>, Failure> {
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => self.connect().await.map_err(Failure::Undone)?,
        };
        let mut outcomes = None;
        if !is_second_try && self.is_alone {
            outcomes = self.at_once(&mut connection, group).await.map_err(|f| self.forget(f))?;
        }
        let outcomes = match outcomes {
            Some(outcomes) => outcomes,
            None => self.in_steps(&mut connection, group).await.map_err(|f| self.forget(f))?,
        };
        self.connection = Some(connection);
        Ok(outcomes)
    }

    /// Stores a group by one statement that finds out by itself whether the log is as it was left.
    /// `None`, and nothing was stored, where it is not, or where there is more to say than "stored".
    async fn at_once(
        &mut self,
        connection: &mut PgConnection,
        group: &mut [Request],
    ) -> Result<Option<Vec<Outcome>>, Failure> {
        let Some(head) = self.head else { return Ok(None) };
        let mut lengths = HashMap::new();
        for request in group.iter() {
            match (self.streams.get(request.stream()), request.expected()) {
                (Some(length), _) => {
                    lengths.insert(request.stream().clone(), length);
                }
                (None, Expected::Sequence(_)) => {}
                (None, Expected::Any) => return Ok(None),
            }
        }
        let plan = Plan::new(group, Known { head, lengths, stored: HashMap::new() });
        if !plan.is_all_fresh() {
            return Ok(None);
        }
        let asked = self.append(connection, head, plan.fresh(group)).await;
        match asked {
            Ok(true) => Ok(Some(self.carried_out(plan, group))),
            Ok(false) => Ok(None),
            Err(error) if failure::is_lost(&error) => Err(Failure::Unknown),
            Err(error) => Err(self.undone(error)),
        }
    }

    /// Stores a group in a transaction that holds the lock while it looks at the log.
    async fn in_steps(
        &mut self,
        connection: &mut PgConnection,
        group: &mut [Request],
    ) -> Result<Vec<Outcome>, Failure> {
        let lock = "BEGIN; SELECT FROM event_log_head WHERE only_row FOR UPDATE";
        let locked = self.server.within(run(connection, lock)).await;
        locked.map_err(|error| self.undone(error))?;
        let known = self.look(connection, group).await?;
        let head = known.head;
        let end = self.shared.end();
        if head.position < end {
            let (known, found) = (end.0, head.position.0);
            return Err(Failure::Undone(Error::Rewound { known, found }));
        }
        self.is_alone = self.head.is_none_or(|own| own.position == head.position);

        let plan = Plan::new(group, known);
        if plan.fresh(group).next().is_some() {
            let appended = self.append(connection, head, plan.fresh(group)).await;
            match appended {
                Ok(true) => {}
                // It checks what was looked at under the same lock.
                Ok(false) => {
                    let source = Arc::new(std::io::Error::other("the log changed under the lock"));
                    return Err(Failure::Undone(Error::Server(source)));
                }
                Err(error) => return Err(self.undone(error)),
            }
        }
        // Of what is only looked up, this waits until it is as durable as what is stored now: the
        // lock is a change too, and is written behind it.
        match self.server.within(run(connection, "COMMIT")).await {
            Ok(_) => Ok(self.carried_out(plan, group)),
            Err(error) if failure::is_lost(&error) => Err(Failure::Unknown),
            Err(error) => Err(self.undone(error)),
        }
    }

    /// What the log holds of a group's streams and commands.
    async fn look(
        &self,
        connection: &mut PgConnection,
        group: &[Request],
    ) -> Result<Known, Failure> {
        let mut streams: Vec<_> = group.iter().map(|request| request.stream().clone()).collect();
        streams.sort_unstable();
        streams.dedup();
        let mut commands: Vec<Uuid> =
            group.iter().map(|request| request.events()[0].command_id).collect();
        commands.sort_unstable();
        commands.dedup();
        let categories: Vec<&str> = streams.iter().map(|stream| stream.category()).collect();
        let ids: Vec<&str> = streams.iter().map(|stream| stream.id()).collect();
        let asked = sqlx::query(&LOOK).bind(&commands).bind(&categories).bind(&ids);
        let rows = self.server.within(asked.fetch_all(&mut *connection)).await;
        let rows = rows.map_err(|error| self.undone(error))?;

        let mut known =
            Known { head: Head::START, lengths: HashMap::new(), stored: HashMap::new() };
        for row in &rows {
            let what: i32 = row.try_get(0).map_err(|error| self.undone(error))?;
            if what == LENGTH {
                let place = reader::number(row, 1).map_err(|error| self.undone(error))?;
                let length = reader::number(row, 2).map_err(|error| self.undone(error))?;
                if let Some(stream) = streams.get(place as usize - 1) {
                    known.lengths.insert(stream.clone(), length);
                }
                continue;
            }
            let event = reader::event(row, 2, &self.server).map_err(Failure::Undone)?;
            if what == NEWEST {
                known.head = reader::head_at(&event);
            } else {
                known.stored.entry(event.command_id).or_default().push(event);
            }
        }
        for stored in known.stored.values_mut() {
            stored.sort_by_key(|event| event.position);
        }
        Ok(known)
    }

    /// Asks the server to append rows behind `head`; `false` when the log is not as they suppose.
    async fn append<'a>(
        &self,
        connection: &mut PgConnection,
        head: Head,
        events: impl Iterator<Item = &'a RecordedEvent>,
    ) -> sqlx::Result<bool> {
        let columns = Columns::of(with_commands(events, None));
        let asked = sqlx::query_scalar("SELECT append_to_event_log($1, $2, $3, $4, $5, $6, $7)")
            .bind(head.position.0 as i64)
            .bind(&columns.aggregate_types)
            .bind(&columns.aggregate_ids)
            .bind(&columns.sequences)
            .bind(&columns.event_types)
            .bind(&columns.commands)
            .bind(&columns.envelopes);
        self.server.within(asked.fetch_one(connection)).await
    }

    /// Remembers where the log ends now.
    fn carried_out(&mut self, plan: Plan, group: &mut [Request]) -> Vec<Outcome> {
        self.head = Some(plan.head);
        for (stream, length) in &plan.lengths {
            self.streams.set(stream.clone(), *length);
        }
        plan.carried_out(group)
    }

    /// Nothing was stored: the transaction was not committed, or the server itself says so.
    fn undone(&self, error: sqlx::Error) -> Failure {
        if failure::is_read_only(&error) {
            tracing::warn!(address = self.server.address, "the server takes no writes");
        }
        Failure::Undone(self.server.explain(error, Moment::Asking))
    }

    /// After a failure nothing is known but what is in the database. The connection is dropped with
    /// what it had begun: the address may lead elsewhere by now.
    fn forget(&mut self, failure: Failure) -> Failure {
        self.head = None;
        self.streams = StreamLengths::default();
        // What this connection has committed unknown to us is news like another node's.
        self.shared.appender.store(0, Relaxed);
        failure
    }
}

fn place(event: &RecordedEvent) -> (Uuid, Position, DateTime<Utc>) {
    (event.id, event.position, event.time)
}
