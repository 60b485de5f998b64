//! A file of a knowledge base: its bytes are a blob, its text and vectors an artifact; here is what
//! became of it.
//!
//! Life: `Missing` → `Processing` → `Ready` or `Failed`; from each of them → `Deleted`, and from there, when
//! its bytes are to be erased as well, → `Erasing` → `Erased`. From `Deleted` and `Erased` the same bytes may come
//! again. One worker at a time ingests it: see [`crate::lease`].

use cqrs_es::event_sink::EventSink;
use cqrs_es::{Aggregate, DomainEvent};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::event;
use crate::lease::{Lease, LeaseClaim, LeaseError};
use crate::refusal::{Refusal, RefusalKind};
use crate::values::{BlobRef, FileName, Timestamp, derived_id};

/// The id of the file that these bytes are in this knowledge base: the same bytes twice are one file.
pub fn file_id(knowledge_base: Uuid, blob: &BlobRef) -> Uuid {
    derived_id(&[b"file", knowledge_base.as_bytes(), blob.name.as_bytes()])
}

/// What has happened to a file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum FileEvent {
    /// Its bytes arrived.
    #[serde(rename = "file.uploaded.v1")]
    Uploaded {
        /// Where it belongs.
        knowledge_base: Uuid,
        /// What it is called.
        name: FileName,
        /// What the sender said it is, as `text/markdown`.
        media_type: String,
        /// In bytes.
        size: u64,
        /// Its bytes.
        blob: BlobRef,
        /// Where it came from.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        source: Option<String>,
        /// What it is about.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        subject: Option<String>,
        /// The language it is written in.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        language: Option<String>,
        /// Words to find it by.
        tags: Vec<String>,
    },
    /// A worker began to read and index it.
    #[serde(rename = "file.ingestion_started.v1")]
    IngestionStarted {
        /// Who.
        worker: Uuid,
        /// The number of the claim.
        fence: u64,
        /// From then on others may claim it.
        lease_until: Timestamp,
    },
    /// The worker got further.
    #[serde(rename = "file.ingestion_progressed.v1")]
    IngestionProgressed {
        /// The number of the claim.
        fence: u64,
        /// How far, 0 to 100.
        percent: u8,
    },
    /// Its text and vectors are there.
    #[serde(rename = "file.indexed.v1")]
    Indexed {
        /// The number of the claim.
        fence: u64,
        /// The name of the artifact that holds text, chunks and vectors.
        artifact: String,
        /// How many chunks.
        chunks: u32,
        /// How many characters of text.
        characters: u64,
        /// How many tokens of the model.
        tokens: u64,
        /// The model that made the vectors.
        model_revision: String,
    },
    /// It cannot be read. Its bytes stay.
    #[serde(rename = "file.failed.v1")]
    Failed {
        /// The number of the claim.
        fence: u64,
        /// A stable code, as `not_utf8`.
        code: String,
        /// A sentence for a person.
        message: String,
    },
    /// Its text and vectors by a further model are there: see [`crate::generation`].
    #[serde(rename = "file.embedded.v1")]
    Embedded {
        /// The name of the artifact that holds text, chunks and vectors.
        artifact: String,
        /// How many chunks.
        chunks: u32,
        /// How many characters of text.
        characters: u64,
        /// How many tokens of the model.
        tokens: u64,
        /// The model that made the vectors.
        model_revision: String,
    },
    /// It cannot be read for a further model, though it could be once.
    #[serde(rename = "file.embedding_failed.v1")]
    EmbeddingFailed {
        /// The model.
        model_revision: String,
        /// A stable code, as `not_utf8`.
        code: String,
        /// A sentence for a person.
        message: String,
    },
    /// It is gone.
    #[serde(rename = "file.deleted.v1")]
    Deleted {},
    /// Its bytes, and all that was made of them, are to be removed.
    #[serde(rename = "file.erasure_requested.v1")]
    ErasureRequested {},
    /// They are, unless another file that is there has the very same ones.
    #[serde(rename = "file.erased.v1")]
    Erased {},
}

/// What one may ask of a file.
#[derive(Clone, Debug, PartialEq)]
pub enum FileCommand {
    /// Take note of bytes that arrived.
    Upload(Upload),
    /// Begin to read and index it, or go on after a crash.
    StartIngestion(LeaseClaim),
    /// Say how far it is.
    Progress {
        /// The number of the claim.
        fence: u64,
        /// How far, 0 to 100.
        percent: u8,
    },
    /// Say that text and vectors are there.
    FinishIngestion {
        /// The number of the claim.
        fence: u64,
        /// What is there.
        index: FileIndex,
    },
    /// Say that it cannot be read.
    Fail {
        /// The number of the claim.
        fence: u64,
        /// A stable code, as `not_utf8`.
        code: String,
        /// A sentence for a person.
        message: String,
    },
    /// Say that text and vectors by a further model are there.
    Embed(FileIndex),
    /// Say that it cannot be read for a further model.
    FailEmbedding {
        /// The model.
        model_revision: String,
        /// A stable code, as `not_utf8`.
        code: String,
        /// A sentence for a person.
        message: String,
    },
    /// Remove it.
    Delete,
    /// Remove it, if that was not done, and its bytes as well.
    RequestErasure,
    /// Remove its bytes, if it was removed.
    RequestErasureOfDeleted,
    /// Say that its bytes are removed.
    Erase,
}

/// What is known of a file when its bytes arrive.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Upload {
    /// Where it belongs.
    pub knowledge_base: Uuid,
    /// What it is called.
    pub name: FileName,
    /// What the sender said it is, as `text/markdown`.
    pub media_type: String,
    /// Its bytes.
    pub blob: BlobRef,
    /// Where it came from.
    pub source: Option<String>,
    /// What it is about.
    pub subject: Option<String>,
    /// The language it is written in.
    pub language: Option<String>,
    /// Words to find it by.
    pub tags: Vec<String>,
}

/// What is known of a file when it is indexed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FileIndex {
    /// The name of the artifact that holds text, chunks and vectors.
    pub artifact: String,
    /// How many chunks.
    pub chunks: u32,
    /// How many characters of text.
    pub characters: u64,
    /// How many tokens of the model.
    pub tokens: u64,
    /// The model that made the vectors.
    pub model_revision: String,
}

/// A file.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub enum File {
    /// Never uploaded.
    #[default]
    Missing,
    /// Uploaded, and being read or waiting for it.
    Processing {
        /// What was uploaded.
        upload: Upload,
        /// Who reads it.
        lease: Lease,
        /// How far it is, 0 to 100.
        percent: u8,
    },
    /// Can be found.
    Ready {
        /// What was uploaded.
        upload: Upload,
        /// What came out.
        index: FileIndex,
        /// The newest fence.
        fence: u64,
    },
    /// Cannot be read, only downloaded.
    Failed {
        /// What was uploaded.
        upload: Upload,
        /// A stable code.
        code: String,
        /// A sentence for a person.
        message: String,
        /// The newest fence.
        fence: u64,
    },
    /// Gone, until the same bytes come again.
    Deleted {
        /// The newest fence: no later claim may have a lower one, or a worker of the earlier life
        /// could report into the next.
        fence: u64,
    },
    /// Gone, and its bytes are being removed: until they are, the same ones cannot come again.
    Erasing {
        /// The newest fence.
        fence: u64,
    },
    /// Gone with its bytes, until the same ones come again.
    Erased {
        /// The newest fence.
        fence: u64,
    },
}

impl File {
    /// What was uploaded, while the file exists.
    pub fn upload(&self) -> Option<&Upload> {
        match self {
            File::Processing { upload, .. }
            | File::Ready { upload, .. }
            | File::Failed { upload, .. } => Some(upload),
            File::Missing | File::Deleted { .. } | File::Erasing { .. } | File::Erased { .. } => {
                None
            }
        }
    }

    /// Answers a command with events or a refusal.
    pub fn decide(&self, command: FileCommand) -> Result<Vec<FileEvent>, FileError> {
        use {FileCommand as Do, FileEvent as Did};
        match (self, command) {
            (File::Missing | File::Deleted { .. } | File::Erased { .. }, Do::Upload(upload)) => {
                Ok(vec![Did::Uploaded {
                    knowledge_base: upload.knowledge_base,
                    name: upload.name,
                    media_type: upload.media_type,
                    size: upload.blob.size,
                    blob: upload.blob,
                    source: upload.source,
                    subject: upload.subject,
                    language: upload.language,
                    tags: upload.tags,
                }])
            }
            (File::Erasing { .. }, Do::Upload(_)) => Err(FileError::Erasing),
            (_, Do::Upload(_)) => Err(FileError::Duplicate),
            (File::Deleted { .. }, Do::RequestErasure | Do::RequestErasureOfDeleted) => {
                Ok(vec![Did::ErasureRequested {}])
            }
            (File::Erasing { .. }, Do::RequestErasure | Do::RequestErasureOfDeleted) => Ok(vec![]),
            (File::Erasing { .. }, Do::Erase) => Ok(vec![Did::Erased {}]),
            (
                File::Missing | File::Deleted { .. } | File::Erasing { .. } | File::Erased { .. },
                _,
            ) => Err(FileError::NotFound),
            (_, Do::Delete) => Ok(vec![Did::Deleted {}]),
            (_, Do::RequestErasure) => Ok(vec![Did::Deleted {}, Did::ErasureRequested {}]),
            (_, Do::RequestErasureOfDeleted) => Err(FileError::NotDeleted),
            (_, Do::Erase) => Err(FileError::NotErasing),

            (File::Ready { .. }, Do::Embed(index)) => {
                let FileIndex { artifact, chunks, characters, tokens, model_revision } = index;
                Ok(vec![Did::Embedded { artifact, chunks, characters, tokens, model_revision }])
            }
            (File::Ready { .. }, Do::FailEmbedding { model_revision, code, message }) => {
                Ok(vec![Did::EmbeddingFailed { model_revision, code, message }])
            }
            (
                File::Processing { .. } | File::Failed { .. },
                Do::Embed(_) | Do::FailEmbedding { .. },
            ) => Err(FileError::NotReady),

            (File::Processing { lease, .. }, Do::StartIngestion(claim)) => {
                let fence = lease.claim(&claim)?;
                let LeaseClaim { worker, lease_until, .. } = claim;
                Ok(vec![Did::IngestionStarted { worker, fence, lease_until }])
            }
            (File::Processing { lease, percent: reached, .. }, Do::Progress { fence, percent }) => {
                lease.check(fence)?;
                match percent {
                    101.. => Err(FileError::PercentTooHigh),
                    _ if percent <= *reached => Ok(vec![]),
                    _ => Ok(vec![Did::IngestionProgressed { fence, percent }]),
                }
            }
            (File::Processing { lease, .. }, Do::FinishIngestion { fence, index }) => {
                lease.check(fence)?;
                let FileIndex { artifact, chunks, characters, tokens, model_revision } = index;
                Ok(vec![Did::Indexed {
                    fence,
                    artifact,
                    chunks,
                    characters,
                    tokens,
                    model_revision,
                }])
            }
            (File::Processing { lease, .. }, Do::Fail { fence, code, message }) => {
                lease.check(fence)?;
                Ok(vec![Did::Failed { fence, code, message }])
            }
            (File::Ready { .. } | File::Failed { .. }, Do::StartIngestion(_)) => {
                Err(FileError::NotProcessing)
            }
            (
                File::Ready { .. } | File::Failed { .. },
                Do::Progress { .. } | Do::FinishIngestion { .. } | Do::Fail { .. },
            ) => Err(FileError::Lease(LeaseError::Lost)),
        }
    }
}

/// Why a file refused a command.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FileError {
    /// There is no such file, or no more.
    #[error("there is no such file: list the knowledge base to see which there are")]
    NotFound,
    /// The same bytes are there already.
    #[error("the knowledge base holds these very bytes already: use that file, or delete it first")]
    Duplicate,
    /// It is read already.
    #[error("the file was read already: there is nothing left to do")]
    NotProcessing,
    /// The very same bytes are being removed.
    #[error("these very bytes are being erased: send them again in a moment")]
    Erasing,
    /// No rule erases what is there.
    #[error("the file is there: delete it first")]
    NotDeleted,
    /// Nobody asked for that.
    #[error("the file is there: ask for its erasure first")]
    NotErasing,
    /// It was not read once.
    #[error("a further model takes files that are ready: wait until this one is")]
    NotReady,
    /// More than everything.
    #[error("progress goes from 0 to 100 percent: report what is done, not more")]
    PercentTooHigh,
    /// Somebody else reads it.
    #[error(transparent)]
    Lease(#[from] LeaseError),
}

impl Refusal for FileError {
    fn reason(&self) -> (RefusalKind, &'static str) {
        match self {
            FileError::NotFound => (RefusalKind::NotFound, "file_not_found"),
            FileError::Duplicate => (RefusalKind::Conflict, "file_duplicate"),
            FileError::NotProcessing => (RefusalKind::Conflict, "file_not_processing"),
            FileError::Erasing => (RefusalKind::Conflict, "file_erasing"),
            FileError::NotDeleted => (RefusalKind::Conflict, "file_not_deleted"),
            FileError::NotErasing => (RefusalKind::Conflict, "file_not_erasing"),
            FileError::NotReady => (RefusalKind::Conflict, "file_not_ready"),
            FileError::PercentTooHigh => (RefusalKind::Invalid, "percent_too_high"),
            FileError::Lease(lease) => lease.reason(),
        }
    }
}

impl Aggregate for File {
    const TYPE: &'static str = "file";
    type Command = FileCommand;
    type Event = FileEvent;
    type Error = FileError;
    type Services = ();

    async fn handle(
        &mut self,
        command: FileCommand,
        _: &(),
        sink: &EventSink<Self>,
    ) -> Result<(), FileError> {
        for event in self.decide(command)? {
            sink.write(event, self).await;
        }
        Ok(())
    }

    fn apply(&mut self, event: FileEvent) {
        *self = match (std::mem::take(self), event) {
            (
                before,
                FileEvent::Uploaded {
                    knowledge_base,
                    name,
                    media_type,
                    size: _,
                    blob,
                    source,
                    subject,
                    language,
                    tags,
                },
            ) => File::Processing {
                upload: Upload {
                    knowledge_base,
                    name,
                    media_type,
                    blob,
                    source,
                    subject,
                    language,
                    tags,
                },
                lease: Lease { fence: before.fence(), holder: None },
                percent: 0,
            },
            (before, FileEvent::Deleted {}) => File::Deleted { fence: before.fence() },
            (before, FileEvent::ErasureRequested {}) => File::Erasing { fence: before.fence() },
            (before, FileEvent::Erased {}) => File::Erased { fence: before.fence() },
            (
                File::Processing { upload, mut lease, percent },
                FileEvent::IngestionStarted { worker, fence, lease_until },
            ) => {
                lease.taken(worker, fence, lease_until);
                File::Processing { upload, lease, percent }
            }
            (
                File::Processing { upload, lease, .. },
                FileEvent::IngestionProgressed { percent, .. },
            ) => File::Processing { upload, lease, percent },
            (
                File::Processing { upload, .. },
                FileEvent::Indexed { fence, artifact, chunks, characters, tokens, model_revision },
            ) => File::Ready {
                upload,
                index: FileIndex { artifact, chunks, characters, tokens, model_revision },
                fence,
            },
            (File::Processing { upload, .. }, FileEvent::Failed { fence, code, message }) => {
                File::Failed { upload, code, message, fence }
            }
            (before, _) => before,
        };
    }
}

impl File {
    /// The newest fence of all lives so far.
    fn fence(&self) -> u64 {
        match self {
            File::Missing => 0,
            File::Processing { lease, .. } => lease.fence,
            File::Ready { fence, .. }
            | File::Failed { fence, .. }
            | File::Deleted { fence }
            | File::Erasing { fence }
            | File::Erased { fence } => *fence,
        }
    }
}

impl DomainEvent for FileEvent {
    fn event_type(&self) -> String {
        event::name_of(self).to_owned()
    }

    fn event_version(&self) -> String {
        event::version_of(event::name_of(self)).to_owned()
    }
}

#[cfg(test)]
mod tests;
