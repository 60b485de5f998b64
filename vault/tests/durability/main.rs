//! What was answered with `Ok` is there: after a `kill -9`, after a power cut, and on a full disk.
//!
//! The rule of these tests: one check for all of them, and a negative control, a store that never
//! syncs, that is caught by the very same check.
#![expect(clippy::unwrap_used, reason = "a failed step is a failed test")]

mod crash;
mod full_disk;
mod power_cut;
#[path = "../../../tests/power_cut/shim.rs"]
mod shim;
mod writer;
