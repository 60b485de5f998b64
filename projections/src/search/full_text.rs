//! Full text with tantivy: one document for each chunk, ranked by BM25.
//!
//! The rule of this file: the position up to which the log was taken in is the payload of the commit
//! that holds it, so that both are durable together. What knowledge bases hold that are not asked moves no score.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Bound;
use std::path::Path;

use chrono::{DateTime, Utc};
use embeddings::{Artifact, Hit};
use eventlog::Position;
use parking_lot::Mutex;
use tantivy::collector::TopDocs;
use tantivy::columnar::Column;
use tantivy::directory::MmapDirectory;
use tantivy::query::{
    BooleanQuery, BoostQuery, ConstScoreQuery, Occur, Query, RangeQuery, TermQuery, TermSetQuery,
};
use tantivy::schema::{
    FAST, Field, INDEXED, IndexRecordOption, STRING, Schema, TextFieldIndexing, TextOptions,
};
use tantivy::tokenizer::{PreTokenizedString, Token};
use tantivy::{Index, IndexReader, IndexWriter, ReloadPolicy, TantivyError, Term, doc};
use uuid::Uuid;

use super::Filters;
use super::index::{Said, VERSION};
use super::language::{self, Words};
use super::statistics::{Counts, LENGTH, Statistics};
use crate::Error;
use crate::file::File;

/// How much memory the writer may take before it writes a segment, in bytes.
const WRITER_MEMORY: usize = 20_000_000;

/// The columns that name the file and the chunk.
const FILE: [&str; 2] = ["file_high", "file_low"];
const CHUNK: &str = "chunk";

/// The full-text index of this node.
pub(super) struct FullText {
    index: Index,
    reader: IndexReader,
    writer: Mutex<IndexWriter>,
    fields: Fields,
    words: Words,
    counts: Counts,
}

#[derive(Clone, Copy)]
struct Fields {
    file: Field,
    /// The file's id once more, to be read off what was found.
    file_high: Field,
    file_low: Field,
    base: Field,
    chunk: Field,
    /// What is said of the file, as [`said`] writes it.
    said: Field,
    /// When the file was uploaded, in microseconds.
    created: Field,
    text: Field,
    /// How many words the chunk has.
    length: Field,
}

impl FullText {
    /// Opens the index below `folder`, or makes it. One of another version, or one that cannot be
    /// opened or lost a file in a power cut, is made anew: it holds nothing that the log and the
    /// artifacts do not.
    pub(super) fn open(folder: &Path) -> Result<FullText, Error> {
        let name = format!("full-text-{VERSION}");
        std::fs::create_dir_all(folder.join(&name))?;
        forget_others(folder, &name)?;
        let folder = folder.join(name);
        FullText::open_in(&folder).or_else(|error| {
            tracing::warn!(%error, "the full-text index cannot be opened and is made anew");
            std::fs::remove_dir_all(&folder)?;
            std::fs::create_dir_all(&folder)?;
            FullText::open_in(&folder)
        })
    }

    /// Opens or makes the index with all its segments.
    fn open_in(folder: &Path) -> Result<FullText, Error> {
        let (schema, fields) = schema();
        let directory = MmapDirectory::open(folder).map_err(TantivyError::from)?;
        let index = Index::open_or_create(directory, schema)?;
        let reader = index.reader_builder().reload_policy(ReloadPolicy::Manual).try_into()?;
        let writer = index.writer_with_num_threads(1, WRITER_MEMORY)?;
        let (writer, words) = (Mutex::new(writer), Words::new());
        Ok(FullText { index, reader, writer, fields, words, counts: Counts::default() })
    }

    /// Up to where the log was taken in.
    pub(super) fn position(&self) -> Position {
        let payload = self.index.load_metas().ok().and_then(|metas| metas.payload);
        Position(payload.and_then(|text| text.parse().ok()).unwrap_or(0))
    }

    /// Adds a file, in place of an older one of that id. Not seen before [`FullText::commit`]. Where
    /// it fails, everything since the last commit is forgotten.
    pub(super) fn add(&self, file: &File, artifact: &Artifact) -> Result<(), Error> {
        self.remove(file.id);
        let created = DateTime::parse_from_rfc3339(&file.created_at)
            .map_err(|error| Error::Unfit(format!("the time of file {}: {error}", file.id)))?;
        let language = language::of_file(file.language.as_deref(), &artifact.text);
        let (high, low) = file.id.as_u64_pair();
        let mut about = doc!(
            self.fields.file => file.id.to_string(),
            self.fields.file_high => high,
            self.fields.file_low => low,
            self.fields.base => file.knowledge_base_id.to_string(),
            self.fields.created => created.timestamp_micros(),
        );
        let one = |kind, value: &Option<String>| value.as_deref().map(|value| said(kind, value));
        let tags = file.tags.iter().map(|tag| said(Said::Tag, tag));
        let says = one(Said::Source, &file.source)
            .into_iter()
            .chain(one(Said::Subject, &file.subject))
            .chain(one(Said::Language, &file.language))
            .chain(tags);
        says.for_each(|said| about.add_text(self.fields.said, said));
        let mut writer = self.writer.lock();
        let mut documents = artifact.chunks.iter().map(|chunk| {
            let mut document = about.clone();
            document.add_u64(self.fields.chunk, u64::from(chunk.index));
            let words = self.words.of(&chunk.passage(), language).into_iter().enumerate();
            let tokens = words.map(|(position, word)| Token {
                offset_from: word.start,
                offset_to: word.end,
                position,
                text: word.stem,
                position_length: 1,
            });
            let tokens: Vec<Token> = tokens.collect();
            document.add_u64(self.fields.length, tokens.len() as u64);
            // (The text itself is not stored: only its tokens are taken.)
            let words = PreTokenizedString { text: String::new(), tokens };
            document.add_pre_tokenized_text(self.fields.text, words);
            document
        });
        let added = documents.try_for_each(|document| writer.add_document(document).map(|_| ()));
        whole(&mut writer, added)
    }

    /// Removes a file. Seen until [`FullText::commit`].
    pub(super) fn remove(&self, file: Uuid) {
        self.writer.lock().delete_term(Term::from_field_text(self.fields.file, &file.to_string()));
    }

    /// Removes everything. Seen until [`FullText::commit`].
    pub(super) fn clear(&self) -> Result<(), Error> {
        self.writer.lock().delete_all_documents()?;
        Ok(())
    }

    /// Forgets what was added and removed since the last commit.
    pub(super) fn roll_back(&self) -> Result<(), Error> {
        self.writer.lock().rollback()?;
        Ok(())
    }

    /// Makes what was added and removed durable and seen, together with the position. Where it
    /// fails, everything since the last commit is forgotten.
    pub(super) fn commit(&self, position: Position) -> Result<(), Error> {
        let mut writer = self.writer.lock();
        let committed = writer.prepare_commit().and_then(|mut commit| {
            commit.set_payload(&position.to_string());
            commit.commit()
        });
        whole(&mut writer, committed.map(|_| ()))?;
        self.reader.reload()?;
        Ok(())
    }

    /// What cuts texts into words here.
    pub(super) fn words(&self) -> &Words {
        &self.words
    }

    /// The chunks that fit the words best, of those that the filters let through.
    pub(super) fn search(
        &self,
        bases: &[Uuid],
        stems: &BTreeMap<String, u32>,
        limit: usize,
        filters: &Filters,
    ) -> Result<Vec<Hit>, Error> {
        if limit == 0 || bases.is_empty() || stems.is_empty() {
            return Ok(vec![]);
        }
        let asked: Vec<Uuid> = bases.iter().copied().collect::<BTreeSet<_>>().into_iter().collect();
        // A word that is said twice weighs twice, as in the question of a whole paragraph.
        let words = stems.iter().map(|(stem, times)| {
            let term = Term::from_field_text(self.fields.text, stem);
            let term = TermQuery::new(term, IndexRecordOption::WithFreqs);
            let word = BoostQuery::new(Box::new(term), *times as f32);
            (Occur::Should, Box::new(word) as Box<dyn Query>)
        });
        let mut parts: Vec<(Occur, Box<dyn Query>)> = vec![
            (Occur::Must, Box::new(BooleanQuery::new(words.collect()))),
            (Occur::Must, one_of(self.fields.base, bases.iter().map(Uuid::to_string))),
        ];
        parts.extend(self.conditions(filters).into_iter().map(|part| (Occur::Must, part)));
        let searcher = self.reader.searcher();
        let statistics = Statistics::of(&searcher, self.fields.base, &asked, &self.counts)?;
        let top = searcher.search_with_statistics_provider(
            &BooleanQuery::new(parts),
            &TopDocs::with_limit(limit).order_by_score(),
            &statistics,
        )?;
        let mut columns: HashMap<u32, [Column<u64>; 3]> = HashMap::new();
        let mut hits = Vec::with_capacity(top.len());
        for (score, address) in top {
            let of_segment = match columns.entry(address.segment_ord) {
                Entry::Occupied(known) => known.into_mut(),
                Entry::Vacant(place) => {
                    let fields = searcher.segment_reader(address.segment_ord).fast_fields();
                    let [high, low] = FILE.map(|name| fields.u64(name));
                    place.insert([high?, low?, fields.u64(CHUNK)?])
                }
            };
            let [high, low, chunk] =
                of_segment.each_ref().map(|column| column.first(address.doc_id));
            if let (Some(high), Some(low), Some(chunk)) = (high, low, chunk) {
                let document = Uuid::from_u64_pair(high, low);
                hits.push(Hit { document, chunk: chunk as u32, score });
            }
        }
        // The index has equal ones in the order in which it happened to be written.
        hits.sort_by(Hit::order);
        Ok(hits)
    }
}

impl FullText {
    /// What the filters demand.
    fn conditions(&self, filters: &Filters) -> Vec<Box<dyn Query>> {
        let of_kind = |kind, values: &[String]| {
            one_of(self.fields.said, values.iter().map(|value| said(kind, value)))
        };
        let any = [
            (Said::Source, &filters.source),
            (Said::Subject, &filters.subject),
            (Said::Language, &filters.language),
        ];
        let mut conditions: Vec<Box<dyn Query>> = any
            .into_iter()
            .filter_map(|(kind, any)| Some(of_kind(kind, any.as_ref()?.all())))
            .collect();
        conditions
            .extend(filters.tags.iter().map(|tag| of_kind(Said::Tag, std::slice::from_ref(tag))));
        if let Some(files) = &filters.file_id {
            conditions.push(one_of(self.fields.file, files.all().iter().map(Uuid::to_string)));
        }
        if filters.from.is_some() || filters.to.is_some() {
            let at = |time: DateTime<Utc>| {
                Term::from_field_i64(self.fields.created, time.timestamp_micros())
            };
            let from = filters.from.map_or(Bound::Unbounded, |from| Bound::Included(at(from)));
            let to = filters.to.map_or(Bound::Unbounded, |to| Bound::Excluded(at(to)));
            conditions.push(unweighed(RangeQuery::new(from, to)));
        }
        conditions
    }
}

/// A thing that a file says of itself as one term.
fn said(kind: Said, value: &str) -> String {
    let kind = match kind {
        Said::Source => "source",
        Said::Subject => "subject",
        Said::Language => "language",
        Said::Tag => "tag",
    };
    format!("{kind}:{value}")
}

/// Removes the indexes of other versions: they hold words of files that may be gone by now.
fn forget_others(folder: &Path, name: &str) -> Result<(), Error> {
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let found = entry.file_name();
        let found = found.to_string_lossy();
        if found.starts_with("full-text-") && found != name {
            std::fs::remove_dir_all(entry.path())?;
        }
    }
    Ok(())
}

/// Makes a writer whole again after a failure, as a full disk. The threads that wrote are gone then:
/// what is added next would be dropped, and the commit after it would say that it is there.
fn whole(writer: &mut IndexWriter, outcome: tantivy::Result<()>) -> Result<(), Error> {
    if let Err(error) = outcome {
        writer.rollback()?;
        return Err(error.into());
    }
    Ok(())
}

/// A condition that does not weigh in the score.
fn unweighed(query: impl Query) -> Box<dyn Query> {
    Box::new(ConstScoreQuery::new(Box::new(query), 0.0))
}

fn one_of(field: Field, values: impl Iterator<Item = String>) -> Box<dyn Query> {
    let terms = values.map(|value| Term::from_field_text(field, &value));
    unweighed(TermSetQuery::new(terms))
}

fn schema() -> (Schema, Fields) {
    let mut schema = Schema::builder();
    // How often a word is in a chunk, and not where: nobody asks for phrases.
    let words = TextFieldIndexing::default().set_index_option(IndexRecordOption::WithFreqs);
    let fields = Fields {
        file: schema.add_text_field("file", STRING),
        file_high: schema.add_u64_field(FILE[0], FAST),
        file_low: schema.add_u64_field(FILE[1], FAST),
        base: schema.add_text_field("knowledge_base", STRING),
        chunk: schema.add_u64_field(CHUNK, FAST),
        said: schema.add_text_field("said", STRING),
        created: schema.add_i64_field("created", INDEXED | FAST),
        length: schema.add_u64_field(LENGTH, FAST),
        text: schema.add_text_field("text", TextOptions::default().set_indexing_options(words)),
    };
    (schema.build(), fields)
}
