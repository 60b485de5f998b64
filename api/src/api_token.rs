//! API tokens: `/api/api-tokens`, and `/api/api-token/auth/validate` for the token itself.
//!
//! The rule of this file: a secret is answered once, by the request that made it; and what is shown
//! of a token is true at that moment, so pending uses are written and run-out times noticed first.

use std::collections::BTreeSet;
use std::net::IpAddr;

use axum::extract::State;
use chrono::{DateTime, Datelike, TimeDelta, Utc};
use commands::{ApiTokenChange, Ask, Done, NewApiToken};
use domain::{Name, Scope, Timestamp};
use ipnet::IpNet;
use projections::api_token::{self, ApiToken};
use projections::audit_log::{self, Filter};
use projections::{Window, stored_time};
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Deserializer, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use crate::access::{Access, Right};
use crate::answers::{Deleted, Nothing};
use crate::app::App;
use crate::audit_log::{AuditEntry, shown};
use crate::caller::{Caller, Circumstances, Credential, now};
use crate::failures::bad_value;
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
use crate::lists::{growing_total, total, window};

/// The longest time for which an old secret stays good: a week.
const LONGEST_GRACE: u32 = 7 * 24 * 60 * 60;

/// The most networks that one token can be bound to.
const MOST_NETWORKS: usize = 100;

/// The routes of API tokens.
pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(create_api_token))
        .routes(routes!(list_api_tokens))
        .routes(routes!(get_api_token, change_api_token, delete_api_token))
        .routes(routes!(revoke_api_token))
        .routes(routes!(renew_api_token))
        .routes(routes!(regenerate_api_token))
        .routes(routes!(list_api_token_audit_logs))
        .routes(routes!(validate_api_token))
}

/// A moment of a body: RFC 3339, of any offset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Moment(Timestamp);

impl<'de> Deserialize<'de> for Moment {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Moment, D::Error> {
        let wrong =
            || serde::de::Error::custom("must be a time as 2030-01-31T12:00:00Z (RFC 3339)");
        let text = String::deserialize(deserializer)?;
        let time = DateTime::parse_from_rfc3339(&text).map_err(|_| wrong())?.with_timezone(&Utc);
        // An offset can carry a time out of the years that RFC 3339 can write.
        if !(0..=9999).contains(&time.year()) {
            return Err(wrong());
        }
        Ok(Moment(Timestamp::from(time)))
    }
}

/// A token that is to be made.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct NewApiTokenBody {
    /// The product that it opens.
    product_id: Uuid,
    /// What people call it.
    #[schema(min_length = 1, max_length = 200)]
    name: String,
    /// When it runs out; never, when left out.
    #[schema(value_type = Option<String>, format = DateTime)]
    expires_at: Option<Moment>,
    /// What it may do; all that there is, when left out.
    #[schema(value_type = Option<Vec<ScopeName>>, min_items = 1)]
    scopes: Option<BTreeSet<Scope>>,
    /// From which addresses or networks it may come; from everywhere, when left out or empty.
    #[schema(max_items = 100, example = json!(["192.0.2.7", "2001:db8::/32"]))]
    allowed_ips: Option<Vec<String>>,
}

/// What is to be changed of a token; what is left out stays. Its end is changed by renewing it.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct ApiTokenChangeBody {
    /// What people call it.
    #[schema(min_length = 1, max_length = 200)]
    name: Option<String>,
    /// What it may do.
    #[schema(value_type = Option<Vec<ScopeName>>, min_items = 1)]
    scopes: Option<BTreeSet<Scope>>,
    /// From which addresses or networks it may come; from everywhere, when empty.
    #[schema(max_items = 100, example = json!(["192.0.2.7", "2001:db8::/32"]))]
    allowed_ips: Option<Vec<String>>,
    /// Whether it can be used: switched on, or off.
    active: Option<bool>,
}

/// When a token is to run out from now on.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Renewal {
    /// A time in the future; null for never.
    #[schema(value_type = Option<String>, format = DateTime, required = true)]
    #[serde(deserialize_with = "Option::deserialize")]
    expires_at: Option<Moment>,
}

/// How a token gets another secret.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
struct Grace {
    /// For how many seconds the old secret stays good; not at all, when left out.
    #[param(minimum = 0, maximum = 604_800)]
    grace_seconds: Option<u32>,
}

/// What a token may do. `assistant:chat` asks the assistant, which answers from all knowledge bases of the product.
#[derive(ToSchema)]
#[expect(dead_code, reason = "only documents what `Scope` reads")]
enum ScopeName {
    #[schema(rename = "agents:read")]
    AgentsRead,
    #[schema(rename = "agents:write")]
    AgentsWrite,
    #[schema(rename = "assistant:chat")]
    AssistantChat,
    #[schema(rename = "audit:read")]
    AuditRead,
    #[schema(rename = "events:read")]
    EventsRead,
    #[schema(rename = "executions:read")]
    ExecutionsRead,
    #[schema(rename = "executions:write")]
    ExecutionsWrite,
    #[schema(rename = "integrations:read")]
    IntegrationsRead,
    #[schema(rename = "integrations:write")]
    IntegrationsWrite,
    #[schema(rename = "knowledge:read")]
    KnowledgeRead,
    #[schema(rename = "knowledge:write")]
    KnowledgeWrite,
    #[schema(rename = "products:read")]
    ProductsRead,
}

/// A token, and its secret where that was just made.
#[derive(Serialize, ToSchema)]
struct WithSecret {
    /// The whole token: shown this once, and left out when the answer is given again.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "prodgy_…")]
    token: Option<String>,
    #[serde(flatten)]
    details: ApiToken,
}

/// What a token says of itself.
#[derive(Debug, Serialize, ToSchema)]
struct Validity {
    /// Always `true`: what is not valid is answered with 401.
    valid: bool,
    /// Its id.
    id: Uuid,
    /// The product that it opens.
    product_id: Uuid,
    /// Its name.
    name: String,
    /// The part of it that may be shown.
    prefix: String,
    /// Always `active`.
    status: String,
    /// What it may do.
    #[schema(value_type = Vec<ScopeName>)]
    scopes: Vec<Scope>,
    /// From which networks it may come; from everywhere when there is none.
    allowed_ips: Vec<String>,
    /// When it was made.
    created_at: String,
    /// When it runs out.
    expires_at: Option<String>,
}

/// Make an API token
///
/// The answer holds the whole token, this once: only a hash of it is kept.
#[utoipa::path(post, path = "/api/api-tokens", tag = "API tokens",
    extensions(("x-access" = json!(Right::WriteTokens))), params(IdempotencyKeyParam),
    responses((status = 201, description = "The new token", body = Envelope<WithSecret>), WriteFailures))]
async fn create_api_token(
    State(app): State<App>,
    caller: Caller,
    circumstances: Circumstances,
    body: Json<NewApiTokenBody>,
) -> Result<Reply<WithSecret>, Problem> {
    let NewApiTokenBody { product_id, name: called, expires_at, scopes, allowed_ips } =
        body.read()?;
    caller.product(&app, product_id)?;
    let new = NewApiToken {
        name: name(&called)?,
        scopes: scopes.unwrap_or_else(|| Scope::ALL.into()),
        allowed_ips: networks(&allowed_ips.unwrap_or_default())?,
        expires_at: expires_at.map(|moment| moment.0),
    };
    let ask = circumstances.ask(&app, &caller, Some(product_id), &[&body.bytes]).await?;
    let made = app.commands.create_api_token(new, &ask).await?;
    let position = app.applied(&made.done).await?;
    let id = made.done.stream_id().unwrap_or_default();
    let details = after(&app, &made.done, id).await?;
    let etag = ETag::of_sequence(details.sequence);
    let reply = Reply::created(
        format!("/api/api-tokens/{id}"),
        "API token created: it is shown this once",
        with_secret(details, made.secret),
    );
    Ok(reply.secret().etag(&etag).position(position).replayed(made.done.replayed))
}

/// List the API tokens of a product
///
/// Newest first, without their secrets.
#[utoipa::path(get, path = "/api/api-tokens/product/{productId}", tag = "API tokens",
    extensions(("x-access" = json!(Right::ReadTokens))),
    params(("productId" = Uuid, Path), PageParams, MinPositionParam),
    responses((status = 200, description = "The tokens", body = ListEnvelope<ApiToken>), ReadFailures))]
async fn list_api_tokens(
    State(app): State<App>,
    caller: Caller,
    Path(product): Path<Uuid>,
    query: ListQuery<NoFilters>,
) -> Result<ListReply<ApiToken>, Problem> {
    caller.product(&app, product)?;
    let window = window(&query)?;
    app.write_uses(None).await?;
    notice_expiry(&app).await?;
    let listing = app.read(|db| api_token::list(db, product, window))?;
    let total = total(&query, &listing);
    Ok(query.reply("API tokens", listing.items, total))
}

/// Look at an API token
///
/// Without its secret. What it was used for until now is counted.
#[utoipa::path(get, path = "/api/api-tokens/{id}", tag = "API tokens",
    extensions(("x-access" = json!(Right::ReadTokens))),
    params(("id" = Uuid, Path), MinPositionParam, IfNoneMatchParam),
    responses((status = 200, description = "The token", body = Envelope<ApiToken>),
              (status = 304, description = "The client has it already"), ReadFailures))]
async fn get_api_token(
    State(app): State<App>,
    caller: Caller,
    known: IfNoneMatch,
    Path(id): Path<Uuid>,
) -> Result<Reply<ApiToken>, Problem> {
    place_of(&app, &caller, id).await?.must_exist()?;
    app.write_uses(Some(id)).await?;
    notice_expiry(&app).await?;
    let token = app.read(|db| api_token::get(db, id))?.ok_or_else(not_found)?;
    let etag = ETag::of_sequence(token.sequence);
    Ok(Reply::ok("API token", token).etag_unless_known(&etag, &known))
}

/// Change an API token
///
/// Its name, what it may do, from where it may come, and whether it can be used. When it runs out is
/// changed by renewing it.
#[utoipa::path(put, path = "/api/api-tokens/{id}", tag = "API tokens",
    extensions(("x-access" = json!(Right::WriteTokens))), params(("id" = Uuid, Path), IfMatchParam),
    responses((status = 200, description = "The token as it is now", body = Envelope<ApiToken>), WriteFailures))]
async fn change_api_token(
    State(app): State<App>,
    caller: Caller,
    circumstances: Circumstances,
    Path(id): Path<Uuid>,
    body: Json<ApiTokenChangeBody>,
) -> Result<Reply<ApiToken>, Problem> {
    let ask = may_change(&app, &caller, &circumstances, id, &body.bytes).await?;
    let ApiTokenChangeBody { name: called, scopes, allowed_ips, active } = body.read()?;
    let change = ApiTokenChange {
        name: called.as_deref().map(name).transpose()?,
        scopes,
        allowed_ips: allowed_ips.as_deref().map(networks).transpose()?,
        active,
    };
    let done = app.commands.change_api_token(id, change, &ask).await?;
    changed(&app, id, &done, "API token changed").await
}

/// Revoke an API token
///
/// For good: from the very next request on it is refused, and nothing brings it back.
#[utoipa::path(post, path = "/api/api-tokens/{id}/revoke", tag = "API tokens",
    extensions(("x-access" = json!(Right::WriteTokens))),
    params(("id" = Uuid, Path), IfMatchParam, IdempotencyKeyParam), request_body = Option<Nothing>,
    responses((status = 200, description = "The token as it is now", body = Envelope<ApiToken>), WriteFailures))]
async fn revoke_api_token(
    State(app): State<App>,
    caller: Caller,
    circumstances: Circumstances,
    Path(id): Path<Uuid>,
    body: OptionalJson<Nothing>,
) -> Result<Reply<ApiToken>, Problem> {
    let ask = may_change(&app, &caller, &circumstances, id, body.bytes()).await?;
    let Nothing {} = body.read()?;
    let done = app.commands.revoke_api_token(id, &ask).await?;
    changed(&app, id, &done, "API token revoked").await
}

/// Renew an API token
///
/// It runs out at another time, or never. One that has expired can be used again.
#[utoipa::path(post, path = "/api/api-tokens/{id}/renew", tag = "API tokens",
    extensions(("x-access" = json!(Right::WriteTokens))),
    params(("id" = Uuid, Path), IfMatchParam, IdempotencyKeyParam),
    responses((status = 200, description = "The token as it is now", body = Envelope<ApiToken>), WriteFailures))]
async fn renew_api_token(
    State(app): State<App>,
    caller: Caller,
    circumstances: Circumstances,
    Path(id): Path<Uuid>,
    body: Json<Renewal>,
) -> Result<Reply<ApiToken>, Problem> {
    let ask = may_change(&app, &caller, &circumstances, id, &body.bytes).await?;
    let expires_at = body.read()?.expires_at.map(|moment| moment.0);
    let done = app.commands.renew_api_token(id, expires_at, &ask).await?;
    changed(&app, id, &done, "API token renewed").await
}

/// Give an API token another secret
///
/// The answer holds the whole new token, this once. The old secret stops at once, or after
/// `grace_seconds`.
#[utoipa::path(post, path = "/api/api-tokens/{id}/regenerate", tag = "API tokens",
    extensions(("x-access" = json!(Right::WriteTokens))),
    params(("id" = Uuid, Path), Grace, IfMatchParam, IdempotencyKeyParam), request_body = Option<Nothing>,
    responses((status = 200, description = "The token with its new secret", body = Envelope<WithSecret>), WriteFailures))]
async fn regenerate_api_token(
    State(app): State<App>,
    caller: Caller,
    circumstances: Circumstances,
    Path(id): Path<Uuid>,
    Query(Grace { grace_seconds }): Query<Grace>,
    body: OptionalJson<Nothing>,
) -> Result<Reply<WithSecret>, Problem> {
    let ask = may_change(&app, &caller, &circumstances, id, body.bytes()).await?;
    let Nothing {} = body.read()?;
    let previous_valid_until = grace_seconds.map(grace).transpose()?;
    let made = app.commands.regenerate_api_token(id, previous_valid_until, &ask).await?;
    let position = app.applied(&made.done).await?;
    let details = after(&app, &made.done, id).await?;
    let etag = ETag::of_sequence(details.sequence);
    let reply = Reply::ok(
        "API token regenerated: it is shown this once",
        with_secret(details, made.secret),
    );
    Ok(reply.secret().etag(&etag).position(position).replayed(made.done.replayed))
}

/// Delete an API token
///
/// From the very next request on it is refused. Its audit log stays readable.
#[utoipa::path(delete, path = "/api/api-tokens/{id}", tag = "API tokens",
    extensions(("x-access" = json!(Right::WriteTokens))), params(("id" = Uuid, Path), IfMatchParam),
    responses((status = 200, description = "It is gone", body = Envelope<Deleted>), WriteFailures))]
async fn delete_api_token(
    State(app): State<App>,
    caller: Caller,
    circumstances: Circumstances,
    Path(id): Path<Uuid>,
) -> Result<Reply<Deleted>, Problem> {
    let ask = may_change(&app, &caller, &circumstances, id, &[]).await?;
    let done = app.commands.delete_api_token(id, &ask).await?;
    let position = app.applied(&done).await?;
    Ok(Reply::ok("API token deleted", Deleted { id }).position(position).replayed(done.replayed))
}

/// Ask the audit log of an API token
///
/// What was done to it and with it, refused attempts included, newest first; after it was deleted,
/// too. Actions are `created`, `used`, `updated`, `revoked`, `expired`, `renewed`, `regenerated`,
/// `deleted` and, for attempts that were refused, `rejected`, or `failed` where this server could not do it.
#[utoipa::path(get, path = "/api/api-tokens/{id}/audit-logs", tag = "API tokens",
    extensions(("x-access" = json!(Right::ReadTokens))),
    params(("id" = Uuid, Path), PageParams, MinPositionParam),
    responses((status = 200, description = "What was done", body = ListEnvelope<AuditEntry>), ReadFailures))]
async fn list_api_token_audit_logs(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<Uuid>,
    query: ListQuery<NoFilters>,
) -> Result<ListReply<AuditEntry>, Problem> {
    place_of(&app, &caller, id).await?;
    let window = window(&query)?;
    app.write_uses(Some(id)).await?;
    app.write_rejections().await?;
    notice_expiry(&app).await?;
    let filter = about(id);
    let listing =
        app.read_audit(|db| audit_log::list(db, caller.organization, &filter, window)).await?;
    let total = growing_total(&query, &listing);
    let mut entries = Vec::with_capacity(listing.items.len());
    for entry in listing.items {
        entries.push(shown(&app, entry).await?);
    }
    Ok(query.reply("Audit log of the API token", entries, total))
}

/// Validate an API token
///
/// Sent with the token itself, says what it is and what it may do. A token that is not good (any
/// more) is answered with 401.
#[utoipa::path(get, path = "/api/api-token/auth/validate", tag = "API tokens", security(("api_token" = [])),
    extensions(("x-access" = json!(Access::ApiToken))),
    params(MinPositionParam),
    responses((status = 200, description = "The token is good", body = Envelope<Validity>), ReadFailures))]
async fn validate_api_token(
    State(app): State<App>,
    caller: Caller,
) -> Result<Reply<Validity>, Problem> {
    let Credential::Token { token: id, .. } = caller.credential else {
        return Err(Problem::bug("something else than an API token was let in"));
    };
    let token = app.read(|db| api_token::get(db, id))?.ok_or_else(not_found)?;
    let validity = Validity {
        valid: true,
        id,
        product_id: token.product_id,
        name: token.name,
        prefix: token.prefix,
        status: token.status,
        scopes: token.scopes,
        allowed_ips: token.allowed_ips,
        created_at: token.created_at,
        expires_at: token.expires_at,
    };
    Ok(Reply::ok("The API token is good", validity))
}

/// Writes down which tokens have run out since the last time.
pub async fn expire_due(app: &App) {
    if let Err(problem) = notice_expiry(app).await {
        // A server that starts has nothing to read yet: it looks again in a moment.
        if problem.code() == "read_models_not_ready" {
            tracing::debug!(%problem, "API tokens that have run out are not looked for yet");
            return;
        }
        tracing::warn!(%problem, "API tokens that have run out could not be noticed yet");
    }
}

/// Writes down which tokens have run out, and waits until that can be read.
async fn notice_expiry(app: &App) -> Result<(), Problem> {
    for due in app.read(|db| api_token::due(db, &stored_time(Utc::now())))? {
        let expired =
            app.commands.expire_api_token(due.id, due.organization, due.product, &due.expires_at);
        match expired.await {
            Ok(done) => drop(app.applied(&done).await?),
            // Deleted or renewed in the meantime.
            Err(commands::Error::Refused { .. } | commands::Error::Conflict) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Where a token of the caller stands, or stood.
struct Place {
    product: Uuid,
    is_there: bool,
}

impl Place {
    fn must_exist(&self) -> Result<(), Problem> {
        if self.is_there { Ok(()) } else { Err(not_found()) }
    }
}

/// Finds a token of the caller. Of a deleted one the audit log still knows whose it was.
async fn place_of(app: &App, caller: &Caller, id: Uuid) -> Result<Place, Problem> {
    let place = match app.read(|db| api_token::get(db, id))? {
        Some(token) if token.organization == caller.organization => {
            Place { product: token.product_id, is_there: true }
        }
        Some(_) => return Err(not_found()),
        None => {
            // Only the event itself makes such a row: whoever asks for a foreign id leaves a `rejected`.
            let made = Filter { action: Some("created".into()), ..about(id) };
            let rows = app
                .read_audit(|db| audit_log::list(db, caller.organization, &made, Window::first(1)))
                .await?;
            let product =
                rows.items.first().and_then(|entry| entry.product).ok_or_else(not_found)?;
            Place { product, is_there: false }
        }
    };
    caller.product(app, place.product)?;
    Ok(place)
}

fn about(token: Uuid) -> Filter {
    Filter {
        resource_type: Some("api_token".into()),
        resource_id: Some(token.to_string()),
        ..Filter::default()
    }
}

/// What a change of a token carries. A request that was answered before is answered again, even if
/// the token is gone by now.
async fn may_change(
    app: &App,
    caller: &Caller,
    circumstances: &Circumstances,
    id: Uuid,
    body: &[u8],
) -> Result<Ask, Problem> {
    let place = place_of(app, caller, id).await?;
    let ask = circumstances.ask(app, caller, Some(place.product), &[body]).await?;
    if !ask.repeatable {
        place.must_exist()?;
    }
    Ok(ask)
}

async fn changed(
    app: &App,
    id: Uuid,
    done: &Done,
    message: &'static str,
) -> Result<Reply<ApiToken>, Problem> {
    let position = app.applied(done).await?;
    let token = after(app, done, id).await?;
    let etag = ETag::of_sequence(token.sequence);
    Ok(Reply::ok(message, token).etag(&etag).position(position).replayed(done.replayed))
}

async fn after(app: &App, done: &Done, id: Uuid) -> Result<ApiToken, Problem> {
    app.read_after(done, |db| api_token::get(db, id)).await?.ok_or_else(not_found)
}

fn with_secret(details: ApiToken, secret: Option<SecretString>) -> WithSecret {
    WithSecret { token: secret.map(|secret| secret.expose_secret().to_owned()), details }
}

fn not_found() -> Problem {
    Problem::not_found(
        "api_token_not_found",
        "there is no such API token: list those of the product to see which there are",
    )
}

fn name(text: &str) -> Result<Name, Problem> {
    Name::parse(text).map_err(|error| bad_value("name", &error))
}

/// The networks of a list of networks and single addresses.
fn networks(texts: &[String]) -> Result<BTreeSet<IpNet>, Problem> {
    let invalid = |detail: String, faults: Vec<FieldError>| {
        Err(Problem::invalid("allowed_ips_invalid", detail).with_errors(faults))
    };
    if texts.len() > MOST_NETWORKS {
        let detail =
            format!("a token can be bound to {MOST_NETWORKS} networks at most: combine some");
        return invalid(detail.clone(), vec![FieldError::new("/allowed_ips", "too_many", detail)]);
    }
    let mut networks = BTreeSet::new();
    let mut faults = Vec::new();
    for (index, text) in texts.iter().enumerate() {
        match network(text) {
            Some(network) => {
                networks.insert(network);
            }
            None => faults.push(FieldError::new(
                format!("/allowed_ips/{index}"),
                "network_invalid",
                "must be an address as 192.0.2.7, or a network as 192.0.2.0/24",
            )),
        }
    }
    if !faults.is_empty() {
        return invalid(
            "allowed_ips holds what is no address and no network; errors names the places".into(),
            faults,
        );
    }
    Ok(networks)
}

fn network(text: &str) -> Option<IpNet> {
    let network = text.parse().or_else(|_| text.parse::<IpAddr>().map(IpNet::from)).ok()?;
    Some(IpNet::trunc(&network))
}

/// Until when the old secret is good.
fn grace(seconds: u32) -> Result<Timestamp, Problem> {
    if seconds > LONGEST_GRACE {
        let message = format!("must be a whole number from 0 to {LONGEST_GRACE}");
        return Err(Problem::malformed(
            "invalid_parameters",
            "bad query parameters: grace_seconds; errors says why",
        )
        .with_error(FieldError::new("/grace_seconds", "out_of_range", message)));
    }
    Ok(Timestamp::from(*now() + TimeDelta::seconds(seconds.into())))
}

#[cfg(test)]
mod tests;
