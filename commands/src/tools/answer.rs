//! `llm.answer`: what answers, and how an answer cites.
//!
//! The rule of this file: a passage is cited by its place in the context, from 1, whoever answers.

pub mod chat;
pub mod extractive;

use async_trait::async_trait;
use domain::step::{AnswerCall, Passage};
use serde_json::Value;

use crate::policies::ToolError;

/// What answers questions.
#[async_trait]
pub trait AnswerModel: Send + Sync + 'static {
    /// Answers. Puts out `{"answer", "citations": [{number, text, …}], "model", "usage", "metadata":
    /// {"language_model", "method", …}}`, and `data` where the answer was to follow a schema.
    async fn answer(&self, call: &AnswerCall) -> Result<Value, ToolError>;
}

/// The passages that a text cites as `[1]` or `[1, 2]`, from 1, in the order in which it first does.
fn cited(text: &str, passages: usize) -> Vec<usize> {
    let mut numbers = Vec::new();
    for mark in text.split('[').skip(1).filter_map(|rest| rest.split_once(']')) {
        let marked: Result<Vec<usize>, _> =
            mark.0.split(',').map(|number| number.trim().parse()).collect();
        for number in marked.into_iter().flatten() {
            if (1..=passages).contains(&number) && !numbers.contains(&number) {
                numbers.push(number);
            }
        }
    }
    numbers
}

/// What is put out of each cited passage: all that is known of it, and its number.
fn citations(numbers: &[usize], passages: &[Passage]) -> Vec<Value> {
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
