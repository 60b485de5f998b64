//! An execution: one run of one version of an agent, step by step.
//!
//! Life: `Missing` → `Queued` → `Running` → over, and never back. Before its end it may be paused, and
//! it may wait; nobody works on it meanwhile. One worker at a time runs it: see [`crate::lease`]. Every
//! result of a step is an event, so a run that was cut off goes on after its last finished step.

use std::collections::BTreeMap;

use cqrs_es::event_sink::EventSink;
use cqrs_es::{Aggregate, DomainEvent};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

mod steps;

pub use steps::{Step, StepProgress};

use steps::{is_part_of, next_attempt, no_other_runs, none_runs, runs};

use crate::event;
use crate::lease::{Lease, LeaseClaim, LeaseError};
use crate::refusal::{Fault, Refusal, RefusalKind};
use crate::values::{Digest, Payload, Timestamp};

/// What has happened to an execution.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum ExecutionEvent {
    /// Somebody wants it.
    #[serde(rename = "execution.requested.v1")]
    Requested {
        /// The agent that is to run.
        agent: Uuid,
        /// The version of the agent that is to run.
        version_id: Uuid,
        /// The SHA-256 of that version's manifest.
        digest: Digest,
        /// What started it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        trigger: Option<Uuid>,
        /// What it is to work on.
        input: Payload,
    },
    /// A worker began to run it, or went on with it.
    #[serde(rename = "execution.started.v1")]
    Started {
        /// Who.
        worker: Uuid,
        /// The number of the claim.
        fence: u64,
        /// From then on others may claim it.
        lease_until: Timestamp,
    },
    /// A step began.
    #[serde(rename = "execution.step_started.v2")]
    StepStarted {
        /// The number of the claim.
        fence: u64,
        /// The step's id in the manifest.
        step_id: String,
        /// From 1.
        attempt: u32,
        /// What it was told: its `with`, evaluated. None where that was not kept, as of a step that only
        /// computes.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        input: Option<Payload>,
    },
    /// A step is done.
    #[serde(rename = "execution.step_succeeded.v1")]
    StepSucceeded {
        /// The number of the claim.
        fence: u64,
        /// The step's id in the manifest.
        step_id: String,
        /// From 1.
        attempt: u32,
        /// What came out.
        output: Payload,
    },
    /// An attempt at a step failed.
    #[serde(rename = "execution.step_failed.v2")]
    StepFailed {
        /// The number of the claim.
        fence: u64,
        /// The step's id in the manifest.
        step_id: String,
        /// From 1.
        attempt: u32,
        /// A stable code.
        code: String,
        /// Whether it may pass by itself.
        transient: bool,
        /// What went wrong.
        error: Payload,
    },
    /// A step is not to be done this time.
    #[serde(rename = "execution.step_skipped.v1")]
    StepSkipped {
        /// The number of the claim.
        fence: u64,
        /// The step's id in the manifest.
        step_id: String,
    },
    /// What a step put out in the execution that this one repeats. It is not done again.
    #[serde(rename = "execution.step_reused.v1")]
    StepReused {
        /// The step's id in the manifest.
        step_id: String,
        /// What came out then.
        output: Payload,
    },
    /// It repeats another execution.
    #[serde(rename = "execution.retried.v1")]
    Retried {
        /// Which one.
        of: Uuid,
        /// The step that it begins with; the first one where none is named.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        from_step: Option<String>,
    },
    /// A trigger asked for it because of an event.
    #[serde(rename = "execution.reacted.v1")]
    Reacted {
        /// The event's id.
        event: Uuid,
        /// Its name on disk.
        event_type: String,
        /// Its stream.
        subject: String,
        /// How many executions, this one included, events started one because of the other.
        depth: u32,
    },
    /// Nobody works on it until then.
    #[serde(rename = "execution.waiting.v1")]
    Waiting {
        /// The number of the claim that is given back.
        fence: u64,
        /// The step that waits, or is tried again then.
        step_id: String,
        /// Until when.
        until: Timestamp,
    },
    /// Somebody wants it to stand still.
    #[serde(rename = "execution.paused.v1")]
    Paused {},
    /// Somebody wants it to go on.
    #[serde(rename = "execution.continued.v1")]
    Continued {},
    /// It took too long.
    #[serde(rename = "execution.timed_out.v1")]
    TimedOut {
        /// Which limit it reached.
        limit: TimeLimit,
    },
    /// It is done.
    #[serde(rename = "execution.succeeded.v1")]
    Succeeded {
        /// The number of the claim.
        fence: u64,
        /// What came out.
        output: Payload,
    },
    /// It cannot be done.
    #[serde(rename = "execution.failed.v1")]
    Failed {
        /// The number of the claim.
        fence: u64,
        /// The step that it failed at, where it was one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        step_id: Option<String>,
        /// A stable code.
        code: String,
        /// What went wrong.
        error: Payload,
    },
    /// Nobody wants it any more.
    #[serde(rename = "execution.cancelled.v1")]
    Cancelled {
        /// Why.
        reason: CancelReason,
    },
}

/// What one may ask of an execution.
#[derive(Clone, Debug, PartialEq)]
pub enum ExecutionCommand {
    /// Ask for it.
    Request(ExecutionRequest),
    /// Ask for it because of an event.
    React {
        /// What is to run, and on what.
        request: ExecutionRequest,
        /// The event.
        cause: Cause,
    },
    /// Begin to run it, or go on after a crash.
    Start(LeaseClaim),
    /// Begin a step, or begin it again. The event says which attempt it is.
    StartStep {
        /// The number of the claim.
        fence: u64,
        /// The step's id in the manifest.
        step_id: String,
        /// What it is told, where that is kept.
        input: Option<Payload>,
    },
    /// Say that a step is done.
    FinishStep {
        /// The number of the claim.
        fence: u64,
        /// The step's id in the manifest.
        step_id: String,
        /// The attempt that was begun.
        attempt: u32,
        /// What came out.
        output: Payload,
    },
    /// Say that an attempt at a step failed.
    FailStep {
        /// The number of the claim.
        fence: u64,
        /// The step's id in the manifest.
        step_id: String,
        /// The attempt that was begun.
        attempt: u32,
        /// A stable code.
        code: String,
        /// Whether it may pass by itself.
        transient: bool,
        /// What went wrong.
        error: Payload,
    },
    /// Say that a step is not to be done.
    SkipStep {
        /// The number of the claim.
        fence: u64,
        /// The step's id in the manifest.
        step_id: String,
    },
    /// Give the claim back, and be left alone until then. A step that runs is gone on with then: nobody is
    /// at it meanwhile.
    Wait {
        /// The number of the claim.
        fence: u64,
        /// The step that waits, or is to be tried again.
        step_id: String,
        /// Until when.
        until: Timestamp,
    },
    /// Let it stand still: the step that runs ends, no other begins.
    Pause,
    /// Let it go on.
    Continue,
    /// Say that it took too long.
    TimeOut {
        /// Which limit it reached.
        limit: TimeLimit,
    },
    /// Ask for what another execution did, or a part of it, once more.
    Retry {
        /// What is to run, and on what.
        request: ExecutionRequest,
        /// The other execution.
        of: Uuid,
        /// The step to begin with.
        from_step: Option<String>,
        /// What steps put out then, and are not to do again.
        reused: Vec<(String, Payload)>,
    },
    /// Several things, one after the other: all of them or none.
    Together(Vec<ExecutionCommand>),
    /// Say that it is done.
    Finish {
        /// The number of the claim.
        fence: u64,
        /// What came out.
        output: Payload,
    },
    /// Say that it cannot be done.
    Fail {
        /// The number of the claim.
        fence: u64,
        /// The step that it failed at, where it was one.
        step_id: Option<String>,
        /// A stable code.
        code: String,
        /// What went wrong.
        error: Payload,
    },
    /// Stop it.
    Cancel {
        /// Why.
        reason: CancelReason,
    },
}

/// What is to run, and on what.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ExecutionRequest {
    /// The agent that is to run.
    pub agent: Uuid,
    /// The version of the agent that is to run.
    pub version_id: Uuid,
    /// The SHA-256 of that version's manifest.
    pub digest: Digest,
    /// What started it.
    pub trigger: Option<Uuid>,
    /// What it is to work on.
    pub input: Payload,
}

/// The event that a trigger reacted to.
#[derive(Clone, Debug, PartialEq)]
pub struct Cause {
    /// Its id.
    pub event: Uuid,
    /// Its name on disk.
    pub event_type: String,
    /// Its stream.
    pub subject: String,
    /// How many executions, the new one included, events started one because of the other.
    pub depth: u32,
}

/// Why an execution was cancelled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CancelReason {
    /// Somebody stopped it.
    Stopped,
    /// Its agent was uninstalled.
    AgentUninstalled,
    /// Its product was deleted.
    ProductDeleted,
    /// A newer one of the same sort takes its place.
    Superseded,
    /// As many ran as may run at once.
    ConcurrencyLimit,
}

/// How long an execution may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TimeLimit {
    /// Until a worker begins with it.
    Queue,
    /// From then to its end.
    Execution,
}

/// An execution.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub enum Execution {
    /// Never asked for.
    #[default]
    Missing,
    /// Nobody runs it yet.
    Queued {
        /// What is to run.
        request: ExecutionRequest,
        /// What became of its steps in the execution that it repeats.
        steps: BTreeMap<String, Step>,
        /// Whether it stands still.
        is_paused: bool,
    },
    /// A worker runs it, or did when it was cut off.
    Running {
        /// What is to run.
        request: ExecutionRequest,
        /// Who runs it.
        lease: Lease,
        /// What became of the steps that were begun, by their ids.
        steps: BTreeMap<String, Step>,
        /// Whether it stands still.
        is_paused: bool,
        /// Until when a step, or an item of one, waits that did not begin or end since.
        waits: BTreeMap<String, Timestamp>,
    },
    /// Over.
    Ended {
        /// What ran.
        request: ExecutionRequest,
        /// How it ended.
        outcome: Outcome,
    },
}

/// How an execution ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// It is done.
    Succeeded,
    /// It cannot be done.
    Failed,
    /// Nobody wanted it any more.
    Cancelled,
    /// It took too long.
    TimedOut,
}

impl Outcome {
    /// How an execution ended with this event, if it did.
    fn of(event: &ExecutionEvent) -> Option<Self> {
        match event {
            ExecutionEvent::Succeeded { .. } => Some(Outcome::Succeeded),
            ExecutionEvent::Failed { .. } => Some(Outcome::Failed),
            ExecutionEvent::Cancelled { .. } => Some(Outcome::Cancelled),
            ExecutionEvent::TimedOut { .. } => Some(Outcome::TimedOut),
            _ => None,
        }
    }
}

impl Execution {
    /// What is or was to run, once it was asked for.
    pub fn request(&self) -> Option<&ExecutionRequest> {
        match self {
            Execution::Missing => None,
            Execution::Queued { request, .. }
            | Execution::Running { request, .. }
            | Execution::Ended { request, .. } => Some(request),
        }
    }

    /// Answers a command with events or a refusal.
    pub fn decide(&self, command: ExecutionCommand) -> Result<Vec<ExecutionEvent>, ExecutionError> {
        use {ExecutionCommand as Do, ExecutionEvent as Did};
        match (self, command) {
            (_, Do::Together(commands)) => self.decide_together(commands),

            (Execution::Missing, Do::Request(request)) => Ok(vec![requested(request)]),
            (Execution::Missing, Do::React { request, cause }) => {
                let Cause { event, event_type, subject, depth } = cause;
                Ok(vec![requested(request), Did::Reacted { event, event_type, subject, depth }])
            }
            (Execution::Missing, Do::Retry { request, of, from_step, reused }) => {
                let reused =
                    reused.into_iter().map(|(step_id, output)| Did::StepReused { step_id, output });
                Ok([requested(request), Did::Retried { of, from_step }]
                    .into_iter()
                    .chain(reused)
                    .collect())
            }
            (Execution::Missing, _) => Err(ExecutionError::NotFound),
            (_, Do::Request(_) | Do::React { .. } | Do::Retry { .. }) => {
                Err(ExecutionError::AlreadyRequested)
            }

            (Execution::Ended { outcome: Outcome::Cancelled, .. }, Do::Cancel { .. })
            | (Execution::Ended { outcome: Outcome::TimedOut, .. }, Do::TimeOut { .. }) => {
                Ok(vec![])
            }
            (Execution::Ended { .. }, _) => Err(ExecutionError::Ended),
            (_, Do::Cancel { reason }) => Ok(vec![Did::Cancelled { reason }]),
            // A worker was faster.
            (Execution::Running { .. }, Do::TimeOut { limit: TimeLimit::Queue }) => Ok(vec![]),
            (_, Do::TimeOut { limit }) => Ok(vec![Did::TimedOut { limit }]),

            (
                Execution::Queued { is_paused, .. } | Execution::Running { is_paused, .. },
                Do::Pause,
            ) => Ok(if *is_paused { vec![] } else { vec![Did::Paused {}] }),
            (
                Execution::Queued { is_paused, .. } | Execution::Running { is_paused, .. },
                Do::Continue,
            ) => {
                if *is_paused {
                    Ok(vec![Did::Continued {}])
                } else {
                    Err(ExecutionError::NotPaused)
                }
            }
            (
                Execution::Queued { is_paused: true, .. }
                | Execution::Running { is_paused: true, .. },
                Do::Start(_) | Do::StartStep { .. } | Do::SkipStep { .. },
            ) => Err(ExecutionError::Paused),

            (Execution::Queued { .. }, Do::Start(claim)) => start(&Lease::default(), claim),
            (Execution::Running { lease, .. }, Do::Start(claim)) => start(lease, claim),
            // Whoever reports was given a lease, or is not the one to report.
            (
                Execution::Queued { .. },
                Do::StartStep { .. }
                | Do::FinishStep { .. }
                | Do::FailStep { .. }
                | Do::SkipStep { .. }
                | Do::Wait { .. }
                | Do::Finish { .. }
                | Do::Fail { .. },
            ) => Err(ExecutionError::Lease(LeaseError::Lost)),
            (Execution::Running { lease, steps, .. }, report) => report_on(lease, steps, report),
        }
    }

    /// Decides one after the other, each on what the ones before it led to.
    fn decide_together(
        &self,
        commands: Vec<ExecutionCommand>,
    ) -> Result<Vec<ExecutionEvent>, ExecutionError> {
        let mut state = self.clone();
        let mut events = Vec::new();
        for command in commands {
            for event in state.decide(command)? {
                state.apply(event.clone());
                events.push(event);
            }
        }
        Ok(events)
    }
}

fn requested(request: ExecutionRequest) -> ExecutionEvent {
    let ExecutionRequest { agent, version_id, digest, trigger, input } = request;
    ExecutionEvent::Requested { agent, version_id, digest, trigger, input }
}

/// What a worker reports on the execution that it runs.
fn report_on(
    lease: &Lease,
    steps: &BTreeMap<String, Step>,
    report: ExecutionCommand,
) -> Result<Vec<ExecutionEvent>, ExecutionError> {
    use {ExecutionCommand as Do, ExecutionEvent as Did};
    let event = match report {
        Do::StartStep { fence, step_id, input } => {
            lease.check(fence)?;
            let attempt = next_attempt(steps.get(&step_id), fence)?;
            Did::StepStarted { fence, step_id, attempt, input }
        }
        Do::FinishStep { fence, step_id, attempt, output } => {
            lease.check(fence)?;
            runs(steps.get(&step_id), fence, attempt)?;
            Did::StepSucceeded { fence, step_id, attempt, output }
        }
        Do::FailStep { fence, step_id, attempt, code, transient, error } => {
            lease.check(fence)?;
            runs(steps.get(&step_id), fence, attempt)?;
            Did::StepFailed { fence, step_id, attempt, code, transient, error }
        }
        Do::SkipStep { fence, step_id } => {
            lease.check(fence)?;
            next_attempt(steps.get(&step_id), fence)?;
            Did::StepSkipped { fence, step_id }
        }
        Do::Wait { fence, step_id, until } => {
            // Several items of a step may wait: the first one has given the claim back.
            lease.check_newest(fence)?;
            no_other_runs(steps, &step_id)?;
            Did::Waiting { fence, step_id, until }
        }
        Do::Finish { fence, output } => {
            lease.check(fence)?;
            none_runs(steps)?;
            Did::Succeeded { fence, output }
        }
        Do::Fail { fence, step_id, code, error } => {
            lease.check(fence)?;
            Did::Failed { fence, step_id, code, error }
        }
        Do::Request(_)
        | Do::React { .. }
        | Do::Retry { .. }
        | Do::Start(_)
        | Do::Pause
        | Do::Continue
        | Do::Cancel { .. }
        | Do::TimeOut { .. }
        | Do::Together(_) => return Ok(vec![]),
    };
    Ok(vec![event])
}

fn start(lease: &Lease, claim: LeaseClaim) -> Result<Vec<ExecutionEvent>, ExecutionError> {
    let fence = lease.claim(&claim)?;
    let LeaseClaim { worker, lease_until, .. } = claim;
    Ok(vec![ExecutionEvent::Started { worker, fence, lease_until }])
}

/// Why an execution refused a command.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ExecutionError {
    /// There is no such execution.
    #[error("there is no such execution: list those of the agent to see which there are")]
    NotFound,
    /// The id is taken.
    #[error("the execution was asked for already: look at that one, or ask for another")]
    AlreadyRequested,
    /// It is over.
    #[error("the execution has ended: ask for another")]
    Ended,
    /// Two attempts at once.
    #[error("the step is running: wait until this attempt has ended")]
    StepRunning,
    /// A step is done once.
    #[error("the step is done already: go on with the next one")]
    StepSucceeded,
    /// It goes on.
    #[error("the execution has not ended: stop it first, or wait for its end")]
    NotEnded,
    /// There is nothing to begin with.
    #[error("no step of the execution failed: say which step to begin with, or begin at the start")]
    NothingFailed,
    /// There is no such step.
    #[error("the agent has no step `{0}`: name one of its manifest")]
    UnknownStep(String),
    /// It stands still.
    #[error("the execution is paused: let it go on first")]
    Paused,
    /// It does not stand still.
    #[error("the execution is not paused: it goes on by itself")]
    NotPaused,
    /// A report on an attempt that does not run.
    #[error("this attempt at the step is not running: begin a new one")]
    StepNotRunning,
    /// Somebody else runs it.
    #[error(transparent)]
    Lease(#[from] LeaseError),
}

impl Refusal for ExecutionError {
    fn reason(&self) -> (RefusalKind, &'static str) {
        match self {
            ExecutionError::NotFound => (RefusalKind::NotFound, "execution_not_found"),
            ExecutionError::AlreadyRequested => {
                (RefusalKind::Conflict, "execution_already_requested")
            }
            ExecutionError::Ended => (RefusalKind::Conflict, "execution_ended"),
            ExecutionError::NotEnded => (RefusalKind::Conflict, "execution_not_ended"),
            ExecutionError::NothingFailed => (RefusalKind::Conflict, "nothing_failed"),
            ExecutionError::UnknownStep(_) => (RefusalKind::Invalid, "step_unknown"),
            ExecutionError::Paused => (RefusalKind::Conflict, "execution_paused"),
            ExecutionError::NotPaused => (RefusalKind::Conflict, "execution_not_paused"),
            ExecutionError::StepRunning => (RefusalKind::Conflict, "step_running"),
            ExecutionError::StepSucceeded => (RefusalKind::Conflict, "step_already_succeeded"),
            ExecutionError::StepNotRunning => (RefusalKind::Conflict, "step_not_running"),
            ExecutionError::Lease(lease) => lease.reason(),
        }
    }

    fn faults(&self) -> Vec<Fault> {
        match self {
            ExecutionError::UnknownStep(_) => {
                vec![Fault::new("/from_step", self.reason().1, self.to_string())]
            }
            _ => vec![],
        }
    }
}

impl Aggregate for Execution {
    const TYPE: &'static str = "execution";
    type Command = ExecutionCommand;
    type Event = ExecutionEvent;
    type Error = ExecutionError;
    type Services = ();

    async fn handle(
        &mut self,
        command: ExecutionCommand,
        _: &(),
        sink: &EventSink<Self>,
    ) -> Result<(), ExecutionError> {
        for event in self.decide(command)? {
            sink.write(event, self).await;
        }
        Ok(())
    }

    fn apply(&mut self, event: ExecutionEvent) {
        use ExecutionEvent as Did;
        if let (Some(request), Some(outcome)) = (self.request(), Outcome::of(&event)) {
            *self = Execution::Ended { request: request.clone(), outcome };
            return;
        }
        match (&mut *self, event) {
            (_, Did::Requested { agent, version_id, digest, trigger, input }) => {
                let request = ExecutionRequest { agent, version_id, digest, trigger, input };
                *self = Execution::Queued { request, steps: BTreeMap::new(), is_paused: false };
            }
            (
                Execution::Queued { is_paused, .. } | Execution::Running { is_paused, .. },
                event @ (Did::Paused {} | Did::Continued {}),
            ) => *is_paused = event == Did::Paused {},
            (Execution::Queued { steps, .. }, Did::StepReused { step_id, output }) => {
                let progress = StepProgress::Succeeded { output };
                steps.insert(step_id, Step { attempt: 0, fence: 0, progress });
            }
            (
                Execution::Queued { request, steps, .. },
                Did::Started { worker, fence, lease_until },
            ) => {
                let mut lease = Lease::default();
                lease.taken(worker, fence, lease_until);
                *self = Execution::Running {
                    request: request.clone(),
                    lease,
                    steps: std::mem::take(steps),
                    is_paused: false,
                    waits: BTreeMap::new(),
                };
            }
            (
                Execution::Running { lease, steps, waits, .. },
                Did::Started { worker, fence, lease_until },
            ) => {
                lease.taken(worker, fence, lease_until);
                // Whoever claims it goes on with what waits: the attempt is the same.
                let waiting = |id: &str| waits.keys().any(|waits| is_part_of(waits, id));
                let parked = steps.iter_mut().filter(|(id, step)| step.runs() && waiting(id));
                parked.for_each(|(_, step)| step.fence = fence);
            }
            (Execution::Running { lease, waits, .. }, Did::Waiting { step_id, until, .. }) => {
                waits.insert(step_id, until);
                // Whoever comes first when the time is over.
                lease.holder = None;
            }
            (Execution::Running { steps, waits, .. }, event) => {
                if let Some((step_id, step)) = Step::after(event) {
                    // Its items wait no longer than it does.
                    let has_ended = !step.runs();
                    waits
                        .retain(|id, _| *id != step_id && !(has_ended && is_part_of(id, &step_id)));
                    steps.insert(step_id, step);
                }
            }
            _ => {}
        }
    }
}

impl DomainEvent for ExecutionEvent {
    fn event_type(&self) -> String {
        event::name_of(self).to_owned()
    }

    fn event_version(&self) -> String {
        event::version_of(event::name_of(self)).to_owned()
    }
}

#[cfg(test)]
mod tests;
