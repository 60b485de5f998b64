//! Follows the log by a catch-up subscription, for as long as the store is open.
//!
//! The rule of this file: a subscription goes on behind the last command that was shown whole, so
//! that a cut leaves no gap and shows nothing twice.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, Instant};

use eventstore::{
    Client, Error as ClientError, Position as Place, RecordedEvent, StreamPosition,
    SubscribeToAllOptions, SubscriptionEvent,
};

use super::connection::{pause, within};
use super::ending::Listener;
use super::error::failure;
use super::reader::{Newest, Reader};
use super::record::{self, Record};
use super::seen::Seen;
use crate::error::chain;
use crate::{Error, Position};

/// A subscription that lasted this long was a sound one, even if it brought nothing.
const LASTING: Duration = Duration::from_secs(5);

/// Shows what others, and this node, append.
pub(super) struct Follower {
    reader: Arc<Reader>,
    seen: Arc<Seen>,
    listener: Listener,
    /// The last event that was shown.
    shown: Position,
    /// Where a subscription goes on: there, or at a later checkpoint without events in between.
    place: StreamPosition<Place>,
    /// The events of a command that has not come whole.
    command: Vec<Record>,
}

/// Why a subscription is over.
enum Cut {
    /// Without an error.
    Ended,
    Client(ClientError),
    /// An event cannot be read, or the head cannot.
    Log(Error),
}

impl From<ClientError> for Cut {
    fn from(error: ClientError) -> Self {
        Cut::Client(error)
    }
}

impl From<Error> for Cut {
    fn from(error: Error) -> Self {
        Cut::Log(error)
    }
}

impl Follower {
    pub fn new(reader: Arc<Reader>, seen: Arc<Seen>, newest: Newest) -> Self {
        Follower {
            reader,
            seen,
            listener: Listener::new(),
            shown: newest.position,
            place: newest.place,
            command: Vec::new(),
        }
    }

    /// Follows for ever; to be aborted.
    pub async fn run(mut self) {
        let mut tries = 0;
        loop {
            let (generation, client) = self.reader.connection.client();
            let (shown, began) = (self.shown, Instant::now());
            let Err(cut) = self.follow(client).await;
            self.seen.set_live(false);
            self.command.clear();
            if self.shown > shown || began.elapsed() > LASTING {
                tries = 0;
            }
            // Once for each cut, not for each try to end it.
            if tries == 0 {
                self.tell(&cut);
            }
            if let Cut::Client(error) = &cut {
                self.reader.connection.mend(generation, error);
            }
            pause(tries).await;
            tries += 1;
        }
    }

    /// Follows until the subscription is cut.
    async fn follow(&mut self, client: Client) -> Result<Infallible, Cut> {
        let options = SubscribeToAllOptions::default()
            .position(self.place)
            .filter(self.reader.filter())
            .requires_leader(true);
        let mut subscription = client.subscribe_to_all(&options).await;
        let mut next = within(self.listener.next(&mut subscription)).await?;
        loop {
            match next.ok_or(Cut::Ended)? {
                SubscriptionEvent::Confirmed(_) => {
                    self.reader.connection.hurry();
                    // What was appended while nothing came by is asked of the server until it does.
                    self.seen.advance(self.reader.newest().await?.position);
                    self.seen.set_live(true);
                }
                SubscriptionEvent::EventAppeared(resolved) => {
                    if let Some(event) = resolved.event {
                        self.take(event)?;
                    }
                }
                SubscriptionEvent::Checkpoint(place) if self.command.is_empty() => {
                    self.place = StreamPosition::Position(place);
                }
                _ => {}
            }
            next = self.listener.next(&mut subscription).await?;
        }
    }

    fn take(&mut self, event: RecordedEvent) -> Result<(), Error> {
        let place = StreamPosition::Position(event.position);
        let record = record::from_stored(event, self.reader.connection.prefix())?;
        if record.event.position <= self.shown {
            return Ok(());
        }
        let position = record.event.position;
        let is_whole = record.more == 0;
        self.command.push(record);
        if is_whole {
            let command = std::mem::take(&mut self.command);
            let events: Vec<_> = command.iter().map(|record| record.event.clone()).collect();
            self.reader.streams.learn(&events);
            self.seen.publish(command);
            self.shown = position;
            self.place = place;
        }
        Ok(())
    }

    /// Says why nothing comes by.
    fn tell(&self, cut: &Cut) {
        match cut {
            Cut::Ended => tracing::info!("the event log's subscription ended, it goes on anew"),
            Cut::Client(error) => {
                let error = failure(error.clone(), self.reader.connection.nodes());
                tracing::warn!(cause = chain(&error), "the event log's subscription was cut");
            }
            Cut::Log(error) if error.is_temporary() => {
                tracing::warn!(cause = chain(error), "the event log's subscription was cut");
            }
            Cut::Log(error) => {
                tracing::error!(
                    cause = chain(error),
                    after = %self.shown,
                    "the event log cannot be followed"
                );
            }
        }
    }
}
