//! The life of an API token.

use proptest::prelude::*;

use super::*;
use crate::history::{at, given, name, walk};

#[test]
fn a_token_is_made() {
    given::<ApiToken>(vec![])
        .when(create(Some(100), [Scope::AgentsRead]))
        .then_expect_events(vec![created(Some(100))]);
}

#[test]
fn a_token_is_made_once() {
    for past in [vec![created(None)], vec![created(None), ApiTokenEvent::Deleted {}]] {
        given::<ApiToken>(past)
            .when(create(None, [Scope::AgentsRead]))
            .then_expect_error(ApiTokenError::AlreadyExists);
    }
}

#[test]
fn a_token_that_could_never_be_used_is_not_made() {
    for expires_at in [-1, 0] {
        given::<ApiToken>(vec![])
            .when(create(Some(expires_at), [Scope::AgentsRead]))
            .then_expect_error(ApiTokenError::ExpiresInPast);
    }
    given::<ApiToken>(vec![]).when(create(None, [])).then_expect_error(ApiTokenError::NoScopes);
}

#[test]
fn only_what_differs_is_changed() {
    let change = ApiTokenCommand::Change {
        name: Some(name("Deploy")),
        scopes: Some([Scope::AgentsRead, Scope::AgentsWrite].into()),
        allowed_ips: Some(["10.0.0.0/8".parse().unwrap()].into()),
        active: Some(true),
    };
    given::<ApiToken>(vec![created(None)]).when(change.clone()).then_expect_events(vec![
        ApiTokenEvent::Changed {
            name: None,
            scopes: Some([Scope::AgentsRead, Scope::AgentsWrite].into()),
            allowed_ips: Some(["10.0.0.0/8".parse().unwrap()].into()),
        },
    ]);
    let changed = ApiTokenEvent::Changed {
        name: None,
        scopes: Some([Scope::AgentsRead, Scope::AgentsWrite].into()),
        allowed_ips: Some(["10.0.0.0/8".parse().unwrap()].into()),
    };
    given::<ApiToken>(vec![created(None), changed]).when(change).then_expect_events(vec![]);
}

#[test]
fn scopes_cannot_be_taken_away_altogether() {
    let change = ApiTokenCommand::Change {
        name: None,
        scopes: Some([].into()),
        allowed_ips: None,
        active: None,
    };
    given::<ApiToken>(vec![created(None)]).when(change).then_expect_error(ApiTokenError::NoScopes);
}

#[test]
fn a_token_is_switched_off_and_on() {
    given::<ApiToken>(vec![created(None)])
        .when(switch(false))
        .then_expect_events(vec![ApiTokenEvent::Deactivated {}]);
    let past = vec![created(None), ApiTokenEvent::Deactivated {}];
    given::<ApiToken>(past.clone()).when(switch(false)).then_expect_events(vec![]);
    given::<ApiToken>(past.clone())
        .when(switch(true))
        .then_expect_events(vec![ApiTokenEvent::Activated {}]);
    assert_eq!(status(past), TokenStatus::Inactive);
}

#[test]
fn revoked_is_final() {
    given::<ApiToken>(vec![created(None)])
        .when(ApiTokenCommand::Revoke)
        .then_expect_events(vec![ApiTokenEvent::Revoked {}]);
    let revoked = || given::<ApiToken>(vec![created(Some(100)), ApiTokenEvent::Revoked {}]);
    revoked().when(ApiTokenCommand::Revoke).then_expect_events(vec![]);
    revoked().when(ApiTokenCommand::Expire { now: at(200) }).then_expect_events(vec![]);
    revoked().when(renew(Some(300), 200)).then_expect_error(ApiTokenError::Revoked);
    revoked().when(regenerate(None, 10)).then_expect_error(ApiTokenError::Revoked);
    revoked().when(switch(true)).then_expect_error(ApiTokenError::Revoked);
    revoked().when(ApiTokenCommand::Delete).then_expect_events(vec![ApiTokenEvent::Deleted {}]);
    assert_eq!(
        status(vec![created(None), expired(), ApiTokenEvent::Revoked {}]),
        TokenStatus::Revoked
    );
}

#[test]
fn a_token_expires_when_its_time_has_come_and_once() {
    given::<ApiToken>(vec![created(Some(100))])
        .when(ApiTokenCommand::Expire { now: at(99) })
        .then_expect_events(vec![]);
    given::<ApiToken>(vec![created(Some(100))])
        .when(ApiTokenCommand::Expire { now: at(160) })
        .then_expect_events(vec![expired()]);
    given::<ApiToken>(vec![created(Some(100)), expired()])
        .when(ApiTokenCommand::Expire { now: at(200) })
        .then_expect_events(vec![]);
    given::<ApiToken>(vec![created(None)])
        .when(ApiTokenCommand::Expire { now: at(200) })
        .then_expect_events(vec![]);
    given::<ApiToken>(vec![created(Some(100)), ApiTokenEvent::Deactivated {}])
        .when(ApiTokenCommand::Expire { now: at(100) })
        .then_expect_events(vec![expired()]);
}

#[test]
fn an_expired_token_is_renewed_before_anything_else() {
    let token = || given::<ApiToken>(vec![created(Some(100)), expired()]);
    token().when(switch(true)).then_expect_error(ApiTokenError::Expired);
    token().when(regenerate(None, 200)).then_expect_error(ApiTokenError::Expired);
    token().when(renew(Some(300), 200)).then_expect_events(vec![renewed(Some(300))]);
    token().when(renew(None, 200)).then_expect_events(vec![renewed(None)]);
    assert_eq!(
        status(vec![created(Some(100)), expired(), renewed(Some(300))]),
        TokenStatus::Active
    );
}

#[test]
fn a_token_is_renewed_into_the_future() {
    for past in [vec![created(Some(100))], vec![created(Some(100)), expired()]] {
        given::<ApiToken>(past)
            .when(renew(Some(200), 200))
            .then_expect_error(ApiTokenError::ExpiresInPast);
    }
    given::<ApiToken>(vec![created(Some(100))])
        .when(renew(Some(100), 50))
        .then_expect_events(vec![]);
    let past = vec![created(Some(100)), ApiTokenEvent::Deactivated {}, renewed(None)];
    assert_eq!(status(past), TokenStatus::Inactive);
}

#[test]
fn what_was_switched_off_stays_so_though_it_runs_out_and_is_renewed() {
    let mut past =
        vec![created(Some(100)), ApiTokenEvent::Deactivated {}, expired(), renewed(None)];
    assert_eq!(status(past.clone()), TokenStatus::Inactive);
    given::<ApiToken>(past.clone())
        .when(switch(true))
        .then_expect_events(vec![ApiTokenEvent::Activated {}]);
    past.extend([ApiTokenEvent::Activated {}, expired(), renewed(None)]);
    assert_eq!(status(past), TokenStatus::Active);
}

#[test]
fn that_a_token_had_expired_is_told_even_if_nobody_had_noticed() {
    given::<ApiToken>(vec![created(Some(100))])
        .when(renew(Some(300), 200))
        .then_expect_events(vec![expired(), renewed(Some(300))]);
    given::<ApiToken>(vec![created(Some(100))])
        .when(regenerate(None, 200))
        .then_expect_error(ApiTokenError::Expired);
}

#[test]
fn a_new_secret_takes_over_at_once_or_with_grace() {
    given::<ApiToken>(vec![created(None)])
        .when(regenerate(None, 10))
        .then_expect_events(vec![regenerated(None)]);
    given::<ApiToken>(vec![created(None)])
        .when(regenerate(Some(40), 10))
        .then_expect_events(vec![regenerated(Some(40))]);
    given::<ApiToken>(vec![created(None)])
        .when(regenerate(Some(10), 10))
        .then_expect_events(vec![regenerated(None)]);

    let ApiToken::Present(token) = after(vec![created(None), regenerated(Some(40))]) else {
        panic!()
    };
    let old = PreviousSecret { secret_hash: Digest::sha256("secret"), valid_until: at(40) };
    assert_eq!(token.previous, Some(old));
    assert_eq!(token.secret_hash, Digest::sha256("new secret"));
    let again = vec![created(None), regenerated(Some(40)), regenerated(None)];
    let ApiToken::Present(token) = after(again) else { panic!() };
    assert_eq!(token.previous, None);
}

#[test]
fn what_is_deleted_is_not_found() {
    for past in [vec![], vec![created(None), ApiTokenEvent::Deleted {}]] {
        for command in [
            switch(true),
            ApiTokenCommand::Revoke,
            ApiTokenCommand::Expire { now: at(0) },
            renew(None, 0),
            regenerate(None, 0),
            ApiTokenCommand::Delete,
        ] {
            given::<ApiToken>(past.clone())
                .when(command)
                .then_expect_error(ApiTokenError::NotFound);
        }
    }
}

#[test]
fn every_refusal_has_its_code_and_points_at_its_field() {
    let table = [
        (ApiTokenError::NotFound, RefusalKind::NotFound, "api_token_not_found"),
        (ApiTokenError::AlreadyExists, RefusalKind::Conflict, "api_token_already_exists"),
        (ApiTokenError::Revoked, RefusalKind::Conflict, "api_token_revoked"),
        (ApiTokenError::Expired, RefusalKind::Conflict, "api_token_expired"),
        (ApiTokenError::ExpiresInPast, RefusalKind::Invalid, "expires_at_in_past"),
        (ApiTokenError::NoScopes, RefusalKind::Invalid, "scopes_empty"),
    ];
    for (refusal, kind, code) in table {
        assert_eq!(refusal.reason(), (kind, code));
    }
    assert_eq!(ApiTokenError::ExpiresInPast.faults()[0].pointer, "/expires_at");
    assert_eq!(ApiTokenError::NoScopes.faults()[0].pointer, "/scopes");
    assert!(ApiTokenError::Revoked.faults().is_empty());
}

proptest! {
    #[test]
    fn the_log_tells_everything(commands in prop::collection::vec(command(), 0..25)) {
        let log = walk::<ApiToken>(commands);
        let revoked = log.iter().position(|event| matches!(event, ApiTokenEvent::Revoked {}));
        if let Some(revoked) = revoked {
            let later = &log[revoked + 1..];
            prop_assert!(later.iter().all(|event| *event == ApiTokenEvent::Deleted {}), "{later:?}");
        }
    }
}

fn command() -> impl Strategy<Value = ApiTokenCommand> {
    let second = || 0_i64..200;
    prop_oneof![
        3 => prop::option::of(second()).prop_map(|at| create(at, [Scope::AgentsRead])),
        2 => any::<bool>().prop_map(switch),
        1 => ("[ab]").prop_map(|text| ApiTokenCommand::Change {
            name: Some(name(&text)), scopes: None, allowed_ips: None, active: None,
        }),
        1 => Just(ApiTokenCommand::Revoke),
        2 => second().prop_map(|now| ApiTokenCommand::Expire { now: at(now) }),
        3 => (prop::option::of(second()), second()).prop_map(|(until, now)| renew(until, now)),
        2 => (prop::option::of(second()), second()).prop_map(|(until, now)| regenerate(until, now)),
        1 => Just(ApiTokenCommand::Delete),
    ]
}

fn prefix() -> TokenPrefix {
    TokenPrefix::parse("prodgy_abcdefgh").unwrap()
}

fn create<const N: usize>(expires_at: Option<i64>, scopes: [Scope; N]) -> ApiTokenCommand {
    ApiTokenCommand::Create {
        name: name("Deploy"),
        prefix: prefix(),
        secret_hash: Digest::sha256("secret"),
        scopes: scopes.into(),
        allowed_ips: BTreeSet::new(),
        expires_at: expires_at.map(at),
        now: at(0),
    }
}

fn created(expires_at: Option<i64>) -> ApiTokenEvent {
    ApiTokenEvent::Created {
        name: name("Deploy"),
        prefix: prefix(),
        secret_hash: Digest::sha256("secret"),
        scopes: [Scope::AgentsRead].into(),
        allowed_ips: BTreeSet::new(),
        expires_at: expires_at.map(at),
    }
}

fn switch(active: bool) -> ApiTokenCommand {
    ApiTokenCommand::Change { name: None, scopes: None, allowed_ips: None, active: Some(active) }
}

fn expired() -> ApiTokenEvent {
    ApiTokenEvent::Expired { expired_at: at(100) }
}

fn renew(expires_at: Option<i64>, now: i64) -> ApiTokenCommand {
    ApiTokenCommand::Renew { expires_at: expires_at.map(at), now: at(now) }
}

fn renewed(expires_at: Option<i64>) -> ApiTokenEvent {
    ApiTokenEvent::Renewed { expires_at: expires_at.map(at) }
}

fn regenerate(previous_valid_until: Option<i64>, now: i64) -> ApiTokenCommand {
    ApiTokenCommand::Regenerate {
        prefix: prefix(),
        secret_hash: Digest::sha256("new secret"),
        previous_valid_until: previous_valid_until.map(at),
        now: at(now),
    }
}

fn regenerated(previous_valid_until: Option<i64>) -> ApiTokenEvent {
    ApiTokenEvent::Regenerated {
        prefix: prefix(),
        secret_hash: Digest::sha256("new secret"),
        previous_valid_until: previous_valid_until.map(at),
    }
}

fn after(events: Vec<ApiTokenEvent>) -> ApiToken {
    let mut token = ApiToken::default();
    events.into_iter().for_each(|event| token.apply(event));
    token
}

fn status(events: Vec<ApiTokenEvent>) -> TokenStatus {
    match after(events) {
        ApiToken::Present(token) => token.status,
        other => panic!("{other:?}"),
    }
}
