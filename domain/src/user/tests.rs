//! What may be done to a user, and by whom.

use proptest::prelude::*;

use super::*;
use crate::history::{given, sealed, walk};

const BY_OWNER: Asker = Asker::Other(Role::Owner);
const BY_ADMIN: Asker = Asker::Other(Role::Admin);

#[test]
fn a_user_is_made() {
    given::<User>(vec![])
        .when(create(Role::Member, BY_ADMIN))
        .then_expect_events(vec![created(Role::Member)]);
}

#[test]
fn only_an_owner_or_the_operator_makes_an_owner() {
    given::<User>(vec![])
        .when(create(Role::Owner, BY_ADMIN))
        .then_expect_error(UserError::OwnerRequired);
    for by in [BY_OWNER, Asker::Operator] {
        given::<User>(vec![])
            .when(create(Role::Owner, by))
            .then_expect_events(vec![created(Role::Owner)]);
    }
}

#[test]
fn a_user_is_made_once() {
    for past in [vec![created(Role::Member)], vec![created(Role::Member), UserEvent::Deleted {}]] {
        given::<User>(past)
            .when(create(Role::Member, BY_OWNER))
            .then_expect_error(UserError::AlreadyExists);
    }
}

#[test]
fn a_user_is_linked_to_one_subject_of_an_issuer() {
    let link = |issuer: &str| UserCommand::Link(identity(issuer));
    given::<User>(vec![created(Role::Member)])
        .when(link("a"))
        .then_expect_events(vec![identity_linked("a")]);
    given::<User>(vec![created(Role::Member), identity_linked("a")])
        .when(link("a"))
        .then_expect_error(UserError::AlreadyLinked);
    given::<User>(vec![created(Role::Member), identity_linked("a")])
        .when(link("b"))
        .then_expect_events(vec![identity_linked("b")]);
    for past in [vec![], vec![created(Role::Member), UserEvent::Deleted {}]] {
        given::<User>(past).when(link("a")).then_expect_error(UserError::NotFound);
    }
}

#[test]
fn a_user_is_made_with_who_it_is_outside() {
    let create = UserCommand::Create {
        email: sealed("email"),
        name: None,
        role: Role::Member,
        password: None,
        identity: Some(identity("a")),
        by: Asker::Operator,
    };
    given::<User>(vec![])
        .when(create)
        .then_expect_events(vec![created(Role::Member), identity_linked("a")]);
}

#[test]
fn each_change_is_an_event_of_its_own() {
    let change = UserCommand::Change {
        email: Some(sealed("new email")),
        name: Some(sealed("new name")),
        role: Some(Role::Viewer),
        password: Some(sealed("new hash")),
        by: BY_ADMIN,
    };
    given::<User>(vec![created(Role::Member)]).when(change).then_expect_events(vec![
        UserEvent::EmailChanged { email: sealed("new email") },
        UserEvent::Renamed { name: sealed("new name") },
        UserEvent::RoleChanged { role: Role::Viewer },
        UserEvent::PasswordChanged { password: sealed("new hash") },
    ]);
}

#[test]
fn a_change_that_changes_nothing_writes_nothing() {
    given::<User>(vec![created(Role::Member)])
        .when(change_role(Some(Role::Member), BY_ADMIN))
        .then_expect_events(vec![]);
    given::<User>(vec![created(Role::Owner)])
        .when(change_role(None, BY_OWNER))
        .then_expect_events(vec![]);
}

#[test]
fn only_an_owner_touches_an_owner() {
    let owner = || given::<User>(vec![created(Role::Owner)]);
    owner().when(change_role(None, BY_ADMIN)).then_expect_error(UserError::OwnerRequired);
    owner().when(UserCommand::Delete { by: BY_ADMIN }).then_expect_error(UserError::OwnerRequired);
    given::<User>(vec![created(Role::Member)])
        .when(change_role(Some(Role::Owner), BY_ADMIN))
        .then_expect_error(UserError::OwnerRequired);
    owner()
        .when(UserCommand::Delete { by: BY_OWNER })
        .then_expect_events(vec![UserEvent::Deleted {}]);
}

#[test]
fn nobody_changes_their_own_role_or_deletes_themself() {
    let owner = || given::<User>(vec![created(Role::Owner)]);
    owner()
        .when(change_role(Some(Role::Admin), Asker::Themself))
        .then_expect_error(UserError::OwnRole);
    owner()
        .when(UserCommand::Delete { by: Asker::Themself })
        .then_expect_error(UserError::DeletesThemself);
    // Their own name and password are theirs to change.
    let rename = UserCommand::Change {
        email: None,
        name: Some(sealed("new")),
        role: Some(Role::Owner),
        password: None,
        by: Asker::Themself,
    };
    owner().when(rename).then_expect_events(vec![UserEvent::Renamed { name: sealed("new") }]);
}

#[test]
fn who_is_not_there_is_not_found() {
    for past in [vec![], vec![created(Role::Member), UserEvent::Deleted {}]] {
        given::<User>(past.clone())
            .when(change_role(None, BY_OWNER))
            .then_expect_error(UserError::NotFound);
        given::<User>(past)
            .when(UserCommand::Delete { by: BY_OWNER })
            .then_expect_error(UserError::NotFound);
    }
}

#[test]
fn a_deleted_user_is_erased_once_and_stays_gone() {
    let deleted = || vec![created(Role::Member), UserEvent::Deleted {}];
    let erased = || [deleted(), vec![UserEvent::Erased {}]].concat();
    given::<User>(deleted())
        .when(UserCommand::Erase)
        .then_expect_events(vec![UserEvent::Erased {}]);
    given::<User>(erased()).when(UserCommand::Erase).then_expect_events(vec![]);
    given::<User>(erased())
        .when(change_role(None, BY_OWNER))
        .then_expect_error(UserError::NotFound);
    given::<User>(erased())
        .when(create(Role::Member, BY_OWNER))
        .then_expect_error(UserError::AlreadyExists);
}

#[test]
fn who_is_not_deleted_is_not_erased() {
    given::<User>(vec![]).when(UserCommand::Erase).then_expect_error(UserError::NotFound);
    given::<User>(vec![created(Role::Member)])
        .when(UserCommand::Erase)
        .then_expect_error(UserError::NotDeleted);
}

#[test]
fn every_refusal_has_its_code() {
    let table = [
        (UserError::NotFound, RefusalKind::NotFound, "user_not_found"),
        (UserError::AlreadyExists, RefusalKind::Conflict, "user_already_exists"),
        (UserError::OwnerRequired, RefusalKind::Forbidden, "owner_required"),
        (UserError::OwnRole, RefusalKind::Conflict, "own_role_unchangeable"),
        (UserError::DeletesThemself, RefusalKind::Conflict, "user_is_yourself"),
        (UserError::NotDeleted, RefusalKind::Conflict, "user_not_deleted"),
    ];
    for (refusal, kind, code) in table {
        assert_eq!(refusal.reason(), (kind, code));
    }
}

proptest! {
    #[test]
    fn the_log_tells_everything(commands in prop::collection::vec(command(), 0..20)) {
        walk::<User>(commands);
    }
}

fn command() -> impl Strategy<Value = UserCommand> {
    let role = || prop::sample::select(Role::ALL.to_vec());
    let by =
        || prop_oneof![Just(Asker::Operator), Just(Asker::Themself), role().prop_map(Asker::Other)];
    let text = || prop::option::of("[ab]".prop_map(|text| sealed(&text)));
    prop_oneof![
        (text(), role(), text(), by()).prop_map(|(name, role, password, by)| {
            UserCommand::Create { email: sealed("email"), name, role, password, identity: None, by }
        }),
        (text(), text(), prop::option::of(role()), text(), by()).prop_map(
            |(email, name, role, password, by)| {
                UserCommand::Change { email, name, role, password, by }
            }
        ),
        by().prop_map(|by| UserCommand::Delete { by }),
        Just(UserCommand::Erase),
    ]
}

fn create(role: Role, by: Asker) -> UserCommand {
    UserCommand::Create {
        email: sealed("email"),
        name: None,
        role,
        password: None,
        identity: None,
        by,
    }
}

fn created(role: Role) -> UserEvent {
    UserEvent::Created { email: sealed("email"), name: None, role, password: None }
}

fn change_role(role: Option<Role>, by: Asker) -> UserCommand {
    UserCommand::Change { email: None, name: None, role, password: None, by }
}

fn identity(issuer: &str) -> Identity {
    Identity { issuer: issuer.to_owned(), subject: sealed("subject") }
}

fn identity_linked(issuer: &str) -> UserEvent {
    UserEvent::IdentityLinked { issuer: issuer.to_owned(), subject: sealed("subject") }
}
