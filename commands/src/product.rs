//! Products: each is born with a data key and a default knowledge base.

use domain::knowledge_base::{KnowledgeBase, KnowledgeBaseCommand};
use domain::product::{Product, ProductCommand, ProductEvent};
use domain::{Description, Name, Retention, Rewording};
use eventlog::StreamId;
use uuid::Uuid;

use crate::execute::decode_event;
use crate::seal::product_key;
use crate::{Ask, Commands, Done, Error};

const DESCRIBED: &str = "product.described.v1";

/// What the default knowledge base is called.
const DEFAULT_BASE: &str = "Default";

impl Commands {
    /// Makes a product and its default knowledge base. The ids of both stand in the first event, so
    /// that a cut between the two is mended by asking again.
    ///
    /// # Errors
    /// Log or vault fail.
    pub async fn create_product(
        &self,
        name: Name,
        description: Option<Description>,
        ask: &Ask,
    ) -> Result<Done, Error> {
        let product = ask.new_id("product");
        let ask = ask.in_product(product);
        let stream = StreamId::new("product", product);
        let done = match self.done_before(&stream, &ask).await? {
            // It may have been erased since, and its key with it.
            Some(done) => done,
            None => {
                self.vault.create_key(&product_key(product)).await?;
                let description = self
                    .seal_description(product, &stream, DESCRIBED, description.as_ref(), &ask)
                    .await?;
                let knowledge_base = ask.new_id("knowledge base");
                let create = ProductCommand::Create { name, description, knowledge_base };
                self.execute_anew::<Product>(stream, create, &ask).await?
            }
        };
        for event in &done.events {
            if let ProductEvent::Created { knowledge_base, .. } =
                decode_event::<ProductEvent>(event)?
            {
                self.make_default_base(knowledge_base, &ask).await?;
            }
        }
        Ok(done)
    }

    /// Makes a product's default knowledge base, unless it is there.
    pub(crate) async fn make_default_base(&self, base: Uuid, ask: &Ask) -> Result<(), Error> {
        let (state, _) = self.load::<KnowledgeBase>(&StreamId::new("knowledge_base", base)).await?;
        if state != KnowledgeBase::default() {
            return Ok(());
        }
        let name = Name::parse(DEFAULT_BASE).map_err(|error| Error::refused(&error))?;
        let create = KnowledgeBaseCommand::Create { name, description: None, default: true };
        self.execute::<KnowledgeBase>(base, create, &ask.follow_up("default knowledge base"))
            .await?;
        Ok(())
    }

    /// Changes a product.
    ///
    /// # Errors
    /// There is none of that id.
    pub async fn change_product(
        &self,
        product: Uuid,
        name: Option<Name>,
        description: Option<Description>,
        retention: Option<Retention>,
        ask: &Ask,
    ) -> Result<Done, Error> {
        let ask = ask.in_product(product);
        let stream = StreamId::new("product", product);
        let description = match self.load::<Product>(&stream).await?.0 {
            Product::Active { description: old, .. } => {
                let texts = (&old, description.as_ref());
                self.reword(product, &stream, DESCRIBED, texts, &ask).await?
            }
            Product::Missing | Product::Deleted | Product::Erased => Rewording::Kept,
        };
        let change = ProductCommand::Change { name, description, retention };
        self.execute::<Product>(product, change, &ask).await
    }

    /// Deletes a product: what is inside can no longer be reached. A process manager then ends all of
    /// that, removes its files' bytes, and shreds the key that its texts are sealed with.
    ///
    /// # Errors
    /// There is none of that id.
    pub async fn delete_product(&self, product: Uuid, ask: &Ask) -> Result<Done, Error> {
        self.execute::<Product>(product, ProductCommand::Delete, &ask.in_product(product)).await
    }
}
