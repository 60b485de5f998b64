//! What can be said of a step, and of an execution: whether, how often, for how long, and not now.

use super::*;
use crate::{NewVersion, RetryFrom};
use domain::agent::AgentEvent;

/// An agent with these steps.
pub(super) fn agent(steps: Value) -> Value {
    json!({
        "manifest": "prodgy.agent/1", "name": "test.control", "version": "1.0.0", "title": "Control",
        "steps": steps,
    })
}

pub(super) fn with_limits(mut manifest: Value, limits: Value) -> Value {
    manifest["limits"] = limits;
    manifest
}

pub(super) fn names(events: &[ExecutionEvent]) -> Vec<String> {
    let name = |event: &ExecutionEvent| domain::event::encode(event).0;
    let short = |name: String| name.replace("execution.", "").replace(".v1", "").replace(".v2", "");
    events.iter().map(name).map(short).collect()
}

pub(super) fn count(events: &[ExecutionEvent], name: &str) -> usize {
    names(events).iter().filter(|known| *known == name).count()
}

impl World {
    pub(super) async fn policies(&self, knowledge: &Arc<Passages>) -> Policies {
        self.start(self.commands.clone(), knowledge.clone(), &[]).await
    }

    /// What an execution that succeeded put out.
    pub(super) async fn output(&self, id: Uuid) -> Value {
        let events = self.ended(id).await;
        match events.last() {
            Some(ExecutionEvent::Succeeded { output, .. }) => {
                let text = self.text(id, SUCCEEDED, OUTPUT, output).await;
                serde_json::from_str(&text).expect("JSON")
            }
            _ => panic!("it ended otherwise: {:?}", names(&events)),
        }
    }

    pub(super) async fn until(&self, id: Uuid, name: &str) {
        let mut head = self.log.watch();
        let found = async {
            loop {
                head.mark_unchanged();
                if names(&self.events(id).await).iter().any(|known| known == name) {
                    return;
                }
                head.changed().await.expect("the log lives");
            }
        };
        tokio::time::timeout(Duration::from_secs(20), found).await.expect(name);
    }
}

#[tokio::test]
async fn a_step_runs_where_its_condition_holds_and_what_needs_it_runs_all_the_same() {
    let world = World::with(agent(json!([
        { "id": "big", "type": "condition", "with": { "if": { "cel": "input.n > 3" } } },
        { "id": "search", "type": "kb.search", "needs": ["big"], "when": "steps.big.output.value",
          "with": { "query": "x" } },
        { "id": "end", "type": "transform", "needs": ["search"],
          "with": { "searched": { "cel": "steps.search.output != null" } } },
    ])))
    .await;
    let knowledge = world.passages();
    let policies = world.policies(&knowledge).await;
    for (n, searched) in [(5, true), (1, false)] {
        let id = world.request(n).await;
        assert_eq!(world.output(id).await, json!({ "searched": searched }));
        assert_eq!(count(&world.events(id).await, "step_skipped"), usize::from(!searched));
    }
    assert_eq!(knowledge.searches.load(Ordering::SeqCst), 1);
    policies.stop().await;
}

#[tokio::test]
async fn a_condition_that_cannot_be_asked_is_a_failure_of_its_step() {
    let world = World::with(agent(json!([
        { "id": "one", "type": "transform", "when": "input.missing > 1", "with": {} },
    ])))
    .await;
    let policies = world.policies(&world.passages()).await;
    let id = world.request(1).await;
    let events = world.ended(id).await;
    policies.stop().await;
    assert_eq!(names(&events), ["requested", "started", "step_started", "step_failed", "failed"]);
}

#[tokio::test]
async fn light_steps_are_written_in_one_piece() {
    let steps: Vec<Value> = (0..40)
        .map(|n| {
            let needs = if n == 0 { json!([]) } else { json!([format!("s{}", n - 1)]) };
            json!({ "id": format!("s{n}"), "type": "transform", "needs": needs, "with": { "n": n } })
        })
        .collect();
    let world = World::with(agent(json!(steps))).await;
    let policies = world.policies(&world.passages()).await;
    let id = world.request(1).await;
    assert_eq!(world.output(id).await, json!({ "n": 39 }));
    policies.stop().await;
    assert_eq!(count(&world.events(id).await, "step_succeeded"), 40);
    let stream = StreamId::new("execution", id);
    let stored = world.commands.whole_stream(&stream).await.expect("read");
    let commands: std::collections::BTreeSet<Uuid> =
        stored.iter().map(|event| event.command_id).collect();
    assert_eq!(commands.len(), 2, "asked for; claimed and done");
}

#[tokio::test]
async fn a_step_is_tried_again_later_and_nobody_is_busy_meanwhile() {
    let world = World::with(agent(json!([
        { "id": "search", "type": "kb.search", "with": { "query": "x" },
          "retry": { "attempts": 3, "backoff": { "initial": "100ms", "jitter": 0 } } },
    ])))
    .await;
    let knowledge = world.passages();
    knowledge.not_ready.store(2, Ordering::SeqCst);
    let policies = world.policies(&knowledge).await;
    let id = world.request(1).await;
    let events = world.ended(id).await;
    assert_eq!(
        names(&events),
        [
            "requested",
            "started",
            "step_started",
            "step_failed",
            "waiting",
            "started",
            "step_started",
            "step_failed",
            "waiting",
            "started",
            "step_started",
            "step_succeeded",
            "succeeded"
        ]
    );
    let attempt = |event: &ExecutionEvent| match event {
        ExecutionEvent::StepStarted { attempt, .. } => Some(*attempt),
        _ => None,
    };
    assert_eq!(events.iter().filter_map(attempt).collect::<Vec<_>>(), [1, 2, 3]);

    knowledge.not_ready.store(usize::MAX, Ordering::SeqCst);
    let id = world.request(1).await;
    let events = world.ended(id).await;
    policies.stop().await;
    assert_eq!(count(&events, "step_failed"), 3);
    assert!(
        matches!(events.last(), Some(ExecutionEvent::Failed { code, .. }) if code == "search_not_ready")
    );
}

#[tokio::test]
async fn an_index_that_is_being_loaded_is_waited_for_no_longer_than_the_step_may_take() {
    let world = World::with(agent(json!([
        { "id": "one", "type": "kb.search", "with": { "query": "bees" }, "timeout": "1s" },
    ])))
    .await;
    let knowledge = world.passages();
    knowledge.not_ready.store(usize::MAX, Ordering::SeqCst);
    let policies = world.policies(&knowledge).await;
    let events = world.ended(world.request(0).await).await;
    policies.stop().await;
    assert!(
        matches!(events.last(), Some(ExecutionEvent::Failed { code, .. }) if code == "search_not_ready")
    );
    // It is asked again every quarter of a second, and was for half a minute.
    let asked = knowledge.searches.load(Ordering::SeqCst);
    assert!((1..=4).contains(&asked), "{asked}");
}

#[tokio::test]
async fn an_execution_goes_on_behind_a_failure_that_it_may_have() {
    let world = World::with(agent(json!([
        { "id": "one", "type": "transform", "with": { "value": { "cel": "1 / input.n" } },
          "on_error": "continue" },
        { "id": "two", "type": "transform", "needs": ["one"],
          "with": { "code": { "cel": "has(steps.one.output.error) ? steps.one.output.error.code : 'none'" } } },
    ])))
    .await;
    let policies = world.policies(&world.passages()).await;
    let id = world.request(0).await;
    assert_eq!(world.output(id).await, json!({ "code": "cel_failed" }));
    let id = world.request(1).await;
    assert_eq!(world.output(id).await, json!({ "code": "none" }));
    policies.stop().await;
}

#[tokio::test]
async fn a_step_is_done_for_each_item_of_a_list_in_the_order_of_the_list() {
    let world = World::with(agent(json!([
        { "id": "each", "type": "kb.search", "with": { "query": { "template": "{{ index }}: {{ item }}" } },
          "foreach": { "items": "input.words", "max_parallel": 3, "max_items": 4 },
          "retry": { "attempts": 5, "backoff": { "initial": "100ms" } } },
        { "id": "texts", "type": "transform", "needs": ["each"], "foreach": "steps.each.output.items",
          "with": { "text": { "cel": "item.passages[0].text" } } },
    ])))
    .await;
    let knowledge = world.passages();
    knowledge.not_ready.store(2, Ordering::SeqCst);
    let policies = world.policies(&knowledge).await;
    let id = world.request_on(json!({ "words": ["a", "b", "c", "d"] })).await;
    let texts = ["about 0: a", "about 1: b", "about 2: c", "about 3: d"];
    let items: Vec<Value> = texts.iter().map(|text| json!({ "text": text })).collect();
    assert_eq!(world.output(id).await, json!({ "items": items }));
    let events = world.events(id).await;
    let done = successes(&events);
    for step in ["each[0]", "each[1]", "each[2]", "each[3]", "each", "texts"] {
        assert_eq!(done.iter().filter(|known| **known == step).count(), 1, "{step}: {done:?}");
    }
    assert_eq!(count(&events, "step_failed"), 2, "two items were tried again");

    let none = world.request_on(json!({ "words": [] })).await;
    assert_eq!(world.output(none).await, json!({ "items": [] }));
    for words in [json!(["a", "b", "c", "d", "e"]), json!("no list")] {
        let searches = knowledge.searches.load(Ordering::SeqCst);
        let id = world.request_on(json!({ "words": words })).await;
        let events = world.ended(id).await;
        assert!(matches!(events.last(), Some(ExecutionEvent::Failed { .. })), "{events:?}");
        assert_eq!(knowledge.searches.load(Ordering::SeqCst), searches, "not even the first one");
    }
    policies.stop().await;
}

#[tokio::test]
async fn an_execution_that_waits_goes_on_after_a_restart_and_not_before_its_time() {
    let world = World::with(agent(json!([
        { "id": "one", "type": "kb.search", "with": { "query": "x" } },
        { "id": "wait", "type": "wait", "needs": ["one"], "with": { "for": "1s" } },
        { "id": "two", "type": "kb.search", "needs": ["wait"], "with": { "query": "y" } },
    ])))
    .await;
    let knowledge = world.passages();
    let policies = world.policies(&knowledge).await;
    let begun = Utc::now();
    let id = world.request(1).await;
    world.until(id, "waiting").await;
    policies.stop().await;
    assert_eq!(knowledge.searches.load(Ordering::SeqCst), 1);

    let policies = world.start(world.commands.clone(), knowledge.clone(), &[id]).await;
    let events = world.ended(id).await;
    policies.stop().await;
    assert!(Utc::now() - begun >= TimeDelta::seconds(1));
    assert_eq!(successes(&events), ["one", "wait", "two"]);
    assert_eq!(count(&events, "waiting"), 1);
    assert_eq!(knowledge.searches.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn a_wait_until_a_time_that_is_past_is_none() {
    let world = World::with(agent(json!([
        { "id": "wait", "type": "wait", "with": { "until": "2020-01-01T00:00:00Z" } },
    ])))
    .await;
    let policies = world.policies(&world.passages()).await;
    let id = world.request(1).await;
    let events = world.ended(id).await;
    policies.stop().await;
    assert_eq!(successes(&events), ["wait"]);
    assert_eq!(count(&events, "waiting"), 0);
}

#[tokio::test]
async fn a_wait_until_a_time_to_come_ends_then_and_not_before() {
    let world = World::with(agent(json!([
        { "id": "wait", "type": "wait", "with": { "until": { "cel": "input.until" } } },
        { "id": "two", "type": "kb.search", "needs": ["wait"], "with": { "query": "y" } },
    ])))
    .await;
    let policies = world.policies(&world.passages()).await;
    let until = Utc::now() + TimeDelta::seconds(1);
    let id = world.request_on(json!({ "until": until.to_rfc3339() })).await;
    let events = world.ended(id).await;
    policies.stop().await;
    assert!(Utc::now() >= until);
    assert_eq!(successes(&events), ["wait", "two"]);
    let waits = events.iter().filter_map(|event| match event {
        ExecutionEvent::Waiting { until, .. } => Some(DateTime::<Utc>::from(*until)),
        _ => None,
    });
    let waits: Vec<_> = waits.map(|until| until.timestamp_micros()).collect();
    assert_eq!(waits, [until.timestamp_micros()]);
}

#[tokio::test]
async fn who_asks_to_be_left_alone_is_left_alone_for_so_long() {
    let retry = json!({ "attempts": 2, "backoff": { "initial": "100ms", "jitter": 0 } });
    let step =
        json!({ "id": "one", "type": "kb.search", "with": { "query": "x" }, "retry": retry });
    let mut each = step.clone();
    each["foreach"] = json!("[1]");
    for step in [step, each] {
        let world = World::with(agent(json!([step]))).await;
        let knowledge = world.passages();
        knowledge.not_ready.store(1, Ordering::SeqCst);
        knowledge.retry_after.store(700, Ordering::SeqCst);
        let policies = world.policies(&knowledge).await;
        let begun = std::time::Instant::now();
        let id = world.request(1).await;
        let events = world.ended(id).await;
        policies.stop().await;
        assert!(matches!(events.last(), Some(ExecutionEvent::Succeeded { .. })), "{events:?}");
        assert_eq!(knowledge.searches.load(Ordering::SeqCst), 2);
        assert!(begun.elapsed() >= Duration::from_millis(700), "{:?}", begun.elapsed());
    }
}

#[tokio::test]
async fn a_paused_execution_stands_still_until_it_is_continued() {
    let world = World::with(agent(json!([
        { "id": "wait", "type": "wait", "with": { "for": "200ms" } },
        { "id": "two", "type": "kb.search", "needs": ["wait"], "with": { "query": "y" } },
    ])))
    .await;
    let knowledge = world.passages();
    let policies = world.policies(&knowledge).await;
    let id = world.request(1).await;
    world.until(id, "waiting").await;
    world.commands.pause_execution(id, &world.ask()).await.expect("paused");
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(names(&world.events(id).await).last().map(String::as_str), Some("paused"));
    world.commands.continue_execution(id, &world.ask()).await.expect("continued");
    assert_eq!(successes(&world.ended(id).await), ["wait", "two"]);
    policies.stop().await;
}

/// An execution that is in the middle of a step: its search is tried again and again.
struct Searching {
    world: World,
    knowledge: Arc<Passages>,
    policies: Policies,
    id: Uuid,
}

async fn searching() -> Searching {
    let world = World::new().await;
    let knowledge = world.passages();
    knowledge.not_ready.store(usize::MAX, Ordering::SeqCst);
    let policies = world.policies(&knowledge).await;
    let id = world.request(5).await;
    while knowledge.searches.load(Ordering::SeqCst) == 0 {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    Searching { world, knowledge, policies, id }
}

#[tokio::test]
async fn what_is_paused_in_the_middle_of_a_step_keeps_what_the_step_put_out() {
    let Searching { world, knowledge, policies, id } = searching().await;
    world.commands.pause_execution(id, &world.ask()).await.expect("paused");
    knowledge.not_ready.store(0, Ordering::SeqCst);
    world.until(id, "paused").await;
    let mut successes_so_far = 0;
    while successes_so_far < 2 {
        successes_so_far = successes(&world.events(id).await).len();
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(successes(&world.events(id).await), ["one", "two"]);
    let searches = knowledge.searches.load(Ordering::SeqCst);
    world.commands.continue_execution(id, &world.ask()).await.expect("continued");
    assert_eq!(successes(&world.ended(id).await), ["one", "two", "three"]);
    assert_eq!(knowledge.searches.load(Ordering::SeqCst), searches, "it was not searched again");
    policies.stop().await;
}

#[tokio::test]
async fn an_execution_is_stopped_in_the_middle_of_a_step() {
    let Searching { world, knowledge, policies, id } = searching().await;
    let stop = ExecutionCommand::Cancel { reason: CancelReason::Stopped };
    world.commands.execute::<Execution>(id, stop, &world.ask()).await.expect("stopped");
    // Nobody is at it any more: the search is no longer tried.
    let mut before = usize::MAX;
    while knowledge.searches.load(Ordering::SeqCst) != before {
        before = knowledge.searches.load(Ordering::SeqCst);
        tokio::time::sleep(PAUSE_OF_A_STEP * 3).await;
    }
    let events = world.events(id).await;
    assert!(matches!(events.last(), Some(ExecutionEvent::Cancelled { .. })), "{events:?}");
    policies.stop().await;
}

/// How often a step looks whether what it needs is there by now.
const PAUSE_OF_A_STEP: Duration = Duration::from_millis(250);

#[tokio::test]
async fn an_execution_is_repeated_from_its_start_from_where_it_failed_or_from_any_step() {
    let world = World::with(agent(json!([
        { "id": "one", "type": "kb.search", "with": { "query": "one" } },
        { "id": "each", "type": "kb.search", "needs": ["one"], "foreach": "input.words",
          "with": { "query": { "cel": "item" } } },
        { "id": "end", "type": "transform", "needs": ["each"],
          "with": { "count": { "cel": "size(steps.each.output.items)" } } },
    ])))
    .await;
    let knowledge = world.passages();
    let policies = world.policies(&knowledge).await;
    knowledge.fails_at.store(3, Ordering::SeqCst);
    let id = world.request_on(json!({ "words": ["a", "b"] })).await;
    let events = world.ended(id).await;
    assert!(matches!(events.last(), Some(ExecutionEvent::Failed { .. })), "{:?}", names(&events));

    let searches = || knowledge.searches.load(Ordering::SeqCst);
    let retry = async |from: RetryFrom| {
        let before = searches();
        let done =
            world.commands.retry_execution(id, from, None, &world.ask()).await.expect("asked for");
        let again = done.stream_id().expect("an id");
        assert_eq!(world.output(again).await, json!({ "count": 2 }));
        let events = world.events(again).await;
        assert!(matches!(&events[1], ExecutionEvent::Retried { of, .. } if *of == id));
        (searches() - before, count(&events, "step_reused"))
    };
    assert_eq!(retry(RetryFrom::Failed).await, (1, 2), "the second word alone");
    assert_eq!(retry(RetryFrom::Step("each".into())).await, (2, 1), "both words");
    assert_eq!(retry(RetryFrom::Start).await, (3, 0));

    let refused = |outcome: Result<crate::Done, Error>| match outcome {
        Err(Error::Refused { code, .. }) => code,
        Err(Error::Invalid { .. }) => "invalid",
        other => panic!("{other:?}"),
    };
    let from = RetryFrom::Step("x".into());
    let unknown = world.commands.retry_execution(id, from, None, &world.ask()).await;
    assert_eq!(refused(unknown), "invalid");
    let done = world
        .commands
        .retry_execution(id, RetryFrom::Start, None, &world.ask())
        .await
        .expect("asked");
    let good = done.stream_id().expect("an id");
    world.ended(good).await;
    let nothing = world.commands.retry_execution(good, RetryFrom::Failed, None, &world.ask()).await;
    assert_eq!(refused(nothing), "nothing_failed");
    policies.stop().await;
    let waiting = world.request_on(json!({ "words": [] })).await;
    let early = world.commands.retry_execution(waiting, RetryFrom::Start, None, &world.ask()).await;
    assert_eq!(refused(early), "execution_not_ended");
}

#[tokio::test]
async fn another_version_does_again_what_it_defines_otherwise() {
    let search = json!({ "id": "each", "type": "kb.search", "needs": ["one"], "foreach": "input.words",
                         "with": { "query": { "cel": "item" } } });
    let version = |number: &str, one: i64, end: &str| {
        let mut document = agent(json!([
            { "id": "one", "type": "transform", "with": { "value": one } },
            search,
            { "id": "other", "type": "transform", "with": { "value": 5 } },
            { "id": "end", "type": "transform", "needs": ["each", "other"],
              "with": { "count": { "cel": end } } },
        ]));
        document["version"] = json!(number);
        document
    };
    // It runs, and then there is something to divide by zero.
    let world = World::with(version("1.0.0", 1, "1 / (size(steps.each.output.items) - 2)")).await;
    let knowledge = world.passages();
    let policies = world.policies(&knowledge).await;
    let first = world.active().await;
    let id = world.request_on(json!({ "words": ["a", "b"] })).await;
    let events = world.ended(id).await;
    assert!(matches!(events.last(), Some(ExecutionEvent::Failed { .. })), "{:?}", names(&events));

    let publish = async |document: Value| {
        let manifest = Manifest::accept(&document).expect("a manifest");
        let new = NewVersion { manifest, activate: false, config: None, bindings: BTreeMap::new() };
        let done = world.commands.publish_version(world.agent, new, &world.ask()).await;
        match decode_event(&done.expect("published").events[0]).expect("decoded") {
            AgentEvent::VersionPublished { version_id, digest, .. } => (version_id, digest),
            other => panic!("{other:?}"),
        }
    };
    let mended = publish(version("1.0.1", 1, "size(steps.each.output.items)")).await;
    let other = publish(version("1.1.0", 2, "size(steps.each.output.items)")).await;
    assert_eq!(world.active().await, first);

    let retry = async |from: RetryFrom, version: &(Uuid, domain::Digest)| {
        let before = knowledge.searches.load(Ordering::SeqCst);
        let done = world
            .commands
            .retry_execution(id, from, Some(version.0), &world.ask())
            .await
            .expect("asked for");
        let again = done.stream_id().expect("an id");
        let events = world.ended(again).await;
        let ExecutionEvent::Requested { version_id, digest, .. } = &events[0] else {
            panic!("{:?}", names(&events))
        };
        assert_eq!((version_id, digest), (&version.0, &version.1));
        assert_eq!(world.output(again).await, json!({ "count": 2 }));
        (knowledge.searches.load(Ordering::SeqCst) - before, count(&events, "step_reused"))
    };
    // Only the step that failed is another one: all before it is carried over.
    assert_eq!(retry(RetryFrom::Failed, &mended).await, (0, 5));
    assert_eq!(retry(RetryFrom::Start, &mended).await, (2, 0));
    // What the search needs is another one: it is done again, what does not need it is not.
    assert_eq!(retry(RetryFrom::Failed, &other).await, (2, 1));

    // Without a word it is the version that it ran, which fails as it did.
    let same = world.commands.retry_execution(id, RetryFrom::Failed, None, &world.ask()).await;
    let same = same.expect("asked for").stream_id().expect("an id");
    let events = world.ended(same).await;
    assert!(matches!(events.last(), Some(ExecutionEvent::Failed { .. })), "{:?}", names(&events));

    let unknown = Some(Uuid::now_v7());
    let refused =
        world.commands.retry_execution(id, RetryFrom::Failed, unknown, &world.ask()).await;
    assert!(
        matches!(refused, Err(Error::Invalid { code: "version_not_found", .. })),
        "{refused:?}"
    );
    let mut renamed = agent(json!([{ "id": "only", "type": "transform" }]));
    renamed["version"] = json!("2.0.0");
    let renamed = publish(renamed).await;
    let gone =
        world.commands.retry_execution(id, RetryFrom::Failed, Some(renamed.0), &world.ask()).await;
    assert!(matches!(gone, Err(Error::Invalid { code: "step_unknown", .. })), "{gone:?}");
    policies.stop().await;
}

#[tokio::test]
async fn a_crash_at_any_write_repeats_no_finished_step_and_loses_no_wait() {
    let manifest = agent(json!([
        { "id": "light", "type": "transform", "with": { "words": { "cel": "input.words" } } },
        { "id": "each", "type": "kb.search", "needs": ["light"], "foreach": "steps.light.output.words",
          "with": { "query": { "cel": "item" } } },
        { "id": "off", "type": "kb.search", "needs": ["each"], "when": "false", "with": { "query": "x" } },
        { "id": "wait", "type": "wait", "needs": ["each"], "with": { "for": "20ms" } },
        { "id": "note", "type": "kb.ingest", "needs": ["wait"], "with": { "title": "Note", "text": "text" } },
    ]));
    for stores_the_last in [false, true] {
        for lives in 1.. {
            let world = World::with(manifest.clone()).await;
            let id = world.request_on(json!({ "words": ["a", "b"] })).await;
            let knowledge = world.passages();
            let (events, survived) =
                world.over_a_crash(id, &knowledge, lives, stores_the_last).await;
            let context = format!("{lives} writes, the last one stored: {stores_the_last}");
            let mut done = successes(&events);
            done.sort_unstable();
            assert_eq!(done, ["each", "each[0]", "each[1]", "light", "note", "wait"], "{context}");
            assert_eq!(count(&events, "step_skipped"), 1, "{context}");
            assert!(knowledge.searches.load(Ordering::SeqCst) <= 3, "one more than two, {context}");
            assert_eq!(world.uploads().await, 1, "{context}");
            if survived {
                assert!(lives > 8, "it was killed at each of its writes before");
                break;
            }
        }
    }
}
