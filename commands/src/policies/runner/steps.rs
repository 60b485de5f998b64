//! What becomes of a step: whether it runs, for what, how often, and what if it fails.
//!
//! The rule of this file: a step that only computes is noted when it is done; one that reaches outside
//! begins when its beginning is durable. What is to be tried again waits in the log, not here.

use std::panic::AssertUnwindSafe;
use std::time::{Duration, Instant};

use chrono::{DateTime, TimeDelta, Utc};
use domain::execution::{ExecutionCommand, ExecutionEvent, Step, StepProgress};
use domain::manifest::{Failure, OnError, StepSpec};
use domain::step::{StepCall, StepKind, Wait};
use domain::{Payload, Timestamp};
use futures::FutureExt;
use serde_json::{Value, json};

use super::course::Course;
use super::interruption::{Interruption, failed};
use super::tools::Told;
use super::{ERROR, LEASE, Run, Runner, STEP_FAILED, STEP_STARTED, Work, reaches, tools};
use crate::execute::decode_event;
use crate::execution::{INPUT, OUTPUT, STEP_REUSED, STEP_SUCCEEDED};
use crate::policies::ToolError;

/// How long one attempt at a step may take, where its manifest does not say.
const STEP_LIMIT: Duration = Duration::from_secs(120);

/// How much longer than its step a claim must be good.
const MARGIN: TimeDelta = TimeDelta::minutes(1);

/// The longest claim. Who repeats for longer than that may see another worker begin.
const LONGEST_LEASE: TimeDelta = TimeDelta::days(1);

/// How long a step that asks this server, and is not to be tried again, waits for what will pass all the
/// same: an index that is being loaded, a disk that is full.
const PATIENCE: Duration = Duration::from_secs(30);
const PAUSE: Duration = Duration::from_millis(250);

/// How often a step is begun. Attempts follow each other without a failure only when one was cut off,
/// so a step that takes the whole server down with it is given up.
pub(super) const MOST_ATTEMPTS: u32 = 10;

/// The largest output of a step, as JSON text.
pub(super) const LARGEST_OUTPUT: usize = 16 * 1024 * 1024;

const TIMED_OUT: &str = "step_timed_out";

impl Runner {
    /// Does what is left to do of a step, and answers what it puts out.
    pub(super) async fn step(
        &self,
        run: &Run,
        work: &Work,
        step: &StepSpec,
    ) -> Result<Value, Interruption> {
        let (known, wait, parked) = {
            let course = run.course.lock().await;
            (course.step(&step.id).cloned(), course.wait(&step.id), course.parked(&step.id))
        };
        match &known {
            // Its attempt goes on: nobody was cut off at it.
            Some(_) if parked.is_some() => {}
            Some(Step { progress: StepProgress::Failed { code, .. }, .. }) if wait.is_none() => {
                // The run was cut off between this and what follows from it.
                let message = self.why_failed(run, &step.id).await?;
                return after_failure(step, ToolError::lasting(code.clone(), message));
            }
            Some(known) => {
                if let Some(output) = self.output_of(run, known).await? {
                    return Ok(output);
                }
                give_up_what_is_always_cut_off(&step.id, known)?;
            }
            None if wait.is_none() => {
                if let Some(when) = step.control.when.clone() {
                    let scope = tools::seen_by(work, step, None);
                    let holds = tools::evaluated(move || {
                        when.truth(&scope).map_err(|error| {
                            ToolError::lasting(error.code, format!("when: {}", error.message))
                        })
                    });
                    match holds.await {
                        Ok(true) => {}
                        Ok(false) => return self.skip(run, step).await,
                        Err(error) => return self.done(run, step, Err(error)).await,
                    }
                }
            }
            None => {}
        }
        if step.kind == StepKind::Wait {
            return self.wait(run, work, step, wait).await;
        }
        match &step.control.foreach {
            Some(foreach) => self.repeat(run, work, step, foreach, parked).await,
            None if let (Some(attempt), Some(until)) = (parked, wait) => {
                self.answer_to(run, step, attempt, until).await
            }
            None if step.kind.computes() => {
                let result = tools::computed(work, step, None).await;
                self.done(run, step, result).await
            }
            None => {
                let Told { with, call } = match tools::read(work, step, None).await {
                    Ok(told) => told,
                    Err(error) => return self.done(run, step, Err(error)).await,
                };
                let input = self.input_of_step(run, with).await?;
                let attempt = self.begin_outside(run, step, Some(input), limit(step)).await?;
                let until = Timestamp::from(Utc::now() + limit(step));
                match self.attempt(run, work, step, &step.id, &call).await? {
                    Ok(_) if step.kind == StepKind::Notify => {
                        self.answer_to(run, step, attempt, until).await
                    }
                    result => self.ended(run, step, attempt, result).await,
                }
            }
        }
    }

    async fn skip(&self, run: &Run, step: &StepSpec) -> Result<Value, Interruption> {
        let mut course = run.course.lock().await;
        let fence = course.claim.fence;
        course.note(ExecutionCommand::SkipStep { fence, step_id: step.id.clone() })?;
        Ok(Value::Null)
    }

    /// What a step that needs no more work has put out.
    pub(super) async fn output_of(
        &self,
        run: &Run,
        known: &Step,
    ) -> Result<Option<Value>, Interruption> {
        match &known.progress {
            StepProgress::Succeeded { output } => {
                let sealed_for = if known.attempt == 0 { STEP_REUSED } else { STEP_SUCCEEDED };
                self.open_json(run, sealed_for, OUTPUT, output).await.map(Some)
            }
            StepProgress::Skipped => Ok(Some(Value::Null)),
            StepProgress::Running | StepProgress::Failed { .. } => Ok(None),
        }
    }

    /// What the newest failed attempt at a step said.
    pub(super) async fn why_failed(
        &self,
        run: &Run,
        step_id: &str,
    ) -> Result<String, Interruption> {
        for event in self.commands.whole_stream(&run.stream).await?.iter().rev() {
            match decode_event(event)? {
                ExecutionEvent::StepFailed { step_id: failed, error, .. } if failed == step_id => {
                    let message = self.open(run, &event.event_type, ERROR, &error).await?;
                    return Ok(String::from_utf8_lossy(&message).into_owned());
                }
                _ => {}
            }
        }
        Err(Interruption::NotOurs)
    }

    /// Lets time go by. What is waited for stands in the log, and nobody is busy meanwhile.
    async fn wait(
        &self,
        run: &Run,
        work: &Work,
        step: &StepSpec,
        begun: Option<Timestamp>,
    ) -> Result<Value, Interruption> {
        let until = match begun {
            Some(until) => until,
            None => match tools::read(work, step, None).await.map(|told| told.call) {
                Ok(StepCall::Wait(Wait::For(time))) => Timestamp::from(Utc::now() + time),
                Ok(StepCall::Wait(Wait::Until(until))) => until,
                Ok(_) => return Err(Interruption::NotOurs),
                Err(error) => return self.done(run, step, Err(error)).await,
            },
        };
        if *until > Utc::now() {
            return Err(self.put_off(run, vec![(step.id.clone(), until)]).await);
        }
        self.done(run, step, Ok(json!({ "until": until }))).await
    }

    /// Gives the claim back until the first of those that wait, by their names in the log, need not any more.
    pub(super) async fn put_off(
        &self,
        run: &Run,
        mut waits: Vec<(String, Timestamp)>,
    ) -> Interruption {
        // The first one is noted last: whoever looks on sees that time.
        waits.sort_by_key(|(_, until)| std::cmp::Reverse(*until));
        let first = waits.last().map_or(run.deadline, |(_, until)| DateTime::from(*until));
        let mut course = run.course.lock().await;
        let fence = course.claim.fence;
        for (step_id, until) in waits {
            if let Err(why) = course.note(ExecutionCommand::Wait { fence, step_id, until }) {
                return why;
            }
        }
        match self.send(run, &mut course).await {
            Ok(()) => Interruption::NotBefore(first.min(run.deadline)),
            Err(why) => why,
        }
    }

    /// A step that was begun and ended in one go.
    pub(super) async fn done(
        &self,
        run: &Run,
        step: &StepSpec,
        result: Result<Value, ToolError>,
    ) -> Result<Value, Interruption> {
        let attempt = run.course.lock().await.begin(&step.id, None)?;
        self.ended(run, step, attempt, result).await
    }

    /// Begins a step that reaches outside and may take so long: nobody else may begin it meanwhile, and
    /// everybody can see that it was begun.
    pub(super) async fn begin_outside(
        &self,
        run: &Run,
        step: &StepSpec,
        input: Option<Payload>,
        takes: Duration,
    ) -> Result<u32, Interruption> {
        self.check_wanted(run.product, run.request.agent).await?;
        let mut course = run.course.lock().await;
        self.claim_for(run, &mut course, takes).await?;
        let attempt = course.begin(&step.id, input)?;
        self.send(run, &mut course).await?;
        Ok(attempt)
    }

    /// Sees to it that nobody else begins for so long.
    pub(super) async fn claim_for(
        &self,
        run: &Run,
        course: &mut Course,
        takes: Duration,
    ) -> Result<(), Interruption> {
        let takes = TimeDelta::from_std(takes).unwrap_or(LONGEST_LEASE) + MARGIN;
        let left = course.claim.until.saturating_duration_since(Instant::now());
        if TimeDelta::from_std(left).unwrap_or(LONGEST_LEASE) < takes {
            self.send(run, course).await?;
            let lease = self.lease(takes.max(LEASE).min(LONGEST_LEASE));
            let claim = self.claim(run.id, &run.requested, lease).await?;
            course.claimed(claim)?;
        }
        Ok(())
    }

    /// What a step is told, as the log keeps it.
    pub(super) async fn input_of_step(
        &self,
        run: &Run,
        with: Value,
    ) -> Result<Payload, Interruption> {
        let text = run.veiled(with).to_string();
        Ok(self.seal(run, STEP_STARTED, INPUT, &text).await?)
    }

    /// Takes down what came of an attempt. A failure that is to be tried again is put off.
    pub(super) async fn ended(
        &self,
        run: &Run,
        step: &StepSpec,
        attempt: u32,
        result: Result<Value, ToolError>,
    ) -> Result<Value, Interruption> {
        let result = self.note_end(run, &step.id, attempt, result).await?;
        let error = match result {
            Ok(output) => return Ok(output),
            Err(error) => error,
        };
        if step.control.retry.follows(attempt, failure_of(&error)) {
            let wait = wait_after(run, step, &step.id, attempt, &error);
            let until = Timestamp::from(Utc::now() + wait);
            return Err(self.put_off(run, vec![(step.id.clone(), until)]).await);
        }
        after_failure(step, error)
    }

    /// Notes what came of an attempt at a step, or at one of its items.
    pub(super) async fn note_end(
        &self,
        run: &Run,
        step_id: &str,
        attempt: u32,
        result: Result<Value, ToolError>,
    ) -> Result<Result<Value, ToolError>, Interruption> {
        let result = match result {
            Ok(output) => Ok(run.veiled(output)),
            Err(error) => Err(run.veiled_error(error)),
        };
        let text = result.as_ref().map_or_else(|error| error.message.clone(), Value::to_string);
        let result = match result {
            Ok(_) if text.len() > LARGEST_OUTPUT => {
                Err(too_large(&format!("{} bytes", text.len()), LARGEST_OUTPUT))
            }
            result => result,
        };
        let step_id = step_id.to_owned();
        let sealed = match &result {
            Ok(_) => self.seal(run, STEP_SUCCEEDED, OUTPUT, &text).await?,
            Err(error) => self.seal(run, STEP_FAILED, ERROR, &error.message).await?,
        };
        let mut course = run.course.lock().await;
        let fence = course.claim.fence;
        course.note(match &result {
            Ok(_) => ExecutionCommand::FinishStep { fence, step_id, attempt, output: sealed },
            Err(error) => {
                let (code, transient) = (error.code.clone(), error.is_passing);
                ExecutionCommand::FailStep {
                    fence,
                    step_id,
                    attempt,
                    code,
                    transient,
                    error: sealed,
                }
            }
        })?;
        if course.is_full() {
            self.send(run, &mut course).await?;
        }
        Ok(result)
    }

    /// Does what a step says, for a bounded time.
    pub(super) async fn attempt(
        &self,
        run: &Run,
        work: &Work,
        step: &StepSpec,
        place: &str,
        call: &StepCall,
    ) -> Result<Result<Value, ToolError>, Interruption> {
        let limit = limit(step);
        // Of one attempt, however often it asks this server meanwhile.
        let end = tokio::time::Instant::now() + limit;
        let give_up = end.min(tokio::time::Instant::now() + PATIENCE);
        loop {
            let call = AssertUnwindSafe(self.call(run, work, place, call.clone())).catch_unwind();
            let called = tokio::select! {
                called = tokio::time::timeout_at(end, call) => called,
                () = run.stop.cancelled() => return Err(Interruption::NotOurs),
                () = reaches(run.deadline) => return Err(too_long()),
            };
            let error = match called {
                Ok(Ok(Ok(output))) => return Ok(Ok(output)),
                Ok(Ok(Err(error))) => error,
                Ok(Err(_)) => tools::crashed(),
                Err(_) => timed_out(step),
            };
            let is_of_this_server =
                matches!(step.kind, StepKind::KnowledgeSearch | StepKind::KnowledgeIngest);
            let waits = is_of_this_server && step.control.retry.attempts == 1;
            if !waits || !error.is_passing || tokio::time::Instant::now() + PAUSE >= give_up {
                return Ok(Err(error));
            }
            tokio::select! {
                () = tokio::time::sleep(PAUSE) => {}
                () = self.queue.stopping() => return Err(Interruption::Stopping),
                () = run.stop.cancelled() => return Err(Interruption::NotOurs),
            }
        }
    }
}

/// How long one attempt may take.
pub(super) fn limit(step: &StepSpec) -> Duration {
    step.control.timeout.unwrap_or(STEP_LIMIT)
}

/// What an attempt failed with that was not done in time.
pub(super) fn timed_out(step: &StepSpec) -> ToolError {
    let message = format!(
        "the step took longer than {} s: give it less to do, or more time (`timeout`)",
        limit(step).as_secs_f32()
    );
    ToolError::lasting(TIMED_OUT, message)
}

pub(super) fn failure_of(error: &ToolError) -> Failure<'_> {
    failure(&error.code, error.is_passing)
}

pub(super) fn failure(code: &str, is_transient: bool) -> Failure<'_> {
    Failure { code, is_transient, is_timeout: code == TIMED_OUT }
}

/// How long to wait before a step, or one of its items, is tried again: the same after a crash, and not
/// before the one who was asked wants to be asked again.
pub(super) fn wait_after(
    run: &Run,
    step: &StepSpec,
    step_id: &str,
    attempt: u32,
    error: &ToolError,
) -> Duration {
    let seed = [run.id.as_bytes(), step_id.as_bytes()].concat();
    let wait = step.control.retry.backoff.wait_after(attempt, &seed);
    wait.max(error.retry_after.unwrap_or_default())
}

/// What follows from a failure that is not tried again.
pub(super) fn after_failure(step: &StepSpec, error: ToolError) -> Result<Value, Interruption> {
    match step.control.on_error {
        OnError::Continue => Ok(as_output(&error)),
        OnError::Fail => Err(Interruption::Failed { step: Some(step.id.clone()), error }),
    }
}

pub(super) fn as_output(error: &ToolError) -> Value {
    json!({ "error": { "code": error.code, "message": error.message } })
}

pub(super) fn too_large(size: &str, at_most: usize) -> ToolError {
    let message =
        format!("the step put out {size}, at most {at_most} are kept: let it put out less");
    ToolError::lasting("output_too_large", message)
}

pub(super) fn give_up_what_is_always_cut_off(
    step_id: &str,
    known: &Step,
) -> Result<(), Interruption> {
    if known.progress != StepProgress::Running || known.attempt < MOST_ATTEMPTS {
        return Ok(());
    }
    let message = format!(
        "the step was cut off {MOST_ATTEMPTS} times and is given up: look at the server's log for \
         what stopped it, then execute the agent again"
    );
    Err(failed(Some(step_id), "cut_off_too_often", message))
}

pub(super) fn too_long() -> Interruption {
    Interruption::TooLong(domain::execution::TimeLimit::Execution)
}
