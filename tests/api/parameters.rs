//! Query parameters: what a route does not know is never passed over in silence.

use reqwest::Method;
use serde_json::Value;

use super::support::TestApp;

/// An id of nothing: parameters are judged before it is looked for.
const NOTHING: &str = "01890000-0000-7000-8000-000000000000";

#[tokio::test]
async fn an_unknown_query_parameter_is_refused_on_every_route() {
    let app = TestApp::spawn().await;
    let product = app.product().await;
    let token = app.with_token(&app.token(&product, &[]).await.secret);
    let document = app.nobody().get("/swagger.json").await.expect_status(200).body;

    let mut routes = vec![("GET".to_owned(), "/metrics".to_owned())];
    routes.push(("GET".to_owned(), "/swagger.json".to_owned()));
    for (path, item) in document["paths"].as_object().unwrap() {
        for method in item.as_object().unwrap().keys().filter(|name| *name != "parameters") {
            routes.push((method.to_uppercase(), path.clone()));
        }
    }
    assert!(routes.len() > 50, "{routes:?}");
    for (method, path) in routes {
        let filled: Vec<&str> = path
            .split('/')
            .map(|part| if part.starts_with('{') { NOTHING } else { part })
            .collect();
        let client = if path.ends_with("/validate") { &token } else { app.owner() };
        let method = Method::from_bytes(method.as_bytes()).unwrap();
        for (query, code) in [("colour=red", "unknown"), ("colour", "unknown")] {
            let request = client.request(method.clone(), &format!("{}?{query}", filled.join("/")));
            let reply = client.send(request).await;
            if path.starts_with("/v1/") {
                // In the words of those whose clients call there.
                let reply = reply.expect_status(400);
                let error = &reply.body["error"];
                assert_eq!(
                    (&error["code"], &error["param"]),
                    (&Value::from("invalid_parameters"), &Value::from("colour"))
                );
                continue;
            }
            let reply = reply.expect_problem(400, "invalid_parameters");
            assert_eq!(reply.body["errors"][0]["field"], "/colour", "{method} {path}: {reply:?}");
            assert_eq!(reply.body["errors"][0]["code"], code, "{method} {path}: {reply:?}");
        }
        let request = client.request(method.clone(), &format!("{}?%ff=1", filled.join("/")));
        let reply = client.send(request).await.expect_status(400);
        if !path.starts_with("/v1/") {
            reply.expect_problem(400, "malformed_query");
        }
    }
    let head = app.request(Method::HEAD, "/api/products?colour=red");
    app.send(head).await.expect_status(400);
}

#[tokio::test]
async fn what_a_document_names_is_known() {
    let app = TestApp::spawn().await;

    app.get("/api/products?page=1&pageSize=2").await.expect_status(200);
    app.get("/api/products?page=1&page=2").await.expect_problem(400, "invalid_parameters");
    app.get("/api/products?page=").await.expect_problem(400, "invalid_parameters");
    app.get("/healthz").await.expect_status(200);
    app.get("/swagger/").await.expect_status(200);
}
