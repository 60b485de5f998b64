//! The chunks of every file that is ready: vectors by knowledge base, texts by file, and which files say
//! what of themselves.
//!
//! The rule of this file: a knowledge base is a thing of its own, and what is asked of one is answered
//! from it alone.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::path::Path;

use chrono::{DateTime, Utc};
use embeddings::{Artifact, Chunk, Hit, VectorIndex};
use tantivy::tokenizer::Language;
use uuid::Uuid;

use super::language::{self, Words};
use super::texts::{self, Texts};
use super::{
    FileChunk, Filters, Highlight, Include, Metadata, Mode, Passage, Place, Query, Section,
};
use crate::Error;
use crate::engine::stored_time;
use crate::file::File;

/// Goes up whenever the same artifacts would be indexed otherwise.
pub(super) const VERSION: u32 = 3;

/// How long a section is answered at most, in characters.
const LONGEST_SECTION: u32 = 8_000;

/// Among how many vectors a search is quick, and with how many passages to read.
const MOST_QUICK_VECTORS: usize = 150_000;
const MOST_QUICK_PASSAGES: usize = 20;

/// What is searched.
pub(super) struct Chunks {
    bases: HashMap<Uuid, Base>,
    files: HashMap<Uuid, Indexed>,
    texts: Texts,
    count: usize,
}

/// What files say of themselves, and are found by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Said {
    Source,
    Subject,
    Language,
    Tag,
}

/// A knowledge base.
#[derive(Default)]
struct Base {
    vectors: Option<VectorIndex>,
    /// Its files, by when they were uploaded.
    files: BTreeSet<(DateTime<Utc>, Uuid)>,
    /// Its files, by what they say.
    saying: HashMap<(Said, Box<str>), HashSet<Uuid>>,
    /// In which languages its files are, and how many in each.
    languages: HashMap<Option<Language>, usize>,
}

/// A file that can be found.
pub(super) struct Indexed {
    knowledge_base: Uuid,
    name: Box<str>,
    source: Option<Box<str>>,
    subject: Option<Box<str>>,
    /// As it was said.
    language: Option<Box<str>>,
    tags: Box<[Box<str>]>,
    created_at: DateTime<Utc>,
    /// Whose stems its words have.
    stems: Option<Language>,
    text: texts::Place,
    pieces: Box<[Piece]>,
    /// Where its chunks stand: one of these for those that stand at the same place.
    places: Box<[embeddings::Place]>,
}

/// A chunk: where in the text it is.
#[derive(Clone, Copy)]
struct Piece {
    /// In bytes.
    start: u32,
    end: u32,
    /// In characters.
    char_start: u32,
    char_end: u32,
    /// Which of the file's places.
    place: u32,
}

impl Indexed {
    fn says(&self) -> impl Iterator<Item = (Said, &str)> {
        let one = [
            (Said::Source, &self.source),
            (Said::Subject, &self.subject),
            (Said::Language, &self.language),
        ];
        let one = one.into_iter().filter_map(|(said, value)| Some((said, value.as_deref()?)));
        one.chain(self.tags.iter().map(|tag| (Said::Tag, &**tag)))
    }

    fn place(&self, piece: &Piece) -> &embeddings::Place {
        &self.places[piece.place as usize]
    }
}

impl Chunks {
    /// Nothing yet. Texts lie in a nameless file of that folder.
    pub(super) fn new(folder: &Path) -> Result<Chunks, Error> {
        let texts = Texts::new(folder)?;
        Ok(Chunks { bases: HashMap::new(), files: HashMap::new(), texts, count: 0 })
    }

    /// Adds a file, in place of an older one of that id.
    ///
    /// # Errors
    /// Its vectors are of another length than those of its knowledge base: another model's. Or the
    /// disk is full.
    pub(super) fn add(&mut self, file: &File, artifact: &Artifact) -> Result<(), Error> {
        self.remove(file.id);
        let id = file.knowledge_base_id;
        let base = self.bases.entry(id).or_default();
        if let Some(vector) = artifact.vectors.first() {
            let dimensions = vector.len();
            let index = base.vectors.get_or_insert_with(|| VectorIndex::new(dimensions));
            if index.dimensions() != dimensions {
                return Err(Error::Unfit(format!(
                    "file {} was embedded by a model of {dimensions} dimensions, its knowledge base by one of {}",
                    file.id,
                    index.dimensions()
                )));
            }
        }
        let (pieces, places) = pieces(&artifact.text, &artifact.chunks).ok_or_else(|| {
            Error::Unfit(format!("the chunks of file {} lie outside its text", file.id))
        })?;
        let created_at = DateTime::parse_from_rfc3339(&file.created_at)
            .map_err(|error| Error::Unfit(format!("the time of file {}: {error}", file.id)))?
            .to_utc();
        let boxed = |text: &Option<String>| text.as_deref().map(Box::from);
        let indexed = Indexed {
            knowledge_base: id,
            name: file.file_name.as_str().into(),
            source: boxed(&file.source),
            subject: boxed(&file.subject),
            language: boxed(&file.language),
            tags: file.tags.iter().map(|tag| tag.as_str().into()).collect(),
            created_at,
            stems: language::of_file(file.language.as_deref(), &artifact.text),
            text: self.texts.add(&artifact.text)?,
            pieces,
            places,
        };
        if let Some(index) = &mut base.vectors {
            index.add(file.id, &artifact.vectors);
        }
        base.files.insert((created_at, file.id));
        *base.languages.entry(indexed.stems).or_default() += 1;
        for (said, value) in indexed.says() {
            base.saying.entry((said, value.into())).or_default().insert(file.id);
        }
        self.count += indexed.pieces.len();
        self.files.insert(file.id, indexed);
        Ok(())
    }

    pub(super) fn remove(&mut self, file: Uuid) {
        let Some(indexed) = self.files.remove(&file) else { return };
        self.count -= indexed.pieces.len();
        self.texts.remove(indexed.text);
        let Some(base) = self.bases.get_mut(&indexed.knowledge_base) else { return };
        if let Some(vectors) = &mut base.vectors {
            vectors.remove(file);
        }
        base.files.remove(&(indexed.created_at, file));
        for (said, value) in indexed.says() {
            let key = (said, value.into());
            if let Some(files) = base.saying.get_mut(&key) {
                files.remove(&file);
                if files.is_empty() {
                    base.saying.remove(&key);
                }
            }
        }
        if let Some(count) = base.languages.get_mut(&indexed.stems) {
            *count -= 1;
            if *count == 0 {
                base.languages.remove(&indexed.stems);
            }
        }
        if base.files.is_empty() {
            self.bases.remove(&indexed.knowledge_base);
        }
    }

    pub(super) fn len(&self) -> usize {
        self.count
    }

    /// How long the vectors of some knowledge bases are; `None` where they have none.
    pub(super) fn dimensions(&self, bases: &[Uuid]) -> Option<usize> {
        let bases = bases.iter().filter_map(|base| self.bases.get(base));
        bases.filter_map(|base| base.vectors.as_ref()).map(VectorIndex::dimensions).next()
    }

    /// The languages of the files of some knowledge bases.
    pub(super) fn languages(&self, bases: &[Uuid]) -> HashSet<Option<Language>> {
        let bases = bases.iter().filter_map(|base| self.bases.get(base));
        bases.flat_map(|base| base.languages.keys().copied()).collect()
    }

    /// Whether a search takes less than half a millisecond or so.
    pub(super) fn is_quick(&self, query: &Query) -> bool {
        let bases = query.knowledge_bases.iter().filter_map(|base| self.bases.get(base));
        let vectors = bases.filter_map(|base| base.vectors.as_ref()).map(VectorIndex::len);
        let Include { neighbours, section, highlights } = &query.include;
        query.mode == Mode::Vector
            && query.limit <= MOST_QUICK_PASSAGES
            && *neighbours == 0
            && !section
            && *highlights != Some(true)
            && vectors.sum::<usize>() <= MOST_QUICK_VECTORS
    }

    pub(super) fn nearest(
        &self,
        bases: &[Uuid],
        vector: &[f32],
        limit: usize,
        min_score: Option<f32>,
        filters: &Filters,
    ) -> Result<Vec<Hit>, Error> {
        let mut hits = Vec::new();
        for (id, base) in bases.iter().filter_map(|id| Some((*id, self.bases.get(id)?))) {
            let Some(vectors) = &base.vectors else { continue };
            if vectors.dimensions() != vector.len() {
                return Err(Error::Unfit(format!(
                    "the question was embedded by a model of {} dimensions, the files by one of {}",
                    vector.len(),
                    vectors.dimensions()
                )));
            }
            let among = (!filters.is_empty()).then(|| self.admitted(id, base, filters));
            hits.extend(vectors.search(vector, limit, min_score, among.as_deref()));
        }
        hits.sort_by(Hit::order);
        hits.truncate(limit);
        Ok(hits)
    }

    /// How near a chunk is to a vector of the model of its knowledge base.
    pub(super) fn cosine(&self, vector: &[f32], document: Uuid, chunk: u32) -> Option<f32> {
        let base = self.bases.get(&self.files.get(&document)?.knowledge_base)?;
        base.vectors.as_ref()?.score(vector, document, chunk)
    }

    /// The files of a knowledge base that the filters let through: those of the condition that the
    /// fewest meet, each looked at.
    fn admitted(&self, id: Uuid, base: &Base, filters: &Filters) -> Vec<Uuid> {
        let one_of = |said, values: &[String]| {
            let sets =
                values.iter().filter_map(|value| base.saying.get(&(said, value.as_str().into())));
            sets.collect::<Vec<_>>()
        };
        let said = [
            (Said::Source, &filters.source),
            (Said::Subject, &filters.subject),
            (Said::Language, &filters.language),
        ];
        let any =
            said.into_iter().filter_map(|(said, any)| Some(one_of(said, any.as_ref()?.all())));
        let tags = filters.tags.iter().map(|tag| one_of(Said::Tag, std::slice::from_ref(tag)));
        let fewest =
            any.chain(tags).min_by_key(|sets| sets.iter().map(|set| set.len()).sum::<usize>());
        let admits = |file: &Uuid| self.admits(id, *file, filters);
        match (&filters.file_id, fewest) {
            (Some(named), _) => named.all().iter().copied().filter(admits).collect(),
            (None, Some(sets)) => sets.into_iter().flatten().copied().filter(admits).collect(),
            (None, None) => {
                let from = filters.from.unwrap_or(DateTime::<Utc>::MIN_UTC);
                let later = base.files.range((from, Uuid::nil())..);
                later
                    .take_while(|(at, _)| filters.to.is_none_or(|to| *at < to))
                    .map(|(_, file)| *file)
                    .collect()
            }
        }
    }

    fn admits(&self, base: Uuid, id: Uuid, filters: &Filters) -> bool {
        let Some(file) = self.files.get(&id) else { return false };
        let any = |wanted: &Option<super::AnyOf>, is: &Option<Box<str>>| {
            wanted.as_ref().is_none_or(|wanted| wanted.admits(is.as_deref()))
        };
        file.knowledge_base == base
            && any(&filters.source, &file.source)
            && any(&filters.subject, &file.subject)
            && any(&filters.language, &file.language)
            && filters.tags.iter().all(|tag| file.tags.iter().any(|is| **is == **tag))
            && filters.file_id.as_ref().is_none_or(|named| named.all().contains(&id))
            && filters.from.is_none_or(|from| file.created_at >= from)
            && filters.to.is_none_or(|to| file.created_at < to)
    }

    /// Some chunks of a file, from the one numbered `skip` on, and how many it has; `None` when it is not here.
    pub(super) fn of_file(
        &self,
        file: Uuid,
        skip: usize,
        limit: usize,
    ) -> Result<Option<(Vec<FileChunk>, usize)>, Error> {
        let Some(file) = self.files.get(&file) else { return Ok(None) };
        let some = file.pieces.iter().enumerate().skip(skip).take(limit);
        let some = some.map(|(index, piece)| self.chunk(file, index, piece));
        Ok(Some((some.collect::<Result<_, _>>()?, file.pieces.len())))
    }

    fn chunk(&self, file: &Indexed, index: usize, piece: &Piece) -> Result<FileChunk, Error> {
        Ok(FileChunk {
            chunk_index: index as u32,
            text: self.texts.part(file.text, piece.start as usize, piece.end as usize)?,
            char_start: piece.char_start.into(),
            char_end: piece.char_end.into(),
            place: Place::of(file.place(piece)),
        })
    }

    /// A passage as it is answered; `None` where it is gone, or not of these knowledge bases.
    pub(super) fn passage(
        &self,
        hit: &Hit,
        bases: &[Uuid],
        include: &Include,
        question: Option<&Question<'_>>,
    ) -> Result<Option<Passage>, Error> {
        let index = hit.chunk as usize;
        let Some(file) = self.files.get(&hit.document) else { return Ok(None) };
        let Some(piece) = file.pieces.get(index) else { return Ok(None) };
        if !bases.contains(&file.knowledge_base) {
            return Ok(None);
        }
        let FileChunk { text, char_start, char_end, place, .. } = self.chunk(file, index, piece)?;
        let owned = |text: &Option<Box<str>>| text.as_deref().map(str::to_owned);
        let neighbours = usize::from(include.neighbours);
        let near = |range: std::ops::Range<usize>| {
            let pieces = range.filter_map(|index| Some((index, file.pieces.get(index)?)));
            let chunks = pieces.map(|(index, piece)| self.chunk(file, index, piece));
            (neighbours > 0).then(|| chunks.collect::<Result<Vec<_>, _>>()).transpose()
        };
        Ok(Some(Passage {
            file_id: hit.document,
            file_name: file.name.to_string(),
            knowledge_base_id: file.knowledge_base,
            chunk_index: hit.chunk,
            highlights: question.map(|question| question.highlights(&text, file.stems)),
            before: near(index.saturating_sub(neighbours)..index)?,
            after: near(index + 1..index + 1 + neighbours)?,
            section: include.section.then(|| self.section(file, index)).transpose()?,
            text,
            score: hit.score,
            metadata: Metadata {
                source: owned(&file.source),
                subject: owned(&file.subject),
                language: owned(&file.language),
                tags: file.tags.iter().map(|tag| tag.to_string()).collect(),
                place,
                created_at: stored_time(file.created_at),
            },
            char_start,
            char_end,
        }))
    }

    /// What stands under the same heading, or where there is none, on the same page or sheet.
    fn section(&self, file: &Indexed, index: usize) -> Result<Section, Error> {
        let own = file.place(&file.pieces[index]);
        let is_of = |index: usize| {
            let place = file.place(&file.pieces[index]);
            place.sheet == own.sheet
                && place.headings.starts_with(&own.headings)
                && (!own.headings.is_empty()
                    || (place.headings.is_empty() && place.page == own.page))
        };
        let (mut first, mut last) = (index, index);
        let fits = |first: usize, last: usize| {
            file.pieces[last].char_end - file.pieces[first].char_start <= LONGEST_SECTION
        };
        loop {
            let mut grew = false;
            if first > 0 && is_of(first - 1) && fits(first - 1, last) {
                (first, grew) = (first - 1, true);
            }
            if last + 1 < file.pieces.len() && is_of(last + 1) && fits(first, last + 1) {
                (last, grew) = (last + 1, true);
            }
            if !grew {
                break;
            }
        }
        let (from, to) = (file.pieces[first], file.pieces[last]);
        Ok(Section {
            heading: own.headings.last().cloned(),
            text: self.texts.part(file.text, from.start as usize, to.end as usize)?,
            char_start: from.char_start.into(),
            char_end: to.char_end.into(),
        })
    }
}

/// The words that are looked for.
pub(super) struct Question<'a> {
    pub(super) words: &'a Words,
    pub(super) stems: BTreeMap<String, u32>,
}

impl Question<'_> {
    fn highlights(&self, text: &str, language: Option<Language>) -> Vec<Highlight> {
        let (mut byte, mut character) = (0, 0);
        let mut count = |to: usize| {
            character += text[byte..to].chars().count() as u32;
            byte = to;
            character
        };
        let words = self.words.of(text, language).into_iter();
        words
            .filter(|word| self.stems.contains_key(&word.stem))
            .map(|word| Highlight { start: count(word.start), end: count(word.end) })
            .collect()
    }
}

/// The pieces of a text, and where each stands in its file.
type Pieces = (Box<[Piece]>, Box<[embeddings::Place]>);

/// The chunks as ranges of the text, in one walk through it.
fn pieces(text: &str, chunks: &[Chunk]) -> Option<Pieces> {
    let mut places: Vec<embeddings::Place> = Vec::new();
    let mut pieces = Vec::with_capacity(chunks.len());
    let (mut byte, mut character) = (0, 0);
    for chunk in chunks {
        let between = usize::try_from(chunk.char_start.checked_sub(character)?).ok()?;
        let mut offsets =
            text[byte..].char_indices().map(|(offset, _)| offset).chain([text.len() - byte]);
        let start = byte + offsets.nth(between)?;
        let end = start + chunk.text.len();
        text.get(start..end).filter(|found| *found == chunk.text)?;
        if places.last() != Some(&chunk.place) {
            places.push(chunk.place.clone());
        }
        pieces.push(Piece {
            start: start.try_into().ok()?,
            end: end.try_into().ok()?,
            char_start: chunk.char_start.try_into().ok()?,
            char_end: chunk.char_end.try_into().ok()?,
            place: places.len().checked_sub(1)?.try_into().ok()?,
        });
        (byte, character) = (end, chunk.char_end);
    }
    Some((pieces.into(), places.into()))
}
