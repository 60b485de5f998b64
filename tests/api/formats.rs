//! Files of every format, made by other programs, from the upload to the passage that a search finds; and files made to harm
//! whoever reads them.
//!
//! The samples and the commands that made them are in `embeddings/tests/files`.

use std::io::{Cursor, Write};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipWriter};

use crate::support::{Product, TestApp, eventually, workspace};

const SEARCH: &str = "/api/knowledge-base/embeddings";

/// What the operating system knows of no file.
const ANY: &str = "application/octet-stream";

fn sample(name: &str) -> Vec<u8> {
    let path = workspace().join("embeddings/tests/files").join(name);
    std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

async fn upload(app: &TestApp, product: &Product, name: &str, bytes: &[u8]) -> String {
    let reply = app.upload(&product.knowledge_base, &[(name, ANY, bytes)]).await;
    reply.expect_status(202).data()[0]["id"].as_str().unwrap().to_owned()
}

/// The best passage for a question.
async fn best(app: &TestApp, product: &Product, question: &str) -> Value {
    let question = json!({ "query": question, "product_id": product.id, "limit": 1 });
    app.post(SEARCH, question).await.expect_status(200).data()[0].clone()
}

/// How a file ends that cannot be read.
async fn fault(app: &TestApp, product: &Product, name: &str, bytes: &[u8]) -> String {
    let id = upload(app, product, name, bytes).await;
    let file = app.wait_ended(&id, "failed").await;
    assert!(file["error"]["message"].as_str().unwrap().len() > 20, "{file}");
    file["error"]["code"].as_str().unwrap().to_owned()
}

/// The processes that read files for a server: its children, as this kernel lists them.
fn workers(server: u32) -> Vec<u32> {
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    let ids = processes.filter_map(|process| process.file_name().to_str()?.parse::<u32>().ok());
    ids.filter(|id| {
        let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
        let after = stat.rsplit_once(')').map_or("", |(_, after)| after);
        after.split_whitespace().nth(1).and_then(|parent| parent.parse().ok()) == Some(server)
    })
    .collect()
}

/// Writes a part of an archive.
type Part<'a> = &'a dyn Fn(&mut dyn Write);

/// An archive of parts; each is written by a closure, piece by piece.
fn archive(parts: &[(&str, Part<'_>)]) -> Vec<u8> {
    let mut archive = ZipWriter::new(Cursor::new(Vec::new()));
    let deflated = SimpleFileOptions::default().compression_method(CompressionMethod::Deflated);
    for (name, write) in parts {
        archive.start_file(*name, deflated.large_file(true)).unwrap();
        write(&mut archive);
    }
    archive.finish().unwrap().into_inner()
}

fn content_types(kind: &str) -> String {
    let kind = format!("application/vnd.openxmlformats-officedocument.{kind}.main+xml");
    format!("<Types><Override PartName=\"/part.xml\" ContentType=\"{kind}\"/></Types>")
}

/// A DOCX whose text is so many times the same megabyte.
fn swollen_docx(before: &str, megabyte: &str, count: usize) -> Vec<u8> {
    let types = content_types("wordprocessingml.document");
    let block = megabyte.repeat((1 << 20) / megabyte.len());
    archive(&[
        ("[Content_Types].xml", &|part| part.write_all(types.as_bytes()).unwrap()),
        ("word/document.xml", &|part| {
            write!(part, "<w:document xmlns:w=\"w\"><w:body>{before}").unwrap();
            (0..count).for_each(|_| part.write_all(block.as_bytes()).unwrap());
            write!(part, "</w:body></w:document>").unwrap();
        }),
    ])
}

/// A PDF of one page, which draws what is in `streams`: each a form called by its number from 0; the first is the page itself.
fn pdf(streams: &[String]) -> Vec<u8> {
    let forms: String =
        (0..streams.len()).map(|number| format!("/F{number} {} 0 R ", number + 4)).collect();
    let resources = format!("<< /XObject << {forms} >> >>");
    let mut objects = vec![
        "<< /Type /Catalog /Pages 2 0 R >>".to_owned(),
        "<< /Type /Pages /Kids [3 0 R] /Count 1 >>".to_owned(),
        format!(
            "<< /Type /Page /Parent 2 0 R /MediaBox [0 0 100 100] /Contents 4 0 R /Resources {resources} >>"
        ),
    ];
    objects.extend(streams.iter().map(|stream| {
        format!(
            "<< /Type /XObject /Subtype /Form /BBox [0 0 100 100] /Resources {resources} /Length {} >>\nstream\n{stream}\nendstream",
            stream.len()
        )
    }));
    let mut file = "%PDF-1.7\n".to_owned();
    let mut places = Vec::new();
    for (number, object) in objects.iter().enumerate() {
        places.push(file.len());
        file += &format!("{} 0 obj\n{object}\nendobj\n", number + 1);
    }
    let start = file.len();
    file += &format!("xref\n0 {}\n0000000000 65535 f \n", objects.len() + 1);
    places.iter().for_each(|place| file += &format!("{place:010} 00000 n \n"));
    file += &format!(
        "trailer\n<< /Size {} /Root 1 0 R >>\nstartxref\n{start}\n%%EOF\n",
        objects.len() + 1
    );
    file.into_bytes()
}

#[tokio::test]
async fn a_sentence_is_found_in_every_format_with_its_place() {
    let app = TestApp::spawn().await;
    let leave = "How many days of paid leave does a keeper have?";
    let storms = "Who climbs the outer ladder when the wind is strong?";
    for (name, question, text, place) in [
        ("handbook.txt", leave, "twenty-six days", json!({})),
        ("handbook.latin1.txt", storms, "Größe", json!({})),
        ("handbook.utf16.txt", storms, "Größe", json!({})),
        ("handbook.md", leave, "twenty-six days", json!({})),
        ("handbook.html", leave, "twenty-six days", json!({})),
        ("handbook.chromium.html", leave, "twenty-six days", json!({})),
        ("handbook.json", leave, "twenty-six", json!({})),
        ("handbook.xml", leave, "twenty-six days", json!({})),
        ("handbook.pdf", leave, "twenty-six days", json!({ "page": 1 })),
        ("handbook.pdf", storms, "nobody climbs", json!({ "page": 2 })),
        ("handbook.chromium.pdf", storms, "nobody climbs", json!({ "page": 2 })),
        ("handbook.owner-password.pdf", storms, "nobody climbs", json!({ "page": 2 })),
        ("handbook.docx", storms, "nobody climbs", json!({})),
        ("handbook.pandoc.docx", storms, "nobody climbs", json!({})),
        (
            "slides.pptx",
            "When does the bread come?",
            "every Thursday",
            json!({ "page": 3, "heading": "Supplies" }),
        ),
        (
            "slides.pandoc.pptx",
            "Was the lift built?",
            "Notes: Say that the lift",
            json!({ "page": 2, "heading": "The tower" }),
        ),
        ("crew.csv", "Who is the cook?", "Name: Tomás", json!({ "row_start": 2, "row_end": 3 })),
        ("crew.tsv", "Who is the cook?", "Name: Tomás", json!({ "row_start": 2, "row_end": 3 })),
        ("crew.jsonl", "Who is the cook?", "Name: Tomás", json!({ "row_start": 1, "row_end": 2 })),
        (
            "stores.xlsx",
            "Who is the cook?",
            "Post: Cook",
            json!({ "sheet": "Crew", "row_start": 2, "row_end": 3 }),
        ),
        (
            "stores.xls",
            "Is the rapeseed oil sealed?",
            "Amount: 340",
            json!({ "sheet": "Stores", "row_end": 5 }),
        ),
        (
            "stores.ods",
            "Is the rapeseed oil sealed?",
            "Bought on: 2026-03-09",
            json!({ "sheet": "Stores", "row_end": 5 }),
        ),
    ] {
        let product = app.product().await;
        let id = upload(&app, &product, name, &sample(name)).await;
        let file = app.wait_ready(&id).await;

        let hit = best(&app, &product, question).await;

        assert!(hit["text"].as_str().unwrap().contains(text), "{name}: {hit}");
        for (key, value) in place.as_object().unwrap() {
            assert_eq!(&hit["metadata"][key], value, "{name}: {hit}");
        }
        // The listing of the file says the same of that chunk.
        let path = format!("/api/knowledge-base/storage/file/{id}/chunks?limit=1000");
        let listed = app.get(&path).await.expect_status(200);
        assert_eq!(listed.body["pagination"]["total"], file["chunks"]);
        let chunk = &listed.data()[hit["chunk_index"].as_u64().unwrap() as usize];
        for key in ["chunk_index", "text", "char_start", "char_end"] {
            assert_eq!(chunk[key], hit[key], "{name}: {chunk}");
        }
        for key in ["heading", "headings", "page", "sheet", "row_start", "row_end", "table_header"]
        {
            assert_eq!(chunk[key], hit["metadata"][key], "{name}: {chunk}");
        }
    }
}

#[tokio::test]
async fn a_long_document_keeps_its_headings_in_every_chunk() {
    let app = TestApp::spawn().await;
    let product = app.product().await;
    let part = |number: usize| {
        let text = format!("Sentence of part {number}, to be read slowly. ").repeat(60);
        format!("<h2>Part {number}</h2><p>{text}</p>")
    };
    let page: String = (0..4).map(part).collect();
    let page = format!("<html><body><h1>All parts</h1>{page}</body></html>");
    let id = upload(&app, &product, "parts.html", page.as_bytes()).await;
    app.wait_ready(&id).await;

    let path = format!("/api/knowledge-base/storage/file/{id}/chunks");
    let chunks = app.get(&path).await.expect_status(200);

    let chunks = chunks.data().as_array().unwrap();
    assert!(chunks.len() > 4, "{chunks:?}");
    for chunk in &chunks[1..] {
        let heading = chunk["heading"].as_str().unwrap();
        assert_eq!(chunk["headings"], json!(["All parts", heading]));
        let number = heading.strip_prefix("Part ").unwrap();
        let text = chunk["text"].as_str().unwrap().to_lowercase();
        assert!(text.contains(&format!("part {number}")), "{chunk}");
    }
}

#[tokio::test]
async fn rows_of_a_long_markdown_table_are_found_by_its_header_and_stand_where_they_say() {
    let app = TestApp::spawn().await;
    let product = app.product().await;
    let rows: String = (0..300).map(|row| format!("| sailor {row} | berth {row} |\n")).collect();
    let text = format!("# Größe\n\n| Seafarer | Bunk |\n| --- | --- |\n{rows}\nThat is all.\n");
    let id = upload(&app, &product, "crew.md", text.as_bytes()).await;
    app.wait_ready(&id).await;

    let path = format!("/api/knowledge-base/storage/file/{id}/chunks?limit=1000");
    let chunks = app.get(&path).await.expect_status(200);

    let chunks = chunks.data().as_array().unwrap();
    assert!(chunks.len() > 5, "{chunks:?}");
    let characters: Vec<char> = text.chars().collect();
    for (index, chunk) in chunks.iter().enumerate() {
        let at = |name: &str| chunk[name].as_u64().unwrap() as usize;
        let said: String = characters[at("char_start")..at("char_end")].iter().collect();
        assert_eq!(chunk["text"], said);
        let is_within = index > 0 && index + 1 < chunks.len();
        let header = if is_within { json!("| Seafarer | Bunk |") } else { Value::Null };
        assert_eq!(chunk["table_header"], header, "{chunk}");
        assert!(!is_within || said.lines().all(|row| row.starts_with("| ") && row.ends_with(" |")));
    }
    // What stands in the header alone finds the rows below it.
    let question =
        json!({ "query": "bunk of seafarer 299", "product_id": product.id, "mode": "full_text" });
    let found = app.post(SEARCH, question).await.expect_status(200);
    let last = found.data().as_array().unwrap().iter();
    let last: Vec<_> = last.filter(|hit| hit["text"].as_str().unwrap().contains("299")).collect();
    assert_eq!(last[0]["metadata"]["table_header"], "| Seafarer | Bunk |");
    assert!(found.data().as_array().unwrap().len() > 5, "every chunk of the table has these words");
}

#[tokio::test]
async fn what_no_one_can_read_says_why() {
    let app = TestApp::spawn().await;
    let product = app.product().await;
    for (name, bytes, code) in [
        ("notes.txt", sample("handbook.pdf"), "media_type_mismatch"),
        ("report.docx", sample("stores.xlsx"), "media_type_mismatch"),
        ("locked.pdf", sample("handbook.password.pdf"), "password_protected"),
        ("locked.docx", sample("handbook.password.docx"), "password_protected"),
        ("locked.xlsx", sample("stores.password.xlsx"), "password_protected"),
        ("locked.ods", sample("stores.password.ods"), "password_protected"),
        ("old.doc", sample("handbook.doc"), "unsupported_format"),
        ("torn.pdf", b"%PDF-1.7 and nothing else".to_vec(), "malformed"),
        ("torn.docx", sample("handbook.docx")[..4000].to_vec(), "media_type_mismatch"),
        ("scan.pdf", pdf(&["0 0 10 10 re f".to_owned()]), "no_text_layer"),
        ("deep.html", "<div>".repeat(200_000).into_bytes(), "malformed"),
        ("deep.xml", "<a>".repeat(200_000).into_bytes(), "malformed"),
        ("deep.json", "[".repeat(200_000).into_bytes(), "malformed"),
    ] {
        assert_eq!(fault(&app, &product, name, &bytes).await, code, "{name}");
    }
}

#[tokio::test]
async fn a_file_made_to_harm_its_reader_fails_with_a_reason_while_the_server_serves() {
    let app = TestApp::spawn_with(&[
        ("PRODGY_EXTRACTION_SECONDS", "4"),
        ("PRODGY_EXTRACTION_MEMORY_BYTES", "134217728"),
        ("PRODGY_EXTRACTION_OUTPUT_BYTES", "1048576"),
    ])
    .await;
    let product = app.product().await;
    let megabyte = |text: &str| text.repeat((1 << 20) / text.len());

    // A bomb: one word of a quarter of a gigabyte.
    let bomb = swollen_docx("<w:p><w:r><w:t>", "a", 1 << 8);
    assert!(bomb.len() < 1 << 20);
    assert_eq!(fault(&app, &product, "bomb.docx", &bomb).await, "too_much_memory");
    // Paragraphs of nothing, for longer than anybody waits.
    let endless = swollen_docx("", "<w:p></w:p>", 128);
    assert_eq!(fault(&app, &product, "endless.docx", &endless).await, "took_too_long");
    // More text than there may be.
    let long = swollen_docx("", "<w:p><w:r><w:t>word</w:t></w:r></w:p>", 16);
    assert_eq!(fault(&app, &product, "long.docx", &long).await, "too_much_text");
    // Forms that draw the next one twice, thirty times over.
    let forms: Vec<String> =
        (0..40).map(|number| format!("/F{0} Do /F{0} Do", number + 1)).collect();
    assert_eq!(fault(&app, &product, "loop.pdf", &pdf(&forms)).await, "took_too_long");
    // Ten million rows.
    let types = content_types("spreadsheetml.sheet");
    let relation = "http://schemas.openxmlformats.org/officeDocument/2006/relationships";
    let sheet = archive(&[
        ("[Content_Types].xml", &|part| part.write_all(types.as_bytes()).unwrap()),
        ("xl/workbook.xml", &|part| {
            write!(part, "<workbook xmlns:r=\"{relation}\"><sheets><sheet name=\"Rows\" sheetId=\"1\" r:id=\"r1\"/></sheets></workbook>").unwrap();
        }),
        ("xl/_rels/workbook.xml.rels", &|part| {
            write!(part, "<Relationships><Relationship Id=\"r1\" Type=\"{relation}/worksheet\" Target=\"worksheets/sheet1.xml\"/></Relationships>").unwrap();
        }),
        ("xl/worksheets/sheet1.xml", &|part| {
            write!(part, "<worksheet><sheetData>").unwrap();
            let rows = "<row><c><v>1</v></c></row>".repeat(10_000);
            (0..1_000).for_each(|_| part.write_all(rows.as_bytes()).unwrap());
            write!(part, "</sheetData></worksheet>").unwrap();
        }),
    ]);
    let code = fault(&app, &product, "rows.xlsx", &sheet).await;
    assert!(["too_much_text", "took_too_long"].contains(&code.as_str()), "{code}");
    // Names that are repeated.
    let csv = format!("{}\n{}", megabyte("name "), "1\n".repeat(100));
    assert_eq!(fault(&app, &product, "names.csv", csv.as_bytes()).await, "too_much_text");

    // What is cut for longer than it may be: one word of brackets, which may belong to a special token of the model: so every
    // passage of it is counted anew at every look.
    let word = "[a]b".repeat(250_000);
    assert_eq!(fault(&app, &product, "word.md", word.as_bytes()).await, "took_too_long");

    // The server never stopped, and reads on.
    let id = upload(&app, &product, "handbook.pdf", &sample("handbook.pdf")).await;
    app.wait_ready(&id).await;
    assert!(workers(app.process_id()).is_empty(), "a worker is left");
}

#[tokio::test]
async fn a_worker_sees_nothing_but_its_file() {
    let app = TestApp::spawn().await;
    let product = app.product().await;
    let slow = swollen_docx("", "<w:p></w:p>", 128);
    let id = upload(&app, &product, "slow.docx", &slow).await;
    let worker = eventually("no worker was started", async || {
        let worker = workers(app.process_id()).first().copied()?;
        // It has bound itself when it can open nothing more.
        let limits = std::fs::read_to_string(format!("/proc/{worker}/limits")).ok()?;
        let files = limits.lines().find(|line| line.starts_with("Max open files"))?;
        files.contains(" 3 ").then_some((worker, limits))
    });
    let (worker, limits) = worker.await;

    let environment = std::fs::read_to_string(format!("/proc/{worker}/environ")).unwrap();
    assert!(!environment.contains("PRODGY"), "{environment}");
    let command = std::fs::read_to_string(format!("/proc/{worker}/cmdline")).unwrap();
    assert_eq!(command, "prodgy\0extract-worker\0");
    for bound in ["Max core file size", "Max file size"] {
        let line = limits.lines().find(|line| line.starts_with(bound)).unwrap();
        assert!(line.split_whitespace().rev().nth(1) == Some("0"), "{line}");
    }
    assert!(!limits.lines().any(|line| line.starts_with("Max address space  unlimited")));
    let open = std::fs::read_dir(format!("/proc/{worker}/fd")).unwrap().count();
    assert_eq!(open, 3);

    // It crashes as a reader does that runs into what is no code. (A signal for bad memory that comes from
    // outside is taken for a stack that overflowed, and looked at first.)
    let crash = std::process::Command::new("kill").args(["-ILL", &worker.to_string()]).status();
    assert!(crash.unwrap().success());
    let file = app.wait_ended(&id, "failed").await;
    assert_eq!(file["error"]["code"], "reader_crashed", "{file}");
}

#[tokio::test]
async fn a_worker_ends_with_its_server_and_the_file_is_read_after_the_next_start() {
    let mut app = TestApp::spawn().await;
    let product = app.product().await;
    // It takes a while.
    let sentence = "<w:p><w:r><w:t>The gate opens at nine.</w:t></w:r></w:p>";
    let slow = swollen_docx(sentence, "<w:p></w:p>", 24);
    let id = upload(&app, &product, "slow.docx", &slow).await;
    let server = app.process_id();
    let worker = eventually("no worker was started", async || workers(server).first().copied());
    let worker = worker.await;

    app.kill();

    let gone = Instant::now();
    while std::path::Path::new(&format!("/proc/{worker}/fd/0")).exists() {
        assert!(gone.elapsed() < Duration::from_secs(5), "the worker outlived its server");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    app.start();
    let file = app.wait_ready(&id).await;
    assert_eq!(file["chunks"], 1, "{file}");
    let hit = best(&app, &product, "When does the gate open?").await;
    assert_eq!(hit["file_id"], id.as_str());
    let indexed = app.get("/api/events?type=file.indexed.v1").await.expect_status(200);
    assert_eq!(indexed.data().as_array().unwrap().len(), 1, "it was indexed twice");
}
