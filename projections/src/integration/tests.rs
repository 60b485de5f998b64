//! Events in, answers out: what is listed, what is active and what hides what.

use std::sync::Arc;

use eventlog::{EventStore, Position, RecordedEvent, StreamId};
use tempfile::TempDir;

use super::*;
use crate::Views;
use crate::testing::{append, log_and_views, metadata};

/// A log that is written by hand, and what the read models make of it.
struct World {
    log: Arc<dyn EventStore>,
    views: Views,
    organization: Uuid,
    _folder: TempDir,
}

impl World {
    fn new() -> World {
        let folder = tempfile::tempdir().unwrap();
        let (log, views) = log_and_views(folder.path());
        World { log, views, organization: Uuid::now_v7(), _folder: folder }
    }

    async fn happens<E: serde::Serialize>(
        &self,
        category: &str,
        id: Uuid,
        product: Option<Uuid>,
        event: &E,
    ) -> Arc<RecordedEvent> {
        let by = metadata(self.organization, product, "user:ada");
        let append = append(StreamId::new(category, id), by, event);
        self.log.append(append).await.unwrap().events[0].clone()
    }

    async fn made(&self, kind: IntegrationKind, product: Option<Uuid>) -> Uuid {
        let id = Uuid::now_v7();
        let created = IntegrationEvent::Created {
            kind,
            title: domain::Name::parse("Tool").unwrap(),
            key: format!("integration-{id}"),
            config: sealed("config"),
            secrets: BTreeMap::from([("token".to_owned(), sealed("token"))]),
        };
        self.happens("integration", id, product, &created).await;
        id
    }

    async fn then(&self, id: Uuid, product: Option<Uuid>, event: IntegrationEvent) {
        self.happens("integration", id, product, &event).await;
    }

    async fn read<T>(&self, query: impl FnOnce(&Connection) -> Result<T, Error>) -> T {
        let head: Position = self.log.head().await.unwrap();
        assert!(self.views.caught_up(head, std::time::Duration::from_secs(60)).await);
        self.views.read(query).unwrap()
    }

    async fn active(&self, product: Uuid) -> Vec<Uuid> {
        let organization = self.organization;
        let listing =
            self.read(|db| active(db, organization, product, None, Window::first(10))).await;
        assert_eq!(listing.total, listing.items.len() as u64);
        listing.items.into_iter().map(|found| found.id).collect()
    }
}

fn sealed(text: &str) -> Sealed {
    Sealed(format!("s1.integration.{text}"))
}

#[tokio::test]
async fn a_product_s_own_integrations_hide_the_global_ones_of_their_kind() {
    let world = World::new();
    let (product, other) = (Uuid::now_v7(), Uuid::now_v7());
    let global_github = world.made(IntegrationKind::Github, None).await;
    let global_slack = world.made(IntegrationKind::Slack, None).await;
    assert_eq!(world.active(product).await, [global_slack, global_github]);

    let one = world.made(IntegrationKind::Github, Some(product)).await;
    let two = world.made(IntegrationKind::Github, Some(product)).await;
    assert_eq!(world.active(product).await, [two, one, global_slack]);
    assert_eq!(world.active(other).await, [global_slack, global_github], "it is theirs alone");
    let hidden = world.read(|db| shadows(db, product)).await;
    assert_eq!(hidden, BTreeMap::from([(IntegrationKind::Github, vec![one, two])]));

    for id in [one, two] {
        world.then(id, Some(product), IntegrationEvent::Disabled {}).await;
    }
    assert_eq!(
        world.active(product).await,
        [global_slack, global_github],
        "what is switched off hides nothing"
    );
    world.then(one, Some(product), IntegrationEvent::Enabled {}).await;
    world.then(global_slack, None, IntegrationEvent::Deleted {}).await;
    assert_eq!(world.active(product).await, [one]);

    let organization = world.organization;
    let all =
        world.read(|db| list(db, organization, Reach::Organization, None, Window::first(10))).await;
    assert_eq!(all.items.len(), 3);
    let own = world
        .read(|db| list(db, organization, Reach::Local(product), None, Window::first(10)))
        .await;
    assert_eq!(own.items.iter().map(|found| found.id).collect::<Vec<_>>(), [two, one]);
    let nobody = Uuid::now_v7();
    let theirs = world.read(|db| active(db, nobody, product, None, Window::first(10))).await;
    assert_eq!(theirs.items, [], "another organization sees nothing");
}

#[tokio::test]
async fn what_is_known_of_one_follows_its_events() {
    let world = World::new();
    let product = Some(Uuid::now_v7());
    let id = world.made(IntegrationKind::Http, product).await;
    world
        .then(
            id,
            product,
            IntegrationEvent::SecretsChanged {
                secrets: BTreeMap::from([("password".to_owned(), sealed("password"))]),
                removed: ["token".to_owned()].into(),
                secrets_version: 2,
            },
        )
        .await;
    let found = world.read(|db| get(db, id)).await.unwrap();
    assert_eq!(found.secrets.keys().collect::<Vec<_>>(), ["password"]);
    assert_eq!((found.secrets_version, found.sequence), (2, 2));
    assert_eq!((found.last_test.clone(), found.last_used_at.clone()), (None, None));

    let tested = IntegrationUseEvent::Tested {
        integration: id,
        secrets_version: 2,
        succeeded: false,
        code: Some("unauthorized".to_owned()),
    };
    world.happens("integration_use", Uuid::now_v7(), product, &tested).await;
    let called = IntegrationUseEvent::Called {
        integration: id,
        secrets_version: 2,
        execution: Uuid::now_v7(),
        step_id: "one".to_owned(),
        operation: "request".to_owned(),
    };
    world.happens("integration_use", Uuid::now_v7(), product, &called).await;
    let found = world.read(|db| get(db, id)).await.unwrap();
    let test = found.last_test.unwrap();
    assert_eq!((test.succeeded, test.code.as_deref()), (false, Some("unauthorized")));
    assert!(found.last_used_at.is_some());
    assert_eq!(found.sequence, 2, "a use moves no ETag");

    let unfinished = world.read(crate::unfinished).await;
    assert!(unfinished.integrations.is_empty());
    world
        .then(
            id,
            product,
            IntegrationEvent::KeyRotated {
                key: "integration-2".to_owned(),
                config: sealed("config"),
                secrets: BTreeMap::from([("password".to_owned(), sealed("again"))]),
            },
        )
        .await;
    assert_eq!(world.read(crate::unfinished).await.integrations, [id]);
    world.then(id, product, IntegrationEvent::Deleted {}).await;
    assert!(world.read(|db| is_left(db, id)).await);
    assert_eq!(world.read(crate::unfinished).await.integrations, [id]);
    world.then(id, product, IntegrationEvent::Erased {}).await;
    assert!(!world.read(|db| is_left(db, id)).await);
    assert!(world.read(crate::unfinished).await.integrations.is_empty());
}
