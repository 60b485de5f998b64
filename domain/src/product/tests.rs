//! What a product allows.

use proptest::prelude::*;

use super::*;
use crate::history::{description, given, id, name, walk};

#[test]
fn a_product_is_made_with_the_id_of_its_knowledge_base() {
    given::<Product>(vec![]).when(create()).then_expect_events(vec![created()]);
}

#[test]
fn a_product_is_made_once() {
    for past in [vec![created()], vec![created(), ProductEvent::Deleted {}]] {
        given::<Product>(past).when(create()).then_expect_error(ProductError::AlreadyExists);
    }
}

#[test]
fn only_what_differs_is_changed() {
    let renamed = ProductEvent::Changed { name: Some(name("New")), description: None };
    given::<Product>(vec![created()])
        .when(change(Some("New"), Some("About")))
        .then_expect_events(vec![renamed]);
    given::<Product>(vec![created()])
        .when(change(Some("Shop"), Some("About")))
        .then_expect_events(vec![]);
    given::<Product>(vec![created()]).when(change(None, None)).then_expect_events(vec![]);
}

#[test]
fn a_description_is_taken_away_by_an_empty_one() {
    let emptied = ProductEvent::Changed { name: None, description: Some(description("")) };
    given::<Product>(vec![created()])
        .when(change(None, Some("")))
        .then_expect_events(vec![emptied.clone()]);
    given::<Product>(vec![created(), emptied])
        .when(change(None, Some("")))
        .then_expect_events(vec![]);
}

#[test]
fn what_is_deleted_is_not_found() {
    given::<Product>(vec![created()])
        .when(ProductCommand::Delete)
        .then_expect_events(vec![ProductEvent::Deleted {}]);
    for past in [vec![], vec![created(), ProductEvent::Deleted {}]] {
        given::<Product>(past.clone())
            .when(ProductCommand::Delete)
            .then_expect_error(ProductError::NotFound);
        given::<Product>(past).when(change(None, None)).then_expect_error(ProductError::NotFound);
    }
}

#[test]
fn a_deleted_product_is_erased_once_and_stays_gone() {
    let deleted = || vec![created(), ProductEvent::Deleted {}];
    let erased = || [deleted(), vec![ProductEvent::Erased {}]].concat();
    given::<Product>(deleted())
        .when(ProductCommand::Erase)
        .then_expect_events(vec![ProductEvent::Erased {}]);
    given::<Product>(erased()).when(ProductCommand::Erase).then_expect_events(vec![]);
    given::<Product>(erased())
        .when(ProductCommand::Delete)
        .then_expect_error(ProductError::NotFound);
    given::<Product>(erased()).when(create()).then_expect_error(ProductError::AlreadyExists);
}

#[test]
fn what_is_not_deleted_is_not_erased() {
    given::<Product>(vec![]).when(ProductCommand::Erase).then_expect_error(ProductError::NotFound);
    given::<Product>(vec![created()])
        .when(ProductCommand::Erase)
        .then_expect_error(ProductError::NotDeleted);
}

#[test]
fn every_refusal_has_its_code() {
    assert_eq!(ProductError::NotFound.reason(), (RefusalKind::NotFound, "product_not_found"));
    let reason = (RefusalKind::Conflict, "product_already_exists");
    assert_eq!(ProductError::AlreadyExists.reason(), reason);
    let reason = (RefusalKind::Conflict, "product_not_deleted");
    assert_eq!(ProductError::NotDeleted.reason(), reason);
}

proptest! {
    #[test]
    fn the_log_tells_everything(commands in prop::collection::vec(command(), 0..20)) {
        walk::<Product>(commands);
    }
}

fn command() -> impl Strategy<Value = ProductCommand> {
    let text = || prop::option::of("[ab]");
    prop_oneof![
        1 => Just(create()),
        4 => (text(), text()).prop_map(|(name, text)| change(name.as_deref(), text.as_deref())),
        1 => Just(ProductCommand::Delete),
        1 => Just(ProductCommand::Erase),
    ]
}

fn create() -> ProductCommand {
    ProductCommand::Create {
        name: name("Shop"),
        description: Some(description("About")),
        knowledge_base: id(9),
    }
}

fn created() -> ProductEvent {
    ProductEvent::Created {
        name: name("Shop"),
        description: Some(description("About")),
        knowledge_base: id(9),
    }
}

fn change(new_name: Option<&str>, text: Option<&str>) -> ProductCommand {
    ProductCommand::Change { name: new_name.map(name), description: text.map(description) }
}
