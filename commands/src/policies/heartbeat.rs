//! Which other workers of a log are gone: what they had claimed is free at once, and not only when their
//! leases run out.
//!
//! The rule of this file: a worker is taken for gone only if this one has listened the whole time and heard
//! nothing of it, or if it said so. Whoever could not listen knows nothing of anybody, and then leases count.

use std::collections::{BTreeSet, HashMap};
use std::time::{Duration, Instant};

use eventlog::{Error, Pulse};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::MissedTickBehavior;
use uuid::Uuid;

use crate::Commands;

/// How often a worker says that it lives.
const EVERY: Duration = Duration::from_secs(5);

/// How long nothing was heard of a worker that is gone.
const SILENCE: Duration = Duration::from_secs(20);

/// This worker's beats.
pub(super) struct Heartbeat {
    commands: Commands,
    worker: Uuid,
    beating: JoinHandle<()>,
}

impl Heartbeat {
    /// Beats until the server stops. `on_gone` is called when a worker is found to be gone.
    pub(super) fn start(
        commands: Commands,
        worker: Uuid,
        on_gone: impl Fn() + Send + 'static,
        mut stopped: watch::Receiver<bool>,
    ) -> Heartbeat {
        let beating = beat(commands.clone(), worker, on_gone);
        let beating = tokio::spawn(async move {
            tokio::select! {
                _ = stopped.wait_for(|stopped| *stopped) => {}
                () = beating => {}
            }
        });
        Heartbeat { commands, worker, beating }
    }

    /// Says that this worker has stopped: nobody need wait for it.
    pub(super) async fn stop(self) {
        let _ = self.beating.await;
        if let Err(error) = self.commands.log().leave(self.worker).await {
            tracing::warn!(%error, "the other nodes cannot be told that this one stops");
        }
    }
}

async fn beat(commands: Commands, worker: Uuid, on_gone: impl Fn()) {
    let mut ticks = tokio::time::interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut heard = Heard::default();
    let mut is_failing = false;
    loop {
        ticks.tick().await;
        let gone = match commands.log().beat(worker).await {
            // Nobody else has this log open, or its store keeps nothing beside it.
            Ok(None) => return,
            Ok(Some(pulses)) => {
                is_failing = false;
                heard.listen(Instant::now(), worker, &pulses)
            }
            Err(Error::Closed) => return,
            Err(error) => {
                if !std::mem::replace(&mut is_failing, true) {
                    tracing::warn!(
                        %error,
                        "nothing is heard of other nodes: what one of them leaves behind waits for its lease"
                    );
                }
                heard = Heard::default();
                BTreeSet::new()
            }
        };
        let news: Vec<Uuid> = gone.difference(&commands.gone()).copied().collect();
        commands.set_gone(gone);
        for worker in &news {
            tracing::info!(%worker, "another node is gone: what it was at is taken up");
        }
        if !news.is_empty() {
            on_gone();
        }
    }
}

/// What was heard of the others, without a break.
#[derive(Default)]
struct Heard {
    last: Option<Instant>,
    /// The beats of each, and when there was a new one.
    beats: HashMap<Uuid, (u64, Instant)>,
}

impl Heard {
    /// Takes in what is heard now. Answers who is gone.
    fn listen(&mut self, now: Instant, own: Uuid, pulses: &[Pulse]) -> BTreeSet<Uuid> {
        // This process itself stood still.
        if self.last.is_some_and(|last| now - last >= SILENCE) {
            self.beats.clear();
        }
        self.last = Some(now);
        let before = std::mem::take(&mut self.beats);
        let mut gone = BTreeSet::new();
        for pulse in pulses.iter().filter(|pulse| pulse.worker != own) {
            let since = match before.get(&pulse.worker) {
                Some((beats, since)) if *beats == pulse.beats => *since,
                _ => now,
            };
            self.beats.insert(pulse.worker, (pulse.beats, since));
            if pulse.has_left || now - since >= SILENCE {
                gone.insert(pulse.worker);
            }
        }
        gone
    }
}

#[cfg(test)]
mod tests;
