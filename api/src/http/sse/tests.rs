//! Streams: what is written, and how they end.

use axum::Router;
use axum::http::header::CONTENT_TYPE;
use axum::routing::get;
use serde_json::json;
use tokio::sync::Notify;

use super::*;
use crate::http::testing::{self, layer, send, with};

fn counted(to: u64) -> impl Stream<Item = Result<Event, Problem>> + Send {
    futures::stream::iter(1..=to)
        .map(|number| Event::new(number, "counted", &json!({ "n": number, "text": "two\nlines" })))
}

/// For clients that are never refused.
fn never() -> futures::future::Pending<Problem> {
    futures::future::pending()
}

#[tokio::test]
async fn every_event_has_an_id_a_name_and_one_line_of_data() {
    let app = Router::new()
        .route("/", get(async || stream(counted(2), never(), CancellationToken::new())));

    let answer = send(&app, testing::get("/")).await;

    assert_eq!(answer.header(CONTENT_TYPE), "text/event-stream");
    assert_eq!(
        answer.body,
        "id: 1\nevent: counted\ndata: {\"n\":1,\"text\":\"two\\nlines\"}\n\n\
         id: 2\nevent: counted\ndata: {\"n\":2,\"text\":\"two\\nlines\"}\n\n"
    );
}

#[tokio::test]
async fn a_failure_is_the_last_event_and_keeps_the_place() {
    let failing = || {
        let failure = Problem::not_found("file_not_found", "the file was deleted meanwhile");
        counted(1).chain(futures::stream::iter([Err(failure)])).chain(counted(3))
    };
    let app = Router::new()
        .route("/", get(async move || stream(failing(), never(), CancellationToken::new())))
        .layer(layer!(request_id::establish));

    let answer = send(&app, with(testing::get("/"), "x-request-id", "r-1")).await;

    let text = std::str::from_utf8(&answer.body).unwrap();
    let events: Vec<&str> = text.trim_end().split("\n\n").collect();
    assert_eq!(events.len(), 2, "{text}");
    let data = events[1].strip_prefix("event: error\ndata: ").unwrap();
    let problem: serde_json::Value = serde_json::from_str(data).unwrap();
    assert_eq!(problem["error"], "file_not_found");
    assert_eq!(problem["request_id"], "r-1");
}

#[tokio::test]
async fn a_stream_ends_when_the_server_stops() {
    let shutdown = CancellationToken::new();
    let token = shutdown.clone();
    let endless = || counted(1).chain(futures::stream::pending());
    let app =
        Router::new().route("/", get(async move || stream(endless(), never(), token.clone())));
    let reading = tokio::spawn(async move { send(&app, testing::get("/")).await });
    tokio::task::yield_now().await;

    shutdown.cancel();

    assert!(reading.await.unwrap().body.starts_with(b"id: 1\n"));
}

#[tokio::test]
async fn a_stream_ends_with_the_reason_when_its_client_is_refused() {
    let revoked = std::sync::Arc::new(Notify::new());
    let refused = revoked.clone();
    let endless = || counted(1).chain(futures::stream::pending());
    let reason = async move {
        refused.notified().await;
        Problem::unauthenticated("token_revoked", "this API token was revoked")
    };
    let response = stream(endless(), reason, CancellationToken::new());
    let mut body = response.into_body().into_data_stream();

    assert!(body.next().await.unwrap().unwrap().starts_with(b"id: 1\n"));
    revoked.notify_one();

    let last = body.next().await.unwrap().unwrap();
    let last = std::str::from_utf8(&last).unwrap();
    assert!(last.starts_with("event: error\ndata: {"), "{last}");
    assert!(last.contains("\"error\":\"token_revoked\""), "{last}");
    assert!(body.next().await.is_none());
}

#[tokio::test]
async fn a_quiet_stream_is_kept_open_by_comments() {
    let quiet = futures::stream::pending::<Result<Event, Problem>>();
    let response = commented_stream(quiet, CancellationToken::new(), Duration::from_millis(5));
    let mut body = response.into_body().into_data_stream();

    assert_eq!(body.next().await.unwrap().unwrap(), ":\n\n");
    assert_eq!(body.next().await.unwrap().unwrap(), ":\n\n");
}

#[tokio::test]
async fn the_last_event_id_says_where_to_go_on() {
    let app =
        Router::new().route("/", get(async |LastEventId(last): LastEventId| format!("{last:?}")));

    assert_eq!(send(&app, testing::get("/")).await.body, "None");
    assert_eq!(send(&app, with(testing::get("/"), "last-event-id", "17")).await.body, "Some(17)");
    for bad in ["", "x", "-1", "1 "] {
        let answer = send(&app, with(testing::get("/"), "last-event-id", bad)).await;
        answer.problem(400, "malformed_last_event_id");
    }
}
