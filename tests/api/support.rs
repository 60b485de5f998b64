//! A real server for each test: the `prodgy` binary on port 0 with a data directory of its own.
//!
//! The one rule: nothing is shared and nothing is waited for by the clock; what takes time is asked
//! for again until it is so, within [`PATIENCE`].
#![expect(clippy::unwrap_used, reason = "a test that cannot talk to its server should stop there")]

use std::ffi::OsString;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use reqwest::Method;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use reqwest::multipart::{Form, Part};
use serde_json::{Value, json};
use tempfile::TempDir;

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
    folder: TempDir,
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
        let folder = tempfile::tempdir().unwrap();
        let settings: Vec<(OsString, OsString)> =
            settings.iter().map(|(name, value)| (name.into(), value.into())).collect();
        let (process, address) = Process::start(folder.path(), &settings).unwrap();
        let base = Arc::new(Mutex::new(address));
        let nobody = Client { base, http: reqwest::Client::new(), credential: None };
        let mut app = TestApp { process, folder, settings, owner: nobody };
        app.owner = app.login(OWNER, PASSWORD).await;
        app
    }

    /// Where everything of this server is kept.
    pub fn data_dir(&self) -> PathBuf {
        data_dir(self.folder.path())
    }

    /// What the server has logged so far, over all of its starts.
    pub fn stderr(&self) -> String {
        String::from_utf8_lossy(&fs::read(log_file(self.folder.path())).unwrap()).into_owned()
    }

    /// The owner.
    pub fn owner(&self) -> &Client {
        &self.owner
    }

    /// A client without a credential.
    pub fn nobody(&self) -> Client {
        Client { credential: None, ..self.owner.clone() }
    }

    /// A client that sends this as its bearer credential: a session's access token, or anything else.
    pub fn bearer(&self, credential: &str) -> Client {
        self.with_credential("authorization", &format!("Bearer {credential}"))
    }

    /// A client that sends this API token.
    pub fn with_token(&self, secret: &str) -> Client {
        self.with_credential("x-api-token", secret)
    }

    fn with_credential(&self, header: &'static str, value: &str) -> Client {
        let mut value = HeaderValue::try_from(value).unwrap();
        value.set_sensitive(true);
        Client { credential: Some((HeaderName::from_static(header), value)), ..self.owner.clone() }
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
        let reply = self.post("/api/products", json!({ "name": "Handbook" })).await.expect_status(201);
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

    /// The position of the newest event.
    pub async fn head(&self) -> u64 {
        let reply = self.get("/api/projections").await.expect_status(200);
        let positions = reply.data().as_array().unwrap().iter();
        positions.map(|view| view["position"].as_u64().unwrap() + view["lag"].as_u64().unwrap()).max().unwrap()
    }

    /// Asks the server to stop, as an operator does, and waits for its end.
    pub fn stop(&mut self) -> ExitStatus {
        self.process.signal("TERM");
        self.process.wait()
    }

    /// Ends the server in the middle of whatever it does.
    pub fn kill(&mut self) {
        self.process.child.kill().unwrap();
        self.process.wait();
    }

    /// Starts the server again, on the same data directory; sessions and clients stay good.
    pub fn start(&mut self) {
        let (process, address) = Process::start(self.folder.path(), &self.settings).unwrap();
        self.process = process;
        *self.owner.base.lock().unwrap() = address;
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

/// Somebody who calls the server. Stays good when the server is started again.
#[derive(Clone, Debug)]
pub struct Client {
    base: Arc<Mutex<String>>,
    http: reqwest::Client,
    credential: Option<(HeaderName, HeaderValue)>,
}

impl Client {
    /// Where the server listens: `http://127.0.0.1:…`.
    pub fn base(&self) -> String {
        self.base.lock().unwrap().clone()
    }

    /// The credential as it is sent, without `Bearer`.
    pub fn credential(&self) -> &str {
        let (_, value) = self.credential.as_ref().unwrap();
        let text = value.to_str().unwrap();
        text.strip_prefix("Bearer ").unwrap_or(text)
    }

    /// A request with the credential, to be added to and given to [`Client::send`].
    pub fn request(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        let request = self.http.request(method, format!("{}{path}", self.base()));
        match &self.credential {
            Some((name, value)) => request.header(name, value.clone()),
            None => request,
        }
    }

    /// Sends a request and reads its whole answer.
    pub async fn send(&self, request: reqwest::RequestBuilder) -> Reply {
        self.try_send(request).await.unwrap()
    }

    /// As [`Client::send`], where the server may be gone.
    ///
    /// # Errors
    /// No answer came.
    pub async fn try_send(&self, request: reqwest::RequestBuilder) -> reqwest::Result<Reply> {
        let response = request.timeout(PATIENCE).send().await?;
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let bytes = response.bytes().await?.to_vec();
        let body = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
        Ok(Reply { status, headers, bytes, body })
    }

    /// `GET`.
    pub async fn get(&self, path: &str) -> Reply {
        self.send(self.request(Method::GET, path)).await
    }

    /// `GET` with a header.
    pub async fn get_with(&self, path: &str, header: &str, value: impl ToString) -> Reply {
        self.send(self.request(Method::GET, path).header(header, value.to_string())).await
    }

    /// `POST` of JSON.
    pub async fn post(&self, path: &str, body: Value) -> Reply {
        self.send(self.request(Method::POST, path).json(&body)).await
    }

    /// `POST` of JSON with a header.
    pub async fn post_with(&self, path: &str, body: Value, header: &str, value: impl ToString) -> Reply {
        self.send(self.request(Method::POST, path).header(header, value.to_string()).json(&body)).await
    }

    /// `POST` without a body.
    pub async fn post_empty(&self, path: &str) -> Reply {
        self.send(self.request(Method::POST, path)).await
    }

    /// `PUT` of JSON.
    pub async fn put(&self, path: &str, body: Value) -> Reply {
        self.send(self.request(Method::PUT, path).json(&body)).await
    }

    /// `PUT` of JSON with a header.
    pub async fn put_with(&self, path: &str, body: Value, header: &str, value: impl ToString) -> Reply {
        self.send(self.request(Method::PUT, path).header(header, value.to_string()).json(&body)).await
    }

    /// `DELETE`.
    pub async fn delete(&self, path: &str) -> Reply {
        self.send(self.request(Method::DELETE, path)).await
    }

    /// `DELETE` with a header.
    pub async fn delete_with(&self, path: &str, header: &str, value: impl ToString) -> Reply {
        self.send(self.request(Method::DELETE, path).header(header, value.to_string())).await
    }

    /// Uploads files, each a name, a media type and its bytes.
    pub async fn upload(&self, knowledge_base: &str, files: &[(&str, &str, &[u8])]) -> Reply {
        let mut form = Form::new().text("knowledge_base_id", knowledge_base.to_owned());
        for (name, media_type, bytes) in files {
            let part = Part::bytes(bytes.to_vec()).file_name((*name).to_owned()).mime_str(media_type).unwrap();
            form = form.part("file", part);
        }
        let path = "/api/knowledge-base/storage/upload";
        self.send(self.request(Method::POST, path).multipart(form)).await
    }
}

/// A whole answer.
#[derive(Clone)]
pub struct Reply {
    /// Its status.
    pub status: u16,
    /// Its headers.
    pub headers: HeaderMap,
    /// Its body as it came.
    pub bytes: Vec<u8>,
    /// Its body as JSON; null where it is none.
    pub body: Value,
}

impl Reply {
    /// It is of the 200s.
    pub fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }

    /// Stops the test unless the answer has this status.
    #[track_caller]
    pub fn expect_status(self, status: u16) -> Reply {
        assert_eq!(self.status, status, "{self:?}");
        self
    }

    /// Stops the test unless this is a whole problem document with this status and code.
    #[track_caller]
    pub fn expect_problem(self, status: u16, code: &str) -> Reply {
        assert_eq!(self.status, status, "{self:?}");
        assert_eq!(self.header("content-type"), "application/problem+json", "{self:?}");
        assert_eq!(self.body["success"], false, "{self:?}");
        assert_eq!(self.body["error"], code, "{self:?}");
        assert_eq!(self.body["status"], status, "{self:?}");
        assert_eq!(self.body["request_id"], self.header("x-request-id"), "{self:?}");
        let says_something = |name: &str| self.body[name].as_str().is_some_and(|text| !text.is_empty());
        assert!(says_something("message") && says_something("title") && says_something("detail"), "{self:?}");
        self
    }

    /// `data` of the envelope.
    pub fn data(&self) -> &Value {
        &self.body["data"]
    }

    /// The code of a failure; empty where there is none.
    pub fn error(&self) -> &str {
        self.body["error"].as_str().unwrap_or_default()
    }

    /// A header, or nothing.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    /// The answer's `X-Event-Position`.
    #[track_caller]
    pub fn position(&self) -> u64 {
        self.header("x-event-position").parse().unwrap_or_else(|_| panic!("no position: {self:?}"))
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.bytes).into_owned()
    }
}

impl std::fmt::Debug for Reply {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(formatter, "{}", self.status)?;
        for (name, value) in &self.headers {
            writeln!(formatter, "{name}: {value:?}")?;
        }
        formatter.write_char('\n')?;
        formatter.write_str(&self.text())
    }
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

/// The data directory of the test that has this folder.
pub fn data_dir(folder: &Path) -> PathBuf {
    folder.join("data")
}

fn log_file(folder: &Path) -> PathBuf {
    folder.join("stderr.log")
}

/// The workspace.
pub fn workspace() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}

/// The `prodgy` binary that was built beside this test.
pub fn prodgy_path() -> PathBuf {
    // <target>/<profile>/deps/<this test>
    let test = std::env::current_exe().unwrap();
    let prodgy = test.parent().and_then(Path::parent).unwrap().join("prodgy");
    assert!(prodgy.is_file(), "{} is missing: run `cargo build -p api --bin prodgy` first", prodgy.display());
    prodgy
}

/// `prodgy` with these arguments on the data directory in `folder`, with nothing of this process's
/// configuration.
pub fn prodgy(folder: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(prodgy_path());
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("PRODGY_") {
            command.env_remove(name);
        }
    }
    command
        .args(arguments)
        .current_dir(folder)
        .env("PRODGY_DATA_DIR", data_dir(folder))
        .env("PRODGY_MODEL_DIR", workspace().join("models/all-MiniLM-L6-v2"))
        .env("PRODGY_ADMIN_EMAIL", OWNER)
        .env("PRODGY_ADMIN_PASSWORD", PASSWORD)
        .env("PRODGY_RATE_LIMIT_PER_SECOND", "0")
        .env("PRODGY_SIGN_IN_LIMIT_PER_MINUTE", "0")
        .env("PRODGY_EMBEDDING_WORKERS", "1");
    command
}

/// A server process, ended with the test.
struct Process {
    child: Child,
    /// Kept open: a server whose stdout is gone could not print to it.
    _stdout: BufReader<ChildStdout>,
}

impl Process {
    /// Starts a server in `folder` and waits until it listens. Answers its address too.
    fn start(folder: &Path, settings: &[(OsString, OsString)]) -> Result<(Process, String), String> {
        let log = File::options().create(true).append(true).open(log_file(folder)).unwrap();
        let mut child = prodgy(folder, &["serve", "--listen", "127.0.0.1:0"])
            .envs(settings.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let process = |stdout| Process { child, _stdout: stdout };
        let mut line = String::new();
        while stdout.read_line(&mut line).unwrap() > 0 {
            if let Some(address) = line.trim().strip_prefix("listening on ") {
                return Ok((process(stdout), address.to_owned()));
            }
            line.clear();
        }
        let status = process(stdout).wait();
        Err(format!("the server ended with {status}: {}", fs::read_to_string(log_file(folder)).unwrap()))
    }

    fn signal(&self, name: &str) {
        let sent = Command::new("kill").args([format!("-{name}"), self.child.id().to_string()]).status().unwrap();
        assert!(sent.success());
    }

    fn wait(&mut self) -> ExitStatus {
        self.child.wait().unwrap()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
