//! Looking for the embedding models, at a start and for as long as one is missing, and which of them is in use.
//!
//! The rule of this file: what stands in its way is said when it changes, and not at every look.

use std::fmt;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use embeddings::{Embedder, Model, ModelError};
use projections::search::{Active, Search};
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

/// The search for the models.
#[derive(Clone, Debug)]
pub struct Looking {
    /// The model of the generation that answers the searches, as soon as it is found; before the first file, the
    /// first model that was named.
    pub embedder: watch::Receiver<Option<Embedder>>,
    /// Every model that was found, in the order in which they were named.
    pub models: watch::Receiver<Vec<Embedder>>,
    /// What stands in the way of the first of these; nothing before the first look and after it was found.
    pub trouble: watch::Receiver<Option<Trouble>>,
}

/// What was found where a model was named.
type Found = Result<Embedder, Trouble>;

impl Looking {
    /// Looks for the models where they are named until they are found, or the server stops; without a name, for
    /// the one that is fetched.
    pub fn start(
        named: Vec<PathBuf>,
        workers: Option<NonZeroUsize>,
        search: &Search,
        stop: CancellationToken,
    ) -> Looking {
        let (found, embedder) = watch::channel(None);
        let (all, models) = watch::channel(Vec::new());
        let (told, trouble) = watch::channel(None);
        let mut active = search.watch();
        tokio::spawn(async move {
            let mut places: Vec<(Option<PathBuf>, Option<Found>)> =
                named.into_iter().map(|named| (Some(named), None)).collect();
            if places.is_empty() {
                places.push((None, None));
            }
            let (mut is_time, mut all_read) = (true, Instant::now());
            loop {
                // What is there may be replaced by the right one; to look costs reading all of it.
                let again = found.borrow().is_none() && all_read.elapsed() >= LOOK_AGAIN;
                if again {
                    all_read = Instant::now();
                }
                let is_one_of_several = places.len() > 1;
                for (named, known) in &mut places {
                    let is_here = matches!(known, Some(Ok(_)));
                    if !is_time || (is_here && !again) {
                        continue;
                    }
                    let loaded = tokio::select! {
                        loaded = load(named.clone(), workers) => loaded,
                        () = stop.cancelled() => return,
                    };
                    if is_one_of_several {
                        warn(named.as_deref(), known.as_ref(), &loaded);
                    }
                    note(known, loaded);
                }
                let loaded = places.iter().filter_map(|(_, known)| known.as_ref()?.as_ref().ok());
                let loaded: Vec<Embedder> = loaded.cloned().collect();
                all.send_if_modified(|before| {
                    let revisions = |of: &[Embedder]| -> Vec<String> {
                        of.iter().map(|it| it.model().revision().to_owned()).collect()
                    };
                    let is_other = revisions(before) != revisions(&loaded);
                    *before = loaded;
                    is_other
                });
                let now = active.borrow_and_update().active().clone();
                let is_whole = places.iter().all(|(_, known)| matches!(known, Some(Ok(_))));
                let rest = match choose(&now, places.iter().filter_map(|(_, known)| known.as_ref()))
                {
                    None => LOOK,
                    Some(Ok(embedder)) => {
                        told.send_replace(None);
                        found.send_replace(Some(embedder));
                        LOOK
                    }
                    Some(Err(trouble)) => {
                        found.send_replace(None);
                        tell(&told, trouble);
                        if is_whole { LOOK_AGAIN } else { LOOK }
                    }
                };
                is_time = tokio::select! {
                    () = tokio::time::sleep(rest), if !is_whole || found.borrow().is_none() => true,
                    Ok(()) = active.changed() => false,
                    () = stop.cancelled() => break,
                };
            }
            // The channels must outlive every reader.
            tokio::join!(found.closed(), all.closed(), told.closed());
        });
        Looking { embedder, models, trouble }
    }
}

/// Says what stands in the way of one of several models, where that is news: the others serve without it.
fn warn(named: Option<&Path>, known: Option<&Found>, loaded: &Found) {
    let Err(trouble) = loaded else { return };
    let is_news = !matches!(known, Some(Err(before)) if before == trouble);
    if is_news {
        let folder = named.map(|named| named.display().to_string());
        tracing::warn!(folder, %trouble, "an embedding model is not loaded");
    }
}

/// Remembers what was found where a model was named, and says so where that is news.
fn note(known: &mut Option<Found>, loaded: Found) {
    let revision = |found: &Embedder| found.model().revision().to_owned();
    match (&*known, &loaded) {
        // The one that serves keeps its threads.
        (Some(Ok(before)), Ok(now)) if revision(before) == revision(now) => return,
        (_, Ok(now)) => tracing::info!(model = now.model().name(), "embedding model loaded"),
        _ => {}
    }
    *known = Some(loaded);
}

/// The model of the generation that answers, or what stands in its way; `None` while it is not known which that is.
fn choose<'a>(active: &Active, found: impl Iterator<Item = &'a Found> + Clone) -> Option<Found> {
    let revision = match active {
        Active::Unknown(_) => return None,
        Active::Nothing => return found.clone().next().cloned(),
        Active::Model(revision) => revision,
    };
    let mut loaded = found.clone().filter_map(|found| found.as_ref().ok());
    if let Some(embedder) = loaded.clone().find(|it| *it.model().revision() == **revision) {
        return Some(Ok(embedder.clone()));
    }
    if let Some(Err(trouble)) = found.clone().find(|found| found.is_err()) {
        return Some(Err(trouble.clone()));
    }
    let other = loaded.next()?.model();
    Some(Err(Trouble::Unusable(format!(
        "the files here were embedded by another model (revision {}) than {} (revision {}): name the folder of that \
         one too with --model-dir, or let this one embed them: POST /api/generations",
        brief(revision),
        other.name(),
        brief(other.revision()),
    ))))
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
        crate::memory::give_back();
        loaded
    });
    let workers = workers.map_or_else(Embedder::default_workers, NonZeroUsize::get);
    let model = loaded.await.map_err(|error| Trouble::Unusable(error.to_string()))??;
    let embedder = Embedder::new(model, workers);
    // Before anybody asks.
    embedder.near().await.map_err(|error| Trouble::Unusable(chain(&error)))?;
    Ok(embedder)
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
