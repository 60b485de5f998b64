//! Whole files, parts of files, and their names.

use axum::Router;
use axum::routing::get;

use super::*;
use crate::http::testing::{self, Answer, send, with};

const CONTENT: &[u8] = b"0123456789";

fn app(file_name: &'static str, media_type: &'static str) -> Router {
    let download = async move |asked: AskedRange| -> Result<Response, Problem> {
        let etag = &ETag::of_content("abc");
        let part = asked.of(10, etag)?;
        let bytes = match &part {
            Some(part) => &CONTENT[part.start as usize..part.end as usize],
            None => CONTENT,
        };
        let body = futures::stream::iter([Ok::<_, std::io::Error>(Bytes::from_static(bytes))]);
        Ok(Download { file_name, media_type, size: 10, etag }.response(part, body))
    };
    Router::new().route("/", get(download))
}

async fn ask(range: &str) -> Answer {
    send(&app("a.txt", "text/plain"), with(testing::get("/"), "range", range)).await
}

#[tokio::test]
async fn without_a_range_all_is_sent() {
    let answer = send(&app("a.txt", "text/plain"), testing::get("/")).await;

    assert_eq!(answer.status, 200);
    assert_eq!(answer.body, CONTENT);
    assert_eq!(answer.header(ACCEPT_RANGES), "bytes");
    assert_eq!(answer.header(CONTENT_LENGTH), "10");
    assert_eq!(answer.header(ETAG), "\"abc\"");
    assert_eq!(answer.header(CONTENT_TYPE), "text/plain");
    assert_eq!(answer.header(CONTENT_DISPOSITION), "attachment; filename=\"a.txt\"");
}

#[tokio::test]
async fn a_range_is_sent_as_a_part() {
    for (range, body, content_range) in [
        ("bytes=0-3", "0123", "bytes 0-3/10"),
        ("bytes=4-", "456789", "bytes 4-9/10"),
        ("bytes=-3", "789", "bytes 7-9/10"),
        ("bytes=9-9", "9", "bytes 9-9/10"),
        ("bytes=5-100", "56789", "bytes 5-9/10"),
        ("bytes=5-99999999999999999999999", "56789", "bytes 5-9/10"),
        ("bytes=-100", "0123456789", "bytes 0-9/10"),
        ("Bytes=0-0", "0", "bytes 0-0/10"),
    ] {
        let answer = ask(range).await;
        assert_eq!(answer.status, 206, "{range}");
        assert_eq!(answer.body, body, "{range}");
        assert_eq!(answer.header(CONTENT_RANGE), content_range);
        assert_eq!(answer.header(CONTENT_LENGTH), body.len().to_string());
    }
}

#[tokio::test]
async fn a_range_that_is_not_understood_is_the_whole() {
    for range in [
        "bytes=0-1,3-4",
        "items=0-1",
        "bytes=3-1",
        "bytes=-",
        "bytes=a-b",
        "bytes",
        "",
        "bytes=+1-2",
    ] {
        let answer = ask(range).await;
        assert_eq!((answer.status.as_u16(), &*answer.body), (200, CONTENT), "{range}");
        assert!(!answer.headers.contains_key(CONTENT_RANGE));
    }
}

#[tokio::test]
async fn a_range_beyond_the_end_is_refused() {
    for range in ["bytes=10-", "bytes=10-11", "bytes=-0", "bytes=99999999999999999999-"] {
        let answer = ask(range).await;
        answer.problem(416, "range_not_satisfiable");
        assert_eq!(answer.header(CONTENT_RANGE), "bytes */10");
    }
}

#[tokio::test]
async fn a_range_of_another_state_is_the_whole() {
    let ask_if = async |tag| {
        let request = with(with(testing::get("/"), "range", "bytes=0-0"), "if-range", tag);
        send(&app("a.txt", "text/plain"), request).await.status.as_u16()
    };

    assert_eq!(ask_if("\"abc\"").await, 206);
    assert_eq!(ask_if("\"other\"").await, 200);
    assert_eq!(ask_if("W/\"abc\"").await, 200);
    assert_eq!(ask_if("Wed, 21 Oct 2015 07:28:00 GMT").await, 200);
}

#[test]
fn an_empty_file_has_no_parts() {
    let asked = |range| AskedRange { range: Some(HeaderValue::from_static(range)), if_range: None };
    let etag = ETag::of_content("abc");

    assert!(asked("bytes=0-").of(0, &etag).is_err());
    assert!(asked("bytes=-5").of(0, &etag).is_err());
    assert_eq!(AskedRange::default().of(0, &etag), Ok(None));
}

#[test]
fn names_survive_whatever_they_hold() {
    for (name, header) in [
        ("plain name.pdf", "attachment; filename=\"plain name.pdf\""),
        ("año.txt", "attachment; filename=\"a_o.txt\"; filename*=UTF-8''a%C3%B1o.txt"),
        ("a\"b.txt", "attachment; filename=\"a_b.txt\"; filename*=UTF-8''a%22b.txt"),
        ("50%.txt", "attachment; filename=\"50_.txt\"; filename*=UTF-8''50%25.txt"),
        ("../../etc/passwd", "attachment; filename=\".._.._etc_passwd\""),
        ("a\r\nSet-Cookie: x", "attachment; filename=\"a__Set-Cookie: x\""),
        ("日本", "attachment; filename=\"__\"; filename*=UTF-8''%E6%97%A5%E6%9C%AC"),
    ] {
        assert_eq!(attachment(name), header, "{name:?}");
    }
}

#[tokio::test]
async fn a_media_type_that_is_no_header_is_just_bytes() {
    let answer = send(&app("a", "text/plain\r\nx: y"), testing::get("/")).await;

    assert_eq!(answer.header(CONTENT_TYPE), "application/octet-stream");
}

#[tokio::test]
async fn what_strangers_uploaded_runs_nothing() {
    let answer = send(&app("a.html", "text/html"), testing::get("/")).await;

    assert_eq!(answer.header(CONTENT_SECURITY_POLICY), "default-src 'none'; sandbox");
}
