//! Executions that are stored together with their ends.

use super::*;
use crate::Done;

/// Only computes.
fn light() -> Value {
    json!({
        "manifest": "prodgy.agent/1", "name": "test.light", "version": "1.0.0", "title": "Light",
        "inputs": { "type": "object", "properties": { "n": { "type": "integer" } }, "required": ["n"] },
        "steps": [
            { "id": "one", "type": "transform", "with": { "value": { "cel": "10 / input.n" } } },
            { "id": "two", "type": "condition", "needs": ["one"], "when": "input.n > 100",
              "with": { "if": { "cel": "true" } } },
            { "id": "three", "type": "transform", "needs": ["one"],
              "foreach": { "items": "[1, 2]" }, "with": { "value": { "cel": "item * 2" } } }
        ],
        "output": { "value": { "cel": "steps.one.output.value" } }
    })
}

impl World {
    async fn at_once(&self, policies: &Policies, n: i64, ask: &Ask) -> Done {
        let new = NewExecution { agent: self.agent, trigger: None, input: Some(json!({ "n": n })) };
        policies.executor().request_execution_of(new, None, ask).await.expect("asked for")
    }

    async fn stored(&self, done: &Done) -> Vec<Arc<RecordedEvent>> {
        self.commands.whole_stream(&done.stream).await.expect("read")
    }
}

fn types(events: &[Arc<RecordedEvent>]) -> Vec<&str> {
    events.iter().map(|event| event.event_type.as_str()).collect()
}

#[tokio::test]
async fn what_only_computes_is_stored_with_its_end() {
    let world = World::with(light()).await;
    let policies = world.start(world.commands.clone(), world.passages(), &[]).await;
    let ask = Ask { repeatable: true, ..world.ask() };
    let done = world.at_once(&policies, 5, &ask).await;

    // It is all there when the answer comes, under one command, each by whoever did it.
    let events = world.stored(&done).await;
    assert_eq!(
        types(&events),
        [
            "execution.requested.v1",
            "execution.started.v1",
            "execution.step_started.v2",
            "execution.step_succeeded.v1",
            "execution.step_skipped.v1",
            "execution.step_started.v2",
            "execution.step_succeeded.v1",
            "execution.succeeded.v1"
        ]
    );
    assert_eq!(types(&done.events), types(&events));
    assert!(events.iter().all(|event| event.command_id == ask.command_id));
    assert_eq!(events[0].actor, ask.metadata.actor);
    assert!(events[1..].iter().all(|event| event.actor == "system:runner"), "{events:?}");
    assert!(events[1..].iter().all(|event| event.causation == Some(events[0].id)));
    assert!(events.iter().all(|event| event.correlation == events[0].correlation));
    let id = done.stream_id().expect("an id");
    let Some(ExecutionEvent::Succeeded { output, .. }) = world.events(id).await.pop() else {
        panic!("it ended otherwise")
    };
    assert_eq!(world.text(id, SUCCEEDED, OUTPUT, &output).await, r#"{"value":2}"#);

    // Asked for again, it is answered and not run; and nobody takes it up afterwards.
    let again = world.at_once(&policies, 5, &ask).await;
    assert!(again.replayed);
    assert_eq!(types(&again.events), types(&events));
    let other = world.request(5).await;
    world.ended(other).await;
    assert_eq!(world.stored(&done).await.len(), events.len());
    policies.stop().await;
}

#[tokio::test]
async fn a_failure_is_an_end_too() {
    let world = World::with(light()).await;
    let policies = world.start(world.commands.clone(), world.passages(), &[]).await;
    let done = world.at_once(&policies, 0, &world.ask()).await;
    assert_eq!(
        types(&world.stored(&done).await)[2..],
        ["execution.step_started.v2", "execution.step_failed.v2", "execution.failed.v1"]
    );
    policies.stop().await;
}

#[tokio::test]
async fn the_same_wish_twice_at_a_time_is_one_execution() {
    let world = World::with(light()).await;
    let policies = world.start(world.commands.clone(), world.passages(), &[]).await;
    for n in 1..20 {
        let ask = Ask { repeatable: true, ..world.ask() };
        let each = (0..4).map(|_| world.at_once(&policies, n, &ask));
        let all = futures::future::join_all(each).await;
        assert_eq!(all.iter().filter(|done| !done.replayed).count(), 1);
        let events = world.stored(&all[0]).await;
        assert!(all.iter().all(|done| types(&done.events) == types(&events)));
        assert_eq!(types(&events).iter().filter(|it| it.ends_with("requested.v1")).count(), 1);
    }
    policies.stop().await;
}

#[tokio::test]
async fn what_reaches_outside_or_finds_no_worker_is_asked_for_as_usual() {
    // A search is asked for, and runs when a worker takes it.
    let world = World::new().await;
    let policies = world.start(world.commands.clone(), world.passages(), &[]).await;
    let done = world.at_once(&policies, 5, &world.ask()).await;
    assert_eq!(types(&done.events), ["execution.requested.v1"]);
    assert_eq!(successes(&world.ended(done.stream_id().expect("an id")).await).len(), 3);
    policies.stop().await;

    let world = World::with(light()).await;
    let policies = world.start(world.commands.clone(), world.passages(), &[]).await;
    let busy: Vec<_> =
        (0..8).map(|_| policies.runner.queue.free_slot(world.product).expect("a slot")).collect();
    let done = world.at_once(&policies, 5, &world.ask()).await;
    assert_eq!(types(&done.events), ["execution.requested.v1"]);
    drop(busy);
    world.ended(done.stream_id().expect("an id")).await;
    policies.stop().await;
}

#[tokio::test]
async fn what_was_not_stored_has_not_happened() {
    for stores_the_last in [false, true] {
        let world = World::with(light()).await;
        let mortal = Altered::mortal(&world.log, usize::from(stores_the_last), stores_the_last);
        let commands = open_commands(world.folder.path(), mortal).await;
        let policies = world.start(commands, world.passages(), &[]).await;
        let ask = Ask { repeatable: true, ..world.ask() };
        let new =
            NewExecution { agent: world.agent, trigger: None, input: Some(json!({ "n": 5 })) };
        let refused = policies.executor().request_execution_of(new, None, &ask).await;
        assert!(matches!(refused, Err(Error::Log(_))), "{refused:?}");
        policies.stop().await;

        let policies = world.start(world.commands.clone(), world.passages(), &[]).await;
        let done = world.at_once(&policies, 5, &ask).await;
        assert_eq!(types(&world.stored(&done).await).len(), 8);
        policies.stop().await;
    }
}
