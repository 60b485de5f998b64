//! Runs of agents, one by one: `/api/workflow`.
//!
//! The rule of this file: whoever may see the product of an execution may see the execution, also
//! after its agent was uninstalled; with its product it is gone.

use axum::extract::State;
use axum::response::Response;
use commands::{Ask, Done, NewExecution, RetryFrom};
use projections::agent;
use serde::Deserialize;
use serde_json::Value;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use crate::access::Right;
use crate::agent::{agent_not_found, reach};
use crate::answers::Nothing;
use crate::app::App;
use crate::caller::{Caller, Circumstances};
use crate::execution::accepted::{self, AcceptedExecution, Wait};
use crate::execution::{self, Execution, execution_not_found};
use crate::http::openapi::{
    IdempotencyKeyParam, IfNoneMatchParam, MinPositionParam, ReadFailures, WriteFailures,
};
use crate::http::reply::Envelope;
use crate::http::{FieldError, IfNoneMatch, Json, OptionalJson, Path, Problem, Query, Reply};

mod stream;

/// The routes of runs that answer at once.
pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(get_execution))
        .routes(routes!(stop_execution))
        .routes(routes!(pause_execution))
        .routes(routes!(continue_execution))
}

/// The routes of runs that may wait for their end.
pub fn long_router() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(execute_agent))
        .routes(routes!(retry_execution))
        .routes(routes!(stream::stream_execution))
}

/// Which agent is to be executed, on what.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct AgentRun {
    /// The agent.
    agent_id: Uuid,
    /// What the agent is to work on, as the `inputs` of its manifest say; `{}` without it.
    input: Option<Value>,
    /// The version of the agent's workflow, active or not; the active one without it.
    version_id: Option<Uuid>,
}

/// Execute an agent
///
/// Asks for a run of the agent, without a trigger, and answers `202` at once: the run follows. With
/// `wait_seconds` the answer is `200` with the whole execution if it ends in that time.
#[utoipa::path(post, path = "/api/workflow/execute", tag = "Executions",
    extensions(("x-access" = json!(Right::Execute))),
    params(Wait, IdempotencyKeyParam), request_body = AgentRun,
    responses((status = 202, description = "It will be run", body = Envelope<AcceptedExecution>),
              (status = 200, description = "It has ended", body = Envelope<Execution>), WriteFailures))]
async fn execute_agent(
    State(app): State<App>,
    caller: Caller,
    circumstances: Circumstances,
    Query(wait): Query<Wait>,
    body: Json<AgentRun>,
) -> Result<Response, Problem> {
    let wait = wait.time()?;
    let AgentRun { agent_id, input, version_id } = body.read()?;
    let agent = app.read(|db| agent::get(db, agent_id))?.ok_or_else(agent_not_found)?;
    reach(&app, &caller, agent.product, agent_not_found)?;
    let ask = circumstances.ask(&app, &caller, Some(agent.product), &[&body.bytes]).await?;
    // An agent that is gone is refused there, unless this request was answered before.
    let new = NewExecution { agent: agent_id, trigger: None, input };
    let done = accepted::request(&app, new, version_id, wait, &ask).await?;
    accepted::answer(&app, &done, wait).await
}

/// Look at an execution
///
/// How far it is, every attempt at every step, and what came out or why it failed. Its `ETag` changes
/// with anything of that.
#[utoipa::path(get, path = "/api/workflow/{executionId}/status", tag = "Executions",
    extensions(("x-access" = json!(Right::ReadExecutions))),
    params(("executionId" = Uuid, Path), MinPositionParam, IfNoneMatchParam),
    responses((status = 200, description = "The execution", body = Envelope<Execution>),
              (status = 304, description = "The client has it already"), ReadFailures))]
async fn get_execution(
    State(app): State<App>,
    caller: Caller,
    known: IfNoneMatch,
    Path(id): Path<Uuid>,
) -> Result<Reply<Execution>, Problem> {
    execution::find(&app, &caller, id)?;
    let execution = execution::whole(&app, id).await?.ok_or_else(execution_not_found)?;
    let etag = execution::etag(&execution)?;
    Ok(Reply::ok("Execution", execution).etag_unless_known(&etag, &known))
}

/// Stop an execution
///
/// For good, however far it is: nothing of it is stored from then on. One that was cancelled already
/// stays as it is; one that has ended otherwise is `409`.
#[utoipa::path(post, path = "/api/workflow/{executionId}/stop", tag = "Executions",
    extensions(("x-access" = json!(Right::Execute))),
    params(("executionId" = Uuid, Path), IdempotencyKeyParam), request_body = Option<Nothing>,
    responses((status = 200, description = "The execution as it is now", body = Envelope<Execution>), WriteFailures))]
async fn stop_execution(
    State(app): State<App>,
    caller: Caller,
    circumstances: Circumstances,
    Path(id): Path<Uuid>,
    body: OptionalJson<Nothing>,
) -> Result<Reply<Execution>, Problem> {
    let ask = ask_about(&app, &caller, circumstances, id, body).await?;
    let done = app.commands.stop_execution(id, &ask).await?;
    as_it_is_now(&app, id, "Execution stopped", &done).await
}

/// Pause an execution
///
/// The step that it is at ends, no other begins until it is continued. What it waits for goes on; so does
/// the time that its agent's limits give it. One that is paused already stays as it is.
#[utoipa::path(post, path = "/api/workflow/{executionId}/pause", tag = "Executions",
    extensions(("x-access" = json!(Right::Execute))),
    params(("executionId" = Uuid, Path), IdempotencyKeyParam), request_body = Option<Nothing>,
    responses((status = 200, description = "The execution as it is now", body = Envelope<Execution>), WriteFailures))]
async fn pause_execution(
    State(app): State<App>,
    caller: Caller,
    circumstances: Circumstances,
    Path(id): Path<Uuid>,
    body: OptionalJson<Nothing>,
) -> Result<Reply<Execution>, Problem> {
    let ask = ask_about(&app, &caller, circumstances, id, body).await?;
    let done = app.commands.pause_execution(id, &ask).await?;
    as_it_is_now(&app, id, "Execution paused", &done).await
}

/// Continue a paused execution
///
/// It takes its place in the queue again, and goes on after its last finished step.
#[utoipa::path(post, path = "/api/workflow/{executionId}/continue", tag = "Executions",
    extensions(("x-access" = json!(Right::Execute))),
    params(("executionId" = Uuid, Path), IdempotencyKeyParam), request_body = Option<Nothing>,
    responses((status = 200, description = "The execution as it is now", body = Envelope<Execution>), WriteFailures))]
async fn continue_execution(
    State(app): State<App>,
    caller: Caller,
    circumstances: Circumstances,
    Path(id): Path<Uuid>,
    body: OptionalJson<Nothing>,
) -> Result<Reply<Execution>, Problem> {
    let ask = ask_about(&app, &caller, circumstances, id, body).await?;
    let done = app.commands.continue_execution(id, &ask).await?;
    as_it_is_now(&app, id, "Execution continued", &done).await
}

/// Who asks, and on whose behalf, for something that an execution is told without a word more.
async fn ask_about(
    app: &App,
    caller: &Caller,
    circumstances: Circumstances,
    id: Uuid,
    body: OptionalJson<Nothing>,
) -> Result<Ask, Problem> {
    let found = execution::find(app, caller, id)?;
    let Nothing {} = body.read()?;
    circumstances.ask(app, caller, Some(found.product), &[body.bytes()]).await
}

/// The execution as a command left it.
async fn as_it_is_now(
    app: &App,
    id: Uuid,
    message: &'static str,
    done: &Done,
) -> Result<Reply<Execution>, Problem> {
    let position = app.applied(done).await?;
    let rows = app.read_after(done, |db| execution::rows(db, id)).await?;
    let execution = execution::show_whole(app, rows.ok_or_else(execution_not_found)?).await?;
    let etag = execution::etag(&execution)?;
    let reply = Reply::ok(message, execution).etag(&etag).position(position);
    Ok(reply.replayed(done.replayed))
}

/// Where an execution that is repeated begins.
#[derive(Clone, Copy, Debug, Default, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum Beginning {
    /// With its first step.
    #[default]
    Start,
    /// With the step at which it failed; items of a `foreach` that were done are not done again.
    Failed,
}

/// How an execution is to be repeated.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Repetition {
    /// Where to begin; at the start without it.
    from: Option<Beginning>,
    /// The step to begin with, and all that need it, instead of `from`.
    #[schema(max_length = 64)]
    from_step: Option<String>,
    /// The version of the agent's workflow; the one that it ran without it. In another one, steps that are
    /// defined otherwise, and those that need them, are done again, and so are new ones.
    version_id: Option<Uuid>,
}

impl Repetition {
    fn read(self) -> Result<RetryFrom, Problem> {
        match (self.from, self.from_step) {
            (Some(_), Some(_)) => {
                let message = "say either `from` or `from_step`: leave one out";
                let fields = ["/from", "/from_step"];
                Err(Problem::invalid("from_ambiguous", message)
                    .with_errors(fields.map(|field| FieldError::new(field, "exclusive", message))))
            }
            (_, Some(step)) => Ok(RetryFrom::Step(step)),
            (Some(Beginning::Failed), None) => Ok(RetryFrom::Failed),
            (Some(Beginning::Start) | None, None) => Ok(RetryFrom::Start),
        }
    }
}

/// Repeat an execution
///
/// Asks for another execution on the same input, which says in `retry_of` what it repeats: in the version
/// that it ran, or in another one. What comes before the step it begins with is carried over. Only one
/// that has ended is repeated.
#[utoipa::path(post, path = "/api/workflow/{executionId}/retry", tag = "Executions",
    extensions(("x-access" = json!(Right::Execute))),
    params(("executionId" = Uuid, Path), Wait, IdempotencyKeyParam), request_body = Option<Repetition>,
    responses((status = 202, description = "It will be run", body = Envelope<AcceptedExecution>),
              (status = 200, description = "It has ended", body = Envelope<Execution>), WriteFailures))]
async fn retry_execution(
    State(app): State<App>,
    caller: Caller,
    circumstances: Circumstances,
    Path(id): Path<Uuid>,
    Query(wait): Query<Wait>,
    body: OptionalJson<Repetition>,
) -> Result<Response, Problem> {
    let wait = wait.time()?;
    let found = execution::find(&app, &caller, id)?;
    let repetition = body.read()?;
    let version_id = repetition.version_id;
    let from = repetition.read()?;
    let ask = circumstances.ask(&app, &caller, Some(found.product), &[body.bytes()]).await?;
    let done = app.commands.retry_execution(id, from, version_id, &ask).await?;
    accepted::answer(&app, &done, wait).await
}
