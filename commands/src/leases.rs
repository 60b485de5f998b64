//! Which leases of other workers have run out.
//!
//! The rule of this file: a lease has run out when this process has seen as much time go by since it first
//! met with it, by its own monotonic clock. Nothing is concluded from what the clock on the wall says here,
//! which may be wrong, or be set.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use domain::Timestamp;
use domain::lease::Holder;
use eventlog::{RecordedEvent, StreamId};
use parking_lot::Mutex;
use serde::Deserialize;
use uuid::Uuid;

use crate::{Commands, Error};

/// No lease is longer.
const LONGEST: Duration = Duration::from_secs(25 * 3_600);

/// The leases of others that this process has met with.
#[derive(Default)]
pub(crate) struct Leases(Mutex<HashMap<Holder, Seen>>);

struct Seen {
    since: Instant,
    length: Duration,
}

impl Leases {
    /// Meets with a lease. Answers how much of it is left at least.
    fn meet(&self, holder: Holder, length: Duration, now: Instant) -> Duration {
        let mut all = self.0.lock();
        // Nobody asks for one again that was outlasted so long ago.
        all.retain(|_, seen| now.duration_since(seen.since) < seen.length + LONGEST);
        let seen = all.entry(holder).or_insert(Seen { since: now, length });
        seen.length.saturating_sub(now.duration_since(seen.since))
    }

    /// Those that have run out.
    fn outlasted(&self, now: Instant) -> BTreeSet<Holder> {
        let all = self.0.lock();
        let over = all.iter().filter(|(_, seen)| now.duration_since(seen.since) >= seen.length);
        over.map(|(holder, _)| holder.clone()).collect()
    }

    /// Lets time go by.
    #[cfg(test)]
    pub(crate) fn let_pass(&self, time: Duration) {
        let mut all = self.0.lock();
        for seen in all.values_mut() {
            seen.since = seen.since.checked_sub(time).expect("the machine runs for longer");
        }
    }
}

/// What events say that give a lease, or prolong one.
#[derive(Deserialize)]
struct Given {
    worker: Option<Uuid>,
    lease_until: Option<Timestamp>,
}

/// The newest lease on a stream, and when it was given by the log's time.
fn newest(events: &[Arc<RecordedEvent>]) -> Option<(Holder, DateTime<Utc>)> {
    let mut given = None;
    for event in events.iter().rev() {
        let Ok(Given { worker, lease_until }) = serde_json::from_str(event.data.get()) else {
            continue;
        };
        if let Some(until) = lease_until {
            given.get_or_insert((until, event.time));
        }
        if let (Some(worker), Some((until, at))) = (worker, given) {
            return Some((Holder { worker, until }, at));
        }
    }
    None
}

/// How long leases on a stream are at least. The difference of two times is less where one of the clocks
/// that made them was wrong.
fn shortest(stream: &StreamId) -> Duration {
    use crate::policies::{ANSWER_LEASE, EXECUTION_LEASE, FILE_LEASE, REPLY_LEASE};
    let length = match stream.category() {
        "execution" => EXECUTION_LEASE,
        "file" => FILE_LEASE,
        "conversation" => REPLY_LEASE,
        _ => ANSWER_LEASE,
    };
    length.to_std().unwrap_or_default()
}

impl Commands {
    /// Remembers the lease that keeps this process out of a stream. Answers how long it does at least.
    ///
    /// # Errors
    /// The log fails.
    pub(crate) async fn meet_lease(&self, stream: &StreamId) -> Result<Duration, Error> {
        let events = self.whole_stream(stream).await?;
        let Some((holder, given)) = newest(&events) else { return Ok(Duration::ZERO) };
        let length = (DateTime::from(holder.until) - given).to_std().unwrap_or_default();
        let length = length.max(shortest(stream)).min(LONGEST);
        Ok(self.leases.meet(holder, length, Instant::now()))
    }

    /// The leases that this process has seen run out.
    pub(crate) fn outlasted(&self) -> Arc<BTreeSet<Holder>> {
        Arc::new(self.leases.outlasted(Instant::now()))
    }
}

#[cfg(test)]
mod tests;
