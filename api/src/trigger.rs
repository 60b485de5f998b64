//! Triggers: `/api/agent-base/triggers`.

use axum::extract::State;
use axum::response::Response;
use commands::NewExecution;
use projections::agent;
use projections::trigger::{self, Trigger};
use serde::Deserialize;
use serde_json::Value;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use crate::access::Right;
use crate::agent::reach;
use crate::app::App;
use crate::caller::{Caller, Circumstances};
use crate::execution::Execution;
use crate::execution::accepted::{self, AcceptedExecution, Wait};
use crate::http::openapi::{
    IdempotencyKeyParam, IfNoneMatchParam, MinPositionParam, PageParams, ReadFailures,
    WriteFailures,
};
use crate::http::page::NoFilters;
use crate::http::reply::{Envelope, ListEnvelope};
use crate::http::{
    ETag, IfNoneMatch, ListQuery, ListReply, OptionalJson, Path, Problem, Query, Reply,
};
use crate::lists::{total, window};

/// The routes of triggers that answer at once.
pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(list_manual_triggers)).routes(routes!(get_trigger))
}

/// The routes of triggers that may wait for an execution.
pub fn long_router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(execute_trigger))
}

/// What is to be executed.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct NewRun {
    /// What the agent is to work on, as the `inputs` of its manifest say; `{}` without it.
    input: Option<Value>,
}

fn trigger_not_found() -> Problem {
    Problem::not_found(
        "trigger_not_found",
        "there is no such trigger: look at the agent to see which it has",
    )
}

/// A trigger that the caller may see, deleted or not.
fn find(app: &App, caller: &Caller, id: Uuid) -> Result<Trigger, Problem> {
    let found = app.read(|db| trigger::get(db, id))?.ok_or_else(trigger_not_found)?;
    reach(app, caller, found.product_id, trigger_not_found)?;
    Ok(found)
}

/// Look at a trigger
#[utoipa::path(get, path = "/api/agent-base/triggers/{triggerId}", tag = "Triggers",
    extensions(("x-access" = json!(Right::ReadAgents))),
    params(("triggerId" = Uuid, Path), MinPositionParam, IfNoneMatchParam),
    responses((status = 200, description = "The trigger", body = Envelope<Trigger>),
              (status = 304, description = "The client has it already"), ReadFailures))]
async fn get_trigger(
    State(app): State<App>,
    caller: Caller,
    known: IfNoneMatch,
    Path(id): Path<Uuid>,
) -> Result<Reply<Trigger>, Problem> {
    let trigger = find(&app, &caller, id)?;
    if trigger.is_deleted {
        return Err(trigger_not_found());
    }
    let etag = ETag::of_sequence(trigger.sequence);
    Ok(Reply::ok("Trigger", trigger).etag_unless_known(&etag, &known))
}

/// List the manual triggers of a workflow version
///
/// Newest first. An agent always has one.
#[utoipa::path(get, path = "/api/agent-base/triggers/manual/version/{versionId}", tag = "Triggers",
    extensions(("x-access" = json!(Right::ReadAgents))),
    params(("versionId" = Uuid, Path), PageParams, MinPositionParam),
    responses((status = 200, description = "The triggers", body = ListEnvelope<Trigger>), ReadFailures))]
async fn list_manual_triggers(
    State(app): State<App>,
    caller: Caller,
    Path(version): Path<Uuid>,
    query: ListQuery<NoFilters>,
) -> Result<ListReply<Trigger>, Problem> {
    let version_not_found = || {
        Problem::not_found(
            "version_not_found",
            "no agent has this workflow version: look at the agent to see which it has",
        )
    };
    let found = app.read(|db| agent::by_version(db, version))?;
    let found =
        found.filter(|agent| agent.uninstalled_at.is_none()).ok_or_else(version_not_found)?;
    reach(&app, &caller, found.product, version_not_found)?;
    let window = window(&query)?;
    let listing = app.read(|db| trigger::manual_of_version(db, version, window))?;
    let total = total(&query, &listing);
    Ok(query.reply("Manual triggers", listing.items, total))
}

/// Execute a manual trigger
///
/// Asks for a run of the trigger's agent and answers `202` at once: the run follows. With
/// `wait_seconds` the answer is `200` with the whole execution if it ends in that time. The body may
/// be left out.
#[utoipa::path(post, path = "/api/agent-base/triggers/{triggerId}/execute", tag = "Triggers",
    extensions(("x-access" = json!(Right::Execute))),
    params(("triggerId" = Uuid, Path), Wait, IdempotencyKeyParam),
    request_body = Option<NewRun>,
    responses((status = 202, description = "It will be run", body = Envelope<AcceptedExecution>),
              (status = 200, description = "It has ended", body = Envelope<Execution>), WriteFailures))]
async fn execute_trigger(
    State(app): State<App>,
    caller: Caller,
    circumstances: Circumstances,
    Path(id): Path<Uuid>,
    Query(wait): Query<Wait>,
    body: OptionalJson<NewRun>,
) -> Result<Response, Problem> {
    let trigger = find(&app, &caller, id)?;
    let wait = wait.time()?;
    let NewRun { input } = body.read()?;
    let ask = circumstances.ask(&app, &caller, Some(trigger.product_id), &[body.bytes()]).await?;
    // A trigger that is gone is refused there, unless this request was answered before.
    let new = NewExecution { agent: trigger.agent_id, trigger: Some(id), input };
    let done = app.commands.request_execution(new, &ask).await?;
    accepted::answer(&app, &done, wait).await
}
