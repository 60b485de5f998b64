//! Event triggers on a log that the tests write, cut off at every append, and on two nodes at once.

use std::collections::BTreeMap;

use domain::Name;
use domain::execution::{CancelReason, Execution, ExecutionCommand};
use domain::manifest::Manifest;
use domain::reaction::ReactionEvent;
use domain::trigger::TriggerKind;
use eventlog::EventStore;
use tempfile::TempDir;

use super::*;
use crate::policies::altered::Altered;
use crate::testing::{open_commands, open_log};
use crate::{NewAgent, NewTrigger, TriggerReplacement};

const STOPPED: &str = "event.type == 'execution.cancelled.v1'";

/// A product with an agent that is run and stopped, and one that reacts.
struct World {
    folder: TempDir,
    log: Arc<dyn EventStore>,
    commands: Commands,
    product: Uuid,
    agent: Uuid,
}

fn ask() -> Ask {
    Ask::once("test", Uuid::nil(), None)
}

impl World {
    async fn new() -> World {
        let folder = tempfile::tempdir().expect("a folder");
        let log = open_log(folder.path());
        let commands = open_commands(folder.path(), log.clone()).await;
        let name = Name::parse("Product").expect("a name");
        let done = commands.create_product(name, None, &ask()).await.expect("a product");
        let product = done.stream_id().expect("an id");
        let manifest = json!({
            "manifest": "prodgy.agent/1", "name": "test.react", "version": "1.0.0", "title": "React",
            "config": { "type": "object", "properties": { "n": { "type": "integer", "default": 7 } } },
            "inputs": { "type": "object", "properties": {
                "n": { "type": "integer" }, "event": { "type": "object" } } },
            "steps": [{ "id": "one", "type": "transform", "with": { "value": 1 } }],
        });
        let manifest = Manifest::accept(&manifest).expect("a manifest");
        let new = NewAgent { manifest, title: None, config: None, bindings: BTreeMap::new() };
        let done = commands.install_agent(new, &ask().in_product(product)).await.expect("an agent");
        let agent = done.stream_id().expect("an id");
        World { folder, log, commands, product, agent }
    }

    fn ask(&self) -> Ask {
        ask().in_product(self.product)
    }

    /// Makes an event trigger.
    async fn listen(&self, configuration: Value) -> Uuid {
        let new = NewTrigger {
            agent: self.agent,
            kind: TriggerKind::Event,
            enabled: true,
            configuration: configuration.as_object().cloned().expect("an object"),
            secret: None,
            siblings: 1,
        };
        let done = self.commands.create_trigger(new, &self.ask()).await.expect("a trigger");
        done.stream_id().expect("an id")
    }

    async fn switch(&self, trigger: Uuid, enabled: bool, configuration: Value) {
        let new = TriggerReplacement {
            kind: TriggerKind::Event,
            enabled: Some(enabled),
            configuration: configuration.as_object().cloned().expect("an object"),
            secret: None,
        };
        self.commands.replace_trigger(trigger, new, &self.ask()).await.expect("replaced");
    }

    /// Something happens: an execution is asked for by hand, and stopped. Answers its id.
    async fn happen(&self) -> Uuid {
        let new = NewExecution { agent: self.agent, trigger: None, input: None };
        let done = self.commands.request_execution(new, &self.ask()).await.expect("asked for");
        let execution = done.stream_id().expect("an id");
        self.cancel(execution).await;
        execution
    }

    /// An execution ends by itself.
    async fn cancel(&self, execution: Uuid) {
        let stream = StreamId::new("execution", execution);
        let first = self.log.read_stream(&stream, 0, 1).await.expect("read");
        let ask = Ask::because_of(&first[0], "test", &[b"end"]);
        let cancel = ExecutionCommand::Cancel { reason: CancelReason::Stopped };
        self.commands.execute::<Execution>(execution, cancel, &ask).await.expect("ended");
    }

    async fn start_with(&self, commands: Commands) -> Arc<Reactions> {
        let events = self.events().await;
        let triggers = events.iter().filter(|event| event.event_type == "trigger.created.v1");
        let triggers = triggers.filter_map(|event| event.stream.uuid()).collect();
        Reactions::start(commands, triggers)
    }

    async fn start(&self) -> Arc<Reactions> {
        self.start_with(self.commands.clone()).await
    }

    async fn events(&self) -> Vec<Arc<RecordedEvent>> {
        self.log.read_after(Position::START, 100_000).await.expect("read")
    }

    /// Waits until everything was listened to, and asked for. What the log's follower tells is told.
    async fn settled(&self, reactions: &Arc<Reactions>) {
        self.events().await.iter().for_each(|event| reactions.tell(event));
        let settled = async {
            loop {
                let head = self.log.head().await.expect("a head").0;
                let reached = reactions.reached.load(Ordering::Relaxed);
                if reached >= head && reactions.open.lock().is_empty() {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(30), settled).await.expect("it settles");
    }

    /// The executions that events started, with what each reacted to and how deep it is.
    async fn reacted(&self) -> Vec<(Uuid, String, u32)> {
        let mut reacted = Vec::new();
        for event in self.events().await {
            if event.event_type != "execution.reacted.v1" {
                continue;
            }
            let happened = decode_event(&event).expect("decoded");
            let ExecutionEvent::Reacted { subject, depth, .. } = happened else { unreachable!() };
            reacted.push((event.stream.uuid().expect("an id"), subject, depth));
        }
        let ids: BTreeSet<Uuid> = reacted.iter().map(|(id, ..)| *id).collect();
        assert_eq!(ids.len(), reacted.len(), "an execution was asked for twice");
        reacted
    }

    async fn subjects(&self) -> Vec<String> {
        let mut subjects: Vec<_> = self.reacted().await.into_iter().map(|(_, it, _)| it).collect();
        subjects.sort_unstable();
        subjects
    }

    async fn told(&self, trigger: Uuid) -> Vec<ReactionEvent> {
        let events = self.commands.whole_stream(&StreamId::new(NAME, trigger)).await.expect("read");
        events.iter().map(|event| decode_event(event).expect("decoded")).collect()
    }

    async fn input(&self, execution: Uuid) -> Value {
        let stream = StreamId::new("execution", execution);
        let first = self.log.read_stream(&stream, 0, 1).await.expect("read");
        let ExecutionEvent::Requested { input, .. } = decode_event(&first[0]).expect("decoded")
        else {
            panic!("not asked for")
        };
        let (of, field) = ("execution.requested.v1", "input");
        let opened =
            self.commands.open_payload(Uuid::nil(), self.product, &stream, of, field, &input).await;
        serde_json::from_slice(&opened.expect("opened").expect("a key")).expect("JSON")
    }
}

fn subjects(executions: &[Uuid]) -> Vec<String> {
    let mut subjects: Vec<_> = executions.iter().map(|id| format!("execution-{id}")).collect();
    subjects.sort_unstable();
    subjects
}

#[tokio::test]
async fn an_event_starts_an_agent_with_what_the_trigger_says() {
    let world = World::new().await;
    let input = json!({ "n": { "cel": "config.n + size(event.data)" } });
    let told = world.listen(json!({ "match": STOPPED, "input": input })).await;
    let reactions = world.start().await;
    let first = world.happen().await;
    world.settled(&reactions).await;
    assert_eq!(world.subjects().await, subjects(&[first]));
    let (execution, _, depth) = world.reacted().await.remove(0);
    assert_eq!((world.input(execution).await, depth), (json!({ "n": 8 }), 1));
    let stream = StreamId::new("execution", execution);
    let request = &world.log.read_stream(&stream, 0, 1).await.expect("read")[0];
    assert_eq!(request.actor, "system:reaction");
    assert_eq!(request.correlation, execution);
    let all = world.events().await;
    let cause = all.iter().find(|event| Some(event.id) == request.causation).expect("a cause");
    assert_eq!(cause.event_type, "execution.cancelled.v1");

    // Without an input it gets the event, without what is sealed in it.
    world.switch(told, false, json!({ "match": STOPPED })).await;
    let asked = "event.type == 'execution.requested.v1' && event.agent_id == trigger.agent_id";
    world.listen(json!({ "match": asked, "max_depth": 1 })).await;
    let second = world.happen().await;
    world.settled(&reactions).await;
    let reacted = world.reacted().await;
    assert_eq!(reacted.len(), 2, "{reacted:?}");
    let given = world.input(reacted[1].0).await;
    assert_eq!(given["event"]["subject"], format!("execution-{second}"));
    assert_eq!(given["event"]["data"].get("input"), None, "{given}");
    assert_eq!(given["event"]["data"]["agent"], json!(world.agent));
    reactions.stop().await;
}

#[tokio::test]
async fn a_trigger_reacts_to_what_happens_while_it_listens_server_or_no_server() {
    let world = World::new().await;
    world.happen().await;
    let filter = json!({ "match": STOPPED, "max_depth": 1 });
    let trigger = world.listen(filter.clone()).await;
    let while_nobody_ran = world.happen().await;
    let reactions = world.start().await;
    world.settled(&reactions).await;
    assert_eq!(world.subjects().await, subjects(&[while_nobody_ran]));

    world.switch(trigger, false, filter.clone()).await;
    world.happen().await;
    world.switch(trigger, true, filter).await;
    world.settled(&reactions).await;
    let later = world.happen().await;
    world.settled(&reactions).await;
    assert_eq!(world.subjects().await, subjects(&[while_nobody_ran, later]));
    reactions.stop().await;

    let uninstalled = world.commands.uninstall_agent(world.agent, &world.ask()).await;
    uninstalled.expect("uninstalled");
    let reactions = world.start().await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    reactions.stop().await;
    assert_eq!(world.reacted().await.len(), 2);
}

#[tokio::test]
async fn a_crash_at_any_append_starts_one_execution_for_each_event() {
    for stores_the_last in [false, true] {
        for lives in 1.. {
            let world = World::new().await;
            world.listen(json!({ "match": STOPPED, "max_depth": 1 })).await;
            let mut happened = Vec::new();
            for _ in 0..4 {
                happened.push(world.happen().await);
            }
            let mortal = Altered::mortal(&world.log, lives, stores_the_last);
            let commands = open_commands(world.folder.path(), mortal.clone()).await;
            let first_life = world.start_with(commands).await;
            while mortal.lives() && world.reacted().await.len() < 4 {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            let survived = mortal.lives();
            first_life.stop().await;

            let commands = open_commands(world.folder.path(), world.log.clone()).await;
            let second_life = world.start_with(commands).await;
            world.settled(&second_life).await;
            second_life.stop().await;
            let context = format!("{lives} appends, the last one stored: {stores_the_last}");
            assert_eq!(world.subjects().await, subjects(&happened), "{context}");
            if survived {
                assert!(lives > 4, "it was killed at each of its events before");
                break;
            }
        }
    }
}

#[tokio::test]
async fn two_nodes_on_one_log_start_one_execution_for_each_event() {
    let world = World::new().await;
    world.listen(json!({ "match": STOPPED, "max_depth": 1 })).await;
    let other = open_commands(world.folder.path(), world.log.clone()).await;
    let nodes = [world.start().await, world.start_with(other).await];
    let mut happened = Vec::new();
    for _ in 0..20 {
        happened.push(world.happen().await);
    }
    for node in &nodes {
        world.settled(node).await;
    }
    for node in nodes {
        node.stop().await;
    }
    assert_eq!(world.subjects().await, subjects(&happened));
}

#[tokio::test]
async fn what_starts_itself_ends_at_its_depth_and_says_so() {
    let world = World::new().await;
    let trigger = world.listen(json!({ "match": STOPPED, "max_depth": 3 })).await;
    let reactions = world.start().await;
    world.happen().await;
    for depth in 1..=3 {
        world.settled(&reactions).await;
        let reacted = world.reacted().await;
        assert_eq!(reacted.last().map(|it| it.2), Some(depth));
        assert_eq!(reacted.len(), depth as usize);
        world.cancel(reacted[depth as usize - 1].0).await;
    }
    world.settled(&reactions).await;
    assert_eq!(world.reacted().await.len(), 3);
    let told = world.told(trigger).await;
    let [ReactionEvent::TooDeep { depth: 3, event_type, .. }] = told.as_slice() else {
        panic!("{told:?}")
    };
    assert_eq!(event_type, "execution.cancelled.v1");
    reactions.stop().await;
}

#[tokio::test]
async fn what_matches_everything_ends_and_is_not_fed_by_what_it_says() {
    let world = World::new().await;
    let trigger = world.listen(json!({ "match": "true", "max_depth": 2 })).await;
    let reactions = world.start().await;
    world.happen().await;
    world.settled(&reactions).await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    world.settled(&reactions).await;
    reactions.stop().await;
    let reacted = world.reacted().await;
    let deep = |depth: u32| reacted.iter().filter(|it| it.2 == depth).count();
    // Asked for and cancelled; each of those asked for and reacted; nothing because of these.
    assert_eq!((deep(1), deep(2), deep(3)), (2, 4, 0));
    assert_eq!(world.told(trigger).await.len(), 4, "once for each execution at the end");
}

#[tokio::test]
async fn a_filter_that_fails_is_no_match_and_one_that_cannot_be_trusted_is_told_once() {
    let world = World::new().await;
    let missing = world.listen(json!({ "match": "event.data.nothing == 1" })).await;
    let list = "[1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20]";
    let costly =
        format!("{list}.all(a, {list}.all(b, {list}.all(c, {list}.all(d, {list}.all(e, true)))))");
    let costly = world.listen(json!({ "match": costly })).await;
    let text = world.listen(json!({ "match": "event.type" })).await;
    let lost = json!({ "n": { "template": "many" } });
    let lost = world.listen(json!({ "match": STOPPED, "input": lost })).await;
    let reactions = world.start().await;
    world.happen().await;
    world.happen().await;
    world.settled(&reactions).await;
    reactions.stop().await;
    assert!(world.reacted().await.is_empty());
    let mut codes = Vec::new();
    for trigger in [missing, costly, text, lost] {
        let told = world.told(trigger).await;
        let code = |it: ReactionEvent| match it {
            ReactionEvent::Failed { code, .. } => code,
            other => panic!("{other:?}"),
        };
        codes.push(told.into_iter().map(code).collect::<Vec<_>>());
    }
    let expected: [&[&str]; 4] =
        [&[], &["match_too_costly"], &["match_not_boolean"], &["input_invalid", "input_invalid"]];
    assert_eq!(codes, expected);
}

#[tokio::test]
async fn where_it_stands_is_written_rarely_and_only_while_somebody_listens() {
    let world = World::new().await;
    let written = async || {
        let events = world.events().await;
        events.iter().filter(|event| event.stream.is_of("listening")).count()
    };
    let reactions = world.start().await;
    for _ in 0..60 {
        world.happen().await;
    }
    reactions.stop().await;
    assert_eq!(written().await, 0, "nobody listens");

    world.listen(json!({ "match": STOPPED, "max_depth": 1 })).await;
    let reactions = world.start().await;
    for _ in 0..60 {
        world.happen().await;
    }
    world.settled(&reactions).await;
    assert_eq!(written().await, 0, "too little has happened");
    reactions.stop().await;
    assert_eq!(written().await, 1, "the server stopped");
    assert_eq!(world.reacted().await.len(), 60);

    // The next start goes on from there, and reads no further back.
    let place = world.commands.load::<Listening>(&StreamId::new("listening", LISTENING_ID)).await;
    let place = place.expect("loaded").0.position;
    assert!(place + 2 >= world.log.head().await.expect("a head").0);
    let reactions = world.start().await;
    let last = world.happen().await;
    world.settled(&reactions).await;
    reactions.stop().await;
    assert!(world.subjects().await.contains(&format!("execution-{last}")));
    assert_eq!((world.reacted().await.len(), written().await), (61, 1));
}
