//! The power goes while writing: what was not synced is gone, or is there in part.

use std::time::Duration;

use tempfile::TempDir;

use crate::{
    shim::{Kept, PowerCut},
    writer::{Mode, Writer, faults},
};

const ROUNDS: u64 = 4;

#[tokio::test(flavor = "multi_thread")]
async fn nothing_said_is_lost_when_all_unsynced_writes_are() {
    survives(|_| Kept::Nothing).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_said_is_lost_when_some_unsynced_writes_are() {
    survives(|round| Kept::Some(0x9e37_79b9_7f4a_7c15_u64.wrapping_mul(round + 1))).await;
}

async fn survives(kept: impl Fn(u64) -> Kept) {
    let folder = TempDir::new().unwrap();
    let data = folder.path().join("data");
    let mut disk = PowerCut::over(&data);
    let mut said = Vec::new();
    for round in 0..ROUNDS {
        let writer = Writer::start(&data, Mode::Sound, |command| {
            disk.guard(command);
        });
        said.extend(writer.kill_after(Duration::from_millis(150 + round * 57)));
        disk.cut(kept(round));
        let found = faults(&data, &said).await;
        assert!(found.is_empty(), "round {round}: {found:#?}");
        disk.take_as_synced();
    }
    assert!(said.len() > 20, "only {} answers: the test hardly tested", said.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_does_not_sync_is_caught() {
    let folder = TempDir::new().unwrap();
    let data = folder.path().join("data");
    let mut disk = PowerCut::over(&data);
    let writer = Writer::start(&data, Mode::DoesNotSync, |command| {
        disk.guard(command);
    });
    let said = writer.kill_after(Duration::from_millis(300));
    disk.cut(Kept::Nothing);
    let found = faults(&data, &said).await;
    assert!(found.iter().any(|fault| fault.ends_with("is lost")), "{found:#?}");
}
