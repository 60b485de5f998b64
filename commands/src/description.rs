//! Descriptions: what people say about products and knowledge bases.
//!
//! The rule of this file: they are in the log only sealed, under the key of their product; what was said before
//! that was so is still read. The same words again are no change: the clear ones are compared.

use domain::product::ProductError;
use domain::{Description, Rewording, Said, Sealed};
use eventlog::StreamId;
use uuid::Uuid;

use crate::seal::product_key;
use crate::{Ask, Commands, Error};

const FIELD: &str = "description";

impl Commands {
    /// Seals a description for the event that tells it; none where it says nothing.
    ///
    /// # Errors
    /// The product is gone; the vault fails.
    pub(crate) async fn seal_description(
        &self,
        product: Uuid,
        stream: &StreamId,
        event_type: &str,
        description: Option<&Description>,
        ask: &Ask,
    ) -> Result<Option<Sealed>, Error> {
        let text = description.map(Description::as_str).filter(|text| !text.is_empty());
        let Some(text) = text else { return Ok(None) };
        let key = product_key(product);
        let (organization, text) = (ask.organization(), text.as_bytes());
        match self.seal(&key, organization, stream, event_type, FIELD, text).await {
            Err(Error::Vault(
                vault::Error::KeyShredded { .. } | vault::Error::KeyMissing { .. },
            )) => Err(Error::refused(&ProductError::NotFound)),
            sealed => sealed.map(Some),
        }
    }

    /// What becomes of a description that is to be another one.
    ///
    /// # Errors
    /// As [`Commands::seal_description`].
    pub(crate) async fn reword(
        &self,
        product: Uuid,
        stream: &StreamId,
        event_type: &str,
        (old, new): (&Said, Option<&Description>),
        ask: &Ask,
    ) -> Result<Rewording, Error> {
        let Some(new) = new else { return Ok(Rewording::Kept) };
        let is_said = match old {
            Said::Nothing => false,
            Said::Clear(old) => old == new,
            Said::Sealed(old) => {
                let organization = ask.organization();
                let old = self.unseal(organization, stream, event_type, FIELD, old).await?;
                old.is_some_and(|old| *old == new.as_str().as_bytes())
            }
        };
        if is_said {
            return Ok(Rewording::Kept);
        }
        let sealed = self.seal_description(product, stream, event_type, Some(new), ask).await?;
        Ok(sealed.map_or(Rewording::Removed, Rewording::Sealed))
    }
}
