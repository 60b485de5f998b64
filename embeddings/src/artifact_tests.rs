//! What is stored comes back, or is refused.

use super::*;
use crate::chunk::Place;

fn artifact() -> Artifact {
    let text = "Größe 🦊\n\nzweiter Absatz".to_owned();
    let chunk = |index, text: &str, char_start, char_end, heading: Option<&str>| Chunk {
        index,
        text: text.to_owned(),
        char_start,
        char_end,
        place: Place {
            headings: heading.iter().map(|it| (*it).to_owned()).collect(),
            ..Place::default()
        },
    };
    Artifact {
        revision: "abc".to_owned(),
        chunker_version: "1".to_owned(),
        chunks: vec![
            chunk(0, "Größe 🦊", 0, 7, None),
            chunk(1, "zweiter Absatz", 9, 23, Some("Kopf")),
        ],
        text,
        vectors: vec![vec![0.5, -0.25, f32::MIN_POSITIVE], vec![1.0, 0.0, -0.0]],
    }
}

#[test]
fn an_artifact_comes_back_as_it_was() {
    assert_eq!(Artifact::decode(&artifact().encode()).unwrap(), artifact());
    let empty =
        Artifact { text: String::new(), chunks: Vec::new(), vectors: Vec::new(), ..artifact() };
    assert_eq!(Artifact::decode(&empty.encode()).unwrap(), empty);
}

#[test]
fn an_artifact_cut_off_anywhere_or_altered_anywhere_is_refused() {
    let bytes = artifact().encode();
    for length in 0..bytes.len() {
        assert!(Artifact::decode(&bytes[..length]).is_err(), "cut off after {length} bytes");
        let mut altered = bytes.clone();
        altered[length] ^= 0x20;
        assert!(Artifact::decode(&altered).is_err(), "byte {length} altered");
    }
    assert!(Artifact::decode(&[bytes, vec![0]].concat()).is_err());
}

#[test]
fn offsets_outside_the_text_are_refused_even_with_a_good_checksum() {
    let mut artifact = artifact();
    artifact.chunks[1].char_end = 24;
    assert!(Artifact::decode(&artifact.encode()).is_err());
    artifact.chunks.reverse();
    assert!(Artifact::decode(&artifact.encode()).is_err());
}

#[test]
fn the_name_tells_what_an_artifact_is_made_of() {
    assert_eq!(Artifact::name("c0ffee", "1", "beef"), "c0ffee-1-beef");
}

#[test]
fn an_artifact_of_the_first_chunker_keeps_its_heading() {
    let head = r#"{"revision":"r","chunker_version":"1","dimensions":1,"text":"a b","chunks":[{"start":0,"end":3,"heading":"Kopf"}]}"#;
    let mut bytes = FORMAT.to_vec();
    bytes.extend((head.len() as u64).to_le_bytes());
    bytes.extend(head.as_bytes());
    bytes.extend(1.0_f32.to_le_bytes());
    let digest = Sha256::digest(&bytes);
    bytes.extend(digest);
    let read = Artifact::decode(&bytes).unwrap();
    assert_eq!(read.chunks[0].place.headings, ["Kopf"]);
}
