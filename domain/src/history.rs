//! Walks through an aggregate's life, for tests.
//!
//! The rule that is walked: whatever is asked, in whatever order, nothing panics, and who reads the
//! events from the log stands where the one stands who decided on them.

use std::fmt::Debug;

use cqrs_es::Aggregate;
use cqrs_es::test::{AggregateTestExecutor, TestFramework};

use crate::event;

/// An aggregate after these events, for given–when–then.
pub fn given<A: Aggregate<Services = ()>>(events: Vec<A::Event>) -> AggregateTestExecutor<A> {
    TestFramework::with(()).given(events)
}

/// Asks for everything in turn, and returns all events.
pub fn walk<A>(commands: Vec<A::Command>) -> Vec<A::Event>
where
    A: Aggregate<Services = ()> + PartialEq + Debug,
{
    let mut decided = A::default();
    let mut replayed = A::default();
    let mut log: Vec<A::Event> = Vec::new();
    for command in commands {
        let Ok(events) = given::<A>(log.clone()).when(command).inspect_result() else { continue };
        for event in events {
            let (event_type, data) = event::encode(&event);
            let stored: A::Event = event::decode(&event_type, &data).unwrap();
            assert_eq!(stored, event, "what is written is what is read");
            replayed.apply(stored);
            decided.apply(event.clone());
            assert_eq!(replayed, decided, "the log tells the whole state");
            log.push(event);
        }
    }
    let state = serde_json::to_value(&decided).unwrap();
    assert_eq!(serde_json::from_value::<A>(state).unwrap(), decided, "a state can be kept");
    log
}

/// A moment that all tests mean when they say "now": so many seconds after the first.
pub fn at(second: i64) -> crate::Timestamp {
    chrono::DateTime::from_timestamp(1_800_000_000 + second, 123_456_000).unwrap().into()
}

/// The leases of the first workers that have run out at a second, where no clock is wrong.
pub fn outlasted(second: i64) -> std::sync::Arc<std::collections::BTreeSet<crate::lease::Holder>> {
    let of = |worker| {
        (0..=second).map(move |until| crate::lease::Holder { worker: id(worker), until: at(until) })
    };
    std::sync::Arc::new((1..5).flat_map(of).collect())
}

/// An id that tests can tell apart.
pub fn id(number: u8) -> uuid::Uuid {
    uuid::Uuid::from_bytes([number; 16])
}

/// A ciphertext that tests can tell apart.
pub fn sealed(text: &str) -> crate::Sealed {
    crate::Sealed(format!("s1.key.{text}"))
}

/// A name.
pub fn name(text: &str) -> crate::Name {
    crate::Name::parse(text).unwrap()
}

/// A description.
pub fn description(text: &str) -> crate::Description {
    crate::Description::parse(text).unwrap()
}
