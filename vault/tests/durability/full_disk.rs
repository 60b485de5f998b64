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
    let mut writer = Writer::start(&data, Mode::Sound, |command| {
        disk.guard(command);
    });
    let stored = |said: &Said| matches!(said, Said::Stored { .. });
    writer.wait_for(stored);
    // Room for a piece of a blob, so that one is cut off in its middle.
    disk.fill(100_000);
    for _ in 0..20 {
        writer.wait_for(|said| matches!(said, Said::Failed { .. }));
    }
    disk.make_room();
    for _ in 0..20 {
        writer.wait_for(stored);
    }
    let said = writer.kill_after(Duration::ZERO);

    for said in &said {
        if let Said::Failed { why } = said {
            assert_eq!(why, "the disk is full: free some space, nothing was stored");
        }
    }
    disk.cut(Kept::Nothing);
    let found = faults(&data, &said).await;
    assert!(found.is_empty(), "{found:#?}");
}
