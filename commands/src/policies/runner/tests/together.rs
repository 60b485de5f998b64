//! Several live workers on one store.

use std::collections::HashMap;

use super::control::agent;
use super::*;

#[tokio::test]
async fn two_live_workers_do_no_step_twice() {
    const EXECUTIONS: i64 = 40;
    let world = World::with(agent(json!([
        { "id": "one", "type": "kb.search", "with": { "query": { "template": "one of {{ input.n }}" } } },
        { "id": "each", "type": "kb.search", "needs": ["one"], "foreach": "[1, 2]",
          "with": { "query": { "template": "{{ item }} of {{ input.n }}" } } },
    ])))
    .await;
    let shared: Arc<dyn EventStore> = Altered::shared(&world.log);
    let knowledge = world.passages();
    let mut workers = Vec::new();
    for _ in 0..2 {
        let commands = open_commands(world.folder.path(), shared.clone()).await;
        workers.push(world.start(commands, knowledge.clone(), &[]).await);
    }
    let mut all = Vec::new();
    for n in 0..EXECUTIONS {
        all.push(world.request(n).await);
    }
    let mut claimed_by = HashMap::new();
    for id in &all {
        let events = world.ended(*id).await;
        let done = successes(&events);
        assert_eq!(done.len(), 4, "{done:?}");
        for event in &events {
            if let ExecutionEvent::Started { worker, .. } = event {
                *claimed_by.entry(*worker).or_insert(0) += 1;
            }
        }
    }
    for worker in workers {
        worker.stop().await;
    }
    // The effects themselves, and not what the log says of them.
    let mut asked = HashMap::new();
    for question in knowledge.asked.lock().iter() {
        *asked.entry(question.clone()).or_insert(0) += 1;
    }
    assert_eq!(asked.len(), 3 * all.len());
    assert!(asked.values().all(|times| *times == 1), "{asked:?}");
    assert_eq!(claimed_by.len(), 2, "both had a part in it: {claimed_by:?}");
}

#[tokio::test]
async fn a_worker_whose_clock_jumps_ahead_takes_nothing_from_one_that_lives() {
    let world = World::new().await;
    let id = world.request(5).await;
    let shared = Altered::shared(&world.log);
    // The clock of the one that lives is right. That of the other, which is this one's, is two hours ahead.
    let before = Utc::now() - TimeDelta::hours(2);
    let claim = LeaseClaim {
        worker: Uuid::now_v7(),
        now: before.into(),
        lease_until: (before + LEASE).into(),
        exclusive: false,
        gone: Arc::default(),
        outlasted: Arc::default(),
    };
    let start = ExecutionCommand::Start(claim);
    world.commands.execute::<Execution>(id, start, &world.ask()).await.expect("claimed");

    let other = open_commands(world.folder.path(), shared).await;
    let policies = world.start(other.clone(), world.passages(), &[id]).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let claims = |events: &[ExecutionEvent]| {
        let claim = |event: &&ExecutionEvent| matches!(event, ExecutionEvent::Started { .. });
        events.iter().filter(claim).count()
    };
    assert_eq!(claims(&world.events(id).await), 1);
    // The one that lives is still believed.
    let step = ExecutionCommand::StartStep { fence: 1, step_id: "one".into(), input: None };
    world.commands.execute::<Execution>(id, step, &world.ask()).await.expect("reported");

    // Now it is dead, and as much time has gone by as it was given.
    other.leases.let_pass(LEASE.to_std().expect("a length"));
    let events = world.ended(id).await;
    policies.stop().await;
    assert_eq!((claims(&events), successes(&events)), (2, vec!["one", "two", "three"]));
}
