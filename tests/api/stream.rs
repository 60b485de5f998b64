//! Streams: they go on as long as whoever opened them may read them, and no longer.

use reqwest::{Method, Response};
use serde_json::json;

use super::support::{Client, PASSWORD, PATIENCE, TestApp};

/// A stream that was opened, and what has come of it so far.
struct Open {
    response: Response,
    text: String,
}

impl Open {
    async fn new(client: &Client, path: &str) -> Open {
        let response = client.request(Method::GET, path).send().await.unwrap();
        assert_eq!(response.status(), 200, "{path}");
        Open { response, text: String::new() }
    }

    /// Reads on until this stands in it.
    async fn wait_for(&mut self, what: &str) {
        while !self.text.contains(what) {
            assert!(self.read().await, "the stream ended without {what}: {}", self.text);
        }
    }

    /// Reads to the end, and answers all of it.
    async fn end(mut self) -> String {
        while self.read().await {}
        self.text
    }

    async fn read(&mut self) -> bool {
        let chunk = tokio::time::timeout(PATIENCE, self.response.chunk()).await;
        let chunk = chunk.unwrap_or_else(|_| panic!("nothing comes, and no end: {}", self.text));
        let Some(chunk) = chunk.unwrap() else { return false };
        self.text.push_str(&String::from_utf8_lossy(&chunk));
        true
    }
}

#[track_caller]
fn ends_with(text: &str, code: &str) {
    let last = text.trim_end().rsplit("\n\n").next().unwrap();
    assert!(last.starts_with("event: error\n"), "{text}");
    assert!(last.contains(&format!("\"error\":\"{code}\"")), "{text}");
}

#[tokio::test]
async fn a_stream_ends_when_its_token_is_no_longer_good() {
    let app = TestApp::spawn().await;
    let product = app.product().await;
    let paths =
        ["/api/events/stream".to_owned(), format!("/api/knowledge-base/{}/stream", product.id)];

    for (verb, code) in [
        ("revoke", "token_revoked"),
        ("regenerate", "token_invalid"),
        ("switch off", "token_inactive"),
        ("narrow", "scope_missing"),
        ("delete", "token_invalid"),
    ] {
        let token = app.token(&product, &[]).await;
        let other = app.with_token(&app.token(&product, &[]).await.secret);
        let client = app.with_token(&token.secret);
        let mut open = Vec::new();
        let mut unharmed = Vec::new();
        for path in &paths {
            open.push(Open::new(&client, path).await);
            unharmed.push(Open::new(&other, path).await);
        }

        let path = format!("/api/api-tokens/{}", token.id);
        let reply = match verb {
            "switch off" => app.put(&path, json!({ "active": false })).await,
            "narrow" => app.put(&path, json!({ "scopes": ["products:read"] })).await,
            "delete" => app.delete(&path).await,
            verb => app.post_empty(&format!("{path}/{verb}")).await,
        };
        reply.expect_status(200);

        for stream in open {
            ends_with(&stream.end().await, code);
        }
        let file = app.text_file(&product, "note.txt", &format!("after {verb}")).await;
        for mut stream in unharmed {
            stream.wait_for(&file).await;
        }
    }
}

#[tokio::test]
async fn a_stream_ends_when_its_session_or_its_user_is_gone() {
    let app = TestApp::spawn().await;
    let product = app.product().await;
    let path = format!("/api/knowledge-base/{}/stream", product.id);

    for (what, code) in [
        ("sign out", "session_invalid"),
        ("change the password", "session_invalid"),
        ("delete the user", "session_invalid"),
    ] {
        let user = app.user("viewer").await;
        let me = user.get("/api/auth/me").await.expect_status(200);
        let id = me.data()["user"]["id"].as_str().unwrap().to_owned();
        let stream = Open::new(&user, &path).await;
        let reply = match what {
            "sign out" => user.post_empty("/api/auth/logout").await,
            "delete the user" => app.delete(&format!("/api/users/{id}")).await,
            _ => {
                let body =
                    json!({ "current_password": PASSWORD, "new_password": "another password" });
                user.post("/api/auth/password", body).await
            }
        };
        reply.expect_status(200);
        ends_with(&stream.end().await, code);
    }

    let admin = app.user("admin").await;
    let me = admin.get("/api/auth/me").await.expect_status(200);
    let id = me.data()["user"]["id"].as_str().unwrap().to_owned();
    let stream = Open::new(&admin, "/api/events/stream").await;
    app.put(&format!("/api/users/{id}"), json!({ "role": "member" })).await.expect_status(200);
    ends_with(&stream.end().await, "role_insufficient");
}

#[tokio::test]
async fn a_stream_of_a_product_ends_with_the_product() {
    let app = TestApp::spawn().await;
    let product = app.product().await;
    let stream = Open::new(&app, &format!("/api/knowledge-base/{}/stream", product.id)).await;

    app.delete(&format!("/api/products/{}", product.id)).await;

    ends_with(&stream.end().await, "product_not_found");
}
