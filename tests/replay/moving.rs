//! An instance that moves: out of SQLite and files into PostgreSQL and S3, and back; exactly.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use tempfile::TempDir;
use tests::chance::{Chance, seed};
use tests::support::{TestApp, eventually, prodgy, said};

use super::{STEPS, answers, same};
use crate::walk::Walk;

#[path = "../postgres/cluster.rs"]
mod cluster;
#[path = "../kurrentdb/server.rs"]
#[allow(dead_code, reason = "other tests stop it")]
mod kurrentdb;
#[path = "../s3/server.rs"]
mod s3;

use cluster::Cluster;
use s3::S3Server;

type Settings = Vec<(String, String)>;

/// What the events of an export come to: count, positions and hash.
fn summary(file: &Path) -> String {
    let unpacked = std::process::Command::new("tar")
        .args(["--extract", "--to-stdout", "--file"])
        .arg(file)
        .arg("summary.json")
        .output()
        .unwrap();
    said(&unpacked)
}

/// A place for an instance, with the master key of another.
fn place(master_key: &Path) -> Arc<TempDir> {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("data")).unwrap();
    fs::copy(master_key, folder.path().join("data/master.key")).unwrap();
    Arc::new(folder)
}

/// Runs a command in a place; killed after `time`, if there is one. Says whether it ended by itself.
fn run(folder: &TempDir, settings: &Settings, arguments: &[&str], time: Option<Duration>) -> bool {
    let mut command = prodgy(folder.path(), arguments);
    command.envs(settings.iter().map(|(name, value)| (name, value))).stdin(Stdio::null());
    let Some(time) = time else {
        said(&command.output().unwrap());
        return true;
    };
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    std::thread::sleep(time);
    let ended = child.try_wait().unwrap();
    let _ = child.kill();
    child.wait().unwrap();
    ended.is_some_and(|status| status.success())
}

/// Fills a place from an export, and is killed a few times before it succeeds.
fn import(folder: &TempDir, settings: &Settings, file: &Path, chance: &mut Chance) {
    let arguments = ["import", file.to_str().unwrap()];
    for _ in 0..12 {
        let time = Duration::from_millis(chance.pick(600) as u64);
        if run(folder, settings, &arguments, Some(time)) {
            break;
        }
    }
    run(folder, settings, &arguments, None);
}

fn start(folder: &Arc<TempDir>, settings: &Settings) -> TestApp {
    let settings = settings.iter().map(|(name, value)| (name.into(), value.into())).collect();
    TestApp::start_in(folder.clone(), settings).unwrap()
}

fn export(app: &TestApp, folder: &Path, name: &str) -> PathBuf {
    let file = folder.join(name);
    let told = said(&app.run(&["export", "--out", file.to_str().unwrap()]));
    assert!(told.contains("master key"), "{told}");
    file
}

#[tokio::test(flavor = "multi_thread")]
async fn an_instance_moves_to_postgresql_and_s3_and_back_and_is_the_same() {
    let (cluster, store) = (Cluster::shared(), S3Server::start());
    store.make_bucket("prodgy");
    let seed = seed();
    let mut chance = Chance::new(seed);
    let mut app = TestApp::spawn().await;
    let mut walk = Walk::new(seed);
    walk.go(&app, STEPS).await;
    walk.settle(&app).await;
    let files = tempfile::tempdir().unwrap();
    let beside = export(&app, files.path(), "beside-a-server.tar");
    let before = answers(&app, &walk, None).await;
    assert!(app.stop().success(), "{}", app.stderr());
    let first = export(&app, files.path(), "first.tar");
    assert!(summary(&beside) != summary(&first), "a server that stops writes what was pending");

    let master_key = app.data_dir().join("master.key");
    let remote = place(&master_key);
    let mut settings = store.environment();
    settings.push(("PRODGY_EVENT_STORE".into(), cluster.url(&cluster.database())));
    settings.push(("PRODGY_BLOBS".into(), "s3://prodgy/moved".into()));
    import(&remote, &settings, &first, &mut chance);

    // Two nodes, each with read models of its own.
    let mut one = start(&remote, &settings);
    one.sign_in().await;
    let mut other = start(&place(&master_key), &settings);
    other.sign_in().await;
    for node in [&one, &other] {
        walk.settle(node).await;
        same(&before, &answers(node, &walk, Some(before.head)).await);
    }
    works_on_both(&one, &other).await;
    let before = answers(&one, &walk, None).await;
    assert!(other.stop().success(), "{}", other.stderr());
    assert!(one.stop().success(), "{}", one.stderr());
    said(&one.run(&["projections", "verify"]));
    let second = export(&one, files.path(), "second.tar");

    let home = place(&master_key);
    import(&home, &Vec::new(), &second, &mut chance);
    let mut app = start(&home, &Vec::new());
    app.sign_in().await;
    walk.settle(&app).await;
    same(&before, &answers(&app, &walk, Some(before.head)).await);
    assert!(app.stop().success(), "{}", app.stderr());
    app.verified();
}

/// What one node writes, the other one finds, in the log, among the files and by meaning.
async fn works_on_both(one: &TestApp, other: &TestApp) {
    let text = "The lighthouse keeper counts the ships that pass at night.";
    for (here, there) in [(one, other), (other, one)] {
        let product = here.product().await;
        let file = here.text_file(&product, "ships.txt", text).await;
        here.wait_ready(&file).await;
        let position = here.head().await;
        let path = format!("/api/knowledge-base/storage/file/{file}/download");
        let reply = there.get_with(&path, "X-Min-Position", position).await;
        assert_eq!(reply.expect_status(200).text(), text);
        eventually("the other node does not find the file", async || {
            there.finds(&product, "Who watches vessels?", text).await.then_some(())
        })
        .await;
        let agent = there.agent(&product).await;
        let trigger = agent["triggers"][0]["id"].as_str().unwrap();
        let path = format!("/api/agent-base/triggers/{trigger}/execute?wait_seconds=60");
        let execution = there.post(&path, json!({ "input": { "query": "vessels" } })).await;
        assert_eq!(execution.expect_status(200).data()["status"], "succeeded");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_in_kurrentdb_moves_to_sqlite_with_its_positions() {
    let server = kurrentdb::Server::start();
    let mut app = TestApp::spawn_with(&[("PRODGY_EVENT_STORE", &server.url())]).await;
    let product = app.product().await;
    let file = app.text_file(&product, "a.txt", "Bees dance to show where flowers are.").await;
    app.wait_ready(&file).await;
    assert!(app.stop().success(), "{}", app.stderr());
    let head = *server.positions().last().unwrap();
    let files = tempfile::tempdir().unwrap();
    let export = export(&app, files.path(), "export.tar");
    let told: serde_json::Value = serde_json::from_str(&summary(&export)).unwrap();
    assert_eq!(told["events"]["last"], head);

    let home = place(&app.data_dir().join("master.key"));
    run(&home, &Vec::new(), &["import", export.to_str().unwrap()], None);
    let mut moved = start(&home, &Vec::new());
    moved.sign_in().await;
    let question = "How do bees tell the way?";
    assert!(moved.finds(&product, question, "Bees dance to show where flowers are.").await);
    let made = moved.post("/api/products", json!({ "name": "New" })).await.expect_status(201);
    let position: u64 = made.header("x-event-position").parse().unwrap();
    assert!(position > head && position < head + 100, "{position} goes on behind {head}");
    assert!(moved.stop().success(), "{}", moved.stderr());
    moved.verified();

    // The other way nothing can be brought exactly.
    let refused = app.run(&["import", export.to_str().unwrap()]);
    assert_eq!(refused.status.code(), Some(1), "{refused:?}");
    let why = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(why.contains("SQLite or PostgreSQL"), "{why}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_import_says_what_is_in_its_way_and_a_server_waits_for_its_end() {
    let mut app = TestApp::spawn().await;
    let product = app.product().await;
    let file = app.text_file(&product, "a.txt", "Bees dance.").await;
    app.wait_ready(&file).await;
    assert!(app.stop().success(), "{}", app.stderr());
    let files = tempfile::tempdir().unwrap();
    let export = export(&app, files.path(), "export.tar");
    let arguments = ["import", export.to_str().unwrap()];
    let refused = |folder: &TempDir, arguments: &[&str]| {
        let output = prodgy(folder.path(), arguments).stdin(Stdio::null()).output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        String::from_utf8_lossy(&output.stderr).into_owned()
    };

    let empty = tempfile::tempdir().unwrap();
    let why = refused(&empty, &arguments);
    assert!(why.contains("PRODGY_MASTER_KEY") && why.contains("master.key"), "{why}");
    assert!(!empty.path().join("data").exists(), "nothing was made");

    let mut busy = TestApp::spawn().await;
    let why = String::from_utf8_lossy(&busy.run(&arguments).stderr).into_owned();
    assert!(why.contains("does not fit these data"), "its master key is another one: {why}");
    assert!(busy.stop().success());
    let key = fs::read_to_string(app.data_dir().join("master.key")).unwrap();
    fs::write(busy.data_dir().join("master.key"), key).unwrap();
    let why = String::from_utf8_lossy(&busy.run(&arguments).stderr).into_owned();
    assert!(why.contains("was used before") || why.contains("empty event store"), "{why}");

    let home = place(&app.data_dir().join("master.key"));
    let dry = prodgy(home.path(), &["import", "--dry-run", arguments[1]]).output().unwrap();
    assert!(said(&dry).contains("is whole"), "{dry:?}");
    assert!(!home.path().join("data/events.db").exists(), "nothing was imported");
    let mut bytes = fs::read(&export).unwrap();
    let half = bytes.len() / 2;
    bytes.truncate(half);
    let cut = files.path().join("cut.tar");
    fs::write(&cut, bytes).unwrap();
    let why = refused(&home, &["import", cut.to_str().unwrap()]);
    assert!(why.contains("cut.tar"), "{why}");
    assert!(!home.path().join("data/events.db").exists(), "nothing was imported");

    run(&home, &Vec::new(), &arguments, None);
    // As if it had been cut off before its end.
    fs::write(home.path().join("data/vault/importing.json"), "export.tar").unwrap();
    let error = TestApp::start_in(home.clone(), Vec::new()).err().unwrap();
    assert!(error.contains("prodgy import export.tar"), "{error}");
    run(&home, &Vec::new(), &arguments, None);
    let mut moved = start(&home, &Vec::new());
    moved.sign_in().await;
    assert!(moved.finds(&product, "bees", "Bees dance.").await);
    assert!(moved.stop().success());
    let why = refused(&home, &arguments);
    assert!(why.contains("there is something else already"), "the log has grown: {why}");
}
