//! `llm.answer`: what answers, and how an answer cites.
//!
//! The rule of this file: a passage is cited by its place in the context, from 1, whoever answers.

pub mod chat;
pub mod extractive;
pub(crate) mod marks;

use async_trait::async_trait;
use domain::step::{AnswerCall, Passage};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::sync::mpsc;

use crate::policies::ToolError;

/// What answers questions.
#[async_trait]
pub trait AnswerModel: Send + Sync + 'static {
    /// Answers. Puts out `{"answer", "citations": [{number, text, …}], "model", "usage", "metadata":
    /// {"language_model", "method", …}}`, and `data` where the answer was to follow a schema.
    async fn answer(&self, call: &AnswerCall) -> Result<Value, ToolError> {
        let (pieces, _) = mpsc::channel(1);
        self.answer_in_pieces(call, &[], pieces).await
    }

    /// As [`AnswerModel::answer`], after what was said before, and told while it is written: the pieces
    /// together are the answer. Whoever does not listen hinders nobody.
    async fn answer_in_pieces(
        &self,
        call: &AnswerCall,
        before: &[Turn],
        pieces: mpsc::Sender<String>,
    ) -> Result<Value, ToolError>;
}

/// Something that was said.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Turn {
    /// By whom.
    pub role: Role,
    /// What.
    pub text: String,
}

/// Who says something.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Whoever made the program that asks: how the model is to behave.
    System,
    /// Whoever asks.
    User,
    /// Whoever answers.
    Assistant,
}

/// The passages that a text cites as `[1]` or `[1, 2]`, from 1, in the order in which it first does.
fn cited(text: &str, passages: usize) -> Vec<usize> {
    let mut numbers = Vec::new();
    for mark in text.split('[').skip(1).filter_map(|rest| rest.split_once(']')) {
        for number in numbers_in(mark.0).into_iter().flatten() {
            if (1..=passages).contains(&number) && !numbers.contains(&number) {
                numbers.push(number);
            }
        }
    }
    numbers
}

/// The numbers that stand between the brackets of a mark; none where something else does.
fn numbers_in(mark: &str) -> Option<Vec<usize>> {
    mark.split(',').map(|number| number.trim().parse().ok()).collect()
}

/// What is put out of each cited passage: all that is known of it, and its number.
pub(crate) fn citations(numbers: &[usize], passages: &[Passage]) -> Vec<Value> {
    let citation = |number: usize| {
        let passage = passages.get(number.checked_sub(1)?)?;
        let mut citation = passage.about.clone();
        citation.insert("number".to_owned(), number.into());
        citation.insert("text".to_owned(), passage.text.clone().into());
        Some(Value::Object(citation))
    };
    numbers.iter().filter_map(|number| citation(*number)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passages_are_cited_by_numbers_in_brackets_that_are_theirs() {
        assert_eq!(cited("It is so [2], and so [1][2]. See [3, 1].", 3), [2, 1, 3]);
        assert_eq!(cited("[0] [4] [x] [1; 2] [1", 3), [0usize; 0]);
    }
}
