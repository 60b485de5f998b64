//! Two organizations in one log: nothing of the other one is seen, found, reached or changed.

use std::collections::BTreeMap;
use std::sync::Arc;

use eventlog::{
    Append, EventStore, Expected, Metadata, NewEvent, Position, SqliteOptions, SqliteStore,
    StreamId,
};
use reqwest::Method;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use uuid::Uuid;

use super::support::{Product, TestApp};

const LEAVE: &str = "Everybody has 25 days of paid leave.";

/// What of a product is copied: all but what lets somebody in.
const COPIED: [&str; 6] = ["product", "knowledge_base", "agent", "trigger", "file", "execution"];

/// Writes the history of a product once more, as one of this organization, or of its own, into the log of a server that is
/// stopped. Answers the ids of the copies, by those of the originals.
async fn copy_to(
    app: &TestApp,
    product: &Product,
    organization: Option<Uuid>,
) -> BTreeMap<String, String> {
    let path = app.data_dir().join("events.db");
    let log = SqliteStore::open(&path, SqliteOptions::default()).unwrap();
    let events = log.read_after(Position::START, 10_000).await.unwrap();
    let own: Vec<_> = events
        .iter()
        .filter(|event| event.product.is_some_and(|id| id.to_string() == product.id))
        .filter(|event| COPIED.contains(&event.stream.category()))
        .collect();
    // Whatever has an id gets another one: streams, and what is named in them.
    let copies: BTreeMap<String, String> = own
        .iter()
        .flat_map(|event| [event.stream.id(), event.data.get()])
        .flat_map(ids_in)
        .map(|id| (id, Uuid::now_v7().to_string()))
        .collect();
    let copied = |text: &str| {
        let replace = |text: String, (from, to): (&String, &String)| text.replace(from, to);
        copies.iter().fold(text.to_owned(), replace)
    };
    let metadata = Arc::new(Metadata {
        organization: organization.unwrap_or(own[0].organization),
        product: Some(copies[&product.id].parse().unwrap()),
        actor: "system:test".into(),
        correlation: Uuid::now_v7(),
        causation: None,
        request_id: None,
        traceparent: None,
        address: None,
        user_agent: None,
    });
    for event in own {
        let append = Append {
            stream: StreamId::new(event.stream.category(), copied(event.stream.id())),
            expected: Expected::Any,
            command_id: Uuid::now_v7(),
            request_hash: None,
            metadata: metadata.clone(),
            keys: Vec::new(),
            events: vec![NewEvent {
                event_type: event.event_type.clone(),
                data: RawValue::from_string(copied(event.data.get())).unwrap(),
                metadata: None,
            }],
        };
        log.append(append).await.unwrap();
    }
    log.close().await;
    copies
}

/// The ids that are in a text.
fn ids_in(text: &str) -> Vec<String> {
    let length = Uuid::nil().hyphenated().to_string().len();
    let parts = (0..text.len()).filter_map(|at| text.get(at..at + length));
    let is_id = |part: &&str| part.matches('-').count() == 4 && Uuid::try_parse(part).is_ok();
    parts.filter(is_id).map(str::to_owned).collect()
}

#[tokio::test]
async fn nothing_of_another_organization_is_seen_reached_or_changed() {
    let mut app = TestApp::spawn().await;
    let product = app.product().await;
    let agent = app.agent(&product).await;
    let file = app.text_file(&product, "leave.txt", LEAVE).await;
    app.wait_ready(&file).await;
    let execution = app.execute(&agent, json!({ "query": "leave" })).await;
    app.wait_execution(agent["id"].as_str().unwrap(), &execution).await;
    assert!(app.stop().success());
    let copies = copy_to(&app, &product, Some(Uuid::now_v7())).await;
    let copy = |id: &str| copies[id].as_str();
    let id = |value: &Value| copy(value.as_str().unwrap()).to_owned();
    let agent_id = id(&agent["id"]);
    let trigger = id(&agent["triggers"][0]["id"]);
    let (theirs, base, file) = (copy(&product.id), copy(&product.knowledge_base), copy(&file));
    let execution = copy(&execution);
    app.start();

    // What was copied is there, for the read models.
    let views = rusqlite::Connection::open(app.views_file()).unwrap();
    let sql = "SELECT count(*) FROM product WHERE id = ?1";
    let reached = app.head().await;
    let waited = app.get_with("/api/products", "x-min-position", reached).await;
    assert_eq!(waited.status, 200, "{}", waited.text());
    assert_eq!(views.query_row(sql, [theirs], |row| row.get::<_, u64>(0)).unwrap(), 1);

    // Lists and logs do not show it.
    for path in [
        "/api/products?limit=1000",
        "/api/users?limit=1000",
        "/api/integrations-base?limit=1000",
        "/api/audit-logs?limit=1000",
        "/api/audit-logs/export",
        "/api/events?limit=1000",
    ] {
        let seen = app.get(path).await.expect_status(200).text();
        for id in copies.values() {
            assert!(!seen.contains(id), "{path} shows {id}: {seen}");
        }
    }
    let events = app.get(&format!("/api/events?stream=product-{theirs}")).await;
    assert!(events.status == 404 || events.data() == &json!([]), "{events:?}");

    // Whoever knows an id gets no further with it.
    for path in [
        format!("/api/products/{theirs}"),
        format!("/api/api-tokens/product/{theirs}"),
        format!("/api/agent-base/product/{theirs}"),
        format!("/api/knowledge-base/{theirs}"),
        format!("/api/knowledge-base/base/{base}"),
        format!("/api/knowledge-base/storage/{base}"),
        format!("/api/knowledge-base/storage/file/{file}"),
        format!("/api/knowledge-base/storage/file/{file}/download"),
        format!("/api/knowledge-base/storage/file/{file}/chunks"),
        format!("/api/agent-base/{agent_id}"),
        format!("/api/agent-base/{agent_id}/executions"),
        format!("/api/agent-base/{agent_id}/versions"),
        format!("/api/agent-base/triggers/{trigger}"),
        format!("/api/workflow/{execution}/status"),
        format!("/api/workflow/{execution}/events"),
        format!("/api/integrations-base/product/{theirs}/active"),
        format!("/api/audit-logs?product_id={theirs}"),
    ] {
        let reply = app.get(&path).await;
        let is_empty = reply.status == 200 && reply.data() == &json!([]);
        assert!(reply.status == 404 || is_empty, "{path}: {reply:?}");
    }
    let install = json!({ "product_id": theirs, "agent": "prodgy.search" });
    let run = json!({ "input": { "query": "leave" } });
    let named = json!({ "name": "Taken over" });
    for (method, path, body) in [
        (Method::PUT, format!("/api/products/{theirs}"), &named),
        (Method::DELETE, format!("/api/products/{theirs}"), &Value::Null),
        (Method::PUT, format!("/api/knowledge-base/base/{base}"), &named),
        (Method::DELETE, format!("/api/knowledge-base/base/{base}"), &Value::Null),
        (Method::DELETE, format!("/api/knowledge-base/storage/file/{file}"), &Value::Null),
        (Method::DELETE, format!("/api/agent-base/{agent_id}"), &Value::Null),
        (Method::POST, "/api/agent-base/install".to_owned(), &install),
        (Method::POST, format!("/api/agent-base/triggers/{trigger}/execute"), &run),
        (Method::POST, format!("/api/workflow/{execution}/stop"), &Value::Null),
        (
            Method::POST,
            "/api/api-tokens".to_owned(),
            &json!({ "product_id": theirs, "name": "Taken over" }),
        ),
        (
            Method::POST,
            "/api/knowledge-base".to_owned(),
            &json!({ "product_id": theirs, "name": "Taken over" }),
        ),
        (
            Method::POST,
            "/api/knowledge-base/embeddings".to_owned(),
            &json!({ "product_id": theirs, "query": "paid leave" }),
        ),
    ] {
        let request = app.request(method.clone(), &path);
        let request = if body.is_null() { request } else { request.json(body) };
        let reply = app.send(request).await;
        assert_eq!(reply.status, 404, "{method} {path}: {reply:?}");
    }
    let uploaded = app.upload(base, &[("leave.txt", "text/plain", b"no leave")]).await;
    assert_eq!(uploaded.status, 404, "{uploaded:?}");
    assert!(app.finds(&product, "paid leave", LEAVE).await, "what is ours is found as before");

    // Nothing came of any of it.
    app.stop();
    let log = SqliteStore::open(&app.data_dir().join("events.db"), SqliteOptions::default());
    let log = log.unwrap();
    let after = log.read_after(Position(reached), 10_000).await.unwrap();
    let touched: Vec<_> = after
        .iter()
        .filter(|event| copies.values().any(|id| event.stream.id() == id))
        .map(|event| (event.stream.as_str(), &event.event_type))
        .collect();
    assert!(touched.is_empty(), "{touched:?}");
    log.close().await;
    app.verified();
}

#[tokio::test]
async fn a_copy_within_the_organization_is_reached() {
    let mut app = TestApp::spawn().await;
    let product = app.product().await;
    let agent = app.agent(&product).await;
    assert!(app.stop().success());
    let copies = copy_to(&app, &product, None).await;
    app.start();

    // It is the organization that keeps the other copy apart, and nothing that is wrong with it.
    let copy = |id: &str| copies[id].as_str();
    for path in [
        format!("/api/products/{}", copy(&product.id)),
        format!("/api/knowledge-base/base/{}", copy(&product.knowledge_base)),
        format!("/api/agent-base/{}", copy(agent["id"].as_str().unwrap())),
    ] {
        app.get(&path).await.expect_status(200);
    }
    let products = app.get("/api/products?limit=1000").await.text();
    assert!(products.contains(copy(&product.id)), "{products}");
}
