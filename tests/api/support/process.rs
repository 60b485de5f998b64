//! The `prodgy` binary as a process.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};

use super::{OWNER, PASSWORD};

/// The data directory of the test that has this folder.
pub(super) fn data_dir(folder: &Path) -> PathBuf {
    folder.join("data")
}

pub(super) fn log_file(folder: &Path) -> PathBuf {
    folder.join("stderr.log")
}

/// The workspace of this run. Not of the build: checkouts may share a target directory.
pub fn workspace() -> PathBuf {
    PathBuf::from(std::env::var("CARGO_MANIFEST_DIR").unwrap()).join("..")
}

/// The `prodgy` binary that was built beside this test.
pub fn prodgy_path() -> PathBuf {
    // <target>/<profile>/deps/<this test>
    let test = std::env::current_exe().unwrap();
    let prodgy = test.parent().and_then(Path::parent).unwrap().join("prodgy");
    assert!(
        prodgy.is_file(),
        "{} is missing: run `cargo build -p api --bin prodgy` first",
        prodgy.display()
    );
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
pub struct Process {
    pub(super) child: Child,
    /// Kept open: a server whose stdout is gone could not print to it.
    _stdout: BufReader<ChildStdout>,
}

impl Process {
    /// Starts a server in `folder` and waits until it listens. Answers its address too.
    ///
    /// # Errors
    /// It ended before it listened: how, and what it logged.
    pub fn start(
        folder: &Path,
        settings: &[(OsString, OsString)],
    ) -> Result<(Process, String), String> {
        let log = File::options().create(true).append(true).open(log_file(folder)).unwrap();
        let logged_before = log.metadata().unwrap().len() as usize;
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
        let logged = fs::read(log_file(folder)).unwrap().split_off(logged_before);
        Err(format!("the server ended with {status}: {}", String::from_utf8_lossy(&logged)))
    }

    pub(super) fn signal(&self, name: &str) {
        let sent = Command::new("kill")
            .args([format!("-{name}"), self.child.id().to_string()])
            .status()
            .unwrap();
        assert!(sent.success());
    }

    pub(super) fn wait(&mut self) -> ExitStatus {
        self.child.wait().unwrap()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
