//! An execution: one run of one version of an agent, step by step.
//!
//! Life: `Missing` → `Queued` or `Running` → `Succeeded`, `Failed` or `Cancelled`, and never back. One
//! worker at a time runs it: see [`crate::lease`]. Every result of a step is an event, so a run that
//! was cut off goes on after its last finished step.

use std::collections::BTreeMap;

use cqrs_es::event_sink::EventSink;
use cqrs_es::{Aggregate, DomainEvent};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

mod steps;

pub use steps::{Step, StepProgress};

use steps::{next_attempt, runs};

use crate::event;
use crate::lease::{Lease, LeaseClaim, LeaseError};
use crate::refusal::{Refusal, RefusalKind};
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
    #[serde(rename = "execution.step_started.v1")]
    StepStarted {
        /// The number of the claim.
        fence: u64,
        /// The step's id in the manifest.
        step_id: String,
        /// From 1.
        attempt: u32,
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
    #[serde(rename = "execution.step_failed.v1")]
    StepFailed {
        /// The number of the claim.
        fence: u64,
        /// The step's id in the manifest.
        step_id: String,
        /// From 1.
        attempt: u32,
        /// A stable code.
        code: String,
        /// What went wrong.
        error: Payload,
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
    /// Begin to run it, or go on after a crash.
    Start(LeaseClaim),
    /// Begin a step, or begin it again. The event says which attempt it is.
    StartStep {
        /// The number of the claim.
        fence: u64,
        /// The step's id in the manifest.
        step_id: String,
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
        /// What went wrong.
        error: Payload,
    },
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
    },
    /// A worker runs it, or did when it was cut off.
    Running {
        /// What is to run.
        request: ExecutionRequest,
        /// Who runs it.
        lease: Lease,
        /// What became of the steps that were begun, by their ids.
        steps: BTreeMap<String, Step>,
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
}

impl Outcome {
    /// How an execution ended with this event, if it did.
    fn of(event: &ExecutionEvent) -> Option<Self> {
        match event {
            ExecutionEvent::Succeeded { .. } => Some(Outcome::Succeeded),
            ExecutionEvent::Failed { .. } => Some(Outcome::Failed),
            ExecutionEvent::Cancelled { .. } => Some(Outcome::Cancelled),
            _ => None,
        }
    }
}

impl Execution {
    /// What is or was to run, once it was asked for.
    pub fn request(&self) -> Option<&ExecutionRequest> {
        match self {
            Execution::Missing => None,
            Execution::Queued { request }
            | Execution::Running { request, .. }
            | Execution::Ended { request, .. } => Some(request),
        }
    }

    /// Answers a command with events or a refusal.
    pub fn decide(&self, command: ExecutionCommand) -> Result<Vec<ExecutionEvent>, ExecutionError> {
        use {ExecutionCommand as Do, ExecutionEvent as Did};
        match (self, command) {
            (Execution::Missing, Do::Request(request)) => {
                let ExecutionRequest { agent, version_id, digest, trigger, input } = request;
                Ok(vec![Did::Requested { agent, version_id, digest, trigger, input }])
            }
            (Execution::Missing, _) => Err(ExecutionError::NotFound),
            (_, Do::Request(_)) => Err(ExecutionError::AlreadyRequested),

            (Execution::Ended { outcome: Outcome::Cancelled, .. }, Do::Cancel { .. }) => Ok(vec![]),
            (Execution::Ended { .. }, _) => Err(ExecutionError::Ended),
            (_, Do::Cancel { reason }) => Ok(vec![Did::Cancelled { reason }]),

            (Execution::Queued { .. }, Do::Start(claim)) => start(&Lease::default(), claim),
            (Execution::Running { lease, .. }, Do::Start(claim)) => start(lease, claim),
            // Whoever reports was given a lease, or is not the one to report.
            (
                Execution::Queued { .. },
                Do::StartStep { .. }
                | Do::FinishStep { .. }
                | Do::FailStep { .. }
                | Do::Finish { .. }
                | Do::Fail { .. },
            ) => Err(ExecutionError::Lease(LeaseError::Lost)),

            (Execution::Running { lease, steps, .. }, Do::StartStep { fence, step_id }) => {
                lease.check(fence)?;
                let attempt = next_attempt(steps.get(&step_id), fence)?;
                Ok(vec![Did::StepStarted { fence, step_id, attempt }])
            }
            (
                Execution::Running { lease, steps, .. },
                Do::FinishStep { fence, step_id, attempt, output },
            ) => {
                lease.check(fence)?;
                runs(steps.get(&step_id), fence, attempt)?;
                Ok(vec![Did::StepSucceeded { fence, step_id, attempt, output }])
            }
            (
                Execution::Running { lease, steps, .. },
                Do::FailStep { fence, step_id, attempt, code, error },
            ) => {
                lease.check(fence)?;
                runs(steps.get(&step_id), fence, attempt)?;
                Ok(vec![Did::StepFailed { fence, step_id, attempt, code, error }])
            }
            (Execution::Running { lease, steps, .. }, Do::Finish { fence, output }) => {
                lease.check(fence)?;
                if steps.values().any(|step| step.progress == StepProgress::Running) {
                    return Err(ExecutionError::StepRunning);
                }
                Ok(vec![Did::Succeeded { fence, output }])
            }
            (Execution::Running { lease, .. }, Do::Fail { fence, step_id, code, error }) => {
                lease.check(fence)?;
                Ok(vec![Did::Failed { fence, step_id, code, error }])
            }
        }
    }
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
            ExecutionError::StepRunning => (RefusalKind::Conflict, "step_running"),
            ExecutionError::StepSucceeded => (RefusalKind::Conflict, "step_already_succeeded"),
            ExecutionError::StepNotRunning => (RefusalKind::Conflict, "step_not_running"),
            ExecutionError::Lease(lease) => lease.reason(),
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
        *self = match (std::mem::take(self), event) {
            (_, Did::Requested { agent, version_id, digest, trigger, input }) => {
                let request = ExecutionRequest { agent, version_id, digest, trigger, input };
                Execution::Queued { request }
            }
            (Execution::Queued { request }, Did::Started { worker, fence, lease_until }) => {
                let mut lease = Lease::default();
                lease.taken(worker, fence, lease_until);
                Execution::Running { request, lease, steps: BTreeMap::new() }
            }
            (Execution::Running { request, mut lease, mut steps }, event) => {
                remember(&mut lease, &mut steps, event);
                Execution::Running { request, lease, steps }
            }
            (before, _) => before,
        };
    }
}

/// What happens while it runs.
fn remember(lease: &mut Lease, steps: &mut BTreeMap<String, Step>, event: ExecutionEvent) {
    use ExecutionEvent as Did;
    let (step_id, step) = match event {
        Did::Started { worker, fence, lease_until } => {
            return lease.taken(worker, fence, lease_until);
        }
        Did::StepStarted { fence, step_id, attempt } => {
            (step_id, Step { attempt, fence, progress: StepProgress::Running })
        }
        Did::StepSucceeded { fence, step_id, attempt, output } => {
            (step_id, Step { attempt, fence, progress: StepProgress::Succeeded { output } })
        }
        Did::StepFailed { fence, step_id, attempt, code, .. } => {
            (step_id, Step { attempt, fence, progress: StepProgress::Failed { code } })
        }
        Did::Requested { .. }
        | Did::Succeeded { .. }
        | Did::Failed { .. }
        | Did::Cancelled { .. } => return,
    };
    steps.insert(step_id, step);
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
