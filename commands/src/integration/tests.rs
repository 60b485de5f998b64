//! Two at one integration: nothing that was answered is lost.

use std::sync::Arc;

use eventlog::EventStore;
use serde_json::json;
use tempfile::TempDir;

use super::*;
use crate::policies::altered::Altered;
use crate::testing::{open_commands, open_log};

fn ask() -> Ask {
    Ask::once("test", Uuid::nil(), None)
}

fn config(value: serde_json::Value) -> Object {
    value.as_object().cloned().expect("an object")
}

fn secrets(given: &[(&str, &str)]) -> Secrets {
    Secrets(given.iter().map(|(name, text)| ((*name).into(), (*text).into())).collect())
}

struct World {
    folder: TempDir,
    log: Arc<dyn EventStore>,
    commands: Commands,
}

impl World {
    async fn new() -> World {
        let folder = tempfile::tempdir().expect("a folder");
        let log = open_log(folder.path());
        let commands = open_commands(folder.path(), log.clone()).await;
        World { folder, log, commands }
    }

    async fn integration(&self, kind: IntegrationKind, told: Object, secret: Secrets) -> Uuid {
        let title = Name::parse("Tool").expect("a name");
        let new = NewIntegration { kind, title, config: told, secrets: secret };
        let done = self.commands.create_integration(new, &ask()).await.expect("an integration");
        done.stream_id().expect("an id")
    }

    /// A second server, which another change of the integration overtakes.
    async fn overtaken(&self, integration: Uuid, change: IntegrationChange) -> Commands {
        let first = self.commands.clone();
        let by = async move {
            first.change_integration(integration, change, &ask()).await.expect("a change");
        };
        open_commands(self.folder.path(), Altered::overtaken(&self.log, by)).await
    }
}

#[tokio::test]
async fn a_configuration_that_comes_while_a_key_is_rotated_is_kept() {
    let world = World::new().await;
    let github = secrets(&[("token", "ghp_0123456789")]);
    let id =
        world.integration(IntegrationKind::Github, config(json!({ "owner": "old" })), github).await;
    let change = IntegrationChange {
        config: Some(config(json!({ "owner": "new" }))),
        ..IntegrationChange::default()
    };
    let second = world.overtaken(id, change).await;
    second.rotate_integration_key(id, &ask()).await.expect("rotated");
    let open = second.open_integration(id).await.expect("an integration");
    assert_eq!(open.told.config["owner"], "new");
    assert_eq!(open.told.secrets.0["token"], "ghp_0123456789");
    assert_ne!(open.key, first_key(id));
}

#[tokio::test]
async fn a_change_is_judged_by_what_it_changes() {
    let world = World::new().await;
    let http = secrets(&[("token", "0123456789")]);
    let address = |more: serde_json::Value| {
        let mut told = config(json!({ "base_url": "https://a.example" }));
        told.extend(config(more));
        told
    };
    let bearer = address(json!({ "auth": "bearer" }));
    let id = world.integration(IntegrationKind::Http, bearer, http).await;
    let removal = IntegrationChange {
        config: Some(address(json!({ "auth": "none" }))),
        removed: BTreeSet::from(["token".to_owned()]),
        ..IntegrationChange::default()
    };
    let second = world.overtaken(id, removal).await;
    // It would need the token that is gone.
    let header = address(json!({ "auth": "header", "header": "X-Key" }));
    let change = IntegrationChange { config: Some(header), ..IntegrationChange::default() };
    let refused = second.change_integration(id, change, &ask()).await;
    assert!(matches!(refused, Err(Error::Invalid { .. })), "{refused:?}");
}

/// What a change of the configuration alone is refused for: pointers and codes.
async fn faults_of(world: &World, id: Uuid, told: Object) -> Vec<(String, String)> {
    let change = IntegrationChange { config: Some(told), ..IntegrationChange::default() };
    match world.commands.change_integration(id, change, &ask()).await {
        Ok(_) => Vec::new(),
        Err(Error::Invalid { faults, .. }) => {
            faults.into_iter().map(|fault| (fault.pointer, fault.code)).collect()
        }
        Err(error) => panic!("{error:?}"),
    }
}

#[tokio::test]
async fn a_secret_goes_to_no_server_that_was_named_without_it() {
    let world = World::new().await;
    let teams = json!({ "app_id": "bot", "tenant": "t", "service_hosts": ["a.example"] });
    let smtp = json!({ "host": "a.example", "from": "a@a.example", "user": "me" });
    let url = json!({ "base_url": "https://a.example/v1" });
    let with = |told: &serde_json::Value, more: serde_json::Value| {
        let mut told = config(told.clone());
        told.extend(config(more));
        told
    };
    let bearer = with(&url, json!({ "auth": "bearer" })).into();
    let elsewhere = json!({ "base_url": "https://b.example/v1" });
    for (kind, told, secret, changes) in [
        (IntegrationKind::Github, &url, "token", vec![&elsewhere]),
        (
            IntegrationKind::Http,
            &bearer,
            "token",
            vec![
                &elsewhere,
                &json!({ "base_url": "http://a.example/v1" }),
                &json!({ "base_url": "https://a.example:8443/v1" }),
            ],
        ),
        (IntegrationKind::OpenaiCompatible, &url, "api_key", vec![&elsewhere]),
        (IntegrationKind::GoogleChat, &url, "service_account_key", vec![&elsewhere]),
        (
            IntegrationKind::Teams,
            &teams,
            "app_password",
            vec![
                &json!({ "login_url": "https://b.example" }),
                &json!({ "service_url": "https://b.example" }),
                &json!({ "service_hosts": ["a.example", "b.example"] }),
            ],
        ),
        (
            IntegrationKind::Smtp,
            &smtp,
            "password",
            vec![
                &json!({ "host": "b.example" }),
                &json!({ "port": 2525 }),
                &json!({ "security": "none" }),
            ],
        ),
    ] {
        let text = "0123456789";
        let id = world.integration(kind, config(told.clone()), secrets(&[(secret, text)])).await;
        for change in changes {
            let told = with(told, change.clone());
            let required = (format!("/secrets/{secret}"), "secret_required".to_owned());
            assert_eq!(faults_of(&world, id, told.clone()).await, [required], "{kind:?} {change}");
            // Whoever says it knows it, and may send it where they like; what is shown of it is not it.
            let masked = IntegrationChange {
                config: Some(told.clone()),
                secrets: secrets(&[(secret, &masked(text))]),
                ..IntegrationChange::default()
            };
            let refused = world.commands.change_integration(id, masked, &ask()).await;
            assert!(matches!(refused, Err(Error::Invalid { .. })), "{refused:?}");
        }
        let open = world.commands.open_integration(id).await.expect("an integration");
        let moved = with(told, json!({}));
        assert_eq!(faults_of(&world, id, moved).await, [], "{kind:?} stays where it is");
        assert_eq!(open.told.secrets.0[secret], text);
    }
}

#[tokio::test]
async fn a_secret_goes_elsewhere_with_whoever_knows_it_or_not_at_all() {
    let world = World::new().await;
    let told = |url: &str| config(json!({ "base_url": url, "auth": "none" }));
    let token = || secrets(&[("token", "0123456789")]);
    let id = world.integration(IntegrationKind::Http, told("https://a.example/v1"), token()).await;
    assert_eq!(faults_of(&world, id, told("https://a.example:443/v2")).await, []);
    let given = IntegrationChange {
        config: Some(told("https://b.example")),
        secrets: token(),
        ..IntegrationChange::default()
    };
    world.commands.change_integration(id, given, &ask()).await.expect("it was given again");
    let removed = IntegrationChange {
        config: Some(told("https://c.example")),
        removed: BTreeSet::from(["token".to_owned()]),
        ..IntegrationChange::default()
    };
    world
        .commands
        .change_integration(id, removed, &ask())
        .await
        .expect("it is not told to anybody");
    assert_eq!(faults_of(&world, id, told("https://d.example")).await, []);
}
