//! What the log keeps of what a step was told, and of how an attempt failed.

use super::control::{agent, names};
use super::*;

impl World {
    /// What each attempt at a step that reaches outside was told, in the order of the log.
    async fn told(&self, id: Uuid) -> Vec<(String, Option<Value>)> {
        let mut told = Vec::new();
        for event in self.events(id).await {
            let ExecutionEvent::StepStarted { step_id, input, .. } = event else { continue };
            let input = match &input {
                Some(input) => {
                    let text = self.text(id, STEP_STARTED, INPUT, input).await;
                    Some(serde_json::from_str(&text).expect("JSON"))
                }
                None => None,
            };
            told.push((step_id, input));
        }
        told
    }
}

#[tokio::test]
async fn what_a_step_was_told_is_in_the_log_without_secrets() {
    let manifest = json!({
        "manifest": "prodgy.agent/1", "name": "test.told", "version": "1.0.0", "title": "Told",
        "config": { "type": "object", "properties": { "token": { "type": "string", "secret": true } } },
        "steps": [
            { "id": "one", "type": "transform", "with": { "words": { "cel": "input.words" } } },
            { "id": "two", "type": "kb.search", "needs": ["one"],
              "with": { "query": { "template": "{{ input.words[0] }} by {{ config.token }}" }, "limit": 3 } },
            { "id": "each", "type": "kb.search", "needs": ["two"], "foreach": "input.words",
              "with": { "query": { "cel": "item" } } },
        ],
    });
    let config = json!({ "token": "tok-12345" });
    let world = World::configured(manifest, Some(config)).await;
    let policies = world.policies(&world.passages()).await;
    let id = world.request_on(json!({ "words": ["a", "b"] })).await;
    world.ended(id).await;
    policies.stop().await;
    let step = |id: &str, told: Option<Value>| (id.to_owned(), told);
    let mut told = world.told(id).await;
    // The items begin in any order.
    told.sort_by(|(one, _), (other, _)| one.cmp(other));
    assert_eq!(
        told,
        [
            step("each", None),
            step("each[0]", Some(json!({ "query": "a" }))),
            step("each[1]", Some(json!({ "query": "b" }))),
            step("one", None),
            step("two", Some(json!({ "query": "a by ••••", "limit": 3 }))),
        ]
    );
}

#[tokio::test]
async fn what_cannot_be_computed_was_told_nothing() {
    let world = World::with(agent(json!([
        { "id": "one", "type": "kb.search", "with": { "query": { "cel": "string(1 / 0)" } } },
    ])))
    .await;
    let knowledge = world.passages();
    let policies = world.policies(&knowledge).await;
    let id = world.request(1).await;
    let events = world.ended(id).await;
    policies.stop().await;
    assert_eq!(names(&events), ["requested", "started", "step_started", "step_failed", "failed"]);
    assert_eq!(world.told(id).await, [("one".to_owned(), None)]);
    assert_eq!(knowledge.searches.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn an_item_that_failed_for_good_is_not_done_again_after_a_restart() {
    let world = World::with(agent(json!([
        { "id": "each", "type": "kb.search", "foreach": { "items": "input.words", "max_parallel": 1 },
          "on_error": "continue", "retry": { "attempts": 3 }, "timeout": "5s", "with": { "query": { "cel": "item" } } },
    ])))
    .await;
    let id = world.request_on(json!({ "words": ["a", "b"] })).await;
    let knowledge = world.passages();
    knowledge.fails_at.store(1, Ordering::SeqCst);
    // Claimed and begun; the first item begun; that it failed: the server dies behind that.
    let mortal = Altered::mortal(&world.log, 3, true);
    let commands = open_commands(world.folder.path(), mortal.clone()).await;
    let first_life = world.start(commands, knowledge.clone(), &[id]).await;
    world.until(id, "step_failed").await;
    first_life.stop().await;
    let searches = knowledge.searches.load(Ordering::SeqCst);

    let second_life = world.start(world.commands.clone(), knowledge.clone(), &[id]).await;
    let events = world.ended(id).await;
    second_life.stop().await;
    assert_eq!(searches, 1);
    assert_eq!(knowledge.searches.load(Ordering::SeqCst), 2, "the other one alone");
    let failed = events.iter().find_map(|event| match event {
        ExecutionEvent::StepFailed { step_id, transient, .. } => {
            Some((step_id.as_str(), *transient))
        }
        _ => None,
    });
    assert_eq!(failed, Some(("each[0]", false)));
    assert_eq!(successes(&events), ["each[1]", "each"]);
}
