//! What an integration allows, and what each kind takes.

use proptest::prelude::*;
use serde_json::{Map, Value, json};

use super::kind::{Secrets, Told};
use super::*;
use crate::history::{given, name, sealed, walk};
use crate::schema::Schema;

fn secrets(names: &[&str]) -> BTreeMap<String, Sealed> {
    names.iter().map(|name| ((*name).to_owned(), sealed(name))).collect()
}

fn names(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

fn created() -> IntegrationEvent {
    IntegrationEvent::Created {
        kind: IntegrationKind::Github,
        title: name("Code"),
        key: "integration-1".to_owned(),
        config: sealed("config"),
        secrets: secrets(&["token"]),
    }
}

fn create() -> IntegrationCommand {
    IntegrationCommand::Create {
        kind: IntegrationKind::Github,
        title: name("Code"),
        key: "integration-1".to_owned(),
        config: sealed("config"),
        secrets: secrets(&["token"]),
    }
}

fn change() -> IntegrationCommand {
    IntegrationCommand::Change {
        key: "integration-1".to_owned(),
        title: None,
        config: None,
        secrets: BTreeMap::new(),
        removed: BTreeSet::new(),
        enabled: None,
    }
}

fn rotate(secrets_version: u64, key: &str) -> IntegrationCommand {
    IntegrationCommand::RotateKey {
        secrets_version,
        key: key.to_owned(),
        config: sealed("config"),
        secrets: secrets(&["token"]),
    }
}

fn rotated(key: &str) -> IntegrationEvent {
    IntegrationEvent::KeyRotated {
        key: key.to_owned(),
        config: sealed("config"),
        secrets: secrets(&["token"]),
    }
}

fn with(
    change: IntegrationCommand,
    set: impl FnOnce(&mut IntegrationCommand),
) -> IntegrationCommand {
    let mut change = change;
    set(&mut change);
    change
}

#[test]
fn an_integration_is_made_once() {
    given::<Integration>(vec![]).when(create()).then_expect_events(vec![created()]);
    for past in [
        vec![created()],
        vec![created(), IntegrationEvent::Deleted {}],
        vec![created(), IntegrationEvent::Deleted {}, IntegrationEvent::Erased {}],
    ] {
        given::<Integration>(past)
            .when(create())
            .then_expect_error(IntegrationError::AlreadyExists);
    }
}

#[test]
fn only_what_differs_is_changed() {
    let all = with(change(), |change| {
        if let IntegrationCommand::Change {
            title, config, secrets: given, removed, enabled, ..
        } = change
        {
            *title = Some(name("Source"));
            *config = Some(sealed("other"));
            *given = secrets(&["token"]);
            *removed = names(&["token", "nothing"]);
            *enabled = Some(false);
        }
    });
    given::<Integration>(vec![created()]).when(all).then_expect_events(vec![
        IntegrationEvent::Renamed { title: name("Source") },
        IntegrationEvent::Configured { config: sealed("other") },
        IntegrationEvent::SecretsChanged {
            secrets: secrets(&["token"]),
            removed: BTreeSet::new(),
            secrets_version: 2,
        },
        IntegrationEvent::Disabled {},
    ]);
    let nothing = with(change(), |change| {
        if let IntegrationCommand::Change { title, enabled, removed, .. } = change {
            *title = Some(name("Code"));
            *enabled = Some(true);
            *removed = names(&["nothing"]);
        }
    });
    given::<Integration>(vec![created()]).when(nothing).then_expect_events(vec![]);
}

#[test]
fn what_was_sealed_under_a_key_that_was_given_up_is_refused() {
    let outdated = with(change(), |change| {
        if let IntegrationCommand::Change { config, .. } = change {
            *config = Some(sealed("other"));
        }
    });
    given::<Integration>(vec![created(), rotated("integration-2")])
        .when(outdated)
        .then_expect_error(IntegrationError::KeyChanged);
    // A title is not sealed.
    let title = with(change(), |change| {
        if let IntegrationCommand::Change { title, .. } = change {
            *title = Some(name("Source"));
        }
    });
    given::<Integration>(vec![created(), rotated("integration-2")])
        .when(title)
        .then_expect_events(vec![IntegrationEvent::Renamed { title: name("Source") }]);
}

#[test]
fn a_key_is_rotated_with_all_secrets_and_never_used_again() {
    given::<Integration>(vec![created()])
        .when(rotate(1, "integration-2"))
        .then_expect_events(vec![rotated("integration-2")]);
    given::<Integration>(vec![created()])
        .when(rotate(2, "integration-2"))
        .then_expect_error(IntegrationError::KeyChanged);
    let partly = IntegrationCommand::RotateKey {
        secrets_version: 1,
        key: "integration-2".to_owned(),
        config: sealed("config"),
        secrets: BTreeMap::new(),
    };
    given::<Integration>(vec![created()])
        .when(partly)
        .then_expect_error(IntegrationError::KeyChanged);
    for used in ["integration-1", "integration-2"] {
        given::<Integration>(vec![created(), rotated("integration-2")])
            .when(rotate(1, used))
            .then_expect_error(IntegrationError::KeyUsed);
    }
}

#[test]
fn what_is_deleted_gives_up_every_key_and_is_erased_once() {
    let mut state = Integration::default();
    for event in [created(), rotated("integration-2")] {
        state.apply(event);
    }
    assert_eq!(state.keys_given_up(), names(&["integration-1"]));
    state.apply(IntegrationEvent::Deleted {});
    assert_eq!(state.keys_given_up(), names(&["integration-1", "integration-2"]));
    state.apply(IntegrationEvent::Erased {});
    assert_eq!(state.keys_given_up(), BTreeSet::new());

    let deleted = vec![created(), IntegrationEvent::Deleted {}];
    given::<Integration>(deleted.clone())
        .when(IntegrationCommand::Erase)
        .then_expect_events(vec![IntegrationEvent::Erased {}]);
    given::<Integration>([deleted.clone(), vec![IntegrationEvent::Erased {}]].concat())
        .when(IntegrationCommand::Erase)
        .then_expect_events(vec![]);
    given::<Integration>(vec![created()])
        .when(IntegrationCommand::Erase)
        .then_expect_error(IntegrationError::NotDeleted);
    for past in [vec![], deleted] {
        for command in [change(), rotate(1, "integration-2"), IntegrationCommand::Delete] {
            given::<Integration>(past.clone())
                .when(command)
                .then_expect_error(IntegrationError::NotFound);
        }
    }
}

#[test]
fn every_refusal_has_its_code() {
    let table = [
        (IntegrationError::NotFound, RefusalKind::NotFound, "integration_not_found"),
        (IntegrationError::AlreadyExists, RefusalKind::Conflict, "integration_already_exists"),
        (IntegrationError::NotDeleted, RefusalKind::Conflict, "integration_not_deleted"),
        (IntegrationError::KeyChanged, RefusalKind::Conflict, "integration_changed"),
        (IntegrationError::KeyUsed, RefusalKind::Conflict, "integration_key_used"),
    ];
    for (refusal, kind, code) in table {
        assert_eq!(refusal.reason(), (kind, code));
    }
}

proptest! {
    #[test]
    fn the_log_tells_everything(commands in prop::collection::vec(command(), 0..20)) {
        walk::<Integration>(commands);
    }
}

fn command() -> impl Strategy<Value = IntegrationCommand> {
    let some = || prop::collection::btree_set("[ab]", 0..2);
    let key = || "integration-[123]";
    prop_oneof![
        1 => Just(create()),
        4 => (key(), prop::option::of("[ab]"), some(), some(), prop::option::of(any::<bool>())).prop_map(
            |(key, title, given, removed, enabled)| IntegrationCommand::Change {
                key,
                title: title.as_deref().map(name),
                config: None,
                secrets: given.into_iter().map(|name| (name, sealed("text"))).collect(),
                removed,
                enabled,
            }
        ),
        2 => (1..3_u64, key()).prop_map(|(version, key)| rotate(version, &key)),
        1 => Just(IntegrationCommand::Delete),
        1 => Just(IntegrationCommand::Erase),
    ]
}

fn check(kind: &str, config: Value, secrets: Value) -> Result<Told, Vec<(String, &'static str)>> {
    let kind = IntegrationKind::parse(kind).unwrap();
    let secrets = Secrets(serde_json::from_value(secrets).unwrap());
    let checked = kind.check(config.as_object().cloned().unwrap(), secrets);
    checked.map_err(|invalid| {
        assert_eq!(invalid.code, "integration_invalid");
        invalid.faults.into_iter().map(|fault| (fault.pointer, fault.code)).collect()
    })
}

#[test]
fn every_kind_has_a_schema_that_hides_its_secrets() {
    for kind in IntegrationKind::ALL {
        let schema = kind.schema();
        let compiled = Schema::compile(&schema).unwrap();
        assert_eq!(IntegrationKind::parse(kind.as_str()), Some(kind));
        let secrets = schema["properties"]["secrets"]["properties"].as_object().unwrap();
        let hidden = compiled.secret_paths();
        for name in secrets.keys() {
            assert!(hidden.contains(&format!("/secrets/{name}")), "{name} of {}", kind.as_str());
        }
        assert_eq!(hidden.len(), secrets.len(), "{}", kind.as_str());
        for part in ["config", "secrets"] {
            let part = &schema["properties"][part];
            assert_eq!(part["additionalProperties"], false, "{}", kind.as_str());
            for (name, field) in part["properties"].as_object().unwrap() {
                assert!(field["description"].is_string() || name == "base_url", "{name}");
            }
        }
    }
    assert_eq!(IntegrationKind::parse("nothing"), None);
}

#[test]
fn what_a_kind_takes_is_completed() {
    let token = json!({ "token": "tttt" });
    let told = check("github", json!({ "owner": "acme" }), token.clone()).unwrap();
    assert_eq!(told.config["base_url"], "https://api.github.com");
    assert_eq!(told.config["owner"], "acme");
    for (kind, config, secrets) in [
        ("gitlab", json!({ "base_url": "https://git.example.com" }), token.clone()),
        ("slack", json!({}), json!({ "bot_token": "xoxb-1", "signing_secret": "ssss" })),
        (
            "google-chat",
            json!({}),
            json!({ "webhook_url": "https://chat.googleapis.com/v1/spaces/A/messages?key=k&token=t" }),
        ),
        ("google-chat", json!({ "space": "spaces/AAA" }), json!({ "service_account_key": "{  }" })),
        ("teams", json!({ "app_id": "a-1", "tenant": "t-1" }), json!({ "app_password": "pppp" })),
        ("smtp", json!({ "host": "mail.example.com", "from": "a@example.com" }), json!({})),
        (
            "smtp",
            json!({ "host": "m", "from": "a@example.com", "user": "u" }),
            json!({ "password": "a b c" }),
        ),
        ("openai-compatible", json!({}), json!({})),
        ("http", json!({ "base_url": "https://example.com/v1" }), json!({})),
        ("http", json!({ "base_url": "https://example.com", "auth": "bearer" }), token.clone()),
        (
            "http",
            json!({ "base_url": "https://example.com", "auth": "header", "header": "X-Key" }),
            token,
        ),
        (
            "http",
            json!({ "base_url": "https://example.com", "auth": "basic", "user": "u" }),
            json!({ "password": "pppp" }),
        ),
    ] {
        check(kind, config.clone(), secrets)
            .unwrap_or_else(|faults| panic!("{kind} {config}: {faults:?}"));
    }
}

#[test]
fn what_a_kind_does_not_take_is_said_at_its_place() {
    let at = |pointer: &str, code| (pointer.to_owned(), code);
    let token = json!({ "token": "tttt" });
    let faults = check("github", json!({ "ownr": "acme" }), json!({ "tokn": "t" })).unwrap_err();
    assert_eq!(
        faults,
        [
            at("/config/ownr", "field_unknown"),
            at("/secrets/tokn", "field_unknown"),
            at("/secrets/token", "field_missing"),
        ]
    );
    for address in
        ["ftp://example.com", "https://u:p@example.com", "https://example.com?x=1", "example.com"]
    {
        let faults = check("github", json!({ "base_url": address }), token.clone()).unwrap_err();
        assert_eq!(faults, [at("/config/base_url", "schema_violation")], "{address}");
    }
    for (kind, config, secrets, place) in [
        ("slack", json!({}), json!({ "bot_token": "xxxx" }), "/secrets/signing_secret"),
        ("google-chat", json!({}), json!({}), "/secrets"),
        ("teams", json!({ "app_id": "a" }), json!({ "app_password": "pppp" }), "/config/tenant"),
        (
            "smtp",
            json!({ "host": "m", "from": "a@example.com", "user": "u" }),
            json!({}),
            "/secrets/password",
        ),
        (
            "smtp",
            json!({ "host": "m", "from": "a@example.com" }),
            json!({ "password": "pppp" }),
            "/secrets",
        ),
        ("smtp", json!({ "host": "m", "from": "a", "port": 0 }), json!({}), "/config/port"),
        ("http", json!({}), json!({}), "/config/base_url"),
        (
            "http",
            json!({ "base_url": "https://a.b", "auth": "bearer" }),
            json!({}),
            "/secrets/token",
        ),
        (
            "http",
            json!({ "base_url": "https://a.b", "auth": "header" }),
            json!({ "token": "tttt" }),
            "/config/header",
        ),
        (
            "http",
            json!({ "base_url": "https://a.b", "auth": "basic", "user": "u" }),
            json!({}),
            "/secrets/password",
        ),
        ("github", json!({}), json!({ "token": "with a\nbreak" }), "/secrets/token"),
        // What is shorter than this cannot be told apart from what else there is, and masked.
        ("github", json!({}), json!({ "token": "abc" }), "/secrets/token"),
        ("openai-compatible", json!({}), json!({ "api_key": "abc" }), "/secrets/api_key"),
    ] {
        let faults = check(kind, config.clone(), secrets).unwrap_err();
        assert!(faults.iter().any(|(pointer, _)| pointer == place), "{kind} {config}: {faults:?}");
    }
}

#[test]
fn a_fault_does_not_repeat_a_secret_and_neither_does_debug() {
    let secrets = Secrets(BTreeMap::from([("token".to_owned(), "hush hush".to_owned())]));
    assert!(!format!("{secrets:?}").contains("hush"));
    let refused = IntegrationKind::Github.check(Map::new(), secrets).unwrap_err();
    assert!(!format!("{refused:?}").contains("hush"), "{refused:?}");
}
