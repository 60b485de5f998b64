//! Knowledge bases: sets of files of a product.

use domain::knowledge_base::{KnowledgeBase, KnowledgeBaseCommand};
use domain::refusal::RefusalKind;
use domain::{Description, Name};
use futures::{StreamExt, TryStreamExt, stream};
use uuid::Uuid;

use crate::{Ask, Commands, Done, Error};

/// How many files are deleted at once: their events share commits.
const FILES_AT_ONCE: usize = 64;

impl Commands {
    /// Makes a knowledge base in the product of `ask`.
    ///
    /// # Errors
    /// Log or vault fail.
    pub async fn create_knowledge_base(
        &self,
        name: Name,
        description: Option<Description>,
        ask: &Ask,
    ) -> Result<Done, Error> {
        let create = KnowledgeBaseCommand::Create { name, description, default: false };
        self.execute::<KnowledgeBase>(ask.new_id("knowledge base"), create, ask).await
    }

    /// Changes a knowledge base.
    ///
    /// # Errors
    /// There is none of that id.
    pub async fn change_knowledge_base(
        &self,
        base: Uuid,
        name: Option<Name>,
        description: Option<Description>,
        ask: &Ask,
    ) -> Result<Done, Error> {
        self.execute::<KnowledgeBase>(base, KnowledgeBaseCommand::Change { name, description }, ask)
            .await
    }

    /// Deletes a knowledge base and then its files, so that none can come in between. What was
    /// stored for the files stands in the answer too.
    ///
    /// # Errors
    /// There is none of that id, or it is its product's default one.
    pub async fn delete_knowledge_base(
        &self,
        base: Uuid,
        files: Vec<Uuid>,
        ask: &Ask,
    ) -> Result<Done, Error> {
        let delete = KnowledgeBaseCommand::Delete { with_product: false };
        let mut done = self.execute::<KnowledgeBase>(base, delete, ask).await?;
        let deletions = stream::iter(files).map(|file| async move {
            match self.delete_file(file, &ask.follow_up(&format!("delete {file}"))).await {
                // Somebody else deleted it in the meantime.
                Err(Error::Refused { kind: RefusalKind::NotFound, .. }) => Ok(vec![]),
                deleted => deleted.map(|deleted| deleted.events),
            }
        });
        let mut deletions = deletions.buffer_unordered(FILES_AT_ONCE);
        while let Some(events) = deletions.try_next().await? {
            done.events.extend(events);
        }
        done.events.sort_by_key(|event| event.position);
        Ok(done)
    }
}
