//! What the end-to-end tests share: a real server for each of them.

#[path = "api/support.rs"]
pub mod support;
