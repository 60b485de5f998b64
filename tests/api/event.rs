//! The log itself: pages of it, narrowed, and followed as it grows.

use reqwest::Method;
use serde_json::{Value, json};

use super::support::{Client, PATIENCE, TestApp};

const TRACE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

async fn page(client: &Client, query: &str) -> Vec<Value> {
    let reply = client.get(&format!("/api/events?{query}")).await.expect_status(200);
    reply.data().as_array().unwrap().clone()
}

fn types(events: &[Value]) -> Vec<&str> {
    events.iter().map(|event| event["type"].as_str().unwrap()).collect()
}

fn positions(events: &[Value]) -> Vec<u64> {
    events.iter().map(|event| event["position"].as_u64().unwrap()).collect()
}

#[tokio::test]
async fn an_event_is_a_cloud_event_that_says_which_request_and_trace_it_came_from() {
    let app = TestApp::spawn().await;
    let me = app.get("/api/auth/me").await;
    let before = app.head().await;

    let request = app.request(Method::POST, "/api/products").json(&json!({ "name": "Handbook" }));
    let request = request.header("x-request-id", "of-mine").header("traceparent", TRACE);
    let made = app.send(request).await.expect_status(201);

    let product = made.data()["id"].as_str().unwrap();
    let events = page(&app, &format!("after={before}")).await;
    assert_eq!(types(&events), ["product.created.v1", "knowledge_base.created.v1"]);
    let created = &events[0];
    for (name, value) in [
        ("specversion", json!("1.0")),
        ("subject", json!(format!("product-{product}"))),
        ("datacontenttype", json!("application/json")),
        ("position", json!(before + 1)),
        ("sequence", json!(1)),
        ("product", json!(product)),
        ("actor", json!(format!("user:{}", me.data()["user"]["id"].as_str().unwrap()))),
    ] {
        assert_eq!(created[name], value, "{created}");
    }
    let organization = me.data()["organization"]["id"].as_str().unwrap();
    assert_eq!(created["source"], format!("/organizations/{organization}"));
    assert_eq!(created["data"]["name"], "Handbook");
    let time = created["time"].as_str().unwrap();
    assert!(time.len() == "2026-01-01T00:00:00.000000Z".len() && time.ends_with('Z'), "{time}");
    // All that a request led to is of that request.
    for event in &events {
        assert_eq!(event["requestid"], "of-mine", "{event}");
        assert_eq!(event["traceparent"], TRACE, "{event}");
        assert_eq!(event["correlationid"], created["correlationid"], "{event}");
    }
    assert_ne!(events[0]["id"], events[1]["id"]);
    assert_eq!(made.position(), before + 2);
}

#[tokio::test]
async fn the_log_is_read_oldest_first_from_a_position_on_and_narrowed() {
    let app = TestApp::spawn().await;
    let before = app.head().await;
    let (one, other) = (app.product().await, app.product().await);
    app.put(&format!("/api/products/{}", one.id), json!({ "name": "Renamed" }))
        .await
        .expect_status(200);
    let since = format!("after={before}");

    let all = page(&app, &since).await;
    let expected = [
        "product.created.v1",
        "knowledge_base.created.v1",
        "product.created.v1",
        "knowledge_base.created.v1",
        "product.changed.v1",
    ];
    assert_eq!(types(&all), expected);
    assert_eq!(positions(&all), (before + 1..=before + 5).collect::<Vec<_>>());

    let of_one = format!("{since}&product_id={}", one.id);
    assert_eq!(types(&page(&app, &of_one).await), [expected[0], expected[1], expected[4]]);
    let of_stream = format!("{since}&stream=product-{}", one.id);
    assert_eq!(types(&page(&app, &of_stream).await), [expected[0], expected[4]]);
    let bases = page(&app, &format!("{since}&type=knowledge_base.created.v1")).await;
    assert_eq!(positions(&bases), [before + 2, before + 4]);
    let both = format!("{of_stream}&type=product.changed.v1&after={}", before + 4);
    app.get(&format!("/api/events?{both}")).await.expect_problem(400, "invalid_parameters");
    let late = format!("stream=product-{}&after={}", one.id, before + 4);
    assert_eq!(positions(&page(&app, &late).await), [before + 5]);

    // In pieces, by the cursor or by the position of the last one, it is the same.
    let mut by_cursor = Vec::new();
    let mut path = format!("/api/events?{since}&pageSize=2");
    loop {
        let reply = app.get(&path).await.expect_status(200);
        by_cursor.extend(reply.data().as_array().unwrap().clone());
        let Some(cursor) = reply.body["pagination"]["cursor"].as_str() else { break };
        path = format!("/api/events?{since}&pageSize=2&cursor={cursor}");
    }
    assert_eq!(by_cursor, all);
    assert_eq!(page(&app, &format!("after={}&limit=2", before + 2)).await, all[2..4]);
    assert_eq!(page(&app, &format!("{since}&page=2&pageSize=3")).await, all[3..]);

    // A token reads the events of its own product alone.
    let program = app.with_token(&app.token(&other, &["events:read"]).await.secret);
    let seen = page(&program, &since).await;
    assert_eq!(positions(&seen)[..2], [before + 3, before + 4]);
    assert!(seen.iter().all(|event| event["product"] == other.id.as_str()), "{seen:?}");
    program
        .get(&format!("/api/events?product_id={}", one.id))
        .await
        .expect_problem(404, "product_not_found");
}

/// The data of so many events of a stream, with the id that each had.
async fn follow(client: &Client, path: &str, last: Option<u64>, count: usize) -> Vec<(u64, Value)> {
    let request = client.request(Method::GET, path);
    let request = match last {
        Some(last) => request.header("last-event-id", last),
        None => request,
    };
    let mut response = request.send().await.unwrap();
    assert_eq!(response.status(), 200, "{path}");
    assert_eq!(response.headers()["content-type"], "text/event-stream");
    let mut text = String::new();
    let told = |text: &str| text.lines().filter(|line| line.starts_with("data:")).count();
    while told(&text) < count || !text.ends_with("\n\n") {
        let chunk = tokio::time::timeout(PATIENCE, response.chunk()).await.unwrap().unwrap();
        text.push_str(std::str::from_utf8(&chunk.expect("the stream goes on")).unwrap());
    }
    let blocks = text.split("\n\n").filter(|block| block.contains("data:"));
    blocks
        .map(|block| {
            let field =
                |name: &str| block.lines().find_map(|line| line.strip_prefix(name)).unwrap();
            assert_eq!(field("event:").trim(), "message", "{block}");
            let data = serde_json::from_str(field("data:")).unwrap();
            (field("id:").trim().parse().unwrap(), data)
        })
        .collect()
}

#[tokio::test]
async fn a_stream_tells_what_the_pages_tell_and_goes_on_where_it_was_left() {
    let app = TestApp::spawn().await;
    let before = app.head().await;
    let (one, _) = (app.product().await, app.product().await);
    let path = "/api/events/stream?type=product.created.v1";
    let expected = page(&app, &format!("after={before}&type=product.created.v1")).await;
    assert_eq!(positions(&expected), [before + 1, before + 3]);

    let heard = follow(&app, &format!("{path}&after={before}"), None, 2).await;
    assert_eq!(heard.iter().map(|(id, _)| *id).collect::<Vec<_>>(), positions(&expected));
    assert_eq!(heard.into_iter().map(|(_, data)| data).collect::<Vec<_>>(), expected);

    // Where it was left counts, and not where it was begun.
    let resumed = follow(&app, &format!("{path}&after={before}"), Some(before + 1), 1).await;
    assert_eq!(resumed, [(before + 3, expected[1].clone())]);

    // Live: what is made while somebody listens is heard, and what was before is not.
    let stream = format!("/api/events/stream?stream=product-{}", one.id);
    let listens = follow(&app, &stream, Some(app.head().await), 1);
    let renames =
        async { app.put(&format!("/api/products/{}", one.id), json!({ "name": "Renamed" })).await };
    let (heard, renamed) = futures::join!(listens, renames);
    assert_eq!(heard[0].0, renamed.position());
    assert_eq!(heard[0].1["type"], "product.changed.v1");
    for bad in ["soon", "-1", ""] {
        app.get_with("/api/events/stream", "last-event-id", bad)
            .await
            .expect_problem(400, "malformed_last_event_id");
    }
}
