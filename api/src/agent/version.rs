//! Versions of agents: `/api/agent-base/{id}/versions`.
//!
//! The rule of this file: a version never changes. Which one is active is the agent's to say, so its
//! `ETag` is the agent's.

use std::collections::BTreeMap;

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use commands::NewVersion;
use domain::manifest::Manifest;
use projections::agent::{self, Agent, Version, VersionContent};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use super::diff::{self, ManifestDiff};
use super::document::{self, check_model, is_yaml, read_manifest, read_yaml};
use super::{AgentTrigger, AgentVersion, agent_not_found, check_bindings, find, reach};
use crate::access::Right;
use crate::app::App;
use crate::caller::{Caller, Circumstances};
use crate::http::openapi::{
    IdempotencyKeyParam, IfNoneMatchParam, MinPositionParam, PageParams, ReadFailures,
    WriteFailures,
};
use crate::http::page::NoFilters;
use crate::http::reply::{Envelope, ListEnvelope};
use crate::http::{
    ETag, FieldError, IfNoneMatch, Json, ListQuery, ListReply, Path, Problem, Query, Reply,
};
use crate::lists::{total, window};

/// A version that is to be published.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct VersionPublication {
    /// A manifest of the kind `prodgy.agent/1`, or a text that is one in YAML. Its name is the agent's.
    #[schema(value_type = document::ManifestDocument)]
    manifest: Value,
    /// Whether it runs from now on: `true` without it.
    activate: Option<bool>,
    /// The whole configuration of the agent, where the present one does not fit this version; only where
    /// it is activated.
    #[schema(value_type = Option<Object>)]
    config: Option<Map<String, Value>>,
    /// What is to stand in slots of this version: the id of a knowledge base of the product for each.
    /// Others stay as they are.
    bindings: Option<BTreeMap<String, Uuid>>,
}

/// A version of an agent's workflow, with its manifest.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct VersionDetails {
    #[serde(flatten)]
    version: AgentVersion,
    /// The agent.
    agent_id: Uuid,
    /// The manifest.
    #[schema(value_type = Object)]
    manifest: Value,
    /// The triggers that its manifest names, as they were made: they listen while it is the active one.
    triggers: Vec<AgentTrigger>,
}

/// What leads from one version to another.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct VersionDiff {
    /// The version that is compared with.
    against: AgentVersion,
    /// The version that is looked at.
    version: AgentVersion,
    #[serde(flatten)]
    diff: ManifestDiff,
}

/// What a version is compared with.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct Against {
    /// Another version of the agent; the active one without it.
    against: Option<Uuid>,
}

fn details((version, content): (Version, VersionContent)) -> VersionDetails {
    VersionDetails {
        agent_id: version.agent,
        version: AgentVersion::from(version),
        manifest: content.manifest,
        triggers: content.triggers.into_iter().map(AgentTrigger::from).collect(),
    }
}

fn version_not_found() -> Problem {
    Problem::not_found("version_not_found", "the agent has no such version: list those that it has")
}

/// An agent that the caller may see, uninstalled or not: its history stays.
fn find_any(app: &App, caller: &Caller, id: Uuid) -> Result<Agent, Problem> {
    let found = app.read(|db| agent::get(db, id))?.ok_or_else(agent_not_found)?;
    reach(app, caller, found.product, agent_not_found)?;
    Ok(found)
}

/// What is to be published, whichever way it was sent.
struct Sent {
    manifest: Manifest,
    /// Where in the body the manifest is.
    place: &'static str,
    activate: bool,
    config: Option<Value>,
    bindings: BTreeMap<String, Uuid>,
}

impl Sent {
    fn read(headers: &HeaderMap, body: &Json<VersionPublication>) -> Result<Sent, Problem> {
        if is_yaml(headers) {
            let text = std::str::from_utf8(&body.bytes).map_err(|error| {
                let detail = format!("the body is not UTF-8 from byte {} on", error.valid_up_to());
                Problem::malformed("malformed_yaml", detail)
            })?;
            let manifest = read_yaml(text, "")?;
            let bindings = BTreeMap::new();
            return Ok(Sent { manifest, place: "", activate: true, config: None, bindings });
        }
        let sent = body.read().map_err(|problem| match problem.status() {
            StatusCode::UNSUPPORTED_MEDIA_TYPE => Problem::unsupported_media_type(
                "the body must be application/json or application/yaml, in UTF-8",
            ),
            _ => problem,
        })?;
        let activate = sent.activate.unwrap_or(true);
        if sent.config.is_some() && !activate {
            let message = "a configuration comes with the version that is to run: leave it out, and \
                           send it when you activate this one";
            let fault = FieldError::new("/config", "config_superfluous", message);
            return Err(Problem::invalid("config_superfluous", message).with_error(fault));
        }
        let place = "/manifest";
        let manifest = read_manifest(&sent.manifest, place)?;
        let config = sent.config.map(Value::Object);
        let bindings = sent.bindings.unwrap_or_default();
        Ok(Sent { manifest, place, activate, config, bindings })
    }
}

/// Publish a version of an agent
///
/// Another manifest of the agent's name, as JSON, as a text in YAML in its place, or as the whole body of
/// the type `application/yaml`. It runs from now on, unless `activate` is `false`; the configuration of the
/// agent must fit it then. The very same manifest again is `409`, and so is another one of a name and
/// version that the product knows.
#[utoipa::path(post, path = "/api/agent-base/{id}/versions", tag = "Agents",
    extensions(("x-access" = json!(Right::WriteAgents))),
    params(("id" = Uuid, Path), IdempotencyKeyParam),
    request_body(content((VersionPublication = "application/json"), (String = "application/yaml"))),
    responses((status = 201, description = "The new version", body = Envelope<VersionDetails>), WriteFailures))]
pub(super) async fn publish_version(
    State(app): State<App>,
    caller: Caller,
    circumstances: Circumstances,
    Path(id): Path<Uuid>,
    headers: HeaderMap,
    body: Json<VersionPublication>,
) -> Result<Reply<VersionDetails>, Problem> {
    let agent = find(&app, &caller, id)?;
    let Sent { manifest, place, activate, config, bindings } = Sent::read(&headers, &body)?;
    check_model(&app, &manifest, &format!("{place}/requires/model"))?;
    let ask = circumstances.ask(&app, &caller, Some(agent.product), &[&body.bytes]).await?;
    check_bindings(&app, caller.organization, agent.product, &manifest, &bindings)?;
    let digest = manifest.digest();
    let new = NewVersion { manifest, activate, config, bindings };
    let published = app.commands.publish_version(id, new, &ask).await;
    let done = published.map_err(|error| match place {
        "" => error.inside("/manifest"),
        _ => error,
    })?;
    let position = app.applied_with_the_rest(&done).await?;
    let (agent, version) = app
        .read_after(&done, |db| Ok((agent::get(db, id)?, agent::by_digest(db, id, &digest)?)))
        .await?;
    let etag = ETag::of_sequence(agent.ok_or_else(agent_not_found)?.sequence);
    let version = details(version.ok_or_else(version_not_found)?);
    let location = format!("/api/agent-base/{id}/versions/{}", version.version.id);
    Ok(Reply::created(location, "Version published", version)
        .etag(&etag)
        .position(position)
        .replayed(done.replayed))
}

/// List the versions of an agent
///
/// Newest first, without their manifests. Those of an uninstalled agent stay readable.
#[utoipa::path(get, path = "/api/agent-base/{id}/versions", tag = "Agents",
    extensions(("x-access" = json!(Right::ReadAgents))),
    params(("id" = Uuid, Path), PageParams, MinPositionParam),
    responses((status = 200, description = "The versions", body = ListEnvelope<AgentVersion>), ReadFailures))]
pub(super) async fn list_versions(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<Uuid>,
    query: ListQuery<NoFilters>,
) -> Result<ListReply<AgentVersion>, Problem> {
    find_any(&app, &caller, id)?;
    let window = window(&query)?;
    let listing = app.read(|db| agent::versions(db, id, window))?.map(AgentVersion::from);
    let total = total(&query, &listing);
    Ok(query.reply("Versions", listing.items, total))
}

/// Look at a version of an agent
///
/// With its manifest. The `ETag` is the agent's: whether the version is the active one may change.
#[utoipa::path(get, path = "/api/agent-base/{id}/versions/{versionId}", tag = "Agents",
    extensions(("x-access" = json!(Right::ReadAgents))),
    params(("id" = Uuid, Path), ("versionId" = Uuid, Path), MinPositionParam, IfNoneMatchParam),
    responses((status = 200, description = "The version", body = Envelope<VersionDetails>),
              (status = 304, description = "The client has it already"), ReadFailures))]
pub(super) async fn get_version(
    State(app): State<App>,
    caller: Caller,
    known: IfNoneMatch,
    Path((id, version)): Path<(Uuid, Uuid)>,
) -> Result<Reply<VersionDetails>, Problem> {
    let agent = find_any(&app, &caller, id)?;
    let found = app.read(|db| agent::version(db, id, version))?.ok_or_else(version_not_found)?;
    let etag = ETag::of_sequence(agent.sequence);
    Ok(Reply::ok("Version", details(found)).etag_unless_known(&etag, &known))
}

/// Compare two versions of an agent
///
/// What leads from the one `against` which it is compared, or else the active one, to this one: in
/// sentences, by step, and as a JSON Patch (RFC 6902).
#[utoipa::path(get, path = "/api/agent-base/{id}/versions/{versionId}/diff", tag = "Agents",
    extensions(("x-access" = json!(Right::ReadAgents))),
    params(("id" = Uuid, Path), ("versionId" = Uuid, Path), Against, MinPositionParam),
    responses((status = 200, description = "What changes", body = Envelope<VersionDiff>), ReadFailures))]
pub(super) async fn diff_versions(
    State(app): State<App>,
    caller: Caller,
    Path((id, version)): Path<(Uuid, Uuid)>,
    Query(Against { against }): Query<Against>,
) -> Result<Reply<VersionDiff>, Problem> {
    let agent = find_any(&app, &caller, id)?;
    let read = |version| app.read(|db| agent::version(db, id, version));
    let (version, content) = read(version)?.ok_or_else(version_not_found)?;
    let (against, old) =
        read(against.unwrap_or(agent.version_id))?.ok_or_else(version_not_found)?;
    let diff = diff::between(&old.manifest, &content.manifest);
    let (against, version) = (AgentVersion::from(against), AgentVersion::from(version));
    Ok(Reply::ok("Changes", VersionDiff { against, version, diff }))
}
