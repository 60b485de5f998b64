//! The audit log: who did what, and who was not let.

use serde_json::{Value, json};

use super::support::{Client, PASSWORD, TestApp};

async fn entries(client: &Client, query: &str) -> Vec<Value> {
    let reply = client.get(&format!("/api/audit-logs?limit=1000&{query}")).await.expect_status(200);
    reply.data().as_array().unwrap().clone()
}

fn column<'a>(entries: &'a [Value], name: &str) -> Vec<&'a str> {
    entries.iter().map(|entry| entry[name].as_str().unwrap_or_default()).collect()
}

#[tokio::test]
async fn every_change_names_who_made_it_from_where_and_in_which_request() {
    let app = TestApp::spawn().await;
    let me = app.get("/api/auth/me").await.data()["user"]["id"].as_str().unwrap().to_owned();
    let request =
        app.request(reqwest::Method::POST, "/api/products").json(&json!({ "name": "Handbook" }));
    let request =
        request.header("x-request-id", "request-of-mine").header("user-agent", "tester/1.0");
    let made = app.send(request).await.expect_status(201);
    assert_eq!(made.header("x-request-id"), "request-of-mine");
    let id = made.data()["id"].as_str().unwrap();
    app.put(made.header("location"), json!({ "name": "Renamed" })).await.expect_status(200);
    app.delete(made.header("location")).await.expect_status(200);

    let of_product = entries(&app, &format!("resource_type=product&resource_id={id}")).await;
    assert_eq!(column(&of_product, "action"), ["erased", "deleted", "changed", "created"]);
    assert_eq!(of_product[0]["actor"], "system:erasure");
    let of_product = &of_product[1..];
    for entry in of_product {
        assert_eq!(entry["actor"], format!("user:{me}"));
        assert_eq!(entry["outcome"], "success");
        assert_eq!(entry["address"], "127.0.0.1");
    }
    assert_eq!(of_product[2]["user_agent"], "tester/1.0");

    // Each way to name what is looked for finds the same.
    let by_id_alone = entries(&app, &format!("resource_id={id}")).await;
    assert_eq!(column(&by_id_alone, "action"), ["erased", "deleted", "changed", "created"]);
    let by_actor = entries(&app, &format!("resource_id={id}&actor=user:{me}")).await;
    assert_eq!(by_actor, of_product);
    assert_eq!(entries(&app, &format!("resource_id={id}&actor={me}")).await, of_product);
    assert_eq!(entries(&app, &format!("q=product-{id}&actor={me}")).await, of_product);
    let by_policy = entries(&app, "actor=system:erasure&action=erased").await;
    assert_eq!(column(&by_policy, "resource_id"), [id]);

    let of_request = entries(&app, "request_id=request-of-mine").await;
    let kinds = column(&of_request, "event_type");
    assert!(
        kinds.contains(&"product.created.v1") && kinds.contains(&"knowledge_base.created.v1"),
        "{kinds:?}"
    );
}

#[tokio::test]
async fn what_was_refused_is_there_too() {
    let app = TestApp::spawn().await;
    let viewer = app.user("viewer").await;
    let product = app.product().await;

    app.nobody().get("/api/products").await.expect_status(401);
    viewer.delete(&format!("/api/products/{}", product.id)).await.expect_status(403);
    let wrong = json!({ "email": super::support::OWNER, "password": "wrong password" });
    app.nobody().post("/api/auth/login", wrong).await.expect_status(401);
    app.post("/api/products", json!({ "name": "" })).await.expect_status(422);
    for _ in 0..3 {
        app.bearer("a.b.c").get("/api/users").await.expect_status(401);
    }

    let rejected = entries(&app, "action=rejected").await;
    let find = |path: &str, status: u16| {
        let found = rejected
            .iter()
            .find(|entry| entry["details"]["path"] == path && entry["details"]["status"] == status);
        found.unwrap_or_else(|| panic!("no {status} of {path}: {rejected:#?}")).clone()
    };
    let anonymous = find("/api/products", 401);
    assert_eq!(
        (&anonymous["actor"], &anonymous["outcome"]),
        (&json!("anonymous"), &json!("denied"))
    );
    assert_eq!(anonymous["address"], "127.0.0.1");
    let denied = find(&format!("/api/products/{}", product.id), 403);
    assert!(denied["actor"].as_str().unwrap().starts_with("user:"), "{denied}");
    assert_eq!(
        (&denied["resource_type"], &denied["resource_id"]),
        (&json!("product"), &json!(product.id))
    );
    assert_eq!(find("/api/auth/login", 401)["outcome"], "denied");
    assert_eq!(find("/api/products", 422)["outcome"], "failed");
    assert_eq!(
        find("/api/users", 401)["details"]["count"],
        3,
        "the same attempt again is one line"
    );
}

#[tokio::test]
async fn a_failed_sign_in_names_whom_it_was_aimed_at_and_tells_the_client_nothing() {
    let app = TestApp::spawn().await;
    let me = app.get("/api/auth/me").await.data()["user"]["id"].as_str().unwrap().to_owned();
    let refused = async |email: &str| {
        let login = json!({ "email": email, "password": "wrong password" });
        let reply = app.nobody().post("/api/auth/login", login).await.expect_status(401);
        let mut names: Vec<String> = reply.headers.keys().map(ToString::to_string).collect();
        names.sort();
        let mut body = reply.body.clone();
        body.as_object_mut().unwrap().remove("request_id");
        (body, names)
    };

    let known = refused(super::support::OWNER).await;
    assert_eq!(refused("nobody@example.com").await, known);
    assert_eq!(refused("no address").await, known);

    let of_me =
        entries(&app, &format!("resource_type=user&resource_id={me}&action=rejected")).await;
    assert_eq!(of_me.len(), 1, "{of_me:#?}");
    assert_eq!(of_me[0]["details"]["path"], "/api/auth/login");
    assert_eq!(of_me[0]["actor"], "anonymous");
    let all = entries(&app, "action=rejected&q=bad_credentials").await;
    let aims: Vec<&Value> = all.iter().map(|entry| &entry["resource_id"]).collect();
    assert_eq!(all.len(), 2, "{all:#?}");
    assert!(aims.contains(&&Value::Null) && aims.contains(&&json!(me)), "{all:#?}");
}

#[tokio::test]
async fn a_refused_refresh_names_whose_session_it_was() {
    let app = TestApp::spawn().await;
    let me = app.get("/api/auth/me").await.data()["user"]["id"].as_str().unwrap().to_owned();
    let login = json!({ "email": super::support::OWNER, "password": super::support::PASSWORD });
    let session = app.nobody().post("/api/auth/login", login).await.expect_status(200);
    let refresh = async |token: &str| {
        app.nobody().post("/api/auth/refresh", json!({ "refresh_token": token })).await
    };
    let token = session.data()["refresh_token"].as_str().unwrap();
    let (id, _) = token.split_once('.').unwrap();
    refresh(token).await.expect_status(200);

    refresh(&format!("{id}.guess")).await.expect_problem(401, "refresh_token_invalid");
    // Used before: that ends the session.
    refresh(token).await.expect_problem(401, "session_ended");
    refresh(token).await.expect_problem(401, "session_ended");
    let nobodys = format!("{}.guess", uuid::Uuid::now_v7());
    refresh(&nobodys).await.expect_problem(401, "refresh_token_invalid");

    let of_me = format!("resource_type=user&resource_id={me}&action=rejected");
    let of_me: Vec<(Value, Value)> = entries(&app, &of_me)
        .await
        .iter()
        .map(|entry| (entry["details"]["code"].clone(), entry["details"]["count"].clone()))
        .collect();
    assert_eq!(of_me.len(), 2, "{of_me:#?}");
    assert!(of_me.contains(&(json!("refresh_token_invalid"), json!(1))), "{of_me:#?}");
    assert!(of_me.contains(&(json!("session_ended"), json!(2))), "{of_me:#?}");
    let unknown = entries(&app, "action=rejected&q=refresh_token_invalid").await;
    let aims: Vec<&Value> = unknown.iter().map(|entry| &entry["resource_id"]).collect();
    assert!(aims.len() == 2 && aims.contains(&&Value::Null), "{unknown:#?}");
}

#[tokio::test]
async fn a_refused_attempt_of_a_user_is_found_in_the_product_that_it_was_aimed_at() {
    let app = TestApp::spawn().await;
    let viewer = app.user("viewer").await;
    let (product, other) = (app.product().await, app.product().await);
    let agent = app.agent(&product).await;
    let agent = agent["id"].as_str().unwrap();
    let file = app.text_file(&product, "a.txt", "a text").await;

    // May not, said before anybody looked what is there.
    viewer.delete(&format!("/api/products/{}", product.id)).await.expect_status(403);
    viewer.delete(&format!("/api/agent-base/{agent}")).await.expect_status(403);
    viewer.delete(&format!("/api/knowledge-base/storage/file/{file}")).await.expect_status(403);
    // May, and sends something wrong: the product stands in the path, in the body, or behind a thing.
    app.put(&format!("/api/products/{}", product.id), json!({ "name": "" }))
        .await
        .expect_status(422);
    let nameless = json!({ "product_id": product.id, "name": "" });
    app.post("/api/knowledge-base", nameless.clone()).await.expect_status(422);
    app.post("/api/api-tokens", nameless).await.expect_status(422);
    let base = format!("/api/knowledge-base/{}/evaluate", product.knowledge_base);
    app.post(&base, json!({})).await.expect_status(422);
    // Is of no product, or of none that is there.
    app.put(&format!("/api/products/{}", uuid::Uuid::now_v7()), json!({ "name": "x" }))
        .await
        .expect_status(404);

    let refused = entries(&app, &format!("product_id={}&action=rejected", product.id)).await;
    let mut seen: Vec<(i64, &str, &str)> = refused
        .iter()
        .map(|entry| {
            let details = &entry["details"];
            (
                details["status"].as_i64().unwrap(),
                details["method"].as_str().unwrap(),
                details["route"].as_str().unwrap(),
            )
        })
        .collect();
    seen.sort_unstable();
    assert_eq!(
        seen,
        [
            (403, "DELETE", "/api/agent-base/{id}"),
            (403, "DELETE", "/api/knowledge-base/storage/file/{id}"),
            (403, "DELETE", "/api/products/{productId}"),
            (422, "POST", "/api/api-tokens"),
            (422, "POST", "/api/knowledge-base"),
            (422, "POST", "/api/knowledge-base/{knowledgeBaseId}/evaluate"),
            (422, "PUT", "/api/products/{productId}"),
        ]
    );
    let elsewhere = entries(&app, &format!("product_id={}&action=rejected", other.id)).await;
    assert!(elsewhere.is_empty(), "{elsewhere:#?}");
}

#[tokio::test]
async fn each_of_many_like_attempts_is_found_by_its_request() {
    let app = TestApp::spawn().await;
    for request in ["one", "two", "three"] {
        let asked = app.nobody().request(reqwest::Method::GET, "/api/users");
        app.nobody().send(asked.header("x-request-id", request)).await.expect_status(401);
    }
    let alone = app.nobody().request(reqwest::Method::GET, "/api/products");
    app.nobody().send(alone.header("x-request-id", "four")).await.expect_status(401);

    let first = entries(&app, "request_id=one").await;
    assert_eq!(first.len(), 1, "{first:#?}");
    assert_eq!(first[0]["request_id"], "one");
    assert_eq!(first[0]["details"]["count"], 3);
    assert_eq!(first[0]["details"]["request_ids"], json!(["one", "two", "three"]));
    for request in ["two", "three"] {
        assert_eq!(entries(&app, &format!("request_id={request}")).await, first);
    }
    let alone = entries(&app, "request_id=four").await;
    assert_eq!(alone.len(), 1, "{alone:#?}");
    assert!(alone[0]["details"].get("request_ids").is_none(), "{alone:#?}");
    assert_eq!(entries(&app, "request_id=five").await, [] as [Value; 0]);
    app.verified();
}

#[tokio::test]
async fn what_could_not_be_answered_is_found_by_its_request() {
    let app = TestApp::spawn_with(&[("PRODGY_MODEL_DIR", "/nowhere")]).await;
    let product = app.product().await;
    let question = json!({ "query": "leave", "product_id": product.id });
    let asked =
        app.request(reqwest::Method::POST, "/api/knowledge-base/embeddings").json(&question);
    app.send(asked.header("x-request-id", "lost")).await.expect_problem(503, "model_missing");

    let lost = entries(&app, "request_id=lost").await;

    assert_eq!(lost.len(), 1, "{lost:#?}");
    assert_eq!((&lost[0]["action"], &lost[0]["outcome"]), (&json!("failed"), &json!("failed")));
    assert_eq!(lost[0]["product_id"], product.id);
    assert_eq!(lost[0]["details"]["status"], 503);
    assert_eq!(lost[0]["details"]["code"], "model_missing");
}

#[tokio::test]
async fn a_revoked_token_is_refused_at_the_very_next_request_and_its_story_is_whole() {
    let app = TestApp::spawn().await;
    let product = app.product().await;
    let token = app.token(&product, &[]).await;
    let program = app.with_token(&token.secret);
    let path = format!("/api/api-tokens/{}", token.id);

    program.get("/api/products").await.expect_status(200);
    app.post_empty(&format!("{path}/revoke")).await.expect_status(200);
    program.get("/api/products").await.expect_problem(401, "token_revoked");

    let reply = app.get(&format!("{path}/audit-logs")).await.expect_status(200);
    let story: Vec<&str> = reply
        .data()
        .as_array()
        .unwrap()
        .iter()
        .map(|entry| entry["action"].as_str().unwrap())
        .collect();
    for action in ["created", "used", "revoked", "rejected"] {
        assert!(story.contains(&action), "{action} is missing: {story:?}");
    }
    let shown = app.get(&path).await;
    assert_eq!(
        (&shown.data()["status"], &shown.data()["usage_count"]),
        (&json!("revoked"), &json!(1))
    );
}

#[tokio::test]
async fn a_change_of_password_ends_every_session_at_once() {
    let app = TestApp::spawn().await;
    let body = json!({ "email": "ada@example.com", "role": "admin", "password": PASSWORD });
    app.post("/api/users", body).await.expect_status(201);
    let (first, second) = (
        app.login("ada@example.com", PASSWORD).await,
        app.login("ada@example.com", PASSWORD).await,
    );

    let change = json!({ "current_password": PASSWORD, "new_password": "another long password" });
    first.post("/api/auth/password", change).await.expect_status(200);

    first.get("/api/auth/me").await.expect_status(401);
    second.get("/api/auth/me").await.expect_status(401);
    let old = json!({ "email": "ada@example.com", "password": PASSWORD });
    app.nobody().post("/api/auth/login", old).await.expect_status(401);
    app.login("ada@example.com", "another long password")
        .await
        .get("/api/auth/me")
        .await
        .expect_status(200);
}

#[tokio::test]
async fn filters_narrow_and_the_export_says_the_same() {
    let app = TestApp::spawn().await;
    let (one, other) = (app.product().await, app.product().await);
    app.agent(&one).await;

    let of_one = entries(&app, &format!("product_id={}", one.id)).await;
    assert!(column(&of_one, "product_id").iter().all(|id| *id == one.id), "{of_one:#?}");
    assert!(column(&of_one, "event_type").contains(&"agent.installed.v1"), "{of_one:#?}");
    let of_other = entries(&app, &format!("product_id={}&action=installed", other.id)).await;
    assert!(of_other.is_empty(), "{of_other:#?}");
    assert_eq!(entries(&app, "from=2999-01-01T00:00:00Z").await.len(), 0);
    assert_eq!(entries(&app, "to=2000-01-01T00:00:00Z").await.len(), 0);
    assert!(!entries(&app, "q=installed").await.is_empty());

    let export =
        app.get(&format!("/api/audit-logs/export?product_id={}", one.id)).await.expect_status(200);
    let lines: Vec<Value> =
        export.text().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines, of_one);
    let csv = app
        .get(&format!("/api/audit-logs/export?format=csv&product_id={}", one.id))
        .await
        .expect_status(200);
    assert!(csv.header("content-type").starts_with("text/csv"), "{csv:?}");
    assert!(csv.text().contains("agent.installed.v1"), "{csv:?}");

    for query in ["outcome=perhaps", "from=yesterday", "product_id=7", "nonsense=1"] {
        app.get(&format!("/api/audit-logs?{query}"))
            .await
            .expect_problem(400, "invalid_parameters");
    }
}

#[tokio::test]
async fn a_cursor_walks_through_the_audit_log_once_while_it_grows() {
    let app = TestApp::spawn().await;
    let product = app.product().await;
    let token = app.token(&product, &[]).await;
    for name in ["One", "Two", "Three", "Four"] {
        let body = json!({ "name": name });
        app.put(&format!("/api/api-tokens/{}", token.id), body).await.expect_status(200);
    }
    let of_token = format!("/api/api-tokens/{}/audit-logs", token.id);
    for list in ["/api/audit-logs".to_owned(), of_token] {
        let before = app.get(&format!("{list}?limit=1000")).await.expect_status(200);
        let mut seen = Vec::new();
        let mut path = format!("{list}?pageSize=2");
        loop {
            let page = app.get(&path).await.expect_status(200);
            seen.extend(page.data().as_array().unwrap().clone());
            let Some(cursor) = page.body["pagination"]["cursor"].as_str() else { break };
            path = format!("{list}?pageSize=2&cursor={cursor}");
            // It grows where it begins.
            let body = json!({ "name": format!("Name {}", seen.len()) });
            app.put(&format!("/api/api-tokens/{}", token.id), body).await.expect_status(200);
        }
        assert_eq!(json!(seen), *before.data(), "{list}");
    }
}

#[tokio::test]
async fn a_damaged_key_hides_its_own_texts_and_nothing_else() {
    let mut app = TestApp::spawn().await;
    let member = app.user("member").await;
    let me = member.get("/api/auth/me").await.data()["user"]["id"].as_str().unwrap().to_owned();
    member.get("/api/users").await.expect_status(403);
    let product = app.product().await;
    app.stop();
    let key = app.data_dir().join(format!("vault/keys/user-{me}.json"));
    std::fs::write(&key, "{}").unwrap();
    app.start();

    let rows = entries(&app, "").await;
    let of = |actor: &str| rows.iter().find(|row| row["actor"] == actor).unwrap().clone();
    assert!(of(&format!("user:{me}"))["address"].is_null(), "{rows:?}");
    let made = rows.iter().find(|row| row["resource_id"] == product.id.as_str()).unwrap();
    assert_eq!(made["address"], "127.0.0.1");
    assert!(app.stderr().contains("is damaged: restore keys/user-"), "{}", app.stderr());
}
