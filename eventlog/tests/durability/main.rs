//! What was acknowledged is there: after a `kill -9`, after a power cut, and on a full disk.
//!
//! The rule of these tests: crash and power cut have negative controls, a writer that is wrong in one way and is
//! caught by the very same check. A full disk needs none: that it was full is seen in the refusals.
#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, reason = "tests say what they expect by failing")]

mod crash;
mod full_disk;
mod power_cut;
#[path = "../../../tests/power_cut/shim.rs"]
mod shim;
mod writer;
