//! What the tests of this folder share: one request to a router, and its answer.

use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, HeaderName, Request, StatusCode};
use http_body_util::BodyExt;
use serde_json::Value;
use tower::ServiceExt;

use super::layers::BodyLimit;

/// A layer of a function like those that [`super::layers::dress`] nests, which may look at a value.
macro_rules! layer {
    ($function:path) => {
        axum::middleware::from_fn(
            async |request: axum::extract::Request, next: axum::middleware::Next| {
                $function(request, |request| next.run(request)).await
            },
        )
    };
    ($function:path, $value:expr) => {{
        let value = $value;
        axum::middleware::from_fn(
            move |request: axum::extract::Request, next: axum::middleware::Next| {
                let value = value.clone();
                async move { $function(&value, request, |request| next.run(request)).await }
            },
        )
    }};
}
pub(crate) use layer;

/// Routes whose bodies are so long at most.
pub fn bounded(routes: Router, bytes: usize) -> Router {
    let limit = BodyLimit::new(bytes, Duration::MAX);
    routes.layer(axum::middleware::map_request(move |mut request: Request<Body>| {
        limit.set(&mut request);
        std::future::ready(request)
    }))
}

/// An answer, read to its end.
#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Answer {
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).expect("the body should be JSON")
    }

    pub fn header(&self, name: impl Into<HeaderName>) -> &str {
        let name = name.into();
        match self.headers.get(&name) {
            Some(value) => value.to_str().expect("the header should be text"),
            None => panic!("{name} is missing in {:?}", self.headers),
        }
    }

    /// Asserts that this is a problem of this status and code, and returns its body.
    #[track_caller]
    pub fn problem(&self, status: u16, code: &str) -> Value {
        assert_eq!(self.status.as_u16(), status, "{self:?}");
        assert_eq!(
            self.header("content-type".parse::<HeaderName>().expect("a name")),
            "application/problem+json"
        );
        let body = self.json();
        assert_eq!(body["error"], code, "{body}");
        assert_eq!(body["success"], false);
        assert_eq!(body["status"], status);
        assert_eq!(body["type"], "about:blank");
        assert_eq!(body["message"], body["detail"]);
        assert!(body["message"].as_str().is_some_and(|text| text.len() > 10), "{body}");
        body
    }

    /// The one fault of a problem: its field and its code.
    #[track_caller]
    pub fn fault(&self) -> (String, String) {
        let body = self.json();
        let errors = body["errors"].as_array().expect("errors should be a list");
        assert_eq!(errors.len(), 1, "{body}");
        let text = |name: &str| errors[0][name].as_str().expect("should be text").to_owned();
        (text("field"), text("code"))
    }
}

/// Sends one request through a router.
pub async fn send(router: &Router, request: Request<Body>) -> Answer {
    let response = router.clone().oneshot(request).await.expect("a router never fails");
    let (parts, body) = response.into_parts();
    let body = body.collect().await.expect("the body should end well").to_bytes();
    Answer { status: parts.status, headers: parts.headers, body }
}

/// A request without a body.
pub fn get(uri: &str) -> Request<Body> {
    Request::get(uri).body(Body::empty()).expect("the test's request is well formed")
}

/// The same request with one more header.
pub fn with(mut request: Request<Body>, name: &'static str, value: &str) -> Request<Body> {
    request.headers_mut().append(name, value.parse().expect("a header value"));
    request
}

/// A POST with a JSON body.
pub fn post_json(uri: &str, body: impl Into<Body>) -> Request<Body> {
    let request = Request::post(uri).header("content-type", "application/json").body(body.into());
    request.expect("the test's request is well formed")
}

/// Lets a router believe that its requests come from `127.0.0.1`, as over a socket.
pub fn local(router: Router) -> Router {
    let peer = std::net::SocketAddr::from(([127, 0, 0, 1], 40_000));
    router.layer(axum::Extension(axum::extract::ConnectInfo(peer)))
}
