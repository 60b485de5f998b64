use std::collections::BTreeMap;

use serde_json::json;

use super::*;

fn secrets(texts: &[&str]) -> Secrets {
    let named = texts.iter().enumerate().map(|(index, text)| (index.to_string(), (*text).into()));
    Secrets(named.collect::<BTreeMap<_, _>>())
}

#[test]
fn a_secret_is_in_nothing_that_comes_back() {
    let veil = Veil::of(&secrets(&["abcdef", "abcdefgh", "ab"]));
    assert_eq!(veil.text("x abcdefgh y abcdef z ab"), "x •••• y •••• z ab");
    let value = veil.value(json!({ "abcdef": ["abcdef", 1, { "a": "-abcdefgh-" }] }));
    assert_eq!(value, json!({ "••••": ["••••", 1, { "a": "-••••-" }] }));
    let veil = Veil::of(&secrets(&["a b+c/d="]));
    for said in
        ["?key=a+b%2Bc%2Fd%3D&page=1", "?key=a%20b%2Bc%2Fd%3D&page=1", "?key=a b+c/d=&page=1"]
    {
        assert_eq!(veil.text(said), "?key=••••&page=1", "{said}");
    }
    // As the credentials of a header and in the text of a document.
    let veil = Veil::of(&secrets(&["pass\"word"]));
    for said in ["YWRhOnBhc3Mid29yZA==", "YWRhOnBhc3Mid29yZA", "pass\"word", "pass\\\"word"] {
        assert_eq!(veil.text(&format!("Basic {said} and more")), "Basic •••• and more", "{said}");
    }
    let unsaid = "Basic YWRhOm90aGVyLXdvcmQ= and more";
    assert_eq!(veil.text(unsaid), unsaid);
    let key = json!({ "client_email": "a@example.com", "private_key": "line one\nline two" });
    let veil = Veil::of(&secrets(&[&key.to_string()]));
    assert_eq!(veil.text("<line one\nline two> a@example.com"), "<••••> a@example.com");
}

#[test]
fn the_secrets_of_a_configuration_are_those_that_its_schema_marks() {
    let manifest = Manifest::read(&json!({
        "manifest": "prodgy.agent/1", "name": "test.secrets", "version": "1.0.0", "title": "Secrets",
        "config": { "type": "object", "properties": {
            "token": { "type": "string", "secret": true },
            "login": { "type": "object", "secret": true },
            "number": { "type": "integer", "secret": true },
            "city": { "type": "string" }
        } },
        "steps": [{ "id": "one", "type": "transform", "with": { "value": 1 } }]
    }))
    .expect("a manifest");
    let config = json!({ "token": "tok-12345", "login": { "pin": ["9876"] }, "number": 55_501, "city": "Lisbon" });
    let veil = Veil::of_config(&manifest, &config);
    assert_eq!(
        veil.value(json!({ "said": "tok-12345 of Lisbon", "pin": "9876", "n": [55_501, 55_502] })),
        json!({ "said": "•••• of Lisbon", "pin": "••••", "n": ["••••", 55_502] })
    );
    assert_eq!(Veil::of_config(&manifest, &json!({})).text("tok-12345"), "tok-12345");
}

#[test]
fn a_secret_that_could_be_part_of_any_word_is_none() {
    let refused = |value: Value| {
        let config = json!({ "pin": value });
        match refuse_short("config_invalid", [("/pin".to_owned(), &config["pin"])]) {
            Ok(()) => None,
            Err(Error::Invalid { code, faults, .. }) => {
                Some((code, faults[0].code.to_string(), faults[0].pointer.clone()))
            }
            Err(other) => panic!("{other}"),
        }
    };
    let short = Some(("config_invalid", "secret_too_short".to_owned(), "/pin".to_owned()));
    for value in [json!("abc"), json!(123), json!({ "pins": ["9876", "1"] })] {
        assert_eq!(refused(value.clone()), short, "{value}");
    }
    for value in [json!(""), json!(null), json!(true), json!("abcd"), json!(1234), json!([])] {
        assert_eq!(refused(value.clone()), None, "{value}");
    }
}
