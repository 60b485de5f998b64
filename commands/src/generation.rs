//! Generations: which models embed the files.
//!
//! The rule of this file: which generation answers the searches is told by the streams of all of them, and one comes to
//! answer by an event in its own. So who was told that it does not answer removes it as its stream was then, or not
//! at all.

use domain::generation::{EmbeddingModel, Generation, GenerationCommand, generation_id};
use eventlog::{Position, StreamId};

use crate::execute::state_after;
use crate::{Ask, Commands, Done, Error};

impl Commands {
    /// Lets a further model embed every file. The one that did so until now is taken note of first, where it
    /// was not yet: `active`, with how many files and chunks it has.
    ///
    /// # Errors
    /// It was begun already; log or vault fail.
    pub async fn begin_generation(
        &self,
        model: EmbeddingModel,
        active: Option<(EmbeddingModel, u64, u64)>,
        ask: &Ask,
    ) -> Result<Done, Error> {
        if let Some((active, files, chunks)) = active {
            let id = generation_id(&active.model_revision);
            let adopt = GenerationCommand::Adopt { model: active, files, chunks };
            self.execute::<Generation>(id, adopt, &ask.follow_up("adopt")).await?;
        }
        let id = generation_id(&model.model_revision);
        self.execute::<Generation>(id, GenerationCommand::Begin(model), ask).await
    }

    /// Lets a generation answer the searches.
    ///
    /// # Errors
    /// It is not there, or not complete; log or vault fail.
    pub async fn activate_generation(&self, revision: &str, ask: &Ask) -> Result<Done, Error> {
        let id = generation_id(revision);
        self.execute::<Generation>(id, GenerationCommand::Activate, ask).await
    }

    /// Removes a generation that did not answer the searches at a position of the log.
    ///
    /// # Errors
    /// It is not there; log or vault fail; [`Error::Conflict`] where something has happened to it since that
    /// position: look again.
    pub async fn remove_generation(
        &self,
        revision: &str,
        idle_at: Position,
        ask: &Ask,
    ) -> Result<Done, Error> {
        let stream = StreamId::new("generation", generation_id(revision));
        if let Some(done) = self.done_before(&stream, ask).await? {
            return Ok(done);
        }
        let events = self.whole_stream(&stream).await?;
        if events.last().is_some_and(|last| last.position > idle_at) {
            return Err(Error::Conflict);
        }
        let loaded = (state_after::<Generation>(&events)?, events.len() as u64);
        self.decide(&stream, loaded, GenerationCommand::Remove, ask).await
    }
}

#[cfg(test)]
mod tests;
