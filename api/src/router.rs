//! Every route, and the layers around groups of them.
//!
//! The rule of this file: a route is in the OpenAPI document or it does not exist.

use std::time::Duration;

use axum::Router;
use axum::extract::{FromRequestParts, Request, State};
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use eventlog::Position;
use utoipa::OpenApi;
use utoipa_axum::router::OpenApiRouter;

use crate::app::App;
use crate::gate::{self, Gate, Unguarded};
use crate::http::MinPosition;
use crate::http::around::around;
use crate::http::finish::{TimeLimit, within};
use crate::http::layers::{self, Settings, body_limit};
use crate::http::openapi::{self, Document};
use crate::http::rate_limit::{self, RateLimit};
use crate::metrics::Metrics;
use crate::record::remember;
use crate::{
    admin, agent, api_token, audit_log, chat, communicator, conversation, evaluation, event,
    execution, file, generation, integration, knowledge_base, openai, product, search, service,
    session, trigger, user, webhook, workflow,
};

/// How the routes are dressed.
pub struct Dress {
    /// CORS and proxies.
    pub settings: Settings,
    /// The limit of most routes; none switches it off.
    pub limit: Option<RateLimit>,
    /// The limit of signing in and refreshing; none switches it off.
    pub sign_in_limit: Option<RateLimit>,
    /// The largest body of most routes, in bytes.
    pub body_limit: usize,
    /// How long most routes may take.
    pub timeout: Duration,
    /// Where `/metrics` comes from.
    pub metrics: Metrics,
}

/// Why there can be no HTTP side.
#[derive(Debug, thiserror::Error)]
pub enum Unbuildable {
    /// A route does not say who may call it.
    #[error(transparent)]
    Unguarded(#[from] Unguarded),
    /// The OpenAPI document cannot be written.
    #[error("the OpenAPI document cannot be written")]
    Document(#[from] serde_json::Error),
}

/// The routes that answer soon, with small bodies.
fn ordinary() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .merge(session::router())
        .merge(user::router())
        .merge(product::router())
        .merge(api_token::router())
        .merge(knowledge_base::router())
        .merge(file::router())
        .merge(search::router())
        .merge(evaluation::router())
        .merge(generation::router())
        .merge(chat::router())
        .merge(agent::router())
        .merge(trigger::router())
        .merge(integration::router())
        .merge(conversation::router())
        .merge(execution::router())
        .merge(workflow::router())
        .merge(audit_log::router())
        .merge(event::router())
        .merge(admin::router())
}

/// The routes that may take as long as the client's line: uploads, downloads, streams.
fn long(upload_limit: u64) -> OpenApiRouter<App> {
    let upload_limit = usize::try_from(upload_limit).unwrap_or(usize::MAX);
    OpenApiRouter::new()
        .merge(file::long_router().layer(body_limit(upload_limit, Duration::MAX)))
        .merge(event::long_router())
        .merge(audit_log::long_router())
        .merge(trigger::long_router())
        .merge(evaluation::long_router())
        .merge(workflow::long_router())
        .merge(chat::long_router())
}

/// The OpenAPI document of every route.
pub fn document() -> utoipa::openapi::OpenApi {
    let routes = OpenApiRouter::with_openapi(Document::openapi())
        .merge(ordinary())
        .merge(session::sign_in_router())
        .merge(webhook::router())
        .merge(communicator::router())
        .merge(openai::router())
        .merge(long(0))
        .merge(service::router());
    let (_, mut document) = routes.split_for_parts();
    // In the document a parameter that holds slashes looks like any other.
    let paths = std::mem::take(&mut document.paths.paths);
    document.paths.paths =
        paths.into_iter().map(|(path, item)| (path.replace("{*", "{"), item)).collect();
    document.info.version = env!("CARGO_PKG_VERSION").to_owned();
    document
}

/// The whole HTTP side.
///
/// # Errors
/// A route does not say who may call it, or the OpenAPI document cannot be written.
pub fn build(app: App, dress: Dress) -> Result<Router, Unbuildable> {
    let document = document();
    let gate = Gate::new(&document)?;
    let gated = |router: OpenApiRouter<App>| {
        let (router, _) = router.split_for_parts();
        router.layer(around((app.clone(), gate.clone()), gate::pass))
    };
    let left_alone = dress.settings.left_alone.clone();
    let time_limit = TimeLimit { limit: dress.timeout, left_alone };
    let quick = |router: Router<App>| {
        router
            .layer(around(time_limit.clone(), within))
            .layer(body_limit(dress.body_limit, dress.timeout))
    };
    let limited = |router: Router<App>, limit: &Option<RateLimit>| match limit {
        Some(limit) => router.layer(around(limit.clone(), rate_limit::enforce)),
        None => router,
    };
    let ready =
        |router: OpenApiRouter<App>| gated(router).layer(around(app.clone(), wait_for_position));
    // How long a body of theirs may be is known where it is known whom it is for.
    let webhooks = ready(webhook::router()).layer(around(time_limit.clone(), within));
    let communicators = ready(communicator::router()).layer(around(time_limit.clone(), within));
    let long = ready(long(app.upload_limit)).layer(body_limit(dress.body_limit, dress.timeout));
    let openai = ready(openai::router()).layer(body_limit(dress.body_limit, dress.timeout));
    // Around all that may refuse: a failure there has another form.
    let openai = limited(openai, &dress.limit).layer(around((), openai::in_their_words));
    let api = limited(quick(ready(ordinary())).merge(long), &dress.limit)
        .merge(openai)
        // Limited where it is known whom they are for.
        .merge(webhooks)
        .merge(communicators)
        .merge(limited(quick(ready(session::sign_in_router())), &dress.sign_in_limit))
        .layer(around(app.clone(), remember));
    let metrics = dress.metrics.clone();
    let render = get(move || async move { metrics.render() });
    let whole = api
        .merge(gated(service::router()))
        .route("/metrics", render.layer(from_fn(gate::without_parameters)))
        .merge(openapi::json(&document)?.layer(from_fn(gate::without_parameters)))
        .merge(openapi::page())
        .with_state(app);
    Ok(layers::dress(whole, dress.settings))
}

/// `X-Min-Position`: waits until the read models have taken that position in.
async fn wait_for_position(State(app): State<App>, request: Request, next: Next) -> Response {
    let (mut parts, body) = request.into_parts();
    let wanted = match MinPosition::from_request_parts(&mut parts, &app).await {
        Ok(MinPosition(wanted)) => wanted,
        Err(problem) => return problem.into_response(),
    };
    if let Some(position) = wanted
        && let Err(problem) = app.caught_up(Position(position)).await
    {
        return problem.into_response();
    }
    next.run(Request::from_parts(parts, body)).await
}
