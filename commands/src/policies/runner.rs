//! The agents' run time: takes an execution that was asked for, runs its steps in the order of their
//! needs, and reports each by an event.
//!
//! The rule of this file: a step whose success is in the log is not run again; a run that was cut off
//! goes on after its last finished step, on whichever node claims it. Every report follows from the
//! claim under which it is made, so that one that is asked for twice is stored once, and one of an
//! older claim is refused.

mod interruption;
mod tools;

use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use domain::agent::Agent;
use domain::execution::{
    CancelReason, Execution, ExecutionCommand, ExecutionEvent, ExecutionRequest, StepProgress,
};
use domain::expression::{self, Scope};
use domain::lease::LeaseClaim;
use domain::manifest::{Manifest, StepSpec};
use domain::product::Product;
use domain::{Payload, Timestamp};
use eventlog::{RecordedEvent, StreamId};
use futures::FutureExt;
use serde_json::{Value, json};
use uuid::Uuid;
use zeroize::Zeroizing;

use self::interruption::{Interruption, failed};
use super::queue::{Outcome, Queue};
use super::{Knowledge, ToolError};
use crate::execute::decode_event;
use crate::execution::{INPUT, REQUESTED};
use crate::{Ask, Commands, Error};

/// How many executions run at once.
const AT_ONCE: usize = 16;

/// For how long a worker claims an execution. It claims it anew before a step that could outlast
/// that, so nobody else begins a step that is being run.
const LEASE: TimeDelta = TimeDelta::minutes(5);

/// How long one attempt at a step may take.
const STEP_LIMIT: Duration = Duration::from_secs(120);

/// How much of a claim must be left when a step begins.
const STEP_LEASE: TimeDelta = TimeDelta::minutes(3);

/// How long a step waits for what will pass: an index that is being loaded, a disk that is full.
const PATIENCE: Duration = Duration::from_secs(30);
const PAUSE: Duration = Duration::from_millis(250);

/// How often a step is begun. Attempts follow each other only when one was cut off, so a step that
/// takes the whole server down with it is given up.
const MOST_ATTEMPTS: u32 = 10;

const STEP_SUCCEEDED: &str = "execution.step_succeeded.v1";
const STEP_FAILED: &str = "execution.step_failed.v1";
const SUCCEEDED: &str = "execution.succeeded.v1";
const FAILED: &str = "execution.failed.v1";
const OUTPUT: &str = "output";
const ERROR: &str = "error";

/// The process manager of executions.
pub(super) struct Runner {
    commands: Commands,
    knowledge: Arc<dyn Knowledge>,
    worker: Uuid,
    queue: Arc<Queue>,
}

/// A run in progress: what is needed to report.
struct Run {
    id: Uuid,
    stream: StreamId,
    organization: Uuid,
    product: Uuid,
    request: ExecutionRequest,
    /// The event of the request, which what a step makes follows from: made again, it is the same.
    requested: Arc<RecordedEvent>,
    claim: Claim,
}

/// What a run works with.
struct Work {
    manifest: Manifest,
    bindings: BTreeMap<String, Uuid>,
    scope: Scope,
}

/// The right to run an execution.
struct Claim {
    /// The event that gave it, which every report follows from.
    event: Arc<RecordedEvent>,
    fence: u64,
    until: DateTime<Utc>,
}

impl Run {
    /// A command that follows from the claim.
    fn ask(&self, parts: &[&str]) -> Ask {
        let parts: Vec<&[u8]> = parts.iter().map(|part| part.as_bytes()).collect();
        Ask::because_of(&self.claim.event, "runner", &parts)
    }
}

/// What is to be done about a step.
enum Next {
    /// It succeeded before this run was cut off.
    Done(Value),
    /// It is to be begun.
    Begin { attempt: u32 },
}

impl Runner {
    pub(super) fn start(
        commands: Commands,
        knowledge: Arc<dyn Knowledge>,
        worker: Uuid,
    ) -> Arc<Runner> {
        Arc::new(Runner {
            commands,
            knowledge,
            worker,
            queue: Arc::new(Queue::new("runner", AT_ONCE)),
        })
    }

    /// Runs an execution of a product. Those of unknown ones count as one product's.
    pub(super) fn add(self: &Arc<Self>, product: Option<Uuid>, execution: Uuid) {
        let runner = self.clone();
        self.queue.add_for(product.unwrap_or_default(), execution, move || {
            let runner = runner.clone();
            async move { runner.run(execution).await }
        });
    }

    /// Lets running steps finish, and leaves the rest to the next start.
    pub(super) async fn stop(&self) {
        self.queue.stop().await;
    }

    async fn run(&self, execution: Uuid) -> Outcome {
        let ended = match self.run_to_end(execution).await {
            Err(Interruption::Unwanted(reason)) => self.cancel(execution, reason).await,
            ended => ended,
        };
        match ended {
            Err(Interruption::Passing(why)) => Outcome::TryAgain(why),
            _ => Outcome::Finished,
        }
    }

    async fn run_to_end(&self, execution: Uuid) -> Result<(), Interruption> {
        let mut run = self.begin(execution).await?;
        let outcome = match self.prepare(&run).await {
            Ok(mut work) => self.steps(&mut run, &mut work).await,
            Err(interruption) => Err(interruption),
        };
        match outcome {
            Ok(output) => self.finish(&run, &output).await,
            Err(Interruption::Failed { step, error }) => self.fail(&run, step, &error).await,
            Err(other) => Err(other),
        }
    }

    /// Takes the execution for this worker.
    async fn begin(&self, id: Uuid) -> Result<Run, Interruption> {
        let stream = StreamId::new("execution", id);
        let (state, _) = self.commands.load::<Execution>(&stream).await?;
        let request = match state {
            Execution::Queued { request, .. } | Execution::Running { request, .. } => request,
            Execution::Missing | Execution::Ended { .. } => return Err(Interruption::NotOurs),
        };
        let requested = self.request_of(&stream).await?;
        let product = requested.product.ok_or(Interruption::NotOurs)?;
        self.check_wanted(product, request.agent).await?;
        let claim = self.claim(id, &requested).await?;
        let organization = requested.organization;
        Ok(Run { id, stream, organization, product, request, requested, claim })
    }

    async fn request_of(&self, stream: &StreamId) -> Result<Arc<RecordedEvent>, Interruption> {
        let first = self.commands.log().read_stream(stream, 0, 1).await.map_err(Error::from)?;
        first.into_iter().next().ok_or(Interruption::NotOurs)
    }

    async fn claim(&self, id: Uuid, requested: &RecordedEvent) -> Result<Claim, Interruption> {
        let now = Utc::now();
        let until = now + LEASE;
        let lease = LeaseClaim {
            worker: self.worker,
            now: Timestamp::from(now),
            lease_until: Timestamp::from(until),
            exclusive: self.commands.log().capabilities().exclusive,
        };
        // Each claim is one of its own: the last one may have been this worker's, too.
        let ask =
            Ask::because_of(requested, "runner", &[b"claim", Uuid::now_v7().as_bytes().as_slice()]);
        let done =
            self.commands.execute::<Execution>(id, ExecutionCommand::Start(lease), &ask).await?;
        let event = done.events.first().ok_or(Interruption::NotOurs)?.clone();
        match decode_event(&event)? {
            ExecutionEvent::Started { fence, .. } => Ok(Claim { event, fence, until }),
            _ => Err(Interruption::NotOurs),
        }
    }

    /// Stops what is of no use any more.
    async fn check_wanted(&self, product: Uuid, agent: Uuid) -> Result<(), Interruption> {
        let (product, _) =
            self.commands.load::<Product>(&StreamId::new("product", product)).await?;
        if matches!(product, Product::Deleted | Product::Erased) {
            return Err(Interruption::Unwanted(CancelReason::ProductDeleted));
        }
        let (agent, _) = self.commands.load::<Agent>(&StreamId::new("agent", agent)).await?;
        if agent == Agent::Uninstalled {
            return Err(Interruption::Unwanted(CancelReason::AgentUninstalled));
        }
        Ok(())
    }

    async fn prepare(&self, run: &Run) -> Result<Work, Interruption> {
        let manifest = match self.commands.manifest_of(run.request.agent).await {
            Ok(manifest) => manifest,
            Err(error @ (Error::Refused { .. } | Error::Invalid { .. })) => {
                return Err(failed(None, "manifest_invalid", error.to_string()));
            }
            Err(error) => return Err(error.into()),
        };
        let scope = Scope {
            input: self.open_json(run, REQUESTED, INPUT, &run.request.input).await?,
            config: self.commands.config_of(run.request.agent).await?,
            trigger: json!({ "id": run.request.trigger }),
            execution: json!({
                "id": run.id,
                "agent_id": run.request.agent,
                "version_id": run.request.version_id,
                "created_at": Timestamp::from(run.requested.time),
            }),
            steps: BTreeMap::new(),
            ..Scope::default()
        };
        let bindings = self.commands.bindings_of(run.request.agent).await?;
        Ok(Work { manifest, bindings, scope })
    }

    /// Runs every step that has not succeeded yet. Answers the execution's output.
    async fn steps(&self, run: &mut Run, work: &mut Work) -> Result<Value, Interruption> {
        let order: Vec<StepSpec> = work.manifest.order().cloned().collect();
        let mut last = Value::Null;
        for step in &order {
            if self.queue.is_stopping() {
                return Err(Interruption::Stopping);
            }
            self.check_wanted(run.product, run.request.agent).await?;
            last = match self.next(run, &step.id).await? {
                Next::Done(output) => output,
                Next::Begin { attempt } => {
                    if run.claim.until - Utc::now() < STEP_LEASE {
                        run.claim = self.claim(run.id, &run.requested).await?;
                    }
                    self.step(run, work, step, attempt).await?
                }
            };
            work.scope.steps.insert(step.id.clone(), last.clone());
        }
        let Some(output) = work.manifest.output.clone() else { return Ok(last) };
        let scope = work.scope.clone();
        let evaluated = tools::off_thread(move || {
            expression::evaluate(&output, &scope).map_err(|error| {
                ToolError::lasting(error.code, format!("the output: {}", error.message))
            })
        });
        evaluated.await.map_err(|error| Interruption::Failed { step: None, error })
    }

    /// What is to be done about a step, as the log says.
    async fn next(&self, run: &Run, step_id: &str) -> Result<Next, Interruption> {
        // From the log itself: a step that succeeded is not run again.
        let (state, _) = self.commands.replay::<Execution>(&run.stream).await?;
        let Execution::Running { steps, lease, .. } = state else {
            return Err(Interruption::NotOurs);
        };
        if lease.fence != run.claim.fence {
            return Err(Interruption::NotOurs);
        }
        match steps.get(step_id) {
            None => Ok(Next::Begin { attempt: 1 }),
            Some(step) => match &step.progress {
                StepProgress::Succeeded { output } => {
                    Ok(Next::Done(self.open_json(run, STEP_SUCCEEDED, OUTPUT, output).await?))
                }
                // The run was cut off between this and its own end.
                StepProgress::Failed { code } => {
                    let message = self.why_failed(run, step_id).await?;
                    Err(failed(Some(step_id), code, message))
                }
                StepProgress::Skipped => Ok(Next::Done(Value::Null)),
                StepProgress::Running if step.attempt >= MOST_ATTEMPTS => {
                    let message = format!(
                        "the step was cut off {MOST_ATTEMPTS} times and is given up: look at the                          server's log for what stopped it, then execute the agent again"
                    );
                    Err(failed(Some(step_id), "cut_off_too_often", message))
                }
                StepProgress::Running => Ok(Next::Begin { attempt: step.attempt + 1 }),
            },
        }
    }

    /// What the newest failed attempt at a step said.
    async fn why_failed(&self, run: &Run, step_id: &str) -> Result<String, Interruption> {
        for event in self.commands.whole_stream(&run.stream).await?.iter().rev() {
            match decode_event(event)? {
                ExecutionEvent::StepFailed { step_id: failed, error, .. } if failed == step_id => {
                    let message = self.open(run, STEP_FAILED, ERROR, &error).await?;
                    return Ok(String::from_utf8_lossy(&message).into_owned());
                }
                _ => {}
            }
        }
        Err(Interruption::NotOurs)
    }

    /// One attempt at a step.
    async fn step(
        &self,
        run: &Run,
        work: &Work,
        step: &StepSpec,
        attempt: u32,
    ) -> Result<Value, Interruption> {
        let (fence, step_id) = (run.claim.fence, step.id.clone());
        let name = attempt.to_string();
        let ask = |what: &str| run.ask(&[what, &step.id, &name]);
        let start = ExecutionCommand::StartStep { fence, step_id: step_id.clone() };
        self.commands.execute::<Execution>(run.id, start, &ask("start step")).await?;
        match self.attempt(run, work, step).await? {
            Ok(output) => {
                let payload = self.seal(run, STEP_SUCCEEDED, OUTPUT, &output.to_string()).await?;
                let finish =
                    ExecutionCommand::FinishStep { fence, step_id, attempt, output: payload };
                self.commands.execute::<Execution>(run.id, finish, &ask("finish step")).await?;
                Ok(output)
            }
            Err(error) => {
                let payload = self.seal(run, STEP_FAILED, ERROR, &error.message).await?;
                let code = error.code.clone();
                let fail =
                    ExecutionCommand::FailStep { fence, step_id, attempt, code, error: payload };
                self.commands.execute::<Execution>(run.id, fail, &ask("fail step")).await?;
                Err(Interruption::Failed { step: Some(step.id.clone()), error })
            }
        }
    }

    /// Does what a step says, for a bounded time, and waits for what will pass.
    async fn attempt(
        &self,
        run: &Run,
        work: &Work,
        step: &StepSpec,
    ) -> Result<Result<Value, ToolError>, Interruption> {
        let give_up = tokio::time::Instant::now() + PATIENCE;
        loop {
            let call = AssertUnwindSafe(self.call(run, work, step)).catch_unwind();
            let error = match tokio::time::timeout(STEP_LIMIT, call).await {
                Ok(Ok(Ok(output))) => return Ok(Ok(output)),
                Ok(Ok(Err(error))) => error,
                Ok(Err(_)) => tools::crashed(),
                Err(_) => ToolError::lasting(
                    "step_timed_out",
                    format!(
                        "the step took longer than {} s: give it less to do",
                        STEP_LIMIT.as_secs()
                    ),
                ),
            };
            if !error.is_passing || tokio::time::Instant::now() >= give_up {
                return Ok(Err(error));
            }
            tokio::select! {
                () = tokio::time::sleep(PAUSE) => {}
                () = self.queue.stopping() => return Err(Interruption::Stopping),
            }
        }
    }

    async fn finish(&self, run: &Run, output: &Value) -> Result<(), Interruption> {
        let output = self.seal(run, SUCCEEDED, OUTPUT, &output.to_string()).await?;
        let finish = ExecutionCommand::Finish { fence: run.claim.fence, output };
        self.commands.execute::<Execution>(run.id, finish, &run.ask(&["succeed"])).await?;
        count("succeeded");
        Ok(())
    }

    async fn fail(
        &self,
        run: &Run,
        step_id: Option<String>,
        error: &ToolError,
    ) -> Result<(), Interruption> {
        let payload = self.seal(run, FAILED, ERROR, &error.message).await?;
        let fail = ExecutionCommand::Fail {
            fence: run.claim.fence,
            step_id,
            code: error.code.clone(),
            error: payload,
        };
        self.commands.execute::<Execution>(run.id, fail, &run.ask(&["fail"])).await?;
        count("failed");
        Ok(())
    }

    async fn cancel(&self, id: Uuid, reason: CancelReason) -> Result<(), Interruption> {
        let requested = self.request_of(&StreamId::new("execution", id)).await?;
        let ask = Ask::because_of(&requested, "runner", &[b"cancel"]);
        let cancel = ExecutionCommand::Cancel { reason };
        self.commands.execute::<Execution>(id, cancel, &ask).await?;
        count("cancelled");
        Ok(())
    }

    async fn seal(
        &self,
        run: &Run,
        event_type: &str,
        field: &str,
        text: &str,
    ) -> Result<Payload, Error> {
        let (organization, product) = (run.organization, run.product);
        let text = text.as_bytes();
        self.commands
            .seal_payload(organization, product, &run.stream, event_type, field, text)
            .await
    }

    async fn open_json(
        &self,
        run: &Run,
        event_type: &str,
        field: &str,
        payload: &Payload,
    ) -> Result<Value, Interruption> {
        let bytes = self.open(run, event_type, field, payload).await?;
        serde_json::from_slice(&bytes)
            .map_err(|error| failed(None, "payload_lost", error.to_string()))
    }

    async fn open(
        &self,
        run: &Run,
        event_type: &str,
        field: &str,
        payload: &Payload,
    ) -> Result<Zeroizing<Vec<u8>>, Interruption> {
        let (organization, product) = (run.organization, run.product);
        let opened = self
            .commands
            .open_payload(organization, product, &run.stream, event_type, field, payload)
            .await?;
        opened.ok_or(Interruption::Unwanted(CancelReason::ProductDeleted))
    }
}

fn count(outcome: &'static str) {
    metrics::counter!("prodgy_executions_total", "outcome" => outcome).increment(1);
}

#[cfg(test)]
mod tests;
