//! A random walk through the API: what it does next depends on its seed and on what there is.
//!
//! The rule of this file: the walk remembers the ids of everything it made, so that everything can
//! be read afterwards, deleted or not.

use serde_json::{Value, json};
use tests::chance::Chance;
use tests::support::{Product, TestApp, counter_manifest};

/// Where a walk is and what it has made.
pub struct Walk {
    chance: Chance,
    made: u64,
    products: Vec<Product>,
    bases: Vec<String>,
    tokens: Vec<String>,
    agents: Vec<Value>,
    files: Vec<String>,
    users: Vec<String>,
}

impl Walk {
    /// A walk that has not begun.
    pub fn new(seed: u64) -> Walk {
        Walk {
            chance: Chance::new(seed),
            made: 0,
            products: Vec::new(),
            bases: Vec::new(),
            tokens: Vec::new(),
            agents: Vec::new(),
            files: Vec::new(),
            users: Vec::new(),
        }
    }

    /// A number below `below`.
    pub fn pick(&mut self, below: usize) -> usize {
        self.chance.pick(below)
    }

    fn one_of<T: Clone>(&mut self, all: &[T]) -> T {
        all[self.pick(all.len())].clone()
    }

    fn name(&mut self, what: &str) -> String {
        self.made += 1;
        format!("{what} {} ünïcødé", self.made)
    }

    /// Does so many things.
    pub async fn go(&mut self, app: &TestApp, steps: usize) {
        for _ in 0..steps {
            self.step(app).await;
        }
    }

    async fn step(&mut self, app: &TestApp) {
        if self.products.is_empty() {
            return self.make_product(app).await;
        }
        match self.pick(20) {
            0 => self.make_product(app).await,
            1 => self.change_product(app).await,
            2 => self.delete_product(app).await,
            3 | 4 => self.make_token(app).await,
            5 | 6 => self.change_token(app).await,
            7 | 8 => self.install(app).await,
            9 => self.change_agent(app).await,
            10..=12 => self.execute(app).await,
            13 => self.make_base(app).await,
            14..=16 => self.upload(app).await,
            17 => self.delete_file(app).await,
            18 => self.make_user(app).await,
            _ => self.be_refused(app).await,
        }
    }

    async fn make_product(&mut self, app: &TestApp) {
        let body =
            json!({ "name": self.name("Product"), "description": self.name("What it is for") });
        let reply = app.post("/api/products", body).await.expect_status(201);
        let product = Product {
            id: text(&reply.data()["id"]),
            knowledge_base: text(&reply.data()["default_knowledge_base_id"]),
        };
        self.bases.push(product.knowledge_base.clone());
        self.products.push(product);
    }

    fn product(&mut self) -> Product {
        let all = self.products.clone();
        self.one_of(&all)
    }

    async fn change_product(&mut self, app: &TestApp) {
        let path = format!("/api/products/{}", self.product().id);
        let reply = app.put(&path, json!({ "name": self.name("Renamed") })).await;
        done_or_gone(&reply, &[200]);
    }

    async fn delete_product(&mut self, app: &TestApp) {
        // Rarely: what is inside is gone with it.
        if self.pick(3) == 0 && self.products.len() > 1 {
            let path = format!("/api/products/{}", self.product().id);
            done_or_gone(&app.delete(&path).await, &[200]);
        }
    }

    async fn make_token(&mut self, app: &TestApp) {
        let mut body = json!({ "product_id": self.product().id, "name": self.name("Token") });
        if self.pick(2) == 0 {
            body["scopes"] = json!(["agents:read", "products:read"]);
        }
        if self.pick(3) == 0 {
            body["expires_at"] = json!("2999-12-31T23:59:59Z");
        }
        let reply = app.post("/api/api-tokens", body).await;
        done_or_gone(&reply, &[201]);
        if reply.status == 201 {
            self.tokens.push(text(&reply.data()["id"]));
            let program = app.with_token(reply.data()["token"].as_str().unwrap());
            for _ in 0..self.pick(4) {
                program.get("/api/products").await.expect_status(200);
            }
        }
    }

    async fn change_token(&mut self, app: &TestApp) {
        if self.tokens.is_empty() {
            return self.make_token(app).await;
        }
        let all = self.tokens.clone();
        let path = format!("/api/api-tokens/{}", self.one_of(&all));
        let reply = match self.pick(6) {
            0 => app.post_empty(&format!("{path}/revoke")).await,
            1 => {
                app.post(&format!("{path}/renew"), json!({ "expires_at": "2888-01-01T00:00:00Z" }))
                    .await
            }
            2 => app.post_empty(&format!("{path}/regenerate")).await,
            3 => app.put(&path, json!({ "active": false })).await,
            4 => {
                app.put(
                    &path,
                    json!({ "name": self.name("Renamed"), "allowed_ips": ["10.0.0.0/8"] }),
                )
                .await
            }
            _ => app.delete(&path).await,
        };
        done_or_gone(&reply, &[200, 409]);
    }

    async fn install(&mut self, app: &TestApp) {
        let mut body = json!({ "product_id": self.product().id, "title": self.name("Agent") });
        let choice = self.pick(3);
        if choice == 0 {
            body["agent"] = json!("prodgy.search");
        } else {
            body["manifest"] = counter_manifest();
            body["config"] = json!({ "start": choice });
        }
        let reply = app.post("/api/agent-base/install", body).await;
        done_or_gone(&reply, &[201]);
        if reply.status == 201 {
            self.agents.push(reply.data().clone());
        }
    }

    fn agent(&mut self) -> Option<Value> {
        let all = self.agents.clone();
        (!all.is_empty()).then(|| self.one_of(&all))
    }

    async fn change_agent(&mut self, app: &TestApp) {
        let Some(agent) = self.agent() else { return self.install(app).await };
        let path = format!("/api/agent-base/{}", text(&agent["id"]));
        let reply = match self.pick(7) {
            0 => app.delete(&path).await,
            1 => app.put(&path, json!({ "enabled": false })).await,
            2 => app.put(&path, json!({ "enabled": true })).await,
            3 => app.put(&path, json!({ "version_id": agent["version_id"] })).await,
            4 | 5 => {
                self.made += 1;
                let mut manifest = agent["manifest"].clone();
                manifest["version"] = json!(format!("2.0.{}", self.made));
                let body = json!({ "manifest": manifest, "activate": self.pick(2) == 0 });
                app.post(&format!("{path}/versions"), body).await
            }
            _ => app.put(&path, json!({ "title": self.name("Renamed") })).await,
        };
        done_or_gone(&reply, &[200, 201]);
    }

    async fn execute(&mut self, app: &TestApp) {
        let Some(agent) = self.agent() else { return self.install(app).await };
        let path =
            format!("/api/agent-base/triggers/{}/execute", text(&agent["triggers"][0]["id"]));
        let input = json!({ "n": self.pick(1_000), "query": self.name("What is in") });
        let reply = app.post(&path, json!({ "input": input })).await;
        done_or_gone(&reply, &[202, 409]);
    }

    async fn make_base(&mut self, app: &TestApp) {
        let body = json!({ "product_id": self.product().id, "name": self.name("Base") });
        let reply = app.post("/api/knowledge-base", body).await;
        done_or_gone(&reply, &[201]);
        if reply.status == 201 {
            self.bases.push(text(&reply.data()["id"]));
        }
    }

    async fn upload(&mut self, app: &TestApp) {
        let all = self.bases.clone();
        let base = self.one_of(&all);
        let content = match self.pick(6) {
            0 => b"\xff\xfe this is no text".to_vec(),
            1 => b"the same bytes every time".to_vec(),
            _ => self.name("A text about").into_bytes(),
        };
        let reply = app.upload(&base, &[("text.txt", "text/plain", &content)]).await;
        done_or_gone(&reply, &[201, 202, 409]);
        if reply.is_success() {
            self.files.push(text(&reply.data()[0]["id"]));
        }
    }

    async fn delete_file(&mut self, app: &TestApp) {
        if !self.files.is_empty() {
            let all = self.files.clone();
            let path = format!("/api/knowledge-base/storage/file/{}", self.one_of(&all));
            done_or_gone(&app.delete(&path).await, &[200]);
        }
    }

    async fn make_user(&mut self, app: &TestApp) {
        self.made += 1;
        let email = format!("user{}@example.com", self.made);
        let role = self.one_of(&["viewer", "member", "admin"]);
        let body = json!({ "email": email, "role": role, "password": "a long password" });
        let reply = app.post("/api/users", body).await.expect_status(201);
        self.users.push(text(&reply.data()["id"]));
        if self.pick(3) == 0 {
            let all = self.users.clone();
            let path = format!("/api/users/{}", self.one_of(&all));
            done_or_gone(&app.delete(&path).await, &[200]);
        }
    }

    async fn be_refused(&mut self, app: &TestApp) {
        app.nobody().get("/api/products").await.expect_status(401);
        app.post("/api/products", json!({ "name": "" })).await.expect_status(422);
        app.get("/api/products/01890000-0000-7000-8000-000000000000").await.expect_status(404);
    }

    /// Waits until nothing is under way any more, and everything that was counted is written.
    pub async fn settle(&self, app: &TestApp) {
        for base in &self.bases {
            let path = format!("/api/knowledge-base/storage/{base}?limit=1000");
            tests::support::eventually("files are still processed", async || {
                let reply = app.get(&path).await;
                (reply.status == 404 || !reply.text().contains("\"processing\"")).then_some(())
            })
            .await;
        }
        for agent in &self.agents {
            let path = format!("/api/agent-base/{}/executions?limit=1000", text(&agent["id"]));
            tests::support::eventually("executions are still running", async || {
                let reply = app.get(&path).await;
                let items = reply.data().as_array().cloned().unwrap_or_default();
                let is_over = items.iter().all(|execution| !execution["ended_at"].is_null());
                (reply.status == 404 || is_over).then_some(())
            })
            .await;
        }
        // Writes what is pending of uses and refusals.
        app.get("/api/audit-logs?limit=1").await.expect_status(200);
        // The jobs that follow a deletion are over when no event has come between two looks.
        let mut last = 0;
        tests::support::eventually("events still come", async || {
            tokio::time::sleep(std::time::Duration::from_millis(200)).await;
            let head = app.head().await;
            (std::mem::replace(&mut last, head) == head).then_some(())
        })
        .await;
    }

    /// Every read there is of what was made, deleted or not; what counts itself is left out.
    pub fn paths(&self) -> Vec<String> {
        let mut paths =
            vec!["/api/products?limit=1000".to_owned(), "/api/users?limit=1000".to_owned()];
        paths.push("/api/events?limit=1000".to_owned());
        paths.push("/api/audit-logs?limit=1000&outcome=success".to_owned());
        for Product { id, .. } in &self.products {
            paths.push(format!("/api/products/{id}"));
            paths.push(format!("/api/api-tokens/product/{id}?limit=1000"));
            paths.push(format!("/api/agent-base/product/{id}?limit=1000"));
            paths.push(format!("/api/knowledge-base/{id}?limit=1000"));
        }
        for base in &self.bases {
            paths.push(format!("/api/knowledge-base/base/{base}"));
            paths.push(format!("/api/knowledge-base/storage/{base}?limit=1000"));
        }
        for token in &self.tokens {
            paths.push(format!("/api/api-tokens/{token}"));
            paths.push(format!("/api/api-tokens/{token}/audit-logs?limit=1000"));
        }
        for agent in &self.agents {
            let id = text(&agent["id"]);
            paths.push(format!("/api/agent-base/{id}"));
            paths.push(format!("/api/agent-base/{id}/executions?limit=1000"));
            paths.push(format!("/api/agent-base/{id}/versions?limit=1000"));
            paths.push(format!("/api/agent-base/triggers/{}", text(&agent["triggers"][0]["id"])));
            paths.push(format!(
                "/api/agent-base/triggers/manual/version/{}",
                text(&agent["version_id"])
            ));
        }
        for file in &self.files {
            paths.push(format!("/api/knowledge-base/storage/file/{file}"));
            paths.push(format!("/api/knowledge-base/storage/file/{file}/download"));
            paths.push(format!("/api/knowledge-base/storage/file/{file}/chunks?limit=1000"));
        }
        paths.extend(self.users.iter().map(|user| format!("/api/users/{user}")));
        paths
    }

    /// Searches in every product, in every way.
    pub fn questions(&self) -> Vec<Value> {
        let ask = |product: &Product, mode: &str| {
            json!({ "query": "A text about the same bytes", "product_id": product.id, "mode": mode,
                    "limit": 50 })
        };
        let modes = ["vector", "full_text", "hybrid"];
        self.products.iter().flat_map(|product| modes.map(|mode| ask(product, mode))).collect()
    }
}

/// Something is done, or it was about something that the walk had deleted.
#[track_caller]
fn done_or_gone(reply: &tests::support::Reply, expected: &[u16]) {
    assert!(reply.status == 404 || expected.contains(&reply.status), "{reply:?}");
}

fn text(value: &Value) -> String {
    value.as_str().unwrap().to_owned()
}
