//! Files from outside: uploaded, read, heard of, downloaded and deleted.

use std::io::{Read, Write};
use std::net::TcpStream;

use reqwest::Method;
use reqwest::multipart::{Form, Part};
use serde_json::{Value, json};

use crate::support::{Client, Product, Reply, TestApp, eventually, files_below, parts_below};

const UPLOAD: &str = "/api/knowledge-base/storage/upload";

fn part(name: &str, text: impl Into<Vec<u8>>) -> Part {
    Part::bytes(text.into()).file_name(name.to_owned())
}

async fn send(client: &Client, form: Form) -> Reply {
    client.send(client.request(Method::POST, UPLOAD).multipart(form)).await
}

fn path(file: &Value) -> String {
    format!("/api/knowledge-base/storage/file/{}", file["id"].as_str().unwrap())
}

async fn listed(app: &TestApp, product: &Product, query: &str) -> Reply {
    let path = format!("/api/knowledge-base/storage/{}{query}", product.knowledge_base);
    app.get(&path).await.expect_status(200)
}

#[tokio::test]
async fn a_hundred_files_come_in_one_upload() {
    let app = TestApp::spawn().await;
    let product = app.product().await;
    let mut form = Form::new();
    for number in 0..100 {
        form = form.part("file", part(&format!("{number}.md"), format!("# Rule {number}")));
    }
    // The field that says where they belong comes last: the files wait for it.
    let form = form.text("product_id", product.id.clone()).text("tags", "rules, spain");

    let reply = send(&app, form).await.expect_status(202);

    let files = reply.data().as_array().unwrap();
    assert_eq!(files.len(), 100);
    assert_eq!(files[7]["file_name"], "7.md");
    assert!(
        files.iter().all(|file| file["status"] == "processing" && file["duplicate_of"].is_null())
    );
    assert_eq!(listed(&app, &product, "?limit=1000").await.data().as_array().unwrap().len(), 100);
    let ready = eventually("not all files are ready", async || {
        let ready = listed(&app, &product, "?status=ready&pageSize=1").await;
        (ready.body["pagination"]["total"] == 100).then_some(ready)
    });
    let page = ready.await;
    let file = &page.data()[0];
    assert_eq!((&file["chunks"], &file["progress"]), (&json!(1), &json!(100)));
    assert_eq!(
        (&file["media_type"], &file["tags"]),
        (&json!("text/markdown"), &json!(["rules", "spain"]))
    );
    assert_eq!(listed(&app, &product, "?status=processing").await.body["pagination"]["total"], 0);
}

#[tokio::test]
async fn the_same_bytes_twice_are_one_file_unless_asked() {
    let app = TestApp::spawn().await;
    let product = app.product().await;
    let form = || {
        let base = Form::new().text("knowledge_base_id", product.knowledge_base.clone());
        base.part("file", part("a.txt", "one and the same"))
    };
    let first = send(&app, form()).await.expect_status(202).data()[0].clone();

    let refused = send(&app, form()).await.expect_problem(409, "file_duplicate");
    assert!(
        refused.body["errors"][0]["message"]
            .as_str()
            .unwrap()
            .contains(first["id"].as_str().unwrap())
    );
    let some_new =
        form().part("file", part("b.txt", "another")).part("file", part("c.txt", "another"));
    let some_new = send(&app, some_new).await.expect_status(202);
    assert_eq!(some_new.data()[0]["duplicate_of"], first["id"]);
    assert_eq!(some_new.data()[1]["duplicate_of"], Value::Null);
    assert_eq!(some_new.data()[2]["duplicate_of"], some_new.data()[1]["id"]);

    let keep = app.request(Method::POST, &format!("{UPLOAD}?on_duplicate=keep")).multipart(form());
    let kept = app.send(keep).await.expect_status(202).data()[0].clone();
    assert_ne!(kept["id"], first["id"]);
    assert_eq!(listed(&app, &product, "").await.body["pagination"]["total"], 3);

    app.delete(&path(&first)).await.expect_status(200);
    let again = send(&app, form()).await.expect_status(202);
    assert_eq!(again.data()[0]["id"], first["id"]);
    app.wait_ready(first["id"].as_str().unwrap()).await;
}

#[tokio::test]
async fn a_key_uploads_once() {
    let app = TestApp::spawn().await;
    let product = app.product().await;
    let base = product.knowledge_base.clone();
    // How far it is, is said as it is now: it goes no further between the two answers.
    let old = app.text_file(&product, "old.txt", "this one is there already").await;
    app.wait_ready(&old).await;
    let post = async |last: &'static str| {
        let form = Form::new()
            .text("knowledge_base_id", base.clone())
            .part("file", part("old.txt", "this one is there already"))
            .part("file", part("new.txt", "this one is new"))
            .part("file", part("last.txt", last));
        let request = app.request(Method::POST, UPLOAD).header("idempotency-key", "upload-1");
        app.send(request.multipart(form)).await
    };

    let first = post("and this one").await.expect_status(202);
    let again = post("and this one").await.expect_status(202);

    assert_eq!(again.data(), first.data());
    assert_eq!(again.body["replayed"], true);
    let blobs = || files_below(&app.data_dir().join("vault/blobs")).len();
    let before = blobs();
    assert_eq!(before, 3, "the bytes of the files that are there");
    post("and something else").await.expect_problem(422, "idempotency_key_reused");
    assert_eq!(blobs(), before, "bytes of a refused upload were kept");
    assert_eq!(listed(&app, &product, "").await.body["pagination"]["total"], 3);
}

#[tokio::test]
async fn the_very_bytes_come_back_whole_and_in_part() {
    let app = TestApp::spawn().await;
    let product = app.product().await;
    let bytes: Vec<u8> = (0..300_000_u32).map(|number| (number % 251) as u8).collect();
    let files = [("Übersicht 1.bin", "application/octet-stream", &bytes[..])];
    let reply = app.upload(&product.knowledge_base, &files).await.expect_status(202);
    let download = format!("{}/download", path(&reply.data()[0]));

    let whole = app.get(&download).await.expect_status(200);
    assert_eq!(whole.bytes, bytes);
    assert_eq!(whole.header("accept-ranges"), "bytes");
    let disposition = whole.header("content-disposition");
    assert!(
        disposition.starts_with("attachment;")
            && disposition.contains("filename*=UTF-8''%C3%9Cbersicht")
    );
    let etag = whole.header("etag");
    app.get_with(&download, "if-none-match", etag).await.expect_status(304);

    let part = app.get_with(&download, "range", "bytes=1000-1999").await.expect_status(206);
    assert_eq!(part.bytes, bytes[1000..2000]);
    assert_eq!(part.header("content-range"), "bytes 1000-1999/300000");
    let tail = app.get_with(&download, "range", "bytes=-5").await.expect_status(206);
    assert_eq!(tail.bytes, bytes[299_995..]);
    app.get_with(&download, "range", "bytes=300000-")
        .await
        .expect_problem(416, "range_not_satisfiable");
    let request = app.request(Method::GET, &download).header("range", "bytes=0-9");
    let current = app.send(request.try_clone().unwrap().header("if-range", etag)).await;
    assert_eq!(current.expect_status(206).bytes, bytes[..10]);
    let gone = app.send(request.header("if-range", "\"another\"")).await;
    assert_eq!(gone.expect_status(200).bytes, bytes);
}

#[tokio::test]
async fn a_file_that_cannot_be_read_fails_with_the_reason_and_can_be_downloaded() {
    let app = TestApp::spawn().await;
    let product = app.product().await;
    let cases = [
        ("image.md", "text/markdown", &b"\x89PNG\r\n\x1a\n rest"[..], "media_type_mismatch"),
        ("torn.txt", "text/plain", &b"ma\xc3\xb1ana \xf1"[..], "not_utf8"),
        ("zeros.txt", "text/plain", &b"a\0b"[..], "not_text"),
        ("broken.json", "application/json", &b"{\"a\": "[..], "malformed"),
        ("nothing.txt", "text/plain", &b""[..], "empty"),
    ];
    for (name, media_type, bytes, code) in cases {
        let files = [(name, media_type, bytes)];
        let reply = app.upload(&product.knowledge_base, &files).await.expect_status(202);

        let file = app.wait_ended(reply.data()[0]["id"].as_str().unwrap(), "failed").await;

        assert_eq!(file["error"]["code"], code, "{name}: {file}");
        assert!(file["error"]["message"].as_str().unwrap().len() > 20);
        let download = format!("{}/download", path(&file));
        assert_eq!(app.get(&download).await.expect_status(200).bytes, bytes);
    }
    assert_eq!(
        listed(&app, &product, "?status=failed").await.body["pagination"]["total"],
        cases.len()
    );
}

#[tokio::test]
async fn a_deleted_file_is_gone_from_everything() {
    let app = TestApp::spawn().await;
    let product = app.product().await;
    let file = app.text_file(&product, "a.txt", "The gate opens at nine.").await;
    let file = app.wait_ready(&file).await;
    let shown = app.get(&path(&file)).await.expect_status(200);
    assert_eq!(shown.header("etag"), "\"1\"");
    app.delete_with(&path(&file), "if-match", "\"7\"").await.expect_problem(412, "stale");

    app.delete_with(&path(&file), "if-match", "\"1\"").await.expect_status(200);

    let question = json!({ "query": "When does the gate open?", "product_id": product.id });
    let found = app.post("/api/knowledge-base/embeddings", question).await.expect_status(200);
    assert_eq!(found.data(), &json!([]));
    app.get(&path(&file)).await.expect_problem(404, "file_not_found");
    app.delete(&path(&file)).await.expect_problem(404, "file_not_found");
    app.get(&format!("{}/download", path(&file))).await.expect_problem(404, "file_not_found");
    assert_eq!(listed(&app, &product, "").await.body["pagination"]["total"], 0);
}

#[tokio::test]
async fn nothing_is_kept_of_an_upload_that_is_refused() {
    let app = TestApp::spawn_with(&[("PRODGY_UPLOAD_LIMIT_BYTES", "20000")]).await;
    let (product, other) = (app.product().await, app.product().await);
    let base = product.knowledge_base.clone();
    let form =
        || Form::new().text("knowledge_base_id", base.clone()).part("file", part("a.txt", "good"));
    let fault = async |form: Form, field: &str| {
        let reply = send(&app, form).await;
        assert_eq!(
            (reply.status, &reply.body["errors"][0]["field"]),
            (422, &json!(field)),
            "{reply:?}"
        );
    };

    fault(form().text("source", "x".repeat(201)), "/source").await;
    fault(form().text("color", "red"), "/color").await;
    fault(form().text("tags", "[1]"), "/tags").await;
    fault(form().text("source", "a").text("source", "b"), "/source").await;
    fault(form().text("file", "not a file"), "/file").await;
    fault(Form::new().text("knowledge_base_id", base.clone()), "/file").await;
    fault(Form::new().part("file", part("a.txt", "whose?")), "/knowledge_base_id").await;
    fault(form().text("product_id", other.id.clone()), "/knowledge_base_id").await;
    let large = form().part("file", part("b.txt", vec![b'a'; 20_000]));
    send(&app, large).await.expect_problem(413, "too_large");
    let json = app.post(UPLOAD, json!({})).await;
    json.expect_problem(415, "unsupported_media_type");

    assert_eq!(listed(&app, &product, "").await.body["pagination"]["total"], 0);
    assert!(!app.data_dir().join("vault/blobs").exists(), "bytes of it were kept");
}

#[tokio::test]
async fn an_upload_that_breaks_off_leaves_nothing() {
    let app = TestApp::spawn().await;
    let product = app.product().await;
    let address = app.base().replace("http://", "");
    let body = format!(
        "--XX\r\nContent-Disposition: form-data; name=\"knowledge_base_id\"\r\n\r\n{}\r\n\
         --XX\r\nContent-Disposition: form-data; name=\"file\"; filename=\"whole.txt\"\r\n\r\nwhole\r\n\
         --XX\r\nContent-Disposition: form-data; name=\"file\"; filename=\"half.txt\"\r\n\r\nhal",
        product.knowledge_base
    );
    let head = |length: usize| {
        format!(
            "POST {UPLOAD} HTTP/1.1\r\nHost: {address}\r\nAuthorization: Bearer {}\r\nConnection: close\r\n\
             Content-Type: multipart/form-data; boundary=XX\r\nContent-Length: {length}\r\n\r\n",
            app.owner().credential()
        )
    };
    // Ended before its last boundary, though it is as long as it says.
    let mut line = TcpStream::connect(&address).unwrap();
    line.write_all(format!("{}{body}", head(body.len())).as_bytes()).unwrap();
    let mut answer = String::new();
    line.read_to_string(&mut answer).unwrap();
    assert!(
        answer.starts_with("HTTP/1.1 400") && answer.contains("malformed_multipart"),
        "{answer}"
    );
    // Cut off by the line.
    let mut line = TcpStream::connect(&address).unwrap();
    line.write_all(format!("{}{body}", head(body.len() + 100)).as_bytes()).unwrap();
    drop(line);

    // The server has heard of the cut by the time that it has answered this.
    app.text_file(&product, "after.txt", "after").await;
    assert_eq!(listed(&app, &product, "").await.body["pagination"]["total"], 1);
}

#[tokio::test]
async fn a_token_keeps_to_the_files_of_its_product() {
    let app = TestApp::spawn().await;
    let (mine, other) = (app.product().await, app.product().await);
    let theirs = app.text_file(&other, "secret.txt", "secret").await;
    let token = app.with_token(&app.token(&mine, &[]).await.secret);
    let path = format!("/api/knowledge-base/storage/file/{theirs}");

    // Neither product nor knowledge base: its own.
    let own =
        send(&token, Form::new().part("file", part("own.txt", "own"))).await.expect_status(202);
    let shown = token.get(&self::path(&own.data()[0])).await.expect_status(200);
    assert_eq!(shown.data()["knowledge_base_id"], mine.knowledge_base.as_str());

    token.get(&path).await.expect_problem(404, "file_not_found");
    token.get(&format!("{path}/download")).await.expect_problem(404, "file_not_found");
    token.delete(&path).await.expect_problem(404, "file_not_found");
    let list = format!("/api/knowledge-base/storage/{}", other.knowledge_base);
    token.get(&list).await.expect_problem(404, "knowledge_base_not_found");
    let into = token.upload(&other.knowledge_base, &[("a.txt", "text/plain", b"a")]).await;
    into.expect_problem(404, "knowledge_base_not_found");
    let stream = format!("/api/knowledge-base/{}/stream", other.id);
    token.get(&stream).await.expect_problem(404, "product_not_found");
    let reader = app.with_token(&app.token(&mine, &["knowledge:read"]).await.secret);
    reader
        .upload(&mine.knowledge_base, &[("a.txt", "text/plain", b"a")])
        .await
        .expect_problem(403, "scope_missing");
}

/// Reads a stream until an event of this name, and answers all of it so far.
async fn heard_until(app: &TestApp, path: &str, last_event_id: Option<&str>, name: &str) -> String {
    let mut request = app.request(Method::GET, path);
    if let Some(id) = last_event_id {
        request = request.header("last-event-id", id);
    }
    let mut response = request.send().await.unwrap();
    assert_eq!(response.status(), 200);
    assert!(response.headers()["content-type"].to_str().unwrap().starts_with("text/event-stream"));
    let mut heard = String::new();
    while !(heard.contains(&format!("event: {name}\n")) && heard.ends_with("\n\n")) {
        let chunk = tokio::time::timeout(crate::support::PATIENCE, response.chunk()).await.unwrap();
        heard.push_str(std::str::from_utf8(&chunk.unwrap().unwrap()).unwrap());
    }
    heard
}

#[tokio::test]
async fn the_stream_tells_of_a_file_and_goes_on_where_it_was_left() {
    let app = TestApp::spawn().await;
    let (product, other) = (app.product().await, app.product().await);
    let path = format!("/api/knowledge-base/{}/stream", product.id);
    let start = app.head().await.to_string();
    app.text_file(&other, "other.txt", "not for these ears").await;
    let file = app.text_file(&product, "a.txt", "The gate opens at nine.").await;

    let heard = heard_until(&app, &path, Some(&start), "ready").await;

    assert!(
        heard.find("event: upload\n").unwrap() < heard.find("event: ready\n").unwrap(),
        "{heard}"
    );
    assert!(
        heard.contains(&file)
            && heard.contains("\"file_name\":\"a.txt\"")
            && !heard.contains("other.txt")
    );
    // What is ready is found by the very next search.
    let question = json!({ "query": "gate", "product_id": product.id });
    let found = app.post("/api/knowledge-base/embeddings", question).await.expect_status(200);
    assert_eq!(found.data()[0]["file_id"], file.as_str());

    let last = heard.lines().rev().find_map(|line| line.strip_prefix("id: ")).unwrap();
    app.delete(&format!("/api/knowledge-base/storage/file/{file}")).await.expect_status(200);
    let resumed = heard_until(&app, &path, Some(last), "deletion").await;
    assert!(!resumed.contains("event: upload") && !resumed.contains("event: ready"), "{resumed}");
    app.get_with(&path, "last-event-id", "soon")
        .await
        .expect_problem(400, "malformed_last_event_id");
}

#[tokio::test]
async fn a_killed_server_goes_on_with_what_it_was_reading() {
    let mut app = TestApp::spawn().await;
    let product = app.product().await;
    let text: String =
        (0..400).map(|number| format!("Rule {number} is about the number {number}.\n\n")).collect();
    let mut files = vec![];
    for number in 0..3 {
        files.push(
            app.text_file(&product, &format!("{number}.txt"), &format!("{number} {text}")).await,
        );
    }

    app.kill();
    app.start();

    for file in files {
        assert!(app.wait_ready(&file).await["chunks"].as_u64().unwrap() > 1);
    }
}

#[tokio::test]
async fn a_long_file_goes_on_where_a_kill_cut_it_off() {
    let mut app = TestApp::spawn().await;
    let product = app.product().await;
    let filling = |number: usize| {
        format!("Paragraph {number} is about nothing but the number {number} itself. ").repeat(14)
    };
    let folder = app.data_dir();
    // A machine that reads it too fast to be cut off gets a longer one.
    let mut file = None;
    for paragraphs in [60, 240, 960] {
        let text = (0..paragraphs).map(filling).collect::<Vec<_>>().join("\n\n");
        let id = app.text_file(&product, &format!("{paragraphs}.txt"), &text).await;
        let path = format!("/api/knowledge-base/storage/file/{id}");
        let is_cut = eventually("no part of the file is stored", async || {
            let is_read = app.get(&path).await.data()["status"] == "ready";
            (is_read || parts_below(&folder) > 0).then_some(!is_read)
        });
        if is_cut.await {
            file = Some(id);
            break;
        }
    }
    let file = file.expect("a file that is being read");
    app.kill();
    app.start();

    let ready = app.wait_ready(&file).await;
    assert!(app.stderr().contains("reading goes on where it was cut off"), "{}", app.stderr());
    assert_eq!(parts_below(&folder), 0, "they are one now");
    let count = ready["chunks"].as_u64().unwrap();
    // Every vector is that of its chunk: of those that were there before the cut, and of those since.
    for (page, index) in [(1, 0), (count, count - 1)] {
        let path = format!("/api/knowledge-base/storage/file/{file}/chunks?pageSize=1&page={page}");
        let chunk = app.get(&path).await.expect_status(200);
        assert_eq!(chunk.body["pagination"]["total"], count, "none is there twice");
        let text = &chunk.data()[0]["text"];
        let question = json!({ "query": text, "product_id": product.id, "limit": 1 });
        let found = app.post("/api/knowledge-base/embeddings", question).await.expect_status(200);
        let best = &found.data()[0];
        assert_eq!((&best["chunk_index"], &best["text"]), (&json!(index), text));
        assert!(best["score"].as_f64().unwrap() > 0.999, "{best}");
    }
}

#[tokio::test]
async fn a_cursor_walks_through_the_chunks_of_a_file_each_once() {
    let app = TestApp::spawn().await;
    let product = app.product().await;
    let text: String = (0..40)
        .map(|number| format!("Rule {number} is about the number {number}. ").repeat(25) + "\n\n")
        .collect();
    let file = app.text_file(&product, "rules.txt", &text).await;
    let count = app.wait_ready(&file).await["chunks"].as_u64().unwrap();
    assert!(count > 10, "{count}");
    let path = format!("/api/knowledge-base/storage/file/{file}/chunks");
    let all = app.get(&format!("{path}?limit=1000")).await.expect_status(200).data().clone();
    assert_eq!(all.as_array().unwrap().len() as u64, count);

    let mut walked = Vec::new();
    let mut next = format!("{path}?pageSize=4");
    loop {
        let page = app.get(&next).await.expect_status(200);
        assert_eq!(page.body["pagination"]["total"], count, "{page:?}");
        walked.extend(page.data().as_array().unwrap().clone());
        let Some(cursor) = page.body["pagination"]["cursor"].as_str() else { break };
        assert_eq!(walked.len() % 4, 0, "only the last page is short");
        let links = page.header("link").to_owned();
        assert!(links.contains(&format!("cursor={cursor}>; rel=\"next\"")), "{links}");
        next = format!("{path}?pageSize=4&cursor={cursor}");
    }
    assert_eq!(json!(walked), all);

    // From wherever a page by its number ends.
    let second = app.get(&format!("{path}?pageSize=3&page=2")).await.expect_status(200);
    let cursor = second.body["pagination"]["cursor"].as_str().unwrap();
    let third = app.get(&format!("{path}?pageSize=2&cursor={cursor}")).await.expect_status(200);
    assert_eq!(third.data(), &json!(all.as_array().unwrap()[6..8]));

    app.get(&format!("{path}?cursor=nonsense")).await.expect_problem(400, "invalid_parameters");
}

#[tokio::test]
async fn one_products_files_do_not_hold_up_anothers() {
    let app = TestApp::spawn().await;
    let (busy, other) = (app.product().await, app.product().await);
    let text = "A sentence of the long file that somebody uploads. ".repeat(300);
    let mut files = Vec::new();
    for number in 0..40 {
        files.push(
            app.text_file(&busy, &format!("{number}.txt"), &format!("{number} {text}")).await,
        );
    }
    let small = app.text_file(&other, "small.txt", "It is short.").await;
    app.wait_ready(&small).await;
    let path = format!("/api/knowledge-base/storage/{}?status=processing", busy.knowledge_base);
    let waiting = app.get(&path).await.expect_status(200);
    let waiting = waiting.data().as_array().unwrap().len();
    assert!(waiting > 20, "{waiting} files wait: the other product's had to wait for most");
}

#[tokio::test]
async fn a_file_that_comes_before_its_product_waits_in_the_data_directory() {
    let mut app = TestApp::spawn_with(&[("TMPDIR", "/nowhere/at/all")]).await;
    let product = app.product().await;
    let form = Form::new().part("file", part("early.txt", "The gate opens at six."));

    let reply = send(&app, form.text("product_id", product.id.clone())).await.expect_status(202);
    let id = reply.data()[0]["id"].as_str().unwrap();
    let path = format!("/api/knowledge-base/storage/file/{id}/download");
    assert_eq!(app.get(&path).await.expect_status(200).text(), "The gate opens at six.");

    let spool = app.data_dir().join("spool");
    assert_eq!(std::fs::read_dir(&spool).unwrap().count(), 0);
    std::fs::write(spool.join("left-by-a-crash"), "bytes").unwrap();
    app.restart();
    assert_eq!(std::fs::read_dir(&spool).unwrap().count(), 0);
}
