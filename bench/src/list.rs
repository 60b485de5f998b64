//! A list of 50 by API token over 32 connections, beside a bare handler that runs the same query on
//! the same file.
//!
//! The rule of this file: ours is the real server with everything on: credential, limits, usage
//! counting, metrics, all headers. wrk takes its share of the same machine in both.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail, ensure};
use serde_json::{Value, json};

use crate::bare_list;
use crate::report::{Row, Scale, grouped, median};
use crate::server::{EMAIL, PASSWORD, Server, binary};

/// Rows of the list: it is whole, so one query answers it on both sides.
const ROWS: usize = 50;

pub fn measure(scale: Scale) -> anyhow::Result<Vec<Row>> {
    let seconds = scale.pick(3, 1);
    let data = tempfile::tempdir()?;
    let ours = Server::prodgy(data.path())?;
    let (product, token) = fill(&ours)?;
    let path = format!("/api/knowledge-base/{product}?limit={ROWS}");
    let header = format!("X-API-Token: {token}");
    let (status, body) = ours.get(&path, &format!("{header}\r\n"))?;
    let body: Value = serde_json::from_slice(&body)?;
    let rows = body["data"].as_array().map_or(0, Vec::len);
    ensure!(status == 200 && rows == ROWS, "the list has {rows} rows, status {status}");

    let mut command = Command::new(binary("bench")?);
    command.arg(bare_list::WORD).arg(views_file(data.path())?).arg(&product);
    let bare = Server::start(command)?;
    let (own_url, bare_url) =
        (format!("http://{}{path}", ours.address), format!("http://{}/", bare.address));
    // Once to warm both up.
    wrk(&own_url, &header, 1)?;
    wrk(&bare_url, &header, 1)?;
    let (mut own_rates, mut bare_rates) = (Vec::new(), Vec::new());
    for _ in 0..scale.pick(3, 1) {
        own_rates.push(wrk(&own_url, &header, seconds)?);
        bare_rates.push(wrk(&bare_url, &header, seconds)?);
    }
    let (own, bare) = (median(&own_rates), median(&bare_rates));
    Ok(vec![Row {
        what: format!("GET of a list of {ROWS} by token, 32 connections, requests a second"),
        goals: ["70 % of bare", "90 %"],
        ours: grouped(own),
        beside: format!("bare axum handler {}", grouped(bare)),
        ratio: format!("{:.0} %", 100.0 * own / bare),
        figures: json!({ "ours": own_rates, "bare": bare_rates }),
    }])
}

/// Makes a product with so many knowledge bases, and a token of it.
fn fill(server: &Server) -> anyhow::Result<(String, String)> {
    let login = json!({ "email": EMAIL, "password": PASSWORD });
    let session = server.post("/api/auth/login", "", &login)?;
    let bearer = format!("Authorization: Bearer {}\r\n", text(&session["access_token"])?);
    let product = server.post("/api/products", &bearer, &json!({ "name": "Bench" }))?;
    let product = text(&product["id"])?;
    // The product came with one.
    for number in 1..ROWS {
        let body = json!({
            "product_id": product, "name": format!("Knowledge base {number}"),
            "description": "Minutes, decisions and how-tos of one team, searched by meaning.",
        });
        server.post("/api/knowledge-base", &bearer, &body)?;
    }
    let body = json!({ "product_id": product, "name": "Bench" });
    let token = server.post("/api/api-tokens", &bearer, &body)?;
    Ok((product, text(&token["token"])?))
}

fn text(value: &Value) -> anyhow::Result<String> {
    Ok(value.as_str().context("the answer lacks a text")?.to_owned())
}

fn views_file(data: &Path) -> anyhow::Result<PathBuf> {
    for entry in std::fs::read_dir(data.join("views"))? {
        let path = entry?.path().join("views.db");
        if path.exists() {
            return Ok(path);
        }
    }
    bail!("the server keeps no views file in {}", data.display())
}

/// Requests a second.
fn wrk(url: &str, header: &str, seconds: u32) -> anyhow::Result<f64> {
    let output = Command::new("wrk")
        .args(["-t1", "-c32", &format!("-d{seconds}s"), "-H", header, url])
        .output()
        .context("wrk cannot be run: install the package wrk")?;
    let said = String::from_utf8_lossy(&output.stdout);
    ensure!(output.status.success(), "wrk failed: {said}");
    ensure!(
        !said.contains("Non-2xx") && !said.contains("Socket errors"),
        "wrk saw failures: {said}"
    );
    let rate = said.lines().find_map(|line| line.strip_prefix("Requests/sec:"));
    Ok(rate.context("wrk said no rate")?.trim().parse()?)
}
