//! An object store that is durable by itself, such as S3, and what its answers mean.
//!
//! The rule of this file: an object is absent only where the store says so of this very object. A
//! bucket that is gone, a proxy that knows nothing, a store that is away are errors: what is
//! absent may be taken for shredded.
//!
//! Conditional puts decide where two nodes could differ (keys and their marks). Blobs of one name
//! have one content, so the last one may win, and mends a damaged one.

use std::{
    ops::Range,
    sync::Arc,
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream::BoxStream};
use object_store::{
    GetOptions, GetRange, MultipartUpload, ObjectStore, ObjectStoreExt, PutMode, PutOptions,
    PutPayload, path::Path as Key,
};
use tokio::task::JoinSet;
use uuid::Uuid;

use crate::{Error, durable::UNFINISHED, objects::Listed};

/// The size of a part; a body that is no longer is put in one request.
const PART: usize = 8 * 1024 * 1024;
/// How many parts of an upload may be on their way.
const PARTS_IN_FLIGHT: usize = 2;
/// How many create the same object at once to see whether one alone does.
const RACERS: usize = 6;
/// Unfinished objects older than this belong to nobody: several nodes share an object store.
const ABANDONED_AFTER: Duration = Duration::from_secs(24 * 3600);

/// An object store, and what it is called in messages.
#[derive(Clone)]
pub(crate) struct Remote {
    store: Arc<dyn ObjectStore>,
    place: Arc<str>,
}

impl Remote {
    /// The longest blob: S3 copies up to 5 GiB in one go, as every long upload is, from no name to
    /// its own, and a sealed blob takes a little more than its content.
    pub(crate) const LONGEST: u64 = (5 * 1024 - 16) * 1024 * 1024;

    /// Takes an object store, and removes what was abandoned in it.
    pub(crate) async fn open_store(
        store: Arc<dyn ObjectStore>,
        place: &str,
    ) -> Result<Remote, Error> {
        let remote = Remote { store, place: place.into() };
        remote.clear_unfinished(SystemTime::now() - ABANDONED_AFTER).await?;
        Ok(remote)
    }

    /// Removes what was begun before `cutoff` and never got its name.
    pub(crate) async fn clear_unfinished(&self, cutoff: SystemTime) -> Result<(), Error> {
        let mut unfinished = self.list_all(UNFINISHED);
        while let Some(object) = unfinished.try_next().await? {
            if object.modified < cutoff {
                self.delete(&object.name).await?;
            }
        }
        Ok(())
    }

    /// Refuses a store that would let two nodes create the same object, and warns of one that keeps
    /// what was removed. `name` is an object that is there.
    pub(crate) async fn check_manners(&self, name: &str) -> Result<(), Error> {
        let found = self.store.get(&Key::from(name)).await.map_err(|error| self.failure(error))?;
        if found.meta.version.as_ref().is_some_and(|version| version != "null") {
            tracing::warn!(
                store = %self.place,
                "the bucket keeps old versions: a key that is shredded can be read in them until a lifecycle rule removes \
                 them"
            );
        }
        let probe = format!("{UNFINISHED}/probe-{}", Uuid::now_v7());
        let racing = (0..RACERS).map(|_| self.create(&probe, Bytes::from_static(b"probe")));
        let created = futures::future::join_all(racing).await;
        self.delete(&probe).await?;
        let created = created.into_iter().collect::<Result<Vec<bool>, Error>>()?;
        if created.into_iter().filter(|created| *created).count() > 1 {
            return Err(Error::NoConditionalPuts { place: self.place.to_string() });
        }
        Ok(())
    }

    pub(crate) async fn create(&self, name: &str, bytes: Bytes) -> Result<bool, Error> {
        let options = PutOptions::from(PutMode::Create);
        match self.store.put_opts(&Key::from(name), bytes.into(), options).await {
            Ok(_) => Ok(true),
            // Also where another creation is under way: who asks looks what came of it.
            Err(object_store::Error::AlreadyExists { .. }) => Ok(false),
            Err(error) => Err(self.failure(error)),
        }
    }

    pub(crate) async fn replace(&self, name: &str, bytes: Bytes) -> Result<(), Error> {
        self.put(name, bytes.into()).await
    }

    async fn put(&self, name: &str, payload: PutPayload) -> Result<(), Error> {
        let put = self.store.put(&Key::from(name), payload).await;
        put.map(|_| ()).map_err(|error| self.failure(error))
    }

    pub(crate) async fn read(&self, name: &str) -> Result<Option<Bytes>, Error> {
        match self.present(self.store.get(&Key::from(name)).await)? {
            Some(found) => found.bytes().await.map(Some).map_err(|error| self.failure(error)),
            None => Ok(None),
        }
    }

    /// The size of an object, its last bytes, and a handle to read the others with.
    pub(crate) async fn open(
        &self,
        name: &str,
        tail: u64,
    ) -> Result<Option<(u64, Bytes, RemoteObject)>, Error> {
        let options = GetOptions::new().with_range(Some(GetRange::Suffix(tail)));
        let found = match self.store.get_opts(&Key::from(name), options).await {
            // An object that is shorter, or empty, may be no answer to that.
            Err(error) if is_about_range(&error) => {
                let whole = self.store.get(&Key::from(name)).await;
                if whole.as_ref().is_ok_and(|whole| whole.meta.size > tail) {
                    return Err(self.failure(error));
                }
                whole
            }
            found => found,
        };
        let Some(found) = self.present(found)? else { return Ok(None) };
        let (size, e_tag) = (found.meta.size, found.meta.e_tag.clone());
        let tail = found.bytes().await.map_err(|error| self.failure(error))?;
        let object = RemoteObject { remote: self.clone(), key: Key::from(name), e_tag };
        Ok(Some((size, tail, object)))
    }

    pub(crate) async fn delete(&self, name: &str) -> Result<(), Error> {
        self.present(self.store.delete(&Key::from(name)).await).map(|_| ())
    }

    pub(crate) async fn delete_all(&self, name: &str) -> Result<(), Error> {
        let names = self.store.list(Some(&Key::from(name))).map_ok(|object| object.location);
        let mut deleted = self.store.delete_stream(names.boxed());
        while let Some(outcome) = deleted.next().await {
            self.present(outcome)?;
        }
        Ok(())
    }

    pub(crate) async fn list(&self, name: &str) -> Result<Vec<String>, Error> {
        let found = self.store.list_with_delimiter(Some(&Key::from(name))).await;
        let objects = found.map_err(|error| self.failure(error))?.objects.into_iter();
        Ok(objects.filter_map(|o| o.location.filename().map(str::to_owned)).collect())
    }

    pub(crate) fn list_all(&self, name: &str) -> BoxStream<'static, Result<Listed, Error>> {
        let remote = self.clone();
        let found = self.store.list(Some(&Key::from(name)));
        found
            .map(move |object| {
                let object = object.map_err(|error| remote.failure(error))?;
                Ok(Listed {
                    name: object.location.to_string(),
                    size: object.size,
                    modified: object.last_modified.into(),
                })
            })
            .boxed()
    }

    pub(crate) async fn move_older(
        &self,
        from: &str,
        to: &str,
        cutoff: SystemTime,
    ) -> Result<bool, Error> {
        if !self.copy(from, to).await? {
            return Ok(false);
        }
        // Looked at after the copy: what was written since must not be removed.
        match self.store.head(&Key::from(from)).await {
            Ok(object) if SystemTime::from(object.last_modified) > cutoff => {
                self.delete(to).await?;
                return Ok(false);
            }
            Ok(_) | Err(object_store::Error::NotFound { .. }) => {}
            Err(error) => return Err(self.failure(error)),
        }
        self.delete(from).await?;
        Ok(true)
    }

    pub(crate) async fn rename(&self, from: &str, to: &str) -> Result<bool, Error> {
        let copied = self.copy(from, to).await?;
        if copied {
            self.delete(from).await?;
        }
        Ok(copied)
    }

    /// Copies an object; says whether it was there.
    async fn copy(&self, from: &str, to: &str) -> Result<bool, Error> {
        let copied = self.store.copy(&Key::from(from), &Key::from(to)).await;
        Ok(self.present(copied)?.is_some())
    }

    pub(crate) fn begin(&self) -> RemoteUpload {
        RemoteUpload { remote: self.clone(), gathered: Vec::new(), length: 0, parts: None }
    }

    /// Tells what is absent from what failed.
    fn present<T>(&self, outcome: object_store::Result<T>) -> Result<Option<T>, Error> {
        match outcome {
            Ok(value) => Ok(Some(value)),
            Err(error @ object_store::Error::NotFound { .. }) if !is_elsewhere(&error) => Ok(None),
            Err(error) => Err(self.failure(error)),
        }
    }

    fn failure(&self, error: object_store::Error) -> Error {
        Error::store(&self.place, error)
    }
}

/// An object that was opened.
pub(crate) struct RemoteObject {
    remote: Remote,
    key: Key,
    e_tag: Option<String>,
}

impl RemoteObject {
    /// Reads a part of it; `None` when it is no longer the one that was opened.
    pub(crate) async fn read(&self, range: Range<u64>) -> Result<Option<Bytes>, Error> {
        let length = range.end - range.start;
        let options = GetOptions::new().with_range(Some(range)).with_if_match(self.e_tag.clone());
        let found = match self.remote.store.get_opts(&self.key, options).await {
            Err(object_store::Error::Precondition { .. }) => return Ok(None),
            found => self.remote.present(found)?,
        };
        let Some(found) = found else { return Ok(None) };
        let bytes = found.bytes().await.map_err(|error| self.remote.failure(error))?;
        Ok((bytes.len() as u64 == length).then_some(bytes))
    }
}

/// An object on its way: gathered in memory up to the size of a part, then sent in parts.
pub(crate) struct RemoteUpload {
    remote: Remote,
    gathered: Vec<Bytes>,
    length: usize,
    parts: Option<Parts>,
}

/// The parts of an upload, under no name that anybody reads.
struct Parts {
    key: Key,
    upload: Box<dyn MultipartUpload>,
    in_flight: JoinSet<object_store::Result<()>>,
}

impl RemoteUpload {
    /// Takes more bytes, and waits while too many are on their way.
    pub(crate) async fn write(&mut self, chunks: Vec<Bytes>) -> Result<(), Error> {
        for mut chunk in chunks {
            while self.length + chunk.len() > PART {
                self.gathered.push(chunk.split_to(PART - self.length));
                self.length = PART;
                self.send_part().await?;
            }
            self.length += chunk.len();
            self.gathered.push(chunk);
        }
        Ok(())
    }

    /// Gives the object its name, over what has that name now.
    pub(crate) async fn finish(mut self, name: &str) -> Result<(), Error> {
        if self.parts.is_none() {
            let payload: PutPayload = std::mem::take(&mut self.gathered).into_iter().collect();
            return self.remote.put(name, payload).await;
        }
        self.send_part().await?;
        self.wait_for_parts(0).await?;
        let parts = self.parts.as_mut().expect("there are some, or it was put above");
        let completed = parts.upload.complete().await;
        completed.map_err(|error| self.remote.failure(error))?;
        let unfinished = parts.key.to_string();
        let named = self.remote.copy(&unfinished, name).await;
        // What cannot be removed now is removed when it is old: see `open_store`.
        let _ = self.remote.delete(&unfinished).await;
        self.parts = None;
        if named? { Ok(()) } else { Err(Error::BlobMissing { name: unfinished }) }
    }

    /// Sends what was gathered as one part.
    async fn send_part(&mut self) -> Result<(), Error> {
        if self.parts.is_none() {
            let key = Key::from(format!("{UNFINISHED}/{}", Uuid::now_v7()));
            let upload = self.remote.store.put_multipart(&key).await;
            let upload = upload.map_err(|error| self.remote.failure(error))?;
            self.parts = Some(Parts { key, upload, in_flight: JoinSet::new() });
        }
        self.wait_for_parts(PARTS_IN_FLIGHT - 1).await?;
        self.length = 0;
        let payload: PutPayload = std::mem::take(&mut self.gathered).into_iter().collect();
        let parts = self.parts.as_mut().expect("made above");
        parts.in_flight.spawn(parts.upload.put_part(payload));
        Ok(())
    }

    async fn wait_for_parts(&mut self, at_most: usize) -> Result<(), Error> {
        let Some(parts) = &mut self.parts else { return Ok(()) };
        while parts.in_flight.len() > at_most {
            match parts.in_flight.join_next().await {
                Some(Ok(sent)) => sent.map_err(|error| self.remote.failure(error))?,
                Some(Err(error)) if error.is_panic() => {
                    std::panic::resume_unwind(error.into_panic())
                }
                Some(Err(_)) => return Err(Error::Stopping),
                None => break,
            }
        }
        Ok(())
    }
}

impl Drop for RemoteUpload {
    fn drop(&mut self) {
        if let (Some(mut parts), Ok(runtime)) =
            (self.parts.take(), tokio::runtime::Handle::try_current())
        {
            // Parts that stay are never seen as an object, and a lifecycle rule of the store ends
            // them.
            runtime.spawn(async move {
                parts.in_flight.shutdown().await;
                if let Err(error) = parts.upload.abort().await {
                    tracing::warn!(%error, key = %parts.key, "parts of an upload are left in the store");
                }
            });
        }
    }
}

/// Whether it was the range that was refused.
fn is_about_range(error: &object_store::Error) -> bool {
    let text = error.to_string();
    ["InvalidRange", "status code: 416", "non-partial"].iter().any(|said| text.contains(said))
}

/// Whether "not found" was not said of the object: S3 names what it did not find, and a proxy that
/// is no S3 does not.
fn is_elsewhere(error: &object_store::Error) -> bool {
    let text = error.to_string();
    text.contains("NoSuchBucket")
        || (text.contains("status code: 404") && !text.contains("NoSuchKey"))
}
