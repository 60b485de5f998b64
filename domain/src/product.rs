//! A product: a workspace inside an organization.
//!
//! Life: `Missing` → `Active` → `Deleted` → `Erased`, and never back: nobody reaches what is inside a
//! deleted one, and of an erased one there is nothing left to reach. Its first event fixes the id of its
//! default knowledge base, so that a crash in between cannot make two.

use cqrs_es::event_sink::EventSink;
use cqrs_es::{Aggregate, DomainEvent};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::event;
use crate::refusal::{Refusal, RefusalKind};
use crate::values::{Description, Name, Retention, Rewording, Said, Sealed};

/// What has happened to a product.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum ProductEvent {
    /// It was made.
    #[serde(rename = "product.created.v1")]
    Created {
        /// What people call it.
        name: Name,
        /// What people say about it, in the clear: of events from before that was sealed.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        description: Option<Description>,
        /// The id of its default knowledge base.
        knowledge_base: Uuid,
    },
    /// What is given was changed.
    #[serde(rename = "product.changed.v1")]
    Changed {
        /// Another name.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        name: Option<Name>,
        /// Another description, in the clear: of events from before that was sealed. An empty one took it away.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        description: Option<Description>,
    },
    /// People say something else about it.
    #[serde(rename = "product.described.v1")]
    Described {
        /// What they say, sealed; nothing where it was taken away.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        description: Option<Sealed>,
    },
    /// Another rule says how long what is deleted in it is kept.
    #[serde(rename = "product.retention_set.v1")]
    RetentionSet {
        /// So many days after it was deleted, a file is erased; only when it is asked for, where there is no number.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        deleted_files_days: Option<u32>,
    },
    /// It is gone.
    #[serde(rename = "product.deleted.v1")]
    Deleted {},
    /// What was inside is gone too, its files' bytes are removed, and the key that its texts are sealed
    /// with is shredded.
    #[serde(rename = "product.erased.v1")]
    Erased {},
}

/// What one may ask of a product.
#[derive(Clone, Debug, PartialEq)]
pub enum ProductCommand {
    /// Make it.
    Create {
        /// What people call it.
        name: Name,
        /// What people say about it, sealed.
        description: Option<Sealed>,
        /// The id that its default knowledge base will have.
        knowledge_base: Uuid,
    },
    /// Change what is given, leave the rest.
    Change {
        /// Another name.
        name: Option<Name>,
        /// What people say about it from now on.
        description: Rewording,
        /// Another rule of how long what is deleted is kept.
        retention: Option<Retention>,
    },
    /// Remove it.
    Delete,
    /// Say that all that had to follow from its removal is done.
    Erase,
}

/// A product.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub enum Product {
    /// Not made yet.
    #[default]
    Missing,
    /// In use.
    Active {
        /// What people call it.
        name: Name,
        /// What people say about it, often nothing.
        description: Said,
        /// Its default knowledge base.
        knowledge_base: Uuid,
        /// How long what is deleted is kept.
        retention: Retention,
    },
    /// Gone for good.
    Deleted,
    /// Gone, with all that was inside.
    Erased,
}

impl Product {
    /// How long what is deleted in it is kept; of one that is gone no rule says anything.
    pub fn retention(&self) -> Retention {
        match self {
            Product::Active { retention, .. } => *retention,
            Product::Missing | Product::Deleted | Product::Erased => Retention::default(),
        }
    }

    /// Answers a command with events or a refusal.
    pub fn decide(&self, command: ProductCommand) -> Result<Vec<ProductEvent>, ProductError> {
        use {ProductCommand as Do, ProductEvent as Did};
        match (self, command) {
            (Product::Missing, Do::Create { name, description, knowledge_base }) => {
                let created = Did::Created { name, description: None, knowledge_base };
                let described = description.map(|text| Did::Described { description: Some(text) });
                Ok([created].into_iter().chain(described).collect())
            }
            (Product::Active { .. } | Product::Deleted | Product::Erased, Do::Create { .. }) => {
                Err(ProductError::AlreadyExists)
            }
            (
                Product::Missing | Product::Deleted | Product::Erased,
                Do::Change { .. } | Do::Delete,
            )
            | (Product::Missing, Do::Erase) => Err(ProductError::NotFound),
            (Product::Active { .. }, Do::Erase) => Err(ProductError::NotDeleted),
            (Product::Deleted, Do::Erase) => Ok(vec![Did::Erased {}]),
            // Whoever finishes it may have been cut off right after this.
            (Product::Erased, Do::Erase) => Ok(vec![]),
            (
                Product::Active {
                    name: old_name,
                    description: old_description,
                    retention: old_retention,
                    ..
                },
                Do::Change { name, description, retention },
            ) => {
                let name = name.filter(|name| name != old_name);
                let renamed = name.map(|name| Did::Changed { name: Some(name), description: None });
                let described = description
                    .event(old_description, |description| Did::Described { description });
                let retention = retention.filter(|retention| retention != old_retention);
                let kept = retention.map(|Retention { deleted_files_days }| Did::RetentionSet {
                    deleted_files_days,
                });
                Ok(renamed.into_iter().chain(described).chain(kept).collect())
            }
            (Product::Active { .. }, Do::Delete) => Ok(vec![Did::Deleted {}]),
        }
    }
}

/// Why a product refused a command.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProductError {
    /// There is no such product, or no more.
    #[error("there is no such product: list the products to see which there are")]
    NotFound,
    /// The id is taken, or was.
    #[error("the product exists already: change that one, or make another")]
    AlreadyExists,
    /// Only what was deleted is erased.
    #[error("the product is not deleted: delete it first")]
    NotDeleted,
}

impl Refusal for ProductError {
    fn reason(&self) -> (RefusalKind, &'static str) {
        match self {
            ProductError::NotFound => (RefusalKind::NotFound, "product_not_found"),
            ProductError::AlreadyExists => (RefusalKind::Conflict, "product_already_exists"),
            ProductError::NotDeleted => (RefusalKind::Conflict, "product_not_deleted"),
        }
    }
}

impl Aggregate for Product {
    const TYPE: &'static str = "product";
    type Command = ProductCommand;
    type Event = ProductEvent;
    type Error = ProductError;
    type Services = ();

    async fn handle(
        &mut self,
        command: ProductCommand,
        _: &(),
        sink: &EventSink<Self>,
    ) -> Result<(), ProductError> {
        for event in self.decide(command)? {
            sink.write(event, self).await;
        }
        Ok(())
    }

    fn apply(&mut self, event: ProductEvent) {
        match (&mut *self, event) {
            (_, ProductEvent::Created { name, description, knowledge_base }) => {
                let description = description.unwrap_or_default().into();
                let retention = Retention::default();
                *self = Product::Active { name, description, knowledge_base, retention };
            }
            (_, ProductEvent::Deleted {}) => *self = Product::Deleted,
            (_, ProductEvent::Erased {}) => *self = Product::Erased,
            (
                Product::Active { name, description, .. },
                ProductEvent::Changed { name: new_name, description: new_description },
            ) => {
                new_name.into_iter().for_each(|new| *name = new);
                new_description.into_iter().for_each(|new| *description = new.into());
            }
            (Product::Active { description, .. }, ProductEvent::Described { description: new }) => {
                *description = new.into();
            }
            (
                Product::Active { retention, .. },
                ProductEvent::RetentionSet { deleted_files_days },
            ) => *retention = Retention { deleted_files_days },
            (
                Product::Missing | Product::Deleted | Product::Erased,
                ProductEvent::Changed { .. }
                | ProductEvent::Described { .. }
                | ProductEvent::RetentionSet { .. },
            ) => {}
        }
    }
}

impl DomainEvent for ProductEvent {
    fn event_type(&self) -> String {
        event::name_of(self).to_owned()
    }

    fn event_version(&self) -> String {
        event::version_of(event::name_of(self)).to_owned()
    }
}

#[cfg(test)]
mod tests;
