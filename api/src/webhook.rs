//! Deliveries from outside: `POST /api/webhook/{path}`.
//!
//! The rule of this file: a delivery is in the log before it is answered, and nothing is looked at
//! that was not verified.

mod door;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use commands::{Actor, BadDelivery, Hook};
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use crate::access::Access;
use crate::app::App;
use crate::caller::Circumstances;
use crate::http::openapi::WebhookFailures;
use crate::http::problem::Aim;
use crate::http::reply::Envelope;
use crate::http::{ClientAddress, Path, Problem, Reply};

pub use door::Doors;

/// The routes of deliveries.
pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(deliver))
}

/// What a delivery led to so far.
#[derive(Debug, Serialize, ToSchema)]
struct Delivered {
    /// Always empty: what a delivery starts is decided after the answer. The deliveries of the trigger
    /// say what it was.
    execution_ids: Vec<Uuid>,
}

fn no_such_path() -> Problem {
    Problem::not_found(
        "webhook_not_found",
        "nothing listens at this path: look at the trigger for the right one, and whether it is listening",
    )
}

/// Deliver to a webhook
///
/// The path is that of a webhook trigger, and may hold slashes. The body is JSON of at most 1 MiB, of 25 MiB from
/// GitHub, which may send it in a form; it arrives within 10 s, and is verified as the trigger says. Too many in a
/// second from one address are `429`, as are too many at once: other paths are not touched by that. It is answered
/// when the delivery is stored; the execution follows. A delivery whose id was seen before is answered as the first
/// one was, and starts nothing.
#[utoipa::path(post, path = "/api/webhook/{*path}", tag = "Webhooks", security(()),
    extensions(("x-access" = json!(Access::Everybody))),
    params(("path" = String, Path, description = "The path of the trigger, with its slashes")),
    request_body(content = Object, description = "Whatever is delivered"),
    responses((status = 200, description = "The delivery is stored", body = Envelope<Delivered>), WebhookFailures))]
async fn deliver(
    State(app): State<App>,
    Path(path): Path<String>,
    circumstances: Circumstances,
    ClientAddress(address): ClientAddress,
    headers: HeaderMap,
    request: Request,
) -> Response {
    if let Some(too_often) = app.doors.shut_at(&path, address) {
        return too_often.into_response();
    }
    let hook = match app.commands.webhook_at(&path).await {
        Ok(Some(hook)) => hook,
        Ok(None) => return app.doors.turn_away(address, no_such_path()),
        Err(error) => return Problem::from(error).into_response(),
    };
    let aim = Aim { product: Some(hook.product), resource: ("trigger", hook.trigger) };
    let answer = |body| deliver_to(&app, &hook, &circumstances, &headers, body);
    let response = app.doors.let_in(aim, address, request, hook.max_bytes(), answer).await;
    if response.status() == StatusCode::TOO_MANY_REQUESTS {
        app.doors.flooded(path, hook.trigger);
    }
    response
}

async fn deliver_to(
    app: &App,
    hook: &Hook,
    circumstances: &Circumstances,
    headers: &HeaderMap,
    body: Vec<u8>,
) -> Result<Reply<Delivered>, Problem> {
    let good = app.commands.verify_delivery(hook, headers, &body).await?.map_err(refused)?;
    let (organization, product) = (hook.organization, Some(hook.product));
    let ask = circumstances.ask_as(app, Actor::Anonymous, organization, product, &[]).await?;
    let done = app.commands.receive_delivery(hook, good, &ask).await?;
    let delivered = Delivered { execution_ids: Vec::new() };
    Ok(Reply::ok("Webhook processed successfully", delivered).position(done.position().0))
}

fn refused(bad: BadDelivery) -> Problem {
    let detail = bad.to_string();
    match bad {
        // Who delivers need not know which trigger it is.
        BadDelivery::NoSecret(_) => Problem::unauthenticated(
            "webhook_without_secret",
            "this webhook has no secret yet, and can verify nothing: set one at its trigger",
        ),
        BadDelivery::NotVerified(_) => Problem::unauthenticated("signature_invalid", detail),
        BadDelivery::Malformed(_) => Problem::malformed("body_malformed", detail),
    }
}
