//! What a knowledge base allows.

use proptest::prelude::*;

use super::*;
use crate::history::{description, given, name, sealed, walk};

#[test]
fn a_knowledge_base_is_made_once() {
    given::<KnowledgeBase>(vec![]).when(create(false)).then_expect_events(vec![created(false)]);
    let (name, description) = (name("Docs"), Some(sealed("New")));
    given::<KnowledgeBase>(vec![])
        .when(KnowledgeBaseCommand::Create { name, description, default: false })
        .then_expect_events(vec![created(false), described(Some("New"))]);
    for past in [vec![created(false)], vec![created(false), KnowledgeBaseEvent::Deleted {}]] {
        given::<KnowledgeBase>(past)
            .when(create(false))
            .then_expect_error(KnowledgeBaseError::AlreadyExists);
    }
}

#[test]
fn the_default_one_may_be_completed_by_several() {
    given::<KnowledgeBase>(vec![created(true)]).when(create(true)).then_expect_events(vec![]);
    given::<KnowledgeBase>(vec![created(true), KnowledgeBaseEvent::Deleted {}])
        .when(create(true))
        .then_expect_error(KnowledgeBaseError::AlreadyExists);
}

#[test]
fn only_what_differs_is_changed() {
    given::<KnowledgeBase>(vec![created(false)])
        .when(change(Some("Docs"), Rewording::Sealed(sealed("New"))))
        .then_expect_events(vec![described(Some("New"))]);
    given::<KnowledgeBase>(vec![created(false)])
        .when(change(Some("Docs"), Rewording::Removed))
        .then_expect_events(vec![]);
    let in_the_clear =
        KnowledgeBaseEvent::Changed { name: None, description: Some(description("Old")) };
    for said in [described(Some("New")), in_the_clear] {
        given::<KnowledgeBase>(vec![created(false), said])
            .when(change(None, Rewording::Removed))
            .then_expect_events(vec![described(None)]);
    }
}

#[test]
fn the_default_one_goes_only_with_its_product() {
    given::<KnowledgeBase>(vec![created(true)])
        .when(KnowledgeBaseCommand::Delete { with_product: false })
        .then_expect_error(KnowledgeBaseError::Default);
    given::<KnowledgeBase>(vec![created(true)])
        .when(KnowledgeBaseCommand::Delete { with_product: true })
        .then_expect_events(vec![KnowledgeBaseEvent::Deleted {}]);
}

#[test]
fn what_is_deleted_is_not_found() {
    let delete = || KnowledgeBaseCommand::Delete { with_product: false };
    given::<KnowledgeBase>(vec![created(false)])
        .when(delete())
        .then_expect_events(vec![KnowledgeBaseEvent::Deleted {}]);
    for past in [vec![], vec![created(false), KnowledgeBaseEvent::Deleted {}]] {
        given::<KnowledgeBase>(past.clone())
            .when(delete())
            .then_expect_error(KnowledgeBaseError::NotFound);
        given::<KnowledgeBase>(past)
            .when(change(None, Rewording::Kept))
            .then_expect_error(KnowledgeBaseError::NotFound);
    }
}

#[test]
fn every_refusal_has_its_code() {
    let table = [
        (KnowledgeBaseError::NotFound, RefusalKind::NotFound, "knowledge_base_not_found"),
        (KnowledgeBaseError::AlreadyExists, RefusalKind::Conflict, "knowledge_base_already_exists"),
        (KnowledgeBaseError::Default, RefusalKind::Conflict, "knowledge_base_is_default"),
    ];
    for (refusal, kind, code) in table {
        assert_eq!(refusal.reason(), (kind, code));
    }
}

proptest! {
    #[test]
    fn the_log_tells_everything(commands in prop::collection::vec(command(), 0..20)) {
        walk::<KnowledgeBase>(commands);
    }
}

fn command() -> impl Strategy<Value = KnowledgeBaseCommand> {
    let name = prop::option::of("[ab]");
    let text = prop_oneof![
        Just(Rewording::Kept),
        Just(Rewording::Removed),
        "[ab]".prop_map(|text| Rewording::Sealed(sealed(&text)))
    ];
    prop_oneof![
        1 => any::<bool>().prop_map(create),
        4 => (name, text).prop_map(|(name, text)| change(name.as_deref(), text)),
        1 => any::<bool>().prop_map(|with_product| KnowledgeBaseCommand::Delete { with_product }),
    ]
}

fn create(default: bool) -> KnowledgeBaseCommand {
    KnowledgeBaseCommand::Create { name: name("Docs"), description: None, default }
}

fn created(default: bool) -> KnowledgeBaseEvent {
    KnowledgeBaseEvent::Created { name: name("Docs"), description: None, default }
}

fn described(text: Option<&str>) -> KnowledgeBaseEvent {
    KnowledgeBaseEvent::Described { description: text.map(sealed) }
}

fn change(new_name: Option<&str>, description: Rewording) -> KnowledgeBaseCommand {
    KnowledgeBaseCommand::Change { name: new_name.map(name), description }
}
