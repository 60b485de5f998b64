//! What the log knows of a run, and what it is about to hear.
//!
//! The rule of this file: what is noted here is decided on at once, by the aggregate itself, and sent in
//! one piece, all of it or nothing, before anything happens that reaches outside. So light steps cost
//! no write each, and a crash takes back only what nobody has seen.

use std::sync::Arc;
use std::time::Instant;

use chrono::{DateTime, Utc};
use cqrs_es::Aggregate;
use domain::execution::{Execution, ExecutionCommand, ExecutionEvent, Step};
use domain::lease::LeaseClaim;
use domain::{Payload, Timestamp};
use eventlog::RecordedEvent;
use uuid::Uuid;

use super::interruption::Interruption;
use super::{Claim, Run, Runner, end_of};
use crate::execute::decode_event;
use crate::{Ask, Error};

/// So many commands are sent at the latest.
const MOST_NOTED: usize = 200;

/// The state of an execution, and when it first began.
pub(super) fn so_far(
    events: &[Arc<RecordedEvent>],
) -> Result<(Execution, Option<DateTime<Utc>>), Error> {
    let mut state = Execution::default();
    let mut started = None;
    for event in events {
        let decoded: ExecutionEvent = decode_event(event)?;
        if matches!(decoded, ExecutionEvent::Started { .. }) {
            started.get_or_insert(event.time);
        }
        state.apply(decoded);
    }
    Ok((state, started))
}

/// A run as the log will know it when all that is noted was sent.
pub(super) struct Course {
    pub(super) claim: Claim,
    state: Execution,
    noted: Vec<ExecutionCommand>,
    /// How often something was sent under this claim.
    sent: u32,
    /// The log knows nothing of the execution: all there is of it is noted here, and nothing is sent.
    is_unasked: bool,
}

impl Course {
    /// The course of an execution in this state, which is about to be claimed.
    pub(super) fn new(state: Execution) -> Course {
        let claim = Claim { event: None, fence: 0, until: Instant::now() };
        Course { claim, state, noted: Vec::new(), sent: 0, is_unasked: false }
    }

    /// The course of an execution that is asked for by what is noted, together with all that follows.
    pub(super) fn unasked(state: Execution) -> Course {
        Course { is_unasked: true, ..Course::new(state) }
    }

    /// All that is noted.
    pub(super) fn into_noted(self) -> Vec<ExecutionCommand> {
        self.noted
    }

    /// Goes on under a claim that is in the log.
    pub(super) fn claimed(&mut self, claim: Claim) -> Result<(), Error> {
        if let Some(event) = &claim.event {
            self.state.apply(decode_event(event)?);
        }
        self.claim = claim;
        self.sent = 0;
        Ok(())
    }

    /// Goes on under a claim that is sent with what comes next: for where nobody else can claim.
    pub(super) fn claim_later(&mut self, lease: LeaseClaim) -> Result<(), Interruption> {
        let until = end_of(&lease);
        match self.note(ExecutionCommand::Start(lease))?.first() {
            Some(ExecutionEvent::Started { fence, .. }) => {
                self.claim = Claim { event: None, fence: *fence, until };
                Ok(())
            }
            _ => Err(Interruption::NotOurs),
        }
    }

    /// What became of a step.
    pub(super) fn step(&self, step_id: &str) -> Option<&Step> {
        match &self.state {
            Execution::Running { steps, .. } => steps.get(step_id),
            _ => None,
        }
    }

    /// Until when a step waits that has not begun since.
    pub(super) fn wait(&self, step_id: &str) -> Option<Timestamp> {
        match &self.state {
            Execution::Running { waits, .. } => waits.get(step_id).copied(),
            _ => None,
        }
    }

    /// Which attempt at a step this claim goes on with: nobody was at it, since it, or its items, waited.
    /// Asked before the claim begins one itself.
    pub(super) fn parked(&self, step_id: &str) -> Option<u32> {
        let step = self.step(step_id).filter(|step| step.runs())?;
        (step.fence == self.claim.fence).then_some(step.attempt)
    }

    /// Takes a command down, to be sent with the others.
    pub(super) fn note(
        &mut self,
        command: ExecutionCommand,
    ) -> Result<Vec<ExecutionEvent>, Interruption> {
        // The same rules as those of the log: what is refused here would be refused there.
        let events = self.state.decide(command.clone()).map_err(|_| Interruption::NotOurs)?;
        events.iter().for_each(|event| self.state.apply(event.clone()));
        self.noted.push(command);
        Ok(events)
    }

    /// Takes down that a step begins, and what it is told; answers which attempt it is.
    pub(super) fn begin(
        &mut self,
        step_id: &str,
        input: Option<Payload>,
    ) -> Result<u32, Interruption> {
        let (fence, step_id) = (self.claim.fence, step_id.to_owned());
        match self.note(ExecutionCommand::StartStep { fence, step_id, input })?.first() {
            Some(ExecutionEvent::StepStarted { attempt, .. }) => Ok(*attempt),
            _ => Err(Interruption::NotOurs),
        }
    }

    /// Whether so much is noted that it should be sent.
    pub(super) fn is_full(&self) -> bool {
        self.noted.len() >= MOST_NOTED
    }
}

/// A claim of its own, whatever was claimed before: the last one may have been this worker's, too.
pub(super) fn claim_of(requested: &RecordedEvent) -> Ask {
    let ask = Ask::because_of(requested, "runner", &[b"claim", Uuid::now_v7().as_bytes()]);
    Ask { repeatable: false, ..ask }
}

impl Runner {
    /// Sends what is noted, and comes back when it is durable.
    pub(super) async fn send(&self, run: &Run, course: &mut Course) -> Result<(), Interruption> {
        if course.is_unasked {
            return Err(Interruption::NotOurs);
        }
        let commands = std::mem::take(&mut course.noted);
        if commands.is_empty() {
            return Ok(());
        }
        course.sent += 1;
        let sent = course.sent.to_be_bytes();
        let ask = match &course.claim.event {
            Some(claim) => {
                let ask = Ask::because_of(claim, "runner", &[b"report", &sent]);
                // Nothing is sent twice under one number, but by the log itself, which notices.
                Ask { repeatable: false, ..ask }
            }
            None => claim_of(&run.requested),
        };
        let together = ExecutionCommand::Together(commands.clone());
        match self.commands.execute::<Execution>(run.id, together, &ask).await {
            Ok(done) => {
                if course.claim.event.is_none() {
                    course.claim.event = done.events.first().cloned();
                }
                Ok(())
            }
            Err(Error::Refused { code: "execution_paused", .. }) => {
                // It was paused meanwhile: what was done counts, what was to begin does not.
                let begins = |command: &ExecutionCommand| {
                    matches!(
                        command,
                        ExecutionCommand::Start(_)
                            | ExecutionCommand::StartStep { .. }
                            | ExecutionCommand::SkipStep { .. }
                    )
                };
                let done: Vec<_> =
                    commands.into_iter().take_while(|command| !begins(command)).collect();
                // What was never claimed has nothing that was done.
                if let Some(claim) = &course.claim.event {
                    let ask = Ask::because_of(claim, "runner", &[b"done", &sent]);
                    let together = ExecutionCommand::Together(done);
                    self.commands.execute::<Execution>(run.id, together, &ask).await?;
                }
                Err(Interruption::NotOurs)
            }
            Err(error) => Err(error.into()),
        }
    }
}
