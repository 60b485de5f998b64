//! The answer to whoever asks for an execution, by a trigger or without one.
//!
//! The rule of this file: what is answered is read from the event that was stored, so that a request
//! sent twice is answered twice alike.

use std::time::Duration;

use axum::response::{IntoResponse, Response};
use commands::{Ask, Done, NewExecution};
use domain::execution::ExecutionEvent;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use super::{ExecutionStatus, ended};
use crate::app::App;
use crate::http::{FieldError, Problem, Reply};

/// The longest time that an answer waits for an execution to end, in seconds.
const LONGEST_WAIT: u64 = 60;

/// How long to wait.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct Wait {
    /// Waits so many seconds for the execution to end.
    #[param(minimum = 0, maximum = 60, default = 0)]
    wait_seconds: Option<u64>,
}

impl Wait {
    /// How long the answer waits for an end; none where it does not wait.
    ///
    /// # Errors
    /// 400 for a longer time than there is.
    pub fn time(&self) -> Result<Option<Duration>, Problem> {
        match self.wait_seconds.unwrap_or(0) {
            0 => Ok(None),
            seconds if seconds <= LONGEST_WAIT => Ok(Some(Duration::from_secs(seconds))),
            _ => Err(waits_too_long()),
        }
    }
}

fn waits_too_long() -> Problem {
    let message = format!("must be a whole number from 0 to {LONGEST_WAIT}");
    Problem::malformed("invalid_parameters", "bad query parameters: wait_seconds; errors says why")
        .with_error(FieldError::new("/wait_seconds", "out_of_range", message))
}

/// An execution that was asked for.
#[derive(Debug, Serialize, ToSchema)]
pub struct AcceptedExecution {
    /// The execution.
    execution_id: Uuid,
    /// The agent.
    agent_id: Uuid,
    /// The version of the agent's workflow.
    version_id: Uuid,
    /// The trigger; none where it was asked for without one.
    trigger_id: Option<Uuid>,
    /// How far it was when it was accepted: `queued`.
    status: ExecutionStatus,
}

impl AcceptedExecution {
    /// What a command asked for, the first time.
    fn of(done: &Done) -> Result<AcceptedExecution, Problem> {
        let bug = || Problem::bug("an execution was asked for, and nothing was stored");
        let event = done.events.first().ok_or_else(bug)?;
        let execution_id = event.stream.uuid().ok_or_else(bug)?;
        let decoded = domain::event::decode(&event.event_type, &event.data);
        match decoded.map_err(|error| Problem::internal(&error))? {
            ExecutionEvent::Requested { agent, version_id, trigger, .. } => Ok(AcceptedExecution {
                execution_id,
                agent_id: agent,
                version_id,
                trigger_id: trigger,
                status: ExecutionStatus::Queued,
            }),
            _ => Err(bug()),
        }
    }
}

/// Asks for an execution. Where somebody waits for its end, what only computes is carried out with that.
///
/// # Errors
/// As [`commands::Commands::request_execution_of`].
pub async fn request(
    app: &App,
    new: NewExecution,
    version: Option<Uuid>,
    wait: Option<Duration>,
    ask: &Ask,
) -> Result<Done, Problem> {
    let executor = app.executor.get().filter(|_| wait.is_some());
    let done = match executor {
        Some(executor) => executor.request_execution_of(new, version, ask).await?,
        None => app.commands.request_execution_of(new, version, ask).await?,
    };
    Ok(done)
}

/// Answers with the whole execution if it ends in time, and otherwise that it was accepted.
///
/// # Errors
/// The read models are behind, or they or the vault fail.
pub async fn answer(app: &App, done: &Done, wait: Option<Duration>) -> Result<Response, Problem> {
    let accepted = AcceptedExecution::of(done)?;
    let position = app.applied(done).await?;
    if let Some(wait) = wait
        && let Some(execution) = ended(app, accepted.execution_id, wait).await?
    {
        // What is shown is its end: whoever asks another node for it must not see less.
        let position = position.max(app.views.position().0);
        let reply = Reply::ok("Execution ended", execution).position(position);
        return Ok(reply.replayed(done.replayed).into_response());
    }
    let reply = Reply::accepted("Execution accepted", accepted).position(position);
    Ok(reply.replayed(done.replayed).into_response())
}
