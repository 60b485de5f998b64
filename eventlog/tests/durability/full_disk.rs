//! The disk is full: a clear error, nothing half-written, and the log goes on when there is room.

use std::time::Duration;

use tempfile::TempDir;

use crate::shim::{Kept, PowerCut};
use crate::writer::{Mode, Writer, faults, send_again};

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_refuses_and_recovers() {
    let folder = TempDir::new().unwrap();
    let data = folder.path().join("data");
    let mut disk = PowerCut::over(&data);
    let log = data.join("events.db");
    let writer = Writer::start(&log, Mode::Sound, |command| {
        disk.guard(command);
    });
    std::thread::sleep(Duration::from_millis(300));

    // Room for a piece of a commit, so that one is cut off in its middle.
    disk.fill(5_000);
    std::thread::sleep(Duration::from_millis(500));
    let at_full = size(&data);
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(size(&data), at_full, "nothing grows on a full disk");
    disk.make_room();
    std::thread::sleep(Duration::from_millis(300));
    let mut said = writer.stop();

    assert!(!said.failed.is_empty(), "the disk was never full");
    for why in &said.failed {
        assert!(why.contains("the disk is full"), "{why}");
    }
    assert!(size(&data) > at_full || said.acknowledged.len() > said.failed.len(), "it went on");
    let last_failed = said.tried.iter().rposition(|id| !said.acknowledged.contains(id)).unwrap();
    assert!(
        last_failed + 20 < said.tried.len(),
        "commands are accepted after the disk had room again"
    );

    // What failed is not there; sent again, it is stored then.
    disk.cut(Kept::Nothing);
    assert_eq!(faults(&log, &[&said]).await, Vec::<String>::new());
    assert_eq!(send_again(&log, &mut said).await, 0, "a failed command was stored");
    assert_eq!(faults(&log, &[&said]).await, Vec::<String>::new());
}

fn size(folder: &std::path::Path) -> u64 {
    let sizes =
        std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().metadata().unwrap().len());
    sizes.sum()
}
