//! The server as a process: how soon it answers, and how much memory it takes.
//!
//! The rule of this file: the release binary, started as a user starts it.

use std::time::{Duration, Instant};

use anyhow::ensure;
use serde_json::json;

use crate::report::{Row, Scale, median, milliseconds};
use crate::server::Server;

pub fn measure_start(scale: Scale) -> anyhow::Result<Vec<Row>> {
    let (mut first, mut again) = (Vec::new(), Vec::new());
    for _ in 0..scale.pick(10, 2) {
        let data = tempfile::tempdir()?;
        first.push(start(data.path())?);
        again.push(start(data.path())?);
    }
    let (first_median, again_median) = (median(&first), median(&again));
    Ok(vec![Row {
        what: "start to first answered request, empty store".into(),
        goals: ["≤ 1 s", "≤ 0.2 s"],
        ours: format!("{:.3} s", first_median / 1e3),
        beside: format!("a second start {:.3} s", again_median / 1e3),
        ratio: "–".into(),
        figures: json!({ "first_start_ms": first, "second_start_ms": again }),
    }])
}

/// From the start of the process to the last byte of an answer, in milliseconds.
fn start(data: &std::path::Path) -> anyhow::Result<f64> {
    let started = Instant::now();
    let server = Server::prodgy(data)?;
    let (status, _) = server.get("/healthz", "")?;
    ensure!(status == 200, "/healthz was answered with {status}");
    Ok(milliseconds(started.elapsed()))
}

pub fn measure_memory(scale: Scale) -> anyhow::Result<Vec<Row>> {
    let mut resident = Vec::new();
    for _ in 0..scale.pick(3, 1) {
        let data = tempfile::tempdir()?;
        let server = Server::prodgy(data.path())?;
        server.ready()?;
        std::thread::sleep(Duration::from_secs(scale.pick(5, 1)));
        resident.push(server.resident_memory()?);
    }
    Ok(vec![Row {
        what: "resident memory, idle with the model loaded".into(),
        goals: ["≤ 250 MB", "≤ 150 MB"],
        ours: format!("{:.0} MB", median(&resident)),
        beside: "–".into(),
        ratio: "–".into(),
        figures: json!({ "resident_mb": resident }),
    }])
}
