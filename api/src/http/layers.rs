//! The layers around every route, and the order they stand in.
//!
//! The one rule: the order is written once, in [`dress`]; routes only choose their body limit,
//! their time limit and their rate limit.

use std::time::Duration;

use axum::Router;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::header::{
    ACCEPT, ACCEPT_RANGES, AUTHORIZATION, CACHE_CONTROL, CONTENT_DISPOSITION, CONTENT_LENGTH,
    CONTENT_RANGE, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG, IF_MATCH, IF_NONE_MATCH, IF_RANGE,
    LINK, LOCATION, RANGE, REFERRER_POLICY, RETRY_AFTER, WWW_AUTHENTICATE, X_CONTENT_TYPE_OPTIONS,
    X_FRAME_OPTIONS,
};
use axum::http::{HeaderMap, HeaderValue, Method};
use axum::middleware::Next;
use axum::response::Response;
use tower::ServiceBuilder;
use tower_http::cors::{AllowOrigin, CorsLayer};

use super::around::around;
use super::client::{self, TrustedProxies};
use super::finish::{self, LeftAlone};
use super::header::{
    IDEMPOTENCY_KEY, LAST_EVENT_ID, RATELIMIT_LIMIT, RATELIMIT_REMAINING, RATELIMIT_RESET,
    TRACEPARENT, X_API_TOKEN, X_EVENT_POSITION, X_MIN_POSITION, X_REQUEST_ID,
};
use super::{Problem, linger, problem, request_id};
use crate::metrics;

/// What the layers must be told.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// Origins whose pages may call the API; `*` is every one. None: no CORS headers at all.
    pub cors_origins: Vec<HeaderValue>,
    /// Whose word about the client's address is believed.
    pub trusted_proxies: TrustedProxies,
    /// Where requests go on whose client goes away.
    pub left_alone: LeftAlone,
}

/// Puts a finished router (all routes in, state given) behind the layers that every answer passes.
///
/// From the outside in: what keeps a request going when its client goes away, the request's names, metrics, default headers, CORS, the net that turns
/// plain text into problems, panics, what is left of unread bodies, the client's address.
pub fn dress(router: Router, settings: Settings) -> Router {
    let layers = ServiceBuilder::new()
        .layer(around(settings.left_alone, outside))
        .option_layer(cors(settings.cors_origins))
        .layer(around(settings.trusted_proxies, inside));
    router
        .fallback(problem::no_such_route)
        .method_not_allowed_fallback(problem::method_not_allowed)
        .layer(layers)
}

/// The layers outside of CORS.
async fn outside(State(left_alone): State<LeftAlone>, request: Request, next: Next) -> Response {
    let headed = |request| default_headers(request, |request| next.run(request));
    let measured = |request| metrics::measure(request, headed);
    let named = |request| request_id::establish(request, measured);
    finish::to_the_end(&left_alone, request, named).await
}

/// The layers inside of CORS.
async fn inside(State(proxies): State<TrustedProxies>, request: Request, next: Next) -> Response {
    let located = |request| client::find_address(&proxies, request, |request| next.run(request));
    let lingering = |request| linger::read_to_the_end(request, located);
    let caught = |request| problem::catch_panics(request, lingering);
    problem::only_problems(request, caught).await
}

/// How many bytes of body a route takes, and for how long it waits for them; read back by the
/// extractors.
#[derive(Clone, Copy, Debug)]
pub struct BodyLimit {
    bytes: usize,
    within: Duration,
}

impl BodyLimit {
    /// So many bytes, within so long.
    pub fn new(bytes: usize, within: Duration) -> Self {
        BodyLimit { bytes, within }
    }

    /// Sets the limit of a request. The last one counts.
    pub fn set(self, request: &mut Request) {
        DefaultBodyLimit::max(self.bytes).apply(request);
        request.extensions_mut().insert(self);
    }

    /// The limit of the route that this request reached.
    pub(super) fn of(request: &Request) -> Self {
        // Without a layer of ours axum's own limit holds, which is 2 MiB.
        let without = BodyLimit::new(2 * 1024 * 1024, Duration::MAX);
        request.extensions().get().copied().unwrap_or(without)
    }

    /// Refuses a body that says it is too long, before a byte of it is read.
    pub fn check_announced(self, headers: &HeaderMap) -> Result<(), Problem> {
        let announced = headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok());
        match announced.and_then(|text| text.parse::<u64>().ok()) {
            Some(length) if length > self.bytes as u64 => Err(self.exceeded()),
            _ => Ok(()),
        }
    }

    /// Waits for a whole body, as long as the limit says: nobody else may be waiting by then.
    pub async fn wait<T>(self, body: impl Future<Output = T>) -> Result<T, Problem> {
        let whole = tokio::time::timeout(self.within, body).await;
        whole.map_err(|_| Problem::timed_out(self.within))
    }

    /// The problem of a body that turned out too long.
    pub fn exceeded(self) -> Problem {
        Problem::too_large(self.bytes)
    }
}

/// Headers for every answer that does not say otherwise: nothing is sniffed, framed, run or kept.
async fn default_headers(
    request: Request,
    next: impl AsyncFnOnce(Request) -> Response,
) -> Response {
    let defaults = [
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (X_FRAME_OPTIONS, "DENY"),
        (REFERRER_POLICY, "no-referrer"),
        (CONTENT_SECURITY_POLICY, "default-src 'none'; frame-ancestors 'none'"),
        // A browser may keep an answer, but asks with its ETag before it uses it again.
        (CACHE_CONTROL, "private, no-cache"),
    ];
    let mut response = next(request).await;
    for (name, value) in defaults {
        response.headers_mut().entry(name).or_insert(HeaderValue::from_static(value));
    }
    response
}

fn cors(origins: Vec<HeaderValue>) -> Option<CorsLayer> {
    if origins.is_empty() {
        return None;
    }
    let allowed = if origins.iter().any(|origin| origin == "*") {
        AllowOrigin::any()
    } else {
        AllowOrigin::list(origins)
    };
    // No `allow_credentials`: a credential of ours is a header that the page sets, never a cookie.
    let layer = CorsLayer::new()
        .allow_origin(allowed)
        .allow_methods([Method::GET, Method::POST, Method::PUT, Method::PATCH, Method::DELETE])
        .allow_headers([
            ACCEPT,
            AUTHORIZATION,
            CONTENT_TYPE,
            IDEMPOTENCY_KEY,
            IF_MATCH,
            IF_NONE_MATCH,
            IF_RANGE,
            LAST_EVENT_ID,
            RANGE,
            TRACEPARENT,
            X_API_TOKEN,
            X_MIN_POSITION,
            X_REQUEST_ID,
        ])
        .expose_headers([
            ACCEPT_RANGES,
            CONTENT_DISPOSITION,
            CONTENT_RANGE,
            ETAG,
            LINK,
            LOCATION,
            RATELIMIT_LIMIT,
            RATELIMIT_REMAINING,
            RATELIMIT_RESET,
            RETRY_AFTER,
            TRACEPARENT,
            WWW_AUTHENTICATE,
            X_EVENT_POSITION,
            X_REQUEST_ID,
        ])
        .max_age(Duration::from_secs(3600));
    Some(layer)
}

#[cfg(test)]
mod tests;
