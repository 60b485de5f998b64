//! The cutting itself, with words in place of tokens; the real tokenizer is in `tests/model`.

use std::cell::Cell;
use std::convert::Infallible;

use proptest::prelude::*;
use text_splitter::{ChunkConfig, MarkdownSplitter, TextSplitter};

use super::*;

/// Counts words.
struct Words;

impl ChunkSizer for Words {
    fn size(&self, text: &str) -> usize {
        text.split_whitespace().count()
    }
}

fn split(document: &Document, capacity: usize, sizer: Words) -> Vec<Chunk> {
    let Ok(chunks) = super::split(document, capacity, &sizer, &|| Ok::<_, Infallible>(()));
    chunks
}

fn document(text: &str, markdown: bool) -> Document {
    Document { text: text.to_owned(), markdown, ..Document::default() }
}

#[test]
fn a_text_that_fits_is_one_chunk_without_the_space_around_it() {
    let chunks = split(&document("\n  Größe of a\n\nfox \n", false), 4, Words);
    assert_eq!(
        chunks,
        [Chunk {
            index: 0,
            text: "Größe of a\n\nfox".to_owned(),
            char_start: 3,
            char_end: 18,
            place: Place::default(),
        }]
    );
}

#[test]
fn chunks_carry_the_heading_they_stand_under() {
    let markdown = "intro words here\n\n# One `x`\n\na b c d\n\n## Two\n\ne f g h\n\ni j k l\n";
    let chunks = split(&document(markdown, true), 5, Words);
    let carried: Vec<_> = chunks
        .iter()
        .map(|chunk| (chunk.text.as_str(), chunk.place.headings.last().map(String::as_str)))
        .collect();
    assert_eq!(
        carried,
        [
            ("intro words here", None),
            ("# One `x`", Some("One x")),
            ("a b c d", Some("One x")),
            ("## Two", Some("Two")),
            ("e f g h", Some("Two")),
            ("i j k l", Some("Two")),
        ]
    );
}

#[test]
fn nothing_but_white_space_is_no_chunk() {
    assert_eq!(split(&document(" \n\t", true), 5, Words), []);
}

#[test]
fn no_chunk_reaches_across_a_page_and_each_knows_its_own() {
    let text = "Title\n\na b\n\nPart\n\nc d\n\nLater\n\ne f";
    let at = |word: &str| text.find(word).unwrap();
    let document = Document {
        text: text.to_owned(),
        landmarks: vec![
            (0, Landmark::Page(1)),
            (0, Landmark::Heading(1, "Title".into())),
            (at("Part"), Landmark::Page(2)),
            (at("Part"), Landmark::Heading(2, "Part".into())),
            (at("Later"), Landmark::Heading(2, "Later".into())),
        ],
        ..Document::default()
    };
    let chunks = split(&document, 3, Words);
    let places: Vec<_> = chunks
        .iter()
        .map(|chunk| (chunk.text.as_str(), chunk.place.page, chunk.place.headings.join(" > ")))
        .collect();
    assert_eq!(
        places,
        [
            ("Title\n\na b", Some(1), "Title".to_owned()),
            ("Part\n\nc d", Some(2), "Title > Part".to_owned()),
            ("Later\n\ne f", Some(2), "Title > Later".to_owned()),
        ]
    );
}

#[test]
fn chunks_of_sheets_know_their_rows() {
    let text = "One\n\na: 1\n\na: 2\n\na: 3\n\nTwo\n\nb: 4";
    let at = |word: &str| text.find(word).unwrap();
    let document = Document {
        text: text.to_owned(),
        landmarks: vec![
            (0, Landmark::Sheet("One".into())),
            (at("a: 1"), Landmark::Row(2)),
            (at("a: 2"), Landmark::Row(3)),
            (at("a: 3"), Landmark::Row(7)),
            (at("Two"), Landmark::Sheet("Two".into())),
            (at("b: 4"), Landmark::Row(2)),
        ],
        ..Document::default()
    };
    let chunks = split(&document, 5, Words);
    let places: Vec<_> = chunks
        .iter()
        .map(|chunk| (chunk.text.as_str(), chunk.place.sheet.as_deref(), chunk.place.rows))
        .collect();
    assert_eq!(
        places,
        [
            ("One\n\na: 1\n\na: 2", Some("One"), Some((2, 3))),
            ("a: 3", Some("One"), Some((7, 7))),
            ("Two\n\nb: 4", Some("Two"), Some((2, 2))),
        ]
    );
}

#[test]
fn cutting_ends_as_soon_as_it_may_not_go_on() {
    let text = "> one two three\n\n".repeat(1000);
    for markdown in [false, true] {
        let asked = Cell::new(0);
        let may_go_on = || {
            asked.set(asked.get() + 1);
            if asked.get() == 100 { Err("too long") } else { Ok(()) }
        };
        let cut = super::split(&document(&text, markdown), 5, &Words, &may_go_on);
        assert_eq!((cut, asked.get()), (Err("too long"), 100));
    }
}

#[test]
fn a_markdown_text_of_many_megabytes_keeps_its_headings() {
    let chapter = |number: usize| format!("# {number}\n\n{}\n\n", "word ".repeat(1 << 10));
    let text: String = (0..1000).map(chapter).collect();
    assert!(text.len() > 5_000_000);
    let chunks = split(&document(&text, true), 1100, Words);
    let headings: Vec<_> = chunks.iter().map(|chunk| chunk.place.headings.join(" > ")).collect();
    assert_eq!(headings, (0..1000).map(|number| number.to_string()).collect::<Vec<_>>());
}

/// What chunks hold, with the header that each carries.
fn carried(chunks: &[Chunk]) -> Vec<(&str, Option<&str>)> {
    chunks.iter().map(|chunk| (chunk.text.as_str(), chunk.place.table_header.as_deref())).collect()
}

#[test]
fn a_heading_without_end_is_not_carried_whole_by_each_of_its_chunks() {
    let text = format!("# {}\n\na b c", "ä ".repeat(MOST_OF_HEADING));
    let chunks = split(&document(&text, true), 100, Words);
    let longest =
        chunks.iter().flat_map(|chunk| &chunk.place.headings).map(|it| it.chars().count());
    assert_eq!(longest.max(), Some(MOST_OF_HEADING));
}

#[test]
fn rows_of_a_table_that_was_cut_carry_its_header_and_what_leads_to_it_stays_with_the_first() {
    let text = "# Crew\n\nWho sails.\n\n| Name | Duty |\n|---|---|\n| Tomás | cook |\n| Ada | helm |\n| Bo | sails |\n\nThat is all.";
    let chunks = split(&document(text, true), 16, Words);
    assert_eq!(
        carried(&chunks),
        [
            ("# Crew\n\nWho sails.", None),
            ("| Name | Duty |\n|---|---|\n| Tomás | cook |", None),
            ("| Ada | helm |\n| Bo | sails |", Some("| Name | Duty |")),
            ("That is all.", None),
        ]
    );
    let chunks = split(&document(text, true), 20, Words);
    assert_eq!(
        carried(&chunks),
        [
            ("# Crew\n\nWho sails.\n\n| Name | Duty |\n|---|---|\n| Tomás | cook |", None),
            ("| Ada | helm |\n| Bo | sails |", Some("| Name | Duty |")),
            ("That is all.", None),
        ]
    );
    assert_eq!(chunks[1].passage(), "| Name | Duty |\n| Ada | helm |\n| Bo | sails |");
    assert_eq!(chunks[2].passage(), "That is all.");
}

#[test]
fn a_row_that_does_not_fit_is_cut_and_a_header_that_takes_all_the_room_is_carried_by_none() {
    let text = "| A | B |\n|---|---|\n| one two three four five six | seven |\n| 1 | 2 |";
    let chunks = split(&document(text, true), 12, Words);
    assert_eq!(
        carried(&chunks),
        [
            ("| A | B |\n|---|---|", None),
            ("| one two three four five six", Some("| A | B |")),
            ("| seven |", Some("| A | B |")),
            ("| 1 | 2 |", Some("| A | B |")),
        ]
    );
    let chunks = split(&document(text, true), 9, Words);
    assert!(chunks.iter().all(|chunk| chunk.place.table_header.is_none()));
}

#[test]
fn a_table_and_a_listing_longer_than_a_window_end_where_they_do() {
    let row = |number: usize| format!("| {number} | row |\n");
    let rows: String = (0..400).map(row).collect();
    let text = format!(
        "# Tables\n\n| Number | Word |\n|---|---|\n{rows}\n# Listing\n\n```sh\n{}```\n\n# End\n\nlast",
        "# no heading, but a remark\n\n".repeat(100),
    );
    let chunks = by(500, &document(&text, true), 30);
    for chunk in &chunks {
        let under = chunk.place.headings.join(" > ");
        let is_row = chunk.text.starts_with("| ") && !chunk.text.contains("Number");
        assert_eq!(chunk.place.table_header.is_some(), is_row, "{}", chunk.text);
        if is_row {
            assert_eq!(under, "Tables");
            assert!(chunk.text.lines().all(|line| line.ends_with("| row |")));
        }
        if chunk.text.contains("remark") {
            assert_eq!(under, "Listing");
        }
    }
    let last = chunks.last().unwrap();
    assert_eq!((last.text.as_str(), last.place.headings.join("")), ("# End\n\nlast", "End".into()));
}

#[test]
fn a_table_that_ends_where_a_window_does_takes_nothing_in_that_follows() {
    let rows = "| 1 | row |\n".repeat(40);
    let table = format!("| Number | Word |\n|---|---|\n{rows}\n");
    let text = format!("{table}No row at all, and a text of its own.\n\nAnother.");
    for window in table.len() - 14..table.len() + 3 {
        let chunks = by(window, &document(&text, true), 20);
        let after: Vec<_> = chunks.iter().filter(|chunk| !chunk.text.contains('|')).collect();
        assert_eq!(after.len(), 1, "window {window}: {:?}", carried(&chunks));
        assert_eq!(after[0].text, "No row at all, and a text of its own.\n\nAnother.");
        assert_eq!(after[0].place.table_header, None);
    }
}

/// The chunks of a document that is cut by windows of so many bytes.
fn by(window: usize, document: &Document, capacity: usize) -> Vec<Chunk> {
    let go_on = || Ok::<_, Infallible>(());
    let Ok(chunks) = super::split_by(window, document, capacity, &Words, &go_on);
    chunks
}

/// What the splitter makes of the whole, as it was before there were windows.
fn unwindowed(text: &str, markdown: bool, capacity: usize) -> Vec<(usize, &str)> {
    let config = ChunkConfig::new(capacity).with_sizer(Words);
    match (Words.size(text) <= capacity, markdown) {
        (true, _) if text.trim().is_empty() => Vec::new(),
        (true, _) => vec![(text.len() - text.trim_start().len(), text.trim())],
        (false, true) => MarkdownSplitter::new(config).chunk_indices(text).collect(),
        (false, false) => TextSplitter::new(config).chunk_indices(text).collect(),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn a_chunk_is_the_documents_characters_between_its_offsets(
        text in "([a-zäß🦊東]{1,6}|[#*>`-]|[ \n]|\r\n|\n\n# |\\. |&amp;|<b>|\n\n\\| a \\| b \\|\n\\|-\\|-\\|\n|\\| [cd]{1,3} \\| e \\|\n|```\n){0,120}",
        markdown: bool,
        capacity in 1_usize..20,
        window in prop_oneof![Just(WINDOW), 1_usize..200],
    ) {
        let chunks = by(window, &document(&text, markdown), capacity);
        let characters: Vec<char> = text.chars().collect();
        let mut end = 0;
        let mut covered = 0;
        for (place, chunk) in chunks.iter().enumerate() {
            prop_assert_eq!(chunk.index as usize, place);
            let slice: String = characters[chunk.char_start as usize..chunk.char_end as usize].iter().collect();
            prop_assert_eq!(&chunk.text, &slice);
            prop_assert!(chunk.char_start >= end, "chunks overlap");
            prop_assert!(Words.size(&chunk.passage()) <= capacity);
            end = chunk.char_end;
            covered += chunk.text.chars().filter(|character| !character.is_whitespace()).count();
        }
        prop_assert_eq!(covered, characters.iter().filter(|character| !character.is_whitespace()).count(), "nothing is lost");
    }

    #[test]
    fn a_text_of_one_window_without_a_long_table_is_cut_as_it_always_was(
        text in "([a-zäß🦊東]{1,6}|[#*>`-]|[ \n]|\r\n|\n\n# |\\. |&amp;|<b>){0,120}",
        markdown: bool,
        capacity in 1_usize..20,
    ) {
        let chunks = split(&document(&text, markdown), capacity, Words);
        let before = unwindowed(&text, markdown, capacity);
        let character = |byte: usize| text[..byte].chars().count() as u64;
        let before: Vec<_> = before.into_iter().map(|(at, text)| (character(at), text)).collect();
        let now: Vec<_> = chunks.iter().map(|it| (it.char_start, it.text.as_str())).collect();
        prop_assert_eq!(now, before);
    }
}
