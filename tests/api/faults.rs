//! What the other side of a step does wrong: the step fails with its code, and the server serves on.

use std::convert::Infallible;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::http::header::CONTENT_TYPE;
use axum::routing::{any, post};
use futures::{StreamExt, stream};
use serde_json::{Value, json};

use super::support::TestApp;

/// A server that answers with a hundred megabytes, with what is no JSON, with nothing, or stops in the
/// middle of a stream.
async fn outside() -> String {
    let piece = Bytes::from(vec![b'x'; 1024 * 1024]);
    let huge = move || {
        let pieces = stream::iter(std::iter::repeat_n(piece.clone(), 100));
        async { Body::from_stream(pieces.map(Ok::<_, Infallible>)) }
    };
    let stalls = || async {
        let begun = json!({ "choices": [{ "index": 0, "delta": { "content": "It is" } }] });
        let begun =
            stream::iter([Bytes::from(format!("data: {begun}\n\n"))]).chain(stream::pending());
        ([(CONTENT_TYPE, "text/event-stream")], Body::from_stream(begun.map(Ok::<_, Infallible>)))
    };
    let router = Router::new()
        .route("/huge", any(huge))
        .route("/broken", any(|| async { ([(CONTENT_TYPE, "application/json")], "{\"a\": ") }))
        .route("/never", any(|| async { std::future::pending::<()>().await }))
        .route("/v1/chat/completions", post(stalls));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    format!("http://{address}")
}

#[tokio::test]
async fn a_step_whose_other_side_misbehaves_fails_and_the_server_serves_on() {
    let site = outside().await;
    let llm = format!("{site}/v1");
    let app = TestApp::spawn_with(&[
        ("PRODGY_HTTP_ALLOW", "127.0.0.1/32"),
        ("PRODGY_LLM_URL", &llm),
        ("PRODGY_LLM_MODEL", "stalls"),
        ("PRODGY_LLM_IDLE_TIMEOUT_SECONDS", "1"),
    ])
    .await;
    let product = app.product().await;
    let asks = |id: &str, path: &str| {
        json!({ "id": id, "type": "http.request", "on_error": "continue", "timeout": "20s",
                "with": { "url": format!("{site}/{path}"), "response": "json" } })
    };
    let mut never = asks("never", "never");
    never["timeout"] = json!("1s");
    let manifest = json!({
        "manifest": "prodgy.agent/1", "name": "acme.unlucky", "version": "1.0.0", "title": "Unlucky",
        "requires": { "model": { "capability": "chat" } },
        "steps": [
            asks("huge", "huge"), asks("broken", "broken"), never,
            { "id": "stalled", "type": "llm.answer", "on_error": "continue", "timeout": "20s",
              "with": { "prompt": "What is it?" } }
        ],
        "output": { "codes": { "cel": "[steps.huge.output.error.code, steps.broken.output.error.code, \
                                      steps.never.output.error.code, steps.stalled.output.error.code]" } }
    });
    let body = json!({ "product_id": product.id, "manifest": manifest });
    let agent = app.post("/api/agent-base/install", body).await.expect_status(201);
    let trigger = agent.data()["triggers"][0]["id"].as_str().unwrap();
    let execute = format!("/api/agent-base/triggers/{trigger}/execute?wait_seconds=60");
    let run = app.post(&execute, json!({})).await.expect_status(200);
    let codes: &Value = &run.data()["output"]["codes"];
    let expected =
        ["http_response_too_large", "http_body_not_json", "step_timed_out", "llm_stalled"];
    assert_eq!(codes, &json!(expected), "{run:?}");

    // Nothing is held up by that, or afterwards.
    let begun = app.post(&execute.replace("=60", "=0"), json!({})).await.expect_status(202);
    app.get("/readyz").await.expect_status(200);
    let id = begun.data()["execution_id"].as_str().unwrap().to_owned();
    app.execution_until(&id, "succeeded").await;
}
