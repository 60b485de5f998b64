//! Agents on a real log: those of an older one, and races.

use domain::Digest;
use domain::event::decode;
use eventlog::{Append, Expected, NewEvent};
use serde::Deserialize;
use serde_json::json;
use serde_json::value::RawValue;
use tempfile::TempDir;

use super::*;
use crate::NewExecution;
use crate::testing::{open_commands, open_log};

/// An agent as it was written before there were versions, and before names and versions were claimed.
const OLD: &str = include_str!("../../../domain/golden/agent/agent.installed.v1.bare.json");

#[derive(Deserialize)]
struct Stored {
    #[serde(rename = "type")]
    event_type: String,
    data: Box<RawValue>,
}

struct World {
    _folder: TempDir,
    commands: Commands,
    product: Uuid,
}

impl World {
    async fn new() -> World {
        let folder = tempfile::tempdir().expect("a folder");
        let commands = open_commands(folder.path(), open_log(folder.path())).await;
        let ask = Ask::once("test", Uuid::nil(), None);
        let name = Name::parse("Product").expect("a name");
        let done = commands.create_product(name, None, &ask).await.expect("a product");
        let product = done.stream_id().expect("an id");
        World { _folder: folder, commands, product }
    }

    fn ask(&self) -> Ask {
        Ask::once("test", Uuid::nil(), Some(self.product))
    }

    async fn publish(&self, agent: Uuid, manifest: Manifest) -> Result<Done, Error> {
        let new = NewVersion { manifest, activate: true, config: None, bindings: BTreeMap::new() };
        self.commands.publish_version(agent, new, &self.ask()).await
    }

    async fn install(&self, manifest: Manifest) -> Result<Done, Error> {
        let new = NewAgent { manifest, title: None, config: None, bindings: BTreeMap::new() };
        self.commands.install_agent(new, &self.ask()).await
    }
}

fn manifest(version: &str, value: i64) -> Manifest {
    let document = json!({
        "manifest": "prodgy.agent/1", "name": "acme.counter", "version": version, "title": "Counter",
        "steps": [{ "id": "one", "type": "transform", "with": { "value": value } }],
    });
    Manifest::accept(&document).expect("a manifest")
}

fn code(outcome: Result<Done, Error>) -> &'static str {
    match outcome {
        Err(Error::Refused { code, .. } | Error::Invalid { code, .. }) => code,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn an_agent_of_an_older_log_goes_on_and_gets_versions() {
    let world = World::new().await;
    let stored: Stored = serde_json::from_str(OLD).expect("a golden file");
    let AgentEvent::Installed { version_id: first, .. } =
        decode(&stored.event_type, &stored.data).expect("it loads")
    else {
        panic!("another event")
    };
    let agent = Uuid::now_v7();
    let ask = world.ask();
    let append = Append {
        stream: StreamId::new("agent", agent),
        expected: Expected::Sequence(0),
        command_id: ask.command_id,
        request_hash: None,
        metadata: ask.metadata.clone(),
        keys: vec![],
        events: vec![NewEvent { event_type: stored.event_type, data: stored.data, metadata: None }],
    };
    world.commands.log().append(append).await.expect("appended");

    let run = async |version| {
        let new = NewExecution { agent, trigger: None, input: None };
        let done = world.commands.request_execution_of(new, version, &world.ask()).await;
        match decode_event(&done.expect("asked for").events[0]).expect("decoded") {
            domain::execution::ExecutionEvent::Requested { version_id, digest, .. } => {
                (version_id, digest)
            }
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(run(None).await, (first, Digest::sha256("manifest")));
    // Nobody claimed its name and version; its own versions are told apart all the same.
    let taken = world.publish(agent, manifest("1.0.0", 7)).await;
    assert_eq!(code(taken), "manifest_version_taken");
    let second = manifest("1.1.0", 2);
    world.publish(agent, second.clone()).await.expect("published");
    assert_eq!(run(None).await.1, second.digest());
    assert_eq!(run(Some(first)).await.0, first);
    let back = AgentChange { version_id: Some(first), ..AgentChange::default() };
    world.commands.change_agent(agent, back, &world.ask()).await.expect("rolled back");
    assert_eq!(run(None).await.0, first);
    assert_eq!(code(world.install(manifest("1.1.0", 3)).await), "manifest_version_taken");
    world.install(second).await.expect("the very same is another agent");
}

#[tokio::test]
async fn of_manifests_that_race_for_a_name_and_version_one_gets_it() {
    let world = World::new().await;
    let install = |value| world.install(manifest("1.0.0", value));
    let outcomes = tokio::join!(install(1), install(2), install(1), install(2));
    let [a, b, c, d] = [outcomes.0, outcomes.1, outcomes.2, outcomes.3].map(|it| it.is_ok());
    assert_ne!(a, b, "either the one or the other");
    assert_eq!((a, b), (c, d), "each as often as it likes");
}

#[tokio::test]
async fn a_configuration_that_comes_in_between_is_seen() {
    let world = World::new().await;
    let schema = |version: &str, field: &str| {
        let document = json!({
            "manifest": "prodgy.agent/1", "name": "acme.counter", "version": version, "title": "Counter",
            "config": { "properties": { field: { "type": "string" } }, "required": [field],
                        "additionalProperties": false },
            "steps": [{ "id": "one", "type": "transform" }],
        });
        Manifest::accept(&document).expect("a manifest")
    };
    let new = NewAgent {
        manifest: schema("1.0.0", "a"),
        title: None,
        config: Some(json!({ "a": "x" })),
        bindings: BTreeMap::new(),
    };
    let done = world.commands.install_agent(new, &world.ask()).await.expect("an agent");
    let agent = done.stream_id().expect("an id");
    let second = NewVersion {
        manifest: schema("2.0.0", "b"),
        activate: false,
        config: None,
        bindings: BTreeMap::new(),
    };
    world.commands.publish_version(agent, second, &world.ask()).await.expect("published");
    let state = world.commands.load::<Agent>(&StreamId::new("agent", agent)).await;
    let state = state.expect("loaded").0;
    let versions = state.installation().expect("installed").versions.clone();
    // Each change fits what it was sent for; whichever comes second finds what the first one left.
    for _ in 0..10 {
        let change = |version_id: Option<Uuid>, config: Option<Value>| {
            let change = AgentChange { version_id, config, ..AgentChange::default() };
            let ask = world.ask();
            let world = &world;
            async move { world.commands.change_agent(agent, change, &ask).await.is_ok() }
        };
        let forth = change(Some(versions[1].id), Some(json!({ "b": "y" })));
        let stays = change(None, Some(json!({ "a": "z" })));
        tokio::join!(forth, stays);
        let state = world.commands.load::<Agent>(&StreamId::new("agent", agent)).await;
        let state = state.expect("loaded").0;
        let active = state.installation().expect("installed").version_id;
        let manifest = world.commands.manifest_of(agent, active).await.expect("a manifest");
        let fits = world.commands.config_for(Uuid::nil(), agent, &manifest).await;
        assert!(fits.is_ok(), "{fits:?}");
        assert!(change(Some(versions[0].id), Some(json!({ "a": "x" }))).await);
    }
}
