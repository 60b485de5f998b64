//! Schedules by a clock that the tests set, cut off at every append, and on two nodes at once.

use std::collections::BTreeMap;

use async_trait::async_trait;
use domain::agent::{Agent, trigger_id};
use domain::execution::ExecutionEvent;
use domain::manifest::Manifest;
use domain::schedule::firings::FiringEvent;
use domain::trigger::TriggerKind;
use domain::{Name, Payload};
use eventlog::{EventStore, RecordedEvent};
use tempfile::TempDir;

use super::*;
use crate::policies::Inside;
use crate::policies::altered::Altered;
use crate::testing::{open_commands, open_log};
use crate::{AgentChange, NewAgent, NewVersion, TriggerReplacement};

/// A read side that reads the log.
struct Reader(Arc<dyn EventStore>);

#[async_trait]
impl Contents for Reader {
    async fn know(&self, _: Position) -> Result<(), NotNow> {
        Ok(())
    }

    async fn forget(&self, _: Position) -> Result<(), NotNow> {
        Ok(())
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

    async fn executions_of(&self, trigger: Uuid, _: Position) -> Result<Vec<Uuid>, NotNow> {
        let events = self.0.read_after(Position::START, 10_000).await.expect("read");
        Ok(requested(&events, trigger).into_keys().collect())
    }
}

/// The executions that a trigger started, with what each works on.
fn requested(events: &[Arc<RecordedEvent>], trigger: Uuid) -> BTreeMap<Uuid, Payload> {
    let mut requested = BTreeMap::new();
    for event in events.iter().filter(|event| event.event_type == "execution.requested.v1") {
        match decode_event(event).expect("decoded") {
            ExecutionEvent::Requested { trigger: Some(by), input, .. } if by == trigger => {
                let again = requested.insert(event.stream.uuid().expect("an id"), input);
                assert!(again.is_none(), "an execution was asked for twice");
            }
            _ => {}
        }
    }
    requested
}

/// A product with one agent that listens to the clock.
struct World {
    folder: TempDir,
    log: Arc<dyn EventStore>,
    commands: Commands,
    product: Uuid,
    agent: Uuid,
    trigger: Uuid,
    clock: Arc<Mutex<DateTime<Utc>>>,
}

/// So many seconds after the first moment of these tests.
fn at(second: i64) -> Timestamp {
    Timestamp::from(time("2030-01-01T00:00:00Z") + TimeDelta::seconds(second))
}

fn time(text: &str) -> DateTime<Utc> {
    text.parse().expect("a time")
}

impl World {
    /// A world at its first moment, in which everything before is settled.
    async fn new(configuration: Value) -> World {
        World::beginning(configuration, *at(0)).await
    }

    async fn beginning(configuration: Value, first: DateTime<Utc>) -> World {
        let folder = tempfile::tempdir().expect("a folder");
        let log = open_log(folder.path());
        let commands = open_commands(folder.path(), log.clone()).await;
        let ask = || Ask::once("test", Uuid::nil(), None);
        let name = Name::parse("Product").expect("a name");
        let done = commands.create_product(name, None, &ask()).await.expect("a product");
        let product = done.stream_id().expect("an id");
        let mut trigger = configuration;
        trigger["id"] = json!("clock");
        trigger["type"] = json!("schedule");
        let manifest = json!({
            "manifest": "prodgy.agent/1", "name": "test.clock", "version": "1.0.0", "title": "Clock",
            "config": { "type": "object", "properties": { "n": { "type": "integer", "default": 7 } } },
            "inputs": { "type": "object", "properties": { "n": { "type": "integer" } } },
            "triggers": [trigger],
            "steps": [{ "id": "one", "type": "transform", "with": { "value": 1 } }],
        });
        let manifest = Manifest::accept(&manifest).expect("a manifest");
        let new = NewAgent { manifest, title: None, config: None, bindings: BTreeMap::new() };
        let done = commands.install_agent(new, &ask().in_product(product)).await.expect("an agent");
        let agent = done.stream_id().expect("an id");
        let state = commands.load::<Agent>(&done.stream).await.expect("loaded").0;
        let version = state.installation().expect("installed").version_id;
        let trigger = trigger_id(version, "clock");
        let begin = FiringCommand::PassOver { up_to: first.into() };
        commands.execute::<Firings>(trigger, begin, &ask()).await.expect("settled");
        let clock = Arc::new(Mutex::new(first));
        World { folder, log, commands, product, agent, trigger, clock }
    }

    fn ask(&self) -> Ask {
        Ask::once("test", Uuid::nil(), Some(self.product))
    }

    /// The process manager of a server that starts now.
    fn start_with(&self, commands: Commands) -> Arc<Schedules> {
        let clock = self.clock.clone();
        let contents = Arc::new(Reader(self.log.clone()));
        let schedules = Schedules::start(commands, contents, Arc::new(move || *clock.lock()));
        schedules.add(Some(self.product), self.trigger);
        schedules
    }

    fn start(&self) -> Arc<Schedules> {
        self.start_with(self.commands.clone())
    }

    fn set(&self, time: impl Into<DateTime<Utc>>) {
        *self.clock.lock() = time.into();
    }

    /// Sets the clock, and waits until everything is settled.
    async fn pass(&self, schedules: &Arc<Schedules>, time: impl Into<DateTime<Utc>>) {
        self.set(time);
        self.settled(schedules).await;
    }

    async fn settled(&self, schedules: &Arc<Schedules>) {
        schedules.look_at(self.product, self.trigger);
        let settled = async {
            let mut head = self.log.watch();
            while !self.is_settled(schedules) {
                let _ = tokio::time::timeout(Duration::from_millis(5), head.changed()).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), settled).await.expect("it settles");
    }

    fn is_settled(&self, schedules: &Arc<Schedules>) -> bool {
        let now = schedules.now();
        let plan = schedules.plan.lock();
        plan.get(self.trigger).is_some_and(|known| known.next.is_some_and(|next| next > now))
    }

    async fn events(&self) -> Vec<FiringEvent> {
        let stream = StreamId::new("schedule", self.trigger);
        let events = self.commands.whole_stream(&stream).await.expect("read");
        // The first one is from before the test.
        events.iter().skip(1).map(|event| decode_event(event).expect("decoded")).collect()
    }

    /// The instants that fired, each of which has its execution.
    async fn fired(&self) -> Vec<Timestamp> {
        let requested = self.requested().await;
        let mut fired = Vec::new();
        for event in self.events().await {
            if let FiringEvent::Fired { instant, execution } = event {
                assert!(requested.contains_key(&execution), "{instant} has no execution");
                fired.push(instant);
            }
        }
        assert_eq!(requested.len(), fired.len(), "executions that nothing fired");
        fired
    }

    async fn requested(&self) -> BTreeMap<Uuid, Payload> {
        let events = self.log.read_after(Position::START, 10_000).await.expect("read");
        requested(&events, self.trigger)
    }

    async fn execution(&self, id: Uuid) -> Execution {
        self.commands.load(&StreamId::new("execution", id)).await.expect("loaded").0
    }

    /// Ends an execution, and tells so.
    async fn end(&self, schedules: &Arc<Schedules>, execution: Uuid) {
        let cancel = ExecutionCommand::Cancel { reason: CancelReason::Stopped };
        self.commands.execute::<Execution>(execution, cancel, &self.ask()).await.expect("ended");
        schedules.execution_ended(execution);
    }
}

fn fired_at(events: &[FiringEvent]) -> Vec<(Timestamp, Uuid)> {
    let fired = events.iter().filter_map(|event| match event {
        FiringEvent::Fired { instant, execution } => Some((*instant, *execution)),
        _ => None,
    });
    fired.collect()
}

#[tokio::test]
async fn an_instant_fires_and_its_execution_works_on_what_the_trigger_says() {
    let input = json!({ "n": { "cel": "config.n + 1" } });
    let world = World::new(json!({ "cron": "* * * * *", "input": input })).await;
    let schedules = world.start();
    world.pass(&schedules, at(59)).await;
    assert!(world.fired().await.is_empty());
    world.pass(&schedules, at(60)).await;
    assert_eq!(world.fired().await, [at(60)]);
    schedules.stop().await;

    let (id, payload) = world.requested().await.into_iter().next().expect("one");
    let stream = StreamId::new("execution", id);
    let opened = world
        .commands
        .open_payload(
            Uuid::nil(),
            world.product,
            &stream,
            "execution.requested.v1",
            "input",
            &payload,
        )
        .await;
    assert_eq!(opened.expect("opened").expect("a key").as_slice(), br#"{"n":8}"#);
    let request = world.log.read_stream(&stream, 0, 1).await.expect("read");
    let own = world.log.read_stream(&StreamId::new("schedule", world.trigger), 1, 1).await;
    assert_eq!(request[0].correlation, own.expect("read")[0].correlation);
    assert_eq!(request[0].actor, "system:schedule");
}

#[tokio::test]
async fn a_crash_at_any_append_fires_every_instant_once() {
    let instants: Vec<_> = (1..=4).map(|minute| at(60 * minute)).collect();
    for stores_the_last in [false, true] {
        for lives in 1.. {
            let every_minute = json!({ "cron": "* * * * *", "missed": "all", "overlap": "allow" });
            let world = World::new(every_minute).await;
            world.set(*at(240));
            let mortal = Altered::mortal(&world.log, lives, stores_the_last);
            let commands = open_commands(world.folder.path(), mortal.clone()).await;
            let first_life = world.start_with(commands);
            let dead_or_done = async {
                while mortal.lives() {
                    if world.is_settled(&first_life) {
                        return true;
                    }
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
                false
            };
            let survived = dead_or_done.await;
            first_life.stop().await;

            let commands = open_commands(world.folder.path(), world.log.clone()).await;
            let second_life = world.start_with(commands);
            world.settled(&second_life).await;
            second_life.stop().await;
            let context = format!("{lives} appends, the last one stored: {stores_the_last}");
            assert_eq!(world.fired().await, instants, "{context}");
            if survived {
                assert!(lives > 8, "it was killed at each of its events before");
                break;
            }
        }
    }
}

#[tokio::test]
async fn two_nodes_on_one_log_fire_every_instant_once() {
    for overlap in ["allow", "cancel_running"] {
        let world = World::new(json!({ "cron": "* * * * *", "overlap": overlap })).await;
        let other = open_commands(world.folder.path(), world.log.clone()).await;
        let nodes = [world.start(), world.start_with(other)];
        let mut instants = Vec::new();
        for minute in 1..=10 {
            world.set(*at(60 * minute));
            instants.push(at(60 * minute));
            tokio::join!(world.settled(&nodes[0]), world.settled(&nodes[1]));
        }
        for node in nodes {
            node.stop().await;
        }
        assert_eq!(world.fired().await, instants, "{overlap}");
    }
}

#[tokio::test]
async fn what_was_missed_fires_as_the_trigger_says() {
    let all: Vec<_> = (1..=6).map(|ten| at(600 * ten)).collect();
    let table = [("skip", vec![]), ("last", vec![at(3600)]), ("all", all)];
    for (missed, expected) in table {
        let configuration = json!({ "cron": "*/10 * * * *", "missed": missed, "overlap": "allow" });
        let world = World::new(configuration).await;
        // The server is down for an hour and two minutes, and starts again twice.
        world.set(*at(3720));
        for _ in 0..2 {
            let schedules = world.start();
            world.settled(&schedules).await;
            schedules.stop().await;
            assert_eq!(world.fired().await, expected, "{missed}");
        }
        let passed_over = |event: &FiringEvent| matches!(event, FiringEvent::PassedOver { .. });
        assert_eq!(world.events().await.iter().any(passed_over), missed != "all", "{missed}");
        let schedules = world.start();
        world.pass(&schedules, at(4200)).await;
        schedules.stop().await;
        let expected = [expected, vec![at(4200)]].concat();
        assert_eq!(world.fired().await, expected, "{missed}");
    }
}

#[tokio::test]
async fn a_firing_is_skipped_while_another_runs() {
    let world = World::new(json!({ "cron": "* * * * *", "overlap": "skip" })).await;
    let schedules = world.start();
    world.pass(&schedules, at(60)).await;
    world.pass(&schedules, at(120)).await;
    let skipped = FiringEvent::Skipped { instant: at(120), reason: SkipReason::Overlap };
    assert_eq!(world.events().await.last(), Some(&skipped));
    let (_, execution) = fired_at(&world.events().await)[0];
    world.end(&schedules, execution).await;
    world.pass(&schedules, at(180)).await;
    assert_eq!(world.fired().await, [at(60), at(180)]);
    schedules.stop().await;
}

#[tokio::test]
async fn firings_wait_in_line_for_each_other_also_over_a_restart() {
    let world = World::new(json!({ "cron": "* * * * *", "overlap": "queue" })).await;
    let mut schedules = world.start();
    for minute in 1..=3 {
        world.pass(&schedules, at(60 * minute)).await;
    }
    assert_eq!(world.fired().await, [at(60)]);
    for minute in 2..=3 {
        schedules.stop().await;
        schedules = world.start();
        world.settled(&schedules).await;
        let (_, running) = *fired_at(&world.events().await).last().expect("one");
        world.end(&schedules, running).await;
        let mut head = world.log.watch();
        while world.requested().await.len() < minute {
            let _ = tokio::time::timeout(Duration::from_millis(20), head.changed()).await;
        }
    }
    assert_eq!(world.fired().await, [at(60), at(120), at(180)]);
    schedules.stop().await;
}

#[tokio::test]
async fn a_firing_takes_the_place_of_the_one_that_runs() {
    let world = World::new(json!({ "cron": "* * * * *", "overlap": "cancel_running" })).await;
    let schedules = world.start();
    for minute in 1..=3 {
        world.pass(&schedules, at(60 * minute)).await;
    }
    schedules.stop().await;
    assert_eq!(world.fired().await, [at(60), at(120), at(180)]);
    let executions = fired_at(&world.events().await);
    for (instant, execution) in &executions {
        let is_newest = *instant == at(180);
        let state = world.execution(*execution).await;
        assert_eq!(matches!(state, Execution::Queued { .. }), is_newest, "{instant}");
        if !is_newest {
            let stream = StreamId::new("execution", *execution);
            let events = world.commands.whole_stream(&stream).await.expect("read");
            let last: ExecutionEvent = decode_event(&events[1]).expect("decoded");
            let reason = CancelReason::Superseded;
            assert_eq!(last, ExecutionEvent::Cancelled { reason });
        }
    }
}

#[tokio::test]
async fn a_local_time_that_does_not_exist_or_exists_twice_fires_once() {
    let table = [
        // At two the clocks show three.
        ("2030-03-31", "2030-03-31T01:00:00Z"),
        // At three the clocks show two again.
        ("2030-10-27", "2030-10-27T00:30:00Z"),
    ];
    for (day, expected) in table {
        let first = time(&format!("{day}T00:00:00Z")) - TimeDelta::hours(2);
        let half_past_two =
            json!({ "cron": "30 2 * * *", "tz": "Europe/Madrid", "overlap": "allow" });
        let world = World::beginning(half_past_two, first).await;
        let schedules = world.start();
        for minute in (0..60 * 10).step_by(15) {
            world.pass(&schedules, first + TimeDelta::minutes(minute)).await;
        }
        schedules.stop().await;
        assert_eq!(world.fired().await, [Timestamp::from(time(expected))], "{day}");
    }
}

#[tokio::test]
async fn a_clock_that_jumps_fires_nothing_twice() {
    let world = World::new(json!({ "cron": "* * * * *", "overlap": "allow" })).await;
    let schedules = world.start();
    world.pass(&schedules, at(60)).await;
    // Back by an hour, and on its way again.
    for second in [-3600, -1800, 0, 60, 119] {
        world.pass(&schedules, at(second)).await;
    }
    assert_eq!(world.fired().await, [at(60)]);
    world.pass(&schedules, at(120)).await;
    // An hour ahead: what lies between was missed, and the newest of it fires.
    world.pass(&schedules, at(3720)).await;
    assert_eq!(world.fired().await, [at(60), at(120), at(3720)]);
    schedules.stop().await;
}

#[tokio::test]
async fn the_clock_is_looked_at_without_being_told() {
    let world = World::new(json!({ "cron": "* * * * *" })).await;
    let schedules = world.start();
    world.settled(&schedules).await;
    world.set(*at(60));
    let mut head = world.log.watch();
    let fires = async {
        while world.events().await.is_empty() {
            let _ = tokio::time::timeout(Duration::from_millis(20), head.changed()).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), fires).await.expect("it fires");
    schedules.stop().await;
}

#[tokio::test]
async fn a_firing_starts_after_its_jitter_once_also_over_a_restart() {
    let world = World::new(json!({ "cron": "0 * * * *", "jitter": "30m", "missed": "skip" })).await;
    let schedules = world.start();
    world.pass(&schedules, at(3600)).await;
    let starts_at = {
        let plan = schedules.plan.lock();
        plan.get(world.trigger).expect("watched").next.expect("a time")
    };
    schedules.stop().await;
    assert!(*starts_at > *at(3600) && *starts_at <= *at(5400), "{starts_at}");
    assert_eq!(world.events().await, [FiringEvent::Queued { instant: at(3600) }]);

    let schedules = world.start();
    world.pass(&schedules, *starts_at - TimeDelta::milliseconds(1)).await;
    assert!(world.fired().await.is_empty());
    // It is no missed one, however long its jitter.
    world.pass(&schedules, starts_at).await;
    schedules.stop().await;
    assert_eq!(world.fired().await, [at(3600)]);
}

#[tokio::test]
async fn an_input_that_does_not_fit_fails_where_it_is_seen() {
    let table = [
        (json!({ "n": { "cel": "1 / (config.n - 7)" } }), "came to nothing"),
        (json!({ "n": { "template": "seven" } }), "/n"),
    ];
    for (input, told) in table {
        let world = World::new(json!({ "cron": "* * * * *", "input": input })).await;
        let schedules = world.start();
        world.pass(&schedules, at(60)).await;
        schedules.stop().await;
        let events = world.events().await;
        let [FiringEvent::Fired { .. }, FiringEvent::Failed { instant, code, error }] = &events[..]
        else {
            panic!("it went otherwise: {events:?}")
        };
        assert_eq!((*instant, code.as_str()), (at(60), "input_invalid"));
        let stream = StreamId::new("schedule", world.trigger);
        let opened = world
            .commands
            .open_payload(Uuid::nil(), world.product, &stream, FAILED, ERROR, error)
            .await;
        let message = opened.expect("opened").expect("a key").to_vec();
        let message = String::from_utf8(message).expect("text");
        assert!(message.contains(told), "{message}");
        assert!(world.requested().await.is_empty());
    }
}

/// Waits until a schedule that does not fire has been looked at.
async fn rests(world: &World, schedules: &Arc<Schedules>) {
    schedules.look_at(world.product, world.trigger);
    let rests = async {
        loop {
            let is_firing = |known: &Known| known.facts.as_ref().is_some_and(|it| it.is_listening);
            if !schedules.plan.lock().get(world.trigger).is_some_and(is_firing) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), rests).await.expect("it rests");
}

#[tokio::test]
async fn what_is_disabled_fires_nothing_and_nothing_of_that_time_afterwards() {
    for is_agent in [true, false] {
        let every_minute = || json!({ "cron": "* * * * *", "missed": "all", "overlap": "allow" });
        let world = World::new(every_minute()).await;
        let schedules = world.start();
        world.pass(&schedules, at(60)).await;
        let switch = async |enabled: bool| {
            if is_agent {
                let change = AgentChange { enabled: Some(enabled), ..AgentChange::default() };
                world.commands.change_agent(world.agent, change, &world.ask()).await.expect("done");
                schedules.add_agent(world.agent);
            } else {
                let configuration = every_minute().as_object().cloned().expect("an object");
                let (kind, enabled) = (TriggerKind::Schedule, Some(enabled));
                let new = TriggerReplacement { kind, enabled, configuration, secret: None };
                world
                    .commands
                    .replace_trigger(world.trigger, new, &world.ask())
                    .await
                    .expect("done");
                schedules.add(Some(world.product), world.trigger);
            }
        };
        switch(false).await;
        rests(&world, &schedules).await;
        world.set(*at(600));
        rests(&world, &schedules).await;
        assert_eq!(world.fired().await, [at(60)]);
        // The log has the real time, which is long before the tests': so what was missed is known.
        let missed = FiringCommand::PassOver { up_to: at(600) };
        world.commands.execute::<Firings>(world.trigger, missed, &world.ask()).await.expect("done");
        switch(true).await;
        world.pass(&schedules, at(660)).await;
        assert_eq!(world.fired().await, [at(60), at(660)]);
        schedules.stop().await;
    }
}

#[tokio::test]
async fn what_is_gone_fires_nothing() {
    for gone in ["trigger", "agent", "product"] {
        let world = World::new(json!({ "cron": "* * * * *" })).await;
        let schedules = world.start();
        world.settled(&schedules).await;
        let (commands, ask) = (&world.commands, world.ask());
        let done = match gone {
            "trigger" => commands.remove_trigger(world.trigger, &ask).await,
            "agent" => commands.uninstall_agent(world.agent, &ask).await,
            _ => commands.delete_product(world.product, &ask).await,
        };
        done.expect("gone");
        world.set(*at(60));
        rests(&world, &schedules).await;
        assert!(schedules.plan.lock().get(world.trigger).is_none(), "{gone}");
        schedules.stop().await;
        assert!(world.events().await.is_empty(), "{gone}");
    }
}

#[tokio::test]
async fn only_the_schedules_of_the_active_version_fire_whatever_restarts() {
    let world = World::new(json!({ "cron": "* * * * *", "overlap": "allow" })).await;
    let schedules = world.start();
    world.pass(&schedules, at(60)).await;

    let stream = StreamId::new("agent", world.agent);
    let state = world.commands.load::<Agent>(&stream).await.expect("loaded").0;
    let first = state.installation().expect("installed").version_id;
    let manifest = Manifest::accept(&json!({
        "manifest": "prodgy.agent/1", "name": "test.clock", "version": "2.0.0", "title": "Clock",
        "triggers": [{ "id": "clock", "type": "schedule", "cron": "30 * * * * *", "overlap": "allow" }],
        "steps": [{ "id": "one", "type": "transform", "with": { "value": 2 } }],
    }))
    .expect("a manifest");
    let new = NewVersion { manifest, activate: true, config: None, bindings: BTreeMap::new() };
    let done = world.commands.publish_version(world.agent, new, &world.ask()).await;
    done.expect("published");
    let state = world.commands.load::<Agent>(&stream).await.expect("loaded").0;
    let second = state.installation().expect("installed").version_id;
    let newer = trigger_id(second, "clock");
    let settle = async |trigger: Uuid, up_to: Timestamp| {
        let missed = FiringCommand::PassOver { up_to };
        world.commands.execute::<Firings>(trigger, missed, &world.ask()).await.expect("settled");
    };
    // The log has the real time, which is long before the tests': so what was missed is known.
    settle(newer, at(60)).await;
    schedules.add_agent(world.agent);
    rests(&world, &schedules).await;

    let fired = async |trigger: Uuid| {
        let events = world.commands.whole_stream(&StreamId::new("schedule", trigger)).await;
        let instant = |event: &Arc<RecordedEvent>| match decode_event(event).expect("decoded") {
            FiringEvent::Fired { instant, .. } => Some(instant),
            _ => None,
        };
        events.expect("read").iter().filter_map(instant).collect::<Vec<_>>()
    };
    let wait = async |trigger: Uuid, expected: &[Timestamp]| {
        let done = async {
            while fired(trigger).await != expected {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), done).await.expect("it fires");
    };
    world.set(*at(90));
    schedules.add(Some(world.product), newer);
    wait(newer, &[at(90)]).await;
    schedules.stop().await;

    // Another start knows it, too.
    world.set(*at(130));
    let schedules = world.start();
    rests(&world, &schedules).await;
    assert_eq!(world.fired().await, [at(60)]);

    let back = AgentChange { version_id: Some(first), ..AgentChange::default() };
    settle(world.trigger, at(130)).await;
    world.commands.change_agent(world.agent, back, &world.ask()).await.expect("rolled back");
    schedules.add_agent(world.agent);
    world.pass(&schedules, at(180)).await;
    world.set(*at(215));
    schedules.add(Some(world.product), newer);
    schedules.stop().await;
    assert_eq!(world.fired().await, [at(60), at(180)]);
    assert_eq!(fired(newer).await, [at(90)]);

    let of_version = async |trigger: Uuid| {
        let mut versions = Vec::new();
        for event in world.log.read_after(Position::START, 10_000).await.expect("read") {
            if event.event_type != "execution.requested.v1" {
                continue;
            }
            match decode_event(&event).expect("decoded") {
                ExecutionEvent::Requested { trigger: Some(by), version_id, .. }
                    if by == trigger =>
                {
                    versions.push(version_id);
                }
                _ => {}
            }
        }
        versions
    };
    assert_eq!(of_version(world.trigger).await, [first, first]);
    assert_eq!(of_version(newer).await, [second]);
}

#[tokio::test]
async fn a_start_goes_on_from_what_the_read_models_know() {
    let world = World::new(json!({ "cron": "* * * * *", "overlap": "allow" })).await;
    let schedules = world.start();
    world.pass(&schedules, at(60)).await;
    world.pass(&schedules, at(120)).await;
    schedules.stop().await;

    let stream = StreamId::new("schedule", world.trigger);
    let mut firings = Firings::default();
    // One event behind.
    for event in &world.commands.whole_stream(&stream).await.expect("read")[..2] {
        firings.remember(decode_event(event).expect("decoded"));
    }
    let clock = world.clock.clone();
    let contents = Arc::new(Reader(world.log.clone()));
    let schedules =
        Schedules::start(world.commands.clone(), contents, Arc::new(move || *clock.lock()));
    let (trigger, product) = (world.trigger, world.product);
    schedules.watch(PendingSchedule { trigger, product, firings, sequence: 2 });
    world.pass(&schedules, at(180)).await;
    schedules.stop().await;
    assert_eq!(world.fired().await, [at(60), at(120), at(180)]);
}
