//! The connection breaks in a commit: what became of it is found out before anybody is answered.

use std::time::Duration;

use eventlog::conformance::command;
use eventlog::{
    AppendError, Error, EventStore, Expected, Position, PostgresOptions, PostgresStore,
};

use crate::Database;
use crate::checks::everything;
use crate::cluster::Cluster;
use crate::wire::{Cut, Wire};

/// A commit by one statement names its events' streams; one in steps ends with this.
const IN_STEPS: &str = "COMMIT";

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_answer_is_looked_up_and_nothing_is_stored_twice() {
    for cut in [Cut::BeforeTheAnswer, Cut::BeforeTheServer] {
        let database = Database::new();
        let wire = Wire::to(Cluster::shared().port()).await;
        let store = PostgresStore::open(&wire.url(&database.url()), PostgresOptions::default())
            .await
            .unwrap();
        // The first group is committed in steps, later ones by one statement.
        for (sequence, trap) in [(0, IN_STEPS), (1, "thing-a"), (2, "thing-a")] {
            wire.cut_at(trap, cut);
            let append = command("a", Expected::Sequence(sequence));
            let appended = store.append(append.clone()).await.unwrap();
            assert!(wire.was_cut(), "{trap}");
            assert!(!appended.replayed, "it was this attempt that stored it");
            assert_eq!(appended.position(), Position(sequence + 1));
            assert!(store.append(append).await.unwrap().replayed);
        }
        let all = everything(&store).await;
        assert_eq!(all.len(), 3, "{cut:?}");
        assert_eq!(*store.watch().borrow(), Position(3));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outcome_that_cannot_be_found_out_is_said_to_be_unknown() {
    for (cut, is_stored) in [(Cut::BeforeTheAnswer, true), (Cut::BeforeTheServer, false)] {
        let database = Database::new();
        let port = Cluster::shared().port();
        let wire = Wire::to(port).await;
        let options = PostgresOptions {
            outcome_timeout: Duration::from_millis(300),
            // Nothing but the answer itself may bring the news of what was stored.
            poll: Duration::from_secs(600),
            ..PostgresOptions::default()
        };
        let store = PostgresStore::open(&wire.url(&database.url()), options).await.unwrap();
        store.append(command("a", Expected::Sequence(0))).await.unwrap();

        wire.cut_for_good_at("thing-a", cut);
        let append = command("a", Expected::Sequence(1));
        let unknown = store.append(append.clone()).await.unwrap_err();
        let AppendError::Store(error) = unknown else { panic!("{unknown:?}") };
        assert!(matches!(error, Error::Unanswered { .. }), "{error:?}");
        assert!(error.to_string().contains("Idempotency-Key"), "{error}");
        assert!(error.is_temporary());

        wire.lead_to(port);
        // An attempt to connect from before may still be failing.
        let appended = loop {
            match store.append(append.clone()).await {
                Err(AppendError::Store(error)) if error.is_temporary() => {}
                outcome => break outcome.unwrap(),
            }
        };
        assert_eq!(appended.replayed, is_stored);
        assert_eq!(appended.position(), Position(2));
        assert_eq!(everything(&store).await.len(), 2);
    }
}
