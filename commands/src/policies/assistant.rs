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
use crate::tools::answer::marks::{Marks, unmarked};
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
    /// The question before, where it was looked up with that.
    leans_on: Option<String>,
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

    /// Looks up what may hold the answer. A question that goes on from the one before is looked up together with that, too; one
    /// that is merely short only where nothing is near to it alone: it may be of something else.
    ///
    /// # Errors
    /// The search fails.
    pub(super) async fn find(&self, question: &Question) -> Result<Found, ToolError> {
        let Question { product, text, before, .. } = question;
        let alone = self.look_up(*product, text.clone()).await?;
        let leans = goes_on(text) || (is_short(text) && alone.is_empty());
        let Some(earlier) = asked_before(before).filter(|_| leans) else {
            return Ok(Found { passages: alone, leans_on: None });
        };
        let together = self.look_up(*product, format!("{earlier}\n{text}")).await?;
        Ok(Found { passages: merged(alone, together), leans_on: Some(earlier.to_owned()) })
    }

    async fn look_up(&self, product: Uuid, asked: String) -> Result<Vec<Passage>, ToolError> {
        let near = self.knowledge.near(product, asked, PASSAGES).await?;
        Ok(near.into_iter().filter_map(as_passage).collect())
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
        let Found { passages, leans_on } = found;
        if passages.is_empty() {
            let _ = told.send(NOT_THERE.to_owned()).await;
            return Ok(Answer::not_there());
        }
        // A model is told all that was said before; the best sentences are looked for with what the question leans on.
        let before: Vec<Turn> = match self.tools.has_chat_model {
            true => question.before.iter().map(without_marks).collect(),
            false => leans_on.map(|text| Turn { role: Role::User, text }).into_iter().collect(),
        };
        let call = AnswerCall {
            task: Task::Question(question.text.clone()),
            system: (!question.has_instructions).then(|| SYSTEM.to_owned()),
            context: passages,
            model: None,
            temperature: None,
            max_tokens: None,
            schema: None,
        };
        let (raw, mut pieces) = mpsc::channel::<String>(PIECES);
        let answering = self.tools.answers.answer_in_pieces(&call, &before, raw);
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

/// A turn as a model hears it again: the numbers of an earlier answer are those of other passages.
fn without_marks(turn: &Turn) -> Turn {
    match turn.role {
        Role::Assistant => Turn { role: turn.role, text: unmarked(&turn.text) },
        Role::System | Role::User => turn.clone(),
    }
}

/// What two searches found, by turns, each passage once.
fn merged(one: Vec<Passage>, other: Vec<Passage>) -> Vec<Passage> {
    let place =
        |passage: &Passage| ["file_id", "chunk_index"].map(|name| passage.about.get(name).cloned());
    let mut merged: Vec<Passage> = Vec::new();
    let (mut one, mut other) = (one.into_iter(), other.into_iter());
    loop {
        let next = [one.next(), other.next()];
        if next.iter().all(Option::is_none) || merged.len() >= PASSAGES {
            merged.truncate(PASSAGES);
            return merged;
        }
        for passage in next.into_iter().flatten() {
            if merged.iter().all(|known| place(known) != place(&passage)) {
                merged.push(passage);
            }
        }
    }
}

/// The last question before this one.
fn asked_before(before: &[Turn]) -> Option<&str> {
    let turn = before.iter().rev().find(|turn| turn.role == Role::User)?;
    Some(turn.text.as_str()).filter(|text| !text.trim().is_empty())
}

/// Whether a question may say too little by itself.
fn is_short(question: &str) -> bool {
    question.unicode_words().count() < FEW_WORDS
}

/// Whether a question goes on from what was said before: it begins with a word that does, or has one that stands for
/// something named before.
fn goes_on(question: &str) -> bool {
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
    begins || stands()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_that_goes_on_is_told_by_its_words() {
        for leaning in [
            "Why?",
            "And part-timers?",
            "And in winter?",
            "How long does it last for a new employee?",
            "¿Y los demás empleados de la empresa?",
            "Who pays for that?",
        ] {
            assert!(goes_on(leaning), "{leaning}");
        }
        for whole in [
            "How many days of leave does an employee have?",
            "Parking price?",
            "Who is the head of finance?",
            "Wie viele Tage Urlaub gibt der Vertrag?",
        ] {
            assert!(!goes_on(whole), "{whole}");
        }
    }

    #[test]
    fn what_two_searches_find_comes_by_turns_and_once() {
        let passage = |number: u64| {
            let about = Map::from_iter([("chunk_index".to_owned(), number.into())]);
            Passage { text: number.to_string(), about }
        };
        let all = |numbers: &[u64]| numbers.iter().map(|number| passage(*number)).collect();
        let texts = |found: Vec<Passage>| found.into_iter().map(|it| it.text).collect::<Vec<_>>();
        assert_eq!(texts(merged(all(&[1, 2]), all(&[3, 1, 4]))), ["1", "3", "2", "4"]);
        assert_eq!(texts(merged(all(&[]), all(&[3]))), ["3"]);
        let many: Vec<u64> = (0..20).collect();
        assert_eq!(merged(all(&many), all(&many[9..])).len(), PASSAGES);
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
