//! Tokens as they are written, against the vectors of the design.

use super::*;

#[test]
fn the_check_is_that_of_the_vectors() {
    for (random, check) in [
        ("000000000000000000000000000000", "2C8GjS"),
        ("abcdefghijklmnopqrstuvwxyz0123", "2LolCm"),
        ("ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789abcdefg", "14Ml85"),
    ] {
        assert_eq!(check_of(random), check, "{random}");
    }
}

#[test]
fn a_new_token_is_43_random_characters_and_their_check() {
    let token = new_token().unwrap();

    let behind = token.strip_prefix("prodgy_").unwrap();
    assert_eq!(behind.len(), 49, "{token}");
    assert_eq!(check_of(&behind[..43]), behind[43..], "{token}");
    assert!(is_well_written(&token), "{token}");
    assert_ne!(new_token().unwrap(), token);
}

#[test]
fn no_slip_of_the_finger_makes_another_token() {
    let token = new_token().unwrap();

    for place in "prodgy_".len()..token.len() {
        for other in ALPHANUMERIC.iter().map(|byte| char::from(*byte)) {
            let mut typed: Vec<char> = token.chars().collect();
            if std::mem::replace(&mut typed[place], other) != other {
                let typed: String = typed.into_iter().collect();
                assert!(!is_well_written(&typed), "{typed} for {token}");
            }
        }
    }
    for wrong in [
        "",
        "prodgy_",
        &token[1..],
        &token[..token.len() - 1],
        &format!("{token}0"),
        &token.replace('_', "-"),
    ] {
        assert!(!is_well_written(wrong), "{wrong}");
    }
    assert!(!is_well_written(&format!("prodgy_{}é", "a".repeat(47))));
}

#[test]
fn a_token_from_before_there_was_a_check_is_looked_up() {
    assert!(is_well_written(&format!("prodgy_{}", "A".repeat(40))));
    assert!(!is_well_written(&format!("prodgy_{}", "A".repeat(43))));
    assert!(!is_well_written(&format!("prodgy_{}-", "A".repeat(39))));
}
