//! What the peers on cqrs-es are given to do: our knowledge base, cut down to what the commands of
//! the measurement need. One makes it, nine rename it.
//!
//! The rule of this file: it knows nothing of the store, so that every store does the same work.

use std::sync::Arc;
use std::time::{Duration, Instant};

use cqrs_es::event_sink::EventSink;
use cqrs_es::{Aggregate, CqrsFramework, DomainEvent, EventStore};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// Before the clock runs: the connections are opened meanwhile.
const WARM_UP: Duration = Duration::from_millis(200);

/// Events of a stream.
const STREAM: u64 = 10;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Event {
    Created { name: String, default: bool },
    Changed { name: String },
}

impl DomainEvent for Event {
    fn event_type(&self) -> String {
        match self {
            Event::Created { .. } => "knowledge_base.created.v1".into(),
            Event::Changed { .. } => "knowledge_base.changed.v1".into(),
        }
    }

    fn event_version(&self) -> String {
        "v1".into()
    }
}

#[derive(Debug)]
pub enum Command {
    Create { name: String },
    Change { name: String },
}

#[derive(Debug)]
pub struct Refused(&'static str);

impl std::fmt::Display for Refused {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for Refused {}

#[derive(Debug, Default, Serialize, Deserialize)]
pub struct KnowledgeBase {
    name: Option<String>,
}

impl Aggregate for KnowledgeBase {
    const TYPE: &'static str = "knowledge_base";
    type Command = Command;
    type Event = Event;
    type Error = Refused;
    type Services = ();

    async fn handle(
        &mut self,
        command: Command,
        (): &(),
        sink: &EventSink<Self>,
    ) -> Result<(), Refused> {
        let event = match (&self.name, command) {
            (None, Command::Create { name }) => Event::Created { name, default: false },
            (Some(old), Command::Change { name }) if *old != name => Event::Changed { name },
            (Some(_), Command::Change { .. }) => return Ok(()),
            (None, Command::Change { .. }) => {
                return Err(Refused("there is no such knowledge base"));
            }
            (Some(_), Command::Create { .. }) => return Err(Refused("it exists already")),
        };
        sink.write(event, self).await;
        Ok(())
    }

    fn apply(&mut self, event: Event) {
        let (Event::Created { name, .. } | Event::Changed { name }) = event;
        self.name = Some(name);
    }
}

/// Runs so many callers for so many seconds, and prints the commands a second as a line of JSON.
pub async fn measure<S>(
    peer: &str,
    framework: CqrsFramework<KnowledgeBase, S>,
    callers: &str,
    seconds: &str,
) -> anyhow::Result<()>
where
    S: EventStore<KnowledgeBase, AC: Send> + 'static,
{
    let callers: u64 = callers.parse()?;
    let time = Duration::from_secs_f64(seconds.parse()?);
    let framework = Arc::new(framework);
    rate(&framework, callers, WARM_UP).await?;
    let rate = rate(&framework, callers, time).await?;
    println!("{}", serde_json::json!({ "peer": peer, "callers": callers, "commands_per_s": rate }));
    Ok(())
}

async fn rate<S>(
    framework: &Arc<CqrsFramework<KnowledgeBase, S>>,
    callers: u64,
    time: Duration,
) -> anyhow::Result<f64>
where
    S: EventStore<KnowledgeBase, AC: Send> + 'static,
{
    let started = Instant::now();
    let tasks: Vec<_> =
        (0..callers).map(|_| tokio::spawn(call(framework.clone(), started, time))).collect();
    let mut count = 0;
    for task in tasks {
        count += task.await??;
    }
    Ok(count as f64 / started.elapsed().as_secs_f64())
}

/// One caller: waits for each command before it sends the next. Answers how many there were.
async fn call<S>(
    framework: Arc<CqrsFramework<KnowledgeBase, S>>,
    started: Instant,
    time: Duration,
) -> anyhow::Result<u64>
where
    S: EventStore<KnowledgeBase, AC: Send> + 'static,
{
    let mut count = 0;
    let mut id = String::new();
    while started.elapsed() < time {
        let name = format!("What the support team knows, revision {}", count % STREAM + 1);
        let command = match count % STREAM {
            0 => {
                id = Uuid::now_v7().to_string();
                Command::Create { name }
            }
            _ => Command::Change { name },
        };
        framework.execute(&id, command).await?;
        count += 1;
    }
    Ok(count)
}
