//! Single-event commands, each acknowledged durable before its caller sends the next: the whole
//! command path beside a bare group-commit insert of the same rows, cqrs-es on its own SQLite store,
//! and UmaDB.
//!
//! The rule of this file: everybody writes the same events to the same kind of streams, ten to each:
//! one that makes a knowledge base, nine that rename it.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use commands::{Ask, Commands};
use domain::knowledge_base::{KnowledgeBase, KnowledgeBaseCommand, KnowledgeBaseEvent};
use domain::{Name, Rewording};
use eventlog::{EventStore, Metadata, Position};
use serde_json::json;
use uuid::Uuid;
use vault::{MasterKey, Vault};

use crate::bare_insert::BareInsert;
use crate::peers;
use crate::report::{Row, Scale, grouped, median, milliseconds};

pub const CALLERS: [u64; 3] = [1, 8, 32];

/// Events of a stream.
pub const STREAM: u64 = 10;

/// A goal of each number of callers: at least, stretch.
const GOALS: [[&str; 2]; 3] = [
    ["0.6× bare; ahead of UmaDB", "0.85× bare"],
    ["0.6× bare; 4× sqlite-es; ahead of UmaDB", "0.85× bare"],
    ["0.6× bare; 8× sqlite-es; ahead of UmaDB", "0.85× bare"],
];

/// What takes commands and makes them durable.
pub trait Contender: Send + Sync + 'static {
    /// What a caller hands over, made before the clock runs.
    type Command: Send + 'static;
    fn command(&self, place: Place, command: KnowledgeBaseCommand)
    -> anyhow::Result<Self::Command>;
    fn write(
        self: &Arc<Self>,
        command: Self::Command,
    ) -> impl Future<Output = anyhow::Result<()>> + Send;
}

/// The place of an event: its stream, and its number there.
#[derive(Clone, Copy)]
pub struct Place {
    pub stream: Uuid,
    /// From 1.
    pub sequence: u64,
}

impl Place {
    /// What an aggregate makes of a command here, for those who do not ask it.
    pub fn event(self, command: KnowledgeBaseCommand) -> KnowledgeBaseEvent {
        match command {
            KnowledgeBaseCommand::Create { name, default, .. } => {
                KnowledgeBaseEvent::Created { name, description: None, default }
            }
            KnowledgeBaseCommand::Change { name, .. } => {
                KnowledgeBaseEvent::Changed { name, description: None }
            }
            KnowledgeBaseCommand::Delete { .. } => KnowledgeBaseEvent::Deleted {},
        }
    }

    /// The command that leads to it.
    pub fn command(self) -> anyhow::Result<KnowledgeBaseCommand> {
        let name =
            Name::parse(&format!("What the support team knows, revision {}", self.sequence))?;
        Ok(match self.sequence {
            1 => KnowledgeBaseCommand::Create { name, description: None, default: false },
            _ => KnowledgeBaseCommand::Change { name: Some(name), description: Rewording::Kept },
        })
    }
}

/// What a request brings into every envelope.
pub fn metadata() -> &'static Arc<Metadata> {
    static METADATA: LazyLock<Arc<Metadata>> = LazyLock::new(|| {
        Arc::new(Metadata {
            organization: Uuid::now_v7(),
            product: Some(Uuid::now_v7()),
            actor: format!("token:{}", Uuid::now_v7()),
            correlation: Uuid::now_v7(),
            causation: None,
            request_id: Some(Uuid::now_v7().to_string()),
            traceparent: Some("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01".into()),
            address: None,
            user_agent: None,
        })
    });
    &METADATA
}

/// Ours, whole: load, decide, append, answered when durable.
pub struct CommandPath(Commands);

impl CommandPath {
    /// The command side of a log, with a vault in `folder`.
    pub async fn open(log: Arc<dyn EventStore>, folder: &Path) -> anyhow::Result<CommandPath> {
        let vault = Vault::local(folder, MasterKey::generate()?).await?;
        Ok(CommandPath(Commands::open(log, vault).await?))
    }

    /// Carries a command out; answers where its event stands.
    pub async fn execute(
        &self,
        base: Uuid,
        command: KnowledgeBaseCommand,
    ) -> anyhow::Result<Position> {
        let ask = Ask {
            metadata: metadata().clone(),
            command_id: Uuid::now_v7(),
            repeatable: false,
            request_hash: None,
            if_match: None,
        };
        Ok(self.0.execute::<KnowledgeBase>(base, command, &ask).await?.position())
    }
}

impl Contender for CommandPath {
    type Command = (Uuid, KnowledgeBaseCommand);

    fn command(
        &self,
        place: Place,
        command: KnowledgeBaseCommand,
    ) -> anyhow::Result<Self::Command> {
        Ok((place.stream, command))
    }

    async fn write(self: &Arc<Self>, (base, command): Self::Command) -> anyhow::Result<()> {
        self.execute(base, command).await.map(drop)
    }
}

/// Commands a second. Each caller waits for one before it sends the next.
pub async fn rate<C: Contender>(
    contender: &Arc<C>,
    callers: u64,
    count: u64,
) -> anyhow::Result<f64> {
    let mut turns: Vec<Vec<C::Command>> = Vec::new();
    for _ in 0..callers {
        let mut own = Vec::new();
        let mut stream = Uuid::now_v7();
        for n in 0..(count / callers).max(1) {
            let sequence = n % STREAM + 1;
            if sequence == 1 {
                stream = Uuid::now_v7();
            }
            let place = Place { stream, sequence };
            own.push(contender.command(place, place.command()?)?);
        }
        turns.push(own);
    }
    let count: usize = turns.iter().map(Vec::len).sum();
    let started = Instant::now();
    let tasks: Vec<_> = turns
        .into_iter()
        .map(|own| {
            let contender = contender.clone();
            tokio::spawn(async move {
                for command in own {
                    contender.write(command).await?;
                }
                anyhow::Ok(())
            })
        })
        .collect();
    for task in tasks {
        task.await??;
    }
    Ok(count as f64 / started.elapsed().as_secs_f64())
}

/// A first try says how many commands fill a round.
pub async fn count_for<C: Contender>(
    contender: &Arc<C>,
    callers: u64,
    round: Duration,
) -> anyhow::Result<u64> {
    let first = rate(contender, callers, callers * 40).await?;
    Ok((first * round.as_secs_f64()) as u64 + callers)
}

pub async fn measure(scale: Scale) -> anyhow::Result<Vec<Row>> {
    let round = Duration::from_millis(scale.pick(1_000, 100));
    let rounds = scale.pick(3, 1);
    let folder = tempfile::tempdir()?;
    let address = format!("sqlite:{}", folder.path().join("ours.db").display());
    let log = eventlog::open(&address, false).await?;
    let ours = CommandPath::open(log, &folder.path().join("vault")).await?;
    let ours = Arc::new(ours);
    let bare = Arc::new(BareInsert::open(&folder.path().join("bare.db"))?);
    let mut rows = Vec::new();
    for (callers, goals) in CALLERS.into_iter().zip(GOALS) {
        let mut rates: [Vec<f64>; 4] = Default::default();
        let mut syncs = Vec::new();
        let counts =
            (count_for(&ours, callers, round).await?, count_for(&bare, callers, round).await?);
        for _ in 0..rounds {
            syncs.push(fdatasync_p50(folder.path())?);
            rates[0].push(rate(&ours, callers, counts.0).await?);
            rates[1].push(rate(&bare, callers, counts.1).await?);
            let seconds = round.as_secs_f64().max(0.5);
            let arguments = [callers.to_string(), seconds.to_string()];
            let said = peers::run_binary("sqlite-es-peer", &arguments)?;
            rates[2].push(peers::rate(said, "commands_per_s")?);
            let said = peers::run("append_umadb.py", &arguments)?;
            rates[3].push(peers::rate(said, "appends_per_s")?);
        }
        let [own, bare, sqlite_es, umadb] = rates.each_ref().map(|rates| median(rates));
        let sync = median(&syncs);
        rows.push(Row {
            what: format!("commands a second, {callers} callers (fdatasync p50 {sync:.2} ms)"),
            goals,
            ours: grouped(own),
            beside: format!(
                "bare {}; sqlite-es {}; UmaDB {}",
                grouped(bare),
                grouped(sqlite_es),
                grouped(umadb)
            ),
            ratio: format!(
                "{:.2}× bare; {:.1}× sqlite-es; {:.2}× UmaDB",
                own / bare,
                own / sqlite_es,
                own / umadb
            ),
            figures: json!({
                "callers": callers, "fdatasync_p50_ms": syncs, "ours": rates[0], "bare": rates[1],
                "sqlite_es": rates[2], "umadb": rates[3],
            }),
        });
    }
    Ok(rows)
}

/// How long the disk takes to make one page durable, in milliseconds.
pub fn fdatasync_p50(folder: &Path) -> anyhow::Result<f64> {
    let mut file = File::create(folder.join("sync"))?;
    let mut times = Vec::new();
    for _ in 0..100 {
        file.write_all(&[7; 4096])?;
        let started = Instant::now();
        file.sync_data()?;
        times.push(milliseconds(started.elapsed()));
    }
    Ok(median(&times))
}
