//! The one way by which anything changes: load, decide, append.
//!
//! The rule of this file: a decision is made outside the log's lock, on a state that is proved
//! current by the append's expected sequence. cqrs-es defines the aggregates; its own framework is
//! not used for running them, since its `execute` answers no positions (decision 1).

mod appending;

use std::any::Any;
use std::collections::BTreeSet;
use std::fmt::Display;
use std::sync::Arc;

use cqrs_es::Aggregate;
use cqrs_es::event_sink::EventSink;
use domain::Digest;
use domain::manifest::Manifest;
use domain::refusal::Refusal;
use eventlog::{
    Append, AppendError, Appended, EventStore, Expected, Metadata, NewEvent, Position,
    RecordedEvent, StreamId,
};
use parking_lot::RwLock;
use serde_json::value::RawValue;
use uuid::Uuid;
use vault::Vault;

use self::appending::Appending;
use crate::leases::Leases;
use crate::secrets::Secrets;
use crate::{Ask, Error};

/// How many aggregates are kept in memory between commands.
const HOT_AGGREGATES: u64 = 50_000;

/// How many manifests are kept that were read from the log.
const MANIFESTS: u64 = 1_000;

/// Of how many triggers it is kept whose they are.
const OWNERS: u64 = 10_000;

/// How many events one read of a stream brings.
const READ: usize = 1_000;

/// How long a stream may be for its state in memory to be compared at every use.
#[cfg(debug_assertions)]
const COMPARED: u64 = 32;

/// The command side. Cheap to clone.
#[derive(Clone)]
pub struct Commands {
    pub(crate) log: Arc<dyn EventStore>,
    pub(crate) vault: Vault,
    pub(crate) secrets: Arc<Secrets>,
    /// Manifests that were read lately, by their digests.
    pub(crate) manifests: moka::sync::Cache<Digest, Arc<Manifest>>,
    /// Whose the triggers are that were delivered to lately.
    pub(crate) owners: moka::sync::Cache<StreamId, (Uuid, Uuid)>,
    /// The last known state of aggregates, by stream. Used only where no other process can append.
    hot: Option<moka::sync::Cache<StreamId, Arc<dyn Any + Send + Sync>>>,
    /// The streams of which it may be older than what others see.
    appending: Appending,
    /// The other workers of this log that are known to be gone.
    gone: Arc<RwLock<Arc<BTreeSet<Uuid>>>>,
    /// The leases of other workers that were met with.
    pub(crate) leases: Arc<Leases>,
}

/// A state and the length of the stream that led to it.
struct Hot<A> {
    state: A,
    sequence: u64,
}

/// What a command led to.
#[derive(Clone, Debug)]
pub struct Done {
    /// The stream that it changed, or would have.
    pub stream: StreamId,
    /// What was stored: nothing if the command changed nothing.
    pub events: Vec<Arc<RecordedEvent>>,
    /// The stream's length afterwards.
    pub sequence: u64,
    /// It had been carried out before, and was not again.
    pub replayed: bool,
}

impl Done {
    /// The position of the last event stored, if any was.
    pub fn position(&self) -> Position {
        self.events.last().map_or(Position::START, |event| event.position)
    }

    /// The id of what it changed, where that is a UUID.
    pub fn stream_id(&self) -> Option<Uuid> {
        self.stream.uuid()
    }

    fn appended(stream: StreamId, appended: Appended) -> Done {
        // On a replay the first result may stand in another stream than the one that was asked for.
        let stream = appended.events.first().map_or(stream, |event| event.stream.clone());
        Done {
            stream,
            sequence: appended.sequence(),
            replayed: appended.replayed,
            events: appended.events,
        }
    }
}

impl Commands {
    /// The command side of a log and a vault.
    ///
    /// # Errors
    /// The vault fails.
    pub async fn open(log: Arc<dyn EventStore>, vault: Vault) -> Result<Commands, Error> {
        let hot = log.capabilities().exclusive.then(|| moka::sync::Cache::new(HOT_AGGREGATES));
        let secrets = Arc::new(Secrets::open(&vault).await?);
        let manifests = moka::sync::Cache::new(MANIFESTS);
        let owners = moka::sync::Cache::new(OWNERS);
        let (appending, gone, leases) = Default::default();
        Ok(Commands { log, vault, secrets, manifests, owners, hot, appending, gone, leases })
    }

    /// The vault that holds what is not in the log.
    pub fn vault(&self) -> &Vault {
        &self.vault
    }

    /// The log that commands append to.
    pub fn log(&self) -> &Arc<dyn EventStore> {
        &self.log
    }

    /// The other workers of this log that are known to be gone.
    pub(crate) fn gone(&self) -> Arc<BTreeSet<Uuid>> {
        self.gone.read().clone()
    }

    pub(crate) fn set_gone(&self, gone: BTreeSet<Uuid>) {
        *self.gone.write() = Arc::new(gone);
    }

    /// Loads the aggregate, lets it decide, and appends what follows. A lost race is tried once
    /// more, in silence; a refusal is given only on what the log itself says, since nothing else
    /// proves that the state in memory was current.
    ///
    /// # Errors
    /// The aggregate's refusal; [`Error::Stale`] where `ask.if_match` does not fit;
    /// [`Error::CommandReused`]; [`Error::Conflict`] after a second lost race.
    pub async fn execute<A>(
        &self,
        id: impl Display,
        command: A::Command,
        ask: &Ask,
    ) -> Result<Done, Error>
    where
        A: Aggregate<Services = ()> + Clone + 'static,
        A::Command: Clone,
        A::Error: Refusal,
    {
        let stream = StreamId::new(A::TYPE, id);
        match self.done_before(&stream, ask).await? {
            Some(done) => Ok(done),
            None => self.execute_anew::<A>(stream, command, ask).await,
        }
    }

    /// As [`Commands::execute`], where it was found already that this was not carried out before.
    ///
    /// # Errors
    /// As there.
    pub(crate) async fn execute_anew<A>(
        &self,
        stream: StreamId,
        command: A::Command,
        ask: &Ask,
    ) -> Result<Done, Error>
    where
        A: Aggregate<Services = ()> + Clone + 'static,
        A::Command: Clone,
        A::Error: Refusal,
    {
        let mut done = self.attempt::<A>(&stream, command.clone(), ask).await;
        let may_be_outdated = match &done {
            Err(Error::Conflict) => true,
            refused => is_refused(refused) && self.hot.is_some(),
        };
        if may_be_outdated {
            self.forget(&stream);
            done = self.attempt::<A>(&stream, command, ask).await;
        }
        self.unless_done(&stream, done, ask).await
    }

    /// What came of a command. It may be refused only because the very same one was carried out meanwhile: then
    /// that counts.
    ///
    /// # Errors
    /// As [`Commands::execute`].
    pub(crate) async fn unless_done(
        &self,
        stream: &StreamId,
        done: Result<Done, Error>,
        ask: &Ask,
    ) -> Result<Done, Error> {
        if is_refused(&done)
            && let Some(before) = self.done_before(stream, ask).await?
        {
            return Ok(before);
        }
        done
    }

    /// The outcome of a command that was carried out before.
    ///
    /// # Errors
    /// [`Error::CommandReused`] where it was another request.
    pub(crate) async fn done_before(
        &self,
        stream: &StreamId,
        ask: &Ask,
    ) -> Result<Option<Done>, Error> {
        if !ask.repeatable {
            return Ok(None);
        }
        let Some(first) = self.log.find_command(stream, ask.command_id).await? else {
            return Ok(None);
        };
        let stored = first.events.first().and_then(|event| event.request_hash.as_ref());
        if stored != ask.request_hash.as_ref() {
            return Err(Error::CommandReused);
        }
        Ok(Some(Done::appended(stream.clone(), Appended { replayed: true, ..first })))
    }

    async fn attempt<A>(
        &self,
        stream: &StreamId,
        command: A::Command,
        ask: &Ask,
    ) -> Result<Done, Error>
    where
        A: Aggregate<Services = ()> + Clone + 'static,
        A::Error: Refusal,
    {
        let (state, sequence) = self.load::<A>(stream).await?;
        self.decide(stream, (state, sequence), command, ask).await
    }

    /// Lets an aggregate decide that was loaded before, and appends what follows if its stream has
    /// not moved since. Tried once: who lost a race looks again.
    ///
    /// # Errors
    /// As [`Commands::execute`]; [`Error::Conflict`] after one lost race.
    pub(crate) async fn decide<A>(
        &self,
        stream: &StreamId,
        loaded: (A, u64),
        command: A::Command,
        ask: &Ask,
    ) -> Result<Done, Error>
    where
        A: Aggregate<Services = ()> + Clone + 'static,
        A::Error: Refusal,
    {
        self.decide_with(stream, loaded, command, None, ask).await
    }

    /// As [`Commands::decide`], with what follows at once from the command's first event: it is stored
    /// with that, in one piece, by whoever it is done by.
    ///
    /// # Errors
    /// As there.
    pub(crate) async fn decide_with<A>(
        &self,
        stream: &StreamId,
        (mut state, sequence): (A, u64),
        command: A::Command,
        follows: Option<(A::Command, Arc<Metadata>)>,
        ask: &Ask,
    ) -> Result<Done, Error>
    where
        A: Aggregate<Services = ()> + Clone + 'static,
        A::Error: Refusal,
    {
        if let Some(meant) = &ask.if_match
            && !meant.contains(&sequence)
        {
            return Err(Error::Stale { current: sequence });
        }
        let mut events = match events_of(&mut state, command, None).await {
            Err(held @ Error::Refused { code: "lease_held", .. }) => {
                // From now on it is known how long it is held.
                self.meet_lease(stream).await?;
                return Err(held);
            }
            events => events?,
        };
        if let Some((command, metadata)) = follows {
            events.extend(events_of(&mut state, command, Some(metadata)).await?);
        }
        if events.is_empty() {
            return Ok(Done { stream: stream.clone(), events: vec![], sequence, replayed: false });
        }
        let _under_way = self.hot.is_some().then(|| self.appending.begin(stream));
        match self.append(stream, Expected::Sequence(sequence), events, ask).await {
            Ok(appended) => {
                let done = Done::appended(stream.clone(), appended);
                if done.replayed {
                    self.forget(stream);
                } else {
                    self.remember(stream, state, done.sequence);
                }
                Ok(done)
            }
            Err(error) => {
                if matches!(error, Error::Log(_)) {
                    self.forget(stream);
                }
                Err(error)
            }
        }
    }

    /// Lets an aggregate write something down whose decision asks for nothing that is in its stream: that is
    /// not read, and whoever else appends to it is in nobody's way.
    ///
    /// # Errors
    /// As [`Commands::execute`], save for lost races.
    pub(crate) async fn note<A>(
        &self,
        id: impl Display,
        command: A::Command,
        ask: &Ask,
    ) -> Result<Done, Error>
    where
        A: Aggregate<Services = ()>,
        A::Error: Refusal,
    {
        let stream = StreamId::new(A::TYPE, id);
        let events = events_of(&mut A::default(), command, None).await?;
        let appended = self.append(&stream, Expected::Any, events, ask).await?;
        Ok(Done::appended(stream, appended))
    }

    async fn append(
        &self,
        stream: &StreamId,
        expected: Expected,
        events: Vec<NewEvent>,
        ask: &Ask,
    ) -> Result<Appended, Error> {
        let append = Append {
            stream: stream.clone(),
            expected,
            command_id: ask.command_id,
            request_hash: ask.request_hash.clone(),
            metadata: ask.metadata.clone(),
            keys: keys_in(&events, ask),
            events,
        };
        self.log.append(append).await.map_err(|error| match error {
            AppendError::Conflict { .. } => Error::Conflict,
            AppendError::CommandReused { .. } => Error::CommandReused,
            AppendError::Malformed(why) => Error::Crypto(why.to_owned()),
            AppendError::Store(source) => source.into(),
        })
    }

    /// The aggregate's state and the length of its stream; the default state where there is none.
    ///
    /// # Errors
    /// The log fails, or a stored event does not load.
    pub async fn load<A>(&self, stream: &StreamId) -> Result<(A, u64), Error>
    where
        A: Aggregate + Clone + 'static,
    {
        if self.appending.is_under_way(stream) {
            return self.replay::<A>(stream).await;
        }
        if let Some(hot) = self.hot.as_ref().and_then(|cache| cache.get(stream))
            && let Some(hot) = hot.downcast_ref::<Hot<A>>()
        {
            #[cfg(debug_assertions)]
            self.compare(stream, hot).await;
            return Ok((hot.state.clone(), hot.sequence));
        }
        let (state, sequence) = self.replay::<A>(stream).await?;
        if sequence > 0 {
            self.remember(stream, state.clone(), sequence);
        }
        Ok((state, sequence))
    }

    /// As [`Commands::load`], from the log alone.
    pub(crate) async fn replay<A: Aggregate>(&self, stream: &StreamId) -> Result<(A, u64), Error> {
        self.replay_to(stream, u64::MAX).await
    }

    /// As [`Commands::replay`], up to this sequence.
    async fn replay_to<A: Aggregate>(
        &self,
        stream: &StreamId,
        end: u64,
    ) -> Result<(A, u64), Error> {
        let mut state = A::default();
        let mut sequence = 0;
        loop {
            let events = self.log.read_stream(stream, sequence, READ).await?;
            for event in events.iter().take_while(|event| event.sequence <= end) {
                state.apply(decode_event::<A::Event>(event)?);
                sequence = event.sequence;
            }
            if events.len() < READ || sequence == end {
                return Ok((state, sequence));
            }
        }
    }

    /// In builds for tests, whoever uses a state in memory sees that its stream tells the same: always of a
    /// short one, now and then of a longer one.
    #[cfg(debug_assertions)]
    async fn compare<A: Aggregate>(&self, stream: &StreamId, hot: &Hot<A>) {
        let Hot { state, sequence } = hot;
        if *sequence > COMPARED && !sequence.is_multiple_of(COMPARED) {
            return;
        }
        // A log that cannot be read now is for those who ask for it.
        let Ok((told, reached)) = self.replay_to::<A>(stream, *sequence).await else { return };
        let json = |state| serde_json::to_value(state).expect("a state can be kept");
        assert_eq!(
            (json(state), *sequence),
            (json(&told), reached),
            "{stream} in memory, and as told"
        );
    }

    /// Every event of a short stream.
    pub(crate) async fn whole_stream(
        &self,
        stream: &StreamId,
    ) -> Result<Vec<Arc<RecordedEvent>>, Error> {
        let mut whole = Vec::new();
        loop {
            let after = whole.last().map_or(0, |event: &Arc<RecordedEvent>| event.sequence);
            let events = self.log.read_stream(stream, after, READ).await?;
            let is_last = events.len() < READ;
            whole.extend(events);
            if is_last {
                return Ok(whole);
            }
        }
    }

    /// Keeps a state, unless a newer one is kept: who appended first may get here last.
    pub(crate) fn remember<A: Aggregate + 'static>(
        &self,
        stream: &StreamId,
        state: A,
        sequence: u64,
    ) {
        let Some(cache) = &self.hot else { return };
        let hot: Arc<dyn Any + Send + Sync> = Arc::new(Hot { state, sequence });
        cache.entry_by_ref(stream).and_upsert_with(|known| match known {
            Some(known) if is_newer::<A>(known.value().as_ref(), sequence) => known.into_value(),
            _ => hot,
        });
    }

    /// Forgets a state that may not be the newest.
    pub(crate) fn forget(&self, stream: &StreamId) {
        if let Some(cache) = &self.hot {
            cache.invalidate(stream);
        }
    }
}

/// What an aggregate decides on a command, which it has taken in then.
async fn events_of<A>(
    state: &mut A,
    command: A::Command,
    metadata: Option<Arc<Metadata>>,
) -> Result<Vec<NewEvent>, Error>
where
    A: Aggregate<Services = ()>,
    A::Error: Refusal,
{
    let sink = EventSink::default();
    state.handle(command, &(), &sink).await.map_err(|refusal| Error::refused(&refusal))?;
    let events = sink.collect().await;
    Ok(events
        .iter()
        .map(|event| {
            let (event_type, data) = domain::event::encode(event);
            NewEvent { event_type, data, metadata: metadata.clone() }
        })
        .collect())
}

fn is_refused(done: &Result<Done, Error>) -> bool {
    matches!(done, Err(Error::Refused { .. } | Error::Invalid { .. } | Error::Stale { .. }))
}

fn is_newer<A: Aggregate + 'static>(known: &(dyn Any + Send + Sync), sequence: u64) -> bool {
    known.downcast_ref::<Hot<A>>().is_some_and(|known| known.sequence > sequence)
}

/// What a whole stream makes of an aggregate.
pub(crate) fn state_after<A: Aggregate>(events: &[Arc<RecordedEvent>]) -> Result<A, Error> {
    let mut state = A::default();
    for event in events {
        state.apply(decode_event(event)?);
    }
    Ok(state)
}

/// Reads an event's payload as one of an aggregate's events.
pub(crate) fn decode_event<E: serde::de::DeserializeOwned>(
    event: &RecordedEvent,
) -> Result<E, Error> {
    domain::event::decode(&event.event_type, &event.data)
        .map_err(|source| Error::Decode { stream: event.stream.to_string(), source })
}

/// The ids of the data keys that the events' ciphertexts and the client's address name.
fn keys_in(events: &[NewEvent], ask: &Ask) -> Vec<String> {
    let mut keys: Vec<String> = Vec::new();
    let mut add = |id: &str| {
        for key in vault::keys_of(id) {
            if !keys.iter().any(|known| known == key) {
                keys.push(key.to_owned());
            }
        }
    };
    let payloads = events.iter().map(|event| RawValue::get(&event.data));
    let client = [&ask.metadata.address, &ask.metadata.user_agent];
    for text in payloads.chain(client.into_iter().flatten().map(String::as_str)) {
        for (start, _) in text.match_indices("s1.") {
            let end = text[start..].find('"').map_or(text.len(), |length| start + length);
            if let Ok(sealed) = vault::Sealed::parse(&text[start..end]) {
                add(sealed.key_id());
            }
        }
        // A long text is a blob, which names its key beside its own name.
        for (start, opening) in text.match_indices(r#""blob":{"key":""#) {
            let key = &text[start + opening.len()..];
            add(&key[..key.find('"').unwrap_or(key.len())]);
        }
    }
    keys
}

#[cfg(test)]
mod tests;
