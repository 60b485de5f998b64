//! What each kind of trigger takes, wherever it is written.

use serde_json::json;

use super::*;

#[test]
fn a_schedule_needs_nothing_but_a_pattern() {
    let setting = parse(TriggerKind::Schedule, json!({ "cron": "*/5 * * * *" })).unwrap();
    let Setting::Schedule { schedule, input: None } = setting else { panic!("{setting:?}") };
    assert_eq!((schedule.cron(), schedule.zone()), ("*/5 * * * *", "UTC"));
    assert_eq!((schedule.missed, schedule.overlap), (Missed::Last, Overlap::Skip));
    assert_eq!((schedule.jitter, schedule.start, schedule.end), (Duration::ZERO, None, None));
}

#[test]
fn an_event_needs_nothing_but_a_filter() {
    let setting = parse(TriggerKind::Event, json!({ "match": "event.type == 'x'" })).unwrap();
    let Setting::Event { filter, max_depth: DEFAULT_DEPTH, input: None } = setting else {
        panic!("{setting:?}")
    };
    let scope = |kind: &str| crate::expression::Scope {
        event: Some(json!({ "type": kind })),
        ..crate::expression::Scope::default()
    };
    assert_eq!((filter.truth(&scope("x")), filter.truth(&scope("y"))), (Ok(true), Ok(false)));
}

#[test]
fn every_fault_is_told_with_its_place() {
    let faults = |kind, configuration| {
        let faults = parse(kind, configuration).unwrap_err();
        faults.into_iter().map(|it| format!("{} {}", it.pointer, it.code)).collect::<Vec<_>>()
    };
    assert_eq!(faults(TriggerKind::Manual, json!({ "cron": "x" })), ["/cron field_unknown"]);
    assert_eq!(
        faults(TriggerKind::Schedule, json!({ "tz": "x", "missed": 1, "end": "x", "path": "a" })),
        [
            "/path field_unknown",
            "/cron field_missing",
            "/tz tz_unknown",
            "/missed type_mismatch",
            "/end time_invalid"
        ]
    );
    assert_eq!(
        faults(TriggerKind::Event, json!({ "match": "1 +", "input": { "cel": "steps" } })),
        ["/match cel_invalid", "/input/cel name_unknown"]
    );
    assert_eq!(faults(TriggerKind::Webhook, json!({})), [" trigger_type_not_available"]);
}

fn parse(kind: TriggerKind, configuration: Value) -> Result<Setting, Vec<Fault>> {
    Setting::parse(kind, configuration.as_object().unwrap())
}
