//! Agents: `/api/agent-base`.

use std::collections::BTreeMap;

use axum::extract::State;
use axum::http::StatusCode;
use commands::{AgentChange, Done, NewAgent, mask};
use domain::Name;
use domain::agent::MAX_VERSIONS;
use domain::manifest::Manifest;
use domain::refusal::pointer_segment;
use projections::agent::{self, Agent, AgentSummary, Version, VersionContent};
use projections::trigger::{self, Trigger};
use projections::{Window, execution, integration, knowledge_base};
use rusqlite::Connection;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use crate::access::Right;
use crate::answers::Deleted;
use crate::app::App;
use crate::caller::{Caller, Circumstances};
use crate::execution::ExecutionStatus;
use crate::failures::bad_value;
use crate::http::openapi::{
    IdempotencyKeyParam, IfMatchParam, IfNoneMatchParam, MinPositionParam, PageParams,
    ReadFailures, WriteFailures,
};
use crate::http::page::NoFilters;
use crate::http::reply::{Envelope, ListEnvelope};
use crate::http::{
    ETag, FieldError, IfNoneMatch, Json, ListQuery, ListReply, Path, Problem, Reply,
};
use crate::knowledge_base::meant_product;
use crate::lists::{total, window};

mod catalogue;
mod diff;
mod document;
mod version;

use document::{check_model, read_manifest};

/// The routes of agents.
pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(catalogue::list_catalogue))
        .routes(routes!(install_agent))
        .routes(routes!(list_agents))
        .routes(routes!(get_agent, change_agent, uninstall_agent))
        .routes(routes!(version::publish_version, version::list_versions))
        .routes(routes!(version::get_version))
        .routes(routes!(version::diff_versions))
}

/// An agent that is to be installed: one of the catalogue, or one with a manifest of its own.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct AgentInstallation {
    /// The product; an API token may leave its own out.
    product_id: Option<Uuid>,
    /// The name of a catalogue entry, as `prodgy.search`. Either this or `manifest`.
    agent: Option<String>,
    /// The version of the catalogue entry; the one there is without it.
    version: Option<String>,
    /// A manifest of the kind `prodgy.agent/1`, or a text that is one in YAML. Either this or `agent`.
    #[schema(value_type = Option<document::ManifestDocument>)]
    manifest: Option<Value>,
    /// What people call it; the manifest's title without it.
    #[schema(min_length = 1, max_length = 200)]
    title: Option<String>,
    /// Its configuration, as the `config` of its manifest says.
    #[schema(value_type = Option<Object>)]
    config: Option<Map<String, Value>>,
    /// What stands in the slots of its manifest: the id of a knowledge base of the product, or of an
    /// integration that it can use, for each. A slot for knowledge without one means the default knowledge
    /// base, and one for an integration the only one of its kinds that there is when it is used.
    bindings: Option<BTreeMap<String, Uuid>>,
}

/// What is to be changed of an agent; what is left out stays.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct ChangedAgent {
    /// What people call it.
    #[schema(min_length = 1, max_length = 200)]
    title: Option<String>,
    /// Its whole configuration. A secret that is sent as it was shown, masked, stays as it is.
    #[schema(value_type = Option<Object>)]
    config: Option<Map<String, Value>>,
    /// Whether it may be executed.
    enabled: Option<bool>,
    /// The version of its workflow that is to run. Its configuration must fit that.
    version_id: Option<Uuid>,
    /// What is to stand in slots of the version that runs then: the id of a knowledge base of the product
    /// for each. Others stay as they are.
    bindings: Option<BTreeMap<String, Uuid>>,
}

/// An AI module installed in a product, in full.
#[derive(Debug, Serialize, ToSchema)]
struct AgentDetails {
    /// Its id.
    id: Uuid,
    /// The product.
    product_id: Uuid,
    /// What people call it.
    title: String,
    /// What its manifest is called.
    name: String,
    /// The version of the active manifest.
    version: String,
    /// The id of the version of its workflow that runs.
    version_id: Uuid,
    /// It may be executed.
    enabled: bool,
    /// The active manifest.
    #[schema(value_type = Object)]
    manifest: Value,
    /// Its configuration, secrets masked; none when it was erased.
    #[schema(value_type = Option<Object>)]
    config: Option<Value>,
    /// What stands in the slots of its manifests; a slot of one name is one slot in all of them.
    #[schema(value_type = Object)]
    bindings: Value,
    /// The versions of its workflow, newest first.
    versions: Vec<AgentVersion>,
    /// What starts it: the triggers of the active version, and those that were made later.
    triggers: Vec<AgentTrigger>,
    /// Its newest execution.
    last_execution: Option<LastExecution>,
    /// When it was installed.
    #[schema(format = DateTime)]
    created_at: String,
    /// When it was last changed.
    #[schema(format = DateTime)]
    updated_at: String,
}

/// A version of an agent's workflow.
#[derive(Debug, Serialize, ToSchema)]
struct AgentVersion {
    /// Its id.
    id: Uuid,
    /// The manifest's version.
    version: String,
    /// The SHA-256 of the manifest in canonical form (RFC 8785).
    digest: String,
    /// It is the one that runs.
    active: bool,
    /// Who published it, as `user:<uuid>` or `token:<uuid>`.
    created_by: String,
    /// When it was published.
    #[schema(format = DateTime)]
    created_at: String,
}

impl From<Version> for AgentVersion {
    fn from(version: Version) -> AgentVersion {
        let Version { id, version, digest, active, created_by, created_at, .. } = version;
        AgentVersion { id, version, digest, active, created_by, created_at }
    }
}

/// What starts an agent.
#[derive(Debug, Serialize, ToSchema)]
struct AgentTrigger {
    /// Its id.
    id: Uuid,
    /// Its id in the manifest, or one like it where it was made later.
    key: String,
    /// What it listens to.
    #[serde(rename = "type")]
    #[schema(value_type = crate::trigger::TriggerType)]
    kind: String,
    /// It may fire.
    enabled: bool,
    /// What its type needs to know.
    #[schema(value_type = Object)]
    configuration: Map<String, Value>,
}

impl From<Trigger> for AgentTrigger {
    fn from(trigger: Trigger) -> AgentTrigger {
        let Trigger { id, key, kind, enabled, configuration, .. } = trigger;
        AgentTrigger { id, key, kind: kind.as_str().to_owned(), enabled, configuration }
    }
}

impl From<domain::agent::AgentTrigger> for AgentTrigger {
    fn from(fixed: domain::agent::AgentTrigger) -> AgentTrigger {
        let domain::agent::AgentTrigger { id, key, kind, enabled, configuration } = fixed;
        AgentTrigger { id, key, kind: kind.as_str().to_owned(), enabled, configuration }
    }
}

/// The newest execution of an agent, in short.
#[derive(Debug, Serialize, ToSchema)]
struct LastExecution {
    /// Its id.
    id: Uuid,
    /// How far it is.
    #[schema(value_type = ExecutionStatus)]
    status: String,
    /// When it was asked for.
    #[schema(format = DateTime)]
    created_at: String,
    /// When it began.
    #[schema(format = DateTime)]
    started_at: Option<String>,
    /// When it ended.
    #[schema(format = DateTime)]
    ended_at: Option<String>,
}

impl From<execution::Execution> for LastExecution {
    fn from(execution: execution::Execution) -> LastExecution {
        let execution::Execution { id, status, created_at, started_at, ended_at, .. } = execution;
        LastExecution { id, status, created_at, started_at, ended_at }
    }
}

pub(crate) fn agent_not_found() -> Problem {
    Problem::not_found(
        "agent_not_found",
        "there is no such agent: list those of the product to see which there are",
    )
}

/// Lets the caller go on if what it asks for lies in a product that it may see; otherwise that is
/// not found either.
pub(crate) fn reach(
    app: &App,
    caller: &Caller,
    product: Uuid,
    not_found: impl FnOnce() -> Problem,
) -> Result<(), Problem> {
    match caller.product(app, product) {
        Ok(_) => Ok(()),
        Err(problem) if problem.status() == StatusCode::NOT_FOUND => Err(not_found()),
        Err(problem) => Err(problem),
    }
}

/// An installed agent that the caller may see.
pub(crate) fn find(app: &App, caller: &Caller, id: Uuid) -> Result<Agent, Problem> {
    let found = app.read(|db| agent::get(db, id))?;
    let found = found.filter(|agent| agent.uninstalled_at.is_none()).ok_or_else(agent_not_found)?;
    reach(app, caller, found.product, agent_not_found)?;
    Ok(found)
}

/// An agent as it is read, with what belongs to it.
struct Found {
    agent: Agent,
    versions: Vec<Version>,
    active: Option<VersionContent>,
    secrets: Vec<String>,
    triggers: Vec<Trigger>,
    last: Option<execution::Execution>,
}

fn read(db: &Connection, id: Uuid) -> Result<Option<Found>, projections::Error> {
    let Some(agent) = agent::get(db, id)? else { return Ok(None) };
    let versions = agent::versions(db, id, Window::first(MAX_VERSIONS as u64))?.items;
    let active = agent::version(db, id, agent.version_id)?.map(|(_, content)| content);
    let secrets = agent::secret_paths(db, id)?;
    let triggers = trigger::of_version(db, id, agent.version_id)?;
    let last = execution::latest(db, id)?;
    Ok(Some(Found { agent, versions, active, secrets, triggers, last }))
}

/// An agent as it is answered, its configuration opened and masked.
async fn details(app: &App, found: Found) -> Result<AgentDetails, Problem> {
    let Found { agent, versions, active, secrets, triggers, last } = found;
    let stream = format!("agent-{}", agent.id);
    let config = match &agent.config {
        Some(sealed) => {
            sealed.open(app.commands.vault(), agent.organization, &stream, "config").await?
        }
        None => None,
    };
    let config: Option<Value> = config.and_then(|text| serde_json::from_str(&text).ok());
    // As the active version sees it: with its defaults.
    let manifest = Manifest::read(&agent.manifest).ok();
    let config = config.map(|config| {
        let whole = manifest.and_then(|it| it.check_config(Some(config.clone())).ok());
        mask(&secrets, whole.unwrap_or(config))
    });
    // Every agent has one: where none is known, they are shown as they were right after they were made.
    let triggers = match triggers.is_empty() {
        true => {
            let fixed = active.map(|content| content.triggers).unwrap_or_default();
            fixed.into_iter().map(AgentTrigger::from).collect()
        }
        false => triggers.into_iter().rev().map(AgentTrigger::from).collect(),
    };
    Ok(AgentDetails {
        id: agent.id,
        product_id: agent.product,
        title: agent.title,
        name: agent.name,
        version: agent.version,
        version_id: agent.version_id,
        enabled: agent.enabled,
        manifest: agent.manifest,
        config,
        bindings: agent.bindings,
        versions: versions.into_iter().map(AgentVersion::from).collect(),
        triggers,
        last_execution: last.map(LastExecution::from),
        created_at: agent.created_at,
        updated_at: agent.updated_at,
    })
}

/// The details of an agent as a command left it, and its sequence then.
async fn details_after(app: &App, done: &Done, id: Uuid) -> Result<(AgentDetails, ETag), Problem> {
    let found = app.read_after(done, |db| read(db, id)).await?.ok_or_else(agent_not_found)?;
    let etag = ETag::of_sequence(found.agent.sequence);
    Ok((details(app, found).await?, etag))
}

fn title(text: &str) -> Result<Name, Problem> {
    Name::parse(text).map_err(|error| bad_value("title", &error))
}

/// The manifest that a body means.
fn manifest(app: &App, body: &AgentInstallation) -> Result<Manifest, Problem> {
    let (manifest, place) = match (&body.agent, &body.manifest) {
        (Some(name), None) => (catalogue::find(name, body.version.as_deref())?, "/agent"),
        (None, Some(document)) => {
            if body.version.is_some() {
                let message = "a manifest says its version itself: leave this out";
                return Err(Problem::invalid("version_superfluous", message)
                    .with_error(FieldError::new("/version", "exclusive", message)));
            }
            (read_manifest(document, "/manifest")?, "/manifest/requires/model")
        }
        (agent, _) => {
            let message = "send either the name of a catalogue entry in agent, or a manifest";
            let code = if agent.is_some() { "exclusive" } else { "missing" };
            return Err(Problem::invalid("agent_or_manifest", message).with_errors(
                ["/agent", "/manifest"].map(|field| FieldError::new(field, code, message)),
            ));
        }
    };
    check_model(app, &manifest, place)?;
    Ok(manifest)
}

/// Checks that every binding names a slot of the manifest and a knowledge base of the product.
fn check_bindings(
    app: &App,
    organization: Uuid,
    product: Uuid,
    manifest: &Manifest,
    bindings: &BTreeMap<String, Uuid>,
) -> Result<(), Problem> {
    let mut faults = Vec::new();
    for (slot, bound) in bindings {
        let (code, message) = if manifest.requires.knowledge.contains(slot) {
            let base = app.read(|db| knowledge_base::get(db, *bound))?;
            if base.is_some_and(|base| base.product_id == product) {
                continue;
            }
            (
                "knowledge_base_not_found",
                "the product has no such knowledge base: list those that it has",
            )
        } else if let Some(known) =
            manifest.requires.integrations.iter().find(|known| known.slot == *slot)
        {
            let found = app.read(|db| integration::get(db, *bound))?;
            let found = found.filter(|found| {
                found.organization == organization && found.product.is_none_or(|it| it == product)
            });
            match found {
                Some(found) if known.kinds.iter().any(|kind| kind == found.kind.as_str()) => {
                    continue;
                }
                Some(_) => (
                    "integration_not_of_kind",
                    "the integration is of another type than the slot takes: bind another",
                ),
                None => (
                    "integration_not_found",
                    "the product has no such integration: list those that it has",
                ),
            }
        } else {
            (
                "slot_unknown",
                "the manifest has no such slot: bind only those that it names in `requires`",
            )
        };
        faults.push(FieldError::new(format!("/bindings/{}", pointer_segment(slot)), code, message));
    }
    if faults.is_empty() {
        return Ok(());
    }
    let message = "what the slots are bound to is not right: errors names the places to mend";
    Err(Problem::invalid("bindings_invalid", message).with_errors(faults))
}

/// Install an agent
///
/// By the name of a catalogue entry, or with a manifest of one's own, as JSON or as a text that is one in
/// YAML. Within a product, name and version are one manifest for ever: another one of the same is `409`.
/// The answer names its triggers.
#[utoipa::path(post, path = "/api/agent-base/install", tag = "Agents",
    extensions(("x-access" = json!(Right::WriteAgents))), params(IdempotencyKeyParam),
    request_body = AgentInstallation,
    responses((status = 201, description = "The new agent", body = Envelope<AgentDetails>), WriteFailures))]
async fn install_agent(
    State(app): State<App>,
    caller: Caller,
    circumstances: Circumstances,
    body: Json<AgentInstallation>,
) -> Result<Reply<AgentDetails>, Problem> {
    let (body, bytes) = (body.read()?, body.bytes);
    let product = meant_product(&caller, body.product_id)?;
    caller.product(&app, product)?;
    let manifest = manifest(&app, &body)?;
    let title = body.title.as_deref().map(title).transpose()?;
    let bindings = body.bindings.unwrap_or_default();
    let ask = circumstances.ask(&app, &caller, Some(product), &[&bytes]).await?;
    check_bindings(&app, caller.organization, product, &manifest, &bindings)?;
    let new = NewAgent { manifest, title, config: body.config.map(Value::Object), bindings };
    let done = app.commands.install_agent(new, &ask).await?;
    let position = app.applied_with_the_rest(&done).await?;
    let id = done.stream_id().unwrap_or_default();
    let (agent, etag) = details_after(&app, &done, id).await?;
    let location = format!("/api/agent-base/{id}");
    Ok(Reply::created(location, "Agent installed", agent)
        .etag(&etag)
        .position(position)
        .replayed(done.replayed))
}

/// List the agents of a product
///
/// Newest first.
#[utoipa::path(get, path = "/api/agent-base/product/{productId}", tag = "Agents",
    extensions(("x-access" = json!(Right::ReadAgents))),
    params(("productId" = Uuid, Path), PageParams, MinPositionParam),
    responses((status = 200, description = "The agents", body = ListEnvelope<AgentSummary>), ReadFailures))]
async fn list_agents(
    State(app): State<App>,
    caller: Caller,
    Path(product): Path<Uuid>,
    query: ListQuery<NoFilters>,
) -> Result<ListReply<AgentSummary>, Problem> {
    caller.product(&app, product)?;
    let window = window(&query)?;
    let listing = app.read(|db| agent::list(db, product, window))?;
    let total = total(&query, &listing);
    Ok(query.reply("Agents", listing.items, total))
}

/// Look at an agent
///
/// With its manifest, its configuration (secrets masked), its versions, its triggers and its last
/// execution. The `ETag` is the agent's own: a trigger has one of its own.
#[utoipa::path(get, path = "/api/agent-base/{id}", tag = "Agents",
    extensions(("x-access" = json!(Right::ReadAgents))),
    params(("id" = Uuid, Path), MinPositionParam, IfNoneMatchParam),
    responses((status = 200, description = "The agent", body = Envelope<AgentDetails>),
              (status = 304, description = "The client has it already"), ReadFailures))]
async fn get_agent(
    State(app): State<App>,
    caller: Caller,
    known: IfNoneMatch,
    Path(id): Path<Uuid>,
) -> Result<Reply<AgentDetails>, Problem> {
    find(&app, &caller, id)?;
    let found = app.read(|db| read(db, id))?.ok_or_else(agent_not_found)?;
    let etag = ETag::of_sequence(found.agent.sequence);
    Ok(Reply::ok("Agent", details(&app, found).await?).etag_unless_known(&etag, &known))
}

/// Change an agent
///
/// Configures it, renames it, switches it on or off, picks the version that runs. A rollback is to pick an
/// older one: its triggers listen again, with the state that they had. A configuration that does not fit
/// the version is `422`: send one that does with it.
#[utoipa::path(put, path = "/api/agent-base/{id}", tag = "Agents",
    extensions(("x-access" = json!(Right::WriteAgents))),
    params(("id" = Uuid, Path), IfMatchParam), request_body = ChangedAgent,
    responses((status = 200, description = "The agent as it is now", body = Envelope<AgentDetails>), WriteFailures))]
async fn change_agent(
    State(app): State<App>,
    caller: Caller,
    circumstances: Circumstances,
    Path(id): Path<Uuid>,
    body: Json<ChangedAgent>,
) -> Result<Reply<AgentDetails>, Problem> {
    let agent = find(&app, &caller, id)?;
    let (body, bytes) = (body.read()?, body.bytes);
    let title = body.title.as_deref().map(title).transpose()?;
    let ask = circumstances.ask(&app, &caller, Some(agent.product), &[&bytes]).await?;
    let ChangedAgent { config, enabled, version_id, bindings, .. } = body;
    let bindings = bindings.unwrap_or_default();
    if !bindings.is_empty() {
        // A version that is not there is refused later.
        let version = version_id.unwrap_or(agent.version_id);
        let found = app.read(|db| agent::version(db, id, version))?;
        let manifest = found.and_then(|(_, content)| Manifest::read(&content.manifest).ok());
        if let Some(manifest) = manifest {
            check_bindings(&app, caller.organization, agent.product, &manifest, &bindings)?;
        }
    }
    let config = config.map(Value::Object);
    let change = AgentChange { title, config, enabled, version_id, bindings };
    let done = app.commands.change_agent(id, change, &ask).await?;
    let position = app.applied(&done).await?;
    let (agent, etag) = details_after(&app, &done, id).await?;
    Ok(Reply::ok("Agent changed", agent).etag(&etag).position(position).replayed(done.replayed))
}

/// Uninstall an agent
///
/// Its triggers go with it, and executions that have not ended are cancelled. Its history stays: its
/// versions and executions can still be read.
#[utoipa::path(delete, path = "/api/agent-base/{id}", tag = "Agents",
    extensions(("x-access" = json!(Right::WriteAgents))),
    params(("id" = Uuid, Path), IfMatchParam),
    responses((status = 200, description = "It is gone", body = Envelope<Deleted>), WriteFailures))]
async fn uninstall_agent(
    State(app): State<App>,
    caller: Caller,
    circumstances: Circumstances,
    Path(id): Path<Uuid>,
) -> Result<Reply<Deleted>, Problem> {
    let agent = find(&app, &caller, id)?;
    let ask = circumstances.ask(&app, &caller, Some(agent.product), &[]).await?;
    let triggers = app.read(|db| trigger::of_agent(db, id))?;
    let done = app.commands.uninstall_agent(id, &ask).await?;
    let triggers = triggers.into_iter().map(|trigger| trigger.id).collect();
    app.commands.remove_left_triggers(id, triggers).await?;
    let position = app.applied_with_the_rest(&done).await?;
    Ok(Reply::ok("Agent uninstalled", Deleted { id }).position(position))
}
