//! A writer that is killed at any moment.

use std::time::Duration;

use tempfile::TempDir;

use crate::writer::{Mode, Writer, faults};

const ROUNDS: u64 = 8;

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_writer_keeps_what_it_said_and_leaves_nothing_half_written() {
    let folder = TempDir::new().unwrap();
    let mut said = Vec::new();
    for round in 0..ROUNDS {
        let writer = Writer::start(folder.path(), Mode::Sound, |_| {});
        said.extend(writer.kill_after(Duration::from_millis(20 + round * 23)));
        let found = faults(folder.path(), &said).await;
        assert!(found.is_empty(), "round {round}: {found:#?}");
    }
    assert!(said.len() > 20, "only {} answers: the test hardly tested", said.len());
}
