//! Uploads, whole and broken.

use axum::Router;
use axum::body::Body;
use axum::http::Request;
use axum::routing::post;

use super::*;
use crate::http::testing::{Answer, bounded, send};

fn app() -> Router {
    let upload = async |mut upload: Upload| -> Result<String, Problem> {
        let mut seen = String::new();
        while let Some(part) = upload.next_part().await? {
            let name = part.name().to_owned();
            let file = part.file_name().map(str::to_owned);
            match file {
                Some(file) => {
                    let media_type = part.media_type().unwrap_or("-").to_owned();
                    let stream = std::pin::pin!(part.into_stream());
                    let bytes: Vec<Bytes> = stream.try_collect().await?;
                    seen += &format!("{name}:{file}:{media_type}:{};", bytes.concat().len());
                }
                None => seen += &format!("{name}={};", part.text(20).await?),
            }
        }
        Ok(seen)
    };
    bounded(Router::new().route("/", post(upload)), 100_000)
}

async fn send_body(body: impl Into<Body>) -> Answer {
    let request = Request::post("/").header("content-type", "multipart/form-data; boundary=XX");
    send(&app(), request.body(body.into()).unwrap()).await
}

const TEXT: &str = "--XX\r\nContent-Disposition: form-data; name=\"source\"\r\n\r\nmanual\r\n";
const FILE: &str = "--XX\r\nContent-Disposition: form-data; name=\"file\"; filename=\"C:\\docs\\a.md\"\r\n\
     Content-Type: text/markdown\r\n\r\n# Title\r\n";

#[tokio::test]
async fn fields_and_files_are_read_in_order() {
    let answer = send_body(format!("{TEXT}{FILE}{FILE}--XX--\r\n")).await;

    assert_eq!(answer.body, "source=manual;file:a.md:text/markdown:7;file:a.md:text/markdown:7;");
}

#[tokio::test]
async fn a_file_whose_name_is_no_utf_8_is_told_from_one_without_a_name() {
    let upload = async |mut upload: Upload| -> Result<String, Problem> {
        let part = upload.next_part().await?;
        Ok(part.is_some_and(|part| part.has_unreadable_file_name()).to_string())
    };
    let app = Router::new().route("/", post(upload));
    let disposition = b"--XX\r\nContent-Disposition: form-data; name=\"file\"";
    for (name, is_unreadable) in [
        (&b"; filename=\"a\xff.md\""[..], "true"),
        (b"; FileName=\"a\xff.md\"", "true"),
        (b"; filename=\"a.md\"", "false"),
        (b"", "false"),
    ] {
        let body = [disposition, name, b"\r\n\r\nx\r\n--XX--\r\n"].concat();
        let request = Request::post("/").header("content-type", "multipart/form-data; boundary=XX");
        let answer = send(&app, request.body(body.into()).unwrap()).await;
        assert_eq!(answer.body, is_unreadable, "{name:?}");
    }
}

#[tokio::test]
async fn another_media_type_is_refused() {
    for media_type in ["application/json", "multipart/mixed; boundary=XX", "nonsense"] {
        let request = Request::post("/").header("content-type", media_type);
        let answer = send(&app(), request.body(Body::empty()).unwrap()).await;
        answer.problem(415, "unsupported_media_type");
    }
    let untyped = Request::post("/").body(Body::empty()).unwrap();
    send(&app(), untyped).await.problem(415, "unsupported_media_type");
}

#[tokio::test]
async fn a_missing_boundary_is_malformed() {
    let request = Request::post("/").header("content-type", "multipart/form-data");

    let answer = send(&app(), request.body(Body::from("x")).unwrap()).await;

    answer.problem(400, "malformed_multipart");
}

#[tokio::test]
async fn a_broken_body_is_malformed() {
    let nameless = "--XX\r\nContent-Disposition: form-data\r\n\r\nx\r\n--XX--\r\n";
    for body in [
        "",
        "garbage",
        "--XX",
        TEXT,
        &format!("{FILE}--YY--"),
        "--XX\r\nno header\r\n\r\nx\r\n--XX--\r\n",
        nameless,
    ] {
        let answer = send_body(body.to_owned()).await;
        answer.problem(400, "malformed_multipart");
    }
}

#[tokio::test]
async fn a_body_that_breaks_off_is_malformed() {
    let parts = [Ok(FILE.to_owned()), Err(std::io::Error::other("gone"))];

    let answer = send_body(Body::from_stream(futures::stream::iter(parts))).await;

    answer.problem(400, "malformed_multipart");
}

#[tokio::test]
async fn a_body_over_the_limit_is_refused_announced_or_not() {
    let long = format!("{}{}\r\n--XX--\r\n", FILE, "x".repeat(200_000));
    let streamed = futures::stream::iter([Ok::<_, std::io::Error>(long.clone())]);
    send_body(Body::from_stream(streamed)).await.problem(413, "too_large");

    let announced = Request::post("/")
        .header("content-type", "multipart/form-data; boundary=XX")
        .header("content-length", long.len());
    let never_read = Body::from_stream(futures::stream::pending::<Result<Bytes, std::io::Error>>());
    let answer = send(&app(), announced.body(never_read).unwrap()).await;
    answer.problem(413, "too_large");
}

#[tokio::test]
async fn a_field_that_is_too_long_or_no_text_is_named() {
    let long = TEXT.replace("manual", &"x".repeat(21));
    let answer = send_body(format!("{long}--XX--\r\n")).await;
    answer.problem(422, "invalid_field");
    assert_eq!(answer.fault(), ("/source".to_owned(), "too_long".to_owned()));

    let mut binary = TEXT.replace("manual", "?").into_bytes();
    let at = binary.iter().rposition(|byte| *byte == b'?').unwrap();
    binary[at] = 0xff;
    binary.extend(b"--XX--\r\n");
    let answer = send_body(binary).await;
    answer.problem(422, "invalid_field");
    assert_eq!(answer.fault(), ("/source".to_owned(), "not_utf8".to_owned()));
}

#[tokio::test]
async fn a_thousand_parts_are_enough() {
    let many = |parts| format!("{}--XX--\r\n", TEXT.repeat(parts));

    assert_eq!(send_body(many(MAX_PARTS)).await.status, 200);
    send_body(many(MAX_PARTS + 1)).await.problem(422, "too_many_parts");
}
