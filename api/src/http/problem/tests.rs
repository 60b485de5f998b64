//! Every failure leaves as a problem, whoever wrote it.

use axum::Router;
use axum::body::Body;
use axum::http::Request;
use axum::middleware::from_fn;
use axum::routing::{get, post};

use super::*;
use crate::http::header::X_REQUEST_ID;
use crate::http::layers::{Settings, dress};
use crate::http::testing::{self, local, send, with};

fn app() -> Router {
    let router = Router::new()
        .route(
            "/kinds/not-found",
            get(async || Problem::not_found("agent_not_found", "there is no such agent")),
        )
        .route(
            "/kinds/limited",
            get(async || Problem::too_many_requests(Duration::from_millis(1500))),
        )
        .route("/kinds/range", get(async || Problem::range_not_satisfiable(10)))
        .route(
            "/kinds/invalid",
            get(async || {
                Problem::invalid("invalid_body", "mend what errors names")
                    .with_error(FieldError::new("/name", "missing", "this field is required"))
            }),
        )
        .route("/panics", get(async || -> String { panic!("a secret of the machinery") }))
        .route("/fails", get(async || Problem::internal(&std::io::Error::other("disk on fire"))))
        .route("/text", post(async || (StatusCode::IM_A_TEAPOT, "plain words")))
        .route("/axum/{id}", get(async |_: axum::extract::Path<u32>| "fine"));
    local(dress(router, Settings::default()))
}

#[tokio::test]
async fn a_problem_carries_both_forms_and_the_request_id() {
    let request = with(testing::get("/kinds/not-found"), "x-request-id", "abc-123");

    let answer = send(&app(), request).await;

    let body = answer.problem(404, "agent_not_found");
    assert_eq!(body["title"], "Not Found");
    assert_eq!(body["message"], "there is no such agent");
    assert_eq!(body["request_id"], "abc-123");
    assert_eq!(body["errors"], serde_json::json!([]));
    assert_eq!(answer.header(X_REQUEST_ID), "abc-123");
}

#[tokio::test]
async fn the_places_at_fault_are_listed() {
    let answer = send(&app(), testing::get("/kinds/invalid")).await;

    answer.problem(422, "invalid_body");
    assert_eq!(answer.fault(), ("/name".to_owned(), "missing".to_owned()));
}

#[tokio::test]
async fn waiting_is_rounded_up_to_whole_seconds() {
    let answer = send(&app(), testing::get("/kinds/limited")).await;

    answer.problem(429, "rate_limited");
    assert_eq!(answer.header(RETRY_AFTER), "2");
    assert_eq!(whole_seconds(Duration::ZERO), 1);
    assert_eq!(whole_seconds(Duration::from_secs(3)), 3);
}

#[tokio::test]
async fn a_range_beyond_the_end_says_how_much_there_is() {
    let answer = send(&app(), testing::get("/kinds/range")).await;

    answer.problem(416, "range_not_satisfiable");
    assert_eq!(answer.header(CONTENT_RANGE), "bytes */10");
}

#[tokio::test]
async fn an_unknown_path_is_a_problem() {
    let answer = send(&app(), testing::get("/nowhere")).await;

    answer.problem(404, "route_not_found");
}

#[tokio::test]
async fn a_wrong_method_says_which_are_right() {
    let request = Request::delete("/panics").body(Body::empty()).unwrap();

    let answer = send(&app(), request).await;

    answer.problem(405, "method_not_allowed");
    assert_eq!(answer.header(axum::http::header::ALLOW), "GET,HEAD");
}

#[tokio::test]
async fn a_panic_is_answered_and_tells_nothing() {
    let answer = send(&app(), testing::get("/panics")).await;

    let body = answer.problem(500, "internal");
    assert!(!body.to_string().contains("secret"), "{body}");
    assert_eq!(body["request_id"], answer.header(X_REQUEST_ID));
}

#[tokio::test]
async fn a_failure_of_machinery_tells_nothing() {
    let answer = send(&app(), testing::get("/fails")).await;

    let body = answer.problem(500, "internal");
    assert!(!body.to_string().contains("fire"), "{body}");
}

#[tokio::test]
async fn plain_text_of_a_library_becomes_a_problem() {
    let text = send(&app(), Request::post("/text").body(Body::empty()).unwrap()).await;
    let path = send(&app(), testing::get("/axum/seven")).await;

    text.problem(418, "rejected");
    path.problem(400, "rejected");
}

#[tokio::test]
async fn a_rejection_can_be_recorded_by_those_outside() {
    let router = Router::new()
        .route("/", get(async || Problem::conflict("name_taken", "choose another name")))
        .layer(from_fn(async |request, next: axum::middleware::Next| {
            let response = next.run(request).await;
            let Rejection { code, .. } = *response.extensions().get::<Rejection>().unwrap();
            ([("x-recorded", code)], response)
        }));

    let answer = send(&router, testing::get("/")).await;

    assert_eq!(answer.header(HeaderName::from_static("x-recorded")), "name_taken");
}

#[test]
fn the_good_path_stays_small() {
    assert_eq!(size_of::<Result<u8, Problem>>(), 16);
}
