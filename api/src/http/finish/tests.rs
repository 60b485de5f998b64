//! Nobody waits any more, and the work is done all the same.

use std::sync::Arc;

use axum::Router;
use axum::routing::post;
use tokio::sync::{Notify, mpsc};

use super::*;
use crate::http::testing::{self, layer, send};

/// A route that begins, waits until it is told to go on, and says which request it was at its end.
struct Slow {
    begun: Arc<Notify>,
    go_on: Arc<Notify>,
    ended: mpsc::UnboundedReceiver<Option<Arc<str>>>,
    route: Router,
}

fn slow() -> Slow {
    let (begun, go_on) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let (sender, ended) = mpsc::unbounded_channel();
    let handler = {
        let (begun, go_on) = (begun.clone(), go_on.clone());
        async move || {
            begun.notify_one();
            go_on.notified().await;
            let _ = sender.send(request_id::current());
            "done"
        }
    };
    Slow { begun, go_on, ended, route: Router::new().route("/", post(handler)) }
}

fn request() -> Request {
    testing::with(testing::post_json("/", "{}"), "x-request-id", "request-of-mine")
}

#[tokio::test]
async fn a_request_goes_on_when_its_client_goes_away() {
    let mut slow = slow();
    let left_alone = LeftAlone::default();
    let router = slow
        .route
        .layer(layer!(request_id::establish))
        .layer(layer!(to_the_end, left_alone.clone()));

    tokio::select! {
        answer = send(&router, request()) => panic!("it should not be answered yet: {answer:?}"),
        () = slow.begun.notified() => {}
    }
    assert_eq!(left_alone.0.len(), 1);
    slow.go_on.notify_one();

    assert_eq!(slow.ended.recv().await.unwrap().as_deref(), Some("request-of-mine"));
    left_alone.ended().await;
}

#[tokio::test]
async fn a_request_that_takes_too_long_is_answered_and_goes_on() {
    let mut slow = slow();
    let time_limit = TimeLimit { limit: Duration::ZERO, left_alone: LeftAlone::default() };
    let router =
        slow.route.layer(layer!(within, time_limit.clone())).layer(layer!(request_id::establish));

    let answer = send(&router, request()).await;
    answer.problem(503, "timed_out");
    slow.go_on.notify_one();

    assert_eq!(slow.ended.recv().await.unwrap().as_deref(), Some("request-of-mine"));
    time_limit.left_alone.ended().await;
}

#[tokio::test]
async fn what_is_waited_for_is_answered_and_leaves_nothing() {
    let slow = slow();
    let left_alone = LeftAlone::default();
    let router = slow.route.layer(layer!(to_the_end, left_alone.clone()));
    slow.go_on.notify_one();

    assert_eq!(send(&router, request()).await.body, "done");
    assert!(left_alone.0.is_empty());
}
