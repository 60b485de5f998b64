//! Ingestion: from an uploaded file to text, chunks and vectors, and an event that says so.
//!
//! The rule of this file: the artifact is durable before the event that names it, and so are parts of it
//! while a long file is read, so that a cut costs seconds. A file that cannot be read ends `failed` with the
//! reason; a disk that is full or a model that is missing is waited for.

use std::sync::Arc;
use std::time::{Duration, Instant};

use chrono::TimeDelta;
use domain::file::{File, FileCommand, FileEvent, FileIndex, Upload};
use embeddings::{Artifact, CHUNKER_VERSION, Chunk, Embedder, ExtractFailure, Extractor};
use eventlog::{RecordedEvent, StreamId};
use sha2::{Digest, Sha256};
use tokio::sync::watch;
use uuid::Uuid;

use super::queue::{Outcome, Queue, Slots};
use crate::execute::decode_event;
use crate::file::in_vault;
use crate::seal::product_key;
use crate::{Ask, Commands, Error};

/// How many files are worked on at once, and how many of one product: another's finds a place beside them. The
/// embedding threads are shared by all of them, and always find a file whose text is there while others are
/// claimed, read or stored.
const AT_ONCE: usize = 6;
const OF_ONE_PRODUCT: usize = 4;

/// How many of them are read at once, or hold a long text: each may take the memory that one file may.
const READ_AT_ONCE: usize = 3;
const READ_OF_ONE_PRODUCT: usize = 2;

/// A text that is longer than this keeps the place where it was read until it is embedded, in bytes.
const LONG: usize = 1024 * 1024;

/// For how long a worker claims a file.
pub(crate) const LEASE: TimeDelta = TimeDelta::minutes(30);

/// The largest file whose text is read, in bytes.
pub(crate) const LARGEST_READ: u64 = 64 * 1024 * 1024;

/// How many chunks are embedded between two looks at the clock.
const CHUNKS: usize = 32;

/// As many of a file that can be found already: one processor is enough for that.
const CHUNKS_OF_KNOWN: usize = 2;

/// How often what was embedded of a file is stored as a part of it.
const PART_EVERY: Duration = Duration::from_secs(2);

/// How often progress becomes an event.
const PROGRESS_EVERY: Duration = Duration::from_secs(1);

/// The process manager of files.
pub(super) struct Ingestion {
    commands: Commands,
    embedder: watch::Receiver<Option<Embedder>>,
    extractor: Extractor,
    worker: Uuid,
    queue: Arc<Queue>,
    reading: Slots,
}

/// Why a file never will be read: the file is at fault.
pub(super) struct Unreadable {
    pub(super) code: String,
    pub(super) message: String,
}

impl Unreadable {
    fn new(code: &str, message: impl ToString) -> Unreadable {
        Unreadable { code: code.to_owned(), message: message.to_string() }
    }
}

/// Why a file was not read, this time.
pub(super) enum Failure {
    /// For a reason that passes.
    Passing(String),
    /// Somebody else has it, or it is gone.
    NotOurs,
}

impl From<Error> for Failure {
    fn from(error: Error) -> Failure {
        match error {
            // Its holder may die: then its lease runs out, and the file is ours.
            Error::Refused { code: "lease_held", message, .. } => Failure::Passing(message),
            Error::Refused { .. } => Failure::NotOurs,
            other => Failure::Passing(other.to_string()),
        }
    }
}

impl Ingestion {
    pub(super) fn start(
        commands: Commands,
        embedder: watch::Receiver<Option<Embedder>>,
        extractor: Extractor,
        worker: Uuid,
    ) -> Arc<Ingestion> {
        Arc::new(Ingestion {
            commands,
            embedder,
            extractor,
            worker,
            queue: Arc::new(Queue::shared("ingestion", AT_ONCE, OF_ONE_PRODUCT)),
            reading: Slots::new(READ_AT_ONCE, READ_OF_ONE_PRODUCT),
        })
    }

    /// Reads a file of a product. Those of unknown ones count as one product's.
    pub(super) fn add(self: &Arc<Self>, product: Option<Uuid>, file: Uuid) {
        let ingestion = self.clone();
        self.queue.add_for(product.unwrap_or_default(), file, move || {
            let ingestion = ingestion.clone();
            async move { ingestion.read(file).await }
        });
    }

    /// Another node is gone: what waits for its lease need not.
    pub(super) fn hurry(&self) {
        self.queue.hurry();
    }

    pub(super) async fn stop(&self) {
        self.queue.stop().await;
    }

    async fn read(&self, file: Uuid) -> Outcome {
        let Some(embedder) = self.model().await else {
            return Outcome::TryAgain("the embedding model is missing".into());
        };
        match self.ingest(file, embedder).await {
            Ok(()) | Err(Failure::NotOurs) => Outcome::Finished,
            Err(Failure::Passing(why)) => Outcome::TryAgain(why),
        }
    }

    /// The embedding model, as soon as there is one; none when the server stops before. Nothing can
    /// be read without it, so whoever waits may keep its place.
    async fn model(&self) -> Option<Embedder> {
        let mut embedder = self.embedder.clone();
        tokio::select! {
            () = self.queue.stopping() => None,
            found = embedder.wait_for(Option::is_some) => found.ok().and_then(|found| found.clone()),
        }
    }

    async fn ingest(&self, file: Uuid, embedder: Embedder) -> Result<(), Failure> {
        let claim = self.claim(file).await?;
        let started = Instant::now();
        let product = claim.event.product.ok_or(Failure::NotOurs)?;
        let work =
            Work { file, product, upload: &claim.upload, embedder: &embedder, claim: Some(&claim) };
        let command = match self.index(&work).await? {
            Ok(index) => FileCommand::FinishIngestion { fence: claim.fence, index },
            Err(Unreadable { code, message }) => {
                FileCommand::Fail { fence: claim.fence, code, message }
            }
        };
        let done = self.commands.execute::<File>(file, command, &claim.ask("end")).await?;
        let outcome = done.events.last().map_or("unchanged", |event| event.event_type.as_str());
        tracing::info!(%file, outcome, milliseconds = started.elapsed().as_millis() as u64, "file read");
        metrics::counter!("prodgy_ingested_files_total", "outcome" => outcome.to_owned())
            .increment(1);
        Ok(())
    }

    /// What a model makes of a file: its artifact, made now unless it is there already, and how much that is.
    pub(super) async fn index(
        &self,
        work: &Work<'_>,
    ) -> Result<Result<FileIndex, Unreadable>, Failure> {
        let (name, artifact) = match self.artifact(work).await? {
            Ok(made) => made,
            Err(unreadable) => return Ok(Err(unreadable)),
        };
        Ok(Ok(FileIndex {
            artifact: name,
            chunks: u32::try_from(artifact.chunks.len()).unwrap_or(u32::MAX),
            characters: artifact.text.chars().count() as u64,
            tokens: count_tokens(work.embedder.clone(), &artifact).await?,
            model_revision: artifact.revision,
        }))
    }

    /// The artifact of a file and its name: the one that is there already, or a new one.
    async fn artifact(
        &self,
        work: &Work<'_>,
    ) -> Result<Result<(String, Artifact), Unreadable>, Failure> {
        let vault = self.commands.vault();
        let name = artifact_name(work.product, work.upload, work.embedder);
        let known = match vault.get_artifact(&name).await {
            // It is made anew, over the damaged one.
            Err(vault::Error::Corrupt { .. }) => None,
            known => known.map_err(Error::from)?,
        };
        if let Some(artifact) = known.and_then(|bytes| Artifact::decode(&bytes).ok()) {
            return Ok(Ok((name, artifact)));
        }
        let key = product_key(work.product);
        let mut parts = Parts { vault, key: &key, name: &name, stored: Vec::new() };
        let artifact = match self.make(work, &mut parts).await? {
            Ok(artifact) => artifact,
            Err(unreadable) => return Ok(Err(unreadable)),
        };
        vault.put_artifact(&key, &name, &artifact.encode()).await.map_err(Error::from)?;
        parts.remove().await;
        Ok(Ok((name, artifact)))
    }

    /// Takes the file for this worker.
    async fn claim(&self, file: Uuid) -> Result<Claimed, Failure> {
        let stream = StreamId::new("file", file);
        // From the log itself: the state in memory may lag behind the event that led here.
        let (state, sequence) = self.commands.replay::<File>(&stream).await?;
        let File::Processing { upload, .. } = state else { return Err(Failure::NotOurs) };
        let last =
            self.commands.log().read_stream(&stream, sequence - 1, 1).await.map_err(Error::from)?;
        let event = last.into_iter().next().ok_or(Failure::NotOurs)?;
        let lease = self.commands.lease(self.worker, LEASE);
        let ask = Ask::because_of(
            &event,
            "ingestion",
            &[b"start", self.worker.as_bytes(), Uuid::now_v7().as_bytes()],
        );
        let done =
            self.commands.execute::<File>(file, FileCommand::StartIngestion(lease), &ask).await?;
        for started in &done.events {
            if let FileEvent::IngestionStarted { fence, .. } = decode_event::<FileEvent>(started)? {
                return Ok(Claimed { event: started.clone(), upload, fence });
            }
        }
        Err(Failure::NotOurs)
    }

    /// Text, chunks and vectors of a file.
    async fn make(
        &self,
        work: &Work<'_>,
        parts: &mut Parts<'_>,
    ) -> Result<Result<Artifact, Unreadable>, Failure> {
        let &Work { file, product, upload, embedder, .. } = work;
        let blob = in_vault(&upload.blob);
        if blob.size > LARGEST_READ {
            let message = format!(
                "the text of a file of more than {} MiB is not read: split it into smaller files",
                LARGEST_READ / 1024 / 1024
            );
            return Ok(Err(Unreadable::new("too_large_to_read", message)));
        }
        let place = tokio::select! {
            () = self.queue.stopping() => return Err(Failure::Passing("the server stops".into())),
            place = self.reading.take(Some(product)) => place,
        };
        let bytes = match self.commands.vault().blob_bytes(product, &blob, LARGEST_READ).await {
            Ok(bytes) => bytes,
            Err(error @ (vault::Error::Corrupt { .. } | vault::Error::BlobMissing { .. })) => {
                return Ok(Err(Unreadable::new("bytes_lost", error)));
            }
            Err(error) => return Err(Error::from(error).into()),
        };
        let (name, media_type) = (upload.name.clone(), upload.media_type.clone());
        let (extractor, model) = (self.extractor.clone(), embedder.model().clone());
        let queue = self.queue.clone();
        let extracted = tokio::task::spawn_blocking(move || {
            let is_in_vain = || queue.is_stopping();
            let media_type = Some(media_type.as_str());
            let document = extractor.extract(name.as_str(), media_type, &bytes, &is_in_vain)?;
            let chunks = extractor.cut(&model, &document, &is_in_vain)?;
            Ok((document.text, chunks))
        });
        let (text, chunks) = match extracted.await {
            Ok(Ok(extracted)) => extracted,
            Ok(Err(ExtractFailure::Unreadable(error))) => {
                return Ok(Err(Unreadable::new(error.code(), error)));
            }
            Ok(Err(ExtractFailure::Passing(why))) => return Err(Failure::Passing(why)),
            Err(panicked) if panicked.is_panic() => {
                let error = embeddings::ExtractError::ReaderCrashed;
                return Ok(Err(Unreadable::new(error.code(), error)));
            }
            Err(_) => return Err(Failure::Passing("the server stops".into())),
        };
        let _place = place.filter(|_| text.len() > LONG);
        let mut made = Artifact {
            revision: embedder.model().revision().to_owned(),
            chunker_version: CHUNKER_VERSION.to_owned(),
            text,
            chunks,
            vectors: Vec::new(),
        };
        made.vectors = parts.load(&made).await?;
        if !made.vectors.is_empty() {
            tracing::info!(%file, chunk = made.vectors.len(), "reading goes on where it was cut off");
        }
        self.embed(work, parts, &mut made).await?;
        Ok(Ok(made))
    }

    /// The vectors of all chunks that have none yet.
    async fn embed(
        &self,
        work: &Work<'_>,
        parts: &mut Parts<'_>,
        made: &mut Artifact,
    ) -> Result<(), Failure> {
        let at_once = work.claim.map_or(CHUNKS_OF_KNOWN, |_| CHUNKS);
        let Artifact { revision, chunks, vectors, .. } = made;
        let mut reported = Instant::now();
        let (mut stored, mut stored_at) = (vectors.len(), Instant::now());
        while vectors.len() < chunks.len() {
            let rest = &chunks[vectors.len()..];
            let batch = &rest[..rest.len().min(at_once)];
            let texts = batch.iter().map(|chunk| chunk.passage().into_owned()).collect();
            let embedded = work.embedder.embed_passages(texts).await;
            vectors.extend(embedded.map_err(|error| Failure::Passing(error.to_string()))?);
            let due = work.claim.filter(|_| reported.elapsed() >= PROGRESS_EVERY);
            if let Some(claim) = due.filter(|_| vectors.len() < chunks.len()) {
                reported = Instant::now();
                let percent =
                    u8::try_from(vectors.len() * 100 / chunks.len()).unwrap_or(99).min(99);
                let command = FileCommand::Progress { fence: claim.fence, percent };
                let ask = claim.ask(&format!("progress {}", vectors.len()));
                self.commands.execute::<File>(claim.file(), command, &ask).await?;
            }
            let stops = self.queue.is_stopping();
            if (stops || stored_at.elapsed() >= PART_EVERY) && vectors.len() < chunks.len() {
                let part = part(revision, &chunks[stored..vectors.len()], &vectors[stored..]);
                parts.store(stored, &part).await?;
                (stored, stored_at) = (vectors.len(), Instant::now());
            }
            if stops && vectors.len() < chunks.len() {
                return Err(Failure::Passing("the server stops".into()));
            }
        }
        Ok(())
    }
}

/// The parts of an artifact that is being made, each of them an artifact of its own that is named by its first
/// chunk. What is left of a file that was never finished is garbage.
struct Parts<'a> {
    vault: &'a vault::Vault,
    key: &'a str,
    name: &'a str,
    /// The names of those that are there.
    stored: Vec<String>,
}

impl Parts<'_> {
    /// The vectors of what was embedded before a cut, as far as it is of these very chunks.
    async fn load(&mut self, made: &Artifact) -> Result<Vec<Vec<f32>>, Failure> {
        let mut vectors: Vec<Vec<f32>> = Vec::new();
        loop {
            let name = self.name_of(vectors.len());
            let bytes = match self.vault.get_artifact(&name).await {
                Err(vault::Error::Corrupt { .. }) => None,
                known => known.map_err(Error::from)?,
            };
            let Some(bytes) = bytes else { return Ok(vectors) };
            self.stored.push(name);
            let rest = &made.chunks[vectors.len()..];
            match Artifact::decode(&bytes) {
                Ok(part) if is_of(&part, &made.revision, rest) => vectors.extend(part.vectors),
                _ => return Ok(vectors),
            }
        }
    }

    async fn store(&mut self, first: usize, part: &Artifact) -> Result<(), Failure> {
        let name = self.name_of(first);
        self.vault.put_artifact(self.key, &name, &part.encode()).await.map_err(Error::from)?;
        self.stored.push(name);
        Ok(())
    }

    /// Removes them: the whole is there. What cannot be removed now is garbage.
    async fn remove(self) {
        for name in &self.stored {
            if let Err(error) = self.vault.delete_artifact(name).await {
                tracing::warn!(%error, name, "a part of a file that is ready could not be removed");
            }
        }
    }

    fn name_of(&self, first: usize) -> String {
        format!("{}.part-{first}", self.name)
    }
}

/// Some chunks with their vectors, as an artifact whose text is theirs.
fn part(revision: &str, chunks: &[Chunk], vectors: &[Vec<f32>]) -> Artifact {
    let mut text = String::new();
    let mut end = 0;
    let own = |chunk: &Chunk| {
        let char_start = end;
        end += chunk.text.chars().count() as u64;
        text.push_str(&chunk.text);
        Chunk { char_start, char_end: end, ..chunk.clone() }
    };
    let chunks = chunks.iter().map(own).collect();
    Artifact {
        revision: revision.to_owned(),
        chunker_version: CHUNKER_VERSION.to_owned(),
        text,
        chunks,
        vectors: vectors.to_vec(),
    }
}

/// Whether a part holds the beginning of these chunks, embedded by this model.
fn is_of(part: &Artifact, revision: &str, rest: &[Chunk]) -> bool {
    let texts = part.chunks.iter().map(|chunk| &chunk.text);
    part.revision == revision
        && part.chunker_version == CHUNKER_VERSION
        && !part.chunks.is_empty()
        && part.chunks.len() <= rest.len()
        && texts.eq(rest[..part.chunks.len()].iter().map(|chunk| &chunk.text))
}

/// The name of what a file becomes: made from its bytes, from what decides how they are read, and
/// from the readers' versions. So the same file in two knowledge bases is embedded once.
fn artifact_name(product: Uuid, upload: &Upload, embedder: &Embedder) -> String {
    let extension = upload.name.as_str().rsplit_once('.').map_or("", |(_, extension)| extension);
    let format = Sha256::new()
        .chain_update(extension.to_lowercase())
        .chain_update(b"\0")
        .chain_update(&upload.media_type)
        .finalize();
    let content = format!("{}-{}", upload.blob.name, hex::encode(&format[..4]));
    let name = Artifact::name(&content, CHUNKER_VERSION, embedder.model().revision());
    format!("{product}/{name}")
}

/// A file that is read for a model.
pub(super) struct Work<'a> {
    pub(super) file: Uuid,
    pub(super) product: Uuid,
    pub(super) upload: &'a Upload,
    pub(super) embedder: &'a Embedder,
    /// The claim under which progress is told; without one the file can be found already.
    pub(super) claim: Option<&'a Claimed>,
}

/// A file that is this worker's for now.
pub(super) struct Claimed {
    /// The event of the claim.
    event: Arc<RecordedEvent>,
    upload: Upload,
    fence: u64,
}

impl Claimed {
    /// The file.
    fn file(&self) -> Uuid {
        self.event.stream.uuid().unwrap_or_default()
    }

    /// A command that follows from the claim.
    fn ask(&self, what: &str) -> Ask {
        Ask::because_of(&self.event, "ingestion", &[what.as_bytes()])
    }
}

async fn count_tokens(embedder: Embedder, artifact: &Artifact) -> Result<u64, Failure> {
    let texts: Vec<String> =
        artifact.chunks.iter().map(|chunk| chunk.passage().into_owned()).collect();
    let counted = tokio::task::spawn_blocking(move || {
        texts
            .iter()
            .try_fold(0_u64, |sum, text| Ok(sum + embedder.model().count_tokens(text)? as u64))
    });
    counted
        .await
        .map_err(|_| Failure::Passing("the server stops".into()))?
        .map_err(|error: embeddings::ModelError| Failure::Passing(error.to_string()))
}
