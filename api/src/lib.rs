//! The outside: HTTP, the command line, and the wiring.
//!
//! The rule of this crate: it decides nothing. A handler asks `commands` or reads `projections`.

pub mod access;
mod admin;
mod agent;
mod answers;
mod api_token;
pub mod app;
mod archive;
mod audit_log;
mod blobs;
mod caller;
pub mod cli;
pub mod config;
mod contents;
mod demo;
mod event;
mod execution;
mod export;
mod failures;
mod file;
mod gate;
pub mod health;
mod healthcheck;
pub mod http;
mod import;
mod integration;
mod keys;
mod knowledge;
mod knowledge_base;
mod known_tokens;
mod lists;
pub mod logs;
pub mod metrics;
mod model;
mod product;
mod progress;
mod record;
mod router;
mod search;
mod serve;
mod service;
mod session;
mod trigger;
mod user;
mod webhook;
mod workflow;
