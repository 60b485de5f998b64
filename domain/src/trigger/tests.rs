//! What a trigger allows.

use proptest::prelude::*;

use super::*;
use crate::history::{at, given, id, sealed, walk};

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
fn what_a_trigger_listens_to_is_replaced_and_it_is_switched_on_and_off() {
    let changed = |cron: &str| TriggerEvent::Changed { configuration: cron_of(cron) };
    let past = || vec![scheduled("0 3 * * *")];
    given::<Trigger>(past())
        .when(replace(None, "0 4 * * *"))
        .then_expect_events(vec![changed("0 4 * * *")]);
    given::<Trigger>(past())
        .when(replace(Some(false), "0 4 * * *"))
        .then_expect_events(vec![changed("0 4 * * *"), TriggerEvent::Disabled {}]);
    for same in [None, Some(true)] {
        given::<Trigger>(past()).when(replace(same, "0 3 * * *")).then_expect_events(vec![]);
    }
    let disabled = [past(), vec![TriggerEvent::Disabled {}]].concat();
    given::<Trigger>(disabled.clone()).when(replace(None, "0 3 * * *")).then_expect_events(vec![]);
    given::<Trigger>(disabled)
        .when(replace(Some(true), "0 3 * * *"))
        .then_expect_events(vec![TriggerEvent::Enabled {}]);
    for past in [vec![], vec![scheduled("0 3 * * *"), TriggerEvent::Deleted {}]] {
        given::<Trigger>(past)
            .when(replace(None, "0 4 * * *"))
            .then_expect_error(TriggerError::NotFound);
    }
}

#[test]
fn a_webhook_is_made_with_its_secret_and_keeps_the_one_before_for_a_while() {
    let (kind, key) = (TriggerKind::Webhook, "push");
    let first = Some(TriggerSecret::first(sealed("one")));
    let made = TriggerDetails { kind, secret: first, ..details(key) };
    let webhook = TriggerEvent::Created {
        agent: id(1),
        version_id: id(2),
        key: key.to_owned(),
        kind,
        enabled: true,
        configuration: Object::new(),
    };
    given::<Trigger>(vec![])
        .when(TriggerCommand::Create(made))
        .then_expect_events(vec![webhook.clone(), secret_set("one", None)]);

    let past = vec![webhook.clone(), secret_set("one", None)];
    let rotate = set_secret("two", Some(at(10)));
    given::<Trigger>(past.clone())
        .when(rotate)
        .then_expect_events(vec![secret_set("two", Some(at(10)))]);
    let replaced = TriggerCommand::Replace {
        kind,
        enabled: Some(false),
        configuration: cron_of("x"),
        secret: Some(sealed("two")),
    };
    given::<Trigger>(past.clone()).when(replaced).then_expect_events(vec![
        TriggerEvent::Changed { configuration: cron_of("x") },
        secret_set("two", None),
        TriggerEvent::Disabled {},
    ]);

    let good = |events: Vec<TriggerEvent>, second| {
        let Trigger::Active(details) = after(events) else { panic!() };
        let secret = details.secret.unwrap();
        secret.good_at(at(second)).cloned().collect::<Vec<_>>()
    };
    let rotated = [past.clone(), vec![secret_set("two", Some(at(10)))]].concat();
    assert_eq!(good(rotated.clone(), 9), [sealed("two"), sealed("one")]);
    assert_eq!(good(rotated, 10), [sealed("two")]);
    let replaced = [past, vec![secret_set("two", None)]].concat();
    assert_eq!(good(replaced, 0), [sealed("two")]);
}

#[test]
fn only_a_webhook_has_a_secret() {
    given::<Trigger>(vec![created("manual")])
        .when(set_secret("one", None))
        .then_expect_error(TriggerError::NoSecret);
    given::<Trigger>(vec![])
        .when(set_secret("one", None))
        .then_expect_error(TriggerError::NotFound);
}

#[test]
fn a_trigger_stays_of_its_type() {
    given::<Trigger>(vec![created("manual")])
        .when(replace(None, "0 3 * * *"))
        .then_expect_error(TriggerError::OtherKind(TriggerKind::Manual));
    let faults = TriggerError::OtherKind(TriggerKind::Manual).faults();
    assert_eq!(faults.first().map(|fault| fault.pointer.as_str()), Some("/type"));
}

#[test]
fn only_the_manual_trigger_of_a_manifest_cannot_be_removed() {
    let remove = |is_of_manifest| TriggerCommand::Remove { is_of_manifest };
    given::<Trigger>(vec![created("manual")])
        .when(remove(true))
        .then_expect_error(TriggerError::Needed);
    given::<Trigger>(vec![created("manual")])
        .when(remove(false))
        .then_expect_events(vec![TriggerEvent::Deleted {}]);
    for is_of_manifest in [true, false] {
        given::<Trigger>(vec![scheduled("0 3 * * *")])
            .when(remove(is_of_manifest))
            .then_expect_events(vec![TriggerEvent::Deleted {}]);
        given::<Trigger>(vec![])
            .when(remove(is_of_manifest))
            .then_expect_error(TriggerError::NotFound);
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
        (TriggerError::OtherKind(TriggerKind::Manual), RefusalKind::Invalid, "trigger_type_fixed"),
        (TriggerError::NoSecret, RefusalKind::Conflict, "trigger_without_secret"),
        (TriggerError::Needed, RefusalKind::Conflict, "trigger_needed"),
        (TriggerError::TooMany, RefusalKind::Conflict, "triggers_count"),
    ];
    for (refusal, kind, code) in table {
        assert_eq!(refusal.reason(), (kind, code));
    }
}

proptest! {
    #[test]
    fn the_log_tells_everything(
        asked in prop::collection::vec((0..9_u8, "[ab]"), 0..20),
    ) {
        let commands = asked.iter().map(|(what, word)| match what {
            0 => create(word),
            1 => TriggerCommand::Create(TriggerDetails {
                kind: TriggerKind::Schedule,
                configuration: cron_of(word),
                ..details(word)
            }),
            2 => replace(None, word),
            3 => replace(Some(word == "a"), word),
            6 => TriggerCommand::Create(TriggerDetails {
                kind: TriggerKind::Webhook,
                secret: Some(TriggerSecret::first(sealed(word))),
                ..details(word)
            }),
            7 => set_secret(word, None),
            8 => set_secret(word, Some(at(9))),
            4 => TriggerCommand::Remove { is_of_manifest: word == "a" },
            _ => TriggerCommand::Delete,
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
        secret: None,
    }
}

fn create(key: &str) -> TriggerCommand {
    TriggerCommand::Create(details(key))
}

fn created(key: &str) -> TriggerEvent {
    let TriggerDetails { agent, version_id, key, kind, enabled, configuration, .. } = details(key);
    TriggerEvent::Created { agent, version_id, key, kind, enabled, configuration }
}

fn cron_of(cron: &str) -> Object {
    Object::from_iter([("cron".to_owned(), cron.into())])
}

fn scheduled(cron: &str) -> TriggerEvent {
    TriggerEvent::Created {
        agent: id(1),
        version_id: id(2),
        key: "nightly".to_owned(),
        kind: TriggerKind::Schedule,
        enabled: true,
        configuration: cron_of(cron),
    }
}

fn replace(enabled: Option<bool>, cron: &str) -> TriggerCommand {
    let (kind, configuration) = (TriggerKind::Schedule, cron_of(cron));
    TriggerCommand::Replace { kind, enabled, configuration, secret: None }
}

fn set_secret(secret: &str, previous_until: Option<Timestamp>) -> TriggerCommand {
    TriggerCommand::SetSecret { secret: sealed(secret), previous_until }
}

fn secret_set(secret: &str, previous_until: Option<Timestamp>) -> TriggerEvent {
    TriggerEvent::SecretSet { secret: sealed(secret), previous_until }
}
