//! Retention: asks for the erasure of deleted files that have been kept for as long as the rule of their product says.
//!
//! The rule of this file: what is due is read off the read models, and whether it may go is judged by the log, just
//! before it goes: by the product's rule as it stands now, and by the file's newest deletion. Nothing that is there is
//! ever deleted here.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use domain::file::{File, FileCommand};
use domain::product::Product;
use eventlog::{Position, RecordedEvent, StreamId};
use futures::{StreamExt, stream};
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use uuid::Uuid;

use super::erasure::{Contents, Failure};
use super::schedule::Clock;
use crate::{Ask, Commands, Error};

/// How many files are being erased at most before more are asked for.
const IN_HAND: usize = 256;

/// How many are asked for at once: their events share commits.
const AT_ONCE: usize = 16;

/// How long news is gathered before the next look.
const GATHER: Duration = Duration::from_millis(200);

/// The longest sleep: a clock that jumps is noticed by then.
const LONGEST_SLEEP: Duration = Duration::from_secs(60);

/// How long to wait after a look that failed.
const PAUSE: Duration = Duration::from_secs(5);

/// Whose the events are.
const NAME: &str = "retention";

/// What the rules of products ask for, as the read side knows it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Due {
    /// Files that are to be erased, with their products.
    pub files: Vec<(Uuid, Uuid)>,
    /// When the next of the others is.
    pub next: Option<DateTime<Utc>>,
}

/// The process manager of rules.
pub(super) struct Retention {
    commands: Commands,
    contents: Arc<dyn Contents>,
    clock: Clock,
    /// The newest event that may change what is due.
    news: watch::Sender<Position>,
    stop: watch::Sender<bool>,
    ticker: Mutex<Option<JoinHandle<()>>>,
}

impl Retention {
    pub(super) fn start(
        commands: Commands,
        contents: Arc<dyn Contents>,
        clock: Clock,
    ) -> Arc<Retention> {
        let retention = Arc::new(Retention::new(commands, contents, clock));
        let ticker = tokio::spawn(retention.clone().tick());
        *retention.ticker.lock() = Some(ticker);
        retention
    }

    fn new(commands: Commands, contents: Arc<dyn Contents>, clock: Clock) -> Retention {
        Retention {
            commands,
            contents,
            clock,
            news: watch::Sender::new(Position::START),
            stop: watch::Sender::new(false),
            ticker: Mutex::default(),
        }
    }

    /// Looks again soon: a rule was set, or a file was deleted or erased.
    pub(super) fn look_after(&self, position: Position) {
        self.news.send_replace(position);
    }

    /// Asks for nothing more.
    pub(super) async fn stop(&self) {
        self.stop.send_replace(true);
        let ticker = self.ticker.lock().take();
        if let Some(ticker) = ticker {
            let _ = ticker.await;
        }
    }

    fn is_stopping(&self) -> bool {
        *self.stop.borrow()
    }

    /// Looks when something is due, and when something has happened that may change what is.
    async fn tick(self: Arc<Self>) {
        let mut news = self.news.subscribe();
        let mut stop = self.stop.subscribe();
        loop {
            let reached = *news.borrow_and_update();
            let (pause, is_awake) = match self.look(reached).await {
                Ok(next) => {
                    let until = |next: DateTime<Utc>| (next - (self.clock)()).to_std();
                    let pause = next.map_or(LONGEST_SLEEP, |next| until(next).unwrap_or_default());
                    (pause.min(LONGEST_SLEEP), true)
                }
                Err(failure) => {
                    tracing::warn!(%failure, "files that were kept long enough are looked for again later");
                    (PAUSE, false)
                }
            };
            let woken = async {
                // The sender lives as long as this.
                if !is_awake || news.changed().await.is_err() {
                    std::future::pending::<()>().await;
                }
                tokio::time::sleep(GATHER).await;
            };
            tokio::select! {
                biased;
                _ = stop.wait_for(|stopped| *stopped) => return,
                () = woken => {}
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    /// Asks for the erasure of what is due, as far as there is room. Answers when the next file is.
    async fn look(&self, reached: Position) -> Result<Option<DateTime<Utc>>, Failure> {
        self.contents.know(reached).await?;
        let now = (self.clock)();
        let due = self.contents.due_files(now, IN_HAND).await?;
        let mut files_of = BTreeMap::<Uuid, Vec<Uuid>>::new();
        for (file, product) in due.files {
            files_of.entry(product).or_default().push(file);
        }
        let (mut asked, mut failure) = (Position::START, None);
        for (product, files) in files_of {
            let Some(before) = self.kept_since(product, now).await? else { continue };
            let mut asking =
                stream::iter(files).map(|file| self.erase(file, before)).buffer_unordered(AT_ONCE);
            while let Some(outcome) = asking.next().await {
                match outcome {
                    Ok(position) => asked = asked.max(position),
                    // It is in nobody's way.
                    Err(error) => failure = Some(error),
                }
            }
        }
        if let Some(error) = failure {
            return Err(error.into());
        }
        // The next look counts them.
        self.contents.know(asked).await?;
        Ok(due.next)
    }

    /// The time of which a product keeps what was deleted later; nothing where it keeps everything.
    async fn kept_since(
        &self,
        product: Uuid,
        now: DateTime<Utc>,
    ) -> Result<Option<DateTime<Utc>>, Error> {
        let (product, _) =
            self.commands.load::<Product>(&StreamId::new("product", product)).await?;
        let days = product.retention().deleted_files_days;
        let kept = days.and_then(|days| TimeDelta::try_days(days.into()));
        Ok(kept.and_then(|kept| now.checked_sub_signed(kept)))
    }

    /// Asks for the erasure of a file, if its newest deletion was so long ago. Answers the position of what was stored.
    async fn erase(&self, file: Uuid, before: DateTime<Utc>) -> Result<Position, Error> {
        if self.is_stopping() {
            return Ok(Position::START);
        }
        let events = self.commands.whole_stream(&StreamId::new("file", file)).await?;
        let Some(deleted) = events.last().filter(|last| is_deletion(last, before)) else {
            return Ok(Position::START);
        };
        let ask = Ask {
            // It may come again just now, and be deleted again: that is another deletion.
            if_match: Some(vec![deleted.sequence]),
            ..Ask::because_of(deleted, NAME, &[b"erasure"])
        };
        match self.commands.execute::<File>(file, FileCommand::RequestErasureOfDeleted, &ask).await
        {
            Ok(done) => Ok(done.position()),
            // Somebody else was faster.
            Err(Error::Refused { .. } | Error::Stale { .. } | Error::Conflict) => {
                Ok(Position::START)
            }
            Err(error) => Err(error),
        }
    }
}

/// Whether an event is a deletion that happened then, or earlier.
fn is_deletion(event: &RecordedEvent, before: DateTime<Utc>) -> bool {
    event.event_type == "file.deleted.v1" && event.time <= before
}

#[cfg(test)]
mod tests;
