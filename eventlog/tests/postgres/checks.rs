//! Writers that never give a command up, and the check of what they left behind.
//!
//! The rule of this file: a command follows from its id, so that it can be sent again by anybody.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use eventlog::conformance::{command_with, event};
use eventlog::{Append, AppendError, EventStore, Expected, Position, RecordedEvent};
use serde_json::json;
use tokio::task::JoinSet;
use uuid::Uuid;

/// How long anything may take before a test gives up. Generous: the machine may be busy.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// How soon a client that was told to try again does.
const AGAIN: Duration = Duration::from_millis(20);

/// The command of an id.
pub fn command_of(id: Uuid) -> Append {
    let [.., count, task] = *id.as_bytes();
    let events =
        (0..events_of(id)).map(|n| event(&json!({ "n": n, "text": "x".repeat(count as usize) })));
    let mut append = command_with(task, Expected::Any, events.collect());
    append.command_id = id;
    append
}

fn events_of(id: Uuid) -> usize {
    1 + id.as_bytes()[14] as usize % 3
}

/// A new id, of a command to this task's stream.
pub fn new_id(task: u8) -> Uuid {
    let mut bytes = *Uuid::now_v7().as_bytes();
    bytes[15] = task;
    Uuid::from_bytes(bytes)
}

/// Tasks that append as fast as they are answered.
pub struct Writers {
    tasks: JoinSet<Vec<Uuid>>,
    stop: Arc<AtomicBool>,
    acknowledged: Arc<AtomicUsize>,
    failures: Arc<AtomicUsize>,
}

impl Writers {
    /// Starts some on each node.
    pub fn start(nodes: &[Arc<dyn EventStore>], on_each: u8) -> Writers {
        let mut writers = Writers {
            tasks: JoinSet::new(),
            stop: Arc::default(),
            acknowledged: Arc::default(),
            failures: Arc::default(),
        };
        for (number, node) in (0..).zip(nodes) {
            for task in 0..on_each {
                let (node, stop) = (node.clone(), writers.stop.clone());
                let acknowledged = writers.acknowledged.clone();
                let failures = writers.failures.clone();
                writers.tasks.spawn(async move {
                    let mut own = Vec::new();
                    while !stop.load(SeqCst) {
                        let id = new_id(number * on_each + task);
                        until_acknowledged(&*node, id, &failures).await;
                        acknowledged.fetch_add(1, SeqCst);
                        own.push(id);
                    }
                    own
                });
            }
        }
        writers
    }

    /// Waits until so many more commands were acknowledged.
    pub async fn progress(&self, commands: usize) {
        let goal = self.acknowledged.load(SeqCst) + commands;
        let reached = async {
            while self.acknowledged.load(SeqCst) < goal {
                tokio::time::sleep(AGAIN).await;
            }
        };
        let in_time = tokio::time::timeout(PATIENCE, reached).await;
        assert!(in_time.is_ok(), "writing does not go on");
    }

    /// How often a writer was told to try again.
    pub fn failures(&self) -> usize {
        self.failures.load(SeqCst)
    }

    /// Lets each finish its command. Answers what was acknowledged.
    pub async fn stop(mut self) -> Vec<Uuid> {
        self.stop.store(true, SeqCst);
        let mut all = Vec::new();
        while let Some(own) = self.tasks.join_next().await {
            all.extend(own.unwrap());
        }
        all
    }
}

/// Sends a command until it is acknowledged. A failure that is not said to be temporary fails the
/// test.
async fn until_acknowledged(node: &dyn EventStore, id: Uuid, failures: &AtomicUsize) {
    loop {
        match node.append(command_of(id)).await {
            Ok(appended) => {
                assert_eq!(appended.events.len(), events_of(id));
                return;
            }
            Err(AppendError::Store(error)) => {
                assert!(error.is_temporary(), "{error:?}");
                failures.fetch_add(1, SeqCst);
                tokio::time::sleep(AGAIN).await;
            }
            Err(error) => panic!("{error}"),
        }
    }
}

/// Everything in the log.
pub async fn everything(store: &dyn EventStore) -> Vec<Arc<RecordedEvent>> {
    let mut all: Vec<Arc<RecordedEvent>> = Vec::new();
    loop {
        let after = all.last().map_or(Position::START, |event| event.position);
        let page = store.read_after(after, 1_000).await.unwrap();
        if page.is_empty() {
            return all;
        }
        all.extend(page);
    }
}

/// Every acknowledged command is there whole and once, and nothing else but unanswered ones.
pub fn check(all: &[Arc<RecordedEvent>], acknowledged: &[Uuid], tried: Option<&HashSet<Uuid>>) {
    let mut lengths = HashMap::new();
    let mut found: HashMap<Uuid, usize> = HashMap::new();
    for (index, event) in all.iter().enumerate() {
        assert_eq!(event.position.0, index as u64 + 1, "positions have no gaps");
        let length: &mut u64 = lengths.entry(&event.stream).or_default();
        *length += 1;
        assert_eq!(event.sequence, *length, "{} has no gaps", event.stream);
        *found.entry(event.command_id).or_default() += 1;
    }
    for pair in all.windows(2) {
        assert!(pair[0].time <= pair[1].time, "time went back at {}", pair[1].position);
    }
    for (id, events) in &found {
        assert_eq!(*events, events_of(*id), "{id} is there whole and once");
        assert!(tried.is_none_or(|tried| tried.contains(id)), "{id} was sent by nobody");
    }
    for id in acknowledged {
        assert!(found.contains_key(id), "{id} was acknowledged and is lost");
    }
}
