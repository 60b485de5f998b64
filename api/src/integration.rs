//! Integrations: `/api/integrations-base`.
//!
//! The rule of this file: a secret goes in and never comes out. An integration is of a product, or of the
//! whole organization; those who see only their product see of the latter that they are there, and
//! nothing that they were told.

use std::collections::{BTreeMap, BTreeSet};

use axum::extract::State;
use commands::{Done, IntegrationChange, MASK, NewIntegration, masked, secret_field};
use domain::event::decode;
use domain::integration::IntegrationKind;
use domain::integration::kind::Secrets;
use domain::integration_use::IntegrationUseEvent;
use domain::refusal::pointer_segment;
use domain::{Name, Role};
use projections::integration::{self, Integration, LastTest, Reach};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use crate::access::Right;
use crate::agent::reach;
use crate::answers::{Deleted, Nothing, deleted};
use crate::app::App;
use crate::caller::{Caller, Circumstances};
use crate::failures::bad_value;
use crate::http::openapi::{
    IdempotencyKeyParam, IfMatchParam, IfNoneMatchParam, MinPositionParam, PageParams,
    ReadFailures, WriteFailures,
};
use crate::http::reply::{Envelope, ListEnvelope};
use crate::http::{
    ETag, FieldError, IfNoneMatch, Json, ListQuery, ListReply, OptionalJson, Path, Problem, Reply,
};
use crate::lists::{total, window};

/// The routes of integrations that answer at once.
pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(list_types))
        .routes(routes!(list_integrations, create_integration))
        .routes(routes!(list_active))
        .routes(routes!(get_integration, change_integration, delete_integration))
        .routes(routes!(rotate_key))
        .routes(routes!(test_integration))
}

/// An integration that is to be made.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct NewIntegrationBody {
    /// What it connects to: see `/api/integrations-base/types`.
    #[serde(rename = "type")]
    #[schema(example = "github")]
    kind: String,
    /// What people call it.
    #[schema(min_length = 1, max_length = 200)]
    title: String,
    /// The product that it is for. Without it, it is of the whole organization, which takes an admin; an
    /// API token may leave its own out.
    product_id: Option<Uuid>,
    /// How to reach the other side, as its type says.
    #[serde(default)]
    #[schema(value_type = Object)]
    config: Map<String, Value>,
    /// What lets it in, as its type says.
    #[serde(default)]
    #[schema(value_type = Object, write_only)]
    secrets: Value,
}

/// What is to be changed of an integration; what is left out stays.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct ChangedIntegration {
    /// What people call it.
    #[schema(min_length = 1, max_length = 200)]
    title: Option<String>,
    /// Its whole configuration.
    #[schema(value_type = Option<Object>)]
    config: Option<Map<String, Value>>,
    /// New secrets. One that is left out, or sent as it was shown, masked, stays; `null` takes it away.
    #[serde(default)]
    #[schema(value_type = Object, write_only)]
    secrets: Value,
    /// Whether it may be used.
    enabled: Option<bool>,
}

/// For whom an integration is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum IntegrationScope {
    /// For one product.
    Local,
    /// For every product of the organization.
    Global,
}

/// A connection to an outside tool.
#[derive(Debug, Serialize, ToSchema)]
struct IntegrationDetails {
    /// Its id.
    id: Uuid,
    /// What it connects to.
    #[serde(rename = "type")]
    kind: &'static str,
    /// What people call it.
    title: String,
    /// For whom it is.
    scope: IntegrationScope,
    /// The product, of a local one.
    product_id: Option<Uuid>,
    /// It may be used.
    enabled: bool,
    /// How to reach the other side; none where the caller may not see it, or it was erased.
    #[schema(value_type = Option<Object>)]
    config: Option<Value>,
    /// Its secrets, masked; none where the caller may not see which there are.
    #[schema(value_type = Object, example = json!({ "token": "••••1234" }))]
    secrets: BTreeMap<String, String>,
    /// Which secrets these are: 1, and one more with each change. Every use in the audit log names it.
    secrets_version: u64,
    /// The product's own integrations that hide it: while there is one, agents of the product do not
    /// use it.
    shadowed_by: Vec<Uuid>,
    /// When it got its data key, if that is not the first one.
    #[schema(format = DateTime)]
    key_rotated_at: Option<String>,
    /// When a step last used it.
    #[schema(format = DateTime)]
    last_used_at: Option<String>,
    /// What came of the last test.
    last_test: Option<LastTest>,
    /// When it was made.
    #[schema(format = DateTime)]
    created_at: String,
    /// Who made it.
    created_by: String,
    /// When it was last changed.
    #[schema(format = DateTime)]
    updated_at: String,
}

/// What an integration can connect to.
#[derive(Debug, Serialize, ToSchema)]
struct IntegrationType {
    /// Its name.
    #[serde(rename = "type")]
    kind: &'static str,
    /// What people call it.
    title: String,
    /// What it is for.
    summary: String,
    /// The JSON Schema (draft 2020-12) of `{config, secrets}`.
    #[schema(value_type = Object)]
    schema: Value,
}

/// Which integrations are wanted. Every condition narrows.
#[derive(Clone, Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct IntegrationFilters {
    /// Those of this product, and the global ones, which it may hide.
    product_id: Option<Uuid>,
    /// Only those of this type.
    r#type: Option<String>,
}

/// Which of a product's integrations are wanted.
#[derive(Clone, Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct TypeFilter {
    /// Only those of this type.
    r#type: Option<String>,
}

fn not_found() -> Problem {
    Problem::not_found(
        "integration_not_found",
        "there is no such integration: list those of the product to see which there are",
    )
}

fn known_types() -> String {
    IntegrationKind::ALL.map(IntegrationKind::as_str).join(", ")
}

fn filter_type(text: Option<&str>) -> Result<Option<IntegrationKind>, Problem> {
    let parse = |text| {
        IntegrationKind::parse(text).ok_or_else(|| {
            let message = format!("must be one of {}", known_types());
            Problem::malformed("invalid_parameters", "bad query parameters: type; errors says why")
                .with_error(FieldError::new("/type", "invalid", message))
        })
    };
    text.map(parse).transpose()
}

fn kind(text: &str) -> Result<IntegrationKind, Problem> {
    IntegrationKind::parse(text).ok_or_else(|| {
        let message =
            format!("there is no integration of type `{text}`: use one of {}", known_types());
        Problem::invalid("integration_type_unknown", message.clone()).with_error(FieldError::new(
            "/type",
            "integration_type_unknown",
            message,
        ))
    })
}

fn title(text: &str) -> Result<Name, Problem> {
    Name::parse(text).map_err(|error| bad_value("title", &error))
}

/// The secrets of a body, and the names of those that are to go. What is no text is not repeated: it may
/// hold a secret all the same.
fn secrets(sent: Value) -> Result<(Secrets, BTreeSet<String>), Problem> {
    let (mut given, mut removed, mut faults) = (Secrets::default(), BTreeSet::new(), Vec::new());
    let sent = match sent {
        Value::Object(sent) => sent,
        Value::Null => Map::new(),
        _ => {
            faults.push(FieldError::new("/secrets", "type_mismatch", "`secrets` is an object"));
            Map::new()
        }
    };
    for (name, value) in sent {
        match value {
            Value::String(text) => {
                given.0.insert(name, text);
            }
            Value::Null => {
                removed.insert(name);
            }
            _ => {
                let pointer = format!("/secrets/{}", pointer_segment(&name));
                faults.push(FieldError::new(pointer, "type_mismatch", "a secret is a text"));
            }
        }
    }
    if faults.is_empty() {
        return Ok((given, removed));
    }
    let message = "every secret is a text: errors names the places to mend";
    Err(Problem::invalid("integration_invalid", message).with_errors(faults))
}

/// Lets the caller go on if it may see what is of the whole organization.
fn global(caller: &Caller, organization: Uuid) -> Result<(), Problem> {
    if caller.bound_product().is_some() || caller.organization != organization {
        return Err(not_found());
    }
    Ok(())
}

/// What is of the whole organization is changed by those who manage it.
fn need_admin(caller: &Caller) -> Result<(), Problem> {
    let (_, _, role) = caller.session()?;
    if role >= Role::Admin {
        return Ok(());
    }
    Err(Problem::forbidden(
        "role_insufficient",
        "an integration of the whole organization takes the role admin: name a product, or ask an admin",
    ))
}

/// An integration that the caller may see.
pub(crate) fn find(app: &App, caller: &Caller, id: Uuid) -> Result<Integration, Problem> {
    let found = app.read(|db| integration::get(db, id))?.ok_or_else(not_found)?;
    match found.product {
        Some(product) => reach(app, caller, product, not_found)?,
        None => global(caller, found.organization)?,
    }
    Ok(found)
}

/// An integration that the caller may change.
pub(crate) fn changeable(app: &App, caller: &Caller, id: Uuid) -> Result<Integration, Problem> {
    let found = find(app, caller, id)?;
    if found.product.is_none() {
        need_admin(caller)?;
    }
    Ok(found)
}

/// An integration as it is answered: its secrets masked.
async fn details(app: &App, found: Integration) -> Result<IntegrationDetails, Problem> {
    let vault = app.commands.vault();
    let stream = format!("integration-{}", found.id);
    let config = found.config.open(vault, found.organization, &stream, "config").await?;
    let mut secrets = BTreeMap::new();
    for (name, sealed) in &found.secrets {
        let text = sealed.open(vault, found.organization, &stream, &secret_field(name)).await?;
        secrets.insert(name.clone(), text.map_or(MASK.to_owned(), |text| masked(&text)));
    }
    let config = config.and_then(|text| serde_json::from_str(&text).ok());
    Ok(IntegrationDetails { config, secrets, ..in_short(found) })
}

/// An integration without anything that it was told.
fn in_short(found: Integration) -> IntegrationDetails {
    IntegrationDetails {
        id: found.id,
        kind: found.kind.as_str(),
        title: found.title,
        scope: match found.product {
            Some(_) => IntegrationScope::Local,
            None => IntegrationScope::Global,
        },
        product_id: found.product,
        enabled: found.enabled,
        config: None,
        secrets: BTreeMap::new(),
        secrets_version: found.secrets_version,
        shadowed_by: Vec::new(),
        key_rotated_at: found.key_rotated_at,
        last_used_at: found.last_used_at,
        last_test: found.last_test,
        created_at: found.created_at,
        created_by: found.created_by,
        updated_at: found.updated_at,
    }
}

/// The integration as a command left it.
async fn after(app: &App, done: &Done, id: Uuid) -> Result<(IntegrationDetails, ETag), Problem> {
    let found = app.read_after(done, |db| integration::get(db, id)).await?.ok_or_else(not_found)?;
    let etag = ETag::of_sequence(found.sequence);
    Ok((details(app, found).await?, etag))
}

/// List the types of integrations
///
/// With the JSON Schema of what each is told.
#[utoipa::path(get, path = "/api/integrations-base/types", tag = "Integrations",
    extensions(("x-access" = json!(Right::ReadIntegrations))),
    responses((status = 200, description = "The types", body = Envelope<Vec<IntegrationType>>), ReadFailures))]
async fn list_types() -> Reply<Vec<IntegrationType>> {
    let of = |kind: IntegrationKind| {
        let schema = kind.schema();
        let text = |field: &str| schema[field].as_str().unwrap_or_default().to_owned();
        let (title, summary) = (text("title"), text("description"));
        IntegrationType { kind: kind.as_str(), title, summary, schema }
    };
    Reply::ok("Types of integrations", IntegrationKind::ALL.map(of).into())
}

/// Make an integration
///
/// Nothing is connected to: `POST /api/integrations-base/{id}/test` does that. `scope` follows from
/// `product_id`, and is not sent.
#[utoipa::path(post, path = "/api/integrations-base", tag = "Integrations",
    extensions(("x-access" = json!(Right::WriteIntegrations))), params(IdempotencyKeyParam),
    request_body = NewIntegrationBody,
    responses((status = 201, description = "The new integration", body = Envelope<IntegrationDetails>), WriteFailures))]
async fn create_integration(
    State(app): State<App>,
    caller: Caller,
    circumstances: Circumstances,
    body: Json<NewIntegrationBody>,
) -> Result<Reply<IntegrationDetails>, Problem> {
    let (new, bytes) = (body.read()?, body.bytes);
    let product = new.product_id.or(caller.bound_product());
    match product {
        Some(product) => drop(caller.product(&app, product)?),
        None => need_admin(&caller)?,
    }
    let (kind, title) = (kind(&new.kind)?, title(&new.title)?);
    let (secrets, _) = secrets(new.secrets)?;
    let ask = circumstances.ask(&app, &caller, product, &[&bytes]).await?;
    let new = NewIntegration { kind, title, config: new.config, secrets };
    let done = app.commands.create_integration(new, &ask).await?;
    let position = app.applied(&done).await?;
    let id = done.stream_id().unwrap_or_default();
    let (integration, etag) = after(&app, &done, id).await?;
    let location = format!("/api/integrations-base/{id}");
    Ok(Reply::created(location, "Integration created", integration)
        .etag(&etag)
        .position(position)
        .replayed(done.replayed))
}

/// List integrations
///
/// Newest first. With `product_id` those of the product and the global ones, each of which says by which
/// of the product's own it is hidden; without it all of the organization. An API token sees those of
/// its product.
#[utoipa::path(get, path = "/api/integrations-base", tag = "Integrations",
    extensions(("x-access" = json!(Right::ReadIntegrations))),
    params(IntegrationFilters, PageParams, MinPositionParam),
    responses((status = 200, description = "The integrations", body = ListEnvelope<IntegrationDetails>), ReadFailures))]
async fn list_integrations(
    State(app): State<App>,
    caller: Caller,
    query: ListQuery<IntegrationFilters>,
) -> Result<ListReply<IntegrationDetails>, Problem> {
    let kind = filter_type(query.filters.r#type.as_deref())?;
    if let Some(product) = query.filters.product_id {
        caller.product(&app, product)?;
    }
    let product = query.filters.product_id.or(caller.bound_product());
    let reach = match (product, caller.bound_product()) {
        (_, Some(own)) => Reach::Local(own),
        (Some(product), None) => Reach::Product(product),
        (None, None) => Reach::Organization,
    };
    let window = window(&query)?;
    let listing = app.read(|db| integration::list(db, caller.organization, reach, kind, window))?;
    let shadows = match product {
        Some(product) => app.read(|db| integration::shadows(db, product))?,
        None => BTreeMap::new(),
    };
    let total = total(&query, &listing);
    let mut shown = Vec::with_capacity(listing.items.len());
    for found in listing.items {
        let shadowed_by = match found.product {
            None => shadows.get(&found.kind).cloned().unwrap_or_default(),
            Some(_) => Vec::new(),
        };
        shown.push(IntegrationDetails { shadowed_by, ..details(&app, found).await? });
    }
    Ok(query.reply("Integrations", shown, total))
}

/// List what a product's agents can use
///
/// Newest first: the product's own integrations that are enabled, and the global ones of types of which
/// it has none of its own. An API token sees of a global one that it is there.
#[utoipa::path(get, path = "/api/integrations-base/product/{productId}/active", tag = "Integrations",
    extensions(("x-access" = json!(Right::ReadIntegrations))),
    params(("productId" = Uuid, Path), TypeFilter, PageParams, MinPositionParam),
    responses((status = 200, description = "The integrations", body = ListEnvelope<IntegrationDetails>), ReadFailures))]
async fn list_active(
    State(app): State<App>,
    caller: Caller,
    Path(product): Path<Uuid>,
    query: ListQuery<TypeFilter>,
) -> Result<ListReply<IntegrationDetails>, Problem> {
    caller.product(&app, product)?;
    let kind = filter_type(query.filters.r#type.as_deref())?;
    let window = window(&query)?;
    let listing =
        app.read(|db| integration::active(db, caller.organization, product, kind, window))?;
    let total = total(&query, &listing);
    let mut shown = Vec::with_capacity(listing.items.len());
    for found in listing.items {
        let is_hidden = found.product.is_none() && caller.bound_product().is_some();
        shown.push(if is_hidden { in_short(found) } else { details(&app, found).await? });
    }
    Ok(query.reply("Active integrations", shown, total))
}

/// Look at an integration
///
/// Its secrets are masked. The `ETag` moves with what can be changed, not with uses and tests.
#[utoipa::path(get, path = "/api/integrations-base/{id}", tag = "Integrations",
    extensions(("x-access" = json!(Right::ReadIntegrations))),
    params(("id" = Uuid, Path), MinPositionParam, IfNoneMatchParam),
    responses((status = 200, description = "The integration", body = Envelope<IntegrationDetails>),
              (status = 304, description = "The client has it already"), ReadFailures))]
async fn get_integration(
    State(app): State<App>,
    caller: Caller,
    known: IfNoneMatch,
    Path(id): Path<Uuid>,
) -> Result<Reply<IntegrationDetails>, Problem> {
    let found = find(&app, &caller, id)?;
    let etag = ETag::of_sequence(found.sequence);
    Ok(Reply::ok("Integration", details(&app, found).await?).etag_unless_known(&etag, &known))
}

/// Change an integration
///
/// Its type and its product stay.
#[utoipa::path(put, path = "/api/integrations-base/{id}", tag = "Integrations",
    extensions(("x-access" = json!(Right::WriteIntegrations))),
    params(("id" = Uuid, Path), IfMatchParam), request_body = ChangedIntegration,
    responses((status = 200, description = "The integration as it is now", body = Envelope<IntegrationDetails>), WriteFailures))]
async fn change_integration(
    State(app): State<App>,
    caller: Caller,
    circumstances: Circumstances,
    Path(id): Path<Uuid>,
    body: Json<ChangedIntegration>,
) -> Result<Reply<IntegrationDetails>, Problem> {
    let found = changeable(&app, &caller, id)?;
    let (change, bytes) = (body.read()?, body.bytes);
    let title = change.title.as_deref().map(title).transpose()?;
    let (secrets, removed) = secrets(change.secrets)?;
    let ask = circumstances.ask(&app, &caller, found.product, &[&bytes]).await?;
    let change = IntegrationChange {
        title,
        config: change.config,
        secrets,
        removed,
        enabled: change.enabled,
    };
    let done = app.commands.change_integration(id, change, &ask).await?;
    let position = app.applied(&done).await?;
    let (integration, etag) = after(&app, &done, id).await?;
    Ok(Reply::ok("Integration changed", integration)
        .etag(&etag)
        .position(position)
        .replayed(done.replayed))
}

/// Seal an integration anew
///
/// Everything that it was told is sealed under a new data key, and the old key is shredded: what was
/// sealed before cannot be opened any more, wherever a copy of the log lies. The secrets stay what
/// they are.
#[utoipa::path(post, path = "/api/integrations-base/{id}/rotate-key", tag = "Integrations",
    extensions(("x-access" = json!(Right::WriteIntegrations))),
    params(("id" = Uuid, Path), IdempotencyKeyParam, IfMatchParam), request_body(content = Option<Nothing>),
    responses((status = 200, description = "The integration as it is now", body = Envelope<IntegrationDetails>), WriteFailures))]
async fn rotate_key(
    State(app): State<App>,
    caller: Caller,
    circumstances: Circumstances,
    Path(id): Path<Uuid>,
    body: OptionalJson<Nothing>,
) -> Result<Reply<IntegrationDetails>, Problem> {
    let found = changeable(&app, &caller, id)?;
    let Nothing {} = body.read()?;
    let ask = circumstances.ask(&app, &caller, found.product, &[body.bytes()]).await?;
    let done = app.commands.rotate_integration_key(id, &ask).await?;
    let position = app.applied(&done).await?;
    let (integration, etag) = after(&app, &done, id).await?;
    Ok(Reply::ok("Integration sealed anew", integration)
        .etag(&etag)
        .position(position)
        .replayed(done.replayed))
}

/// What came of a test.
#[derive(Debug, Serialize, ToSchema)]
struct TestOutcome {
    /// The other side let us in.
    succeeded: bool,
    /// Why not, for programs: `unauthorized`, `forbidden`, `not_found`, `dns_failed`, `tls_failed`,
    /// `unreachable`, `timed_out`, `address_refused`, `rate_limited`, `unavailable`, `unexpected_answer` and
    /// the like.
    code: Option<String>,
    /// What a person can act on, or may like to know; none where the test was made before.
    message: Option<String>,
    /// Which secrets were tried.
    secrets_version: u64,
}

/// Test an integration
///
/// Really connects, with what the integration was told, and says what came of it: `200` in either case. The
/// outcome is in the audit log.
#[utoipa::path(post, path = "/api/integrations-base/{id}/test", tag = "Integrations",
    extensions(("x-access" = json!(Right::WriteIntegrations))),
    params(("id" = Uuid, Path), IdempotencyKeyParam), request_body(content = Option<Nothing>),
    responses((status = 200, description = "What came of it", body = Envelope<TestOutcome>), WriteFailures))]
async fn test_integration(
    State(app): State<App>,
    caller: Caller,
    circumstances: Circumstances,
    Path(id): Path<Uuid>,
    body: OptionalJson<Nothing>,
) -> Result<Reply<TestOutcome>, Problem> {
    let found = changeable(&app, &caller, id)?;
    let Nothing {} = body.read()?;
    let ask = circumstances.ask(&app, &caller, found.product, &[body.bytes()]).await?;
    let (done, message) = match app.commands.integration_test_before(&ask).await? {
        Some(done) => (done, None),
        None => {
            let open = app.commands.open_integration(id).await?;
            let tried = app.tools.connectors.test(&open).await;
            let done =
                app.commands.record_integration_test(&open, tried.failure.clone(), &ask).await?;
            (done, Some(tried.message))
        }
    };
    let position = app.applied(&done).await?;
    let event = done.events.first().map(|event| decode(&event.event_type, &event.data));
    let Some(Ok(IntegrationUseEvent::Tested { secrets_version, succeeded, code, .. })) = event
    else {
        return Err(Problem::bug("a test left no event of a test"));
    };
    let outcome = TestOutcome { succeeded, code, message, secrets_version };
    let said = if succeeded { "The integration works" } else { "The integration does not work" };
    Ok(Reply::ok(said, outcome).position(position).replayed(done.replayed))
}

/// Delete an integration
///
/// Its data keys are shredded: nobody can read again what it was told. `202` where that takes a while.
#[utoipa::path(delete, path = "/api/integrations-base/{id}", tag = "Integrations",
    extensions(("x-access" = json!(Right::WriteIntegrations))),
    params(("id" = Uuid, Path), IfMatchParam),
    responses((status = 200, description = "It is gone", body = Envelope<Deleted>),
              (status = 202, description = "It is gone, and its data keys are being shredded", body = Envelope<Deleted>),
              WriteFailures))]
async fn delete_integration(
    State(app): State<App>,
    caller: Caller,
    circumstances: Circumstances,
    Path(id): Path<Uuid>,
) -> Result<Reply<Deleted>, Problem> {
    let found = changeable(&app, &caller, id)?;
    let ask = circumstances.ask(&app, &caller, found.product, &[]).await?;
    let done = app.commands.delete_integration(id, &ask).await?;
    app.applied(&done).await?;
    let (is_erased, position) = app.erased(|db| integration::is_left(db, id)).await?;
    Ok(deleted("Integration deleted", id, is_erased).position(position))
}
