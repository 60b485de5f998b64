//! Files as people send them, and files that are not what they say.

use super::*;

/// A file that another program made; `embeddings/tests/files/make` says which, and how.
macro_rules! sample {
    ($name:literal) => {
        include_bytes!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/files/", $name)).as_slice()
    };
}

#[path = "tests/samples.rs"]
mod samples;

const LIMIT: usize = 1 << 20;

fn extract(
    file_name: &str,
    media_type: Option<&str>,
    bytes: &[u8],
) -> Result<Document, ExtractError> {
    super::extract(file_name, media_type, bytes, LIMIT)
}

fn text_of(file_name: &str, bytes: &[u8]) -> String {
    extract(file_name, None, bytes).unwrap().text
}

fn code_of(file_name: &str, media_type: Option<&str>, bytes: &[u8]) -> &'static str {
    extract(file_name, media_type, bytes).unwrap_err().code()
}

#[test]
fn text_stays_as_it_is() {
    let document =
        extract("notes.txt", Some("text/plain; charset=utf-8"), "Grüße,\r\n  Welt\n".as_bytes())
            .unwrap();
    assert_eq!(document, Document { text: "Grüße,\r\n  Welt\n".to_owned(), ..Document::default() });
}

#[test]
fn markdown_stays_as_it_is_and_has_its_first_heading_for_a_title() {
    let markdown = "---\n\n```\n# no heading\n```\n## Part\n\nThe `real` Title\n===\n\ntext";
    let document = extract("README.MD", None, markdown.as_bytes()).unwrap();
    assert_eq!(
        (document.text.as_str(), document.markdown, document.title.as_deref()),
        (markdown, true, Some("The real Title"))
    );
}

#[test]
fn html_becomes_what_a_reader_sees() {
    let html = "<!doctype html><html><head><title> The Guide </title><style>p {}</style><script>alert('boo')</script></head>\
        <body><h1>Install</h1><p>Use <b>cargo</b> &amp; wait.</p><ul><li>one</li><li>two</li></ul><noscript>no</noscript>\
        <table><tr><th>a</th><th>b</th></tr><tr><td>1</td><td>2</td></tr></table><button>Click</button></body></html>";
    let document = extract("guide.html", Some("text/html"), html.as_bytes()).unwrap();
    assert_eq!(document.title.as_deref(), Some("The Guide"));
    assert!(document.markdown);
    assert!(
        document.text.starts_with("# Install\n\nUse **cargo** & wait.\n\n*   one\n*   two"),
        "{}",
        document.text
    );
    assert!(document.text.ends_with("a: 1\nb: 2"), "{}", document.text);
    for unseen in ["alert", "p {}", "Click", "The Guide"] {
        assert!(!document.text.contains(unseen), "{unseen} in {}", document.text);
    }
}

#[test]
fn a_page_nested_to_overflow_the_stack_is_refused() {
    for depth in [300, 200_000] {
        assert_eq!(code_of("bomb.html", None, "<div>".repeat(depth).as_bytes()), "malformed");
    }
    assert_eq!(
        text_of(
            "deep.html",
            format!("{}deep{}", "<div>".repeat(240), "</div>".repeat(240)).as_bytes()
        ),
        "deep"
    );
}

#[test]
fn rows_of_a_table_keep_their_headings() {
    let csv = "name,role,\nAda,\"Countess, of\nLovelace\",x\n\nAlan,,\nGrace,Admiral,,extra\n";
    assert_eq!(
        text_of("people.csv", csv.as_bytes()),
        "name: Ada\nrole: Countess, of\nLovelace\nx\n\nname: Alan\n\nname: Grace\nrole: Admiral\nextra"
    );
    assert_eq!(
        text_of("people.tsv", b"name\tcity\nAda\tLondon, UK"),
        "name: Ada\ncity: London, UK"
    );
    assert_eq!(text_of("german.csv", "Name;Größe\nAda;1,65".as_bytes()), "Name: Ada\nGröße: 1,65");
    assert_eq!(text_of("headings.csv", b"name,role"), "name\nrole");
}

#[test]
fn json_becomes_lines_in_the_order_of_the_document() {
    let json = r#"{"title": "T", "z": {"b": [1, -2.5, true, null, {"k": "v"}]}, "a": "two\nlines", "empty": "", "none": {}}"#;
    assert_eq!(
        text_of("d.json", json.as_bytes()),
        "title: T\nz.b[0]: 1\nz.b[1]: -2.5\nz.b[2]: true\nz.b[4].k: v\na: two\nlines"
    );
    assert_eq!(
        text_of("list.json", br#"[{"n": 1, "m": 2}, {"n": 3}]"#),
        "[0].n: 1\n[0].m: 2\n\n[1].n: 3"
    );
    assert_eq!(text_of("one.json", b"\"just a string\""), "just a string");
    assert_eq!(text_of("log.jsonl", b"{\"n\": 1}\n\n{\"n\": 2}\n"), "n: 1\n\nn: 2");
}

#[test]
fn broken_json_is_refused_with_its_place() {
    let error = extract("d.json", None, b"{\"a\": 1,\n \"b\": }").unwrap_err();
    assert_eq!(error.code(), "malformed");
    assert!(error.to_string().contains("line 2 column 7"), "{error}");
    let error = extract("d.ndjson", None, b"{}\n{\"a\"").unwrap_err();
    assert!(error.to_string().contains("in line 2 of the file"), "{error}");
    assert_eq!(code_of("d.json", None, b"{} {}"), "malformed");
    assert_eq!(code_of("d.json", None, "[".repeat(100_000).as_bytes()), "malformed");
}

#[test]
fn a_file_that_lies_about_its_type_is_refused() {
    let png = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR";
    for (file_name, media_type, bytes) in [
        ("notes.txt", None, &png[..]),
        ("notes.txt", Some("text/plain"), &b"%PDF-1.7\n..."[..]),
        ("notes.md", None, b"PK\x03\x04\x14\0"),
        ("notes.txt", None, sample!("handbook.pdf")),
        ("report.pdf", None, b"just words"),
        ("report.docx", None, sample!("stores.xlsx")),
        ("stores.xlsx", None, sample!("stores.xls")),
        ("stores.xls", None, sample!("stores.ods")),
        ("report.pdf", Some("application/pdf"), sample!("handbook.docx")),
        ("data.json", Some("application/json"), b"<!DOCTYPE html><html></html>"),
        ("data.csv", None, b"\n<html><body>Sign in</body></html>"),
        ("page.html", Some("application/json"), b"<p>hello</p>"),
        ("page.html", None, b"{\"not\": \"html\"}"),
        ("notes.txt", Some("image/png"), b"hello"),
    ] {
        assert_eq!(
            code_of(file_name, media_type, bytes),
            "media_type_mismatch",
            "{file_name} {media_type:?}"
        );
    }
}

#[test]
fn browsers_media_types_are_understood() {
    for (file_name, media_type) in [
        ("people.csv", "application/vnd.ms-excel"),
        ("people.csv", "text/plain"),
        ("notes.md", "text/plain;charset=UTF-8"),
        ("notes.txt", "application/octet-stream"),
        ("log.jsonl", "application/json"),
        ("LICENSE", ""),
        ("main.rs", "text/x-rust"),
        ("unnamed", "text/markdown"),
    ] {
        let bytes: &[u8] = if file_name.ends_with("jsonl") { b"{\"a\": 1}" } else { b"a,b\n1,2" };
        assert!(extract(file_name, Some(media_type), bytes).is_ok(), "{file_name} {media_type}");
    }
}

#[test]
fn what_cannot_be_read_says_so() {
    let error = extract("handbook.doc", None, sample!("handbook.doc")).unwrap_err();
    assert_eq!(error.code(), "unsupported_format");
    assert!(error.to_string().contains("an old Word document (DOC)"), "{error}");
    let error = extract("handbook.odt", None, sample!("handbook.odt")).unwrap_err();
    assert!(error.to_string().contains("an OpenDocument text (ODT)"), "{error}");
    assert_eq!(code_of("song.xyz", None, b"la la"), "unsupported_format");
    assert_eq!(code_of("some.zip", Some("application/zip"), b"PK\x05\x06"), "unsupported_format");
}

#[test]
fn other_encodings_are_read_and_damaged_ones_refused() {
    assert_eq!(text_of("latin1.txt", b"Gr\xfc\xdfe aus M\xfcnchen"), "Grüße aus München");
    // The media type knows better than a guess.
    let cyrillic =
        extract("a.txt", Some("text/plain; charset=KOI8-R"), b"\xd0\xd2\xc9\xd7\xc5\xd4");
    assert_eq!(cyrillic.unwrap().text, "привет");
    let page =
        b"<html><head><meta charset='windows-1251'></head><p>\xef\xf0\xe8\xe2\xe5\xf2</p></html>";
    assert_eq!(text_of("page.html", page), "привет");
    // What began as UTF-8 is UTF-8.
    assert_eq!(
        extract("torn.txt", None, b"Gr\xc3\xbc\xdfe").unwrap_err(),
        ExtractError::NotUtf8 { offset: 4 }
    );
    assert_eq!(
        extract("zero.txt", None, b"abc\0def").unwrap_err(),
        ExtractError::NotText { offset: 3 }
    );
    assert_eq!(code_of("binary.txt", None, b"\x01\x02\xff\x00\x03"), "not_text");
    assert_eq!(text_of("bom.txt", b"\xef\xbb\xbfhello"), "hello");
    let units: Vec<u16> = "Grüße 🦊".encode_utf16().collect();
    let little: Vec<u8> =
        [0xff, 0xfe].into_iter().chain(units.iter().flat_map(|unit| unit.to_le_bytes())).collect();
    let big: Vec<u8> =
        [0xfe, 0xff].into_iter().chain(units.iter().flat_map(|unit| unit.to_be_bytes())).collect();
    assert_eq!(text_of("little.txt", &little), "Grüße 🦊");
    assert_eq!(text_of("big.txt", &big), "Grüße 🦊");
    assert_eq!(code_of("odd.txt", None, &little[..little.len() - 1]), "not_utf8");
    assert_eq!(code_of("half.txt", None, &little[..little.len() - 2]), "not_utf8");
}

#[test]
fn no_format_makes_more_text_than_it_may() {
    let heading = "h".repeat(1000);
    let rows = "1\n".repeat(2000);
    for (file_name, bytes) in [
        ("a.txt", "a".repeat(LIMIT + 1)),
        ("a.md", "a".repeat(LIMIT + 1)),
        ("a.html", format!("<p>{}</p>", "a".repeat(LIMIT + 1))),
        // Names repeated by the file's own size are more than the file is.
        ("a.csv", format!("{heading}\n{rows}")),
        ("a.json", format!("{{\"{heading}\": [{}1]}}", "1,".repeat(2000))),
        ("a.xml", format!("<a>{}</a>", "<b>word</b>".repeat(200_000))),
    ] {
        assert_eq!(code_of(file_name, None, bytes.as_bytes()), "too_much_text", "{file_name}");
    }
}

#[test]
fn xml_keeps_the_names_of_what_it_holds() {
    let xml = r#"<?xml version="1.0"?><!DOCTYPE catalog [<!ENTITY x SYSTEM "file:///etc/passwd">]>
        <catalog xmlns="urn:c"><book id="b1"><title>Dune &amp; more</title><author>Frank Herbert</author>
        <about>A <b>great</b> book.</about><empty/></book>
        <book id="b2"><title>Emma</title><note><![CDATA[1 < 2]]> &x;</note></book></catalog>"#;
    let document = extract("books.xml", Some("application/xml"), xml.as_bytes()).unwrap();
    assert_eq!(
        document.text,
        "book id: b1\ntitle: Dune & more\nauthor: Frank Herbert\nA great book.\n\n\
         book id: b2\ntitle: Emma\nnote: 1 < 2 &x;"
    );
    assert_eq!(document.title.as_deref(), Some("Dune & more"));
    let headings: Vec<_> = document.landmarks.iter().map(|(_, landmark)| landmark).collect();
    assert_eq!(
        headings,
        [&Landmark::Heading(2, "Dune & more".into()), &Landmark::Heading(2, "Emma".into())]
    );
    assert_eq!(code_of("feed.xml", Some("text/xml"), b"<?xml version=\"1.0\"?><a/>"), "empty");
    assert_eq!(code_of("cut.xml", None, b"<a><b>text</b>"), "malformed");
    assert_eq!(code_of("bomb.xml", None, "<a>".repeat(100_000).as_bytes()), "malformed");
    assert_eq!(code_of("no.xml", None, b"just words"), "media_type_mismatch");
}

#[test]
fn why_xml_cannot_be_read_repeats_nothing_of_it() {
    for xml in ["<a><b>text</canary></a>", "<canary><b>text</canary>"] {
        let error = extract("x.xml", None, xml.as_bytes()).unwrap_err();
        assert_eq!(error.code(), "malformed");
        let told = error.to_string();
        assert!(told.contains("at byte") && !told.contains("canary"), "{told}");
    }
}

#[test]
fn a_file_without_text_is_refused() {
    for (file_name, bytes) in [
        ("a.txt", &b""[..]),
        ("a.txt", b" \n\t\r\n "),
        ("a.md", b"\n"),
        ("a.html", b"<html><script>x</script></html>"),
        ("a.csv", b",,\n,,"),
        ("a.json", b"{\"a\": null}"),
        ("a.jsonl", b"\n\n"),
    ] {
        assert_eq!(code_of(file_name, None, bytes), "empty", "{file_name} {bytes:?}");
    }
}
