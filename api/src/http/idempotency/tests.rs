//! Which requests are one change.

use axum::Router;
use axum::body::Body;
use axum::http::Request;
use axum::routing::post;

use super::*;
use crate::http::testing::{Answer, send, with};

fn app() -> Router {
    let handler = post(async |idempotency: Idempotency| {
        let id = idempotency.command_id(Uuid::nil(), "token-1");
        format!("{id} {}", hex::encode(idempotency.digest(&[b"body"])))
    });
    Router::new()
        .route("/things", handler.clone())
        .nest("/nested", Router::new().route("/things", handler))
}

async fn ask(uri: &str, key: Option<&str>) -> Answer {
    let request = Request::post(uri).body(Body::empty()).unwrap();
    let request = match key {
        Some(key) => with(request, "idempotency-key", key),
        None => request,
    };
    send(&app(), request).await
}

#[tokio::test]
async fn the_same_key_is_the_same_command() {
    let (one, two) = (ask("/things", Some("k")).await, ask("/things", Some("k")).await);

    assert_eq!(one.body, two.body);
    let id: Uuid = std::str::from_utf8(&one.body).unwrap()[..36].parse().unwrap();
    assert_eq!(id.get_version_num(), 8);
}

#[tokio::test]
async fn another_key_or_path_is_another_command() {
    let first = ask("/things", Some("k")).await.body;

    assert_ne!(ask("/things", Some("l")).await.body[..36], first[..36]);
    assert_ne!(ask("/nested/things", Some("k")).await.body[..36], first[..36]);
}

#[tokio::test]
async fn who_waits_for_longer_says_the_same() {
    for (one, two) in [
        ("/things", "/things?wait_seconds=60"),
        ("/things?wait_seconds=1", "/things?wait_seconds=60"),
        ("/things?a=1&b=2", "/things?a=1&wait_seconds=60&b=2"),
    ] {
        assert_eq!(ask(one, Some("k")).await.body, ask(two, Some("k")).await.body, "{two}");
    }
    let other = ask("/things?other_wait_seconds=60", Some("k")).await.body;
    assert_ne!(ask("/things", Some("k")).await.body, other);
}

#[tokio::test]
async fn another_query_is_the_same_command_saying_something_else() {
    let (one, two) = (ask("/things?a=1", Some("k")).await, ask("/things?a=2", Some("k")).await);

    assert_eq!(one.body[..36], two.body[..36]);
    assert_ne!(one.body[36..], two.body[36..]);
}

#[tokio::test]
async fn without_a_key_every_request_is_a_command_of_its_own() {
    let (one, two) = (ask("/things", None).await.body, ask("/things", None).await.body);

    assert_ne!(one[..36], two[..36]);
    assert_eq!(
        std::str::from_utf8(&one).unwrap()[..36].parse::<Uuid>().unwrap().get_version_num(),
        7
    );
}

#[tokio::test]
async fn a_bad_key_is_malformed() {
    for bad in ["", "two words", "caf\u{e9}", &"x".repeat(256)] {
        ask("/things", Some(bad)).await.problem(400, "malformed_idempotency_key");
    }
    let twice = Request::post("/things").body(Body::empty()).unwrap();
    let twice = with(with(twice, "idempotency-key", "a"), "idempotency-key", "a");
    send(&app(), twice).await.problem(400, "malformed_idempotency_key");
    assert_eq!(ask("/things", Some(&"x".repeat(255))).await.status, 200);
}

#[test]
fn parts_do_not_run_into_each_other() {
    let id = |credential, key, target| command_id(Uuid::nil(), credential, key, target);

    assert_ne!(id("ab", "c", "POST /"), id("a", "bc", "POST /"));
    assert_ne!(id("a", "b", "POST /"), command_id(Uuid::max(), "a", "b", "POST /"));
    assert_ne!(hash(&[b"ab", b""]), hash(&[b"a", b"b"]));
}

#[test]
fn the_id_of_a_command_never_changes() {
    // Stored logs hold such ids: a change here would repeat commands that were done.
    let id = command_id(Uuid::nil(), "token-1", "k", "POST /things");

    assert_eq!(id.to_string(), "b3014a67-e531-840b-a803-5bc02e237d47");
}
