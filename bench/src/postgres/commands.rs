//! Single-event commands on PostgreSQL: the whole command path beside cqrs-es on its own PostgreSQL
//! store and pgbench inserting finished rows; with many callers also Emmett and UmaDB.
//!
//! The rule of this file: one server for all that use PostgreSQL, in turn, each with tables of its
//! own that grow with the rounds.

use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use serde_json::json;

use crate::cluster::{Cluster, program};
use crate::commands::{CALLERS, CommandPath, count_for, fdatasync_p50, rate};
use crate::peers;
use crate::report::{Row, Scale, grouped, median};

/// A goal of each number of callers: at least, stretch.
const GOALS: [[&str; 2]; 3] = [
    ["1.0× postgres-es", "1.0× pgbench"],
    ["1.5× postgres-es", "1.0× pgbench"],
    ["2.5× postgres-es; ahead of Emmett and UmaDB", "1.0× pgbench; 2× Emmett and UmaDB"],
];

/// From how many callers on the peers of other languages are measured too.
const MANY: u64 = 32;

/// A table as the log's, of which the server itself counts the positions.
const BARE_TABLE: &str = "
    CREATE TABLE bare_log (LIKE event_log INCLUDING ALL);
    CREATE SEQUENCE bare_positions OWNED BY bare_log.position;
    ALTER TABLE bare_log ALTER position SET DEFAULT nextval('bare_positions')";

/// pgbench, which inserts rows one by one, and what it fills them with.
struct Pgbench {
    url: String,
    envelope: String,
    turns: u64,
}

impl Pgbench {
    /// In the log's own database, which must hold an event already.
    fn open(server: &Cluster, database: &str) -> Pgbench {
        server.sql(database, BARE_TABLE);
        let newest = "SELECT envelope FROM event_log ORDER BY position DESC LIMIT 1";
        Pgbench { url: server.url(database), envelope: server.sql(database, newest), turns: 0 }
    }

    /// Rows a second.
    fn rate(&mut self, callers: u64, seconds: u64) -> anyhow::Result<f64> {
        self.turns += 1;
        let callers = callers.to_string();
        let mut pgbench = Command::new(program("pgbench"));
        pgbench
            .args(["--no-vacuum", "--protocol", "prepared", "--define", "number=-1"])
            .args(["--client", &callers, "--jobs", &callers, "--time", &seconds.to_string()])
            .args(["--define", &format!("turn={}", self.turns)])
            .args(["--define", &format!("envelope={}", self.envelope)])
            .arg("--file")
            .arg(peers::path_of("insert.sql"))
            .arg(&self.url);
        let output = pgbench.output()?;
        if !output.status.success() {
            bail!("pgbench failed: {}", String::from_utf8_lossy(&output.stderr));
        }
        let said = String::from_utf8(output.stdout)?;
        let rate = said.lines().find_map(|line| line.strip_prefix("tps = "));
        let rate = rate.and_then(|rest| rest.split(' ').next());
        Ok(rate.context("pgbench said no rate")?.parse()?)
    }
}

pub async fn measure(server: &Cluster, scale: Scale) -> anyhow::Result<Vec<Row>> {
    let seconds = scale.pick(3, 1);
    let rounds = scale.pick(5, 1);
    let folder = tempfile::tempdir()?;
    let [database, for_postgres_es, for_emmett] = [(); 3].map(|()| server.database());
    let log = eventlog::open(&server.url(&database), false).await?;
    let ours = Arc::new(CommandPath::open(log.clone(), &folder.path().join("vault")).await?);
    rate(&ours, 1, 1).await?;
    let mut pgbench = Pgbench::open(server, &database);
    let mut rows = Vec::new();
    for (callers, goals) in CALLERS.into_iter().zip(GOALS) {
        let mut rates: [Vec<f64>; 5] = Default::default();
        let mut syncs = Vec::new();
        let count = count_for(&ours, callers, Duration::from_secs(seconds)).await?;
        for _ in 0..rounds {
            syncs.push(fdatasync_p50(folder.path())?);
            rates[0].push(rate(&ours, callers, count).await?);
            let load = [callers.to_string(), seconds.to_string()];
            let at = |database: &str| [&[server.url(database)], &load[..]].concat();
            let said = peers::run_binary("postgres-es-peer", &at(&for_postgres_es))?;
            rates[1].push(peers::rate(said, "commands_per_s")?);
            rates[2].push(pgbench.rate(callers, seconds)?);
            if callers >= MANY {
                let said = peers::run_node("append_emmett.mjs", &at(&for_emmett))?;
                rates[3].push(peers::rate(said, "appends_per_s")?);
                let said = peers::run("append_umadb.py", &load)?;
                rates[4].push(peers::rate(said, "appends_per_s")?);
            }
        }
        let names = ["postgres-es", "pgbench", "Emmett", "UmaDB"];
        let own = median(&rates[0]);
        let measured = || names.into_iter().zip(&rates[1..]).filter(|(_, rates)| !rates.is_empty());
        let beside = measured().map(|(name, rates)| format!("{name} {}", grouped(median(rates))));
        let ratio = measured().map(|(name, rates)| format!("{:.2}× {name}", own / median(rates)));
        let sync = median(&syncs);
        rows.push(Row {
            what: format!(
                "commands a second on PostgreSQL, {callers} callers (fdatasync p50 {sync:.2} ms)"
            ),
            goals,
            ours: grouped(own),
            beside: beside.collect::<Vec<_>>().join("; "),
            ratio: ratio.collect::<Vec<_>>().join("; "),
            figures: json!({
                "callers": callers, "fdatasync_p50_ms": syncs, "ours": rates[0],
                "postgres_es": rates[1], "pgbench": rates[2], "emmett": rates[3], "umadb": rates[4],
            }),
        });
    }
    log.close().await;
    Ok(rows)
}
