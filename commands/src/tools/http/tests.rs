//! Requests to real servers on this machine, which the policies of these tests allow or do not.

use std::net::SocketAddr;

use axum::Router;
use axum::body::Body as Stream;
use axum::extract::Request;
use axum::http::header::{AUTHORIZATION, COOKIE, RETRY_AFTER, SET_COOKIE};
use axum::response::{IntoResponse, Redirect};
use axum::routing::{any, get};
use domain::step::{StepCall, StepKind};
use futures::StreamExt;
use serde_json::from_value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::*;

const KEY: &str = "execution-1:fetch";

/// The tool, where only these networks of this machine are allowed.
fn tool(allowed: &[&str]) -> HttpTool {
    let allowed = allowed.iter().map(|network| network.parse().unwrap()).collect();
    HttpTool::new(AddressPolicy::new(allowed)).unwrap()
}

/// What a step with this `with` asks.
fn call(with: Value) -> HttpCall {
    let with: Map<String, Value> = from_value(with).unwrap();
    match StepCall::parse(StepKind::HttpRequest, with) {
        Ok(StepCall::HttpRequest(call)) => *call,
        other => panic!("{other:?}"),
    }
}

async fn ask(with: Value) -> Result<Value, ToolError> {
    tool(&["127.0.0.0/8"]).call(&call(with), KEY).await
}

async fn fails(with: Value) -> ToolError {
    ask(with).await.unwrap_err()
}

async fn serve_at(address: &str, router: Router) -> SocketAddr {
    let listener = TcpListener::bind(address).await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, router).await });
    address
}

async fn serve(router: Router) -> SocketAddr {
    serve_at("127.0.0.1:0", router).await
}

/// A server that says what it was asked.
fn echo() -> Router {
    Router::new().fallback(any(async |request: Request| {
        let (parts, body) = request.into_parts();
        let body = axum::body::to_bytes(body, 1 << 20).await.unwrap();
        axum::Json(json!({
            "method": parts.method.as_str(),
            "target": parts.uri.to_string(),
            "headers": readable(&parts.headers),
            "body": String::from_utf8(body.to_vec()).unwrap(),
        }))
    }))
}

/// A server that sends these bytes to whoever connects, and closes.
async fn raw(answer: &'static [u8]) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            // Where nothing came, the client went.
            if stream.read(&mut [0; 4096]).await.unwrap_or(0) == 0 {
                continue;
            }
            let _ = stream.write_all(answer).await;
        }
    });
    address
}

#[tokio::test]
async fn a_request_is_sent_as_it_was_written() {
    let address = serve(echo()).await;

    let output = ask(json!({
        "method": "PUT",
        "url": format!("http://{address}/path?a=1"),
        "query": { "b": ["two words", "3"], "c": "&" },
        "headers": { "X-Extra": "yes", "Accept": "application/json" },
        "json": { "n": 1 },
    }))
    .await
    .unwrap();

    let url = format!("http://{address}/path?a=1&b=two+words&b=3&c=%26");
    assert_eq!(output["status"], 200);
    assert_eq!(output["url"], url.as_str());
    assert_eq!(output["headers"]["content-type"], "application/json");
    let asked = &output["body"];
    assert_eq!(asked["method"], "PUT");
    assert_eq!(asked["target"], "/path?a=1&b=two+words&b=3&c=%26");
    assert_eq!(asked["body"], r#"{"n":1}"#);
    assert_eq!(asked["headers"]["x-extra"], "yes");
    assert_eq!(asked["headers"]["accept"], "application/json");
    assert_eq!(asked["headers"]["content-type"], "application/json");
    let version = env!("CARGO_PKG_VERSION");
    assert_eq!(asked["headers"]["user-agent"], format!("prodgy/{version}"));
    assert_eq!(asked["headers"]["idempotency-key"], Value::Null);
}

#[tokio::test]
async fn what_is_not_idempotent_is_sent_with_a_key_unless_the_step_has_its_own() {
    let url = format!("http://{}/", serve(echo()).await);

    let form = ask(json!({ "url": url, "form": { "a": "1 2", "b": ["x", "y"] } })).await.unwrap();
    let own = json!({ "url": url, "body": "text", "headers": { "Idempotency-Key": "mine" } });
    let own = ask(own).await.unwrap();

    assert_eq!(form["body"]["method"], "POST");
    assert_eq!(form["body"]["body"], "a=1+2&b=x&b=y");
    let headers = &form["body"]["headers"];
    assert_eq!(headers["content-type"], "application/x-www-form-urlencoded");
    assert_eq!(headers["idempotency-key"], KEY);
    assert_eq!(own["body"]["headers"]["idempotency-key"], "mine");
    assert_eq!(own["body"]["headers"]["content-type"], "text/plain; charset=utf-8");
}

#[tokio::test]
async fn an_address_that_is_not_public_is_refused_before_it_is_connected_to() {
    // Nothing listens at most of these: whoever tried would be told something else.
    let port = serve(echo()).await.port();
    for host in [
        "127.0.0.1",
        "127.1",
        "0x7f000001",
        "2130706433",
        "0.0.0.0",
        "[::1]",
        "[::ffff:127.0.0.1]",
        "[::ffff:7f00:1]",
        "localhost",
        "169.254.169.254",
        "10.0.0.1",
    ] {
        let url = format!("http://{host}:{port}/");
        let error = tool(&[]).call(&call(json!({ "url": url })), KEY).await.unwrap_err();

        assert_eq!(
            (error.code.as_str(), error.is_passing),
            ("http_address_refused", false),
            "{host}"
        );
    }
}

#[tokio::test]
async fn an_allowed_network_is_reached_by_address_and_by_name() {
    let port = serve(echo()).await.port();
    for host in ["127.0.0.1", "localhost", "[::ffff:127.0.0.1]"] {
        let url = format!("http://{host}:{port}/");
        let output = ask(json!({ "url": url })).await.unwrap();

        assert_eq!(output["body"]["method"], "GET", "{host}");
    }
}

#[tokio::test]
async fn a_server_on_ipv6_is_reached_where_it_is_allowed() {
    let address = serve_at("[::1]:0", echo()).await;
    let asked = call(json!({ "url": format!("http://{address}/") }));

    let output = tool(&["::1/128"]).call(&asked, KEY).await.unwrap();
    let refused = tool(&["127.0.0.0/8"]).call(&asked, KEY).await.unwrap_err();

    assert_eq!(output["status"], 200);
    assert_eq!(refused.code, "http_address_refused");
}

#[tokio::test]
async fn a_redirect_leads_nowhere_that_the_step_could_not_go() {
    let port = serve(echo()).await.port();
    for target in [
        format!("http://127.0.0.1:{port}/"),
        format!("http://localhost:{port}/"),
        format!("http://[::1]:{port}/"),
        "http://10.0.0.1/".to_owned(),
        "http://169.254.169.254/latest/meta-data/".to_owned(),
        "//169.254.169.254/".to_owned(),
    ] {
        let router = Router::new().fallback({
            let target = target.clone();
            async move || Redirect::temporary(&target)
        });
        let address = serve_at("127.0.0.2:0", router).await;
        let asked = call(json!({ "url": format!("http://{address}/") }));

        let error = tool(&["127.0.0.2/32"]).call(&asked, KEY).await.unwrap_err();

        assert_eq!(error.code, "http_address_refused", "{target}");
    }
    for target in ["file:///etc/passwd", "ftp://127.0.0.1/", "http://"] {
        let router = Router::new().fallback(async move || Redirect::temporary(target));
        let error = fails(json!({ "url": format!("http://{}/", serve(router).await) })).await;

        assert_eq!(error.code, "http_redirect_invalid", "{target}");
    }
}

#[tokio::test]
async fn credentials_go_to_no_other_server() {
    let other = serve(echo()).await;
    let router = echo()
        .route("/away", get(async move || Redirect::temporary(&format!("http://{other}/there"))))
        .route("/stay", get(async || Redirect::temporary("/here")));
    let address = serve(router).await;
    let headers = json!({
        "Authorization": "Bearer canary", "Cookie": "canary", "X-Api-Key": "canary", "Accept": "text/json",
    });
    let with = |path: &str| json!({ "url": format!("http://{address}{path}"), "headers": headers });

    let away = ask(with("/away")).await.unwrap();
    let stay = ask(with("/stay")).await.unwrap();

    assert_eq!(away["url"], format!("http://{other}/there"));
    assert!(!away.to_string().contains("canary"), "{away}");
    assert_eq!(away["body"]["headers"]["accept"], "text/json");
    let kept = &stay["body"]["headers"];
    for name in [AUTHORIZATION.as_str(), COOKIE.as_str(), "x-api-key"] {
        assert!(kept[name].as_str().unwrap().contains("canary"), "{name}");
    }
    let with_user = Router::new()
        .fallback(async move || Redirect::temporary(&format!("http://user:canary@{other}/")));
    let output =
        ask(json!({ "url": format!("http://{}/", serve(with_user).await) })).await.unwrap();
    assert_eq!(output["body"]["headers"][AUTHORIZATION.as_str()], Value::Null);
}

#[tokio::test]
async fn a_redirect_keeps_the_body_only_where_http_says_so() {
    let router = echo()
        .route("/303", any(async || Redirect::to("/end")))
        .route("/307", any(async || Redirect::temporary("/end")))
        .route("/302", any(async || (StatusCode::FOUND, [(LOCATION, "/end")])));
    let address = serve(router).await;
    let sent = async |path: &str| {
        let url = format!("http://{address}/{path}");
        let asked = ask(json!({ "url": url, "json": [1] })).await.unwrap()["body"].clone();
        let headers = &asked["headers"];
        let key = headers["idempotency-key"].is_string() && headers["content-type"].is_string();
        (asked["method"].clone(), asked["body"].clone(), key)
    };

    assert_eq!(sent("303").await, ("GET".into(), "".into(), false));
    assert_eq!(sent("302").await, ("GET".into(), "".into(), false));
    assert_eq!(sent("307").await, ("POST".into(), "[1]".into(), true));
}

#[tokio::test]
async fn redirects_are_bounded_and_can_be_left_alone() {
    let url = serve(Router::new().fallback(async || Redirect::temporary("/again"))).await;
    let url = format!("http://{url}/");

    let error = fails(json!({ "url": url, "redirects": 3 })).await;
    let alone = ask(json!({ "url": url, "redirects": 0, "expect": 307 })).await.unwrap();
    let unexpected = fails(json!({ "url": url, "redirects": 0 })).await;

    assert_eq!((error.code.as_str(), error.is_passing), ("http_redirects_exceeded", false));
    assert!(error.message.contains("more than 3 redirects"), "{error}");
    assert_eq!((&alone["status"], &alone["headers"]["location"]), (&json!(307), &json!("/again")));
    assert_eq!(unexpected.code, "http_status_307");
}

#[tokio::test]
async fn a_status_that_is_not_expected_is_a_failure_with_what_the_server_says_of_waiting() {
    let date = httpdate::fmt_http_date(std::time::SystemTime::now() + Duration::from_secs(90));
    let router = Router::new()
        .route("/503", get(async || (StatusCode::SERVICE_UNAVAILABLE, [(RETRY_AFTER, "7")])))
        .route("/429", get(async || (StatusCode::TOO_MANY_REQUESTS, [(RETRY_AFTER, date)])))
        .route("/404", get(async || (StatusCode::NOT_FOUND, "none")));
    let address = serve(router).await;
    let at = |path: &str| json!({ "url": format!("http://{address}/{path}"), "query": { "q": "canary" } });

    let busy = fails(at("503")).await;
    let often = fails(at("429")).await;
    let missing = fails(at("404")).await;
    let mut expected = at("404");
    expected["expect"] = json!(["2xx", 404]);
    let expected = ask(expected).await.unwrap();

    assert_eq!((busy.code.as_str(), busy.is_passing), ("http_status_503", true));
    assert_eq!(busy.retry_after, Some(Duration::from_secs(7)));
    assert!(busy.message.contains(&format!("GET http://{address}/503 was answered 503")), "{busy}");
    assert!(!busy.message.contains("canary"), "{busy}");
    let wait = often.retry_after.unwrap().as_secs();
    assert!((80..=90).contains(&wait), "{wait}");
    assert_eq!((missing.code.as_str(), missing.is_passing), ("http_status_404", false));
    assert_eq!((&expected["status"], &expected["body"]), (&json!(404), &json!("none")));
}

#[tokio::test]
async fn an_answer_that_is_too_large_is_given_up_whether_or_not_it_says_so() {
    let endless = || {
        let chunks = futures::stream::repeat_with(|| Ok::<_, std::io::Error>(vec![b'x'; 10_000]));
        Stream::from_stream(chunks).into_response()
    };
    let router = Router::new()
        .route("/announced", get(async || "x".repeat(2_000)))
        .route("/endless", get(async move || endless()))
        .route("/fits", get(async || "x".repeat(1_000)));
    let address = serve(router).await;
    let at = |path: &str| json!({ "url": format!("http://{address}/{path}"), "max_bytes": 1_000 });

    for path in ["announced", "endless"] {
        let error = fails(at(path)).await;
        assert_eq!((error.code.as_str(), error.is_passing), ("http_response_too_large", false));
    }
    assert_eq!(ask(at("fits")).await.unwrap()["body"].as_str().unwrap().len(), 1_000);
    let mut head = at("announced");
    head["method"] = json!("HEAD");
    assert_eq!(ask(head).await.unwrap()["headers"]["content-length"], "2000");
}

#[tokio::test]
async fn a_compressed_answer_that_nobody_asked_for_is_refused() {
    let router = Router::new().fallback(async || ([(CONTENT_ENCODING, "gzip")], vec![0x1f, 0x8b]));

    let error = fails(json!({ "url": format!("http://{}/", serve(router).await) })).await;

    assert_eq!(error.code, "http_encoding_unsupported");
}

#[tokio::test]
async fn an_answer_is_read_as_its_type_says_or_as_the_step_does() {
    let router = Router::new()
        .route("/json", get(async || ([(CONTENT_TYPE, "application/problem+json")], "{\"a\":1}")))
        .route("/bad", get(async || ([(CONTENT_TYPE, "application/json")], "{\"canary\":")))
        .route("/text", get(async || ([(CONTENT_TYPE, "text/plain")], "[1]")))
        .route(
            "/latin",
            get(async || ([(CONTENT_TYPE, "text/plain; charset=\"ISO-8859-1\"")], vec![0xe9])),
        )
        .route("/none", get(async || StatusCode::NO_CONTENT))
        .route(
            "/cookies",
            get(async || {
                let mut headers = HeaderMap::new();
                headers.append(SET_COOKIE, HeaderValue::from_static("a=1"));
                headers.append(SET_COOKIE, HeaderValue::from_static("b=2"));
                headers
            }),
        );
    let address = serve(router).await;
    let at = |path: &str, response: &str| json!({ "url": format!("http://{address}/{path}"), "response": response });

    assert_eq!(ask(at("json", "auto")).await.unwrap()["body"], json!({ "a": 1 }));
    assert_eq!(ask(at("json", "text")).await.unwrap()["body"], "{\"a\":1}");
    assert_eq!(ask(at("text", "auto")).await.unwrap()["body"], "[1]");
    assert_eq!(ask(at("text", "json")).await.unwrap()["body"], json!([1]));
    assert_eq!(ask(at("latin", "auto")).await.unwrap()["body"], "é");
    assert_eq!(ask(at("none", "json")).await.unwrap()["body"], Value::Null);
    assert_eq!(ask(at("cookies", "auto")).await.unwrap()["headers"]["set-cookie"], "a=1, b=2");
    for (path, response) in [("bad", "auto"), ("bad", "json"), ("latin", "json")] {
        let error = fails(at(path, response)).await;
        assert_eq!((error.code.as_str(), error.is_passing), ("http_body_not_json", false));
        assert!(!error.message.contains("canary"), "{error}");
    }
}

#[tokio::test]
async fn a_server_that_is_away_or_hangs_up_may_be_back_in_a_moment() {
    let nobody = {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        listener.local_addr().unwrap()
    };
    let short = raw(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf").await;
    let garbage = raw(b"not HTTP at all\r\n\r\n").await;
    let silent = raw(b"").await;

    let codes = async |url: String| {
        let error = fails(json!({ "url": url, "query": { "token": "canary" } })).await;
        assert!(!error.message.contains("canary"), "{error}");
        (error.code, error.is_passing)
    };

    assert_eq!(codes(format!("http://{nobody}/")).await, ("http_unreachable".into(), true));
    assert_eq!(codes(format!("http://{short}/")).await, ("http_cut_off".into(), true));
    assert_eq!(codes(format!("http://{garbage}/")).await, ("http_unreachable".into(), true));
    assert_eq!(codes(format!("http://{silent}/")).await, ("http_unreachable".into(), true));
    let no_name = "http://no-such-host.invalid/".to_owned();
    assert_eq!(codes(no_name).await, ("http_unreachable".into(), true));
    // A server that speaks no TLS.
    assert_eq!(codes(format!("https://{garbage}/")).await, ("http_unreachable".into(), true));
}

#[tokio::test]
async fn a_slow_answer_ends_when_its_caller_goes() {
    let gone = CancellationToken::new();
    let router = Router::new().fallback({
        let gone = gone.clone();
        async move || {
            let drips = futures::stream::unfold(gone.drop_guard(), async |guard| {
                tokio::time::sleep(Duration::from_millis(20)).await;
                Some((Ok::<_, std::io::Error>("."), guard))
            });
            Stream::from_stream(drips.boxed())
        }
    });
    let asked = call(json!({ "url": format!("http://{}/", serve(router).await) }));
    let tool = tool(&["127.0.0.0/8"]);

    let late = tokio::time::timeout(Duration::from_millis(500), tool.call(&asked, KEY)).await;

    assert!(late.is_err());
    tokio::time::timeout(Duration::from_secs(10), gone.cancelled()).await.unwrap();
}

#[tokio::test]
async fn an_address_with_a_user_name_is_refused_wherever_it_comes_from() {
    let mut asked = call(json!({ "url": "http://example.org/" }));
    for url in ["http://user:canary@example.org/", "ftp://example.org/", "http://", "nonsense"] {
        asked.url = url.to_owned();
        let error = tool(&[]).call(&asked, KEY).await.unwrap_err();

        assert_eq!(error.code, "http_url_invalid");
        assert!(!error.message.contains("canary"), "{error}");
    }
}
