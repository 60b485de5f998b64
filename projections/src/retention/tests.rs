//! What is due, by rules that come, change and go.

use std::sync::Arc;
use std::time::Duration;

use domain::file::FileEvent;
use domain::product::ProductEvent;
use domain::{BlobRef, FileName, Name};
use eventlog::{EventStore, StreamId};
use serde::Serialize;
use tempfile::TempDir;

use super::*;
use crate::Views;
use crate::testing::{append, log_and_views, metadata};

/// A log and its read models.
struct World {
    folder: TempDir,
    log: Arc<dyn EventStore>,
    views: Views,
}

impl World {
    fn new() -> World {
        let folder = tempfile::tempdir().unwrap();
        let (log, views) = log_and_views(folder.path());
        World { folder, log, views }
    }

    /// Something happens. Answers when.
    async fn says<E: Serialize>(
        &self,
        category: &str,
        (product, id): (Uuid, Uuid),
        event: E,
    ) -> DateTime<Utc> {
        let by = metadata(Uuid::nil(), Some(product), "user:ada");
        let appended = self.log.append(append(StreamId::new(category, id), by, &event)).await;
        appended.unwrap().events[0].time
    }

    async fn product(&self) -> Uuid {
        let id = Uuid::now_v7();
        let name = Name::parse("Shop").unwrap();
        let created = ProductEvent::Created { name, description: None, knowledge_base: id };
        self.says("product", (id, id), created).await;
        id
    }

    async fn rule(&self, product: Uuid, deleted_files_days: Option<u32>) {
        let set = ProductEvent::RetentionSet { deleted_files_days };
        self.says("product", (product, product), set).await;
    }

    async fn upload(&self, product: Uuid, file: Uuid) {
        let uploaded = FileEvent::Uploaded {
            knowledge_base: product,
            name: FileName::parse("a.txt").unwrap(),
            media_type: "text/plain".into(),
            size: 1,
            blob: BlobRef { name: file.to_string(), size: 1 },
            source: None,
            subject: None,
            language: None,
            tags: Vec::new(),
        };
        self.says("file", (product, file), uploaded).await;
    }

    async fn delete(&self, product: Uuid, file: Uuid) -> DateTime<Utc> {
        self.says("file", (product, file), FileEvent::Deleted {}).await
    }

    /// A file that was deleted, and when.
    async fn deleted(&self, product: Uuid) -> (Uuid, DateTime<Utc>) {
        let file = Uuid::now_v7();
        self.upload(product, file).await;
        (file, self.delete(product, file).await)
    }

    async fn due(&self, now: DateTime<Utc>, most: usize) -> Due {
        let head = self.log.head().await.unwrap();
        assert!(self.views.caught_up(head, Duration::from_secs(60)).await);
        self.views.read(|db| due(db, now, most)).unwrap()
    }

    async fn files(&self, now: DateTime<Utc>, most: usize) -> Vec<Uuid> {
        self.due(now, most).await.files.into_iter().map(|(file, _)| file).collect()
    }
}

fn days(count: i64) -> TimeDelta {
    TimeDelta::days(count)
}

/// The shortest time that is told apart.
fn moment() -> TimeDelta {
    TimeDelta::microseconds(1)
}

#[tokio::test]
async fn a_file_is_due_so_many_days_after_its_deletion_and_not_a_moment_before() {
    let world = World::new();
    let product = world.product().await;
    let (first, at) = world.deleted(product).await;
    let (second, then) = world.deleted(product).await;
    world.upload(product, Uuid::now_v7()).await;
    world.rule(product, Some(30)).await;

    let early = Due { files: vec![], next: Some(at + days(30)) };
    assert_eq!(world.due(at + days(30) - moment(), 9).await, early);
    let one = Due { files: vec![(first, product)], next: Some(then + days(30)) };
    assert_eq!(world.due(at + days(30), 9).await, one);
    let both = Due { files: vec![(first, product), (second, product)], next: None };
    assert_eq!(world.due(then + days(30), 9).await, both);
}

#[tokio::test]
async fn without_a_rule_nothing_is_ever_due() {
    let world = World::new();
    let (with, without) = (world.product().await, world.product().await);
    let (file, at) = world.deleted(with).await;
    let (kept, _) = world.deleted(without).await;
    let later = at + days(100_000);
    assert_eq!(world.due(later, 9).await, Due::default());

    world.rule(with, Some(30)).await;
    assert_eq!(world.files(later, 9).await, [file], "what was deleted before the rule was set");
    world.rule(with, Some(36_500)).await;
    assert!(world.files(at + days(36_499), 9).await.is_empty());
    world.rule(with, None).await;
    assert_eq!(world.due(later, 9).await, Due::default());
    world.rule(without, Some(0)).await;
    assert_eq!(world.files(later, 9).await, [kept], "at once, also where it is older");
    world.says("product", (without, without), ProductEvent::Deleted {}).await;
    assert_eq!(world.due(later, 9).await, Due::default(), "it is erased with its product");
}

#[tokio::test]
async fn what_came_again_is_counted_from_its_newest_deletion() {
    let world = World::new();
    let product = world.product().await;
    world.rule(product, Some(30)).await;
    let (file, first) = world.deleted(product).await;
    world.upload(product, file).await;
    let later = first + days(1_000);
    assert_eq!(world.due(later, 9).await, Due::default(), "it is there");

    let second = world.delete(product, file).await;
    assert!(second > first);
    assert!(world.files(first + days(30), 9).await.is_empty());
    assert_eq!(world.files(second + days(30), 9).await, [file]);
    world.says("file", (product, file), FileEvent::ErasureRequested {}).await;
    assert_eq!(world.due(later, 9).await, Due::default());
    world.says("file", (product, file), FileEvent::Erased {}).await;
    assert_eq!(world.due(later, 9).await, Due::default());
}

#[tokio::test]
async fn no_more_are_due_than_there_is_room_for() {
    let world = World::new();
    let (one, other) = (world.product().await, world.product().await);
    let mut files = Vec::new();
    let mut newest = DateTime::UNIX_EPOCH;
    for product in [one, one, one, other] {
        let (file, at) = world.deleted(product).await;
        files.push(file);
        newest = newest.max(at);
    }
    world.rule(other, Some(1)).await;
    world.rule(one, Some(1)).await;
    let later = newest + days(1);

    for room in 0..=4 {
        assert_eq!(world.files(later, room).await, files[..room], "room for {room}");
    }
    world.says("file", (one, files[0]), FileEvent::ErasureRequested {}).await;
    assert_eq!(world.files(later, 3).await, files[1..3], "one is being erased");
    assert!(world.files(later, 1).await.is_empty());
    world.says("file", (one, files[0]), FileEvent::Erased {}).await;
    assert_eq!(world.files(later, 2).await, files[1..3]);
}

#[tokio::test]
async fn read_models_that_are_made_again_say_the_same() {
    let world = World::new();
    let product = world.product().await;
    world.rule(product, Some(30)).await;
    let (_, at) = world.deleted(product).await;
    let (_, then) = world.deleted(product).await;
    let moments = [at, at + days(30), then + days(30)];
    let mut before = Vec::new();
    for now in moments {
        before.push(world.due(now, 9).await);
    }

    let World { folder, log, views } = world;
    views.close().await;
    let again = Views::open(&folder.path().join("others"), log.clone()).unwrap();
    let world = World { folder, log, views: again };
    for (now, expected) in moments.into_iter().zip(before) {
        assert_eq!(world.due(now, 9).await, expected);
    }
}
