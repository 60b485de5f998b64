//! Files of knowledge bases: from uploaded bytes to an event that names them.

use domain::file::{File, FileCommand, Upload, file_id};
use domain::{BlobRef, FileName, derived_id};
use eventlog::StreamId;
use uuid::Uuid;

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

/// What became of an upload.
#[derive(Clone, Debug)]
pub struct Uploaded {
    /// The file.
    pub id: Uuid,
    /// The outcome; none when the same bytes are there already.
    pub done: Option<Done>,
}

impl Commands {
    /// Puts a file into a knowledge base. Its bytes are in the vault already. The same bytes twice
    /// are one file, unless `keep_duplicates`.
    ///
    /// # Errors
    /// Log or vault fail.
    pub async fn upload_file(
        &self,
        knowledge_base: Uuid,
        name: FileName,
        media_type: String,
        blob: BlobRef,
        facts: FileFacts,
        keep_duplicates: bool,
        ask: &Ask,
    ) -> Result<Uploaded, Error> {
        let same_bytes = file_id(knowledge_base, &blob);
        let upload = Upload {
            knowledge_base,
            name,
            media_type,
            blob,
            source: facts.source,
            subject: facts.subject,
            language: facts.language,
            tags: facts.tags,
        };
        match self.execute::<File>(same_bytes, FileCommand::Upload(upload.clone()), ask).await {
            Err(Error::Refused { code: "file_duplicate", .. }) if keep_duplicates => {
                let id = derived_id(&[
                    b"kept duplicate",
                    same_bytes.as_bytes(),
                    ask.command_id.as_bytes(),
                ]);
                let done = self.execute::<File>(id, FileCommand::Upload(upload), ask).await?;
                Ok(Uploaded { id, done: Some(done) })
            }
            Err(Error::Refused { code: "file_duplicate", .. }) => {
                Ok(Uploaded { id: same_bytes, done: None })
            }
            Err(error) => Err(error),
            Ok(done) => {
                // A repeated command may have kept a duplicate the first time.
                let id = done.stream_id().unwrap_or(same_bytes);
                Ok(Uploaded { id, done: Some(done) })
            }
        }
    }

    /// Deletes a file. Its bytes stay until retention removes them: a citation still resolves.
    ///
    /// # Errors
    /// There is none of that id.
    pub async fn delete_file(&self, file: Uuid, ask: &Ask) -> Result<Done, Error> {
        self.execute::<File>(file, FileCommand::Delete, ask).await
    }

    /// The state of a file.
    ///
    /// # Errors
    /// The log fails.
    pub async fn file(&self, file: Uuid) -> Result<File, Error> {
        Ok(self.load::<File>(&StreamId::new("file", file)).await?.0)
    }
}
