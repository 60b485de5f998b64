//! What is written is read again, whatever cut the writing off; and nothing damaged is taken for whole.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::path::Path;

use serde_json::json;
use uuid::Uuid;

use super::writer::part_of;
use super::*;

/// Everything that was read.
#[derive(Debug, Default, PartialEq)]
struct Seen {
    events: Vec<String>,
    objects: BTreeMap<String, Vec<u8>>,
}

impl Visitor for Seen {
    fn event(&mut self, event: RecordedEvent) -> anyhow::Result<()> {
        self.events.push(event.to_canonical());
        Ok(())
    }

    fn object(&mut self, name: &str, _: u64, body: &mut dyn Read) -> anyhow::Result<()> {
        let mut bytes = Vec::new();
        body.read_to_end(&mut bytes)?;
        self.objects.insert(name.to_owned(), bytes);
        Ok(())
    }
}

fn event(position: u64) -> RecordedEvent {
    let id = Uuid::from_u128(position.into());
    let canonical = json!({
        "actor": "system:test", "command": id, "correlation": id, "data": { "n": position }, "id": id,
        "organization": id, "position": position, "schema": 1, "sequence": 1,
        "stream": format!("thing-{position}"), "time": "2026-11-26T00:00:00.000000Z", "type": "thing.made.v1",
    });
    RecordedEvent::from_canonical(&canonical.to_string()).unwrap()
}

fn objects() -> Vec<(String, Vec<u8>)> {
    let long = format!("artifacts/{}/{}", "a".repeat(100), "b".repeat(200));
    let mut objects = vec![("keys/master.json".into(), b"{}".to_vec()), (long, vec![7; 3_000])];
    objects
        .extend((0_u8..6).map(|n| (format!("blobs/product/{n}"), vec![n; 300 * usize::from(n)])));
    objects
}

/// Writes what is still missing, and stops before an object, if it is told to.
fn write(path: &Path, sync_every: u64, stop_before: usize) -> anyhow::Result<Option<Summary>> {
    let mut writer = Writer::open(path, Header::new(Position(50), true), sync_every)?;
    for first in [1, 21, 41] {
        let missing = (first..first + 20).filter(|n| *n <= 50 && Position(*n) > writer.last());
        writer.events(&missing.map(event).collect::<Vec<_>>())?;
    }
    for (place, (name, bytes)) in objects().into_iter().enumerate() {
        if place == stop_before {
            return Ok(None);
        }
        if !writer.has(&name) {
            writer.object(&name, bytes.len() as u64, bytes.as_slice())?;
        }
    }
    writer.finish().map(Some)
}

fn expected() -> Seen {
    Seen {
        events: (1..=50).map(|n| event(n).to_canonical()).collect(),
        objects: objects().into_iter().collect(),
    }
}

#[test]
fn what_is_written_is_read_again() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("export.tar");

    let summary = write(&path, SYNC_EVERY, usize::MAX).unwrap().unwrap();

    let mut seen = Seen::default();
    let archive = read(&path, &mut seen).unwrap();
    assert_eq!(seen, expected());
    assert_eq!(archive.summary, summary);
    assert_eq!((summary.events.count, summary.events.last), (50, Position(50)));
    assert_eq!((summary.keys.objects, summary.blobs.objects, summary.artifacts.objects), (1, 6, 1));
    assert!(!part_of(&path).exists());
    let refused = write(&path, SYNC_EVERY, usize::MAX).unwrap_err();
    assert!(refused.to_string().contains("is there already"), "{refused}");
}

#[test]
fn the_first_archive_that_was_ever_written_is_still_read() {
    let golden =
        Path::new(&std::env::var("CARGO_MANIFEST_DIR").unwrap()).join("golden/export.v1.tar");
    if !golden.exists() {
        write(&golden, SYNC_EVERY, usize::MAX).unwrap();
        panic!("{} was missing and is written: look at it, and commit it", golden.display());
    }
    let mut seen = Seen::default();
    read(&golden, &mut seen).unwrap();
    assert_eq!(seen, expected());
}

#[test]
fn writing_goes_on_wherever_it_was_cut_off() {
    let folder = tempfile::tempdir().unwrap();
    let whole = folder.path().join("whole.tar");
    write(&whole, 2_048, usize::MAX).unwrap();
    let whole = fs::read(whole).unwrap();
    for cut in (0..whole.len()).step_by(777).chain([whole.len()]) {
        let path = folder.path().join(format!("{cut}.tar"));
        // What was not synced may be anything after a power cut.
        let mut part = whole[..cut].to_vec();
        let unsynced = cut.saturating_sub(2_048);
        part[unsynced..].fill(0);
        fs::write(part_of(&path), part).unwrap();

        write(&path, 2_048, 5).unwrap();
        write(&path, 2_048, usize::MAX).unwrap();

        let mut seen = Seen::default();
        read(&path, &mut seen).unwrap();
        assert_eq!(seen, expected(), "cut off after {cut} bytes");
    }
}

#[test]
fn a_file_that_is_not_whole_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("export.tar");
    write(&path, SYNC_EVERY, usize::MAX).unwrap();
    let whole = fs::read(&path).unwrap();
    // The two empty blocks at the end of a tar file may be missing.
    for cut in (0..whole.len() - 1_024).step_by(991) {
        fs::write(&path, &whole[..cut]).unwrap();
        assert!(read(&path, &mut Seen::default()).is_err(), "the first {cut} bytes");
    }
}

#[test]
fn a_changed_byte_is_noticed_or_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("export.tar");
    write(&path, SYNC_EVERY, usize::MAX).unwrap();
    let whole = fs::read(&path).unwrap();
    for place in (0..whole.len()).step_by(89) {
        let mut changed = whole.clone();
        changed[place] ^= 0x41;
        fs::write(&path, &changed).unwrap();
        let mut seen = Seen::default();
        // Padding, and fields of tar that nobody reads, may be changed.
        if read(&path, &mut seen).is_ok() {
            assert_eq!(seen, expected(), "byte {place} was changed");
        }
    }
}

#[test]
fn another_format_and_another_file_are_told_apart() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("export.tar");
    fs::write(&path, b"no archive at all").unwrap();
    let refused = read(&path, &mut Seen::default()).unwrap_err();
    assert!(format!("{refused:#}").contains("no export"), "{refused:#}");

    let mut tar = tar::Builder::new(Vec::new());
    let text = br#"{"format":"prodgy-export/2","new":1}"#;
    let mut header = tar::Header::new_gnu();
    header.set_size(text.len() as u64);
    tar.append_data(&mut header, HEADER, text.as_slice()).unwrap();
    fs::write(&path, tar.into_inner().unwrap()).unwrap();
    let refused = read(&path, &mut Seen::default()).unwrap_err();
    assert!(format!("{refused:#}").contains("upgrade prodgy"), "{refused:#}");
}
