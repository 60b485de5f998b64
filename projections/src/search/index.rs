//! The chunks of every file that is ready, in memory: vectors by knowledge base, texts by file.

use std::collections::{HashMap, HashSet};

use embeddings::{Artifact, Chunk, Hit, VectorIndex};
use uuid::Uuid;

use super::{FileChunk, Filters, Metadata, Passage, Place};
use crate::Error;
use crate::file::File;

/// Goes up whenever the same artifacts would be indexed otherwise.
pub(super) const VERSION: u32 = 1;

/// What is searched.
#[derive(Default)]
pub(super) struct Chunks {
    bases: HashMap<Uuid, Base>,
    files: HashMap<Uuid, Indexed>,
    count: usize,
}

/// The vectors of a knowledge base.
struct Base {
    dimensions: usize,
    vectors: VectorIndex,
}

impl Base {
    fn new(dimensions: usize) -> Base {
        Base { dimensions, vectors: VectorIndex::new(dimensions) }
    }
}

/// A file that can be found.
struct Indexed {
    knowledge_base: Uuid,
    name: String,
    metadata: Metadata,
    chunks: Vec<Chunk>,
}

impl Chunks {
    /// Adds a file, in place of an older one of that id.
    ///
    /// # Errors
    /// Its vectors are of another length than those of its knowledge base: another model's.
    pub(super) fn add(&mut self, file: &File, artifact: Artifact) -> Result<(), Error> {
        self.remove(file.id);
        let base = file.knowledge_base_id;
        if let Some(vector) = artifact.vectors.first() {
            let dimensions = vector.len();
            let index = self.bases.entry(base).or_insert_with(|| Base::new(dimensions));
            if index.dimensions != dimensions {
                return Err(Error::Unfit(format!(
                    "file {} was embedded by a model of {dimensions} dimensions, its knowledge base by one of {}",
                    file.id, index.dimensions
                )));
            }
            index.vectors.add(file.id, &artifact.vectors);
        }
        self.count += artifact.chunks.len();
        let metadata = Metadata {
            source: file.source.clone(),
            subject: file.subject.clone(),
            language: file.language.clone(),
            tags: file.tags.clone(),
            place: Place::default(),
            created_at: file.created_at.clone(),
        };
        let indexed = Indexed {
            knowledge_base: base,
            name: file.file_name.clone(),
            metadata,
            chunks: artifact.chunks,
        };
        self.files.insert(file.id, indexed);
        Ok(())
    }

    pub(super) fn remove(&mut self, file: Uuid) {
        let Some(indexed) = self.files.remove(&file) else { return };
        self.count -= indexed.chunks.len();
        if let Some(base) = self.bases.get_mut(&indexed.knowledge_base) {
            base.vectors.remove(file);
            if base.vectors.is_empty() {
                self.bases.remove(&indexed.knowledge_base);
            }
        }
    }

    pub(super) fn len(&self) -> usize {
        self.count
    }

    pub(super) fn nearest(
        &self,
        bases: &[Uuid],
        vector: &[f32],
        limit: usize,
        min_score: Option<f32>,
        filters: &Filters,
    ) -> Result<Vec<Hit>, Error> {
        let admit = |file: Uuid| filters.is_empty() || self.admits(file, filters);
        let mut hits = Vec::new();
        for base in bases {
            match self.bases.get(base) {
                Some(base) if base.dimensions == vector.len() => {
                    hits.extend(base.vectors.search(vector, limit, min_score, &admit));
                }
                Some(base) => {
                    return Err(Error::Unfit(format!(
                        "the question was embedded by a model of {} dimensions, the files by one of {}",
                        vector.len(),
                        base.dimensions
                    )));
                }
                None => {}
            }
        }
        hits.sort_by(|a, b| {
            b.score
                .total_cmp(&a.score)
                .then(a.document.cmp(&b.document))
                .then(a.chunk.cmp(&b.chunk))
        });
        hits.truncate(limit);
        Ok(hits)
    }

    /// The files of some knowledge bases that the filters let through.
    pub(super) fn admitted(&self, bases: &[Uuid], filters: &Filters) -> HashSet<Uuid> {
        let files = self.files.iter().filter(|(_, file)| bases.contains(&file.knowledge_base));
        files.map(|(id, _)| *id).filter(|id| self.admits(*id, filters)).collect()
    }

    fn admits(&self, id: Uuid, filters: &Filters) -> bool {
        let Some(file) = self.files.get(&id) else { return false };
        let fits = |wanted: &Option<String>, is: &Option<String>| wanted.is_none() || wanted == is;
        fits(&filters.source, &file.metadata.source)
            && fits(&filters.subject, &file.metadata.subject)
            && fits(&filters.language, &file.metadata.language)
            && filters.tags.iter().all(|tag| file.metadata.tags.contains(tag))
            && filters.file_id.is_none_or(|wanted| wanted == id)
    }

    /// Some chunks of a file, from the one numbered `skip` on, and how many it has; `None` when it is not here.
    pub(super) fn of_file(
        &self,
        file: Uuid,
        skip: usize,
        limit: usize,
    ) -> Option<(Vec<FileChunk>, usize)> {
        let chunks = &self.files.get(&file)?.chunks;
        let some = chunks.iter().skip(skip).take(limit).map(|chunk| FileChunk {
            chunk_index: chunk.index,
            text: chunk.text.clone(),
            char_start: chunk.char_start,
            char_end: chunk.char_end,
            place: Place::of(&chunk.place),
        });
        Some((some.collect(), chunks.len()))
    }

    pub(super) fn passage(&self, hit: &Hit) -> Option<Passage> {
        let file = self.files.get(&hit.document)?;
        let chunk = file.chunks.get(hit.chunk as usize)?;
        Some(Passage {
            file_id: hit.document,
            file_name: file.name.clone(),
            knowledge_base_id: file.knowledge_base,
            chunk_index: hit.chunk,
            text: chunk.text.clone(),
            score: hit.score,
            metadata: Metadata { place: Place::of(&chunk.place), ..file.metadata.clone() },
            char_start: chunk.char_start,
            char_end: chunk.char_end,
        })
    }
}
