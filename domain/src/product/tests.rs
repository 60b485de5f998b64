//! What a product allows.

use proptest::prelude::*;

use super::*;
use crate::history::{description, given, id, name, sealed, walk};

#[test]
fn a_product_is_made_with_the_id_of_its_knowledge_base() {
    given::<Product>(vec![]).when(create()).then_expect_events(vec![created(), described("About")]);
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
        .when(change(Some("New"), Rewording::Kept))
        .then_expect_events(vec![renamed.clone()]);
    given::<Product>(vec![created()])
        .when(change(Some("Shop"), reworded("Other")))
        .then_expect_events(vec![described("Other")]);
    given::<Product>(vec![created()])
        .when(change(Some("New"), reworded("Other")))
        .then_expect_events(vec![renamed, described("Other")]);
    given::<Product>(vec![created()])
        .when(change(None, Rewording::Kept))
        .then_expect_events(vec![]);
}

#[test]
fn a_description_is_taken_away_once() {
    let emptied = || ProductEvent::Described { description: None };
    given::<Product>(vec![created(), described("About")])
        .when(change(None, Rewording::Removed))
        .then_expect_events(vec![emptied()]);
    for past in [vec![created()], vec![created(), described("About"), emptied()]] {
        given::<Product>(past).when(change(None, Rewording::Removed)).then_expect_events(vec![]);
    }
}

#[test]
fn what_was_said_in_the_clear_before_is_known_and_taken_away() {
    let created = ProductEvent::Created {
        name: name("Shop"),
        description: Some(description("About")),
        knowledge_base: id(9),
    };
    let changed = |text| ProductEvent::Changed { name: None, description: Some(description(text)) };
    let emptied = ProductEvent::Described { description: None };
    for past in [vec![created.clone()], vec![created.clone(), changed("Other")]] {
        given::<Product>(past)
            .when(change(None, Rewording::Removed))
            .then_expect_events(vec![emptied.clone()]);
    }
    given::<Product>(vec![created, changed("")])
        .when(change(None, Rewording::Removed))
        .then_expect_events(vec![]);
}

#[test]
fn a_rule_is_set_changed_and_taken_away_and_each_of_it_once() {
    let after = |rules: &[Option<u32>]| {
        given::<Product>([created()].into_iter().chain(rules.iter().copied().map(kept)).collect())
    };
    for (rules, rule) in [
        (&[][..], Some(30)),
        (&[Some(30)], Some(0)),
        (&[Some(30)], None),
        (&[Some(30), None], Some(30)),
    ] {
        after(rules).when(keep(rule)).then_expect_events(vec![kept(rule)]);
    }
    for (rules, rule) in [(&[][..], None), (&[Some(30)], Some(30)), (&[Some(30), None], None)] {
        after(rules).when(keep(rule)).then_expect_events(vec![]);
    }
    after(&[Some(30)]).when(change(None, Rewording::Kept)).then_expect_events(vec![]);
}

#[test]
fn a_product_that_is_gone_has_no_rule() {
    let past = vec![created(), kept(Some(30)), ProductEvent::Deleted {}];
    given::<Product>(past.clone()).when(keep(None)).then_expect_error(ProductError::NotFound);
    let mut product = Product::default();
    let mut rules = Vec::new();
    for event in past {
        product.apply(event);
        rules.push(product.retention().deleted_files_days);
    }
    assert_eq!(rules, [None, Some(30), None]);
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
        given::<Product>(past)
            .when(change(None, Rewording::Kept))
            .then_expect_error(ProductError::NotFound);
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
    let name = prop::option::of("[ab]");
    let text = prop_oneof![
        Just(Rewording::Kept),
        Just(Rewording::Removed),
        "[ab]".prop_map(|text| reworded(&text))
    ];
    prop_oneof![
        1 => Just(create()),
        4 => (name, text).prop_map(|(name, text)| change(name.as_deref(), text)),
        2 => prop::option::of(0..3_u32).prop_map(keep),
        1 => Just(ProductCommand::Delete),
        1 => Just(ProductCommand::Erase),
    ]
}

fn create() -> ProductCommand {
    ProductCommand::Create {
        name: name("Shop"),
        description: Some(sealed("About")),
        knowledge_base: id(9),
    }
}

fn created() -> ProductEvent {
    ProductEvent::Created { name: name("Shop"), description: None, knowledge_base: id(9) }
}

fn described(text: &str) -> ProductEvent {
    ProductEvent::Described { description: Some(sealed(text)) }
}

fn reworded(text: &str) -> Rewording {
    Rewording::Sealed(sealed(text))
}

fn change(new_name: Option<&str>, description: Rewording) -> ProductCommand {
    ProductCommand::Change { name: new_name.map(name), description, retention: None }
}

fn keep(deleted_files_days: Option<u32>) -> ProductCommand {
    let retention = Some(Retention { deleted_files_days });
    ProductCommand::Change { name: None, description: Rewording::Kept, retention }
}

fn kept(deleted_files_days: Option<u32>) -> ProductEvent {
    ProductEvent::RetentionSet { deleted_files_days }
}
