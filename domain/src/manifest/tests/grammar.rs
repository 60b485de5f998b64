//! The whole grammar: every part of it once, and every way to get it wrong.

use std::time::Duration;

use serde_json::{Value, json};

use super::Case;
use crate::manifest::*;
use crate::schedule::{Missed, Overlap};
use crate::trigger::{Setting, TriggerKind};

#[test]
fn everything_is_read() {
    let manifest = Manifest::read(&full()).unwrap();
    assert_eq!(manifest.requires.model, Some(Capability::Chat));
    assert_eq!(manifest.limits.timeout, Duration::from_secs(3 * 86_400));
    assert_eq!(manifest.limits.queue_timeout, Duration::from_secs(600));
    let concurrency = manifest.limits.concurrency.as_ref().unwrap();
    assert_eq!((concurrency.max, concurrency.strategy), (2, ConcurrencyStrategy::CancelRunning));
    assert_eq!(concurrency.key.as_ref().unwrap().source(), "input.urls[0]");

    let kinds: Vec<_> = manifest.triggers.iter().map(|trigger| trigger.kind).collect();
    let expected = [
        TriggerKind::Schedule,
        TriggerKind::Event,
        TriggerKind::Webhook,
        TriggerKind::Message,
        TriggerKind::Manual,
    ];
    assert_eq!(kinds, expected);
    let Setting::Schedule { schedule, input } = &manifest.triggers[0].setting else { panic!() };
    assert_eq!((schedule.cron(), schedule.zone()), ("0 3 * * *", "Europe/Madrid"));
    assert_eq!((schedule.missed, schedule.overlap), (Missed::All, Overlap::Queue));
    assert_eq!(schedule.jitter, Duration::from_secs(60));
    assert_eq!(*input, Some(json!({ "urls": ["https://example.com"] })));
    let Setting::Event { filter, max_depth, .. } = &manifest.triggers[1].setting else { panic!() };
    assert_eq!((filter.source(), *max_depth), ("event.type == 'file.indexed.v1'", 2));
    let Setting::Webhook(webhook) = &manifest.triggers[2].setting else { panic!() };
    assert_eq!(webhook.path.as_deref(), Some("acme/push.1"));
    let Setting::Message(message) = &manifest.triggers[3].setting else { panic!() };
    assert_eq!(message.channel.as_deref(), Some("C0123456789"));
    assert_eq!(manifest.triggers[4].key, "manual");

    let control = |id: &str| {
        let step = manifest.steps.iter().find(|step| step.id == id).unwrap();
        &step.control
    };
    let fetch = control("fetch");
    assert_eq!(fetch.when.as_ref().unwrap().source(), "size(input.urls) > 0");
    let foreach = fetch.foreach.as_ref().unwrap();
    assert_eq!(
        (foreach.items.source(), foreach.max_parallel, foreach.max_items),
        ("input.urls", 4, 20)
    );
    assert_eq!(fetch.timeout, Some(Duration::from_secs(30)));
    assert_eq!(fetch.on_error, OnError::Continue);
    assert_eq!(fetch.retry.attempts, 4);
    assert_eq!(fetch.retry.on, [RetryOn::Transient, RetryOn::Code("http_status_429".to_owned())]);
    assert_eq!(fetch.retry.backoff.initial, Duration::from_millis(500));
    assert_eq!(fetch.retry.backoff.max, Duration::from_secs(120));
    assert_eq!(*control("enough"), Control::default());
    let names = control("names").foreach.as_ref().unwrap();
    assert_eq!((names.max_parallel, names.max_items), (1, DEFAULT_ITEMS));
}

#[test]
fn what_is_not_said_has_a_default() {
    let manifest = Manifest::read(&super::small()).unwrap();
    assert_eq!(manifest.limits, Limits::default());
    assert_eq!(manifest.limits.timeout, Duration::from_secs(86_400));
    assert_eq!(manifest.steps[0].control, Control::default());
    assert_eq!(manifest.steps[0].control.retry.attempts, 1);
}

#[test]
fn all_that_the_grammar_says_of_limits_triggers_and_steps_runs_in_this_version() {
    let parsed = Manifest::read(&full());
    assert!(parsed.is_ok(), "{:?}", parsed.err());
}

#[test]
fn every_fault_of_the_grammar_is_told_with_its_place() {
    for (expected, change) in cases() {
        let mut document = full();
        change(&mut document);
        assert_eq!(told(&document), expected);
    }
}

#[test]
fn a_retry_follows_what_it_was_told_to_follow() {
    let failure = |code| Failure { code, is_transient: false, is_timeout: false };
    let retry = Retry { attempts: 3, on: vec![RetryOn::Code("a".to_owned())], ..Retry::default() };
    assert!(retry.follows(1, failure("a")) && retry.follows(2, failure("a")));
    assert!(!retry.follows(3, failure("a")), "the third was the last");
    assert!(!retry.follows(1, failure("b")));
    let passing = Failure { code: "b", is_transient: true, is_timeout: false };
    assert!(!retry.follows(1, passing));
    let retry = Retry { attempts: 3, ..Retry::default() };
    assert!(retry.follows(1, passing) && !retry.follows(1, failure("b")));
    assert!(retry.follows(1, Failure { is_timeout: true, ..failure("b") }));
    assert!(Retry { on: vec![RetryOn::Any], ..retry }.follows(1, failure("b")));
    assert!(!Retry::default().follows(1, passing), "once, where nothing is said");
}

#[test]
fn waits_between_attempts_grow_up_to_a_bound_and_are_the_same_again() {
    let steady = Backoff { jitter: 0.0, max: Duration::from_secs(5), ..Backoff::default() };
    let waits: Vec<_> =
        [1, 2, 3, 4, u32::MAX].map(|attempt| steady.wait_after(attempt, b"x").as_secs()).into();
    assert_eq!(waits, [1, 2, 4, 5, 5]);
    let shaky = Backoff { jitter: 1.0, ..Backoff::default() };
    let seeds: std::collections::BTreeSet<_> =
        (0_u8..50).map(|seed| shaky.wait_after(3, &[seed])).collect();
    assert!(seeds.len() > 40, "each has its own");
    assert!(seeds.iter().all(|wait| *wait <= Duration::from_secs(4)));
    assert_eq!(shaky.wait_after(3, b"x"), shaky.wait_after(3, b"x"));
}

/// The faults that a change to the whole grammar leads to, whether this version runs it or not.
pub(super) fn cases() -> Vec<Case> {
    fn step(id: &str, document: &mut Value, change: impl FnOnce(&mut Value)) {
        let steps = document["steps"].as_array_mut().unwrap();
        change(steps.iter_mut().find(|step| step["id"] == id).unwrap());
    }
    vec![
        (&["/requires/model/capability choice_unknown"], |it| {
            it["requires"]["model"]["capability"] = json!("telepathy");
        }),
        (&["/requires/model/capability field_missing"], |it| it["requires"]["model"] = json!({})),
        (
            &["/steps/3/with/prompt model_not_required", "/steps/3/with/schema model_not_required"],
            |it| {
                it["requires"].as_object_mut().unwrap().remove("model");
            },
        ),
        (&["/limits type_mismatch"], |it| it["limits"] = json!("none")),
        (&["/limits/memory field_unknown"], |it| it["limits"]["memory"] = json!(1)),
        (&["/limits/timeout duration_invalid"], |it| it["limits"]["timeout"] = json!("PT5D")),
        (&["/limits/timeout type_mismatch"], |it| it["limits"]["timeout"] = json!(300)),
        (&["/limits/timeout duration_out_of_range"], |it| {
            it["limits"]["timeout"] = json!("999d");
        }),
        (&["/steps/5/with/for wait_longer_than_timeout"], |it| {
            it["limits"]["timeout"] = json!("2d");
        }),
        (&["/limits/concurrency/max out_of_range"], |it| {
            it["limits"]["concurrency"]["max"] = json!(0);
        }),
        (&["/limits/concurrency/strategy choice_unknown"], |it| {
            it["limits"]["concurrency"]["strategy"] = json!("hope");
        }),
        (&["/limits/concurrency/key name_unknown"], |it| {
            it["limits"]["concurrency"]["key"] = json!("steps.fetch.output");
        }),
        (&["/limits/concurrency/key/cel cel_invalid"], |it| {
            it["limits"]["concurrency"]["key"] = json!({ "cel": "1 +" });
        }),
        (&["/triggers/0/cron field_missing"], |it| {
            it["triggers"][0].as_object_mut().unwrap().remove("cron");
        }),
        (&["/triggers/0/cron cron_invalid"], |it| it["triggers"][0]["cron"] = json!("0 25 * * *")),
        (&["/triggers/0/cron cron_invalid"], |it| it["triggers"][0]["cron"] = json!("0 0 30 2 *")),
        (&["/triggers/0/tz tz_unknown"], |it| it["triggers"][0]["tz"] = json!("Madrid")),
        (&["/triggers/0/missed choice_unknown"], |it| it["triggers"][0]["missed"] = json!("some")),
        (&["/triggers/0/overlap choice_unknown"], |it| it["triggers"][0]["overlap"] = json!("x")),
        (&["/triggers/0/jitter duration_out_of_range"], |it| {
            it["triggers"][0]["jitter"] = json!("2h");
        }),
        (&["/triggers/0/start time_invalid"], |it| it["triggers"][0]["start"] = json!("today")),
        (&["/triggers/0/end end_before_start"], |it| {
            it["triggers"][0]["end"] = json!("2020-01-01T00:00:00Z");
        }),
        (&["/triggers/0/input/urls input_invalid"], |it| it["triggers"][0]["input"] = json!({})),
        (&["/triggers/0/input/urls/cel name_unknown"], |it| {
            it["triggers"][0]["input"] = json!({ "urls": { "cel": "event.data" } });
        }),
        (&["/triggers/0/id trigger_id_reserved"], |it| it["triggers"][0]["id"] = json!("manual")),
        (&["/triggers triggers_count"], |it| {
            let many = (0..=MAX_TRIGGERS).map(|place| {
                json!({ "id": format!("t{place}"), "type": "schedule", "cron": "0 3 * * *" })
            });
            it["triggers"] = many.collect();
        }),
        (&["/triggers/1/match field_missing"], |it| {
            it["triggers"][1].as_object_mut().unwrap().remove("match");
        }),
        (&["/triggers/1/match name_unknown"], |it| it["triggers"][1]["match"] = json!("input.n")),
        (&["/triggers/1/match type_mismatch"], |it| it["triggers"][1]["match"] = json!(true)),
        (&["/triggers/1/max_depth out_of_range"], |it| it["triggers"][1]["max_depth"] = json!(99)),
        (&["/triggers/3/path field_unknown"], |it| it["triggers"][3]["path"] = json!("a")),
        (&["/triggers/3/channel channel_invalid"], |it| it["triggers"][3]["channel"] = json!("")),
        (&["/triggers/3/slot slot_unknown"], |it| it["triggers"][3]["slot"] = json!("chat")),
        (&["/triggers/3/slot slot_not_of_communicators"], |it| {
            it["triggers"][3]["slot"] = json!("git");
        }),
        (&["/triggers/3/integration fields_exclude_each_other"], |it| {
            it["triggers"][3]["integration"] = json!("01010101-0101-0101-0101-010101010101");
        }),
        (&["/triggers/3/match name_unknown"], |it| it["triggers"][3]["match"] = json!("event.x")),
        (&["/triggers/3/input/urls input_invalid"], |it| it["triggers"][3]["input"] = json!({})),
        (&["/steps/7/with/text argument_missing"], |it| {
            step("tell", it, |step| drop(step["with"].as_object_mut().unwrap().remove("text")));
        }),
        (&["/steps/7/with/operation argument_unknown"], |it| {
            step("tell", it, |step| step["with"]["operation"] = json!("post_message"));
        }),
        (&["/steps/7/with/slot target_unclear"], |it| {
            step("tell", it, |step| drop(step["with"].as_object_mut().unwrap().remove("slot")));
        }),
        (&["/steps/7/with/slot operation_not_of_slot"], |it| {
            step("tell", it, |step| step["with"]["slot"] = json!("git"));
        }),
        (&["/triggers/1/cron field_unknown"], |it| it["triggers"][1]["cron"] = json!("* * * * *")),
        (&["/steps/0/when cel_invalid"], |it| it["steps"][0]["when"] = json!("1 +")),
        (&["/steps/0/when name_unknown"], |it| it["steps"][0]["when"] = json!("item > 1")),
        (&["/steps/0/when step_not_needed"], |it| {
            it["steps"][0]["when"] = json!("steps.answer.output.x");
        }),
        (&["/steps/0/when type_mismatch"], |it| it["steps"][0]["when"] = json!(true)),
        (&["/steps/0/foreach/items field_missing"], |it| {
            it["steps"][0]["foreach"].as_object_mut().unwrap().remove("items");
        }),
        (&["/steps/0/foreach/max_parallel out_of_range"], |it| {
            it["steps"][0]["foreach"]["max_parallel"] = json!(1000);
        }),
        (&["/steps/0/foreach/max_items out_of_range"], |it| {
            it["steps"][0]["foreach"]["max_items"] = json!(1_000_000);
        }),
        (&["/steps/0/foreach type_mismatch"], |it| it["steps"][0]["foreach"] = json!(["a"])),
        (
            &[
                "/steps/0/with/headers/X-Index/template name_unknown",
                "/steps/0/with/url/cel name_unknown",
            ],
            |it| {
                it["steps"][0].as_object_mut().unwrap().remove("foreach");
            },
        ),
        (&["/steps/0/retry/attempts field_missing"], |it| it["steps"][0]["retry"] = json!({})),
        (&["/steps/0/retry/attempts out_of_range"], |it| {
            it["steps"][0]["retry"]["attempts"] = json!(100);
        }),
        (&["/steps/0/retry/on retry_on_nothing"], |it| it["steps"][0]["retry"]["on"] = json!([])),
        (&["/steps/0/retry/on/0 retry_on_invalid"], |it| {
            it["steps"][0]["retry"]["on"] = json!(["HTTP 503"]);
        }),
        (&["/steps/0/retry/backoff/factor out_of_range"], |it| {
            it["steps"][0]["retry"]["backoff"]["factor"] = json!(0.5);
        }),
        (&["/steps/0/retry/backoff/max backoff_shrinks"], |it| {
            it["steps"][0]["retry"]["backoff"]["max"] = json!("100ms");
        }),
        (&["/steps/0/timeout duration_out_of_range"], |it| it["steps"][0]["timeout"] = json!("0s")),
        (&["/steps/0/on_error choice_unknown"], |it| it["steps"][0]["on_error"] = json!("ignore")),
        (&["/steps/5/foreach field_not_for_wait"], |it| {
            step("pause", it, |step| step["foreach"] = json!("input.urls"));
        }),
        (&["/steps/5/with/for duration_invalid"], |it| {
            step("pause", it, |step| step["with"]["for"] = json!("a while"));
        }),
        (&["/steps/5/with/for field_missing"], |it| {
            step("pause", it, |step| step["with"] = json!({}));
        }),
        (&["/steps/5/with/until fields_exclude_each_other"], |it| {
            step("pause", it, |step| step["with"]["until"] = json!("2026-01-01T00:00:00Z"));
        }),
        (&["/steps/2/with/if type_mismatch"], |it| {
            step("enough", it, |step| step["with"]["if"] = json!("1 < 2"));
        }),
        (&["/steps/0/with/method choice_unknown"], |it| {
            it["steps"][0]["with"]["method"] = json!("get")
        }),
        (&["/steps/0/with/url url_invalid"], |it| it["steps"][0]["with"]["url"] = json!("ftp://x")),
        (&["/steps/0/with/url url_invalid"], |it| {
            it["steps"][0]["with"]["url"] = json!("https://user:word@example.com/");
        }),
        (&["/steps/0/with/headers/Host header_invalid"], |it| {
            it["steps"][0]["with"]["headers"]["Host"] = json!("example.com");
        }),
        (&["/steps/0/with/headers/X-A header_invalid"], |it| {
            it["steps"][0]["with"]["headers"]["X-A"] = json!("a\r\nb: c");
        }),
        (&["/steps/0/with/headers/a b header_invalid"], |it| {
            it["steps"][0]["with"]["headers"]["a b"] = json!("c");
        }),
        (&["/steps/0/with/query/deep type_mismatch"], |it| {
            it["steps"][0]["with"]["query"]["deep"] = json!({ "a": 1 });
        }),
        (&["/steps/0/with/expect status_invalid"], |it| {
            it["steps"][0]["with"]["expect"] = json!(["9xx"]);
        }),
        (&["/steps/0/with/json fields_exclude_each_other"], |it| {
            it["steps"][0]["with"]["body"] = json!("x");
            it["steps"][0]["with"]["json"] = json!({});
        }),
        (&["/steps/0/with/max_bytes out_of_range"], |it| {
            it["steps"][0]["with"]["max_bytes"] = json!(1_000_000_000);
        }),
        (&["/steps/3/with/prompt fields_exclude_each_other"], |it| {
            step("answer", it, |step| step["with"]["question"] = json!("x"));
        }),
        (&["/steps/3/with/temperature out_of_range"], |it| {
            step("answer", it, |step| step["with"]["temperature"] = json!(3));
        }),
        (&["/steps/3/with/schema/type schema_invalid"], |it| {
            step("answer", it, |step| step["with"]["schema"] = json!({ "type": "nonsense" }));
        }),
        (&["/steps/3/with/context/0 type_mismatch"], |it| {
            step("answer", it, |step| step["with"]["context"] = json!([{ "txt": "a" }]));
        }),
    ]
}

fn told(document: &Value) -> Vec<String> {
    let faults = Manifest::read(document).err().unwrap_or_default();
    faults.into_iter().map(|fault| format!("{} {}", fault.pointer, fault.code)).collect()
}

/// A manifest with every part of the grammar in it.
pub(super) fn full() -> Value {
    json!({
        "manifest": "prodgy.agent/1", "name": "acme.full", "version": "2.1.0-rc.1", "title": "Full",
        "summary": "Everything once",
        "config": { "type": "object", "properties": {
            "key": { "type": "string", "x-secret": true, "default": "none" },
        } },
        "inputs": { "type": "object", "properties": {
            "urls": { "type": "array", "items": { "type": "string" } },
        }, "required": ["urls"] },
        "requires": {
            "integrations": [
                { "slot": "git", "kinds": ["github", "gitlab"] },
                { "slot": "talk", "kinds": ["slack", "google-chat", "teams"] },
            ],
            "knowledge": [{ "slot": "notes" }],
            "model": { "capability": "chat" },
        },
        "limits": {
            "timeout": "3d", "queue_timeout": "10m",
            "concurrency": { "max": 2, "key": "input.urls[0]", "strategy": "cancel_running" },
        },
        "triggers": [
            {
                "id": "nightly", "type": "schedule", "cron": "0 3 * * *", "tz": "Europe/Madrid",
                "missed": "all", "overlap": "queue", "jitter": "1m",
                "start": "2026-01-01T00:00:00Z", "end": "2027-01-01T00:00:00+01:00",
                "input": { "urls": ["https://example.com"] },
            },
            {
                "id": "ready", "type": "event", "match": "event.type == 'file.indexed.v1'",
                "max_depth": 2, "input": { "urls": { "cel": "[event.data.url]" } },
            },
            {
                "id": "push", "type": "webhook", "path": "acme/push.1", "verify": "hmac-sha256",
                "header": "X-Acme-Signature", "delivery_id": "/id",
                "match": "trigger.headers['x-acme-event'] == 'push'",
                "input": { "urls": { "cel": "[trigger.body.url]" } },
            },
            {
                "id": "asked", "type": "message", "slot": "talk", "channel": "C0123456789",
                "match": "trigger.text.startsWith('fetch')",
                "input": { "urls": { "cel": "[trigger.text]" } },
            },
        ],
        "steps": [
            {
                "id": "fetch", "type": "http.request", "when": "size(input.urls) > 0",
                "foreach": { "items": "input.urls", "max_parallel": 4, "max_items": 20 },
                "retry": {
                    "attempts": 4,
                    "backoff": { "initial": "500ms", "factor": 3, "max": "2m", "jitter": 0.5 },
                    "on": ["transient", "http_status_429"],
                },
                "timeout": "30s", "on_error": "continue",
                "with": {
                    "method": "POST", "url": { "cel": "item" },
                    "headers": {
                        "Authorization": { "template": "Bearer {{ config.key }}" },
                        "X-Index": { "template": "{{ index }}" }, "X-Try": 1,
                    },
                    "query": { "page": 1, "tag": ["a", "b"] },
                    "form": { "a": "b" },
                    "expect": ["2xx", 404], "response": "text", "max_bytes": 100_000, "redirects": 2,
                },
            },
            {
                "id": "search", "type": "kb.search", "needs": ["fetch"],
                "with": { "query": { "cel": "input.urls[0]" }, "knowledge": "notes", "limit": 3, "min_score": 0.5,
                          "mode": "hybrid",
                          "filters": { "source": "wiki", "tags": ["a"], "from": { "cel": "execution.created_at" } } },
            },
            {
                "id": "enough", "type": "condition", "needs": ["search"],
                "with": { "if": { "cel": "size(steps.search.output.passages) > 2" } },
            },
            {
                "id": "answer", "type": "llm.answer", "needs": ["enough"],
                "when": { "cel": "steps.enough.output.value" },
                "with": {
                    "prompt": "Sum up", "system": "Be brief", "model": "small",
                    "context": { "cel": "steps.search.output.passages" },
                    "temperature": 0.2, "max_tokens": 500, "schema": { "type": "object" },
                },
            },
            {
                "id": "names", "type": "transform", "needs": ["answer"],
                "foreach": { "cel": "[1, 2]" },
                "with": { "value": { "cel": "[index, item]" } },
            },
            { "id": "pause", "type": "wait", "needs": ["names"], "with": { "for": "2d" } },
            {
                "id": "note", "type": "kb.ingest", "needs": ["pause"],
                "with": { "title": "Sum", "text": { "template": "{{ steps.names.output }}" }, "tags": ["sum"] },
            },
            {
                "id": "tell", "type": "notify", "needs": ["note"],
                "with": { "slot": "talk", "channel": "C1", "text": { "template": "{{ steps.note.output.file_name }}" } },
            },
        ],
        "output": { "cel": "steps.note.output" },
    })
}

#[test]
fn a_model_may_have_a_slot_which_is_one_for_integrations_of_one_kind() {
    let with = |requires: Value| {
        Manifest::accept(&json!({
            "manifest": "prodgy.agent/1", "name": "acme.slot", "version": "1.0.0", "title": "Slot",
            "requires": requires,
            "steps": [{ "id": "one", "type": "llm.answer", "with": { "prompt": "Say yes" } }],
        }))
    };
    let manifest = with(json!({ "model": { "capability": "chat", "slot": "brain" } })).unwrap();
    assert_eq!(manifest.requires.model_slot.as_deref(), Some("brain"));
    assert!(manifest.has_slot("brain"));
    assert_eq!(manifest.requires.integrations[0].kinds, ["openai-compatible"]);
    let manifest = with(json!({ "model": { "capability": "chat" } })).unwrap();
    assert!(manifest.requires.model_slot.is_none() && manifest.requires.integrations.is_empty());
    let taken = with(json!({ "knowledge": [{ "slot": "brain" }],
                             "model": { "capability": "chat", "slot": "brain" } }));
    let faults = taken.unwrap_err().faults;
    assert_eq!(
        (faults[0].pointer.as_str(), faults[0].code),
        ("/requires/model/slot", "slot_duplicate")
    );
}
