//! What steps ask of integrations.

use super::*;

/// Installs an agent of one step, and executes it. Answers the whole execution.
async fn executed(
    app: &TestApp,
    product: &Product,
    kinds: &[&str],
    with: Value,
    bound: Option<&str>,
) -> Value {
    // A name and version mean one manifest in a product.
    let name = format!("acme.caller-{}", uuid::Uuid::now_v7().simple());
    let manifest = json!({
        "manifest": "prodgy.agent/1", "name": name, "version": "1.0.0", "title": "Caller",
        "requires": { "integrations": [{ "slot": "tool", "kinds": kinds }] },
        "steps": [{ "id": "call", "type": "integration.call", "with": with }],
    });
    let mut body = json!({ "product_id": product.id, "manifest": manifest });
    if let Some(bound) = bound {
        body["bindings"] = json!({ "tool": bound });
    }
    let agent = app.post("/api/agent-base/install", body).await.expect_status(201);
    let run = json!({ "agent_id": agent.data()["id"], "input": {} });
    let reply = app.post("/api/workflow/execute?wait_seconds=60", run).await.expect_status(200);
    reply.data().clone()
}

async fn of_product(
    app: &TestApp,
    product: &Product,
    kind: &str,
    config: Value,
    secrets: Value,
) -> String {
    let body = json!({ "product_id": product.id, "type": kind, "title": kind, "config": config,
                       "secrets": secrets });
    made(app, body).await
}

#[tokio::test]
async fn steps_work_with_github_and_it_is_known_with_which_credential() {
    let app = local_app().await;
    let product = app.product().await;
    let side = OtherSide::start(|seen| match (seen.method.as_str(), seen.path.as_str()) {
        ("POST", "/repos/acme/shop/issues") => says(
            201,
            json!({ "id": 1, "number": 7, "html_url": "https://github.example/7", "token": "ghp_0123456789" }),
        ),
        ("POST", "/repos/acme/shop/issues/7/comments") => says(201, json!({ "id": 2, "html_url": "https://x/2" })),
        ("POST", "/repos/other/shop/pulls") => says(201, json!({ "id": 3, "number": 8, "html_url": "https://x/8" })),
        ("GET", "/repos/acme/shop/commits") => {
            let page: u64 = if seen.query.contains("page=2") { 2 } else { 1 };
            let commit = |number| json!({ "sha": format!("{page}-{number}"), "html_url": "https://x",
                "commit": { "message": "m", "author": { "name": "Ada", "date": "2026-01-01T00:00:00Z" } } });
            let commits: Vec<Value> = (0..100).map(commit).collect();
            let next = format!("<http://{}/repos/acme/shop/commits?per_page=100&page={}>; rel=\"next\"",
                seen.header("host"), page + 1);
            says(200, json!(commits)).with("link", next)
        }
        _ => says(404, json!({ "message": "Not Found" })),
    })
    .await;
    let config = json!({ "owner": "acme", "repo": "shop", "base_url": side.url });
    let secrets = json!({ "token": "ghp_0123456789" });
    let id = of_product(&app, &product, "github", config, secrets).await;

    let with = json!({ "slot": "tool", "operation": "create_issue", "title": { "template": "Broken {{ 1 + 1 }}" },
                       "body": "It is", "labels": ["bug"] });
    let run = executed(&app, &product, &["github"], with, Some(&id)).await;
    assert_eq!(run["status"], "succeeded", "{run}");
    assert_eq!(run["output"], json!({ "id": 1, "number": 7, "url": "https://github.example/7" }));
    let seen = side.seen();
    assert_eq!(seen.header("authorization"), "Bearer ghp_0123456789");
    let sent: Value = serde_json::from_str(&seen.body).unwrap();
    assert_eq!(sent, json!({ "title": "Broken 2", "body": "It is", "labels": ["bug"] }));

    // Which credential it was is known for ever, also when it is replaced and the integration is gone.
    let path = format!("{BASE}/{id}");
    app.put(&path, json!({ "secrets": { "token": "ghp_abcdefghijkl" } })).await.expect_status(200);
    let with = json!({ "slot": "tool", "operation": "comment", "issue": 7, "body": "Still" });
    let run_two = executed(&app, &product, &["github"], with, None).await;
    assert_eq!(run_two["output"], json!({ "id": 2, "url": "https://x/2" }), "{run_two}");
    assert!(app.get(&path).await.data()["last_used_at"].is_string());
    let with = json!({ "integration": id, "operation": "open_pull_request", "repository": "other/shop",
                       "title": "Fix", "head": "fix", "base": "main" });
    let run = executed(&app, &product, &["github"], with, None).await;
    assert_eq!(run["output"]["number"], 8, "{run}");

    let with = json!({ "slot": "tool", "operation": "list_commits", "limit": 150, "ref": "main" });
    let run = executed(&app, &product, &["github"], with, None).await;
    let commits = run["output"]["commits"].as_array().unwrap();
    assert_eq!(commits.len(), 150, "two pages");
    assert_eq!(commits[149]["sha"], "2-49");
    assert_eq!(commits[0]["author"], "Ada");

    app.delete(&path).await.expect_status(200);
    let uses = app.get(&format!("/api/audit-logs?resource_id={id}&action=called")).await;
    let uses = uses.expect_status(200).data().as_array().unwrap().clone();
    assert_eq!(uses.len(), 4, "{uses:?}");
    assert_eq!(uses[3]["details"]["secrets_version"], 1);
    assert_eq!(uses[2]["details"]["secrets_version"], 2);
    assert_eq!(uses[2]["details"]["execution"], run_two["id"]);
    assert_eq!(uses[2]["details"]["operation"], "comment");
    assert_eq!(uses[2]["details"]["step_id"], "call");
    let with = json!({ "integration": id, "operation": "comment", "issue": 7, "body": "x" });
    let run = executed(&app, &product, &["github"], with, None).await;
    assert_eq!(run["error"]["code"], "integration_not_found", "{run}");
    app.verified();
}

#[tokio::test]
async fn steps_work_with_gitlab_an_api_and_a_model() {
    let app = local_app().await;
    let product = app.product().await;
    let side = OtherSide::start(|seen| match (seen.method.as_str(), seen.path.as_str()) {
        ("POST", "/api/v4/projects/group%2Fshop/issues") => {
            says(201, json!({ "id": 9, "iid": 4, "web_url": "https://gitlab.example/4" }))
        }
        ("POST", "/api/v4/projects/group%2Fshop/merge_requests/5/notes") => says(201, json!({ "id": 10 })),
        ("POST", "/v1/things") => says(201, json!({ "made": true, "you_sent": "Bearer secret-token" })),
        ("POST", "/v1/chat/completions") => says(
            200,
            json!({ "model": "small-1", "choices": [{ "message": { "role": "assistant", "content": "Six." } }],
                    "usage": { "total_tokens": 9 } }),
        ),
        _ => says(404, json!({ "message": "404 Not Found" })),
    })
    .await;
    let config = json!({ "project": "group/shop", "base_url": side.url });
    let gitlab =
        of_product(&app, &product, "gitlab", config, json!({ "token": "glpat-12345" })).await;
    let with = json!({ "slot": "tool", "operation": "create_issue", "title": "Broken", "body": "b", "labels": ["a", "b"] });
    let run = executed(&app, &product, &["github", "gitlab"], with, Some(&gitlab)).await;
    assert_eq!(
        run["output"],
        json!({ "id": 9, "number": 4, "url": "https://gitlab.example/4" }),
        "{run}"
    );
    let seen = side.seen();
    assert_eq!(seen.header("private-token"), "glpat-12345");
    let sent: Value = serde_json::from_str(&seen.body).unwrap();
    assert_eq!(sent, json!({ "title": "Broken", "description": "b", "labels": "a,b" }));
    let with = json!({ "slot": "tool", "operation": "comment", "pull_request": 5, "body": "Fine" });
    let run = executed(&app, &product, &["gitlab"], with, None).await;
    assert_eq!(run["output"], json!({ "id": 10 }), "{run}");

    let config = json!({ "base_url": format!("{}/v1", side.url), "auth": "bearer" });
    let api = of_product(&app, &product, "http", config, json!({ "token": "secret-token" })).await;
    let with = json!({ "slot": "tool", "operation": "request", "path": "things", "query": { "n": 1 }, "json": { "a": 1 } });
    let run = executed(&app, &product, &["http"], with, Some(&api)).await;
    let output = json!({ "status": 201, "body": { "made": true, "you_sent": "Bearer ••••" } });
    assert_eq!(run["output"], output, "what was sent in confidence is hidden: {run}");
    let seen = side.seen();
    assert_eq!((seen.query.as_str(), seen.body.as_str()), ("n=1", "{\"a\":1}"));
    assert!(!seen.header("idempotency-key").is_empty());
    let with = json!({ "slot": "tool", "operation": "request", "path": "../secrets" });
    let run = executed(&app, &product, &["http"], with, Some(&api)).await;
    assert_eq!(run["error"]["code"], "with_invalid", "{run}");

    let config = json!({ "base_url": format!("{}/v1", side.url), "model": "small" });
    let model =
        of_product(&app, &product, "openai-compatible", config, json!({ "api_key": "sk-12345" }))
            .await;
    let with = json!({ "slot": "tool", "operation": "chat", "prompt": "When?", "system": "Be short", "max_tokens": 5 });
    let run = executed(&app, &product, &["openai-compatible"], with, Some(&model)).await;
    let output = json!({ "answer": "Six.", "model": "small-1", "usage": { "total_tokens": 9 } });
    assert_eq!(run["output"], output, "{run}");
    let sent: Value = serde_json::from_str(&side.seen().body).unwrap();
    assert_eq!(sent["messages"][0], json!({ "role": "system", "content": "Be short" }));
    assert_eq!((&sent["model"], &sent["max_tokens"]), (&json!("small"), &json!(5)));
}

#[tokio::test]
async fn steps_post_messages_and_send_mail() {
    let app = local_app().await;
    let product = app.product().await;
    let side = OtherSide::start(|seen| match seen.path.as_str() {
        "/api/chat.postMessage" if seen.body.contains("C404") => {
            says(200, json!({ "ok": false, "error": "channel_not_found" }))
        }
        "/api/chat.postMessage" => says(200, json!({ "ok": true, "channel": "C1", "ts": "1503435956.000247" })),
        "/v1/spaces/AAA/messages" => {
            says(200, json!({ "name": "spaces/AAA/messages/1", "thread": { "name": "spaces/AAA/threads/2" } }))
        }
        "/t-1/oauth2/v2.0/token" => says(200, json!({ "access_token": "at-12345", "expires_in": 3600 })),
        path if path.starts_with("/teams/v3/conversations/") => says(201, json!({ "id": "act-1" })),
        _ => says(404, json!({})),
    })
    .await;

    let config = json!({ "base_url": format!("{}/api", side.url), "channel": "C1" });
    let secrets = json!({ "bot_token": "xoxb-12345", "signing_secret": "8f742231" });
    of_product(&app, &product, "slack", config, secrets).await;
    let with = json!({ "slot": "tool", "operation": "post_message", "text": "Done", "thread": "1503435900.1" });
    let run = executed(&app, &product, &["slack"], with, None).await;
    assert_eq!(run["output"]["id"], "1503435956.000247", "{run}");
    let seen = side.seen();
    assert_eq!(seen.header("authorization"), "Bearer xoxb-12345");
    assert_eq!(seen.header("content-type"), "application/json");
    let mut sent: Value = serde_json::from_str(&seen.body).unwrap();
    let id = sent.as_object_mut().unwrap().remove("client_msg_id").unwrap();
    assert!(text(&id).parse::<uuid::Uuid>().is_ok(), "{id}");
    assert_eq!(sent, json!({ "channel": "C1", "text": "Done", "thread_ts": "1503435900.1" }));
    let with =
        json!({ "slot": "tool", "operation": "post_message", "text": "Done", "channel": "C404" });
    let run = executed(&app, &product, &["slack"], with, None).await;
    assert_eq!(run["error"]["code"], "not_found", "{run}");

    let webhook = format!("{}/v1/spaces/AAA/messages?key=k-12345&token=t-12345", side.url);
    of_product(&app, &product, "google-chat", json!({}), json!({ "webhook_url": webhook })).await;
    let with =
        json!({ "slot": "tool", "operation": "post_message", "text": "Done", "thread": "deploys" });
    let run = executed(&app, &product, &["google-chat"], with, None).await;
    assert_eq!(
        run["output"],
        json!({ "id": "spaces/AAA/messages/1", "thread": "spaces/AAA/threads/2" }),
        "{run}"
    );
    let seen = side.seen();
    for part in [
        "key=k-12345",
        "token=t-12345",
        "requestId=",
        "messageReplyOption=REPLY_MESSAGE_FALLBACK_TO_NEW_THREAD",
    ] {
        assert!(seen.query.contains(part), "{}", seen.query);
    }
    let sent: Value = serde_json::from_str(&seen.body).unwrap();
    assert_eq!(sent, json!({ "text": "Done", "thread": { "threadKey": "deploys" } }));

    let config = json!({ "app_id": "a-1", "tenant": "t-1", "login_url": side.url, "conversation": "19:x@thread.tacv2",
                         "service_url": format!("{}/teams", side.url) });
    of_product(&app, &product, "teams", config, json!({ "app_password": "secret-1" })).await;
    let with = json!({ "slot": "tool", "operation": "post_message", "text": "Done" });
    let run = executed(&app, &product, &["teams"], with, None).await;
    assert_eq!(run["output"]["id"], "act-1", "{run}");
    let seen = side.seen();
    assert_eq!(seen.path, "/teams/v3/conversations/19:x@thread.tacv2/activities");
    assert_eq!(seen.header("authorization"), "Bearer at-12345");
    let sent: Value = serde_json::from_str(&seen.body).unwrap();
    assert_eq!(sent["type"], "message");

    let server = MailServer::start("ada", "open sesame").await;
    let config = json!({ "host": "127.0.0.1", "port": server.port, "security": "none", "user": "ada",
                         "from": "Prodgy <prodgy@example.com>" });
    of_product(&app, &product, "smtp", config, json!({ "password": "open sesame" })).await;
    let with = json!({ "slot": "tool", "operation": "send_mail", "to": ["bob@example.com", "Eve <eve@example.com>"],
                       "subject": "Grüße", "text": "Hello\n.\nthere" });
    let run = executed(&app, &product, &["smtp"], with, None).await;
    assert_eq!(run["status"], "succeeded", "{run}");
    assert!(run["output"]["response"].as_str().unwrap().contains("queued as 4711"), "{run}");
    let heard = server.heard();
    for line in [
        "MAIL FROM:<prodgy@example.com>",
        "RCPT TO:<bob@example.com>",
        "RCPT TO:<eve@example.com>",
        "\n..\n",
    ] {
        assert!(heard.contains(line), "{line}: {heard}");
    }
    assert!(heard.contains(run["output"]["id"].as_str().unwrap()), "{heard}");
}

#[tokio::test]
async fn who_asks_to_be_asked_later_is_asked_later() {
    let app = local_app().await;
    let product = app.product().await;
    let asked = std::sync::atomic::AtomicUsize::new(0);
    let side = OtherSide::start(move |seen| {
        let count = asked.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        match (seen.path.as_str(), count) {
            ("/repos/acme/shop/issues", 0) => says(429, json!({})).with("retry-after", "1"),
            ("/repos/acme/shop/issues", _) => says(201, json!({ "id": 1, "number": 7 })),
            _ => says(403, json!({ "message": "API rate limit exceeded" }))
                .with("x-ratelimit-remaining", "0")
                .with("x-ratelimit-reset", "4102444800"),
        }
    })
    .await;
    let config = json!({ "owner": "acme", "repo": "shop", "base_url": side.url });
    of_product(&app, &product, "github", config, json!({ "token": "ghp_0123456789" })).await;
    let issue = json!({ "slot": "tool", "operation": "create_issue", "title": "Broken" });
    let started = std::time::Instant::now();
    let run = executed(&app, &product, &["github"], issue.clone(), None).await;
    assert_eq!(run["output"]["number"], 7, "{run}");
    assert!(started.elapsed() >= std::time::Duration::from_secs(1), "it was waited for");
    assert_eq!(side.count(), 2);

    let with = json!({ "slot": "tool", "operation": "list_commits" });
    let run = executed(&app, &product, &["github"], with, None).await;
    assert_eq!(run["error"]["code"], "rate_limited", "{run}");
    let run = executed(&app, &product, &["github"], issue, None).await;
    assert_eq!(run["error"]["code"], "rate_limited", "nothing is asked meanwhile: {run}");
    assert_eq!(side.count(), 3);
}

#[tokio::test]
async fn what_a_step_cannot_ask_is_said_at_once_or_when_it_runs() {
    let app = TestApp::spawn().await;
    let (product, other) = (app.product().await, app.product().await);
    let elsewhere = made(&app, github(&other, "Theirs")).await;
    let slack = json!({ "type": "slack", "title": "Chat",
                        "secrets": { "bot_token": "xoxb-12345", "signing_secret": "8f742231" } });
    let slack = made(&app, slack).await;
    let install = |kinds: Value, with: Value, bindings: Value| {
        json!({ "product_id": product.id, "bindings": bindings, "manifest": {
            "manifest": "prodgy.agent/1", "name": "acme.caller", "version": "1.0.0", "title": "Caller",
            "requires": { "integrations": [{ "slot": "tool", "kinds": kinds }] },
            "steps": [{ "id": "call", "type": "integration.call", "with": with }] } })
    };
    let issue = |more: Value| {
        let mut with = json!({ "slot": "tool", "operation": "create_issue", "title": "t" });
        with.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        with
    };
    for (kinds, with, code, place) in [
        (
            json!(["github"]),
            issue(json!({ "operation": "fly" })),
            "operation_unknown",
            "/operation",
        ),
        (json!(["github"]), issue(json!({ "tilte": "t" })), "argument_unknown", "/tilte"),
        (json!(["github"]), issue(json!({ "title": null })), "argument_missing", "/title"),
        (json!(["github"]), issue(json!({ "title": 7 })), "argument_mismatch", "/title"),
        (json!(["github"]), issue(json!({ "slot": "other" })), "slot_unknown", "/slot"),
        (json!(["github"]), issue(json!({ "slot": null })), "target_unclear", "/slot"),
        (json!(["slack"]), issue(json!({})), "operation_not_of_slot", "/operation"),
    ] {
        let reply = app.post("/api/agent-base/install", install(kinds, with, json!({}))).await;
        let reply = reply.expect_problem(422, "manifest_invalid");
        assert_eq!(reply.body["errors"][0]["code"], code, "{reply:?}");
        assert_eq!(reply.body["errors"][0]["field"], format!("/manifest/steps/0/with{place}"));
    }
    for (bound, code) in
        [(&elsewhere, "integration_not_found"), (&slack, "integration_not_of_kind")]
    {
        let body = install(json!(["github"]), issue(json!({})), json!({ "tool": bound }));
        let reply = app.post("/api/agent-base/install", body).await;
        let reply = reply.expect_problem(422, "bindings_invalid");
        assert_eq!(reply.body["errors"][0]["code"], code);
        assert_eq!(reply.body["errors"][0]["field"], "/bindings/tool");
    }

    let run = executed(&app, &product, &["github"], issue(json!({})), None).await;
    assert_eq!(run["error"]["code"], "integration_missing", "{run}");
    let one = made(&app, github(&product, "One")).await;
    made(&app, github(&product, "Two")).await;
    let run = executed(&app, &product, &["github"], issue(json!({})), None).await;
    assert_eq!(run["error"]["code"], "integration_ambiguous", "{run}");
    app.put(&format!("{BASE}/{one}"), json!({ "enabled": false })).await.expect_status(200);
    let run = executed(&app, &product, &["github"], issue(json!({})), Some(&one)).await;
    assert_eq!(run["error"]["code"], "integration_disabled", "{run}");
    let with = issue(json!({ "slot": null, "integration": elsewhere }));
    let run = executed(&app, &product, &["github"], with, None).await;
    assert_eq!(run["error"]["code"], "integration_not_found", "{run}");
}

/// A chat model that streams what it has to say, and repeats the key that it was shown.
async fn chat_model(name: &'static str) -> OtherSide {
    OtherSide::start(move |seen| {
        if seen.header("authorization") != format!("Bearer key-of-{name}") {
            return says(401, json!({ "error": { "message": "Incorrect API key" } }));
        }
        assert_eq!((seen.method.as_str(), seen.path.as_str()), ("POST", "/v1/chat/completions"));
        let asked: Value = serde_json::from_str(&seen.body).unwrap();
        assert_eq!((&asked["stream"], &asked["model"]), (&json!(true), &json!("small")));
        let words = [format!("I am {name}, "), format!("let in by key-of-{name}")];
        let mut events = String::new();
        for word in words {
            let event = json!({ "model": "small-2026", "choices": [{ "index": 0, "delta": { "content": word } }] });
            events.push_str(&format!("data: {event}\n\n"));
        }
        let end = json!({ "choices": [{ "index": 0, "delta": {}, "finish_reason": "stop" }],
                          "usage": { "prompt_tokens": 11, "completion_tokens": 7, "total_tokens": 18 } });
        events.push_str(&format!("data: {end}\n\ndata: [DONE]\n\n"));
        gives(200, "text/event-stream", events)
    })
    .await
}

fn model_integration(side: &OtherSide, name: &str, product: Option<&Product>) -> Value {
    json!({ "product_id": product.map(|it| &it.id), "type": "openai-compatible", "title": name,
            "config": { "base_url": format!("{}/v1", side.url), "model": "small" },
            "secrets": { "api_key": format!("key-of-{name}") } })
}

fn asker(name: &str) -> Value {
    json!({
        "manifest": "prodgy.agent/1", "name": format!("acme.{name}"), "version": "1.0.0", "title": "Asker",
        "requires": { "model": { "capability": "chat", "slot": "brain" } },
        "steps": [{ "id": "ask", "type": "llm.answer", "with": { "prompt": "Who are you?" } }],
    })
}

#[tokio::test]
async fn a_step_asks_the_model_in_its_slot_or_the_one_that_the_product_can_use() {
    let app = local_app().await;
    let product = app.product().await;
    let (local, global) = (chat_model("local").await, chat_model("global").await);
    let install = async |name: &str, bindings: Value| {
        let body =
            json!({ "product_id": product.id, "manifest": asker(name), "bindings": bindings });
        app.post("/api/agent-base/install", body).await
    };
    let unbound = install("unbound", json!({})).await.expect_status(201).data().clone();
    let run = async |agent: &Value, status: &str| {
        let run = app.execute(agent, json!({})).await;
        app.execution_until(&run, status).await
    };
    assert_eq!(run(&unbound, "failed").await["error"]["code"], "integration_missing");

    let of_all = made(&app, model_integration(&global, "global", None)).await;
    let shown = run(&unbound, "succeeded").await;
    assert_eq!(shown["output"]["answer"], "I am global, let in by ••••");
    assert_eq!(
        (&shown["output"]["model"], &shown["output"]["usage"]["total_tokens"]),
        (&json!("small-2026"), &json!(18))
    );
    let called = app.get(&format!("/api/audit-logs?resource_id={of_all}&action=called")).await;
    let called = called.data()[0]["details"].clone();
    assert_eq!(
        (&called["execution"], &called["operation"], &called["secrets_version"]),
        (&shown["id"], &json!("chat"), &json!(1)),
        "{called}"
    );
    let metrics = app.get("/metrics").await.text();
    assert!(metrics.contains("prodgy_llm_tokens_total{kind=\"prompt\"} 11"), "{metrics}");

    // A local one hides it, unless the slot is bound.
    let own = made(&app, model_integration(&local, "local", Some(&product))).await;
    let shown = run(&unbound, "succeeded").await;
    assert_eq!(shown["output"]["answer"], "I am local, let in by ••••");
    let bound = install("bound", json!({ "brain": of_all })).await.expect_status(201);
    let shown = run(bound.data(), "succeeded").await;
    assert_eq!(shown["output"]["answer"], "I am global, let in by ••••");

    let wrong = json!({ "secrets": { "api_key": "another-key" } });
    app.put(&format!("{BASE}/{own}"), wrong).await.expect_status(200);
    let failed = run(&unbound, "failed").await;
    assert_eq!(failed["error"]["code"], "llm_key_refused");
    let why = failed["error"]["message"].as_str().unwrap();
    assert!(why.contains("api_key of the integration") && !why.contains("another-key"), "{why}");

    let tool = made(&app, github(&product, "Code")).await;
    let refused = install("wrong", json!({ "brain": tool })).await;
    let refused = refused.expect_problem(422, "bindings_invalid");
    assert_eq!(refused.body["errors"][0]["code"], "integration_not_of_kind");
    app.verified();
}

#[tokio::test]
async fn a_model_in_a_private_network_is_not_asked() {
    let app = TestApp::spawn().await;
    let (product, side) = (app.product().await, chat_model("local").await);
    made(&app, model_integration(&side, "local", Some(&product))).await;
    let body = json!({ "product_id": product.id, "manifest": asker("private") });
    let agent = app.post("/api/agent-base/install", body).await.expect_status(201);
    let run = app.execute(agent.data(), json!({})).await;
    let run = app.execution_until(&run, "failed").await;
    assert_eq!((&run["error"]["code"], side.count()), (&json!("address_refused"), 0), "{run}");
}
