//! What an organization allows.

use super::*;
use crate::history::{given, name, walk};

#[test]
fn an_organization_is_made() {
    given::<Organization>(vec![]).when(create("Acme")).then_expect_events(vec![created("Acme")]);
}

#[test]
fn two_first_starts_at_once_make_one_organization() {
    given::<Organization>(vec![created("Acme")]).when(create("Acme")).then_expect_events(vec![]);
}

#[test]
fn an_organization_is_not_made_over() {
    given::<Organization>(vec![created("Acme")])
        .when(create("Other"))
        .then_expect_error(OrganizationError::AlreadyExists);
    let reason = (RefusalKind::Conflict, "organization_already_exists");
    assert_eq!(OrganizationError::AlreadyExists.reason(), reason);
}

#[test]
fn the_log_tells_everything() {
    let log = walk::<Organization>(vec![create("Acme"), create("Acme"), create("Other")]);
    assert_eq!(log, [created("Acme")]);
}

fn create(text: &str) -> OrganizationCommand {
    OrganizationCommand::Create { name: name(text) }
}

fn created(text: &str) -> OrganizationEvent {
    OrganizationEvent::Created { name: name(text) }
}
