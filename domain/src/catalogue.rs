//! The catalogue: agents that can be installed by name.
//!
//! The rule of this file: what is in it is valid, which a test shows, and does something useful with
//! what every product has; one that needs more says so in `requires`.

use std::sync::LazyLock;

use serde_json::{Map, Value};

use crate::manifest::Manifest;

/// The manifests, as they are delivered, in the order in which they are listed.
const DOCUMENTS: [&str; 12] = [
    include_str!("../catalogue/prodgy.search.json"),
    include_str!("../catalogue/prodgy.remember.json"),
    include_str!("../catalogue/prodgy.digest.json"),
    include_str!("../catalogue/prodgy.answer.json"),
    include_str!("../catalogue/prodgy.watch.json"),
    include_str!("../catalogue/prodgy.links.json"),
    include_str!("../catalogue/prodgy.triage.json"),
    include_str!("../catalogue/prodgy.release-notes.json"),
    include_str!("../catalogue/prodgy.tasks.json"),
    include_str!("../catalogue/prodgy.alarm.json"),
    include_str!("../catalogue/prodgy.issue.json"),
    include_str!("../catalogue/prodgy.news.json"),
];

/// Earlier versions of them, for who names one.
const OLDER: [&str; 4] = [
    include_str!("../catalogue/older/prodgy.digest-1.0.0.json"),
    include_str!("../catalogue/older/prodgy.links-1.0.0.json"),
    include_str!("../catalogue/older/prodgy.watch-1.0.0.json"),
    include_str!("../catalogue/older/prodgy.issue-1.0.0.json"),
];

static CATALOGUE: LazyLock<Vec<Manifest>> = LazyLock::new(|| read(&DOCUMENTS));
static OLDER_VERSIONS: LazyLock<Vec<Manifest>> = LazyLock::new(|| read(&OLDER));

/// What each of them may be executed with, by name. It is no part of a manifest, whose digest would change.
static EXAMPLES: LazyLock<Map<String, Value>> = LazyLock::new(|| {
    let text = include_str!("../catalogue/examples.json");
    serde_json::from_str(text).expect("the examples are a JSON object, and a test shows it")
});

fn read(documents: &[&str]) -> Vec<Manifest> {
    let manifest = |text: &&str| {
        let document = serde_json::from_str(text).expect("the catalogue is JSON");
        Manifest::read(&document).expect("the catalogue is valid, and a test shows it")
    };
    documents.iter().map(manifest).collect()
}

/// Every manifest of the catalogue, `prodgy.search` first.
pub fn catalogue() -> &'static [Manifest] {
    &CATALOGUE
}

/// The manifest of this name, the newest; of this version, where one is asked for.
pub fn find(name: &str, version: Option<&str>) -> Option<&'static Manifest> {
    catalogue().iter().chain(&*OLDER_VERSIONS).find(|manifest| {
        manifest.name == name && version.is_none_or(|version| version == manifest.version)
    })
}

/// An input that the agent of this name does something useful with.
pub fn example(name: &str) -> Option<&'static Value> {
    EXAMPLES.get(name)
}

#[cfg(test)]
mod tests;
