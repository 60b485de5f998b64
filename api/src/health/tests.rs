//! Alive and ready.

use axum::Router;
use axum::routing::get;
use serde_json::json;

use super::*;
use crate::http::testing::{self, send};

fn app(model_is_there: bool) -> Router {
    let ready = async move || {
        let mut readiness = Readiness::default();
        readiness.check("event_log", true, "at position 7");
        readiness.check("embedding_model", model_is_there, "missing: run `prodgy model fetch`");
        readiness
    };
    Router::new().route("/healthz", get(alive)).route("/readyz", get(ready))
}

#[tokio::test]
async fn a_process_that_answers_is_alive() {
    let answer = send(&app(false), testing::get("/healthz")).await;

    assert_eq!(answer.status, 200);
    assert_eq!(answer.json()["data"], json!({ "version": env!("CARGO_PKG_VERSION") }));
}

#[tokio::test]
async fn when_every_check_is_good_it_is_ready() {
    let answer = send(&app(true), testing::get("/readyz")).await;

    assert_eq!(answer.status, 200);
    assert_eq!(
        answer.json()["data"]["checks"][0],
        json!({ "name": "event_log", "ok": true, "detail": "at position 7" })
    );
}

#[tokio::test]
async fn what_is_missing_is_named_with_what_to_do() {
    let answer = send(&app(false), testing::get("/readyz")).await;

    let body = answer.problem(503, "not_ready");
    assert_eq!(body["message"], "not ready: embedding_model: missing: run `prodgy model fetch`");
    assert_eq!(answer.fault(), ("/embedding_model".to_owned(), "not_ready".to_owned()));
}
