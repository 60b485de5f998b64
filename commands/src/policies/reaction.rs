//! Reactions: starts agents because of events of the log.
//!
//! The rule of this file: what an event starts has an id that is made from the trigger and the event,
//! so that it starts once, whatever is read again and by how many nodes. Where the log was listened to
//! is written rarely, and never ahead of what was asked for; while nothing listens, nothing is read and
//! nothing is written.
//!
//! # Layout
//! - `listeners` is who listens to what.
//! - `view` is what a filter sees of an event.

mod listeners;
mod view;

use std::collections::BTreeSet;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use domain::derived_id;
use domain::execution::{Cause, ExecutionEvent};
use domain::expression::Scope;
use domain::listening::{LISTENING_ID, Listening, ListeningCommand};
use domain::product::Product;
use domain::reaction::{Reaction, ReactionCommand};
use eventlog::{Position, RecordedEvent, StreamId};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use uuid::Uuid;

use self::listeners::{Listener, Listeners, News};
use super::firing::{Refused, computed_input};
use super::queue::{Outcome, Queue};
use crate::execute::decode_event;
use crate::{Ask, Commands, Error, NewExecution};

/// How many executions are asked for at once.
const AT_ONCE: usize = 16;

/// How many events one read of the log brings.
const BATCH: usize = 1_000;

/// How many executions may wait to be asked for before the log is read on.
const MOST_WAITING: usize = 1_000;

/// After how many events the place is written. A start reads at most as many again.
const PLACE_EVERY: u64 = 10_000;

/// A server that stops writes its place if it is at least this much further.
const PLACE_AT_STOP: u64 = 100;

/// How long to wait after the log could not be read.
const PAUSE: Duration = Duration::from_secs(1);

/// How many executions are remembered with their agents, and chains with their depth.
const REMEMBERED: u64 = 10_000;

/// Whose the events are.
const NAME: &str = "reaction";

const FAILED: &str = "reaction.failed.v1";
const ERROR: &str = "error";

/// The process manager of event triggers.
pub(super) struct Reactions {
    commands: Commands,
    queue: Arc<Queue>,
    /// Triggers, agents and products that changed, for the loop to look at.
    news: Mutex<Vec<News>>,
    woken: Notify,
    /// What matched and was not asked for yet, by the event's position and the trigger.
    open: Mutex<BTreeSet<(Position, Uuid)>>,
    closed: Notify,
    /// Up to where the log was listened to.
    reached: AtomicU64,
    /// How many events were passed since the place was written.
    passed: AtomicU64,
    /// How deep executions are that events started, by their ids; 0 for what is none of them.
    depths: moka::sync::Cache<Uuid, u32>,
    /// Whose execution it is.
    agents: moka::sync::Cache<Uuid, Uuid>,
    listening: Mutex<Option<JoinHandle<()>>>,
}

/// A filter that matched an event, or could not be trusted with it.
struct Match {
    listener: Arc<Listener>,
    event: Arc<RecordedEvent>,
    outcome: Result<Arc<Value>, Refused>,
}

/// Where the loop is in the log.
#[derive(Default)]
struct Place {
    /// Up to where it has read; nothing while nothing listens.
    read: Option<Position>,
    /// Up to where everything was listened to, as far as it is known.
    known: Position,
}

impl Reactions {
    /// Starts to listen. `triggers` are those that the read models know; the others are told by
    /// [`Reactions::tell`].
    pub(super) fn start(commands: Commands, triggers: Vec<Uuid>) -> Arc<Reactions> {
        let reactions = Arc::new(Reactions {
            commands,
            queue: Arc::new(Queue::new(NAME, AT_ONCE)),
            news: Mutex::new(triggers.into_iter().map(News::Trigger).collect()),
            woken: Notify::new(),
            open: Mutex::default(),
            closed: Notify::new(),
            reached: AtomicU64::new(0),
            passed: AtomicU64::new(0),
            depths: moka::sync::Cache::new(REMEMBERED),
            agents: moka::sync::Cache::new(REMEMBERED),
            listening: Mutex::default(),
        });
        let listening = tokio::spawn(reactions.clone().listen());
        *reactions.listening.lock() = Some(listening);
        reactions
    }

    /// Tells of an event that may begin or end that somebody listens.
    pub(super) fn tell(&self, event: &RecordedEvent) {
        if let Some(news) = News::of(event) {
            self.news.lock().push(news);
            self.woken.notify_one();
        }
    }

    /// Reacts to nothing more.
    pub(super) async fn stop(&self) {
        self.queue.stop().await;
        let listening = self.listening.lock().take();
        if let Some(listening) = listening {
            let _ = listening.await;
        }
    }

    async fn listen(self: Arc<Self>) {
        let mut head = self.commands.log().watch();
        let mut listeners = Listeners::default();
        let mut place = None;
        loop {
            // Before the read: a commit that comes in between is then seen as a change.
            head.mark_unchanged();
            let failed = match self.go_on(&mut listeners, &mut place).await {
                Ok(()) => false,
                Err(error) => {
                    tracing::error!(%error, "event triggers cannot listen; trying again");
                    true
                }
            };
            let reads = !failed && place.as_ref().is_some_and(|place| place.read.is_some());
            tokio::select! {
                biased;
                () = self.queue.stopping() => break,
                () = tokio::time::sleep(PAUSE), if failed => {}
                () = self.woken.notified(), if !failed => {}
                changed = head.changed(), if reads => if changed.is_err() { break },
            }
        }
        let passed = self.passed.load(Ordering::Relaxed);
        if let Some(place) = &mut place
            && passed >= PLACE_AT_STOP
            && let Err(error) = self.write_place(&listeners, place).await
        {
            tracing::warn!(%error, "how far event triggers listened could not be written");
        }
    }

    /// Reads on to the end of the log, if anybody listens.
    async fn go_on(
        self: &Arc<Self>,
        listeners: &mut Listeners,
        place: &mut Option<Place>,
    ) -> Result<(), Error> {
        let place = match place {
            Some(place) => place,
            None => {
                let known = Position(self.last_place().await?);
                place.insert(Place { read: None, known })
            }
        };
        loop {
            self.take_news(listeners).await?;
            let Some(since) = listeners.since() else {
                place.known = place.read.take().unwrap_or(place.known);
                return Ok(());
            };
            let read = place.read.unwrap_or(place.known.max(since));
            place.read = Some(read);
            self.reached.store(read.0, Ordering::Relaxed);
            if !self.has_room().await {
                return Ok(());
            }
            let events = self.commands.log().read_after(read, BATCH).await?;
            let Some(last) = events.last().map(|event| event.position) else { return Ok(()) };
            if !self.look_at(listeners, &events).await? {
                return Ok(());
            }
            place.read = Some(last);
            self.reached.store(last.0, Ordering::Relaxed);
            if self.passed.load(Ordering::Relaxed) >= PLACE_EVERY {
                self.write_place(listeners, place).await?;
            }
        }
    }

    /// The newest place that was written.
    async fn last_place(&self) -> Result<u64, Error> {
        let stream = StreamId::new("listening", LISTENING_ID);
        Ok(self.commands.load::<Listening>(&stream).await?.0.position)
    }

    /// Writes up to where everything was asked for.
    async fn write_place(&self, listeners: &Listeners, place: &mut Place) -> Result<(), Error> {
        let Some(read) = place.read else { return Ok(()) };
        let settled = match self.open.lock().first() {
            Some((open, _)) => Position(open.0 - 1),
            None => read,
        };
        if settled > place.known
            && let Some(organization) = listeners.organization()
        {
            let advance = ListeningCommand::Advance { position: settled.0 };
            let ask = Ask::once(NAME, organization, None);
            match self.commands.execute::<Listening>(LISTENING_ID, advance, &ask).await {
                // Another node was faster.
                Ok(_) | Err(Error::Conflict) => place.known = settled,
                Err(error) => return Err(error),
            }
        }
        self.passed.store(0, Ordering::Relaxed);
        Ok(())
    }

    /// Learns who listens now. What could not be looked at stays to be looked at.
    async fn take_news(&self, listeners: &mut Listeners) -> Result<(), Error> {
        loop {
            let Some(news) = self.news.lock().first().copied() else { return Ok(()) };
            listeners.look_at(&self.commands, news).await?;
            self.news.lock().remove(0);
        }
    }

    /// Waits until more may be asked for. False when the server stops.
    async fn has_room(&self) -> bool {
        while self.open.lock().len() >= MOST_WAITING {
            tokio::select! {
                biased;
                () = self.queue.stopping() => return false,
                () = self.closed.notified() => {}
            }
        }
        !self.queue.is_stopping()
    }

    /// Holds events against every filter of their products, and lets what matches be asked for.
    /// False when the server stops before that.
    async fn look_at(
        self: &Arc<Self>,
        listeners: &mut Listeners,
        events: &[Arc<RecordedEvent>],
    ) -> Result<bool, Error> {
        let mut work = Vec::new();
        let mut passed = 0;
        for event in events {
            if let Some(news) = News::of(event) {
                listeners.look_at(&self.commands, news).await?;
            }
            match event.stream.category() {
                // What is written here is for people, and starts nothing; nor does who waits for whom.
                "reaction" | "lane" => continue,
                "listening" => {
                    self.passed.store(0, Ordering::Relaxed);
                    passed = 0;
                    continue;
                }
                _ => passed += 1,
            }
            let those = listeners.of(event);
            if !those.is_empty() {
                let agent = self.agent_of(event).await?;
                work.push((event.clone(), agent, those));
            }
        }
        let queue = self.queue.clone();
        let matches = tokio::task::spawn_blocking(move || hold_against(&queue, work)).await;
        let Ok(Some(matches)) = matches else {
            // Filters do not bring it down; that the server stops does.
            return Ok(false);
        };
        for found in matches {
            self.ask_for(found);
        }
        self.passed.fetch_add(passed, Ordering::Relaxed);
        Ok(true)
    }

    /// The agent that an event is of: its own, or that of an execution.
    async fn agent_of(&self, event: &RecordedEvent) -> Result<Option<Uuid>, Error> {
        match event.stream.category() {
            "agent" => return Ok(event.stream.uuid()),
            "execution" => {}
            _ => return Ok(None),
        }
        let Some(execution) = event.stream.uuid() else { return Ok(None) };
        if let Some(known) = self.agents.get(&execution) {
            return Ok(Some(known));
        }
        let first = self.commands.log().read_stream(&event.stream, 0, 1).await?;
        let Some(requested) = first.first() else { return Ok(None) };
        let ExecutionEvent::Requested { agent, .. } = decode_event(requested)? else {
            return Ok(None);
        };
        self.agents.insert(execution, agent);
        Ok(Some(agent))
    }

    fn ask_for(self: &Arc<Self>, found: Match) {
        let at = (found.event.position, found.listener.trigger);
        let (product, id) = (found.listener.product, found.ask().new_id("execution"));
        self.open.lock().insert(at);
        let (reactions, found) = (self.clone(), Arc::new(found));
        self.queue.add_for(product, id, move || {
            let (reactions, found) = (reactions.clone(), found.clone());
            async move {
                if let Err(error) = reactions.react(&found).await {
                    return Outcome::TryAgain(error.to_string());
                }
                reactions.open.lock().remove(&at);
                reactions.closed.notify_one();
                Outcome::Finished
            }
        });
    }

    /// Does what follows from a match, once.
    async fn react(&self, found: &Match) -> Result<(), Error> {
        let Match { listener, event, outcome } = found;
        let product = StreamId::new("product", listener.product);
        if !matches!(self.commands.load::<Product>(&product).await?.0, Product::Active { .. }) {
            return Ok(());
        }
        let seen = match outcome {
            Ok(seen) => seen.clone(),
            // It is told once for a filter, not for every event.
            Err(refused) => {
                let since = listener.since.0.to_be_bytes();
                let parts = [b"filter".as_slice(), &since, refused.code.as_bytes()];
                let ask = found.ask_under(&parts);
                return self.tell_failed(found, &ask, refused).await;
            }
        };
        let depth = self.depth_of(event.correlation).await?;
        if depth >= listener.max_depth {
            count("too_deep");
            tracing::warn!(
                trigger = %listener.trigger, event = %event.id, event_type = event.event_type, depth,
                "an event starts nothing more: too many executions led to it, one because of the other"
            );
            // Once for all that an execution does.
            let ask = found.ask_under(&[b"too deep", event.correlation.as_bytes()]);
            let stop = ReactionCommand::StopTooDeep(found.cause(depth));
            self.commands.execute::<Reaction>(listener.trigger, stop, &ask).await?;
            return Ok(());
        }
        let failed = found.ask_under(&[b"failed", event.id.as_bytes()]);
        let own = StreamId::new(NAME, listener.trigger);
        if self.commands.log().find_command(&own, failed.command_id).await?.is_some() {
            return Ok(());
        }
        match self.request(found, seen, depth + 1).await? {
            Ok(()) => count("started"),
            Err(refused) => {
                count("failed");
                tracing::warn!(
                    trigger = %listener.trigger, event = %event.id, code = refused.code,
                    "a trigger reacts to an event, and its execution cannot be asked for"
                );
                self.tell_failed(found, &failed, &refused).await?;
            }
        }
        Ok(())
    }

    /// How many executions events had started, one because of the other, before something happened:
    /// what an execution leads to has its correlation, and that of one that an event started is its id.
    async fn depth_of(&self, correlation: Uuid) -> Result<u32, Error> {
        if let Some(depth) = self.depths.get(&correlation) {
            return Ok(depth);
        }
        let stream = StreamId::new("execution", correlation);
        let first = self.commands.log().read_stream(&stream, 0, 2).await?;
        let depth = match first.get(1).map(|event| decode_event(event)).transpose()? {
            Some(ExecutionEvent::Reacted { depth, .. }) => depth,
            _ => 0,
        };
        self.depths.insert(correlation, depth);
        Ok(depth)
    }

    async fn request(
        &self,
        found: &Match,
        seen: Arc<Value>,
        depth: u32,
    ) -> Result<Result<(), Refused>, Error> {
        let listener = &found.listener;
        let input = match self.input(listener, seen).await? {
            Ok(input) => input,
            Err(refused) => return Ok(Err(refused)),
        };
        let (agent, trigger) = (listener.agent, Some(listener.trigger));
        let new = NewExecution { agent, trigger, input };
        let cause = found.cause(depth);
        match self
            .commands
            .request_for_trigger(new, listener.version, Some(cause), &found.ask())
            .await
        {
            Ok(_) => Ok(Ok(())),
            Err(error) => Ok(Err(Refused::by_request(error)?)),
        }
    }

    /// The input of an execution, its expressions computed; the event itself where none is told and
    /// the agent has a place for it.
    async fn input(
        &self,
        listener: &Listener,
        seen: Arc<Value>,
    ) -> Result<Result<Option<Value>, Refused>, Error> {
        let manifest = self.commands.manifest_of(listener.agent, listener.runs).await?;
        let Some(input) = listener.input.clone() else {
            return Ok(Ok(manifest.takes_event().then(|| json!({ "event": *seen }))));
        };
        let (organization, agent) = (listener.organization, listener.agent);
        let config = match self.commands.config_for(organization, agent, &manifest).await {
            Ok(config) => config,
            Err(error) => return Ok(Err(Refused::by_configuration(error)?)),
        };
        let scope = Scope {
            config,
            trigger: listener.seen(),
            event: Some((*seen).clone()),
            ..Scope::default()
        };
        Ok(computed_input(input, scope, &manifest).await.map(Some))
    }

    async fn tell_failed(&self, found: &Match, ask: &Ask, refused: &Refused) -> Result<(), Error> {
        let listener = &found.listener;
        let stream = StreamId::new(NAME, listener.trigger);
        let (organization, product) = (listener.organization, listener.product);
        let text = refused.message.as_bytes();
        let error =
            self.commands.seal_payload(organization, product, &stream, FAILED, ERROR, text).await?;
        let (cause, code) = (found.cause(0), refused.code.clone());
        let fail = ReactionCommand::Fail { cause, code, error };
        self.commands.execute::<Reaction>(listener.trigger, fail, ask).await?;
        Ok(())
    }
}

impl Match {
    /// For what follows from the event and the trigger once.
    fn ask_under(&self, parts: &[&[u8]]) -> Ask {
        let mut ask = Ask::because_of(&self.event, NAME, &[]);
        let trigger = self.listener.trigger;
        let identity = [&[NAME.as_bytes(), trigger.as_bytes().as_slice()], parts].concat();
        ask.command_id = derived_id(&identity);
        ask
    }

    /// For asking for the execution. What it leads to is known by its own id.
    fn ask(&self) -> Ask {
        let mut ask = self.ask_under(&[b"execution", self.event.id.as_bytes()]);
        Arc::make_mut(&mut ask.metadata).correlation = ask.new_id("execution");
        ask
    }

    fn cause(&self, depth: u32) -> Cause {
        Cause {
            event: self.event.id,
            event_type: self.event.event_type.clone(),
            subject: self.event.stream.to_string(),
            depth,
        }
    }
}

type Work = Vec<(Arc<RecordedEvent>, Option<Uuid>, Vec<Arc<Listener>>)>;

/// Holds each event against the filters of its listeners. Nothing when the server stops meanwhile.
fn hold_against(queue: &Queue, work: Work) -> Option<Vec<Match>> {
    let mut matches = Vec::new();
    for (event, agent, listeners) in work {
        let seen = Arc::new(view::view(&event, agent));
        for listener in listeners {
            if queue.is_stopping() {
                return None;
            }
            let scope = Scope {
                event: Some((*seen).clone()),
                trigger: listener.seen(),
                ..Scope::default()
            };
            let holds =
                std::panic::catch_unwind(AssertUnwindSafe(|| listener.filter.truth(&scope)));
            let outcome = match holds {
                Ok(Ok(true)) => Ok(seen.clone()),
                Ok(Ok(false)) => continue,
                Ok(Err(error)) if error.is_too_costly() => {
                    Err(refused_filter("match_too_costly", &error.message))
                }
                Ok(Err(error)) if error.code == "cel_type_mismatch" => {
                    Err(refused_filter("match_not_boolean", &error.message))
                }
                // Most often a field that this event does not have.
                Ok(Err(_)) => continue,
                Err(_) => {
                    Err(refused_filter("match_crashed", "it crashed the server's evaluation"))
                }
            };
            matches.push(Match { listener, event: event.clone(), outcome });
        }
    }
    Some(matches)
}

fn refused_filter(code: &str, message: &str) -> Refused {
    let message = format!("the trigger passed over an event ({message}): mend its `match`");
    Refused { code: code.to_owned(), message }
}

fn count(outcome: &'static str) {
    metrics::counter!("prodgy_reactions_total", "outcome" => outcome).increment(1);
}

#[cfg(test)]
mod tests;
