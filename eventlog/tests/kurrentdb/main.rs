//! The log on KurrentDB: the suite of every store, two nodes at one log, and a server that fails.
//!
//! Everything runs against a double (the crate in `double`). With `PRODGY_TEST_KURRENTDB` in the
//! environment, an address, `suite` and `two_nodes` run against that server instead; each test
//! takes a namespace of its own there, and leaves its events behind. `scripts/test-kurrentdb` does
//! that.
#![expect(clippy::unwrap_used, reason = "tests say what they expect by failing")]

mod addresses;
mod faults;
mod following;
mod records;
mod server;
mod suite;
mod two_nodes;
