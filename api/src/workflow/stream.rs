//! What is heard of an execution, from its first event to its last.
//!
//! The rule of this file: it is read from the log, so it can be taken up again at any time; and what is
//! told can be read: an event is sent after the read models have taken it in.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use commands::Error;
use domain::Payload;
use domain::execution::{CancelReason, ExecutionEvent, TimeLimit};
use eventlog::{RecordedEvent, StreamId};
use futures::Stream;
use projections::stored_time;
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::access::{Access, Right};
use crate::app::App;
use crate::caller::Caller;
use crate::execution::{self, ExecutionError, ExecutionStatus};
use crate::follow::Follow;
use crate::http::openapi::{LastEventIdParam, MinPositionParam, ReadFailures};
use crate::http::sse::{self, LastEventId};
use crate::http::{Path, Problem};

/// What is heard of an execution.
#[derive(Debug, Serialize, ToSchema)]
struct ExecutionNews {
    /// The execution.
    execution_id: Uuid,
    /// How far it is with this.
    status: ExecutionStatus,
    /// When it happened.
    #[schema(format = DateTime)]
    at: String,
    /// The place in the log, as for `X-Min-Position`.
    position: u64,
    /// The agent, where the execution was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    agent_id: Option<Uuid>,
    /// The version of the agent's workflow, where the execution was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    version_id: Option<Uuid>,
    /// What started it, where the execution was asked for by a trigger.
    #[serde(skip_serializing_if = "Option::is_none")]
    trigger_id: Option<Uuid>,
    /// The step, where it is about one.
    #[serde(skip_serializing_if = "Option::is_none")]
    step_id: Option<String>,
    /// Which attempt at the step.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1)]
    attempt: Option<u32>,
    /// What the execution works on, or what the step was told; left out when it was erased.
    #[serde(skip_serializing_if = "Option::is_none")]
    input: Option<Value>,
    /// What came out of the step, or of the whole; left out when it was erased.
    #[serde(skip_serializing_if = "Option::is_none")]
    output: Option<Value>,
    /// Why the attempt at the step failed, or the whole.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<ExecutionError>,
    /// Why it was cancelled: `stopped`, `agent_uninstalled`, `product_deleted`, `superseded` (a newer one
    /// ran in its place) or `concurrency_limit` (as many ran as may run at once).
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    reason: Option<CancelReason>,
    /// The execution that it repeats.
    #[serde(skip_serializing_if = "Option::is_none")]
    retry_of: Option<Uuid>,
    /// The event because of which a trigger asked for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    reacted_to: Option<Uuid>,
    /// Until when it waits.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(format = DateTime)]
    until: Option<String>,
    /// Which limit it reached when it timed out: `queue` or `execution`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    limit: Option<TimeLimit>,
}

/// Follow an execution
///
/// Its events from the first on, or after `Last-Event-ID`, whenever that was: `execution.requested`,
/// `execution.started` (again where it goes on after a crash), `execution.step_started`,
/// `execution.step_succeeded`, `execution.step_failed`, `execution.step_skipped`, `execution.waiting`,
/// `execution.paused`, `execution.continued`, in one that repeats another `execution.retried` and
/// `execution.step_reused`, and one that ends it and the stream: `execution.succeeded`,
/// `execution.failed`, `execution.cancelled` or `execution.timed_out`. The data of each is an
/// `ExecutionNews`; ids count from 1. Whoever comes back after the last one is answered `204`, at which
/// a browser's `EventSource` stops asking. When the credential is no longer good for it, or the product
/// is deleted, the stream ends with an event `error` that says why.
#[utoipa::path(get, path = "/api/workflow/{executionId}/events", tag = "Executions",
    extensions(("x-access" = json!(Right::ReadExecutions))),
    params(("executionId" = Uuid, Path), LastEventIdParam, MinPositionParam),
    responses((status = 200, description = "The events", content((ExecutionNews = "text/event-stream"))),
              (status = 204, description = "Nothing comes after that event"), ReadFailures))]
pub(super) async fn stream_execution(
    State(app): State<App>,
    caller: Caller,
    LastEventId(last): LastEventId,
    Path(id): Path<Uuid>,
) -> Result<Response, Problem> {
    let found = execution::find(&app, &caller, id)?;
    let after = last.unwrap_or(0);
    let stream = StreamId::new("execution", id);
    if after > 0 && is_over(&app, &stream, after).await? {
        return Ok(StatusCode::NO_CONTENT.into_response());
    }
    let shutdown = app.shutdown.clone();
    let right = Access::Has(Right::ReadExecutions);
    let refused = caller.refused(app.clone(), right, Some(found.product));
    let events = Follow::after(stream, after);
    let reader = Reader { id, product: found.product, events };
    Ok(sse::stream(follow(app, reader), refused, shutdown))
}

/// Whether the event with this number ended the execution and is its last.
///
/// # Errors
/// 400 where it has no such event: whoever waits for the next one would wait in vain.
async fn is_over(app: &App, stream: &StreamId, number: u64) -> Result<bool, Problem> {
    let events = app.log.read_stream(stream, number - 1, 2).await.map_err(Error::from)?;
    match events.as_slice() {
        [] => Err(sse::not_of_this_stream()),
        [last] => Ok(status_after(&decode(last)?).is_ended()),
        _ => Ok(false),
    }
}

fn follow(app: App, mut reader: Reader) -> impl Stream<Item = Result<sse::Event, Problem>> + Send {
    async_stream::try_stream! {
        let mut applied = app.views.watch();
        loop {
            let goal = *applied.borrow_and_update();
            while let Some(events) = reader.events.next(&app, goal).await? {
                for event in events {
                    let (name, news) = reader.tell(&app, &event).await?;
                    let is_last = news.status.is_ended();
                    yield sse::Event::new(event.sequence, &name, &news)?;
                    if is_last {
                        return;
                    }
                }
            }
            if applied.changed().await.is_err() {
                return;
            }
        }
    }
}

/// Reads an execution's events, and says what is told of them.
struct Reader {
    id: Uuid,
    product: Uuid,
    events: Follow,
}

impl Reader {
    /// What is told of an event, under which name.
    async fn tell(
        &self,
        app: &App,
        event: &RecordedEvent,
    ) -> Result<(String, ExecutionNews), Problem> {
        let happened = decode(event)?;
        let name = name(&happened);
        let mut news = ExecutionNews {
            execution_id: self.id,
            status: status_after(&happened),
            at: stored_time(event.time),
            position: event.position.0,
            agent_id: None,
            version_id: None,
            trigger_id: None,
            step_id: None,
            attempt: None,
            input: None,
            output: None,
            error: None,
            reason: None,
            retry_of: None,
            reacted_to: None,
            until: None,
            limit: None,
        };
        match happened {
            ExecutionEvent::Requested { agent, version_id, trigger, input, .. } => {
                news.agent_id = Some(agent);
                news.version_id = Some(version_id);
                news.trigger_id = trigger;
                news.input = self.open_value(app, event, "input", &input).await?;
            }
            ExecutionEvent::Retried { of, .. } => news.retry_of = Some(of),
            ExecutionEvent::Reacted { event, .. } => news.reacted_to = Some(event),
            ExecutionEvent::StepReused { step_id, output } => {
                news.step_id = Some(step_id);
                news.output = self.open_value(app, event, "output", &output).await?;
            }
            ExecutionEvent::StepSkipped { step_id, .. } => news.step_id = Some(step_id),
            ExecutionEvent::Waiting { step_id, until, .. } => {
                news.step_id = Some(step_id);
                news.until = Some(stored_time(until.into()));
            }
            ExecutionEvent::TimedOut { limit } => news.limit = Some(limit),
            ExecutionEvent::Started { .. }
            | ExecutionEvent::Paused {}
            | ExecutionEvent::Continued {} => {}
            ExecutionEvent::StepStarted { step_id, attempt, input, .. } => {
                news.step_id = Some(step_id);
                news.attempt = Some(attempt);
                if let Some(input) = input {
                    news.input = self.open_value(app, event, "input", &input).await?;
                }
            }
            ExecutionEvent::StepSucceeded { step_id, attempt, output, .. } => {
                news.step_id = Some(step_id);
                news.attempt = Some(attempt);
                news.output = self.open_value(app, event, "output", &output).await?;
            }
            ExecutionEvent::StepFailed { step_id, attempt, code, error, .. } => {
                let message = self.open(app, event, "error", &error).await?;
                news.step_id = Some(step_id);
                news.attempt = Some(attempt);
                news.error = Some(ExecutionError { code, message, step_id: None });
            }
            ExecutionEvent::Succeeded { output, .. } => {
                news.output = self.open_value(app, event, "output", &output).await?;
            }
            ExecutionEvent::Failed { step_id, code, error, .. } => {
                let message = self.open(app, event, "error", &error).await?;
                news.error = Some(ExecutionError { code, message, step_id });
            }
            ExecutionEvent::Cancelled { reason } => news.reason = Some(reason),
        }
        Ok((name, news))
    }

    /// Opens a text that an event carries; none where its key was shredded.
    async fn open(
        &self,
        app: &App,
        event: &RecordedEvent,
        field: &str,
        payload: &Payload,
    ) -> Result<Option<String>, Problem> {
        Ok(app.commands.open_piece(self.product, event, field, payload).await?)
    }

    /// As [`Reader::open`], of a text that is JSON.
    async fn open_value(
        &self,
        app: &App,
        event: &RecordedEvent,
        field: &str,
        payload: &Payload,
    ) -> Result<Option<Value>, Problem> {
        let text = self.open(app, event, field, payload).await?;
        Ok(text.as_deref().and_then(execution::value))
    }
}

fn decode(event: &RecordedEvent) -> Result<ExecutionEvent, Problem> {
    let decoded = domain::event::decode(&event.event_type, &event.data);
    decoded.map_err(|error| Problem::internal(&error))
}

/// What an event is called here: its name on disk, without a version.
fn name(event: &ExecutionEvent) -> String {
    let name = domain::event::name_of(event);
    name.rsplit_once('.').map_or(name, |(name, _)| name).to_owned()
}

/// How far an execution is after an event.
fn status_after(event: &ExecutionEvent) -> ExecutionStatus {
    match event {
        // Whoever continues it takes its place in the queue again.
        ExecutionEvent::Requested { .. }
        | ExecutionEvent::Reacted { .. }
        | ExecutionEvent::Retried { .. }
        | ExecutionEvent::StepReused { .. }
        | ExecutionEvent::Continued {} => ExecutionStatus::Queued,
        ExecutionEvent::Paused {} => ExecutionStatus::Paused,
        ExecutionEvent::Waiting { .. } => ExecutionStatus::Waiting,
        ExecutionEvent::TimedOut { .. } => ExecutionStatus::TimedOut,
        ExecutionEvent::Started { .. }
        | ExecutionEvent::StepSkipped { .. }
        | ExecutionEvent::StepStarted { .. }
        | ExecutionEvent::StepSucceeded { .. }
        | ExecutionEvent::StepFailed { .. } => ExecutionStatus::Running,
        ExecutionEvent::Succeeded { .. } => ExecutionStatus::Succeeded,
        ExecutionEvent::Failed { .. } => ExecutionStatus::Failed,
        ExecutionEvent::Cancelled { .. } => ExecutionStatus::Cancelled,
    }
}
