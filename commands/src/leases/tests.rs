//! Leases, as whoever is kept out by them sees the time go by.

use serde_json::json;

use super::*;
use crate::testing::{open_commands, open_log};
use eventlog::{Append, Expected, NewEvent};

const MINUTE: Duration = Duration::from_secs(60);

fn holder(until: i64) -> Holder {
    let until = DateTime::from_timestamp(until, 0).expect("a time").into();
    Holder { worker: Uuid::nil(), until }
}

#[test]
fn a_lease_is_over_when_its_length_has_gone_by_here() {
    let (leases, start) = (Leases::default(), Instant::now());
    // What it says of itself is long past, or far ahead.
    for until in [0, 4_000_000_000] {
        let holder = holder(until);
        assert_eq!(leases.meet(holder.clone(), 5 * MINUTE, start), 5 * MINUTE);
        assert_eq!(leases.meet(holder.clone(), 5 * MINUTE, start + MINUTE), 4 * MINUTE);
        assert!(!leases.outlasted(start + 5 * MINUTE - Duration::from_millis(1)).contains(&holder));
        assert!(leases.outlasted(start + 5 * MINUTE).contains(&holder));
    }
    // Another one of the same worker is another one.
    assert_eq!(leases.meet(holder(7), MINUTE, start + 9 * MINUTE), MINUTE);
    assert_eq!(leases.outlasted(start + 9 * MINUTE).len(), 2);
    // Nothing is kept for ever.
    leases.meet(holder(8), MINUTE, start + 2 * LONGEST);
    assert_eq!(leases.0.lock().len(), 1);
}

#[tokio::test]
async fn how_long_a_lease_is_follows_from_when_it_was_given_and_is_never_too_little() {
    let folder = tempfile::tempdir().expect("a folder");
    let log = open_log(folder.path());
    let commands = open_commands(folder.path(), log.clone()).await;
    let worker = Uuid::now_v7();
    // What the clock of the worker was ahead of the log's by, and how long the lease counts for.
    for (category, ahead, seconds) in [
        ("execution", 3_600, 3_600),
        ("execution", 300, 300),
        // Its clock is behind, or that of the log was pushed ahead.
        ("execution", -3_600, 300),
        ("file", -3_600, 1_800),
        ("conversation", -3_600, 120),
        ("chat_run", -3_600, 60),
        // It is a year ahead.
        ("execution", 31_536_000, 25 * 3_600),
    ] {
        let stream = StreamId::new(category, Uuid::now_v7());
        let until = Timestamp::from(Utc::now() + chrono::TimeDelta::seconds(ahead));
        for data in [
            json!({ "worker": worker, "lease_until": Timestamp::from(Utc::now()) }),
            json!({ "worker": worker }),
            // Prolonged, by the same one.
            json!({ "fence": 1, "lease_until": until }),
            json!({ "fence": 1 }),
        ] {
            let data = serde_json::value::to_raw_value(&data).expect("JSON");
            let append = Append {
                stream: stream.clone(),
                expected: Expected::Any,
                command_id: Uuid::now_v7(),
                request_hash: None,
                metadata: crate::Ask::once("test", Uuid::nil(), None).metadata,
                keys: Vec::new(),
                events: vec![NewEvent {
                    event_type: "test.happened.v1".to_owned(),
                    data,
                    metadata: None,
                }],
            };
            log.append(append).await.expect("appended");
        }
        let left = commands.meet_lease(&stream).await.expect("met");
        let exact = Duration::from_secs(seconds);
        assert!(
            left <= exact && left + Duration::from_secs(5) > exact,
            "{category} {ahead}: {left:?}"
        );
        assert!(commands.leases.0.lock().contains_key(&Holder { worker, until }));
    }
}
