//! A step that is done for each item of a list, several of them at once.
//!
//! The rule of this file: every item that reaches outside is a step of its own in the log, as `fetch[3]`. As
//! long as one of them is worked on, the others wait here; when all that is left is waiting, it waits in
//! the log, and nobody is busy.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use chrono::Utc;
use domain::Timestamp;
use domain::execution::StepProgress;
use domain::expression::Item;
use domain::manifest::{Foreach, OnError, StepSpec};
use domain::step::StepKind;
use futures::{FutureExt, Stream, StreamExt, TryStreamExt, stream};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::Notify;

use super::interruption::Interruption;
use super::steps::{
    LARGEST_OUTPUT, after_failure, as_output, failure, failure_of, give_up_what_is_always_cut_off,
    limit, too_large, too_long, wait_after,
};
use super::tools::Told;
use super::{Run, Runner, SOON, Work, reaches, tools};
use crate::policies::ToolError;

/// How long nothing but waiting goes on before that is believed.
const GLANCE: Duration = Duration::from_millis(100);

impl Runner {
    /// Does a step for each item of a list. Every item that reaches outside is a step of its own in the
    /// log, as `fetch[3]`.
    pub(super) async fn repeat(
        &self,
        run: &Run,
        work: &Work,
        step: &StepSpec,
        foreach: &Foreach,
        parked: Option<u32>,
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
            Err(error) => {
                let error = Err(ToolError { is_passing: false, ..error });
                return match parked {
                    Some(attempt) => self.ended(run, step, attempt, error).await,
                    None => self.done(run, step, error).await,
                };
            }
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
        let attempt = match parked {
            Some(attempt) => {
                self.check_wanted(run.product, run.request.agent).await?;
                self.claim_for(run, &mut *run.course.lock().await, takes).await?;
                attempt
            }
            None => self.begin_outside(run, step, None, takes).await?,
        };
        let rests = Rests::default();
        let each: Vec<_> =
            items.iter().map(|item| self.item(run, work, step, item, &rests).boxed()).collect();
        let worked = stream::iter(each).buffered(foreach.max_parallel as usize);
        let outcome = tokio::select! {
            biased;
            outcome = together(worked, LARGEST_OUTPUT) => outcome,
            waits = rests.nothing_else(self) => Err(self.put_items_off(run, waits).await),
        };
        match outcome {
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

    /// Lets items wait in the log that nobody is at.
    async fn put_items_off(&self, run: &Run, mut waits: Vec<(String, Timestamp)>) -> Interruption {
        for (place, until) in &mut waits {
            let runs = run.course.lock().await.step(place).is_some_and(|step| step.runs());
            if !runs {
                continue;
            }
            // It waits for the outbox, which may have been quicker.
            self.expect(Some(run.product), run.id, place);
            match self.outbox.fate_so_far(&run.requested, run.id, place).await {
                Ok(Some(_)) => *until = Timestamp::from(Utc::now()),
                Ok(None) => {}
                Err(error) => return error.into(),
            }
        }
        self.put_off(run, waits).await
    }

    /// Does a step for one item. It is tried again here: the others go on meanwhile.
    async fn item(
        &self,
        run: &Run,
        work: &Work,
        step: &StepSpec,
        item: &Item,
        rests: &Rests,
    ) -> Result<Value, Interruption> {
        let _busy = rests.begin();
        let id = tools::place(step, Some(item));
        let (known, wait, parked) = {
            let course = run.course.lock().await;
            (course.step(&id).cloned(), course.wait(&id), course.parked(&id))
        };
        // What it waits for, if it waited in the log: the outbox, or its next attempt.
        let mut parked = parked.zip(wait);
        let mut pause = wait.filter(|_| parked.is_none());
        if let Some(known) = known.filter(|_| parked.is_none()) {
            if let Some(output) = self.output_of(run, &known).await? {
                return Ok(output);
            }
            if let StepProgress::Failed { code, transient } = &known.progress
                && pause.is_none()
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
            if let Some(until) = pause.take() {
                self.rest(run, step, rests, &id, until).await?;
            }
            let (attempt, until, result) = match parked.take() {
                Some((attempt, until)) => (attempt, until, Ok(Value::Null)),
                None => {
                    let attempt = {
                        let mut course = run.course.lock().await;
                        let attempt = course.begin(&id, input.clone())?;
                        self.send(run, &mut course).await?;
                        attempt
                    };
                    let until = Timestamp::from(Utc::now() + limit(step));
                    let result = match &call {
                        Ok(call) => self.attempt(run, work, step, &id, call).await?,
                        Err(error) => Err(error.clone()),
                    };
                    (attempt, until, result)
                }
            };
            let result = match result {
                // It is in the outbox, and nothing is left to do but to wait.
                Ok(_) if step.kind == StepKind::Notify => {
                    let _resting = rests.rest(&id, until);
                    self.fate_of(run, step, &id, until).await?
                }
                result => result,
            };
            let result = self.note_end(run, &id, attempt, result).await?;
            self.send(run, &mut *run.course.lock().await).await?;
            let error = match result {
                Ok(output) => return Ok(output),
                Err(error) => error,
            };
            if !step.control.retry.follows(attempt, failure_of(&error)) {
                return after_failure(step, error);
            }
            pause = Some(Timestamp::from(Utc::now() + wait_after(run, step, &id, attempt, &error)));
        }
    }

    /// Waits until an item may be tried again, and for longer where the claim would not outlast the attempt:
    /// then it begins under the next one.
    async fn rest(
        &self,
        run: &Run,
        step: &StepSpec,
        rests: &Rests,
        id: &str,
        until: Timestamp,
    ) -> Result<(), Interruption> {
        let _resting = rests.rest(id, until);
        let is_ours_then = async {
            reaches(until.into()).await;
            if Instant::now() + limit(step) >= run.course.lock().await.claim.until {
                std::future::pending::<()>().await;
            }
        };
        tokio::select! {
            () = is_ours_then => Ok(()),
            () = run.stop.cancelled() => Err(Interruption::NotOurs),
            () = reaches(run.deadline) => Err(too_long()),
        }
    }
}

/// Which items of a step are worked on, and which only wait, and until when.
#[derive(Default)]
struct Rests {
    state: Mutex<RestsState>,
    changed: Notify,
}

#[derive(Default)]
struct RestsState {
    busy: usize,
    waits: BTreeMap<String, Timestamp>,
}

/// An item that is worked on, until it is dropped.
struct Busy<'a>(&'a Rests);

/// An item that only waits, until it is dropped.
struct Resting<'a>(&'a Rests, String);

impl Rests {
    fn begin(&self) -> Busy<'_> {
        self.state.lock().busy += 1;
        Busy(self)
    }

    fn rest(&self, id: &str, until: Timestamp) -> Resting<'_> {
        let mut state = self.state.lock();
        state.busy -= 1;
        state.waits.insert(id.to_owned(), until);
        self.changed.notify_one();
        Resting(self, id.to_owned())
    }

    /// Comes back when all that is left to do is to wait for longer than is worth a worker's place. Answers
    /// who waits, and until when.
    async fn nothing_else(&self, runner: &Runner) -> Vec<(String, Timestamp)> {
        loop {
            tokio::select! {
                () = self.changed.notified() => {}
                () = runner.queue.stopping() => {}
            }
            tokio::time::sleep(GLANCE).await;
            let state = self.state.lock();
            let now = Utc::now();
            let Some(first) = state.waits.values().min().filter(|_| state.busy == 0) else {
                continue;
            };
            // One whose time is over, and which waits all the same, waits for another claim.
            let is_long = **first > now + SOON || **first <= now;
            if is_long || runner.queue.is_stopping() {
                return state.waits.iter().map(|(id, until)| (id.clone(), *until)).collect();
            }
        }
    }
}

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        self.0.state.lock().busy -= 1;
        self.0.changed.notify_one();
    }
}

impl Drop for Resting<'_> {
    fn drop(&mut self) {
        let mut state = self.0.state.lock();
        state.waits.remove(&self.1);
        state.busy += 1;
    }
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
