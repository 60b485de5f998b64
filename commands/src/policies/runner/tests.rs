//! Executions, from the request to their end, with everything that can come in between.

mod at_once;
mod control;
mod lanes;
mod limits;
mod patience;
mod together;
mod told;

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use async_trait::async_trait;
use domain::Name;
use domain::agent::trigger_id;
use eventlog::{EventStore, Position};
use tempfile::TempDir;
use tokio::sync::watch;

use super::steps::MOST_ATTEMPTS;
use super::*;
use crate::policies::altered::Altered;
use crate::policies::{Contents, Inside, KnowledgeQuery, NotNow, Pending, Policies, Reading};
use crate::testing::{open_commands, open_log};
use crate::tools::{ToolSettings, Tools};
use crate::{AgentChange, NewAgent, NewExecution};

/// Knowledge bases that answer every question with one passage, unless they are told otherwise.
#[derive(Default)]
struct Passages {
    base: Uuid,
    not_ready: AtomicUsize,
    crashes: AtomicBool,
    searches: AtomicUsize,
    /// Never answers.
    stalls: AtomicBool,
    /// Which search fails for good, from 1.
    fails_at: AtomicUsize,
    /// How long whoever is not ready wants to be left alone, in milliseconds.
    retry_after: AtomicU64,
    /// Every question, as often as it was asked.
    asked: Mutex<Vec<String>>,
}

#[async_trait]
impl Knowledge for Passages {
    async fn search(&self, query: KnowledgeQuery) -> Result<Vec<Value>, ToolError> {
        let number = self.searches.fetch_add(1, Ordering::SeqCst) + 1;
        self.asked.lock().push(query.query.clone());
        if self.stalls.load(Ordering::SeqCst) {
            std::future::pending::<()>().await;
        }
        if self.fails_at.load(Ordering::SeqCst) == number {
            return Err(ToolError::lasting("search_failed", "it cannot be searched"));
        }
        assert!(!self.crashes.load(Ordering::SeqCst), "a fault in the search");
        let one_less = |left: usize| left.checked_sub(1);
        if self.not_ready.fetch_update(Ordering::SeqCst, Ordering::SeqCst, one_less).is_ok() {
            let wait = Duration::from_millis(self.retry_after.load(Ordering::SeqCst));
            let error = ToolError::passing("search_not_ready", "the index is being loaded");
            return Err(error.after((!wait.is_zero()).then_some(wait)));
        }
        Ok(vec![json!({ "text": format!("about {}", query.query), "score": 0.5 })])
    }

    async fn default_base(&self, _: Uuid) -> Result<Uuid, ToolError> {
        Ok(self.base)
    }

    async fn has_base(&self, _: Uuid, base: Uuid) -> Result<bool, ToolError> {
        Ok(base == self.base)
    }
}

/// What is inside a product that these tests delete: here the runner alone ends it.
struct Untouched;

#[async_trait]
impl Contents for Untouched {
    async fn know(&self, _: Position) -> Result<(), NotNow> {
        Err(NotNow("nothing is erased here".into()))
    }

    async fn forget(&self, _: Position) -> Result<(), NotNow> {
        Err(NotNow("nothing is erased here".into()))
    }

    async fn sessions_of(&self, _: Uuid) -> Result<Vec<Uuid>, NotNow> {
        Ok(Vec::new())
    }

    async fn outdated_sessions_of(&self, _: Uuid) -> Result<Vec<Uuid>, NotNow> {
        Ok(Vec::new())
    }

    async fn files_of(&self, _: Uuid) -> Result<Vec<Uuid>, NotNow> {
        Ok(Vec::new())
    }

    async fn inside(&self, _: Uuid) -> Result<Inside, NotNow> {
        Ok(Inside::default())
    }

    async fn artifacts_of(&self, _: Uuid) -> Result<Vec<String>, NotNow> {
        Ok(Vec::new())
    }
}

/// A product with one agent, in a folder of its own.
struct World {
    folder: TempDir,
    log: Arc<dyn EventStore>,
    commands: Commands,
    product: Uuid,
    base: Uuid,
    agent: Uuid,
}

fn manifest() -> Value {
    json!({
        "manifest": "prodgy.agent/1", "name": "test.steps", "version": "1.0.0", "title": "Steps",
        "inputs": { "type": "object", "properties": { "n": { "type": "integer" } }, "required": ["n"] },
        "steps": [
            { "id": "one", "type": "transform", "with": { "value": { "cel": "10 / input.n" } } },
            { "id": "two", "type": "kb.search", "needs": ["one"],
              "with": { "query": { "template": "{{ steps.one.output.value }}" } } },
            { "id": "three", "type": "kb.ingest", "needs": ["two"],
              "with": { "title": "Note", "text": { "cel": "steps.two.output.passages[0].text" } } }
        ],
        "output": { "cel": "steps.two.output.passages[0].text" }
    })
}

fn name(text: &str) -> Name {
    Name::parse(text).expect("a name")
}

impl World {
    async fn new() -> World {
        World::with(manifest()).await
    }

    /// A product with one agent of this manifest.
    async fn with(manifest: Value) -> World {
        World::configured(manifest, None).await
    }

    /// A product with one agent of this manifest, configured so.
    async fn configured(manifest: Value, config: Option<Value>) -> World {
        let folder = tempfile::tempdir().expect("a folder");
        let log = open_log(folder.path());
        let commands = open_commands(folder.path(), log.clone()).await;
        let ask = || Ask::once("test", Uuid::nil(), None);
        let done = commands.create_product(name("Product"), None, &ask()).await.expect("a product");
        let product = done.stream_id().expect("an id");
        let state = commands.load::<Product>(&done.stream).await.expect("loaded").0;
        let Product::Active { knowledge_base: base, .. } = state else { panic!("not active") };
        let manifest = Manifest::accept(&manifest).expect("a manifest");
        let new = NewAgent { manifest, title: None, config, bindings: BTreeMap::new() };
        let done = commands.install_agent(new, &ask().in_product(product)).await.expect("an agent");
        let agent = done.stream_id().expect("an id");
        World { folder, log, commands, product, base, agent }
    }

    fn ask(&self) -> Ask {
        Ask::once("test", Uuid::nil(), Some(self.product))
    }

    /// The version that runs.
    async fn active(&self) -> Uuid {
        let stream = StreamId::new("agent", self.agent);
        let (state, _) = self.commands.load::<Agent>(&stream).await.expect("loaded");
        state.installation().expect("installed").version_id
    }

    fn passages(&self) -> Arc<Passages> {
        Arc::new(Passages { base: self.base, ..Passages::default() })
    }

    async fn request(&self, n: i64) -> Uuid {
        self.request_on(json!({ "n": n })).await
    }

    async fn request_on(&self, input: Value) -> Uuid {
        let new = NewExecution { agent: self.agent, trigger: None, input: Some(input) };
        let done = self.commands.request_execution(new, &self.ask()).await.expect("requested");
        done.stream_id().expect("an id")
    }

    /// The process managers of a server that starts now.
    async fn start(
        &self,
        commands: Commands,
        knowledge: Arc<Passages>,
        pending: &[Uuid],
    ) -> Policies {
        let workers = Workers { all: 16, per_product: 8 };
        self.start_with(workers, commands, knowledge, pending).await
    }

    async fn start_with(
        &self,
        workers: Workers,
        commands: Commands,
        knowledge: Arc<Passages>,
        pending: &[Uuid],
    ) -> Policies {
        let position = self.log.head().await.expect("a head");
        let pending = Pending { position, executions: pending.to_vec(), ..Pending::default() };
        self.start_on(workers, commands, knowledge, pending)
    }

    fn start_on(
        &self,
        workers: Workers,
        commands: Commands,
        knowledge: Arc<Passages>,
        pending: Pending,
    ) -> Policies {
        let (_, embedder) = watch::channel(None);
        let http_allow = vec!["127.0.0.0/8".parse().expect("a network")];
        let settings = ToolSettings { http_allow, ..ToolSettings::default() };
        let tools = Arc::new(Tools::new(settings, embedder.clone()).expect("tools"));
        // No file is read here.
        let extractor = embeddings::Extractor::new("/nowhere", Default::default());
        let untouched = Arc::new(Untouched);
        let reading = Reading { embedder, models: watch::channel(Vec::new()).1, extractor };
        Policies::start(commands, reading, knowledge, tools, untouched, pending, workers)
    }

    async fn events(&self, id: Uuid) -> Vec<ExecutionEvent> {
        let events = self.commands.whole_stream(&StreamId::new("execution", id)).await;
        let decoded = |event: &Arc<RecordedEvent>| decode_event(event).expect("decoded");
        events.expect("read").iter().map(decoded).collect()
    }

    /// Waits until an execution has ended, and answers its events.
    async fn ended(&self, id: Uuid) -> Vec<ExecutionEvent> {
        let mut head = self.log.watch();
        let ended = async {
            loop {
                head.mark_unchanged();
                let events = self.events(id).await;
                use ExecutionEvent as Did;
                if let Some(
                    Did::Succeeded { .. }
                    | Did::Failed { .. }
                    | Did::Cancelled { .. }
                    | Did::TimedOut { .. },
                ) = events.last()
                {
                    return events;
                }
                head.changed().await.expect("the log lives");
            }
        };
        tokio::time::timeout(Duration::from_secs(20), ended).await.expect("it ends")
    }

    /// Lets the server die at that write of the log, stored or not, and another one go on. Answers what is on
    /// record at the end, and whether the first one lived to see it.
    async fn over_a_crash(
        &self,
        id: Uuid,
        knowledge: &Arc<Passages>,
        lives: usize,
        stores_the_last: bool,
    ) -> (Vec<ExecutionEvent>, bool) {
        let mortal = Altered::mortal(&self.log, lives, stores_the_last);
        let commands = open_commands(self.folder.path(), mortal.clone()).await;
        let first_life = self.start(commands, knowledge.clone(), &[id]).await;
        let mut survived = false;
        while mortal.lives() && !survived {
            let events = self.events(id).await;
            survived = matches!(events.last(), Some(ExecutionEvent::Succeeded { .. }));
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        first_life.stop().await;

        let commands = open_commands(self.folder.path(), self.log.clone()).await;
        let second_life = self.start(commands, knowledge.clone(), &[id]).await;
        let events = self.ended(id).await;
        second_life.stop().await;
        (events, survived)
    }

    async fn text(&self, id: Uuid, event_type: &str, field: &str, payload: &Payload) -> String {
        let stream = StreamId::new("execution", id);
        let opened = self
            .commands
            .open_payload(Uuid::nil(), self.product, &stream, event_type, field, payload)
            .await;
        String::from_utf8(opened.expect("opened").expect("a key").to_vec()).expect("text")
    }

    async fn uploads(&self) -> usize {
        let events = self.log.read_after(Position::START, 10_000).await.expect("read");
        events.iter().filter(|event| event.event_type == "file.uploaded.v1").count()
    }
}

fn successes(events: &[ExecutionEvent]) -> Vec<&str> {
    let success = |event: &'_ ExecutionEvent| matches!(event, ExecutionEvent::StepSucceeded { .. });
    let succeeded = events.iter().filter(|event| success(event));
    succeeded
        .map(|event| match event {
            ExecutionEvent::StepSucceeded { step_id, .. } => step_id.as_str(),
            _ => unreachable!("filtered"),
        })
        .collect()
}

#[tokio::test]
async fn an_execution_runs_its_steps_and_ends_with_its_output() {
    let world = World::new().await;
    let policies = world.start(world.commands.clone(), world.passages(), &[]).await;
    let id = world.request(5).await;
    let events = world.ended(id).await;
    assert_eq!(successes(&events), ["one", "two", "three"]);
    let Some(ExecutionEvent::Succeeded { output, .. }) = events.last() else {
        panic!("it ended otherwise: {events:?}")
    };
    assert_eq!(world.text(id, SUCCEEDED, OUTPUT, output).await, "\"about 2\"");
    policies.stop().await;
}

#[tokio::test]
async fn a_crash_at_any_event_ends_in_one_success_of_each_step() {
    for stores_the_last in [false, true] {
        for lives in 1.. {
            let world = World::new().await;
            let id = world.request(5).await;
            let (events, survived) =
                world.over_a_crash(id, &world.passages(), lives, stores_the_last).await;
            let context = format!("{lives} appends, the last one stored: {stores_the_last}");
            assert_eq!(successes(&events), ["one", "two", "three"], "{context}");
            assert!(matches!(events.last(), Some(ExecutionEvent::Succeeded { .. })), "{context}");
            assert_eq!(world.uploads().await, 1, "{context}");
            if survived {
                assert!(lives > 4, "it was killed at each of its events before");
                break;
            }
        }
    }
}

#[tokio::test]
async fn a_failing_step_fails_the_execution_with_its_code_and_message() {
    let world = World::new().await;
    let policies = world.start(world.commands.clone(), world.passages(), &[]).await;
    let id = world.request(0).await;
    let events = world.ended(id).await;
    policies.stop().await;
    let Some(ExecutionEvent::Failed { step_id, code, error, .. }) = events.last() else {
        panic!("it ended otherwise: {events:?}")
    };
    assert_eq!((step_id.as_deref(), code.as_str()), (Some("one"), "cel_failed"));
    let message = world.text(id, FAILED, ERROR, error).await;
    assert!(message.starts_with("with/value: "), "{message}");
    assert!(matches!(
        &events[events.len() - 2],
        ExecutionEvent::StepFailed { step_id, attempt: 1, code, .. }
            if step_id == "one" && code == "cel_failed"
    ));
}

#[tokio::test]
async fn a_run_cut_off_behind_a_failed_step_keeps_what_it_put_out() {
    let manifest = json!({
        "manifest": "prodgy.agent/1", "name": "test.failing", "version": "1.0.0", "title": "Failing",
        "steps": [
            { "id": "one", "type": "transform", "with": { "value": { "cel": "10 / 0" } }, "on_error": "continue" },
            { "id": "two", "type": "kb.search", "needs": ["one"], "with": { "query": "x" } },
            { "id": "three", "type": "transform", "needs": ["one"], "with": { "value": { "cel": "1 / 0" } } },
        ]
    });
    let world = World::with(manifest).await;
    let id = world.request_on(json!({})).await;
    // The claim; the failure that is no end, and the start of the search; then its end and that of all.
    let log = world.log.clone();
    let mortal = Altered::mortal(&log, 2, false);
    let commands = open_commands(world.folder.path(), mortal).await;
    let first_life = world.start(commands, world.passages(), &[id]).await;
    let mut head = world.log.watch();
    while !matches!(world.events(id).await.last(), Some(ExecutionEvent::StepStarted { .. })) {
        let _ = tokio::time::timeout(Duration::from_millis(20), head.changed()).await;
    }
    first_life.stop().await;

    let commands = open_commands(world.folder.path(), world.log.clone()).await;
    let second_life = world.start(commands, world.passages(), &[id]).await;
    let events = world.ended(id).await;
    second_life.stop().await;
    let Some(ExecutionEvent::Failed { code, error, .. }) = events.last() else {
        panic!("it ended otherwise: {events:?}")
    };
    assert_eq!(code, "cel_failed");
    assert!(world.text(id, FAILED, ERROR, error).await.starts_with("with/value: "));
}

#[tokio::test]
async fn a_crash_in_a_tool_fails_the_execution_and_nothing_else() {
    let world = World::new().await;
    let knowledge = world.passages();
    knowledge.crashes.store(true, Ordering::SeqCst);
    let policies = world.start(world.commands.clone(), knowledge.clone(), &[]).await;
    let crashed = world.request(5).await;
    let events = world.ended(crashed).await;
    assert!(
        matches!(events.last(), Some(ExecutionEvent::Failed { code, .. }) if code == "step_crashed"),
        "{events:?}"
    );
    knowledge.crashes.store(false, Ordering::SeqCst);
    let next = world.request(5).await;
    assert!(matches!(world.ended(next).await.last(), Some(ExecutionEvent::Succeeded { .. })));
    policies.stop().await;
}

#[tokio::test]
async fn a_step_waits_for_what_passes_within_one_attempt() {
    let world = World::new().await;
    let knowledge = world.passages();
    knowledge.not_ready.store(2, Ordering::SeqCst);
    let policies = world.start(world.commands.clone(), knowledge.clone(), &[]).await;
    let id = world.request(5).await;
    let events = world.ended(id).await;
    policies.stop().await;
    assert_eq!(successes(&events), ["one", "two", "three"]);
    assert_eq!(knowledge.searches.load(Ordering::SeqCst), 3);
    let attempts = events.iter().filter(
        |event| matches!(event, ExecutionEvent::StepStarted { step_id, .. } if step_id == "two"),
    );
    assert_eq!(attempts.count(), 1);
}

#[tokio::test]
async fn a_step_that_is_always_cut_off_is_given_up() {
    let world = World::new().await;
    let id = world.request(5).await;
    let worker = Uuid::now_v7();
    for _ in 0..MOST_ATTEMPTS {
        // What a server leaves behind that dies in the step.
        let now = Utc::now();
        let claim = LeaseClaim {
            worker,
            now: Timestamp::from(now),
            lease_until: Timestamp::from(now + LEASE),
            exclusive: true,
            gone: Arc::default(),
            outlasted: Arc::default(),
        };
        let start = ExecutionCommand::Start(claim);
        let done = world.commands.execute::<Execution>(id, start, &world.ask()).await;
        let done = done.expect("claimed");
        let ExecutionEvent::Started { fence, .. } = decode_event(&done.events[0]).expect("decoded")
        else {
            panic!("not a claim")
        };
        let start = ExecutionCommand::StartStep { fence, step_id: "one".into(), input: None };
        world.commands.execute::<Execution>(id, start, &world.ask()).await.expect("begun");
    }
    let policies = world.start(world.commands.clone(), world.passages(), &[id]).await;
    let events = world.ended(id).await;
    policies.stop().await;
    assert!(matches!(
        events.last(),
        Some(ExecutionEvent::Failed { step_id: Some(step), code, .. })
            if step == "one" && code == "cut_off_too_often"
    ));
}

#[tokio::test]
async fn what_nobody_wants_any_more_is_cancelled_rather_than_run() {
    let world = World::new().await;
    let id = world.request(5).await;
    world.commands.uninstall_agent(world.agent, &world.ask()).await.expect("uninstalled");
    let policies = world.start(world.commands.clone(), world.passages(), &[id]).await;
    let events = world.ended(id).await;
    policies.stop().await;
    assert_eq!(events.len(), 2, "{events:?}");
    let reason = CancelReason::AgentUninstalled;
    assert_eq!(events.last(), Some(&ExecutionEvent::Cancelled { reason }));

    let world = World::new().await;
    let id = world.request(5).await;
    world.commands.delete_product(world.product, &world.ask()).await.expect("deleted");
    let policies = world.start(world.commands.clone(), world.passages(), &[id]).await;
    let events = world.ended(id).await;
    policies.stop().await;
    let reason = CancelReason::ProductDeleted;
    assert_eq!(events.last(), Some(&ExecutionEvent::Cancelled { reason }));
}

#[tokio::test]
async fn a_stopping_server_hands_back_what_it_has_not_finished() {
    let world = World::new().await;
    let knowledge = world.passages();
    // Longer than a step waits: it is waiting when the server stops.
    knowledge.not_ready.store(usize::MAX, Ordering::SeqCst);
    let policies = world.start(world.commands.clone(), knowledge.clone(), &[]).await;
    let id = world.request(5).await;
    while knowledge.searches.load(Ordering::SeqCst) == 0 {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    let begun = std::time::Instant::now();
    policies.stop().await;
    assert!(begun.elapsed() < Duration::from_secs(5), "it does not wait for what may never come");

    let policies = world.start(world.commands.clone(), world.passages(), &[id]).await;
    let events = world.ended(id).await;
    policies.stop().await;
    assert_eq!(successes(&events), ["one", "two", "three"]);
    let attempts: Vec<u32> = events
        .iter()
        .filter_map(|event| match event {
            ExecutionEvent::StepStarted { step_id, attempt, .. } if step_id == "two" => {
                Some(*attempt)
            }
            _ => None,
        })
        .collect();
    assert_eq!(attempts, [1, 2]);
}

#[tokio::test]
async fn only_a_trigger_of_an_agent_that_is_switched_on_starts_it() {
    let world = World::new().await;
    let trigger = Some(trigger_id(world.active().await, "manual"));
    let request = |trigger| {
        let new = NewExecution { agent: world.agent, trigger, input: Some(json!({ "n": 1 })) };
        let (commands, ask) = (world.commands.clone(), world.ask());
        async move { commands.request_execution(new, &ask).await.map_err(code) }
    };
    fn code(error: Error) -> &'static str {
        match error {
            Error::Refused { code, .. } => code,
            other => panic!("{other}"),
        }
    }
    assert!(request(trigger).await.is_ok());
    assert_eq!(request(Some(Uuid::from_u128(1))).await.err(), Some("trigger_not_found"));
    let off = AgentChange { enabled: Some(false), ..AgentChange::default() };
    world.commands.change_agent(world.agent, off, &world.ask()).await.expect("switched off");
    assert_eq!(request(trigger).await.err(), Some("agent_disabled"));
    world.commands.uninstall_agent(world.agent, &world.ask()).await.expect("uninstalled");
    assert_eq!(request(trigger).await.err(), Some("trigger_not_found"));
}

#[tokio::test]
async fn a_state_that_is_remembered_late_does_not_hide_a_newer_one() {
    let world = World::new().await;
    let id = world.request(5).await;
    let stream = StreamId::new("execution", id);
    let (queued, sequence) = world.commands.load::<Execution>(&stream).await.expect("loaded");
    let stop = ExecutionCommand::Cancel { reason: CancelReason::Stopped };
    world.commands.execute::<Execution>(id, stop, &world.ask()).await.expect("stopped");
    // Whoever asked for the execution comes back from its append only now.
    world.commands.remember(&stream, queued, sequence);
    let (state, sequence) = world.commands.load::<Execution>(&stream).await.expect("loaded");
    assert!(matches!(state, Execution::Ended { .. }), "{state:?}");
    assert_eq!(sequence, 2);
}
