//! Stopping many executions at once: `/api/agent-base/{id}/executions/stop`.
//!
//! The rule of this file: one request stops a bounded number, of those that were there when it came,
//! and says when that was not all.

use axum::extract::State;
use projections::execution::{self, Filter};
use projections::{Listing, Window};
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use super::{ExecutionFilters, ExecutionStatus, product_of, search};
use crate::access::Right;
use crate::answers::Nothing;
use crate::app::App;
use crate::caller::{Caller, Circumstances};
use crate::http::openapi::{IdempotencyKeyParam, WriteFailures};
use crate::http::reply::Envelope;
use crate::http::{OptionalJson, Path, Problem, Query, Reply};

/// How many executions one request stops.
const MOST: usize = 1_000;

/// What a request to stop executions came to.
#[derive(Clone, Copy, Debug, Serialize, ToSchema)]
pub struct StoppedExecutions {
    /// How many were stopped.
    stopped: u64,
    /// More of them have not ended: send the request again, with a new `Idempotency-Key` if with one.
    more: bool,
}

/// Stop the executions of an agent
///
/// Those that have not ended and that the list would show with the same filters, 1,000 at most: where
/// `more` is true, others are left. Those that end by themselves meanwhile are passed over, and not
/// counted.
///
/// With `q` one request looks through as many as one page of the list does; where `more` is true
/// though nothing was stopped, narrow with `from` and `to`. Which executions are meant is stored before the first of them
/// is stopped: a request that was cut off is finished without being sent again, and the same
/// `Idempotency-Key` gives its first answer for ever.
#[utoipa::path(post, path = "/api/agent-base/{id}/executions/stop", tag = "Executions",
    extensions(("x-access" = json!(Right::Execute))),
    params(("id" = Uuid, Path), ExecutionFilters, IdempotencyKeyParam), request_body = Option<Nothing>,
    responses((status = 200, description = "How many were stopped", body = Envelope<StoppedExecutions>), WriteFailures))]
pub(super) async fn stop_executions(
    State(app): State<App>,
    caller: Caller,
    circumstances: Circumstances,
    Path(id): Path<Uuid>,
    Query(filters): Query<ExecutionFilters>,
    body: OptionalJson<Nothing>,
) -> Result<Reply<StoppedExecutions>, Problem> {
    let product = product_of(&app, &caller, id)?;
    let ask = circumstances.ask(&app, &caller, Some(product), &[body.bytes()]).await?;
    let before = app.commands.stopped_before(&ask).await?;
    let replayed = before.is_some();
    let stopped = match before {
        Some(before) => before,
        None => {
            let Nothing {} = body.read()?;
            let (executions, more) = open(&app, id, &filters).await?;
            if executions.is_empty() && !ask.repeatable {
                // Nothing to do, and nothing to remember.
                let position = app.views.position();
                commands::StoppedExecutions { count: 0, more, position }
            } else {
                app.commands.stop_executions(id, executions, more, &ask).await?
            }
        }
    };
    app.caught_up(stopped.position).await?;
    let commands::StoppedExecutions { count, more, position } = stopped;
    let answer = StoppedExecutions { stopped: count, more };
    Ok(Reply::ok("Executions stopped", answer).position(position.0).replayed(replayed))
}

/// The executions that are meant and have not ended, and whether there are more of them.
async fn open(
    app: &App,
    agent: Uuid,
    filters: &ExecutionFilters,
) -> Result<(Vec<Uuid>, bool), Problem> {
    let needle = filters.needle()?;
    let meant = |status: &ExecutionStatus| filters.status.is_none_or(|wanted| wanted == *status);
    let filters = ExecutionStatus::OPEN.iter().filter(|status| meant(status)).map(|status| {
        let status = Some(status.as_str().to_owned());
        Filter { status, ..filters.filter() }
    });
    let (mut ids, mut more) = (Vec::new(), false);
    match needle {
        // All in one look: none goes from one status to another in between.
        None => app.read(|db| {
            let snapshot = db.unchecked_transaction()?;
            for filter in filters {
                let listing = execution::list(&snapshot, agent, &filter, room(&ids))?;
                more |= take(listing, |execution| execution.id, &mut ids);
            }
            Ok(())
        })?,
        Some(needle) => {
            for filter in filters {
                let listing = search::search(app, agent, &filter, needle, room(&ids)).await?;
                more |= take(listing, |execution| execution.id, &mut ids);
            }
        }
    }
    Ok((ids, more))
}

/// A window for as many as may still be stopped.
fn room(taken: &[Uuid]) -> Window {
    Window::first((MOST - taken.len()) as u64)
}

/// Takes the executions of a listing. Answers whether it has more.
fn take<T>(listing: Listing<T>, id: impl Fn(&T) -> Uuid, ids: &mut Vec<Uuid>) -> bool {
    let shown = listing.items.len() as u64;
    for execution in &listing.items {
        // It may have gone on from one status to another while it was looked for.
        let id = id(execution);
        if !ids.contains(&id) {
            ids.push(id);
        }
    }
    listing.cursor.is_some() || listing.total_is_capped || listing.total > shown
}
