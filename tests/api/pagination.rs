//! Lists: pages, `Link` headers, and parameters that are not taken.

use serde_json::{Value, json};

use super::support::{Reply, TestApp};

async fn with_products(count: usize) -> TestApp {
    let app = TestApp::spawn().await;
    for number in 1..=count {
        app.post("/api/products", json!({ "name": format!("Product {number}") }))
            .await
            .expect_status(201);
    }
    app
}

fn names(reply: &Reply) -> Vec<&str> {
    reply.data().as_array().unwrap().iter().map(|item| item["name"].as_str().unwrap()).collect()
}

/// Where the `Link` header says that this relation is.
fn link<'a>(reply: &'a Reply, relation: &str) -> Option<&'a str> {
    reply.header("link").split(", ").find_map(|link| {
        let (target, name) = link.split_once("; ").unwrap();
        (name == format!("rel=\"{relation}\""))
            .then(|| target.trim_start_matches('<').trim_end_matches('>'))
    })
}

#[tokio::test]
async fn pages_follow_each_other_newest_first() {
    let app = with_products(7).await;

    let first = app.get("/api/products?pageSize=3").await.expect_status(200);
    assert_eq!(names(&first), ["Product 7", "Product 6", "Product 5"]);
    assert_eq!(
        first.body["pagination"],
        json!({ "page": 1, "page_size": 3, "total": 7, "total_pages": 3 })
    );
    assert_eq!(link(&first, "prev"), None);

    let second = app.get(link(&first, "next").unwrap()).await.expect_status(200);
    assert_eq!(names(&second), ["Product 4", "Product 3", "Product 2"]);
    assert_eq!(app.get(link(&second, "prev").unwrap()).await.body, first.body);

    let last = app.get(link(&second, "last").unwrap()).await.expect_status(200);
    assert_eq!(names(&last), ["Product 1"]);
    assert_eq!(last.body["pagination"]["page"], 3);
    assert_eq!(link(&last, "next"), None);
    assert_eq!(app.get(link(&last, "first").unwrap()).await.body, first.body);

    let beyond = app.get("/api/products?pageSize=3&page=4").await.expect_status(200);
    assert_eq!(names(&beyond), [""; 0]);
    assert_eq!(beyond.body["pagination"]["total"], 7);
}

#[tokio::test]
async fn a_limit_is_the_first_so_many() {
    let app = with_products(3).await;

    let reply = app.get("/api/products?limit=2").await.expect_status(200);
    assert_eq!(names(&reply), ["Product 3", "Product 2"]);
    assert_eq!(reply.body["pagination"]["total"], 3);
}

#[tokio::test]
async fn what_is_made_meanwhile_moves_no_page_of_the_oldest() {
    let app = with_products(3).await;
    let oldest = app.get("/api/products?pageSize=1&page=3").await.expect_status(200);

    app.post("/api/products", json!({ "name": "Product 4" })).await.expect_status(201);

    let again = app.get("/api/products?pageSize=1&page=4").await.expect_status(200);
    assert_eq!(again.data(), oldest.data());
}

#[tokio::test]
async fn bad_paging_is_refused_on_every_list_and_so_is_an_unknown_parameter() {
    let app = TestApp::spawn().await;
    let product = app.product().await;
    let agent = app.agent(&product).await;
    let token = app.token(&product, &[]).await;
    let file = app.text_file(&product, "a.txt", "a text").await;
    let document = app.get("/swagger.json").await.expect_status(200).body;

    let lists: Vec<&String> = document["paths"]
        .as_object()
        .unwrap()
        .iter()
        .filter(|(_, item)| {
            let parameters = item["get"]["parameters"].as_array();
            parameters
                .is_some_and(|list| list.iter().any(|parameter| parameter["name"] == "pageSize"))
        })
        .map(|(path, _)| path)
        // It wants to know of which session: `chat` holds it to the same.
        .filter(|path| *path != "/api/assistant/chat/history")
        .collect();
    assert!(lists.len() >= 10, "{lists:?}");

    for path in lists {
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let id = match path.as_str() {
            path if path.contains("api-tokens") => token.id.clone(),
            path if path.contains("storage/file") => file.clone(),
            _ => text(&agent["id"]),
        };
        let path = path
            .replace("{productId}", &product.id)
            .replace("{knowledgeBaseId}", &product.knowledge_base)
            .replace("{versionId}", &text(&agent["version_id"]))
            .replace("{triggerId}", &text(&agent["triggers"][0]["id"]))
            // Nobody has said anything: what is wrong with the parameters is said first all the same.
            .replace("{conversationId}", &product.id)
            .replace("{id}", &id);
        let status = if path.contains("/conversations/") { 404 } else { 200 };
        app.get(&path).await.expect_status(status);
        for query in [
            "page=0",
            "page=-1",
            "page=one",
            "page=1.5",
            "page=99999999999999999999",
            "page=",
            "page=1&page=2",
            "pageSize=0",
            "pageSize=201",
            "page_size=10",
            "limit=0",
            "limit=1001",
            "limit=1&page=1",
            "limit=1&pageSize=1",
            "cursor=nonsense",
            "unknown=1",
            "page=%FF",
        ] {
            let reply = app.get(&format!("{path}?{query}")).await;
            assert_eq!(reply.status, 400, "{path}?{query}: {reply:?}");
        }
    }
}

#[tokio::test]
async fn a_bad_parameter_is_named() {
    let app = TestApp::spawn().await;

    let reply = app
        .get("/api/products?pageSize=201&unknown=1")
        .await
        .expect_problem(400, "invalid_parameters");
    assert_eq!(reply.body["errors"][0]["field"], "/unknown", "{reply:?}");
    let reply =
        app.get("/api/products?pageSize=201").await.expect_problem(400, "invalid_parameters");
    assert_eq!(reply.body["errors"][0]["field"], "/pageSize", "{reply:?}");
}
