//! The steps of an execution: how often each was tried, and what came out.
//!
//! The rule of this file: a step succeeds once, and one attempt at it runs at a time.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{ExecutionError, ExecutionEvent};
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
        /// Whether it may pass by itself.
        transient: bool,
    },
    /// Not to be done.
    Skipped,
}

impl Step {
    /// Whether its newest attempt was begun, and has not ended.
    pub fn runs(&self) -> bool {
        self.progress == StepProgress::Running
    }

    /// The step as an event leaves it, where it is about one.
    pub(super) fn after(event: ExecutionEvent) -> Option<(String, Step)> {
        use ExecutionEvent as Did;
        Some(match event {
            Did::StepStarted { fence, step_id, attempt, .. } => {
                (step_id, Step { attempt, fence, progress: StepProgress::Running })
            }
            Did::StepSucceeded { fence, step_id, attempt, output } => {
                (step_id, Step { attempt, fence, progress: StepProgress::Succeeded { output } })
            }
            Did::StepFailed { fence, step_id, attempt, code, transient, .. } => {
                let progress = StepProgress::Failed { code, transient };
                (step_id, Step { attempt, fence, progress })
            }
            Did::StepSkipped { fence, step_id } => {
                (step_id, Step { attempt: 0, fence, progress: StepProgress::Skipped })
            }
            _ => return None,
        })
    }
}

/// Whether no step runs.
pub(super) fn none_runs(steps: &BTreeMap<String, Step>) -> Result<(), ExecutionError> {
    if steps.values().any(Step::runs) {
        return Err(ExecutionError::StepRunning);
    }
    Ok(())
}

/// Whether no step runs but this one, with its items.
pub(super) fn no_other_runs(
    steps: &BTreeMap<String, Step>,
    step_id: &str,
) -> Result<(), ExecutionError> {
    let whole = step_id.split('[').next().unwrap_or_default();
    if steps.iter().any(|(id, step)| step.runs() && !is_part_of(id, whole)) {
        return Err(ExecutionError::StepRunning);
    }
    Ok(())
}

/// Whether one name is that of a step, or of one of its items: `fetch[3]` is a part of `fetch`.
pub(super) fn is_part_of(part: &str, step_id: &str) -> bool {
    part.strip_prefix(step_id).is_some_and(|rest| rest.is_empty() || rest.starts_with('['))
}

/// An attempt may follow one that ended, or one that was cut off with the claim it was made under.
pub(super) fn next_attempt(step: Option<&Step>, fence: u64) -> Result<u32, ExecutionError> {
    match step {
        None => Ok(1),
        Some(Step { progress: StepProgress::Succeeded { .. } | StepProgress::Skipped, .. }) => {
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
