//! Programs that were written for OpenAI's API.

use super::*;

/// The data of each event of a stream that has no names and no ids.
fn pieces(text: &str) -> Vec<Value> {
    let data = text.lines().filter_map(|line| line.strip_prefix("data: "));
    data.map(|data| serde_json::from_str(data).unwrap_or(Value::String(data.to_owned()))).collect()
}

#[tokio::test]
async fn programs_that_were_written_for_openai_are_answered() {
    let (model, app) = Model::app().await;
    let (product, _) = workspace(&app).await;
    let token = app.token(&product, &["assistant:chat"]).await;
    let program = app.bearer(&token.secret);
    let messages = json!([
        { "role": "system", "content": "Talk like a pirate." },
        { "role": "user", "content": [{ "type": "text", "text": QUESTION }] },
    ]);
    let body = json!({ "model": "prodgy", "messages": messages, "temperature": 0.1 });

    let whole = program.post("/v1/chat/completions", body.clone()).await.expect_status(200).body;
    assert_eq!(whole["object"], "chat.completion");
    assert_eq!(whole["choices"][0]["message"]["content"], "There are 25 days of leave [1].");
    assert_eq!(whole["usage"]["total_tokens"], 18, "{whole}");
    assert!(whole["sources"][0]["text"].is_string(), "{whole}");
    let asked = model.asked()[0]["messages"].clone();
    let roles: Vec<&Value> = asked.as_array().unwrap().iter().map(|turn| &turn["role"]).collect();
    assert_eq!(roles, ["system", "system", "user"], "{asked}");
    assert_eq!(asked[1]["content"], "Talk like a pirate.");

    // It is a run as any other, of whoever asked.
    let path = format!("/api/assistant/chat/runs/{}", whole["run_id"].as_str().unwrap());
    let run = program.get(&path).await.expect_status(200);
    assert_eq!(
        (&run.data()["status"], &run.data()["session"]),
        (&json!("succeeded"), &Value::Null)
    );
    app.get(&path).await.expect_problem(404, "chat_run_not_found");
    let heard = follow(&program, whole["run_id"].as_str().unwrap(), 0).await.rest().await;
    assert_eq!(answer(&heard)["content"], "There are 25 days of leave [1].");
    let sessions = program.get("/api/assistant/chat/sessions").await.expect_status(200);
    assert_eq!(sessions.data(), &json!([]));

    let mut streamed = body.clone();
    streamed["stream"] = json!(true);
    streamed["stream_options"] = json!({ "include_usage": true });
    let reply = program.post("/v1/chat/completions", streamed).await.expect_status(200);
    assert_eq!(reply.header("content-type"), "text/event-stream");
    let pieces = pieces(&reply.text());
    let told: String = pieces
        .iter()
        .filter_map(|piece| piece["choices"][0]["delta"]["content"].as_str())
        .collect();
    assert_eq!(told, "There are 25 days of leave [1].");
    assert_eq!(pieces.last().unwrap(), "[DONE]");
    assert_eq!(pieces[pieces.len() - 2]["usage"]["prompt_tokens"], 11, "{pieces:?}");
    assert_eq!(pieces[pieces.len() - 3]["choices"][0]["finish_reason"], "stop", "{pieces:?}");

    // Why the model ended is passed on.
    let short = |stream| {
        let messages =
            [json!({ "role": "user", "content": format!("To be cut short: {QUESTION}") })];
        json!({ "model": "prodgy", "messages": messages, "stream": stream })
    };
    let whole = program.post("/v1/chat/completions", short(false)).await.expect_status(200).body;
    assert_eq!(whole["choices"][0]["finish_reason"], "length", "{whole}");
    let reply = program.post("/v1/chat/completions", short(true)).await.expect_status(200);
    assert!(reply.text().contains("\"finish_reason\":\"length\""), "{}", reply.text());

    let models = program.get("/v1/models").await.expect_status(200).body;
    let embedding = models["data"][1]["id"].as_str().unwrap();
    assert_eq!(models["data"][0]["id"], "prodgy");
    let texts = json!({ "model": embedding, "input": ["paid leave", "Neptune"] });
    let vectors = program.post("/v1/embeddings", texts).await.expect_status(200).body;
    assert_eq!(vectors["data"][1]["embedding"].as_array().unwrap().len(), 384);
    assert!(vectors["usage"]["prompt_tokens"].as_u64().unwrap() > 4, "{vectors}");

    // A text of 256 tokens is read whole, and none is cut in silence.
    let words =
        |count| json!({ "model": embedding, "input": ["paid leave", "word ".repeat(count)] });
    program.post("/v1/embeddings", words(254)).await.expect_status(200);
    let reply = program.post("/v1/embeddings", words(255)).await.expect_status(422);
    let message = reply.body["error"]["message"].as_str().unwrap();
    assert!(message.contains("256") && message.contains("257"), "{message}");
    assert_eq!(reply.body["error"]["param"], "input", "{reply:?}");

    for (path, status, code, body) in [
        (
            "/v1/chat/completions",
            404,
            "model_not_found",
            json!({ "model": "gpt", "messages": messages }),
        ),
        ("/v1/chat/completions", 422, "invalid_body", json!({ "model": "prodgy", "messages": [] })),
        (
            "/v1/chat/completions",
            422,
            "invalid_body",
            json!({ "model": "prodgy", "messages": messages, "n": 2 }),
        ),
        ("/v1/embeddings", 422, "invalid_body", json!({ "model": embedding, "input": [1, 2] })),
    ] {
        let reply = program.post(path, body).await.expect_status(status);
        assert_eq!(reply.body["error"]["code"], code, "{reply:?}");
        assert!(reply.body["error"]["message"].is_string(), "{reply:?}");
    }
    let reply = app.nobody().get("/v1/models").await.expect_status(401);
    assert_eq!(reply.body["error"]["type"], "authentication_error", "{reply:?}");
}
