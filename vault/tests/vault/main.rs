//! The vault from outside: what others rely on, on real files, and what is refused.
//!
//! The rule of these tests: each has a store of its own, and looks at the bytes on the disk. All but
//! `local`, `master_key` and `rotation` are run on S3 too, by `tests/s3`, which has another `support`.
#![expect(clippy::unwrap_used, reason = "a failed step is a failed test")]

mod artifacts;
mod blobs;
mod common;
mod garbage;
mod keys;
mod local;
mod master_key;
mod nodes;
mod rotation;
mod seal;
mod support;
mod transfer;
