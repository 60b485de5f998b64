//! Canaries: secrets and personal data, looked for in every file, every log line, every answer.

use std::fs;
use std::path::Path;

use serde_json::{Map, Value, json};

use super::support::{Client, TestApp, eventually, said};

const PASSWORD: &str = "canary-password-7Xk2";
const NEW_PASSWORD: &str = "canary-password-9Qm4";
const CONFIG_SECRET: &str = "canary-config-secret-4Tz8";
const TOKEN: &str = "canary-integration-secret-8Gv5";
const NEW_TOKEN: &str = "canary-integration-secret-3Nc7";
const TOOL_CONFIG: &str = "canarytoolconfig1Qz9";
const EMAIL: &str = "canary-ada@example.com";
const NAME: &str = "Canary Lovelace";
const FILE_TEXT: &str = "canaryfiletext5Rw1";
const INPUT: &str = "canaryinput8Lp3";
const DESCRIPTION: &str = "canarydescription2Fy7";
const USER_AGENT: &str = "canary-agent/6Vb9";
const ADDRESS: &str = "203.0.113.77";
/// At the end of a text that is too long to stand in an event.
const LONG_INPUT: &str = "canarylonginput7Hs2";

/// The files under a folder that hold this text, with it in the clear.
fn files_with(folder: &Path, text: &str) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files_with(&path, text));
        } else {
            // A file may be gone again: read models make and drop some.
            let bytes = fs::read(&path).unwrap_or_default();
            if bytes.windows(text.len()).any(|window| window == text.as_bytes()) {
                found.push(path.display().to_string());
            }
        }
    }
    found
}

/// What every kind of read answers.
async fn all_answers(
    client: &Client,
    product: &str,
    agent: &str,
    token: &str,
    file: &str,
) -> String {
    let mut text = String::new();
    for path in [
        "/api/users".to_owned(),
        "/api/auth/me".to_owned(),
        "/api/products".to_owned(),
        "/api/audit-logs?limit=1000".to_owned(),
        "/api/audit-logs/export".to_owned(),
        "/api/events?limit=1000".to_owned(),
        "/api/projections".to_owned(),
        "/metrics".to_owned(),
        "/readyz".to_owned(),
        format!("/api/api-tokens/product/{product}"),
        format!("/api/api-tokens/{token}"),
        format!("/api/api-tokens/{token}/audit-logs"),
        format!("/api/agent-base/product/{product}"),
        format!("/api/agent-base/{agent}"),
        format!("/api/agent-base/{agent}/executions"),
        format!("/api/knowledge-base/storage/file/{file}"),
    ] {
        let reply = client.get(&path).await;
        assert!(reply.is_success() || path == "/readyz", "{path}: {reply:?}");
        text.push_str(&reply.text());
    }
    text
}

#[tokio::test]
async fn no_secret_is_in_a_file_a_log_line_or_an_answer() {
    let mut app = TestApp::spawn_with(&[
        ("PRODGY_LOG", "trace"),
        ("PRODGY_HTTP_ALLOW", "127.0.0.0/8"),
        ("PRODGY_TRUSTED_PROXIES", "127.0.0.0/8"),
    ])
    .await;
    let secrets_and_facts = live_a_little(&app).await;
    let Lived { secrets, product, agent, token, file } = &secrets_and_facts;
    let mut answers = all_answers(&app, product, agent, token, file).await;
    for path in [
        "/api/integrations-base".to_owned(),
        format!("/api/integrations-base?product_id={product}"),
        format!("/api/integrations-base/product/{product}/active"),
    ] {
        answers.push_str(&app.get(&path).await.expect_status(200).text());
    }
    app.restart();
    app.stop();
    // What is exported lies beside everything else, and is searched with it.
    let export = app.data_dir().join("export.tar");
    said(&app.run(&["export", "--out", export.to_str().unwrap()]));

    let stderr = app.stderr();
    let folder = app.data_dir();
    // The search must be able to find something.
    assert!(
        !files_with(&folder, product).is_empty() && stderr.contains("/api/products"),
        "the canaries prove nothing"
    );

    for secret in secrets {
        assert!(!answers.contains(secret), "{secret} is in an answer");
        assert!(!stderr.contains(secret), "{secret} is in the log output");
        assert_eq!(files_with(&folder, secret), [""; 0], "{secret} is in the clear");
    }

    // What is said of things is sealed in the read models too.
    assert_eq!(files_with(&folder, DESCRIPTION), [""; 0]);
    for personal in [DESCRIPTION, ADDRESS] {
        assert!(answers.contains(personal), "nobody can read {personal}");
    }
    assert_eq!(files_with(&folder, LONG_INPUT), [""; 0], "a long text lies in the clear");
    for personal in
        [EMAIL, NAME, DESCRIPTION, FILE_TEXT, INPUT, LONG_INPUT, USER_AGENT, ADDRESS, TOOL_CONFIG]
    {
        assert!(!stderr.contains(personal), "{personal} is in the log output");
        let in_log: Vec<String> = files_with(&folder, personal)
            .into_iter()
            .filter(|path| path.contains("events.db"))
            .collect();
        assert_eq!(in_log, [""; 0], "{personal} is in the event log for ever");
    }
}

struct Lived {
    secrets: Vec<String>,
    product: String,
    agent: String,
    token: String,
    file: String,
}

/// Uses everything that takes or makes a secret.
async fn live_a_little(app: &TestApp) -> Lived {
    let nobody = app.nobody();
    let mut secrets = vec![PASSWORD.to_owned(), NEW_PASSWORD.to_owned(), CONFIG_SECRET.to_owned()];
    secrets.push(super::support::PASSWORD.to_owned());
    secrets.extend([TOKEN.to_owned(), NEW_TOKEN.to_owned()]);

    let user = json!({ "email": EMAIL, "name": NAME, "role": "admin", "password": PASSWORD });
    app.post("/api/users", user).await.expect_status(201);
    let login = nobody
        .post("/api/auth/login", json!({ "email": EMAIL, "password": PASSWORD }))
        .await
        .expect_status(200);
    let refresh = login.data()["refresh_token"].as_str().unwrap().to_owned();
    let again = nobody
        .post("/api/auth/refresh", json!({ "refresh_token": refresh }))
        .await
        .expect_status(200);
    let change = json!({ "current_password": PASSWORD, "new_password": NEW_PASSWORD });
    let ada = app.bearer(again.data()["access_token"].as_str().unwrap());
    ada.post("/api/auth/password", change).await.expect_status(200);
    for reply in [&login, &again] {
        secrets.extend(
            ["access_token", "refresh_token"]
                .map(|name| reply.data()[name].as_str().unwrap().to_owned()),
        );
    }
    // Refused attempts hold secrets as well.
    let typed_wrong = "canary-typed-wrong-2Hd6";
    secrets.push(typed_wrong.to_owned());
    nobody
        .post("/api/auth/login", json!({ "email": EMAIL, "password": typed_wrong }))
        .await
        .expect_status(401);
    nobody
        .post("/api/auth/login", json!({ "email": EMAIL, "passwort": typed_wrong }))
        .await
        .expect_status(422);
    app.with_token(&format!("prodgy_{typed_wrong}")).get("/api/products").await.expect_status(401);
    app.bearer(typed_wrong).get("/api/products").await.expect_status(401);
    put_into_paths(app, &[typed_wrong, EMAIL, PASSWORD]).await;

    let product = app.product().await;
    describe(app, &product.id).await;
    let token = app.token(&product, &[]).await;
    let program = app.with_token(&token.secret);
    let request =
        program.request(reqwest::Method::GET, "/api/products").header("user-agent", USER_AGENT);
    program.send(request.header("x-forwarded-for", ADDRESS)).await.expect_status(200);
    let regenerated = app
        .post_empty(&format!("/api/api-tokens/{}/regenerate", token.id))
        .await
        .expect_status(200);
    // The whole token where its id belongs.
    put_into_paths(app, &[&token.secret]).await;
    secrets
        .extend([token.secret.clone(), regenerated.data()["token"].as_str().unwrap().to_owned()]);

    let file = app.text_file(&product, "note.txt", &format!("A note about {FILE_TEXT}.")).await;
    app.wait_ready(&file).await;
    use_an_integration(app, &product.id).await;
    secrets.extend(make_one_of_each_kind(app, &product.id).await);
    let agent = app.post("/api/agent-base/install", agent(&product.id)).await.expect_status(201);
    let trigger = agent.data()["triggers"][0]["id"].as_str().unwrap();
    let execute = format!("/api/agent-base/triggers/{trigger}/execute?wait_seconds=60");
    let run = app.post(&execute, json!({ "input": { "text": INPUT } })).await.expect_status(200);
    // An agent that tells what it knows puts out a mask.
    assert_eq!(run.data()["output"], format!("{INPUT}••••"), "{run:?}");
    let told = &run.data()["steps"][0]["output"]["told"];
    assert_eq!(told, "the password is ••••", "{run:?}");
    let long = format!("{}{LONG_INPUT}", "at length ".repeat(2_000));
    let run = app.post(&execute, json!({ "input": { "text": long } })).await.expect_status(200);
    assert_eq!(run.data()["output"], format!("{long}••••"), "{run:?}");
    let search = json!({ "query": FILE_TEXT, "product_id": product.id });
    eventually("the note is not found", async || {
        let reply = app.post("/api/knowledge-base/embeddings", search.clone()).await;
        reply.text().contains(FILE_TEXT).then_some(())
    })
    .await;
    let agent = agent.data()["id"].as_str().unwrap().to_owned();
    secrets.extend(use_a_webhook(app, &agent).await);
    Lived { secrets, product: product.id, agent, token: token.id, file }
}

/// Says something about a product and about a knowledge base, when they are made and later.
async fn describe(app: &TestApp, product: &str) {
    let said = |of: &str| json!({ "name": of, "description": format!("{of}: {DESCRIPTION}") });
    app.put(&format!("/api/products/{product}"), said("product")).await.expect_status(200);
    app.post("/api/products", said("other product")).await.expect_status(201);
    let mut base = said("base");
    base["product_id"] = json!(product);
    let made = app.post("/api/knowledge-base", base).await.expect_status(201);
    let path = format!("/api/knowledge-base/base/{}", made.data()["id"].as_str().unwrap());
    app.put(&path, said("other base")).await.expect_status(200);
}

/// Asks for paths that hold what belongs into none, of routes that there are and that there are not.
async fn put_into_paths(app: &TestApp, secrets: &[&str]) {
    for secret in secrets {
        for path in [
            format!("/api/api-tokens/{secret}"),
            format!("/api/webhook/{secret}"),
            format!("/api/nothing/{secret}"),
            format!("/{secret}/api/products"),
        ] {
            for client in [app.owner(), &app.nobody()] {
                let refused = client.get(&path).await;
                assert!((400..500).contains(&refused.status), "{path}: {refused:?}");
            }
        }
    }
}

/// Makes one, tries it, changes it, seals it anew, gets it wrong, and deletes another.
async fn use_an_integration(app: &TestApp, product: &str) {
    // The other side says back what it was told, as an ill-bred one does.
    let told_back = |headers: axum::http::HeaderMap| async move {
        let told = headers["authorization"].to_str().unwrap().to_owned();
        (axum::http::StatusCode::UNAUTHORIZED, axum::Json(json!({ "message": told })))
    };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let router = axum::Router::new().fallback(told_back);
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    let body = |token: &str| {
        json!({ "product_id": product, "type": "github", "title": "Code",
                "config": { "owner": TOOL_CONFIG, "base_url": url },
                "secrets": { "token": token } })
    };
    let made = app.post("/api/integrations-base", body(TOKEN)).await.expect_status(201);
    let path = format!("/api/integrations-base/{}", made.data()["id"].as_str().unwrap());
    let tested = app.post_empty(&format!("{path}/test")).await.expect_status(200);
    let message = tested.data()["message"].as_str().unwrap();
    assert!(message.contains("Bearer ••••") && !message.contains(TOKEN), "{message}");
    app.put(&path, json!({ "secrets": { "token": NEW_TOKEN } })).await.expect_status(200);
    app.put(&path, json!({ "secrets": { "tokn": NEW_TOKEN } })).await.expect_status(422);
    app.put(&path, json!({ "secrets": { "token": [NEW_TOKEN] } })).await.expect_status(422);
    for wrong in [json!(NEW_TOKEN), json!([NEW_TOKEN]), json!({ "token": { "t": NEW_TOKEN } })] {
        let refused = app.put(&path, json!({ "secrets": wrong })).await.expect_status(422);
        assert!(!refused.text().contains(NEW_TOKEN), "{refused:?}");
    }
    app.post_empty(&format!("{path}/rotate-key")).await.expect_status(200);
    let other = app.post("/api/integrations-base", body(TOKEN)).await.expect_status(201);
    let other = format!("/api/integrations-base/{}", other.data()["id"].as_str().unwrap());
    app.delete(&other).await.expect_status(200);
}

/// An integration of each kind, with each secret that it may have.
async fn make_one_of_each_kind(app: &TestApp, product: &str) -> Vec<String> {
    let canary = |name: &str| format!("canary-{name}-6Ws1");
    let url = "https://canary.example/v1";
    let teams = json!({ "app_id": "bot", "tenant": "t" });
    let smtp = json!({ "host": "canary.example", "from": "a@example.com", "user": "me" });
    let http = json!({ "base_url": url, "auth": "bearer" });
    let key = json!({ "client_email": "a@example.com", "private_key": canary("private-key") });
    let webhook_url = format!("{url}/spaces/A/messages?key=k&token={}", canary("webhook-url"));
    let plain = |names: &[&str]| {
        names.iter().map(|name| ((*name).to_owned(), json!(canary(name)))).collect::<Map<_, _>>()
    };
    let google = Map::from_iter([
        ("service_account_key".to_owned(), json!(key.to_string())),
        ("webhook_url".to_owned(), json!(webhook_url)),
    ]);
    for (kind, config, secrets) in [
        ("gitlab", json!({}), plain(&["token"])),
        ("slack", json!({}), plain(&["bot_token", "signing_secret"])),
        ("google-chat", json!({}), google),
        ("teams", teams, plain(&["app_password"])),
        ("smtp", smtp, plain(&["password"])),
        ("openai-compatible", json!({}), plain(&["api_key"])),
        ("http", http, plain(&["token"])),
    ] {
        let body = json!({ "product_id": product, "type": kind, "title": kind, "config": config,
                           "secrets": secrets });
        let made = app.post("/api/integrations-base", body).await.expect_status(201);
        let path = format!("/api/integrations-base/{}", made.data()["id"].as_str().unwrap());
        app.post_empty(&format!("{path}/rotate-key")).await.expect_status(200);
    }
    let names = [
        "token",
        "bot_token",
        "signing_secret",
        "private-key",
        "webhook-url",
        "app_password",
        "password",
        "api_key",
    ];
    names.map(canary).to_vec()
}

/// Makes a webhook, delivers to it, and exchanges its secret for one of ours and one that is made.
async fn use_a_webhook(app: &TestApp, agent: &str) -> Vec<String> {
    let mut secrets = vec!["canary-webhook-2Jt7".to_owned(), "canary-rotated-5Pd3".to_owned()];
    let body = json!({ "type": "webhook", "path": "canary", "verify": "token", "header": "X-Token",
                       "secret": secrets[0], "input": { "text": "delivered" } });
    let made = app.post(&format!("/api/agent-base/{agent}/triggers"), body).await;
    let made = made.expect_status(201);
    let path = format!("/api/agent-base/triggers/{}", made.data()["id"].as_str().unwrap());
    let rotate = format!("{path}/rotate-secret");
    let own = json!({ "secret": secrets[1], "grace_seconds": 60 });
    app.post(&rotate, own).await.expect_status(200);
    let rotated = app.post(&rotate, json!({ "grace_seconds": 60 })).await.expect_status(200);
    secrets.push(rotated.data()["secret"].as_str().unwrap().to_owned());
    let mut statuses = Vec::new();
    for secret in &secrets {
        let sent = app
            .request(reqwest::Method::POST, "/api/webhook/canary")
            .header("x-token", secret)
            .body("{}");
        statuses.push(app.send(sent).await.status);
    }
    assert_eq!(statuses, [401, 200, 200]);
    for path in [path.clone(), format!("{path}/deliveries")] {
        let answer = app.get(&path).await.expect_status(200).text();
        assert!(!secrets.iter().any(|secret| answer.contains(secret)), "{answer}");
    }
    secrets
}

fn agent(product: &str) -> Value {
    json!({
        "product_id": product,
        "config": { "password": CONFIG_SECRET },
        "manifest": {
            "manifest": "prodgy.agent/1", "name": "acme.echo", "version": "1.0.0", "title": "Echo", "summary": "Says it again",
            "config": { "type": "object", "properties": { "password": { "type": "string", "writeOnly": true } } },
            "inputs": { "type": "object", "properties": { "text": { "type": "string" } }, "required": ["text"] },
            "steps": [{ "id": "echo", "type": "transform", "with": {
                "text": { "cel": "input.text" },
                "told": { "template": "the password is {{ config.password }}" }
            } }],
            "output": { "cel": "steps.echo.output.text + config.password" }
        }
    })
}
