//! Evaluations: what came of asking a knowledge base questions of which somebody knows the answers.
//!
//! The rule of this file: the questions are people's words and are sealed; how good the answers were is not.

use domain::evaluation::{Evaluation, EvaluationCommand, Summary};
use eventlog::StreamId;
use serde::Serialize;

use crate::{Ask, Commands, Done, Error};

const FINISHED: &str = "evaluation.finished.v1";
const CONTENT: &str = "content";

impl Commands {
    /// The evaluation that was kept under this very request before.
    ///
    /// # Errors
    /// [`Error::CommandReused`] where it was another request; the log fails.
    pub async fn evaluation_kept(&self, ask: &Ask) -> Result<Option<Done>, Error> {
        self.done_before(&evaluation_of(ask), ask).await
    }

    /// Keeps what came of an evaluation in the product of `ask`, with its questions.
    ///
    /// # Errors
    /// Log or vault fail.
    pub async fn keep_evaluation(
        &self,
        summary: Summary,
        questions: &impl Serialize,
        ask: &Ask,
    ) -> Result<Done, Error> {
        let stream = evaluation_of(ask);
        let text = serde_json::to_vec(questions)
            .map_err(|source| Error::Decode { stream: stream.to_string(), source })?;
        let product = ask.metadata.product.unwrap_or_default();
        let content = self
            .seal_payload(ask.organization(), product, &stream, FINISHED, CONTENT, &text)
            .await?;
        let finish = EvaluationCommand::Finish { summary, content };
        self.execute_anew::<Evaluation>(stream, finish, ask).await
    }
}

fn evaluation_of(ask: &Ask) -> StreamId {
    StreamId::new("evaluation", ask.new_id("evaluation"))
}
