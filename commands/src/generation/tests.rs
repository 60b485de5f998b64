//! One that answers is not removed, whoever is quicker.

use std::sync::Arc;

use domain::generation::GenerationEvent;
use uuid::Uuid;

use super::*;
use crate::execute::decode_event;
use crate::policies::altered::Altered;
use crate::testing::{open_commands, open_log};

const REVISION: &str = "other";

fn ask() -> Ask {
    Ask::once("test", Uuid::nil(), None)
}

/// Two nodes on one log, with a complete generation that does not answer yet.
async fn nodes(folder: &std::path::Path) -> (Commands, Commands) {
    let log = open_log(folder);
    let one = open_commands(folder, Altered::shared(&log)).await;
    let other = open_commands(folder, Altered::shared(&log)).await;
    let model = EmbeddingModel { model: "e5".to_owned(), model_revision: REVISION.to_owned() };
    one.begin_generation(model, None, &ask()).await.expect("begun");
    let complete = GenerationCommand::Complete { files: 1, chunks: 1 };
    one.execute::<Generation>(generation_id(REVISION), complete, &ask()).await.expect("complete");
    (one, other)
}

async fn stored(commands: &Commands) -> Vec<GenerationEvent> {
    let stream = StreamId::new("generation", generation_id(REVISION));
    let events = commands.whole_stream(&stream).await.expect("read");
    events.iter().map(|event| decode_event(event).expect("decoded")).collect()
}

#[tokio::test]
async fn one_that_was_activated_since_it_was_looked_at_is_not_removed() {
    let folder = tempfile::tempdir().expect("a folder");
    let (one, other) = nodes(folder.path()).await;
    let seen = one.log().head().await.expect("a head");
    other.activate_generation(REVISION, &ask()).await.expect("activated");
    let removed = one.remove_generation(REVISION, seen, &ask()).await;
    assert!(matches!(removed, Err(Error::Conflict)), "{removed:?}");
    let seen = one.log().head().await.expect("a head");
    one.remove_generation(REVISION, seen, &ask()).await.expect("whoever looked again removes it");
}

#[tokio::test]
async fn one_that_is_activated_between_the_look_at_its_stream_and_the_append_is_not_removed() {
    let folder = tempfile::tempdir().expect("a folder");
    let (_, other) = nodes(folder.path()).await;
    let seen = other.log().head().await.expect("a head");
    let log = other.log().clone();
    let activates = async move {
        other.activate_generation(REVISION, &ask()).await.expect("activated");
    };
    let one = open_commands(folder.path(), Altered::overtaken(&log, activates)).await;
    let removed = one.remove_generation(REVISION, seen, &ask()).await;
    assert!(matches!(removed, Err(Error::Conflict)), "{removed:?}");
    assert_eq!(stored(&one).await.last(), Some(&GenerationEvent::Activated {}));
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_nodes_that_activate_and_remove_at_once_one_does_nothing() {
    let mut removals = 0;
    for _ in 0..8 {
        let folder = tempfile::tempdir().expect("a folder");
        let (one, other) = nodes(folder.path()).await;
        let seen = one.log().head().await.expect("a head");
        let start = Arc::new(tokio::sync::Barrier::new(2));
        let (removes, activates) = (start.clone(), start);
        let (remover, activator) = (one.clone(), other.clone());
        let removed = tokio::spawn(async move {
            removes.wait().await;
            remover.remove_generation(REVISION, seen, &ask()).await
        });
        let activated = tokio::spawn(async move {
            activates.wait().await;
            activator.activate_generation(REVISION, &ask()).await
        });
        let (removed, activated) =
            (removed.await.expect("a task"), activated.await.expect("a task"));
        assert_ne!(removed.is_ok(), activated.is_ok(), "{removed:?} {activated:?}");
        let last = match removed.is_ok() {
            true => GenerationEvent::Removed {},
            false => GenerationEvent::Activated {},
        };
        removals += usize::from(removed.is_ok());
        assert_eq!(stored(&one).await[2..], [last]);
    }
    eprintln!("{removals} of 8 were removed");
}
