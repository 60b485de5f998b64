//! The check: everything that was acknowledged, read back.
//!
//! The rule of this file: it says what is wrong and stops at nothing, so that it serves the negative
//! controls too.

use std::collections::HashSet;

use serde_json::json;
use tests::support::{PASSWORD, Reply, TestApp};

use super::told::{Execution, File, Told};

/// Looks for all that was acknowledged. Answers what is lost or cannot be read as it was.
pub async fn faults(app: &TestApp, told: &Told) -> Vec<String> {
    let mut faults = Faults::default();
    for product in &told.products {
        let reply = app.get(&format!("/api/products/{}", product.id)).await;
        faults.look(&format!("product {}", product.id), &reply, |reply| {
            reply.data()["name"] == product.name
        });
        let reply = app.get(&format!("/api/knowledge-base/base/{}", product.knowledge_base)).await;
        faults.look(&format!("knowledge base {}", product.knowledge_base), &reply, |reply| {
            reply.data()["product_id"] == product.id
        });
    }
    for user in &told.users {
        let what = format!("user {}", user.id);
        let reply = app.get(&format!("/api/users/{}", user.id)).await;
        faults.look(&what, &reply, |reply| {
            reply.data()["name"] == user.name && reply.data()["email"] == user.email
        });
        let body = json!({ "email": user.email, "password": PASSWORD });
        let reply = app.nobody().post("/api/auth/login", body).await;
        faults.look(&format!("{what} who signs in"), &reply, |_| true);
    }
    for token in &told.tokens {
        let what = format!("token {}", token.id);
        let reply = app.get(&format!("/api/api-tokens/{}", token.id)).await;
        let status = if token.is_revoked { "revoked" } else { "active" };
        faults.look(&what, &reply, |reply| reply.data()["status"] == status);
        let reply = app.with_token(&token.secret).get("/api/api-token/auth/validate").await;
        match token.is_revoked {
            true if reply.error() == "token_revoked" => {}
            true => faults.add(&what, "is not revoked any more", &reply),
            false => faults.look(&format!("{what} as a credential"), &reply, |_| true),
        }
    }
    for file in &told.files {
        let what = format!("file {}", file.id);
        let reply = app.get(&path(file)).await;
        faults.look(&what, &reply, |reply| reply.data()["file_name"] == file.name);
        // A download that breaks off is no answer.
        let request = app.request(reqwest::Method::GET, &format!("{}/download", path(file)));
        match app.try_send(request).await {
            Ok(reply) => {
                faults.look(&format!("{what}'s bytes"), &reply, |reply| reply.bytes == file.bytes)
            }
            Err(error) => faults.0.push(format!("{what}'s bytes broke off: {error}")),
        }
    }
    for agent in &told.agents {
        let reply = app.get(&format!("/api/agent-base/{}", agent.id)).await;
        faults.look(&format!("agent {}", agent.id), &reply, |reply| {
            reply.data()["title"] == agent.title
        });
        let path = format!("/api/agent-base/{}/executions?limit=1000", agent.id);
        let reply = app.get(&path).await;
        for execution in told.executions.iter().filter(|run| run.agent == agent.id) {
            faults.look(&format!("execution {}", execution.id), &reply, |reply| {
                holds(reply, execution)
            });
        }
    }
    for session in &told.sessions {
        faults.look("a session", &session.get("/api/auth/me").await, |_| true);
    }
    for path in &told.gone {
        let reply = app.get(path).await;
        if reply.status != 404 {
            faults.add(path, "was deleted and is back", &reply);
        }
    }
    faults.audit(app, told).await;
    faults.0
}

/// Waits until what was under way has ended, as if nothing had happened.
pub async fn settled(app: &TestApp, told: &Told) {
    for file in &told.files {
        let Some(word) = &file.word else {
            // Nobody can read it.
            app.wait_ended(&file.id, "failed").await;
            continue;
        };
        app.wait_ready(&file.id).await;
        let base = app.get(&path(file)).await.data()["knowledge_base_id"].clone();
        let body = json!({ "query": word, "mode": "full_text", "knowledge_base_id": base });
        let found = app.post("/api/knowledge-base/embeddings", body).await.expect_status(200);
        assert_eq!(found.data()[0]["file_id"], file.id, "{word}: {found:?}");
    }
    for execution in &told.executions {
        let ended = app.wait_execution(&execution.agent, &execution.id).await;
        assert_eq!(ended["status"], "succeeded", "{ended}");
        assert_eq!(ended["output"], output(execution), "{ended}");
    }
}

fn path(file: &File) -> String {
    format!("/api/knowledge-base/storage/file/{}", file.id)
}

/// What the counter makes of its input.
fn output(execution: &Execution) -> i64 {
    execution.input["n"].as_i64().unwrap() + 1
}

/// Whether a list shows an execution as it was asked for, and ended if it had.
fn holds(list: &Reply, execution: &Execution) -> bool {
    let mut items = list.data().as_array().into_iter().flatten();
    items.any(|item| {
        item["id"] == execution.id
            && item["input"] == execution.input
            && (!execution.has_ended || item["output"] == output(execution))
    })
}

#[derive(Default)]
struct Faults(Vec<String>);

impl Faults {
    fn look(&mut self, what: &str, reply: &Reply, is_as_it_was: impl Fn(&Reply) -> bool) {
        match reply.status {
            200..=299 if is_as_it_was(reply) => {}
            200..=299 => self.add(what, "is not what it was", reply),
            401 | 404 => self.add(what, "is lost", reply),
            _ => self.add(what, "cannot be read", reply),
        }
    }

    fn add(&mut self, what: &str, fault: &str, reply: &Reply) {
        let text: String = reply.text().chars().take(300).collect();
        self.0.push(format!("{what} {fault}: {} {text}", reply.status));
    }

    /// What was made has its line in the audit log.
    async fn audit(&mut self, app: &TestApp, told: &Told) {
        let mut lines = HashSet::new();
        for action in ["created", "uploaded", "installed", "requested"] {
            let reply = app.get(&format!("/api/audit-logs?limit=1000&action={action}")).await;
            self.look("audit log", &reply, |_| true);
            lines.extend(reply.data().as_array().into_iter().flatten().filter_map(|entry| {
                let text = |name: &str| Some(entry[name].as_str()?.to_owned());
                Some((text("resource_type")?, text("resource_id")?))
            }));
        }
        let made = (told.products.iter().map(|product| ("product", &product.id)))
            .chain(told.users.iter().map(|user| ("user", &user.id)))
            .chain(told.tokens.iter().map(|token| ("api_token", &token.id)))
            .chain(told.files.iter().map(|file| ("file", &file.id)))
            .chain(told.agents.iter().map(|agent| ("agent", &agent.id)))
            .chain(told.executions.iter().map(|execution| ("execution", &execution.id)));
        for (kind, id) in made {
            if !lines.contains(&(kind.to_owned(), id.clone())) {
                self.0.push(format!("audit line of {kind} {id} is missing"));
            }
        }
    }
}
