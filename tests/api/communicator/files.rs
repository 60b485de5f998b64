//! Files that people send to a bot.

use super::*;

impl World {
    /// A file that Slack keeps: what an event says of it.
    pub(super) fn file(&self, id: &str, name: &str, kind: &str, gives: Says) -> Value {
        let path = format!("/files/{id}/{name}");
        self.slack.files.lock().unwrap().insert(path.clone(), gives);
        let url = format!("{}{path}", self.slack.side.url);
        json!({ "id": id, "name": name, "mimetype": kind, "mode": "hosted", "size": 40,
                "url_private_download": url, "url_private": "https://files.slack.com/x" })
    }

    /// What the knowledge base holds.
    async fn kept(&self) -> Vec<Value> {
        let path = format!("/api/knowledge-base/storage/{}", self.product.knowledge_base);
        self.app.get(&path).await.expect_status(200).data().as_array().unwrap().clone()
    }
}

/// A direct message with files.
fn shared(ts: &str, text: &str, files: &[Value]) -> Value {
    json!({ "type": "message", "subtype": "file_share", "channel_type": "im", "user": "U7", "text": text,
            "channel": "D1", "ts": ts, "files": files })
}

const HOURS: &str = "The lighthouse in Porto is open from seven in the evening.";

#[tokio::test]
async fn a_file_that_is_sent_to_the_bot_is_one_of_the_knowledge_base_however_often_it_comes() {
    let it = World::taking_files().await;
    let file = it.file("F1", "hours.md", "text/markdown", gives(200, "text/markdown", HOURS));
    let tombstone = json!({ "id": "F0", "mode": "tombstone" });
    let event = shared("17.1", "", &[tombstone, file.clone()]);
    for _ in 0..3 {
        it.say("Ev1", event.clone()).await.expect_status(200);
    }
    let posted = it.slack.has(1).await;
    assert_eq!(posted[0]["text"], "I took hours.md in, and read it now.");
    assert_eq!((&posted[0]["channel"], &posted[0]["thread_ts"]), (&json!("D1"), &json!("17.1")));
    let kept = it.kept().await;
    assert_eq!(kept.len(), 1, "{kept:?}");
    assert_eq!(
        (&kept[0]["file_name"], &kept[0]["media_type"]),
        (&json!("hours.md"), &json!("text/markdown"))
    );
    assert!(kept[0]["source"].as_str().unwrap().starts_with("slack/"), "{}", kept[0]);
    it.app.wait_ready(kept[0]["id"].as_str().unwrap()).await;
    assert!(it.app.finds(&it.product, "When is the lighthouse open?", HOURS).await);
    let called = it.rows(&format!("resource_id={}&action=called", it.id)).await;
    assert_eq!(called.len(), 2, "the file, and the answer: {called:?}");
    assert_eq!(called[1]["details"]["secrets_version"], 1);

    // The same bytes in another message, of which Slack tells no more than the id; and a question with it.
    let bytes = gives(200, "text/plain", HOURS);
    it.slack.files.lock().unwrap().insert("/files/F9/shared.txt".to_owned(), bytes);
    let bare = json!({ "id": "F9", "name": "shared.txt", "file_access": "check_file_info" });
    it.say("Ev2", shared("18.1", "When is the lighthouse open?", &[bare])).await.expect_status(200);
    let answer = it.slack.has(2).await[1]["text"].as_str().unwrap().to_owned();
    assert!(answer.starts_with("I have shared.txt already.\n\n"), "{answer}");
    assert!(answer.contains("from seven") && answer.contains("hours.md"), "{answer}");
    assert_eq!(it.kept().await.len(), 1);
    it.app.verified();
}

#[tokio::test]
async fn an_agent_hears_of_the_files_and_where_they_are_now() {
    let it = World::taking_files().await;
    let agent = it.agent(json!({}), "'Thank you for ' + input.files[0].name").await;
    let file = it.file("F1", "hours.md", "text/markdown", gives(200, "text/markdown", HOURS));
    let mut said = mention("17.1", "look at this");
    said["files"] = json!([file]);
    it.say("Ev1", said).await.expect_status(200);
    let posted = it.slack.has(2).await;
    let texts: Vec<_> = posted.iter().map(|posted| posted["text"].as_str().unwrap()).collect();
    assert_eq!(texts, ["I took hours.md in, and read it now.", "Thank you for hours.md"]);
    let input = it.executions(&agent).await[0]["input"].clone();
    assert_eq!(
        input["files"],
        json!([{ "name": "hours.md", "media_type": "text/markdown", "size": 40,
                 "file_id": it.kept().await[0]["id"] }])
    );
}

#[tokio::test]
async fn a_file_that_is_not_taken_in_is_answered_with_why() {
    let it = World::taking_files().await;
    let page = "<html><body>Sign in to Slack</body></html>";
    let long = "x".repeat(2_001);
    let mut elsewhere =
        it.file("F3", "link.txt", "text/plain", gives(200, "text/plain", "elsewhere"));
    elsewhere["url_private_download"] = json!("https://evil.example/link.txt");
    let mut large = it.file("F4", "large.txt", "text/plain", gives(200, "text/plain", "small"));
    large["size"] = json!(2_001);
    let files = [
        it.file("F1", "photo.png", "image/png", gives(200, "image/png", "x")),
        it.file("F2", "secret.txt", "text/plain", gives(200, "text/html; charset=utf-8", page)),
        elsewhere,
        large,
        it.file("F5", "longer.txt", "text/plain", gives(200, "text/plain", long)),
        it.file("F6", "gone.txt", "text/plain", gives(404, "text/plain", "no such file")),
        it.file("F7", "led.txt", "text/plain", gives(302, "text/plain", "").with("location", "/x")),
        it.file("F8", "good.txt", "text/plain", gives(200, "text/plain", HOURS)),
    ];
    it.say("Ev1", shared("17.1", "", &files)).await.expect_status(200);
    let posted = it.slack.has(1).await;
    let lines: Vec<_> = posted[0]["text"].as_str().unwrap().lines().collect();
    for (line, (name, why)) in lines.iter().zip([
        ("photo.png", "a file of type .png cannot be read"),
        ("secret.txt", "files:read"),
        ("link.txt", "not at Slack"),
        ("large.txt", "more than 2000 bytes"),
        ("longer.txt", "more than 2000 bytes"),
        ("gone.txt", "has no such thing"),
        ("led.txt", "a secret is not taken there"),
    ]) {
        assert!(line.starts_with(&format!("I did not take {name} in: ")), "{line}");
        assert!(line.contains(why), "{why}: {line}");
    }
    assert_eq!(lines[7], "I took good.txt in, and read it now.");
    let side = &it.slack.side;
    assert_eq!(
        (side.count_of("/files/F1/photo.png"), side.count_of("/files/F4/large.txt")),
        (0, 0)
    );
    assert_eq!(it.kept().await.len(), 1);
    let refused = it.rows("action=file_refused").await;
    assert_eq!(refused.len(), 7);
    assert!(refused.iter().any(|row| row["details"]["code"] == "too_large"), "{refused:?}");

    // Where it was not asked for, nothing is fetched; and files go into what is the product's own.
    let silent = World::new().await;
    let file = silent.file("F1", "hours.md", "text/markdown", gives(200, "text/markdown", HOURS));
    silent.say("Ev1", shared("17.1", "hello", &[file])).await.expect_status(200);
    silent.slack.has(1).await;
    assert_eq!(silent.slack.side.count_of("/files/F1/hours.md"), 0);
    let other = it.app.product().await;
    for base in [other.knowledge_base.as_str(), "00000000-0000-4000-8000-000000000000"] {
        let url = format!("{}/api", it.slack.side.url);
        let config = json!({ "ingest_files": base, "base_url": url });
        let path = format!("/api/integrations-base/{}", it.id);
        let refused = it.app.put(&path, json!({ "config": config })).await;
        let refused = refused.expect_problem(422, "integration_invalid");
        assert_eq!(
            (&refused.body["errors"][0]["field"], &refused.body["errors"][0]["code"]),
            (&json!("/config/ingest_files"), &json!("knowledge_base_unknown"))
        );
    }
}

#[tokio::test]
async fn a_file_is_neither_lost_nor_doubled_though_the_server_dies_while_it_is_fetched() {
    let mut it = World::taking_files().await;
    let file = it.file("F1", "hours.md", "text/markdown", gives(503, "text/plain", "later"));
    it.say("Ev1", shared("17.1", "", std::slice::from_ref(&file))).await.expect_status(200);
    for _ in 0..3 {
        let asked = it.slack.side.count_of("/files/F1/hours.md");
        eventually("the file is not asked for again", async || {
            (it.slack.side.count_of("/files/F1/hours.md") > asked).then_some(())
        })
        .await;
        it.app.kill();
        it.app.start();
    }
    it.file("F1", "hours.md", "text/markdown", gives(200, "text/markdown", HOURS));
    it.slack.has(1).await;
    assert_eq!(it.kept().await.len(), 1);
    assert_eq!(it.rows("action=file_attempted").await.len(), 1);
    assert_eq!(it.rows("action=file_taken").await.len(), 1);
    it.app.verified();
}
