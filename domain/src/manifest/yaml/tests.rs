//! What YAML means, and what is none that means JSON.

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::manifest::Manifest;

#[test]
fn a_manifest_is_read() {
    let text = "\
# What it does: adds.
manifest: prodgy.agent/1
name: acme.counter
version: 1.0.0
title: Counter
inputs:
  type: object
  properties: { n: { type: integer } }
steps:
  - id: one
    type: transform
    with:
      value: { cel: input.n + 1 }
      note:
        template: |
          Line {{ input.n }}
          and another
";
    let document = from_yaml(text).unwrap();
    let manifest = Manifest::read(&document).unwrap();
    assert_eq!(manifest.version, "1.0.0");
    assert_eq!(document["steps"][0]["with"]["value"], json!({ "cel": "input.n + 1" }));
    assert_eq!(
        document["steps"][0]["with"]["note"]["template"],
        "Line {{ input.n }}\nand another\n"
    );
}

#[test]
fn plain_words_are_what_yaml_1_2_says() {
    let text = "{a: yes, b: no, c: on, d: true, e: null, f: ~, g: 1, h: 1.5, i: -3, j: '1', \
                k: 2026-01-01, l: 1.0.0, m: 0x1F, n: 1e3, o: '', p: NO, q: 12:30, r: 9007199254740993}";
    assert_eq!(
        from_yaml(text).unwrap(),
        json!({
            "a": "yes", "b": "no", "c": "on", "d": true, "e": null, "f": null, "g": 1, "h": 1.5,
            "i": -3, "j": "1", "k": "2026-01-01", "l": "1.0.0", "m": 31, "n": 1000.0, "o": "",
            "p": "NO", "q": "12:30", "r": 9_007_199_254_740_993_u64,
        })
    );
}

#[test]
fn json_is_yaml() {
    let document = json!({ "a": [1, { "b": null }], "c": "text \"quoted\"\n", "d": 1.25 });
    assert_eq!(from_yaml(&document.to_string()), Ok(document.clone()));
    assert_eq!(from_yaml(&format!("{document:#}")), Ok(document));
}

#[test]
fn what_repeats_is_written_once_and_meant_each_time() {
    let text = "base: &base { attempts: 3 }\none: *base\ntwo: { <<: *base, on: [any] }\n";
    let expected = json!({
        "base": { "attempts": 3 }, "one": { "attempts": 3 },
        "two": { "attempts": 3, "on": ["any"] },
    });
    assert_eq!(from_yaml(text), Ok(expected));
}

#[test]
fn a_fault_is_told_with_its_line_and_column() {
    for (text, place) in [
        ("a: 1\nb: [1, 2\nc: 3\n", "line 3"),
        ("a: 1\nb: 2\na: 3\n", "line 3, column 1"),
        ("a:\n\t- 1\n", "line 2"),
        ("a: 1\nb: *nowhere\n", "line 2, column 4"),
        ("a: .inf\n", "line 1, column 4"),
        ("a: 1\n---\nb: 2\n", "line"),
    ] {
        let fault = from_yaml(text).unwrap_err();
        assert_eq!((fault.pointer.as_str(), fault.code), ("", "yaml_invalid"));
        assert!(fault.message.contains(place), "{text:?}: {}", fault.message);
    }
}

#[test]
fn what_json_has_no_word_for_is_refused() {
    for text in ["a: !secret x", "a: .nan", "? [1, 2]\n: 3", "a: 1\n...\nb: 2", "a: !<x> 1"] {
        assert!(from_yaml(text).is_err(), "{text:?}: {:?}", from_yaml(text));
    }
}

#[test]
fn a_bomb_of_aliases_is_refused_at_once() {
    let mut text = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for level in 1..12 {
        let before = level - 1;
        let aliases = vec![format!("*a{before}"); 10].join(", ");
        text.push_str(&format!("a{level}: &a{level} [{aliases}]\n"));
    }
    assert_eq!(from_yaml(&text).unwrap_err().code, "yaml_invalid");
    let long = "y".repeat(100_000);
    let text = format!("a: &a {long}\nb: [{}]\n", vec!["*a"; 900].join(", "));
    assert_eq!(from_yaml(&text).unwrap_err().code, "yaml_invalid");
}

#[test]
fn what_is_deep_or_long_is_refused_and_not_followed() {
    for text in [
        "[".repeat(100_000),
        "{a: ".repeat(100_000),
        "- ".repeat(100_000),
        (0..2000).map(|depth| format!("{}a:\n", " ".repeat(depth))).collect(),
        "x".repeat(5 * 1024 * 1024),
    ] {
        assert_eq!(from_yaml(&text).unwrap_err().code, "yaml_invalid");
    }
}

proptest! {
    #[test]
    fn no_text_makes_it_panic(text in "\\PC{0,60}|[-a:{}&*\\[\\]!|>?<#'\" \n\t0-9.~]{0,60}") {
        let _ = from_yaml(&text);
    }
}
