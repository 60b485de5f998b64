//! A generation: every file's chunks and vectors by one embedding model.
//!
//! Life: `Missing` → `Building` → `Complete`; from both → `Removed` → `Cleared`, and from there it can be begun again. Which of
//! several answers the searches is the one that was activated last; the others stay, and are kept up, until they are
//! removed. What is there of every file is in the file's own stream: see [`crate::file`].

use cqrs_es::event_sink::EventSink;
use cqrs_es::{Aggregate, DomainEvent};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::event;
use crate::refusal::{Refusal, RefusalKind};
use crate::values::derived_id;

/// The id of the generation of a model, by the revision of that.
pub fn generation_id(model_revision: &str) -> Uuid {
    derived_id(&[b"generation", model_revision.as_bytes()])
}

/// An embedding model.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EmbeddingModel {
    /// What it is called.
    pub model: String,
    /// Which weights, tokenizer and manner of use.
    pub model_revision: String,
}

/// What has happened to a generation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum GenerationEvent {
    /// Files are embedded by this model beside others.
    #[serde(rename = "generation.begun.v1")]
    Begun(EmbeddingModel),
    /// Every file of that moment is there.
    #[serde(rename = "generation.completed.v1")]
    Completed {
        /// How many files.
        files: u64,
        /// How many chunks they have.
        chunks: u64,
    },
    /// From here on it answers the searches.
    #[serde(rename = "generation.activated.v1")]
    Activated {},
    /// It is gone, and nothing is embedded for it.
    #[serde(rename = "generation.removed.v1")]
    Removed {},
    /// Nothing that its model made is stored any more.
    #[serde(rename = "generation.cleared.v1")]
    Cleared {},
}

/// What one may ask of a generation.
#[derive(Clone, Debug, PartialEq)]
pub enum GenerationCommand {
    /// Embed every file by this model.
    Begin(EmbeddingModel),
    /// Take note of the model that all files were embedded by when there were no generations.
    Adopt {
        /// The model.
        model: EmbeddingModel,
        /// How many files.
        files: u64,
        /// How many chunks they have.
        chunks: u64,
    },
    /// Say that every file is there.
    Complete {
        /// How many files.
        files: u64,
        /// How many chunks they have.
        chunks: u64,
    },
    /// Let it answer the searches.
    Activate,
    /// Remove it.
    Remove,
    /// Say that nothing that its model made is stored any more.
    Clear,
}

/// A generation.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Generation {
    /// Never begun.
    #[default]
    Missing,
    /// Some files are not there yet.
    Building,
    /// Every file was there once; newer ones follow.
    Complete,
    /// Gone; what its model made is being removed.
    Removed,
    /// Gone, until it is begun again.
    Cleared,
}

impl Generation {
    /// Answers a command with events or a refusal.
    pub fn decide(
        &self,
        command: GenerationCommand,
    ) -> Result<Vec<GenerationEvent>, GenerationError> {
        use {GenerationCommand as Do, GenerationEvent as Did};
        match (self, command) {
            (Generation::Missing | Generation::Cleared, Do::Begin(model)) => {
                Ok(vec![Did::Begun(model)])
            }
            // What it would find stored may be gone a moment later.
            (Generation::Removed, Do::Begin(_)) => Err(GenerationError::BeingRemoved),
            (Generation::Building | Generation::Complete, Do::Begin(_)) => {
                Err(GenerationError::Begun)
            }
            (Generation::Missing, Do::Adopt { model, files, chunks }) => {
                Ok(vec![Did::Begun(model), Did::Completed { files, chunks }, Did::Activated {}])
            }
            (_, Do::Adopt { .. }) => Ok(vec![]),
            (Generation::Removed, Do::Clear) => Ok(vec![Did::Cleared {}]),
            (_, Do::Clear) => Ok(vec![]),
            (Generation::Missing | Generation::Removed | Generation::Cleared, _) => {
                Err(GenerationError::NotFound)
            }
            (Generation::Building, Do::Complete { files, chunks }) => {
                Ok(vec![Did::Completed { files, chunks }])
            }
            (Generation::Complete, Do::Complete { .. }) => Ok(vec![]),
            (Generation::Building, Do::Activate) => Err(GenerationError::Incomplete),
            (Generation::Complete, Do::Activate) => Ok(vec![Did::Activated {}]),
            (Generation::Building | Generation::Complete, Do::Remove) => Ok(vec![Did::Removed {}]),
        }
    }
}

/// Why a generation refused a command.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GenerationError {
    /// There is no such generation, or no more.
    #[error(
        "there is no such generation: list the generations to see which there are, or begin it"
    )]
    NotFound,
    /// It is there.
    #[error("the generation of this model was begun already: look how far it is")]
    Begun,
    /// What it had is not gone yet.
    #[error("what this generation had made is still being removed: begin it in a moment")]
    BeingRemoved,
    /// Searches would miss files.
    #[error(
        "the generation is not complete: searches would miss files. Look how far it is, and activate it when it is done"
    )]
    Incomplete,
}

impl Refusal for GenerationError {
    fn reason(&self) -> (RefusalKind, &'static str) {
        match self {
            GenerationError::NotFound => (RefusalKind::NotFound, "generation_not_found"),
            GenerationError::Begun => (RefusalKind::Conflict, "generation_begun"),
            GenerationError::BeingRemoved => (RefusalKind::Conflict, "generation_being_removed"),
            GenerationError::Incomplete => (RefusalKind::Conflict, "generation_incomplete"),
        }
    }
}

impl Aggregate for Generation {
    const TYPE: &'static str = "generation";
    type Command = GenerationCommand;
    type Event = GenerationEvent;
    type Error = GenerationError;
    type Services = ();

    async fn handle(
        &mut self,
        command: GenerationCommand,
        _: &(),
        sink: &EventSink<Self>,
    ) -> Result<(), GenerationError> {
        for event in self.decide(command)? {
            sink.write(event, self).await;
        }
        Ok(())
    }

    fn apply(&mut self, event: GenerationEvent) {
        *self = match event {
            GenerationEvent::Begun(_) => Generation::Building,
            GenerationEvent::Completed { .. } => Generation::Complete,
            GenerationEvent::Activated {} => return,
            GenerationEvent::Removed {} => Generation::Removed,
            GenerationEvent::Cleared {} => Generation::Cleared,
        };
    }
}

impl DomainEvent for GenerationEvent {
    fn event_type(&self) -> String {
        event::name_of(self).to_owned()
    }

    fn event_version(&self) -> String {
        event::version_of(event::name_of(self)).to_owned()
    }
}

#[cfg(test)]
mod tests;
