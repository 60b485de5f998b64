//! Integrations from outside: made, changed, hidden, tried, sealed anew, deleted. The other sides are
//! small servers on loopback that speak as the real ones are documented to.

use serde_json::{Value, json};

use super::support::{Client, Product, Reply, TestApp};
use other_side::{Authority, Encrypted, MailServer, OtherSide, gives, says};

#[path = "integration/other_side.rs"]
pub mod other_side;

const BASE: &str = "/api/integrations-base";

fn text(value: &Value) -> String {
    value.as_str().unwrap().to_owned()
}

fn github(product: &Product, title: &str) -> Value {
    json!({ "product_id": product.id, "type": "github", "title": title,
            "config": { "owner": "acme" }, "secrets": { "token": "ghp_0123456789" } })
}

async fn made(client: &Client, body: Value) -> String {
    text(&client.post(BASE, body).await.expect_status(201).data()["id"])
}

async fn local_app() -> TestApp {
    TestApp::spawn_with(&[("PRODGY_HTTP_ALLOW", "127.0.0.0/8")]).await
}

/// Makes an integration of a kind, and tries it.
async fn tried(app: &TestApp, kind: &str, config: Value, secrets: Value) -> Reply {
    let body = json!({ "type": kind, "title": kind, "config": config, "secrets": secrets });
    let id = made(app, body).await;
    app.post_empty(&format!("{BASE}/{id}/test")).await.expect_status(200)
}

#[track_caller]
fn expect_failure(reply: &Reply, code: &str, words: &str) {
    assert_eq!(reply.data()["succeeded"], false, "{reply:?}");
    assert_eq!(reply.data()["code"], code, "{reply:?}");
    assert!(reply.data()["message"].as_str().unwrap().contains(words), "{reply:?}");
}

#[track_caller]
fn expect_success(reply: &Reply, words: &str) {
    assert_eq!(reply.data()["succeeded"], true, "{reply:?}");
    assert!(reply.data()["message"].as_str().unwrap().contains(words), "{reply:?}");
}

#[tokio::test]
async fn secrets_go_in_and_never_come_out() {
    let app = TestApp::spawn().await;
    let product = app.product().await;

    let reply = app.post(BASE, github(&product, "Code")).await.expect_status(201);
    let path = reply.header("location").to_owned();
    let made = reply.data().clone();
    assert_eq!(made["type"], "github");
    assert_eq!(made["scope"], "local");
    assert_eq!(made["product_id"], json!(product.id));
    assert_eq!(made["enabled"], true);
    assert_eq!(made["config"], json!({ "owner": "acme", "base_url": "https://api.github.com" }));
    assert_eq!(made["secrets"], json!({ "token": "••••6789" }));
    assert_eq!(made["secrets_version"], 1);
    assert_eq!(app.get(&path).await.expect_status(200).data(), &made);

    // As it was shown, it stays; so does what is left out.
    let same = json!({ "title": "Source", "config": made["config"], "secrets": made["secrets"] });
    let reply = app.put(&path, same).await.expect_status(200);
    assert_eq!(reply.data()["title"], "Source");
    assert_eq!(reply.data()["secrets_version"], 1, "{reply:?}");
    let reply = app.put(&path, json!({ "enabled": false })).await.expect_status(200);
    assert_eq!(reply.data()["enabled"], false);
    assert_eq!(reply.data()["secrets"], json!({ "token": "••••6789" }));

    let new = json!({ "secrets": { "token": "ghp_abcdefghijkl" } });
    let reply = app.put(&path, new).await.expect_status(200);
    assert_eq!(reply.data()["secrets"], json!({ "token": "••••ijkl" }));
    assert_eq!(reply.data()["secrets_version"], 2);
    // The mask of another one is not a secret.
    let reply = app.put(&path, json!({ "secrets": { "token": "••••6789" } })).await;
    let reply = reply.expect_problem(422, "integration_invalid");
    assert_eq!(reply.body["errors"][0]["field"], "/secrets/token");
    let reply = app.put(&path, json!({ "secrets": { "token": null } })).await;
    let reply = reply.expect_problem(422, "integration_invalid");
    assert_eq!(reply.body["errors"][0]["field"], "/secrets/token", "it cannot be without");

    let etag = app.get(&path).await.header("etag").to_owned();
    app.put_with(&path, json!({ "title": "Mine" }), "If-Match", "\"1\"").await.expect_status(412);
    app.put_with(&path, json!({ "title": "Mine" }), "If-Match", &etag).await.expect_status(200);
    app.verified();
}

#[tokio::test]
async fn what_is_wrong_is_said_at_its_place_and_nothing_is_made() {
    let app = TestApp::spawn().await;
    let product = app.product().await;
    let with = |change: Value| {
        let mut body = github(&product, "Code");
        body.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        body
    };
    for (body, code, place) in [
        (with(json!({ "scope": "global" })), "invalid_body", "/scope"),
        (with(json!({ "type": "gopher" })), "integration_type_unknown", "/type"),
        (with(json!({ "title": " " })), "name_empty", "/title"),
        (with(json!({ "config": { "ownr": "acme" } })), "integration_invalid", "/config/ownr"),
        (
            with(json!({ "config": { "base_url": "ftp://a" } })),
            "integration_invalid",
            "/config/base_url",
        ),
        (with(json!({ "secrets": {} })), "integration_invalid", "/secrets/token"),
        (with(json!({ "secrets": { "token": 7 } })), "integration_invalid", "/secrets/token"),
        (
            with(json!({ "secrets": { "token": "••••6789" } })),
            "integration_invalid",
            "/secrets/token",
        ),
    ] {
        let reply = app.post(BASE, body).await.expect_problem(422, code);
        assert_eq!(reply.body["errors"][0]["field"], place, "{reply:?}");
    }
    let mut body = github(&product, "Code");
    body.as_object_mut().unwrap().remove("title");
    app.post(BASE, body).await.expect_problem(422, "invalid_body");
    assert_eq!(app.get(BASE).await.expect_status(200).body["pagination"]["total"], 0);

    let types = app.get(&format!("{BASE}/types")).await.expect_status(200);
    let names: Vec<&str> =
        types.data().as_array().unwrap().iter().map(|it| it["type"].as_str().unwrap()).collect();
    let known =
        ["github", "gitlab", "slack", "google-chat", "teams", "smtp", "openai-compatible", "http"];
    assert_eq!(names, known);
    let of_slack = &types.data()[2]["schema"]["properties"];
    assert_eq!(of_slack["secrets"]["required"], json!(["bot_token", "signing_secret"]));
}

#[tokio::test]
async fn the_same_request_twice_makes_one() {
    let app = TestApp::spawn().await;
    let product = app.product().await;
    let send = async || {
        let body = github(&product, "Code");
        app.post_with(BASE, body, "Idempotency-Key", "once").await.expect_status(201)
    };
    let first = send().await;
    let second = send().await;
    assert_eq!(second.body["replayed"], true);
    assert_eq!(second.data(), first.data());
    let path = first.header("location").to_owned();
    app.delete(&path).await.expect_status(200);
    let third = send().await;
    assert_eq!(third.data()["id"], first.data()["id"], "and it is not brought back");
    app.get(&path).await.expect_problem(404, "integration_not_found");
    assert_eq!(app.get(BASE).await.body["pagination"]["total"], 0);
}

#[tokio::test]
async fn a_product_s_own_hide_the_global_ones_of_their_type() {
    let app = TestApp::spawn().await;
    let (product, other) = (app.product().await, app.product().await);
    let global = |kind: &str, secrets: Value| json!({ "type": kind, "title": "Ours", "config": {}, "secrets": secrets });
    let github_of_all = made(&app, global("github", json!({ "token": "ghp_0123456789" }))).await;
    let gitlab_of_all = made(&app, global("gitlab", json!({ "token": "glpat-012345" }))).await;
    let one = made(&app, github(&product, "One")).await;
    let two = made(&app, github(&product, "Two")).await;

    let active = async |client: &Client, product: &Product, query: &str| -> Vec<Value> {
        let path = format!("{BASE}/product/{}/active{query}", product.id);
        client.get(&path).await.expect_status(200).data().as_array().unwrap().clone()
    };
    let ids = |list: &[Value]| -> Vec<String> { list.iter().map(|it| text(&it["id"])).collect() };
    let all = active(&app, &product, "").await;
    assert_eq!(ids(&all), [two.as_str(), &one, &gitlab_of_all]);
    assert_eq!(ids(&active(&app, &other, "").await), [gitlab_of_all.as_str(), &github_of_all]);
    assert_eq!(ids(&active(&app, &product, "?type=gitlab").await), [gitlab_of_all.as_str()]);
    assert_eq!(ids(&active(&app, &product, "?page=2&pageSize=1").await), [one.as_str()]);

    let listed = app.get(&format!("{BASE}?product_id={}", product.id)).await.expect_status(200);
    assert_eq!(listed.body["pagination"]["total"], 4);
    let of = |id: &str| {
        listed.data().as_array().unwrap().iter().find(|it| it["id"] == id).unwrap().clone()
    };
    assert_eq!(of(&github_of_all)["shadowed_by"], json!([one, two]));
    assert_eq!(of(&github_of_all)["scope"], "global");
    assert_eq!(of(&gitlab_of_all)["shadowed_by"], json!([]));
    assert_eq!(of(&one)["shadowed_by"], json!([]));

    // What is switched off hides nothing.
    for id in [&one, &two] {
        app.put(&format!("{BASE}/{id}"), json!({ "enabled": false })).await.expect_status(200);
    }
    let all = active(&app, &product, "").await;
    assert_eq!(ids(&all), [gitlab_of_all.as_str(), &github_of_all]);

    // A product's token sees that the global ones are there, and nothing that they were told.
    let token = app.with_token(&app.token(&product, &[]).await.secret);
    let seen = active(&token, &product, "").await;
    assert_eq!(ids(&seen), [gitlab_of_all.as_str(), &github_of_all]);
    assert_eq!(seen[0]["config"], Value::Null);
    assert_eq!(seen[0]["secrets"], json!({}));
    let own = token.get(BASE).await.expect_status(200);
    assert_eq!(ids(own.data().as_array().unwrap()), [two.as_str(), &one]);
    let path = format!("{BASE}/{github_of_all}");
    token.get(&path).await.expect_problem(404, "integration_not_found");
    token.delete(&path).await.expect_problem(404, "integration_not_found");
    token.get(&format!("{BASE}?product_id={}", other.id)).await.expect_status(404);
    // Its own are its own.
    made(
        &token,
        json!({ "type": "http", "title": "Mine", "config": { "base_url": "https://a.example" } }),
    )
    .await;
    token.put(&format!("{BASE}/{one}"), json!({ "title": "Mine" })).await.expect_status(200);

    // Who does not manage the organization sees its global ones, and changes the products' own.
    let member = app.user("member").await;
    member.get(&path).await.expect_status(200);
    let refused = [
        member.put(&path, json!({ "title": "Mine" })).await,
        member.delete(&path).await,
        member.post_empty(&format!("{path}/test")).await,
        member.post_empty(&format!("{path}/rotate-key")).await,
        member.post(BASE, global("github", json!({ "token": "tttt" }))).await,
    ];
    for reply in refused {
        reply.expect_problem(403, "role_insufficient");
    }
    member.put(&format!("{BASE}/{one}"), json!({ "title": "Theirs" })).await.expect_status(200);
    app.verified();
}

fn key_files(app: &TestApp, id: &str) -> (Vec<String>, Vec<String>) {
    let folder = std::fs::read_dir(app.data_dir().join("vault/keys")).unwrap();
    let names: Vec<String> = folder
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.starts_with(&format!("integration-{id}")))
        .collect();
    names.into_iter().partition(|name| name.ends_with(".json"))
}

#[tokio::test]
async fn a_key_that_is_given_up_is_shredded() {
    let mut app = TestApp::spawn().await;
    let product = app.product().await;
    let id = made(&app, github(&product, "Code")).await;
    let path = format!("{BASE}/{id}");
    let (first, _) = key_files(&app, &id);
    assert_eq!(first, [format!("integration-{id}.json")]);

    let before = app.get(&path).await.expect_status(200);
    let reply = app.post_empty(&format!("{path}/rotate-key")).await.expect_status(200);
    for field in ["config", "secrets", "secrets_version", "title"] {
        assert_eq!(reply.data()[field], before.data()[field], "{field}");
    }
    assert!(reply.data()["key_rotated_at"].is_string(), "{reply:?}");
    let (keys, shredded) = key_files(&app, &id);
    assert_eq!(shredded, [format!("integration-{id}.shredded")]);
    assert!(keys.len() == 1 && keys != first, "{keys:?}");

    app.restart();
    let reply = app.put(&path, json!({ "secrets": { "token": "ghp_abcdefghijkl" } })).await;
    assert_eq!(reply.expect_status(200).data()["secrets"], json!({ "token": "••••ijkl" }));

    app.delete(&path).await.expect_status(200);
    let (keys, shredded) = key_files(&app, &id);
    assert_eq!((keys.len(), shredded.len()), (0, 2));
    app.get(&path).await.expect_problem(404, "integration_not_found");
    app.post_empty(&format!("{path}/rotate-key")).await.expect_status(404);

    // With a product go its integrations.
    let id = made(&app, github(&product, "Code")).await;
    let of_all =
        json!({ "type": "github", "title": "Ours", "secrets": { "token": "ghp_0123456789" } });
    let of_all = made(&app, of_all).await;
    app.delete(&format!("/api/products/{}", product.id)).await.expect_status(200);
    let (keys, shredded) = key_files(&app, &id);
    assert_eq!((keys.len(), shredded.len()), (0, 1));
    let reply = app.get(&format!("{BASE}/{of_all}")).await.expect_status(200);
    assert_eq!(reply.data()["secrets"], json!({ "token": "••••6789" }));
    app.verified();
}

#[tokio::test]
async fn a_test_of_github_and_gitlab_says_what_came_of_it() {
    let app = local_app().await;
    let side = OtherSide::start(|seen| {
        let is_good = seen.header("authorization") == "Bearer good-token"
            || seen.header("private-token") == "good-token";
        match seen.path.as_str() {
            "/user" | "/api/v4/user" if !is_good => {
                says(401, json!({ "message": "Bad credentials" }))
            }
            "/user" => says(200, json!({ "login": "octocat" })),
            "/api/v4/user" => says(200, json!({ "username": "project_7_bot" })),
            _ => says(404, json!({ "message": "Not Found" })),
        }
    })
    .await;

    let good = json!({ "token": "good-token" });
    let bad = json!({ "token": "bad-token" });
    let config = json!({ "base_url": side.url });
    let reply = tried(&app, "github", config.clone(), good.clone()).await;
    expect_success(&reply, "as octocat");
    let seen = side.seen();
    assert_eq!(seen.header("accept"), "application/vnd.github+json");
    assert_eq!(seen.header("x-github-api-version"), "2022-11-28");
    assert!(seen.header("user-agent").starts_with("prodgy/"));
    let reply = tried(&app, "github", config.clone(), bad.clone()).await;
    expect_failure(&reply, "unauthorized", "Bad credentials");
    expect_success(&tried(&app, "gitlab", config.clone(), good).await, "as project_7_bot");
    expect_failure(&tried(&app, "gitlab", config, bad).await, "unauthorized", "another");

    let elsewhere = json!({ "base_url": format!("{}/wrong", side.url) });
    let reply = tried(&app, "github", elsewhere, json!({ "token": "good-token" })).await;
    expect_failure(&reply, "not_found", "check names and address");

    // It is written down, with whose secrets and by whom.
    let audit = app.get("/api/audit-logs?resource_type=integration&action=tested").await;
    let entries = audit.expect_status(200).data().as_array().unwrap().clone();
    assert_eq!(entries.len(), 5);
    assert_eq!(entries[4]["outcome"], "success");
    assert_eq!(entries[4]["details"]["secrets_version"], 1);
    assert_eq!(entries[3]["outcome"], "failed");
    assert_eq!(entries[3]["details"]["code"], "unauthorized");
    assert!(text(&entries[3]["actor"]).starts_with("user:"));
    let listed = app.get(BASE).await.expect_status(200);
    assert_eq!(listed.data()[0]["last_test"]["code"], "not_found");
    assert_eq!(listed.data()[4]["last_test"]["succeeded"], true);
}

#[tokio::test]
async fn what_stands_in_the_way_is_said_in_words_that_help() {
    let app = local_app().await;
    let token = || json!({ "token": "a-token" });
    let config = |url: &str| json!({ "base_url": url });
    // A port that was free a moment ago.
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let reply = tried(&app, "github", config(&format!("http://{free}")), token()).await;
    expect_failure(&reply, "unreachable", "whether it is up");
    let reply = tried(&app, "github", config("https://nothing.invalid"), token()).await;
    expect_failure(&reply, "dns_failed", "nothing.invalid");
    let reply = tried(&app, "github", config("http://10.1.2.3"), token()).await;
    expect_failure(&reply, "address_refused", "http_allow");
    let side = OtherSide::start(|seen| match seen.path.as_str() {
        "/busy/user" => says(429, json!({})).with("retry-after", "120"),
        "/moved/user" => says(301, json!({})).with("location", "https://evil.example/user"),
        "/down/user" => says(503, json!({ "message": "maintenance" })),
        "/echo/user" => says(401, json!({ "message": "no token a-token here" })),
        _ => says(200, json!("hello")),
    })
    .await;
    let reply = tried(&app, "github", config(&side.url.replace("http:", "https:")), token()).await;
    expect_failure(&reply, "tls_failed", "http:// or https://");
    for (path, code, words) in [
        ("busy", "rate_limited", "120 s"),
        ("moved", "redirected", "evil.example"),
        ("down", "unavailable", "maintenance"),
        ("echo", "unauthorized", "no token •••• here"),
        ("other", "unexpected_answer", "base_url"),
    ] {
        let reply = tried(&app, "github", config(&format!("{}/{path}", side.url)), token()).await;
        expect_failure(&reply, code, words);
    }
}

#[tokio::test]
async fn a_test_of_a_chat_says_what_came_of_it() {
    let app = local_app().await;
    let side = OtherSide::start(|seen| match seen.path.as_str() {
        "/api/auth.test" if seen.header("authorization") == "Bearer xoxb-good" => {
            says(200, json!({ "ok": true, "user": "prodgy", "team": "Acme" }))
        }
        "/api/auth.test" => says(200, json!({ "ok": false, "error": "invalid_auth" })),
        "/tenant-1/oauth2/v2.0/token" if seen.body.contains("client_secret=good") => {
            says(200, json!({ "access_token": "at-1", "expires_in": 3600, "token_type": "Bearer" }))
        }
        "/tenant-1/oauth2/v2.0/token" => says(
            401,
            json!({ "error": "invalid_client", "error_description": "AADSTS7000215: wrong secret" }),
        ),
        _ => says(404, json!({})),
    })
    .await;

    let slack = json!({ "base_url": format!("{}/api", side.url) });
    let secrets = |token: &str| json!({ "bot_token": token, "signing_secret": "8f74" });
    let reply = tried(&app, "slack", slack.clone(), secrets("xoxb-good")).await;
    expect_success(&reply, "as prodgy in Acme");
    assert_eq!(side.seen().method, "POST");
    let reply = tried(&app, "slack", slack, secrets("xoxb-bad")).await;
    expect_failure(&reply, "unauthorized", "invalid_auth");

    let teams = json!({ "app_id": "app-1", "tenant": "tenant-1", "login_url": side.url });
    let reply = tried(&app, "teams", teams.clone(), json!({ "app_password": "good" })).await;
    expect_success(&reply, "for the bot");
    let body = side.seen().body;
    for part in [
        "grant_type=client_credentials",
        "client_id=app-1",
        "scope=https%3A%2F%2Fapi.botframework.com%2F.default",
    ] {
        assert!(body.contains(part), "{body}");
    }
    let reply = tried(&app, "teams", teams, json!({ "app_password": "wrong" })).await;
    expect_failure(&reply, "unauthorized", "AADSTS7000215");

    let webhook = |path: &str| json!({ "webhook_url": format!("{}{path}", side.url) });
    let good = webhook("/v1/spaces/AAA/messages?key=k&token=t");
    expect_success(&tried(&app, "google-chat", json!({}), good).await, "incoming webhook");
    assert_eq!(side.seen().path, "/", "its key is told to nobody");
    let reply = tried(&app, "google-chat", json!({}), webhook("/v1/spaces/AAA")).await;
    expect_failure(&reply, "webhook_url_invalid", "key=");
    let key = json!({ "service_account_key": "{  }" });
    expect_failure(&tried(&app, "google-chat", json!({}), key).await, "key_invalid", "download");
}

#[tokio::test]
async fn a_test_of_a_model_or_an_api_says_what_came_of_it() {
    let app = local_app().await;
    let side = OtherSide::start(|seen| match seen.path.as_str() {
        "/v1/models" if seen.header("authorization") == "Bearer sk-good" => {
            says(200, json!({ "object": "list", "data": [{ "id": "small" }, { "id": "large" }] }))
        }
        "/v1/models" => says(401, json!({ "error": { "message": "Incorrect API key provided" } })),
        "/basic" if seen.header("authorization") == "Basic YWRhOnNlY3JldA==" => {
            says(204, json!({}))
        }
        "/header" if seen.header("x-key") == "secret" => says(405, json!({})),
        "/none" => says(404, json!({})),
        _ => says(403, json!({})),
    })
    .await;

    let model = |name: &str| json!({ "base_url": format!("{}/v1", side.url), "model": name });
    let key = |key: &str| json!({ "api_key": key });
    let reply = tried(&app, "openai-compatible", model("small"), key("sk-good")).await;
    expect_success(&reply, "2 models");
    let reply = tried(&app, "openai-compatible", model("huge"), key("sk-good")).await;
    expect_success(&reply, "does not list the model huge");
    let reply = tried(&app, "openai-compatible", model("small"), key("sk-bad")).await;
    expect_failure(&reply, "unauthorized", "Incorrect API key");

    let at = |path: &str, more: Value| {
        let mut config = json!({ "base_url": format!("{}/{path}", side.url) });
        config.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        config
    };
    let basic = at("basic", json!({ "auth": "basic", "user": "ada" }));
    let secret = json!({ "password": "secret" });
    expect_success(&tried(&app, "http", basic.clone(), secret).await, "204");
    assert_eq!(side.seen().method, "HEAD");
    let reply = tried(&app, "http", basic, json!({ "password": "wrong" })).await;
    expect_failure(&reply, "forbidden", "give it the right");
    let header = at("header", json!({ "auth": "header", "header": "X-Key" }));
    expect_success(&tried(&app, "http", header, json!({ "token": "secret" })).await, "405");
    expect_success(&tried(&app, "http", at("none", json!({})), json!({})).await, "404");
}

#[tokio::test]
async fn a_test_of_a_mail_server_signs_in() {
    let app = local_app().await;
    let server = MailServer::start("ada", "open sesame").await;
    let config = json!({ "host": "127.0.0.1", "port": server.port, "security": "none",
                         "user": "ada", "from": "Prodgy <prodgy@example.com>" });
    let password = |text: &str| json!({ "password": text });
    let reply = tried(&app, "smtp", config.clone(), password("open sesame")).await;
    expect_success(&reply, "takes the password of ada");
    let reply = tried(&app, "smtp", config.clone(), password("open barley")).await;
    expect_failure(&reply, "unauthorized", "check both");
    let mut starttls = config.clone();
    starttls["security"] = json!("starttls");
    let reply = tried(&app, "smtp", starttls, password("open sesame")).await;
    assert_eq!(
        reply.data()["succeeded"],
        false,
        "it cannot, and nothing goes in the clear: {reply:?}"
    );
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let mut nowhere = config;
    nowhere["port"] = json!(free.port());
    let reply = tried(&app, "smtp", nowhere, password("open sesame")).await;
    expect_failure(&reply, "unreachable", "check host and port");
    assert!(!server.heard().contains("open barley"), "it is encoded");
}

#[tokio::test]
async fn a_mail_server_is_trusted_by_its_certificate() {
    let (known, unknown) = (Authority::new(), Authority::new());
    let folder = tempfile::tempdir().unwrap();
    let authorities = folder.path().join("authorities.pem");
    std::fs::write(&authorities, &known.certificate).unwrap();
    let app = TestApp::spawn_with(&[
        ("PRODGY_HTTP_ALLOW", "127.0.0.0/8"),
        ("SSL_CERT_FILE", authorities.to_str().unwrap()),
    ])
    .await;
    let ways: [(&str, fn(_) -> _); 2] =
        [("tls", Encrypted::Always), ("starttls", Encrypted::WhenAsked)];
    for (security, encrypted) in ways {
        let tried = async |server: &MailServer| {
            let config = json!({ "host": "127.0.0.1", "port": server.port, "security": security,
                                 "user": "ada", "from": "Prodgy <prodgy@example.com>" });
            tried(&app, "smtp", config, json!({ "password": "open sesame" })).await
        };
        let start = async |authority: &Authority| {
            let encrypted = encrypted(authority.acceptor.clone());
            MailServer::start_encrypted("ada", "open sesame", encrypted).await
        };
        let server = start(&known).await;
        expect_success(&tried(&server).await, "takes the password of ada");
        let server = start(&unknown).await;
        expect_failure(&tried(&server).await, "tls_failed", "check its certificate");
        assert!(!server.heard().contains("AUTH"), "{}", server.heard());
    }
}

#[tokio::test]
async fn a_test_under_a_key_is_made_once() {
    let app = local_app().await;
    let side = OtherSide::start(|_| says(200, json!({ "login": "octocat" }))).await;
    let body = json!({ "type": "github", "title": "Code", "config": { "base_url": side.url },
                       "secrets": { "token": "a-token" } });
    let path = format!("{BASE}/{}/test", made(&app, body).await);
    let test = async || {
        app.post_with(&path, json!({}), "Idempotency-Key", "once").await.expect_status(200)
    };
    assert_eq!(test().await.data()["succeeded"], true);
    let again = test().await;
    assert_eq!(again.body["replayed"], true);
    assert_eq!(again.data()["succeeded"], true);
    assert_eq!(side.count(), 1);
}

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
