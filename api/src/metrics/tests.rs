//! Counting by template.

use axum::Router;
use axum::body::Body;
use axum::http::Request;
use axum::routing::get;

use super::*;
use crate::http::testing::{self, layer, send};

fn app(metrics: Metrics) -> Router {
    Router::new()
        .route("/api/things/{id}", get(async || "fine"))
        .route("/metrics", get(async move || metrics.render()))
        .fallback(crate::http::problem::no_such_route)
        .layer(layer!(measure))
}

#[tokio::test]
async fn requests_are_counted_by_template_and_timed() {
    // Only this thread's: other tests of the process count too.
    let recorder = recorder().unwrap();
    let metrics = Metrics(recorder.handle());
    let _guard = metrics::set_default_local_recorder(&recorder);
    let app = app(metrics);
    for id in 0..3 {
        send(&app, testing::get(&format!("/api/things/{id}"))).await;
    }
    send(&app, testing::get("/what/nobody/answers")).await;
    send(&app, Request::builder().method("BREW").uri("/nowhere").body(Body::empty()).unwrap())
        .await;

    let answer = send(&app, testing::get("/metrics")).await;

    assert!(answer.header(CONTENT_TYPE).starts_with("text/plain; version=0.0.4"));
    let text = String::from_utf8(answer.body.to_vec()).unwrap();
    for line in [
        "prodgy_http_requests_total{method=\"GET\",route=\"/api/things/{id}\",status=\"200\"} 3",
        "prodgy_http_requests_total{method=\"GET\",route=\"unmatched\",status=\"404\"} 1",
        "prodgy_http_requests_total{method=\"other\",route=\"unmatched\",status=\"404\"} 1",
        "prodgy_http_request_duration_seconds_count{method=\"GET\",route=\"/api/things/{id}\"} 3",
        "prodgy_http_request_duration_seconds_bucket{method=\"GET\",route=\"/api/things/{id}\",le=\"+Inf\"} 3",
        // The request that asks is itself under way.
        "prodgy_http_requests_in_flight 1",
    ] {
        assert!(text.contains(line), "{line} is missing in\n{text}");
    }
    assert!(!text.contains("/api/things/0"), "{text}");
}

#[test]
fn installing_twice_is_the_same_as_once() {
    let one = Metrics::install().unwrap();
    let two = Metrics::install().unwrap();

    metrics::counter!("prodgy_test_total").increment(1);

    for metrics in [one, two] {
        assert!(metrics.0.render().contains("prodgy_test_total 1"));
    }
}

#[tokio::test]
async fn a_request_that_was_given_up_is_no_longer_in_flight() {
    let recorder = recorder().unwrap();
    let metrics = Metrics(recorder.handle());
    let _guard = metrics::set_default_local_recorder(&recorder);
    let app = Router::new()
        .route("/slow", get(async || tokio::time::sleep(Duration::from_secs(600)).await))
        .layer(layer!(measure));

    let waited =
        tokio::time::timeout(Duration::from_millis(20), send(&app, testing::get("/slow"))).await;

    assert!(waited.is_err());
    assert!(metrics.0.render().contains("prodgy_http_requests_in_flight 0"));
}

#[test]
fn a_read_model_is_as_far_behind_as_it_is_now() {
    let recorder = recorder().unwrap();
    let metrics = Metrics(recorder.handle());
    let _guard = metrics::set_default_local_recorder(&recorder);
    let standings = Standings::default();
    let status = |name: &str, head: u64| {
        let mut status = Status {
            name: name.to_owned(),
            version: 1,
            position: 5,
            lag: 0,
            state: projections::State::Running,
            rate: 0.0,
            rebuild_percent: None,
            stopped: None,
        };
        status.measure(eventlog::Position(head));
        status
    };
    standings.tell(&[status("agent", 5), status("search-12", 9)]);
    // Neither has taken anything in since.
    standings.tell(&[status("agent", 12)]);
    let text = metrics.0.render();
    for line in ["{projection=\"agent\"} 7", "{projection=\"search-12\"} 0"] {
        assert!(text.contains(&format!("{LAG}{line}")), "{line} is missing in\n{text}");
    }
}
