//! Triggers: `/api/agent-base/triggers`.
//!
//! The rule of this file: when a trigger fires next is computed when it is answered; what was fired
//! is in the log.
//!
//! # Layout
//! - `delivery` is what came in at a webhook.
//! - `secret` is where deliveries come in, and by what they are verified.

mod delivery;
mod secret;

use axum::extract::State;
use axum::response::Response;
use chrono::Utc;
use commands::{Done, NewExecution, NewTrigger, TriggerReplacement};
use domain::Timestamp;
use domain::trigger::{Setting, TriggerKind};
use eventlog::StreamId;
use projections::agent;
use projections::trigger::{self, Trigger};
use secrecy::SecretString;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use self::secret::WebhookDoor;
use crate::access::Right;
use crate::agent::reach;
use crate::answers::Deleted;
use crate::app::App;
use crate::caller::{Caller, Circumstances};
use crate::execution::Execution;
use crate::execution::accepted::{self, AcceptedExecution, Wait};
use crate::http::openapi::{
    IdempotencyKeyParam, IfMatchParam, IfNoneMatchParam, MinPositionParam, PageParams,
    ReadFailures, WriteFailures,
};
use crate::http::page::NoFilters;
use crate::http::reply::{Envelope, ListEnvelope};
use crate::http::{
    ETag, FieldError, IfNoneMatch, Json, ListQuery, ListReply, OptionalJson, Path, Problem, Query,
    Reply,
};
use crate::lists::{total, window};

/// The routes of triggers that answer at once.
pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(list_manual_triggers))
        .routes(routes!(create_trigger))
        .routes(routes!(get_trigger, replace_trigger, delete_trigger))
        .routes(routes!(secret::rotate_secret))
        .routes(routes!(delivery::list_deliveries))
}

/// The routes of triggers that may wait for an execution.
pub fn long_router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(execute_trigger)).routes(routes!(delivery::replay_delivery))
}

/// What starts an execution of an agent's version.
#[derive(Debug, Serialize, ToSchema)]
struct TriggerDetails {
    /// Its id.
    id: Uuid,
    /// Its id in the manifest, or one like it where it was made later.
    key: String,
    /// What it listens to.
    #[serde(rename = "type")]
    #[schema(value_type = TriggerType)]
    kind: String,
    /// It may fire.
    enabled: bool,
    /// It fires: it is enabled, so is its agent, and it starts the active version. A manual one of another
    /// version does not listen, and can be executed all the same.
    listening: bool,
    /// What its type needs to know.
    #[schema(value_type = Object)]
    configuration: Map<String, Value>,
    /// The agent.
    agent_id: Uuid,
    /// The version of the agent's workflow that it starts: the one whose manifest names it, or the active
    /// one where it was made later.
    version_id: Uuid,
    /// The product.
    product_id: Uuid,
    /// Of a webhook: where deliveries come in, and whether they can be verified.
    webhook: Option<WebhookDoor>,
    /// When it fires next; a manual trigger never does by itself, nor does one that does not listen.
    #[schema(format = DateTime)]
    next_firing_at: Option<String>,
    /// The next five firings, or fewer where they end. With a jitter each starts somewhat later.
    next_firings: Vec<String>,
    /// When it last fired.
    #[schema(format = DateTime)]
    last_firing_at: Option<String>,
    /// Of a schedule: what became of the newest instant. Of an event trigger: what became of the newest
    /// event that it matched, or could not be held against its filter.
    last_outcome: Option<FiringOutcome>,
    /// When it was made.
    #[schema(format = DateTime)]
    created_at: String,
    /// When it was last changed.
    #[schema(format = DateTime)]
    updated_at: String,
}

/// What became of an instant of a schedule, or of an event.
#[derive(Debug, Serialize, ToSchema)]
struct FiringOutcome {
    /// `fired`, `queued` (it fires later), `skipped`, `passed_over` (it was missed), `failed` (its
    /// execution could not be asked for) or `too_deep` (too many executions led to the event).
    status: String,
    /// The instant that the schedule names; of several missed ones the last. Of an event: as `at`.
    #[schema(format = DateTime)]
    instant: String,
    /// When that was settled.
    #[schema(format = DateTime)]
    at: String,
    /// The execution that was asked for.
    execution_id: Option<Uuid>,
    /// Why it did not fire, or failed, for programs: `overlap`, `queue_full`, `outdated`, `missed`,
    /// `max_depth`, `input_invalid`, `match_too_costly` and the like.
    code: Option<String>,
    /// What went wrong, for people; none when it was erased.
    message: Option<String>,
}

/// What a trigger listens to.
#[derive(ToSchema)]
#[expect(dead_code, reason = "only documents what a configuration may hold")]
struct TriggerSettings {
    /// What it listens to; a trigger stays of its type.
    #[schema(rename = "type", value_type = TriggerType)]
    kind: String,
    /// Whether it listens: `true` without it when it is made, as before when it is replaced.
    enabled: Option<bool>,
    /// Of a schedule: five fields (minute hour day month weekday), or six with the second in front.
    #[schema(example = "0 3 * * 1-5", max_length = 200)]
    cron: Option<String>,
    /// Of a schedule: the time zone by its IANA name; `UTC` without it.
    #[schema(example = "Europe/Madrid")]
    tz: Option<String>,
    /// Of a schedule: what becomes of firings while the server was down.
    #[schema(inline, default = "last")]
    missed: Option<Missed>,
    /// Of a schedule: what becomes of a firing while an execution of the same trigger has not ended.
    #[schema(inline, default = "skip")]
    overlap: Option<Overlap>,
    /// Of a schedule: how much later than its instant a firing may start, at most `1h`.
    #[schema(example = "30s")]
    jitter: Option<String>,
    /// Of a schedule: nothing fires before.
    #[schema(format = DateTime)]
    start: Option<String>,
    /// Of a schedule: nothing fires from then on.
    #[schema(format = DateTime)]
    end: Option<String>,
    /// Of an event trigger: which events of the product start the agent, in CEL, which sees `event` and
    /// `trigger`. Of a webhook: which deliveries do, in CEL, which sees `config` and `trigger` (with
    /// `headers`, `body`, `delivery_id`). Of a message trigger: which messages do, in CEL, which sees `config`
    /// and `trigger` (with `text`, `sender`, `kind`, `channel`, `thread`, …).
    #[schema(rename = "match", example = "event.type == 'file.indexed.v1'", max_length = 4096)]
    filter: Option<String>,
    /// Of an event trigger: an event at the end of this many executions that events started, one because
    /// of the other, starts none.
    #[schema(minimum = 1, maximum = 16, default = 4)]
    max_depth: Option<u32>,
    /// Of a webhook: where deliveries come in, below `/api/webhook/`; a path that nobody can guess without
    /// it. A path is exact, and there once in the instance.
    #[schema(example = "acme/push", max_length = 200)]
    path: Option<String>,
    /// Of a webhook: how deliveries are verified.
    #[schema(inline)]
    verify: Option<Verify>,
    /// Of a webhook: the secret that they are verified by. It is shown masked only, and stays as it is
    /// where it is left out of a replacement.
    #[schema(write_only, max_length = 1024)]
    secret: Option<String>,
    /// Of `hmac-…` and `token`: the header that is looked at.
    #[schema(example = "X-Signature")]
    header: Option<String>,
    /// Of `hmac-…`: how it is written; hex or base64, as it looks, without it.
    #[schema(inline)]
    encoding: Option<HmacEncoding>,
    /// Of `hmac-…`: what stands before it; perhaps the name of the hash and `=`, without it.
    #[schema(example = "sha256=", max_length = 100)]
    prefix: Option<String>,
    /// Of a webhook: where the id of a delivery stands, if its sender has no custom of its own: a header, a
    /// JSON pointer into the body, or a list of them, which it is put together of.
    #[schema(inline)]
    delivery_id: Option<DeliveryIdPlaces>,
    /// Of a message trigger: the slot of the manifest with the communicator that people speak through; any of
    /// the product's without it.
    #[schema(example = "talk")]
    slot: Option<String>,
    /// Of a message trigger, in place of `slot`: the communicator itself.
    integration: Option<Uuid>,
    /// Of a message trigger: the only channel that is listened to, by its id.
    #[schema(example = "C0123456789", min_length = 1, max_length = 200)]
    channel: Option<String>,
    /// The input of its executions, in which `{"cel": …}` and `{"template": …}` see `config`, `trigger` and, of
    /// an event trigger, `event`. Without it a schedule gives `{}`, an event trigger `{"event": …}` where the
    /// agent's inputs know an `event`, a webhook the body that was delivered, and a
    /// message trigger the message.
    #[schema(value_type = Option<Object>)]
    input: Option<Value>,
}

#[derive(ToSchema)]
#[schema(rename_all = "snake_case")]
#[expect(dead_code, reason = "only documents what a configuration may hold")]
pub(crate) enum TriggerType {
    Manual,
    Schedule,
    Event,
    Webhook,
    Message,
}

#[derive(ToSchema)]
#[schema(rename_all = "kebab-case")]
#[expect(dead_code, reason = "only documents what a configuration may hold")]
enum Verify {
    None,
    Github,
    Gitlab,
    Bitbucket,
    StandardWebhooks,
    #[schema(rename = "hmac-sha1")]
    HmacSha1,
    #[schema(rename = "hmac-sha256")]
    HmacSha256,
    #[schema(rename = "hmac-sha512")]
    HmacSha512,
    Basic,
    Token,
}

#[derive(ToSchema)]
#[schema(rename_all = "lowercase")]
#[expect(dead_code, reason = "only documents what a configuration may hold")]
enum HmacEncoding {
    Hex,
    Base64,
    Base64Url,
}

#[derive(ToSchema)]
#[serde(untagged)]
#[expect(dead_code, reason = "only documents what a configuration may hold")]
enum DeliveryIdPlaces {
    One(String),
    Several(Vec<String>),
}

#[derive(ToSchema)]
#[schema(rename_all = "snake_case")]
#[expect(dead_code, reason = "only documents what a configuration may hold")]
enum Missed {
    Skip,
    Last,
    All,
}

#[derive(ToSchema)]
#[schema(rename_all = "snake_case")]
#[expect(dead_code, reason = "only documents what a configuration may hold")]
enum Overlap {
    Allow,
    Skip,
    Queue,
    CancelRunning,
}

/// What a trigger is to listen to, as it was sent.
#[derive(Deserialize)]
struct SentTrigger {
    #[serde(rename = "type")]
    kind: String,
    enabled: Option<bool>,
    #[serde(default, deserialize_with = "secret::read")]
    secret: Option<SecretString>,
    #[serde(flatten)]
    configuration: Map<String, Value>,
}

impl SentTrigger {
    /// What it is to listen to.
    fn kind(&self) -> Result<TriggerKind, Problem> {
        let known = serde_json::from_value::<TriggerKind>(self.kind.as_str().into()).ok();
        let refuse = |code, message: String| {
            let fault = FieldError::new("/type", code, message.clone());
            Err(Problem::invalid(code, message).with_error(fault))
        };
        match known {
            Some(kind) => Ok(kind),
            None => refuse(
                "trigger_type_unknown",
                format!(
                    "there is no trigger of type `{}`: use manual, schedule, event, webhook or message",
                    self.kind
                ),
            ),
        }
    }
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
    reach(app, caller, found.product, trigger_not_found)?;
    Ok(found)
}

/// A trigger that the caller may see, and that is there.
fn find_active(app: &App, caller: &Caller, id: Uuid) -> Result<Trigger, Problem> {
    let found = find(app, caller, id)?;
    if found.is_deleted { Err(trigger_not_found()) } else { Ok(found) }
}

/// A trigger as it is answered: with the firings to come, and why the last one failed.
async fn details(app: &App, trigger: Trigger) -> Result<TriggerDetails, Problem> {
    let active = app.read(|db| agent::active_version(db, trigger.agent))?;
    let version_id = match active {
        Some((version, _)) if !trigger.of_version => version,
        _ => trigger.version_id,
    };
    let listening = trigger.enabled && active == Some((version_id, true));
    let next_firings = if listening { next_firings(&trigger) } else { Vec::new() };
    let webhook = secret::webhook_door(app, &trigger).await?;
    let Trigger { id, organization, product, .. } = trigger;
    let mut last_outcome = None;
    if let Some(outcome) = trigger.last_outcome {
        let message = match &outcome.error {
            Some(sealed) => {
                // Of a schedule or of a reaction, as the event itself is.
                let category = sealed.event_type.split('.').next().unwrap_or_default();
                let stream = StreamId::new(category, id);
                app.open((organization, product), &stream, "error", sealed).await?
            }
            None => None,
        };
        let trigger::Outcome { status, instant, at, execution, code, .. } = outcome;
        last_outcome =
            Some(FiringOutcome { status, instant, at, execution_id: execution, code, message });
    }
    Ok(TriggerDetails {
        id,
        key: trigger.key,
        kind: trigger.kind.as_str().to_owned(),
        enabled: trigger.enabled,
        listening,
        configuration: trigger.configuration,
        agent_id: trigger.agent,
        version_id,
        product_id: product,
        webhook,
        next_firing_at: next_firings.first().cloned(),
        next_firings,
        last_firing_at: trigger.last_firing_at,
        last_outcome,
        created_at: trigger.created_at,
        updated_at: trigger.updated_at,
    })
}

/// The firings to come of a trigger, if it listens to the clock.
fn next_firings(trigger: &Trigger) -> Vec<String> {
    let Ok(Setting::Schedule { schedule, .. }) =
        Setting::parse(trigger.kind, &trigger.configuration)
    else {
        return Vec::new();
    };
    // What is settled does not fire again, even where the clock was put back.
    let now = Timestamp::from(Utc::now());
    let from = trigger.firings.settled.map_or(now, |settled| settled.max(now));
    schedule.upcoming(from).iter().map(Timestamp::to_string).collect()
}

/// The details of a trigger as a command left it, and its sequence then.
async fn details_after(
    app: &App,
    done: &Done,
    id: Uuid,
) -> Result<(TriggerDetails, ETag), Problem> {
    let found = app.read_after(done, |db| trigger::get(db, id)).await?;
    let found = found.ok_or_else(trigger_not_found)?;
    let etag = ETag::of_sequence(found.sequence);
    Ok((details(app, found).await?, etag))
}

/// Make a trigger of an agent
///
/// Beside those of its manifests: it starts the agent by hand, by the clock, because of an event, or when
/// something is delivered, whatever version is the active one.
#[utoipa::path(post, path = "/api/agent-base/{id}/triggers", tag = "Triggers",
    extensions(("x-access" = json!(Right::WriteAgents))),
    params(("id" = Uuid, Path), IdempotencyKeyParam), request_body = TriggerSettings,
    responses((status = 201, description = "The new trigger", body = Envelope<TriggerDetails>), WriteFailures))]
async fn create_trigger(
    State(app): State<App>,
    caller: Caller,
    circumstances: Circumstances,
    Path(agent): Path<Uuid>,
    body: Json<SentTrigger>,
) -> Result<Reply<TriggerDetails>, Problem> {
    let found = crate::agent::find(&app, &caller, agent)?;
    let (sent, bytes) = (body.read()?, body.bytes);
    let kind = sent.kind()?;
    let ask = circumstances.ask(&app, &caller, Some(found.product), &[&bytes]).await?;
    let is_manual = |kind| kind == TriggerKind::Manual;
    let others = app.read(|db| trigger::of_version(db, agent, found.version_id))?;
    let siblings = others.iter().filter(|other| is_manual(other.kind) == is_manual(kind)).count();
    let SentTrigger { enabled, configuration, secret, .. } = sent;
    let enabled = enabled.unwrap_or(true);
    let new = NewTrigger { agent, kind, enabled, configuration, secret, siblings };
    let done = app.commands.create_trigger(new, &ask).await?;
    let position = app.applied(&done).await?;
    let id = done.stream_id().unwrap_or_default();
    let (trigger, etag) = details_after(&app, &done, id).await?;
    let location = format!("/api/agent-base/triggers/{id}");
    Ok(Reply::created(location, "Trigger made", trigger)
        .etag(&etag)
        .position(position)
        .replayed(done.replayed))
}

/// Replace what a trigger listens to
///
/// The whole configuration is replaced; the type stays. Without `enabled` the trigger stays switched
/// on or off as it is. Firings of a schedule begin anew: what was missed before does not fire. An event
/// trigger reacts to what happens from then on.
#[utoipa::path(put, path = "/api/agent-base/triggers/{triggerId}", tag = "Triggers",
    extensions(("x-access" = json!(Right::WriteAgents))),
    params(("triggerId" = Uuid, Path), IfMatchParam), request_body = TriggerSettings,
    responses((status = 200, description = "The trigger as it is now", body = Envelope<TriggerDetails>), WriteFailures))]
async fn replace_trigger(
    State(app): State<App>,
    caller: Caller,
    circumstances: Circumstances,
    Path(id): Path<Uuid>,
    body: Json<SentTrigger>,
) -> Result<Reply<TriggerDetails>, Problem> {
    let found = find_active(&app, &caller, id)?;
    let (sent, bytes) = (body.read()?, body.bytes);
    let kind = sent.kind()?;
    let ask = circumstances.ask(&app, &caller, Some(found.product), &[&bytes]).await?;
    let SentTrigger { enabled, configuration, secret, .. } = sent;
    let new = TriggerReplacement { kind, enabled, configuration, secret };
    let done = app.commands.replace_trigger(id, new, &ask).await?;
    let position = app.applied(&done).await?;
    let (trigger, etag) = details_after(&app, &done, id).await?;
    Ok(Reply::ok("Trigger replaced", trigger)
        .etag(&etag)
        .position(position)
        .replayed(done.replayed))
}

/// Delete a trigger
///
/// The manual trigger of an agent's manifest stays (`409`): it can be disabled. Executions that were
/// asked for are not touched.
#[utoipa::path(delete, path = "/api/agent-base/triggers/{triggerId}", tag = "Triggers",
    extensions(("x-access" = json!(Right::WriteAgents))),
    params(("triggerId" = Uuid, Path), IfMatchParam),
    responses((status = 200, description = "It is gone", body = Envelope<Deleted>), WriteFailures))]
async fn delete_trigger(
    State(app): State<App>,
    caller: Caller,
    circumstances: Circumstances,
    Path(id): Path<Uuid>,
) -> Result<Reply<Deleted>, Problem> {
    let found = find_active(&app, &caller, id)?;
    let ask = circumstances.ask(&app, &caller, Some(found.product), &[]).await?;
    let done = app.commands.remove_trigger(id, &ask).await?;
    let position = app.applied(&done).await?;
    Ok(Reply::ok("Trigger deleted", Deleted { id }).position(position))
}

/// Look at a trigger
///
/// With its next five firings and what became of the last one. Neither moves its `ETag`.
#[utoipa::path(get, path = "/api/agent-base/triggers/{triggerId}", tag = "Triggers",
    extensions(("x-access" = json!(Right::ReadAgents))),
    params(("triggerId" = Uuid, Path), MinPositionParam, IfNoneMatchParam),
    responses((status = 200, description = "The trigger", body = Envelope<TriggerDetails>),
              (status = 304, description = "The client has it already"), ReadFailures))]
async fn get_trigger(
    State(app): State<App>,
    caller: Caller,
    known: IfNoneMatch,
    Path(id): Path<Uuid>,
) -> Result<Reply<TriggerDetails>, Problem> {
    let trigger = find_active(&app, &caller, id)?;
    let etag = ETag::of_sequence(trigger.sequence);
    Ok(Reply::ok("Trigger", details(&app, trigger).await?).etag_unless_known(&etag, &known))
}

/// List the manual triggers of a workflow version
///
/// Newest first. An agent always has one. Those that were made later start the active version.
#[utoipa::path(get, path = "/api/agent-base/triggers/manual/version/{versionId}", tag = "Triggers",
    extensions(("x-access" = json!(Right::ReadAgents))),
    params(("versionId" = Uuid, Path), PageParams, MinPositionParam),
    responses((status = 200, description = "The triggers", body = ListEnvelope<TriggerDetails>), ReadFailures))]
async fn list_manual_triggers(
    State(app): State<App>,
    caller: Caller,
    Path(version): Path<Uuid>,
    query: ListQuery<NoFilters>,
) -> Result<ListReply<TriggerDetails>, Problem> {
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
    let mut shown = Vec::with_capacity(listing.items.len());
    for trigger in listing.items {
        shown.push(details(&app, trigger).await?);
    }
    Ok(query.reply("Manual triggers", shown, total))
}

/// Execute a manual trigger
///
/// Asks for a run of the version that the trigger starts, and answers `202` at once: the run follows. With
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
    let ask = circumstances.ask(&app, &caller, Some(trigger.product), &[body.bytes()]).await?;
    // A trigger that is gone is refused there, unless this request was answered before.
    let new = NewExecution { agent: trigger.agent, trigger: Some(id), input };
    let done = accepted::request(&app, new, None, wait, &ask).await?;
    accepted::answer(&app, &done, wait).await
}
