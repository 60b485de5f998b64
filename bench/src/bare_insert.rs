//! The floor under every command: a thread that inserts finished rows in groups, and nothing else.
//!
//! The rule of this file: the same tables, indexes, settings and bytes as the log's, so that what is
//! left to compare is the work around them.

use std::path::Path;
use std::sync::Arc;

use anyhow::Context;
use chrono::Utc;
use domain::knowledge_base::KnowledgeBaseCommand;
use eventlog::{Position, RecordedEvent, SqliteOptions, SqliteStore, StreamId, event_id};
use rusqlite::Connection;
use tokio::sync::{mpsc, oneshot};
use uuid::Uuid;

use crate::commands::{Contender, Place, metadata};

/// The most rows of one commit, as in the log.
const GROUP: usize = 256;

/// Nothing but a thread that inserts finished rows in groups.
pub struct BareInsert {
    queue: mpsc::Sender<Queued>,
}

/// A finished row.
pub struct Row {
    stream: String,
    sequence: u64,
    command: Uuid,
    envelope: String,
}

struct Queued {
    row: Row,
    answer: oneshot::Sender<rusqlite::Result<u64>>,
}

impl BareInsert {
    pub fn open(path: &Path) -> anyhow::Result<BareInsert> {
        // The same file, with the same tables and settings, as the log makes it.
        drop(SqliteStore::open(path, SqliteOptions::default())?);
        let connection = Connection::open(path)?;
        connection.pragma_update(None, "synchronous", "FULL")?;
        connection.pragma_update(None, "wal_autocheckpoint", 4000)?;
        connection.pragma_update(None, "cache_size", -32 * 1024)?;
        let (queue, rows) = mpsc::channel(1024);
        std::thread::spawn(move || {
            if let Err(error) = insert(&connection, rows) {
                eprintln!("bench: the bare insert stopped: {error}");
            }
        });
        Ok(BareInsert { queue })
    }
}

fn insert(connection: &Connection, mut rows: mpsc::Receiver<Queued>) -> rusqlite::Result<()> {
    let mut position = 0_u64;
    let mut group = Vec::new();
    while rows.blocking_recv_many(&mut group, GROUP) > 0 {
        connection.prepare_cached("BEGIN IMMEDIATE")?.execute([])?;
        let mut insert = connection.prepare_cached(
            "INSERT INTO events (position, stream, sequence, command, envelope)
             VALUES (?1, ?2, ?3, ?4, ?5)",
        )?;
        for Queued { row, .. } in &group {
            position += 1;
            let values =
                (position, &row.stream, row.sequence, row.command.as_bytes(), &row.envelope);
            insert.execute(values)?;
        }
        connection.prepare_cached("COMMIT")?.execute([])?;
        for Queued { answer, .. } in group.drain(..) {
            let _ = answer.send(Ok(position));
        }
    }
    Ok(())
}

impl Contender for BareInsert {
    type Command = Row;

    /// The whole envelope is made before the clock runs.
    fn command(&self, place: Place, command: KnowledgeBaseCommand) -> anyhow::Result<Row> {
        let stream = StreamId::new("knowledge_base", place.stream);
        let event = place.event(command);
        let (event_type, data) = domain::event::encode(&event);
        let metadata = metadata();
        let command_id = Uuid::now_v7();
        let recorded = RecordedEvent {
            actor: metadata.actor.clone(),
            address: metadata.address.clone(),
            causation: metadata.causation,
            command_id,
            correlation: metadata.correlation,
            data,
            id: event_id(command_id, 0),
            keys: vec![],
            organization: metadata.organization,
            position: Position(100_000),
            product: metadata.product,
            request_hash: None,
            request_id: metadata.request_id.clone(),
            schema: 1,
            sequence: place.sequence,
            stream: stream.clone(),
            time: Utc::now(),
            traceparent: metadata.traceparent.clone(),
            event_type,
            user_agent: metadata.user_agent.clone(),
        };
        Ok(Row {
            stream: stream.to_string(),
            sequence: place.sequence,
            command: command_id,
            envelope: serde_json::to_string(&recorded)?,
        })
    }

    async fn write(self: &Arc<Self>, row: Row) -> anyhow::Result<()> {
        let (answer, answered) = oneshot::channel();
        let gone = "the inserting thread is gone";
        self.queue.send(Queued { row, answer }).await.ok().context(gone)?;
        answered.await.context(gone)??;
        Ok(())
    }
}
