//! The read models, for those who look after the server: `/api/projections`.

use axum::extract::State;
use projections::Status;
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::access::Right;
use crate::answers::Nothing;
use crate::app::App;
use crate::caller::Caller;
use crate::http::openapi::{
    IdempotencyKeyParam, MinPositionParam, PageParams, ReadFailures, WriteFailures,
};
use crate::http::page::NoFilters;
use crate::http::reply::{Envelope, ListEnvelope};
use crate::http::{Idempotency, ListQuery, ListReply, OptionalJson, Path, Problem, Reply};
use crate::lists::part;

/// The routes of the read models.
pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(list_projections)).routes(routes!(rebuild_projection))
}

/// List the read models
///
/// In the order in which they were made, the search indexes last: `search` is the one that answers.
#[utoipa::path(get, path = "/api/projections", tag = "Log and audit",
    extensions(("x-access" = json!(Right::ReadProjections))),
    params(PageParams, MinPositionParam),
    responses((status = 200, description = "Where each stands", body = ListEnvelope<Status>), ReadFailures))]
async fn list_projections(
    State(app): State<App>,
    query: ListQuery<NoFilters>,
) -> Result<ListReply<Status>, Problem> {
    Ok(part(&query, "Read models", statuses(&app)))
}

/// Where each read model stands now.
pub fn statuses(app: &App) -> Vec<Status> {
    let mut statuses = app.views.statuses();
    statuses.extend(app.search.statuses());
    // They stand where their last batch left them; the log has gone on since.
    let head = *app.log.watch().borrow();
    statuses.iter_mut().for_each(|status| status.measure(head));
    statuses
}

/// A rebuild that goes on.
#[derive(Debug, Serialize, ToSchema)]
struct Rebuild {
    /// The read model.
    name: String,
    /// Where its progress is seen.
    progress: String,
}

/// Rebuild a read model
///
/// It is built anew from the log beside the one in use, and swapped in when it has caught up. The
/// listings share one file: rebuilding one of them rebuilds the file.
#[utoipa::path(post, path = "/api/projections/{name}/rebuild", tag = "Log and audit",
    extensions(("x-access" = json!(Right::RebuildProjections))),
    params(("name" = String, Path, description = "As in the list"), IdempotencyKeyParam),
    request_body = Option<Nothing>,
    responses((status = 202, description = "It is being rebuilt", body = Envelope<Rebuild>), WriteFailures))]
async fn rebuild_projection(
    State(app): State<App>,
    caller: Caller,
    idempotency: Idempotency,
    Path(name): Path<String>,
    body: OptionalJson<Nothing>,
) -> Result<Reply<Rebuild>, Problem> {
    let accepted = |name: String, position: u64| {
        let rebuild = Rebuild { name, progress: "/api/projections".into() };
        Reply::accepted("The read model is being rebuilt", rebuild).position(position)
    };
    let command = idempotency.command_id(caller.organization, &caller.actor().to_string());
    let digest = idempotency.digest(&[body.bytes()]);
    if let Some(position) = app.rebuilds.before(command, digest)? {
        return Ok(accepted(name, position).replayed(true));
    }
    if !statuses(&app).iter().any(|status| status.name == name) {
        return Err(Problem::not_found(
            "projection_not_found",
            "there is no such read model: GET /api/projections lists them",
        ));
    }
    let Nothing {} = body.read()?;
    let _ = app.views.rebuild(&name) || app.search.rebuild(&name);
    let position = app.views.position().0;
    if idempotency.key().is_some() {
        app.rebuilds.remember(command, digest, position);
    }
    Ok(accepted(name, position))
}
