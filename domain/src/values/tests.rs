//! What is a value, and what is refused.

use proptest::prelude::*;

use super::*;

#[test]
fn a_name_is_one_line_without_space_around_it() {
    assert_eq!(Name::parse("  Ada Lovelace ").unwrap().as_str(), "Ada Lovelace");
    assert_eq!(Name::parse(" \t\n"), Err(ValueError::NameEmpty));
    assert_eq!(Name::parse("a\nb"), Err(ValueError::NameNotPrintable));
    assert!(Name::parse(&"ü".repeat(200)).is_ok());
    assert_eq!(Name::parse(&"ü".repeat(201)), Err(ValueError::NameTooLong));
}

#[test]
fn a_description_may_be_empty_and_have_lines() {
    assert_eq!(Description::parse(" ").unwrap().as_str(), "");
    assert_eq!(Description::parse("a\nb").unwrap().as_str(), "a\nb");
    assert_eq!(Description::parse(&"x".repeat(4001)), Err(ValueError::DescriptionTooLong));
}

#[test]
fn no_rule_keeps_anything_for_longer_than_a_hundred_years() {
    for days in [None, Some(0), Some(36_500)] {
        assert_eq!(Retention::parse(days), Ok(Retention { deleted_files_days: days }));
    }
    assert_eq!(Retention::parse(Some(36_501)), Err(ValueError::RetentionTooLong));
}

#[test]
fn a_file_name_leaves_its_folders_behind() {
    for (given, kept) in [
        ("a.txt", "a.txt"),
        ("/etc/passwd", "passwd"),
        ("..\\..\\x\\b c.md", "b c.md"),
        ("../../.env", ".env"),
    ] {
        assert_eq!(FileName::parse(given).unwrap().as_str(), kept);
    }
    for empty in ["", " ", ".", "..", "folder/", "a/.."] {
        assert_eq!(FileName::parse(empty), Err(ValueError::FileNameEmpty), "{empty:?}");
    }
    assert_eq!(FileName::parse("a\0b"), Err(ValueError::FileNameNotPrintable));
    assert_eq!(FileName::parse(&"ü".repeat(128)), Err(ValueError::FileNameTooLong));
}

#[test]
fn an_email_keeps_its_local_part_and_lowers_its_domain() {
    let email = Email::parse(" Ada.L@Example.COM ").unwrap();
    assert_eq!(email.as_str(), "Ada.L@example.com");
    assert_eq!(email.unique_form(), "ada.l@example.com");
    for wrong in ["", "ada", "@example.com", "ada@", "a b@example.com", "Ada <ada@example.com>"] {
        assert_eq!(Email::parse(wrong), Err(ValueError::EmailInvalid), "{wrong:?}");
    }
    assert!(!format!("{email:?}").contains("Ada"), "an address is not for logs");
}

#[test]
fn roles_and_scopes_are_read_as_they_are_written() {
    for role in Role::ALL {
        assert_eq!(role.as_str().parse(), Ok(role));
        assert_eq!(serde_json::to_value(role).unwrap(), role.as_str());
    }
    for scope in Scope::ALL {
        assert_eq!(scope.as_str().parse(), Ok(scope));
        assert_eq!(serde_json::to_value(scope).unwrap(), scope.as_str());
    }
    assert!(Role::Owner > Role::Admin && Role::Admin > Role::Member && Role::Member > Role::Viewer);
    assert_eq!("root".parse::<Role>(), Err(ValueError::RoleUnknown));
    let unknown = "agents:delete".parse::<Scope>().unwrap_err();
    assert_eq!(unknown.reason(), (RefusalKind::Invalid, "scope_unknown"));
    assert!(unknown.to_string().contains("agents:delete"));
}

#[test]
fn every_scope_is_listed_once_in_the_order_in_which_it_is_written() {
    let mut texts = Scope::ALL.map(Scope::as_str);
    assert!(texts.is_sorted());
    texts.sort();
    assert_eq!(texts.len(), std::collections::BTreeSet::from(texts).len());
}

#[test]
fn a_token_prefix_is_cut_off_the_token() {
    let token = "prodgy_abcdefghijklmnop";
    assert_eq!(TokenPrefix::parse(token).unwrap().as_str(), "prodgy_abcdefgh");
    assert!(TokenPrefix::parse("prodgy_abcdefgh").is_ok());
    for wrong in
        ["", "prodgy_", "prodgy_abcdefg", "prodgy_abcdef-h", "other_abcdefgh", "prodgy_ääää"]
    {
        assert_eq!(TokenPrefix::parse(wrong), Err(ValueError::TokenPrefixInvalid), "{wrong}");
    }
}

#[test]
fn a_moment_is_written_in_microseconds_and_read_in_any_zone() {
    let time: Timestamp = serde_json::from_str(r#""2026-11-23T17:00:00.123456789+01:00""#).unwrap();
    assert_eq!(time.to_string(), "2026-11-23T16:00:00.123456Z");
    assert_eq!(serde_json::to_string(&time).unwrap(), r#""2026-11-23T16:00:00.123456Z""#);
}

#[test]
fn a_payload_is_written_as_the_plan_says() {
    let sealed = Payload::Sealed(Sealed("s1.k.x".to_owned()));
    assert_eq!(serde_json::to_string(&sealed).unwrap(), r#"{"sealed":"s1.k.x"}"#);
    let blob = Payload::Blob { key_id: "k".to_owned(), name: "n".to_owned(), size: 1 };
    assert_eq!(
        serde_json::to_string(&blob).unwrap(),
        r#"{"blob":{"key":"k","name":"n","size":1}}"#
    );
}

#[test]
fn derived_ids_are_of_version_8_and_stay_what_they_are() {
    let id = derived_id(&[b"file", b"x"]);
    assert_eq!(id.get_version_num(), 8);
    assert_eq!(id.to_string(), "7c80bd55-165c-8532-bb39-1fa13a2ee4e3");
}

#[test]
fn lists_of_parts_do_not_run_together() {
    assert_ne!(derived_id(&[b"ab", b"c"]), derived_id(&[b"a", b"bc"]));
    assert_ne!(derived_id(&[b"ab"]), derived_id(&[b"ab", b""]));
}

#[test]
fn a_digest_is_64_digits() {
    let empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
    assert_eq!(Digest::sha256("").as_str(), empty);
}

proptest! {
    #[test]
    fn no_text_makes_a_value_panic(text in "\\PC{0,300}|.{0,30}") {
        let _ = (Name::parse(&text), Description::parse(&text), FileName::parse(&text));
        let _ = (Email::parse(&text), TokenPrefix::parse(&text), text.parse::<Role>(), text.parse::<Scope>());
    }

    #[test]
    fn what_was_parsed_parses_again_to_the_same(text in ".{0,60}") {
        if let Ok(name) = Name::parse(&text) {
            prop_assert_eq!(Name::parse(name.as_str()).unwrap(), name);
        }
        if let Ok(name) = FileName::parse(&text) {
            prop_assert_eq!(FileName::parse(name.as_str()).unwrap(), name);
        }
    }

    #[test]
    fn a_moment_comes_back_from_the_log_as_it_was(nanos in 0_i64..4_000_000_000_000_000_000) {
        let time = Timestamp::from(DateTime::from_timestamp_nanos(nanos));
        let text = serde_json::to_string(&time).unwrap();
        prop_assert_eq!(serde_json::from_str::<Timestamp>(&text).unwrap(), time);
    }
}
