//! Who a request is: its id, the trace it belongs to, the correlation of what it causes.
//!
//! The one rule: a value of the client is taken whole when it is valid, and never repeated when it
//! is not.
//!
//! `traceparent` is passed on as it came: we export no spans, so a parent of our own would name one
//! that nobody recorded. When the client sends neither header, one UUIDv7 is all three names.

use std::cell::Cell;
use std::sync::Arc;
use std::time::Instant;

use axum::extract::{FromRequestParts, Request};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::response::Response;
use tracing::Instrument;
use uuid::Uuid;

use super::Problem;
use super::header::{TRACEPARENT, X_REQUEST_ID};
use crate::shown_path::ShownPath;

tokio::task_local! {
    static CURRENT: Arc<str>;
}

/// The names of the request being answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestContext {
    /// `X-Request-Id`: the client's, or a new UUIDv7.
    pub request_id: Arc<str>,
    /// `traceparent`: the client's, or a new trace.
    pub traceparent: Arc<str>,
    /// The trace as an id: everything that one trace causes shares it.
    pub correlation: Uuid,
}

impl RequestContext {
    /// Reads the names that a client sent, and makes those that it did not send or sent badly.
    pub fn from_headers(headers: &HeaderMap) -> Self {
        let fresh = Cell::new(None);
        let made = || {
            fresh.get().unwrap_or_else(|| {
                let id = Uuid::now_v7();
                fresh.set(Some(id));
                id
            })
        };
        let request_id = match only_value(headers, &X_REQUEST_ID).filter(|id| is_request_id(id)) {
            Some(id) => id.into(),
            None => made().to_string().into(),
        };
        let (traceparent, correlation) = match only_value(headers, &TRACEPARENT)
            .and_then(|text| Some((text, trace_id(text)?)))
        {
            Some((text, trace)) => (text.into(), Uuid::new_v8(trace)),
            None => (new_traceparent(made()).into(), made()),
        };
        RequestContext { request_id, traceparent, correlation }
    }
}

impl<S: Send + Sync> FromRequestParts<S> for RequestContext {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let context = parts.extensions.get::<RequestContext>().cloned();
        context.ok_or_else(|| Problem::bug("the request has no context: is the layer missing?"))
    }
}

/// The id of the request that this task is answering, if it is answering one.
pub fn current() -> Option<Arc<str>> {
    CURRENT.try_with(Arc::clone).ok()
}

/// Runs `work` as part of the named request: problems made in it carry the id.
pub async fn scope<F: Future>(request_id: Arc<str>, work: F) -> F::Output {
    CURRENT.scope(request_id, work).await
}

/// Runs `work`, which does not wait, as part of the named request.
pub fn scope_sync<T>(request_id: Arc<str>, work: impl FnOnce() -> T) -> T {
    CURRENT.sync_scope(request_id, work)
}

/// The outermost layer: names the request, opens its span, returns the names in the answer.
///
/// The span and the line at the end hold no query string, no body, no header but the id, and of the path
/// what `ShownPath` shows.
pub async fn establish(
    mut request: Request,
    next: impl AsyncFnOnce(Request) -> Response,
) -> Response {
    let started = Instant::now();
    let context = RequestContext::from_headers(request.headers());
    let span = tracing::info_span!(
        "request",
        method = %request.method(),
        path = %ShownPath::of(&request),
        request_id = &*context.request_id,
    );
    request.extensions_mut().insert(context.clone());

    let answer = async {
        let mut response = next(request).await;
        let headers = response.headers_mut();
        headers.insert(X_REQUEST_ID, visible(&context.request_id));
        headers.insert(TRACEPARENT, visible(&context.traceparent));

        let status = response.status();
        let (code, latency_us) = (status.as_u16(), started.elapsed().as_micros() as u64);
        if status.is_server_error() {
            tracing::warn!(status = code, latency_us, "request answered");
        } else if status.is_client_error() && status != StatusCode::TOO_MANY_REQUESTS {
            // A flood is counted by the metrics: a line for each would fill the disk.
            tracing::info!(status = code, latency_us, "request answered");
        } else {
            tracing::debug!(status = code, latency_us, "request answered");
        }
        response
    };
    scope(context.request_id.clone(), answer.instrument(span)).await
}

/// The value of a header that is there exactly once and is text.
fn only_value<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    let mut values = headers.get_all(name).iter();
    let value = values.next()?;
    if values.next().is_some() { None } else { value.to_str().ok() }
}

fn is_request_id(text: &str) -> bool {
    (1..=128).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic())
}

/// The trace id of a valid `traceparent` (W3C Trace Context, version 00 and its successors).
fn trace_id(text: &str) -> Option<[u8; 16]> {
    let is_hex = |part: &str| part.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    let mut fields = text.splitn(5, '-');
    let (version, trace) = (fields.next()?, fields.next()?);
    let (parent, flags, rest) = (fields.next()?, fields.next()?, fields.next());
    let well_formed = (version.len(), trace.len(), parent.len(), flags.len()) == (2, 32, 16, 2)
        && [version, trace, parent, flags].into_iter().all(is_hex)
        && version != "ff"
        // Later versions may add fields, ours may not; and a header of ours must stay short.
        && (version != "00" || rest.is_none())
        && text.len() <= 256
        && text.bytes().all(|byte| byte.is_ascii_graphic());
    if !well_formed || parent.bytes().all(|byte| byte == b'0') {
        return None;
    }
    let trace = u128::from_str_radix(trace, 16).ok()?;
    (trace != 0).then(|| trace.to_be_bytes())
}

/// A trace that begins here: its id is the UUID, its parent the random half of it, not sampled.
fn new_traceparent(id: Uuid) -> String {
    let (_, random_half) = id.as_u64_pair();
    format!("00-{}-{random_half:016x}-00", id.simple())
}

fn visible(text: &str) -> HeaderValue {
    HeaderValue::try_from(text).expect("checked to be visible ASCII when it was taken")
}

#[cfg(test)]
mod tests;
