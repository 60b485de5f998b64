//! The map of the rooms, checked: who may import whom. A crate that is not on the map fails too.

use std::process::Command;

use serde_json::Value;

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
    let cargo = Command::new(env!("CARGO"))
        .args(["metadata", "--no-deps", "--format-version", "1"])
        .output()
        .unwrap();
    let workspace: Value = serde_json::from_slice(&cargo.stdout).unwrap();
    let packages = workspace["packages"].as_array().unwrap();
    assert_eq!(packages.len(), MAY_USE.len(), "the map and the workspace differ");
    for package in packages {
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
