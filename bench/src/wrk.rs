//! Loads by `wrk`, from the package of that name.
//!
//! The rule of this file: an answer that is no success ends the measurement.

use std::process::Command;

use anyhow::{Context, ensure};
use serde_json::Value;

/// Says what was seen in one line of JSON.
const DONE: &str = "done = function(summary, latency, requests)\n\
       local errors = summary.errors\n\
       local bad = errors.connect + errors.read + errors.write + errors.status + errors.timeout\n\
       io.write(string.format('JSON {\"rate\": %f, \"p99\": %f, \"bad\": %d}\\n',\n\
         summary.requests / summary.duration * 1e6, latency:percentile(99) / 1e3, bad))\n\
     end\n";

/// Requests a second, and the milliseconds that ninety-nine in a hundred take at most. `script` is Lua that
/// says what is asked.
pub fn wrk(script: &str, url: &str, connections: u32, seconds: u32) -> anyhow::Result<(f64, f64)> {
    let file = tempfile::Builder::new().suffix(".lua").tempfile()?;
    std::fs::write(file.path(), format!("{script}\n{DONE}"))?;
    let output = Command::new("wrk")
        .args(["-t1", &format!("-c{connections}"), &format!("-d{seconds}s"), "-s"])
        .arg(file.path())
        .arg(url)
        .output()
        .context("wrk cannot be run: install the package wrk")?;
    let said = String::from_utf8_lossy(&output.stdout);
    let line = said.lines().find_map(|line| line.strip_prefix("JSON "));
    let figures: Value = serde_json::from_str(line.with_context(|| format!("wrk said {said}"))?)?;
    ensure!(figures["bad"] == 0, "wrk saw failures: {figures}");
    let number = |name: &str| figures[name].as_f64().context("no number");
    Ok((number("rate")?, number("p99")?))
}
