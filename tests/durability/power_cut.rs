//! The power goes while clients write: what they were told holds, unless the disk lies.

use std::sync::Arc;

use futures::future::join_all;
use tests::chance::{Chance, seed};
use tests::support::TestApp;
use tokio::sync::watch;

use super::faults::{faults, settled};
use super::guarded;
use super::shim::Kept;
use super::told::{Told, Writer};

/// How many clients write at once.
const CLIENTS: usize = 4;

/// How often the power goes.
const CUTS: u64 = 4;

#[tokio::test(flavor = "multi_thread")]
async fn what_was_acknowledged_before_a_power_cut_is_there_after_it() {
    let mut chance = Chance::new(seed());
    let (mut app, mut disk) = guarded().await;
    let mut told = Told::default();
    for cut in 0..CUTS {
        // In turn, so that the log that is carried on was cut in every way.
        let kept = if cut % 2 == 0 { Kept::Nothing } else { Kept::Some(chance.number()) };
        let moment = 15 + chance.pick(60);
        let heard = Arc::new(watch::Sender::new(0));
        let writers = (0..CLIENTS).map(|_| {
            let chance = Chance::new(chance.number());
            tokio::spawn(Writer::new(app.owner(), chance, heard.clone()).write())
        });
        let writers: Vec<_> = writers.collect();
        heard.subscribe().wait_for(|heard| *heard >= moment).await.unwrap();
        tokio::task::block_in_place(|| app.kill());
        let writers = join_all(writers).await;
        disk.cut(kept);
        app.start();

        let mut unanswered = Vec::new();
        for writer in writers {
            let writer = writer.unwrap();
            told.add(writer.told);
            unanswered.extend(writer.unanswered);
        }
        let found = faults(&app, &told).await;
        assert!(found.is_empty(), "cut {cut}, {kept:?}, at answer {moment}: {found:#?}");
        for command in unanswered {
            command.send_again(app.owner()).await;
        }
        settled(&app, &told).await;
        app.verified();
    }
    println!("{} things held", told.len());
}

/// Lets a client write on a disk that lies about the syncs of these paths, and cuts the power.
/// Answers the faults.
async fn faults_with_lies_about(part_of_path: &str) -> Vec<String> {
    let (mut app, mut disk) = guarded().await;
    let write = async |app: &TestApp, seed: u64| {
        let heard = Arc::new(watch::Sender::new(0));
        let mut writer = Writer::new(app.owner(), Chance::new(seed), heard);
        writer.one_of_each().await.unwrap();
        writer.told
    };
    let before = write(&app, 1).await;
    disk.lie_about(part_of_path);
    let after = write(&app, 2).await;
    app.kill();
    disk.cut(Kept::Nothing);
    app.start();

    let found = faults(&app, &before).await;
    assert!(found.is_empty(), "it was synced before the lies: {found:#?}");
    faults(&app, &after).await
}

/// Whether each of these kinds of things has a fault, and none of those has.
#[track_caller]
fn assert_faults(found: &[String], faulty: &[&str], sound: &[&str]) {
    let has_fault = |kind: &&str| found.iter().any(|fault| fault.starts_with(*kind));
    assert!(faulty.iter().all(has_fault), "not all of {faulty:?} have faults: {found:#?}");
    assert!(!sound.iter().any(has_fault), "one of {sound:?} has faults: {found:#?}");
}

/// What `synchronous=NORMAL` does: the write-ahead log is not synced with the commit.
#[tokio::test]
async fn a_log_that_is_not_synced_loses_what_was_acknowledged() {
    let found = faults_with_lies_about("events.db-wal").await;
    assert_faults(&found, &["product", "user", "token", "file", "agent", "execution"], &[]);
    assert!(found[0].contains("is lost"), "{found:#?}");
}

#[tokio::test]
async fn bytes_that_are_not_synced_cannot_be_read() {
    let found = faults_with_lies_about("vault/unfinished").await;
    assert_faults(&found, &["user", "file", "execution"], &["product"]);
}

#[tokio::test]
async fn blobs_whose_names_are_not_synced_cannot_be_read() {
    let found = faults_with_lies_about("vault/blobs").await;
    assert_faults(&found, &["file", "execution"], &["product", "user", "token", "agent"]);
}

#[tokio::test]
async fn keys_that_are_not_synced_leave_sealed_texts_that_nobody_can_read() {
    let found = faults_with_lies_about("vault/keys").await;
    assert_faults(&found, &["user", "file", "execution"], &["product", "agent"]);
}
