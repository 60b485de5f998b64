//! Who may run now: takes a place in the lane of an agent whose manifest says how many run at once, and
//! gives it up when the execution has ended.
//!
//! The rule of this file: a place is an event on the lane's stream, appended behind all that was read of
//! it; memory only spares reading it again. A place that nobody gave up, since a server died before it
//! could, is given up by whoever stands before it. Who waits is woken when somebody leaves, and the first
//! in line looks again by itself, so a word that is lost holds nobody up.

use std::collections::HashMap;
use std::sync::Arc;

use chrono::{DateTime, TimeDelta, Utc};
use cqrs_es::Aggregate;
use domain::execution::{CancelReason, Execution, ExecutionCommand};
use domain::lane::{Guest, Lane, LaneCommand, LaneEvent};
use domain::manifest::{Concurrency, ConcurrencyStrategy, Manifest};
use domain::{Digest, Timestamp};
use eventlog::{RecordedEvent, StreamId};
use parking_lot::Mutex;
use uuid::Uuid;

use super::interruption::Interruption;
use super::{Run, Runner, tools};
use crate::execute::decode_event;
use crate::policies::ToolError;
use crate::policies::queue::{Outcome, Queue};
use crate::{Ask, Commands, Error};

/// How many lanes are looked after at once.
const AT_ONCE: usize = 16;

/// How many lanes are kept in memory.
const LANES: u64 = 10_000;

/// How much of a lane's stream one read brings.
const BATCH: usize = 1_000;

/// How often a race is lost before others get their turn.
const MOST_RACES: usize = 20;

/// How long the first in line sleeps, should nobody wake it.
const LOOK_AGAIN: TimeDelta = TimeDelta::seconds(10);

/// Whose the events are.
const NAME: &str = "lanes";

const SUMMARIZED: &str = "lane.summarized.v1";

/// What this node knows of lanes.
pub(super) struct Lanes {
    commands: Commands,
    queue: Arc<Queue>,
    known: moka::sync::Cache<Uuid, Arc<tokio::sync::Mutex<Known>>>,
    /// The agents of executions that have a place or wait for one, as far as they were seen here.
    agents: Mutex<HashMap<Uuid, Uuid>>,
}

/// A lane, as far as its stream was read.
#[derive(Default)]
struct Known {
    lane: Lane,
    sequence: u64,
}

/// How things stand for an execution.
struct View {
    /// It has a place.
    is_inside: bool,
    /// Something was appended to find that out.
    is_news: bool,
    /// Who comes first when there is a place.
    first: Option<Guest>,
    /// Who has the places, if it has none.
    inside: Vec<Guest>,
}

impl Lanes {
    pub(super) fn new(commands: Commands) -> Lanes {
        Lanes {
            commands,
            queue: Arc::new(Queue::new(NAME, AT_ONCE)),
            known: moka::sync::Cache::new(LANES),
            agents: Mutex::default(),
        }
    }

    /// Remembers that an execution is one of those that need a place.
    pub(super) fn note(&self, execution: Uuid, agent: Uuid) {
        self.agents.lock().insert(execution, agent);
    }

    /// Gives up the place of an execution that has ended, if it needed one.
    pub(super) fn ended(self: &Arc<Self>, execution: Uuid) {
        let Some(agent) = self.agents.lock().remove(&execution) else { return };
        let lanes = self.clone();
        self.queue.add(execution, move || {
            let lanes = lanes.clone();
            async move {
                match lanes.leave(agent, execution).await {
                    Ok(()) => Outcome::Finished,
                    Err(error) => Outcome::TryAgain(error.to_string()),
                }
            }
        });
    }

    pub(super) async fn stop(&self) {
        self.queue.stop().await;
    }

    async fn leave(&self, agent: Uuid, execution: Uuid) -> Result<(), Error> {
        let stream = StreamId::new("execution", execution);
        let first = self.commands.log().read_stream(&stream, 0, 1).await?;
        let Some(requested) = first.first() else { return Ok(()) };
        let guest = Guest { execution, key: None, requested_at: Timestamp::from(requested.time) };
        let leave = LaneCommand::Leave { execution };
        self.decide(agent, &guest, leave, &ask_once(requested)).await.map(drop)
    }

    /// Gives up the places of those that have ended. Answers whether there was one.
    async fn clear(&self, agent: Uuid, suspects: &[Guest]) -> Result<bool, Error> {
        let mut cleared = false;
        for guest in suspects {
            let stream = StreamId::new("execution", guest.execution);
            let (state, _) = self.commands.load::<Execution>(&stream).await?;
            if matches!(state, Execution::Ended { .. }) {
                self.leave(agent, guest.execution).await?;
                cleared = true;
            }
        }
        Ok(cleared)
    }

    /// Those who wait in a lane, the oldest first: of one key, or all of them.
    async fn waiting(
        &self,
        agent: Uuid,
        key: Option<&Option<Digest>>,
    ) -> Result<Vec<Guest>, Error> {
        let known = self.known.get_with(agent, Arc::default);
        let mut known = known.lock().await;
        known.read_on(&self.commands, &StreamId::new("lane", agent)).await?;
        Ok(match key {
            Some(key) => known.lane.waiting_of(key).take(1).cloned().collect(),
            None => known.lane.waiting.clone(),
        })
    }

    /// Lets a lane decide on all that its stream says, and answers how things stand then.
    async fn decide(
        &self,
        agent: Uuid,
        guest: &Guest,
        command: LaneCommand,
        ask: &Ask,
    ) -> Result<View, Error> {
        let stream = StreamId::new("lane", agent);
        let known = self.known.get_with(agent, Arc::default);
        // Those of this node take turns, rather than to race each other.
        let mut known = known.lock().await;
        for _ in 0..MOST_RACES {
            known.read_on(&self.commands, &stream).await?;
            if !matches!(known.lane.decide(command.clone()), Ok(events) if !events.is_empty()) {
                return Ok(known.view(guest, false));
            }
            let state = (known.lane.clone(), known.sequence);
            match self.commands.decide::<Lane>(&stream, state, command.clone(), ask).await {
                Ok(done) => {
                    known.take_in(&done.events)?;
                    return Ok(known.view(guest, true));
                }
                Err(Error::Conflict) => {}
                Err(error) => return Err(error),
            }
        }
        Err(Error::Conflict)
    }
}

impl Known {
    /// Reads what happened since, here or elsewhere.
    async fn read_on(&mut self, commands: &Commands, stream: &StreamId) -> Result<(), Error> {
        if self.sequence == 0 {
            self.begin(commands, stream).await?;
        }
        loop {
            let events = commands.log().read_stream(stream, self.sequence, BATCH).await?;
            self.take_in(&events)?;
            if events.len() < BATCH {
                return Ok(());
            }
        }
    }

    /// Takes in the newest summary of a lane that was not read yet. Streams are read forwards only, so its
    /// end is found by halving, and the summary by looking further and further before it.
    async fn begin(&mut self, commands: &Commands, stream: &StreamId) -> Result<(), Error> {
        let log = commands.log();
        let (mut low, mut high) = (0, BATCH as u64);
        while !log.read_stream(stream, high, 1).await?.is_empty() {
            (low, high) = (high, high * 2);
        }
        // One that is short is read whole.
        if low == 0 {
            return Ok(());
        }
        // There is something behind `low`, and nothing behind `high`.
        while high - low > BATCH as u64 {
            let middle = low + (high - low) / 2;
            match log.read_stream(stream, middle, 1).await?.is_empty() {
                true => high = middle,
                false => low = middle,
            }
        }
        let mut step = BATCH as u64;
        loop {
            let after = low.saturating_sub(step);
            if let Some(summary) = last_summary(commands, stream, after, high).await? {
                self.sequence = summary.sequence - 1;
                return self.take_in(&[summary]);
            }
            if after == 0 {
                return Ok(());
            }
            (high, low, step) = (after, after, step * 2);
        }
    }

    fn take_in(&mut self, events: &[Arc<RecordedEvent>]) -> Result<(), Error> {
        let known = self.sequence;
        for event in events.iter().filter(|event| event.sequence > known) {
            self.lane.apply(decode_event(event)?);
            self.sequence = event.sequence;
        }
        Ok(())
    }

    fn view(&self, guest: &Guest, is_news: bool) -> View {
        let is_inside = self.lane.has(guest.execution);
        if is_inside {
            return View { is_inside, is_news, first: None, inside: Vec::new() };
        }
        // The key that it came with counts.
        let key = &self.lane.guest(guest.execution).unwrap_or(guest).key;
        let first = self.lane.waiting_of(key).next().cloned();
        View { is_inside, is_news, first, inside: self.lane.inside_of(key).cloned().collect() }
    }
}

/// The last summary of a lane in a part of its stream.
async fn last_summary(
    commands: &Commands,
    stream: &StreamId,
    mut after: u64,
    until: u64,
) -> Result<Option<Arc<RecordedEvent>>, Error> {
    let mut last = None;
    while after < until {
        let events = commands.log().read_stream(stream, after, BATCH).await?;
        let Some(end) = events.last().map(|event| event.sequence) else { break };
        let summaries = events.into_iter().filter(|event| event.event_type == SUMMARIZED);
        last = summaries.last().or(last);
        after = end;
    }
    Ok(last)
}

/// A command that follows from an execution's request, carried out as often as it is asked: what comes
/// of it is the lane's to say.
fn ask_once(requested: &RecordedEvent) -> Ask {
    let ask = Ask::because_of(requested, NAME, &[Uuid::now_v7().as_bytes()]);
    Ask { repeatable: false, ..ask }
}

impl Runner {
    /// Takes a place for an execution that has not started yet, where there is one; and else does what
    /// the manifest says.
    pub(super) async fn take_place(
        &self,
        run: &Run,
        manifest: &Manifest,
        concurrency: &Concurrency,
        until: DateTime<Utc>,
    ) -> Result<(), Interruption> {
        let agent = run.request.agent;
        let guest = Guest {
            execution: run.id,
            key: self.key(run, manifest, concurrency).await?,
            requested_at: Timestamp::from(run.requested.time),
        };
        let waits = concurrency.strategy == ConcurrencyStrategy::Queue;
        for _ in 0..MOST_RACES {
            let enter = LaneCommand::Enter { guest: guest.clone(), max: concurrency.max, waits };
            let view = self.lanes.decide(agent, &guest, enter, &ask_once(&run.requested)).await?;
            if view.is_news {
                self.check_goes_on(run).await?;
            }
            if view.is_inside {
                return Ok(());
            }
            let first = view.first.filter(|first| waits && first.execution != run.id);
            let suspects = first.as_ref().map_or(view.inside.as_slice(), std::slice::from_ref);
            if self.lanes.clear(agent, suspects).await? {
                continue;
            }
            match concurrency.strategy {
                ConcurrencyStrategy::Queue => {
                    // Whoever is behind others is woken by their coming in, or leaving.
                    let again = first.is_none().then(|| Utc::now() + LOOK_AGAIN);
                    return Err(Interruption::NotBefore(again.map_or(until, |it| it.min(until))));
                }
                ConcurrencyStrategy::CancelNew => {
                    return Err(Interruption::Unwanted(CancelReason::ConcurrencyLimit));
                }
                ConcurrencyStrategy::CancelRunning => {
                    let oldest = view.inside.iter().min_by_key(|other| other.age());
                    match oldest.filter(|oldest| oldest.age() < guest.age()) {
                        Some(oldest) => self.supersede(run, oldest).await?,
                        // They are newer, whoever came first.
                        None => return Err(Interruption::Unwanted(CancelReason::Superseded)),
                    }
                }
            }
        }
        Err(Interruption::Passing("others are faster again and again".into()))
    }

    /// What tells executions of an agent apart. It may be about a person, so it is hashed.
    async fn key(
        &self,
        run: &Run,
        manifest: &Manifest,
        concurrency: &Concurrency,
    ) -> Result<Option<Digest>, Interruption> {
        let Some(key) = concurrency.key.clone() else { return Ok(None) };
        let scope = self.scope(run, manifest, self.input(run).await?).await?;
        let evaluated = tools::evaluated(move || {
            key.key(&scope).map_err(|error| {
                let message = format!("limits/concurrency/key: {}", error.message);
                ToolError::lasting(error.code, message)
            })
        });
        let key = evaluated.await.map_err(|error| Interruption::Failed { step: None, error })?;
        let what = format!("{}\0{key}", run.request.agent);
        Ok(Some(self.commands.secrets.claim(NAME, &what)))
    }

    /// Whoever ended while it took a place was told so before it had one.
    async fn check_goes_on(&self, run: &Run) -> Result<(), Interruption> {
        let (state, _) = self.commands.replay::<Execution>(&run.stream).await?;
        if !matches!(state, Execution::Ended { .. }) {
            return Ok(());
        }
        self.lanes.agents.lock().remove(&run.id);
        self.lanes.leave(run.request.agent, run.id).await?;
        Err(Interruption::NotOurs)
    }

    /// Cancels an older execution, and takes its place from it.
    async fn supersede(&self, run: &Run, older: &Guest) -> Result<(), Interruption> {
        let id = older.execution;
        let ask = Ask::because_of(&run.requested, NAME, &[b"supersede", id.as_bytes()]);
        let cancel = ExecutionCommand::Cancel { reason: CancelReason::Superseded };
        match self.commands.execute_while_it_runs(id, cancel, &ask).await {
            Ok(_) | Err(Error::Refused { .. }) => {}
            Err(error) => return Err(error.into()),
        }
        Ok(self.lanes.leave(run.request.agent, id).await?)
    }

    /// Lets those behind pass: it stands still before it started.
    pub(super) async fn stand_aside(
        &self,
        requested: &RecordedEvent,
        execution: Uuid,
        agent: Uuid,
    ) -> Result<(), Interruption> {
        let requested_at = Timestamp::from(requested.time);
        let guest = Guest { execution, key: None, requested_at };
        let give_up = LaneCommand::GiveUp { execution };
        let view = self.lanes.decide(agent, &guest, give_up, &ask_once(requested)).await?;
        let stream = StreamId::new("execution", execution);
        if view.is_news
            && let (Execution::Queued { is_paused: false, .. }, _) =
                self.commands.replay::<Execution>(&stream).await?
        {
            return Err(Interruption::Passing("it is to go on after all".into()));
        }
        Ok(())
    }

    /// Lets those behind an execution pass that stands still, if it needs a place; and watches its limit.
    pub(in super::super) fn paused(self: &Arc<Self>, product: Option<Uuid>, execution: Uuid) {
        self.add(product, execution);
    }

    /// Takes up who comes next in a lane where somebody came in or left.
    pub(in super::super) fn lane_moved(self: &Arc<Self>, agent: Uuid, event: &RecordedEvent) {
        let key = match decode_event(event) {
            Ok(LaneEvent::Entered { key, .. } | LaneEvent::Left { key, .. }) => key,
            Ok(LaneEvent::Queued { .. } | LaneEvent::Summarized { .. }) => return,
            Err(error) => return tracing::error!(%error, "nobody is told that a lane moved"),
        };
        self.take_up(event.id, event.product, agent, Some(key));
    }

    /// Takes up all who wait in the lane of an agent that is gone.
    pub(in super::super) fn agent_gone(self: &Arc<Self>, product: Option<Uuid>, agent: Uuid) {
        self.take_up(agent, product, agent, None);
    }

    fn take_up(
        self: &Arc<Self>,
        id: Uuid,
        product: Option<Uuid>,
        agent: Uuid,
        key: Option<Option<Digest>>,
    ) {
        let runner = self.clone();
        self.lanes.queue.add(id, move || {
            let (runner, key) = (runner.clone(), key.clone());
            async move {
                match runner.lanes.waiting(agent, key.as_ref()).await {
                    Ok(guests) => {
                        guests.iter().for_each(|guest| runner.add(product, guest.execution));
                        Outcome::Finished
                    }
                    Err(error) => Outcome::TryAgain(error.to_string()),
                }
            }
        });
    }
}

#[cfg(test)]
mod tests;
