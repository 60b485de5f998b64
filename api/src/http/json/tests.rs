//! Good bodies are read; each kind of bad one has its own answer.

use axum::Router;
use axum::body::Body;
use axum::http::Request;
use axum::routing::post;
use serde::Deserialize;
use serde_json::Value;

use super::*;
use crate::http::testing::{Answer, bounded, post_json, send, with};

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Body1 {
    name: String,
    #[serde(default)]
    tags: Vec<u8>,
    nested: Option<Nested>,
    kind: Option<Kind>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Nested {
    #[serde(rename = "a/b")]
    slashed: u32,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Kind {
    One,
}

fn app() -> Router {
    let read = async |body: Json<Body1>| {
        let value = body.read()?;
        let seen = (value.tags.len(), value.nested.map(|n| n.slashed), value.kind.is_some());
        Ok::<_, Problem>(format!("{} {seen:?} {}", value.name, body.bytes.len()))
    };
    let read_optional =
        async |body: OptionalJson<Body1>| Ok::<_, Problem>(format!("[{}]", body.read()?.name));
    let read_any = async |body: Json<Value>| Ok::<_, Problem>(body.read()?.to_string());
    let routes = Router::new()
        .route("/", post(read))
        .route("/optional", post(read_optional))
        .route("/any", post(read_any));
    bounded(routes, 1000)
}

async fn send_json(body: impl Into<Body>) -> Answer {
    send(&app(), post_json("/", body)).await
}

#[track_caller]
fn assert_invalid(answer: &Answer, field: &str, code: &str) {
    answer.problem(422, "invalid_body");
    assert_eq!(answer.fault(), (field.to_owned(), code.to_owned()));
}

#[tokio::test]
async fn a_good_body_is_read_and_kept() {
    let answer = send_json(r#"{"name":"Ada","tags":[1,2],"nested":{"a/b":7},"kind":"one"}"#).await;

    assert_eq!(answer.body, "Ada (2, Some(7), true) 59");
}

#[tokio::test]
async fn the_media_type_must_be_json_in_utf_8() {
    for good in [
        "application/json",
        "Application/JSON; charset=UTF-8",
        "application/json;charset=\"utf-8\"",
    ] {
        let request =
            Request::post("/").header("content-type", good).body(r#"{"name":"x"}"#.into());
        assert_eq!(send(&app(), request.unwrap()).await.status, 200, "{good}");
    }
    for bad in
        ["text/plain", "application/jsonp", "application/json; charset=latin1", "nonsense", ""]
    {
        let request = Request::post("/").header("content-type", bad).body(r#"{"name":"x"}"#.into());
        send(&app(), request.unwrap()).await.problem(415, "unsupported_media_type");
    }
    let without = Request::post("/").body(r#"{"name":"x"}"#.into()).unwrap();
    send(&app(), without).await.problem(415, "unsupported_media_type");
}

#[tokio::test]
async fn what_is_not_json_is_malformed() {
    let bodies: [&[u8]; 10] = [
        b"",
        b"{",
        b"{\"name\":}",
        b"{} {}",
        b"nul",
        b"{'name':1}",
        b"{\"name\":\"\xff\"}",
        b"{\"name\":\"\\ud800\"}",
        b"\xef\xbb\xbf{}",
        b"{\"name\":1e999}",
    ];
    for body in bodies {
        send_json(body).await.problem(400, "malformed_json");
    }
}

#[tokio::test]
async fn nesting_without_end_is_malformed() {
    let deep = format!("{}{}", "[".repeat(200), "]".repeat(200));
    send(&app(), post_json("/any", deep)).await.problem(400, "json_too_deep");

    let allowed = format!("{}{}", "[".repeat(127), "]".repeat(127));
    assert_eq!(send(&app(), post_json("/any", allowed)).await.status, 200);
}

#[tokio::test]
async fn a_key_that_is_there_twice_is_named() {
    let answer = send_json(r#"{"name":"x","nested":{"a/b":1,"a\/b":2}}"#).await;
    answer.problem(400, "duplicate_key");
    assert_eq!(answer.fault(), ("/nested/a~1b".to_owned(), "duplicate_key".to_owned()));

    let in_list = send(&app(), post_json("/any", r#"[{"a":1},{"b":[0,{"~":1,"~":2}]}]"#)).await;
    in_list.problem(400, "duplicate_key");
    assert_eq!(in_list.fault().0, "/1/b/1/~0");
}

#[tokio::test]
async fn the_same_key_in_two_objects_is_fine() {
    let answer = send(&app(), post_json("/any", r#"[{"a":{"a":1}},{"a":2}]"#)).await;

    assert_eq!(answer.status, 200);
}

#[tokio::test]
async fn what_was_not_asked_for_is_invalid_and_has_a_place() {
    assert_invalid(&send_json(r#"{"tags":[]}"#).await, "/name", "missing");
    assert_invalid(&send_json(r#"{"name":7}"#).await, "/name", "wrong_type");
    assert_invalid(&send_json(r#"{"name":null}"#).await, "/name", "wrong_type");
    assert_invalid(&send_json(r#"{"name":"x","tags":[1,"2"]}"#).await, "/tags/1", "wrong_type");
    assert_invalid(&send_json(r#"{"name":"x","tags":[256]}"#).await, "/tags/0", "invalid");
    assert_invalid(&send_json(r#"{"name":"x","nested":{}}"#).await, "/nested/a~1b", "missing");
    assert_invalid(
        &send_json(r#"{"name":"x","nested":{"a/b":-1}}"#).await,
        "/nested/a~1b",
        "invalid",
    );
    assert_invalid(&send_json(r#"{"name":"x","more":1}"#).await, "/more", "unknown");
    assert_invalid(&send_json(r#"{"name":"x","nested":{"c":1}}"#).await, "/nested/c", "unknown");
    assert_invalid(&send_json(r#"{"name":"x","kind":"two"}"#).await, "/kind", "invalid");
    assert_invalid(&send_json(r#" ["x"]"#).await, "", "wrong_type");
    assert_invalid(&send_json("7").await, "", "wrong_type");
}

#[tokio::test]
async fn messages_have_no_line_and_column() {
    let body = send_json(r#"{"name":7}"#).await.json();

    assert_eq!(body["errors"][0]["message"], "invalid type: integer `7`, expected a string");
}

#[tokio::test]
async fn messages_name_no_types_of_the_program() {
    for wrong in ["7", "[]", r#""x""#] {
        let body = send_json(format!(r#"{{"name":"x","nested":{wrong}}}"#)).await.json();
        let message = body["errors"][0]["message"].as_str().unwrap();
        assert!(message.ends_with("expected an object"), "{message}");
    }
}

#[tokio::test]
async fn a_body_over_the_limit_is_refused_announced_or_not() {
    let long = format!(r#"{{"name":"{}"}}"#, "x".repeat(2000));
    let announced = with(post_json("/", long.clone()), "content-length", &long.len().to_string());
    let streamed = Body::from_stream(futures::stream::iter([Ok::<_, std::io::Error>(long)]));

    let answer = send(&app(), announced).await;
    let message = answer.problem(413, "too_large")["message"].to_string();
    assert!(message.contains("1000 bytes"), "{message}");
    send(&app(), post_json("/", streamed)).await.problem(413, "too_large");
}

#[tokio::test]
async fn a_body_that_breaks_off_is_malformed() {
    let parts = [Ok("{\"na"), Err(std::io::Error::other("gone"))];

    let answer = send_json(Body::from_stream(futures::stream::iter(parts))).await;

    answer.problem(400, "incomplete_body");
}

#[tokio::test]
async fn an_optional_body_may_be_left_out_but_not_be_bad() {
    let none = Request::post("/optional").body(Body::empty()).unwrap();
    assert_eq!(send(&app(), none).await.body, "[]");
    assert_eq!(send(&app(), post_json("/optional", "")).await.body, "[]");
    assert_eq!(send(&app(), post_json("/optional", r#"{"name":"x"}"#)).await.body, "[x]");

    let untyped = Request::post("/optional").body(r#"{"name":"x"}"#.into()).unwrap();
    send(&app(), untyped).await.problem(415, "unsupported_media_type");
    send(&app(), post_json("/optional", "{")).await.problem(400, "malformed_json");
}
