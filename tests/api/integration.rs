//! Integrations from outside: made, changed, hidden, tried, sealed anew, deleted. The other sides are
//! small servers on loopback that speak as the real ones are documented to.

mod mail;
pub mod other_side;
mod steps;

use serde_json::{Value, json};

use super::support::{Client, Product, Reply, TestApp};
use other_side::{Authority, Encrypted, MailServer, OtherSide, gives, says};

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
