//! That a thing has one holder.

use proptest::prelude::*;

use super::*;
use crate::history::{given, walk};

#[test]
fn what_is_free_is_taken() {
    given::<Claim>(vec![]).when(take("user-1")).then_expect_events(vec![taken("user-1")]);
}

#[test]
fn taking_it_again_changes_nothing() {
    given::<Claim>(vec![taken("user-1")]).when(take("user-1")).then_expect_events(vec![]);
}

#[test]
fn what_is_taken_is_refused_to_others() {
    given::<Claim>(vec![taken("user-1")])
        .when(take("user-2"))
        .then_expect_error(ClaimError::Taken(ClaimKind::Email));
}

#[test]
fn a_manifest_keeps_its_name_and_version() {
    let take = |digest: &str| ClaimCommand::Take {
        kind: ClaimKind::Manifest,
        holder: format!("manifest-{digest}"),
    };
    let holder = "manifest-one".to_owned();
    let taken = ClaimEvent::Taken { kind: ClaimKind::Manifest, holder };
    given::<Claim>(vec![]).when(take("one")).then_expect_events(vec![taken.clone()]);
    given::<Claim>(vec![taken.clone()]).when(take("one")).then_expect_events(vec![]);
    let refused = ClaimError::Taken(ClaimKind::Manifest);
    assert!(refused.to_string().ends_with("publish this one under another version"));
    given::<Claim>(vec![taken]).when(take("two")).then_expect_error(refused);
}

#[test]
fn what_is_released_is_free() {
    let released = ClaimEvent::Released { holder: "user-1".to_owned() };
    given::<Claim>(vec![taken("user-1")])
        .when(release("user-1"))
        .then_expect_events(vec![released.clone()]);
    given::<Claim>(vec![taken("user-1"), released])
        .when(take("user-2"))
        .then_expect_events(vec![taken("user-2")]);
}

#[test]
fn a_late_release_does_not_free_what_another_holds() {
    given::<Claim>(vec![taken("user-2")]).when(release("user-1")).then_expect_events(vec![]);
    given::<Claim>(vec![]).when(release("user-1")).then_expect_events(vec![]);
}

#[test]
fn every_kind_has_its_code_and_a_sentence() {
    use RefusalKind::{Conflict, Invalid};
    let table = [
        (ClaimKind::Email, Conflict, "email_taken", "this e-mail address is in use already"),
        (
            ClaimKind::WebhookPath,
            Conflict,
            "webhook_path_taken",
            "this webhook path is in use already",
        ),
        (
            ClaimKind::Manifest,
            Conflict,
            "manifest_version_taken",
            "publish this one under another version",
        ),
        (
            ClaimKind::UploadKey,
            Invalid,
            "idempotency_key_reused",
            "this Idempotency-Key is in use already",
        ),
    ];
    for (kind, refusal, code, sentence) in table {
        let error = ClaimError::Taken(kind);
        assert_eq!(error.reason(), (refusal, code));
        assert!(error.to_string().contains(sentence), "{error}");
    }
}

proptest! {
    #[test]
    fn the_log_tells_everything_and_holders_take_turns(
        wishes in prop::collection::vec((any::<bool>(), "user-[123]"), 0..30),
    ) {
        let commands = wishes.iter().map(|(wants, holder)| match wants {
            true => take(holder),
            false => release(holder),
        });
        let mut holder = None;
        for event in walk::<Claim>(commands.collect()) {
            match event {
                ClaimEvent::Taken { holder: new, .. } => {
                    prop_assert_eq!(holder.replace(new), None);
                }
                ClaimEvent::Released { holder: old } => {
                    prop_assert_eq!(holder.take(), Some(old));
                }
            }
        }
    }
}

fn take(holder: &str) -> ClaimCommand {
    ClaimCommand::Take { kind: ClaimKind::Email, holder: holder.to_owned() }
}

fn release(holder: &str) -> ClaimCommand {
    ClaimCommand::Release { holder: holder.to_owned() }
}

fn taken(holder: &str) -> ClaimEvent {
    ClaimEvent::Taken { kind: ClaimKind::Email, holder: holder.to_owned() }
}
