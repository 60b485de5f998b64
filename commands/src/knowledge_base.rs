//! Knowledge bases: sets of files of a product.

use domain::knowledge_base::{KnowledgeBase, KnowledgeBaseCommand};
use domain::{Description, Name};
use uuid::Uuid;

use crate::{Ask, Commands, Done, Error};

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

    /// Deletes a knowledge base, after its files.
    ///
    /// # Errors
    /// There is none of that id, or it is its product's default one.
    pub async fn delete_knowledge_base(
        &self,
        base: Uuid,
        files: Vec<Uuid>,
        ask: &Ask,
    ) -> Result<Done, Error> {
        let done = self
            .execute::<KnowledgeBase>(
                base,
                KnowledgeBaseCommand::Delete { with_product: false },
                ask,
            )
            .await?;
        for file in files {
            self.delete_file(file, &ask.follow_up(&format!("delete {file}"))).await?;
        }
        Ok(done)
    }
}
