//! What an instance allows.

use proptest::prelude::*;

use super::*;
use crate::history::{given, sealed, walk};

#[test]
fn a_key_is_added_once() {
    given::<Instance>(vec![])
        .when(add("a", "public"))
        .then_expect_events(vec![added("a", "public")]);
    given::<Instance>(vec![added("a", "public")])
        .when(add("a", "public"))
        .then_expect_events(vec![]);
}

#[test]
fn a_key_id_names_one_key_for_ever() {
    given::<Instance>(vec![added("a", "public")])
        .when(add("a", "other"))
        .then_expect_error(InstanceError::KeyExists);
    assert_eq!(InstanceError::KeyExists.reason(), (RefusalKind::Conflict, "instance_key_exists"));
}

#[test]
fn the_newest_key_of_a_purpose_signs() {
    let mut instance = Instance::default();
    assert_eq!(instance.signing_key(KeyPurpose::Sessions), None);
    instance.apply(added("a", "public"));
    instance.apply(added("b", "public"));
    assert_eq!(instance.signing_key(KeyPurpose::Sessions).unwrap().key_id, "b");
    assert_eq!(instance.signing_key(KeyPurpose::Checkpoints), None);
}

proptest! {
    #[test]
    fn the_log_tells_everything(
        keys in prop::collection::vec(("[ab]", "[ab]"), 0..10),
    ) {
        walk::<Instance>(keys.iter().map(|(key_id, public)| add(key_id, public)).collect());
    }
}

fn key(key_id: &str, public_key: &str) -> InstanceKey {
    InstanceKey {
        purpose: KeyPurpose::Sessions,
        key_id: key_id.to_owned(),
        algorithm: KeyAlgorithm::EdDsa,
        public_key: public_key.to_owned(),
        private_key: sealed("private"),
    }
}

fn add(key_id: &str, public_key: &str) -> InstanceCommand {
    InstanceCommand::AddKey(key(key_id, public_key))
}

fn added(key_id: &str, public_key: &str) -> InstanceEvent {
    let InstanceKey { purpose, key_id, algorithm, public_key, private_key } =
        key(key_id, public_key);
    InstanceEvent::KeyAdded { purpose, key_id, algorithm, public_key, private_key }
}
