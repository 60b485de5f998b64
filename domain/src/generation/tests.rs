//! What becomes of a generation.

use super::*;
use crate::history::{given, walk};
use {GenerationCommand as Do, GenerationEvent as Did};

fn model() -> EmbeddingModel {
    EmbeddingModel { model: "e5-small".to_owned(), model_revision: "ab".repeat(32) }
}

fn complete() -> Vec<GenerationEvent> {
    vec![Did::Begun(model()), Did::Completed { files: 2, chunks: 9 }]
}

#[test]
fn it_answers_only_when_every_file_is_there() {
    given::<Generation>(vec![Did::Begun(model())])
        .when(Do::Activate)
        .then_expect_error(GenerationError::Incomplete);
    given::<Generation>(complete()).when(Do::Activate).then_expect_events(vec![Did::Activated {}]);
}

#[test]
fn it_can_answer_again_after_another_did() {
    let mut before = complete();
    before.push(Did::Activated {});
    // The other one's event is in the other one's stream.
    given::<Generation>(before).when(Do::Activate).then_expect_events(vec![Did::Activated {}]);
}

#[test]
fn it_is_begun_and_completed_once() {
    given::<Generation>(vec![Did::Begun(model())])
        .when(Do::Begin(model()))
        .then_expect_error(GenerationError::Begun);
    given::<Generation>(complete())
        .when(Do::Complete { files: 3, chunks: 10 })
        .then_expect_events(vec![]);
}

#[test]
fn what_was_there_before_generations_is_adopted_once() {
    let adopt = Do::Adopt { model: model(), files: 2, chunks: 9 };
    let log = walk::<Generation>(vec![adopt.clone(), adopt]);
    assert_eq!(log[..2], complete());
    assert_eq!(log[2..], [Did::Activated {}]);
}

#[test]
fn one_that_was_removed_is_gone_until_it_is_begun_again() {
    let all = vec![Do::Begin(model()), Do::Remove, Do::Clear, Do::Clear, Do::Begin(model())];
    let log = walk::<Generation>(all);
    assert_eq!(log, [Did::Begun(model()), Did::Removed {}, Did::Cleared {}, Did::Begun(model())]);
    for command in [Do::Activate, Do::Remove, Do::Complete { files: 0, chunks: 0 }] {
        for gone in [2, 3] {
            given::<Generation>(log[..gone].to_vec())
                .when(command.clone())
                .then_expect_error(GenerationError::NotFound);
        }
        given::<Generation>(vec![]).when(command).then_expect_error(GenerationError::NotFound);
    }
}

#[test]
fn one_that_is_being_removed_is_not_begun_and_one_that_is_there_is_not_cleared() {
    given::<Generation>(vec![Did::Begun(model()), Did::Removed {}])
        .when(Do::Begin(model()))
        .then_expect_error(GenerationError::BeingRemoved);
    given::<Generation>(complete()).when(Do::Clear).then_expect_events(vec![]);
    // As logs have it from before anything was cleared.
    let again = vec![Did::Begun(model()), Did::Removed {}, Did::Begun(model())];
    given::<Generation>(again)
        .when(Do::Complete { files: 0, chunks: 0 })
        .then_expect_events(vec![Did::Completed { files: 0, chunks: 0 }]);
}
