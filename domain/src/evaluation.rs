//! An evaluation: how well a knowledge base answered questions of which somebody knows the answers.
//!
//! Life: `Missing` → `Finished`. Each is a stream of its own and stays as it is, so that evaluations of before
//! and after a change can be held against each other.

use std::collections::BTreeSet;

use cqrs_es::event_sink::EventSink;
use cqrs_es::{Aggregate, DomainEvent};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::event;
use crate::refusal::{Refusal, RefusalKind};
use crate::values::Payload;

/// What has happened to an evaluation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum EvaluationEvent {
    /// Every question was asked.
    #[serde(rename = "evaluation.finished.v1")]
    Finished {
        /// What came of it.
        summary: Summary,
        /// The questions, each with the files that were expected and found.
        content: Payload,
    },
}

/// What came of an evaluation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// The knowledge base.
    pub knowledge_base: Uuid,
    /// How it was searched: `vector`, `full_text` or `hybrid`.
    pub mode: String,
    /// How many files of an answer were looked at.
    pub k: u32,
    /// How many questions were asked.
    pub questions: u32,
    /// How many files the knowledge base held that could be found.
    pub files: u64,
    /// The embedding model.
    pub model: String,
    /// Its revision: which weights and which tokenizer.
    pub model_revision: String,
    /// How files were cut into chunks.
    pub chunker: String,
    /// The means over all questions.
    pub scores: Scores,
    /// How long the searches took.
    pub latency: Latency,
}

/// How good a ranking is; each from 0, none of what was expected, to 1, nothing better possible.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Scores {
    /// Normalised discounted cumulated gain of the first `k` files, all that were expected being worth the same
    /// (Järvelin and Kekäläinen, "Cumulated gain-based evaluation of IR techniques", 2002).
    pub ndcg: f64,
    /// The share of the expected files that is among the first `k`.
    pub recall: f64,
    /// One divided by the rank of the first expected file; 0 when it is not among the first `k`.
    pub reciprocal_rank: f64,
}

impl Scores {
    /// The scores of one ranking, best first, of ids that differ. 0 where nothing is expected.
    pub fn of<T: Ord>(found: &[T], expected: &BTreeSet<T>, k: usize) -> Scores {
        let gain = |rank: usize| 1.0 / (rank as f64 + 2.0).log2();
        let ranks: Vec<usize> = found
            .iter()
            .take(k)
            .enumerate()
            .filter(|(_, file)| expected.contains(file))
            .map(|(rank, _)| rank)
            .collect();
        let ideal: f64 = (0..expected.len().min(k)).map(gain).sum();
        if ideal == 0.0 {
            return Scores::default();
        }
        Scores {
            ndcg: ranks.iter().copied().map(gain).sum::<f64>() / ideal,
            recall: ranks.len() as f64 / expected.len() as f64,
            reciprocal_rank: ranks.first().map_or(0.0, |rank| 1.0 / (*rank as f64 + 1.0)),
        }
    }

    /// The mean of several.
    pub fn mean(scores: &[Scores]) -> Scores {
        let count = scores.len().max(1) as f64;
        let mean = |of: fn(&Scores) -> f64| scores.iter().map(of).sum::<f64>() / count;
        Scores {
            ndcg: mean(|it| it.ndcg),
            recall: mean(|it| it.recall),
            reciprocal_rank: mean(|it| it.reciprocal_rank),
        }
    }
}

/// How long searches took, the questions' embedding included, in microseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Latency {
    /// Half of them took no longer.
    pub p50: u64,
    /// 99 of 100 took no longer.
    pub p99: u64,
    /// None took longer.
    pub max: u64,
}

impl Latency {
    /// Of searches that took so long each, in microseconds.
    pub fn of(mut took: Vec<u64>) -> Latency {
        took.sort_unstable();
        let at = |share: usize| took.get((took.len() * share).div_ceil(100).saturating_sub(1));
        let at = |share| at(share).copied().unwrap_or_default();
        Latency { p50: at(50), p99: at(99), max: at(100) }
    }
}

/// What one may ask of an evaluation.
#[derive(Clone, Debug, PartialEq)]
pub enum EvaluationCommand {
    /// Keep what came of it.
    Finish {
        /// What came of it.
        summary: Summary,
        /// The questions.
        content: Payload,
    },
}

/// An evaluation.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Evaluation {
    /// Not here yet.
    #[default]
    Missing,
    /// Kept.
    Finished,
}

impl Evaluation {
    /// Answers a command with events or a refusal.
    pub fn decide(
        &self,
        command: EvaluationCommand,
    ) -> Result<Vec<EvaluationEvent>, EvaluationError> {
        let EvaluationCommand::Finish { summary, content } = command;
        match self {
            Evaluation::Missing => Ok(vec![EvaluationEvent::Finished { summary, content }]),
            Evaluation::Finished => Err(EvaluationError::Finished),
        }
    }
}

/// Why an evaluation refused a command.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EvaluationError {
    /// It is over.
    #[error("the evaluation is finished and stays as it is: ask for another one")]
    Finished,
}

impl Refusal for EvaluationError {
    fn reason(&self) -> (RefusalKind, &'static str) {
        match self {
            EvaluationError::Finished => (RefusalKind::Conflict, "evaluation_finished"),
        }
    }
}

impl Aggregate for Evaluation {
    const TYPE: &'static str = "evaluation";
    type Command = EvaluationCommand;
    type Event = EvaluationEvent;
    type Error = EvaluationError;
    type Services = ();

    async fn handle(
        &mut self,
        command: EvaluationCommand,
        _: &(),
        sink: &EventSink<Self>,
    ) -> Result<(), EvaluationError> {
        for event in self.decide(command)? {
            sink.write(event, self).await;
        }
        Ok(())
    }

    fn apply(&mut self, event: EvaluationEvent) {
        let EvaluationEvent::Finished { .. } = event;
        *self = Evaluation::Finished;
    }
}

impl DomainEvent for EvaluationEvent {
    fn event_type(&self) -> String {
        event::name_of(self).to_owned()
    }

    fn event_version(&self) -> String {
        event::version_of(event::name_of(self)).to_owned()
    }
}

#[cfg(test)]
mod tests;
