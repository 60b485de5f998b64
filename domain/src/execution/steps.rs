//! The steps of an execution: how often each was tried, and what came out.
//!
//! The rule of this file: a step succeeds once, and one attempt at it runs at a time.

use serde::{Deserialize, Serialize};

use super::ExecutionError;
use crate::values::Payload;

/// What became of a step so far.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Step {
    /// The newest attempt, from 1.
    pub attempt: u32,
    /// The claim under which it was begun.
    pub fence: u64,
    /// How far it is.
    pub progress: StepProgress,
}

/// How far the newest attempt at a step is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum StepProgress {
    /// Begun.
    Running,
    /// Done.
    Succeeded {
        /// What came out.
        output: Payload,
    },
    /// Tried in vain.
    Failed {
        /// A stable code.
        code: String,
    },
}

/// An attempt may follow one that ended, or one that was cut off with the claim it was made under.
pub(super) fn next_attempt(step: Option<&Step>, fence: u64) -> Result<u32, ExecutionError> {
    match step {
        None => Ok(1),
        Some(Step { progress: StepProgress::Succeeded { .. }, .. }) => {
            Err(ExecutionError::StepSucceeded)
        }
        Some(Step { progress: StepProgress::Running, fence: begun, .. }) if *begun == fence => {
            Err(ExecutionError::StepRunning)
        }
        Some(step) => Ok(step.attempt + 1),
    }
}

/// Whether this very attempt runs, under this very claim.
pub(super) fn runs(step: Option<&Step>, fence: u64, attempt: u32) -> Result<(), ExecutionError> {
    match step {
        Some(step)
            if step.progress == StepProgress::Running
                && step.fence == fence
                && step.attempt == attempt =>
        {
            Ok(())
        }
        _ => Err(ExecutionError::StepNotRunning),
    }
}
