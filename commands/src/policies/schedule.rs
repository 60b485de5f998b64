//! Schedules: fires the triggers that listen to the clock.
//!
//! The rule of this file: an instant is settled by an event on the schedule's own stream before
//! anything follows from it, and what follows has ids that are made from the firing. So an instant
//! fires once, whichever node is first and whenever it is cut off. Before a schedule goes on, the
//! execution of its newest firing has been asked for.

mod facts;
mod plan;

use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use domain::Timestamp;
use domain::execution::{CancelReason, Execution, ExecutionCommand};
use domain::expression::Scope;
use domain::schedule::Overlap;
use domain::schedule::firings::{FiringCommand, Firings, LastFiring, SkipReason};
use eventlog::{Position, StreamId};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use uuid::Uuid;

use self::facts::Facts;
use self::plan::{Known, Plan};
use super::PendingSchedule;
use super::erasure::{Contents, NotNow};
use super::firing::{Refused, computed_input};
use super::queue::{Outcome, Queue};
use crate::execute::decode_event;
use crate::{Ask, Commands, Error, NewExecution};

/// How many schedules are looked at at once.
const AT_ONCE: usize = 16;

/// The longest sleep: a clock that jumps is noticed by then.
const LONGEST_SLEEP: Duration = Duration::from_secs(2);

/// How long an execution that is waited for is left alone, should its end go unheard.
const BLOCKED: TimeDelta = TimeDelta::seconds(5);

/// How many missed instants of a schedule fire after each other.
const MOST_MISSED: usize = 100;

/// How often a race is lost before others get their turn.
const MOST_RACES: usize = 20;

/// How much of the stream one read brings.
const BATCH: usize = 1_000;

/// Whose the events are.
const NAME: &str = "schedule";

const FAILED: &str = "schedule.failed.v1";
const ERROR: &str = "error";

/// Where the time comes from.
pub(super) type Clock = Arc<dyn Fn() -> DateTime<Utc> + Send + Sync>;

/// The clock of this machine.
pub(super) fn system_clock() -> Clock {
    Arc::new(Utc::now)
}

/// The process manager of schedules.
pub(super) struct Schedules {
    commands: Commands,
    contents: Arc<dyn Contents>,
    clock: Clock,
    queue: Arc<Queue>,
    plan: Mutex<Plan>,
    woken: Notify,
    ticker: Mutex<Option<JoinHandle<()>>>,
}

/// Why a schedule could not be looked after, this time.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    NotNow(#[from] NotNow),
    #[error(transparent)]
    Command(#[from] Error),
    #[error("others are faster again and again")]
    Races,
}

/// What is to be done about a schedule now.
enum Step {
    /// Something is settled.
    Settle(FiringCommand),
    /// Nothing, until then or until one of these executions ends.
    Rest { next: Option<Timestamp>, blocked_by: Vec<Uuid> },
}

impl Schedules {
    pub(super) fn start(
        commands: Commands,
        contents: Arc<dyn Contents>,
        clock: Clock,
    ) -> Arc<Schedules> {
        let schedules = Arc::new(Schedules {
            commands,
            contents,
            clock,
            queue: Arc::new(Queue::new(NAME, AT_ONCE)),
            plan: Mutex::default(),
            woken: Notify::new(),
            ticker: Mutex::default(),
        });
        let ticker = tokio::spawn(schedules.clone().tick());
        *schedules.ticker.lock() = Some(ticker);
        schedules
    }

    /// Watches a schedule that was there before this start.
    pub(super) fn watch(self: &Arc<Self>, pending: PendingSchedule) {
        let PendingSchedule { trigger, product, firings, sequence } = pending;
        let known = Known { product, firings, sequence, ..Known::default() };
        self.plan.lock().keep(trigger, known);
        self.look_at(product, trigger);
    }

    /// Looks at a trigger of a product that was made or changed.
    pub(super) fn add(self: &Arc<Self>, product: Option<Uuid>, trigger: Uuid) {
        self.look_at(product.unwrap_or_default(), trigger);
    }

    /// Looks at the schedules of an agent that was changed.
    pub(super) fn add_agent(self: &Arc<Self>, agent: Uuid) {
        let its = self.plan.lock().of_agent(agent);
        its.into_iter().for_each(|(product, trigger)| self.look_at(product, trigger));
    }

    /// Goes on with the schedule that waited for the end of this execution, if one did.
    pub(super) fn execution_ended(self: &Arc<Self>, execution: Uuid) {
        let waiting = self.plan.lock().waiting_for(execution);
        if let Some((product, trigger)) = waiting {
            self.look_at(product, trigger);
        }
    }

    /// Fires nothing more.
    pub(super) async fn stop(&self) {
        self.queue.stop().await;
        let ticker = self.ticker.lock().take();
        if let Some(ticker) = ticker {
            let _ = ticker.await;
        }
    }

    fn now(&self) -> Timestamp {
        Timestamp::from((self.clock)())
    }

    /// Looks at each schedule when it is due.
    async fn tick(self: Arc<Self>) {
        loop {
            let now = self.now();
            let (due, next) = {
                let mut plan = self.plan.lock();
                (plan.take_due(now), plan.next())
            };
            due.into_iter().for_each(|(product, trigger)| self.look_at(product, trigger));
            let until = |next: Timestamp| (*next - *now).to_std().unwrap_or_default();
            let sleep = next.map_or(LONGEST_SLEEP, until).min(LONGEST_SLEEP);
            tokio::select! {
                biased;
                () = self.queue.stopping() => return,
                () = self.woken.notified() => {}
                () = tokio::time::sleep(sleep) => {}
            }
        }
    }

    fn look_at(self: &Arc<Self>, product: Uuid, trigger: Uuid) {
        let schedules = self.clone();
        self.queue.add_for(product, trigger, move || {
            let schedules = schedules.clone();
            async move { schedules.look(trigger).await }
        });
    }

    async fn look(&self, trigger: Uuid) -> Outcome {
        loop {
            // What happened to the agent of an unknown one meanwhile was told to nobody.
            let is_unknown = self.plan.lock().get(trigger).is_none_or(|it| it.facts.is_none());
            match self.settle(trigger).await {
                Ok(Some(known)) => {
                    if self.plan.lock().keep(trigger, known) {
                        self.woken.notify_one();
                    }
                }
                Ok(None) => self.plan.lock().forget(trigger),
                Err(failure) => return Outcome::TryAgain(failure.to_string()),
            }
            let is_watched = self.plan.lock().get(trigger).is_some();
            if !is_unknown || !is_watched || self.queue.is_stopping() {
                return Outcome::Finished;
            }
        }
    }

    /// Settles everything that is due. Answers what is known then; nothing of what fires no more.
    async fn settle(&self, trigger: Uuid) -> Result<Option<Known>, Failure> {
        let mut known = self.plan.lock().get(trigger).cloned().unwrap_or_default();
        let mut races = 0;
        while races < MOST_RACES {
            let facts = Facts::of(&self.commands, trigger, known.facts.take()).await?;
            let Some(facts) = facts else { return Ok(None) };
            known.product = facts.product;
            known.facts = Some(facts.clone());
            self.read_on(trigger, &mut known).await?;
            let command = match self.ask_for_last(&facts, &mut known).await? {
                Some(fail) => fail,
                None => match self.step(&facts, &known).await? {
                    Step::Settle(command) => command,
                    Step::Rest { next, blocked_by } => {
                        return Ok(Some(Known { next, blocked_by, ..known }));
                    }
                },
            };
            if self.queue.is_stopping() {
                return Ok(Some(known));
            }
            if !self.decide(&facts, &known, command).await? {
                races += 1;
            }
        }
        Err(Failure::Races)
    }

    /// Reads what was settled since, here or elsewhere.
    async fn read_on(&self, trigger: Uuid, known: &mut Known) -> Result<(), Error> {
        let stream = StreamId::new("schedule", trigger);
        loop {
            let events = self.commands.log().read_stream(&stream, known.sequence, BATCH).await?;
            for event in &events {
                known.firings.remember(decode_event(event)?);
                known.sequence = event.sequence;
                known.reached = known.reached.max(event.position);
            }
            if events.len() < BATCH {
                return Ok(());
            }
        }
    }

    /// Appends what is settled, unless something was settled since. Answers whether it did.
    async fn decide(
        &self,
        facts: &Facts,
        known: &Known,
        command: FiringCommand,
    ) -> Result<bool, Error> {
        let ask = match &command {
            FiringCommand::Fire { instant, .. } => facts.ask("fire", *instant),
            FiringCommand::Fail { instant, .. } => facts.ask("fail", *instant),
            _ => facts.ask_once(),
        };
        let stream = StreamId::new("schedule", facts.trigger);
        let state = (known.firings.clone(), known.sequence);
        match self.commands.decide::<Firings>(&stream, state, command, &ask).await {
            Ok(done) => Ok(!done.events.is_empty()),
            Err(Error::Refused { .. } | Error::Conflict) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// What is to be done about a schedule now.
    async fn step(&self, facts: &Facts, known: &Known) -> Result<Step, Failure> {
        let Known { firings, .. } = known;
        if let Some(instant) = firings.waiting.first()
            && (*instant <= facts.since || !facts.is_listening)
        {
            let (instant, reason) = (*instant, SkipReason::Outdated);
            return Ok(Step::Settle(FiringCommand::Skip { instant, reason }));
        }
        if !facts.is_listening {
            return Ok(Step::Rest { next: None, blocked_by: vec![] });
        }

        let now = self.now();
        let starts_at = |instant: Timestamp| facts.firing(instant).starts_at;
        let mut blocked_by = Vec::new();
        let ready = firings.waiting.iter().copied().find(|instant| starts_at(*instant) <= now);
        if let Some(instant) = ready {
            match self.fire(facts, known, instant).await? {
                Ok(command) => return Ok(Step::Settle(command)),
                Err(running) => blocked_by = running,
            }
        }

        let seen = firings.settled.max(Some(facts.since)).unwrap_or(facts.since);
        let due = facts.schedule.due(seen, now, MOST_MISSED);
        if due.passed_over {
            let before = |instant: &Timestamp| **instant - TimeDelta::microseconds(1);
            let up_to = due.fire.first().map_or(*now, before).into();
            return Ok(Step::Settle(FiringCommand::PassOver { up_to }));
        }
        if let Some(instant) = due.fire.first().copied() {
            let queue = Step::Settle(FiringCommand::Queue { instant });
            if starts_at(instant) > now || !blocked_by.is_empty() {
                return Ok(queue);
            }
            return Ok(match self.fire(facts, known, instant).await? {
                Ok(command) => Step::Settle(command),
                Err(_) => queue,
            });
        }

        let waiting = firings.waiting.iter().map(|instant| starts_at(*instant));
        let next = waiting
            .filter(|starts_at| *starts_at > now)
            .chain(facts.schedule.next_after(seen))
            .chain((!blocked_by.is_empty()).then(|| Timestamp::from(*now + BLOCKED)))
            .min();
        Ok(Step::Rest { next, blocked_by })
    }

    /// What to do about an instant that may start: fire it, or not. Or the executions that it has to
    /// wait for.
    async fn fire(
        &self,
        facts: &Facts,
        known: &Known,
        instant: Timestamp,
    ) -> Result<Result<FiringCommand, Vec<Uuid>>, Failure> {
        let running = match facts.schedule.overlap {
            Overlap::Allow | Overlap::CancelRunning => vec![],
            Overlap::Skip | Overlap::Queue => self.running(facts.trigger, known.reached).await?,
        };
        if running.is_empty() {
            let execution = facts.ask_execution(instant).new_id("execution");
            return Ok(Ok(FiringCommand::Fire { instant, execution }));
        }
        Ok(match facts.schedule.overlap {
            Overlap::Queue => Err(running),
            _ => Ok(FiringCommand::Skip { instant, reason: SkipReason::Overlap }),
        })
    }

    /// The executions of a trigger that have not ended. Which there are, the read side knows; whether
    /// they have ended, the log does.
    async fn running(&self, trigger: Uuid, reached: Position) -> Result<Vec<Uuid>, Failure> {
        let mut running = Vec::new();
        for execution in self.contents.executions_of(trigger, reached).await? {
            let stream = StreamId::new("execution", execution);
            let (state, _) = self.commands.load::<Execution>(&stream).await?;
            if !matches!(state, Execution::Ended { .. }) {
                running.push(execution);
            }
        }
        Ok(running)
    }

    /// Asks for the execution of the newest firing, unless that was done. Answers what to say where
    /// it cannot be.
    async fn ask_for_last(
        &self,
        facts: &Facts,
        known: &mut Known,
    ) -> Result<Option<FiringCommand>, Failure> {
        let Some(last) = known.firings.last else { return Ok(None) };
        if known.asked_for == Some(last.execution) {
            return Ok(None);
        }
        let stream = StreamId::new("execution", last.execution);
        let first = self.commands.log().read_stream(&stream, 0, 1).await.map_err(Error::from)?;
        let requested = match first.first() {
            Some(requested) => Ok(requested.position),
            None => self.request(facts, known.reached, last).await?,
        };
        match requested {
            Ok(position) => {
                known.reached = known.reached.max(position);
                known.asked_for = Some(last.execution);
                Ok(None)
            }
            Err(Refused { code, message }) => {
                tracing::warn!(trigger = %facts.trigger, instant = %last.instant, code, "a schedule fired, and its execution cannot be asked for");
                let stream = StreamId::new("schedule", facts.trigger);
                let (organization, product) = (facts.organization, facts.product);
                let text = message.as_bytes();
                let error = self
                    .commands
                    .seal_payload(organization, product, &stream, FAILED, ERROR, text)
                    .await?;
                Ok(Some(FiringCommand::Fail { instant: last.instant, code, error }))
            }
        }
    }

    /// Asks for the execution of a firing. Answers the position of its request.
    async fn request(
        &self,
        facts: &Facts,
        reached: Position,
        last: LastFiring,
    ) -> Result<Result<Position, Refused>, Failure> {
        if !facts.is_listening {
            let message = "right after it fired, the trigger or its agent was disabled, or another \
                           version became the active one: nothing ran";
            return Ok(Err(Refused { code: "disabled".into(), message: message.into() }));
        }
        let input = match self.input(facts, last.instant).await? {
            Ok(input) => input,
            Err(refused) => return Ok(Err(refused)),
        };
        if facts.schedule.overlap == Overlap::CancelRunning {
            for running in self.running(facts.trigger, reached).await? {
                self.supersede(facts, running, last).await?;
            }
        }
        let new = NewExecution { agent: facts.agent, trigger: Some(facts.trigger), input };
        let ask = facts.ask_execution(last.instant);
        match self.commands.request_for_trigger(new, facts.version(), None, &ask).await {
            Ok(done) => Ok(Ok(done.position())),
            Err(error) => Ok(Err(Refused::by_request(error)?)),
        }
    }

    /// The input of an execution, its expressions computed.
    async fn input(
        &self,
        facts: &Facts,
        instant: Timestamp,
    ) -> Result<Result<Option<Value>, Refused>, Failure> {
        let Some(input) = facts.input.clone() else { return Ok(Ok(None)) };
        let manifest = self.commands.manifest_of(facts.agent, facts.runs).await?;
        let config = self.commands.config_for(facts.organization, facts.agent, &manifest).await;
        // As the version sees it that is started.
        let config = match config {
            Ok(config) => config,
            Err(error) => return Ok(Err(Refused::by_configuration(error)?)),
        };
        let scope = Scope {
            config,
            trigger: json!({
                "id": facts.trigger, "key": facts.key, "type": "schedule", "instant": instant,
            }),
            ..Scope::default()
        };
        Ok(computed_input(input, scope, &manifest).await.map(Some))
    }

    /// Cancels an execution because a newer firing takes its place.
    async fn supersede(&self, facts: &Facts, old: Uuid, new: LastFiring) -> Result<(), Error> {
        let cancel = ExecutionCommand::Cancel { reason: CancelReason::Superseded };
        let ask: Ask = facts.ask(&format!("supersede {old}"), new.instant);
        match self.commands.execute::<Execution>(old, cancel, &ask).await {
            // It has ended by itself.
            Ok(_) | Err(Error::Refused { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }
}

#[cfg(test)]
mod tests;
