//! Conditions on states.

use axum::Router;
use axum::routing::get;

use super::*;
use crate::http::Reply;
use crate::http::testing::{self, Answer, send, with};

/// A resource at sequence 7: read with GET, changed with PUT.
fn app() -> Router {
    let read = async |known: IfNoneMatch| {
        Reply::ok("Here it is.", 7).etag_unless_known(&ETag::of_sequence(7), &known)
    };
    let change = async |if_match: IfMatch| -> Result<String, Problem> {
        if_match.check(7)?;
        Ok(format!("{:?}", if_match.sequences()))
    };
    Router::new().route("/", get(read).put(change))
}

async fn change(tags: &str) -> Answer {
    let mut request = with(testing::get("/"), "if-match", tags);
    *request.method_mut() = axum::http::Method::PUT;
    send(&app(), request).await
}

#[tokio::test]
async fn the_state_that_is_there_may_be_changed() {
    assert_eq!(change("\"7\"").await.body, "Some([7])");
    assert_eq!(change("\"6\" ,\t\"7\",").await.body, "Some([6, 7])");
    assert_eq!(change("\"a,b\", \"7\"").await.body, "Some([7])");
    assert_eq!(change("*").await.body, "None");
}

#[tokio::test]
async fn without_the_header_there_is_no_condition() {
    let mut request = testing::get("/");
    *request.method_mut() = axum::http::Method::PUT;

    assert_eq!(send(&app(), request).await.body, "None");
}

#[tokio::test]
async fn another_state_is_stale_and_so_is_a_weak_tag() {
    for stale in ["\"6\"", "W/\"7\"", "\"07\"", "\"*\"", "\"\"", "\"7 \"x"] {
        let answer = change(stale).await;
        if stale == "\"7 \"x" {
            answer.problem(400, "malformed_etag");
        } else {
            answer.problem(412, "stale");
        }
    }
}

#[tokio::test]
async fn what_is_no_list_of_tags_is_malformed() {
    for bad in ["7", "\"7", "7\"", "", " ", "\"6\" \"7\"", "w/\"7\"", "*, \"7\"", "\"6\";\"7\""] {
        change(bad).await.problem(400, "malformed_etag");
    }
}

#[tokio::test]
async fn several_lines_are_one_list() {
    let mut request = with(with(testing::get("/"), "if-match", "\"1\""), "if-match", "\"7\"");
    *request.method_mut() = axum::http::Method::PUT;

    assert_eq!(send(&app(), request).await.body, "Some([1, 7])");
}

#[tokio::test]
async fn a_client_that_has_the_state_is_told_so() {
    for known in ["\"7\"", "W/\"7\"", "*", "\"1\", \"7\""] {
        let answer = send(&app(), with(testing::get("/"), "if-none-match", known)).await;
        assert_eq!(answer.status, 304, "{known}");
        assert_eq!(answer.header(axum::http::header::ETAG), "\"7\"");
        assert!(answer.body.is_empty());
    }
    for other in ["\"6\"", "\"77\""] {
        let answer = send(&app(), with(testing::get("/"), "if-none-match", other)).await;
        assert_eq!(answer.status, 200, "{other}");
        assert_eq!(answer.header(axum::http::header::ETAG), "\"7\"");
    }
    send(&app(), with(testing::get("/"), "if-none-match", "7"))
        .await
        .problem(400, "malformed_etag");
}

#[test]
fn bytes_are_tagged_by_their_name() {
    assert_eq!(ETag::of_content("0a1b").to_header(), "\"0a1b\"");
}
