//! Peers that are programs of their own: each prints one JSON line.
//!
//! The rule of this file: a peer that is not there is left out aloud, never guessed.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, bail};
use serde_json::Value;

use crate::server::binary;

/// Runs a script of `bench/peers` and answers what it printed; nothing where no interpreter is
/// named.
pub fn run(script: &str, arguments: &[String]) -> anyhow::Result<Option<Value>> {
    let Some(python) = python() else {
        eprintln!("{script} is left out: PRODGY_PEERS_PYTHON names no interpreter");
        return Ok(None);
    };
    let mut command = Command::new(python);
    command.arg(path_of(script)).args(arguments);
    said(script, command).map(Some)
}

/// As [`run`], for a script that prints a line for each of its results.
pub fn run_lines(script: &str, arguments: &[String]) -> anyhow::Result<Option<Vec<Value>>> {
    let Some(python) = python() else {
        eprintln!("{script} is left out: PRODGY_PEERS_PYTHON names no interpreter");
        return Ok(None);
    };
    let mut command = Command::new(python);
    command.arg(path_of(script)).args(arguments);
    let text = output(script, command)?;
    Ok(Some(text.lines().map(serde_json::from_str).collect::<Result<_, _>>()?))
}

/// The interpreter of the peers in Python.
pub fn python() -> Option<PathBuf> {
    std::env::var_os("PRODGY_PEERS_PYTHON").map(PathBuf::from)
}

/// Runs a peer that is built beside this program; nothing where it was not.
pub fn run_binary(name: &str, arguments: &[String]) -> anyhow::Result<Option<Value>> {
    let Ok(path) = binary(name) else {
        eprintln!("{name} is left out: it was not built");
        return Ok(None);
    };
    let mut command = Command::new(path);
    command.args(arguments);
    said(name, command).map(Some)
}

/// Runs a script of `bench/peers` in Node, with the packages of the folder that is named; nothing
/// where none is.
pub fn run_node(script: &str, arguments: &[String]) -> anyhow::Result<Option<Value>> {
    if std::env::var_os("PRODGY_PEERS_NODE").is_none() {
        eprintln!("{script} is left out: PRODGY_PEERS_NODE names no folder of its packages");
        return Ok(None);
    }
    let mut command = Command::new("node");
    command.arg(path_of(script)).args(arguments);
    said(script, command).map(Some)
}

/// Where a script of `bench/peers` is.
pub fn path_of(script: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("peers").join(script)
}

/// The rate that a peer said; not a number where it was left out.
pub fn rate(said: Option<Value>, name: &str) -> anyhow::Result<f64> {
    said.map_or(Ok(f64::NAN), |said| said[name].as_f64().context("the peer said no rate"))
}

fn said(name: &str, command: Command) -> anyhow::Result<Value> {
    let text = output(name, command)?;
    let line = text.lines().last().with_context(|| format!("{name} said nothing"))?;
    Ok(serde_json::from_str(line)?)
}

fn output(name: &str, mut command: Command) -> anyhow::Result<String> {
    let output = command
        .stderr(Stdio::inherit())
        .output()
        .with_context(|| format!("{name} cannot be run"))?;
    if !output.status.success() {
        bail!("{name} failed: {}", output.status);
    }
    Ok(String::from_utf8(output.stdout)?)
}
