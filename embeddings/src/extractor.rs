//! Files into text, each in a process of its own where reading it is more than a walk over its characters.
//!
//! The one rule: whatever a file does to its reader — loop, swell, crash — it does to a process that holds nothing but this file, is
//! bound in time, memory and output, can open nothing, and dies with its parent; the file then ends with a reason.

mod limits;
mod message;
mod worker;

use std::io::{Read, Write};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

use crate::chunk::Chunk;
use crate::error::ExtractError;
use crate::extract::{self, Document};
use crate::model::Model;
use message::Request;
pub use worker::work;

/// The sub-command of the program that reads one file.
pub const WORKER: &str = "extract-worker";

/// How long a wait lasts before it is asked whether it is in vain.
const LOOK: Duration = Duration::from_millis(20);

/// How much longer than its time of computing a worker may take: others may be at work too.
const PATIENCE: u32 = 3;

/// How much of what a worker says in its distress is kept.
const MAX_DISTRESS: u64 = 64 * 1024;

/// What reading one file may take.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ExtractLimits {
    /// Time of computing.
    pub time: Duration,
    /// Memory, beside that of the program itself.
    pub memory_bytes: u64,
    /// Text.
    pub output_bytes: u64,
}

impl Default for ExtractLimits {
    fn default() -> Self {
        Self { time: Duration::from_secs(60), memory_bytes: 1 << 30, output_bytes: 64 << 20 }
    }
}

/// Why a file was not read.
#[derive(Debug, PartialEq)]
pub enum ExtractFailure {
    /// It never will be: the file is at fault.
    Unreadable(ExtractError),
    /// For a reason that passes.
    Passing(String),
}

impl From<ExtractError> for ExtractFailure {
    fn from(error: ExtractError) -> Self {
        Self::Unreadable(error)
    }
}

/// Reads files.
#[derive(Clone, Debug)]
pub struct Extractor {
    program: PathBuf,
    limits: ExtractLimits,
}

impl Extractor {
    /// Reads files by `program`, which knows the sub-command [`WORKER`].
    pub fn new(program: impl Into<PathBuf>, limits: ExtractLimits) -> Self {
        Self { program: program.into(), limits }
    }

    /// Reads files by this very program.
    ///
    /// # Errors
    /// The operating system does not say which that is.
    pub fn of_this_program(limits: ExtractLimits) -> std::io::Result<Self> {
        // What runs, though its file may have been replaced by a newer one since.
        let running = PathBuf::from("/proc/self/exe");
        let program = if running.exists() { running } else { std::env::current_exe()? };
        Ok(Self::new(program, limits))
    }

    /// The text of a file. It blocks, as long as the limits allow; `is_in_vain` is asked from time to time.
    ///
    /// # Errors
    /// The file cannot be read, or could not be read this time.
    pub fn extract(
        &self,
        file_name: &str,
        media_type: Option<&str>,
        bytes: &[u8],
        is_in_vain: &dyn Fn() -> bool,
    ) -> Result<Document, ExtractFailure> {
        let limit = usize::try_from(self.limits.output_bytes).unwrap_or(usize::MAX);
        if extract::is_plain(file_name, media_type, bytes) {
            return Ok(extract::extract(file_name, media_type, bytes, limit)?);
        }
        let request = Request {
            file_name: file_name.to_owned(),
            media_type: media_type.map(str::to_owned),
            time: self.limits.time,
            memory_bytes: self.limits.memory_bytes,
            output_bytes: self.limits.output_bytes,
            parent: std::process::id(),
        };
        let mut child = self.start().map_err(|error| {
            ExtractFailure::Passing(format!("the process that reads it cannot be started: {error}"))
        })?;
        let answer = self.hear(&mut child, &request, bytes, is_in_vain);
        // Whatever became of it: nothing of it is left.
        let _ = child.kill();
        let _ = child.wait();
        answer
    }

    /// The chunks of a document, for a model. It blocks, as long as the limits allow, and computes in this process: the model's
    /// tokenizer is here. `is_in_vain` is asked from time to time.
    ///
    /// # Errors
    /// It takes too long, or the server stops.
    pub fn cut(
        &self,
        model: &Model,
        document: &Document,
        is_in_vain: &dyn Fn() -> bool,
    ) -> Result<Vec<Chunk>, ExtractFailure> {
        let (started, computed) = (Instant::now(), limits::computed());
        model.chunk_while(document, &|| {
            if is_in_vain() {
                return Err(ExtractFailure::Passing("the server stops".into()));
            }
            let is_too_long = limits::computed().saturating_sub(computed) > self.limits.time
                || started.elapsed() > self.limits.time * PATIENCE;
            if is_too_long { Err(self.too_long().into()) } else { Ok(()) }
        })
    }

    fn start(&self) -> std::io::Result<Child> {
        use std::os::unix::process::CommandExt;
        Command::new(&self.program)
            .arg0("prodgy")
            .arg(WORKER)
            // Secrets are in the environment of a server.
            .env_clear()
            // The allocator would take a gigabyte of addresses at once, which counts.
            .env("MIMALLOC_ARENA_RESERVE", "32768")
            // What a terminal says to the server is not said to it.
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
    }

    /// Gives the worker its file, and hears what it says.
    ///
    /// The thread that started a worker is the one that hears it out: Linux ends the worker with that thread.
    fn hear(
        &self,
        child: &mut Child,
        request: &Request,
        bytes: &[u8],
        is_in_vain: &dyn Fn() -> bool,
    ) -> Result<Document, ExtractFailure> {
        let (stdin, stdout, stderr) =
            (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let (Some(mut stdin), Some(stdout), Some(stderr)) = (stdin, stdout, stderr) else {
            return Err(ExtractFailure::Passing("the process that reads it has no pipes".into()));
        };
        let most = message::most(self.limits.output_bytes);
        std::thread::scope(|threads| {
            let (said, answer) = mpsc::channel();
            threads.spawn(move || {
                // It may have heard enough: then its answer says why.
                let _ = request.write(&mut stdin).and_then(|()| stdin.write_all(bytes));
            });
            let distress = threads.spawn(move || {
                let mut distress = Vec::new();
                let mut stderr = stderr;
                let _ = stderr.by_ref().take(MAX_DISTRESS).read_to_end(&mut distress);
                let _ = std::io::copy(&mut stderr, &mut std::io::sink());
                String::from_utf8_lossy(&distress).into_owned()
            });
            threads.spawn(move || {
                let mut answer = Vec::new();
                let heard = stdout.take(most + 1).read_to_end(&mut answer);
                let _ = said.send(heard.map(|_| answer));
            });
            let started = Instant::now();
            let answer = loop {
                match answer.recv_timeout(LOOK) {
                    Ok(answer) => break answer.ok(),
                    Err(RecvTimeoutError::Disconnected) => break None,
                    Err(RecvTimeoutError::Timeout) if is_in_vain() => {
                        let _ = child.kill();
                        return Err(ExtractFailure::Passing("the server stops".into()));
                    }
                    Err(RecvTimeoutError::Timeout) => {
                        if started.elapsed() > self.limits.time * PATIENCE {
                            let _ = child.kill();
                            return Err(self.too_long().into());
                        }
                    }
                }
            };
            // It has closed its output: it ends, or is ended.
            if answer.as_ref().is_some_and(|answer| answer.len() as u64 > most) {
                let _ = child.kill();
                let bytes = self.limits.output_bytes;
                return Err(ExtractError::TooMuchText { bytes }.into());
            }
            let answered = answer.and_then(|answer| message::read_answer(&answer));
            if answered.is_some() {
                let _ = child.kill();
            }
            let status = child.wait();
            let distress = distress.join().unwrap_or_default();
            match answered {
                Some(answered) => Ok(answered?),
                None => Err(self.fault(status.ok(), &distress)),
            }
        })
    }

    fn too_long(&self) -> ExtractError {
        ExtractError::TookTooLong { seconds: self.limits.time.as_secs() }
    }

    /// Why a worker ended without an answer.
    fn fault(&self, status: Option<ExitStatus>, distress: &str) -> ExtractFailure {
        use std::os::unix::process::ExitStatusExt;
        let signal = status.and_then(|status| status.signal());
        let too_much = ExtractError::TooMuchMemory { bytes: self.limits.memory_bytes };
        match signal {
            Some(libc::SIGXCPU) => self.too_long().into(),
            // Whoever stops the server may tell all of its processes at once.
            Some(libc::SIGTERM | libc::SIGINT | libc::SIGHUP | libc::SIGQUIT) => {
                ExtractFailure::Passing("the process that reads it was stopped".into())
            }
            // The kernel, where the memory of the machine is used up.
            Some(libc::SIGKILL) => too_much.into(),
            _ if distress.contains("memory allocation of") => too_much.into(),
            _ => {
                // The text of a file may be in what is said, but for the last words of Rust itself.
                let overflow = distress.contains("has overflowed its stack");
                tracing::warn!(?status, overflow, "the reader of a file crashed");
                ExtractError::ReaderCrashed.into()
            }
        }
    }
}
