//! Agents from outside: the catalogue, installing, configuring, uninstalling.

use serde_json::{Value, json};

use crate::support::{Product, TestApp};

const INSTALL: &str = "/api/agent-base/install";

/// An agent with a secret in its configuration and a knowledge slot, which needs no model.
pub fn counter(product: &Product) -> Value {
    json!({
        "product_id": product.id,
        "title": "My counter",
        "config": { "start": 3, "token": "canary-secret-1234" },
        "manifest": {
            "manifest": "prodgy.agent/1", "name": "acme.counter", "version": "1.2.0",
            "title": "Counter", "summary": "Adds twice",
            "config": { "type": "object", "properties": {
                "start": { "type": "integer", "default": 0 },
                "token": { "type": "string", "writeOnly": true } } },
            "inputs": { "type": "object", "properties": { "n": { "type": "integer" } }, "required": ["n"] },
            "requires": { "knowledge": [{ "slot": "handbook" }] },
            "steps": [
                { "id": "one", "type": "transform", "with": { "value": { "cel": "input.n + config.start" } } },
                { "id": "two", "type": "transform", "needs": ["one"],
                  "with": { "value": { "cel": "steps.one.output.value + 1" } } }
            ],
            "output": { "cel": "steps.two.output.value" }
        }
    })
}

#[tokio::test]
async fn the_catalogue_lists_what_can_be_installed_by_name() {
    let app = TestApp::spawn().await;
    let reply = app.get("/api/agent-base/catalog").await.expect_status(200);
    assert_eq!(reply.body["pagination"]["total"], 12);
    let first = &reply.data()[0];
    assert_eq!(first["name"], "prodgy.search");
    assert_eq!(first["manifest"]["manifest"], "prodgy.agent/1");
    assert!(first["inputs"]["properties"]["query"].is_object());
    let second = app.get("/api/agent-base/catalog?page=2&pageSize=1").await.expect_status(200);
    assert_eq!(second.data(), &json!([reply.data()[1]]));
    app.get("/api/agent-base/catalog?name=x").await.expect_problem(400, "invalid_parameters");
}

#[tokio::test]
async fn an_agent_is_installed_configured_and_uninstalled() {
    let app = TestApp::spawn().await;
    let product = app.product().await;
    let reply = app.post(INSTALL, counter(&product)).await.expect_status(201);
    let agent = reply.data().clone();
    let path = format!("/api/agent-base/{}", agent["id"].as_str().unwrap());
    assert_eq!(reply.header("location"), path);
    assert_eq!((&agent["title"], &agent["name"]), (&json!("My counter"), &json!("acme.counter")));
    assert_eq!(agent["config"], json!({ "start": 3, "token": "••••1234" }));
    assert_eq!(agent["versions"][0]["id"], agent["version_id"]);
    assert_eq!(agent["triggers"][0]["key"], "manual");
    assert_eq!(agent["last_execution"], Value::Null);

    let shown = app.get(&path).await.expect_status(200);
    assert_eq!(shown.data(), &agent);
    app.get_with(&path, "if-none-match", shown.header("etag")).await.expect_status(304);
    let listed =
        app.get(&format!("/api/agent-base/product/{}", product.id)).await.expect_status(200);
    assert_eq!(listed.data()[0]["id"], agent["id"]);

    // The masked secret that comes back means the one that is there.
    let config = json!({ "config": { "start": 4, "token": "••••1234" }, "title": "Renamed" });
    let old = shown.header("etag");
    let changed = app.put_with(&path, config.clone(), "if-match", old).await.expect_status(200);
    assert_eq!(changed.data()["config"], json!({ "start": 4, "token": "••••1234" }));
    assert_eq!(changed.data()["title"], "Renamed");
    app.put_with(&path, json!({ "enabled": false }), "if-match", old)
        .await
        .expect_problem(412, "stale");
    let wrong = app.put(&path, json!({ "config": { "start": "four" } })).await;
    let wrong = wrong.expect_problem(422, "config_invalid");
    assert_eq!(wrong.body["errors"][0]["field"], "/config/start");

    let trigger =
        format!("/api/agent-base/triggers/{}", agent["triggers"][0]["id"].as_str().unwrap());
    app.get(&trigger).await.expect_status(200);
    app.delete(&path).await.expect_status(200);
    app.get(&path).await.expect_problem(404, "agent_not_found");
    app.delete(&path).await.expect_problem(404, "agent_not_found");
    app.get(&trigger).await.expect_problem(404, "trigger_not_found");
    app.get(&format!("{path}/executions")).await.expect_status(200);
    let log = std::fs::read(app.data_dir().join("events.db")).unwrap_or_default();
    assert!(!String::from_utf8_lossy(&log).contains("canary-secret"), "it is sealed");
}

#[tokio::test]
async fn a_faulty_installation_names_each_fault_at_its_place() {
    let app = TestApp::spawn().await;
    let product = app.product().await;
    let other = app.product().await;
    let with = |change: &dyn Fn(&mut Value)| {
        let mut body = counter(&product);
        change(&mut body);
        body
    };
    let fields = |reply: &crate::support::Reply| -> Vec<String> {
        let errors = reply.body["errors"].as_array().unwrap().iter();
        errors.map(|error| error["field"].as_str().unwrap().to_owned()).collect()
    };
    let cases: [(Value, &str, &[&str]); 8] = [
        (
            with(&|body| body["agent"] = json!("prodgy.search")),
            "agent_or_manifest",
            &["/agent", "/manifest"],
        ),
        (json!({ "product_id": product.id }), "agent_or_manifest", &["/agent", "/manifest"]),
        (
            json!({ "product_id": product.id, "agent": "acme.none" }),
            "catalogue_entry_not_found",
            &["/agent"],
        ),
        (
            json!({ "product_id": product.id, "agent": "prodgy.search", "version": "9.9.9" }),
            "catalogue_entry_not_found",
            &["/version"],
        ),
        (
            with(&|body| body["manifest"]["steps"][1]["needs"] = json!(["none"])),
            "manifest_invalid",
            &["/manifest/steps/1/needs/0", "/manifest/steps/1/with/value"],
        ),
        (
            with(&|body| body["config"] = json!({ "start": "x" })),
            "config_invalid",
            &["/config/start"],
        ),
        (
            with(&|body| {
                body["bindings"] = json!({ "handbook": other.knowledge_base, "x": other.id })
            }),
            "bindings_invalid",
            &["/bindings/handbook", "/bindings/x"],
        ),
        (json!({ "agent": "prodgy.search" }), "product_missing", &["/product_id"]),
    ];
    for (body, code, expected) in cases {
        let reply = app.post(INSTALL, body).await.expect_problem(422, code);
        let found = fields(&reply);
        assert!(
            expected.iter().all(|field| found.iter().any(|one| one.starts_with(field))),
            "{found:?}"
        );
    }
    let nowhere = json!({ "product_id": uuid::Uuid::now_v7(), "agent": "prodgy.search" });
    app.post(INSTALL, nowhere).await.expect_problem(404, "product_not_found");
    let listed =
        app.get(&format!("/api/agent-base/product/{}", product.id)).await.expect_status(200);
    assert_eq!(listed.body["pagination"]["total"], 0, "nothing of a refused request is stored");
}

#[tokio::test]
async fn an_installation_that_is_sent_twice_is_made_once() {
    let app = TestApp::spawn().await;
    let product = app.product().await;
    let first = app
        .post_with(INSTALL, counter(&product), "idempotency-key", "install-1")
        .await
        .expect_status(201);
    let path = format!("/api/agent-base/{}", first.data()["id"].as_str().unwrap());
    app.put(&path, json!({ "title": "Another title" })).await.expect_status(200);
    let second = app
        .post_with(INSTALL, counter(&product), "idempotency-key", "install-1")
        .await
        .expect_status(201);
    assert_eq!(second.body["replayed"], true);
    assert_eq!(second.data(), first.data(), "the first answer, with its triggers");
    let mut another = counter(&product);
    another["title"] = json!("Another");
    let reused = app.post_with(INSTALL, another, "idempotency-key", "install-1").await;
    reused.expect_problem(422, "idempotency_key_reused");
}

#[tokio::test]
async fn a_token_installs_in_its_own_product_and_sees_no_other() {
    let app = TestApp::spawn().await;
    let (own, other) = (app.product().await, app.product().await);
    let foreign = app.agent(&other).await;
    let token = app.token(&own, &["agents:read", "agents:write"]).await;
    let program = app.with_token(&token.secret);
    let installed =
        program.post(INSTALL, json!({ "agent": "prodgy.search" })).await.expect_status(201);
    assert_eq!(installed.data()["product_id"], own.id);
    let elsewhere = json!({ "agent": "prodgy.search", "product_id": other.id });
    program.post(INSTALL, elsewhere).await.expect_problem(404, "product_not_found");
    let path = format!("/api/agent-base/{}", foreign["id"].as_str().unwrap());
    program.get(&path).await.expect_problem(404, "agent_not_found");
    program.delete(&path).await.expect_problem(404, "agent_not_found");
    program.get(&format!("{path}/executions")).await.expect_problem(403, "scope_missing");
}
