//! What each kind of trigger takes, wherever it is written.

use serde_json::json;

use super::*;
use crate::trigger::message::Source;
use crate::trigger::webhook::{DeliveryIdPlace, HmacEncoding, HmacHash, Verify};

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
fn a_webhook_says_how_deliveries_are_verified_and_which_ones_it_wants() {
    let configuration = json!({
        "path": "acme/push", "verify": "hmac-sha256", "header": "X-Acme-Signature",
        "delivery_id": "/id", "match": "trigger.headers['x-acme-event'] == 'push'",
        "input": { "commit": { "cel": "trigger.body.commit" } },
    });
    let Setting::Webhook(webhook) = parse(TriggerKind::Webhook, configuration).unwrap() else {
        panic!()
    };
    assert_eq!(webhook.path.as_deref(), Some("acme/push"));
    let header = "x-acme-signature".to_owned();
    let plain = Verify::Hmac { hash: HmacHash::Sha256, header, encoding: None, prefix: None };
    assert_eq!(webhook.verify, plain);
    assert_eq!(webhook.delivery_id, [DeliveryIdPlace::Pointer("/id".to_owned())]);
    assert!(webhook.filter.is_some() && webhook.input.is_some());
    for verify in ["none", "github", "gitlab", "bitbucket", "standard-webhooks", "basic"] {
        let setting = parse(TriggerKind::Webhook, json!({ "verify": verify })).unwrap();
        let Setting::Webhook(webhook) = setting else { panic!() };
        assert_eq!((webhook.verify.as_str(), webhook.path), (verify, None));
        assert_eq!(webhook.verify.needs_secret(), verify != "none");
    }
}

#[test]
fn an_hmac_is_of_any_hash_and_written_as_it_is_said() {
    for (name, hash) in [
        ("hmac-sha1", HmacHash::Sha1),
        ("hmac-sha256", HmacHash::Sha256),
        ("hmac-sha512", HmacHash::Sha512),
    ] {
        let configuration = json!({
            "verify": name, "header": "X-A", "encoding": "base64url", "prefix": "v1=",
            "delivery_id": ["/subscriptionId", "X-Part"],
        });
        let setting = parse(TriggerKind::Webhook, configuration).unwrap();
        let Setting::Webhook(webhook) = setting else { panic!() };
        assert_eq!(webhook.verify.as_str(), name);
        let (encoding, prefix) = (Some(HmacEncoding::Base64Url), Some("v1=".to_owned()));
        assert_eq!(webhook.verify, Verify::Hmac { hash, header: "x-a".into(), encoding, prefix });
        let pointer = DeliveryIdPlace::Pointer("/subscriptionId".to_owned());
        assert_eq!(webhook.delivery_id, [pointer, DeliveryIdPlace::Header("x-part".to_owned())]);
    }
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
    let webhook = |configuration| faults(TriggerKind::Webhook, configuration);
    assert_eq!(webhook(json!({})), ["/verify field_missing"]);
    assert_eq!(
        webhook(
            json!({ "verify": "magic", "path": "/a", "secret": "x", "input": { "cel": "event" } })
        ),
        [
            "/secret secret_misplaced",
            "/path path_invalid",
            "/verify choice_unknown",
            "/input/cel name_unknown"
        ]
    );
    assert_eq!(webhook(json!({ "verify": "token" })), ["/header field_missing"]);
    assert_eq!(
        webhook(json!({ "verify": "hmac-sha256", "header": "a b", "match": "1 +" })),
        ["/header header_invalid", "/match cel_invalid"]
    );
    assert_eq!(
        webhook(json!({ "verify": "github", "header": "X-A", "delivery_id": "a:b" })),
        ["/header field_unused", "/delivery_id header_invalid"]
    );
    // What is not known needs no header, or may need one.
    assert_eq!(webhook(json!({ "verify": "magic", "header": "a b" })), ["/verify choice_unknown"]);
    assert_eq!(
        webhook(json!({ "verify": "hmac-sha1", "header": "X", "encoding": "hax", "prefix": "ä" })),
        ["/encoding choice_unknown", "/prefix prefix_invalid"]
    );
    assert_eq!(
        webhook(json!({ "verify": "github", "encoding": "hex", "prefix": "", "delivery_id": [] })),
        ["/encoding field_unused", "/prefix field_unused", "/delivery_id delivery_id_invalid"]
    );
    let places = json!(["/a", "b c", "X-D"]);
    assert_eq!(
        webhook(json!({ "verify": "none", "delivery_id": places })),
        ["/delivery_id/1 header_invalid"]
    );
    assert_eq!(
        webhook(json!({ "verify": "none", "delivery_id": ["/a", 1] })),
        ["/delivery_id type_mismatch"]
    );
    for path in ["", "a//b", "a/", "../a", "a/./b", "a b", "a?b", "ä", &"a".repeat(201)] {
        assert_eq!(webhook(json!({ "verify": "none", "path": path })), ["/path path_invalid"]);
    }
}

#[test]
fn who_says_nothing_hears_every_message() {
    let message = |configuration| match parse(TriggerKind::Message, configuration) {
        Ok(Setting::Message(message)) => message,
        other => panic!("{other:?}"),
    };
    let any = message(json!({}));
    assert_eq!((any.from, any.channel, any.filter, any.input), (Source::Any, None, None, None));
    let id = "01010101-0101-0101-0101-010101010101";
    let one =
        message(json!({ "integration": id, "channel": "C1", "match": "trigger.text == 'x'" }));
    assert_eq!(one.from, Source::Integration(id.parse().unwrap()));
    assert_eq!(one.channel.as_deref(), Some("C1"));
    assert_eq!(message(json!({ "slot": "talk" })).from, Source::Slot("talk".to_owned()));
    let faults = |configuration| {
        let faults = parse(TriggerKind::Message, configuration).unwrap_err();
        faults.into_iter().map(|it| format!("{} {}", it.pointer, it.code)).collect::<Vec<_>>()
    };
    assert_eq!(
        faults(json!({ "slot": "a", "integration": "b", "channel": "", "match": "1 +" })),
        [
            "/integration integration_invalid",
            "/integration fields_exclude_each_other",
            "/channel channel_invalid",
            "/match cel_invalid"
        ]
    );
}

fn parse(kind: TriggerKind, configuration: Value) -> Result<Setting, Vec<Fault>> {
    Setting::parse(kind, configuration.as_object().unwrap())
}
