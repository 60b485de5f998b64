//! What was acknowledged is there: after a `kill -9`, after a power cut, and on a full disk.
//!
//! The rule of these tests: each has a negative control, a writer that is wrong in one way and is
//! caught by the very same check.
#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, reason = "tests say what they expect by failing")]

mod crash;
mod full_disk;
mod power_cut;
#[path = "../../../tests/power_cut/shim.rs"]
mod shim;
mod writer;
