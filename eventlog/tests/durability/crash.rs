//! `kill -9` while writing, over and over.

use std::time::Duration;

use tempfile::TempDir;

use crate::writer::{Mode, Said, Writer, faults, send_again};

const ROUNDS: u64 = 15;

/// Different each round, and never quite the same: what is hit is a matter of chance.
fn a_moment(round: u64) -> Duration {
    Duration::from_millis(60 + round * 37 % 200)
}

#[tokio::test(flavor = "multi_thread")]
async fn every_acknowledged_command_is_there_exactly_once() {
    let folder = TempDir::new().unwrap();
    let log = folder.path().join("events.db");
    let mut all: Vec<Said> = Vec::new();
    let mut stored_already = 0;
    for round in 0..ROUNDS {
        let said = Writer::start(&log, Mode::Sound, |_| {}).kill_after(a_moment(round));
        all.push(said);
        let found = faults(&log, &all.iter().collect::<Vec<_>>()).await;
        assert!(found.is_empty(), "round {round}: {found:#?}");

        // A client that got no answer asks again; half of those commands are there already.
        stored_already += send_again(&log, all.last_mut().unwrap()).await;
        let found = faults(&log, &all.iter().collect::<Vec<_>>()).await;
        assert!(found.is_empty(), "round {round}, sent again: {found:#?}");
    }
    let acknowledged: usize = all.iter().map(|said| said.acknowledged.len()).sum();
    println!(
        "{acknowledged} commands acknowledged, {stored_already} of the unanswered ones were stored"
    );
    assert!(acknowledged > 1_000, "only {acknowledged} commands: the test hardly tested");
    assert!(all.iter().all(|said| said.failed.is_empty()));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_acknowledgement_before_the_commit_is_caught() {
    let folder = TempDir::new().unwrap();
    for round in 0..ROUNDS {
        let log = folder.path().join(format!("{round}.db"));
        let said = Writer::start(&log, Mode::AcknowledgesEarly, |_| {}).kill_after(a_moment(round));
        let found = faults(&log, &[&said]).await;
        if found.iter().any(|fault| fault.contains("was acknowledged and is lost")) {
            return;
        }
    }
    panic!("in {ROUNDS} rounds no early acknowledgement was caught");
}
