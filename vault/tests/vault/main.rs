//! The vault from outside: what others rely on, on real files, and what is refused.
//!
//! The rule of these tests: each has a store of its own, and looks at the bytes on the disk.
#![expect(clippy::unwrap_used, reason = "a failed step is a failed test")]

mod artifacts;
mod blobs;
mod keys;
mod local;
mod master_key;
mod remote;
mod seal;
mod support;
