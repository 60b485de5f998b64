//! Whether the process lives, and whether it can do its work.
//!
//! The one rule: alive asks nothing of anything (a slow disk must not get a process killed), ready
//! names everything that is missing.

use std::time::Duration;

use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

use crate::http::{FieldError, Problem, Reply, json};

/// What `GET /healthz` answers.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Health {
    /// The version of the binary.
    #[schema(value_type = String)]
    version: &'static str,
}

/// Answers `GET /healthz`.
pub async fn alive() -> Reply<Health> {
    Reply::ok("Alive.", Health { version: env!("CARGO_PKG_VERSION") })
}

/// One thing that the work depends on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct Check {
    /// What it is: `event_log`, `projection listings`, `embedding_model`.
    #[schema(value_type = String)]
    pub name: String,
    /// Whether it works.
    pub ok: bool,
    /// How far it is, or what to do about it.
    pub detail: String,
}

/// Everything that the work depends on; the answer to `GET /readyz`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, ToSchema)]
pub struct Readiness {
    /// The checks, in the order they were made.
    pub checks: Vec<Check>,
}

impl Readiness {
    /// Adds a check.
    pub fn check(&mut self, name: impl Into<String>, ok: bool, detail: impl Into<String>) {
        self.checks.push(Check { name: name.into(), ok, detail: detail.into() });
    }

    /// Whether every check is good.
    pub fn is_ready(&self) -> bool {
        self.checks.iter().all(|check| check.ok)
    }
}

impl IntoResponse for Readiness {
    fn into_response(self) -> Response {
        if self.is_ready() {
            return Reply::ok("Ready.", self).into_response();
        }
        let missing = self.checks.into_iter().filter(|check| !check.ok);
        let faults: Vec<FieldError> = missing
            .map(|check| {
                let mut pointer = String::new();
                json::push_segment(&mut pointer, &check.name);
                FieldError::new(pointer, "not_ready", check.detail)
            })
            .collect();
        let said: Vec<String> = faults
            .iter()
            .map(|fault| format!("{}: {}", fault.field.trim_start_matches('/'), fault.message))
            .collect();
        let detail = format!("not ready: {}", said.join("; "));
        Problem::unavailable("not_ready", detail, Duration::from_secs(1))
            .with_errors(faults)
            .into_response()
    }
}

#[cfg(test)]
mod tests;
