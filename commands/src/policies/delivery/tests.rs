//! Deliveries cut off at every append, and worked on by two nodes at once.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use domain::Name;
use domain::manifest::Manifest;
use domain::trigger::TriggerKind;
use eventlog::{EventStore, Position};
use reqwest::header::HeaderMap;
use tempfile::TempDir;

use super::*;
use crate::policies::altered::Altered;
use crate::testing::{open_commands, open_log};
use crate::{NewAgent, NewTrigger};

/// A product with an agent that has a webhook.
struct World {
    folder: TempDir,
    log: Arc<dyn EventStore>,
    commands: Commands,
    product: Uuid,
}

impl World {
    async fn new(mut webhook: Value) -> World {
        let folder = tempfile::tempdir().expect("a folder");
        let log = open_log(folder.path());
        let commands = open_commands(folder.path(), log.clone()).await;
        let ask = || Ask::once("test", Uuid::nil(), None);
        let name = Name::parse("Product").expect("a name");
        let done = commands.create_product(name, None, &ask()).await.expect("a product");
        let product = done.stream_id().expect("an id");
        let manifest = json!({
            "manifest": "prodgy.agent/1", "name": "test.hook", "version": "1.0.0", "title": "Hook",
            "inputs": { "type": "object", "properties": { "n": { "type": "integer" } } },
            "steps": [{ "id": "one", "type": "transform", "with": { "value": 1 } }],
        });
        let manifest = Manifest::accept(&manifest).expect("a manifest");
        let new = NewAgent { manifest, title: None, config: None, bindings: BTreeMap::new() };
        let done = commands.install_agent(new, &ask().in_product(product)).await.expect("an agent");
        let agent = done.stream_id().expect("an id");
        webhook["path"] = json!("p");
        webhook["verify"] = json!("none");
        let new = NewTrigger {
            agent,
            kind: TriggerKind::Webhook,
            enabled: true,
            configuration: webhook.as_object().cloned().expect("an object"),
            secret: None,
            siblings: 0,
        };
        commands.create_trigger(new, &ask().in_product(product)).await.expect("a trigger");
        World { folder, log, commands, product }
    }

    /// Receives a delivery.
    async fn receive(&self, id: &str, body: &str) -> Uuid {
        let hook = self.commands.webhook_at("p").await.expect("read").expect("a hook");
        let mut headers = HeaderMap::new();
        headers.insert("idempotency-key", id.parse().expect("a header"));
        let good = self.commands.verify_delivery(&hook, &headers, body.as_bytes()).await;
        let good = good.expect("read").expect("a good delivery");
        let ask = Ask::once("test", Uuid::nil(), Some(self.product));
        let done = self.commands.receive_delivery(&hook, good, &ask).await.expect("stored");
        done.stream_id().expect("an id")
    }

    /// What became of every delivery, and the executions that were asked for.
    async fn outcomes(&self) -> (Vec<DeliveryEvent>, Vec<Uuid>) {
        let events = self.log.read_after(Position::START, 10_000).await.expect("read");
        let settled = events
            .iter()
            .filter(|event| event.stream.category() == "delivery")
            .map(|event| decode_event(event).expect("decoded"))
            .filter(|event| !matches!(event, DeliveryEvent::Received(_)))
            .collect();
        let requested = |event: &&Arc<RecordedEvent>| event.event_type == "execution.requested.v1";
        let executions: Vec<_> =
            events.iter().filter(requested).filter_map(|event| event.stream.uuid()).collect();
        (settled, executions)
    }
}

#[tokio::test]
async fn a_node_that_dies_at_any_append_starts_nothing_twice_and_forgets_nothing() {
    for stores_the_last in [false, true] {
        for lives in 1..=3 {
            let world = World::new(json!({})).await;
            let delivery = world.receive("one", r#"{"n":1}"#).await;
            let mortal = Altered::mortal(&world.log, lives, stores_the_last);
            let dying = open_commands(world.folder.path(), mortal).await;
            let _ = settle(&dying, delivery).await;
            let next = open_commands(world.folder.path(), world.log.clone()).await;
            settle(&next, delivery).await.expect("settled");
            settle(&next, delivery).await.expect("settled already");
            let (settled, executions) = world.outcomes().await;
            assert_eq!(executions.len(), 1, "{lives} {stores_the_last}");
            assert_eq!(settled, [DeliveryEvent::Started { execution: executions[0] }]);
        }
    }
}

#[tokio::test]
async fn two_nodes_on_one_log_start_every_delivery_once() {
    let world = World::new(json!({ "input": { "n": { "cel": "trigger.body.n" } } })).await;
    let mut deliveries = Vec::new();
    for n in 0..20 {
        deliveries.push(world.receive(&n.to_string(), &json!({ "n": n }).to_string()).await);
    }
    let other = open_commands(world.folder.path(), world.log.clone()).await;
    let nodes = [world.commands.clone(), other].map(Deliveries::start);
    for node in &nodes {
        deliveries.iter().for_each(|delivery| node.add(Some(world.product), *delivery));
    }
    while world.outcomes().await.0.len() < 20 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    for node in &nodes {
        node.stop().await;
    }
    let (settled, executions) = world.outcomes().await;
    assert_eq!((settled.len(), executions.len()), (20, 20));
    assert_eq!(executions.iter().collect::<BTreeSet<_>>().len(), 20);
}

#[tokio::test]
async fn what_a_trigger_does_not_want_or_cannot_use_is_settled_too() {
    let world = World::new(json!({
        "match": "trigger.body.wanted", "input": { "n": { "cel": "trigger.body.n" } },
    }))
    .await;
    for (id, body) in [
        ("unwanted", r#"{"wanted":false}"#),
        ("no answer", "{}"),
        ("no input", r#"{"wanted":true}"#),
        ("unfit", r#"{"wanted":true,"n":"many"}"#),
        ("good", r#"{"wanted":true,"n":1}"#),
    ] {
        let delivery = world.receive(id, body).await;
        settle(&world.commands, delivery).await.expect("settled");
    }
    let (settled, executions) = world.outcomes().await;
    let told = settled.iter().map(|event| match event {
        DeliveryEvent::Failed { code, .. } => code.as_str(),
        DeliveryEvent::Filtered {} => "filtered",
        _ => "started",
    });
    let expected = ["filtered", "match_invalid", "input_invalid", "input_invalid", "started"];
    assert_eq!(told.collect::<Vec<_>>(), expected);
    assert_eq!(executions.len(), 1);
}

#[tokio::test]
async fn an_id_seen_before_keeps_the_first_delivery() {
    let world = World::new(json!({})).await;
    let first = world.receive("one", r#"{"n":1}"#).await;
    assert_eq!(world.receive("one", r#"{"n":2}"#).await, first);
    assert_ne!(world.receive("two", r#"{"n":1}"#).await, first);
    settle(&world.commands, first).await.expect("settled");
    assert_eq!(world.receive("one", r#"{"n":3}"#).await, first);
    assert_eq!(world.outcomes().await.1.len(), 1);
}

#[tokio::test]
async fn what_a_trigger_plainly_does_not_want_is_stored_with_that() {
    let world = World::new(json!({ "match": "trigger.body.n > 3" })).await;
    let delivery = world.receive("small", r#"{"n":1}"#).await;
    let stream = StreamId::new("delivery", delivery);
    let events = world.log.read_stream(&stream, 0, 10).await.expect("read");
    let [received, filtered] = &events[..] else { panic!("not two events: {events:?}") };
    assert_eq!(filtered.event_type, "delivery.filtered.v1");
    assert_eq!(filtered.actor, "system:webhook", "it is the server that does not want it");
    assert_eq!(filtered.causation, Some(received.id));
    assert_eq!(filtered.correlation, received.correlation);
    assert_eq!(filtered.command_id, received.command_id, "they are one append");

    assert_eq!(world.receive("small", r#"{"n":1}"#).await, delivery, "it comes again");
    settle(&world.commands, delivery).await.expect("settled already");
    assert_eq!(world.outcomes().await, (vec![DeliveryEvent::Filtered {}], vec![]));
}

#[tokio::test]
async fn what_is_not_plain_is_left_to_the_process_manager() {
    let long = format!(r#"{{"n":1,"text":"{}"}}"#, "x".repeat(100_000));
    let cases = [
        ("trigger.body.n < 3", r#"{"n":1}"#),
        ("trigger.body.n > 3 && size(config) == 0", r#"{"n":1}"#),
        ("trigger.body.absent > 3", r#"{"n":1}"#),
        ("trigger.body.n > 3", long.as_str()),
    ];
    for (filter, body) in cases {
        let world = World::new(json!({ "match": filter })).await;
        let delivery = world.receive("one", body).await;
        assert_eq!(world.outcomes().await, (vec![], vec![]), "{filter}: nothing yet");
        settle(&world.commands, delivery).await.expect("settled");
        assert_eq!(world.outcomes().await.0.len(), 1, "{filter}");
    }
}
