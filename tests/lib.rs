//! What the end-to-end tests share: a real server for each of them, and chance with a seed.

pub mod chance;

#[path = "api/support.rs"]
pub mod support;
