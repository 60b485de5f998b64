//! What the assistant does with a question, whoever asks and wherever: it looks it up, and answers from what
//! it found.
//!
//! The rule of this file: a model is sent what was said and the passages of one product, and puts out text.
//! What stands in a passage is material: it reaches no tool, no other product and no secret. A citation
//! is one of a passage that was found.

use std::sync::Arc;

use domain::step::{AnswerCall, Passage, Task};
use serde_json::{Map, Value};
use tokio::sync::mpsc;
use unicode_segmentation::UnicodeSegmentation;
use uuid::Uuid;

use super::{Knowledge, ToolError};
use crate::tools::Tools;
use crate::tools::answer::marks::Marks;
use crate::tools::answer::{Role, Turn, citations};

/// How many passages are looked at.
const PASSAGES: usize = 8;

/// How many pieces of an answer wait for whoever writes them down.
const PIECES: usize = 64;

/// A question of fewer words leans on what was said before.
const FEW_WORDS: usize = 4;

/// Said where no passage is near.
const NOT_THERE: &str = "This is not in the knowledge base: nothing there is near to the question.";

const SYSTEM: &str = "You are the assistant of a workspace. Answer in the language of the question, briefly and to the point.";

/// What answers from knowledge bases.
pub(super) struct Assistant {
    knowledge: Arc<dyn Knowledge>,
    tools: Arc<Tools>,
}

/// A question, and what was said before it.
#[derive(Clone, Debug)]
pub(super) struct Question {
    /// Whose knowledge bases are asked.
    pub(super) product: Uuid,
    /// What is asked.
    pub(super) text: String,
    /// What was said before, oldest first.
    pub(super) before: Vec<Turn>,
    /// Among it is how to behave: nothing else is said of that.
    pub(super) has_instructions: bool,
}

/// What was found for a question.
#[derive(Debug)]
pub(super) struct Found {
    /// What is near to it, nearest first.
    pub(super) passages: Vec<Passage>,
    /// The question as it was looked up: with what it leans on.
    asked: String,
}

/// An answer.
#[derive(Debug)]
pub(super) struct Answer {
    /// What it says.
    pub(super) text: String,
    /// The passages that it cites, each with its `number`.
    pub(super) sources: Vec<Value>,
    /// What answered.
    pub(super) model: String,
    /// How many tokens that took.
    pub(super) usage: Value,
    /// How it came about.
    pub(super) about: Map<String, Value>,
    /// How many passages it was found in, or might have been.
    pub(super) retrieved: usize,
}

impl Assistant {
    pub(super) fn new(knowledge: Arc<dyn Knowledge>, tools: Arc<Tools>) -> Assistant {
        Assistant { knowledge, tools }
    }

    /// Looks up what may hold the answer. A question that leans on the one before it is looked up together with
    /// that first.
    ///
    /// # Errors
    /// The search fails.
    pub(super) async fn find(&self, question: &Question) -> Result<Found, ToolError> {
        let Question { product, text, before, .. } = question;
        let together = asked_before(before).map(|earlier| format!("{earlier}\n{text}"));
        let tries = match together {
            Some(together) if leans(text) => vec![together, text.clone()],
            _ => vec![text.clone()],
        };
        let mut found = Found { passages: Vec::new(), asked: text.clone() };
        for asked in tries {
            let near = self.knowledge.near(*product, asked.clone(), PASSAGES).await?;
            found.passages = near.into_iter().filter_map(as_passage).collect();
            if !found.passages.is_empty() {
                found.asked = asked;
                break;
            }
        }
        Ok(found)
    }

    /// Answers from what was found, and tells the answer while it is written. Its text is what was told,
    /// together.
    ///
    /// # Errors
    /// The model fails.
    pub(super) async fn answer(
        &self,
        question: &Question,
        found: Found,
        told: mpsc::Sender<String>,
    ) -> Result<Answer, ToolError> {
        let Found { passages, asked } = found;
        if passages.is_empty() {
            let _ = told.send(NOT_THERE.to_owned()).await;
            return Ok(Answer::not_there());
        }
        let has_model = self.tools.has_chat_model;
        let call = AnswerCall {
            // A model is told what was said before; the best sentences are those near to all of it.
            task: Task::Question(if has_model { question.text.clone() } else { asked }),
            system: (!question.has_instructions).then(|| SYSTEM.to_owned()),
            context: passages,
            model: None,
            temperature: None,
            max_tokens: None,
            schema: None,
        };
        let (raw, mut pieces) = mpsc::channel::<String>(PIECES);
        let answering = self.tools.answers.answer_in_pieces(&call, &question.before, raw);
        let passing_on = async {
            let mut marks = Marks::of(call.context.len());
            let mut text = String::new();
            while let Some(piece) = pieces.recv().await {
                let piece = marks.push(&piece);
                if !piece.is_empty() {
                    text.push_str(&piece);
                    let _ = told.send(piece).await;
                }
            }
            (text, marks)
        };
        let (answered, (text, marks)) = tokio::join!(answering, passing_on);
        let mut answered = answered?;
        let mut sources = citations(marks.cited(), &call.context);
        for (number, source) in (1..).zip(&mut sources) {
            source["number"] = Value::from(number);
        }
        let about = match answered["metadata"].take() {
            Value::Object(about) => about,
            _ => Map::new(),
        };
        let model = answered["model"].as_str().unwrap_or_default().to_owned();
        let (usage, retrieved) = (answered["usage"].take(), call.context.len());
        Ok(Answer { text, sources, model, usage, about, retrieved })
    }
}

impl Answer {
    fn not_there() -> Answer {
        let usage =
            serde_json::json!({ "prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0 });
        Answer {
            text: NOT_THERE.to_owned(),
            sources: Vec::new(),
            model: "none".to_owned(),
            usage,
            about: Map::from_iter([("method".to_owned(), "not_found".into())]),
            retrieved: 0,
        }
    }
}

/// A passage as a model gets it; without what would be a second text of it.
fn as_passage(passage: Value) -> Option<Passage> {
    let Value::Object(mut about) = passage else { return None };
    let Some(Value::String(text)) = about.remove("text") else { return None };
    Some(Passage { text, about })
}

/// The last question before this one.
fn asked_before(before: &[Turn]) -> Option<&str> {
    let turn = before.iter().rev().find(|turn| turn.role == Role::User)?;
    Some(turn.text.as_str()).filter(|text| !text.trim().is_empty())
}

/// Whether a question says too little by itself: it is short, begins with a word that goes on, or has one
/// that stands for something named before.
fn leans(question: &str) -> bool {
    const GO_ON: [&str; 14] = [
        "and", "but", "or", "so", "then", "why", "y", "pero", "und", "aber", "et", "mais", "e",
        "ma",
    ];
    const STAND_FOR: [&str; 29] = [
        "it", "its", "that", "this", "these", "those", "they", "them", "their", "he", "she", "him",
        "her", "his", "ones", "else", "same", "eso", "esto", "ello", "ellos", "ellas", "dies",
        "ihn", "cela", "ça", "elle", "questo", "quello",
    ];
    let words: Vec<String> = question.unicode_words().map(str::to_lowercase).collect();
    let begins = words.first().is_some_and(|first| GO_ON.contains(&first.as_str()));
    let stands = || words.iter().any(|word| STAND_FOR.contains(&word.as_str()));
    words.len() < FEW_WORDS || begins || stands()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_that_says_too_little_leans_on_the_one_before() {
        for leaning in [
            "Why?",
            "And in winter?",
            "How long does it last for a new employee?",
            "¿Y los demás empleados de la empresa?",
            "Who pays for that?",
        ] {
            assert!(leans(leaning), "{leaning}");
        }
        for whole in [
            "How many days of leave does an employee have?",
            "Who is the head of finance?",
            "Wie viele Tage Urlaub gibt der Vertrag?",
        ] {
            assert!(!leans(whole), "{whole}");
        }
    }

    #[test]
    fn the_question_before_is_the_last_that_was_asked() {
        let turn = |role, text: &str| Turn { role, text: text.to_owned() };
        let before = [
            turn(Role::System, "Be brief."),
            turn(Role::User, "First?"),
            turn(Role::User, "Second?"),
            turn(Role::Assistant, "Yes."),
        ];
        assert_eq!(asked_before(&before), Some("Second?"));
        assert_eq!(asked_before(&before[..1]), None);
    }
}
