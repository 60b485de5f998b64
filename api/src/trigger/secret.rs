//! The secrets of webhooks: `/api/agent-base/triggers/{triggerId}/rotate-secret`, and where deliveries come in.
//!
//! The rule of this file: a secret is shown once, when it was made here, and masked otherwise.

use axum::extract::State;
use chrono::{TimeDelta, Utc};
use domain::Timestamp;
use domain::trigger::Setting;
use projections::trigger::Trigger;
use secrecy::SecretString;
use serde::{Deserialize, Deserializer, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use super::{TriggerDetails, details_after, find_active};
use crate::access::Right;
use crate::app::App;
use crate::caller::{Caller, Circumstances};
use crate::http::openapi::{IdempotencyKeyParam, IfMatchParam, WriteFailures};
use crate::http::reply::Envelope;
use crate::http::{FieldError, OptionalJson, Path, Problem, Reply};

/// The most seconds that a secret stays good which was exchanged: a week.
const MAX_GRACE_SECONDS: u32 = 604_800;

/// By what deliveries are to be verified.
#[derive(Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Rotation {
    /// The new secret; one is made without it.
    #[serde(default, deserialize_with = "read")]
    #[schema(value_type = Option<String>, write_only, max_length = 1024)]
    secret: Option<SecretString>,
    /// For so long the one before is good, too: a week at most.
    #[schema(maximum = 604800, default = 0)]
    grace_seconds: Option<u32>,
}

/// A trigger with another secret.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct RotatedTrigger {
    /// The new secret where it was made here: it is shown this once.
    secret: Option<String>,
    /// The trigger.
    trigger: TriggerDetails,
}

/// Where deliveries come in.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct WebhookDoor {
    /// What stands behind `/api/webhook/`.
    path: String,
    /// The whole path.
    #[schema(example = "/api/webhook/acme/push")]
    url: String,
    /// The secret, masked but for its end; none where there is none of its own.
    #[schema(example = "••••1234")]
    secret: Option<String>,
    /// Until then the secret before this one is good, too.
    #[schema(format = DateTime)]
    previous_secret_until: Option<String>,
    /// Why deliveries are refused, for people; none where they are not.
    problem: Option<String>,
}

/// A secret, kept out of whatever prints.
pub(super) fn read<'de, D: Deserializer<'de>>(input: D) -> Result<Option<SecretString>, D::Error> {
    Ok(Option::<String>::deserialize(input)?.map(SecretString::from))
}

/// Where the deliveries of a trigger come in, if it is a webhook.
pub(super) async fn webhook_door(
    app: &App,
    trigger: &Trigger,
) -> Result<Option<WebhookDoor>, Problem> {
    let Ok(Setting::Webhook(webhook)) = Setting::parse(trigger.kind, &trigger.configuration) else {
        return Ok(None);
    };
    let path = app.commands.webhook_path(trigger.id, &webhook);
    let (mut secret, mut previous_secret_until) = (None, None);
    if let Some(known) = &trigger.secret {
        secret =
            app.commands.masked_secret(trigger.organization, trigger.id, &known.current).await?;
        let now = Timestamp::from(Utc::now());
        let previous = known.previous.as_ref().map(|(_, until)| *until);
        previous_secret_until =
            previous.filter(|until| now < *until).map(|until| until.to_string());
    }
    let needs_one = webhook.verify.needs_secret() && secret.is_none();
    let problem = (needs_one && !app.commands.inherits_secret(trigger.id).await?).then(|| {
        "deliveries are refused: there is no secret to verify them with; set one with PUT on this trigger"
            .to_owned()
    });
    let url = format!("/api/webhook/{path}");
    Ok(Some(WebhookDoor { path, url, secret, previous_secret_until, problem }))
}

/// Exchange the secret of a webhook
///
/// From now on deliveries are verified by the new secret; for `grace_seconds` those by the one before are
/// accepted, too. Without a `secret` one is made, and answered this once.
#[utoipa::path(post, path = "/api/agent-base/triggers/{triggerId}/rotate-secret", tag = "Triggers",
    extensions(("x-access" = json!(Right::WriteAgents))),
    params(("triggerId" = Uuid, Path), IdempotencyKeyParam, IfMatchParam),
    request_body = Option<Rotation>,
    responses((status = 200, description = "The trigger as it is now", body = Envelope<RotatedTrigger>), WriteFailures))]
pub(super) async fn rotate_secret(
    State(app): State<App>,
    caller: Caller,
    circumstances: Circumstances,
    Path(id): Path<Uuid>,
    body: OptionalJson<Rotation>,
) -> Result<Reply<RotatedTrigger>, Problem> {
    let found = find_active(&app, &caller, id)?;
    let Rotation { secret, grace_seconds } = body.read()?;
    let grace = grace_seconds.unwrap_or(0);
    if grace > MAX_GRACE_SECONDS {
        let message = format!("`grace_seconds` is at most {MAX_GRACE_SECONDS}: a week");
        let fault = FieldError::new("/grace_seconds", "out_of_range", message.clone());
        return Err(Problem::invalid("invalid_body", message).with_error(fault));
    }
    let ask = circumstances.ask(&app, &caller, Some(found.product), &[body.bytes()]).await?;
    let grace = TimeDelta::seconds(i64::from(grace));
    let rotated = app.commands.rotate_secret(id, secret, grace, &ask).await?;
    let position = app.applied(&rotated.done).await?;
    let (trigger, etag) = details_after(&app, &rotated.done, id).await?;
    let shown = RotatedTrigger { secret: rotated.made, trigger };
    Ok(Reply::ok("Secret exchanged", shown)
        .etag(&etag)
        .position(position)
        .replayed(rotated.done.replayed)
        .secret())
}
