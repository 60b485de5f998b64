//! What becomes of a file.

use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::history::{at, given, id, outlasted, walk};

#[test]
fn a_file_is_uploaded() {
    given::<File>(vec![]).when(FileCommand::Upload(upload())).then_expect_events(vec![uploaded()]);
}

#[test]
fn the_same_bytes_are_one_file_while_it_exists() {
    for past in [vec![uploaded()], ready(), failed()] {
        given::<File>(past)
            .when(FileCommand::Upload(upload()))
            .then_expect_error(FileError::Duplicate);
    }
    let mut past = ready();
    past.push(FileEvent::Deleted {});
    given::<File>(past).when(FileCommand::Upload(upload())).then_expect_events(vec![uploaded()]);
}

#[test]
fn its_id_follows_from_knowledge_base_and_bytes() {
    let blob = |name: &str| BlobRef { name: name.to_owned(), size: 1 };
    assert_eq!(file_id(id(1), &blob("a")), file_id(id(1), &blob("a")));
    assert_ne!(file_id(id(1), &blob("a")), file_id(id(2), &blob("a")));
    assert_ne!(file_id(id(1), &blob("a")), file_id(id(1), &blob("b")));
}

#[test]
fn one_worker_at_a_time_ingests_it() {
    given::<File>(vec![uploaded()]).when(start(1, 0)).then_expect_events(vec![started(1, 1, 60)]);
    let working = || given::<File>(vec![uploaded(), started(1, 1, 60)]);
    working()
        .when(start(2, 59))
        .then_expect_error(FileError::Lease(LeaseError::Held { until: at(60) }));
    working().when(start(2, 60)).then_expect_events(vec![started(2, 2, 120)]);
    working().when(start(1, 10)).then_expect_events(vec![started(1, 2, 70)]);
}

#[test]
fn only_the_newest_claim_may_report() {
    let working = || given::<File>(vec![uploaded(), started(1, 1, 60), started(2, 2, 120)]);
    for command in [progress(1, 10), finish(1), fail(1)] {
        working().when(command).then_expect_error(FileError::Lease(LeaseError::Lost));
    }
    working().when(progress(2, 10)).then_expect_events(vec![progressed(2, 10)]);
    working().when(finish(2)).then_expect_events(vec![indexed(2)]);
    working().when(fail(2)).then_expect_events(vec![failure(2)]);
    for command in [progress(0, 10), finish(0), fail(0)] {
        given::<File>(vec![uploaded()])
            .when(command)
            .then_expect_error(FileError::Lease(LeaseError::Lost));
    }
}

#[test]
fn progress_only_rises_and_ends_at_100() {
    let working = || given::<File>(vec![uploaded(), started(1, 1, 60), progressed(1, 50)]);
    working().when(progress(1, 50)).then_expect_events(vec![]);
    working().when(progress(1, 40)).then_expect_events(vec![]);
    working().when(progress(1, 100)).then_expect_events(vec![progressed(1, 100)]);
    working().when(progress(1, 101)).then_expect_error(FileError::PercentTooHigh);
}

#[test]
fn what_was_read_is_not_read_again() {
    for past in [ready(), failed()] {
        given::<File>(past.clone()).when(start(1, 99)).then_expect_error(FileError::NotProcessing);
        for command in [progress(1, 10), finish(1), fail(1)] {
            given::<File>(past.clone())
                .when(command)
                .then_expect_error(FileError::Lease(LeaseError::Lost));
        }
    }
}

#[test]
fn a_file_is_deleted_at_any_stage_and_then_not_found() {
    for mut past in [vec![uploaded()], ready(), failed()] {
        given::<File>(past.clone())
            .when(FileCommand::Delete)
            .then_expect_events(vec![FileEvent::Deleted {}]);
        past.push(FileEvent::Deleted {});
        let delete = FileCommand::Delete;
        for command in [delete, start(1, 0), progress(1, 1), finish(1), fail(1), embed()] {
            given::<File>(past.clone()).when(command).then_expect_error(FileError::NotFound);
        }
    }
    given::<File>(vec![]).when(FileCommand::Delete).then_expect_error(FileError::NotFound);
}

#[test]
fn a_file_is_erased_at_any_stage_and_after_it_was_deleted() {
    let (delete, erase) = (FileEvent::Deleted {}, FileEvent::ErasureRequested {});
    for past in [vec![uploaded()], ready(), failed()] {
        given::<File>(past.clone())
            .when(FileCommand::RequestErasure)
            .then_expect_events(vec![delete.clone(), erase.clone()]);
        given::<File>(past.clone())
            .when(FileCommand::Erase)
            .then_expect_error(FileError::NotErasing);
        let deleted = [past, vec![delete.clone()]].concat();
        given::<File>(deleted.clone())
            .when(FileCommand::RequestErasure)
            .then_expect_events(vec![erase.clone()]);
        let erasing = || given::<File>([deleted.clone(), vec![erase.clone()]].concat());
        erasing().when(FileCommand::RequestErasure).then_expect_events(vec![]);
        erasing().when(FileCommand::Upload(upload())).then_expect_error(FileError::Erasing);
        erasing().when(FileCommand::Delete).then_expect_error(FileError::NotFound);
        erasing().when(FileCommand::Erase).then_expect_events(vec![FileEvent::Erased {}]);
    }
    given::<File>(vec![]).when(FileCommand::RequestErasure).then_expect_error(FileError::NotFound);
}

#[test]
fn a_rule_erases_what_was_deleted_and_never_what_is_there() {
    let erase = || FileCommand::RequestErasureOfDeleted;
    let deleted = |past: Vec<FileEvent>| [past, vec![FileEvent::Deleted {}]].concat();
    for past in [vec![uploaded()], ready(), failed()] {
        given::<File>(deleted(past.clone()))
            .when(erase())
            .then_expect_events(vec![FileEvent::ErasureRequested {}]);
        let again = [deleted(past.clone()), past.clone()].concat();
        for there in [past.clone(), again] {
            given::<File>(there).when(erase()).then_expect_error(FileError::NotDeleted);
        }
        let erasing = [deleted(past), vec![FileEvent::ErasureRequested {}]].concat();
        given::<File>(erasing.clone()).when(erase()).then_expect_events(vec![]);
        let erased = [erasing, vec![FileEvent::Erased {}]].concat();
        given::<File>(erased).when(erase()).then_expect_error(FileError::NotFound);
    }
    given::<File>(vec![]).when(erase()).then_expect_error(FileError::NotFound);
}

#[test]
fn what_was_erased_may_come_again() {
    let past = [ready(), vec![FileEvent::Deleted {}, FileEvent::ErasureRequested {}]].concat();
    let past = [past, vec![FileEvent::Erased {}]].concat();
    let erased = || given::<File>(past.clone());
    erased().when(FileCommand::Upload(upload())).then_expect_events(vec![uploaded()]);
    for command in [FileCommand::Delete, FileCommand::RequestErasure, FileCommand::Erase] {
        erased().when(command).then_expect_error(FileError::NotFound);
    }
    given::<File>([past.clone(), vec![uploaded()]].concat())
        .when(finish(1))
        .then_expect_error(FileError::Lease(LeaseError::Lost));
}

#[test]
fn a_further_model_takes_what_is_ready() {
    let (did, failed_it) = (embedded(), embedding_failure());
    given::<File>(ready()).when(embed()).then_expect_events(vec![did.clone()]);
    given::<File>(ready()).when(fail_embedding()).then_expect_events(vec![failed_it]);
    for past in [vec![uploaded()], failed()] {
        given::<File>(past.clone()).when(embed()).then_expect_error(FileError::NotReady);
        given::<File>(past).when(fail_embedding()).then_expect_error(FileError::NotReady);
    }
    // It may come again: a generation that was removed can be begun again.
    let past = [ready(), vec![did.clone()]].concat();
    given::<File>(past).when(embed()).then_expect_events(vec![did]);
}

#[test]
fn a_worker_of_an_earlier_life_cannot_report_into_the_next() {
    let past = vec![uploaded(), started(1, 1, 60), FileEvent::Deleted {}, uploaded()];
    given::<File>(past.clone())
        .when(finish(1))
        .then_expect_error(FileError::Lease(LeaseError::Lost));
    given::<File>(past.clone()).when(start(2, 0)).then_expect_events(vec![started(2, 2, 60)]);
    let past = [past, vec![started(2, 2, 60)]].concat();
    given::<File>(past).when(finish(1)).then_expect_error(FileError::Lease(LeaseError::Lost));
}

#[test]
fn what_was_uploaded_is_known_while_it_exists() {
    let upload_after = |events: Vec<FileEvent>| {
        let mut file = File::default();
        events.into_iter().for_each(|event| file.apply(event));
        file.upload().cloned()
    };
    for past in [vec![uploaded()], ready(), failed()] {
        assert_eq!(upload_after(past), Some(upload()));
    }
    assert_eq!(upload_after(vec![]), None);
    assert_eq!(upload_after(vec![uploaded(), FileEvent::Deleted {}]), None);
}

#[test]
fn every_refusal_has_its_code() {
    let table = [
        (FileError::NotFound, RefusalKind::NotFound, "file_not_found"),
        (FileError::Duplicate, RefusalKind::Conflict, "file_duplicate"),
        (FileError::NotProcessing, RefusalKind::Conflict, "file_not_processing"),
        (FileError::Erasing, RefusalKind::Conflict, "file_erasing"),
        (FileError::NotDeleted, RefusalKind::Conflict, "file_not_deleted"),
        (FileError::NotErasing, RefusalKind::Conflict, "file_not_erasing"),
        (FileError::NotReady, RefusalKind::Conflict, "file_not_ready"),
        (FileError::PercentTooHigh, RefusalKind::Invalid, "percent_too_high"),
        (FileError::Lease(LeaseError::Lost), RefusalKind::Conflict, "lease_lost"),
    ];
    for (refusal, kind, code) in table {
        assert_eq!(refusal.reason(), (kind, code));
    }
}

proptest! {
    #[test]
    fn the_log_tells_everything_and_fences_only_rise(
        commands in prop::collection::vec(command(), 0..30),
    ) {
        let mut highest = 0;
        for event in walk::<File>(commands) {
            match event {
                FileEvent::IngestionStarted { fence, .. } => {
                    prop_assert!(fence > highest);
                    highest = fence;
                }
                FileEvent::IngestionProgressed { fence, .. }
                | FileEvent::Indexed { fence, .. }
                | FileEvent::Failed { fence, .. } => prop_assert_eq!(fence, highest),
                FileEvent::Uploaded { .. }
                | FileEvent::Embedded { .. }
                | FileEvent::EmbeddingFailed { .. }
                | FileEvent::Deleted {}
                | FileEvent::ErasureRequested {}
                | FileEvent::Erased {} => {}
            }
        }
    }
}

fn command() -> impl Strategy<Value = FileCommand> {
    let fence = || 0_u64..6;
    prop_oneof![
        3 => Just(FileCommand::Upload(upload())),
        6 => (1_u8..4, 0_i64..200).prop_map(|(worker, now)| start(worker, now)),
        4 => (fence(), 0_u8..110).prop_map(|(fence, percent)| progress(fence, percent)),
        2 => fence().prop_map(finish),
        2 => fence().prop_map(fail),
        2 => Just(embed()),
        1 => Just(fail_embedding()),
        2 => Just(FileCommand::Delete),
        1 => Just(FileCommand::RequestErasure),
        1 => Just(FileCommand::RequestErasureOfDeleted),
        1 => Just(FileCommand::Erase),
    ]
}

fn upload() -> Upload {
    Upload {
        knowledge_base: id(7),
        name: FileName::parse("tea.md").unwrap(),
        media_type: "text/markdown".to_owned(),
        blob: BlobRef { name: "ab".repeat(32), size: 12 },
        source: None,
        subject: Some("tea".to_owned()),
        language: None,
        tags: vec!["drinks".to_owned()],
    }
}

fn uploaded() -> FileEvent {
    let Upload { knowledge_base, name, media_type, blob, source, subject, language, tags } =
        upload();
    let size = blob.size;
    FileEvent::Uploaded {
        knowledge_base,
        name,
        media_type,
        size,
        blob,
        source,
        subject,
        language,
        tags,
    }
}

fn start(worker: u8, now: i64) -> FileCommand {
    FileCommand::StartIngestion(LeaseClaim {
        worker: id(worker),
        now: at(now),
        lease_until: at(now + 60),
        exclusive: false,
        gone: Arc::default(),
        outlasted: outlasted(now),
    })
}

fn started(worker: u8, fence: u64, until: i64) -> FileEvent {
    FileEvent::IngestionStarted { worker: id(worker), fence, lease_until: at(until) }
}

fn progress(fence: u64, percent: u8) -> FileCommand {
    FileCommand::Progress { fence, percent }
}

fn progressed(fence: u64, percent: u8) -> FileEvent {
    FileEvent::IngestionProgressed { fence, percent }
}

fn finish(fence: u64) -> FileCommand {
    FileCommand::FinishIngestion {
        fence,
        index: FileIndex {
            artifact: "a".to_owned(),
            chunks: 1,
            characters: 12,
            tokens: 4,
            model_revision: "m".to_owned(),
        },
    }
}

fn indexed(fence: u64) -> FileEvent {
    FileEvent::Indexed {
        fence,
        artifact: "a".to_owned(),
        chunks: 1,
        characters: 12,
        tokens: 4,
        model_revision: "m".to_owned(),
    }
}

fn fail(fence: u64) -> FileCommand {
    FileCommand::Fail { fence, code: "not_utf8".to_owned(), message: "why".to_owned() }
}

fn failure(fence: u64) -> FileEvent {
    FileEvent::Failed { fence, code: "not_utf8".to_owned(), message: "why".to_owned() }
}

fn embed() -> FileCommand {
    FileCommand::Embed(FileIndex {
        artifact: "b".to_owned(),
        chunks: 2,
        characters: 12,
        tokens: 5,
        model_revision: "n".to_owned(),
    })
}

fn embedded() -> FileEvent {
    FileEvent::Embedded {
        artifact: "b".to_owned(),
        chunks: 2,
        characters: 12,
        tokens: 5,
        model_revision: "n".to_owned(),
    }
}

fn fail_embedding() -> FileCommand {
    FileCommand::FailEmbedding {
        model_revision: "n".to_owned(),
        code: "not_utf8".to_owned(),
        message: "why".to_owned(),
    }
}

fn embedding_failure() -> FileEvent {
    FileEvent::EmbeddingFailed {
        model_revision: "n".to_owned(),
        code: "not_utf8".to_owned(),
        message: "why".to_owned(),
    }
}

fn ready() -> Vec<FileEvent> {
    vec![uploaded(), started(1, 1, 60), indexed(1)]
}

fn failed() -> Vec<FileEvent> {
    vec![uploaded(), started(1, 1, 60), failure(1)]
}
