//! Lines on stderr: what they hold, and what they never hold.

use std::process::Command;

use axum::Router;
use axum::routing::post;
use serde_json::Value;

use super::*;
use crate::http::layers::{Settings, dress};
use crate::http::testing::{local, post_json, send, with};

/// Logs are global to a process, so each test runs itself again in one of its own.
fn lines_of(test: &str, format: &str) -> (String, String) {
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", &format!("logs::tests::{test}"), "--nocapture", "--test-threads=1"])
        .env("PRODGY_TEST_LOG_FORMAT", format)
        .output()
        .unwrap();
    (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap())
}

/// In the process of its own: logs, answers one request with secrets in it, and panics in another.
async fn be_the_server(format: &str) {
    let format = if format == "json" { LogFormat::Json } else { LogFormat::Text };
    start(format, EnvFilter::new("debug")).unwrap();
    let app = Router::new()
        .route("/fine", post(async || "fine"))
        .route("/panics", post(async || -> String { panic!("no such luck") }));
    let app = local(dress(app, Settings::default()));
    for path in ["/fine?token=canary-query", "/panics"] {
        let request = post_json(path, "canary-body");
        let request = with(request, "authorization", "Bearer canary-header");
        send(&app, with(request, "x-request-id", "request-7")).await;
    }
}

#[tokio::test]
async fn json_lines_name_the_request_and_hold_no_secret() {
    if let Ok(format) = std::env::var("PRODGY_TEST_LOG_FORMAT") {
        return be_the_server(&format).await;
    }
    let (stdout, stderr) = lines_of("json_lines_name_the_request_and_hold_no_secret", "json");

    let lines: Vec<Value> = stderr
        .lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("not JSON: {line}")))
        .collect();
    let answered: Vec<&Value> =
        lines.iter().filter(|line| line["message"] == "request answered").collect();
    assert_eq!(answered.len(), 2, "{stderr}");
    assert_eq!(answered[0]["status"], 200);
    assert_eq!(answered[0]["span"]["path"], "/fine");
    assert_eq!(answered[0]["span"]["request_id"], "request-7");
    assert_eq!(answered[1]["level"], "WARN");
    let panicked = lines.iter().find(|line| line["message"] == "panicked").unwrap();
    assert_eq!(panicked["text"], "no such luck");
    assert!(panicked["place"].as_str().unwrap().contains("logs/tests.rs"), "{panicked}");
    assert!(lines.iter().any(|line| line["message"] == "request failed"), "{stderr}");
    assert!(!stderr.contains("canary"), "{stderr}");
    assert!(!stdout.contains("answered"), "a line of the log on stdout: {stdout}");
}

#[tokio::test]
async fn text_lines_are_plain_when_nobody_looks() {
    if let Ok(format) = std::env::var("PRODGY_TEST_LOG_FORMAT") {
        return be_the_server(&format).await;
    }
    let (_, stderr) = lines_of("text_lines_are_plain_when_nobody_looks", "text");

    assert!(stderr.contains("request answered status=200"), "{stderr}");
    assert!(!stderr.contains('\u{1b}'), "{stderr}");
    assert!(!stderr.contains("canary"), "{stderr}");
}
