//! Whether the service lives and is ready: `/healthz`, `/readyz`; and the schemas it publishes.

use axum::extract::State;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::response::{IntoResponse, Response};
use domain::manifest::JSON_SCHEMA;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::access::Access;
use crate::app::{App, PATIENCE};
use crate::health::{Health, Readiness, alive};
use crate::http::Reply;
use crate::http::openapi::PublicFailures;
use crate::http::reply::Envelope;

/// The routes of the service itself.
pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(healthz))
        .routes(routes!(readyz))
        .routes(routes!(agent_manifest))
}

/// The JSON Schema of an agent's manifest
///
/// Draft 2020-12, for editors: it checks the form. What a manifest means is checked when it is
/// installed.
#[utoipa::path(get, path = "/schemas/agent-manifest.json", tag = "Service", security(()),
    extensions(("x-access" = json!(Access::Everybody))),
    responses((status = 200, description = "The schema", body = serde_json::Value,
        content_type = "application/schema+json")))]
async fn agent_manifest() -> impl IntoResponse {
    let headers =
        [(CONTENT_TYPE, "application/schema+json"), (CACHE_CONTROL, "public, max-age=3600")];
    (headers, JSON_SCHEMA)
}

/// Say that the process lives
#[utoipa::path(get, path = "/healthz", tag = "Service", security(()),
    extensions(("x-access" = json!(Access::Everybody))),
    responses((status = 200, description = "It lives", body = Envelope<Health>)))]
async fn healthz() -> Reply<Health> {
    alive().await
}

/// Say whether it can do its work
///
/// `503` names what is missing.
#[utoipa::path(get, path = "/readyz", tag = "Service", security(()),
    extensions(("x-access" = json!(Access::Everybody))),
    responses((status = 200, description = "It is ready", body = Envelope<Readiness>), PublicFailures))]
async fn readyz(State(app): State<App>) -> Response {
    let mut readiness = Readiness::default();
    match app.log.head().await {
        Ok(head) => readiness.check("event_log", true, format!("at position {head}")),
        Err(error) => readiness.check("event_log", false, error.to_string()),
    }
    match tokio::time::timeout(PATIENCE, app.commands.vault().check()).await {
        Ok(Ok(())) => readiness.check("object_store", true, "it answers"),
        failed => {
            let error = failed.ok().and_then(Result::err).map(|error| error.to_string());
            let why = error.as_deref().unwrap_or("it does not answer in time");
            tracing::warn!(why, "the store of files and keys is not ready");
            readiness.check("object_store", false, "it does not answer as it should: see the log");
        }
    }
    let (is_current, detail) = read_models(&app);
    readiness.check("read_models", is_current, detail);
    match app.search.trouble() {
        None => readiness.check("search_index", true, format!("{} chunks", app.search.len())),
        Some(trouble) => readiness.check("search_index", false, trouble),
    }
    match app.embedder.borrow().as_ref() {
        Some(embedder) => {
            readiness.check("embedding_model", true, embedder.model().name().to_owned())
        }
        None => {
            let trouble = app.model_trouble.borrow().clone();
            let detail = trouble.map_or_else(|| "being loaded".to_owned(), |why| why.to_string());
            readiness.check("embedding_model", false, detail);
        }
    }
    readiness.into_response()
}

/// Whether the read models may be relied on, and where they are.
fn read_models(app: &App) -> (bool, String) {
    if let Some(trouble) = app.views.trouble() {
        return (false, trouble);
    }
    let position = app.views.position();
    if app.has_started() {
        return (true, format!("at position {position}"));
    }
    let lag = app.log.watch().borrow().0.saturating_sub(position.0);
    (
        false,
        format!(
            "at position {position}, {lag} behind the log since the start: nobody is let in yet"
        ),
    )
}
