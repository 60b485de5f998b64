//! The HTTP API from outside: every test has a server of its own.
#![expect(clippy::unwrap_used, reason = "tests")]

use tests::support;

mod agent;
mod api_token;
mod audit;
mod authorization;
mod bad_input;
mod bots;
mod bulk_stop;
mod catalogue;
mod chat;
mod communicator;
mod concurrency;
mod control;
mod erasure;
mod etags;
mod evaluation;
mod execution;
mod faults;
mod file;
mod flood;
mod formats;
mod generation;
mod health;
mod idempotency;
mod integration;
mod knowledge_base;
mod oidc;
mod pagination;
mod parameters;
mod reaction;
mod read_your_writes;
mod schedule;
mod schedule_options;
mod search;
mod secrets;
mod session;
mod shutdown;
mod stopped;
mod stream;
mod trigger;
mod user;
mod versions;
mod webhook;
mod workflow;
