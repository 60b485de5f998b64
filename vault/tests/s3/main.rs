//! The vault on a real server that speaks S3: the same promises as on files, and what a store that is
//! away, slow or wrong is answered with.
//!
//! The rule of these tests: the suite is that of `tests/vault`, to the letter; only `support` differs.
#![expect(clippy::unwrap_used, reason = "a failed step is a failed test")]

#[path = "../vault/artifacts.rs"]
mod artifacts;
#[path = "../vault/blobs.rs"]
mod blobs;
#[path = "../vault/common.rs"]
mod common;
mod faults;
#[path = "../vault/garbage.rs"]
mod garbage;
#[path = "../vault/keys.rs"]
mod keys;
#[path = "../vault/nodes.rs"]
mod nodes;
#[path = "../vault/seal.rs"]
mod seal;
#[path = "../../../tests/s3/server.rs"]
mod server;
mod start;
mod support;
#[path = "../vault/transfer.rs"]
mod transfer;
