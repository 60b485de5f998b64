//! The server is lost, and a replica takes over.

use std::sync::Arc;

use eventlog::conformance::command;
use eventlog::{AppendError, Error, EventStore, Expected, Position};

use crate::checks::{PATIENCE, Writers, check, everything};
use crate::cluster::Cluster;
use crate::open_impatient;
use crate::wire::Wire;

#[tokio::test(flavor = "multi_thread")]
async fn a_fail_over_to_a_synchronous_standby_loses_no_acknowledged_command() {
    let primary = Cluster::start();
    let name = primary.database();
    let standby = tokio::task::block_in_place(|| primary.standby("standby"));
    primary.set("synchronous_standby_names", "standby");
    until(&primary, "SELECT sync_state FROM pg_stat_replication", "sync").await;
    let wire = Wire::to(primary.port()).await;
    let url = wire.url(&primary.url(&name));
    let nodes: [Arc<dyn EventStore>; 2] = [open_impatient(&url).await, open_impatient(&url).await];

    let writers = Writers::start(&nodes, 6);
    writers.progress(300).await;
    tokio::task::block_in_place(|| {
        primary.kill();
        standby.promote();
    });
    wire.lead_to(standby.port());
    writers.progress(300).await;
    let failures = writers.failures();
    let acknowledged = writers.stop().await;

    let all = everything(&*open_impatient(&standby.url(&name)).await).await;
    println!("{} commands acknowledged, {failures} attempts failed", acknowledged.len());
    check(&all, &acknowledged, Some(&acknowledged.iter().copied().collect()));
}

/// The negative control: with a standby that is not waited for, commands are lost, and the node
/// that has seen them says so instead of giving their positions away again.
#[tokio::test(flavor = "multi_thread")]
async fn a_standby_that_lacks_the_newest_events_is_found_out() {
    let primary = Cluster::start();
    let name = primary.database();
    let wire = Wire::to(primary.port()).await;
    let store = open_impatient(&wire.url(&primary.url(&name))).await;
    store.append(command("a", Expected::Sequence(0))).await.unwrap();
    let standby = tokio::task::block_in_place(|| primary.standby("late"));
    until(&primary, "SELECT state FROM pg_stat_replication", "streaming").await;
    tokio::task::block_in_place(|| standby.stop());
    store.append(command("a", Expected::Sequence(1))).await.unwrap();

    tokio::task::block_in_place(|| {
        primary.kill();
        standby.start_again();
        standby.promote();
    });
    wire.lead_to(standby.port());

    let refused = loop {
        match store.append(command("a", Expected::Sequence(1))).await {
            Err(AppendError::Store(error)) if error.is_temporary() => {}
            outcome => break outcome,
        }
    };
    let Err(AppendError::Store(error)) = refused else { panic!("{refused:?}") };
    assert!(matches!(error, Error::Rewound { known: 2, found: 1 }), "{error:?}");
    let restarted = open_impatient(&standby.url(&name)).await;
    assert_eq!(restarted.head().await.unwrap(), Position(1), "nothing was stored over it");
}

/// Waits until the server answers this.
async fn until(cluster: &Cluster, sql: &str, answer: &str) {
    let reached = async {
        while cluster.sql("postgres", sql) != answer {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, reached).await.unwrap_or_else(|_| panic!("{sql}: not {answer}"));
}
