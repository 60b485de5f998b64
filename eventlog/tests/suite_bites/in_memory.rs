//! A store in memory, sound or wrong in one way.
//!
//! The rule of this file: a fault changes one thing, so that what catches it is known.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use chrono::{DateTime, SubsecRound, Utc};
use eventlog::{
    Append, AppendError, Appended, Capabilities, Error, EventStore, Expected, Position,
    RecordedEvent, StreamId, event_id,
};
use parking_lot::Mutex;
use tokio::sync::watch;
use uuid::Uuid;

/// One way in which a store can be wrong.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Fault {
    /// None: the positive control.
    Sound,
    /// Answers before the events can be read.
    AcknowledgesEarly,
    /// Takes positions in one order and commits in another, as a bare sequence does.
    PositionsOutsideTheLock,
    /// Positions are taken by commands that are refused, too.
    LeavesGaps,
    /// The events of one command become visible one by one.
    SplitsCommands,
    IgnoresExpectations,
    ForgetsCommands,
    RemembersRefusals,
    IgnoresRequestHashes,
    /// Looks a command up, lets others in, then appends it.
    ChecksCommandsOutsideTheLock,
    LosesTheLastEventOnRestart,
    TimeGoesBack,
    TellsNoNews,
    /// Reads a payload and writes it anew, in its own way.
    RewritesPayloads,
    ReadsOneTooMany,
    TakesPrefixesForStreams,
}

/// The log as a vector. What it holds survives a restart.
pub struct InMemory {
    fault: Fault,
    pub log: Mutex<Vec<Arc<RecordedEvent>>>,
    next_position: Mutex<u64>,
    refused: Mutex<Vec<Uuid>>,
    head: watch::Sender<Position>,
    is_closed: Mutex<bool>,
}

impl InMemory {
    pub fn new(fault: Fault, log: Vec<Arc<RecordedEvent>>) -> Self {
        let head = log.iter().map(|event| event.position).max().unwrap_or_default();
        InMemory {
            fault,
            log: Mutex::new(log),
            next_position: Mutex::new(head.0 + 1),
            refused: Mutex::default(),
            head: watch::Sender::new(head),
            is_closed: Mutex::new(false),
        }
    }

    fn has(&self, fault: Fault) -> bool {
        self.fault == fault
    }

    fn stored(
        &self,
        log: &[Arc<RecordedEvent>],
        append: &Append,
    ) -> Option<Result<Appended, AppendError>> {
        let events: Vec<_> =
            log.iter().filter(|event| event.command_id == append.command_id).cloned().collect();
        let first = events.first()?;
        if first.request_hash != append.request_hash && !self.has(Fault::IgnoresRequestHashes) {
            return Some(Err(AppendError::CommandReused { command_id: append.command_id }));
        }
        Some(Ok(Appended { events, replayed: true }))
    }

    fn record(&self, append: &Append, first_position: u64, length: u64) -> Vec<Arc<RecordedEvent>> {
        let mut time = Utc::now().trunc_subsecs(6);
        if self.has(Fault::TimeGoesBack) && first_position.is_multiple_of(7) {
            time -= Duration::from_secs(1);
        }
        let recorded = |(index, event): (usize, &eventlog::NewEvent)| {
            let metadata = event.metadata.as_ref().unwrap_or(&append.metadata);
            let data = if self.has(Fault::RewritesPayloads) {
                let value: serde_json::Value = serde_json::from_str(event.data.get()).unwrap();
                serde_json::value::to_raw_value(&value).unwrap()
            } else {
                event.data.clone()
            };
            Arc::new(RecordedEvent {
                actor: metadata.actor.clone(),
                address: metadata.address.clone(),
                causation: metadata.causation,
                command_id: append.command_id,
                correlation: metadata.correlation,
                data,
                id: event_id(append.command_id, index as u32),
                keys: append.keys.clone(),
                organization: metadata.organization,
                position: Position(first_position + index as u64),
                product: metadata.product,
                request_hash: append.request_hash.clone(),
                request_id: metadata.request_id.clone(),
                schema: 1,
                sequence: length + 1 + index as u64,
                stream: append.stream.clone(),
                time,
                traceparent: metadata.traceparent.clone(),
                event_type: event.event_type.clone(),
                user_agent: metadata.user_agent.clone(),
            })
        };
        append.events.iter().enumerate().map(recorded).collect()
    }

    fn take_positions(&self, count: usize) -> u64 {
        let mut next = self.next_position.lock();
        let first = *next;
        *next += count as u64;
        first
    }

    fn publish(&self, position: Position) {
        if !self.has(Fault::TellsNoNews) {
            self.head
                .send_if_modified(|head| std::mem::replace(head, position.max(*head)) < position);
        }
    }

    /// Checks and commits, all under one lock unless a fault says otherwise.
    fn commit(&self, append: &Append, taken: Option<u64>) -> Result<Appended, AppendError> {
        let mut log = self.log.lock();
        if *self.is_closed.lock() {
            return Err(Error::Closed.into());
        }
        if !self.has(Fault::ForgetsCommands)
            && !self.has(Fault::ChecksCommandsOutsideTheLock)
            && let Some(answer) = self.stored(&log, append)
        {
            return answer;
        }
        if self.has(Fault::LeavesGaps) {
            self.take_positions(1);
        }
        let length = log.iter().filter(|event| event.stream == append.stream).count() as u64;
        if let Expected::Sequence(expected) = append.expected
            && expected != length
            && !self.has(Fault::IgnoresExpectations)
        {
            self.refused.lock().push(append.command_id);
            return Err(AppendError::Conflict {
                stream: append.stream.clone(),
                expected,
                actual: length,
            });
        }
        let first_position = taken.unwrap_or_else(|| self.take_positions(append.events.len()));
        let events = self.record(append, first_position, length);
        for event in &events {
            log.push(event.clone());
            if self.has(Fault::SplitsCommands) {
                parking_lot::MutexGuard::unlocked(&mut log, || {
                    tokio::task::block_in_place(|| std::thread::sleep(Duration::from_micros(300)));
                });
            }
        }
        log.sort_by_key(|event| event.position);
        drop(log);
        self.publish(events[events.len() - 1].position);
        Ok(Appended { events, replayed: false })
    }
}

/// The store, as those who use it hold it.
pub struct Handle(pub Arc<InMemory>);

#[async_trait]
impl EventStore for Handle {
    async fn append(&self, append: Append) -> Result<Appended, AppendError> {
        let store = self.0.clone();
        if append.events.is_empty()
            || append.events.iter().any(|event| !event.data.get().starts_with('{'))
        {
            return Err(AppendError::Malformed("no events, or a payload that is no object"));
        }
        if store.has(Fault::RemembersRefusals) && store.refused.lock().contains(&append.command_id)
        {
            let (stream, expected) = (append.stream, 0);
            return Err(AppendError::Conflict { stream, expected, actual: 0 });
        }
        let mut taken = None;
        match store.fault {
            Fault::AcknowledgesEarly => {
                let log = store.log.lock().clone();
                let length =
                    log.iter().filter(|event| event.stream == append.stream).count() as u64;
                let events = store.record(&append, log.len() as u64 + 1, length);
                tokio::spawn(async move {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                    store.commit(&append, None)
                });
                return Ok(Appended { events, replayed: false });
            }
            Fault::PositionsOutsideTheLock => {
                taken = Some(store.take_positions(append.events.len()));
                tokio::time::sleep(Duration::from_micros(
                    u64::from(append.command_id.as_bytes()[15]) * 8,
                ))
                .await;
            }
            Fault::ChecksCommandsOutsideTheLock => {
                let log = store.log.lock().clone();
                if let Some(answer) = store.stored(&log, &append) {
                    return answer;
                }
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            _ => {}
        }
        store.commit(&append, taken)
    }

    async fn find_command(
        &self,
        _: &StreamId,
        command_id: Uuid,
    ) -> Result<Option<Appended>, Error> {
        let log = self.0.log.lock();
        let events: Vec<_> =
            log.iter().filter(|event| event.command_id == command_id).cloned().collect();
        Ok((!events.is_empty()).then_some(Appended { events, replayed: true }))
    }

    async fn read_stream(
        &self,
        stream: &StreamId,
        after: u64,
        limit: usize,
    ) -> Result<Vec<Arc<RecordedEvent>>, Error> {
        let is_in = |event: &Arc<RecordedEvent>| {
            if self.0.has(Fault::TakesPrefixesForStreams) {
                event.stream.as_str().starts_with(stream.as_str())
            } else {
                event.stream == *stream
            }
        };
        let log = self.0.log.lock();
        Ok(log
            .iter()
            .filter(|event| is_in(event) && event.sequence > after)
            .take(limit)
            .cloned()
            .collect())
    }

    async fn read_after(
        &self,
        after: Position,
        limit: usize,
    ) -> Result<Vec<Arc<RecordedEvent>>, Error> {
        let limit = limit.saturating_add(usize::from(self.0.has(Fault::ReadsOneTooMany)));
        let log = self.0.log.lock();
        Ok(log.iter().filter(|event| event.position > after).take(limit).cloned().collect())
    }

    async fn head(&self) -> Result<Position, Error> {
        Ok(self.0.log.lock().last().map_or(Position::START, |event| event.position))
    }

    fn watch(&self) -> watch::Receiver<Position> {
        self.0.head.subscribe()
    }

    async fn position_at(&self, time: DateTime<Utc>) -> Result<Position, Error> {
        let log = self.0.log.lock();
        let before = log.iter().take_while(|event| event.time <= time);
        Ok(before.last().map_or(Position::START, |event| event.position))
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities { dense_positions: true, log_wide_command_ids: true, exclusive: true }
    }

    async fn close(&self) {
        *self.0.is_closed.lock() = true;
    }
}
