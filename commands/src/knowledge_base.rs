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

    /// Deletes a knowledge base: no file can come into it any more. A process manager then deletes its
    /// files.
    ///
    /// # Errors
    /// There is none of that id, or it is its product's default one.
    pub async fn delete_knowledge_base(&self, base: Uuid, ask: &Ask) -> Result<Done, Error> {
        let delete = KnowledgeBaseCommand::Delete { with_product: false };
        self.execute::<KnowledgeBase>(base, delete, ask).await
    }
}
