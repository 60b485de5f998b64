//! Answers without a language model: the best sentences of the context, each with its source.
//!
//! The rule of this file: it says nothing that is not in the context, and where nothing there is
//! close to the question, it says that. Of a row of a table, the header is in the context too.

use std::collections::HashSet;

use domain::step::{AnswerCall, Passage, Task};
use embeddings::{Embedder, ModelError};
use pulldown_cmark::{Event, Options, Parser, Tag, TagEnd};
use serde_json::{Value, json};
use text_splitter::TextSplitter;
use tokio::sync::{mpsc, watch};
use unicode_segmentation::UnicodeSegmentation;

use super::marks::unmarked;
use super::{AnswerModel, Role, Turn, citations};
use crate::policies::ToolError;

/// From which cosine on a text is near by all-MiniLM-L6-v2. The numbers below are of its scale: see [`scaled`].
const NEAR: f32 = 0.256;

/// How close to the question a sentence must be at least; unrelated ones are below it.
const LEAST: f32 = 0.35;

/// How close, compared with the best one.
const SHARE_OF_BEST: f32 = 0.75;

/// How many sentences an answer has at most.
const MOST: usize = 5;

/// How much closer a sentence is for a name with a number that it shares with the question, as `E4711`: vectors hardly tell one
/// such name from another.
const NAMED: f32 = 0.5;

/// Two sentences that are closer than this say the same.
const SAME: f32 = 0.93;

/// How many sentences are compared. Of more, those that share the most words with the question.
const COMPARED: usize = 400;

/// The longest sentence, in characters; a longer one is cut between words.
const LONGEST: usize = 600;

/// Of how many words a name or a number in a cell of a table is at most; more are a statement.
const WORDS_OF_A_NAME: usize = 5;

const NOTHING_FOUND: &str = "Nothing was found that answers this question.";

/// Finds the sentences that answer a question.
pub struct Extractive {
    embedder: watch::Receiver<Option<Embedder>>,
}

/// A sentence, and the passage that it is in.
struct Sentence {
    passage: usize,
    text: String,
}

/// A piece of a text that stands for itself.
#[derive(Debug, PartialEq)]
enum Block {
    /// A paragraph, an item of a list, a row of a table.
    Text(String),
    /// A row of a table with its header, which is one sentence.
    Row(String),
}

impl Extractive {
    /// Compares by this model, as soon as it is there.
    pub fn new(embedder: watch::Receiver<Option<Embedder>>) -> Extractive {
        Extractive { embedder }
    }

    /// The sentences that answer, in the order of the context: those close to the question, or where there are none, to it
    /// together with what was asked before.
    async fn choose(
        &self,
        embedder: &Embedder,
        question: &str,
        earlier: Option<&str>,
        context: &[Passage],
    ) -> Result<Vec<Sentence>, ToolError> {
        let (asked, passages) = (question.to_owned(), context.to_vec());
        let candidates = tokio::task::spawn_blocking(move || candidates(&asked, &passages));
        let candidates = candidates.await.map_err(|error| {
            ToolError::lasting("answer_crashed", format!("the context cannot be read: {error}"))
        })?;
        let texts = candidates.iter().map(|sentence| sentence.text.clone()).collect();
        let near = embedder.near().await.map_err(not_embedded)?;
        let vectors = embedder.embed_passages(texts).await.map_err(not_embedded)?;
        let together = earlier.map(|earlier| format!("{earlier}\n{question}"));
        let mut chosen = Vec::new();
        for asked in [Some(question.to_owned()), together].into_iter().flatten() {
            let asked_as = embedder.embed_query(&asked).await.map_err(not_embedded)?;
            let closeness = vectors.iter().map(|vector| scaled(likeness(&asked_as, vector), near));
            let scores: Vec<f32> = with_names(&asked, &candidates, closeness.collect());
            chosen = best(&scores, &vectors, near);
            if !chosen.is_empty() {
                break;
            }
        }
        let numbered = candidates.into_iter().enumerate();
        let chosen = numbered.filter(|(index, _)| chosen.contains(index));
        Ok(chosen.map(|(_, sentence)| sentence).collect())
    }
}

/// The best sentences by their scores, none of which says what a better one says.
fn best(scores: &[f32], vectors: &[Vec<f32>], near: f32) -> Vec<usize> {
    let mut best_first: Vec<usize> = (0..scores.len()).collect();
    best_first.sort_by(|one, other| scores[*other].total_cmp(&scores[*one]));
    let best = best_first.first().map_or(0.0, |best| scores[*best]);
    let least = LEAST.max(best * SHARE_OF_BEST);
    let mut chosen: Vec<usize> = Vec::new();
    for index in best_first {
        if scores[index] < least || chosen.len() == MOST {
            break;
        }
        let says_more =
            |other: &usize| scaled(likeness(&vectors[*other], &vectors[index]), near) < SAME;
        if chosen.iter().all(says_more) {
            chosen.push(index);
        }
    }
    chosen
}

/// The scores of sentences: more for one that is near and shares with the question a name with a number, less for one that
/// names another of the same kind. Where none shares one, or all do, that says nothing.
fn with_names(question: &str, candidates: &[Sentence], mut scores: Vec<f32>) -> Vec<f32> {
    let asked = names(question);
    let kinds: HashSet<String> = asked.iter().map(|name| kind(name)).collect();
    let named: Vec<HashSet<String>> = candidates.iter().map(|it| names(&it.text)).collect();
    let shares = |names: &HashSet<String>| names.intersection(&asked).count();
    let telling = named.iter().filter(|names| shares(names) > 0).count();
    if telling == 0 || telling == candidates.len() {
        return scores;
    }
    for (score, names) in scores.iter_mut().zip(&named).filter(|(score, _)| **score >= NEAR) {
        match shares(names) {
            0 if names.iter().any(|name| kinds.contains(&kind(name))) => *score -= NAMED,
            count => *score += NAMED * count as f32 / asked.len() as f32,
        }
    }
    scores
}

/// What a text calls by a number: codes, years, sections.
fn names(text: &str) -> HashSet<String> {
    let is_name = |word: &&str| word.len() > 1 && word.contains(|sign: char| sign.is_ascii_digit());
    text.unicode_words().filter(is_name).map(str::to_lowercase).collect()
}

/// Of what kind a name is: `E4711` and `E4712` are of one.
fn kind(name: &str) -> String {
    name.chars().map(|sign| if sign.is_ascii_digit() { '0' } else { sign }).collect()
}

/// A cosine by a model that calls texts near from `near` on, as all-MiniLM-L6-v2 would have it: unrelated texts are at 0.05 there,
/// and above 0.7 in E5.
fn scaled(cosine: f32, near: f32) -> f32 {
    1.0 - (1.0 - cosine) * (1.0 - NEAR) / (1.0 - near).max(f32::EPSILON)
}

#[async_trait::async_trait]
impl AnswerModel for Extractive {
    /// Of what was said before, the last question plays a part, and only where nothing is close to this one.
    async fn answer_in_pieces(
        &self,
        call: &AnswerCall,
        before: &[Turn],
        pieces: mpsc::Sender<String>,
    ) -> Result<Value, ToolError> {
        let Task::Question(question) = &call.task else {
            return Err(needs_a_model("a `prompt`"));
        };
        if call.schema.is_some() {
            return Err(needs_a_model("an answer that follows a `schema`"));
        }
        let embedder = self.embedder.borrow().clone().ok_or_else(|| {
            ToolError::passing(
                "model_missing",
                "the embedding model is missing: run `prodgy model fetch` or scripts/fetch-model, it is picked up as \
                 soon as it is there",
            )
        })?;
        let earlier = before.iter().rev().find(|turn| turn.role == Role::User);
        let earlier = earlier.map(|turn| turn.text.as_str());
        let chosen = self.choose(&embedder, question, earlier, &call.context).await?;
        let marked: Vec<String> = chosen
            .iter()
            .map(|sentence| format!("{} [{}]", unmarked(&sentence.text), sentence.passage + 1))
            .collect();
        let answer = if marked.is_empty() { NOTHING_FOUND.to_owned() } else { marked.join(" ") };
        // Nobody need listen.
        let _ = pieces.send(answer.clone()).await;
        let mut numbers: Vec<usize> = chosen.iter().map(|sentence| sentence.passage + 1).collect();
        numbers.dedup();
        Ok(json!({
            "answer": answer,
            "citations": citations(&numbers, &call.context),
            "model": "extractive",
            "usage": { "prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0 },
            "metadata": {
                "language_model": false,
                "method": "extractive",
                "embedding_model": embedder.model().name(),
                "sentences": chosen.len(),
            },
        }))
    }
}

/// The sentences that may answer a question, in the order of the context.
fn candidates(question: &str, context: &[Passage]) -> Vec<Sentence> {
    let mut candidates: Vec<Sentence> = Vec::new();
    for (passage, Passage { text, about }) in context.iter().enumerate() {
        let header = about.get("metadata").and_then(|metadata| metadata.get("table_header"));
        let blocks = blocks(text, header.and_then(Value::as_str)).into_iter();
        let sentences = blocks.flat_map(|block| match block {
            Block::Text(text) => sentences(&text),
            Block::Row(row) => short(row),
        });
        candidates.extend(sentences.map(|text| Sentence { passage, text }));
    }
    // Another question answers none.
    candidates.retain(|sentence| !sentence.text.ends_with(['?', '？']));
    if candidates.len() > COMPARED {
        let asked: Vec<String> = words(question).collect();
        let shared =
            |sentence: &Sentence| words(&sentence.text).filter(|word| asked.contains(word)).count();
        let mut ranked: Vec<(usize, Sentence)> = candidates.into_iter().enumerate().collect();
        ranked.sort_by_cached_key(|(_, sentence)| std::cmp::Reverse(shared(sentence)));
        ranked.truncate(COMPARED);
        ranked.sort_by_key(|(index, _)| *index);
        candidates = ranked.into_iter().map(|(_, sentence)| sentence).collect();
    }
    candidates
}

/// The paragraphs, list items and rows of a text, without their markup. Headings answer nothing, and no more does the header
/// of a table alone. `header` is that of the table whose rows the text begins with, where it stands somewhere else.
fn blocks(text: &str, header: Option<&str>) -> Vec<Block> {
    let with_header = header.map(|header| {
        let delimiter = "|---".repeat(columns(header));
        format!("{header}\n{delimiter}|\n{text}")
    });
    let text = with_header.as_deref().unwrap_or(text);
    let mut blocks = vec![Block::Text(String::new())];
    let mut is_heading = false;
    let (mut headings, mut cells) = (Vec::<String>::new(), None::<Vec<String>>);
    for event in Parser::new_ext(text, Options::ENABLE_TABLES) {
        let mut add = |text: &str| match (&mut cells, blocks.last_mut()) {
            (Some(cells), _) => {
                if let Some(cell) = cells.last_mut() {
                    cell.push_str(text);
                }
            }
            (None, Some(Block::Text(block))) if !is_heading => block.push_str(text),
            _ => {}
        };
        match event {
            Event::Text(text) | Event::Code(text) => add(&text),
            Event::SoftBreak | Event::HardBreak => add(" "),
            Event::Start(Tag::Heading { .. }) => {
                is_heading = true;
                blocks.push(Block::Text(String::new()));
            }
            Event::End(TagEnd::Heading(_)) => is_heading = false,
            Event::Start(Tag::TableHead | Tag::TableRow) => cells = Some(Vec::new()),
            Event::Start(Tag::TableCell) => {
                if let Some(cells) = &mut cells {
                    cells.push(String::new());
                }
            }
            Event::End(TagEnd::TableHead) => headings = cells.take().unwrap_or_default(),
            Event::End(TagEnd::TableRow) => {
                blocks.extend(row(&headings, &cells.take().unwrap_or_default()));
            }
            Event::Start(Tag::Paragraph | Tag::Item | Tag::CodeBlock(_))
            | Event::End(TagEnd::Paragraph | TagEnd::Item | TagEnd::Table) => {
                blocks.push(Block::Text(String::new()));
            }
            _ => {}
        }
    }
    blocks
}

/// A row of a table, unless there is nothing in it: with the header beside its cells where these are names and numbers, which
/// say nothing alone; as it stands where one of them is more than that.
fn row(headings: &[String], cells: &[String]) -> Option<Block> {
    let cells = cells.iter().map(|cell| cell.trim()).enumerate();
    let filled: Vec<(usize, &str)> = cells.filter(|(_, cell)| !cell.is_empty()).collect();
    if filled.iter().all(|(_, cell)| cell.chars().all(|sign| "-:".contains(sign))) {
        return None;
    }
    let says_something =
        filled.iter().any(|(_, cell)| cell.unicode_words().count() > WORDS_OF_A_NAME);
    let heading = |column: usize| headings.get(column).map_or("", |heading| heading.trim());
    let has_header = filled.iter().any(|(column, _)| !heading(*column).is_empty());
    if says_something || !has_header {
        let cells: Vec<&str> = filled.into_iter().map(|(_, cell)| cell).collect();
        return Some(Block::Text(cells.join(" ")));
    }
    let cells = filled.into_iter().map(|(column, cell)| match heading(column) {
        "" => cell.to_owned(),
        heading => format!("{heading}: {cell}"),
    });
    Some(Block::Row(cells.collect::<Vec<_>>().join("; ")))
}

/// How many columns the row of a table has.
fn columns(row: &str) -> usize {
    let row = row.trim().replace("\\|", "");
    let row = row.strip_prefix('|').unwrap_or(&row);
    row.strip_suffix('|').unwrap_or(row).matches('|').count() + 1
}

/// The sentences of a block.
fn sentences(block: &str) -> Vec<String> {
    let mut sentences: Vec<String> = Vec::new();
    let mut is_open = false;
    for piece in block.unicode_sentences() {
        let piece = piece.split_whitespace().collect::<Vec<_>>().join(" ");
        match sentences.last_mut() {
            Some(last) if is_open => {
                last.push(' ');
                last.push_str(&piece);
            }
            _ => sentences.push(piece),
        }
        is_open = sentences.last().is_some_and(|last| ends_on_an_abbreviation(last));
    }
    sentences.into_iter().flat_map(short).collect()
}

/// A sentence, cut where it is too long.
fn short(sentence: String) -> Vec<String> {
    match sentence.chars().count() {
        ..=LONGEST => vec![sentence],
        _ => TextSplitter::new(LONGEST).chunks(&sentence).map(ToOwned::to_owned).collect(),
    }
}

/// Whether the full stop at the end is more likely that of a `Dr.` or a `No.`: the rules of Unicode
/// know no abbreviations.
fn ends_on_an_abbreviation(sentence: &str) -> bool {
    let Some(word) = sentence.strip_suffix('.').and_then(|rest| rest.split(' ').next_back()) else {
        return false;
    };
    let letters = word.chars().filter(|sign| sign.is_alphabetic()).count();
    let is_short = (1..=3).contains(&letters) && word.chars().count() <= 4;
    is_short && (word.contains('.') || word.chars().next().is_some_and(char::is_uppercase))
}

fn words(text: &str) -> impl Iterator<Item = String> {
    text.unicode_words().filter(|word| word.chars().count() > 2).map(str::to_lowercase)
}

/// The cosine of two vectors of unit length.
fn likeness(one: &[f32], other: &[f32]) -> f32 {
    one.iter().zip(other).map(|(one, other)| one * other).sum()
}

fn not_embedded(error: ModelError) -> ToolError {
    match error {
        ModelError::Stopped => ToolError::passing("model_stopped", error.to_string()),
        _ => ToolError::lasting("model_failed", error.to_string()),
    }
}

fn needs_a_model(what: &str) -> ToolError {
    let message = format!(
        "{what} needs a language model, and none is configured: set llm_url and llm_model (PRODGY_LLM_URL, \
         PRODGY_LLM_MODEL), and PRODGY_LLM_API_KEY where the server asks for a key"
    );
    ToolError::lasting("llm_not_configured", message)
}

#[cfg(test)]
mod tests;
