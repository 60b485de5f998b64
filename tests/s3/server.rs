//! A real server that speaks S3, on a free port of this machine, and what a test may do to it.
//!
//! The rule of this file: the server is another process, asks for signed requests as S3 does, and
//! ends with the test, however that ends.
//!
//! Include it in a test crate; `scripts/s3-server --install` puts the server into the cache:
//!
//! ```ignore
//! #[path = "../../../tests/s3/server.rs"]
//! mod server;
//!
//! let server = S3Server::start();
//! server.make_bucket("bucket");
//! for (name, value) in server.environment() { /* AWS_ENDPOINT_URL and the credentials */ }
//! server.stop();          // as a server that was shut down: it keeps what it had
//! server.start_again();   // on the same port
//! ```
#![allow(dead_code, reason = "not every crate that includes this does everything to its server")]

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::Mutex,
    time::Duration,
};

use tempfile::TempDir;

/// A server, and where it keeps what it has while it is stopped.
pub struct S3Server {
    port: u16,
    folder: TempDir,
    process: Mutex<Option<Child>>,
}

impl S3Server {
    /// Starts an empty server.
    pub fn start() -> S3Server {
        let folder = TempDir::new().expect("a folder can be made");
        let (child, port) = spawn(folder.path(), 0);
        S3Server { port, folder, process: Mutex::new(Some(child)) }
    }

    /// What a client of it finds in its environment.
    pub fn environment(&self) -> Vec<(String, String)> {
        let said = [
            ("AWS_ENDPOINT_URL", format!("http://127.0.0.1:{}", self.port)),
            ("AWS_ACCESS_KEY_ID", "test-access-key".to_owned()),
            ("AWS_SECRET_ACCESS_KEY", "test-secret-key".to_owned()),
            ("AWS_REGION", "us-east-1".to_owned()),
        ];
        said.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
    }

    /// Makes a bucket.
    pub fn make_bucket(&self, name: &str) {
        self.ask(&format!("bucket?name={name}"));
    }

    /// Makes a bucket that keeps old versions.
    pub fn make_bucket_with_versions(&self, name: &str) {
        self.ask(&format!("bucket?name={name}&versioned=1"));
    }

    /// Removes every bucket with all that is in it.
    pub fn remove_everything(&self) {
        self.ask("empty");
    }

    /// Lets every object of a bucket be so much older.
    pub fn age(&self, bucket: &str, by: Duration) {
        let hours = by.as_secs_f64() / 3600.0;
        self.ask(&format!("age?bucket={bucket}&hours={hours}"));
    }

    /// How many uploads in parts were begun in a bucket and neither finished nor given up.
    pub fn uploads_under_way(&self, bucket: &str) -> usize {
        let answer = self.ask(&format!("inside?bucket={bucket}"));
        let (_, uploads) = answer.split_once("\"uploads\": ").expect("the server says so");
        uploads.trim_end_matches(['}', '\n', ' ']).parse().expect("a number")
    }

    /// What is in a bucket, as the text of a JSON document.
    pub fn keys(&self, bucket: &str) -> String {
        self.ask(&format!("inside?bucket={bucket}"))
    }

    /// Makes one bucket what another is, as `aws s3 sync --delete` does.
    pub fn copy(&self, from: &str, to: &str) {
        self.ask(&format!("copy?from={from}&to={to}"));
    }

    /// Changes a bit in the middle of every object whose name holds this.
    pub fn change(&self, holds: &str) {
        self.ask(&format!("change?holds={holds}"));
    }

    /// Lets the next requests of a method fail with 500.
    pub fn fail(&self, count: usize, method: &str) {
        self.ask(&format!("fail?count={count}&method={method}"));
    }

    /// Lets the next parts of uploads fail with 500.
    pub fn fail_parts(&self, count: usize) {
        self.ask(&format!("fail?count={count}&part=1"));
    }

    /// Ends the next answers to `GET` in their middle.
    pub fn cut(&self, count: usize) {
        self.ask(&format!("cut?count={count}"));
    }

    /// Lets every request wait first.
    pub fn slow(&self, by: Duration) {
        self.ask(&format!("slow?ms={}", by.as_millis()));
    }

    /// Lets it ignore `If-None-Match`, as a store does that knows no conditional puts.
    pub fn ignore_conditions(&self, ignore: bool) {
        self.ask(&format!("careless?on={}", u8::from(ignore)));
    }

    /// Stops it. It keeps what it has.
    pub fn stop(&self) {
        let process = self.process.lock().expect("no test panics in here").take();
        let mut child = process.expect("the server is running");
        // Kept open: when it is closed, the server ends at once, and forgets.
        let _input = child.stdin.take();
        let killed = Command::new("kill").arg("-TERM").arg(child.id().to_string()).status();
        assert!(killed.is_ok_and(|status| status.success()), "the server cannot be stopped");
        assert!(child.wait().is_ok_and(|status| status.success()), "the server failed");
    }

    /// Starts it again on the same port, with what it had.
    pub fn start_again(&self) {
        let (child, port) = spawn(self.folder.path(), self.port);
        assert_eq!(port, self.port);
        *self.process.lock().expect("no test panics in here") = Some(child);
    }

    fn ask(&self, what: &str) -> String {
        let address = ("127.0.0.1", self.port);
        let mut stream = TcpStream::connect(address).expect("the S3 server answers");
        let head = "HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
        write!(stream, "POST /-/{what} {head}").expect("the S3 server reads");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("the S3 server answers in full");
        assert!(answer.starts_with("HTTP/1.1 200 "), "{what}: {answer}");
        answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned()).unwrap_or_default()
    }
}

impl Drop for S3Server {
    fn drop(&mut self) {
        if let Ok(mut process) = self.process.lock()
            && let Some(mut child) = process.take()
        {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn spawn(folder: &Path, port: u16) -> (Child, u16) {
    let crate_folder = std::env::var_os("CARGO_MANIFEST_DIR").expect("cargo runs the tests");
    let script = Path::new(&crate_folder).join("../tests/s3/server.py");
    let python = python();
    assert!(
        python.exists(),
        "the S3 server of the tests is missing: run `scripts/s3-server --install` first (scripts/test does)"
    );
    let mut child = Command::new(python)
        .arg(script)
        .arg("--state")
        .arg(folder.join("state"))
        .args(["--port", &port.to_string(), "--with-parent"])
        // It ends when this is closed, and so with the process that holds it.
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("the S3 server can be started");
    let output = child.stdout.take().expect("it is piped");
    let mut said =
        BufReader::new(output).lines().map(|line| line.expect("the S3 server speaks UTF-8"));
    let port = said.find_map(|line| line.strip_prefix("listening on ")?.parse().ok());
    let Some(port) = port else {
        let _ = child.wait();
        panic!("the S3 server did not start: run `scripts/s3-server` by hand to see why");
    };
    (child, port)
}

/// The Python that `scripts/s3-server` has installed the server into.
fn python() -> PathBuf {
    let cache = std::env::var_os("XDG_CACHE_HOME").filter(|cache| !cache.is_empty());
    let cache = cache
        .map(PathBuf::from)
        .or_else(|| std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache")));
    cache.unwrap_or_default().join("prodgy/moto/bin/python")
}
