//! The HTTP API from outside: every test has a server of its own.
#![expect(clippy::unwrap_used, reason = "tests")]

use tests::support;

mod health;
