//! Generations: which models embed the files.

use domain::generation::{EmbeddingModel, Generation, GenerationCommand, generation_id};

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

    /// Removes a generation.
    ///
    /// # Errors
    /// It is not there; log or vault fail.
    pub async fn remove_generation(&self, revision: &str, ask: &Ask) -> Result<Done, Error> {
        let id = generation_id(revision);
        self.execute::<Generation>(id, GenerationCommand::Remove, ask).await
    }
}
