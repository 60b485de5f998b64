//! The layers around every route.

use axum::body::{Body, Bytes};
use axum::http::Request;
use axum::http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS,
};
use axum::routing::{get, post};

use super::*;
use crate::http::finish::{TimeLimit, within};
use crate::http::testing::{self, bounded, layer, local, send, with};

fn time_limit() -> TimeLimit {
    TimeLimit { limit: Duration::from_millis(50), left_alone: LeftAlone::default() }
}

fn app(settings: Settings) -> Router {
    let read = async |body: Bytes| body.len().to_string();
    let small = bounded(Router::new().route("/small", post(read)), 10);
    let large = bounded(Router::new().route("/large", post(read)), 100);
    let slow = Router::new()
        .route("/slow", get(async || tokio::time::sleep(Duration::from_secs(60)).await))
        .route("/quick", get(async || "quick"))
        .layer(layer!(within, time_limit()));
    let own = async || ([(CACHE_CONTROL, "no-store")], "secret");
    let all = bounded(small.merge(large).merge(slow).route("/own", get(own)), 50);
    local(dress(all, settings))
}

#[tokio::test]
async fn nothing_is_sniffed_framed_or_kept() {
    let answer = send(&app(Settings::default()), testing::get("/quick")).await;

    assert_eq!(answer.header(X_CONTENT_TYPE_OPTIONS), "nosniff");
    assert_eq!(answer.header(X_FRAME_OPTIONS), "DENY");
    assert_eq!(answer.header(CACHE_CONTROL), "private, no-cache");
    assert!(answer.header(CONTENT_SECURITY_POLICY).contains("frame-ancestors 'none'"));
}

#[tokio::test]
async fn an_answer_may_say_otherwise() {
    let answer = send(&app(Settings::default()), testing::get("/own")).await;

    assert_eq!(answer.header(CACHE_CONTROL), "no-store");
}

#[tokio::test]
async fn the_innermost_body_limit_counts() {
    let app = app(Settings::default());
    let post = |path: &str, length| Request::post(path).body("x".repeat(length).into()).unwrap();

    assert_eq!(send(&app, post("/small", 10)).await.status, 200);
    send(&app, post("/small", 11)).await.problem(413, "too_large");
    assert_eq!(send(&app, post("/large", 100)).await.status, 200);
}

#[tokio::test]
async fn what_takes_too_long_is_ended() {
    let answer = send(&app(Settings::default()), testing::get("/slow")).await;

    let body = answer.problem(503, "timed_out");
    assert!(body["message"].as_str().unwrap().contains("0.05 s"), "{body}");
    assert_eq!(answer.header(RETRY_AFTER), "1");
}

fn preflight(origin: &str) -> Request<Body> {
    Request::options("/quick")
        .header("origin", origin)
        .header("access-control-request-method", "POST")
        .header("access-control-request-headers", "authorization,idempotency-key")
        .body(Body::empty())
        .unwrap()
}

#[tokio::test]
async fn without_origins_no_page_elsewhere_may_call() {
    let answer = send(&app(Settings::default()), preflight("https://app.example")).await;

    answer.problem(405, "method_not_allowed");
    assert!(!answer.headers.contains_key(ACCESS_CONTROL_ALLOW_ORIGIN));
}

#[tokio::test]
async fn only_the_configured_origins_may_call() {
    let settings = || Settings {
        cors_origins: vec![HeaderValue::from_static("https://app.example")],
        ..Settings::default()
    };

    let asked = send(&app(settings()), preflight("https://app.example")).await;
    assert_eq!(asked.header(ACCESS_CONTROL_ALLOW_ORIGIN), "https://app.example");
    assert!(asked.header(ACCESS_CONTROL_ALLOW_HEADERS).contains("idempotency-key"));
    let other = send(&app(settings()), preflight("https://evil.example")).await;
    assert!(!other.headers.contains_key(ACCESS_CONTROL_ALLOW_ORIGIN));

    let called = with(testing::get("/nowhere"), "origin", "https://app.example");
    let called = send(&app(settings()), called).await;
    called.problem(404, "route_not_found");
    assert_eq!(called.header(ACCESS_CONTROL_ALLOW_ORIGIN), "https://app.example");
    assert!(called.header(ACCESS_CONTROL_EXPOSE_HEADERS).contains("x-request-id"));
}

#[tokio::test]
async fn a_star_lets_every_page_call() {
    let settings =
        Settings { cors_origins: vec![HeaderValue::from_static("*")], ..Settings::default() };

    let answer = send(&app(settings), preflight("https://any.example")).await;

    assert_eq!(answer.header(ACCESS_CONTROL_ALLOW_ORIGIN), "*");
}
