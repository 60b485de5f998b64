//! The cutting itself, with words in place of tokens; the real tokenizer is in `tests/model`.

use proptest::prelude::*;

use super::*;

/// Counts words.
struct Words;

impl ChunkSizer for Words {
    fn size(&self, text: &str) -> usize {
        text.split_whitespace().count()
    }
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
