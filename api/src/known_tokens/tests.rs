use uuid::Uuid;

use super::*;

#[test]
fn what_was_looked_up_is_known_until_the_read_models_move_on() {
    let known = KnownTokens::default();
    known.keep(Position(7), "hash".into(), token("ci"));

    assert_eq!(known.get(Position(7), "hash").unwrap().token.name, "ci");
    assert!(known.get(Position(7), "another").is_none());
    assert!(known.get(Position(8), "hash").is_none());

    known.keep(Position(8), "another".into(), token("cd"));
    assert!(known.get(Position(8), "hash").is_none());
    assert!(known.get(Position(8), "another").is_some());
}

#[test]
fn a_late_look_up_at_an_older_position_is_not_taken_for_a_new_one() {
    let known = KnownTokens::default();
    known.keep(Position(8), "hash".into(), token("new"));
    known.keep(Position(7), "hash".into(), token("old"));

    assert!(known.get(Position(8), "hash").is_none());
}

#[test]
fn no_more_is_kept_than_there_is_room_for() {
    let known = KnownTokens::default();
    for number in 0..=KEPT {
        known.keep(Position(1), number.to_string(), token("ci"));
    }

    assert!(known.get(Position(1), "0").is_some());
    assert!(known.get(Position(1), &KEPT.to_string()).is_none());
}

fn token(name: &str) -> Arc<Known> {
    let token = ApiToken {
        id: Uuid::nil(),
        product_id: Uuid::nil(),
        name: name.into(),
        prefix: "prodgy_abcdefgh".into(),
        status: "active".into(),
        scopes: vec![],
        allowed_ips: vec![],
        created_at: String::new(),
        created_by: String::new(),
        updated_at: String::new(),
        expires_at: None,
        last_used_at: None,
        usage_count: 0,
        organization: Uuid::nil(),
        sequence: 1,
    };
    Arc::new(Known { token, product: None })
}
