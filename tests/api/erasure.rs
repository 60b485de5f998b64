//! Deletions: what they reach, at once or after a crash.

use std::io::Write;
use std::net::TcpStream;
use std::sync::Arc;

use commands::{Ask, Commands};
use domain::user::Asker;
use eventlog::{EventStore, SqliteOptions, SqliteStore};
use serde_json::{Value, json};
use uuid::Uuid;
use vault::Vault;

use super::support::{PASSWORD, Product, TestApp, eventually, files_below, prodgy};

/// The command side of a server that is stopped: what is done by it is all that a server had stored
/// when it crashed.
pub struct CutOff {
    log: Arc<dyn EventStore>,
    /// That side.
    pub commands: Commands,
}

impl CutOff {
    /// Opens the log and the vault of a server that is stopped.
    pub async fn open(app: &TestApp) -> CutOff {
        let folder = app.data_dir();
        let log = SqliteStore::open(&folder.join("events.db"), SqliteOptions::default()).unwrap();
        let log: Arc<dyn EventStore> = Arc::new(log);
        let key = folder.join("master.key");
        let (vault, _) = Vault::local_with_key_file(&folder.join("vault"), &key).await.unwrap();
        let commands = Commands::open(log.clone(), vault).await.unwrap();
        CutOff { log, commands }
    }

    /// Lets go of them.
    pub async fn close(self) {
        self.log.close().await;
    }
}

/// The tenant of a server.
pub async fn organization(app: &TestApp) -> Uuid {
    let me = app.get("/api/auth/me").await.expect_status(200);
    me.data()["organization"]["id"].as_str().unwrap().parse().unwrap()
}

async fn new_user(app: &TestApp, email: &str) -> String {
    let body = json!({ "email": email, "name": "Ada", "role": "member", "password": PASSWORD });
    let reply = app.post("/api/users", body).await.expect_status(201);
    reply.data()["id"].as_str().unwrap().to_owned()
}

/// The events of a type.
pub async fn events(app: &TestApp, event_type: &str) -> Vec<Value> {
    let reply = app.get(&format!("/api/events?limit=1000&type={event_type}")).await;
    reply.expect_status(200).data().as_array().unwrap().clone()
}

/// Waits until there is an event of a type.
pub async fn wait_for_event(app: &TestApp, event_type: &str) {
    eventually(&format!("there is no {event_type}"), async || {
        (!events(app, event_type).await.is_empty()).then_some(())
    })
    .await;
}

#[track_caller]
fn is_shredded(app: &TestApp, key: &str) {
    let keys = app.data_dir().join("vault/keys");
    assert!(!keys.join(format!("{key}.json")).exists(), "{key} is still there");
    assert!(keys.join(format!("{key}.shredded")).exists(), "{key} was not shredded");
}

#[track_caller]
fn verified(app: &TestApp) {
    let output =
        prodgy(app.data_dir().parent().unwrap(), &["projections", "verify"]).output().unwrap();
    assert!(output.status.success(), "{output:?}");
}

/// A product with a token, an agent, and a file that was read.
async fn full_product(app: &TestApp, text: &str) -> (Product, String) {
    let product = app.product().await;
    let token = app.token(&product, &[]).await;
    app.agent(&product).await;
    let file = app.text_file(&product, "note.txt", text).await;
    app.wait_ready(&file).await;
    (product, token.secret)
}

#[tokio::test]
async fn a_user_whose_deletion_a_crash_cut_off_is_erased_at_the_next_start() {
    let mut app = TestApp::spawn().await;
    let user = new_user(&app, "ada@example.com").await;
    let ada = app.login("ada@example.com", PASSWORD).await;
    let organization = organization(&app).await;

    app.stop();
    let cut_off = CutOff::open(&app).await;
    let ask = Ask::once("test", organization, None);
    cut_off.commands.delete_user(user.parse().unwrap(), Asker::Operator, &ask).await.unwrap();
    cut_off.close().await;
    assert!(app.data_dir().join(format!("vault/keys/user-{user}.json")).exists());
    app.start();

    ada.get("/api/auth/me").await.expect_status(401);
    wait_for_event(&app, "user.erased.v1").await;
    is_shredded(&app, &format!("user-{user}"));
    let ended = app.get("/api/audit-logs?resource_type=session&action=ended").await;
    assert_eq!(ended.data()[0]["details"]["reason"], "user_deleted", "{ended:?}");
    assert_eq!(ended.data()[0]["actor"], "system:erasure", "{ended:?}");
    new_user(&app, "ada@example.com").await;

    app.restart();
    assert_eq!(events(&app, "user.erased.v1").await.len(), 1, "once is enough");
    verified(&app);
}

#[tokio::test]
async fn a_product_whose_deletion_a_crash_cut_off_is_erased_at_the_next_start() {
    let mut app = TestApp::spawn().await;
    let (kept, _) = full_product(&app, "The gate opens at six.").await;
    let (product, secret) = full_product(&app, "The gate closes at nine.").await;
    let organization = organization(&app).await;
    let id: Uuid = product.id.parse().unwrap();

    app.stop();
    let cut_off = CutOff::open(&app).await;
    let ask = Ask::once("test", organization, Some(id));
    cut_off.commands.delete_product(id, &ask).await.unwrap();
    cut_off.close().await;
    for folder in ["blobs", "artifacts"] {
        assert!(app.data_dir().join(format!("vault/{folder}/{id}")).exists(), "{folder}");
    }
    app.start();

    app.get(&format!("/api/products/{id}")).await.expect_problem(404, "product_not_found");
    wait_for_event(&app, "product.erased.v1").await;
    erased(&app, &product, &secret).await;

    let question = json!({ "query": "When does the gate open?", "product_id": kept.id });
    // The model is loaded beside everything else.
    let found = eventually("nothing is found after the start", async || {
        let found = app.post("/api/knowledge-base/embeddings", question.clone()).await;
        (found.status == 200).then_some(found)
    })
    .await;
    assert_eq!(found.data()[0]["text"], "The gate opens at six.", "{found:?}");
    app.restart();
    assert_eq!(events(&app, "product.erased.v1").await.len(), 1, "once is enough");
    verified(&app);
}

/// How many data keys of an integration there are, and how many are shredded.
fn integration_keys(app: &TestApp, id: &str) -> (usize, usize) {
    let names = std::fs::read_dir(app.data_dir().join("vault/keys")).unwrap();
    let names = names.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let (good, shredded): (Vec<_>, Vec<_>) = names
        .filter(|name| name.starts_with(&format!("integration-{id}")))
        .partition(|name| name.ends_with(".json"));
    (good.len(), shredded.len())
}

#[tokio::test]
async fn an_integration_whose_deletion_a_crash_cut_off_loses_its_keys_at_the_next_start() {
    let mut app = TestApp::spawn().await;
    let product = app.product().await;
    let mut ids = Vec::new();
    for product in [json!(product.id), json!(product.id), json!(null), json!(product.id)] {
        let body = json!({ "product_id": product, "type": "github", "title": "Code", "config": {},
                           "secrets": { "token": "ghp_0123456789" } });
        let made = app.post("/api/integrations-base", body).await.expect_status(201);
        ids.push(made.data()["id"].as_str().unwrap().to_owned());
    }
    let rotated = format!("/api/integrations-base/{}/rotate-key", ids[0]);
    app.post_empty(&rotated).await.expect_status(200);
    let organization = organization(&app).await;

    app.kill();
    let cut_off = CutOff::open(&app).await;
    for (id, product) in
        [(&ids[0], Some(&product.id)), (&ids[1], Some(&product.id)), (&ids[2], None)]
    {
        let product = product.map(|product| product.parse().unwrap());
        let ask = Ask::once("test", organization, product);
        cut_off.commands.delete_integration(id.parse().unwrap(), &ask).await.unwrap();
    }
    // Of this one the key was gone already, and nobody had written it down.
    let key = format!("integration-{}", ids[1]);
    cut_off.commands.vault().shred_key(&key).await.unwrap();
    cut_off.close().await;
    for (id, keys) in [(&ids[0], (1, 1)), (&ids[1], (0, 1)), (&ids[2], (1, 0))] {
        assert_eq!(integration_keys(&app, id), keys, "{id}");
    }
    app.start();

    eventually("an integration is not erased", async || {
        (events(&app, "integration.erased.v1").await.len() == 3).then_some(())
    })
    .await;
    for (id, shredded) in [(&ids[0], 2), (&ids[1], 1), (&ids[2], 1)] {
        assert_eq!(integration_keys(&app, id), (0, shredded), "{id}");
        let path = format!("/api/integrations-base/{id}");
        app.get(&path).await.expect_problem(404, "integration_not_found");
    }
    assert_eq!(integration_keys(&app, &ids[3]), (1, 0), "the other one keeps its key");
    app.get(&format!("/api/integrations-base/{}", ids[3])).await.expect_status(200);
    app.restart();
    assert_eq!(events(&app, "integration.erased.v1").await.len(), 3, "once is enough");
    verified(&app);
}

/// Nothing is left of a product but its history.
async fn erased(app: &TestApp, product: &Product, secret: &str) {
    let id = &product.id;
    is_shredded(app, &format!("product-{id}"));
    assert!(!app.data_dir().join(format!("vault/blobs/{id}")).exists());
    let artifacts = app.data_dir().join(format!("vault/artifacts/{id}"));
    let left = std::fs::read_dir(&artifacts).map_or(0, Iterator::count);
    assert_eq!(left, 0, "{} is not empty", artifacts.display());
    app.with_token(secret).get("/api/products").await.expect_problem(401, "token_invalid");
    for path in [
        format!("/api/agent-base/product/{id}"),
        format!("/api/api-tokens/product/{id}"),
        format!("/api/knowledge-base/{id}"),
        format!("/api/knowledge-base/storage/{}", product.knowledge_base),
    ] {
        app.get(&path).await.expect_status(404);
    }
    let history = app.get(&format!("/api/audit-logs?limit=1000&product_id={id}")).await;
    let rows = history.data().as_array().unwrap();
    let row = |kind: &str, action: &str| {
        rows.iter().find(|row| row["resource_type"] == kind && row["action"] == action)
    };
    for (kind, action) in [
        ("product", "erased"),
        ("api_token", "deleted"),
        ("agent", "uninstalled"),
        ("trigger", "deleted"),
        ("knowledge_base", "deleted"),
        ("file", "deleted"),
    ] {
        let row = row(kind, action).unwrap_or_else(|| panic!("no {kind} {action}: {history:?}"));
        let is_ours =
            ["system:erasure", "system:completion"].contains(&row["actor"].as_str().unwrap());
        assert!(is_ours, "{row}");
    }
    assert!(row("product", "created").is_some(), "its history stays: {history:?}");
}

#[tokio::test]
async fn a_product_is_erased_when_its_deletion_is_answered() {
    let app = TestApp::spawn().await;
    let (product, secret) = full_product(&app, "The gate opens at six.").await;

    let reply = app.delete(&format!("/api/products/{}", product.id)).await;
    if reply.status == 202 {
        wait_for_event(&app, "product.erased.v1").await;
    } else {
        reply.expect_status(200);
    }

    erased(&app, &product, &secret).await;
    verified(&app);
}

#[tokio::test]
async fn a_knowledge_base_whose_deletion_a_crash_cut_off_is_emptied_at_the_next_start() {
    let mut app = TestApp::spawn().await;
    let product = app.product().await;
    let body = json!({ "product_id": product.id, "name": "Another" });
    let made = app.post("/api/knowledge-base", body).await.expect_status(201);
    let base = made.data()["id"].as_str().unwrap().to_owned();
    let inside = app.upload(&base, &[("a.txt", "text/plain", b"a"), ("b.txt", "text/plain", b"b")]);
    inside.await.expect_status(202);
    let file = app.text_file(&product, "kept.txt", "kept").await;
    app.wait_ready(&file).await;
    let organization = organization(&app).await;

    app.stop();
    let cut_off = CutOff::open(&app).await;
    let ask = Ask::once("test", organization, Some(product.id.parse().unwrap()));
    cut_off.commands.delete_knowledge_base(base.parse().unwrap(), &ask).await.unwrap();
    cut_off.close().await;
    app.start();

    eventually("the files are not deleted", async || {
        (events(&app, "file.deleted.v1").await.len() == 2).then_some(())
    })
    .await;
    app.get(&format!("/api/knowledge-base/storage/file/{file}")).await.expect_status(200);
    app.restart();
    assert_eq!(events(&app, "file.deleted.v1").await.len(), 2, "once is enough");
    verified(&app);
}

/// What the vault holds of files, and what was made of them.
pub fn in_the_vault(app: &TestApp) -> usize {
    ["blobs", "artifacts", "garbage"]
        .map(|kind| files_below(&app.data_dir().join("vault").join(kind)).len())
        .iter()
        .sum()
}

#[tokio::test]
async fn an_erased_file_leaves_no_bytes() {
    let mut app = TestApp::spawn().await;
    let product = app.product().await;
    let before = in_the_vault(&app);
    let mut paths = Vec::new();
    for (name, text) in [("a.txt", "The gate opens at six."), ("b.txt", "It closes at nine.")] {
        let file = app.text_file(&product, name, text).await;
        app.wait_ready(&file).await;
        paths.push(format!("/api/knowledge-base/storage/file/{file}"));
    }
    assert_eq!(in_the_vault(&app), before + 4);
    let [at_once, later] = [&paths[0], &paths[1]];

    app.delete(later).await.expect_status(200);
    assert_eq!(in_the_vault(&app), before + 4, "deleting hides");
    for path in [at_once, later] {
        app.delete(&format!("{path}?erase=true")).await.expect_status(200);
        app.get(&format!("{path}/download")).await.expect_problem(404, "file_not_found");
        app.delete(&format!("{path}?erase=true")).await.expect_problem(404, "file_not_found");
    }
    assert_eq!(in_the_vault(&app), before);
    assert_eq!(events(&app, "file.erased.v1").await.len(), 2);
    let trail = app.get("/api/audit-logs?resource_type=file&action=erased").await;
    assert_eq!(trail.data()[0]["actor"], "system:erasure", "{trail:?}");

    let again = app.text_file(&product, "a.txt", "The gate opens at six.").await;
    app.wait_ready(&again).await;
    assert!(at_once.ends_with(&again), "the same bytes are the same file");
    app.get(&format!("{at_once}/download")).await.expect_status(200);
    app.restart();
    verified(&app);
}

#[tokio::test]
async fn who_may_not_see_a_file_cannot_erase_it_either() {
    let app = TestApp::spawn().await;
    let product = app.product().await;
    let file = app.text_file(&product, "a.txt", "The gate opens at six.").await;
    app.wait_ready(&file).await;
    let path = format!("/api/knowledge-base/storage/file/{file}");
    let other = app.product().await;
    let stranger = app.with_token(&app.token(&other, &[]).await.secret);
    let erase = format!("{path}?erase=true");

    stranger.delete(&erase).await.expect_problem(404, "file_not_found");
    app.delete(&path).await.expect_status(200);
    stranger.delete(&erase).await.expect_problem(404, "file_not_found");
    app.delete(&format!("{path}?erase=perhaps")).await.expect_status(400);
    app.delete(&erase).await.expect_status(200);
}

#[tokio::test]
async fn a_file_whose_erasure_a_crash_cut_off_is_erased_at_the_next_start() {
    let mut app = TestApp::spawn().await;
    let product = app.product().await;
    let before = in_the_vault(&app);
    let file = app.text_file(&product, "a.txt", "The gate opens at six.").await;
    app.wait_ready(&file).await;
    let organization = organization(&app).await;

    app.stop();
    let cut_off = CutOff::open(&app).await;
    let ask = Ask::once("test", organization, Some(product.id.parse().unwrap()));
    cut_off.commands.erase_file(file.parse().unwrap(), &ask).await.unwrap();
    cut_off.close().await;
    assert_eq!(in_the_vault(&app), before + 2);
    app.start();

    wait_for_event(&app, "file.erased.v1").await;
    assert_eq!(in_the_vault(&app), before);
    app.restart();
    assert_eq!(events(&app, "file.erased.v1").await.len(), 1, "once is enough");
    verified(&app);
}

#[tokio::test]
async fn a_deletion_that_nobody_waits_for_is_finished() {
    let app = TestApp::spawn().await;
    let address = app.base().trim_start_matches("http://").to_owned();
    let mut users = Vec::new();
    for number in 0..3 {
        users.push(new_user(&app, &format!("user{number}@example.com")).await);
    }

    for (before, user) in users.iter().enumerate() {
        let mut line = TcpStream::connect(&address).unwrap();
        let request = format!(
            "DELETE /api/users/{user} HTTP/1.1\r\nHost: {address}\r\nAuthorization: Bearer {}\r\n\r\n",
            app.credential()
        );
        line.write_all(request.as_bytes()).unwrap();
        // Begun; then gone, without a look at the answer.
        eventually("a deletion was not begun", async || {
            (events(&app, "user.deleted.v1").await.len() > before).then_some(())
        })
        .await;
    }

    eventually("a deletion was not finished", async || {
        (events(&app, "user.erased.v1").await.len() == users.len()).then_some(())
    })
    .await;
    for user in &users {
        is_shredded(&app, &format!("user-{user}"));
    }
}
