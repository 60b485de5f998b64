//! The process that is killed, and the check of what it left behind.
//!
//! It is this test binary, started again: it appends from many tasks, and says of each command when
//! it tries it and when it was acknowledged.

use std::collections::{HashMap, HashSet};
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use eventlog::conformance::{command_with, event};
use eventlog::{Append, AppendError, EventStore, Expected, Position, SqliteOptions, SqliteStore};
use serde_json::json;
use uuid::Uuid;

const TASKS: u8 = 8;

/// How the writer treats its commands.
#[derive(Clone, Copy, Debug)]
pub enum Mode {
    /// As the product does.
    Sound,
    /// Acknowledges a command before it is committed.
    AcknowledgesEarly,
    /// Commits without a sync (`synchronous=NORMAL`).
    DoesNotSync,
}

/// A writer at work.
pub struct Writer {
    child: Child,
    lines: JoinHandle<Said>,
}

/// What a writer said of its commands.
#[derive(Default)]
pub struct Said {
    pub tried: Vec<Uuid>,
    pub acknowledged: Vec<Uuid>,
    pub failed: Vec<String>,
}

impl Writer {
    /// Starts a writer on a log; `prepare` may put something under the process.
    pub fn start(log: &Path, mode: Mode, prepare: impl FnOnce(&mut Command)) -> Writer {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command
            .args([
                "writer::writes_until_it_is_killed",
                "--exact",
                "--nocapture",
                "--test-threads=1",
            ])
            .env("EVENTLOG_WRITER_LOG", log)
            .env("EVENTLOG_WRITER_MODE", format!("{mode:?}"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        prepare(&mut command);
        let mut child = command.spawn().unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        let lines = std::thread::spawn(move || {
            let mut said = Said::default();
            for line in output.lines().map_while(Result::ok) {
                match line.split_once(' ') {
                    Some(("try", id)) => said.tried.push(id.parse().unwrap()),
                    Some(("ack", id)) => said.acknowledged.push(id.parse().unwrap()),
                    Some(("fail", why)) => said.failed.push(why.to_owned()),
                    _ => {}
                }
            }
            said
        });
        Writer { child, lines }
    }

    /// Lets it work, then kills it as nothing can be caught.
    pub fn kill_after(mut self, time: Duration) -> Said {
        std::thread::sleep(time);
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        self.lines.join().unwrap()
    }

    /// Tells it to stop after the commands that are under way.
    pub fn stop(mut self) -> Said {
        drop(self.child.stdin.take());
        assert!(self.child.wait().unwrap().success());
        self.lines.join().unwrap()
    }
}

/// Not a test by itself: the process that the tests start.
#[test]
fn writes_until_it_is_killed() {
    let Ok(log) = std::env::var("EVENTLOG_WRITER_LOG") else { return };
    let mode = std::env::var("EVENTLOG_WRITER_MODE").unwrap();
    let is_early = mode == format!("{:?}", Mode::AcknowledgesEarly);
    let sync_every_commit = mode != format!("{:?}", Mode::DoesNotSync);
    // An end for one whose parent has died.
    let end = Instant::now() + Duration::from_secs(60);
    std::thread::spawn(|| {
        let _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
        STOPPED.store(true, std::sync::atomic::Ordering::SeqCst);
    });
    // The test harness has begun a line of its own.
    println!();
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let options = SqliteOptions { sync_every_commit, ..SqliteOptions::default() };
        let store = Arc::new(SqliteStore::open(Path::new(&log), options).unwrap());
        let tasks = (0..TASKS).map(|task| {
            let store = store.clone();
            tokio::spawn(async move {
                while !STOPPED.load(std::sync::atomic::Ordering::SeqCst) && Instant::now() < end {
                    let mut bytes = *Uuid::now_v7().as_bytes();
                    bytes[15] = task;
                    let append = append_of(Uuid::from_bytes(bytes));
                    let id = append.command_id;
                    say("try", id);
                    if is_early {
                        say("ack", id);
                    }
                    match store.append(append).await {
                        Ok(_) if is_early => {}
                        Ok(_) => say("ack", id),
                        Err(AppendError::Store(error)) => {
                            say("fail", error);
                            tokio::time::sleep(Duration::from_millis(20)).await;
                        }
                        Err(error) => panic!("{error}"),
                    }
                }
            })
        });
        for task in tasks.collect::<Vec<_>>() {
            task.await.unwrap();
        }
        store.close().await;
    });
}

static STOPPED: std::sync::atomic::AtomicBool = std::sync::atomic::AtomicBool::new(false);

fn say(word: &str, what: impl std::fmt::Display) {
    // One write for a line: a kill leaves whole lines.
    let line = format!("{word} {what}\n");
    std::io::stdout().lock().write_all(line.as_bytes()).unwrap();
}

/// The command of an id, so that it can be sent again: everything follows from the id.
fn append_of(id: Uuid) -> Append {
    let [.., count, task] = *id.as_bytes();
    let events = (0..events_of(count))
        .map(|n| event(&json!({ "n": n, "text": "x".repeat(count as usize) })));
    let mut append = command_with(task, Expected::Any, events.collect());
    append.command_id = id;
    append
}

fn events_of(count: u8) -> usize {
    1 + count as usize % 3
}

/// Looks a log over. Answers what is wrong with it, nothing if all is well.
pub async fn faults(log: &Path, said: &[&Said]) -> Vec<String> {
    let store = match SqliteStore::open(log, SqliteOptions::default()) {
        Ok(store) => store,
        Err(error) => return vec![format!("the log cannot be opened: {error:?}")],
    };
    let mut faults = Vec::new();
    let mut found: HashMap<Uuid, usize> = HashMap::new();
    let mut lengths = HashMap::new();
    let mut reached = Position::START;
    loop {
        let page = match store.read_after(reached, 1000).await {
            Ok(page) => page,
            Err(error) => {
                faults.push(format!("the log cannot be read after {reached}: {error:?}"));
                break;
            }
        };
        for event in &page {
            if event.position.0 != reached.0 + 1 {
                faults.push(format!("{} follows {reached}", event.position));
            }
            reached = event.position;
            let length = lengths.entry(event.stream.clone()).or_insert(0);
            *length += 1;
            if event.sequence != *length {
                faults
                    .push(format!("{} has {} as its event {length}", event.stream, event.sequence));
            }
            *found.entry(event.command_id).or_default() += 1;
        }
        if page.is_empty() {
            break;
        }
    }
    let tried: HashSet<_> = said.iter().flat_map(|said| &said.tried).collect();
    for (id, events) in &found {
        if *events != events_of(id.as_bytes()[14]) {
            faults.push(format!("{id} has {events} events"));
        }
        if !tried.contains(id) {
            faults.push(format!("{id} is there, and nobody sent it"));
        }
    }
    for id in said.iter().flat_map(|said| &said.acknowledged) {
        if !found.contains_key(id) {
            faults.push(format!("{id} was acknowledged and is lost"));
        }
    }
    store.close().await;
    faults
}

/// Sends again what was not acknowledged. Answers how many of those commands were stored already.
pub async fn send_again(log: &Path, said: &mut Said) -> usize {
    let store = SqliteStore::open(log, SqliteOptions::default()).unwrap();
    let acknowledged: HashSet<_> = said.acknowledged.iter().copied().collect();
    let mut stored_already = 0;
    for id in said.tried.iter().filter(|id| !acknowledged.contains(id)) {
        let appended = store.append(append_of(*id)).await.unwrap();
        stored_already += usize::from(appended.replayed);
        said.acknowledged.push(*id);
    }
    store.close().await;
    stored_already
}
