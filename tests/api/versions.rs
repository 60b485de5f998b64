//! Versions of agents from outside: published, compared, activated, rolled back, executed by name.

use reqwest::Method;
use serde_json::{Value, json};

use crate::support::{Product, Reply, TestApp, eventually};

/// A manifest that adds its version to what it is given.
fn manifest(version: &str, adds: i64) -> Value {
    json!({
        "manifest": "prodgy.agent/1", "name": "acme.adder", "version": version, "title": "Adder",
        "config": { "type": "object", "properties": {
            "start": { "type": "integer", "default": 0 },
            "token": { "type": "string", "writeOnly": true } } },
        "inputs": { "type": "object", "properties": { "n": { "type": "integer" } }, "required": ["n"] },
        "steps": [
            { "id": "one", "type": "transform", "with": { "value": { "cel": "input.n + config.start" } } },
            { "id": "two", "type": "transform", "needs": ["one"],
              "with": { "value": { "cel": format!("steps.one.output.value + {adds}") } } }
        ],
        "output": { "cel": "steps.two.output.value" }
    })
}

/// The same, started by the clock every second while it is the active version.
fn ticking(version: &str, adds: i64) -> Value {
    let mut manifest = manifest(version, adds);
    manifest["triggers"] = json!([
        { "id": "manual", "type": "manual" },
        { "id": "tick", "type": "schedule", "cron": "* * * * * *", "overlap": "allow", "input": { "n": 1 } }
    ]);
    manifest
}

struct Installed {
    app: TestApp,
    product: Product,
    agent: Value,
    path: String,
}

async fn installed_with(manifest: Value, config: Value) -> Installed {
    let app = TestApp::spawn().await;
    let product = app.product().await;
    let body = json!({ "product_id": product.id, "manifest": manifest, "config": config });
    let reply = app.post("/api/agent-base/install", body).await.expect_status(201);
    let agent = reply.data().clone();
    let path = format!("/api/agent-base/{}", agent["id"].as_str().unwrap());
    Installed { app, product, agent, path }
}

async fn installed() -> Installed {
    installed_with(manifest("1.0.0", 1), json!({ "start": 10, "token": "canary-secret-1234" }))
        .await
}

impl Installed {
    fn versions(&self) -> String {
        format!("{}/versions", self.path)
    }

    async fn publish(&self, body: Value) -> Reply {
        self.app.post(&self.versions(), body).await
    }

    async fn activate(&self, version: &Value) -> Reply {
        self.app.put(&self.path, json!({ "version_id": version })).await
    }

    /// The output of an execution, and the version that it ran.
    async fn run(&self, version: Option<&Value>) -> (Value, Value) {
        let mut body = json!({ "agent_id": self.agent["id"], "input": { "n": 1 } });
        if let Some(version) = version {
            body["version_id"] = version.clone();
        }
        let ran = self.app.post("/api/workflow/execute?wait_seconds=60", body).await;
        let ran = ran.expect_status(200);
        assert_eq!(ran.data()["status"], "succeeded", "{ran:?}");
        (ran.data()["output"].clone(), ran.data()["version_id"].clone())
    }

    async fn stored(&self) -> Vec<String> {
        let id = self.agent["id"].as_str().unwrap();
        let rows = self.app.get(&format!("/api/events?limit=1000&stream=agent-{id}")).await;
        let rows = rows.expect_status(200);
        let types = rows.data().as_array().unwrap().iter();
        let mut types: Vec<String> =
            types.map(|event| event["type"].as_str().unwrap().to_owned()).collect();
        types.sort_unstable();
        types
    }
}

#[tokio::test]
async fn a_version_is_published_listed_compared_and_rolled_back() {
    let it = installed().await;
    let first = &it.agent["version_id"];
    assert_eq!(it.run(None).await, (json!(12), first.clone()));

    let second = it.publish(json!({ "manifest": manifest("1.1.0", 2) })).await.expect_status(201);
    let version = second.data();
    let path = format!("{}/{}", it.versions(), version["id"].as_str().unwrap());
    assert_eq!(second.header("location"), path);
    assert_eq!((&version["version"], &version["active"]), (&json!("1.1.0"), &json!(true)));
    assert_eq!(version["manifest"], manifest("1.1.0", 2));
    assert_eq!(version["triggers"][0]["key"], "manual");
    assert!(version["created_by"].as_str().unwrap().starts_with("user:"), "{version}");
    let shown = it.app.get(&path).await.expect_status(200);
    assert_eq!((shown.data(), shown.header("etag")), (version, second.header("etag")));
    it.app.get_with(&path, "if-none-match", shown.header("etag")).await.expect_status(304);

    let agent = it.app.get(&it.path).await.expect_status(200);
    assert_eq!(
        (&agent.data()["version"], &agent.data()["version_id"]),
        (&json!("1.1.0"), &version["id"])
    );
    assert_eq!(agent.data()["manifest"], manifest("1.1.0", 2));
    let listed = it.app.get(&it.versions()).await.expect_status(200);
    assert_eq!(listed.data(), &agent.data()["versions"]);
    let ids = |list: &Value| -> Vec<(Value, Value)> {
        let versions = list.as_array().unwrap().iter();
        versions.map(|it| (it["id"].clone(), it["active"].clone())).collect()
    };
    let expected = [(version["id"].clone(), json!(true)), (first.clone(), json!(false))];
    assert_eq!(ids(listed.data()), expected);
    assert_eq!(it.run(None).await, (json!(13), version["id"].clone()));
    assert_eq!(it.run(Some(first)).await, (json!(12), first.clone()));

    // A rollback is one event.
    let before = it.stored().await.len();
    let back = it.activate(first).await.expect_status(200);
    assert_eq!(back.data()["version_id"], *first);
    assert_eq!(it.stored().await.len(), before + 1);
    it.activate(first).await.expect_status(200);
    assert_eq!(it.stored().await.len(), before + 1, "what changes nothing writes nothing");
    assert_eq!(it.run(None).await, (json!(12), first.clone()));

    let diff = it.app.get(&format!("{path}/diff")).await.expect_status(200);
    let diff = diff.data();
    assert_eq!((&diff["against"]["id"], &diff["version"]["id"]), (first, &version["id"]));
    assert_eq!(diff["steps"]["changed"], json!(["two"]));
    let patch = json!([
        { "op": "replace", "path": "/steps/1/with/value/cel", "value": "steps.one.output.value + 2" },
        { "op": "replace", "path": "/version", "value": "1.1.0" },
    ]);
    assert_eq!(diff["patch"], patch);
    assert_eq!(
        diff["summary"],
        json!(["`/version` was changed", "step `two`: `/with/value/cel` was changed"])
    );
    assert_eq!(diff["changes"][1]["before"], "steps.one.output.value + 1");
    let itself = format!("{path}/diff?against={}", version["id"].as_str().unwrap());
    assert_eq!(it.app.get(&itself).await.expect_status(200).data()["patch"], json!([]));
    let nothing = uuid::Uuid::now_v7();
    for path in [
        format!("{}/{nothing}", it.versions()),
        format!("{}/{nothing}/diff", it.versions()),
        format!("{path}/diff?against={nothing}"),
    ] {
        it.app.get(&path).await.expect_problem(404, "version_not_found");
    }
    it.app.get(&format!("{path}/diff?with=x")).await.expect_problem(400, "invalid_parameters");
    let unknown = it.activate(&json!(nothing)).await.expect_problem(422, "version_not_found");
    assert_eq!(unknown.body["errors"][0]["field"], "/version_id");

    let of_first = format!("{}/executions?version_id={}", it.path, first.as_str().unwrap());
    assert_eq!(it.app.get(&of_first).await.body["pagination"]["total"], 3);

    // History outlives the agent, and the log tells all of it.
    it.app.delete(&it.path).await.expect_status(200);
    it.app.get(&it.path).await.expect_problem(404, "agent_not_found");
    let listed = it.app.get(&it.versions()).await.expect_status(200);
    assert_eq!(listed.data().as_array().unwrap().len(), 2);
    it.app.get(&format!("{path}/diff")).await.expect_status(200);
    it.publish(json!({ "manifest": manifest("9.0.0", 1) }))
        .await
        .expect_problem(404, "agent_not_found");
    let mut app = it.app;
    app.stop();
    app.verified();
}

#[tokio::test]
async fn a_version_is_published_once_and_a_name_and_version_mean_one_manifest_for_ever() {
    let it = installed().await;
    let body = json!({ "manifest": manifest("1.1.0", 2) });
    let path = it.versions();
    let publish = |body: Value| it.app.post_with(&path, body, "idempotency-key", "one");
    let first = publish(body.clone()).await.expect_status(201);
    let again = publish(body.clone()).await.expect_status(201);
    assert_eq!((again.data(), &again.body["replayed"]), (first.data(), &json!(true)));
    publish(json!({ "manifest": manifest("1.2.0", 2) }))
        .await
        .expect_problem(422, "idempotency_key_reused");

    let same = it.publish(body).await.expect_problem(409, "version_already_published");
    let names = |reply: &Reply, text: &Value| {
        assert!(reply.body["message"].as_str().unwrap().contains(text.as_str().unwrap()));
    };
    names(&same, &first.data()["id"]);
    names(&same, &json!("1.1.0"));
    let other = it.publish(json!({ "manifest": manifest("1.1.0", 3) })).await;
    let other = other.expect_problem(409, "manifest_version_taken");
    names(&other, &json!("another version"));
    let mut renamed = manifest("2.0.0", 2);
    renamed["name"] = json!("acme.other");
    let renamed = it.publish(json!({ "manifest": renamed })).await;
    let renamed = renamed.expect_problem(422, "manifest_name_differs");
    assert_eq!(renamed.body["errors"][0]["field"], "/manifest/name");

    // Within the product it is so for other agents, too; elsewhere it is not.
    let install = |product: &Product, manifest: Value| {
        let body = json!({ "product_id": product.id, "manifest": manifest });
        it.app.post("/api/agent-base/install", body)
    };
    install(&it.product, manifest("1.1.0", 2)).await.expect_status(201);
    install(&it.product, manifest("1.1.0", 4)).await.expect_problem(409, "manifest_version_taken");
    let elsewhere = it.app.product().await;
    install(&elsewhere, manifest("1.1.0", 4)).await.expect_status(201);
    // What was refused has claimed nothing.
    install(&it.product, manifest("1.2.0", 5)).await.expect_status(201);

    // It is never released.
    it.app.delete(&it.path).await.expect_status(200);
    install(&it.product, manifest("1.0.0", 7)).await.expect_problem(409, "manifest_version_taken");
    install(&it.product, manifest("1.0.0", 1)).await.expect_status(201);
}

#[tokio::test]
async fn the_configuration_fits_the_version_that_runs() {
    let it = installed().await;
    let first = it.agent["version_id"].clone();
    let mut strict = manifest("2.0.0", 2);
    strict["config"] = json!({
        "type": "object", "required": ["region"], "properties": {
            "region": { "type": "string" }, "start": { "type": "integer" },
            "size": { "type": "integer", "default": 5 } }
    });
    let refused = it.publish(json!({ "manifest": strict })).await;
    let refused = refused.expect_problem(422, "config_invalid");
    assert_eq!(refused.body["errors"][0]["field"], "/config/region");
    let early = json!({ "manifest": strict, "activate": false, "config": { "region": "eu" } });
    it.publish(early).await.expect_problem(422, "config_superfluous");

    let second = it.publish(json!({ "manifest": strict, "activate": false })).await;
    let second = second.expect_status(201).data().clone();
    assert_eq!(second["active"], false);
    let refused = it.activate(&second["id"]).await.expect_problem(422, "config_invalid");
    assert_eq!(refused.body["errors"][0]["field"], "/config/region");
    let run =
        json!({ "agent_id": it.agent["id"], "input": { "n": 1 }, "version_id": second["id"] });
    let refused = it.app.post("/api/workflow/execute", run).await;
    let refused = refused.expect_problem(422, "config_invalid");
    assert_eq!(refused.body["errors"][0]["field"], "/version_id");

    // With a configuration of its own it is picked, in one piece.
    let config = json!({ "region": "eu", "start": 20, "token": "••••1234" });
    let change = json!({ "version_id": second["id"], "config": config });
    let changed = it.app.put(&it.path, change).await.expect_status(200);
    // What was a secret in one version is none that another one shows.
    let shown = json!({ "region": "eu", "start": 20, "token": "••••1234", "size": 5 });
    assert_eq!(changed.data()["config"], shown);
    let stored = it.stored().await;
    let count = |name: &str| stored.iter().filter(|known| *known == name).count();
    assert_eq!((count("agent.configured.v1"), count("agent.version_activated.v1")), (1, 1));
    assert_eq!(it.run(None).await, (json!(23), second["id"].clone()));
    let back = it.activate(&first).await.expect_status(200);
    assert_eq!(back.data()["config"]["token"], "••••1234");
    let log = std::fs::read(it.app.data_dir().join("events.db")).unwrap_or_default();
    assert!(!String::from_utf8_lossy(&log).contains("canary-secret"), "it is sealed");

    let mut slots = manifest("3.0.0", 3);
    slots["requires"] = json!({ "knowledge": [{ "slot": "handbook" }] });
    let bound = |base: &str| json!({ "manifest": slots, "bindings": { "handbook": base } });
    let other = it.app.product().await;
    let refused = it.publish(bound(&other.knowledge_base)).await;
    let refused = refused.expect_problem(422, "bindings_invalid");
    assert_eq!(refused.body["errors"][0]["field"], "/bindings/handbook");
    it.publish(bound(&it.product.knowledge_base)).await.expect_status(201);
    let agent = it.app.get(&it.path).await.expect_status(200);
    assert_eq!(agent.data()["bindings"], json!({ "handbook": it.product.knowledge_base }));
    let unknown = json!({ "bindings": { "notes": it.product.knowledge_base } });
    it.app.put(&it.path, unknown).await.expect_problem(422, "bindings_invalid");
}

#[tokio::test]
async fn schedules_follow_the_active_version_over_a_restart_and_back() {
    let mut it = installed_with(ticking("1.0.0", 1), json!({})).await;
    let first = it.agent["version_id"].clone();
    let second = it.publish(json!({ "manifest": ticking("2.0.0", 2) })).await.expect_status(201);
    let second = second.data().clone();
    let trigger = |list: &Value, key: &str| {
        let found = list.as_array().unwrap().iter().find(|it| it["key"] == key).unwrap();
        format!("/api/agent-base/triggers/{}", found["id"].as_str().unwrap())
    };
    let (old, new) = (trigger(&it.agent["triggers"], "tick"), trigger(&second["triggers"], "tick"));
    let agent = it.app.get(&it.path).await.expect_status(200);
    assert_eq!(agent.data()["triggers"], second["triggers"], "those of the active version");
    let manual = trigger(&it.agent["triggers"], "manual");
    // One that was made later goes on, whatever version is active.
    let own = json!({ "type": "schedule", "cron": "* * * * * *", "overlap": "allow", "input": { "n": 1 } });
    let own = it.app.post(&format!("{}/triggers", it.path), own).await.expect_status(201);
    assert_eq!(own.data()["version_id"], second["id"]);
    let own = format!("/api/agent-base/triggers/{}", own.data()["id"].as_str().unwrap());

    let executions = async |app: &TestApp, trigger: &str| -> Vec<Value> {
        let id = trigger.rsplit('/').next().unwrap();
        let list = format!("{}/executions?limit=1000&trigger_id={id}", it.path);
        app.get(&list).await.expect_status(200).data().as_array().unwrap().clone()
    };
    let fires = async |app: &TestApp, trigger: &str| {
        let before = executions(app, trigger).await.len();
        eventually("it does not fire", async || {
            (executions(app, trigger).await.len() > before + 1).then_some(())
        })
        .await;
    };
    let listens = async |app: &TestApp, trigger: &str| {
        let shown = app.get(trigger).await.expect_status(200).data().clone();
        assert_eq!(shown["enabled"], true);
        assert_eq!(
            shown["next_firings"].as_array().unwrap().is_empty(),
            shown["listening"] == false,
            "{shown}"
        );
        shown["listening"].clone()
    };
    let is = async |app: &TestApp, [active, inactive]: [&str; 2]| {
        assert_eq!(listens(app, active).await, true);
        assert_eq!(listens(app, inactive).await, false);
        assert_eq!(listens(app, &own).await, true);
        // What fired before has its execution by then; a firing that comes later would be one more.
        fires(app, active).await;
        let before = executions(app, inactive).await.len();
        fires(app, active).await;
        fires(app, &own).await;
        assert_eq!(executions(app, inactive).await.len(), before);
    };
    is(&it.app, [&new, &old]).await;
    it.app.kill();
    it.app.start();
    is(&it.app, [&new, &old]).await;
    let back = it.app.put(&it.path, json!({ "version_id": first })).await.expect_status(200);
    assert_eq!(back.data()["triggers"].as_array().unwrap().len(), 3);
    is(&it.app, [&old, &new]).await;
    let ran = executions(&it.app, &new).await;
    assert!(ran.iter().all(|run| run["version_id"] == second["id"]), "{ran:?}");
    let ran = executions(&it.app, &own).await;
    assert!(ran.iter().any(|run| run["version_id"] == first), "{ran:?}");
    assert!(ran.iter().any(|run| run["version_id"] == second["id"]), "{ran:?}");

    // The manual trigger of a version starts that version, active or not.
    let list = |version: &Value| {
        let path = "/api/agent-base/triggers/manual/version";
        format!("{path}/{}", version.as_str().unwrap())
    };
    let of_second = it.app.get(&list(&second["id"])).await.expect_status(200);
    assert_eq!(of_second.data().as_array().unwrap().len(), 1);
    assert_eq!(of_second.data()[0]["listening"], false);
    let other = trigger(of_second.data(), "manual");
    for (trigger, version, output) in [(&manual, &first, 2), (&other, &second["id"], 3)] {
        let path = format!("{trigger}/execute?wait_seconds=60");
        let ran = it.app.post(&path, json!({ "input": { "n": 1 } })).await.expect_status(200);
        assert_eq!((&ran.data()["version_id"], &ran.data()["output"]), (version, &json!(output)));
    }
    let made = it.app.post(&format!("{}/triggers", it.path), json!({ "type": "manual" })).await;
    let made = made.expect_status(201);
    let of_first = it.app.get(&list(&first)).await.expect_status(200);
    assert_eq!(of_first.data()[0]["id"], made.data()["id"]);

    it.app.stop();
    it.app.verified();
}

#[tokio::test]
async fn an_execution_is_repeated_in_another_version() {
    let it = installed_with(manifest("1.0.0", 1), json!({})).await;
    let mut failing = manifest("1.1.0", 2);
    failing["steps"][1]["with"]["value"] = json!({ "cel": "steps.one.output.value / 0" });
    it.publish(json!({ "manifest": failing })).await.expect_status(201);
    let run = json!({ "agent_id": it.agent["id"], "input": { "n": 1 } });
    let ran = it.app.post("/api/workflow/execute?wait_seconds=60", run).await.expect_status(200);
    assert_eq!(ran.data()["status"], "failed");
    let retry =
        format!("/api/workflow/{}/retry?wait_seconds=60", ran.data()["id"].as_str().unwrap());
    let mended = it.publish(json!({ "manifest": manifest("1.1.1", 2) })).await.expect_status(201);

    let same = it.app.post(&retry, json!({ "from": "failed" })).await.expect_status(200);
    assert_eq!(
        (&same.data()["status"], &same.data()["version_id"]),
        (&json!("failed"), &ran.data()["version_id"])
    );
    let version = &mended.data()["id"];
    let good = json!({ "from": "failed", "version_id": version });
    let good = it.app.post(&retry, good).await.expect_status(200);
    let data = good.data();
    assert_eq!((&data["status"], &data["output"]), (&json!("succeeded"), &json!(3)));
    assert_eq!((&data["version_id"], &data["retry_of"]), (version, &ran.data()["id"]));
    assert_eq!(data["steps"][0]["status"], "reused");
    let back = json!({ "version_id": it.agent["version_id"] });
    let back = it.app.post(&retry, back).await.expect_status(200);
    assert_eq!(
        (&back.data()["output"], &back.data()["version_id"]),
        (&json!(2), &it.agent["version_id"])
    );

    let unknown = json!({ "version_id": uuid::Uuid::now_v7() });
    let unknown = it.app.post(&retry, unknown).await.expect_problem(422, "version_not_found");
    assert_eq!(unknown.body["errors"][0]["field"], "/version_id");
    let mut other = manifest("2.0.0", 2);
    other["steps"] = json!([{ "id": "only", "type": "transform", "with": { "value": 1 } }]);
    other["output"] = json!({ "cel": "steps.only.output.value" });
    other["inputs"]["properties"]["m"] = json!({ "type": "integer" });
    let narrow = it.publish(json!({ "manifest": other })).await.expect_status(201);
    let gone = json!({ "from": "failed", "version_id": narrow.data()["id"] });
    it.app.post(&retry, gone).await.expect_problem(422, "step_unknown");
    other["version"] = json!("3.0.0");
    other["inputs"]["required"] = json!(["n", "m"]);
    let more = it.publish(json!({ "manifest": other })).await.expect_status(201);
    let unfit = json!({ "version_id": more.data()["id"] });
    let unfit = it.app.post(&retry, unfit).await.expect_problem(422, "input_invalid");
    assert_eq!(unfit.body["errors"][0]["field"], "/version_id");
    assert!(unfit.body["errors"][0]["message"].as_str().unwrap().starts_with("/input/m"));
}

const YAML: &str = "\
# It adds.
manifest: prodgy.agent/1
name: acme.yaml
version: 1.0.0
title: YAML
inputs: { type: object, properties: { n: { type: integer } } }
steps:
  - id: one
    type: transform
    with:
      value: { cel: input.n + 1 }
output: { cel: steps.one.output.value }
";

#[tokio::test]
async fn manifests_are_taken_as_yaml() {
    let app = TestApp::spawn().await;
    let product = app.product().await;
    let install = |text: &str| {
        let body = json!({ "product_id": product.id, "manifest": text });
        app.post("/api/agent-base/install", body)
    };
    let agent = install(YAML).await.expect_status(201).data().clone();
    assert_eq!(agent["manifest"]["steps"][0]["with"]["value"], json!({ "cel": "input.n + 1" }));
    // The digest is that of what it means, not of how it is written.
    let as_json = json!({ "product_id": product.id, "manifest": agent["manifest"] });
    let as_json = app.post("/api/agent-base/install", as_json).await.expect_status(201);
    assert_eq!(as_json.data()["versions"][0]["digest"], agent["versions"][0]["digest"]);

    let path = format!("/api/agent-base/{}/versions", agent["id"].as_str().unwrap());
    let publish = |text: String, content_type: &str| {
        app.send(app.request(Method::POST, &path).header("content-type", content_type).body(text))
    };
    let second = YAML.replace("1.0.0", "1.1.0").replace("+ 1", "+ 2");
    let second = publish(second, "application/yaml").await.expect_status(201);
    assert_eq!(
        (&second.data()["version"], &second.data()["active"]),
        (&json!("1.1.0"), &json!(true))
    );
    let third = json!({ "manifest": YAML.replace("1.0.0", "1.2.0"), "activate": false });
    let third = app.post(&path, third).await.expect_status(201);
    assert_eq!(
        (&third.data()["version"], &third.data()["active"]),
        (&json!("1.2.0"), &json!(false))
    );

    let fields = |reply: &Reply| reply.body["errors"][0]["field"].clone();
    let faulty = YAML.replace("transform", "transfrom").replace("1.0.0", "2.0.0");
    let refused = publish(faulty.clone(), "application/yaml; charset=utf-8").await;
    assert_eq!(fields(&refused.expect_problem(422, "manifest_invalid")), "/steps/0/type");
    let refused = install(&faulty).await.expect_problem(422, "manifest_invalid");
    assert_eq!(fields(&refused), "/manifest/steps/0/type");
    let renamed = YAML.replace("acme.yaml", "acme.other");
    let refused = publish(renamed, "application/yaml").await;
    assert_eq!(fields(&refused.expect_problem(422, "manifest_name_differs")), "/name");
    let broken = YAML.replace("title: YAML", "title: [YAML");
    for (reply, field) in [
        (publish(broken.clone(), "application/yaml").await, ""),
        (install(&broken).await, "/manifest"),
    ] {
        let reply = reply.expect_problem(422, "yaml_invalid");
        assert_eq!(fields(&reply), field);
        let message = reply.body["errors"][0]["message"].as_str().unwrap();
        assert!(message.contains("line ") && message.contains("column "), "{message}");
    }
    publish(YAML.to_owned(), "text/plain").await.expect_problem(415, "unsupported_media_type");
    let wrong = app.post(&path, json!({ "manifest": 7 })).await;
    wrong.expect_problem(422, "manifest_invalid");
}

#[tokio::test]
async fn an_agent_that_needs_a_chat_model_is_refused_where_there_is_none() {
    let it = installed().await;
    let mut chatty = manifest("2.0.0", 2);
    chatty["requires"] = json!({ "model": { "capability": "chat" } });
    let check = |reply: Reply, field: &str| {
        let reply = reply.expect_problem(422, "model_not_configured");
        assert_eq!(reply.body["errors"][0]["field"], field);
        assert!(reply.body["message"].as_str().unwrap().contains("--llm-url"));
    };
    check(it.publish(json!({ "manifest": chatty })).await, "/manifest/requires/model");
    let install = async |body: Value| it.app.post("/api/agent-base/install", body).await;
    let body = json!({ "product_id": it.product.id, "manifest": chatty });
    check(install(body).await, "/manifest/requires/model");
    let body = json!({ "product_id": it.product.id, "agent": "prodgy.tasks" });
    check(install(body).await, "/agent");

    let url = ("PRODGY_LLM_URL", "http://127.0.0.1:9/v1");
    let app = TestApp::spawn_with(&[url, ("PRODGY_LLM_MODEL", "some")]).await;
    let product = app.product().await;
    let body = json!({ "product_id": product.id, "manifest": chatty });
    app.post("/api/agent-base/install", body).await.expect_status(201);
}
