//! A thousand uploads at once: the server's memory stays bounded, nothing that was answered is lost, and
//! a product with one small file does not wait for the thousand.

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::support::{Product, TestApp, eventually};

/// How many uploads, and how long each of them is: three quarters of a gigabyte, were it kept in memory.
const UPLOADS: usize = 1_000;
const LENGTH: usize = 768 * 1024;

/// What the server may need more of at its peak, with all of them, than before: four fifths of the bytes that are
/// sent. What it does need is the same for files of any length: half a megabyte for each request, in a build for
/// tests, if all of them are at work at once.
const MORE_KILOBYTES: u64 = 600 * 1024;

/// How many of the thousand may be read before the small one: a few are at work when it comes, in turn
/// with it.
const MAY_BE_BEFORE: u64 = 100;

/// An upload whose last byte was not sent yet.
async fn begin(app: &TestApp, product: &Product, number: usize) -> TcpStream {
    let address = app.base().trim_start_matches("http://").to_owned();
    let field = |name: &str| format!("--edge\r\ncontent-disposition: form-data; name=\"{name}\"");
    let before = format!(
        "{}\r\n\r\n{}\r\n{}; filename=\"{number}.txt\"\r\ncontent-type: text/plain\r\n\r\n",
        field("knowledge_base_id"),
        product.knowledge_base,
        field("file"),
    );
    // The text ends with its last word: what is long is the upload, not what is read of it.
    let text = format!("Number {number} is the number of a lamp in the harbour.");
    let file = format!("{text}{}", "\n".repeat(LENGTH - text.len()));
    let body = format!("{before}{file}\r\n--edge--\r\n");
    let head = format!(
        "POST /api/knowledge-base/storage/upload HTTP/1.1\r\nhost: {address}\r\nauthorization: Bearer {}\r\n\
         content-type: multipart/form-data; boundary=edge\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
        app.owner().credential(),
        body.len(),
    );
    let mut stream = TcpStream::connect(&address).await.unwrap();
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.write_all(&body.as_bytes()[..body.len() - 1]).await.unwrap();
    stream
}

/// Sends the last byte. Answers the file's id.
async fn end(mut stream: TcpStream) -> String {
    stream.write_all(b"\n").await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 202"), "{answer}");
    let body: Value = serde_json::from_str(body).unwrap_or_else(|_| panic!("{answer}"));
    body["data"][0]["id"].as_str().unwrap().to_owned()
}

/// A line of what the system says of the server's memory.
fn kilobytes(app: &TestApp, name: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", app.process_id())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
    line.trim_start_matches(':').trim().trim_end_matches(" kB").parse().unwrap()
}

/// The bytes of the files that the server has open where uploads wait for their end.
fn waiting_bytes(app: &TestApp) -> u64 {
    let spool = app.data_dir().join("spool").canonicalize().unwrap();
    let open = std::fs::read_dir(format!("/proc/{}/fd", app.process_id())).unwrap();
    let open = open.flatten().map(|entry| entry.path());
    open.filter(|path| std::fs::read_link(path).is_ok_and(|target| target.starts_with(&spool)))
        .filter_map(|path| std::fs::metadata(path).ok())
        .map(|file| file.len())
        .sum()
}

async fn count(app: &TestApp, product: &Product, status: &str) -> u64 {
    let base = &product.knowledge_base;
    let path = format!("/api/knowledge-base/storage/{base}?status={status}&pageSize=1");
    let reply = app.get(&path).await.expect_status(200);
    reply.body["pagination"]["total"].as_u64().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_uploads_at_once_are_bounded_in_memory_and_fair() {
    let app = TestApp::spawn().await;
    let (large, small) = (app.product().await, app.product().await);
    // The model is loaded and was used.
    let first = app.text_file(&large, "first.txt", "The first one of them all.").await;
    app.wait_ready(&first).await;
    assert!(app.finds(&large, "Which was the first?", "The first one of them all.").await);
    let before = kilobytes(&app, "VmRSS");

    let uploads = (0..UPLOADS).map(|number| begin(&app, &large, number));
    let uploads = futures::future::join_all(uploads).await;
    let all = (UPLOADS * LENGTH) as u64;
    // What is not in a file by now is in the network's buffers, or in memory.
    eventually("the uploads do not wait in files", async || {
        (waiting_bytes(&app) > all * 9 / 10).then_some(())
    })
    .await;
    let ends = uploads.into_iter().map(|stream| tokio::spawn(end(stream)));
    let answers = futures::future::join_all(ends).await;
    let files: Vec<String> = answers.into_iter().map(Result::unwrap).collect();

    let read_before = count(&app, &large, "ready").await;
    let other = app.text_file(&small, "small.txt", "A short note on tides.").await;
    app.wait_ready(&other).await;
    let read = count(&app, &large, "ready").await;
    assert!(read - read_before <= MAY_BE_BEFORE, "{read_before} files were read, then {read}");
    assert!(count(&app, &large, "processing").await > 0, "nothing was left to wait for");

    // It goes on with them, and none of them is lost.
    eventually("no more of the files are read", async || {
        (count(&app, &large, "ready").await > read).then_some(())
    })
    .await;
    let (ready, waiting) = (count(&app, &large, "ready"), count(&app, &large, "processing"));
    let (waiting, ready) = (waiting.await, ready.await);
    assert!(waiting + ready > UPLOADS as u64, "{waiting} wait, {ready} are read");
    let peak = kilobytes(&app, "VmHWM");
    assert!(peak < before + MORE_KILOBYTES, "{before} kB before, {peak} kB at the peak");
    for number in [0, UPLOADS / 2, UPLOADS - 1] {
        let path = format!("/api/knowledge-base/storage/file/{}", files[number]);
        let file = app.get(&path).await.expect_status(200);
        assert_eq!(file.data()["size"], LENGTH, "{file:?}");
    }
}
