//! Positions in headers.

use axum::Router;
use axum::routing::get;

use super::*;
use crate::http::testing::{self, send, with};

fn app() -> Router {
    Router::new().route("/", get(async |MinPosition(at): MinPosition| format!("{at:?}")))
}

#[tokio::test]
async fn a_position_is_read() {
    assert_eq!(send(&app(), testing::get("/")).await.body, "None");
    let request = with(testing::get("/"), "x-min-position", "42");
    assert_eq!(send(&app(), request).await.body, "Some(42)");
    let request = with(testing::get("/"), "x-min-position", "0");
    assert_eq!(send(&app(), request).await.body, "Some(0)");
}

#[tokio::test]
async fn what_is_no_position_is_malformed() {
    for bad in ["", "-1", "+1", "1.0", "one", "9007199254740992", "99999999999999999999"] {
        let request = with(testing::get("/"), "x-min-position", bad);
        send(&app(), request).await.problem(400, "malformed_position");
    }
    let twice = with(with(testing::get("/"), "x-min-position", "1"), "x-min-position", "1");
    send(&app(), twice).await.problem(400, "malformed_position");
}
