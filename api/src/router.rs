//! Every route, and the layers around groups of them.
//!
//! The rule of this file: a route is in the OpenAPI document or it does not exist.

use std::sync::Arc;
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
use crate::http::layers::{self, BodyLimit, Settings};
use crate::http::openapi::{self, Document};
use crate::http::problem::catch_panics;
use crate::http::rate_limit::{self, RateLimit};
use crate::metrics::{Metrics, Standings};
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

/// The routes that may take as long as the client's line, but for uploads: downloads, streams.
fn long() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .merge(file::long_router())
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
        .merge(file::upload_router())
        .merge(long())
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
    let time = TimeLimit { limit: dress.timeout, left_alone: dress.settings.left_alone.clone() };
    let long_way = Way {
        app: app.clone(),
        gate: gate.clone(),
        is_openai: false,
        limit: dress.limit,
        body: Some(BodyLimit::new(dress.body_limit, dress.timeout)),
        time: None,
    };
    let way = Way { time: Some(time), ..long_way.clone() };
    let upload_limit = usize::try_from(app.upload_limit).unwrap_or(usize::MAX);
    let uploads = BodyLimit::new(upload_limit, Duration::MAX);
    // How many of theirs are taken, and how long they may be, is known where it is known whom they are for.
    let door = Way { limit: None, body: None, ..way.clone() };
    let behind = |routes: OpenApiRouter<App>, way: Way| {
        let (routes, _) = routes.split_for_parts();
        routes.layer(around(Arc::new(way), walk))
    };
    let api = behind(ordinary(), way.clone())
        .merge(behind(long(), long_way.clone()))
        .merge(behind(file::upload_router(), Way { body: Some(uploads), ..long_way.clone() }))
        .merge(behind(openai::router(), Way { is_openai: true, ..long_way }))
        .merge(behind(webhook::router(), door.clone()))
        .merge(behind(communicator::router(), door))
        .merge(behind(session::sign_in_router(), Way { limit: dress.sign_in_limit, ..way }));
    let (service, _) = service::router().split_for_parts();
    let (metrics, standings, shown) = (dress.metrics.clone(), Standings::default(), app.clone());
    let render = get(move || async move {
        standings.tell(&admin::statuses(&shown));
        metrics.render()
    });
    let whole = api
        .merge(service.layer(around((app.clone(), gate), gated)))
        .route("/metrics", render.layer(from_fn(gate::without_parameters)))
        .merge(openapi::json(&document)?.layer(from_fn(gate::without_parameters)))
        .merge(openapi::page())
        .with_state(app);
    Ok(layers::dress(whole, dress.settings))
}

/// What stands between the layers of all routes and those of one kind.
#[derive(Clone)]
struct Way {
    app: App,
    gate: Gate,
    /// Failures are said as OpenAI says them.
    is_openai: bool,
    limit: Option<RateLimit>,
    body: Option<BodyLimit>,
    time: Option<TimeLimit>,
}

/// The layer of a kind of routes: a request is remembered, however it ends, worded, limited, bounded, timed, and
/// let in when the read models are where it wants them.
async fn walk(State(way): State<Arc<Way>>, request: Request, next: Next) -> Response {
    let caught = |request| catch_panics(request, |request| way.worded(request, next));
    remember(&way.app, request, caught).await
}

impl Way {
    /// Around all that may refuse: a failure there has another form.
    async fn worded(self: &Arc<Way>, request: Request, next: Next) -> Response {
        match self.is_openai {
            true => openai::in_their_words(request, |request| self.limited(request, next)).await,
            false => self.limited(request, next).await,
        }
    }

    async fn limited(self: &Arc<Way>, mut request: Request, next: Next) -> Response {
        if let Some(body) = self.body {
            body.set(&mut request);
        }
        match &self.limit {
            Some(limit) => {
                rate_limit::enforce(limit, request, |request| self.timed(request, next)).await
            }
            None => self.timed(request, next).await,
        }
    }

    async fn timed(self: &Arc<Way>, request: Request, next: Next) -> Response {
        let admitted = |request| self.clone().admitted(request, next);
        match &self.time {
            Some(time) => within(time, request, admitted).await,
            None => admitted(request).await,
        }
    }

    async fn admitted(self: Arc<Way>, request: Request, next: Next) -> Response {
        let inside =
            |request| gate::pass(&self.app, &self.gate, request, |request| next.run(request));
        wait_for_position(&self.app, request, inside).await
    }
}

/// The layer of routes that are let in and no more.
async fn gated(State((app, gate)): State<(App, Gate)>, request: Request, next: Next) -> Response {
    gate::pass(&app, &gate, request, |request| next.run(request)).await
}

/// `X-Min-Position`: waits until the read models have taken that position in.
async fn wait_for_position(
    app: &App,
    request: Request,
    next: impl AsyncFnOnce(Request) -> Response,
) -> Response {
    let (mut parts, body) = request.into_parts();
    let wanted = match MinPosition::from_request_parts(&mut parts, app).await {
        Ok(MinPosition(wanted)) => wanted,
        Err(problem) => return problem.into_response(),
    };
    if let Some(position) = wanted
        && let Err(problem) = app.caught_up(Position(position)).await
    {
        return problem.into_response();
    }
    next(Request::from_parts(parts, body)).await
}

#[cfg(test)]
mod tests;
