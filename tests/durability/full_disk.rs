//! The disk is full: writes are refused with a reason, reads go on, nothing is half-written, and when
//! there is room again everything works without a restart.

use std::sync::Arc;

use reqwest::Method;
use serde_json::{Value, json};
use tempfile::TempDir;
use tests::chance::Chance;
use tests::support::{
    OWNER, PASSWORD, Product, Reply, TestApp, counter_manifest, eventually, parts_below,
};
use tokio::sync::watch;

use super::faults::{faults, settled};
use super::shim::{Kept, PowerCut};
use super::told::{File, Told, Writer};
use super::{guarded, on};

/// One of everything, and nothing under way any more.
async fn one_of_each(app: &TestApp) -> Told {
    let heard = Arc::new(watch::Sender::new(0));
    let mut writer = Writer::new(app.owner(), Chance::new(1), heard);
    writer.one_of_each().await.unwrap();
    settled(app, &writer.told).await;
    writer.told
}

/// One write of every kind; each is made once.
fn writes(told: &Told) -> Vec<(Method, String, Value)> {
    let product = &told.products[0].id;
    let agent = json!({ "product_id": product, "manifest": counter_manifest() });
    let user = json!({ "email": "late@example.com", "role": "viewer", "password": PASSWORD });
    let token = json!({ "product_id": product, "name": "Late" });
    let execute = format!("/api/agent-base/triggers/{}/execute", told.agents[0].trigger);
    vec![
        (Method::POST, "/api/products".into(), json!({ "name": "Late" })),
        (
            Method::PUT,
            format!("/api/agent-base/{}", told.agents[0].id),
            json!({ "enabled": true, "title": "Late" }),
        ),
        (Method::POST, "/api/users".into(), user),
        (Method::POST, "/api/api-tokens".into(), token),
        (
            Method::POST,
            "/api/knowledge-base".into(),
            json!({ "product_id": product, "name": "Late" }),
        ),
        (Method::POST, "/api/agent-base/install".into(), agent),
        (Method::POST, execute.clone(), json!({ "input": { "n": 1 } })),
        (Method::POST, execute, json!({ "input": { "n": 1, "note": "x".repeat(20_000) } })),
        (Method::POST, "/api/auth/login".into(), json!({ "email": OWNER, "password": PASSWORD })),
        (Method::POST, format!("/api/api-tokens/{}/revoke", told.tokens[0].id), Value::Null),
    ]
}

async fn write(
    app: &TestApp,
    number: usize,
    (method, path, body): &(Method, String, Value),
) -> Reply {
    let mut request = app.request(method.clone(), path);
    // A verb without fields takes no body.
    if !body.is_null() {
        request = request.json(body);
    }
    if *method == Method::POST {
        request = request.header("idempotency-key", format!("write-{number}"));
    }
    app.send(request).await
}

#[track_caller]
fn is_refused(reply: Reply) {
    let reply = reply.expect_problem(503, "disk_full");
    assert!(!reply.header("retry-after").is_empty(), "{reply:?}");
    assert!(reply.text().contains("the disk is full: free some space"), "{reply:?}");
}

/// The names of the vault's files that have no name yet.
fn unfinished(app: &TestApp) -> Vec<String> {
    let entries = std::fs::read_dir(app.data_dir().join("vault/unfinished")).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned());
    names.filter(|name| name != "lock").collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_refuses_writes_lets_reads_go_on_and_needs_no_restart() {
    let (mut app, mut disk) = guarded().await;
    let mut told = one_of_each(&app).await;
    let base = told.products[0].knowledge_base.clone();
    let (small, large) = (b"small".to_vec(), Chance::new(2).bytes(1_500_000));
    // Nothing is under way, and the model is loaded.
    settled(&app, &told).await;
    let before = app.head().await;

    disk.fill(0);
    for (number, each) in writes(&told).iter().enumerate() {
        is_refused(write(&app, number, each).await);
    }
    is_refused(app.upload(&base, &[("small.bin", "a/b", &small)]).await);
    // Room for a piece of it.
    disk.fill(100_000);
    is_refused(app.upload(&base, &[("large.bin", "a/b", &large)]).await);
    disk.fill(0);

    // Uses and refusals are counted, and written when there is room again.
    app.with_token(&told.tokens[0].secret).get("/api/products").await.expect_status(200);
    app.nobody().get("/api/products").await.expect_status(401);
    let reads = Told { users: Vec::new(), ..told };
    assert_eq!(faults(&app, &reads).await, Vec::<String>::new());
    told = Told { users: told.users, ..reads };
    let path = format!("/api/users/{}", told.users[0].id);
    assert_eq!(app.get(&path).await.expect_status(200).data()["name"], told.users[0].name);
    let query = json!({ "query": "anything", "product_id": told.products[0].id });
    app.post("/api/knowledge-base/embeddings", query).await.expect_status(200);
    // What is counted may have found the room that the piece of a file did not use.
    let stored = app.get(&format!("/api/events?after={before}")).await.expect_status(200);
    let is_counted = |event: &Value| {
        let counted = ["token_usage.recorded.v1", "access_log.rejected.v2"];
        event["type"].as_str().is_some_and(|event_type| counted.contains(&event_type))
    };
    assert!(stored.data().as_array().unwrap().iter().all(is_counted), "{stored:?}");
    assert_eq!(unfinished(&app), Vec::<String>::new());

    disk.make_room();
    for (number, each) in writes(&told).iter().enumerate() {
        let reply = write(&app, number, each).await;
        assert!(reply.is_success() && reply.body["replayed"] != true, "{each:?}: {reply:?}");
    }
    told.agents[0].title = "Late".into();
    told.tokens[0].is_revoked = true;
    for (name, bytes) in [("small.bin", small), ("large.bin", large)] {
        let reply = app.upload(&base, &[(name, "a/b", &bytes)]).await.expect_status(202);
        let id = reply.data()[0]["id"].as_str().unwrap().to_owned();
        told.files.push(File { id, name: name.into(), bytes, word: None });
    }
    let token = app.get(&format!("/api/api-tokens/{}", told.tokens[0].id)).await;
    assert!(token.data()["usage_count"].as_u64() > Some(0), "{token:?}");
    let refusals = app.get("/api/audit-logs?action=rejected").await.expect_status(200);
    assert!(refusals.text().contains("/api/products"), "{refusals:?}");
    app.verified();
    app.kill();
    disk.cut(Kept::Nothing);
    app.start();
    assert_eq!(faults(&app, &told).await, Vec::<String>::new());
    settled(&app, &told).await;
    app.verified();
}

#[tokio::test]
async fn what_the_log_alone_had_room_for_is_shown_when_there_is_room_again() {
    let (app, disk) = guarded().await;
    let post = async || {
        let body = json!({ "name": "Handbook" });
        app.post_with("/api/products", body, "idempotency-key", "once").await
    };

    disk.fill_for("views/", 0);
    let behind = post().await.expect_problem(503, "read_models_behind");
    assert!(!behind.header("retry-after").is_empty(), "{behind:?}");
    app.get("/api/products").await.expect_status(200);
    disk.make_room();

    let reply = post().await.expect_status(201);
    assert_eq!(reply.body["replayed"], true, "{reply:?}");
    assert_eq!(app.get("/api/products").await.body["pagination"]["total"], 1);
    app.post("/api/products", json!({ "name": "Another" })).await.expect_status(201);
    app.nobody().get("/readyz").await.expect_status(200);
    app.verified();
}

#[tokio::test]
async fn a_search_index_that_had_no_room_finds_everything_when_there_is_room_again() {
    let (app, disk) = guarded().await;
    let product = app.product().await;
    let first = app.text_file(&product, "first.txt", "a sentence about herons").await;
    app.wait_ready(&first).await;

    disk.fill_for("search/", 0);
    let second = app.text_file(&product, "second.txt", "a sentence about kingfishers").await;
    eventually("the index has not run out of room", async || {
        app.stderr().contains("search index fell behind").then_some(())
    })
    .await;
    let find = async |words: &str| {
        let body = json!({ "query": words, "mode": "full_text", "product_id": product.id });
        let reply = app.post("/api/knowledge-base/embeddings", body).await.expect_status(200);
        reply.data()[0]["file_id"].clone()
    };
    assert_eq!(find("herons").await, first, "what was indexed before is found");
    disk.make_room();

    app.wait_ready(&second).await;
    let third = app.text_file(&product, "third.txt", "a sentence about dippers").await;
    app.wait_ready(&third).await;
    for (words, file) in [("herons", &first), ("kingfishers", &second), ("dippers", &third)] {
        assert_eq!(find(words).await, *file, "{words}");
    }
}

/// Uploads a file that takes long enough to be read that a part of it is stored before the rest. A machine
/// that reads it too fast gets a longer one.
async fn half_read(app: &TestApp, product: &Product, about: &str) -> String {
    let folder = app.data_dir();
    for paragraphs in [120, 480, 1_920] {
        let paragraph = |number| format!("Paragraph {number} is about {about} number {number}. ");
        let text = (0..paragraphs).map(|number| paragraph(number).repeat(14)).collect::<Vec<_>>();
        let name = format!("{about}-{paragraphs}.txt");
        let id = app.text_file(product, &name, &text.join("\n\n")).await;
        let path = format!("/api/knowledge-base/storage/file/{id}");
        let is_cut = eventually("no part of the file is stored", async || {
            let is_read = app.get(&path).await.data()["status"] == "ready";
            (is_read || parts_below(&folder) > 0).then_some(!is_read)
        });
        if is_cut.await {
            return id;
        }
    }
    panic!("no file takes long enough to be read");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_ingestion_that_has_no_room_for_its_next_part_waits_and_goes_on_from_the_last_one() {
    let (mut app, mut disk) = guarded().await;
    let product = app.product().await;
    let tries = |app: &TestApp| {
        let log = app.stderr();
        let tries = log.lines().filter(|line| line.contains("work is tried again later"));
        tries.filter(|line| line.contains("the disk is full")).count()
    };
    let mut files = Vec::new();
    // The whole disk, and one that has room for the log, but none for what is embedded.
    for (about, full) in [("herons", ""), ("dippers", "vault/")] {
        let file = half_read(&app, &product, about).await;
        let before = tries(&app);
        disk.fill_for(full, 0);
        eventually("the file does not wait for room", async || {
            (tries(&app) > before + 1).then_some(())
        })
        .await;
        let path = format!("/api/knowledge-base/storage/file/{file}");
        let shown = app.get(&path).await.expect_status(200);
        assert_eq!(shown.data()["status"], "processing", "{shown:?}");
        assert!(parts_below(&app.data_dir()) > 0, "what was embedded is kept");
        assert_eq!(unfinished(&app), Vec::<String>::new(), "no half of a part is left");
        let reading_on = |app: &TestApp| app.stderr().matches("reading goes on where").count();
        let went_on = reading_on(&app);
        disk.make_room();

        let ready = app.wait_ready(&file).await;
        assert!(reading_on(&app) > went_on, "it began anew: {}", app.stderr());
        assert_eq!(parts_below(&app.data_dir()), 0, "they are one now");
        files.push((file, ready["chunks"].as_u64().unwrap()));
    }
    app.kill();
    disk.cut(Kept::Nothing);
    app.start();
    for (file, count) in &files {
        // Every chunk once, and each is found as itself: before the cut and behind it.
        for index in [0, count / 2, count - 1] {
            let page = index + 1;
            let path =
                format!("/api/knowledge-base/storage/file/{file}/chunks?pageSize=1&page={page}");
            let chunk = app.get(&path).await.expect_status(200);
            assert_eq!(chunk.body["pagination"]["total"], *count, "{chunk:?}");
            let text = chunk.data()[0]["text"].as_str().unwrap();
            assert!(app.finds(&product, text, text).await, "{index}: {text}");
        }
    }
    app.verified();
}

#[tokio::test]
async fn a_first_start_on_a_full_disk_says_so_and_leaves_nothing_in_the_way() {
    let folder = Arc::new(TempDir::new().unwrap());
    let disk = PowerCut::over(&folder.path().join("data"));
    for bytes in [0, 20_000] {
        disk.fill(bytes);
        let refused = TestApp::start_in(folder.clone(), on(&disk)).err();
        let refused = refused.unwrap_or_else(|| panic!("it started with {bytes} bytes"));
        assert!(refused.contains("exit status: 1"), "{refused}");
        assert!(refused.contains("the disk is full: free some space"), "{refused}");
    }
    disk.make_room();

    let mut app = TestApp::start_in(folder, on(&disk)).unwrap();
    app.sign_in().await;
    app.post("/api/products", json!({ "name": "Handbook" })).await.expect_status(201);
}

#[tokio::test]
async fn a_later_start_on_a_full_disk_says_so_and_loses_nothing() {
    let (mut app, disk) = guarded().await;
    let product = app.product().await;
    for is_killed in [false, true] {
        match is_killed {
            true => app.kill(),
            false => assert!(app.stop().success(), "{}", app.stderr()),
        }
        disk.take_as_synced();
        disk.fill(0);
        let refused = app.try_start().unwrap_err();
        assert!(refused.contains("exit status: 1"), "{refused}");
        assert!(refused.contains("the disk is full: free some space"), "{refused}");
        disk.make_room();

        app.start();
        app.get(&format!("/api/products/{}", product.id)).await.expect_status(200);
        app.verified();
    }
}
