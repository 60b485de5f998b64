//! Full text with tantivy: one document for each chunk, ranked by BM25.
//!
//! The rule of this file: the position up to which the log was taken in is the payload of the commit
//! that holds it, so that both are durable together.

use std::collections::{BTreeSet, HashSet};
use std::path::Path;

use embeddings::{Chunk, Hit};
use eventlog::Position;
use parking_lot::Mutex;
use tantivy::collector::TopDocs;
use tantivy::directory::MmapDirectory;
use tantivy::query::{BooleanQuery, ConstScoreQuery, Occur, Query, TermSetQuery};
use tantivy::schema::{FAST, Field, INDEXED, STORED, STRING, Schema, TEXT, Value};
use tantivy::{
    Index, IndexReader, IndexWriter, ReloadPolicy, TantivyDocument, TantivyError, Term, doc,
};
use uuid::Uuid;

use super::index::VERSION;
use crate::Error;

/// How much memory the writer may take before it writes a segment, in bytes.
const WRITER_MEMORY: usize = 20_000_000;

/// The full-text index of this node.
pub(super) struct FullText {
    index: Index,
    reader: IndexReader,
    writer: Mutex<IndexWriter>,
    fields: Fields,
}

#[derive(Clone, Copy)]
struct Fields {
    file: Field,
    base: Field,
    chunk: Field,
    text: Field,
}

impl FullText {
    /// Opens the index below `folder`, or makes it. One of another version, or one that cannot be
    /// opened or lost a file in a power cut, is made anew: it holds nothing that the log and the
    /// artifacts do not.
    pub(super) fn open(folder: &Path) -> Result<FullText, Error> {
        let folder = folder.join(format!("full-text-{VERSION}"));
        std::fs::create_dir_all(&folder)?;
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
        Ok(FullText { index, reader, writer: Mutex::new(writer), fields })
    }

    /// Up to where the log was taken in.
    pub(super) fn position(&self) -> Position {
        let payload = self.index.load_metas().ok().and_then(|metas| metas.payload);
        Position(payload.and_then(|text| text.parse().ok()).unwrap_or(0))
    }

    /// Adds a file, in place of an older one of that id. Not seen before [`FullText::commit`]. Where
    /// it fails, everything since the last commit is forgotten.
    pub(super) fn add(&self, file: Uuid, base: Uuid, chunks: &[Chunk]) -> Result<(), Error> {
        self.remove(file);
        let mut writer = self.writer.lock();
        let mut documents = chunks.iter().map(|chunk| {
            doc!(
                self.fields.file => file.to_string(),
                self.fields.base => base.to_string(),
                self.fields.chunk => u64::from(chunk.index),
                self.fields.text => chunk.text.as_str(),
            )
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

    /// The chunks that fit the words best.
    pub(super) fn search(
        &self,
        bases: &[Uuid],
        text: &str,
        limit: usize,
        only: Option<HashSet<Uuid>>,
    ) -> Result<Vec<Hit>, Error> {
        if limit == 0 || bases.is_empty() {
            return Ok(vec![]);
        }
        let words = self.words_of(text)?;
        if words.is_empty() {
            return Ok(vec![]);
        }
        let mut parts: Vec<(Occur, Box<dyn Query>)> = vec![
            (Occur::Must, Box::new(BooleanQuery::new_multiterms_query(words))),
            (Occur::Must, one_of(self.fields.base, bases.iter())),
        ];
        if let Some(only) = &only {
            parts.push((Occur::Must, one_of(self.fields.file, only.iter())));
        }
        let searcher = self.reader.searcher();
        let top = searcher
            .search(&BooleanQuery::new(parts), &TopDocs::with_limit(limit).order_by_score())?;
        let mut hits = Vec::with_capacity(top.len());
        for (score, address) in top {
            let document: TantivyDocument = searcher.doc(address)?;
            let file =
                document.get_first(self.fields.file).and_then(|value| value.as_str()?.parse().ok());
            let chunk = document.get_first(self.fields.chunk).and_then(|value| value.as_u64());
            if let (Some(document), Some(chunk)) = (file, chunk) {
                hits.push(Hit { document, chunk: chunk as u32, score });
            }
        }
        Ok(hits)
    }
}

impl FullText {
    /// The words of a text as the index knows them. People type words, not a query language: no
    /// character of a question means anything but itself.
    fn words_of(&self, text: &str) -> Result<Vec<Term>, Error> {
        let mut words = BTreeSet::new();
        let mut analyzer = self.index.tokenizer_for_field(self.fields.text)?;
        analyzer.token_stream(text).process(&mut |token| {
            words.insert(Term::from_field_text(self.fields.text, &token.text));
        });
        Ok(words.into_iter().collect())
    }
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
fn one_of<'a>(field: Field, ids: impl Iterator<Item = &'a Uuid>) -> Box<dyn Query> {
    let terms = ids.map(|id| Term::from_field_text(field, &id.to_string()));
    Box::new(ConstScoreQuery::new(Box::new(TermSetQuery::new(terms)), 0.0))
}

fn schema() -> (Schema, Fields) {
    let mut schema = Schema::builder();
    let fields = Fields {
        file: schema.add_text_field("file", STRING | STORED),
        base: schema.add_text_field("knowledge_base", STRING),
        chunk: schema.add_u64_field("chunk", INDEXED | FAST | STORED),
        text: schema.add_text_field("text", TEXT),
    };
    (schema.build(), fields)
}
