//! Failures as the outside sees them: `application/problem+json` (RFC 9457) that also carries the
//! envelope of the contract.
//!
//! The one rule: this is the only file that knows the status code of a failure.
//!
//! `type` is always `about:blank` and `title` the name of the status, as RFC 9457 asks of problems
//! that have no page of their own; what a program tells apart is `error`. `detail` and `message`
//! are the same sentence, which says what to do next. `request_id` comes from the request being
//! answered (see [`request_id`]), so no handler passes it along.

use std::any::Any;
use std::borrow::Cow;
use std::error::Error;
use std::panic::AssertUnwindSafe;
use std::time::Duration;

use axum::extract::Request;
use axum::http::header::{
    CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE,
};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use futures::FutureExt;
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use super::request_id;

/// The media type of every failure.
pub const MEDIA_TYPE: &str = "application/problem+json";

/// A failure on its way to the client.
///
/// Boxed inside, so that a `Result` with it stays small on the good path.
#[derive(Clone, Debug, PartialEq)]
pub struct Problem(Box<Parts>);

#[derive(Clone, Debug, PartialEq)]
struct Parts {
    status: StatusCode,
    code: &'static str,
    detail: Cow<'static, str>,
    errors: Vec<FieldError>,
    headers: HeaderMap,
    /// What is recorded in the place of `code`.
    recorded: Option<&'static str>,
    aim: Option<Aim>,
}

/// One fault of one place in a request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct FieldError {
    /// JSON pointer to the place: into the body, or `/name` for a parameter.
    #[schema(example = "/name")]
    pub field: String,
    /// What is wrong, for programs.
    #[schema(value_type = String, example = "missing")]
    pub code: Cow<'static, str>,
    /// What is wrong, for people.
    pub message: String,
}

/// The body of every failure.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Problem)]
pub struct ProblemBody {
    /// Always `false`.
    success: bool,
    /// What went wrong, for programs.
    #[schema(value_type = String, example = "product_not_found")]
    error: &'static str,
    /// What went wrong and what to do about it, for people.
    message: String,
    /// Always `about:blank`: `error` is what tells problems apart.
    #[schema(value_type = String, example = "about:blank")]
    r#type: &'static str,
    /// The name of the status.
    #[schema(value_type = String, example = "Not Found")]
    title: &'static str,
    /// The status of the answer.
    #[schema(minimum = 400, maximum = 599, example = 404)]
    status: u16,
    /// The same as `message`.
    detail: String,
    /// Names this request in the logs; also in `X-Request-Id`.
    request_id: String,
    /// The places of the request that are at fault, when there are such.
    errors: Vec<FieldError>,
}

/// Left in the extensions of a failed answer, for those who record what was rejected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rejection {
    /// The problem's `error`, or what is recorded in its place.
    pub code: &'static str,
    /// What the request was aimed at, where its path does not say.
    pub aim: Option<Aim>,
}

/// What a request without a credential was aimed at, as its handler found: for the record alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Aim {
    /// The product, where there is one.
    pub product: Option<Uuid>,
    /// The kind of resource, and its id.
    pub resource: (&'static str, Uuid),
}

impl FieldError {
    /// A fault at a JSON pointer.
    pub fn new(
        field: impl Into<String>,
        code: impl Into<Cow<'static, str>>,
        message: impl Into<String>,
    ) -> Self {
        FieldError { field: field.into(), code: code.into(), message: message.into() }
    }
}

/// One constructor for each kind of failure. `code` is for programs, `detail` says what to do next.
impl Problem {
    fn new(status: StatusCode, code: &'static str, detail: impl Into<Cow<'static, str>>) -> Self {
        Problem(Box::new(Parts {
            status,
            code,
            detail: detail.into(),
            errors: Vec::new(),
            headers: HeaderMap::new(),
            recorded: None,
            aim: None,
        }))
    }

    /// The request cannot be read (400).
    pub fn malformed(code: &'static str, detail: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, code, detail)
    }

    /// There is no credential, or a bad one (401).
    pub fn unauthenticated(code: &'static str, detail: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, code, detail).with_header(
            WWW_AUTHENTICATE,
            HeaderValue::from_static("Bearer realm=\"prodgy\", charset=\"UTF-8\""),
        )
    }

    /// The credential is good but may not do this (403).
    pub fn forbidden(code: &'static str, detail: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::FORBIDDEN, code, detail)
    }

    /// Nobody here can do that (501).
    pub fn not_implemented(code: &'static str, detail: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::NOT_IMPLEMENTED, code, detail)
    }

    /// There is no such thing, or it is not yours (404).
    pub fn not_found(code: &'static str, detail: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::NOT_FOUND, code, detail)
    }

    /// No route has this path (404).
    pub fn no_such_route() -> Self {
        Self::not_found(
            "route_not_found",
            "no route has this path; /swagger lists those that there are",
        )
    }

    /// The path is right, the method is not (405). The router adds `Allow`.
    pub fn method_not_allowed() -> Self {
        Self::new(
            StatusCode::METHOD_NOT_ALLOWED,
            "method_not_allowed",
            "this path does not answer this method; the Allow header names those that it answers",
        )
    }

    /// What is there contradicts what is asked (409).
    pub fn conflict(code: &'static str, detail: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::CONFLICT, code, detail)
    }

    /// `If-Match` names a state that is no longer there (412).
    pub fn stale() -> Self {
        Self::new(
            StatusCode::PRECONDITION_FAILED,
            "stale",
            "it has changed since; read it again and send the ETag of that answer in If-Match",
        )
    }

    /// The body is longer than this route takes (413).
    pub fn too_large(limit_bytes: usize) -> Self {
        Self::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            "too_large",
            format!("the body is longer than the {limit_bytes} bytes that are taken here"),
        )
    }

    /// The body broke off (400).
    pub fn incomplete_body() -> Self {
        Self::malformed("incomplete_body", "the body ended before it was complete")
    }

    /// The body is of a media type that this route does not read (415).
    pub fn unsupported_media_type(detail: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", detail)
    }

    /// No byte of the range is there (416).
    pub fn range_not_satisfiable(size: u64) -> Self {
        Self::new(
            StatusCode::RANGE_NOT_SATISFIABLE,
            "range_not_satisfiable",
            format!("there are {size} bytes, and the range asked for begins after them"),
        )
        .with_header(CONTENT_RANGE, number_header(format_args!("bytes */{size}")))
    }

    /// Well formed, but not valid (422).
    pub fn invalid(code: &'static str, detail: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, code, detail)
    }

    /// More requests than the limit lets through (429).
    pub fn too_many_requests(retry_after: Duration) -> Self {
        let seconds = whole_seconds(retry_after);
        Self::new(
            StatusCode::TOO_MANY_REQUESTS,
            "rate_limited",
            format!("too many requests; try again in {seconds} s"),
        )
        .with_header(RETRY_AFTER, HeaderValue::from(seconds))
    }

    /// Machinery failed (500). The cause is logged here, once; the client only hears `internal`.
    pub fn internal(cause: &(dyn Error + 'static)) -> Self {
        let mut causes = cause.to_string();
        let mut source = cause.source();
        while let Some(inner) = source {
            causes.push_str(": ");
            causes.push_str(&inner.to_string());
            source = inner.source();
        }
        Self::bug(&causes)
    }

    /// Something that cannot happen did (500). `what` is logged here, once.
    pub fn bug(what: &str) -> Self {
        let request_id = request_id::current();
        tracing::error!(
            request_id = request_id.as_deref().unwrap_or_default(),
            cause = what,
            "request failed"
        );
        Self::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "internal",
            "something failed here and was logged; try again, or give the operator the request_id",
        )
    }

    /// Not ready for this yet, or not able to do it now (503).
    pub fn unavailable(
        code: &'static str,
        detail: impl Into<Cow<'static, str>>,
        retry_after: Duration,
    ) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, code, detail)
            .with_header(RETRY_AFTER, HeaderValue::from(whole_seconds(retry_after)))
    }

    /// The answer took longer than this route may take (503).
    pub fn timed_out(limit: Duration) -> Self {
        let detail = format!(
            "no answer within {} s; a change may still have been made: repeat it with the same \
             Idempotency-Key",
            limit.as_secs_f64()
        );
        Self::unavailable("timed_out", detail, Duration::from_secs(1))
    }

    /// Adds the fault of one place.
    #[must_use]
    pub fn with_error(mut self, error: FieldError) -> Self {
        self.0.errors.push(error);
        self
    }

    /// Adds the faults of several places.
    #[must_use]
    pub fn with_errors(mut self, errors: impl IntoIterator<Item = FieldError>) -> Self {
        self.0.errors.extend(errors);
        self
    }

    /// Adds a header to the answer.
    #[must_use]
    pub fn with_header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.0.headers.append(name, value);
        self
    }

    /// Says more to those who record what was rejected than to the client.
    #[must_use]
    pub fn recorded_as(mut self, code: &'static str) -> Self {
        self.0.recorded = Some(code);
        self
    }

    /// Says to those who record what was rejected, and to nobody else, what the request was aimed at.
    #[must_use]
    pub fn aimed_at(mut self, aim: Aim) -> Self {
        self.0.aim = Some(aim);
        self
    }

    /// The problem's `error`.
    pub fn code(&self) -> &'static str {
        self.0.code
    }

    /// The status of the answer.
    pub fn status(&self) -> StatusCode {
        self.0.status
    }

    /// What went wrong, for people.
    pub fn detail(&self) -> &str {
        &self.0.detail
    }

    /// The places at fault.
    pub fn errors(&self) -> &[FieldError] {
        &self.0.errors
    }

    /// The body of the answer, for those who send it by other means (an event of a stream).
    pub fn body(&self) -> ProblemBody {
        ProblemBody {
            success: false,
            error: self.0.code,
            message: self.0.detail.to_string(),
            r#type: "about:blank",
            title: self.0.status.canonical_reason().unwrap_or("Error"),
            status: self.0.status.as_u16(),
            detail: self.0.detail.to_string(),
            request_id: request_id::current().as_deref().unwrap_or_default().to_owned(),
            errors: self.0.errors.clone(),
        }
    }
}

impl std::fmt::Display for Problem {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{}: {}", self.0.code, self.0.detail)
    }
}

impl Error for Problem {}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let body = serde_json::to_vec(&self.body()).expect("a problem is text and numbers");
        let rejection = Rejection { code: self.0.recorded.unwrap_or(self.0.code), aim: self.0.aim };
        let mut response = (self.0.status, self.0.headers, body).into_response();
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(MEDIA_TYPE));
        response.extensions_mut().insert(rejection);
        response
    }
}

/// The kinds of failure that a route may document, with what each means to a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Documented {
    /// 400
    Malformed,
    /// 401
    Unauthenticated,
    /// 403
    Forbidden,
    /// 404
    NotFound,
    /// 409
    Conflict,
    /// 412
    Stale,
    /// 413
    TooLarge,
    /// 501.
    NotImplemented,
    /// 415
    UnsupportedMediaType,
    /// 416
    RangeNotSatisfiable,
    /// 422
    Invalid,
    /// 429
    TooManyRequests,
    /// 503
    Unavailable,
}

impl Documented {
    /// The status and what it means, for the OpenAPI document.
    pub fn status_and_meaning(self) -> (StatusCode, &'static str) {
        match self {
            Self::Malformed => (StatusCode::BAD_REQUEST, "The request cannot be read"),
            Self::Unauthenticated => (StatusCode::UNAUTHORIZED, "No credential, or a bad one"),
            Self::Forbidden => (StatusCode::FORBIDDEN, "The credential may not do this"),
            Self::NotFound => (StatusCode::NOT_FOUND, "Not found, or not yours"),
            Self::Conflict => (StatusCode::CONFLICT, "What is there contradicts what is asked"),
            Self::Stale => (StatusCode::PRECONDITION_FAILED, "If-Match names an older state"),
            Self::TooLarge => (StatusCode::PAYLOAD_TOO_LARGE, "The body is too long"),
            Self::NotImplemented => (StatusCode::NOT_IMPLEMENTED, "Nobody here can do that"),
            Self::UnsupportedMediaType => {
                (StatusCode::UNSUPPORTED_MEDIA_TYPE, "The body is of another media type")
            }
            Self::RangeNotSatisfiable => {
                (StatusCode::RANGE_NOT_SATISFIABLE, "No byte of the range is there")
            }
            Self::Invalid => (StatusCode::UNPROCESSABLE_ENTITY, "Well formed, but not valid"),
            Self::TooManyRequests => (StatusCode::TOO_MANY_REQUESTS, "Too many requests"),
            Self::Unavailable => (StatusCode::SERVICE_UNAVAILABLE, "Not ready, or took too long"),
        }
    }
}

/// Answers paths that no route has; for `Router::fallback`.
pub async fn no_such_route() -> Problem {
    Problem::no_such_route()
}

/// Answers methods that a path does not have; for `Router::method_not_allowed_fallback`.
pub async fn method_not_allowed() -> Problem {
    Problem::method_not_allowed()
}

/// The layer that turns panics into problems. The panic hook has already written where it happened.
pub async fn catch_panics(
    request: Request,
    next: impl AsyncFnOnce(Request) -> Response,
) -> Response {
    // Nothing of what panicked is looked at again.
    match AssertUnwindSafe(next(request)).catch_unwind().await {
        Ok(response) => response,
        Err(panic) => {
            Problem::bug(&format!("panicked: {}", said_by(panic.as_ref()))).into_response()
        }
    }
}

fn said_by(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref().copied()).unwrap_or("a value that is not text")
}

/// The net below everything: a failure that some library wrote as plain text leaves as a problem.
pub async fn only_problems(
    request: Request,
    next: impl AsyncFnOnce(Request) -> Response,
) -> Response {
    let response = next(request).await;
    let status = response.status();
    if !(status.is_client_error() || status.is_server_error()) || is_json(response.headers()) {
        return response;
    }
    let mut problem = match status {
        StatusCode::NOT_FOUND => Problem::no_such_route(),
        StatusCode::METHOD_NOT_ALLOWED => Problem::method_not_allowed(),
        StatusCode::PAYLOAD_TOO_LARGE => {
            Problem::new(status, "too_large", "the body is longer than is taken here")
        }
        StatusCode::INTERNAL_SERVER_ERROR => Problem::bug("a library answered with a failure"),
        other => Problem::new(other, "rejected", "the request was rejected before it was read"),
    };
    for (name, value) in response.headers() {
        if name != CONTENT_TYPE && name != CONTENT_LENGTH {
            problem = problem.with_header(name.clone(), value.clone());
        }
    }
    problem.into_response()
}

fn is_json(headers: &HeaderMap) -> bool {
    let media_type = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
    media_type.is_some_and(|media_type| {
        media_type.starts_with(MEDIA_TYPE) || media_type.starts_with("application/json")
    })
}

/// Rounded up, and never nothing: a client that waits so long finds the door open.
fn whole_seconds(duration: Duration) -> u64 {
    duration.as_nanos().div_ceil(1_000_000_000).max(1).try_into().unwrap_or(u64::MAX)
}

fn number_header(text: std::fmt::Arguments<'_>) -> HeaderValue {
    HeaderValue::try_from(text.to_string()).expect("made of ASCII words and numbers")
}

/// Whether a library says that a body is too long.
pub(super) fn means_too_large(status: StatusCode) -> bool {
    status == StatusCode::PAYLOAD_TOO_LARGE
}

/// Whether an answer says that the credential was bad, or missing.
pub(super) fn is_bad_credential(response: &Response) -> bool {
    response.status() == StatusCode::UNAUTHORIZED
}

#[cfg(test)]
mod tests;
