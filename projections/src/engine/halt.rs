//! Read models that stopped: which they are, and what they do not show.
//!
//! The rule of this file: what a stopped read model has not taken in is never taken for applied.

use eventlog::{Position, StreamId};

use super::file::{Models, Standing};
use super::model::MAIN;

/// A read model that stopped before an event which it cannot take in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Halt {
    /// The name of the read model.
    pub model: &'static str,
    /// The position of that event.
    pub position: Position,
    /// It is in the main file: see [`Views::position`](super::Views::position).
    pub is_in_main: bool,
    categories: &'static [&'static str],
}

impl Halt {
    /// Those of the models that stopped; none at all where all go on.
    pub(crate) fn all(models: &Models, standings: &[Standing]) -> Option<Vec<Halt>> {
        let halted = standings.iter().filter_map(|standing| {
            let (model, stopped) = (&models[standing.model], standing.stopped.as_ref()?);
            Some(Halt {
                model: model.name(),
                position: Position(stopped.position),
                is_in_main: model.file() == MAIN,
                categories: model.categories(),
            })
        });
        Some(halted.collect::<Vec<_>>()).filter(|halted| !halted.is_empty())
    }

    /// Whether something at `position` is not in it.
    pub fn is_before(&self, position: Position) -> bool {
        self.position <= position
    }

    /// Whether an event of `stream` at `position` belongs into it, and is not in it.
    pub fn hides(&self, stream: &StreamId, position: Position) -> bool {
        let listens = |category: &&str| stream.is_of(category);
        self.is_before(position)
            && (self.categories.is_empty() || self.categories.iter().any(listens))
    }
}
