//! The names of the headers that the contract adds to those of HTTP.
//!
//! The one rule: a header's name is spelled here and nowhere else.

use axum::http::HeaderName;

/// A product's token, for clients that keep `Authorization` for something else.
pub const X_API_TOKEN: HeaderName = HeaderName::from_static("x-api-token");
/// The position in the log that an answer to a write has reached.
pub const X_EVENT_POSITION: HeaderName = HeaderName::from_static("x-event-position");
/// The position that a read wants to see applied before it is answered.
pub const X_MIN_POSITION: HeaderName = HeaderName::from_static("x-min-position");
/// The name of one request, taken from the client or made here.
pub const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// The trace a request belongs to (W3C Trace Context).
pub const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
/// The client's name for one intended change.
pub const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
/// Where a cut-off event stream goes on.
pub const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");
/// The addresses a request came through, as most proxies write them.
pub const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
/// Requests that a window lets through.
pub const RATELIMIT_LIMIT: HeaderName = HeaderName::from_static("ratelimit-limit");
/// Requests that are left now.
pub const RATELIMIT_REMAINING: HeaderName = HeaderName::from_static("ratelimit-remaining");
/// Seconds until the whole limit is there again.
pub const RATELIMIT_RESET: HeaderName = HeaderName::from_static("ratelimit-reset");
