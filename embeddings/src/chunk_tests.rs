//! The cutting itself, with words in place of tokens; the real tokenizer is in `tests/model`.

use std::cell::Cell;
use std::convert::Infallible;

use proptest::prelude::*;

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
fn a_markdown_text_of_many_megabytes_is_cut_as_plain_text() {
    let line = "word ".repeat(1 << 10);
    let text = format!("# One\n\n{}", line.repeat(LARGEST_MARKDOWN / line.len() + 1));
    let chunks = split(&document(&text, true), 1 << 19, Words);
    assert!(chunks.iter().all(|chunk| chunk.place.headings.is_empty()));
    let chunks = split(&document(&text[..LARGEST_MARKDOWN], true), 1 << 19, Words);
    assert!(chunks.iter().all(|chunk| chunk.place.headings == ["One"]));
}

#[test]
fn a_heading_without_end_is_not_carried_whole_by_each_of_its_chunks() {
    let text = format!("# {}\n\na b c", "ä ".repeat(MOST_OF_HEADING));
    let chunks = split(&document(&text, true), 100, Words);
    let longest =
        chunks.iter().flat_map(|chunk| &chunk.place.headings).map(|it| it.chars().count());
    assert_eq!(longest.max(), Some(MOST_OF_HEADING));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn a_chunk_is_the_documents_characters_between_its_offsets(
        text in "([a-zäß🦊東]{1,6}|[#*>`-]|[ \n]|\r\n|\n\n# |\\. |&amp;|<b>){0,120}",
        markdown: bool,
        capacity in 1_usize..20,
    ) {
        let chunks = split(&document(&text, markdown), capacity, Words);
        let characters: Vec<char> = text.chars().collect();
        let mut end = 0;
        let mut covered = 0;
        for (place, chunk) in chunks.iter().enumerate() {
            prop_assert_eq!(chunk.index as usize, place);
            let slice: String = characters[chunk.char_start as usize..chunk.char_end as usize].iter().collect();
            prop_assert_eq!(&chunk.text, &slice);
            prop_assert!(chunk.char_start >= end, "chunks overlap");
            prop_assert!(Words.size(&chunk.text) <= capacity);
            end = chunk.char_end;
            covered += chunk.text.chars().filter(|character| !character.is_whitespace()).count();
        }
        prop_assert_eq!(covered, characters.iter().filter(|character| !character.is_whitespace()).count(), "nothing is lost");
    }
}
