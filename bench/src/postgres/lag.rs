//! How long it takes until a command can be read: from its answer, and from its sending, to the
//! moment when the read models of the node that appended, and of another, have taken its event in.
//!
//! The rule of this file: the load is steady and moderate, and each command is waited for at both
//! nodes at once, as a client would, while its caller goes on.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::ensure;
use eventlog::EventStore;
use futures::future::join_all;
use projections::Views;
use serde_json::{Value, json};
use tokio::task::JoinSet;
use uuid::Uuid;

use crate::cluster::Cluster;
use crate::commands::{CommandPath, Place, STREAM};
use crate::report::{Row, Scale, median, milliseconds, p99};

/// Each waits for one command before it sends the next.
const CALLERS: u32 = 8;

/// Commands a second, of all callers.
const LOAD: u32 = 200;

/// The longest that an event may take to be read.
const PATIENCE: Duration = Duration::from_secs(30);

/// One log, and the read models of each node that follows it. The first node appends.
struct Nodes {
    ours: Arc<CommandPath>,
    logs: Vec<Arc<dyn EventStore>>,
    views: Vec<Views>,
}

/// What one node made of every command, in milliseconds.
#[derive(Default)]
struct Lags {
    from_answer: Vec<f64>,
    from_sending: Vec<f64>,
}

impl Nodes {
    async fn open(folder: &Path, addresses: &[String]) -> anyhow::Result<Nodes> {
        let (mut logs, mut views) = (Vec::new(), Vec::new());
        for (number, address) in addresses.iter().enumerate() {
            let log = eventlog::open(address, false).await?;
            views.push(Views::open(&folder.join(format!("views-of-{number}")), log.clone())?);
            logs.push(log);
        }
        let ours = CommandPath::open(logs[0].clone(), &folder.join("vault")).await?;
        Ok(Nodes { ours: Arc::new(ours), logs, views })
    }

    /// The steady load, for some time. Answers the lags of each node.
    async fn lags(&self, time: Duration) -> anyhow::Result<Vec<Lags>> {
        let mut callers = JoinSet::new();
        for number in 0..CALLERS {
            callers.spawn(call(self.ours.clone(), self.views.clone(), number, time));
        }
        let mut lags: Vec<Lags> = self.views.iter().map(|_| Lags::default()).collect();
        while let Some(caller) = callers.join_next().await {
            for command in caller?? {
                for (lags, (from_answer, from_sending)) in lags.iter_mut().zip(command) {
                    lags.from_answer.push(milliseconds(from_answer));
                    lags.from_sending.push(milliseconds(from_sending));
                }
            }
        }
        Ok(lags)
    }

    async fn close(self) {
        for views in self.views {
            views.close().await;
        }
        for log in self.logs {
            log.close().await;
        }
    }
}

/// The times of one command at each node: from the answer, from the sending.
type Times = Vec<(Duration, Duration)>;

/// One caller, who sends at the strokes of a clock.
async fn call(
    ours: Arc<CommandPath>,
    views: Vec<Views>,
    number: u32,
    time: Duration,
) -> anyhow::Result<Vec<Times>> {
    let stroke = Duration::from_secs(1) / LOAD;
    let first = tokio::time::Instant::now() + stroke * number;
    let mut clock = tokio::time::interval_at(first, stroke * CALLERS);
    let mut waiting = JoinSet::new();
    let mut stream = Uuid::now_v7();
    for n in 0..time.as_nanos() as u64 / (stroke * CALLERS).as_nanos() as u64 {
        let sequence = n % STREAM + 1;
        if sequence == 1 {
            stream = Uuid::now_v7();
        }
        let command = Place { stream, sequence }.command()?;
        clock.tick().await;
        let sent = Instant::now();
        let position = ours.execute(stream, command).await?;
        let answered = Instant::now();
        let views = views.clone();
        waiting.spawn(async move {
            let nodes = views.iter().map(async |views| {
                ensure!(views.all_caught_up(position, PATIENCE).await, "an event was not taken in");
                Ok((answered.elapsed(), sent.elapsed()))
            });
            join_all(nodes).await.into_iter().collect::<anyhow::Result<Times>>()
        });
    }
    waiting.join_all().await.into_iter().collect()
}

pub async fn measure(server: &Cluster, scale: Scale) -> anyhow::Result<Vec<Row>> {
    let time = Duration::from_secs(scale.pick(20, 1));
    let rounds = scale.pick(3, 1);
    let folder = tempfile::tempdir()?;
    let (one, other) = (folder.path().join("postgres"), folder.path().join("sqlite"));
    let url = server.url(&server.database());
    let postgres = Nodes::open(&one, &[url.clone(), url]).await?;
    let address = format!("sqlite:{}", other.join("events.db").display());
    let sqlite = Nodes::open(&other, &[address]).await?;
    // The connections are open and the files are there before anything counts.
    for nodes in [&postgres, &sqlite] {
        nodes.lags(Duration::from_secs(1)).await?;
    }
    let mut rounds_of: [Vec<Lags>; 3] = Default::default();
    for _ in 0..rounds {
        let lags = [postgres.lags(time).await?, sqlite.lags(time).await?].into_iter().flatten();
        for (rounds, lags) in rounds_of.iter_mut().zip(lags) {
            rounds.push(lags);
        }
    }
    postgres.close().await;
    sqlite.close().await;
    let [own, second, sqlite] = rounds_of;
    let from_answer = |rounds: &[Lags]| median(&each(rounds, |lags| p99(&lags.from_answer)));
    let from_sending = |rounds: &[Lags]| median(&each(rounds, |lags| p99(&lags.from_sending)));
    Ok(vec![Row {
        what: format!(
            "answer to applied read model on PostgreSQL, p99 at {LOAD} commands a second, {CALLERS} callers"
        ),
        goals: ["≤ 50 ms", "≤ 10 ms"],
        ours: format!(
            "{:.1} ms; on a second node {:.1} ms",
            from_answer(&own),
            from_answer(&second)
        ),
        beside: format!(
            "from sending {:.1} ms and {:.1} ms; on SQLite {:.1} ms, from sending {:.1} ms",
            from_sending(&own),
            from_sending(&second),
            from_answer(&sqlite),
            from_sending(&sqlite)
        ),
        ratio: "–".into(),
        figures: json!({
            "commands": own.iter().map(|lags| lags.from_answer.len()).sum::<usize>(),
            "own_node": figures(&own), "second_node": figures(&second), "sqlite": figures(&sqlite),
        }),
    }])
}

fn each(rounds: &[Lags], figure: impl Fn(&Lags) -> f64) -> Vec<f64> {
    rounds.iter().map(figure).collect()
}

/// Every round's figures, in milliseconds.
fn figures(rounds: &[Lags]) -> Value {
    let longest = |times: &[f64]| times.iter().copied().fold(f64::NAN, f64::max);
    json!({
        "from_answer_p50_ms": each(rounds, |lags| median(&lags.from_answer)),
        "from_answer_p99_ms": each(rounds, |lags| p99(&lags.from_answer)),
        "from_answer_longest_ms": each(rounds, |lags| longest(&lags.from_answer)),
        "from_sending_p50_ms": each(rounds, |lags| median(&lags.from_sending)),
        "from_sending_p99_ms": each(rounds, |lags| p99(&lags.from_sending)),
        "from_sending_longest_ms": each(rounds, |lags| longest(&lags.from_sending)),
    })
}
