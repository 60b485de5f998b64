//! Programs that are measured from outside, and the little HTTP that this takes.
//!
//! The rule of this file: a program is started as its users start it, and ended with what measured
//! it.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use serde_json::Value;

/// The password of the first user of every server here.
pub const PASSWORD: &str = "correct horse battery staple";

/// The first user.
pub const EMAIL: &str = "bench@example.com";

/// The longest wait for an answer.
const PATIENCE: Duration = Duration::from_secs(30);

/// A program that listens.
pub struct Server {
    child: Child,
    pub address: SocketAddr,
}

impl Server {
    /// `prodgy serve` on a data directory.
    pub fn prodgy(data: &Path) -> anyhow::Result<Server> {
        Server::prodgy_with(data, &[])
    }

    /// As [`Server::prodgy`], with more options.
    pub fn prodgy_with(data: &Path, options: &[&str]) -> anyhow::Result<Server> {
        let mut command = Command::new(binary("prodgy")?);
        command
            .args(["serve", "--listen", "127.0.0.1:0", "--data-dir"])
            .arg(data)
            // The limiter counts every request, and lets every one through.
            .args(["--rate-limit-per-second", "1000000"])
            .args(options)
            .env("PRODGY_ADMIN_EMAIL", EMAIL)
            .env("PRODGY_ADMIN_PASSWORD", PASSWORD);
        Server::start(command)
    }

    /// Starts a program and waits for the line that says where it listens.
    pub fn start(mut command: Command) -> anyhow::Result<Server> {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
        let stdout = child.stdout.take().context("its output was asked for")?;
        let mut lines = BufReader::new(stdout).lines();
        let address = loop {
            let Some(line) = lines.next() else {
                let _ = child.wait();
                bail!("the program ended before it listened: run it by hand to see why");
            };
            if let Some(url) = line?.strip_prefix("listening on http://") {
                break url.parse()?;
            }
        };
        Ok(Server { child, address })
    }

    /// Resident memory, in megabytes.
    pub fn resident_memory(&self) -> anyhow::Result<f64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let number = line.and_then(|line| line.split_whitespace().next());
        Ok(number.context("the kernel does not tell")?.parse::<f64>()? / 1024.0)
    }

    /// Waits until `/readyz` says yes.
    pub fn ready(&self) -> anyhow::Result<()> {
        self.ready_within(PATIENCE)
    }

    /// As [`Server::ready`], for one that has much to read first.
    pub fn ready_within(&self, patience: Duration) -> anyhow::Result<()> {
        let started = Instant::now();
        while self.get("/readyz", "")?.0 != 200 {
            if started.elapsed() > patience {
                bail!("the server is not ready: is the model there? (scripts/fetch-model)");
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    }

    /// The status and the body of an answer.
    pub fn get(&self, path: &str, headers: &str) -> anyhow::Result<(u16, Vec<u8>)> {
        self.ask(&format!(
            "GET {path} HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n{headers}\r\n"
        ))
    }

    /// Sends JSON; answers `data` of a good answer.
    pub fn post(&self, path: &str, headers: &str, body: &Value) -> anyhow::Result<Value> {
        self.post_as(path, headers, "application/json", &body.to_string())
    }

    /// Sends something of another type; answers `data` of a good answer.
    pub fn post_as(
        &self,
        path: &str,
        headers: &str,
        kind: &str,
        body: &str,
    ) -> anyhow::Result<Value> {
        let (status, answer) = self.ask(&format!(
            "POST {path} HTTP/1.1\r\nHost: bench\r\nConnection: close\r\nContent-Type: {kind}\r\n\
             Content-Length: {}\r\n{headers}\r\n{body}",
            body.len()
        ))?;
        if !(200..300).contains(&status) {
            bail!("POST {path} was answered with {status}: {}", String::from_utf8_lossy(&answer));
        }
        let mut answer: Value = serde_json::from_slice(&answer)?;
        Ok(answer["data"].take())
    }

    fn ask(&self, request: &str) -> anyhow::Result<(u16, Vec<u8>)> {
        let mut stream = TcpStream::connect(self.address)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.write_all(request.as_bytes())?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer)?;
        let end = answer.windows(4).position(|bytes| bytes == b"\r\n\r\n").context("no head")?;
        let head = String::from_utf8_lossy(&answer[..end]);
        let status = head.split(' ').nth(1).context("no status")?.parse()?;
        Ok((status, answer.split_off(end + 4)))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A program that was built beside this one.
pub fn binary(name: &str) -> anyhow::Result<PathBuf> {
    let path = std::env::current_exe()?.with_file_name(name);
    if !path.is_file() {
        bail!("{} is missing: build it in release, as scripts/bench does", path.display());
    }
    Ok(path)
}
