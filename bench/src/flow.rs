//! Agents: how long light steps take, how many executions a second, how soon one begins.
//!
//! The rule of this file: through HTTP, on the release binary, every step in the log when the answer
//! comes. Beside it, as many bare synced inserts as there are steps.

use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, ensure};
use chrono::{DateTime, Utc};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::bare_insert::BareInsert;
use crate::commands::{Contender, Place};
use crate::report::{Row, Scale, grouped, median, milliseconds, p99};
use crate::server::{EMAIL, PASSWORD, Server};
use crate::wrk::wrk;

/// How many light steps the flow has.
const STEPS: usize = 40;

/// What a caller needs.
pub struct Caller {
    pub header: String,
    pub token: String,
    pub product: String,
}

pub async fn measure(scale: Scale) -> anyhow::Result<Vec<Row>> {
    let data = tempfile::tempdir()?;
    let server = Server::prodgy(data.path())?;
    server.ready()?;
    let caller = sign_in(&server)?;
    let chain = install(&server, &caller, STEPS)?;
    let short = install(&server, &caller, 1)?;
    let claimed = install_claimed(&server, &caller)?;

    let inserts = tempfile::tempdir()?;
    let bare = Arc::new(BareInsert::open(&inserts.path().join("events.db"))?);
    let (mut own, mut beside) = (Vec::new(), Vec::new());
    for _ in 0..scale.pick(200, 5) {
        let begun = Instant::now();
        execute(&server, &caller, &chain)?;
        own.push(milliseconds(begun.elapsed()));
        let stream = Uuid::now_v7();
        let rows = (1..=STEPS as u64)
            .map(|sequence| Place { stream, sequence })
            .map(|place| bare.command(place, place.command()?))
            .collect::<anyhow::Result<Vec<_>>>()?;
        let begun = Instant::now();
        for row in rows {
            bare.write(row).await?;
        }
        beside.push(milliseconds(begun.elapsed()));
    }
    let (flow, bare) = (median(&own), median(&beside));
    let mut rows = vec![Row {
        what: format!(
            "{STEPS} light steps in sequence, asked for and answered by HTTP, all in the log"
        ),
        goals: ["3× as many bare synced inserts", "15 ms"],
        ours: format!("{flow:.1} ms (p99 {:.1})", p99(&own)),
        beside: format!("{STEPS} bare inserts {bare:.1} ms"),
        ratio: format!("{:.2}× bare", flow / bare),
        figures: json!({ "ours_ms": own, "bare_ms": beside }),
    }];
    for connections in [1, 32] {
        let mut rates = Vec::new();
        let mut latencies = Vec::new();
        for _ in 0..scale.pick(3, 1) {
            let script = format!(
                "wrk.method = 'POST'\nwrk.body = '{{\"input\":{{\"x\":1}}}}'\n\
                 wrk.headers['Content-Type'] = 'application/json'\nwrk.headers['X-API-Token'] = '{}'",
                caller.token
            );
            let url = format!("http://{}{short}", server.address);
            let (rate, p99) = wrk(&script, &url, connections, scale.pick(10, 1))?;
            rates.push(rate);
            latencies.push(p99);
        }
        rows.push(Row {
            what: format!(
                "executions a second, one step, answer waited for, {connections} connections"
            ),
            goals: ["10× n8n's webhook (860 / 1,160)", "2,000, p99 ≤ 50 ms"],
            ours: format!("{} (p99 {:.1} ms)", grouped(median(&rates)), median(&latencies)),
            beside: "–".into(),
            ratio: "–".into(),
            figures: json!({ "per_second": rates, "p99_ms": latencies }),
        });
    }
    let mut waits = Vec::new();
    for _ in 0..scale.pick(500, 5) {
        let execution = execute(&server, &caller, &claimed)?;
        let at = |field: &str| -> anyhow::Result<DateTime<Utc>> {
            Ok(execution[field].as_str().context("no time")?.parse()?)
        };
        let wait = at("started_at")? - at("created_at")?;
        waits.push(wait.num_microseconds().unwrap_or(i64::MAX) as f64 / 1e3);
        // Idle in between.
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    rows.push(Row {
        what: "from asked for to claimed, idle".into(),
        goals: ["p99 ≤ 20 ms", "p99 ≤ 5 ms"],
        ours: format!("{:.2} ms (p99 {:.2})", median(&waits), p99(&waits)),
        beside: "–".into(),
        ratio: "–".into(),
        figures: json!({ "ms": waits }),
    });
    Ok(rows)
}

pub fn sign_in(server: &Server) -> anyhow::Result<Caller> {
    let login = json!({ "email": EMAIL, "password": PASSWORD });
    let session = server.post("/api/auth/login", "", &login)?;
    let bearer = format!("Authorization: Bearer {}\r\n", text(&session["access_token"])?);
    let product = server.post("/api/products", &bearer, &json!({ "name": "Bench" }))?;
    let product = text(&product["id"])?;
    let body = json!({ "product_id": product, "name": "Bench" });
    let token = server.post("/api/api-tokens", &bearer, &body)?;
    let token = text(&token["token"])?;
    Ok(Caller { header: format!("X-API-Token: {token}"), token, product })
}

/// Installs an agent that adds one, so many times; answers where it is executed.
fn install(server: &Server, caller: &Caller, steps: usize) -> anyhow::Result<String> {
    let step = |number: usize| {
        let (needs, before) = match number {
            0 => (json!([]), "input.x".to_owned()),
            _ => (json!([format!("s{}", number - 1)]), format!("steps.s{}.output.x", number - 1)),
        };
        let with = json!({ "x": { "cel": format!("{before} + 1") } });
        json!({ "id": format!("s{number}"), "type": "transform", "needs": needs, "with": with })
    };
    let manifest = json!({
        "manifest": "prodgy.agent/1", "name": format!("bench.chain{steps}"), "version": "1.0.0",
        "title": "Chain", "steps": (0..steps).map(step).collect::<Vec<_>>(),
    });
    installed(server, caller, manifest)
}

/// An agent that a worker must claim: what it puts out is known only when it was asked for.
fn install_claimed(server: &Server, caller: &Caller) -> anyhow::Result<String> {
    let manifest = json!({
        "manifest": "prodgy.agent/1", "name": "bench.claimed", "version": "1.0.0", "title": "Claimed",
        "steps": [{ "id": "one", "type": "transform", "with": { "x": { "cel": "execution.created_at" } } }],
    });
    installed(server, caller, manifest)
}

/// Installs an agent of one step; answers its id.
pub fn install_one_step(server: &Server, caller: &Caller) -> anyhow::Result<String> {
    let manifest = json!({
        "manifest": "prodgy.agent/1", "name": "bench.one", "version": "1.0.0", "title": "One",
        "steps": [{ "id": "one", "type": "transform", "with": { "x": 1 } }],
    });
    let body = json!({ "product_id": caller.product, "manifest": manifest });
    let agent = server.post("/api/agent-base/install", &format!("{}\r\n", caller.header), &body)?;
    text(&agent["id"])
}

fn installed(server: &Server, caller: &Caller, manifest: Value) -> anyhow::Result<String> {
    let body = json!({ "product_id": caller.product, "manifest": manifest });
    let agent = server.post("/api/agent-base/install", &format!("{}\r\n", caller.header), &body)?;
    let trigger = text(&agent["triggers"][0]["id"])?;
    Ok(format!("/api/agent-base/triggers/{trigger}/execute?wait_seconds=30"))
}

fn execute(server: &Server, caller: &Caller, path: &str) -> anyhow::Result<Value> {
    let body = json!({ "input": { "x": 1 } });
    let execution = server.post(path, &format!("{}\r\n", caller.header), &body)?;
    ensure!(execution["status"] == "succeeded", "it did not succeed: {execution}");
    Ok(execution)
}

fn text(value: &Value) -> anyhow::Result<String> {
    Ok(value.as_str().context("the answer lacks a text")?.to_owned())
}
