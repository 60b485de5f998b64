//! That a refresh token is good once.

use proptest::prelude::*;

use super::*;
use crate::history::{at, given, id, walk};

#[test]
fn a_session_is_started_once() {
    given::<Session>(vec![]).when(start()).then_expect_events(vec![started()]);
    given::<Session>(vec![started()]).when(start()).then_expect_error(SessionError::AlreadyStarted);
    given::<Session>(vec![started(), ended(EndReason::Logout)])
        .when(start())
        .then_expect_error(SessionError::AlreadyStarted);
}

#[test]
fn a_session_from_outside_is_its_token_and_cannot_be_refreshed() {
    given::<Session>(vec![]).when(start_outside(1)).then_expect_events(vec![started_outside()]);
    given::<Session>(vec![started_outside()]).when(start_outside(1)).then_expect_events(vec![]);
    given::<Session>(vec![started_outside()])
        .when(start_outside(2))
        .then_expect_error(SessionError::AlreadyStarted);
    given::<Session>(vec![started_outside()])
        .when(refresh("guessed", "x", 10))
        .then_expect_error(SessionError::TokenUnknown);
    given::<Session>(vec![started_outside()])
        .when(SessionCommand::End { reason: EndReason::Logout })
        .then_expect_events(vec![ended(EndReason::Logout)]);
    given::<Session>(vec![started_outside(), ended(EndReason::Logout)])
        .when(start_outside(1))
        .then_expect_error(SessionError::Ended);
}

#[test]
fn the_current_token_is_exchanged() {
    given::<Session>(vec![started()])
        .when(refresh("one", "two", 10))
        .then_expect_events(vec![refreshed("two")]);
    given::<Session>(vec![started(), refreshed("two")])
        .when(refresh("two", "three", 20))
        .then_expect_events(vec![refreshed("three")]);
}

#[test]
fn a_token_that_comes_again_ends_the_session() {
    given::<Session>(vec![started(), refreshed("two")])
        .when(refresh("one", "x", 20))
        .then_expect_events(vec![ended(EndReason::Reuse)]);
    // Even long after the session has run out: it is written down that somebody tried.
    given::<Session>(vec![started(), refreshed("two")])
        .when(refresh("one", "x", 1_000_000))
        .then_expect_events(vec![ended(EndReason::Reuse)]);
}

#[test]
fn a_token_that_was_never_given_out_ends_nothing() {
    given::<Session>(vec![started()])
        .when(refresh("guessed", "x", 10))
        .then_expect_error(SessionError::TokenUnknown);
    given::<Session>(vec![])
        .when(refresh("one", "x", 10))
        .then_expect_error(SessionError::TokenUnknown);
}

#[test]
fn a_session_runs_out() {
    given::<Session>(vec![started()])
        .when(refresh("one", "two", 99))
        .then_expect_events(vec![refreshed("two")]);
    given::<Session>(vec![started()])
        .when(refresh("one", "two", 100))
        .then_expect_error(SessionError::Expired);
}

#[test]
fn an_ended_session_stays_ended() {
    given::<Session>(vec![started()])
        .when(end(EndReason::Logout))
        .then_expect_events(vec![ended(EndReason::Logout)]);
    given::<Session>(vec![started(), ended(EndReason::Logout)])
        .when(refresh("one", "two", 10))
        .then_expect_error(SessionError::Ended);
    given::<Session>(vec![started(), ended(EndReason::Logout)])
        .when(end(EndReason::PasswordChanged))
        .then_expect_events(vec![]);
    given::<Session>(vec![]).when(end(EndReason::Logout)).then_expect_error(SessionError::NotFound);
}

#[test]
fn every_refusal_has_its_code() {
    let table = [
        (SessionError::NotFound, RefusalKind::NotFound, "session_not_found"),
        (SessionError::AlreadyStarted, RefusalKind::Conflict, "session_already_started"),
        (SessionError::TokenUnknown, RefusalKind::Unauthenticated, "refresh_token_invalid"),
        (SessionError::Expired, RefusalKind::Unauthenticated, "session_expired"),
        (SessionError::Ended, RefusalKind::Unauthenticated, "session_ended"),
    ];
    for (refusal, kind, code) in table {
        assert_eq!(refusal.reason(), (kind, code));
    }
}

proptest! {
    #[test]
    fn the_log_tells_everything(commands in prop::collection::vec(command(), 0..20)) {
        walk::<Session>(commands);
    }
}

fn command() -> impl Strategy<Value = SessionCommand> {
    prop_oneof![
        2 => Just(start()),
        6 => ("one|two|three", "one|two|three", 0_i64..150)
            .prop_map(|(presented, new, now)| refresh(&presented, &new, now)),
        1 => Just(end(EndReason::UserDeleted)),
    ]
}

fn start_outside(user: u8) -> SessionCommand {
    let issuer = "https://issuer.example".to_owned();
    SessionCommand::StartOutside { user: id(user), issuer, expires_at: at(100) }
}

fn started_outside() -> SessionEvent {
    let issuer = "https://issuer.example".to_owned();
    SessionEvent::StartedOutside { user: id(1), issuer, expires_at: at(100) }
}

fn start() -> SessionCommand {
    SessionCommand::Start { user: id(1), refresh_hash: Digest::sha256("one"), expires_at: at(100) }
}

fn started() -> SessionEvent {
    SessionEvent::Started { user: id(1), refresh_hash: Digest::sha256("one"), expires_at: at(100) }
}

fn refresh(presented: &str, new: &str, now: i64) -> SessionCommand {
    SessionCommand::Refresh {
        presented_hash: Digest::sha256(presented),
        new_hash: Digest::sha256(new),
        now: at(now),
        expires_at: at(200),
    }
}

fn refreshed(new: &str) -> SessionEvent {
    SessionEvent::Refreshed { refresh_hash: Digest::sha256(new), expires_at: at(200) }
}

fn end(reason: EndReason) -> SessionCommand {
    SessionCommand::End { reason }
}

fn ended(reason: EndReason) -> SessionEvent {
    SessionEvent::Ended { reason }
}
