//! What becomes of a step: whether it runs, for what, how often, and what if it fails.
//!
//! The rule of this file: a step that only computes is noted when it is done; one that reaches outside
//! begins when its beginning is durable. What is to be tried again waits in the log, not here.

use std::panic::AssertUnwindSafe;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use domain::execution::{ExecutionCommand, ExecutionEvent, Step, StepProgress};
use domain::expression::Item;
use domain::manifest::{Failure, Foreach, OnError, StepSpec};
use domain::step::{StepCall, StepKind, Wait};
use domain::{Payload, Timestamp};
use futures::{FutureExt, Stream, StreamExt, TryStreamExt, stream};
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
const LARGEST_OUTPUT: usize = 16 * 1024 * 1024;

const TIMED_OUT: &str = "step_timed_out";

impl Runner {
    /// Does what is left to do of a step, and answers what it puts out.
    pub(super) async fn step(
        &self,
        run: &Run,
        work: &Work,
        step: &StepSpec,
    ) -> Result<Value, Interruption> {
        let (known, wait) = {
            let course = run.course.lock().await;
            (course.step(&step.id).cloned(), course.wait(&step.id))
        };
        match &known {
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
            Some(foreach) => self.repeat(run, work, step, foreach).await,
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
                let result = self.attempt(run, work, step, &step.id, &call).await?;
                self.ended(run, step, attempt, result).await
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
    async fn output_of(&self, run: &Run, known: &Step) -> Result<Option<Value>, Interruption> {
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
    async fn why_failed(&self, run: &Run, step_id: &str) -> Result<String, Interruption> {
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
            let mut course = run.course.lock().await;
            self.put_off(run, &mut course, &step.id, until).await?;
        }
        self.done(run, step, Ok(json!({ "until": until }))).await
    }

    /// Gives the claim back until then.
    async fn put_off(
        &self,
        run: &Run,
        course: &mut Course,
        step_id: &str,
        until: Timestamp,
    ) -> Result<(), Interruption> {
        let (fence, step_id) = (course.claim.fence, step_id.to_owned());
        course.note(ExecutionCommand::Wait { fence, step_id, until })?;
        self.send(run, course).await?;
        Err(Interruption::NotBefore(DateTime::from(until).min(run.deadline)))
    }

    /// A step that was begun and ended in one go.
    async fn done(
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
    async fn begin_outside(
        &self,
        run: &Run,
        step: &StepSpec,
        input: Option<Payload>,
        takes: Duration,
    ) -> Result<u32, Interruption> {
        self.check_wanted(run.product, run.request.agent).await?;
        let mut course = run.course.lock().await;
        let takes = TimeDelta::from_std(takes).unwrap_or(LONGEST_LEASE) + MARGIN;
        if course.claim.until - Utc::now() < takes {
            self.send(run, &mut course).await?;
            let lease = self.lease(takes.max(LEASE).min(LONGEST_LEASE));
            let claim = self.claim(run.id, &run.requested, lease).await?;
            course.claimed(claim)?;
        }
        let attempt = course.begin(&step.id, input)?;
        self.send(run, &mut course).await?;
        Ok(attempt)
    }

    /// What a step is told, as the log keeps it.
    async fn input_of_step(&self, run: &Run, with: Value) -> Result<Payload, Interruption> {
        let text = run.veiled(with).to_string();
        Ok(self.seal(run, STEP_STARTED, INPUT, &text).await?)
    }

    /// Takes down what came of an attempt. A failure that is to be tried again is put off.
    async fn ended(
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
            self.put_off(run, &mut *run.course.lock().await, &step.id, until).await?;
        }
        after_failure(step, error)
    }

    /// Notes what came of an attempt at a step, or at one of its items.
    async fn note_end(
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

    /// Does a step for each item of a list. Every item that reaches outside is a step of its own in the
    /// log, as `fetch[3]`.
    async fn repeat(
        &self,
        run: &Run,
        work: &Work,
        step: &StepSpec,
        foreach: &Foreach,
    ) -> Result<Value, Interruption> {
        let (list, scope) = (foreach.items.clone(), tools::seen_by(work, step, None));
        let items = tools::evaluated(move || {
            list.list(&scope).map_err(|error| {
                ToolError::lasting(error.code, format!("foreach: {}", error.message))
            })
        });
        let most = foreach.max_items as usize;
        let items = match items.await {
            Ok(items) if items.len() > most => Err(ToolError::lasting(
                "too_many_items",
                format!(
                    "the list has {} items, at most {most} are worked on: shorten it, or raise \
                     foreach.max_items",
                    items.len()
                ),
            )),
            items => items,
        };
        let items = match items {
            Ok(items) => items,
            Err(error) => return self.done(run, step, Err(error)).await,
        };
        let items: Vec<Item> =
            items.into_iter().enumerate().map(|(index, value)| Item { value, index }).collect();
        if step.kind.computes() {
            let mut outputs = Vec::with_capacity(items.len());
            for item in &items {
                match (tools::computed(work, step, Some(item)).await, step.control.on_error) {
                    (Ok(output), _) => outputs.push(output),
                    (Err(error), OnError::Continue) => outputs.push(as_output(&error)),
                    (Err(error), OnError::Fail) => return self.done(run, step, Err(error)).await,
                }
            }
            return self.done(run, step, Ok(json!({ "items": outputs }))).await;
        }

        let rounds = items.len().div_ceil(foreach.max_parallel as usize).max(1);
        let of_one = limit(step) * step.control.retry.attempts + step.control.retry.longest_waits();
        let takes = of_one.saturating_mul(u32::try_from(rounds).unwrap_or(u32::MAX));
        let attempt = self.begin_outside(run, step, None, takes).await?;
        let each: Vec<_> =
            items.iter().map(|item| self.item(run, work, step, item).boxed()).collect();
        let worked = stream::iter(each).buffered(foreach.max_parallel as usize);
        match together(worked, LARGEST_OUTPUT).await {
            Ok(outputs) => self.ended(run, step, attempt, Ok(json!({ "items": outputs }))).await,
            Err(Interruption::Failed { error, .. }) => {
                let error = ToolError { is_passing: false, ..error };
                match self.note_end(run, &step.id, attempt, Err(error)).await? {
                    Ok(output) => Ok(output),
                    Err(error) => after_failure(step, error),
                }
            }
            Err(other) => Err(other),
        }
    }

    /// Does a step for one item. It is tried again here: the others go on meanwhile.
    async fn item(
        &self,
        run: &Run,
        work: &Work,
        step: &StepSpec,
        item: &Item,
    ) -> Result<Value, Interruption> {
        let id = tools::place(step, Some(item));
        let known = run.course.lock().await.step(&id).cloned();
        if let Some(known) = known {
            if let Some(output) = self.output_of(run, &known).await? {
                return Ok(output);
            }
            if let StepProgress::Failed { code, transient } = &known.progress
                && !step.control.retry.follows(known.attempt, failure(code, *transient))
            {
                let message = self.why_failed(run, &id).await?;
                return after_failure(step, ToolError::lasting(code.clone(), message));
            }
            give_up_what_is_always_cut_off(&id, &known)?;
        }
        let (input, call) = match tools::read(work, step, Some(item)).await {
            Ok(Told { with, call }) => (Some(self.input_of_step(run, with).await?), Ok(call)),
            Err(error) => (None, Err(error)),
        };
        loop {
            let (attempt, claimed_until) = {
                let mut course = run.course.lock().await;
                let attempt = course.begin(&id, input.clone())?;
                self.send(run, &mut course).await?;
                (attempt, course.claim.until)
            };
            let result = match &call {
                Ok(call) => self.attempt(run, work, step, &id, call).await?,
                Err(error) => Err(error.clone()),
            };
            let result = self.note_end(run, &id, attempt, result).await?;
            self.send(run, &mut *run.course.lock().await).await?;
            let error = match result {
                Ok(output) => return Ok(output),
                Err(error) => error,
            };
            let wait = wait_after(run, step, &id, attempt, &error);
            // Whoever asks to be left alone for longer than the claim is good is not asked again.
            let is_ours_then = Utc::now() + wait + limit(step) < claimed_until;
            if !is_ours_then || !step.control.retry.follows(attempt, failure_of(&error)) {
                return after_failure(step, error);
            }
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = self.queue.stopping() => return Err(Interruption::Stopping),
                () = run.stop.cancelled() => return Err(Interruption::NotOurs),
                () = reaches(run.deadline) => return Err(too_long()),
            }
        }
    }

    /// Does what a step says, for a bounded time.
    async fn attempt(
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
                Err(_) => ToolError::lasting(
                    TIMED_OUT,
                    format!(
                        "the step took longer than {} s: give it less to do, or more time (`timeout`)",
                        limit.as_secs_f32()
                    ),
                ),
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
fn limit(step: &StepSpec) -> Duration {
    step.control.timeout.unwrap_or(STEP_LIMIT)
}

fn failure_of(error: &ToolError) -> Failure<'_> {
    failure(&error.code, error.is_passing)
}

fn failure(code: &str, is_transient: bool) -> Failure<'_> {
    Failure { code, is_transient, is_timeout: code == TIMED_OUT }
}

/// How long to wait before a step, or one of its items, is tried again: the same after a crash, and not
/// before the one who was asked wants to be asked again.
fn wait_after(
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
fn after_failure(step: &StepSpec, error: ToolError) -> Result<Value, Interruption> {
    match step.control.on_error {
        OnError::Continue => Ok(as_output(&error)),
        OnError::Fail => Err(Interruption::Failed { step: Some(step.id.clone()), error }),
    }
}

fn as_output(error: &ToolError) -> Value {
    json!({ "error": { "code": error.code, "message": error.message } })
}

/// What the items of a step put out, in their order. It is given up as soon as it is more than may be kept:
/// so no list, however long, is held whole before that is found.
async fn together(
    outputs: impl Stream<Item = Result<Value, Interruption>>,
    at_most: usize,
) -> Result<Vec<Value>, Interruption> {
    let mut outputs = std::pin::pin!(outputs);
    let (mut all, mut size) = (Vec::new(), 0);
    while let Some(output) = outputs.try_next().await? {
        size += output.to_string().len();
        if size > at_most {
            let error = too_large(&format!("more than {at_most} bytes"), at_most);
            return Err(Interruption::Failed { step: None, error });
        }
        all.push(output);
    }
    Ok(all)
}

fn too_large(size: &str, at_most: usize) -> ToolError {
    let message =
        format!("the step put out {size}, at most {at_most} are kept: let it put out less");
    ToolError::lasting("output_too_large", message)
}

fn give_up_what_is_always_cut_off(step_id: &str, known: &Step) -> Result<(), Interruption> {
    if known.progress != StepProgress::Running || known.attempt < MOST_ATTEMPTS {
        return Ok(());
    }
    let message = format!(
        "the step was cut off {MOST_ATTEMPTS} times and is given up: look at the server's log for \
         what stopped it, then execute the agent again"
    );
    Err(failed(Some(step_id), "cut_off_too_often", message))
}

fn too_long() -> Interruption {
    Interruption::TooLong(domain::execution::TimeLimit::Execution)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[tokio::test]
    async fn what_items_put_out_is_given_up_before_all_of_it_is_held() {
        let asked = AtomicUsize::new(0);
        let outputs = |count: usize| {
            let put_out = async |_| {
                asked.fetch_add(1, Ordering::SeqCst);
                Ok(json!("12345678"))
            };
            stream::iter(0..count).then(put_out)
        };
        let all = together(outputs(10), 100).await.ok();
        assert_eq!(all.map(|all| all.len()), Some(10), "a hundred bytes with the quotes");
        asked.store(0, Ordering::SeqCst);
        let Err(Interruption::Failed { error, .. }) = together(outputs(1_000), 100).await else {
            panic!("it is too much");
        };
        assert_eq!((error.code.as_str(), error.is_passing), ("output_too_large", false));
        assert_eq!(asked.load(Ordering::SeqCst), 11);
    }
}
