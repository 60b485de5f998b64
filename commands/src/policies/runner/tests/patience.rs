//! Steps that wait in the middle: nobody is busy meanwhile, and nothing is done twice for it.

use super::control::{agent, count, names};
use super::*;
use crate::policies::outbox::tests::Slack;

/// Searches for each word, and tries again after a while.
fn patient(wait: &str) -> Value {
    agent(json!([
        { "id": "each", "type": "kb.search", "foreach": { "items": "input.words", "max_parallel": 4 },
          "with": { "query": { "cel": "item" } },
          "retry": { "attempts": 3, "backoff": { "initial": wait, "jitter": 0 } } },
    ]))
}

/// How often each attempt at each step was begun.
fn attempts(events: &[ExecutionEvent]) -> BTreeMap<(String, u32), usize> {
    let mut begun = BTreeMap::new();
    for event in events {
        if let ExecutionEvent::StepStarted { step_id, attempt, .. } = event {
            *begun.entry((step_id.clone(), *attempt)).or_insert(0) += 1;
        }
    }
    begun
}

fn once(of: &[(&str, u32)]) -> BTreeMap<(String, u32), usize> {
    of.iter().map(|(step, attempt)| (((*step).to_owned(), *attempt), 1)).collect()
}

#[tokio::test]
async fn items_that_only_wait_give_their_worker_to_others() {
    let world = World::with(patient("1s")).await;
    let knowledge = world.passages();
    knowledge.not_ready.store(2, Ordering::SeqCst);
    let workers = Workers { all: 1, per_product: 1 };
    let policies = world.start_with(workers, world.commands.clone(), knowledge.clone(), &[]).await;
    let begun = std::time::Instant::now();
    let waits = world.request_on(json!({ "words": ["a", "b", "c"] })).await;
    world.until(waits, "waiting").await;
    let other = world.request_on(json!({ "words": ["d"] })).await;
    assert_eq!(successes(&world.ended(other).await), ["each[0]", "each"]);
    assert!(begun.elapsed() < Duration::from_millis(900), "{:?}", begun.elapsed());
    assert_eq!(count(&world.events(waits).await, "step_started"), 4, "the one and its items");

    let events = world.ended(waits).await;
    policies.stop().await;
    assert!(begun.elapsed() >= Duration::from_secs(1));
    assert_eq!(count(&events, "waiting"), 2, "{:?}", names(&events));
    let all = [
        ("each", 1),
        ("each[0]", 1),
        ("each[1]", 1),
        ("each[2]", 1),
        ("each[0]", 2),
        ("each[1]", 2),
    ];
    assert_eq!(attempts(&events), once(&all), "nobody was cut off");
    assert_eq!(knowledge.searches.load(Ordering::SeqCst), 6);
}

#[tokio::test]
async fn an_item_that_waits_is_not_tried_before_its_time_after_a_restart() {
    let world = World::with(patient("1s")).await;
    let knowledge = world.passages();
    knowledge.not_ready.store(1, Ordering::SeqCst);
    let policies = world.policies(&knowledge).await;
    let begun = std::time::Instant::now();
    let id = world.request_on(json!({ "words": ["a"] })).await;
    world.until(id, "step_failed").await;
    // It has to say so before it stops, whether it did by then or not.
    policies.stop().await;
    assert_eq!(count(&world.events(id).await, "waiting"), 1);
    let policies = world.start(world.commands.clone(), knowledge.clone(), &[id]).await;
    let events = world.ended(id).await;
    policies.stop().await;
    assert!(begun.elapsed() >= Duration::from_secs(1), "{:?}", begun.elapsed());
    assert_eq!(attempts(&events), once(&[("each", 1), ("each[0]", 1), ("each[0]", 2)]));
}

#[tokio::test]
async fn a_crash_at_any_write_of_items_that_wait_loses_none_of_them() {
    for stores_the_last in [false, true] {
        for lives in 1.. {
            let world = World::with(patient("150ms")).await;
            let id = world.request_on(json!({ "words": ["a", "b"] })).await;
            let knowledge = world.passages();
            knowledge.not_ready.store(2, Ordering::SeqCst);
            let (events, survived) =
                world.over_a_crash(id, &knowledge, lives, stores_the_last).await;
            let context = format!("{lives} writes, the last one stored: {stores_the_last}");
            let mut done = successes(&events);
            done.sort_unstable();
            assert_eq!(done, ["each", "each[0]", "each[1]"], "{context}");
            assert!(attempts(&events).values().all(|times| *times == 1), "{context}: {events:?}");
            // Both items twice, and those that were cut off once more.
            let searches = knowledge.searches.load(Ordering::SeqCst);
            assert!((4..=6).contains(&searches), "{searches}, {context}");
            if survived {
                assert!(lives > 8, "it was killed at each of its writes before");
                break;
            }
        }
    }
}

/// A world whose agent says something in a Slack that fails so often at first.
async fn saying(failures: usize, step: Value) -> (World, Slack) {
    let slack = Slack::default();
    slack.failures.store(failures, Ordering::SeqCst);
    let mut say =
        json!({ "id": "say", "type": "notify", "with": { "slot": "talk", "channel": "C1" } });
    for (name, value) in step.as_object().expect("an object") {
        say[name] = value.clone();
    }
    say["with"]["text"] = match step.get("foreach") {
        Some(_) => json!({ "template": "hello {{ item }}" }),
        None => json!("hello"),
    };
    let mut manifest = agent(json!([say]));
    manifest["requires"] = json!({ "integrations": [{ "slot": "talk", "kinds": ["slack"] }] });
    // What can be bound has to be there first: the agent of this world is another one.
    let world = World::new().await;
    let integration = slack.integration(&world.commands, &world.ask()).await;
    let new = NewAgent {
        manifest: Manifest::accept(&manifest).expect("a manifest"),
        title: None,
        config: None,
        bindings: BTreeMap::from([("talk".to_owned(), integration)]),
    };
    let done = world.commands.install_agent(new, &world.ask()).await.expect("an agent");
    let agent = done.stream_id().expect("an id");
    (World { agent, ..world }, slack)
}

#[tokio::test]
async fn a_step_that_said_something_gives_its_worker_back_until_it_is_there() {
    let (world, slack) = saying(1, json!({})).await;
    let policies = world.policies(&world.passages()).await;
    let id = world.request_on(json!({})).await;
    let events = world.ended(id).await;
    assert_eq!(
        names(&events),
        [
            "requested",
            "started",
            "step_started",
            "waiting",
            "started",
            "step_succeeded",
            "succeeded"
        ]
    );
    assert_eq!(world.output(id).await["id"], "1.2");
    assert_eq!(slack.texts.lock().len(), 1);

    // The server is another one when it arrives.
    slack.failures.store(2, Ordering::SeqCst);
    let id = world.request_on(json!({})).await;
    world.until(id, "waiting").await;
    policies.stop().await;
    let said = domain::derived_id(&[b"notify", id.as_bytes(), b"say"]);
    let position = world.log.head().await.expect("a head");
    let pending = Pending {
        position,
        executions: vec![id],
        conversations: vec![(said, world.product)],
        ..Pending::default()
    };
    let workers = Workers { all: 1, per_product: 1 };
    let policies = world.start_on(workers, world.commands.clone(), world.passages(), pending);
    assert_eq!(attempts(&world.ended(id).await), once(&[("say", 1)]));
    policies.stop().await;
    assert_eq!(slack.texts.lock().len(), 2, "and it is said once");
}

#[tokio::test]
async fn items_that_said_something_wait_for_it_together() {
    let (world, slack) =
        saying(2, json!({ "foreach": { "items": "['a', 'b', 'c']", "max_parallel": 3 } })).await;
    let policies = world.policies(&world.passages()).await;
    let id = world.request_on(json!({})).await;
    let events = world.ended(id).await;
    policies.stop().await;
    assert!(
        matches!(events.last(), Some(ExecutionEvent::Succeeded { .. })),
        "{:?}",
        names(&events)
    );
    assert!(count(&events, "waiting") >= 1, "{:?}", names(&events));
    assert_eq!(attempts(&events), once(&[("say", 1), ("say[0]", 1), ("say[1]", 1), ("say[2]", 1)]));
    let mut texts = slack.texts.lock().clone();
    texts.sort_unstable();
    assert_eq!(texts, ["hello a", "hello b", "hello c"]);
}

#[tokio::test]
async fn what_was_said_and_does_not_arrive_in_time_has_failed_then() {
    let (world, _slack) = saying(usize::MAX, json!({ "timeout": "1s" })).await;
    let policies = world.policies(&world.passages()).await;
    let begun = std::time::Instant::now();
    let id = world.request_on(json!({})).await;
    let events = world.ended(id).await;
    policies.stop().await;
    assert!(begun.elapsed() >= Duration::from_secs(1));
    assert!(count(&events, "waiting") >= 1, "{:?}", names(&events));
    assert!(
        matches!(events.last(), Some(ExecutionEvent::Failed { code, .. }) if code == "step_timed_out"),
        "{events:?}"
    );
}
