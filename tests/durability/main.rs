//! The whole server on a disk that loses what was not synced, that is full, or whose log somebody
//! else holds.
//!
//! The rule of these tests: the real binary, under the preloaded shim of `tests/power_cut`; one check
//! of everything that it had acknowledged; and for what a power cut must not take a negative control, a disk that only
//! says that it syncs, which the very same check catches.
#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, reason = "tests")]

use std::ffi::OsString;
use std::process::Command;
use std::sync::Arc;

use shim::PowerCut;
use tempfile::TempDir;
use tests::support::TestApp;

mod executions;
mod faults;
mod first_start;
mod full_disk;
mod locked;
mod power_cut;
#[path = "../power_cut/shim.rs"]
mod shim;
mod told;

/// The variables of a process that runs on this disk.
fn on(disk: &PowerCut) -> Vec<(OsString, OsString)> {
    let mut any = Command::new("any");
    let variables = disk.guard(&mut any).get_envs();
    variables.map(|(name, value)| (name.to_owned(), value.unwrap_or_default().to_owned())).collect()
}

/// A server on a disk of its own, and its owner signed in.
async fn guarded() -> (TestApp, PowerCut) {
    let folder = Arc::new(TempDir::new().unwrap());
    let disk = PowerCut::over(&folder.path().join("data"));
    let mut app = TestApp::start_in(folder, on(&disk)).unwrap();
    app.sign_in().await;
    (app, disk)
}
