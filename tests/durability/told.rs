//! Clients that write, and what they were told.
//!
//! The rule of this file: whatever was answered with success is noted, and nothing else; what a
//! request is about that was not answered, is not known any more.

use std::sync::Arc;

use reqwest::Method;
use serde_json::{Value, json};
use tests::chance::Chance;
use tests::support::{Client, OWNER, PASSWORD, Reply, counter_manifest};
use tokio::sync::watch;
use uuid::Uuid;

/// The sizes of files: within one page, more than goes into an event, several writes long.
const SIZES: [usize; 4] = [1, 20_000, 300_000, 1_500_000];

/// A free text that does not go into an event.
const LONG: usize = 20_000;

/// What was acknowledged.
#[derive(Debug, Default)]
pub struct Told {
    pub products: Vec<Product>,
    pub users: Vec<User>,
    pub tokens: Vec<Token>,
    pub files: Vec<File>,
    pub agents: Vec<Agent>,
    pub executions: Vec<Execution>,
    pub sessions: Vec<Client>,
    /// The paths of what was deleted.
    pub gone: Vec<String>,
}

#[derive(Clone, Debug)]
pub struct Product {
    pub id: String,
    pub name: String,
    pub knowledge_base: String,
}

#[derive(Clone, Debug)]
pub struct User {
    pub id: String,
    pub email: String,
    pub name: String,
}

#[derive(Clone, Debug)]
pub struct Token {
    pub id: String,
    pub secret: String,
    pub is_revoked: bool,
}

#[derive(Clone, Debug)]
pub struct File {
    pub id: String,
    pub name: String,
    pub bytes: Vec<u8>,
    /// A word of it that no other file has; none where it is no text.
    pub word: Option<String>,
}

#[derive(Clone, Debug)]
pub struct Agent {
    pub id: String,
    pub title: String,
    pub trigger: String,
}

#[derive(Clone, Debug)]
pub struct Execution {
    pub id: String,
    pub agent: String,
    pub input: Value,
    /// It had ended well when it was answered.
    pub has_ended: bool,
}

impl Told {
    /// Adds what another client was told.
    pub fn add(&mut self, other: Told) {
        self.products.extend(other.products);
        self.users.extend(other.users);
        self.tokens.extend(other.tokens);
        self.files.extend(other.files);
        self.agents.extend(other.agents);
        self.executions.extend(other.executions);
        self.sessions.extend(other.sessions);
        self.gone.extend(other.gone);
    }

    /// How many things are there.
    pub fn len(&self) -> usize {
        let things = [self.products.len(), self.users.len(), self.tokens.len(), self.files.len()];
        let more = [self.agents.len(), self.executions.len(), self.sessions.len()];
        things.iter().chain(&more).sum::<usize>() + self.gone.len()
    }
}

/// A command that was sent and not answered.
#[derive(Debug)]
pub struct Unanswered {
    path: String,
    body: Value,
    key: String,
}

impl Unanswered {
    fn request(&self, client: &Client) -> reqwest::RequestBuilder {
        let request = client.request(Method::POST, &self.path).header("idempotency-key", &self.key);
        // A verb without fields takes no body.
        if self.body.is_null() { request } else { request.json(&self.body) }
    }

    /// Sends the command again, twice: it is carried out, and only once.
    pub async fn send_again(&self, client: &Client) {
        let first = client.send(self.request(client)).await;
        let second = client.send(self.request(client)).await;
        assert!(first.is_success() && second.is_success(), "{self:?}: {first:?} {second:?}");
        assert_eq!(second.body["replayed"], true, "{self:?}: {first:?} {second:?}");
        assert_eq!(id(&first), id(&second), "{self:?} was carried out twice");
    }
}

/// One client. Its methods answer nothing once the power is gone.
pub struct Writer {
    client: Client,
    chance: Chance,
    heard: Arc<watch::Sender<usize>>,
    pub told: Told,
    pub unanswered: Option<Unanswered>,
}

impl Writer {
    /// A client that counts in `heard` how often it was answered.
    pub fn new(client: &Client, chance: Chance, heard: Arc<watch::Sender<usize>>) -> Writer {
        let client = client.clone();
        Writer { client, chance, heard, told: Told::default(), unanswered: None }
    }

    /// Writes until the power is gone.
    pub async fn write(mut self) -> Writer {
        while self.step().await.is_some() {}
        self
    }

    /// Makes one of each, and executes with a short and with a long text.
    pub async fn one_of_each(&mut self) -> Option<()> {
        self.make_product().await?;
        self.make_user().await?;
        self.sign_in().await?;
        self.make_token().await?;
        self.upload().await?;
        self.install().await?;
        self.execute(10).await?;
        self.execute(LONG).await
    }

    async fn step(&mut self) -> Option<()> {
        if self.told.products.is_empty() {
            return self.make_product().await;
        }
        match self.chance.pick(16) {
            0 => self.make_product().await,
            1 => self.rename().await,
            2 => self.make_user().await,
            3 => self.sign_in().await,
            4 | 5 => self.make_token().await,
            6 => self.revoke().await,
            7..=9 => self.upload().await,
            10 => self.upload_text().await,
            11 => self.install().await,
            12 | 13 => self.execute(10).await,
            14 => self.execute(LONG).await,
            _ => self.make_and_delete().await,
        }
    }

    async fn send(&mut self, request: reqwest::RequestBuilder) -> Option<Reply> {
        let reply = self.client.try_send(request).await.ok()?;
        assert!(reply.is_success(), "{reply:?}");
        self.heard.send_modify(|heard| *heard += 1);
        Some(reply)
    }

    async fn post(&mut self, path: &str, body: Value) -> Option<Reply> {
        let command = Unanswered { path: path.to_owned(), body, key: Uuid::now_v7().to_string() };
        let request = command.request(&self.client);
        self.unanswered = Some(command);
        let reply = self.send(request).await?;
        self.unanswered = None;
        Some(reply)
    }

    /// One of those that there are.
    fn one_of<T>(&mut self, all: impl Fn(&Told) -> &Vec<T>) -> usize {
        self.chance.pick(all(&self.told).len())
    }

    async fn make_product(&mut self) -> Option<()> {
        let name = format!("Product {:x} ünïcødé", self.chance.number());
        let reply = self.post("/api/products", json!({ "name": name })).await?;
        let knowledge_base = text(&reply, "default_knowledge_base_id");
        self.told.products.push(Product { id: text(&reply, "id"), name, knowledge_base });
        Some(())
    }

    async fn rename(&mut self) -> Option<()> {
        let index = self.one_of(|told| &told.products);
        let mut product = self.told.products.swap_remove(index);
        product.name = format!("Renamed {:x}", self.chance.number());
        let path = format!("/api/products/{}", product.id);
        let request =
            self.client.request(Method::PUT, &path).json(&json!({ "name": product.name }));
        self.send(request).await?;
        self.told.products.push(product);
        Some(())
    }

    async fn make_user(&mut self) -> Option<()> {
        let name = format!("Ada {:x}", self.chance.number());
        let email = format!("{:x}@example.com", self.chance.number());
        let body = json!({ "email": email, "name": name, "role": "admin", "password": PASSWORD });
        let reply = self.post("/api/users", body).await?;
        self.told.users.push(User { id: text(&reply, "id"), email, name });
        Some(())
    }

    async fn sign_in(&mut self) -> Option<()> {
        let email = match self.told.users.is_empty() {
            true => OWNER.to_owned(),
            false => {
                let index = self.one_of(|told| &told.users);
                self.told.users[index].email.clone()
            }
        };
        let body = json!({ "email": email, "password": PASSWORD });
        let request = self.client.nobody().request(Method::POST, "/api/auth/login").json(&body);
        let reply = self.send(request).await?;
        self.told.sessions.push(self.client.bearer(&text(&reply, "access_token")));
        Some(())
    }

    async fn make_token(&mut self) -> Option<()> {
        let index = self.one_of(|told| &told.products);
        let body = json!({ "product_id": self.told.products[index].id, "name": "Program" });
        let reply = self.post("/api/api-tokens", body).await?;
        let (id, secret) = (text(&reply, "id"), text(&reply, "token"));
        self.told.tokens.push(Token { id, secret, is_revoked: false });
        Some(())
    }

    async fn revoke(&mut self) -> Option<()> {
        if self.told.tokens.is_empty() {
            return self.make_token().await;
        }
        let index = self.one_of(|told| &told.tokens);
        let mut token = self.told.tokens.swap_remove(index);
        if !token.is_revoked {
            self.post(&format!("/api/api-tokens/{}/revoke", token.id), Value::Null).await?;
        }
        token.is_revoked = true;
        self.told.tokens.push(token);
        Some(())
    }

    /// Uploads a file that is no text.
    async fn upload(&mut self) -> Option<()> {
        let length = SIZES[self.chance.pick(SIZES.len())] + self.chance.pick(100);
        // No text has this byte in it.
        let bytes = [vec![0xff], self.chance.bytes(length)].concat();
        self.upload_file("bin", "application/octet-stream", bytes, None).await
    }

    async fn upload_text(&mut self) -> Option<()> {
        let word = format!("word{:x}", self.chance.number());
        let text = format!("This is about {word} and about what it is for.");
        self.upload_file("txt", "text/plain", text.into_bytes(), Some(word)).await
    }

    async fn upload_file(
        &mut self,
        end: &str,
        media_type: &str,
        bytes: Vec<u8>,
        word: Option<String>,
    ) -> Option<()> {
        let name = format!("{:x}.{end}", self.chance.number());
        let index = self.one_of(|told| &told.products);
        let base = &self.told.products[index].knowledge_base;
        let request = self.client.upload_request(base, &[(&name, media_type, &bytes)]);
        let reply = self.send(request).await?;
        let id = reply.data()[0]["id"].as_str().unwrap().to_owned();
        self.told.files.push(File { id, name, bytes, word });
        Some(())
    }

    async fn install(&mut self) -> Option<()> {
        let index = self.one_of(|told| &told.products);
        let title = format!("Counter {:x}", self.chance.number());
        let product = &self.told.products[index].id;
        let body = json!({ "product_id": product, "title": title, "manifest": counter_manifest() });
        let reply = self.post("/api/agent-base/install", body).await?;
        let trigger = reply.data()["triggers"][0]["id"].as_str().unwrap().to_owned();
        self.told.agents.push(Agent { id: text(&reply, "id"), title, trigger });
        Some(())
    }

    async fn execute(&mut self, length: usize) -> Option<()> {
        if self.told.agents.is_empty() {
            return self.install().await;
        }
        let index = self.one_of(|told| &told.agents);
        let Agent { id: agent, trigger, .. } = self.told.agents[index].clone();
        let input = json!({ "n": self.chance.pick(1_000), "note": "x".repeat(length) });
        let waits = self.chance.pick(2) * 30;
        let path = format!("/api/agent-base/triggers/{trigger}/execute?wait_seconds={waits}");
        let reply = self.post(&path, json!({ "input": input })).await?;
        let has_ended = reply.status == 200;
        self.told.executions.push(Execution { id: id(&reply), agent, input, has_ended });
        Some(())
    }

    /// Makes something and deletes it again.
    async fn make_and_delete(&mut self) -> Option<()> {
        let path = if self.chance.pick(2) == 0 {
            self.make_product().await?;
            format!("/api/products/{}", self.told.products.pop()?.id)
        } else {
            self.make_user().await?;
            format!("/api/users/{}", self.told.users.pop()?.id)
        };
        self.send(self.client.request(Method::DELETE, &path)).await?;
        self.told.gone.push(path);
        Some(())
    }
}

/// The id of what an answer is about; an execution that has only been accepted has it elsewhere.
fn id(reply: &Reply) -> String {
    let is_accepted = reply.data()["id"].is_null();
    text(reply, if is_accepted { "execution_id" } else { "id" })
}

fn text(reply: &Reply, name: &str) -> String {
    reply.data()[name].as_str().unwrap_or_else(|| panic!("no {name}: {reply:?}")).to_owned()
}
