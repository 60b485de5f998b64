//! A real server for each test: the `prodgy` binary on port 0 with a data directory of its own.
//!
//! The one rule: nothing is shared and nothing is waited for by the clock; what takes time is asked
//! for again until it is so, within [`PATIENCE`].
#![expect(clippy::unwrap_used, reason = "a test that cannot talk to its server should stop there")]

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Output, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;

pub use client::{Client, Reply};
pub use process::{Process, prodgy, prodgy_path, workspace};
use process::{data_dir, log_file};

#[path = "support/client.rs"]
mod client;
#[path = "support/process.rs"]
mod process;

/// The first owner's address.
pub const OWNER: &str = "owner@example.com";
/// The first owner's password.
pub const PASSWORD: &str = "correct horse battery staple";
/// How long anything may take before a test gives up. Generous: the machine may be busy.
pub const PATIENCE: Duration = Duration::from_secs(90);
/// How soon a condition is looked at again.
const AGAIN: Duration = Duration::from_millis(20);

/// A running server, and its owner signed in: it derefs to the owner's [`Client`].
pub struct TestApp {
    process: Process,
    folder: Arc<TempDir>,
    settings: Vec<(OsString, OsString)>,
    owner: Client,
}

/// A workspace of a test.
#[derive(Clone, Debug)]
pub struct Product {
    /// Its id.
    pub id: String,
    /// Its default knowledge base.
    pub knowledge_base: String,
}

/// An API token of a test.
#[derive(Clone, Debug)]
pub struct Token {
    /// Its id.
    pub id: String,
    /// What a program sends.
    pub secret: String,
}

impl TestApp {
    /// Starts a server with an empty data directory, and signs its owner in.
    pub async fn spawn() -> TestApp {
        TestApp::spawn_with(&[]).await
    }

    /// As [`TestApp::spawn`], with more `PRODGY_…` settings: `&[("PRODGY_UPLOAD_LIMIT_BYTES", "2048")]`.
    pub async fn spawn_with(settings: &[(&str, &str)]) -> TestApp {
        let folder = Arc::new(tempfile::tempdir().unwrap());
        let settings = settings.iter().map(|(name, value)| (name.into(), value.into())).collect();
        let mut app = TestApp::start_in(folder, settings).unwrap();
        app.sign_in().await;
        app
    }

    /// Starts a server on the data directory of a folder that is there; nobody is signed in yet.
    ///
    /// # Errors
    /// It ended before it listened: how, and what it logged.
    pub fn start_in(
        folder: Arc<TempDir>,
        settings: Vec<(OsString, OsString)>,
    ) -> Result<TestApp, String> {
        let (process, address) = Process::start(folder.path(), &settings)?;
        Ok(TestApp { process, folder, settings, owner: Client::new(address) })
    }

    /// Signs the owner in.
    pub async fn sign_in(&mut self) {
        self.owner = self.login(OWNER, PASSWORD).await;
    }

    /// Where everything of this server is kept.
    pub fn data_dir(&self) -> PathBuf {
        data_dir(self.folder.path())
    }

    /// The file of the read models.
    pub fn views_file(&self) -> PathBuf {
        let mut generations = fs::read_dir(self.data_dir().join("views")).unwrap();
        generations.next().unwrap().unwrap().path().join("views.db")
    }

    /// Runs another command on the same data, with the same settings.
    pub fn run(&self, arguments: &[&str]) -> Output {
        let mut command = prodgy(self.folder.path(), arguments);
        let settings = self.settings.iter().map(|(name, value)| (name, value));
        command.envs(settings).stdin(Stdio::null()).output().unwrap()
    }

    /// What the server has logged so far, over all of its starts.
    pub fn stderr(&self) -> String {
        String::from_utf8_lossy(&fs::read(log_file(self.folder.path())).unwrap()).into_owned()
    }

    /// The owner.
    pub fn owner(&self) -> &Client {
        &self.owner
    }

    /// Signs in.
    pub async fn login(&self, email: &str, password: &str) -> Client {
        let body = json!({ "email": email, "password": password });
        let reply = self.nobody().post("/api/auth/login", body).await.expect_status(200);
        self.bearer(reply.data()["access_token"].as_str().unwrap())
    }

    /// Makes a user of this role, and signs it in.
    pub async fn user(&self, role: &str) -> Client {
        let email = format!("{role}-{}@example.com", uuid::Uuid::now_v7().simple());
        let body = json!({ "email": email, "name": role, "role": role, "password": PASSWORD });
        self.post("/api/users", body).await.expect_status(201);
        self.login(&email, PASSWORD).await
    }

    /// Makes a product.
    pub async fn product(&self) -> Product {
        let reply =
            self.post("/api/products", json!({ "name": "Handbook" })).await.expect_status(201);
        let id = reply.data()["id"].as_str().unwrap().to_owned();
        let knowledge_base = reply.data()["default_knowledge_base_id"].as_str().unwrap().to_owned();
        Product { id, knowledge_base }
    }

    /// Makes an API token with these scopes; with all of them where none is named.
    pub async fn token(&self, product: &Product, scopes: &[&str]) -> Token {
        let mut body = json!({ "product_id": product.id, "name": "Program" });
        if !scopes.is_empty() {
            body["scopes"] = json!(scopes);
        }
        let reply = self.post("/api/api-tokens", body).await.expect_status(201);
        let text = |name: &str| reply.data()[name].as_str().unwrap().to_owned();
        Token { id: text("id"), secret: text("token") }
    }

    /// Installs `prodgy.search`. Answers the whole agent.
    pub async fn agent(&self, product: &Product) -> Value {
        let body = json!({ "product_id": product.id, "agent": "prodgy.search" });
        self.post("/api/agent-base/install", body).await.expect_status(201).data().clone()
    }

    /// Uploads one text file and answers its id; it is not indexed yet.
    pub async fn text_file(&self, product: &Product, name: &str, text: &str) -> String {
        let files = [(name, "text/plain", text.as_bytes())];
        let reply = self.upload(&product.knowledge_base, &files).await;
        assert!(reply.is_success(), "{reply:?}");
        reply.data()[0]["id"].as_str().unwrap().to_owned()
    }

    /// Waits until a file is indexed, and answers it.
    pub async fn wait_ready(&self, file: &str) -> Value {
        self.wait_ended(file, "ready").await
    }

    /// Waits until a file is no longer processed, which must leave it in this status.
    pub async fn wait_ended(&self, file: &str, status: &str) -> Value {
        let path = format!("/api/knowledge-base/storage/file/{file}");
        let shown = eventually("the file is still processed", async || {
            let reply = self.get(&path).await.expect_status(200);
            (reply.data()["status"] != "processing").then(|| reply.data().clone())
        });
        let file = shown.await;
        assert_eq!(file["status"], status, "{file}");
        file
    }

    /// Whether a passage is found that is this very text. After a start the model and the index are loaded
    /// beside everything else: until then it is asked again.
    pub async fn finds(&self, product: &Product, question: &str, text: &str) -> bool {
        let question = json!({ "query": question, "product_id": product.id });
        let found = eventually("the model is not loaded", async || {
            let reply = self.post("/api/knowledge-base/embeddings", question.clone()).await;
            let is_loading = ["model_missing", "search_not_ready"].contains(&reply.error());
            (!is_loading).then_some(reply)
        });
        let found = found.await.expect_status(200);
        found.data().as_array().unwrap().iter().any(|passage| passage["text"] == text)
    }

    /// Waits until an execution has ended, and answers it as the list shows it.
    pub async fn wait_execution(&self, agent: &str, execution: &str) -> Value {
        let path = format!("/api/agent-base/{agent}/executions?limit=1000");
        eventually("the execution has not ended", async || {
            let reply = self.get(&path).await.expect_status(200);
            let items = reply.data().as_array().unwrap().clone();
            items.into_iter().find(|item| item["id"] == execution && !item["ended_at"].is_null())
        })
        .await
    }

    /// Asks for an execution of an agent. Answers its id.
    pub async fn execute(&self, agent: &Value, input: Value) -> String {
        let body = json!({ "agent_id": agent["id"], "input": input });
        let reply = self.post("/api/workflow/execute", body).await.expect_status(202);
        reply.data()["execution_id"].as_str().unwrap().to_owned()
    }

    /// The whole of an execution, as it is now.
    pub async fn execution(&self, execution: &str) -> Value {
        let path = format!("/api/workflow/{execution}/status");
        self.get(&path).await.expect_status(200).data().clone()
    }

    /// Waits until an execution has come to a status.
    pub async fn execution_until(&self, execution: &str, wanted: &str) -> Value {
        eventually(&format!("the execution is not {wanted}"), async || {
            Some(self.execution(execution).await).filter(|shown| shown["status"] == wanted)
        })
        .await
    }

    /// The position of the newest event.
    pub async fn head(&self) -> u64 {
        let reply = self.get("/api/projections").await.expect_status(200);
        let positions = reply.data().as_array().unwrap().iter();
        positions
            .map(|view| view["position"].as_u64().unwrap() + view["lag"].as_u64().unwrap())
            .max()
            .unwrap()
    }

    /// Asks the server to stop, as an operator does, and waits for its end.
    pub fn stop(&mut self) -> ExitStatus {
        self.process.signal("TERM");
        self.process.wait()
    }

    /// The server's process.
    pub fn process_id(&self) -> u32 {
        self.process.child.id()
    }

    /// Ends the server in the middle of whatever it does.
    pub fn kill(&mut self) {
        self.process.child.kill().unwrap();
        self.process.wait();
    }

    /// Starts the server again, on the same data directory; sessions and clients stay good.
    pub fn start(&mut self) {
        self.try_start().unwrap();
    }

    /// As [`TestApp::start`], where it may be refused.
    ///
    /// # Errors
    /// It ended before it listened: how, and what it logged.
    pub fn try_start(&mut self) -> Result<(), String> {
        let (process, address) = Process::start(self.folder.path(), &self.settings)?;
        self.process = process;
        self.owner.call_at(address);
        Ok(())
    }

    /// Stops the test unless the read models are what the log makes of them.
    #[track_caller]
    pub fn verified(&self) {
        let output = prodgy(self.folder.path(), &["projections", "verify"]).output().unwrap();
        assert!(output.status.success(), "{output:?}");
    }

    /// Stops the server as an operator does, and starts it again.
    pub fn restart(&mut self) {
        let status = self.stop();
        assert!(status.success(), "{status}: {}", self.stderr());
        self.start();
    }
}

impl std::ops::Deref for TestApp {
    type Target = Client;

    fn deref(&self) -> &Client {
        &self.owner
    }
}

impl Drop for TestApp {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = self.stderr();
            let lines: Vec<&str> = log.lines().rev().take(40).collect();
            eprintln!("the last lines that the server logged:");
            lines.iter().rev().for_each(|line| eprintln!("  {line}"));
        }
    }
}

/// The names of the files that lie below a folder.
pub fn files_below(folder: &Path) -> Vec<OsString> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let below = |entry: std::fs::DirEntry| match entry.path().is_dir() {
        true => files_below(&entry.path()),
        false => vec![entry.file_name()],
    };
    entries.flat_map(below).collect()
}

/// The parts of artifacts that lie below a folder.
pub fn parts_below(folder: &Path) -> usize {
    let is_part = |name: &OsString| name.to_string_lossy().contains(".part-");
    files_below(folder).iter().filter(|name| is_part(name)).count()
}

/// Asks again and again until there is an answer, and stops the test if there is none in [`PATIENCE`].
pub async fn eventually<T>(what_is_missing: &str, mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(answer) = ask().await {
            return answer;
        }
        assert!(Instant::now() < deadline, "after {PATIENCE:?}: {what_is_missing}");
        tokio::time::sleep(AGAIN).await;
    }
}

/// What a command has said that must have succeeded.
#[track_caller]
pub fn said(output: &Output) -> String {
    assert!(output.status.success(), "{output:?}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// An agent that answers its input's `n`, and one, and its configuration's `start`.
pub fn counter_manifest() -> Value {
    json!({
        "manifest": "prodgy.agent/1", "name": "acme.counter", "version": "1.0.0", "title": "Counter", "summary": "Adds twice",
        "config": { "type": "object", "properties": { "start": { "type": "integer", "default": 0 } } },
        "inputs": { "type": "object", "properties": { "n": { "type": "integer" } }, "required": ["n"] },
        "steps": [
            { "id": "one", "type": "transform", "with": { "value": { "cel": "input.n + config.start" } } },
            { "id": "two", "type": "transform", "needs": ["one"], "with": { "value": { "cel": "steps.one.output.value + 1" } } }
        ],
        "output": { "cel": "steps.two.output.value" }
    })
}
