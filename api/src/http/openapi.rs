//! What routes share in the OpenAPI document, and the pages that show it.
//!
//! The one rule: a fault that every route of a kind can answer is documented here, once.
//!
//! A route says `responses((status = 200, body = Envelope<Product>), ReadFailures)` and
//! `params(PageParams, MinPositionParam, ProductFilters)`.

use std::collections::BTreeMap;

use axum::Router;
use axum::body::Bytes;
use axum::http::HeaderValue;
use axum::http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE};
use axum::middleware::{Next, from_fn};
use axum::routing::get;
use utoipa::openapi::security::{ApiKey, ApiKeyValue, HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::openapi::{ContentBuilder, Ref, RefOr, Response, ResponseBuilder};
use utoipa::{IntoParams, IntoResponses, Modify, OpenApi};
use utoipa_swagger_ui::{Config, SwaggerUi};

use super::page::Pagination;
use super::problem::{self, Documented, FieldError, ProblemBody};

/// The document that routes are added to: title, credentials, shared schemas.
#[derive(OpenApi)]
#[openapi(
    info(
        title = "Prodgy",
        description = "AI agents of a product: their knowledge, their runs, and the log of \
                       everything that happened.",
    ),
    // Public routes say `security(())`.
    security(("bearer" = []), ("api_token" = [])),
    components(schemas(ProblemBody, FieldError, Pagination)),
    modifiers(&Credentials),
)]
pub struct Document;

struct Credentials;

impl Modify for Credentials {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        let components = document.components.get_or_insert_default();
        let bearer = HttpBuilder::new()
            .scheme(HttpAuthScheme::Bearer)
            .description(Some("The access token of a session, a token of the outside OIDC issuer that is configured, or a `prodgy_…` token"))
            .build();
        let token = ApiKeyValue::with_description("X-API-Token", "A `prodgy_…` token of a product");
        components.add_security_scheme("bearer", SecurityScheme::Http(bearer));
        components.add_security_scheme("api_token", SecurityScheme::ApiKey(ApiKey::Header(token)));
    }
}

/// What every read may answer instead.
pub struct ReadFailures;
/// What every write may answer instead.
pub struct WriteFailures;
/// What a `POST` that changes nothing may answer instead (a search).
pub struct SearchFailures;
/// What a download may answer instead.
pub struct DownloadFailures;
/// What a route without a credential and without a body may answer instead.
pub struct PublicFailures;
/// What a delivery to a webhook may answer instead.
pub struct WebhookFailures;
/// What an activity of the Bot Framework may be answered instead.
pub struct ActivityFailures;
/// What signing in, refreshing and signing out may answer instead.
pub struct SignInFailures;

impl IntoResponses for ReadFailures {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        failures(&READ)
    }
}

impl IntoResponses for WriteFailures {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        failures(&[&READ[..], &BODY, &[Documented::Conflict, Documented::Stale]].concat())
    }
}

impl IntoResponses for SearchFailures {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        failures(&[&READ[..], &BODY].concat())
    }
}

impl IntoResponses for DownloadFailures {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        failures(&[&READ[..], &[Documented::RangeNotSatisfiable]].concat())
    }
}

impl IntoResponses for PublicFailures {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        failures(&[Documented::Malformed, Documented::TooManyRequests, Documented::Unavailable])
    }
}

impl IntoResponses for WebhookFailures {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        failures(&[
            Documented::Malformed,
            Documented::Unauthenticated,
            Documented::NotFound,
            Documented::TooLarge,
            Documented::TooManyRequests,
            Documented::Unavailable,
        ])
    }
}

impl IntoResponses for ActivityFailures {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        failures(&[
            Documented::Malformed,
            Documented::Forbidden,
            Documented::NotFound,
            Documented::TooLarge,
            Documented::TooManyRequests,
            Documented::NotImplemented,
            Documented::Unavailable,
        ])
    }
}

impl IntoResponses for SignInFailures {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        let public = [Documented::Malformed, Documented::TooManyRequests, Documented::Unavailable];
        failures(&[&public[..], &BODY, &[Documented::Unauthenticated]].concat())
    }
}

const READ: [Documented; 6] = [
    Documented::Malformed,
    Documented::Unauthenticated,
    Documented::Forbidden,
    Documented::NotFound,
    Documented::TooManyRequests,
    Documented::Unavailable,
];

const BODY: [Documented; 3] =
    [Documented::TooLarge, Documented::UnsupportedMediaType, Documented::Invalid];

fn failures(kinds: &[Documented]) -> BTreeMap<String, RefOr<Response>> {
    let answer = |kind: &Documented| {
        let (status, meaning) = kind.status_and_meaning();
        let body = ContentBuilder::new().schema(Some(Ref::from_schema_name("Problem"))).build();
        let response =
            ResponseBuilder::new().description(meaning).content(problem::MEDIA_TYPE, body).build();
        (status.as_u16().to_string(), response.into())
    };
    kinds.iter().map(answer).collect()
}

/// The paging parameters of every list.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "only documents what `ListQuery` reads")]
pub struct PageParams {
    /// The number of the page.
    #[param(minimum = 1, default = 1)]
    page: Option<u32>,
    /// Items of a page.
    #[param(rename = "pageSize", minimum = 1, maximum = 200, default = 50)]
    page_size: Option<u32>,
    /// Instead of `page` and `pageSize`: the first so many.
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<u32>,
    /// Instead of `page`: the `cursor` of an earlier answer, to go on after it.
    cursor: Option<String>,
}

/// The header of every `POST` that changes something.
#[derive(IntoParams)]
#[into_params(parameter_in = Header)]
#[expect(dead_code, reason = "only documents what `Idempotency` reads")]
pub struct IdempotencyKeyParam {
    /// Names the change: sent twice, it is made once and answered twice.
    #[param(rename = "Idempotency-Key", min_length = 1, max_length = 255, pattern = "^[!-~]+$")]
    idempotency_key: Option<String>,
}

/// The header of every write to one resource.
#[derive(IntoParams)]
#[into_params(parameter_in = Header)]
#[expect(dead_code, reason = "only documents what `IfMatch` reads")]
pub struct IfMatchParam {
    /// The `ETag` of the state that is meant; another one is answered with 412.
    #[param(rename = "If-Match", example = "\"7\"")]
    if_match: Option<String>,
}

/// The headers of every read.
#[derive(IntoParams)]
#[into_params(parameter_in = Header)]
#[expect(dead_code, reason = "only documents what `MinPosition` reads")]
pub struct MinPositionParam {
    /// Waits until the read models have applied this position.
    #[param(rename = "X-Min-Position", minimum = 0)]
    x_min_position: Option<u64>,
}

/// The header of every read of one resource.
#[derive(IntoParams)]
#[into_params(parameter_in = Header)]
#[expect(dead_code, reason = "only documents what `IfNoneMatch` reads")]
pub struct IfNoneMatchParam {
    /// The `ETag` of the state that the client has; the same one is answered with 304.
    #[param(rename = "If-None-Match", example = "\"7\"")]
    if_none_match: Option<String>,
}

/// The header of every event stream.
#[derive(IntoParams)]
#[into_params(parameter_in = Header)]
#[expect(dead_code, reason = "only documents what `LastEventId` reads")]
pub struct LastEventIdParam {
    /// Goes on after this event.
    #[param(rename = "Last-Event-ID", minimum = 0)]
    last_event_id: Option<u64>,
}

/// The headers of a download.
#[derive(IntoParams)]
#[into_params(parameter_in = Header)]
#[expect(dead_code, reason = "only documents what `AskedRange` reads")]
pub struct RangeParams {
    /// The bytes wanted.
    #[param(rename = "Range", example = "bytes=0-1023")]
    range: Option<String>,
    /// The `ETag` that the range is about; of another state, all is sent.
    #[param(rename = "If-Range")]
    if_range: Option<String>,
}

/// `/swagger.json`.
///
/// # Errors
/// The document cannot be written.
pub fn json<S: Clone + Send + Sync + 'static>(
    document: &utoipa::openapi::OpenApi,
) -> Result<Router<S>, serde_json::Error> {
    let json = Bytes::from(serde_json::to_vec(document)?);
    let served = move || {
        let json = json.clone();
        async move { ([(CONTENT_TYPE, "application/json")], json) }
    };
    Ok(Router::new().route("/swagger.json", get(served)))
}

/// `/swagger`, from the binary's own assets.
pub fn page<S: Clone + Send + Sync + 'static>() -> Router<S> {
    // Its validator is a service elsewhere: it would be told about every instance.
    let config = Config::new(["/swagger.json"])
        .validator_url("none")
        .persist_authorization(true)
        .display_request_duration(true);
    Router::from(SwaggerUi::new("/swagger").config(config)).layer(from_fn(browsable))
}

/// The headers under which Swagger UI works: its own scripts, its inline styles, calls to us.
async fn browsable(request: axum::extract::Request, next: Next) -> axum::response::Response {
    const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; \
         img-src 'self' data:; font-src 'self' data:; connect-src 'self'; base-uri 'none'; \
         form-action 'none'; frame-ancestors 'none'";
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("public, max-age=3600"));
    response
}

#[cfg(test)]
mod tests;
