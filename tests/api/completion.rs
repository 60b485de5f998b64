//! A first event that was stored, and a server that died before the rest of it: the next start completes what the
//! event has fixed, though nobody asks again.

use std::fs;

use serde_json::{Value, json};

use super::support::{TestApp, eventually};

/// Stops the server and cuts its log off after the last event of this type, as a crash does that comes before the next
/// one.
fn crash_after(app: &mut TestApp, event_type: &str) {
    app.kill();
    let log = rusqlite::Connection::open(app.data_dir().join("events.db")).unwrap();
    let find = "SELECT max(position) FROM events WHERE envelope ->> 'type' = ?1";
    let last: u64 = log.query_row(find, [event_type], |row| row.get(0)).unwrap();
    let guard = "SELECT sql FROM sqlite_master WHERE name = 'events_are_never_deleted'";
    let guard: String = log.query_row(guard, [], |row| row.get(0)).unwrap();
    log.execute_batch("DROP TRIGGER events_are_never_deleted").unwrap();
    let cut = log.execute("DELETE FROM events WHERE position > ?1", [last]).unwrap();
    log.execute_batch(&guard).unwrap();
    assert!(cut > 0, "nothing came after {event_type}");
    for derived in ["views", "search"] {
        fs::remove_dir_all(app.data_dir().join(derived)).unwrap();
    }
}

/// Who did something, as the audit log has it.
async fn actor_of(app: &TestApp, kind: &str, id: &str, action: &str) -> Value {
    let path = format!("/api/audit-logs?resource_type={kind}&resource_id={id}&action={action}");
    let entries = app.get(&path).await.expect_status(200);
    assert_eq!(entries.data().as_array().unwrap().len(), 1, "{entries:?}");
    entries.data()[0]["actor"].clone()
}

#[tokio::test]
async fn a_product_whose_knowledge_base_was_cut_off_gets_the_one_that_it_named() {
    let mut app = TestApp::spawn().await;
    let product = app.product().await;
    let base = format!("/api/knowledge-base/base/{}", product.knowledge_base);
    crash_after(&mut app, "product.created.v1");

    app.start();
    app.sign_in().await;
    eventually("the knowledge base is not made", async || {
        (app.get(&base).await.status == 200).then_some(())
    })
    .await;
    let actor = actor_of(&app, "knowledge_base", &product.knowledge_base, "created").await;
    assert!(actor.to_string().contains("completion"), "{actor}");
    let file = app.text_file(&product, "leave.txt", "Everybody has 25 days of leave.").await;
    app.wait_ready(&file).await;
    app.stop();
    app.verified();
}

#[tokio::test]
async fn an_agent_whose_triggers_were_cut_off_gets_those_of_its_manifest() {
    let mut app = TestApp::spawn().await;
    let product = app.product().await;
    let agent = app.agent(&product).await;
    let id = agent["id"].as_str().unwrap();
    let trigger = agent["triggers"][0]["id"].as_str().unwrap().to_owned();
    crash_after(&mut app, "agent.installed.v1");

    app.start();
    app.sign_in().await;
    let path = format!("/api/agent-base/{id}");
    let triggers = eventually("the trigger is not made", async || {
        let agent = app.get(&path).await;
        let triggers = agent.data()["triggers"].as_array()?.clone();
        (!triggers.is_empty()).then_some(triggers)
    })
    .await;
    assert_eq!(triggers.len(), 1, "{triggers:?}");
    assert_eq!(triggers[0]["id"], trigger, "ids are those that the first event fixed");
    let actor = actor_of(&app, "trigger", &trigger, "created").await;
    assert!(actor.to_string().contains("completion"), "{actor}");
    let execute = format!("/api/agent-base/triggers/{trigger}/execute?wait_seconds=20");
    let ran = app.post(&execute, json!({ "input": { "query": "leave" } })).await;
    assert!(ran.is_success(), "{ran:?}");
}
