//! Messages that people change and take back.

use super::*;

fn changed(ts: &str, text: &str, at: &str) -> Value {
    json!({
        "type": "message", "subtype": "message_changed", "hidden": true, "channel": "D1", "channel_type": "im",
        "ts": at, "event_ts": at,
        "message": { "type": "message", "user": "U7", "text": text, "ts": ts,
                     "edited": { "user": "U7", "ts": at } },
    })
}

fn deleted(ts: &str, at: &str) -> Value {
    json!({
        "type": "message", "subtype": "message_deleted", "hidden": true, "channel": "D1", "channel_type": "im",
        "ts": at, "event_ts": at, "deleted_ts": ts,
        "previous_message": { "type": "message", "user": "U7", "text": "x", "ts": ts },
    })
}

#[tokio::test]
async fn what_is_changed_or_taken_back_is_noted_beside_the_message_and_starts_nothing() {
    let it = World::new().await;
    let agent = it.agent(json!({}), "input.text").await;
    let direct = json!({ "type": "message", "channel_type": "im", "user": "U7", "text": "good morning",
                         "channel": "D1", "ts": "17.1" });
    it.say("Ev1", direct).await.expect_status(200);
    it.slack.has(1).await;
    for retry in 0..3 {
        // A retry has the id of the event; a change that is sent once more without it is the same change.
        let id = if retry < 2 { "Ev2" } else { "Ev3" };
        it.say(id, changed("17.1", "good evening", "18.1")).await.expect_status(200);
    }
    it.say("Ev4", deleted("17.1", "19.1")).await.expect_status(200);
    // Of what was never heard there is nothing to note.
    it.say("Ev5", changed("99.9", "hello", "20.1")).await.expect_status(200);
    it.say("Ev6", deleted("99.9", "20.2")).await.expect_status(200);

    let list = format!("/api/communicator/conversations?integration_id={}", it.id);
    let list = it.app.get(&list).await.expect_status(200);
    assert_eq!(list.data().as_array().unwrap().len(), 1);
    let path =
        format!("/api/communicator/conversations/{}", list.data()[0]["id"].as_str().unwrap());
    let turns = it.app.get(&format!("{path}/messages")).await.expect_status(200);
    let said = turns.data().as_array().unwrap().last().unwrap().clone();
    assert_eq!(
        (&said["text"], &said["changed_text"]),
        (&json!("good morning"), &json!("good evening"))
    );
    assert!(said["changed_at"].is_string() && said["withdrawn_at"].is_string(), "{said}");
    for action in ["message_changed", "message_withdrawn"] {
        assert_eq!(it.rows(&format!("action={action}")).await.len(), 1, "{action}");
    }
    assert_eq!(it.executions(&agent).await.len(), 1);
    it.slack.has(1).await;
    it.app.verified();
}
