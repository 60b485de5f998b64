//! The demo, as a newcomer meets it: what it prints is pasted, and works.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use reqwest::Method;
use serde_json::{Value, json};
use tests::support::{OWNER, PASSWORD, prodgy};

/// A demo that runs, and what it told.
struct Demo {
    child: Child,
    address: String,
    told: String,
}

impl Demo {
    fn start(folder: &Path) -> Demo {
        let mut child = prodgy(folder, &["demo", "--listen", "127.0.0.1:0"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        let mut demo = Demo { child, address: String::new(), told: String::new() };
        for line in stdout.lines() {
            let line = line.unwrap();
            if let Some(address) = line.strip_prefix("listening on ") {
                demo.address = address.to_owned();
            }
            demo.told += &line;
            demo.told.push('\n');
            if !demo.address.is_empty() && demo.told.contains("Every route") {
                return demo;
            }
        }
        panic!("the demo ended: {}", demo.told);
    }

    fn token(&self) -> &str {
        let mut lines = self.told.lines().map(str::trim);
        lines.find(|line| line.starts_with("prodgy_")).expect("a token is told")
    }

    /// The lines for curl, as a shell understands them.
    fn curls(&self) -> Vec<Vec<String>> {
        let blocks = self.told.split("\n\n").filter(|block| block.starts_with("  curl "));
        blocks.map(arguments).collect()
    }

    /// Calls as the owner, who signs in.
    async fn as_owner(&self, method: Method, path: &str) -> Value {
        let client = reqwest::Client::new();
        let login = json!({ "email": OWNER, "password": PASSWORD });
        let url = format!("{}/api/auth/login", self.address);
        let session: Value =
            client.post(url).json(&login).send().await.unwrap().json().await.unwrap();
        let session = session["data"]["access_token"].as_str().unwrap();
        let call = client.request(method, format!("{}{path}", self.address)).bearer_auth(session);
        let reply = call.send().await.unwrap();
        assert!(reply.status().is_success(), "{path}: {reply:?}");
        serde_json::from_str(&reply.text().await.unwrap()).unwrap_or_default()
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What a shell makes of a line for curl.
fn arguments(line: &str) -> Vec<String> {
    let script = format!("curl() {{ printf '%s\\0' \"$@\"; }}\n{line}");
    let output = Command::new("sh").args(["-c", &script]).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    text.trim_end_matches('\0').split('\0').map(str::to_owned).collect()
}

/// Does what curl would: the status and the body.
async fn curl(arguments: &[String]) -> (u16, String) {
    let (mut url, mut headers, mut body) = (None, Vec::new(), None);
    let mut arguments = arguments.iter();
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "-s" | "-sN" => {}
            "-H" => headers.push(arguments.next().unwrap().split_once(": ").unwrap()),
            "-d" => body = arguments.next().cloned(),
            other => assert_eq!(url.replace(other.to_owned()), None, "a second address: {other}"),
        }
    }
    let client = reqwest::Client::new();
    let method = if body.is_some() { Method::POST } else { Method::GET };
    let mut call = client.request(method, url.expect("an address"));
    for (name, value) in headers {
        call = call.header(name, value);
    }
    let reply = call.body(body.unwrap_or_default()).send().await.unwrap();
    (reply.status().as_u16(), reply.text().await.unwrap())
}

#[tokio::test]
async fn what_the_demo_prints_works_when_it_is_pasted_at_every_start() {
    let folder = tempfile::tempdir().unwrap();
    let demo = Demo::start(folder.path());
    let curls = demo.curls();
    assert_eq!(curls.len(), 4, "{}", demo.told);
    let mut answers = Vec::new();
    for line in &curls {
        let (status, body) = curl(line).await;
        assert_eq!(status, 200, "{line:?}: {body}");
        answers.push(body);
    }
    let [found, chat, ran, audit] = answers.try_into().unwrap();
    let found: Value = serde_json::from_str(&found).unwrap();
    assert_eq!(found["data"][0]["file_name"], "incidents.md", "{found}");
    assert!(chat.contains("event: done") && chat.contains("incidents.md"), "{chat}");
    let ran: Value = serde_json::from_str(&ran).unwrap();
    assert_eq!(ran["data"]["status"], "succeeded", "{ran}");
    let audit: Value = serde_json::from_str(&audit).unwrap();
    assert_eq!(audit["data"].as_array().unwrap().len(), 5, "{audit}");

    // Started again, it is the same workspace with another secret.
    let (first, products) =
        (demo.token().to_owned(), demo.as_owner(Method::GET, "/api/products").await);
    drop(demo);
    let mut demo = Demo::start(folder.path());
    assert_ne!(demo.token(), first);
    assert_eq!(demo.as_owner(Method::GET, "/api/products").await["data"], products["data"]);
    assert_eq!(curl(&demo.curls()[0]).await.0, 200);

    // Nor is it the end of it that somebody revokes the token, or deletes it.
    for (method, rest) in [(Method::POST, "/revoke"), (Method::DELETE, "")] {
        let product = products["data"][0]["id"].as_str().unwrap();
        let tokens =
            demo.as_owner(Method::GET, &format!("/api/api-tokens/product/{product}")).await;
        let tokens = tokens["data"].as_array().unwrap();
        let active: Vec<_> = tokens.iter().filter(|token| token["status"] == "active").collect();
        assert_eq!(active.len(), 1, "{tokens:?}");
        let token = active[0]["id"].as_str().unwrap();
        demo.as_owner(method, &format!("/api/api-tokens/{token}{rest}")).await;
        drop(demo);
        demo = Demo::start(folder.path());
        assert_eq!(curl(&demo.curls()[0]).await.0, 200);
    }
}
