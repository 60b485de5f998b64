//! What a trigger allows.

use proptest::prelude::*;

use super::*;
use crate::history::{given, id, walk};

#[test]
fn a_trigger_is_made_and_may_be_completed_by_several() {
    given::<Trigger>(vec![]).when(create("manual")).then_expect_events(vec![created("manual")]);
    given::<Trigger>(vec![created("manual")]).when(create("manual")).then_expect_events(vec![]);
}

#[test]
fn a_trigger_is_not_made_over() {
    for past in [vec![created("manual")], vec![created("other"), TriggerEvent::Deleted {}]] {
        given::<Trigger>(past).when(create("other")).then_expect_error(TriggerError::AlreadyExists);
    }
}

#[test]
fn what_is_deleted_is_not_found() {
    given::<Trigger>(vec![created("manual")])
        .when(TriggerCommand::Delete)
        .then_expect_events(vec![TriggerEvent::Deleted {}]);
    for past in [vec![], vec![created("manual"), TriggerEvent::Deleted {}]] {
        given::<Trigger>(past.clone())
            .when(TriggerCommand::Delete)
            .then_expect_error(TriggerError::NotFound);
        assert_eq!(after(past).fire_manually(), Err(TriggerError::NotFound));
    }
}

#[test]
fn only_an_enabled_manual_trigger_is_fired_by_hand() {
    let trigger = |kind, enabled| Trigger::Active(TriggerDetails { kind, enabled, ..details("x") });
    assert_eq!(trigger(TriggerKind::Manual, true).fire_manually(), Ok(&details("x")));
    let refused = trigger(TriggerKind::Manual, false);
    assert_eq!(refused.fire_manually(), Err(TriggerError::Disabled));
    for kind in
        [TriggerKind::Schedule, TriggerKind::Webhook, TriggerKind::Message, TriggerKind::Event]
    {
        assert_eq!(trigger(kind, true).fire_manually(), Err(TriggerError::NotManual));
        assert!(!kind.as_str().is_empty());
    }
}

#[test]
fn every_refusal_has_its_code() {
    let table = [
        (TriggerError::NotFound, RefusalKind::NotFound, "trigger_not_found"),
        (TriggerError::AlreadyExists, RefusalKind::Conflict, "trigger_already_exists"),
        (TriggerError::NotManual, RefusalKind::Conflict, "trigger_not_manual"),
        (TriggerError::Disabled, RefusalKind::Conflict, "trigger_disabled"),
    ];
    for (refusal, kind, code) in table {
        assert_eq!(refusal.reason(), (kind, code));
    }
}

proptest! {
    #[test]
    fn the_log_tells_everything(
        keys in prop::collection::vec(prop::option::of("[ab]"), 0..20),
    ) {
        let commands = keys.iter().map(|key| match key {
            Some(key) => create(key),
            None => TriggerCommand::Delete,
        });
        walk::<Trigger>(commands.collect());
    }
}

fn after(events: Vec<TriggerEvent>) -> Trigger {
    let mut trigger = Trigger::default();
    events.into_iter().for_each(|event| trigger.apply(event));
    trigger
}

fn details(key: &str) -> TriggerDetails {
    TriggerDetails {
        agent: id(1),
        version_id: id(2),
        key: key.to_owned(),
        kind: TriggerKind::Manual,
        enabled: true,
        configuration: Object::new(),
    }
}

fn create(key: &str) -> TriggerCommand {
    TriggerCommand::Create(details(key))
}

fn created(key: &str) -> TriggerEvent {
    let TriggerDetails { agent, version_id, key, kind, enabled, configuration } = details(key);
    TriggerEvent::Created { agent, version_id, key, kind, enabled, configuration }
}
