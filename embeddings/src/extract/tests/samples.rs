//! Files that other programs made.

use super::*;

/// What every format makes of the handbook.
fn is_the_handbook(name: &str, bytes: &[u8]) -> Document {
    let document = extract(name, None, bytes).unwrap_or_else(|error| panic!("{name}: {error}"));
    for sentence in [
        "Keepers may take twenty-six days of paid leave each year. Leave is asked for in the logbook",
        "The lamp burns rapeseed oil and turns once in ten seconds.",
        "Put the lamp out and wait for half an hour.",
        "Naïve visitors are kept inside; the Größe of a wave is no excuse.",
    ] {
        assert!(document.text.contains(sentence), "{name}: {}", document.text);
    }
    document
}

/// The landmarks, each with the text that begins there.
fn signs(document: &Document) -> Vec<(Landmark, &str)> {
    let line = |at: usize| document.text[at..].lines().next().unwrap_or_default();
    document.landmarks.iter().map(|(at, landmark)| (landmark.clone(), line(*at))).collect()
}

fn markdown_headings(document: &Document) -> Vec<(u8, String)> {
    assert!(document.markdown);
    let headings = crate::chunk::headings(&document.text);
    headings.into_iter().map(|heading| (heading.level, heading.text)).collect()
}

const SECTIONS: [(u8, &str); 6] = [
    (1, "Working here"),
    (2, "Leave"),
    (2, "Wages"),
    (1, "The lamp"),
    (2, "Cleaning"),
    (2, "Storms"),
];

const WAGES: &str =
    "Post: Assistant\nWage per month: 2,400 euros\nPaid on: the fifteenth\n\nPost: Cook";

#[test]
fn texts_of_every_encoding() {
    for (name, bytes) in [
        ("handbook.latin1.txt", sample!("handbook.latin1.txt")),
        ("handbook.utf16.txt", sample!("handbook.utf16.txt")),
        ("handbook.txt", sample!("handbook.txt")),
        ("handbook.md", sample!("handbook.md")),
    ] {
        is_the_handbook(name, bytes);
    }
}

#[test]
fn pages_of_pandoc_libreoffice_and_a_browser() {
    for (name, bytes) in [
        ("handbook.html", sample!("handbook.html")),
        ("handbook.libreoffice.html", sample!("handbook.libreoffice.html")),
        ("handbook.chromium.html", sample!("handbook.chromium.html")),
    ] {
        let document = is_the_handbook(name, bytes);
        assert_eq!(document.title.as_deref(), Some("Handbook of the Lighthouse"), "{name}");
        let headings = markdown_headings(&document);
        let sections = headings.iter().map(|(level, text)| (*level, text.as_str()));
        assert!(sections.clone().collect::<Vec<_>>().ends_with(&SECTIONS), "{name}: {headings:?}");
        assert!(document.text.contains(WAGES), "{name}: {}", document.text);
    }
}

#[test]
fn word_documents_of_libreoffice_and_pandoc() {
    for (name, bytes) in [
        ("handbook.docx", sample!("handbook.docx")),
        ("handbook.pandoc.docx", sample!("handbook.pandoc.docx")),
    ] {
        let document = is_the_handbook(name, bytes);
        assert_eq!(document.title.as_deref(), Some("Handbook of the Lighthouse"), "{name}");
        let headings = markdown_headings(&document);
        assert_eq!(headings[0], (1, "Handbook of the Lighthouse".to_owned()), "{name}");
        let sections: Vec<_> =
            headings[1..].iter().map(|(level, text)| (*level, text.as_str())).collect();
        assert_eq!(sections, SECTIONS, "{name}");
        assert!(document.text.contains(WAGES), "{name}: {}", document.text);
        assert!(document.text.contains("- Wipe each lens with vinegar"), "{name}");
    }
}

#[test]
fn pdfs_of_libreoffice_and_a_browser_keep_their_pages() {
    for (name, bytes) in [
        ("handbook.pdf", sample!("handbook.pdf")),
        ("handbook.chromium.pdf", sample!("handbook.chromium.pdf")),
        // It may be read by everybody, only not printed.
        ("handbook.owner-password.pdf", sample!("handbook.owner-password.pdf")),
    ] {
        let document = is_the_handbook(name, bytes);
        assert_eq!(document.title.as_deref(), Some("Handbook of the Lighthouse"), "{name}");
        let signs = signs(&document);
        let pages: Vec<_> =
            signs.iter().filter(|(sign, _)| matches!(sign, Landmark::Page(_))).collect();
        assert_eq!(
            pages,
            [&(Landmark::Page(1), "Handbook of the Lighthouse"), &(Landmark::Page(2), "The lamp")],
            "{name}"
        );
        let headings: Vec<_> = signs
            .iter()
            .filter_map(|(sign, line)| match sign {
                Landmark::Heading(level, text) => {
                    assert_eq!(text, line, "{name}");
                    Some((*level, text.as_str()))
                }
                _ => None,
            })
            .collect();
        // The title may be larger than the highest headings are.
        let shift = headings[1].0 - 1;
        let sections: Vec<_> =
            headings[1..].iter().map(|(level, text)| (level - shift, *text)).collect();
        assert_eq!(sections, SECTIONS, "{name}");
    }
}

#[test]
fn slides_of_libreoffice_and_pandoc_come_in_their_order() {
    for (name, bytes) in [
        ("slides.pptx", sample!("slides.pptx")),
        ("slides.pandoc.pptx", sample!("slides.pandoc.pptx")),
    ] {
        let document = extract(name, None, bytes).unwrap();
        assert_eq!(
            document.text,
            "# The lighthouse in three slides\n\n\
             # The tower\n\nForty-one metres high\nTwo hundred and seven steps\n\n\
             Notes: Say that the lift was never built.\n\n\
             # Supplies\n\nGood: Oil\nArrives: every Monday\n\nGood: Bread\nArrives: every Thursday\n\n\
             # Visitors\n\nChildren under twelve climb only with a keeper.",
            "{name}"
        );
        assert_eq!(
            signs(&document),
            [
                (Landmark::Page(1), "# The lighthouse in three slides"),
                (Landmark::Page(2), "# The tower"),
                (Landmark::Page(3), "# Supplies"),
                (Landmark::Page(4), "# Visitors"),
            ],
            "{name}"
        );
    }
}

#[test]
fn workbooks_of_libreoffice_keep_sheets_rows_and_headings() {
    for (name, bytes) in [
        ("stores.xlsx", sample!("stores.xlsx")),
        ("stores.xls", sample!("stores.xls")),
        ("stores.ods", sample!("stores.ods")),
    ] {
        let document = extract(name, None, bytes).unwrap();
        assert_eq!(
            document.text,
            "Stores\n\nWhat lies in the stores\n\n\
             Good: Rapeseed oil\nAmount: 340\nBought on: 2026-03-09\nSealed: 1\n\n\
             Good: Wick, cotton\nAmount: 12.5\nBought on: 2026-04-21\nSealed: 0\n\n\
             Crew\n\n\
             Name: Ingeborg Größl\nPost: Head keeper\nSteps climbed: 621\n\n\
             Name: Tomás Ibáñez\nPost: Cook\nSteps climbed: 0",
            "{name}"
        );
        assert_eq!(
            signs(&document),
            [
                (Landmark::Sheet("Stores".into()), "Stores"),
                (Landmark::Row(1), "What lies in the stores"),
                (Landmark::Row(4), "Good: Rapeseed oil"),
                (Landmark::Row(5), "Good: Wick, cotton"),
                (Landmark::Sheet("Crew".into()), "Crew"),
                (Landmark::Row(2), "Name: Ingeborg Größl"),
                (Landmark::Row(3), "Name: Tomás Ibáñez"),
            ],
            "{name}"
        );
    }
}

#[test]
fn tables_and_records_keep_their_names() {
    let crew = "Name: Ingeborg Größl\nPost: Head keeper\nSteps climbed: 621\n\n\
                Name: Tomás Ibáñez\nPost: Cook\nSteps climbed: 0";
    for (name, bytes, first) in [
        ("crew.csv", sample!("crew.csv"), 2),
        ("crew.tsv", sample!("crew.tsv"), 2),
        ("crew.jsonl", sample!("crew.jsonl"), 1),
    ] {
        let document = extract(name, None, bytes).unwrap();
        assert_eq!(document.text, crew, "{name}");
        let rows = [
            (Landmark::Row(first), "Name: Ingeborg Größl"),
            (Landmark::Row(first + 1), "Name: Tomás Ibáñez"),
        ];
        assert_eq!(signs(&document), rows, "{name}");
    }
    let docbook = is_the_handbook("handbook.xml", sample!("handbook.xml"));
    assert!(
        docbook.landmarks.iter().any(|(_, sign)| *sign == Landmark::Heading(3, "Storms".into()))
    );
    let json = extract("handbook.json", None, sample!("handbook.json")).unwrap();
    assert!(json.text.contains(": rapeseed\n"), "{}", json.text);
}

#[test]
fn what_is_under_a_password_says_so() {
    for (name, bytes) in [
        ("handbook.password.pdf", sample!("handbook.password.pdf")),
        ("handbook.password.docx", sample!("handbook.password.docx")),
        ("stores.password.xlsx", sample!("stores.password.xlsx")),
        ("stores.password.ods", sample!("stores.password.ods")),
    ] {
        assert_eq!(code_of(name, None, bytes), "password_protected", "{name}");
    }
}

#[test]
fn the_content_decides_where_nothing_else_does() {
    let pdf = extract("report", Some("application/octet-stream"), sample!("handbook.pdf"));
    assert!(pdf.unwrap().landmarks.contains(&(0, Landmark::Page(1))));
    let book = extract("book.xlsx", Some("application/zip"), sample!("stores.xlsx"));
    assert!(book.unwrap().text.starts_with("Stores"));
    let book = extract("book.xls", Some("application/vnd.ms-excel"), sample!("stores.xls"));
    assert!(book.unwrap().text.starts_with("Stores"));
}
