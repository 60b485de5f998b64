//! What a step says through the outbox, and what becomes of it.
//!
//! The rule of this file: what is said is in the outbox before anybody waits for its arrival. A step that
//! waits for that for long gives the claim back, and goes on, as the same attempt, when it is known.

use domain::Timestamp;
use domain::execution::Execution;
use domain::manifest::StepSpec;
use eventlog::RecordedEvent;
use serde_json::Value;
use uuid::Uuid;

use super::interruption::Interruption;
use super::steps::{timed_out, too_long};
use super::{Run, Runner, SOON, reaches};
use crate::Error;
use crate::policies::ToolError;
use crate::policies::outbox::notice_id;

impl Runner {
    /// Something arrived that was said somewhere, or was given up. A step may have waited for that.
    pub(in super::super) fn answered(self: &std::sync::Arc<Self>, conversation: Uuid) {
        let waits = self.notices.lock().remove(&conversation);
        if let Some((product, execution)) = waits {
            self.add(product, execution);
        }
    }

    /// Takes an execution up as soon as it is known what became of what one of its steps said.
    pub(super) fn expect(&self, product: Option<Uuid>, execution: Uuid, place: &str) {
        self.notices.lock().insert(notice_id(execution, place), (product, execution));
    }

    /// Whether an execution that waits for the outbox need not any more.
    pub(super) async fn is_answered(
        &self,
        requested: &RecordedEvent,
        id: Uuid,
        state: &Execution,
    ) -> Result<bool, Error> {
        let Execution::Running { steps, waits, .. } = state else { return Ok(false) };
        // What waits while it runs waits for the outbox: everything else has ended, or not begun.
        for place in waits.keys().filter(|id| steps.get(*id).is_some_and(|step| step.runs())) {
            // Before the look: what is settled in between is then heard of.
            self.expect(requested.product, id, place);
            if self.outbox.fate_so_far(requested, id, place).await?.is_some() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Waits for what becomes of what a step said, and holds nobody up if that takes long.
    pub(super) async fn answer_to(
        &self,
        run: &Run,
        step: &StepSpec,
        attempt: u32,
        until: Timestamp,
    ) -> Result<Value, Interruption> {
        let known = tokio::select! {
            fate = self.fate_of(run, step, &step.id, until) => Some(fate?),
            () = tokio::time::sleep(SOON) => None,
            () = self.queue.stopping() => None,
        };
        if let Some(fate) = known {
            return self.ended(run, step, attempt, fate).await;
        }
        self.expect(Some(run.product), run.id, &step.id);
        match self.outbox.fate_so_far(&run.requested, run.id, &step.id).await? {
            Some(fate) => self.ended(run, step, attempt, fate).await,
            None => {
                // Nobody is at it meanwhile.
                Err(self.put_off(run, vec![(step.id.clone(), until)]).await)
            }
        }
    }

    /// Waits for what becomes of what a step, or one of its items, said.
    pub(super) async fn fate_of(
        &self,
        run: &Run,
        step: &StepSpec,
        place: &str,
        until: Timestamp,
    ) -> Result<Result<Value, ToolError>, Interruption> {
        tokio::select! {
            biased;
            fate = self.outbox.fate_of(&run.requested, run.id, place) => Ok(fate),
            () = reaches(until.into()) => Ok(Err(timed_out(step))),
            () = run.stop.cancelled() => Err(Interruption::NotOurs),
            () = reaches(run.deadline) => Err(too_long()),
        }
    }
}
