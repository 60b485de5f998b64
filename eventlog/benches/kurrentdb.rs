//! Single-event appends through the KurrentDB store by 1, 8 and 32 callers, beside the bare client,
//! both against the double: what this side costs, and what `TCP_NODELAY` is worth. Nothing here is
//! durable, and nothing says how fast a real server is.
//!
//! `cargo bench -p eventlog --bench kurrentdb`; compare within one run only.
#![expect(clippy::unwrap_used, reason = "a measurement that fails is no measurement")]

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use eventlog::conformance::{command_with, event};
use eventlog::{Append, EventStore, Expected, KurrentdbOptions, KurrentdbStore};
use eventstore::{AppendToStreamOptions, Client, EventData, StreamState};
use kurrentdb_double::Double;
use tokio::runtime::Runtime;

const CALLERS: [u64; 3] = [1, 8, 32];

/// Events of a stream: streams are short.
const STREAM: u64 = 10;

fn append(criterion: &mut Criterion) {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let mut group = criterion.benchmark_group("kurrentdb");
    group
        .sample_size(10)
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(3));
    group.throughput(Throughput::Elements(1));
    for callers in CALLERS {
        let double = runtime.block_on(Double::start());
        let client = Arc::new(Bare({
            let _context = runtime.enter();
            Client::new(double.url().parse().unwrap()).unwrap()
        }));
        group.bench_function(BenchmarkId::new("client", callers), |bencher| {
            bencher.iter_custom(|count| time(&runtime, &client, callers, count));
        });
        let double = runtime.block_on(Double::start());
        let url = double.url();
        let open = KurrentdbStore::open(&url, KurrentdbOptions::default());
        let store = Arc::new(Store(runtime.block_on(open).unwrap()));
        group.bench_function(BenchmarkId::new("store", callers), |bencher| {
            bencher.iter_custom(|count| time(&runtime, &store, callers, count));
        });
    }
    group.finish();
}

criterion_group!(benches, append);
criterion_main!(benches);

/// What is measured: something that stores a command.
trait Writer: Send + Sync + 'static {
    fn write(&self, command: Append) -> impl Future<Output = ()> + Send;
}

/// The time that `count` commands take, each caller waiting for one before it sends the next.
fn time<W: Writer>(runtime: &Runtime, writer: &Arc<W>, callers: u64, count: u64) -> Duration {
    static RUN: AtomicU64 = AtomicU64::new(0);
    let run = RUN.fetch_add(1, Relaxed);
    let mut commands: Vec<Vec<Append>> = (0..callers).map(|_| Vec::new()).collect();
    for n in 0..count {
        let caller = n % callers;
        let own = &mut commands[caller as usize];
        let (stream, sequence) = (own.len() as u64 / STREAM, own.len() as u64 % STREAM);
        let payload = serde_json::json!({ "title": "x".repeat(150), "number": sequence });
        let expected = Expected::Sequence(sequence);
        own.push(command_with(format!("{run}x{caller}x{stream}"), expected, vec![event(&payload)]));
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

struct Store(KurrentdbStore);

impl Writer for Store {
    async fn write(&self, command: Append) {
        self.0.append(command).await.unwrap();
    }
}

/// The client as it comes.
struct Bare(Client);

impl Writer for Bare {
    async fn write(&self, command: Append) {
        let state = match command.expected {
            Expected::Sequence(0) | Expected::Any => StreamState::NoStream,
            Expected::Sequence(length) => StreamState::StreamRevision(length - 1),
        };
        let options = AppendToStreamOptions::default().stream_state(state);
        let event = &command.events[0];
        let event = EventData::json(&event.event_type, &event.data).unwrap();
        self.0.append_to_stream(command.stream.as_str(), &options, event).await.unwrap();
    }
}
