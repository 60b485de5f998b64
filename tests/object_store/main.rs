//! The real binary with its files and keys in S3: the main job, what goes on while the store is away,
//! how it comes back, and its garbage.
//!
//! The rule of these tests: each has a server of its own, and nothing of the store is on this machine.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::convert::Infallible;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use futures::stream;
use reqwest::Method;
use rusqlite::OpenFlags;
use serde_json::json;
use tests::chance::Chance;
use tests::support::{Product, Reply, TestApp, eventually, prodgy};
use vault::{S3Address, Vault};

#[path = "../s3/server.rs"]
mod server;

use server::S3Server;

const BUCKET: &str = "prodgy";
const BLOBS: &str = "s3://prodgy/some/prefix";
const TEXT: &str = "Employees may take twenty-five days of paid leave each year.";
const AGED: Duration = Duration::from_secs(25 * 3600);

/// A server with its files in S3.
struct OnS3 {
    app: TestApp,
    store: S3Server,
}

impl OnS3 {
    async fn spawn() -> OnS3 {
        let store = S3Server::start();
        store.make_bucket(BUCKET);
        let environment = environment(&store, BLOBS);
        let settings: Vec<(&str, &str)> =
            environment.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        OnS3 { app: TestApp::spawn_with(&settings).await, store }
    }
}

fn environment(store: &S3Server, blobs: &str) -> Vec<(String, String)> {
    let mut environment = store.environment();
    environment.push(("PRODGY_BLOBS".to_owned(), blobs.to_owned()));
    environment
}

fn download(file: &str) -> String {
    format!("/api/knowledge-base/storage/file/{file}/download")
}

/// Waits until the server can do all its work: its model is loaded, its store answers.
async fn ready(app: &TestApp) {
    let ready = eventually("the server is not ready", async || {
        Some(app.get("/readyz").await).filter(|reply| reply.status == 200)
    });
    ready.await;
}

async fn search(app: &TestApp, product: &Product) -> Reply {
    let query =
        json!({ "query": "How much vacation do I get?", "product_id": product.id, "limit": 1 });
    app.post("/api/knowledge-base/embeddings", query).await
}

#[tokio::test]
async fn the_main_job_is_done_with_everything_in_s3() {
    let OnS3 { mut app, store } = OnS3::spawn().await;
    let product = app.product().await;
    let text = app.text_file(&product, "leave.md", TEXT).await;
    // Longer than a part of an upload.
    let bytes = Chance::new(7).bytes(9_000_000);
    let files = [("noise.bin", "application/octet-stream", bytes.as_slice())];
    let reply = app.upload(&product.knowledge_base, &files).await.expect_status(202);
    let long = reply.data()[0]["id"].as_str().unwrap().to_owned();
    app.wait_ready(&text).await;
    app.wait_ended(&long, "failed").await;

    for _ in 0..2 {
        let found = search(&app, &product).await.expect_status(200);
        assert_eq!(found.data()[0]["file_id"], text.as_str(), "{found:?}");
        assert_eq!(app.get(&download(&text)).await.expect_status(200).text(), TEXT);
        let part = app.get_with(&download(&text), "range", "bytes=10-13").await;
        assert_eq!(part.expect_status(206).text(), &TEXT[10..14]);
        assert_eq!(app.get(&download(&long)).await.expect_status(200).bytes, bytes);
        for (range, expected) in [
            ("bytes=0-9", &bytes[..10]),
            ("bytes=4000000-8500000", &bytes[4_000_000..=8_500_000]),
            ("bytes=-7", &bytes[bytes.len() - 7..]),
        ] {
            let part = app.get_with(&download(&long), "range", range).await;
            assert!(part.expect_status(206).bytes == expected, "{range}");
        }
        // And again from what the store holds, in a process that remembers nothing.
        app.restart();
        ready(&app).await;
    }
    assert!(!app.data_dir().join("vault").exists());
    for kind in ["blobs", "artifacts", "keys"] {
        let kept = store.keys(BUCKET).contains(&format!("\"some/prefix/{kind}/"));
        assert!(kept, "{kind}: {}", store.keys(BUCKET));
    }

    app.delete(&format!("/api/knowledge-base/storage/file/{text}")).await.expect_status(200);
    app.get(&download(&text)).await.expect_status(404);
    assert_eq!(search(&app, &product).await.data(), &json!([]));
}

#[tokio::test]
async fn reads_go_on_while_the_store_is_away_and_all_else_waits_for_it() {
    let OnS3 { app, store } = OnS3::spawn().await;
    let product = app.product().await;
    let file = app.text_file(&product, "leave.md", TEXT).await;
    app.wait_ready(&file).await;
    ready(&app).await;
    let before = app.head().await;
    store.stop();

    let list = format!("/api/knowledge-base/storage/{}", product.knowledge_base);
    for path in
        ["/healthz", "/api/products", "/api/auth/me", "/api/audit-logs", "/api/events", &list]
    {
        app.get(path).await.expect_status(200);
    }
    let found = search(&app, &product).await.expect_status(200);
    assert_eq!(found.data()[0]["file_id"], file.as_str());

    let upload = app.upload(&product.knowledge_base, &[("b.md", "text/markdown", b"# Two")]).await;
    for refused in [
        upload,
        app.get(&download(&file)).await,
        app.post("/api/products", json!({ "name": "Another" })).await,
    ] {
        assert!(!refused.header("retry-after").is_empty(), "{refused:?}");
        let refused = refused.expect_problem(503, "object_store_unavailable");
        assert!(!refused.text().contains("127.0.0.1"), "{refused:?}");
    }
    let missing = app.get("/readyz").await.expect_problem(503, "not_ready");
    assert_eq!(missing.body["errors"][0]["field"], "/object_store", "{missing:?}");
    let uploaded = app.get(&list).await;
    assert_eq!(uploaded.data().as_array().unwrap().len(), 1, "{uploaded:?}");

    store.start_again();
    ready(&app).await;
    assert_eq!(app.get(&download(&file)).await.expect_status(200).text(), TEXT);
    let second = app.text_file(&product, "b.md", "# Two").await;
    app.wait_ready(&second).await;
    app.post("/api/products", json!({ "name": "Another" })).await.expect_status(201);
    assert!(app.head().await > before);
}

#[tokio::test]
async fn a_file_whose_store_goes_away_is_read_when_the_store_is_back() {
    let OnS3 { app, store } = OnS3::spawn().await;
    let product = app.product().await;
    // Every request takes long enough that the store is gone before the file was read.
    store.slow(Duration::from_millis(300));
    let file = app.text_file(&product, "leave.md", TEXT).await;
    store.stop();
    let path = format!("/api/knowledge-base/storage/file/{file}");
    assert_eq!(app.get(&path).await.expect_status(200).data()["status"], "processing");
    eventually("nobody tried to read the file", async || {
        app.stderr().contains("work is tried again later").then_some(())
    })
    .await;
    store.start_again();
    app.wait_ready(&file).await;
    assert_eq!(search(&app, &product).await.data()[0]["file_id"], file.as_str());
}

#[tokio::test]
async fn bytes_that_were_changed_in_the_store_are_never_sent() {
    let OnS3 { app, store } = OnS3::spawn().await;
    let product = app.product().await;
    let bytes = Chance::new(7).bytes(9_000_000);
    let files = [("noise.bin", "application/octet-stream", bytes.as_slice())];
    let reply = app.upload(&product.knowledge_base, &files).await.expect_status(202);
    let file = reply.data()[0]["id"].as_str().unwrap().to_owned();
    app.wait_ended(&file, "failed").await;
    store.change("blobs/");

    let part = app.get_with(&download(&file), "range", "bytes=0-99999").await;
    assert!(part.expect_status(206).bytes == bytes[..100_000]);
    let part = app.get_with(&download(&file), "range", "bytes=4400000-4600000").await;
    part.expect_status(500);
    // Where the answer has begun, it is broken off.
    let cut = app.try_send(app.request(Method::GET, &download(&file))).await;
    assert!(cut.is_err(), "{} bytes were sent in full", cut.unwrap().bytes.len());
    assert!(app.stderr().contains("a download was broken off"), "{}", app.stderr());
}

#[tokio::test]
async fn a_start_that_cannot_be_says_why() {
    let store = S3Server::start();
    store.make_bucket(BUCKET);
    let start = |blobs: &str, change: &[(&str, &str)]| {
        let folder = tempfile::tempdir().unwrap();
        let mut command = prodgy(folder.path(), &["serve", "--listen", "127.0.0.1:0"]);
        command.envs(environment(&store, blobs)).envs(change.iter().copied());
        let output = command.stdin(Stdio::null()).output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        assert!(output.stdout.is_empty(), "{output:?}");
        String::from_utf8(output.stderr).unwrap()
    };
    let said = start("s3://no-such-bucket", &[]);
    assert!(said.contains("there is no bucket for s3://no-such-bucket"), "{said}");
    let said = start(BLOBS, &[("AWS_SECRET_ACCESS_KEY", "canary")]);
    assert!(said.contains("refuses these credentials: check AWS_ACCESS_KEY_ID"), "{said}");
    assert!(!said.contains("canary"), "{said}");
    // Port 9 discards: nobody listens there.
    let said = start(BLOBS, &[("AWS_ENDPOINT_URL", "http://127.0.0.1:9")]);
    assert!(said.contains("cannot be reached: check the network"), "{said}");
}

#[tokio::test]
async fn garbage_goes_in_two_steps_and_what_is_named_stays() {
    let on_s3 = OnS3::spawn().await;
    let OnS3 { app, store } = &on_s3;
    let product = app.product().await;
    let kept = app.text_file(&product, "leave.md", TEXT).await;
    let deleted = app.text_file(&product, "deleted.md", "# Gone").await;
    for file in [&kept, &deleted] {
        app.wait_ready(file).await;
    }
    app.delete(&format!("/api/knowledge-base/storage/file/{deleted}")).await.expect_status(200);
    // A node that was killed between the bytes of an upload and the event that names them.
    let key = app.data_dir().join("master.key");
    let address = BLOBS.parse::<S3Address>().unwrap();
    let node = Vault::s3_with_key_file(&address, &store.environment(), &key).await.unwrap().0;
    let body = stream::iter([Ok::<_, Infallible>("nobody names it".into())]);
    node.put_blob(product.id.parse().unwrap(), body, 100).await.unwrap();
    let count = |below: &str| store.keys(BUCKET).matches(&format!("some/prefix/{below}/")).count();
    assert_eq!((count("blobs"), count("artifacts")), (3, 2));

    let collect = |arguments: &[&str]| {
        let output = on_s3.app.run(&[&["blobs", "gc"], arguments].concat());
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    // What came just now is left alone.
    assert!(!collect(&["--dry-run"]).contains("would set aside"));
    store.age(BUCKET, AGED);
    let said = collect(&["--dry-run"]);
    assert_eq!(said.matches("would set aside blobs/").count(), 1, "{said}");
    assert_eq!((count("blobs"), count("garbage/blobs")), (3, 0));
    let said = collect(&[]);
    assert!(said.contains("4 objects") && said.contains("named by the log, and kept"), "{said}");
    assert!(said.contains("1 objects") && said.contains("set aside"), "{said}");
    assert_eq!(count("garbage/blobs"), 1);
    store.age(BUCKET, AGED);
    collect(&["--older-than", "24h"]);
    assert_eq!((count("blobs"), count("garbage/blobs"), count("artifacts")), (2, 0, 2));

    // Everything that anybody asks for is there: also after the index is built anew.
    assert_eq!(app.get(&download(&kept)).await.expect_status(200).text(), TEXT);
    app.post_empty("/api/projections/search/rebuild").await.expect_status(202);
    let found = eventually("the file is not found", async || {
        let found = search(app, &product).await;
        (found.data()[0]["file_id"] == kept.as_str()).then_some(found)
    });
    found.await;
}

/// Copies the log of a running server, as `.backup` does.
fn copy_log(app: &TestApp, to: &Path) {
    let log = app.data_dir().join("events.db");
    let log = rusqlite::Connection::open_with_flags(log, OpenFlags::SQLITE_OPEN_READ_ONLY).unwrap();
    log.execute("VACUUM INTO ?1", [to.to_str().unwrap()]).unwrap();
}

/// Puts a copy of the log in the place of the log, and removes what was derived from that.
fn restore_log(app: &TestApp, from: &Path) {
    let data = app.data_dir();
    for name in ["events.db-wal", "events.db-shm"] {
        let _ = fs::remove_file(data.join(name));
    }
    fs::copy(from, data.join("events.db")).unwrap();
    fs::remove_dir_all(data.join("views")).unwrap();
    fs::remove_dir_all(data.join("search")).unwrap();
}

#[tokio::test]
async fn a_backup_of_the_log_and_then_of_the_bucket_is_restored() {
    let mut on_s3 = OnS3::spawn().await;
    let product = on_s3.app.product().await;
    let first = on_s3.app.text_file(&product, "leave.md", TEXT).await;
    on_s3.app.wait_ready(&first).await;
    let folder = tempfile::tempdir().unwrap();
    let copy = folder.path().join("events.db");
    copy_log(&on_s3.app, &copy);
    // Between the two copies somebody works on.
    let second = on_s3.app.text_file(&product, "b.md", "# Two").await;
    on_s3.app.wait_ready(&second).await;
    on_s3.store.copy(BUCKET, "backup");
    let third = on_s3.app.text_file(&product, "c.md", "# Three").await;
    on_s3.app.wait_ready(&third).await;

    assert!(on_s3.app.stop().success());
    on_s3.store.copy("backup", BUCKET);
    restore_log(&on_s3.app, &copy);
    on_s3.app.start();
    let app = &on_s3.app;
    ready(app).await;
    app.wait_ready(&first).await;
    assert_eq!(app.get(&download(&first)).await.expect_status(200).text(), TEXT);
    assert_eq!(search(app, &product).await.data()[0]["file_id"], first.as_str());
    for later in [&second, &third] {
        app.get(&download(later)).await.expect_status(404);
    }
    let verified = on_s3.app.run(&["projections", "verify"]);
    assert_eq!(verified.status.code(), Some(0), "{verified:?}");
    // The same bytes come again, though the copy of the bucket has them already.
    let again = app.text_file(&product, "b.md", "# Two").await;
    app.wait_ready(&again).await;
    assert_eq!(app.get(&download(&again)).await.expect_status(200).text(), "# Two");
}

#[tokio::test]
async fn a_backup_of_the_log_and_then_of_the_folder_is_restored() {
    let mut app = TestApp::spawn().await;
    let product = app.product().await;
    let first = app.text_file(&product, "leave.md", TEXT).await;
    app.wait_ready(&first).await;
    let folder = tempfile::tempdir().unwrap();
    let copy = folder.path().join("events.db");
    copy_log(&app, &copy);
    let second = app.text_file(&product, "b.md", "# Two").await;
    app.wait_ready(&second).await;
    let vault = app.data_dir().join("vault");
    let copied = Command::new("cp").arg("-a").arg(&vault).arg(folder.path()).status().unwrap();
    assert!(copied.success());

    assert!(app.stop().success());
    fs::remove_dir_all(&vault).unwrap();
    fs::rename(folder.path().join("vault"), &vault).unwrap();
    restore_log(&app, &copy);
    app.start();
    ready(&app).await;
    app.wait_ready(&first).await;
    assert_eq!(app.get(&download(&first)).await.expect_status(200).text(), TEXT);
    assert_eq!(search(&app, &product).await.data()[0]["file_id"], first.as_str());
    app.get(&download(&second)).await.expect_status(404);
}
