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
