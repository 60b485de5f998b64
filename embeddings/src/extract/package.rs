//! The ZIP archive that an office document is. The one rule: a part is read as it is inflated, never unpacked whole.

use std::io::{BufReader, Cursor, Read};

use quick_xml::Reader;
use zip::ZipArchive;
use zip::result::ZipError;

use crate::error::ExtractError;

/// How much of a part is looked at to tell what the archive is.
const START_BYTES: u64 = 256 * 1024;

/// An archive of parts.
pub(super) struct Package<'a>(ZipArchive<Cursor<&'a [u8]>>);

/// A part of XML, as it is inflated.
pub(super) type Part<'a> = Reader<BufReader<Box<dyn Read + 'a>>>;

impl<'a> Package<'a> {
    pub(super) fn open(bytes: &'a [u8]) -> Result<Self, ZipError> {
        ZipArchive::new(Cursor::new(bytes)).map(Self)
    }

    /// The beginning of a part, if it is there and can be read.
    pub(super) fn start_of(&mut self, name: &str) -> Option<String> {
        let mut start = String::new();
        let part = self.0.by_name(name).ok()?;
        part.take(START_BYTES).read_to_string(&mut start).ok()?;
        Some(start)
    }

    /// A part of XML; `None` when it is not there.
    pub(super) fn part(
        &mut self,
        format: &str,
        name: &str,
    ) -> Result<Option<Part<'_>>, ExtractError> {
        match self.0.by_name(name) {
            Ok(part) => {
                let mut reader =
                    Reader::from_reader(BufReader::new(Box::new(part) as Box<dyn Read>));
                // An empty element is one that is opened and closed: one way to read both.
                reader.config_mut().expand_empty_elements = true;
                Ok(Some(reader))
            }
            Err(ZipError::FileNotFound) => Ok(None),
            Err(error) => Err(ExtractError::malformed(format, error)),
        }
    }
}

/// The part that a relation of another part names, as `../slides/slide1.xml` of `ppt/notesSlides/notesSlide1.xml`.
pub(super) fn resolve(part: &str, target: &str) -> String {
    if let Some(absolute) = target.strip_prefix('/') {
        return absolute.to_owned();
    }
    let mut path: Vec<&str> = part.split('/').collect();
    path.pop();
    for step in target.split('/') {
        match step {
            ".." => drop(path.pop()),
            "." => {}
            step => path.push(step),
        }
    }
    path.join("/")
}

/// The part that holds the relations of another.
pub(super) fn relations_of(part: &str) -> String {
    let (folder, file) = part.rsplit_once('/').unwrap_or(("", part));
    format!("{folder}/_rels/{file}.rels")
}
