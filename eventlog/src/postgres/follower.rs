//! Hears of what other nodes commit.
//!
//! The rule of this file: the news only say when to look. They may come twice, late or never; a
//! look every now and then finds what was missed.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use sqlx::postgres::{PgListener, PgPoolOptions};
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::Shared;
use super::server::Server;
use crate::error::chain;
use crate::{Error, Position};

/// The channel of the notifications, as the migrations spell it.
const CHANNEL: &str = "event_log";

/// How many events one look brings.
const PAGE: usize = 1_000;

/// Who is further behind than this is told the head, and left to read what is in between.
const FAR_BEHIND: u64 = 4_000;

/// A connection that was silent for so long may be dead: a new one is made.
const SILENCE: Duration = Duration::from_secs(60);

/// Starts following. It ends when the set is dropped.
pub(super) fn start(server: &Arc<Server>, shared: &Arc<Shared>) -> JoinSet<()> {
    let news = Arc::new(Notify::new());
    let mut tasks = JoinSet::new();
    tasks.spawn(listen(server.clone(), shared.clone(), news.clone()));
    tasks.spawn(follow(server.clone(), shared.clone(), news));
    tasks
}

/// Passes on what other nodes notify of, and reconnects for ever.
async fn listen(server: Arc<Server>, shared: Arc<Shared>, news: Arc<Notify>) {
    loop {
        // Failures are told by `follow`, which asks the same server.
        if let Ok(mut listener) = connect(&server).await {
            // Whatever came before is not told: look.
            news.notify_one();
            while let Ok(Ok(Some(told))) = timeout(SILENCE, listener.try_recv()).await {
                if told.process_id() != shared.appender.load(Relaxed) {
                    news.notify_one();
                }
            }
            news.notify_one();
        }
        tokio::time::sleep(server.options.poll).await;
    }
}

async fn connect(server: &Server) -> sqlx::Result<PgListener> {
    let pool = PgPoolOptions::new()
        .max_connections(1)
        .max_lifetime(None)
        .idle_timeout(None)
        .acquire_timeout(server.options.connect_timeout)
        .connect_lazy_with(server.connect_options());
    let mut listener = PgListener::connect_with(&pool).await?;
    listener.listen(CHANNEL).await?;
    Ok(listener)
}

/// Looks at the log whenever there are news, and now and then without.
async fn follow(server: Arc<Server>, shared: Arc<Shared>, news: Arc<Notify>) {
    let mut was_well = true;
    loop {
        // Its end is no error: that is the look without news.
        let _ = timeout(server.options.poll, news.notified()).await;
        match catch_up(&shared).await {
            Ok(()) if was_well => {}
            Ok(()) => tracing::info!(address = server.address, "the event log can be read again"),
            Err(error) if was_well => {
                tracing::error!(cause = chain(&error), "the event log cannot be followed");
                was_well = false;
                continue;
            }
            Err(_) => continue,
        }
        was_well = true;
    }
}

/// Shows what was committed behind the end of the tail.
async fn catch_up(shared: &Shared) -> Result<(), Error> {
    loop {
        let end = shared.end();
        let head = shared.reader.head().await?;
        if head < end && shared.end() == end {
            return Err(Error::Rewound { known: end.0, found: head.0 });
        }
        if head.0 > end.0 + FAR_BEHIND {
            shared.skip_to(head);
            continue;
        }
        if head <= end {
            return Ok(());
        }
        let events = shared.reader.after(end, PAGE).await?;
        if events.is_empty() {
            return Ok(());
        }
        shared.publish(events);
    }
}

impl Shared {
    /// Begins the tail anew, far ahead.
    fn skip_to(&self, head: Position) {
        let mut tail = self.tail.write();
        if tail.end() < head {
            *tail = crate::tail::Tail::new(head);
            self.head.send_replace(head);
        }
    }
}
