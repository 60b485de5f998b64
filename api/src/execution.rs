//! Executions: `/api/agent-base/{id}/executions`, and how an execution is found and shown everywhere.
//!
//! The rule of this file: what people and agents wrote is opened here, right before it is answered,
//! and what was shredded shows as `null`.

use std::time::Duration;

use axum::extract::State;
use chrono::{DateTime, Utc};
use eventlog::StreamId;
use projections::execution::{self, Attempt, Failure, Filter, SealedPayload};
use projections::{Listing, Window, agent, stored_time};
use rusqlite::Connection;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};
use tokio::time::Instant;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use crate::access::Right;
use crate::agent::{agent_not_found, reach};
use crate::app::App;
use crate::caller::Caller;
use crate::http::openapi::{MinPositionParam, PageParams, ReadFailures};
use crate::http::reply::ListEnvelope;
use crate::http::{ETag, FieldError, ListQuery, ListReply, Path, Problem};
use crate::lists::{total, window};

pub mod accepted;
pub mod ends;
mod search;
mod stop;

/// The longest text that is looked for.
const LONGEST_NEEDLE: usize = 200;

/// The routes of executions.
pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(list_executions)).routes(routes!(stop::stop_executions))
}

/// How far an execution is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ExecutionStatus {
    /// Nobody runs it yet.
    Queued,
    /// Its steps are being run.
    Running,
    /// Somebody paused it.
    Paused,
    /// It waits for a time, or for the next attempt at a step.
    Waiting,
    /// It is done.
    Succeeded,
    /// It cannot be done.
    Failed,
    /// Nobody wants it any more.
    Cancelled,
    /// It took too long.
    TimedOut,
}

impl ExecutionStatus {
    /// Those of an execution that has not ended; one that is never begun need not be stopped later.
    const OPEN: [ExecutionStatus; 4] = [
        ExecutionStatus::Queued,
        ExecutionStatus::Paused,
        ExecutionStatus::Waiting,
        ExecutionStatus::Running,
    ];

    /// Nothing more comes of it.
    pub fn is_ended(self) -> bool {
        !ExecutionStatus::OPEN.contains(&self)
    }

    fn as_str(self) -> &'static str {
        match self {
            ExecutionStatus::Queued => "queued",
            ExecutionStatus::Running => "running",
            ExecutionStatus::Paused => "paused",
            ExecutionStatus::Waiting => "waiting",
            ExecutionStatus::Succeeded => "succeeded",
            ExecutionStatus::Failed => "failed",
            ExecutionStatus::Cancelled => "cancelled",
            ExecutionStatus::TimedOut => "timed_out",
        }
    }
}

/// How far a step is.
#[derive(ToSchema)]
#[schema(rename_all = "snake_case")]
#[expect(dead_code, reason = "it is only described: the read models give the words")]
enum StepStatus {
    /// It is being done.
    Running,
    /// It is done.
    Succeeded,
    /// It cannot be done, or is tried again.
    Failed,
    /// Its `when` did not hold.
    Skipped,
    /// What it put out in the execution that this one repeats is good.
    Reused,
}

/// One run of one agent version.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Execution {
    /// Its id.
    pub id: Uuid,
    /// The agent.
    pub agent_id: Uuid,
    /// The version of the agent's workflow.
    pub version_id: Uuid,
    /// What started it.
    pub trigger_id: Option<Uuid>,
    /// The execution that it repeats.
    pub retry_of: Option<Uuid>,
    /// How far it is.
    #[schema(value_type = ExecutionStatus)]
    pub status: String,
    /// Until when it waits, while it does.
    #[schema(format = DateTime)]
    pub waiting_until: Option<String>,
    /// What it works on.
    #[schema(value_type = Value)]
    pub input: Option<Value>,
    /// What came out.
    #[schema(value_type = Value)]
    pub output: Option<Value>,
    /// Why it failed.
    pub error: Option<ExecutionError>,
    /// One entry for each step that was begun, in the order in which they began; not in lists.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub steps: Option<Vec<ExecutionStep>>,
    /// When it was asked for.
    #[schema(format = DateTime)]
    pub created_at: String,
    /// When it began.
    #[schema(format = DateTime)]
    pub started_at: Option<String>,
    /// When it ended.
    #[schema(format = DateTime)]
    pub ended_at: Option<String>,
}

/// Why an execution or an attempt failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct ExecutionError {
    /// What went wrong, for programs.
    pub code: String,
    /// What went wrong, for people; none when it was erased.
    pub message: Option<String>,
    /// The step at which it failed, where it was one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub step_id: Option<String>,
}

/// A step of an execution.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct ExecutionStep {
    /// Its id in the manifest.
    pub step_id: String,
    /// How far its newest attempt is; `skipped` and `reused` without one.
    #[schema(value_type = StepStatus)]
    pub status: String,
    /// What its newest attempt was told: its `with`, evaluated, secrets masked. None of a step that only
    /// computes, and none of one that repeats: each of its items has its own.
    #[schema(value_type = Value)]
    pub input: Option<Value>,
    /// What came out.
    #[schema(value_type = Value)]
    pub output: Option<Value>,
    /// Why its newest attempt failed.
    pub error: Option<ExecutionError>,
    /// When its first attempt began.
    #[schema(format = DateTime)]
    pub started_at: String,
    /// When its newest attempt ended.
    #[schema(format = DateTime)]
    pub ended_at: Option<String>,
    /// Every attempt, oldest first.
    pub attempts: Vec<StepAttempt>,
}

/// One attempt at a step.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct StepAttempt {
    /// Which attempt.
    #[schema(minimum = 1)]
    pub attempt: u32,
    /// How far it is: `running`, `succeeded` or `failed`.
    #[schema(value_type = StepStatus)]
    pub status: String,
    /// Why it failed.
    pub error: Option<ExecutionError>,
    /// When it began.
    #[schema(format = DateTime)]
    pub started_at: String,
    /// When it ended.
    #[schema(format = DateTime)]
    pub ended_at: Option<String>,
}

/// Which executions are wanted. Every condition narrows.
#[derive(Clone, Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct ExecutionFilters {
    /// Only those that are so far.
    #[param(inline)]
    status: Option<ExecutionStatus>,
    /// Only those that this trigger started.
    trigger_id: Option<Uuid>,
    /// Only those of this version.
    version_id: Option<Uuid>,
    /// Only those asked for at this time or later.
    #[param(value_type = Option<String>, format = DateTime)]
    from: Option<DateTime<Utc>>,
    /// Only those asked for before this time.
    #[param(value_type = Option<String>, format = DateTime)]
    to: Option<DateTime<Utc>>,
    /// Only those that hold this text in their input, output, error or ids, in upper or lower case.
    #[param(min_length = 1, max_length = 200)]
    q: Option<String>,
}

impl ExecutionFilters {
    fn filter(&self) -> Filter {
        Filter {
            status: self.status.map(|status| status.as_str().to_owned()),
            trigger: self.trigger_id,
            version: self.version_id,
            from: self.from.map(stored_time),
            to: self.to.map(stored_time),
        }
    }

    /// The text that is looked for.
    fn needle(&self) -> Result<Option<&str>, Problem> {
        match self.q.as_deref() {
            Some(needle) if needle.chars().count() > LONGEST_NEEDLE => Err(needle_too_long()),
            needle => Ok(needle),
        }
    }
}

/// The product of an agent that the caller may see, uninstalled or not: its history stays.
fn product_of(app: &App, caller: &Caller, agent: Uuid) -> Result<Uuid, Problem> {
    let found = app.read(|db| agent::get(db, agent))?.ok_or_else(agent_not_found)?;
    reach(app, caller, found.product, agent_not_found)?;
    Ok(found.product)
}

/// List the executions of an agent
///
/// Newest first, without their steps. Those of an uninstalled agent stay readable.
///
/// With `q` one request looks through the 10,000 newest executions that the other filters let
/// through, and at most 64 MiB of texts longer than 16 KiB; where that is not all, `total_is_capped`
/// says so, and the `cursor` goes on with older ones.
#[utoipa::path(get, path = "/api/agent-base/{id}/executions", tag = "Executions",
    extensions(("x-access" = json!(Right::ReadExecutions))),
    params(("id" = Uuid, Path), ExecutionFilters, PageParams, MinPositionParam),
    responses((status = 200, description = "The executions", body = ListEnvelope<Execution>), ReadFailures))]
async fn list_executions(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<Uuid>,
    query: ListQuery<ExecutionFilters>,
) -> Result<ListReply<Execution>, Problem> {
    product_of(&app, &caller, id)?;
    let filter = query.filters.filter();
    let window = window(&query)?;
    let listing = match query.filters.needle()? {
        Some(needle) => search::search(&app, id, &filter, needle, window).await?,
        None => page(&app, id, &filter, window).await?,
    };
    let total = total(&query, &listing);
    Ok(query.reply("Executions", listing.items, total))
}

fn needle_too_long() -> Problem {
    let message = format!("must be at most {LONGEST_NEEDLE} characters long");
    Problem::malformed("invalid_parameters", "bad query parameters: q; errors says why")
        .with_error(FieldError::new("/q", "too_long", message))
}

async fn page(
    app: &App,
    agent: Uuid,
    filter: &Filter,
    window: Window,
) -> Result<Listing<Execution>, Problem> {
    let Listing { items, total, total_is_capped, cursor } =
        app.read(|db| execution::list(db, agent, filter, window))?;
    let mut shown = Vec::with_capacity(items.len());
    for row in items {
        let texts = Texts::open(app, &row).await?;
        shown.push(show(row, texts));
    }
    Ok(Listing { items: shown, total, total_is_capped, cursor })
}

pub(crate) fn execution_not_found() -> Problem {
    Problem::not_found(
        "execution_not_found",
        "there is no such execution: list those of the agent to see which there are",
    )
}

/// An execution that the caller may see.
pub(crate) fn find(app: &App, caller: &Caller, id: Uuid) -> Result<execution::Execution, Problem> {
    let found = app.read(|db| execution::get(db, id))?.ok_or_else(execution_not_found)?;
    reach(app, caller, found.product, execution_not_found)?;
    Ok(found)
}

/// An execution and its attempts, as they stand in the read models.
pub(crate) type Rows = (execution::Execution, Vec<Attempt>);

/// An execution and its attempts, both of one moment.
///
/// # Errors
/// The file cannot be read.
pub(crate) fn rows(db: &Connection, id: Uuid) -> Result<Option<Rows>, projections::Error> {
    let snapshot = db.unchecked_transaction()?;
    Ok(execution::get(&snapshot, id)?.zip(Some(execution::attempts(&snapshot, id)?)))
}

/// An execution with its steps; none when there is none of that id.
///
/// # Errors
/// The read models or the vault fail.
pub async fn whole(app: &App, id: Uuid) -> Result<Option<Execution>, Problem> {
    match app.read(|db| rows(db, id))? {
        Some(rows) => Ok(Some(show_whole(app, rows).await?)),
        None => Ok(None),
    }
}

/// An execution with its steps, its texts opened.
///
/// # Errors
/// The vault fails.
pub(crate) async fn show_whole(app: &App, (row, attempts): Rows) -> Result<Execution, Problem> {
    let texts = Texts::open(app, &row).await?;
    let mut steps: Vec<ExecutionStep> = Vec::new();
    for attempt in attempts {
        let input = open(app, &row, "input", attempt.input.as_ref()).await?;
        let output = open(app, &row, "output", attempt.output.as_ref()).await?;
        let error = match &attempt.error {
            Some(failure) => {
                Some(explain(failure, open(app, &row, "error", failure.message.as_ref()).await?))
            }
            None => None,
        };
        let input = input.as_deref().and_then(value);
        let output = output.as_deref().and_then(value);
        add_attempt(&mut steps, attempt, AttemptTexts { input, output, error });
    }
    Ok(Execution { steps: Some(steps), ..show(row, texts) })
}

/// The tag of an execution as it is shown. An execution is nothing but its progress, so its tag is
/// made of all that is shown: whoever asks for what is new never misses its end.
///
/// # Errors
/// Never, as far as is known.
pub(crate) fn etag(shown: &Execution) -> Result<ETag, Problem> {
    let bytes = serde_json::to_vec(shown).map_err(|error| Problem::internal(&error))?;
    Ok(ETag::of_content(&hex::encode(&Sha256::digest(bytes)[..16])))
}

/// The texts of an attempt, opened.
#[derive(Default)]
struct AttemptTexts {
    input: Option<Value>,
    output: Option<Value>,
    error: Option<ExecutionError>,
}

fn add_attempt(steps: &mut Vec<ExecutionStep>, attempt: Attempt, texts: AttemptTexts) {
    let AttemptTexts { input, output, error } = texts;
    let Attempt { step_id, attempt, status, started_at, ended_at, .. } = attempt;
    let index = steps.iter().position(|step| step.step_id == step_id).unwrap_or_else(|| {
        steps.push(ExecutionStep {
            step_id,
            status: String::new(),
            input: None,
            output: None,
            error: None,
            started_at: started_at.clone(),
            ended_at: None,
            attempts: Vec::new(),
        });
        steps.len() - 1
    });
    let step = &mut steps[index];
    step.status.clone_from(&status);
    step.ended_at.clone_from(&ended_at);
    step.error.clone_from(&error);
    step.input = input;
    step.output = output;
    if attempt > 0 {
        step.attempts.push(StepAttempt { attempt, status, error, started_at, ended_at });
    }
}

/// Waits until an execution has ended, and shows it then; none when that takes longer than `within`,
/// or the server stops first.
///
/// # Errors
/// The read models or the vault fail.
pub async fn ended(app: &App, id: Uuid, within: Duration) -> Result<Option<Execution>, Problem> {
    let deadline = Instant::now() + within;
    let wakening = app.ends.wait_for(id);
    loop {
        // Before the read: an end that comes in between then wakes at once.
        let woken = wakening.woken();
        let found = app.read(|db| execution::get(db, id))?;
        if found.is_some_and(|execution| execution.ended_at.is_some()) {
            return whole(app, id).await;
        }
        tokio::select! {
            () = woken => {}
            () = tokio::time::sleep_until(deadline) => return Ok(None),
            () = app.shutdown.cancelled() => return Ok(None),
        }
    }
}

/// The texts of an execution, opened.
struct Texts {
    input: Option<String>,
    output: Option<String>,
    error: Option<String>,
}

impl Texts {
    async fn open(app: &App, row: &execution::Execution) -> Result<Texts, Problem> {
        let message = row.error.as_ref().and_then(|failure| failure.message.as_ref());
        Ok(Texts {
            input: open(app, row, "input", Some(&row.input)).await?,
            output: open(app, row, "output", row.output.as_ref()).await?,
            error: open(app, row, "error", message).await?,
        })
    }
}

/// Opens a text of an execution; none where there is none, or its key was shredded.
async fn open(
    app: &App,
    row: &execution::Execution,
    field: &str,
    sealed: Option<&SealedPayload>,
) -> Result<Option<String>, Problem> {
    let Some(sealed) = sealed else { return Ok(None) };
    let stream = StreamId::new("execution", row.id);
    app.open((row.organization, row.product), &stream, field, sealed).await
}

pub(crate) fn value(text: &str) -> Option<Value> {
    serde_json::from_str(text).ok()
}

fn explain(failure: &Failure, message: Option<String>) -> ExecutionError {
    let known = match failure.code.as_str() {
        "queue_timed_out" => {
            "no worker began with it in time: raise limits.queue_timeout, or ask for less at once"
        }
        "execution_timed_out" => {
            "it took longer than the agent's limits.timeout: give it less to do, or more time"
        }
        _ => "the server stopped in the middle of it; it was begun again, or given up",
    };
    let message = if failure.message.is_none() { Some(known.to_owned()) } else { message };
    ExecutionError { code: failure.code.clone(), message, step_id: failure.step.clone() }
}

fn show(row: execution::Execution, texts: Texts) -> Execution {
    Execution {
        id: row.id,
        agent_id: row.agent,
        version_id: row.version_id,
        trigger_id: row.trigger,
        retry_of: row.retry_of,
        status: row.status,
        waiting_until: row.waiting_until,
        input: texts.input.as_deref().and_then(value),
        output: texts.output.as_deref().and_then(value),
        error: row.error.as_ref().map(|failure| explain(failure, texts.error)),
        steps: None,
        created_at: row.created_at,
        started_at: row.started_at,
        ended_at: row.ended_at,
    }
}

#[cfg(test)]
mod tests;
