//! A log that is dumped and restored into another cluster is the same log.

use eventlog::conformance::command;
use eventlog::{Expected, Position, Subscription};

use crate::checks::{PATIENCE, Writers, check, everything};
use crate::cluster::Cluster;
use crate::{Database, open};

#[tokio::test(flavor = "multi_thread")]
async fn a_dump_restored_into_a_fresh_cluster_keeps_every_position_and_subscriptions_go_on() {
    let database = Database::new();
    let store = database.open().await;
    let writers = Writers::start(std::slice::from_ref(&store), 4);
    writers.progress(300).await;
    let acknowledged = writers.stop().await;
    let before = everything(&*store).await;
    let mut subscription = Subscription::new(store.clone(), Position::START);
    subscription.next(before.len() / 2).await.unwrap();
    let stands_at = subscription.position();
    store.close().await;

    let fresh = Cluster::start();
    let name = fresh.database();
    tokio::task::block_in_place(|| Cluster::shared().dump_into(&database.name, &fresh, &name));
    let store = open(&fresh.url(&name)).await;

    let after = everything(&*store).await;
    check(&after, &acknowledged, None);
    let bytes = |events: &[std::sync::Arc<eventlog::RecordedEvent>]| {
        events.iter().map(|event| serde_json::to_string(event).unwrap()).collect::<Vec<_>>()
    };
    assert_eq!(bytes(&after), bytes(&before));

    // A transaction number of the old cluster means nothing in the new one, and need not.
    let appended = store.append(command("new", Expected::Sequence(0))).await.unwrap();
    assert_eq!(appended.position().0, before.len() as u64 + 1);
    let mut subscription = Subscription::new(store.clone(), stands_at);
    let mut seen = Vec::new();
    while subscription.position() < appended.position() {
        let next = tokio::time::timeout(PATIENCE, subscription.next(100)).await;
        seen.extend(next.expect("it goes on").unwrap());
    }
    let expected: Vec<_> = (stands_at.0 + 1..=appended.position().0).map(Position).collect();
    assert_eq!(seen.iter().map(|event| event.position).collect::<Vec<_>>(), expected);
}
