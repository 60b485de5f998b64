//! Deliveries as GitHub makes them: how many a second, and how well the good ones get through a flood of
//! forged ones.
//!
//! The rule of this file: every good delivery has an id of its own, so each is stored before it is answered.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use axum::Router;
use axum::body::Bytes;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use axum::serve::ListenerExt;
use hmac::{Hmac, KeyInit, Mac};
use serde_json::json;
use sha2::Sha256;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

use crate::flow::{Caller, install_one_step, sign_in};
use crate::report::{Row, Scale, grouped, median, milliseconds, p99};
use crate::server::{Server, binary};
use crate::wrk::wrk;

/// The word that makes this program the bare handler.
pub const WORD: &str = "bare-hmac";

const SECRET: &str = "It's a Secret to Everybody";

/// Good deliveries a second while the forged ones come.
const GOOD: u32 = 100;

/// Forged deliveries a second, and over how many connections.
const FORGED: u32 = 10_000;
const FORGERS: u32 = 40;

fn hmac(body: &[u8]) -> Hmac<Sha256> {
    let mut mac =
        Hmac::<Sha256>::new_from_slice(SECRET.as_bytes()).expect("HMAC takes keys of any length");
    mac.update(body);
    mac
}

/// Verifies what comes, and does nothing else, until the process is ended.
pub async fn serve() -> anyhow::Result<()> {
    let verify = |headers: HeaderMap, body: Bytes| async move {
        let signature = headers.get("x-hub-signature-256").and_then(|it| it.to_str().ok());
        let given = signature.and_then(|it| it.strip_prefix("sha256="));
        let given = given.and_then(|it| hex::decode(it).ok()).unwrap_or_default();
        match hmac(&body).verify_slice(&given) {
            Ok(()) => StatusCode::OK,
            Err(_) => StatusCode::UNAUTHORIZED,
        }
    };
    let router = Router::new().route("/api/webhook/bench", post(verify));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    println!("listening on http://{}", listener.local_addr()?);
    let listener = listener.tap_io(|stream| {
        let _ = stream.set_nodelay(true);
    });
    axum::serve(listener, router).await?;
    Ok(())
}

pub async fn measure(scale: Scale) -> anyhow::Result<Vec<Row>> {
    Ok(vec![rate(scale)?, flood(scale).await?])
}

/// The body of a push: two commits, as GitHub words them.
fn push() -> String {
    let commit = |number: u32| {
        json!({
            "id": format!("{number:040x}"), "message": "Mend the roof", "timestamp": "2026-11-26T10:00:00Z",
            "author": { "name": "Ada", "email": "ada@example.com", "username": "ada" },
            "added": ["roof.md"], "removed": [], "modified": ["README.md"],
        })
    };
    json!({
        "ref": "refs/heads/main", "before": format!("{:040x}", 1), "after": format!("{:040x}", 3),
        "repository": { "id": 1, "full_name": "acme/house", "private": true },
        "pusher": { "name": "ada" }, "commits": [commit(2), commit(3)],
    })
    .to_string()
}

/// A server with a webhook that takes pushes and starts nothing: an execution is measured elsewhere.
fn listening(data: &std::path::Path, limit: u32) -> anyhow::Result<Server> {
    let server = Server::prodgy_with(data, &["--webhook-limit-per-second", &limit.to_string()])?;
    server.ready()?;
    let caller = sign_in(&server)?;
    make_webhook(&server, &caller)?;
    Ok(server)
}

fn make_webhook(server: &Server, caller: &Caller) -> anyhow::Result<()> {
    let agent = install_one_step(server, caller)?;
    let body = json!({
        "type": "webhook", "path": "bench", "verify": "github", "secret": SECRET,
        "match": "trigger.headers['x-github-event'] == 'release'",
    });
    let path = format!("/api/agent-base/{agent}/triggers");
    server.post(&path, &format!("{}\r\n", caller.header), &body)?;
    Ok(())
}

fn rate(scale: Scale) -> anyhow::Result<Row> {
    let data = tempfile::tempdir()?;
    let ours = listening(data.path(), 1_000_000)?;
    let mut command = Command::new(binary("bench")?);
    command.arg(WORD);
    let bare = Server::start(command)?;
    let body = push();
    let signature = hex::encode(hmac(body.as_bytes()).finalize().into_bytes());
    let mut rates = [Vec::new(), Vec::new()];
    let mut latencies = [Vec::new(), Vec::new()];
    for round in 0..scale.pick(3, 1) {
        for (place, server) in [&ours, &bare].into_iter().enumerate() {
            let script = format!(
                "local number = 0\n\
                 wrk.method = 'POST'\nwrk.body = [[{body}]]\n\
                 wrk.headers['Content-Type'] = 'application/json'\n\
                 wrk.headers['X-GitHub-Event'] = 'push'\n\
                 wrk.headers['X-Hub-Signature-256'] = 'sha256={signature}'\n\
                 request = function()\n\
                   number = number + 1\n\
                   wrk.headers['X-GitHub-Delivery'] = '{round}-' .. number\n\
                   return wrk.format()\n\
                 end"
            );
            let url = format!("http://{}/api/webhook/bench", server.address);
            let (rate, p99) = wrk(&script, &url, 32, scale.pick(10, 1))?;
            rates[place].push(rate);
            latencies[place].push(p99);
        }
    }
    let (own, beside) = (median(&rates[0]), median(&rates[1]));
    Ok(Row {
        what: "deliveries a second, verified, stored and answered, 32 connections".into(),
        goals: ["30 % of bare", "60 %"],
        ours: format!("{} (p99 {:.1} ms)", grouped(own), median(&latencies[0])),
        beside: format!("bare HMAC {} (p99 {:.1} ms)", grouped(beside), median(&latencies[1])),
        ratio: format!("{:.0} %", 100.0 * own / beside),
        figures: json!({ "per_second": rates, "p99_ms": latencies }),
    })
}

async fn flood(scale: Scale) -> anyhow::Result<Row> {
    let data = tempfile::tempdir()?;
    let server = listening(data.path(), 200)?;
    let seconds = scale.pick(10, 1);
    let (mut calm, mut flooded, mut forged) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..scale.pick(3, 1) {
        calm.extend(good(server.address, &format!("{round}-calm"), seconds).await?);
        let stop = Arc::new(AtomicBool::new(false));
        let sent = Arc::new(AtomicU64::new(0));
        let forgers: Vec<_> = (0..FORGERS)
            .map(|number| tokio::spawn(forge(server.address, number, sent.clone(), stop.clone())))
            .collect();
        let begun = Instant::now();
        flooded.extend(good(server.address, &format!("{round}-flood"), seconds).await?);
        let took = begun.elapsed();
        stop.store(true, Ordering::Relaxed);
        for forger in forgers {
            forger.await??;
        }
        forged.push(sent.load(Ordering::Relaxed) as f64 / took.as_secs_f64());
    }
    let (own, beside) = (p99(&flooded), p99(&calm));
    Ok(Row {
        what: format!(
            "p99 of {GOOD} good deliveries a second while {} forged ones come",
            grouped(median(&forged))
        ),
        goals: ["2× of that without them, at 10,000", "–"],
        ours: format!("{own:.1} ms (p50 {:.1})", median(&flooded)),
        beside: format!("without {beside:.1} ms (p50 {:.1})", median(&calm)),
        ratio: format!("{:.1}×", own / beside),
        figures: json!({ "flooded_ms": flooded, "calm_ms": calm, "forged_per_second": forged }),
    })
}

/// Good deliveries at the strokes of a clock; the milliseconds that each took.
async fn good(address: SocketAddr, name: &str, seconds: u32) -> anyhow::Result<Vec<f64>> {
    let body = push();
    let signature = hex::encode(hmac(body.as_bytes()).finalize().into_bytes());
    let mut connection = connect(address, Ipv4Addr::new(127, 0, 0, 1)).await?;
    let mut clock = tokio::time::interval(Duration::from_secs(1) / GOOD);
    let mut times = Vec::new();
    for number in 0..GOOD * seconds {
        clock.tick().await;
        let begun = Instant::now();
        let delivery = format!("{name}-{number}");
        let status = deliver(&mut connection, &body, &delivery, &signature).await?;
        times.push(milliseconds(begun.elapsed()));
        ensure!(status == 200, "a good delivery was answered with {status}");
    }
    Ok(times)
}

/// Forged deliveries from another address, a share of [`FORGED`]: each forger has the stroke of its own clock, so that
/// they come one after the other and not forty at a time.
async fn forge(
    address: SocketAddr,
    number: u32,
    sent: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
) -> anyhow::Result<()> {
    let body = push();
    let signature = "0".repeat(64);
    let mut connection = connect(address, Ipv4Addr::new(127, 0, 0, 2)).await?;
    let between = Duration::from_secs(1) / FORGED;
    let mut clock =
        tokio::time::interval_at((Instant::now() + between * number).into(), between * FORGERS);
    while !stop.load(Ordering::Relaxed) {
        clock.tick().await;
        let status = deliver(&mut connection, &body, "forged", &signature).await?;
        ensure!(matches!(status, 401 | 429), "a forged delivery was answered with {status}");
        sent.fetch_add(1, Ordering::Relaxed);
    }
    Ok(())
}

async fn connect(address: SocketAddr, from: Ipv4Addr) -> anyhow::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.bind(SocketAddr::new(IpAddr::V4(from), 0))?;
    let stream = socket.connect(address).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// Sends a delivery over a connection that stays open; answers the status.
async fn deliver(
    connection: &mut TcpStream,
    body: &str,
    id: &str,
    signature: &str,
) -> anyhow::Result<u16> {
    let request = format!(
        "POST /api/webhook/bench HTTP/1.1\r\nHost: bench\r\nContent-Type: application/json\r\n\
         X-GitHub-Event: push\r\nX-GitHub-Delivery: {id}\r\nX-Hub-Signature-256: sha256={signature}\r\n\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    );
    connection.write_all(request.as_bytes()).await?;
    let mut answer = Vec::with_capacity(1024);
    loop {
        if connection.read_buf(&mut answer).await? == 0 {
            bail!("the server closed the connection");
        }
        let Some(end) = answer.windows(4).position(|bytes| bytes == b"\r\n\r\n") else { continue };
        let head = String::from_utf8_lossy(&answer[..end]).to_ascii_lowercase();
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
        let length: usize = length.context("an answer without a length")?.parse()?;
        if answer.len() >= end + 4 + length {
            return Ok(head.split(' ').nth(1).context("no status")?.parse()?);
        }
    }
}
