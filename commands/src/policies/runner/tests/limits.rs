//! How long a step, an execution and its wait for a worker may take.

use domain::execution::TimeLimit;

use super::control::{agent, names, with_limits};
use super::*;

#[tokio::test]
async fn a_step_an_execution_and_a_place_in_the_queue_end_when_their_time_is_over() {
    let search =
        json!([{ "id": "one", "type": "kb.search", "timeout": "1s", "with": { "query": "x" } }]);
    let world = World::with(agent(search.clone())).await;
    let knowledge = world.passages();
    knowledge.stalls.store(true, Ordering::SeqCst);
    let policies = world.policies(&knowledge).await;
    let id = world.request(1).await;
    let events = world.ended(id).await;
    policies.stop().await;
    assert!(
        matches!(events.last(), Some(ExecutionEvent::Failed { code, .. }) if code == "step_timed_out"),
        "{events:?}"
    );

    let waits = json!([{ "id": "one", "type": "wait", "with": { "for": { "cel": "'1h'" } } }]);
    for steps in [waits, json!([{ "id": "one", "type": "kb.search", "with": { "query": "x" } }])] {
        let limited = with_limits(agent(steps), json!({ "timeout": "1s" }));
        let world = World::with(limited).await;
        let knowledge = world.passages();
        knowledge.stalls.store(true, Ordering::SeqCst);
        let policies = world.policies(&knowledge).await;
        let id = world.request(1).await;
        let events = world.ended(id).await;
        policies.stop().await;
        let limit = TimeLimit::Execution;
        assert_eq!(events.last(), Some(&ExecutionEvent::TimedOut { limit }), "{events:?}");
    }

    let world = World::with(with_limits(agent(search), json!({ "queue_timeout": "1s" }))).await;
    let id = world.request(1).await;
    tokio::time::sleep(Duration::from_millis(1_100)).await;
    let policies = world.start(world.commands.clone(), world.passages(), &[id]).await;
    let events = world.ended(id).await;
    policies.stop().await;
    assert_eq!(events[1..], [ExecutionEvent::TimedOut { limit: TimeLimit::Queue }]);
}

#[tokio::test]
async fn a_place_in_the_queue_ends_although_no_worker_is_free_to_look() {
    let search = json!([{ "id": "one", "type": "kb.search", "with": { "query": "x" } }]);
    let world = World::with(with_limits(agent(search), json!({ "queue_timeout": "1s" }))).await;
    let knowledge = world.passages();
    knowledge.stalls.store(true, Ordering::SeqCst);
    let workers = Workers { all: 1, per_product: 1 };
    let policies = world.start_with(workers, world.commands.clone(), knowledge.clone(), &[]).await;
    let busy = world.request(1).await;
    world.until(busy, "step_started").await;
    let waits = world.request(2).await;
    let events = world.ended(waits).await;
    assert_eq!(events[1..], [ExecutionEvent::TimedOut { limit: TimeLimit::Queue }]);
    // The one that the worker is at had begun in time.
    assert_eq!(names(&world.events(busy).await), ["requested", "started", "step_started"]);
    policies.stop().await;
}

#[tokio::test]
async fn what_stands_still_reaches_its_limit_all_the_same() {
    let wait = || json!([{ "id": "wait", "type": "wait", "with": { "for": { "cel": "'1h'" } } }]);
    let world = World::with(with_limits(agent(wait()), json!({ "timeout": "1s" }))).await;
    let policies = world.policies(&world.passages()).await;
    let id = world.request(1).await;
    world.until(id, "waiting").await;
    world.commands.pause_execution(id, &world.ask()).await.expect("paused");
    let events = world.ended(id).await;
    policies.stop().await;
    let limit = TimeLimit::Execution;
    assert_eq!(events.last(), Some(&ExecutionEvent::TimedOut { limit }));

    // It was paused before anybody began with it, and the server started afterwards.
    let world = World::with(with_limits(agent(wait()), json!({ "queue_timeout": "1s" }))).await;
    let id = world.request(1).await;
    world.commands.pause_execution(id, &world.ask()).await.expect("paused");
    let policies = world.start(world.commands.clone(), world.passages(), &[id]).await;
    let events = world.ended(id).await;
    policies.stop().await;
    let limit = TimeLimit::Queue;
    assert_eq!(events[1..], [ExecutionEvent::Paused {}, ExecutionEvent::TimedOut { limit }]);
}
