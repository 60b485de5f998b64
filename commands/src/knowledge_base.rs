//! Knowledge bases: sets of files of a product.

use domain::knowledge_base::{KnowledgeBase, KnowledgeBaseCommand};
use domain::product::ProductError;
use domain::{Description, Name, Rewording};
use eventlog::StreamId;
use uuid::Uuid;

use crate::{Ask, Commands, Done, Error};

const DESCRIBED: &str = "knowledge_base.described.v1";

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
        let base = ask.new_id("knowledge base");
        let stream = StreamId::new("knowledge_base", base);
        let description = self
            .seal_description(product_of(ask)?, &stream, DESCRIBED, description.as_ref(), ask)
            .await?;
        let create = KnowledgeBaseCommand::Create { name, description, default: false };
        self.execute::<KnowledgeBase>(base, create, ask).await
    }

    /// Changes a knowledge base in the product of `ask`.
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
        let stream = StreamId::new("knowledge_base", base);
        let description = match self.load::<KnowledgeBase>(&stream).await?.0 {
            KnowledgeBase::Active { description: old, .. } => {
                let texts = (&old, description.as_ref());
                self.reword(product_of(ask)?, &stream, DESCRIBED, texts, ask).await?
            }
            KnowledgeBase::Missing | KnowledgeBase::Deleted => Rewording::Kept,
        };
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

/// Whose key its texts are sealed with.
fn product_of(ask: &Ask) -> Result<Uuid, Error> {
    ask.metadata.product.ok_or_else(|| Error::refused(&ProductError::NotFound))
}
