//! Notices the end of a subscription, which the client does not.
//!
//! The rule of this file: whoever asks a subscription for its next event gets one, or learns that
//! it is over; nobody spins.
//!
//! When a subscription ends without an error (a proxy that tires of it, a server that lets go of
//! its streams one by one), `kurrentdb` 1.2 asks the ended stream for its next message, gets none,
//! and asks again, for ever, without ever giving its thread back. No time-out can end that. Each
//! round logs a warning, and that is the way out: the warning is listened for on this very poll and
//! answered by unwinding from it, which is caught right here.

use std::any::Any;
use std::panic::{AssertUnwindSafe, resume_unwind};

use eventstore::{Error as ClientError, Subscription, SubscriptionEvent};
use futures::FutureExt;
use tracing::instrument::WithSubscriber;
use tracing::level_filters::LevelFilter;
use tracing::span::{Attributes, Id, Record};
use tracing::subscriber::Interest;
use tracing::{Dispatch, Event, Level, Metadata, Subscriber};

/// Asks subscriptions for their next event.
pub(super) struct Listener {
    ear: Dispatch,
}

impl Listener {
    /// Passes on what is logged, but for the one warning.
    pub fn new() -> Self {
        let outer = tracing::dispatcher::get_default(Dispatch::clone);
        Listener { ear: Dispatch::new(Ear { outer }) }
    }

    /// The next event, or `None` when the subscription is over.
    pub async fn next(
        &self,
        subscription: &mut Subscription,
    ) -> Result<Option<SubscriptionEvent>, ClientError> {
        let next = subscription.next_subscription_event().with_subscriber(self.ear.clone());
        match AssertUnwindSafe(next).catch_unwind().await {
            Ok(event) => event.map(Some),
            Err(panic) => Ok(ended(panic)),
        }
    }
}

/// A subscription that unwound is over. If it was for another reason than ours, the panic was told
/// where it happened.
fn ended(panic: Box<dyn Any + Send>) -> Option<SubscriptionEvent> {
    if !panic.is::<Ended>() {
        tracing::error!("the event log's client panicked in a subscription, which begins anew");
    }
    None
}

/// What unwinds.
struct Ended;

/// Passes everything on to the subscriber that is there anyway, and ends the client's loop.
struct Ear {
    outer: Dispatch,
}

/// The warning of the client's loop: the only one in the file where subscriptions are.
fn is_the_loop(metadata: &Metadata<'_>) -> bool {
    metadata.target() == "kurrentdb::commands" && *metadata.level() == Level::WARN
}

impl Subscriber for Ear {
    fn register_callsite(&self, metadata: &'static Metadata<'static>) -> Interest {
        // `never` leaves the answer to the others that listen, and has it asked anew where one of
        // them says otherwise.
        if is_the_loop(metadata) { Interest::sometimes() } else { Interest::never() }
    }

    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        is_the_loop(metadata) || self.outer.enabled(metadata)
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(LevelFilter::WARN)
    }

    fn event(&self, event: &Event<'_>) {
        if is_the_loop(event.metadata()) {
            // Not `panic!`: nothing went wrong that anybody has to be told.
            resume_unwind(Box::new(Ended));
        }
        self.outer.event(event);
    }

    fn new_span(&self, span: &Attributes<'_>) -> Id {
        self.outer.new_span(span)
    }

    fn record(&self, span: &Id, values: &Record<'_>) {
        self.outer.record(span, values);
    }

    fn record_follows_from(&self, span: &Id, follows: &Id) {
        self.outer.record_follows_from(span, follows);
    }

    fn enter(&self, span: &Id) {
        self.outer.enter(span);
    }

    fn exit(&self, span: &Id) {
        self.outer.exit(span);
    }

    fn clone_span(&self, id: &Id) -> Id {
        self.outer.clone_span(id)
    }

    fn try_close(&self, id: Id) -> bool {
        self.outer.try_close(id)
    }
}
