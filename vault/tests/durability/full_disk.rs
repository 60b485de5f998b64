//! The disk is full: a clear error, nothing half-written, and the vault goes on when there is room.

use std::time::Duration;

use tempfile::TempDir;

use crate::{
    shim::{Kept, PowerCut},
    writer::{Mode, Said, Writer, faults},
};

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_refuses_and_recovers() {
    let folder = TempDir::new().unwrap();
    let data = folder.path().join("data");
    let mut disk = PowerCut::over(&data);
    let writer = Writer::start(&data, Mode::Sound, |command| {
        disk.guard(command);
    });
    std::thread::sleep(Duration::from_millis(300));
    // Room for a piece of a blob, so that one is cut off in its middle.
    disk.fill(100_000);
    std::thread::sleep(Duration::from_millis(400));
    disk.make_room();
    let said = writer.kill_after(Duration::from_millis(400));

    let failed = |said: &Said| matches!(said, Said::Failed { .. });
    for said in said.iter().filter(|said| failed(said)) {
        let Said::Failed { why } = said else { continue };
        assert_eq!(why, "the disk is full: free some space, nothing was stored");
    }
    let last = said.iter().rposition(failed).expect("the disk was full");
    assert!(said.len() > last + 5, "it goes on when there is room");
    disk.cut(Kept::Nothing);
    let found = faults(&data, &said).await;
    assert!(found.is_empty(), "{found:#?}");
}
