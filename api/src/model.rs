//! Looking for the embedding model, at a start and for as long as there is none.
//!
//! The rule of this file: what stands in its way is said when it changes, and not at every look.

use std::fmt;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use embeddings::{Embedder, Model, ModelError};
use projections::{Views, file};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// How often a missing model is looked for.
const LOOK: Duration = Duration::from_secs(2);

/// How often another one is looked for than that which is there, whole, and not the right one: each look
/// reads all of it.
const LOOK_AGAIN: Duration = Duration::from_secs(60);

/// What stands in the way of the model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// It is nowhere.
    Missing,
    /// It is there and cannot be used.
    Unusable(String),
}

impl fmt::Display for Trouble {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Trouble::Missing => formatter.write_str(
                "missing: run `prodgy model fetch` or scripts/fetch-model; it is picked up as soon as it is there",
            ),
            Trouble::Unusable(why) => formatter.write_str(why),
        }
    }
}

/// The search for the model.
#[derive(Clone, Debug)]
pub struct Looking {
    /// The model, as soon as it is found.
    pub embedder: watch::Receiver<Option<Embedder>>,
    /// What stands in its way; nothing before the first look and after it was found.
    pub trouble: watch::Receiver<Option<Trouble>>,
}

impl Looking {
    /// Looks for the model until it is found, or the server stops: first where it is named. It must be the
    /// one that the files were embedded by: vectors of two models say nothing of each other.
    pub fn start(
        named: Option<PathBuf>,
        workers: Option<NonZeroUsize>,
        views: Views,
        stop: CancellationToken,
    ) -> Looking {
        let (found, embedder) = watch::channel(None);
        let (told, trouble) = watch::channel(None);
        tokio::spawn(async move {
            loop {
                let loaded = load(named.clone(), workers).await;
                let rest = if loaded.is_ok() { LOOK_AGAIN } else { LOOK };
                let found_out = async { checked(loaded?, known_revisions(&views).await?) };
                let checked = tokio::select! {
                    checked = found_out => checked,
                    () = stop.cancelled() => return,
                };
                match checked {
                    Ok(embedder) => {
                        tracing::info!(model = embedder.model().name(), "embedding model loaded");
                        told.send_replace(None);
                        found.send_replace(Some(embedder));
                        // The channels must outlive every reader.
                        tokio::join!(found.closed(), told.closed());
                        return;
                    }
                    Err(trouble) => {
                        tell(&told, trouble);
                    }
                }
                tokio::select! {
                    () = tokio::time::sleep(rest) => {}
                    () = stop.cancelled() => return,
                }
            }
        });
        Looking { embedder, trouble }
    }
}

/// Says what stands in the way, if that is news. Answers whether it was.
fn tell(told: &watch::Sender<Option<Trouble>>, trouble: Trouble) -> bool {
    let is_news = told.borrow().as_ref() != Some(&trouble);
    if is_news {
        match &trouble {
            Trouble::Missing => tracing::warn!(
                "the embedding model is missing: run `prodgy model fetch` or scripts/fetch-model; uploads are indexed \
                 when it is there"
            ),
            Trouble::Unusable(why) => {
                tracing::error!(error = why, "the embedding model cannot be loaded");
            }
        }
        told.send_replace(Some(trouble));
    }
    is_news
}

/// By which models files were embedded, as soon as the read models can say.
async fn known_revisions(views: &Views) -> Result<Vec<String>, Trouble> {
    let mut applied = views.watch();
    loop {
        match views.read(file::model_revisions) {
            Err(projections::Error::NotReady) if applied.changed().await.is_ok() => {}
            known => return known.map_err(|error| Trouble::Unusable(chain(&error))),
        }
    }
}

/// The model, if no file was embedded by another.
fn checked(embedder: Embedder, known: Vec<String>) -> Result<Embedder, Trouble> {
    let model = embedder.model();
    match known.iter().find(|known| *known != model.revision()) {
        Some(other) => Err(Trouble::Unusable(format!(
            "the files here were embedded by another model (revision {}) than {} (revision {}): name the folder of that \
             one with --model-dir, or begin with an empty data directory",
            brief(other),
            model.name(),
            brief(model.revision()),
        ))),
        None => Ok(embedder),
    }
}

/// The beginning of a revision, which tells it from others.
fn brief(revision: &str) -> &str {
    revision.get(..12).unwrap_or(revision)
}

async fn load(named: Option<PathBuf>, workers: Option<NonZeroUsize>) -> Result<Embedder, Trouble> {
    let loaded = tokio::task::spawn_blocking(move || {
        let folder = embeddings::locate(named.as_deref()).ok_or(Trouble::Missing)?;
        let loaded = Model::load(&folder).map_err(|error| match error {
            ModelError::Missing { .. } => Trouble::Missing,
            other => Trouble::Unusable(chain(&other)),
        });
        give_memory_back();
        loaded
    });
    let workers = workers.map_or_else(Embedder::default_workers, NonZeroUsize::get);
    let model = loaded.await.map_err(|error| Trouble::Unusable(error.to_string()))??;
    Ok(Embedder::new(model, workers))
}

/// Gives the system back what was read and is no longer needed: the allocator would keep it until
/// something else is freed, and an idle server frees nothing.
fn give_memory_back() {
    #[expect(unsafe_code, reason = "the allocator is written in C")]
    // SAFETY: it takes no pointer, and may be called on any thread at any time.
    unsafe {
        libmimalloc_sys::mi_collect(true);
    }
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests;
