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
        version_id: None,
        bindings: BTreeMap::from([("handbook".to_owned(), id(5))]),
    };
    given::<Agent>(vec![installed()]).when(change).then_expect_events(vec![
        AgentEvent::Changed { title: Some(name("New")) },
        AgentEvent::Configured { config: sealed("config") },
        AgentEvent::Bound { bindings: BTreeMap::from([("handbook".to_owned(), id(5))]) },
        AgentEvent::Disabled {},
    ]);
}

#[test]
fn a_change_that_changes_nothing_writes_nothing() {
    let change = AgentCommand::Change {
        title: Some(name("Small")),
        config: None,
        enabled: Some(true),
        version_id: Some(id(2)),
        bindings: BTreeMap::new(),
    };
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
fn a_version_is_published_and_runs_from_then_on() {
    let events = given::<Agent>(vec![installed()])
        .when(publish(&second(), true, &["notes"]))
        .inspect_result()
        .unwrap();
    let [AgentEvent::VersionPublished { version, digest, triggers, .. }, bound, activated] =
        &events[..]
    else {
        panic!("{events:?}");
    };
    assert_eq!((version.as_str(), digest), ("2.0.0", &second().digest()));
    assert_eq!(triggers[0].id, trigger_id(id(4), "manual"));
    assert_eq!(
        *bound,
        AgentEvent::Bound { bindings: BTreeMap::from([("notes".to_owned(), id(3))]) }
    );
    assert_eq!(*activated, AgentEvent::VersionActivated { version_id: id(4) });
    let agent = after([vec![installed()], events.clone()].concat());
    let agent = agent.installation().unwrap();
    assert_eq!((agent.version_id, agent.sequence), (id(4), 4));
    let sequences: Vec<u64> = agent.versions.iter().map(|version| version.sequence).collect();
    assert_eq!(sequences, [1, 2]);
}

#[test]
fn a_version_may_be_published_to_run_later_and_a_rollback_is_one_event() {
    let published = given::<Agent>(vec![installed()])
        .when(publish(&second(), false, &[]))
        .inspect_result()
        .unwrap();
    assert_eq!(published.len(), 1);
    let past = [vec![installed()], published].concat();
    assert_eq!(after(past.clone()).installation().unwrap().version_id, id(2));
    let forth = AgentEvent::VersionActivated { version_id: id(4) };
    given::<Agent>(past.clone()).when(activate(id(4))).then_expect_events(vec![forth.clone()]);
    let past = [past, vec![forth]].concat();
    given::<Agent>(past.clone())
        .when(activate(id(2)))
        .then_expect_events(vec![AgentEvent::VersionActivated { version_id: id(2) }]);
    given::<Agent>(past.clone()).when(activate(id(4))).then_expect_events(vec![]);
    given::<Agent>(past).when(activate(id(9))).then_expect_error(AgentError::UnknownVersion);
}

#[test]
fn a_version_is_another_manifest_of_the_same_name_with_a_version_of_its_own() {
    let past = vec![installed()];
    let refused = |manifest: &Manifest, refusal| {
        given::<Agent>(past.clone()).when(publish(manifest, true, &[])).then_expect_error(refusal);
    };
    refused(&manifest(), AgentError::AlreadyPublished("1.0.0".to_owned(), id(2)));
    refused(
        &changed(|it| it["name"] = json!("acme.other")),
        AgentError::OtherName("acme.small".to_owned()),
    );
    refused(
        &changed(|it| it["summary"] = json!("It is another one.")),
        AgentError::VersionTaken("1.0.0".to_owned()),
    );
    for past in [vec![], vec![installed(), AgentEvent::Uninstalled {}]] {
        given::<Agent>(past)
            .when(publish(&second(), true, &[]))
            .then_expect_error(AgentError::NotFound);
    }
}

#[test]
fn an_agent_has_a_bounded_number_of_versions() {
    let mut agent = after(vec![installed()]);
    for number in 1..MAX_VERSIONS {
        let manifest = changed(|it| it["version"] = json!(format!("3.0.{number}")));
        let events = agent.decide(publish(&manifest, false, &[])).unwrap();
        events.into_iter().for_each(|event| agent.apply(event));
    }
    let refused = agent.decide(publish(&second(), false, &[]));
    assert_eq!(refused, Err(AgentError::TooManyVersions));
}

#[test]
fn slots_are_those_of_the_version_that_is_to_run() {
    let past = after(vec![installed()]);
    let published = past.decide(publish(&second(), false, &[])).unwrap();
    let past = [vec![installed()], published].concat();
    let bind = |slot: &str, version_id| AgentCommand::Change {
        title: None,
        config: None,
        enabled: None,
        version_id,
        bindings: BTreeMap::from([(slot.to_owned(), id(3))]),
    };
    let bound =
        |slot: &str| AgentEvent::Bound { bindings: BTreeMap::from([(slot.to_owned(), id(3))]) };
    let unknown = |slot: &str| AgentError::UnknownSlot(slot.to_owned());
    let given = || given::<Agent>(past.clone());
    given().when(bind("notes", None)).then_expect_error(unknown("notes"));
    given().when(bind("handbook", None)).then_expect_events(vec![bound("handbook")]);
    given().when(bind("handbook", Some(id(4)))).then_expect_error(unknown("handbook"));
    given().when(bind("notes", Some(id(4)))).then_expect_events(vec![
        bound("notes"),
        AgentEvent::VersionActivated { version_id: id(4) },
    ]);
}

#[test]
fn triggers_of_a_manifest_listen_while_their_version_is_active() {
    let details = |key: &str| crate::trigger::TriggerDetails {
        agent: id(1),
        version_id: id(2),
        key: key.to_owned(),
        kind: TriggerKind::Schedule,
        enabled: true,
        configuration: Object::new(),
        secret: None,
    };
    let first = after(vec![installed()]);
    let published = first.decide(publish(&second(), true, &[])).unwrap();
    let then = after([vec![installed()], published.clone()].concat());
    let back = AgentEvent::VersionActivated { version_id: id(2) };
    let back = after([vec![installed()], published, vec![back]].concat());
    let (of_version, made_later) = (trigger_id(id(2), "nightly"), id(7));
    let listens = |id, agent: &Agent| details("nightly").listens(id, agent.installation().unwrap());
    assert_eq!([&first, &then, &back].map(|it| listens(of_version, it)), [true, false, true]);
    assert_eq!([&first, &then, &back].map(|it| listens(made_later, it)), [true; 3]);
    assert_eq!(details("nightly").version_of(made_later), None);
}

#[test]
fn every_refusal_has_its_code() {
    let table = [
        (AgentError::NotFound, RefusalKind::NotFound, "agent_not_found"),
        (AgentError::AlreadyInstalled, RefusalKind::Conflict, "agent_already_installed"),
        (AgentError::Disabled, RefusalKind::Conflict, "agent_disabled"),
        (AgentError::UnknownVersion, RefusalKind::Invalid, "version_not_found"),
        (AgentError::UnknownSlot(String::new()), RefusalKind::Invalid, "slot_unknown"),
        (AgentError::OtherName(String::new()), RefusalKind::Invalid, "manifest_name_differs"),
        (
            AgentError::AlreadyPublished(String::new(), id(1)),
            RefusalKind::Conflict,
            "version_already_published",
        ),
        (AgentError::VersionTaken(String::new()), RefusalKind::Conflict, "manifest_version_taken"),
        (AgentError::TooManyVersions, RefusalKind::Conflict, "versions_count"),
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
                version_id: None,
                bindings: BTreeMap::new(),
            }),
        2 => any::<bool>().prop_map(|activate| publish(&second(), activate, &["notes"])),
        2 => prop_oneof![Just(id(2)), Just(id(4))].prop_map(activate),
        1 => Just(AgentCommand::Uninstall),
    ]
}

fn document() -> Value {
    json!({
        "manifest": "prodgy.agent/1", "name": "acme.small", "version": "1.0.0", "title": "Small",
        "config": { "properties": { "ratio": { "type": "number", "default": 1.0 } } },
        "requires": { "knowledge": [{ "slot": "handbook" }] },
        "steps": [{ "id": "one", "type": "transform", "with": { "half": 0.5, "none": null } }],
    })
}

fn manifest() -> Manifest {
    changed(|_| {})
}

fn changed(change: impl FnOnce(&mut Value)) -> Manifest {
    let mut document = document();
    change(&mut document);
    Manifest::read(&document).unwrap()
}

/// The next version, with another slot.
fn second() -> Manifest {
    changed(|it| {
        it["version"] = json!("2.0.0");
        it["requires"] = json!({ "knowledge": [{ "slot": "notes" }] });
    })
}

fn publish(manifest: &Manifest, activate: bool, slots: &[&str]) -> AgentCommand {
    AgentCommand::Publish {
        manifest: Box::new(manifest.clone()),
        version_id: id(4),
        activate,
        config: None,
        bindings: slots.iter().map(|slot| ((*slot).to_owned(), id(3))).collect(),
    }
}

fn activate(version: Uuid) -> AgentCommand {
    let version_id = Some(version);
    AgentCommand::Change {
        title: None,
        config: None,
        enabled: None,
        version_id,
        bindings: BTreeMap::new(),
    }
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
    AgentCommand::Change {
        title: None,
        config: None,
        enabled: Some(enabled),
        version_id: None,
        bindings: BTreeMap::new(),
    }
}

fn after(events: Vec<AgentEvent>) -> Agent {
    let mut agent = Agent::default();
    events.into_iter().for_each(|event| agent.apply(event));
    agent
}
