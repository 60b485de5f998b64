//! Which names are taken, which are made, and that both come back.

use axum::Router;
use axum::routing::get;

use super::*;
use crate::http::testing::{self, layer, send, with};

const TRACE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

fn app() -> Router {
    let show = async |context: RequestContext| {
        assert_eq!(current(), Some(context.request_id.clone()));
        context.correlation.to_string()
    };
    Router::new().route("/", get(show)).layer(layer!(establish))
}

#[tokio::test]
async fn the_names_of_the_client_are_taken_and_returned() {
    let request = with(testing::get("/"), "x-request-id", "order/17");

    let answer = send(&app(), with(request, "traceparent", TRACE)).await;

    assert_eq!(answer.header(X_REQUEST_ID), "order/17");
    assert_eq!(answer.header(TRACEPARENT), TRACE);
    assert_eq!(answer.body, "4bf92f35-77b3-8da6-a3ce-929d0e0e4736");
}

#[tokio::test]
async fn one_new_id_is_all_the_names_that_are_missing() {
    let answer = send(&app(), testing::get("/")).await;

    let id: Uuid = answer.header(X_REQUEST_ID).parse().expect("a UUID");
    assert_eq!(id.get_version_num(), 7);
    assert_eq!(answer.body, id.to_string());
    let traceparent = answer.header(TRACEPARENT);
    assert_eq!(trace_id(traceparent), Some(id.into_bytes()), "{traceparent}");
}

#[tokio::test]
async fn two_requests_have_two_names() {
    let (one, two) = (send(&app(), testing::get("/")).await, send(&app(), testing::get("/")).await);

    assert_ne!(one.header(X_REQUEST_ID), two.header(X_REQUEST_ID));
}

#[tokio::test]
async fn an_invalid_request_id_is_never_repeated() {
    for bad in ["", "two words", "caf\u{e9}", &"x".repeat(129)] {
        let answer = send(&app(), with(testing::get("/"), "x-request-id", bad)).await;

        assert!(answer.header(X_REQUEST_ID).parse::<Uuid>().is_ok(), "{bad:?}");
    }
    let longest = "x".repeat(128);
    let answer = send(&app(), with(testing::get("/"), "x-request-id", &longest)).await;
    assert_eq!(answer.header(X_REQUEST_ID), longest);
}

#[tokio::test]
async fn a_request_id_sent_twice_is_none() {
    let request = with(with(testing::get("/"), "x-request-id", "a"), "x-request-id", "b");

    let answer = send(&app(), request).await;

    assert!(answer.header(X_REQUEST_ID).parse::<Uuid>().is_ok());
}

#[tokio::test]
async fn an_invalid_trace_begins_a_new_one() {
    for bad in [
        "",
        "00",
        "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
        "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
        "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
        "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more",
        "00-4bf92f3577b34da6a3ce929d0e0e473-00f067aa0ba902b7-01",
        "00-+bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
    ] {
        assert_eq!(trace_id(bad), None, "{bad:?}");
        let answer = send(&app(), with(testing::get("/"), "traceparent", bad)).await;
        assert_ne!(answer.header(TRACEPARENT), bad);
        assert!(trace_id(answer.header(TRACEPARENT)).is_some());
    }
}

#[test]
fn a_later_version_of_the_trace_header_is_understood() {
    let later = "01-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-what-the-future-says";

    assert!(trace_id(later).is_some());
}

#[test]
fn outside_of_a_request_there_is_no_name() {
    assert_eq!(current(), None);
    assert_eq!(scope_sync("r".into(), current), Some("r".into()));
}
