//! The good envelope and its headers.

use axum::Router;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, ETAG, LOCATION};
use axum::routing::get;
use serde_json::json;

use super::*;
use crate::http::testing::{self, send};

fn app() -> Router {
    Router::new()
        .route(
            "/ok",
            get(async || Reply::ok("Found.", json!({ "id": 1 })).etag(&ETag::of_sequence(3))),
        )
        .route(
            "/created",
            get(async || {
                Reply::created("/things/1".to_owned(), "Made.", 1)
                    .position(42)
                    .replayed(true)
                    .secret()
            }),
        )
        .route("/accepted", get(async || Reply::accepted("Accepted.", ())))
        .route("/broken", get(async || Reply::ok("Never.", Unwritable)))
}

/// Serialises as an error, as a map with keys that are no text does.
struct Unwritable;

impl Serialize for Unwritable {
    fn serialize<S: serde::Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
        Err(serde::ser::Error::custom("cannot be written"))
    }
}

#[tokio::test]
async fn a_good_answer_has_the_envelope() {
    let answer = send(&app(), testing::get("/ok")).await;

    assert_eq!(answer.status, 200);
    assert_eq!(answer.header(CONTENT_TYPE), "application/json");
    assert_eq!(answer.header(ETAG), "\"3\"");
    assert_eq!(answer.body, r#"{"success":true,"message":"Found.","data":{"id":1}}"#);
}

#[tokio::test]
async fn what_was_made_has_a_place_and_a_position() {
    let answer = send(&app(), testing::get("/created")).await;

    assert_eq!(answer.status, 201);
    assert_eq!(answer.header(LOCATION), "/things/1");
    assert_eq!(answer.header(X_EVENT_POSITION), "42");
    assert_eq!(answer.header(CACHE_CONTROL), "no-store");
    assert_eq!(answer.body, r#"{"success":true,"message":"Made.","data":1,"replayed":true}"#);
}

#[tokio::test]
async fn what_was_accepted_may_have_nothing_to_show() {
    let answer = send(&app(), testing::get("/accepted")).await;

    assert_eq!(answer.status, 202);
    assert_eq!(answer.json()["data"], json!(null));
}

#[tokio::test]
async fn what_cannot_be_written_is_our_fault() {
    send(&app(), testing::get("/broken")).await.problem(500, "internal");
}
