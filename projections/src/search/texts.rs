//! The texts of the files that can be found, in a file without a name: a search shows ten passages, so
//! a hundred thousand need not lie in memory.
//!
//! The rule of this file: nothing in it outlives the process, and the room of a text that is removed is
//! given back at once.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use rustix::fs::{FallocateFlags, fallocate};

use crate::Error;

/// Texts of files, one after the other.
pub(super) struct Texts {
    file: File,
    end: u64,
}

/// Where a text lies.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    start: u64,
    length: u64,
}

impl Texts {
    /// None yet, in a folder that has room.
    pub(super) fn new(folder: &Path) -> Result<Texts, Error> {
        std::fs::create_dir_all(folder)?;
        Ok(Texts { file: tempfile::tempfile_in(folder)?, end: 0 })
    }

    /// Adds a text.
    pub(super) fn add(&mut self, text: &str) -> Result<Place, Error> {
        let place = Place { start: self.end, length: text.len() as u64 };
        self.file.write_all_at(text.as_bytes(), place.start)?;
        self.end += place.length;
        Ok(place)
    }

    /// Removes a text.
    pub(super) fn remove(&mut self, place: Place) {
        if place.length == 0 {
            return;
        }
        if place.start + place.length == self.end {
            self.end = place.start;
        }
        let hole = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        // A file system without holes keeps the room until the process ends.
        if let Err(error) = fallocate(&self.file, hole, place.start, place.length) {
            tracing::debug!(%error, "the room of a removed text is not given back");
        }
    }

    /// A part of a text, in bytes.
    pub(super) fn part(&self, place: Place, start: usize, end: usize) -> Result<String, Error> {
        let length = end.checked_sub(start).filter(|_| end as u64 <= place.length);
        let length = length.ok_or_else(|| Error::Unfit("a chunk lies outside its text".into()))?;
        let mut bytes = vec![0; length];
        self.file.read_exact_at(&mut bytes, place.start + start as u64)?;
        String::from_utf8(bytes).map_err(|_| Error::Unfit("the file of texts was altered".into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_read_in_parts_until_it_is_removed() {
        let folder = tempfile::tempdir().unwrap();
        let mut texts = Texts::new(folder.path()).unwrap();
        let one = texts.add("ein Zeichen: ä").unwrap();
        let other = texts.add("another").unwrap();

        assert_eq!(texts.part(one, 13, 15).unwrap(), "ä");
        assert_eq!(texts.part(other, 0, 7).unwrap(), "another");
        assert!(texts.part(other, 0, 8).is_err() && texts.part(other, 3, 2).is_err());

        texts.remove(one);
        assert_eq!(texts.part(other, 2, 7).unwrap(), "other");
        texts.remove(other);
        let next = texts.add("next").unwrap();
        assert_eq!(texts.part(next, 0, 4).unwrap(), "next");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}
