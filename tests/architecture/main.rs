//! The map of the rooms, checked: who may import whom, and what may come in from outside. A crate that is not on
//! the map fails too.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::collections::HashMap;
use std::path::Path;
use std::process::Command;

use serde_json::Value;
use spdx::{Expression, LicenseReq, Licensee, ParseMode};

/// Every crate, and those of ours that it may use.
const MAY_USE: &[(&str, &[&str])] = &[
    ("domain", &[]),
    // The double is for its tests only.
    ("eventlog", &["kurrentdb-double"]),
    ("kurrentdb-double", &[]),
    ("vault", &[]),
    ("embeddings", &[]),
    ("commands", &["domain", "eventlog", "vault", "embeddings"]),
    ("projections", &["domain", "eventlog", "vault", "embeddings"]),
    ("api", &["domain", "eventlog", "vault", "embeddings", "commands", "projections"]),
    (
        "tests",
        &[
            "api",
            "domain",
            "eventlog",
            "vault",
            "embeddings",
            "commands",
            "projections",
            "kurrentdb-double",
        ],
    ),
    ("bench", &["domain", "eventlog", "vault", "embeddings", "commands", "projections"]),
    ("sqlite-es-peer", &[]),
    ("usearch-peer", &[]),
    ("postgres-es-peer", &[]),
];

#[test]
fn crates_only_use_what_the_map_allows() {
    let packages = packages(&["--no-deps"]);
    assert_eq!(packages.len(), MAY_USE.len(), "the map and the workspace differ");
    for package in &packages {
        let name = package["name"].as_str().unwrap();
        let on_map = MAY_USE.iter().find(|(known, _)| *known == name);
        let (_, allowed) = on_map.unwrap_or_else(|| panic!("put {name} on the map"));
        for dependency in package["dependencies"].as_array().unwrap() {
            let used = dependency["name"].as_str().unwrap();
            let is_ours = dependency["path"].is_string();
            assert!(!is_ours || allowed.contains(&used), "{name} must not use {used}");
        }
    }
}

/// What `cargo metadata` says of the packages.
fn packages(arguments: &[&str]) -> Vec<Value> {
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["metadata", "--locked", "--format-version", "1"]).args(arguments);
    let output = cargo.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let mut metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
    serde_json::from_value(metadata["packages"].take()).unwrap()
}

/// The rules of `deny.toml` that a test can keep.
struct Rules {
    allowed: Vec<Licensee>,
    exceptions: HashMap<String, Vec<Licensee>>,
    banned: Vec<String>,
}

impl Rules {
    fn read(path: &Path) -> Rules {
        let text = std::fs::read_to_string(path).unwrap();
        let file: toml::Table = toml::from_str(&text).unwrap();
        let list = |value: &toml::Value| value.as_array().unwrap().clone();
        let text = |value: &toml::Value| value.as_str().unwrap().to_owned();
        let licences = |value: &toml::Value| -> Vec<Licensee> {
            list(value).iter().map(|one| Licensee::parse(&text(one)).unwrap()).collect()
        };
        let exceptions = list(&file["licenses"]["exceptions"]);
        Rules {
            allowed: licences(&file["licenses"]["allow"]),
            exceptions: exceptions
                .iter()
                .map(|one| (text(&one["crate"]), licences(&one["allow"])))
                .collect(),
            banned: list(&file["bans"]["deny"]).iter().map(|one| text(&one["crate"])).collect(),
        }
    }

    /// What is wrong with a package.
    fn broken_by(&self, package: &Value) -> Option<String> {
        let name = package["name"].as_str().unwrap();
        // Ours are from nowhere; whatever else comes from a registry, whose lock file holds its hash.
        let is_from_registry =
            |source: &Value| source.as_str().is_some_and(|source| source.starts_with("registry+"));
        if !package["source"].is_null() && !is_from_registry(&package["source"]) {
            return Some(format!("{name} comes from {}", package["source"]));
        }
        if self.banned.iter().any(|banned| banned == name) {
            return Some(format!("{name} is banned"));
        }
        let Some(licence) = package["license"].as_str() else {
            return Some(format!("{name} names no licence"));
        };
        let Ok(expression) = Expression::parse_mode(licence, ParseMode::LAX) else {
            return Some(format!("{name}: {licence} is no licence"));
        };
        let own = self.exceptions.get(name).map_or(&[][..], Vec::as_slice);
        let is_allowed = |asked: &LicenseReq| {
            self.allowed.iter().chain(own).any(|licensee| licensee.satisfies(asked))
        };
        (!expression.evaluate(is_allowed)).then(|| format!("{name}: {licence} is not allowed"))
    }
}

#[test]
fn what_comes_in_from_outside_is_what_deny_toml_allows() {
    let rules = Rules::read(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../deny.toml"));
    let packages = packages(&["--all-features"]);
    assert!(packages.len() > 300, "{} packages", packages.len());
    let broken: Vec<_> = packages.iter().filter_map(|package| rules.broken_by(package)).collect();
    assert!(broken.is_empty(), "{broken:#?}");

    // The rules bite.
    let with = |key: &str, value: &str| {
        let mut package =
            packages.iter().find(|package| package["name"] == "serde").unwrap().clone();
        package[key] = value.into();
        rules.broken_by(&package)
    };
    assert!(with("license", "GPL-3.0-only").is_some());
    assert!(with("license", "MPL-2.0").is_some(), "the exception is that of one crate");
    assert!(with("license", "MIT AND GPL-3.0-only").is_some());
    assert!(with("license", "MIT OR GPL-3.0-only").is_none());
    assert!(with("source", "git+https://example.com/serde").is_some());
    assert!(with("name", "openssl-sys").is_some());
}
