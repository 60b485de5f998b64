//! Files of knowledge bases: from uploaded bytes to an event that names them.

use domain::file::{File, FileCommand, FileError, FileEvent, Upload, file_id};
use domain::knowledge_base::{KnowledgeBase, KnowledgeBaseError};
use domain::product::Product;
use domain::refusal::RefusalKind;
use domain::{BlobRef, FileName, derived_id};
use eventlog::StreamId;
use uuid::Uuid;

use crate::execute::decode_event;
use crate::{Ask, Commands, Done, Error};

/// What is said of a file beside its bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FileFacts {
    /// Where it comes from.
    pub source: Option<String>,
    /// What it is about.
    pub subject: Option<String>,
    /// Its language.
    pub language: Option<String>,
    /// Free words to find it by.
    pub tags: Vec<String>,
}

/// A file whose bytes are in the vault already.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewFile {
    /// What it is called.
    pub name: FileName,
    /// What the sender says it is.
    pub media_type: String,
    /// Its bytes.
    pub blob: BlobRef,
}

/// What became of one file of an upload.
#[derive(Clone, Debug)]
pub struct Uploaded {
    /// The file that holds the bytes now.
    pub id: Uuid,
    /// What was stored; none when the same bytes were there already.
    pub done: Option<Done>,
}

/// The media type of bytes of which nothing is known.
pub const BYTES: &str = "application/octet-stream";

/// What the vault calls a blob that an event names.
pub(crate) fn in_vault(blob: &BlobRef) -> vault::BlobRef {
    vault::BlobRef { name: blob.name.clone(), size: blob.size }
}

/// The media type of a file of which nobody said it, by its name.
pub fn media_type_of(name: &FileName) -> String {
    mime_guess::from_path(name.as_str()).first_raw().unwrap_or(BYTES).to_owned()
}

impl Commands {
    /// Puts files into a knowledge base, in their order. The same bytes twice are one file, unless
    /// `keep_duplicates`.
    ///
    /// The first new file is stored under the command id of `ask` itself, so a repeated upload is
    /// recognised, or refused as another one, before anything else is stored.
    ///
    /// # Errors
    /// The knowledge base is gone; [`Error::CommandReused`]; log or vault fail.
    pub async fn upload_files(
        &self,
        knowledge_base: Uuid,
        files: Vec<NewFile>,
        facts: &FileFacts,
        keep_duplicates: bool,
        ask: &Ask,
    ) -> Result<Vec<Uploaded>, Error> {
        let mut uploaded = Vec::with_capacity(files.len());
        let mut stored = 0_usize;
        for file in files {
            if stored == 0
                && let Some(first) =
                    self.first_of(knowledge_base, &file, keep_duplicates, ask).await?
                && first != file_id(knowledge_base, &file.blob)
            {
                // The first time it was a duplicate, and another one came first.
                let id = file_id(knowledge_base, &file.blob);
                uploaded.push(Uploaded { id, done: None });
                continue;
            }
            let ask = match stored {
                0 => ask.clone(),
                number => ask.follow_up(&format!("file {number}")),
            };
            let outcome =
                self.upload_file(knowledge_base, file, facts, keep_duplicates, &ask).await?;
            stored += usize::from(outcome.done.is_some());
            uploaded.push(outcome);
        }
        Ok(uploaded)
    }

    /// Which file is stored under the command id of `ask` itself, as far as that must be said beside
    /// the files: see [`Commands::hold_upload`].
    async fn first_of(
        &self,
        knowledge_base: Uuid,
        file: &NewFile,
        keep_duplicates: bool,
        ask: &Ask,
    ) -> Result<Option<Uuid>, Error> {
        if !ask.repeatable || self.log.capabilities().log_wide_command_ids {
            return Ok(None);
        }
        self.check_takes_files(knowledge_base).await?;
        let id = file_id(knowledge_base, &file.blob);
        let is_new = keep_duplicates
            || self.load::<File>(&StreamId::new("file", id)).await?.0.upload().is_none();
        self.hold_upload(id, is_new, ask).await
    }

    /// Puts one file into a knowledge base.
    ///
    /// # Errors
    /// As [`Commands::upload_files`].
    pub async fn upload_file(
        &self,
        knowledge_base: Uuid,
        file: NewFile,
        facts: &FileFacts,
        keep_duplicates: bool,
        ask: &Ask,
    ) -> Result<Uploaded, Error> {
        let uploaded = self.take_file(knowledge_base, file, facts, keep_duplicates, ask).await;
        if let Err(Error::Refused { kind: RefusalKind::NotFound, .. }) = &uploaded {
            self.drop_late_bytes(ask).await?;
        }
        uploaded
    }

    /// As [`Commands::upload_file`], of what is a version of something: it is a duplicate of the newest one, where it
    /// has the same bytes, and of no other.
    ///
    /// # Errors
    /// As there.
    pub async fn upload_version(
        &self,
        knowledge_base: Uuid,
        file: NewFile,
        facts: &FileFacts,
        newest: Option<Uuid>,
        ask: &Ask,
    ) -> Result<Uploaded, Error> {
        if let Some(newest) = newest
            && self.file(newest).await?.upload().is_some_and(|upload| upload.blob == file.blob)
            // The newest may be what this very command made before.
            && self.done_before(&StreamId::new("file", newest), ask).await?.is_none()
        {
            return Ok(Uploaded { id: newest, done: None });
        }
        self.upload_file(knowledge_base, file, facts, true, ask).await
    }

    async fn take_file(
        &self,
        knowledge_base: Uuid,
        file: NewFile,
        facts: &FileFacts,
        keep_duplicates: bool,
        ask: &Ask,
    ) -> Result<Uploaded, Error> {
        self.check_takes_files(knowledge_base).await?;
        let upload = Upload {
            knowledge_base,
            name: file.name,
            media_type: file.media_type,
            blob: file.blob,
            source: facts.source.clone(),
            subject: facts.subject.clone(),
            language: facts.language.clone(),
            tags: facts.tags.clone(),
        };
        let same_bytes = file_id(knowledge_base, &upload.blob);
        let command = FileCommand::Upload(upload.clone());
        let done = match self.execute::<File>(same_bytes, command.clone(), ask).await {
            Err(Error::Refused { code: "file_duplicate", .. }) if keep_duplicates => {
                let command_id = ask.command_id;
                let id =
                    derived_id(&[b"kept duplicate", same_bytes.as_bytes(), command_id.as_bytes()]);
                self.execute::<File>(id, command, ask).await?
            }
            Err(Error::Refused { code: "file_duplicate", .. }) => {
                return Ok(Uploaded { id: same_bytes, done: None });
            }
            done => done?,
        };
        // A repeated command may have stored another file of the same upload the first time: then
        // this one was a duplicate, and needed no command.
        let event =
            done.events.first().map(|event| decode_event::<FileEvent>(event)).transpose()?;
        let is_this_one =
            matches!(event, Some(FileEvent::Uploaded { blob, .. }) if blob == upload.blob);
        let Some(id) = done.stream_id().filter(|_| is_this_one) else {
            return Ok(Uploaded { id: same_bytes, done: None });
        };
        let still_taken = match self.check_takes_files(knowledge_base).await {
            Ok(()) => self.check_bytes(&upload, ask).await,
            gone => gone,
        };
        if let Err(refused) = still_taken {
            // It was deleted in between, and whoever emptied it may not have seen this file; or others with these
            // bytes were erased.
            match self.delete_file(id, &ask.follow_up("too late")).await {
                Ok(_) | Err(Error::Refused { .. }) => return Err(refused),
                Err(error) => return Err(error),
            }
        }
        Ok(Uploaded { id, done: Some(done) })
    }

    /// Makes sure that nobody has erased the bytes before it was said that they are needed.
    async fn check_bytes(&self, upload: &Upload, ask: &Ask) -> Result<(), Error> {
        let Some(product) = ask.metadata.product else { return Ok(()) };
        match self.vault.has_blob(product, &in_vault(&upload.blob)).await? {
            true => Ok(()),
            false => Err(Error::refused(&FileError::Erasing)),
        }
    }

    async fn check_takes_files(&self, knowledge_base: Uuid) -> Result<(), Error> {
        let stream = StreamId::new("knowledge_base", knowledge_base);
        match self.load::<KnowledgeBase>(&stream).await?.0 {
            KnowledgeBase::Active { .. } => Ok(()),
            KnowledgeBase::Missing | KnowledgeBase::Deleted => {
                Err(Error::refused(&KnowledgeBaseError::NotFound))
            }
        }
    }

    /// Removes bytes that came after those of their product were removed.
    async fn drop_late_bytes(&self, ask: &Ask) -> Result<(), Error> {
        let Some(product) = ask.metadata.product else { return Ok(()) };
        let (state, _) = self.load::<Product>(&StreamId::new("product", product)).await?;
        if matches!(state, Product::Deleted | Product::Erased) {
            self.vault.delete_blobs(product).await?;
        }
        Ok(())
    }

    /// Deletes a file: it is hidden. Its bytes stay until it is erased, or its product is.
    ///
    /// # Errors
    /// There is none of that id.
    pub async fn delete_file(&self, file: Uuid, ask: &Ask) -> Result<Done, Error> {
        self.execute::<File>(file, FileCommand::Delete, ask).await
    }

    /// Deletes a file, if that was not done, and asks for its bytes to be removed as well.
    ///
    /// # Errors
    /// There is none of that id, or nothing is left of it.
    pub async fn erase_file(&self, file: Uuid, ask: &Ask) -> Result<Done, Error> {
        self.execute::<File>(file, FileCommand::RequestErasure, ask).await
    }

    /// The state of a file.
    ///
    /// # Errors
    /// The log fails.
    pub async fn file(&self, file: Uuid) -> Result<File, Error> {
        Ok(self.load::<File>(&StreamId::new("file", file)).await?.0)
    }
}
