//! History: every event that was ever written still loads, and today's are still written as they were.
//!
//! One file is one stored event: `golden/<aggregate>/<type>.json`, or `<type>.<case>.json` for another
//! shape of it. A file is added, never edited and never removed: what is in it is on somebody's disk.
#![expect(clippy::disallowed_methods, reason = "stored events are files")]
#![expect(clippy::unwrap_used, reason = "a test that panics has failed")]

mod examples;

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

use cqrs_es::{Aggregate, DomainEvent};
use domain::event::{decode, encode, names};
use proptest::prelude::*;
use serde::Deserialize;
use serde_json::value::RawValue;

/// A stored event, as far as the domain knows one.
#[derive(Deserialize)]
struct Stored {
    #[serde(rename = "type")]
    event_type: String,
    data: Box<RawValue>,
}

#[test]
fn every_event_has_a_file_that_still_loads_and_is_still_written_so() {
    let mut check = Check::default();
    examples::for_every_aggregate(&mut check);
    let written = check.written;
    assert!(
        written.is_empty(),
        "new events were written down: look at {written:?}, and commit them"
    );
}

#[test]
fn every_folder_belongs_to_an_aggregate() {
    let mut known = Folders::default();
    examples::for_every_aggregate(&mut known);
    let there: BTreeSet<String> = fs::read_dir(golden(""))
        .unwrap()
        .map(|folder| folder.unwrap().file_name().into_string().unwrap())
        .collect();
    assert_eq!(there, known.0);
}

proptest! {
    #[test]
    fn no_order_of_events_makes_an_aggregate_panic(places in prop::collection::vec(any::<prop::sample::Index>(), 0..12)) {
        examples::for_every_aggregate(&mut Jumble(places));
    }
}

/// What is done with an aggregate and the examples of its events.
trait Visit {
    fn visit<A: Aggregate>(&mut self, examples: &[(&str, A::Event)]);
}

/// Holds every file against what is written today, and writes down what has no file yet.
#[derive(Default)]
struct Check {
    written: Vec<PathBuf>,
}

impl Visit for Check {
    fn visit<A: Aggregate>(&mut self, examples: &[(&str, A::Event)]) {
        let folder = golden(A::TYPE);
        fs::create_dir_all(&folder).unwrap();
        for (case, event) in examples {
            let (event_type, data) = encode(event);
            assert_eq!(event_type, event.event_type());
            assert!(
                event_type.starts_with(&format!("{}.", A::TYPE)),
                "{event_type} names its aggregate"
            );
            assert!(event_type.ends_with(&format!(".{}", event.event_version())), "{event_type}");
            let dot = if case.is_empty() { "" } else { "." };
            let file = folder.join(format!("{event_type}{dot}{case}.json"));
            if !file.exists() {
                fs::write(&file, format!(r#"{{"data":{data},"type":"{event_type}"}}"#) + "\n")
                    .unwrap();
                self.written.push(file);
            }
        }
        let mut seen = BTreeSet::new();
        for file in fs::read_dir(&folder).unwrap().map(|file| file.unwrap().path()) {
            let shown = file.display();
            let stored: Stored = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
            let event: A::Event = decode(&stored.event_type, &stored.data)
                .unwrap_or_else(|error| panic!("{shown} no longer loads: {error}"));
            let (event_type, data) = encode(&event);
            if event_type == stored.event_type {
                assert_eq!(data.get(), stored.data.get(), "{shown} is written differently now");
            }
            seen.insert(stored.event_type);
        }
        for name in names::<A::Event>() {
            assert!(seen.contains(*name), "{name} has no example: add one to examples.rs");
        }
    }
}

#[derive(Default)]
struct Folders(BTreeSet<String>);

impl Visit for Folders {
    fn visit<A: Aggregate>(&mut self, _: &[(&str, A::Event)]) {
        self.0.insert(A::TYPE.to_owned());
    }
}

struct Jumble(Vec<prop::sample::Index>);

impl Visit for Jumble {
    fn visit<A: Aggregate>(&mut self, examples: &[(&str, A::Event)]) {
        let mut aggregate = A::default();
        for place in &self.0 {
            aggregate.apply(place.get(examples).1.clone());
        }
    }
}

fn golden(folder: &str) -> PathBuf {
    PathBuf::from(std::env::var("CARGO_MANIFEST_DIR").unwrap()).join("golden").join(folder)
}
