//! Bodies of answers that several routes share, and answers that are given again.

use std::collections::HashMap;

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use crate::http::{Problem, Reply};

/// How many first answers of one kind are remembered.
const REMEMBERED: usize = 1_000;

/// Something that is gone.
#[derive(Debug, Serialize, ToSchema)]
pub struct Deleted {
    /// What its id was.
    pub id: Uuid,
}

/// The body of a verb that takes nothing.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Nothing {}

/// The first answers to requests under an `Idempotency-Key`, since the server started: of those that no
/// one event holds the outcome of, so that the log does not remember them.
#[derive(Debug)]
pub struct FirstAnswers<T>(Mutex<HashMap<Uuid, First<T>>>);

/// What was said, and what was answered.
#[derive(Clone, Copy, Debug)]
struct First<T> {
    digest: [u8; 32],
    answer: T,
}

impl<T> Default for FirstAnswers<T> {
    fn default() -> FirstAnswers<T> {
        FirstAnswers(Mutex::default())
    }
}

impl<T: Copy> FirstAnswers<T> {
    /// What was answered to this very request before.
    ///
    /// # Errors
    /// 422 where the key came with another request.
    pub fn before(&self, command: Uuid, digest: [u8; 32]) -> Result<Option<T>, Problem> {
        match self.0.lock().get(&command) {
            None => Ok(None),
            Some(first) if first.digest == digest => Ok(Some(first.answer)),
            Some(_) => Err(commands::Error::CommandReused.into()),
        }
    }

    /// Remembers the answer to a request.
    pub fn remember(&self, command: Uuid, digest: [u8; 32], answer: T) {
        let mut known = self.0.lock();
        // Whoever asks so often has not lost an answer.
        if known.len() >= REMEMBERED {
            known.clear();
        }
        known.insert(command, First { digest, answer });
    }
}

/// Something that is gone; what was inside is, too, where `is_erased`, or is being removed.
pub fn deleted(message: &'static str, id: Uuid, is_erased: bool) -> Reply<Deleted> {
    if is_erased {
        Reply::ok(message, Deleted { id })
    } else {
        Reply::accepted(message, Deleted { id })
    }
}
