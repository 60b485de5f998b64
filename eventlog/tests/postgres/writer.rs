//! The process that is killed: this test binary, started again. It appends from many tasks, and
//! says of each command when it tries it and when it was acknowledged.

use std::collections::HashSet;
use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use uuid::Uuid;

use crate::checks::{check, command_of, everything, new_id};
use crate::{Database, open};

const ROUNDS: usize = 6;
const TASKS: u8 = 8;

/// What a writer said of its commands.
#[derive(Default)]
struct Said {
    tried: HashSet<Uuid>,
    acknowledged: Vec<Uuid>,
}

impl Said {
    /// Starts a writer, and kills it as nothing can be caught when it has said so many lines.
    fn of_one_killed_after(url: &str, lines: usize, said: &mut Said) {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["writer::writes_until_it_is_killed", "--exact", "--nocapture"])
            .arg("--test-threads=1")
            .env("EVENTLOG_WRITER_LOG", url)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        for (number, line) in output.lines().map_while(Result::ok).enumerate() {
            match line.split_once(' ') {
                Some(("try", id)) => {
                    said.tried.insert(id.parse().unwrap());
                }
                Some(("ack", id)) => said.acknowledged.push(id.parse().unwrap()),
                _ => {}
            }
            if number == lines {
                child.kill().unwrap();
            }
        }
        child.wait().unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_acknowledged_command_of_a_killed_node_is_there_exactly_once() {
    let database = Database::new();
    let mut said = Said::default();
    let mut stored_already = 0;
    for round in 0..ROUNDS {
        let url = database.url();
        said = tokio::task::spawn_blocking(move || {
            Said::of_one_killed_after(&url, 301 + 97 * round, &mut said);
            said
        })
        .await
        .unwrap();
        let store = database.open().await;
        check(&everything(&*store).await, &said.acknowledged, Some(&said.tried));

        // A client that got no answer asks again; some of those commands are there already.
        let acknowledged: HashSet<Uuid> = said.acknowledged.iter().copied().collect();
        for id in said.tried.difference(&acknowledged).copied().collect::<Vec<_>>() {
            stored_already += usize::from(store.append(command_of(id)).await.unwrap().replayed);
            said.acknowledged.push(id);
        }
        check(&everything(&*store).await, &said.acknowledged, Some(&said.tried));
        store.close().await;
    }
    let count = said.acknowledged.len();
    println!("{count} commands, {stored_already} of the unanswered ones were stored");
    assert!(count > 500, "only {count} commands: the test hardly tested");
}

/// Not a test by itself: the process that the test starts.
#[test]
fn writes_until_it_is_killed() {
    let Ok(url) = std::env::var("EVENTLOG_WRITER_LOG") else { return };
    // An end for one whose parent has died.
    let end = Instant::now() + Duration::from_secs(60);
    // The test harness has begun a line of its own.
    println!();
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let store = open(&url).await;
        let tasks = (0..TASKS).map(|task| {
            let store = Arc::clone(&store);
            tokio::spawn(async move {
                while Instant::now() < end {
                    let id = new_id(task);
                    say("try", id);
                    store.append(command_of(id)).await.unwrap();
                    say("ack", id);
                }
            })
        });
        for task in tasks.collect::<Vec<_>>() {
            task.await.unwrap();
        }
    });
}

fn say(word: &str, id: Uuid) {
    // One write for a line: a kill leaves whole lines.
    let line = format!("{word} {id}\n");
    std::io::stdout().lock().write_all(line.as_bytes()).unwrap();
}
