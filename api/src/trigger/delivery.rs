//! What was delivered to webhooks: `/api/agent-base/triggers/{triggerId}/deliveries`.
//!
//! The rule of this file: what came of a delivery stays as it was; delivered once more, it is another execution.

use axum::extract::State;
use axum::response::Response;
use domain::delivery::DeliveryError;
use eventlog::StreamId;
use projections::delivery;
use projections::execution::SealedPayload;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;
use uuid::Uuid;

use super::find_active;
use crate::access::Right;
use crate::app::App;
use crate::caller::{Caller, Circumstances};
use crate::execution::Execution;
use crate::execution::accepted::{self, AcceptedExecution, Wait};
use crate::http::openapi::{
    IdempotencyKeyParam, MinPositionParam, PageParams, ReadFailures, WriteFailures,
};
use crate::http::page::NoFilters;
use crate::http::reply::{Envelope, ListEnvelope};
use crate::http::{ListQuery, ListReply, OptionalJson, Path, Problem, Query};
use crate::lists::{total, window};

/// What was delivered to a webhook.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct DeliveryDetails {
    /// Its id.
    id: Uuid,
    /// The id that its sender gave it.
    delivery_id: Option<String>,
    /// The headers that matter; none when they were erased.
    #[schema(value_type = Option<Object>)]
    headers: Value,
    /// How it was verified.
    verify: String,
    /// How long its body is, in bytes.
    size: u64,
    /// `received` (it is worked on next), `started`, `filtered` (the trigger does not want it) or `failed`.
    status: String,
    /// The execution that it started.
    execution_id: Option<Uuid>,
    /// Why it failed, for programs.
    code: Option<String>,
    /// Why it failed, for people; none when it was erased.
    message: Option<String>,
    /// When it came in.
    #[schema(format = DateTime)]
    received_at: String,
    /// When it was worked on.
    #[schema(format = DateTime)]
    settled_at: Option<String>,
}

/// How a delivery is to be worked on again.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Replay {
    /// The version that is to run; the one that the trigger starts without it.
    version_id: Option<Uuid>,
}

/// List what was delivered to a webhook
///
/// Newest first, each with what became of it.
#[utoipa::path(get, path = "/api/agent-base/triggers/{triggerId}/deliveries", tag = "Triggers",
    extensions(("x-access" = json!(Right::ReadExecutions))),
    params(("triggerId" = Uuid, Path), PageParams, MinPositionParam),
    responses((status = 200, description = "The deliveries", body = ListEnvelope<DeliveryDetails>), ReadFailures))]
pub(super) async fn list_deliveries(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<Uuid>,
    query: ListQuery<NoFilters>,
) -> Result<ListReply<DeliveryDetails>, Problem> {
    find_active(&app, &caller, id)?;
    let window = window(&query)?;
    let listing = app.read(|db| delivery::of_trigger(db, id, window))?;
    let total = total(&query, &listing);
    let mut shown = Vec::with_capacity(listing.items.len());
    for item in listing.items {
        shown.push(delivery_details(&app, item).await?);
    }
    Ok(query.reply("Deliveries", shown, total))
}

/// A delivery as it is answered: with what its sender called it, and why it failed.
async fn delivery_details(
    app: &App,
    delivery: delivery::Delivery,
) -> Result<DeliveryDetails, Problem> {
    let stream = StreamId::new("delivery", delivery.id);
    let open = async |sealed: &Option<SealedPayload>, field: &str| {
        let Some(sealed) = sealed else { return Ok(None) };
        app.open((delivery.organization, delivery.product), &stream, field, sealed).await
    };
    let content = open(&delivery.content, "content").await?;
    let mut content: Value =
        content.and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default();
    let message = open(&delivery.error, "error").await?;
    Ok(DeliveryDetails {
        id: delivery.id,
        delivery_id: content["id"].as_str().map(str::to_owned),
        headers: content["headers"].take(),
        verify: delivery.verify,
        size: delivery.size,
        status: delivery.status,
        execution_id: delivery.execution,
        code: delivery.code,
        message,
        received_at: delivery.received_at,
        settled_at: delivery.settled_at,
    })
}

/// Deliver once more
///
/// Starts an execution with what was delivered, as the trigger says now: of the version that it starts, or of the
/// one that is named. What became of the delivery before stays as it was. The body may be left out.
#[utoipa::path(post, path = "/api/agent-base/triggers/{triggerId}/deliveries/{deliveryId}/replay", tag = "Triggers",
    extensions(("x-access" = json!(Right::Execute))),
    params(("triggerId" = Uuid, Path), ("deliveryId" = Uuid, Path), Wait, IdempotencyKeyParam),
    request_body = Option<Replay>,
    responses((status = 202, description = "It will be run", body = Envelope<AcceptedExecution>),
              (status = 200, description = "It has ended", body = Envelope<Execution>), WriteFailures))]
pub(super) async fn replay_delivery(
    State(app): State<App>,
    caller: Caller,
    circumstances: Circumstances,
    Path((id, delivery)): Path<(Uuid, Uuid)>,
    Query(wait): Query<Wait>,
    body: OptionalJson<Replay>,
) -> Result<Response, Problem> {
    let found = find_active(&app, &caller, id)?;
    let known = app.read(|db| delivery::get(db, delivery))?;
    if known.is_none_or(|known| known.trigger != id) {
        return Err(commands::Error::refused(&DeliveryError::NotFound).into());
    }
    let wait = wait.time()?;
    let Replay { version_id } = body.read()?;
    let ask = circumstances.ask(&app, &caller, Some(found.product), &[body.bytes()]).await?;
    let done = app.commands.replay_delivery(id, delivery, version_id, &ask).await?;
    accepted::answer(&app, &done, wait).await
}
