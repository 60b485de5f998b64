//! Durable single-event appends by 1, 8 and 32 callers, beside a bare group-commit insert of the
//! same rows into the same table: what the store costs on top of its database.
//!
//! `cargo bench -p eventlog`; compare within one run only.
#![expect(clippy::unwrap_used, reason = "a measurement that fails is no measurement")]

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use chrono::Utc;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use eventlog::conformance::{command_with, event};
use eventlog::{
    Append, EventStore, Expected, Position, RecordedEvent, SqliteOptions, SqliteStore, event_id,
};
use rusqlite::Connection;
use tempfile::TempDir;
use tokio::runtime::Runtime;
use tokio::sync::{mpsc, oneshot};
use uuid::Uuid;

const CALLERS: [u64; 3] = [1, 8, 32];

/// Events of a stream: streams are short.
const STREAM: u64 = 10;

fn append(criterion: &mut Criterion) {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let mut group = criterion.benchmark_group("append");
    group
        .sample_size(10)
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(3));
    group.throughput(Throughput::Elements(1));
    for callers in CALLERS {
        let folder = TempDir::new().unwrap();
        let bare = Arc::new(Bare::open(&folder.path().join("bare.db")));
        group.bench_function(BenchmarkId::new("bare", callers), |bencher| {
            bencher.iter_custom(|count| time(&runtime, &bare, callers, count));
        });
        let store = SqliteStore::open(&folder.path().join("events.db"), SqliteOptions::default());
        let store = Arc::new(Store(store.unwrap()));
        group.bench_function(BenchmarkId::new("store", callers), |bencher| {
            bencher.iter_custom(|count| time(&runtime, &store, callers, count));
        });
    }
    group.finish();
}

criterion_group!(benches, append);
criterion_main!(benches);

/// What is measured: something that makes a command durable.
trait Writer: Send + Sync + 'static {
    /// What a caller hands over, made before the clock runs.
    type Command: Send;
    fn command(&self, append: Append, sequence: u64) -> Self::Command;
    fn write(&self, command: Self::Command) -> impl Future<Output = ()> + Send;
}

/// The time that `count` commands take, each caller waiting for one before it sends the next.
fn time<W: Writer>(runtime: &Runtime, writer: &Arc<W>, callers: u64, count: u64) -> Duration {
    let mut commands: Vec<Vec<W::Command>> = (0..callers).map(|_| Vec::new()).collect();
    for n in 0..count {
        let own = &mut commands[(n % callers) as usize];
        let (stream, sequence) = (own.len() as u64 / STREAM, own.len() as u64 % STREAM);
        let append = one_event(format!("{}-{stream}", n % callers), sequence);
        own.push(writer.command(append, sequence + 1));
    }
    let start = Instant::now();
    runtime.block_on(async {
        let tasks = commands.into_iter().map(|own| {
            let writer = writer.clone();
            tokio::spawn(async move {
                for command in own {
                    writer.write(command).await;
                }
            })
        });
        for task in tasks.collect::<Vec<_>>() {
            task.await.unwrap();
        }
    });
    start.elapsed()
}

/// A command with one event of about 200 bytes, to a stream that no other run uses.
fn one_event(stream: String, sequence: u64) -> Append {
    use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
    static RUN: AtomicU64 = AtomicU64::new(0);
    let payload =
        serde_json::json!({ "title": "x".repeat(150), "number": sequence, "run": "of the bench" });
    if stream == "0-0" && sequence == 0 {
        RUN.fetch_add(1, Relaxed);
    }
    let stream = format!("{:08x}-0000-7000-8000-{stream:0>12}", RUN.load(Relaxed));
    command_with(stream, Expected::Sequence(sequence), vec![event(&payload)])
}

struct Store(SqliteStore);

impl Writer for Store {
    type Command = Append;

    fn command(&self, append: Append, _: u64) -> Append {
        append
    }

    async fn write(&self, command: Append) {
        self.0.append(command).await.unwrap();
    }
}

/// Nothing but a thread that inserts finished rows in groups.
struct Bare {
    queue: mpsc::Sender<Row>,
}

struct Row {
    stream: String,
    sequence: u64,
    command: Uuid,
    envelope: String,
    answer: oneshot::Sender<u64>,
}

impl Bare {
    fn open(path: &Path) -> Bare {
        // The same file, with the same tables and settings, as the store makes it.
        drop(SqliteStore::open(path, SqliteOptions::default()).unwrap());
        let connection = Connection::open(path).unwrap();
        connection.pragma_update(None, "synchronous", "FULL").unwrap();
        connection.pragma_update(None, "wal_autocheckpoint", 4000).unwrap();
        connection.pragma_update(None, "cache_size", -32 * 1024).unwrap();
        let (queue, rows) = mpsc::channel(1024);
        std::thread::spawn(move || insert(&connection, rows));
        Bare { queue }
    }
}

fn insert(connection: &Connection, mut rows: mpsc::Receiver<Row>) {
    let mut position = 0_u64;
    let mut group = Vec::new();
    while rows.blocking_recv_many(&mut group, 256) > 0 {
        connection.prepare_cached("BEGIN IMMEDIATE").unwrap().execute([]).unwrap();
        let mut insert = connection
            .prepare_cached(
                "INSERT INTO events (position, stream, sequence, command, envelope)
                 VALUES (?1, ?2, ?3, ?4, ?5)",
            )
            .unwrap();
        for row in &group {
            position += 1;
            let values =
                (position, &row.stream, row.sequence, row.command.as_bytes(), &row.envelope);
            insert.execute(values).unwrap();
        }
        connection.prepare_cached("COMMIT").unwrap().execute([]).unwrap();
        for row in group.drain(..) {
            let _ = row.answer.send(position);
        }
    }
}

impl Writer for Bare {
    type Command = (String, u64, Uuid, String);

    fn command(&self, append: Append, sequence: u64) -> Self::Command {
        let (metadata, event) = (&append.metadata, &append.events[0]);
        let recorded = RecordedEvent {
            actor: metadata.actor.clone(),
            address: metadata.address.clone(),
            causation: metadata.causation,
            command_id: append.command_id,
            correlation: metadata.correlation,
            data: event.data.clone(),
            id: event_id(append.command_id, 0),
            keys: append.keys.clone(),
            organization: metadata.organization,
            position: Position(100_000),
            product: metadata.product,
            request_hash: append.request_hash.clone(),
            request_id: metadata.request_id.clone(),
            schema: 1,
            sequence,
            stream: append.stream.clone(),
            time: Utc::now(),
            traceparent: metadata.traceparent.clone(),
            event_type: event.event_type.clone(),
            user_agent: metadata.user_agent.clone(),
        };
        let envelope = serde_json::to_string(&recorded).unwrap();
        (append.stream.to_string(), sequence, append.command_id, envelope)
    }

    async fn write(&self, (stream, sequence, command, envelope): Self::Command) {
        let (answer, answered) = oneshot::channel();
        let row = Row { stream, sequence, command, envelope, answer };
        self.queue.send(row).await.unwrap();
        answered.await.unwrap();
    }
}
