//! The server crashes while it is written to, over and over.

use eventlog::{Position, Subscription};

use crate::checks::{PATIENCE, Writers, check, everything};
use crate::cluster::Cluster;
use crate::{open, open_impatient};

const ROUNDS: usize = 8;

#[tokio::test(flavor = "multi_thread")]
async fn every_acknowledged_command_survives_crashes_of_the_server_exactly_once() {
    let cluster = Cluster::start();
    let url = cluster.url(&cluster.database());
    let nodes = [open_impatient(&url).await, open_impatient(&url).await];
    let reader = open_impatient(&url).await;
    let mut subscription = Subscription::new(reader.clone(), Position::START);
    let (finished, mut is_finished) = tokio::sync::watch::channel(None);
    let follower = tokio::spawn(async move {
        let mut seen = Vec::new();
        loop {
            let whole = *is_finished.borrow_and_update();
            if whole.is_some_and(|whole: Position| subscription.position() >= whole) {
                return seen;
            }
            tokio::select! {
                // The log cannot be read while its server is down: asking again goes on.
                events = subscription.next(100) => seen.extend(events.unwrap_or_default()),
                _ = is_finished.changed() => {}
            }
        }
    });

    let writers = Writers::start(&nodes, 6);
    for round in 0..ROUNDS {
        writers.progress(60 + 17 * round).await;
        tokio::task::block_in_place(|| {
            if round % 2 == 0 {
                cluster.stop_immediately();
            } else {
                cluster.kill();
            }
            cluster.start_again();
        });
    }
    writers.progress(100).await;
    let failures = writers.failures();
    let acknowledged = writers.stop().await;

    let store = open(&url).await;
    let all = everything(&*store).await;
    println!("{} commands acknowledged, {failures} attempts failed", acknowledged.len());
    check(&all, &acknowledged, Some(&acknowledged.iter().copied().collect()));

    finished.send_replace(Some(store.head().await.unwrap()));
    let seen = tokio::time::timeout(PATIENCE, follower).await.expect("the reader goes on").unwrap();
    let positions = |events: &[std::sync::Arc<eventlog::RecordedEvent>]| {
        events.iter().map(|event| (event.position, event.id)).collect::<Vec<_>>()
    };
    assert_eq!(positions(&seen), positions(&all), "a subscription saw each event once, in order");
}
