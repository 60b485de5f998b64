//! How many run at once: each strategy, several workers, servers that die, and places that nobody gave up.

use std::collections::BTreeSet;

use super::*;
use crate::policies::altered::Altered;
use domain::lane::{Lane, LaneEvent};

/// An agent whose executions wait for a moment, or for an hour.
fn agent(limits: Value) -> Value {
    json!({
        "manifest": "prodgy.agent/1", "name": "test.lanes", "version": "1.0.0", "title": "Lanes",
        "limits": limits,
        "steps": [
            { "id": "hour", "type": "wait", "when": "input.long", "with": { "for": "1h" } },
            { "id": "moment", "type": "wait", "with": { "for": "20ms" } },
            { "id": "last", "type": "transform", "needs": ["hour", "moment"], "with": { "n": 1 } },
        ]
    })
}

fn at_once(concurrency: Value) -> Value {
    agent(json!({ "concurrency": concurrency }))
}

fn reason(events: &[ExecutionEvent]) -> Option<CancelReason> {
    match events.last() {
        Some(ExecutionEvent::Cancelled { reason }) => Some(*reason),
        _ => None,
    }
}

fn succeeded(events: &[ExecutionEvent]) -> bool {
    matches!(events.last(), Some(ExecutionEvent::Succeeded { .. }))
}

impl World {
    async fn long(&self) -> Uuid {
        self.request_on(json!({ "long": true })).await
    }

    async fn short(&self) -> Uuid {
        self.request_on(json!({ "long": false })).await
    }

    async fn cancel(&self, id: Uuid) {
        self.commands.stop_execution(id, &self.ask()).await.expect("stopped");
    }

    /// Waits until the lane is as it should be.
    async fn lane(&self, what: &str, fits: impl Fn(&Lane) -> bool) {
        let stream = StreamId::new("lane", self.agent);
        let mut head = self.log.watch();
        let found = async {
            loop {
                head.mark_unchanged();
                if fits(&self.commands.replay::<Lane>(&stream).await.expect("read").0) {
                    return;
                }
                head.changed().await.expect("the log lives");
            }
        };
        tokio::time::timeout(Duration::from_secs(20), found).await.expect(what);
    }

    async fn inside(&self, id: Uuid) {
        self.lane("it has a place", |lane| lane.has(id)).await;
    }

    async fn waits(&self, id: Uuid) {
        let waits = |lane: &Lane| lane.waiting.iter().any(|guest| guest.execution == id);
        self.lane("it waits", waits).await;
    }

    /// Who came in, in that order, once the log was checked: nobody without a place runs, and no key has
    /// more that came in and did not end than it may. Who had ended on another worker when it came in is
    /// not counted: it is let out again before it starts.
    async fn entries(&self, max: usize) -> Vec<Uuid> {
        let mut entries = Vec::new();
        let mut inside = BTreeSet::new();
        let mut over = BTreeSet::new();
        for event in self.log.read_after(Position::START, 100_000).await.expect("read") {
            let id = event.stream.uuid().unwrap_or_default();
            match event.event_type.as_str() {
                "lane.entered.v1" => {
                    let Ok(LaneEvent::Entered { execution, key, .. }) = decode_event(&event) else {
                        panic!("not an entry")
                    };
                    if over.contains(&execution) {
                        continue;
                    }
                    entries.push(execution);
                    inside.insert((key.clone(), execution));
                    let of_key = inside.iter().filter(|(other, _)| *other == key).count();
                    assert!(of_key <= max, "{of_key} at once at {}", event.position.0);
                }
                "execution.started.v1" => {
                    assert!(inside.iter().any(|(_, other)| *other == id), "{id} has no place");
                }
                "execution.succeeded.v1"
                | "execution.failed.v1"
                | "execution.cancelled.v1"
                | "execution.timed_out.v1" => {
                    inside.retain(|(_, other)| *other != id);
                    over.insert(id);
                }
                _ => {}
            }
        }
        entries
    }
}

#[tokio::test]
async fn the_rest_waits_and_the_oldest_is_next() {
    let world = World::with(at_once(json!({ "max": 1 }))).await;
    let policies = world.start(world.commands.clone(), world.passages(), &[]).await;
    let first = world.long().await;
    world.inside(first).await;
    let mut all = vec![first];
    for _ in 0..4 {
        let next = world.short().await;
        world.waits(next).await;
        assert_eq!(world.events(next).await.len(), 1, "it is asked for, and no more");
        all.push(next);
    }
    world.cancel(first).await;
    for id in &all[1..] {
        assert!(succeeded(&world.ended(*id).await));
    }
    world.lane("all are gone", |lane| lane.is_empty()).await;
    policies.stop().await;
    assert_eq!(world.entries(1).await, all);
}

#[tokio::test]
async fn each_key_has_places_of_its_own_and_is_not_shown() {
    let manifest = at_once(json!({ "max": 1, "key": "input.who" }));
    let world = World::with(manifest).await;
    let policies = world.start(world.commands.clone(), world.passages(), &[]).await;
    let ask =
        async |who: &str, long: bool| world.request_on(json!({ "long": long, "who": who })).await;
    let first = ask("ann@example.org", true).await;
    world.inside(first).await;
    let second = ask("ann@example.org", false).await;
    let other = ask("bob@example.org", false).await;
    assert!(succeeded(&world.ended(other).await));
    world.waits(second).await;
    world.cancel(first).await;
    assert!(succeeded(&world.ended(second).await));
    policies.stop().await;
    assert_eq!(world.entries(1).await.len(), 3);
    for event in world.log.read_after(Position::START, 10_000).await.expect("read") {
        assert!(!event.data.get().contains("example.org"), "{}", event.data.get());
    }
}

#[tokio::test]
async fn one_too_many_is_cancelled_where_the_manifest_says_so() {
    let world = World::with(at_once(json!({ "max": 1, "strategy": "cancel_new" }))).await;
    let policies = world.start(world.commands.clone(), world.passages(), &[]).await;
    let first = world.long().await;
    world.inside(first).await;
    let second = world.short().await;
    assert_eq!(reason(&world.ended(second).await), Some(CancelReason::ConcurrencyLimit));
    world.cancel(first).await;
    world.lane("it is free", |lane| lane.inside.is_empty()).await;
    let third = world.short().await;
    assert!(succeeded(&world.ended(third).await));
    policies.stop().await;
    assert_eq!(world.entries(1).await, [first, third]);
}

#[tokio::test]
async fn the_oldest_is_cancelled_where_the_manifest_says_so() {
    let world = World::with(at_once(json!({ "max": 2, "strategy": "cancel_running" }))).await;
    let policies = world.start(world.commands.clone(), world.passages(), &[]).await;
    let mut all = Vec::new();
    for _ in 0..4 {
        let next = world.long().await;
        world.inside(next).await;
        all.push(next);
    }
    for id in &all[..2] {
        assert_eq!(reason(&world.ended(*id).await), Some(CancelReason::Superseded));
    }
    world.lane("two are left", |lane| lane.inside.len() == 2).await;
    policies.stop().await;
    assert_eq!(world.entries(2).await, all);
    for id in &all[2..] {
        assert_eq!(reason(&world.events(*id).await), None);
    }
}

#[tokio::test]
async fn one_that_is_taken_up_late_does_not_pass_for_a_new_one() {
    let world = World::with(at_once(json!({ "max": 1, "strategy": "cancel_running" }))).await;
    let old = world.long().await;
    // It is not told of the first one yet.
    let policies = world.start(world.commands.clone(), world.passages(), &[]).await;
    let new = world.long().await;
    world.inside(new).await;
    policies.stop().await;
    let policies = world.start(world.commands.clone(), world.passages(), &[old, new]).await;
    assert_eq!(reason(&world.ended(old).await), Some(CancelReason::Superseded));
    policies.stop().await;
    assert_eq!(world.entries(1).await, [new]);
}

#[tokio::test]
async fn two_workers_on_one_store_let_no_more_run_than_one_would() {
    for max in [1, 2] {
        let world = World::with(at_once(json!({ "max": max }))).await;
        let shared: Arc<dyn EventStore> = Altered::shared(&world.log);
        let mut workers = Vec::new();
        for _ in 0..2 {
            let commands = open_commands(world.folder.path(), shared.clone()).await;
            workers.push(world.start(commands, world.passages(), &[]).await);
        }
        let mut all = Vec::new();
        for _ in 0..8 {
            all.push(world.short().await);
        }
        for id in &all {
            let events = world.ended(*id).await;
            assert!(succeeded(&events), "{events:?}");
            assert_eq!(successes(&events).len(), 2, "{events:?}");
        }
        world.lane("all are gone", |lane| lane.is_empty()).await;
        for worker in workers {
            worker.stop().await;
        }
        assert_eq!(world.entries(max).await.len(), all.len(), "each came in once");
    }
}

#[tokio::test]
async fn two_workers_agree_on_who_is_superseded() {
    let world = World::with(at_once(json!({ "max": 1, "strategy": "cancel_running" }))).await;
    let shared: Arc<dyn EventStore> = Altered::shared(&world.log);
    let mut workers = Vec::new();
    for _ in 0..2 {
        let commands = open_commands(world.folder.path(), shared.clone()).await;
        workers.push(world.start(commands, world.passages(), &[]).await);
    }
    let mut all = Vec::new();
    for _ in 0..6 {
        all.push(world.long().await);
    }
    let last = all.pop().expect("the newest");
    for id in &all {
        assert_eq!(reason(&world.ended(*id).await), Some(CancelReason::Superseded));
    }
    world.lane("the newest is left", |lane| lane.inside.len() == 1 && lane.has(last)).await;
    for worker in workers {
        worker.stop().await;
    }
    world.entries(1).await;
}

#[tokio::test]
async fn a_crash_at_any_write_loses_no_place_and_nobody_who_waits() {
    for stores_the_last in [false, true] {
        for lives in 1.. {
            let world = World::with(at_once(json!({ "max": 1 }))).await;
            let all = [world.short().await, world.short().await, world.short().await];
            let mortal = Altered::mortal(&world.log, lives, stores_the_last);
            let commands = open_commands(world.folder.path(), mortal.clone()).await;
            let first_life = world.start(commands, world.passages(), &all).await;
            let stream = StreamId::new("lane", world.agent);
            let mut survived = false;
            while mortal.lives() && !survived {
                let (lane, sequence) = world.commands.replay::<Lane>(&stream).await.expect("read");
                survived = sequence >= 6 && lane.is_empty();
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
            first_life.stop().await;

            let commands = open_commands(world.folder.path(), world.log.clone()).await;
            // As the read models would have it.
            let mut left = Vec::new();
            for id in all {
                if !succeeded(&world.events(id).await) {
                    left.push(id);
                }
            }
            let second_life = world.start(commands, world.passages(), &left).await;
            for id in all {
                let events = world.ended(id).await;
                let context = format!("{lives} writes, the last one stored: {stores_the_last}");
                assert!(succeeded(&events), "{context}: {events:?}");
                assert_eq!(successes(&events), ["moment", "last"], "{context}");
            }
            second_life.stop().await;
            world.entries(1).await;
            if survived {
                assert!(lives > 10, "it was killed at each of its writes before");
                break;
            }
        }
    }
}

#[tokio::test]
async fn places_that_nobody_gave_up_are_given_up_by_whoever_stands_before_them() {
    let strategies = ["queue", "cancel_new", "cancel_running"];
    for strategy in strategies {
        let world = World::with(at_once(json!({ "max": 1, "strategy": strategy }))).await;
        let policies = world.start(world.commands.clone(), world.passages(), &[]).await;
        let inside = world.long().await;
        world.inside(inside).await;
        let mut gone = vec![inside];
        if strategy == "queue" {
            gone.push(world.long().await);
            world.waits(gone[1]).await;
        }
        policies.stop().await;
        // Nobody is there to hear of it.
        for id in &gone {
            world.cancel(*id).await;
        }
        let next = world.short().await;
        let policies = world.start(world.commands.clone(), world.passages(), &[next]).await;
        assert!(succeeded(&world.ended(next).await), "{strategy}");
        policies.stop().await;
        assert_eq!(world.entries(1).await, [inside, next], "{strategy}");
    }
}

#[tokio::test]
async fn one_that_stands_still_while_it_waits_lets_others_pass() {
    let world = World::with(at_once(json!({ "max": 1 }))).await;
    let policies = world.start(world.commands.clone(), world.passages(), &[]).await;
    let first = world.long().await;
    world.inside(first).await;
    let second = world.short().await;
    world.waits(second).await;
    let third = world.short().await;
    world.waits(third).await;
    world.commands.pause_execution(second, &world.ask()).await.expect("paused");
    world.lane("it stood aside", |lane| lane.waiting.len() == 1).await;
    world.cancel(first).await;
    assert!(succeeded(&world.ended(third).await));
    world.commands.continue_execution(second, &world.ask()).await.expect("it goes on");
    assert!(succeeded(&world.ended(second).await));

    // One that has a place keeps it.
    let fourth = world.long().await;
    world.inside(fourth).await;
    world.commands.pause_execution(fourth, &world.ask()).await.expect("paused");
    let fifth = world.short().await;
    world.waits(fifth).await;
    world.cancel(fourth).await;
    assert!(succeeded(&world.ended(fifth).await));
    policies.stop().await;
    world.entries(1).await;
}

#[tokio::test]
async fn waiting_for_a_place_has_an_end() {
    let limits = json!({ "queue_timeout": "1s", "concurrency": { "max": 1 } });
    let world = World::with(agent(limits)).await;
    let policies = world.start(world.commands.clone(), world.passages(), &[]).await;
    let first = world.long().await;
    world.inside(first).await;
    let second = world.short().await;
    let third = world.short().await;
    for id in [second, third] {
        let limit = domain::execution::TimeLimit::Queue;
        let events = world.ended(id).await;
        assert_eq!(events.last(), Some(&ExecutionEvent::TimedOut { limit }));
    }
    world.lane("nobody waits", |lane| lane.waiting.is_empty() && lane.has(first)).await;
    policies.stop().await;
}

#[tokio::test]
async fn nobody_waits_for_an_agent_that_is_gone() {
    let world = World::with(at_once(json!({ "max": 1 }))).await;
    let policies = world.start(world.commands.clone(), world.passages(), &[]).await;
    let first = world.long().await;
    world.inside(first).await;
    let waiting = [world.short().await, world.short().await];
    for id in waiting {
        world.waits(id).await;
    }
    world.commands.uninstall_agent(world.agent, &world.ask()).await.expect("uninstalled");
    for id in waiting {
        assert_eq!(reason(&world.ended(id).await), Some(CancelReason::AgentUninstalled));
    }
    policies.stop().await;
}

#[tokio::test]
async fn a_key_that_comes_to_nothing_fails_the_execution() {
    let world = World::with(at_once(json!({ "key": "input.missing" }))).await;
    let policies = world.start(world.commands.clone(), world.passages(), &[]).await;
    let id = world.short().await;
    let events = world.ended(id).await;
    policies.stop().await;
    let Some(ExecutionEvent::Failed { step_id: None, error, .. }) = events.last() else {
        panic!("it ended otherwise: {events:?}")
    };
    let message = world.text(id, FAILED, ERROR, error).await;
    assert!(message.starts_with("limits/concurrency/key: "), "{message}");
}

#[tokio::test]
async fn an_agent_without_a_limit_has_no_lane() {
    let world = World::new().await;
    let policies = world.start(world.commands.clone(), world.passages(), &[]).await;
    let id = world.request(5).await;
    world.ended(id).await;
    policies.stop().await;
    let events = world.log.read_after(Position::START, 10_000).await.expect("read");
    assert!(events.iter().all(|event| event.stream.category() != "lane"));
}
