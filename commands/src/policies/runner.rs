//! The agents' run time: takes an execution that was asked for, runs its steps in the order of their
//! needs, and reports each by an event.
//!
//! The rule of this file: a step whose success is in the log is not run again; a run that was cut off
//! goes on after its last finished step, on whichever node claims it. Every report follows from the
//! claim under which it is made, so that one that is asked for twice is stored once, and one of an
//! older claim is refused.
//!
//! # Layout
//! - `at_once` asks for what only computes together with what came of it.
//! - `course` is what the log knows of a run, and what it is about to hear.
//! - `steps` decides what becomes of a step: whether it runs, how often, and what if it fails.
//! - `items` does one for each item of a list.
//! - `notices` waits for what becomes of what one says.
//! - `tools` is what a step does.
//! - `lanes` is how many run at once, for agents that say so.
//! - `interruption` is what can come in between.

mod at_once;
mod course;
mod interruption;
mod items;
mod lanes;
mod notices;
mod steps;
mod tools;

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use chrono::{DateTime, TimeDelta, Utc};
use domain::agent::Agent;
use domain::execution::{
    CancelReason, Execution, ExecutionCommand, ExecutionEvent, ExecutionRequest, TimeLimit,
};
use domain::expression::{self, Scope};
use domain::lease::LeaseClaim;
use domain::manifest::{Limits, Manifest};
use domain::product::Product;
use domain::{Payload, Timestamp};
use eventlog::{RecordedEvent, StreamId};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::task::AbortHandle;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;
use zeroize::Zeroizing;

use self::course::Course;
use self::interruption::{Interruption, failed};
use self::lanes::Lanes;
use super::outbox::Outbox;
use super::queue::{Outcome, Queue};
use super::{Knowledge, ToolError, Workers};
use crate::execute::decode_event;
use crate::execution::{INPUT, OUTPUT, REQUESTED};
use crate::tools::Tools;
use crate::veil::Veil;
use crate::{Ask, Commands, Error};

/// For how long a worker claims an execution. It claims it anew before a step that could outlast
/// that, so nobody else begins a step that is being run.
pub(crate) const LEASE: TimeDelta = TimeDelta::minutes(5);

/// What is over so soon is waited for by the worker. Whoever waits for longer gives its place back.
#[cfg(not(test))]
const SOON: Duration = Duration::from_secs(2);
#[cfg(test)]
const SOON: Duration = Duration::from_millis(50);

/// A timer looks at the clock at least this often: it may be set.
const LOOK_AGAIN: Duration = Duration::from_secs(30);

const STEP_STARTED: &str = "execution.step_started.v2";
const STEP_FAILED: &str = "execution.step_failed.v2";
const SUCCEEDED: &str = "execution.succeeded.v1";
const FAILED: &str = "execution.failed.v1";
const ERROR: &str = "error";

/// The process manager of executions.
pub(super) struct Runner {
    commands: Commands,
    knowledge: Arc<dyn Knowledge>,
    tools: Arc<Tools>,
    outbox: Arc<Outbox>,
    worker: Uuid,
    queue: Arc<Queue>,
    lanes: Arc<Lanes>,
    /// Ends the step that an execution is at, for those that run here.
    stops: Mutex<HashMap<Uuid, CancellationToken>>,
    /// Take up executions that wait.
    timers: Mutex<HashMap<Uuid, AbortHandle>>,
    /// The executions that wait for what is in the outbox, and their products, by its conversations.
    notices: Mutex<HashMap<Uuid, (Option<Uuid>, Uuid)>>,
}

/// A run in progress.
struct Run {
    id: Uuid,
    stream: StreamId,
    organization: Uuid,
    product: Uuid,
    request: ExecutionRequest,
    /// The event of the request, which what a step makes follows from: made again, it is the same.
    requested: Arc<RecordedEvent>,
    /// It is over then, whatever it is at.
    deadline: DateTime<Utc>,
    stop: CancellationToken,
    /// Why it cannot be told which others it must not run beside: it fails for that.
    unplaced: Option<ToolError>,
    /// Over the secrets of the agent's configuration, as soon as that is known.
    veil: OnceLock<Veil>,
    course: tokio::sync::Mutex<Course>,
}

impl Run {
    /// What a step, or the execution, puts out: without the secrets of the agent's configuration.
    fn veiled(&self, output: Value) -> Value {
        match self.veil.get() {
            Some(veil) => veil.value(output),
            None => output,
        }
    }

    fn veiled_error(&self, error: ToolError) -> ToolError {
        match self.veil.get() {
            Some(veil) => ToolError { message: veil.text(&error.message), ..error },
            None => error,
        }
    }
}

/// What a run works with.
struct Work {
    manifest: Arc<Manifest>,
    bindings: BTreeMap<String, Uuid>,
    scope: Scope,
}

/// The right to run an execution.
struct Claim {
    /// The event that gave it, which every report follows from; none as long as it is not sent.
    event: Option<Arc<RecordedEvent>>,
    fence: u64,
    /// How long others leave it alone, whatever the clock on the wall says.
    until: Instant,
}

impl Runner {
    pub(super) fn start(
        commands: Commands,
        knowledge: Arc<dyn Knowledge>,
        tools: Arc<Tools>,
        outbox: Arc<Outbox>,
        worker: Uuid,
        workers: Workers,
    ) -> Arc<Runner> {
        Arc::new(Runner {
            lanes: Arc::new(Lanes::new(commands.clone())),
            commands,
            knowledge,
            tools,
            outbox,
            worker,
            queue: Arc::new(Queue::shared("runner", workers.all, workers.per_product)),
            stops: Mutex::default(),
            timers: Mutex::default(),
            notices: Mutex::default(),
        })
    }

    /// Runs an execution of a product. Those of unknown ones count as one product's.
    pub(super) fn add(self: &Arc<Self>, product: Option<Uuid>, execution: Uuid) {
        let (waiting, runner) = (self.clone(), self.clone());
        let give_up = move || {
            let runner = waiting.clone();
            async move { runner.give_up(execution).await }
        };
        self.queue.add_until(product.unwrap_or_default(), execution, give_up, move || {
            let runner = runner.clone();
            async move { runner.run(product, execution).await }
        });
    }

    /// Waits until an execution has reached its limit, and ends it: for as long as no worker has time for it.
    async fn give_up(&self, execution: Uuid) -> Outcome {
        loop {
            let (limit, at) = match self.next_limit(execution).await {
                Ok(Some(next)) => next,
                Ok(None) => return Outcome::Finished,
                // It is said when it is its turn.
                Err(_) => return std::future::pending().await,
            };
            reaches(at).await;
            let end = ExecutionCommand::TimeOut { limit };
            if let Err(Interruption::Passing(why)) = self.end(execution, "timed_out", end).await {
                return Outcome::TryAgain(why);
            }
        }
    }

    /// Which limit an execution reaches next, and when; none where it has ended.
    async fn next_limit(
        &self,
        execution: Uuid,
    ) -> Result<Option<(TimeLimit, DateTime<Utc>)>, Interruption> {
        let events = self.commands.whole_stream(&StreamId::new("execution", execution)).await?;
        let (state, started) = course::so_far(&events)?;
        let (Some(requested), Some(request)) = (events.first(), state.request()) else {
            return Ok(None);
        };
        if matches!(state, Execution::Ended { .. }) {
            return Ok(None);
        }
        let manifest = self.manifest(request).await?;
        Ok(Some(limit_of(&manifest.limits, requested.time, started)))
    }

    /// Lets others have the place of an execution that has ended.
    pub(super) fn execution_ended(&self, execution: Uuid) {
        self.lanes.ended(execution);
    }

    /// Ends the step that an execution is at, because the execution has ended.
    pub(super) fn interrupt(&self, execution: Uuid) {
        if let Some(stop) = self.stops.lock().get(&execution) {
            stop.cancel();
        }
        if let Some(timer) = self.timers.lock().remove(&execution) {
            timer.abort();
        }
    }

    /// Takes an execution up when its time has come.
    fn wake(self: &Arc<Self>, product: Option<Uuid>, execution: Uuid, at: DateTime<Utc>) {
        let runner = self.clone();
        let timer = tokio::spawn(async move {
            reaches(at).await;
            runner.add(product, execution);
        });
        if let Some(older) = self.timers.lock().insert(execution, timer.abort_handle()) {
            older.abort();
        }
    }

    /// Another node is gone: what waits for its lease need not.
    pub(super) fn hurry(&self) {
        self.queue.hurry();
    }

    /// Lets running steps finish, and leaves the rest to the next start.
    pub(super) async fn stop(&self) {
        self.timers.lock().drain().for_each(|(_, timer)| timer.abort());
        tokio::join!(self.queue.stop(), self.lanes.stop());
    }

    async fn run(self: &Arc<Self>, product: Option<Uuid>, execution: Uuid) -> Outcome {
        // It is taken up now: no timer need do so later.
        if let Some(timer) = self.timers.lock().remove(&execution) {
            timer.abort();
        }
        let stop = CancellationToken::new();
        self.stops.lock().insert(execution, stop.clone());
        let ended = self.run_to_end(execution, stop).await;
        self.stops.lock().remove(&execution);
        let ended = match ended {
            Err(Interruption::Unwanted(reason)) => {
                self.end(execution, "cancelled", ExecutionCommand::Cancel { reason }).await
            }
            Err(Interruption::TooLong(limit)) => {
                self.end(execution, "timed_out", ExecutionCommand::TimeOut { limit }).await
            }
            ended => ended,
        };
        match ended {
            Err(Interruption::Passing(why)) => return Outcome::TryAgain(why),
            Err(Interruption::NotBefore(at)) => self.wake(product, execution, at),
            _ => {}
        }
        Outcome::Finished
    }

    async fn run_to_end(
        &self,
        execution: Uuid,
        stop: CancellationToken,
    ) -> Result<(), Interruption> {
        let run = self.begin(execution, stop).await?;
        let outcome = match self.prepare(&run).await {
            Ok(mut work) => self.work(&run, &mut work).await,
            Err(interruption) => Err(interruption),
        };
        match outcome {
            Ok(output) => self.report(&run, Ok(output)).await,
            Err(Interruption::Failed { step, error }) => {
                self.report(&run, Err((step, error))).await
            }
            // What was done counts, whatever came after it.
            Err(Interruption::Stopping) => {
                self.send(&run, &mut *run.course.lock().await).await?;
                Err(Interruption::Stopping)
            }
            Err(other) => Err(other),
        }
    }

    /// Takes the execution for this worker.
    async fn begin(&self, id: Uuid, stop: CancellationToken) -> Result<Run, Interruption> {
        let stream = StreamId::new("execution", id);
        let events = self.commands.whole_stream(&stream).await?;
        let Some(requested) = events.first().cloned() else { return Err(Interruption::NotOurs) };
        let (state, started) = course::so_far(&events)?;
        let (request, is_paused, wait) = match &state {
            Execution::Queued { request, is_paused, .. } => (request.clone(), *is_paused, None),
            Execution::Running { request, is_paused, waits, .. } => {
                (request.clone(), *is_paused, waits.values().min().copied())
            }
            Execution::Missing | Execution::Ended { .. } => return Err(Interruption::NotOurs),
        };
        // One that is no longer understood fails when it is prepared.
        let manifest = match self.manifest(&request).await {
            Ok(manifest) => Some(manifest),
            Err(Interruption::Failed { .. }) => None,
            Err(other) => return Err(other),
        };
        let limits = manifest.as_ref().map_or_else(Limits::default, |it| it.limits.clone());
        if limits.concurrency.is_some() {
            self.lanes.note(id, request.agent);
        }
        let now = Utc::now();
        let (limit, limit_at) = limit_of(&limits, requested.time, started);
        if limit_at <= now {
            return Err(Interruption::TooLong(limit));
        }
        // Whoever lets it go on lets it be taken up, too.
        if is_paused {
            if limits.concurrency.is_some() && started.is_none() {
                self.stand_aside(&requested, id, request.agent).await?;
            }
            return Err(Interruption::NotBefore(limit_at));
        }
        let product = requested.product.ok_or(Interruption::NotOurs)?;
        self.check_wanted(product, request.agent).await?;
        let deadline = started.unwrap_or(now) + limits.timeout;
        if let Some(until) = wait.map(DateTime::from).filter(|until| *until > now)
            && !self.is_answered(&requested, id, &state).await?
        {
            return Err(Interruption::NotBefore(until.min(deadline)));
        }
        let organization = requested.organization;
        let course = tokio::sync::Mutex::new(Course::new(state));
        let unplaced = None;
        let mut run = Run {
            id,
            stream,
            organization,
            product,
            request,
            requested,
            deadline,
            stop,
            unplaced,
            veil: OnceLock::new(),
            course,
        };
        if let (None, Some(manifest), Some(concurrency)) = (started, &manifest, &limits.concurrency)
        {
            match self.take_place(&run, manifest, concurrency, limit_at).await {
                Err(Interruption::Failed { error, .. }) => run.unplaced = Some(error),
                placed => placed?,
            }
        }
        let course = run.course.get_mut();
        let lease = self.lease(LEASE);
        if lease.exclusive {
            course.claim_later(lease)?;
        } else {
            course.claimed(self.claim(id, &run.requested, lease).await?)?;
        }
        Ok(run)
    }

    fn lease(&self, length: TimeDelta) -> LeaseClaim {
        self.commands.lease(self.worker, length)
    }

    async fn claim(
        &self,
        id: Uuid,
        requested: &RecordedEvent,
        lease: LeaseClaim,
    ) -> Result<Claim, Interruption> {
        let until = end_of(&lease);
        let (start, ask) = (ExecutionCommand::Start(lease), course::claim_of(requested));
        let done = self.commands.execute::<Execution>(id, start, &ask).await?;
        let event = done.events.first().ok_or(Interruption::NotOurs)?.clone();
        match decode_event(&event)? {
            ExecutionEvent::Started { fence, .. } => Ok(Claim { event: Some(event), fence, until }),
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

    /// The manifest that an execution runs.
    async fn manifest(&self, request: &ExecutionRequest) -> Result<Arc<Manifest>, Interruption> {
        if let Some(manifest) = self.commands.manifests.get(&request.digest) {
            return Ok(manifest);
        }
        match self.commands.manifest_of(request.agent, request.version_id).await {
            Ok(manifest) => Ok(manifest),
            Err(error @ (Error::Refused { .. } | Error::Invalid { .. })) => {
                Err(failed(None, "manifest_invalid", error.to_string()))
            }
            Err(error) => Err(error.into()),
        }
    }

    async fn prepare(&self, run: &Run) -> Result<Work, Interruption> {
        if let Some(error) = run.unplaced.clone() {
            return Err(Interruption::Failed { step: None, error });
        }
        let manifest = self.manifest(&run.request).await?;
        self.prepared(run, manifest, self.input(run).await?).await
    }

    /// What a run works with whose manifest and input are known.
    async fn prepared(
        &self,
        run: &Run,
        manifest: Arc<Manifest>,
        input: Value,
    ) -> Result<Work, Interruption> {
        let scope = self.scope(run, &manifest, input).await?;
        run.veil.get_or_init(|| Veil::of_config(&manifest, &scope.config));
        let bindings = self.commands.bindings_of(run.request.agent).await?;
        Ok(Work { manifest, bindings, scope })
    }

    /// What a run works on.
    async fn input(&self, run: &Run) -> Result<Value, Interruption> {
        self.open_json(run, REQUESTED, INPUT, &run.request.input).await
    }

    /// What expressions see before the first step.
    async fn scope(
        &self,
        run: &Run,
        manifest: &Manifest,
        input: Value,
    ) -> Result<Scope, Interruption> {
        Ok(Scope {
            input,
            config: self.config(run, manifest).await?,
            trigger: json!({ "id": run.request.trigger }),
            execution: json!({
                "id": run.id,
                "agent_id": run.request.agent,
                "version_id": run.request.version_id,
                "created_at": Timestamp::from(run.requested.time),
            }),
            ..Scope::default()
        })
    }

    /// The configuration of the agent as the version sees that is to run: it may have changed since.
    async fn config(&self, run: &Run, manifest: &Manifest) -> Result<Value, Interruption> {
        match self.commands.config_for(run.organization, run.request.agent, manifest).await {
            Err(error @ Error::Invalid { code, .. }) => Err(failed(None, code, error.in_a_line())),
            config => Ok(config?),
        }
    }

    /// Runs every step that is not done yet. Answers the execution's output.
    async fn work(&self, run: &Run, work: &mut Work) -> Result<Value, Interruption> {
        let manifest = work.manifest.clone();
        let mut last = Value::Null;
        for step in manifest.order() {
            if self.queue.is_stopping() {
                return Err(Interruption::Stopping);
            }
            last = self.step(run, work, step).await?;
            work.scope.steps.insert(step.id.clone(), last.clone());
        }
        let Some(output) = manifest.output.clone() else { return Ok(last) };
        let scope = work.scope.clone();
        let evaluated = tools::evaluated(move || {
            expression::evaluate(&output, &scope).map_err(|error| {
                ToolError::lasting(error.code, format!("the output: {}", error.message))
            })
        });
        evaluated.await.map_err(|error| Interruption::Failed { step: None, error })
    }

    /// Takes down that the execution has ended, and how. Answers the word for that.
    async fn note_outcome(
        &self,
        run: &Run,
        outcome: Result<Value, (Option<String>, ToolError)>,
    ) -> Result<&'static str, Interruption> {
        match outcome {
            Ok(output) => {
                let output = run.veiled(output).to_string();
                let output = self.seal(run, SUCCEEDED, OUTPUT, &output).await?;
                let mut course = run.course.lock().await;
                let fence = course.claim.fence;
                course.note(ExecutionCommand::Finish { fence, output })?;
                Ok("succeeded")
            }
            Err((step_id, error)) => {
                let error = run.veiled_error(error);
                let payload = self.seal(run, FAILED, ERROR, &error.message).await?;
                let mut course = run.course.lock().await;
                let (fence, code) = (course.claim.fence, error.code);
                course.note(ExecutionCommand::Fail { fence, step_id, code, error: payload })?;
                Ok("failed")
            }
        }
    }

    async fn report(
        &self,
        run: &Run,
        outcome: Result<Value, (Option<String>, ToolError)>,
    ) -> Result<(), Interruption> {
        let word = self.note_outcome(run, outcome).await?;
        self.send(run, &mut *run.course.lock().await).await?;
        count(word);
        Ok(())
    }

    /// Ends an execution that is not to go on.
    async fn end(
        &self,
        id: Uuid,
        outcome: &'static str,
        command: ExecutionCommand,
    ) -> Result<(), Interruption> {
        let stream = StreamId::new("execution", id);
        let first = self.commands.log().read_stream(&stream, 0, 1).await.map_err(Error::from)?;
        let requested = first.first().ok_or(Interruption::NotOurs)?;
        let ask = Ask::because_of(requested, "runner", &[outcome.as_bytes()]);
        self.commands.execute::<Execution>(id, command, &ask).await?;
        count(outcome);
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

/// Which limit an execution reaches next, and when.
fn limit_of(
    limits: &Limits,
    requested: DateTime<Utc>,
    started: Option<DateTime<Utc>>,
) -> (TimeLimit, DateTime<Utc>) {
    match started {
        None => (TimeLimit::Queue, requested + limits.queue_timeout),
        Some(started) => (TimeLimit::Execution, started + limits.timeout),
    }
}

/// When a lease that is asked for now is over.
fn end_of(lease: &LeaseClaim) -> Instant {
    let length = DateTime::<Utc>::from(lease.lease_until) - DateTime::<Utc>::from(lease.now);
    Instant::now() + length.to_std().unwrap_or_default()
}

/// Waits for a moment, however the clock is set meanwhile.
pub(super) async fn reaches(moment: DateTime<Utc>) {
    while let Ok(left) = (moment - Utc::now()).to_std()
        && !left.is_zero()
    {
        tokio::time::sleep(left.min(LOOK_AGAIN)).await;
    }
}

fn count(outcome: &'static str) {
    metrics::counter!("prodgy_executions_total", "outcome" => outcome).increment(1);
}

#[cfg(test)]
mod tests;
