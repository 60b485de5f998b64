//! A knowledge base: a set of files of a product, searched by meaning.
//!
//! Life: `Missing` → `Active` → `Deleted`, and never back. The default one of a product goes only
//! with its product.

use cqrs_es::event_sink::EventSink;
use cqrs_es::{Aggregate, DomainEvent};
use serde::{Deserialize, Serialize};

use crate::event;
use crate::refusal::{Refusal, RefusalKind};
use crate::values::{Description, Name, Rewording, Said, Sealed};

/// What has happened to a knowledge base.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum KnowledgeBaseEvent {
    /// It was made.
    #[serde(rename = "knowledge_base.created.v1")]
    Created {
        /// What people call it.
        name: Name,
        /// What people say about it, in the clear: of events from before that was sealed.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        description: Option<Description>,
        /// It is the one that a product is born with.
        default: bool,
    },
    /// What is given was changed.
    #[serde(rename = "knowledge_base.changed.v1")]
    Changed {
        /// Another name.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        name: Option<Name>,
        /// Another description, in the clear: of events from before that was sealed. An empty one took it away.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        description: Option<Description>,
    },
    /// People say something else about it.
    #[serde(rename = "knowledge_base.described.v1")]
    Described {
        /// What they say, sealed; nothing where it was taken away.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        description: Option<Sealed>,
    },
    /// It is gone.
    #[serde(rename = "knowledge_base.deleted.v1")]
    Deleted {},
}

/// What one may ask of a knowledge base.
#[derive(Clone, Debug, PartialEq)]
pub enum KnowledgeBaseCommand {
    /// Make it.
    Create {
        /// What people call it.
        name: Name,
        /// What people say about it, sealed.
        description: Option<Sealed>,
        /// It is the one that a product is born with.
        default: bool,
    },
    /// Change what is given, leave the rest.
    Change {
        /// Another name.
        name: Option<Name>,
        /// What people say about it from now on.
        description: Rewording,
    },
    /// Remove it.
    Delete {
        /// Its product is being deleted too: only then may the default one go.
        with_product: bool,
    },
}

/// A knowledge base.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub enum KnowledgeBase {
    /// Not made yet.
    #[default]
    Missing,
    /// In use.
    Active {
        /// What people call it.
        name: Name,
        /// What people say about it, often nothing.
        description: Said,
        /// It is the one that its product was born with.
        default: bool,
    },
    /// Gone for good.
    Deleted,
}

impl KnowledgeBase {
    /// Answers a command with events or a refusal.
    pub fn decide(
        &self,
        command: KnowledgeBaseCommand,
    ) -> Result<Vec<KnowledgeBaseEvent>, KnowledgeBaseError> {
        use {KnowledgeBaseCommand as Do, KnowledgeBaseEvent as Did};
        match (self, command) {
            (KnowledgeBase::Missing, Do::Create { name, description, default }) => {
                let created = Did::Created { name, description: None, default };
                let described = description.map(|text| Did::Described { description: Some(text) });
                Ok([created].into_iter().chain(described).collect())
            }
            // The default one is completed after its product, by whoever comes first.
            (KnowledgeBase::Active { default: true, .. }, Do::Create { default: true, .. }) => {
                Ok(vec![])
            }
            (KnowledgeBase::Active { .. } | KnowledgeBase::Deleted, Do::Create { .. }) => {
                Err(KnowledgeBaseError::AlreadyExists)
            }
            (
                KnowledgeBase::Missing | KnowledgeBase::Deleted,
                Do::Change { .. } | Do::Delete { .. },
            ) => Err(KnowledgeBaseError::NotFound),
            (
                KnowledgeBase::Active { name: old_name, description: old_description, .. },
                Do::Change { name, description },
            ) => {
                let name = name.filter(|name| name != old_name);
                let renamed = name.map(|name| Did::Changed { name: Some(name), description: None });
                let described = description
                    .event(old_description, |description| Did::Described { description });
                Ok(renamed.into_iter().chain(described).collect())
            }
            (KnowledgeBase::Active { default: true, .. }, Do::Delete { with_product: false }) => {
                Err(KnowledgeBaseError::Default)
            }
            (KnowledgeBase::Active { .. }, Do::Delete { .. }) => Ok(vec![Did::Deleted {}]),
        }
    }
}

/// Why a knowledge base refused a command.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KnowledgeBaseError {
    /// There is no such knowledge base, or no more.
    #[error("there is no such knowledge base: list those of the product to see which there are")]
    NotFound,
    /// The id is taken, or was.
    #[error("the knowledge base exists already: change that one, or make another")]
    AlreadyExists,
    /// The default one stays as long as its product.
    #[error("this is the product's default knowledge base: delete its files, or the whole product")]
    Default,
}

impl Refusal for KnowledgeBaseError {
    fn reason(&self) -> (RefusalKind, &'static str) {
        match self {
            KnowledgeBaseError::NotFound => (RefusalKind::NotFound, "knowledge_base_not_found"),
            KnowledgeBaseError::AlreadyExists => {
                (RefusalKind::Conflict, "knowledge_base_already_exists")
            }
            KnowledgeBaseError::Default => (RefusalKind::Conflict, "knowledge_base_is_default"),
        }
    }
}

impl Aggregate for KnowledgeBase {
    const TYPE: &'static str = "knowledge_base";
    type Command = KnowledgeBaseCommand;
    type Event = KnowledgeBaseEvent;
    type Error = KnowledgeBaseError;
    type Services = ();

    async fn handle(
        &mut self,
        command: KnowledgeBaseCommand,
        _: &(),
        sink: &EventSink<Self>,
    ) -> Result<(), KnowledgeBaseError> {
        for event in self.decide(command)? {
            sink.write(event, self).await;
        }
        Ok(())
    }

    fn apply(&mut self, event: KnowledgeBaseEvent) {
        match (&mut *self, event) {
            (_, KnowledgeBaseEvent::Created { name, description, default }) => {
                let description = description.unwrap_or_default().into();
                *self = KnowledgeBase::Active { name, description, default };
            }
            (_, KnowledgeBaseEvent::Deleted {}) => *self = KnowledgeBase::Deleted,
            (
                KnowledgeBase::Active { name, description, .. },
                KnowledgeBaseEvent::Changed { name: new_name, description: new_description },
            ) => {
                new_name.into_iter().for_each(|new| *name = new);
                new_description.into_iter().for_each(|new| *description = new.into());
            }
            (
                KnowledgeBase::Active { description, .. },
                KnowledgeBaseEvent::Described { description: new },
            ) => {
                *description = new.into();
            }
            (
                KnowledgeBase::Missing | KnowledgeBase::Deleted,
                KnowledgeBaseEvent::Changed { .. } | KnowledgeBaseEvent::Described { .. },
            ) => {}
        }
    }
}

impl DomainEvent for KnowledgeBaseEvent {
    fn event_type(&self) -> String {
        event::name_of(self).to_owned()
    }

    fn event_version(&self) -> String {
        event::version_of(event::name_of(self)).to_owned()
    }
}

#[cfg(test)]
mod tests;
