//! What an agent allows.

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::history::{given, id, name, sealed, walk};

#[test]
fn an_agent_is_installed_with_everything_that_follows_from_its_manifest() {
    let events = given::<Agent>(vec![]).when(install(&[])).inspect_result().unwrap();
    let [AgentEvent::Installed { name, version, digest, manifest: stored, triggers, .. }] =
        &events[..]
    else {
        panic!("{events:?}");
    };
    assert_eq!((name.as_str(), version.as_str()), ("acme.small", "1.0.0"));
    assert_eq!(*digest, manifest().digest());
    assert_eq!(*stored, *manifest().canonical());
    assert_eq!(triggers.len(), 1);
    assert_eq!(triggers[0].key, "manual");
    assert_eq!(triggers[0].id.get_version_num(), 8);
    assert!(triggers[0].enabled);
}

#[test]
fn ids_of_triggers_follow_from_the_version() {
    assert_eq!(triggers(&manifest(), id(1)), triggers(&manifest(), id(1)));
    assert_ne!(triggers(&manifest(), id(1))[0].id, triggers(&manifest(), id(2))[0].id);
}

#[test]
fn an_agent_is_installed_once() {
    for past in [vec![installed()], vec![installed(), AgentEvent::Uninstalled {}]] {
        given::<Agent>(past).when(install(&[])).then_expect_error(AgentError::AlreadyInstalled);
    }
}

#[test]
fn only_slots_of_the_manifest_are_bound() {
    assert!(given::<Agent>(vec![]).when(install(&["handbook"])).inspect_result().is_ok());
    let unknown = AgentError::UnknownSlot("a/b".to_owned());
    assert_eq!(unknown.faults()[0].pointer, "/bindings/a~1b");
    given::<Agent>(vec![]).when(install(&["handbook", "a/b"])).then_expect_error(unknown);
}

#[test]
fn each_change_is_an_event_of_its_own() {
    let change = AgentCommand::Change {
        title: Some(name("New")),
        config: Some(sealed("config")),
        enabled: Some(false),
    };
    given::<Agent>(vec![installed()]).when(change).then_expect_events(vec![
        AgentEvent::Changed { title: Some(name("New")) },
        AgentEvent::Configured { config: sealed("config") },
        AgentEvent::Disabled {},
    ]);
}

#[test]
fn a_change_that_changes_nothing_writes_nothing() {
    let change =
        AgentCommand::Change { title: Some(name("Small")), config: None, enabled: Some(true) };
    given::<Agent>(vec![installed()]).when(change).then_expect_events(vec![]);
    given::<Agent>(vec![installed(), AgentEvent::Disabled {}])
        .when(enable(false))
        .then_expect_events(vec![]);
    given::<Agent>(vec![installed(), AgentEvent::Disabled {}])
        .when(enable(true))
        .then_expect_events(vec![AgentEvent::Enabled {}]);
}

#[test]
fn what_is_uninstalled_is_not_found() {
    given::<Agent>(vec![installed()])
        .when(AgentCommand::Uninstall)
        .then_expect_events(vec![AgentEvent::Uninstalled {}]);
    for past in [vec![], vec![installed(), AgentEvent::Uninstalled {}]] {
        given::<Agent>(past.clone())
            .when(AgentCommand::Uninstall)
            .then_expect_error(AgentError::NotFound);
        given::<Agent>(past.clone()).when(enable(true)).then_expect_error(AgentError::NotFound);
        assert_eq!(after(past).runnable().unwrap_err(), AgentError::NotFound);
    }
}

#[test]
fn only_an_enabled_agent_runs() {
    assert!(after(vec![installed()]).runnable().is_ok());
    let disabled = after(vec![installed(), AgentEvent::Disabled {}]);
    assert_eq!(disabled.runnable().unwrap_err(), AgentError::Disabled);
    assert!(
        after(vec![installed(), AgentEvent::Disabled {}, AgentEvent::Enabled {}])
            .runnable()
            .is_ok()
    );
}

#[test]
fn every_refusal_has_its_code() {
    let table = [
        (AgentError::NotFound, RefusalKind::NotFound, "agent_not_found"),
        (AgentError::AlreadyInstalled, RefusalKind::Conflict, "agent_already_installed"),
        (AgentError::Disabled, RefusalKind::Conflict, "agent_disabled"),
        (AgentError::UnknownVersion, RefusalKind::Invalid, "version_not_found"),
        (AgentError::UnknownSlot(String::new()), RefusalKind::Invalid, "slot_unknown"),
    ];
    for (refusal, kind, code) in table {
        assert_eq!(refusal.reason(), (kind, code));
    }
}

proptest! {
    #[test]
    fn the_log_tells_everything(commands in prop::collection::vec(command(), 0..20)) {
        walk::<Agent>(commands);
    }
}

fn command() -> impl Strategy<Value = AgentCommand> {
    prop_oneof![
        1 => Just(install(&["handbook"])),
        1 => Just(install(&["nothing"])),
        5 => (prop::option::of("[ab]"), prop::option::of("[ab]"), prop::option::of(any::<bool>()))
            .prop_map(|(title, config, enabled)| AgentCommand::Change {
                title: title.as_deref().map(name),
                config: config.as_deref().map(sealed),
                enabled,
            }),
        1 => Just(AgentCommand::Uninstall),
    ]
}

fn manifest() -> Manifest {
    Manifest::parse(&json!({
        "manifest": "prodgy.agent/1", "name": "acme.small", "version": "1.0.0", "title": "Small",
        "config": { "properties": { "ratio": { "type": "number", "default": 1.0 } } },
        "requires": { "knowledge": [{ "slot": "handbook" }] },
        "steps": [{ "id": "one", "type": "transform", "with": { "half": 0.5, "none": null } }],
    }))
    .unwrap()
}

fn install(slots: &[&str]) -> AgentCommand {
    AgentCommand::Install {
        title: name("Small"),
        manifest: Box::new(manifest()),
        version_id: id(2),
        config: Some(sealed("config")),
        bindings: slots.iter().map(|slot| ((*slot).to_owned(), id(3))).collect(),
    }
}

fn installed() -> AgentEvent {
    let events = Agent::Missing.decide(install(&[])).unwrap();
    events.into_iter().next().unwrap()
}

fn enable(enabled: bool) -> AgentCommand {
    AgentCommand::Change { title: None, config: None, enabled: Some(enabled) }
}

fn after(events: Vec<AgentEvent>) -> Agent {
    let mut agent = Agent::default();
    events.into_iter().for_each(|event| agent.apply(event));
    agent
}
