//! Who may do what: every route of the server's own document, called as everybody.
//!
//! The one rule: a route that is not in [`ROUTES`] fails, and what may be done is decided by
//! `api::access::Right` alone, which `docs/access.md` shows.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use api::access::Access::{self, ApiToken, Everybody, Has, Session};
use api::access::{Right, Rule};
use domain::{Role, Scope};
use reqwest::Method;
use reqwest::multipart::{Form, Part};
use serde_json::{Value, json};

use super::agent::counter;
use super::communicator;
use super::support::{Client, PASSWORD, Product, Reply, TestApp, workspace};

/// Every route.
const ROUTES: &[(&str, &str, Access)] = &[
    ("GET", "/healthz", Everybody),
    ("GET", "/readyz", Everybody),
    ("GET", "/schemas/agent-manifest.json", Everybody),
    ("GET", "/.well-known/jwks.json", Everybody),
    ("POST", "/api/auth/login", Everybody),
    ("POST", "/api/auth/refresh", Everybody),
    ("POST", "/api/auth/logout", Session),
    ("GET", "/api/auth/me", Session),
    ("POST", "/api/auth/password", Session),
    ("GET", "/api/users", Has(Right::ReadUsers)),
    ("POST", "/api/users", Has(Right::WriteUsers)),
    ("GET", "/api/users/{id}", Has(Right::ReadUsers)),
    ("PUT", "/api/users/{id}", Has(Right::WriteUsers)),
    ("DELETE", "/api/users/{id}", Has(Right::WriteUsers)),
    ("DELETE", "/api/users/{id}/identity", Has(Right::WriteUsers)),
    ("GET", "/api/products", Has(Right::ReadProducts)),
    ("POST", "/api/products", Has(Right::WriteProducts)),
    ("GET", "/api/products/{productId}", Has(Right::ReadProducts)),
    ("PUT", "/api/products/{productId}", Has(Right::WriteProducts)),
    ("DELETE", "/api/products/{productId}", Has(Right::WriteProducts)),
    ("POST", "/api/api-tokens", Has(Right::WriteTokens)),
    ("GET", "/api/api-tokens/product/{productId}", Has(Right::ReadTokens)),
    ("GET", "/api/api-tokens/{id}", Has(Right::ReadTokens)),
    ("PUT", "/api/api-tokens/{id}", Has(Right::WriteTokens)),
    ("DELETE", "/api/api-tokens/{id}", Has(Right::WriteTokens)),
    ("POST", "/api/api-tokens/{id}/revoke", Has(Right::WriteTokens)),
    ("POST", "/api/api-tokens/{id}/renew", Has(Right::WriteTokens)),
    ("POST", "/api/api-tokens/{id}/regenerate", Has(Right::WriteTokens)),
    ("GET", "/api/api-tokens/{id}/audit-logs", Has(Right::ReadTokens)),
    ("GET", "/api/api-token/auth/validate", ApiToken),
    ("POST", "/api/knowledge-base", Has(Right::WriteKnowledge)),
    ("GET", "/api/knowledge-base/{productId}", Has(Right::ReadKnowledge)),
    ("GET", "/api/knowledge-base/base/{knowledgeBaseId}", Has(Right::ReadKnowledge)),
    ("PUT", "/api/knowledge-base/base/{knowledgeBaseId}", Has(Right::WriteKnowledge)),
    ("DELETE", "/api/knowledge-base/base/{knowledgeBaseId}", Has(Right::WriteKnowledge)),
    ("POST", "/api/knowledge-base/embeddings", Has(Right::ReadKnowledge)),
    ("POST", "/api/knowledge-base/{knowledgeBaseId}/evaluate", Has(Right::WriteKnowledge)),
    ("GET", "/api/knowledge-base/{knowledgeBaseId}/evaluations", Has(Right::ReadKnowledge)),
    ("GET", "/api/knowledge-base/evaluation/{evaluationId}", Has(Right::ReadKnowledge)),
    ("POST", "/api/knowledge-base/storage/upload", Has(Right::WriteKnowledge)),
    ("GET", "/api/knowledge-base/storage/{knowledgeBaseId}", Has(Right::ReadKnowledge)),
    ("GET", "/api/knowledge-base/storage/file/{id}", Has(Right::ReadKnowledge)),
    ("DELETE", "/api/knowledge-base/storage/file/{id}", Has(Right::WriteKnowledge)),
    ("GET", "/api/knowledge-base/storage/file/{id}/chunks", Has(Right::ReadKnowledge)),
    ("GET", "/api/knowledge-base/storage/file/{id}/download", Has(Right::ReadKnowledge)),
    ("GET", "/api/knowledge-base/{productId}/stream", Has(Right::ReadKnowledge)),
    ("POST", "/api/assistant/chat", Has(Right::Chat)),
    ("GET", "/api/assistant/chat/history", Has(Right::Chat)),
    ("GET", "/api/assistant/chat/sessions", Has(Right::Chat)),
    ("GET", "/api/assistant/chat/sessions/{sessionId}", Has(Right::Chat)),
    ("PUT", "/api/assistant/chat/sessions/{sessionId}", Has(Right::Chat)),
    ("DELETE", "/api/assistant/chat/sessions/{sessionId}", Has(Right::Chat)),
    ("GET", "/api/assistant/chat/runs/{runId}", Has(Right::Chat)),
    ("GET", "/api/assistant/chat/runs/{runId}/events", Has(Right::Chat)),
    ("POST", "/api/assistant/chat/runs/{runId}/cancel", Has(Right::Chat)),
    ("GET", "/api/assistant/chat/runs/{runId}/sources/{number}", Has(Right::Chat)),
    ("POST", "/v1/chat/completions", Has(Right::Chat)),
    ("POST", "/v1/embeddings", Has(Right::Chat)),
    ("GET", "/v1/models", Has(Right::Chat)),
    ("GET", "/api/agent-base/catalog", Has(Right::ReadAgents)),
    ("POST", "/api/agent-base/install", Has(Right::WriteAgents)),
    ("GET", "/api/agent-base/product/{productId}", Has(Right::ReadAgents)),
    ("GET", "/api/agent-base/{id}", Has(Right::ReadAgents)),
    ("PUT", "/api/agent-base/{id}", Has(Right::WriteAgents)),
    ("DELETE", "/api/agent-base/{id}", Has(Right::WriteAgents)),
    ("GET", "/api/agent-base/{id}/versions", Has(Right::ReadAgents)),
    ("POST", "/api/agent-base/{id}/versions", Has(Right::WriteAgents)),
    ("GET", "/api/agent-base/{id}/versions/{versionId}", Has(Right::ReadAgents)),
    ("GET", "/api/agent-base/{id}/versions/{versionId}/diff", Has(Right::ReadAgents)),
    ("GET", "/api/agent-base/{id}/executions", Has(Right::ReadExecutions)),
    ("POST", "/api/agent-base/{id}/executions/stop", Has(Right::Execute)),
    ("POST", "/api/agent-base/{id}/triggers", Has(Right::WriteAgents)),
    ("GET", "/api/agent-base/triggers/{triggerId}", Has(Right::ReadAgents)),
    ("PUT", "/api/agent-base/triggers/{triggerId}", Has(Right::WriteAgents)),
    ("DELETE", "/api/agent-base/triggers/{triggerId}", Has(Right::WriteAgents)),
    ("GET", "/api/agent-base/triggers/manual/version/{versionId}", Has(Right::ReadAgents)),
    ("POST", "/api/agent-base/triggers/{triggerId}/execute", Has(Right::Execute)),
    ("POST", "/api/agent-base/triggers/{triggerId}/rotate-secret", Has(Right::WriteAgents)),
    ("GET", "/api/agent-base/triggers/{triggerId}/deliveries", Has(Right::ReadExecutions)),
    (
        "POST",
        "/api/agent-base/triggers/{triggerId}/deliveries/{deliveryId}/replay",
        Has(Right::Execute),
    ),
    ("POST", "/api/webhook/{path}", Everybody),
    ("POST", "/api/communicator/webhook/{id}", Everybody),
    ("POST", "/api/communicator/botframework/{id}/messages", Everybody),
    ("GET", "/api/communicator/conversations", Has(Right::ReadIntegrations)),
    ("GET", "/api/communicator/conversations/{conversationId}", Has(Right::ReadIntegrations)),
    ("GET", "/api/communicator/conversations/{conversationId}/messages", Has(Right::ReadAudit)),
    ("POST", "/api/workflow/execute", Has(Right::Execute)),
    ("GET", "/api/workflow/{executionId}/status", Has(Right::ReadExecutions)),
    ("GET", "/api/workflow/{executionId}/events", Has(Right::ReadExecutions)),
    ("POST", "/api/workflow/{executionId}/stop", Has(Right::Execute)),
    ("POST", "/api/workflow/{executionId}/pause", Has(Right::Execute)),
    ("POST", "/api/workflow/{executionId}/continue", Has(Right::Execute)),
    ("POST", "/api/workflow/{executionId}/retry", Has(Right::Execute)),
    ("GET", "/api/integrations-base/types", Has(Right::ReadIntegrations)),
    ("GET", "/api/integrations-base", Has(Right::ReadIntegrations)),
    ("POST", "/api/integrations-base", Has(Right::WriteIntegrations)),
    ("GET", "/api/integrations-base/product/{productId}/active", Has(Right::ReadIntegrations)),
    ("GET", "/api/integrations-base/{id}", Has(Right::ReadIntegrations)),
    ("PUT", "/api/integrations-base/{id}", Has(Right::WriteIntegrations)),
    ("DELETE", "/api/integrations-base/{id}", Has(Right::WriteIntegrations)),
    ("POST", "/api/integrations-base/{id}/rotate-key", Has(Right::WriteIntegrations)),
    ("POST", "/api/integrations-base/{id}/test", Has(Right::WriteIntegrations)),
    ("GET", "/api/audit-logs", Has(Right::ReadAudit)),
    ("GET", "/api/audit-logs/export", Has(Right::ReadAudit)),
    ("GET", "/api/events", Has(Right::ReadEvents)),
    ("GET", "/api/events/stream", Has(Right::ReadEvents)),
    ("GET", "/api/generations", Has(Right::ReadProjections)),
    ("POST", "/api/generations", Has(Right::RebuildProjections)),
    ("GET", "/api/generations/{modelRevision}", Has(Right::ReadProjections)),
    ("DELETE", "/api/generations/{modelRevision}", Has(Right::RebuildProjections)),
    ("POST", "/api/generations/{modelRevision}/activate", Has(Right::RebuildProjections)),
    ("GET", "/api/projections", Has(Right::ReadProjections)),
    ("POST", "/api/projections/{name}/rebuild", Has(Right::RebuildProjections)),
];

/// An id of nothing: whoever has the right is told so, and nothing happens.
const NOTHING: &str = "01890000-0000-7000-8000-000000000000";

#[tokio::test]
async fn every_route_is_in_the_table_and_the_other_way_round() {
    let app = TestApp::spawn().await;

    let document = app.nobody().get("/swagger.json").await.expect_status(200).body;
    let mut documented = BTreeSet::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let access = operation["x-access"].to_string();
            documented.insert((method.to_uppercase(), path.clone(), access));
        }
    }
    let listed: BTreeSet<(String, String, String)> = ROUTES
        .iter()
        .map(|(method, path, access)| {
            ((*method).to_owned(), (*path).to_owned(), json!(access).to_string())
        })
        .collect();

    let unlisted: Vec<_> = documented.difference(&listed).collect();
    assert!(
        unlisted.is_empty(),
        "say in ROUTES and docs/access.md who may call these: {unlisted:?}"
    );
    let gone: Vec<_> = listed.difference(&documented).collect();
    assert!(gone.is_empty(), "the server has none of these (any more): {gone:?}");
}

#[test]
fn the_page_about_access_says_what_the_code_does() {
    let page = fs::read_to_string(workspace().join("docs/access.md")).unwrap();
    let rows = |start: &str| -> Vec<Vec<String>> {
        let table = page.split(start).nth(1).unwrap().split("\n\n").nth(1).unwrap();
        let cells = |line: &str| {
            line.trim_matches('|').split('|').map(|cell| cell.trim().replace('`', "")).collect()
        };
        table.lines().skip(2).map(cells).collect()
    };

    let rights: Vec<Vec<String>> = rows("## Rights")
        .into_iter()
        .map(|mut row| {
            row.remove(1);
            row
        })
        .collect();
    let expected: Vec<Vec<String>> = Right::ALL
        .iter()
        .map(|right| {
            let Rule { role, scope } = right.rule();
            let scope = scope.map_or("none: session only".to_owned(), |scope| scope.to_string());
            vec![format!("{right:?}"), role.to_string(), scope]
        })
        .collect();
    assert_eq!(rights, expected);

    let expected: Vec<Vec<String>> = ROUTES
        .iter()
        .map(|(method, path, needs)| {
            let who = match needs {
                Everybody => "everybody".to_owned(),
                Session => "a session".to_owned(),
                ApiToken => "an API token".to_owned(),
                Has(right) => format!("{right:?}"),
            };
            vec![format!("{method} {path}"), who]
        })
        .collect();
    assert_eq!(rows("## Routes"), expected);
}

#[tokio::test]
async fn nobody_reaches_what_is_not_public() {
    let app = TestApp::spawn().await;
    let fixture = Fixture::make(&app).await;

    for (method, path, needs) in ROUTES {
        for ids in [&fixture.ids, &BTreeMap::new()] {
            let status = call(&app.nobody(), method, &fill(path, ids)).await;
            match needs {
                // `/readyz` says 503 until the model is loaded.
                Everybody => assert!(![403, 500].contains(&status), "{method} {path}: {status}"),
                _ => assert_eq!(status, 401, "{method} {path} without a credential"),
            }
        }
    }
    for credential in ["nonsense", "a.b.c", "prodgy_nonsense", "prodgy_"] {
        for (method, path, needs) in ROUTES.iter().filter(|(.., needs)| !matches!(needs, Everybody))
        {
            let status = call(&app.bearer(credential), method, &fill(path, &fixture.ids)).await;
            assert_eq!(status, 401, "{method} {path} ({needs:?}) with {credential}");
        }
    }
}

#[tokio::test]
async fn a_role_may_do_what_the_matrix_says_and_nothing_else() {
    let app = TestApp::spawn().await;

    for role in Role::ALL {
        let user = app.user(&role.to_string()).await;
        for (method, path, needs) in ROUTES {
            // These are about this very session: one ends it, the other refuses a wrong password.
            if ["/api/auth/logout", "/api/auth/password"].contains(path) {
                continue;
            }
            let status = call(&user, method, &fill(path, &BTreeMap::new())).await;
            let is_let_in = status != 401 && status != 403;
            let may = match needs {
                Everybody => continue,
                Session => true,
                ApiToken => false,
                Has(right) => role >= right.rule().role,
            };
            assert_eq!(is_let_in, may, "{method} {path} ({needs:?}) as {role}: {status}");
            assert!(status < 500, "{method} {path} as {role}: {status}");
        }
    }
}

#[tokio::test]
async fn a_token_may_do_what_its_scopes_say_and_nothing_else() {
    let app = TestApp::spawn().await;
    let product = app.product().await;
    let mut tokens = BTreeMap::new();
    for scope in Scope::ALL {
        let token = app.token(&product, &[&scope.to_string()]).await;
        tokens.insert(scope.to_string(), app.with_token(&token.secret));
    }

    for (method, path, needs) in ROUTES {
        for (scope, token) in &tokens {
            let status = call(token, method, &fill(path, &BTreeMap::new())).await;
            let may = match needs {
                Everybody => continue,
                Session => false,
                ApiToken => true,
                Has(right) => right.rule().scope.is_some_and(|needed| needed.to_string() == *scope),
            };
            if may {
                assert!(status != 401 && status != 403, "{method} {path} with {scope}: {status}");
            } else {
                assert_eq!(status, 403, "{method} {path} with {scope}");
            }
        }
    }
}

#[tokio::test]
async fn the_right_is_judged_before_anything_else_of_a_request() {
    let app = TestApp::spawn().await;
    let fixture = Fixture::make(&app).await;
    let viewer = app.user("viewer").await;
    let token = app.with_token(&app.token(&fixture.product, &["products:read"]).await.secret);

    for (method, path, needs) in ROUTES {
        let (has_role, has_scope) = match needs {
            Everybody => continue,
            Session => (true, false),
            ApiToken => continue,
            Has(right) => {
                let Rule { role, scope } = right.rule();
                (role <= Role::Viewer, scope == Some(Scope::ProductsRead))
            }
        };
        let callers = [(&viewer, has_role), (&token, has_scope)];
        for (caller, _) in callers.iter().filter(|(_, may)| !may) {
            for ids in [&fixture.ids, &BTreeMap::new()] {
                for (body, media_type) in BAD_BODIES {
                    let path = fill(path, ids);
                    let mark = if path.contains('?') { '&' } else { '?' };
                    let path = format!("{path}{mark}colour=red");
                    let status = call_with(caller, method, &path, body, media_type).await;
                    assert_eq!(status, 403, "{method} {path} with {media_type} {body}");
                }
            }
        }
    }
}

#[tokio::test]
async fn what_is_not_ones_own_is_not_found_whatever_the_body_says() {
    let app = TestApp::spawn().await;
    let fixture = Fixture::make(&app).await;
    let elsewhere = app.product().await;
    let stranger = app.with_token(&app.token(&elsewhere, &[]).await.secret);

    let changes = ROUTES.iter().filter(|(method, path, _)| *method != "GET" && path.contains('{'));
    for (method, path, needs) in changes {
        let has_scope = matches!(needs, Has(right) if right.rule().scope.is_some());
        let not_found =
            [(&stranger, &fixture.ids, has_scope), (app.owner(), &BTreeMap::new(), true)];
        for (caller, ids, _) in not_found.iter().filter(|(.., may)| *may) {
            for (body, media_type) in BAD_BODIES {
                let path = fill(path, ids);
                let status = call_with(caller, method, &path, body, media_type).await;
                assert_eq!(status, 404, "{method} {path} with {media_type} {body}");
            }
        }
    }
}

#[tokio::test]
async fn what_is_of_another_product_is_not_found() {
    let app = TestApp::spawn().await;
    let fixture = Fixture::make(&app).await;
    let elsewhere = app.product().await;
    let stranger = app.with_token(&app.token(&elsewhere, &[]).await.secret);
    let before = everything(&app, &fixture).await;

    for (method, path, needs) in ROUTES.iter().filter(|(_, path, _)| path.contains('{')) {
        let status = call(&stranger, method, &fill(path, &fixture.ids)).await;
        let expected = match needs {
            Has(right) if right.rule().scope.is_some() => 404,
            // A webhook is found by its path, whoever delivers.
            Everybody => 404,
            _ => 403,
        };
        assert_eq!(status, expected, "{method} {path} by a stranger");
    }

    let Product { id, knowledge_base } = &fixture.product;
    let bodies = [
        ("/api/agent-base/install", json!({ "product_id": id, "agent": "prodgy.search" })),
        ("/api/knowledge-base", json!({ "product_id": id, "name": "Mine now" })),
        (
            "/api/integrations-base",
            json!({ "product_id": id, "type": "http", "title": "Mine now",
                    "config": { "base_url": "https://192.0.2.1" } }),
        ),
        ("/api/knowledge-base/embeddings", json!({ "product_id": id, "query": "secret" })),
        ("/api/assistant/chat", json!({ "product_id": id, "message": "secret" })),
        (
            "/v1/chat/completions",
            json!({ "product_id": id, "model": "prodgy", "messages": [{ "role": "user", "content": "secret" }] }),
        ),
        (
            "/api/knowledge-base/embeddings",
            json!({ "knowledge_base_id": knowledge_base, "query": "secret" }),
        ),
        (
            "/api/workflow/execute",
            json!({ "agent_id": fixture.ids["agent-base"], "input": { "query": "secret" } }),
        ),
    ];
    for (path, body) in bodies {
        let reply = stranger.post(path, body).await;
        assert_eq!(reply.status, 404, "{path}: {reply:?}");
    }
    let reply = stranger.upload(knowledge_base, &[("mine.txt", "text/plain", b"mine")]).await;
    assert_eq!(reply.status, 404, "{reply:?}");

    for path in ["/api/audit-logs", "/api/audit-logs/export", "/api/events", "/api/events/stream"] {
        let reply = stranger.get(&format!("{path}?product_id={id}")).await;
        reply.expect_problem(404, "product_not_found");
        let reply = stranger.get(&format!("{path}?product_id={NOTHING}")).await;
        reply.expect_problem(404, "product_not_found");
    }
    for path in ["/api/audit-logs", "/api/events"] {
        for query in ["limit=1000", &format!("limit=1000&product_id={}", elsewhere.id)] {
            let reply = stranger.get(&format!("{path}?{query}")).await.expect_status(200);
            // What a stranger tried is in its own product's log.
            let of = |entry: &Value| {
                entry["product_id"].as_str().or(entry["product"].as_str()).map(str::to_owned)
            };
            let is_own = |entry: &Value| of(entry).as_ref() == Some(&elsewhere.id);
            let entries = reply.data().as_array().unwrap();
            assert!(!entries.is_empty() && entries.iter().all(is_own), "{path}?{query}: {reply:?}");
        }
    }
    let own = stranger.get("/api/products").await.expect_status(200);
    let ids: Vec<&Value> =
        own.data().as_array().unwrap().iter().map(|product| &product["id"]).collect();
    assert_eq!(ids, [&elsewhere.id]);

    assert_eq!(everything(&app, &fixture).await, before, "a stranger changed something");
}

#[tokio::test]
async fn the_owner_and_a_member_read_everything_that_is_theirs_to_see() {
    let app = TestApp::spawn().await;
    let fixture = Fixture::make(&app).await;
    let member = app.user("member").await;

    for (method, path, needs) in ROUTES.iter().filter(|(method, ..)| *method == "GET") {
        if matches!(needs, ApiToken) {
            continue;
        }
        for (client, role) in [(app.owner(), Role::Owner), (&member, Role::Member)] {
            let status = call(client, method, &fill(path, &fixture.ids)).await;
            let is_refused = matches!(needs, Has(right) if right.rule().role > role);
            let expected = match *path {
                _ if is_refused => [403, 403],
                // What one asked the assistant is for oneself alone; the owner did.
                "/api/assistant/chat/history"
                | "/api/assistant/chat/sessions/{sessionId}"
                | "/api/assistant/chat/runs/{runId}"
                | "/api/assistant/chat/runs/{runId}/events"
                | "/api/assistant/chat/runs/{runId}/sources/{number}"
                    if role == Role::Member =>
                {
                    [404, 404]
                }
                // The model may not be loaded yet.
                "/readyz" => [200, 503],
                // There is no answer yet, nor anything that it cites.
                "/api/assistant/chat/runs/{runId}/sources/{number}" => [200, 404],
                _ => [200, 200],
            };
            assert!(expected.contains(&status), "{method} {path} as the {role}: {status}");
        }
    }
}

#[tokio::test]
async fn a_role_that_is_taken_away_is_gone_at_the_next_request() {
    let app = TestApp::spawn().await;
    let body = json!({ "email": "ada@example.com", "role": "admin", "password": PASSWORD });
    let reply = app.post("/api/users", body).await.expect_status(201);
    let path = format!("/api/users/{}", reply.data()["id"].as_str().unwrap());
    let ada = app.login("ada@example.com", PASSWORD).await;
    ada.get("/api/users").await.expect_status(200);

    app.put(&path, json!({ "role": "viewer" })).await.expect_status(200);
    ada.get("/api/users").await.expect_problem(403, "role_insufficient");

    app.delete(&path).await.expect_status(200);
    ada.get("/api/products").await.expect_status(401);
}

/// Something of every kind.
struct Fixture {
    product: Product,
    /// By the parameter of a path, or by the words before `{id}`.
    ids: BTreeMap<String, String>,
}

impl Fixture {
    async fn make(app: &TestApp) -> Fixture {
        let product = app.product().await;
        let token = app.token(&product, &[]).await;
        let agent = app.agent(&product).await;
        let file = app.text_file(&product, "secret.txt", "a secret of this product").await;
        // Of an agent that needs no model: it has ended before anybody looks.
        let counter = app.post("/api/agent-base/install", counter(&product)).await;
        let run = json!({ "agent_id": counter.data()["id"], "input": { "n": 1 } });
        let run = app.post("/api/workflow/execute?wait_seconds=60", run).await.expect_status(200);
        let body =
            json!({ "email": "somebody@example.com", "role": "viewer", "password": PASSWORD });
        let user = app.post("/api/users", body).await.expect_status(201);
        let body = json!({ "product_id": product.id, "type": "http", "title": "Tool",
                           "config": { "base_url": "https://192.0.2.1" } });
        let integration = app.post("/api/integrations-base", body).await.expect_status(201);
        let talk = json!({ "product_id": product.id, "type": "slack", "title": "Chat", "config": {},
                           "secrets": { "bot_token": "xoxb-1", "signing_secret": communicator::SECRET } });
        let talk = app.post("/api/integrations-base", talk).await.expect_status(201);
        let conversation = communicator::begin(app, talk.data()["id"].as_str().unwrap()).await;
        app.wait_ready(&file).await;
        let evaluate = format!("/api/knowledge-base/{}/evaluate", product.knowledge_base);
        let body = json!({ "questions": [{ "query": "secret", "expected": [file] }] });
        let evaluation = app.post(&evaluate, body).await.expect_status(201);
        let chat = json!({ "product_id": product.id, "message": "Hello", "session_id": "fixture" });
        let chat = app.request(Method::POST, "/api/assistant/chat").json(&chat);
        // The first event says which session and which run it is; nobody waits for the answer.
        let mut chat = chat.send().await.unwrap();
        let opening = String::from_utf8(chat.chunk().await.unwrap().unwrap().to_vec()).unwrap();
        let opening = opening.lines().find_map(|line| line.strip_prefix("data: ")).unwrap();
        let opening: Value = serde_json::from_str(opening).unwrap();
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let ids = BTreeMap::from([
            ("productId".to_owned(), product.id.clone()),
            // Of a webhook: nothing listens there.
            ("path".to_owned(), "nothing".to_owned()),
            ("deliveryId".to_owned(), NOTHING.to_owned()),
            ("knowledgeBaseId".to_owned(), product.knowledge_base.clone()),
            ("evaluationId".to_owned(), text(&evaluation.data()["id"])),
            ("modelRevision".to_owned(), text(&evaluation.data()["generation"]["model_revision"])),
            ("triggerId".to_owned(), text(&agent["triggers"][0]["id"])),
            ("versionId".to_owned(), text(&agent["version_id"])),
            ("executionId".to_owned(), text(&run.data()["id"])),
            ("name".to_owned(), "nothing".to_owned()),
            ("sessionId".to_owned(), text(&opening["id"])),
            ("runId".to_owned(), text(&opening["run_id"])),
            ("number".to_owned(), "1".to_owned()),
            ("users".to_owned(), text(&user.data()["id"])),
            ("api-tokens".to_owned(), token.id),
            ("agent-base".to_owned(), text(&agent["id"])),
            ("file".to_owned(), file),
            ("integrations-base".to_owned(), text(&integration.data()["id"])),
            // Nobody talks through this one.
            ("webhook".to_owned(), text(&integration.data()["id"])),
            ("botframework".to_owned(), text(&integration.data()["id"])),
            ("conversationId".to_owned(), conversation),
        ]);
        Fixture { product, ids }
    }
}

/// The path with ids; where none is given, with the id of nothing.
fn fill(path: &str, ids: &BTreeMap<String, String>) -> String {
    if path == "/api/assistant/chat/history" {
        let product = ids.get("productId").map_or(NOTHING, String::as_str);
        return format!("{path}?session_id=fixture&product_id={product}");
    }
    let mut before = "";
    let mut parts = Vec::new();
    for part in path.split('/') {
        match part.strip_prefix('{').and_then(|part| part.strip_suffix('}')) {
            Some(name) => {
                let name = if name == "id" { before } else { name };
                assert!(ids.is_empty() || ids.contains_key(name), "no id for {name} in {path}");
                parts.push(ids.get(name).map_or(NOTHING, String::as_str));
            }
            None => {
                before = part;
                parts.push(part);
            }
        }
    }
    parts.join("/")
}

/// Bodies that no route takes, and what they say they are.
const BAD_BODIES: [(&str, &str); 4] = [
    ("{", "application/json"),
    ("[]", "application/json"),
    ("{\"colour\": \"red\"}", "application/json"),
    ("name=red", "text/plain"),
];

/// Calls a route with this body.
async fn call_with(
    client: &Client,
    method: &str,
    path: &str,
    body: &'static str,
    media_type: &str,
) -> u16 {
    let request = client.request(Method::from_bytes(method.as_bytes()).unwrap(), path);
    let request = request.header("content-type", media_type).body(body);
    request.send().await.unwrap().status().as_u16()
}

/// Calls a route with a body that is good for it, and reads no more than the status: some answers
/// never end.
async fn call(client: &Client, method: &str, path: &str) -> u16 {
    let request = client.request(Method::from_bytes(method.as_bytes()).unwrap(), path);
    let request = if path == "/api/knowledge-base/storage/upload" {
        let file = Part::bytes(b"text".to_vec()).file_name("text.txt");
        request.multipart(Form::new().text("knowledge_base_id", NOTHING).part("file", file))
    } else {
        match body(method, path) {
            Some(body) => request.json(&body),
            None => request,
        }
    };
    request.send().await.unwrap().status().as_u16()
}

/// A body that is good for this route, about a product that is not there.
fn body(method: &str, path: &str) -> Option<Value> {
    let verb = path.rsplit('/').next().unwrap();
    let body = match (method, path) {
        ("POST", "/api/auth/login") => {
            json!({ "email": "nobody@example.com", "password": PASSWORD })
        }
        ("POST", "/api/auth/refresh") => json!({ "refresh_token": "nonsense" }),
        ("POST", "/api/auth/password") => {
            json!({ "current_password": "wrong one", "new_password": PASSWORD })
        }
        ("POST", "/api/users") => {
            let email = format!("{}@example.com", uuid::Uuid::now_v7().simple());
            json!({ "email": email, "role": "viewer", "password": PASSWORD })
        }
        ("POST", "/api/products") => json!({ "name": "Another" }),
        ("POST", "/api/api-tokens") => json!({ "product_id": NOTHING, "name": "Another" }),
        ("POST", "/api/knowledge-base") => json!({ "product_id": NOTHING, "name": "Another" }),
        ("POST", "/api/knowledge-base/embeddings") => {
            json!({ "product_id": NOTHING, "query": "anything" })
        }
        ("POST", _) if verb == "evaluate" => {
            json!({ "questions": [{ "query": "anything", "expected": [NOTHING] }] })
        }
        ("POST", "/api/assistant/chat") => {
            json!({ "product_id": NOTHING, "message": "anything" })
        }
        ("POST", "/v1/chat/completions") => {
            let messages = json!([{ "role": "user", "content": "anything" }]);
            json!({ "product_id": NOTHING, "model": "prodgy", "messages": messages })
        }
        ("POST", "/api/generations") => json!({ "model": "nothing" }),
        ("POST", "/v1/embeddings") => json!({ "model": "nothing", "input": [] }),
        ("PUT", _) if path.starts_with("/api/assistant/") => json!({ "title": "Another" }),
        ("POST", "/api/agent-base/install") => {
            json!({ "product_id": NOTHING, "agent": "prodgy.search" })
        }
        ("POST", "/api/integrations-base") => {
            let secrets = json!({ "token": "secret" });
            json!({ "product_id": NOTHING, "type": "github", "title": "Code", "secrets": secrets })
        }
        ("PUT", _) if path.starts_with("/api/integrations-base/") => json!({ "title": "Another" }),
        ("POST", "/api/workflow/execute") => {
            json!({ "agent_id": NOTHING, "input": { "query": "anything" } })
        }
        ("POST", _) if verb == "retry" => json!({ "from": "start" }),
        ("POST", _) if verb == "renew" => json!({ "expires_at": "2099-01-01T00:00:00Z" }),
        ("POST", _) if verb == "execute" => json!({ "input": { "query": "anything" } }),
        ("PUT", _) if path.starts_with("/api/agent-base/") => json!({ "title": "Another" }),
        ("PUT", _) => json!({ "name": "Another" }),
        _ => return None,
    };
    Some(body)
}

/// What the owner sees of a fixture.
async fn everything(app: &TestApp, fixture: &Fixture) -> Vec<Value> {
    let mut seen = Vec::new();
    let ids = &fixture.ids;
    for path in [
        "/api/products",
        "/api/users",
        &fill("/api/api-tokens/product/{productId}", ids),
        &fill("/api/agent-base/{id}", ids),
        &fill("/api/agent-base/triggers/{triggerId}", ids),
        &fill("/api/agent-base/{id}/executions", ids),
        &fill("/api/workflow/{executionId}/status", ids),
        &fill("/api/knowledge-base/{productId}", ids),
        &fill("/api/integrations-base/{id}", ids),
    ] {
        let reply: Reply = app.get(path).await.expect_status(200);
        seen.push(reply.body);
    }
    let files = app
        .get(&fill("/api/knowledge-base/storage/{knowledgeBaseId}", ids))
        .await
        .expect_status(200);
    seen.push(files.body["pagination"].clone());
    seen
}
