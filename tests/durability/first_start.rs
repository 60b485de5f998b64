//! The power goes during the very first start, or right after it.

use std::ffi::OsString;
use std::fs;
use std::sync::Arc;

use reqwest::Method;
use serde_json::{Value, json};
use tempfile::TempDir;
use tests::chance::{Chance, seed};
use tests::support::TestApp;

use super::on;
use super::shim::{Kept, PowerCut};

/// A disk, the folder that it is in, and a server's settings: its data directory is a new folder
/// below new folders of the disk.
fn new_disk() -> (Arc<TempDir>, PowerCut, Vec<(OsString, OsString)>) {
    let folder = Arc::new(TempDir::new().unwrap());
    let disk = PowerCut::over(&folder.path().join("data"));
    let mut settings = on(&disk);
    settings.push(("PRODGY_DATA_DIR".into(), folder.path().join("data/a/new/one").into()));
    (folder, disk, settings)
}

async fn session_keys(app: &TestApp) -> Value {
    app.nobody().get("/.well-known/jwks.json").await.expect_status(200).body
}

#[tokio::test]
async fn what_the_first_start_made_outlives_a_power_cut_right_after_it() {
    let (folder, mut disk, settings) = new_disk();
    let mut app = TestApp::start_in(folder, settings).unwrap();
    let keys = session_keys(&app).await;
    app.kill();
    disk.cut(Kept::Nothing);
    app.start();

    assert_eq!(session_keys(&app).await, keys, "another instance was made");
    app.sign_in().await;
    app.post("/api/products", json!({ "name": "Handbook" })).await.expect_status(201);
    let made = app.get("/api/events?limit=1000&type=organization.created.v1").await;
    assert_eq!(made.data().as_array().unwrap().len(), 1, "{made:?}");
}

#[tokio::test]
async fn a_first_start_that_was_cut_off_anywhere_is_taken_up_by_the_next() {
    let mut chance = Chance::new(seed());
    let (folder, mut disk, settings) = new_disk();
    let mut at_sync = 1 + chance.pick(8);
    let mut cuts = 0;
    loop {
        let mut cut_off = settings.clone();
        cut_off.push(("POWER_CUT_AT_SYNC".into(), at_sync.to_string().into()));
        // Where it comes through, it has asked for fewer syncs.
        let Err(end) = TestApp::start_in(folder.clone(), cut_off) else { break };
        assert!(end.contains("signal: 9"), "sync {at_sync}: {end}");
        let kept = if cuts % 2 == 0 { Kept::Nothing } else { Kept::Some(chance.number()) };
        disk.cut(kept);

        let mut app = TestApp::start_in(folder.clone(), settings.clone())
            .unwrap_or_else(|error| panic!("cut off at sync {at_sync}, {kept:?}: {error}"));
        app.sign_in().await;
        app.post("/api/products", json!({ "name": "Handbook" })).await.expect_status(201);
        app.kill();
        fs::remove_dir_all(app.data_dir().join("a")).unwrap();
        disk.take_as_synced();
        cuts += 1;
        at_sync += 3 + chance.pick(12);
    }
    assert!(cuts > 1, "a first start has less than {at_sync} syncs: the test hardly tested");
}

#[tokio::test]
async fn a_master_key_that_is_not_synced_is_missed() {
    let (folder, mut disk, settings) = new_disk();
    disk.lie_about("master.key");
    let mut app = TestApp::start_in(folder, settings).unwrap();
    app.sign_in().await;
    app.kill();
    disk.cut(Kept::Nothing);

    let refused = app.try_start().unwrap_err();
    assert!(refused.contains("exit status: 1"), "{refused}");
    assert!(refused.contains("master.key is not a master key"), "{refused}");
}

/// Two first starts at once: one makes the data directory, the other is told that it is in use.
#[tokio::test]
async fn of_two_first_starts_at_once_one_serves() {
    let folder = Arc::new(TempDir::new().unwrap());
    let start = || {
        let folder = folder.clone();
        tokio::task::spawn_blocking(move || TestApp::start_in(folder, Vec::new()))
    };
    let (one, other) = (start(), start());
    let (mut app, refused) = match (one.await.unwrap(), other.await.unwrap()) {
        (Ok(app), Err(refused)) | (Err(refused), Ok(app)) => (app, refused),
        (one, other) => panic!("{:?} {:?}", one.err(), other.err()),
    };

    assert!(refused.contains("exit status: 1"), "{refused}");
    assert!(refused.contains("in use by another prodgy"), "{refused}");
    app.sign_in().await;
    let keys = app.nobody().request(Method::GET, "/.well-known/jwks.json");
    let keys = app.send(keys).await.expect_status(200);
    assert_eq!(keys.body["keys"].as_array().unwrap().len(), 1, "{keys:?}");
}
