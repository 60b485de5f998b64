//! Where models come from. The one rule: a directory that was named is used or refused, never silently passed over for another.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use hf_hub::Cache;
use hf_hub::api::tokio::{ApiBuilder, ApiError, ApiRepo};
use sha2::{Digest, Sha256};

use crate::error::ModelError;
use crate::model::{
    CONFIG_FILE, LENGTH_FILE, MODULES_FILE, NAME, POOLING_FILE, PROMPTS_FILE, TOKENIZER_FILE,
    WEIGHTS_FILE,
};

/// The environment variable that names the model's directory.
pub const MODEL_DIRECTORY_VARIABLE: &str = "PRODGY_MODEL_DIR";

/// Whose the models are whose name says nobody.
const OWNER: &str = "sentence-transformers";

/// What there must be.
const FILES: [&str; 3] = [CONFIG_FILE, TOKENIZER_FILE, WEIGHTS_FILE];

/// All that is fetched, the largest last: a hub that does not answer is noticed at once, and where the weights
/// are the rest is too.
const ORDER: [&str; 7] = [
    CONFIG_FILE,
    TOKENIZER_FILE,
    MODULES_FILE,
    POOLING_FILE,
    LENGTH_FILE,
    PROMPTS_FILE,
    WEIGHTS_FILE,
];

/// Where the model is: `named` (from the configuration), be it a directory or a model's name on the hub that was fetched; else the directory that `PRODGY_MODEL_DIR` names, else
/// `models/all-MiniLM-L6-v2` below the working directory, else the hub's cache. Of the last two, only where all files are.
pub fn locate(named: Option<&Path>) -> Option<PathBuf> {
    let variable = || {
        std::env::var_os(MODEL_DIRECTORY_VARIABLE)
            .filter(|value| !value.is_empty())
            .map(PathBuf::from)
    };
    if let Some(directory) = named.map(Path::to_owned).or_else(variable) {
        let fetched = || cached(&repository(directory.to_str()?));
        let is_there = directory.exists();
        return Some(if is_there { None } else { fetched() }.unwrap_or(directory));
    }
    let here = Path::new("models").join(NAME);
    if FILES.iter().all(|file| here.join(file).is_file()) {
        return Some(here);
    }
    cached(&repository(NAME))
}

/// The directory of a model in the hub's cache, where all files are.
fn cached(repository: &str) -> Option<PathBuf> {
    whole(&cache()?, repository)
}

fn whole(cache: &Cache, repository: &str) -> Option<PathBuf> {
    let cache = cache.model(repository.to_owned());
    let places: Option<Vec<_>> = FILES.iter().map(|file| cache.get(file)).collect();
    places?.first()?.parent().map(Path::to_owned)
}

/// What a model is called on the hub.
fn repository(name: &str) -> String {
    match name.contains('/') {
        true => name.to_owned(),
        false => format!("{OWNER}/{name}"),
    }
}

/// The hub's cache, unless there is no place for one: without a home, hf-hub would panic.
fn cache() -> Option<Cache> {
    let has_place = std::env::var_os("HF_HOME").is_some() || std::env::home_dir().is_some();
    has_place.then(Cache::from_env)
}

/// How far a download is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Progress<'a> {
    /// The file on its way.
    pub file: &'a str,
    /// Bytes that are here.
    pub received: u64,
    /// Bytes of the whole file.
    pub total: u64,
}

/// Downloads a model into the hub's cache, unless it is there, and answers its directory: all-MiniLM-L6-v2, or the one that is
/// `named`, as `intfloat/e5-small-v2`. Honours `HF_HOME` and `HF_ENDPOINT`.
pub async fn fetch(
    named: Option<&str>,
    progress: impl Fn(Progress<'_>) + Send + Sync + 'static,
) -> Result<PathBuf, ModelError> {
    let cache = cache().ok_or_else(|| ModelError::Hub {
        file: WEIGHTS_FILE,
        source: "there is no home directory to keep it in: set HF_HOME".into(),
    })?;
    let repository = repository(named.unwrap_or(NAME));
    fetch_with(ApiBuilder::from_env(), &cache, &repository, Arc::new(progress)).await
}

type Callback = Arc<dyn Fn(Progress<'_>) + Send + Sync>;

async fn fetch_with(
    hub: ApiBuilder,
    cache: &Cache,
    repository: &str,
    progress: Callback,
) -> Result<PathBuf, ModelError> {
    if let Some(directory) = whole(cache, repository) {
        return Ok(directory);
    }
    let failed =
        |file: &'static str| move |source| ModelError::Hub { file, source: Box::new(source) };
    let hub = hub
        .with_progress(false)
        .build()
        .map_err(failed(WEIGHTS_FILE))?
        .model(repository.to_owned());
    let cached = cache.model(repository.to_owned());
    for file in ORDER {
        if cached.get(file).is_some() {
            continue;
        }
        match download(&hub, file, &progress).await {
            Err(error) if !FILES.contains(&file) && is_absent(&error) => {}
            downloaded => {
                downloaded?;
            }
        }
    }
    whole(cache, repository).ok_or_else(|| ModelError::Hub {
        file: WEIGHTS_FILE,
        source: "it was removed from the cache again".into(),
    })
}

/// Whether the hub says that it has no such file.
fn is_absent(error: &ModelError) -> bool {
    let ModelError::Hub { source, .. } = error else { return false };
    match source.downcast_ref::<ApiError>() {
        Some(ApiError::RequestError(error)) => {
            error.status().is_some_and(|status| status.as_u16() == 404)
        }
        _ => false,
    }
}

/// Downloads one file and checks that what came is what the hub announced.
async fn download(
    hub: &ApiRepo,
    file: &'static str,
    progress: &Callback,
) -> Result<PathBuf, ModelError> {
    let watch = Watch {
        progress: Arc::clone(progress),
        file,
        received: Arc::default(),
        total: Arc::default(),
    };
    let path = hub
        .download_with_progress(file, watch)
        .await
        .map_err(|source| ModelError::Hub { file, source: Box::new(source) })?;
    let checked = path.clone();
    tokio::task::spawn_blocking(move || check(&checked, file))
        .await
        .map_err(|source| ModelError::Hub { file, source: Box::new(source) })??;
    Ok(path)
}

/// In the cache a file's entry is a link to a blob that is named by the hub's tag, which is the SHA-256 of a large file.
fn check(path: &Path, file: &'static str) -> Result<(), ModelError> {
    let unreadable = |source| ModelError::Unreadable { path: path.to_owned(), source };
    let blob = path.canonicalize().map_err(unreadable)?;
    let announced = blob.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    if announced.len() != 64 || !announced.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Ok(());
    }
    let got = hex::encode(Sha256::digest(std::fs::read(&blob).map_err(unreadable)?));
    if got.eq_ignore_ascii_case(announced) {
        return Ok(());
    }
    for damaged in [path, &blob] {
        std::fs::remove_file(damaged).map_err(unreadable)?;
    }
    Err(ModelError::Hub {
        file,
        source: format!("its SHA-256 is {got}, the hub announced {announced}").into(),
    })
}

/// Counts what hf-hub reports, from however many connections.
#[derive(Clone)]
struct Watch {
    progress: Callback,
    file: &'static str,
    received: Arc<AtomicU64>,
    total: Arc<AtomicU64>,
}

impl Watch {
    fn report(&self) {
        let (received, total) =
            (self.received.load(Ordering::Relaxed), self.total.load(Ordering::Relaxed));
        (self.progress)(Progress { file: self.file, received: received.min(total), total });
    }
}

impl hf_hub::api::tokio::Progress for Watch {
    async fn init(&mut self, size: usize, _: &str) {
        self.total.store(size as u64, Ordering::Relaxed);
        self.report();
    }

    async fn update(&mut self, size: usize) {
        self.received.fetch_add(size as u64, Ordering::Relaxed);
        self.report();
    }

    async fn finish(&mut self) {
        self.received.store(self.total.load(Ordering::Relaxed), Ordering::Relaxed);
        self.report();
    }
}

/// A callback for [`fetch`] that shows a bar where standard error is a terminal, and a line at every tenth elsewhere.
pub fn show_progress() -> impl Fn(Progress<'_>) + Send + Sync + 'static {
    let bar = std::io::IsTerminal::is_terminal(&std::io::stderr()).then(|| {
        let style = indicatif::ProgressStyle::with_template(
            "{msg:18} {bar:40} {bytes}/{total_bytes} {bytes_per_sec}",
        );
        indicatif::ProgressBar::no_length().with_style(style.expect("the template is well formed"))
    });
    let last_line = parking_lot::Mutex::new((String::new(), 0));
    move |Progress { file, received, total }| match &bar {
        Some(bar) => {
            bar.set_message(file.to_owned());
            bar.set_length(total);
            bar.set_position(received);
            if received == total {
                bar.println(format!("{file} is here"));
            }
        }
        None => {
            let line = (file.to_owned(), received * 10 / total.max(1));
            let mut last_line = last_line.lock();
            if *last_line != line {
                eprintln!("{file}: {received} of {total} bytes");
                *last_line = line;
            }
        }
    }
}

#[cfg(test)]
#[path = "hub_tests.rs"]
mod tests;
